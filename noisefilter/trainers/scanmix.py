"""ScanMix: DivideMix from clusters found without labels, whose networks say the same of neighbors."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.budgets import LEAST_EPOCHS
from noisefilter.clustered import ClusteredTraining, check_pretraining
from noisefilter.cotraining import CoTraining
from noisefilter.net import caught_features
from noisefilter.networks import PreActResNet18
from noisefilter.progress import Progress
from noisefilter.trained import check_clustering
from noisefilter.trainers.dividemix import DivideMixClassifier, _DivideMix, as_published_rate
from noisefilter.verdict import Verdict

__all__ = ["ScanMixClassifier"]

_HEAVY_FROM = 0.6  # rate of symmetric noise from which on clusters lead
_LEADING_RATE, _FOLLOWING_RATE = 1e-3, 1e-5


class ScanMixClassifier(DivideMixClassifier):
    r"""DivideMix whose networks also learn, after every epoch, to say the same of neighbors.

    What a label says can be wrong; what a row is like cannot. Networks that begin with features, or clusters,
    learned without any label have no wrong ones to forget, and rows that are alike keep pulling each other to
    one class (SCAN) while DivideMix divides and guesses. That is worth the most where most labels are wrong.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of both networks, cloned; it gives network, optimizer, epochs and batches, while the
        training is ScanMix's own. Subclasses other than :class:`noisefilter.Net`, and classifiers that are
        no networks, cannot be trained so. ``None`` chooses a network for the shape of ``X``.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name.
    max_epochs : int, optional
        Of the whole training, the warm-up included. Default 60.
    batch_size : int, optional
        Of the warm-up. Half of it are the labeled rows of a later step. Default 128, fewer below 2,048 rows.
    lr : float, optional
        Learning rate of SGD with Nesterov momentum 0.9, divided by 5 at half and at three quarters of the
        epochs. Default 0.05.
    lr_drops : tuple of float, optional
        Shares of the training, in (0, 1), after which the learning rate of the default network is divided, if
        not as above.
    lr_drop_factor : float, default=5.0
        What it is divided by.
    pretrain : {None, "simclr"}, default=None
        ``"simclr"`` trains on images without labels first (:func:`noisefilter.pretrain.simclr_weights`),
        looks for neighbors in these features, and goes on to clusters
        (:func:`noisefilter.pretrain.scan_weights`, 50 epochs). Both networks begin there, and their warm-up
        trains the last layer alone. With ``None`` neighbors are found in the embedding given to ``fit`` as
        ``features``, or in the features that both networks have when neighbors are first needed.
    pretrain_epochs : int, default=100
        Of SimCLR.
    warmup_epochs : int, optional
        At most, where there are `probes`. Default: as many as 1,500 steps take, at least 10, but no more than
        two thirds of the epochs.
    least_epochs : int, default=15
        Fewest epochs after a warm-up in which guesses are tried, bad as they are; as in
        :class:`noisefilter.DivideMixClassifier`.
    probes : float, optional
        Share of rows, drawn at random, that the warm-up trains under a wrong label; in [0, 0.5]. They show
        how many wrong labels there are, and when these begin to be learned by heart. That ends the warm-up,
        and both networks go back to what they were after about half of it. Default: 4 %, up to 200 rows where
        that is no more than a tenth, and at most 2,000 rows. Where a filter has judged before there are none.
    confidence_penalty : bool, default=True
        Add the negative entropy of the predictions to the loss of the warm-up, so that networks are not too
        sure of wrong labels.
    least_labeled : float, optional
        Share, in [0, 1], of the labels that are right by the estimated noise rate, that are believed at
        least; as in :class:`noisefilter.DivideMixClassifier`.
    clean_threshold : float, default=0.5
        A label is believed if the mixture says so with more than this probability; in [0, 1].
    loss_epochs : int, optional
        Of how many last epochs since the warm-up losses are averaged for a division. Default: 1, and 5 where
        the estimated noise is as heavy as 85 % symmetric noise.
    n_neighbors : int, default=20
        Neighbors that are to be told alike; clipped to n - 1.
    scan_lr : "auto" or float, default="auto"
        Learning rate of SCAN, greater than 0. ``"auto"`` is 1e-3 where the noise rate estimated after the
        warm-up, or by the filter before, is as heavy as symmetric noise above 0.6, and 1e-5 below.
    scan_entropy : float, default=5.0
        Weight of what keeps SCAN's mean prediction near uniform, at least 0.
    unlabeled_weight : "auto" or float, default="auto"
        :math:`\lambda_u`, at least 0. ``"auto"`` goes by the noise rate estimated after the warm-up, or by
        the filter before, as in :class:`noisefilter.DivideMixClassifier`.
    ramp_steps : int, default=8000
        Steps after the warm-up in which it rises from 0.
    temperature : float, default=0.5
        Below 1 it sharpens guesses.
    mixup_alpha : float, default=0.5
        Parameter of the Beta distribution that mixtures are weighted by.
    penalty : float, default=1.0
        Weight of what keeps the mean prediction near uniform. 0 where classes differ much in size.
    weight_average : float or None, default=0.999
        Networks divide and predict with a moving average of their weights, of this decay; in [0, 1).
        ``None`` is the networks themselves, as published.
    filter : estimator, optional
        A filter to begin with: its clean rows are warmed up on, and are the first division. Behind a filter
        in a Pipeline this happens by itself.
    split_epochs : int, optional
        How many epochs after the warm-up that division is held. Default: a third of them.
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
        Rows that each network was trained on under their label in the last epoch.

    Notes
    -----
    Divisions, MixMatch and verdict are those of :class:`noisefilter.DivideMixClassifier`, pre-training and
    SCAN (:func:`noisefilter.pretrain.scan_epoch`) those of :class:`noisefilter.VRLVMixClassifier`: a row is
    paired with a neighbor of which the other network says the same. SCAN is left out of an epoch in which the
    networks put nearly all rows into few classes, and as long as the division of a filter is held;
    ``history_`` has its loss, ``scan_loss``.

    Cost: that of DivideMix, with two passes forward and backward per row and network more in an epoch; once,
    a search for neighbors.

    Clusters become classes by the given labels that most of their rows have
    (:func:`noisefilter.pretrain.matched_clusters`).

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: all of DivideMix's,
    and no pre-training. Others that stay: one kind of views, where the authors' code has strong ones in its
    warm-up and, from 0.6 on, everywhere; PreActResNet18, where theirs is a ResNet-18; the limit of 0.6 is one
    of symmetric noise, whose labels are drawn from all classes, where theirs is one of the share of wrong
    labels; moving averages of the weights follow SCAN only in the steps of the next epoch; one last layer
    where the authors' code has two on one network, one for MixMatch and one for SCAN, both from the clusters;
    the warm-up's features are not frozen where there was no pre-training; a row is not among its own
    neighbors.

    References
    ----------
    R. Sachdeva, F. R. Cordeiro, V. Belagiannis, I. Reid and G. Carneiro, "ScanMix: learning from severe label
    noise via semantic clustering and semi-supervised learning", Pattern Recognition 2023, arXiv:2103.11395.

    J. Li, R. Socher and S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR
    2020, arXiv:2002.07394.

    W. Van Gansbeke et al., "SCAN: learning to classify images without labels", ECCV 2020, arXiv:2005.12320.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import ScanMixClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = ScanMixClassifier(random_state=0).fit(X, y)
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
        pretrain: str | None = None,
        pretrain_epochs: int = 100,
        warmup_epochs: int | None = None,
        least_epochs: int = LEAST_EPOCHS,
        probes: float | None = None,
        confidence_penalty: bool = True,
        least_labeled: float | None = None,
        clean_threshold: float = 0.5,
        loss_epochs: int | None = None,
        n_neighbors: int = 20,
        scan_lr: Any = "auto",
        scan_entropy: float = 5.0,
        unlabeled_weight: Any = "auto",
        ramp_steps: int = 8_000,
        temperature: float = 0.5,
        mixup_alpha: float = 0.5,
        penalty: float = 1.0,
        weight_average: float | None = 0.999,
        filter: Any = None,
        split_epochs: int | None = None,
        checkpoint_dir: Any = None,
        channels: str | None = None,
        device: str = "auto",
        verbose: int = 0,
        random_state: Any = None,
    ):
        super().__init__(
            estimator, network=network, max_epochs=max_epochs, batch_size=batch_size, lr=lr,
            lr_drops=lr_drops, lr_drop_factor=lr_drop_factor, warmup_epochs=warmup_epochs,
            least_epochs=least_epochs, probes=probes, confidence_penalty=confidence_penalty,
            least_labeled=least_labeled, clean_threshold=clean_threshold, loss_epochs=loss_epochs,
            unlabeled_weight=unlabeled_weight, ramp_steps=ramp_steps, temperature=temperature,
            mixup_alpha=mixup_alpha, penalty=penalty, weight_average=weight_average, filter=filter,
            split_epochs=split_epochs, checkpoint_dir=checkpoint_dir, channels=channels, device=device,
            verbose=verbose, random_state=random_state,
        )  # fmt: skip
        self.pretrain = pretrain
        self.pretrain_epochs = pretrain_epochs
        self.n_neighbors = n_neighbors
        self.scan_lr = scan_lr
        self.scan_entropy = scan_entropy

    @classmethod
    def as_published(cls, **changes: Any) -> ScanMixClassifier:
        """Return a trainer with the authors' settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images. What belongs to DivideMix is that of
        :meth:`noisefilter.DivideMixClassifier.as_published`, also what is to be changed for each noise.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 300, "batch_size": 128, "lr": 0.02, "lr_drops": (0.5,),
            "lr_drop_factor": 10.0, "pretrain": "simclr", "pretrain_epochs": 500, "warmup_epochs": 10,
            "least_epochs": 0, "probes": 0.0, "confidence_penalty": False, "least_labeled": 0.0,
            "loss_epochs": 1, "mixup_alpha": 4.0, "n_neighbors": 20, "scan_lr": "auto", "scan_entropy": 5.0,
            "unlabeled_weight": 25.0, "ramp_steps": 6_250, "weight_average": None,
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
    ) -> CoTraining:
        check_pretraining(self, rows)
        return self._co_trained(_ScanMix, rows, codes, n_classes, given, rng, features=features)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_clustering(self)
        if self.scan_lr != "auto":
            rule = "'auto' or greater than 0 and finite"
            check_number("scan_lr", self.scan_lr, Real, rule, lambda value: 0 < value < np.inf)


class _ScanMix(ClusteredTraining, _DivideMix):
    """DivideMix's epochs, and SCAN's behind each."""

    def __init__(self, *args: Any, features: NDArray[Any] | None, **settings: Any):
        super().__init__(*args, features=features, **settings)
        if features is None:  # said before anything is trained
            with caught_features(self.nets[0].module_, self.nets[0].feature_layer):
                pass

    def scan_rate(self) -> float | None:
        """Return the learning rate of SCAN, None as long as a verdict is held."""
        if self._held_verdict() is not None:
            return None
        if self.options.scan_lr != "auto":
            return float(self.options.scan_lr)
        heavy = as_published_rate(self.rate or 0.0, self.n_classes) > _HEAVY_FROM
        return _LEADING_RATE if heavy else _FOLLOWING_RATE

    def _learn_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        record = super()._learn_epoch(epoch, bar)
        return record if self.scan_rate() is None else record | {"scan_loss": self.scan(epoch, bar)}
