"""UNICON: as many labels of each class are believed, and the other rows are told apart without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from noisefilter.augment import strong_views
from noisefilter.balance import supplement
from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.budgets import LEAST_EPOCHS
from noisefilter.cotraining import CoTraining, Division
from noisefilter.errors import ParameterError
from noisefilter.net import derived_seed
from noisefilter.networks import PreActResNet18
from noisefilter.pretrain import Contrast
from noisefilter.progress import Progress
from noisefilter.scores import js_likelihood
from noisefilter.states import behind, named
from noisefilter.trained import check_positive
from noisefilter.trainers.dividemix import DivideMixClassifier, _DivideMix
from noisefilter.verdict import Verdict

__all__ = ["UNICONClassifier"]

_BELIEVED = 0.5  # nats: labels nearer to the prediction than this are believed entirely
_MOST_UNLABELED = 5.0  # rows of a step for each labeled one
_CONTRAST = "contrast_{}."  # in front of the names of tensors in a checkpoint


class UNICONClassifier(DivideMixClassifier):
    r"""Trains two networks on as many labels of each class, and by contrast on what they do not believe.

    After a warm-up on all rows, every epoch begins with a division that both networks share. The distance
    :math:`d_i` of a label from what both predict together is the Jensen-Shannon divergence; the share
    :math:`R` of rows that are nearer than the mean is how many labels are believed, and of each class they
    are the :math:`R n / K` nearest, so that no class is left out because it is hard. What follows is
    DivideMix's MixMatch, in which targets are made of weak views and learned on strong ones; beside it, the
    networks learn to tell unlabeled rows apart (SimCLR), which needs no guesses.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of both networks, cloned; it gives network, optimizer, epochs and batches, while the
        training is UNICON's own. Subclasses other than :class:`noisefilter.Net`, and classifiers that are
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
        Share, in [0, 1], of the labels that are right by the estimated noise rate. If :math:`R` is less, so
        many labels are believed. Default: as in :class:`noisefilter.DivideMixClassifier`.
    unlabeled_share : float, default=0.5
        A step has this many times :math:`1 / R` unlabeled rows for each labeled one, but at most 5, which
        bounds its memory; greater than 0.
    strong_views : bool, default=True
        Learn on strong views of images (:class:`noisefilter.augment.StrongViews`), as published. ``False``
        learns on views of the same kind as targets are made of, which is right where mirror images are not
        of the same class. Rows that are no images have none.
    contrast_weight : float, default=0.025
        :math:`\lambda_C`, the weight of the contrastive loss, at least 0.
    contrast_temperature : float, default=0.05
        Its temperature; lower makes the most similar rows count more.
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
        Weight of what keeps the mean prediction near uniform.
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
    The division, of every epoch: :math:`d_i = \mathrm{JSD}(\frac12 (p_i^A + p_i^B), y_i)` in nats, so at most
    0.693; :math:`R` is the share of :math:`d_i` below their mean; a label that is believed weighs
    :math:`w_i = 1` in co-refinement where :math:`d_i < 0.5`, else :math:`1 - d_i`. A class that has fewer
    rows than its share is believed entirely: where classes differ much in size, take
    :class:`noisefilter.DivideMixClassifier` with ``penalty=0``. ``history_`` has :math:`R` as ``clean_share``
    and the contrastive loss.

    Cost: that of :class:`noisefilter.DivideMixClassifier`, with :math:`1 / 2R` times as many unlabeled rows,
    of which each goes forward and backward twice more; strong views of images take as long as a small network
    does on a CPU.

    On rows that are no images the contrast is between two passes of a row through the network's own dropout
    and noise.

    The verdict is made as in :class:`noisefilter.DivideMixClassifier`.

    Of the authors' code are not taken over: the threshold of 0.7 on a divergence that cannot exceed 0.693,
    with a correction behind it that could never act; row 0 in place of rows that a class does not have; a
    second division of the epoch by a network that is still in training mode.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: a warm-up with
    planted labels, which ends, and goes back, when they are learned, with the confidence penalty; a least
    number of labels; the weight of guesses by the noise; milder mixtures; moving averages of the weights; a
    ramp that counts steps; the small networks. Others that stay: the division is the same for both networks
    of an epoch, where the authors divide again when the first has learned; strong views are operations of
    RandAugment and a square cut out, where the authors have a crop and AutoAugment's policies; no more than
    five unlabeled rows for a labeled one; the learning rate falls in steps, not along a cosine; guesses in
    evaluation mode, floors for both sets, no division that turns most rows over, and no guesses where they
    are bad and epochs few, as in DivideMix.

    References
    ----------
    N. Karim, M. N. Rizve, N. Rahnavard, A. Mian and M. Shah, "UNICON: combating label noise through uniform
    selection and contrastive learning", CVPR 2022, arXiv:2203.14542.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import UNICONClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = UNICONClassifier(random_state=0).fit(X, y)
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
        least_labeled: float | None = None,
        unlabeled_share: float = 0.5,
        strong_views: bool = True,
        contrast_weight: float = 0.025,
        contrast_temperature: float = 0.05,
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
            least_labeled=least_labeled, unlabeled_weight=unlabeled_weight, ramp_steps=ramp_steps,
            temperature=temperature, mixup_alpha=mixup_alpha, penalty=penalty, weight_average=weight_average,
            filter=filter, split_epochs=split_epochs, checkpoint_dir=checkpoint_dir, channels=channels,
            device=device, verbose=verbose, random_state=random_state,
        )  # fmt: skip
        self.unlabeled_share = unlabeled_share
        self.strong_views = strong_views
        self.contrast_weight = contrast_weight
        self.contrast_temperature = contrast_temperature

    @classmethod
    def as_published(cls, **changes: Any) -> UNICONClassifier:
        """Return a trainer with the authors' settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images. At 90 % symmetric noise their numbers need ``unlabeled_share=1.0``; asymmetric noise
        also has ``confidence_penalty=True``, and on CIFAR-100 the warm-up has 30 epochs.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 350, "batch_size": 128, "lr": 0.02, "lr_drops": (0.5,),
            "lr_drop_factor": 10.0, "warmup_epochs": 10, "least_epochs": 0, "least_labeled": 0.0,
            "confidence_penalty": False, "mixup_alpha": 4.0, "probes": 0.0, "unlabeled_weight": 30.0,
            "unlabeled_share": 0.5, "strong_views": True, "contrast_weight": 0.025,
            "contrast_temperature": 0.05, "ramp_steps": 6_250, "weight_average": None,
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
        return self._co_trained(_UNICON, rows, codes, n_classes, given, rng)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_positive(self, "unlabeled_share", "contrast_temperature")
        rule = "at least 0 and finite"
        check_number("contrast_weight", self.contrast_weight, Real, rule, lambda value: 0 <= value < np.inf)
        if not isinstance(self.strong_views, bool | np.bool_):
            raise ParameterError(f"strong_views must be True or False, got {self.strong_views!r}.")


class _UNICON(_DivideMix):
    """Uniform selection, and contrast beside MixMatch."""

    _of_epoch: ClassVar[tuple[str, ...]] = ("divergence",)

    def __init__(self, *args: Any, trainer: UNICONClassifier, **settings: Any):
        super().__init__(*args, trainer=trainer, **settings)
        self.unlabeled_share = trainer.unlabeled_share
        self.divergence = np.zeros(len(self.rows), dtype=np.float32)  # d
        images = len(self.rows.shape) == 3
        self.views = strong_views(self.rows) if trainer.strong_views and images else None
        self.contrasts = tuple(
            Contrast(
                net, self.rows, weight=trainer.contrast_weight, temperature=trainer.contrast_temperature,
                seed=derived_seed(net.seed_, 0),
            )
            for net in self.nets
            if trainer.contrast_weight > 0
        )  # fmt: skip
        self._learns_beside = bool(self.contrasts)

    def _note(self, both: list[NDArray[Any]]) -> None:
        super()._note(both)
        likelihood = js_likelihood((both[0] + both[1]) / 2.0, self.codes, 0.0)
        self.divergence = (math.log(2.0) * (1.0 - likelihood)).astype(np.float32)

    def clean_share(self) -> float:
        """Return R: the share of rows below the mean divergence, or the least, or what a verdict believes."""
        held = self._held_verdict()
        if held is not None:
            return float(held.clean_mask.mean())
        nearer = np.mean(self.divergence < self.divergence.mean(dtype=np.float64))
        return float(max(nearer, self._least_share()))

    def unlabeled_ratio(self) -> float:
        """Return how many unlabeled rows a step has for each labeled one: more where fewer are believed."""
        return min(_MOST_UNLABELED, self.unlabeled_share / max(self.clean_share(), 1.0 / len(self.codes)))

    def divided(self, which: int) -> Division:
        """Return the division by the verdict given, while it is held, or as many labels of each class."""
        if self._held_verdict() is not None:
            return super().divided(which)
        per_class = round(self.clean_share() * len(self.codes) / self.n_classes)
        nobody = np.zeros(len(self.codes), dtype=bool)
        selected = supplement(self.codes, nobody, ~nobody, self.divergence, per_class)
        distance = self.divergence.astype(np.float64)
        proba = np.where(distance < _BELIEVED, 1.0, 1.0 - distance)
        return Division(proba, self._floored(np.where(selected, 1.0 + proba, proba / 2.0), 0.5))

    def _learn_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        share = self.clean_share()
        record = super()._learn_epoch(epoch, bar)
        found = [each.mean_loss() for each in self.contrasts]
        known = [each for each in found if each is not None]
        told = {"contrast_loss": float(np.mean(known)) if known else None} if found else {}
        return record | {"clean_share": share} | told

    def learning(self, which: int) -> dict[str, Any]:
        """Return the strong views, and the contrast of a network, as an epoch of MixMatch takes them."""
        beside = None
        if self.contrasts:
            beside = self.contrasts[which]
            beside.begin(float(self.nets[which]._parameter_groups()[0]["lr"]))
        return {"learned_views": self.views, "beside": beside}

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return all that the epochs to come and the verdict depend on."""
        tensors, rest = super().state()
        for which, contrast in enumerate(self.contrasts):
            found, rest[f"contrast_{which}"] = contrast.state()
            tensors |= named(_CONTRAST.format(which), found)
        return tensors, rest

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        super().load_state(tensors, rest)
        for which, contrast in enumerate(self.contrasts):
            contrast.load_state(behind(_CONTRAST.format(which), tensors), rest[f"contrast_{which}"])

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        super().release()
        del self.contrasts, self.divergence, self.views
