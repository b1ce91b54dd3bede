"""Strangers among the rows: Jo-SRC's CIFAR80N-O, its own rule beside the filters of this library.

    python benchmarks/openset.py --data DIR                  # all cells that are not there yet, on a CPU
    python benchmarks/openset.py --data DIR --seeds 0        # the first seed only
    python benchmarks/openset.py --data DIR --size full      # 50,000 rows, 200 epochs: needs a GPU
    python benchmarks/openset.py --data DIR --cache DIR --rejudge    # judge again, without training
    python benchmarks/openset.py --table                     # the table of all results, as Markdown

DIR holds CIFAR-100 as ``cifar100.npz``: ``X_train``, ``X_test``, uint8 of shape (n, 32, 32, 3), ``y_train``
and ``y_test``. Rows of the last 20 of 100 classes stay and are labeled at random among the other 80
(strangers), whose own labels suffer symmetric noise, or pair noise, which is what the official code
calls asymmetric. ``--size cpu`` takes the first 10,000 rows, the small CNN and 30 epochs; ``--size full``
takes all rows, the network of the official code and 200 epochs.

A cell is a size, a noise, a rate, a seed and a method: Jo-SRC as published ("josrc_paper": its smoothing,
thresholds, optimizer and rule; the warm-up is the same share of the training, 2 of 30 epochs), with our
defaults ("josrc"), INNScorer and SmallLossSelector with ``open_set=True``. Of Jo-SRC the groups that training
divides the rows into are measured too, as its paper has it: those of the last epoch, and those of the best
one, by the accuracy on test images of the 80 classes (2,000, at full size all). Nobody but this measurement
sees the test images and the true labels. Results are appended to ``results/openset.jsonl``, so the run goes
on where it was stopped. The 48 cells of the small size take two hours on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit import machine
from published import JOSRC_5
from skorch.callbacks import Callback

from noisefilter import INNScorer, JoSRCSelector, Net, Signals, SmallLossSelector, plant_noise
from noisefilter.augment import CropFlip
from noisefilter.batches import choose_device
from noisefilter.contrastive import JoSRCNetwork
from noisefilter.inputs import check_labels
from noisefilter.metrics import clean_auc
from noisefilter.networks import SmallCNN
from noisefilter.scores import ood_score, views_disagree
from noisefilter.splits import mapped_scores

RESULTS = Path(__file__).parent / "results" / "openset.jsonl"
KNOWN = 80
SIZES: dict[str, dict[str, Any]] = {
    "cpu": {"rows": 10_000, "test": 2_000, "epochs": 30, "warm_up": 2, "network": SmallCNN},
    "full": {"rows": 50_000, "test": 8_000, "epochs": 200, "warm_up": 10, "network": JoSRCNetwork},
}
NOISE = [("open_set", 0.2), ("open_set", 0.5), ("open_set", 0.8), ("open_set_pair", 0.4)]
METHODS = ("josrc_paper", "josrc", "inn", "small_loss")
NAMES = ("size", "noise", "rate", "seed", "method")
PARTS = ("clean", "id", "ood")
# Precision of the ID and OOD groups at the best and at the last epoch, Table 5 of arXiv:2103.13029.
PUBLISHED = {
    cell: {"best": (id_best / 100, ood_best / 100), "last": (id_last / 100, ood_last / 100)}
    for cell, (id_best, id_last, ood_best, ood_last) in zip(NOISE, JOSRC_5.values(), strict=True)
}


class EachEpoch(Callback):
    """Calls a function with the net after every epoch."""

    def __init__(self, look: Callable[[Any], None]):
        self.look = look

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Call it."""
        self.look(net)


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def planted(folder: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """Load the rows of a cell, plant its noise, and load the test images."""
    size = SIZES[cell["size"]]
    with np.load(folder / "cifar100.npz") as archive:
        X, truth = archive["X_train"][: size["rows"]], archive["y_train"][: size["rows"]]
        known = np.flatnonzero(archive["y_test"] < KNOWN)[: size["test"]]
        test = archive["X_test"][known], archive["y_test"][known]
    y, _ = plant_noise(truth, cell["noise"], cell["rate"], random_state=cell["seed"])
    return {"X": X, "truth": truth, "y": y, "test": test}


def method_of(cell: dict[str, Any], look: Callable[[Any], None]) -> Any:
    """Return the unfitted filter of a cell; ``look`` is called with Jo-SRC's net after every epoch."""
    size, seed = SIZES[cell["size"]], cell["seed"]
    common: dict[str, Any] = {"random_state": seed, "open_set": True}
    if cell["method"] in ("inn", "small_loss"):
        kind = INNScorer if cell["method"] == "inn" else SmallLossSelector
        network = None if cell["size"] == "cpu" else size["network"]
        return kind(max_epochs=size["epochs"], network=network, **common)
    net = Net(  # as the selectors' default, spelled out because a callback is wanted
        size["network"], module__n_channels=3, module__n_classes=KNOWN, module__image_size=32,
        max_epochs=size["epochs"], batch_size=128, lr=0.05, optimizer=torch.optim.SGD,
        optimizer__momentum=0.9, optimizer__nesterov=True, optimizer__weight_decay=5e-4,
        lr_drops=(0.5, 0.75), lr_drop_factor=5.0, augment=CropFlip(flip=True),
        device=str(choose_device("auto")), verbose=0, callbacks=[("each_epoch", EachEpoch(look))],
    )  # fmt: skip
    if cell["method"] == "josrc":
        return JoSRCSelector(net, **common)
    return JoSRCSelector.as_published(
        estimator=net.set_params(lr=1e-3), network=None, max_epochs=None, batch_size=None, lr=None,
        warmup_epochs=size["warm_up"], **common,
    )  # fmt: skip


class Watch:
    """Keeps the groups of every epoch, and how many test images the network gets right."""

    def __init__(self, y: Any, images: Any, labels: Any):
        self.images, self.codes = channels_first(images), np.argsort(check_labels(y).order)[labels]
        self.groups: list[Any] = []
        self.accuracies: list[float] = []

    def __call__(self, net: Any) -> None:
        """Look at the net after an epoch."""
        self.groups.append(net.groups_.cpu().numpy().copy())  # the net goes on writing
        self.accuracies.append(float((net.predict_proba(self.images).argmax(1) == self.codes).mean()))

    def measured(self, truth: Any, y: Any) -> dict[str, Any]:
        """Measure the groups of the best and of the last epoch."""
        best = int(np.argmax(self.accuracies))
        return {
            name: {"epoch": epoch + 1, "accuracy": self.accuracies[epoch]}
            | divided(self.groups[epoch], truth, y)
            for name, epoch in (("best", best), ("last", len(self.groups) - 1))
        }


def channels_first(images: Any) -> Any:
    """Return images as a network of the user's own takes them."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


def divided(partition: Any, truth: Any, y: Any) -> dict[str, Any]:
    """Return precision and recall of the three parts, and the share of strangers among rejected rows."""
    true = np.where(truth >= KNOWN, 2, np.where(y != truth, 1, 0))
    measured: dict[str, Any] = {"precision": {}, "recall": {}, "called": {}}
    for code, name in enumerate(PARTS):
        called, there = partition == code, true == code
        measured["precision"][name] = float(there[called].mean()) if called.any() else None
        measured["recall"][name] = float(called[there].mean()) if there.any() else None
        measured["called"][name] = float(called.mean())
    rejected = partition != 0
    return measured | {"ood_base_rate": float((true[rejected] == 2).mean()) if rejected.any() else None}


def strangeness(method: str, signals: Signals) -> dict[str, Any]:
    """Return scores of how strange rows are, higher = stranger: "own" is what the method itself reads."""
    (norms,) = signals.require("feature_norms")
    if method.startswith("josrc"):
        views, probs = signals.require("view_probs", "mean_probs")
        disagree = {"views": views_disagree(views).astype(float)}
    else:
        (probs,), disagree = signals.require("mean_probs"), {}
        if method == "inn":
            probs = (probs + signals.require("path_probs")[0]) / 2
    own = disagree["views"] if method == "josrc_paper" else ood_score(probs, norms)
    return disagree | {"own": own, "entropy": ood_score(probs), "norm": -norms}


def judged(cell: dict[str, Any], signals: Signals, truth: Any, y: Any) -> dict[str, Any]:
    """Measure the verdict that a method makes of its signals."""
    verdict = method_of(cell, lambda net: None).fit_signals(signals, y).verdict_
    strange, rejected = truth >= KNOWN, ~verdict.clean_mask
    found = strangeness(cell["method"], signals)
    if signals.probe_rows is not None:
        found = {name: mapped_scores(values, signals.probe_rows) for name, values in found.items()}
    return {
        "verdict": divided(verdict.partition, truth, y),
        "estimated_rate": verdict.estimated_noise_rate,
        "auc": float(clean_auc(verdict.scores, y != truth)),
        "ood_auc": {
            name: _finite(clean_auc(-v[rejected], strange[rejected])) for name, v in found.items()
        },
        # The same of all wrongly labeled rows, whatever the method rejects.
        "ood_auc_of_wrong": {
            name: float(clean_auc(-v[y != truth], strange[y != truth])) for name, v in found.items()
        },
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def run_cell(cell: dict[str, Any], folder: Path, cache: Path | None) -> dict[str, Any]:
    """Train and measure."""
    data = planted(folder, cell)
    X, truth, y = data["X"], data["truth"], data["y"]
    watch, is_josrc = Watch(y, *data["test"]), cell["method"].startswith("josrc")
    wall, cpu = time.perf_counter(), time.process_time()
    # A function of its own, since cloning a filter copies objects.
    method = method_of(cell, lambda net: watch(net))
    signals = method.fit(channels_first(X) if is_josrc else X, y).signals_
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    if cache is not None:
        fields = {name: value for name, value in vars(signals).items() if value is not None}
        np.savez(file_of(cell, cache), **fields)
    epochs = {"epochs": watch.measured(truth, y)} if is_josrc else {}
    shares = {"wrong": float((y != truth).mean()), "strangers": float((truth >= KNOWN).mean())}
    return cell | shares | judged(cell, signals, truth, y) | epochs | seconds | machine()


def file_of(cell: dict[str, Any], cache: Path) -> Path:
    """Where the signals of a cell are."""
    return cache / ("openset_" + "_".join(str(cell[name]) for name in NAMES) + ".npz")


def rejudge(folder: Path, cache: Path) -> None:
    """Judge cached signals again with the rules as they are now; groups and times stay as they were."""
    records, now = done(), machine()["commit"]
    for record in records:
        cell = {name: record[name] for name in NAMES}
        if file_of(cell, cache).exists():
            with np.load(file_of(cell, cache)) as archive:
                fields = {name: archive[name] for name in archive.files}
            # Signals of before these were recorded; the features are the network's own.
            fields.setdefault("feature_norms", np.linalg.norm(fields["features"], axis=1))
            data = planted(folder, cell)
            record |= judged(cell, Signals(**fields), data["truth"], data["y"]) | {"judged_at": now}
    RESULTS.write_text("".join(json.dumps(record) + "\n" for record in records))


# The table.

TITLES = {
    "josrc_paper": "Jo-SRC, published rule", "josrc": "Jo-SRC, defaults", "inn": "INNScorer",
    "small_loss": "SmallLossSelector",
}  # fmt: skip


def table(size: str) -> str:
    """Render all results of a size, means over the seeds that are there."""
    lines = [
        "| noise | method | when | precision clean / ID / OOD | recall clean / ID / OOD | "
        "strangers among the rejected | AUC of strangeness among them | AUC wrong | processor seconds |",
        "|---" * 9 + "|",
    ]
    for noise, rate in NOISE:
        lines += _lines(size, noise, rate)
    return "\n".join(lines)


def _lines(size: str, noise: str, rate: float) -> list[str]:
    """Render the rows of one noise."""
    title, lines = title_of(noise, rate), list[str]()
    for method in METHODS:
        records = _records(size, noise, rate, method)
        if not records:
            continue
        for when in ("best", "last") if method.startswith("josrc") else ():
            lines.append(
                _line(title, f"{TITLES[method]} | {when} epoch", [r["epochs"][when] for r in records])
            )
            if method == "josrc_paper":
                id_, ood = PUBLISHED[noise, rate][when]
                lines.append(f"| {title} | the paper's | {when} epoch | / {id_:.3f} / {ood:.3f} | | | | | |")
        lines.append(_line(title, f"{TITLES[method]} | verdict", [r["verdict"] for r in records], records))
    return lines


def _records(size: str, noise: str, rate: float, method: str) -> list[dict[str, Any]]:
    place = (size, noise, rate, method)
    mine = [r for r in done() if (r["size"], r["noise"], r["rate"], r["method"]) == place]
    return sorted(mine, key=lambda r: r["seed"])


def _line(
    title: str, what: str, parts: list[dict[str, Any]], records: list[dict[str, Any]] | None = None
) -> str:
    cells = [title, what]
    for kind in ("precision", "recall"):
        cells.append(" / ".join(_mean([p[kind][name] for p in parts]) for name in PARTS))
    cells.append(_mean([p["ood_base_rate"] for p in parts]))
    if records is None:
        cells += ["", "", ""]
    else:
        cells += [_mean([r["ood_auc"]["own"] for r in records]), _mean([r["auc"] for r in records])]
        cells.append(_mean([r["cpu_seconds"] for r in records if "cpu_seconds" in r], 0))
    return "| " + " | ".join(cells) + " |"


def _mean(values: list[float | None], digits: int = 3) -> str:
    there = [v for v in values if v is not None]
    return f"{np.mean(there):.{digits}f}" if there else "-"


def above_base(size: str) -> str:
    """Say how far the precision of strangers lies above their share among rejected rows."""
    lines = [
        "Are strangers told from the other rejected rows? Means over noises and seeds, gains with the "
        "lowest and the highest; the last columns tell them by entropy and by a small norm of the network's "
        "features alone:",
        "",
        "| method | strangers rejected | precision of strangers minus their share among the rejected | "
        "cells where it is higher by 0.05 | AUC by what the method reads | by entropy | by the norm |",
        "|---" * 7 + "|",
    ]
    for method in METHODS:
        records = sorted((r for r in done() if (r["size"], r["method"]) == (size, method)), key=_place)
        gains = np.array(
            [_gain(r["verdict"]) for r in records if r["verdict"]["precision"]["ood"] is not None]
        )
        if len(gains):
            cells = [
                TITLES[method], _mean([_rejected(r) for r in records]),
                f"{gains.mean():+.3f} ({gains.min():+.3f} to {gains.max():+.3f})",
                f"{(gains > 0.05).sum()} of {len(records)}",
                *(_mean([r["ood_auc"][name] for r in records]) for name in ("own", "entropy", "norm")),
            ]  # fmt: skip
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", published_above_base()])


def published_above_base() -> str:
    """Hold the published precisions against the share of strangers among all wrong labels."""
    found = [
        f"{title_of(noise, rate)} {parts['best'][1] - share:+.3f} and {parts['last'][1] - share:+.3f}"
        for (noise, rate), parts in PUBLISHED.items() for share in [0.2 / (0.2 + 0.8 * rate)]
    ]  # fmt: skip
    return (
        "The paper does not tell the share of strangers among the rows it rejected. Were these exactly the "
        "wrong labels, its precision at the best and at the last epoch would be above it by: "
        f"{'; '.join(found)}. With right labels among them, by more."
    )


def title_of(noise: str, rate: float) -> str:
    """Name a noise as the paper's table does."""
    return f"{'symmetric' if noise == 'open_set' else 'asymmetric (pair)'} {rate:g}"


def _gain(parts: dict[str, Any]) -> float:
    return float(parts["precision"]["ood"] - parts["ood_base_rate"])


def _rejected(record: dict[str, Any]) -> float:
    """Share of the strangers that are rejected, whatever they are taken for."""
    called = record["verdict"]["called"]
    return float(
        (record["verdict"]["ood_base_rate"] or 0.0) * (called["id"] + called["ood"]) / record["strangers"]
    )


def _place(record: dict[str, Any]) -> tuple[Any, ...]:
    return record["noise"], record["rate"], record["seed"]


def tables() -> str:
    """Render everything."""
    parts = []
    for size, settings in SIZES.items():
        records = [r for r in done() if r["size"] == size]
        if records:
            seeds = ", ".join(str(s) for s in sorted({r["seed"] for r in records}))
            what = f"{settings['rows']:,} rows, {settings['network'].__name__}, {settings['epochs']} epochs"
            parts += [f"{what}; seeds {seeds}:", table(size), above_base(size)]
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rates", type=float, nargs="+", default=[rate for _, rate in NOISE])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--cache", type=Path, help="keep signals here")
    parser.add_argument("--rejudge", action="store_true", help="judge cached signals again, without training")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables())
    elif args.rejudge:
        rejudge(args.data, args.cache)
    else:
        run_missing(args)


def run_missing(args: argparse.Namespace) -> None:
    """Run every cell that has no result."""
    torch.set_num_threads(machine()["threads"])
    if args.cache is not None:
        args.cache.mkdir(parents=True, exist_ok=True)
    there = {tuple(record[name] for name in NAMES) for record in done()}
    for seed, (noise, rate), method in product(args.seeds, NOISE, args.methods):
        cell = dict(zip(NAMES, (args.size, noise, rate, seed, method), strict=True))
        if rate in args.rates and tuple(cell.values()) not in there:
            record = run_cell(cell, args.data, args.cache)
            with RESULTS.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(cell, round(record["seconds"]), flush=True)


if __name__ == "__main__":
    main()
