"""Nearest rows with faiss; a row is excluded from its own neighbors by its index."""

from __future__ import annotations

from typing import Any

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
    ``4 * sqrt(n)`` cells of which 16 are visited. The n x n matrix is never built.

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
    center = features.mean(axis=0, dtype=np.float64)
    # Squares of very large or small features would leave float32. A power of two costs no digit.
    unit = np.exp2(-np.frexp(max(np.abs(features - center).max(), np.finfo(np.float64).tiny))[1])
    base = np.ascontiguousarray((features - center) * unit, dtype=np.float32)
    asked = base if queries is None else np.ascontiguousarray((queries - center) * unit, dtype=np.float32)
    index = _build(base, exact_limit, random_state)
    found = np.empty((len(asked), n_neighbors), dtype=np.int64)
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        if queries is not None:
            found[start : start + _CHUNK] = index.search(part, n_neighbors)[1]
            continue
        rows = np.arange(start, start + len(part))
        candidates = index.search(part, n_neighbors + 1)[1]
        found[start : start + _CHUNK] = _without_self(candidates, rows)
    if (found < 0).any():  # the inverted file visited too few rows: only with absurdly uneven cells
        return nearest(features, n_neighbors, queries=queries, exact_limit=len(features))
    return found


def _build(base: NDArray[np.float32], exact_limit: int, random_state: int) -> Any:
    n, d = base.shape
    index: Any = faiss.IndexFlatL2(d)
    if n > exact_limit:
        cells = int(4 * np.sqrt(n))
        index = faiss.IndexIVFFlat(index, d, cells)
        index.cp.seed = random_state + 1
        index.cp.niter = 10
        index.nprobe = 16
        index.train(base[np.random.default_rng(random_state).permutation(n)[: 40 * cells]])
    index.add(base)
    return index


def _without_self(candidates: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drop each row from its own L + 1 candidates; the last candidate goes where the row is not among them.

    With more exact duplicates than L a row may be missing from its own candidates, so its place
    must not be assumed.
    """
    is_self = candidates == rows[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    return candidates[~is_self].reshape(len(rows), -1)
