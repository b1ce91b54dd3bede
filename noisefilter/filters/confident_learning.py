"""Confident learning: labels that a classifier which has not seen them contradicts, class by class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter.base import NoiseEstimate, check_number
from noisefilter.batches import Rows, at_hand, first_row, load_rows, picked, rows_state
from noisefilter.confident import RULES, confusions, count_confident, label_issues
from noisefilter.errors import InputError
from noisefilter.models import Model
from noisefilter.net import check_finite_outputs
from noisefilter.scores import given_probability, normalized_margin
from noisefilter.splits import Split
from noisefilter.states import behind, named
from noisefilter.trained import NetworkFilter, evaluated
from noisefilter.verdict import Signals
from noisefilter.weights import Place, load_model, model_state

__all__ = ["ConfidentLearningSelector"]


class _Fitted(NamedTuple):
    models: list[Model]
    rows: Rows


class ConfidentLearningSelector(NetworkFilter):
    r"""Believes a label unless a classifier that has not seen it is confident of another one.

    The rows are dealt into folds, and each fold is given probabilities :math:`\hat p_i` by a classifier that
    was trained on the others alone. A row labeled k counts as confidently j where :math:`\hat p_i[j] \ge
    t_j`, the mean of :math:`\hat p[j]` over the rows labeled j. These counts, scaled to the sizes of the
    classes, estimate the joint distribution of given and true labels, and say how many rows of each pair to
    reject:

    .. math:: C_{kj} = \#\{i : y_i = k,\ \hat p_i[j] \ge t_j,\ j = \arg\max_{l : \hat p_i[l] \ge t_l} \hat
        p_i[l]\}

    For probabilities that are there already, :func:`noisefilter.judge` decides by the same rules.

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier, classifier with predict_proba, or None, default=None
        Prototype, cloned for every fold. An exact ``NeuralNetClassifier`` is trained by the fast loop of
        :class:`noisefilter.Net`; a subclass is trained as it is. ``None`` chooses a network for the shape of
        ``X``.
    n_folds : int, default=5
        Folds, at least 2; of fewer rows than folds each is one, with a warning. Every class is spread over
        the folds as evenly as it can be, and a class of fewer rows than folds is missing from some. More
        folds leave more rows to learn from, and take longer.
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
    row_score : {"self_confidence", "normalized_margin"}, default="self_confidence"
        :math:`\hat p_i[y_i]`, or :math:`(1 + \hat p_i[y_i] - \max_{c \ne y_i} \hat p_i[c]) / 2`; both in
        [0, 1].
    split : str, default="prune_by_noise_rate"
        Decision rule, one of those that :func:`noisefilter.confident.label_issues` explains
        (``"prune_by_noise_rate"``, ``"prune_by_class"``, ``"both"``, ``"confident_learning"``,
        ``"low_self_confidence"``, ``"low_normalized_margin"``), ``"threshold"`` or ``"keep"``.
    threshold : float, optional
        With ``split="threshold"``: rows that score at least this are clean.
    keep : float, optional
        With ``split="keep"``: share of rows to keep, in [0, 1].
    open_set : bool, default=False
        Look for strangers too: divide the rejected rows into wrong labels and rows that belong to no class,
        which are those the classifier is undecided about (:func:`noisefilter.scores.ood_score`). None is
        rejected for being strange alone.
    output : {"rows", "features"}, default="rows"
        What :meth:`transform` gives: the rows, or features of the network of the first fold, which has not
        learned the labels of that fold.
    channels : {"first", "last"}, optional
        Where 4-D images have their channels, if the shape does not tell.
    device : str, default="auto"
        ``"auto"`` is CUDA where there is a GPU. The ``device`` of a prototype is not read.
    keep_signals : bool, default=True
        Keep ``signals_``, to judge again by :meth:`fit_signals` with other parameters. ``signals_.probs`` are
        the out-of-sample probabilities.
    verbose : int, default=0
        1 shows a progress bar, and says beforehand how long a training will take.
    random_state : int, RandomState or None, default=None
        Seeds everything; the global generators are left as they were.

    Raises
    ------
    InputError
        If no fold leaves two classes to learn from.

    Notes
    -----
    Cost: ``n_folds`` trainings on ``1 - 1 / n_folds`` of the rows each, and one evaluation of every row. The
    other filters train once.

    A fold that leaves rows of one class only is predicted to be of that class, without a training. Later rows
    (:meth:`score_new`) get the mean of the probabilities of all folds' classifiers.

    Where two classes tie, the one that comes first in ``y`` goes first, so that names do not matter: the rows
    rejected are those of cleanlab for labels numbered in that order. :func:`noisefilter.judge` goes by the
    sorted order, as cleanlab does. There is no ``clean_proba``.

    Where it fails: a classifier that knows little contradicts many right labels. Confusions that are
    consistent look like a right label to it, as to any method that learns from these labels alone; so do
    exact duplicates with the same wrong label, which fall into different folds.

    Deviations from the paper: where a row reaches the thresholds of several classes, it counts for its most
    probable class of all, not for the most probable of those reached; thresholds are undercut by 1e-6; every
    class keeps a row; the counts are rounded; a label within 1e-6 of the most probable class is never
    rejected. In all of these it follows cleanlab, by the paper's first author.

    References
    ----------
    C. Northcutt, L. Jiang and I. Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR
    70, 2021, arXiv:1911.00068. Eq. (1) to (3) for the joint, section 3.2 for the rules.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from noisefilter import ConfidentLearningSelector
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> model = LogisticRegression(max_iter=1000)
    >>> verdict = ConfidentLearningSelector(model, random_state=0).fit(X, y).verdict_
    >>> int(verdict.scores.argmin()), int(verdict.suggested_labels[7])
    (7, 0)
    """

    probes = 0.0  # rows a classifier has not seen need no planted ones beside them
    _splits: ClassVar = (*RULES, "threshold", "keep")
    _choices: ClassVar = {"row_score": ("self_confidence", "normalized_margin")}
    _judging: ClassVar = NetworkFilter._judging | {"row_score"}

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_folds: int = 5,
        network: Any = None,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        row_score: str = "self_confidence",
        split: str = "prune_by_noise_rate",
        threshold: float | None = None,
        keep: float | None = None,
        open_set: bool = False,
        output: str = "rows",
        channels: str | None = None,
        device: str = "auto",
        keep_signals: bool = True,
        verbose: int = 0,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.n_folds = n_folds
        self.network = network
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.row_score = row_score
        self.split = split
        self.threshold = threshold
        self.keep = keep
        self.open_set = open_set
        self.output = output
        self.channels = channels
        self.device = device
        self.keep_signals = keep_signals
        self.verbose = verbose
        self.random_state = random_state

    @classmethod
    def as_published(cls, **changes: Any) -> ConfidentLearningSelector:
        """Return a selector with the method's settings spelled out in its parameters.

        They are the defaults. The paper's method begins with probabilities; how they come about, networks and
        trainings included, it leaves to its experiments, and so do we.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {"row_score": "self_confidence", "split": "prune_by_noise_rate"}
        return cls(**(published | changes))

    # Out-of-sample probabilities, by cross-validation.

    def _collect(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, features: NDArray[Any] | None, rng: Any
    ) -> tuple[Signals, _Fitted]:
        fold_of = _dealt(codes, self._clipped_folds(len(codes)), rng)
        probs = np.zeros((len(codes), n_classes))
        models: list[Model] = []
        for fold in range(fold_of.max() + 1):
            learned, asked = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
            seen = np.unique(codes[learned])
            if len(seen) == 1:
                probs[asked, seen] = 1.0
                continue
            part = picked(rows, learned)
            model = self._build(part, n_classes, (), rng)
            model.train(part, codes[learned], n_classes)
            probs[asked] = _predicted(model, picked(rows, asked))
            models.append(model)
        if not models:
            counts = np.bincount(codes).tolist()
            raise InputError(
                f"y must leave two classes to learn from when a fold is taken out, got classes of {counts} "
                "rows."
            )
        return Signals(probs=probs, features=features), _Fitted(models, first_row(rows))

    def _clipped_folds(self, n: int) -> int:
        if self.n_folds > n:
            warnings.warn(
                f"n_folds must be at most the {n} rows, got {self.n_folds}; {n} are used.",
                UserWarning,
                stacklevel=5,
            )
        return min(self.n_folds, n)

    # The judgement, from probabilities alone.

    def _class_probs(self, signals: Signals) -> NDArray[Any]:
        return signals.require("probs")[0]

    def _estimate_noise(
        self, probs: NDArray[Any], signals: Signals, codes: NDArray[np.int64]
    ) -> NoiseEstimate:
        joint = count_confident(probs, codes).joint
        return NoiseEstimate(1.0 - float(joint.trace()) / len(codes), confusions(joint))

    def _score(self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate) -> NDArray[np.float64]:
        score = given_probability if self.row_score == "self_confidence" else normalized_margin
        return score(self._class_probs(signals), codes)

    def _split(
        self, scores: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> Split:
        if self.split not in RULES:
            return super()._split(scores, signals, codes, noise)
        return Split(~label_issues(self._class_probs(signals), codes, self.split), None, None, noise.rate)

    # Rows that arrive later.

    def _collect_new(self, fitted: _Fitted, rows: Rows) -> Signals:
        return Signals(probs=np.mean([_predicted(model, rows) for model in fitted.models], axis=0))

    def _network_features(self, fitted: _Fitted, rows: Rows) -> NDArray[Any]:
        return evaluated(fitted.models[0], rows)[1]

    # What a file keeps.

    def _fitted_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        models, rows = self._network()
        row, images = rows_state(rows)
        tensors, described = {"row": row}, []
        for fold, model in enumerate(models):
            own, rest = model_state(model)
            tensors |= named(f"model_{fold}.", own)
            described.append(rest)
        return tensors, {"models": described, "images": images}

    def _load_fitted(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        rows = load_rows(tensors["row"], rest["images"], at_hand(self.device))
        place = Place(rows.shape, len(self.classes_), rows.device)
        self._check_columns(rows.shape)
        models: list[Model] = [
            load_model(behind(f"model_{fold}.", tensors), told, place)
            for fold, told in enumerate(rest["models"])
        ]
        if not models:
            raise InputError("What is loaded must have a model of each fold, got none.")
        self._fitted = _Fitted(models, rows)

    def _check_numbers(self) -> None:
        check_number("n_folds", self.n_folds, Integral, "a whole number of at least 2", lambda n: n >= 2)


def _dealt(codes: NDArray[np.int64], n_folds: int, rng: Any) -> NDArray[np.int64]:
    """Return the fold of each row, (n,): class after class, rows are dealt out in random order."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    fold_of = np.empty(len(codes), dtype=np.int64)
    fold_of[order] = np.arange(len(codes)) % n_folds
    return fold_of


def _predicted(model: Model, rows: Rows) -> NDArray[Any]:
    probs = model.evaluate(rows, False)[0]
    check_finite_outputs(probs)
    return probs
