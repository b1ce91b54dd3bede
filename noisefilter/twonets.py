"""Two networks in one training: a warm-up with planted labels, what is seen of the rows, the verdict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noisefilter import estimates
from noisefilter.batches import Rows, picked
from noisefilter.contrastive import with_adam
from noisefilter.errors import InputError
from noisefilter.models import NetModel, build_net, check_outputs
from noisefilter.net import Net, check_finite_outputs, local_seed
from noisefilter.progress import Progress
from noisefilter.rewind import EarlyStates
from noisefilter.scores import unpenalized
from noisefilter.seen import SeenRows
from noisefilter.semisupervised import TRAINED
from noisefilter.states import behind, named
from noisefilter.verdict import Verdict
from noisefilter.weights import Place, load_network, network_state

__all__ = [
    "CoTrained",
    "TwoNetTraining",
    "given_rate",
    "longest_warmup",
    "together",
    "two_nets",
]

_SMALLEST = 1e-12
_WARMUP_STEPS = 1_500
_EARLY = "early."  # in front of the names of tensors in a checkpoint


def two_nets(
    estimator: Any,
    network: type[nn.Module] | None,
    rows: Rows,
    n_classes: int,
    settings: dict[str, Any],
    training: dict[str, Any],
    rng: np.random.RandomState,
    optimizer: str = "own",
) -> tuple[Net, Net]:
    """Return two untrained nets from one prototype, or of the default kind, that differ in their seeds.

    With ``optimizer="adam"`` they have the Adam of :func:`noisefilter.contrastive.with_adam`.

    Raises
    ------
    InputTypeError
        If the prototype is no network, or one whose training is its own.
    """
    nets = []
    for _ in range(2):
        net = build_net(
            estimator, rows, n_classes, network=network, settings=settings, training=training,
            seed=int(rng.randint(2**31 - 1)),
        )  # fmt: skip
        nets.append(Net(**with_adam(net.get_params(deep=False))) if optimizer == "adam" else net)
    return nets[0], nets[1]


class CoTrained:
    """What is left of a training of two networks: both, which predict together.

    Parameters
    ----------
    nets : (Net, Net)
    labeled : (2, n) bool array
        Rows that each network learned from last, under their label.
    """

    def __init__(self, nets: tuple[Net, Net], labeled: NDArray[np.bool_]):
        self.nets = nets
        self.labeled = labeled

    def _evaluated(self, which: int, rows: Rows) -> NDArray[Any]:
        """Return the probabilities (m, K) of one network."""
        with self.answering(which):
            probs = self.nets[which].evaluate(rows)[0]
        check_finite_outputs(probs)
        return probs

    def answering(self, which: int) -> AbstractContextManager[None]:
        """Let what answers for a network, where it does not so itself, take its place."""
        return nullcontext()

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return probabilities (m, K) of both networks together."""
        return together([self._evaluated(which, rows) for which in range(2)])

    def networks(self) -> list[nn.Module]:
        """Return both networks, or where there are such the moving averages that answer for them."""
        found: list[nn.Module] = []
        for which, net in enumerate(self.nets):
            with self.answering(which):
                found.append(net.module_.eval())
        return found

    def answers(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what predicts, and ``labeled``, behind :meth:`TwoNetTraining.release`."""
        tensors, rest = {"labeled": torch.from_numpy(self.labeled)}, {}
        for which, net in enumerate(self.nets):
            found, rest[f"net_{which}"] = network_state(net)
            tensors |= named(f"net_{which}.", found)
        return tensors, rest

    @staticmethod
    def from_answers(
        tensors: Mapping[str, Tensor], rest: Mapping[str, Any], n: int, place: Place
    ) -> CoTrained:
        """Return what predicts as that of which :meth:`answers` was asked, whose training had n rows."""
        first, second = (
            load_network(behind(f"net_{which}.", tensors), rest[f"net_{which}"], place) for which in range(2)
        )
        labeled = tensors["labeled"].numpy()
        if labeled.dtype != bool or labeled.shape != (2, n):
            raise InputError(f"labeled must be truths of shape (2, {n}), got shape {labeled.shape}.")
        return CoTrained((first, second), labeled)


class TwoNetTraining(CoTrained, SeenRows, ABC):
    r"""A warm-up of two networks on all rows, and then what a method does with them.

    It is a :class:`noisefilter.trainer.Training`; a method writes :meth:`_learn_epoch`. After every epoch
    both networks look at all rows once, in evaluation mode and without augmentation. What they predict is
    what the verdict is made of: half of it the warm-up, a mean in which each epoch counts a tenth less than
    the next, half of it the mean of all epochs after it. Later networks know more, but a wrong label that was
    believed once they have learned by heart.

    The warm-up may plant wrong labels (:func:`noisefilter.splits.plant_probes`). It ends when the networks
    begin to know these by heart: a tenth more of them are predicted than chance would have it. Both networks,
    and what was seen by them, then go back to what they were after about half of these epochs
    (:class:`noisefilter.rewind.EarlyStates`); a trainer may do without. What follows trains on the labels
    that were given. There need be no warm-up; a trainer that does without sets ``rate``, the share of wrong
    labels that the verdict goes by.

    Predictions are those of both networks together: :math:`\frac12 \sum_k \log p_k` up to a constant, which
    ranks classes as the sum of their logits does.

    A callback of a network that asks for the end (skorch's ``EarlyStopping``) ends the training of both after
    the epoch.

    Every epoch of every network draws from generators of its own, seeded by the network's seed and the number
    of the epoch.

    Parameters
    ----------
    nets : (Net, Net)
        Not initialized; both with the number of epochs of the whole training.
    rows, codes : Rows, (n,) array
        Training rows and class numbers.
    n_classes : int
        K.
    warmup_epochs : int
        Epochs of plain training, by the objective of the nets; at most, where there are planted rows. May be
        0.
    warmup_rows : (n,) bool array, optional
        Rows to warm up on, where it is known that others are wrong. All by default.
    probe_rows, probe_codes : (m,) arrays, optional
        Rows that are trained under a wrong label in the warm-up, and these labels.
    """

    # Whether networks go back where planted labels are learned by heart.
    _goes_back: ClassVar[bool] = True

    def __init__(
        self,
        nets: tuple[Net, Net],
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        *,
        warmup_epochs: int,
        warmup_rows: NDArray[np.bool_] | None = None,
        probe_rows: NDArray[np.int64] | None = None,
        probe_codes: NDArray[np.int64] | None = None,
    ):
        CoTrained.__init__(self, nets, np.zeros((2, len(rows)), dtype=bool))
        nobody = np.zeros(0, dtype=np.int64)
        probe_rows = nobody if probe_rows is None else probe_rows
        probe_codes = nobody if probe_codes is None else probe_codes
        SeenRows.__init__(self, codes, n_classes, probe_rows, probe_codes)
        self.rows = rows
        self.n_classes = n_classes
        self.warmup_epochs = warmup_epochs
        self.n_epochs = int(nets[0].max_epochs)
        self.targets = torch.from_numpy(codes).to(rows.device)
        self.n_epochs_seen = 0
        self.by_heart: bool | None = None  # whether planted labels were learned so; unknown without
        self.learned = self.targets.clone()  # in the warm-up
        self.learned[torch.from_numpy(probe_rows)] = torch.from_numpy(probe_codes).to(rows.device)
        known = np.ones(len(rows), dtype=bool) if warmup_rows is None else warmup_rows
        self.warmup = np.flatnonzero(known)
        self.early = EarlyStates()
        self._start()

    def _start(self) -> None:
        rows, targets = self._warmup_rows()
        for net in self.nets:
            net.initialize()
            with local_seed(net.seed_, rows.device):
                net.begin(rows, targets)
                check_outputs(NetModel(net), rows, self.n_classes)

    def _warmup_rows(self) -> tuple[Rows, Tensor]:
        if len(self.warmup) == len(self.rows):
            return self.rows, self.learned
        return picked(self.rows, self.warmup), self.learned[torch.from_numpy(self.warmup)]

    # -- what a method writes ---------------------------------------------------------------------

    @abstractmethod
    def _learn_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train both networks for an epoch after the warm-up; returns its record."""

    def _note(self, both: list[NDArray[Any]]) -> None:
        """Keep what later epochs need of what both networks predict of the rows."""

    # -- epochs -----------------------------------------------------------------------------------

    def cost(self, epoch: int) -> float:
        """Return how long an epoch takes, in steps of the warm-up."""
        n = len(self.warmup) if epoch < self.warmup_epochs else len(self.rows)
        return 2 * (self.nets[0].steps_of_epoch(n) + self._steps(len(self.rows)))

    def _steps(self, n_passes: float) -> float:
        """Return how many steps of the warm-up last as long as so many rows take to go forward."""
        return n_passes / (TRAINED * self.nets[0].rows_of_batch(len(self.rows)))

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train both networks for an epoch, and look at all rows."""
        if epoch < self.warmup_epochs:
            record = self._warm_up(epoch, bar)
            known_by_heart = self._look(epoch)
            bar.step(self._steps(2 * len(self.rows)))
            return record | self._after_warm_epoch(epoch, known_by_heart)
        record = self._learn_epoch(epoch, bar)
        if epoch == self.warmup_epochs:  # not before: an interrupt would leave nothing to judge by
            self.see_anew()
        self._look(epoch)
        bar.step(self._steps(2 * len(self.rows)))
        return record

    def _warm_up(self, epoch: int, bar: Progress) -> dict[str, Any]:
        rows, targets = self._warmup_rows()
        for net in self.nets:
            with net.drawing(epoch):
                if net.run_epoch(rows, targets, epoch, bar):
                    self.n_epochs = epoch + 1
        losses = [float(net.history[-1]["train_loss"]) for net in self.nets]
        return {"phase": "warm-up", "loss": float(np.mean(losses)), "lr": self._lr()}

    def _after_warm_epoch(self, epoch: int, known_by_heart: float) -> dict[str, Any]:
        """Look whether the warm-up ends; returns what the record is to say of it."""
        record: dict[str, Any] = {}
        if len(self.probe_rows):
            record["planted_known"] = known_by_heart
            n_steps = (epoch + 1) * self.nets[0].steps_of_epoch(len(self.warmup))
            self._watch(epoch + 1, estimates.memorizes(known_by_heart, n_steps))
        if epoch + 1 == self.warmup_epochs:
            record |= self._end_warm_up()
        return record

    def _end_warm_up(self) -> dict[str, Any]:
        """Estimate how many labels are wrong."""
        self.rate = self._estimated_rate()
        return {"estimated_rate": self.rate}

    def _watch(self, n_epochs: int, by_heart: bool) -> None:
        """End the warm-up where planted labels are learned by heart; if epochs are left, go back in it."""
        self.by_heart = by_heart
        if by_heart:
            self.warmup_epochs = n_epochs
        if not self._goes_back:
            return
        earlier = self.early.step(
            n_epochs, self._snapshot, by_heart=by_heart and n_epochs < self.n_epochs,
            over=n_epochs >= self.warmup_epochs,
        )  # fmt: skip
        if earlier is not None:
            self._go_back(*earlier)

    def _snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, rest = self.seen_state()
        for which, net in enumerate(self.nets):
            found, rest[f"net_{which}"] = net.snapshot()
            tensors |= named(f"net_{which}.", found)
        return tensors, rest

    def _go_back(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        for which, net in enumerate(self.nets):
            net.go_back(behind(f"net_{which}.", tensors), rest[f"net_{which}"])
            net.bfloat16_inference_ = None  # was settled for the weights that are gone
            net.settle_inference(self.rows)
        self.load_seen(tensors, rest)

    def _lr(self) -> float:
        return float(self.nets[0]._parameter_groups()[0]["lr"])

    # -- what is seen of the rows -----------------------------------------------------------------

    def _look(self, epoch: int) -> float:
        """Note the losses of both networks, and what they predict together.

        Returns which share of the planted labels is predicted, beyond what chance would have it.
        """
        both = [self._evaluated(which, self.rows) for which in range(2)]
        self._note(both)
        told, warming = both, epoch < self.warmup_epochs
        if warming and self.nets[0].objective == "cross_entropy_ne":
            told = [unpenalized(probs) for probs in both]
        self.see(together(told), warming=warming)
        self.n_epochs_seen = epoch + 1
        learned, planted, k = self.learned.cpu().numpy(), self.probe_rows, self.n_classes
        known = [estimates.known_by_heart(probs.argmax(axis=1), learned, planted, k) for probs in both]
        return float(np.mean(known))

    # -- checkpoints ------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return all that the epochs to come and the verdict depend on."""
        tensors, rest = self.seen_state()
        tensors["labeled"] = torch.from_numpy(self.labeled.copy())
        rest |= {
            "n_epochs_seen": self.n_epochs_seen, "rate": self.rate, "by_heart": self.by_heart,
            "warmup_epochs": self.warmup_epochs, "n_epochs": self.n_epochs,
        }  # fmt: skip
        for which, net in enumerate(self.nets):
            found, rest[f"net_{which}"] = net.state()
            tensors |= named(f"net_{which}.", found)
        early, rest["early"] = self.early.state()
        return tensors | named(_EARLY, early), rest

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        for which, net in enumerate(self.nets):
            net.load_state(behind(f"net_{which}.", tensors), rest[f"net_{which}"])
        self.early.load_state(behind(_EARLY, tensors), rest["early"])
        self.load_seen(tensors, rest)
        self.labeled = tensors["labeled"].cpu().numpy()
        self.n_epochs_seen = rest["n_epochs_seen"]
        self.rate, self.by_heart = rest["rate"], rest["by_heart"]
        self.warmup_epochs, self.n_epochs = rest["warmup_epochs"], rest["n_epochs"]

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        rows, targets = self._warmup_rows()
        for which, net in enumerate(self.nets):
            with self.answering(which):
                net.settle_inference(self.rows)  # an interrupted epoch left it open
            net.end(rows, targets)
        self.early.forget()
        self.forget_rows()
        del self.rows, self.targets, self.learned, self.warmup


def given_rate(given: Verdict) -> float:
    """Return the share of wrong labels that a verdict estimates, or else flags."""
    rate = given.estimated_noise_rate
    return float(rate if np.isfinite(rate) else np.mean(~given.clean_mask))


def longest_warmup(net: Net, n: int) -> int:
    """Return how many epochs a warm-up on n rows may have.

    As many as 1,500 steps take, at least 10, but no more than two thirds of all.
    """
    steps = net.steps_of_epoch(n)
    return min(max(10, -(-_WARMUP_STEPS // steps)), max(1, 2 * int(net.max_epochs) // 3))


def together(probs: list[NDArray[Any]]) -> NDArray[np.float32]:
    """Return the scaled geometric mean of predictions (m, K): of logits it is the mean."""
    joint = np.zeros_like(probs[0])
    for each in probs:
        logs = np.maximum(each, _SMALLEST)
        joint += np.log(logs, out=logs)
    joint /= len(probs)
    joint -= joint.max(axis=1, keepdims=True)
    np.exp(joint, out=joint)
    joint /= joint.sum(axis=1, keepdims=True)
    return joint.astype(np.float32, copy=False)
