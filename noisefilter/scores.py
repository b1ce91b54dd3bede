"""Per-row scores, one function per equation. Arrays in, float64 arrays out, higher = cleaner.

``codes`` are the given labels as class numbers 0..K-1 of shape (n,), ``probs`` has shape (n, K).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALLEST = 1e-12  # softmax in float32 can give exact zeros, whose logarithm no margin survives


def given_probability(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability of the given label, in [0, 1].

    On mean path probabilities this is the INN score, Eq. (1) of Park, Kim & Kim, "INN: a method
    identifying clean-annotated samples via consistency effect in deep neural networks"
    (arXiv:2106.15185): averaging over paths and picking the column of the label commute.
    """
    return np.asarray(probs, dtype=np.float64)[np.arange(len(codes)), codes]


def log_margin(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    r"""Return :math:`\log P_i[y_i] - \max_{c \ne y_i} \log P_i[c]`.

    Positive where the given label is the most probable one. On probabilities averaged over epochs
    this is the score that arXiv:2510.16211 found best of all that need no clean data; on mean path
    probabilities it is the margin form of INN's score, which is not in its paper.
    """
    log_probs = np.log(np.clip(np.asarray(probs, dtype=np.float64), _SMALLEST, None))
    rows = np.arange(len(codes))
    given = log_probs[rows, codes]
    log_probs[rows, codes] = -np.inf
    return np.asarray(given - log_probs.max(axis=1))


def best_other(probs: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most probable class other than the given one, (n,); the lower number among equals."""
    others = np.array(probs, dtype=np.float64)
    others[np.arange(len(codes)), codes] = -np.inf
    return np.asarray(others.argmax(axis=1), dtype=np.int64)


def neighbor_vote(neighbors: NDArray[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of the L neighbors that carry the row's own given label, in [0, 1].

    The limit that INN reaches, up to an affine map, when the network has memorized every label:
    score = 1/2 + vote/2 (Lemma 1 of arXiv:2106.15185, supplementary A).
    """
    return np.asarray((codes[neighbors] == codes[:, None]).mean(axis=1), dtype=np.float64)
