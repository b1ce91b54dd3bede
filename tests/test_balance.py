import numpy as np
import pytest

from noisefilter.balance import class_weights, mixing_plan, replacement_rows, supplement, without_outvoted
from noisefilter.errors import InputError, InputTypeError


def test_clean_rows_stay_and_noisy_ones_get_a_clean_row_of_their_label():
    rng = np.random.default_rng(0)
    codes = rng.integers(5, size=300)
    clean = rng.random(300) < 0.4
    rows, rescued = replacement_rows(codes, clean, rng.random(300), rng)
    np.testing.assert_array_equal(rows[clean], np.flatnonzero(clean))
    np.testing.assert_array_equal(codes[rows], codes)
    assert clean[rows].all()
    assert rows.dtype == np.int64
    assert rescued.tolist() == []


def test_every_clean_row_of_the_label_is_drawn_about_equally_often():
    codes = np.repeat([0, 1], [3000, 7])
    clean = np.isin(np.arange(3007), [10, 20, 30, 3000])
    rows, _ = replacement_rows(codes, clean, np.zeros(3007), np.random.default_rng(1))
    drawn, counts = np.unique(rows[:3000], return_counts=True)
    assert drawn.tolist() == [10, 20, 30]
    assert counts.min() > 900  # of 1000 expected, four standard deviations
    assert (rows[3000:] == 3000).all()


@pytest.mark.parametrize(("size", "kept"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_class_without_a_clean_row_keeps_its_best_half(size, kept):
    codes = np.array([7] * size + [2, 2])
    clean = np.array([False] * size + [True, False])
    scores = np.append(np.arange(size, dtype=float), [0.0, 9.0])
    rows, rescued = replacement_rows(codes, clean, scores, np.random.default_rng(0))
    best = np.arange(size)[-kept:]
    assert rescued.tolist() == [7]
    np.testing.assert_array_equal(rows[best], best)
    assert set(rows[:size]) <= set(best)
    assert rows[size:].tolist() == [size, size]


def test_rescued_rows_with_equal_scores_go_by_index():
    rows, _ = replacement_rows(np.zeros(4, int), np.zeros(4, bool), np.ones(4), np.random.default_rng(0))
    assert rows[:2].tolist() == [0, 1]
    assert set(rows[2:]) <= {0, 1}


def test_no_noisy_row_draws_nothing():
    rng = np.random.default_rng(3)
    rows, _ = replacement_rows(np.array([1, 0, 1]), np.ones(3, bool), np.zeros(3), rng)
    assert rows.tolist() == [0, 1, 2]
    assert rng.random() == np.random.default_rng(3).random()


def test_the_generator_decides_and_the_arguments_are_left_alone():
    codes, clean, scores = np.arange(100) % 4, np.arange(100) % 8 == 0, np.arange(100.0)
    before = codes.copy(), clean.copy(), scores.copy()
    one, again, other = (
        replacement_rows(codes, clean, scores, np.random.default_rng(seed)).rows for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    for array, copy in zip((codes, clean, scores), before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize(
    ("codes", "clean", "scores", "error", "message"),
    [
        ([0, 1], [True], [0.0, 0.0], InputError, "of one length"),
        ([[0, 1]], [[True, False]], [[0.0, 0.0]], InputError, "one-dimensional"),
        ([0.0, 1.0], [True, True], [0.0, 0.0], InputTypeError, "codes must be integers"),
        ([0, 1], [1, 0], [0.0, 0.0], InputTypeError, "clean must be a mask of bool"),
        ([0, -1], [True, True], [0.0, 0.0], InputError, "0 or more, got -1"),
        ([0, 1], [True, True], [0.0, np.nan], InputError, "scores must be finite"),
    ],
)
def test_bad_input(codes, clean, scores, error, message):
    with pytest.raises(error, match=message):
        replacement_rows(np.array(codes), np.array(clean), np.array(scores), np.random.default_rng(0))


# --- balanced selection ---------------------------------------------------------------------------


def world(seed, n=60, n_classes=4, n_neighbors=6):
    """Random labels, neighbors, selected rows and a pool."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(n_classes, size=n)
    neighbors = np.stack([rng.permutation(np.delete(np.arange(n), i))[:n_neighbors] for i in range(n)])
    return codes, neighbors, rng.random(n) < 0.3, rng.random(n) < 0.5, rng


def naive_thinning(ranked, n_kept, codes, neighbors, trusted):
    """Walk from the worst rank upwards, as the text has it."""
    kept = list(ranked)
    for row in list(ranked)[::-1]:
        if len(kept) == n_kept:
            break
        voters = [j for j in neighbors[row] if trusted[j]]
        if len(voters) < 3:
            voters = list(neighbors[row])
        votes = [int(codes[j]) for j in voters]
        if votes.count(codes[row]) < max(votes.count(c) for c in votes):
            kept.remove(row)
    return kept[:n_kept]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("n_kept", [0, 1, 5, 9])
def test_thinning_against_a_naive_walk(seed, n_kept):
    codes, neighbors, trusted, _, rng = world(seed)
    ranked = rng.permutation(np.flatnonzero(codes == 1))[:9]
    n_kept = min(n_kept, len(ranked))
    thinned = without_outvoted(ranked, n_kept, codes, neighbors, trusted)
    assert thinned.tolist() == naive_thinning(ranked, n_kept, codes, neighbors, trusted)


def test_outvoted_candidates_go_before_worse_ones_that_are_not():
    codes = np.array([0, 0, 0, 1, 1, 1])
    neighbors = np.array([[3, 4, 5], [0, 2, 3], [0, 1, 3], [4, 5, 0], [3, 5, 0], [3, 4, 0]])
    everyone = np.ones(6, dtype=bool)
    assert without_outvoted(np.array([0, 1, 2]), 2, codes, neighbors, everyone).tolist() == [1, 2]
    assert without_outvoted(np.array([1, 2, 0]), 1, codes, neighbors, everyone).tolist() == [1]
    assert without_outvoted(np.array([0, 1, 2]), 3, codes, neighbors, everyone).tolist() == [0, 1, 2]


def naive_supplement(codes, selected, pool, order, per_class, neighbors):
    added = set()
    for k in set(codes.tolist()):
        need = max(0, per_class - sum(bool(selected[i]) and codes[i] == k for i in range(len(codes))))
        candidates = [i for i in range(len(codes)) if pool[i] and not selected[i] and codes[i] == k]
        candidates.sort(key=lambda i: order[i])
        if neighbors is not None and len(candidates) > need:
            candidates = naive_thinning(candidates, need, codes, neighbors, selected)
        added |= set(candidates[:need])
    return added


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("per_class", [0, 4, 7, 100])
@pytest.mark.parametrize("thinned", [True, False])
def test_supplement_against_a_naive_one(seed, per_class, thinned):
    codes, neighbors, selected, pool, rng = world(seed)
    order, near = rng.random(60), neighbors if thinned else None
    added = supplement(codes, selected, pool, order, per_class, near)
    assert set(np.flatnonzero(added).tolist()) == naive_supplement(
        codes, selected, pool, order, per_class, near
    )
    assert not (added & selected).any() and not (added & ~pool).any()


def test_supplement_of_a_class_that_has_more_than_enough_or_nothing():
    codes = np.array([0, 0, 0, 2, 2])
    selected = np.array([True, True, False, False, False])
    added = supplement(codes, selected, np.array([1, 1, 1, 1, 0], bool), np.arange(5.0), 1)
    assert added.tolist() == [False, False, False, True, False]


@pytest.mark.parametrize("seed", range(6))
def test_mixing_plan_obeys_every_rule(seed):
    codes, neighbors, selected, pool, rng = world(seed)
    pool &= ~selected
    predictions, needed = rng.integers(4, size=60), np.array([0, 5, 11, 40])
    selected[codes == 3] &= False  # nothing to start from
    plan = mixing_plan(codes, selected, pool, needed, neighbors, predictions, np.random.default_rng(0))
    assert plan.skipped.tolist() == [3]
    assert np.bincount(codes[plan.first], minlength=4).tolist() == [0, 5, 11, 0]
    assert selected[plan.first].all() and (0.5 <= plan.weight).all() and (plan.weight <= 1).all()
    times = {}
    for i, j in zip(plan.first.tolist(), plan.second.tolist(), strict=True):
        choices = [c for c in neighbors[i].tolist() if pool[c]]
        choices = [c for c in choices if predictions[c] == codes[i]] + [
            c for c in choices if predictions[c] != codes[i]
        ]
        assert j == choices[times.get(i, 0) % len(choices)]
        times[i] = times.get(i, 0) + 1


def test_mixing_plan_repeats_rows_where_no_neighbor_is_in_the_pool():
    codes, near = np.array([0, 0, 1, 1]), np.array([[1], [0], [0], [2]])
    selected, nobody = np.array([True, False, True, True]), np.zeros(4, dtype=bool)
    plan = mixing_plan(codes, selected, nobody, np.array([2, 3]), near, codes, np.random.default_rng(0))
    assert np.array_equal(plan.first, plan.second) and (plan.weight == 1).all()
    assert sorted(codes[plan.first].tolist()) == [0, 0, 1, 1, 1] and plan.first[:2].tolist() == [0, 0]
    pool = np.array([False, True, False, False])
    mixed = mixing_plan(codes, selected, pool, np.array([400, 0]), near, codes, np.random.default_rng(0))
    assert (mixed.first == 0).all() and (mixed.second == 1).all()
    assert 0.62 < mixed.weight.mean() < 0.66  # E max(l, 1 - l) = 0.637 for Beta(4, 4)
    empty = mixing_plan(codes, selected, pool, np.zeros(2, int), near, codes, np.random.default_rng(0))
    assert len(empty.first) == len(empty.second) == len(empty.weight) == len(empty.skipped) == 0


def test_class_weights_are_eq_10_within_limits():
    codes = np.repeat([0, 1, 2], [50, 10, 40])
    naive = [100 / (50 * 4), 100 / (10 * 4), 100 / (40 * 4), 0.0]  # of class 3 there is no row
    np.testing.assert_allclose(class_weights(codes, 4), naive)
    assert class_weights(codes, 3)[codes].mean() == pytest.approx(1.0)
    uneven = np.repeat([0, 1], [999, 1])
    assert class_weights(uneven, 2).tolist() == [pytest.approx(1000 / 1998), 5.0]
    assert class_weights(np.repeat([0, 1], [90, 1]), 11, limits=(0.5, 2.0))[:2].tolist() == [0.5, 2.0]
