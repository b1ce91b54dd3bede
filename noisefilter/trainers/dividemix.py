"""DivideMix: two networks that tell each other which labels to believe, and learn the rest by MixMatch."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter import splits
from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.budgets import LEAST_EPOCHS, LEAST_STEPS, Budget
from noisefilter.cotraining import CoTraining, Division
from noisefilter.errors import ParameterError
from noisefilter.mixtures import mixture_with_separation
from noisefilter.networks import PreActResNet18
from noisefilter.semisupervised import floored
from noisefilter.trained import check_drops, log_odds, planted_before
from noisefilter.trainer import BaseTrainer
from noisefilter.twonets import CoTrained, longest_warmup, two_nets
from noisefilter.verdict import Verdict
from noisefilter.weights import Place

__all__ = ["DivideMixClassifier"]

_RAMP_STEPS = 8_000
_HEAVY, _HEAVY_EPOCHS = 0.85, 5  # from this published rate on, losses of so many epochs are averaged
_PUBLISHED_CLASSES, _MANY_CLASSES = 10, 20
_MEMORIZED_LEAST = 0.8


class DivideMixClassifier(BaseTrainer):
    r"""Trains two networks, each on the labels that the other believes, and lets them guess the others.

    After a warm-up on all rows, every epoch begins with a division: a mixture of two Gaussians is fitted to
    the losses of a network, and a label is believed with the probability :math:`w_i` that its loss belongs to
    the lower one. Each network then learns from the other's division by MixMatch: labels with
    :math:`w_i` above `clean_threshold` are refined, :math:`w_i y_i + (1 - w_i) p_i`, the rest are guessed by
    both networks together, and all are mixed.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of both networks, cloned; it gives network, optimizer, epochs and batches, while the
        training is DivideMix's own. Subclasses other than :class:`noisefilter.Net`, and classifiers that are
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
    warmup_epochs : int, optional
        At most, where there are `probes`. Default: as many as 1,500 steps take, at least 10, but no more than
        two thirds of the epochs.
    least_epochs : int, default=15
        Fewest epochs after a warm-up, if they make fewer than 3,000 steps, in which guesses are tried where,
        by the planted labels, the networks know none by heart and fewer than 80 % of the guesses are right.
        With fewer there is a warning, and the warm-up goes on to the end on the labels believed. 0 is always
        to try.
    probes : float, optional
        Share of rows, drawn at random, that the warm-up trains under a wrong label; in [0, 0.5]. They show
        how many wrong labels there are, and when these begin to be learned by heart. That ends the warm-up,
        and both networks go back to what they were after about half of it. Default: 4 %, up to 200 rows where
        that is no more than a tenth, and at most 2,000 rows. Where a filter has judged before there are none.
    confidence_penalty : bool, default=True
        Add the negative entropy of the predictions to the loss of the warm-up, so that networks are not too
        sure of wrong labels. Published for asymmetric noise; here it is there for all noise, whose kind is
        not known before.
    clean_threshold : float, default=0.5
        A label is believed if :math:`w_i` is greater; in [0, 1].
    least_labeled : float, optional
        Share, in [0, 1], of the labels that are right by the estimated noise rate. If the mixture believes
        fewer, so many are believed, those of smallest loss, with :math:`w_i` the probability of the label
        scaled to be so large on average: in a short training the hills of the losses overlap, and the lower
        one alone leaves too few rows to learn from. Default: all of them where the networks have seen planted
        labels and learned none by heart, otherwise four fifths.
    loss_epochs : int, optional
        Of how many last epochs since the warm-up losses are averaged for a division. Default: 1, and 5 where
        the estimated noise is as heavy as 85 % symmetric noise.
    unlabeled_weight : "auto" or float, default="auto"
        :math:`\lambda_u`, at least 0. ``"auto"`` goes by the noise rate estimated after the warm-up, or by
        the filter before; what was chosen is in ``history_``, and how in Notes.
    ramp_steps : int, default=8000
        Steps after the warm-up in which it rises from 0.
    temperature : float, default=0.5
        Below 1 it sharpens guesses.
    mixup_alpha : float, default=0.5
        Parameter of the Beta distribution that mixtures are weighted by; large values mix rows half and half.
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
    Cost: after the warm-up an epoch takes, per labeled row and network, four passes forward and backward and
    six forward; and one forward per row and network for the next division. While a warm-up with planted
    labels lasts up to three earlier states are kept, in checkpoints, too: weights and momentum of both
    networks, and (n, K) probabilities.

    ``unlabeled_weight="auto"`` follows the presets that the authors used: with up to 20 classes 0 up to a
    noise rate of 0.3, 25 up to 0.85, else 50, and with fewer than their 10 classes K / 10 of that; with more
    classes 25 up to 0.3, else 150. Published rates count draws from all K classes, of which one in K is right
    by chance; so the estimated share of wrong labels is multiplied by K / (K - 1) before it is compared.

    Where more than half of the rows change sides from one division to the next, the one in use before is kept
    for that epoch. ``history_`` has how many change, ``changed_1`` in what the first network learns from,
    and how many of both divisions were refused so.

    Where a division believes every label, or there is no time for guesses (`least_epochs`), an epoch is
    supervised alone, and ``history_`` calls it so. The last epoch of the warm-up has ``estimated_rate``, the
    share of wrong labels, and ``guessed_right`` (:func:`noisefilter.estimates.guessed_right`). The rate is
    estimated by two constants that were read off :class:`noisefilter.INNScorer`'s probabilities. Without
    guesses there is no moving average of the weights, and the verdict is made of all epochs.

    The verdict does not follow the last division, which on clean data divides all the same. Its scores are
    corrected log-odds of the given label (:func:`noisefilter.estimates.corrected_log_odds`) in the
    predictions of both networks, half of them of the warm-up, half the mean of all epochs after it. (Where
    networks memorize, AUC rose so by 0.01 to 0.05 over predictions of the last epochs, in all three kinds of
    noise.) It flags as many as the networks contradicted beyond their doubt, and the planted labels said, at
    the end of the warm-up, or as the filter before said; or more, if later so many more labels are
    contradicted than doubted.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: a warm-up with
    planted labels, which ends, and goes back, when they are learned; the confidence penalty for all noise,
    with probabilities read without it (:func:`noisefilter.scores.unpenalized`); milder mixtures; a ramp that
    counts steps; moving averages of the weights; guesses in evaluation mode; floors for both sets
    (:func:`noisefilter.semisupervised.floored`), a least number of labels, no division that turns most rows
    over, and no guesses where they are bad and epochs few; a mixture that is fitted to the end, and where it
    finds no two hills (Ashman's D < 1) a division by the rank of the losses at the estimated rate; the small
    networks. Others that stay: Nesterov momentum, and a ramp of 6,250 steps, which are 16 epochs on CIFAR
    with half of the rows labeled.

    References
    ----------
    J. Li, R. Socher and S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR
    2020, arXiv:2002.07394.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import DivideMixClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = DivideMixClassifier(random_state=0).fit(X, y)
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
        warmup_epochs: int | None = None,
        least_epochs: int = LEAST_EPOCHS,
        probes: float | None = None,
        confidence_penalty: bool = True,
        clean_threshold: float = 0.5,
        least_labeled: float | None = None,
        loss_epochs: int | None = None,
        unlabeled_weight: Any = "auto",
        ramp_steps: int = _RAMP_STEPS,
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
        self.estimator = estimator
        self.network = network
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_drops = lr_drops
        self.lr_drop_factor = lr_drop_factor
        self.warmup_epochs = warmup_epochs
        self.least_epochs = least_epochs
        self.probes = probes
        self.confidence_penalty = confidence_penalty
        self.clean_threshold = clean_threshold
        self.least_labeled = least_labeled
        self.loss_epochs = loss_epochs
        self.unlabeled_weight = unlabeled_weight
        self.ramp_steps = ramp_steps
        self.temperature = temperature
        self.mixup_alpha = mixup_alpha
        self.penalty = penalty
        self.weight_average = weight_average
        self.filter = filter
        self.split_epochs = split_epochs
        self.checkpoint_dir = checkpoint_dir
        self.channels = channels
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> DivideMixClassifier:
        """Return a trainer with the paper's settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images. ``unlabeled_weight`` and ``clean_threshold`` were chosen for each noise: 0 for 20 %
        symmetric and 40 % asymmetric, 25 for 50 % and 80 %, 50 with a threshold of 0.6 and ``loss_epochs=5``
        for 90 %; asymmetric noise also has ``confidence_penalty=True``, which is False here. On CIFAR-100 the
        warm-up has 30 epochs, and the weight is 25 for 20 %, else 150.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 300, "batch_size": 128, "lr": 0.02, "lr_drops": (0.5,),
            "lr_drop_factor": 10.0, "warmup_epochs": 10, "least_epochs": 0, "least_labeled": 0.0,
            "loss_epochs": 1, "confidence_penalty": False, "mixup_alpha": 4.0, "probes": 0.0,
            "unlabeled_weight": 25.0, "ramp_steps": 6_250, "weight_average": None,
        }  # fmt: skip
        return cls(**(published | changes))

    @property
    def labeled_(self) -> NDArray[np.bool_]:
        """Rows that each network was trained on under their label in the last epoch, (2, n).

        Nothing but zeros where the training ended in its warm-up.
        """
        if "_fitted" not in vars(self):
            raise AttributeError("labeled_ is there after fit only.")
        training: Any = self._fitted.training
        labeled: NDArray[np.bool_] = training.labeled
        return labeled

    def _begin(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        features: NDArray[Any] | None,
        rng: np.random.RandomState,
    ) -> CoTraining:
        return self._co_trained(_DivideMix, rows, codes, n_classes, given, rng)

    def _co_trained(
        self,
        kind: type[_DivideMix],
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        rng: np.random.RandomState,
        **own: Any,
    ) -> CoTraining:
        """Return a training of that kind; `own` are arguments that it has beyond those of DivideMix."""
        settings = {
            "max_epochs": 60 if self.max_epochs is None and self.estimator is None else self.max_epochs,
            "batch_size": self.batch_size, "lr": self.lr, "verbose": 0,
        }  # fmt: skip
        training: dict[str, Any] = {
            "objective": "cross_entropy_ne" if self.confidence_penalty else "cross_entropy"
        }
        if self.lr_drops is not None:
            training |= {"lr_drops": tuple(self.lr_drops), "lr_drop_factor": self.lr_drop_factor}
        nets = two_nets(self.estimator, self.network, rows, n_classes, settings, training, rng)
        probe_rows, probe_codes = planted_before(self.probes, codes, n_classes, given is not None, rng)
        return kind(
            nets, rows, codes, n_classes, warmup_epochs=self._n_warmup(nets[0], len(rows)),
            warmup_rows=None if given is None else given.clean_mask, temperature=self.temperature,
            mixup_alpha=self.mixup_alpha, penalty=self.penalty, ramp_steps=self.ramp_steps,
            weight_average=self.weight_average, probe_rows=probe_rows, probe_codes=probe_codes,
            loss_epochs=max(_HEAVY_EPOCHS, self.loss_epochs or 1),
            budget=Budget(self.least_epochs, LEAST_STEPS), given=given, trainer=self, **own,
        )  # fmt: skip

    def _n_warmup(self, net: Any, n: int) -> int:
        if self.warmup_epochs is not None:
            return min(self.warmup_epochs, net.max_epochs)
        return longest_warmup(net, n)

    def _answering(self, tensors: Mapping[str, Any], rest: Mapping[str, Any], place: Place) -> CoTrained:
        return CoTrained.from_answers(tensors, rest, len(self.verdict_), place)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_mixmatch(self)
        check_drops(self)
        if not isinstance(self.confidence_penalty, bool | np.bool_):
            raise ParameterError(
                f"confidence_penalty must be True or False, got {self.confidence_penalty!r}."
            )


def check_mixmatch(trainer: Any) -> None:
    """Raise ParameterError unless a trainer's parameters of warm-up, division and MixMatch can be."""
    positive = ("greater than 0 and finite", lambda value: 0 < value < np.inf)
    least = ("at least 0 and finite", lambda value: 0 <= value < np.inf)
    for name, kind, rule, holds in (
        ("warmup_epochs", Integral, "a whole number of at least 1", lambda value: value >= 1),
        ("probes", Real, "in [0, 0.5]", lambda value: 0 <= value <= 0.5),
        ("clean_threshold", Real, "in [0, 1]", lambda value: 0 <= value <= 1),
        ("least_labeled", Real, "in [0, 1]", lambda value: 0 <= value <= 1),
        ("loss_epochs", Integral, "a whole number of at least 1", lambda value: value >= 1),
        ("ramp_steps", Integral, "a whole number of at least 0", lambda value: value >= 0),
        ("temperature", Real, *positive),
        ("mixup_alpha", Real, *positive),
        ("penalty", Real, *least),
        ("weight_average", Real, "in [0, 1) or None", lambda value: 0 <= value < 1),
    ):
        if getattr(trainer, name, None) is not None:
            check_number(name, getattr(trainer, name), kind, rule, holds)
    if trainer.unlabeled_weight != "auto":
        check_number("unlabeled_weight", trainer.unlabeled_weight, Real, f"'auto' or {least[0]}", least[1])


def preset_weight(noise_rate: float, n_classes: int) -> float:
    """Return the weight of guesses that DivideMix's authors used for such a share of wrong labels.

    With fewer than their ten classes it is smaller in proportion: it weighs squared differences, a mean over
    classes.
    """
    published = as_published_rate(noise_rate, n_classes)
    if n_classes > _MANY_CLASSES:
        return 25.0 if published <= 0.3 else 150.0
    weight = 0.0 if published <= 0.3 else 25.0 if published <= _HEAVY else 50.0
    return weight * min(1.0, n_classes / _PUBLISHED_CLASSES)


def as_published_rate(noise_rate: float, n_classes: int) -> float:
    """Return the rate of symmetric noise, with labels drawn from all classes, that makes so many wrong."""
    return noise_rate * n_classes / (n_classes - 1)


class _DivideMix(CoTraining):
    """Co-division by losses."""

    def __init__(self, *args: Any, given: Verdict | None, trainer: DivideMixClassifier, **settings: Any):
        super().__init__(*args, **settings)
        self.given = given
        self.clean_threshold = trainer.clean_threshold
        self.wanted_weight = trainer.unlabeled_weight
        self.wanted_epochs = trainer.loss_epochs
        self.least_labeled = trainer.least_labeled
        free = self.n_epochs - self.warmup_epochs
        self.held = free // 3 if trainer.split_epochs is None else trainer.split_epochs

    def _estimated_rate(self) -> float:
        if self.given is not None and np.isfinite(self.given.estimated_noise_rate):
            return float(self.given.estimated_noise_rate)
        return super()._estimated_rate()

    def divided(self, which: int) -> Division:
        """Return the division by the verdict given, while it is held, or by the losses."""
        given = self._held_verdict()
        if given is not None:
            clean, proba = given.clean_mask, given.clean_proba
            proba = clean.astype(np.float64) if proba is None else np.where(clean, proba, 0.0)
            return Division(proba, self._floored(np.where(clean, np.maximum(proba, 0.5), 0.0), 0.25))
        return self._by_losses(which)

    def _by_losses(self, which: int) -> Division:
        """Return the division by a mixture of two Gaussians, or by rank where that believes too few."""
        proba = self._clean_proba(which)
        least = self._least_share()
        if np.mean(proba > self.clean_threshold) >= least:
            return Division(proba, self._floored(proba, self.clean_threshold))
        # The hills overlap: the lower one alone holds fewer labels than are right.
        ranked = splits.at_rate(log_odds(np.exp(-self._last_losses(which).mean(axis=0))), 1.0 - least)
        assert ranked.clean_proba is not None  # at_rate has them always
        return Division(ranked.clean_proba, ranked.clean | self._floored(ranked.clean_proba, 1.0))

    def _least_share(self) -> float:
        """Return the share of rows that are labeled at least."""
        share = self.least_labeled
        if share is None:
            share = 1.0 if self.by_heart is False else _MEMORIZED_LEAST
        return share * (1.0 - (self.rate or 0.0))

    def _held_verdict(self) -> Verdict | None:
        """Return the verdict to start from, as long as it is held."""
        return self.given if self.n_epochs_seen < self.warmup_epochs + self.held else None

    def _clean_proba(self, which: int) -> NDArray[np.float64]:
        """Return the probability that a label's loss is one of the small ones."""
        losses = self._last_losses(which)
        low, high = losses.min(axis=1, keepdims=True), losses.max(axis=1, keepdims=True)
        scores = -((losses - low) / np.maximum(high - low, 1e-8)).mean(axis=0)
        split, distance = mixture_with_separation(scores, "gaussian")
        if split.clean_proba is None or distance < 1.0:  # one hill: only their order says something
            return splits.at_rate(scores, self.rate or 0.0).clean.astype(np.float64)
        return split.clean_proba

    def _last_losses(self, which: int) -> NDArray[np.float64]:
        """Return the losses that a division reads, (epochs, n), none of the warm-up but its last."""
        wanted = self.wanted_epochs
        if wanted is None:
            heavy = as_published_rate(self.rate or 0.0, self.n_classes) >= _HEAVY
            wanted = _HEAVY_EPOCHS if heavy else 1
        seen = max(1, min(wanted, self.n_epochs_seen - self.warmup_epochs + 1))
        return self.losses[which, -seen:].astype(np.float64)

    def _floored(self, proba: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
        return floored(proba, self.codes, self.n_classes, threshold, self._labeled_batch(self.nets[0]))

    def unlabeled_weight(self) -> float:
        """Return the weight asked for, or that of the preset for the estimated noise rate."""
        if self.wanted_weight != "auto":
            return float(self.wanted_weight)
        return preset_weight(self.rate or 0.0, self.n_classes)

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        super().release()
        self.given = None
