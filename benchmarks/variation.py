"""Does the variation of the loss tell more than its size, where a network memorizes and where it does not?

    python benchmarks/variation.py --data DIR             # all cells that are not there yet
    python benchmarks/variation.py --data DIR --seeds 0   # the first seed only
    python benchmarks/variation.py --table                # the tables of all results, as Markdown

The claim of VRLVMix: rows whose loss varies little are clean, and those of them whose loss is small as well
are a purer set than the rows of small loss. Two networks on 5,000 rows: the MLP of ``memorizing.py`` on
Fashion-MNIST, without augmentation, 40 epochs, learns wrong labels by heart; the small CNN on CIFAR-10, with
augmentation, 30 epochs, hardly does. DIR holds ``cifar10.npz`` and ``fashion_mnist.npz`` (see audit.py).

A cell is a network, a noise, a rate and a seed: one training, whose record is judged as it was after a
third and two thirds of the epochs, and at the end. Cut short, losses, predictions and learning rates are
those of that epoch; neighbors, and the estimated noise rate that stands in where a mixture does not separate,
are those of the end. The planted rows, by which the weight of the score is chosen, learned another label
and are left out of what is measured. Results are appended to ``results/variation.jsonl``, so the run goes on
where it was stopped. All 30 cells take about 20 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit import FASHION_ASYMMETRIC, machine

from noisefilter import LossVariationSelector, Net, Signals, plant_noise
from noisefilter.metrics import clean_auc
from noisefilter.networks import MLP
from noisefilter.noise import CIFAR10_ASYMMETRIC
from noisefilter.variation import changed_rate, lowest

RESULTS = Path(__file__).parent / "results" / "variation.jsonl"
ROWS = 5_000
NETWORKS = {"mlp": ("fashion_mnist", 40), "cnn": ("cifar10", 30)}  # data and epochs
NOISE = [("symmetric", 0.2), ("symmetric", 0.4), ("symmetric", 0.6), ("symmetric", 0.8), ("asymmetric", 0.4)]
NAMES = ("network", "noise", "rate", "seed")
SCORES: dict[str, dict[str, Any]] = {
    "combined": {"row_score": "combined"},
    "half": {"row_score": "combined", "weight": 0.5},
    "variation": {"row_score": "variation"},
    "raw_variation": {"row_score": "raw_variation"},
    "mean_loss": {"row_score": "mean_loss"},
    "loss": {"row_score": "loss"},
}
TIMES = {"1/3": 1 / 3, "2/3": 2 / 3, "end": 1.0}


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def planted(folder: Path, cell: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Load the rows of a cell and plant its noise."""
    data, _ = NETWORKS[cell["network"]]
    with np.load(folder / f"{data}.npz") as archive:
        X, truth = archive["X_train"][:ROWS], archive["y_train"][:ROWS]
    mapping = CIFAR10_ASYMMETRIC if data == "cifar10" else FASHION_ASYMMETRIC
    extra = {"mapping": mapping} if cell["noise"] == "asymmetric" else {}
    y, _ = plant_noise(truth, cell["noise"], cell["rate"], random_state=cell["seed"], **extra)
    return X if cell["network"] == "cnn" else X.reshape(ROWS, -1), truth, y


def trained(cell: dict[str, Any], X: Any, y: Any) -> Signals:
    """Train once, with planted rows and with neighbors, and return the record."""
    _, epochs = NETWORKS[cell["network"]]
    common: dict[str, Any] = {"split": "paper", "probes": 0.04, "random_state": cell["seed"]}
    if cell["network"] == "cnn":
        return LossVariationSelector(max_epochs=epochs, **common).fit(X, y).signals_
    net = Net(
        MLP, module__n_inputs=X.shape[1], module__n_classes=10, module__hidden=(512, 512),
        module__dropout=0.0, module__noise=0.0, max_epochs=epochs, batch_size=128, lr=0.05,
        optimizer=torch.optim.SGD, optimizer__momentum=0.9, optimizer__weight_decay=5e-4, lr_drops=(2 / 3,),
        verbose=0,
    )  # fmt: skip
    return LossVariationSelector(net, **common).fit(X, y).signals_


def cut(signals: Signals, epoch: int) -> Signals:
    """Return the record as it was after so many epochs."""
    losses, predictions, rates = signals.require("losses", "predictions", "learning_rates")
    return replace(
        signals, losses=losses[:epoch], predictions=predictions[:epoch], learning_rates=rates[:epoch]
    )


def measured(signals: Signals, y: Any, wrong: Any, warm_up: int) -> dict[str, Any]:
    """Measure every score, and the selected set beside as many rows of smallest loss."""
    others = np.delete(np.arange(len(y)), signals.require("probe_rows")[0])
    scores = {
        name: LossVariationSelector(**options).fit_signals(signals, y).scores_[others]
        for name, options in SCORES.items()
    }
    selector = LossVariationSelector(split="paper", warm_up=warm_up).fit_signals(signals, y)
    selected, window = selector.clean_mask_[others], min(10, len(signals.require("losses")[0]) - 1)
    sets = {name: lowest(int(selected.sum()), -scores[name]) for name in ("loss", "mean_loss", "variation")}
    sets["paper"] = selected
    return {
        "auc": {name: float(clean_auc(s, wrong[others])) for name, s in scores.items()},
        "selected": float(selected.mean()),
        "purity": {name: float(1 - wrong[others][m].mean()) for name, m in sets.items()},
        "rate_changed": changed_rate(signals.learning_rates, window) is not None,
    }  # fmt: skip


def run_cell(cell: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, and judge the record at three times."""
    X, truth, y = planted(folder, cell)
    start = time.perf_counter()
    signals = trained(cell, X, y)
    seconds, epochs = time.perf_counter() - start, len(signals.require("losses")[0])
    others = np.delete(np.arange(len(y)), signals.require("probe_rows")[0])
    times = {
        name: measured(cut(signals, round(share * epochs)), y, y != truth, epochs // 3)
        for name, share in TIMES.items()
    }
    memorized = (signals.require("probs")[0].argmax(1) == y)[others]
    return cell | {
        "wrong": float((y != truth).mean()),
        "wrong_memorized": float(memorized[(y != truth)[others]].mean()),
        "times": times, "seconds": seconds,
    } | machine()  # fmt: skip


# The tables.

Read = Callable[[dict[str, Any]], float]


def rows() -> list[tuple[str, list[dict[str, Any]]]]:
    """Return title and records of each network and noise that has been measured."""
    found, places = done(), [(network, *noise) for network in NETWORKS for noise in NOISE]
    groups = [
        (f"{network} {noise} {rate:g}", sorted(
            (r for r in found if (r["network"], r["noise"], r["rate"]) == (network, noise, rate)),
            key=lambda r: r["seed"],
        ))
        for network, noise, rate in places
    ]  # fmt: skip
    return [group for group in groups if group[1]]


def mean(records: list[dict[str, Any]], read: Read) -> str:
    """Render the mean of a number."""
    return f"{np.mean([read(r) for r in records]):.3f}"


def auc_table() -> str:
    """Render the AUC of every score at the end of the training."""
    lines = [
        "| network, noise | seeds | wrong | of these memorized | " + " | ".join(SCORES) + " |",
        "|---" * (len(SCORES) + 4) + "|",
    ]
    for title, records in rows():
        cells = [title, str(len(records)), mean(records, lambda r: r["wrong"])]
        cells += [mean(records, lambda r: r["wrong_memorized"])]
        cells += [mean(records, lambda r, name=name: r["times"]["end"]["auc"][name]) for name in SCORES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def purity_table() -> str:
    """Render the purity of the selected set beside as many rows of smallest loss."""
    lines = [
        "| network, noise | "
        + " | ".join(f"{t}: selected | {t}: paper / loss / mean loss" for t in TIMES)
        + " |",
        "|---" * (2 * len(TIMES) + 1) + "|",
    ]
    for title, records in rows():
        cells = [title]
        for when in TIMES:
            cells.append(mean(records, lambda r, when=when: r["times"][when]["selected"]))
            purities = [
                mean(records, lambda r, when=when, name=name: r["times"][when]["purity"][name])
                for name in ("paper", "loss", "mean_loss")
            ]
            cells.append(" / ".join(purities))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


COMPARISONS = (
    ("AUC of the variation against the last loss", "auc", "variation", "loss"),
    ("AUC of the variation against the mean loss", "auc", "variation", "mean_loss"),
    ("AUC of half variation, half mean loss against the mean loss", "auc", "half", "mean_loss"),
    ("AUC of the combined score against the mean loss", "auc", "combined", "mean_loss"),
    ("Purity of the selected set against as many smallest last losses", "purity", "paper", "loss"),
    ("Purity of the selected set against as many smallest mean losses", "purity", "paper", "mean_loss"),
)
EQUAL = 0.005


def verdict() -> str:
    """Say where the claim holds."""
    lines = [
        f"Where the claim holds, of {len(NOISE)} noises at {len(TIMES)} times each, means over the "
        f"seeds; less than {EQUAL:g} apart counts as neither:",
        "",
    ]
    for what, *comparison in COMPARISONS:
        lines.append(f"- {what}: " + "; ".join(_holds(network, *comparison) for network in NETWORKS) + ".")
    return "\n".join(lines)


def _holds(network: str, kind: str, first: str, second: str) -> str:
    """Name the conditions under which the first is higher, and those under which it is lower."""
    gains = {
        f"{title.removeprefix(network + ' ')} ({when})": np.mean(
            [r["times"][when][kind][first] - r["times"][when][kind][second] for r in records]
        )
        for title, records in rows() for when in TIMES if title.startswith(network)
    }  # fmt: skip
    if not gains:
        return f"{network} not measured"
    higher = [name for name, gain in gains.items() if gain > EQUAL]
    lower = [name for name, gain in gains.items() if gain < -EQUAL]
    few, word = min((lower, "lower"), (higher, "higher"), key=lambda side: len(side[0]))
    named = f", {word}: {', '.join(few)}" if few else ""
    average = np.mean(list(gains.values()))
    return f"{network} higher in {len(higher)}, lower in {len(lower)} ({average:+.3f} on average{named})"


def tables() -> str:
    """Render everything."""
    return "\n\n".join([
        "AUC at the end of the training:", auc_table(),
        "Share selected by the paper's rule, and the share of right labels in it, in as many rows of "
        "smallest last loss, and of smallest mean loss:",
        purity_table(), verdict(),
    ])  # fmt: skip


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables())
        return
    torch.set_num_threads(machine()["threads"])
    there = {tuple(record[name] for name in NAMES) for record in done()}
    for seed, network, (noise, rate) in product(args.seeds, NETWORKS, NOISE):
        cell = dict(zip(NAMES, (network, noise, rate, seed), strict=True))
        if tuple(cell.values()) not in there:
            record = run_cell(cell, args.data)
            with RESULTS.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(cell, round(record["seconds"]), flush=True)


if __name__ == "__main__":
    main()
