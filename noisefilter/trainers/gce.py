"""GCE: one network and a loss between cross-entropy and mean absolute error."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter import splits
from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.criteria import GCELoss
from noisefilter.networks import PreActResNet18
from noisefilter.robust import RobustTrainer
from noisefilter.scores import given_probability
from noisefilter.semisupervised import floored
from noisefilter.single import SingleTraining
from noisefilter.trained import check_at_least_1
from noisefilter.verdict import Verdict

__all__ = ["GCEClassifier"]


class GCEClassifier(RobustTrainer):
    r"""Trains one network by a loss that hardly minds labels which the network finds unlikely.

    The generalized cross-entropy :math:`(1 - p_y^q) / q` of the given label has the slope of the
    cross-entropy times :math:`p_y^q`. So what a network disbelieves draws it little, and wrong labels are
    learned late. The truncated form goes further: after a warm-up, labels with a probability below
    `truncation` are left out, and which these are is decided anew from time to time.

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
    q : float, default=0.7
        In (0, 1]. Towards 0 the loss is the cross-entropy; at 1 it is the mean absolute error, which resists
        most and learns least, above all with many classes.
    truncation : float or None, default=0.5
        k, in (0, 1): after the warm-up, labels with a smaller probability in the predictions averaged in it,
        later in those since, are not learned; but no fewer labels are than are right by the estimated noise
        rate, those of the largest probability. None learns all labels to the end: the loss alone delays
        memorization and does not prevent it (``gce_untruncated`` in ``benchmarks/README.md``).
    prune_epochs : int, default=10
        After how many epochs that is decided anew.
    warmup_epochs : int, optional
        After how many epochs truncation begins, and planted labels end. Default: a sixth of the epochs.
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

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: truncation unless it
    is declined, and early; planted labels in the warm-up; small networks and Nesterov momentum. Others that
    stay: what truncation leaves out is decided by predictions averaged since the warm-up, where the paper
    takes the network that was best on held-out rows, and public code the one that was best on the *test*
    rows; and it leaves no fewer labels than are right by the estimated rate, as a network that has learned
    little yet is sure of next to nothing, no class with fewer than five rows, nor all together with fewer
    than a batch (:func:`noisefilter.semisupervised.floored`). Rows that are left out have no slope in the
    truncated loss of the paper either; the constant that it adds for them is not in the loss recorded.

    References
    ----------
    Z. Zhang and M. Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy
    labels", NeurIPS 2018, arXiv:1805.07836, sections 3.2 and 3.3.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import GCEClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = GCEClassifier(random_state=0).fit(X, y)
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
        q: float = 0.7,
        truncation: float | None = 0.5,
        prune_epochs: int = 10,
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
        self.q = q
        self.truncation = truncation
        self.prune_epochs = prune_epochs
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
    def as_published(cls, **changes: Any) -> GCEClassifier:
        """Return a trainer with the paper's settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images; the paper's ResNet-34 is a PreActResNet18 here. ``truncation=0.5`` is its truncated
        loss, in a column of its own there. On CIFAR-100 it trains 150 epochs, with drops after 80 and 120,
        and prunes from epoch 40, too.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 120, "batch_size": 128, "lr": 0.01,
            "lr_drops": (1 / 3, 2 / 3), "lr_drop_factor": 10.0, "q": 0.7, "truncation": None,
            "prune_epochs": 10, "warmup_epochs": 40, "probes": 0.0,
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
        net = self._net(rows, n_classes, rng, GCELoss, {"q": self.q})
        course = self._course(net, codes, n_classes, given, rng)
        return _GCE(net, rows, codes, n_classes, trainer=self, **course)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("q", self.q, Real, "in (0, 1]", lambda value: 0 < value <= 1)
        if self.truncation is not None:
            check_number("truncation", self.truncation, Real, "in (0, 1)", lambda value: 0 < value < 1)
        check_at_least_1(self, "prune_epochs")


class _GCE(SingleTraining):
    """Alternative convex search, section 3.3: the network says which rows are learned, and learns them."""

    def __init__(self, *args: Any, trainer: GCEClassifier, **settings: Any):
        super().__init__(*args, **settings)
        self.truncation = trainer.truncation
        self._phase = "robust" if self.truncation is None else "truncated"
        self.prune_epochs = trainer.prune_epochs

    def looked(self, epoch: int, probs: NDArray[Any]) -> dict[str, Any]:
        """Decide anew which of all rows are learned, where it is time."""
        since = epoch + 1 - self.warmup_epochs
        if self.truncation is not None and since >= 0 and since % self.prune_epochs == 0:
            believed = given_probability(self.latest_probs(), self.codes)
            half = self.net.rows_of_batch(len(self.rows)) // 2
            # A network that has learned little is sure of next to nothing, and would be left next to nothing.
            right = splits.keep_fraction(believed, 1.0 - (self.rate or 0.0)).clean
            self.kept = right | floored(believed, self.codes, self.n_classes, self.truncation, half)
        return {}
