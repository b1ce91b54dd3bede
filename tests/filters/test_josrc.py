"""JoSRCSelector: by hand, against the paper's criteria, with strangers, and with everything it accepts."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from skorch import NeuralNetClassifier
from torch import nn

from noisefilter import CLEAN, ID_NOISE, OOD_NOISE, JoSRCSelector, Net, Signals, estimates, scores
from noisefilter.contrastive import JoSRCNetwork
from noisefilter.errors import InputTypeError, MissingSignalError, ParameterError
from noisefilter.networks import MLP, SevenLayerCNN

NO_FIT = "ignore:eps_js"


class Small(nn.Module):
    """A network of the user's own; takes rows of any shape."""

    def __init__(self, n_inputs=5, n_classes=3):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, 32)
        self.head = nn.Linear(32, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class OwnNet(NeuralNetClassifier):
    """A subclass, whose training is its own."""


SKORCH = {"module": Small, "criterion": nn.CrossEntropyLoss, "max_epochs": 12, "lr": 0.2, "batch_size": 16}


def assert_same_verdict(one, other):
    for name in (
        "labels",
        "classes",
        "scores",
        "partition",
        "alternatives",
        "clean_proba",
        "transition_matrix",
    ):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.threshold == other.threshold and one.estimated_noise_rate == other.estimated_noise_rate


def auc(selector, data):
    return roc_auc_score(~data.wrong, selector.scores_)


# --- the judgement, by hand -----------------------------------------------------------------------

# Columns bird, cat, dog. The last two rows are rejected: one is seen as a bird twice, one as bird and cat.
VIEWS = np.array(
    [
        [[0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05], [0.5, 0.4, 0.1]],
        [[0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.8, 0.1, 0.1], [0.4, 0.5, 0.1]],
    ]
)
TAUGHT = np.array([[0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.8, 0.1, 0.1], [0.4, 0.5, 0.1]])
FOUR = Signals(view_probs=VIEWS, teacher_probs=TAUGHT)
LABELS = ["cat", "dog", "cat", "dog"]


def likelihood(p, code, eps):
    y = np.full(3, eps / 2)
    y[code] = 1 - eps
    m = (p + y) / 2
    return 1 - sum((a * np.log2(a / c) + b * np.log2(b / c)) / 2 for a, b, c in zip(p, y, m, strict=True))


def four(signals=FOUR, **parameters):
    y = np.append(LABELS, ["bird"])  # the third class must occur
    signals = Signals(
        view_probs=np.concatenate([signals.view_probs, np.tile([[[0.8, 0.1, 0.1]]], (2, 1, 1))], axis=1),
        teacher_probs=np.concatenate([signals.teacher_probs, [[0.8, 0.1, 0.1]]]),
    )
    return JoSRCSelector(**parameters).fit_signals(signals, y)


def test_the_papers_criteria_by_hand():
    selector = four(row_score="js", split="paper", warmup_threshold=0.74, final_threshold=0.75)
    codes = [1, 2, 1, 2, 0]
    views = np.concatenate([VIEWS[0], [[0.8, 0.1, 0.1]]])
    expected = [likelihood(p, code, 0.1) for p, code in zip(views, codes, strict=True)]
    np.testing.assert_allclose(selector.scores_, expected, rtol=1e-9)
    assert np.array_equal(selector.scores_ >= 0.75, [True, True, False, False, True])
    verdict = selector.verdict_
    assert verdict.partition.tolist() == [CLEAN, CLEAN, ID_NOISE, OOD_NOISE, CLEAN]
    assert verdict.open_set and verdict.threshold == 0.75
    assert verdict.suggested_labels.tolist() == ["cat", "dog", "bird", "dog", "bird"]
    assert verdict.alternatives[3] == "cat"  # by the teacher
    assert np.array_equal(verdict.clean_proba, verdict.scores)
    closed = four(row_score="js", split="paper", warmup_threshold=0.74, final_threshold=0.75, open_set=False)
    assert closed.verdict_.partition.tolist() == [CLEAN, CLEAN, ID_NOISE, ID_NOISE, CLEAN]
    assert not closed.verdict_.open_set


def test_the_other_scores_by_hand():
    codes, y = np.array([1, 2, 1, 2, 0]), np.append(LABELS, ["bird"])
    both = np.concatenate([VIEWS.mean(axis=0), [[0.8, 0.1, 0.1]]])
    taught = scores.unsmoothed(np.concatenate([TAUGHT, [[0.8, 0.1, 0.1]]]), 0.3)
    np.testing.assert_allclose(
        four(row_score="js0").scores_,
        [likelihood(p, code, 1e-6) for p, code in zip(both, codes, strict=True)],
        rtol=1e-6,
    )
    np.testing.assert_allclose(four(row_score="margin").scores_, scores.log_margin(taught, codes))
    half = Signals(teacher_probs=taught, mean_probs=taught[::-1])
    blended = scores.unsmoothed((taught + taught[::-1]) / 2, 0.2)
    told = JoSRCSelector(row_score="margin", eps_target=0.2).fit_signals(half, y)
    np.testing.assert_allclose(told.scores_, scores.log_margin(blended, codes))


def test_signals_that_are_missing_are_named():
    y = [0, 1, 2, 1]
    for signals, parameters, name in (
        (Signals(view_probs=VIEWS), {}, "teacher_probs"),
        (Signals(teacher_probs=TAUGHT), {"row_score": "js"}, "view_probs"),
        (Signals(teacher_probs=TAUGHT, probs=TAUGHT), {"split": "probes"}, "probe_rows"),
    ):
        with pytest.raises(MissingSignalError, match=rf"^signals\.{name} must be recorded"):
            JoSRCSelector(**parameters).fit_signals(signals, y)


def test_fit_is_collect_then_fit_signals(blobs):
    for parameters in ({}, {"row_score": "js", "split": "paper"}):
        trained = JoSRCSelector(max_epochs=3, random_state=0, **parameters).fit(blobs.X, blobs.y)
        told = JoSRCSelector(**parameters).fit_signals(trained.signals_, blobs.y)
        assert_same_verdict(trained.verdict_, told.verdict_)


def test_the_rate_is_read_off_the_warm_up(blobs):
    selector = JoSRCSelector(max_epochs=4, random_state=0, open_set=False).fit(blobs.X, blobs.y)
    signals, verdict = selector.signals_, selector.verdict_
    probs = scores.unsmoothed(signals.mean_probs, 0.3)
    rows, others = signals.probe_rows, np.delete(np.arange(300), signals.probe_rows)
    rate = estimates.estimate_noise_rate(probs[others], blobs.y[others], probs[rows], signals.probe_codes)
    assert verdict.estimated_noise_rate == pytest.approx(rate)
    low, high = verdict.noise_rate_interval
    assert low <= verdict.estimated_noise_rate <= high
    plain = Signals(teacher_probs=signals.teacher_probs, mean_probs=signals.mean_probs)
    told = JoSRCSelector().fit_signals(plain, blobs.y).verdict_
    assert told.estimated_noise_rate == pytest.approx(estimates.estimate_noise_rate(probs, blobs.y))
    none = np.zeros(0, dtype=np.int64)  # what plant_probes gives for a share of 0
    empty = dataclasses.replace(plain, probe_rows=none, probe_codes=none)
    assert_same_verdict(JoSRCSelector().fit_signals(empty, blobs.y).verdict_, told)


# --- strangers ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strangers():
    """Three blobs and, in their midst, 120 rows of a fourth that carry labels at random; 40 are wrong."""
    rng = np.random.default_rng(0)
    centers = 5 * np.eye(4)[:, :4]
    centers[3] = centers[:3].mean(axis=0)
    truth = np.repeat([0, 1, 2, 3], [160, 160, 160, 120])
    X = (centers[truth] + rng.normal(size=(600, 4))).astype(np.float32)
    y = np.where(truth == 3, rng.integers(3, size=600), truth)
    wrong = rng.choice(480, 40, replace=False)
    y[wrong] = (y[wrong] + rng.integers(1, 3, size=40)) % 3
    return X, y, truth


@pytest.mark.parametrize(
    "parameters",
    [
        {"split": "keep", "keep": 0.73},  # the share of right labels
        {"row_score": "js", "split": "paper", "warmup_threshold": 0.8, "final_threshold": 0.9},
    ],
    ids=["keep", "paper"],
)
def test_strangers_are_told_from_wrong_labels(strangers, parameters):
    X, y, truth = strangers
    selector = JoSRCSelector(max_epochs=20, random_state=0, **parameters).fit(X, y)
    rejected = ~selector.clean_mask_
    base_rate = (truth[rejected] == 3).mean()
    assert 0.1 < base_rate < 0.9 and selector.ood_mask_.any()
    assert (truth[selector.ood_mask_] == 3).mean() > base_rate + 0.1
    assert selector.verdict_.open_set
    assert np.array_equal(selector.verdict_.suggested_labels[selector.ood_mask_], y[selector.ood_mask_])


def test_without_an_open_set_there_are_none(strangers):
    X, y, _ = strangers
    selector = JoSRCSelector(max_epochs=3, open_set=False, random_state=0).fit(X, y)
    assert not selector.ood_mask_.any() and not selector.verdict_.open_set


# --- the smoothing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eps_js", "warmup", "final", "n_classes", "warned"),
    [
        (0.1, None, None, 3, False),
        (0.1, 0.75, 0.94, 3, False),  # knows nothing: 0.733
        (0.1, 0.73, 0.94, 3, True),
        (0.1, 0.75, 0.95, 3, True),  # sure and right: 0.948
        (0.3, 0.91, 0.83, 3, False),
        (0.3, None, None, 3, True),
        (0.6, 0.75, 0.95, 10, True),
        (0.6, 0.95, 0.60, 10, False),
    ],
)
def test_warning_exactly_where_the_smoothing_does_not_fit(eps_js, warmup, final, n_classes, warned):
    y = np.tile(np.arange(n_classes), 4)
    probs = 0.5 * np.eye(n_classes)[y] + 0.5 / n_classes
    signals = Signals(teacher_probs=probs, view_probs=np.stack([probs, probs]))
    selector = JoSRCSelector(eps_js=eps_js, warmup_threshold=warmup, final_threshold=final)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        selector.fit_signals(signals, y)
    found = [str(w.message) for w in caught if "eps_js" in str(w.message)]
    assert len(found) == warned
    assert all(f"with {n_classes} classes: a network that knows nothing reaches" in text for text in found)


@pytest.mark.parametrize("n_classes", [2, 3, 5, 10, 20, 21, 100])
def test_defaults_fit_any_number_of_classes(n_classes):
    probs = 0.5 * np.eye(n_classes)[np.arange(2 * n_classes) % n_classes] + 0.5 / n_classes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        JoSRCSelector().fit_signals(Signals(teacher_probs=probs), np.arange(2 * n_classes) % n_classes)


def test_smoothing_must_leave_the_label_the_likeliest(images):
    for name in ("eps_target", "eps_js"):
        selector = JoSRCSelector(**{name: 0.5}, max_epochs=1)
        with pytest.raises(ParameterError, match=f"^{name} must be less than 0.5 with 2 classes"):
            selector.fit(images.X, images.y)


# --- parameters -----------------------------------------------------------------------------------


def test_published_settings():
    paper = {
        "network": JoSRCNetwork, "max_epochs": 200, "batch_size": 128, "lr": 1e-3, "optimizer": "adam",
        "eps_target": 0.6, "eps_js": 0.6, "warmup_epochs": 10, "warmup_threshold": 0.75,
        "final_threshold": 0.95, "least_clean": 0.0, "row_score": "js", "split": "paper", "random_state": 3,
    }  # fmt: skip
    assert JoSRCSelector.as_published(random_state=3).get_params() == JoSRCSelector().get_params() | paper


@pytest.mark.filterwarnings(NO_FIT)
def test_published_settings_reach_the_training():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 255, size=(40, 16, 16, 3), dtype=np.uint8), np.arange(40) % 4
    selector = JoSRCSelector.as_published(max_epochs=2, random_state=0).fit(X, y)
    net = selector._fitted.net
    assert type(net.module_) is JoSRCNetwork and type(net.optimizer_) is torch.optim.Adam
    assert net.optimizer_.param_groups[0]["weight_decay"] == 0
    assert (net.eps_target, net.eps_js, net.warmup_epochs, net.max_epochs) == (0.6, 0.6, 10, 2)
    assert (net.warmup_threshold, net.final_threshold, net.teacher_decay) == (0.75, 0.95, 0.99)
    assert selector.signals_.probe_rows is None
    assert selector.verdict_.threshold == 0.95


@pytest.mark.parametrize(
    "parameters",
    [
        {"row_score": "margin"},
        {"row_score": "js"},
        {"row_score": "js0"},
        {"optimizer": "adam", "lr": 0.01},
        {"eps_target": 0.1},
        {"eps_target": 0.0, "eps_js": 0.05},
        {"warmup_epochs": 5},
        {"warmup_epochs": 0, "warmup_threshold": 0.8},
        {"warmup_epochs": np.int64(30)},
        {"consistency": 0.0},
        {"least_clean": 0.0},
        {"least_clean": 1.0},
        {"teacher_decay": 0.0},
        {"ood_temperature": 1.0, "ood_cap": 1.0},
        {"split": "paper", "row_score": "js"},
        {"split": "probes"},
        {"split": "joint"},
        {"split": "beta", "row_score": "js0"},
        {"split": "gaussian", "row_score": "js0"},
        {"split": "keep", "keep": 0.85},
        {"split": "threshold", "threshold": 0.0},
        {"probes": 0.0},
        {"network": Small, "max_epochs": 20},
        {"random_state": np.random.RandomState(0)},
    ],
)
def test_every_choice_finds_the_wrong_labels(blobs, parameters):
    selector = JoSRCSelector(**{"max_epochs": 10, "random_state": 0} | parameters).fit(blobs.X, blobs.y)
    assert auc(selector, blobs) > 0.95
    assert (selector.clean_mask_ == ~blobs.wrong).mean() > 0.87


@pytest.mark.filterwarnings(NO_FIT)
def test_choices_change_what_they_should(blobs):
    def fitted(**parameters):
        common = {"max_epochs": 5, "random_state": 0, "open_set": False}
        return JoSRCSelector(**common | parameters).fit(blobs.X, blobs.y)

    def told(**parameters):
        return fitted(**parameters).scores_

    default = told()
    for parameters in (
        {"row_score": "margin"}, {"optimizer": "adam"}, {"eps_target": 0.2}, {"eps_js": 0.2}, {"lr": 0.01},
        {"warmup_epochs": 1}, {"warmup_threshold": 0.9}, {"final_threshold": 0.9}, {"least_clean": 0.9},
        {"consistency": 0.9},
        {"teacher_decay": 0.1}, {"ood_temperature": 0.1}, {"ood_cap": 0.01}, {"probes": 0.0},
        {"network": Small}, {"batch_size": 7},
    ):  # fmt: skip
        assert not np.array_equal(default, told(**parameters)), parameters
    for parameters in ({"split": "probes"}, {"verbose": 0}, {"keep_signals": False}):
        assert np.array_equal(default, told(**parameters)), parameters
    open_set = fitted(open_set=True)  # strangers whose label was believed are rejected with the others
    assert np.array_equal(default[~open_set.ood_mask_], open_set.scores_[~open_set.ood_mask_])
    assert open_set.ood_mask_.any() and not open_set.ood_mask_.all()


def test_defaults_that_depend_on_others(blobs):
    for epochs, warmup in ((1, 1), (4, 2), (30, 20)):
        selector = JoSRCSelector(max_epochs=epochs)
        net = selector._two_view_net(*rows_of(blobs.X))
        assert net.warmup_epochs == warmup and net.max_epochs == epochs
        assert (net.warmup_threshold, net.final_threshold) == scores.js_thresholds(3, 0.1)
    assert JoSRCSelector()._two_view_net(*rows_of(blobs.X)).lr == 0.05
    assert JoSRCSelector(optimizer="adam")._two_view_net(*rows_of(blobs.X)).lr == 1e-3
    assert JoSRCSelector(optimizer="adam", lr=0.2)._two_view_net(*rows_of(blobs.X)).lr == 0.2
    own = JoSRCSelector(NeuralNetClassifier(**SKORCH), optimizer="adam")._two_view_net(*rows_of(blobs.X))
    assert own.lr == 0.2 and own.optimizer is torch.optim.Adam


def rows_of(X):
    from noisefilter.inputs import as_rows

    return as_rows(X, device=torch.device("cpu")), 3, np.random.RandomState(0)


@pytest.mark.parametrize(
    ("selector", "error", "message"),
    [
        (JoSRCSelector(OwnNet(**SKORCH)), InputTypeError, "estimator must be a skorch NeuralNetClassifier"),
        (JoSRCSelector(RandomForestClassifier()), InputTypeError, "estimator must be a skorch"),
        (JoSRCSelector(Net(Small, objective="mixup")), ParameterError, "objective must be 'cross_entropy'"),
        (JoSRCSelector(row_score="best"), ParameterError, "row_score must be one of"),
        (JoSRCSelector(split="best"), ParameterError, "split must be one of"),
        (JoSRCSelector(split="paper"), ParameterError, "row_score must be 'js' with split='paper'"),
        (JoSRCSelector(split="beta"), ParameterError, "row_score must be 'js' or 'js0'"),
        (JoSRCSelector(split="gaussian"), ParameterError, "row_score must be 'margin' or 'js' or 'js0'"),
        (JoSRCSelector(optimizer="sgd"), ParameterError, "optimizer must be one of"),
        (JoSRCSelector(eps_target=1.0), ParameterError, r"eps_target must be in \[0, 1\)"),
        (JoSRCSelector(eps_js=-0.1), ParameterError, r"eps_js must be in \[0, 1\)"),
        (JoSRCSelector(warmup_epochs=-1), ParameterError, "warmup_epochs must be a whole number"),
        (JoSRCSelector(warmup_epochs=1.5), ParameterError, "warmup_epochs must be a whole number"),
        (JoSRCSelector(warmup_threshold=1.1), ParameterError, r"warmup_threshold must be in \[0, 1\]"),
        (JoSRCSelector(final_threshold=float("nan")), ParameterError, r"final_threshold must be in \[0, 1\]"),
        (JoSRCSelector(least_clean=-1), ParameterError, r"least_clean must be in \[0, 1\]"),
        (JoSRCSelector(consistency=2), ParameterError, r"consistency must be in \[0, 1\]"),
        (JoSRCSelector(teacher_decay=-1), ParameterError, r"teacher_decay must be in \[0, 1\]"),
        (JoSRCSelector(ood_temperature=0), ParameterError, "ood_temperature must be greater than 0"),
        (JoSRCSelector(ood_cap=float("inf")), ParameterError, "ood_cap must be greater than 0"),
        (JoSRCSelector(open_set="yes"), ParameterError, "open_set must be"),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:60],
)
def test_parameters_out_of_range_are_one_sentence(blobs, selector, error, message):
    with pytest.raises(error, match=f"^{message}") as caught:
        selector.fit(blobs.X, blobs.y)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not hasattr(selector, "verdict_")


# --- inputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator", [NeuralNetClassifier(**SKORCH, verbose=0), Net(**SKORCH)], ids=["skorch", "Net"]
)
def test_networks_of_the_users_own(blobs, estimator):
    before = repr(estimator)
    selector = JoSRCSelector(estimator, random_state=0).fit(blobs.X, blobs.y)
    assert auc(selector, blobs) > 0.95
    assert repr(estimator) == before and not hasattr(estimator, "module_")


def test_strings_and_a_dataframe(blobs):
    names = np.array(["left", "right", "up"])
    plain = JoSRCSelector(max_epochs=5, random_state=0).fit(blobs.X, blobs.y)
    frame = pd.DataFrame(blobs.X, columns=list("abcde"))
    named = JoSRCSelector(max_epochs=5, random_state=0).fit(frame, names[blobs.y])
    assert np.array_equal(plain.scores_, named.scores_)
    assert np.array_equal(plain.verdict_.partition, named.verdict_.partition)
    assert np.array_equal(names[plain.verdict_.suggested_labels], named.verdict_.suggested_labels)
    assert named.transform(frame) is frame


@pytest.mark.parametrize("shape", ["gray", "color", "bytes", "first"])
def test_images(images, shape):
    X = images.X.swapaxes(1, 2)  # bright above or below: color pictures are mirrored
    if shape != "gray":
        X = np.repeat(X[..., None], 3, axis=3)
    X = (X * 255).astype(np.uint8) if shape == "bytes" else X
    X = np.moveaxis(X, -1, 1) if shape == "first" else X
    selector = JoSRCSelector(max_epochs=12, random_state=0).fit(X, images.y)
    assert auc(selector, images) > 0.9
    assert not np.array_equal(*selector.signals_.view_probs)
    assert selector.score_new(X[:5], images.y[:5]).shape == (5,)


def test_official_network_on_images():
    rng = np.random.default_rng(0)
    truth = np.arange(64) % 2
    X = rng.uniform(0, 0.4, size=(64, 16, 16)).astype(np.float32)
    X[truth == 1, :8] += 0.6
    selector = JoSRCSelector(network=SevenLayerCNN, max_epochs=5, random_state=0).fit(X, truth)
    assert selector.signals_.features.shape == (64, 64)
    assert selector.clean_mask_.mean() > 0.9


def test_in_a_pipeline(blobs):
    steps = [("filter", JoSRCSelector(max_epochs=10, random_state=0)), ("clf", LogisticRegression())]
    assert Pipeline(steps).fit(blobs.X, blobs.y).score(blobs.X, blobs.truth) > 0.97


def test_rows_that_arrive_later(blobs):
    selector = JoSRCSelector(max_epochs=10, random_state=0).fit(blobs.X[:200], blobs.y[:200])
    found = selector.score_new(blobs.X[200:], blobs.y[200:])
    assert roc_auc_score(~blobs.wrong[200:], found) > 0.95
    assert np.array_equal(found, selector.score_new(blobs.X[200:], blobs.y[200:]))


@pytest.mark.parametrize("row_score", ["corrected", "js", "js0"])
@pytest.mark.parametrize("kind", ["table", "pictures"])
def test_a_row_that_arrives_later_is_judged_by_itself(blobs, images, kind, row_score):
    data = images if kind == "pictures" else blobs
    selector = JoSRCSelector(max_epochs=4, row_score=row_score, random_state=0).fit(data.X, data.y)
    together = selector.score_new(data.X[:20], data.y[:20])
    assert np.ptp(together) > 0.1
    np.testing.assert_allclose(selector.score_new(data.X[7:20], data.y[7:20]), together[7:], atol=1e-4)
    np.testing.assert_allclose(selector.score_new(data.X[19::-1], data.y[19::-1]), together[::-1], atol=1e-4)


def test_given_features_are_kept(blobs):
    features = np.arange(600.0).reshape(300, 2)
    selector = JoSRCSelector(max_epochs=1, random_state=0).fit(blobs.X, blobs.y, features=features)
    assert np.array_equal(selector.signals_.features, features)
    own = JoSRCSelector(max_epochs=1, network=MLP, random_state=0).fit(blobs.X, blobs.y)
    assert own.signals_.features.shape == (300, 256)


def test_planted_rows_learn_their_planted_labels(blobs, monkeypatch):
    from noisefilter.models import NetModel

    seen, train = [], NetModel.train

    def spied(self, rows, codes, n_classes):
        seen.append(codes.copy())
        return train(self, rows, codes, n_classes)

    monkeypatch.setattr(NetModel, "train", spied)
    selector = JoSRCSelector(max_epochs=1, random_state=0).fit(blobs.X, blobs.y)
    plain = JoSRCSelector(max_epochs=1, probes=0.0, random_state=0).fit(blobs.X, blobs.y)
    assert plain.signals_.probe_rows is None
    differs = np.flatnonzero(seen[0] != seen[1])
    assert len(differs) == 30 and np.array_equal(differs, np.sort(selector.signals_.probe_rows))


def test_what_was_noted_of_single_rows_is_let_go(blobs):
    selector = JoSRCSelector(max_epochs=2, random_state=0).fit(blobs.X, blobs.y)
    assert not {"warm_sum_", "likelihoods_", "held_clean_", "predicted_"} & set(vars(selector._fitted.net))
    assert len(selector.score_new(blobs.X[:3], blobs.y[:3])) == 3
