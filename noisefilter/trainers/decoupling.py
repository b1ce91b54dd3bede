"""Decoupling: two networks that learn only where they disagree, so that when to update is not how."""

from __future__ import annotations

from numbers import Real
from typing import Any

from noisefilter.base import check_number
from noisefilter.networks import SevenLayerCNN
from noisefilter.pairs import Learned, PairTraining, Seen, disagreeing
from noisefilter.pairtrainer import PairTrainer

__all__ = ["DecouplingClassifier"]


class DecouplingClassifier(PairTrainer):
    r"""Trains two networks on the rows of each batch for which they predict different classes.

    Wrong labels pull a network for as long as it contradicts them, that is for ever. Where both networks
    agree there is nothing left to learn, whatever the label says: "when to update" is decoupled from "how to
    update". After a warm-up on all rows the loss of a network on a batch B is

    .. math:: \frac{1}{\max(m, \beta |B|)} \sum_{i \in B:\, h_1(x_i) \neq h_2(x_i)} -\log p_{y_i}(x_i)

    with m the number of rows they disagree on. Where there is none neither network moves.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of both networks, cloned; it gives network, optimizer, epochs and batches, while the
        training is Decoupling's own. Subclasses other than :class:`noisefilter.Net`, and classifiers that are
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
        The share of wrong labels, in [0, 1), which only the verdict needs. Default: estimated in the warm-up
        by planted labels, or that of the filter before.
    least_share : float, default=0.1
        :math:`\beta` in [0, 1]: the loss is divided by no fewer rows than this share of the batch, so that a
        few rows make no large step.
    warmup_epochs : int, optional
        Epochs that learn all rows before, at most, where there are `probes`. Default: as many as 1,500 steps
        take, at least 10, but no more than two thirds of the epochs.
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
    No noise rate is needed to train; the verdict needs one. Labels are learned as they are on the rows that
    networks disagree on, and among these wrong ones are the more frequent the longer it lasts. The method
    slows the learning of wrong labels by heart; it does not prevent it: where an MLP learns them so, its last
    accuracy was far below its best (``decoupling`` in ``benchmarks/README.md``).

    ``history_`` has ``phase``, ``loss``, the mean of both networks, and ``lr``; in the warm-up
    ``planted_known``, the share of planted labels known by heart, and at its end ``estimated_rate``; after it
    how many rows each network learned from, ``n_labeled_1`` and ``n_labeled_2``.

    Cost: two forward and backward passes a row and epoch, and two forward for the verdict.

    The verdict is made as that of :class:`noisefilter.DivideMixClassifier`: corrected log-odds of the given
    label in the predictions of both networks, half of them of the warm-up, where there is one, half the mean
    of all epochs after it; it flags as many as the warm-up estimated, or as was given; or more, if later so
    many more labels are contradicted than doubted.

    Deviations from the paper: a warm-up with planted labels, which ends, and goes back, when they are
    learned, in place of a number of steps; both networks see the same view of a batch, and their predictions
    are those in training, with dropout where a network has it; the small networks, and SGD. The official code
    offers the floor under the number of rows, or to wait until rows for a whole batch have come together;
    this is the former.

    References
    ----------
    E. Malach and S. Shalev-Shwartz, "Decoupling 'when to update' from 'how to update'", NIPS 2017,
    arXiv:1706.02613, Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import DecouplingClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = DecouplingClassifier(random_state=0).fit(X, y)
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
        least_share: float = 0.1,
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
        self.least_share = least_share
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
    def as_published(cls, **changes: Any) -> DecouplingClassifier:
        """Return a trainer with the settings of JoCoR's and Jo-SRC's tables spelled out in its parameters.

        For 32x32 images: the network and optimizer that these papers compare all methods with. Those of
        Decoupling's own experiments, on faces, are others. One epoch is learned as it is before.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": SevenLayerCNN, "max_epochs": 200, "batch_size": 128, "lr": 1e-3, "optimizer": "adam",
            "probes": 0.0, "warmup_epochs": 1, "least_share": 0.1,
        }  # fmt: skip
        return cls(**(published | changes))

    # There is a warm-up in the method itself.
    _warms_up = True

    def _training(self) -> tuple[type[PairTraining], dict[str, Any]]:
        return _Decoupling, {"least_share": self.least_share}

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_number("least_share", self.least_share, Real, "in [0, 1]", lambda value: 0 <= value <= 1)


class _Decoupling(PairTraining):
    """Update by disagreement."""

    def __init__(self, *args: Any, least_share: float, **settings: Any):
        super().__init__(*args, **settings)
        self.least_share = least_share

    def chosen(self, seen: Seen) -> Learned:
        """Let both networks learn the rows that they disagree on."""
        rows = disagreeing(seen.log_probs)
        return seen.learned(rows, rows, least=self.least_share)
