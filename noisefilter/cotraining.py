"""Two networks that divide the rows for each other: the course of DivideMix and of what is built on it.

J. Li, R. Socher & S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR 2020
(arXiv:2002.07394), Algorithm 1. What an epoch of MixMatch does is in :mod:`noisefilter.semisupervised`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noisefilter import estimates, splits
from noisefilter.balance import Mixing
from noisefilter.batches import Rows
from noisefilter.budgets import Budget
from noisefilter.contrastive import MeanTeacher
from noisefilter.net import Net
from noisefilter.progress import Progress
from noisefilter.scores import log_probability
from noisefilter.semisupervised import TRAINED, Blends, believed, mixmatch_epoch, passes, ramp
from noisefilter.states import behind
from noisefilter.twonets import TwoNetTraining
from noisefilter.verdict import Judged

__all__ = ["CoTraining", "Division"]

_OFTEN_LABELED = 0.6  # of the rows, as long as nobody knows; only the progress bar reads it
_TURNED_OVER = 0.5  # of the rows change sides
_ENOUGH = Budget()  # whatever is left
_BLEND, _OWN = "blend.", "own."  # in front of the names of tensors in a checkpoint


class Division(NamedTuple):
    """What one network makes of the rows, for the other to learn from.

    Attributes
    ----------
    clean_proba : (n,) array
        Probability that the given label is right, in [0, 1].
    labeled : (n,) bool array
        Rows that keep their label; the others are to be guessed.
    row_weights : (n,) array, optional
        Weights of the labeled rows in the loss.
    blends : Mixing, optional
        Labeled rows beside those, each made of two; label and probability are those of the first.
    """

    clean_proba: NDArray[np.float64]
    labeled: NDArray[np.bool_]
    row_weights: NDArray[np.float64] | None = None
    blends: Mixing | None = None

    def all_labeled(self) -> NDArray[np.bool_]:
        """Return the rows that are trained under their label, also those that only count once more."""
        found = self.labeled.copy()
        if self.blends is not None:
            found[self.blends.first[self.blends.weight == 1.0]] = True
        return found


class CoTraining(TwoNetTraining):
    r"""Warm-up of two networks, then epochs of MixMatch in which each learns from the other's division.

    A trainer writes :meth:`divided`. The losses of all rows after an epoch are what the next division is made
    of.

    Where the warm-up ends without any planted label known by heart, guesses are bad and few epochs are left
    to mend them (:class:`noisefilter.budgets.Budget`), there is no MixMatch, and a warning: plain training
    goes on to the end, on the labels that are believed by then, and the verdict is that of all its epochs.

    With `weight_average` each network is judged and asked by the moving average of its weights.

    A division in which more than half of the rows change sides, from one that was found to the next, is not
    taken: that network is learned from by the division in use. If the one found after it is like it, it is.

    Parameters
    ----------
    nets, rows, codes, n_classes, warmup_epochs, warmup_rows, probe_rows, probe_codes
        As of :class:`noisefilter.twonets.TwoNetTraining`.
    temperature, mixup_alpha, penalty : float
        See :func:`noisefilter.semisupervised.mixmatch_epoch`.
    ramp_steps : int
        Steps after the warm-up in which the weight of the unlabeled loss rises to its full size.
    weight_average : float, optional
        Decay of the moving average of the weights, in [0, 1); it begins after the warm-up.
    loss_epochs : int
        How many epochs of losses are kept for :meth:`divided`.
    budget : Budget
        How many epochs behind the warm-up are enough.
    """

    # Arrays, or None, that a trainer keeps from epoch to epoch beside those of this class. Networks that go
    # back leave them as they are.
    _remembered: ClassVar[tuple[str, ...]] = ()
    # Arrays that it makes of what networks predict after an epoch, which go back with them.
    _of_epoch: ClassVar[tuple[str, ...]] = ()
    # Whether unlabeled rows have another loss beside that of MixMatch; only the progress bar reads it.
    _learns_beside: bool = False

    def __init__(
        self,
        nets: tuple[Net, Net],
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        *,
        temperature: float,
        mixup_alpha: float,
        penalty: float,
        ramp_steps: int,
        weight_average: float | None,
        loss_epochs: int = 1,
        budget: Budget = _ENOUGH,
        **warmup: Any,
    ):
        self.temperature = temperature
        self.mixup_alpha = mixup_alpha
        self.penalty = penalty
        self.ramp_steps = ramp_steps
        self.weight_average = weight_average
        self.budget = budget
        self.averages: tuple[MeanTeacher, MeanTeacher] | None = None
        self.losses = np.zeros((2, loss_epochs, len(rows)), dtype=np.float32)  # the newest last
        self.n_ssl_steps = [0, 0]
        self.guessed_right = 1.0  # share of the guesses, when the warm-up ends; unknown without
        self.kept: tuple[Division, Division] | None = None  # in use
        self.found: dict[int, NDArray[np.bool_]] = {}  # labeled rows of the newest, in use or not
        self.plain = False  # whether the warm-up goes on to the end
        super().__init__(nets, rows, codes, n_classes, **warmup)

    # -- what a trainer writes --------------------------------------------------------------------

    @abstractmethod
    def divided(self, which: int) -> Division:
        """Return what network 0 or 1 makes of the rows: ``kept[which]`` itself where nothing is new."""

    def peer_of(self, which: int) -> int:
        """Return which network guesses beside this one, or the number itself where it guesses alone."""
        return 1 - which

    def unlabeled_ratio(self) -> float:
        """Return how many unlabeled rows a step has for each labeled one."""
        return 1.0

    def learning(self, which: int) -> dict[str, Any]:
        """Return what else :func:`~noisefilter.semisupervised.mixmatch_epoch` is to be told of a network."""
        return {}

    def unlabeled_weight(self) -> float:
        """Return the full weight of the unlabeled loss; asked before every epoch after the warm-up."""
        return 0.0

    # -- epochs -----------------------------------------------------------------------------------

    def cost(self, epoch: int) -> float:
        """Return how long an epoch takes, in steps of the warm-up."""
        net, n_views = self.nets[0], 1 if self.nets[0].augment is None else 2
        if epoch < self.warmup_epochs:
            trained = float(net.steps_of_epoch(len(self.warmup)))
        else:
            share = np.mean([each.labeled.mean() for each in self.kept]) if self.kept else _OFTEN_LABELED
            n = round(share * len(self.rows))
            others = round(self.unlabeled_ratio() * n) if n < len(self.rows) else 0
            trained = self._steps(passes(n, others, n_views, beside=self._learns_beside))
        return 2 * (trained + self._steps(len(self.rows)))

    def _steps(self, n_passes: float) -> float:
        """Return how many steps of the warm-up last as long as so many rows take to go forward."""
        return n_passes / (2 * TRAINED * self._labeled_batch(self.nets[0]))

    def _labeled_batch(self, net: Net) -> int:
        """Half of a batch: two views of it, and of as many unlabeled rows, make an update of four halves."""
        return max(1, net.rows_of_batch(len(self.rows)) // 2)

    def _after_warm_epoch(self, epoch: int, known_by_heart: float) -> dict[str, Any]:
        if self.plain:
            return {"phase": "supervised"} | {f"n_labeled_{k}": len(self.warmup) for k in (1, 2)}
        return super()._after_warm_epoch(epoch, known_by_heart)

    def _snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, rest = super()._snapshot()
        made = {name: torch.tensor(getattr(self, name)) for name in ("losses", *self._of_epoch)}
        return tensors | made, rest

    def _go_back(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        super()._go_back(tensors, rest)
        for name in ("losses", *self._of_epoch):
            setattr(self, name, tensors[name].cpu().numpy().copy())

    def _end_warm_up(self) -> dict[str, Any]:
        """Estimate how many labels are wrong and guesses right, and choose how to go on."""
        record = super()._end_warm_up()
        if len(self.probe_rows):
            guesses = self.seen_probs().argmax(axis=1)
            self.guessed_right = estimates.guessed_right(
                guesses, self.codes, self.probe_rows, record["estimated_rate"], self.n_classes
            )
            record["guessed_right"] = self.guessed_right
        return record | self._stay_plain(self.judged()) if self._is_late() else record

    def _is_late(self) -> bool:
        left = self.n_epochs - self.warmup_epochs
        n_steps = left * self.nets[0].steps_of_epoch(len(self.rows))
        return self.budget.is_short(left, n_steps, self.by_heart, self.guessed_right)

    def _stay_plain(self, judged: splits.Split | Judged) -> dict[str, Any]:
        """Let plain training go on to the end, on the labels believed; what is returned says so."""
        batch = self._labeled_batch(self.nets[0])
        rows = believed(judged.clean, judged.clean_proba, self.codes, self.n_classes, batch)
        left = self.n_epochs - self.warmup_epochs
        self._train_plainly(rows)
        return {"warning": self.budget.warning(left, int(rows.sum()))}

    def _train_plainly(self, rows: NDArray[np.bool_]) -> None:
        self.plain, self.warmup_epochs = True, self.n_epochs
        self.warmup, self.learned = np.flatnonzero(rows), self.targets
        self.labeled = np.stack([rows, rows])

    def _learn_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        if self.averages is None and self.weight_average is not None:
            first, second = (MeanTeacher(net.module_, self.weight_average) for net in self.nets)
            self.averages = first, second
        divisions, changes = self._divide()
        self.labeled = np.stack([divisions[1 - which].all_labeled() for which in range(2)])
        weight = self.unlabeled_weight()
        found = [
            self._learn(which, divisions[1 - which], epoch, weight, bar) for which in range(2)
        ]  # from each other
        names = ("loss", "labeled_loss", "unlabeled_loss", "penalty")
        alone = all(division.labeled.all() for division in divisions)
        record: dict[str, Any] = {"phase": "supervised" if alone else "mixmatch"}
        record |= {name: float(np.mean([each[name] for each in found])) for name in names}
        record["unlabeled_weight"] = weight * ramp(self.n_ssl_steps[0], 0, self.ramp_steps)
        record |= {f"n_labeled_{k + 1}": int(self.labeled[k].sum()) for k in range(2)}
        return record | changes | {"lr": self._lr()}

    def _divide(self) -> tuple[tuple[Division, Division], dict[str, int | None]]:
        """Return the divisions to learn from, and for the record how many rows change sides in new ones."""
        new = self.divided(0), self.divided(1)  # both before either network moves on
        (first, n_first), (second, n_second) = self._taken(0, new[0]), self._taken(1, new[1])
        self.kept = first, second
        refused = int(first is not new[0]) + int(second is not new[1])
        return self.kept, {"changed_1": n_second, "changed_2": n_first, "divisions_refused": refused}

    def _taken(self, which: int, new: Division) -> tuple[Division, int | None]:
        """Return the division of a network, or that in use where the new one turns most rows over."""
        in_use = None if self.kept is None else self.kept[which]
        if in_use is new:
            return new, None
        last, self.found[which] = self.found.get(which), new.labeled
        if in_use is None:
            return new, None
        n_changed = int(np.sum(new.labeled != (in_use.labeled if last is None else last)))
        return in_use if n_changed > _TURNED_OVER * len(new.labeled) else new, n_changed

    def _learn(
        self, which: int, division: Division, epoch: int, weight: float, bar: Progress
    ) -> dict[str, float]:
        """Train one network for an epoch on the division of the other."""
        net, peer, device = self.nets[which], self.nets[self.peer_of(which)], self.rows.device
        average = None if self.averages is None else self.averages[which]
        start = self.n_ssl_steps[which]
        dataset = (self.rows, self.targets)
        with net.drawing(epoch) as generator:
            net._set_learning_rate(epoch)
            net.notify("on_epoch_begin", dataset_train=dataset, dataset_valid=None)
            found = mixmatch_epoch(
                net, peer, self.rows, self.targets,
                torch.from_numpy(division.clean_proba).to(device),
                torch.from_numpy(division.labeled).to(device),
                batch_size=self._labeled_batch(net), temperature=self.temperature,
                mixup_alpha=self.mixup_alpha, penalty=self.penalty, generator=generator, bar=bar,
                unlabeled_weight=lambda step: weight * ramp(start + step, 0, self.ramp_steps),
                average=average, unlabeled_ratio=self.unlabeled_ratio(), **_weighing(division, device),
                **self.learning(which),
            )  # fmt: skip
            net.history.record("train_loss", found["loss"])
            if net.notify_epoch_end(*dataset):
                self.n_epochs = epoch + 1
        self.n_ssl_steps[which] += int(found["n_steps"])
        return found

    # -- what is seen of the rows -----------------------------------------------------------------

    def _note(self, both: list[NDArray[Any]]) -> None:
        """Keep what later divisions are made of: the losses, by the predictions of both networks."""
        for kept, probs in zip(self.losses, both, strict=True):
            pushed(kept, -log_probability(probs, self.codes))

    def answering(self, which: int) -> AbstractContextManager[None]:
        """Let the moving average of a network's weights, where there is one, answer for the network."""
        return self.nets[which].answered_by(None if self.averages is None else self.averages[which].module)

    # -- checkpoints ------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return all that the epochs to come and the verdict depend on."""
        tensors, rest = super().state()
        tensors["losses"] = torch.from_numpy(self.losses.copy())
        for name in (*self._remembered, *self._of_epoch):
            if getattr(self, name) is not None:
                tensors[_OWN + name] = torch.from_numpy(getattr(self, name).copy())
        rest |= {"plain": self.plain, "n_ssl_steps": self.n_ssl_steps, "averaged_steps": None}
        if self.averages is not None:
            rest["averaged_steps"] = [each.n_steps for each in self.averages]
            for which, average in enumerate(self.averages):
                weights = average.module.state_dict()
                tensors |= {f"average_{which}.{name}": tensor.clone() for name, tensor in weights.items()}
        for which, division in enumerate(self.kept or ()):
            for name, array in _arrays(division).items():
                tensors[f"division_{which}.{name}"] = torch.from_numpy(array.copy())
        tensors |= {f"found_{which}": torch.from_numpy(mask.copy()) for which, mask in self.found.items()}
        return tensors, rest

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        super().load_state(tensors, rest)
        if rest["averaged_steps"] is not None and self.weight_average is not None:
            first, second = (MeanTeacher(net.module_, self.weight_average) for net in self.nets)
            self.averages = first, second
            for which, average in enumerate(self.averages):
                average.n_steps = rest["averaged_steps"][which]
                average.module.load_state_dict(behind(f"average_{which}.", tensors))
        if "division_0.labeled" in tensors:
            self.kept = _division(0, tensors), _division(1, tensors)
        found = behind("found_", tensors)
        self.found = {int(which): mask.cpu().numpy() for which, mask in found.items()}
        self.losses = tensors["losses"].cpu().numpy().copy()  # they change in place
        for name, tensor in behind(_OWN, tensors).items():
            setattr(self, name, tensor.cpu().numpy().copy())
        self.n_ssl_steps = list(rest["n_ssl_steps"])
        if rest["plain"]:
            self._train_plainly(self.labeled[0])

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        super().release()
        for net, average in zip(self.nets, self.averages or (), strict=False):
            average.hand_over(net.module_)
        self.kept = self.averages = None
        self.found.clear()
        del self.losses


def _weighing(division: Division, device: torch.device) -> dict[str, Any]:
    """Return what a division says of weights and blends, as the epoch takes it."""
    found: dict[str, Any] = {}
    if division.row_weights is not None:
        found["row_weights"] = torch.from_numpy(division.row_weights).to(device)
    if division.blends is not None:
        first, second, share, _ = division.blends
        parts = (torch.from_numpy(part).to(device) for part in (first, second, share.astype(np.float32)))
        found["blends"] = Blends(*parts)
    return found


def pushed(bank: NDArray[Any], newest: NDArray[Any]) -> None:
    """Put what is newest behind the others, in place of the oldest."""
    bank[:-1] = bank[1:]
    bank[-1] = newest


def _arrays(division: Division) -> dict[str, NDArray[Any]]:
    found = {"clean_proba": division.clean_proba, "labeled": division.labeled}
    if division.row_weights is not None:
        found["row_weights"] = division.row_weights
    if division.blends is not None:
        found |= {_BLEND + name: array for name, array in division.blends._asdict().items()}
    return found


def _division(which: int, tensors: Mapping[str, Any]) -> Division:
    arrays = behind(f"division_{which}.", tensors)
    found: dict[str, Any] = {name: tensor.cpu().numpy() for name, tensor in arrays.items()}
    blends: dict[str, Any] = behind(_BLEND, found)
    proba, labeled, row_weights = found["clean_proba"], found["labeled"], found.get("row_weights")
    return Division(proba, labeled, row_weights, Mixing(**blends) if blends else None)
