"""INNScorer: by hand, against the paper's formula, on noisy digits, and with everything it accepts."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from noisefilter import FilteredClassifier, INNScorer, Net, Signals, estimates, plant_noise, splits
from noisefilter.errors import (
    InputError,
    InputTypeError,
    LabelError,
    MissingSignalError,
    ParameterError,
    TrainingDivergedError,
)
from noisefilter.inputs import check_labels
from noisefilter.models import NetModel
from noisefilter.networks import MLP, PreActResNet18

DOUBTS = estimates.PATH_DOUBT, estimates.BLENDED_DOUBT


class Small(nn.Module):
    """A network of the user's own; takes rows of any shape."""

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


class Items(torch.utils.data.Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


def assert_same_verdict(one, other):
    """Every bit of two verdicts is the same."""
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


def auc(scorer, data):
    return roc_auc_score(~data.wrong, scorer.scores_)


# --- the judgement, by hand -----------------------------------------------------------------------

THREE = Signals(
    path_probs=np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]),
    mean_probs=np.array([[0.7, 0.3], [0.4, 0.6], [0.5, 0.5]]),
)


@pytest.mark.parametrize(
    ("parameters", "scores"),
    [
        ({"row_score": "probability", "average": False}, [0.9, 0.2, 0.7]),
        ({"row_score": "probability", "average": True}, [0.8, 0.4, 0.6]),
        ({"row_score": "margin", "average": False}, np.log([0.9 / 0.1, 0.2 / 0.8, 0.7 / 0.3])),
        ({"row_score": "margin", "average": True}, np.log([0.8 / 0.2, 0.4 / 0.6, 0.6 / 0.4])),
    ],
)
def test_three_rows_by_hand(parameters, scores):
    threshold = 0.5 if parameters["row_score"] == "probability" else 0.0
    scorer = INNScorer(split="threshold", threshold=threshold, **parameters)
    verdict = scorer.fit_signals(THREE, ["cat", "dog", "dog"]).verdict_
    np.testing.assert_allclose(verdict.scores, scores, rtol=1e-12)
    assert verdict.clean_mask.tolist() == [True, False, True]
    assert verdict.suggested_labels.tolist() == ["cat", "cat", "dog"]
    assert verdict.threshold == threshold and verdict.method == "INNScorer"
    assert verdict.classes.tolist() == ["cat", "dog"] == scorer.classes_.tolist()


def test_columns_of_signals_are_sorted_classes_whichever_label_comes_first():
    scorer = INNScorer(row_score="probability", average=False, split="keep", keep=2 / 3)
    backwards = Signals(path_probs=THREE.path_probs[::-1])
    assert scorer.fit_signals(backwards, ["dog", "dog", "cat"]).scores_.tolist() == [0.7, 0.2, 0.9]
    assert scorer.clean_mask_.tolist() == [True, False, True]


def test_corrected_score_believes_less_in_a_label_that_often_stands_for_another():
    """20 rows that look like a carry b; a row labelled b is then more suspect than one labelled a."""
    probs = np.repeat([[0.97, 0.03], [0.03, 0.97]], 100, axis=0)
    y = np.repeat([0, 1], 100)
    y[:30] = 1
    doubtful = np.array([[0.5, 0.5], [0.5, 0.5]])
    signals = Signals(path_probs=np.concatenate([probs, doubtful]))
    scores = INNScorer().fit_signals(signals, np.append(y, [0, 1])).scores_
    assert scores[-2] > scores[-1] + 0.5


def test_transition_matrix_stands_in_the_order_of_the_classes():
    """30 % of the rows that look like zebras carry ape; zebra comes first in y and last in classes_."""
    probs = np.repeat([[0.03, 0.97], [0.97, 0.03]], 1000, axis=0)  # columns ape, zebra
    y = np.repeat(["zebra", "ape"], 1000)
    y[1:301] = "ape"
    matrix = INNScorer().fit_signals(Signals(path_probs=probs), y).verdict_.transition_matrix
    assert matrix[1, 0] > 0.2 and matrix[0, 1] < 0.05
    np.testing.assert_allclose(matrix.sum(axis=1), 1)


def test_fit_is_collect_then_fit_signals(blobs):
    trained = INNScorer(max_epochs=3, random_state=0).fit(blobs.X, blobs.y)
    told = INNScorer().fit_signals(trained.signals_, blobs.y)
    assert_same_verdict(trained.verdict_, told.verdict_)


def test_missing_signal_is_named(blobs):
    with pytest.raises(MissingSignalError, match=r"^signals\.path_probs must be recorded"):
        INNScorer().fit_signals(Signals(probs=THREE.path_probs), [0, 1, 1])
    with pytest.raises(MissingSignalError, match=r"^signals\.probe_rows must be recorded"):
        INNScorer(split="probes").fit_signals(THREE, [0, 1, 1])


def test_score_is_the_papers_formula(blobs):
    """Eq. (1) as a literal loop: ten trapezoids, both end points evaluated, one path at a time."""
    X, y = blobs.X[:25], blobs.y[:25]
    scorer = INNScorer.as_published(
        network=MLP, max_epochs=4, batch_size=8, n_neighbors=4, split="keep", keep=0.8, random_state=0
    ).fit(X, y)
    f, h = (model.net.module_.eval() for model in (scorer._fitted.f, scorer._fitted.h))
    with torch.inference_mode():
        features = h.body(h.standardize(torch.from_numpy(X))).numpy()
        probability = lambda x, k: float(torch.softmax(f(torch.from_numpy(x[None])), 1)[0, k])  # noqa: E731
        codes = [
            dict(zip(dict.fromkeys(y), range(3), strict=True))[label] for label in y
        ]  # by first appearance
        expected = []
        for i in range(25):
            distance = np.linalg.norm(features - features[i], axis=1)
            distance[i] = np.inf
            integrals = []
            for neighbor in np.argsort(distance)[:4]:
                a = [1 - step / 10 for step in range(11)]
                values = [
                    probability(np.float32(a_h * X[i] + (1 - a_h) * X[neighbor]), codes[i]) for a_h in a
                ]
                integrals.append(sum((values[step] + values[step + 1]) / 20 for step in range(10)))
            expected.append(np.mean(integrals))
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(scorer.scores_, expected, atol=1e-5)


def test_published_settings():
    given = INNScorer.as_published(random_state=3).get_params()
    paper = {
        "network": PreActResNet18, "max_epochs": 50, "batch_size": 128, "lr": 0.02, "objective": "mixup",
        "feature_network": "own", "n_neighbors": 10, "quadrature": "trapezoid", "n_interior": 9,
        "row_score": "probability", "average": False, "split": "beta", "random_state": 3,
    }  # fmt: skip
    assert given == INNScorer().get_params() | paper


def test_published_settings_find_wrong_labels(blobs):
    scorer = INNScorer.as_published(network=MLP, max_epochs=10, batch_size=16, random_state=0)
    scorer.fit(blobs.X, blobs.y)
    assert auc(scorer, blobs) > 0.95
    assert scorer.verdict_.clean_proba is not None and scorer.signals_.probe_rows is None


# --- every value of every parameter ---------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {"row_score": "margin"},
        {"row_score": "probability"},
        {"objective": "mixup"},
        {"objective": "mixup", "mixup_alpha": 4.0},
        {"feature_network": "own"},
        {"quadrature": "trapezoid", "n_interior": 1},
        {"quadrature": "simpson", "n_interior": 3},
        {"quadrature": "gauss", "n_interior": 3},
        {"average": False},
        {"split": "probes"},
        {"split": "probes", "probes": 0.1},
        {"split": "joint"},
        {"split": "gaussian", "row_score": "probability"},
        {"split": "beta", "row_score": "probability"},
        {"split": "keep", "keep": 0.85},
        {"split": "threshold", "threshold": 0.0},
        {"probes": 0.0},
        {"network": Small, "max_epochs": 20},
        {"n_neighbors": np.int64(3)},
        {
            "batch_size": np.int64(7),
            "max_epochs": np.int64(10),
            "n_interior": np.int64(1),
            "lr": np.float32(0.1),
        },
        {"random_state": np.random.RandomState(0)},
    ],
)
def test_every_choice_finds_the_wrong_labels(blobs, parameters):
    scorer = INNScorer(**{"max_epochs": 10, "random_state": 0} | parameters).fit(blobs.X, blobs.y)
    assert auc(scorer, blobs) > 0.95
    assert (scorer.clean_mask_ == ~blobs.wrong).mean() > 0.9


def test_choices_change_what_they_should(blobs):
    def scores(**parameters):
        return INNScorer(max_epochs=3, random_state=0, **parameters).fit(blobs.X, blobs.y).scores_

    default = scores()
    for parameters in (
        {"row_score": "margin"}, {"objective": "mixup"}, {"feature_network": "own"}, {"n_interior": 1},
        {"quadrature": "trapezoid"}, {"average": False}, {"probes": 0.0}, {"network": Small},
        {"n_neighbors": 3}, {"batch_size": 7}, {"lr": 0.01},
    ):  # fmt: skip
        assert not np.array_equal(default, scores(**parameters)), parameters
    for parameters in ({"split": "probes"}, {"verbose": 0}, {"keep_signals": False}, {"device": "cpu"}):
        assert np.array_equal(default, scores(**parameters)), parameters


def test_threshold_and_keep_decide(blobs):
    signals = INNScorer(max_epochs=3, random_state=0).fit(blobs.X, blobs.y).signals_
    above = INNScorer(split="threshold", threshold=1.5).fit_signals(signals, blobs.y)
    assert np.array_equal(above.clean_mask_, above.scores_ >= 1.5) and 0 < above.clean_mask_.sum() < 300
    kept = INNScorer(split="keep", keep=0.3).fit_signals(signals, blobs.y)
    assert kept.clean_mask_.sum() == 90
    assert kept.scores_[kept.clean_mask_].min() >= kept.scores_[~kept.clean_mask_].max()


def test_the_joint_does_not_take_planted_labels_for_found_ones():
    """What a network has learned of planted rows contradicts their given labels, all of them right."""
    y = np.repeat([0, 1, 2], 40)
    probs = np.where(np.eye(3)[y] == 1, 0.9, 0.05) + np.linspace(0, 0.01, 120)[:, None] * np.array([1, 0, 0])
    rows = np.arange(0, 120, 10)
    probs[rows] = np.where(np.eye(3)[(y[rows] + 1) % 3] == 1, 0.8, 0.1)
    y[33:38] = 2  # wrong labels, to be found
    signals = Signals(path_probs=probs, probe_rows=rows, probe_codes=(y[rows] + 1) % 3)
    scorer = INNScorer(split="joint").fit_signals(signals, y)
    assert not scorer.clean_mask_[33:38].any()
    assert (~scorer.clean_mask_).sum() <= 6  # planted rows are flagged as often as the others
    told = INNScorer(split="joint").fit_signals(Signals(path_probs=probs), y)
    assert (~told.clean_mask_[rows]).sum() >= 4  # as it would be without that care


def doubtful(seed=0, n=200):
    """Probabilities of three classes, labels a tenth of them wrong, and 20 planted rows that were learned."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    probs = rng.dirichlet([1, 1, 1], n) * 0.4 + 0.6 * np.eye(3)[y]
    rows = rng.choice(n, 20, replace=False)
    planted = (y[rows] + 1) % 3
    probs[rows] = np.where(np.eye(3)[planted] == 1, 0.6, np.where(np.eye(3)[y[rows]] == 1, 0.1, 0.3))
    y[:20] = (y[:20] + 2) % 3
    return probs, y, rows, planted


def test_what_was_planted_is_never_suggested():
    probs, y, rows, planted = doubtful()
    rows, planted = rows[y[rows] != planted], planted[y[rows] != planted]
    told = Signals(path_probs=probs, probe_rows=rows, probe_codes=planted)
    assert (INNScorer().fit_signals(told, y).verdict_.alternatives[rows] != planted).all()
    untold = INNScorer().fit_signals(Signals(path_probs=probs), y).verdict_
    assert (untold.alternatives[rows] == planted).all()


def test_the_rate_is_read_by_the_doubt_of_the_probabilities_at_hand():
    probs, y, *_ = doubtful()
    expected = [estimates.estimate_noise_rate(probs, y, doubt_ratio=ratio) for ratio in DOUBTS]
    assert expected[0] != expected[1]
    both = Signals(path_probs=probs, mean_probs=probs)
    told = [(Signals(path_probs=probs), True), (both, False), (both, True)]
    found = [INNScorer(average=average).fit_signals(signals, y) for signals, average in told]
    rates = [scorer.verdict_.estimated_noise_rate for scorer in found]
    assert rates == pytest.approx([expected[0], expected[0], expected[1]])


def test_probes_are_corrected_for_lucky_hits():
    probs, y, rows, planted = doubtful()
    signals = Signals(path_probs=probs, probe_rows=rows, probe_codes=planted)
    scorer = INNScorer(split="probes", row_score="probability").fit_signals(signals, y)
    own = probs[rows, planted]
    expected = [splits.probes(scorer.scores_, own, k).noise_rate for k in (3, None)]
    assert scorer.verdict_.estimated_noise_rate == expected[0] != expected[1]


def test_a_network_of_its_own_for_features_learns_the_given_labels(blobs, monkeypatch):
    seen, train = [], NetModel.train

    def spied(self, rows, codes, n_classes):
        seen.append(codes.copy())
        return train(self, rows, codes, n_classes)

    monkeypatch.setattr(NetModel, "train", spied)
    scorer = INNScorer(feature_network="own", max_epochs=1, random_state=0).fit(blobs.X, blobs.y)
    differs = np.flatnonzero(seen[0] != seen[1])
    assert np.array_equal(differs, np.sort(scorer.signals_.probe_rows))
    assert np.array_equal(seen[1], check_labels(blobs.y).codes)


@pytest.mark.parametrize("probes", [None, 0.0])
def test_both_networks_are_trained_no_longer_than_until_planted_labels_are_known(blobs, monkeypatch, probes):
    monkeypatch.setattr(estimates, "BY_HEART", -2.0)
    monkeypatch.setattr(estimates, "_FIRST_STEPS", 0)
    model = INNScorer(max_epochs=4, feature_network="own", probes=probes, random_state=0).fit(
        blobs.X, blobs.y
    )
    epochs = 4 if probes == 0.0 else 1
    fitted = model._fitted
    assert [len(each.net.history) for each in (fitted.f, fitted.h)] == [epochs] * 2


def test_clean_proba_of_the_papers_score_is_a_probability(blobs):
    """Scores in [0, 1] are no log-odds: read as such, every row would be about equally clean."""
    signals = INNScorer(max_epochs=10, random_state=1).fit(blobs.X, blobs.y).signals_
    for row_score in ("corrected", "margin", "probability"):
        verdict = INNScorer(row_score=row_score).fit_signals(signals, blobs.y).verdict_
        assert (
            verdict.clean_proba[~blobs.wrong].mean() > 0.9 and verdict.clean_proba[blobs.wrong].mean() < 0.4
        )
        assert verdict.clean_proba.mean() == pytest.approx(1 - verdict.estimated_noise_rate, abs=1e-6)


def test_given_features_are_where_neighbors_are_looked_for(blobs):
    line = np.arange(300.0)[:, None]
    scorer = INNScorer(max_epochs=2, n_neighbors=2, random_state=0).fit(blobs.X, blobs.y, features=line)
    assert np.array_equal(np.sort(scorer.signals_.neighbors[1:-1]), np.stack([line[:-2, 0], line[2:, 0]], 1))
    assert np.array_equal(scorer.signals_.features, line)
    with pytest.raises(ParameterError, match="features must come from the network"):
        scorer.score_new(blobs.X[:2], blobs.y[:2])


def test_a_perfect_embedding_helps(blobs):
    kwargs = {"max_epochs": 1, "average": False, "random_state": 0}
    alone = INNScorer(**kwargs).fit(blobs.X, blobs.y)
    helped = INNScorer(**kwargs).fit(blobs.X, blobs.y, features=np.eye(3)[blobs.truth] + blobs.X[:, :3] / 100)
    assert auc(helped, blobs) > 0.8 and not np.array_equal(alone.scores_, helped.scores_)


# --- estimators -----------------------------------------------------------------------------------

SKORCH = {"module": Small, "criterion": nn.CrossEntropyLoss, "max_epochs": 12, "lr": 0.2, "batch_size": 16}


@pytest.mark.parametrize(
    "estimator",
    [
        NeuralNetClassifier(**SKORCH, verbose=0),
        OwnNet(**SKORCH, verbose=0),
        Net(**SKORCH),
        RandomForestClassifier(30, min_samples_leaf=15),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_any_classifier_serves(blobs, estimator, dtype):
    before = repr(estimator)
    X = blobs.X.astype(dtype)
    scorer = INNScorer(estimator, random_state=0).fit(X, blobs.y)
    assert auc(scorer, blobs) > 0.95
    assert repr(estimator) == before and not hasattr(estimator, "module_")
    again = INNScorer(estimator, random_state=0).fit(X, blobs.y)
    assert np.array_equal(again.scores_, scorer.scores_)
    assert roc_auc_score(blobs.truth == blobs.y, scorer.score_new(X, blobs.y)) > 0.95


def test_own_network_is_fed_rows_in_their_own_shape(images):
    class Shaped(Small):
        def forward(self, x):
            assert x.shape[1:] == (8, 8) and x.dtype == torch.float32
            return super().forward(x)

    settings = SKORCH | {"module": Shaped, "module__n_inputs": 64, "module__n_classes": 2, "max_epochs": 1}
    for X in (images.X, (images.X * 255).astype(np.uint8), images.X.astype(np.float64)):
        INNScorer(NeuralNetClassifier(**settings)).fit(X, images.y)


def test_a_skorch_net_is_trained_on_every_row(blobs):
    """Its default holds out a fifth of the rows, which would have no signals."""
    signals = INNScorer(NeuralNetClassifier(**SKORCH), random_state=0).fit(blobs.X, blobs.y).signals_
    np.testing.assert_allclose(signals.mean_probs.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("scorer", "error", "message"),
    [
        (
            INNScorer(NeuralNetClassifier(Small(), verbose=0)),
            ParameterError,
            "estimator.module must be a class",
        ),
        (INNScorer(OwnNet(**SKORCH), objective="mixup"), ParameterError, "objective must be 'cross_entropy'"),
        (INNScorer(LogisticRegression(), max_epochs=3), ParameterError, "max_epochs must be None"),
        (INNScorer(LogisticRegression(), lr=3), ParameterError, "lr must be None"),
        (INNScorer(LogisticRegression(), network=MLP), ParameterError, "network must be None"),
        (INNScorer(LogisticRegression), InputTypeError, "estimator must be an instance"),
        (INNScorer(StandardScaler()), InputTypeError, "estimator must be a skorch"),
        (INNScorer(network=Small()), ParameterError, "network must be a class"),
        (INNScorer(network="MLP"), ParameterError, "network must be a class"),
        (INNScorer(row_score="best"), ParameterError, "row_score must be one of"),
        (INNScorer(split="best"), ParameterError, "split must be one of"),
        (INNScorer(objective="mse"), ParameterError, "objective must be one of"),
        (INNScorer(feature_network="g"), ParameterError, "feature_network must be one of"),
        (INNScorer(quadrature="monte carlo"), ParameterError, "quadrature must be"),
        (INNScorer(quadrature="simpson"), ParameterError, "n_interior must be odd"),
        (INNScorer(n_interior=0), ParameterError, "n_interior must be a whole number"),
        (INNScorer(n_interior=2.5), ParameterError, "n_interior must be a whole number"),
        (INNScorer(n_neighbors=0), ParameterError, "n_neighbors must be a whole number"),
        (INNScorer(n_neighbors=2.0), ParameterError, "n_neighbors must be a whole number"),
        (INNScorer(mixup_alpha=0), ParameterError, "mixup_alpha must be greater than 0"),
        (INNScorer(mixup_alpha=float("nan")), ParameterError, "mixup_alpha must be greater than 0"),
        (INNScorer(max_epochs=0), ParameterError, "max_epochs must be a whole number"),
        (INNScorer(batch_size=1), ParameterError, "batch_size must be a whole number of at least 2"),
        (INNScorer(lr=-0.1), ParameterError, "lr must be greater than 0"),
        (INNScorer(lr="fast"), ParameterError, "lr must be greater than 0"),
        (INNScorer(probes=0.51), ParameterError, r"probes must be in \[0, 0.5\]"),
        (INNScorer(split="probes", probes=0), ParameterError, "probes must be greater than 0"),
        (INNScorer(split="threshold"), ParameterError, "threshold must be given"),
        (INNScorer(split="threshold", threshold=float("nan")), ParameterError, "threshold must be finite"),
        (INNScorer(threshold=0.5), ParameterError, "threshold must be given with split='threshold'"),
        (INNScorer(split="keep"), ParameterError, "keep must be given"),
        (INNScorer(split="keep", keep=1.1), ParameterError, "keep must be in"),
        (INNScorer(keep=0.5), ParameterError, "keep must be given with split='keep'"),
        (INNScorer(split="beta"), ParameterError, "row_score must be 'probability'"),
        (INNScorer(split="gaussian"), ParameterError, "row_score must be 'probability' or 'margin'"),
        (INNScorer(output="scores"), ParameterError, "output must be"),
        (INNScorer(channels="middle"), ParameterError, "channels must be"),
        (INNScorer(device="quantum"), ParameterError, "device must be"),
        (INNScorer(random_state="lucky"), ParameterError, "random_state must be"),
    ],
    ids=lambda value: None if isinstance(value, type) else str(value)[:60],
)
def test_parameters_out_of_range_are_one_sentence(blobs, scorer, error, message):
    with pytest.raises(error, match=f"^{message}") as caught:
        scorer.fit(blobs.X, blobs.y)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not hasattr(scorer, "verdict_") and not hasattr(scorer, "classes_")


# --- inputs ---------------------------------------------------------------------------------------


def fitted_on(X, data, **parameters):
    return INNScorer(max_epochs=3, random_state=0, **parameters).fit(X, data.y)


def test_containers_of_the_same_rows_give_the_same_bits(blobs, tmp_path):
    expected = fitted_on(blobs.X, blobs).verdict_
    on_disk = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, blobs.X.shape)
    on_disk[:] = blobs.X
    frame = pd.DataFrame(blobs.X, columns=list("abcde"))
    for X in (on_disk, frame, torch.from_numpy(blobs.X), Items(blobs.X, blobs.y)):
        assert_same_verdict(fitted_on(X, blobs).verdict_, expected)
    in_float64 = fitted_on(blobs.X.astype(np.float64), blobs).verdict_
    assert_same_verdict(fitted_on(blobs.X.tolist(), blobs).verdict_, in_float64)
    for y in (
        blobs.y.tolist(),
        pd.Series(blobs.y, index=blobs.y),
        torch.from_numpy(blobs.y),
    ):
        scorer = INNScorer(max_epochs=3, random_state=0).fit(blobs.X, y)
        assert_same_verdict(scorer.verdict_, expected)


def test_a_column_of_labels_is_taken_with_a_warning(blobs):
    with pytest.warns(DataConversionWarning, match="column-vector y was passed") as caught:
        scorer = fitted_on(blobs.X, blobs._replace(y=blobs.y[:, None]))
    assert len(caught) == 1 and np.array_equal(scorer.scores_, fitted_on(blobs.X, blobs).scores_)


def test_float64_on_disk_keeps_its_digits(blobs, tmp_path):
    """A column with a large offset has no digits left in float32."""
    X = blobs.X.astype(np.float64) + 1e9
    on_disk = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float64, X.shape)
    on_disk[:] = X
    in_memory = INNScorer(max_epochs=5, random_state=0).fit(X, blobs.y)
    assert auc(in_memory, blobs) > 0.95
    assert_same_verdict(
        INNScorer(max_epochs=5, random_state=0).fit(on_disk, blobs.y).verdict_, in_memory.verdict_
    )


def test_images_of_every_layout(images, tmp_path):
    gray = fitted_on(images.X, images).verdict_
    for X in (images.X[:, None], images.X[..., None], torch.from_numpy(images.X)[:, None]):
        assert_same_verdict(fitted_on(X, images).verdict_, gray)
    color = (np.stack([images.X, images.X / 2, 1 - images.X], axis=-1) * 255).astype(np.uint8)
    expected = fitted_on(color, images).verdict_
    assert not np.array_equal(expected.scores, gray.scores)
    on_disk = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.uint8, color.shape)
    on_disk[:] = color
    for X in (color.transpose(0, 3, 1, 2), on_disk, Items(color, images.y)):
        assert_same_verdict(fitted_on(X, images).verdict_, expected)


def test_channels_settles_what_the_shape_does_not_tell(images):
    last = np.repeat(images.X[:, :4, :, None], 8, axis=3)  # (n, 4, 8, 8)
    assert fitted_on(last, images, channels="first")._fitted.rows.shape == (4, 8, 8)
    assert fitted_on(last, images, channels="last")._fitted.rows.shape == (8, 4, 8)


def test_images_are_judged(images):
    scorer = INNScorer(max_epochs=10, random_state=0).fit(images.X, images.y)
    assert auc(scorer, images) > 0.95
    with pytest.raises(InputError, match="X must have been 2-D"):
        scorer.get_feature_names_out()


# --- new rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters", [{}, {"feature_network": "own"}, {"row_score": "probability"}], ids=str
)
def test_score_new_judges_rows_that_arrive_later(blobs, parameters):
    names = np.array(["b", "c", "a"])
    scorer = INNScorer(max_epochs=10, random_state=0, **parameters).fit(blobs.X[:200], names[blobs.y[:200]])
    later = scorer.score_new(blobs.X[200:], names[blobs.y[200:]])
    assert roc_auc_score(~blobs.wrong[200:], later) > 0.95
    one = scorer.score_new(blobs.X[200:201], names[blobs.y[200:201]])
    np.testing.assert_allclose(one, later[:1], rtol=1e-4)


def test_score_new_is_on_the_scale_of_the_scores(blobs):
    scorer = INNScorer(max_epochs=10, random_state=0, average=False, probes=0.0).fit(blobs.X, blobs.y)
    twice = scorer.score_new(blobs.X, blobs.y)  # now each row is its own nearest neighbor
    assert np.corrcoef(twice, scorer.scores_)[0, 1] > 0.9
    assert abs(np.median(twice) - np.median(scorer.scores_)) < 0.5


def test_score_new_averages_only_where_fit_did(blobs):
    """A forest has no epochs, so its scores are of the paths alone, for new rows as well."""
    forest = RandomForestClassifier(30, min_samples_leaf=15)
    parameters = {"row_score": "probability", "random_state": 0, "probes": 0.0}
    default, plain = (
        INNScorer(forest, average=average, **parameters).fit(blobs.X, blobs.y) for average in (True, False)
    )
    assert np.array_equal(default.scores_, plain.scores_)
    new = blobs.X + 0.3, blobs.y
    assert np.array_equal(default.score_new(*new), plain.score_new(*new))


def test_score_new_knows_confusions_by_their_labels(blobs):
    """40 % of one class carry the name of another, so the order of the classes shows in the scores."""
    codes = np.where((blobs.truth == 0) & (np.arange(300) % 5 < 2), 1, blobs.truth)
    later = [
        INNScorer(max_epochs=5, random_state=0).fit(blobs.X, names[codes]).score_new(blobs.X, names[codes])
        for names in (np.array(["a", "b", "c"]), np.array(["c", "a", "b"]), np.array(["b", "c", "a"]))
    ]
    assert np.array_equal(later[0], later[1]) and np.array_equal(later[0], later[2])


def test_score_new_refuses(blobs, images):
    scorer = fitted_on(blobs.X, blobs)
    with pytest.raises(LabelError, match=r"^y must hold labels seen in fit, got 7\.$"):
        scorer.score_new(blobs.X[:2], [0, 7])
    with pytest.raises(InputError, match="same length"):
        scorer.score_new(blobs.X[:2], [0])
    with pytest.raises(InputError, match=r"shape \(1, 8, 8\) as in fit, got \(1, 4, 4\)"):
        fitted_on(images.X, images).score_new(images.X[:, :4, :4], images.y)
    scorer.fit_signals(scorer.signals_, blobs.y)
    with pytest.raises(ParameterError, match=r"must have been fitted by fit\(X, y\)"):
        scorer.score_new(blobs.X, blobs.y)


# --- state ----------------------------------------------------------------------------------------


def test_signals_are_kept_unless_told_otherwise(blobs):
    scorer = fitted_on(blobs.X, blobs)
    assert np.array_equal(scorer.signals_.path_probs.shape, (300, 3))
    scorer.set_params(keep_signals=False).fit(blobs.X, blobs.y)
    assert not hasattr(scorer, "signals_") and len(scorer.scores_) == 300


@pytest.mark.parametrize("kind", ["array", "memory map", "dataset", "forest"])
def test_pickle_keeps_everything(blobs, kind, tmp_path):
    X, estimator = blobs.X, None
    if kind == "memory map":
        X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, blobs.X.shape)
        X[:] = blobs.X
    elif kind == "dataset":
        X = Items(blobs.X, blobs.y)
    elif kind == "forest":
        estimator = RandomForestClassifier(5)
    scorer = INNScorer(estimator, random_state=0).fit(X, blobs.y)
    copy = pickle.loads(pickle.dumps(scorer))
    assert_same_verdict(copy.verdict_, scorer.verdict_)
    new = blobs.X[:9] + 0.1, blobs.y[:9]
    assert np.array_equal(copy.score_new(*new), scorer.score_new(*new))


def test_correcting_labels_in_place_leaves_the_verdict_alone(blobs):
    y = blobs.y.copy()
    verdict = INNScorer(max_epochs=3, random_state=0).fit(blobs.X, y).verdict_
    y[:] = verdict.suggested_labels
    assert np.array_equal(verdict.labels, blobs.y)


@pytest.mark.parametrize("estimator", [None, NeuralNetClassifier, OwnNet])
def test_diverged_training_leaves_what_was_there(blobs, estimator):
    broken = SKORCH | {"module": Diverging, "verbose": 0}
    parameters = {"network": Diverging} if estimator is None else {"estimator": estimator(**broken)}
    fresh = INNScorer(max_epochs=None if estimator else 2, **parameters)
    with pytest.raises(TrainingDivergedError, match=r"must .* finite.*\.$"):
        fresh.fit(blobs.X, blobs.y)
    assert [name for name in vars(fresh) if name not in fresh.get_params()] == []

    scorer = INNScorer(max_epochs=2, random_state=0).fit(blobs.X[:, :3], blobs.y)
    before = dict(vars(scorer))
    scorer.set_params(max_epochs=fresh.max_epochs, **parameters)
    with pytest.raises(TrainingDivergedError):
        scorer.fit(blobs.X, blobs.y)
    state = {name: value for name, value in before.items() if name not in scorer.get_params()}
    assert state["n_features_in_"] == 3
    assert state == {name: value for name, value in vars(scorer).items() if name not in scorer.get_params()}


# --- small and odd data ---------------------------------------------------------------------------


def test_two_classes_and_thirty_rows(blobs):
    rows = np.flatnonzero(blobs.truth < 2)[:30]
    y = blobs.truth[rows] == 1  # booleans
    y[[3, 8]] ^= True
    verdict = INNScorer(random_state=0).fit(blobs.X[rows], y).verdict_
    assert set(np.argsort(verdict.scores)[:2]) == {3, 8}
    assert verdict.suggested_labels.dtype == bool and verdict.alternatives.tolist() == (~y).tolist()


def test_a_class_with_one_row_is_judged(blobs):
    y = blobs.truth.copy()
    y[17] = 9
    scorer = INNScorer(random_state=0).fit(blobs.X, y)
    assert scorer.classes_.tolist() == [0, 1, 2, 9]
    assert scorer.scores_.argmin() == 17 and scorer.verdict_.alternatives[17] == blobs.truth[17]


def test_more_neighbors_than_rows_are_clipped(blobs):
    with pytest.warns(
        UserWarning, match="n_neighbors must be less than the 8 rows, got 10; 7 are used"
    ) as caught:
        scorer = fitted_on(blobs.X[:8], blobs._replace(y=blobs.y[:8]))
    assert scorer.signals_.neighbors.shape == (8, 7)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="7 are used"):
        scorer.score_new(blobs.X[8:10], blobs.y[8:10])


def test_a_class_without_a_clean_row_keeps_its_best(blobs):
    y = np.array(["a", "b", "c", "zebra"])[blobs.y]
    y[:20] = "zebra"  # no class at all: rows of every blob
    scorer = INNScorer(max_epochs=10, random_state=0, split="keep", keep=0.5)
    with pytest.warns(UserWarning, match="No clean row is left in class 'zebra'"):
        rows = scorer.fit_transform(blobs.X, y)
    assert not scorer.clean_mask_[:20].any()
    best = blobs.X[:20][np.argsort(-scorer.scores_[:20])[:10]]
    assert {tuple(row) for row in np.asarray(rows)[:20]} == {tuple(row) for row in best}


# --- noisy digits ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    """Three quarters of the digits with 36 % wrong labels, and a clean quarter."""
    X, y = load_digits(return_X_y=True)
    X, held = (X / 16).astype(np.float32), np.arange(len(y)) % 4 == 0
    noisy, _ = plant_noise(y[~held], "symmetric", 0.4, random_state=0)
    return X[~held], noisy, noisy != y[~held], X[held], y[held]


@pytest.fixture(scope="module")
def judged_digits(digits):
    return INNScorer(random_state=0).fit(digits[0], digits[1])


def test_wrong_digits_are_found(digits, judged_digits):
    _, _, wrong, _, _ = digits
    verdict = judged_digits.verdict_
    assert roc_auc_score(~wrong, verdict.scores) > 0.98
    assert abs(verdict.estimated_noise_rate - wrong.mean()) < 0.08
    assert (verdict.clean_mask == ~wrong).mean() > 0.9


def test_hardly_any_clean_digit_is_flagged():
    X, y = load_digits(return_X_y=True)
    verdict = INNScorer(random_state=0).fit(X, y).verdict_
    assert verdict.noise_rate < 0.04 and verdict.estimated_noise_rate < 0.04


def test_replacing_gains_nearly_what_dropping_gains(digits, judged_digits):
    X, y, _, X_held, y_held = digits
    linear = LogisticRegression(max_iter=2000)
    noisy = linear.fit(X, y).score(X_held, y_held)
    replaced = (
        Pipeline([("filter", INNScorer(random_state=0)), ("clf", linear)]).fit(X, y).score(X_held, y_held)
    )
    dropping = FilteredClassifier(INNScorer(random_state=0), linear)
    dropped = dropping.fit(X, y).score(X_held, y_held)
    assert np.array_equal(dropping.verdict_.scores, judged_digits.scores_)
    assert dropped - noisy > 0.025
    assert replaced - noisy > 0.7 * (dropped - noisy)


def test_features_carry_a_linear_model_over_noisy_images(digits):
    X, y, _, X_held, y_held = digits
    images, held = X.reshape(-1, 8, 8), X_held.reshape(-1, 8, 8)
    noisy = LogisticRegression(max_iter=2000).fit(X, y).score(X_held, y_held)
    scorer = INNScorer(max_epochs=8, output="features", random_state=0)
    pipeline = Pipeline([("filter", scorer), ("clf", LogisticRegression(max_iter=2000))]).fit(images, y)
    assert pipeline.score(held, y_held) > noisy + 0.05
    assert scorer.transform(held).shape == (len(held), 128)
    assert scorer.get_feature_names_out()[:2].tolist() == ["innscorer0", "innscorer1"]


def test_score_holds_where_the_network_memorizes_and_small_loss_does_not(digits):
    """A plain MLP of 60 epochs; the AUC of the loss falls from 0.97 to 0.7, that of INN stays."""
    X, y, wrong, _, _ = digits
    plain = {"module__n_inputs": 64, "module__n_classes": 10, "module__dropout": 0.0, "module__noise": 0.0}
    settings = {"max_epochs": 60, "lr": 0.05, "batch_size": 80, "optimizer__momentum": 0.9, **plain}
    losses = Net(MLP, record=("losses",), random_state=0, **settings).fit(X, y).recorded_.losses
    assert roc_auc_score(~wrong, -losses[1]) > 0.95 and roc_auc_score(~wrong, -losses[-1]) < 0.8
    scorer = INNScorer(Net(MLP, **settings), random_state=0).fit(X, y)
    assert roc_auc_score(~wrong, scorer.scores_) > 0.94
    assert abs(scorer.verdict_.estimated_noise_rate - wrong.mean()) < 0.08
