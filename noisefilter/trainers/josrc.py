"""Jo-SRC as a classifier: a network that learns clean labels, and of other rows what its teacher says."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noisefilter import estimates, scores
from noisefilter.base import check_number
from noisefilter.batches import Rows
from noisefilter.budgets import LEAST_EPOCHS, LEAST_STEPS, Budget
from noisefilter.contrastive import LEARN_FROM, TwoViewNet
from noisefilter.errors import ParameterError, TrainingDivergedError
from noisefilter.filters.josrc import JoSRCSelector, look_again
from noisefilter.inputs import check_labels
from noisefilter.models import NetModel
from noisefilter.net import Net, check_finite_outputs
from noisefilter.progress import Progress
from noisefilter.semisupervised import believed
from noisefilter.trained import NetworkFilter, Planted
from noisefilter.trainer import BaseTrainer
from noisefilter.verdict import Signals, Verdict
from noisefilter.weights import Place, load_network, network_state

__all__ = ["JoSRCClassifier"]

_CHOICES = {"learn_from": LEARN_FROM, "predict_with": ("student", "teacher"), "split": ("auto", "paper")}


class JoSRCClassifier(BaseTrainer):
    r"""Trains on the labels that the network agrees with, and on what its mean teacher says of other rows.

    Every row is seen twice, as two random views, with probabilities :math:`p` and :math:`p'`. In each batch
    a row is clean if its label, smoothed by :math:`\epsilon`, lies close to :math:`p`,

    .. math:: P_{clean} = 1 - D_{JS}(p \| \hat y) \ge \tau;

    otherwise it has a wrong label if both views are taken for the same class, and is out of distribution if
    not. A warm-up learns from clean rows alone. After it the loss is

    .. math:: (1 - \alpha) L_c + \alpha L_o:

    clean rows learn their smoothed label, the others what the mean teacher says, strangers all but nothing;
    and views of a row are drawn together, those of a stranger apart. It is the training of
    :class:`noisefilter.JoSRCSelector` (but for what `warmup_epochs` says of labels known by heart), which
    also makes the verdict, from a last look at the rows.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype, cloned; it gives network, optimizer and epochs, while the training is Jo-SRC's own.
        Subclasses other than :class:`noisefilter.Net`, and classifiers that are no networks, cannot be
        trained so. ``None`` chooses a network for the shape of ``X``.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name. Rows of a table have two
        views through the dropout or input noise of the network, which the MLP has; without, no row is out of
        distribution.
    max_epochs : int, optional
        :math:`t_{max}`. Default 30.
    batch_size : int, optional
        Default 128, fewer below 2,048 rows.
    lr : float, optional
        Default 0.05 with SGD, 0.001 with Adam.
    optimizer : {"own", "adam"}, default="own"
        The estimator's own, by default SGD with Nesterov momentum 0.9, its rate divided by 5 at half and at
        three quarters of the epochs; or the official code's Adam, whose rate falls in a straight line after
        40 % of the epochs, with a first beta of 0.1 from then on.
    eps_target : float, default=0.3
        :math:`\epsilon` of the labels that clean rows learn, Eq. (5), in [0, 1) and less than
        1 - 1 / K. Probabilities are predicted as they would be without
        (:func:`noisefilter.scores.unsmoothed`).
    eps_js : float, default=0.1
        :math:`\epsilon` of the labels in :math:`P_{clean}`; likewise.
    warmup_epochs : int, optional
        :math:`t_w`: so many epochs learn from the clean rows alone. At most, where there are `probes`: when
        the network begins to know the planted labels by heart, the warm-up ends, and the network goes back to
        what it was after about half of it. Labels that it knows by heart would pass any threshold from then
        on; so the rows that its verdict believes at that point are the clean ones to the end, unless there
        was a `filter` before. Default: two thirds of the epochs.
    least_epochs : int, default=15
        Fewest epochs after a warm-up, if they make fewer than 3,000 steps, in which other rows than clean
        ones are learned where, by the planted labels, the network knows none by heart and fewer than 80 % of
        its guesses are right. With fewer there is a warning, and the network goes on with the rows that its
        verdict believes by then, as Jo-SRC-C does. 0 is always to try.
    warmup_threshold, final_threshold : float, optional
        :math:`\tau_c` and :math:`\tau_m` in [0, 1]: the threshold rises from 0 to the first in the warm-up,
        and to the second by the end, Eq. (12). If hardly a row, less than 1 %, reaches it in an epoch, it
        stays at what it was before. Default: :func:`noisefilter.scores.js_thresholds`, which fits the number
        of classes.
    least_clean : float, default=0.5
        Share of the rows of each class that are taken for clean at least, in [0, 1], beyond the paper: those
        likeliest so in the epoch before, whatever the threshold.
    consistency : float, default=0.5
        :math:`\alpha` of Eq. (10), in [0, 1]: weight of the agreement of the views.
    teacher_decay : float, default=0.99
        :math:`\omega` of Eq. (8), in [0, 1].
    ood_temperature : float, default=10
        s of Eq. (7).
    ood_cap : float, default=5
        Divergence in nats beyond which the views of strangers are driven no further apart.
    learn_from : {"clean", "clean+id", "all"}, default="all"
        What is learned from after the warm-up: clean rows, also rows with a wrong label, also strangers. With
        ``consistency=0`` these are Jo-SRC-C, Jo-SRC-CI and Jo-SRC-CIO of Table 6.
    predict_with : {"student", "teacher"}, default="student"
        Whether the network in training predicts, as published, or the moving average of it.
    split : {"auto", "paper"}, default="auto"
        How the verdict decides: by the corrected log-odds of the given label, and as many rows as the planted
        ones say are wrong; or, with the likelihood :math:`P_{clean}` for a score, by ``final_threshold``. See
        :class:`noisefilter.JoSRCSelector`.
    open_set : bool, default=True
        Look for strangers too: divide the rejected rows into wrong labels and rows that belong to no class.
    probes : float, optional
        Share of rows, drawn at random, that are trained under a wrong label, to show how wrong labels score
        in this very training; in [0, 0.5]. Default: 4 %, up to 200 rows where that is no more than a tenth,
        and at most 2,000 rows; none with ``split="paper"``.
    filter : estimator, optional
        A filter to begin with: its clean rows are the clean rows of the first epochs. Behind a filter in a
        Pipeline this happens by itself.
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
    Cost: two forward and backward passes a row and epoch, and after the warm-up as many forward passes of the
    teacher; four passes over all rows for the verdict, and as many when a warm-up with planted labels ends.
    While it lasts up to three earlier states are kept, in checkpoints, too: weights, momentum, teacher and
    (n, K) probabilities each.

    ``history_`` has, for each epoch, ``phase``, ``loss``, ``threshold``, the sizes of the three groups
    ``n_clean``, ``n_id`` and ``n_ood``, and ``lr``; in the warm-up also ``planted_known``, the share of
    planted labels that are known by heart (:func:`noisefilter.estimates.known_by_heart`), and in its last
    epoch ``guessed_right`` (:func:`noisefilter.estimates.guessed_right`). While a verdict is held, that of a
    filter or its own, no threshold decides, and it is None.

    Deviations from the paper are those of :class:`noisefilter.JoSRCSelector`, which are listed there,
    `least_epochs`, and clean rows that stay so after a warm-up in which planted labels were learned by heart;
    :meth:`as_published` undoes those that are parameters, and plants no labels. Planted rows are never among
    the clean rows of a verdict that is held: they would be learned under labels that it is not about.

    References
    ----------
    Y. Yao, Z. Sun, C. Zhang, F. Shen, Q. Wu, J. Zhang and Z. Tang, "Jo-SRC: a contrastive approach for
    combating noisy labels", CVPR 2021, arXiv:2103.13029. Eq. (2) to (12), Algorithm 1, Table 6.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import JoSRCClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = JoSRCClassifier(random_state=0).fit(X, y)
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
        eps_target: float = 0.3,
        eps_js: float = 0.1,
        warmup_epochs: int | None = None,
        least_epochs: int = LEAST_EPOCHS,
        warmup_threshold: float | None = None,
        final_threshold: float | None = None,
        least_clean: float = 0.5,
        consistency: float = 0.5,
        teacher_decay: float = 0.99,
        ood_temperature: float = 10.0,
        ood_cap: float = 5.0,
        learn_from: str = "all",
        predict_with: str = "student",
        split: str = "auto",
        open_set: bool = True,
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
        self.eps_target = eps_target
        self.eps_js = eps_js
        self.warmup_epochs = warmup_epochs
        self.least_epochs = least_epochs
        self.warmup_threshold = warmup_threshold
        self.final_threshold = final_threshold
        self.least_clean = least_clean
        self.consistency = consistency
        self.teacher_decay = teacher_decay
        self.ood_temperature = ood_temperature
        self.ood_cap = ood_cap
        self.learn_from = learn_from
        self.predict_with = predict_with
        self.split = split
        self.open_set = open_set
        self.probes = probes
        self.filter = filter
        self.split_epochs = split_epochs
        self.checkpoint_dir = checkpoint_dir
        self.channels = channels
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> JoSRCClassifier:
        """Return a trainer with the paper's settings for CIFAR-100 spelled out in its parameters.

        For 32x32 images; those of :meth:`noisefilter.JoSRCSelector.as_published`, where more is said of them.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published = JoSRCSelector.as_published().get_params(deep=False)
        own = {name: published[name] for name in cls().get_params(deep=False) if name in published}
        own |= {"least_epochs": 0, "learn_from": "all", "predict_with": "student"}
        return cls(**(own | changes))

    def _selector(self) -> JoSRCSelector:
        """Return the selector that trains alike and judges."""
        selector = JoSRCSelector(row_score="js" if self.split == "paper" else "corrected")
        own = self.get_params(deep=False)
        shared = {name: own[name] for name in selector.get_params(deep=False) if name in own}
        return selector.set_params(**shared | {"verbose": 0})

    def _begin(
        self,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        given: Verdict | None,
        features: NDArray[Any] | None,
        rng: np.random.RandomState,
    ) -> _JoSRC:
        selector = self._selector()
        selector._check_smoothing(n_classes)
        selector._warn_of_smoothing(n_classes, stacklevel=6)
        planted = selector._plant(codes, n_classes, rng)
        net = selector._two_view_net(
            rows, n_classes, rng, learn_from=self.learn_from, planted_rows=planted.probes.get("probe_rows")
        )
        net.set_params(random_state=int(rng.randint(2**31 - 1)), verbose=0)
        training = _JoSRC(net, rows, codes, n_classes, planted=planted, selector=selector, trainer=self)
        if given is not None:
            training.hold(given, net.warmup_epochs if self.split_epochs is None else self.split_epochs)
        return training

    def _answering(self, tensors: Mapping[str, Any], rest: Mapping[str, Any], place: Place) -> _Trained:
        eps_target = rest["eps_target"]
        check_number("eps_target", eps_target, Real, "in [0, 1)", lambda value: 0 <= value < 1)
        return _Trained(load_network(tensors, rest["net"], place), eps_target)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name, values in _CHOICES.items():
            if getattr(self, name) not in values:
                raise ParameterError(f"{name} must be one of {values}, got {getattr(self, name)!r}.")
        self._selector()._check_parameters()


class _Trained:
    """What is left of a training: the network that predicts, and the smoothing of the labels it learned."""

    def __init__(self, net: Net, eps_target: float):
        self.net = net
        self.eps_target = eps_target

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return probabilities (m, K), without the smoothing of the labels learned."""
        with self._answering():
            probs = self.net.evaluate(rows)[0]
        check_finite_outputs(probs)
        return scores.unsmoothed(probs, self.eps_target)

    def _answering(self) -> AbstractContextManager[None]:
        return self.net.answered_by(None)

    def networks(self) -> list[Any]:
        """Return the network that predicts."""
        with self._answering():
            return [self.net.module_.eval()]

    def answers(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what predicts."""
        with self._answering():
            tensors, rest = network_state(self.net)
        return tensors, {"net": rest, "eps_target": self.eps_target}


class _JoSRC(_Trained):
    """One run of Algorithm 1; a :class:`noisefilter.trainer.Training`."""

    def __init__(
        self,
        net: TwoViewNet,
        rows: Rows,
        codes: NDArray[np.int64],
        n_classes: int,
        *,
        planted: Planted,
        selector: JoSRCSelector,
        trainer: JoSRCClassifier,
    ):
        super().__init__(net, trainer.eps_target)
        self.net: TwoViewNet = net
        self.rows = rows
        self.codes = codes
        self.planted = planted
        self.selector = selector
        self.asks_teacher = trainer.predict_with == "teacher"
        self.target = NetModel(net).begin(rows, planted.trained, n_classes)
        self.n_epochs = int(net.max_epochs)
        self.n_steps = net.steps_of_epoch(len(rows))
        self.budget = Budget(trainer.least_epochs, LEAST_STEPS)
        self.given = False  # whether there is a verdict to start from

    def hold(self, given: Verdict, n_epochs: int) -> None:
        """Believe a verdict for the first epochs, but for rows with planted labels, which it is not about."""
        clean = given.clean_mask.copy()
        clean[self.planted.probes.get("probe_rows", [])] = False
        self.net.hold(clean, n_epochs)
        self.given = True

    def run_epoch(self, epoch: int, bar: Progress) -> dict[str, float | int | str | None]:
        """Train an epoch."""
        with self.net.drawing(epoch):
            if self.net.run_epoch(self.rows, self.target, epoch, bar):
                self.n_epochs = epoch + 1
        with self._answering():
            self.net.settle_inference(self.rows)  # not by the first rows that somebody asks about
        seen = self.net.history[-1]
        phase = "supervised" if self.net.alone_ else "joint"
        if epoch < self.net.warm_epochs_:
            phase = "warm-up"
        names = ("threshold", "n_clean", "n_id", "n_ood", "planted_known")
        groups = {name: seen[name] for name in names if name in seen}
        record = {"phase": phase, "loss": seen["train_loss"], **groups, "lr": seen["event_lr"]}
        if epoch + 1 == self.net.warm_epochs_ < self.n_epochs and "planted_known" in seen and not self.given:
            record |= self._end_warm_up(epoch, self._memorizes(epoch, seen["planted_known"]))
        return record

    def _memorizes(self, epoch: int, known: float) -> bool:
        return estimates.memorizes(known, (epoch + 1) * self.n_steps)

    def _end_warm_up(self, epoch: int, by_heart: bool) -> dict[str, Any]:
        """Look which share of the guesses is right, and choose what to learn from."""
        try:
            signals = self._look()
        except TrainingDivergedError:
            return {}  # the loss, of this epoch or of the next, says which epoch it was
        verdict, (probs,) = self._verdict(signals), signals.require("probs")
        probes, n_classes = self.planted.probes["probe_rows"], probs.shape[1]
        right = estimates.guessed_right(
            probs.argmax(axis=1), self.codes, probes, verdict.estimated_noise_rate, n_classes
        )
        record: dict[str, Any] = {"guessed_right": right}
        rows = believed(
            verdict.clean_mask, verdict.clean_proba, self.codes, n_classes, -(-len(probs) // self.n_steps)
        )
        rows[probes] = False  # the labels that they are trained under are planted
        left = self.n_epochs - epoch - 1
        if by_heart:
            self.net.hold_on(rows)
        elif self.budget.is_short(left, left * self.n_steps, by_heart, right):
            self.net.learn_alone(rows)
            record["warning"] = self.budget.warning(left, int(rows.sum()))
        return record

    def cost(self, epoch: int) -> float:
        """Return how many steps an epoch has: they take about as long in all of them."""
        return self.n_steps

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return all that the epochs to come and the verdict depend on."""
        tensors, rest = self.net.state()
        return tensors, {"net": rest, "n_epochs": self.n_epochs}

    def load_state(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state` was asked for."""
        self.net.load_state(tensors, rest["net"])
        self.n_epochs = rest["n_epochs"]

    def _answering(self) -> AbstractContextManager[None]:
        return self.net.answered_by(self.net.teacher_.module if self.asks_teacher else None)

    def judged(self) -> Verdict:
        """Judge the rows as the selector does."""
        return self._verdict(self._look())

    def _look(self) -> Signals:
        return look_again(self.net, self.rows, self.planted, None)

    def _verdict(self, signals: Signals) -> Verdict:
        # What the selector itself adds to this is a warning that was given before the training.
        return NetworkFilter._judge(self.selector, signals, check_labels(self.codes))

    def release(self) -> None:
        """Let go of the rows and of what only training needs."""
        with self._answering():
            self.net.settle_inference(self.rows)  # an interrupted epoch left it open
        self.net.end(self.rows, self.target)
        del self.rows, self.codes, self.target, self.planted, self.selector
