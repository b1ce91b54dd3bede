"""Jo-SRC: clean, wrong label or out of distribution, by what two views of a row say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter import estimates, scores, splits
from noisefilter.base import NoiseEstimate, check_number
from noisefilter.batches import Rows, at_hand, first_row, load_rows, rows_state
from noisefilter.contrastive import JoSRCNetwork, TwoViewNet, two_view_net
from noisefilter.errors import InputTypeError, ParameterError
from noisefilter.inputs import Labels
from noisefilter.models import Model, NetModel
from noisefilter.net import Net
from noisefilter.splits import Split
from noisefilter.states import behind, named
from noisefilter.trained import NetworkFilter, Planted, check_positive, log_odds
from noisefilter.verdict import Signals, Verdict
from noisefilter.weights import Place, load_two_view_net, two_view_net_state

__all__ = ["JoSRCSelector"]

_ADAM_LR = 1e-3
_ALMOST_HARD = 1e-6  # smoothing of row_score="js0": none, but for the logarithm of zero


class _Fitted(NamedTuple):
    """What judging rows that arrive later needs."""

    net: TwoViewNet
    rows: Rows  # the first one of fit, which tells the shape


def look_again(net: TwoViewNet, rows: Rows, planted: Planted, features: NDArray[Any] | None) -> Signals:
    """Return the signals of a trained net's rows, from a last look at them."""
    seen = net.look(rows)
    return Signals(
        probs=seen.probs, view_probs=seen.view_probs, teacher_probs=seen.teacher_probs,
        features=seen.features if features is None else features,
        feature_norms=scores.feature_norms(seen.features),
        mean_probs=net.warm_probs(),
        **planted.probes,
    )  # fmt: skip


class JoSRCSelector(NetworkFilter):
    r"""Believes a label that the network agrees with, and takes rows it sees two ways for strangers.

    Every row is seen twice, as two random views, with probabilities :math:`p` and :math:`p'`. In each batch
    a row is clean if its label, smoothed by :math:`\epsilon`, lies close to :math:`p`,

    .. math:: P_{clean} = 1 - D_{JS}(p \| \hat y) \ge \tau;

    otherwise it has a wrong label if both views are taken for the same class, and is out of distribution if
    not. Clean rows learn their smoothed label, the others what the mean teacher says, strangers all but
    nothing; views of a row are drawn together, those of a stranger apart. After training, student and
    teacher look at two views of every row once more, and this is what the verdict is made of.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier or None, default=None
        Prototype, cloned; it gives network, optimizer and epochs, while the training is Jo-SRC's own.
        Subclasses other than :class:`noisefilter.Net`, and classifiers that are no networks, cannot be
        trained so. It is fed the rows of ``X`` in their own shape. ``None`` chooses a network for the shape.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name (``n_inputs`` or
        ``n_channels`` and ``image_size``, ``n_classes``). Rows of a table have two views through the dropout
        or input noise of the network, which the MLP has; without, no row is out of distribution.
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
        1 - 1 / K.
    eps_js : float, default=0.1
        :math:`\epsilon` of the labels in :math:`P_{clean}`; likewise.
    warmup_epochs : int, optional
        :math:`t_w`: so many epochs learn from the clean rows alone. At most, where there are `probes`: when
        the network begins to know the planted labels by heart, the warm-up ends, and the network goes back to
        what it was after about half of it. Default: two thirds of the epochs.
    warmup_threshold, final_threshold : float, optional
        :math:`\tau_c` and :math:`\tau_m` in [0, 1]: the threshold rises from 0 to the first in the warm-up,
        and to the second by the end, Eq. (12). If hardly a row, less than 1 %, reaches it in an epoch, it
        stays at what it was before. Default: :func:`noisefilter.scores.js_thresholds`, which fits the number
        of classes.
    least_clean : float, default=0.5
        Share of the rows of each class that are taken for clean at least, in [0, 1], beyond the paper: those
        likeliest so in the epoch before, whatever the threshold. Without it, a network that is not sure of
        much, or a class it learns late, runs out of labels to learn from and only repeats itself.
    consistency : float, default=0.5
        :math:`\alpha` of Eq. (10), in [0, 1]: weight of the agreement of the views.
    teacher_decay : float, default=0.99
        :math:`\omega` of Eq. (8), in [0, 1].
    ood_temperature : float, default=10
        s of Eq. (7).
    ood_cap : float, default=5
        Divergence in nats beyond which the views of strangers are driven no further apart.
    row_score : {"corrected", "margin", "js", "js0"}, default="corrected"
        Corrected log-odds or logit margin of the given label, in the mean of the teacher's and the student's
        warm-up probabilities; the paper's :math:`P_{clean}` of the first view; or the same of the mean
        of both views with next to no smoothing.
    split : {"auto", "paper", "probes", "joint", "beta", "gaussian", "threshold", "keep"}, default="auto"
        Decision rule. ``"auto"`` flags, worst scores first, as many rows as planted ones and the network's
        own doubt say are wrong (:func:`noisefilter.estimates.estimate_noise_rate`), in the probabilities of
        the warm-up. ``"paper"``, for
        ``row_score="js"``: clean are those that reach ``final_threshold``, and rows that are not are
        out of distribution if their views disagree. The others are rules of :mod:`noisefilter.splits`.
    threshold : float, optional
        With ``split="threshold"``: rows that score at least this are clean.
    keep : float, optional
        With ``split="keep"``: share of rows to keep, in [0, 1].
    open_set : bool, default=True
        Look for strangers too: divide the rejected rows into wrong labels and rows that belong to no class,
        which are those the network was undecided about in the warm-up
        (:func:`noisefilter.scores.ood_score`). With ``split="auto"`` the strangest rows are rejected although
        their label was believed, as many as there are too many of
        (:func:`noisefilter.splits.stranger_share`).
    probes : float, optional
        Share of rows, drawn at random, that are trained under a wrong label, to show how wrong labels score
        in this very training; in [0, 0.5]. Their own scores are read by rank. Default: 4 %, up to 200 rows
        where that is no more than a tenth, and at most 2,000 rows; none for rules that do not read them.
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

    Notes
    -----
    Cost: one training of two forward and backward passes a row and epoch, and after the warm-up as many
    forward passes of the teacher; four passes over all rows for the verdict.

    The trap in :math:`P_{clean}` is its smoothing. With the paper's 0.6, a network that is sure and right
    gets 0.60 and is rejected, while one that knows nothing gets 0.79 with 100 classes and 0.91 with ten: the
    criterion works only on a network that has learned to be as unsure as that. A warning is given where
    a network that knows nothing would reach ``warmup_threshold``, or one that is sure and right would miss
    ``final_threshold``; with the defaults neither can be, whatever the number of classes.

    Rows that arrive later (:meth:`score_new`) have no past: the trained student stands in for its average
    over the warm-up. They are seen as they are, twice, so that the score of a row depends on no random view,
    and thereby on no other row.

    Deviations from the paper, undone by :meth:`as_published` where they are parameters: smaller smoothing,
    and thresholds that follow from it; a warm-up of two thirds of the epochs, which ends
    where planted labels are learned by heart, and goes back to half of itself; no class runs out of clean
    rows; corrected log-odds, the default decision rule with its planted labels, and a shared score of
    strangeness, read off the warm-up; SGD; the small networks. Kept by it: the teacher is in evaluation
    mode, and its running statistics follow the student's (in the official code they stay as they began); it
    looks back over a tenth of the steps so far until that is a hundred; it rests in the warm-up, where
    nobody asks it; the divergence of strangers' views, otherwise without an upper end, is capped; batches of
    the warm-up without a clean row are skipped; the threshold stops rising where nothing is left; the
    verdict is a pass of its own after training, where the paper reads the groups off the last epoch. As in
    the official code, where it differs from the paper: the first epoch's threshold is 0, :math:`\ge` instead
    of >, the teacher's mean over both views, and logarithms to base 2 in Eq. (9).

    References
    ----------
    Y. Yao, Z. Sun, C. Zhang, F. Shen, Q. Wu, J. Zhang and Z. Tang, "Jo-SRC: a contrastive approach for
    combating noisy labels", CVPR 2021, arXiv:2103.13029. Eq. (2) to (12), Algorithm 1.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import JoSRCSelector
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> verdict = JoSRCSelector(random_state=0).fit(X, y).verdict_
    >>> int(verdict.scores.argmin()), verdict.alternatives[7]
    (7, np.int64(0))
    """

    _splits: ClassVar = ("auto", "paper", "probes", "joint", "beta", "gaussian", "threshold", "keep")
    _choices: ClassVar = {
        "row_score": ("corrected", "margin", "js", "js0"),
        "optimizer": ("own", "adam"),
    }

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
        warmup_threshold: float | None = None,
        final_threshold: float | None = None,
        least_clean: float = 0.5,
        consistency: float = 0.5,
        teacher_decay: float = 0.99,
        ood_temperature: float = 10.0,
        ood_cap: float = 5.0,
        row_score: str = "corrected",
        split: str = "auto",
        threshold: float | None = None,
        keep: float | None = None,
        open_set: bool = True,
        probes: float | None = None,
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
        self.optimizer = optimizer
        self.eps_target = eps_target
        self.eps_js = eps_js
        self.warmup_epochs = warmup_epochs
        self.warmup_threshold = warmup_threshold
        self.final_threshold = final_threshold
        self.least_clean = least_clean
        self.consistency = consistency
        self.teacher_decay = teacher_decay
        self.ood_temperature = ood_temperature
        self.ood_cap = ood_cap
        self.row_score = row_score
        self.split = split
        self.threshold = threshold
        self.keep = keep
        self.open_set = open_set
        self.probes = probes
        self.output = output
        self.channels = channels
        self.device = device
        self.keep_signals = keep_signals
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> JoSRCSelector:
        """Return a selector with the paper's settings for CIFAR-100 spelled out in its parameters.

        For 32x32 images. Without weight decay: the official configuration names one and never passes it on.
        On fewer than some hundred classes its smoothing of 0.6 is out of place, and warned of.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": JoSRCNetwork, "max_epochs": 200, "batch_size": 128, "lr": 1e-3, "optimizer": "adam",
            "eps_target": 0.6, "eps_js": 0.6, "warmup_epochs": 10, "warmup_threshold": 0.75,
            "final_threshold": 0.95, "least_clean": 0.0, "consistency": 0.5, "teacher_decay": 0.99,
            "ood_temperature": 10.0, "row_score": "js", "split": "paper",
        }  # fmt: skip
        return cls(**(published | changes))

    # Algorithm 1, and a last look at every row.

    def _collect(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, features: NDArray[Any] | None, rng: Any
    ) -> tuple[Signals, _Fitted]:
        self._check_smoothing(n_classes)
        planted = self._plant(codes, n_classes, rng)
        net = self._two_view_net(rows, n_classes, rng, planted_rows=planted.probes.get("probe_rows"))
        NetModel(net).train(rows, planted.trained, n_classes)
        signals = look_again(net, rows, planted, features)
        net.forget_rows()
        return signals, _Fitted(net, first_row(rows))

    def _two_view_net(self, rows: Rows, n_classes: int, rng: Any, **more: Any) -> TwoViewNet:
        model: Model = self._build(rows, n_classes, (), rng, objective="cross_entropy")
        if not isinstance(model, NetModel) or type(model.net) is not Net:
            raise InputTypeError(
                "estimator must be a skorch NeuralNetClassifier or a noisefilter.Net and no subclass, as the "
                f"training is Jo-SRC's own, got {type(self.estimator).__name__}."
            )
        if self.optimizer == "adam" and self.lr is None and self.estimator is None:
            model.net.set_params(lr=_ADAM_LR)
        warmup_threshold, final_threshold = self._thresholds(n_classes)
        n_epochs = model.net.max_epochs
        settings = {
            "eps_target": self.eps_target, "eps_js": self.eps_js, "warmup_threshold": warmup_threshold,
            "final_threshold": final_threshold, "least_clean": self.least_clean,
            "consistency": self.consistency,
            "warmup_epochs": max(1, 2 * n_epochs // 3) if self.warmup_epochs is None else self.warmup_epochs,
            "teacher_decay": self.teacher_decay, "ood_temperature": self.ood_temperature,
            "ood_cap": self.ood_cap,
        }  # fmt: skip
        return two_view_net(model.net, self.optimizer, settings | more)

    def _thresholds(self, n_classes: int) -> tuple[float, float]:
        default = scores.js_thresholds(n_classes, self.eps_js)
        given = self.warmup_threshold, self.final_threshold
        warmup, final = (float(d if t is None else t) for t, d in zip(given, default, strict=True))
        return warmup, final

    # The judgement, from signals alone.

    def _judge(self, signals: Signals, labels: Labels) -> Verdict:
        self._check_smoothing(len(labels.classes))
        self._warn_of_smoothing(len(labels.classes))
        return super()._judge(signals, labels)

    def _check_smoothing(self, n_classes: int) -> None:
        for name in ("eps_target", "eps_js"):
            if not getattr(self, name) < 1 - 1 / n_classes:
                raise ParameterError(
                    f"{name} must be less than {1 - 1 / n_classes:.3g} with {n_classes} classes, where the "
                    f"label is no likelier than another, got {getattr(self, name)!r}."
                )

    def _warn_of_smoothing(self, n_classes: int, stacklevel: int = 4) -> None:
        nothing, sure = scores.js_limits(n_classes, self.eps_js)
        warmup, final = self._thresholds(n_classes)
        if nothing >= warmup or sure < final:
            warnings.warn(
                f"eps_js={self.eps_js} does not fit the thresholds {warmup:.3g} and {final:.3g} with "
                f"{n_classes} classes: a network that knows nothing reaches a clean likelihood of "
                f"{nothing:.3g}, one that is sure and right {sure:.3g}. Use eps_js=0.1 and the default "
                "thresholds.",
                UserWarning,
                stacklevel=stacklevel,
            )

    def _class_probs(self, signals: Signals) -> NDArray[np.float64]:
        (probs,) = signals.require("teacher_probs")
        if signals.mean_probs is not None:
            probs = np.add(probs, signals.mean_probs, dtype=np.float64)
            probs /= 2
        return scores.unsmoothed(probs, self.eps_target)

    def _estimate_noise(
        self, probs: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64]
    ) -> NoiseEstimate:
        """Estimate the rate from the warm-up.

        Rejected rows never learn their labels, so that in the end the network contradicts right ones, too, as
        often as it is in doubt. In the warm-up most labels are still learned.
        """
        if signals.mean_probs is None:
            return super()._estimate_noise(probs, signals, codes)
        rate, _, interval = super()._estimate_noise(self._warm_probs(signals), signals, codes)
        planted = np.zeros(0, dtype=np.int64) if signals.probe_rows is None else signals.probe_rows
        others = np.delete(np.arange(len(codes)), planted)
        transition = estimates.estimate_transition(probs[others], codes[others], rate)
        return NoiseEstimate(rate, transition, interval)

    def _warm_probs(self, signals: Signals) -> NDArray[np.float64]:
        return scores.unsmoothed(signals.require("mean_probs")[0], self.eps_target)

    def _score(self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate) -> NDArray[np.float64]:
        if self.row_score == "corrected":
            return estimates.corrected_log_odds(self._class_probs(signals), codes, noise.transition)
        if self.row_score == "margin":
            return scores.log_margin(self._class_probs(signals), codes)
        (views,) = signals.require("view_probs")
        if self.row_score == "js":
            return scores.js_likelihood(views[0], codes, self.eps_js)
        return scores.js_likelihood(views.mean(axis=0, dtype=np.float64), codes, _ALMOST_HARD)

    def _split(
        self, scores: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> Split:
        if self.split == "paper":
            return splits.threshold(scores, self._thresholds(len(noise.transition))[1])._replace(
                clean_proba=scores
            )
        return super()._split(scores, signals, codes, noise)

    def _log_odds(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_odds(scores) if self.row_score in ("js", "js0") else scores

    def _ood(
        self, signals: Signals, codes: NDArray[np.int64], rejected: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        if self.split != "paper":
            # Training has made up the network's mind about rejected rows; it was freer in the warm-up.
            warm = (
                signals if signals.mean_probs is None else replace(signals, teacher_probs=signals.mean_probs)
            )
            return super()._ood(warm, codes, rejected)
        (views,) = signals.require("view_probs")
        return rejected & scores.views_disagree(views)  # Criterion 3.2

    # Rows that arrive later.

    def _collect_new(self, fitted: _Fitted, rows: Rows) -> Signals:
        seen = fitted.net.look(rows, random=False)
        # New rows have no past: the trained student stands in for its average over the epochs.
        return Signals(
            probs=seen.probs,
            mean_probs=seen.probs,
            view_probs=seen.view_probs,
            teacher_probs=seen.teacher_probs,
        )

    def _network_features(self, fitted: _Fitted, rows: Rows) -> NDArray[Any]:
        return fitted.net.look(rows, random=False).features

    # What a file keeps.

    def _fitted_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        net, rows = self._network()
        own, rest = two_view_net_state(net)
        row, images = rows_state(rows)
        return named("net.", own) | {"row": row}, {"net": rest, "images": images}

    def _load_fitted(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        rows = load_rows(tensors["row"], rest["images"], at_hand(self.device))
        place = Place(rows.shape, len(self.classes_), rows.device)
        self._check_columns(rows.shape)
        self._fitted = _Fitted(load_two_view_net(behind("net.", tensors), rest["net"], place), rows)

    # -- checks -----------------------------------------------------------------------------------

    def _check_numbers(self) -> None:
        share = ("in [0, 1]", lambda value: 0 <= value <= 1)
        for name, kind, rule, holds in (
            ("eps_target", Real, "in [0, 1)", lambda value: 0 <= value < 1),
            ("eps_js", Real, "in [0, 1)", lambda value: 0 <= value < 1),
            ("warmup_epochs", Integral, "a whole number of at least 0", lambda value: value >= 0),
            ("warmup_threshold", Real, *share),
            ("final_threshold", Real, *share),
            ("least_clean", Real, *share),
            ("consistency", Real, *share),
            ("teacher_decay", Real, *share),
        ):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), kind, rule, holds)
        check_positive(self, "ood_temperature", "ood_cap")

    def _check_split(self) -> None:
        super()._check_split()
        if self.split == "paper" and self.row_score != "js":
            raise ParameterError(f"row_score must be 'js' with split='paper', got {self.row_score!r}.")
        # A Beta distribution needs [0, 1]; on corrected log-odds a Gaussian splits the clean rows.
        mixtures = {"beta": ("js", "js0"), "gaussian": ("margin", "js", "js0")}
        if self.row_score not in mixtures.get(self.split, (self.row_score,)):
            allowed = " or ".join(map(repr, mixtures[self.split]))
            raise ParameterError(
                f"row_score must be {allowed} with split={self.split!r}, got {self.row_score!r}."
            )
