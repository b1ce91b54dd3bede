"""How good scores and verdicts are when the truth is known.

`wrong` is the mask of the rows whose given label is not the true one. As everywhere, a higher score means a
cleaner row. A number that does not exist, such as the recall on data without a wrong label, is nan.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from noisefilter.errors import InputError, InputTypeError

__all__ = [
    "FlaggedQuality",
    "clean_auc",
    "false_negative_rate_at_true_count",
    "noise_rate",
    "precision_recall_f1",
    "transition_matrix",
    "verdict_report",
]


class FlaggedQuality(NamedTuple):
    """Precision, recall and F1 of the rows that were flagged as wrong, each in [0, 1] or nan."""

    precision: float
    recall: float
    f1: float


def clean_auc(scores: ArrayLike, wrong: ArrayLike) -> float:
    """Probability that a random clean row scores higher than a random wrong one.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Finite; higher means cleaner.
    wrong : array-like of bool, shape (n,)
        The rows whose given label is not the true one.

    Returns
    -------
    float
        0.5 for random scores, 1 for a perfect order; nan where nothing or everything is wrong.

    Raises
    ------
    InputError
        Scores that are not finite, or lengths that differ.
    """
    scores, wrong = _finite(scores), _mask(wrong, "wrong")
    _check_lengths(scores=scores, wrong=wrong)
    if wrong.all() or not wrong.any():
        return float("nan")
    return float(roc_auc_score(~wrong, scores))


def precision_recall_f1(flagged: ArrayLike, wrong: ArrayLike) -> FlaggedQuality:
    """Judge a decision by its precision, recall and F1, with the wrong rows as the ones to be found.

    Parameters
    ----------
    flagged, wrong : array-like of bool, shape (n,)
        The rows judged wrong, and the rows that are.

    Returns
    -------
    FlaggedQuality
        Precision is nan where nothing is flagged, recall where nothing is wrong, F1 where both is so.
    """
    flagged, wrong = _mask(flagged, "flagged"), _mask(wrong, "wrong")
    _check_lengths(flagged=flagged, wrong=wrong)
    values = precision_recall_fscore_support(
        wrong, flagged, labels=[True], average=None, zero_division=np.nan
    )
    return FlaggedQuality(*(float(value[0]) for value in values[:3]))


def false_negative_rate_at_true_count(scores: ArrayLike, wrong: ArrayLike) -> float:
    """Share of the wrong rows that are missed when exactly as many rows as are wrong get flagged.

    It compares orders without a threshold: the lowest scores are flagged, ties by index.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Finite; higher means cleaner.
    wrong : array-like of bool, shape (n,)
        The rows whose given label is not the true one.

    Returns
    -------
    float
        In [0, 1], lower is better; nan where nothing is wrong.

    References
    ----------
    arXiv:2510.16211, its measure of label-noise detection.
    """
    scores, wrong = _finite(scores), _mask(wrong, "wrong")
    _check_lengths(scores=scores, wrong=wrong)
    n_wrong = np.count_nonzero(wrong)
    if n_wrong == 0:
        return float("nan")
    flagged = np.argsort(scores, kind="stable")[:n_wrong]
    return float(1 - np.mean(wrong[flagged]))


def noise_rate(given: ArrayLike, truth: ArrayLike) -> float:
    """Share of the rows whose given label is not the true one.

    Parameters
    ----------
    given, truth : array-like of shape (n,)
        Labels of any kind.
    """
    given, truth = np.asarray(given), np.asarray(truth)
    _check_lengths(given=given, truth=truth)
    return float(np.mean(given != truth))


def transition_matrix(given: ArrayLike, truth: ArrayLike, classes: ArrayLike) -> NDArray[np.float64]:
    """Realised P(given label j | true label i).

    Parameters
    ----------
    given, truth : array-like of shape (n,)
        Labels of any kind.
    classes : array-like of shape (K,)
        The labels of the rows and columns, in this order. Pairs with a label outside of them (strangers of an
        open set) are left out.

    Returns
    -------
    ndarray of shape (K, K)
        Row i sums to 1, or is zero where no row has true class i.
    """
    given, truth, classes = np.asarray(given), np.asarray(truth), np.asarray(classes)
    _check_lengths(given=given, truth=truth)
    n_classes = len(classes)
    known = np.isin(given, classes) & np.isin(truth, classes)
    if not known.any():
        return np.zeros((n_classes, n_classes))
    order = np.argsort(classes)
    codes = [order[np.searchsorted(classes, labels[known], sorter=order)] for labels in (truth, given)]
    matrix: NDArray[np.float64] = confusion_matrix(
        *codes, labels=np.arange(n_classes), normalize="true"
    ).astype(np.float64)
    return matrix


def verdict_report(verdict: Any, truth: ArrayLike) -> dict[str, float]:
    """Compare a verdict with the truth in one line of a table.

    Parameters
    ----------
    verdict : Verdict
        Anything with `labels`, `classes`, `scores`, `partition`, `estimated_noise_rate` and
        `transition_matrix`.
    truth : array-like of shape (n,)
        The true labels, in the row order of the verdict. Labels outside `verdict.classes` are strangers:
        such rows count as wrong.

    Returns
    -------
    dict of str to float
        `noise_rate` (true), `flagged_rate`, `auc`, `precision`, `recall`, `f1`,
        `false_negative_rate_at_true_count`, `estimated_noise_rate`, `noise_rate_error` (estimated minus true)
        and `transition_error`, the total variation between the rows of the estimated and of the realised
        matrix, averaged over the true classes that occur, in [0, 1].
    """
    given, truth = np.asarray(verdict.labels), np.asarray(truth)
    _check_lengths(truth=truth, labels=given)
    wrong = given != truth
    flagged = np.asarray(verdict.partition) != 0
    rate = noise_rate(given, truth)
    realised = transition_matrix(given, truth, verdict.classes)
    occurs = realised.any(axis=1)
    distances = np.abs(np.asarray(verdict.transition_matrix) - realised).sum(axis=1) / 2
    return {
        "noise_rate": rate,
        "flagged_rate": float(np.mean(flagged)),
        "auc": clean_auc(verdict.scores, wrong),
        **precision_recall_f1(flagged, wrong)._asdict(),
        "false_negative_rate_at_true_count": false_negative_rate_at_true_count(verdict.scores, wrong),
        "estimated_noise_rate": float(verdict.estimated_noise_rate),
        "noise_rate_error": float(verdict.estimated_noise_rate) - rate,
        "transition_error": float(distances[occurs].mean()) if occurs.any() else float("nan"),
    }


def _finite(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError("scores must be finite, got NaN or infinity.")
    return values


def _mask(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    mask = np.asarray(values)
    if mask.dtype != bool:
        raise InputTypeError(f"{name} must be a mask of bool, got {mask.dtype}.")
    return mask


def _check_lengths(**arrays: NDArray[Any]) -> None:
    """Refuse arrays that are not one-dimensional, are empty, or do not have one length."""
    shapes = {name: values.shape for name, values in arrays.items()}
    names = " and ".join(shapes)
    if len(set(shapes.values())) != 1 or any(len(shape) != 1 or shape == (0,) for shape in shapes.values()):
        got = " and ".join(map(str, shapes.values()))
        raise InputError(f"{names} must be one-dimensional, not empty and of one length, got shapes {got}.")
