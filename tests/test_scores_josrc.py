"""The likelihoods and thresholds of Jo-SRC: published values, and formulas row by row."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisefilter import scores

# smoothing, classes: P(nothing known), P(sure and right), P(sure and wrong)
TABLE = [
    (0.6, 100, 0.794, 0.604, 0.027),
    (0.6, 80, 0.800, 0.604, 0.032),
    (0.6, 10, 0.909, 0.604, 0.180),
    (0.3, 10, 0.704, 0.831, 0.106),
    (0.1, 10, 0.469, 0.948, 0.044),
    (0.1, 100, 0.281, 0.948, 0.006),
    (0.1, 2, 0.853, 0.948, 0.242),
]


@pytest.mark.parametrize(("smoothing", "n_classes", "nothing", "right", "wrong"), TABLE)
def test_likelihood_at_the_ends(smoothing, n_classes, nothing, right, wrong):
    assert scores.js_limits(n_classes, smoothing) == pytest.approx((nothing, right), abs=6e-4)
    sure = np.eye(n_classes)[[0, 0]]
    found = scores.js_likelihood(sure, np.array([0, 1]), smoothing)
    assert found.tolist() == pytest.approx([right, wrong], abs=6e-4)
    closed = 1 - 0.5 * (
        math.log2(1 / (1 - smoothing / 2))
        + (1 - smoothing) * math.log2((1 - smoothing) / (1 - smoothing / 2))
        + smoothing
    )
    assert found[0] == pytest.approx(closed, abs=1e-12)


def test_divergence_of_two_certainties_is_one_bit():
    assert scores.js_likelihood(np.eye(3), np.array([0, 1, 0]), 0.0).tolist() == [1.0, 1.0, 0.0]


@given(
    n_classes=st.integers(2, 30),
    smoothing=st.floats(0, 0.45),
    seed=st.integers(0, 10**6),
)
def test_likelihood_is_eq_2_row_by_row(n_classes, smoothing, seed):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(n_classes, 0.2), 5)
    codes = rng.integers(n_classes, size=5)
    expected = []
    for p, code in zip(probs, codes, strict=True):
        y = [1 - smoothing if c == code else smoothing / (n_classes - 1) for c in range(n_classes)]
        d = 0.0
        for a, b in zip(p, y, strict=True):
            m = (a + b) / 2
            d += (a * math.log2(a / m) if a > 0 else 0) / 2 + (b * math.log2(b / m) if b > 0 else 0) / 2
        expected.append(1 - d)
    np.testing.assert_allclose(scores.js_likelihood(probs, codes, smoothing), expected, atol=1e-10)


@pytest.mark.parametrize("n_classes", [2, 3, 4, 5, 7, 10, 14, 20, 21, 50, 100, 1000])
def test_default_thresholds_tell_the_sure_from_the_ignorant(n_classes):
    nothing, sure = scores.js_limits(n_classes, 0.1)
    warmup, final = scores.js_thresholds(n_classes, 0.1)
    assert nothing < warmup < final < sure


def test_default_thresholds_in_the_probability_of_the_label():
    for n_classes, warmup, final in ((10, 0.19, 0.30), (100, 0.09, 0.21)):
        given_ = np.linspace(0, 1, 1001)
        probs = np.full((1001, n_classes), ((1 - given_) / (n_classes - 1))[:, None])
        probs[:, 0] = given_
        likelihoods = scores.js_likelihood(probs, np.zeros(1001, dtype=int), 0.1)
        reached = [given_[likelihoods >= t].min() for t in scores.js_thresholds(n_classes, 0.1)]
        assert reached == pytest.approx([warmup, final], abs=6e-3)


def test_where_nothing_can_tell_the_thresholds_are_the_papers():
    assert scores.js_thresholds(10, 0.6) == (0.75, 0.95)


def test_threshold_schedule():
    """Eq. (12) at t_w = 10, t_max = 200, tau_c = 0.75, tau_m = 0.95."""
    told = [scores.scheduled_threshold(t, 200, 10, 0.75, 0.95) for t in (0, 1, 10, 105, 200)]
    assert told == pytest.approx([0.0, 0.075, 0.75, 0.85, 0.95])
    assert scores.scheduled_threshold(0, 5, 0, 0.75, 0.95) == 0.75
    assert scores.scheduled_threshold(4, 5, 10, 0.75, 0.95) == pytest.approx(0.3)


def test_views_disagree_where_their_classes_differ():
    views = np.array([[[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]], [[0.5, 0.1, 0.4], [0.8, 0.1, 0.1]]])
    assert scores.views_disagree(views).tolist() == [False, True]


def test_smoothing_is_undone():
    rng = np.random.default_rng(0)
    plain = rng.dirichlet(np.ones(4), 50)
    taught = plain * (1 - 0.3 - 0.1) + 0.1
    np.testing.assert_allclose(scores.unsmoothed(taught, 0.3), plain, atol=1e-2)
    surer = rng.dirichlet(np.full(4, 0.1), 200)
    back = scores.unsmoothed(surer, 0.3)
    np.testing.assert_allclose(back.sum(axis=1), 1)
    assert (back > 0).all()
    assert (np.argsort(back, axis=1) == np.argsort(surer, axis=1)).all()
    np.testing.assert_allclose(scores.unsmoothed(surer, 0.0), surer)
