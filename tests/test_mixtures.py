"""Mixtures against naive versions and known parameters."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, norm
from sklearn.mixture import GaussianMixture

from noisefilter.errors import InputError, ParameterError
from noisefilter.mixtures import beta_mixture, mixture, mixture_with_separation, separation


def two_betas(n=4000, share=0.5, seed=0):
    rng = np.random.default_rng(seed)
    noisy = round(n * share)
    return np.concatenate([rng.beta(2, 8, noisy), rng.beta(8, 2, n - noisy)])


def test_beta_mixture_recovers_the_means():
    weights, a, b = beta_mixture(two_betas())
    assert a / (a + b) == pytest.approx([0.2, 0.8], abs=0.02)
    assert weights == pytest.approx([0.5, 0.5], abs=0.02)


def test_beta_mixture_equals_a_naive_one():
    """EM by the method of moments, one number at a time, from the better of the two starts."""
    x = np.clip(two_betas(n=200, share=0.3), 1e-4, 1 - 1e-4)
    low, high = np.sort(x)[:100], np.sort(x)[100:]
    fits = []
    for means, variances in (
        ([low.mean(), high.mean()], [low.var(), high.var()]),
        ([1 / 3, 2 / 3], [1 / 18] * 2),
    ):
        weights, before = [0.5, 0.5], -math.inf
        for _ in range(200):
            sizes = [m * (1 - m) / v - 1 for m, v in zip(means, variances, strict=True)]
            parts = [
                w * beta.pdf(x, m * s, (1 - m) * s) for w, m, s in zip(weights, means, sizes, strict=True)
            ]
            likelihood = np.log(parts[0] + parts[1]).mean()
            if likelihood - before < 1e-6:
                break
            before = likelihood
            duties = [part / (parts[0] + parts[1]) for part in parts]
            means = [(d * x).sum() / d.sum() for d in duties]
            variances = [(d * (x - m) ** 2).sum() / d.sum() for d, m in zip(duties, means, strict=True)]
            weights = [d.mean() for d in duties]
        fits.append((likelihood, sorted(means), [w for _, w in sorted(zip(means, weights, strict=True))]))
    _, means, naive_weights = max(fits)
    weights, a, b = beta_mixture(x)
    assert a / (a + b) == pytest.approx(means, abs=1e-5)
    assert weights == pytest.approx(naive_weights, abs=1e-5)


def test_gaussian_mixture_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(-4, 1, 300), rng.normal(3, 1.5, 700)])
    model = GaussianMixture(2, random_state=0, tol=1e-7, max_iter=500).fit(scores[:, None])
    posterior = model.predict_proba(scores[:, None])[:, model.means_.argmax()]
    between = (scores > -4) & (scores < 3)  # outside the means ours is constant
    split = mixture(scores, "gaussian")
    assert np.abs(split.clean_proba - posterior)[between].max() < 0.05
    assert split.noise_rate == pytest.approx(0.3, abs=0.01)
    assert (split.clean == (np.arange(1000) >= 300)).mean() > 0.99


def test_scaled_beta_mixture_is_fitted_between_the_percentiles():
    """As Arazo et al. do with losses: drop what is outside the 5th and 95th percentile, then min-max."""
    scores = -np.random.default_rng(0).normal(np.repeat([6.0, 2.0], [301, 700]))  # minus losses
    low, high = np.percentile(scores, [5, 95])  # of 1,001 rows: percentiles are rows
    inside = (scores >= low) & (scores <= high)
    split, expected = mixture(scores, scale=True), mixture((scores[inside] - low) / (high - low))
    np.testing.assert_allclose(split.clean_proba[inside], expected.clean_proba, rtol=1e-9)
    assert split.clean[scores > high].all() and not split.clean[scores < low].any()
    assert (split.clean == (np.arange(1001) >= 301)).mean() > 0.85
    gaussian = mixture(scores, "gaussian"), mixture(scores, "gaussian", scale=True)
    assert np.array_equal(gaussian[0].clean_proba, gaussian[1].clean_proba)  # is scaled in any case


@pytest.mark.filterwarnings("ignore:The two components")
@settings(deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=2, max_size=50))
def test_scaled_posteriors_are_monotone_and_finite(scores):
    split = mixture(np.array(scores), scale=True)
    if split.clean_proba is not None:
        assert np.isfinite(split.clean_proba).all()
        assert (np.diff(split.clean_proba[np.argsort(scores, kind="stable")]) >= -1e-9).all()


def test_mixture_judges_planted_components_and_reports_its_threshold():
    scores = two_betas(share=0.3)
    split = mixture(scores)
    assert (split.clean == (np.arange(4000) >= 1200)).mean() > 0.98
    assert np.array_equal(split.clean, scores >= split.threshold)
    assert split.noise_rate == pytest.approx(0.3, abs=0.02)


def test_one_outlier_does_not_move_the_gaussian_mixture():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(-4, 1, 300), rng.normal(3, 1, 1700)])
    calm = mixture(scores, "gaussian").clean
    scores[0] = -1e6
    assert np.array_equal(mixture(scores, "gaussian").clean, calm)


def test_rows_below_a_narrow_noisy_component_are_noisy_too():
    """Far below both means the wide clean component is the likelier one; the posterior must not follow it."""
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(-2, 0.3, 800), rng.normal(4, 3, 1200), [-6.0]])
    split = mixture(scores, "gaussian")
    assert not split.clean[-1]
    assert not split.clean[:800][scores[:800] < -2].any()


def test_a_single_hump_is_warned_about():
    with pytest.warns(UserWarning, match="hardly separate"):
        mixture(norm.ppf(np.linspace(0.001, 0.999, 500)), "gaussian")


@pytest.mark.filterwarnings("ignore:The two components")
@pytest.mark.parametrize(
    "scores", [two_betas(300, 0.3), np.linspace(0, 1, 100), 0.5 + np.arange(80) % 2 / 1e3]
)
@pytest.mark.parametrize("kind", ["beta", "gaussian"])
def test_one_fit_gives_the_split_and_how_far_its_components_are_apart(scores, kind):
    split, distance = mixture_with_separation(scores, kind)
    assert distance == separation(scores, kind)
    for found, expected in zip(split, mixture(scores, kind), strict=True):
        assert np.array_equal(found, expected)


def test_separation_is_that_of_the_planted_components():
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(-3, 1, 3000), rng.normal(3, 2, 3000)])
    _, distance = mixture_with_separation(scores, "gaussian")
    expected = 6 * math.sqrt(2 / (1 + 4))  # Ashman, Bird & Zepf 1994: the means over the mean variance
    assert distance == pytest.approx(expected, rel=0.05)


@pytest.mark.filterwarnings("error")
def test_who_is_told_the_separation_is_not_warned():
    _, distance = mixture_with_separation(norm.ppf(np.linspace(0.001, 0.999, 500)), "gaussian")
    assert distance < 1
    split, distance = mixture_with_separation(np.full(20, 0.3))
    assert split.clean.all() and split.clean_proba is None and distance == 0.0


def test_scaled_mixtures_are_told_apart_on_the_scale_they_are_fitted_on():
    scores = two_betas(400)
    low, high = np.quantile(scores, 0.05, method="lower"), np.quantile(scores, 0.95, method="higher")
    inside = (scores >= low) & (scores <= high)
    _, distance = mixture_with_separation(5 * scores - 3, scale=True)
    assert distance == pytest.approx(separation((scores[inside] - low) / (high - low), "beta"))


def test_beta_components_that_coincide_fall_back_to_a_gaussian():
    scores = 0.5 + 0.001 * np.repeat([0.0, 1.0], 50)
    split = mixture(scores)
    assert split.clean.tolist() == [False] * 50 + [True] * 50


@pytest.mark.parametrize("kind", ["beta", "gaussian"])
def test_equal_scores_stay(kind):
    split = mixture(np.full(20, 0.3), kind)
    assert split.clean.all()
    assert split.clean_proba is None and split.noise_rate is None  # it cannot say


@pytest.mark.filterwarnings("ignore:The two components")
@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=50), st.sampled_from(["beta", "gaussian"]))
def test_mixture_posteriors_are_monotone_and_finite(scores, kind):
    scores = np.array(scores)
    split = mixture(scores, kind)
    if split.clean_proba is None:
        assert np.ptp(scores) < 1e-8 and split.clean.all()
        return
    assert np.isfinite(split.clean_proba).all()
    assert (np.diff(split.clean_proba[np.argsort(scores, kind="stable")]) >= -1e-9).all()


def test_scores_stay_as_they_are():
    scores = two_betas(200)
    before = scores.copy()
    mixture(scores)
    assert np.array_equal(scores, before)


def test_errors_name_what_is_wrong():
    with pytest.raises(InputError, match="kind='gaussian'"):
        mixture(np.array([-1.0, 2.0]))
    with pytest.raises(ParameterError, match="kind must be"):
        mixture(np.array([0.0, 1.0]), "gamma")
