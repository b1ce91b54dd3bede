"""Loss variation: how steadily the loss of a row changes while the network is trained."""

from __future__ import annotations

import warnings
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import rankdata

from noisefilter.balance import supplement
from noisefilter.base import NoiseEstimate, check_number
from noisefilter.batches import Rows
from noisefilter.errors import ParameterError
from noisefilter.mixtures import mixture_with_separation
from noisefilter.neighbors import nearest
from noisefilter.networks import PreActResNet18
from noisefilter.recorded import RecordedFilter, Trained, epochs_of
from noisefilter.scores import log_margin
from noisefilter.splits import Split
from noisefilter.trained import Planted, check_at_least_1, check_drops, learned_codes
from noisefilter.variation import (
    BETA_RULES,
    adapted,
    changed_rate,
    clean_set,
    loss_variance,
    lowest,
    rank_variance,
    variation_sets,
)
from noisefilter.verdict import Signals

__all__ = ["LossVariationSelector"]

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

_WEIGHTS = np.linspace(0.0, 1.0, 11)  # of the variation, to choose from
_UNKNOWN_WEIGHT = 0.1  # where nothing tells: hardly ever was more of it better


class LossVariationSelector(RecordedFilter):
    r"""Believes a label if its loss changes steadily while the network is trained.

    A wrong label is learned late and against its neighbors: its loss jumps up and down. In every epoch
    :math:`s` rows are ranked by how much their loss fell, :math:`S_i^s = \frac1n rank_i(\ell_{s-1} -
    \ell_s)`, and the variance of a row's rank over the epochs says how unsteady it is:

    .. math:: var_i = \frac1\tau \sum_s (S_i^s - S_i^{mean})^2

    The paper selects rows of low variance that a mixture of two Gaussians puts among the small losses as
    well, and fills up classes that come out short. It has no score; this one weighs the rank of the variance
    against that of the mean loss, by what ranks planted wrong labels lowest.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype, cloned. An exact ``NeuralNetClassifier`` is trained by the fast loop of
        :class:`noisefilter.Net`; a subclass is trained as it is, and recorded by an evaluation pass after
        each epoch. ``None`` chooses a network for the shape of ``X``. Other classifiers have no epochs to
        record.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name (``n_inputs`` or
        ``n_channels`` and ``image_size``, ``n_classes``).
    max_epochs : int, optional
        Default 30.
    batch_size : int, optional
        Default 128, fewer below 2,048 rows.
    lr : float, optional
        Learning rate of SGD with Nesterov momentum 0.9, divided by 5 at half and at three quarters of
        the epochs. Default 0.05.
    lr_drops : tuple of float, optional
        Shares of the training, in (0, 1), after which the learning rate of the default network is divided, if
        not as above.
    lr_drop_factor : float, default=5.0
        What it is divided by.
    record : {"train", "eval"}, default="train"
        Whether losses and predictions are recorded from the training itself, at no cost, or from an
        evaluation pass after each epoch. A subclass of ``NeuralNetClassifier`` always takes the pass.
    peer : bool, default=False
        Train a second network, whose losses are read for size while those of the first are read for their
        variation, as in the paper. Otherwise one network serves both, at half the cost.
    window : int, default=10
        :math:`\tau`, how many of the last changes of the loss count, at least 2; fewer where fewer were
        recorded. The paper does not give it.
    row_score : {"combined", "variation", "raw_variation", "loss", "mean_loss"}, default="combined"
        - ``"combined"``: weighted mean of two ranks, each divided by n, that of the variance (low is high)
          and that of the mean loss;
        - ``"variation"``: minus the variance of the ranks, Eq. (3);
        - ``"raw_variation"``: minus the variance of the changes themselves;
        - ``"loss"``: minus the loss of the last epoch;
        - ``"mean_loss"``: minus the mean loss over all recorded epochs.
    weight : float, optional
        Of the variation in ``"combined"``, in [0, 1]. By default that one of 0, 0.1, ..., 1 which ranks the
        planted rows lowest, if it gains more than two standard errors on 0. Where none were planted, 0.1.
    split : {"auto", "paper", "probes", "joint", "beta", "gaussian", "threshold", "keep"}, default="auto"
        Decision rule. ``"auto"`` flags as many rows as the network contradicts beyond its own doubt
        (:func:`noisefilter.estimates.estimate_noise_rate`), worst scores first. ``"paper"`` selects the rows
        that Eq. (6) does, and those that balance the classes. The others are rules of
        :mod:`noisefilter.splits`.
    warm_up : int, optional
        With ``split="paper"``: the epoch, counted from 1, whose losses say how many rows are clean: the
        Gaussian mixture finds almost every loss small once wrong labels are memorized. The share is clipped
        to [0.05, 0.95], so that the noise rate is never said to be less than 0.05, be the data as clean as
        they may. Default: a third of the epochs.
    beta_rule : {"stable_label", "stable", "text", "eq5"}, default="stable_label"
        With ``split="paper"``: what shows after a change of the learning rate that a row adapts well; see
        :func:`noisefilter.variation.adapted`.
    most_unstable : float or None, default=0.1
        With ``split="paper"``: after a change of the learning rate, rows of much variation are selected up to
        this share of the rows believed clean; in [0, 1]. ``None`` is no limit, as in the paper.
    balance : bool, default=True
        With ``split="paper"``: fill up each given class to its share of the rows believed clean.
    n_neighbors : int, default=20
        Neighbors that thin out a supplement with too many candidates
        (:func:`noisefilter.balance.supplement`); clipped to n - 1.
    threshold : float, optional
        With ``split="threshold"``: rows that score at least this are clean.
    keep : float, optional
        With ``split="keep"``: share of rows to keep, in [0, 1].
    probes : float, optional
        Share of rows, drawn at random, that are trained under a wrong label, to show how wrong labels score
        in this very training; in [0, 0.5]. What was recorded of them speaks of that label, so among
        themselves they are ranked by the margin of the given one in their mean probabilities. Default: 4 %,
        up to 200 rows where that is no more than a tenth, and at most 2,000 rows; none where nothing reads
        them.
    open_set : bool, default=False
        Look for strangers too: divide the rejected rows into wrong labels and rows that belong to no class,
        which are those the network is undecided about (:func:`noisefilter.scores.ood_score`). With
        ``split="auto"`` the strangest rows are rejected although their label was believed, as many as there
        are too many of (:func:`noisefilter.splits.stranger_share`).
    output : {"rows", "features"}, default="rows"
        What :meth:`transform` gives: the rows, or features of the network.
    channels : {"first", "last"}, optional
        Where 4-D images have their channels, if the shape does not tell.
    device : str, default="auto"
        ``"auto"`` is CUDA where there is a GPU. The ``device`` of a prototype is not read.
    keep_signals : bool, default=True
        Keep ``signals_``, to judge again by :meth:`fit_signals` with other parameters.
    verbose : int, default=0
        1 shows a progress bar, and says beforehand how long a training will take.
    random_state : int, RandomState or None, default=None
        Seeds everything; the global generators are left as they were.

    Raises
    ------
    MissingSignalError
        If the estimator is no network: it has no epochs to record. :class:`noisefilter.INNScorer` takes any
        classifier.

    Notes
    -----
    Cost: one training (two with ``peer=True``) and one evaluation of every row. With fewer than three
    recorded epochs there is no variation to speak of; the loss then stands in, with a warning.

    ``split="paper"`` follows Algorithm 1 for the last epoch: :math:`V_l = V_c` are the share :math:`\rho` of
    rows of lowest variance, :math:`V_h` the rest, :math:`G_l` the rows of small loss. If the learning rate
    changed at least two and at most :math:`\tau` epochs before, the branch for changes applies. What classes
    lack is taken from :math:`G_l`, smallest losses first; without a change neighbors thin it out. Synthetic
    rows are the business of a trainer: :func:`noisefilter.balance.mixing_plan`. Where the mixture does not
    separate (Ashman's D < 1), the estimated noise rate stands in for it.

    Rows that arrive later (:meth:`score_new`) have no past. They get the score that a row of fit has whose
    rank by the trained network's margin is the same.

    The estimated noise rate rests on two constants that were read off the blended probabilities of
    :class:`noisefilter.INNScorer`, not off those of this filter.

    Where it fails: the variation alone is a weak score, below the mean loss on all data it was measured on,
    so that ``"combined"`` hardly ever gives it weight. The selected set is purer than as many rows of
    smallest loss in the last epoch while the network is memorizing its labels, and about as pure where it
    does not; but for uneven noise, as many rows of smallest mean loss are purer. Confusions that are
    consistent (every picture of one kind of dog labeled cat) look like a right label to any method that
    learns from these labels alone.

    Deviations from the paper: ranks instead of the printed argsort, divided by n; losses are recorded from
    the training itself, not by an extra pass; the network learns from all rows to the end, where VRLVMix
    goes on with its own selection; the learning rate is divided twice by 5, not once by 10 (the momentum
    stays Nesterov's); the thresholds of Eq. (4) are the share believed clean, and "noise rate" in Eq. (4)
    and (7) is read as that share; beta in Eq. (5) is what ``beta_rule`` says, for the printed one selects
    hardly better than chance, or worse; rows of much variation are limited; neighbors are found in the
    network's own features; there is one supplement, that of small losses, where each of the paper's networks
    has its own (the other one, of small variation, was less pure where a network did not memorize, and a
    little purer where it did). The score, the decision rule ``"auto"`` and the planted labels are
    beyond the paper. :meth:`as_published` sets what is a parameter.

    References
    ----------
    H. Wang, B. Jiang, Z. Tu and Y. Ding, "VRLVMix: combating noisy labels with sample selection based on loss
    variation", Eq. (3) to (8), Algorithm 1.
    J. Li, R. Socher and S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR
    2020, arXiv:2002.07394: the Gaussian mixture.
    J. Huang, L. Qu, R. Jia and B. Zhao, "O2U-Net: a simple noisy label detection approach for deep neural
    networks", ICCV 2019, doi:10.1109/ICCV.2019.00342: losses recorded over epochs, and their mean.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import LossVariationSelector
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> verdict = LossVariationSelector(random_state=0).fit(X, y).verdict_
    >>> int(verdict.scores.argmin()), int(verdict.suggested_labels[7])
    (7, 0)
    """

    _fields: ClassVar = ("losses", "predictions", "mean_probs")
    _splits: ClassVar = ("paper", *RecordedFilter._splits)
    _judging: ClassVar = RecordedFilter._judging | {
        "window", "row_score", "weight", "warm_up", "beta_rule", "most_unstable", "balance",
    }  # fmt: skip
    _choices: ClassVar = {
        "row_score": ("combined", "variation", "raw_variation", "loss", "mean_loss"),
        "beta_rule": BETA_RULES,
        "record": ("train", "eval"),
    }

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
        record: str = "train",
        peer: bool = False,
        window: int = 10,
        row_score: str = "combined",
        weight: float | None = None,
        split: str = "auto",
        warm_up: int | None = None,
        beta_rule: str = "stable_label",
        most_unstable: float | None = 0.1,
        balance: bool = True,
        n_neighbors: int = 20,
        threshold: float | None = None,
        keep: float | None = None,
        probes: float | None = None,
        open_set: bool = False,
        output: str = "rows",
        channels: str | None = None,
        device: str = "auto",
        keep_signals: bool = True,
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
        self.record = record
        self.peer = peer
        self.window = window
        self.row_score = row_score
        self.weight = weight
        self.split = split
        self.warm_up = warm_up
        self.beta_rule = beta_rule
        self.most_unstable = most_unstable
        self.balance = balance
        self.n_neighbors = n_neighbors
        self.threshold = threshold
        self.keep = keep
        self.probes = probes
        self.open_set = open_set
        self.output = output
        self.channels = channels
        self.device = device
        self.keep_signals = keep_signals
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> LossVariationSelector:
        """Return a selector with the paper's settings spelled out in its parameters.

        For 32x32 images. ``warm_up`` is that of CIFAR-10; it is 30 for CIFAR-100.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 300, "batch_size": 128, "lr": 0.02, "peer": True,
            "lr_drops": (0.5,), "lr_drop_factor": 10.0, "record": "eval", "window": 10, "weight": 0.5,
            "split": "paper", "warm_up": 10, "beta_rule": "eq5",
            "most_unstable": None, "balance": True, "n_neighbors": 20,
        }  # fmt: skip
        return cls(**(published | changes))

    # One training, or two, that keep a record.

    def fit_signals(self, signals: Signals, y: Any, peer: Signals | None = None) -> Self:
        """Judge rows from signals recorded elsewhere; nothing is trained.

        Parameters
        ----------
        signals : Signals
            ``losses`` of at least three epochs, and ``mean_probs`` or ``probs`` for the labels suggested;
            ``predictions`` for ``split="paper"``, which also reads ``learning_rates`` and ``neighbors`` where
            there are any.
        y : (n,) array
            Given labels.
        peer : Signals, optional
            ``losses`` of a second network, to be read for their size; one may also be part of ``signals``.

        Returns
        -------
        self
        """
        return super().fit_signals(signals if peer is None else replace(signals, peer=peer), y)

    def _collect(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, features: NDArray[Any] | None, rng: Any
    ) -> tuple[Signals, Trained]:
        signals, fitted = super()._collect(rows, codes, n_classes, features, rng)
        learned = Planted(learned_codes(signals, codes), {})
        peer = self._train(rows, learned, n_classes, rng)[1] if self.peer else None
        neighbors = self._neighbors(signals.require("features")[0]) if self._wants_neighbors() else None
        return replace(signals, peer=peer, neighbors=neighbors), fitted

    def _training(self) -> dict[str, Any]:
        training: dict[str, Any] = {"objective": "cross_entropy"}
        if self.record == "eval":
            training["record_from"] = "evaluation"
        if self.lr_drops is not None:
            training |= {"lr_drops": tuple(self.lr_drops), "lr_drop_factor": self.lr_drop_factor}
        return training

    def _neighbors(self, features: NDArray[Any]) -> NDArray[np.int64]:
        """Nearest by cosine."""
        directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        return nearest(directions, int(min(self.n_neighbors, len(features) - 1)))

    def _wants_neighbors(self) -> bool:
        return self.split == "paper" and self.balance

    def _training_key(self, seed: int) -> Any:
        key = super()._training_key(seed)
        return None if key is None else (*key, self._wants_neighbors())

    def _wants_probes(self) -> bool:
        weighs = self.row_score == "combined" and self.weight is None and self.split != "paper"
        return weighs or super()._wants_probes()

    # The score, from signals alone.

    def _recorded_scores(self, signals: Signals, codes: NDArray[np.int64]) -> Floats:
        small_loss = self._small_loss(signals)
        if self.row_score in ("loss", "mean_loss"):
            return small_loss
        (losses,) = signals.require("losses")
        if len(losses) < 3:
            _warn_of_few(len(losses))
            return _ranks(small_loss) if self.row_score == "combined" else small_loss
        variance = loss_variance if self.row_score == "raw_variation" else rank_variance
        variation = -variance(losses, self.window)
        if self.row_score != "combined":
            return variation
        return _combined(_ranks(variation), _ranks(small_loss), self.weight, signals.probe_rows)

    def _small_loss(self, signals: Signals) -> Floats:
        """Minus the mean loss over the epochs, or minus that of the last one."""
        losses = epochs_of((signals.peer or signals).require("losses")[0])
        if self.row_score == "loss":
            return -losses[-1]
        return np.asarray(-losses.mean(axis=0))

    # The decision.

    def _split(
        self, scores: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> Split:
        if self.split == "paper":
            return self._selected(scores, signals, codes, noise)
        return super()._split(scores, signals, codes, noise)

    def _log_odds(self, scores: Floats) -> Floats:
        return np.asarray(logit(_ranks(scores)))

    def _selected(
        self, scores: Floats, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> Split:
        """Algorithm 1, lines 8 to 30, for the last epoch."""
        losses, predictions = signals.require("losses", "predictions")
        sizes = (signals.peer or signals).require("losses")[0]
        share = self._clean_share(signals, noise)
        small_loss = _small_losses(sizes[-1], share)
        if len(losses) < 3:
            _warn_of_few(len(losses))
            return self._planted_by_rank(small_loss, scores, signals, share)
        trained = learned_codes(signals, codes)
        variance, window = rank_variance(losses, self.window), min(self.window, len(losses) - 1)
        sets, change = variation_sets(variance, share), changed_rate(signals.learning_rates, window)
        beta = adapted(predictions, trained, window, change, self.beta_rule)
        expected = share * len(codes)
        selected = clean_set(
            sets, small_loss, beta, sizes[-1], rate_changed=change is not None,
            most_unstable=None if self.most_unstable is None else round(self.most_unstable * expected),
        )  # fmt: skip
        if self.balance:
            per_class = round(expected / len(noise.transition))
            neighbors = signals.neighbors if change is None else None
            selected |= supplement(trained, selected, small_loss, sizes[-1], per_class, neighbors)
        return self._planted_by_rank(selected, scores, signals, share)

    def _clean_share(self, signals: Signals, noise: NoiseEstimate) -> float:
        """Share of small losses after the warm-up, mean over the networks, in [0.05, 0.95]."""
        shares = []
        for network in (signals, signals.peer):
            if network is None:
                continue
            losses = network.require("losses")[0]
            epoch = max(1, len(losses) // 3) if self.warm_up is None else min(self.warm_up, len(losses))
            small = _small_losses(losses[epoch - 1], 1.0 - noise.rate)
            shares.append(float(small.mean()))
        return float(np.clip(np.mean(shares), 0.05, 0.95))

    @staticmethod
    def _planted_by_rank(selected: Mask, scores: Floats, signals: Signals, share: float) -> Split:
        """Judge planted rows, who learned another label, by the rank of their scores."""
        clean, rows = selected.copy(), signals.probe_rows
        if rows is not None:
            others = np.delete(np.arange(len(scores)), rows)
            clean[rows] = scores[rows] >= np.quantile(scores[others], 1.0 - selected[others].mean())
        return Split(clean, None, None, 1.0 - share)

    # Rows that arrive later have no past.

    def _yardstick(self, probs: NDArray[Any], learned: NDArray[np.int64]) -> Floats:
        """Margins, ascending."""
        return np.sort(log_margin(probs, learned))

    def _score_new(
        self, fitted: Trained, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> NDArray[np.float64]:
        margins = log_margin(signals.require("probs")[0], codes)
        known: Floats = fitted.yardstick
        middle = (np.arange(len(known)) + 0.5) / len(known)
        return np.asarray(np.quantile(self.scores_, np.interp(margins, known, middle)))

    # -- checks -----------------------------------------------------------------------------------

    def _check_numbers(self) -> None:
        check_at_least_1(self, "n_neighbors")
        check_number(
            "window", self.window, Integral, "a whole number of at least 2", lambda value: value >= 2
        )
        if self.warm_up is not None:
            check_at_least_1(self, "warm_up")
        check_drops(self)
        for name in ("weight", "most_unstable"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), Real, "in [0, 1]", lambda value: 0 <= value <= 1)
        for name in ("peer", "balance"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise ParameterError(f"{name} must be True or False, got {getattr(self, name)!r}.")

    def _check_split(self) -> None:
        super()._check_split()
        if self.split in ("beta", "gaussian") and self.row_score == "combined":
            raise ParameterError(
                f"row_score must not be 'combined' with split={self.split!r}: ranks are evenly spread, and "
                "no mixture divides them."
            )


def _warn_of_few(n_epochs: int) -> None:
    warnings.warn(
        f"There must be at least 3 recorded epochs for a variation, got {n_epochs}; the loss stands in.",
        UserWarning,
        stacklevel=2,
    )


def _ranks(scores: Floats) -> Floats:
    """Ranks in (0, 1), mean ranks for ties."""
    return np.asarray((rankdata(scores) - 0.5) / len(scores))


def _combined(
    variation: Floats, small_loss: Floats, weight: float | None, planted: NDArray[Any] | None
) -> Floats:
    """Weighted mean of two ranks, with the weight that ranks planted rows lowest unless one is given.

    Weight is given to the variation only if that gains more than two standard errors on the small loss, which
    was the better part wherever it was measured: chance would choose worse, all the more with few rows.
    """
    if weight is None:
        weight = _UNKNOWN_WEIGHT if planted is None or not len(planted) else None
    if weight is not None:
        return weight * variation + (1.0 - weight) * small_loss
    mixed = [w * variation + (1.0 - w) * small_loss for w in _WEIGHTS]
    ranks = np.stack([_ranks(scores)[planted] for scores in mixed])  # (weights, m)
    gains = ranks[0] - ranks
    mean = gains.mean(axis=1)
    sure = mean * np.sqrt(ranks.shape[1] - 1) > 2.0 * gains.std(axis=1)
    return mixed[int(np.argmax(np.where(sure, mean, 0.0)))]


def _small_losses(losses: NDArray[Any], share: float) -> Mask:
    """G_l, the component of small losses of a Gaussian mixture; the lowest share where there are not two."""
    scores = -np.asarray(losses, dtype=np.float64)
    split, distance = mixture_with_separation(scores, "gaussian")
    return split.clean if distance >= 1.0 else lowest(round(share * len(scores)), -scores)
