"""Two networks that are trained on the same batches, and choose rows for each other or together.

The loop of Decoupling, Co-teaching, Co-teaching+ and JoCoR, which differ in what is learned of a batch;
and the schedule of small losses that the last three share.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from noisefilter.batches import Rows, shuffled
from noisefilter.errors import ParameterError
from noisefilter.net import check_finite_loss
from noisefilter.progress import Progress
from noisefilter.twonets import TwoNetTraining

__all__ = ["Learned", "PairTraining", "Seen", "disagreeing", "kept_share", "smallest"]


def kept_share(epoch: int, rate: float, ramp_epochs: int, ramp_power: float = 1.0) -> float:
    r"""Return the share of a batch that is learned, :math:`R(t) = 1 - \tau \min(t / T_k, 1)^c`.

    Networks fit right labels before wrong ones, so at first nearly all rows are learned. B. Han et al.,
    "Co-teaching", NeurIPS 2018, Algorithm 1, line 11.

    Parameters
    ----------
    epoch : int
        t, counted from 1.
    rate : float
        :math:`\tau`, the share of wrong labels, in [0, 1].
    ramp_epochs : int
        :math:`T_k`, at least 1.
    ramp_power : float, default=1
        c, greater than 0.

    Returns
    -------
    float
        In [0, 1].
    """
    return 1.0 - rate * min(1.0, epoch / ramp_epochs) ** ramp_power


def smallest(losses: Tensor, share: float) -> Tensor:
    """Return which rows (m,) have the smallest losses (b,), smallest first: that share, but one row at least.

    Among equals, those that come first. Of no rows there are none.
    """
    n = max(1, round(share * len(losses)))
    return torch.argsort(losses, stable=True)[:n]


def disagreeing(log_probs: tuple[Tensor, Tensor]) -> Tensor:
    """Return the rows (m,) for which two networks (b, K each) predict different classes."""
    first, second = log_probs
    return torch.nonzero(first.argmax(dim=1) != second.argmax(dim=1))[:, 0]


class Seen(NamedTuple):
    """What both networks say of a batch, with gradients.

    Attributes
    ----------
    log_probs : ((b, K) Tensor, (b, K) Tensor)
        Of each network.
    losses : ((b,) Tensor, (b,) Tensor)
        Cross-entropy of each network against the given labels.
    """

    log_probs: tuple[Tensor, Tensor]
    losses: tuple[Tensor, Tensor]

    def learned(self, first: Tensor, second: Tensor, least: float = 0.0) -> Learned:
        """Let each network learn the labels of rows of its own, by the mean of their losses.

        Parameters
        ----------
        first, second : (m,) int64 Tensor
            Rows of the batch.
        least : float, default=0
            The sum of the losses is divided by no fewer rows than this share of the batch.
        """
        rows = first, second
        sizes = (
            max(1.0, len(own), least * len(losses)) for own, losses in zip(rows, self.losses, strict=True)
        )
        sums = (losses[own].sum() for own, losses in zip(rows, self.losses, strict=True))
        one, other = (total / size for total, size in zip(sums, sizes, strict=True))
        return Learned(one + other, rows)


class Learned(NamedTuple):
    """What two networks learn from a batch.

    Attributes
    ----------
    loss : Tensor
        Of both.
    rows : ((m,) Tensor, (m',) Tensor)
        Rows of the batch that each learns from. Where there are none, neither network moves.
    """

    loss: Tensor
    rows: tuple[Tensor, Tensor]


class PairTraining(TwoNetTraining):
    r"""Epochs in which both networks see the same batches; a method writes :meth:`chosen`.

    Both see the same view of a batch, and are updated at once. Without a warm-up, or behind a verdict, the
    rate of wrong labels has to be known.

    Parameters
    ----------
    known_rate : float, optional
        :math:`\tau`, the share of wrong labels. By default it is estimated when the warm-up ends.
    ramp_epochs : int
        :math:`T_k` of :func:`kept_share`, whose t counts all epochs of the training, the warm-up included.
    ramp_power : float
        c.
    """

    def __init__(
        self,
        *args: Any,
        known_rate: float | None = None,
        ramp_epochs: int = 1,
        ramp_power: float = 1.0,
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        self.known_rate = known_rate
        self.ramp_epochs = ramp_epochs
        self.ramp_power = ramp_power
        self.epoch = 0  # that of now, from 1
        if not self.warmup_epochs:
            self.rate = known_rate

    # -- what a method writes ---------------------------------------------------------------------

    @abstractmethod
    def chosen(self, seen: Seen) -> Learned:
        """Return what both networks learn of a batch."""

    def kept_share(self) -> float:
        """Return the share of a batch that the schedule lets them learn in this epoch."""
        return kept_share(self.epoch, self.rate or 0.0, self.ramp_epochs, self.ramp_power)

    # -- epochs -----------------------------------------------------------------------------------

    def _start(self) -> None:
        super()._start()
        for net in self.nets:
            if not isinstance(net.criterion_, nn.CrossEntropyLoss | nn.NLLLoss):
                raise ParameterError(
                    "criterion must be CrossEntropyLoss or NLLLoss where networks choose rows by their "
                    f"cross-entropy, got {type(net.criterion_).__name__}."
                )

    def _estimated_rate(self) -> float:
        return super()._estimated_rate() if self.known_rate is None else self.known_rate

    def _warm_up(self, epoch: int, bar: Progress) -> dict[str, Any]:
        self.labeled[:] = False
        self.labeled[:, self.warmup] = True
        self.labeled[:, self.probe_rows] = False  # these learn another label
        return super()._warm_up(epoch, bar)

    def _learn_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        self.epoch = epoch + 1
        rows, dataset = self.rows, (self.rows, self.targets)
        learned = torch.zeros((2, len(rows)), dtype=torch.bool, device=rows.device)
        total = torch.zeros((), device=rows.device)
        first, second = self.nets
        with first.drawing(epoch) as generator:  # order and views are the same for both
            second.reseed(epoch)
            for net in self.nets:
                net._set_learning_rate(epoch)
                net.notify("on_epoch_begin", dataset_train=dataset, dataset_valid=None)
                net.module_.train()
            for index in shuffled(len(rows), first.rows_of_batch(len(rows)), generator):
                total += self._step(rows, index, learned, generator) * len(index)
                bar.step(2)
            loss = float(total) / len(rows)
            check_finite_loss(loss, epoch)
            for net in self.nets:
                net.history.record("train_loss", loss)
                if net.notify_epoch_end(*dataset):
                    self.n_epochs = self.epoch
        self.labeled = learned.cpu().numpy()
        return self._record(loss)

    def _record(self, loss: float) -> dict[str, Any]:
        record: dict[str, Any] = {"phase": "selection", "loss": loss}
        record |= {f"n_labeled_{k + 1}": int(self.labeled[k].sum()) for k in range(2)}
        return record | {"lr": self._lr()}

    def _step(self, rows: Rows, index: Tensor, learned: Tensor, generator: torch.Generator) -> Tensor:
        """Look at a batch, choose, and update both networks; returns the mean loss of the two, detached."""
        x, target = rows.take(index), self.targets[index]
        if self.nets[0].augment is not None:
            x = self.nets[0].augment(x, generator)
        for net in self.nets:
            net.zero_gradients()
        one, other = (net.log_probs(net.outputs(x, net._half_training())) for net in self.nets)
        losses = [nn.functional.nll_loss(log_probs, target, reduction="none") for log_probs in (one, other)]
        found = self.chosen(Seen((one, other), (losses[0], losses[1])))
        if not any(len(own) for own in found.rows):
            return torch.zeros((), device=x.device)
        found.loss.backward()
        for which, (net, own) in enumerate(zip(self.nets, found.rows, strict=True)):
            learned[which, index[own]] = True
            net.descend(x, target)
        return found.loss.detach() / 2
