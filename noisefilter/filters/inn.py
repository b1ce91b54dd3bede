"""INN: integration with the nearest neighbors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter import estimates, scores
from noisefilter.base import NoiseEstimate
from noisefilter.batches import Rows, at_hand, first_row, load_rows, rows_state
from noisefilter.errors import InputError, ParameterError
from noisefilter.models import Model, NetModel
from noisefilter.neighbors import nearest
from noisefilter.networks import PreActResNet18
from noisefilter.paths import Quadrature, mean_path_probs, mean_path_probs_between, quadrature
from noisefilter.states import array_state, behind, load_array, named
from noisefilter.trained import (
    NetworkFilter,
    check_at_least_1,
    check_positive,
    evaluated,
    log_odds,
    norms_of,
)
from noisefilter.verdict import Signals
from noisefilter.weights import Place, load_model, model_state

__all__ = ["INNScorer"]


class _Fitted(NamedTuple):
    """What judging rows that arrive later needs."""

    f: Model
    h: Model
    rows: Rows
    probs: NDArray[Any]
    features: NDArray[Any]
    given_features: bool
    recorded: bool  # whether there are probabilities of the training time to average with


class INNScorer(NetworkFilter):
    r"""Believes a label if the network keeps to it all along the way to the nearest rows.

    A network :math:`f` is trained on all rows, wrong labels included. On the straight path from a row to one
    of its :math:`L` nearest rows, found in the feature space of a network :math:`h`, a right label stays
    probable even after :math:`f` has memorized every label, and a wrong one does not:

    .. math:: \bar P_i = \frac1L \sum_{l=1}^{L} \int_0^1 f(a x_i + (1-a) x_l)\,da

    The paper's score is :math:`\bar P_i[y_i]`. The default averages :math:`\bar P_i` with the training-time
    probabilities of the second half of the epochs and turns it into the log-odds that the given label is the
    true class, corrected for how labels get confused (:func:`noisefilter.estimates.corrected_log_odds`).

    Parameters
    ----------
    estimator : skorch NeuralNetClassifier, classifier with predict_proba, or None, default=None
        Prototype of :math:`f`, cloned. An exact ``NeuralNetClassifier`` is trained by the fast loop of
        :class:`noisefilter.Net`; a subclass is trained as it is. Both are fed the rows of ``X`` in their own
        shape. ``None`` chooses a network for the shape of ``X``.
    network : type of torch.nn.Module, optional
        Instead of the default network (an MLP for rows, a small CNN for images), one of
        :mod:`noisefilter.networks` or your own class; sizes are filled in by name (``n_inputs`` or
        ``n_channels`` and ``image_size``, ``n_classes``).
    max_epochs : int, optional
        At most, where there are `probes`: when :math:`f` knows planted labels by heart
        (:func:`noisefilter.estimates.known_by_heart`) and its margins no longer tell them from other rows as
        well as before, it is trained anew for the epochs before that alone, in which its learning rate falls
        as it would have in all. Default 30.
    batch_size : int, optional
        Default 128, fewer below 2,048 rows.
    lr : float, optional
        Learning rate of SGD with Nesterov momentum 0.9, divided by 5 at half and at three quarters of
        the epochs. Default 0.05.
    objective : {"cross_entropy", "mixup"}, default="cross_entropy"
        What :math:`f` is trained by. The paper's is mixup.
    mixup_alpha : float, default=1.0
        Parameter of mixup's Beta distribution (the paper gives none).
    feature_network : {"f", "own"}, default="f"
        Whether :math:`h` is :math:`f` itself, at half the cost, or a second network trained by cross-entropy,
        as in the paper.
    n_neighbors : int, default=10
        :math:`L`; clipped to n - 1 with a warning.
    quadrature : {"gauss", "trapezoid", "simpson"}, default="gauss"
        Rule for the integral.
    n_interior : int, default=2
        Evaluations inside each path. The paper's ten trapezoids are nine.
    row_score : {"corrected", "margin", "probability"}, default="corrected"
        Corrected log-odds, logit margin of the given label in :math:`\bar P_i` (both beyond the paper), or
        the paper's :math:`\bar P_i[y_i]`.
    average : bool, default=True
        Average :math:`\bar P_i` with the mean training-time probabilities of the row (beyond the paper).
    split : {"auto", "probes", "joint", "beta", "gaussian", "threshold", "keep"}, default="auto"
        Decision rule. ``"auto"`` flags as many rows as the network contradicts beyond its own doubt
        (:func:`noisefilter.estimates.estimate_noise_rate`), worst scores first. The others are rules of
        :mod:`noisefilter.splits`. ``"beta"`` is the paper's two-component Beta mixture, for
        ``row_score="probability"``; ``"gaussian"`` is DivideMix's, for that or ``"margin"``. On clean data a
        mixture finds two components all the same.
    threshold : float, optional
        With ``split="threshold"``: rows that score at least this are clean.
    keep : float, optional
        With ``split="keep"``: share of rows to keep, in [0, 1].
    probes : float, optional
        Share of rows, drawn at random, that are trained under a wrong label, to show how wrong labels score
        in this very training; in [0, 0.5]. Their own scores are read by rank. Default: 4 %, up to 200 rows
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

    Notes
    -----
    Cost: one training (two with ``feature_network="own"``) and about ``1 + 0.75 * n_interior * n_neighbors``
    evaluations of every row: end points are shared, and so are paths between mutual neighbors.

    The planted rows are judged by rank, which is a little less sure. ``probes=0`` does without them; networks
    that memorize are then trained to the end, and find no wrong label.

    Where it fails: confusions that are consistent (every picture of one kind of dog labeled cat) look like a
    right label to any method that learns from these labels alone. Exact duplicates of a row are its
    neighbors; a path between them is a point, and the score is then :math:`f_{y}(x)`.

    Deviations from the paper, each undone by :meth:`as_published`: corrected log-odds instead of the
    probability; averaging with training-time probabilities; :math:`h` from :math:`f`; cross-entropy instead
    of mixup; two Gauss points instead of ten trapezoids; the default decision rule, with its planted labels,
    instead of a Beta mixture, and an end of the training where these are known; the small networks. Kept by
    it, though the paper names none of them: Nesterov's form of the momentum, weight decay, and training
    images that are shifted and, in color, mirrored. Eq. (1) prints :math:`1 - a x_l`, read as :math:`(1-a)
    x_l`.

    References
    ----------
    D. Park, S. Kim and Y. Kim, "INN: a method identifying clean-annotated samples via consistency effect in
    deep neural networks", arXiv:2106.15185, 2021. Eq. (1), Algorithm 1, Algorithm D.1 for the mixture.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import INNScorer
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> verdict = INNScorer(random_state=0).fit(X, y).verdict_
    >>> int(verdict.scores.argmin()), int(verdict.suggested_labels[7])
    (7, 0)
    """

    _choices: ClassVar = {
        "row_score": ("corrected", "margin", "probability"),
        "feature_network": ("f", "own"),
        "objective": ("cross_entropy", "mixup"),
    }
    _judging: ClassVar = NetworkFilter._judging | {"row_score"}

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
        feature_network: str = "f",
        n_neighbors: int = 10,
        quadrature: str = "gauss",
        n_interior: int = 2,
        row_score: str = "corrected",
        average: bool = True,
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
        self.feature_network = feature_network
        self.n_neighbors = n_neighbors
        self.quadrature = quadrature
        self.n_interior = n_interior
        self.row_score = row_score
        self.average = average
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
    def as_published(cls, **changes: Any) -> INNScorer:
        """Return a scorer with the paper's settings spelled out in its parameters.

        The paper trains for 50 to 300 epochs and finds the score stable over them; 50 here. It gives neither
        mixup's parameter nor the weight decay: 1.0 and 5e-4, as in the codes it builds on. For 32x32 images.

        Parameters
        ----------
        **changes
            Parameters to set on top.
        """
        published: dict[str, Any] = {
            "network": PreActResNet18, "max_epochs": 50, "batch_size": 128, "lr": 0.02, "objective": "mixup",
            "feature_network": "own", "n_neighbors": 10, "quadrature": "trapezoid", "n_interior": 9,
            "row_score": "probability", "average": False, "split": "beta",
        }  # fmt: skip
        return cls(**(published | changes))

    # Algorithm 1: train f and h, find neighbors in h, integrate f along the paths to them.

    def _collect(
        self, rows: Rows, codes: NDArray[np.int64], n_classes: int, features: NDArray[Any] | None, rng: Any
    ) -> tuple[Signals, _Fitted]:
        n = len(codes)
        planted = self._plant(codes, n_classes, rng)
        mixup = {"objective": self.objective, "mixup_alpha": self.mixup_alpha}
        f = self._build(rows, n_classes, ("mean_probs",) if self.average else (), rng, **mixup)
        recorded = self._train_unmemorized(f, rows, planted, n_classes)
        shared = features is not None or self.feature_network == "f"
        h = f if shared else self._build(rows, n_classes, (), rng, **mixup | {"objective": "cross_entropy"})
        if not shared:
            if isinstance(f, NetModel) and isinstance(h, NetModel):
                h.net.set_params(max_epochs=f.net.max_epochs)
            h.train(rows, codes, n_classes)
        probs, space = _evaluated(f, h, rows, features)
        neighbors = nearest(space, self._clipped_neighbors(n))
        path_probs = mean_path_probs(
            f.predict_batch, rows, probs, neighbors, self._rule(), verbose=self.verbose > 0
        )
        signals = Signals(
            probs=probs, path_probs=path_probs, features=space, feature_norms=norms_of(h, space, features),
            neighbors=neighbors,
            mean_probs=None if recorded is None else recorded.mean_probs,
            learning_rates=None if recorded is None else recorded.learning_rates,
            **planted.probes,
        )  # fmt: skip
        recorded_probs = signals.mean_probs is not None
        return signals, _Fitted(f, h, rows, probs, space, features is not None, recorded_probs)

    def _rule(self) -> Quadrature:
        return quadrature(self.quadrature, self.n_interior)

    def _clipped_neighbors(self, n: int) -> int:
        if self.n_neighbors >= n:
            warnings.warn(
                f"n_neighbors must be less than the {n} rows, got {self.n_neighbors}; {n - 1} are used.",
                UserWarning,
                stacklevel=5,
            )
        return int(min(self.n_neighbors, n - 1))  # faiss knows no numpy integer

    # The judgement, from signals alone.

    def _blend(self, path_probs: NDArray[Any], mean_probs: NDArray[Any] | None) -> NDArray[np.float64]:
        if not self.average or mean_probs is None:
            return np.asarray(path_probs, dtype=np.float64)
        blend: NDArray[np.float64] = np.add(path_probs, mean_probs, dtype=np.float64)
        blend /= 2
        return blend

    def _class_probs(self, signals: Signals) -> NDArray[np.float64]:
        (path_probs,) = signals.require("path_probs")
        return self._blend(path_probs, signals.mean_probs)

    def _doubt_ratio(self, signals: Signals) -> tuple[float, float]:
        blended = self.average and signals.mean_probs is not None
        return estimates.BLENDED_DOUBT if blended else estimates.PATH_DOUBT

    def _score(self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate) -> NDArray[np.float64]:
        return self._row_scores(self._class_probs(signals), codes, noise)

    def _row_scores(
        self, probs: NDArray[np.float64], codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> NDArray[np.float64]:
        if self.row_score == "corrected":
            return estimates.corrected_log_odds(probs, codes, noise.transition)
        score = scores.log_margin if self.row_score == "margin" else scores.given_probability
        return score(probs, codes)

    def _probe_scores(self, signals: Signals, noise: NoiseEstimate) -> NDArray[np.float64]:
        rows, planted = signals.require("probe_rows", "probe_codes")
        return self._row_scores(self._class_probs(signals)[rows], planted, noise)

    def _log_odds(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_odds(scores) if self.row_score == "probability" else scores

    # Rows that arrive later.

    def _collect_new(self, fitted: _Fitted, rows: Rows) -> Signals:
        if fitted.given_features:
            raise ParameterError("features must come from the network for score_new, got features= in fit.")
        probs, space = _evaluated(fitted.f, fitted.h, rows, None)
        neighbors = nearest(fitted.features, self._clipped_neighbors(len(fitted.rows)), queries=space)
        path_probs = mean_path_probs_between(
            fitted.f.predict_batch, rows, probs, fitted.rows, fitted.probs, neighbors, self._rule()
        )
        # New rows have no past: the trained network stands in for its average over the epochs.
        return Signals(probs=probs, mean_probs=probs if fitted.recorded else None, path_probs=path_probs)

    def _network_features(self, fitted: _Fitted, rows: Rows) -> NDArray[Any]:
        return _evaluated(fitted.h, fitted.h, rows, None)[1]

    # What a file keeps.

    def _fitted_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        f, h, rows, probs, features, given, recorded = self._network()
        data, images = rows_state(rows)
        own, rest_f = model_state(f)
        tensors, rest = named("f.", own), {"f": rest_f, "h": None, "images": images}
        if h is not f:
            own, rest["h"] = model_state(h)
            tensors |= named("h.", own)
        tensors |= {"rows": data, "probs": array_state(probs, "probs")[0]}
        tensors["features"], rest["features"] = array_state(features, "features")
        return tensors, rest | {"given_features": given, "recorded": recorded}

    def _load_fitted(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        n, n_classes = len(self.verdict_), len(self.classes_)
        rows = load_rows(tensors["rows"], rest["images"], at_hand(self.device))
        place = Place(rows.shape, n_classes, rows.device)
        f = h = load_model(behind("f.", tensors), rest["f"], place)
        if rest["h"] is not None:
            h = load_model(behind("h.", tensors), rest["h"], place)
        probs, features = (
            load_array(tensors["probs"], None),
            load_array(tensors["features"], rest["features"]),
        )
        if len(rows) != n:
            raise InputError(f"There must be {n} rows, as many as labels, got {len(rows)}.")
        Signals(probs=probs, features=features).check(n, n_classes)
        given, recorded = bool(rest["given_features"]), bool(rest["recorded"])
        fitted = _Fitted(f, h, rows, probs, features, given, recorded)
        width = self._network_features(fitted, first_row(rows)).shape[1]
        if not given and features.shape[1] != width:
            raise InputError(f"features must be {width} for a row, as the network has them, got others.")
        self._check_columns(rows.shape)
        self._fitted = fitted

    def _check_numbers(self) -> None:
        check_at_least_1(self, "n_neighbors", "n_interior")
        check_positive(self, "mixup_alpha")
        self._rule()

    def _check_split(self) -> None:
        super()._check_split()
        # Beta needs [0, 1]; on corrected log-odds, which have no upper end, a Gaussian splits the clean rows.
        mixtures = {"beta": ("probability",), "gaussian": ("probability", "margin")}
        if self.row_score not in mixtures.get(self.split, (self.row_score,)):
            allowed_scores = " or ".join(map(repr, mixtures[self.split]))
            raise ParameterError(
                f"row_score must be {allowed_scores} with split={self.split!r}, got {self.row_score!r}."
            )


def _evaluated(
    f: Model, h: Model, rows: Rows, features: NDArray[Any] | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the probabilities (n, K) of f, and the features (n, d) given or else of h."""
    if features is None and f is not h:  # else one pass gives both
        features = h.evaluate(rows, True)[1]
    return evaluated(f, rows, features)
