"""What does learning without labels give in few epochs? SimCLR and SCAN on CIFAR-10.

    python benchmarks/pretrain.py --data DIR --cache DIR              # all cells of the small CNN
    python benchmarks/pretrain.py --data DIR --cache DIR --networks resnet18 --epochs 100 200 500
    python benchmarks/pretrain.py --table                             # the table of all results, as Markdown

DIR holds ``cifar10.npz`` with ``X_train``, ``y_train``, ``X_test`` and ``y_test`` (see audit.py). A cell is a
network, a number of rows, a number of epochs and a seed; as the learning rate falls over all epochs, each
number of epochs is a training of its own. 0 epochs are random weights. The small CNN is trained with the
library's defaults; ``resnet18`` with those of ``SimCLR.as_published()``, for a GPU.

Every epoch is a checkpoint in the cache, so a cell goes on where it was stopped, and may be run in pieces;
a finished cell is appended to ``results/pretrain.jsonl``.

Measured on the test images, with the labels of the training images where a method needs labels: a linear
probe (logistic regression on standardized features), the 200 nearest by cosine, weighted by
exp(cosine / 0.1), and the accuracy of ten clusters matched to the classes one to one, of SCAN after
``scan_epochs`` epochs and of k-means on the features scaled to length one. And, of the training images, the
share of 20 nearest neighbors that are of the same class.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit import machine
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from noisefilter import SCANClusterer, SimCLR
from noisefilter.inputs import as_rows
from noisefilter.neighbors import nearest
from noisefilter.pretrain import (
    encoded,
    matched_clusters,
    neighbor_sets,
    predicted,
    scan_weights,
    simclr_weights,
    untrained_net,
)

RESULTS = Path(__file__).parent / "results" / "pretrain.jsonl"
NETWORKS = ("small", "resnet18")
EPOCHS = (0, 10, 30, 100)
SCAN_EPOCHS = {"small": 10, "resnet18": 50}
NAMES = ("network", "rows", "epochs", "seed")
NEIGHBORS, TEMPERATURE = 200, 0.1
_LIGHTLY = (
    "[lightly](https://github.com/lightly-ai/lightly/blob/0243660ba10afc408e3f79541df537d8a2e24eb5/docs/source/"
    "getting_started/benchmarks.rst), batches of 512, best epoch"
)
_LINEAR = "[p3i0t/SimCLR-CIFAR10](https://github.com/p3i0t/SimCLR-CIFAR10)"
_SCAN = "[SCAN's models](https://github.com/wvangansbeke/Unsupervised-Classification), without its last step"
PUBLISHED = (  # source, epochs, k nearest, linear probe, SCAN clusters; all of a ResNet-18
    (_LIGHTLY, "200", "0.848", "", ""),
    (_LIGHTLY, "800", "0.879", "", ""),
    (_LINEAR, "1,000", "", "0.921", ""),
    (_SCAN, "500, and 50 of SCAN", "", "", "0.816"),
)


def loaded(folder: Path, n: int) -> tuple[Any, ...]:
    """Return training and test images with their classes."""
    with np.load(folder / "cifar10.npz") as archive:
        X, y = archive["X_train"][:n], archive["y_train"][:n]
        return X, y.astype(np.int64), archive["X_test"], archive["y_test"].astype(np.int64)


def run_cell(cell: dict[str, Any], data: tuple[Any, ...], cache: Path, device: str) -> dict[str, Any]:
    """Train, or go on training, and measure."""
    X, y, X_test, y_test = data
    wall, cpu = time.perf_counter(), time.process_time()
    folder = cache / "-".join(str(cell[name]) for name in NAMES)
    rows, test = (as_rows(part, device=torch.device(device)) for part in (X, X_test))
    first = SimCLR() if cell["network"] == "small" else SimCLR.as_published()
    net, weights = untrained_net(None, first.network, rows, 10, cell["seed"]), None
    if cell["epochs"]:
        weights = simclr_weights(
            net, rows, epochs=cell["epochs"], seed=cell["seed"], batch_size=first.batch_size, lr=first.lr,
            temperature=first.temperature, weight_decay=first.weight_decay, checkpoint_dir=folder / "simclr",
            verbose=1,
        )  # fmt: skip
    features, others = encoded(net, rows, weights), encoded(net, test, weights)
    neighbors = neighbor_sets(features)
    found: dict[str, Any] = {
        "knn": knn(features, y, others, y_test),
        "linear": linear(features, y, others, y_test),
        "kmeans": kmeans(features, others, y_test),
        "neighbors_of_the_class": float((y[neighbors] == y[:, None]).mean()),
    }
    if cell["epochs"]:
        second = SCANClusterer.as_published()
        clusters = scan_weights(
            net, rows, neighbors, epochs=cell["scan_epochs"], seed=cell["seed"], weights=weights,
            batch_size=second.batch_size, lr=second.lr, weight_decay=second.weight_decay,
            entropy_weight=second.entropy_weight, checkpoint_dir=folder / "scan", verbose=1,
        )  # fmt: skip
        found |= {
            "scan": matched(predicted(net, test, clusters.weights).argmax(1), y_test),
            "scan_entropy": clusters.entropy,
        }
    # Of the last piece alone, where a cell was run in pieces.
    cost = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return cell | found | cost | {"device": device} | machine()


def unit(features: Any) -> Any:
    """Scale rows to length one."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def knn(features: Any, y: Any, others: Any, truth: Any) -> float:
    """Accuracy of the nearest rows' votes, weighted by exp(cosine / temperature)."""
    base, asked = unit(features), unit(others)
    found = nearest(base, min(NEIGHBORS, len(base)), queries=asked)
    votes = np.zeros((len(asked), 10))
    for place in found.T:
        weight = np.exp((asked * base[place]).sum(axis=1) / TEMPERATURE)
        np.add.at(votes, (np.arange(len(asked)), y[place]), weight)
    return float((votes.argmax(axis=1) == truth).mean())


def linear(features: Any, y: Any, others: Any, truth: Any) -> float:
    """Accuracy of logistic regression on standardized features."""
    scale = StandardScaler().fit(features)
    model = LogisticRegression(C=1.0, max_iter=300).fit(scale.transform(features), y)
    return float(model.score(scale.transform(others), truth))


def kmeans(features: Any, others: Any, truth: Any) -> float:
    """Accuracy of ten clusters by k-means."""
    model = KMeans(10, n_init=5, random_state=0).fit(unit(features).astype(np.float64))
    return matched(model.predict(unit(others).astype(np.float64)), truth)


def matched(clusters: Any, truth: Any) -> float:
    """Accuracy of clusters matched to classes."""
    return float((matched_clusters(clusters, truth, 10)[clusters] == truth).mean())


def done(path: Path = RESULTS) -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def tables() -> str:
    """Render all results as Markdown, means over the seeds that are there."""
    lines = [
        "| network | rows | epochs | seeds | k nearest (200) | linear probe | SCAN clusters | k-means "
        "| neighbors of the same class |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    records = done()
    for group in sorted({tuple(r[name] for name in NAMES[:3]) for r in records}):
        mine = [r for r in records if tuple(r[name] for name in NAMES[:3]) == group]
        columns = []
        for name in ("knn", "linear", "scan", "kmeans", "neighbors_of_the_class"):
            values = [r[name] for r in mine if name in r]
            columns.append(f"{np.mean(values):.3f}" if values else "")
        network, n, epochs = group
        lines.append(f"| {network} | {n:,} | {epochs} | {len(mine)} | " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n\n" + published()


def published() -> str:
    """Render what others report."""
    lines = [
        "Published for a ResNet-18 after many epochs; no number to cite was found for a network as small or "
        "a training as short.",
        "",
        "| source | epochs | k nearest (200) | linear probe | SCAN clusters |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in PUBLISHED])


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["small"])
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000])
    parser.add_argument("--epochs", type=int, nargs="+", default=list(EPOCHS))
    parser.add_argument("--scan-epochs", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables())
        return
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    there = {tuple(record[name] for name in NAMES) for record in done(args.results)}
    for key in product(args.networks, args.rows, args.epochs, args.seeds):
        if key in there:
            continue
        cell = dict(zip(NAMES, key, strict=True))
        scan_epochs = SCAN_EPOCHS[cell["network"]] if args.scan_epochs is None else args.scan_epochs
        cell["scan_epochs"] = scan_epochs
        record = run_cell(cell, loaded(args.data, cell["rows"]), args.cache, args.device)
        with args.results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(record, flush=True)


if __name__ == "__main__":
    main()
