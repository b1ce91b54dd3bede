r"""Confident learning over out-of-sample probabilities, in memory bounded by a batch: which labels are wrong.

The masks are those of cleanlab's ``find_label_issues``, rule by rule, on the same probabilities. Rows are
read some at a time, so a memory map works as an array does and gives the same bits. What is kept of all are a
few numbers a row.

:func:`noisefilter.splits.joint` is the rule of the paper for the filters: there the numbers of the classes
never matter. Here they do where two classes tie, because they do in cleanlab.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter.errors import ParameterError
from noisefilter.estimates import checked
from noisefilter.scores import given_probability, in_blocks, normalized_margin

__all__ = ["RULES", "ConfidentCounts", "confusions", "count_confident", "label_issues"]

RULES = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "low_self_confidence",
    "low_normalized_margin",
)

_TOLERANCE = 1e-6  # probabilities that differ by less count as equal
_BATCH = 2**16  # numbers; of each several are made


class ConfidentCounts(NamedTuple):
    """Who is confidently what.

    Attributes
    ----------
    joint : (K, K) int array
        Rows by given and by true class; each line sums to the number of rows labeled so.
    surest : (n,) int32 array
        The class each row is counted for, -1 where it reaches the threshold of none.
    """

    joint: NDArray[np.int64]
    surest: NDArray[np.int32]


def count_confident(probs: NDArray[Any], codes: NDArray[Any]) -> ConfidentCounts:
    """Count rows by given and by confidently predicted class, as cleanlab does.

    The threshold of class j is the mean of :math:`P_j` over the rows labeled j, at least 2e-6; nobody is
    confident of a class that no row is labeled. A row that comes within 1e-6 of one threshold is counted for
    that class; one that reaches several for its most probable class **of all**, though it need not reach that
    one's threshold. (The paper's Eq. (1) takes the most probable of those reached, as
    :func:`noisefilter.splits.confident_joint` does.) Every diagonal entry is at least one. Then each line is
    scaled to the number of rows labeled so, and rounded such that its sum stays: the entries that rounding
    moved furthest the wrong way give in. Where two moved as far, numpy's sort decides, as in cleanlab.

    Parameters
    ----------
    probs : (n, K) array or memory map
        Rows need not sum to one; they are taken as they are.
    codes : (n,) int array
        Given labels, class numbers 0..K-1; a class may be missing.

    References
    ----------
    C. Northcutt, L. Jiang and I. Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR
    70, 2021, arXiv:1911.00068, section 3.1, Eq. (1) to (3).
    """
    probs, codes = checked(probs, codes)
    n_classes = probs.shape[1]
    counts = np.bincount(codes, minlength=n_classes)
    own = np.bincount(codes, weights=given_probability(probs, codes), minlength=n_classes)
    means = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    reached_from = np.maximum(means, 2 * _TOLERANCE) - _TOLERANCE

    def surest(part: NDArray[Any]) -> NDArray[np.int32]:
        reached = part >= reached_from
        n_reached = np.count_nonzero(reached, axis=1)
        best = np.where(n_reached > 1, part.argmax(axis=1), reached.argmax(axis=1))
        return np.where(n_reached > 0, best, -1).astype(np.int32)

    found = in_blocks(surest, probs)
    confident = found >= 0
    pairs = codes[confident] * n_classes + found[confident]
    joint = np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.float64)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1.0))
    joint = joint / joint.sum(axis=1, keepdims=True) * counts[:, None]
    # That it sums to n is true but for the last bits, and by these cleanlab breaks ties: added up class by
    # class of the second axis.
    joint = joint / np.ascontiguousarray(joint.T).sum() * len(codes)
    return ConfidentCounts(np.array([_rounded(line) for line in joint]), found)


def _rounded(line: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round to integers of the same sum."""
    whole = np.rint(line)
    missing = int(np.rint(line.sum()) - whole.sum())
    step = 1 if missing >= 0 else -1
    whole[np.argsort(line - whole)[::-step][: abs(missing)]] += step
    return whole.astype(np.int64)


def confusions(joint: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return P(given j | true i), (K, K), from a joint; of every class one row at least is right."""
    counts = joint.astype(np.float64)
    np.fill_diagonal(counts, np.maximum(counts.diagonal(), 1.0))
    return np.asarray((counts / counts.sum(axis=0)).T)


def label_issues(
    probs: NDArray[Any],
    codes: NDArray[Any],
    rule: str = "prune_by_noise_rate",
    counts: ConfidentCounts | None = None,
) -> NDArray[np.bool_]:
    r"""Say which labels are wrong, by one of the rules of confident learning.

    Parameters
    ----------
    probs : (n, K) array or memory map
        Out-of-sample probabilities, finite and at least 0.
    codes : (n,) int array
        Given labels, class numbers 0..K-1; a class may be missing.
    rule : str, default="prune_by_noise_rate"
        With C the joint of :func:`count_confident`:

        - ``"prune_by_noise_rate"``: for every pair, of the rows labeled k the ``C[k, j]`` with the largest
          :math:`P_j - P_k`;
        - ``"prune_by_class"``: of the rows labeled k as many as C has off its diagonal, those with the
          smallest :math:`P_k`;
        - ``"both"``: rows that both of these flag;
        - ``"confident_learning"``: rows counted for another class than the given one;
        - ``"low_self_confidence"``, ``"low_normalized_margin"``: as many rows as ``"confident_learning"``
          flags, those with the smallest :math:`P_k`, or :math:`P_k - \max_{j \ne k} P_j`.
    counts : ConfidentCounts, optional
        What :func:`count_confident` found, if that is known already.

    Returns
    -------
    (n,) bool array
        True where the label is judged wrong.

    Raises
    ------
    ParameterError
        If there is no such rule.
    InputError
        If probabilities and labels cannot be, or do not fit each other.

    Notes
    -----
    As in cleanlab: a label that is within 1e-6 of the most probable class is not flagged, except by the last
    two rules; nor does pruning touch the only row of a class; where C leaves a class nothing on its diagonal
    it is left one row, and each of its other entries is one less.

    Of rows that tie at the end of a quota, the first ones are flagged. cleanlab leaves these to an unstable
    sort, whose choice among equals differs from processor to processor; the number flagged is the same.

    Memory beside `probs` is linear in the rows alone: batches of at most 2 MiB and what is made of them, a
    few numbers of every row, and a few more of each row within a quota. How many bytes that is stands in
    ``benchmarks/README.md``.

    References
    ----------
    C. Northcutt, L. Jiang and I. Chuang, JAIR 70, 2021, arXiv:1911.00068, section 3.2, methods 2 to 5.

    Examples
    --------
    >>> import numpy as np
    >>> probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.1, 0.9]])
    >>> label_issues(probs, np.array([0, 0, 1, 1]))
    array([False, False,  True, False])
    """
    if rule not in RULES:
        raise ParameterError(f"rule must be one of {RULES}, got {rule!r}.")
    probs, codes = checked(probs, codes)
    joint, surest = count_confident(probs, codes) if counts is None else counts
    doubted = in_blocks(_doubted, probs, codes)
    off_diagonal = (surest >= 0) & (surest != codes) & doubted
    if rule == "confident_learning":
        return off_diagonal
    if rule.startswith("low_"):
        score = given_probability if rule == "low_self_confidence" else normalized_margin
        return _lowest(in_blocks(score, probs, codes), int(off_diagonal.sum()))
    quota = _quotas(joint)
    flagged = doubted
    if rule != "prune_by_class":
        flagged = flagged & _largest(_gains, probs, codes, quota * (1 - np.eye(len(quota), dtype=np.int64)))
    if rule != "prune_by_noise_rate":
        away = np.maximum(joint.sum(axis=1) - quota.diagonal(), 0)
        flagged = flagged & _largest(_lack, probs, codes, np.where(joint.sum(axis=1) > 1, away, 0)[:, None])
    return flagged


def _doubted(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(given_probability(probs, codes) + _TOLERANCE < probs.max(axis=1))


def _gains(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(probs - probs[np.arange(len(codes)), codes][:, None])


def _lack(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[Any]:
    return -given_probability(probs, codes)[:, None]


def _quotas(joint: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many rows each pair may lose: every class keeps one, and one that has one loses none."""
    empty = joint.diagonal() == 0
    quota = np.maximum(joint - empty[:, None], 0)
    np.fill_diagonal(quota, np.maximum(joint.diagonal(), 1))
    quota[joint.sum(axis=1) <= 1] = 0
    return quota


def _lowest(scores: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Mark so many rows of the lowest scores; among equals, those that come first."""
    lowest = np.zeros(len(scores), dtype=bool)
    lowest[np.argsort(scores, kind="stable")[:count]] = True
    return lowest


def _largest(
    values: Callable[[NDArray[Any], NDArray[np.int64]], NDArray[Any]],
    probs: NDArray[Any],
    codes: NDArray[np.int64],
    quota: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """Mark the rows labeled k that have one of the ``quota[k, j]`` largest values in a column j.

    Candidates are gathered batch by batch; when there are twice as many as had to be kept before, those
    beyond a quota are dropped, and what a later row has to exceed is known.
    """
    n, width = len(codes), max(1, _BATCH // probs.shape[1])
    best = _Best(quota)
    for start in range(0, n, width):
        stop = min(start + width, n)
        given = codes[start:stop]
        best.offer(values(probs[start:stop], given), given, start)
    marked = np.zeros(n, dtype=bool)
    marked[best.rows()] = True
    return marked


class _Best:
    """The largest values of every pair of a given class and a column, and the rows that have them."""

    def __init__(self, quota: NDArray[np.int64]):
        self.quota = quota.ravel()
        self.exceed = np.where(quota > 0, -np.inf, np.inf)  # what a value must exceed; (K, columns)
        self.parts: list[tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]]] = []
        self.size, self.limit = 0, 0  # the first batch already tells what most later values do not exceed

    def offer(self, values: NDArray[Any], codes: NDArray[np.int64], start: int) -> None:
        """Take what may be among the largest, of values (b, columns) of rows from `start` on."""
        row, column = np.nonzero(values > self.exceed[codes])
        pair = codes[row] * values.shape[1] + column
        self.parts.append((pair, values[row, column], row + start))
        self.size += len(row)
        if self.size > self.limit:
            self._drop()
            self.limit = 2 * self.size + _BATCH

    def rows(self) -> NDArray[np.int64]:
        """Return the rows that have one of the largest values."""
        self._drop()
        return self.parts[0][2]

    def _drop(self) -> None:
        pair, value, row = (np.concatenate(arrays) for arrays in zip(*self.parts, strict=True))
        order = np.lexsort((-value, pair))  # stable: among equals, rows that come first
        pair, value, row = pair[order], value[order], row[order]
        first = np.searchsorted(pair, np.arange(len(self.quota)))
        place = np.arange(len(pair)) - first[pair]
        last = place == self.quota[pair] - 1
        self.exceed.ravel()[pair[last]] = value[last]
        kept = place < self.quota[pair]
        self.parts = [(pair[kept], value[kept], row[kept])]
        self.size = int(kept.sum())
