"""BaseFilter: the plumbing that makes every filter a scikit-learn estimator, written once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from noisefilter import estimates, splits
from noisefilter.batches import Rows, choose_device, picked, within_memory
from noisefilter.errors import ParameterError
from noisefilter.inputs import Labels, as_rows, check_features, check_labels, known_codes
from noisefilter.scores import best_other, ood_score
from noisefilter.splits import Split
from noisefilter.step import BaseStep, check_input, columns_of, same_shape, verdict_of_codes
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Signals, Verdict

_FEWEST_KNOWN = 20  # so many rows are needed to tell where 95 % of them lie


class NoiseEstimate(NamedTuple):
    """Rate, P(given j | true i) of shape (K, K) in the order of the codes, range of the rate."""

    rate: float
    transition: NDArray[np.float64]
    interval: tuple[float, float] | None = None


class BaseFilter(BaseStep, auto_wrap_output_keys=None):  # type: ignore[call-arg]
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
    keep_signals: bool
    open_set: bool

    # -- what a filter writes ---------------------------------------------------------------------

    @abstractmethod
    def _collect(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, features: NDArray[Any] | None, rng: Any
    ) -> tuple[Signals, Any]:
        """Train; return signals, and what :meth:`_collect_new` needs. ``rng`` is for this fit alone."""

    @abstractmethod
    def _class_probs(self, signals: Signals) -> NDArray[Any]:
        """Return the probabilities (n, K) that suggested labels and estimates are read from."""

    @abstractmethod
    def _score(self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate) -> NDArray[np.float64]:
        """Return the scores (n,), higher = cleaner."""

    def _split(
        self, scores: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> Split:
        """Decide which rows are clean: all but the estimated share of lowest scores."""
        return splits.at_rate(scores, noise.rate)

    def _ood(
        self, signals: Signals, codes: NDArray[np.int64], rejected: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Say which rows belong to no class, (n,); also those whose label was believed, to be rejected.

        Planted rows are what the decision is made by: like the rejected rows they were trained under a wrong
        label, and most of them belong to a class, surely those whose given label comes through all the same.
        Without enough of them the clean rows stand in, of which the network is surer: more rows, wrong labels
        among them, are then called strangers, and none beyond the rejected ones.

        A network learns the label of a stranger or is in doubt about it, and hardly contradicts it. So where
        it is for the filter to say how many rows are rejected, the strangest of all rows are rejected, too,
        as many as there are too many (:func:`noisefilter.splits.stranger_share`).
        """
        probs, known = self._class_probs(signals), ~rejected
        undecided = ood_score(probs, signals.feature_norms)
        if signals.probe_rows is None:
            return rejected & splits.strangers(undecided, undecided[known])
        planted, wrong = signals.require("probe_rows", "probe_codes")
        known[planted] = False
        seen_through = planted[best_other(probs[planted], wrong) == codes[planted]]
        mapped = splits.mapped_scores(undecided, planted)
        if len(seen_through) < _FEWEST_KNOWN:
            return rejected & splits.strangers(mapped, undecided[known])
        reference = undecided[seen_through]
        strange = splits.strangers(mapped, reference)
        if not self._counts_strangers():
            return rejected & strange
        share = splits.stranger_share(np.delete(undecided, planted), reference)
        return strange & (rejected | (mapped > np.quantile(mapped, 1.0 - share)))

    def _counts_strangers(self) -> bool:
        """Whether strangers are rejected for being strange alone."""
        return True

    def _check_parameters(self) -> None:
        """Raise ParameterError for parameters out of range."""
        if self.output not in ("rows", "features"):
            raise ParameterError(f"output must be 'rows' or 'features', got {self.output!r}.")
        if self.channels not in (None, "first", "last"):
            raise ParameterError(f"channels must be 'first', 'last' or None, got {self.channels!r}.")
        if not isinstance(self.open_set, bool | np.bool_):
            raise ParameterError(f"open_set must be True or False, got {self.open_set!r}.")

    # -- the two doors ----------------------------------------------------------------------------

    @within_memory
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
        checked = check_input(X, len(labels.codes))
        columns = columns_of(X, checked)
        rows = self._rows(checked)
        features = check_features(features, len(labels.codes))
        rng = check_random_state(self._seed())
        signals, fitted = self._collect(rows, labels.codes, len(labels.classes), features, rng)
        signals.check(len(labels.codes), len(labels.classes))
        verdict = self._judge(signals, labels)
        kept = signals.with_class_order(np.argsort(labels.order)) if self.keep_signals else None
        self._take(verdict, kept, fitted)
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
        # A network fitted to other signals must not judge for these.
        self._take(verdict, signals if self.keep_signals else None, fitted=None)
        return self

    def _take(self, verdict: Verdict, signals: Signals | None, fitted: Any) -> None:
        """Let a fit that has come through be seen."""
        for name in ("signals_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        self.classes_ = verdict.classes
        self.verdict_ = verdict
        if signals is not None:
            self.signals_ = signals
        self._fitted = fitted

    def _training_key(self, seed: int) -> Any:
        """Return what the signals of a fit depend on beside the data, or None if two fits are never alike.

        Of two filters with equal keys, one can judge from the signals of the other. ``seed`` stands for a
        ``random_state`` of None.
        """
        return None

    def _fit_like(self, twin: Self, y: Any) -> Self:
        """Fit by the training of another filter with the same :meth:`_training_key`, on the same rows."""
        self.fit_signals(twin.signals_, y)
        self._fitted = twin._fitted
        names = ("n_features_in_", "feature_names_in_")
        self.__dict__.update({name: vars(twin)[name] for name in names if name in vars(twin)})
        return self

    def _judge(self, signals: Signals, labels: Labels) -> Verdict:
        probs, codes = self._class_probs(signals), labels.codes
        noise = self._estimate_noise(probs, signals, codes)
        others, rows = best_other(probs, codes), signals.probe_rows
        if rows is not None:
            others = splits.best_unplanted(
                probs, codes, others, *signals.require("probe_rows", "probe_codes")
            )
        del probs  # a score makes (n, K) arrays of its own
        scores = self._score(signals, codes, noise)
        if rows is not None:
            scores = splits.mapped_scores(scores, rows)
        split = self._split(scores, signals, codes, noise)
        strange = np.zeros(len(codes), dtype=bool)
        if self.open_set:
            strange = self._ood(signals, codes, ~split.clean)
        scores, split, noise = _with_strangers(scores, split, noise, strange)
        return verdict_of_codes(
            labels,
            others,
            noise.transition,
            scores=scores,
            partition=np.where(split.clean, CLEAN, np.where(strange, OOD_NOISE, ID_NOISE)).astype(np.int8),
            threshold=split.threshold,
            clean_proba=split.clean_proba,
            estimated_noise_rate=noise.rate if split.noise_rate is None else split.noise_rate,
            noise_rate_interval=noise.interval if split.noise_rate in (None, noise.rate) else None,
            open_set=self.open_set,
            method=type(self).__name__,
        )

    def _doubt_ratio(self, signals: Signals) -> tuple[float, float]:
        """Return what :func:`noisefilter.estimates.estimate_noise_rate` must know of :meth:`_class_probs`."""
        return estimates.BLENDED_DOUBT

    def _estimate_noise(
        self, probs: NDArray[Any], signals: Signals, codes: NDArray[np.int64]
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
        transition = estimates.estimate_transition(probs, codes, rate, probe_probs, signals.probe_codes)
        return NoiseEstimate(rate, transition, interval)

    # -- rows that arrive later -------------------------------------------------------------------

    @within_memory
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
        fitted, labels = self._network(), check_labels(self.verdict_.labels)
        codes = known_codes(y, labels)
        rows = self._new_rows(X, len(codes))
        signals = self._collect_new(fitted, rows)
        transition = np.asarray(self.verdict_.transition_matrix)[np.ix_(labels.order, labels.order)]
        noise = NoiseEstimate(self.verdict_.estimated_noise_rate, transition)
        return self._score_new(fitted, signals, codes, noise)

    def _score_new(
        self, fitted: Any, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> NDArray[np.float64]:
        """Return the scores of rows that arrive after fit, from what :meth:`_collect_new` found."""
        return self._score(signals, codes, noise)

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
        if self.output != "features":
            return super().get_feature_names_out(input_features)
        check_is_fitted(self, "verdict_")
        one = picked(self._network().rows, np.zeros(1, dtype=np.int64))
        width = self._network_features(self._fitted, one).shape[1]
        return np.array([f"{type(self).__name__.lower()}{i}" for i in range(width)], dtype=object)

    def _output(self, X: Any, new: bool) -> Any:
        if self.output != "features":
            return super()._output(X, new)
        return self._network_features(self._network(), self._new_rows(X))

    # -- validation, once -------------------------------------------------------------------------

    def _feeds_raw(self) -> bool:
        """Whether rows go to the network exactly as they are."""
        return False

    def _rows(self, checked: Any, device: Any = None) -> Rows:
        device = choose_device(self.device) if device is None else device
        return as_rows(checked, device=device, channels=self.channels, raw=self._feeds_raw())

    def _new_rows(self, X: Any, n: int | None = None) -> Rows:
        """Validate rows that arrive after fit for the network, and put them where that is."""
        known = self._network().rows
        return same_shape(self._rows(self._check_new(X, n), known.device), known.shape)

    # -- output -----------------------------------------------------------------------------------

    @abstractmethod
    def _network_features(self, fitted: Any, rows: Rows) -> NDArray[Any]:
        """Return features (n, d) of rows."""


def _with_strangers(
    scores: NDArray[np.float64], split: Split, noise: NoiseEstimate, strange: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], Split, NoiseEstimate]:
    """Reject strangers whose label was believed: they score as the best of the rejected rows does."""
    extra = split.clean & strange
    if not extra.any():
        return scores, split, noise
    rejected, share = ~split.clean, float(extra.mean())
    best = scores[rejected].max() if rejected.any() else np.nextafter(scores.min(), -np.inf)
    scores = np.where(extra, best, scores)
    proba, rate = split.clean_proba, split.noise_rate
    if proba is not None:
        proba = np.where(extra, proba[rejected].max() if rejected.any() else proba.min(), proba)
    if rate is not None:
        rate = min(1.0, rate + share)
    low, high = noise.interval or (noise.rate, noise.rate)
    noise = noise._replace(rate=min(1.0, noise.rate + share), interval=(low, min(1.0, high + share)))
    return scores, split._replace(clean=split.clean & ~strange, clean_proba=proba, noise_rate=rate), noise


def check_number(name: str, value: Any, kind: type, rule: str, holds: Callable[[Any], Any]) -> None:
    """Raise ParameterError unless the value is a number of this kind that obeys the rule."""
    if not isinstance(value, kind) or not holds(value):
        raise ParameterError(f"{name} must be {rule}, got {value!r}.")
