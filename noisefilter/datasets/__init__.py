"""Where rows and labels come from: digits, ``.npz`` files, folders of photos, torchvision's CIFAR.

`load` looks at what it is given and returns a `Source`, rows ready to be judged; `open_store` returns a
`Store`, which knows the labels, shows rows as people see them and writes changed copies.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from noisefilter.datasets.arrays import load_cifar, load_digits, load_npz, open_cifar, open_digits, open_npz
from noisefilter.datasets.folders import FolderStore, load_image_folder
from noisefilter.datasets.source import Source, Store
from noisefilter.errors import InputError, ParameterError

__all__ = [
    "Source",
    "Store",
    "load",
    "load_cifar",
    "load_digits",
    "load_image_folder",
    "load_npz",
    "open_store",
]


def load(source: str | os.PathLike[str], *, verbose: bool = False, **options: Any) -> Source:
    """Load whatever ``source`` names.

    Parameters
    ----------
    source : str or path
        ``"digits"``; the path of a ``.npz`` file; a folder with one sub-folder of images per class; or the
        folder in which torchvision keeps CIFAR-10 or CIFAR-100.
    verbose : bool, default=False
        Show a progress bar, where loading takes long enough for one.
    **options
        Passed to the loader: `load_digits`, `load_npz`, `load_image_folder` or `load_cifar`.

    Raises
    ------
    InputError
        If there is nothing of that name, or nothing that can be read.
    ParameterError
        If the loader for this source has no such option.
    """
    opener, arguments = _opener(source)
    opening = {name: value for name, value in options.items() if name in _options(opener)}
    store = opener(*arguments, **opening)
    reading = {name: value for name, value in options.items() if name not in opening}
    _check_options(source, reading, store.load)
    if "verbose" in _options(store.load):
        reading["verbose"] = verbose
    return store.load(**reading)


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
    path = Path(source)
    if str(source) == "digits":
        return open_digits, ()
    if path.is_dir():
        for name, folder in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
            if (path / folder).is_dir():
                return open_cifar, (path, name)
        return FolderStore, (path,)
    if path.suffix.lower() == ".npz":
        return open_npz, (path,)
    raise InputError(
        f"source must be digits, an .npz file, a folder with one sub-folder of images per class, or "
        f"torchvision's CIFAR folder, got {str(path)!r}{'' if path.exists() else ', which does not exist'}."
    )
