"""What a function holds beside its (n, K) input does not grow with n: rows are worked on in blocks."""

import tracemalloc

import numpy as np
import pytest

from noisefilter import (
    INNScorer,
    JoSRCSelector,
    Signals,
    SmallLossSelector,
    confident,
    estimates,
    judge,
    scores,
    splits,
)

N, K, M = 12_000, 40, 100


@pytest.fixture(scope="module")
def given():
    rng = np.random.default_rng(0)
    codes = rng.integers(K, size=N)
    logits = (
        rng.normal(size=(N, K))
        + 3.0 * np.eye(K)[np.where(rng.random(N) < 0.2, rng.integers(K, size=N), codes)]
    )
    probs = np.exp(logits)
    probs /= probs.sum(axis=1, keepdims=True)
    transition = 0.9 * np.eye(K) + 0.1 / K
    return probs, codes, probs[:M], (codes[:M] + 1) % K, transition / transition.sum(axis=1, keepdims=True)


ROW_BY_ROW = {
    "log_margin": lambda p, y, *_: scores.log_margin(p, y),
    "best_other": lambda p, y, *_: scores.best_other(p, y),
    "ood_score": lambda p, *_: scores.ood_score(p),
    "js_likelihood": lambda p, y, *_: scores.js_likelihood(p, y, 0.1),
    "estimate_noise_rate": lambda p, y, q, z, _: estimates.estimate_noise_rate(p, y, q, z),
    "noise_rate_interval": lambda p, y, q, z, _: estimates.noise_rate_interval(p, y, q, z),
    "corrected_log_odds": lambda p, y, q, z, t: estimates.corrected_log_odds(p, y, t),
    "confident_joint": lambda p, y, *_: splits.confident_joint(p, y),
    "joint": lambda p, y, *_: splits.joint(p, y).clean,
}
# Those that return (n, K) arrays, or need all of one at once.
WHOLE = {
    "unsmoothed": lambda p, *_: scores.unsmoothed(p, 0.1),
    "unpenalized": lambda p, *_: scores.unpenalized(p),
    "true_class_proba": lambda p, y, q, z, t: estimates.true_class_proba(p, y, t),
    "memorization": lambda p, y, q, z, _: estimates.memorization(p, y, q, z),
    "estimate_transition": lambda p, y, q, z, _: estimates.estimate_transition(p, y, 0.2, q, z),
}


def peak(function, arguments):
    tracemalloc.start()
    try:
        function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [*ROW_BY_ROW, *WHOLE])
def test_no_second_array_of_rows_and_classes(name, given, monkeypatch):
    monkeypatch.setattr(scores, "_BLOCK", 100 * K)
    probs = given[0]
    most = 0.5 if name in ROW_BY_ROW else 1.2
    assert peak({**ROW_BY_ROW, **WHOLE}[name], given) < most * probs.nbytes


@pytest.mark.parametrize("size", [1, 7 * K, N * K])
@pytest.mark.parametrize("name", [*ROW_BY_ROW, *WHOLE])
def test_blocks_change_nothing(name, size, given, monkeypatch):
    function = {**ROW_BY_ROW, **WHOLE}[name]
    probs, codes, *rest = given
    expected = function(probs[:300], codes[:300], *rest)
    monkeypatch.setattr(scores, "_BLOCK", size)
    np.testing.assert_allclose(function(probs[:300], codes[:300], *rest), expected, rtol=1e-11)


@pytest.mark.parametrize(
    ("kind", "fields", "n_bytes"),
    [
        # The fields with their classes in another order, the rows that were not planted, and the median over
        # all other classes; then what the fields are blended to in float64.
        (SmallLossSelector, {"mean_probs": np.float32}, 4 + 4 + 8),
        (INNScorer, {"path_probs": np.float64, "mean_probs": np.float32}, 12 + 8 + 8 + 8),
        (JoSRCSelector, {"teacher_probs": np.float32, "mean_probs": np.float32}, 8 + 8 + 8 + 8 + 8),
    ],
)
def test_what_judging_holds_of_rows_and_classes(kind, fields, n_bytes, given, monkeypatch):
    monkeypatch.setattr(scores, "_BLOCK", 100 * K)
    probs, codes, *_ = given
    planted = {"probe_rows": np.arange(M), "probe_codes": (codes[:M] + 1) % K}
    norms = {"feature_norms": np.ones(N)} if kind is JoSRCSelector else {}
    signals = Signals(**{name: probs.astype(dtype) for name, dtype in fields.items()}, **planted, **norms)
    assert peak(kind(keep_signals=False).fit_signals, (signals, codes)) < (n_bytes + 4) * N * K


def test_judge_holds_no_second_array_of_probabilities(given, monkeypatch):
    monkeypatch.setattr(scores, "_BLOCK", 100 * K)
    monkeypatch.setattr(confident, "_BATCH", 100 * K)
    probs, codes, *_ = given
    assert peak(judge, (probs, codes)) < 2.5 * probs.nbytes
