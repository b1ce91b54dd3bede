"""Two networks that divide the rows for each other: the course of DivideMix and of what is built on it.

J. Li, R. Socher & S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR 2020
(arXiv:2002.07394), Algorithm 1. What an epoch of MixMatch does is in :mod:`noisefilter.semisupervised`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noisefilter import estimates, splits
from noisefilter.balance import Mixing
from noisefilter.batches import Rows, picked
from noisefilter.budgets import Budget
from noisefilter.contrastive import MeanTeacher
from noisefilter.errors import InputError
from noisefilter.models import NetModel, build_net, check_outputs
from noisefilter.net import Net, check_finite_outputs, local_seed
from noisefilter.progress import Progress
from noisefilter.rewind import EarlyStates
from noisefilter.scores import log_probability, unpenalized
from noisefilter.semisupervised import TRAINED, Blends, believed, mixmatch_epoch, passes, ramp
from noisefilter.states import behind, named
from noisefilter.verdict import Judged
from noisefilter.weights import Place, load_network, network_state

__all__ = [
    "REMEMBERED",
    "CoTrained",
    "CoTraining",
    "Division",
    "judged_by",
    "rate_of",
    "two_nets",
]

_SMALLEST = 1e-12
_OFTEN_LABELED = 0.6  # of the rows, as long as nobody knows; only the progress bar reads it
_TURNED_OVER = 0.5  # of the rows change sides
_OVERSURE = 1.25  # how much too sure networks may be of rows whose labels they do not learn
REMEMBERED = 0.9  # of earlier epochs of a plain training, in each
_ENOUGH = Budget()  # whatever is left
_BLEND, _OWN, _EARLY = "blend.", "own.", "early."  # in front of the names of tensors in a checkpoint


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


def two_nets(
    estimator: Any,
    network: type[nn.Module] | None,
    rows: Rows,
    n_classes: int,
    settings: dict[str, Any],
    training: dict[str, Any],
    rng: np.random.RandomState,
) -> tuple[Net, Net]:
    """Return two untrained nets from one prototype, or of the default kind, that differ in their seeds.

    Raises
    ------
    InputTypeError
        If the prototype is no network, or one whose training is its own.
    """
    first, second = (
        build_net(
            estimator, rows, n_classes, network=network, settings=settings, training=training,
            seed=int(rng.randint(2**31 - 1)),
        )
        for _ in range(2)
    )  # fmt: skip
    return first, second


class CoTrained:
    """What is left of a training of two networks: both, which predict together.

    Parameters
    ----------
    nets : (Net, Net)
    labeled : (2, n) bool array
        Rows that each network learned from last, under their label.
    """

    averages: tuple[MeanTeacher, MeanTeacher] | None = None

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
        """Let the moving average of a network's weights, where there is one, answer for the network."""
        return self.nets[which].answered_by(None if self.averages is None else self.averages[which].module)

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
        """Return what predicts, and ``labeled``, behind :meth:`CoTraining.release`."""
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


class CoTraining(CoTrained, ABC):
    r"""Warm-up of two networks, then epochs of MixMatch in which each learns from the other's division.

    It is a :class:`noisefilter.trainer.Training`; a trainer writes :meth:`divided`. After every epoch both
    networks look at all rows once, in evaluation mode and without augmentation. Their losses are what the
    next division is made of, and their predictions are what the verdict is made of: half of it the warm-up, a
    mean in which each epoch counts a tenth less than the next, half of it the mean of all epochs after it.
    Later networks know more, but a wrong label that a division believed once they have learned by heart.

    The warm-up may plant wrong labels (:func:`noisefilter.splits.plant_probes`). It ends when the networks
    begin to know these by heart: a tenth more of them are predicted than chance would have it. Both networks,
    and what was seen by them, then go back to what they were after about half of these epochs
    (:class:`noisefilter.rewind.EarlyStates`); a trainer may do without. What follows trains on the labels
    that were given. There need be no warm-up; a trainer that does without sets ``rate``, the share of wrong
    labels that the verdict goes by.

    Where the warm-up ends without any planted label known by heart, guesses are bad and few epochs are left
    to mend them (:class:`noisefilter.budgets.Budget`), there is no MixMatch, and a warning: plain training
    goes on to the end, on the labels that are believed by then, and the verdict is that of all its epochs.

    Predictions are those of both networks together: :math:`\frac12 \sum_k \log p_k` up to a constant, which
    ranks classes as the sum of their logits does. With `weight_average` each network is judged and asked by
    the moving average of its weights.

    A division in which more than half of the rows change sides, from one that was found to the next, is not
    taken: that network is learned from by the division in use. If the one found after it is like it, it is.

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

    # Arrays, or None, that a trainer keeps from epoch to epoch beside those of this class.
    _remembered: ClassVar[tuple[str, ...]] = ()
    # Whether networks go back where planted labels are learned by heart; arrays of `_remembered` do not.
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
        temperature: float,
        mixup_alpha: float,
        penalty: float,
        ramp_steps: int,
        weight_average: float | None,
        loss_epochs: int = 1,
        budget: Budget = _ENOUGH,
    ):
        self.nets = nets
        self.rows = rows
        self.codes = codes
        self.n_classes = n_classes
        self.warmup_epochs = warmup_epochs
        self.temperature = temperature
        self.mixup_alpha = mixup_alpha
        self.penalty = penalty
        self.ramp_steps = ramp_steps
        self.weight_average = weight_average
        self.budget = budget
        self.n_epochs = int(nets[0].max_epochs)
        self.targets = torch.from_numpy(codes).to(rows.device)
        self.averages = None
        self.losses = np.zeros((2, loss_epochs, len(rows)), dtype=np.float32)  # the newest last
        self.prob_sum = np.zeros((len(rows), n_classes), dtype=np.float32)
        self.n_seen = 0.0  # epochs in it, older ones of the warm-up counting less
        self.first_probs: NDArray[np.float32] | None = None  # what was predicted before MixMatch
        self.labeled = np.zeros((2, len(rows)), dtype=bool)  # what each network learned from last
        self.n_epochs_seen = 0
        self.n_ssl_steps = [0, 0]
        self.rate: float | None = None
        self.by_heart: bool | None = None  # whether planted labels were learned so; unknown without
        self.guessed_right = 1.0  # share of the guesses, when the warm-up ends; unknown without
        self.kept: tuple[Division, Division] | None = None  # in use
        self.found: dict[int, NDArray[np.bool_]] = {}  # labeled rows of the newest, in use or not
        self.probe_rows = np.zeros(0, dtype=np.int64) if probe_rows is None else probe_rows
        self.probe_codes = np.zeros(0, dtype=np.int64) if probe_codes is None else probe_codes
        self.learned = self.targets.clone()  # in the warm-up
        self.learned[torch.from_numpy(self.probe_rows)] = torch.from_numpy(self.probe_codes).to(rows.device)
        known = np.ones(len(rows), dtype=bool) if warmup_rows is None else warmup_rows
        self.warmup = np.flatnonzero(known)
        self.plain = False  # whether the warm-up goes on to the end
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

    # -- what a trainer writes --------------------------------------------------------------------

    @abstractmethod
    def divided(self, which: int) -> Division:
        """Return what network 0 or 1 makes of the rows: ``kept[which]`` itself where nothing is new."""

    def peer_of(self, which: int) -> int:
        """Return which network guesses beside this one, or the number itself where it guesses alone."""
        return 1 - which

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
            trained = self._steps(passes(n, n if n < len(self.rows) else 0, n_views))
        return 2 * (trained + self._steps(len(self.rows)))

    def _steps(self, n_passes: float) -> float:
        """Return how many steps of the warm-up last as long as so many rows take to go forward."""
        return n_passes / (2 * TRAINED * self._labeled_batch(self.nets[0]))

    def _labeled_batch(self, net: Net) -> int:
        """Half of a batch: two views of it, and of as many unlabeled rows, make an update of four halves."""
        return max(1, net.rows_of_batch(len(self.rows)) // 2)

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train both networks for an epoch, and look at all rows."""
        if epoch < self.warmup_epochs:
            record = self._warm_up(epoch, bar)
            known_by_heart = self._look(epoch)
            bar.step(self._steps(2 * len(self.rows)))
            if self.plain:
                return record | {"phase": "supervised"} | {f"n_labeled_{k}": len(self.warmup) for k in (1, 2)}
            if len(self.probe_rows):
                record["planted_known"] = known_by_heart
                n_steps = (epoch + 1) * self.nets[0].steps_of_epoch(len(self.warmup))
                self._watch(epoch + 1, estimates.memorizes(known_by_heart, n_steps))
            if epoch + 1 == self.warmup_epochs:
                record |= self._end_warm_up()
            return record
        record = self._mixmatch(epoch, bar)
        if epoch == self.warmup_epochs and self.n_seen:
            self.first_probs = self.prob_sum / np.float32(self.n_seen)
            self.prob_sum[:], self.n_seen = 0.0, 0.0
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
        tensors = {"losses": torch.tensor(self.losses), "prob_sum": torch.tensor(self.prob_sum)}
        rest: dict[str, Any] = {"n_seen": self.n_seen}
        for which, net in enumerate(self.nets):
            found, rest[f"net_{which}"] = net.snapshot()
            tensors |= named(f"net_{which}.", found)
        return tensors, rest

    def _go_back(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        for which, net in enumerate(self.nets):
            net.go_back(behind(f"net_{which}.", tensors), rest[f"net_{which}"])
            net.bfloat16_inference_ = None  # was settled for the weights that are gone
            net.settle_inference(self.rows)
        self.losses = tensors["losses"].cpu().numpy().copy()
        self.prob_sum = tensors["prob_sum"].cpu().numpy().copy()
        self.n_seen = rest["n_seen"]

    def _end_warm_up(self) -> dict[str, Any]:
        """Estimate how many labels are wrong and guesses right, and choose how to go on."""
        self.rate = self._estimated_rate()
        record: dict[str, Any] = {"estimated_rate": self.rate}
        if len(self.probe_rows):
            guesses = self.seen_probs().argmax(axis=1)
            self.guessed_right = estimates.guessed_right(
                guesses, self.codes, self.probe_rows, self.rate, self.n_classes
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

    def _lr(self) -> float:
        return float(self.nets[0]._parameter_groups()[0]["lr"])

    def _mixmatch(self, epoch: int, bar: Progress) -> dict[str, Any]:
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
                average=average, **_weighing(division, device),
            )  # fmt: skip
            net.history.record("train_loss", found["loss"])
            if net.notify_epoch_end(*dataset):
                self.n_epochs = epoch + 1
        self.n_ssl_steps[which] += int(found["n_steps"])
        return found

    # -- what is seen of the rows -----------------------------------------------------------------

    def _look(self, epoch: int) -> float:
        """Note the losses of both networks, and what they predict together.

        Returns which share of the planted labels is predicted, beyond what chance would have it.
        """
        both = [self._evaluated(which, self.rows) for which in range(2)]
        self._note(both)
        told, remembered = both, 1.0
        if epoch < self.warmup_epochs:
            remembered = REMEMBERED
            if self.nets[0].objective == "cross_entropy_ne":
                told = [unpenalized(probs) for probs in both]
        self.prob_sum *= remembered
        self.prob_sum += together(told)
        self.n_seen = remembered * self.n_seen + 1.0
        self.n_epochs_seen = epoch + 1
        learned, planted, k = self.learned.cpu().numpy(), self.probe_rows, self.n_classes
        known = [estimates.known_by_heart(probs.argmax(axis=1), learned, planted, k) for probs in both]
        return float(np.mean(known))

    def _note(self, both: list[NDArray[Any]]) -> None:
        """Keep what later divisions are made of: the losses, by the predictions of both networks."""
        for kept, probs in zip(self.losses, both, strict=True):
            pushed(kept, -log_probability(probs, self.codes))

    def seen_probs(self) -> NDArray[np.float64]:
        """Return the averaged predictions (n, K) of the rows: half before MixMatch, half since."""
        if self.first_probs is None:
            return self._latest_probs()
        first = self.first_probs.astype(np.float64)
        return (first + self._latest_probs()) / 2.0 if self.n_seen else first

    def _latest_probs(self) -> NDArray[np.float64]:
        """Return the averaged predictions (n, K) since MixMatch began, or before in the warm-up."""
        return np.asarray(self.prob_sum / max(1, self.n_seen), dtype=np.float64)

    def _estimated_rate(self) -> float:
        """How many labels are wrong, by what the networks contradict beyond their doubt in the warm-up."""
        return rate_of(self.seen_probs(), self.codes, self.probe_rows, self.probe_codes)

    def judged(self) -> Judged:
        """Judge the rows by the averaged predictions.

        As many are wrong as were found so in the warm-up, or more if by now more are contradicted than
        doubted. After a warm-up that was short the estimate is often low; but what the networks contradict in
        the end is no estimate by itself, for labels that a division rejects are not learned, right or wrong.
        """
        rate = self._estimated_rate() if self.rate is None else self.rate
        return judged_by(self.seen_probs(), self.codes, rate, self._latest_probs())

    # -- checkpoints ------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return all that the epochs to come and the verdict depend on."""
        tensors: dict[str, Tensor] = {
            "losses": torch.from_numpy(self.losses.copy()),
            "prob_sum": torch.from_numpy(self.prob_sum.copy()),
            "labeled": torch.from_numpy(self.labeled.copy()),
        }
        if self.first_probs is not None:
            tensors["first_probs"] = torch.from_numpy(self.first_probs.copy())
        for name in self._remembered:
            if getattr(self, name) is not None:
                tensors[_OWN + name] = torch.from_numpy(getattr(self, name).copy())
        rest: dict[str, Any] = {
            "n_seen": self.n_seen, "n_epochs_seen": self.n_epochs_seen, "rate": self.rate,
            "by_heart": self.by_heart, "plain": self.plain,
            "n_ssl_steps": self.n_ssl_steps, "warmup_epochs": self.warmup_epochs,
            "n_epochs": self.n_epochs,
            "averaged_steps": None if self.averages is None else [each.n_steps for each in self.averages],
        }  # fmt: skip
        for which, net in enumerate(self.nets):
            found, rest[f"net_{which}"] = net.state()
            tensors |= named(f"net_{which}.", found)
            if self.averages is not None:
                weights = self.averages[which].module.state_dict()
                tensors |= {f"average_{which}.{name}": tensor.clone() for name, tensor in weights.items()}
        for which, division in enumerate(self.kept or ()):
            for name, array in _arrays(division).items():
                tensors[f"division_{which}.{name}"] = torch.from_numpy(array.copy())
        tensors |= {f"found_{which}": torch.from_numpy(mask.copy()) for which, mask in self.found.items()}
        early, rest["early"] = self.early.state()
        return tensors | named(_EARLY, early), rest

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        for which, net in enumerate(self.nets):
            net.load_state(behind(f"net_{which}.", tensors), rest[f"net_{which}"])
        if rest["averaged_steps"] is not None and self.weight_average is not None:
            first, second = (MeanTeacher(net.module_, self.weight_average) for net in self.nets)
            self.averages = first, second
            for which, average in enumerate(self.averages):
                average.n_steps = rest["averaged_steps"][which]
                average.module.load_state_dict(behind(f"average_{which}.", tensors))
        if "division_0.labeled" in tensors:
            self.kept = _division(0, tensors), _division(1, tensors)
        self.early.load_state(behind(_EARLY, tensors), rest["early"])
        found = behind("found_", tensors)
        self.found = {int(which): mask.cpu().numpy() for which, mask in found.items()}
        # Copied: they change in place.
        self.losses = tensors["losses"].cpu().numpy().copy()
        self.prob_sum = tensors["prob_sum"].cpu().numpy().copy()
        self.labeled = tensors["labeled"].cpu().numpy()
        if "first_probs" in tensors:
            self.first_probs = tensors["first_probs"].cpu().numpy()
        for name, tensor in behind(_OWN, tensors).items():
            setattr(self, name, tensor.cpu().numpy())
        self.n_seen, self.n_epochs_seen = rest["n_seen"], rest["n_epochs_seen"]
        self.n_ssl_steps, self.rate = list(rest["n_ssl_steps"]), rest["rate"]
        self.by_heart = rest["by_heart"]
        self.warmup_epochs, self.n_epochs = rest["warmup_epochs"], rest["n_epochs"]
        if rest["plain"]:
            self._train_plainly(self.labeled[0])

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        rows, targets = self._warmup_rows()
        for which, net in enumerate(self.nets):
            with self.answering(which):
                net.settle_inference(self.rows)  # an interrupted epoch left it open
            net.end(rows, targets)
            if self.averages is not None:
                self.averages[which].hand_over(net.module_)
        self.kept = self.averages = self.first_probs = None
        self.found.clear()
        self.early.forget()
        del self.rows, self.targets, self.learned, self.codes, self.losses, self.prob_sum, self.warmup


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


def rate_of(
    probs: NDArray[np.float64],
    codes: NDArray[np.int64],
    probe_rows: NDArray[np.int64],
    probe_codes: NDArray[np.int64],
) -> float:
    """Return how many labels are wrong by predictions (n, K), where some rows learned a planted label."""
    if not len(probe_rows):
        return estimates.estimate_noise_rate(probs, codes)
    others = np.delete(np.arange(len(probs)), probe_rows)
    return estimates.estimate_noise_rate(probs[others], codes[others], probs[probe_rows], probe_codes)


def judged_by(
    probs: NDArray[np.float64],
    codes: NDArray[np.int64],
    least_rate: float,
    latest: NDArray[np.float64] | None = None,
) -> Judged:
    """Judge rows by averaged predictions (n, K): so many are wrong, or more if `latest` contradict more."""
    rate = max(least_rate, _beyond_doubt(probs if latest is None else latest, codes))
    transition = estimates.estimate_transition(probs, codes, rate)
    scores = estimates.corrected_log_odds(probs, codes, transition)
    split = splits.at_rate(scores, rate)
    return Judged(
        scores=scores, clean=split.clean, probs=probs, noise_rate=rate, clean_proba=split.clean_proba,
        transition=transition, threshold=split.threshold,
    )  # fmt: skip


def _beyond_doubt(probs: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Return by how much more rows are contradicted than a network as unsure would be wrong about them."""
    contradicted = (probs.argmax(axis=1) != codes).mean()
    doubted = _OVERSURE * (1.0 - probs.max(axis=1)).mean()
    return max(0.0, float(contradicted - doubted))


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
