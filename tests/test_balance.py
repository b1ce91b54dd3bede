import numpy as np
import pytest

from noisefilter.balance import replacement_rows
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
