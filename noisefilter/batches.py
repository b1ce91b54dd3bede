"""Rows by index: arrays kept on the device whole, memory maps and Datasets read lazily.

A batch is an index. Images lie channels-last in memory and are seen as (b, c, h, w), which is how
convolutions are fastest on both CPUs and GPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisefilter.errors import InputError, ParameterError

_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")

_BLOCK_ROWS, _BLOCK_VALUES = 4096, 2**20
_SMALLEST_BATCH = 8  # batch normalization on fewer rows does more harm than good


class Rows(Protocol):
    """What the engine reads: a number of rows of one shape, taken by index."""

    shape: tuple[int, ...]
    device: torch.device

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def take(self, index: Tensor) -> Tensor:
        """Return rows (b, *shape) on the device."""
        ...


class ArrayRows:
    """Rows that lie in one tensor on the device.

    Parameters
    ----------
    data : (n, ...) Tensor
        With ``images=True`` of shape (n, height, width, channels), else taken as they are.
    images : bool
        Whether rows are pictures, to be seen as (channels, height, width).
    """

    def __init__(self, data: Tensor, images: bool = False):
        self.data = data
        self.images = images
        self.device = data.device
        shape = tuple(data.shape[1:])
        self.shape = (shape[2], *shape[:2]) if images else shape

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"data": self.data.cpu()}  # a machine without this device could not read it

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"device": at_hand(state["device"])}
        self.data = self.data.to(self.device)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.data)

    def take(self, index: Tensor) -> Tensor:
        """Return rows (b, *shape)."""
        rows = self.data[index]
        return rows.permute(0, 3, 1, 2) if self.images else rows


class LazyRows:
    """Rows of a memory map or a map-style Dataset, read only when a batch asks for them.

    Parameters
    ----------
    read : callable
        Takes an integer array of b row numbers and returns their (b, ...) array.
    n : int
        Number of rows.
    images : bool
        Whether ``read`` returns (b, height, width, channels).
    device : torch.device
        Where batches go.
    """

    def __init__(
        self,
        read: Callable[[NDArray[np.int64]], NDArray[Any]],
        n: int,
        images: bool,
        device: torch.device,
    ):
        self.read = read
        self.n = n
        self.images = images
        self.device = device
        shape = tuple(read(np.zeros(1, dtype=np.int64)).shape[1:])
        self.shape = (shape[2], *shape[:2]) if images else shape

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"device": at_hand(state["device"])}

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n

    def take(self, index: Tensor) -> Tensor:
        """Return rows (b, *shape)."""
        rows = torch.from_numpy(np.ascontiguousarray(self.read(index.cpu().numpy()))).to(self.device)
        return rows.permute(0, 3, 1, 2) if self.images else rows


class PickedRows:
    """Some rows of other rows, repeats allowed, without a copy."""

    def __init__(self, rows: Rows, index: Tensor):
        self.rows = rows
        self.index = index
        self.shape = rows.shape
        self.device = rows.device

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.index)

    def take(self, index: Tensor) -> Tensor:
        """Return rows (b, *shape)."""
        return self.rows.take(self.index[index])


def picked(rows: Rows, index: NDArray[np.int64]) -> Rows:
    """Return rows ``index`` of ``rows``, which are not copied."""
    return PickedRows(rows, torch.from_numpy(index).to(rows.device))


def first_row(rows: Rows) -> Rows:
    """Return a copy of the first row, where all that is to be kept of rows is their shape and kind."""
    return ArrayRows(rows.take(torch.zeros(1, dtype=torch.int64, device=rows.device)))


def rows_state(rows: Rows) -> tuple[Tensor, bool]:
    """Return all rows in one tensor, as they lie in memory, and whether they are images: see ArrayRows."""
    if isinstance(rows, ArrayRows):
        return rows.data, rows.images
    every = rows.take(torch.arange(len(rows), device=rows.device))
    images = isinstance(rows, LazyRows) and rows.images
    return every.permute(0, 2, 3, 1) if images else every, images


def load_rows(data: Tensor, images: bool, device: torch.device) -> ArrayRows:
    """Return the rows of which :func:`rows_state` was asked.

    Raises
    ------
    InputError
        If these can be no rows: not of numbers, or not finite.
    """
    kinds = (torch.uint8, torch.float32, torch.float64)
    if data.dtype not in kinds or data.ndim < 2 or (images and data.ndim != 4) or not data.numel():
        raise InputError(
            f"Rows must be numbers of shape (n, ...), got {data.dtype} of shape {tuple(data.shape)}."
        )
    if not torch.isfinite(data).all():
        raise InputError("Rows must be finite, got NaN or infinity.")
    return ArrayRows(data.to(device), images)


def choose_device(device: str) -> torch.device:
    """``"auto"`` is the first CUDA device where there is one, else the CPU; any other name is torch's own."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ParameterError(
            f"device must be 'auto' or a device that torch has on this machine, got {device!r}."
        ) from error


def within_memory(
    method: Callable[Concatenate[Any, _Given], _Returned],
) -> Callable[Concatenate[Any, _Given], _Returned]:
    """Have a method of an estimator say in one sentence that the memory of a GPU does not suffice.

    What is raised then holds nothing of what lies there, so that a smaller batch can be tried at once.
    """

    @wraps(method)
    def call(self: Any, /, *args: _Given.args, **kwargs: _Given.kwargs) -> _Returned:
        try:
            return method(self, *args, **kwargs)
        except torch.OutOfMemoryError as error:
            reason = str(error).partition("\n")[0][:200]
        size = getattr(self, "batch_size", None)
        # Not in the block above, or that error would keep the tensors of all its frames alive.
        raise ParameterError(
            "batch_size must leave room in the memory of the device, got "
            f"{'its default' if size is None else repr(size)} ({reason}). Halve it, hand over a memory map, "
            "which is read batch by batch, or take device='cpu'."
        )

    return call


def at_hand(device: torch.device | str) -> torch.device:
    """Return the device, or the CPU where this machine has no such device."""
    try:
        return choose_device(str(device))
    except ParameterError:
        return torch.device("cpu")


def in_order(rows: Rows, batch_size: int) -> Iterator[Tensor]:
    """Yield the row numbers of ``rows`` in order, ``batch_size`` at a time."""
    yield from torch.arange(len(rows), device=rows.device).split(batch_size)


def gathered(batches: Iterable[tuple[Tensor, ...]], n: int) -> list[NDArray[Any]]:
    """Return arrays (n, ...) of what batches give that are asked for in row order, without a second copy."""
    whole: list[Tensor] = []
    start = 0
    for batch in batches:
        whole = whole or [torch.empty((n, *part.shape[1:]), dtype=part.dtype) for part in batch]
        stop = start + len(batch[0])
        for array, part in zip(whole, batch, strict=True):
            array[start:stop] = part
        start = stop
    return [array.numpy() for array in whole]


def shuffled(n: int, batch_size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return the batches of one epoch in random order.

    A last batch of fewer than 8 rows joins the one before it, because batch normalization fails on
    one row and misleads on a few.
    """
    batches = torch.randperm(n, generator=generator, device=generator.device).split(int(batch_size))
    if len(batches) > 1 and len(batches[-1]) < min(_SMALLEST_BATCH, batch_size):
        batches = (*batches[:-2], torch.cat(batches[-2:]))
    return batches


def count_batches(n: int, batch_size: int) -> int:
    """Return how many batches :func:`shuffled` gives."""
    whole, rest = divmod(n, batch_size)
    return max(1, whole + (rest >= min(_SMALLEST_BATCH, batch_size)))


def in_blocks(rows: Rows) -> Iterator[Tensor]:
    """Yield the row numbers of ``rows`` in order, for a look at them that keeps nothing.

    Of wide rows fewer come at a time: what is held does not grow with them.
    """
    yield from in_order(rows, max(1, min(_BLOCK_ROWS, _BLOCK_VALUES // max(1, math.prod(rows.shape)))))


def statistics(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation in float64, per column of (d,) rows, per channel of images.

    Two passes: squares of large offsets would eat the digits of a one-pass variance.
    """
    axes = (0, 2, 3) if len(rows.shape) == 3 else (0,)
    count = len(rows) * (rows.shape[1] * rows.shape[2] if len(rows.shape) == 3 else 1)
    zero = torch.zeros((), dtype=torch.float64, device=rows.device)
    mean = sum((rows.take(i).double().sum(axes) for i in in_blocks(rows)), zero) / count
    wide = mean[:, None, None] if len(rows.shape) == 3 else mean
    squares = ((rows.take(i).double() - wide).square().sum(axes) for i in in_blocks(rows))
    return mean, (sum(squares, zero) / count).sqrt()
