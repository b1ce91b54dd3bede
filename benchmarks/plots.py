"""Draw the committed results as the pictures of the pages.

    python benchmarks/plots.py            # write what is not up to date
    python benchmarks/plots.py --check    # exit 1 if a picture is not of the results that are there

Each picture names the results it was made of by their digest, so it is known which are stale without drawing
them again: other versions of matplotlib write other files.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import growth
import numpy as np

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
# Okabe and Ito's, which color-blind people tell apart.
COLORS = {
    "ce": "#999999", "inn_filtered": "#56B4E9", "dividemix": "#0072B2", "josrc": "#E69F00",
    "inn_dividemix": "#009E73", "vrlvmix": "#D55E00",
}  # fmt: skip
NAMES = {
    "ce": "plain training", "inn_filtered": "INNScorer, plain training", "dividemix": "DivideMix",
    "josrc": "Jo-SRC", "inn_dividemix": "INN + DivideMix", "vrlvmix": "VRLVMix",
}  # fmt: skip
STYLE = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.3, "svg.hashsalt": "noisefilter", "svg.fonttype": "none", "figure.facecolor": "white",
}  # fmt: skip


def records(name: str) -> list[dict[str, Any]]:
    """Read a file of results with one record a line."""
    return [json.loads(line) for line in (HERE / "results" / name).read_text().splitlines()]


def over_epochs() -> Any:
    """Test accuracy over the epochs where networks memorize, mean of the seeds."""
    import matplotlib.pyplot as plt

    mine = [r for r in records("training.jsonl") if r["regime"] == "memorizing"]
    noises = [("symmetric", 0.5), ("asymmetric", 0.4), ("symmetric", 0.8)]
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.2), layout="constrained")
    for axis, (noise, rate) in zip(axes, noises, strict=True):
        for method, color in COLORS.items():
            names = noise, rate, method
            curves = [r["accuracies"] for r in mine if (r["noise"], r["rate"], r["method"]) == names]
            if curves:
                mean = np.mean([curve[: min(map(len, curves))] for curve in curves], axis=0)
                axis.plot(np.arange(1, len(mean) + 1), mean, color=color, label=NAMES[method], linewidth=1.6)
        axis.set(title=f"{noise} {rate:g}", xlabel="epoch")
    axes[0].set_ylabel("test accuracy")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def mean_f1(cells: list[dict[str, Any]], *names: Any) -> float:
    """Return the mean over seeds of one data set, method, noise and rate."""
    keys = ("data", "method", "noise", "rate")
    return float(np.mean([cell["f1"] for cell in cells if tuple(cell[key] for key in keys) == names]))


def beside_cleanlab() -> Any:
    """F1 of the flagged rows by INNScorer and by cleanlab, for every noise, mean of the seeds."""
    import matplotlib.pyplot as plt

    cells = [r for r in records("audit.jsonl") if r["rate"] > 0]
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained", sharey=True)
    for axis, data in zip(axes, ("cifar10", "fashion_mnist"), strict=True):
        noises = list(dict.fromkeys((r["noise"], r["rate"]) for r in cells if r["data"] == data))
        places = np.arange(len(noises))[::-1]
        both = []
        for method, color in (("cleanlab", "#999999"), ("inn", "#0072B2")):
            f1 = [mean_f1(cells, data, method, noise, rate) for noise, rate in noises]
            axis.scatter(f1, places, color=color, label={"inn": "INNScorer"}.get(method, method), zorder=3)
            both.append(f1)
        axis.hlines(places, *both, color="#cccccc", zorder=2)
        axis.set(title=data, xlabel="F1 of the flagged rows", xlim=(0, 1))
        axis.set_yticks(places, [f"{noise} {rate:g}" for noise, rate in noises])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


PICTURES: dict[str, tuple[Callable[[], Any], str]] = {
    "accuracy-over-epochs": (over_epochs, "training.jsonl"),
    "beside-cleanlab": (beside_cleanlab, "audit.jsonl"),
    "growth": (growth.picture, "growth.jsonl"),
}


def digest(results: str) -> str:
    """Return what tells results apart."""
    return hashlib.sha256((HERE / "results" / results).read_bytes()).hexdigest()[:16]


def stale() -> list[str]:
    """Return the pictures that are not of the results that are there."""
    found = []
    for name, (_, results) in PICTURES.items():
        path = IMAGES / f"{name}.svg"
        if not (HERE / "results" / results).exists():  # not measured yet
            continue
        if not path.exists() or digest(results) not in path.read_text(encoding="utf-8"):
            found.append(name)
    return found


def draw(name: str) -> None:
    """Write one picture."""
    import matplotlib as mpl

    mpl.use("svg")
    picture, results = PICTURES[name]
    with mpl.rc_context(STYLE):
        metadata = {"Date": None, "Description": f"{results} {digest(results)}"}
        picture().savefig(IMAGES / f"{name}.svg", metadata=metadata)


def main() -> None:
    """Write or check the pictures."""
    found = stale()
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(found)}" if found else 0)
    for name in found:
        draw(name)


if __name__ == "__main__":
    main()
