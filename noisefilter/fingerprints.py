"""What a training depends on, in a few words that can be kept and compared: parameters, arrays, rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from hashlib import blake2b
from os import PathLike, fspath
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from noisefilter.batches import LazyRows, Rows, in_blocks, picked

__all__ = ["count_copies", "described", "digest", "fingerprint"]

_DEEPEST = 6
_SAMPLE = 256  # rows read of those that lie on disk


def digest(*arrays: Any) -> str:
    """Return a short text that arrays share only if they are equal in type, shape and every bit."""
    total = blake2b(digest_size=16)
    for array in arrays:
        array = np.asarray(array)
        total.update(f"{array.dtype.str} {array.shape} ".encode())
        known = array.dtype.kind != "O"
        total.update(np.ascontiguousarray(array).data if known else repr(array.tolist()).encode())
    return total.hexdigest()


def fingerprint(rows: Rows) -> str:
    """Return a short text by which rows are known again.

    Of rows read from a memory map or Dataset a sample stands for all. Where an item differs from one reading
    to the next, as with a random transform, number and shape of the rows are all that is said.
    """
    size = f"{len(rows)} rows of shape {tuple(rows.shape)}"
    if not isinstance(rows, LazyRows):
        return f"{size}, {_digest_of(rows)}"
    places = np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))
    first, second = (_digest_of(picked(rows, places)) for _ in range(2))
    return f"{size}, {first}" if first == second else size


def _digest_of(rows: Rows) -> str:
    return digest(*(_read(rows, index) for index in in_blocks(rows)))


def _read(rows: Rows, index: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(rows.take(index).cpu().numpy())


def count_copies(rows: Rows, codes: NDArray[np.int64]) -> tuple[int, int]:
    """Return how many rows are exact copies of other ones, and how many of rows of the same class."""
    hashes = np.array(
        [hash(row.tobytes()) for index in in_blocks(rows) for row in _read(rows, index)],
        dtype=np.int64,
    )
    both = np.array([hash(pair) for pair in zip(hashes.tolist(), codes.tolist(), strict=True)])
    return len(rows) - len(np.unique(hashes)), len(rows) - len(np.unique(both))


def described(value: Any, depth: int = 0, free: Collection[str] = ()) -> Any:
    """Return a parameter of any kind as JSON can hold it; equal only for what is equal, in any process.

    Classes go by their names, functions by name, code, defaults and what they enclose, estimators by class
    and parameters, arrays and generators by a digest, other objects by class and attributes. Parameters of
    estimators, at any depth, whose names are in ``free`` are left out. What a function only looks up when it
    is called, another function say, counts by its name.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, PathLike):
        return str(fspath(value))
    if isinstance(value, np.ndarray | Tensor):
        return digest(value.detach().cpu().numpy() if isinstance(value, Tensor) else value)
    if isinstance(value, Mapping):
        return {str(name): described(item, depth + 1, free) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item, depth + 1, free) for item in value]
    if hasattr(value, "__qualname__") and not isinstance(value, FunctionType | MethodType):
        return _name(value)
    kind = _name(value if hasattr(value, "__qualname__") else type(value))
    return kind if depth >= _DEEPEST else {"class": kind, **described(_parts(value, free), depth + 1, free)}


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def _function(function: FunctionType) -> dict[str, Any]:
    """Return what a function does, whatever its name: all lambdas of a module have the same."""
    return {
        "code": blake2b(_said(function.__code__).encode(), digest_size=16).hexdigest(),
        "defaults": function.__defaults__,
        "keywords": function.__kwdefaults__,
        "encloses": [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)],
    }


def _filled(cell: CellType) -> bool:
    """Whether the variable that a function encloses has been given a value yet."""
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _said(constant: Any) -> str:
    """Return code, or a constant in it, as text that is the same in any process."""
    if isinstance(constant, CodeType):
        names = (constant.co_names, constant.co_varnames, constant.co_freevars)
        counts = (constant.co_argcount, constant.co_posonlyargcount, constant.co_kwonlyargcount)
        return f"{constant.co_code.hex()} {names} {counts} {constant.co_flags} {_said(constant.co_consts)}"
    if isinstance(constant, tuple):
        return f"({', '.join(map(_said, constant))})"
    if isinstance(constant, frozenset):
        return f"{{{', '.join(sorted(map(_said, constant)))}}}"
    return repr(constant)


def _parts(value: Any, free: Collection[str]) -> Mapping[str, Any]:
    """Return what makes an object differ from others of its class."""
    if isinstance(value, np.random.RandomState):
        return {"state": value.get_state()}
    if isinstance(value, np.random.Generator):
        return {"state": value.bit_generator.state}
    if isinstance(value, FunctionType):
        return _function(value)
    if isinstance(value, MethodType):
        return {"self": value.__self__, "function": value.__func__}
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if hasattr(value, "get_params"):
        parameters: Mapping[str, Any] = value.get_params(deep=False)
        return {name: given for name, given in parameters.items() if name not in free}
    return vars(value) if hasattr(value, "__dict__") else {"value": str(value)}
