"""ELR: one network that is held to what it said of a row before it learned wrong labels."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.criteria import ELRLoss
from noisefilter.networks import PreActResNet18
from noisefilter.robust import RobustTrainer
from noisefilter.single import SingleTraining
from noisefilter.verdict import Verdict

__all__ = ["ELRClassifier"]


class ELRClassifier(RobustTrainer):
    r"""Trains one network and holds it to what it said of a row before it learned wrong labels.

    Each row has a target, a moving average of what the network said of it,
    :math:`t_i \leftarrow \beta t_i + (1 - \beta) p_i`, and the loss is

    .. math:: -\log p_{y_i} + \lambda \log(1 - \langle t_i, p_i \rangle).

    Where target and label agree the second term makes the network learn faster; where they do not it takes
    away what the label would teach.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of the network, cloned; it gives network, optimizer, epochs and batches, while the loss is
        the trainer's own and takes the place of its ``CrossEntropyLoss``. Subclasses other than
        :class:`noisefilter.Net`, and classifiers that are no networks, cannot be trained so. ``None`` chooses
        a network for the shape of ``X``.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name.
    max_epochs : int, optional
        Default 60.
    batch_size : int, optional
        Default 128, fewer below 2,048 rows.
    lr : float, optional
        Learning rate of SGD with Nesterov momentum 0.9, divided by 5 at half and at three quarters of the
        epochs. Default 0.05.
    lr_drops : tuple of float, optional
        Shares of the training, in (0, 1), after which the learning rate of the default network is divided, if
        not as above.
    lr_drop_factor : float, default=5.0
        What it is divided by.
    beta : float, default=0.7
        How much of the past a target keeps at each visit, in [0, 1). The longer a network learns before it
        begins to memorize, the more may be kept.
    strength : float, default=7.0
        :math:`\lambda`, at least 0: how hard the network is held. Published: 1 to 7. Where a network
        memorizes more is better (``elr_3`` in ``benchmarks/README.md``).
    warmup_epochs : int, optional
        After how many epochs planted labels end; the loss is the same before and after. Default: a sixth of
        the epochs.
    probes : float, optional
        Share of rows, drawn at random, that the warm-up trains under a wrong label; in [0, 0.5]. They show
        how wrong labels score in this very training, and so how many there are. Default: 4 %, up to 200 rows
        where that is no more than a tenth, and at most 2,000 rows. Where a filter has judged before there are
        none.
    filter : estimator, optional
        A filter to begin with: its clean rows alone are learned in the first epochs, and its noise rate is
        believed. Behind a filter in a Pipeline this happens by itself.
    split_epochs : int, optional
        How many epochs that is. Default: the warm-up.
    checkpoint_dir : path, optional
        Every epoch ends here, and a fit that was stopped goes on from here.
    channels : {"first", "last"}, optional
        Where 4-D images have their channels, if the shape does not tell.
    device : str, default="auto"
        ``"auto"`` is CUDA where there is a GPU. The ``device`` of a prototype is not read.
    verbose : int, default=0
        1 shows a progress bar.
    random_state : int, RandomState or None, default=None
        Seeds everything; the global generators are left as they were.

    Notes
    -----
    Cost: one forward and backward pass a row and epoch, and a forward pass for the look at all rows that the
    verdict is made of.

    ``history_`` has, for each epoch, ``phase``, ``loss``, ``n_learned`` (rows) and ``lr``; in the warm-up
    also ``planted_known``, the share of planted labels that are known by heart
    (:func:`noisefilter.estimates.known_by_heart`), and in its last epoch ``estimated_rate``, the share of
    wrong labels.

    The verdict's scores are corrected log-odds of the given label
    (:func:`noisefilter.estimates.corrected_log_odds`) in predictions, half of them those of the warm-up, half
    the mean of all epochs after it; it flags as many as the network contradicted beyond its doubt, and the
    planted labels said, at the end of the warm-up, or as the filter before said; or more, if in the end so
    many more are contradicted than doubted.

    Memory: targets are (n, K) numbers in float32 on the device, in checkpoints, too; they are let go of after
    training.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: planted labels in the
    warm-up; small networks, and Nesterov momentum. This is ELR, not ELR+ with its two networks and mixup. The
    authors have other `beta` and `strength` for each data set and kind of noise; with those of symmetric
    noise 83 % were reported for CIFAR-10 with 40 % asymmetric noise.

    References
    ----------
    S. Liu, J. Niles-Weed, N. Razavian and C. Fernandez-Granda, "Early-learning regularization prevents
    memorization of noisy labels", NeurIPS 2020, arXiv:2007.00151, section 4; see also
    :class:`noisefilter.ELRLoss`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import ELRClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = ELRClassifier(random_state=0).fit(X, y)
    >>> model.predict(X[7:8]), int(model.verdict_.scores.argmin())
    (array([0]), 7)
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        network: Any = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        lr_drops: tuple[float, ...] | None = None,
        lr_drop_factor: float = 5.0,
        beta: float = 0.7,
        strength: float = 7.0,
        warmup_epochs: int | None = None,
        probes: float | None = None,
        filter: Any = None,
        split_epochs: int | None = None,
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
        self.lr_drops = lr_drops
        self.lr_drop_factor = lr_drop_factor
        self.beta = beta
        self.strength = strength
        self.warmup_epochs = warmup_epochs
        self.probes = probes
        self.filter = filter
        self.split_epochs = split_epochs
        self.checkpoint_dir = checkpoint_dir
        self.channels = channels
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> ELRClassifier:
        """Return a trainer with the paper's settings for CIFAR-100 spelled out in its parameters.

        For 32x32 images; the paper's ResNet-34 is a PreActResNet18 here. For CIFAR-10 the authors have
        ``beta=0.7, strength=3.0`` and a learning rate with warm restarts, which there is none of here; with
        asymmetric noise ``beta=0.9, strength=1.0`` and 120 epochs with drops after 40 and 80.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 150, "batch_size": 128, "lr": 0.02,
            "lr_drops": (80 / 150, 120 / 150), "lr_drop_factor": 100.0, "beta": 0.9, "strength": 7.0,
            "probes": 0.0,
        }  # fmt: skip
        return cls(**(published | changes))

    def _begin(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        features: NDArray[Any] | None,
        rng: np.random.RandomState,
    ) -> SingleTraining:
        told = {
            "n_rows": len(rows), "n_classes": n_classes, "beta": self.beta, "strength": self.strength,
        }  # fmt: skip
        net = self._net(rows, n_classes, rng, ELRLoss, told)
        return SingleTraining(net, rows, codes, n_classes, **self._course(net, codes, n_classes, given, rng))

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("beta", self.beta, Real, "in [0, 1)", lambda value: 0 <= value < 1)
        rule = "at least 0 and finite"
        check_number("strength", self.strength, Real, rule, lambda value: 0 <= value < np.inf)
