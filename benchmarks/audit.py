"""Which labels are wrong? INNScorer beside cleanlab: same rows, same network, same epochs, one run.

    python benchmarks/audit.py --data DIR                 # all cells that are not there yet
    python benchmarks/audit.py --data DIR --seeds 0       # the first seed only
    python benchmarks/audit.py --table                    # the table of all results, as Markdown

DIR holds ``cifar10.npz`` and ``fashion_mnist.npz``, each with ``X_train``, uint8 of shape
(n, height, width[, channels]), and ``y_train``; the first 10,000 rows are used. A cell is one data set,
noise, rate, seed and method. Each runs in a process of its own (its peak memory is the cell's), and is
appended to ``results/audit.jsonl`` when it is done, so the run can be stopped at any time and goes on where
it was. All 120 cells take about 2 hours on two cores with ``--jobs 2`` (one thread each).

cleanlab gets out-of-sample probabilities from three folds with the same network, trained by the same fast
loop; its scores are ``self_confidence`` and ``normalized_margin``, its decision ``find_label_issues``, all
defaults.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "audit.jsonl"
ROWS, EPOCHS, FOLDS = 10_000, 30, 3
DATA = ("cifar10", "fashion_mnist")
NOISE = [("none", 0.0), *product(("symmetric", "asymmetric", "annotator"), (0.03, 0.1, 0.4))]
METHODS = ("inn", "cleanlab")
PACKAGES = ("noisefilter", "torch", "scikit-learn", "skorch", "numpy", "faiss-cpu", "cleanlab")
# Look-alikes, as CIFAR-10's usual mapping has them: three one way, one pair both ways.
FASHION_ASYMMETRIC = {
    9: 7,
    5: 7,
    2: 4,
    0: 6,
    6: 0,
}  # boot, sandal -> sneaker; pullover -> coat; T-shirt <-> shirt


def key(cell: dict[str, Any]) -> tuple[Any, ...]:
    """What makes a cell one cell."""
    return tuple(cell[name] for name in ("data", "noise", "rate", "seed", "method"))


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def planted(folder: Path, cell: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Load the rows of a cell and plant its noise."""
    from noisefilter import plant_noise
    from noisefilter.noise import CIFAR10_ASYMMETRIC

    with np.load(folder / f"{cell['data']}.npz") as archive:
        X, truth = archive["X_train"][:ROWS], archive["y_train"][:ROWS]
    if cell["noise"] == "none":
        return X, truth, truth.copy()
    mapping = CIFAR10_ASYMMETRIC if cell["data"] == "cifar10" else FASHION_ASYMMETRIC
    extra = {"mapping": mapping} if cell["noise"] == "asymmetric" else {}
    extra |= {"X": X.reshape(len(X), -1)} if cell["noise"] == "annotator" else {}
    y, _ = plant_noise(truth, cell["noise"], cell["rate"], random_state=cell["seed"], **extra)
    return X, truth, y


def run_inn(X: Any, y: Any, seed: int, signals: Path | None) -> dict[str, Any]:
    """Fit INNScorer; the signals can be kept, to judge them again without training."""
    from noisefilter import INNScorer

    scorer = INNScorer(max_epochs=EPOCHS, random_state=seed).fit(X, y)
    if signals is not None:
        fields = {k: v for k, v in vars(scorer.signals_).items() if v is not None}
        np.savez(signals, y=y, **fields)
    return judged(scorer)


def judged(scorer: Any) -> dict[str, Any]:
    """What is measured of a fitted filter."""
    verdict = scorer.verdict_
    scores = {"score": verdict.scores}
    return {
        "flagged": ~verdict.clean_mask,
        "rate": verdict.estimated_noise_rate,
        "interval": verdict.noise_rate_interval,
        "scores": scores,
    }


def run_cleanlab(X: Any, y: Any, seed: int, signals: Path | None) -> dict[str, Any]:
    """Cross-validate the network INNScorer trains, and hand the probabilities to cleanlab."""
    import torch
    from cleanlab.count import compute_confident_joint
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.model_selection import StratifiedKFold

    from noisefilter.batches import picked
    from noisefilter.inputs import as_rows
    from noisefilter.models import build_model

    rows = as_rows(X, device=torch.device("cpu"))
    n_classes = len(np.unique(y))
    probs = np.empty((len(y), n_classes))
    settings = {"max_epochs": EPOCHS, "batch_size": None, "lr": None, "verbose": 0}
    training = {"objective": "cross_entropy", "mixup_alpha": 1.0}
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y):
        part = picked(rows, train)
        model = build_model(
            None, part, n_classes, network=None, settings=settings, training=training, record=(), seed=seed
        )
        model.train(part, y[train].astype(np.int64), n_classes)
        probs[test] = model.evaluate(picked(rows, test), False)[0]
    if signals is not None:
        np.savez(signals, y=y, probs=probs)
    joint = compute_confident_joint(y, probs)
    scores = {
        name: get_label_quality_scores(y, probs, method=name)
        for name in ("self_confidence", "normalized_margin")
    }
    rate = float(1 - np.trace(joint) / joint.sum())
    return {"flagged": find_label_issues(y, probs), "rate": rate, "scores": scores}


def measure(found: dict[str, Any], wrong: Any) -> dict[str, Any]:
    """Quality of scores and decision against the planted truth."""
    from noisefilter.metrics import clean_auc, false_negative_rate_at_true_count, precision_recall_f1

    result = {
        "true_rate": float(wrong.mean()),
        "estimated_rate": found["rate"],
        "rate_interval": found.get("interval"),
        "flagged": float(found["flagged"].mean()),
        "f1": float(precision_recall_f1(found["flagged"], wrong).f1) if wrong.any() else None,
        "auc": {},
        "false_negatives": {},
    }
    for name, scores in found["scores"].items() if wrong.any() else ():
        result["auc"][name] = float(clean_auc(scores, wrong))
        result["false_negatives"][name] = float(false_negative_rate_at_true_count(scores, wrong))
    return result


def run_cell(cell: dict[str, Any], folder: Path, cache: Path | None) -> dict[str, Any]:
    """Run one cell in this process."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    X, truth, y = planted(folder, cell)
    run = run_inn if cell["method"] == "inn" else run_cleanlab
    signals = None if cache is None else cache / ("_".join(map(str, key(cell))) + ".npz")
    wall, cpu = time.perf_counter(), time.process_time()
    found = run(X, y, cell["seed"], signals)
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return cell | measure(found, y != truth) | seconds | {"peak_mib": peak} | machine()


def machine() -> dict[str, Any]:
    """Machine and versions."""
    cpu = next(
        (
            li.split(":")[1].strip()
            for li in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in li
        ),
        "",
    )
    return {
        "threads": int(os.environ.get("OMP_NUM_THREADS", "2")),
        "machine": f"{os.cpu_count()} cores, {cpu or platform.processor()}{card()}",
        "versions": versions() | {"python": platform.python_version()},
        "commit": commit(),
    }


def card() -> str:
    """Name the CUDA card behind a comma, where this process has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    return f", {torch.cuda.get_device_name()} (CUDA {torch.version.cuda})"


def versions() -> dict[str, str]:
    """Versions of what is installed."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def commit() -> str:
    """Return the commit of this checkout; nothing where there is no git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return ""
    return found.stdout.strip()


def rejudge(cell: dict[str, Any], folder: Path, cache: Path) -> dict[str, Any]:
    """Judge cached signals again with the rules as they are now; times stay as they were."""
    from noisefilter import INNScorer, Signals

    _, truth, y = planted(folder, cell)
    with np.load(cache / ("_".join(map(str, key(cell))) + ".npz")) as archive:
        signals = Signals(**{name: archive[name] for name in archive.files if name != "y"})
    found = judged(INNScorer().fit_signals(signals, y))
    return cell | measure(found, y != truth) | {"judged_at": machine()["commit"]}


def paired() -> dict[tuple[Any, ...], tuple[dict[str, Any], dict[str, Any]]]:
    """Both methods' results of every cell that both have run."""
    cells = {key(cell): cell for cell in done()}
    places = sorted({k[:-1] for k in cells})  # in one order, or the last digit of a mean could change
    return {
        p: (cells[*p, "inn"], cells[*p, "cleanlab"]) for p in places if all((*p, m) in cells for m in METHODS)
    }


def table() -> str:
    """Render all paired results as Markdown, means over seeds, "INNScorer / cleanlab" in every column."""
    pairs = paired()
    lines = [
        "| data | noise | wrong | seeds | AUC | F1 | missed at the true count | flagged | estimated rate |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for data, (noise, rate) in product(DATA, NOISE):
        chosen = [pair for place, pair in pairs.items() if place[:3] == (data, noise, rate)]
        if chosen:
            lines.append(_line(data, f"{noise} {rate:g}" if rate else "none", chosen))
    return "\n".join(lines)


def costs() -> str:
    """Render time and memory of all paired results as one sentence."""
    pairs = list(paired().values())
    wall, cpu = ([inn[name] / peer[name] for inn, peer in pairs] for name in ("seconds", "cpu_seconds"))
    seconds, peak = (
        [np.mean([c[name] for c in side]) for side in zip(*pairs, strict=True)]
        for name in ("cpu_seconds", "peak_mib")
    )
    return (
        f"Over these {len(pairs)} pairs INNScorer took {np.mean(wall):.2f} of cleanlab's wall time "
        f"({min(wall):.2f} to {max(wall):.2f}) and {np.mean(cpu):.2f} of its processor time "
        f"({min(cpu):.2f} to {max(cpu):.2f}): {seconds[0]:.0f} against {seconds[1]:.0f} seconds on one core. "
        f"Peak memory: {peak[0]:.0f} against {peak[1]:.0f} MiB."
    )


def coverage() -> str:
    """Count how often the range of INNScorer's rate held the true one, and name the conditions it missed."""
    cells = [inn for inn, _ in paired().values()]
    held = [low <= c["true_rate"] <= high for c in cells for low, high in [c["rate_interval"]]]
    missed = Counter(
        f"{c['data']} {c['noise']} {c['rate']:g}" for c, ok in zip(cells, held, strict=True) if not ok
    )
    names = ", ".join(f"{name} ({count})" for name, count in sorted(missed.items()))
    width = np.mean([c["rate_interval"][1] - c["rate_interval"][0] for c in cells])
    return (
        f"The range of the estimated rate (`noise_rate_interval`, {width:.3f} wide on average) held the true "
        f"rate in {sum(held)} of {len(held)} cells; it missed {names or 'none'}."
    )


def _line(data: str, noise: str, pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    def both(read: Any) -> str:
        means = [np.mean([read(c) for c in side]) for side in zip(*pairs, strict=True)]
        return " / ".join(f"{m:.3f}" for m in means)

    wrong = np.mean([inn["true_rate"] for inn, _ in pairs])
    columns = [data, noise, f"{wrong:.3f}", str(len(pairs))]
    if wrong:
        columns += [both(lambda c: max(c["auc"].values())), both(lambda c: c["f1"])]
        columns += [both(lambda c: min(c["false_negatives"].values()))]
    else:
        columns += ["", "", ""]
    columns += [both(lambda c: c["flagged"]), both(lambda c: c["estimated_rate"])]
    return "| " + " | ".join(columns) + " |"


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each")
    parser.add_argument("--cache", type=Path, help="keep signals and probabilities here")
    parser.add_argument("--rejudge", action="store_true", help="judge cached signals again, without training")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(table() + "\n\n" + costs())
    elif args.cell:
        result = run_cell(json.loads(args.cell), args.data, args.cache)
        with RESULTS.open("a") as file:
            file.write(json.dumps(result) + "\n")
    elif args.rejudge:
        cells = [
            c | rejudge({n: c[n] for n in ("data", "noise", "rate", "seed", "method")}, args.data, args.cache)
            if c["method"] == "inn"
            else c
            for c in done()
        ]
        RESULTS.write_text("".join(json.dumps(c) + "\n" for c in cells))
    else:
        run_missing(args)


def run_missing(args: argparse.Namespace) -> None:
    """Run every cell that has no result, a process each."""
    names = ("data", "noise", "rate", "seed", "method")
    wanted = [
        dict(zip(names, (data, noise, rate, seed, method), strict=True))
        for seed, (noise, rate), data, method in product(args.seeds, NOISE, DATA, args.methods)
    ]
    there = {key(cell) for cell in done()}
    missing = [cell for cell in wanted if key(cell) not in there]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1" if args.jobs > 1 else os.environ.get("OMP_NUM_THREADS", "2")
    }
    command = [sys.executable, __file__, "--data", str(args.data)]
    command += ["--cache", str(args.cache)] if args.cache else []

    def start(cell: dict[str, Any]) -> None:
        subprocess.run([*command, "--cell", json.dumps(cell)], check=False, env=environment)
        print(cell, flush=True)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(start, missing))


if __name__ == "__main__":
    main()
