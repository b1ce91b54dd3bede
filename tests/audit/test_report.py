"""The report page as a file: what it says, and that nothing in the data can become markup."""

import base64
import hashlib
import io
import json
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from noisefilter import __version__
from noisefilter.audit.decisions import Decision
from noisefilter.audit.report import NEXT_ROWS, Report, page_data, write_report
from noisefilter.audit.terminal import printable
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.errors import InputError
from noisefilter.metrics import clean_auc, precision_recall_f1
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Verdict

HOSTILE = (
    "<script>window.__pwned = 1</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><!-- {{ 7 * 7 }}",
    "new\nline\tand\u2028more",
    "right\u202eto left",
    "undecodable\udcff.png",
    "'quotes\" & <b>bold</b>",
)


def verdict_of(labels, flagged, classes=None, strangers=(), **fields):
    """The `flagged` rows have the lowest scores, in this order; the next class is suggested."""
    labels = np.asarray(labels)
    classes = np.unique(labels) if classes is None else np.asarray(classes)
    scores = np.linspace(0.5, 1, len(labels))
    scores[list(flagged)] = np.linspace(0.01, 0.2, len(flagged)) if len(flagged) else []
    partition = np.full(len(labels), CLEAN)
    partition[list(flagged)] = ID_NOISE
    partition[list(strangers)] = OOD_NOISE
    following = dict(zip(classes.tolist(), [*classes.tolist()[1:], classes.tolist()[0]], strict=True))
    return Verdict(
        labels=labels,
        classes=classes,
        scores=scores,
        partition=partition,
        alternatives=np.array([following[label] for label in labels.tolist()], dtype=labels.dtype),
        threshold=0.4,
        open_set=bool(strangers),
        estimated_noise_rate=0.123,
        noise_rate_interval=(0.1, 0.15),
        transition_matrix=np.eye(len(classes)),
        method="m",
        **fields,
    )


class NamedStore(ArrayStore):
    """Arrays whose rows have names, as files have."""

    def __init__(self, X, labels, names=None):
        super().__init__(X, np.asarray(labels), "some rows")
        self.names = names


def report_of(labels, flagged=(0,), X=None, names=None, truth=None, **settings):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), dtype=np.uint8)
    store = NamedStore(images if X is None else X, labels, names)
    source = replace(store.load(), names=names, truth=truth)
    fields = {name: settings.pop(name) for name in ("strangers", "classes") if name in settings}
    verdict = verdict_of(labels, flagged, **fields)
    return Report(source, verdict, "noisefilter audit x --out y", {"seed": "0"}, **settings)


class Page(HTMLParser):
    """The scripts, tags and visible text of a page."""

    def __init__(self, path):
        super().__init__()
        self.scripts, self.tags, self.text, self.attributes = [], Counter(), "", []
        self.open = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += attrs
        self.open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, text):
        if self.open == "script":
            self.scripts[-1] += text
        elif self.open != "style":
            self.text += text

    @property
    def review(self):
        return json.loads(self.scripts[1])


@pytest.fixture
def write(tmp_path):
    def write(report):
        write_report(tmp_path, report)
        return Page(tmp_path / "report.html")

    return write


def test_the_numbers_are_those_of_the_verdict(write):
    labels = ["ant"] * 60 + ["bee"] * 40
    report = report_of(labels, flagged=[3, 70, 5], strangers=[5])
    page = write(report)
    assert "3 of 100 labels look wrong (3.0%). 1 of them seems to belong to no class." in page.text
    values = {card["name"]: (card["value"], card["note"]) for card in page_data(report)["cards"]}
    assert values == {
        "Labels judged wrong": ("3", "3.0% of 100 labels"),
        "Estimated noise rate": ("12.3%", "most likely between 10.0% and 15.0%"),
        "Belong to no class": ("1", "rows that fit none of the classes"),
        "Decided by a person": ("0", "so far; see Review"),
    }
    lines = {
        line["label"]: (line["rows"], line["flagged"], line["really"])
        for line in page_data(report)["classes"]
    }
    assert lines == {"ant": (60, 2, "bee"), "bee": (40, 1, "ant")}
    assert __version__ in page.text


def test_unknown_estimates_and_strangers_nobody_looked_for_are_said():
    report = report_of(["a", "b"] * 5)
    verdict = replace(report.verdict, estimated_noise_rate=float("nan"), noise_rate_interval=None)
    cards = page_data(replace(report, verdict=verdict))["cards"]
    assert [card["value"] for card in cards] == ["1", "unknown", "–", "0"]
    assert cards[2]["note"] == "not looked for"
    assert cards[3]["note"] == "so far; see Review"


def test_rows_come_with_the_lowest_score_first_then_the_next_that_were_judged_clean(write):
    report = report_of(["a", "b"] * 60, flagged=[7, 2, 99], strangers=[2])
    items = write(report).review["items"]
    assert [(item["row"], item["kind"]) for item in items[:3]] == [
        (7, "wrong"),
        (2, "stranger"),
        (99, "wrong"),
    ]
    assert [item["kind"] for item in items[3:]] == ["clean"] * NEXT_ROWS
    rest = [row for row in range(120) if row not in (7, 2, 99)]
    assert [item["row"] for item in items[3:]] == rest[:NEXT_ROWS]
    assert "suggested" not in items[1]
    labels = write(report).review["labels"]
    assert (labels[items[0]["given"]], labels[items[0]["suggested"]]) == ("b", "a")


def test_where_the_truth_is_known_the_verdict_is_measured(write):
    truth = np.array(["a", "b"] * 10)
    labels = truth.copy()
    labels[[0, 1, 2]] = ["b", "a", "b"]
    report = report_of(labels, flagged=[0, 1, 9], truth=truth)
    wrong, flagged = labels != truth, ~report.verdict.clean_mask
    precision, recall, _ = precision_recall_f1(flagged, wrong)
    cards = {card["name"]: card["value"] for card in page_data(report)["truth_cards"]}
    assert cards == {
        "Really wrong": "3",
        "Precision": f"{precision:.3f}",
        "Recall": f"{recall:.3f}",
        "AUC": f"{clean_auc(report.verdict.scores, wrong):.3f}",
    }
    page = write(report)
    assert "Measured against the known truth" in page.text
    assert [page.review["labels"][item["truth"]] for item in page.review["items"][:3]] == ["a", "b", "b"]


def test_without_truth_the_page_does_not_claim_to_know_it(write):
    page = write(report_of(["a", "b"] * 10))
    assert "known truth" not in page.text
    assert all("truth" not in item for item in page.review["items"])


def test_a_truth_outside_the_classes_is_shown_but_cannot_be_chosen(write):
    review = write(report_of(["a", "b"] * 2, truth=np.array(["zebra", "b", "a", "b"]))).review
    assert review["labels"][review["items"][0]["truth"]] == "zebra"
    assert review["labels"][: review["choices"]] == ["a", "b"]


def test_a_truth_without_a_wrong_label_has_no_recall():
    labels = np.array(["a", "b"] * 5)
    assert [card["name"] for card in page_data(report_of(labels, truth=labels))["truth_cards"]] == [
        "Really wrong"
    ]


def test_nothing_suspicious(write):
    page = write(report_of(["a", "b"] * 10, flagged=()))
    assert "None of the 20 labels looks wrong." in page.text
    assert "No label looks wrong." in page.text
    assert "Strongest confusions" not in page.text
    assert {item["kind"] for item in page.review["items"]} == {"clean"}


def test_a_class_without_rows(write):
    report = report_of(["a", "b"] * 5, classes=["a", "b", "c"])
    page = write(report)
    assert ("c", 0, "0.0%") in [
        (line["label"], line["rows"], line["percent"]) for line in page_data(report)["classes"]
    ]
    assert page.review["labels"][: page.review["choices"]] == ["a", "b", "c"]


@pytest.mark.parametrize("n_classes", [30, 31])
def test_a_long_class_table_scrolls(write, n_classes):
    page = write(report_of([f"class {k}" for k in range(n_classes)] * 2))
    assert ("class", "table-box tall" if n_classes > 30 else "table-box") in page.attributes


def page_with(text):
    """Return a report that has a text wherever data can bring one."""
    labels = [text, "fine"] * 4
    report = report_of(labels, flagged=[0, 1], names=[f"{label}/{k}{text}" for k, label in enumerate(labels)])
    source = replace(report.source, description=text, left_out=[text], preparation=[(text, text)])
    return replace(report, source=source, command=text, settings={text: text}, apply_command=text)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_texts_stay_text(write, hostile):
    tame = write(page_with("tame"))
    report = page_with(hostile)
    page = write(report)
    assert page.tags == tame.tags
    assert {name for name, _ in page.attributes} == {name for name, _ in tame.attributes}
    assert len(page.scripts) == 3
    assert page.text.count(printable(hostile)) >= 12
    review = page.review
    assert review["labels"][review["items"][0]["given"]] == hostile
    assert [item["name"] for item in review["items"]] == [
        report.store.names[i["row"]] for i in review["items"]
    ]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(), min_size=1), min_size=1, max_size=20, unique=True))
def test_any_label_and_name_arrives_as_it_is(write, texts):
    labels = np.array(["a" + text for text in texts] + ["b", "b"], dtype=object)
    names = [f"{label}/{text}" for label, text in zip(labels, [*texts, "x", "y"], strict=True)]
    page = write(report_of(labels, flagged=range(len(labels)), names=names))
    assert len(page.scripts) == 3
    review = page.review
    assert [review["labels"][item["given"]] for item in review["items"]] == labels.tolist()
    assert [item["name"] for item in review["items"]] == names


def test_nothing_from_outside_and_only_our_scripts_may_run(write, tmp_path):
    page = write(report_of(["a", "b"] * 5))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; ")
    for script in (page.scripts[0], page.scripts[2]):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    addresses = [value for name, value in page.attributes if name in ("src", "href", "action", "srcset")]
    assert all(address.startswith("#") for address in addresses)
    assert "@import" not in html
    assert "url(http" not in html
    assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_pictures_are_small_and_only_of_the_first_rows(write):
    X = np.random.default_rng(0).integers(0, 256, (6, 300, 200, 3), dtype=np.uint8)
    items = write(report_of(["a", "b"] * 3, flagged=[4, 1, 2], X=X, thumbnails=2)).review["items"]
    assert ["picture" in item for item in items] == [True, True, *[False] * 4]
    data, width, height = items[0]["picture"]
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (picture.format, picture.size) == ("WEBP", (width, height))
    assert (width, height) == (85, 128)


def test_a_tiny_picture_keeps_every_pixel(write):
    report = report_of(["a", "b"] * 3, flagged=[4])
    item = write(report).review["items"][0]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(item["picture"][0]))).convert("RGB"))
    np.testing.assert_array_equal(shown, np.asarray(report.store.picture(4)))


def test_a_picture_that_is_gone_leaves_its_name(write):
    class Gone(NamedStore):
        def picture(self, row):
            if row == 0:
                raise FileNotFoundError(row)
            return super().picture(row)

    report = report_of(["a", "b"] * 2, flagged=[0, 1], names=["a/0", "b/1", "a/2", "b/3"])
    store = Gone(report.store.X, report.store.labels, report.store.names)
    items = write(replace(report, source=replace(report.source, store=store))).review["items"]
    assert ["picture" in item for item in items] == [False, True, True, True]


def test_rows_of_a_table_show_cells_with_the_unusual_marked(write):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(10, 1, 60), "<i>color": ["red", "blue"] * 30})
    frame.loc[3, "size"] = 99.0

    class Table(NamedStore):
        def cells(self, rows):
            return frame.iloc[rows]

    report = report_of(["a", "b"] * 30, flagged=[3], X=frame[["size"]].to_numpy())
    store = Table(report.store.X, report.store.labels)
    source = replace(
        report.source, store=store, preparation=[("size", "standardized"), ("<i>color", "one-hot")]
    )
    page = write(replace(report, source=source))
    item = page.review["items"][0]
    assert item["cells"][0] == ["size", "99", 1]
    assert "picture" not in item
    assert page.tags["i"] < 20
    assert "one-hot" in page.text


def test_an_embedding_shows_its_columns(write):
    item = write(report_of(["a", "b"] * 10, X=np.random.default_rng(0).normal(size=(20, 12)))).review[
        "items"
    ][0]
    assert len(item["cells"]) == 8
    assert item["cells"][0][0].startswith("column ")


def test_rows_are_those_of_the_store(write):
    labels = np.array(["a", "b"] * 10)
    report = report_of(labels, names=[f"{k}.png" for k in range(20)])
    kept = np.arange(20) >= 5
    verdict = verdict_of(labels[kept], flagged=[0])
    item = write(replace(report, source=report.source.take(kept), verdict=verdict)).review["items"][0]
    assert (item["row"], item["name"]) == (5, "5.png")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(item["picture"][0]))).convert("RGB"))
    np.testing.assert_array_equal(pixels, report.store.X[5])


def test_earlier_decisions_are_carried_on(write):
    stored = np.array(["a", "b"] * 40)
    judged = stored.copy()
    judged[79] = "a"
    earlier = [Decision(79, None, "b", "relabel", "a"), Decision(4, None, "a", "remove", None)]
    report = report_of(stored)
    kept = np.arange(80) != 4
    source = replace(report.source.take(kept), y=judged[kept])
    review = write(
        replace(report, source=source, verdict=verdict_of(judged[kept], [0]), decisions=earlier)
    ).review
    assert [(entry["row"], entry["action"], entry["label"]) for entry in review["earlier"]] == [
        (79, "relabel", "a"),
        (4, "remove", None),
    ]
    item = next(item for item in review["items"] if item["row"] == 79)
    assert item["kind"] == "decided"
    assert (review["labels"][item["given"]], review["labels"][item["stored"]]) == ("a", "b")
    assert review["started_from"] != write(report).review["started_from"]


def test_what_decisions_must_be_for(write):
    report = report_of(["a", "b"] * 5)
    review = write(report).review
    assert (review["fingerprint"], review["rows"]) == (report.store.fingerprint, 10)
    assert review["description"] == "some rows"


def test_a_source_without_store_is_refused(tmp_path):
    report = report_of(["a", "b"] * 5)
    with pytest.raises(InputError, match="must have a store"):
        write_report(tmp_path, replace(report, source=replace(report.source, store=None)))
    assert not list(tmp_path.iterdir())


def test_the_same_report_has_the_same_bytes(tmp_path):
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_report(tmp_path / name, report_of(["a", "b"] * 20, flagged=[1, 2, 3]))
        pages.append((tmp_path / name / "report.html").read_bytes())
    assert pages[0] == pages[1]


def test_numbers_as_labels(write):
    review = write(report_of(np.array([3, 10, 3, 10]))).review
    assert review["labels"] == ["3", "10"]
