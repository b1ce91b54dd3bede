r"""Estimates: how many labels are wrong, which class gets called which, and what the network would then say.

Arrays in, arrays out. ``codes`` are the given labels as class numbers 0..K-1 of shape (n,), ``probs`` has
shape (n, K) with rows that sum to one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import csr_array

from noisefilter.errors import InputError, ParameterError
from noisefilter.scores import in_blocks, log_margin

__all__ = [
    "corrected_log_odds",
    "estimate_noise_rate",
    "estimate_transition",
    "finite",
    "guessed_right",
    "known_by_heart",
    "memorization",
    "memorizes",
    "noise_rate_interval",
    "shrunk_transition",
    "true_class_proba",
]

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_SMALLEST = 1e-12
# Contradiction over doubt on right labels, a + b * doubt: of mean(path, averaged) probabilities and of path
# probabilities alone; see estimate_noise_rate.
BLENDED_DOUBT, PATH_DOUBT = (0.4, 0.5), (0.55, 0.4)
# How far the ratio and the rate read off the probes were off on the benchmark; see noise_rate_interval.
_RATIO_RANGE, _PROBE_RANGE, _FLOOR = (0.75, 1.1), (0.6, 1.1), 0.005
BY_HEART = 0.1  # of planted labels, beyond chance: from then on a network has begun to memorize
_FIRST_STEPS = 150  # in which a network of few rows knows some of them before it knows the classes
_SIGMAS = 1.64  # 90 % of a normal distribution lie within


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
    probs, codes = checked(probs, codes)
    disagreement, doubt = _contradiction(probs, codes)
    rate = _doubt_rate(float(disagreement.mean()), float(doubt.mean()), doubt_ratio)
    if probe_probs is not None and probe_codes is not None and len(probe_codes):
        planted = _margins(*checked(probe_probs, probe_codes))
        rate = max(rate, probe_rate(_margins(probs, codes), planted, probs.shape[1]))
    return rate


def _contradiction(probs: NDArray[Any], codes: Codes) -> tuple[Floats, Floats]:
    """Return, per row, whether the network contradicts the label (0 or 1), and its doubt."""

    def read(probs: NDArray[Any], codes: Codes) -> Floats:
        probs = normalized(probs)
        top = probs.max(axis=1)
        return np.stack([probs[np.arange(len(codes)), codes] < top, 1.0 - top], axis=1)

    disagreement, doubt = in_blocks(read, probs, codes).T.copy()
    return disagreement, doubt


def _margins(probs: NDArray[Any], codes: Codes) -> Floats:
    return in_blocks(lambda probs, codes: log_margin(normalized(probs), codes), probs, codes)


def _doubt_rate(disagreement: float, doubt: float, doubt_ratio: tuple[float, float]) -> float:
    """Solve D = r + kappa (doubt - r) for r."""
    a, b = doubt_ratio
    if min(a, b) < 0.0 or a + b >= 1.0:
        raise ParameterError(
            f"doubt_ratio must be two numbers of at least 0 with a sum below 1, got {doubt_ratio}."
        )

    def excess(r: float) -> float:
        return r + (a + b * (doubt - r) / (1.0 - r)) * (doubt - r) - disagreement

    most = min(disagreement, doubt)
    if excess(0.0) >= 0.0:
        return 0.0
    return float(brentq(excess, 0.0, most)) if excess(most) > 0.0 else disagreement


def noise_rate_interval(
    probs: NDArray[Any],
    codes: NDArray[Any],
    probe_probs: NDArray[Any] | None = None,
    probe_codes: NDArray[Any] | None = None,
    *,
    doubt_ratio: tuple[float, float] = BLENDED_DOUBT,
) -> tuple[float, float]:
    r"""Range in which the share of wrong labels lies, as far as one training can tell.

    Around `estimate_noise_rate`, whose two estimates are each moved by what is uncertain about them:

    - chance: 1.64 standard errors, of n rows and m probes;
    - the ratio :math:`\kappa` of contradiction to doubt is not the same everywhere: it is taken 25 % lower
      for the upper end and 10 % higher for the lower one;
    - the rate read off the probes is an upper bound, since right labels may score as low as planted ones do:
      the lower end takes 40 % off it, and half a point. The upper end adds a tenth: the smallest of several
      estimates is taken, which is a little too small where right labels do not disturb.

    The larger of the two lower ends and the larger of the two upper ends are returned. The moves were chosen
    on the audit benchmark, where the ranges held the true rate in nearly all conditions (benchmarks/README.md
    counts them). The rest are the limit of the method: labels that are wrong in a consistent way, on the very
    rows the network finds hardest, are learned; the true rate is then above the range.

    Parameters
    ----------
    probs, codes, probe_probs, probe_codes, doubt_ratio
        As in `estimate_noise_rate`.

    Returns
    -------
    (float, float)
        Lower and upper end in [0, 1]; the estimate lies between them.
    """
    rate = estimate_noise_rate(probs, codes, probe_probs, probe_codes, doubt_ratio=doubt_ratio)
    probs, codes = checked(probs, codes)
    disagreement, doubt = _contradiction(probs, codes)
    a, b = doubt_ratio
    kappa = min(1.0, a + b * float(doubt.mean()))
    slack = _SIGMAS * float((disagreement - kappa * doubt).std()) / np.sqrt(len(codes))
    contradicted, doubted = float(disagreement.mean()), float(doubt.mean())
    factors = _RATIO_RANGE[0], min(_RATIO_RANGE[1], 0.99 / max(a + b, _SMALLEST))
    less, more = ((a * factor, b * factor) for factor in factors)
    low = _doubt_rate(max(0.0, contradicted - slack), doubted, more)
    high = _doubt_rate(min(1.0, contradicted + slack), doubted, less)
    if probe_probs is not None and probe_codes is not None and len(probe_codes):
        planted = _margins(*checked(probe_probs, probe_codes))
        bound = probe_rate(_margins(probs, codes), planted, probs.shape[1])
        slack = _SIGMAS * np.sqrt(bound * (1.0 - bound) / len(codes) + bound**2 * 0.5 / len(planted))
        low = max(low, _PROBE_RANGE[0] * (bound - slack) - _FLOOR)
        high = max(high, _PROBE_RANGE[1] * bound + slack)
    return max(0.0, min(float(low), rate)), min(1.0, max(float(high), rate))


def memorization(
    probs: NDArray[Any], codes: NDArray[Any], probe_probs: NDArray[Any], probe_codes: NDArray[Any]
) -> float:
    """How far training on a label draws the network towards it, in log-odds; 0 for one that only generalizes.

    The median margin of the labels that were planted, minus the median margin that unplanted rows have for
    labels they do not carry: what separates the two is only that the network has learned from the former.

    Parameters
    ----------
    probs, codes, probe_probs, probe_codes
        As in `excess_disagreement`; the rows of ``probs`` are not the planted ones.

    Returns
    -------
    float
        At least 0.
    """
    probs, codes = checked(probs, codes)
    planted = np.median(_margins(*checked(probe_probs, probe_codes)))
    others = in_blocks(_margins_of_others, probs, codes)
    return max(0.0, float(planted - np.median(others, overwrite_input=True)))


def _margins_of_others(probs: NDArray[Any], codes: Codes) -> Floats:
    """Return the margins (n, K - 1) that labels would have which the rows do not carry."""
    margins = np.log(np.clip(normalized(probs), _SMALLEST, None))
    rows, best = np.arange(len(codes)), margins.argmax(axis=1)
    first = margins[rows, best]
    margins[rows, best] = -np.inf
    second = margins.max(axis=1)
    margins -= first[:, None]
    margins[rows, best] = first - second  # the largest other entry is the second
    return margins[codes[:, None] != np.arange(margins.shape[1])].reshape(len(rows), -1)


def known_by_heart(
    predicted: NDArray[Any], learned: NDArray[Any], probe_rows: NDArray[Any], n_classes: int
) -> float:
    """Return which share of the planted labels is predicted, beyond what chance would have it.

    Chance is how often other rows are predicted as any one class that their label does not name. Two standard
    errors are taken off: of few planted labels some are predicted by chance.

    Parameters
    ----------
    predicted : (n,) int array
        Classes that the network predicts, 0..K-1.
    learned : (n,) int array
        Labels that it learns, planted ones among them.
    probe_rows : (m,) int array
        Rows whose label is planted.
    n_classes : int
        K.

    Returns
    -------
    float
        At most 1, 0 without planted labels.
    """
    if not len(probe_rows):
        return 0.0
    named = predicted == learned
    chance = np.delete(~named, probe_rows).mean() / (n_classes - 1)
    error = np.sqrt(chance * (1.0 - chance) / len(probe_rows))
    return float(named[probe_rows].mean() - chance - 2.0 * error)


def memorizes(known: float, n_steps: int) -> bool:
    """Whether a network that knows such a share of the planted labels has begun to learn labels by heart.

    On a small table a tenth of them may be known after two epochs, in which it has hardly begun to learn
    anything: of fewer than 150 steps nothing is said.

    Parameters
    ----------
    known : float
        See :func:`known_by_heart`.
    n_steps : int
        Steps trained.
    """
    return known > BY_HEART and n_steps >= _FIRST_STEPS


def guessed_right(
    predicted: NDArray[Any], codes: NDArray[Any], probe_rows: NDArray[Any], noise_rate: float, n_classes: int
) -> float:
    r"""Return which share of a network's guesses is right at least, by rows trained under a planted label.

    Their given labels were not learned. If a share g of the guesses is right, and wrong guesses and wrong
    labels hit any other class alike, the share of guesses that are as labeled is

    .. math:: a = (1 - r)\,g + r\,\frac{1 - g}{K - 1}.

    This is solved for g, with a standard error taken off a, as few rows are planted. A rate that is estimated
    too high makes g too great, where half of the labels and more are wrong noticeably so.

    Parameters
    ----------
    predicted : (n,) int array
        Classes that the network predicts, 0..K-1.
    codes : (n,) int array
        Given labels.
    probe_rows : (m,) int array
        Rows whose label was planted, at least one.
    noise_rate : float
        r, the share of the given labels that are wrong, in [0, 1].
    n_classes : int
        K.

    Returns
    -------
    float
        In [0, 1]; 0 where labels are wrong nearly as often as chance would have it, which tells nothing of
        guesses.
    """
    as_labeled = float((predicted[probe_rows] == codes[probe_rows]).mean())
    error = np.sqrt(as_labeled * (1.0 - as_labeled) / len(probe_rows))
    chance = noise_rate / (n_classes - 1)
    beyond_chance = 1.0 - noise_rate - chance
    if beyond_chance <= max(error, 1e-9):
        return 0.0
    return float(np.clip((as_labeled - error - chance) / beyond_chance, 0.0, 1.0))


def estimate_transition(
    probs: NDArray[Any],
    codes: NDArray[Any],
    noise_rate: float,
    probe_probs: NDArray[Any] | None = None,
    probe_codes: NDArray[Any] | None = None,
) -> Floats:
    r"""Estimate P(given j | true i), shape (K, K), from the labels of the rows the network is surest of.

    The anchors of class i are the surer half of the rows predicted i. Among M of them N carry the label j,
    and the probabilities promise Q = sum of P_j. As in `estimate_noise_rate`, what exceeds the usual
    contradiction, :math:`X = (N - \kappa Q) / (1 - \kappa)`, at least 0 and at most N, is noise. A network
    that only generalizes is contradicted as often as it doubts, one that learns its labels by heart is not:
    with m from `memorization`, :math:`\kappa = 1 / (1 + m)`, in [0.3, 0.97]. (A constant takes the overlap of
    ordered classes for noise.) Without probes it is 0.5. Three steps make the K (K - 1) rates X / M usable:

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
    probe_probs, probe_codes
        As in `excess_disagreement`.

    References
    ----------
    Anchor points: Patrini et al., "Making deep neural networks robust to label noise: a loss correction
    approach", CVPR 2017, Eq. (12)-(13), which read the probabilities of one row a class; here labels are
    counted.
    """
    probs, codes = checked(probs, codes)
    rate = as_share(noise_rate, "noise_rate")
    doubt = 0.5
    if probe_probs is not None and probe_codes is not None and len(probe_codes):
        doubt = float(np.clip(1.0 / (1.0 + memorization(probs, codes, probe_probs, probe_codes)), 0.3, 0.97))
    n_classes = probs.shape[1]
    n_anchors, promised, carried = np.zeros(n_classes), *np.zeros((2, n_classes, n_classes))
    top, members = _predicted(probs)
    for k, rows in enumerate(members):
        anchors = rows[top[rows] >= np.median(top[rows])] if len(rows) else rows
        n_anchors[k] = len(anchors)
        promised[k] = normalized(probs[anchors]).sum(axis=0)
        carried[k] = np.bincount(codes[anchors], minlength=n_classes)  # of each given label
    excess = np.clip((carried - doubt * promised) / (1.0 - doubt), 0.0, carried)
    off_diagonal = _shrunk(excess, carried, n_anchors, 1.0 / (1.0 - doubt) ** 2)
    mass = np.array([len(rows) for rows in members]) / len(codes)
    mass = mass / mass.sum()  # how common each true class is
    seen = max(float(mass @ off_diagonal.sum(axis=1)), _SMALLEST)
    off_diagonal = _dominated(off_diagonal * min(2.0, max(1.0, rate / seen)))
    missing = max(rate - float(mass @ off_diagonal.sum(axis=1)), 1e-3)  # no label is beyond all doubt
    off_diagonal = _dominated(off_diagonal + missing / (n_classes - 1) * (1.0 - np.eye(n_classes)))
    return off_diagonal + np.diag(1.0 - off_diagonal.sum(axis=1))


def _predicted(probs: NDArray[Any]) -> tuple[Floats, list[Codes]]:
    """Return the largest probability of each row, and the rows predicted each class, ascending.

    Of a tie both classes are predicted, so that no class comes first.
    """
    top = in_blocks(lambda part: normalized(part).max(axis=1), probs)
    best = in_blocks(lambda part, largest: normalized(part) == largest[:, None], probs, top)
    rows, classes = np.nonzero(best)
    counts = np.bincount(classes, minlength=probs.shape[1])
    return top, np.split(rows[np.argsort(classes, kind="stable")], np.cumsum(counts)[:-1])


def _shrunk(excess: Floats, counts: Floats, n_anchors: NDArray[Any], factor: float) -> Floats:
    """Rates of the pairs, shrunk to their mean as far as chance explains their differences; diagonal zero.

    ``factor`` times its count is the sampling variance of an excess.
    """
    pairs = ~np.eye(len(excess), dtype=bool)
    x = excess[pairs]
    size = np.repeat(n_anchors[:, None], len(excess), axis=1)[pairs].astype(np.float64)
    mean = max(x.sum(), 0.5) / (size.sum() + 0.5)
    chance = factor * np.maximum(counts[pairs], size * mean)  # Poisson
    between = max(0.0, (((x - size * mean) ** 2 - chance).sum()) / max((size**2).sum(), 1.0))
    trust = between * size**2 / (between * size**2 + chance + _SMALLEST)
    rates = mean + trust * (x / np.maximum(size, 1.0) - mean)
    out = np.zeros_like(excess)
    out[pairs] = np.maximum(rates, 0.0)
    return out


def shrunk_transition(counts: NDArray[Any]) -> Floats:
    """Turn counts (K given, K true), such as `confident_joint` gives, into P(given j | true i) without zeros.

    Counts of single pairs are small, and a pair that was not met is not therefore impossible. So the rates of
    the pairs are shrunk towards their common mean as far as chance explains their differences, step 1 of
    `estimate_transition`; no T_ij exceeds T_ii.
    """
    met = np.asarray(counts, dtype=np.float64).T  # (K true, K given)
    off_diagonal = _dominated(_shrunk(met, met, met.sum(axis=1), 1.0))
    return off_diagonal + np.diag(1.0 - off_diagonal.sum(axis=1))


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
    probs, codes = checked(probs, codes)
    return in_blocks(_Channel(transition).posterior, probs, codes)


class _Channel:
    """How true classes turn into given labels: P(given j | true i), (K, K), for many products with it.

    Where classes are many, most pairs were never met; `estimate_transition` gives those of a row one rate.
    Products are then made of that rate, and of what few other entries add.
    """

    def __init__(self, transition: NDArray[Any]):
        self.matrix = np.asarray(transition, dtype=np.float64)
        self.usual = np.median(self.matrix, axis=1)
        rest = self.matrix - self.usual[:, None]
        self.few = 16 * np.count_nonzero(rest) < rest.size  # twice as fast then, at least
        self.rest = csr_array(rest) if self.few else rest

    def given(self, true: Floats) -> Floats:
        """Turn weights of true classes (K, b) into those of given labels."""
        return np.asarray(self.rest.T @ true + self.usual @ true if self.few else self.matrix.T @ true)

    def true(self, given: Floats) -> Floats:
        """Turn weights of given labels (K, b) into those of true classes."""
        if not self.few:
            return np.asarray(self.matrix @ given)
        return np.asarray(self.rest @ given + np.outer(self.usual, given.sum(axis=0)))

    def posterior(self, probs: NDArray[Any], codes: Codes) -> Floats:
        """Return P(true class k | row, given label), (b, K)."""
        seen = np.ascontiguousarray(normalized(probs).T)  # (K, b)
        prior = np.full(seen.shape, 1.0 / len(seen))
        for _ in range(10):
            prior *= self.true(seen / np.maximum(self.given(prior), _SMALLEST))
            np.maximum(prior, 0.0, out=prior)  # a difference of the usual rate may round to less
        posterior = np.maximum(prior * self.matrix[:, codes], 1e-300)
        return np.ascontiguousarray((posterior / posterior.sum(axis=0)).T)


def corrected_log_odds(probs: NDArray[Any], codes: NDArray[Any], transition: NDArray[Any]) -> Floats:
    """Log-odds that the given label is the true class, given how labels get confused; higher = cleaner.

    On INN's path probabilities this is the INN score corrected for the noise: with a uniform `transition` it
    ranks rows all but as the probability of the given label does, Eq. (1) of arXiv:2106.15185. With an uneven
    one, a label that often stands for another class needs better support than a label that never does.
    """
    channel = _Channel(transition)

    def log_odds(probs: NDArray[Any], codes: Codes) -> Floats:
        posterior = channel.posterior(probs, codes)
        rows = np.arange(len(posterior))
        own = posterior[rows, codes]
        posterior[rows, codes] = 0.0
        return np.asarray(np.log(own) - np.log(np.maximum(posterior.sum(axis=1), 1e-300)))

    return in_blocks(log_odds, *checked(probs, codes))


def probe_rate(scores: Floats, probe_scores: Floats, n_classes: int | None) -> float:
    """Smallest F(t_q) / q over deciles t_q of the probes, each raised by half a standard error of its q.

    The smallest of several uncertain numbers is too small, and low deciles are the least certain ones; they
    are also the freest of right labels, which matters where a network knows little. Those below the median
    are read if they have 40 probes under them. Corrected for lucky hits.
    """
    shares = np.arange(2, 10) / 10
    shares = shares[shares >= min(0.5, 40 / len(probe_scores))]
    below = np.searchsorted(np.sort(scores), np.quantile(probe_scores, shares), side="right") / len(scores)
    error = np.sqrt((1.0 - shares) / (shares * len(probe_scores)))  # relative, binomial
    bound = float((below / shares * (1.0 + 0.5 * error)).min())
    return min(1.0, bound if n_classes is None else bound / (1.0 + bound / (n_classes - 1)))


# --- checks ---------------------------------------------------------------------------------------


def finite(values: NDArray[Any], name: str) -> Floats:
    """Return a float64 array of shape (n,), or say by name that it is none."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise InputError(f"{name} must be a finite, non-empty array of shape (n,), got shape {array.shape}.")
    return array


def as_share(value: float, name: str) -> float:
    if not 0.0 <= value <= 1.0:
        raise ParameterError(f"{name} must be in [0, 1], got {value}.")
    return float(value)


def checked(probs: NDArray[Any], codes: NDArray[Any]) -> tuple[NDArray[Any], Codes]:
    """Return probabilities as they are and int64 codes, or say what is wrong with them."""
    array, codes = np.asarray(probs), np.asarray(codes)
    array = array if array.dtype.kind == "f" else array.astype(np.float64)
    if array.ndim != 2 or array.shape[1] < 2 or codes.shape != (len(array),) or not len(array):
        raise InputError(
            "probs and codes must be of shapes (n, K) with K >= 2 and (n,), "
            f"got {array.shape} and {codes.shape}."
        )
    if not in_blocks(_are_weights, array).all():
        raise InputError("probs must be finite and at least 0 with no row of zeros, got others.")
    if codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= array.shape[1]:
        raise InputError(
            f"codes must be integers from 0 to {array.shape[1] - 1}, got {codes.min()} to {codes.max()}."
        )
    return array, codes.astype(np.int64, copy=False)


def _are_weights(part: NDArray[Any]) -> NDArray[np.bool_]:
    known = np.isfinite(part).all(axis=1)
    part = np.where(known[:, None], part, -1.0)
    return known & (part.min(axis=1) >= 0.0) & (part.max(axis=1) > 0.0)


def normalized(probs: NDArray[Any]) -> Floats:
    """Return float64 probabilities whose rows sum to one."""
    array = np.asarray(probs, dtype=np.float64)
    return np.asarray(array / array.sum(axis=1, keepdims=True))
