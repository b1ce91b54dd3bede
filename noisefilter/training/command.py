"""The command ``noisefilter train``."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from noisefilter import __version__, datasets
from noisefilter.audit import options as opt
from noisefilter.audit.copies import check_apart
from noisefilter.audit.tables import (
    TRAINING,
    check_output,
    output_folder,
    put_right,
    summarize,
    write_verdict,
)
from noisefilter.audit.terminal import complain, one_sentence, overview, show_facts
from noisefilter.audit.truth import read_truth
from noisefilter.datasets import Source
from noisefilter.errors import InputError, ParameterError
from noisefilter.training.held_out import Held, check_held, read_held
from noisefilter.training.methods import FILTERS, METHODS, check_methods, made
from noisefilter.training.predict import MODEL, trained_on, write_model

_HOW, _TEST, _RUN = "How to train", "What to measure it on", "Where it goes on"
_FREE = ("checkpoint_dir", "device", "random_state", "verbose")  # said elsewhere, or of no consequence
Out = Annotated[Path, typer.Option(help="Folder for the results: new, empty, or an earlier training.")]
Method = Annotated[str, typer.Option(help=f"Trainer: {', '.join(METHODS)}.", rich_help_panel=_HOW)]
Filter = Annotated[
    str, typer.Option(help=f"What judges the labels before: {', '.join(FILTERS)}.", rich_help_panel=_HOW)
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Epochs of training.", rich_help_panel=_HOW)]
BatchSize = Annotated[int | None, typer.Option(min=2, help="Rows in a step.", rich_help_panel=_HOW)]
LearningRate = Annotated[float | None, typer.Option(help="Learning rate.", rich_help_panel=_HOW)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.", rich_help_panel=_HOW)]
Test = Annotated[
    str | None,
    typer.Option(help="Another source like the first: its rows are only tested on.", rich_help_panel=_TEST),
]
TestSplit = Annotated[
    str | None,
    typer.Option(
        help="Split of a Hugging Face data set to test on; for cifar10 and cifar100: test.",
        rich_help_panel=_TEST,
    ),
]
TestShare = Annotated[
    float | None,
    typer.Option(
        help="Share of each class to hold out and test on, between 0 and 1.",
        rich_help_panel=_TEST,
        show_default=False,
    ),
]
Truth = Annotated[
    Path | None,
    typer.Option(
        help="The right labels of the source, to say how right the verdict is: .csv with the column label "
        "(and file, for a folder), or .npy.",
        rich_help_panel=_TEST,
    ),
]
CheckpointDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the checkpoints (default: checkpoints in --out).",
        rich_help_panel=_RUN,
        show_default=False,
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Remove earlier checkpoints and begin anew.", rich_help_panel=_RUN)
]
Thumbnails = Annotated[int, typer.Option(min=0, help="So many suspicious rows get a picture.")]
Verbose = Annotated[bool, typer.Option("--verbose/--quiet", help="Progress and summary, or nothing.")]


def train(
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
    method: Method = "dividemix",
    filter: Filter = "none",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    device: Device = "auto",
    random_state: opt.RandomState = 0,
    test: Test = None,
    test_split: TestSplit = None,
    test_share: TestShare = None,
    truth: Truth = None,
    checkpoint_dir: CheckpointDir = None,
    fresh: Fresh = False,
    thumbnails: Thumbnails = 2000,
    noise: opt.DigitsNoise = None,
    noise_kind: opt.DigitsKind = None,
    verbose: Verbose = True,
    debug: opt.Debug = False,
) -> None:
    """Train a classifier on labels of which some are wrong; write a page, tables and a mask.

    Example: noisefilter train photos/ --test-share 0.2 --out training/

    Example: noisefilter train train.csv --label income --test test.csv --filter inn --out training/
    """
    with one_sentence(context):
        typed = opt.given(
            label=label, categorical=categorical, drop=drop, missing=missing, split=split, image=image,
            root=root, x_key=x_key, y_key=y_key, features=features, image_size=image_size, backbone=backbone,
            skip_unreadable=skip_unreadable,
        )  # fmt: skip
        settings = {
            "max_epochs": epochs, "batch_size": batch_size, "lr": lr, "channels": channels, "device": device,
        }  # fmt: skip
        checkpoints = checkpoint_dir or out / TRAINING.kept
        run = Run(source, out, typed, (noise, noise_kind), method, filter, settings, random_state,
                  checkpoints, fresh, thumbnails, verbose, context.obj or ())  # fmt: skip
        _run(run, Held(test, test_split, test_share, random_state), truth)


@dataclass(frozen=True)
class Run:
    """What was typed."""

    source: str
    out: Path
    typed: Mapping[str, Any]  # how to read the source
    noise: tuple[float | None, str | None]  # rate and kind, for digits
    method: str
    filter: str
    settings: Mapping[str, Any]  # parameters of the trainer; None is its default
    random_state: int
    checkpoint_dir: Path
    fresh: bool
    thumbnails: int
    verbose: bool
    words: Sequence[str]  # the command line
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """How long it has been going."""
        return time.perf_counter() - self.started

    @property
    def again(self) -> list[str]:
        """The options that `apply` needs too."""
        return opt.again(self.typed) + opt.again_digits(self.source, *self.noise, self.random_state)

    @property
    def predict_command(self) -> str:
        """What predicts new rows by the model."""
        return shlex.join(["noisefilter", "predict", str(self.out), "NEW", "--out", "predictions.csv"])


def _run(run: Run, held: Held, truth: Path | None) -> None:
    """Train, write what came out, and say so."""
    _check_cheap(run, held)
    store, reading = datasets.opened(run.source, run.typed)
    store = opt.planted(store, run.source, *run.noise, run.random_state)
    known = store.truth if truth is None else read_truth(truth, store)
    data, tested = read_held(held, run.source, store, reading, run.typed, known, run.verbose)
    with _left_tidy(run):
        trainer = _fitted(run, data, tested)
    _write(run, held, data, tested, trainer)
    if run.verbose:
        _show(run, data, trainer)


def _check_cheap(run: Run, held: Held) -> None:
    """Refuse what can be seen to be wrong before the source is opened."""
    opt.check_extra()
    check_methods(run.method, run.filter)
    check_held(held, run.source, run.typed)
    put_right(run.out)
    folder = check_output(run.out, TRAINING)
    check_apart(run.source, folder)
    check_apart(run.source, run.checkpoint_dir, "checkpoint_dir")
    if held.test is not None:
        check_apart(held.test, folder)
    inside = run.checkpoint_dir.resolve()
    if inside.is_relative_to(folder) and inside != folder / TRAINING.kept:
        raise InputError(
            f"checkpoint_dir must be outside the output folder, got {str(run.checkpoint_dir)!r}."
        )


@contextmanager
def _left_tidy(run: Run) -> Iterator[None]:
    """Leave no empty folders behind where the training does not get to its first checkpoint."""
    made_new = [folder for folder in (run.checkpoint_dir, run.out) if not folder.exists()]
    try:
        yield
    except BaseException as error:
        for folder in made_new:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, KeyboardInterrupt) and _checkpoints(run):
            complain("The same command goes on after the last whole epoch.")
        raise


def _checkpoints(run: Run) -> list[Path]:
    return sorted(run.checkpoint_dir.glob("epoch-*.safetensors"))


def _fitted(run: Run, data: Source, tested: Source | None) -> Any:
    trainer = made(
        run.method, run.filter, random_state=run.random_state, verbose=int(run.verbose),
        checkpoint_dir=str(run.checkpoint_dir), **run.settings,
    )  # fmt: skip
    if run.fresh:
        for path in _checkpoints(run):
            path.unlink()
    try:
        return trainer.fit(data.X, data.y, eval_set=None if tested is None else (tested.X, tested.y))
    except ParameterError as error:
        if not str(error).startswith("checkpoint_dir must hold"):
            raise
        raise ParameterError(f"{error} --fresh empties it.") from error


def _write(run: Run, held: Held, data: Source, tested: Source | None, trainer: Any) -> None:
    from noisefilter.training.page import Trained, write_history, write_training  # takes a moment to import

    trained = Trained(
        report=_report(run, data, trainer),
        trainer=type(trainer).__name__,
        history=trainer.history_,
        accuracy=None if tested is None else trainer.eval_report_,
        test=None if tested is None else held.described(tested),
        parameters=_parameters(trainer),
        predict_command=run.predict_command,
        labeled=getattr(trainer, "labeled_", None),
    )
    with output_folder(run.out, _about(run, data, trainer), TRAINING) as folder:
        write_verdict(folder, data, trainer.verdict_)
        write_history(folder / "history.csv", trainer.history_)
        write_training(folder / "training.html", trained)
        write_model(folder / MODEL, data, trainer)


def _report(run: Run, data: Source, trainer: Any) -> Any:
    from noisefilter.audit.report import Report

    copy = "corrected" + "".join(data.store.suffixes[:1] if data.store else ())
    command = ["noisefilter", "apply", "decisions.json", run.source, "--out", copy, *run.again]
    return Report(
        source=data,
        verdict=trainer.verdict_,
        command=shlex.join(["noisefilter", *run.words]),
        settings=_settings(run, trainer),
        thumbnails=run.thumbnails,
        apply_command=shlex.join(command),
    )


def _settings(run: Run, trainer: Any) -> Mapping[str, str]:
    """Return how the training was made, for people."""
    return {
        "trainer": type(trainer).__name__,
        "filter before": run.filter,
        "epochs": f"{len(trainer.history_):,}",
        "seed": str(run.random_state),
        "checkpoints": str(run.checkpoint_dir),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seconds": f"{run.seconds:.1f}",
        "noisefilter": __version__,
        "Python": platform.python_version(),
        **{package: version(package) for package in ("torch", "scikit-learn", "numpy")},
    }


def _parameters(trainer: Any) -> dict[str, str]:
    """Return the parameters of a trainer; those that are None are chosen by it."""
    values = trainer.get_params(deep=False)
    return {
        name: "its default" if value is None else type(value).__name__ if name == "filter" else str(value)
        for name, value in values.items()
        if name not in _FREE and not (value is None and name in ("channels", "estimator", "filter"))
    }


def _about(run: Run, data: Source, trainer: Any) -> dict[str, Any]:
    facts = summarize(trainer.verdict_)
    counts = ("rows", "flagged", "wrong_label", "out_of_distribution", "estimated_noise_rate")
    return {
        "method": type(trainer).__name__,
        "filter": run.filter,
        "random_state": run.random_state,
        "epochs": len(trainer.history_),
        "accuracy": getattr(trainer, "eval_report_", None),
        "source": data.description,
        "fingerprint": None if data.store is None else data.store.fingerprint,
        "left_out": list(data.left_out),
        "counts": {name: facts[name] for name in counts},
        "rows": trained_on(data, run.typed)._asdict(),
    }


def _show(run: Run, data: Source, trainer: Any) -> None:
    """Print the summary of a training."""
    lines = overview(data, trainer.verdict_, summarize(trainer.verdict_))
    lines.append(("epochs", f"{len(trainer.history_):,}"))
    if hasattr(trainer, "eval_report_"):
        told = trainer.eval_report_
        lines.append(("test accuracy", f"{told['last']:.1%} after the last epoch"))
        lines.append(("", f"{told['last_10']:.1%} mean of the last {min(10, len(trainer.history_))}"))
        lines.append(("", f"{told['best']:.1%} in the best, {told['best_epoch']}; nothing was chosen by it"))
    lines.append(("seconds", f"{run.seconds:.1f}"))
    lines.append(("written", ", ".join(sorted(path.name for path in run.out.iterdir())) + f" in {run.out}"))
    lines.append(("page", str(run.out / "training.html")))
    lines.append(("new rows", run.predict_command))
    show_facts(lines)
