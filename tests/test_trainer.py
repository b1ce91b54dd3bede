"""BaseTrainer, driven by the plainest trainer there is; every exported trainer keeps the same laws."""

import copy
import inspect
import io
import json
import pickle
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_model, save_model
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from skorch.callbacks import EarlyStopping, LRScheduler

import noisefilter
from noisefilter import (
    CLEAN,
    OOD_NOISE,
    FilteredClassifier,
    INNScorer,
    JoSRCClassifier,
    Net,
    SmallLossSelector,
    Verdict,
    VoteFilter,
)
from noisefilter.batches import count_batches, picked
from noisefilter.errors import InputError, InputTypeError, LabelError, ParameterError, TrainingDivergedError
from noisefilter.inputs import check_labels
from noisefilter.models import build_model
from noisefilter.net import derived_seed, local_seed
from noisefilter.networks import MLP, SmallCNN
from noisefilter.progress import Progress
from noisefilter.robust import RobustTrainer
from noisefilter.scores import log_margin, unsmoothed
from noisefilter.states import load_verdict, verdict_state
from noisefilter.trainer import BaseTrainer, _in_class_numbers, _in_labels, _told
from noisefilter.verdict import Judged


class PlainTraining:
    """Cross-entropy on the rows that the verdict to start from believes, or on all."""

    def __init__(self, net, rows, codes, given):
        self.net, self.every, self.codes = net.initialize(), rows, codes
        chosen = np.arange(len(rows)) if given is None else np.flatnonzero(given.clean_mask)
        self.rows = picked(rows, chosen)
        self.target = torch.from_numpy(codes[chosen]).to(rows.device)
        with local_seed(net.seed_, rows.device):
            self.n_epochs = net.begin(self.rows, self.target)

    def cost(self, epoch):
        return count_batches(len(self.rows), self.net.batch_size)

    def run_epoch(self, epoch, bar):
        with local_seed(derived_seed(self.net.seed_, epoch), self.rows.device):
            self.net.reseed(epoch)
            self.net.run_epoch(self.rows, self.target, epoch, bar)
        return {"loss": np.float64(self.net.history[-1, "train_loss"]), "n_labeled": np.int64(len(self.rows))}

    def state(self):
        return self.net.state()

    def load_state(self, tensors, rest):
        self.net.load_state(tensors, rest)

    def predict(self, rows):
        return self.net.predict_proba(rows)

    def networks(self):
        return [self.net.module_.eval()]

    def judged(self):
        probs = self.predict(self.every)
        clean = probs.argmax(axis=1) == self.codes
        return Judged(log_margin(probs, self.codes), clean, probs, float(1 - clean.mean()))

    def release(self):
        self.net.end(self.rows, self.target)
        del self.every, self.rows, self.target, self.codes


class Plain(BaseTrainer):
    """The plainest trainer."""

    training = PlainTraining

    def __init__(
        self,
        estimator=None,
        *,
        network=None,
        max_epochs=None,
        batch_size=None,
        lr=None,
        filter=None,
        split_epochs=None,
        checkpoint_dir=None,
        channels=None,
        device="auto",
        verbose=0,
        random_state=None,
    ):
        self.estimator = estimator
        self.network = network
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.filter = filter
        self.split_epochs = split_epochs
        self.checkpoint_dir = checkpoint_dir
        self.channels = channels
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def _begin(self, rows, codes, n_classes, given, features, rng):
        settings = {name: getattr(self, name) for name in ("max_epochs", "batch_size", "lr", "verbose")}
        model = build_model(
            self.estimator, rows, n_classes, network=self.network, settings=settings, training={}, record=(),
            seed=int(rng.randint(2**31 - 1)),
        )  # fmt: skip
        return self.training(model.net, rows, codes, given)


PUBLIC = [getattr(noisefilter, name) for name in noisefilter.__all__]
TRAINERS = [Plain, *(kind for kind in PUBLIC if inspect.isclass(kind) and issubclass(kind, BaseTrainer))]
every_trainer = pytest.mark.parametrize("kind", TRAINERS, ids=lambda kind: kind.__name__)
TRANSITION = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.0, 0.4, 0.6]])
ARRAYS = ("labels", "classes", "scores", "partition", "alternatives", "clean_proba", "transition_matrix")


def short(kind=Plain, **parameters):
    """Make a trainer that trains for a moment."""
    return kind(**{"max_epochs": 3, "random_state": 0} | parameters)


def quick(**parameters):
    """Make a filter that trains for a moment."""
    return SmallLossSelector(**{"max_epochs": 3, "random_state": 0} | parameters)


def assert_same_verdict(one, other):
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.threshold == other.threshold and one.estimated_noise_rate == other.estimated_noise_rate


def assert_same_fit(one, other, X):
    assert_same_verdict(one.verdict_, other.verdict_)
    assert one.history_ == other.history_
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))


def with_one_row_of_a_class(blobs):
    y = blobs.y.copy()
    y[5] = 77
    return y


# --- scikit-learn ---------------------------------------------------------------------------------

# It wants seven digits of a row alone and among others, which float32 has not; below is a test of our own.
TOO_EXACT = "check_methods_subset_invariance"
LEARNING = ("check_classifiers_train",)  # asks for a certain accuracy


@pytest.mark.filterwarnings("ignore:.* rows of X are exact copies")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(estimator, check, id=f"{kind.__name__}-{getattr(check, 'func', check).__name__}-{i}")
        for kind in TRAINERS
        for i, (estimator, check) in enumerate(estimator_checks_generator(short(kind)))
        if getattr(check, "func", check).__name__ != TOO_EXACT
    ],
)
def test_check_estimator(estimator, check):
    if getattr(check, "func", check).__name__ in LEARNING:
        # M-correction's mixtures are slow to learn; two networks see every row twice as often.
        estimator.set_params(max_epochs=12 if isinstance(estimator, RobustTrainer) else 6)
    check(estimator)


@every_trainer
def test_check_estimator_runs_in_full(kind):
    names = {getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(short(kind))}
    assert {"check_classifiers_train", "check_classifiers_classes", "check_n_features_in"} <= names
    assert len(names) >= 45


@every_trainer
def test_a_row_is_predicted_alike_alone_and_among_others(kind, blobs):
    fitted = short(kind).fit(blobs.X, blobs.y)
    probs = fitted.predict_proba(blobs.X)
    alone = np.concatenate([fitted.predict_proba(row[None]) for row in blobs.X[:20]])
    np.testing.assert_allclose(alone, probs[:20], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(blobs.X[::-1]), probs[::-1], rtol=1e-4, atol=1e-6)


@every_trainer
def test_a_grid_search_and_a_fold_without_a_class(kind, blobs):
    search = GridSearchCV(short(kind), {"max_epochs": [1, 5]}, cv=2, error_score="raise")
    assert search.fit(blobs.X, blobs.y).best_score_ > 0.7
    model = Pipeline([("scale", StandardScaler()), ("filter", quick()), ("train", short(kind))])
    with pytest.warns(UserWarning, match="least populated class"):
        scores = cross_val_score(model, blobs.X, with_one_row_of_a_class(blobs), cv=3, error_score="raise")
    assert scores.min() > 0.6


# --- labels and rows ------------------------------------------------------------------------------


@every_trainer
@pytest.mark.parametrize("names", [["c", "a", "b"], [30.0, 1.0, 2.0]], ids=str)
def test_renaming_classes_changes_no_bit(kind, blobs, names):
    names = np.array(names)
    plain = short(kind, filter=quick()).fit(blobs.X, blobs.y)
    renamed = short(kind, filter=quick()).fit(blobs.X, names[blobs.y])
    for verdict, other in (
        (plain.verdict_, renamed.verdict_),
        (plain.given_verdict_, renamed.given_verdict_),
    ):
        assert np.array_equal(verdict.scores, other.scores)
        assert np.array_equal(verdict.partition, other.partition)
        assert np.array_equal(names[verdict.suggested_labels], other.suggested_labels)
        order = np.argsort(names)
        assert np.array_equal(verdict.transition_matrix[np.ix_(order, order)], other.transition_matrix)
    assert plain.history_ == renamed.history_
    assert np.array_equal(renamed.classes_, np.sort(names))
    assert np.array_equal(names[plain.predict(blobs.X)], renamed.predict(blobs.X))
    assert np.array_equal(plain.predict_proba(blobs.X)[:, order], renamed.predict_proba(blobs.X))


@every_trainer
def test_columns_of_probabilities_follow_classes(kind, blobs):
    names = np.array(["top", "low", "mid"])
    fitted = short(kind, max_epochs=15).fit(blobs.X, names[blobs.y])
    probs = fitted.predict_proba(blobs.X)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)
    assert np.array_equal(fitted.classes_[probs.argmax(axis=1)], fitted.predict(blobs.X))
    assert (fitted.predict(blobs.X) == names[blobs.truth]).mean() > 0.9
    assert fitted.score(blobs.X, names[blobs.truth]) > 0.9
    assert (fitted.verdict_.suggested_labels == names[blobs.truth]).mean() > (blobs.y == blobs.truth).mean()


@every_trainer
def test_containers_give_the_same(kind, blobs, tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, blobs.X.shape)
    X[:] = blobs.X
    plain = short(kind).fit(blobs.X, blobs.y)
    frame = pd.DataFrame(blobs.X, columns=list("abcde"))
    named = short(kind).fit(frame, pd.Series(blobs.y, dtype="category"))
    assert named.feature_names_in_.tolist() == list("abcde") and named.n_features_in_ == 5
    with pytest.raises(ValueError, match="The feature names should match"):
        named.predict(frame[list("edcba")])
    for other, rows in ((named, frame), (short(kind).fit(X, blobs.y), X)):
        assert_same_verdict(other.verdict_, plain.verdict_)
        assert np.array_equal(other.predict_proba(rows), plain.predict_proba(blobs.X))


@every_trainer
def test_images(kind, images):
    fitted = short(kind, max_epochs=10).fit(images.X, images.y)
    assert not hasattr(fitted, "n_features_in_")
    assert fitted.score(images.X, images.truth) > 0.9
    with pytest.raises(InputError, match=r"X must hold rows of shape \(1, 8, 8\) as in fit, got \(1, 9, 8\)"):
        fitted.predict(np.zeros((2, 9, 8), np.float32))


@every_trainer
def test_a_class_with_one_row_is_trained_and_judged(kind, blobs):
    y = with_one_row_of_a_class(blobs)
    fitted = short(kind).fit(blobs.X, y)
    assert fitted.classes_.tolist() == [0, 1, 2, 77]
    assert fitted.predict_proba(blobs.X).shape == (300, 4) and len(fitted.verdict_) == 300


@every_trainer
def test_duplicates_of_one_label_without_a_verdict_are_named(kind, blobs):
    filtered = quick(max_epochs=10).fit_transform(blobs.X, blobs.y)
    with pytest.warns(UserWarning, match="exact copies .* whose verdict was lost") as caught:
        short(kind).fit(np.asarray(filtered), blobs.y)
    assert caught[0].filename == __file__
    X, y = np.tile(blobs.X, (2, 1)), np.concatenate([blobs.y, (blobs.y + np.arange(300) % 2) % 3])
    short(kind).fit(X, y)  # a table with few values has copies under other labels, too: no warning
    short(kind).fit(filtered, blobs.y)


# --- the verdict to start from --------------------------------------------------------------------


@every_trainer
def test_a_filter_before_and_a_filter_inside_are_the_same(kind, blobs):
    names = np.array(["c", "a", "b"])
    steps = [("filter", quick()), ("train", short(kind))]
    before = Pipeline(steps).fit(blobs.X, names[blobs.y])
    for inner in (quick(), quick(random_state=None)):  # one without a seed gets the trainer's
        inside = short(kind, filter=inner).fit(blobs.X, names[blobs.y])
        assert_same_fit(before["train"], inside, blobs.X)
        assert_same_verdict(before["filter"].verdict_, inside.given_verdict_)
    assert np.array_equal(before.predict(blobs.X), inside.predict(blobs.X))
    alone = short(kind).fit(blobs.X, names[blobs.y])
    assert not hasattr(alone, "given_verdict_")
    assert not np.array_equal(alone.predict_proba(blobs.X), inside.predict_proba(blobs.X))


def test_a_verdict_in_class_numbers_and_back():
    # Numbers 0, 1, 2 are b, c, a: a cycle, which is no inverse of itself.
    y = np.array(["b", "b", "c", "a", "c"])
    verdict = Verdict(
        labels=y,
        classes=np.array(["a", "b", "c"]),
        scores=np.arange(5.0),
        partition=np.array([0, 1, 0, 2, 1]),
        alternatives=np.array(["a", "c", "b", "c", "a"]),
        transition_matrix=TRANSITION,
        clean_proba=np.full(5, 0.5),
        estimated_noise_rate=0.25,
        noise_rate_interval=(0.125, 0.5),
        threshold=np.float32(1.5),
        open_set=np.True_,
        method="any",
    )
    labels = check_labels(y)
    numbered = _in_class_numbers(verdict, labels)
    assert numbered.labels.tolist() == [0, 0, 1, 2, 1] and numbered.classes.tolist() == [0, 1, 2]
    assert numbered.alternatives.tolist() == [2, 1, 0, 1, 2]
    assert numbered.transition_matrix[2, 1] == verdict.transition_matrix[0, 2]
    assert numbered.transition_matrix[0, 2] == verdict.transition_matrix[1, 0]
    tensors, rest = verdict_state(numbered)
    for again in (numbered, load_verdict(tensors, json.loads(json.dumps(rest)))):
        back = _in_labels(again, labels)
        assert_same_verdict(back, verdict)
        for name in ("noise_rate_interval", "open_set", "method"):
            assert getattr(back, name) == getattr(verdict, name)


def test_training_uses_the_untouched_rows(blobs):
    seen = []

    class Watching(Plain):
        def _begin(self, rows, codes, n_classes, given, features, rng):
            seen.append((rows.data.numpy().copy(), given, features))
            return super()._begin(rows, codes, n_classes, given, features, rng)

    names = np.array(["c", "a", "b"])
    features = np.arange(300.0)[:, None]
    pipeline = Pipeline([("filter", quick(max_epochs=10)), ("train", short(Watching))])
    pipeline.fit(blobs.X, names[blobs.y], train__features=features)
    rows, given, told = seen[0]
    assert np.array_equal(rows, blobs.X) and np.array_equal(told, features)
    verdict = pipeline["filter"].verdict_
    assert not verdict.clean_mask.all()
    _, first = np.unique(blobs.y, return_index=True)
    codes = np.argsort(np.argsort(first))  # of 0, 1, 2 by first appearance
    assert np.array_equal(given.labels, codes[blobs.y]) and given.classes.tolist() == [0, 1, 2]
    number = dict(zip(names, codes, strict=True))
    assert given.suggested_labels.tolist() == [number[label] for label in verdict.suggested_labels]
    assert given.transition_matrix[number["a"], number["c"]] == verdict.transition_matrix[0, 2]


@every_trainer
def test_votes_and_classifiers_take_a_trainer_for_a_filter(kind, blobs):
    alone = short(kind).fit(blobs.X, blobs.y)
    model = FilteredClassifier(short(kind), LogisticRegression())
    model.fit(blobs.X, blobs.y, filter__eval_set=(blobs.X, blobs.truth))
    assert_same_verdict(model.verdict_, alone.verdict_)
    assert model.filter_.eval_report_["last"] > 0.7
    vote = VoteFilter([("train", short(kind)), ("filter", quick())]).fit(blobs.X, blobs.y)
    assert_same_verdict(vote.named_filters_["train"].verdict_, alone.verdict_)
    with pytest.raises(InputTypeError, match="score_new must be asked of filters alone, got"):
        vote.score_new(blobs.X, blobs.y)
    with pytest.raises(InputTypeError, match="fit_signals must be asked of filters alone, got"):
        vote.fit_signals(vote.named_filters_["filter"].signals_, blobs.y)
    for judge in (vote, short(), model):
        assert len(short(kind, filter=judge, max_epochs=1).fit(blobs.X, blobs.y).given_verdict_) == 300


@every_trainer
def test_a_verdict_that_does_not_fit_is_refused(kind, blobs):
    rows = quick().fit_transform(blobs.X, blobs.y)
    trainer = short(kind)
    with pytest.raises(InputError, match=r"y must be the labels that the verdict is about"):
        trainer.fit(rows, (blobs.y + 1) % 3)
    with pytest.raises(ParameterError, match=r"filter must be None where X carries .*, got INNScorer"):
        trainer.set_params(filter=INNScorer()).fit(rows, blobs.y)
    with pytest.raises(InputTypeError, match="filter must have a verdict_ after fit, got LogisticRegression"):
        trainer.set_params(filter=LogisticRegression()).fit(blobs.X, blobs.y)
    for wrong in (INNScorer, "inn"):
        with pytest.raises(InputTypeError, match=r"filter must be a filter, such as INNScorer\(\), or None"):
            trainer.set_params(filter=wrong).fit(blobs.X, blobs.y)
    assert not hasattr(trainer, "verdict_")


# --- the evaluation set ---------------------------------------------------------------------------


@every_trainer
def test_the_evaluation_set_is_reported_and_changes_no_bit(kind, blobs):
    names = np.array(["c", "a", "b"])
    X, y = blobs.X[:200], names[blobs.y[:200]]
    test = blobs.X[200:], names[blobs.truth[200:]]
    plain = short(kind, max_epochs=12).fit(X, y)
    told = short(kind, max_epochs=12).fit(X, y, eval_set=test)
    assert_same_verdict(plain.verdict_, told.verdict_)
    assert np.array_equal(plain.predict_proba(X), told.predict_proba(X)) and not hasattr(
        plain, "eval_report_"
    )
    accuracies = [record["test_accuracy"] for record in told.history_]
    report = told.eval_report_
    assert report["last"] == accuracies[-1] == pytest.approx(told.score(*test))
    assert report["best"] == max(accuracies) == accuracies[report["best_epoch"] - 1]
    assert report["last_10"] == pytest.approx(np.mean(accuracies[-10:]))
    assert json.loads(json.dumps(told.history_)) == told.history_
    assert [record["epoch"] for record in told.history_] == list(range(1, len(accuracies) + 1))
    told.fit(X, y)
    assert not hasattr(told, "eval_report_")


@every_trainer
def test_arguments_of_fit_come_through_a_pipeline(kind, blobs):
    direct = short(kind).fit(blobs.X, blobs.y, eval_set=(blobs.X, blobs.truth))
    pipeline = Pipeline([("filter", "passthrough"), ("train", short(kind))])
    told = pipeline.fit(blobs.X, blobs.y, train__eval_set=(blobs.X, blobs.truth))["train"]
    assert_same_fit(told, direct, blobs.X)
    with config_context(enable_metadata_routing=True):
        asking = short(kind).set_fit_request(eval_set=True)
        routed = Pipeline([("filter", "passthrough"), ("train", asking)])
        told = routed.fit(blobs.X, blobs.y, eval_set=(blobs.X, blobs.truth))["train"]
        assert_same_fit(told, direct, blobs.X)


BAD_EVAL_SETS = {
    "unseen labels": (
        lambda X, y: (X, np.where(y == 0, 9, np.where(y == 1, 8, y))),
        LabelError,
        r"eval_set must hold labels seen in fit, got [89], [89]\.$",
    ),
    "labels of another kind": (
        lambda X, y: (X, y.astype(str)),
        LabelError,
        r"eval_set must hold labels seen in fit, got '",
    ),
    "missing labels": (lambda X, y: (X, np.full(len(y), np.nan)), LabelError, "eval_set must hold .*nan"),
    "no labels": (lambda X, y: X, InputError, r"eval_set must be a pair \(X_test, y_test\), got .* ndarray"),
    "fewer rows": (lambda X, y: (X[1:], y), InputError, "X and y must have the same length, got 299 rows"),
    "other columns": (lambda X, y: (X[:, 1:], y), ValueError, "X has 4 features, but .* is expecting 5"),
    "images": (
        lambda X, y: (np.zeros((300, 8, 8)), y),
        InputError,
        r"eval_set must hold rows of shape \(5,\) as in fit, got \(1, 8, 8\)",
    ),
}


@every_trainer
@pytest.mark.parametrize("case", BAD_EVAL_SETS)
def test_bad_evaluation_sets(kind, blobs, case):
    change, error, message = BAD_EVAL_SETS[case]
    trainer = short(kind)
    with pytest.raises(error, match=message):
        trainer.fit(blobs.X, blobs.y, eval_set=change(blobs.X, blobs.y))
    assert vars(trainer) == vars(short(kind))


# --- no hidden state ------------------------------------------------------------------------------


@every_trainer
def test_equal_seeds_give_equal_bits_and_global_generators_are_left_alone(kind, blobs, images):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    test = blobs.X, blobs.truth
    first = short(kind, filter=quick()).fit(blobs.X, blobs.y, eval_set=test)
    first.predict(blobs.X)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
    torch.manual_seed(2)
    assert_same_fit(short(kind, filter=quick()).fit(blobs.X, blobs.y, eval_set=test), first, blobs.X)
    other = short(kind, filter=quick(), random_state=1).fit(blobs.X, blobs.y)
    assert not np.array_equal(other.scores_, first.scores_)
    used = first.set_params(filter=None).fit(images.X, images.y)
    fresh = short(kind).fit(images.X, images.y)
    assert_same_fit(used, fresh, images.X)
    assert sorted(vars(used)) == sorted(vars(fresh))


@every_trainer
def test_fit_changes_neither_parameters_nor_data_nor_the_clone(kind, blobs):
    fitted = short(kind)
    before = copy.deepcopy(fitted.get_params())
    X, y = blobs.X.copy(), blobs.y.copy()
    fitted.fit(X, y)
    assert fitted.get_params() == before
    assert np.array_equal(X, blobs.X) and np.array_equal(y, blobs.y)
    assert vars(clone(fitted)) == vars(short(kind))


@every_trainer
def test_a_pickle_predicts_the_same_and_holds_no_rows(kind, blobs):
    X, y = np.tile(blobs.X, (20, 100)), np.tile(blobs.y, 20)  # 12 MB
    X[:, 7] = np.arange(len(X))
    fitted = short(kind, max_epochs=1, batch_size=512, filter=quick(max_epochs=1)).fit(X, y)
    data = pickle.dumps(fitted)
    assert len(data) < 4_000_000 < X.nbytes
    again = pickle.loads(data)
    assert_same_fit(again, fitted, X[:50])


@every_trainer
def test_a_pickle_leaves_all_tensors_to_skorch(kind, blobs):
    """Skorch moves them to a device at hand."""
    fitted = short(kind).fit(blobs.X, blobs.y)
    found = []

    class Watching(pickle.Pickler):
        def reducer_override(self, part):
            if isinstance(part, torch.Tensor):
                found.append(tuple(part.shape))
            return NotImplemented

    Watching(io.BytesIO()).dump(fitted)
    assert not found


def test_later_rows_go_where_the_networks_are(blobs, monkeypatch):
    fitted = short().fit(blobs.X, blobs.y)
    probs = fitted.predict_proba(blobs.X)
    monkeypatch.setattr("noisefilter.trainer.choose_device", lambda device: torch.device("meta"))
    assert np.array_equal(fitted.predict_proba(blobs.X), probs)
    # As after reading a pickle from a machine that has this device.
    fitted._fitted = fitted._fitted._replace(device=torch.device("cuda", 99))
    assert np.array_equal(fitted.predict_proba(blobs.X), probs)


@pytest.mark.parametrize("kind", TRAINERS[1:], ids=lambda kind: kind.__name__)
def test_the_training_rows_alone_decide_how_later_rows_are_computed(kind, blobs, monkeypatch):
    measured = []

    def choose(self, rows):
        measured.append(len(rows))
        self.bfloat16_inference_ = False

    monkeypatch.setattr(Net, "_choose_inference", choose)
    fitted = short(kind).fit(blobs.X, blobs.y, eval_set=(blobs.X[:50], blobs.truth[:50]))
    fitted.predict_proba(blobs.X[:1])
    assert set(measured) == {300}


@every_trainer
def test_a_fit_that_fails_leaves_everything_as_it_was(kind, blobs):
    for trainer in (short(kind), short(kind).fit(pd.DataFrame(blobs.X, columns=list("abcde")), blobs.y)):
        before = dict(vars(trainer))
        for X, y, error in (
            (blobs.X[:, :0], blobs.y, InputError),
            (blobs.X, blobs.y[:-1], InputError),
            (blobs.X, np.zeros(300), LabelError),
            (blobs.X, None, LabelError),
        ):
            with pytest.raises(error):
                trainer.fit(X, y)
            assert vars(trainer) == before
        trainer.lr = 1e30
        with pytest.raises(TrainingDivergedError, match="The training loss must stay finite"):
            trainer.fit(blobs.X, blobs.y)
        del before["lr"], trainer.lr
        assert vars(trainer) == before


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"network": torch.nn.Linear(2, 2)}, "network must be a class, got an object of type Linear"),
        ({"max_epochs": 0}, "max_epochs must be a whole number of at least 1, got 0"),
        ({"split_epochs": 0.5}, "split_epochs must be a whole number of at least 1, got 0.5"),
        ({"channels": "middle"}, "channels must be 'first', 'last' or None, got 'middle'"),
        ({"checkpoint_dir": 3}, "checkpoint_dir must be a path or None, got 3"),
        ({"device": "abacus"}, "device must be 'auto' or a device that torch has"),
        ({"random_state": "dice"}, "random_state must be an int, a RandomState or None, got 'dice'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@every_trainer
def test_bad_parameters(kind, blobs, parameters, message):
    with pytest.raises(ParameterError, match=f"^{message}"):
        short(kind, **parameters).fit(blobs.X, blobs.y)


# --- what a training tells ------------------------------------------------------------------------


class TellingTraining(PlainTraining):
    """Records numbers of every kind, and finds strangers."""

    loss = 0.5

    def run_epoch(self, epoch, bar):
        super().run_epoch(epoch, bar)
        ends = epoch == 1
        self.n_epochs = 2 if ends else self.n_epochs
        return {"threshold": np.float32(np.nan), "loss": self.loss, "n": torch.tensor(3), "rule": "mixture"}

    def judged(self):
        strangers = np.arange(len(self.codes)) % 4 == 0
        clean = np.arange(len(self.codes)) % 2 == 1
        return (
            super()
            .judged()
            ._replace(
                strangers=strangers,
                transition=TRANSITION,
                clean=clean,
                clean_proba=clean * 0.75,
                threshold=0.25,
            )
        )


class Telling(Plain):
    training = TellingTraining


def test_records_are_plain_and_a_training_may_end_early(blobs):
    fitted = short(Telling, max_epochs=9).fit(blobs.X, blobs.y)
    expected = [
        {"epoch": epoch, "threshold": None, "loss": 0.5, "n": 3, "rule": "mixture"} for epoch in (1, 2)
    ]
    assert fitted.history_ == expected and type(fitted.history_[0]["n"]) is int
    verdict = fitted.verdict_
    assert verdict.open_set and verdict.method == "Telling" and verdict.threshold == 0.25
    assert (verdict.partition[::4] == OOD_NOISE).all() and (verdict.partition[1::2] == CLEAN).all()
    assert fitted.id_mask_[2::4].all() and np.array_equal(
        fitted.verdict_.clean_proba, fitted.clean_mask_ * 0.75
    )
    _, first = np.unique(blobs.y, return_index=True)
    codes = np.argsort(np.argsort(first))
    assert verdict.transition_matrix[0, 1] == TRANSITION[codes[0], codes[1]]


def test_a_loss_that_is_not_finite_is_an_error(blobs, monkeypatch):
    monkeypatch.setattr(TellingTraining, "loss", float("inf"))
    with pytest.raises(TrainingDivergedError, match="training loss must stay finite, got inf in epoch 1"):
        short(Telling).fit(blobs.X, blobs.y)


def test_the_progress_bar_has_a_short_line(blobs, capsys, monkeypatch):
    told, own = [], Progress.tell
    monkeypatch.setattr(Progress, "tell", lambda self, *args: told.append(args) or own(self, *args))
    short(max_epochs=2, verbose=1).fit(blobs.X, blobs.y, eval_set=(blobs.X, blobs.truth))
    assert [left for _, left in told] == [17, 0]
    assert re.fullmatch(r"epoch 2/2, loss \d\.\d+, labeled 300, test \d+\.\d%", told[1][0])
    capsys.readouterr()
    short(max_epochs=2).fit(blobs.X, blobs.y)
    assert capsys.readouterr() == ("", "")


def test_sizes_of_sets_are_told_together():
    record = {"epoch": 3, "phase": "mixmatch", "loss": 0.4321, "labeled_loss": 0.3, "n_labeled_1": 12345,
              "n_labeled_2": 99, "changed_1": 5, "lr": 0.05, "test_accuracy": 0.8765}  # fmt: skip
    assert _told(record, 60) == "epoch 3/60, mixmatch, loss 0.432, labeled 12,345/99, test 87.6%"
    record = {"epoch": 1, "phase": "joint", "loss": None, "n_clean": 7, "n_id": 2, "n_ood": 0}
    assert _told(record, 2) == "epoch 1/2, joint, clean 7, id 2, ood 0"


@every_trainer
def test_the_bar_is_full_in_the_end(kind, blobs, monkeypatch):
    """What steps cost and what epochs were said to cost is the same, as far as it can be known."""
    bars, init = [], Progress.__init__
    monkeypatch.setattr(
        Progress, "__init__", lambda self, *a, **b: bars.append((self, a[1])) or init(self, *a, **b)
    )
    short(kind, max_epochs=6, filter=quick()).fit(blobs.X, blobs.y)
    bar, foreseen = bars[-1]
    assert bar.done == pytest.approx(bar.total) == pytest.approx(foreseen, rel=0.35)


# --- the networks ---------------------------------------------------------------------------------


@every_trainer
@pytest.mark.parametrize("data", ["blobs", "images"])
def test_weights_can_be_stored_and_loaded_without_pickle(kind, data, request, tmp_path):
    """What the trainer predicts is what other networks say that were given the weights alone."""
    X, y, *_ = request.getfixturevalue(data)
    fitted = short(kind).fit(X, np.array(["c", "a", "b"])[y])
    rows = torch.from_numpy(X if data == "blobs" else X[:, None])
    n_classes = len(fitted.classes_)
    logits = []
    for number, network in enumerate(fitted.networks_):
        assert not network.training
        save_model(network, tmp_path / f"{number}.safetensors")
        other = MLP(5, n_classes) if data == "blobs" else SmallCNN(1, n_classes, 8)
        load_model(other, tmp_path / f"{number}.safetensors")
        with torch.inference_mode():
            logits.append(other.eval()(rows))
    probs = torch.stack(logits).mean(0).softmax(1).double().numpy()
    if kind is JoSRCClassifier:
        probs = unsmoothed(probs, fitted.eps_target)
    columns = [fitted.network_classes_.tolist().index(label) for label in fitted.classes_]
    np.testing.assert_allclose(fitted.predict_proba(X), probs[:, columns], atol=0.01)  # bfloat16
    again = pickle.loads(pickle.dumps(fitted))
    assert len(again.networks_) == len(fitted.networks_) == len(logits)


@every_trainer
def test_there_are_no_networks_before_fit(kind):
    for name in ("networks_", "network_classes_"):
        with pytest.raises(AttributeError, match=f"{kind.__name__} has no verdict before fit"):
            getattr(short(kind), name)


def test_networks_are_those_that_predict():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(80, 5)).astype(np.float32), np.arange(80) % 2
    teacher, student = (
        short(JoSRCClassifier, predict_with=which, eps_target=0.0).fit(X, y)
        for which in ("teacher", "student")
    )
    for model in (teacher, student):
        with torch.inference_mode():
            probs = model.networks_[0](torch.from_numpy(X)).softmax(1).numpy()
        np.testing.assert_allclose(model.predict_proba(X), probs, atol=1e-4)
    assert not np.array_equal(teacher.predict_proba(X), student.predict_proba(X))


# --- interrupts -----------------------------------------------------------------------------------


def interrupted(kind, monkeypatch, epoch, **parameters):
    """Make a trainer that is interrupted in the middle of this epoch, counted from 1."""
    begin = kind._begin

    def _begin(self, *arguments):
        training = begin(self, *arguments)
        run_epoch = training.run_epoch

        class Bar:
            def step(self, cost=1.0):
                raise KeyboardInterrupt

        training.run_epoch = lambda number, bar: run_epoch(number, Bar() if number + 1 == epoch else bar)
        return training

    monkeypatch.setattr(kind, "_begin", _begin)
    return short(kind, **parameters)


@every_trainer
def test_an_interrupt_leaves_a_classifier(kind, blobs, monkeypatch):
    trainer = interrupted(kind, monkeypatch, 3, max_epochs=5)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(blobs.X, blobs.y, eval_set=(blobs.X, blobs.truth))
    assert [record["epoch"] for record in trainer.history_] == [1, 2]
    assert len(trainer.verdict_) == 300 and isinstance(trainer.verdict_, Verdict)
    assert trainer.score(blobs.X, blobs.truth) > 0.5
    assert trainer.eval_report_["last"] == trainer.history_[-1]["test_accuracy"]
    monkeypatch.undo()
    trainer._fitted.training.__dict__.pop("run_epoch", None)  # the test's own
    assert np.array_equal(pickle.loads(pickle.dumps(trainer)).scores_, trainer.scores_)


@every_trainer
def test_an_interrupt_in_the_first_epoch_leaves_nothing(kind, blobs, monkeypatch):
    trainer = interrupted(kind, monkeypatch, 1)
    before = dict(vars(trainer))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(blobs.X, blobs.y)
    assert vars(trainer) == before


# --- checkpoints ----------------------------------------------------------------------------------


@every_trainer
@pytest.mark.parametrize("random_state", [0, None], ids=["seed", "no seed"])
def test_an_interrupted_run_is_taken_up_again_with_the_same_bits(
    kind, blobs, monkeypatch, tmp_path, random_state
):
    given = {"max_epochs": 5, "filter": quick(random_state=None), "random_state": random_state}
    test = blobs.X, blobs.truth
    trainer = interrupted(kind, monkeypatch, 4, checkpoint_dir=tmp_path, **given)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(blobs.X, blobs.y, eval_set=test)
    monkeypatch.undo()
    monkeypatch.setattr(SmallLossSelector, "fit", None)  # its verdict is in the checkpoint
    resumed = short(kind, checkpoint_dir=str(tmp_path), verbose=0, **given)
    resumed.fit(
        blobs.X,
        np.array(["c", "a", "b"])[blobs.y],
        eval_set=(blobs.X, np.array(["c", "a", "b"])[blobs.truth]),
    )
    assert len(resumed.history_) == 5 and resumed.history_[:3] == trainer.history_
    assert np.array_equal(resumed.given_verdict_.scores, trainer.given_verdict_.scores)
    read = short(kind, checkpoint_dir=tmp_path, **given).fit(blobs.X, blobs.y, eval_set=test)
    assert read.history_ == resumed.history_ and np.array_equal(read.scores_, resumed.scores_)
    if random_state is not None:
        monkeypatch.undo()
        whole = short(kind, **given).fit(blobs.X, blobs.y, eval_set=test)
        assert_same_fit(whole, read, blobs.X)
        assert_same_verdict(whole.given_verdict_, read.given_verdict_)


@every_trainer
def test_a_run_without_a_seed_keeps_the_one_it_drew(kind, blobs, monkeypatch, tmp_path):
    trainer = interrupted(kind, monkeypatch, 3, max_epochs=4, random_state=None, checkpoint_dir=tmp_path)
    monkeypatch.setattr(kind, "_seed", lambda self: 11)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(blobs.X, blobs.y)
    monkeypatch.undo()
    monkeypatch.setattr(kind, "_seed", lambda self: 99)
    resumed = clone(trainer).fit(blobs.X, blobs.y)
    monkeypatch.setattr(kind, "_seed", lambda self: 11)
    whole = clone(trainer).set_params(checkpoint_dir=None).fit(blobs.X, blobs.y)
    assert_same_fit(resumed, whole, blobs.X)


@every_trainer
def test_another_training_is_not_taken_up(kind, blobs, tmp_path):
    short(kind, checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    X, y = blobs.X.copy(), blobs.y.copy()
    X[17, 2] += 1e-3
    y[17] = (y[17] + 1) % 3
    carried = quick().fit_transform(blobs.X, blobs.y)
    cases = {
        "max_epochs was 3, is 4": ({"max_epochs": 4}, blobs.X, blobs.y, {}),
        "random_state was 0, is 1": ({"random_state": 1}, blobs.X, blobs.y, {}),
        "filter was null, is": ({"filter": quick()}, blobs.X, blobs.y, {}),
        "X was": ({}, X, blobs.y, {}),
        "y was": ({}, blobs.X, y, {}),
        "features was null, is": ({}, blobs.X, blobs.y, {"features": X}),
        "verdict carried by X was null, is": ({}, carried, blobs.y, {}),
        "eval_set was null, is": ({}, blobs.X, blobs.y, {"eval_set": (X, y)}),
    }
    for message, (parameters, rows, labels, more) in cases.items():
        with pytest.raises(ParameterError, match=message):
            short(kind, checkpoint_dir=tmp_path, **parameters).fit(rows, labels, **more)


def test_what_changes_no_bit_makes_no_other_training(blobs, tmp_path, monkeypatch):
    fitted = short(checkpoint_dir=tmp_path, filter=quick()).fit(blobs.X, blobs.y)
    loud = quick(verbose=1, device="cpu", keep_signals=False)
    read = short(checkpoint_dir=tmp_path, filter=loud, verbose=1, device="cpu").fit(blobs.X, blobs.y)
    assert_same_fit(read, fitted, blobs.X)
    monkeypatch.setattr("noisefilter.trainer.__version__", "0.0.0")
    with pytest.raises(ParameterError, match=r'noisefilter was "\d+\.\d+\.\d+", is "0.0.0"'):
        short(checkpoint_dir=tmp_path, filter=quick()).fit(blobs.X, blobs.y)


@every_trainer
def test_callbacks_that_remember_are_refused_before_anything_is_trained(kind, blobs, tmp_path):
    remembering = Net(MLP, module__n_inputs=5, module__n_classes=3, callbacks=[("rate", LRScheduler())])
    message = "^estimator.callbacks must be without memory of their own with checkpoint_dir, got LRScheduler"
    trainer = kind(remembering, checkpoint_dir=tmp_path / "new", filter=quick(), random_state=0)
    with pytest.raises(ParameterError, match=message):
        trainer.fit(blobs.X, blobs.y)
    assert not (tmp_path / "new").exists()


@every_trainer
def test_a_prototype_s_own_device_is_not_read(kind, blobs):
    fits = [
        kind(
            Net(MLP, module__n_inputs=5, module__n_classes=3, max_epochs=2, device=device),
            device="cpu", random_state=0,
        ).fit(blobs.X, blobs.y)
        for device in ("cpu", "cuda:7")
    ]  # fmt: skip
    assert_same_fit(*fits, blobs.X)


@every_trainer
def test_callbacks_that_put_back_earlier_weights_are_refused(kind, blobs):
    stopping = EarlyStopping("train_loss", patience=1, load_best=True)
    net = Net(MLP, module__n_inputs=5, module__n_classes=3, callbacks=[("stop", stopping)])
    message = r"^estimator.callbacks must leave the networks as .* got EarlyStopping\(load_best=True\)\."
    with pytest.raises(ParameterError, match=message):
        kind(net, random_state=0).fit(blobs.X, blobs.y)
    net.set_params(callbacks__stop__load_best=False, max_epochs=1)
    assert len(kind(net, random_state=0).fit(blobs.X, blobs.y).history_) == 1


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import numpy as np
from test_trainer import Plain

class Bar:
    def step(self, cost=1.0):
        os.kill(os.getpid(), signal.SIGKILL)

class Killed(Plain):
    def _begin(self, *arguments):
        training = super()._begin(*arguments)
        run = training.run_epoch
        training.run_epoch = lambda epoch, bar: run(epoch, Bar() if epoch == 3 else bar)
        return training

Killed.__module__, Killed.__qualname__ = {module!r}, "Plain"
X, y = np.load({data!r})["X"], np.load({data!r})["y"]
Killed(max_epochs=5, random_state=0, checkpoint_dir={checkpoints!r}).fit(X, y)
"""


def test_a_killed_process_is_taken_up_again_with_the_same_bits(blobs, tmp_path):
    data, checkpoints = str(tmp_path / "data.npz"), str(tmp_path / "checkpoints")
    np.savez(data, X=blobs.X, y=blobs.y)
    folder = str(Path(__file__).parent)
    code = KILLED.format(folder=folder, module=Plain.__module__, data=data, checkpoints=checkpoints)
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    epochs = []

    class Watching(PlainTraining):
        def run_epoch(self, epoch, bar):
            epochs.append(epoch)
            return super().run_epoch(epoch, bar)

    resumed = short(max_epochs=5, checkpoint_dir=checkpoints)
    resumed.training = Watching  # not a parameter: this is the same training
    resumed.fit(blobs.X, blobs.y)
    assert epochs == [3, 4]
    assert_same_fit(resumed, short(max_epochs=5).fit(blobs.X, blobs.y), blobs.X)
