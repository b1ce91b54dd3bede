"""The pictures of the page: the same bytes each time, ids of their own, and nothing from outside."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from noisefilter.audit.figures import histogram_svg, transition_svg
from noisefilter.displays import shown
from noisefilter.errors import InputError
from noisefilter.verdict import Verdict

NASTY = [
    "<script>alert(1)</script>", '"', "'", "&amp;", "$x$", "a\nb", "שלום", "\udcff", "\u202e", "\x07", "日本",
    "#010201", "fill: #010201", "url(#x)", "]]>", "<!-- -->", "$\\frac{1}{", "x" * 200,
]  # fmt: skip
PAGE_COLORS = {"--ink", "--muted", "--line", "--clean", "--wrong"}


def verdict(n=400, n_classes=3, names=None, seed=0, **changes):
    rng = np.random.default_rng(seed)
    classes = np.array(names if names is not None else [f"c{k:03}" for k in range(n_classes)])
    codes = rng.integers(len(classes), size=n)
    scores = rng.normal(size=n)
    matrix = rng.dirichlet(np.ones(len(classes)), len(classes))
    fields = {
        "labels": classes[codes],
        "classes": classes,
        "scores": scores,
        "partition": scores < -1,
        "alternatives": classes[(codes + 1) % len(classes)],
        "threshold": -1.0,
        "transition_matrix": matrix,
    }
    return Verdict(**(fields | changes))


def texts(svg):
    return ["".join(element.itertext()) for element in ElementTree.fromstring(svg).iter() if
            element.tag.endswith("}text")]  # fmt: skip


def attributes(svg):
    return [(key, value) for element in ElementTree.fromstring(svg).iter() for key, value in
            element.attrib.items()]  # fmt: skip


VERDICTS = {
    "usual": verdict(),
    "two classes": verdict(n_classes=2),
    "hundred classes": verdict(n=3000, n_classes=100),
    "twelve classes": verdict(n_classes=12),
    "names": verdict(names=NASTY),
    "nothing flagged": verdict(partition=np.zeros(400), transition_matrix=np.eye(3)),
    "everything flagged": verdict(partition=np.ones(400), threshold=100.0),
    "strangers": verdict(partition=np.arange(400) % 3, open_set=True, threshold=None),
    "equal scores": verdict(scores=np.zeros(400), partition=np.zeros(400), threshold=0.0),
    "outlier": verdict(scores=np.append(np.linspace(-2, 2, 399), -1e12)),
    "few": verdict(n=2),
}
every_verdict = pytest.mark.parametrize("v", VERDICTS.values(), ids=VERDICTS)


@every_verdict
def test_figures_can_stand_in_one_page(v):
    figures = [histogram_svg(v, v.labels[::-1]), histogram_svg(v), transition_svg(v)]
    for svg in figures:
        svg.encode("utf-8")
        assert len(svg) < 150_000
        root = ElementTree.fromstring(svg)  # well-formed
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("role") == "img" and root.get("aria-label").endswith(".")
        assert root.get("width") == "100%" and root.get("height") is None and root.get("viewBox")
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "g", "path", "text", "tspan", "defs", "use", "clipPath", "rect"}, tags
        outside = svg.replace("http://www.w3.org/2000/svg", "").lower()
        assert "http" not in outside and "<!doctype" not in outside and "<?xml" not in outside
        assert not {key for key, _ in attributes(svg)} & {"onload", "onclick"}
    ids = [{value for key, value in attributes(svg) if key == "id"} for svg in figures]
    assert not ids[0] & ids[2]
    for svg, own in zip(figures, ids, strict=True):
        values = " ".join(value for key, value in attributes(svg) if key != "aria-label")
        assert set(re.findall(r"#([\w-]+)", values)) == own, "what is referred to is there, and nothing else"


@every_verdict
def test_all_colors_are_those_of_the_page(v):
    for svg in (histogram_svg(v, v.labels[::-1]), transition_svg(v)):
        styles = "; ".join(value for key, value in attributes(svg) if key in ("style", "fill", "stroke"))
        colors = re.findall(r"(?:fill|stroke|color): ([^;]+)", styles)
        assert {color for color in colors if color != "none"} <= {f"var({name})" for name in PAGE_COLORS}
        assert "DejaVu" not in svg


def test_the_colors_say_what_they_mean():
    assert "var(--clean)" in histogram_svg(verdict()) and "var(--wrong)" in histogram_svg(verdict())
    assert "var(--wrong)" not in histogram_svg(verdict(partition=np.zeros(400)))
    assert "var(--wrong)" in transition_svg(verdict())
    assert "var(--wrong)" not in transition_svg(verdict(transition_matrix=np.eye(3)))
    opacities = re.findall(r"fill: var\(--wrong\); fill-opacity: ([\d.]+)", transition_svg(verdict()))
    assert len(opacities) == 6 and len(set(opacities)) > 2, "one for each pair of classes"


def test_the_same_bytes_twice():
    v = verdict()
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        other = histogram_svg(v, v.labels[::-1]), transition_svg(v)
    assert other == (histogram_svg(v, v.labels[::-1]), transition_svg(v))


def test_names_are_text():
    svg = transition_svg(VERDICTS["names"])
    found = texts(svg)
    for name in NASTY:
        assert found.count(shown(name)) == 2, "once on each axis"
    assert "<script" not in svg


def test_values_and_words():
    v = verdict(transition_matrix=[[0.9, 0.1, 0], [0, 1, 0], [0.25, 0, 0.75]])
    svg = transition_svg(v)
    assert sorted(text for text in texts(svg) if "%" in text) == ["10%", "100%", "25%", "75%", "90%"]
    label = ElementTree.fromstring(svg).get("aria-label")
    assert label == (
        "Transition matrix of 3 of 3 classes. The most frequent confusion: 25.0% of c002 are given as c000."
    )
    flagged = int((v.scores < -1).sum())
    svg = histogram_svg(v, v.labels)
    assert ElementTree.fromstring(svg).get("aria-label") == (
        f"Histogram of the scores of 400 rows, {flagged} of them judged wrong; the threshold is -1."
    )
    words = texts(svg)
    for wanted in ("judged clean: ", "judged wrong: ", "really wrong: 0", "threshold: -1"):
        assert any(word.startswith(wanted) for word in words), wanted


def test_many_classes_are_cut():
    svg = transition_svg(VERDICTS["hundred classes"], max_classes=7)
    assert len([text for text in texts(svg) if re.fullmatch(r"c\d{3}", text)]) == 14
    assert "the 7 of 100 classes with the most confusion" in " ".join(texts(svg))


def test_a_verdict_without_matrix_is_refused():
    with pytest.raises(InputError, match="transition_matrix must be a matrix, got None"):
        transition_svg(verdict(transition_matrix=None))


def test_matplotlib_is_left_as_it_was():
    code = (
        "import sys, matplotlib, numpy as np\n"
        "from noisefilter.audit.figures import histogram_svg, transition_svg\n"
        "from noisefilter.verdict import Verdict\n"
        "before = dict(matplotlib.rcParams)\n"
        "v = Verdict([0, 1], [0, 1], [0.0, 1.0], [1, 0], [1, 0], 0.5, transition_matrix=np.eye(2))\n"
        "histogram_svg(v), transition_svg(v)\n"
        "assert dict(matplotlib.rcParams) == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "MPLBACKEND": "svg"})
