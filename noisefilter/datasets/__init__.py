"""Where rows and labels come from: arrays, tables, folders of photos, data sets by name.

`load` looks at what it is given and returns a `Source`, rows ready to be judged; `open_store` returns a
`Store`, which knows the labels, shows rows as people see them and writes changed copies.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.datasets.arrays import (
    load_cifar,
    load_digits,
    load_npz,
    open_cifar,
    open_digits,
    open_named_cifar,
    open_npz,
    read_features,
)
from noisefilter.datasets.folders import FolderStore, load_image_folder
from noisefilter.datasets.huggingface import HubStore, is_saved_dataset
from noisefilter.datasets.noisy_sets import load_cifar_n, load_clothing1m, load_food101n, load_webvision
from noisefilter.datasets.source import Source, Store
from noisefilter.errors import InputError, ParameterError

__all__ = [
    "FolderStore",
    "HubStore",
    "Source",
    "Store",
    "load",
    "load_cifar",
    "load_cifar_n",
    "load_clothing1m",
    "load_digits",
    "load_food101n",
    "load_image_folder",
    "load_npz",
    "load_webvision",
    "loaded",
    "open_store",
    "opened",
]


def load(
    source: str | os.PathLike[str],
    *,
    features: str | os.PathLike[str] | None = None,
    verbose: bool = False,
    **options: Any,
) -> Source:
    """Load whatever ``source`` names.

    Parameters
    ----------
    source : str or path
        ``"digits"``; ``"cifar10"`` or ``"cifar100"``, with the option ``root``, or the folder in which
        torchvision keeps them; the path of a ``.npz``, ``.csv``, ``.tsv`` or ``.parquet`` file; a folder with
        one sub-folder of images per class; or a folder that `save_to_disk` of Hugging Face's library wrote.
    features : str or path, optional
        An ``.npy`` file with an embedding, (N, d) numbers, one row for each of the N rows of the source in
        its order (for a folder, the sorted order of the paths). It takes the place of pixels or columns,
        which people still see; nothing is decoded, so unreadable images do not matter.
    verbose : bool, default=False
        Show a progress bar, where loading takes long enough for one.
    **options
        The keyword-only arguments of what opens the source and of its ``load``, such as ``image_size`` for
        folders, or ``labeled=False`` for rows without labels, which then have empty texts for them: see
        `load_npz`, `load_image_folder`, `load_cifar`, `TableStore` and `HubStore`.

    Raises
    ------
    InputError
        If there is nothing of that name, or nothing that can be read.
    ParameterError
        If there is no such option for this source, or not together with ``features``.
    """
    store, reading = opened(source, {**options, **({} if features is None else {"features": features})})
    return loaded(store, reading, verbose=verbose)


def opened(
    source: str | os.PathLike[str], options: Mapping[str, Any], **hints: Any
) -> tuple[Store, dict[str, Any]]:
    """Open a source with those of the options that opening takes; return the rest, which `loaded` takes.

    Parameters and errors are as in `load`, and every option is known, ``features`` included. Hints are
    options that a source may do without.
    """
    opener, arguments = _opener(source)
    takes = _options(opener)
    opening = {name: value for name, value in options.items() if name in takes}
    hinted = {name: value for name, value in hints.items() if name in takes}
    store = opener(*arguments, **{**hinted, **opening})
    reading = {name: value for name, value in options.items() if name not in opening}
    _check_options(source, {name: reading[name] for name in reading if name != "features"}, store.load)
    return store, reading


def loaded(
    store: Store,
    reading: Mapping[str, Any],
    verbose: bool = False,
    held_out: NDArray[np.bool_] | None = None,
    **hints: Any,
) -> Source:
    """Make the rows of a store numeric, by the options that `opened` returned.

    Nothing is learned about columns from rows that are held out, (N,) bool. Hints are options that a store
    may do without.
    """
    if "features" in reading:
        others = {name: reading[name] for name in reading if name != "features"}
        return _with_features(store, reading["features"], **others)
    known = {"verbose": verbose, "held_out": held_out, **hints}
    takes = _options(store.load)
    return store.load(**reading, **{name: value for name, value in known.items() if name in takes})


def _with_features(
    store: Store, path: str | os.PathLike[str], skip_unreadable: bool = False, **others: Any
) -> Source:
    """Return the rows of a store that have a label, with an embedding for what they are."""
    for name, value in others.items():
        raise ParameterError(f"{name} must be left out where there are features, got {value!r}.")
    rows, left_out = store.usable(skip_unreadable)
    return Source(
        X=read_features(path, len(store), rows),
        y=np.array(store.labels[rows].tolist()),
        names=None if store.names is None else [store.names[row] for row in rows],
        kind=store.kind,
        description=f"{store.description}, as {Path(path).name!r} describes them",
        truth=None if store.truth is None else store.truth[rows],
        left_out=left_out,
        rows=rows,
        store=store,
    )


def open_store(source: str | os.PathLike[str], **options: Any) -> Store:
    """Open whatever ``source`` names, without making the rows numeric; parameters and errors as in `load`."""
    opener, arguments = _opener(source)
    _check_options(source, options, opener)
    return opener(*arguments, **options)


def _options(function: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def _check_options(source: Any, options: Mapping[str, Any], function: Callable[..., Any]) -> None:
    for name, value in options.items():
        if name not in _options(function):
            raise ParameterError(f"{name} must be left out for the source {str(source)!r}, got {value!r}.")


def _opener(source: str | os.PathLike[str]) -> tuple[Callable[..., Store], tuple[Any, ...]]:
    """Return what opens a source, and its positional arguments; what is optional is keyword-only there."""
    path, suffix = Path(source), Path(source).suffix.lower()
    if str(source) == "digits":
        return open_digits, ()
    if path.is_dir():
        return _folder_opener(path)
    if str(source) in ("cifar10", "cifar100"):
        return open_named_cifar, (str(source),)
    if suffix == ".npz":
        return open_npz, (path,)
    if suffix in (".csv", ".tsv", ".parquet"):
        from noisefilter.datasets.tables import TableStore  # pandas takes a second to import

        return TableStore, (path,)
    raise InputError(
        "source must be digits, cifar10, cifar100, an .npz, .csv, .tsv or .parquet file, a folder with one "
        "sub-folder of images per class, a folder that Hugging Face's save_to_disk wrote, or torchvision's "
        f"CIFAR folder, got {str(path)!r}{'' if path.exists() else ', which does not exist'}."
    )


def _folder_opener(path: Path) -> tuple[Callable[..., Store], tuple[Any, ...]]:
    for name, folder in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
        if (path / folder).is_dir():
            return open_cifar, (path, name)
    return HubStore if is_saved_dataset(path) else FolderStore, (path,)
