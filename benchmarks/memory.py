"""What memory a filter takes for rows that lie on disk, which it may not hold: the same bits come out.

    python benchmarks/memory.py                 # all cells that are not there yet, smallest first
    python benchmarks/memory.py --minutes 2     # no longer than that; the next run goes on
    python benchmarks/memory.py --table         # the results as Markdown

Rows are drawn in two overlapping clusters, in 4,096 float32 columns, and written to a file; 10 % of the
labels are wrong. Each filter judges them twice, in two epochs, in a process of its own: from memory, and from
a memory map of the file. The process that reads the map is forbidden by the system (``RLIMIT_DATA``) to take
more memory of its own than 240 MiB, less than the larger file has: a copy of its rows would end it. Its own
is what is anonymous (``RssAnon``), looked at every few milliseconds: pages of the file that the system keeps
as long as nobody else needs room are nobody's. Verdicts are compared bit for bit.

Every cell is appended to ``results/memory.jsonl``. It needs Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import tempfile
import threading
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from audit import machine
from faults import ended, nothing, started
from growth import judged

RESULTS = Path(__file__).parent / "results" / "memory.jsonl"
METHODS = ("inn", "small_loss", "loss_variation", "josrc")
ROWS = (8_000, 16_000)
ALLOWED = 240  # MiB
COLUMNS, EPOCHS, RATE = 4_096, 2, 0.1
PLACES = ("memory", "disk")
MIB = 2**20
NAMES = ("method", "rows", "place")


def cells() -> list[dict[str, Any]]:
    """Return all cells, smallest first."""
    return [dict(zip(NAMES, (m, n, p), strict=True)) for n, m, p in product(ROWS, METHODS, PLACES)]


def done() -> list[dict[str, Any]]:
    """Read the results that are there."""
    return [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []


def labels(rows: int) -> tuple[Any, Any]:
    """Return the right labels and those given."""
    rng = np.random.default_rng(1)
    truth = rng.integers(2, size=rows)
    return truth, np.where(rng.random(rows) < RATE, 1 - truth, truth)


def write(folder: Path, rows: int) -> int:
    """Write the rows, some at a time."""
    rng = np.random.default_rng(0)
    truth, _ = labels(rows)
    X = np.lib.format.open_memmap(folder / "X.npy", "w+", np.float32, (rows, COLUMNS))
    for part in np.array_split(np.arange(rows), rows // 1000):
        X[part] = rng.standard_normal((len(part), COLUMNS), dtype=np.float32)
        X[part] += 0.03 * (2 * truth[part, None] - 1)
    return 0


def own_mib(what: str) -> float:
    """Return what the system says of the memory of this process, in MiB."""
    line = next(li for li in Path("/proc/self/status").read_text().splitlines() if li.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


def run_cell(folder: Path, cell: dict[str, Any]) -> int:
    """Judge in this process; tell what it took on stderr."""
    import torch

    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)  # the first one imports a good deal
    X = np.load(folder / "X.npy", mmap_mode="r")
    file_mib, allowed = X.nbytes / MIB, None
    start = own_mib("RssAnon")
    if cell["place"] == "memory":
        X = np.array(X)
    else:
        allowed = ALLOWED
        limit = int((own_mib("VmData") + allowed) * MIB)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    peak, ended = start, threading.Event()

    def look() -> None:
        nonlocal peak
        while not ended.wait(0.003):
            peak = max(peak, own_mib("RssAnon"))

    watching = threading.Thread(target=look)
    watching.start()
    begun = time.perf_counter()
    try:
        verdict = judged(cell["method"], X, labels(cell["rows"])[1], None, EPOCHS)
    finally:
        ended.set()
        watching.join()
    bits = verdict.scores.tobytes() + verdict.partition.tobytes()
    found = {
        "file_mib": file_mib,
        "allowed_mib": allowed,
        "taken_mib": peak - start,
        "seconds": time.perf_counter() - begun,
        "flagged": verdict.noise_rate,
        "verdict": hashlib.sha256(bits).hexdigest(),
    }
    sys.stderr.write("\n" + json.dumps(cell | found))
    return 0


def tables() -> str:
    """Render memory against rows, and whether the verdicts are the same bits."""
    known = {tuple(record[name] for name in NAMES): record for record in done()}
    lines = [
        "| filter | rows | file, MiB | from memory, MiB | from disk, MiB | allowed, MiB | verdict |",
        "|---" * 7 + "|",
    ]
    for method, rows in product(METHODS, ROWS):
        both = [known.get((method, rows, place)) for place in PLACES]
        if both[0] is None or both[1] is None:
            continue
        memory, disk = both[0], both[1]
        same = "the same bits" if memory["verdict"] == disk["verdict"] else "another one"
        figures = (memory["file_mib"], memory["taken_mib"], disk["taken_mib"], disk["allowed_mib"])
        shown = " | ".join(f"{figure:,.0f}" for figure in figures)
        lines.append(f"| {method} | {rows:,} | {shown} | {same} |")
    return "\n".join(lines)


def sentence() -> str:
    """Say what was taken at most, and of which rows."""
    records = [record for record in done() if record["place"] == "disk"]
    most = max(record["taken_mib"] for record in records)
    least, largest = (pick(record["file_mib"] for record in records) for pick in (min, max))
    filters = len({record["method"] for record in records})
    return (
        f"{filters} filters judged files of {least:,.0f} to {largest:,.0f} MiB and took {most:,.0f} MiB at "
        f"most, of {ALLOWED} that the system allowed. "
        "[Filter by filter](benchmarks.md#rows-that-lie-on-disk)."
    )


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(tables())
        return
    end = time.perf_counter() + 60 * args.minutes
    there = [tuple(record[name] for name in NAMES) for record in done()]
    missing = [cell for cell in cells() if tuple(cell.values()) not in there]
    import faiss  # noqa: F401
    import torch  # noqa: F401

    with tempfile.TemporaryDirectory() as root:
        for cell in missing:
            folder = Path(root) / str(cell["rows"])
            if not folder.exists():
                folder.mkdir()
                ended(*started(partial(write, rows=cell["rows"]), folder, nothing))
            if time.perf_counter() > end:
                return
            found = ended(*started(partial(run_cell, cell=cell), folder, nothing))
            print(cell, found.code, found.complaint[-300:], flush=True)
            if not found.code:
                with RESULTS.open("a") as file:
                    record = json.loads(found.complaint.splitlines()[-1])
                    file.write(json.dumps(record | machine()) + "\n")


if __name__ == "__main__":
    main()
