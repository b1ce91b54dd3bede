"""Nearest rows against a full distance matrix."""

import tracemalloc

import numpy as np
import pytest

from noisefilter import neighbors
from noisefilter.errors import ParameterError
from noisefilter.neighbors import nearest


def distances(a, b):
    return np.sqrt(((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1))


def naive(features, n_neighbors):
    matrix = distances(features, features)
    np.fill_diagonal(matrix, np.inf)
    return np.argsort(matrix, axis=1, kind="stable")[:, :n_neighbors]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize(("n", "n_neighbors"), [(2, 1), (7, 6), (60, 10), (5000, 3)])
def test_exact(n, n_neighbors, dtype):
    features = (np.random.default_rng(0).normal(size=(n, 4)) * 1000).astype(dtype)
    found = nearest(features, n_neighbors)
    assert found.dtype == np.int64
    rows = np.arange(0, n, max(1, n // 60))  # the whole matrix of 5,000 rows would take long
    matrix = distances(features[rows], features)
    matrix[np.arange(len(rows)), rows] = np.inf
    np.testing.assert_array_equal(found[rows], np.argsort(matrix, axis=1)[:, :n_neighbors])


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e25, 1e200])
def test_scale_does_not_matter(scale):
    features = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(nearest(features * scale, 5), naive(features, 5))
    queries = features + 0.01
    expected = np.argsort(distances(queries, features), axis=1)[:, :5]
    np.testing.assert_array_equal(nearest(features * scale, 5, queries=queries * scale), expected)


def test_offset_does_not_eat_the_digits():
    features = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_array_equal(nearest(features + 1e8, 5), naive(features + 1e8, 5))


def test_all_rows_alike():
    found = nearest(np.ones((9, 3)), 4)
    assert all(i not in row and len(set(row)) == 4 for i, row in enumerate(found.tolist()))


def test_duplicates_are_neighbors_but_never_oneself():
    rng = np.random.default_rng(0)
    features = np.repeat(rng.normal(size=(6, 4)), 20, axis=0)[rng.permutation(120)]
    found = nearest(features, 5)
    for i, row in enumerate(found):
        assert i not in row
        assert len(set(row.tolist())) == 5
        assert (features[row] == features[i]).all()


def test_queries_may_find_any_row():
    features = np.random.default_rng(0).normal(size=(30, 4))
    found = nearest(features, 1, queries=features[[3, 17]])
    assert found.tolist() == [[3], [17]]
    assert nearest(features, 30, queries=features[:2]).shape == (2, 30)


def test_inexact_beyond_the_limit():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3000, 8)) + 4 * rng.normal(size=(20, 8))[rng.integers(20, size=3000)]
    exact = nearest(features, 10)
    found = nearest(features, 10, exact_limit=1000)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
    assert 0.95 < recall < 1  # really inexact, and nearly right
    assert (found != np.arange(3000)[:, None]).all()
    np.testing.assert_array_equal(found, nearest(features, 10, exact_limit=1000))


def test_what_the_cells_miss_is_searched_exactly():
    # 1,990 rows in one point, ten far apart: their 16 cells hold fewer than 40 rows.
    features = np.zeros((2000, 2))
    features[:10] = 1e3 * np.random.default_rng(0).normal(size=(10, 2))
    queries = features[:3] + 0.5
    exact = nearest(features, 40, queries=queries)
    np.testing.assert_array_equal(nearest(features, 40, queries=queries, exact_limit=100), exact)
    found = nearest(features, 40, exact_limit=100)
    assert (found >= 0).all()
    assert all(len(set(row)) == 40 for row in found.tolist())


def test_only_rows_that_miss_are_searched_exactly(monkeypatch):
    # As above: the ten that are far apart find fewer than 40 others in their cells.
    features = np.zeros((2000, 2))
    features[:10] = 1e3 * np.random.default_rng(0).normal(size=(10, 2))
    build, asked = neighbors._build, []

    class Counting:
        def __init__(self, index):
            self.index = index

        def search(self, rows, n_neighbors):
            asked.append(len(rows))
            return self.index.search(rows, n_neighbors)

    def built(features, scaled, exact_limit, random_state):
        index = build(features, scaled, exact_limit, random_state)
        return Counting(index) if exact_limit == len(features) else index

    monkeypatch.setattr(neighbors, "_build", built)
    found = nearest(features, 40, exact_limit=100)
    assert asked == [10]
    np.testing.assert_array_equal(found[:10, :9], naive(features, 9)[:10])


def test_no_copy_of_the_rows_outside_the_index(monkeypatch):
    monkeypatch.setattr(neighbors, "_CHUNK", 64)
    features = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    tracemalloc.start()  # numpy tells it what it allocates, faiss does not
    try:
        nearest(features, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < features.nbytes / 2


@pytest.mark.parametrize(("n_neighbors", "queries"), [(5, None), (0, None), (6, np.zeros((1, 2)))])
def test_too_many_or_none(n_neighbors, queries):
    with pytest.raises(ParameterError, match="n_neighbors must be from 1 to the"):
        nearest(np.random.default_rng(0).normal(size=(5, 2)), n_neighbors, queries=queries)
