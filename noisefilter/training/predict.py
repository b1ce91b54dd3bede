"""The command ``noisefilter predict``: labels for new rows, by the model that a training left."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from noisefilter import datasets
from noisefilter.audit import options as opt
from noisefilter.audit.copies import check_copy, whole
from noisefilter.audit.tables import TRAINING, put_right, write_predictions
from noisefilter.audit.terminal import one_sentence, show_facts
from noisefilter.datasets import Source, Store
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.errors import InputError, ParameterError

__all__ = ["MODEL", "TrainedOn", "predict", "trained_on", "write_model"]

MODEL = "model.joblib"
_REMEMBERED = ("backbone", "image", "image_size", "x_key")
_CLASSES_SHOWN = 5

ModelFolder = Annotated[
    Path,
    typer.Argument(
        help="Output folder of a training, one that you trust: a model file can run anything.",
        show_default=False,
    ),
]
NewRows = Annotated[
    str,
    typer.Argument(
        help="Rows like those of the training, without labels or with any: a folder of images; a .csv, .tsv, "
        ".parquet or .npz file; a Hugging Face data set saved on disk; cifar10 or cifar100 with --root (its "
        "test images); digits.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option(help="The table of predictions, .csv; must not exist yet.")]
Verbose = Annotated[bool, typer.Option("--verbose/--quiet", help="Progress and summary, or nothing.")]


def predict(
    context: typer.Context,
    model: ModelFolder,
    source: NewRows,
    out: Out,
    split: opt.Split = None,
    root: opt.Root = None,
    features: opt.Features = None,
    skip_unreadable: opt.SkipUnreadable = False,
    verbose: Verbose = True,
    debug: opt.Debug = False,
) -> None:
    """Predict the labels of new rows and their probabilities, by the model of a training.

    Example: noisefilter predict training/ new-photos/ --out predictions.csv

    Example: noisefilter predict training/ new-people.csv --out predictions.csv
    """
    with one_sentence(context):
        trained = _trained(model)
        _check_out(out, model, source)
        typed = opt.given(split=split, root=root, features=features, skip_unreadable=skip_unreadable)
        store, reading = datasets.opened(source, typed, labeled=False, train=False, **trained.options)
        _check_alike(trained, store, source, features)
        fitted = _fitted(model)
        data = _read(trained, store, reading, fitted, verbose)
        classifier = fitted["trainer"] if trained.columns else fitted
        probs = classifier.predict_proba(data.X)
        labels = classifier.classes_[probs.argmax(axis=1)]
        with whole(out) as (path,):
            write_predictions(path, data, labels, classifier.classes_, probs)
        if verbose:
            _show(data, labels.tolist(), out)


class TrainedOn(NamedTuple):
    """What kind of rows a model was trained on, as ``training.json`` says it.

    Attributes
    ----------
    shape : list of int
        Of a row.
    dtype : str
        Of its values. Whole numbers and floats are other images: bytes go to 255, floats mostly to 1.
    columns : bool
        Whether they were columns of a table, made numeric.
    features : bool
        Whether they were an embedding that stood for the rows of the source.
    options : dict
        How the source was read, as far as new rows are to be read alike.
    """

    shape: list[int]
    dtype: str
    columns: bool
    features: bool
    options: dict[str, Any]


def trained_on(data: Source, typed: Mapping[str, Any]) -> TrainedOn:
    """Return what kind of rows these are that were read by the options that were typed."""
    options = {name: typed[name] for name in _REMEMBERED if name in typed}
    shape, dtype = list(data.X.shape[1:]), str(data.X.dtype)
    return TrainedOn(shape, dtype, data.columns is not None, "features" in typed, options)


def write_model(path: Path, data: Source, trainer: Any) -> None:
    """Write a fitted trainer; where rows were columns, as a Pipeline behind what makes them numeric."""
    import joblib
    from sklearn.pipeline import Pipeline

    steps = [("columns", data.columns), ("trainer", trainer)]
    joblib.dump(trainer if data.columns is None else Pipeline(steps), path)


def _marker(folder: Path) -> dict[str, Any]:
    """Return what a training says of itself; nothing where there is none."""
    try:
        marker = json.loads((folder / TRAINING.marker).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _trained(folder: Path) -> TrainedOn:
    put_right(folder)
    try:
        trained = TrainedOn(**_marker(folder)["rows"])
        if (folder / MODEL).is_file():
            return trained
    except (KeyError, TypeError):
        pass
    unfinished = (folder / TRAINING.kept).is_dir()
    more = " The command that trained goes on with the training, and writes it." if unfinished else ""
    raise InputError(
        f"model must be the output folder of a training that has ended, got {str(folder)!r} without a "
        f"{MODEL}.{more}"
    )


def _fitted(folder: Path) -> Any:
    import joblib

    try:
        return joblib.load(folder / MODEL)
    except Exception as error:  # a pickle that does not fit can fail in any way
        raise InputError(
            f"{str(folder / MODEL)!r} must be a model that can be read here, got an error: "
            f"{' '.join(str(error).split()):.200}. noisefilter {_marker(folder).get('version')} wrote it."
        ) from error


def _check_out(out: Path, model: Path, source: str) -> None:
    check_copy(out, "out", (".csv",), source)
    if out.resolve().is_relative_to(model.resolve()):
        raise InputError(f"out must be outside the folder of the model, got {str(out)!r}.")


def _check_alike(trained: TrainedOn, store: Store, source: str, features: Any) -> None:
    """Refuse, before the model is read, rows that it cannot have been trained on."""
    if trained.features and features is None:
        raise ParameterError("features must be given for a model that was trained on an embedding, got none.")
    if features is not None and not trained.features:
        raise ParameterError(
            f"features must be left out for a model that was trained without, got {str(features)!r}."
        )
    shape = tuple(trained.shape)
    alike, wanted = True, f"rows of the shape {shape}"
    if trained.columns:
        alike, wanted = store.kind == "table" and not isinstance(store, ArrayStore), "a table"
    elif "backbone" in trained.options:
        alike, wanted = store.kind == "images", "images"
    elif isinstance(store, ArrayStore):
        alike = trained.features or store.X.shape[1:] == shape
    elif not trained.features:
        alike = store.kind == "images" and shape == (shape[0], shape[0], 3)
    if not alike:
        raise InputError(f"source must be {wanted}, as in training, got {source!r} ({store.description}).")


def _read(trained: TrainedOn, store: Store, reading: Mapping[str, Any], fitted: Any, verbose: bool) -> Source:
    """Make new rows numeric as those of the training were."""
    hints: dict[str, Any] = {}
    if trained.columns:
        hints["columns"] = fitted["columns"]
    elif not trained.features:
        backbone = trained.options.get("backbone")
        size = trained.options.get("image_size", None if backbone else trained.shape[0])
        hints |= {"backbone": backbone, "image_size": size}
    data = datasets.loaded(store, reading, verbose, **hints)
    scaled = [dtype.kind == "f" for dtype in (data.X.dtype, np.dtype(trained.dtype))]
    if list(data.X.shape[1:]) != trained.shape or (data.X.ndim > 2 and scaled[0] != scaled[1]):
        raise InputError(
            f"Rows must have the shape {tuple(trained.shape)} of {trained.dtype}, as in training, got "
            f"{data.X.shape[1:]} of {data.X.dtype}."
        )
    return data


def _show(data: Source, labels: list[Any], out: Path) -> None:
    """Print what was predicted."""
    counts = Counter(labels).most_common()
    shown = ", ".join(f"{label} ({count:,})" for label, count in counts[:_CLASSES_SHOWN])
    more = f" and {len(counts) - _CLASSES_SHOWN:,} more" if len(counts) > _CLASSES_SHOWN else ""
    lines = [("source", data.description), ("rows", f"{len(data):,}"), ("predicted", f"{shown}{more}")]
    if data.left_out:
        lines.append(("left out", f"{len(data.left_out):,}, such as {data.left_out[0]!r}"))
    show_facts([*lines, ("written", str(out))])
