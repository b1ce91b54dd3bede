"""RecordedFilter: what the filters share that judge by what one training recorded of every row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import NoiseEstimate
from noisefilter.batches import Rows, at_hand, first_row, load_rows, rows_state
from noisefilter.errors import InputError, MissingSignalError
from noisefilter.models import Model, SklearnModel
from noisefilter.net import Recorded
from noisefilter.scores import log_margin
from noisefilter.states import array_state, behind, load_array, named
from noisefilter.trained import NetworkFilter, Planted, evaluated, learned_codes, norms_of
from noisefilter.verdict import Signals
from noisefilter.weights import Place, load_model, model_state


class Trained(NamedTuple):
    """What judging rows that arrive later needs.

    Attributes
    ----------
    model : Model
        The trained network.
    rows : Rows
        The first one of ``fit``, which tells the shape.
    yardstick
        What the filter measures later rows by, from the trained network's outputs on the rows of ``fit``.
    """

    model: Model
    rows: Rows
    yardstick: Any


class RecordedFilter(NetworkFilter):
    """A filter that trains one network, records every row over the epochs, and judges by this record.

    Its filters share the training with its planted labels and the signals that come of it, the refusal of
    classifiers that have no epochs, the class probabilities (mean of the recorded ones), the score of
    planted rows, and the evaluation of rows that arrive later.

    A filter names what is to be recorded (``_fields``) and how to train (:meth:`_training`), and writes the
    score (:meth:`_recorded_scores`), what later rows are measured by (:meth:`_yardstick`), and their score
    (:meth:`_score_new`).
    """

    _scales: ClassVar = True
    # Of noisefilter.net.Recorder.
    _fields: ClassVar[tuple[str, ...]]

    # -- what a filter writes ---------------------------------------------------------------------

    @abstractmethod
    def _training(self) -> dict[str, Any]:
        """Return further parameters of :class:`noisefilter.Net` to train by."""

    @abstractmethod
    def _recorded_scores(self, signals: Signals, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return new scores (n,) against the labels that were learned, which ``codes`` are."""

    @abstractmethod
    def _yardstick(self, probs: NDArray[Any], learned: NDArray[np.int64]) -> Any:
        """Return what later rows are measured by, from outputs (n, K) and the labels that were learned."""

    # -- one training that keeps a record ---------------------------------------------------------

    def _collect(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, features: NDArray[Any] | None, rng: Any
    ) -> tuple[Signals, Trained]:
        planted = self._plant(codes, n_classes, rng)
        model, signals = self._train(rows, planted, n_classes, rng)
        probs, space = evaluated(model, rows, features)
        norms = norms_of(model, space, features)
        signals = replace(signals, probs=probs, features=space, feature_norms=norms, **planted.probes)
        return signals, Trained(model, first_row(rows), self._yardstick(probs, planted.trained))

    def _train(self, rows: Rows, planted: Planted, n_classes: int, rng: Any) -> tuple[Model, Signals]:
        """Train a new network; return it, and what was recorded."""
        model = self._build(rows, n_classes, self._fields, rng, **self._training())
        if isinstance(model, SklearnModel):
            raise MissingSignalError(
                "estimator must be a network, whose epochs can be recorded, got "
                f"{type(self.estimator).__name__}. INNScorer takes any classifier."
            )
        recorded = self._run(model, rows, planted, n_classes)
        return model, Signals(**({} if recorded is None else recorded._asdict()))

    def _run(self, model: Model, rows: Rows, planted: Planted, n_classes: int) -> Recorded | None:
        """Train a network to the end; return what was recorded."""
        return model.train(rows, planted.trained, n_classes)

    # -- the judgement, from signals alone --------------------------------------------------------

    def _class_probs(self, signals: Signals) -> NDArray[Any]:
        """Mean of the recorded probabilities; those of the trained network where none were recorded."""
        if signals.mean_probs is None and signals.probs is not None:
            return signals.probs
        return signals.require("mean_probs")[0]

    def _score(self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate) -> NDArray[np.float64]:
        scores = self._recorded_scores(signals, learned_codes(signals, codes))
        rows = signals.probe_rows
        if rows is not None:  # what was recorded of them speaks of the planted label
            scores[rows] = log_margin(self._class_probs(signals)[rows], codes[rows])
        return scores

    def _learned_scores(
        self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> NDArray[np.float64]:
        return self._recorded_scores(signals, codes)

    # -- rows that arrive later -------------------------------------------------------------------

    def _collect_new(self, fitted: Trained, rows: Rows) -> Signals:
        """Let the trained network stand in for its average over the epochs: new rows have no past."""
        probs = evaluated(fitted.model, rows)[0]
        return Signals(probs=probs, mean_probs=probs)

    def _network_features(self, fitted: Trained, rows: Rows) -> NDArray[Any]:
        return evaluated(fitted.model, rows)[1]

    # -- what a file keeps ------------------------------------------------------------------------

    def _fitted_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        model, rows, yardstick = self._network()
        own, rest = model_state(model)
        row, images = rows_state(rows)
        tensors = named("model.", own) | {"row": row}
        tensors["yardstick"], _ = array_state(np.atleast_1d(yardstick), "yardstick")
        return tensors, {"model": rest, "images": images}

    def _load_fitted(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        n_classes = len(self.classes_)
        rows = load_rows(tensors["row"], rest["images"], at_hand(self.device))
        place = Place(rows.shape, n_classes, rows.device)
        model = load_model(behind("model.", tensors), rest["model"], place)
        yardstick: Any = load_array(tensors["yardstick"], None)
        # What the filter itself would make of a single row says of which kind it is.
        single = self._yardstick(np.full((1, n_classes), 1 / n_classes), np.zeros(1, dtype=np.int64))
        n = 1 if np.ndim(single) == 0 else len(self.verdict_)
        if yardstick.shape != (n,) or yardstick.dtype.kind != "f" or not np.isfinite(yardstick).all():
            raise InputError(f"The yardstick must be {n} finite numbers, got shape {yardstick.shape}.")
        self._check_columns(rows.shape)
        self._fitted = Trained(model, rows, yardstick.item() if np.ndim(single) == 0 else yardstick)


def epochs_of(recorded: NDArray[Any]) -> NDArray[np.float64]:
    """Return what was recorded per epoch, (T, n), in float64; raise InputError if there was none."""
    if not len(recorded):
        raise InputError("The signals must hold at least one epoch, got 0.")
    return np.asarray(recorded, dtype=np.float64)
