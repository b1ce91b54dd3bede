"""What every public filter and trainer refuses, and what uses them: in one sentence, and nothing is changed.

The cases of `test_bad_input.py` are more, and of one filter; here are those of each kind for all of them.
"""

import inspect

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch import nn

import noisefilter
from noisefilter import (
    FilteredClassifier,
    FilterSampler,
    Net,
    SCANClusterer,
    SimCLR,
    SmallLossSelector,
    VoteFilter,
)
from noisefilter.base import BaseFilter
from noisefilter.errors import NoiseFilterError, ParameterError, TrainingDivergedError
from noisefilter.networks import MLP
from noisefilter.trainer import BaseTrainer

PUBLIC = [getattr(noisefilter, name) for name in noisefilter.__all__]
ESTIMATORS = [kind for kind in PUBLIC if inspect.isclass(kind) and issubclass(kind, BaseEstimator)]
TRAINING = [kind for kind in ESTIMATORS if issubclass(kind, BaseFilter | BaseTrainer)]
# They look for no wrong labels: a network, and what learns without labels.
OTHERS = (Net, SCANClusterer, SimCLR)

N = 40
X = np.random.default_rng(0).normal(size=(N, 4)).astype(np.float32)
Y = np.arange(N) % 3
SIZES = {"module__n_inputs": 4, "module__n_classes": 3, "criterion": nn.CrossEntropyLoss, "verbose": 0}


def quick():
    return SmallLossSelector(max_epochs=1, random_state=0)


def made(kind, **parameters):
    """Make an estimator that would train for a moment."""
    built = {
        FilteredClassifier: lambda: kind(quick(), LogisticRegression()),
        FilterSampler: lambda: kind(quick()),
        VoteFilter: lambda: kind([("one", quick()), ("other", quick())], random_state=0),
    }
    return built[kind]() if kind in built else kind(**{"max_epochs": 1, "random_state": 0} | parameters)


def fit(estimator, *args):
    return estimator.fit_resample(*args) if isinstance(estimator, FilterSampler) else estimator.fit(*args)


@pytest.fixture(scope="module")
def used():
    """Fit one of each kind, once; what is refused must leave it as it is."""
    estimators = {}

    def used(kind):
        if kind not in estimators:
            estimators[kind] = made(kind)
            fit(estimators[kind], X[:, :2], Y)
        return estimators[kind]

    return used


def refused(estimator, error, message, *args):
    before = dict(vars(estimator))
    with pytest.raises(error, match=message) as caught:
        fit(estimator, *args)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 300
    assert vars(estimator) == before


def changed(place, value):
    rows = X.copy()
    rows[place] = value
    return rows


BAD = {
    "NaN": (changed((3, 2), np.nan), Y, NoiseFilterError, "^X must be finite, got NaN in column 2"),
    "infinity": (changed((3, 1), np.inf), Y, NoiseFilterError, "^X must be finite, got infinity"),
    "sparse": (scipy.sparse.csr_array(X), Y, TypeError, "^Sparse data was passed for X"),
    "one axis": (X[:, 0], Y, NoiseFilterError, "^X must be at least 2-D"),
    "no rows": (X[:0], Y, NoiseFilterError, "^X and y must have the same length, got 0 rows"),
    "fewer labels": (X, Y[:-1], NoiseFilterError, "^X and y must have the same length, got 40 rows"),
    "no labels": (X, None, NoiseFilterError, "requires y to be passed"),
    "one class": (X, np.full(N, "cat"), NoiseFilterError, "^y must have at least two classes, got 1 class"),
    "continuous": (X, X[:, 0].astype(float), NoiseFilterError, "^y must hold class labels.*continuous"),
    "multilabel": (X, np.eye(3, dtype=int)[Y], NoiseFilterError, r"^y must be a 1-D array.*\(40, 3\)"),
    "missing": (X, np.where(Y == 1, np.nan, Y), NoiseFilterError, "^y must have a label in every row"),
}  # fmt: skip


def test_every_estimator_is_asked():
    """A new public class is a filter or a trainer, or has to be thought of here."""
    thought_of = {FilteredClassifier, FilterSampler, VoteFilter, *OTHERS}
    assert set(ESTIMATORS) - set(TRAINING) == thought_of


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize(
    "kind", [kind for kind in ESTIMATORS if kind not in OTHERS], ids=lambda kind: kind.__name__
)
def test_bad_rows_and_labels(kind, case, used):
    rows, labels, error, message = BAD[case]
    for estimator in (made(kind), used(kind)):
        refused(estimator, error, message, rows, labels)


every_training = pytest.mark.parametrize("kind", TRAINING, ids=lambda kind: kind.__name__)


@every_training
@pytest.mark.parametrize("prototype", [NeuralNetClassifier, Net])
def test_a_module_that_is_an_instance(kind, prototype):
    """It would carry what it has learned from fold to fold, through every clone."""
    message = "^estimator.module must be a class, got an instance of MLP"
    refused(kind(prototype(MLP(4, 3), verbose=0)), ParameterError, message, X, Y)
    refused(
        kind(network=MLP(4, 3)), ParameterError, "^network must be a class, got an object of type MLP", X, Y
    )


@every_training
@pytest.mark.parametrize(
    ("name", "value"), [("max_epochs", 3), ("batch_size", 8), ("lr", 0.1), ("network", MLP)]
)
def test_a_prototype_and_what_it_has_of_its_own(kind, name, value):
    estimator = kind(NeuralNetClassifier(MLP, **SIZES), **{name: value})
    refused(estimator, ParameterError, f"^{name} must be None when an estimator is given", X, Y)


@every_training
def test_a_callback_that_needs_rows_held_out(kind):
    stopping = EarlyStopping(monitor="valid_loss")
    estimator = kind(NeuralNetClassifier(MLP, **SIZES, callbacks=[stopping]))
    message = "^estimator.callbacks must not monitor validation scores, got EarlyStopping"
    refused(estimator, ParameterError, message, X, Y)


@every_training
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
def test_a_training_that_diverges(kind, used):
    message = "^The training loss must stay finite"
    refused(made(kind, max_epochs=3, lr=1e30), TrainingDivergedError, message, X, Y)


@every_training
def test_nothing_but_rows_labels_and_where_to_look_for_neighbors_is_taken(kind):
    """A filter judges all rows, whatever they weigh."""
    names = list(inspect.signature(kind.fit).parameters)
    assert names[:4] == ["self", "X", "y", "features"] and "sample_weight" not in names


@every_training
def test_a_class_of_one_row_is_judged(kind):
    """It is a prime suspect, and no error."""
    y = Y.copy()
    y[7] = 9
    fitted = made(kind).fit(X, y)
    assert fitted.classes_.tolist() == [0, 1, 2, 9] and len(fitted.verdict_) == N
