"""Pictures as a trained network of torchvision sees them; the weights must be on this machine already."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noisefilter.batches import choose_device
from noisefilter.errors import InputError, ParameterError
from noisefilter.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["embed"]

_BATCH = 32
# DenseNet's published weights have names from before torch forbade points in them.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)")


def embed(
    read: Callable[[int, int], Image | None],
    n: int,
    name: str,
    *,
    image_size: int | None = None,
    device: str = "auto",
    verbose: bool = False,
) -> NDArray[np.float32]:
    """Return the features a trained classifier of torchvision has of pictures, before its last linear layer.

    Pictures are read a batch ahead of the network, in threads; never are all of them in memory.

    Parameters
    ----------
    read : callable
        ``read(i, side)`` returns picture ``i`` of ``n`` in RGB, or None where it cannot be read. It may
        shrink the picture, but not below ``side`` pixels on its short side.
    n : int
        Number of pictures.
    name : str
        A classifier of torchvision, such as ``"resnet18"``, whose weights lie where ``torch.hub`` keeps them.
        The weights torchvision recommends are taken if they are there, else the first others.
    image_size : int, optional
        Side of the square the network gets, in pixels. By default what the weights were made for, often the
        central 224 of 256 pixels; half of it takes a quarter of the time.
    device : str, default="auto"
        Where the network runs: the first CUDA device where there is one, else the CPU.
    verbose : bool, default=False
        Show a progress bar where it takes long.

    Returns
    -------
    (n, d) float32 array
        One row for each picture; NaN where there is none.

    Raises
    ------
    ParameterError
        If torchvision has no classifier of that name, or it cannot work at ``image_size``.
    InputError
        If its weights are not there or cannot be read. Nothing is ever downloaded.
    """
    weights = _weights_here(name)
    sizes = {} if image_size is None else {"crop_size": image_size, "resize_size": image_size}
    transform = weights.transforms(**sizes)
    network = _load(name, weights).to(choose_device(device))
    side = int(transform.resize_size[0])

    def tensor(row: int) -> Tensor | None:
        image = read(row, side)
        return None if image is None else transform(_without_ends(image))

    width = _width(network, int(transform.crop_size[0]), name)
    features = np.full((n, width), np.nan, dtype=np.float32)
    with Progress(f"reading {n:,} images with {name}", n, verbose, trial=4 * _BATCH) as progress:
        for rows, batch in _batches(tensor, n):
            features[rows] = _features(network, batch)
            for _ in rows:
                progress.step()
    return features


def _without_ends(image: Image) -> Image:
    """Return the middle of a very long image: enlarging its ends, which are cut, can take gigabytes."""
    short = min(image.size)
    left, upper = (max(0, (long - 8 * short) // 2) for long in image.size)
    return image.crop((left, upper, image.width - left, image.height - upper)) if left + upper else image


def _batches(tensor: Callable[[int], Tensor | None], n: int) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the numbers and tensors of pictures that can be read, one batch being read ahead."""
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as threads:
        starts = range(0, n, _BATCH)
        ahead = [threads.submit(tensor, row) for row in range(min(n, _BATCH))]
        for start in starts:
            following = range(start + _BATCH, min(n, start + 2 * _BATCH))
            current, ahead = ahead, [threads.submit(tensor, row) for row in following]
            read = {start + i: future.result() for i, future in enumerate(current)}
            found = {row: picture for row, picture in read.items() if picture is not None}
            if found:
                yield list(found), torch.stack(list(found.values()))


class _Backbone(nn.Module):
    """A classifier that returns what its last linear layer gets."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model.eval().to(memory_format=torch.channels_last)
        layers = list(model.modules())
        heads = [layer for layer in layers if isinstance(layer, nn.Linear)]
        # SqueezeNet has none: its classifier is a convolution, whose maps it averages.
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        self.seen: Tensor
        (heads or convolutions)[-1].register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.seen = inputs[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return features (b, d) of pictures (b, 3, H, W)."""
        self.model(x)
        return self.seen.mean(dim=(2, 3)) if self.seen.ndim == 4 else self.seen


@torch.inference_mode()
def _features(network: nn.Module, batch: Tensor) -> NDArray[np.float32]:
    device = next(network.parameters()).device
    features: Tensor = network(batch.to(device, memory_format=torch.channels_last))
    return features.float().cpu().numpy()


def _width(network: nn.Module, size: int, name: str) -> int:
    """Return the number of features, after trying whether the network works at this size."""
    try:
        return _features(network, torch.zeros(1, 3, size, size)).shape[1]
    except (RuntimeError, AssertionError, ValueError) as error:  # each network says it in its own way
        raise ParameterError(
            f"image_size must be a size at which {name} works, got {size}. Without it, the one its weights "
            "were made for is taken."
        ) from error


def _weights_here(name: str) -> Any:
    """Return the weights of a classifier that are on this machine, the recommended ones first."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = get_close_matches(str(name), known, n=3, cutoff=0.4) or ["resnet18", "mobilenet_v3_small"]
        raise ParameterError(
            f"backbone must be a classifier of torchvision, such as {', '.join(map(repr, close))}, got "
            f"{name!r}."
        )
    all_weights = models.get_model_weights(name)
    for weights in (all_weights.DEFAULT, *all_weights):
        if _file_of(weights).is_file():
            return weights
    raise InputError(
        f"The weights of {name} must be on this machine, got no file {str(_file_of(all_weights.DEFAULT))!r}. "
        f"python -c \"import torchvision; torchvision.models.get_model('{name}', weights='DEFAULT')\" "
        "fetches it."
    )


def _file_of(weights: Any) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / str(weights.url).rpartition("/")[2]


def _load(name: str, weights: Any) -> _Backbone:
    """Return a classifier with weights from their file, which is read without running what is in it."""
    from torchvision.models import get_model

    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # what torchvision sets for their trained weights
        options = {"transform_input": True, "init_weights": False}
    elif name.startswith("vit_"):  # their position embedding has the size of the weights
        options = {"image_size": weights.transforms().crop_size[0]}
    path = _file_of(weights)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for key in list(state):  # in place: the dictionary carries versions, which MNASNet asks for
            state[_OLD_NAME.sub(r"\1\2", key)] = state.pop(key)
        model = get_model(name, weights=None, num_classes=len(weights.meta["categories"]), **options)
        model.load_state_dict(state)
    except Exception as error:  # a file of anything can fail in any way
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".:")
        raise InputError(
            f"{str(path)!r} must hold torchvision's weights of {name}, got an error: {reason}."
        ) from error
    return _Backbone(model)
