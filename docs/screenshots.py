"""Take the pictures of the pages that stand in the docs, of audits and a training on data from scikit-learn.

python docs/screenshots.py        # writes docs/images/*.png; needs chromium, takes two minutes
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from sklearn.datasets import load_breast_cancer

IMAGES = Path(__file__).parent / "images"
STILL: dict[str, Any] = {"reduced_motion": "reduce"}  # or the page is still scrolling in the picture
DESK = STILL | {"viewport": {"width": 1280, "height": 860}}
TALL = STILL | {"viewport": {"width": 1280, "height": 988}}  # down to the end of the curves
PHONE = STILL | {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}


def run(*arguments: object) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "noisefilter", *map(str, arguments)], check=True)


def top(page: Page) -> None:
    """Stay where the page opens."""


def review(page: Page) -> None:
    """Go to the suspicious rows."""
    page.evaluate("location.hash = '#review'")


def decided(page: Page) -> None:
    """Decide about a few rows first."""
    review(page)
    for card, name in enumerate(("accept", "keep", "accept")):
        page.locator("[data-row]").nth(card).locator(f"button.{name}").click()


def shrink(path: Path) -> None:
    """Bring a picture to the 256 colors that cover it best: a third of the size, and no difference to see."""
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main() -> None:
    """Audit, train, and take every picture."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        run("audit", "digits", "--out", folder / "digits", "--quiet")
        cancer = load_breast_cancer(as_frame=True)
        frame = cancer.frame.drop(columns="target").round(4)
        frame["diagnosis"] = cancer.target_names[cancer.target]
        frame.to_csv(folder / "cells.csv", index=False)
        run(
            "noise",
            folder / "cells.csv",
            "--label",
            "diagnosis",
            "--rate",
            0.1,
            "--out",
            folder / "noisy.csv",
        )
        run("audit", folder / "noisy.csv", "--label", "diagnosis", "--truth", folder / "noisy.truth.csv",
            "--out", folder / "cells", "--quiet")  # fmt: skip
        run("train", "digits", "--test-share", 0.2, "--epochs", 20, "--out", folder / "training", "--quiet")
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for picture, file, go, options in (
            ("report-light", "digits/report.html", top, DESK),
            ("report-dark", "digits/report.html", review, DESK | {"color_scheme": "dark"}),
            ("report-review", "digits/report.html", decided, DESK),
            ("report-table", "cells/report.html", review, DESK),
            ("report-phone", "digits/report.html", top, PHONE),
            ("training", "training/training.html", top, TALL),
        ):
            page = chromium.new_context(**options).new_page()
            page.goto((folder / file).as_uri())
            page.locator("[data-row]").first.wait_for()
            go(page)
            page.wait_for_timeout(300)
            page.screenshot(path=IMAGES / f"{picture}.png")
            shrink(IMAGES / f"{picture}.png")
        chromium.close()


if __name__ == "__main__":
    main()
