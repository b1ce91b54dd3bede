"""The command ``noisefilter audit``."""

from __future__ import annotations

import platform
import shlex
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from noisefilter import __version__, datasets
from noisefilter.audit import options as opt
from noisefilter.audit.copies import check_apart, check_copy, whole, write_list
from noisefilter.audit.decisions import Decision, decided, plain, read_decisions, tally
from noisefilter.audit.methods import METHODS, check_method, made
from noisefilter.audit.tables import check_output, output_folder, put_right, summarize, write_verdict
from noisefilter.audit.terminal import complain, one_sentence, show
from noisefilter.audit.truth import read_truth
from noisefilter.datasets import Source, Store
from noisefilter.datasets.source import listed
from noisefilter.errors import InputError, ParameterError
from noisefilter.verdict import CLEAN, Verdict

_RUN, _RESULT = "How to judge", "What to do with the result"
Out = Annotated[Path, typer.Option(help="Folder for the results: new, empty, or an earlier audit.")]
Method = Annotated[str, typer.Option(help=f"Filter: {', '.join(METHODS)}.", rich_help_panel=_RUN)]
OpenSet = Annotated[
    bool | None,
    typer.Option(
        "--open-set/--closed-set",
        help="Look for rows that belong to no class too, or not (default: josrc does, the others do not).",
        rich_help_panel=_RUN,
        show_default=False,
    ),
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of training.", rich_help_panel=_RUN)]
Decisions = Annotated[
    Path | None,
    typer.Option(
        help="Decisions saved from the page of an earlier audit: start from them.", rich_help_panel=_RUN
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        help="The right labels, to say how right the verdict is: .csv with the column label (and file, for a "
        "folder), or .npy.",
        rich_help_panel=_RESULT,
    ),
]
WriteClean = Annotated[
    Path | None,
    typer.Option(
        help="Where to write the rows judged clean: a file like the source, or for a folder the list of "
        "kept files, .csv.",
        rich_help_panel=_RESULT,
    ),
]
FailAbove = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        help="Exit 1 if the estimated noise rate is higher; in [0, 1].",
        rich_help_panel=_RESULT,
    ),
]
Thumbnails = Annotated[
    int, typer.Option(min=0, help="So many suspicious rows get a picture.", rich_help_panel=_RESULT)
]
Verbose = Annotated[bool, typer.Option("--verbose/--quiet", help="Progress and summary, or nothing.")]


def audit(
    context: typer.Context,
    source: opt.SourceName,
    out: Out,
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
    backbone: opt.Backbone = None,
    skip_unreadable: opt.SkipUnreadable = False,
    channels: opt.Channels = None,
    method: Method = "inn",
    open_set: OpenSet = None,
    epochs: Epochs = None,
    random_state: opt.RandomState = 0,
    decisions: Decisions = None,
    truth: Truth = None,
    write_clean: WriteClean = None,
    fail_above: FailAbove = None,
    thumbnails: Thumbnails = 2000,
    noise: opt.DigitsNoise = None,
    noise_kind: opt.DigitsKind = None,
    verbose: Verbose = True,
    debug: opt.Debug = False,
) -> None:
    """Find the labels that look wrong; write a report page, tables and a mask.

    Example: noisefilter audit photos/ --out audit/

    Example: noisefilter audit people.csv --label income --out audit/ --write-clean clean.csv
    """
    with one_sentence(context):
        typed = opt.given(
            label=label, categorical=categorical, drop=drop, missing=missing, split=split, image=image,
            root=root, x_key=x_key, y_key=y_key, features=features, image_size=image_size, backbone=backbone,
            skip_unreadable=skip_unreadable,
        )  # fmt: skip
        again = opt.again(typed) + opt.again_digits(source, noise, noise_kind, random_state)
        run = Run(source, out, random_state, method, open_set, epochs, channels, thumbnails, verbose,
                  context.obj or (), again)  # fmt: skip
        _check_cheap(run, write_clean, fail_above)
        store, reading = datasets.opened(source, typed)
        store = opt.planted(store, source, noise, noise_kind, random_state)
        clean = [] if write_clean is None else [_check_clean(write_clean, store, run)]
        earlier = [] if decisions is None else read_decisions(decisions, store)
        known = store.truth if truth is None else read_truth(truth, store)
        data = _prepared(datasets.loaded(store, reading, verbose), store, earlier, known)
        verdict = _audited(run, data, earlier, clean)
        _compare(verdict.estimated_noise_rate, fail_above)


@dataclass(frozen=True)
class Run:
    """What was typed, as far as it does not say how to read the source."""

    source: str
    out: Path
    random_state: int
    method: str
    open_set: bool | None
    epochs: int | None
    channels: str | None
    thumbnails: int
    verbose: bool
    words: Sequence[str]  # the command line
    again: Sequence[str]  # the options that `apply` needs too
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """How long it has been going."""
        return time.perf_counter() - self.started


def _check_cheap(run: Run, write_clean: Path | None, fail_above: float | None) -> None:
    """Refuse what can be seen to be wrong before the source is opened."""
    opt.check_extra()
    check_method(run.method)
    put_right(run.out)
    folder = check_output(run.out)
    check_apart(run.source, folder)
    if write_clean is not None and write_clean.resolve().is_relative_to(folder):
        raise InputError(f"write_clean must be outside the output folder, got {str(write_clean)!r}.")
    if fail_above is not None and not 0 <= fail_above <= 1:
        raise ParameterError(f"fail_above must be in [0, 1], got {fail_above}.")


def _check_clean(path: Path, store: Store, run: Run) -> Path:
    """Check where the clean rows go; those of a folder are listed, not copied."""
    suffixes = store.suffixes if store.names is None else (".csv",)
    return check_copy(path, "write_clean", suffixes, run.source)


def _prepared(data: Source, store: Store, earlier: Sequence[Decision], truth: NDArray[Any] | None) -> Source:
    """Put the decisions into the rows, and the truth beside them."""
    rows = opt.rows_of(data)
    if truth is not None:
        data = replace(data, truth=truth[rows])
    if not earlier:
        return data
    labels, kept = decided(store.labels, earlier)
    data = replace(data, y=plain(labels[rows])).take(kept[rows])
    if len(np.unique(data.y)) < 2:
        raise InputError("The decisions must leave rows of two classes at least, got fewer.")
    return data


def _audited(run: Run, data: Source, earlier: Sequence[Decision], clean: list[Path]) -> Verdict:
    """Judge the rows, write what was found, and say so."""
    verdict = _judged(data, run, earlier)
    _write(run, data, verdict, earlier, clean)
    if run.verbose:
        show(data, verdict, run.seconds, [run.out, *clean], tally(earlier) if earlier else "")
    return verdict


def _judged(data: Source, run: Run, earlier: Sequence[Decision]) -> Verdict:
    classes, counts = np.unique(data.y, return_counts=True)
    if (counts == 1).any():
        warnings.warn(
            f"Every class should have two rows or more, got one only in "
            f"{listed(classes[counts == 1].tolist())}: with nothing to compare it with, such a row looks "
            "suspicious.",
            UserWarning,
            stacklevel=2,
        )
    settings = {"open_set": run.open_set, "max_epochs": run.epochs, "channels": run.channels}
    filter_ = made(run.method, random_state=run.random_state, verbose=int(run.verbose), **settings)
    verdict: Verdict = filter_.fit(data.X, data.y).verdict_
    by_hand = np.isin(opt.rows_of(data), [decision.row for decision in earlier])
    return replace(verdict, partition=np.where(by_hand, CLEAN, verdict.partition))


def _write(run: Run, data: Source, verdict: Verdict, earlier: Sequence[Decision], clean: list[Path]) -> None:
    from noisefilter.audit.report import Report, write_report  # its libraries take a moment to import

    about = _about(data, verdict, run, earlier)
    with whole(*clean) as temporary, output_folder(run.out, about) as folder:
        write_verdict(folder, data, verdict)
        for path in temporary:
            _write_clean(path, data, verdict)
        report = Report(
            source=data,
            verdict=verdict,
            command=shlex.join(["noisefilter", *run.words]),
            settings=_settings(verdict, run),
            decisions=earlier,
            thumbnails=run.thumbnails,
            apply_command=_apply_command(run, data),
        )
        write_report(folder, report)


def _apply_command(run: Run, data: Source) -> str:
    """Return what to run with the decisions that will be saved from the page."""
    copy = "corrected" + "".join(data.store.suffixes[:1] if data.store else ())
    return shlex.join(["noisefilter", "apply", "decisions.json", run.source, "--out", copy, *run.again])


def _write_clean(path: Path, data: Source, verdict: Verdict) -> None:
    if data.names is not None:
        names = np.array(data.names, dtype=object)[verdict.clean_mask]
        write_list(path, {"file": names, "label": verdict.labels[verdict.clean_mask]})
    elif data.store is not None:
        data.store.write(path, opt.rows_of(data)[verdict.clean_mask], verdict.labels[verdict.clean_mask])


def _about(data: Source, verdict: Verdict, run: Run, earlier: Sequence[Decision]) -> dict[str, Any]:
    counts = ("rows", "flagged", "wrong_label", "out_of_distribution", "estimated_noise_rate")
    facts = summarize(verdict)
    return {
        "method": verdict.method,
        "open_set": verdict.open_set,
        "random_state": run.random_state,
        "source": data.description,
        "fingerprint": None if data.store is None else data.store.fingerprint,
        "left_out": list(data.left_out),
        "decisions": len(earlier),
        "counts": {name: facts[name] for name in counts},
        "noise_rate_interval": verdict.noise_rate_interval,
    }


def _settings(verdict: Verdict, run: Run) -> Mapping[str, str]:
    """Return how the audit was made, for people."""
    settings = {
        "method": verdict.method,
        "strangers": "looked for" if verdict.open_set else "not looked for",
        "seed": str(run.random_state),
        "epochs": "" if run.epochs is None else str(run.epochs),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": f"{run.seconds:.1f}",
        "noisefilter": __version__,
        "Python": platform.python_version(),
        **{package: version(package) for package in ("torch", "scikit-learn", "numpy")},
    }
    return {name: value for name, value in settings.items() if value}


def _compare(estimated: float, limit: float | None) -> None:
    if limit is not None and not estimated <= limit:
        complain(f"The estimated noise rate must be at most {limit:g} (--fail-above), got {estimated:.6g}.")
        raise typer.Exit(1)
