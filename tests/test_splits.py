"""Rules and estimates against naive versions, known rates, cleanlab, and the laws every rule keeps."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

from noisefilter import estimates, splits
from noisefilter.errors import InputError, ParameterError
from noisefilter.scores import log_margin


def task(seed, n=300, n_classes=4, rate=0.2, sharp=6.0):
    """Probabilities that lean to the true class, labels of which a share is uniformly wrong, the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    logits = rng.normal(size=(n, n_classes)) + sharp * rng.uniform(0.2, 1, (n, 1)) * np.eye(n_classes)[truth]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    wrong = rng.random(n) < rate
    shift = rng.integers(1, n_classes, size=n)
    return probs, np.where(wrong, (truth + shift) % n_classes, truth), truth


def probed(seed, **options):
    """A task with 40 probes: rows under a wrong label."""
    probs, codes, truth = task(seed, **options)
    rng = np.random.default_rng(seed + 1)
    rows = rng.choice(len(codes), 40)
    n_classes = probs.shape[1]
    return probs, codes, truth, probs[rows], (codes[rows] + rng.integers(1, n_classes, 40)) % n_classes


# --- rules on scores ------------------------------------------------------------------------------


def test_threshold_keeps_what_reaches_it():
    split = splits.threshold(np.array([0.1, 0.5, 0.9]), 0.5)
    assert split.clean.tolist() == [False, True, True]
    assert split.threshold == 0.5


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.floats(0, 1))
def test_keep_fraction_keeps_exactly_that_many_and_the_first_among_equals(scores, fraction):
    clean = splits.keep_fraction(np.array(scores, dtype=float), fraction).clean
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert sorted(np.flatnonzero(clean)) == sorted(order[: round(fraction * len(scores))])


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=60), st.floats(0.01, 0.99))
def test_at_rate_flags_the_lowest_and_its_probabilities_average_to_the_rate(scores, rate):
    scores = np.array(scores)
    split = splits.at_rate(scores, rate)
    assert (~split.clean).sum() <= round(rate * len(scores))
    assert np.array_equal(split.clean, scores >= split.threshold)
    assert split.clean_proba.mean() == pytest.approx(1 - rate, abs=1e-6)
    assert (np.diff(split.clean_proba[np.argsort(scores)]) >= 0).all()


def test_at_rate_counts_exactly_without_ties_and_knows_both_ends():
    scores = np.random.default_rng(0).permutation(100).astype(float)
    assert (~splits.at_rate(scores, 0.379).clean).sum() == 38
    assert splits.at_rate(scores, 0.0).clean.all()
    assert (splits.at_rate(scores, 0.0).clean_proba == 1).all()
    assert splits.at_rate(scores, 1.0).clean.sum() == 1  # one row always stays


def naive_probe_rate(scores, probe_scores, n_classes=None):
    """A share q of the wrong labels, and hardly a right one, scores below the q-quantile of the probes."""
    estimates = []
    for percent in (20, 30, 40, 50, 60, 70, 80, 90):
        t, q = np.percentile(probe_scores, percent), percent / 100
        if q < 0.5 and q * len(probe_scores) < 40:
            continue
        error = ((1 - q) / (q * len(probe_scores))) ** 0.5
        estimates.append(sum(s <= t for s in scores) / len(scores) / q * (1 + error / 2))
    rate = min(estimates)
    if n_classes is not None:  # a share r / (K - 1) of the probes is right by luck: x = r / (1 - r / (K - 1))
        rate = rate / (1 + rate / (n_classes - 1))
    return min(1.0, rate)


@pytest.mark.parametrize("m", [3, 50, 90, 150, 300])
def test_probes_follow_the_formula(m):
    rng = np.random.default_rng(m)
    scores, planted = rng.normal(size=200), rng.normal(-1, 1, size=m)
    assert splits.probes(scores, planted).noise_rate == pytest.approx(naive_probe_rate(scores, planted))
    of_three = splits.probes(scores, planted, n_classes=3).noise_rate
    assert of_three == pytest.approx(naive_probe_rate(scores, planted, 3)) and of_three > 0


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.1, 0.4])
def test_probes_recover_a_uniform_rate_and_the_posterior_is_calibrated(rate):
    rng = np.random.default_rng(1)
    wrong = rng.random(10_000) < rate
    scores = np.where(wrong, rng.normal(-2, 1, 10_000), rng.normal(2, 1, 10_000))
    split = splits.probes(scores, rng.normal(-2, 1, 2000))
    assert split.noise_rate == pytest.approx(rate, abs=0.025)
    assert (~split.clean).mean() == pytest.approx(split.noise_rate, abs=1e-4)
    assert 1 - split.clean_proba.mean() == pytest.approx(rate, abs=0.03)
    exact = rate * norm.pdf(scores, -2) / (rate * norm.pdf(scores, -2) + (1 - rate) * norm.pdf(scores, 2))
    assert np.abs(1 - split.clean_proba - exact).mean() < 0.03


def test_planted_rows_take_the_scores_of_their_rank_among_the_others():
    scores = np.array([0.0, 10.0, 20.0, 30.0, 40.0, -5.0, -1.0, -1.0])
    mapped = splits.mapped_scores(scores, np.array([5, 6, 7]))
    assert mapped[:5].tolist() == scores[:5].tolist()
    low, tied, also_tied = mapped[5:]
    assert low == pytest.approx(np.quantile(scores[:5], 0.5 / 3)) and tied == also_tied
    assert tied == pytest.approx(np.quantile(scores[:5], 2.0 / 3))


def test_a_planted_label_is_never_suggested():
    probs = np.array([[0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6]])
    codes, others = np.array([0, 0, 2]), np.array([1, 1, 1])
    assert splits.best_unplanted(probs, codes, others, np.array([0]), np.array([1])).tolist() == [2, 1, 1]
    two = probs[:, :2]
    assert splits.best_unplanted(two, codes % 2, others, np.array([0]), np.array([1])).tolist() == [1, 1, 1]


def test_planted_labels_are_wrong_and_cover_the_other_classes():
    codes = np.repeat([0, 1, 2], 400)
    rows, planted = splits.plant_probes(codes, 3, 0.5, np.random.default_rng(0))
    assert len(rows) == len(np.unique(rows)) == 600
    counts = np.zeros((3, 3), dtype=int)
    np.add.at(counts, (codes[rows], planted), 1)
    assert (counts.diagonal() == 0).all()
    assert (counts[~np.eye(3, dtype=bool)] > 70).all()  # 100 expected
    assert len(splits.plant_probes(codes, 3, 0.0, np.random.default_rng(0))[0]) == 0
    many = np.zeros(50_002, dtype=np.int64)
    assert len(splits.plant_probes(many, 3, 2_000 / 50_002, np.random.default_rng(0))[0]) == 2_000


# --- confident learning ---------------------------------------------------------------------------


def test_confident_joint_equals_a_naive_one():
    probs, codes, _ = task(0, n=200, sharp=2.0)
    n_classes = probs.shape[1]
    limits = [np.mean([p[j] for p, c in zip(probs, codes, strict=True) if c == j]) for j in range(n_classes)]
    counts = np.zeros((n_classes, n_classes))
    for p, c in zip(probs, codes, strict=True):
        candidates = [j for j in range(n_classes) if p[j] >= limits[j]]
        if candidates:
            counts[c, max(candidates, key=lambda j: p[j])] += 1
    for k in range(n_classes):
        counts[k] *= (codes == k).sum() / counts[k].sum()
    assert splits.confident_joint(probs, codes) == pytest.approx(counts)


@pytest.mark.parametrize(("seed", "n_classes"), [(0, 2), (1, 3), (2, 4), (3, 5), (3, 6), (6, 7)])
def test_joint_equals_cleanlab(seed, n_classes):
    """Where no two counts of a class tie: cleanlab then rounds by the number of the class, we do not."""
    probs, codes, _ = task(seed, n=400, n_classes=n_classes, rate=0.25, sharp=1.0 + n_classes / 2)
    theirs = find_label_issues(codes, probs, n_jobs=1)
    assert theirs.sum() > 20
    assert np.array_equal(~splits.joint(probs, codes).clean, theirs)


def test_joint_estimates_the_rate():
    probs, codes, _ = task(0, n=4000, rate=0.2, sharp=10)
    assert splits.joint(probs, codes).noise_rate == pytest.approx(0.2, abs=0.03)


def test_joint_never_flags_a_label_that_is_the_most_probable_one():
    """Ten rows labelled 1 reach the low threshold of class 0 and not the high one of class 1."""
    probs = np.array([[0.05, 0.95]] * 10 + [[0.45, 0.55]] * 10 + [[0.4, 0.6]] * 20)
    codes = np.repeat([1, 0], 20)
    assert splits.confident_joint(probs, codes)[1, 0] == pytest.approx(10)
    assert splits.joint(probs, codes).clean.all()


def test_joint_keeps_the_only_row_of_a_class():
    probs = np.array([[0.9, 0.1]] * 19 + [[0.95, 0.05]])
    assert splits.joint(probs, np.repeat([0, 1], [19, 1])).clean.all()
    assert not splits.joint(probs, np.repeat([0, 1], [16, 4])).clean.all()


# --- the default ----------------------------------------------------------------------------------


def naive_noise_rate(probs, codes, a, b):
    """Scan r for D = r + (a + b (doubt - r) / (1 - r)) (doubt - r)."""
    wrong = np.mean([row.argmax() != code for row, code in zip(probs, codes, strict=True)])
    doubt = np.mean([1 - max(row) for row in probs])
    grid = np.linspace(0, min(wrong, doubt), 100_001)
    misfit = np.abs(grid + (a + b * (doubt - grid) / (1 - grid)) * (doubt - grid) - wrong)
    return grid[misfit.argmin()]


@pytest.mark.parametrize("ratio", [estimates.BLENDED_DOUBT, estimates.PATH_DOUBT, (0.1, 0.0)])
@pytest.mark.parametrize("n_wrong", [0, 10, 20, 30])
def test_noise_rate_follows_its_equation(ratio, n_wrong):
    probs = np.random.default_rng(0).dirichlet([6, 1, 1], 200)
    codes = probs.argmax(axis=1)
    codes[:n_wrong] = (codes[:n_wrong] + 1) % 3
    found = estimates.estimate_noise_rate(probs, codes, doubt_ratio=ratio)
    assert found == pytest.approx(naive_noise_rate(probs, codes, *ratio), abs=1e-4)


def test_noise_rate_by_hand():
    """Doubts 0.1, 0.3, 0.4, 0.4, mean 0.3; one of four labels contradicted: (1/4 - 0.3 / 2) / (1 - 1/2)."""
    probs = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.6, 0.4]])
    codes = np.array([0, 0, 0, 0])
    assert estimates.estimate_noise_rate(probs, codes, doubt_ratio=(0.5, 0.0)) == pytest.approx(0.2)
    assert estimates.estimate_noise_rate(probs, codes, doubt_ratio=(0.0, 0.0)) == pytest.approx(0.25)
    assert estimates.estimate_noise_rate(probs, np.array([0, 1, 0, 0])) == 0.0
    assert (
        estimates.estimate_noise_rate(probs, np.array([1, 0, 1, 0])) == 0.75
    )  # never beyond the contradictions
    tied = np.full((4, 2), 0.5)  # a tie contradicts nobody
    assert estimates.estimate_noise_rate(tied, np.array([0, 1, 1, 1]), doubt_ratio=(0.0, 0.0)) == 0.0


def test_the_larger_of_two_estimates_counts():
    """A network that has memorized every label contradicts none; the probes still know."""
    rng = np.random.default_rng(0)
    codes = rng.integers(5, size=3000)
    wrong = rng.random(3000) < 0.2
    belief = np.where(wrong, rng.uniform(0.5, 0.8, 3000), rng.uniform(0.85, 0.99, 3000))  # all right on paper
    probs = np.repeat((1 - belief)[:, None] / 4, 5, axis=1)
    probs[np.arange(3000), codes] = belief
    planted = rng.integers(5, size=300)
    probe_belief = rng.uniform(0.5, 0.8, 300)
    probe_probs = np.repeat((1 - probe_belief)[:, None] / 4, 5, axis=1)
    probe_probs[np.arange(300), planted] = probe_belief
    assert splits.excess_disagreement(probs, codes).clean.all()
    split = splits.excess_disagreement(probs, codes, probe_probs, planted)
    assert split.noise_rate == pytest.approx(
        naive_probe_rate(log_margin(probs, codes), log_margin(probe_probs, planted), 5)
    )
    assert split.noise_rate == pytest.approx(0.2, abs=0.03)
    assert (split.clean == ~wrong).mean() > 0.97


def learned(seed, transition, n=20_000, least=3.0):
    """Probabilities of a network that has learned the noise, P(true | x) T; given labels; truth."""
    rng = np.random.default_rng(seed)
    n_classes = len(transition)
    truth = rng.integers(n_classes, size=n)
    given = np.array([rng.choice(n_classes, p=transition[t]) for t in truth])
    logits = rng.normal(size=(n, n_classes)) + rng.uniform(least, 9, (n, 1)) * np.eye(n_classes)[truth]
    clean = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return clean @ transition, given, truth


def uneven(n_classes=5):
    transition = np.eye(n_classes)
    transition[0, 1], transition[0, 0] = 0.35, 0.65
    transition[3, 2], transition[3, 3] = 0.2, 0.8
    return transition


def test_transition_recovers_uneven_noise():
    transition = uneven()
    probs, codes, truth = learned(0, transition)
    estimate = estimates.estimate_transition(probs, codes, (codes != truth).mean())
    assert estimate == pytest.approx(transition, abs=0.05)
    assert estimate.sum(axis=1) == pytest.approx(np.ones(5))


def test_transition_of_uniform_noise_is_uniform():
    transition = np.full((5, 5), 0.3 / 4)
    np.fill_diagonal(transition, 0.7)
    probs, codes, _ = learned(0, transition, n=4000)
    estimate = estimates.estimate_transition(probs, codes, 0.3)
    assert np.abs(estimate - transition).max() < 0.03  # counts of 400 anchors alone stray by up to 0.06


def naive_transition(probs, codes, rate, kappa=0.5):
    n_classes = probs.shape[1]
    pairs = [(i, j) for i in range(n_classes) for j in range(n_classes) if i != j]
    excess, variance, size = {}, {}, {}
    for i, j in pairs:
        rows = [r for r in range(len(codes)) if probs[r].argmax() == i]
        middle = np.median([probs[r, i] for r in rows])
        rows = [r for r in rows if probs[r, i] >= middle]
        count, promise = sum(codes[r] == j for r in rows), sum(probs[r, j] for r in rows)
        size[i, j] = len(rows)
        excess[i, j] = max(0, min(count, (count - kappa * promise) / (1 - kappa)))
        variance[i, j] = count / (1 - kappa) ** 2
    mean = max(sum(excess.values()), 0.5) / (sum(size.values()) + 0.5)
    chance = {p: max(variance[p], size[p] * mean / (1 - kappa) ** 2) for p in pairs}
    between = sum((excess[p] - size[p] * mean) ** 2 - chance[p] for p in pairs) / sum(
        size[p] ** 2 for p in pairs
    )
    between = max(0, between)
    out = np.zeros((n_classes, n_classes))
    for p in pairs:
        trust = between / (between + chance[p] / size[p] ** 2)
        out[p] = max(mean + trust * (excess[p] / size[p] - mean), 0)
    mass = np.bincount(probs.argmax(axis=1), minlength=n_classes) / len(probs)
    out *= min(2, max(1, rate / (mass @ out.sum(axis=1))))
    missing = max(rate - mass @ out.sum(axis=1), 1e-3)
    out += missing / (n_classes - 1) * (1 - np.eye(n_classes))
    return out + np.diag(1 - out.sum(axis=1))


@pytest.mark.parametrize("least", [3.0, 7.0])
@pytest.mark.parametrize(("noise", "rate"), [(uneven(4), 0.1375), (0.8 * np.eye(4) + 0.05, 0.15)])
def test_transition_equals_a_naive_one(noise, rate, least):
    probs, codes, _ = learned(3, noise, n=2000, least=least)
    assert estimates.estimate_transition(probs, codes, rate) == pytest.approx(
        naive_transition(probs, codes, rate)
    )
    pull = np.where(np.arange(4) == codes[:50, None], 1.2, 0.0)  # the planted labels have been learned
    probe_probs = probs[:50] ** 0.5 * np.exp(pull)
    m = np.median(log_margin(probe_probs, codes[:50])) - np.median(
        [log_margin(probs[[i]], np.array([k]))[0] for i in range(2000) for k in range(4) if k != codes[i]]
    )
    assert estimates.memorization(probs, codes, probe_probs, codes[:50]) == pytest.approx(m)
    kappa = min(max(1 / (1 + m), 0.3), 0.97)
    assert estimates.estimate_transition(probs, codes, rate, probe_probs, codes[:50]) == pytest.approx(
        naive_transition(probs, codes, rate, kappa)
    )


def test_overlap_of_ordered_classes_is_no_noise():
    """Three ordered classes, no wrong labels but those of the overlap; a network that only generalizes."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=6000)
    probs = norm.cdf((np.array([[-0.4], [0.4], [9.0]]) - z) / 0.4).T
    probs = np.clip(np.diff(probs, axis=1, prepend=0.0), 1e-6, None)
    probs /= probs.sum(axis=1, keepdims=True)
    codes = (probs.cumsum(axis=1) < rng.random((6000, 1))).sum(axis=1)
    rows = np.arange(300)
    planted = (codes[rows] + rng.integers(1, 3, 300)) % 3
    found = estimates.estimate_transition(probs[300:], codes[300:], 0.03, probs[rows], planted)
    pairs = found[~np.eye(3, dtype=bool)]
    assert pairs.max() < 3 * pairs.mean()
    constant = estimates.estimate_transition(probs[300:], codes[300:], 0.03)
    assert constant[~np.eye(3, dtype=bool)].max() > 0.1  # without probes the overlap looks like noise


@pytest.mark.parametrize("n_classes", [2, 5])
def test_memorization_is_a_difference_of_medians(n_classes):
    rng = np.random.default_rng(0)
    probs, codes = rng.dirichlet(np.ones(n_classes), 40).round(2) + 0.01, rng.integers(n_classes, size=40)
    planted, wrong = np.eye(n_classes)[np.arange(9) % n_classes] + 0.2, np.arange(9) % n_classes
    others = [
        np.log(row[k] / max(row[c] for c in range(n_classes) if c != k))
        for row, code in zip(probs, codes, strict=True)
        for k in range(n_classes)
        if k != code
    ]
    expected = np.log(1.2 / 0.2) - np.median(others)
    assert estimates.memorization(probs, codes, planted, wrong) == pytest.approx(expected)


def test_shrunk_transition_keeps_what_chance_does_not_explain():
    counts = np.diag([90.0, 100.0, 100.0, 100.0])  # (given, true)
    counts[1, 0] = 30.0
    found = estimates.shrunk_transition(counts)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert 0.15 < found[0, 1] < 0.25 and (found > 0).all()
    off = found[~np.eye(4, dtype=bool)]
    assert np.sort(off)[-2] < 0.03
    few = np.diag(np.full(4, 20.0))
    few[1, 0] = 1.0
    shrunk = estimates.shrunk_transition(few)  # one row may be chance
    assert shrunk[0, 1] < 0.02 and (shrunk > 0).all()
    assert (estimates.shrunk_transition(np.diag([5.0, 5.0])) > 0).all()


def test_memorization_needs_planted_labels_that_were_learned():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), 500)
    codes, planted = rng.integers(4, size=500), rng.integers(4, size=60)
    assert estimates.memorization(probs, codes, probs[:60], planted) < 0.5
    learned = 0.2 * probs[:60] + 0.8 * np.eye(4)[planted]
    assert estimates.memorization(probs, codes, learned, planted) > 2
    assert estimates.memorization(probs, codes, np.full((60, 4), 0.25), planted) >= 0


def test_the_true_class_stays_the_likeliest():
    probs, codes, _ = learned(0, uneven(), n=2000)
    estimate = estimates.estimate_transition(probs, (codes + 1) % 5, 1.0)  # labels turned round completely
    assert (estimate.argmax(axis=1) == np.arange(5)).all()
    assert (estimate > 0).all()


def test_true_class_proba_equals_a_naive_one():
    transition = uneven(4)
    probs, codes, _ = learned(0, transition, n=12)
    expected = np.zeros((12, 4))
    for r in range(12):
        prior = [0.25] * 4
        for _ in range(10):
            mixed = [sum(prior[i] * transition[i, j] for i in range(4)) for j in range(4)]
            prior = [
                prior[i] * sum(transition[i, j] * probs[r, j] / mixed[j] for j in range(4)) for i in range(4)
            ]
        weights = np.array([prior[i] * transition[i, codes[r]] for i in range(4)])
        expected[r] = weights / weights.sum()
    assert estimates.true_class_proba(probs, codes, transition) == pytest.approx(expected)
    own = np.minimum(expected[np.arange(12), codes], 1 - 1e-9)
    plain = own < 1 - 1e-6  # beyond, the naive difference has lost its digits
    odds = estimates.corrected_log_odds(probs, codes, transition)[plain]
    assert odds == pytest.approx(np.log(own / (1 - own))[plain], rel=1e-6)


def test_many_classes_of_one_rate_but_for_few_pairs_equal_a_naive_product():
    rng = np.random.default_rng(0)
    matrix = np.repeat(rng.uniform(0, 0.1 / 50, size=(50, 1)), 50, axis=1)
    matrix[rng.integers(50, size=40), rng.integers(50, size=40)] = rng.uniform(0, 0.3, size=40)
    matrix[3] = 0.0  # this class is never called another
    matrix[:, 7] = 0.0  # and this one is called by no label at all, whatever the rate of the others
    matrix[np.arange(50), np.arange(50)] = 0.0
    matrix[np.arange(50), np.arange(50)] = 1.0 - matrix.sum(axis=1)
    probs = rng.dirichlet(np.full(50, 0.05), size=30)
    codes = rng.integers(50, size=30)
    prior = np.full((30, 50), 1 / 50)
    for _ in range(10):
        prior = prior * ((probs / (prior @ matrix)) @ matrix.T)
    expected = prior * matrix[:, codes].T
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        estimates.true_class_proba(probs, codes, matrix), expected, rtol=1e-9, atol=1e-12
    )


def test_uniform_noise_leaves_the_ranking_of_the_given_probability():
    probs, codes, _ = task(0)
    transition = np.full((4, 4), 0.05) + 0.8 * np.eye(4)
    scores = estimates.corrected_log_odds(probs, codes, transition)
    assert spearmanr(scores, probs[np.arange(300), codes]).statistic > 0.995


def test_a_label_that_stands_for_another_class_needs_better_support():
    """Half and half between 0 and 1, and a 0 is often labelled 1: doubt falls on the label 1, not on 0."""
    probs = np.array([[0.5, 0.5, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    scores = estimates.corrected_log_odds(probs, np.array([0, 1]), 0.98 * uneven(4) + 0.005)
    assert scores[0] > 2
    assert scores[1] < 0


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.1, 0.4])
def test_the_default_finds_uniform_noise_at_its_rate(rate):
    transition = np.full((10, 10), rate / 9)
    np.fill_diagonal(transition, 1 - rate)
    probs, codes, truth = learned(0, transition, n=4000, least=6.0)
    split = splits.excess_disagreement(probs, codes)
    assert split.noise_rate == pytest.approx(rate, abs=0.03)
    assert (split.clean == (codes == truth)).mean() > 0.96


def test_the_default_ranks_uneven_noise_better_than_a_margin():
    from sklearn.metrics import roc_auc_score

    probs, codes, truth = learned(1, uneven(), n=5000, least=0.0)
    rate = float((codes != truth).mean())
    scores = estimates.corrected_log_odds(probs, codes, estimates.estimate_transition(probs, codes, rate))
    right = codes == truth
    assert roc_auc_score(right, scores) > roc_auc_score(right, log_margin(probs, codes)) + 0.03


# --- laws -----------------------------------------------------------------------------------------


RULES = [splits.joint, splits.excess_disagreement]
sizes = st.tuples(st.integers(0, 1000), st.integers(20, 120), st.integers(2, 8))


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25, deadline=None)
@given(sizes)
def test_permuting_the_rows_permutes_the_split(rule, size):
    seed, n, n_classes = size
    probs, codes, _, probe_probs, probe_codes = probed(seed, n=n, n_classes=n_classes)
    extra = (probe_probs, probe_codes) if rule is splits.excess_disagreement else ()
    order = np.random.default_rng(seed).permutation(n)
    split, permuted = rule(probs, codes, *extra), rule(probs[order], codes[order], *extra)
    assert np.array_equal(permuted.clean, split.clean[order])
    assert permuted.noise_rate == pytest.approx(split.noise_rate)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25, deadline=None)
@given(sizes)
def test_renaming_the_classes_changes_nothing(rule, size):
    seed, n, n_classes = size
    probs, codes, _, probe_probs, probe_codes = probed(seed, n=n, n_classes=n_classes)
    name = np.random.default_rng(seed).permutation(n_classes)  # new number of each class
    back = np.argsort(name)
    extra = renamed = ()
    if rule is splits.excess_disagreement:
        extra, renamed = (probe_probs, probe_codes), (probe_probs[:, back], name[probe_codes])
    split, other = rule(probs, codes, *extra), rule(probs[:, back], name[codes], *renamed)
    assert np.array_equal(split.clean, other.clean)
    assert other.noise_rate == pytest.approx(split.noise_rate)


def test_tied_rows_favor_no_class():
    probs, codes, _ = task(0, n=60, n_classes=3)
    probs[::2] = [0.4, 0.4, 0.2]
    name = np.array([1, 2, 0])
    back = np.argsort(name)
    estimate = estimates.estimate_transition(probs, codes, 0.2)
    renamed = estimates.estimate_transition(probs[:, back], name[codes], 0.2)
    assert renamed == pytest.approx(estimate[np.ix_(back, back)])


@pytest.mark.parametrize(
    "case", ["two rows", "one class of one row", "absent class", "all tied", "one-hot", "100 classes"]
)
def test_hard_inputs_give_finite_answers(case):
    probs, codes, _ = task(0, n=30, n_classes=3)
    if case == "two rows":
        probs, codes = probs[:2], np.array([0, 1])
    elif case == "one class of one row":
        codes = np.where(np.arange(30) == 4, 2, codes % 2)
    elif case == "absent class":
        codes = codes % 2
    elif case == "all tied":
        probs = np.full((30, 3), 1 / 3)
    elif case == "one-hot":
        probs = np.eye(3)[codes]
    else:
        probs, codes, _ = task(0, n=150, n_classes=100)
    for split in (splits.joint(probs, codes), splits.excess_disagreement(probs, codes, probs[:1], codes[:1])):
        assert split.clean.shape == codes.shape
        assert split.clean.any()
        assert 0 <= split.noise_rate <= 1
    assert np.isfinite(split.clean_proba).all()
    transition = estimates.estimate_transition(probs, codes, 0.2)
    assert np.isfinite(estimates.corrected_log_odds(probs, codes, transition)).all()
    assert transition.sum(axis=1) == pytest.approx(np.ones(probs.shape[1]))


def test_nothing_touches_the_global_generator_or_the_input():
    probs, codes, _, probe_probs, probe_codes = probed(0)
    before, copies = np.random.get_state()[1].copy(), (probs.copy(), codes.copy())  # noqa: NPY002
    splits.excess_disagreement(probs, codes, probe_probs, probe_codes)
    splits.joint(probs, codes)
    splits.probes(log_margin(probs, codes), log_margin(probe_probs, probe_codes))
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert np.array_equal(probs, copies[0])
    assert np.array_equal(codes, copies[1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: splits.threshold(np.array([np.nan]), 0), InputError, "scores must be a finite"),
        (lambda: splits.probes(np.ones(3), np.empty(0)), InputError, "probe_scores must be a finite"),
        (
            lambda: splits.keep_fraction(np.ones(3), 1.5),
            ParameterError,
            r"fraction must be in \[0, 1\], got 1.5",
        ),
        (lambda: splits.at_rate(np.ones(3), float("nan")), ParameterError, "noise_rate must be"),
        (lambda: splits.joint(np.ones((3, 1)), np.zeros(3, int)), InputError, "K >= 2"),
        (lambda: splits.joint(np.ones((3, 2)), np.zeros(2, int)), InputError, r"got \(3, 2\) and \(2,\)"),
        (lambda: splits.joint(np.ones((3, 2)), np.full(3, 2)), InputError, "integers from 0 to 1, got 2"),
        (lambda: splits.joint(-np.ones((3, 2)), np.zeros(3, int)), InputError, "at least 0"),
        (
            lambda: estimates.estimate_noise_rate(np.ones((3, 2)), np.zeros(3, int), doubt_ratio=(0.6, 0.4)),
            ParameterError,
            "doubt_ratio must be",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()
