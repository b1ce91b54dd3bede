"""Does the score hold where the network has memorized its labels? INN beside the small loss, epoch by epoch.

    python benchmarks/memorizing.py --data DIR       # about 5 minutes on two cores

8,000 Fashion-MNIST images, symmetric noise 0.4 and pair noise 0.3; an MLP 784-512-512-10 with batch
normalization, no dropout, no noise, no augmentation, SGD 0.05, up to 60 epochs. Small loss and INN's own
score are read without planted labels, from a network trained to the end; INNScorer with its defaults trains
no longer than until it begins to know its planted labels by heart. DIR holds ``fashion_mnist.npz`` (see
audit.py). Results go to ``results/memorizing.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit import machine

from noisefilter import INNScorer, Net, plant_noise
from noisefilter.metrics import clean_auc, verdict_report
from noisefilter.networks import MLP

RESULTS = Path(__file__).parent / "results" / "memorizing.json"
EPOCHS = (2, 10, 20, 40, 60)


def run(X: Any, truth: Any, kind: str, rate: float, epochs: int, seed: int) -> dict[str, Any]:
    """Train for some epochs and score."""
    y, info = plant_noise(truth, kind, rate, random_state=seed)
    net = Net(
        MLP, module__n_inputs=X.shape[1], module__n_classes=10, module__hidden=(512, 512),
        module__dropout=0.0, module__noise=0.0, max_epochs=epochs, batch_size=128, lr=0.05,
        optimizer=torch.optim.SGD, optimizer__momentum=0.9, optimizer__weight_decay=5e-4, lr_drops=(2 / 3,),
        record=("losses",), verbose=0,
    )  # fmt: skip
    signals = INNScorer(net, probes=0.0, random_state=seed).fit(X, y).signals_
    scorer = INNScorer(net, random_state=seed).fit(X, y)
    report = verdict_report(scorer.verdict_, truth)
    rows = np.arange(len(y))
    return {
        "noise": kind, "rate": rate, "epochs": epochs, "seed": seed, "true_rate": float(info.mask.mean()),
        "memorized": float((signals.probs.argmax(1) == y).mean()),
        "auc_small_loss": float(clean_auc(np.log(np.maximum(signals.probs[rows, y], 1e-12)), info.mask)),
        "auc_inn": float(clean_auc(signals.path_probs[rows, y], info.mask)),
        "auc_default": float(report["auc"]), "f1_default": float(report["f1"]),
        "epochs_default": len(scorer.signals_.learning_rates),
        "estimated_rate": float(report["estimated_noise_rate"]),
    }  # fmt: skip


def main() -> None:
    """Run every cell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    with np.load(args.data / "fashion_mnist.npz") as archive:
        X, truth = archive["X_train"][:8_000].reshape(8_000, -1), archive["y_train"][:8_000]
    cells = [
        run(X, truth, kind, rate, e, 0) for kind, rate in (("symmetric", 0.4), ("pair", 0.3)) for e in EPOCHS
    ]
    RESULTS.write_text(json.dumps({"cells": cells, "machine": machine()}, indent=2) + "\n")
    for cell in cells:
        print(cell)


if __name__ == "__main__":
    main()
