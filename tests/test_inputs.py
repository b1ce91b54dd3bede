"""The door: labels and rows of every kind, and one clear error for every mistake."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisefilter.errors import InputError, InputTypeError, LabelError
from noisefilter.inputs import (
    as_rows,
    channel_axis,
    check_array_like,
    check_finite,
    check_labels,
    is_dataset,
    known_codes,
)

CPU = torch.device("cpu")


def every(rows):
    return rows.take(torch.arange(len(rows)))


# Labels

KINDS = {
    "strings": np.array(["b", "a", "b", "ccc"]),
    "bytes": np.array([b"b", b"a", b"b", b"ccc"]),
    "signed": np.array([0, -1, 0, 1]),
    "gaps": np.array([2, 0, 2, 5]),
    "bytes of bits": np.array([2, 0, 2, 5], dtype=np.uint8),
    "whole floats": np.array([1.0, 0.0, 1.0, 2.0]),
    "objects": np.array(["b", "a", "b", "ccc"], dtype=object),
    "number objects": np.array([7, 3, 7, 9], dtype=object),
    "column": np.array([[2], [0], [2], [5]]),
    "list": ["b", "a", "b", "ccc"],
    "category": pd.Series(["b", "a", "b", "ccc"], dtype="category", index=[9, 9, 3, 1]),
    "categorical": pd.Categorical(["b", "a", "b", "ccc"], categories=["ccc", "b", "a", "unused"]),
    "nullable ints": pd.Series([7, 3, 7, 9], dtype="Int64", index=[5, 4, 3, 2]),
    "pandas strings": pd.Series(["b", "a", "b", "ccc"], dtype="string"),
    "dates": np.array(["2021-01-01", "2020-01-01", "2021-01-01", "2022-01-01"], dtype="M8[D]"),
    "tensor": torch.tensor([2, 0, 2, 5]),
}


@pytest.mark.filterwarnings("ignore:A column-vector y")
@pytest.mark.parametrize("y", KINDS.values(), ids=KINDS)
def test_labels_of_any_kind_become_codes_by_first_appearance(y):
    labels = check_labels(y)
    assert labels.codes.tolist() == [0, 1, 0, 2]
    assert labels.codes.dtype == np.int64
    assert sorted(labels.classes.tolist()) == labels.classes.tolist()
    assert labels.classes[labels.order[labels.codes]].tolist() == labels.given.tolist()
    assert labels.given.shape == (4,)


@pytest.mark.parametrize(
    "y", [[True, False, True], pd.Series([True, False, True], dtype="boolean")], ids=["bool", "nullable"]
)
def test_truth_values(y):
    labels = check_labels(y)
    assert labels.codes.tolist() == [0, 1, 0]
    assert labels.classes.tolist() == [False, True]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=2, max_size=15).filter(lambda y: len(set(y)) > 1),
    st.permutations("vwxyz"),
)
def test_renaming_classes_leaves_the_codes(y, names):
    renamed = [names[c] for c in y]
    np.testing.assert_array_equal(check_labels(y).codes, check_labels(renamed).codes)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y to be passed"),
        ([], "must have labels"),
        ([1, 1, 1], "at least two classes, got 1 class: 1"),
        (["a", "a"], "got 1 class: 'a'"),
        ([0.5, 1.2, 0.1], "Unknown label type: continuous"),
        ([[0, 1], [1, 1]], r"1-D array with one label per row, got an array of shape \(2, 2\)"),
        ([["a"], ["a", "b"]], "got lists of labels"),
        ([0, np.nan, 1], r"1 missing \(NaN or None\), the first in row 1"),
        ([0, np.inf, 1], "infinity"),
        (["a", None, "b"], "first in row 1"),
        (["a", np.nan, "b"], "first in row 1"),
        (["a", 1, "b"], "one type, got int, str"),
        (np.array(["a", 1], dtype=object), "one type, got int, str"),
        (np.array(["a", None, "b"], dtype=object), "first in row 1"),
        (np.array([0.5, 1.2], dtype=object), "Unknown label type: continuous"),
        (pd.Series(["a", pd.NA, "b"], dtype="string"), "first in row 1"),
        (pd.Series([0, 1, pd.NA], dtype="Int64"), "first in row 2"),
        (pd.Series(["a", None, "b"], dtype="category"), "first in row 1"),
        (np.array(["2020-01-01", "NaT"], dtype="M8[D]"), "first in row 1"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value)[:30].replace("\n", " "),
)
def test_labels_that_cannot_be_used(y, message):
    with pytest.raises(LabelError, match=message):
        check_labels(y)


def test_the_word_nan_is_a_label():
    assert check_labels(["nan", "None", "nan"]).classes.tolist() == ["None", "nan"]


# Where the channels are


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((9, 3, 32, 32), None, "first"),
        ((9, 32, 32, 3), None, "last"),
        ((9, 1, 8, 8), None, "first"),
        ((9, 8, 8, 4), None, "last"),
        ((9, 3, 5, 3), "first", "first"),
        ((9, 3, 5, 3), "last", "last"),
        ((9, 8, 8, 7), "last", "last"),
    ],
)
def test_channel_axis(shape, channels, expected):
    assert channel_axis(shape, channels) == expected


@pytest.mark.parametrize("shape", [(9, 3, 5, 3), (9, 1, 1, 1), (9, 8, 8, 7)])
def test_both_or_neither_asks_for_channels(shape):
    with pytest.raises(InputError, match="Say which with channels='first' or channels='last'"):
        as_rows(np.zeros(shape), device=CPU)
    with pytest.raises(InputError, match="channels must be 'first', 'last' or None, got 'middle'"):
        channel_axis(shape, "middle")


IMAGE = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3))


@pytest.mark.parametrize(
    "dtype",
    [
        np.uint8,
        np.int8,
        np.uint16,
        np.uint32,
        np.uint64,
        np.int64,
        np.float16,
        np.float32,
        np.float64,
        ">f4",
        ">i2",
        np.longdouble,
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_images_of_every_dtype(dtype, first):
    x = (IMAGE // 2).astype(dtype)
    rows = as_rows(np.moveaxis(x, -1, 1) if first else x, device=CPU)
    batch = every(rows)
    assert rows.shape == (3, 6, 7)
    assert batch.dtype == (torch.uint8 if dtype == np.uint8 else torch.float32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch.numpy(), np.moveaxis(IMAGE // 2, -1, 1))


@pytest.mark.parametrize(
    "dtype",
    [
        np.uint8,
        np.int16,
        np.int32,
        np.int64,
        np.uint16,
        np.uint32,
        np.uint64,
        np.float16,
        np.float32,
        np.float64,
        ">f8",
        ">u4",
        np.longdouble,
    ],
)
def test_columns_of_every_dtype(dtype):
    x = np.random.default_rng(0).integers(0, 100, (5, 4)).astype(dtype)
    rows = as_rows(x, device=CPU)
    assert rows.shape == (4,)
    assert every(rows).dtype in (torch.float32, torch.float64)
    np.testing.assert_array_equal(every(rows).numpy(), x.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64, np.float64])
def test_columns_keep_their_digits(dtype):
    x = np.array([[1_700_000_001], [1_700_000_002]], dtype=dtype)
    assert every(as_rows(x, device=CPU)).flatten().tolist() == [1_700_000_001, 1_700_000_002]


def test_gray_images():
    batch = every(as_rows(IMAGE[..., 0], device=CPU))
    np.testing.assert_array_equal(batch[:, 0].numpy(), IMAGE[..., 0])
    assert batch.shape == (5, 1, 6, 7)
    with pytest.raises(InputError, match=r"must be \(n, d\) rows or"):
        as_rows(np.zeros((2, 1, 3, 4, 5)), device=CPU)


@pytest.mark.parametrize(
    "view", [lambda x: x[::-1], lambda x: x[:, :, ::-1], lambda x: x.swapaxes(1, 2), np.asfortranarray]
)
def test_strides(view):
    x = view(IMAGE.astype(np.uint8))
    np.testing.assert_array_equal(every(as_rows(x, device=CPU)).permute(0, 2, 3, 1).numpy(), x)


def test_the_caller_keeps_the_array():
    x = IMAGE.astype(np.float32)
    x.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns when it shares what must not be written
        every(as_rows(x, device=CPU)).zero_()
    np.testing.assert_array_equal(x, IMAGE)


@pytest.mark.parametrize("raw", [False, True])
def test_tensors_lose_their_gradients(raw):
    x = torch.rand(5, 4, requires_grad=True)
    rows = as_rows(x, device=CPU, raw=raw)
    assert not every(rows).requires_grad
    assert torch.equal(every(rows), x.detach())


def test_raw_rows_keep_their_shape():
    rows = as_rows(IMAGE.astype(np.uint8), device=CPU, raw=True)
    assert rows.shape == (6, 7, 3)
    assert every(rows).dtype == torch.float32
    np.testing.assert_array_equal(every(rows).numpy(), IMAGE)


# Read lazily


class Counting(torch.utils.data.Dataset):
    """Counts what is read."""

    def __init__(self, items):
        self.items, self.reads = items, []

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.reads.append(i)
        return self.items[i]


@pytest.mark.parametrize(
    "item",
    [
        lambda x: x,
        lambda x: (x, 7),
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: [x.astype(np.float64), 7],
    ],
    ids=["array", "tuple", "tensor", "list"],
)
def test_datasets_are_read_batch_by_batch(item):
    images = IMAGE.astype(np.float32)
    dataset = Counting([item(image) for image in images])
    assert is_dataset(dataset)
    rows = as_rows(dataset, device=CPU)
    assert set(dataset.reads) == {0}
    del dataset.reads[:]
    batch = rows.take(torch.tensor([3, 1]))
    assert dataset.reads == [3, 1]
    assert (rows.shape, len(rows)) == ((3, 6, 7), 5)
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), images[[3, 1]])


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize(
    "x",
    [
        IMAGE.astype(np.uint8),
        np.moveaxis(IMAGE, -1, 1).astype(">i2"),
        IMAGE[..., 0].astype(np.float64),
        1_700_000_000 + IMAGE[:, 0, :, 0],
        IMAGE[:, 0, :, 0].astype(np.float16),
    ],
    ids=["bytes", "first", "gray", "wide", "half"],
)
def test_memory_maps_read_as_arrays_do(tmp_path, x, raw):
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    lazy, whole = as_rows(mapped, device=CPU, raw=raw), as_rows(x, device=CPU, raw=raw)
    assert type(lazy).__name__ == "LazyRows"
    assert lazy.shape == whole.shape
    index = torch.tensor([4, 0, 4])
    assert lazy.take(index).dtype == whole.take(index).dtype
    assert torch.equal(lazy.take(index), whole.take(index))


def test_lazy_rows_can_be_pickled():
    rows = as_rows(Counting(list(IMAGE.astype(np.uint8))), device=CPU)
    assert torch.equal(every(pickle.loads(pickle.dumps(rows))), every(rows))


def test_datasets_of_the_wrong_kind():
    uneven = as_rows(Counting([np.zeros((8, 8, 3)), np.zeros((9, 8, 3))]), device=CPU)
    with pytest.raises(InputError, match="items of one shape"):
        every(uneven)
    with pytest.raises(InputTypeError, match="must be numeric"):
        as_rows(Counting(["a", "b"]), device=CPU)
    with pytest.raises(InputError, match=r"rows of shape \(d,\) or images"):
        as_rows(Counting([1.0, 2.0]), device=CPU)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((2, 2)),
        [[1]],
        ((1,),),
        "ab",
        {"a": 1},
        pd.DataFrame({"a": [1]}),
        torch.zeros(2, 2),
        scipy.sparse.csr_matrix(np.eye(2)),
        3,
        None,
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_dataset(x):
    assert not is_dataset(x)


# Arrays


@pytest.mark.parametrize(
    "x",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], dtype=object),
        pd.DataFrame({"a": [1, 3], "b": [2, 4]}, index=[7, 7]),
        pd.DataFrame({"a": [1, 3], "b": [2, 4]}, dtype="Int64"),
        torch.tensor([[1.0, 2], [3, 4]], requires_grad=True),
        torch.tensor([[1, 2], [3, 4]], dtype=torch.bfloat16),
        pd.DataFrame({"a": pd.Categorical([1, 3]), "b": [2.0, 4]}),
    ],
    ids=["list", "objects", "frame", "nullable", "gradients", "bfloat16", "category"],
)
def test_numbers_from_anywhere(x):
    array = check_array_like(x)
    assert array.dtype.kind in "fiu"
    np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


def test_truth_values_become_numbers():
    array = check_array_like(np.array([[True], [False]]))
    assert array.dtype == np.uint8
    assert array.tolist() == [[1], [0]]


def test_objects_that_are_images_of_one_shape():
    x = np.empty(2, dtype=object)
    x[:] = [IMAGE[0], IMAGE[1]]
    np.testing.assert_array_equal(check_array_like(x), IMAGE[:2])


def uneven():
    x = np.empty(2, dtype=object)
    x[:] = [np.zeros((8, 8)), np.zeros((9, 8))]
    return x


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1, 2], [3]], InputError, "rows of one shape"),
        ([np.zeros((8, 8)), np.zeros((9, 8))], InputError, "rows of one shape"),
        (uneven(), InputError, r"got shapes \(8, 8\), \(9, 8\) in an object array"),
        (np.ones((2, 2)) * 1j, InputError, "Complex data not supported"),
        (np.array([["a"], ["b"]]), InputTypeError, "must be numeric, got dtype <U1"),
        (pd.DataFrame({"a": ["x", "y"]}), InputTypeError, "must be numeric"),
        (np.array([["2020-01-01"]], dtype="M8[D]"), InputTypeError, "must be numeric"),
        ([1.0, 2.0], InputError, "at least 2-D"),
        (np.zeros((3, 0)), InputError, r"got 0 feature\(s\)"),
        (np.array([[{}], [[]]], dtype=object), InputTypeError, "must be numeric"),
    ],
    ids=["ragged", "images", "objects", "complex", "text", "frame", "dates", "1-D", "no columns", "dict"],
)
def test_arrays_that_cannot_be_used(x, error, message):
    with pytest.raises(error, match=message):
        check_array_like(x)


@pytest.mark.parametrize(
    ("x", "names", "message"),
    [
        (np.array([[1, 2], [3, np.nan]]), None, r"NaN in column 1 \(1 rows\)"),
        (np.array([[1, np.inf], [3, -np.inf]]), None, r"infinity \(inf\) in column 1 \(2 rows\)"),
        (
            np.array([[1, 2], [3, np.nan]]),
            np.array(["age", "height"], dtype=object),
            "NaN in column 'height'",
        ),
        (np.full((2, 3, 3), [[[0]], [[np.nan]]]), None, r"NaN in row 1 \(1 rows\)"),
    ],
)
def test_what_is_not_finite_is_named(x, names, message):
    with pytest.raises(InputError, match=message):
        check_finite(x, names)
    check_finite(np.nan_to_num(x, posinf=0, neginf=0), names)
    check_finite(np.zeros((2, 2), dtype=np.uint8))


def test_a_nullable_column_with_holes_is_named():
    frame = pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": pd.array([1, None], "Int64")})
    with pytest.raises(InputError, match="NaN in column 'b'"):
        check_finite(check_array_like(frame), np.asarray(frame.columns))


# Labels that arrive later


@pytest.mark.parametrize("kind", KINDS)
def test_later_labels_have_the_numbers_of_the_first(kind):
    labels = check_labels(KINDS[kind])
    assert np.array_equal(known_codes(labels.given, labels), labels.codes)
    assert known_codes(labels.given[2:3], labels).tolist() == [labels.codes[2]]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (["1", "2"], "y must hold labels seen in fit, got '1', '2'"),
        ([1, 9, 9, 8], "y must hold labels seen in fit, got 9, 8"),
        (range(10, 20), "y must hold labels seen in fit, got 10, 11, 12, 13, 14 and 5 others"),
        ([1, None], "y must hold labels seen in fit, got None"),
        ([[1, 2]], "y must be a 1-D array with one label per row, got an array of shape"),
        (1, "y must be a 1-D array with one label per row, got an array of shape"),
    ],
    ids=str,
)
def test_labels_that_were_never_seen_are_named(later, message):
    with pytest.raises(LabelError, match=f"^{message}.*\\.$"):
        known_codes(later, check_labels([2, 1, 2]))


def test_equal_numbers_of_other_types_are_the_same_labels():
    assert known_codes([1.0, 2.0], check_labels([2, 1, 2])).tolist() == [1, 0]
