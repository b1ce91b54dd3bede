"""Net: a skorch classifier that trains fast on arrays and writes down what it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.utils import check_random_state
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn

from noisefilter.augment import Augment
from noisefilter.batches import Rows, count_batches, gathered, in_order, shuffled, statistics
from noisefilter.criteria import ELRLoss, IndexedLoss, LabelDistributionLoss
from noisefilter.errors import InputError, ParameterError, TrainingDivergedError
from noisefilter.inputs import as_rows
from noisefilter.losses import negative_entropy
from noisefilter.networks import Standardize
from noisefilter.progress import Progress
from noisefilter.states import behind, check_tensors, load_optimizer_state, named, optimizer_state

_EVAL_BATCH = 1000
_CHOICES = {
    "objective": ("cross_entropy", "cross_entropy_ne", "mixup"),
    "precision": ("auto", "float32", "bfloat16"),
    "record_from": ("training", "evaluation"),
    "schedule": ("steps", "cyclical"),
}
_BATCH_VERBS = ("on_batch_begin", "on_batch_end", "on_grad_computed")


@contextmanager
def local_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators inside the block, and leave them as they were behind it.

    Weight initialization and dropout can draw from nowhere else. A module of the user's may use
    numpy's global generator, so that one is held still too.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_cuda else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU, and leave it so
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002


def derived_seed(seed: int, *numbers: int) -> int:
    """Return a seed in [0, 2**32) that follows from a seed and numbers of at least 0, an epoch's say."""
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1)[0])


class Recorded(NamedTuple):
    """What one training saw of its rows, in row order; fields that were not asked for are ``None``.

    The shapes are those of :class:`noisefilter.Signals`. A training that a callback ended early has
    as many epochs as it ran, and no ``mean_probs`` if it ended before they were begun.
    """

    losses: NDArray[np.float32] | None
    margins: NDArray[np.float32] | None
    predictions: NDArray[np.int32] | None
    mean_probs: NDArray[np.float32] | None
    learning_rates: NDArray[np.float64]


class Recorder:
    """Collects per-row signals from the training pass itself, which costs next to nothing.

    Parameters
    ----------
    fields : collection of str
        Of ``losses``, ``margins``, ``predictions``, ``mean_probs``.
    n, n_classes, n_epochs : int
        Sizes. ``mean_probs`` averages over the second half of the epochs recorded.
    device : torch.device
        Where the records lie while training runs: no epoch waits for a transfer.
    first : int, default=0
        Number of the first epoch recorded.
    """

    FIELDS = ("losses", "margins", "predictions", "mean_probs")

    def __init__(
        self,
        fields: tuple[str, ...],
        n: int,
        n_classes: int,
        n_epochs: int,
        device: torch.device,
        first: int = 0,
    ):
        if unknown := set(fields) - set(self.FIELDS):
            raise ParameterError(f"record must name some of {self.FIELDS}, got {sorted(unknown)}.")
        self.first = first
        self.start = first + (n_epochs - first) // 2
        self.epoch = 0
        self.rates: list[float] = []

        def per_epoch(name: str, dtype: torch.dtype) -> Tensor | None:
            return torch.zeros((n_epochs - first, n), dtype=dtype, device=device) if name in fields else None

        self.losses = per_epoch("losses", torch.float32)
        self.margins = per_epoch("margins", torch.float32)
        self.predictions = per_epoch("predictions", torch.int32)
        self.prob_sum = torch.zeros((n, n_classes), device=device) if "mean_probs" in fields else None

    def wants(self, epoch: int) -> bool:
        """Whether anything is recorded in this epoch."""
        per_epoch = self.losses is not None or self.margins is not None or self.predictions is not None
        return (per_epoch and epoch >= self.first) or (self.prob_sum is not None and epoch >= self.start)

    def batch(
        self, index: Tensor, probs: Tensor, logits: Tensor, codes: Tensor, losses: Tensor | None
    ) -> None:
        """Record one batch of detached outputs: probabilities and logits (b, K), losses (b,)."""
        place = self.epoch - self.first
        if self.losses is not None and losses is not None:
            self.losses[place, index] = losses.float()
        if self.margins is not None:
            given = logits.gather(1, codes[:, None])
            others = logits.scatter(1, codes[:, None], -torch.inf)
            self.margins[place, index] = (given[:, 0] - others.amax(1)).float()
        if self.predictions is not None:
            self.predictions[place, index] = logits.argmax(1).int()
        if self.prob_sum is not None and self.epoch >= self.start:
            self.prob_sum[index] += probs

    def end_epoch(self, learning_rate: float) -> None:
        """Close the epoch."""
        self.epoch += 1
        self.rates.append(learning_rate)

    def tensors(self) -> dict[str, Tensor]:
        """Return the records so far by name, not copied."""
        names = ("losses", "margins", "predictions", "prob_sum")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def result(self) -> Recorded:
        """Return everything as numpy arrays."""
        seen = self.epoch - self.start
        means = None if self.prob_sum is None or seen < 1 else (self.prob_sum / seen).cpu().numpy()
        losses, margins, predictions = (
            None if values is None else values[: max(0, self.epoch - self.first)].cpu().numpy()
            for values in (self.losses, self.margins, self.predictions)
        )
        return Recorded(losses, margins, predictions, means, np.array(self.rates[self.first :]))


@contextmanager
def caught_features(module: nn.Module, layer: str | None = None) -> Iterator[list[Tensor]]:
    """Catch what the last linear layer (or the layer named) is fed, (b, d), in a list of one tensor.

    The last one to run, that is, which need not be the last one the module lists.
    """
    if layer is None:
        layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    else:
        layers = [part for name, part in module.named_modules() if name == layer]
    if not layers:
        raise ParameterError(
            f"feature_layer must name a submodule of {type(module).__name__}, got {layer!r}. "
            "A network without a linear layer needs it, or features= in fit."
        )
    caught: list[Tensor] = []

    def catch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught[:] = [inputs[0].flatten(1)]

    hooks = [part.register_forward_pre_hook(catch) for part in layers]
    compiled, module._compiled_call_impl = module._compiled_call_impl, None  # it would not see the hooks
    try:
        yield caught
    finally:
        module._compiled_call_impl = compiled
        for hook in hooks:
            hook.remove()


class Enough(KeyboardInterrupt):
    """A callback asks for the end of the training behind an epoch."""


class _Plan(NamedTuple):
    """What one training goes by from epoch to epoch."""

    recorder: Recorder
    batch_size: int
    watched: bool  # whether a callback overrides a per-batch verb
    drops: frozenset[int]  # epochs before which the learning rate is divided
    highest: tuple[float, ...]  # learning rates at the start


class Net(NeuralNetClassifier):
    """A skorch ``NeuralNetClassifier`` with a fast loop over arrays and a record of every row.

    Everything skorch's parameters say still holds; what differs: rows that fit stay on the device
    and a batch is an index, per-batch callbacks run only if a callback overrides those verbs, all
    randomness is local, nothing is held out for validation, and a loss that is not finite is an
    error. An interrupt is passed on; only skorch's ``EarlyStopping`` ends a training in peace.
    ``X`` may be any array or a :class:`noisefilter.batches.Rows`; ``y`` are class numbers.

    Who wants to do something between the epochs drives them: ``initialize``, ``begin`` inside a
    :func:`local_seed`, then ``run_epoch`` inside ``drawing`` for each, and ``end``. Such a training can be
    taken up again in another process from ``state``, with the same bits.

    Parameters
    ----------
    module : type of torch.nn.Module
        As in skorch, with ``module__...`` arguments.
    augment : callable, optional
        ``augment(batch, generator) -> batch``, applied in training only.
    criterion : type of torch.nn.Module, default=CrossEntropyLoss
        As in skorch, with ``criterion__...`` arguments. Those of :mod:`noisefilter.criteria` resist wrong
        labels; one that keeps something of each row is told which rows it sees. A criterion of your own that
        is no ``CrossEntropyLoss`` needs skorch's ``predict_nonlinearity``, or outputs are taken for
        probabilities as they are.
    objective : {"cross_entropy", "cross_entropy_ne", "mixup"}, default="cross_entropy"
        ``"cross_entropy"`` is the plain objective with whatever ``criterion`` is given;
        ``"cross_entropy_ne"`` adds the mean negative entropy of the predictions,
        the sum of ``p log p`` over classes, which punishes being sure (the confidence penalty of DivideMix,
        Li et al., 2020); ``"mixup"`` mixes rows and objectives of a batch (Zhang et al., 2018).
    mixup_alpha : float, default=1.0
        Beta(alpha, alpha) parameter of mixup, greater than 0.
    lr_drops : tuple of float, default=()
        Shares of the training, in (0, 1), after which the learning rate is divided.
    lr_drop_factor : float, default=5
        What it is divided by.
    schedule : {"steps", "cyclical"}, default="steps"
        ``"cyclical"`` adds a second phase after the ``max_epochs`` ordinary epochs, and records that phase
        only (O2U-Net, Huang et al., 2019): in the s-th epoch of each cycle the learning rate is that of the
        start, lowered by the share ``0.9 * s / cycle_epochs``, so it falls linearly to a tenth.
    n_cycles : int, default=3
        Cycles of ``"cyclical"``.
    cycle_epochs : int, default=10
        Epochs of a cycle.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        ``"auto"`` trains in bfloat16 on CUDA, and on a CPU with bfloat16 instructions if the module
        says it is faster there (``cpu_bfloat16 = True``); elsewhere in float32. Inference uses
        bfloat16 only after it has ranked 1,000 rows as float32 does (Spearman >= 0.999).
    feature_layer : str, optional
        Name of the submodule whose input are the features; the last linear layer to run by default.
    record : tuple of str, default=()
        Per-row signals to record in training: ``"losses"``, ``"margins"``, ``"predictions"``,
        ``"mean_probs"``.
    record_from : {"training", "evaluation"}, default="training"
        Whether they are recorded from the training itself, at no cost, or from an evaluation pass after
        each epoch that needs them. With ``"mixup"``, where no training output belongs to one row, it is
        always the pass.
    random_state : int, RandomState or None, default=None
        Seeds weights, order, augmentation, mixup and dropout.
    compile : bool, default=False
        Compile the module by ``torch.compile``, with ``compile__...`` arguments: worth its minute where
        trainings are long and batches small for the GPU. Features are read by the module as it is.

    Attributes
    ----------
    recorded_ : Recorded
        What ``record`` asked for, as arrays in row order.
    """

    def __init__(
        self,
        module: type[nn.Module],
        *args: Any,
        criterion: Any = nn.CrossEntropyLoss,
        train_split: Any = None,
        max_epochs: int = 30,
        lr: float = 0.05,
        augment: Augment | None = None,
        objective: str = "cross_entropy",
        mixup_alpha: float = 1.0,
        lr_drops: tuple[float, ...] = (),
        lr_drop_factor: float = 5.0,
        schedule: str = "steps",
        n_cycles: int = 3,
        cycle_epochs: int = 10,
        precision: str = "auto",
        feature_layer: str | None = None,
        record: tuple[str, ...] = (),
        record_from: str = "training",
        random_state: Any = None,
        **kwargs: Any,
    ):
        super().__init__(
            module,
            *args,
            criterion=criterion,
            train_split=train_split,
            max_epochs=max_epochs,
            lr=lr,
            **kwargs,
        )
        self.augment = augment
        self.objective = objective
        self.mixup_alpha = mixup_alpha
        self.lr_drops = lr_drops
        self.lr_drop_factor = lr_drop_factor
        self.schedule = schedule
        self.n_cycles = n_cycles
        self.cycle_epochs = cycle_epochs
        self.precision = precision
        self.feature_layer = feature_layer
        self.record = record
        self.record_from = record_from
        self.random_state = random_state

    module_: Any
    _plan: _Plan | None = None
    # Attributes that change from epoch to epoch, beside those of modules, optimizers and recorder.
    _kept_tensors: tuple[str, ...] = ()
    _kept_values: tuple[str, ...] = ("bfloat16_inference_",)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        return []  # skorch's defaults time, score and print every epoch; the progress bar does that here

    def initialize(self) -> Net:
        """Initialize everything, from ``random_state`` alone."""
        self._check_parameters()
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        with local_seed(self.seed_, self._torch_device):
            super().initialize()
        self.bfloat16_inference_: bool | None = None
        return self

    def torch_compile(self, module: Any, name: str) -> Any:
        """Compile a module in place where ``compile=True``: the names of its tensors stay, and its class.

        Criteria are left as they are, for what they are is asked.
        """
        if self.compile and name in self._modules:
            module.compile(**self.get_params_for("compile"))
        return module

    @property
    def _torch_device(self) -> torch.device:
        return torch.device(self.device or "cpu")  # skorch's None means: leave things where they are

    def _check_parameters(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ParameterError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")
        if not self.mixup_alpha > 0:
            raise ParameterError(f"mixup_alpha must be greater than 0, got {self.mixup_alpha!r}.")
        if unknown := set(self.record) - set(Recorder.FIELDS):
            raise ParameterError(f"record must name some of {Recorder.FIELDS}, got {sorted(unknown)}.")
        for name, least in (("max_epochs", 1), ("n_cycles", 1), ("cycle_epochs", 1)):
            if getattr(self, name) < least:
                raise ParameterError(f"{name} must be at least {least}, got {getattr(self, name)!r}.")
        if self.batch_size < 1 and self.batch_size != -1:
            raise ParameterError(
                f"batch_size must be at least 1, or -1 for all rows at once, got {self.batch_size!r}."
            )

    def fit(self, X: Any, y: Any, **fit_params: Any) -> Net:
        """Train from new weights; with ``warm_start``, from those at hand where there are any."""
        if not self.warm_start or not self.initialized_:
            self.initialize()
        return self.partial_fit(X, y, **fit_params)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, **fit_params: Any) -> Net:
        """Train from the weights at hand."""
        if fit_params:
            raise ParameterError(f"Net.fit must be called with X and y only, got {sorted(fit_params)}.")
        if not self.initialized_:
            self.initialize()
        rows = self._rows(X)
        given = np.asarray(y)
        if given.dtype.kind not in "iub" or given.shape != (len(rows),):
            raise InputError(
                f"y must be {len(rows)} class numbers, one per row of X, got shape {given.shape} "
                f"of {given.dtype}."
            )
        if given.size and given.min() < 0:
            raise InputError(f"y must be class numbers of at least 0, got {given.min()}.")
        codes = torch.from_numpy(given.astype(np.int64)).to(rows.device)
        self.classes_inferred_ = np.unique(given) if classes is None else np.asarray(classes)
        self.notify("on_train_begin", X=rows, y=codes)
        with local_seed(self.seed_, rows.device):
            self._train(rows, codes)
        self.notify("on_train_end", X=rows, y=codes)
        return self

    def _rows(self, X: Any) -> Rows:
        if hasattr(X, "take") and not hasattr(X, "__getitem__"):  # rows already; arrays have items, too
            rows: Rows = X
            return rows
        return as_rows(X, device=self._torch_device, raw=True)

    def _train(self, rows: Rows, codes: Tensor) -> None:
        n_epochs = self._make_ready(rows, codes)
        n_steps = n_epochs * count_batches(len(rows), self._running.batch_size)
        what = f"training {n_epochs} epochs on {len(rows):,} rows"
        try:
            with Progress(what, n_steps, self.verbose > 0) as bar:
                for epoch in range(n_epochs):
                    if self.run_epoch(rows, codes, epoch, bar):
                        break
            self.bfloat16_inference_ = None  # to be measured with the weights as they are now
            self._close()
        finally:
            self._let_go()

    # -- a training that somebody else drives -----------------------------------------------------

    def begin(self, rows: Rows, codes: Tensor) -> int:
        """Make ready for a training on rows with class numbers (n,) on their device; returns its epochs."""
        self.notify("on_train_begin", X=rows, y=codes)
        return self._make_ready(rows, codes)

    def run_epoch(
        self, rows: Rows, codes: Tensor, epoch: int, bar: Progress | None = None, chosen: Tensor | None = None
    ) -> bool:
        """Train one epoch, numbered from 0; returns whether a callback asks for the end.

        Of all rows only those ``chosen``, (m,) row numbers, are learned where these are given.
        """
        recorder, batch_size, watched, *_ = self._running
        n_rows = len(rows) if chosen is None else len(chosen)
        self._set_learning_rate(epoch)
        self.notify("on_epoch_begin", dataset_train=(rows, codes), dataset_valid=None)
        total = torch.zeros((), device=rows.device)
        self.module_.train()
        for index in shuffled(n_rows, batch_size, self.generator_):
            index = index if chosen is None else chosen[index]
            loss, output = self._step(rows, codes, index, self.generator_, watched)
            if recorder.wants(epoch) and not self._evaluates_epochs():
                self._record(recorder, index, output, codes)
            total += loss * len(index)
            if bar is not None:
                bar.step()
        return self._end_epoch(total / n_rows, recorder, rows, codes)

    def notify_epoch_end(self, rows: Rows, codes: Tensor) -> bool:
        """Tell the callbacks that an epoch has ended; returns whether one asks for the end of the training.

        It is for drivers that train an epoch by themselves; :meth:`run_epoch` does it.
        """
        try:
            self.notify("on_epoch_end", dataset_train=(rows, codes), dataset_valid=None)
        except Enough:
            return True
        except KeyboardInterrupt:  # how skorch's EarlyStopping asks for the end
            stopping = [cb for _, cb in self.callbacks_ if isinstance(cb, EarlyStopping)]
            if not any(cb.misses_ == cb.patience for cb in stopping):
                raise
            return True
        return False

    def end(self, rows: Rows, codes: Tensor) -> None:
        """Close a training that :meth:`begin` opened: set ``recorded_``, and let go of what it needed.

        Whether inference uses bfloat16 is settled then, by rows of the training.
        """
        self.settle_inference(rows)
        self._close()
        self._let_go()
        self.notify("on_train_end", X=rows, y=codes)

    @contextmanager
    def drawing(self, *numbers: int) -> Iterator[torch.Generator]:
        """Let all that is drawn inside follow from the net's seed and numbers of at least 0."""
        with local_seed(derived_seed(self.seed_, *numbers), self._torch_device):
            yield self.reseed(*numbers)

    @contextmanager
    def answered_by(self, module: nn.Module | None) -> Iterator[None]:
        """Let another module, a moving average say, answer for the net's own; None leaves it at that."""
        own = self.module_
        self.module_ = own if module is None else module
        try:
            yield
        finally:
            self.module_ = own

    def rows_of_batch(self, n_rows: int) -> int:
        """Return how many of so many rows make a batch: all of them with a ``batch_size`` of -1."""
        return n_rows if self.batch_size == -1 else int(self.batch_size)

    def steps_of_epoch(self, n_rows: int) -> int:
        """Return how many steps an epoch over so many rows has."""
        return count_batches(n_rows, self.rows_of_batch(n_rows))

    def reseed(self, *numbers: int) -> torch.Generator:
        """Seed order and augmentation of what comes next from the net's seed and numbers of at least 0.

        An epoch that is seeded by its own number needs nothing that earlier ones have drawn. Whether
        inference may use bfloat16 is measured again too, for the weights will not stay what they are.
        """
        # The second word: the first, derived_seed, is for dropout, which must not draw the same numbers.
        seed = np.random.SeedSequence([self.seed_, *numbers]).generate_state(2)[1]
        self.bfloat16_inference_ = None
        self.host_generator_.manual_seed(int(seed))
        return self.generator_.manual_seed(int(seed))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what steps have changed, between :meth:`begin` and :meth:`end`, for :meth:`go_back`.

        Returns
        -------
        tensors : dict of str to Tensor
            Copies, on the net's device, by names such as ``"module.linear.weight"`` and
            ``"optimizer.0.momentum_buffer"``.
        rest : dict
            Plain values that JSON can write.
        """
        tensors, optimizers = self._own_tensors(), {}
        for name in self._optimizers:
            found, optimizers[name] = optimizer_state(getattr(self, name + "_"))
            tensors |= named(name + ".", found)
        rest = {"tensors": sorted(tensors), "optimizers": optimizers}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}, rest

    def go_back(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Be what :meth:`snapshot` was asked for, but for what follows the number of the epoch.

        That goes on: learning rates are those of now, and history and records stay as they are.

        Parameters
        ----------
        tensors, rest
            As :meth:`snapshot` returned them; tensors may lie on any device, ``rest`` may have been JSON.

        Raises
        ------
        InputError
            If tensors are missing or foreign, or of another shape or type. Nothing is changed then.
        """
        groups = [group for name in self._optimizers for group in getattr(self, name + "_").param_groups]
        rates = [group["lr"] for group in groups]
        recorded = {name: tensor.clone() for name, tensor in self._recorded().items()}
        self._load(tensors, rest)
        groups = [group for name in self._optimizers for group in getattr(self, name + "_").param_groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        for name, tensor in self._recorded().items():
            tensor.copy_(recorded[name])

    def _load(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        prefixes = tuple(name + "." for name in self._optimizers)
        own = self._own_tensors()
        check_tensors(tensors, own, {name for name in rest["tensors"] if name.startswith(prefixes)})
        for name in self._optimizers:
            saved = behind(name + ".", tensors)
            load_optimizer_state(getattr(self, name + "_"), saved, rest["optimizers"][name])
        for name, part in self._parts().items():
            part.load_state_dict(behind(name + ".", tensors))
        for name, tensor in self._kept().items():
            tensor.copy_(tensors[name])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the epochs to come depend on, between :meth:`begin` and :meth:`end`.

        Not in it: what callbacks remember, and generators, for :meth:`reseed` makes them anew.

        Returns
        -------
        tensors, rest
            As of :meth:`snapshot`.
        """
        tensors, rest = self.snapshot()
        recorder = self._running.recorder
        plain = (bool, int, float, str, type(None))
        return tensors, rest | {
            "values": {name: getattr(self, name) for name in self._kept_values},
            "recorded": {"epoch": recorder.epoch, "rates": list(recorder.rates)},
            "history": [{k: v for k, v in row.items() if isinstance(v, plain)} for row in self.history],
        }

    def load_state(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for; call it behind :meth:`begin`, with equal parameters.

        Parameters and errors are those of :meth:`go_back`.
        """
        self._load(tensors, rest)
        for name in self._kept_values:
            setattr(self, name, rest["values"][name])
        recorder = self._running.recorder
        recorder.epoch, recorder.rates = rest["recorded"]["epoch"], list(rest["recorded"]["rates"])
        self.history[:] = [{"batches": [], **row} for row in rest["history"]]

    def _own_tensors(self) -> dict[str, Tensor]:
        """All tensors that training changes but those of the optimizers, which come with the first step."""
        tensors = self._kept()
        for name, part in self._parts().items():
            tensors |= named(name + ".", part.state_dict())
        return tensors

    def _parts(self) -> dict[str, nn.Module]:
        return {name: getattr(self, name + "_") for name in (*self._modules, *self._criteria)}

    def _kept(self) -> dict[str, Tensor]:
        kept = {name: getattr(self, name) for name in self._kept_tensors}
        return kept | self._recorded()

    def _recorded(self) -> dict[str, Tensor]:
        return named("recorded.", self._running.recorder.tensors())

    @property
    def _running(self) -> _Plan:
        if self._plan is None:
            raise RuntimeError("Net.begin must have been called, and Net.end not yet, got no training.")
        return self._plan

    def _make_ready(self, rows: Rows, codes: Tensor) -> int:
        n_classes = self._prepare(rows, codes)
        self._check_criterion(len(rows))
        cyclical = self.n_cycles * self.cycle_epochs if self.schedule == "cyclical" else 0
        n_epochs, first = self.max_epochs + cyclical, self.max_epochs if cyclical else 0
        self._plan = _Plan(
            recorder=Recorder(tuple(self.record), len(rows), n_classes, n_epochs, rows.device, first),
            batch_size=self.rows_of_batch(len(rows)),
            watched=any(_overrides(cb, verb) for verb in _BATCH_VERBS for _, cb in self.callbacks_),
            drops=frozenset(max(1, int(share * self.max_epochs)) for share in self.lr_drops),
            highest=tuple(group["lr"] for group in self._parameter_groups()),
        )
        self.generator_ = torch.Generator(rows.device).manual_seed(self.seed_)
        # The Dirichlet sampler has none for CUDA, and a number drawn there would have to be waited for.
        self.host_generator_ = self.generator_
        if rows.device.type != "cpu":
            self.host_generator_ = torch.Generator().manual_seed(self.seed_)
        return n_epochs

    def _check_criterion(self, n_rows: int) -> None:
        kept = getattr(self.criterion_, "n_rows", n_rows)
        if kept < n_rows:
            raise ParameterError(
                f"criterion__n_rows must be at least the number of rows ({n_rows}), got {kept}."
            )
        if isinstance(self.criterion_, ELRLoss | LabelDistributionLoss) and self.objective == "mixup":
            raise ParameterError(
                f"objective must not be 'mixup' with {type(self.criterion_).__name__}, whose targets would "
                "be predictions of mixtures."
            )

    def _close(self) -> None:
        if self.record:
            self.recorded_ = self._running.recorder.result()

    def _let_go(self) -> None:
        self._plan = None
        del self.generator_, self.host_generator_

    # -- one epoch --------------------------------------------------------------------------------

    def _prepare(self, rows: Rows, codes: Tensor) -> int:
        """Make the module ready for these rows; returns how many classes it tells apart."""
        self.__dict__.pop("recorded_", None)
        if isinstance(getattr(self.module_, "standardize", None), Standardize):
            mean, deviation = statistics(rows)
            if not torch.isfinite(mean).all():
                raise InputError("X must be finite, got NaN or infinity.")
            self.module_.standardize.set(mean, deviation)
        self.lay_out()
        self._begin_momentum()
        shape = tuple(self.predict_batch(rows.take(torch.arange(1, device=rows.device))).shape)
        needed = int(codes.max()) + 1
        if len(shape) != 2 or shape[1] < needed:
            raise ParameterError(
                f"module must give one output per class ({needed}) and row, got shape {shape} for one row."
            )
        return shape[1]

    def _begin_momentum(self) -> None:
        """Let fused SGD begin with a momentum of zero, laid out as the weights now are.

        Torch's own leaves it unset until a weight has a gradient, and fails where only some have had one. Nor
        does it look at the layout: it would take the numbers as they lie.
        """
        for name in self._optimizers:
            optimizer = getattr(self, name + "_")
            for group in optimizer.param_groups if isinstance(optimizer, torch.optim.SGD) else ():
                if group["fused"] and group["momentum"] and not group["dampening"]:
                    for weight in group["params"]:
                        optimizer.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))

    def lay_out(self) -> None:
        """Let the module's weights lie in memory as training has them: sums depend on it in the last bit."""
        if not any(parameter.dim() == 5 for parameter in self.module_.parameters()):  # of 3-D convolutions
            self.module_.to(memory_format=torch.channels_last)

    def _step(
        self, rows: Rows, codes: Tensor, index: Tensor, generator: torch.Generator, watched: bool
    ) -> tuple[Tensor, Tensor]:
        """Update once; returns the detached loss and output."""
        x, target = rows.take(index), codes[index]
        if watched:
            self.notify("on_batch_begin", batch=(x, target), training=True)
        if self.augment is not None:
            x = self.augment(x, generator)
        if self.objective == "mixup":
            x, objective = self._mixup(x, target, index, generator)
        else:
            objective = self._plain(target, index)
        for name in self._optimizers:
            getattr(self, name + "_").zero_grad(set_to_none=True)
        with self._autocast(self._half_training()):
            output = first_output(self.module_(x))
        output = output.float()
        loss = objective(output)
        loss.backward()
        if watched:
            named = list(self.module_.named_parameters())
            self.notify("on_grad_computed", named_parameters=named, X=x, y=target)
        for name in self._optimizers:
            getattr(self, name + "_").step()
        loss, output = loss.detach(), output.detach()
        if watched:
            self.history.record_batch("train_loss", float(loss))
            self.notify("on_batch_end", batch=(x, target), training=True, loss=loss, y_pred=output)
        return loss, output

    def _loss(self, output: Tensor, target: Tensor, index: Tensor, training: bool = True) -> Tensor:
        """Return what the criterion says, which may want to know which rows these are."""
        told = (target, index) if isinstance(self.criterion_, IndexedLoss) else target
        loss: Tensor = self.get_loss(output, told, training=training)
        return loss

    def _plain(self, target: Tensor, index: Tensor) -> Callable[[Tensor], Tensor]:
        if self.objective == "cross_entropy":
            return lambda output: self._loss(output, target, index)
        return lambda output: self._loss(output, target, index) + negative_entropy(self._probs(output)).mean()

    def _mixup(
        self, x: Tensor, target: Tensor, index: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Mix the batch with a permutation of itself, and the objectives with the same weight."""
        alpha = torch.full((2,), self.mixup_alpha, dtype=torch.float64)
        # Beta(alpha, alpha) is the Dirichlet distribution of two.
        weight: float = torch._sample_dirichlet(alpha, generator=self.host_generator_).tolist()[0]
        order = torch.randperm(len(x), generator=generator, device=generator.device)
        x = x if x.is_floating_point() else x.float()
        mixed = torch.lerp(x[order], x, weight)

        def objective(output: Tensor) -> Tensor:
            own = self._loss(output, target, index)
            other = self._loss(output, target[order], index[order])
            return weight * own + (1 - weight) * other

        return mixed, objective

    def _evaluates_epochs(self) -> bool:
        return self.objective == "mixup" or self.record_from == "evaluation"

    def _record(self, recorder: Recorder, index: Tensor, output: Tensor, codes: Tensor) -> None:
        target = codes[index]
        losses = self._row_losses(output, target, index) if recorder.losses is not None else None
        probs = self._probs(output) if recorder.prob_sum is not None else output
        if isinstance(self.criterion_, nn.NLLLoss):  # the output is probabilities, as skorch reads it
            output = torch.log(output + torch.finfo(output.dtype).eps)
        recorder.batch(index, probs, output, target, losses)

    def _row_losses(self, output: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Loss of every row by the net's own criterion, which remembers nothing of it."""
        reduction = getattr(self.criterion_, "reduction", None)
        if reduction is None:
            raise ParameterError(f"criterion must have a reduction to record losses, got {self.criterion!r}.")
        training = self.criterion_.training
        self.criterion_.reduction = "none"
        self.criterion_.eval()
        try:
            return self._loss(output, target, index, training=False)
        finally:
            self.criterion_.reduction = reduction
            self.criterion_.train(training)

    def _end_epoch(self, loss: Tensor, recorder: Recorder, rows: Rows, codes: Tensor) -> bool:
        """Close the epoch; returns whether training is to end here."""
        check_finite_loss(float(loss), recorder.epoch)
        rate = self.optimizer_.param_groups[0]["lr"] if hasattr(self, "optimizer_") else float("nan")
        if self._evaluates_epochs() and recorder.wants(recorder.epoch):
            with self.evaluating():
                for index in in_order(rows, _EVAL_BATCH):
                    self._record(recorder, index, self.outputs(rows.take(index)), codes)
        recorder.end_epoch(rate)
        self.history.record("train_loss", float(loss))
        self.history.record("event_lr", rate)
        return self.notify_epoch_end(rows, codes)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        return [group for name in self._optimizers for group in getattr(self, name + "_").param_groups]

    def _set_learning_rate(self, epoch: int) -> None:
        if epoch >= self.max_epochs:
            self._cycle_learning_rate(epoch - self.max_epochs)
        elif epoch in self._running.drops:
            self._divide_learning_rate()

    def set_learning_rate(self, rate: float) -> None:
        """Let the learning rate be this from now on, until the next drop."""
        for group in self._parameter_groups():
            group["lr"] = rate

    def _divide_learning_rate(self) -> None:
        for group in self._parameter_groups():
            group["lr"] /= self.lr_drop_factor

    def _cycle_learning_rate(self, epoch: int) -> None:
        """Lower the learning rate, in epochs 0, 1, ... of the cycles, linearly to a tenth of the highest."""
        share = 1.0 - 0.9 * (1 + epoch % self.cycle_epochs) / self.cycle_epochs
        for group, rate in zip(self._parameter_groups(), self._running.highest, strict=True):
            group["lr"] = rate * share

    def _autocast(self, half: bool) -> AbstractContextManager[Any]:
        return torch.autocast(self._torch_device.type, torch.bfloat16) if half else nullcontext()

    def _half_training(self) -> bool:
        if self.precision != "auto":
            return self.precision == "bfloat16"
        if self._torch_device.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        wanted = getattr(self.module_, "cpu_bfloat16", False) and torch.backends.mkldnn.is_available()
        return bool(wanted and torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def zero_gradients(self) -> None:
        """Forget the gradients of the step before."""
        for name in self._optimizers:
            getattr(self, name + "_").zero_grad(set_to_none=True)

    def descend(self, x: Tensor, target: Tensor) -> None:
        """Step down the gradients at hand; callbacks that ask for them are told before."""
        if any(_overrides(cb, "on_grad_computed") for _, cb in self.callbacks_):
            named = list(self.module_.named_parameters())  # a generator is empty for the second callback
            self.notify("on_grad_computed", named_parameters=named, X=x, y=target)
        for name in self._optimizers:
            getattr(self, name + "_").step()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Go into evaluation mode without gradients, and back behind it."""
        training = self.module_.training
        self.module_.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.module_.train(training)

    def outputs(self, x: Tensor, half: bool = False) -> Tensor:
        """Return what the module gives for a batch, in float32."""
        with self._autocast(half):
            return first_output(self.module_(x)).float()

    def _probs(self, output: Tensor) -> Tensor:
        """Probabilities from the module's output, as skorch's ``predict_nonlinearity`` has it."""
        probs: Tensor = self._get_predict_nonlinearity()(output)
        return probs

    def log_probs(self, output: Tensor) -> Tensor:
        """Return log-probabilities (b, K), with finite slopes, from logits or what NLLLoss takes, (b, K)."""
        if isinstance(self.criterion_, nn.NLLLoss):  # the output is probabilities, as skorch reads it
            return output.clamp_min(torch.finfo(output.dtype).eps).log()
        return torch.log_softmax(output, dim=1)

    def two_views(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return two views of a batch: itself twice where nothing outside the network makes two."""
        if self.augment is None:
            return x, x
        # In turn: an augmentation may draw one transform for all rows it is given.
        return self.augment(x, generator), self.augment(x, generator)

    def predict_batch(self, x: Tensor) -> Tensor:
        """Return probabilities (b, K) of a batch in evaluation mode."""
        with self.evaluating():
            return self._probs(self.outputs(x, half=bool(self.bfloat16_inference_)))

    def settle_inference(self, rows: Rows) -> None:
        """Decide by these rows whether inference uses bfloat16, unless that has been since :meth:`reseed`."""
        if self.bfloat16_inference_ is None:
            self._choose_inference(rows)

    def _choose_inference(self, rows: Rows) -> None:
        """Allow bfloat16 for inference if it ranks rows as float32 does."""
        self.bfloat16_inference_ = False
        if not self._half_training():
            return
        x = rows.take(torch.arange(min(len(rows), 1000), device=rows.device))
        with self.evaluating():
            exact, fast = (self._probs(self.outputs(x, half)).amax(1).cpu().numpy() for half in (False, True))
        if len(exact) > 2 and np.ptp(exact) > 0:
            self.bfloat16_inference_ = bool(spearmanr(exact, fast).statistic >= 0.999)

    def evaluate(
        self, X: Any, features: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Return probabilities (n, K) and, if asked for, features (n, d), from one evaluation pass."""
        rows = self._rows(X)
        self.settle_inference(rows)
        catching: AbstractContextManager[list[Tensor]] = nullcontext([])
        if features:
            catching = caught_features(self.module_, self.feature_layer)
        with catching as caught:
            batches = (self.predict_batch(rows.take(index)) for index in in_order(rows, _EVAL_BATCH))
            found = gathered(((probs, *(c.float() for c in caught)) for probs in batches), len(rows))
        return found[0], found[1] if features else None

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return probabilities (n, K)."""
        return self.evaluate(X)[0]


def check_finite_loss(loss: float, epoch: int | None = None) -> None:
    """Raise TrainingDivergedError unless the loss of an epoch, numbered from 0, is finite."""
    if not np.isfinite(loss):
        where = "" if epoch is None else f" in epoch {epoch + 1}"
        raise TrainingDivergedError(
            f"The training loss must stay finite, got {loss}{where}. A smaller lr= usually helps."
        )


def check_finite_outputs(*outputs: NDArray[Any]) -> None:
    """Raise TrainingDivergedError unless all that a trained network says is finite."""
    if not all(np.isfinite(output).all() for output in outputs):
        raise TrainingDivergedError(
            "The trained network must give finite outputs, got NaN or infinity. A smaller lr= usually helps."
        )


def _overrides(callback: Callback, verb: str) -> bool:
    return getattr(type(callback), verb) is not getattr(Callback, verb)


def first_output(output: Any) -> Tensor:
    """Return what a module gives, or the first of several things: the others are its own affair."""
    first: Tensor = output[0] if isinstance(output, tuple) else output
    return first
