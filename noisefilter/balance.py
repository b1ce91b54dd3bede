"""Choosing rows with an eye on the classes: same-label replacement, and the balance of a selected set.

A filter inside a plain scikit-learn Pipeline may not change the number of rows. So it puts a clean row of the
same given label in the place of every row it judges noisy, and `y` stays as it is.

The balanced selection is section IV-B of Hailun Wang et al., "VRLVMix: combating noisy labels with sample
selection based on loss variation": classes short of selected rows are filled up from rows that one of two
criteria believes in, and then by mixing neighbors. Neighbors are arrays of row numbers, nearest first.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter.errors import InputError, InputTypeError

__all__ = [
    "Mixing",
    "Replacement",
    "class_weights",
    "mixing_plan",
    "replacement_rows",
    "supplement",
    "without_outvoted",
]


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


def without_outvoted(
    ranked: NDArray[np.int64],
    n_kept: int,
    codes: NDArray[np.int64],
    neighbors: NDArray[Any],
    trusted: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Cut candidates of one class down to `n_kept`, those first that their neighbors outvote (edited NN).

    From the worst candidate on, one is dropped if some other label is more frequent than its own among its
    trusted neighbors, or among all of them where fewer than 3 are trusted, until `n_kept` are left. If the
    neighbors spare more than that, the worst of these go.

    Parameters
    ----------
    ranked : (m,) int array
        Row numbers of the candidates, best first.
    n_kept : int
        From 0 to m.
    codes : (n,) int array
        Given labels.
    neighbors : (n, L) int array
        The row itself excluded; the paper's L is 20.
    trusted : (n,) bool array
        Rows already selected.

    Returns
    -------
    (n_kept,) int array
        Row numbers, best first.
    """
    near = neighbors[ranked]  # (m, L)
    counted = trusted[near]
    counted |= counted.sum(axis=1, keepdims=True) < 3
    votes = np.zeros((len(ranked), int(codes.max()) + 1), dtype=np.int64)
    np.add.at(votes, (np.nonzero(counted)[0], codes[near][counted]), 1)
    outvoted = votes[np.arange(len(ranked)), codes[ranked]] < votes.max(axis=1)
    dropped = np.flatnonzero(outvoted)[::-1][: len(ranked) - n_kept]
    return np.delete(ranked, dropped)[:n_kept]


def supplement(
    codes: NDArray[np.int64],
    selected: NDArray[np.bool_],
    pool: NDArray[np.bool_],
    order: NDArray[Any],
    per_class: int,
    neighbors: NDArray[Any] | None = None,
) -> NDArray[np.bool_]:
    """Fill up the selected rows of each class to `per_class` from a pool; all of it where it is short.

    Rows already selected stay, also where a class has more of them. Classes are those of the given labels.

    Parameters
    ----------
    codes : (n,) int array
        Given labels.
    selected, pool : (n,) bool arrays
        What is selected already, and what one of the criteria believes in.
    order : (n,) array
        Lower is taken first, ties in row order: the variance of the ranks or the loss.
    per_class : int
        Number of rows a class should have.
    neighbors : (n, L) int array, optional
        Candidates that are too many are then thinned by `without_outvoted`, otherwise by `order` alone.

    Returns
    -------
    (n,) bool array
        The rows added.
    """
    added = np.zeros(len(codes), dtype=bool)
    for code in np.unique(codes):
        candidates = np.flatnonzero(pool & ~selected & (codes == code))
        candidates = candidates[np.argsort(order[candidates], kind="stable")]
        needed = max(0, per_class - int((selected & (codes == code)).sum()))
        if neighbors is not None and len(candidates) > needed:
            candidates = without_outvoted(candidates, needed, codes, neighbors, selected)
        added[candidates[:needed]] = True
    return added


class Mixing(NamedTuple):
    """Synthetic rows ``weight * x[first] + (1 - weight) * x[second]`` with the label of the first."""

    first: NDArray[np.int64]  # (m,)
    second: NDArray[np.int64]  # (m,)
    weight: NDArray[np.float64]  # (m,) in [0.5, 1]
    skipped: NDArray[np.int64]  # codes of the classes that have no row to start from, ascending


def mixing_plan(
    codes: NDArray[np.int64],
    selected: NDArray[np.bool_],
    pool: NDArray[np.bool_],
    needed: NDArray[np.int64],
    neighbors: NDArray[Any],
    predictions: NDArray[Any],
    rng: np.random.Generator,
    alpha: float = 4.0,
) -> Mixing:
    r"""Plan synthetic rows for classes that the supplement leaves short: selected rows mixed with neighbors.

    The first row is drawn from the selected rows of the class that have a neighbor in the pool; the second is
    that neighbor, those predicted to be of the class before others, the nearest first, and the next one each
    time the first row is drawn again. A class without any such neighbor repeats its selected rows
    (``second == first``, weight 1). The weight is :math:`\max(\lambda, 1 - \lambda)`,
    :math:`\lambda \sim Beta(\alpha, \alpha)`.

    Parameters
    ----------
    codes : (n,) int array
        Given labels.
    selected, pool : (n,) bool arrays
        :math:`D_c`, and the rows to look for neighbors in: those the criterion does not believe in.
    needed : (K,) int array
        Number of synthetic rows per class.
    neighbors : (n, L) int array
        Nearest first.
    predictions : (n,) int array
        Predicted class of each row.
    rng : numpy.random.Generator
        The same state gives the same plan.
    alpha : float, default=4.0
        Of the Beta distribution.
    """
    plans, skipped = [], []
    for code in np.flatnonzero(np.asarray(needed) > 0):
        count, members = int(needed[code]), np.flatnonzero(selected & (codes == code))
        if not len(members):
            skipped.append(code)
            continue
        near = neighbors[members]  # (m, L)
        preference = np.where(pool[near], np.where(predictions[near] == code, 0, 1), 2)
        order = np.argsort(preference, axis=1, kind="stable")  # nearest first among equals
        choices = (preference < 2).sum(axis=1)
        able = np.flatnonzero(choices)
        if not len(able):
            repeated = members[rng.integers(len(members), size=count)]
            plans.append((repeated, repeated, np.ones(count)))
            continue
        drawn = np.sort(able[rng.integers(len(able), size=count)])
        again = np.arange(count) - np.searchsorted(drawn, drawn)  # how often this row was drawn before
        share = rng.beta(alpha, alpha, size=count)
        partners = near[drawn, order[drawn, again % choices[drawn]]]
        plans.append((members[drawn], partners, np.maximum(share, 1 - share)))
    none = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    first, second, weight = (np.concatenate(parts) for parts in zip(none, *plans, strict=True))
    return Mixing(first, second, weight, np.array(skipped, dtype=np.int64))


def class_weights(
    codes: NDArray[np.int64], n_classes: int, limits: tuple[float, float] = (0.2, 5.0)
) -> NDArray[np.float64]:
    r"""Return what rows of each class weigh in the loss, :math:`|D_x| / (|D_x^c| K)`, Eq. (10).

    Small classes count for more; over all rows the mean is one. Deviation from the paper: weights are held
    within limits, so that no batch is ruled by one row.

    Parameters
    ----------
    codes : (m,) int array
        Given labels of the selected rows, synthetic ones among them.
    n_classes : int
        K.
    limits : (float, float), default=(0.2, 5.0)
        Least and greatest weight.

    Returns
    -------
    (K,) array
        0 for a class without a row.
    """
    counts = np.bincount(codes, minlength=n_classes)
    weights = np.clip(len(codes) / (np.maximum(counts, 1) * n_classes), *limits)
    return np.where(counts > 0, weights, 0.0)


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
