"""What a filter hands to the next step of a Pipeline: rows that carry the verdict and the untouched rows.

A Pipeline lets no step change the number of rows, so a filter replaces rows. The next step, if it is a
trainer of this library, still wants to know which rows were judged noisy and what they looked like. So the
rows travel in a thin coat, one for each kind of input:

==============================================  =================================================
input                                           output of `hand_over`
==============================================  =================================================
numpy array, list, torch tensor                 `FilteredArray`, a numpy array
pandas DataFrame                                `FilteredFrame`, a DataFrame
memory map, map-style Dataset                   `IndexedRows`, which reads rows only when asked
==============================================  =================================================

Anything computed from a coat is a plain array or frame without the verdict, since the verdict speaks of
these rows in this order and of no others. `verdict_of` and `untouched_of` read what a coat carries.
"""

from __future__ import annotations

import sys
from copy import copy, deepcopy
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from noisefilter.errors import InputError, InputTypeError
from noisefilter.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

FilteredFrame: Any  # made by __getattr__ below, see _frame_class

__all__ = [
    "FilteredArray",
    "FilteredFrame",
    "IndexedRows",
    "hand_over",
    "judged_by",
    "take_rows",
    "untouched_of",
    "verdict_of",
]


def hand_over(X: Any, index: NDArray[np.int64], verdict: Verdict, *, original: Any = None) -> Any:
    """Return ``X[index]``, carrying the verdict and the untouched rows.

    Parameters
    ----------
    X : array, DataFrame, list, torch tensor, memory map or map-style Dataset of n rows
        The rows as the next step should see them, before replacement.
    index : int array of shape (n,)
        Row ``index[i]`` of `X` stands in place i (see `noisefilter.balance.replacement_rows`).
    verdict : Verdict
        The judgement of the n rows.
    original : same kinds as `X`, optional
        The untouched rows where these are not `X` itself. It is kept by reference, never copied.

    Returns
    -------
    FilteredArray, FilteredFrame or IndexedRows
        See the table above. A torch tensor comes out as a numpy array on the CPU. A DataFrame keeps its
        row labels, so that they still match those of ``y``.

    Raises
    ------
    InputError
        If `X`, `index` and `verdict` do not speak of the same number of rows.
    InputTypeError
        If the rows of `X` cannot be picked.
    """
    X = _bare(X)
    if not len(X) == len(index) == len(verdict):
        got = f"{len(X)}, {len(index)} and {len(verdict)}"
        raise InputError(f"X, index and verdict must have the same number of rows, got {got}.")
    untouched = X if original is None else _bare(original)
    if _is_frame(X):
        return _rebuild_frame(X.iloc[index].set_axis(X.index, axis=0), verdict, untouched)
    if _is_lazy(X):
        return _lazy_rows(X, index, verdict, untouched)
    return _rebuild_array(X[index], verdict, untouched)


def take_rows(X: Any, index: NDArray[Any]) -> Any:
    """Return the rows ``X[index]`` in the kind of `X`, without a verdict.

    A list comes back as a list; a memory map or map-style Dataset as `IndexedRows`, which reads them later.
    `index` holds row numbers, not a mask.
    """
    if hasattr(X, "iloc"):
        return X.iloc[index]
    if isinstance(X, list | tuple):
        return [X[i] for i in index]
    if _is_lazy(X):
        return _lazy_rows(X, index)
    return X[index] if hasattr(X, "__getitem__") else np.asarray(X)[index]


def verdict_of(X: Any) -> Verdict | None:
    """Return the verdict that `X` carries, or None."""
    verdict = getattr(X, "verdict", None)  # a column or property of that name is something else
    return verdict if isinstance(verdict, Verdict) and len(verdict) == len(X) else None


def untouched_of(X: Any) -> Any:
    """Return the rows as they were before noisy ones were replaced, or None where `X` carries no verdict."""
    return None if verdict_of(X) is None else X.untouched


def _bare(X: Any) -> Any:
    """Return `X` without a coat, as an array unless it is a frame or lies on disk; no copy where possible."""
    if _is_frame(X):
        return X if verdict_of(X) is None else sys.modules["pandas"].DataFrame(X)
    if _is_lazy(X):
        return copy(X) if isinstance(X, IndexedRows) else X
    if hasattr(X, "detach"):  # a torch tensor, perhaps on another device or with a gradient
        X = X.detach().cpu()
    return np.asarray(X)


def judged_by(filter: Any, X: Any, y: Any, params: dict[str, Any]) -> tuple[Any, Verdict]:
    """Return a clone fitted with these arguments, and its verdict.

    Raises
    ------
    InputTypeError
        If it has no ``verdict_`` after fit.
    """
    fitted = clone(filter).fit(X, y, **params)
    verdict = getattr(fitted, "verdict_", None)
    if not isinstance(verdict, Verdict):
        raise InputTypeError(f"filter must have a verdict_ after fit, got {type(filter).__name__}.")
    return fitted, verdict


# Arrays


class FilteredArray(np.ndarray):
    """A numpy array that carries `verdict` and `untouched`; what is computed from it is a plain array.

    Changes in place (``X[0] = 1``, ``X.sort()``) change the rows under the verdict; copy first.
    """

    verdict: Verdict | None = None  # on the instance only: numpy gives every new view or copy a bare one
    untouched: Any = None

    def __getitem__(self, key: Any) -> Any:
        return np.asarray(self)[key]

    def __copy__(self) -> NDArray[Any]:  # type: ignore[override]
        return np.array(self)

    def __deepcopy__(self, memo: dict[int, Any] | None) -> NDArray[Any]:  # type: ignore[override]
        return np.asarray(self).__deepcopy__(memo)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain[()] if return_scalar else plain

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _plain(super().__array_function__(func, types, args, kwargs))

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # Plain arrays inside, so that joblib can write and map them as it does with all arrays.
        return _rebuild_array, (np.asarray(self), self.verdict, self.untouched)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__reduce_ex__(2)

    @property  # type: ignore[misc]
    def strides(self) -> tuple[int, ...]:
        """Bytes to step in each dimension.

        `joblib.hash`, and so ``Pipeline(memory=...)``, never asks how an array is pickled: it takes the
        bytes, the class, dtype, shape and strides. So the strides are what brings the verdict into it.
        """
        strides = np.asarray(self).strides
        return strides if self.verdict is None else _Strides(strides, self)


class _Strides(tuple[int, ...]):
    """Strides that are pickled, and therefore hashed, with what their array carries."""

    carried: tuple[Any, ...]

    def __new__(cls, strides: tuple[int, ...], array: FilteredArray) -> _Strides:
        new = super().__new__(cls, strides)
        new.carried = (array.verdict, array.untouched)
        return new

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain_strides, (tuple(self), *self.carried)


def _plain_strides(strides: tuple[int, ...], *carried: Any) -> tuple[int, ...]:
    return strides


def _plain(result: Any) -> Any:
    if isinstance(result, FilteredArray):
        return np.asarray(result)
    return type(result)(map(_plain, result)) if type(result) in (list, tuple) else result


def _on_plain(name: str) -> Any:
    """Return the method or property `name` of arrays, computed on the plain array."""
    inherited = getattr(np.ndarray, name)
    if not callable(inherited):
        return property(lambda self: getattr(np.asarray(self), name))

    @wraps(inherited, assigned=("__name__",))  # numpy's examples are not ours to test
    def method(self: FilteredArray, *args: Any, **kwargs: Any) -> Any:
        return getattr(np.asarray(self), name)(*args, **kwargs)

    return method


_KEPT = {"dump", "dumps", "resize", "setflags"}  # they pickle the coat, or change the array itself
_ARRAY_PROPERTIES = {"T", "flat", "imag", "mT", "real"}
for _name in dir(np.ndarray):
    if _name in _ARRAY_PROPERTIES or not (_name.startswith("__") or _name in _KEPT):
        if _name in _ARRAY_PROPERTIES or callable(getattr(np.ndarray, _name)):
            setattr(FilteredArray, _name, _on_plain(_name))


def _rebuild_array(rows: NDArray[Any], verdict: Verdict | None, untouched: Any) -> FilteredArray:
    coat = np.ndarray.view(np.asarray(rows), FilteredArray)
    if verdict is not None:
        coat.verdict, coat.untouched = verdict, untouched
    return coat


# Frames


@cache
def _frame_class() -> type[pd.DataFrame]:
    """Make the class when a frame asks for it: pandas is optional, and slow to import."""
    import pandas as pd

    class FilteredFrame(pd.DataFrame):
        """A DataFrame that carries `verdict` and `untouched`; what is computed from it is a plain DataFrame.

        Changes in place change the rows under the verdict; copy first.
        """

        @property
        def _constructor(self) -> type[pd.DataFrame]:
            return pd.DataFrame

        def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
            carried = self.__dict__.get("verdict"), self.__dict__.get("untouched")
            return _rebuild_frame, (pd.DataFrame(self), *carried)

        def __reduce__(self) -> tuple[Any, ...]:
            return self.__reduce_ex__(2)

    FilteredFrame.__module__, FilteredFrame.__qualname__ = __name__, "FilteredFrame"
    return FilteredFrame


def __getattr__(name: str) -> Any:
    if name == "FilteredFrame":
        return _frame_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _rebuild_frame(rows: pd.DataFrame, verdict: Verdict | None, untouched: Any) -> pd.DataFrame:
    coat = _frame_class()(rows)
    if verdict is not None:
        object.__setattr__(coat, "verdict", verdict)  # past pandas, which might take it for a column
        object.__setattr__(coat, "untouched", untouched)
    return coat


def _is_frame(X: Any) -> bool:
    pandas = sys.modules.get("pandas")  # who passes a frame has imported it
    return pandas is not None and isinstance(X, pandas.DataFrame)


# Rows that stay where they are


class IndexedRows:
    """Rows of a memory map or map-style Dataset, in another order, read only when asked for.

    It is a map-style Dataset itself. An integer gives that row as the source gives it; a slice, mask or
    array of row numbers gives a plain array where the source is a memory map, and otherwise `IndexedRows`
    without a verdict.

    Parameters
    ----------
    source : memory map or map-style Dataset
        Has ``__len__`` and ``__getitem__`` of an integer.
    index : int array of shape (m,)
        Which row of the source stands in each place.
    verdict : Verdict, optional
        The judgement of these rows.
    untouched : optional
        The rows before noisy ones were replaced.
    """

    def __init__(
        self, source: Any, index: NDArray[Any], verdict: Verdict | None = None, untouched: Any = None
    ) -> None:
        self.source = source
        self.index = np.asarray(index)
        self.verdict = verdict
        self.untouched = untouched

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: Any) -> Any:
        places = self.index[key]
        return self.source[int(places)] if np.ndim(places) == 0 else type(self)(self.source, places)

    def __copy__(self) -> IndexedRows:
        return type(self)(self.source, self.index)

    def __deepcopy__(self, memo: dict[int, Any]) -> IndexedRows:
        return type(self)(deepcopy(self.source, memo), self.index.copy())


class _IndexedArray(IndexedRows):
    """Indexed rows of a memory map, which any function for arrays can read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array that reading everything would give."""
        return (len(self), *self.source.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return int(self.source.ndim)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the entries."""
        return self.source.dtype

    def __getitem__(self, key: Any) -> Any:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is None or first is Ellipsis:
            return np.asarray(self)[key]
        places = self.index[first]
        rows = np.asarray(self.source[places])  # only these are read
        return rows[(*[slice(None)] * np.ndim(places), *rest)] if rest else rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise InputError("copy must be None or True for rows that lie on disk, got False.")
        return np.asarray(self.source[self.index], dtype=dtype)


def _is_lazy(X: Any) -> bool:
    if isinstance(X, np.memmap | IndexedRows):
        return True
    if isinstance(X, np.ndarray | list | tuple) or hasattr(X, "__array__") or hasattr(X, "toarray"):
        return False  # toarray: a sparse matrix
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        raise InputTypeError(
            "X must be an array, DataFrame, list, torch tensor, memory map or map-style Dataset, "
            f"got {type(X).__name__}."
        )
    return True


def _lazy_rows(X: Any, index: NDArray[Any], verdict: Verdict | None = None, untouched: Any = None) -> Any:
    kind = _IndexedArray if isinstance(X, np.memmap | _IndexedArray) else IndexedRows
    if isinstance(X, IndexedRows):  # never a chain of indices
        X, index = X.source, X.index[index]
    return kind(X, index, verdict, untouched)
