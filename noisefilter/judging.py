"""`judge`: a verdict from probabilities that come from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from noisefilter import confident
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.estimates import corrected_log_odds, normalized, shrunk_transition
from noisefilter.inputs import check_labels
from noisefilter.scores import best_other, given_probability, in_blocks, log_margin, normalized_margin
from noisefilter.verdict import CLEAN, ID_NOISE, Verdict

__all__ = ["judge"]

_READ = {"margin": log_margin, "self_confidence": given_probability, "normalized_margin": normalized_margin}
_SCORES = ("corrected", *_READ)


def judge(pred_probs: Any, y: Any, *, score: str = "corrected", rule: str = "prune_by_noise_rate") -> Verdict:
    """Judge labels by out-of-sample probabilities of any classifier, by confident learning.

    The decision is the confident joint: for every pair of classes it counts how many rows labeled one are
    confidently predicted the other, and rejects as many, those first that are surest of the other. The rows
    rejected are those of cleanlab's ``find_label_issues``, for each of its rules.

    Parameters
    ----------
    pred_probs : (n, K) array or memory map
        Probabilities of rows the classifier was **not** trained on, such as
        ``cross_val_predict(..., method="predict_proba")`` gives; columns in the order of the sorted classes
        of `y`.
    y : (n,) array
        Given labels of any kind.
    score : {"corrected", "margin", "self_confidence", "normalized_margin"}, default="corrected"
        What ``scores`` are, and so what :meth:`Verdict.keep` goes by:

        - ``"corrected"``: log-odds that the given label is the true class, given how labels get confused:
          the rates of the joint, shrunk towards their mean as far as chance explains their differences
          (:func:`noisefilter.estimates.shrunk_transition`; beyond the paper).
        - ``"margin"``: log-probability of the given label minus that of the best other.
        - ``"self_confidence"``: probability of the given label, in [0, 1];
        - ``"normalized_margin"``: half of one plus that minus the probability of the best other, in [0, 1].
    rule : str, default="prune_by_noise_rate"
        What decides: one of :data:`noisefilter.confident.RULES`, explained at
        :func:`noisefilter.confident.label_issues`.

    Returns
    -------
    Verdict
        ``transition_matrix`` and ``estimated_noise_rate`` are those of the joint.

    Raises
    ------
    InputError
        If `pred_probs` is no finite (n, K) array of rows that sum to one, or does not fit `y`.
    LabelError
        If `y` has missing or continuous labels, or fewer than two classes.
    ParameterError
        If `score` or `rule` is unknown.

    Notes
    -----
    There is no rule here that estimates the rate from contradiction and doubt, as the filters have: on rows
    it has not seen, a calibrated classifier contradicts as many labels as it doubts, whatever the noise.

    Nor are strangers looked for: a row that resembles no class is not confidently another class, so the joint
    leaves it among the clean ones.

    Probabilities of the rows a classifier has learned find little, since it has seen the wrong labels too;
    for these there are the filters.

    A memory map of probabilities is read some rows at a time. What is kept of a row are its label, score,
    probability and decision, and on the way about 150 bytes; never all probabilities.

    References
    ----------
    C. Northcutt, L. Jiang and I. Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR
    70, 2021, arXiv:1911.00068: section 3.1 for the joint, 3.2 for "prune by noise rate".

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_predict
    >>> from noisefilter import judge
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> probs = cross_val_predict(LogisticRegression(max_iter=1000), X, y, method="predict_proba")
    >>> verdict = judge(probs, y)
    >>> int(verdict.scores.argmin()), int(verdict.suggested_labels[7])
    (7, 0)
    """
    if score not in _SCORES:
        raise ParameterError(f"score must be one of {_SCORES}, got {score!r}.")
    if rule not in confident.RULES:
        raise ParameterError(f"rule must be one of {confident.RULES}, got {rule!r}.")
    labels = check_labels(y)
    probs = _checked(pred_probs, len(labels.codes), labels.classes)
    order, given = labels.order, labels.order[labels.codes]  # ties between classes go as in cleanlab
    counts = confident.count_confident(probs, given)
    wrong = confident.label_issues(probs, given, rule, counts)
    joint = np.maximum(counts.joint, np.eye(len(order), dtype=np.int64))[np.ix_(order, order)]
    confusion = shrunk_transition(joint.astype(np.float64))

    def read(function: Callable[..., NDArray[Any]]) -> NDArray[Any]:
        """Read something off probabilities whose classes stand in the order of the codes."""
        return in_blocks(lambda part, codes: function(normalized(part[:, order]), codes), probs, labels.codes)

    odds = read(lambda part, codes: corrected_log_odds(part, codes, confusion))
    return Verdict(
        labels=labels.given,
        classes=labels.classes,
        scores=odds if score == "corrected" else read(_READ[score]),
        partition=np.where(wrong, ID_NOISE, CLEAN),
        alternatives=labels.classes[order[read(best_other)]],
        clean_proba=expit(odds),
        estimated_noise_rate=1.0 - float(counts.joint.trace()) / len(wrong),
        transition_matrix=confident.confusions(counts.joint),
        method="confident joint",
    )


def _checked(pred_probs: Any, n_samples: int, classes: NDArray[Any]) -> NDArray[Any]:
    """Return probabilities as they are, or say in one sentence what is wrong with them."""
    given = np.asarray(pred_probs.detach().cpu() if hasattr(pred_probs, "detach") else pred_probs)
    if given.dtype.kind not in "fiub":
        raise InputTypeError(f"pred_probs must be numbers, got {given.dtype}.")
    n_classes = len(classes)
    if given.ndim != 2 or len(given) != n_samples:
        raise InputError(
            f"pred_probs must have one row for each of the {n_samples} labels and one column per class, "
            f"got shape {given.shape}."
        )
    if given.shape[1] != n_classes:
        raise InputError(
            f"pred_probs must have one column for each of the {n_classes} classes in y, in sorted order, got "
            f"{given.shape[1]}. Leave out classes that no row is labeled, and divide by the sums."
        )
    finite = in_blocks(lambda part: np.isfinite(part).all(axis=1), given)
    if not finite.all():
        raise InputError(f"pred_probs must be finite, got NaN or infinity in row {int(finite.argmin())}.")
    right = in_blocks(_sum_to_one, given)
    if not right.all():
        row = int(right.argmin())
        probs = given[row].astype(np.float64)
        raise InputError(
            f"pred_probs must be at least 0 in rows that sum to one, got {probs.min():.3g} and a "
            f"sum of {probs.sum():.4g} in row {row}. Logits must pass a softmax first."
        )
    return given if given.dtype.kind == "f" else given.astype(np.float64)


def _sum_to_one(part: NDArray[Any]) -> NDArray[np.bool_]:
    sums = part.sum(axis=1, dtype=np.float64)
    return np.asarray((part.min(axis=1) >= 0) & (np.abs(sums - 1.0) <= 1e-2))
