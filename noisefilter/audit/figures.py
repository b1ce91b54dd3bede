"""The pictures of the pages: SVG that takes the colors of the page, light or dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree  # reads nothing but what matplotlib wrote

import numpy as np
from numpy.typing import NDArray

from noisefilter.displays import ScoreHistogramDisplay, TransitionMatrixDisplay, shown
from noisefilter.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["epochs_svg", "histogram_svg", "kept_svg", "transition_svg"]

# matplotlib wants real colors: each stands for a variable of the page and is replaced by it in the end.
_INK, _MUTED, _LINE, _CLEAN, _WRONG = (f"#01020{digit}" for digit in range(1, 6))
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line", _CLEAN: "--clean", _WRONG: "--wrong"}
_STYLE = {
    "axes.edgecolor": _LINE, "axes.labelcolor": _MUTED, "axes.titlecolor": _MUTED, "grid.color": _LINE,
    "text.color": _INK, "xtick.color": _LINE, "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED, "ytick.labelcolor": _MUTED,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
    "svg.fonttype": "none",
}  # fmt: skip
_REFERENCE = re.compile(r"#(\w+)")
_STROKES = ((_CLEAN, "-"), (_WRONG, "-"), (_MUTED, "--"), (_INK, ":"))
_FEW_EPOCHS = 30  # up to here every epoch is marked by a point
_NAMED_CLASSES = 25  # up to here every bar has a name


def histogram_svg(verdict: Verdict, truth: NDArray[Any] | None = None) -> str:
    """Draw the scores with the threshold; see `ScoreHistogramDisplay`.

    Parameters
    ----------
    verdict : Verdict
        The judgement.
    truth : (n,) array, optional
        The true labels; the rows that really are wrong get an outline.

    Returns
    -------
    str
        An ``<svg>`` to be put into a page as it is. Its colors are the page's ``--ink``, ``--muted``,
        ``--line``, ``--clean`` and ``--wrong``; it names nothing outside itself.
    """
    with _canvas("histogram", (6.4, 4.3)) as (ax, drawn):
        ScoreHistogramDisplay.from_verdict(verdict, truth=truth, ax=ax, colors=(_CLEAN, _WRONG, _MUTED))
    flagged = int((~verdict.clean_mask).sum())
    says = f"Histogram of the scores of {len(verdict):,} rows, {flagged:,} of them judged wrong"
    says += "." if verdict.threshold is None else f"; the threshold is {verdict.threshold:.3g}."
    return _inline(drawn.getvalue(), "histogram", says)


def transition_svg(verdict: Verdict, max_classes: int = 25) -> str:
    """Draw the transition matrix; see `TransitionMatrixDisplay`.

    Parameters
    ----------
    verdict : Verdict
        The judgement, with a transition matrix.
    max_classes : int, default=25
        Of more classes only those with the most confusion are shown.

    Returns
    -------
    str
        An ``<svg>`` as of `histogram_svg`.

    Raises
    ------
    InputError
        If the verdict has no transition matrix.
    """
    side = 4.2 + 0.1 * min(len(verdict.classes), max_classes)
    with _canvas("transition", (side, side)) as (ax, drawn):
        display = TransitionMatrixDisplay.from_verdict(verdict, ax=ax, max_classes=max_classes, color=_WRONG)
    says = f"Transition matrix of {len(display.shown_)} of {len(verdict.classes)} classes."
    confusions = np.nan_to_num(display.matrix) * ~np.eye(len(display.matrix), dtype=bool)
    true, given = np.unravel_index(confusions.argmax(), confusions.shape)
    if confusions[true, given] > 0:
        says += (
            f" The most frequent confusion: {confusions[true, given]:.1%} of {shown(verdict.classes[true])} "
            f"are given as {shown(verdict.classes[given])}."
        )
    return _inline(drawn.getvalue(), "transition", says)


def epochs_svg(
    name: str,
    series: Mapping[str, Sequence[float | None]],
    *,
    start: int | None = None,
    level: tuple[float, str] | None = None,
    percent: bool = False,
    limits: tuple[float, float] | None = None,
) -> str:
    """Draw numbers over the epochs of a training.

    Parameters
    ----------
    name : str
        For the ids of the figure, one word.
    series : mapping of str to sequence of float or None
        One line each, one value for each epoch; None is a gap.
    start : int, optional
        The epoch, from 1, in which the warm-up has ended; a line stands before it.
    level : (float, str), optional
        A horizontal line, and what it is called.
    percent : bool, default=False
        Values are shares.
    limits : (float, float), optional
        Of the vertical axis.

    Returns
    -------
    str
        An ``<svg>`` as of `histogram_svg`.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _canvas(name, (4.2, 3.3)) as (ax, drawn):
        n_epochs = max(map(len, series.values()))
        for (label, values), (color, style) in zip(series.items(), cycle(_STROKES), strict=False):
            heights = [np.nan if value is None else value for value in values]
            point: dict[str, Any] = {"marker": "o", "markersize": 4} if n_epochs <= _FEW_EPOCHS else {}
            ax.plot(range(1, len(heights) + 1), heights, style, color=color, label=shown(label), **point)
        if level is not None:
            ax.axhline(level[0], color=_INK, linewidth=1, linestyle=":", label=level[1])
        if start is not None:
            ax.axvline(start - 0.5, color=_MUTED, linewidth=1, linestyle=(0, (2, 3)), label="end of warm-up")
        ax.set_xlabel("epoch")
        ax.set_xlim(0.5, n_epochs + 0.5)
        ax.set_ylim(limits)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        ax.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{100 * value:g}%" if percent else f"{value:,g}")
        )
        ax.grid(axis="y")
        ax.spines[["top", "right", "left"]].set_visible(False)
        ax.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderpad=0, handlelength=1.6
        )
    last = [f"{label} {_last(values, percent)}" for label, values in series.items()]
    return _inline(drawn.getvalue(), name, f"Over {n_epochs} epochs; in the last one {', '.join(last)}.")


def _last(values: Sequence[float | None], percent: bool) -> str:
    value = values[-1] if values else None
    if value is None:
        return "unknown"
    return f"{value:.1%}" if percent else f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def kept_svg(
    classes: Sequence[Any],
    n_rows: NDArray[np.int64],
    n_kept: NDArray[np.float64],
    n_right: NDArray[np.float64] | None = None,
) -> str:
    """Draw how many labels of each class are kept, and how many of these are right.

    Parameters
    ----------
    classes : sequence of K names
        From above to below. More than 25 get no names, and no gaps between their bars.
    n_rows : (K,) array
        Rows that were given the label.
    n_kept : (K,) array
        Those of them whose label is kept; the mean of two networks may be a half.
    n_right : (K,) array, optional
        Those of the kept ones whose label is right, where that is known.

    Returns
    -------
    str
        An ``<svg>`` as of `histogram_svg`.
    """
    from matplotlib.ticker import StrMethodFormatter

    n_classes = len(classes)
    named = n_classes <= _NAMED_CLASSES
    parts: list[tuple[str, NDArray[Any], str]] = [("kept", n_kept, _CLEAN)]
    if n_right is not None:
        parts = [("kept, right label", n_right, _CLEAN), ("kept, wrong label", n_kept, _WRONG)]
    with _canvas("kept", (4.8, 0.9 + 0.25 * max(4, n_classes) if named else 5)) as (ax, drawn):
        left: NDArray[Any] = np.zeros(n_classes)
        for label, right, color in (*parts, ("not kept", n_rows, _MUTED)):
            style: dict[str, Any] = {"color": color, "label": label, "linewidth": 0}
            style["alpha"] = 0.3 if color == _MUTED else 1.0
            if named:
                ax.barh(range(n_classes), right - left, 0.74, left, **style)
            else:
                edges = np.arange(n_classes + 1) - 0.5
                ax.stairs(right, edges, baseline=left, orientation="horizontal", fill=True, **style)
            left = right
        ax.set_yticks(range(n_classes) if named else [])
        if named:
            ax.set_yticklabels([shown(name) for name in classes], parse_math=False, usetex=False)
        else:
            ax.set_ylabel(f"{n_classes:,} classes")
        ax.set_ylim(n_classes - 0.5, -0.5)
        ax.set_xlim(0, None)
        ax.set_xlabel("rows given this label")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
        ax.tick_params(axis="y", length=0)
        ax.spines[["top", "right", "bottom"]].set_visible(False)
        # Over the whole width: beside long names the axes are narrower than the legend.
        ax.figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1, columnspacing=1.4)
    says = f"Of {n_rows.sum():,} labels in {n_classes:,} classes {n_kept.sum():,.10g} are kept"
    if n_right is not None:
        says += f", {n_right.sum():,.10g} of them right"
    return _inline(drawn.getvalue(), "kept", f"{says}.")


@contextmanager
def _canvas(name: str, size: tuple[float, float]) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Give axes outside of pyplot, in matplotlib's default style with our colors, and save them as SVG."""
    from matplotlib import style
    from matplotlib.figure import Figure

    drawn = io.BytesIO()
    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        figure = Figure(figsize=size, layout="constrained")
        yield figure.add_subplot(), drawn
        with warnings.catch_warnings():  # the reader's browser has the glyphs that matplotlib's font lacks
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})


def _inline(svg: bytes, name: str, says: str) -> str:
    """Make of a file an element of a page: no prolog, no rules for the page, no id that is not its own."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")) or child.get("style") == "fill: none":
                parent.remove(child)
    used = set(_REFERENCE.findall(" ".join(value for e in root.iter() for value in e.attrib.values())))
    for element in root.iter():
        element.tag = _local(element.tag)
        values = {_local(key): value for key, value in element.attrib.items()}
        if values.get("id") not in used:
            values.pop("id", None)
        element.attrib = {key: _own(key, value, name) for key, value in values.items()}
        if element.tag != "text":
            element.text = None
        element.tail = None
    root.attrib = {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": root.attrib["viewBox"], "width": "100%",
        "role": "img", "aria-label": says,
        "style": "font-family: system-ui, sans-serif; stroke-linejoin: round",
    }  # fmt: skip
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """Take the namespace off a name: inside a page the parser knows it."""
    return name.rpartition("}")[2]


def _own(key: str, value: str, name: str) -> str:
    """Return the value of an attribute with ids of this figure, colors of the page and no font."""
    if key == "id":
        return f"{name}-{value}"
    if key == "style":
        value = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", value)
        value = re.sub(r"font-family: [^;]*;? *", "", value)
        return re.sub(r"#0102\d\d", lambda color: f"var({_VARIABLES[color[0]]})", value)
    return _REFERENCE.sub(rf"#{name}-\1", " ".join(value.split()))
