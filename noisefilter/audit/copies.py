"""Copies of a data set and lists beside them: where they may go, and that they are whole or not there."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from noisefilter.atomic import discard, left_over, temporary
from noisefilter.errors import InputError

__all__ = ["check_apart", "check_copy", "whole", "write_list"]

_FILE_SUFFIXES = (".csv", ".npy", ".npz", ".parquet", ".tsv")


def check_apart(source: str | os.PathLike[str], out: Path, what: str = "The output") -> None:
    """Refuse an output inside the source folder, whose class it would be, or one that replaces the source."""
    folder, target = Path(source).resolve(), out.resolve()
    if source != "digits" and folder.is_dir() and target.is_relative_to(folder):
        raise InputError(f"{what} must be outside the source folder, got {str(out)!r}.")
    if source != "digits" and folder.is_relative_to(target):
        raise InputError(f"{what} must not have the source in it, got {str(out)!r}.")


def check_copy(
    out: str | os.PathLike[str], what: str, suffixes: Sequence[str], source: str | os.PathLike[str]
) -> Path:
    """Return the path of a copy that is to be written, if it is free and its name fits.

    Parameters
    ----------
    out : str or path
        Must not exist; its parent must.
    what : str
        What a message calls it.
    suffixes : sequence of str
        One of which it must end in; none for a folder.
    source : str or path
        What is copied; a folder must not get the copy inside it.

    Raises
    ------
    InputError
        If one of these is not so.
    """
    path = Path(out)
    check_new(path, what)
    suffix = path.suffix.lower()
    if suffixes and suffix not in suffixes:
        raise InputError(f"{what} must end in {' or '.join(suffixes)} for this source, got {str(path)!r}.")
    if not suffixes and suffix in _FILE_SUFFIXES:
        raise InputError(f"{what} must be a folder for this source, got {str(path)!r}.")
    check_apart(source, path, what)
    return path


def check_new(path: Path, what: str) -> None:
    """Raise InputError unless something can be written at ``path`` and nothing is there yet."""
    if os.path.lexists(path):
        raise InputError(f"{what} must not exist yet, got {str(path)!r}.")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK)):
        raise InputError(f"{what} must be in a folder that exists and can be written, got {str(path)!r}.")


@contextmanager
def whole(*targets: Path) -> Iterator[list[Path]]:
    """Give a temporary name beside each target; they become the targets when the block ends well.

    Whatever goes wrong, either all targets are there afterwards or none, and nothing else is left. What a
    process left that was killed while it wrote the same targets is removed first.

    Parameters
    ----------
    *targets : Path
        Files or folders that do not exist.

    Raises
    ------
    InputError
        If one has come into being.
    """
    for path in targets:
        for left in left_over(path, "new", path.parent):
            discard(left)
    unfinished = [temporary(path, "new", path.parent) for path in targets]
    done: list[Path] = []
    try:
        yield unfinished
        for path in targets:
            check_new(path, "The output")
        for new, path in zip(unfinished, targets, strict=True):
            new.rename(path)
            done.append(path)
    except BaseException:
        for path in done:
            discard(path)
        raise
    finally:
        for new in unfinished:
            discard(new)


def write_list(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write a CSV file for programs: names verbatim, bytes of a file name that are no UTF-8 as they are."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*columns.values(), strict=True))
