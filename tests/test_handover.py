"""What a filter hands to the next step: it carries the verdict, and nothing computed from it does."""

import copy
import io
import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import all_estimators, check_array
from sklearn.utils.validation import validate_data

from noisefilter.errors import InputError, InputTypeError
from noisefilter.handover import (
    FilteredArray,
    IndexedRows,
    hand_over,
    take_rows,
    untouched_of,
    verdict_of,
)
from noisefilter.verdict import Verdict

N = 12
INDEX = np.array([0, 1, 2, 0, 4, 5, 6, 1, 8, 9, 10, 11])  # rows 3 and 7 are replaced


def judgement(scores=None):
    labels = np.arange(N) % 3
    return Verdict(
        labels=labels,
        classes=np.arange(3),
        scores=np.arange(N, dtype=float) if scores is None else scores,
        partition=np.where(np.arange(N) == INDEX, 0, 1),
        alternatives=(labels + 1) % 3,
        method="by hand",
    )


def table(seed=0):
    return np.random.default_rng(seed).normal(size=(N, 4))


def frame():
    return pd.DataFrame(table(), columns=list("abcd"), index=[f"row {i}" for i in range(N)])


@pytest.fixture
def on_disk(tmp_path):
    array = np.memmap(tmp_path / "rows.bin", dtype=np.float64, mode="w+", shape=(N, 4))
    array[:] = table()
    return array


class Counted:
    """A map-style Dataset that counts how many rows it was asked for."""

    def __init__(self):
        self.rows, self.asked = table(), 0

    def __len__(self):
        return N

    def __getitem__(self, i):
        if not isinstance(i, int):
            raise TypeError("a map-style Dataset is asked for one row at a time")
        self.asked += 1
        return self.rows[i], i


# What comes out


@pytest.mark.parametrize("shape", [(N,), (N, 4), (N, 3, 5, 5)])
def test_array_comes_out_replaced_and_carries_verdict(shape):
    X, verdict = np.random.default_rng(0).normal(size=shape), judgement()
    rows = hand_over(X, INDEX, verdict)
    assert isinstance(rows, FilteredArray)
    assert verdict_of(rows) is verdict
    np.testing.assert_array_equal(np.asarray(rows), X[INDEX])
    assert np.shares_memory(untouched_of(rows), X)
    assert not np.shares_memory(np.asarray(rows), X)  # the next step may work in place


def test_list_and_tensor_come_out_as_arrays():
    X = table()
    for given in (X.tolist(), torch.tensor(X, requires_grad=True)):
        rows = hand_over(given, INDEX, judgement())
        assert isinstance(rows, FilteredArray)
        np.testing.assert_array_equal(np.asarray(rows), X[INDEX])
        assert type(untouched_of(rows)) is np.ndarray


def test_frame_comes_out_as_frame_with_its_row_labels():
    X, verdict = frame(), judgement()
    rows = hand_over(X, INDEX, verdict)
    from noisefilter.handover import FilteredFrame

    assert isinstance(rows, FilteredFrame) and isinstance(rows, pd.DataFrame)
    assert verdict_of(rows) is verdict
    assert untouched_of(rows) is X
    np.testing.assert_array_equal(rows.to_numpy(), X.to_numpy()[INDEX])
    assert list(rows.index) == list(X.index) and list(rows.columns) == list(X.columns)


def test_memory_map_is_not_read_until_asked(on_disk, monkeypatch):
    rows = hand_over(on_disk, INDEX, judgement())
    assert isinstance(rows, IndexedRows)
    assert verdict_of(rows) is not None and untouched_of(rows) is on_disk
    assert len(rows) == N and rows.shape == (N, 4) and rows.ndim == 2 and rows.dtype == np.float64
    read = []
    pick = np.memmap.__getitem__
    monkeypatch.setattr(np.memmap, "__getitem__", lambda self, key: read.append(key) or pick(self, key))
    np.testing.assert_array_equal(rows[3], table()[0])
    assert read == [0]


@pytest.mark.parametrize(
    "key",
    [3, -1, slice(2, 9, 3), [3, 7], np.arange(N) > 5, (3, 1), (slice(2, 8), 1), ([3, 7], ...), (..., 2)],
    ids=str,
)
def test_memory_map_rows_index_like_an_array(on_disk, key):
    rows = hand_over(on_disk, INDEX, judgement())
    np.testing.assert_array_equal(rows[key], table()[INDEX][key])
    assert type(rows[key]) is not np.memmap and verdict_of(rows[key]) is None


def test_memory_map_of_images(on_disk):
    images = table().reshape(N, 2, 2)
    rows = hand_over(on_disk.reshape(N, 2, 2), INDEX, judgement())
    for key in (3, (3, 1), (slice(2, 8), 1), (..., 0), ([3, 7], slice(None), 1), (None, 3)):
        np.testing.assert_array_equal(rows[key], images[INDEX][key])


def test_dataset_comes_out_as_dataset_read_row_by_row():
    source = Counted()
    rows = hand_over(source, INDEX, judgement())
    assert source.asked == 0
    values, number = rows[3]
    assert number == 0 and source.asked == 1
    np.testing.assert_array_equal(values, source.rows[0])
    part = rows[2:5]
    assert source.asked == 1 and len(part) == 3 and verdict_of(rows[::-1]) is None
    assert [number for _, number in part] == [2, 0, 4]
    assert untouched_of(rows) is source


def numbers_in(X):
    return [np.asarray(row[0] if isinstance(row, tuple) else row).tolist() for row in X]


def test_second_filter_remembers_the_rows_it_saw_and_not_the_first_verdict():
    for X in (table(), frame(), Counted()):
        first, verdict = hand_over(X, INDEX, judgement()), judgement(np.ones(N))
        second = hand_over(first, np.arange(N)[::-1], verdict)
        assert verdict_of(second) is verdict
        assert verdict_of(untouched_of(second)) is None
        if isinstance(X, pd.DataFrame):
            pd.testing.assert_frame_equal(untouched_of(second), pd.DataFrame(first))
        else:
            assert numbers_in(untouched_of(second)) == numbers_in(first)
            assert numbers_in(second) == numbers_in(first)[::-1]
        assert not isinstance(second, IndexedRows) or second.source is X


def test_original_rows_where_X_was_computed_from_them():
    images = np.zeros((N, 3, 5, 5))
    rows = hand_over(table(), INDEX, judgement(), original=images)
    assert untouched_of(rows) is images


def test_refusals():
    with pytest.raises(InputError, match="12, 11 and 12"):
        hand_over(table(), INDEX[1:], judgement())
    with pytest.raises(InputTypeError, match="got set"):
        hand_over(set(range(N)), INDEX, judgement())


def test_nothing_to_read_where_nothing_is_carried():
    named = frame().rename(columns={"a": "verdict", "b": "untouched"})
    for X in (table(), frame(), named, [[1, 2]], None, np.ones(3).view(FilteredArray)):
        assert verdict_of(X) is None and untouched_of(X) is None
    rows = hand_over(named, INDEX, judgement())
    assert isinstance(verdict_of(rows), Verdict) and isinstance(rows["verdict"], pd.Series)


def test_frame_that_grew_in_place_has_no_verdict():
    rows = hand_over(frame(), INDEX, judgement())
    rows.loc["one more"] = 0.0
    assert len(rows) == N + 1
    assert verdict_of(rows) is None


# What is computed from it

ARRAY_OPERATIONS = {
    "slice": lambda X: X[2:5],
    "whole": lambda X: X[:],
    "mask": lambda X: X[X[:, 0] > 0],
    "fancy": lambda X: X[[1, 2]],
    "row": lambda X: X[0],
    "iterate": lambda X: next(iter(X)),
    "add": lambda X: X + 1,
    "radd": lambda X: 1 + X,
    "compare": lambda X: X > 0,
    "matmul": lambda X: X @ X.T,
    "negate": lambda X: -X,
    "divmod": lambda X: divmod(X, 2)[1],
    "exp": np.exp,
    "reduce": np.add.reduce,
    "reduce to a number": lambda X: np.add.reduce(X, axis=None),
    "outer": lambda X: np.multiply.outer(X, X),
    "asarray": np.asarray,
    "array": np.array,
    "ascontiguous": np.ascontiguousarray,
    "mean": lambda X: X.mean(axis=0),
    "np.mean": lambda X: np.mean(X, axis=0),
    "sum to a number": lambda X: X.sum(),
    "std": lambda X: X.std(axis=1, keepdims=True),
    "copy": lambda X: X.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "view": lambda X: X.view(),
    "view as bytes": lambda X: X.view(np.uint8),
    "astype": lambda X: X.astype(np.float64, copy=False),
    "reshape": lambda X: X.reshape(2, -1),
    "ravel": lambda X: X.ravel(),
    "T": lambda X: X.T,
    "mT": lambda X: X.mT,
    "real": lambda X: X.real,
    "flat": lambda X: X.flat[1:3],
    "take": lambda X: X.take([1, 2], axis=0),
    "sort": lambda X: np.sort(X, axis=0),
    "concatenate": lambda X: np.concatenate([X, X]),
    "vstack": lambda X: np.vstack([X, np.zeros((1, 4))]),
    "where": lambda X: np.where(X > 0, X, 0),
    "split": lambda X: np.split(X, 2)[0],
    "atleast": lambda X: np.atleast_2d(X),
    "broadcast": lambda X: np.broadcast_to(X, (2, N, 4)),
    "zeros_like": np.zeros_like,
    "svd": lambda X: np.linalg.svd(X).U,
    "einsum": lambda X: np.einsum("ij->ji", X),
    "pad": lambda X: np.pad(X, 1),
}


@pytest.mark.parametrize("operation", ARRAY_OPERATIONS.values(), ids=ARRAY_OPERATIONS)
def test_array_operations_give_plain_arrays(operation):
    rows = hand_over(table(), INDEX, judgement())
    result = operation(rows)
    assert not isinstance(result, FilteredArray) and verdict_of(result) is None
    expected = operation(np.asarray(rows))
    assert type(result) is type(expected)  # a number stays a number
    np.testing.assert_array_equal(result, expected)
    assert verdict_of(rows) is not None


def test_every_array_method_that_numpy_has_is_plain():
    """A method numpy adds later must not hand on the coat."""
    rows = hand_over(table(), INDEX, judgement())
    for name in dir(np.ndarray):
        if not name.startswith("_") and name not in {"base", "data"}:
            try:
                result = getattr(rows, name)
                apart = {"dumps", "resize", "tostring"}  # the last one warns where numpy still has it
                result = result() if callable(result) and name not in apart else result
            except (TypeError, ValueError, AttributeError):
                continue  # needs arguments, or is no more: numpy 2.0 lists what it has removed
            assert not isinstance(result, FilteredArray), name


def test_change_in_place_gives_back_a_plain_array():
    rows = before = hand_over(table(), INDEX, judgement())
    rows += 1
    assert type(rows) is np.ndarray and np.shares_memory(rows, before)


FRAME_OPERATIONS = {
    "column": lambda X: X["a"],
    "columns": lambda X: X[["a", "b"]],
    "head": lambda X: X.head(3),
    "iloc": lambda X: X.iloc[2:4],
    "loc": lambda X: X.loc["row 1":"row 4"],
    "mask": lambda X: X[X["a"] > 0],
    "copy": lambda X: X.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "add": lambda X: X + 1,
    "exp": np.exp,
    "mean": lambda X: X.mean(),
    "assign": lambda X: X.assign(e=1),
    "drop": lambda X: X.drop(columns="a"),
    "concat": lambda X: pd.concat([X, X]),
    "astype": lambda X: X.astype(np.float32),
    "apply": lambda X: X.apply(np.abs),
    "merge": lambda X: X.merge(X, left_index=True, right_index=True),
    "T": lambda X: X.T,
    "asarray": np.asarray,
    "DataFrame": pd.DataFrame,
    "sort": lambda X: X.sort_values("a"),
}


@pytest.mark.parametrize("operation", FRAME_OPERATIONS.values(), ids=FRAME_OPERATIONS)
def test_frame_operations_give_plain_frames(operation):
    rows = hand_over(frame(), INDEX, judgement())
    result = operation(rows)
    assert type(result) in (pd.DataFrame, pd.Series, np.ndarray) and verdict_of(result) is None
    np.testing.assert_array_equal(result, operation(pd.DataFrame(rows)))
    assert verdict_of(rows) is not None


def test_copies_of_indexed_rows_are_bare(on_disk):
    for X in (on_disk, Counted()):
        rows = hand_over(X, INDEX, judgement())
        for same in (copy.copy(rows), copy.deepcopy(rows)):
            assert len(same) == N and verdict_of(same) is None
            np.testing.assert_equal(same[3], rows[3])


# Pickle and hash

KINDS = {"array": table, "objects": lambda: table().astype(object), "frame": frame, "Dataset": Counted}


def joblib_file(rows):
    stream = io.BytesIO()
    joblib.dump(rows, stream)
    stream.seek(0)
    return joblib.load(stream)


JOURNEYS = {f"protocol {p}": lambda rows, p=p: pickle.loads(pickle.dumps(rows, protocol=p)) for p in range(6)}
JOURNEYS["joblib"] = joblib_file


@pytest.mark.parametrize("journey", JOURNEYS.values(), ids=JOURNEYS)
@pytest.mark.parametrize("kind", KINDS)
def test_pickle_keeps_rows_verdict_and_untouched(kind, journey):
    X, verdict = KINDS[kind](), judgement()
    rows = hand_over(X, INDEX, verdict)
    back = journey(rows)
    assert type(back) is type(rows)
    np.testing.assert_array_equal(verdict_of(back).scores, verdict.scores)
    assert verdict_of(back).method == "by hand"
    if kind == "Dataset":
        assert [number for _, number in back] == INDEX.tolist() and len(untouched_of(back)) == N
    else:
        np.testing.assert_array_equal(np.asarray(back), np.asarray(rows))
        np.testing.assert_array_equal(np.asarray(untouched_of(back)), np.asarray(X))


def test_pickle_keeps_memory_map_rows(on_disk):
    back = pickle.loads(pickle.dumps(hand_over(on_disk, INDEX, judgement())))
    np.testing.assert_array_equal(np.asarray(back), table()[INDEX])
    assert verdict_of(back) is not None


def test_dumps_method_keeps_the_verdict():
    assert verdict_of(pickle.loads(hand_over(table(), INDEX, judgement()).dumps())) is not None


def test_worker_processes_see_verdict():
    rows = hand_over(table(), INDEX, judgement())
    parallel = joblib.Parallel(n_jobs=2, backend="loky", max_nbytes=100)  # larger arrays go as memory maps
    verdict, untouched = parallel(joblib.delayed(read)(rows) for read in (verdict_of, untouched_of))
    np.testing.assert_array_equal(verdict.scores, judgement().scores)
    np.testing.assert_array_equal(untouched, table())


def hashes(rows):
    return joblib.hash(rows), joblib.hash({"X": rows, "weight": None}), joblib.hash((rows, rows))


@pytest.mark.parametrize("kind", KINDS)
def test_hash_tells_verdicts_and_untouched_rows_apart(kind):
    X = KINDS[kind]()
    same, again = (hand_over(KINDS[kind](), INDEX, judgement()) for _ in range(2))
    assert hashes(same) == hashes(again)
    other_verdict = hand_over(X, INDEX, judgement(np.ones(N)))
    other_rows = hand_over(X, INDEX, judgement(), original=np.zeros((N, 4)))
    found = [hashes(rows) for rows in (same, other_verdict, other_rows)]
    for one_way in zip(*found, strict=True):
        assert len(set(one_way)) == 3


def test_hash_of_an_array_without_verdict_is_the_ordinary_one():
    bare = table().view(FilteredArray)
    assert bare.strides == table().strides and type(bare.strides) is tuple
    assert hand_over(table(), INDEX, judgement()).strides == table()[INDEX].strides


class Reader(TransformerMixin, BaseEstimator):
    """A step that computes from the verdict."""

    def fit(self, X, y=None):
        self.sum_ = verdict_of(X).scores.sum()
        return self

    def transform(self, X):
        return np.asarray(X)


class Giver(TransformerMixin, BaseEstimator):
    """A step that gives the same rows with a verdict it was told."""

    def __init__(self, score=1.0):
        self.score = score

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X

    def fit_transform(self, X, y=None):
        return hand_over(X, INDEX, judgement(np.full(N, self.score)))


@pytest.mark.parametrize("kind", ["array", "frame"])
def test_memory_does_not_mix_up_verdicts(tmp_path, kind):
    from sklearn.linear_model import LogisticRegression

    pipeline = Pipeline(
        [("give", Giver()), ("read", Reader()), ("end", LogisticRegression())], memory=str(tmp_path)
    )
    for score in (1.0, 2.0, 1.0):
        pipeline.set_params(give__score=score).fit(KINDS[kind](), np.arange(N) % 3)
        assert pipeline["read"].sum_ == score * N


# scikit-learn takes it


def test_validation_takes_every_kind(on_disk):
    for X in (table(), frame(), on_disk):
        rows = hand_over(X, INDEX, judgement())
        for checked in (check_array(rows), validate_data(StandardScaler(), rows)):
            assert type(checked) is np.ndarray
            np.testing.assert_array_equal(checked, table()[INDEX])
    scaler = StandardScaler().fit(hand_over(frame(), INDEX, judgement()))
    assert list(scaler.feature_names_in_) == list("abcd")


NEEDS_ARGUMENTS = {"ClassifierChain", "FixedThresholdClassifier", "MultiOutputClassifier",
                   "OneVsOneClassifier", "OneVsRestClassifier", "OutputCodeClassifier", "StackingClassifier",
                   "TunedThresholdClassifierCV", "VotingClassifier", "SelfTrainingClassifier",
                   "FrozenEstimator"}  # fmt: skip
CLASSIFIERS = [(name, cls) for name, cls in all_estimators("classifier") if name not in NEEDS_ARGUMENTS]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, cls", CLASSIFIERS, ids=[name for name, _ in CLASSIFIERS])
def test_every_classifier_takes_it_and_learns_the_same(name, cls, on_disk):
    rng = np.random.default_rng(0)
    X = np.abs(rng.normal(size=(60, 4))) + np.repeat([0, 5, 10], 20)[:, None]
    X = np.round(X) if name == "CategoricalNB" else X
    y, index = np.repeat([0, 1, 2], 20), rng.permutation(60)
    verdict = Verdict(y, np.arange(3), np.ones(60), np.zeros(60), (y + 1) % 3)

    def fitted(rows):
        parameters = {"random_state": 0} if "random_state" in cls().get_params() else {}
        if "n_estimators" in cls().get_params():
            parameters["n_estimators"] = 3
        return cls(**parameters).fit(rows, y[index]).predict(X)

    expected = fitted(X[index])
    mapped = np.memmap(on_disk.filename, dtype=X.dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    for given in (X, mapped):
        np.testing.assert_array_equal(fitted(hand_over(given, index, verdict)), expected)


def test_cross_validation_takes_it(on_disk):
    from sklearn.linear_model import LogisticRegression

    y = np.arange(N) % 2
    expected = cross_val_score(LogisticRegression(), table()[INDEX], y, cv=3)
    for X in (table(), frame(), on_disk):
        rows = hand_over(X, INDEX, judgement())
        np.testing.assert_allclose(cross_val_score(LogisticRegression(), rows, y, cv=3), expected)


def test_data_loader_takes_indexed_rows():
    rows = hand_over(Counted(), INDEX, judgement())
    batches = torch.utils.data.DataLoader(rows, batch_size=5)
    assert [number for _, numbers in batches for number in numbers.tolist()] == INDEX.tolist()


class OnlyArray:
    def __array__(self, dtype=None, copy=None):
        return np.asarray(table(), dtype)


def test_what_can_become_an_array_does():
    np.testing.assert_array_equal(take_rows(OnlyArray(), np.array([4, 1])), table()[[4, 1]])
    np.testing.assert_array_equal(hand_over(OnlyArray(), INDEX, judgement()), table()[INDEX])


# take_rows


def test_take_rows_of_a_sparse_matrix():
    sparse = csr_array(table())
    np.testing.assert_array_equal(take_rows(sparse, np.array([4, 1])).toarray(), table()[[4, 1]])


@pytest.mark.parametrize("kind", [table, frame, lambda: table().tolist(), Counted])
def test_take_rows_keeps_the_kind(kind):
    X, index = kind(), np.array([4, 1])
    rows = take_rows(X, index)
    assert len(rows) == 2 and verdict_of(rows) is None
    assert type(rows) is (IndexedRows if kind is Counted else type(X))
    if kind is not Counted:
        np.testing.assert_array_equal(np.asarray(rows), table()[index])
    else:
        assert [number for _, number in rows] == [4, 1] and X.asked == 2
