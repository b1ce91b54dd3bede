"""Choosing rows with an eye on the classes: same-label replacement.

A filter inside a plain scikit-learn Pipeline may not change the number of rows. So it puts a clean row of the
same given label in the place of every row it judges noisy, and `y` stays as it is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter.errors import InputError, InputTypeError

__all__ = ["Replacement", "replacement_rows"]


class Replacement(NamedTuple):
    """Which row stands where, and the classes that had no clean row."""

    rows: NDArray[np.int64]  # (n,)
    rescued: NDArray[np.int64]  # codes of the classes without a clean row, ascending


def replacement_rows(
    codes: NDArray[np.int64],
    clean: NDArray[np.bool_],
    scores: NDArray[np.float64],
    rng: np.random.Generator,
) -> Replacement:
    """Replace every noisy row by a random clean row of the same given label.

    A class without a clean row would vanish. There, the better-scored half of its rows (rounded down, at
    least one row, ties by index) counts as usable: those rows stay and stand in for the others.

    Parameters
    ----------
    codes : ndarray of int, shape (n,)
        Given labels as codes, 0 or more.
    clean : ndarray of bool, shape (n,)
        The rows judged clean. They stay where they are.
    scores : ndarray of shape (n,)
        Finite; higher means cleaner. Read only for classes without a clean row.
    rng : numpy.random.Generator
        The same state gives the same rows.

    Returns
    -------
    Replacement
        `rows`, int64 of shape (n,): row `rows[i]` stands in place i, and `codes[rows] == codes`.
        `rescued`: the codes of the classes without a clean row, for a warning that names them.

    Raises
    ------
    InputError, InputTypeError
        Lengths that differ, negative codes, scores that are not finite, or arrays of the wrong type.
    """
    codes, clean, scores = np.asarray(codes), np.asarray(clean), np.asarray(scores)
    _check(codes, clean, scores)
    rescued = np.setdiff1d(codes, codes[clean]).astype(np.int64)
    usable = clean.copy()
    for code in rescued:
        members = np.flatnonzero(codes == code)
        best_first = members[np.argsort(-scores[members], kind="stable")]
        usable[best_first[: max(1, len(members) // 2)]] = True

    rows = np.arange(len(codes), dtype=np.int64)
    if usable.all():
        return Replacement(rows, rescued)
    pool = rows[usable][np.argsort(codes[usable], kind="stable")]  # usable rows, class by class
    counts = np.bincount(codes[usable])
    starts = np.cumsum(counts) - counts
    wanted = codes[~usable]
    rows[~usable] = pool[starts[wanted] + rng.integers(counts[wanted])]
    return Replacement(rows, rescued)


def _check(codes: NDArray[np.int64], clean: NDArray[np.bool_], scores: NDArray[np.float64]) -> None:
    if not codes.shape == clean.shape == scores.shape or codes.ndim != 1:
        got = f"{codes.shape}, {clean.shape} and {scores.shape}"
        raise InputError(
            f"codes, clean and scores must be one-dimensional and of one length, got shapes {got}."
        )
    if codes.dtype.kind not in "iu":
        raise InputTypeError(f"codes must be integers, got {codes.dtype}.")
    if clean.dtype != bool:
        raise InputTypeError(f"clean must be a mask of bool, got {clean.dtype}.")
    if (codes < 0).any():
        raise InputError(f"codes must be 0 or more, got {codes.min()}.")
    if not np.isfinite(scores).all():
        raise InputError("scores must be finite, got NaN or infinity.")
