"""M-correction: one network that doubts labels as far as their losses are of the noisy kind."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.criteria import DynamicBootstrappingLoss
from noisefilter.mixtures import mixture_with_separation
from noisefilter.networks import PreActResNet18
from noisefilter.progress import Progress
from noisefilter.robust import RobustTrainer
from noisefilter.scores import given_probability, log_probability
from noisefilter.single import SingleTraining
from noisefilter.splits import at_rate
from noisefilter.trained import check_positive, log_odds
from noisefilter.verdict import Verdict

__all__ = ["MCorrectionClassifier"]

_ONE_HILL = 1.0  # Ashman's D below which a mixture has found nothing
_TOO_MANY = 2.0  # times the estimated rate: a mixture halves clean rows, too


class MCorrectionClassifier(RobustTrainer):
    r"""Trains one network on mixtures of rows, under labels that are doubted where their loss is large.

    After a warm-up by mixup, a mixture of two Beta distributions is fitted to the losses of all rows after
    each epoch. The probability :math:`w_i` that a loss belongs to the component of larger mean is the doubt
    about its label, and in the next epoch the row is so far called what the network takes it for,
    :math:`z_i`:

    .. math:: -(1 - w_i) \log p_{y_i} - w_i \log p_{z_i},

    for both rows of a mixture, weighted by their shares (M-DYR-H).

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
    mixup_alpha : float, default=32.0
        Parameter of the Beta distribution that mixtures are weighted by; large values mix rows half and half.
    penalty : float, default=1.0
        Weight of what keeps the mean prediction near uniform after the warm-up. 0 where classes differ much
        in size.
    warmup_epochs : int, optional
        Epochs of mixup before labels are doubted; planted labels end there, too. Default: a sixth of the
        epochs.
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
    wrong labels. From then on it also has ``doubt``, the mean of :math:`w_i`, and ``separation``, Ashman's D
    of the two components.

    The verdict's scores are corrected log-odds of the given label
    (:func:`noisefilter.estimates.corrected_log_odds`) in predictions, half of them those of the warm-up, half
    the mean of all epochs after it; it flags as many as the network contradicted beyond its doubt, and the
    planted labels said, at the end of the warm-up, or as the filter before said; or more, if in the end so
    many more are contradicted than doubted. It does not follow the mixture, which finds two components on
    clean data, too.

    Where one class is taken for another, mixup leaves the network in doubt, hardly contradicting: the rate is
    then estimated far too low, few labels are doubted and next to none flagged (``m_correction`` in
    ``benchmarks/README.md``, 40 % asymmetric: 0.005 for 0.20). Take another trainer there, or a filter
    before.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: planted labels in the
    warm-up; the small networks and Nesterov momentum. Others that stay: :math:`w_i` and :math:`z_i` are of
    the look at all rows after the epoch before, as they are, and not of one more pass over each batch of
    views; the mixture is that of :func:`noisefilter.mixtures.mixture`, fitted to the end, its noisy component
    the one of larger mean loss and not the one that was started there; where it finds no two hills (Ashman's
    D < 1), or doubts more than twice the share of labels estimated to be wrong, as it does on clean data, the
    doubt is read off the order of the losses and that share. There is no M-DYR-SH, for 90 % noise.

    References
    ----------
    E. Arazo, D. Ortego, P. Albert, N. O'Connor and K. McGuinness, "Unsupervised label noise modeling and loss
    correction", ICML 2019, arXiv:1904.11238, section 3.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import MCorrectionClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = MCorrectionClassifier(random_state=0).fit(X, y)
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
        mixup_alpha: float = 32.0,
        penalty: float = 1.0,
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
        self.mixup_alpha = mixup_alpha
        self.penalty = penalty
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
    def as_published(cls, **changes: Any) -> MCorrectionClassifier:
        """Return a trainer with the paper's settings for CIFAR spelled out in its parameters.

        For 32x32 images.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 300, "batch_size": 128, "lr": 0.1,
            "lr_drops": (100 / 300, 250 / 300), "lr_drop_factor": 10.0, "mixup_alpha": 32.0, "penalty": 1.0,
            "warmup_epochs": 105, "probes": 0.0,
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
        net = self._net(
            rows, n_classes, rng, DynamicBootstrappingLoss, {"n_rows": len(rows)}, objective="mixup",
            mixup_alpha=self.mixup_alpha,
        )  # fmt: skip
        course = self._course(net, codes, n_classes, given, rng)
        return _MCorrection(net, rows, codes, n_classes, penalty=self.penalty, **course)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_positive(self, "mixup_alpha")
        rule = "at least 0 and finite"
        check_number("penalty", self.penalty, Real, rule, lambda value: 0 <= value < np.inf)


class _MCorrection(SingleTraining):
    """Dynamic bootstrapping, section 3.2."""

    _phase = "bootstrapping"

    def __init__(self, *args: Any, penalty: float, **settings: Any):
        super().__init__(*args, **settings)
        self.penalty = penalty

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Train an epoch; the warm-up has no penalty."""
        self.net.criterion_.penalty = self.penalty if epoch >= self.warmup_epochs else 0.0
        return super().run_epoch(epoch, bar)

    def looked(self, epoch: int, probs: NDArray[Any]) -> dict[str, Any]:
        """Fit the mixture to the losses, and doubt labels by it in the next epoch."""
        if epoch + 1 < self.warmup_epochs:
            return {}
        doubt, distance = self._doubt(probs)
        self.net.criterion_.believe(doubt, probs.argmax(axis=1))
        return {"doubt": float(doubt.mean()), "separation": distance}

    def _doubt(self, probs: NDArray[Any]) -> tuple[NDArray[np.float64], float]:
        """Return the probability (n,) that a label is wrong, and how far the two components are apart."""
        split, distance = mixture_with_separation(log_probability(probs, self.codes), "beta", scale=True)
        rate = self._estimated_rate()
        too_many = split.noise_rate is None or split.noise_rate > _TOO_MANY * rate
        if distance < _ONE_HILL or too_many:  # only their order says something
            split = at_rate(log_odds(given_probability(probs, self.codes)), rate)
        assert split.clean_proba is not None  # at_rate has it always
        return 1.0 - split.clean_proba, distance
