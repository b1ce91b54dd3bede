"""The right labels of a data set, where somebody knows them."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.audit.decisions import class_of, plain
from noisefilter.datasets import Store
from noisefilter.datasets.source import is_sound_text, listed, reason
from noisefilter.errors import InputError

__all__ = ["read_truth"]


def read_truth(path: str | os.PathLike[str], store: Store) -> NDArray[Any]:
    """Read the right label of every row.

    Parameters
    ----------
    path : str or path
        A ``.csv`` file with the column ``label``, and ``file`` where rows have names; where they have none,
        an optional column ``row`` (from 0), without which the labels come in row order. Or a ``.npy`` file of
        N labels in row order.
    store : Store
        The data set.

    Returns
    -------
    (N,) array
        Compared as text: of the dtype of the store's labels where all of them are classes there, else
        objects.

    Raises
    ------
    InputError
        If the file cannot be read or does not have one label for each row.
    """
    name = repr(os.fspath(path))
    readers = {".csv": _csv_labels, ".npy": _npy_labels}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise InputError(f"truth must be a .csv or .npy file, got {name}.")
    try:
        texts = reader(Path(path), name, store)
    except OSError as error:
        raise InputError(f"{name} must be a readable file, got an error: {error.strerror}.") from error
    classes = class_of(store.labels)
    strangers = sorted(set(texts) - classes.keys())
    if len(strangers) == len(set(texts)):
        raise InputError(
            f"The labels in {name} must be those of the data set, got {listed(strangers)}; it has "
            f"{listed(list(classes))}."
        )
    if not strangers:
        return plain(np.array([classes[text] for text in texts], dtype=store.labels.dtype))
    truth = np.empty(len(texts), dtype=object)
    truth[:] = [classes.get(text, text) for text in texts]
    return truth


def _npy_labels(path: Path, name: str, store: Store) -> list[str]:
    try:
        array = np.load(path, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a header is text in Python's own syntax: it can be wrong in many ways
        raise InputError(
            f"{name} must be a sound .npy file of numbers or text, got an error: {reason(error)}."
        ) from error
    if not isinstance(array, np.ndarray) or array.shape != (len(store),):
        found = array.shape if isinstance(array, np.ndarray) else "several arrays"
        raise InputError(f"{name} must have one label for each of the {len(store)} rows, got {found}.")
    if not is_sound_text(array):
        raise InputError(f"{name} must hold text, got characters that do not exist.")
    return [str(label) for label in array]


def _csv_labels(path: Path, name: str, store: Store) -> list[str]:
    header, rows = _csv_rows(path, name)
    key = "file" if store.names is not None else "row" if "row" in header else None
    for column in filter(None, ("label", key)):
        if column not in header:
            raise InputError(f"{name} must have the column {column!r}, got {listed(header)}.")
    labels = [row[header.index("label")] for row in rows]
    if key is None:
        if len(labels) != len(store):
            raise InputError(
                f"{name} must have one label for each of the {len(store)} rows, got {len(labels)}."
            )
        return labels
    keys = [row[header.index(key)] for row in rows]
    wanted = store.names if store.names is not None else [str(row) for row in range(len(store))]
    _check_keys(keys, wanted, key, name)
    label_of = dict(zip(keys, labels, strict=True))
    return [label_of[key] for key in wanted]


def _csv_rows(path: Path, name: str) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            rows = []
            for row in reader:
                if row and len(row) != len(header):
                    raise csv.Error(f"{len(row)} cells under a header of {len(header)}")
                if row:
                    rows.append(row)
        except csv.Error as error:
            raise InputError(
                f"{name} must be a sound CSV file, got an error in line {reader.line_num}: {reason(error)}."
            ) from error
    return header, rows


def _check_keys(keys: Sequence[str], wanted: Sequence[str], column: str, name: str) -> None:
    """Check that each row of the data set has exactly one line."""
    known, seen = set(wanted), set(keys)
    if unknown := [key for key in keys if key not in known]:
        raise InputError(f"Each {column} in {name} must be in the data set, got {listed(unknown)}.")
    if missing := [key for key in wanted if key not in seen]:
        raise InputError(f"{name} must have every {column} of the data set, got none of {listed(missing)}.")
    if len(keys) > len(seen):
        twice = [key for key, n in Counter(keys).items() if n > 1]
        raise InputError(f"{name} must have each {column} once, got more of {listed(twice)}.")
