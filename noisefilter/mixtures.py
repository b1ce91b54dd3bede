"""Mixtures of two components: the decision rule of INN, DivideMix and many others.

They believe that clean and wrong rows are two components, and so find two on clean data too; see
`noisefilter.splits` for rules that can answer "none".
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, logsumexp

from noisefilter.errors import InputError, ParameterError
from noisefilter.estimates import Floats, finite
from noisefilter.splits import Split

__all__ = ["beta_mixture", "mixture", "mixture_with_separation", "separation"]

_SMALLEST = 1e-12


class _Mixture(NamedTuple):
    """Weights, means and variances of the noisy (0) and the clean (1) component, and the likelihood."""

    weights: Floats
    means: Floats
    variances: Floats
    log_likelihood: float


def mixture(
    scores: NDArray[Any], kind: Literal["beta", "gaussian"] = "beta", *, scale: bool = False
) -> Split:
    """Believe that clean and wrong rows are the two components of a mixture, split at posterior 0.5.

    ``"beta"`` is the rule of INN (section 3.3 of arXiv:2106.15185) with the method-of-moments EM of Arazo et
    al. (ICML 2019), on scores in [0, 1] as they are, or on any scores with ``scale=True``: as those authors
    do with losses, it is fitted to the scores between their 5th and 95th percentile, which are scaled to
    [0, 1]. ``"gaussian"`` is that of DivideMix (Li et al., ICLR 2020) on scores scaled to [0, 1] in any case.

    Deviations, all to be robust: two deterministic starts (the halves at the median; Beta(1, 2) and
    Beta(2, 1)) of which the likelier fit is kept; EM until it stands still (at most 200 steps) instead of
    10; floors for weights and variances; outliers below the 0.1 percentile clipped before scaling
    ("gaussian"); the posterior is constant outside the two means, which makes it non-decreasing. A
    beta fit whose means differ by less than 0.02 is replaced by a Gaussian one. Warns when the components
    hardly separate (Ashman's D < 1): the split is then arbitrary, as it is whenever wrong labels are few.

    Raises
    ------
    InputError
        If `kind` is ``"beta"`` without `scale` and a score lies outside [0, 1].
    """
    split, distance = mixture_with_separation(scores, kind, scale=scale)
    if split.clean_proba is not None and distance < 1.0:
        warnings.warn(
            f"The two components of the mixture hardly separate (Ashman's D = {distance:.2f} < 1); "
            "the split is arbitrary.",
            UserWarning,
            stacklevel=2,
        )
    return split


def mixture_with_separation(
    scores: NDArray[Any], kind: Literal["beta", "gaussian"] = "beta", *, scale: bool = False
) -> tuple[Split, float]:
    """Return what :func:`mixture` returns and Ashman's D of its two components, from one fit.

    Never warns: where D is below 1 the components are one hill, and the split is arbitrary. Where all
    scores are equal D is 0 and the split keeps every row, with ``clean_proba`` None.

    Raises
    ------
    InputError
        If `kind` is ``"beta"`` without `scale` and a score lies outside [0, 1].
    """
    if kind not in ("beta", "gaussian"):
        raise ParameterError(f"kind must be 'beta' or 'gaussian', got {kind!r}.")
    scores = finite(scores, "scores")
    if np.ptp(scores) < 1e-8:  # nothing to separate
        return Split(np.ones(len(scores), dtype=bool), float(scores.min()), None, None), 0.0
    x, fit, log_density = _fitted(scores, kind, scale)
    return _split_posterior(scores, x, fit, log_density), _ashman(fit)


def separation(scores: NDArray[Any], kind: Literal["beta", "gaussian"] = "gaussian") -> float:
    """Return Ashman's D of the two components that :func:`mixture` fits to scores as they are.

    Below 1 they are one hill; 0 where all scores are equal.
    """
    scores = finite(scores, "scores")
    return _ashman(_fitted(scores, kind, scale=False)[1]) if np.ptp(scores) >= 1e-8 else 0.0


def _fitted(scores: Floats, kind: str, scale: bool) -> tuple[Floats, _Mixture, _Density]:
    """Return the scores as they are fitted, the fit, and the logarithm of its densities."""
    if kind == "beta":
        x, inside = _trimmed(scores) if scale else (_clipped_unit(scores), slice(None))
        fit = _fit(x[inside], _log_beta, floor=1e-4)
        if fit.means[1] - fit.means[0] >= 0.02 and np.isfinite(fit.log_likelihood):
            return x, fit, _log_beta
    x = _scaled(np.maximum(scores, np.quantile(scores, 0.001)))
    return x, _fit(x, _log_gaussian, floor=5e-4), _log_gaussian


def beta_mixture(scores: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Return weights and both shape parameters, each (2,), of the fit that ``mixture(kind="beta")`` makes.

    Component 0 is the noisy one (smaller mean).
    """
    fit = _fit(_clipped_unit(finite(scores, "scores")), _log_beta, floor=1e-4)
    return fit.weights, *_beta_shape(fit.means, fit.variances)


def _scaled(x: Floats) -> Floats:
    return np.asarray((x - x.min()) / np.ptp(x)) if np.ptp(x) > 0 else np.zeros(len(x))


def _trimmed(scores: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Scale to (0, 1) what lies between the 5th and the 95th percentile, and say which rows that are."""
    low = np.quantile(scores, 0.05, method="lower")
    high = np.quantile(scores, 0.95, method="higher")
    return _clipped_unit(_scaled(np.clip(scores, low, high))), (low <= scores) & (scores <= high)


def _clipped_unit(scores: Floats) -> Floats:
    if scores.min() < 0.0 or scores.max() > 1.0:
        raise InputError(
            f"scores must be in [0, 1] for a beta mixture, got {scores.min():.3g} to {scores.max():.3g}. "
            "Scale them with scale=True, or use kind='gaussian' for margins."
        )
    return np.clip(scores, 1e-4, 1 - 1e-4)


def _beta_shape(means: Floats, variances: Floats) -> tuple[Floats, Floats]:
    """Match the moments: a = m (m (1 - m) / v - 1), b = a (1 - m) / m."""
    size = means * (1 - means) / np.minimum(variances, 0.99 * means * (1 - means)) - 1
    return means * size, (1 - means) * size


def _log_beta(x: Floats, means: Floats, variances: Floats) -> Floats:
    a, b = _beta_shape(means, variances)
    column = x[:, None]
    return np.asarray((a - 1) * np.log(column) + (b - 1) * np.log1p(-column) - betaln(a, b))  # (n, 2)


def _log_gaussian(x: Floats, means: Floats, variances: Floats) -> Floats:
    return np.asarray(-0.5 * ((x[:, None] - means) ** 2 / variances + np.log(2 * np.pi * variances)))


_Density = Callable[[Floats, Floats, Floats], Floats]


def _fit(x: Floats, log_density: _Density, floor: float) -> _Mixture:
    """Keep the likelier of two starts, with the component of larger mean last."""
    x = np.sort(x)  # the order of the rows must not change the last bit
    halves = np.array_split(x, 2)
    moments = [np.mean(half) for half in halves], [np.var(half) for half in halves]
    starts = [moments, ([1 / 3, 2 / 3], [1 / 18, 1 / 18])]
    fits = [_expectation_maximization(x, log_density, np.array(m), np.array(v), floor) for m, v in starts]
    best = max(fits, key=lambda fit: fit.log_likelihood if np.isfinite(fit.log_likelihood) else -np.inf)
    order = np.argsort(best.means)
    return _Mixture(best.weights[order], best.means[order], best.variances[order], best.log_likelihood)


def _expectation_maximization(
    x: Floats, log_density: _Density, means: Floats, variances: Floats, floor: float
) -> _Mixture:
    weights, likelihood = np.array([0.5, 0.5]), -np.inf
    variances = np.maximum(variances, floor)
    for _ in range(200):
        log_parts = np.log(weights) + log_density(x, means, variances)  # (n, 2)
        log_total = logsumexp(log_parts, axis=1)
        before, likelihood = likelihood, float(log_total.mean())
        if not likelihood - before >= 1e-6:  # also stops at a likelihood that is not a number
            break
        duties = np.maximum(np.exp(log_parts - log_total[:, None]), _SMALLEST)
        total = duties.sum(axis=0)
        means = duties.T @ x / total
        variances = np.maximum((duties * (x[:, None] - means) ** 2).sum(axis=0) / total, floor)
        weights = np.maximum(total / total.sum(), 1e-3)
        weights = weights / weights.sum()
    return _Mixture(weights, means, variances, likelihood)


def _ashman(fit: _Mixture) -> float:
    return float((fit.means[1] - fit.means[0]) * np.sqrt(2 / fit.variances.sum()))


def _split_posterior(scores: Floats, x: Floats, fit: _Mixture, log_density: _Density) -> Split:
    """Posterior of the clean component, clean where it is at least 0.5.

    Between the means it rises: the slope of the log-ratio of two Gaussians, and that of two Betas times
    x (1 - x), is linear in x and positive at both means. Outside them it is held constant.
    """
    inside = np.clip(x, fit.means[0], fit.means[1])
    log_parts = np.log(fit.weights) + log_density(inside, fit.means, fit.variances)
    posterior = np.exp(log_parts[:, 1] - logsumexp(log_parts, axis=1))
    clean = posterior >= 0.5
    cut = float(scores[clean].min()) if clean.any() else None
    return Split(clean, cut, posterior, float(1 - posterior.mean()))
