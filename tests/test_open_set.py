"""Rows of no class: the score, the decision, and what filters make of both."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from noisefilter import INNScorer, Signals, plant_noise
from noisefilter.errors import InputError, ParameterError
from noisefilter.scores import ood_score
from noisefilter.splits import strangers
from noisefilter.verdict import CLEAN


def test_the_score_is_the_normalized_entropy():
    probs = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1]])
    naive = [0, 1, 0.5, -(0.7 * np.log(0.7) + 0.3 * np.log(0.1)) / np.log(4)]
    np.testing.assert_allclose(ood_score(probs), naive, atol=1e-9)
    np.testing.assert_allclose(ood_score(3 * probs), naive, atol=1e-9)  # sums may be a little off
    assert probs[0, 1] == 0 and ood_score(probs.astype(np.float32)).dtype == np.float64


def test_strangers_score_higher_than_95_percent_of_the_known():
    known = np.arange(101) / 100
    assert strangers(np.array([0.95, 0.951, 1.0]), known).tolist() == [False, True, True]
    assert strangers(np.array([0.5, 0.95]), known, share=0.5).tolist() == [False, True]
    assert strangers(np.array([0.1, 9.0]), np.array([])).tolist() == [False, False]
    assert strangers(known, known).sum() == 5
    with pytest.raises(ParameterError, match="share"):
        strangers(known, known, share=2)
    with pytest.raises(InputError, match="ood_scores must be a finite"):
        strangers(np.array([np.nan]), known)


def signals_of(n=400, n_wrong=80, n_planted=60, undecided=0.55, seed=0):
    """Rows of three classes; half of the wrong ones are of no class; planted rows look like wrong labels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=n)
    codes = truth.copy()
    codes[:n_wrong] = (truth[:n_wrong] + 1) % 3
    rows = np.arange(n - n_planted, n)
    planted = (codes[rows] + 1) % 3
    trained = codes.copy()
    trained[rows] = planted
    strange = np.arange(n) < n_wrong // 2
    sure = rng.uniform(0.9, 0.97, size=n)
    sure[trained != truth] = rng.uniform(undecided, undecided + 0.1, size=(trained != truth).sum())
    probs = np.full((n, 3), 1.0)
    probs[np.arange(n), truth] = 0
    probs *= ((1 - sure) / 2)[:, None]
    probs[np.arange(n), truth] = sure
    probs[strange] = rng.dirichlet([40] * 3, size=strange.sum())
    probs[np.flatnonzero(strange), codes[strange]] = 0.2
    probs /= probs.sum(axis=1, keepdims=True)
    return Signals(path_probs=probs, probe_rows=rows, probe_codes=planted), codes, strange


def judged(signals, codes, **parameters):
    made = INNScorer(split="keep", keep=0.75, open_set=True, **parameters)
    return made.fit_signals(signals, codes).verdict_


def test_planted_rows_say_how_undecided_wrong_labels_leave_a_network():
    signals, codes, strange = signals_of(n=2000, n_wrong=400, n_planted=300)
    verdict = judged(signals, codes)
    wrong = np.arange(len(codes)) < 400
    assert verdict.ood_mask[strange].all()
    assert 0.9 <= np.mean(verdict.id_mask[wrong & ~strange]) < 1  # about 5 % are mistaken for strangers
    assert np.array_equal(verdict.suggested_labels[strange], codes[strange])


def test_without_planted_rows_the_clean_ones_stand_in():
    """Clean rows are surer than wrong ones: here they make strangers of all rejected rows but the surest."""
    signals, codes, strange = signals_of(n_planted=0)
    bare = Signals(path_probs=signals.path_probs)
    verdict = judged(bare, codes)
    known = ood_score(bare.path_probs)
    expected = ~verdict.clean_mask & (known > np.quantile(known[verdict.clean_mask], 0.95))
    assert np.array_equal(verdict.ood_mask, expected) and verdict.ood_mask[strange].all()
    few, codes, _ = signals_of(n_planted=19)  # too few to tell where 95 % of them lie
    verdict = judged(few, codes)
    known = ood_score(few.path_probs)
    clean = verdict.clean_mask.copy()
    clean[few.probe_rows] = False
    others = np.arange(len(codes)) < len(codes) - 19
    expected = ~verdict.clean_mask & (known > np.quantile(known[clean], 0.95))
    assert np.array_equal(verdict.ood_mask[others], expected[others])


def test_planted_rows_themselves_are_judged_by_rank():
    """Their own label was taken from them: all look undecided, and no more are strangers than elsewhere."""
    signals, codes, strange = signals_of(undecided=0.36, n_wrong=20)
    verdict = judged(signals, codes)
    called = verdict.ood_mask[signals.probe_rows].sum()
    assert called <= 60 * strange.mean() + 1


def test_nothing_is_a_stranger_where_nothing_is_rejected(blobs):
    fitted = INNScorer(max_epochs=2, split="keep", keep=1.0, open_set=True, random_state=0)
    verdict = fitted.fit(blobs.X, blobs.y).verdict_
    assert (verdict.partition == CLEAN).all() and verdict.open_set


def test_two_classes_have_strangers_too(images):
    X = images.X.copy()
    X[:20] = np.random.default_rng(0).uniform(0, 0.4, size=(20, 8, 8))
    y = images.y.copy()
    y[:20] = np.arange(20) % 4 // 2
    verdict = (
        INNScorer(max_epochs=5, open_set=True, split="keep", keep=0.7, random_state=0).fit(X, y).verdict_
    )
    assert verdict.id_mask.any()
    assert verdict.partition.dtype == np.int8


def test_digits_of_two_unknown_classes_are_told_from_wrong_labels():
    X, truth = load_digits(return_X_y=True)
    y, planted = plant_noise(truth, "open_set", 0.2, random_state=0)
    verdict = INNScorer(max_epochs=10, open_set=True, random_state=0).fit(X, y).verdict_
    rejected = ~verdict.clean_mask
    base = planted.ood_mask[rejected].mean()
    precision = planted.ood_mask[verdict.ood_mask].mean()
    recall = verdict.ood_mask[planted.ood_mask & rejected].mean()
    assert 0.2 < base < 0.5 and precision > base + 0.3 and recall > 0.6
