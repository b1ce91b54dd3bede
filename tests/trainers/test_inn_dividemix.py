"""INN + DivideMix: scores and divisions against the paper's, when they are made, what they teach."""

import warnings

import numpy as np
import pytest
import torch
from scipy.stats import beta
from sklearn.datasets import load_digits
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import noisefilter.budgets as budgets
import noisefilter.cotraining as cotraining
import noisefilter.trainers.inn_dividemix as inn_dividemix
from noisefilter import INNDivideMixClassifier, INNScorer, Net, estimates, plant_noise
from noisefilter.batches import ArrayRows
from noisefilter.errors import ParameterError
from noisefilter.metrics import clean_auc
from noisefilter.mixtures import mixture
from noisefilter.networks import PreActResNet18
from noisefilter.trainers.inn_dividemix import _INNDivideMix


@pytest.fixture(autouse=True)
def from_the_first_step(monkeypatch):
    """Let networks be known to memorize in the few steps that a test has."""
    monkeypatch.setattr(estimates, "_FIRST_STEPS", 0)


class Bar:
    """A progress bar that counts."""

    cost = 0.0

    def step(self, cost=1.0):
        self.cost += cost


class Small(nn.Module):
    """One hidden layer, whose 16 numbers are the features."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.features(x))

    def features(self, x):
        return torch.tanh(self.hidden(x))


def blobs(n=60):
    """Return rows of three blobs, and labels of which every sixth is wrong."""
    truth = np.arange(n) % 3
    X = (np.random.default_rng(0).normal(size=(n, 4)) + 2 * truth[:, None]).astype(np.float32)
    wrong = np.arange(n) % 6 == 5
    return X, np.where(wrong, (truth + 1) % 3, truth)


def training(n=60, given=None, features=None, seed=0, **parameters):
    """Return an INN + DivideMix about to start, however few its epochs."""
    X, codes = blobs(n)
    settings = {"max_epochs": 8, "warmup_epochs": 3, "rescore_every": 2, "least_epochs": 0} | parameters
    trainer = INNDivideMixClassifier(**settings)
    rows = ArrayRows(torch.from_numpy(X))
    return trainer._begin(rows, codes, 3, given, features, np.random.RandomState(seed))


def small(**parameters):
    return Net(Small, **{"max_epochs": 4, "batch_size": 16, "lr": 0.1, "verbose": 0} | parameters)


# --- scores and divisions -------------------------------------------------------------------------


def inn_scores(f, x, codes, space, n_neighbors, n_intervals):
    """Eq. (1) to the letter: neighbors by sorting distances, f at all points of every path."""
    found = []
    for i in range(len(x)):
        distances = np.linalg.norm(space - space[i], axis=1)
        distances[i] = np.inf
        integrals = []
        for j in np.argsort(distances)[:n_neighbors]:
            on_path = [a * x[i] + (1 - a) * x[j] for a in np.linspace(0, 1, n_intervals + 1)]
            values = f(torch.stack(on_path))[:, codes[i]]
            integrals.append(np.trapezoid(values, dx=1 / n_intervals))
        found.append(np.mean(integrals))
    return np.array(found)


@pytest.mark.parametrize("weight_average", [None, 0.9])
def test_networks_score_by_their_own_predictions_and_features(weight_average):
    run = training(
        estimator=small(), quadrature="trapezoid", n_interior=9, n_neighbors=4, weight_average=weight_average,
        max_epochs=None, scoring_epochs=2,
    )  # fmt: skip
    for epoch in range(2):
        run.run_epoch(epoch, Bar())
    for which in range(2):
        module = run.nets[which].module_ if weight_average is None else run.averages[which].module
        x = run.rows.data
        with torch.no_grad():
            space = module.features(x).numpy()
            naive = inn_scores(lambda p, m=module: m(p).softmax(1).numpy(), x, run.codes, space, 4, 10)
        np.testing.assert_allclose(run._scored(which), naive, atol=1e-5)
        other = np.arange(60.0)[:, None] % 7
        run.features = other + np.arange(60)[:, None] / 100
        with torch.no_grad():
            naive = inn_scores(lambda p, m=module: m(p).softmax(1).numpy(), x, run.codes, run.features, 4, 10)
        np.testing.assert_allclose(run._scored(which), naive, atol=1e-5)
        run.features = None


def posterior(x):
    """Return the posterior of the higher of two Betas, by EM with the method of moments."""
    x = np.clip(x, 1e-4, 1 - 1e-4)
    duties = np.stack([x < np.median(x), x >= np.median(x)]).astype(float)
    for _ in range(300):
        means = duties @ x / duties.sum(1)
        variances = (duties * (x - means[:, None]) ** 2).sum(1) / duties.sum(1)
        size = means * (1 - means) / variances - 1
        parts = duties.mean(1)[:, None] * beta.pdf(x, (means * size)[:, None], ((1 - means) * size)[:, None])
        duties = parts / parts.sum(0)
    return duties[means.argmax()]


def test_a_division_is_the_mixture_of_two_betas():
    run = training(n=600, probes=0.0)
    rng = np.random.default_rng(0)
    found = np.concatenate([rng.beta(9, 2, size=400), rng.beta(2, 6, size=200)])
    division = run._by_scores(found)
    w = posterior(found)
    between = (found > 0.3) & (found < 0.8)  # beyond the means it is held constant
    np.testing.assert_allclose(division.clean_proba[between], w[between], atol=0.02)
    assert np.mean(division.labeled == (w >= 0.5)) > 0.995
    first = run._with_labels(division.clean_proba)
    assert np.array_equal(first.labeled, division.labeled)
    assert (first.clean_proba[first.labeled] == 1.0).all()  # labels as they are, refined by nobody


def test_where_scores_are_one_hill_their_order_divides_at_the_estimated_rate():
    run = training(n=600, probes=0.0)
    run.rate = 0.25
    found = np.random.default_rng(0).beta(20, 20, size=600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        division = run._by_scores(found)
    assert np.array_equal(division.labeled, found >= np.sort(found)[150])


def test_a_row_that_is_labeled_for_want_of_others_counts_no_more_than_it_is_believed():
    run = training(batch_size=8)
    proba = np.where(np.arange(60) < 2, 0.9, 0.1)
    division = run._with_labels(proba)
    added = division.labeled & (proba < 0.5)
    assert added.sum() >= 10
    assert (division.clean_proba[:2] == 1.0).all() and (division.clean_proba[added] == 0.1).all()


@pytest.mark.parametrize("probes", [0.0, 0.1])
def test_the_first_scores_are_those_of_two_inn_scorers(probes):
    settings = {"objective": "mixup", "feature_network": "own", "n_neighbors": 5}
    settings |= {"quadrature": "trapezoid", "n_interior": 9, "probes": probes}
    run = training(
        estimator=small(random_state=5), max_epochs=None, scoring_epochs=3, least_epochs=9, **settings
    )
    X, codes = blobs()
    found = []
    for seed in run.seeds:
        scorer = INNScorer(
            small(max_epochs=3, optimizer=run.nets[0].optimizer), row_score="probability", average=False,
            split="beta", **settings,
        )  # fmt: skip
        scorer._seed = lambda seed=seed: int(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the components may hardly separate
            scorer.fit(X, codes)
        score, rate, blended, blended_rate, known, right, probs = run._first_scores(seed)
        judge = INNScorer(
            scorer.estimator, average=probes > 0, keep_signals=True, **settings
        )  # as it judges by default
        judge._seed = scorer._seed
        judge.fit(X, codes)
        np.testing.assert_allclose(blended, judge.scores_)
        np.testing.assert_allclose(probs, judge._class_probs(judge.signals_))
        assert blended_rate == pytest.approx(judge.verdict_.estimated_noise_rate)
        assert np.array_equal(score, scorer.scores_)
        assert 0 <= rate < 1
        if probes:
            signals = judge.fit(X, codes).signals_
            guesses, rows = signals.probs.argmax(axis=1), signals.probe_rows
            learned = codes.copy()
            learned[rows] = signals.probe_codes
            assert known == pytest.approx(estimates.known_by_heart(guesses, learned, rows, 3))
            assert right == pytest.approx(estimates.guessed_right(guesses, codes, rows, rate, 3))
        else:
            assert (known, right) == (None, 1.0)
        found.append(score)
    assert not np.array_equal(*found)


# --- the course -----------------------------------------------------------------------------------


def later_scores(which):
    """Return scores (60,) that tell the rows in two, but not surely."""
    rng = np.random.default_rng(which)
    return np.where(np.arange(60) // 6 % 2 != which, rng.beta(3, 6, size=60), rng.beta(7, 2, size=60))


@pytest.fixture
def watched(monkeypatch):
    """Return what was scored, and what every epoch of MixMatch was called with; nothing is trained."""
    seen = {"first": [], "scored": [], "learned": []}

    def first_scores(self, seed):
        seen["first"].append(int(seed))
        number = len(seen["first"])
        blocks = np.arange(60) // 6 % 2 == number - 1
        found = np.where(blocks, 0.9, 0.1) + np.linspace(0, 0.09, 60)
        known, right = seen.get("known"), seen.get("right", 1.0)
        blended, blended_rate = found[::-1], 0.15 * number
        probs = np.full((60, self.n_classes), 1 / self.n_classes)
        return inn_dividemix._FirstScores(found, 0.1 * number, blended, blended_rate, known, right, probs)

    def scored(self, which):
        seen["scored"].append((self.n_epochs_seen, which))
        return later_scores(which)

    def epoch(net, peer, rows, codes, clean_proba, labeled, **settings):
        run = seen["run"]
        seen["learned"].append((
            run.nets.index(net), run.nets.index(peer), clean_proba.numpy().copy(), labeled.numpy().copy()
        ))  # fmt: skip
        return dict.fromkeys(("loss", "labeled_loss", "unlabeled_loss", "penalty"), 0.0) | {"n_steps": 3}

    monkeypatch.setattr(_INNDivideMix, "_first_scores", first_scores)
    monkeypatch.setattr(_INNDivideMix, "_scored", scored)
    monkeypatch.setattr(cotraining, "mixmatch_epoch", epoch)
    return seen


def test_rows_are_scored_first_and_then_every_few_epochs(watched):
    run = watched["run"] = training()
    phases = [run.run_epoch(epoch, Bar())["phase"] for epoch in range(8)]
    assert len(watched["first"]) == len(set(watched["first"])) == 2
    assert watched["scored"] == [(epoch, which) for epoch in (3, 5, 7) for which in range(2)]
    assert phases == ["warm-up"] * 3 + ["mixmatch"] * 5
    assert run.rate == pytest.approx(0.15)  # the mean of what both say


def test_each_network_learns_from_the_other_division_at_first_alone(watched):
    run = watched["run"] = training()
    for epoch in range(8):
        run.run_epoch(epoch, Bar())
    assert [call[:2] for call in watched["learned"]] == [(0, 0), (1, 1)] * 3 + [(0, 1), (1, 0)] * 5
    for net, _, clean_proba, labeled in watched["learned"][:6]:
        assert np.array_equal(labeled, np.arange(60) // 6 % 2 == 1 - net)
        assert (clean_proba[labeled] == 1.0).all()
    for net, _, clean_proba, labeled in watched["learned"][6:]:
        w = mixture(later_scores(1 - net), "beta").clean_proba
        assert np.array_equal(clean_proba, w) and np.array_equal(labeled, run._floored(w))
        assert w[labeled].min() < 0.95  # their labels are refined


def test_a_scoring_that_turns_most_rows_over_is_kept_out_until_the_next_one_agrees(watched, monkeypatch):
    turned = np.where(np.arange(60) // 6 % 2 == 0, 0.1, 0.9) + np.linspace(0, 0.09, 60)  # against the first
    monkeypatch.setattr(_INNDivideMix, "_scored", lambda self, which: turned if which == 0 else 1 - turned)
    run = watched["run"] = training()
    records = [run.run_epoch(epoch, Bar()) for epoch in range(8)]  # scored in epochs 3, 5 and 7
    assert [r["divisions_refused"] for r in records] == [0, 0, 0, 2, 0, 0, 0, 0]
    assert [r["changed_2"] for r in records] == [None] * 3 + [60, None, 0, None, 0]
    believed = [labeled for _, _, _, labeled in watched["learned"][1::2]]  # by network 1
    assert all(np.array_equal(labeled, np.arange(60) // 6 % 2 == 0) for labeled in believed[:5])
    assert all(np.array_equal(labeled, np.arange(60) // 6 % 2 == 1) for labeled in believed[5:])


def test_the_networks_that_learn_are_fresh():
    run = training(scoring_epochs=2)
    before = [{k: v.clone() for k, v in net.module_.state_dict().items()} for net in run.nets]
    run._divide_first()
    for net, kept in zip(run.nets, before, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in net.module_.state_dict().items())
    assert run.scorer.estimator.random_state is None  # or the two scorings would be one


def test_the_schedule_of_mixmatch_is_not_that_of_the_first_networks():
    run = training(lr_drops=(0.5,), lr_drop_factor=10.0)
    assert all((net.lr_drops, net.lr_drop_factor) == ((0.5,), 10.0) for net in run.nets)
    assert (run.scorer.estimator.lr_drops, run.scorer.estimator.lr_drop_factor) == ((0.5, 0.75), 5.0)


@pytest.mark.parametrize(
    ("n_epochs", "steps"), [(300, (30, 9)), (120, (20, 9)), (60, (10, 5)), (20, (3, 1)), (1, (1, 1))]
)
def test_the_steps_grow_with_the_epochs_up_to_the_published_ones(n_epochs, steps):
    run = training(max_epochs=n_epochs, warmup_epochs=None, rescore_every=None)
    assert (run.first_epochs, run.rescore_every) == steps
    assert run.scorer.estimator.max_epochs == min(30, n_epochs)


def test_the_weight_of_guesses_follows_the_first_estimate():
    run = training()
    run.rate = 0.1
    assert run.unlabeled_weight() == 0.0
    run.rate = 0.5
    assert run.unlabeled_weight() == 7.5  # 25 with ten classes or more
    assert training(unlabeled_weight=7).unlabeled_weight() == 7.0


def test_the_bar_is_told_of_scorings(watched):
    run = watched["run"] = training(n_neighbors=4, n_interior=2, batch_size=16)
    plain, scoring = run.cost(4), run.cost(5)
    assert [run.cost(epoch) == scoring for epoch in range(8)] == [False] * 3 + [True, False] * 2 + [True]
    assert (scoring - plain) * 48 == pytest.approx(2 * 60 * (1 + 0.75 * 2 * 4))
    told = []
    for epoch in range(5):
        bar = Bar()
        run.run_epoch(epoch, bar)
        told.append(bar.cost)
    assert told[3] - told[4] == pytest.approx(scoring - plain)


# --- too few epochs for guesses -------------------------------------------------------------------


def test_with_few_epochs_both_networks_are_trained_plainly_on_the_labels_believed(watched):
    watched |= {"known": 0.05, "right": 0.7}
    run = training(least_epochs=9, n_neighbors=4, batch_size=16)
    bar = Bar()
    records = [run.run_epoch(0, bar)]
    assert "at least 9 epochs or 9,000 steps to learn from guessed labels, got 8." in records[0]["warning"]
    # Where one network is sure the other is not: their mean is as the rows are numbered, from behind.
    believed = np.arange(60) < 47
    assert np.array_equal(run.labeled, [believed, believed])  # all but 22.5 %, the mean of both
    told = {"estimated_rate": 0.225, "planted_known": 0.05, "guessed_right": 0.7}
    assert {name: records[0][name] for name in told} == pytest.approx(told)
    assert bar.cost == pytest.approx(run.cost(0)) == pytest.approx(run.cost(3))  # no scoring
    records += [run.run_epoch(epoch, Bar()) for epoch in range(1, 8)]
    assert {record["phase"] for record in records} == {"supervised"} and not watched["learned"]
    assert records[-1]["n_labeled_2"] == 47 and np.array_equal(run.warmup, np.flatnonzero(believed))
    assert not watched["scored"] and run.rate == pytest.approx(0.225)


@pytest.mark.parametrize(
    ("known", "right", "least"),
    [(0.2, 0.7, 9), (None, 0.7, 9), (0.05, 0.8, 9), (0.05, 0.7, 8), (0.05, 0.7, 0)],
)
def test_guesses_are_tried_where_they_are_good_or_nobody_knows_or_epochs_are_left(
    watched, known, right, least
):
    watched |= {"known": known, "right": right}
    run = watched["run"] = training(least_epochs=least)
    assert run.run_epoch(0, Bar())["phase"] == "warm-up" and len(watched["learned"]) == 2
    assert run.by_heart is (None if known is None else known > 0.1)


# --- a verdict to start from ----------------------------------------------------------------------


@pytest.mark.parametrize(("split_epochs", "held"), [(None, 3), (1, 1)])
def test_a_verdict_given_is_the_first_division(watched, split_epochs, held):
    X, codes = blobs()
    given = INNScorer(max_epochs=10, random_state=0).fit(X, codes).verdict_
    run = watched["run"] = training(given=given, split_epochs=split_epochs)
    for epoch in range(4):
        run.run_epoch(epoch, Bar())
    assert not watched["first"] and watched["scored"][0] == (held, 0)
    for net, peer, clean_proba, labeled in watched["learned"][: 2 * held]:
        assert net == peer and np.array_equal(labeled, given.clean_mask)
        assert (clean_proba[labeled] == 1.0).all()
    assert run.rate == given.estimated_noise_rate


def test_planted_labels_are_refused_where_a_filter_has_judged():
    trainer = INNDivideMixClassifier(probes=0.5, filter=INNScorer(max_epochs=10, random_state=0))
    with pytest.raises(ParameterError, match=r"probes must be None where a filter has judged .*, got 0\.5"):
        trainer.fit(*blobs())


def test_it_stands_behind_a_filter():
    X, y = blobs(120)
    trainer = INNDivideMixClassifier(max_epochs=12, random_state=0)
    filter_ = INNScorer(max_epochs=12, random_state=0)
    model = Pipeline([("scale", StandardScaler()), ("filter", filter_), ("train", trainer)]).fit(X, y)
    assert np.array_equal(model["train"].given_verdict_.scores, model["filter"].scores_)
    clean = model["filter"].clean_mask_.sum()
    assert [record["n_labeled_1"] for record in model["train"].history_[:2]] == [clean] * 2
    assert model.score(X, np.arange(120) % 3) > 0.6


# --- checkpoints ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:max_epochs must leave")
@pytest.mark.parametrize(("stopped", "least_epochs"), [(2, 0), (6, 0), (2, 45), (6, 45)])
def test_a_run_between_two_scorings_is_taken_up_with_the_same_bits(
    tmp_path, monkeypatch, stopped, least_epochs
):
    X, y = blobs()
    settings = {"max_epochs": 8, "warmup_epochs": 3, "rescore_every": 4, "scoring_epochs": 2}
    settings |= {"random_state": 0, "least_epochs": least_epochs}
    monkeypatch.setattr(budgets, "_POOR", 1.1)  # no guesses are good enough
    whole = INNDivideMixClassifier(**settings).fit(X, y)
    assert (whole.history_[-1]["phase"] == "supervised") is (least_epochs > 0)
    own = _INNDivideMix.run_epoch

    def stopping(self, epoch, bar):
        if epoch == stopped:
            raise KeyboardInterrupt
        return own(self, epoch, bar)

    monkeypatch.setattr(_INNDivideMix, "run_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        INNDivideMixClassifier(checkpoint_dir=tmp_path, **settings).fit(X, y)
    monkeypatch.setattr(_INNDivideMix, "run_epoch", own)
    monkeypatch.setattr(INNScorer, "_collect", None)  # what it said is in the checkpoint
    resumed = INNDivideMixClassifier(checkpoint_dir=tmp_path, **settings).fit(X, y)
    assert resumed.history_ == whole.history_
    assert np.array_equal(resumed.predict_proba(X), whole.predict_proba(X))
    assert np.array_equal(resumed.verdict_.scores, whole.verdict_.scores)


# --- what is learned ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    X, truth = load_digits(return_X_y=True)
    return X[:300].astype(np.float32), truth[:300]


def test_it_learns_the_right_labels_where_half_of_them_are_wrong(digits):
    X, truth = digits
    y = plant_noise(truth, "symmetric", 0.5, random_state=0)[0]
    model = INNDivideMixClassifier(max_epochs=10, scoring_epochs=12, random_state=0).fit(X, y)
    assert model.score(X, truth) > 0.75
    assert clean_auc(model.verdict_.scores, y != truth) > 0.9
    assert 0.25 < model.verdict_.estimated_noise_rate < 0.6


def test_clean_labels_are_left_alone(digits):
    X, truth = digits
    model = INNDivideMixClassifier(max_epochs=10, scoring_epochs=12, random_state=0).fit(X, truth)
    assert model.verdict_.noise_rate < 0.03 and model.score(X, truth) > 0.9


# --- parameters -----------------------------------------------------------------------------------


def test_as_published_spells_out_the_paper():
    published = INNDivideMixClassifier.as_published(unlabeled_weight=50.0).get_params()
    wanted = {
        "network": PreActResNet18, "max_epochs": 30 + 30 * 9, "warmup_epochs": 30, "rescore_every": 9,
        "batch_size": 128, "lr": 0.02, "lr_drops": (0.5,), "lr_drop_factor": 10.0, "objective": "mixup",
        "feature_network": "own", "n_neighbors": 10, "quadrature": "trapezoid", "n_interior": 9,
        "clean_threshold": 0.5, "unlabeled_weight": 50.0, "temperature": 0.5, "mixup_alpha": 4.0,
        "penalty": 1.0, "probes": 0.0, "weight_average": None,
    }  # fmt: skip
    assert {name: published[name] for name in wanted} == wanted


def test_neighbors_are_clipped_with_a_warning():
    X, y = blobs(9)
    with pytest.warns(UserWarning, match="n_neighbors must be less than the 9 rows, got 10; 8 are") as caught:
        INNDivideMixClassifier(max_epochs=2, random_state=0).fit(X, y)
    assert [each.filename for each in caught if "n_neighbors" in str(each.message)] == [__file__]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scoring_epochs": 0}, "scoring_epochs must be a whole number of at least 1, got 0"),
        ({"warmup_epochs": 0}, "warmup_epochs must be a whole number of at least 1, got 0"),
        ({"rescore_every": 1.5}, "rescore_every must be a whole number of at least 1, got 1.5"),
        ({"objective": "hinge"}, "objective must be one of .*, got 'hinge'"),
        ({"feature_network": "g"}, "feature_network must be one of .*, got 'g'"),
        ({"n_neighbors": 0}, "n_neighbors must be a whole number of at least 1, got 0"),
        ({"quadrature": "monte"}, "quadrature must be 'trapezoid', 'simpson' or 'gauss', got 'monte'"),
        ({"probes": 0.6}, r"probes must be in \[0, 0.5\], got 0.6"),
        ({"clean_threshold": -0.1}, r"clean_threshold must be in \[0, 1\], got -0.1"),
        ({"unlabeled_weight": "much"}, "unlabeled_weight must be 'auto' or at least 0 .*, got 'much'"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ParameterError, match=message):
        INNDivideMixClassifier(**parameters).fit(*blobs())
