"""RobustTrainer: the plumbing of trainers with one network and a loss that resists wrong labels."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.criteria import RobustLoss
from noisefilter.models import build_net
from noisefilter.net import Net
from noisefilter.single import SingleTrained, with_criterion
from noisefilter.trained import check_at_least_1, check_drops, planted_before
from noisefilter.trainer import BaseTrainer
from noisefilter.verdict import Verdict
from noisefilter.weights import Place, load_network

__all__ = ["RobustTrainer"]

_MAX_EPOCHS = 60
_WARMUP = 6  # one epoch in so many


class RobustTrainer(BaseTrainer):
    """A trainer of one network that learns labels by a robust loss of its own.

    A trainer writes :meth:`_begin` with :meth:`_net` and :meth:`_course`, which give a
    :class:`noisefilter.single.SingleTraining` what it needs. On top of those of :class:`BaseTrainer` it has
    the parameters ``lr_drops``, ``lr_drop_factor``, ``warmup_epochs`` and ``probes``.
    """

    lr_drops: tuple[float, ...] | None
    lr_drop_factor: float
    warmup_epochs: int | None
    probes: float | None

    def _net(
        self,
        rows: Rows,
        n_classes: int,
        rng: np.random.RandomState,
        criterion: type[RobustLoss],
        told: dict[str, Any],
        **training: Any,
    ) -> Net:
        """Return an untrained net with this loss, ``told`` its arguments; ``training`` are others of Net."""
        own = self.max_epochs is None and self.estimator is None
        settings = {
            "max_epochs": _MAX_EPOCHS if own else self.max_epochs, "batch_size": self.batch_size,
            "lr": self.lr, "verbose": 0,
        }  # fmt: skip
        if self.lr_drops is not None:
            training |= {"lr_drops": tuple(self.lr_drops), "lr_drop_factor": self.lr_drop_factor}
        net = build_net(
            self.estimator, rows, n_classes, network=self.network, settings=settings, training=training,
            seed=int(rng.randint(2**31 - 1)),
        )  # fmt: skip
        return with_criterion(net, criterion, **told)

    def _course(
        self,
        net: Net,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        rng: np.random.RandomState,
    ) -> dict[str, Any]:
        """Return how long the warm-up is, what is planted in it, and how long a verdict is held."""
        warmup = -(-net.max_epochs // _WARMUP) if self.warmup_epochs is None else self.warmup_epochs
        probe_rows, probe_codes = planted_before(self.probes, codes, n_classes, given is not None, rng)
        held = warmup if self.split_epochs is None else self.split_epochs
        return {
            "warmup_epochs": warmup, "probe_rows": probe_rows, "probe_codes": probe_codes, "given": given,
            "held_epochs": held,
        }  # fmt: skip

    def _answering(self, tensors: Mapping[str, Any], rest: Mapping[str, Any], place: Place) -> SingleTrained:
        return SingleTrained(load_network(tensors, rest, place))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_drops(self)
        if self.warmup_epochs is not None:
            check_at_least_1(self, "warmup_epochs")
        if self.probes is not None:
            check_number("probes", self.probes, Real, "in [0, 0.5]", lambda value: 0 <= value <= 0.5)
