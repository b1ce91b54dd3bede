"""Eq. (3) to (6) against loops written from the text."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter.errors import InputError, ParameterError
from noisefilter.variation import (
    BETA_RULES,
    VariationSets,
    adapted,
    changed_rate,
    clean_set,
    loss_variance,
    lowest,
    rank_variance,
    variation_sets,
)

# --- Eq. (3) --------------------------------------------------------------------------------------


def naive_variance(losses, window, ranks=True):
    n = losses.shape[1]
    changes = [
        [float(losses[s - 1, i]) - float(losses[s, i]) for i in range(n)] for s in range(1, len(losses))
    ]
    changes = changes[-window:]
    if ranks:
        changes = [[sum(other <= own for other in change) / n for own in change] for change in changes]
    means = [sum(change[i] for change in changes) / len(changes) for i in range(n)]
    return [sum((change[i] - means[i]) ** 2 for change in changes) / len(changes) for i in range(n)]


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 9), st.integers(1, 12), st.integers(2, 12), st.integers(0, 10**6))
def test_variance_of_ranks_against_naive_loops(n_epochs, n, window, seed):
    losses = np.random.default_rng(seed).exponential(size=(n_epochs, n))
    np.testing.assert_allclose(rank_variance(losses, window), naive_variance(losses, window), atol=1e-12)
    np.testing.assert_allclose(
        loss_variance(losses, window), naive_variance(losses, window, False), atol=1e-12
    )
    np.testing.assert_array_equal(rank_variance(losses), rank_variance(losses, n_epochs - 1))
    assert rank_variance(losses).max() <= 0.25


def test_three_rows_by_hand():
    losses = np.array([[2.0, 2.0, 2.0], [1.0, 1.5, 2.5], [0.0, 2.5, 1.9]])
    # changes: (1, .5, -.5) with ranks 3 2 1, and (1, -1, .6) with ranks 3 1 2
    np.testing.assert_allclose(rank_variance(losses), np.array([0, 0.25, 0.25]) / 9)
    np.testing.assert_allclose(loss_variance(losses), [0, 0.75**2, 0.55**2])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_the_direction_of_the_sort_makes_no_difference(seed, tied):
    losses = np.random.default_rng(seed).exponential(size=(6, 20))
    losses = losses.round(1) if tied else losses
    np.testing.assert_allclose(rank_variance(losses), rank_variance(-losses), atol=1e-12)


def test_ranks_do_not_see_a_common_shift_and_ties_share_their_rank():
    losses = np.random.default_rng(0).exponential(size=(6, 30))
    shifted = losses + np.random.default_rng(1).normal(size=(6, 1))
    np.testing.assert_allclose(rank_variance(shifted), rank_variance(losses), atol=1e-12)
    assert (rank_variance(np.ones((4, 5))) == 0).all()
    order = np.random.default_rng(2).permutation(30)
    tied = losses.round(0)
    np.testing.assert_array_equal(rank_variance(tied[:, order]), rank_variance(tied)[order])


def test_only_the_window_counts():
    losses = np.random.default_rng(0).exponential(size=(9, 7))
    other = losses.copy()
    other[:4] = 7.0
    np.testing.assert_array_equal(rank_variance(losses, 4), rank_variance(other, 4))
    assert not np.allclose(rank_variance(losses, 5), rank_variance(other, 5))


def test_too_few_epochs_or_a_window_of_one_is_an_error():
    for wrong in (np.zeros((2, 4)), np.zeros(5)):
        with pytest.raises(InputError, match=r"losses must be of shape \(E, n\) with E >= 3, got"):
            rank_variance(wrong)
    with pytest.raises(ParameterError, match="window must be at least 2, got 1"):
        loss_variance(np.zeros((4, 4)), 1)


# --- Eq. (4) --------------------------------------------------------------------------------------


def test_lowest_keeps_ties_together_whatever_the_order():
    first, second = np.array([3.0, 1.0, 1.0, 2.0, 1.0]), np.array([0.0, 5.0, 4.0, 0.0, 5.0])
    assert lowest(1, first).tolist() == [False, True, True, False, True]
    assert lowest(1, first, second).tolist() == [False, False, True, False, False]
    assert lowest(2, first, second).tolist() == [False, True, True, False, True]
    assert lowest(4, first).tolist() == [False, True, True, True, True]
    assert lowest(99, first).all() and not lowest(0, first).any()
    among = np.array([True, False, False, True, False])
    assert lowest(1, first, among=among).tolist() == [False, False, False, True, False]
    assert lowest(9, first, among=among).tolist() == among.tolist()
    assert not lowest(2, first, among=np.zeros(5, dtype=bool)).any()


def test_sets_are_shares_of_the_sorted_variance():
    variance = np.random.default_rng(0).permutation(10) / 10.0
    sets = variation_sets(variance, 0.64)
    assert set(variance[sets.low]) == {i / 10 for i in range(6)}
    assert np.array_equal(sets.high, ~sets.low) and np.array_equal(sets.candidates, sets.low)
    assert set(variance[variation_sets(variance, 0.6, high_share=0.2).high]) == {0.8, 0.9}


# --- Eq. (5) and (6) ------------------------------------------------------------------------------


def test_the_branch_is_chosen_from_the_learning_rates():
    rates = np.array([0.1] * 5 + [0.01] * 9)
    ends = {n: changed_rate(rates[:n], 4) for n in range(1, 15)}
    assert ends == {n: 5 if 8 <= n <= 10 else None for n in ends}  # epochs 7 to 9, the change being at 5
    assert changed_rate(None, 4) is None
    assert changed_rate(np.array([0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.001]), 5) == 4
    assert changed_rate(np.linspace(1, 0.1, 9), 5) is None  # a rate that falls in every epoch is no change


def naive_beta(predictions, codes, window, change, rule):
    beta = []
    for i in range(predictions.shape[1]):
        now, start = predictions[-1, i], predictions[max(0, len(predictions) - 1 - window), i]
        if change is None:
            beta.append(start != now)
            continue
        before, at = predictions[change - 1, i], predictions[change, i]
        beta.append(
            {
                "eq5": start != now and at != now,
                "text": start != now and before == now,
                "stable": before == now,
                "stable_label": before == now == codes[i],
            }[rule]
        )
    return beta


@pytest.mark.parametrize("rule", BETA_RULES)
@pytest.mark.parametrize("change", [None, 3, 6])
@pytest.mark.parametrize("window", [2, 5, 30])
def test_beta_against_its_text(rule, change, window):
    rng = np.random.default_rng(window)
    predictions, codes = rng.integers(3, size=(9, 200)), rng.integers(3, size=200)
    found = adapted(predictions, codes, window, change, rule)
    assert found.tolist() == naive_beta(predictions, codes, window, change, rule)
    assert 0 < found.sum() < 200


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ParameterError, match="rule must be one of"):
        adapted(np.zeros((3, 2), int), np.zeros(2, int), 2, None, "paper")


@pytest.mark.parametrize("rate_changed", [False, True])
@pytest.mark.parametrize("most", [None, 0, 3])
def test_clean_set_against_sets(rate_changed, most):
    rng = np.random.default_rng(0)
    low, high, candidates, small_loss, beta = rng.random((5, 80)) < 0.5
    high &= ~low
    losses = rng.random(80)
    found = clean_set(
        VariationSets(low, high, candidates), small_loss, beta, losses,
        rate_changed=rate_changed, most_unstable=most,
    )  # fmt: skip
    members = [set(np.flatnonzero(mask).tolist()) for mask in (low, high, candidates, small_loss, beta)]
    v_l, v_h, v_c, g_l, b = members
    if rate_changed:
        unstable = sorted(v_h & b, key=lambda i: losses[i])[: len(v_h) if most is None else most]
        expected = (v_l & g_l & b) | set(unstable)
    else:
        expected = (v_c & g_l) - b
    assert set(np.flatnonzero(found).tolist()) == expected
