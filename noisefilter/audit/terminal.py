"""What an audit says in the terminal: a summary in tables, or one sentence when something is wrong."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from noisefilter.audit.tables import summarize
from noisefilter.datasets import Source
from noisefilter.errors import InputTypeError, NoiseFilterError
from noisefilter.metrics import clean_auc, precision_recall_f1
from noisefilter.verdict import PARTITION_NAMES, Verdict

__all__ = ["complain", "one_sentence", "overview", "printable", "show", "show_facts"]

EXTRA = ("PIL", "jinja2", "matplotlib", "pandas", "pyarrow")  # beside typer and rich, what [audit] brings
_CLASSES_SHOWN = 20


@contextmanager
def one_sentence(context: typer.Context) -> Iterator[None]:
    """End the command with one sentence on stderr where the block raises.

    Bad input exits 2, Ctrl-C 130; anything else that is raised is a fault of ours, and exits 3. Warnings
    become one line each. A sentence that begins with the name of an option has it as it is typed. The
    traceback is printed too where the command was given ``--debug``.

    Parameters
    ----------
    context : typer.Context
        Of the command.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(f"Note: {printable(str(message))}", file=sys.stderr)
        try:
            yield
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            _end("Interrupted.", 130, context)
        except (NoiseFilterError, InputTypeError) as error:
            _end(_as_typed(str(error), context), 2, context)
        except OSError as error:
            where = f"{error.filename!r}: " if error.filename else ""
            _end(f"{where}{error.strerror or error}.", 2, context)
        except Exception as error:
            package = (getattr(error, "name", None) or "").partition(".")[0]
            if isinstance(error, ModuleNotFoundError) and package in EXTRA:
                _end(f'The command line needs {package}: pip install "noisefilter[audit]"', 2, context)
            _end(f"Unexpected {type(error).__name__}: {error} (--debug shows where)", 3, context)


def _as_typed(sentence: str, context: typer.Context) -> str:
    name, must, rest = sentence.partition(" must ")
    typed = {param.name: max(param.opts, key=len) for param in context.command.params}
    option = typed.get(name, name)
    return f"{option if option.startswith('--') else name}{must}{rest}"


def _end(sentence: str, code: int, context: typer.Context) -> NoReturn:
    if context.params.get("debug"):
        traceback.print_exc()
    complain(sentence)
    raise typer.Exit(code)


def complain(sentence: str) -> None:
    """Print one line on stderr."""
    print(printable(" ".join(sentence.split())), file=sys.stderr)


def printable(text: str) -> str:
    """Spell out what could move the cursor, turn the line around or fail to print."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def show(
    source: Source, verdict: Verdict, seconds: float, written: Sequence[Path], decided: str = ""
) -> None:
    """Print the summary of an audit.

    Parameters
    ----------
    source : Source
        What was audited.
    verdict : Verdict
        The judgement.
    seconds : float
        How long it took.
    written : sequence of Path
        The folder the files went to, and other files.
    decided : str, default=""
        What was decided about rows before.
    """
    facts = summarize(verdict)
    _show_classes(facts["classes"])
    if facts["confusions"]:
        _show_rows("Strongest confusions", ("given", "suggested", "rows"), facts["confusions"])
    if len(facts["suspects"]):
        _show_suspects(source, verdict, facts["suspects"])
    folder, *others = written
    lines = overview(source, verdict, facts)
    if decided:
        lines.append(("decided before", decided))
    lines.append(("seconds", f"{seconds:.1f}"))
    lines.append(
        ("written", ", ".join(map(str, (f"{', '.join(sorted(os.listdir(folder)))} in {folder}", *others))))
    )
    if (folder / "report.html").exists():
        lines.append(("report", str(folder / "report.html")))
    show_facts(lines)


def show_facts(lines: Iterable[tuple[str, str]]) -> None:
    """Print pairs of a name and a value."""
    overview = Table(show_header=False, box=None)
    overview.add_column(style="bold")
    overview.add_column(overflow="fold")
    for name, value in lines:
        overview.add_row(name, _text(value))
    Console().print(overview)


def overview(source: Source, verdict: Verdict, facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return pairs of a name and a value about a verdict; the facts are those of `summarize`."""
    rows = facts["rows"]
    lines = [
        ("source", source.description),
        ("rows", f"{rows:,} in {len(verdict.classes)} classes"),
        ("flagged", f"{facts['flagged']:,} ({facts['flagged'] / rows:.1%})"),
        ("wrong label", f"{facts['wrong_label']:,}"),
        (
            PARTITION_NAMES[2],
            f"{facts['out_of_distribution']:,}" if verdict.open_set else "not looked for",
        ),
        ("estimated noise rate", _estimate(verdict)),
    ]
    if source.left_out:
        lines.append(("left out", f"{len(source.left_out):,}, such as {source.left_out[0]!r}"))
    return lines if source.truth is None else lines + _hits(verdict, verdict.labels != source.truth)


def _estimate(verdict: Verdict) -> str:
    rate, interval = f"{verdict.estimated_noise_rate:.1%}", verdict.noise_rate_interval
    return rate if interval is None else f"{rate} ({interval[0]:.1%} to {interval[1]:.1%})"


def _hits(verdict: Verdict, wrong: NDArray[np.bool_]) -> list[tuple[str, str]]:
    """Say how right the verdict was, where the truth is known."""
    lines = [("really wrong", f"{wrong.sum():,} ({wrong.mean():.1%})")]
    if wrong.any():
        precision, recall, _ = precision_recall_f1(~verdict.clean_mask, wrong)
        lines += [
            ("precision", f"{precision:.3f} of the flagged rows are really wrong"),
            ("recall", f"{recall:.3f} of the really wrong rows are flagged"),
            ("AUC", f"{clean_auc(verdict.scores, wrong):.3f}"),
        ]
    return lines


def _show_classes(classes: list[tuple[Any, int, int]]) -> None:
    title = "Classes"
    if len(classes) > _CLASSES_SHOWN:
        title = f"The {_CLASSES_SHOWN} of {len(classes)} classes with the largest share flagged"
        classes = sorted(classes, key=lambda entry: -entry[2] / entry[1])[:_CLASSES_SHOWN]
    rows = [(label, n_rows, flagged, f"{flagged / n_rows:.1%}") for label, n_rows, flagged in classes]
    _show_rows(title, ("class", "rows", "flagged", "share"), rows)


def _show_suspects(source: Source, verdict: Verdict, suspects: NDArray[np.intp]) -> None:
    columns: dict[str, Any] = {"row": suspects if source.rows is None else source.rows[suspects]}
    if source.names is not None:
        columns["file"] = [source.names[row] for row in suspects]
    columns["given"] = verdict.labels[suspects]
    columns["suggested"] = verdict.suggested_labels[suspects]
    if source.truth is not None:
        columns["truth"] = source.truth[suspects]
    columns["score"] = [f"{score:.3g}" for score in verdict.scores[suspects]]
    _show_rows("Most suspicious rows", tuple(columns), zip(*columns.values(), strict=True))


def _show_rows(title: str, header: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> None:
    console = Console()
    console.print(Text(title, style="bold"))
    table = Table()
    for name in header:
        table.add_column(name, overflow="fold", justify="left" if name == "file" else "right")
    for row in rows:
        table.add_row(*map(_text, row))
    console.print(table)


def _text(value: Any) -> Text:
    """Text, so that brackets in a name are no markup."""
    return Text(printable(str(value)))
