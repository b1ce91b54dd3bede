"""PairTrainer: what the trainers share whose two networks see the same batches and choose rows in them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.errors import ParameterError
from noisefilter.pairs import PairTraining
from noisefilter.trained import planted_before
from noisefilter.trainer import BaseTrainer
from noisefilter.twonets import CoTrained, given_rate, longest_warmup, two_nets
from noisefilter.verdict import Verdict
from noisefilter.weights import Place

__all__ = ["PairTrainer"]

_ADAM_LR = 1e-3
_MAX_EPOCHS = 60
_SETTINGS = ("ramp_epochs", "ramp_power")  # of the schedule, where a trainer has one


class PairTrainer(BaseTrainer):
    """A trainer whose :class:`noisefilter.pairs.PairTraining` chooses rows in every batch.

    On top of those of :class:`BaseTrainer` it has the parameters ``optimizer``, ``noise_rate``,
    ``warmup_epochs`` and ``probes``; its schedule, where it has one, has ``ramp_epochs`` and ``ramp_power``.
    A warm-up on all rows, some of them under planted labels, shows how many labels are wrong; where that is
    known there is none, unless the method ``_warms_up`` always. A verdict to start from says which rows to
    warm up on, for ``split_epochs``, and the rate.

    Attributes
    ----------
    labeled_ : (2, n) bool array
        Rows that each network learned from in the last epoch.
    """

    optimizer: str
    noise_rate: float | None
    warmup_epochs: int | None
    probes: float | None

    # Whether there is a warm-up where the rate is known, too.
    _warms_up = False

    @abstractmethod
    def _training(self) -> tuple[type[PairTraining], dict[str, Any]]:
        """Return the kind of training, and arguments that it has beyond those of its base."""

    @property
    def labeled_(self) -> NDArray[np.bool_]:
        """Rows that each network learned from in the last epoch, (2, n)."""
        if "_fitted" not in vars(self):
            raise AttributeError("labeled_ is there after fit only.")
        training: Any = self._fitted.training
        labeled: NDArray[np.bool_] = training.labeled
        return labeled

    def _begin(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        features: NDArray[Any] | None,
        rng: np.random.RandomState,
    ) -> PairTraining:
        default = self.estimator is None
        adam = _ADAM_LR if self.optimizer == "adam" and default else None
        settings = {
            "max_epochs": _MAX_EPOCHS if self.max_epochs is None and default else self.max_epochs,
            "batch_size": self.batch_size, "lr": adam if self.lr is None else self.lr, "verbose": 0,
        }  # fmt: skip
        nets = two_nets(
            self.estimator, self.network, rows, n_classes, settings, {}, rng, optimizer=self.optimizer
        )
        rate = self.noise_rate
        if rate is None and given is not None:
            rate = given_rate(given)
        probes = 0.0 if self.probes is None and rate is not None else self.probes  # nothing to be found out
        probe_rows, probe_codes = planted_before(probes, codes, n_classes, given is not None, rng)
        kind, own = self._training()
        own |= {name: getattr(self, name) for name in _SETTINGS if hasattr(self, name)}
        return kind(
            nets, rows, codes, n_classes, warmup_epochs=self._n_warmup(nets[0], len(rows), rate, given),
            warmup_rows=None if given is None else given.clean_mask, known_rate=rate,
            probe_rows=probe_rows, probe_codes=probe_codes, **own,
        )  # fmt: skip

    def _n_warmup(self, net: Any, n: int, rate: float | None, given: Verdict | None) -> int:
        """Return how many epochs there are before batches are chosen from."""
        if given is not None:
            held = self.split_epochs
            return min(max(1, net.max_epochs // 3) if held is None else held, net.max_epochs)
        if self.warmup_epochs is None:
            return longest_warmup(net, n) if rate is None or self._warms_up else 0
        if self.warmup_epochs == 0 and rate is None:
            raise ParameterError(
                "warmup_epochs must be at least 1 where noise_rate is None, got 0. The rate is estimated in "
                "the warm-up."
            )
        return min(self.warmup_epochs, net.max_epochs)

    def _answering(self, tensors: Mapping[str, Any], rest: Mapping[str, Any], place: Place) -> CoTrained:
        return CoTrained.from_answers(tensors, rest, len(self.verdict_), place)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.optimizer not in ("own", "adam"):
            raise ParameterError(f"optimizer must be one of ('own', 'adam'), got {self.optimizer!r}.")
        whole = "a whole number of at least"
        for name, kind, rule, holds in (
            ("noise_rate", Real, "in [0, 1)", lambda value: 0 <= value < 1),
            ("warmup_epochs", Integral, f"{whole} 0", lambda value: value >= 0),
            ("probes", Real, "in [0, 0.5]", lambda value: 0 <= value <= 0.5),
            ("ramp_epochs", Integral, f"{whole} 1", lambda value: value >= 1),
            ("ramp_power", Real, "greater than 0 and finite", lambda value: 0 < value < np.inf),
        ):
            if getattr(self, name, None) is not None:
                check_number(name, getattr(self, name), kind, rule, holds)
