"""The command ``noisefilter audit``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from noisefilter.audit.tables import check_output, output_folder, summarize, write_verdict
from noisefilter.audit.terminal import one_sentence, show
from noisefilter.datasets import Source, load
from noisefilter.errors import InputError, ParameterError
from noisefilter.noise import plant_noise
from noisefilter.verdict import Verdict

SOURCES = (
    "digits, an .npz file, a folder with one sub-folder of images per class, or torchvision's CIFAR folder."
)
DIGITS_NOISE, DIGITS_KIND = 0.2, "symmetric"


def audit(
    source: Annotated[str, typer.Argument(help=SOURCES)],
    out: Annotated[Path, typer.Option(help="Folder for the results: new, empty, or an earlier audit.")],
    image_size: Annotated[
        int | None, typer.Option(min=8, help="Side of the images of a folder, in pixels (default 32).")
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Go on without images that cannot be read.")
    ] = False,
    channels: Annotated[
        str | None, typer.Option(help="Where images of an .npz file have their channels: first or last.")
    ] = None,
    x_key: Annotated[str | None, typer.Option(help="Name of the rows in an .npz file (default X).")] = None,
    y_key: Annotated[str | None, typer.Option(help="Name of the labels in an .npz file (default y).")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of training.")] = None,
    random_state: Annotated[int, typer.Option(min=0, help="Seed; the same seed gives the same verdict.")] = 0,
    noise: Annotated[
        float | None,
        typer.Option(help=f"digits only: rate of planted noise (default {DIGITS_NOISE}, 0: none)."),
    ] = None,
    noise_kind: Annotated[
        str | None, typer.Option(help=f"digits only: kind of planted noise (default {DIGITS_KIND}).")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose/--quiet", help="Progress and summary, or nothing.")
    ] = True,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Find the labels that look wrong, and write verdict.csv and clean_mask.npy.

    Example: noisefilter audit photos/ --out audit/
    """
    with one_sentence(debug):
        started = time.perf_counter()
        _check_apart(source, check_output(out))
        options = {"image_size": image_size, "x_key": x_key, "y_key": y_key}
        options = {name: value for name, value in options.items() if value is not None}
        if skip_unreadable:
            options["skip_unreadable"] = True
        loaded = load(source, verbose=verbose, **options)
        data = _planted(loaded, source, noise, noise_kind, random_state)
        verdict = _judged(data, channels, epochs, random_state, verbose)
        with output_folder(out, _about(data, verdict, random_state)) as folder:
            write_verdict(folder, verdict, data.names)
        if verbose:
            show(data, verdict, time.perf_counter() - started, written=out)


def _check_apart(source: str, out: Path) -> None:
    """Refuse an output inside the source, where the next audit would take it for a class."""
    folder = Path(source).resolve()
    if source != "digits" and folder.is_dir() and out.is_relative_to(folder):
        raise InputError(f"The output must be outside the source folder, got {str(out)!r}.")


def _planted(data: Source, source: str, rate: float | None, kind: str | None, random_state: int) -> Source:
    if source != "digits":
        for option, value in (("--noise", rate), ("--noise-kind", kind)):
            if value:
                raise ParameterError(
                    f"{option} must be left out for a source other than digits, got {value}."
                )
        return data
    rate, kind = DIGITS_NOISE if rate is None else rate, kind or DIGITS_KIND
    y, info = plant_noise(data.y, kind, rate, random_state=random_state, X=data.X)
    planted = f"{info.mask.sum():,} labels made wrong on purpose ({kind} noise {rate})"
    return replace(data, y=y, description=f"{data.description}; {planted}")


def _judged(
    data: Source, channels: str | None, epochs: int | None, random_state: int, verbose: bool
) -> Verdict:
    from noisefilter.filters.inn import INNScorer  # torch takes seconds to import: bad input is told before

    settings: dict[str, Any] = {"max_epochs": epochs, "channels": channels}
    settings = {name: value for name, value in settings.items() if value is not None}
    scorer = INNScorer(random_state=random_state, verbose=int(verbose), **settings)
    verdict: Verdict = scorer.fit(data.X, data.y).verdict_
    return verdict


def _about(data: Source, verdict: Verdict, random_state: int) -> dict[str, Any]:
    counts = ("rows", "flagged", "wrong_label", "out_of_distribution", "estimated_noise_rate")
    facts = summarize(verdict)
    return {
        "method": verdict.method,
        "random_state": random_state,
        "source": data.description,
        "left_out": list(data.left_out),
        "counts": {name: facts[name] for name in counts},
    }
