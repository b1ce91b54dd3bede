"""Confident learning over given probabilities, beside cleanlab: seconds, private memory, flags that differ.

    python benchmarks/confident.py            # all cells that are not there yet; two minutes on one core
    python benchmarks/confident.py --table    # the table of all results, as Markdown

Probabilities are drawn and written to a temporary folder as float64: 10 % of the labels are wrong, and the
classifier is right about 80 % of the rows. Every method then reads the same file in a process of its own, one
after the other, single-threaded: into memory, or as a memory map. Memory is private memory (``RssAnon``, read
every few milliseconds from outside): pages of a mapped file are not in it, the interpreter and all modules
are. Records are appended to ``results/confident.jsonl``, all methods of a cell from one run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from audit import machine

RESULTS = Path(__file__).parent / "results" / "confident.jsonl"
CELLS = (
    {"rows": 100_000, "classes": 10}, {"rows": 1_000_000, "classes": 10}, {"rows": 200_000, "classes": 100},
    {"rows": 5_000_000, "classes": 10},
)  # fmt: skip
TITLES = {
    "memory": "`label_issues`",
    "mapped": "`label_issues`, memory map",
    "judge": "`judge`, memory map",
    "cleanlab": "cleanlab",
    "batched": "cleanlab, low memory",
}
WITHOUT_CLEANLAB = 5_000_000  # rows from which on only our own memory is looked at
RATE, SEED = 0.1, 0


def key(cell: dict[str, Any]) -> tuple[int, int]:
    """What makes a cell one cell."""
    return cell["rows"], cell["classes"]


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def methods(rows: int) -> list[str]:
    """Return what is run on so many rows."""
    return [name for name in TITLES if rows < WITHOUT_CLEANLAB or name in ("mapped", "judge")]


def draw(cell: dict[str, int], folder: Path, chunk: int = 100_000) -> None:
    """Write ``probs.npy`` (n, K) and ``labels.npy`` (n,), a part at a time."""
    n, n_classes = cell["rows"], cell["classes"]
    rng = np.random.default_rng(SEED)
    probs = np.lib.format.open_memmap(folder / "probs.npy", "w+", np.float64, (n, n_classes))
    labels = np.empty(n, dtype=np.int64)
    for start in range(0, n, chunk):
        rows = np.arange(min(chunk, n - start))
        truth = rng.integers(0, n_classes, len(rows))
        logits = 1.5 * rng.normal(size=(len(rows), n_classes))
        logits[rows, truth] += 1.5 + 1.5 * np.sqrt(2 * np.log(n_classes))
        weights = np.exp(logits)
        probs[start : start + chunk] = weights / weights.sum(axis=1, keepdims=True)
        wrong = rng.random(len(rows)) < RATE
        other = (truth + rng.integers(1, n_classes, len(rows))) % n_classes
        labels[start : start + chunk] = np.where(wrong, other, truth)
    probs.flush()
    np.save(folder / "labels.npy", labels)


def run(method: str, folder: Path) -> None:
    """Judge the labels in this process; write the flags and print what it took."""
    labels = np.load(folder / "labels.npy")
    flagged = imported(method)
    probs = np.load(folder / "probs.npy", mmap_mode=None if method in ("memory", "cleanlab") else "r")
    wall = time.perf_counter()
    flags = flagged(labels, probs)
    seconds = time.perf_counter() - wall
    np.save(folder / f"{method}.npy", np.asarray(flags))
    print(json.dumps({"seconds": seconds, "flagged": float(np.mean(flags))}))


def imported(method: str) -> Any:
    """Return a function of labels and probabilities; its modules are loaded."""
    if method == "cleanlab":
        from cleanlab.filter import find_label_issues

        return lambda labels, probs: find_label_issues(labels, probs, n_jobs=1)
    if method == "batched":
        from cleanlab.experimental.label_issues_batched import find_label_issues_batched

        return lambda labels, probs: find_label_issues_batched(
            labels, probs, n_jobs=1, verbose=False, return_mask=True
        )
    if method == "judge":
        from noisefilter.judging import judge

        return lambda labels, probs: ~judge(probs, labels).clean_mask
    from noisefilter.confident import label_issues

    return lambda labels, probs: label_issues(probs, labels)


def private_mib(process: int) -> float:
    """Return the private memory of a process, 0 when it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0.0
    kib = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")]
    return kib[0] / 1024 if kib else 0.0


def watched(method: str, folder: Path) -> dict[str, float]:
    """Run a method in a process of its own and watch its memory."""
    command = [sys.executable, __file__, "--run", method, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    peak = 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, private_mib(process.pid))
            time.sleep(0.003)
        printed = process.stdout.read() if process.stdout else ""
    return json.loads(printed) | {"private_mib": peak}


def measure(cell: dict[str, int]) -> dict[str, Any]:
    """Run every method on the same file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(cell, folder)
        found = {method: watched(method, folder) for method in methods(cell["rows"])}
        reference = np.load(folder / f"{'cleanlab' if 'cleanlab' in found else 'mapped'}.npy")
        for method, result in found.items():
            result["differ"] = int((np.load(folder / f"{method}.npy") != reference).sum())
    os.environ["OMP_NUM_THREADS"] = "1"  # what the processes had
    return cell | {"methods": found} | machine()


def tables() -> str:
    """Render all cells."""
    lines = [
        "| rows x classes | method | seconds | private MiB | flagged | flags unlike cleanlab's |",
        "|---|---|---|---|---|---|",
    ]
    records = {key(record): record for record in done()}
    for record in (records[key(cell)] for cell in CELLS if key(cell) in records):
        for method, result in record["methods"].items():
            differ = f"{result['differ']:,}" if "cleanlab" in record["methods"] else ""
            columns = [f"{record['rows']:,} x {record['classes']}", TITLES[method]]
            columns += [f"{result['seconds']:.2f}", f"{result['private_mib']:,.0f}"]
            lines.append("| " + " | ".join([*columns, f"{result['flagged']:.4f}", differ]) + " |")
    return "\n".join(lines) + "\n\n" + growth(records)


def growth(records: dict[tuple[int, int], dict[str, Any]]) -> str:
    """Say what a row more costs on a memory map, from the two largest cells of ten classes."""
    sizes = sorted(rows for rows, classes in records if classes == 10)
    if len(sizes) < 2:
        return ""
    small, large = (records[rows, 10]["methods"] for rows in sizes[-2:])

    def bytes_of(method: str) -> float:
        more = large[method]["private_mib"] - small[method]["private_mib"]
        return float(more * 2**20 / (sizes[-1] - sizes[-2]))

    return (
        f"On a memory map a row more costs `label_issues` {bytes_of('mapped'):.0f} bytes and `judge`, whose "
        f"verdict keeps several numbers of each row, {bytes_of('judge'):.0f}, its label included, however "
        "many classes there are."
    )


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.run[0], Path(args.run[1]))
    elif args.table:
        print(tables())
    else:
        there = {key(record) for record in done()}
        for cell in CELLS:
            if key(cell) not in there:
                record = measure(cell)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(record) + "\n")
                print(cell, flush=True)


if __name__ == "__main__":
    main()
