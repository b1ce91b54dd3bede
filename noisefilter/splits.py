r"""Decisions: scores or probabilities in, clean and wrong rows out.

Every rule takes arrays and returns a `Split`. ``codes`` are the given labels as class numbers 0..K-1 of shape
(n,), ``probs`` has shape (n, K) with rows that sum to one, ``scores`` has shape (n,), higher = cleaner.
Only `plant_probes` draws random numbers. Mixtures have a module of their own, `noisefilter.mixtures`.

`excess_disagreement` is the default. It runs four steps that can also be called one by one:
`estimate_noise_rate`, `estimate_transition`, `corrected_log_odds` (the scores), `at_rate` (the decision).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.isotonic import IsotonicRegression

from noisefilter.estimates import (
    BLENDED_DOUBT,
    Codes,
    Floats,
    as_share,
    checked,
    corrected_log_odds,
    estimate_noise_rate,
    estimate_transition,
    finite,
    normalized,
    probe_rate,
)
from noisefilter.scores import given_probability, in_blocks

__all__ = [
    "Split",
    "at_rate",
    "best_unplanted",
    "confident_joint",
    "excess_disagreement",
    "joint",
    "keep_fraction",
    "mapped_scores",
    "plant_probes",
    "probe_share",
    "probes",
    "stranger_share",
    "strangers",
    "threshold",
]

_SMALLEST = 1e-12


class Split(NamedTuple):
    """What a rule decided.

    Attributes
    ----------
    clean : (n,) bool array
        Rows judged to carry the right label.
    threshold : float or None
        Rows with ``scores >= threshold`` are the clean ones, where one number says it.
    clean_proba : (n,) array or None
        Probability that the given label is right, in [0, 1], non-decreasing in the score.
    noise_rate : float or None
        Estimated share of wrong labels, in [0, 1]; need not be the share flagged.
    """

    clean: NDArray[np.bool_]
    threshold: float | None
    clean_proba: Floats | None
    noise_rate: float | None


# --- rules on scores ------------------------------------------------------------------------------


def threshold(scores: NDArray[Any], t: float) -> Split:
    """Keep the rows whose score is at least `t`."""
    scores = finite(scores, "scores")
    return Split(scores >= t, float(t), None, None)


def keep_fraction(scores: NDArray[Any], fraction: float) -> Split:
    """Keep exactly ``round(fraction * n)`` rows of the highest scores; among equals, those that come first.

    Raises
    ------
    ParameterError
        If `fraction` is outside [0, 1].
    """
    scores = finite(scores, "scores")
    count = round(as_share(fraction, "fraction") * len(scores))
    clean = np.zeros(len(scores), dtype=bool)
    clean[np.argsort(-scores, kind="stable")[:count]] = True
    return Split(clean, None, None, None)


def at_rate(scores: NDArray[Any], noise_rate: float) -> Split:
    """Flag the share `noise_rate` of lowest scores, and turn scores, read as log-odds, into probabilities.

    Rows that tie with the first clean one stay clean, so the order of rows does not matter.
    ``clean_proba`` is the logistic function of the scores, moved by one constant such that its mean is
    ``1 - noise_rate``.
    """
    scores = finite(scores, "scores")
    rate = as_share(noise_rate, "noise_rate")
    n_flagged = min(round(rate * len(scores)), len(scores) - 1)
    cut = float(np.partition(scores, n_flagged)[n_flagged])
    return Split(scores >= cut, cut, _calibrated(scores, rate), rate)


def _calibrated(scores: Floats, rate: float) -> Floats:
    """Shift log-odds until the mean probability is ``1 - rate``."""
    if rate in (0.0, 1.0):
        return np.full(len(scores), 1.0 - rate)
    odds = np.clip(scores, -30.0, 30.0)  # beyond that nothing changes, and the root stays in the bracket
    shift = brentq(lambda b: float(expit(odds + b).mean()) - (1.0 - rate), -80.0, 80.0)
    return np.asarray(expit(odds + shift))


def probes(scores: NDArray[Any], probe_scores: NDArray[Any], n_classes: int | None = None) -> Split:
    r"""Cut where planted wrong labels say so: the score of a row is compared with scores of known mistakes.

    The probes are rows that were given a uniformly wrong label on purpose before the training. A share q of
    them scores no higher than their q-quantile :math:`t_q`, and so does that share of all equally wrong
    labels. With F the distribution of the rows' scores, the rate is at most :math:`F(t_q) / q`, and equal to
    it where no right label scores so low. The smallest of these for q = 0.2, 0.3, ..., 0.9 is the estimate,
    each raised by half a standard error of q among m probes, and that share of lowest scores is flagged.
    Higher quantiles are surer on few probes, lower ones are freer of right labels: those below the median
    need 40 probes under them. The posterior :math:`P(wrong | s) = rate \cdot f_p(s) / f(s)` comes from an
    isotonic fit of the density ratio.

    Sharp on uniform noise at any rate, down to none, whether the network memorizes or not; blind to mistakes
    that look better than a random label does. The probes must *replace* labels: a copy planted beside its row
    contradicts it, neither is learned, and the rate comes out too low.

    Parameters
    ----------
    scores : (n,) array
        Higher = cleaner.
    probe_scores : (m,) array
        The same score of the probes with their planted labels; m >= 1, a few hundred are enough.
    n_classes : int, optional
        K. A planted label differs from the given one, so it hits the true one by chance on a share
        :math:`r / (K - 1)` of the probes; with K given, the rate is corrected for them.

    References
    ----------
    The idea of planted rows: Pleiss et al., "Identifying mislabeled data using the area under the margin
    ranking", NeurIPS 2020, which puts them in an extra class and uses one percentile.
    """
    scores, probe_scores = finite(scores, "scores"), finite(probe_scores, "probe_scores")
    rate = probe_rate(scores, probe_scores, n_classes)
    split = at_rate(scores, rate)
    pooled = np.concatenate([scores, probe_scores])
    planted = np.repeat([0.0, 1.0], [len(scores), len(probe_scores)])
    fit = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(pooled, planted)
    share = np.clip(fit.predict(scores), 0.0, 1.0 - _SMALLEST)
    ratio = share / (1.0 - share) * len(scores) / len(probe_scores)  # f_p / f
    return split._replace(clean_proba=1.0 - np.clip(rate * ratio, 0.0, 1.0))


def plant_probes(codes: Codes, n_classes: int, share: float, rng: np.random.Generator) -> tuple[Codes, Codes]:
    """Draw rows to plant and a wrong label for each, uniform over the other classes.

    Returns
    -------
    rows, planted_codes : (m,) int arrays
        m = ceil(share * n) different rows of the n.
    """
    wanted = math.ceil(
        as_share(share, "share") * len(codes) - 1e-9
    )  # a share m / n is m rows in spite of rounding
    rows = rng.choice(len(codes), wanted, replace=False)
    return rows, (codes[rows] + rng.integers(1, n_classes, size=len(rows))) % n_classes


def probe_share(n: int) -> float:
    """Return how many of n rows are planted by default.

    4 %, up to 200 rows where that is no more than a tenth, and at most 2,000 rows.
    """
    return min(2_000, max(0.04 * n, min(200, 0.1 * n))) / n


def mapped_scores(scores: NDArray[Any], probe_rows: NDArray[Any]) -> Floats:
    """Give planted rows the scores that rows of their rank have among the others.

    A row trained under a planted label scores low under its given one whether that is right or wrong. But
    planted rows were drawn at random, so under their given labels they are as good as the others, and among
    themselves they still rank: the i-th best of m gets the (i - 1/2) / m quantile of the other rows' scores.
    """
    mapped = finite(scores, "scores").copy()
    others = np.delete(mapped, probe_rows)
    ranks = rankdata(mapped[probe_rows])  # ties share their mean rank, whatever the order of the rows
    mapped[probe_rows] = np.quantile(others, (ranks - 0.5) / len(probe_rows))
    return mapped


def best_unplanted(
    probs: NDArray[Any], codes: Codes, others: Codes, probe_rows: NDArray[Any], probe_codes: NDArray[Any]
) -> Codes:
    """Replace `others`, the best class beside the given one, on planted rows: never the planted class.

    With two classes there is no third to name, and nothing changes.
    """
    if probs.shape[1] == 2:
        return others
    unplanted = np.array(probs[probe_rows], dtype=np.float64)
    places = np.arange(len(probe_rows))
    unplanted[places, probe_codes] = -1.0
    unplanted[places, codes[probe_rows]] = -1.0
    result = others.copy()
    result[probe_rows] = unplanted.argmax(axis=1)
    return result


# --- strangers ------------------------------------------------------------------------------------


def strangers(ood_scores: NDArray[Any], known: NDArray[Any], share: float = 0.05) -> NDArray[np.bool_]:
    """Call a row a stranger where its score is higher than that of all but a share of rows of some class.

    Needs no rate: where nothing is out of distribution, about that share is called so by mistake.

    Parameters
    ----------
    ood_scores : (n,) array
        :func:`noisefilter.scores.ood_score`, higher = stranger.
    known : (m,) array
        The same score of rows that belong to one of the classes. With m = 0 there is no stranger.
    share : float, default=0.05
        In [0, 1].

    Returns
    -------
    (n,) bool array
    """
    ood_scores = finite(ood_scores, "ood_scores")
    share = as_share(share, "share")
    if not len(known):
        return np.zeros(len(ood_scores), dtype=bool)
    return np.asarray(ood_scores > np.quantile(finite(known, "known"), 1.0 - share))


def stranger_share(ood_scores: NDArray[Any], known: NDArray[Any], share: float = 0.1) -> float:
    r"""Estimate how many rows are strangers, rather too few than too many.

    A share s of rows that belong to a class score higher than t, the (1 - s)-quantile of those known to. If a
    share S of all rows does, at least :math:`(S - s) / (1 - s)` of the rows are strangers. One standard error
    of S and of s is taken off.

    Rows of a class that are harder than the known ones look like strangers. The known ones should therefore
    be as hard: rows that were trained under a wrong label, for example.

    Parameters
    ----------
    ood_scores : (n,) array
        :func:`noisefilter.scores.ood_score`, higher = stranger.
    known : (m,) array
        The same score of rows that belong to one of the classes; m >= 1.
    share : float, default=0.1
        s, in (0, 1).

    Returns
    -------
    float
        In [0, 1].
    """
    ood_scores, known = finite(ood_scores, "ood_scores"), finite(known, "known")
    limit = np.quantile(known, 1.0 - share)
    beyond, explained = (
        float((ood_scores > limit).mean()),
        float((known > limit).mean()),
    )  # fewer where they tie
    error = math.sqrt(share * (1.0 - share) / len(known) + beyond * (1.0 - beyond) / len(ood_scores))
    return max(0.0, (beyond - explained - error) / (1.0 - explained))


# --- confident learning ---------------------------------------------------------------------------


def confident_joint(probs: NDArray[Any], codes: NDArray[Any]) -> Floats:
    """Count rows by given and by confidently predicted class, (K given, K true), scaled to the class counts.

    A row is counted for the most probable class among those whose probability reaches the mean
    self-confidence of that class, t_j = mean of P_j over the rows labelled j; rows that reach none are not
    counted. Every diagonal entry is at least one before each row of the matrix is scaled to the number of
    rows labelled so.

    References
    ----------
    Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021,
    section 3.1.
    """
    probs, codes = checked(probs, codes)
    n_classes = probs.shape[1]
    counts = np.bincount(codes, minlength=n_classes)
    given = in_blocks(lambda probs, codes: given_probability(normalized(probs), codes), probs, codes)
    own = np.bincount(codes, weights=given, minlength=n_classes)
    needed = np.where(
        counts > 0, own / np.maximum(counts, 1), np.inf
    )  # nobody is confident of an absent class

    def surest(probs: NDArray[Any]) -> NDArray[np.int64]:
        probs = normalized(probs)
        reached = np.where(probs >= needed - 1e-6, probs, -1.0)
        return np.where(reached.max(axis=1) >= 0.0, reached.argmax(axis=1), -1)

    true = in_blocks(surest, probs)
    matrix = np.zeros((n_classes, n_classes))
    np.add.at(matrix, (codes[true >= 0], true[true >= 0]), 1.0)
    np.fill_diagonal(matrix, np.maximum(matrix.diagonal(), 1.0))
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True) * counts[:, None])


def joint(probs: NDArray[Any], codes: NDArray[Any]) -> Split:
    """Flag, for every pair (given k, true j), as many rows as the confident joint counts.

    The rows labelled k with the largest ``P_j - P_k`` go first. A row whose given label is its most probable
    class is never flagged, nor is the only row of a class. Expects probabilities of a network that has
    not memorized its labels, best out of sample. The rule of cleanlab's ``find_label_issues``.

    References
    ----------
    Northcutt, Jiang & Chuang, JAIR 2021, section 3.2, "prune by noise rate".
    """
    probs, codes = checked(probs, codes)
    expected = confident_joint(probs, codes)
    flagged = np.zeros(len(codes), dtype=bool)
    counts = np.bincount(codes, minlength=len(expected))
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])
    for given in np.flatnonzero(expected.sum(axis=1) > 1.5):
        rows = members[given]
        theirs = normalized(probs[rows])  # (rows, K)
        own = theirs[:, given]
        gain = theirs - own[:, None]
        quota = _rounded(expected[given], gain.sum(axis=0))
        quota[given] = 0
        for true in np.flatnonzero(quota):
            flagged[rows[np.argsort(-gain[:, true], kind="stable")[: quota[true]]]] = True
        flagged[rows] &= own + 1e-6 < theirs.max(axis=1)
    rate = 1.0 - expected.trace() / max(expected.sum(), 1.0)
    return Split(~flagged, None, None, float(rate))


def _rounded(row: Floats, tie_breaker: Floats) -> NDArray[np.int64]:
    """Round to integers of the same sum, at the cost of the entries that rounding moved least willingly."""
    whole = np.rint(row)
    missing = round(row.sum() - whole.sum())
    step = 1 if missing > 0 else -1
    order = np.lexsort(
        (-tie_breaker, -step * (row - whole))
    )  # ties by the classes' mass, not by their number
    whole[order[: abs(missing)]] += step
    return np.maximum(whole, 0).astype(np.int64)


# --- the default: excess disagreement -------------------------------------------------------------


def excess_disagreement(
    probs: NDArray[Any],
    codes: NDArray[Any],
    probe_probs: NDArray[Any] | None = None,
    probe_codes: NDArray[Any] | None = None,
    *,
    doubt_ratio: tuple[float, float] = BLENDED_DOUBT,
) -> Split:
    """Flag as many labels as the network contradicts beyond its own doubt, the least credible first.

    The composition of `estimate_noise_rate`, `estimate_transition`, `corrected_log_odds` and `at_rate`, where
    each step is explained. Needs no clean data, no known rate and no second training.

    Parameters
    ----------
    probs : (n, K) array
        Mean of INN's path probabilities and of the probabilities averaged over the second half of training.
    codes : (n,) int array
        Given labels.
    probe_probs, probe_codes : (m, K) and (m,) arrays, optional
        The same probabilities of the planted probes, and their planted labels. Without them a network that
        has memorized its labels is taken at its word, and nothing is flagged.
    doubt_ratio : (float, float), default=BLENDED_DOUBT
        See `estimate_noise_rate`.

    Returns
    -------
    Split
        ``threshold`` is on the scale of `corrected_log_odds`.
    """
    rate = estimate_noise_rate(probs, codes, probe_probs, probe_codes, doubt_ratio=doubt_ratio)
    transition = estimate_transition(probs, codes, rate, probe_probs, probe_codes)
    return at_rate(corrected_log_odds(probs, codes, transition), rate)
