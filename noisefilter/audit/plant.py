"""The command ``noisefilter noise``: a copy with wrong labels by our own hand, and the truth beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from noisefilter import datasets
from noisefilter.audit import options as opt
from noisefilter.audit.copies import check_copy, check_new, whole, write_list
from noisefilter.audit.terminal import one_sentence, printable, show_facts
from noisefilter.datasets import Store
from noisefilter.errors import ParameterError
from noisefilter.noise import NoiseInfo, plant_noise

# Of noise.KINDS those that need nothing which the command line lacks, and leave every class its label.
LABEL_KINDS = ("symmetric", "symmetric_excluding", "pair", "superclass_block")
ROW_KINDS = ("instance", "annotator")

Out = Annotated[Path, typer.Option(help="The copy, a file like the source or a folder; must not exist yet.")]
Rate = Annotated[float, typer.Option(help="Rate of noise, in [0, 1).")]
Kind = Annotated[str, typer.Option(help=f"Kind of noise: {', '.join(LABEL_KINDS + ROW_KINDS)}.")]


def noise(
    context: typer.Context,
    source: opt.SourceName,
    out: Out,
    rate: Rate = 0.2,
    kind: Kind = "symmetric",
    random_state: opt.RandomState = 0,
    label: opt.Label = None,
    categorical: opt.Categorical = None,
    drop: opt.Drop = None,
    missing: opt.Missing = None,
    split: opt.Split = None,
    image: opt.Image = None,
    root: opt.Root = None,
    x_key: opt.XKey = None,
    y_key: opt.YKey = None,
    features: opt.Features = None,
    image_size: opt.ImageSize = None,
    skip_unreadable: opt.SkipUnreadable = False,
    debug: opt.Debug = False,
) -> None:
    """Write a copy with wrong labels, and the right ones beside it, to see how well an audit finds them.

    Example: noisefilter noise photos/ --out noisy/ --rate 0.2
    """
    with one_sentence(context):
        typed = opt.given(
            label=label, categorical=categorical, drop=drop, missing=missing, split=split, image=image,
            root=root, x_key=x_key, y_key=y_key,
        )  # fmt: skip
        reading = opt.given(features=features, image_size=image_size, skip_unreadable=skip_unreadable)
        _check_kind(kind)
        store, reading = datasets.opened(source, {**typed, **reading})
        check_copy(out, "out", store.suffixes, source)
        truth = _beside(out, store)
        check_new(truth, "The file for the truth")
        rows, y, X = _labelled(store, reading, kind)
        noisy, info = plant_noise(y, kind, rate, random_state=random_state, X=X)
        with whole(out, truth) as (copy, right):
            _write(copy, right, store, rows, noisy, info)
        show_facts(_summary(info, out, truth))
        _show_next(out, truth, typed)


def _check_kind(kind: str) -> None:
    if kind not in LABEL_KINDS + ROW_KINDS:
        raise ParameterError(f"kind must be one of {', '.join(LABEL_KINDS + ROW_KINDS)}, got {kind!r}.")


def _beside(out: Path, store: Store) -> Path:
    """Return where the truth goes."""
    return out.with_name(f"{out.stem if store.suffixes else out.name}.truth.csv")


def _labelled(
    store: Store, reading: Mapping[str, Any], kind: str
) -> tuple[NDArray[np.intp], NDArray[Any], NDArray[Any] | None]:
    """Return the rows that can be labelled, their labels, and what they hold if the kind asks for it."""
    if kind in ROW_KINDS:
        data = datasets.loaded(store, reading, verbose=True)
        return opt.rows_of(data), data.y, data.X
    rows, _ = store.usable(bool(reading.get("skip_unreadable")))
    return rows, store.labels[rows], None


def _write(
    copy: Path, right: Path, store: Store, rows: NDArray[np.intp], noisy: NDArray[Any], info: NoiseInfo
) -> None:
    names = store.write(copy, rows, noisy)
    key = {"row": range(len(rows))} if names is None else {"file": names}
    write_list(right, {**key, "label": info.truth})


def _summary(info: NoiseInfo, out: Path, truth: Path) -> list[tuple[str, str]]:
    changed = f"{info.mask.sum():,} of {len(info.mask):,} ({info.rate:.1%}), {info.kind} noise"
    if info.kind == "symmetric":
        changed += ", whose draws can hit the right label"
    return [("labels made wrong", changed), ("written", f"{out}, and the right labels to {truth}")]


def _show_next(out: Path, truth: Path, options: Mapping[str, Any]) -> None:
    words = ["noisefilter", "audit", str(out), "--truth", str(truth), "--out", f"{out.stem}-audit"]
    of_the_copy = {name: value for name, value in options.items() if name not in ("root", "split")}
    print(f"\nTry: {printable(shlex.join(words + opt.again(of_the_copy)))}")
