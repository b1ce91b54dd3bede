"""Every score against the sum a reader would write down."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter import scores
from noisefilter.scores import best_other, given_probability, log_margin, neighbor_vote

PROBS = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.4, 0.4, 0.2]])
CODES = np.array([0, 2, 1])


def test_by_hand():
    np.testing.assert_allclose(given_probability(PROBS, CODES), [0.7, 0.25, 0.4])
    np.testing.assert_allclose(log_margin(PROBS, CODES), [math.log(3.5), -math.log(2), 0], atol=1e-15)
    np.testing.assert_array_equal(best_other(PROBS, CODES), [1, 1, 0])
    np.testing.assert_array_equal(best_other(np.full((2, 3), 1 / 3), np.array([0, 2])), [1, 0])


def test_zero_probabilities_stay_finite_and_in_order():
    probs = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1e-9]], dtype=np.float32)
    margins = log_margin(probs, np.array([0, 0, 0]))
    assert np.isfinite(margins).all()
    assert margins[0] > margins[2] > 0 > margins[1]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([np.float32, np.float64])
)
def test_naive_loops(n, n_classes, seed, dtype):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(n_classes), n).astype(dtype)
    codes = rng.integers(n_classes, size=n)
    before = probs.copy()
    for i in range(n):
        others = [c for c in range(n_classes) if c != codes[i]]
        best = max(others, key=lambda c: probs[i, c])
        assert given_probability(probs, codes)[i] == probs[i, codes[i]]
        assert best_other(probs, codes)[i] == best
        naive = math.log(max(probs[i, codes[i]], 1e-12)) - math.log(max(probs[i, best], 1e-12))
        assert log_margin(probs, codes)[i] == pytest.approx(naive, abs=1e-6)
    np.testing.assert_array_equal(probs, before)


def test_scores_are_float64_and_numbers_are_whole():
    probs = PROBS.astype(np.float32)
    assert given_probability(probs, CODES).dtype == log_margin(probs, CODES).dtype == np.float64
    assert best_other(probs, CODES).dtype == np.int64


def test_neighbor_vote():
    neighbors = np.array([[1, 2], [0, 3], [0, 1], [2, 1]])
    np.testing.assert_array_equal(neighbor_vote(neighbors, np.array([0, 0, 1, 1])), [0.5, 0.5, 0, 0.5])


def test_without_the_penalty_predictions_are_what_the_penalized_loss_was_least_for():
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.full(4, 0.5), 12)
    logits = torch.zeros(12, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        logs = torch.log_softmax(logits, 1)
        value = (-(torch.from_numpy(q) * logs).sum(1) + (logs.exp() * logs).sum(1)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    p = torch.softmax(logits, 1).detach().numpy()
    assert np.abs(p - q).max() > 0.1  # the penalty does something
    np.testing.assert_allclose(scores.unpenalized(p), q, atol=2e-3)
    surer = rng.dirichlet(np.full(4, 0.1), 50)
    back = scores.unpenalized(surer)
    assert (back > 0).all() and (back.argmax(1) == surer.argmax(1)).all()
    np.testing.assert_allclose(back.sum(axis=1), 1)
