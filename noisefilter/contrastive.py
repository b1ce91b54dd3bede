"""Jo-SRC's training: two views of every row, three kinds of rows, and a mean teacher.

Y. Yao et al., "Jo-SRC: a contrastive approach for combating noisy labels", CVPR 2021, Algorithm 1.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback
from torch import Tensor, nn

from noisefilter import estimates, losses
from noisefilter.batches import Rows, gathered, in_order, picked
from noisefilter.errors import ParameterError
from noisefilter.net import Net, caught_features, check_finite_outputs, first_output, local_seed
from noisefilter.networks import SevenLayerCNN
from noisefilter.rewind import EarlyStates
from noisefilter.scores import scheduled_threshold
from noisefilter.states import behind, named
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE

_EVAL_BATCH = 1000
_HELD = "held"  # name of a tensor in the state
_EARLY = "early."  # in front of the names of others
_FEWEST_CLEAN = 0.01  # of the rows; fewer, and the threshold stops rising
_FADING = 0.5  # of earlier epochs, in each
_RAMP = 9  # n / (n + 9) is the decay that looks back over a tenth of n steps
LEARN_FROM = ("clean", "clean+id", "all")


class Views(NamedTuple):
    """What student and teacher say of some rows after training.

    Attributes
    ----------
    probs : (n, K) array
        The student, of the rows as they are.
    view_probs : (2, n, K) array
        The student, of two random views.
    teacher_probs : (n, K) array
        The teacher, mean over the same views.
    features : (n, d) array
        Input of the student's last linear layer, of the rows as they are.
    """

    probs: NDArray[np.float32]
    view_probs: NDArray[np.float32]
    teacher_probs: NDArray[np.float32]
    features: NDArray[np.float32]


class MeanTeacher:
    """A moving average of a network in training, in evaluation mode.

    Running statistics move along with the parameters; with those of the start, a network in evaluation mode
    would say nothing of use.

    Parameters
    ----------
    student : torch.nn.Module
        The network as it is at the start.
    decay : float
        Weight of the past in each step, in [0, 1]. It grows to this: the average goes over a tenth of the
        steps so far until that is what the decay looks back to.

    Attributes
    ----------
    module : torch.nn.Module
        The average.
    """

    def __init__(self, student: nn.Module, decay: float):
        self.decay = decay
        self.n_steps = 0
        self.module = copy.deepcopy(student).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards the student, Eq. (8) of Jo-SRC."""
        decay = min(self.decay, self.n_steps / (self.n_steps + _RAMP))
        self.n_steps += 1
        pairs = list(zip(_state(self.module), _state(student), strict=True))
        moved = [pair for pair in pairs if pair[0].is_floating_point()]
        own, other = ([pair[k] for pair in moved] for k in range(2))
        torch._foreach_lerp_(own, other, 1.0 - decay)  # one kernel for a hundred tensors
        for count, newer in pairs:
            if not count.is_floating_point():
                count.copy_(newer)

    @torch.no_grad()
    def hand_over(self, student: nn.Module) -> None:
        """Give the student the weights and running statistics of the average."""
        for own, other in zip(_state(self.module), _state(student), strict=True):
            other.copy_(own)


class TwoViewNet(Net):
    r"""A :class:`~noisefilter.Net` that is trained by Jo-SRC's Algorithm 1.

    Two views of a row come from the same random transform: ``augment`` for images. Rows that have none are
    seen twice through what is random inside the network, its dropout and input noise; a network without
    either sees the same twice, and then no row disagrees with itself.

    Parameters
    ----------
    module
        As in :class:`~noisefilter.Net`, with all its other parameters. The objective is Jo-SRC's; of the
        criterion only its kind is read: the module gives logits for cross-entropy, probabilities for NLLLoss.
    eps_target, eps_js : float
        Smoothing of the labels that clean rows learn, and of those that likelihoods are measured against; in
        [0, 1).
    warmup_epochs : int
        :math:`t_w`: so many epochs learn from rows taken for clean alone; at most, where there are
        `planted_rows`.
    warmup_threshold, final_threshold : float
        :math:`\tau_c` and :math:`\tau_m`: thresholds of the clean likelihood when the warm-up and when the
        training ends; Eq. (12) puts straight lines between them.
    least_clean : float
        Share of the rows of each class that are taken for clean at least, in [0, 1]: those that were most
        likely so in the epoch before, whatever the threshold.
    consistency : float
        :math:`\alpha`, weight of the consistency between the views, in [0, 1].
    teacher_decay : float
        :math:`\omega`, in [0, 1].
    ood_temperature : float
        s of Eq. (7).
    ood_cap : float
        Largest divergence, in nats, that the views of rows out of distribution are driven to.
    learn_from : {"clean", "clean+id", "all"}
        Of which groups the batches after the warm-up are made, the ablations of Table 6: rows of others are
        left out of both losses, whose means are over the rows left in.
    planted_rows : (m,) int array, optional
        Rows whose label is a wrong one, planted. When these begin to be learned by heart
        (:func:`noisefilter.estimates.known_by_heart`), looked at after each epoch, the warm-up ends, the
        network and its teacher go back to what they were after about half of these epochs
        (:class:`noisefilter.rewind.EarlyStates`), and the threshold goes on from `warmup_threshold`.

    Attributes
    ----------
    teacher_ : MeanTeacher
        Of this training.
    groups_ : (n,) Tensor
        What each row was taken for in the last epoch. ``history`` has, per epoch, ``threshold``, ``n_clean``,
        ``n_id`` and ``n_ood``.
    warm_epochs_ : int
        Epochs of the warm-up, `warmup_epochs` if it has not ended before.
    """

    # Of what is pickled, skorch moves these to a device at hand, and what it makes itself.
    cuda_dependent_attributes_: ClassVar = [
        *Net.cuda_dependent_attributes_, "teacher_", "groups_", "warm_sum_", "likelihoods_", "limits_",
        "held_clean_", "predicted_",
    ]  # fmt: skip

    def __init__(
        self,
        module: type[nn.Module],
        *args: Any,
        eps_target: float = 0.3,
        eps_js: float = 0.1,
        warmup_epochs: int = 5,
        warmup_threshold: float = 0.71,
        final_threshold: float = 0.9,
        least_clean: float = 0.0,
        consistency: float = 0.5,
        teacher_decay: float = 0.99,
        ood_temperature: float = 10.0,
        ood_cap: float = 5.0,
        learn_from: str = "all",
        planted_rows: NDArray[np.int64] | None = None,
        **kwargs: Any,
    ):
        super().__init__(module, *args, **kwargs)
        self.eps_target = eps_target
        self.eps_js = eps_js
        self.warmup_epochs = warmup_epochs
        self.warmup_threshold = warmup_threshold
        self.final_threshold = final_threshold
        self.least_clean = least_clean
        self.consistency = consistency
        self.teacher_decay = teacher_decay
        self.ood_temperature = ood_temperature
        self.ood_cap = ood_cap
        self.learn_from = learn_from
        self.planted_rows = planted_rows

    _kept_tensors = ("groups_", "warm_sum_", "likelihoods_", "limits_")
    _kept_values = (*Net._kept_values, "epoch_", "warm_epochs_", "threshold_", "last_threshold_", "frozen_")

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name, wanted in (("objective", "cross_entropy"), ("schedule", "steps")):
            if getattr(self, name, wanted) != wanted:
                raise ParameterError(
                    f"{name} must be {wanted!r} where Jo-SRC's loss is trained, got {getattr(self, name)!r}."
                )
        if self.learn_from not in LEARN_FROM:
            raise ParameterError(f"learn_from must be one of {LEARN_FROM}, got {self.learn_from!r}.")

    # -- one epoch after the other ----------------------------------------------------------------

    def _prepare(self, rows: Rows, codes: Tensor) -> int:
        if not isinstance(self.criterion_, nn.CrossEntropyLoss | nn.NLLLoss):
            raise ParameterError(
                "criterion must be CrossEntropyLoss or NLLLoss where Jo-SRC's loss is trained, "
                f"got {type(self.criterion_).__name__}."
            )
        n_classes = super()._prepare(rows, codes)
        self.teacher_ = MeanTeacher(self.module_, self.teacher_decay)
        self.groups_ = torch.zeros(len(rows), dtype=torch.uint8, device=rows.device)
        self.warm_sum_ = torch.zeros((len(rows), n_classes), device=rows.device)
        self.likelihoods_ = torch.ones(len(rows), device=rows.device)
        self.limits_ = torch.full((n_classes,), torch.inf, device=rows.device)
        self.predicted_ = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        self.warm_epochs_ = self.warmup_epochs
        self.epoch_, self.threshold_, self.last_threshold_, self.frozen_ = -1, 0.0, 0.0, False
        self.held_clean_: Tensor | None = None
        self.held_epochs_ = 0
        self.held_on_ = self.alone_ = False
        self.early_ = EarlyStates()
        return n_classes

    def hold(self, clean: NDArray[np.bool_], n_epochs: int) -> None:
        """Take the rows marked, (n,), for clean in the first epochs, and no others.

        Call it behind :meth:`begin`, also before :meth:`load_state`. The others still have a wrong label or
        are out of distribution by whether their views agree.
        """
        self.held_clean_ = torch.from_numpy(clean).to(self.groups_.device)
        self.held_epochs_ = n_epochs

    def learn_alone(self, clean: NDArray[np.bool_]) -> None:
        """Take the rows marked, (n,), for clean to the end, and learn no others, as Jo-SRC-C does."""
        self.alone_ = True
        self.learn_from, self.consistency = "clean", 0.0
        self.hold_on(clean)

    def hold_on(self, clean: NDArray[np.bool_]) -> None:
        """Take the rows marked, (n,), for clean to the end, and no others; :meth:`state` remembers them."""
        self.hold(clean, self.max_epochs)
        self.held_on_ = True

    def _holds(self) -> bool:
        return self.held_clean_ is not None and self.epoch_ < self.held_epochs_

    def end(self, rows: Rows, codes: Tensor) -> None:
        """Close a training that :meth:`begin` opened, and let go of what it needed; see :meth:`Net.end`."""
        super().end(rows, codes)
        self.forget_rows()

    def forget_rows(self) -> None:
        """Let go of what was noted of single rows, all but their groups; :meth:`warm_probs` needs it."""
        del self.warm_sum_, self.likelihoods_, self.held_clean_, self.predicted_, self.early_

    def _let_go(self) -> None:
        super()._let_go()
        self.early_.forget()

    def _parts(self) -> dict[str, nn.Module]:
        return {**super()._parts(), "teacher": self.teacher_.module}

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what steps have changed, of the teacher too, as :meth:`Net.snapshot` does."""
        tensors, rest = super().snapshot()
        return tensors, {**rest, "teacher_steps": self.teacher_.n_steps}

    def _load(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        super()._load(tensors, rest)
        self.teacher_.n_steps = rest["teacher_steps"]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the epochs to come depend on, earlier states too, as :meth:`Net.state` does."""
        tensors, rest = super().state()
        early, early_rest = self.early_.state()
        tensors = tensors | named(_EARLY, early)
        if self.held_on_ and self.held_clean_ is not None:
            tensors[_HELD] = self.held_clean_
        return tensors, {**rest, "alone": self.alone_, "early": early_rest}

    def load_state(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for, as :meth:`Net.load_state` does."""
        own = {name: t for name, t in tensors.items() if name != _HELD and not name.startswith(_EARLY)}
        super().load_state(own, rest)
        if _HELD in tensors:
            hold = self.learn_alone if rest["alone"] else self.hold_on
            hold(tensors[_HELD].cpu().numpy())
        self.early_.load_state(behind(_EARLY, tensors), rest["early"])

    def on_epoch_begin(
        self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kw: Any
    ) -> None:
        """Raise the threshold, unless it has been frozen."""
        super().on_epoch_begin(net, dataset_train, dataset_valid, **kw)
        self.epoch_ += 1
        if self.epoch_ < self.warmup_epochs // 2:
            self.warm_sum_ *= _FADING
        elif self.epoch_ == self.warmup_epochs // 2 < self.warm_epochs_:
            self.warm_sum_.zero_()  # what is read if the warm-up lasts
        self.last_threshold_ = self.threshold_
        if not self.frozen_:
            self.threshold_ = scheduled_threshold(
                self.epoch_, self.max_epochs, self.warm_epochs_, self.warmup_threshold, self.final_threshold
            )

    def on_epoch_end(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kw: Any) -> None:
        """Write down the sizes of the three groups; freeze the threshold where hardly a row reaches it."""
        counts = torch.bincount(self.groups_, minlength=3).tolist()
        self.history.record("threshold", None if self._holds() else self.threshold_)
        for name, group in (("n_clean", CLEAN), ("n_id", ID_NOISE), ("n_ood", OOD_NOISE)):
            self.history.record(name, counts[group])
        few = counts[CLEAN] < _FEWEST_CLEAN * len(self.groups_)
        if few and not self.frozen_ and not self._holds():
            self.threshold_, self.frozen_ = self.last_threshold_, True
        if self.least_clean > 0:
            self._set_limits(dataset_train[1])
        if self.planted_rows is not None and len(self.planted_rows) and self.epoch_ < self.warm_epochs_:
            self._watch(self.planted_rows, *dataset_train)
        super().on_epoch_end(net, dataset_train, dataset_valid, **kw)

    def _watch(self, planted_rows: NDArray[np.int64], rows: Rows, codes: Tensor) -> None:
        """Look at the planted labels at the end of an epoch; where they are learned, end the warm-up.

        If epochs are left, the network is from then on what it was after about half of it.
        """
        planted = picked(rows, planted_rows)
        with self.evaluating():
            seen = [self.outputs(planted.take(index)) for index in in_order(planted, _EVAL_BATCH)]
        # Of the other rows only chance is wanted: as they were seen in training is good enough.
        predicted = self.predicted_.cpu().numpy()
        predicted[planted_rows] = torch.cat(seen).argmax(dim=1).cpu().numpy()
        n_classes = len(self.limits_)
        known = estimates.known_by_heart(predicted, codes.cpu().numpy(), planted_rows, n_classes)
        self.history.record("planted_known", known)
        n_epochs = self.epoch_ + 1
        by_heart = estimates.memorizes(known, n_epochs * self.steps_of_epoch(len(rows)))
        if by_heart:
            self.warm_epochs_ = n_epochs
        earlier = self.early_.step(
            n_epochs, self.snapshot, by_heart=by_heart and n_epochs < self.max_epochs,
            over=n_epochs >= self.warm_epochs_,
        )  # fmt: skip
        if earlier is not None:
            self.go_back(*earlier)
            self.frozen_ = False  # by the network that it was

    def _set_limits(self, codes: Tensor) -> None:
        """Note the likelihood that the wanted share of each class has reached in this epoch."""
        counts = torch.bincount(codes, minlength=len(self.limits_))
        for code, rows in enumerate(torch.argsort(codes, stable=True).split(counts.tolist())):
            if len(rows):
                self.limits_[code] = torch.quantile(self.likelihoods_[rows], 1.0 - self.least_clean)

    # -- one batch --------------------------------------------------------------------------------

    def _step(
        self, rows: Rows, codes: Tensor, index: Tensor, generator: torch.Generator, watched: bool
    ) -> tuple[Tensor, Tensor]:
        """Look twice, judge the rows of the batch, and update student and teacher."""
        x, target = rows.take(index), codes[index]
        if watched:
            self.notify("on_batch_begin", batch=(x, target), training=True)
        views = self.two_views(x, generator)
        for name in self._optimizers:
            getattr(self, name + "_").zero_grad(set_to_none=True)
        with self._autocast(self._half_training()):
            # In turn: each view is normalized by its own statistics.
            outputs = [first_output(self.module_(view)).float() for view in views]
        first, second = (self.log_probs(output) for output in outputs)
        groups = self._groups(first.detach(), second.detach(), target, index)
        self.groups_[index] = groups
        if self.epoch_ < self.warm_epochs_:
            self.warm_sum_[index] += first.detach().exp()
            self.predicted_[index] = first.detach().argmax(dim=1)
        loss = self._objective(first, second, groups, target, views)
        if loss is not None:
            loss.backward()
            if watched:
                named = list(self.module_.named_parameters())
                self.notify("on_grad_computed", named_parameters=named, X=x, y=target)
            for name in self._optimizers:
                getattr(self, name + "_").step()
            self.teacher_.update(self.module_)
        loss = torch.zeros((), device=x.device) if loss is None else loss.detach()
        if watched:
            self.history.record_batch("train_loss", float(loss))
            self.notify(
                "on_batch_end", batch=(x, target), training=True, loss=loss, y_pred=outputs[0].detach()
            )
        return loss, outputs[0].detach()

    def _groups(self, first: Tensor, second: Tensor, target: Tensor, index: Tensor) -> Tensor:
        """Divide the batch by Criteria 3.1 and 3.2."""
        likelihoods = losses.js_likelihood(first, losses.smoothed(target, first.shape[1], self.eps_js))
        self.likelihoods_[index] = likelihoods
        clean = likelihoods >= self.limits_[target].clamp_max(self.threshold_)
        if self.held_clean_ is not None and self._holds():
            clean = self.held_clean_[index]
        rejected = torch.where(first.argmax(1) == second.argmax(1), ID_NOISE, OOD_NOISE)
        return torch.where(clean, CLEAN, rejected).to(torch.uint8)

    def _objective(
        self, first: Tensor, second: Tensor, groups: Tensor, target: Tensor, views: tuple[Tensor, Tensor]
    ) -> Tensor | None:
        """Return the loss of the batch, ``None`` where there is nothing in it to learn from."""
        clean, strange = groups == CLEAN, groups == OOD_NOISE
        targets = losses.smoothed(target, first.shape[1], self.eps_target)
        if self.epoch_ < self.warm_epochs_:
            if not clean.any():
                return None
            return losses.two_view_cross_entropy(first[clean], second[clean], targets[clean]).mean()
        if self.learn_from != "clean":
            taught = self._taught(views, half=self._half_training())
            targets = torch.where(clean[:, None], targets, taught)
            targets = torch.where(strange[:, None], losses.softened(taught, self.ood_temperature), targets)
        if self.learn_from != "all":
            learned = clean if self.learn_from == "clean" else ~strange
            if not learned.any():
                return None
            first, second, targets, strange = (t[learned] for t in (first, second, targets, strange))
        return losses.josrc_loss(first, second, targets, strange, self.consistency, self.ood_cap)

    def _taught(self, views: tuple[Tensor, Tensor], half: bool = False) -> Tensor:
        """Return the teacher's probabilities (b, K), mean over two views; equal views are looked at once."""
        once = views[0] is views[1]
        with torch.no_grad(), self._autocast(half):
            output = first_output(self.teacher_.module(views[0] if once else torch.cat(views))).float()
        probs = self._probs(output)
        return probs if once else (probs[: len(views[0])] + probs[len(views[0]) :]) / 2

    def warm_probs(self) -> NDArray[np.float32] | None:
        """Return the first view's probabilities (n, K) averaged over the second half of the warm-up.

        Of a warm-up that ended in its first half, over all of it, an epoch counting half of the next; of one
        that was gone back in, over the epochs before. ``None`` without a warm-up. Nobody has told the network
        what to say of rejected rows by then.
        """
        # Each look adds a distribution; where an epoch was interrupted, some rows had one more than others.
        seen = self.warm_sum_.sum(dim=1, keepdim=True)
        return (self.warm_sum_ / seen).cpu().numpy() if seen.min() > 0 else None

    # -- after training ---------------------------------------------------------------------------

    def look(self, rows: Rows, random: bool = True) -> Views:
        """Return what student and teacher say of rows and of two views of them.

        The views are seeded, but those of a row depend on which rows are before it. With ``random=False``
        both are the row as it is.
        """
        generator = torch.Generator(rows.device).manual_seed(self.seed_)

        def looks() -> Iterator[tuple[Tensor, ...]]:
            for index in in_order(rows, _EVAL_BATCH):
                x = rows.take(index)
                with caught_features(self.module_, self.feature_layer) as caught:
                    probs = self._probs(self.outputs(x))
                    features = caught[0].float()
                views, seen = (x, x), (probs, probs)
                if random:
                    views = self.two_views(x, generator)
                    with self._restless():
                        seen = self._probs(self.outputs(views[0])), self._probs(self.outputs(views[1]))
                yield probs, torch.stack(seen, dim=1), self._taught(views), features

        with local_seed(self.seed_, rows.device), self.evaluating():
            found = gathered(looks(), len(rows))
        check_finite_outputs(*found)
        return Views(found[0], found[1].transpose(1, 0, 2), *found[2:])

    @contextmanager
    def _restless(self) -> Iterator[None]:
        """Leave dropout and noise on where nothing else makes the views differ; statistics stay still."""
        if self.augment is None:
            for part in self.module_.modules():
                part.training = not any(True for _ in part.buffers(recurse=False))
        try:
            yield
        finally:
            self.module_.eval()


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


class AdamDecay(Callback):
    """The schedule of the official codes of Jo-SRC and JoCoR for Adam.

    After 80 of 200 epochs its first beta falls to 0.1 at once, and its rate begins to fall to zero in
    a straight line.

    Parameters
    ----------
    start : float, default=0.4
        Share of the training after which this happens.
    late_beta : float, default=0.1
        Adam's first beta from then on.
    """

    def __init__(self, start: float = 0.4, late_beta: float = 0.1):
        self.start = start
        self.late_beta = late_beta

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Note the learning rate at the start."""
        self.lr_ = net.optimizer_.param_groups[0]["lr"]

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Set learning rate and beta."""
        start = self.start * net.max_epochs
        epoch = len(net.history) - 1  # that of now is in it
        if epoch >= start:
            for group in net.optimizer_.param_groups:
                group["lr"] = self.lr_ * (net.max_epochs - epoch) / (net.max_epochs - start)
                group["betas"] = (self.late_beta, group["betas"][1])


class JoSRCNetwork(SevenLayerCNN):
    """The network of Jo-SRC's official code: six convolutions and a head of 512 hidden units."""

    def __init__(self, n_channels: int, n_classes: int, image_size: int = 32):
        super().__init__(n_channels, n_classes, image_size, hidden=512)


def two_view_net(net: Net, optimizer: str, settings: dict[str, Any]) -> TwoViewNet:
    """Return an untrained :class:`TwoViewNet` with the parameters of an untrained ``net``.

    Parameters
    ----------
    net : Net
        Its module, optimizer, augmentation and the rest are taken over.
    optimizer : {"own", "adam"}
        ``"adam"`` puts the Adam of the official code, with its schedule, in place of the net's own.
    settings : dict
        The parameters that :class:`TwoViewNet` adds.
    """
    parameters = net.get_params(deep=False)
    if optimizer == "adam":
        parameters = with_adam(parameters)
    return TwoViewNet(**parameters, **settings)


def with_adam(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of a net with Adam and :class:`AdamDecay` in place of its own optimizer."""
    parameters = {name: value for name, value in parameters.items() if not name.startswith("optimizer")}
    callbacks = parameters["callbacks"] if isinstance(parameters["callbacks"], list | tuple) else []
    callbacks = [*callbacks, ("adam_decay", AdamDecay())]
    return parameters | {"optimizer": torch.optim.Adam, "lr_drops": (), "callbacks": callbacks}
