"""Small tables that took no part in choosing any constant of the default image setting, beside cleanlab.

    python benchmarks/tables.py        # about 5 minutes on two cores; data that comes with scikit-learn

Digits (as 64 columns), breast cancer, wine, iris, and a generated table of five ordered classes that overlap,
symmetric noise, three seeds, the default MLP for both: INNScorer as it is, cleanlab by three folds. Results
go to ``results/tables.json``.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from audit import machine, measure, run_cleanlab, run_inn
from sklearn import datasets

from noisefilter import plant_noise

RESULTS = Path(__file__).parent / "results" / "tables.json"
DATA = ("digits", "breast_cancer", "wine", "iris", "ordered")
RATES = (0.0, 0.05, 0.2, 0.4)


def ordered(n: int = 3000, n_classes: int = 5) -> tuple[Any, Any]:
    """Cut a noisy linear score of seven columns at its quantiles: neighbors overlap, as grades do."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 7))
    score = X @ np.linspace(1.0, 0.2, 7) + rng.normal(0.0, 0.5, n)
    return X, np.searchsorted(np.quantile(score, np.arange(1, n_classes) / n_classes), score)


def run(data: str, rate: float, seed: int) -> dict[str, Any]:
    """Plant noise once and judge it by both."""
    X, truth = ordered() if data == "ordered" else getattr(datasets, f"load_{data}")(return_X_y=True)
    y, _ = plant_noise(truth, "symmetric", rate, random_state=seed)
    both = {"inn": run_inn(X, y, seed, None), "cleanlab": run_cleanlab(X, y, seed, None)}
    return {"data": data, "rate": rate, "seed": seed} | {
        m: measure(found, y != truth) for m, found in both.items()
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Render means over seeds, "INNScorer / cleanlab" in every column."""
    lines = [
        "| data | noise | wrong | AUC | F1 | flagged | estimated rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for data, rate in product(DATA, RATES):
        chosen = [c for c in cells if (c["data"], c["rate"]) == (data, rate)]

        def both(read: Any, chosen: list[dict[str, Any]] = chosen) -> str:
            return " / ".join(f"{np.mean([read(c[m]) for c in chosen]):.3f}" for m in ("inn", "cleanlab"))

        wrong = np.mean([c["inn"]["true_rate"] for c in chosen])
        quality = [both(lambda c: max(c["auc"].values())), both(lambda c: c["f1"])] if rate else ["", ""]
        columns = [data, f"{rate:g}", f"{wrong:.3f}", *quality]
        columns += [both(lambda c: c["flagged"]), both(lambda c: c["estimated_rate"])]
        lines.append("| " + " | ".join(columns) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run every cell."""
    cells = [run(*cell) for cell in product(DATA, RATES, (0, 1, 2))]
    RESULTS.write_text(json.dumps({"cells": cells, "machine": machine()}, indent=1) + "\n")
    print(table(cells))


if __name__ == "__main__":
    main()
