"""SCAN in the course of two networks: from clusters found without labels, to saying the same of neighbors.

What DivideMix has no word for, and VRLVMix and ScanMix have in common. W. Van Gansbeke et al., "SCAN:
learning to classify images without labels", ECCV 2020 (arXiv:2005.12320). The training itself is in
:mod:`noisefilter.pretrain`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from noisefilter.batches import Rows, count_batches
from noisefilter.cotraining import CoTraining, pushed
from noisefilter.errors import ParameterError
from noisefilter.net import Net
from noisefilter.pretrain import (
    LEAST_ENTROPY,
    cluster_entropy,
    encoded,
    last_linear,
    matched_clusters,
    neighbor_sets,
    reordered,
    scan_epoch,
    scan_weights,
    simclr_weights,
)
from noisefilter.progress import Progress
from noisefilter.twonets import together

__all__ = ["ClusteredTraining", "check_pretraining"]

_SCAN_BATCH = 128
_CLUSTERING_EPOCHS = 50
DRAW = 1  # what is drawn in an epoch beside its training


class ClusteredTraining(CoTraining):
    """Two networks that may begin without labels, and learn to say the same of neighbors.

    A trainer says with :meth:`scan_rate` whether they do, and calls :meth:`scan` behind an epoch. With
    pre-training both begin with weights of SimCLR, or of the clusters that SCAN finds by them, and the
    warm-up trains the last layer alone. Neighbors are those of the embedding given, or of SimCLR, or in the
    features of both networks when they are first asked for.

    Parameters
    ----------
    *args, **settings
        As of :class:`noisefilter.cotraining.CoTraining`, or of the trainer's own kind of it.
    features : (n, d) array, optional
        An embedding of the rows.
    trainer : estimator
        Of its parameters ``pretrain``, ``pretrain_epochs``, ``n_neighbors``, ``scan_entropy``,
        ``checkpoint_dir`` and ``verbose`` are read.
    depth : int, default=1
        Of how many last epochs the predictions of both networks are kept.
    """

    _remembered: ClassVar[tuple[str, ...]] = ("neighbors",)
    _of_epoch: ClassVar[tuple[str, ...]] = ("predictions", "predicted")

    def __init__(
        self, *args: Any, features: NDArray[Any] | None, trainer: Any, depth: int = 1, **settings: Any
    ):
        self.options = trainer
        super().__init__(*args, trainer=trainer, **settings)
        self.features = features
        self.predictions = np.zeros((2, depth, len(self.rows)), dtype=np.int32)  # the newest last
        self.predicted = np.zeros(len(self.rows), dtype=np.int32)  # by both together
        self.neighbors: NDArray[np.int64] | None = None

    # -- what a trainer writes --------------------------------------------------------------------

    def scan_rate(self) -> float | None:
        """Return the learning rate of SCAN, None where there is to be none; asked after the warm-up."""
        return None

    # -- epochs -----------------------------------------------------------------------------------

    def cost(self, epoch: int) -> float:
        """Return how long an epoch takes, in steps of the warm-up."""
        scans = epoch >= self.warmup_epochs and self.scan_rate() is not None
        return super().cost(epoch) + (2 * count_batches(len(self.rows), _SCAN_BATCH) if scans else 0)

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train both networks for an epoch, and look at all rows; before the first, train without labels."""
        if epoch == 0 and self.options.pretrain is not None:
            self._pretrain()
        return super().run_epoch(epoch, bar)

    def _pretrain(self) -> None:
        net, options = self.nets[0], self.options
        folder = options.checkpoint_dir and os.path.join(options.checkpoint_dir, "simclr")
        common: dict[str, Any] = {"seed": net.seed_, "verbose": options.verbose}
        weights = simclr_weights(
            net, self.rows, epochs=options.pretrain_epochs, checkpoint_dir=folder, **common
        )
        self.find_neighbors(encoded(net, self.rows, weights))
        if self._finds_clusters():
            assert self.neighbors is not None
            found = scan_weights(
                net, self.rows, self.neighbors, weights=weights, epochs=_CLUSTERING_EPOCHS, **common
            )
            if found.entropy >= LEAST_ENTROPY:
                classes = matched_clusters(found.probs.argmax(axis=1), self.codes, self.n_classes)
                weights = reordered(net, self.rows, found.weights, classes)
        for net in self.nets:
            net.module_.load_state_dict(weights)

    def _finds_clusters(self) -> bool:
        """Whether pre-training goes on from features to clusters."""
        return True

    def _warm_up(self, epoch: int, bar: Progress) -> dict[str, Any]:
        if self.options.pretrain is None or self.plain:
            return super()._warm_up(epoch, bar)
        with _last_layer_alone(self.nets[0], self.rows), _last_layer_alone(self.nets[1], self.rows):
            return super()._warm_up(epoch, bar)

    def scan(self, epoch: int, bar: Progress) -> float | None:
        """Train both networks to say the same of neighbors, and return the loss.

        None where there is to be no such training, or they put all rows into few classes.
        """
        lr = self.scan_rate()
        counts = np.bincount(self.predicted, minlength=self.n_classes)
        if lr is None or cluster_entropy(counts[None]) < LEAST_ENTROPY:
            return None
        neighbors = self.near()
        found = []
        for which, net in enumerate(self.nets):
            with net.drawing(epoch, DRAW) as generator:
                record = scan_epoch(
                    net, self.rows, neighbors, generator, bar=bar, lr=lr,
                    predictions=self.predictions[1 - which, -1].astype(np.int64), batch_size=_SCAN_BATCH,
                    entropy_weight=self.options.scan_entropy,
                )  # fmt: skip
            found.append(record["loss"])
        return float(np.mean(found))

    # -- neighbors --------------------------------------------------------------------------------

    def near(self) -> NDArray[np.int64]:
        """Return the neighbors of all rows, (n, L), which stay what they are when first asked for."""
        if self.neighbors is None:
            self.find_neighbors(self._space())
        assert self.neighbors is not None
        return self.neighbors

    def find_neighbors(self, space: NDArray[Any]) -> None:
        """Look for neighbors in the embedding given, or else in a space (n, d)."""
        space = space if self.features is None else self.features
        self.neighbors = neighbor_sets(space, min(int(self.options.n_neighbors), len(space) - 1))

    def _space(self) -> NDArray[Any]:
        """Return the embedding given, or the features of both networks, one beside the other."""
        if self.features is not None:
            return self.features
        found = []
        for which in range(2):
            with self.answering(which):
                features = self.nets[which].evaluate(self.rows, features=True)[1]
            assert features is not None
            length = np.linalg.norm(features, axis=1, keepdims=True)
            found.append(features / np.where(length > 0, length, 1.0))
        return np.concatenate(found, axis=1)

    # -- what is seen of the rows, and kept -------------------------------------------------------

    def _note(self, both: list[NDArray[Any]]) -> None:
        super()._note(both)
        for bank, probs in zip(self.predictions, both, strict=True):
            pushed(bank, probs.argmax(axis=1))
        self.predicted = together(both).argmax(axis=1).astype(np.int32)

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        super().release()
        self.features = self.neighbors = None
        del self.options, self.predictions, self.predicted


def check_pretraining(trainer: Any, rows: Rows) -> None:
    """Raise ParameterError where SimCLR is asked for, and rows are no images."""
    if trainer.pretrain is not None and len(rows.shape) != 3:
        raise ParameterError(
            f"pretrain must be None where rows are no images, got {trainer.pretrain!r}. An embedding from "
            "elsewhere goes into fit(X, y, features=...)."
        )


@contextmanager
def _last_layer_alone(net: Net, rows: Rows) -> Iterator[None]:
    """Keep all weights but those of the last layer from being trained inside the block."""
    own = {id(each) for each in last_linear(net, rows)[1].parameters()}
    others = [each for each in net.module_.parameters() if id(each) not in own and each.requires_grad]
    for each in others:
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in others:
            each.requires_grad_(True)
