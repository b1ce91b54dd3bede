"""VoteFilter: several filters, one verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.base import clone
from sklearn.utils import Bunch
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import check_is_fitted

from noisefilter import splits
from noisefilter.base import BaseFilter, check_number
from noisefilter.errors import InputError, InputTypeError, ParameterError
from noisefilter.splits import Split
from noisefilter.step import BaseStep
from noisefilter.trainer import BaseTrainer
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Signals, Verdict

__all__ = ["VoteFilter"]


class VoteFilter(_BaseComposition, BaseStep, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Believes a label if several filters together do.

    Every filter gives a row the rank of its score among all rows, from 0 (most suspicious) to 1, and the
    score of a row is the mean of its ranks. Filters that make different mistakes correct each other, and no
    filter counts for more because its scores are spread wider.

    Parameters
    ----------
    filters : list of (str, filter) pairs
        Cloned. Their parameters have these names in front, as in ``set_params(inn__lr=0.1)``. A trainer has a
        verdict, and so a vote, too; but it judges neither recorded signals nor rows that arrive later.
    vote : {"rank", "agreement"}, default="rank"
        - ``"rank"``: the rows of lowest score are rejected, as many as the filters reject on average.
        - ``"agreement"``: a row is rejected if at least `min_votes` filters reject it.
    min_votes : int, optional
        With ``vote="agreement"``: more than half of the filters by default. With 1 the most wrong labels are
        found, with the number of filters the fewest right ones are flagged.
    random_state : int, RandomState or None, default=None
        Gives every filter whose own is None one and the same seed, and draws the rows of
        :meth:`fit_transform`.

    Attributes
    ----------
    filters_ : list of filters
        The fitted clones.
    named_filters_ : Bunch
        The same by name.
    verdict_ : Verdict
        The judgement. ``clean_proba``, ``estimated_noise_rate`` and ``transition_matrix`` are means over the
        filters, ``alternatives`` what most of them name, the range of the noise rate covers all of theirs.
    scores_, clean_mask_, id_mask_, ood_mask_, classes_
        As in every filter.

    Raises
    ------
    ParameterError
        If there are no filters, names are not unique strings without ``"__"``, or `min_votes` cannot be.
    InputTypeError
        If one of the filters is none; with a trainer among them, in :meth:`fit_signals` and
        :meth:`score_new`.

    Notes
    -----
    Cost: one training for each group of filters that train alike, which are those of one class with the same
    training parameters and an integer seed (their own, or that of `random_state`): they judge the same
    signals by other scores or rules. The result is that of training them apart, to the last bit.

    A rejected row is out of distribution if more than half of the filters with ``open_set=True`` that reject
    it say so; the others have no vote in this.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from noisefilter import INNScorer, VoteFilter
    >>> X, y = load_iris(return_X_y=True)
    >>> y[7] = 2  # a wrong label
    >>> inn, margin = INNScorer(random_state=0), INNScorer(row_score="margin", random_state=0)
    >>> verdict = VoteFilter([("inn", inn), ("margin", margin)]).fit(X, y).verdict_  # one training
    >>> bool(verdict.clean_mask[7]), int(verdict.suggested_labels[7])
    (False, 0)
    """

    def __init__(
        self,
        filters: Sequence[tuple[str, Any]],
        *,
        vote: str = "rank",
        min_votes: int | None = None,
        random_state: Any = None,
    ):
        self.filters = filters
        self.vote = vote
        self.min_votes = min_votes
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with ``deep=True`` also those of the filters as ``name__parameter``."""
        params: dict[str, Any] = self._get_params("filters", deep=deep)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also of the filters as ``name__parameter``, or a filter itself by its name."""
        self._set_params("filters", **params)
        return self

    def fit(self, X: Any, y: Any = None, features: Any = None) -> Self:
        """Let every filter judge all rows. A fit that fails leaves everything as it was.

        Parameters
        ----------
        X : array, DataFrame, images, Tensor, memory map or Dataset
            Whatever the filters take.
        y : (n,) array
            Labels of any kind; at least two classes.
        features : (n, d') array, optional
            An embedding of the rows from anywhere, for all filters.

        Returns
        -------
        self
        """
        members, keys = self._members()
        for i, member in enumerate(members):
            twin = keys.index(keys[i])
            if keys[i] is None or twin == i:
                member.fit(X, y, features)
            else:
                member._fit_like(members[twin], y)
        self._take(members)
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(members[0], name):
                setattr(self, name, getattr(members[0], name))
        return self

    def fit_signals(self, signals: Signals | Mapping[str, Any], y: Any) -> Self:
        """Judge rows from signals recorded elsewhere; nothing is trained.

        Parameters
        ----------
        signals : Signals, or mapping of str to Signals
            One record for all filters, or one for each by its name.
        y : (n,) array
            Given labels.

        Returns
        -------
        self
        """
        members, _ = self._members()
        _refuse_trainers(members, "fit_signals")
        names = [name for name, _ in self.filters]
        if not isinstance(signals, Signals) and set(signals) != set(names):
            raise InputError(
                f"signals must be Signals or a mapping with the names {names}, got {list(signals)}."
            )
        for name, member in zip(names, members, strict=True):
            member.fit_signals(signals if isinstance(signals, Signals) else signals[name], y)
        self._take(members)
        return self

    def score_new(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Judge rows that arrive later: the mean rank their scores would have had in fit.

        Parameters
        ----------
        X : array
            New rows, of the kind ``fit`` saw.
        y : (m,) array
            Their labels, all of them known from ``fit``.

        Returns
        -------
        (m,) array
            Scores on the scale of ``scores_``.
        """
        check_is_fitted(self, "verdict_")
        _refuse_trainers(self.filters_, "score_new")
        ranks = []
        for member in self.filters_:
            known, new = np.sort(member.scores_), member.score_new(X, y)
            places = [np.searchsorted(known, new, side) for side in ("left", "right")]
            ranks.append(np.mean(places, axis=0) / len(known))
        return np.asarray(np.mean(ranks, axis=0))

    # -- the members ------------------------------------------------------------------------------

    def _members(self) -> tuple[list[Any], list[Any]]:
        """Return clones, ready to fit, and for each a key that those share that train alike."""
        self._check_parameters()
        given, seed = [member for _, member in self.filters], self._seed()
        keys = [member._training_key(seed) for member in given]
        members = [clone(member) for member in given]
        for member in members:
            if member.random_state is None:
                member.set_params(random_state=seed)
        return members, keys

    def _take(self, members: list[Any]) -> None:
        """Count the votes, and only then let anything be seen of this fit."""
        verdict = self._voted([member.verdict_ for member in members])
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        self.filters_ = members
        self.named_filters_ = Bunch(**dict(zip((name for name, _ in self.filters), members, strict=True)))
        self.classes_ = verdict.classes
        self.verdict_ = verdict

    # -- the vote ---------------------------------------------------------------------------------

    def _voted(self, verdicts: list[Verdict]) -> Verdict:
        first = verdicts[0]
        scores = np.mean([(rankdata(verdict.scores) - 0.5) / len(first) for verdict in verdicts], axis=0)
        split = self._split(scores, np.array([verdict.clean_mask for verdict in verdicts]))
        rates = [verdict.estimated_noise_rate for verdict in verdicts]
        ranges = [verdict.noise_rate_interval for verdict in verdicts if verdict.noise_rate_interval]
        return Verdict(
            labels=first.labels,
            classes=first.classes,
            scores=scores,
            partition=_partition(split.clean, verdicts),
            alternatives=_most_named(verdicts),
            threshold=split.threshold,
            clean_proba=_mean([verdict.clean_proba for verdict in verdicts]),
            open_set=any(verdict.open_set for verdict in verdicts),
            estimated_noise_rate=float(np.mean(rates)),
            noise_rate_interval=_covering(ranges) if len(ranges) == len(verdicts) else None,
            transition_matrix=_mean([verdict.transition_matrix for verdict in verdicts]),
            method=f"{type(self).__name__} ({', '.join(verdict.method for verdict in verdicts)})",
        )

    def _split(self, scores: NDArray[np.float64], clean: NDArray[np.bool_]) -> Split:
        """Decide from the mean ranks (n,) and what each member takes for clean (members, n)."""
        if self.vote == "rank":
            return splits.at_rate(scores, float(1.0 - clean.mean()))
        needed = len(clean) // 2 + 1 if self.min_votes is None else self.min_votes
        return Split((~clean).sum(axis=0) < needed, None, None, None)

    # -- checks -----------------------------------------------------------------------------------

    def _check_parameters(self) -> None:
        if self.vote not in ("rank", "agreement"):
            raise ParameterError(f"vote must be 'rank' or 'agreement', got {self.vote!r}.")
        self._check_filters()
        if self.min_votes is not None:
            most = len(self.filters)
            rule = f"a whole number from 1 to the {most} filters, and given with vote='agreement' only"
            check_number("min_votes", self.min_votes, Integral, rule, lambda value: 1 <= value <= most)
            if self.vote != "agreement":
                raise ParameterError(
                    f"min_votes must be {rule}, got {self.min_votes!r} with vote={self.vote!r}."
                )

    def _check_filters(self) -> None:
        if not isinstance(self.filters, list | tuple) or not self.filters:
            raise ParameterError(f"filters must be a list of (name, filter) pairs, got {self.filters!r}.")
        for pair in self.filters:
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise ParameterError(f"filters must be a list of (name, filter) pairs, got {pair!r} in it.")
            if not isinstance(pair[1], BaseFilter | BaseTrainer):
                raise InputTypeError(
                    f"filters must hold filters or trainers of this library, got {type(pair[1]).__name__}."
                )
        names = [name for name, _ in self.filters]
        taken = {"filters", "vote", "min_votes", "random_state"}
        if any(not isinstance(name, str) or "__" in name or name in taken for name in names):
            raise ParameterError(
                f"Names of filters must be strings without '__', and not parameters themselves, got {names}."
            )
        if len(set(names)) < len(names):
            raise ParameterError(f"Names of filters must be unique, got {names}.")


def _refuse_trainers(members: list[Any], verb: str) -> None:
    trainers = [type(member).__name__ for member in members if isinstance(member, BaseTrainer)]
    if trainers:
        raise InputTypeError(f"{verb} must be asked of filters alone, got {', '.join(trainers)} among them.")


def _partition(clean: NDArray[np.bool_], verdicts: list[Verdict]) -> NDArray[np.int8]:
    """Divide the rejected rows: a stranger needs more than half of the members that looked, and reject it."""
    looked = [verdict for verdict in verdicts if verdict.open_set]
    strangers = np.sum([verdict.ood_mask for verdict in looked], axis=0)
    rejected = np.sum([~verdict.clean_mask for verdict in looked], axis=0)
    return np.where(clean, CLEAN, np.where(2 * strangers > rejected, OOD_NOISE, ID_NOISE)).astype(np.int8)


def _most_named(verdicts: list[Verdict]) -> NDArray[Any]:
    """Return for each row the label most members suggest, among equals that of the earliest member."""
    named = np.array([np.searchsorted(verdict.classes, verdict.alternatives) for verdict in verdicts])
    votes = (named[:, None] == named[None]).sum(axis=1)  # (members, n)
    chosen = named[votes.argmax(axis=0), np.arange(named.shape[1])]
    return np.asarray(verdicts[0].classes[chosen])


def _mean(arrays: Sequence[NDArray[np.float64] | None]) -> NDArray[np.float64] | None:
    known = [array for array in arrays if array is not None]
    return np.asarray(np.mean(known, axis=0)) if len(known) == len(arrays) else None


def _covering(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)
