"""Hostile data in both pages: file names, labels, cells and column names are text, in a browser too.

The pages are made the whole way from files on disk, as the command line makes them.
"""

import json
import os
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from noisefilter.audit.report import Report, write_report
from noisefilter.audit.terminal import printable
from noisefilter.datasets import load
from noisefilter.training.page import TestRows as Rows  # pytest collects what is called Test
from noisefilter.training.page import Trained, write_training
from noisefilter.verdict import CLEAN, ID_NOISE, Verdict

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
try:
    from playwright.sync_api import sync_playwright
except ImportError:
    BROWSER = None

ATTACKS = (
    "<script>window.__pwned=1</script>",
    "</script><script>window.__pwned=1</script>",
    '"><img src=x onerror="window.__pwned=1">',
    "<svg onload='window.__pwned=1'>",
    "'><iframe srcdoc='<script>parent.__pwned=1</script>'>",
    "javascript:window.__pwned=1//",
    "{{ 7 * 7 }}{% include 'x' %}<!--",
    "\u202e</style><style>*{background:url(//x.invalid)}",
    "]]>&lt;b&gt;&#x3c;script&#x3e;",
)
FLAGGED = 9


def table(folder):
    """Columns, cells and labels are attacks; one cell is longer than is shown."""
    columns = [*(f"{attack} {i}" for i, attack in enumerate(ATTACKS)), "label"]
    lines = [columns]
    for row in range(30):
        cells = [ATTACKS[(row + i) % 3] for i in range(len(ATTACKS))]
        lines.append([*cells, ATTACKS[3 + row % 3]])
    lines[1][0] = "<b>" * 100
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines]
    (folder / "<b>rows.csv").write_text("\n".join(quoted), encoding="utf-8")
    return load(folder / "<b>rows.csv")


def photos(folder):
    """Files and folders are attacks; one name is no text."""
    safe = [attack.replace("/", "\u2044") for attack in ATTACKS]
    for row in range(30):
        path = folder / "<i>photos" / safe[row % 3] / f"{safe[row % len(safe)]} {row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (row, 0, 0)).save(path)
    if os.name != "nt":
        path.rename(path.parent / os.fsdecode(b"\xff<b>.png"))
    (path.parent / f"{safe[2]}.txt").write_text("no image")
    return load(folder / "<i>photos", image_size=8)


SOURCES = {"table": table, "photos": photos}


def report_of(source):
    classes = np.unique(source.y)
    rank = np.searchsorted(classes, source.y)
    n = len(source)
    verdict = Verdict(
        labels=source.y, classes=classes, scores=np.linspace(0, 1, n),
        partition=np.where(np.arange(n) < FLAGGED, ID_NOISE, CLEAN),
        alternatives=classes[(rank + 1) % len(classes)], estimated_noise_rate=0.2,
        transition_matrix=np.eye(len(classes)), method=ATTACKS[0],
    )  # fmt: skip
    attacks = {ATTACKS[0]: ATTACKS[1]}
    return Report(source, verdict, ATTACKS[1], attacks, apply_command=ATTACKS[2])


def write_audit_page(path, source):
    write_report(path.parent, report_of(source))
    return path.parent / "report.html"


def write_training_page(path, source):
    history = [{"epoch": 1, "phase": ATTACKS[0], "loss": 1.0, "test_accuracy": 0.5, ATTACKS[1]: 2}]
    accuracy = {"best": 0.5, "best_epoch": 1, "last": 0.5, "last_10": 0.5}
    trained = Trained(
        report=report_of(source), trainer=ATTACKS[2], history=history, accuracy=accuracy,
        test=Rows(40, ATTACKS[1], False), parameters={ATTACKS[0]: ATTACKS[3]},
        predict_command=ATTACKS[1],
    )  # fmt: skip
    write_training(path.parent / "training.html", trained)
    return path.parent / "training.html"


PAGES = {"audit": write_audit_page, "training": write_training_page}
every_page = pytest.mark.parametrize("page", PAGES)
every_source = pytest.mark.parametrize("source", SOURCES)


def texts_of(source):
    """Return every text that the data bring and a page shows of its first rows."""
    shown = {source.store.description, *map(str, source.y)}
    if source.names is not None:
        return shown | {name.split("/")[-1] for name in source.names[:FLAGGED]} | {source.left_out[0]}
    return shown | {name for name, _ in source.preparation}


class Parsed(HTMLParser):
    """Elements, attributes and texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.names, self.scripts, self.texts, self.values = [], set(), [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        self.values += [value or "" for name, value in attrs if name in ("href", "src", "style", "srcdoc")]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, text):
        if self.tags and self.tags[-1] == "script" and not self.scripts[-1]:
            self.scripts[-1] = text
        else:
            self.texts.append(text)


@every_page
@every_source
def test_nothing_that_data_bring_is_markup(tmp_path, source, page):
    """Read by a parser, wherever there is no browser."""
    data = SOURCES[source](tmp_path)
    parsed = Parsed(PAGES[page](tmp_path / "page", data).read_text(encoding="utf-8"))
    assert len(parsed.scripts) == 3
    assert not [name for name in parsed.names if name.startswith("on") or name == "srcdoc"]
    assert not {"iframe", "img", "object", "embed", "base"} & set(parsed.tags)
    assert parsed.tags.count("form") == 2 and parsed.tags.count("style") == 1
    assert not any("javascript:" in value or "//" in value for value in parsed.values)
    visible, review = "".join(parsed.texts), json.dumps(json.loads(parsed.scripts[1]))
    for text in texts_of(data):
        assert printable(text) in visible or json.dumps(text)[1:-1] in review, text


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.skipif(BROWSER is None, reason="NO CHROMIUM: hostile names were NOT tried in a browser")
@every_page
@every_source
def test_in_a_browser_hostile_data_are_seen_and_do_nothing(tmp_path, browser, source, page):
    data = SOURCES[source](tmp_path)
    path = PAGES[page](tmp_path / "page", data)
    troubles = []
    context = browser.new_context()
    window = context.new_page()
    window.on("console", lambda message: troubles.append(message.text))
    window.on("pageerror", lambda error: troubles.append(str(error)))
    window.on("dialog", lambda dialog: (troubles.append(dialog.message), dialog.accept()))
    window.on("request", lambda request: troubles.append(request.url)
              if not request.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
    window.goto(path.as_uri())
    # Everything that writes data into the page: cards, menus, what was decided, the search.
    first = window.locator(".card").first
    first.locator(".accept").click()
    first.locator(".undo").click()
    first.locator("select").select_option(index=2)
    window.select_option("#filter-given", index=2)
    window.select_option("#filter-given", "")
    window.fill("#filter-text", "<")
    window.fill("#filter-text", "")
    window.locator("summary").evaluate_all("all => all.forEach(one => one.parentElement.open = true)")
    shown = window.evaluate("document.body.textContent")
    for text in texts_of(data):
        assert printable(text) in shown, text
    assert window.evaluate("document.scripts.length") == 3
    assert window.locator("iframe, img:not([src^='data:image/webp']), [onerror], [onload]").count() == 0
    assert window.evaluate("window.__pwned") is None
    context.close()
    assert troubles == []
