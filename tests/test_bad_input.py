"""What bad input gets: one sentence that names what is wrong, and nothing half-written left behind."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch import nn

from noisefilter import FilteredClassifier, FilterSampler, INNScorer, Signals
from noisefilter.errors import (
    InputError,
    InputTypeError,
    LabelError,
    NoiseFilterError,
    ParameterError,
    TrainingDivergedError,
)
from noisefilter.networks import MLP, SmallCNN

N = 40
TABLE = np.random.default_rng(0).normal(size=(N, 4))
PHOTOS = np.random.default_rng(0).uniform(size=(N, 8, 8)).astype(np.float32)
Y = np.arange(N) % 3


def holed(X, place, value):
    X = X.copy()
    X[place] = value
    return X


def objects(images):
    column = np.empty(len(images), dtype=object)
    column[:] = images
    return column


class Broken(nn.Module):
    """Its loss is not a number from the second epoch on."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.head = nn.Linear(n_inputs, n_classes)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.head(x.float()) * (float("nan") if self.calls > 8 else 1)


class Narrow(MLP):
    """Has one output too few."""

    def __init__(self, n_inputs, n_classes):
        super().__init__(n_inputs, n_classes - 1)


class Dataset:
    """A map-style Dataset over whatever it is given."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


COLUMNS = ["age", "height", "weight", "shoe size"]
FRAME = pd.DataFrame(TABLE, columns=COLUMNS)

BAD_X = {
    "NaN": (holed(TABLE, (3, 2), np.nan), InputError, "X must be finite, got NaN in column 2"),
    "infinity": (
        holed(TABLE, (3, 1), -np.inf),
        InputError,
        r"X must be finite, got infinity \(inf\) in column 1",
    ),
    "NaN in a frame": (
        FRAME.mask(FRAME.weight > FRAME.weight.median()).assign(age=1.0),
        InputError,
        "X must be finite, got NaN in column 'height'",
    ),
    "NaN in a frame whose columns are numbers": (
        pd.DataFrame(holed(TABLE, (3, 2), np.nan)),
        InputError,
        r"X must be finite, got NaN in column 2 \(1 rows\)",
    ),
    "masked": (
        np.ma.array(TABLE, mask=TABLE > 2),
        InputError,
        "X must have a value everywhere, got a masked array",
    ),
    "images without pixels": (PHOTOS[:, :0], InputError, "X must have columns"),
    "NaN in an image": (holed(PHOTOS, (7, 2, 2), np.nan), InputError, "X must be finite, got NaN in row 7"),
    "NaN in a tensor": (
        torch.tensor(holed(TABLE, (3, 2), np.nan)),
        InputError,
        "X must be finite, got NaN in column 2",
    ),
    "too few rows": (TABLE[:-1], InputError, "X and y must have the same length, got 39 rows and 40 labels"),
    "too many items": (
        Dataset([*TABLE, TABLE[0]]),
        InputError,
        "X and y must have the same length, got 41 rows",
    ),
    "no rows": (TABLE[:0], InputError, "X and y must have the same length, got 0 rows"),
    "no columns": (TABLE[:, :0], InputError, r"X must have columns, got 0 feature\(s\)"),
    "one axis": (TABLE[:, 0], InputError, r"X must be at least 2-D, got shape \(40,\)"),
    "five axes": (PHOTOS[:, None, None], InputError, r"X must be \(n, d\) rows or \(n, height, width"),
    "sparse matrix": (scipy.sparse.csr_matrix(TABLE), TypeError, "Sparse data was passed for X"),
    "sparse array": (scipy.sparse.coo_array(TABLE), TypeError, "Sparse data was passed for X"),
    "complex": (TABLE + 1j, InputError, "X must be real"),
    "text": (np.full((N, 2), "red"), InputTypeError, "X must be numeric, got dtype <U3"),
    "text in a frame": (FRAME.assign(age="old"), InputTypeError, "X must be numeric"),
    "nothing": (None, InputError, "X must be at least 2-D"),
    "a word": ("photos", InputTypeError, "X must be numeric"),
    "images of different sizes": (
        objects([np.zeros((8 + i % 2, 8)) for i in range(N)]),
        InputError,
        r"X must hold rows of one shape, got shapes \(8, 8\), \(9, 8\)",
    ),
    "a list of images of different sizes": (
        [np.zeros((8 + i % 2, 8)) for i in range(N)],
        InputError,
        "X must hold rows of one shape",
    ),
    "a Dataset of images of different sizes": (
        Dataset([np.zeros((8 + i % 2, 8), np.float32) for i in range(N)]),
        InputError,
        "X must hold items of one shape",
    ),
    "channels on both axes": (
        np.zeros((N, 3, 8, 3), np.uint8),
        InputError,
        r"X must have its channels on axis 1 or last.*channels='first' or channels='last'",
    ),
    "channels on neither axis": (
        np.zeros((N, 8, 8, 8), np.uint8),
        InputError,
        r"X must have its channels on axis 1 or last.*channels='first' or channels='last'",
    ),
}

BAD_Y = {
    "too few": (Y[:-1], InputError, "X and y must have the same length, got 40 rows and 39 labels"),
    "none at all": (None, LabelError, "This filter requires y to be passed"),
    "empty": ([], LabelError, "y must have labels"),
    "one class": (np.full(N, "cat"), LabelError, "y must have at least two classes, got 1 class: 'cat'"),
    "continuous": (TABLE[:, 0], LabelError, "y must hold class labels.*continuous"),
    "multilabel": (np.eye(3, dtype=int)[Y], LabelError, r"y must be a 1-D array.*\(40, 3\)"),
    "NaN": (
        holed(Y.astype(float), 4, np.nan),
        LabelError,
        r"y must have a label in every row, got 1 missing",
    ),
    "None": (
        objects([None, *"ab" * 19, "a"]),
        LabelError,
        "y must have a label in every row, got 1 missing.*row 0",
    ),
    "pandas NA": (
        pd.Series(["a", pd.NA] * 20),
        LabelError,
        "y must have a label in every row, got 20 missing",
    ),
    "masked": (np.ma.array(Y, mask=Y == 1), LabelError, "y must have a label in every row, got a masked"),
    "complex": (Y + 1j, LabelError, "y must hold class labels.*complex"),
    "infinite": (holed(Y.astype(float), 4, np.inf), LabelError, "y must be finite"),
    "of mixed types": (objects([1, "a"] * 20), LabelError, "y must hold labels of one type, got int, str"),
    "a word": ("abc", LabelError, "y must be a 1-D array"),
}

BAD_FEATURES = {
    "too few rows": (TABLE[:-1], r"features must be numbers of shape \(n, d\), n=40"),
    "no columns": (TABLE[:, :0], r"features must be numbers of shape \(n, d\)"),
    "one axis": (TABLE[:, 0], r"features must be numbers of shape \(n, d\)"),
    "NaN": (holed(TABLE, (3, 2), np.nan), "features must be finite"),
    "text": (np.full((N, 2), "red"), r"features must be numbers of shape \(n, d\)"),
    "sparse": (scipy.sparse.csr_matrix(TABLE), r"features must be numbers of shape \(n, d\)"),
}

NET = {
    "module": MLP,
    "module__n_inputs": 4,
    "module__n_classes": 3,
    "max_epochs": 2,
    "criterion": nn.CrossEntropyLoss,
}
BAD_NETWORKS = {
    "an instance": (
        {"network": MLP(4, 3)},
        ParameterError,
        "network must be a class, got an object of type MLP",
    ),
    "a prototype of an instance": (
        {"estimator": NeuralNetClassifier(MLP(4, 3))},
        ParameterError,
        "estimator.module must be a class, got an instance of MLP",
    ),
    "images only": ({"network": SmallCNN}, ParameterError, "network SmallCNN must be fed images"),
    "loss NaN": (
        {"network": Broken},
        TrainingDivergedError,
        "The training loss must stay finite, got nan in epoch",
    ),
    "loss infinite": ({"lr": 1e30}, TrainingDivergedError, "The training loss must stay finite"),
    "too few outputs": (
        {"network": Narrow},
        NoiseFilterError,
        r".* one output per class \(3\).*2",
    ),
    "too many outputs": (
        {"estimator": NeuralNetClassifier(**NET | {"module__n_classes": 9})},
        NoiseFilterError,
        r".* one output per class \(3\).*9",
    ),
    "validation": (
        {"estimator": NeuralNetClassifier(**NET, callbacks=[EarlyStopping(monitor="valid_loss")])},
        ParameterError,
        "estimator.callbacks must not monitor validation scores, got EarlyStopping",
    ),
}


def refused(fitted, error, message, *args, **kwargs):
    """Fitting fails with one sentence, and leaves nothing that was not there before."""
    before = dict(vars(fitted))
    with pytest.raises(error, match=f"^{message}") as caught:
        fitted.fit(*args, **kwargs)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) < 300
    assert "np." not in sentence  # how numpy writes its scalars
    assert vars(fitted) == before


def fresh_and_fitted(**parameters):
    """A filter that has never been fitted, and one that has, on other rows."""
    names = INNScorer().get_params()
    used = INNScorer(max_epochs=1).fit(pd.DataFrame(TABLE[:, :2], columns=["a", "b"]), Y)
    used.set_params(**dict.fromkeys(("max_epochs", "network", "estimator"))).set_params(**parameters)
    assert used.n_features_in_ == 2 and set(parameters) <= set(names)
    return INNScorer(**parameters), used


@pytest.mark.parametrize("case", BAD_X)
def test_bad_rows(case):
    X, error, message = BAD_X[case]
    for scorer in fresh_and_fitted(max_epochs=1):
        refused(scorer, error, message, X, Y)


@pytest.mark.parametrize("case", BAD_Y)
def test_bad_labels(case):
    y, error, message = BAD_Y[case]
    for scorer in fresh_and_fitted(max_epochs=1):
        refused(scorer, error, message, TABLE, y)


@pytest.mark.parametrize("case", BAD_FEATURES)
def test_bad_features(case):
    features, message = BAD_FEATURES[case]
    for scorer in fresh_and_fitted(max_epochs=1):
        refused(scorer, InputError, message, TABLE, Y, features=features)


@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
@pytest.mark.parametrize("case", BAD_NETWORKS)
def test_bad_networks(case):
    parameters, error, message = BAD_NETWORKS[case]
    for scorer in fresh_and_fitted(**parameters):
        refused(scorer, error, message, TABLE, Y)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(2500, 4), (2500, 4, 4)])
def test_bad_numbers_on_disk_are_found_before_training(tmp_path, shape, value):
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, shape)
    where = "column 0, row 2100" if len(shape) == 2 else "row 2100"
    X[2100, 0] = value
    refused(
        INNScorer(), InputError, f"X must be finite, got NaN or infinity in {where}", X, np.arange(2500) % 2
    )


def test_bad_numbers_in_a_dataset_are_found_before_a_classifier_sees_them():
    items = Dataset(holed(TABLE, (3, 2), np.nan).astype(np.float32))
    message = "X must be finite, got NaN or infinity in row 3"
    refused(INNScorer(LogisticRegression()), InputError, message, items, Y)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_new_rows_of_another_kind():
    scorer = INNScorer(max_epochs=1).fit(FRAME, Y)
    for method in (scorer.transform, lambda X: scorer.score_new(X, Y)):
        with pytest.raises(ValueError, match="X has 3 features, but INNScorer is expecting 4"):
            method(TABLE[:, :3])
        with pytest.raises(ValueError, match="The feature names should match"):
            method(FRAME[COLUMNS[::-1]])
        with pytest.raises(InputError, match="X must be finite, got NaN in column 2"):
            method(holed(TABLE, (3, 2), np.nan))
        with pytest.raises(TypeError, match="Sparse data was passed for X"):
            method(scipy.sparse.csr_matrix(TABLE))
    for y in (None, 0, Y[:, None], [[1, 2]]):
        with pytest.raises(LabelError, match=r"^y must be a 1-D array with one label per row"):
            scorer.score_new(TABLE, y)
    with pytest.raises(InputError, match=r"X must hold rows of shape \(4,\) as in fit, got \(1, 8, 8\)"):
        scorer.set_params(output="features").transform(PHOTOS)


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        (
            Signals(path_probs=np.full((N - 1, 3), 1 / 3)),
            "signals.path_probs must have one entry for each of the 40",
        ),
        (
            Signals(path_probs=np.full((N, 2), 1 / 2)),
            "signals.path_probs must have one column for each of the 3",
        ),
        (Signals(path_probs=np.full((N, 3), np.nan)), "signals.path_probs must be finite"),
    ],
    ids=["rows", "classes", "NaN"],
)
def test_bad_signals(signals, message):
    for scorer in fresh_and_fitted():
        before = dict(vars(scorer))
        with pytest.raises(InputError, match=f"^{message}.*\\.$"):
            scorer.fit_signals(signals, Y)
        assert vars(scorer) == before


def test_what_acts_on_a_verdict_says_the_same():
    for case in ("NaN", "sparse matrix", "images of different sizes"):
        X, error, message = BAD_X[case]
        model = FilteredClassifier(INNScorer(max_epochs=1), INNScorer())
        refused(model, error, message, X, Y)
        with pytest.raises(error, match=f"^{message}"):
            FilterSampler(INNScorer(max_epochs=1)).fit_resample(X, Y)
