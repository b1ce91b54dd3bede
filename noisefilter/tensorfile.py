"""One file of named tensors and a description in JSON: written whole, and checked before it is believed.

It is a safetensors file, in which there is no code and no name of another file. What is read of it takes
memory in proportion to its size: nothing in it is compressed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save as as_bytes
from torch import Tensor

from noisefilter.atomic import write_whole
from noisefilter.checkpoint import plain, read_tensors
from noisefilter.errors import FileError, ParameterError
from noisefilter.fingerprints import digest

__all__ = ["read_file", "write_file"]

_HEADER, _DIGEST = "noisefilter", "digest"
_LARGEST_HEADER = 16 * 2**20  # bytes, of names and description; safetensors would read 100 million
_LENGTH = 8  # bytes that say how long the header is


def write_file(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there; one of that name is replaced, or stays as it was.

    Parameters
    ----------
    path : Path
        In a folder that is there.
    tensors : mapping of str to Tensor
        On any device.
    description : mapping of str to what JSON can write
        Without NaN and infinity.

    Raises
    ------
    ParameterError
        If names and description are too long to be read again.
    OSError
        If it cannot be written there.
    """
    own = plain(tensors)
    header = {**description, _DIGEST: _seal(description, own)}
    data = as_bytes(own, {_HEADER: json.dumps(header, allow_nan=False)})
    if (length := int.from_bytes(data[:_LENGTH], "little")) > _LARGEST_HEADER:
        raise ParameterError(
            f"What is saved must have names and parameters of at most {_LARGEST_HEADER:,} bytes, got "
            f"{length:,}."
        )
    write_whole(path, data)


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return description and tensors, on the CPU, of a file that :func:`write_file` wrote.

    Raises
    ------
    FileError
        If it is another file, or not all of it is as it was written.
    OSError
        If there is no file that can be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
    if length > _LARGEST_HEADER:
        raise FileError(f"{_rule(path)}, got another kind of file.")
    try:
        header, tensors = read_tensors(path)
        seal = header.pop(_DIGEST)
        whole = seal == _seal(header, tensors)
    except (SafetensorError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FileError(
            f"{_rule(path)}, got one that cannot be read as such ({type(error).__name__}: {error!s:.200})."
        ) from error
    if not whole:
        raise FileError(f"{_rule(path)}, got one that was changed since.")
    return header, tensors


def _rule(path: Path) -> str:
    return f"{path} must be a whole file that noisefilter.save wrote"


def _seal(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return a digest of everything: it finds what went wrong on a disk, and is no signature."""
    names = sorted(tensors)
    listed = [[name, str(tensors[name].dtype), list(tensors[name].shape)] for name in names]
    said = json.dumps([description, listed], allow_nan=False)
    parts = (tensors[name].reshape(-1).view(torch.uint8).numpy() for name in names)
    return digest(np.frombuffer(said.encode(), dtype=np.uint8), *parts)
