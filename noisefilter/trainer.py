"""BaseTrainer: the plumbing that makes training with noisy labels a scikit-learn classifier, written once."""

from __future__ import annotations

import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from noisefilter import __version__, estimates
from noisefilter.base import check_number
from noisefilter.batches import LazyRows, Rows, at_hand, choose_device, within_memory
from noisefilter.checkpoint import Checkpoints, Saved
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.fingerprints import count_copies, described, digest, fingerprint
from noisefilter.handover import judged_by, untouched_of, verdict_of
from noisefilter.inputs import Labels, as_rows, check_features, check_labels, known_codes
from noisefilter.models import feeds_raw, loading_callback, remembering_callback, seed_unset
from noisefilter.net import check_finite_loss, check_finite_outputs
from noisefilter.progress import Progress
from noisefilter.scores import best_other
from noisefilter.states import behind, load_verdict, named, verdict_state
from noisefilter.step import BaseJudge, check_input, columns_of, same_shape, verdict_of_codes
from noisefilter.trained import check_network
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Judged, Verdict
from noisefilter.weights import Place

__all__ = ["BaseTrainer", "Training"]

# Parameters that a training can be taken up again without: they change none of its numbers.
_FREE = frozenset({"checkpoint_dir", "device", "keep_signals", "verbose"})
_FEW_COPIES, _SHARE_OF_COPIES, _SHARE_OF_ONE_LABEL = 10, 0.05, 0.9
_LEAST_CLEAN, _LEAST_PER_CLASS = 32, 5  # rows that a verdict to start from leaves
_STATE, _GIVEN = "training.", "given."  # in front of the names of tensors in a checkpoint


class Training(Protocol):
    """One run of a trainer on its rows, epoch by epoch; it can be pickled after :meth:`release`.

    Whatever it draws it draws from generators of its own, seeded by its seed and the number of the epoch, so
    that a run that is taken up again needs no more than :meth:`state`.

    Attributes
    ----------
    n_epochs : int
        How many epochs the whole training has. A training that stops early lowers it.
    """

    n_epochs: int

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, float | int | str | None]:
        """Train one epoch, numbered from 0; returns its record: losses, sizes of sets, thresholds.

        What is named ``warning`` there is no part of it, but said to the user.
        """
        ...

    def cost(self, epoch: int) -> float:
        """Return how long an epoch takes, in steps of the progress bar, as far as can be told by now."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return tensors by name and values for JSON: all that later epochs and :meth:`judged` depend on."""
        ...

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        ...

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return probabilities (m, K) in the order of the class numbers; changes nothing in the training."""
        ...

    def networks(self) -> list[Any]:
        """Return the torch modules that :meth:`predict` asks, in evaluation mode."""
        ...

    def judged(self) -> Judged | Verdict:
        """Return the judgement of the training rows after any whole epoch; a verdict in class numbers."""
        ...

    def release(self) -> None:
        """Let go of the rows and of what only training needs; :meth:`predict` and :meth:`networks` go on."""
        ...

    def answers(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what :meth:`predict` needs, behind :meth:`release`: tensors by name, and plain values."""
        ...


class BaseTrainer(ClassifierMixin, BaseJudge):
    """A classifier that learns from rows of which some have wrong labels, and judges them on the way.

    A trainer writes :meth:`_begin`, which returns a :class:`Training`: what happens in an epoch, what it
    predicts, what it thinks of each row. Everything else happens here: labels and rows of any kind, a filter
    before it, checkpoints, the record of every epoch, the verdict.

    **A verdict to start from.** Behind a filter in a Pipeline a trainer reads the verdict that the rows carry
    and trains on the *untouched* rows, not on those the filter put in the place of noisy ones. Preprocessing
    goes before the filter, since anything computed from its rows has lost the verdict. With ``filter=`` the
    trainer asks a filter itself; ``Pipeline([("filter", F(random_state=0)), ("train", T(random_state=0))])``
    and ``T(filter=F(random_state=0), random_state=0)`` are the same training to the last bit.

    **Checkpoints.** With ``checkpoint_dir`` every epoch ends on disk, and a fit with the same parameters,
    rows and labels goes on after the last epoch written there, on a CPU with as many threads to the same bits
    as if it had never stopped. A run that has ended is read back. ``checkpoint_dir``, ``device`` and
    ``verbose`` may differ, and in ``filter`` also ``keep_signals``; another number of epochs is another
    training, and so is another version of the library. An ``estimator`` with skorch callbacks is refused, as
    what they remember would be lost; ``GradientNormClipping`` has nothing to remember. What a filter before
    the trainer says is part of the configuration. A filter on a GPU need not say the same twice, so there
    ``filter=``, whose verdict is in the checkpoint, is the better place.

    **Interrupts.** An interrupt (Ctrl-C) after the first epoch leaves a classifier that can predict, with
    verdict and history so far, and is raised again. Any other failure leaves everything as it was.

    What is kept are networks, verdict and record; not the training rows.

    Parameters
    ----------
    estimator : Net, skorch NeuralNetClassifier or None
        Prototype of the networks.
    network : type of torch.nn.Module, optional
        Instead of the default network.
    max_epochs, batch_size, lr : optional
        Of the default network.
    filter : estimator, optional
        A filter or trainer of this library, or any estimator that has a ``verdict_`` after ``fit(X, y)``. It
        is cloned; where its ``random_state`` is None it gets that of the trainer. The fitted filter is not
        kept, its verdict is.
    split_epochs : int, optional
        For how many epochs the verdict to start from is held; what the trainer says by default.
    checkpoint_dir : path, optional
        Folder of this training alone.
    channels : {"first", "last"}, optional
        Where 4-D images have their channels, if their shape does not tell.
    device : str, default="auto"
        ``"auto"`` is the first CUDA device where there is one, else the CPU. The ``device`` of a prototype
        is not read.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, RandomState or None, default=None
        All that chance decides follows from it.

    Attributes
    ----------
    classes_ : (K,) array
        Sorted labels; the columns of :meth:`predict_proba`.
    verdict_ : Verdict
        The judgement of the training rows. ``scores_``, ``clean_mask_``, ``id_mask_`` and ``ood_mask_`` are
        read from it.
    given_verdict_ : Verdict
        What training started from: the verdict of the filter; only where there was one.
    history_ : list of dict
        One record for each epoch, of plain numbers and texts: ``epoch`` (from 1), what the trainer records,
        and ``test_accuracy`` where there is an ``eval_set``.
    eval_report_ : dict
        Of the accuracies on ``eval_set``: ``best``, ``best_epoch`` (the first of that accuracy), ``last``,
        and ``last_10``, the mean of the last ten. Nothing is chosen by it: the networks are those of the last
        epoch. Only with an ``eval_set``.
    networks_ : list of torch.nn.Module
        The networks that predict.
    network_classes_ : (K,) array
        Labels, in the order of their outputs.
    n_features_in_ : int
        Columns of ``X``; for 2-D input only.
    feature_names_in_ : (d,) array
        Column names; for DataFrames only.
    """

    estimator: Any
    network: Any
    max_epochs: int | None
    batch_size: int | None
    lr: float | None
    filter: Any
    split_epochs: int | None
    checkpoint_dir: str | os.PathLike[str] | None
    channels: str | None
    device: str
    verbose: int

    # -- what a trainer writes --------------------------------------------------------------------

    @abstractmethod
    def _begin(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        features: NDArray[Any] | None,
        rng: np.random.RandomState,
    ) -> Training:
        """Return a training that is about to run its first epoch.

        Parameters
        ----------
        rows : Rows
            The training rows, n of them.
        codes : (n,) array
            Class numbers, by first appearance.
        n_classes : int
            K.
        given : Verdict, optional
            A verdict to start from, in class numbers: ``labels`` are ``codes``, classes count from 0.
        features : (n, d) array, optional
            An embedding of the rows.
        rng : RandomState
            For this training alone.
        """

    def _answering(self, tensors: Mapping[str, Any], rest: Mapping[str, Any], place: Place) -> Any:
        """Return what predicts as the training that was asked for its ``answers()``.

        Of a :class:`Training` it has ``predict``, ``networks`` and ``answers``; see :meth:`_load_fitted`.
        """
        raise NotImplementedError

    def _check_parameters(self) -> None:
        """Raise ParameterError for parameters out of range."""
        check_network(self)
        if self.split_epochs is not None:
            rule = "a whole number of at least 1"
            check_number("split_epochs", self.split_epochs, Integral, rule, lambda value: value >= 1)
        if hasattr(self, "least_epochs"):
            rule = "a whole number of at least 0"
            check_number("least_epochs", self.least_epochs, Integral, rule, lambda value: value >= 0)
        if self.channels not in (None, "first", "last"):
            raise ParameterError(f"channels must be 'first', 'last' or None, got {self.channels!r}.")
        if not isinstance(self.checkpoint_dir, str | os.PathLike | None):
            raise ParameterError(f"checkpoint_dir must be a path or None, got {self.checkpoint_dir!r}.")
        loading = loading_callback(self.estimator)
        if loading is not None:
            raise ParameterError(
                "estimator.callbacks must leave the networks as they are after the last epoch, got "
                f"{loading}(load_best=True). Losses of different phases cannot be compared, and the verdict "
                "is made of all epochs; leave out load_best."
            )
        remembering = None if self.checkpoint_dir is None else remembering_callback(self.estimator)
        if remembering is not None:
            raise ParameterError(
                "estimator.callbacks must be without memory of their own with checkpoint_dir, got "
                f"{remembering}. A training taken up again would have lost what it remembers; a "
                "noisefilter.Net lowers its learning rate by lr_drops=."
            )
        if self.filter is not None and (isinstance(self.filter, type) or not hasattr(self.filter, "fit")):
            raise InputTypeError(
                f"filter must be a filter, such as INNScorer(), or None, got {self.filter!r}."
            )

    def _training_key(self, seed: int) -> None:
        """Return None: no two trainers share a training."""

    # -- training ---------------------------------------------------------------------------------

    @within_memory
    def fit(self, X: Any, y: Any = None, features: Any = None, eval_set: Any = None) -> Self:
        """Train on all rows. A fit that fails leaves everything as it was.

        Parameters
        ----------
        X : (n, d) array or DataFrame; (n, height, width) or 4-D images; Tensor; memory map; map-style Dataset
            Numeric. Images may have their channels on axis 1 or last and any dtype.
        y : (n,) array
            Labels of any kind, some of them wrong; at least two classes.
        features : (n, d') array, optional
            An embedding of the rows from anywhere, for trainers and filters that look for neighbors.
        eval_set : (X_test, y_test), optional
            Rows with trusted labels, all of classes in ``y``, to report the accuracy of every epoch on; see
            ``eval_report_``. In a Pipeline (``pipe.fit(X, y, train__eval_set=(X_test, y_test))``) these rows
            do not pass through the steps before: a filter would hand them on unchanged, but what other steps
            do must have been done to them.

        Returns
        -------
        self

        Raises
        ------
        ParameterError
            If ``X`` carries a verdict and ``filter`` is given, or ``checkpoint_dir`` holds another training.
        InputError
            If the verdict carried is about other labels than ``y``.
        LabelError
            If a label of ``eval_set`` is not in ``y``.
        TrainingDivergedError
            If a loss or a probability stops being finite.
        """
        self._check_parameters()
        task = self._task(X, y, features, eval_set)
        run = self._run(task)
        try:
            self._train(task, run)
        except KeyboardInterrupt:
            if run.history:
                self._keep(task, run)
            raise
        self._keep(task, run)
        return self

    def _task(self, X: Any, y: Any, features: Any, eval_set: Any) -> _Task:
        """Validate everything, before anything is trained."""
        carried = verdict_of(X)
        if carried is not None:
            if self.filter is not None:
                raise ParameterError(
                    "filter must be None where X carries the verdict of a filter before, got "
                    f"{type(self.filter).__name__}. Leave out one of the two."
                )
            X = untouched_of(X)
        labels = check_labels(y)
        checked = check_input(X, len(labels.codes))
        columns = columns_of(X, checked)
        rows = self._rows(checked)
        features = check_features(features, len(rows))
        given = None if carried is None else _in_class_numbers(carried, labels)
        if given is None and self.filter is None:
            _warn_of_copies(rows, labels.codes)
        held_out = None if eval_set is None else self._held_out(eval_set, columns, labels, rows.shape)
        return _Task(X, labels, columns, rows, features, given, held_out)

    def _run(self, task: _Task) -> _Run:
        """Return a run about to start, or to go on from its last checkpoint."""
        saved = checkpoints = None
        if self.checkpoint_dir is not None:
            checkpoints = Checkpoints(os.fspath(self.checkpoint_dir), self._configuration(task))
            saved = checkpoints.latest()
        seed = self._seed() if saved is None else int(saved.record["seed"])
        given = task.given
        if self.filter is not None:
            given = self._ask_filter(task, seed) if saved is None else _saved_verdict(saved)
        codes, n_classes = task.labels.codes, len(task.labels.classes)
        start = None if given is None else _with_enough(given, n_classes)
        training = self._begin(
            task.rows, codes, n_classes, start, task.features, check_random_state(seed)
        )  # fmt: skip
        run = _Run(training, seed, given, checkpoints)
        if saved is not None:
            training.load_state(behind(_STATE, saved.tensors), saved.record["state"])
            run.history = list(saved.record["history"])
        return run

    def _train(self, task: _Task, run: _Run) -> None:
        """Run the epochs that are left."""
        training, start = run.training, len(run.history)
        name, n_rows = type(self).__name__, len(task.rows)
        what = f"{name}: {training.n_epochs - start} epochs on {n_rows:,} rows"
        with Progress(what, _left(training, start), self.verbose > 0, label=name) as bar:
            while len(run.history) < training.n_epochs:
                epoch = len(run.history)
                record = training.run_epoch(epoch, bar)
                if "warning" in record:
                    warnings.warn(str(record.pop("warning")), UserWarning, stacklevel=4)
                record = _plain(record, epoch)
                if task.held_out is not None:
                    record["test_accuracy"] = task.held_out.accuracy(training)
                run.history.append(record)
                bar.tell(_told(record, training.n_epochs), _left(training, epoch + 1))
                run.save()

    def _ask_filter(self, task: _Task, seed: int) -> Verdict:
        """Return what ``filter`` says of the rows, in class numbers."""
        judge = clone(self.filter)
        own = self.random_state if isinstance(self.random_state, Integral) else seed
        if "random_state" not in judge.get_params(deep=False):
            seed_unset(judge, int(own))
        elif judge.random_state is None:
            judge.set_params(random_state=own)
        params = {} if task.features is None else {"features": task.features}
        verdict = judged_by(judge, task.X, task.labels.given, params)[1]
        return _in_class_numbers(verdict, task.labels)

    def _configuration(self, task: _Task) -> dict[str, Any]:
        """Return all that a training depends on, as JSON can hold it."""
        values = {name: value for name, value in self.get_params(deep=False).items() if name not in _FREE}
        values = {name: described(value, free=_FREE) for name, value in values.items()}
        given = None if task.given is None else verdict_state(task.given)
        held_out = task.held_out
        return {
            "class": f"{type(self).__module__}.{type(self).__qualname__}",
            "noisefilter": __version__,
            **values,
            "X": fingerprint(task.rows),
            "y": digest(task.labels.codes),
            "features": None if task.features is None else digest(task.features),
            "verdict carried by X": None if given is None else digest(*given[0].values()),
            "eval_set": None if held_out is None else [fingerprint(held_out.rows), digest(held_out.codes)],
        }

    def _keep(self, task: _Task, run: _Run) -> None:
        """Judge the rows, and only then let anything be seen of this fit."""
        verdict = _verdict(run.training.judged(), task.labels, type(self).__name__)
        kept: dict[str, Any] = {"history_": run.history, **task.columns}
        if run.given is not None:
            kept["given_verdict_"] = _in_labels(run.given, task.labels)
        if task.held_out is not None:
            kept["eval_report_"] = _report([record["test_accuracy"] for record in run.history])
        run.training.release()
        for name in ("given_verdict_", "eval_report_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        self.classes_ = task.labels.classes
        self.verdict_ = verdict
        rank = np.argsort(task.labels.order)
        self._fitted = _Fitted(run.training, task.rows.shape, rank, task.rows.device)
        self.__dict__.update(kept)

    # -- what a file keeps ------------------------------------------------------------------------

    def _fitted_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        tensors, rest = self._fitted.training.answers()
        return tensors, {"shape": tuple(self._fitted.shape), "answers": rest}

    def _load_fitted(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        shape, device = tuple(rest["shape"]), at_hand(self.device)
        self._check_columns(shape)
        training = self._answering(tensors, rest["answers"], Place(shape, len(self.classes_), device))
        rank = np.argsort(check_labels(self.verdict_.labels).order)
        self._fitted = _Fitted(training, shape, rank, device)

    # -- the networks -----------------------------------------------------------------------------

    @property
    def networks_(self) -> list[Any]:
        """The fitted networks, torch modules in evaluation mode: two with co-training.

        They take rows as ``fit`` does, images as (b, channels, height, width), and give logits, or what else
        the module of a prototype gives, of the classes ``network_classes_``. Their weights can be stored
        without pickle: ``safetensors.torch.save_model(model.networks_[0], "network.safetensors")``.
        """
        self._fitted_verdict()
        return self._fitted.training.networks()

    @property
    def network_classes_(self) -> NDArray[Any]:
        """(K,) labels, in the order of the outputs of ``networks_``: by first appearance in ``y``."""
        self._fitted_verdict()
        return np.asarray(self.classes_[np.argsort(self._fitted.rank)])

    # -- rows that arrive later -------------------------------------------------------------------

    @within_memory
    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Predict the probability of each class.

        Parameters
        ----------
        X : array
            m rows, of the kind ``fit`` saw.

        Returns
        -------
        (m, K) array
            Columns in the order of ``classes_``; rows sum to one.
        """
        check_is_fitted(self, "verdict_")
        training, shape, rank, device = self._fitted
        rows = same_shape(self._rows(self._check_new(X), at_hand(device)), shape)
        probs = np.asarray(training.predict(rows), dtype=np.float64)
        # Summed before the columns are ordered: the last bit of a sum depends on the order.
        return np.asarray((probs / probs.sum(axis=1, keepdims=True))[:, rank])

    def predict(self, X: Any) -> NDArray[Any]:
        """Predict the label of each row, (m,)."""
        probs = self.predict_proba(X)
        return np.asarray(self.classes_[probs.argmax(axis=1)])

    def _rows(self, checked: Any, device: Any = None) -> Rows:
        device = choose_device(self.device) if device is None else device
        return as_rows(checked, device=device, channels=self.channels, raw=feeds_raw(self.estimator))

    def _held_out(
        self, eval_set: Any, columns: dict[str, Any], labels: Labels, shape: tuple[int, ...]
    ) -> _HeldOut:
        if not isinstance(eval_set, list | tuple) or len(eval_set) != 2:
            raise InputError(
                f"eval_set must be a pair (X_test, y_test), got an object of type {type(eval_set).__name__}."
            )
        codes = known_codes(eval_set[1], labels, "eval_set")
        fitted = clone(self)  # knows the columns of a fit that has yet to succeed
        vars(fitted).update(columns)
        rows = self._rows(fitted._check_new(eval_set[0], len(codes)))
        return _HeldOut(same_shape(rows, shape, "eval_set"), codes)


class _HeldOut(NamedTuple):
    """Rows with trusted labels."""

    rows: Rows
    codes: NDArray[np.int64]

    def accuracy(self, training: Training) -> float:
        """Return the share of rows predicted right."""
        return float(np.mean(training.predict(self.rows).argmax(axis=1) == self.codes))


class _Task(NamedTuple):
    """What one fit is about, validated."""

    X: Any
    labels: Labels
    columns: dict[str, Any]
    rows: Rows
    features: NDArray[Any] | None
    given: Verdict | None  # carried by X, in class numbers
    held_out: _HeldOut | None


class _Fitted(NamedTuple):
    """What prediction needs: networks, the shape of a row, the class number of each column, the device.

    Where a pickle is read on a machine without that device, skorch has the networks on the CPU.
    """

    training: Training
    shape: tuple[int, ...]
    rank: NDArray[np.intp]
    device: Any


@dataclass
class _Run:
    """One training on its way."""

    training: Training
    seed: int
    given: Verdict | None  # in class numbers
    checkpoints: Checkpoints | None
    history: list[dict[str, Any]] = field(default_factory=list)

    def save(self) -> None:
        """Write the end of an epoch to disk, where that is asked for."""
        if self.checkpoints is None:
            return
        tensors, state = self.training.state()
        tensors = named(_STATE, tensors)
        record = {"seed": self.seed, "history": self.history, "state": state, "given": None}
        if self.given is not None:
            given, record["given"] = verdict_state(self.given)
            tensors |= named(_GIVEN, given)
        self.checkpoints.save(len(self.history), tensors, record)


def _saved_verdict(saved: Saved) -> Verdict | None:
    given = saved.record["given"]
    return None if given is None else load_verdict(behind(_GIVEN, saved.tensors), given)


def _with_enough(given: Verdict, n_classes: int) -> Verdict:
    """Return the verdict with clean rows enough to train on: where they are few, best scores are added."""
    n, n_clean = len(given), int(given.clean_mask.sum())
    least = min(n // 2, max(_LEAST_CLEAN, _LEAST_PER_CLASS * n_classes))
    if n_clean >= least:
        return given
    warnings.warn(
        f"The verdict to start from must leave at least {least} clean rows, got {n_clean} of {n}; the rows "
        "of highest score are taken for clean as well. Use a filter that rejects less.",
        UserWarning,
        stacklevel=5,
    )
    partition = given.partition.copy()
    partition[np.lexsort((-given.scores, ~given.clean_mask))[:least]] = CLEAN
    return replace(given, partition=partition, threshold=None)


def _in_class_numbers(verdict: Verdict, labels: Labels) -> Verdict:
    """Return the same verdict about class numbers: they are the same by whatever names classes go."""
    if not (np.array_equal(verdict.labels, labels.given) and np.array_equal(verdict.classes, labels.classes)):
        raise InputError(
            "y must be the labels that the verdict is about, got others. Fit the filter on these labels, or "
            "pass the rows without its verdict, as a plain array."
        )
    order, transition = labels.order, verdict.transition_matrix
    return replace(
        verdict,
        labels=labels.codes,
        classes=np.arange(len(order)),
        alternatives=np.argsort(order)[np.searchsorted(labels.classes, verdict.alternatives)],
        transition_matrix=None if transition is None else transition[np.ix_(order, order)],
    )


def _in_labels(verdict: Verdict, labels: Labels) -> Verdict:
    """Return the verdict of which `_in_class_numbers` was asked."""
    rank, transition = np.argsort(labels.order), verdict.transition_matrix
    return replace(
        verdict,
        labels=labels.given,
        classes=labels.classes,
        alternatives=labels.classes[labels.order[verdict.alternatives]],
        transition_matrix=None if transition is None else transition[np.ix_(rank, rank)],
    )


def _verdict(judged: Judged | Verdict, labels: Labels, method: str) -> Verdict:
    if isinstance(judged, Verdict):
        return replace(_in_labels(judged, labels), method=method)
    probs = np.asarray(judged.probs, dtype=np.float64)
    check_finite_outputs(probs, judged.scores)
    transition = judged.transition
    if transition is None:
        transition = estimates.estimate_transition(probs, labels.codes, judged.noise_rate)
    noisy = ID_NOISE if judged.strangers is None else np.where(judged.strangers, OOD_NOISE, ID_NOISE)
    return verdict_of_codes(
        labels,
        best_other(probs, labels.codes),
        transition,
        scores=judged.scores,
        partition=np.where(judged.clean, CLEAN, noisy),
        threshold=judged.threshold,
        clean_proba=judged.clean_proba,
        open_set=judged.strangers is not None,
        estimated_noise_rate=float(judged.noise_rate),
        method=method,
    )


def _plain(record: Mapping[str, Any], epoch: int) -> dict[str, Any]:
    """Return the record of an epoch as JSON has it; what is not finite is None, a loss must be finite."""
    plain: dict[str, Any] = {"epoch": epoch + 1}
    for name, value in record.items():
        value = value.item() if hasattr(value, "item") else value
        finite = not isinstance(value, float) or np.isfinite(value)
        if not finite and "loss" in name:
            check_finite_loss(value, epoch)
        plain[name] = value if finite else None
    return plain


def _left(training: Training, epoch: int) -> float:
    """Return how many steps of the progress bar the epochs from this one on take."""
    return sum(training.cost(each) for each in range(epoch, training.n_epochs))


def _told(record: Mapping[str, Any], n_epochs: int) -> str:
    """Return what stands behind the progress bar: epoch, phase, loss, sizes of the sets, test accuracy."""
    parts = [f"epoch {record['epoch']}/{n_epochs}"]
    if "phase" in record:
        parts.append(record["phase"])
    if record.get("loss") is not None:
        parts.append(f"loss {record['loss']:.3g}")
    sizes: dict[str, list[str]] = {}  # of both networks, say, together
    for name, value in record.items():
        if name.startswith("n_"):
            sizes.setdefault(name.removeprefix("n_").rstrip("_12"), []).append(f"{value:,}")
    parts += [f"{name} {'/'.join(values)}" for name, values in sizes.items()]
    if "test_accuracy" in record:
        parts.append(f"test {record['test_accuracy']:.1%}")
    return ", ".join(parts)


def _report(accuracies: list[float]) -> dict[str, Any]:
    best = int(np.argmax(accuracies))
    return {
        "best": accuracies[best],
        "best_epoch": best + 1,
        "last": accuracies[-1],
        "last_10": float(np.mean(accuracies[-10:])),
    }


def _warn_of_copies(rows: Rows, codes: NDArray[np.int64]) -> None:
    """Warn of rows that look like those of a filter whose verdict was lost."""
    if isinstance(rows, LazyRows):  # reading everything would take its time
        return
    copies, of_one_label = count_copies(rows, codes)
    many = of_one_label >= max(_FEW_COPIES, _SHARE_OF_COPIES * len(rows))
    if many and of_one_label >= _SHARE_OF_ONE_LABEL * copies:
        warnings.warn(
            f"{of_one_label} of the {len(rows)} rows of X are exact copies of rows with the same label, as "
            "after a filter whose verdict was lost on the way to this trainer. Put other steps before the "
            "filter, or the filter into filter=. If the data are so by themselves, all is well.",
            UserWarning,
            stacklevel=5,
        )
