"""The report page in a real browser: what a person clicks is what gets saved, and nothing leaves the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from noisefilter.audit.decisions import Decision, read_decisions
from noisefilter.audit.report import NEXT_ROWS, Report, write_report
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Verdict

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    BROWSER = None

pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason="NO CHROMIUM: the report page was NOT tested in a browser; apt-get install chromium, "
    "pip install playwright",
)

HOSTILE = '<img src=x onerror="window.__pwned=1">\'\u202e\udcff\n</script><script>window.__pwned=1</script>'
CLASSES = ["cat", "dog", HOSTILE]
N_ROWS, N_FLAGGED = 300, 130


def report_of(n_rows=N_ROWS, n_flagged=N_FLAGGED, strangers=(), named=True, **settings):
    """Row 0 is the most suspicious, then row 1; given cat, dog, hostile in turn, the next one suggested."""
    codes = np.arange(n_rows) % 3
    labels = np.array(CLASSES, dtype=object)[codes]
    X = np.random.default_rng(0).integers(0, 256, (n_rows, 8, 8, 3), dtype=np.uint8)
    store = ArrayStore(X, labels, f"{n_rows} rows of {HOSTILE}")
    store.names = [f"{k:05d} {HOSTILE if k == 2 else 'x'}.png" for k in range(n_rows)] if named else None
    partition = np.where(np.arange(n_rows) < n_flagged, ID_NOISE, CLEAN)
    partition[list(strangers)] = OOD_NOISE
    verdict = Verdict(
        labels=labels,
        classes=np.array(CLASSES, dtype=object),
        scores=np.linspace(0, 1, n_rows),
        partition=partition,
        alternatives=np.array(CLASSES, dtype=object)[(codes + 1) % 3],
        open_set=bool(strangers),
        estimated_noise_rate=0.2,
    )
    source = replace(store.load(), names=store.names)
    return Report(source, verdict, "noisefilter audit x", {"seed": "0"}, **settings)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Open the page of a report; in the end nothing may have gone wrong in it or have left it."""
    contexts, troubles = [], []

    def watch(page, url):
        page.on("console", lambda message: troubles.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url in (url,) or request.url.startswith(("data:", "blob:"))
            else troubles.append(request.url),
        )  # fmt: skip

    def open_page(report, **context):
        write_report(tmp_path, report)
        contexts.append(browser.new_context(**context))
        page = contexts[-1].new_page()
        url = (tmp_path / "report.html").as_uri()
        watch(page, url)
        page.goto(url)
        return page

    yield open_page
    pwned = [page.evaluate("window.__pwned") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert troubles == []
    assert set(pwned) <= {None}


def rows(page):
    return [int(card.get_attribute("data-row")) for card in page.locator(".card").all()]


def card(page, row):
    return page.locator(f'.card[data-row="{row}"]')


def saved(page, tmp_path) -> Path:
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "decisions.json"
    path = tmp_path / "saved.json"
    download.value.save_as(path)
    return path


def test_the_page_opens_with_the_most_suspicious_rows(opened):
    page = opened(report_of())
    assert rows(page) == list(range(60))
    expect(page.locator("#shown")).to_have_text("Showing 1–60 of 130")
    expect(page.locator("#progress-text")).to_have_text("0 of 130 decided")
    page.click("#next")
    assert rows(page) == list(range(60, 120))
    page.click("#next")
    expect(page.locator("#shown")).to_have_text("Showing 121–130 of 130")
    expect(page.locator("#next")).to_be_disabled()
    page.select_option("#page-size", "120")
    assert rows(page) == list(range(120))


def test_the_page_of_clean_rows_works_to_its_last_button(opened):
    page = opened(report_of(n_flagged=0))
    expect(page.locator("#gallery")).to_have_text("No label looks wrong.")
    page.select_option("#filter-kind", "also")
    assert rows(page) == list(range(50))
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") in ("light", "dark")


def test_filters_narrow_the_gallery(opened):
    page = opened(report_of(strangers=[4]))
    page.select_option("#filter-given", label="cat")
    expect(page.locator("#shown")).to_have_text("Showing 1–44 of 44")
    page.select_option("#filter-suggested", label="dog")
    assert rows(page) == list(range(0, N_FLAGGED, 3))
    page.select_option("#filter-given", label="dog")
    expect(page.locator("#gallery")).to_contain_text("No row matches these filters.")
    page.click("#clear")
    page.select_option("#filter-suggested", label="no class")
    assert rows(page) == [4]
    page.select_option("#filter-suggested", "")
    page.select_option("#filter-kind", "stranger")
    assert rows(page) == [4]
    page.select_option("#filter-kind", "clean")
    assert rows(page) == list(range(N_FLAGGED, N_FLAGGED + NEXT_ROWS))
    expect(page.locator(".judged")).to_have_count(NEXT_ROWS)
    page.select_option("#filter-kind", "also")
    expect(page.locator("#shown")).to_have_text("Showing 1–60 of 180")
    page.select_option("#filter-kind", "")
    page.fill("#filter-text", "00017")
    assert rows(page) == [17]
    page.fill("#filter-text", "12")
    assert rows(page) == [12, *range(112, 113), *range(120, 130)]


def test_strangers_have_a_gallery_of_their_own(opened):
    page = opened(report_of(strangers=[4, 9]))
    page.select_option("#filter-given", label="cat")
    page.click("text=Show them")
    assert rows(page) == [4, 9]
    expect(page.locator("#filter-kind")).to_have_value("stranger")
    expect(page.locator("#filter-given")).to_have_value("")
    expect(page.locator("#gallery .card")).to_contain_text(["no class", "no class"])
    expect(opened(report_of()).locator("text=Show them")).to_have_count(0)


def test_decided_rows_stay_until_the_filter_changes(opened):
    page = opened(report_of())
    page.select_option("#filter-decided", "no")
    card(page, 0).locator(".accept").click()
    assert rows(page)[0] == 0
    page.click("#next")
    assert rows(page)[0] == 60
    page.select_option("#filter-decided", "yes")
    assert rows(page) == [0]


def test_a_confusion_leads_to_its_rows(opened):
    page = opened(report_of())
    page.locator("#confusions button", has_text="cat → dog").click()
    assert rows(page) == list(range(0, N_FLAGGED, 3))


def test_sorting_the_gallery(opened):
    page = opened(report_of())
    page.select_option("#sort", "class")
    assert rows(page)[:45] == [*range(0, N_FLAGGED, 3), 1]
    page.select_option("#sort", "score")
    assert rows(page) == list(range(60))


def test_sorting_the_class_table(opened):
    page = opened(report_of())
    first = page.locator("#class-table tbody tr:first-child th")
    header = page.locator("#class-table thead th").first
    header.locator("button").focus()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "ascending")
    expect(page.locator("[aria-sort=descending]")).to_have_count(0)
    ascending = first.inner_text()
    page.keyboard.press("Enter")
    expect(header).to_have_attribute("aria-sort", "descending")
    assert {ascending, first.inner_text()} == {
        page.locator("#filter-given option").nth(3).inner_text(),
        "dog",
    }


def test_what_was_clicked_is_what_gets_saved(opened, tmp_path):
    report = report_of(strangers=[4])
    page = opened(report)
    card(page, 0).locator(".accept").click()
    card(page, 1).locator(".keep").click()
    card(page, 2).locator("select").select_option(label="dog")
    card(page, 3).locator(".remove").click()
    card(page, 4).locator(".accept").click()
    card(page, 5).locator("select").select_option(index=3)  # the label it has
    card(page, 6).locator(".remove").click()
    card(page, 6).locator(".undo").click()
    card(page, 7).locator(".accept").click()
    expect(page.locator("#progress-text")).to_have_text("7 of 130 decided")
    expect(page.locator("#unsaved")).to_contain_text("not saved")
    path = saved(page, tmp_path)
    expect(page.locator("#unsaved")).to_have_text("")
    names = report.store.names
    assert read_decisions(path, report.store) == [
        Decision(0, names[0], "cat", "confirm", "dog"),
        Decision(1, names[1], "dog", "keep", "dog"),
        Decision(2, names[2], HOSTILE, "relabel", "dog"),
        Decision(3, names[3], "cat", "remove", None),
        Decision(4, names[4], "dog", "confirm", None),
        Decision(5, names[5], HOSTILE, "keep", HOSTILE),
        Decision(7, names[7], "dog", "confirm", HOSTILE),
    ]
    assert json.loads(path.read_text())["description"] == report.store.description


def test_a_row_judged_clean_is_relabeled_not_accepted(opened, tmp_path):
    report = report_of(named=False)
    page = opened(report)
    page.select_option("#filter-kind", "clean")
    card(page, N_FLAGGED).locator(".accept").click()
    given, other = CLASSES[N_FLAGGED % 3], CLASSES[(N_FLAGGED + 1) % 3]
    assert read_decisions(saved(page, tmp_path), report.store) == [
        Decision(N_FLAGGED, None, given, "relabel", other)
    ]


def test_all_rows_of_a_filter_at_once_and_back(opened, tmp_path):
    report = report_of()
    page = opened(report)
    card(page, 0).locator(".remove").click()
    page.select_option("#filter-given", label="cat")
    page.click("#keep-all")
    expect(page.locator("#progress-text")).to_have_text("44 of 130 decided")
    expect(card(page, 3)).to_contain_text("Kept cat")
    expect(card(page, 0)).to_contain_text("Removed")
    page.locator("#toast button").click()
    expect(page.locator("#progress-text")).to_have_text("1 of 130 decided")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("#accept-all")
    expect(page.locator("#progress-text")).to_have_text("1 of 130 decided")
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#accept-all")
    found = read_decisions(saved(page, tmp_path), report.store)
    assert [decision.action for decision in found] == ["remove", *["confirm"] * 43]


def test_keyboard(opened, tmp_path):
    report = report_of()
    page = opened(report, viewport={"width": 1280, "height": 900})
    card(page, 0).focus()
    page.keyboard.press("a")
    page.keyboard.press("k")
    page.keyboard.press("r")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("a")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("u")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.dataset.row") == str(4 + page.evaluate(
        "getComputedStyle(document.getElementById('gallery')).gridTemplateColumns.split(' ').length"
    ))  # fmt: skip
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    found = read_decisions(saved(page, tmp_path), report.store)
    assert [(decision.row, decision.action) for decision in found] == [
        (0, "confirm"),
        (1, "keep"),
        (2, "remove"),
    ]


def test_an_arrow_key_opens_the_list_of_labels_and_chooses_none(opened):
    page = opened(report_of(), reduced_motion="reduce")  # scrolling would close the list
    select = card(page, 0).locator("select")
    select.focus()
    page.keyboard.press("ArrowDown")
    assert select.evaluate("select => select.matches(':open')")
    expect(page.locator("#progress-text")).to_have_text("0 of 130 decided")
    page.keyboard.press("Escape")


def test_arrow_keys_turn_the_page(opened):
    page = opened(report_of())
    card(page, 59).focus()
    page.keyboard.press("ArrowRight")
    assert rows(page)[0] == 60
    assert page.evaluate("document.activeElement.dataset.row") == "60"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.row") == "59"


def test_a_reload_keeps_the_decisions(opened):
    page = opened(report_of())
    card(page, 0).locator(".accept").click()
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(page.locator("#progress-text")).to_have_text("1 of 130 decided")
    expect(card(page, 0)).to_contain_text("Accepted dog")
    expect(page.locator("#unsaved")).to_contain_text("not saved")


def test_leaving_without_saving_asks(opened, tmp_path):
    page = opened(report_of())
    asked = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == []
    card(page, 0).locator(".accept").click()
    page.reload()
    assert asked == ["beforeunload"]
    card(page, 1).locator(".accept").click()
    saved(page, tmp_path)
    page.reload()
    assert asked == ["beforeunload"]


def test_loading_decisions(opened, tmp_path):
    report = report_of()
    page = opened(report)
    card(page, 0).locator(".accept").click()
    card(page, 1).locator(".remove").click()
    path = saved(page, tmp_path)
    page = opened(report)
    expect(page.locator("#progress-text")).to_have_text("0 of 130 decided")
    page.set_input_files("#load", path)
    expect(card(page, 1)).to_contain_text("Removed")
    expect(page.locator("#progress-text")).to_have_text("2 of 130 decided")
    assert read_decisions(saved(page, tmp_path), report.store)[0].label == "dog"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"fingerprint": "0" * 64}, "another data set"),
        ({"made_by": "somebody"}, "no file of decisions"),
        ({"format": 2}, "newer noisefilter"),
        (
            {"decisions": [{"row": 999, "file": None, "given": "cat", "action": "keep", "label": "cat"}]},
            "Decision 1",
        ),
        (
            {"decisions": [{"row": 1, "file": None, "given": "dog", "action": "relabel", "label": "?"}]},
            "Decision 1",
        ),
        ({"decisions": [None]}, "Decision 1"),
    ],
)
def test_decisions_that_do_not_fit_are_refused(opened, tmp_path, change, sentence):
    report = report_of()
    page = opened(report)
    content = {"made_by": "noisefilter report", "format": 1, "fingerprint": report.store.fingerprint}
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**content, "decisions": [], **change}))
    page.set_input_files("#load", path)
    expect(page.locator("#toast")).to_contain_text(sentence)
    expect(page.locator("#decided-total")).to_have_text("0")


def test_earlier_decisions_are_shown_and_saved_again_unless_undone(opened, tmp_path):
    report = report_of(named=False)
    earlier = [Decision(1, None, "dog", "keep", "dog"), Decision(250, None, "dog", "remove", None)]
    page = opened(replace(report, decisions=earlier))
    expect(page.locator("#decided-total")).to_have_text("2")
    expect(page.locator("#unsaved")).to_have_text("and 1 more")
    expect(card(page, 1)).to_contain_text("Kept dog")
    card(page, 1).locator(".undo").click()
    card(page, 0).locator(".accept").click()
    found = read_decisions(saved(page, tmp_path), report.store)
    assert found == [Decision(0, None, "cat", "confirm", "dog"), earlier[1]]


def test_hostile_names_show_as_text(opened):
    page = opened(report_of())
    shown = card(page, 2).inner_text()
    assert "<img src=x onerror=" in shown
    assert "\\u202e\\udcff\\n</script>" in shown
    assert page.locator("img:not([src^='data:image/webp'])").count() == 0
    assert page.evaluate("document.scripts.length") == 3


def test_a_click_enlarges_the_picture(opened):
    page = opened(report_of())
    card(page, 0).locator(".picture").click()
    expect(page.locator("#zoom img")).to_be_visible()
    assert page.locator("#zoom img").bounding_box()["width"] > 300
    page.locator("#zoom").click()
    expect(page.locator("#zoom")).to_be_hidden()


def test_ten_thousand_rows_need_few_cards(opened):
    page = opened(report_of(10100, 10000, named=False, thumbnails=0))
    expect(card(page, 0)).to_be_visible()
    expect(page.locator("#shown")).to_have_text("Showing 1–60 of 10,000")
    page.select_option("#page-size", "120")
    assert page.locator(".card").count() == 120
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#accept-all")
    expect(page.locator("#progress-text")).to_have_text("10,000 of 10,000 decided")
    assert page.locator(".card").count() == 120


def test_a_phone_need_not_scroll_sideways(opened):
    page = opened(report_of(), viewport={"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    card(page, 0).locator(".accept").click()
    page.click("#save")
    expect(page.locator("#toast")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def brightness(page):
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(int, color.removeprefix("rgb(").rstrip(")").split(",")))


def test_light_and_dark(opened):
    page = opened(report_of(), color_scheme="dark")
    assert brightness(page) < 200
    page.click("#theme")
    assert brightness(page) > 600
    page.reload()
    assert brightness(page) > 600
    page.click("#theme")
    assert brightness(page) < 200


def test_print_has_the_first_rows_and_no_controls(opened):
    page = opened(report_of(), color_scheme="dark")
    page.select_option("#page-size", "24")
    page.click("#next")
    page.emulate_media(media="print")
    expect(page.locator(".card")).to_have_count(60)
    assert rows(page) == list(range(60))
    for control in ("#filters", "#pager", ".desk", "#theme", ".card button:not(.picture)", ".card select"):
        assert not any(found.is_visible() for found in page.locator(control).all()), control
    assert brightness(page) > 700
    page.emulate_media(media="screen")
    expect(page.locator(".card")).to_have_count(24)


def test_contrast_in_both_themes(opened):
    for scheme in ("light", "dark"):
        page = opened(report_of(), color_scheme=scheme)
        page.locator(".card .accept").first.click()
        faint = page.evaluate(CONTRAST)
        assert faint == [], scheme


# Texts whose contrast with what lies behind them is below that of WCAG AA.
CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] > 0.5) return color;
    }
  };
  const found = [];
  for (const node of document.querySelectorAll("body *:not(svg *):not(script):not(option)")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.disabled) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    const style = getComputedStyle(node);
    const [size, bold] = [parseFloat(style.fontSize), style.fontWeight >= 700];
    const needed = size >= 24 || (size >= 18.66 && bold) ? 3 : 4.5;
    if ((a + 0.05) / (b + 0.05) < needed) found.push([node.className, node.textContent.slice(0, 30)]);
  }
  return found;
}"""
