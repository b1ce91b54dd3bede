"""Rows of no class: the score, the decision, and what filters make of both."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier

from noisefilter import INNScorer, Signals, SmallLossSelector, plant_noise
from noisefilter.errors import InputError, ParameterError
from noisefilter.scores import ood_score
from noisefilter.splits import stranger_share, strangers
from noisefilter.verdict import CLEAN


def test_the_score_is_the_normalized_entropy():
    probs = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0.7, 0.1, 0.1, 0.1]])
    naive = [0, 1, 0.5, -(0.7 * np.log(0.7) + 0.3 * np.log(0.1)) / np.log(4)]
    np.testing.assert_allclose(ood_score(probs), naive, atol=1e-9)
    np.testing.assert_allclose(ood_score(3 * probs), naive, atol=1e-9)  # sums may be a little off
    assert probs[0, 1] == 0 and ood_score(probs.astype(np.float32)).dtype == np.float64


def test_with_the_norms_of_features_the_score_is_a_mean_of_two_ranks():
    probs = np.array([[0.9, 0.1], [0.5, 0.5], [0.7, 0.3], [0.6, 0.4]])  # entropies rise: 0, 2, 3, 1
    norms = np.array([1.0, 9.0, 5.0, 2.0])  # fall: 1, 2, 3, 0
    found = ood_score(probs, norms)
    naive = [(0 + 3 + 1) / 8, (3 + 0 + 1) / 8, (1 + 1 + 1) / 8, (2 + 2 + 1) / 8]
    np.testing.assert_allclose(found, naive)
    assert np.array_equal(np.argsort(ood_score(probs, np.ones(4))), np.argsort(ood_score(probs)))


def test_norms_are_recorded_of_features_of_the_networks_own(blobs):
    fitted = SmallLossSelector(max_epochs=2, random_state=0).fit(blobs.X, blobs.y)
    signals = fitted.signals_
    np.testing.assert_allclose(signals.feature_norms, np.linalg.norm(signals.features, axis=1))
    given = SmallLossSelector(max_epochs=2, random_state=0).fit(blobs.X, blobs.y, features=blobs.X)
    assert given.signals_.feature_norms is None
    forest = INNScorer(RandomForestClassifier(5), random_state=0).fit(blobs.X, blobs.y)
    assert forest.signals_.feature_norms is None  # its features are the standardized inputs
    small = np.where(blobs.y == blobs.y[0], 0.1, 10.0)
    look = dict(open_set=True, split="keep", keep=0.5, random_state=0)
    judge = INNScorer(**look)
    scorer = judge.fit(blobs.X, blobs.y)
    changed = replace(scorer.signals_, feature_norms=small)
    assert not np.array_equal(clone(judge).fit_signals(changed, blobs.y).ood_mask_, scorer.ood_mask_)


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


@pytest.fixture(scope="module")
def digits_with_strangers():
    X, truth = load_digits(return_X_y=True)
    y, planted = plant_noise(truth, "open_set", 0.2, random_state=0)
    return INNScorer(max_epochs=10, open_set=True, random_state=0).fit(X, y), planted


def test_digits_of_two_unknown_classes_are_told_from_wrong_labels(digits_with_strangers):
    fitted, planted = digits_with_strangers
    verdict = fitted.verdict_
    for_their_label = ~judged_again(fitted, open_set=False).clean_mask
    base = planted.ood_mask[for_their_label].mean()
    precision = planted.ood_mask[verdict.ood_mask].mean()
    assert 0.2 < base < 0.5 and precision > base + 0.3
    assert verdict.ood_mask[planted.ood_mask & for_their_label].mean() > 0.6


def judged_again(fitted, **parameters):
    again = clone(fitted).set_params(**parameters)
    return again.fit_signals(fitted.signals_, fitted.verdict_.labels).verdict_


def test_strangers_whose_label_was_believed_are_rejected_too(digits_with_strangers):
    fitted, planted = digits_with_strangers
    verdict, closed = fitted.verdict_, judged_again(fitted, open_set=False)
    extra = closed.clean_mask & ~verdict.clean_mask
    assert not (verdict.clean_mask & ~closed.clean_mask).any()
    assert verdict.ood_mask[extra].all() and planted.ood_mask[extra].mean() > 0.9
    assert verdict.ood_mask[planted.ood_mask].mean() > closed_recall(fitted, planted) + 0.1
    # Scores, threshold and rates say the same as the masks.
    assert np.array_equal(verdict.clean_mask, verdict.scores >= verdict.threshold)
    assert np.array_equal(verdict.scores[~extra], closed.scores[~extra])
    assert verdict.clean_proba[extra].max() <= verdict.clean_proba[verdict.clean_mask].min()
    found = closed.estimated_noise_rate + extra.mean()
    assert verdict.estimated_noise_rate == pytest.approx(found)
    assert verdict.noise_rate_interval[0] <= found <= verdict.noise_rate_interval[1]
    assert np.array_equal(verdict.keep(1 - verdict.noise_rate).clean_mask, verdict.clean_mask)


def closed_recall(fitted, planted):
    """Recall of strangers when only rows that were rejected for their label are divided."""
    kept = float(judged_again(fitted, open_set=False).clean_mask.mean())
    return judged_again(fitted, split="keep", keep=kept).ood_mask[planted.ood_mask].mean()


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_without_strangers_nothing_more_is_rejected(rate):
    X, truth = load_digits(return_X_y=True)
    y = plant_noise(truth, "symmetric", rate, random_state=0)[0]
    fitted = INNScorer(max_epochs=10, open_set=True, random_state=0).fit(X, y)
    closed = judged_again(fitted, open_set=False)
    assert np.array_equal(fitted.verdict_.clean_mask, closed.clean_mask)
    assert np.array_equal(fitted.verdict_.scores, closed.scores)


def test_the_share_of_strangers_is_what_the_known_cannot_explain():
    rng = np.random.default_rng(0)
    known = rng.normal(size=4000)
    for share in (0.0, 0.1, 0.3):
        rows = np.concatenate(
            [rng.normal(size=round((1 - share) * 20_000)), np.full(round(share * 20_000), 9)]
        )
        found = stranger_share(rows, known)
        assert share - 0.03 < found <= share  # rather too few
    assert stranger_share(known - 1, known) == 0.0
    assert stranger_share(known + 9, known) > 0.95
    rows = np.r_[rng.normal(size=900), np.full(100, 9.0)]
    middling = np.sort(known)[100::200]  # 20 of them, spread as all are
    assert stranger_share(rows, middling) < stranger_share(rows, known)  # they prove less
    with pytest.raises(InputError, match="known must be a finite, non-empty"):
        stranger_share(known, [])


def test_where_nothing_is_rejected_for_its_label_strangers_still_are():
    signals, codes, _ = signals_of(n=2000, n_wrong=400, n_planted=300)
    sure = np.full((2000, 3), 0.02)
    sure[np.arange(2000), codes] = 0.96
    sure[:200] = [0.3, 0.3, 0.4]
    sure[np.arange(200), codes[:200]] = 0.45  # believed, and yet in doubt
    sure[signals.probe_rows] = 0.05
    sure[signals.probe_rows, codes[signals.probe_rows]] = 0.9
    signals = replace(signals, path_probs=sure / sure.sum(axis=1, keepdims=True))
    verdict = INNScorer(open_set=True).fit_signals(signals, codes).verdict_
    assert verdict.ood_mask[:200].sum() > 100 and not verdict.id_mask.any()
    assert not verdict.ood_mask[200:-300].any()
    assert verdict.scores[verdict.ood_mask].max() < verdict.scores[verdict.clean_mask].min()
