"""One network with a robust loss: the course that GCE, ELR and M-correction share.

What two networks do for each other is in :mod:`noisefilter.cotraining`; the losses are in
:mod:`noisefilter.criteria`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noisefilter import estimates
from noisefilter.batches import Rows
from noisefilter.criteria import IndexedLoss, RobustLoss
from noisefilter.errors import ParameterError
from noisefilter.models import NetModel
from noisefilter.net import Net, check_finite_outputs
from noisefilter.progress import Progress
from noisefilter.seen import SeenRows
from noisefilter.semisupervised import TRAINED
from noisefilter.states import behind, named
from noisefilter.verdict import Verdict
from noisefilter.weights import network_state

__all__ = ["SingleTrained", "SingleTraining", "with_criterion"]

_NET, _OWN = "net.", "own."  # in front of the names of tensors in a checkpoint


def with_criterion(net: Net, criterion: type[RobustLoss], **settings: Any) -> Net:
    """Return an untrained net like an untrained one with cross-entropy, but with a robust loss.

    Parameters
    ----------
    net : Net
        Its module gives logits.
    criterion : type of RobustLoss
        The loss.
    **settings
        Arguments of the loss.

    Raises
    ------
    ParameterError
        If the net has a loss of its own, or arguments for one.
    """
    parameters = net.get_params(deep=False)
    own = parameters.pop("criterion")
    arguments = {name: parameters.pop(name) for name in list(parameters) if name.startswith("criterion__")}
    if own is not nn.CrossEntropyLoss or arguments:
        given = own.__name__ if isinstance(own, type) else type(own).__name__
        told = f" with {', '.join(arguments)}" if arguments else ""
        raise ParameterError(
            "estimator.criterion must be CrossEntropyLoss as it is, in whose place the trainer puts its own "
            f"loss of logits, got {given}{told}."
        )
    told_on = {f"criterion__{name}": value for name, value in settings.items()}
    return Net(**parameters, criterion=criterion, **told_on)


class SingleTrained:
    """What is left of a training of one network: the network, which predicts."""

    def __init__(self, net: Net):
        self.net = net

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return probabilities (m, K)."""
        probs = self.net.evaluate(rows)[0]
        check_finite_outputs(probs)
        return probs

    def networks(self) -> list[nn.Module]:
        """Return the network."""
        return [self.net.module_.eval()]

    def answers(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return what predicts."""
        return network_state(self.net)


class SingleTraining(SingleTrained, SeenRows):
    """One network that learns all labels by a loss that resists wrong ones, and is asked after every epoch.

    It is a :class:`noisefilter.trainer.Training`. Whatever is special is in the criterion of the net, or in
    what a subclass makes of a look at all rows (:meth:`looked`): after every epoch, in evaluation mode and
    without augmentation. The verdict is made of these predictions (:class:`noisefilter.seen.SeenRows`).

    The warm-up, which the loss need not know of, is there to see how many labels are wrong: it may plant
    wrong labels (:func:`noisefilter.splits.plant_probes`), which show how such labels score in this very
    training. What follows trains on the labels that were given. A verdict to start from takes the place of
    that: its clean rows alone are learned for a number of epochs, and its rate is believed.

    A callback that asks for the end (skorch's ``EarlyStopping``) ends the training after the epoch. Every
    epoch draws from generators of its own, seeded by the net's seed and the number of the epoch.

    Parameters
    ----------
    net : Net
        Not initialized; with the number of epochs of the whole training.
    rows, codes : Rows, (n,) array
        Training rows and class numbers.
    n_classes : int
        K.
    warmup_epochs : int
        At least 1.
    probe_rows, probe_codes : (m,) arrays
        Rows that are trained under a wrong label in the warm-up, and these labels.
    given : Verdict, optional
        To start from, in class numbers.
    held_epochs : int
        For how many epochs only its clean rows are learned.
    """

    # Arrays, or None, that a subclass keeps from epoch to epoch beside those of this class.
    _remembered: ClassVar[tuple[str, ...]] = ()
    # What the epochs after the warm-up are called in the record.
    _phase: str = "robust"
    # Whether the warm-up ends where planted labels begin to be known by heart.
    _watched: bool = False

    def __init__(
        self,
        net: Net,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        *,
        warmup_epochs: int,
        probe_rows: NDArray[np.int64],
        probe_codes: NDArray[np.int64],
        given: Verdict | None = None,
        held_epochs: int = 0,
    ):
        SingleTrained.__init__(self, net)
        SeenRows.__init__(self, codes, n_classes, probe_rows, probe_codes)
        self.rows = rows
        self.n_classes = n_classes
        self.n_epochs = int(net.max_epochs)
        self.warmup_epochs = min(warmup_epochs, self.n_epochs)
        self.held = None if given is None else given.clean_mask
        self.held_epochs = held_epochs
        if given is not None and np.isfinite(given.estimated_noise_rate):
            self.rate = float(given.estimated_noise_rate)
        self.kept: NDArray[np.bool_] | None = None  # what is learned; all rows
        self.targets = NetModel(net).begin(rows, codes, n_classes)
        self.learned = self.targets.clone()  # in the warm-up
        self.learned[torch.from_numpy(probe_rows)] = torch.from_numpy(probe_codes).to(rows.device)

    # -- what a trainer may write -----------------------------------------------------------------

    def looked(self, epoch: int, probs: NDArray[Any]) -> dict[str, Any]:
        """Make something of the predictions (n, K) after an epoch; returns what is to be recorded of it."""
        return {}

    # -- epochs -----------------------------------------------------------------------------------

    def _chosen(self, epoch: int) -> NDArray[np.bool_] | None:
        return self.held if self.held is not None and epoch < self.held_epochs else self.kept

    def cost(self, epoch: int) -> float:
        """Return how long an epoch takes, in steps."""
        chosen = self._chosen(epoch)
        n = len(self.rows) if chosen is None else int(chosen.sum())
        return self.net.steps_of_epoch(n) + self._looking()

    def _looking(self) -> float:
        """Return how many steps last as long as a look at all rows."""
        return len(self.rows) / (TRAINED * self.net.rows_of_batch(len(self.rows)))

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train an epoch, and look at all rows."""
        warming, chosen = epoch < self.warmup_epochs, self._chosen(epoch)
        index = None if chosen is None else torch.from_numpy(np.flatnonzero(chosen)).to(self.rows.device)
        with self.net.drawing(epoch):
            labels = self.learned if warming else self.targets
            if self.net.run_epoch(self.rows, labels, epoch, bar, chosen=index):
                self.n_epochs = epoch + 1
        seen = self.net.history[-1]
        record = {
            "phase": "warm-up" if warming else self._phase, "loss": seen["train_loss"],
            "n_learned": len(self.rows) if index is None else len(index), "lr": seen["event_lr"],
        }  # fmt: skip
        record |= self._look(epoch)
        bar.step(self._looking())
        return record

    def _look(self, epoch: int) -> dict[str, Any]:
        """Note what the network predicts; returns what is to be recorded of it."""
        probs = self.predict(self.rows)
        if epoch == self.warmup_epochs:  # not before: an interrupt would leave nothing to judge by
            self.see_anew()
        self.see(probs, warming=epoch < self.warmup_epochs)
        record: dict[str, Any] = {}
        if epoch < self.warmup_epochs and len(self.probe_rows):
            learned = self.learned.cpu().numpy()
            record["planted_known"] = known = estimates.known_by_heart(
                probs.argmax(axis=1), learned, self.probe_rows, self.n_classes
            )
            if self._watched and estimates.memorizes(known, self._steps_after(epoch)):
                self.warmup_epochs = epoch + 1
        if epoch + 1 == self.warmup_epochs:
            self.rate = record["estimated_rate"] = self._estimated_rate()
        return record | self.looked(epoch, probs)

    def _steps_after(self, epoch: int) -> int:
        return (epoch + 1) * self.net.steps_of_epoch(len(self.rows))

    # -- what is seen of the rows -----------------------------------------------------------------

    def _estimated_rate(self) -> float:
        return super()._estimated_rate() if self.rate is None else self.rate

    # -- checkpoints ------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return all that the epochs to come and the verdict depend on."""
        tensors, own = self.seen_state()
        for name in ("kept", *self._remembered):
            if getattr(self, name) is not None:
                tensors[_OWN + name] = torch.from_numpy(getattr(self, name).copy())
        found, rest = self.net.state()
        return tensors | named(_NET, found), {
            "net": rest,
            "rate": self.rate,
            "n_epochs": self.n_epochs,
            "warmup_epochs": self.warmup_epochs,
            **own,
        }

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        self.net.load_state(behind(_NET, tensors), rest["net"])
        self.load_seen(tensors, rest)
        for name, tensor in behind(_OWN, tensors).items():
            setattr(self, name, tensor.cpu().numpy())
        self.rate, self.n_epochs = rest["rate"], rest["n_epochs"]
        self.warmup_epochs = rest["warmup_epochs"]

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        self.net.end(self.rows, self.targets)
        if isinstance(self.net.criterion_, IndexedLoss):
            self.net.criterion_.forget()
        self.held = self.kept = None
        self.forget_rows()
        del self.rows, self.targets, self.learned
