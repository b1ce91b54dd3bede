"""The range of the noise rate; the estimates are tested with the rule they serve, in test_splits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisefilter import estimates
from noisefilter.scores import log_margin


def task(seed, n=2000, n_classes=4, rate=0.2, n_probes=200):
    """Probabilities that lean to the true class, labels of which a share is wrong, and probes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes)) + 5.0 * rng.uniform(0.2, 1, (n, 1)) * np.eye(n_classes)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    shift = rng.integers(1, n_classes, size=n)
    codes = np.where(rng.random(n) < rate, (truth + shift) % n_classes, truth)
    rows = rng.choice(n, n_probes)
    return probs, codes, probs[rows], (truth[rows] + rng.integers(1, n_classes, n_probes)) % n_classes


def naive_rate(disagreement, doubt, a, b):
    """Scan r for D = r + (a + b (doubt - r) / (1 - r)) (doubt - r)."""
    grid = np.linspace(0, min(disagreement, doubt), 200_001)
    misfit = grid + (a + b * (doubt - grid) / (1 - grid)) * (doubt - grid) - disagreement
    return 0.0 if misfit[0] >= 0 else disagreement if misfit[-1] <= 0 else grid[np.abs(misfit).argmin()]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("probed", [False, True])
def test_the_range_equals_a_naive_one(seed, rate, probed):
    probs, codes, probe_probs, probe_codes = task(seed, rate=rate)
    a, b = estimates.BLENDED_DOUBT
    doubt = 1 - probs.max(axis=1)
    wrong = (probs.argmax(axis=1) != codes).astype(float)
    kappa = a + b * doubt.mean()
    slack = 1.64 * np.std(wrong - kappa * doubt) / len(codes) ** 0.5
    low = naive_rate(max(0, wrong.mean() - slack), doubt.mean(), a * 1.1, b * 1.1)
    high = naive_rate(wrong.mean() + slack, doubt.mean(), a * 0.75, b * 0.75)
    probes = ()
    if probed:
        probes = (probe_probs, probe_codes)
        bound = estimates.probe_rate(log_margin(probs, codes), log_margin(*probes), 4)
        slack = 1.64 * np.sqrt(bound * (1 - bound) / len(codes) + bound**2 / 2 / len(probe_codes))
        low, high = max(low, 0.6 * (bound - slack) - 0.005), max(high, 1.1 * bound + slack)
    found = estimates.noise_rate_interval(probs, codes, *probes)
    rate = estimates.estimate_noise_rate(probs, codes, *probes)
    assert found == pytest.approx((max(0, min(low, rate)), max(high, rate)), abs=2e-5)


@given(st.integers(0, 2**31), st.integers(2, 60), st.floats(0, 0.9), st.integers(0, 10), st.floats(0, 1))
def test_the_estimate_lies_within_the_range(seed, n, rate, n_probes, a):
    probs, codes, *probes = task(seed, n=n, rate=rate, n_probes=n_probes)
    ratio = (0.99 * a, 0.99 * (1 - a))
    low, high = estimates.noise_rate_interval(probs, codes, *probes, doubt_ratio=ratio)
    assert 0 <= low <= estimates.estimate_noise_rate(probs, codes, *probes, doubt_ratio=ratio) <= high <= 1


def test_more_rows_make_the_range_narrower():
    probs, codes, *probes = task(0, n=400)
    few = estimates.noise_rate_interval(probs, codes, *probes)
    many = estimates.noise_rate_interval(*[np.repeat(part, 20, axis=0) for part in (probs, codes, *probes)])
    assert few[0] < many[0] < many[1] < few[1]


def test_a_verdict_carries_the_range_of_its_own_estimate_only():
    from noisefilter import INNScorer, Signals

    probs, codes, probe_probs, probe_codes = task(0)
    signals = Signals(
        path_probs=probs, mean_probs=probs, probs=probs, probe_probs=probe_probs, probe_codes=probe_codes
    )
    verdict = INNScorer().fit_signals(signals, codes).verdict_
    assert verdict.noise_rate_interval == estimates.noise_rate_interval(
        probs, codes, probe_probs, probe_codes
    )
    other = INNScorer(split="joint").fit_signals(signals, codes).verdict_
    assert other.estimated_noise_rate != verdict.estimated_noise_rate
    assert other.noise_rate_interval is None


def test_planted_labels_are_known_by_heart_beyond_chance():
    rng = np.random.default_rng(0)
    learned = rng.integers(3, size=60)
    planted = np.arange(6) * 10
    predicted = learned.copy()
    predicted[planted] = (learned[planted] + 1) % 3
    predicted[planted[0]] = learned[planted[0]]  # one of six
    wrong = np.setdiff1d(np.arange(0, 60, 7), planted)
    predicted[wrong] = (learned[wrong] + 1) % 3
    chance = len(wrong) / 54 / 2
    expected = 1 / 6 - chance - 2 * np.sqrt(chance * (1 - chance) / 6)
    assert estimates.known_by_heart(predicted, learned, planted, 3) == pytest.approx(expected)
    assert expected < estimates.BY_HEART  # few of few are chance
    assert estimates.known_by_heart(learned, learned, planted, 3) == 1.0
    assert estimates.known_by_heart(predicted, learned, planted[:0], 3) == 0.0


@pytest.mark.parametrize(("n_classes", "rate"), [(2, 0.3), (10, 0.4), (10, 0.0)])
@pytest.mark.parametrize("right", [0.5, 0.9])
def test_guesses_are_right_as_often_as_planted_rows_say(n_classes, rate, right):
    rng = np.random.default_rng(0)
    n = 200_000
    truth = rng.integers(n_classes, size=n)

    def elsewhere(wrong):
        return np.where(wrong, (truth + rng.integers(1, n_classes, size=n)) % n_classes, truth)

    codes, predicted = elsewhere(rng.random(n) < rate), elsewhere(rng.random(n) > right)
    rows = np.arange(0, n, 2)
    found = estimates.guessed_right(predicted, codes, rows, rate, n_classes)
    assert found == pytest.approx(right, abs=0.015) and found < right  # a standard error is taken off


@pytest.mark.parametrize("n_classes", [2, 10, 100])
@pytest.mark.parametrize("rate", [0.3, 0.5, 0.9, 0.99, 1.0])
def test_guesses_by_chance_are_not_right(n_classes, rate):
    rng = np.random.default_rng(1)
    codes, predicted = rng.integers(n_classes, size=(2, 400))
    # Where nothing but the rate tells chance from knowledge, nothing is claimed.
    found = estimates.guessed_right(predicted, codes, np.arange(400), rate, n_classes)
    assert 0.0 <= found < 0.6


def test_one_planted_row_says_nothing_wrong():
    assert estimates.guessed_right(np.array([1, 0]), np.array([1, 1]), np.array([0]), 0.0, 2) == 1.0
    assert estimates.guessed_right(np.array([1, 0]), np.array([1, 1]), np.array([1]), 0.0, 2) == 0.0


def test_a_network_has_to_have_learned_before_it_memorizes():
    assert estimates.memorizes(0.11, 150)
    assert not estimates.memorizes(0.5, 149) and not estimates.memorizes(0.1, 10_000)
