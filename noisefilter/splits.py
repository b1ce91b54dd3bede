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

from noisefilter.errors import InputError, ParameterError
from noisefilter.scores import log_margin

__all__ = [
    "Split",
    "at_rate",
    "best_unplanted",
    "confident_joint",
    "corrected_log_odds",
    "estimate_noise_rate",
    "estimate_transition",
    "excess_disagreement",
    "finite",
    "joint",
    "keep_fraction",
    "mapped_scores",
    "plant_probes",
    "probes",
    "threshold",
    "true_class_proba",
]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_SMALLEST = 1e-12
# Contradiction over doubt on right labels, a + b * doubt: of mean(path, averaged) probabilities and of path
# probabilities alone; see estimate_noise_rate. Between pairs of classes, on anchors, one number serves.
BLENDED_DOUBT, PATH_DOUBT = (0.4, 0.5), (0.55, 0.4)
_PAIR_DOUBT = 0.5


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
    count = round(_share(fraction, "fraction") * len(scores))
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
    rate = _share(noise_rate, "noise_rate")
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
    it where no right label scores so low. The smallest of these for q = 0.5, 0.6, ..., 0.9 is the estimate,
    and that share of lowest scores is flagged. Higher quantiles are surer on few probes, lower ones are freer
    of right labels; below the median, chance decides. The posterior
    :math:`P(wrong | s) = rate \cdot f_p(s) / f(s)` comes from an isotonic fit of the density ratio.

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
    rate = _probe_rate(scores, probe_scores, n_classes)
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
        _share(share, "share") * len(codes) - 1e-9
    )  # a share m / n is m rows in spite of rounding
    rows = rng.choice(len(codes), wanted, replace=False)
    return rows, (codes[rows] + rng.integers(1, n_classes, size=len(rows))) % n_classes


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


def _probe_rate(scores: Floats, probe_scores: Floats, n_classes: int | None) -> float:
    """Smallest F(t_q) / q over the upper deciles t_q of the probes, corrected for lucky hits."""
    shares = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    below = np.searchsorted(np.sort(scores), np.quantile(probe_scores, shares), side="right") / len(scores)
    bound = float((below / shares).min())
    return min(1.0, bound if n_classes is None else bound / (1.0 + bound / (n_classes - 1)))


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
    probs, codes = _checked(probs, codes)
    n_classes = probs.shape[1]
    counts = np.bincount(codes, minlength=n_classes)
    own = np.bincount(codes, weights=probs[np.arange(len(codes)), codes], minlength=n_classes)
    needed = np.where(
        counts > 0, own / np.maximum(counts, 1), np.inf
    )  # nobody is confident of an absent class
    reached = np.where(probs >= needed - 1e-6, probs, -1.0)
    confident = reached.max(axis=1) >= 0.0
    matrix = np.zeros((n_classes, n_classes))
    np.add.at(matrix, (codes[confident], reached.argmax(axis=1)[confident]), 1.0)
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
    probs, codes = _checked(probs, codes)
    expected = confident_joint(probs, codes)
    flagged = np.zeros(len(codes), dtype=bool)
    for given in np.flatnonzero(expected.sum(axis=1) > 1.5):
        rows = np.flatnonzero(codes == given)
        gain = probs[rows] - probs[rows, given][:, None]  # (rows, K)
        quota = _rounded(expected[given], gain.sum(axis=0))
        quota[given] = 0
        for true in np.flatnonzero(quota):
            flagged[rows[np.argsort(-gain[:, true], kind="stable")[: quota[true]]]] = True
    own = probs[np.arange(len(codes)), codes]
    flagged &= own + 1e-6 < probs.max(axis=1)
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
    transition = estimate_transition(probs, codes, rate)
    return at_rate(corrected_log_odds(probs, codes, transition), rate)


def estimate_noise_rate(
    probs: NDArray[Any],
    codes: NDArray[Any],
    probe_probs: NDArray[Any] | None = None,
    probe_codes: NDArray[Any] | None = None,
    *,
    doubt_ratio: tuple[float, float] = BLENDED_DOUBT,
) -> float:
    r"""Share of wrong labels, from what the network contradicts beyond its own doubt.

    With D the share of rows whose given label is not the most probable class, and
    :math:`\delta = mean(1 - max_k P_k)` the mean doubt: on rows the network has never seen, a calibrated one
    has :math:`D = \delta` whatever the noise. On the rows it learns from, it comes round to labels that fit,
    so right labels are contradicted only a part :math:`\kappa` as often as they are doubted, while a wrong
    label stays doubted and contradicted alike. So a share r of wrong labels gives

    .. math:: D = r + \kappa (\delta - r), \quad \kappa = a + b \frac{\delta - r}{1 - r},

    which is solved for r in [0, D]. That :math:`\kappa` grows with the doubt on right labels was measured:
    0.48, 0.53 and 0.72 at doubts of 0.15, 0.31 and 0.67 (clean Fashion-MNIST, CIFAR-10, CIFAR-100; one small
    CNN), which a = 0.4, b = 0.5 put into one line. Networks on tables have a smaller :math:`\kappa`; there
    this estimate is too low, and a second one speaks: the rate of uniformly wrong labels read off the
    planted probes (`probes`), which neither memorized labels nor hard classes disturb. The larger of the two
    is returned.

    Parameters
    ----------
    probs, codes, probe_probs, probe_codes
        As in `excess_disagreement`.
    doubt_ratio : (float, float), default=BLENDED_DOUBT
        a and b, each at least 0, with a + b < 1. ``PATH_DOUBT`` fits path probabilities alone.

    Returns
    -------
    float
        In [0, 1].
    """
    probs, codes = _checked(probs, codes)
    a, b = doubt_ratio
    if min(a, b) < 0.0 or a + b >= 1.0:
        raise ParameterError(
            f"doubt_ratio must be two numbers of at least 0 with a sum below 1, got {doubt_ratio}."
        )
    top = probs.max(axis=1)
    disagreement = float((probs[np.arange(len(codes)), codes] < top).mean())
    doubt = float(1.0 - top.mean())

    def excess(r: float) -> float:
        return r + (a + b * (doubt - r) / (1.0 - r)) * (doubt - r) - disagreement

    most = min(disagreement, doubt)
    if excess(0.0) >= 0.0:
        rate = 0.0
    else:
        rate = float(brentq(excess, 0.0, most)) if excess(most) > 0.0 else disagreement
    if probe_probs is not None and probe_codes is not None and len(probe_codes):
        planted = log_margin(*_checked(probe_probs, probe_codes))
        rate = max(rate, _probe_rate(log_margin(probs, codes), planted, probs.shape[1]))
    return rate


def estimate_transition(probs: NDArray[Any], codes: NDArray[Any], noise_rate: float) -> Floats:
    r"""Estimate P(given j | true i), shape (K, K), from the labels of the rows the network is surest of.

    The anchors of class i are the surer half of the rows predicted i. Among M of them N carry the label j,
    and the probabilities promise Q = sum of P_j. As in `estimate_noise_rate`, what exceeds the usual
    contradiction, :math:`X = (N - \kappa Q) / (1 - \kappa)`, at most N, is noise. Three steps make the
    K (K - 1) rates X / M usable:

    1. Each is shrunk towards their common mean by :math:`\tau / (\tau + v)`, v its sampling variance and
       :math:`\tau` the variance between pairs (empirical Bayes): uniform noise gives a uniform matrix, noise
       between look-alikes keeps its few large entries.
    2. Anchors are the rows the network agrees with most, so they show too little noise; the matrix is scaled
       up to `noise_rate`, at most doubled, and never down.
    3. What is then missing of `noise_rate` is spread evenly over the pairs, at least 0.001 in all: no label
       is beyond doubt.

    The true class stays the most probable one: no :math:`T_{ij}` exceeds :math:`T_{ii}`.

    Parameters
    ----------
    probs, codes
        As in `excess_disagreement`.
    noise_rate : float
        The total to be explained, in [0, 1].

    References
    ----------
    Anchor points: Patrini et al., "Making deep neural networks robust to label noise: a loss correction
    approach", CVPR 2017, Eq. (12)-(13), which read the probabilities of one row a class; here labels are
    counted.
    """
    probs, codes = _checked(probs, codes)
    rate = _share(noise_rate, "noise_rate")
    members = _anchors(probs)
    n_classes = probs.shape[1]
    carried = members.T.astype(np.float64) @ np.eye(n_classes)[codes]  # (K predicted, K given)
    promised = members.T @ probs
    excess = np.minimum((carried - _PAIR_DOUBT * promised) / (1.0 - _PAIR_DOUBT), carried)
    off_diagonal = _shrunk(excess, carried / (1.0 - _PAIR_DOUBT) ** 2, members.sum(axis=0))
    mass = (probs == probs.max(axis=1, keepdims=True)).mean(axis=0)
    mass = mass / mass.sum()  # how common each true class is
    seen = max(float(mass @ off_diagonal.sum(axis=1)), _SMALLEST)
    off_diagonal = _dominated(off_diagonal * min(2.0, max(1.0, rate / seen)))
    missing = max(rate - float(mass @ off_diagonal.sum(axis=1)), 1e-3)  # no label is beyond all doubt
    off_diagonal = _dominated(off_diagonal + missing / (n_classes - 1) * (1.0 - np.eye(n_classes)))
    return off_diagonal + np.diag(1.0 - off_diagonal.sum(axis=1))


def _anchors(probs: Floats) -> NDArray[np.bool_]:
    """Mark, per class, the surer half of the rows predicted so, (n, K)."""
    top = probs.max(axis=1)
    predicted = probs == top[:, None]  # both classes of a tie, so that no class comes first
    members: NDArray[np.bool_] = np.zeros(probs.shape, dtype=bool)
    for k in np.flatnonzero(predicted.any(axis=0)):
        members[:, k] = predicted[:, k] & (top >= np.median(top[predicted[:, k]]))
    return members


def _shrunk(excess: Floats, variance: Floats, n_anchors: NDArray[Any]) -> Floats:
    """Rates of the pairs, shrunk to their mean as far as chance explains their differences; diagonal zero."""
    pairs = ~np.eye(len(excess), dtype=bool)
    x = excess[pairs]
    size = np.repeat(n_anchors[:, None], len(excess), axis=1)[pairs].astype(np.float64)
    mean = max(x.sum(), 0.5) / (size.sum() + 0.5)
    chance = np.maximum(variance[pairs], size * mean / (1.0 - _PAIR_DOUBT) ** 2)  # variance of x, Poisson
    between = max(0.0, (((x - size * mean) ** 2 - chance).sum()) / max((size**2).sum(), 1.0))
    trust = between * size**2 / (between * size**2 + chance + _SMALLEST)
    rates = mean + trust * (x / np.maximum(size, 1.0) - mean)
    out = np.zeros_like(excess)
    out[pairs] = np.maximum(rates, 0.0)
    return out


def _dominated(off_diagonal: Floats) -> Floats:
    """Scale rows down until the true class is the likeliest label, T_ij < T_ii."""
    load = off_diagonal.sum(axis=1) + off_diagonal.max(axis=1)
    return np.asarray(off_diagonal * np.minimum(1.0, 0.95 / np.maximum(load, _SMALLEST))[:, None])


def true_class_proba(probs: NDArray[Any], codes: NDArray[Any], transition: NDArray[Any]) -> Floats:
    r"""P(true class k | row, given label) of shape (n, K), by Bayes' rule.

    A network trained on wrong labels learns P(given | x) = P(true | x) T. Ten Richardson-Lucy steps undo the
    product (all stay positive, and stopping early keeps the noise of the probabilities from growing);
    then :math:`P(k | x, y) \propto P(true = k | x) T_{k y}`.

    Parameters
    ----------
    probs, codes
        As in `excess_disagreement`.
    transition : (K, K) array
        P(given j | true i), see `estimate_transition`.
    """
    probs, codes = _checked(probs, codes)
    matrix = np.asarray(transition, dtype=np.float64)
    prior = np.full(probs.shape, 1.0 / probs.shape[1])
    for _ in range(10):
        prior = prior * ((probs / np.maximum(prior @ matrix, _SMALLEST)) @ matrix.T)
    posterior = np.maximum(prior * matrix[:, codes].T, 1e-300)
    return np.asarray(posterior / posterior.sum(axis=1, keepdims=True))


def corrected_log_odds(probs: NDArray[Any], codes: NDArray[Any], transition: NDArray[Any]) -> Floats:
    """Log-odds that the given label is the true class, given how labels get confused; higher = cleaner.

    On INN's path probabilities this is the INN score corrected for the noise: with a uniform `transition` it
    ranks rows all but as the probability of the given label does, Eq. (1) of arXiv:2106.15185. With an uneven
    one, a label that often stands for another class needs better support than a label that never does.
    """
    posterior = true_class_proba(probs, codes, transition)
    rows = np.arange(len(posterior))
    own = posterior[rows, codes]
    posterior[rows, codes] = 0.0
    return np.asarray(np.log(own) - np.log(np.maximum(posterior.sum(axis=1), 1e-300)))


# --- checks ---------------------------------------------------------------------------------------


def finite(values: NDArray[Any], name: str) -> Floats:
    """Return a float64 array of shape (n,), or say by name that it is none."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise InputError(f"{name} must be a finite, non-empty array of shape (n,), got shape {array.shape}.")
    return array


def _share(value: float, name: str) -> float:
    if not 0.0 <= value <= 1.0:
        raise ParameterError(f"{name} must be in [0, 1], got {value}.")
    return float(value)


def _checked(probs: NDArray[Any], codes: NDArray[Any]) -> tuple[Floats, Codes]:
    """Return float64 probabilities whose rows sum to one, and int64 codes, or say what is wrong with them."""
    array, codes = np.asarray(probs, dtype=np.float64), np.asarray(codes)
    if array.ndim != 2 or array.shape[1] < 2 or codes.shape != (len(array),) or not len(array):
        raise InputError(
            "probs and codes must be of shapes (n, K) with K >= 2 and (n,), "
            f"got {array.shape} and {codes.shape}."
        )
    if not np.isfinite(array).all() or array.min() < 0.0 or not (array.sum(axis=1) > 0.0).all():
        raise InputError("probs must be finite and at least 0 with no row of zeros, got others.")
    if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= array.shape[1]:
        raise InputError(
            f"codes must be integers from 0 to {array.shape[1] - 1}, got {codes.min()} to {codes.max()}."
        )
    return array / array.sum(axis=1, keepdims=True), codes.astype(np.int64)
