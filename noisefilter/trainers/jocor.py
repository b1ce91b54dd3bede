"""JoCoR: two networks that agree with each other and with the labels they choose together."""

from __future__ import annotations

from numbers import Real
from typing import Any

from noisefilter.base import check_number
from noisefilter.losses import symmetric_kl
from noisefilter.networks import SevenLayerCNN
from noisefilter.pairs import Learned, PairTraining, Seen, smallest
from noisefilter.pairtrainer import PairTrainer

__all__ = ["JoCoRClassifier"]


class JoCoRClassifier(PairTrainer):
    r"""Trains two networks by one loss, on the rows of a batch for which that is small.

    Different networks agree on right labels and seldom on wrong ones. So the loss of a row has two parts, how
    well both fit its label and how far they are from each other,

    .. math::
        \ell(x) = (1 - \lambda) \left( -\log p_y - \log p'_y \right)
        + \lambda \left( D_{KL}(p \| p') + D_{KL}(p' \| p) \right),

    and in epoch t both learn the share

    .. math:: R(t) = 1 - \tau \min(t / T_k, 1)^c

    of a batch whose loss is smallest.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of both networks, cloned; it gives network, optimizer, epochs and batches, while the
        training is JoCoR's own. Subclasses other than :class:`noisefilter.Net`, and classifiers that are
        no networks, cannot be trained so. ``None`` chooses a network for the shape of ``X``.
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
    agreement : float, default=0.65
        :math:`\lambda` in [0, 1): weight of the agreement of the networks.
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

    The paper's :math:`\lambda` was chosen for each data set and noise, on its test set; 0.65 is its value for
    80 % symmetric noise on CIFAR-10. A large one takes little of the labels, and shortens the steps of SGD by
    as much (Adam does not mind), for which a short training has no time. In a long one it may be better:
    where an MLP learns wrong labels by heart, 0.9 ended ahead (``jocor_90`` beside ``jocor`` in
    ``benchmarks/README.md``).

    Where noise is asymmetric, JoCoR forgets half of the rate at which classes are flipped; on CIFAR-10, where
    half of the classes are, this is the share of wrong labels, which `noise_rate` is here for any noise.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: a warm-up with
    planted labels that estimates :math:`\tau`, which the paper takes for known; R(t) b of b rows is rounded,
    and a row is chosen at least; both networks predict together; :math:`\lambda`; the small networks, and
    SGD, whose two optimizers do what one over the weights of both would.

    References
    ----------
    H. Wei, L. Feng, X. Chen and B. An, "Combating noisy labels by agreement: a joint training method with
    co-regularization", CVPR 2020, arXiv:2003.02752, Eq. (1) to (6), Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import JoCoRClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = JoCoRClassifier(random_state=0).fit(X, y)
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
        agreement: float = 0.65,
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
        self.agreement = agreement
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
    def as_published(cls, **changes: Any) -> JoCoRClassifier:
        """Return a trainer with the paper's settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images. ``noise_rate`` was known: 0.5 here, 0.2 and 0.8 for the other symmetric noises, 0.2
        for 40 % asymmetric noise. ``agreement`` was 0.65 for 80 % symmetric noise, 0.85 for CIFAR-100 and
        0.95 for MNIST.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": SevenLayerCNN, "max_epochs": 200, "batch_size": 128, "lr": 1e-3, "optimizer": "adam",
            "noise_rate": 0.5, "ramp_epochs": 10, "ramp_power": 1.0, "agreement": 0.9, "warmup_epochs": 0,
            "probes": 0.0,
        }  # fmt: skip
        return cls(**(published | changes))

    def _training(self) -> tuple[type[PairTraining], dict[str, Any]]:
        return _JoCoR, {"agreement": self.agreement}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("agreement", self.agreement, Real, "in [0, 1)", lambda value: 0 <= value < 1)


class _JoCoR(PairTraining):
    """Algorithm 1: one loss for both."""

    def __init__(self, *args: Any, agreement: float, **settings: Any):
        super().__init__(*args, **settings)
        self.agreement = agreement

    def chosen(self, seen: Seen) -> Learned:
        """Let both networks learn the rows for which the joint loss is smallest."""
        first, second = seen.losses
        joint = (1.0 - self.agreement) * (first + second)  # Eq. (1) to (4)
        joint = joint + self.agreement * symmetric_kl(*seen.log_probs)
        rows = smallest(joint, self.kept_share())  # Eq. (5)
        return Learned(joint[rows].mean(), (rows, rows))  # Eq. (6)
