"""What a training has become, as named tensors and plain values, and back again to the same bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisefilter.errors import InputError, InputTypeError
from noisefilter.verdict import Verdict

__all__ = [
    "VERDICT_ARRAYS",
    "VERDICT_VALUES",
    "array_state",
    "behind",
    "check_tensors",
    "load_array",
    "load_optimizer_state",
    "load_verdict",
    "named",
    "optimizer_state",
    "verdict_parts",
    "verdict_state",
    "with_parts",
]

VERDICT_VALUES = ("threshold", "open_set", "estimated_noise_rate", "noise_rate_interval", "method")
VERDICT_ARRAYS = (
    "labels",
    "classes",
    "scores",
    "partition",
    "alternatives",
    "clean_proba",
    "transition_matrix",
)


_OF_TORCH = frozenset(("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"))
# A fixed list: what numpy makes of any other text is not asked.
_DTYPE = re.compile(r"[<>|](?:[iuf][1248]|[US][1-9]\d{0,6}|[mM]8\[\d{0,9}[a-zA-Z]{1,2}\])")
_LAST_LETTER = 0x10FFFF


def named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with ``prefix`` in front of their names."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def behind(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``prefix``, by what stands behind it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what an optimizer remembers, and the numbers it works with.

    Returns
    -------
    tensors : dict of str to Tensor
        By the number of the parameter and the optimizer's own name: ``"0.momentum_buffer"``. Not copied.
    rest : dict
        ``"groups"``, the numbers of each parameter group (``lr``, ``momentum``, ...), and ``"numbers"``, what
        is remembered as a plain number.
    """
    state = optimizer.state_dict()
    remembered = {
        f"{number}.{name}": value
        for number, values in state["state"].items()
        for name, value in values.items()
    }
    tensors = {name: value for name, value in remembered.items() if isinstance(value, Tensor)}
    numbers = {name: value for name, value in remembered.items() if name not in tensors}
    return tensors, {
        "groups": [_without_params(group) for group in state["param_groups"]],
        "numbers": numbers,
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> None:
    """Put back what :func:`optimizer_state` returned, copied; ``rest`` may have been JSON in between.

    Raises
    ------
    InputError
        If it is of an optimizer with other numbers or other parameters.
    """
    own = optimizer.state_dict()["param_groups"]
    names = [sorted(_without_params(group)) for group in own]
    saved = [sorted(group) for group in rest["groups"]]
    if names != saved:
        raise InputError(f"The parameter groups of the optimizer must have {names}, got {saved}.")
    groups = [
        {name: _like(group[name], value) for name, value in given.items()} | {"params": group["params"]}
        for group, given in zip(own, rest["groups"], strict=True)
    ]
    params = [param for group in optimizer.param_groups for param in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for place, value in {**rest["numbers"], **tensors}.items():
        number, name = place.split(".", 1)
        if int(number) >= len(params):
            raise InputError(f"The optimizer must have {len(params)} parameters, got a state for {place}.")
        state.setdefault(int(number), {})[name] = _laid_out(value, params[int(number)])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def verdict_parts(verdict: Verdict) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays of a verdict by the names of its fields, and its plain values."""
    arrays = {name: getattr(verdict, name) for name in VERDICT_ARRAYS}
    values = {name: getattr(verdict, name) for name in VERDICT_VALUES}
    # JSON does not know numpy's numbers and truths.
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: array for name, array in arrays.items() if array is not None}, plain


def with_parts(arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> Verdict:
    """Return the verdict of these parts of :func:`verdict_parts`; values may have been JSON in between."""
    interval = values["noise_rate_interval"]
    fields: dict[str, Any] = {
        **arrays,
        **values,
        "noise_rate_interval": tuple(interval) if interval else None,
    }
    return Verdict(**fields)


def verdict_state(verdict: Verdict) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a verdict on class numbers as tensors by the names of its fields, and plain values."""
    arrays, plain = verdict_parts(verdict)
    return {name: torch.tensor(array) for name, array in arrays.items()}, plain


def load_verdict(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> Verdict:
    """Return the verdict of which :func:`verdict_state` was asked; ``rest`` may have been JSON in between."""
    return with_parts({name: tensor.cpu().numpy() for name, tensor in tensors.items()}, rest)


def array_state(array: NDArray[Any], what: str) -> tuple[Tensor, dict[str, Any] | None]:
    """Return an array, also of texts, dates or objects, as a tensor, and what else it takes to get it back.

    Arrays of dtypes that torch does not have are bytes, one more axis of them. An array of objects is numbers
    into a list of its values, which must be texts, booleans or finite numbers.

    Parameters
    ----------
    array : array of at least one dimension
    what : str
        What a message calls it.

    Raises
    ------
    InputTypeError
        If its dtype, or an object in it, is none of those.
    """
    if array.dtype.kind == "O":
        return _coded(array, what)
    if array.dtype.isnative and array.dtype.name in _OF_TORCH:
        return torch.tensor(array), None
    if not _DTYPE.fullmatch(array.dtype.str):
        raise InputTypeError(f"{what} must be numbers, texts or dates to be saved, got dtype {array.dtype}.")
    raw = np.ascontiguousarray(array)
    return torch.tensor(raw.view(np.uint8).reshape(*raw.shape, raw.itemsize)), {"dtype": raw.dtype.str}


def load_array(tensor: Tensor, rest: Mapping[str, Any] | None) -> NDArray[Any]:
    """Return the array of which :func:`array_state` was asked; ``rest`` may come from anywhere.

    Raises
    ------
    InputError
        If the two do not fit together.
    """
    array: NDArray[Any] = tensor.cpu().numpy()
    if rest is None:
        return array
    if "values" in rest:
        return _decoded(array, rest["values"])
    text = rest["dtype"]
    if not isinstance(text, str) or not _DTYPE.fullmatch(text):
        raise InputError(f"A dtype must be one of numbers, texts or dates, got {text!r:.60}.")
    dtype = np.dtype(text)
    if array.dtype != np.uint8 or array.ndim < 2 or array.shape[-1] != dtype.itemsize:
        raise InputError(
            f"An array of {text} must be bytes of shape (..., {dtype.itemsize}), got {array.dtype} of shape "
            f"{array.shape}."
        )
    found = np.ascontiguousarray(array).view(dtype)[..., 0]
    if dtype.kind == "U" and found.size:
        letters = np.ascontiguousarray(found).view(dtype.byteorder + "u4")
        if letters.max() > _LAST_LETTER:
            raise InputError("Texts must be made of letters that Unicode has, got others.")
    return found


def _coded(array: NDArray[Any], what: str) -> tuple[Tensor, dict[str, Any]]:
    items = [item.item() if isinstance(item, np.generic) else item for item in array.ravel().tolist()]
    _check_values(items, what)
    # Beside its type: 1, 1.0 and True are equal.
    places: dict[tuple[type, Any], int] = {}
    codes = [places.setdefault((type(item), item), len(places)) for item in items]
    numbers = torch.tensor(codes, dtype=torch.int32).reshape(array.shape)
    return numbers, {"values": [value for _, value in places]}


def _decoded(codes: NDArray[Any], values: Any) -> NDArray[Any]:
    if not isinstance(values, list):
        raise InputError(f"The values of an array must be a list, got {type(values).__name__}.")
    _check_values(values, "The values of an array")
    inside = not codes.size or 0 <= codes.min() <= codes.max() < len(values)
    if codes.dtype != np.int32 or not inside:
        raise InputError(
            f"The entries of an array must be numbers into its {len(values)} values, got others."
        )
    table = np.empty(len(values), dtype=object)
    table[:] = values
    return np.asarray(table[codes])


def _check_values(values: list[Any], what: str) -> None:
    for value in values:
        plain = type(value) in (str, int, bool) or (type(value) is float and np.isfinite(value))
        if not plain:
            raise InputTypeError(
                f"{what} must be texts, booleans or finite numbers to be saved, got {value!r:.60}."
            )


def check_tensors(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], free: set[str]) -> None:
    """Check that ``tensors`` are those wanted, in name, shape and type, and those of any kind in ``free``.

    Raises
    ------
    InputError
        If a name is missing or foreign, or a tensor is of another shape or type.
    """
    names = set(wanted) | free
    if missing := sorted(names - set(tensors)):
        raise InputError(f"The state must have every tensor of the training, got none named {missing}.")
    if foreign := sorted(set(tensors) - names):
        raise InputError(f"The state must have tensors of this training alone, got {foreign}.")
    for name, own in wanted.items():
        given = tensors[name]
        if given.shape != own.shape or given.dtype != own.dtype:
            raise InputError(
                f"{name} must be a tensor of shape {tuple(own.shape)} and {own.dtype}, "
                f"got {tuple(given.shape)} and {given.dtype}."
            )


def _without_params(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _like(own: Any, value: Any) -> Any:
    return tuple(value) if isinstance(own, tuple) else value  # JSON knows lists alone


def _laid_out(value: Any, param: Tensor) -> Any:
    """Copy to the memory layout of the parameter: in another, sums may be rounded differently."""
    if not isinstance(value, Tensor):
        return value
    if value.shape != param.shape:
        return value.clone()
    return torch.empty_like(param, dtype=value.dtype, requires_grad=False).copy_(value)
