"""SimCLR and SCANClusterer: features and clusters of images without any labels."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    clone,
)
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from noisefilter.base import check_number
from noisefilter.batches import Rows, at_hand, choose_device, count_batches, first_row, within_memory
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.inputs import as_rows, check_features
from noisefilter.models import feeds_raw
from noisefilter.net import Net
from noisefilter.networks import PreActResNet18
from noisefilter.pretrain import (
    Clusters,
    LinearNetwork,
    encoded,
    neighbor_sets,
    predicted,
    scan_weights,
    simclr_weights,
    untrained_net,
)
from noisefilter.step import check_input, columns_of, has_columns, same_shape
from noisefilter.trained import check_at_least_1, check_network, check_positive

__all__ = ["SCANClusterer", "SimCLR"]

_LEAST = ("at least 0 and finite", lambda value: 0 <= value < np.inf)
# Epochs and steps at least, and learning rate: of a network, and where a linear layer is all that is trained.
_WHOLE = (50, 2_000, 1e-4)
_HEAD = (10, 500, 1e-2)


class _Unlabeled(BaseEstimator, ABC):
    """What both share: rows without labels, a seed, a folder of checkpoints."""

    channels: str | None
    device: str
    random_state: Any
    checkpoint_dir: Any
    network: Any = None
    _net: Net
    _shape: tuple[int, ...]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _check_shared(self) -> None:
        check_network(self)
        if self.channels not in (None, "first", "last"):
            raise ParameterError(f"channels must be 'first', 'last' or None, got {self.channels!r}.")
        if not isinstance(self.checkpoint_dir, str | os.PathLike | None):
            raise ParameterError(f"checkpoint_dir must be a path or None, got {self.checkpoint_dir!r}.")
        if self.checkpoint_dir is not None and not isinstance(self.random_state, Integral):
            raise ParameterError(
                "random_state must be a number with checkpoint_dir, as a training goes on with its own seed, "
                f"got {self.random_state!r}."
            )

    def _seed(self) -> int:
        try:
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        except ValueError as error:
            raise ParameterError(
                f"random_state must be an int, a RandomState or None, got {self.random_state!r}."
            ) from error

    @abstractmethod
    def _rows(self, checked: Any, device: Any) -> Rows:
        """Return rows of the engine."""

    def _later(self, X: Any) -> Rows:
        """Return rows that arrive after fit, where the network is."""
        checked = check_input(X)
        if has_columns(checked):
            validate_data(self, X, reset=False, skip_check_array=True)
        return same_shape(self._rows(checked, at_hand(self._net._torch_device)), self._shape)

    def _keep(self, columns: dict[str, Any], **fitted: Any) -> None:
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        self.__dict__.update(columns | fitted)


class SimCLR(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _Unlabeled):
    """Features of images, learned from the images alone: two views of one picture are to look alike.

    Two random views of every picture of a batch (part of it, mirrored or not, in other colors) go through a
    network and a small projection behind it, and each view is to find the other one of its picture among all
    views of the batch. What the last layer of the network would be fed are the features. They cost no
    label, so wrong labels cannot spoil them: neighbors in them, or a linear model on them, see what labels
    hide.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype, cloned: its module and precision are used; its optimizer, epochs and device are not.
    network : type of torch.nn.Module, optional
        Instead of the default network (a small CNN), one of :mod:`noisefilter.networks` or your own class;
        sizes are filled in by name.
    max_epochs : int, default=50
        Each looks at every picture twice.
    batch_size : int, optional
        Pictures of a step. Default 256, fewer below 4,096 rows, so that an epoch has about sixteen steps, at
        least 32.
    lr : float, optional
        Learning rate of SGD with momentum 0.9 at the start; it falls along half a cosine to a thousandth.
        Default: 0.4 for batches of 512, and in proportion.
    temperature : float, default=0.1
        Of the loss; lower makes the most similar pictures count more.
    weight_decay : float, default=1e-4
        At least 0.
    views : callable, optional
        ``views(batch, generator) -> batch``, instead of :class:`noisefilter.augment.SimCLRViews`. What they
        change, features will not tell.
    checkpoint_dir : path, optional
        Every epoch ends here, and a fit with the same parameters and rows goes on from here, on a CPU with as
        many threads to the same bits; needs a number for ``random_state``.
    channels : {"first", "last"}, optional
        Where 4-D images have their channels, if the shape does not tell.
    device : str, default="auto"
        ``"auto"`` is CUDA where there is a GPU.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, RandomState or None, default=None
        Seeds everything; the global generators are left as they were.

    Attributes
    ----------
    module_ : torch.nn.Module
        The network. Its last layer is as it was initialized, with two outputs.
    n_features_in_ : int
        Columns of ``X``; for 2-D input only.
    feature_names_in_ : (d,) array
        Column names; for DataFrames only.

    Raises
    ------
    InputError
        For tables: there are no published views of their rows. An embedding of them from elsewhere can be
        passed on as it is.

    Notes
    -----
    Cost: an epoch passes 2n views forward and backward. Published accuracies come after 500 epochs and more
    of a ResNet-18; a few dozen epochs of a small network are well above random weights and well below them.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: small network, few
    epochs, smaller batches at a learning rate in proportion; SGD instead of LARS, no warm-up, and a rate that
    falls from epoch to epoch, all as in SCAN's code; the mean of a contrast is that of the picture seen.

    References
    ----------
    T. Chen, S. Kornblith, M. Norouzi and G. Hinton, "A simple framework for contrastive learning of visual
    representations", ICML 2020, arXiv:2002.05709. The settings of :meth:`as_published` are those of W. Van
    Gansbeke et al., "SCAN: learning to classify images without labels", ECCV 2020, arXiv:2005.12320, which
    VRLVMix adopts.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from noisefilter import SimCLR
    >>> images = load_digits().images[:100]
    >>> SimCLR(max_epochs=1, random_state=0).fit_transform(images).shape
    (100, 128)
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        network: Any = None,
        max_epochs: int = 50,
        batch_size: int | None = None,
        lr: float | None = None,
        temperature: float = 0.1,
        weight_decay: float = 1e-4,
        views: Any = None,
        checkpoint_dir: Any = None,
        channels: str | None = None,
        device: str = "auto",
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.network = network
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.temperature = temperature
        self.weight_decay = weight_decay
        self.views = views
        self.checkpoint_dir = checkpoint_dir
        self.channels = channels
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> SimCLR:
        """Return an estimator with the settings of SCAN and VRLVMix for CIFAR-10 spelled out.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 500, "batch_size": 512, "lr": 0.4, "temperature": 0.1,
            "weight_decay": 1e-4,
        }  # fmt: skip
        return cls(**(published | changes))

    @within_memory
    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn features of images. A fit that fails leaves everything as it was.

        Parameters
        ----------
        X : (n, height, width) or 4-D array; Tensor; memory map; map-style Dataset of images
            Of any dtype, with the channels on axis 1 or last. Rows of any kind with `views`.
        y : ignored

        Returns
        -------
        self
        """
        self._check_parameters()
        checked = check_input(X)
        columns = columns_of(X, checked)
        rows = self._rows(checked, choose_device(self.device))
        net, weights = self._trained(rows, 2, self._seed())
        net.module_.load_state_dict(weights)
        width = encoded(net, first_row(rows)).shape[1]
        self._keep(columns, _net=net, _shape=rows.shape, module_=net.module_, _n_features_out=int(width))
        return self

    @within_memory
    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features (m, d) of rows of the kind that fit saw."""
        check_is_fitted(self, "module_")
        return encoded(self._net, self._later(X))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # features are float32
        return tags

    def _rows(self, checked: Any, device: Any) -> Rows:
        return as_rows(checked, device=device, channels=self.channels, raw=feeds_raw(self.estimator))

    def _trained(self, rows: Rows, n_outputs: int, seed: int) -> tuple[Net, dict[str, Any]]:
        """Return a net with so many outputs, untrained, and the weights that SimCLR found for it."""
        net = untrained_net(self.estimator, self.network, rows, n_outputs, seed)
        return net, simclr_weights(
            net, rows, epochs=self.max_epochs, seed=seed, batch_size=self.batch_size, lr=self.lr,
            temperature=self.temperature, weight_decay=self.weight_decay, views=self.views,
            checkpoint_dir=self.checkpoint_dir, verbose=self.verbose,
        )  # fmt: skip

    def _check_parameters(self) -> None:
        self._check_shared()
        check_positive(self, "temperature")
        check_number("weight_decay", self.weight_decay, Real, *_LEAST)


class SCANClusterer(ClusterMixin, _Unlabeled):
    r"""Clusters of images such that a picture and its nearest neighbors are in the same one.

    Neighbors are looked for in the features of :class:`SimCLR`. A network with one output per cluster then
    learns to say the same, and to be sure, of each picture and of any of its neighbors, while the clusters
    are kept at about one size by the entropy of the mean prediction.

    Rows (n, d) are taken for an embedding, from a foundation model say: they are their own features, there
    are no random views of them, and the network is a linear layer.

    Parameters
    ----------
    n_clusters : int, default=10
        K, at least 1.
    simclr : SimCLR, optional
        Prototype of the training before, cloned; for images only. It gives the network too. Where its
        ``random_state`` is None it gets that of the clusterer.
    n_neighbors : int, default=20
        Neighbors of each row.
    max_epochs : int, optional
        Default 50, or as many as 2,000 steps take if these are more; for embeddings as many as 500 steps
        take, at least 10.
    batch_size : int, default=128
        Rows of a step, with as many neighbors.
    lr : float, optional
        Learning rate of Adam. Default 1e-4; 1e-2 for embeddings.
    weight_decay : float, default=1e-4
        At least 0.
    entropy_weight : float, default=5.0
        :math:`\lambda`, at least 0: what keeps the clusters at one size.
    views : callable, optional
        ``views(batch, generator) -> batch``, instead of :class:`noisefilter.augment.StrongViews`.
    checkpoint_dir : path, optional
        Every epoch ends here, and a fit with the same parameters and rows goes on from here; needs a number
        for ``random_state``. `simclr` has one of its own.
    channels : {"first", "last"}, optional
        Where 4-D images have their channels, if the shape does not tell.
    device : str, default="auto"
        ``"auto"`` is CUDA where there is a GPU.
    verbose : int, default=0
        1 shows progress bars.
    random_state : int, RandomState or None, default=None
        Seeds everything; the global generators are left as they were.

    Attributes
    ----------
    labels_ : (n,) int array
        Cluster of each row, 0..K-1.
    entropy_ : float
        Of the mean prediction, as a share of log K; clusters with less than 0.5 have collapsed, and a warning
        says so.
    neighbors_ : (n, n_neighbors) int array
        Row numbers of the neighbors.
    module_ : torch.nn.Module
        The network; its outputs are logits of the clusters.
    n_features_in_ : int
        Columns of ``X``; for 2-D input only.
    feature_names_in_ : (d,) array
        Column names; for DataFrames only.

    Notes
    -----
    Clusters of about one size are assumed. Where classes differ much in size, or there are a hundred and
    more of them, they can be worse than those of k-means on the same features.

    Deviations from the paper: the small network and few epochs of :class:`SimCLR`, which :meth:`as_published`
    undoes; a row is not among its own neighbors; strong views are a subset
    (:class:`noisefilter.augment.StrongViews`); one head, not the best of several; its third step, learning
    from the surest rows, is left out, as VRLVMix leaves it out.

    References
    ----------
    W. Van Gansbeke et al., "SCAN: learning to classify images without labels", ECCV 2020, arXiv:2005.12320,
    Eq. (2).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.metrics import adjusted_rand_score
    >>> from noisefilter import SCANClusterer
    >>> X, y = load_digits(return_X_y=True)
    >>> clusters = SCANClusterer(n_clusters=10, max_epochs=40, random_state=0).fit_predict(X[:600])
    >>> bool(adjusted_rand_score(y[:600], clusters) > 0.5)
    True
    """

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        simclr: Any = None,
        n_neighbors: int = 20,
        max_epochs: int | None = None,
        batch_size: int = 128,
        lr: float | None = None,
        weight_decay: float = 1e-4,
        entropy_weight: float = 5.0,
        views: Any = None,
        checkpoint_dir: Any = None,
        channels: str | None = None,
        device: str = "auto",
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.n_clusters = n_clusters
        self.simclr = simclr
        self.n_neighbors = n_neighbors
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.entropy_weight = entropy_weight
        self.views = views
        self.checkpoint_dir = checkpoint_dir
        self.channels = channels
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> SCANClusterer:
        """Return a clusterer with the paper's settings for CIFAR-10 spelled out in its parameters.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "n_clusters": 10, "simclr": SimCLR.as_published(), "n_neighbors": 20, "max_epochs": 50,
            "batch_size": 128, "lr": 1e-4, "weight_decay": 1e-4, "entropy_weight": 5.0,
        }  # fmt: skip
        return cls(**(published | changes))

    @within_memory
    def fit(self, X: Any, y: Any = None, features: Any = None) -> Self:
        """Find clusters. A fit that fails leaves everything as it was.

        Parameters
        ----------
        X : (n, d) array or DataFrame; (n, height, width) or 4-D images; Tensor; memory map; map-style Dataset
            Numeric. Rows (n, d) are taken for an embedding.
        y : ignored
        features : (n, d') array, optional
            An embedding from elsewhere to look for neighbors in. Images then need no SimCLR, and their
            network begins with random weights.

        Returns
        -------
        self
        """
        self._check_parameters()
        checked = check_input(X)
        columns = columns_of(X, checked)
        prototype = SimCLR() if self.simclr is None else clone(self.simclr)
        rows = as_rows(
            checked, device=choose_device(self.device), channels=self.channels,
            raw=feeds_raw(prototype.estimator),
        )  # fmt: skip
        self._check_size(len(rows))
        features = check_features(features, len(rows))
        net, weights = self._start(rows, features, prototype, seed := self._seed())
        neighbors = neighbor_sets(
            encoded(net, rows, weights) if features is None else features, self.n_neighbors, random_state=seed
        )
        found = self._clusters(net, rows, neighbors, weights, seed)
        net.module_.load_state_dict(found.weights)
        self._keep(
            columns, _net=net, _shape=rows.shape, _raw=feeds_raw(prototype.estimator), module_=net.module_,
            labels_=found.probs.argmax(axis=1), entropy_=found.entropy, neighbors_=neighbors,
        )  # fmt: skip
        return self

    def predict(self, X: Any) -> NDArray[np.int64]:
        """Return the cluster (m,) of each row."""
        return np.asarray(self.predict_proba(X).argmax(axis=1))

    @within_memory
    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probability (m, K) of each cluster."""
        check_is_fitted(self, "labels_")
        return predicted(self._net, self._later(X))

    def _rows(self, checked: Any, device: Any) -> Rows:
        return as_rows(checked, device=device, channels=self.channels, raw=self._raw)

    def _start(
        self, rows: Rows, features: NDArray[Any] | None, prototype: Any, seed: int
    ) -> tuple[Net, dict[str, Any] | None]:
        """Return a net with one output per cluster, and the weights to begin with, None for its own."""
        if len(rows.shape) == 1 and self.simclr is None:
            return untrained_net(None, LinearNetwork, rows, self.n_clusters, seed), None
        if prototype.random_state is None:
            prototype.set_params(random_state=seed)
        prototype._check_parameters()
        own = prototype._seed()
        if features is not None:
            return untrained_net(prototype.estimator, prototype.network, rows, self.n_clusters, own), None
        prototype.set_params(verbose=max(self.verbose, prototype.verbose))
        return prototype._trained(rows, self.n_clusters, own)

    def _clusters(
        self, net: Net, rows: Rows, neighbors: NDArray[np.int64], weights: Any, seed: int
    ) -> Clusters:
        epochs, steps, lr = _HEAD if type(net.module_) is LinearNetwork else _WHOLE
        if self.max_epochs is not None:
            epochs = self.max_epochs
        else:
            epochs = max(epochs, -(-steps // count_batches(len(rows), self.batch_size)))
        lr = lr if self.lr is None else self.lr
        return scan_weights(
            net, rows, neighbors, epochs=epochs, seed=seed, weights=weights, batch_size=self.batch_size,
            lr=lr, weight_decay=self.weight_decay, entropy_weight=self.entropy_weight, views=self.views,
            checkpoint_dir=self.checkpoint_dir, verbose=self.verbose,
        )  # fmt: skip

    def _check_size(self, n: int) -> None:
        if n < max(2, self.n_clusters):
            raise InputError(
                f"X must have at least 2 rows, and n_clusters={self.n_clusters} of them, got {n} sample(s)."
            )

    def _check_parameters(self) -> None:
        self._check_shared()
        check_at_least_1(self, "n_clusters", "n_neighbors")
        check_number("weight_decay", self.weight_decay, Real, *_LEAST)
        check_number("entropy_weight", self.entropy_weight, Real, *_LEAST)
        if not (self.simclr is None or isinstance(self.simclr, SimCLR)):
            raise InputTypeError(
                f"simclr must be a SimCLR or None, got an object of type {type(self.simclr).__name__}."
            )
