"""VRLVMix: DivideMix that also reads how steadily losses change, and balances what it believes."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter.balance import Mixing, class_weights, mixing_plan, supplement
from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.budgets import LEAST_EPOCHS
from noisefilter.clustered import DRAW, ClusteredTraining, check_pretraining
from noisefilter.cotraining import CoTraining, Division, pushed
from noisefilter.errors import ParameterError
from noisefilter.net import derived_seed
from noisefilter.networks import PreActResNet18
from noisefilter.progress import Progress
from noisefilter.trained import check_clustering, check_positive
from noisefilter.trainers.dividemix import DivideMixClassifier, _DivideMix, as_published_rate
from noisefilter.variation import (
    BETA_RULES,
    adapted,
    changed_rate,
    clean_set,
    rank_variance,
    variation_sets,
)
from noisefilter.verdict import Verdict

__all__ = ["VRLVMixClassifier"]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_A, _B = 0, 1  # the network whose losses are read for their size, and the one for their variation
_LEAST_SHARE = 0.05  # of rows believed clean
_HEAVY_FROM = 0.6  # rate of symmetric noise, from which on SCAN is the paper's and classes are alike
_NO_ROWS = np.zeros(0, dtype=np.int64)
_NOTHING = Mixing(_NO_ROWS, _NO_ROWS, np.zeros(0), _NO_ROWS)
_CHOICES = {
    "clean_share": ("falling", "first", "current"),
    "beta_rule": BETA_RULES,
    "unlabeled": ("rest", "not clean"),
}


class _Selection(NamedTuple):
    """Algorithm 1, lines 8 to 21: what both networks together make of the rows.

    Of the pairs the first is for network A to learn from, the second for network B.
    """

    clean: Mask  # D_c
    small: Mask  # G_l
    pools: tuple[Mask, Mask]  # V_c and G_l
    orders: tuple[Floats, Floats]  # lower is added first
    proba: tuple[Floats, Floats]  # that a label is right, by the losses of the other network
    share: float  # rho
    branch: str


class VRLVMixClassifier(DivideMixClassifier):
    r"""DivideMix that believes labels whose loss is small and changes steadily, as many of each class.

    Two networks, A and B, warm up on all rows. From then on every epoch begins with a selection. A row is
    believed clean, in :math:`D_c`, if a mixture of two Gaussians puts the size of its loss in A among the
    small ones, :math:`G_l`, if its loss in B changes steadily (the variance of the rank of the change over
    the last epochs is low, :math:`V_c`), and if B's prediction of it has not changed. What classes lack of
    their share is added from what one network alone believes, and that is exchanged: A learns what B's
    variation adds, B what the sizes of A's losses add. Both then learn by MixMatch, as in
    :class:`noisefilter.DivideMixClassifier`, with the loss of labeled rows weighted by class, and learn to
    say the same of neighbors (SCAN).

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of both networks, cloned; it gives network, optimizer, epochs and batches, while the
        training is VRLVMix's own. Subclasses other than :class:`noisefilter.Net`, and classifiers that are
        no networks, cannot be trained so. ``None`` chooses a network for the shape of ``X``.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name.
    max_epochs : int, optional
        Of the whole training, the warm-up included. Default 60.
    batch_size : int, optional
        Of the warm-up. Half of it are the labeled rows of a later step, which also looks at as many unlabeled
        ones, at each twice. Default 128, fewer below 2,048 rows.
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
        looks for neighbors in these features, and unless ``scan=False`` goes on to clusters
        (:func:`noisefilter.pretrain.scan_weights`, 50 epochs). Both networks begin there, and their warm-up
        trains the last layer alone. With ``None`` neighbors are found in the embedding given to ``fit`` as
        ``features``, or in the features that both networks have when neighbors are first needed: behind the
        warm-up, as a rule.
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
        when wrong labels begin to be learned by heart, which ends the warm-up, and how many there are.
        Default: 4 %, up to 200 rows where that is no more than a tenth, and at most 2,000 rows. Where a
        filter has judged before there are none.
    confidence_penalty : bool, default=True
        Add the negative entropy of the predictions to the loss of the warm-up, so that networks are not too
        sure of wrong labels.
    least_labeled : float, optional
        Share, in [0, 1], of the labels that are right by the estimated noise rate. If the mixture believes
        fewer, so many losses, the smallest, are taken for :math:`G_l`. Default: as in
        :class:`noisefilter.DivideMixClassifier`.
    clean_threshold : float, default=0.5
        A loss is among the small ones if the mixture says so with more than this probability; in [0, 1].
    loss_epochs : int, optional
        Of how many last epochs since the warm-up losses are averaged for the mixture. Default: 1, and 5 where
        the estimated noise is as heavy as 85 % symmetric noise.
    variation : bool, default=True
        ``False`` leaves the variation out: both networks read the sizes of losses (Table IV).
    window : int, default=10
        :math:`\tau`, how many of the last changes of the loss count, at least 2. Until so many were recorded
        there is no variation to speak of, and both networks read the sizes of losses; a training of no more
        epochs never reads it. The paper does not give it.
    clean_share : {"falling", "first", "current"}, default="falling"
        The share :math:`\rho` of rows believed clean, which makes :math:`V_c` and the share of each class.
        ``"first"`` is the share of small losses when the warm-up is over, mean of both networks;
        ``"falling"`` goes below it where later losses say less, and never above, which a warm-up of one or
        two epochs can make too few; ``"current"`` is the share of each epoch, whichever it is.
    beta_rule : {"stable_label", "stable", "text", "eq5"}, default="stable_label"
        What shows after a change of the learning rate that a row adapts well; see
        :func:`noisefilter.variation.adapted`.
    most_unstable : float or None, default=0.1
        After a change of the learning rate, rows of much variation are believed up to this share of the rows
        believed clean; in [0, 1]. ``None`` is no limit, as in the paper.
    balance : bool or None, default=None
        ``False`` leaves out all that has to do with classes: each network learns all that the other believes,
        and rows weigh the same (Table IV). So it should be where classes differ much in size, as the share of
        each class is the same. ``True`` is the paper's. ``None`` balances unless the noise rate estimated
        after the warm-up, or by the filter before, is as heavy as symmetric noise above 0.6: as many of each
        class are believed by then, and balancing leaves fewer to learn from.
    n_neighbors : int, default=20
        Neighbors that thin out what is added, make synthetic rows, and are to be told alike; clipped to
        n - 1.
    synthetic : bool, default=False
        Make up what a class still lacks by mixing its believed rows with neighbors that are not, as in the
        paper.
    weighted : bool, default=True
        Weight the loss of labeled rows by class, Eq. (10).
    unlabeled : {"rest", "not clean"}, default="rest"
        Rows to guess: all that are not learned under their label, or all but :math:`D_c`, as printed.
    scan : bool or None, default=True
        Learn to say the same of neighbors, Eq. (12). ``None`` is the paper's rule: where the noise rate
        estimated after the warm-up, or by the filter before, is as heavy as symmetric noise above 0.6. It is
        left out in epochs in which the networks put nearly all rows into few classes.
    scan_lr : float, default=1e-3
        Its learning rate.
    scan_entropy : float, default=2.0
        :math:`\lambda_e`, the weight of what keeps SCAN's mean prediction near uniform, at least 0.
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
        :math:`\lambda_r`, the weight of what keeps the mean prediction near uniform. 0 where classes differ
        much in size.
    weight_average : float or None, default=0.999
        Networks select and predict with a moving average of their weights, of this decay; in [0, 1). ``None``
        is the networks themselves, as published.
    filter : estimator, optional
        A filter to begin with: its clean rows are warmed up on, and are the first division. Behind a filter
        in a Pipeline this happens by itself.
    split_epochs : int, optional
        How many epochs after the warm-up that division is held. Default: a third of them.
    checkpoint_dir : path, optional
        Every epoch ends here, and a fit that was stopped goes on from here; SimCLR has a folder in it, and
        is only taken up again where `random_state` is a number.
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
    Algorithm 1, line by line:

    - 1, 2: ``pretrain``, and the warm-up of :class:`noisefilter.cotraining.CoTraining`;
    - 3, 4, 8, 9: after every epoch both networks look at all rows, and losses, predictions and learning rates
      of the last ``window + 2`` epochs are kept;
    - 5, 6: :func:`noisefilter.mixtures.mixture_with_separation` on the losses, and ``clean_share``;
    - 10: :func:`~noisefilter.variation.rank_variance`, Eq. (3), and
      :func:`~noisefilter.variation.variation_sets`, Eq. (4), of network B;
    - 11: the share of a class is :math:`R = \rho n / K`;
    - 12, 13: :func:`~noisefilter.variation.changed_rate`: for ``window`` epochs after a change of the
      learning rate the branch for changes applies, from its third epoch on;
    - 14, 20, 21: :func:`~noisefilter.variation.adapted`, Eq. (5), and
      :func:`~noisefilter.variation.clean_set`, Eq. (6);
    - 15 to 18, 22 to 26: :func:`noisefilter.balance.supplement`, Eq. (8) and (9), with
      :func:`~noisefilter.balance.without_outvoted` where candidates are too many;
    - 27 to 29: :func:`noisefilter.balance.mixing_plan`;
    - 30, 31: what is labeled and what is guessed, floored as in DivideMix
      (:func:`noisefilter.semisupervised.floored`);
    - 32: :func:`noisefilter.balance.class_weights`, Eq. (10),
      :func:`noisefilter.semisupervised.mixmatch_epoch`, Eq. (11), and
      :func:`noisefilter.pretrain.scan_epoch`, Eq. (12).

    Labels of :math:`D_c` are learned as they are; what is added is refined by the probability that the losses
    of the other network give it.

    ``history_`` says of every epoch which branch it took, :math:`\rho`, the size of :math:`D_c`, the least
    and the greatest size of a class in the labeled sets, and of how many classes no row is in :math:`D_c`.

    Cost: that of :class:`noisefilter.DivideMixClassifier`; where SCAN is learned, two passes forward and
    backward per row and network more in an epoch; once, a search for neighbors.

    The verdict is made as in :class:`noisefilter.DivideMixClassifier`.

    What each part is worth was measured where networks memorize (``benchmarks/training.py``). Under
    asymmetric noise balance and SCAN gain one to two points of accuracy each. Under heavy symmetric noise
    neither does: another machine alone moved its accuracy by a point, and so did each part. The variation is
    worth next to nothing in both, and is there because it is the method.

    Where classes differ much in size, take ``balance=False`` and ``penalty=0``: both want classes of one
    size.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: a warm-up with
    planted labels, which ends when they are learned; :math:`\rho`, which falls where later losses say less;
    SCAN below 60 % of noise too; no synthetic rows, as what is mixed in was not believed to be of the class;
    what is added is not guessed as well; ``beta_rule`` and a limit on rows of much variation, as the printed
    ones select hardly better than chance; the confidence penalty and a least number of small losses; milder
    mixtures; moving averages of the weights; a ramp that counts steps; the small networks. Others that stay:
    no variation before ``window`` changes of the loss were recorded, so none in the paper's first epochs
    after the warm-up; "noise rate" in Eq. (4) and (7) is read as the share believed clean, ranks stand for
    the printed argsort, and both thresholds of Eq. (4) are the quantile of the variance at :math:`\rho`; the
    rate is estimated by both networks; losses are recorded by a pass in evaluation mode; after a change of
    the learning rate the current epoch stands in for :math:`t_* + \tau`; KNN in Eq. (9) looks outside
    :math:`V_c`, as candidates inside are added anyway; class weights stay between 0.2 and 5; without
    pre-training neighbors are those of the warm-up; moving averages of the weights follow SCAN only in the
    steps of the next epoch; synthetic rows are mixed after augmentation; all that stays of DivideMix. With
    "not clean", what is added is labeled and guessed in one epoch.

    References
    ----------
    H. Wang, B. Jiang, Z. Tu and Y. Ding, "VRLVMix: combating noisy labels with sample selection based on loss
    variation", Eq. (3) to (12), Algorithm 1, Table IV.

    J. Li, R. Socher and S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR
    2020, arXiv:2002.07394.

    W. Van Gansbeke et al., "SCAN: learning to classify images without labels", ECCV 2020, arXiv:2005.12320.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import VRLVMixClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = VRLVMixClassifier(random_state=0).fit(X, y)
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
        variation: bool = True,
        window: int = 10,
        clean_share: str = "falling",
        beta_rule: str = "stable_label",
        most_unstable: float | None = 0.1,
        balance: bool | None = None,
        n_neighbors: int = 20,
        synthetic: bool = False,
        weighted: bool = True,
        unlabeled: str = "rest",
        scan: bool | None = True,
        scan_lr: float = 1e-3,
        scan_entropy: float = 2.0,
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
        self.variation = variation
        self.window = window
        self.clean_share = clean_share
        self.beta_rule = beta_rule
        self.most_unstable = most_unstable
        self.balance = balance
        self.n_neighbors = n_neighbors
        self.synthetic = synthetic
        self.weighted = weighted
        self.unlabeled = unlabeled
        self.scan = scan
        self.scan_lr = scan_lr
        self.scan_entropy = scan_entropy

    @classmethod
    def as_published(cls, **changes: Any) -> VRLVMixClassifier:
        """Return a trainer with the paper's settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images. Pre-training and SCAN are the paper's where more than 60 % of the labels are wrong;
        below, set ``pretrain=None, scan=False``, as SCAN cost it 0.1 points at 40 % asymmetric noise. On
        CIFAR-100 the warm-up has 30 epochs, and 40 % asymmetric noise was trained with both. Of MixMatch the
        paper says that it is DivideMix's, see :meth:`noisefilter.DivideMixClassifier.as_published`, also for
        ``unlabeled_weight``.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 300, "batch_size": 128, "lr": 0.02, "lr_drops": (0.5,),
            "lr_drop_factor": 10.0, "pretrain": "simclr", "pretrain_epochs": 500, "warmup_epochs": 10,
            "least_epochs": 0, "probes": 0.0, "confidence_penalty": False, "least_labeled": 0.0,
            "mixup_alpha": 4.0, "loss_epochs": 1, "window": 10, "clean_share": "first", "beta_rule": "eq5",
            "most_unstable": None, "balance": True, "n_neighbors": 20, "synthetic": True, "weighted": True,
            "unlabeled": "not clean", "scan": None, "scan_lr": 1e-3, "scan_entropy": 2.0,
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
        return self._co_trained(_VRLVMix, rows, codes, n_classes, given, rng, features=features)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_clustering(self)
        check_positive(self, "scan_lr")
        check_number(
            "window", self.window, Integral, "a whole number of at least 2", lambda value: value >= 2
        )
        if self.most_unstable is not None:
            rule = "in [0, 1] or None"
            check_number("most_unstable", self.most_unstable, Real, rule, lambda value: 0 <= value <= 1)
        self._check_switches()

    def _check_switches(self) -> None:
        for name in ("variation", "synthetic", "weighted"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ParameterError(f"{name} must be True or False, got {getattr(self, name)!r}.")
        for name in ("scan", "balance"):
            if not isinstance(getattr(self, name), bool | np.bool_ | None):
                raise ParameterError(f"{name} must be True, False or None, got {getattr(self, name)!r}.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ParameterError(f"{name} must be one of {choices}, got {getattr(self, name)!r}.")


class _VRLVMix(ClusteredTraining, _DivideMix):
    """Algorithm 1; its lines stand in comments. Lines 1, 2 and Eq. (12) are in the first of its bases."""

    _remembered: ClassVar = (*ClusteredTraining._remembered, "rates")
    # Its banks would have to go back, too. And earlier networks, tried, have worse neighbors and fewer small
    # losses to take the share from: under symmetric noise it cost four to nine points.
    _goes_back: ClassVar = False

    def __init__(self, *args: Any, trainer: VRLVMixClassifier, **settings: Any):
        depth = int(trainer.window) + 2  # after a change of the rate, the prediction before it is read
        settings["loss_epochs"] = max(depth, settings["loss_epochs"])
        super().__init__(*args, trainer=trainer, depth=depth, **settings)
        self.rates = np.zeros(depth)
        self.first_share: float | None = None
        self.selected: _Selection | None = None

    def _finds_clusters(self) -> bool:
        return self.options.scan is not False

    # -- lines 3, 4, 8, 9: the memory bank --------------------------------------------------------

    def _note(self, both: list[NDArray[Any]]) -> None:
        super()._note(both)
        pushed(self.rates, np.asarray(self._lr()))

    # -- lines 5 to 21: what both networks believe ------------------------------------------------

    def _learn_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        self.selected = self._selection() if self._held_verdict() is None else None
        record = super()._learn_epoch(epoch, bar)
        if self.selected is None:
            return record | {"branch": "verdict given"}
        if self.scan_rate() is not None:
            record["scan_loss"] = self.scan(epoch, bar)
        return record | self._told(self.selected)

    def _selection(self) -> _Selection:
        """Return what the sizes of A's losses and the variation of B's say together: lines 8 to 21."""
        (proba_a, small_a), (proba_b, small_b) = self._small_losses(_A), self._small_losses(_B)
        share = self._clean_share((small_a.mean() + small_b.mean()) / 2.0)
        size_a, size_b = self.losses[:, -1].astype(np.float64)
        window = int(self.options.window)
        if not self.options.variation or self.n_epochs_seen <= window:
            both = small_a & small_b
            return _Selection(
                both, small_a, (small_b, small_a), (size_b, size_a), (proba_b, proba_a), share, "small losses"
            )
        seen = min(self.n_epochs_seen, len(self.rates))
        variance = rank_variance(self.losses[_B, -seen:], window)
        sets = variation_sets(variance, share)  # line 10
        change = changed_rate(self.rates[-seen:], window)  # line 13
        most = self.options.most_unstable
        clean = clean_set(
            sets, small_a, self._beta(seen, window, change), size_a, rate_changed=change is not None,
            most_unstable=None if most is None else round(most * share * len(self.codes)),
        )  # fmt: skip
        return _Selection(
            clean, small_a, (sets.candidates, small_a), (variance, size_a), (proba_b, proba_a), share,
            "constant rate" if change is None else "changed rate",
        )  # fmt: skip

    def _beta(self, seen: int, window: int, change: int | None) -> Mask:
        """Return how rows adapt to network B: lines 14 and 20."""
        return adapted(self.predictions[_B, -seen:], self.codes, window, change, self.options.beta_rule)

    def _small_losses(self, which: int) -> tuple[Floats, Mask]:
        """Return the probability that a loss is a small one, and where that is believed: lines 5 and 8."""
        division = self._by_losses(which)
        return division.clean_proba, division.labeled

    def _clean_share(self, now: float) -> float:
        """Return the share of rows believed clean, of which `now` are by the sizes of losses: line 6.

        By default it is what the warm-up found, and falls where later sizes say less. It does not rise with
        them: the losses of wrong labels become small as well when these are learned by heart.
        """
        if self.first_share is None:
            self.first_share = float(now)
        shares = {"first": self.first_share, "current": now, "falling": min(self.first_share, now)}
        return max(_LEAST_SHARE, float(shares[self.options.clean_share]))

    # -- lines 11 to 31: what each network learns from --------------------------------------------

    def divided(self, which: int) -> Division:
        """Return what network 0 or 1 tells the other: B's variation is for A, A's small losses for B."""
        if self.selected is None:
            return super().divided(which)
        learner = self.peer_of(which)
        clean, proba = self.selected.clean, self.selected.proba[learner]
        added, blends = self._added(learner, self.selected)
        labeled = self._floored(np.where(clean | added, 1.0 + proba, proba / 2.0), 0.5)  # line 30
        weights = None
        if self._balances() and self.options.weighted:
            learned = np.concatenate([self.codes[labeled], self.codes[blends.first]])
            weights = class_weights(learned, self.n_classes)[self.codes]  # Eq. (10)
        if self.options.unlabeled == "not clean":  # line 31 as printed: what is added is guessed as well
            labeled, blends = labeled & ~added, _repeated(np.flatnonzero(added), blends)
        return Division(np.where(clean, 1.0, proba), labeled, weights, blends if len(blends.first) else None)

    def _added(self, learner: int, selected: _Selection) -> tuple[Mask, Mixing]:
        """Return the rows, and the synthetic ones, that a network learns beside D_c: lines 11 to 29."""
        clean, pool, order = selected.clean, selected.pools[learner], selected.orders[learner]
        if not self._balances():
            return pool & ~clean, _NOTHING
        per_class = round(selected.share * len(self.codes) / self.n_classes)  # line 11
        if selected.branch == "changed rate":  # lines 15 to 18
            return supplement(self.codes, clean, selected.small, selected.orders[_B], per_class), _NOTHING
        near = self.near()
        added = supplement(self.codes, clean, pool, order, per_class, near)  # lines 22 to 26
        if not self.options.synthetic:
            return added, _NOTHING
        short = per_class - np.bincount(self.codes[clean | added], minlength=self.n_classes)
        rng = np.random.default_rng(derived_seed(self.nets[learner].seed_, self.n_epochs_seen, DRAW))
        return added, mixing_plan(
            self.codes, clean, ~pool & ~clean, np.maximum(short, 0), near, self.predicted, rng
        )  # lines 27 to 29

    # -- line 32: Eq. (12) ------------------------------------------------------------------------

    def scan_rate(self) -> float | None:
        """Return the learning rate of SCAN, None where there is to be none, or a verdict is held."""
        if self._held_verdict() is not None:
            return None
        scans = self._is_heavy() if self.options.scan is None else self.options.scan
        return float(self.options.scan_lr) if scans else None

    def _balances(self) -> bool:
        return not self._is_heavy() if self.options.balance is None else bool(self.options.balance)

    def _is_heavy(self) -> bool:
        return as_published_rate(self.rate or 0.0, self.n_classes) > _HEAVY_FROM

    # -- what is told and kept --------------------------------------------------------------------

    def _told(self, selected: _Selection) -> dict[str, Any]:
        present = np.bincount(self.codes, minlength=self.n_classes) > 0
        counts = np.stack([np.bincount(self.codes[rows], minlength=self.n_classes) for rows in self.labeled])
        clean = np.bincount(self.codes[selected.clean], minlength=self.n_classes)
        blends = [None if each.blends is None else each.blends for each in self.kept or ()]
        sizes = [0 if each is None else int((each.weight < 1.0).sum()) for each in blends]
        record = {
            "branch": selected.branch, "clean_share": selected.share, "n_clean": int(clean.sum()),
            "smallest_class": int(counts[:, present].min()), "largest_class": int(counts.max()),
            "classes_without_clean": int((clean[present] == 0).sum()),
        }  # fmt: skip
        if self._balances() and self.options.synthetic:
            record |= {f"n_synthetic_{k + 1}": sizes[1 - k] for k in range(2)}
        return record

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return all that the epochs to come and the verdict depend on."""
        tensors, rest = super().state()
        return tensors, rest | {"first_share": self.first_share}

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        super().load_state(tensors, rest)
        self.first_share = rest["first_share"]

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        super().release()
        self.selected = None


def _repeated(rows: NDArray[np.int64], blends: Mixing) -> Mixing:
    """Return blends and rows that are no blends, to be labeled beside what they are otherwise."""
    twice = Mixing(rows, rows, np.ones(len(rows)), _NO_ROWS)
    return Mixing(*(np.concatenate(parts) for parts in zip(blends, twice, strict=True)))
