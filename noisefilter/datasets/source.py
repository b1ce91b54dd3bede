"""`Source`, rows ready to be judged, and `Store`, where they lie, which can write a changed copy."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from noisefilter.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from noisefilter.datasets.columns import Columns

__all__ = ["Source", "Store", "is_missing", "is_sound_text", "listed", "reason"]

_NAMES_SHOWN = 5


class Store(ABC):
    """Where the N rows lie: knows their labels, shows one as people see it, writes a changed copy.

    Opening a store reads no more than labels and names need; `load` makes the rows numeric.

    Attributes
    ----------
    labels : (N,) array
        As stored, in the order of the rows; empty texts where it was opened without labels.
    names : list of N str or None
        Files, with ``/``, below the root of a folder; None where rows have numbers only.
    description : str
        One line for people.
    kind : "images" or "table"
        Whether people look at a row as a picture or as values.
    suffixes : tuple of str
        What the name of a copy may end in; empty where a copy is a folder.
    truth : (N,) array or None
        The right labels, where they are known.
    left_out : sequence of str
        Files, rows or columns that were found but are no part of the store.
    """

    labels: NDArray[Any]
    names: list[str] | None = None
    description: str
    kind: Literal["images", "table"] = "table"
    suffixes: tuple[str, ...] = ()
    truth: NDArray[Any] | None = None
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        """Return the number of rows N."""
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """Hash of the labels and names, by which decisions know the data set they were made for."""
        digest = hashlib.sha256()
        for values in (self.labels.tolist(), self.names or []):
            digest.update(b"%d;" % len(values))
            for value in values:  # with its length, or text could run into the next
                text = str(value).encode("utf-8", "surrogatepass")
                digest.update(b"-;" if is_missing(value) else b"%d;%s" % (len(text), text))
        return digest.hexdigest()

    def usable(self, skip_unreadable: bool = False) -> tuple[NDArray[np.intp], list[str]]:
        """Return the rows that have a label, and all that is left out, with a line for those that have none.

        Parameters
        ----------
        skip_unreadable : bool, default=False
            Go on without the rows that have no label.

        Raises
        ------
        InputError
            If rows have no label, unless they are to be skipped; or if none has one.
        """
        missing = np.array([is_missing(label) for label in self.labels.tolist()], dtype=bool)
        without = np.flatnonzero(missing)
        if not len(without):
            return np.arange(len(self)), list(self.left_out)
        if not skip_unreadable or len(without) == len(self):
            raise InputError(
                f"Every row must have a label, got {len(without):,} of {len(self):,} without one, the first "
                f"row {without[0]}. skip_unreadable (--skip-unreadable) goes on without them."
            )
        what = "row" if len(without) == 1 else "rows"
        line = f"{len(without):,} {what} without a label: {listed(without.tolist())}"
        return np.flatnonzero(~missing), [*self.left_out, line]

    def picture(self, row: int) -> Image | None:
        """Return one row as a picture, or None where rows are no pictures."""
        return None

    def cells(self, rows: NDArray[np.intp]) -> pd.DataFrame | None:
        """Return what a person would read of these rows, one column each, without the label; or None."""
        return None

    @abstractmethod
    def load(self, **options: Any) -> Source:
        """Make the rows numeric."""

    @abstractmethod
    def write(self, out: Path, rows: NDArray[np.intp], labels: NDArray[Any]) -> list[str] | None:
        """Write a copy that has only ``rows``, in that order, under ``labels``.

        Parameters
        ----------
        out : Path
            Does not exist; the parent does. The caller sees to it that a copy is whole or not there.
        rows : (m,) int array
            Numbers of rows, each in [0, N).
        labels : (m,) array
            Their new labels, each one of the labels there are.

        Returns
        -------
        list of m str, or None
            The names of the rows in the copy, where they have names.
        """


@dataclass(frozen=True, eq=False)
class Source:
    """Rows and their labels, with what a report says about them.

    Parameters
    ----------
    X : (n, d) array, or (n, H, W) or (n, H, W, 3) array of images
        The rows as a filter takes them; of a folder that is streamed, a map-style Dataset.
    y : (n,) array
        The labels as given.
    names : list of n str, optional
        What each row is called, for a folder its path inside the folder, with ``/``.
    kind : "images" or "table"
        Whether people look at a row as a picture or as values.
    description : str
        One line for people.
    truth : (n,) array, optional
        The right labels, where they are known.
    left_out : list of str
        Files, rows or columns that were found but not used, and why.
    rows : (n,) int array, optional
        Which rows of the store these are; all of them by default.
    store : Store, optional
        Where they came from.
    preparation : list of (str, str), optional
        How each column became numeric: its name, and what was done.
    columns : Columns, optional
        Makes more rows numeric in the same way, where rows are those of a table.
    verified : (n,) int8 array, optional
        1 where people found the label right, 0 where they found it wrong, -1 where nobody looked.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    names: list[str] | None
    kind: Literal["images", "table"]
    description: str
    truth: NDArray[Any] | None = None
    left_out: Sequence[str] = ()
    rows: NDArray[np.intp] | None = None
    store: Store | None = None
    preparation: Sequence[tuple[str, str]] = ()
    columns: Columns | None = None
    verified: NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        if self.rows is None:
            object.__setattr__(self, "rows", np.arange(len(self.y)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)

    def take(self, index: NDArray[Any]) -> Source:
        """Return the rows of ``index``, numbers or a mask, as a source of their own."""
        kept = np.arange(len(self))[index]
        by_row = ("X", "y", "truth", "rows", "verified")
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name in by_row}
        changed = {name: value[kept] for name, value in parts.items() if value is not None}
        names = None if self.names is None else [self.names[row] for row in kept]
        return replace(self, names=names, **changed)


def is_missing(label: Any) -> bool:
    """Whether a label is None, NaN or pandas' NA."""
    try:
        return label is None or bool(label != label)
    except TypeError:  # NA is neither equal nor unequal to itself
        return True


def is_sound_text(array: NDArray[Any]) -> bool:
    """Whether an array from a file has no characters that do not exist, of which Python can make no text."""
    if array.dtype.kind != "U" or not array.size or not array.dtype.itemsize:
        return True
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return bool(native.reshape(-1).view(np.uint32).max() <= sys.maxunicode)


def reason(error: BaseException) -> str:
    """Say in a part of a sentence what somebody else's error says, however long or empty that is."""
    said = getattr(error, "strerror", None) or str(error)
    return " ".join(str(said).split())[:200].rstrip(".") or type(error).__name__


def listed(names: Sequence[Any]) -> str:
    """Name the first few; ``repr`` keeps a line break or an odd byte in a name from breaking the sentence."""
    shown = ", ".join(map(repr, names[:_NAMES_SHOWN]))
    return (
        f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown or "nothing"
    )
