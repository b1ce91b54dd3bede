"""What a training depends on, in words: equal for what is equal, different for what is not."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from noisefilter import INNScorer, VoteFilter
from noisefilter.fingerprints import count_copies, described, digest, fingerprint
from noisefilter.inputs import as_rows

CPU = torch.device("cpu")


def rows_of(X):
    return as_rows(X, device=CPU)


class Custom:
    def __init__(self, strength):
        self.strength = strength
        self.me = self  # no end to it

    def strengthened(self, x):
        return x * self.strength


def shifted(by):
    """Return a function that encloses a number, and has a set and another function among its constants."""
    return lambda x, factor=2, *, power=1: [v**power * factor + by for v in x if v not in {"a", "b", "c", 1}]


def itself(x):
    return itself(x - 1) if x else lambda: itself


class Random:
    """A Dataset whose items differ from one reading to the next."""

    def __init__(self, X):
        self.X, self.rng = X, np.random.default_rng(0)

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i] + self.rng.normal(size=self.X[i].shape)


def values():
    """Make parameters of every kind, anew each time."""
    return {
        "nothing": None,
        "number": np.float64(0.25),
        "path": Path("a") / "b",
        "pair": (1, "two"),
        "class": nn.ReLU,
        "function": np.mean,
        "part of a function": partial(np.clip, a_min=1),
        "function of our own": shifted(0.5),
        "method": Custom(0.5).strengthened,
        "estimator": LogisticRegression(C=0.5),
        "filters": VoteFilter([("a", INNScorer(lr=0.1)), ("b", INNScorer())]),
        "array": np.arange(5.0),
        "tensor": torch.arange(5),
        "RandomState": np.random.RandomState(3),
        "Generator": np.random.default_rng(3),
        "module": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])),
        "object": Custom(0.5),
        "dtype": torch.float32,
    }


def test_parameters_of_every_kind_are_json_and_equal_in_any_process():
    here = json.dumps(described(values()), sort_keys=True)
    code = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
    code += "from test_fingerprints import *; print(json.dumps(described(values()), sort_keys=True))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.replace("test_fingerprints.", f"{__name__}.").strip() == here
    assert " at 0x" not in here


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (0.1, np.nextafter(0.1, 1)),
        (nn.ReLU, nn.GELU),
        (LogisticRegression(C=1.0), LogisticRegression(C=2.0)),
        (LogisticRegression(), RandomForestClassifier()),
        (VoteFilter([("a", INNScorer(lr=0.1))]), VoteFilter([("a", INNScorer(lr=0.2))])),
        (np.arange(4), np.arange(4.0)),
        (np.arange(4), np.arange(4)[:, None]),
        (np.random.RandomState(0), np.random.RandomState(1)),
        (Custom(0.5), Custom(0.6)),
        (partial(np.clip, a_min=1), partial(np.clip, a_min=2)),
        (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)),
        (torch.float32, torch.float64),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_differs_is_described_otherwise(one, other):
    assert described(one) != described(other)


def lambdas():
    """Pairs of functions of one name that do different things."""
    yield "constants", [lambda x: x + 1, lambda x: x + 2]
    yield "code", [lambda x: x + 1, lambda x: x - 1]
    yield "names", [lambda x: x.sum(), lambda x: x.prod()]
    yield "defaults", [lambda x, a=1: x * a, lambda x, a=2: x * a]
    yield "keywords", [lambda x, *, a=1: x * a, lambda x, *, a=2: x * a]
    yield "enclosed numbers", [shifted(1), shifted(2)]
    yield "enclosed functions", [partial(map, lambda x: (lambda y: y + 1)(x)),
                                 partial(map, lambda x: (lambda y: y + 2)(x))]  # fmt: skip
    yield "sets", [lambda x: x in {1, 2}, lambda x: x in {1, 3}]
    yield "methods", [Custom(1).strengthened, Custom(2).strengthened]


@pytest.mark.parametrize(
    ("one", "other"), [pair for _, pair in lambdas()], ids=[name for name, _ in lambdas()]
)
def test_functions_of_one_name_that_do_different_things_are_told_apart(one, other):
    first, second = described(one), described(other)
    assert first != second and json.loads(json.dumps(first)) == first


def test_a_function_is_the_same_wherever_it_stands_and_however_often_it_ran():
    text = "def f(x, a=(1, 2)):\n    return [v + a[0] for v in range(x) if v in {3, 5}]\n"
    found = []
    for lines in range(2):
        names = {"__name__": "anywhere"}
        exec("\n" * 7 * lines + text, names)
        found.append(described(names["f"]))
        for _ in range(3000):  # the interpreter rewrites code that runs often
            names["f"](6)
        found.append(described(names["f"]))
    assert all(each == found[0] for each in found)
    assert "code" in described(itself)  # there is an end to it


def test_a_function_may_enclose_what_has_no_value_yet():
    def outer():
        def inner():
            return later

        found = described(inner)
        later = 1
        return found, described(inner), later

    empty, filled, _ = outer()
    assert empty["encloses"] == [] and filled["encloses"] == [1]


def test_parameters_of_estimators_may_be_left_out_at_any_depth():
    quiet, telling = (VoteFilter([("a", INNScorer(verbose=v, keep_signals=bool(v)))]) for v in (0, 1))
    assert described(quiet) != described(telling)
    free = ("verbose", "keep_signals")
    assert described(quiet, free=free) == described(telling, free=free)
    assert described({"verbose": 1}, free=free) == {"verbose": 1}  # no estimator's parameter


def test_every_row_of_an_array_counts():
    X = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    known = fingerprint(rows_of(X))
    assert known == fingerprint(rows_of(X.copy())) and "5000 rows of shape (3,)" in known
    for row in (0, 4095, 4096, 4999):
        changed = X.copy()
        changed[row, 1] = np.nextafter(changed[row, 1], 9)
        assert fingerprint(rows_of(changed)) != known
    assert fingerprint(rows_of(X[::-1].copy())) != known


def test_a_sample_of_rows_on_disk_counts(tmp_path):
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (5000, 3))
    X[:] = np.random.default_rng(0).normal(size=(5000, 3))
    read, known = [], fingerprint(rows_of(X))
    rows = rows_of(X)
    plain = rows.read
    rows.read = lambda index: read.append(len(index)) or plain(index)
    assert fingerprint(rows) == known and sum(read) == 2 * 256
    X[4999] += 1
    assert fingerprint(rows_of(X)) != known


def test_rows_that_differ_from_one_reading_to_the_next_are_known_by_their_number():
    dataset = Random(np.zeros((300, 4, 4), np.float32))
    assert fingerprint(rows_of(dataset)) == fingerprint(rows_of(dataset)) == "300 rows of shape (1, 4, 4)"


def test_labels_as_objects_have_a_digest():
    names = np.array(["a", "b"], dtype=object)
    assert digest(names) == digest(names.copy()) != digest(np.array(["a", "c"], dtype=object))


def test_copies_are_counted_by_row_and_by_row_and_class():
    X = np.random.default_rng(0).normal(size=(5000, 3))
    X[4500:4600] = X[:100]
    codes = np.zeros(5000, dtype=np.int64)
    codes[4500:4510] = 1
    assert count_copies(rows_of(X), codes) == (100, 90)
    images = np.random.default_rng(0).integers(0, 255, (50, 8, 8, 3)).astype(np.uint8)
    images[7] = images[30]
    assert count_copies(rows_of(images), codes[:50]) == (1, 1)
