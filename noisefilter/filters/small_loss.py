"""Small loss: a network takes to right labels sooner and more firmly than to wrong ones."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import NoiseEstimate, check_number
from noisefilter.batches import Rows
from noisefilter.errors import ParameterError
from noisefilter.models import Model
from noisefilter.net import Recorded
from noisefilter.recorded import RecordedFilter, Trained, epochs_of
from noisefilter.scores import log_margin, log_probability
from noisefilter.trained import Planted, check_at_least_1, check_positive
from noisefilter.verdict import Signals

__all__ = ["SmallLossSelector"]


class SmallLossSelector(RecordedFilter):
    r"""Believes a label if the network took to it early and firmly while it was trained.

    A network is trained on all rows, wrong labels included, and keeps a record of each epoch :math:`t`: the
    loss :math:`\ell_{ti} = -\log p_{ti}[y_i]`, the margin :math:`m_{ti} = z_{ti}[y_i] - \max_{c \ne y_i}
    z_{ti}[c]` of the logits, and the probabilities. Right labels agree with each other and are learned first,
    so over the epochs they have small losses and large margins. One training is all it costs.

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
        At most, where there are `probes` and no second phase: when the network knows planted labels by heart
        (:func:`noisefilter.estimates.known_by_heart`) and its margins no longer tell them from other rows as
        well as before, it is trained anew for the epochs before that alone, in which its learning rate falls
        as it would have in all. Default 30.
    batch_size : int, optional
        Default 128, fewer below 2,048 rows.
    lr : float, optional
        Learning rate of SGD with Nesterov momentum 0.9, divided by 5 at half and at three quarters of
        the epochs. Default 0.05.
    objective : {"cross_entropy", "cross_entropy_ne", "mixup"}, default="cross_entropy"
        What the network is trained by. ``"cross_entropy_ne"`` adds the negative entropy
        :math:`\sum_c p_c \log p_c`, mean over the batch, so that it does not become too sure of wrong labels
        (the confidence penalty of DivideMix). Losses are recorded without it. The network
        then doubts more than it errs, so ``split="auto"`` has only the planted labels to go by, and takes
        confusions of look-alikes for right.
    mixup_alpha : float, default=1.0
        Parameter of mixup's Beta distribution.
    schedule : {"steps", "cyclical"}, default="steps"
        ``"cyclical"`` adds O2U-Net's second phase: after the ``max_epochs`` ordinary epochs, ``n_cycles``
        cycles in which the learning rate falls linearly from ``lr`` to a tenth of it, and jumps back. What
        was learned too eagerly is forgotten at each jump. Signals are those of this phase alone.
    n_cycles : int, default=3
        Cycles of the second phase.
    cycle_epochs : int, default=10
        Epochs of a cycle.
    row_score : {"averaged_margin", "loss", "mean_loss", "aum"}, default="averaged_margin"
        With :math:`\bar p_i` the mean probabilities over the second half of the epochs and T the epochs of
        the window:

        - ``"averaged_margin"``: :math:`\log \bar p_i[y_i] - \max_{c \ne y_i} \log \bar p_i[c]`, the best
          score of all that need no clean data in arXiv:2510.16211;
        - ``"loss"``: :math:`-\ell_{ti}` of the last epoch;
        - ``"mean_loss"``: :math:`-\frac1{|T|} \sum_{t \in T} (\ell_{ti} - \frac1n \sum_j \ell_{tj})`, that of
          O2U-Net;
        - ``"aum"``: :math:`\frac1{|T|} \sum_{t \in T} m_{ti}`, the area under the margin.
    window : float, default=0.5
        Share of the epochs, the last ones, that ``"mean_loss"`` and ``"aum"`` average over; in (0, 1].
    split : {"auto", "probes", "joint", "beta", "gaussian", "threshold", "keep"}, default="auto"
        Decision rule. ``"auto"`` flags as many rows as the network contradicts beyond its own doubt
        (:func:`noisefilter.estimates.estimate_noise_rate`), worst scores first. The others are rules of
        :mod:`noisefilter.splits`. ``"gaussian"`` is DivideMix's mixture of two components on scores scaled to
        [0, 1], ``"beta"`` that of Arazo et al., scaled as there (:func:`noisefilter.mixtures.mixture`) and
        made for losses: among margins it may find no second component. On clean data a mixture finds two
        all the same.
    threshold : float, optional
        With ``split="threshold"``: rows that score at least this are clean.
    keep : float, optional
        With ``split="keep"``: share of rows to keep, in [0, 1].
    probes : float, optional
        Share of rows, drawn at random, that are trained under a wrong label, to show how wrong labels score
        in this very training; in [0, 0.5]. What was recorded of them speaks of that label, so among
        themselves they are ranked by ``"averaged_margin"`` of the given one. Default: 4 %, up to 200 rows
        where that is no more than a tenth, and at most 2,000 rows; none for rules that do not read them.
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
    Cost: one training and one evaluation of every row. Losses, margins and mean probabilities are recorded in
    any case, so another ``row_score`` needs no other training: give ``signals_`` to :meth:`fit_signals`.

    Rows that arrive later (:meth:`score_new`) have no past: the trained network stands in for its average
    over the epochs, and its mean loss on the rows of ``fit`` for the mean of an epoch.

    The estimated noise rate rests on two constants that were read off the blended probabilities of
    :class:`noisefilter.INNScorer`, not off those of this filter.

    Where it fails: a network that has memorized its labels has small losses everywhere, and the last epochs
    then tell little. Planted labels end the training before; with ``probes=0``, or a rule that does not read
    them, it is for you to train fewer epochs or to widen the window. Rare
    kinds of rows have large losses under right labels, too. Confusions that are consistent (every picture of
    one kind of dog labeled cat) look like a right label to any method that learns from these labels alone.

    Deviations from the papers: O2U-Net averages over all epochs of the cyclical phase (``window=1.0``), uses
    batches of 16 rows in it, steps of its own before it, and is told how many rows to drop;
    :meth:`as_published` sets what is a parameter here. AUM averages over all epochs up to the first drop of
    the learning rate and reads its threshold off rows planted in a class of their own, where the probes are
    planted among the real classes. arXiv:2510.16211 averages probabilities over all epochs. None of them ends
    a training when planted labels begin to be known by heart. DivideMix evaluates the losses after each
    epoch, without augmentation, instead of recording them from the training.

    References
    ----------
    J. Huang, L. Qu, R. Jia and B. Zhao, "O2U-Net: a simple noisy label detection approach for deep neural
    networks", ICCV 2019, doi:10.1109/ICCV.2019.00342: mean loss, cyclical rates.
    G. Pleiss, T. Zhang, E. Elenberg and K. Weinberger, "Identifying mislabeled data using the area under the
    margin ranking", NeurIPS 2020, arXiv:2001.10528, Eq. (1) and (2).
    "Averaged logit margin": arXiv:2510.16211, 2025.
    J. Li, R. Socher and S. Hoi, "DivideMix: learning with noisy labels as semi-supervised learning", ICLR
    2020, arXiv:2002.07394: negative entropy, Gaussian mixture.
    E. Arazo, D. Ortego, P. Albert, N. O'Connor and K. McGuinness, "Unsupervised label noise modeling and loss
    correction", ICML 2019, arXiv:1904.11238: Beta mixture.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import SmallLossSelector
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> verdict = SmallLossSelector(random_state=0).fit(X, y).verdict_
    >>> int(verdict.scores.argmin()), int(verdict.suggested_labels[7])
    (7, 0)
    """

    _fields: ClassVar = ("losses", "margins", "mean_probs")
    _judging: ClassVar = RecordedFilter._judging | {"row_score", "window"}
    _choices: ClassVar = {
        "row_score": ("averaged_margin", "loss", "mean_loss", "aum"),
        "objective": ("cross_entropy", "cross_entropy_ne", "mixup"),
        "schedule": ("steps", "cyclical"),
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        network: Any = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        objective: str = "cross_entropy",
        mixup_alpha: float = 1.0,
        schedule: str = "steps",
        n_cycles: int = 3,
        cycle_epochs: int = 10,
        row_score: str = "averaged_margin",
        window: float = 0.5,
        split: str = "auto",
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
        self.objective = objective
        self.mixup_alpha = mixup_alpha
        self.schedule = schedule
        self.n_cycles = n_cycles
        self.cycle_epochs = cycle_epochs
        self.row_score = row_score
        self.window = window
        self.split = split
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
    def as_published(cls, **changes: Any) -> SmallLossSelector:
        """Return O2U-Net with its settings spelled out in the parameters.

        250 ordinary epochs, 25 cycles of 10 from 0.01 to 0.001, and the losses of all of them. The paper is
        told the noise rate: ``as_published(split="keep", keep=1 - rate)`` drops as many rows as it would;
        without it the estimated rate stands in. The network is the default one.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "max_epochs": 250, "batch_size": 128, "lr": 0.01, "schedule": "cyclical", "n_cycles": 25,
            "cycle_epochs": 10, "row_score": "mean_loss", "window": 1.0,
        }  # fmt: skip
        return cls(**(published | changes))

    def _training(self) -> dict[str, Any]:
        return {
            "objective": self.objective, "mixup_alpha": self.mixup_alpha,
            "schedule": self.schedule, "n_cycles": self.n_cycles, "cycle_epochs": self.cycle_epochs,
        }  # fmt: skip

    def _run(self, model: Model, rows: Rows, planted: Planted, n_classes: int) -> Recorded | None:
        if self.schedule == "cyclical":  # its jumps are to make it forget what it has learned by heart
            return super()._run(model, rows, planted, n_classes)
        return self._train_unmemorized(model, rows, planted, n_classes)

    def _recorded_scores(self, signals: Signals, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        if self.row_score == "averaged_margin":
            return log_margin(signals.require("mean_probs")[0], codes)
        if self.row_score == "aum":
            return self._last_epochs(signals.require("margins")[0]).mean(axis=0)
        losses = signals.require("losses")[0]
        if self.row_score == "loss":
            return -self._last_epochs(losses)[-1]
        losses = self._last_epochs(losses)
        return -(losses - losses.mean(axis=1, keepdims=True)).mean(axis=0)

    def _last_epochs(self, recorded: NDArray[Any]) -> NDArray[np.float64]:
        """Return the epochs of the window, (T, n)."""
        n_epochs = max(1, round(np.ceil(self.window * len(recorded) - 1e-9)))
        return epochs_of(recorded[-n_epochs:])

    def _log_odds(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.row_score not in ("loss", "mean_loss"):
            return scores
        # Minus a loss is log p, with p = 1 at the best row.
        return np.asarray(-np.log(np.expm1(np.clip(scores.max() - scores, 1e-12, 700.0))))

    # Rows that arrive later have no past.

    def _yardstick(self, probs: NDArray[Any], learned: NDArray[np.int64]) -> float:
        """Mean loss."""
        return float(-log_probability(probs, learned).mean())

    def _score_new(
        self, fitted: Trained, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> NDArray[np.float64]:
        (probs,) = signals.require("probs")
        if self.row_score in ("averaged_margin", "aum"):
            return log_margin(probs, codes)
        level = fitted.yardstick if self.row_score == "mean_loss" else 0.0
        return log_probability(probs, codes) + level

    def _check_numbers(self) -> None:
        check_at_least_1(self, "n_cycles", "cycle_epochs")
        check_positive(self, "mixup_alpha")
        check_number("window", self.window, Real, "in (0, 1]", lambda value: 0 < value <= 1)
        if self.row_score in ("averaged_margin", "loss") and self.window != 0.5:
            raise ParameterError(
                f"window must be 0.5 with row_score={self.row_score!r}, which has none to choose, got "
                f"{self.window!r}. Give it with row_score='mean_loss' or 'aum'."
            )
