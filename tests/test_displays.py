"""The displays: every row is in a bar, every number in its cell, and names are names, never markup."""

import subprocess
import sys
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from noisefilter.displays import ScoreHistogramDisplay, TransitionMatrixDisplay, shown
from noisefilter.errors import InputError, ParameterError
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Verdict

MATRIX = np.array([[0.9, 0.08, 0.02], [0.0, 1.0, 0.0], [0.3, 0.0003, 0.6997]])


@pytest.fixture(autouse=True)
def no_windows():
    backend = mpl.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def ax():
    return Figure().add_subplot()


def verdict(n=4, **changes):
    fields = {
        "labels": np.array(["cat", "dog"] * (n // 2)),
        "classes": np.array(["cat", "dog"]),
        "scores": np.linspace(1, -1, n),
        "partition": np.repeat([CLEAN, ID_NOISE], n // 2),
        "alternatives": np.array(["dog", "cat"] * (n // 2)),
        "threshold": 0.0,
        "transition_matrix": np.array([[0.75, 0.25], [0.5, 0.5]]),
    }
    return Verdict(**(fields | changes))


def heights(patch):
    values, _, baseline = patch.get_data()
    return values - baseline


# --- histogram ------------------------------------------------------------------------------------


def test_bars_by_hand():
    display = ScoreHistogramDisplay([0, 1, 1, 2, 3, 3], [1, 2, 1, 0, 0, 0], threshold=1.5)
    assert display.plot(ax=ax(), n_bins=2) is display
    wrong, edges, floor = display.bars_["wrong label"].get_data()
    assert edges.tolist() == [0, 1.5, 3]
    assert heights(display.bars_["clean"]).tolist() == [0, 3]
    assert heights(display.bars_["wrong label"]).tolist() == [2, 0]
    assert heights(display.bars_["out of distribution"]).tolist() == [1, 0]
    assert wrong.tolist() == [3, 0] and floor.tolist() == [1, 0], "the wrong ones stand on the strangers"
    assert display.threshold_.get_xdata() == [1.5, 1.5]
    assert display.figure_ is display.ax_.figure
    assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == [
        "judged clean: 3", "judged wrong: 2", "judged out of distribution: 1", "threshold: 1.5",
    ]  # fmt: skip


def test_the_truth_is_an_outline():
    v = verdict(6, labels=list("ababab"), classes=["a", "b"], alternatives=list("bababa"))
    display = ScoreHistogramDisplay.from_verdict(v, truth=np.array(list("abbaab")), ax=ax(), n_bins=2)
    wrong = v.scores[[2, 3]]
    values, edges, _ = display.truth_.get_data()
    assert values.tolist() == np.histogram(wrong, edges)[0].tolist() and values.sum() == 2
    assert not display.truth_.get_fill()
    assert ScoreHistogramDisplay.from_verdict(v, ax=ax()).truth_ is None


SCORES = arrays(
    np.float64,
    st.integers(1, 40),
    elements=st.one_of(st.floats(-5, 5), st.floats(allow_nan=False, allow_infinity=False)),
)


@settings(max_examples=60, deadline=None)
@given(SCORES, st.data())
def test_every_row_is_in_one_bar_on_its_side_of_the_threshold(scores, data):
    threshold = data.draw(st.one_of(st.none(), st.sampled_from(scores.tolist()), st.floats(-1e9, 1e9)))
    partition = np.zeros(len(scores), int) if threshold is None else np.where(scores >= threshold, 0, 1)
    display = ScoreHistogramDisplay(scores, partition, threshold).plot(ax=ax())
    counted = {name: heights(bars).sum() for name, bars in display.bars_.items()}
    assert counted.get("clean", 0) == (partition == 0).sum()
    assert counted.get("wrong label", 0) == (partition == 1).sum()
    edges = next(iter(display.bars_.values())).get_data()[1]
    assert (np.diff(edges) > 0).all() and np.isfinite(edges).all()
    if display.threshold_ is not None and len(display.bars_) == 2:
        mixed = (heights(display.bars_["clean"]) > 0) & (heights(display.bars_["wrong label"]) > 0)
        assert not mixed.any(), "a bar reaches over the threshold"


def test_an_outlier_does_not_squeeze_the_others():
    scores = np.append(np.linspace(-1, 1, 299), -1e9)
    display = ScoreHistogramDisplay(scores, scores < 0, threshold=0.0).plot(ax=ax())
    low, high = display.ax_.get_xlim()
    assert -1.5 < low < -0.9 and 0.9 < high < 1.5
    assert "counted in the outermost bars: 1)" in display.ax_.get_xlabel()
    assert heights(display.bars_["wrong label"]).sum() == (scores < 0).sum()


def test_nothing_is_said_of_tails_that_are_short():
    display = ScoreHistogramDisplay(np.linspace(-1, 1, 3000), np.zeros(3000)).plot(ax=ax())
    assert display.ax_.get_xlabel() == "score, higher is cleaner"


def test_equal_scores_have_one_bar():
    display = ScoreHistogramDisplay(np.full(7, 3.0), np.zeros(7), threshold=3.0).plot(ax=ax())
    assert sorted(heights(display.bars_["clean"]))[-2:] == [0, 7]


def test_a_threshold_far_away_is_told_and_not_drawn():
    display = ScoreHistogramDisplay([0.0, 1.0], [1, 1], threshold=1e6).plot(ax=ax())
    assert display.threshold_ is None
    assert "the threshold 1e+06 lies outside" in display.ax_.get_xlabel()


@pytest.mark.parametrize(("wrong", "scale"), [(1, "log"), (500, "linear"), (0, "linear")])
def test_rare_rows_make_the_axis_logarithmic(wrong, scale):
    partition = np.zeros(1000, int)
    partition[:wrong] = 1
    display = ScoreHistogramDisplay(np.repeat([0.0, 1.0], [wrong, 1000 - wrong]), partition).plot(ax=ax())
    assert display.ax_.get_yscale() == scale
    assert ("logarithmic" in display.ax_.get_ylabel()) == (scale == "log")
    assert display.ax_.get_ylim()[0] < 1
    other = display.plot(ax=ax(), log=scale != "log")
    assert other.ax_.get_yscale() != scale


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], []), "at least one row"),
        (([1, np.nan], [0, 0]), "scores must be a finite"),
        (([[1.0]], [[0]]), "1-D"),
        (([1.0], [0, 1]), r"partition must have one entry per score \(1\)"),
        (([1.0], [0], None, [True, False]), "truth_wrong must have one entry"),
    ],
)
def test_bad_scores_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ScoreHistogramDisplay(*arguments)


def test_bad_options_are_refused():
    with pytest.raises(ParameterError, match="n_bins must be at least 1, got 0"):
        ScoreHistogramDisplay([1.0], [0]).plot(ax=ax(), n_bins=0)
    with pytest.raises(InputError, match="one label for each of the 4 rows"):
        ScoreHistogramDisplay.from_verdict(verdict(), truth=["cat"], ax=ax())


# --- matrix ---------------------------------------------------------------------------------------


def test_cells_by_hand():
    display = TransitionMatrixDisplay(MATRIX, ["a", "b", "c"])
    assert display.plot(ax=ax()) is display
    assert [[text.get_text() for text in row] for row in display.text_] == [
        ["90%", "8.0%", "2.0%"],
        ["", "100%", ""],
        ["30%", "", "70%"],
    ]
    cells = display.im_.get_array()
    assert np.ma.getmaskarray(cells).tolist() == np.eye(3, dtype=bool).tolist()
    assert cells[0, 1] == 0.08 and cells[2, 0] == 0.3
    assert display.im_.get_clim() == (0, 0.3)
    assert display.text_[2, 0].get_position() == (0, 2)
    low, high = display.ax_.get_ylim()
    assert low > high, "the first class stands on top"
    names = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert names == [text.get_text() for text in display.ax_.get_yticklabels()] == ["a", "b", "c"]


def test_confusions_are_seen_and_a_clean_matrix_is_calm():
    cells = TransitionMatrixDisplay(np.eye(3) * 0.985 + 0.005, list("abc")).plot(ax=ax()).im_
    opacity = cells.cmap(cells.norm(0.005))[3]
    assert 0 < opacity < 0.1 < TransitionMatrixDisplay(MATRIX, list("abc")).plot(ax=ax()).im_.cmap(1.0)[3]


def test_of_many_classes_the_most_confused_are_shown():
    matrix = np.eye(100)
    matrix[[7, 50], [90, 3]] = 0.4
    display = TransitionMatrixDisplay(matrix, np.arange(100)).plot(ax=ax(), max_classes=4)
    assert display.shown_.tolist() == [3, 7, 50, 90]
    assert display.im_.get_array()[1, 3] == 0.4
    assert "the 4 of 100 classes with the most confusion" in display.ax_.get_title()
    assert display.text_ is not None
    many = TransitionMatrixDisplay(matrix, np.arange(100)).plot(ax=ax())
    assert len(many.shown_) == 25 and many.text_ is None
    assert len(many.figure_.axes) == 2, "without values there is a color bar"


def test_a_matrix_without_numbers_can_be_drawn():
    display = TransitionMatrixDisplay([[np.nan, np.nan], [0, 1]], ["a", "b"]).plot(ax=ax())
    assert display.text_[0, 0].get_text() == "" and display.text_[1, 1].get_text() == "100%"
    TransitionMatrixDisplay([[1.0]], ["only"]).plot(ax=ax()).figure_.canvas.draw()


def test_names_are_no_formulas_and_have_no_control_characters():
    names = ["$x$", "a\nb", "\udcff", "\u202eabc", "x" * 30]
    display = TransitionMatrixDisplay(np.eye(5), names).plot(ax=ax())
    expected = ["$x$", r"a\nb", r"\udcff", r"\u202eabc", "x" * 19 + "…"]
    for labels in (display.ax_.get_xticklabels(), display.ax_.get_yticklabels()):
        assert [text.get_text() for text in labels] == expected
        assert not any(text.get_parse_math() or text.get_usetex() for text in labels)
    display.figure_.canvas.draw()


@given(st.text(st.characters(), max_size=60))
def test_shown_names_print_and_are_short(name):
    assert shown(name).isprintable() and len(shown(name)) <= 20
    if name.isprintable() and len(name) <= 20:
        assert shown(name) == name


def test_bad_matrices_are_refused():
    with pytest.raises(InputError, match=r"one column for each of the 2 classes, got shape \(2, 3\)"):
        TransitionMatrixDisplay(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(InputError, match="each of the 0 classes"):
        TransitionMatrixDisplay(np.ones((0, 0)), [])
    with pytest.raises(InputError, match=r"verdict\.transition_matrix must be a matrix, got None"):
        TransitionMatrixDisplay.from_verdict(verdict(transition_matrix=None), ax=ax())
    with pytest.raises(ParameterError, match="max_classes must be at least 1, got 0"):
        TransitionMatrixDisplay(MATRIX, list("abc")).plot(ax=ax(), max_classes=0)


# --- on the verdict -------------------------------------------------------------------------------


def test_plot_draws_both_side_by_side():
    histogram, transition = verdict().plot()
    assert histogram.figure_ is transition.figure_ is plt.gcf()
    assert histogram.ax_ is not transition.ax_
    assert transition.text_[0, 1].get_text() == "25%"
    assert histogram.bars_.keys() == {"clean", "wrong label"}


def test_plot_without_a_matrix_draws_the_histogram_alone():
    drawn = verdict(transition_matrix=None).plot()
    assert drawn.transition is None
    assert drawn.histogram.figure_.axes == [drawn.histogram.ax_]


def test_plot_takes_axes():
    axes = Figure().subplots(1, 2)
    drawn = verdict().plot(axes=axes)
    assert drawn.histogram.ax_ is axes[0] and drawn.transition.ax_ is axes[1]
    assert not plt.get_fignums()
    with pytest.raises(ParameterError, match="axes must be 2 matplotlib Axes, got 1"):
        verdict().plot(axes=axes[:1])


def test_settings_stay_as_they_were():
    before = dict(mpl.rcParams)
    verdict().plot()
    assert dict(mpl.rcParams) == before


def test_without_matplotlib_one_sentence_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None; import noisefilter\n"
        "d = noisefilter.ScoreHistogramDisplay([1.0], [0])\n"
        "try: d.plot()\n"
        "except ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == (
        'matplotlib must be installed to draw a verdict, got none: pip install "noisefilter[audit]".\n'
    )


# --- in notebooks ---------------------------------------------------------------------------------


class Tables(HTMLParser):
    """The cells of every table, and every tag."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.tags = [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data):
        if self.tables and self.tables[-1]:
            self.tables[-1][-1][-1] += data


def test_html_by_hand():
    v = verdict(
        8,
        scores=[0.1, -3, 2, -1, 2, -2, 2, -3],
        partition=[CLEAN, OOD_NOISE, CLEAN, ID_NOISE, CLEAN, ID_NOISE, CLEAN, ID_NOISE],
        labels=["cat", "dog", "cat", "cat", "cat", "cat", "dog", "dog"],
        alternatives=["dog", "cat", "dog", "dog", "dog", "dog", "cat", "cat"],
    )
    classes, suspects = Tables(v._repr_html_()).tables
    assert repr(v) in v._repr_html_()
    assert classes == [
        ["given label", "rows", "judged wrong", "share"],
        ["dog", "3", "2", "66.7%"],
        ["cat", "5", "2", "40.0%"],
    ]
    assert suspects == [
        ["row", "given", "suggested", "score"],
        ["1", "dog", "no class", "-3"],
        ["7", "dog", "cat", "-3"],
        ["5", "cat", "dog", "-2"],
        ["3", "cat", "dog", "-1"],
    ]


def test_html_is_escaped():
    nasty = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&b", "\udcff\n"]
    v = verdict(labels=nasty, classes=sorted(nasty), alternatives=nasty[::-1], transition_matrix=None,
                partition=[ID_NOISE] * 4, method="<b>")  # fmt: skip
    html = v._repr_html_()
    html.encode("utf-8")
    page = Tables(html)
    assert page.tags <= {"div", "p", "table", "caption", "tr", "th", "td", "bdi"}
    assert "style" not in html
    assert {row[1] for row in page.tables[1][1:]} == {shown(name) for name in nasty}


def test_html_is_compact():
    n = 5000
    labels = np.arange(n) % 50
    v = Verdict(labels, np.arange(50), np.linspace(0, 1, n), labels < 25, (labels + 1) % 50)
    classes, suspects = Tables(v._repr_html_()).tables
    assert len(classes) == 1 + 10 and len(suspects) == 1 + 5
    assert all(row[3] == "100.0%" for row in classes[1:])
    assert "the 10 of 50 with the largest share" in v._repr_html_()
    assert [row[0] for row in suspects[1:]] == ["0", "1", "2", "3", "4"]
    assert len(v._repr_html_()) < 4000


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=1, max_size=30))
def test_html_shows_the_lowest_scores_among_the_flagged(rows):
    scores, flagged = map(np.array, zip(*rows, strict=True))
    v = Verdict(np.zeros(len(rows)), [0, 1], scores, flagged, np.ones(len(rows)))
    tables = Tables(v._repr_html_()).tables
    expected = sorted(np.flatnonzero(flagged), key=lambda row: (scores[row], row))[:5]
    assert [row[0] for table in tables[1:] for row in table[1:]] == [str(row) for row in expected]


def test_dates_are_shown_as_dates():
    days = np.array(["2020-01-01", "2021-01-01"], "M8[ns]")
    html = Verdict(days, days, np.zeros(2), [0, 1], days[::-1])._repr_html_()
    assert html.count("2021-01-01") == 2
