"""One face for whatever is trained: Net, a skorch net of the user's class, any scikit-learn classifier."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, GradientNormClipping
from torch import Tensor, nn

from noisefilter import estimates
from noisefilter.augment import default_augmentation
from noisefilter.batches import Rows, gathered, in_order, picked
from noisefilter.contrastive import AdamDecay
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.net import Enough, Net, Recorded, Recorder, caught_features, local_seed
from noisefilter.networks import default_network, network_arguments

_CHUNK = 1000
_LEAST_OTHERS = 200
MAX_EPOCHS, LR = 30, 0.05  # of the default network
LR_DROPS: dict[str, Any] = {"lr_drops": (0.5, 0.75), "lr_drop_factor": 5.0}
_PLAIN = {"objective": "cross_entropy", "schedule": "steps"}  # what any training of the user's own may be
_WITHOUT_MEMORY = (AdamDecay, GradientNormClipping)  # from one epoch to the next
_CHOOSER = {"mixup_alpha": "objective", "n_cycles": "schedule", "cycle_epochs": "schedule"}


class Model(Protocol):
    """A classifier that can be trained on rows and asked for probabilities and features."""

    def train(self, rows: Rows, codes: NDArray[np.int64], n_classes: int) -> Recorded | None:
        """Train on rows and class numbers; returns what was recorded."""
        ...

    def evaluate(self, rows: Rows, features: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return probabilities (n, K), and features (n, d) where there are any."""
        ...

    def predict_batch(self, x: Tensor) -> Tensor:
        """Return probabilities (b, K)."""
        ...


class NetModel:
    """A :class:`noisefilter.net.Net`."""

    def __init__(self, net: Net):
        self.net = net

    def train(self, rows: Rows, codes: NDArray[np.int64], n_classes: int) -> Recorded | None:
        """Train; the network records by itself."""
        self.net.fit(rows, codes)
        check_outputs(self, rows, n_classes)
        return getattr(self.net, "recorded_", None)

    def train_unmemorized(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, planted_rows: NDArray[np.int64]
    ) -> Recorded | None:
        """Train, but where planted labels come to be known by heart, anew for the epochs before that alone.

        ``net.max_epochs`` is how many these were.
        """
        watch = _ByHeart(planted_rows)
        given = self.net.callbacks
        # Set as an attribute: skorch's set_params fails where there were no callbacks.
        self.net.callbacks = [*_callbacks(self.net), ("by_heart", watch)]
        try:
            recorded = self.train(rows, codes, n_classes)
        finally:
            self.net.callbacks = given
        self.net.callbacks_ = [own for own in self.net.callbacks_ if own[1] is not watch]
        if watch.n_epochs is None:
            return recorded
        self.net.set_params(max_epochs=max(1, watch.n_epochs - 1))
        return self.train(rows, codes, n_classes)

    def begin(self, rows: Rows, codes: NDArray[np.int64], n_classes: int) -> Tensor:
        """Open a training that somebody else drives; returns the class numbers on the device of the rows."""
        target = torch.from_numpy(codes).to(rows.device)
        self.net.initialize()
        with local_seed(self.net.seed_, rows.device):
            self.net.begin(rows, target)
            check_outputs(self, rows, n_classes)
        return target

    def evaluate(self, rows: Rows, features: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return probabilities and features from one evaluation pass."""
        return self.net.evaluate(rows, features)

    def predict_batch(self, x: Tensor) -> Tensor:
        """Return probabilities (b, K)."""
        return self.net.predict_batch(x)


class _ByHeart(Callback):
    """Ends a training where planted labels are known by heart, :func:`noisefilter.estimates.memorizes`.

    As many other rows are asked as there are planted ones, and 200 at least, which show what chance is.
    """

    def __init__(self, planted_rows: NDArray[np.int64]):
        self.planted_rows = planted_rows
        self.n_epochs: int | None = None  # taken by then

    def on_train_begin(self, net: Net, X: Any = None, **kwargs: Any) -> None:
        """Choose the other rows."""
        others = np.setdiff1d(np.arange(len(X)), self.planted_rows)
        wanted = min(len(others), max(_LEAST_OTHERS, len(self.planted_rows)))
        spread = others[np.linspace(0, len(others) - 1, wanted).astype(np.int64)]
        self.asked = np.concatenate([self.planted_rows, spread])
        self.n_seen = 0

    def on_epoch_end(self, net: Net, dataset_train: Any = None, **kwargs: Any) -> None:
        """Look at the rows."""
        rows, codes = dataset_train
        self.n_seen += 1
        asked = picked(rows, self.asked)
        with net.evaluating():
            seen = [net.outputs(asked.take(index)) for index in in_order(asked, _CHUNK)]
        outputs = torch.cat(seen)
        learned = codes[torch.from_numpy(self.asked).to(codes.device)].cpu().numpy()
        planted = np.arange(len(self.planted_rows))
        predicted = outputs.argmax(dim=1).cpu().numpy()
        known = estimates.known_by_heart(predicted, learned, planted, outputs.shape[1])
        if estimates.memorizes(known, self.n_seen * net.steps_of_epoch(len(rows))):
            self.n_epochs = self.n_seen
            raise Enough


class _EpochRecorder(Callback):
    """Records by one evaluation pass after each epoch, for nets whose own loop we leave alone."""

    def __init__(self, recorder: Recorder, rows: Rows, codes: Tensor, model: SkorchModel):
        self.recorder, self.rows, self.codes, self.model = recorder, rows, codes, model

    def on_epoch_end(self, net: NeuralNetClassifier, **kwargs: Any) -> None:
        """Evaluate every row."""
        if self.recorder.wants(self.recorder.epoch):
            for index in in_order(self.rows, _CHUNK):
                probs = self.model.predict_batch(self.rows.take(index))
                logits, target = probs.clamp_min(1e-12).log(), self.codes[index]
                losses = nn.functional.nll_loss(logits, target, reduction="none")
                self.recorder.batch(index, probs, logits, target, losses)
        self.recorder.end_epoch(
            net.optimizer_.param_groups[0]["lr"] if hasattr(net, "optimizer_") else float("nan")
        )


class SkorchModel:
    """A subclass of skorch's classifier, trained as it is and recorded by a callback.

    What it draws from the global generators is drawn from ``seed``.
    """

    def __init__(self, net: NeuralNetClassifier, record: tuple[str, ...], seed: int):
        self.net = net
        self.record = record
        self.seed = seed

    def train(self, rows: Rows, codes: NDArray[np.int64], n_classes: int) -> Recorded | None:
        """Train by the net's own loop."""
        target = torch.from_numpy(codes).to(rows.device)
        recorder = Recorder(self.record, len(rows), n_classes, self.net.max_epochs, rows.device)
        given = self.net.callbacks
        # Set as an attribute: skorch's set_params fails where there were no callbacks.
        self.net.callbacks = [
            *_callbacks(self.net),
            ("noisefilter", _EpochRecorder(recorder, rows, target, self)),
        ]
        try:
            with local_seed(self.seed, rows.device):
                self.net.fit(_Items(rows, codes), codes)
        finally:
            self.net.callbacks = given
        check_outputs(self, rows, n_classes)
        return recorder.result()

    def evaluate(self, rows: Rows, features: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Evaluate with the same feature hook as :class:`Net`."""
        catching: AbstractContextManager[list[Tensor]] = nullcontext([])
        if features:
            catching = caught_features(self.net.module_)
        with catching as caught:
            batches = (self.predict_batch(rows.take(index)) for index in in_order(rows, _CHUNK))
            found = gathered(((probs, *(c.float() for c in caught)) for probs in batches), len(rows))
        return found[0], found[1] if features else None

    def predict_batch(self, x: Tensor) -> Tensor:
        """Return probabilities (b, K)."""
        output = self.net.evaluation_step((x, None), training=False)
        output = output[0] if isinstance(output, tuple) else output
        probs: Tensor = self.net._get_predict_nonlinearity()(output).float()
        return probs


class _Items(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Rows one at a time with their codes, for a net that trains through a DataLoader."""

    def __init__(self, rows: Rows, codes: NDArray[np.int64]):
        self.rows = rows
        self.codes = codes

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.rows.take(torch.tensor([i], device=self.rows.device))[0], int(self.codes[i])


class SklearnModel:
    """Any classifier with ``predict_proba``; it records nothing.

    It has no features of its own: inputs, standardized by the rows it was trained on, stand in.
    """

    def __init__(self, classifier: Any, seed: int):
        self.classifier = classifier
        self.seed = seed

    def train(self, rows: Rows, codes: NDArray[np.int64], n_classes: int) -> Recorded | None:
        """Fit on flattened rows."""
        self.n_classes = n_classes
        x = _flat(rows)
        if not np.isfinite(x).all():  # rows read lazily: nobody has looked at them yet
            row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
            raise InputError(f"X must be finite, got NaN or infinity in row {row}.")
        deviation = x.std(axis=0, dtype=np.float64)
        self.mean = x.mean(axis=0, dtype=np.float64)
        self.scale = np.where(deviation > 0, deviation, 1.0)
        with local_seed(self.seed, torch.device("cpu")):
            self.classifier.fit(x, codes)
        return None

    def evaluate(self, rows: Rows, features: bool) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Return probabilities (n, K) and standardized inputs (n, d)."""

        def batches() -> Iterator[tuple[Tensor, ...]]:
            for index in in_order(rows, _CHUNK):
                x = rows.take(index)
                yield (self.predict_batch(x), self._standardized(x)) if features else (self.predict_batch(x),)

        found = gathered(batches(), len(rows))
        return found[0], found[1] if features else None

    def _standardized(self, x: Tensor) -> Tensor:
        return torch.from_numpy((x.flatten(1).cpu().numpy() - self.mean) / self.scale).float()

    def predict_batch(self, x: Tensor) -> Tensor:
        """Return probabilities (b, K), zero for a class whose only row was planted under another."""
        probs = np.zeros((len(x), self.n_classes))
        probs[:, self.classifier.classes_] = self.classifier.predict_proba(x.flatten(1).cpu().numpy())
        return torch.from_numpy(probs).to(x.device)


def _flat(rows: Rows) -> NDArray[Any]:
    every = torch.arange(len(rows), device=rows.device)
    return np.asarray(rows.take(every).flatten(1).cpu().numpy())


def check_outputs(model: Model, rows: Rows, n_classes: int) -> None:
    """Raise ParameterError unless the model has one output per class."""
    outputs = model.predict_batch(rows.take(torch.arange(1, device=rows.device))).shape[1]
    if outputs != n_classes:
        raise ParameterError(f"The network must have one output per class ({n_classes}), got {outputs}.")


def _callbacks(net: NeuralNetClassifier) -> list[Any]:
    """Return the callbacks of the user's own; skorch also knows ``None`` and ``"disable"``."""
    return list(net.callbacks) if isinstance(net.callbacks, list | tuple) else []


def remembering_callback(estimator: Any) -> str | None:
    """Return the class of a callback whose memory no checkpoint has, ``None`` where there is no such one.

    What a callback remembers is its own affair, and cannot be looked for: all count but the few known to have
    nothing to remember.
    """
    for _, callback in _named_callbacks(estimator):
        if _kind(callback) not in _WITHOUT_MEMORY:
            return _kind(callback).__name__
    return None


def loading_callback(estimator: Any) -> str | None:
    """Return the class of a callback that puts back earlier weights in the end, ``None`` where none does."""
    for name, callback in _named_callbacks(estimator):
        if getattr(estimator, f"callbacks__{name}__load_best", getattr(callback, "load_best", False)):
            return _kind(callback).__name__
    return None


def _named_callbacks(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Yield the callbacks of the user's own by their names, as parameters set later have them."""
    for item in _callbacks(estimator) if isinstance(estimator, NeuralNetClassifier) else []:
        name, given = item if isinstance(item, list | tuple) else (_kind(item).__name__, item)
        callback = getattr(estimator, f"callbacks__{name}", given)
        if callback is not None:  # None leaves it out
            yield name, callback


def _kind(callback: Any) -> type[Any]:
    return callback if isinstance(callback, type) else type(callback)


def feeds_raw(estimator: Any) -> bool:
    """Whether rows go to the estimator as they are: it is the user's own, and knows its input."""
    return estimator is not None


def default_batch_size(n: int) -> int:
    """128, fewer below 2,048 rows so that an epoch has about sixteen steps, at least 8."""
    return int(np.clip(n // 16, 8, 128))


def build_model(
    estimator: Any,
    rows: Rows,
    n_classes: int,
    *,
    network: type[nn.Module] | None,
    settings: dict[str, Any],
    training: dict[str, Any],
    record: tuple[str, ...],
    seed: int,
) -> Model:
    """Make the model a filter trains: from a prototype, or the default network for rows of this shape.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier, classifier with predict_proba, or None
        The prototype; it is cloned. A network goes to the device of the rows, whatever its own ``device``
        says: skorch's default names the CPU, so it is no wish.
    rows : Rows
        The training rows.
    n_classes : int
        K.
    network : type of torch.nn.Module, optional
        Instead of the default network; its sizes are filled in by name.
    settings : dict
        ``max_epochs``, ``batch_size``, ``lr``, ``verbose``: of the default network.
    training : dict
        What a Net trains by: ``objective``, ``mixup_alpha``, and maybe ``schedule``, ``n_cycles``,
        ``cycle_epochs``.
    record : tuple of str
        Signals to record.
    seed : int
        Of this model.
    """
    if isinstance(network, nn.Module):
        raise ParameterError(f"network must be a class, got an instance of {type(network).__name__}.")
    if estimator is None:
        return NetModel(_default_net(rows, n_classes, network, settings, training, record, seed))
    for name in ("max_epochs", "batch_size", "lr", "network"):
        value = network if name == "network" else settings[name]
        if value is not None:
            raise ParameterError(
                f"{name} must be None when an estimator is given, got {value!r}. Set it on the estimator."
            )
    if isinstance(estimator, type):
        raise InputTypeError(f"estimator must be an instance, got the class {estimator.__name__}.")
    if isinstance(estimator, NeuralNetClassifier):
        return _from_skorch(estimator, str(rows.device), training, record, seed)
    if not hasattr(estimator, "predict_proba"):
        raise InputTypeError(
            "estimator must be a skorch NeuralNetClassifier or have predict_proba, "
            f"got {type(estimator).__name__}."
        )
    _refuse_training(estimator, training)
    classifier = clone(estimator)
    seed_unset(classifier, seed)
    return SklearnModel(classifier, seed)


def build_net(
    estimator: Any,
    rows: Rows,
    n_classes: int,
    *,
    network: type[nn.Module] | None,
    settings: dict[str, Any],
    training: dict[str, Any],
    seed: int,
) -> Net:
    """Make an untrained net, from a prototype or of the default kind, for a training that is not its own.

    Parameters are those of :func:`build_model`.

    Raises
    ------
    InputTypeError
        If the prototype is no network, or one whose training is its own.
    """
    model = build_model(
        estimator,
        rows,
        n_classes,
        network=network,
        settings=settings,
        training=training,
        record=(),
        seed=seed,
    )
    if not isinstance(model, NetModel) or type(model.net) is not Net:
        raise InputTypeError(
            "estimator must be a skorch NeuralNetClassifier or a noisefilter.Net and no subclass, as the "
            f"training is not its own, got {type(estimator).__name__}."
        )
    # A random_state of the prototype's own would make twins of two.
    return model.net.set_params(random_state=seed, verbose=0)


def _default_net(
    rows: Rows,
    n_classes: int,
    network: type[nn.Module] | None,
    settings: dict[str, Any],
    training: dict[str, Any],
    record: tuple[str, ...],
    seed: int,
) -> Net:
    network = network or default_network(rows.shape)
    arguments: dict[str, Any] = {
        f"module__{k}": v for k, v in network_arguments(network, rows.shape, n_classes).items()
    }
    return Net(
        network,
        max_epochs=MAX_EPOCHS if settings["max_epochs"] is None else settings["max_epochs"],
        batch_size=default_batch_size(len(rows))
        if settings["batch_size"] is None
        else settings["batch_size"],
        lr=LR if settings["lr"] is None else settings["lr"],
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        optimizer__nesterov=True,
        optimizer__weight_decay=5e-4,
        optimizer__fused=_pays_fused(rows) or None,
        augment=default_augmentation(rows.shape),
        device=str(rows.device),
        verbose=settings["verbose"],
        record=record,
        random_state=seed,
        **LR_DROPS | training,
        **arguments,
    )


def _pays_fused(rows: Rows) -> bool:
    """Whether an optimizer of one kernel pays: on a CPU it takes a tenth off the steps of an MLP alone."""
    return rows.device.type == "cuda" or (rows.device.type == "cpu" and len(rows.shape) == 1)


def _from_skorch(
    estimator: NeuralNetClassifier,
    device: str,
    training: dict[str, Any],
    record: tuple[str, ...],
    seed: int,
) -> Model:
    if isinstance(estimator.module, nn.Module):
        raise ParameterError(
            f"estimator.module must be a class, got an instance of {type(estimator.module).__name__}, which "
            "would carry its trained weights into every fold. Pass the class, and its arguments as "
            "module__name=..."
        )
    _refuse_validation(estimator)
    if type(estimator) is NeuralNetClassifier:
        parameters = estimator.get_params(deep=False) | {"train_split": None, "device": device}
        parameters = {name: copy.deepcopy(value) for name, value in parameters.items()}
        return NetModel(Net(**parameters, record=record, random_state=seed, **training))
    net = clone(estimator).set_params(train_split=None, device=device)
    if isinstance(net, Net):
        net.set_params(record=tuple(sorted({*net.record, *record})))
        net.set_params(random_state=seed if net.random_state is None else net.random_state)
        return NetModel(net.set_params(**_asked(training)))
    _refuse_training(estimator, training)
    return SkorchModel(net, record, seed)


def _asked(training: dict[str, Any]) -> dict[str, Any]:
    """Return what differs from a plain training; the rest a Net of the user's own decides."""
    plain = {name for name, own in _PLAIN.items() if training.get(name, own) == own}
    return {name: value for name, value in training.items() if _CHOOSER.get(name, name) not in plain}


def _refuse_training(estimator: Any, training: dict[str, Any]) -> None:
    for name, own in _PLAIN.items():
        if training.get(name, own) != own:
            raise ParameterError(
                f"{name} must be {own!r} with {type(estimator).__name__}, whose training is its own, "
                f"got {training[name]!r}. Only a NeuralNetClassifier or Net can be trained otherwise."
            )


def _refuse_validation(estimator: NeuralNetClassifier) -> None:
    parameters = estimator.get_params(deep=False)
    for item in _callbacks(estimator):
        name, callback = item if isinstance(item, tuple) else (None, item)
        kind = callback if isinstance(callback, type) else type(callback)
        monitor = getattr(callback() if isinstance(callback, type) else callback, "monitor", None)
        monitor = parameters.get(f"callbacks__{name or kind.__name__}__monitor", monitor)
        if isinstance(monitor, str) and monitor.startswith("valid"):
            raise ParameterError(
                f"estimator.callbacks must not monitor validation scores, got {kind.__name__} on "
                f"{monitor!r}. No rows are held out, as they would have no signals; monitor 'train_loss'."
            )


def seed_unset(estimator: Any, seed: int) -> None:
    """Seed every ``random_state`` that is ``None``, those of nested estimators included."""
    parameters = estimator.get_params()
    unset = [k for k, v in parameters.items() if k.split("__")[-1] == "random_state" and v is None]
    estimator.set_params(**dict.fromkeys(sorted(unset), seed))
