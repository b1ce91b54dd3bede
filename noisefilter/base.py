"""BaseFilter: the plumbing that makes every filter a scikit-learn estimator, written once."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from noisefilter import estimates, splits
from noisefilter.balance import replacement_rows
from noisefilter.batches import Rows, choose_device, picked
from noisefilter.errors import InputError, LabelError, ParameterError
from noisefilter.handover import hand_over
from noisefilter.inputs import Labels, as_rows, check_array_like, check_finite, check_labels, is_dataset
from noisefilter.scores import best_other
from noisefilter.splits import Split
from noisefilter.verdict import CLEAN, ID_NOISE, Signals, Verdict


class NoiseEstimate(NamedTuple):
    """Rate, P(given j | true i) of shape (K, K) in the order of the codes, range of the rate."""

    rate: float
    transition: NDArray[np.float64]
    interval: tuple[float, float] | None = None


class BaseFilter(OneToOneFeatureMixin, TransformerMixin, BaseEstimator, ABC, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """What all filters share: the two doors, the verdict, and the part of a Pipeline step.

    A filter writes :meth:`_collect` (train, and return :class:`~noisefilter.Signals`), :meth:`_class_probs`,
    :meth:`_score` and, where it has a decision rule of its own, :meth:`_split`; for rows that arrive later
    :meth:`_collect_new` and :meth:`_network_features`. Everything else happens here. ``fit(X, y)`` is exactly
    *collect, then* :meth:`fit_signals`, so any training loop in the world can feed a filter.

    In a scikit-learn ``Pipeline`` the number of rows must not change, so :meth:`fit_transform`, which
    the Pipeline calls in training, replaces every row judged noisy by a clean row of the same given
    label, and :meth:`transform`, which it calls at predict time, passes rows through. The two differ
    on purpose, as in scikit-learn's ``TargetEncoder``. To drop rows instead, use
    :class:`~noisefilter.FilteredClassifier`.

    Attributes
    ----------
    verdict_ : Verdict
        The judgement.
    scores_ : (n,) array
        Higher is cleaner.
    clean_mask_, id_mask_, ood_mask_ : (n,) bool arrays
        The three parts; they are disjoint and cover all rows.
    classes_ : (K,) array
        Sorted labels.
    signals_ : Signals
        What training told about each row; with ``keep_signals=True`` only.
    n_features_in_ : int
        Columns of ``X``; for 2-D input only.
    feature_names_in_ : (d,) array
        Column names; for DataFrames only.
    """

    # Parameters every filter has; a filter's __init__ sets them.
    output: str
    channels: str | None
    device: str
    verbose: int
    random_state: Any
    keep_signals: bool

    # -- what a filter writes ---------------------------------------------------------------------

    @abstractmethod
    def _collect(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, features: NDArray[Any] | None, rng: Any
    ) -> tuple[Signals, Any]:
        """Train; return signals, and what :meth:`_collect_new` needs. ``rng`` is for this fit alone."""

    @abstractmethod
    def _class_probs(self, signals: Signals) -> NDArray[np.float64]:
        """Return the probabilities (n, K) that suggested labels and estimates are read from."""

    @abstractmethod
    def _score(self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate) -> NDArray[np.float64]:
        """Return the scores (n,), higher = cleaner."""

    def _split(
        self, scores: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> Split:
        """Decide which rows are clean: all but the estimated share of lowest scores."""
        return splits.at_rate(scores, noise.rate)

    def _check_parameters(self) -> None:
        """Raise ParameterError for parameters out of range."""
        if self.output not in ("rows", "features"):
            raise ParameterError(f"output must be 'rows' or 'features', got {self.output!r}.")
        if self.channels not in (None, "first", "last"):
            raise ParameterError(f"channels must be 'first', 'last' or None, got {self.channels!r}.")

    # -- the two doors ----------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, features: Any = None) -> Self:
        """Train on all rows and judge them. A fit that fails leaves everything as it was.

        Parameters
        ----------
        X : (n, d) array or DataFrame; (n, height, width) or 4-D images; Tensor; memory map; map-style Dataset
            Numeric. Images may have their channels on axis 1 or last and any dtype.
        y : (n,) array
            Labels of any kind; at least two classes.
        features : (n, d') array, optional
            An embedding of the rows from anywhere, used wherever neighbors are needed.

        Returns
        -------
        self
        """
        self._check_parameters()
        labels = check_labels(y)
        checked = _check_input(X, len(labels.codes))
        columns = _columns(X, checked)
        rows = self._rows(checked)
        features = self._check_features(features, len(labels.codes))
        rng = check_random_state(self._seed())
        signals, fitted = self._collect(rows, labels.codes, len(labels.classes), features, rng)
        self.fit_signals(signals.with_class_order(np.argsort(labels.order)), labels.given)
        self._fitted = fitted
        self.__dict__.update(columns)
        return self

    def fit_signals(self, signals: Signals, y: Any) -> Self:
        """Judge rows from signals recorded elsewhere; nothing is trained.

        Parameters
        ----------
        signals : Signals
            Columns of probabilities in the order of the sorted classes of ``y``.
        y : (n,) array
            Given labels.

        Returns
        -------
        self

        Raises
        ------
        MissingSignalError
            If a signal this filter needs was not recorded.
        """
        self._check_parameters()
        labels = check_labels(y)
        signals.check(len(labels.codes), len(labels.classes))
        verdict = self._judge(signals.with_class_order(labels.order), labels)
        for name in ("signals_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        self.classes_ = labels.classes
        self.verdict_ = verdict
        if self.keep_signals:
            self.signals_ = signals
        self._fitted = None  # a network fitted to other signals must not judge for these
        return self

    def _judge(self, signals: Signals, labels: Labels) -> Verdict:
        probs, codes = self._class_probs(signals), labels.codes
        noise = self._estimate_noise(probs, signals, codes)
        scores = self._score(signals, codes, noise)
        others = best_other(probs, codes)
        if signals.probe_rows is not None:
            planted = signals.require("probe_rows", "probe_codes")
            scores = splits.mapped_scores(scores, planted[0])
            others = splits.best_unplanted(probs, codes, others, *planted)
        split = self._split(scores, signals, codes, noise)
        rank = np.argsort(labels.order)
        return Verdict(
            labels=labels.given,
            classes=labels.classes,
            scores=scores,
            partition=np.where(split.clean, CLEAN, ID_NOISE),
            alternatives=labels.classes[labels.order[others]],
            threshold=split.threshold,
            clean_proba=split.clean_proba,
            estimated_noise_rate=noise.rate if split.noise_rate is None else split.noise_rate,
            noise_rate_interval=noise.interval if split.noise_rate in (None, noise.rate) else None,
            transition_matrix=noise.transition[np.ix_(rank, rank)],
            method=type(self).__name__,
        )

    def _doubt_ratio(self, signals: Signals) -> tuple[float, float]:
        """Return what :func:`noisefilter.estimates.estimate_noise_rate` must know of :meth:`_class_probs`."""
        return estimates.BLENDED_DOUBT

    def _estimate_noise(
        self, probs: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64]
    ) -> NoiseEstimate:
        """Estimate from the rows that were trained under the labels they were given."""
        unplanted = np.ones(len(codes), dtype=bool)
        probe_probs = signals.probe_probs
        if signals.probe_rows is not None:
            unplanted[signals.probe_rows] = False
            probe_probs = probs[signals.probe_rows]
        probs, codes = probs[unplanted], codes[unplanted]
        ratio = self._doubt_ratio(signals)
        given = (probs, codes, probe_probs, signals.probe_codes)
        rate = estimates.estimate_noise_rate(*given, doubt_ratio=ratio)
        interval = estimates.noise_rate_interval(*given, doubt_ratio=ratio)
        return NoiseEstimate(rate, estimates.estimate_transition(probs, codes, rate), interval)

    # -- the step in a Pipeline -------------------------------------------------------------------

    def fit_transform(self, X: Any, y: Any = None, features: Any = None) -> Any:
        """Fit, and return the rows with every noisy one replaced by a clean row of the same given label.

        The result has the rows of ``X`` in number and order, so ``y`` needs no touching. It carries the
        verdict to the next step; any operation on it drops the verdict. A class without a clean row
        keeps its best-scored rows, with a warning. With ``output="features"`` the features of the
        network stand in for the rows.
        """
        self.fit(X, y, features)
        codes = check_labels(self.verdict_.labels).codes
        rng = np.random.default_rng(self._seed())
        index, lost = replacement_rows(codes, self.clean_mask_, self.scores_, rng)
        if len(lost):
            names = ", ".join(repr(self.verdict_.labels[codes == code].tolist()[0]) for code in lost)
            warnings.warn(
                f"No clean row is left in class {names}; its best-scored rows are kept. Judge the labels of "
                "this class by hand, or use a decision rule that rejects less.",
                UserWarning,
                stacklevel=2,
            )
        data = self._plain(X)
        if self.output == "features":
            data = self._network_features(self._network(), self._new_rows(X))
        return hand_over(self._wrap(data), index, self.verdict_)

    def transform(self, X: Any) -> Any:
        """Return the rows unchanged, or their features with ``output="features"``."""
        check_is_fitted(self, "verdict_")
        if self.output == "features":
            return self._wrap(self._network_features(self._network(), self._new_rows(X)))
        self._check_new(X)
        return self._wrap(self._plain(X))

    def score_new(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Judge rows that arrive later, with the network at hand.

        Parameters
        ----------
        X : array
            New rows, of the kind ``fit`` saw.
        y : (m,) array
            Their labels, all of them known from ``fit``.

        Returns
        -------
        (m,) array
            Scores on the scale of ``scores_``.
        """
        check_is_fitted(self, "verdict_")
        fitted, given = self._network(), np.asarray(y)
        if given.ndim != 1:
            raise LabelError(
                f"y must be a 1-D array with one label per row, got an array of shape {given.shape}."
            )
        rows = self._new_rows(X, len(given))
        known = np.isin(given, self.classes_)
        if not known.all():
            raise LabelError(f"y must hold labels seen in fit, got {given[~known].tolist()[0]!r}.")
        codes = np.searchsorted(self.classes_, given)
        order = check_labels(self.verdict_.labels).order
        signals = self._collect_new(fitted, rows)
        transition = np.asarray(self.verdict_.transition_matrix)[np.ix_(order, order)]
        noise = NoiseEstimate(self.verdict_.estimated_noise_rate, transition)
        return self._score(signals, np.argsort(order)[codes], noise)

    def _network(self) -> Any:
        if self._fitted is None:
            raise ParameterError(
                f"{type(self).__name__} must have been fitted by fit(X, y) for this, got fit_signals."
            )
        return self._fitted

    @abstractmethod
    def _collect_new(self, fitted: Any, rows: Rows) -> Signals:
        """Return the signals of rows that arrive after fit."""

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the column names of what :meth:`transform` gives."""
        check_is_fitted(self, "verdict_")
        if self.output == "features":
            one = picked(self._network().rows, np.zeros(1, dtype=np.int64))
            width = self._network_features(self._fitted, one).shape[1]
            return np.array([f"{type(self).__name__.lower()}{i}" for i in range(width)], dtype=object)
        if not hasattr(self, "n_features_in_"):
            raise InputError(
                "X must have been 2-D in fit for its columns to have names, got rows without columns."
            )
        return np.asarray(super().get_feature_names_out(input_features))

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose the container of 2-D output: ``"default"`` (what came in) or ``"pandas"``.

        Images, memory maps and Datasets are not affected.
        """
        if transform not in (None, "default", "pandas"):
            raise ParameterError(f"transform must be 'default' or 'pandas', got {transform!r}.")
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "verdict_")

    @property
    def scores_(self) -> NDArray[np.float64]:
        """(n,) scores, higher = cleaner."""
        return self._fitted_verdict().scores

    @property
    def clean_mask_(self) -> NDArray[np.bool_]:
        """(n,) rows judged clean."""
        return self._fitted_verdict().clean_mask

    @property
    def id_mask_(self) -> NDArray[np.bool_]:
        """(n,) rows judged to have a wrong label."""
        return self._fitted_verdict().id_mask

    @property
    def ood_mask_(self) -> NDArray[np.bool_]:
        """(n,) rows judged to belong to no class."""
        return self._fitted_verdict().ood_mask

    def _fitted_verdict(self) -> Verdict:
        if not hasattr(self, "verdict_"):
            raise AttributeError(f"{type(self).__name__} has no verdict before fit.")
        return self.verdict_

    def _seed(self) -> int:
        try:
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        except ValueError as error:
            raise ParameterError(
                f"random_state must be an int, a RandomState or None, got {self.random_state!r}."
            ) from error

    # -- validation, once -------------------------------------------------------------------------

    def _feeds_raw(self) -> bool:
        """Whether rows go to the network exactly as they are."""
        return False

    def _rows(self, checked: Any) -> Rows:
        return as_rows(
            checked, device=choose_device(self.device), channels=self.channels, raw=self._feeds_raw()
        )

    def _check_new(self, X: Any, n: int | None = None) -> Any:
        """Validate rows that arrive after fit against the columns that fit saw."""
        checked = _check_input(X, n)
        if _has_columns(checked):
            validate_data(self, X, reset=False, skip_check_array=True)
        return checked

    def _new_rows(self, X: Any, n: int | None = None) -> Rows:
        """Validate rows that arrive after fit for the network."""
        rows, known = self._rows(self._check_new(X, n)), self._network().rows
        if rows.shape != known.shape:
            raise InputError(f"X must hold rows of shape {known.shape} as in fit, got {rows.shape}.")
        return rows

    def _check_features(self, features: Any, n: int) -> NDArray[Any] | None:
        if features is None:
            return None
        array = np.asarray(features.detach().cpu() if hasattr(features, "detach") else features)
        if array.dtype.kind not in "fiub" or array.ndim != 2 or len(array) != n or not array.size:
            raise InputError(
                f"features must be numbers of shape (n, d), n={n}, got {array.dtype} of shape {array.shape}."
            )
        if not np.isfinite(array).all():
            raise InputError("features must be finite, got NaN or infinity.")
        return array

    # -- output -----------------------------------------------------------------------------------

    @abstractmethod
    def _network_features(self, fitted: Any, rows: Rows) -> NDArray[Any]:
        """Return features (n, d) of rows."""

    @staticmethod
    def _plain(X: Any) -> Any:
        return X if hasattr(X, "__array__") or hasattr(X, "iloc") or is_dataset(X) else np.asarray(X)

    def _wrap(self, data: Any) -> Any:
        """Put 2-D arrays into the container asked for by set_output, here or globally."""
        own = getattr(self, "_sklearn_output_config", {}).get("transform")
        wanted = own or get_config()["transform_output"]
        lazy = isinstance(data, np.memmap) or is_dataset(data)
        if wanted != "pandas" or lazy or data.ndim != 2 or hasattr(data, "columns"):
            return data
        import pandas as pd

        return pd.DataFrame(np.asarray(data), columns=self.get_feature_names_out())


def _check_input(X: Any, n: int | None = None) -> Any:
    """Validate ``X``, with n rows where n is given; anything but a memory map or Dataset becomes an array."""
    if hasattr(X, "toarray"):
        check_array(X, input_name="X")  # scikit-learn's own sentence about sparse input
    if isinstance(X, np.memmap):
        _check_on_disk(X)
    elif not is_dataset(X):
        names = np.asarray(X.columns) if hasattr(X, "columns") else None
        X = check_array_like(X)
        check_finite(X, names)
    if n is not None and len(X) != n:
        raise InputError(
            f"X and y must have the same length, got {len(X)} rows and {n} labels. Inconsistent numbers."
        )
    if len(X) == 0:
        shape = getattr(X, "shape", (0,))
        raise InputError(
            f"X must have rows, got 0 sample(s) (shape={shape}) while a minimum of 1 is required."
        )
    return X


def _check_on_disk(X: np.memmap[Any, Any], chunk: int = 1000) -> None:
    """Look for NaN and infinity without reading everything at once."""
    for start in range(0, len(X) if X.dtype.kind == "f" else 0, chunk):
        finite = np.isfinite(X[start : start + chunk])
        if not finite.all():
            row, *column = np.argwhere(~finite)[0]
            where = f"column {column[0]}, " if X.ndim == 2 else ""
            raise InputError(f"X must be finite, got NaN or infinity in {where}row {start + row}.")


def _has_columns(checked: Any) -> bool:
    return getattr(checked, "ndim", 0) == 2


def _columns(X: Any, checked: Any) -> dict[str, Any]:
    """Return ``n_features_in_`` and ``feature_names_in_``, where there are any, as scikit-learn has them."""
    memory = BaseEstimator()
    if _has_columns(checked):
        validate_data(memory, X, skip_check_array=True)
    return vars(memory)


def check_number(name: str, value: Any, kind: type, rule: str, holds: Callable[[Any], Any]) -> None:
    """Raise ParameterError unless the value is a number of this kind that obeys the rule."""
    if not isinstance(value, kind) or not holds(value):
        raise ParameterError(f"{name} must be {rule}, got {value!r}.")
