"""NetworkFilter: what the filters share that train a network of their own."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit

from noisefilter import splits
from noisefilter.base import BaseFilter, NoiseEstimate, check_number
from noisefilter.batches import Rows
from noisefilter.errors import ParameterError
from noisefilter.mixtures import mixture
from noisefilter.models import Model, NetModel, SklearnModel, build_model, feeds_raw
from noisefilter.net import Recorded, check_finite_outputs
from noisefilter.scores import feature_norms
from noisefilter.splits import Split
from noisefilter.verdict import Signals

_AT_LEAST_1 = ("a whole number of at least 1", lambda value: value >= 1)
_POSITIVE = ("greater than 0 and finite", lambda value: 0 < value < np.inf)


class Planted(NamedTuple):
    """Labels to train on, some of them wrong on purpose.

    Attributes
    ----------
    trained : (n,) array
        Class numbers, the planted ones among them.
    probes : dict
        ``probe_rows`` and ``probe_codes`` of :class:`~noisefilter.Signals`; empty where none were planted.
    """

    trained: NDArray[np.int64]
    probes: dict[str, Any]


class NetworkFilter(BaseFilter):
    """A filter that trains one network, or two alike, and may plant wrong labels into the training.

    On top of those of :class:`BaseFilter` it has the parameters of the network (``estimator``, ``network``,
    ``max_epochs``, ``batch_size``, ``lr``), of the decision (``split``, ``threshold``, ``keep``), and
    ``probes``.
    """

    estimator: Any
    network: Any
    max_epochs: int | None
    batch_size: int | None
    lr: float | None
    split: str
    threshold: float | None
    keep: float | None
    probes: float | None

    # Rules for split=, and parameters that must be one of a few values; a filter may name others.
    _splits: ClassVar[tuple[str, ...]] = ("auto", "probes", "joint", "beta", "gaussian", "threshold", "keep")
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    # Parameters that only the judgement reads: what training tells is the same whatever they are.
    _judging: ClassVar[frozenset[str]] = frozenset(
        {"split", "threshold", "keep", "open_set", "output", "keep_signals", "verbose"}
    )
    # Whether scores may lie outside [0, 1], so that split="beta" must scale them.
    _scales: ClassVar[bool] = False

    def _build(self, rows: Rows, n_classes: int, record: tuple[str, ...], rng: Any, **training: Any) -> Model:
        """Return an untrained model; ``training`` are further parameters of :class:`noisefilter.Net`."""
        settings = {
            "max_epochs": self.max_epochs, "batch_size": self.batch_size, "lr": self.lr,
            "verbose": self.verbose,
        }  # fmt: skip
        return build_model(
            self.estimator, rows, n_classes, network=self.network, settings=settings, training=training,
            record=record, seed=int(rng.randint(2**31 - 1)),
        )  # fmt: skip

    def _training_key(self, seed: int) -> Any:
        own = seed if self.random_state is None else self.random_state
        if not (self.keep_signals and isinstance(own, Integral)):  # other seeds make no two trainings alike
            return None
        values = self.get_params(deep=False) | {"random_state": own}
        planting = self.probes is None and self._wants_probes()
        plain = (str, Real, type, tuple)  # others, such as a prototype, are alike if they are one
        return (
            type(self),
            planting,
            {
                name: value if isinstance(value, plain) else id(value)
                for name, value in values.items()
                if name not in self._judging
            },
        )

    def _plant(self, codes: NDArray[np.int64], n_classes: int, rng: Any) -> Planted:
        """Draw the rows that are trained under a wrong label on purpose, and these labels."""
        wanted = self.probes
        if wanted is None:
            wanted = splits.probe_share(len(codes)) if self._wants_probes() else 0.0
        draw = np.random.default_rng(rng.randint(2**31 - 1))
        rows, wrong = splits.plant_probes(codes, n_classes, wanted, draw)
        trained = codes.copy()
        trained[rows] = wrong
        return Planted(trained, {"probe_rows": rows, "probe_codes": wrong} if len(rows) else {})

    def _train_unmemorized(
        self, model: Model, rows: Rows, planted: Planted, n_classes: int
    ) -> Recorded | None:
        """Train, no longer than until labels begin to be known by heart where that can be seen."""
        if isinstance(model, NetModel) and planted.probes:
            return model.train_unmemorized(rows, planted.trained, n_classes, planted.probes["probe_rows"])
        return model.train(rows, planted.trained, n_classes)

    def _wants_probes(self) -> bool:
        """Whether anything reads them."""
        return self.split in ("auto", "probes")

    def _counts_strangers(self) -> bool:
        return self.split == "auto"  # other rules say themselves how many rows they reject

    def _probe_scores(self, signals: Signals, noise: NoiseEstimate) -> NDArray[np.float64]:
        """Return the scores of the planted labels, for ``split="probes"``."""
        rows = signals.require("probe_rows", "probe_codes")[0]
        codes = learned_codes(signals, np.zeros(len(self._class_probs(signals)), dtype=np.int64))
        return self._learned_scores(signals, codes, noise)[rows]

    def _learned_scores(
        self, signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> NDArray[np.float64]:
        """Return the scores (n,) against the labels that were learned, the planted ones among them."""
        return self._score(signals, codes, noise)

    def _log_odds(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return scores in the same order as log-odds, which ``split="auto"`` reads ``clean_proba`` off."""
        return scores

    def _split(
        self, scores: NDArray[np.float64], signals: Signals, codes: NDArray[np.int64], noise: NoiseEstimate
    ) -> Split:
        if self.split == "auto":
            split, odds = splits.at_rate(scores, noise.rate), self._log_odds(scores)
            if odds is scores:
                return split
            return split._replace(clean_proba=splits.at_rate(odds, noise.rate).clean_proba)
        if self.split == "probes":
            return splits.probes(scores, self._probe_scores(signals, noise), len(noise.transition))
        if self.split == "joint":
            return _joint(self._class_probs(signals), codes, scores, signals.probe_rows)
        if self.threshold is not None:
            return splits.threshold(scores, self.threshold)
        if self.keep is not None:
            return splits.keep_fraction(scores, self.keep)
        kind: Literal["beta", "gaussian"] = "beta" if self.split == "beta" else "gaussian"
        return mixture(scores, kind, scale=self._scales)

    def _feeds_raw(self) -> bool:
        return feeds_raw(self.estimator)

    # -- checks -----------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name, values in {**self._choices, "split": self._splits}.items():
            if getattr(self, name) not in values:
                raise ParameterError(f"{name} must be one of {values}, got {getattr(self, name)!r}.")
        check_network(self)
        for name, kind, rule, holds in (
            ("threshold", Real, "finite", np.isfinite),
            ("keep", Real, "in [0, 1]", lambda value: 0 <= value <= 1),
            ("probes", Real, "in [0, 0.5]", lambda value: 0 <= value <= 0.5),
        ):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), kind, rule, holds)
        self._check_numbers()
        self._check_split()

    def _check_numbers(self) -> None:
        """Check the numbers that a filter adds."""

    def _check_split(self) -> None:
        for name in ("threshold", "keep"):
            value = getattr(self, name)
            if (value is not None) != (self.split == name):
                raise ParameterError(
                    f"{name} must be given with split={name!r} and only then, got {name}={value!r} "
                    f"with split={self.split!r}."
                )
        if self.split == "probes" and self.probes == 0:
            raise ParameterError("probes must be greater than 0 with split='probes', got 0.")


def check_network(estimator: Any) -> None:
    """Raise ParameterError unless ``network``, ``max_epochs``, ``batch_size`` and ``lr`` can be."""
    network = estimator.network
    if not (network is None or isinstance(network, type)):
        raise ParameterError(
            f"network must be a class, got an object of type {type(network).__name__}. "
            "An instance would carry its trained weights into every fold."
        )
    for name, kind, rule, holds in (
        ("max_epochs", Integral, *_AT_LEAST_1),
        ("batch_size", Integral, "a whole number of at least 2", lambda value: value >= 2),
        ("lr", Real, *_POSITIVE),
    ):
        if getattr(estimator, name) is not None:
            check_number(name, getattr(estimator, name), kind, rule, holds)


def check_at_least_1(estimator: Any, *names: str) -> None:
    """Raise ParameterError unless these parameters are whole numbers of at least 1."""
    for name in names:
        check_number(name, getattr(estimator, name), Integral, *_AT_LEAST_1)


def check_positive(estimator: Any, *names: str) -> None:
    """Raise ParameterError unless these parameters are finite numbers greater than 0."""
    for name in names:
        check_number(name, getattr(estimator, name), Real, *_POSITIVE)


def planted_before(
    probes: float | None, codes: NDArray[np.int64], n_classes: int, judged: bool, rng: np.random.RandomState
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw rows that a warm-up trains under a wrong label, and these labels; none behind a filter.

    Raises
    ------
    ParameterError
        If there is a share of ``probes``, and a filter has ``judged`` before.
    """
    if judged and probes:
        raise ParameterError(
            f"probes must be None where a filter has judged before, got {probes!r}: the rate is "
            "known, and rows that it rejects are not warmed up on."
        )
    share = splits.probe_share(len(codes)) if probes is None and not judged else probes or 0.0
    return splits.plant_probes(codes, n_classes, share, np.random.default_rng(rng.randint(2**31 - 1)))


def check_drops(estimator: Any) -> None:
    """Raise ParameterError unless ``lr_drops`` and ``lr_drop_factor`` can be, with this ``estimator``."""
    check_positive(estimator, "lr_drop_factor")
    drops = estimator.lr_drops
    if drops is None:
        return
    if not isinstance(drops, tuple | list) or not all(isinstance(s, float) and 0 < s < 1 for s in drops):
        raise ParameterError(f"lr_drops must be shares in (0, 1), got {drops!r}.")
    if estimator.estimator is not None:
        raise ParameterError(
            f"lr_drops must be None when an estimator is given, got {drops!r}. Set it on the estimator."
        )


def check_clustering(estimator: Any) -> None:
    """Raise ParameterError unless parameters of pre-training, neighbors and SCAN can be."""
    check_at_least_1(estimator, "n_neighbors", "pretrain_epochs")
    rule = "at least 0 and finite"
    check_number("scan_entropy", estimator.scan_entropy, Real, rule, lambda value: 0 <= value < np.inf)
    if estimator.pretrain not in (None, "simclr"):
        raise ParameterError(f"pretrain must be 'simclr' or None, got {estimator.pretrain!r}.")


def log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-odds that are finite at 0 and 1, too."""
    return np.asarray(logit(np.clip(probability, 1e-12, 1 - 1e-12)))


def learned_codes(signals: Signals, codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class numbers (n,) that the network learned: those given, but for the planted ones."""
    learned = codes.copy()
    if signals.probe_rows is not None:
        rows, planted = signals.require("probe_rows", "probe_codes")
        learned[rows] = planted
    return learned


def _joint(
    probs: NDArray[Any], codes: NDArray[np.int64], scores: NDArray[np.float64], planted: NDArray[Any] | None
) -> Split:
    """Apply the joint, and judge planted rows, who learned another label, by the rank of their scores."""
    if planted is None:
        return splits.joint(probs, codes)
    others = np.delete(np.arange(len(codes)), planted)
    split = splits.joint(probs[others], codes[others])
    clean = scores >= np.quantile(scores[others], 1.0 - split.clean.mean())
    clean[others] = split.clean
    return split._replace(clean=clean)


def evaluated(
    model: Model, rows: Rows, features: NDArray[Any] | None = None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the probabilities (n, K) of a trained model, and the features (n, d) given or else its own."""
    probs, own = model.evaluate(rows, features is None)
    features = np.asarray(own) if features is None else features
    check_finite_outputs(probs, features)
    return probs, features


def norms_of(model: Model, features: NDArray[Any], given: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return the norms (n,) of features a network made itself, ``None`` where they come from elsewhere."""
    if given is not None or isinstance(model, SklearnModel):
        return None
    return feature_norms(features)
