"""`judge`: a verdict from probabilities that come from anywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from noisefilter import splits
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.estimates import corrected_log_odds, shrunk_transition
from noisefilter.inputs import check_labels
from noisefilter.scores import best_other, given_probability, log_margin
from noisefilter.verdict import CLEAN, ID_NOISE, Verdict

__all__ = ["judge"]

_SCORES = ("corrected", "margin", "self_confidence")


def judge(pred_probs: Any, y: Any, *, score: str = "corrected") -> Verdict:
    """Judge labels by out-of-sample probabilities of any classifier, by confident learning.

    The decision is the confident joint: for every pair of classes it counts how many rows labeled one are
    confidently predicted the other, and rejects as many, those first that are surest of the other. It equals
    cleanlab's ``find_label_issues``.

    Parameters
    ----------
    pred_probs : (n, K) array
        Probabilities of rows the classifier was **not** trained on, such as
        ``cross_val_predict(..., method="predict_proba")`` gives; columns in the order of the sorted classes
        of `y`.
    y : (n,) array
        Given labels of any kind.
    score : {"corrected", "margin", "self_confidence"}, default="corrected"
        What ``scores`` are, and so what :meth:`Verdict.keep` goes by:

        - ``"corrected"``: log-odds that the given label is the true class, given how labels get confused:
          the rates of the joint, shrunk towards their mean as far as chance explains their differences
          (:func:`noisefilter.estimates.shrunk_transition`; beyond the paper).
        - ``"margin"``: log-probability of the given label minus that of the best other.
        - ``"self_confidence"``: probability of the given label, in [0, 1].

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
        If `score` is unknown.

    Notes
    -----
    There is no rule here that estimates the rate from contradiction and doubt, as the filters have: on rows
    it has not seen, a calibrated classifier contradicts as many labels as it doubts, whatever the noise.

    Nor are strangers looked for: a row that resembles no class is not confidently another class, so the joint
    leaves it among the clean ones.

    Probabilities of the rows a classifier has learned find little, since it has seen the wrong labels too;
    for these there are the filters.

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
    labels = check_labels(y)
    probs = np.take(_checked(pred_probs, len(labels.codes), labels.classes), labels.order, axis=1)
    codes, rank = labels.codes, np.argsort(labels.order)
    split = splits.joint(probs, codes)
    counts = splits.confident_joint(probs, codes)  # (K given, K true)
    transition = (counts / counts.sum(axis=0)).T
    odds = corrected_log_odds(probs, codes, shrunk_transition(counts))
    rows = {"corrected": odds, "margin": log_margin(probs, codes)}
    return Verdict(
        labels=labels.given,
        classes=labels.classes,
        scores=rows.get(score, given_probability(probs, codes)),
        partition=np.where(split.clean, CLEAN, ID_NOISE),
        alternatives=labels.classes[labels.order[best_other(probs, codes)]],
        clean_proba=expit(odds),
        estimated_noise_rate=float(split.noise_rate or 0.0),
        transition_matrix=transition[np.ix_(rank, rank)],
        method="confident joint",
    )


def _checked(pred_probs: Any, n_samples: int, classes: NDArray[Any]) -> NDArray[np.float64]:
    """Return float64 probabilities, or say in one sentence what is wrong with them."""
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
    probs = given.astype(np.float64)
    if not np.isfinite(probs).all():
        row = int(np.flatnonzero(~np.isfinite(probs).all(axis=1))[0])
        raise InputError(f"pred_probs must be finite, got NaN or infinity in row {row}.")
    sums = probs.sum(axis=1)
    wrong = (probs.min(axis=1) < 0) | (np.abs(sums - 1.0) > 1e-2)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"pred_probs must be at least 0 in rows that sum to one, got {probs[row].min():.3g} and a "
            f"sum of {sums[row]:.4g} in row {row}. Logits must pass a softmax first."
        )
    probs /= sums[:, None]
    return probs
