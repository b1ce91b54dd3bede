"""Every filter on the same rows, beside cleanlab: closed and open sets, many wrong labels and few.

    python benchmarks/filters.py --data DIR                 # all cells that are not there yet
    python benchmarks/filters.py --data DIR --seeds 0       # the first seed only
    python benchmarks/filters.py --table                    # the table of all results, as Markdown

DIR holds ``cifar10.npz`` and ``fashion_mnist.npz`` as for ``audit.py``; here the first 5,000 rows are used.
A cell is one data set, noise, rate, seed and training; it runs in a process of its own and appends one
record for each method that is read off its training to ``results/filters.jsonl``. It can be stopped at any
time and goes on where it was. All cells take about six hours on two cores with ``--jobs 2``.

Under ``open_set`` noise the last two of ten classes are strangers, labeled at random, and the rest suffers
symmetric noise; all filters then look for strangers (``open_set=True``), cleanlab cannot. The small-loss
family (averaged margin, mean loss of O2U-Net, AUM) is read off one training.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import audit
import numpy as np
from audit import EPOCHS, FASHION_ASYMMETRIC, machine, run_cleanlab

RESULTS = Path(__file__).parent / "results" / "filters.jsonl"
ROWS = 5_000
DATA = ("cifar10", "fashion_mnist")
NOISE = [
    ("none", 0.0), ("symmetric", 0.03), ("symmetric", 0.1), ("symmetric", 0.4), ("asymmetric", 0.1),
    ("asymmetric", 0.4), ("annotator", 0.1), ("annotator", 0.4), ("open_set", 0.1), ("open_set", 0.4),
]  # fmt: skip
NAMES = ("data", "noise", "rate", "seed")
SHOWN = ("inn", "averaged_margin", "mean_loss", "aum", "loss_variation", "josrc", "vote", "cleanlab")


def planted(folder: Path, cell: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Load the rows of a cell and plant its noise."""
    from noisefilter import plant_noise
    from noisefilter.noise import CIFAR10_ASYMMETRIC

    with np.load(folder / f"{cell['data']}.npz") as archive:
        X, truth = archive["X_train"][:ROWS], archive["y_train"][:ROWS]
    if cell["noise"] == "none":
        return X, truth, truth.copy()
    mapping = CIFAR10_ASYMMETRIC if cell["data"] == "cifar10" else FASHION_ASYMMETRIC
    extra: dict[str, Any] = {"mapping": mapping} if cell["noise"] == "asymmetric" else {}
    extra |= {"X": X.reshape(len(X), -1)} if cell["noise"] == "annotator" else {}
    return X, truth, plant_noise(truth, cell["noise"], cell["rate"], random_state=cell["seed"], **extra)[0]


def verdicts(training: str, X: Any, y: Any, seed: int, open_set: bool) -> dict[str, Any]:
    """Train once and return the verdict of every method that reads it."""
    from noisefilter import (
        INNScorer,
        JoSRCSelector,
        LossVariationSelector,
        SmallLossSelector,
        VoteFilter,
    )

    common: dict[str, Any] = {"max_epochs": EPOCHS, "random_state": seed, "open_set": open_set}
    if training == "small_loss":
        fitted = SmallLossSelector(**common).fit(X, y)
        rest = {
            name: SmallLossSelector(**common, row_score=name).fit_signals(fitted.signals_, y).verdict_
            for name in ("mean_loss", "aum")
        }
        return {"averaged_margin": fitted.verdict_, **rest}
    if training == "vote":
        members = [("inn", INNScorer(**common)), ("small_loss", SmallLossSelector(**common))]
        return {"vote": VoteFilter(members).fit(X, y).verdict_}
    filters = {"inn": INNScorer, "loss_variation": LossVariationSelector, "josrc": JoSRCSelector}
    return {training: filters[training](**common).fit(X, y).verdict_}


def found_by(verdict: Any) -> dict[str, Any]:
    """What `audit.measure` reads."""
    return {
        "flagged": ~verdict.clean_mask,
        "rate": verdict.estimated_noise_rate,
        "interval": verdict.noise_rate_interval,
        "scores": {"score": verdict.scores},
    }


def strangers(verdict: Any, ood: Any) -> dict[str, float | None]:
    """How well strangers are told from other rejected rows."""
    called, rejected = verdict.ood_mask, ~verdict.clean_mask
    return {
        "ood_base_rate": float(ood[rejected].mean()) if rejected.any() else None,
        "ood_precision": float(ood[called].mean()) if called.any() else None,
        "ood_recall": float(called[ood].mean()),
    }


def run_cell(cell: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Run one training in this process; return a record for each method."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    X, truth, y = planted(folder, cell)
    is_open = cell["noise"] == "open_set"
    wall, cpu = time.perf_counter(), time.process_time()
    judged: dict[str, Any] = {}
    if cell["training"] == "cleanlab":
        results = {"cleanlab": run_cleanlab(X, y, cell["seed"], None)}
    else:
        judged = verdicts(cell["training"], X, y, cell["seed"], is_open)
        results = {name: found_by(verdict) for name, verdict in judged.items()}
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    cost["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    records = []
    for name, found in results.items():
        record = cell | {"method": name} | audit.measure(found, y != truth) | cost | machine()
        if is_open and name in judged:
            record |= strangers(judged[name], truth >= 8)
        records.append(record)
    return records


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def table(data: str, read: Callable[[dict[str, Any]], float | None]) -> str:
    """Render one number of every method and noise as Markdown, means over the seeds that are there."""
    records = [record for record in done() if record["data"] == data]
    lines = [f"| {data} | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for noise, rate in NOISE:
        mine = [r for r in records if (r["noise"], r["rate"]) == (noise, rate)]
        values = [[read(r) for r in mine if r["method"] == method] for method in SHOWN]
        if any(v is not None for row in values for v in row):
            cells = [f"{np.mean([v for v in row]):.3f}" if row and None not in row else "" for row in values]
            lines.append(f"| {noise} {rate:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def tables() -> str:
    """Render everything."""
    parts = []
    for title, read in (
        ("AUC", lambda r: max(r["auc"].values()) if r["auc"] else None),
        ("F1 of the flagged rows", lambda r: r["f1"]),
        ("Share flagged", lambda r: r["flagged"]),
        ("Precision of the strangers", lambda r: r.get("ood_precision")),
        ("Recall of the strangers", lambda r: r.get("ood_recall")),
        ("Strangers among the rejected", lambda r: r.get("ood_base_rate")),
        ("Processor seconds", lambda r: r["cpu_seconds"]),
    ):
        for data in DATA:
            rendered = table(data, read)
            if rendered.count("\n") > 1:
                parts.append(f"{title}:\n\n{rendered}")
    seeds = sorted({record["seed"] for record in done()})
    return "\n\n".join([f"Seeds measured: {', '.join(map(str, seeds))}.", *parts])


def main() -> None:
    """Run what is missing."""
    trainings = ("inn", "small_loss", "loss_variation", "josrc", "vote", "cleanlab")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--trainings", nargs="+", choices=trainings, default=trainings)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(tables())
    elif args.cell:
        records = run_cell(json.loads(args.cell), args.data)
        with RESULTS.open("a") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
    else:
        run_missing(args)


def run_missing(args: argparse.Namespace) -> None:
    """Run every cell that has no result, a process each."""
    there = {tuple(record[name] for name in (*NAMES, "training")) for record in done()}
    missing = [
        dict(zip((*NAMES, "training"), (data, noise, rate, seed, training), strict=True))
        for seed, data, (noise, rate), training in product(args.seeds, args.sets, NOISE, args.trainings)
        if (data, noise, rate, seed, training) not in there
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--data", str(args.data)]

    def start(cell: dict[str, Any]) -> None:
        subprocess.run([*command, "--cell", json.dumps(cell)], check=False, env=environment)
        print(cell, flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(start, missing))


if __name__ == "__main__":
    main()
