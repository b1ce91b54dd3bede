"""Files and folders that are whole or not there: they are made under a hidden name beside their own.

The name has the number of the process in it, so that what a killed one left is known for that.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

__all__ = ["discard", "left_over", "temporary", "write_whole"]

_WHAT = "part"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is whole or not there, also after a power failure.

    Where it cannot be written, what stood there stays. What a process left that was killed while it wrote
    this file is removed first.
    """
    for left in left_over(path, _WHAT, path.parent):
        discard(left)
    part = temporary(path, _WHAT, path.parent)  # in the same folder: renaming is atomic there
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):  # the name is on the disk once the folder is; Windows has no such thing
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def temporary(path: Path, what: str, folder: Path) -> Path:
    """Return the name that this process has for something on its way to ``path``, or from there."""
    return folder / f".{path.stem}.{os.getpid()}.{what}{path.suffix}"


def left_over(path: Path, what: str, folder: Path) -> list[Path]:
    """Return what processes that are no more have left in a folder under such names.

    Call it before this process has a file of such a name: in a container the next process may well have the
    number of the one that was killed.
    """
    name = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)\.{what}{re.escape(path.suffix)}")
    try:
        matches = [(name.fullmatch(entry), entry) for entry in os.listdir(folder)]
    except OSError:  # no such folder, or one that may be written but not read
        return []
    return [folder / entry for match, entry in matches if match and not _runs(int(match[1]))]


def _runs(process: int) -> bool:
    """Whether another process of this number runs; where that cannot be asked, as if it did."""
    if process == os.getpid():
        return False
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def discard(path: Path) -> None:
    """Remove a file or folder as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
