"""How time and memory grow with the number of rows and of classes, filter by filter.

    python benchmarks/growth.py                       # all cells that are not there yet, smallest first
    python benchmarks/growth.py --most-rows 100000    # none of more rows
    python benchmarks/growth.py --methods inn judge   # some filters only
    python benchmarks/growth.py --table               # the tables of all results, as Markdown

Rows are drawn, so no data are needed: as many Gaussian clusters as classes, in 128 float32 columns, as far
apart as makes the best possible classifier right in 75 % of the rows, and 10 % symmetric noise. A cell is one
filter and one number of rows, columns and classes. Each runs in a process of its own, whose peak memory is
the cell's, and is appended to ``results/growth.jsonl``, so the run can be stopped at any time and goes on
where it was. It takes about four hours on two cores, half of it for the seven cells of a million rows.

All parameters are defaults, but for the number of epochs where a million rows would take more than half an
hour: it is in the record (``max_epochs``) and under the table. ``filtered`` is ``FilteredClassifier`` of
INNScorer and logistic regression, ``vote`` a ``VoteFilter`` of INNScorer and SmallLossSelector. ``judge`` is
told the probabilities of the best possible classifier.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest import mock

import numpy as np
from audit import machine

RESULTS = Path(__file__).parent / "results" / "growth.jsonl"
ACCURACY, RATE = 0.75, 0.1
ROWS = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
CLASSES = (2, 10, 30, 100, 300, 1_000)
USUAL = {"rows": 30_000, "columns": 128, "classes": 10}
WIDE = {"method": "inn", "rows": 50_000, "columns": 512, "classes": 10}  # an embedding of usual size
NAMES = ("method", *USUAL)
METHODS = ("inn", "small_loss", "loss_variation", "josrc", "vote", "judge", "filtered")
FEWER_EPOCHS = {
    ("josrc", 1_000_000): 10,
    ("vote", 1_000_000): 10,
}  # of 30, as all 30 take more than half an hour
STAGES = {
    "epochs": "noisefilter.net:Net.run_epoch",
    "training": "noisefilter.models:NetModel.train",
    "neighbors": "noisefilter.filters.inn:nearest",
    "paths": "noisefilter.filters.inn:mean_path_probs",
    "decision": "noisefilter.base:BaseFilter._judge",
}
# Exponents of n that the cost formulas allow. Neighbors are searched among all rows up to 50,000, beyond that
# in 16 of 4 sqrt(n) cells; each row is compared with as many centers of cells.
ALLOWED = {"training": "1", "neighbors": "2 up to 50,000 rows, 1.5 beyond", "paths": "1", "decision": "1"}
GIB = 24


def cells() -> list[dict[str, Any]]:
    """Return all cells, smallest first."""
    by_rows = [USUAL | {"method": method, "rows": rows} for method, rows in product(METHODS, ROWS)]
    by_classes = [USUAL | {"method": method, "classes": k} for method, k in product(METHODS, CLASSES)]
    ordered = {key(cell): {name: cell[name] for name in NAMES} for cell in [*by_rows, *by_classes, WIDE]}
    return sorted(ordered.values(), key=lambda c: (c["rows"], c["columns"], c["classes"]))


def key(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a cell one cell."""
    return tuple(cell[name] for name in NAMES)


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


# -- one cell ---------------------------------------------------------------------------------------


def distance(classes: int) -> float:
    """Return how far centers must be from the origin, at right angles, for the accuracy wanted.

    A row is told right where its own center fits better than all others: that of z to z + distance, z normal.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    z = np.linspace(-8, 8, 2001)

    def accuracy(far: float) -> float:
        return float(np.trapezoid(norm.pdf(z) * norm.cdf(z + far) ** (classes - 1), z))

    return float(brentq(lambda far: accuracy(far) - ACCURACY, 0, 20))


def generated(cell: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Draw rows, labels, right labels and centers, with no more memory than they take."""
    from noisefilter import plant_noise

    rng = np.random.default_rng(0)
    centers = rng.standard_normal((cell["classes"], cell["columns"]), dtype=np.float32)
    centers *= distance(cell["classes"]) / np.linalg.norm(centers, axis=1, keepdims=True)
    truth = rng.integers(cell["classes"], size=cell["rows"])
    X = rng.standard_normal((cell["rows"], cell["columns"]), dtype=np.float32)
    for part in np.array_split(np.arange(len(X)), len(X) // 1000):
        X[part] += centers[truth[part]]
    return X, plant_noise(truth, "symmetric", RATE, random_state=0)[0], truth, centers


def best_probs(X: Any, centers: Any) -> Any:
    """Return what the best possible classifier says, (n, K)."""
    from scipy.special import softmax

    probs = np.empty((len(X), len(centers)), dtype=np.float32)
    for part in np.array_split(np.arange(len(X)), len(X) // 1000):
        probs[part] = softmax(X[part] @ centers.T, axis=1)
    return probs


@contextmanager
def timed() -> Iterator[dict[str, list[float]]]:
    """List the seconds of every call of a stage inside."""
    seconds: dict[str, list[float]] = {}

    def watched(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds.setdefault(stage, []).append(time.perf_counter() - start)

        return call

    with ExitStack() as stack:
        for stage, place in STAGES.items():
            stack.enter_context(mock.patch(place.replace(":", "."), watched(stage, resolve_name(place))))
        yield seconds


def judged(method: str, X: Any, y: Any, probs: Any, epochs: int | None) -> Any:
    """Return the verdict of a filter."""
    import noisefilter as nf

    common: dict[str, Any] = {"max_epochs": epochs, "random_state": 0}
    if method == "judge":
        return nf.judge(probs, y)
    if method == "filtered":
        from sklearn.linear_model import LogisticRegression

        return nf.FilteredClassifier(nf.INNScorer(**common), LogisticRegression()).fit(X, y).verdict_
    if method == "vote":
        members = [("inn", nf.INNScorer(**common)), ("small_loss", nf.SmallLossSelector(**common))]
        return nf.VoteFilter(members).fit(X, y).verdict_
    names = {
        "inn": "INNScorer", "small_loss": "SmallLossSelector", "loss_variation": "LossVariationSelector",
        "josrc": "JoSRCSelector",
    }  # fmt: skip
    return getattr(nf, names[method])(**common).fit(X, y).verdict_


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Run one cell in this process."""
    import torch

    from noisefilter.metrics import clean_auc

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    X, y, truth, centers = generated(cell)
    probs = best_probs(X, centers) if cell["method"] == "judge" else None
    epochs = FEWER_EPOCHS.get((cell["method"], cell["rows"]))
    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # the first one imports a good deal
    start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu = time.perf_counter(), time.process_time()
    with timed() as calls:
        verdict = judged(cell["method"], X, y, probs, epochs)
    cost = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "start_mib": start,
    }
    cost["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trained = len(calls.pop("epochs", []))
    cost |= {"epochs": trained, "stages": {stage: sum(seconds) for stage, seconds in calls.items()}}
    found = {
        "wrong": float((y != truth).mean()),
        "estimated_rate": verdict.estimated_noise_rate,
        "flagged": verdict.noise_rate,
        "auc": float(clean_auc(verdict.scores, y != truth)),
    }
    return cell | {"max_epochs": epochs} | cost | found | machine()


# -- what the results come to -----------------------------------------------------------------------


def slope(sizes: Any, costs: Any) -> float:
    """Return the exponent b of costs that grow as sizes to the power of b, by least squares of logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def line(method: str, axis: str, sizes: tuple[int, ...]) -> dict[int, dict[str, Any]]:
    """Return the records of a filter along rows or classes, by size."""
    wanted = [key(USUAL | {"method": method, axis: size}) for size in sizes]
    found = {key(record): record for record in done()}
    return {size: found[place] for size, place in zip(sizes, wanted, strict=True) if place in found}


def exponent(
    records: dict[int, dict[str, Any]], sizes: tuple[int, ...], read: Callable[[dict[str, Any]], float]
) -> str:
    """Render the exponent over the upper half of the sizes, of cells with the default epochs alone."""
    upper = sizes[len(sizes) // 2 :]
    known = {s: read(records[s]) for s in upper if s in records and records[s]["max_epochs"] is None}
    return f"{slope(list(known), list(known.values())):.2f}" if len(known) > 1 else ""


def bytes_per(records: dict[int, dict[str, Any]], unit: int) -> float | None:
    """Return what one more row, or class of ``unit`` rows, adds to the peak at the upper end, in bytes."""
    if len(records) < 2:
        return None
    less, more = sorted(records)[-2:]
    added = records[more]["peak_mib"] - records[less]["peak_mib"]
    return float(added * 2**20 / ((more - less) * unit))


def costs(axis: str, sizes: tuple[int, ...], name: str, title: str) -> str:
    """Render one cost of every filter and size as Markdown."""
    lines = [f"| {title} | " + " | ".join(f"{s:,}" for s in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for method in METHODS:
        records = line(method, axis, sizes)
        shown = [_cost(records[size], name) if size in records else "" for size in sizes]
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cost(record: dict[str, Any], name: str) -> str:
    value, mark = record[name], "*" if record["max_epochs"] is not None else ""
    return (f"{value:.1f}" if value < 10 else f"{value:,.0f}") + mark


def exponents() -> str:
    """Render how seconds grow and what a row takes."""
    lines = [
        "| | seconds grow as rows to the power of | bytes a row | seconds grow as classes to the power of "
        "| bytes a row and class |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS:
        by_rows, by_classes = line(method, "rows", ROWS), line(method, "classes", CLASSES)
        row, number = bytes_per(by_rows, 1), bytes_per(by_classes, USUAL["rows"])
        shown = [
            exponent(by_rows, ROWS, lambda r: float(r["seconds"])), "" if row is None else f"{row:,.0f}",
            exponent(by_classes, CLASSES, lambda r: float(r["seconds"])),
            "" if number is None else f"{number:.0f}",
        ]  # fmt: skip
        lines.append(f"| {method} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def stages() -> str:
    """Render the seconds of INNScorer's stages, and how they grow."""
    records = line("inn", "rows", ROWS)
    lines = [
        "| inn | " + " | ".join(f"{s:,}" for s in ROWS) + " | exponent | at most |",
        "|---" * (len(ROWS) + 3) + "|",
        "| epochs | "
        + " | ".join(str(records[s]["epochs"]) if s in records else "" for s in ROWS)
        + " | | |",
    ]
    for stage, allowed in ALLOWED.items():
        read = partial(_of_stage, stage)
        shown = [f"{read(records[s]):.2f}" if s in records else "" for s in ROWS]
        name = f"{stage}, an epoch" if stage == "training" else stage
        lines.append(f"| {name} | " + " | ".join([*shown, exponent(records, ROWS, read), allowed]) + " |")
    return "\n".join(lines)


def _of_stage(stage: str, record: dict[str, Any]) -> float:
    seconds = float(record["stages"][stage])
    return seconds / record["epochs"] if stage == "training" else seconds


def limits() -> str:
    """Say where one machine ends, and what a million rows and a usual embedding take."""
    records = line("inn", "rows", ROWS)
    per_row, said = bytes_per(records, 1), []
    if per_row is not None:
        most = records[max(records)]
        rows = max(records) + (GIB * 1024 - most["peak_mib"]) * 2**20 / per_row
        said.append(
            f"INNScorer takes {per_row:,.0f} bytes for one more row of 128 columns ({4 * 128} of them are "
            f"the row itself), measured from {sorted(records)[-2]:,} to {max(records):,} rows; so {GIB} GiB "
            f"are full at about {rows / 1e6:.1f} million rows. {max(records):,} rows took "
            f"{most['seconds'] / 60:.0f} minutes and {most['peak_mib'] / 1024:.1f} GiB."
        )
    wide = [record for record in done() if key(record) == key(WIDE)]
    if wide:
        said.append(
            f"INNScorer of {WIDE['rows']:,} rows of {WIDE['columns']} columns took {wide[0]['seconds']:.0f} "
            f"seconds, neighbors included, and {wide[0]['peak_mib']:,.0f} MiB."
        )
    return " ".join(said)


def tables() -> str:
    """Render everything."""
    fewer = ", ".join(f"{method} {epochs}" for (method, _), epochs in FEWER_EPOCHS.items())
    aucs = [r["auc"] for r in done() if r["classes"] == USUAL["classes"] and r["columns"] == USUAL["columns"]]
    parts = [
        costs("rows", ROWS, "seconds", "seconds, by rows"),
        costs("rows", ROWS, "peak_mib", "peak MiB, by rows"),
        f"Marked *: of fewer epochs than the default 30 ({fewer}). "
        + (f"AUC of these cells: {min(aucs):.3f} to {max(aucs):.3f}." if aucs else ""),
        costs("classes", CLASSES, "seconds", "seconds, by classes, 30,000 rows"),
        costs("classes", CLASSES, "peak_mib", "peak MiB, by classes, 30,000 rows"),
        "How they grow over the upper half of the sizes; memory between the last two:",
        exponents(), "The stages of INNScorer, in seconds:", stages(), limits(),
        "![Seconds and peak memory against rows and against classes](../docs/images/growth.svg)",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part)


def picture() -> Any:
    """Draw seconds and memory against rows and classes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey="row")
    names = (("seconds", "seconds"), ("peak_mib", "peak MiB"))
    for column, (axis, sizes) in enumerate((("rows", ROWS), ("classes", CLASSES))):
        for panel, (name, title) in zip(panels[:, column], names, strict=True):
            for method in METHODS:
                records = line(method, axis, sizes)
                full = [size for size in records if records[size]["max_epochs"] is None]
                panel.loglog(full, [records[size][name] for size in full], "o-", label=method, markersize=3)
            panel.set_ylabel(title if column == 0 else "")
        panels[1, column].set_xlabel(f"{axis}, {'10 classes' if axis == 'rows' else '30,000 rows'}")
    panels[0, 0].legend(fontsize="small")
    return figure


# -- the run ----------------------------------------------------------------------------------------


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--most-rows", type=int, default=max(ROWS))
    parser.add_argument("--most-classes", type=int, default=max(CLASSES))
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(tables())
    elif args.cell:
        record = run_cell(json.loads(args.cell))
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
    else:
        run_missing(args)


def run_missing(args: argparse.Namespace) -> None:
    """Run every cell that has no result, a process each, one after the other."""
    there = {key(record) for record in done()}
    environment = {"OMP_NUM_THREADS": "2"} | os.environ
    for cell in cells():
        asked = cell["method"] in args.methods and cell["rows"] <= args.most_rows
        if asked and cell["classes"] <= args.most_classes and key(cell) not in there:
            command = [sys.executable, __file__, "--cell", json.dumps(cell)]
            subprocess.run(command, check=False, env=environment)
            print(cell, flush=True)


if __name__ == "__main__":
    main()
