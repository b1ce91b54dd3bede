"""The door: whatever people hand over becomes rows and class numbers here, once, or one clear error."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import type_of_target

from noisefilter.batches import ArrayRows, LazyRows, Rows
from noisefilter.errors import InputError, InputTypeError, LabelError


class Labels(NamedTuple):
    """Labels as they came, and as class numbers.

    Attributes
    ----------
    given : (n,) array
        As they came.
    classes : (K,) array
        Sorted.
    order : (K,) int array
        ``classes[order[k]]`` is class number ``k``.
    codes : (n,) int64 array
        Class numbers **by first appearance**, so that renaming classes one to one changes nothing
        that is computed from them, not even the last bit.
    """

    given: NDArray[Any]
    classes: NDArray[Any]
    order: NDArray[np.intp]
    codes: NDArray[np.int64]


def check_labels(y: Any) -> Labels:
    """Turn labels of any kind (strings, numbers, booleans, pandas categories) into class numbers.

    Raises
    ------
    LabelError
        If labels are missing, continuous, multilabel, of mixed types, or all the same.
    """
    if y is None:
        raise LabelError("This filter requires y to be passed, but the target y is None.")
    given = _as_array(y)
    if given.ndim == 2 and given.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected; its only column is used.",
            DataConversionWarning,
            stacklevel=3,
        )
        given = given[:, 0]
    if given.ndim != 1:
        raise LabelError(
            f"y must be a 1-D array with one label per row, got an array of shape {given.shape}."
        )
    if len(given) == 0:
        raise LabelError("y must have labels, got 0 sample(s).")
    _refuse_missing(given)
    kind = _kind_of(given)
    if kind not in ("binary", "multiclass"):
        raise LabelError(f"y must hold class labels, got values of another kind. Unknown label type: {kind}.")
    classes, first, inverse = np.unique(given, return_index=True, return_inverse=True)
    if len(classes) < 2:
        raise LabelError(f"y must have at least two classes, got 1 class: {classes.tolist()[0]!r}.")
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Labels(given, classes, order, rank[inverse].astype(np.int64))


def _as_array(y: Any) -> NDArray[Any]:
    """Return labels as an array that still tells ``None`` from ``"None"`` and 1 from ``"1"``."""
    try:
        given = np.asarray(y.detach().cpu() if isinstance(y, torch.Tensor) else y)
    except ValueError as error:  # a ragged list
        raise LabelError("y must be a 1-D array with one label per row, got lists of labels.") from error
    if np.ma.is_masked(y):
        raise LabelError("y must have a label in every row, got a masked array. Drop the masked rows.")
    if given.dtype.kind in "US" and isinstance(y, list | tuple) and given.ndim == 1:
        if not all(isinstance(label, str | bytes) for label in y):
            given = np.array(y, dtype=object)
    return given


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):  # pandas.NA is neither equal nor unequal to itself
        return True


def _refuse_missing(given: NDArray[Any]) -> None:
    if given.dtype.kind == "f":
        if np.isinf(given).any():
            raise LabelError("y must be finite, got infinity (inf). Input y contains infinity.")
        missing = np.isnan(given)
    elif given.dtype.kind in "OMm":
        missing = np.array([_is_missing(value) for value in given], dtype=bool)
    else:
        return
    if missing.any():
        rows = np.flatnonzero(missing)
        raise LabelError(
            f"y must have a label in every row, got {len(rows)} missing (NaN or None), "
            f"the first in row {rows[0]}. Drop those rows, or audit the labeled ones."
        )


def _kind_of(given: NDArray[Any]) -> str:
    if given.dtype.kind == "O":
        types = sorted({type(value).__name__ for value in given})
        try:
            np.unique(given)
        except TypeError as error:
            raise LabelError(
                f"y must hold labels of one type, got {', '.join(types)}. Unknown label type."
            ) from error
        return "multiclass" if {"str"} >= set(types) else str(type_of_target(given.tolist()))
    if given.dtype.kind == "c":
        raise LabelError("y must hold class labels, got complex numbers. Complex data not supported.")
    return "multiclass" if given.dtype.kind in "USb" else str(type_of_target(given))


def known_codes(y: Any, labels: Labels, what: str = "y") -> NDArray[np.int64]:
    """Return class numbers (m,) of labels that arrive later, by those of the labels in fit.

    Parameters
    ----------
    y : (m,) array
        Labels.
    labels : Labels
        Those of fit.
    what : str, default="y"
        What a message calls them.

    Raises
    ------
    LabelError
        If there is a label that was not seen in fit, or `y` is no 1-D array.
    """
    given = _as_array(y)
    if given.ndim != 1:
        raise LabelError(
            f"{what} must be a 1-D array with one label per row, got an array of shape {given.shape}."
        )
    # By Python's equality: numpy's would take 1 for "1".
    known = {label: code for code, label in enumerate(labels.classes[labels.order].tolist())}
    unseen = list(dict.fromkeys(label for label in given.tolist() if label not in known))
    if unseen:
        names = ", ".join(map(repr, unseen[:5])) + (f" and {len(unseen) - 5} others" * (len(unseen) > 5))
        raise LabelError(f"{what} must hold labels seen in fit, got {names}.")
    return np.array([known[label] for label in given.tolist()], dtype=np.int64)


def check_features(features: Any, n: int) -> NDArray[Any] | None:
    """Return an embedding (n, d) of n rows as an array, or None for None.

    Raises
    ------
    InputError
        If these are no finite numbers, or not one row of them for each of the n.
    """
    if features is None:
        return None
    array = np.asarray(features.detach().cpu() if hasattr(features, "detach") else features)
    if array.dtype.kind not in "fiub" or array.ndim != 2 or len(array) != n or not array.size:
        raise InputError(
            f"features must be numbers of shape (n, d), n={n}, got {array.dtype} of shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise InputError("features must be finite, got NaN or infinity.")
    return array


def channel_axis(shape: tuple[int, ...], channels: str | None) -> str:
    """Return where the channels of images (n, a, b, c) are: ``"first"`` or ``"last"``.

    The axis of length 1, 3 or 4 holds them; ``channels`` settles it where both or neither are.
    """
    if channels in ("first", "last"):
        return str(channels)
    if channels is not None:
        raise InputError(f"channels must be 'first', 'last' or None, got {channels!r}.")
    first, last = shape[1] in (1, 3, 4), shape[-1] in (1, 3, 4)
    if first == last:
        raise InputError(
            f"X must have its channels on axis 1 or last, with 1, 3 or 4 of them, got shape {tuple(shape)}. "
            "Say which with channels='first' or channels='last'."
        )
    return "first" if first else "last"


def as_rows(X: Any, *, device: torch.device, channels: str | None = None, raw: bool = False) -> Rows:
    """Turn validated input into rows for the engine.

    Parameters
    ----------
    X : array, Tensor, memory map or map-style Dataset
        ``(n, d)`` rows; ``(n, height, width)`` or 4-D images.
    device : torch.device
        Where rows go. A memory map or Dataset stays where it is and is read batch by batch.
    channels : {"first", "last"}, optional
        Where 4-D images have their channels.
    raw : bool, default=False
        Feed rows in their own shape, as float32: a user's own network knows its input.
    """
    if is_dataset(X) or isinstance(X, np.memmap):
        return _lazy(X, device, channels, raw)
    x = X.detach() if isinstance(X, torch.Tensor) else torch.from_numpy(_owned(np.asarray(X)))
    if raw or x.ndim == 2:
        return ArrayRows(_in_working_dtype(x, raw).to(device))
    if x.ndim not in (3, 4):
        raise InputError(
            f"X must be (n, d) rows or (n, height, width[, channels]) images, got shape {tuple(x.shape)}."
        )
    if x.ndim == 3:
        x = x[..., None]
    elif channel_axis(tuple(x.shape), channels) == "first":
        x = x.permute(0, 2, 3, 1)
    return ArrayRows(_in_working_dtype(x, raw).contiguous().to(device), images=True)


def _in_working_dtype(x: torch.Tensor, raw: bool) -> torch.Tensor:
    """Return rows as float32; but images of bytes as they are, and wide columns with all their digits."""
    wide = x.dtype in (torch.float64, torch.int64, torch.int32)
    if x.ndim == 2 and wide and not raw:
        return x.double()
    return x if x.dtype == torch.uint8 and x.ndim > 2 and not raw else x.float()


def _owned(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array torch can share: its own dtypes, native byte order, writable, positive strides."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64 if array.dtype.itemsize < 8 else np.float64)
    if array.dtype == np.longdouble:
        array = array.astype(np.float64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(array) if array.flags.writeable else array.copy()


def is_dataset(X: Any) -> bool:
    """Whether ``X`` is a map-style Dataset: items by number, a length, and no array."""
    array_like = any(hasattr(X, name) for name in ("__array__", "iloc", "toarray"))  # the last one is sparse
    known = array_like or isinstance(X, list | tuple | str | bytes | dict)
    return hasattr(X, "__getitem__") and hasattr(X, "__len__") and not known


def _lazy(X: Any, device: torch.device, channels: str | None, raw: bool) -> LazyRows:
    first = _items(X, np.zeros(1, dtype=np.int64))
    if first.dtype.kind not in "fiub":
        raise InputTypeError(f"X must be numeric, got items of dtype {first.dtype}.")
    images = not raw and first.ndim in (3, 4)
    if not raw and first.ndim not in (2, 3, 4):
        raise InputError(f"X must hold rows of shape (d,) or images, got items of shape {first.shape[1:]}.")
    to_last = images and first.ndim == 4 and channel_axis(first.shape, channels) == "first"
    return LazyRows(_Reader(X, images, to_last, raw).read, len(X), images, device)


class _Reader(NamedTuple):
    """How to read rows by number; unlike a function inside a function, it can be pickled."""

    source: Any
    images: bool
    to_last: bool
    raw: bool

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows (b, *shape), images channels-last."""
        rows = _items(self.source, index)
        if self.images:
            rows = rows[..., None] if rows.ndim == 3 else np.moveaxis(rows, 1, -1) if self.to_last else rows
        return _in_working_dtype(torch.from_numpy(_owned(rows)), self.raw).numpy()


def _items(X: Any, index: NDArray[np.int64]) -> NDArray[Any]:
    """Read rows by number; an item of a Dataset may be ``(x, y)``, and an image of Pillow's."""
    if isinstance(X, np.memmap):
        return np.asarray(X[index])
    items = [X[int(i)] for i in index]
    items = [_host(item[0] if isinstance(item, tuple | list) else item) for item in items]
    if len({item.shape for item in items}) > 1:
        raise InputError(
            f"X must hold items of one shape, got {sorted({i.shape for i in items})}. Resize them first."
        )
    return np.stack(items)


def _host(x: Any) -> NDArray[Any]:
    """Return an array, from a Tensor that has gradients or lies on a device as well."""
    if isinstance(x, torch.Tensor):
        x = x.detach().cpu()
        x = x.float() if x.dtype == torch.bfloat16 else x  # numpy has none
    return np.asarray(x)


def check_finite(X: NDArray[Any], names: NDArray[Any] | None = None) -> None:
    """Raise InputError naming the first column, or image, that holds NaN or infinity."""
    if X.dtype.kind not in "fc" or np.isfinite(X).all():
        return
    bad = ~np.isfinite(X)
    what = "NaN" if np.isnan(X).any() else "infinity (inf)"
    if X.ndim == 2:
        column = int(np.flatnonzero(bad.any(axis=0))[0])
        where = f"column {column if names is None else repr(names.tolist()[column])}"
        rows = np.flatnonzero(bad[:, column])
    else:
        rows = np.flatnonzero(bad.reshape(len(X), -1).any(axis=1))
        where = f"row {rows[0]}"
    raise InputError(f"X must be finite, got {what} in {where} ({len(rows)} rows). Input X contains {what}.")


def check_array_like(X: Any) -> NDArray[Any]:
    """Return a numeric array of at least two dimensions from an array, DataFrame, Tensor or nested list.

    Raises
    ------
    InputError, InputTypeError
        For images of different sizes, text, complex numbers, one dimension only, no rows or no columns.
    """
    try:
        array = _host(X)
    except ValueError as error:  # a ragged list
        raise InputError(
            "X must hold rows of one shape, got rows of different shapes. Resize images first."
        ) from error
    if np.ma.is_masked(X):
        raise InputError("X must have a value everywhere, got a masked array. Fill or drop what is masked.")
    if array.dtype.kind == "O":
        array = _numbers(array)
    if array.dtype.kind == "c":
        raise InputError("X must be real. Complex data not supported.")
    if array.dtype.kind not in "fiub":
        raise InputTypeError(f"X must be numeric, got dtype {array.dtype}. Encode text and categories first.")
    if array.ndim < 2:
        raise InputError(
            f"X must be at least 2-D, got shape {array.shape}. Reshape your data: X.reshape(-1, 1)."
        )
    if 0 in array.shape[1:]:
        raise InputError(
            f"X must have columns, got 0 feature(s) (shape={array.shape}) while a minimum of 1 is required."
        )
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Return what an object array holds: numbers, or images of one shape."""
    shapes = {np.shape(row) for row in array} if array.ndim == 1 else set()
    if len(shapes) > 1:
        some = ", ".join(map(str, sorted(shapes)[:3]))
        raise InputError(
            f"X must hold rows of one shape, got shapes {some} in an object array. Resize images first."
        )
    if shapes - {()}:
        return np.stack(list(array))
    missing = np.asarray(np.frompyfunc(_is_missing, 1, 1)(array), dtype=bool)
    try:
        return np.asarray(np.where(missing, np.nan, array), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(
            f"X must be numeric, got an object array: argument must be a number ({error})."
        ) from error
