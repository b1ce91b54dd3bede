"""Learning without labels: SimCLR, neighbors in its feature space, and clusters of them by SCAN.

T. Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020
(arXiv:2002.05709); W. Van Gansbeke et al., "SCAN: learning to classify images without labels", ECCV 2020
(arXiv:2005.12320). VRLVMix begins with both and goes on with :func:`scan_epoch`, its Eq. (12).
"""

from __future__ import annotations

import copy
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import xlogy
from torch import Tensor, nn

from noisefilter import __version__, losses
from noisefilter.augment import Augment, simclr_views, strong_views
from noisefilter.batches import Rows, count_batches, in_order, shuffled, statistics
from noisefilter.checkpoint import Checkpoints
from noisefilter.errors import InputError, InputTypeError, ParameterError, TrainingDivergedError
from noisefilter.fingerprints import described, digest, fingerprint
from noisefilter.models import NetModel, build_model
from noisefilter.neighbors import nearest
from noisefilter.net import Net, caught_features, check_finite_loss, derived_seed, local_seed
from noisefilter.networks import Standardize
from noisefilter.progress import Progress
from noisefilter.states import behind, check_tensors, load_optimizer_state, named, optimizer_state

__all__ = [
    "LEAST_ENTROPY",
    "Clusters",
    "Contrast",
    "LinearNetwork",
    "cluster_entropy",
    "encoded",
    "last_linear",
    "matched_clusters",
    "neighbor_sets",
    "predicted",
    "reordered",
    "scan_epoch",
    "scan_weights",
    "simclr_weights",
    "standardize",
    "untrained_net",
]

LEAST_ENTROPY = 0.5  # of log K: clusters whose mean prediction has less have collapsed
_EVAL_BATCH = 1000
_RATE_PER_ROW = 0.4 / 512  # of a batch
_PROJECTED = 128  # numbers that NT-Xent compares
_LAST_RATE = 1e-3  # of the learning rate, at the end of the cosine: three decays by 0.1, as in SCAN's code


class Clusters(NamedTuple):
    """What SCAN makes of rows.

    Attributes
    ----------
    weights : dict of str to Tensor
        State of the module whose last layer tells the clusters apart.
    probs : (n, K) array
        Probability of each cluster.
    entropy : float
        Of the mean prediction, as a share of log K; below ``LEAST_ENTROPY`` the clusters have collapsed.
    """

    weights: dict[str, Tensor]
    probs: NDArray[np.float32]
    entropy: float


def simclr_weights(
    net: Net,
    rows: Rows,
    *,
    epochs: int,
    seed: int,
    batch_size: int | None = None,
    lr: float | None = None,
    temperature: float = 0.1,
    weight_decay: float = 1e-4,
    views: Augment | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    verbose: int = 0,
) -> dict[str, Tensor]:
    """Train a copy of a network's module by SimCLR, and return its weights; the net stays as it was.

    Two random views of every row of a batch are to be more alike than any two of different rows
    (:func:`noisefilter.losses.nt_xent`), after a projection d -> d -> 128 which is thrown away behind. The
    last layer is not trained: it comes back as it was.

    SGD with momentum 0.9; the learning rate falls along half a cosine, from epoch to epoch, to a thousandth.
    Every epoch is seeded by its own number. Of the net, module, device, precision and `feature_layer` apply;
    its optimizer, augmentation and callbacks do not.

    Parameters
    ----------
    net : Net
        Initialized; its module is where training starts from.
    rows : Rows
        n images, on the net's device.
    epochs : int
        At least 1. The schedule depends on it.
    seed : int
        Of the projection, the order, the views and dropout; the global generators are left as they were.
    batch_size : int, optional
        Rows of a step, at least 2; no more than there are. Default 256, fewer below 4,096 rows, so that an
        epoch has about sixteen steps, at least 32. Published: 512.
    lr : float, optional
        Learning rate at the start, greater than 0. Default: 0.4 for batches of 512, as published, and in
        proportion.
    temperature : float, default=0.1
        Of NT-Xent, greater than 0.
    weight_decay : float, default=1e-4
        At least 0.
    views : callable, optional
        ``views(batch, generator) -> batch``, asked twice for each batch.
        :func:`noisefilter.augment.simclr_views` by default.
    checkpoint_dir : path, optional
        Every epoch ends here, and a call with the same arguments, rows and weights goes on from here; a
        training that has ended is read back. On a CPU with as many threads the bits are the same. The device
        may differ.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    dict of str to Tensor
        For ``net.module_.load_state_dict``, on the device of the rows.

    Raises
    ------
    ParameterError
        For a number outside its range, or a folder that holds another training.
    InputError
        For rows that are no images where `views` is None.
    TrainingDivergedError
        If the loss stops being finite.
    """
    batch_size = int(np.clip(len(rows) // 16, 32, 256)) if batch_size is None else batch_size
    lr = _RATE_PER_ROW * batch_size if lr is None else lr
    _check(epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay)
    if not temperature > 0:
        raise ParameterError(f"temperature must be greater than 0, got {temperature!r}.")
    if len(rows) < 2:
        raise InputError(f"X must have at least 2 rows to tell apart, got {len(rows)} sample(s).")
    views = simclr_views(rows) if views is None else views
    course = _Contrast(
        net, rows, epochs=epochs, seed=seed, batch_size=batch_size, lr=lr, temperature=temperature,
        weight_decay=weight_decay, views=views,
    )  # fmt: skip
    _run(course, "SimCLR", checkpoint_dir, verbose)
    return course.weights()


def encoded(net: Net, rows: Rows, weights: Mapping[str, Tensor] | None = None) -> NDArray[np.float32]:
    """Return the features (n, d) of rows: what the last linear layer, or ``net.feature_layer``, is fed.

    In float32 and evaluation mode; by other weights than the net's own where they are given, and the net
    stays as it was.
    """
    module = _copied(net, weights)
    kept = []
    with net.answered_by(module), caught_features(module, net.feature_layer) as caught, net.evaluating():
        for index in in_order(rows, _EVAL_BATCH):
            net.outputs(rows.take(index))
            kept.append(caught[0].float().cpu())
    features: NDArray[np.float32] = torch.cat(kept).numpy()
    if not np.isfinite(features).all():
        raise TrainingDivergedError(
            "The network must give finite features, got NaN or infinity. A smaller lr= usually helps."
        )
    return features


def neighbor_sets(
    features: NDArray[Any], n_neighbors: int = 20, *, random_state: int = 0
) -> NDArray[np.int64]:
    """Return the row numbers (n, n_neighbors) of the rows most alike by cosine, most alike first.

    A row is not among its own. SCAN's code keeps the row as the first of its neighbors, so that one of 21
    pairs is of a row with itself.

    Parameters
    ----------
    features : (n, d) array
        Finite, from a network or from anywhere else.
    n_neighbors : int, default=20
        At least 1; as many as there are other rows, with a warning, if it is more.
    random_state : int, default=0
        Seed of the inexact search for more than 50,000 rows.
    """
    if n_neighbors < 1:
        raise ParameterError(f"n_neighbors must be at least 1, got {n_neighbors!r}.")
    most = len(features) - 1
    if n_neighbors > most:
        warnings.warn(
            f"n_neighbors must be less than the number of rows, got {n_neighbors} for {most + 1} rows; "
            f"{most} are used.",
            UserWarning,
            stacklevel=2,
        )
    length = np.linalg.norm(np.asarray(features, dtype=np.float64), axis=1, keepdims=True)
    # Of rows of one length the nearest by Euclidean distance are the most alike by cosine.
    unit = np.asarray(features) / np.where(length > 0, length, 1.0)
    return nearest(unit, min(n_neighbors, most), random_state=random_state)


def scan_weights(
    net: Net,
    rows: Rows,
    neighbors: NDArray[np.int64],
    *,
    epochs: int,
    seed: int,
    weights: Mapping[str, Tensor] | None = None,
    batch_size: int = 128,
    lr: float = 1e-4,
    weight_decay: float = 1e-4,
    entropy_weight: float = 5.0,
    views: Augment | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    verbose: int = 0,
) -> Clusters:
    r"""Train a copy of a network's module to put rows and their neighbors into the same clusters.

    As many clusters as the module has outputs. Each step looks at rows and one neighbor of each, drawn at
    random, and follows :func:`noisefilter.losses.scan_loss` by Adam, in all layers. If the clusters collapse
    a warning says so; see ``Clusters.entropy``.

    Parameters
    ----------
    net, rows, epochs, seed, checkpoint_dir, verbose
        As in :func:`simclr_weights`.
    neighbors : (n, k) int array
        As :func:`neighbor_sets` has them.
    weights : dict of str to Tensor, optional
        To start from, such as :func:`simclr_weights` returned; the net's own by default.
    batch_size : int, default=128
        Rows of a step, as many neighbors beside them.
    lr, weight_decay : float
        Of Adam.
    entropy_weight : float, default=5.0
        :math:`\lambda_e`, at least 0.
    views : callable, optional
        What rows and neighbors are seen through; :func:`noisefilter.augment.strong_views` by default, and
        nothing for rows that are no images.
    """
    _check(epochs=epochs, batch_size=batch_size, lr=lr, weight_decay=weight_decay)
    if views is None:
        views = strong_views(rows) if len(rows.shape) == 3 else _as_it_is
    course = _Clustering(
        net, rows, epochs=epochs, seed=seed, batch_size=batch_size, lr=lr, weight_decay=weight_decay,
        entropy_weight=entropy_weight, views=views, neighbors=neighbors, weights=weights,
    )  # fmt: skip
    _run(course, "SCAN", checkpoint_dir, verbose)
    probs = predicted(net, rows, course.weights())
    entropy = cluster_entropy(probs)
    if entropy < LEAST_ENTROPY:
        warnings.warn(
            f"The clusters must be of some size, got a mean prediction with {entropy:.2f} of the entropy of "
            f"even ones (at least {LEAST_ENTROPY}). A larger entropy_weight= or more epochs of SimCLR "
            "usually help.",
            UserWarning,
            stacklevel=2,
        )
    return Clusters(course.weights(), probs, entropy)


def scan_epoch(
    net: Net,
    rows: Rows,
    neighbors: NDArray[np.int64] | Tensor,
    generator: torch.Generator,
    *,
    predictions: NDArray[np.int64] | Tensor | None = None,
    batch_size: int = 128,
    lr: float | None = 1e-3,
    entropy_weight: float = 2.0,
    views: Augment | None = None,
    bar: Progress | None = None,
) -> dict[str, float]:
    r"""Train a network for one pass over the rows by the SCAN loss: Eq. (12) of VRLVMix.

    Each row is paired with one of its neighbors, drawn at random from those of which the other network says
    the same as of the row; from all where there is no such one. The optimizer is the net's own at another
    learning rate, which is put back behind.

    Parameters
    ----------
    net : Net
        Initialized; it is trained.
    rows : Rows
        All n rows.
    neighbors : (n, k) int array
        As :func:`neighbor_sets` has them.
    generator : torch.Generator
        Of the rows' device. Order, neighbors and views are drawn from it; dropout draws from the global one,
        so call inside ``net.drawing(...)``.
    predictions : (n,) int array, optional
        Class numbers by the other network. Without them any neighbor will do.
    batch_size : int, default=128
        Rows of a step, as many neighbors beside them.
    lr : float or None, default=1e-3
        Learning rate during this epoch; ``None`` leaves it as it is.
    entropy_weight : float, default=2.0
        :math:`\lambda_e`, at least 0. 2 is VRLVMix's, 5 SCAN's.
    views : callable, optional
        What rows and neighbors are seen through; ``net.augment`` by default.
    bar : Progress, optional
        Told of every step; there are ``count_batches(n, batch_size)``.

    Returns
    -------
    dict
        ``loss``, ``agreement`` (mean of log<p_a, p_n>), ``entropy`` (of the mean prediction of a batch, as a
        share of log K), means over the rows, and ``n_steps``.

    Raises
    ------
    TrainingDivergedError
        If the loss stops being finite.
    """
    if entropy_weight < 0:
        raise ParameterError(f"entropy_weight must be at least 0, got {entropy_weight!r}.")
    chooser = _Partners(rows, neighbors, predictions)
    optimizers = [getattr(net, name + "_") for name in net._optimizers]
    views = views or net.augment or _as_it_is
    with _at_rate(optimizers, lr):
        return _scan_pass(
            net, optimizers, rows, chooser, views, generator, batch_size=batch_size,
            entropy_weight=entropy_weight, bar=bar,
        )  # fmt: skip


def predicted(net: Net, rows: Rows, weights: Mapping[str, Tensor] | None = None) -> NDArray[np.float32]:
    """Return the probabilities (n, K) of rows as :func:`encoded` returns their features."""
    with net.answered_by(_copied(net, weights)), net.evaluating():
        found = [
            net.log_probs(net.outputs(rows.take(index))).exp().cpu() for index in in_order(rows, _EVAL_BATCH)
        ]
    probs: NDArray[np.float32] = torch.cat(found).numpy()
    return probs


def cluster_entropy(probs: NDArray[Any]) -> float:
    """Return the entropy of the mean prediction of probabilities (n, K), as a share of log K, in [0, 1].

    Below ``LEAST_ENTROPY`` a network has put nearly all rows into few classes, and SCAN would drive it
    further: skip it.
    """
    mean = np.asarray(probs, dtype=np.float64).mean(axis=0)
    mean = mean / mean.sum()
    return float(-xlogy(mean, mean).sum() / math.log(len(mean))) if len(mean) > 1 else 1.0


def matched_clusters(
    clusters: NDArray[np.integer], codes: NDArray[np.integer], n_classes: int
) -> NDArray[np.int64]:
    """Return the class of each cluster, (K,), one to one, so that most rows are in the cluster of their code.

    By the Hungarian method. With given labels, some of them wrong, it finds the class that clusters stand for
    as long as the right one is the most frequent in them.
    """
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)  # [cluster, class]
    np.add.at(counts, (clusters, codes), 1)
    return np.asarray(linear_sum_assignment(counts, maximize=True)[1], dtype=np.int64)


def reordered(
    net: Net, rows: Rows, weights: Mapping[str, Tensor], classes: NDArray[np.integer]
) -> dict[str, Tensor]:
    """Return weights whose output ``classes[k]`` is what output ``k`` was: clusters made classes.

    Moves the rows of the module's last linear layer to run.

    Raises
    ------
    ParameterError
        If that layer does not have one output per class.
    """
    name, layer = last_linear(net, rows)
    if layer.out_features != len(classes):
        raise ParameterError(
            f"The last linear layer must have one output per class ({len(classes)}) for clusters to become "
            f"classes, got {layer.out_features}."
        )
    origin = torch.from_numpy(np.argsort(classes))  # of each class, which cluster it was
    moved = dict(weights)
    for part in ("weight", "bias"):
        if (key := f"{name}.{part}" if name else part) in moved:
            moved[key] = moved[key][origin.to(moved[key].device)]
    return moved


class LinearNetwork(nn.Module):
    """A linear layer on standardized rows: what tells clusters of an embedding apart.

    Parameters
    ----------
    n_inputs, n_classes : int
        Columns d and outputs K.
    """

    def __init__(self, n_inputs: int, n_classes: int):
        super().__init__()
        self.standardize = Standardize((n_inputs,))
        self.head = nn.Linear(n_inputs, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, K)."""
        logits: Tensor = self.head(self.standardize(x))
        return logits


def untrained_net(
    estimator: Any, network: type[nn.Module] | None, rows: Rows, n_outputs: int, seed: int
) -> Net:
    """Return an initialized net that knows mean and deviation of the rows; its training is somebody else's.

    Raises
    ------
    InputTypeError
        If the prototype is no network, or one that only its own class can train.
    """
    settings = {"max_epochs": None, "batch_size": None, "lr": None, "verbose": 0}
    model = build_model(
        estimator, rows, n_outputs, network=network, settings=settings, training={}, record=(), seed=seed
    )
    if not isinstance(model, NetModel):
        raise InputTypeError(
            "estimator must be a skorch NeuralNetClassifier or a noisefilter.Net, as its module is what is "
            f"trained, got {type(estimator).__name__}."
        )
    net = model.net.set_params(random_state=seed).initialize()
    standardize(net.module_, rows)
    return net


def standardize(module: Any, rows: Rows) -> None:
    """Let a network of :mod:`noisefilter.networks` know mean and deviation of the rows."""
    if isinstance(getattr(module, "standardize", None), Standardize):
        mean, deviation = statistics(rows)
        if not torch.isfinite(mean).all():
            raise InputError("X must be finite, got NaN or infinity.")
        module.standardize.set(mean, deviation)


def _copied(net: Net, weights: Mapping[str, Tensor] | None) -> Any:
    """Return a copy of the module, with other weights where they are given, laid out for convolutions."""
    module = copy.deepcopy(net.module_)
    if weights is not None:
        module.load_state_dict(dict(weights))  # strictly: other weights would pass unnoticed
    if not any(parameter.dim() == 5 for parameter in module.parameters()):  # of 3-D convolutions
        module.to(memory_format=torch.channels_last)
    return module


# --- two trainings --------------------------------------------------------------------------------


class _Course(ABC):
    """A training of a copy of a net's module, epoch by epoch, that can be taken up again.

    All that an epoch draws follows from the seed and the number of the epoch.
    """

    optimizer: torch.optim.Optimizer

    def __init__(
        self, net: Net, rows: Rows, weights: Mapping[str, Tensor] | None, seed: int, **settings: Any
    ):
        self.net = net
        self.rows = rows
        self.seed = seed
        self.settings = settings
        self.n_epochs: int = settings["epochs"]
        self.batch_size = min(settings["batch_size"], len(rows))
        self.views: Augment = settings["views"]
        self.history: list[float] = []
        self.module = _copied(net, weights)
        standardize(self.module, rows)

    @abstractmethod
    def run_epoch(self, generator: torch.Generator, bar: Progress) -> float:
        """Train one epoch; returns the mean loss of a row."""

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules in training."""
        return {"module": self.module}

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        return float(self.settings["lr"])

    def weights(self) -> dict[str, Tensor]:
        """Return the state of the module, copied."""
        return {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}

    def configuration(self, what: str) -> dict[str, Any]:
        """Return all that the training depends on, as JSON can hold it."""
        # Parameters alone: the last bit of a mean, which is a buffer, is not the same on every device.
        start = [weight.detach().cpu() for part in self.parts().values() for weight in part.parameters()]
        return {
            "training": what,
            "noisefilter": __version__,
            "seed": self.seed,
            **described(self.settings),
            "network": described(type(self.module)),
            "precision": self.net.precision,
            "initial weights": digest(*start),
            "X": fingerprint(self.rows),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors by name and values for JSON: all that later epochs depend on."""
        tensors = self._tensors()
        remembered, rest = optimizer_state(self.optimizer)
        tensors |= {f"optimizer.{name}": tensor for name, tensor in remembered.items()}
        return tensors, {"optimizer": rest, "history": self.history, "remembered": sorted(remembered)}

    def load_state(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        check_tensors(tensors, self._tensors(), {f"optimizer.{name}" for name in rest["remembered"]})
        for name, part in self.parts().items():
            part.load_state_dict(behind(name + ".", tensors))
        load_optimizer_state(self.optimizer, behind("optimizer.", tensors), rest["optimizer"])
        self.history = list(rest["history"])

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{name}.{key}": tensor
            for name, part in self.parts().items()
            for key, tensor in part.state_dict().items()
        }


class _Contrast(_Course):
    """SimCLR."""

    def __init__(self, net: Net, rows: Rows, *, seed: int, **settings: Any):
        super().__init__(net, rows, None, seed, **settings)
        self.projection = _projection(net, self.module, rows, seed)
        parameters = [*self.module.parameters(), *self.projection.parameters()]
        # The last layer gets no gradient, and so it is neither moved nor does it decay.
        self.optimizer = torch.optim.SGD(
            parameters, lr=settings["lr"], momentum=0.9, weight_decay=settings["weight_decay"]
        )

    def parts(self) -> dict[str, nn.Module]:
        """Return the modules in training."""
        return {"module": self.module, "projection": self.projection}

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch: half a cosine."""
        share = (1.0 + math.cos(math.pi * epoch / self.n_epochs)) / 2.0
        return float(self.settings["lr"] * (_LAST_RATE + (1.0 - _LAST_RATE) * share))

    def run_epoch(self, generator: torch.Generator, bar: Progress) -> float:
        """Train one epoch."""
        net, rows = self.net, self.rows
        half, total = net._half_training(), torch.zeros((), device=rows.device)
        with caught_features(self.module, net.feature_layer) as caught:
            for index in shuffled(len(rows), self.batch_size, generator):
                x = rows.take(index)
                both = torch.cat([self.views(x, generator), self.views(x, generator)])
                with net._autocast(half):
                    self.module(both)
                    projected = self.projection(caught[0])
                first, second = projected.float().chunk(2)
                loss = losses.nt_xent(first, second, self.settings["temperature"])
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self.optimizer.step()
                total += loss.detach() * len(index)
                bar.step()
        return float(total / len(rows))


def _projection(net: Net, module: nn.Module, rows: Rows, seed: int) -> nn.Module:
    """Return what NT-Xent compares the features of a network through: d -> d -> 128."""
    if net.feature_layer is None and not any(isinstance(part, nn.Linear) for part in module.modules()):
        raise ParameterError(
            "network must have a linear layer, whose input is compared, or feature_layer of a Net must name "
            f"another layer, got {type(module).__name__}."
        )
    with caught_features(module, net.feature_layer) as caught:
        with net.answered_by(module), net.evaluating():
            net.outputs(rows.take(torch.arange(1, device=rows.device)))
        width = caught[0].shape[1]
    with local_seed(seed, rows.device):
        layers = nn.Linear(width, width), nn.ReLU(), nn.Linear(width, _PROJECTED)
        return nn.Sequential(*layers).to(rows.device)


class Contrast:
    """SimCLR's loss beside another training of a network, with a projection that it trains on its own.

    The projection learns by SGD with momentum 0.9 and a weight decay of 5e-4.

    Parameters
    ----------
    net : Net
        Initialized.
    rows : Rows
        Of the training.
    weight : float
        Of the loss, greater than 0.
    temperature : float
        Of NT-Xent, greater than 0.
    seed : int
        Of the projection; the global generators are left as they were.
    """

    def __init__(self, net: Net, rows: Rows, *, weight: float, temperature: float, seed: int):
        self.weight = weight
        self.temperature = temperature
        self.projection = _projection(net, net.module_, rows, seed)
        self.optimizer = torch.optim.SGD(
            self.projection.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4
        )
        self.total, self.n_rows = torch.zeros((), device=rows.device), 0

    def begin(self, lr: float) -> None:
        """Begin an epoch in which the projection learns at this rate."""
        self.total, self.n_rows = torch.zeros_like(self.total), 0
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def loss(self, net: Net, views: tuple[Tensor, ...]) -> Tensor:
        """Return the weighted loss of two views (b, ...), or of one that dropout sees twice."""
        with caught_features(net.module_, net.feature_layer) as caught:
            net.outputs(torch.cat([views[0], views[-1]]), net._half_training())
        first, second = self.projection(caught[0].float()).chunk(2)
        loss = losses.nt_xent(first, second, self.temperature)
        self.total += loss.detach() * len(first)
        self.n_rows += len(first)
        return self.weight * loss

    def step(self) -> None:
        """Move the projection down the gradients at hand."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def mean_loss(self) -> float | None:
        """Return the mean loss of the epoch, without its weight; None where no row was unlabeled."""
        return float(self.total / self.n_rows) if self.n_rows else None

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the epochs to come depend on."""
        tensors, rest = optimizer_state(self.optimizer)
        own = {name: tensor.clone() for name, tensor in self.projection.state_dict().items()}
        return named("optimizer.", tensors) | named("projection.", own), rest

    def load_state(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        self.projection.load_state_dict(behind("projection.", tensors))
        load_optimizer_state(self.optimizer, behind("optimizer.", tensors), rest)


class _Clustering(_Course):
    """SCAN."""

    def __init__(
        self,
        net: Net,
        rows: Rows,
        *,
        seed: int,
        neighbors: NDArray[np.int64],
        weights: Mapping[str, Tensor] | None,
        **settings: Any,
    ):
        super().__init__(net, rows, weights, seed, **settings)
        self.partners = _Partners(rows, neighbors, None)
        self.neighbors = digest(neighbors)
        self.optimizer = torch.optim.Adam(
            self.module.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"]
        )

    def configuration(self, what: str) -> dict[str, Any]:
        """Return all that the training depends on, as JSON can hold it."""
        return super().configuration(what) | {"neighbors": self.neighbors}

    def run_epoch(self, generator: torch.Generator, bar: Progress) -> float:
        """Train one epoch."""
        with self.net.answered_by(self.module):
            return _scan_pass(
                self.net, [self.optimizer], self.rows, self.partners, self.views, generator, bar=bar,
                batch_size=self.batch_size, entropy_weight=self.settings["entropy_weight"],
            )["loss"]  # fmt: skip


def _run(course: _Course, what: str, folder: str | os.PathLike[str] | None, verbose: int) -> None:
    """Run the epochs that are left, and leave each on disk where there is a folder."""
    checkpoints = None if folder is None else Checkpoints(os.fspath(folder), course.configuration(what))
    saved = None if checkpoints is None else checkpoints.latest()
    if saved is not None:
        course.load_state(saved.tensors, saved.record)
    rows, start = course.rows, len(course.history)
    generator = torch.Generator(rows.device)
    left = course.n_epochs - start
    name = f"{what}: {left} epochs on {len(rows):,} rows"
    n_steps = left * count_batches(len(rows), course.batch_size)
    with Progress(name, max(1, n_steps), verbose > 0) as bar:
        for epoch in range(start, course.n_epochs):
            course.module.train()
            # Two words of one seed: order and views from the one, dropout from the other.
            generator.manual_seed(derived_seed(course.seed, 1, epoch))
            seeded = local_seed(derived_seed(course.seed, 2, epoch), rows.device)
            with seeded, _at_rate([course.optimizer], course.learning_rate(epoch)):
                loss = course.run_epoch(generator, bar)
            check_finite_loss(loss)
            course.history.append(loss)
            bar.bar.set_postfix_str(f"loss {loss:.3g}", refresh=False)
            if checkpoints is not None:
                checkpoints.save(epoch + 1, *course.state())


# --- SCAN, step by step ---------------------------------------------------------------------------


class _Partners:
    """Draws one neighbor for each row, of the same prediction where there is one."""

    def __init__(
        self,
        rows: Rows,
        neighbors: NDArray[np.int64] | Tensor,
        predictions: NDArray[np.int64] | Tensor | None,
    ):
        self.neighbors = torch.as_tensor(neighbors, device=rows.device)
        shape = tuple(self.neighbors.shape)
        if len(shape) != 2 or shape[0] != len(rows) or not shape[1]:
            raise InputError(f"neighbors must be row numbers (n, k), n={len(rows)}, got shape {shape}.")
        if int(self.neighbors.min()) < 0 or int(self.neighbors.max()) >= len(rows):
            raise InputError(f"neighbors must be row numbers from 0 to {len(rows) - 1}, got others.")
        self.predictions = None if predictions is None else torch.as_tensor(predictions, device=rows.device)

    def __call__(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the number of a neighbor of each row, (b,)."""
        candidates = self.neighbors[index]  # (b, k)
        draw = torch.rand(candidates.shape, generator=generator, device=generator.device)
        if self.predictions is not None:
            same = self.predictions[candidates] == self.predictions[index][:, None]
            draw = draw + same  # any of these before any other
        return candidates.gather(1, draw.argmax(1, keepdim=True))[:, 0]


def _scan_pass(
    net: Net,
    optimizers: Sequence[torch.optim.Optimizer],
    rows: Rows,
    partners: _Partners,
    views: Augment,
    generator: torch.Generator,
    *,
    batch_size: int,
    entropy_weight: float,
    bar: Progress | None,
) -> dict[str, float]:
    """Train ``net.module_`` for one pass over the rows; see :func:`scan_epoch`."""
    total = torch.zeros(3, device=rows.device)
    half, n_steps = net._half_training(), 0
    before = net.module_.training
    net.module_.train()
    try:
        for index in shuffled(len(rows), batch_size, generator):
            both = [views(rows.take(i), generator) for i in (index, partners(index, generator))]
            anchors, others = net.log_probs(net.outputs(torch.cat(both), half)).chunk(2)
            alike, entropy = losses.agreement(anchors, others), losses.mean_entropy(anchors)
            loss = losses.scan_loss(anchors, others, entropy_weight)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            share = entropy / math.log(max(2, anchors.shape[1]))
            total += torch.stack([loss, alike, share]).detach() * len(index)
            n_steps += 1
            if bar is not None:
                bar.step()
    finally:
        net.module_.train(before)
    loss, alike, entropy = (total / len(rows)).tolist()
    check_finite_loss(loss)
    return {"loss": loss, "agreement": alike, "entropy": entropy, "n_steps": n_steps}


@contextmanager
def _at_rate(optimizers: Sequence[torch.optim.Optimizer], lr: float | None) -> Iterator[None]:
    """Set another learning rate inside the block."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = [group["lr"] for group in groups]
    for group in groups:
        group["lr"] = group["lr"] if lr is None else lr
    try:
        yield
    finally:
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def _as_it_is(x: Tensor, generator: torch.Generator) -> Tensor:
    return x


def last_linear(net: Net, rows: Rows) -> tuple[str, nn.Linear]:
    """Return name and layer of the last linear layer to run on a row; ParameterError if there is none."""
    ran: list[tuple[str, nn.Linear]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, *_, name=name: ran.append((name, layer)))
        for name, layer in net.module_.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    compiled, net.module_._compiled_call_impl = net.module_._compiled_call_impl, None  # would not see hooks
    try:
        net.predict_batch(rows.take(torch.arange(1, device=rows.device)))
    finally:
        net.module_._compiled_call_impl = compiled
        for hook in hooks:
            hook.remove()
    if not ran:
        raise ParameterError(f"network must have a linear layer, got {type(net.module_).__name__}.")
    return ran[-1]


def _check(*, epochs: int, batch_size: int, lr: float, weight_decay: float) -> None:
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 2)):
        if value < least:
            raise ParameterError(f"{name} must be at least {least}, got {value!r}.")
    if not 0 < lr < math.inf:
        raise ParameterError(f"lr must be greater than 0 and finite, got {lr!r}.")
    if weight_decay < 0:
        raise ParameterError(f"weight_decay must be at least 0, got {weight_decay!r}.")
