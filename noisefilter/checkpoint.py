"""Checkpoints of a training: one file per epoch, whole or not there, and never of another training.

A file holds tensors in the safetensors format and JSON in its header. Nothing is pickled, so a checkpoint
from somewhere else can be wrong, but cannot run code.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as as_bytes
from torch import Tensor

from noisefilter.atomic import write_whole
from noisefilter.errors import ParameterError

__all__ = ["Checkpoints", "Saved", "plain", "read_tensors"]

_FORMAT = 1
_HEADER = "noisefilter"
_LENGTH = 8  # bytes of a safetensors file that say how long its header is
_NAME = re.compile(r"epoch-(\d{4,})\.safetensors")
_KEPT = 2
_WIDEST = 60  # characters of a value in an error


class Saved(NamedTuple):
    """A checkpoint that was read: its epoch, tensors on the CPU, and the record as JSON gave it back."""

    epoch: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training in a folder: ``epoch-0012.safetensors`` and the one before it.

    One training at a time writes to a folder.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there. Files of other names in it are left alone.
    configuration : mapping of str to anything that JSON can write
        What the bits of the training depend on: its parameters, a fingerprint of its data.

    Raises
    ------
    ParameterError
        If the folder cannot be made or written to.
    """

    def __init__(self, folder: str | Path, configuration: Mapping[str, Any]):
        self.folder = Path(folder)
        self.configuration = {**configuration, "format": _FORMAT}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(
                f"checkpoint_dir must be a folder that can be written to, got {str(folder)!r} ({error})."
            ) from error
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise ParameterError(
                f"checkpoint_dir must be a folder that can be written to, got {str(folder)!r}, which is "
                "read-only."
            )

    def save(self, epoch: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Write the checkpoint of an epoch, and remove all but the last two.

        Whoever kills the process, or whatever happens to the machine: a file of this name is whole. If it
        cannot be written, on a full disk say, a warning says so and the earlier checkpoints stay.

        Parameters
        ----------
        epoch : int
            At least 0.
        tensors : mapping of str to Tensor
            On any device, in any memory layout.
        record : mapping of str to anything that JSON can write
            Whatever else is needed to go on.
        """
        header = {"epoch": epoch, "configuration": self.configuration, "record": dict(record)}
        path = self.folder / f"epoch-{epoch:04d}.safetensors"
        try:
            write_whole(path, as_bytes(plain(tensors), {_HEADER: json.dumps(header)}))
        except OSError as error:
            warnings.warn(
                f"The checkpoint of epoch {epoch} could not be written ({error}). Training goes on.",
                UserWarning,
                stacklevel=2,
            )
            return
        self._tidy(epoch)

    def _tidy(self, epoch: int) -> None:
        """Remove all but the last two of the checkpoints up to an epoch, which is a good one."""
        for _, old in [found for found in self._files() if found[0] <= epoch][:-_KEPT]:
            with suppress(OSError):
                old.unlink()

    def latest(self) -> Saved | None:
        """Return the newest whole checkpoint, ``None`` where there is none.

        A file of such a name that is none, or not whole, is passed over with a warning.

        Raises
        ------
        ParameterError
            If it is of another configuration; the message names what differs.
        """
        for left_over in self.folder.glob(".epoch-*.part.safetensors"):  # of a process killed while writing
            with suppress(OSError):
                left_over.unlink()
        for _, path in reversed(self._files()):
            found = _read(path)
            if found is not None:
                configuration, saved = found
                self._compare(configuration)
                self._tidy(saved.epoch)  # a process may have been killed before it did
                return saved
        return None

    def _files(self) -> list[tuple[int, Path]]:
        """List the epochs that have a file, and the files, oldest first."""
        matches = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in matches if match)

    def _compare(self, saved: Mapping[str, Any]) -> None:
        then, now = _flat(saved), _flat(self.configuration)
        names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if names:
            pairs = (f"{name} was {_cut(then.get(name))}, is {_cut(now.get(name))}" for name in names)
            raise ParameterError(
                f"checkpoint_dir must hold checkpoints of this same training, got {str(self.folder)!r} "
                f"with those of another: {'; '.join(pairs)}. Name another folder, or empty this one."
            )


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as the format has them: rows behind one another, and no memory that two share.

    Where they are so already they are not copied.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        own = tensor.detach().cpu().contiguous()
        memory = own.untyped_storage().data_ptr()
        plain[name] = own.clone() if memory in seen else own
        seen.add(memory)
    return plain


def read_tensors(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """Return what the header of a safetensors file says under our name, and the tensors, on the CPU.

    All bytes are read at once. From a mapped file torch makes a tensor by way of code in which Ctrl-C becomes
    a ValueError, as if the file were spoiled.
    """
    data = path.read_bytes()
    tensors = from_bytes(data)  # checks the header, too
    header = json.loads(data[_LENGTH : _LENGTH + int.from_bytes(data[:_LENGTH], "little")])
    return json.loads(header["__metadata__"][_HEADER]), tensors


def _read(path: Path) -> tuple[dict[str, Any], Saved] | None:
    """Return configuration and contents of a file, ``None`` and a warning where it is no whole checkpoint."""
    try:
        header, tensors = read_tensors(path)
        return dict(header["configuration"]), Saved(int(header["epoch"]), tensors, dict(header["record"]))
    except (SafetensorError, OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        warnings.warn(
            f"{path} must be a whole checkpoint, got a file that cannot be read as one "
            f"({type(error).__name__}: {error}). It is passed over.",
            UserWarning,
            stacklevel=3,
        )
        return None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return values as JSON has them (a tuple is a list, NaN equals itself), nested names with dots."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = json.dumps(value, sort_keys=True)
    return flat


def _cut(text: str | None) -> str:
    if text is None:
        return "not there"
    return text if len(text) <= _WIDEST else text[:_WIDEST] + "..."
