"""SmallLossSelector: by hand, against naive formulas, on noisy digits, and with everything it accepts."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch import nn

from noisefilter import Net, Signals, SmallLossSelector, VoteFilter, plant_noise
from noisefilter.errors import InputError, MissingSignalError, ParameterError, TrainingDivergedError
from noisefilter.models import NetModel
from noisefilter.networks import MLP

SCORES = ("averaged_margin", "loss", "mean_loss", "aum")
every_score = pytest.mark.parametrize("row_score", SCORES)


class Small(nn.Module):
    def __init__(self, n_inputs=5, n_classes=3):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, 32)
        self.head = nn.Linear(32, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class Diverging(Small):
    def forward(self, x):
        return super().forward(x) * float("nan")


class OwnNet(NeuralNetClassifier):
    """A subclass, whose training is its own."""


SKORCH = {"module": Small, "criterion": nn.CrossEntropyLoss, "max_epochs": 12, "lr": 0.2, "batch_size": 16}


def assert_same_verdict(one, other):
    for name in ("labels", "scores", "partition", "alternatives", "clean_proba", "transition_matrix"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def auc(selector, data):
    return roc_auc_score(~data.wrong, selector.scores_)


# --- the judgement, by hand -----------------------------------------------------------------------

THREE = Signals(
    losses=np.array([[9.0, 9.0, 9.0], [1.0, 4.0, 1.0], [0.0, 5.0, 1.0]]),
    margins=np.array([[-9.0, -9.0, -9.0], [1.0, -4.0, 2.0], [3.0, -2.0, 2.0]]),
    mean_probs=np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]]),
)


@pytest.mark.parametrize(
    ("parameters", "scores"),
    [
        ({}, np.log([0.7 / 0.3, 0.4 / 0.6, 0.8 / 0.2])),
        ({"row_score": "loss"}, [0.0, -5.0, -1.0]),
        ({"row_score": "mean_loss"}, [1.5, -2.5, 1.0]),  # epoch means 2 and 2 are subtracted
        ({"row_score": "mean_loss", "window": 1.0}, [1.0, -5 / 3, 2 / 3]),
        ({"row_score": "mean_loss", "window": 1 / 3}, [2.0, -3.0, 1.0]),
        ({"row_score": "aum"}, [2.0, -3.0, 2.0]),
        ({"row_score": "aum", "window": 1.0}, [-5 / 3, -5.0, -5 / 3]),
    ],
    ids=str,
)
def test_three_rows_by_hand(parameters, scores):
    selector = SmallLossSelector(split="keep", keep=2 / 3, **parameters)
    verdict = selector.fit_signals(THREE, ["cat", "dog", "dog"]).verdict_
    np.testing.assert_allclose(verdict.scores, scores, rtol=1e-12)
    assert verdict.clean_mask.tolist() == [True, False, True]
    assert verdict.suggested_labels.tolist() == ["cat", "cat", "dog"]
    assert verdict.method == "SmallLossSelector"


def recorded(seed=0, n=60, n_epochs=7, n_classes=4):
    """Logits of every epoch (E, n, K), and the labels."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    return rng.normal(size=(n_epochs, n, n_classes)) + np.eye(n_classes)[y] * 2, y


def signals_of(logits, y):
    """What a loop writes down, one number at a time."""
    n_epochs, n, n_classes = logits.shape
    losses, margins = np.empty((n_epochs, n)), np.empty((n_epochs, n))
    probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    for t in range(n_epochs):
        for i in range(n):
            losses[t, i] = -np.log(probs[t, i, y[i]])
            margins[t, i] = logits[t, i, y[i]] - max(logits[t, i, c] for c in range(n_classes) if c != y[i])
    return Signals(losses=losses, margins=margins, mean_probs=probs[n_epochs // 2 :].mean(axis=0))


@pytest.mark.parametrize(("window", "first"), [(0.5, 3), (1.0, 0), (0.25, 5), (0.01, 6)])
def test_scores_are_the_papers_formulas(window, first):
    logits, y = recorded()
    probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    expected = {name: [] for name in SCORES}
    for i in range(60):
        mean = sum(probs[t, i] for t in range(3, 7)) / 4
        others = max(np.log(mean[c]) for c in range(4) if c != y[i])
        expected["averaged_margin"].append(np.log(mean[y[i]]) - others)
        expected["loss"].append(np.log(probs[6, i, y[i]]))
        total = area = 0.0
        for t in range(first, 7):
            epoch_mean = np.mean([-np.log(probs[t, j, y[j]]) for j in range(60)])
            total += -np.log(probs[t, i, y[i]]) - epoch_mean
            area += logits[t, i, y[i]] - max(logits[t, i, c] for c in range(4) if c != y[i])
        expected["mean_loss"].append(-total / (7 - first))
        expected["aum"].append(area / (7 - first))
    for name in SCORES if window == 0.5 else ("mean_loss", "aum"):
        selector = SmallLossSelector(row_score=name, window=window).fit_signals(signals_of(logits, y), y)
        np.testing.assert_allclose(selector.scores_, expected[name], rtol=1e-9, err_msg=name)


def by_hand(model, X):
    with torch.inference_mode():
        return model(torch.from_numpy(X)).double().numpy()


@every_score
def test_a_training_by_hand_gives_the_same_scores(blobs, row_score):
    """Full batches without dropout: what is recorded in epoch t are the weights before its one step."""
    X, y = blobs.X[:50], blobs.y[:50]
    codes = pd.factorize(y)[0]
    prototype = Net(Small, max_epochs=5, lr=0.3, batch_size=-1, optimizer=torch.optim.SGD, random_state=0)
    selector = SmallLossSelector(prototype, row_score=row_score, split="keep", keep=0.8).fit(X, y)
    model = Net(Small, random_state=0).initialize().module_
    optimizer, logits = torch.optim.SGD(model.parameters(), lr=0.3), []
    for _ in range(5):
        logits.append(by_hand(model, X))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(X)), torch.from_numpy(codes)).backward()
        optimizer.step()
    told = SmallLossSelector(row_score=row_score).fit_signals(signals_of(np.array(logits), codes), codes)
    assert np.ptp(told.scores_) > 0.5
    np.testing.assert_allclose(selector.scores_, told.scores_, rtol=1e-3, atol=1e-4)


def test_missing_signals_are_named():
    probs = Signals(probs=THREE.mean_probs)
    for row_score, name in zip(SCORES, ("mean_probs", "losses", "losses", "margins"), strict=True):
        with pytest.raises(MissingSignalError, match=rf"^signals\.{name} must be recorded"):
            SmallLossSelector(row_score=row_score).fit_signals(probs, [0, 1, 1])
    with pytest.raises(MissingSignalError, match=r"^signals\.mean_probs must be recorded"):
        SmallLossSelector(row_score="loss").fit_signals(Signals(losses=THREE.losses), [0, 1, 1])
    with pytest.raises(MissingSignalError, match=r"^signals\.probe_rows must be recorded"):
        SmallLossSelector(split="probes").fit_signals(THREE, [0, 1, 1])
    with pytest.raises(InputError, match="at least one epoch, got 0"):
        SmallLossSelector(row_score="loss").fit_signals(
            Signals(losses=np.empty((0, 3)), probs=THREE.mean_probs), [0, 1, 1]
        )


def test_probabilities_of_the_trained_network_stand_in_for_the_mean():
    signals = Signals(losses=THREE.losses, probs=THREE.mean_probs)
    verdict = SmallLossSelector(row_score="loss").fit_signals(signals, [0, 1, 1]).verdict_
    assert verdict.scores.tolist() == [0.0, -5.0, -1.0] and verdict.alternatives.tolist() == [1, 0, 0]


# --- planted rows ---------------------------------------------------------------------------------


@every_score
def test_planted_rows_are_ranked_by_their_given_label(row_score):
    """Their losses and margins were recorded against the planted label, and must not speak of the given."""
    logits, y = recorded(n=200)
    planted_rows = np.arange(0, 200, 20)
    trained = y.copy()
    trained[planted_rows] = (y[planted_rows] + 1) % 4
    told = signals_of(logits, trained)
    signals = Signals(
        losses=told.losses, margins=told.margins, mean_probs=told.mean_probs,
        probe_rows=planted_rows, probe_codes=trained[planted_rows],
    )  # fmt: skip
    scores = SmallLossSelector(row_score=row_score).fit_signals(signals, y).scores_
    given = np.log(told.mean_probs[planted_rows, y[planted_rows]])
    probs = told.mean_probs[planted_rows].copy()
    probs[np.arange(10), y[planted_rows]] = 0
    assert np.array_equal(np.argsort(scores[planted_rows]), np.argsort(given - np.log(probs.max(axis=1))))
    others = np.delete(scores, planted_rows)
    assert others.min() <= scores[planted_rows].min() and scores[planted_rows].max() <= others.max()
    alone = SmallLossSelector(row_score=row_score).fit_signals(signals_of(logits, y), y).scores_
    if row_score != "mean_loss":  # whose epoch means know of all rows
        np.testing.assert_allclose(others, np.delete(alone, planted_rows), rtol=1e-12)


@every_score
def test_probes_are_read_under_their_planted_labels(blobs, row_score):
    """Split at what planted labels scored; so many wrong labels are found, and hardly a right one."""
    kwargs = {"row_score": row_score, "split": "probes", "max_epochs": 10, "random_state": 0}
    selector = SmallLossSelector(probes=0.1, **kwargs).fit(blobs.X, blobs.y)
    signals = selector.signals_
    noise = selector._estimate_noise(selector._class_probs(signals), signals, blobs.y)
    planted = selector._probe_scores(signals, noise)
    rows = signals.probe_rows
    if row_score in ("loss", "mean_loss"):
        losses = signals.losses[-1:] if row_score == "loss" else signals.losses[5:]
        centre = 0 if row_score == "loss" else losses.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(planted, -(losses - centre).mean(axis=0)[rows], rtol=1e-4, atol=1e-6)
    elif row_score == "aum":
        np.testing.assert_allclose(planted, signals.margins[5:].mean(axis=0)[rows], rtol=1e-4)
    assert np.median(planted) < np.quantile(selector.scores_, 0.25)
    assert (selector.clean_mask_ == ~blobs.wrong).mean() > 0.9


def epochs_of_a_wide_net(**changes):
    """Train on labels without sense, which can only be learned by heart."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(160, 20)).astype(np.float32), rng.integers(3, size=160)
    net = Net(
        MLP, module__n_inputs=20, module__n_classes=3, module__hidden=(256,), module__dropout=0.0,
        module__noise=0.0, max_epochs=24, batch_size=16, lr=0.02,
    )  # fmt: skip
    selector = SmallLossSelector(net, random_state=0, **{"probes": 0.2, **changes}).fit(X, y)
    return len(selector.signals_.learning_rates)


def test_a_training_ends_before_labels_are_known_by_heart():
    assert 1 <= epochs_of_a_wide_net() < 24
    assert epochs_of_a_wide_net(probes=0.0) == 24
    assert epochs_of_a_wide_net(schedule="cyclical", n_cycles=2, cycle_epochs=3) == 6  # what is recorded


def test_only_rules_that_read_probes_plant_them(blobs):
    for split, n in (({}, 30), ({"split": "gaussian"}, 0), ({"split": "keep", "keep": 0.8}, 0)):
        signals = SmallLossSelector(max_epochs=2, random_state=0, **split).fit(blobs.X, blobs.y).signals_
        assert n == (0 if signals.probe_rows is None else len(signals.probe_rows))


# --- the two doors --------------------------------------------------------------------------------


@every_score
def test_fit_is_collect_and_then_fit_signals(blobs, row_score):
    """One training serves every score."""
    signals = SmallLossSelector(max_epochs=3, random_state=0).fit(blobs.X, blobs.y).signals_
    trained = SmallLossSelector(max_epochs=3, row_score=row_score, random_state=0).fit(blobs.X, blobs.y)
    told = SmallLossSelector(row_score=row_score).fit_signals(signals, blobs.y)
    assert_same_verdict(trained.verdict_, told.verdict_)
    assert trained.signals_.losses.shape == trained.signals_.margins.shape == (3, 300)
    assert trained.signals_.features.shape == (300, 256) and len(trained.signals_.learning_rates) == 3


def test_given_features_are_kept_and_change_nothing(blobs):
    features = np.arange(600.0).reshape(300, 2)
    given = SmallLossSelector(max_epochs=2, random_state=0).fit(blobs.X, blobs.y, features=features)
    assert np.array_equal(given.signals_.features, features)
    assert_same_verdict(
        given.verdict_, SmallLossSelector(max_epochs=2, random_state=0).fit(blobs.X, blobs.y).verdict_
    )


# --- every value of every parameter ---------------------------------------------------------------


@every_score
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"objective": "cross_entropy_ne"},
        {"objective": "mixup", "mixup_alpha": 0.5},
        {"schedule": "cyclical", "n_cycles": 1, "cycle_epochs": 4, "max_epochs": 6},
        {"split": "joint"},
        {"split": "keep", "keep": 0.85},
    ],
    ids=str,
)
def test_every_choice_finds_the_wrong_labels(blobs, row_score, parameters):
    selector = SmallLossSelector(**{"row_score": row_score, "max_epochs": 20, "random_state": 0} | parameters)
    selector.fit(blobs.X, blobs.y)
    assert auc(selector, blobs) > 0.9
    assert (selector.clean_mask_ == ~blobs.wrong).mean() > 0.85


@every_score
@pytest.mark.parametrize("split", ["gaussian", "beta"])
def test_mixtures_find_the_wrong_labels_where_there_are_many(row_score, split):
    logits, y = recorded(n=1000)
    logits[:, ::3] -= 5 * np.eye(4)[y[::3]]
    selector = SmallLossSelector(row_score=row_score, split=split).fit_signals(signals_of(logits, y), y)
    assert (selector.clean_mask_ == (np.arange(1000) % 3 > 0)).mean() > 0.85
    assert selector.verdict_.estimated_noise_rate == pytest.approx(1 / 3, abs=0.15)


@every_score
def test_clean_proba_is_a_probability_whatever_the_scale_of_the_scores(blobs, row_score):
    kwargs = {"row_score": row_score, "max_epochs": 10, "random_state": 1}
    verdict = SmallLossSelector(**kwargs).fit(blobs.X, blobs.y).verdict_
    assert verdict.clean_proba[~blobs.wrong].mean() > 0.9 and verdict.clean_proba[blobs.wrong].mean() < 0.5
    assert verdict.clean_proba.mean() == pytest.approx(1 - verdict.estimated_noise_rate, abs=1e-6)
    order = np.argsort(verdict.scores)
    assert (np.diff(verdict.clean_proba[order]) >= 0).all()


@pytest.mark.parametrize("row_score", ["mean_loss", "aum"])
def test_gaussian_mixture_is_that_of_scikit_learn(row_score):
    """On scores scaled to [0, 1], as DivideMix does with losses."""
    logits, y = recorded(n=1000)
    logits[:, ::4] -= 5 * np.eye(4)[y[::4]]
    signals = signals_of(logits, y)
    verdict = SmallLossSelector(row_score=row_score, split="gaussian").fit_signals(signals, y).verdict_
    x = np.maximum(verdict.scores, np.quantile(verdict.scores, 0.001))  # our one addition: no outlier
    x = ((x - x.min()) / (x.max() - x.min()))[:, None]
    model = GaussianMixture(2, reg_covar=5e-4, tol=1e-7, max_iter=500, random_state=0).fit(x)
    clean = model.means_.argmax()
    expected = model.predict_proba(x)[:, clean]
    low, high = np.sort(model.means_[:, 0])
    between = (x[:, 0] > low) & (x[:, 0] < high)  # outside the means ours is constant
    assert np.abs(verdict.clean_proba - expected)[between].max() < 0.05
    assert ((verdict.clean_proba >= 0.5) == (expected >= 0.5))[between].mean() > 0.98


def test_a_threshold_decides(blobs):
    selector = SmallLossSelector(max_epochs=10, random_state=0, split="threshold", threshold=0.0)
    selector.fit(blobs.X, blobs.y)
    assert np.array_equal(selector.clean_mask_, selector.scores_ >= 0)


def test_cycles_are_what_is_judged(blobs):
    cycles = {"schedule": "cyclical", "n_cycles": 2, "cycle_epochs": 5, "lr": 0.1}
    selector = SmallLossSelector(max_epochs=4, random_state=0, row_score="mean_loss", window=1.0, **cycles)
    signals = selector.fit(blobs.X, blobs.y).signals_
    assert signals.losses.shape == (10, 300)
    expected = [0.082, 0.064, 0.046, 0.028, 0.01] * 2
    np.testing.assert_allclose(signals.learning_rates, expected, rtol=1e-9)
    assert len(selector._fitted.model.net.history) == 14
    unplanted = np.delete(np.arange(300), signals.probe_rows)
    losses = signals.losses.astype(np.float64)
    expected = -(losses - losses.mean(axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(selector.scores_[unplanted], expected[unplanted], rtol=1e-9)


def test_filters_that_differ_in_the_score_alone_share_a_training(blobs, monkeypatch):
    trainings, train = [], NetModel.train
    monkeypatch.setattr(NetModel, "train", lambda *args: trainings.append(0) or train(*args))
    kwargs = {"max_epochs": 3, "n_cycles": 1, "cycle_epochs": 2, "random_state": 0}
    filters = [
        ("mean", SmallLossSelector(row_score="mean_loss", window=1.0, **kwargs)),
        ("margin", SmallLossSelector(**kwargs)),
        ("cycles", SmallLossSelector(schedule="cyclical", **kwargs)),
    ]
    vote = VoteFilter(filters).fit(blobs.X, blobs.y)
    assert len(trainings) == 2
    alone = SmallLossSelector(row_score="mean_loss", window=1.0, **kwargs).fit(blobs.X, blobs.y)
    assert np.array_equal(vote.filters_[0].scores_, alone.scores_)


@every_score
def test_strangers_are_told_from_wrong_labels(row_score):
    logits, y = recorded(n=400)
    logits[:, :40] *= 0.05  # undecided between all classes
    logits[:, 40:80] += 6 * np.eye(4)[(y[40:80] + 1) % 4]  # sure of another class
    selector = SmallLossSelector(row_score=row_score, split="keep", keep=0.8, open_set=True)
    verdict = selector.fit_signals(signals_of(logits, y), y).verdict_
    assert verdict.ood_mask[:40].sum() > 5 * verdict.ood_mask[40:80].sum()
    assert verdict.id_mask[40:80].mean() > 0.8


def test_published_settings():
    given = SmallLossSelector.as_published(split="keep", keep=0.6).get_params()
    paper = {
        "max_epochs": 250, "batch_size": 128, "lr": 0.01, "schedule": "cyclical", "n_cycles": 25,
        "cycle_epochs": 10, "row_score": "mean_loss", "window": 1.0, "split": "keep", "keep": 0.6,
    }  # fmt: skip
    assert given == SmallLossSelector().get_params() | paper


def test_published_settings_find_wrong_labels(blobs):
    settings = {"max_epochs": 10, "n_cycles": 2, "batch_size": 16, "lr": 0.05, "random_state": 0}
    selector = SmallLossSelector.as_published(split="keep", keep=0.85, **settings).fit(blobs.X, blobs.y)
    assert auc(selector, blobs) > 0.95 and (~selector.clean_mask_).sum() == 45


# --- estimators -----------------------------------------------------------------------------------


@every_score
@pytest.mark.parametrize(
    "estimator",
    [NeuralNetClassifier(**SKORCH, verbose=0), OwnNet(**SKORCH, verbose=0), Net(**SKORCH)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_any_skorch_network_serves(blobs, estimator, row_score):
    before = repr(estimator)
    selector = SmallLossSelector(estimator, row_score=row_score, random_state=0).fit(blobs.X, blobs.y)
    assert auc(selector, blobs) > 0.95
    assert repr(estimator) == before and not hasattr(estimator, "module_")
    assert selector.signals_.losses.shape == (12, 300)


@pytest.mark.parametrize("estimator", [RandomForestClassifier(), make_pipeline(LogisticRegression())])
def test_a_classifier_without_epochs_is_refused_before_it_is_trained(blobs, estimator):
    with pytest.raises(MissingSignalError, match=r"^estimator must be a network.*got [RP].*INNScorer.*\.$"):
        SmallLossSelector(estimator).fit(blobs.X, blobs.y)


def test_a_training_that_stops_before_its_second_half_says_what_is_missing(blobs):
    stop = [("stop", EarlyStopping("train_loss", patience=1, threshold=1e9, sink=lambda _: None))]
    selector = SmallLossSelector(Net(**SKORCH, callbacks=stop), random_state=0)
    with pytest.raises(MissingSignalError, match=r"signals\.mean_probs must be recorded"):
        selector.fit(blobs.X, blobs.y)
    selector.set_params(row_score="aum").fit(blobs.X, blobs.y)
    assert len(selector.signals_.margins) < 6


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        (SmallLossSelector(row_score="best"), "row_score must be one of"),
        (SmallLossSelector(objective="mse"), "objective must be one of"),
        (SmallLossSelector(schedule="cosine"), "schedule must be one of"),
        (SmallLossSelector(split="best"), "split must be one of"),
        (SmallLossSelector(window=0.4), "window must be 0.5 with row_score='averaged_margin'"),
        (SmallLossSelector(row_score="loss", window=1.0), "window must be 0.5 with row_score='loss'"),
        (SmallLossSelector(row_score="aum", window=0), r"window must be in \(0, 1\]"),
        (SmallLossSelector(row_score="aum", window=1.1), r"window must be in \(0, 1\]"),
        (SmallLossSelector(row_score="aum", window=float("nan")), r"window must be in \(0, 1\]"),
        (SmallLossSelector(row_score="aum", window="half"), r"window must be in \(0, 1\]"),
        (SmallLossSelector(n_cycles=0), "n_cycles must be a whole number"),
        (SmallLossSelector(cycle_epochs=2.5), "cycle_epochs must be a whole number"),
        (SmallLossSelector(mixup_alpha=0), "mixup_alpha must be greater than 0"),
        (SmallLossSelector(split="keep"), "keep must be given"),
        (SmallLossSelector(OwnNet(**SKORCH), objective="mixup"), "objective must be 'cross_entropy'"),
        (SmallLossSelector(OwnNet(**SKORCH), objective="cross_entropy_ne"), "objective must be"),
        (SmallLossSelector(OwnNet(**SKORCH), schedule="cyclical"), "schedule must be 'steps'"),
        (SmallLossSelector(Net(**SKORCH), max_epochs=3), "max_epochs must be None"),
        (SmallLossSelector(network=Small()), "network must be a class"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_parameters_out_of_range_are_one_sentence(blobs, selector, message):
    with pytest.raises(ParameterError, match=f"^{message}") as caught:
        selector.fit(blobs.X, blobs.y)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not hasattr(selector, "verdict_")


@pytest.mark.parametrize("own", [False, True])
def test_diverged_training_is_a_named_error(blobs, own):
    broken = OwnNet(**SKORCH | {"module": Diverging, "verbose": 0}) if own else None
    selector = SmallLossSelector(broken, network=None if own else Diverging)
    with pytest.raises(TrainingDivergedError, match=r"must .* finite.*\.$"):
        selector.fit(blobs.X, blobs.y)
    assert not hasattr(selector, "verdict_")


# --- rows that arrive later -----------------------------------------------------------------------


@every_score
def test_score_new_judges_rows_that_arrive_later(blobs, row_score):
    names = np.array(["b", "c", "a"])
    selector = SmallLossSelector(max_epochs=10, random_state=0, row_score=row_score)
    selector.fit(blobs.X[:200], names[blobs.y[:200]])
    later = selector.score_new(blobs.X[200:], names[blobs.y[200:]])
    assert roc_auc_score(~blobs.wrong[200:], later) > 0.95
    one = selector.score_new(blobs.X[200:201], names[blobs.y[200:201]])
    np.testing.assert_allclose(one, later[:1], rtol=1e-4)


@every_score
def test_score_new_is_on_the_scale_of_the_scores(blobs, row_score):
    selector = SmallLossSelector(max_epochs=20, random_state=0, row_score=row_score, probes=0.0)
    selector.fit(blobs.X, blobs.y)
    twice = selector.score_new(blobs.X, blobs.y)
    assert np.corrcoef(twice, selector.scores_)[0, 1] > 0.8
    assert abs(np.median(twice) - np.median(selector.scores_)) < 0.3 * np.ptp(selector.scores_)
    probs = selector.signals_.probs[:, np.argsort(selector.classes_)]
    given = np.log(probs[np.arange(300), blobs.y])
    others = np.log(np.where(np.eye(3)[blobs.y] == 1, 0, probs).max(axis=1))
    expected = {"loss": given, "mean_loss": given - given.mean()}.get(row_score, given - others)
    np.testing.assert_allclose(twice, expected, rtol=1e-3, atol=1e-5)


# --- inputs ---------------------------------------------------------------------------------------


def test_frames_and_strings_give_the_same_bits(blobs):
    kwargs = {"max_epochs": 3, "random_state": 0}
    plain = SmallLossSelector(**kwargs).fit(blobs.X, blobs.y)
    frame = pd.DataFrame(blobs.X, columns=list("abcde"))
    named = SmallLossSelector(**kwargs).fit(frame, np.array(["x", "z", "y"])[blobs.y])
    assert np.array_equal(plain.scores_, named.scores_) and np.array_equal(
        plain.clean_mask_, named.clean_mask_
    )
    assert named.feature_names_in_.tolist() == list("abcde")


@every_score
def test_images_are_judged(images, row_score):
    selector = SmallLossSelector(max_epochs=10, random_state=0, row_score=row_score)
    assert auc(selector.fit(images.X, images.y), images) > 0.95
    assert selector.set_params(output="features").fit_transform(images.X, images.y).shape == (120, 128)


def test_pickle_keeps_everything(blobs):
    selector = SmallLossSelector(max_epochs=3, random_state=0, row_score="mean_loss").fit(blobs.X, blobs.y)
    copy = pickle.loads(pickle.dumps(selector))
    assert_same_verdict(copy.verdict_, selector.verdict_)
    assert np.array_equal(copy.score_new(blobs.X, blobs.y), selector.score_new(blobs.X, blobs.y))


# --- noisy digits ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    noisy, _ = plant_noise(y[:1200], "symmetric", 0.4, random_state=0)
    return X[:1200], noisy, noisy != y[:1200], X[1200:], y[1200:]


@pytest.fixture(scope="module")
def judged(digits):
    return SmallLossSelector(random_state=0).fit(digits[0], digits[1])


@every_score
def test_wrong_digits_are_found(digits, judged, row_score):
    wrong = digits[2]
    verdict = SmallLossSelector(row_score=row_score).fit_signals(judged.signals_, digits[1]).verdict_
    assert roc_auc_score(~wrong, verdict.scores) > 0.95
    assert abs(verdict.estimated_noise_rate - wrong.mean()) < 0.1
    assert (verdict.clean_mask == ~wrong).mean() > 0.85


def test_hardly_any_clean_digit_is_flagged():
    X, y = load_digits(return_X_y=True)
    verdict = SmallLossSelector(random_state=0).fit(X, y).verdict_
    assert verdict.noise_rate < 0.05 and verdict.estimated_noise_rate < 0.05


def test_a_pipeline_learns_more_than_from_noisy_labels(digits):
    X, y, _, X_held, y_held = digits
    linear = LogisticRegression(max_iter=2000)
    model = make_pipeline(SmallLossSelector(random_state=0), linear).fit(X, y)
    assert model.score(X_held, y_held) > linear.fit(X, y).score(X_held, y_held) + 0.02
