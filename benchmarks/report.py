"""The command line at full size: seconds, memory, and how fast the page opens.

    python benchmarks/report.py --data DIR            # what is not there yet
    python benchmarks/report.py --data DIR --again    # everything

DIR holds ``cifar10.npz`` (``X_train``, uint8 (n, 32, 32, 3), and ``y_train``). Four measurements, written to
``results/report.json`` when it is done, about ten minutes on two cores:

- ``embedding``: ``noisefilter audit`` of 50,000 rows x 512 float32 columns in an ``.npz`` file;
- ``photos``: the same of a folder of 10,000 JPEG files, 32 to 512 pixels wide, CIFAR-10 enlarged;
- ``rows``: opening a page of 10,000 suspicious rows in headless Chromium, until the first card is there;
- ``thumbnails``: the size of a page with 2,000 pictures of such photos.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from audit import machine
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "report.json"
ROWS, COLUMNS, PHOTOS, SUSPECTS, THUMBNAILS = 50_000, 512, 10_000, 10_000, 2_000
RATE, CLASSES = 0.1, 10


def planted(truth: Any) -> Any:
    """Plant symmetric noise."""
    from noisefilter import plant_noise

    return plant_noise(truth, "symmetric", RATE, random_state=0)[0]


def command_line(*arguments: str) -> dict[str, Any]:
    """Run the command line in a process of its own; return its seconds and peak memory."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "noisefilter", *arguments])
    _, status, used = os.wait4(child.pid, 0)  # of this child alone
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"noisefilter {' '.join(arguments)} failed")
    return {"seconds": round(seconds, 1), "peak_mib": round(used.ru_maxrss / 1024)}


def judged(out: Path, truth: Any) -> dict[str, Any]:
    """Compare the files of an audit with the truth."""
    import pandas as pd

    from noisefilter.metrics import clean_auc, precision_recall_f1

    table = pd.read_parquet(out / "verdict.parquet")
    wrong = table["given_label"].astype(str).to_numpy() != np.asarray(truth).astype(str)
    precision, recall, _ = precision_recall_f1((table["verdict"] != "clean").to_numpy(), wrong)
    about = json.loads((out / "audit.json").read_text())
    return {
        "true_rate": float(wrong.mean()),
        "estimated_rate": about["counts"]["estimated_noise_rate"],
        "precision": float(precision),
        "recall": float(recall),
        "auc": float(clean_auc(table["score"].to_numpy(), wrong)),
        "page_mb": round((out / "report.html").stat().st_size / 1e6, 2),
    }


def embedding(_: Path, folder: Path) -> dict[str, Any]:
    """Audit clusters in 512 dimensions."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, ROWS)
    centers = 0.09 * rng.normal(size=(CLASSES, COLUMNS))
    X = (centers[truth] + 0.5 * rng.normal(size=(ROWS, COLUMNS))).astype(np.float32)
    np.savez(folder / "rows.npz", X=X, y=planted(truth))
    cost = command_line("audit", str(folder / "rows.npz"), "--out", str(folder / "out"), "--quiet")
    return cost | judged(folder / "out", truth)


def write_photos(data: Path, folder: Path, count: int) -> Any:
    """Write enlarged CIFAR images into folders of their noisy labels; return the right ones in row order."""
    with np.load(data / "cifar10.npz") as archive:
        X, truth = archive["X_train"][:count], archive["y_train"][:count]
    y, rng = planted(truth), np.random.default_rng(0)
    sides = rng.integers(32, 513, size=(count, 2))
    names = []
    for row, (pixels, side) in enumerate(zip(X, sides, strict=True)):
        path = folder / f"class {y[row]}" / f"{row:05}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).resize(tuple(side), Image.Resampling.BICUBIC).save(path, quality=90)
        names.append(path.relative_to(folder).as_posix())
    return np.array([f"class {truth[row]}" for row in np.argsort(names)])


def photos(data: Path, folder: Path) -> dict[str, Any]:
    """Audit a folder of photos."""
    truth = write_photos(data, folder / "photos", PHOTOS)
    cost = command_line("audit", str(folder / "photos"), "--out", str(folder / "out"), "--quiet")
    return cost | judged(folder / "out", truth)


def page(folder: Path, X: Any, y: Any, names: list[str] | None, n_flagged: int, count: int) -> Path:
    """Write a page without training: the first rows are suspicious."""
    from noisefilter.audit.report import Report, write_report
    from noisefilter.datasets.arrays import ArrayStore
    from noisefilter.verdict import Verdict

    source = ArrayStore(X, y, "a page without an audit").load()
    classes = np.unique(y)
    verdict = Verdict(
        labels=y,
        classes=classes,
        scores=np.linspace(-5, 5, len(y)),
        partition=(np.arange(len(y)) < n_flagged).astype(np.int8),
        alternatives=classes[(np.searchsorted(classes, y) + 1) % len(classes)],
        transition_matrix=np.full((len(classes),) * 2, 1 / len(classes)),
        method="none",
    )
    write_report(folder, Report(source, verdict, "noisefilter audit", {}, thumbnails=count))
    return folder / "report.html"


def rows(data: Path, folder: Path) -> dict[str, Any]:
    """Open a page of 10,000 suspicious rows with 2,000 pictures."""
    from playwright.sync_api import sync_playwright

    with np.load(data / "cifar10.npz") as archive:
        X, y = archive["X_train"][:20_000], archive["y_train"][:20_000]
    path = page(folder, X, y, None, SUSPECTS, THUMBNAILS)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        opened = []
        for _ in range(5):
            tab = chromium.new_page()
            start = time.perf_counter()
            tab.goto(path.as_uri())
            tab.locator("[data-row]").first.wait_for()
            opened.append(time.perf_counter() - start)
            tab.close()
        chromium.close()
    return {
        "suspicious": SUSPECTS,
        "open_seconds": [round(seconds, 2) for seconds in opened],
        "page_mb": round(path.stat().st_size / 1e6, 2),
    }


def thumbnails(data: Path, folder: Path) -> dict[str, Any]:
    """Weigh a page with 2,000 pictures of photos."""
    with np.load(data / "cifar10.npz") as archive:
        small, y = archive["X_train"][:THUMBNAILS], archive["y_train"][:THUMBNAILS]
    grain = np.random.default_rng(0).normal(0, 6, size=(128, 128, 3))  # enlarged pixels alone are too smooth
    X = np.stack(
        [np.clip(np.asarray(Image.fromarray(pixels).resize((128, 128))) + grain, 0, 255) for pixels in small]
    ).astype(np.uint8)
    start = time.perf_counter()
    path = page(folder, X, y, None, THUMBNAILS - 10, THUMBNAILS)
    seconds = time.perf_counter() - start
    return {
        "pictures": THUMBNAILS,
        "page_mb": round(path.stat().st_size / 1e6, 2),
        "seconds": round(seconds, 1),
    }


MEASUREMENTS: tuple[Callable[[Path, Path], dict[str, Any]], ...] = (embedding, photos, rows, thumbnails)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=[f.__name__ for f in MEASUREMENTS])
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for measure in MEASUREMENTS:
        name = measure.__name__
        if (args.only and name not in args.only) or (name in found and not args.again):
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[name] = measure(args.data, Path(folder)) | machine()
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(name, found[name], flush=True)


if __name__ == "__main__":
    main()
