"""What the commands share: the options that say how to read a source, and the reading itself."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from noisefilter.audit.terminal import EXTRA
from noisefilter.datasets import Source, Store
from noisefilter.errors import ParameterError
from noisefilter.noise import plant_noise

DIGITS_NOISE, DIGITS_KIND = 0.2, "symmetric"
READING = ("features", "image_size", "backbone", "skip_unreadable")

_HOW = "How to read the source"


def _how(text: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_HOW, **settings)


SourceName = Annotated[
    str,
    typer.Argument(
        help="A folder with one sub-folder of images per class; a .csv, .tsv, .parquet or .npz file; a "
        "Hugging Face data set saved on disk; cifar10 or cifar100 with --root; digits.",
        show_default=False,
    ),
]
Label = Annotated[str | None, _how("Column of the labels.")]
Categorical = Annotated[
    list[str] | None, _how("Column of numbers that are names of categories; may be repeated.")
]
Drop = Annotated[list[str] | None, _how("Column to leave out, such as a number of the row; may be repeated.")]
Missing = Annotated[list[str] | None, _how("Text that stands for a missing cell; may be repeated.")]
Split = Annotated[str | None, _how("Split of a Hugging Face data set, such as train.")]
Image = Annotated[str | None, _how("Column of the images of a Hugging Face data set.")]
Root = Annotated[
    Path | None, _how("cifar10 and cifar100: the folder where torchvision keeps them.", show_default=False)
]
XKey = Annotated[str | None, _how("Name of the rows in an .npz file (default X).")]
YKey = Annotated[str | None, _how("Name of the labels in an .npz file (default y).")]
Features = Annotated[
    Path | None,
    _how("A .npy file with an embedding of each row, judged in place of the source's own values."),
]
ImageSize = Annotated[int | None, _how("Side of the images of a folder, in pixels (default 32).", min=8)]
Backbone = Annotated[
    str | None, _how("torchvision network whose features of the images are judged, such as resnet18.")
]
SkipUnreadable = Annotated[bool, _how("Go on without images that cannot be read.", "--skip-unreadable")]
Channels = Annotated[str | None, _how("Where images of an .npz file have their channels: first or last.")]
RandomState = Annotated[int, typer.Option(min=0, help="Seed; the same seed gives the same result.")]
DigitsNoise = Annotated[
    float | None,
    typer.Option(help=f"digits only: rate of planted noise (default {DIGITS_NOISE}, 0: none)."),
]
DigitsSeed = Annotated[int, typer.Option("--random-state", min=0, help="digits only: seed of that noise.")]
DigitsKind = Annotated[
    str | None, typer.Option(help=f"digits only: kind of planted noise (default {DIGITS_KIND}).")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def given(**options: Any) -> dict[str, Any]:
    """Return the options that were typed; the others are left to their defaults."""
    return {
        name: value
        for name, value in options.items()
        if value is not None and value is not False and value != []
    }


def again(options: Mapping[str, Any]) -> list[str]:
    """Return options as they are typed, without those that only say how to make rows numeric."""
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", str(one)] if name not in READING else []
    return words


def again_digits(source: str, noise: float | None, noise_kind: str | None, random_state: int) -> list[str]:
    """Return the options that plant the same noise into the digits, as they are typed."""
    if source != "digits":
        return []
    return again(given(noise=noise, noise_kind=noise_kind, random_state=random_state or None))


def planted(store: Store, source: str, rate: float | None, kind: str | None, random_state: int) -> Store:
    """Return the digits with labels made wrong on purpose, and any other store as it is.

    Raises
    ------
    ParameterError
        If noise was asked for and the source is another, or the rate or kind is none.
    """
    if source != "digits":
        for option, value in (("--noise", rate), ("--noise-kind", kind)):
            if value:
                raise ParameterError(
                    f"{option} must be left out for a source other than digits, got {value}. The command "
                    "noise plants it into a copy."
                )
        return store
    rate, kind = DIGITS_NOISE if rate is None else rate, kind or DIGITS_KIND
    noisy = copy.copy(store)
    noisy.labels, info = plant_noise(store.labels, kind, rate, random_state=random_state, X=store.load().X)
    wrong = f"{info.mask.sum():,} labels made wrong on purpose ({kind} noise {rate})"
    noisy.description = f"{store.description}; {wrong}"
    return noisy


def check_extra() -> None:
    """Refuse to begin where the page or the tables could not be written in the end."""
    for package in EXTRA:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(name=package)


def rows_of(data: Source) -> NDArray[np.intp]:
    """Return which rows of the store these are."""
    return np.arange(len(data)) if data.rows is None else data.rows
