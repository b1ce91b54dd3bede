"""INN + DivideMix: the networks divide the rows by predictions along paths to neighbors, not by losses."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from noisefilter import estimates, scores, splits
from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.budgets import LEAST_EPOCHS, LEAST_STEPS, Budget
from noisefilter.cotraining import CoTraining, Division
from noisefilter.errors import ParameterError
from noisefilter.filters.inn import INNScorer
from noisefilter.mixtures import mixture_with_separation
from noisefilter.models import LR_DROPS, NetModel
from noisefilter.neighbors import nearest
from noisefilter.networks import PreActResNet18
from noisefilter.paths import mean_path_probs
from noisefilter.progress import Progress
from noisefilter.semisupervised import floored
from noisefilter.trained import check_drops, evaluated, learned_codes
from noisefilter.trainer import BaseTrainer
from noisefilter.trainers.dividemix import check_mixmatch, preset_weight
from noisefilter.twonets import CoTrained, given_rate, two_nets
from noisefilter.verdict import Verdict
from noisefilter.weights import Place

__all__ = ["INNDivideMixClassifier"]

# At 300 epochs, the published number, these shares are the published 30 and 9.
_WARMUP_SHARE, _LONGEST_WARMUP = 6, 30
_ROUND_SHARE, _LONGEST_ROUND = 12, 9
_LONGEST_SCORING = 30
_LEAST_EPOCHS, _LEAST_STEPS = 3 * LEAST_EPOCHS, 3 * LEAST_STEPS  # the networks are fresh ones
_SCORING = ("objective", "feature_network", "n_neighbors", "quadrature", "n_interior", "probes", "verbose")


class INNDivideMixClassifier(BaseTrainer):
    r"""DivideMix that believes a label if the networks keep to it on the way to the nearest rows.

    Small losses tell wrong labels before a network has learned them; the score of INN, Eq. (1),

    .. math:: s_i = \frac1L \sum_{l=1}^{L} \int_0^1 f_{y_i}(a x_i + (1-a) x_l)\,da,

    tells them longer, and where most labels are wrong. Two networks are trained on all rows to score them,
    and a mixture of two Beta distributions is fitted to the scores of each: a label is believed with the
    probability :math:`w_i` that its score belongs to the higher one. Two fresh networks then learn by
    MixMatch, each from the other's division: at first from believed labels as they are and its own guesses
    of the rest, later as in :class:`noisefilter.DivideMixClassifier`, with refined labels and guesses of
    both. Every few epochs they score all rows themselves, by their own predictions and features, and divide
    them anew.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype of all networks, cloned; it gives network, optimizer, epochs and batches, while the training
        is INN + DivideMix's own. Subclasses other than :class:`noisefilter.Net`, and classifiers that are no
        networks, cannot be trained so. ``None`` chooses a network for the shape of ``X``.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name.
    max_epochs : int, optional
        Of MixMatch, :math:`T_1 + T_2 T_3`; the networks that score first are trained before. Default 60.
    batch_size : int, optional
        Of the networks that score first. Half of it are the labeled rows of a step of MixMatch, which also
        looks at as many unlabeled ones, at each twice. Default 128, fewer below 2,048 rows.
    lr : float, optional
        Learning rate of SGD with Nesterov momentum 0.9, divided by 5 at half and at three quarters of the
        epochs. Default 0.05.
    lr_drops : tuple of float, optional
        Shares of MixMatch's epochs, in (0, 1), after which the learning rate of the default network is
        divided, if not as above.
    lr_drop_factor : float, default=5.0
        What it is divided by.
    scoring_epochs : int, optional
        Of each of the networks that score first; at most, where there are `probes`, as in
        :class:`noisefilter.INNScorer`. Default: as ``max_epochs``, at most 30.
    warmup_epochs : int, optional
        :math:`T_1`, epochs with the first division, in which each network guesses alone. Default: a sixth of
        the epochs, at most 30.
    least_epochs : int, default=45
        Fewest epochs, if they make fewer than 9,000 steps, in which guesses are tried where, by the planted
        labels, the networks that score first know none by heart and fewer than 80 % of their guesses are
        right. With fewer there is a warning, and both networks are trained plainly on as many labels as are
        right by the estimated rate, those of the best corrected log-odds. 0 is always to try.
    rescore_every : int, optional
        :math:`T_3`, epochs after the warm-up from one scoring to the next. Default: a twelfth of the epochs,
        at most 9.
    objective : {"cross_entropy", "mixup"}, default="cross_entropy"
        What the networks that score first are trained by. The paper's is mixup.
    feature_network : {"f", "own"}, default="f"
        Whether they find the neighbors themselves, at half the cost, or a second network beside each, trained
        by cross-entropy, as in the paper. Later every network finds its own.
    n_neighbors : int, default=10
        L; clipped to n - 1 with a warning.
    quadrature : {"gauss", "trapezoid", "simpson"}, default="gauss"
        Rule for the integral.
    n_interior : int, default=2
        Evaluations inside each path. The paper's ten trapezoids are nine.
    probes : float, optional
        Share of rows, drawn at random, that the networks that score first learn under a wrong label; in [0,
        0.5]. They show how many labels are wrong, and are divided by the rank of their scores. Default: 4 %,
        up to 200 rows where that is no more than a tenth, and at most 2,000 rows. Where a filter has judged
        before there are none.
    clean_threshold : float, default=0.5
        A label is believed if :math:`w_i` is greater; in [0, 1].
    unlabeled_weight : "auto" or float, default="auto"
        :math:`\lambda_u`, at least 0. ``"auto"`` goes by the noise rate estimated with the first scores, or
        by the filter before, as in :class:`noisefilter.DivideMixClassifier`.
    ramp_steps : int, default=8000
        Steps in which it rises from 0.
    temperature : float, default=0.5
        Below 1 it sharpens guesses.
    mixup_alpha : float, default=0.5
        Parameter of the Beta distribution that MixMatch's mixtures are weighted by.
    penalty : float, default=1.0
        Weight of what keeps the mean prediction near uniform. 0 where classes differ much in size.
    weight_average : float or None, default=0.999
        Networks score and predict with a moving average of their weights, of this decay; in [0, 1). ``None``
        is the networks themselves, as published.
    filter : estimator, optional
        A filter whose verdict is the first division, instead of networks that score first. Behind a filter in
        a Pipeline this happens by itself.
    split_epochs : int, optional
        How many epochs that division is held, instead of ``warmup_epochs``.
    checkpoint_dir : path, optional
        Every epoch ends here, and a fit that was stopped goes on from here. The scoring before is over with
        the first epoch.
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
    Cost: two trainings of :class:`noisefilter.INNScorer` (four networks with ``feature_network="own"``), the
    epochs of :class:`noisefilter.DivideMixClassifier`, and about ``1 + 0.75 * n_interior * n_neighbors``
    evaluations of every row by each network whenever it scores.

    As in :class:`noisefilter.DivideMixClassifier` a division that turns most rows over is not taken: the one
    in use is kept until the next scoring, and ``history_`` says so.

    ``features=`` given to ``fit`` are the space in which all neighbors are found, once and for all.

    The verdict is made as in :class:`noisefilter.DivideMixClassifier`: corrected log-odds of the given label
    in predictions, half of them those that the first scores are made of, half the mean of both networks over
    all epochs; as many rows are flagged as the first scores said, or the filter before. ``probes=0`` does
    without planted labels, and with networks that memorize then finds hardly a wrong label, though the
    divisions work.

    On 4,000 Fashion-MNIST images of which 72 % carried wrong labels, with networks that memorize
    (``benchmarks/training.py``), it was best early and ended far below
    :class:`noisefilter.DivideMixClassifier`.

    Deviations from Algorithm D.1, undone by :meth:`as_published` where they are parameters: planted labels;
    no guesses where they are bad and epochs few; features of f itself; cross-entropy instead of mixup; two
    Gauss points instead of ten trapezoids; shorter steps; milder mixtures; a ramp that counts steps; moving
    averages of the weights; the small networks. Kept by it: the labels of the first step are refined by
    nobody, but a row that is labeled only because too few are (:func:`noisefilter.semisupervised.floored`)
    counts no more than it is believed; a label with :math:`w_i` of exactly the threshold is not believed, as
    the text has it where the algorithm prints :math:`\ge`; the mixture is fitted to the end, and where it
    finds no two hills (Ashman's D < 1) the rank of the scores divides at the estimated rate; guesses are made
    in evaluation mode; Nesterov momentum.

    References
    ----------
    D. Park, S. Kim and Y. Kim, "INN: a method identifying clean-annotated samples via consistency effect in
    deep neural networks", arXiv:2106.15185, 2021. Eq. (1), appendix D.1 and Algorithm D.1.

    J. Li, R. Socher and S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR
    2020, arXiv:2002.07394.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import INNDivideMixClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = INNDivideMixClassifier(random_state=0).fit(X, y)
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
        scoring_epochs: int | None = None,
        warmup_epochs: int | None = None,
        least_epochs: int = _LEAST_EPOCHS,
        rescore_every: int | None = None,
        objective: str = "cross_entropy",
        feature_network: str = "f",
        n_neighbors: int = 10,
        quadrature: str = "gauss",
        n_interior: int = 2,
        probes: float | None = None,
        clean_threshold: float = 0.5,
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
        self.estimator = estimator
        self.network = network
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.lr_drops = lr_drops
        self.lr_drop_factor = lr_drop_factor
        self.scoring_epochs = scoring_epochs
        self.warmup_epochs = warmup_epochs
        self.least_epochs = least_epochs
        self.rescore_every = rescore_every
        self.objective = objective
        self.feature_network = feature_network
        self.n_neighbors = n_neighbors
        self.quadrature = quadrature
        self.n_interior = n_interior
        self.probes = probes
        self.clean_threshold = clean_threshold
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
    def as_published(cls, **changes: Any) -> INNDivideMixClassifier:
        """Return a trainer with the paper's settings for CIFAR-10 spelled out in its parameters.

        For 32x32 images: T1, T2 and T3 are 30, 30 and 9. The paper says of MixMatch that it is DivideMix's,
        so what belongs to it is that of :meth:`noisefilter.DivideMixClassifier.as_published`, where it says
        which ``unlabeled_weight`` was chosen for each noise. It does not say how long the networks that score
        first are trained, nor the parameter of their mixup: 50 epochs and 1.0, as in
        :meth:`noisefilter.INNScorer.as_published`.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 300, "batch_size": 128, "lr": 0.02, "lr_drops": (0.5,),
            "lr_drop_factor": 10.0, "scoring_epochs": 50, "warmup_epochs": 30, "least_epochs": 0,
            "rescore_every": 9, "objective": "mixup", "feature_network": "own", "n_neighbors": 10,
            "quadrature": "trapezoid", "n_interior": 9, "mixup_alpha": 4.0, "probes": 0.0,
            "unlabeled_weight": 25.0, "ramp_steps": 6_250, "weight_average": None,
        }  # fmt: skip
        return cls(**(published | changes))

    def _scorer(self) -> INNScorer:
        """Return what scores the rows first, still without its networks."""
        own = {name: getattr(self, name) for name in _SCORING}
        # The paper's scores are of paths alone. The mean over the epochs is read where guesses are given up.
        average = self.least_epochs > 0 and self.probes != 0
        return INNScorer(**own, row_score="probability", average=average, split="beta")

    def _begin(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        features: NDArray[Any] | None,
        rng: np.random.RandomState,
    ) -> _INNDivideMix:
        settings = {
            "max_epochs": 60 if self.max_epochs is None and self.estimator is None else self.max_epochs,
            "batch_size": self.batch_size, "lr": self.lr, "verbose": 0,
        }  # fmt: skip
        training: dict[str, Any] = {"objective": "cross_entropy"}
        if self.lr_drops is not None:
            training |= {"lr_drops": tuple(self.lr_drops), "lr_drop_factor": self.lr_drop_factor}
        nets = two_nets(self.estimator, self.network, rows, n_classes, settings, training, rng)
        return _INNDivideMix(
            nets, rows, codes, n_classes, warmup_epochs=0, temperature=self.temperature,
            mixup_alpha=self.mixup_alpha, penalty=self.penalty, ramp_steps=self.ramp_steps,
            weight_average=self.weight_average, budget=Budget(self.least_epochs, _LEAST_STEPS),
            given=given, features=features,
            scorer=self._ready_scorer(nets[0], len(codes), given),
            seeds=rng.randint(2**31 - 1, size=2), trainer=self,
        )  # fmt: skip

    def _ready_scorer(self, net: Any, n: int, given: Verdict | None) -> INNScorer:
        """Return what scores n rows first, by networks like this one."""
        if given is not None and self.probes:
            raise ParameterError(
                f"probes must be None where a filter has judged before, got {self.probes!r}: the rate is "
                "known, and no networks are trained to score first."
            )
        scorer = self._scorer()
        if self.n_neighbors >= n:
            warnings.warn(
                f"n_neighbors must be less than the {n} rows, got {self.n_neighbors}; {n - 1} are used.",
                UserWarning,
                stacklevel=6,
            )
        scorer.n_neighbors = min(int(self.n_neighbors), n - 1)
        if self.probes is None:
            scorer.probes = splits.probe_share(n)
        epochs = self.scoring_epochs or min(net.max_epochs, _LONGEST_SCORING)
        # A prototype of their own seeds would make twins of them.
        scorer.estimator = clone(net).set_params(max_epochs=epochs, random_state=None, verbose=self.verbose)
        if self.lr_drops is not None:  # those of MixMatch
            scorer.estimator.set_params(**LR_DROPS)
        return scorer

    def _answering(self, tensors: Mapping[str, Any], rest: Mapping[str, Any], place: Place) -> CoTrained:
        return CoTrained.from_answers(tensors, rest, len(self.verdict_), place)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_mixmatch(self)
        check_drops(self)
        for name in ("scoring_epochs", "rescore_every"):
            if getattr(self, name) is not None:
                rule = "a whole number of at least 1"
                check_number(name, getattr(self, name), Integral, rule, lambda value: value >= 1)
        self._scorer()._check_parameters()


class _FirstScores(NamedTuple):
    """What INN tells of the rows before MixMatch."""

    scores: NDArray[np.float64]  # Eq. (1)
    rate: float  # of wrong labels, by the same predictions
    blended: NDArray[np.float64]  # corrected log-odds, by these and the mean over the epochs
    blended_rate: float
    known_by_heart: float | None  # of planted labels, where there are such
    guessed_right: float  # share of the guesses
    probs: NDArray[Any]  # (n, K), what the log-odds are of


class _INNDivideMix(CoTraining):
    """One run of Algorithm D.1, lines in comments: no warm-up of its own, divisions that are kept."""

    def __init__(
        self,
        *args: Any,
        given: Verdict | None,
        features: NDArray[Any] | None,
        scorer: INNScorer,
        seeds: NDArray[np.int64],
        trainer: INNDivideMixClassifier,
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        self.given = given
        self.features = features
        self.scorer = scorer
        self.seeds = seeds
        self.clean_threshold = trainer.clean_threshold
        self.wanted_weight = trainer.unlabeled_weight
        first = None if given is None else trainer.split_epochs
        first = trainer.warmup_epochs if first is None else first
        self.first_epochs = _share(self.n_epochs, _WARMUP_SHARE, _LONGEST_WARMUP) if first is None else first
        every = trainer.rescore_every
        self.rescore_every = _share(self.n_epochs, _ROUND_SHARE, _LONGEST_ROUND) if every is None else every

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, Any]:
        """Divide the rows where it is time to, train both networks for an epoch, and look at all rows."""
        found = self._divide_first() if epoch == 0 else {}
        record = super().run_epoch(epoch, bar) | found
        if self.plain:
            return record
        if self._scores_in(epoch):
            bar.step(self._scoring_cost())
        return record | {"phase": "warm-up"} if epoch < self.first_epochs else record

    def cost(self, epoch: int) -> float:
        """Return how long an epoch takes, without the networks that score first: they tell it themselves."""
        scores = self._scores_in(epoch) and not self.plain
        return super().cost(epoch) + (self._scoring_cost() if scores else 0.0)

    def _scoring_cost(self) -> float:
        """Return how long it takes to score all rows by both networks: pairs of neighbors share a path."""
        on_paths = 0.75 * self.scorer.n_interior * self.scorer.n_neighbors
        return self._steps(2 * (1 + on_paths) * len(self.rows))

    def _scores_in(self, epoch: int) -> bool:
        since = epoch - self.first_epochs
        return since >= 0 and since % self.rescore_every == 0

    def divided(self, which: int) -> Division:
        """Return a new division by scores every few epochs, lines 11 to 16, in between that in use."""
        if self._scores_in(self.n_epochs_seen):
            return self._by_scores(self._scored(which))
        assert self.kept is not None
        return self.kept[which]

    def peer_of(self, which: int) -> int:
        """Return the network itself in the first step, whose MixMatch has no peers, then the other."""
        return which if self.n_epochs_seen < self.first_epochs else 1 - which

    def unlabeled_weight(self) -> float:
        """Return the weight asked for, or that of the preset for the estimated noise rate."""
        if self.wanted_weight != "auto":
            return float(self.wanted_weight)
        return preset_weight(self.rate or 0.0, self.n_classes)

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        super().release()
        self.given = self.features = None
        del self.scorer

    # -- step 1 -----------------------------------------------------------------------------------

    def _divide_first(self) -> dict[str, Any]:
        """Divide by the verdict given, or by the scores of two networks trained for that: lines 1 to 5.

        Returns what the record of the first epoch is to say of it.
        """
        if self.given is not None:
            self.rate = given_rate(self.given)
            proba = self.given.clean_proba
            rejected = np.zeros(len(self.codes)) if proba is None else np.minimum(proba, self.clean_threshold)
            division = self._with_labels(np.where(self.given.clean_mask, 1.0, rejected))
            self.kept = division, division
            return {}
        found = [self._first_scores(seed) for seed in self.seeds]
        self.rate = float(np.mean([each.rate for each in found]))
        record: dict[str, Any] = {"estimated_rate": self.rate}
        if found[0].known_by_heart is not None:
            known = float(np.mean([each.known_by_heart for each in found]))
            self.guessed_right = float(np.mean([each.guessed_right for each in found]))
            self.by_heart = known > estimates.BY_HEART
            record |= {"planted_known": known, "guessed_right": self.guessed_right}
        if self._is_late():
            self.rate = float(np.mean([each.blended_rate for each in found]))
            blended = splits.at_rate(np.mean([each.blended for each in found], axis=0), self.rate)
            return record | {"estimated_rate": self.rate} | self._stay_plain(blended)
        self.first_probs = np.mean([each.probs for each in found], axis=0, dtype=np.float32)
        first, second = (self._with_labels(self._by_scores(each.scores).clean_proba) for each in found)
        self.kept = first, second
        return record

    def _first_scores(self, seed: int) -> _FirstScores:
        """Train INN's networks on all rows; returns what they tell."""
        signals, _ = self.scorer._collect(
            self.rows, self.codes, self.n_classes, self.features, np.random.RandomState(seed)
        )
        (probs,) = signals.require("path_probs")
        found, known, right = scores.given_probability(probs, self.codes), None, 1.0
        rate = self.scorer._estimate_noise(probs, replace(signals, mean_probs=None), self.codes).rate
        both = self.scorer._class_probs(signals)
        blended_rate, transition, _ = self.scorer._estimate_noise(both, signals, self.codes)
        blended = estimates.corrected_log_odds(both, self.codes, transition)
        if signals.probe_rows is not None:
            found, blended = (splits.mapped_scores(each, signals.probe_rows) for each in (found, blended))
            (own,) = signals.require("probs")
            guesses, planted = own.argmax(axis=1), signals.probe_rows
            learned = learned_codes(signals, self.codes)
            known = estimates.known_by_heart(guesses, learned, planted, self.n_classes)
            right = estimates.guessed_right(guesses, self.codes, planted, rate, self.n_classes)
        return _FirstScores(found, rate, blended, blended_rate, known, right, both)

    def _with_labels(self, clean_proba: NDArray[np.float64]) -> Division:
        """Divide so that believed labels are learned as they are."""
        labels = np.where(clean_proba > self.clean_threshold, 1.0, clean_proba)
        return Division(labels, self._floored(labels))

    # -- step 2 -----------------------------------------------------------------------------------

    def _scored(self, which: int) -> NDArray[np.float64]:
        """Return INN's scores (n,) by the predictions and features of one network."""
        net = self.nets[which]
        with self.answering(which):
            probs, space = evaluated(NetModel(net), self.rows, self.features)
            path_probs = mean_path_probs(
                net.predict_batch, self.rows, probs,
                nearest(space, self.scorer.n_neighbors), self.scorer._rule(),
            )  # fmt: skip
        return scores.given_probability(path_probs, self.codes)

    def _by_scores(self, found: NDArray[np.float64]) -> Division:
        """Divide by a mixture of two Beta distributions."""
        split, distance = mixture_with_separation(found, "beta")
        proba = split.clean_proba
        if proba is None or distance < 1.0:  # one hill: only their order says something
            proba = splits.at_rate(found, self.rate or 0.0).clean.astype(np.float64)
        return Division(proba, self._floored(proba))

    def _floored(self, proba: NDArray[np.float64]) -> NDArray[np.bool_]:
        return floored(
            proba, self.codes, self.n_classes, self.clean_threshold, self._labeled_batch(self.nets[0])
        )


def _share(n_epochs: int, share: int, longest: int) -> int:
    return max(1, min(longest, n_epochs // share))
