"""The page of a training: what it says, and that it works in a browser as that of an audit does."""

import csv
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from noisefilter.audit.figures import epochs_svg, kept_svg
from noisefilter.audit.report import Report
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.training.page import TestRows as Rows  # pytest collects what is called Test
from noisefilter.training.page import Trained, training_data, write_history, write_training
from noisefilter.verdict import CLEAN, ID_NOISE, Verdict

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    BROWSER = None

HOSTILE = '<img src=x onerror="window.__pwned=1">\u202e</script><script>window.__pwned=1</script>'
FIGURE = re.compile(r'<figure class="records">.*?</figure>', re.DOTALL)
WARM = [
    {"epoch": 1, "phase": "warm-up", "loss": 2.25, "lr": 0.05},
    {"epoch": 2, "phase": "warm-up", "loss": 2.0},
]
MIXED = [
    {"epoch": 3, "phase": "mixmatch", "loss": 1.5, "n_labeled_1": 60, "test_accuracy": 0.875},
    {"epoch": 4, "phase": "mixmatch", "loss": None, "n_labeled_1": 72, "test_accuracy": 0.75},
]


def trained(n_rows=90, n_flagged=20, tested=True, trusted=True, truth=None, history=(*WARM, *MIXED)):
    labels = np.array(["cat", "dog", HOSTILE], dtype=object)[np.arange(n_rows) % 3]
    X = np.random.default_rng(0).integers(0, 256, (n_rows, 8, 8, 3), dtype=np.uint8)
    store = ArrayStore(X, labels, f"{n_rows} rows of {HOSTILE}", truth=truth)
    verdict = Verdict(
        labels=labels,
        classes=np.array(["cat", "dog", HOSTILE], dtype=object),
        scores=np.linspace(0, 1, n_rows),
        partition=np.where(np.arange(n_rows) < n_flagged, ID_NOISE, CLEAN),
        alternatives=np.roll(labels, -1),
        estimated_noise_rate=0.2,
        method="DivideMixClassifier",
    )
    return Trained(
        report=Report(store.load(), verdict, "noisefilter train x", {"seed": "0"}),
        trainer="DivideMixClassifier",
        history=history,
        accuracy={"best": 0.875, "best_epoch": 3, "last": 0.75, "last_10": 0.8125} if tested else None,
        test=Rows(40, HOSTILE, trusted) if tested else None,
        parameters={"lr": "its default"},
    )


def text_of(trained, tmp_path):
    write_training(tmp_path / "training.html", trained)
    return (tmp_path / "training.html").read_text(encoding="utf-8")


def test_accuracy_is_reported_and_said_not_to_be_chosen_on():
    data = training_data(trained())
    assert data["headline"] == "75.0% of 40 test rows are predicted right."
    assert data["label_headline"] == "20 of 90 labels look wrong (22.2%)."
    assert [(card["name"], card["value"]) for card in data["training_cards"]] == [
        ("Last epoch", "75.0%"),
        ("Mean of all 4 epochs", "81.2%"),
        ("Best epoch", "87.5%"),
    ]
    assert data["training_cards"][2]["note"] == "epoch 3; to compare with papers, nothing was chosen by it"
    long = training_data(trained(history=[{"epoch": 1, "loss": 1.0, "test_accuracy": 0.5}] * 12))
    assert long["training_cards"][1]["name"] == "Mean of the last ten epochs"


def test_without_test_rows_no_accuracy_is_claimed(tmp_path):
    untested = trained(tested=False, history=WARM)
    data = training_data(untested)
    assert data["headline"] == "Trained on 90 rows, 2 epochs."
    assert [curve["title"] for curve in data["curves"]] == ["Losses"]
    page = text_of(untested, tmp_path)
    assert "No test rows were given" in page and "predicted right" not in page


@pytest.mark.parametrize("trusted", [True, False])
def test_test_labels_that_may_be_wrong_are_named(tmp_path, trusted):
    page = text_of(trained(trusted=trusted), tmp_path)
    assert ("Their labels are as given" in page) is not trusted
    assert ("75.0% of 40 test rows are predicted as labeled." in page) is not trusted


@pytest.mark.parametrize("command", ["noisefilter predict 'a <b>' NEW --out p.csv", ""])
def test_the_page_says_how_to_predict_new_rows(tmp_path, command):
    page = text_of(replace(trained(), predict_command=command), tmp_path)
    assert ("noisefilter predict &#39;a &lt;b&gt;&#39; NEW" in page) is bool(command)
    assert ("predicts new rows" in page) is bool(command)


def test_losses_of_the_warm_up_are_told_apart_where_they_are_others():
    says = "the two parts cannot be compared"
    assert says in training_data(trained())["curves"][1]["says"]
    same = [{**record, "labeled_loss": 1.0} for record in (*WARM, *MIXED)]
    assert says not in training_data(trained(history=same))["curves"][1]["says"]


def test_rows_that_nobody_guesses_are_not_called_guessed():
    sizes = {"n_labeled_1": 60, "n_labeled_2": 60}
    plain = [*WARM, *({"epoch": 2 + k, "phase": "supervised", "loss": 0.5, **sizes} for k in (1, 2))]
    for history, said, silent in ((plain, "left out", "guessed"), ((*WARM, *MIXED), "guessed", "left out")):
        curves = training_data(trained(history=history))["curves"]
        says = {curve["title"]: curve["says"] for curve in curves}
        assert said in says["Rows in each set"] and silent not in says["Rows in each set"]
        assert ("cannot be compared" in says["Losses"]) is (said == "guessed")


def test_figures_show_what_was_recorded():
    curves = {curve["title"]: curve["svg"] for curve in training_data(trained())["curves"]}
    assert list(curves) == ["Test accuracy", "Losses", "Rows in each set"]
    assert "in the last one test accuracy 75.0%." in curves["Test accuracy"]
    assert "in the last one loss unknown." in curves["Losses"]
    assert "in the last one kept, network 1 72." in curves["Rows in each set"]
    assert all("end of warm-up" in svg for svg in curves.values())
    assert "right labels" not in curves["Rows in each set"]
    known = training_data(trained(truth=np.array(["cat"] * 90, dtype=object)))["curves"][2]["svg"]
    assert "right labels" in known
    alone = training_data(trained(history=WARM))["curves"][0]["svg"]
    assert "end of warm-up" not in alone, "where nothing comes after it"


def test_figures_take_the_colors_of_the_page_and_are_the_same_twice():
    values = {"loss": [1.0, None, 0.5], HOSTILE: [0.1, 0.2, 0.3]}
    svg = epochs_svg("losses", values, start=2, level=(0.7, "level"))
    assert svg == epochs_svg("losses", values, start=2, level=(0.7, "level"))
    assert "<img" not in svg and "<script" not in svg
    colors = re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)
    assert {color for color in colors if color != "none"} <= {
        f"var({name})" for name in ("--ink", "--muted", "--line", "--clean", "--wrong")
    }


def labeled_sets(n_rows, seed=0):
    """Return what two networks might keep: not the same, and of one class more than of another."""
    rng = np.random.default_rng(seed)
    return rng.random((2, n_rows)) < np.array([0.9, 0.5, 0.7])[np.arange(n_rows) % 3]


def test_labels_kept_are_counted_by_class():
    known = trained(
        truth=np.random.default_rng(1).choice(np.array(["cat", "dog", HOSTILE], dtype=object), 90)
    )
    labels, truth, labeled = known.report.verdict.labels, known.report.source.truth, labeled_sets(90)
    kept = training_data(replace(known, labeled=labeled))["kept"]
    expected = {}
    for name in ("cat", "dog", HOSTILE):
        rows = [row for row in range(90) if labels[row] == name]
        size = sum(int(labeled[k, row]) for k in range(2) for row in rows) / 2
        right = sum(int(labeled[k, row]) for k in range(2) for row in rows if truth[row] == name) / 2
        expected[name] = [f"{len(rows)}", f"{size:g}", f"{size / len(rows):.1%}", f"{right:g}",
                          f"{right / size:.1%}"]  # fmt: skip
    found = {line["label"]: [line[key] for key in ("rows", "kept", "share", "right", "purity")]
             for line in kept["lines"]}  # fmt: skip
    assert found == expected and any("." in line[1] for line in expected.values())
    sizes = [float(line["kept"]) for line in kept["lines"]]
    assert sizes == sorted(sizes, reverse=True) and not kept["equal"]
    assert kept["total"] == {"rows": "90", "kept": f"{labeled.sum() / 2:g}"}
    assert kept["purity"] == f"{sum(labeled[:, labels == truth].sum(axis=1)) / labeled.sum():.1%}"
    purities = {name: float(line[4][:-1]) for name, line in expected.items()}
    assert kept["least"]["label"] == min(purities, key=purities.get)
    assert kept["greatest"]["label"] == max(purities, key=purities.get)


def test_a_class_of_which_nothing_is_kept_has_no_purity(tmp_path):
    labeled = np.ones((2, 90), dtype=bool)
    labeled[:, 1::3] = False
    truth = np.array(["cat", "dog", HOSTILE], dtype=object)[np.arange(90) % 3]
    known = replace(trained(truth=truth), labeled=labeled)
    kept = training_data(known)["kept"]
    assert kept["lines"][-1] == {
        "label": "dog", "rows": "30", "kept": "0", "share": "0.0%", "right": "0", "purity": "–",
    }  # fmt: skip
    assert kept["least"]["label"] == kept["greatest"]["label"] == "cat"
    assert "Of these labels 100.0% are right, in every class." in " ".join(text_of(known, tmp_path).split())


def test_without_truth_nothing_is_said_of_purity(tmp_path):
    page = text_of(replace(trained(), labeled=labeled_sets(90)), tmp_path)
    figure = FIGURE.search(page)[0]
    assert "Labels kept, by class" in figure and "not kept</text>" in figure
    assert "right" not in figure.lower() and "wrong" not in figure


@pytest.mark.parametrize("labeled", [None, np.zeros((2, 90), dtype=bool)])
def test_without_labeled_sets_there_is_no_figure_of_them(tmp_path, labeled):
    page = text_of(replace(trained(), labeled=labeled), tmp_path)
    assert "Labels kept, by class" not in page and 'class="records"' not in page


def test_names_of_classes_cannot_break_out_of_the_figure_of_kept_labels(tmp_path):
    page = text_of(replace(trained(), labeled=labeled_sets(90)), tmp_path)
    figure = FIGURE.search(page)[0]
    assert "&lt;img src=x" in figure and "\\u202e" in figure
    assert "<img" not in figure and "<script" not in figure and "\u202e" not in figure
    assert "$x$</text>" in kept_svg(["$x$", "b"], np.array([2, 2]), np.array([1.0, 2.0]))


def test_many_classes_are_drawn_without_names_and_told_in_the_table():
    names = [f"c{k:03}" for k in range(100)]
    n_rows = np.arange(200, 100, -1)
    svg = kept_svg(names, n_rows, n_rows / 2, n_rows / 4)
    assert "100 classes" in svg and "c007" not in svg and len(svg) < 50_000
    assert "Of 15,050 labels in 100 classes 7,525 are kept, 3,762.5 of them right." in svg
    assert "c007" in kept_svg(names[:25], n_rows[:25], n_rows[:25] / 2)
    assert "--wrong" in svg and "--wrong" not in kept_svg(names, n_rows, n_rows / 2)


def test_every_number_of_every_epoch_is_in_the_page_and_in_the_table(tmp_path):
    data = training_data(trained())
    assert data["columns"] == ["epoch", "phase", "loss", "lr", "n labeled 1", "test accuracy"]
    assert data["epochs"][2] == ["3", "mixmatch", "1.5", "–", "60", "0.875"]
    write_history(tmp_path / "history.csv", (*WARM, *MIXED))
    with open(tmp_path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {"epoch": "1", "phase": "warm-up", "loss": "2.25", "lr": "0.05", "n_labeled_1": "",
                       "test_accuracy": ""}  # fmt: skip
    assert rows[3]["loss"] == "" and rows[3]["test_accuracy"] == "0.75"


def test_the_page_is_that_of_an_audit_with_the_training_before(tmp_path):
    page = text_of(trained(), tmp_path)
    assert page.count("<main>") == page.count("</html>") == 1
    order = ['id="training"', 'id="overview"', 'id="classes"', 'id="review"', 'id="method"', "review-data"]
    assert [page.index(part) for part in order] == sorted(page.index(part) for part in order)
    assert "<title>Training: 90 rows of" in page and "Label audit" not in page
    assert "<img src=x" not in page and "window.__pwned=1</script>" not in page


@pytest.mark.skipif(BROWSER is None, reason="NO CHROMIUM: the training page was NOT tested in a browser")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_nothing_goes_wrong_and_nothing_sticks_out(tmp_path, width, scheme):
    write_training(tmp_path / "training.html", replace(trained(), labeled=labeled_sets(90)))
    troubles = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url)
                if request.url.startswith("http") else None)  # fmt: skip
        page.goto((tmp_path / "training.html").as_uri())
        expect(page.locator(".curves svg")).to_have_count(3)
        expect(page.locator("figure.records svg")).to_have_count(1)
        expect(page.locator(".card").first).to_be_visible()
        page.locator(".records summary").click()
        expect(page.locator("details.records td").first).to_be_visible()
        page.locator(".card .accept").first.click()
        expect(page.locator("#progress-text")).to_have_text("1 of 20 decided")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        line = page.locator(".curves svg path[style*='--clean']").first
        expected = {"light": "rgb(63, 134, 173)", "dark": "rgb(98, 169, 208)"}[scheme]
        assert line.evaluate("path => getComputedStyle(path).stroke") == expected
        assert page.evaluate("window.__pwned") is None
        browser.close()
    assert troubles == []
