"""Per-row scores, one function per equation. Arrays in, float64 arrays out, higher = cleaner.

``codes`` are the given labels as class numbers 0..K-1 of shape (n,), ``probs`` has shape (n, K).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import rankdata

_SMALLEST = 1e-12  # softmax in float32 can give exact zeros, whose logarithm no margin survives
_BLOCK = 2**18  # numbers, 2 MiB: what is worked on then lies in a cache


def in_blocks(function: Callable[..., NDArray[Any]], *arrays: NDArray[Any]) -> NDArray[Any]:
    """Apply a function of single rows to some rows of the arrays at a time, and return what comes of all.

    Of (n, K) arrays a function makes several more on its way. In blocks these take no memory to speak of,
    however many rows and classes there are.

    Parameters
    ----------
    function : callable
        Takes b rows of each array, and returns an array (b, ...).
    *arrays : (n, ...) arrays
        The first one tells how many rows make a block.
    """
    n, size = len(arrays[0]), max(1, _BLOCK // max(1, arrays[0][:1].size))
    whole = np.empty(0)
    for start in range(0, max(1, n), size):
        part = function(*(array[start : start + size] for array in arrays))
        if start == 0:
            whole = np.empty((n, *part.shape[1:]), dtype=part.dtype)
        whole[start : start + size] = part
    return whole


def given_probability(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of the given label, in [0, 1].

    On mean path probabilities this is the INN score, Eq. (1) of Park, Kim & Kim, "INN: a method
    identifying clean-annotated samples via consistency effect in deep neural networks"
    (arXiv:2106.15185): averaging over paths and picking the column of the label commute.
    """
    return np.asarray(np.asarray(probs)[np.arange(len(codes)), codes], dtype=np.float64)


def log_margin(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Return :math:`\log P_i[y_i] - \max_{c \ne y_i} \log P_i[c]`.

    Positive where the given label is the most probable one. On probabilities averaged over epochs
    this is the score that arXiv:2510.16211 found best of all that need no clean data; on mean path
    probabilities it is the margin form of INN's score, which is not in its paper.
    """
    return in_blocks(_log_margin, np.asarray(probs), codes)


def _log_margin(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    log_probs = np.log(np.clip(probs, _SMALLEST, None, dtype=np.float64))
    rows = np.arange(len(codes))
    given = log_probs[rows, codes]
    log_probs[rows, codes] = -np.inf
    return np.asarray(given - log_probs.max(axis=1))


def normalized_margin(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Return :math:`(1 + P_i[y_i] - \max_{c \ne y_i} P_i[c]) / 2`, in [0, 1].

    At least one half where the given label is the most probable one.
    """
    return in_blocks(_normalized_margin, np.asarray(probs), codes)


def _normalized_margin(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    others = np.array(probs, dtype=np.float64)
    rows = np.arange(len(codes))
    given = others[rows, codes]
    others[rows, codes] = -np.inf
    return np.asarray((given - others.max(axis=1) + 1.0) / 2.0)


def best_other(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most probable class other than the given one, (n,); the lower number among equals."""
    return in_blocks(_best_other, np.asarray(probs), codes)


def _best_other(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    others = np.array(probs, dtype=np.float64)
    others[np.arange(len(codes)), codes] = -np.inf
    return np.asarray(others.argmax(axis=1), dtype=np.int64)


def neighbor_vote(neighbors: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the L neighbors that carry the row's own given label, in [0, 1].

    The limit that INN reaches, up to an affine map, when the network has memorized every label:
    score = 1/2 + vote/2 (Lemma 1 of arXiv:2106.15185, supplementary A).
    """
    return np.asarray((codes[neighbors] == codes[:, None]).mean(axis=1), dtype=np.float64)


# --- Jo-SRC: Yao et al., "Jo-SRC: a contrastive approach for combating noisy labels", CVPR 2021 -------------


def smoothed(codes: NDArray[np.int64], n_classes: int, smoothing: float) -> NDArray[np.float64]:
    """Return label distributions (n, K): 1 - smoothing for the label, the rest spread evenly, Eq. (5)."""
    targets = np.full((len(codes), n_classes), smoothing / (n_classes - 1))
    targets[np.arange(len(codes)), codes] = 1.0 - smoothing
    return targets


def unsmoothed(probs: NDArray[Any], smoothing: float) -> NDArray[np.float64]:
    """Return probabilities (n, K) as they would be without label smoothing, as far as they can be told.

    A network trained on smoothed labels turns the probability q of a class into
    (1 - smoothing) q + smoothing (1 - q) / (K - 1). This is undone; where less is left than one can expect
    of an impossible class, a thousandth of the probability stays, so that no two ranks fall together.
    """

    def plain(probs: NDArray[Any]) -> NDArray[np.float64]:
        probs = np.asarray(probs, dtype=np.float64)
        floor = smoothing / (probs.shape[1] - 1)
        plain = np.maximum((probs - floor) / (1.0 - smoothing - floor), 1e-3 * probs)
        return np.asarray(plain / plain.sum(axis=1, keepdims=True))

    return in_blocks(plain, np.asarray(probs))


def unpenalized(probs: NDArray[Any]) -> NDArray[np.float64]:
    r"""Return probabilities (n, K) as they would be without the penalty on confident predictions.

    Where a class has the probability q, :math:`-\sum_k q_k \log p_k + \sum_k p_k \log p_k` is least at p with
    :math:`q_k = p_k (1 + \log p_k + H(p))`, H the entropy. Where that is less than a thousandth of
    :math:`p_k`, so much stays, so that no two ranks fall together.
    """

    def plain(probs: NDArray[Any]) -> NDArray[np.float64]:
        probs = np.asarray(probs, dtype=np.float64)
        logs = np.log(np.clip(probs, _SMALLEST, None))
        entropy = -(probs * logs).sum(axis=1, keepdims=True)
        plain = np.maximum(probs * (1.0 + logs + entropy), 1e-3 * probs)
        return np.asarray(plain / plain.sum(axis=1, keepdims=True))

    return in_blocks(plain, np.asarray(probs))


def js_likelihood(probs: NDArray[Any], codes: NDArray[np.int64], smoothing: float) -> NDArray[np.float64]:
    r"""Return :math:`P_{clean} = 1 - D_{JS}(p_i \| \hat y_i)` in base 2, Eq. (2) and (3), in [0, 1].

    :math:`\hat y_i` is the smoothed label. Not monotone in the probability of the label: a network that is
    surer than 1 - smoothing loses likelihood again, see :func:`js_limits`.
    """

    def likelihood(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
        probs = np.asarray(probs, dtype=np.float64)
        targets = smoothed(codes, probs.shape[1], smoothing)
        middle = (probs + targets) / 2
        bits = (rel_entr(probs, middle) + rel_entr(targets, middle)).sum(axis=1) / (2 * np.log(2))
        return np.asarray(np.clip(1.0 - bits, 0.0, 1.0))

    return in_blocks(likelihood, np.asarray(probs), codes)


def js_limits(n_classes: int, smoothing: float) -> tuple[float, float]:
    """Return :math:`P_{clean}` of a network that knows nothing, and of one that is sure and right.

    A threshold tells clean rows from others only above the first and up to the second.
    """
    probs = np.stack([np.full(n_classes, 1.0 / n_classes), np.eye(n_classes)[0]])
    nothing, sure = js_likelihood(probs, np.zeros(2, dtype=np.int64), smoothing)
    return float(nothing), float(sure)


def js_thresholds(n_classes: int, smoothing: float) -> tuple[float, float]:
    """Return thresholds of :math:`P_{clean}` for the end of the warm-up and for the end of training.

    They lie at a quarter and at half of the way between :func:`js_limits`. With a smoothing of 0.1 and ten
    classes, or a hundred, they accept labels of a probability of about 0.19 (0.09) and 0.30 (0.21), the rest
    of it spread evenly. Where the limits leave no room, they are the paper's 0.75 and 0.95.
    """
    nothing, sure = js_limits(n_classes, smoothing)
    if nothing >= sure:
        return 0.75, 0.95
    return nothing + 0.25 * (sure - nothing), nothing + 0.5 * (sure - nothing)


def scheduled_threshold(
    epoch: float, n_epochs: int, warmup_epochs: int, warmup_threshold: float, final_threshold: float
) -> float:
    """Return the threshold of :math:`P_{clean}` in an epoch, Eq. (12): two straight lines.

    ``epoch`` counts from 0, as in the official code, so that the first epoch takes every row for clean; the
    paper counts from 1.
    """
    if epoch < warmup_epochs:
        return warmup_threshold * epoch / warmup_epochs
    late = (epoch - warmup_epochs) / max(n_epochs - warmup_epochs, 1)
    return warmup_threshold + late * (final_threshold - warmup_threshold)


def views_disagree(view_probs: NDArray[Any]) -> NDArray[np.bool_]:
    r"""Return whether two views (2, n, K) of a row are taken for different classes, Eq. (4).

    The paper prints min(1, \|difference of the class numbers\|), which is the same.
    """
    first, second = np.asarray(view_probs).argmax(axis=2)
    return np.asarray(first != second)


def log_probability(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the log-probability of the given label, at most 0: minus its cross-entropy."""
    return np.asarray(np.log(np.clip(given_probability(probs, codes), _SMALLEST, None)))


# --- strangers ----------------------------------------------------------------------------------------------


def ood_score(probs: NDArray[Any], feature_norms: NDArray[Any] | None = None) -> NDArray[np.float64]:
    r"""Return how undecided the network is between all classes, in [0, 1]; **higher = stranger**.

    The entropy :math:`-\sum_k P_i[k] \log P_i[k] / \log K`. A row of no class resembles none of them,
    whatever its label. A row with the wrong label resembles the class it belongs to, and a network that did
    not memorize the label says so.

    With the norms of the network's features it is the mean of two ranks, each divided by n: that of the
    entropy and that of the norm, small norms first. What a network does not know excites few of its features
    (Dhamija, Günther & Boult, "Reducing network agnostophobia", NeurIPS 2018).

    Parameters
    ----------
    probs : (n, K) array
        Probabilities of the classes.
    feature_norms : (n,) array, optional
        Norms of the features the network itself made of the rows.
    """
    undecided = in_blocks(_entropy, np.asarray(probs))
    if feature_norms is None:
        return undecided
    ranks = rankdata(undecided) + rankdata(-np.asarray(feature_norms, dtype=np.float64))
    return np.asarray((ranks - 1.0) / (2.0 * len(undecided)))


def feature_norms(features: NDArray[Any]) -> NDArray[Any]:
    """Return the Euclidean norms (n,) of features (n, d)."""
    return in_blocks(lambda part: np.linalg.norm(part, axis=1), features)


def _entropy(probs: NDArray[Any]) -> NDArray[np.float64]:
    probs = np.clip(np.asarray(probs, dtype=np.float64), _SMALLEST, None)
    probs /= probs.sum(axis=1, keepdims=True)
    return np.asarray(-(probs * np.log(probs)).sum(axis=1) / np.log(probs.shape[1]))
