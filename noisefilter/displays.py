"""Pictures of a verdict, as scikit-learn's displays are: histogram of the scores, and transition matrix.

matplotlib is imported when something is drawn, not before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisefilter.errors import InputError, ParameterError
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, PARTITION_NAMES, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

__all__ = ["ScoreHistogramDisplay", "TransitionMatrixDisplay", "VerdictDisplays", "shown"]

# Blue and vermilion of Okabe and Ito, which color-blind people tell apart, and a gray of another lightness.
COLORS = ("#0072B2", "#D55E00", "#999999")
_JUDGED = ("judged clean", "judged wrong", "judged out of distribution")
_TAIL = 0.001  # share of the rows on each side that may lie beyond the axis
_LONG = 2.5  # they are cut off where the whole range is so many times longer than the rest
_INVISIBLE = 0.02  # a group whose tallest bar is below this share of the height asks for a logarithmic axis
_VALUES_UP_TO = 12  # classes
_FULL_COLOR = 0.15  # at least this probability has the full color, so that a nearly clean matrix looks calm
_NAME_LENGTH = 20
_SHOWN_CLASSES, _SHOWN_ROWS = 10, 5


class ScoreHistogramDisplay:
    """Histogram of the scores, one color for each judgement, stacked, with the threshold.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Finite; higher means cleaner.
    partition : array-like of shape (n,)
        0 (judged clean), 1 (wrong label) or 2 (out of distribution).
    threshold : float, optional
        Drawn as a line; no bar reaches over it.
    truth_wrong : array-like of bool, shape (n,), optional
        The rows whose label really is wrong, drawn as an outline.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    bars_ : dict of str to matplotlib StepPatch
        The bars of each judgement that occurs; their heights, values minus baseline, add up to n.
    threshold_ : matplotlib Line2D or None
        The line of the threshold; None without one, or where it lies far away from all scores.
    truth_ : matplotlib StepPatch or None
        The outline of the rows that really are wrong.

    Raises
    ------
    InputError
        No row, arrays of different lengths, or scores that are not finite.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> display = ScoreHistogramDisplay([0.9, 0.8, 0.1], [0, 0, 1], threshold=0.5)
    >>> sorted(display.plot(ax=Figure().add_subplot()).bars_)
    ['clean', 'wrong label']
    """

    def __init__(
        self,
        scores: ArrayLike,
        partition: ArrayLike,
        threshold: float | None = None,
        truth_wrong: ArrayLike | None = None,
    ) -> None:
        self.scores = np.asarray(scores, dtype=np.float64)
        self.partition = np.asarray(partition)
        self.threshold = threshold
        self.truth_wrong = None if truth_wrong is None else np.asarray(truth_wrong, dtype=bool)
        if self.scores.ndim != 1 or not len(self.scores) or not np.isfinite(self.scores).all():
            raise InputError(
                f"scores must be a finite 1-D array of at least one row, got shape {self.scores.shape}"
                + (" with NaN or infinity." if self.scores.size else ".")
            )
        for name in ("partition", "truth_wrong"):
            value = getattr(self, name)
            if value is not None and value.shape != self.scores.shape:
                raise InputError(
                    f"{name} must have one entry per score ({len(self.scores)}), got shape {value.shape}."
                )

    @classmethod
    def from_verdict(
        cls, verdict: Verdict, *, truth: ArrayLike | None = None, ax: Axes | None = None, **options: Any
    ) -> ScoreHistogramDisplay:
        """Draw the scores of a verdict.

        Parameters
        ----------
        verdict : Verdict
            The judgement.
        truth : array-like of shape (n,), optional
            The true labels, where they are known.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            Passed on to `plot`.
        """
        wrong = None
        if truth is not None:
            truth = np.asarray(truth)
            if truth.shape != verdict.labels.shape:
                raise InputError(
                    f"truth must have one label for each of the {len(verdict)} rows, got shape {truth.shape}."
                )
            wrong = verdict.labels != truth
        display = cls(verdict.scores, verdict.partition, verdict.threshold, wrong)
        return display.plot(ax=ax, **options)

    def plot(
        self,
        *,
        ax: Axes | None = None,
        n_bins: int | None = None,
        log: bool | None = None,
        colors: Sequence[Any] = COLORS,
    ) -> ScoreHistogramDisplay:
        """Draw the histogram.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        n_bins : int, optional
            About so many bars; by default twice the cube root of n, between 10 and 60.
        log : bool, optional
            Whether the number of rows has a logarithmic axis; by default if the tallest bar of one judgement
            would be lower than 2 % of the tallest of all.
        colors : sequence of 3 matplotlib colors
            Of the rows judged clean, wrong and out of distribution.

        Returns
        -------
        ScoreHistogramDisplay
            The display itself.
        """
        if n_bins is not None and n_bins < 1:
            raise ParameterError(f"n_bins must be at least 1, got {n_bins!r}.")
        ax = _axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        edges, note = _edges(self.scores, self.threshold, n_bins)
        shown_scores = np.clip(self.scores, edges[0], edges[-1])
        heights = {
            part: np.histogram(shown_scores[self.partition == part], edges)[0]
            for part in (CLEAN, ID_NOISE, OOD_NOISE)
            if (self.partition == part).any()
        }
        peaks = [counts.max() for counts in heights.values()]
        log = min(peaks) < _INVISIBLE * max(peaks) if log is None else log
        # The rare ones stand on the axis: there they can be read, even where it is logarithmic.
        ends = np.cumsum([heights[part] for part in sorted(heights, reverse=True)], axis=0)[::-1]
        self.bars_ = {
            PARTITION_NAMES[part]: ax.stairs(
                end, edges, baseline=end - counts, fill=True, color=colors[part], alpha=0.85,
                label=f"{_JUDGED[part]}: {counts.sum():,}",
            )
            for (part, counts), end in zip(heights.items(), ends, strict=True)
        }  # fmt: skip
        self._mark(edges, shown_scores)
        self._dress(note, log)
        return self

    def _mark(self, edges: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        """Draw the truth and the threshold."""
        from matplotlib import rcParams

        ink = rcParams["text.color"]
        self.truth_ = self.threshold_ = None
        if self.truth_wrong is not None:
            wrong = np.histogram(scores[self.truth_wrong], edges)[0]
            self.truth_ = self.ax_.stairs(
                wrong, edges, color=ink, linewidth=1.2, label=f"really wrong: {wrong.sum():,}"
            )
        if self.threshold is not None and edges[0] <= self.threshold <= edges[-1]:
            self.threshold_ = self.ax_.axvline(
                self.threshold, color=ink, linewidth=1, linestyle=(0, (4, 3)),
                label=f"threshold: {self.threshold:.3g}",
            )  # fmt: skip

    def _dress(self, note: str, log: bool) -> None:
        """Label the axes and take away what says nothing."""
        from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

        ax = self.ax_
        if log:
            ax.set_yscale("log")
            ax.set_ylim(bottom=0.5)  # a single row is a bar too
            ax.yaxis.set_major_locator(LogLocator(10, numticks=7))
            ax.yaxis.set_minor_locator(NullLocator())
        else:
            ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_ylabel("rows, logarithmic" if log else "rows")
        ax.set_xlabel("score, higher is cleaner" + note)
        ax.spines[["top", "left", "right"]].set_visible(False)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", linewidth=0.6)
        ax.set_axisbelow(True)
        ax.margins(x=0.01)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)


class TransitionMatrixDisplay:
    """Transition matrix, P(given label j | true label i); the color shows the confusions, not the diagonal.

    Parameters
    ----------
    matrix : array-like of shape (K, K)
        Probabilities in [0, 1]; row i belongs to the true class i. NaN is left empty.
    classes : array-like of shape (K,)
        The names. They are shown with control characters spelled out, and cut to 20 characters.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        The figure of ``ax_``.
    im_ : matplotlib QuadMesh
        The cells; the diagonal is masked.
    text_ : (k, k) array of matplotlib Text, or None
        The values, where they are written.
    shown_ : (k,) int array
        The numbers of the classes that are shown, in their order.

    Raises
    ------
    InputError
        A matrix that does not have one row and one column for each class.
    """

    def __init__(self, matrix: ArrayLike, classes: ArrayLike) -> None:
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.classes = np.asarray(classes)
        n_classes = len(self.classes)
        if self.matrix.shape != (n_classes, n_classes) or not n_classes:
            raise InputError(
                f"matrix must have one row and one column for each of the {n_classes} classes, "
                f"got shape {self.matrix.shape}."
            )

    @classmethod
    def from_verdict(
        cls, verdict: Verdict, *, ax: Axes | None = None, **options: Any
    ) -> TransitionMatrixDisplay:
        """Draw the transition matrix of a verdict.

        Parameters
        ----------
        verdict : Verdict
            The judgement.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        **options
            Passed on to `plot`.

        Raises
        ------
        InputError
            If the verdict has no transition matrix.
        """
        if verdict.transition_matrix is None:
            raise InputError(
                "verdict.transition_matrix must be a matrix, got None. This method estimates none: "
                "draw the scores alone, by ScoreHistogramDisplay."
            )
        return cls(verdict.transition_matrix, verdict.classes).plot(ax=ax, **options)

    def plot(
        self,
        *,
        ax: Axes | None = None,
        max_classes: int = 25,
        include_values: bool | None = None,
        color: Any = COLORS[ID_NOISE],
    ) -> TransitionMatrixDisplay:
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        max_classes : int, default=25
            Of more classes only those with the most confusion are shown, and the title says so.
        include_values : bool, optional
            Whether the values are written; by default up to 12 classes. Without them there is a color bar.
        color : matplotlib color
            Of the confusions.

        Returns
        -------
        TransitionMatrixDisplay
            The display itself.
        """
        if max_classes < 1:
            raise ParameterError(f"max_classes must be at least 1, got {max_classes!r}.")
        ax = _axes(ax)
        self.ax_, self.figure_ = ax, ax.figure
        self.shown_ = _most_confused(self.matrix, max_classes)
        matrix = self.matrix[np.ix_(self.shown_, self.shown_)]
        confusions = np.ma.masked_invalid(np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix))
        strongest = max(_FULL_COLOR, float(confusions.max())) if confusions.count() else _FULL_COLOR
        borders = np.arange(len(matrix) + 1) - 0.5
        self.im_ = ax.pcolormesh(
            borders, borders, confusions, cmap=_fading(color), vmin=0, vmax=strongest, linewidth=0
        )
        include_values = len(matrix) <= _VALUES_UP_TO if include_values is None else include_values
        self.text_ = self._written(matrix) if include_values else None
        if not include_values:
            from matplotlib.ticker import PercentFormatter

            bar = ax.figure.colorbar(self.im_, ax=ax, shrink=0.4, aspect=20, format=PercentFormatter(1, 0))
            bar.outline.set_visible(False)
        self._dress()
        return self

    def _written(self, matrix: NDArray[np.float64]) -> NDArray[Any]:
        """Write the values: the confusions in full, the diagonal quietly."""
        texts = np.empty(matrix.shape, dtype=object)
        for (i, j), value in np.ndenumerate(matrix):
            texts[i, j] = self.ax_.text(
                j, i, _percent(value), ha="center", va="center", fontsize="small", alpha=0.8 if i == j else 1
            )
        return texts

    def _dress(self) -> None:
        """Name the classes and take away what says nothing."""
        ax, n_classes = self.ax_, len(self.shown_)
        names = [shown(name) for name in self.classes[self.shown_]]
        plain: dict[str, Any] = {"parse_math": False, "usetex": False}  # a $ in a name is a dollar
        turned: dict[str, Any] = {}
        many = n_classes > _VALUES_UP_TO
        if many or n_classes * max(map(len, names)) > 40:  # characters that fit side by side
            turned = {"rotation": 90 if many else 45, "ha": "right", "rotation_mode": "anchor"}
            turned["va"] = "center" if many else "top"
        size = "small" if many else "medium"
        ax.set_xticks(np.arange(n_classes), names, fontsize=size, **plain, **turned)
        ax.set_yticks(np.arange(n_classes), names, fontsize=size, **plain)
        ax.tick_params(length=0)
        ax.spines[:].set_linewidth(0.6)
        ax.set_xlim(-0.5, n_classes - 0.5)
        ax.set_ylim(n_classes - 0.5, -0.5)
        ax.set_aspect("equal")
        ax.set_xlabel("given label")
        ax.set_ylabel("true label")
        title = "what each true label was given as, estimated"
        if n_classes < len(self.classes):
            title += f"\nthe {n_classes} of {len(self.classes)} classes with the most confusion"
        ax.set_title(title, fontsize="medium")


class VerdictDisplays(NamedTuple):
    """What `Verdict.plot` draws; ``transition`` is None where the verdict has no transition matrix."""

    histogram: ScoreHistogramDisplay
    transition: TransitionMatrixDisplay | None


def plot_verdict(verdict: Verdict, axes: Sequence[Axes] | None = None) -> VerdictDisplays:
    """Draw both displays side by side, or the histogram alone; see `Verdict.plot`."""
    wanted = 1 if verdict.transition_matrix is None else 2
    if axes is None:
        pyplot = _matplotlib("pyplot")
        _, made = pyplot.subplots(1, wanted, figsize=(5.5 * wanted, 4.5), layout="constrained")
        axes = np.ravel(made).tolist()
    axes = np.ravel(np.asarray(axes, dtype=object)).tolist()
    if len(axes) < wanted:
        raise ParameterError(f"axes must be {wanted} matplotlib Axes, got {len(axes)}.")
    return VerdictDisplays(
        ScoreHistogramDisplay.from_verdict(verdict, ax=axes[0]),
        TransitionMatrixDisplay.from_verdict(verdict, ax=axes[1]) if wanted == 2 else None,
    )


def verdict_html(verdict: Verdict) -> str:
    """Return a verdict as a small table for notebooks; see `Verdict._repr_html_`.

    It has the sentence of its repr, the classes with the largest share of labels judged wrong, and the most
    suspicious rows. The notebook's own style applies, light or dark.
    """
    labels = verdict.labels.astype(str) if verdict.labels.dtype.kind == "M" else verdict.labels
    rows = Counter(labels.tolist())
    flagged = Counter(labels[~verdict.clean_mask].tolist())
    classes = sorted(rows, key=lambda label: flagged[label] / rows[label], reverse=True)
    first = classes[:_SHOWN_CLASSES]
    per_class = [
        (label, f"{rows[label]:,}", f"{flagged[label]:,}", f"{flagged[label] / rows[label]:.1%}")
        for label in first
    ]
    suspects = [
        (
            row,
            verdict.labels[row],
            "no class" if verdict.ood_mask[row] else verdict.alternatives[row],
            f"{verdict.scores[row]:.4g}",
        )
        for row in _most_suspicious(verdict, _SHOWN_ROWS)
    ]
    some = (
        f" (the {len(first)} of {len(classes)} with the largest share)" if len(first) < len(classes) else ""
    )
    parts = [f"<p>{escape(repr(verdict))}</p>"]
    parts.append(_table(f"Classes{some}", ("given label", "rows", "judged wrong", "share"), per_class))
    if suspects:
        parts.append(_table("Most suspicious rows", ("row", "given", "suggested", "score"), suspects))
    return f"<div>{''.join(parts)}</div>"


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [[f"<th>{escape(name)}</th>" for name in head]]
    lines += [[f"<td><bdi>{escape(shown(value))}</bdi></td>" for value in row] for row in rows]
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


def _most_suspicious(verdict: Verdict, count: int) -> NDArray[np.intp]:
    """Return the flagged rows with the lowest scores, lowest first, ties in row order."""
    flagged = np.flatnonzero(~verdict.clean_mask)
    scores = verdict.scores[flagged]
    if len(flagged) > count:  # millions of rows need no full sort
        low = scores <= np.partition(scores, count - 1)[count - 1]
        flagged, scores = flagged[low], scores[low]
    return flagged[np.argsort(scores, kind="stable")][:count]


def shown(value: Any) -> str:
    r"""Return a name as people can read it: what does not print is spelled out, and what is long is cut.

    >>> shown("a\nb")
    'a\\nb'
    >>> shown("a rather long name of a class")
    'a rather long name …'
    """
    text = str(value)[: 2 * _NAME_LENGTH]
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )
    return text if len(text) <= _NAME_LENGTH else text[: _NAME_LENGTH - 1] + "…"


def _edges(
    scores: NDArray[np.float64], threshold: float | None, n_bins: int | None
) -> tuple[NDArray[np.float64], str]:
    """Return the borders of the bars, one of them on the threshold, and what to say about rows beyond."""
    bound = np.finfo(np.float64).max / 16  # differences of what lies within are finite
    low, high = np.clip([scores.min(), scores.max()], -bound, bound)
    # A single outlier among few rows is a tail too, hence the next score inside instead of a value between.
    first = np.quantile(scores, _TAIL, method="higher")
    last = np.quantile(scores, 1 - _TAIL, method="lower")
    first, last = np.clip([first, last], -bound, bound)
    if last > first and high - low > _LONG * (last - first):
        low, high = first, last
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-90):  # all the same
        margin = max(0.5, 0.05 * abs(low))
        low, high = low - margin, high + margin
    anchor, notes = low, []
    if threshold is not None:
        margin = (high - low) / 20
        if low - (high - low) <= threshold <= high + (high - low):
            low, high = min(low, threshold - margin), max(high, threshold + margin)
            anchor = threshold
        else:
            notes.append(f"the threshold {threshold:.3g} lies outside")
    n_bins = int(np.clip(2 * np.cbrt(len(scores)), 10, 60)) if n_bins is None else n_bins
    width = (high - low) / n_bins
    steps = np.arange(np.floor((low - anchor) / width), np.ceil((high - anchor) / width) + 1)
    edges = anchor + width * steps
    beyond = int(((scores < edges[0]) | (scores > edges[-1])).sum())
    if beyond:
        notes.append(f"rows beyond the axis, counted in the outermost bars: {beyond:,}")
    return edges, "".join(f"\n({note})" for note in notes)


def _most_confused(matrix: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return the classes with the largest mass off the diagonal, in row and column, in their order."""
    mass = np.nan_to_num(matrix) * ~np.eye(len(matrix), dtype=bool)
    best = np.argsort(-(mass.sum(axis=0) + mass.sum(axis=1)), kind="stable")[:count]
    return np.sort(best)


def _fading(color: Any) -> Colormap:
    """Return one color from transparent to nearly full, for light and dark; a masked cell is a gray veil."""
    from matplotlib import rcParams
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    rgb = to_rgb(color)
    # 32 levels: a color bar of more than 50 would become an embedded picture in SVG.
    colormap = LinearSegmentedColormap.from_list("confusion", [(*rgb, 0.0), (*rgb, 0.85)], N=32)
    return colormap.with_extremes(bad=(*to_rgb(rcParams["text.color"]), 0.07))


def _percent(value: float) -> str:
    """Return a probability in at most four characters, nothing for nothing.

    >>> [_percent(value) for value in (0.123, 0.0123, 0.0004, 1.0)]
    ['12%', '1.2%', '', '100%']
    """
    if not value >= 0.0005:
        return ""
    return f"{value:.0%}" if value >= 0.0995 else f"{value:.1%}"


def _axes(ax: Axes | None) -> Axes:
    return _matplotlib("pyplot").subplots()[1] if ax is None else ax


def _matplotlib(module: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"matplotlib.{module}")
    except ImportError as error:
        raise ImportError(
            'matplotlib must be installed to draw a verdict, got none: pip install "noisefilter[audit]".'
        ) from error
