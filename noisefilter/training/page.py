"""The page of a training: how it went, and what it makes of the labels; the latter as an audit shows it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from noisefilter.audit.figures import epochs_svg, kept_svg
from noisefilter.audit.report import Report, page_data, percent, write_page

__all__ = ["TestRows", "Trained", "training_data", "write_history", "write_training"]

_LAST = 10
_KEPT = "n_labeled"
# What the figures call the numbers of the history; the table has them by their own names.
_SPOKEN = {
    "n_id": "wrong label",
    "n_ood": "no class",
    f"{_KEPT}_1": "kept, network 1",
    f"{_KEPT}_2": "kept, network 2",
    "labeled_loss": "loss of kept labels",
    "unlabeled_loss": "loss of guesses",
}


@dataclass(frozen=True)
class TestRows:
    """The rows that accuracy was measured on.

    Parameters
    ----------
    n_rows : int
        How many.
    came_from : str
        For people: "20 % of the source" or the name of another one.
    trusted : bool
        Whether their labels are known to be right.
    """

    n_rows: int
    came_from: str
    trusted: bool


@dataclass(frozen=True)
class Trained:
    """What the page tells.

    Parameters
    ----------
    report : Report
        The verdict of the training rows, and how it was made.
    trainer : str
        Its name.
    history : sequence of mapping
        ``history_`` of the trainer.
    accuracy : mapping, optional
        ``eval_report_`` of the trainer.
    test : TestRows, optional
        What that was measured on.
    parameters : mapping of str to str
        Of the trainer.
    predict_command : str
        What predicts new rows by the model; none if empty.
    labeled : (2, n) bool array, optional
        ``labeled_`` of the trainer, where it has that: the rows that each of its two networks was trained on
        under their given label in the last epoch, in the order of the verdict.
    """

    report: Report
    trainer: str
    history: Sequence[Mapping[str, Any]]
    accuracy: Mapping[str, Any] | None = None
    test: TestRows | None = None
    parameters: Mapping[str, str] | None = None
    predict_command: str = ""
    labeled: NDArray[np.bool_] | None = None


def write_training(path: Path, trained: Trained) -> None:
    """Write the page."""
    write_page(path, "training/template.html.jinja", training_data(trained))


def training_data(trained: Trained) -> dict[str, Any]:
    """Gather everything the template shows, as plain values.

    Returns
    -------
    dict
        That of `page_data`, and what ``template.html.jinja`` names beside it.
    """
    data = page_data(trained.report)
    columns = _columns(trained.history)
    return data | {
        "headline": _headline(trained),
        "label_headline": data["headline"],
        "trainer": trained.trainer,
        "training_cards": _cards(trained),
        "test": trained.test,
        "curves": _curves(trained),
        "kept": _kept(trained),
        "columns": [_spoken(name) for name in columns],
        "epochs": [[_cell(record.get(name)) for name in columns] for record in trained.history],
        "parameters": dict(trained.parameters or {}),
        "predict_command": trained.predict_command,
    }


def _headline(trained: Trained) -> str:
    rows, epochs = len(trained.report.verdict), len(trained.history)
    if trained.accuracy is None or trained.test is None:
        return f"Trained on {rows:,} rows, {epochs:,} {'epoch' if epochs == 1 else 'epochs'}."
    share = percent(trained.accuracy["last"])
    return f"{share} of {trained.test.n_rows:,} test rows are predicted {_right(trained)}."


def _right(trained: Trained) -> str:
    """Return what a prediction is that agrees with the label of a test row."""
    return "right" if trained.test is not None and trained.test.trusted else "as labeled"


def _cards(trained: Trained) -> list[dict[str, str]]:
    """Return the key figures: name, value, and what it means."""
    epochs, accuracy = len(trained.history), trained.accuracy
    if accuracy is None:
        return []
    some = min(_LAST, epochs)
    mean = "Mean of the last ten epochs" if some == _LAST else f"Mean of all {some} epochs"
    return [
        {
            "name": "Last epoch",
            "value": percent(accuracy["last"]),
            "note": f"test accuracy of the networks as they are, after {epochs:,} epochs",
        },
        {"name": mean, "value": percent(accuracy["last_10"]), "note": "test accuracy, steadier than one"},
        {
            "name": "Best epoch",
            "value": percent(accuracy["best"]),
            "note": f"epoch {accuracy['best_epoch']:,}; to compare with papers, nothing was chosen by it",
        },
    ]


def _curves(trained: Trained) -> list[dict[str, Any]]:
    """Return the figures over the epochs: what they are called, what they say, and the picture."""
    history, start = trained.history, _start(trained.history)
    names = _columns(history)
    curves = []
    if "test_accuracy" in names:
        curves.append({
            "title": "Test accuracy",
            "says": f"Share of the test rows predicted {_right(trained)} after each epoch.",
            "svg": epochs_svg("accuracy", _series(history, ["test_accuracy"]), start=start, percent=True),
        })  # fmt: skip
    losses = [name for name in names if "loss" in name]
    if losses:
        says = "Mean over the steps of an epoch, on the training rows."
        if start and _guesses(history) and "labeled_loss" not in history[0]:
            says += " After the warm-up the loss is another one, so the two parts cannot be compared."
        curves.append({
            "title": "Losses",
            "says": says,
            "svg": epochs_svg("losses", _series(history, losses), start=start),
        })  # fmt: skip
    sizes = [name for name in names if name.startswith("n_")]
    if sizes:
        curves.append(_sizes(trained, sizes, start))
    return [curve | {"svg": Markup(curve["svg"])} for curve in curves]


def _sizes(trained: Trained, names: Sequence[str], start: int | None) -> dict[str, Any]:
    source, n_rows = trained.report.source, len(trained.report.verdict)
    level = None
    if source.truth is not None:
        level = float(np.sum(trained.report.verdict.labels == source.truth)), "right labels"
    says = f"How the {n_rows:,} training rows are divided in each epoch."
    if any(name.startswith(_KEPT) for name in names):
        others = "guessed" if _guesses(trained.history) else "left out"
        says = f"How many of {n_rows:,} labels are kept in each epoch; the other rows are {others}."
    return {
        "title": "Rows in each set",
        "says": says,
        "svg": epochs_svg(
            "sizes", _series(trained.history, names), start=start, level=level, limits=(0, 1.05 * n_rows)
        ),
    }


def _kept(trained: Trained) -> dict[str, Any] | None:
    """Return size and purity of what is kept of each class, most kept first; None where nothing is known.

    The counterpart of Figure 3 of the VRLVMix paper, which has the labeled set of one epoch. Here each count
    is the mean of both networks.
    """
    verdict, truth, labeled = trained.report.verdict, trained.report.source.truth, trained.labeled
    if labeled is None or not labeled.any():
        return None
    kept = labeled.mean(axis=0)
    members = [verdict.labels == label for label in verdict.classes]
    n_rows, n_kept = (
        np.array([mine.sum() for mine in members]),
        np.array([kept[mine].sum() for mine in members]),
    )
    n_right = None
    if truth is not None:
        right = kept * (verdict.labels == truth)
        n_right = np.array([right[mine].sum() for mine in members])
    order = np.argsort(-n_kept, kind="stable")
    n_rows, n_kept, n_right = n_rows[order], n_kept[order], None if n_right is None else n_right[order]
    classes = [str(label) for label in verdict.classes[order]]
    lines = [
        {"label": label, "rows": f"{rows:,}", "kept": _count(size), "share": _share(size, rows)}
        for label, rows, size in zip(classes, n_rows, n_kept, strict=True)
    ]
    found: dict[str, Any] = {
        "svg": Markup(kept_svg(classes, n_rows, n_kept, n_right)),
        "lines": lines,
        "total": {"rows": f"{n_rows.sum():,}", "kept": _count(n_kept.sum())},
        "equal": bool(n_kept[0] == n_kept[-1]),
    }
    return found if n_right is None else found | _purity(lines, n_kept, n_right)


def _purity(
    lines: list[dict[str, Any]], n_kept: NDArray[np.float64], n_right: NDArray[np.float64]
) -> dict[str, Any]:
    """Write into the lines how many of the kept labels are right; return that of all, least and greatest."""
    for line, size, right in zip(lines, n_kept, n_right, strict=True):
        line |= {"right": _count(right), "purity": _share(right, size)}
    some = np.flatnonzero(n_kept)  # nothing is pure or impure about an empty set
    shares = n_right[some] / n_kept[some]
    least, greatest = lines[some[shares.argmin()]], lines[some[shares.argmax()]]
    return {"purity": _share(n_right.sum(), n_kept.sum()), "least": least, "greatest": greatest}


def _count(value: float) -> str:
    """Return a mean of two counts: whole, or with a half."""
    return f"{value:,.1f}".removesuffix(".0")


def _share(part: float, whole: float) -> str:
    return percent(part / whole) if whole else "–"


def _guesses(history: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether any epoch learned from more than labels."""
    return any(record.get("phase") not in ("warm-up", "supervised") for record in history)


def _start(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the first epoch, from 1, after the warm-up; None where there is none."""
    warm = sum(record.get("phase") == "warm-up" for record in history)
    return warm + 1 if 0 < warm < len(history) else None


def _series(history: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[float | None]]:
    spoken = {name: _SPOKEN.get(name, _spoken(name).removeprefix("n ")) for name in names}
    return {spoken[name]: [record.get(name) for record in history] for name in names}


def _columns(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return all that was recorded in any epoch, by first appearance."""
    return list(dict.fromkeys(name for record in history for name in record))


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with a line for each epoch; what was not recorded in one is empty there."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, _columns(history))
        table.writeheader()
        table.writerows(history)
