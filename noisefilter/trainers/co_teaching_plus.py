"""Co-teaching+: Co-teaching on the rows that the two networks disagree on."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from noisefilter.base import check_number
from noisefilter.networks import SevenLayerCNN
from noisefilter.pairs import Learned, PairTraining, Seen, disagreeing, smallest
from noisefilter.pairtrainer import PairTrainer

__all__ = ["CoTeachingPlusClassifier"]


class CoTeachingPlusClassifier(PairTrainer):
    r"""Trains two networks, each on what the other has small losses for, of the rows they disagree on.

    Two networks that teach each other, as in :class:`noisefilter.CoTeachingClassifier`, come to agree, and
    then either is as good as one that teaches itself. So after some epochs of Co-teaching only the rows of a
    batch for which they predict different classes are looked at, and each network learns the share

    .. math:: R(t) = 1 - \tau \min(t / T_k, 1)^c

    of *these* that the other has the smallest losses for. Where they agree on a whole batch, it is one of
    Co-teaching.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of both networks, cloned; it gives network, optimizer, epochs and batches, while the
        training is Co-teaching+'s own. Subclasses other than :class:`noisefilter.Net`, and classifiers that
        are no networks, cannot be trained so. ``None`` chooses a network for the shape of ``X``.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name.
    max_epochs : int, optional
        Of the whole training, the warm-up included. Default 60.
    batch_size : int, optional
        Default 128, fewer below 2,048 rows.
    lr : float, optional
        Default 0.05 with SGD, 0.001 with Adam.
    optimizer : {"own", "adam"}, default="own"
        The estimator's own, by default SGD with Nesterov momentum 0.9, its rate divided by 5 at half and at
        three quarters of the epochs; or the published Adam, whose rate falls in a straight line after 40 % of
        the epochs, with a first beta of 0.1 from then on.
    noise_rate : float, optional
        :math:`\tau`, the share of wrong labels, in [0, 1). Default: estimated in a warm-up by planted labels,
        or that of the filter before.
    ramp_epochs : int, default=10
        :math:`T_k`: after so many epochs of the training, the warm-up included, no more than
        :math:`1 - \tau` of a batch are learned.
    ramp_power : float, default=1
        c.
    agreeing_epochs : int, default=20
        Epochs from the beginning, the warm-up included, that are Co-teaching on whole batches.
    warmup_epochs : int, optional
        Epochs of plain training before, on all rows, at most, where there are `probes`. Default: none where
        the rate is given, as published; else as many as 1,500 steps take, at least 10, but no more than two
        thirds of the epochs.
    probes : float, optional
        Share of rows, drawn at random, that the warm-up trains under a wrong label; in [0, 0.5]. They show
        how many wrong labels there are, and when these begin to be learned by heart. That ends the warm-up,
        and both networks go back to what they were after about half of it. Default: 4 %, up to 200 rows where
        that is no more than a tenth, and at most 2,000 rows. Where the rate is known there are none.
    filter : estimator, optional
        A filter to begin with: its clean rows alone are learned in the first epochs, and its rate is
        :math:`\tau`. Behind a filter in a Pipeline this happens by itself.
    split_epochs : int, optional
        How many epochs that is; they take the place of the warm-up. Default: a third.
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

    Attributes
    ----------
    labeled_ : (2, n) bool array
        Rows that each network learned from in the last epoch.

    Notes
    -----
    ``history_`` has ``phase``, ``loss``, the mean of both networks, and ``lr``; in the warm-up
    ``planted_known``, the share of planted labels known by heart, and at its end ``estimated_rate``; after it
    how many rows each network learned from, ``n_labeled_1`` and ``n_labeled_2``.

    Cost: two forward and backward passes a row and epoch, and two forward for the verdict.

    The verdict is made as that of :class:`noisefilter.DivideMixClassifier`: corrected log-odds of the given
    label in the predictions of both networks, half of them of the warm-up, where there is one, half the mean
    of all epochs after it; it flags as many as the warm-up estimated, or as was given; or more, if later so
    many more labels are contradicted than doubted.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: a warm-up with
    planted labels that estimates :math:`\tau`, which the paper takes for known; R(t) b of b rows is rounded,
    and a row is chosen at least; a batch without disagreement, of which the paper does not speak, is not
    skipped; the small networks, and SGD. The second schedule of the paper, whose share goes on falling for
    heavy noise, is left out.

    Not from the official code: a softmax before a loss that takes logits, and so a loss of probabilities
    squeezed twice; the row of index 0 that is lost from every batch, as zeros mark rows of agreement; the
    loss of a batch without disagreement, which learns all of it without a choice and is multiplied by a gate
    for single rows that by then is one number; a mean divided by the number of rows again.

    References
    ----------
    X. Yu, B. Han, J. Yao, G. Niu, I. Tsang and M. Sugiyama, "How does disagreement help generalization
    against label corruption?", ICML 2019, arXiv:1901.04215, Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import CoTeachingPlusClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = CoTeachingPlusClassifier(random_state=0).fit(X, y)
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
        optimizer: str = "own",
        noise_rate: float | None = None,
        ramp_epochs: int = 10,
        ramp_power: float = 1.0,
        agreeing_epochs: int = 20,
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
        self.optimizer = optimizer
        self.noise_rate = noise_rate
        self.ramp_epochs = ramp_epochs
        self.ramp_power = ramp_power
        self.agreeing_epochs = agreeing_epochs
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
    def as_published(cls, **changes: Any) -> CoTeachingPlusClassifier:
        """Return a trainer with the published settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images; ``noise_rate`` and network as in
        :meth:`noisefilter.CoTeachingClassifier.as_published`. ``agreeing_epochs`` was 5 for CIFAR-100 and 0
        for MNIST. The official code is known to end at about 57 % on CIFAR-10 with 20 % symmetric noise.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": SevenLayerCNN, "max_epochs": 200, "batch_size": 128, "lr": 1e-3, "optimizer": "adam",
            "noise_rate": 0.5, "ramp_epochs": 10, "ramp_power": 1.0, "agreeing_epochs": 20,
            "warmup_epochs": 0, "probes": 0.0,
        }  # fmt: skip
        return cls(**(published | changes))

    def _training(self) -> tuple[type[PairTraining], dict[str, Any]]:
        return _CoTeachingPlus, {"agreeing_epochs": self.agreeing_epochs}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        rule = "a whole number of at least 0"
        check_number("agreeing_epochs", self.agreeing_epochs, Integral, rule, lambda value: value >= 0)


class _CoTeachingPlus(PairTraining):
    """Algorithm 1: disagreement, then small losses."""

    def __init__(self, *args: Any, agreeing_epochs: int, **settings: Any):
        super().__init__(*args, **settings)
        self.agreeing_epochs = agreeing_epochs

    def chosen(self, seen: Seen) -> Learned:
        """Let each network learn the rows of smallest loss of the other, among those they disagree on."""
        first, second = seen.losses
        share = self.kept_share()
        rows = disagreeing(seen.log_probs)
        if self.epoch <= self.agreeing_epochs or not len(rows):
            return seen.learned(smallest(second, share), smallest(first, share))
        return seen.learned(rows[smallest(second[rows], share)], rows[smallest(first[rows], share)])
