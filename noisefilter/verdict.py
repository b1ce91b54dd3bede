"""Signals, what training told us about each row, and Verdict, the judgement every filter gives.

Both are frozen and hold plain numpy arrays in the row order of ``X``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noisefilter.errors import InputError, InputTypeError, MissingSignalError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from noisefilter.displays import VerdictDisplays

CLEAN, ID_NOISE, OOD_NOISE = 0, 1, 2
PARTITION_NAMES = ("clean", "wrong label", "out of distribution")

# Axes of each field of Signals: E epochs, n rows, K classes, m probes; d and L are a field's own.
_AXES = {
    "losses": "En", "margins": "En", "predictions": "En", "learning_rates": "E",
    "probs": "nK", "mean_probs": "nK", "path_probs": "nK", "teacher_probs": "nK", "view_probs": "2nK",
    "features": "nd", "feature_norms": "n", "neighbors": "nL",
    "probe_probs": "mK", "probe_codes": "m", "probe_rows": "m",
}  # fmt: skip
_AXIS_NAMES = {"E": "epochs", "n": "rows", "K": "classes", "m": "probes"}
_NUMBERED = {"predictions": "K", "probe_codes": "K", "neighbors": "n", "probe_rows": "n"}
# Fields of Verdict that are arrays, and their dtypes.
_ARRAYS = {
    "labels": None, "classes": None, "scores": np.float64, "partition": np.int8, "alternatives": None,
    "clean_proba": np.float64, "transition_matrix": np.float64,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Signals:
    """What training told us about each row; a field nobody asked for is ``None``.

    Columns of probabilities stand in the order of the sorted classes of ``y``, and class numbers
    (``predictions``, ``probe_codes``) count in that order too.

    Parameters
    ----------
    losses : (E, n) array, optional
        Loss of every row against its given label, per epoch.
    margins : (E, n) array, optional
        Logit of the given label minus the largest other logit, per epoch.
    predictions : (E, n) int array, optional
        Predicted class per epoch.
    learning_rates : (E,) array, optional
        Learning rate of each epoch.
    probs : (n, K) array, optional
        Probabilities of the trained network in evaluation mode.
    mean_probs : (n, K) array, optional
        Probabilities averaged over the second half of the epochs.
    path_probs : (n, K) array, optional
        Mean probabilities along the paths to the nearest neighbors (INN).
    teacher_probs : (n, K) array, optional
        Probabilities of the mean teacher.
    view_probs : (2, n, K) array, optional
        Probabilities of two augmented views.
    features : (n, d) array, optional
        Input of the last linear layer, or an embedding from anywhere.
    feature_norms : (n,) array, optional
        Euclidean norms of the network's own features, even where ``features`` are others; only the search for
        strangers reads them.
    neighbors : (n, L) int array, optional
        Row numbers of the nearest rows, the row itself excluded.
    probe_probs : (m, K) array, optional
        Probabilities of the planted probes, of the kind the filter scores; not read beside ``probe_rows``.
    probe_codes : (m,) int array, optional
        The wrong class each probe was trained under.
    probe_rows : (m,) int array, optional
        The rows that were trained under ``probe_codes`` instead of their given labels. Without it the probes
        are rows of their own, and ``probe_probs`` speaks of them.
    peer : Signals, optional
        What a second network saw of the same rows, trained under the same labels, for filters that look
        through two.
    """

    losses: NDArray[Any] | None = None
    margins: NDArray[Any] | None = None
    predictions: NDArray[Any] | None = None
    learning_rates: NDArray[Any] | None = None
    probs: NDArray[Any] | None = None
    mean_probs: NDArray[Any] | None = None
    path_probs: NDArray[Any] | None = None
    teacher_probs: NDArray[Any] | None = None
    view_probs: NDArray[Any] | None = None
    features: NDArray[Any] | None = None
    feature_norms: NDArray[Any] | None = None
    neighbors: NDArray[Any] | None = None
    probe_probs: NDArray[Any] | None = None
    probe_codes: NDArray[Any] | None = None
    probe_rows: NDArray[Any] | None = None
    peer: Signals | None = None

    def __post_init__(self) -> None:
        """Turn what came into arrays and check that they speak of the same rows, epochs and classes."""
        if not isinstance(self.peer, Signals | None):
            raise InputTypeError(f"peer must be Signals or None, got {type(self.peer).__name__}.")
        sizes: dict[str, dict[str, int]] = {axis: {} for axis in _AXIS_NAMES}
        for name, axes in _AXES.items():
            if not self.has(name):
                continue
            value = np.asarray(getattr(self, name))
            object.__setattr__(self, name, value)
            if value.ndim != len(axes) or (axes[0] == "2" and len(value) != 2):
                raise InputError(
                    f"signals.{name} must have the axes ({', '.join(axes)}), got shape {value.shape}."
                )
            for axis in sizes.keys() & set(axes):
                sizes[axis][name] = value.shape[axes.index(axis)]
        for axis, what in _AXIS_NAMES.items():
            if len(set(sizes[axis].values())) > 1:
                raise InputError(f"The signals must all have the same number of {what}, got {sizes[axis]}.")

    def has(self, *names: str) -> bool:
        """Whether every named field was recorded."""
        return all(getattr(self, name) is not None for name in names)

    def require(self, *names: str) -> tuple[NDArray[Any], ...]:
        """Return the named fields.

        Raises
        ------
        MissingSignalError
            If one was not recorded; the message names it and how to record it.
        """
        for name in names:
            if not self.has(name):
                raise MissingSignalError(
                    f"signals.{name} must be recorded for this filter, got None. Let the filter train by "
                    f"fit(X, y), or pass {name}= to Signals."
                )
        return tuple(getattr(self, name) for name in names)

    def check(self, n_samples: int, n_classes: int, name: str = "signals") -> None:
        """Raise InputError unless the fields fit ``n_samples`` rows and ``n_classes`` classes, finite.

        ``name`` is what the message calls these signals.
        """
        if self.peer is not None:
            self.peer.check(n_samples, n_classes, f"{name}.peer")
        sizes = {"n": n_samples, "K": n_classes}
        for field, axes in _AXES.items():
            if not self.has(field):
                continue
            value = getattr(self, field)
            for axis, wanted in (("n", f"entry for each of the {n_samples} labels"),
                                 ("K", f"column for each of the {n_classes} classes in y")):  # fmt: skip
                if axis in axes and value.shape[axes.index(axis)] != sizes[axis]:
                    got = value.shape[axes.index(axis)]
                    raise InputError(f"{name}.{field} must have one {wanted}, got {got}.")
            if not np.isfinite(value).all():
                raise InputError(f"{name}.{field} must be finite, got NaN or infinity.")
            if field in _NUMBERED:
                _check_numbers(f"{name}.{field}", value, sizes[_NUMBERED[field]])

    def with_class_order(self, order: NDArray[np.intp]) -> Signals:
        """Return the same signals with class ``order[k]`` as number ``k``."""
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        given = {name: getattr(self, name) for name in _AXES if self.has(name)}
        changed = {
            name: np.take(value, order, axis=-1)  # unlike value[..., order], row by row in memory
            for name, value in given.items()
            if _AXES[name].endswith("K")
        }
        changed |= {name: rank[value] for name, value in given.items() if _NUMBERED.get(name) == "K"}
        peer = None if self.peer is None else self.peer.with_class_order(order)
        return replace(self, **changed, peer=peer)


def _check_numbers(name: str, numbers: NDArray[Any], end: int) -> None:
    if numbers.dtype.kind not in "iu" or (numbers.size and not 0 <= numbers.min() <= numbers.max() < end):
        raise InputError(f"{name} must hold whole numbers from 0 to {end - 1}, got others.")


class Judged(NamedTuple):
    """What a training makes of the labels it was given; n rows, K classes in the order of their numbers.

    Attributes
    ----------
    scores : (n,) array
        Finite; higher = cleaner.
    clean : (n,) bool array
        Rows whose label is believed.
    probs : (n, K) array
        Probabilities that suggested labels are read from.
    noise_rate : float
        Estimated share of wrong labels.
    clean_proba : (n,) array, optional
        Estimated probability that the label is right.
    transition : (K, K) array, optional
        P(given j | true i); by default it is estimated from ``probs``.
    threshold : float, optional
        Rows with a score of at least this are clean, where one threshold decides.
    strangers : (n,) bool array, optional
        Rows of no class, where they are looked for; read of the rows that are not clean.
    """

    scores: NDArray[np.float64]
    clean: NDArray[np.bool_]
    probs: NDArray[Any]
    noise_rate: float
    clean_proba: NDArray[np.float64] | None = None
    transition: NDArray[np.float64] | None = None
    threshold: float | None = None
    strangers: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """The judgement of every row, the same for every filter and trainer.

    Parameters
    ----------
    labels : (n,) array
        The labels as they were given.
    classes : (K,) array
        Sorted classes.
    scores : (n,) float array
        Finite; higher means more likely clean, in every method.
    partition : (n,) int8 array
        ``CLEAN`` (0), ``ID_NOISE`` (1: the row belongs to another class) or ``OOD_NOISE`` (2: to no class).
    alternatives : (n,) array
        The best label other than the given one, for every row, in the dtype of ``labels``.
    threshold : float, optional
        Rows with a score of at least this are clean, where the method decides by one threshold.
    clean_proba : (n,) array, optional
        Estimated probability that the label is right.
    open_set : bool, default=False
        Whether rows of no class were looked for. If not, every rejected row is ``ID_NOISE``.
    estimated_noise_rate : float, default=nan
        Estimated share of wrong labels; need not equal :attr:`noise_rate`, the share judged not clean.
    noise_rate_interval : (float, float), optional
        Range in which that share lies; see :func:`noisefilter.estimates.noise_rate_interval`.
    transition_matrix : (K, K) array, optional
        Estimate of P(given label j | true label i).
    method : str, default=""
        Which method judged.
    """

    labels: NDArray[Any]
    classes: NDArray[Any]
    scores: NDArray[np.float64]
    partition: NDArray[np.int8]
    alternatives: NDArray[Any]
    threshold: float | None = None
    clean_proba: NDArray[np.float64] | None = None
    open_set: bool = False
    estimated_noise_rate: float = float("nan")
    noise_rate_interval: tuple[float, float] | None = None
    transition_matrix: NDArray[np.float64] | None = None
    method: str = ""

    def __post_init__(self) -> None:
        """Check the arrays, and keep copies: people mend ``y`` in place with a verdict at hand."""
        if not np.isin(self.partition, (CLEAN, ID_NOISE, OOD_NOISE)).all():
            raise InputError(
                "partition must hold 0 (clean), 1 (wrong label) or 2 (out of distribution) only."
            )
        for name, dtype in _ARRAYS.items():
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _frozen(np.array(getattr(self, name), dtype=dtype)))
        if self.scores.ndim != 1 or not np.isfinite(self.scores).all():
            raise InputError("scores must be a finite 1-D array, got NaN, infinity or another shape.")
        for name in ("labels", "partition", "alternatives", "clean_proba"):
            value = getattr(self, name)
            if value is not None and value.shape != self.scores.shape:
                raise InputError(
                    f"{name} must have one entry per score ({len(self)}), got shape {value.shape}."
                )

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():  # a pickle forgets that an array was read-only
            object.__setattr__(self, name, _frozen(value) if isinstance(value, np.ndarray) else value)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.scores)

    def __repr__(self) -> str:
        """Summarize in one line."""
        flagged = int((~self.clean_mask).sum())
        text = f"Verdict: {flagged} of {len(self)} labels judged wrong ({self.noise_rate:.1%})"
        if np.isfinite(self.estimated_noise_rate):
            text += f", estimated noise rate {self.estimated_noise_rate:.1%}"
        return text + (f", by {self.method}" if self.method else "")

    @property
    def clean_mask(self) -> NDArray[np.bool_]:
        """(n,) rows judged clean."""
        return np.asarray(self.partition == CLEAN)

    @property
    def id_mask(self) -> NDArray[np.bool_]:
        """(n,) rows that belong to another class than their label says."""
        return np.asarray(self.partition == ID_NOISE)

    @property
    def ood_mask(self) -> NDArray[np.bool_]:
        """(n,) rows that belong to none of the classes."""
        return np.asarray(self.partition == OOD_NOISE)

    @property
    def noise_rate(self) -> float:
        """Share of rows judged not clean."""
        return float(np.mean(self.partition != CLEAN))

    @property
    def suggested_labels(self) -> NDArray[Any]:
        """(n,) the given label on clean and OOD rows, the best other label on ID rows."""
        suggested = np.where(self.id_mask, self.alternatives, self.labels)
        if self.labels.dtype.kind in "US":  # the longest string may not be among the given labels
            return suggested
        return suggested.astype(self.labels.dtype, copy=False)

    def with_threshold(self, threshold: float) -> Verdict:
        """Decide again: rows that score at least ``threshold`` are clean. Nothing is trained again.

        Rows that were out of distribution stay so if they are rejected again.
        """
        if not np.isfinite(threshold):
            raise ParameterError(f"threshold must be a finite number, got {threshold!r}.")
        return self._redecided(self.scores >= threshold, float(threshold))

    def keep(self, fraction: float) -> Verdict:
        """Decide again: the ``round(fraction * n)`` best scores are clean, ties in row order.

        Parameters
        ----------
        fraction : float
            In [0, 1].
        """
        if not 0 <= fraction <= 1:
            raise ParameterError(f"fraction must be in [0, 1], got {fraction!r}.")
        best = np.argsort(-self.scores, kind="stable")[: round(fraction * len(self))]
        clean = np.zeros(len(self), dtype=bool)
        clean[best] = True
        return self._redecided(clean, None)

    def _redecided(self, clean: NDArray[np.bool_], threshold: float | None) -> Verdict:
        rejected = np.where(self.ood_mask, OOD_NOISE, ID_NOISE)
        partition = np.where(clean, CLEAN, rejected).astype(np.int8)
        return replace(self, partition=partition, threshold=threshold)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per label: label, score, clean_proba (where there is one), verdict, suggested_label.

        Needs pandas.
        """
        import pandas as pd

        columns: dict[str, ArrayLike] = {"label": self.labels, "score": self.scores}
        if self.clean_proba is not None:
            columns["clean_proba"] = self.clean_proba
        columns["verdict"] = pd.Categorical.from_codes(self.partition, categories=list(PARTITION_NAMES))
        columns["suggested_label"] = self.suggested_labels
        return pd.DataFrame(columns)

    def plot(self, *, axes: Sequence[Axes] | None = None) -> VerdictDisplays:
        """Draw the histogram of the scores and the transition matrix, side by side.

        Needs matplotlib.

        Parameters
        ----------
        axes : sequence of matplotlib Axes, optional
            Two, or one where there is no transition matrix; a new figure by default.

        Returns
        -------
        named tuple
            ``histogram``, a :class:`noisefilter.ScoreHistogramDisplay`, and ``transition``, a
            :class:`noisefilter.TransitionMatrixDisplay`, or None without a transition matrix.
        """
        from noisefilter.displays import plot_verdict

        return plot_verdict(self, axes)

    def _repr_html_(self) -> str:
        """Summarize in two small tables, for notebooks."""
        from noisefilter.displays import verdict_html

        return verdict_html(self)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array
