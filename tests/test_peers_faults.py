"""Faults of other libraries, most of them silent, each as a test that ours has not.

What a comment says of cleanlab 2.9.0, skorch 1.4.0 or imbalanced-learn 0.14.2 was run, with scikit-learn 1.9.
Three of these faults have their tests elsewhere: duplicates among neighbors in `test_neighbors.py`
(`test_duplicates_are_neighbors_but_never_oneself`) and in every law `test_duplicate_rows_are_judged`; a
class missing from a fold in `test_a_class_missing_from_a_fold` (`test_laws.py`) and
`test_a_grid_search_and_a_fold_without_a_class` (`test_trainer.py`); refused module instances in
`test_a_module_that_is_an_instance` (`test_refusals.py`).
"""

import inspect
import random
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

import noisefilter
from noisefilter import FilteredClassifier, FilterSampler, SmallLossSelector, VoteFilter
from noisefilter.base import BaseFilter
from noisefilter.networks import MLP
from noisefilter.trainer import BaseTrainer

PUBLIC = [getattr(noisefilter, name) for name in noisefilter.__all__]
ESTIMATORS = [kind for kind in PUBLIC if inspect.isclass(kind) and issubclass(kind, BaseEstimator)]
TRAINING = [kind for kind in ESTIMATORS if issubclass(kind, BaseFilter | BaseTrainer)]
JUDGES = [*TRAINING, VoteFilter, FilteredClassifier]
CLASSIFIERS = [kind for kind in JUDGES if hasattr(kind, "predict")]

X, TRUTH = make_blobs(81, n_features=4, centers=3, random_state=0)
X = X.astype(np.float32)
Y = np.where(np.arange(81) % 9 == 0, (TRUTH + 1) % 3, TRUTH)


def quick():
    return SmallLossSelector(max_epochs=2, random_state=0)


def short(kind, **parameters):
    """Make an estimator that trains for a moment."""
    if kind is VoteFilter:
        return kind([("one", quick()), ("other", quick().set_params(random_state=1))], random_state=0)
    if kind is FilteredClassifier:
        return kind(quick(), LogisticRegression())
    at_once = {"warmup_epochs": 1, "least_epochs": 0}  # few epochs alone would end in plain training
    own = {name: value for name, value in at_once.items() if name in kind().get_params()}
    return kind(**{"max_epochs": 2, "random_state": 0} | own | parameters)


@cache
def fitted(kind):
    """Fit it once; whoever asks only reads it."""
    return short(kind).fit(X, Y)


def ids(kind):
    return kind.__name__


pytestmark = pytest.mark.filterwarnings("ignore:max_epochs must leave", "ignore:There must be at least 3")
every_judge = pytest.mark.parametrize("kind", JUDGES, ids=ids)
every_training = pytest.mark.parametrize("kind", TRAINING, ids=ids)


# imbalanced-learn's InstanceHardnessThreshold crashes with {1, 2, 3}, {0, 2, 5} and texts, and removes other
# rows with {-1, 0, 1} than with {0, 1, 2}: none of 300 instead of 15, without a word. cleanlab and skorch
# raise an error for all four, most often one of the indices that they take labels for.
@pytest.mark.parametrize("names", [[-1, 0, 1], [1, 2, 3], [0, 2, 5], ["ant", "bee", "cat"]], ids=str)
@every_judge
def test_labels_that_do_not_count_from_zero(kind, names):
    names = np.array(names)
    plain, renamed = fitted(kind), short(kind).fit(X, names[Y])
    assert np.array_equal(plain.verdict_.scores, renamed.verdict_.scores)
    assert np.array_equal(plain.verdict_.partition, renamed.verdict_.partition)
    assert np.array_equal(names[plain.verdict_.suggested_labels], renamed.verdict_.suggested_labels)
    assert np.array_equal(renamed.classes_, names)
    if kind in CLASSIFIERS:
        assert np.array_equal(names[plain.predict(X)], renamed.predict(X))
        assert np.array_equal(plain.predict_proba(X), renamed.predict_proba(X))


# cleanlab's CleanLearning trains the caller's own classifier. skorch with a module that is an instance: the
# clone of a fitted network, itself never trained, is right on all of 300 rows.
@every_judge
def test_a_clone_of_a_used_object_knows_nothing(kind):
    again = clone(fitted(kind))
    assert repr(again) == repr(short(kind)) and not hasattr(again, "verdict_")
    verdict = again.fit(X, Y).verdict_
    assert np.array_equal(verdict.scores, fitted(kind).verdict_.scores)
    assert np.array_equal(verdict.partition, fitted(kind).verdict_.partition)


def test_what_was_handed_over_is_not_trained():
    filter, classifier = quick(), LogisticRegression()
    FilteredClassifier(filter, classifier).fit(X, Y)
    FilterSampler(filter).fit_resample(X, Y)
    assert not hasattr(filter, "verdict_") and not hasattr(classifier, "coef_")


# As above: what a skorch network has learned goes with it into every fold.
@every_training
def test_a_prototype_that_was_trained_before_leaks_nothing(kind):
    sizes = {"module__n_inputs": 4, "module__n_classes": 3, "criterion": nn.CrossEntropyLoss}
    prototype = NeuralNetClassifier(MLP, **sizes, max_epochs=2, lr=0.05, verbose=0, train_split=None)
    fresh = kind(clone(prototype), random_state=0).fit(X, Y)
    prototype.fit(X, TRUTH)
    weights = [w.detach().clone() for w in prototype.module_.parameters()]
    used = kind(prototype, random_state=0).fit(X, Y)
    assert np.array_equal(used.scores_, fresh.scores_)
    assert all(map(torch.equal, weights, prototype.module_.parameters()))


# skorch seeds nothing and draws from torch's global generator.
@every_judge
def test_global_generators_neither_move_nor_matter(kind):
    def state():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002
    before = state()
    scores = short(kind).fit(X, Y).verdict_.scores
    assert state() == before
    assert np.array_equal(scores, fitted(kind).verdict_.scores)


class Normalized(nn.Module):
    """Statistics of a batch need two rows in training."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n_inputs, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.head = nn.Linear(8, n_classes)

    def forward(self, x):
        return self.head(self.body(x))


# skorch: "Expected more than 1 value per channel when training". The aum package squeezes the batch away.
@every_training
def test_a_last_batch_of_one_row_and_a_network_that_needs_two(kind):
    estimator = short(kind, network=Normalized, batch_size=8).fit(X, Y)
    assert np.isfinite(estimator.scores_).all() and len(estimator.verdict_) == 81


# imbalanced-learn's sample_indices_ are in the order of classes, and its Pipeline hands on the weights of all
# rows to a classifier that gets some of them; cleanlab cannot cut a list.
def test_weights_go_with_the_rows_that_are_dropped():
    class Watching(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            self.seen_ = X, np.asarray(sample_weight)
            return super().fit(X, y, sample_weight)

    weights = np.arange(1.0, 82.0)
    filter = quick().set_params(split="keep", keep=0.8)
    sampler = FilterSampler(filter)
    sampler.fit_resample(X, Y)
    assert np.array_equal(sampler.sample_indices_, np.flatnonzero(sampler.verdict_.clean_mask))
    for given in (weights, weights.tolist()):
        model = FilteredClassifier(filter, Watching()).fit(X, Y, sample_weight=given)
        rows, cut = model.classifier_.seen_
        kept = model.verdict_.clean_mask
        assert 0 < kept.sum() < 81
        assert np.array_equal(rows, X[kept]) and np.array_equal(cut, weights[kept])


# cleanlab's CleanLearning as the last step, scikit-learn 1.9: "This Pipeline instance is not fitted yet".
@pytest.mark.parametrize("kind", CLASSIFIERS, ids=ids)
def test_a_pipeline_predicts_after_fit(kind):
    pipeline = make_pipeline(StandardScaler(), short(kind)).fit(X, Y)
    assert np.array_equal(pipeline.classes_[pipeline.predict_proba(X).argmax(axis=1)], pipeline.predict(X))
    assert pipeline.score(X, TRUTH) == np.mean(pipeline.predict(X) == TRUTH)


@pytest.mark.parametrize("kind", [kind for kind in JUDGES if hasattr(kind, "transform")], ids=ids)
def test_a_pipeline_behind_a_filter_predicts_after_fit(kind):
    pipeline = make_pipeline(StandardScaler(), short(kind), LogisticRegression()).fit(X, Y)
    assert pipeline.score(X, TRUTH) > 0.8
