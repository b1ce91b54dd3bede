"""Nearest rows with faiss; a row is excluded from its own neighbors by its index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from noisefilter.errors import ParameterError

EXACT_LIMIT = 50_000  # rows; beyond it an exact search is quadratic time nobody wants to wait for
_CHUNK = 4096


def nearest(
    features: NDArray[Any],
    n_neighbors: int,
    *,
    queries: NDArray[Any] | None = None,
    exact_limit: int = EXACT_LIMIT,
    random_state: int = 0,
) -> NDArray[np.int64]:
    """Return the row numbers of the nearest rows by Euclidean distance, nearest first.

    Up to ``exact_limit`` rows the search is exact; beyond, an inverted-file index with
    ``4 * sqrt(n)`` cells of which 16 are visited; where these hold too few rows, it is exact after all. The
    n x n matrix is never built, and the index holds the only copy of the rows.

    Parameters
    ----------
    features : (n, d) array
        Finite; centered and turned into float32 here.
    n_neighbors : int
        L, at most n - 1 (n with ``queries``).
    queries : (m, d) array, optional
        Other rows whose neighbors among ``features`` are wanted. Without them each row of
        ``features`` asks, and does not find itself, however many duplicates it has.
    exact_limit : int, default=50_000
        Rows up to which the search is exact.
    random_state : int, default=0
        Seed of the cells of the inexact index.

    Returns
    -------
    (n, L) int64 array, or (m, L) with ``queries``.

    Raises
    ------
    ParameterError
        If there are not ``n_neighbors`` rows to find.
    """
    others = len(features) - (queries is None)
    if not 1 <= n_neighbors <= others:
        raise ParameterError(f"n_neighbors must be from 1 to the {others} other rows, got {n_neighbors}.")
    scaled = _Scaled.fitted(features)
    asked = features if queries is None else queries
    found = np.empty((len(asked), n_neighbors), dtype=np.int64)

    def search(index: Any, rows: NDArray[np.int64]) -> None:
        for part in np.array_split(rows, -(-len(rows) // _CHUNK)):
            candidates = index.search(scaled(asked[part]), n_neighbors + (queries is None))[1]
            found[part] = candidates if queries is not None else _without_self(candidates, part)

    index = _build(features, scaled, exact_limit, random_state)
    search(index, _in_order_of_cells(index) if queries is None else np.arange(len(asked)))
    missed = np.flatnonzero((found < 0).any(axis=1))  # the inverted file visited too few rows
    if len(missed):
        search(_build(features, scaled, len(features), random_state), missed)
    return found


class _Scaled(NamedTuple):
    """Centered float32 rows in a unit in which no square leaves float32."""

    center: NDArray[np.float64]
    unit: np.float64  # a power of two costs no digit

    @classmethod
    def fitted(cls, features: NDArray[Any]) -> _Scaled:
        center = features.mean(axis=0, dtype=np.float64)
        largest = max(np.abs(features[rows] - center).max() for rows in _chunks(len(features)))
        return cls(center, np.exp2(-np.frexp(max(largest, np.finfo(np.float64).tiny))[1]))

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        centered = rows - self.center
        centered *= self.unit
        return np.ascontiguousarray(centered, dtype=np.float32)


def _chunks(n: int) -> Iterator[slice]:
    for start in range(0, n, _CHUNK):
        yield slice(start, min(start + _CHUNK, n))


def _build(features: NDArray[Any], scaled: _Scaled, exact_limit: int, random_state: int) -> Any:
    n, d = features.shape
    index: Any = faiss.IndexFlatL2(d)
    if n > exact_limit:
        cells = int(4 * np.sqrt(n))
        index = faiss.IndexIVFFlat(index, d, cells)
        index.cp.seed = random_state + 1
        index.cp.niter = 10
        index.nprobe = 16
        drawn = np.random.default_rng(random_state).permutation(n)[: 40 * cells]
        index.train(scaled(features[drawn]))
    for rows in _chunks(n):
        index.add(scaled(features[rows]))
    return index


def _in_order_of_cells(index: Any) -> NDArray[np.int64]:
    """Return the row numbers, those of a cell together: they visit the same cells, then in the cache."""
    if isinstance(index, faiss.IndexFlat):
        return np.arange(index.ntotal)
    lists = index.invlists
    cells = [cell for cell in range(lists.nlist) if lists.list_size(cell)]
    return np.concatenate([faiss.rev_swig_ptr(lists.get_ids(c), lists.list_size(c)) for c in cells])


def _without_self(candidates: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drop each row from its own L + 1 candidates; the last candidate goes where the row is not among them.

    With more exact duplicates than L a row may be missing from its own candidates, so its place
    must not be assumed.
    """
    is_self = candidates == rows[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    return candidates[~is_self].reshape(len(rows), -1)
