"""Every filter on the same rows, beside cleanlab: closed and open sets, many wrong labels and few.

    python benchmarks/filters.py --data DIR --cache DIR             # all cells that are not there yet
    python benchmarks/filters.py --data DIR --cache DIR --seeds 0   # the first seed only
    python benchmarks/filters.py --data DIR --cache DIR --rejudge   # judge again, without training
    python benchmarks/filters.py --table                            # the table of all results, as Markdown

The data are ``cifar10.npz`` and ``fashion_mnist.npz`` as for ``audit.py``, here the first 5,000 rows.
A cell is one data set, noise, rate, seed and training; it runs in a process of its own, keeps its signals in
the cache, and appends one record for each method that is read off its training to ``results/filters.jsonl``.
It can be stopped at any time and goes on where it was. All cells take about three hours on one core.

The small-loss family (averaged margin, mean loss of O2U-Net, AUM) and the loss variation are read off one
training: with their defaults they train alike, to the last bit. The vote is one of the averaged margin and
INN, from their signals; its time is the sum of theirs.

Under ``open_set`` noise the last two of ten classes are strangers, labeled at random, and the rest suffers
symmetric noise; all filters then look for strangers (``open_set=True``), cleanlab cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
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
CLASSES = {
    "inn": "`INNScorer`", "averaged_margin": "`SmallLossSelector`", "josrc": "`JoSRCSelector`",
    "loss_variation": "`LossVariationSelector`", "vote": "`VoteFilter` of the first two",
    "cleanlab": "cleanlab",
}  # fmt: skip
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


def filters_of(training: str, seed: int, open_set: bool) -> dict[str, Any]:
    """Return the unfitted filters that are read off a training, the first of which trains."""
    from noisefilter import INNScorer, JoSRCSelector, LossVariationSelector, SmallLossSelector

    common: dict[str, Any] = {"max_epochs": EPOCHS, "random_state": seed, "open_set": open_set}
    if training == "inn":
        return {"inn": INNScorer(**common)}
    if training == "josrc":
        return {"josrc": JoSRCSelector(**common)}
    names = ("averaged_margin", "mean_loss", "aum")
    small = {name: SmallLossSelector(**common, row_score=name) for name in names}
    return small | {"loss_variation": LossVariationSelector(**common)}


def verdicts(cell: dict[str, Any], cache: Path, y: Any) -> dict[str, Any]:
    """Judge the signals in the cache by every method that reads them."""
    from noisefilter import VoteFilter

    is_open = cell["noise"] == "open_set"
    if cell["training"] == "vote":
        members = {
            training: next(iter(filters_of(training, cell["seed"], is_open).values()))
            for training in ("inn", "small_loss")
        }
        signals = {training: kept(cell | {"training": training}, cache) for training in members}
        return {"vote": VoteFilter(list(members.items())).fit_signals(signals, y).verdict_}
    signals = kept(cell, cache)
    wanted = filters_of(cell["training"], cell["seed"], is_open)
    return {name: each.fit_signals(signals, y).verdict_ for name, each in wanted.items()}


def file_of(cell: dict[str, Any], cache: Path) -> Path:
    """Where the signals of a cell are."""
    return cache / ("filters_" + "_".join(str(cell[name]) for name in (*NAMES, "training")) + ".npz")


def kept(cell: dict[str, Any], cache: Path) -> Any:
    """Read the signals of a cell."""
    from noisefilter import Signals

    with np.load(file_of(cell, cache)) as archive:
        fields = {name: archive[name] for name in archive.files}
    # Signals of an earlier version lack them; all features here are the networks' own.
    fields.setdefault("feature_norms", np.linalg.norm(fields["features"], axis=1))
    return Signals(**fields)


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


def run_cell(cell: dict[str, Any], folder: Path, cache: Path) -> list[dict[str, Any]]:
    """Run one training in this process; return a record for each method."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    X, truth, y = planted(folder, cell)
    cost, seed = summed_cost(cell) if cell["training"] == "vote" else {}, cell["seed"]
    wall, cpu = time.perf_counter(), time.process_time()
    if cell["training"] == "cleanlab":
        found = run_cleanlab(X, y, seed, None)
        measured = {"cleanlab": audit.measure(found, y != truth)}
    elif cell["training"] != "vote":
        first, *_ = filters_of(cell["training"], seed, cell["noise"] == "open_set").values()
        signals = first.fit(X, y).signals_
    cost = cost or {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if cell["training"] not in ("cleanlab", "vote"):
        fields = {name: value for name, value in vars(signals).items() if value is not None}
        np.savez(file_of(cell, cache), **fields)
    if cell["training"] != "cleanlab":
        measured = judged(cell, cache, truth, y)
    return [cell | {"method": name} | found | cost | machine() for name, found in measured.items()]


def judged(cell: dict[str, Any], cache: Path, truth: Any, y: Any) -> dict[str, Any]:
    """Measure every method that reads the signals of a cell."""
    measured = {}
    for name, verdict in verdicts(cell, cache, y).items():
        measured[name] = audit.measure(found_by(verdict), y != truth)
        if cell["noise"] == "open_set":
            measured[name] |= strangers(verdict, truth >= 8)
    return measured


def summed_cost(cell: dict[str, Any]) -> dict[str, float]:
    """Add up the time of the trainings that the vote reads; of memory it needs the larger."""
    place = [cell[name] for name in NAMES]
    costs = [
        r
        for r in done()
        if [r[name] for name in NAMES] == place and r["method"] in ("inn", "averaged_margin")
    ]
    if len(costs) != 2:
        raise SystemExit(f"The vote needs the trainings inn and small_loss of its cell {cell}.")
    cost = {name: sum(r[name] for r in costs) for name in ("seconds", "cpu_seconds")}
    return cost | {"peak_mib": max(r["peak_mib"] for r in costs)}


def rejudge(folder: Path, cache: Path) -> None:
    """Judge cached signals again with the rules as they are now; times stay as they were."""
    fresh: dict[tuple[Any, ...], dict[str, Any]] = {}
    records, now = done(), machine()["commit"]
    stale = [r for r in records if r["training"] != "cleanlab" and r.get("judged_at", r["commit"]) != now]
    for record in stale:
        cell = {name: record[name] for name in (*NAMES, "training")}
        place = tuple(cell.values())
        if place not in fresh:
            _, truth, y = planted(folder, cell)
            fresh[place] = judged(cell, cache, truth, y)
        record |= fresh[place][record["method"]] | {"judged_at": now}
    RESULTS.write_text("".join(json.dumps(record) + "\n" for record in records))


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
    ):
        for data in DATA:
            rendered = table(data, read)
            if rendered.count("\n") > 1:
                parts.append(f"{title}:\n\n{rendered}")
    parts.append(f"Cost, means over all conditions, on one thread:\n\n{costs()}")
    counts = (f"{data}: {', '.join(seeds_of(data))}" for data in DATA)
    return "\n\n".join([f"Seeds measured, {'; '.join(counts)}.", *parts])


def overview() -> str:
    """Show the AUC of every filter under noise of a tenth and more, mean over both data sets."""
    noises = [each for each in NOISE if each[1] >= 0.1]
    lines = [
        "| method | " + " | ".join(f"{noise} {rate:g}" for noise, rate in noises) + " | processor seconds |",
        "|---|" + "---|" * (len(noises) + 1),
    ]
    for method, name in CLASSES.items():
        own = [record for record in done() if record["method"] == method]
        found = [
            [max(r["auc"].values()) for r in own if (r["noise"], r["rate"]) == each and r["auc"]]
            for each in noises
        ]
        cells = [f"{np.mean(each):.3f}" for each in found]
        cells.append(f"{np.mean([record['cpu_seconds'] for record in own]):.0f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def costs() -> str:
    """Render time and memory as Markdown; what is read off one training costs what this training does."""
    lines = ["| cost | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for data, (name, title) in product(
        DATA, (("cpu_seconds", "processor seconds"), ("peak_mib", "peak MiB"))
    ):
        mine = [r for r in done() if r["data"] == data]
        means = [np.mean([r[name] for r in mine if r["method"] == method] or [0]) for method in SHOWN]
        lines.append(f"| {data}, {title} | " + " | ".join(f"{mean:.0f}" for mean in means) + " |")
    return "\n".join(lines)


def seeds_of(data: str) -> list[str]:
    """Name the seeds that were measured, with the number of conditions where some are missing."""
    places = {(r["seed"], r["noise"], r["rate"]) for r in done() if r["data"] == data}
    counts = Counter(seed for seed, *_ in places)
    return [f"{s}" if n == len(NOISE) else f"{s} in {n} of {len(NOISE)}" for s, n in sorted(counts.items())]


def main() -> None:
    """Run what is missing."""
    trainings = ("inn", "small_loss", "vote", "josrc", "cleanlab")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sets", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--trainings", nargs="+", choices=trainings, default=trainings)
    parser.add_argument("--cache", type=Path, help="where signals are kept")
    parser.add_argument("--rejudge", action="store_true", help="judge cached signals again, without training")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(tables())
    elif args.cell:
        records = run_cell(json.loads(args.cell), args.data, args.cache)
        with RESULTS.open("a") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
    elif args.rejudge:
        rejudge(args.data, args.cache)
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
    args.cache.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--data", str(args.data), "--cache", str(args.cache)]
    for cell in missing:
        subprocess.run([*command, "--cell", json.dumps(cell)], check=False, env=environment)
        print(cell, flush=True)


if __name__ == "__main__":
    main()
