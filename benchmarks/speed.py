"""How fast are training and scoring? Net beside a bare loop and skorch's own, INN beside the literal loop.

    python benchmarks/speed.py --data DIR [--repeats 5]     # about 6 minutes on two quiet cores

DIR holds ``cifar10.npz`` (see audit.py). Each pair is timed in turn, A B A B ..., and the ratio is the median
of the ratios, so a machine whose speed drifts spoils it least. Results go to ``results/speed.json``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit import machine
from skorch import NeuralNetClassifier
from torch import nn

from noisefilter import Net, plant_noise
from noisefilter.augment import CropFlip
from noisefilter.batches import ArrayRows, statistics
from noisefilter.metrics import clean_auc
from noisefilter.neighbors import nearest
from noisefilter.networks import SmallCNN
from noisefilter.paths import mean_path_probs, quadrature
from noisefilter.scores import given_probability

RESULTS = Path(__file__).parent / "results" / "speed.json"
EPOCHS = 8  # so that what happens once a training weighs little, as it does in one of 30


class SmallMLP(nn.Module):
    """64 hidden units: so small that every microsecond of the loop shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(x)


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Time each in turn after one warm-up; medians, and median ratios to the first."""
    for run in runs.values():
        run()
    times = np.array([[seconds(run) for run in runs.values()] for _ in range(repeats)])
    result = {f"{name}_seconds": float(t) for name, t in zip(runs, np.median(times, axis=0), strict=True)}
    ratios = np.median(times / times[:, :1], axis=0)
    return result | {
        f"{name}_over_{next(iter(runs))}": float(r) for name, r in zip(runs, ratios, strict=True)
    }


def bare_epochs(net: nn.Module, rows: ArrayRows, y: torch.Tensor, augment: Any, half: bool) -> None:
    """Train as one would write it by hand, over the same resident tensors."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    net.train()
    for _ in range(EPOCHS):
        for index in torch.randperm(len(rows), generator=generator).split(128):
            x = rows.take(index)
            x = x if augment is None else augment(x, generator)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                output = net(x)
            loss = nn.functional.cross_entropy(output.float(), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def net_of(module: type[nn.Module], augment: Any, record: tuple[str, ...] = (), **arguments: Any) -> Net:
    """Build a Net that does the same work."""
    optimizer = {"optimizer__momentum": 0.9, "optimizer__nesterov": True, "optimizer__weight_decay": 5e-4}
    return Net(
        module, max_epochs=EPOCHS, batch_size=128, lr=0.05, optimizer=torch.optim.SGD, augment=augment,
        record=record, random_state=0, verbose=0, **optimizer, **arguments,
    ).initialize()  # fmt: skip


def training_cnn(X: Any, y: Any, repeats: int) -> dict[str, float]:
    """Some epochs of 10,000 CIFAR images with the small CNN."""
    rows, target = ArrayRows(torch.from_numpy(X), images=True), torch.from_numpy(y)
    bare = SmallCNN(3, 10).to(memory_format=torch.channels_last)
    bare.standardize.set(*statistics(rows))
    plain = net_of(SmallCNN, CropFlip(True), module__n_channels=3, module__n_classes=10)
    recording = net_of(SmallCNN, CropFlip(True), ("mean_probs",), module__n_channels=3, module__n_classes=10)
    half = plain._half_training()
    runs = {
        "bare": lambda: bare_epochs(bare, rows, target, CropFlip(True), half),
        "net": lambda: plain.partial_fit(rows, y),
        "net_recording": lambda: recording.partial_fit(rows, y),
    }
    return in_turn(runs, repeats) | {"rows": len(rows), "epochs": EPOCHS, "bfloat16": half}


def training_mlp(repeats: int) -> dict[str, float]:
    """Some epochs of 20,000 rows of 32 numbers with 64 hidden units, beside skorch's own loop too."""
    X = torch.randn(20_000, 32, generator=torch.Generator().manual_seed(0))
    y = torch.randint(10, (20_000,), generator=torch.Generator().manual_seed(1))
    rows, codes = ArrayRows(X), y.numpy()
    bare, plain = SmallMLP(), net_of(SmallMLP, None)
    theirs = NeuralNetClassifier(
        SmallMLP, criterion=nn.CrossEntropyLoss, max_epochs=EPOCHS, batch_size=128, lr=0.05, train_split=None,
        verbose=0, iterator_train__shuffle=True, optimizer__momentum=0.9, optimizer__nesterov=True,
    ).initialize()  # fmt: skip
    runs = {
        "bare": lambda: bare_epochs(bare, rows, y, None, half=False),
        "net": lambda: plain.partial_fit(rows, codes),
        "skorch": lambda: theirs.partial_fit(X, y),
    }
    return in_turn(runs, repeats) | {"rows": len(rows), "epochs": EPOCHS}


def literal_scores(net: Net, X: Any, y: Any, neighbors: Any) -> Any:
    """Score as the paper writes it: for every row and neighbor, all H + 1 = 11 points of ten trapezoids."""
    weights = np.full(11, 0.1)
    weights[[0, -1]] = 0.05
    scores = np.zeros(len(X))
    x = torch.from_numpy(X).float().permute(0, 3, 1, 2)
    for start in range(0, len(X), 100):
        own, others = slice(start, start + 100), neighbors[start : start + 100]
        for weight, h in zip(weights, range(11), strict=True):
            for column in others.T:
                mixed = (10 - h) / 10 * x[own] + h / 10 * x[column]
                with net.evaluating():
                    probs = net._probs(net.outputs(mixed)).numpy()
                scores[own] += weight * probs[np.arange(len(probs)), y[own]] / neighbors.shape[1]
    return scores


def scoring(X: Any, truth: Any) -> dict[str, Any]:
    """Score 5,000 rows after a short training: literally, in float32, and by the default rule."""
    y, info = plant_noise(truth, "symmetric", 0.4, random_state=0)
    rows = ArrayRows(torch.from_numpy(X), images=True)
    net = net_of(SmallCNN, CropFlip(True), module__n_channels=3, module__n_classes=10).set_params(
        max_epochs=15
    )
    net.fit(rows, y)
    features = net.evaluate(rows, True)[1]
    neighbors = nearest(features, 10)
    found: dict[str, Any] = {}

    def literal() -> None:
        found["literal"] = literal_scores(net, X, y, neighbors)

    def ours() -> None:
        end_probs = net.evaluate(rows)[0].astype(np.float64)
        paths = mean_path_probs(net.predict_batch, rows, end_probs, neighbors, quadrature("gauss", 2))
        found["ours"] = given_probability(paths, y)

    ours()
    times = {
        "ours_seconds": float(np.median([seconds(ours) for _ in range(7)])),
        "literal_seconds": seconds(literal),
    }
    aucs = {f"auc_{name}": float(clean_auc(scores, info.mask)) for name, scores in found.items()}
    return (
        times | aucs | {"literal_over_ours": times["literal_seconds"] / times["ours_seconds"], "rows": len(X)}
    )


def main() -> None:
    """Run everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=("training_cnn", "training_mlp", "scoring"))
    args = parser.parse_args()
    with np.load(args.data / "cifar10.npz") as archive:
        X, y = archive["X_train"][:10_000].copy(), archive["y_train"][:10_000]
    parts: dict[str, Callable[[], Any]] = {
        "training_cnn": lambda: training_cnn(X, y, args.repeats),
        "training_mlp": lambda: training_mlp(args.repeats),
        "scoring": lambda: scoring(X[:5_000], y[:5_000]),
    }
    result = json.loads(RESULTS.read_text()) if args.only else {}
    result |= {name: run() for name, run in parts.items() if args.only is None or name in args.only}
    RESULTS.write_text(json.dumps(result | {"machine": machine()}, indent=2) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
