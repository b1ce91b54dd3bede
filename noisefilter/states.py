"""What a training has become, as named tensors and plain values, and back again to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisefilter.errors import InputError
from noisefilter.verdict import Verdict

__all__ = [
    "behind",
    "check_tensors",
    "load_optimizer_state",
    "load_verdict",
    "named",
    "optimizer_state",
    "verdict_state",
]

_PLAIN_FIELDS = ("threshold", "open_set", "estimated_noise_rate", "noise_rate_interval", "method")
_ARRAY_FIELDS = (
    "labels",
    "classes",
    "scores",
    "partition",
    "alternatives",
    "clean_proba",
    "transition_matrix",
)


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


def verdict_state(verdict: Verdict) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a verdict on class numbers as tensors by the names of its fields, and plain values."""
    arrays = {name: getattr(verdict, name) for name in _ARRAY_FIELDS}
    tensors = {name: torch.tensor(array) for name, array in arrays.items() if array is not None}
    plain = {name: getattr(verdict, name) for name in _PLAIN_FIELDS}
    # JSON does not know numpy's numbers and truths.
    return tensors, {name: v.item() if isinstance(v, np.generic) else v for name, v in plain.items()}


def load_verdict(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> Verdict:
    """Return the verdict of which :func:`verdict_state` was asked; ``rest`` may have been JSON in between."""
    arrays: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    interval = rest["noise_rate_interval"]
    return Verdict(**arrays, **{**rest, "noise_rate_interval": tuple(interval) if interval else None})


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
