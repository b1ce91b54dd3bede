"""What does a trainer gain over plain training on the same noisy labels? Where it memorizes, and on a budget.

    python benchmarks/training.py --data DIR             # all cells that are not there yet
    python benchmarks/training.py --data DIR --seeds 0   # the first seed only

DIR holds ``cifar10.npz`` and ``fashion_mnist.npz`` as for ``audit.py``. A cell is one regime, noise, rate,
seed and method; it runs in a process of its own on one thread, and is appended to ``results/training.jsonl``.
The run can be stopped at any time and goes on where it was.

Three regimes. ``memorizing``: 4,000 Fashion-MNIST images, an MLP 784-256-256-10 without dropout, noise or
augmentation, 80 epochs: it learns wrong labels by heart. ``short``: 10,000 CIFAR-10 images, the small CNN, 30
epochs: what a laptop gives in ten minutes. ``imbalanced``: INN's Table 3, 5,000 CIFAR-10 images of one class
and 500 of another, 30 % of the labels flipped, with the small CNN for 40 epochs where the paper has
PreActResNet18 for 300, and guesses from the warm-up on (``least_epochs=0``). Accuracy is that on clean test
images the training never saw, of both classes alike; nothing is chosen by it. Of each method the best epoch,
the last, and the mean of the last ten are reported.

``ce`` is plain cross-entropy with the same network and epochs; ``inn_filtered`` and ``loss_filtered`` are the
same on the rows that INNScorer or SmallLossSelector keep, which train one such network each to judge by.
``gce``, ``elr``, ``m_correction`` and ``pencil`` are trainers of one network with a robust loss,
``decoupling``, ``co_teaching``, ``co_teaching_plus`` and ``jocor`` of two that choose rows of every batch,
``dividemix``, ``josrc``, ``inn_dividemix``, ``unicon``, ``scanmix`` and ``vrlvmix`` those that guess labels,
all with their defaults.
``inn_then_dividemix`` is DivideMix behind INNScorer, ``dividemix_25`` has the weight of 25 that the authors'
code defaults to, at once. The ablations of VRLVMix's Table IV leave one part out each, or have the one that
the default leaves out, in ``memorizing`` alone, under asymmetric and heavy symmetric noise. Four defaults of
the simpler trainers have what they were chosen against beside them, there under symmetric noise of 0.5:
``gce_untruncated``, ``elr_3`` (a strength of 3), ``jocor_90`` (an agreement of 0.9) and ``pencil_1`` (a
compatibility of 1).
Of the rows that a trainer keeps under their label in its last epoch (``labeled_``) it is told how many are
right, over all and in the worst class, and how much classes differ in size: the paper's Figure 3.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from audit import FASHION_ASYMMETRIC, machine
from published import INN_3

RESULTS = Path(__file__).parent / "results" / "training.jsonl"
FILTERED = {"inn_filtered": "INNScorer", "loss_filtered": "SmallLossSelector"}
TRAINERS = {
    "dividemix": "DivideMixClassifier", "josrc": "JoSRCClassifier",
    "inn_dividemix": "INNDivideMixClassifier", "inn_then_dividemix": "DivideMixClassifier",
    "dividemix_25": "DivideMixClassifier", "unicon": "UNICONClassifier", "scanmix": "ScanMixClassifier",
}  # fmt: skip
SINGLE = {
    "gce": "GCEClassifier", "elr": "ELRClassifier", "m_correction": "MCorrectionClassifier",
    "pencil": "PENCILClassifier",
}  # fmt: skip
PAIRS_OF_NETS = {
    "decoupling": "DecouplingClassifier", "co_teaching": "CoTeachingClassifier",
    "co_teaching_plus": "CoTeachingPlusClassifier", "jocor": "JoCoRClassifier",
}  # fmt: skip
VRLVMIX: dict[str, dict[str, Any]] = {
    "vrlvmix": {}, "vrlvmix_no_variation": {"variation": False}, "vrlvmix_no_balance": {"balance": False},
    "vrlvmix_no_scan": {"scan": False}, "vrlvmix_balanced": {"balance": True},
}  # fmt: skip
# What the defaults were chosen against.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gce_untruncated": ("GCEClassifier", {"truncation": None}),
    "elr_3": ("ELRClassifier", {"strength": 3.0}),
    "jocor_90": ("JoCoRClassifier", {"agreement": 0.9}),
    "pencil_1": ("PENCILClassifier", {"compatibility": 1.0}),
}
ABLATIONS = (*tuple(VRLVMIX)[1:], *OTHERS)
# By default classes are balanced under asymmetric noise, and not under noise as heavy as the other.
ABLATED = {
    ("memorizing", "symmetric", 0.5): tuple(OTHERS),
    ("memorizing", "asymmetric", 0.4): ("vrlvmix_no_variation", "vrlvmix_no_balance", "vrlvmix_no_scan"),
    ("memorizing", "symmetric", 0.8): ("vrlvmix_no_variation", "vrlvmix_balanced", "vrlvmix_no_scan"),
}
SIMPLE = SINGLE | PAIRS_OF_NETS  # which guess no labels
CLASSES = SIMPLE | TRAINERS | dict.fromkeys(VRLVMIX, "VRLVMixClassifier")
CLASSES |= {name: kind for name, (kind, _) in OTHERS.items()}
SETTINGS: dict[str, dict[str, Any]] = {**VRLVMIX, "dividemix_25": {"unlabeled_weight": 25.0, "ramp_steps": 0}}
SETTINGS |= {name: settings for name, (_, settings) in OTHERS.items()}
METHODS = ("ce", *FILTERED, *SIMPLE, *OTHERS, *TRAINERS, *VRLVMIX)
REGIMES: dict[str, dict[str, Any]] = {
    "memorizing": {"data": "fashion_mnist", "rows": 4_000, "epochs": 80},
    "short": {"data": "cifar10", "rows": 10_000, "epochs": 30},
    "imbalanced": {"data": "cifar10", "rows": 50_000, "epochs": 40},
}
TEST_ROWS = 4_000
PAIRS = {"airplane, automobile": (0, 1), "bird, horse": (2, 7), "cat, deer": (3, 4), "frog, ship": (6, 8)}
NOISE = {regime: [("symmetric", 0.5), ("asymmetric", 0.4)] for regime in REGIMES}
NOISE["memorizing"].append(("symmetric", 0.8))
NOISE["imbalanced"] = [(pair, 0.3) for pair in PAIRS]
# Best and last accuracy of DivideMix and of INN with DivideMix, INN's Table 3.
PUBLISHED = {
    pair: tuple(number / 100 for method in ("dividemix", "inn") for number, _ in found[method])
    for pair, found in zip(PAIRS, INN_3.values(), strict=True)
}
NAMES = ("regime", "noise", "rate", "seed", "method")
OF_VERDICTS = ("auc", "estimated_noise_rate")


def planted(folder: Path, cell: dict[str, Any]) -> tuple[Any, ...]:
    """Load the rows of a cell, plant its noise, and take test rows from behind them."""
    from noisefilter import plant_noise
    from noisefilter.noise import CIFAR10_ASYMMETRIC

    regime = REGIMES[cell["regime"]]
    with np.load(folder / f"{regime['data']}.npz") as archive:
        X, truth = archive["X_train"], archive["y_train"]
        n = regime["rows"]
        if "X_test" in archive.files:
            test = archive["X_test"][:TEST_ROWS], archive["y_test"][:TEST_ROWS]
        else:
            test = X[-TEST_ROWS:], truth[-TEST_ROWS:]
        if cell["regime"] == "imbalanced":
            return two_classes(archive, *PAIRS[cell["noise"]], cell["rate"], cell["seed"])[1:]
    X, truth = X[:n], truth[:n]
    if cell["regime"] == "memorizing":  # an MLP takes rows
        X, test = X.reshape(n, -1), (test[0].reshape(TEST_ROWS, -1), test[1])
    mapping = CIFAR10_ASYMMETRIC if regime["data"] == "cifar10" else FASHION_ASYMMETRIC
    extra: dict[str, Any] = {"mapping": mapping} if cell["noise"] == "asymmetric" else {}
    y = plant_noise(truth, cell["noise"], cell["rate"], random_state=cell["seed"], **extra)[0]
    return X, truth, y, test


def two_classes(archive: Any, many: int, few: int, rate: float, seed: int) -> tuple[Any, ...]:
    """Return which rows are of one class or of a tenth of another, these, and all their test images."""
    from noisefilter.noise import binary_imbalanced

    given, tests = archive["y_train"], archive["y_test"]
    rows, y, _ = binary_imbalanced(given, many, few, rate=rate, random_state=seed)
    asked = np.isin(tests, (many, few))
    test = archive["X_test"][asked], (tests[asked] == few).astype(np.int64)
    return rows, archive["X_train"][rows], (given[rows] == few).astype(np.int64), y, test


def network(regime: str, epochs: int) -> Any:
    """Return the prototype: an MLP that memorizes, or None for the default CNN."""
    import torch

    from noisefilter import Net
    from noisefilter.networks import MLP

    if regime != "memorizing":
        return None
    return Net(
        MLP, module__n_inputs=784, module__n_classes=10, module__hidden=(256, 256), module__dropout=0.0,
        module__noise=0.0, max_epochs=epochs, batch_size=128, lr=0.05, optimizer=torch.optim.SGD,
        optimizer__momentum=0.9, optimizer__weight_decay=5e-4, lr_drops=(0.5, 0.75), verbose=0,
    )  # fmt: skip


def run_cell(cell: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one cell in this process."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    X, truth, y, test = planted(folder, cell)
    wall, cpu = time.perf_counter(), time.process_time()
    trained = plain if cell["method"] in ("ce", *FILTERED) else robust
    found = trained(cell, X, y, test)
    labeled = found.pop("labeled", None)
    if labeled is not None:
        found |= kept(labeled, y, truth)
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    cost["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    verdict = found.pop("verdict")
    if verdict is not None:
        from noisefilter.metrics import verdict_report

        report = verdict_report(verdict, truth)
        found |= {name: report[name] for name in ("auc", "f1", "estimated_noise_rate")}
    return cell | found | cost | {"wrong": float((y != truth).mean())} | machine()


def kept(labeled: Any, y: Any, truth: Any) -> dict[str, float]:
    """Say how right the labels are that both networks keep, and how much classes differ in how many."""
    classes = np.unique(y)
    counts = np.array([[(rows & (y == k)).sum() for k in classes] for rows in labeled])
    right = np.array([[(rows & (y == k) & (truth == k)).sum() for k in classes] for rows in labeled])
    shares = right / np.maximum(1, counts)
    return {
        "kept_right": float(np.mean(right.sum(axis=1) / counts.sum(axis=1))),
        "kept_right_worst_class": float(shares.min(axis=1).mean()),
        "kept_spread": float((counts.std(axis=1) / counts.mean(axis=1)).mean()),
    }


def plain(cell: dict[str, Any], X: Any, y: Any, test: Any) -> dict[str, Any]:
    """Train by plain cross-entropy, on all rows or on those that a filter keeps."""
    import torch
    from skorch.callbacks import Callback

    import noisefilter
    from noisefilter.inputs import as_rows
    from noisefilter.models import build_model

    regime, seed, verdict = REGIMES[cell["regime"]], cell["seed"], None
    prototype = network(cell["regime"], regime["epochs"])
    if cell["method"] in FILTERED:
        judge = getattr(noisefilter, FILTERED[cell["method"]])
        verdict = judge(network(cell["regime"], 30), random_state=seed).fit(X, y).verdict_
        X, y = X[verdict.clean_mask], y[verdict.clean_mask]
    rows, held_out = (as_rows(part, device=torch.device("cpu")) for part in (X, test[0]))
    accuracies: list[float] = []

    class Tested(Callback):  # type: ignore[misc]
        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            accuracies.append(float((net.evaluate(held_out)[0].argmax(1) == test[1]).mean()))

    settings = {"max_epochs": None if prototype else regime["epochs"], "batch_size": None, "lr": None}
    n_classes = len(np.unique(y))
    model: Any = build_model(
        prototype, rows, n_classes, network=None, settings=settings | {"verbose": 0},
        training={"objective": "cross_entropy"}, record=(), seed=seed,
    )  # fmt: skip
    model.net.callbacks = [("tested", Tested())]  # set_params fails where there were none
    model.train(rows, y.astype(np.int64), n_classes)
    best = int(np.argmax(accuracies))
    return {
        "best": accuracies[best], "best_epoch": best + 1, "last": accuracies[-1],
        "last_10": float(np.mean(accuracies[-10:])), "accuracies": accuracies, "verdict": verdict,
    }  # fmt: skip


def made(cell: dict[str, Any]) -> Any:
    """Return the trainer of a cell."""
    import noisefilter

    regime, seed, method = REGIMES[cell["regime"]], cell["seed"], cell["method"]
    prototype = network(cell["regime"], regime["epochs"])
    settings = {"random_state": seed} | SETTINGS.get(method, {})
    if prototype is None:
        settings["max_epochs"] = regime["epochs"]
    if cell["regime"] == "imbalanced" and method not in SIMPLE:
        settings["least_epochs"] = 0  # as in the paper's 300 epochs, guesses are tried
    if method == "inn_then_dividemix":
        settings["filter"] = noisefilter.INNScorer(network(cell["regime"], 30), random_state=seed)
    return getattr(noisefilter, CLASSES[method])(prototype, **settings)


def robust(cell: dict[str, Any], X: Any, y: Any, test: Any) -> dict[str, Any]:
    """Train by one of the trainers."""
    trainer = made(cell)
    trainer.fit(X, y, eval_set=test)
    accuracies = [record["test_accuracy"] for record in trainer.history_]
    labeled = getattr(trainer, "labeled_", None)
    return {
        **trainer.eval_report_, "accuracies": accuracies, "verdict": trainer.verdict_,
        "labeled": labeled if labeled is not None and labeled.any() else None,
    }  # fmt: skip


def done() -> list[dict[str, Any]]:
    """Read the results that are there, of each cell the newest."""
    found = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    return list({tuple(record[name] for name in NAMES): record for record in found}.values())


def is_whole(record: dict[str, Any]) -> bool:
    """Whether a cell need not be run again: a verdict is left out of records older than its rule."""
    return record["method"] == "ce" or "auc" in record


def tables() -> str:
    """Render all results as Markdown, means over the seeds that are there, and what they come to."""
    return "\n\n".join([table(), *(gains(regime) for regime in REGIMES), published(), kept_table()])


def table() -> str:
    """Show every regime, noise and method in a line."""
    lines = [
        "| regime | noise | method | seeds | best | last | last 10 | AUC | rate | processor seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for head, mine in told():
        shown = " | ".join(_mean_of(mine, name) for name in ("best", "last", "last_10", *OF_VERDICTS))
        lines.append(f"{head} {shown} | {mean(mine, 'cpu_seconds'):.0f} |")
    return "\n".join(lines)


def _mean_of(records: list[dict[str, Any]], name: str) -> str:
    """Show a mean, and of how many seeds it is where some have no such number."""
    known = [record for record in records if name in record]
    if not known:
        return ""
    return f"{mean(known, name):.3f}" + (f" ({len(known)})" if len(known) < len(records) else "")


def told(name: str = "last") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the start of every line for which a number was recorded, and the records of its seeds."""
    for regime in REGIMES:
        for (noise, rate), method in product(NOISE[regime], METHODS):
            mine = [record for record in of(regime, noise, rate, method) if name in record]
            if mine:
                yield f"| {regime} | {noise} {rate:g} | {method} | {len(mine)} |", mine


def kept_table() -> str:
    """Show what trainers keep under its label in the last epoch."""
    lines = [
        "| regime | noise | method | seeds | kept labels right | in the worst class | spread of sizes |",
        "|---|---|---|---|---|---|---|",
    ]
    names = ("kept_right", "kept_right_worst_class", "kept_spread")
    for head, mine in told("kept_right"):
        lines.append(f"{head} " + " | ".join(f"{mean(mine, name):.3f}" for name in names) + " |")
    return "\n".join(lines)


def gains(regime: str) -> str:
    """Say by how much each trainer's last accuracy is above that of plain training, seed by seed."""
    lines = []
    for method in METHODS[1:]:
        found = []
        for noise, rate in NOISE[regime]:
            plain = {record["seed"]: record["last"] for record in of(regime, noise, rate, "ce")}
            own = of(regime, noise, rate, method)
            found += [100 * (r["last"] - plain[r["seed"]]) for r in own if r["seed"] in plain]
        if found:
            least, most = min(found), max(found)
            lines.append(f"{method} {np.mean(found):+.1f} ({least:+.1f} to {most:+.1f}, {len(found)} pairs)")
    start = f"Points of last accuracy above plain training, {regime}, all noises and seeds: "
    return start + ("; ".join(lines) if lines else "not measured yet") + "."


def overview(regime: str) -> str:
    """Show the last accuracy of every trainer under each noise, means over seeds, and its cost."""
    noises = NOISE[regime]
    lines = [
        "| method | " + " | ".join(f"{noise} {rate:g}" for noise, rate in noises) + " | cost |",
        "|---|" + "---|" * (len(noises) + 1),
    ]
    for method in METHODS:
        mine = [of(regime, noise, rate, method) for noise, rate in noises]
        if (method in SETTINGS and method != "vrlvmix") or not all(mine):
            continue
        plain = [of(regime, noise, rate, "ce") for noise, rate in noises]
        cells = [_beside(*both) for both in zip(mine, plain, strict=True)]
        costs = [mean(a, "cpu_seconds") / mean(b, "cpu_seconds") for a, b in zip(mine, plain, strict=True)]
        lines.append(f"| {_named(method)} | " + " | ".join(cells) + f" | {np.mean(costs):.1f} |")
    return "\n".join(lines)


def _beside(mine: list[dict[str, Any]], plain: list[dict[str, Any]]) -> str:
    """Show a mean accuracy; marked where a seed is below plain training, and where seeds are missing."""
    base = {record["seed"]: record["last"] for record in plain}
    below = any(record["last"] < base[record["seed"]] for record in mine)
    seeds = f" ({len(mine)})" if len(mine) < len(plain) else ""
    return f"{mean(mine, 'last'):.3f}{seeds}" + (" ↓" if below else "")


def _named(method: str) -> str:
    if method == "ce":
        return "plain training"
    if method == "inn_then_dividemix":
        return "`INNScorer`, then `DivideMixClassifier`"
    if method in FILTERED:
        return f"`{FILTERED[method]}`, then plain training"
    return f"`{CLASSES[method]}`"


def published() -> str:
    """Name the published accuracies of the pairs that are there."""
    there = {record["noise"] for record in done()}
    lines = [
        f"{pair} {best:.4f} and {last:.4f}, with INN {inn_best:.4f} and {inn_last:.4f}"
        for pair, (best, last, inn_best, inn_last) in PUBLISHED.items()
        if pair in there
    ]
    shown = "; ".join(lines) if lines else "not measured yet"
    return f"INN's Table 3 at full size, best and last accuracy of DivideMix: {shown}."


def of(regime: str, noise: str, rate: float, method: str) -> list[dict[str, Any]]:
    """Return the records of a line, one for each seed."""
    wanted = [regime, noise, rate, method]
    return [r for r in done() if [r[name] for name in NAMES if name != "seed"] == wanted]


def mean(records: list[dict[str, Any]], name: str) -> float:
    """Return the mean of a number over records."""
    return float(np.mean([record[name] for record in records]))


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--regimes", nargs="+", choices=REGIMES, default=list(REGIMES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--noises", nargs="+", help="Of the noises, or pairs, only these.")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(tables())
    elif args.cell:
        record = run_cell(json.loads(args.cell), args.data)
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
    else:
        run_missing(args)


def run_missing(args: argparse.Namespace) -> None:
    """Run every cell that has no result, a process each, one after the other."""
    there = {tuple(record[name] for name in NAMES) for record in done() if is_whole(record)}
    cells = [
        (seed, regime, noise, rate, method)
        for seed, regime in product(args.seeds, args.regimes)
        for (noise, rate), method in product(NOISE[regime], args.methods)
        if (not args.noises or noise in args.noises)
        and (method not in ABLATIONS or method in ABLATED.get((regime, noise, rate), ()))
    ]
    for seed, regime, noise, rate, method in cells:
        cell = dict(zip(NAMES, (regime, noise, rate, seed, method), strict=True))
        if tuple(cell.values()) in there:
            continue
        command = [sys.executable, __file__, "--data", str(args.data), "--cell", json.dumps(cell)]
        subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
        print(cell, flush=True)


if __name__ == "__main__":
    main()
