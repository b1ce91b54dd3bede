"""Ways to act on a verdict where rows may really go: `FilteredClassifier` and `FilterSampler`.

A filter inside a plain Pipeline replaces noisy rows, since a Pipeline keeps the number of rows. That is not
right where a row has a weight or a group of its own, or where the classifier holds rows out by itself (early
stopping, out-of-bag scores, inner cross-validation). The two classes here drop rows instead.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from noisefilter.errors import InputError, LabelError, NoiseFilterError, ParameterError
from noisefilter.handover import judged_by, take_rows
from noisefilter.verdict import Verdict

__all__ = ["FilterSampler", "FilteredClassifier"]

_FOR_FILTER = "filter__"


def _classifier_has(name: str) -> Callable[[Any], bool]:
    """Let a method exist where the classifier has it (the fitted one, once there is one)."""

    def check(self: FilteredClassifier) -> bool:
        getattr(getattr(self, "classifier_", self.classifier), name)  # its own error names the classifier
        return True

    return check


class FilteredClassifier(ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier that learns from the rows a filter trusts.

    Fits `filter` on all rows, then `classifier` on what its verdict leaves. Rows are truly dropped, and with
    them their weights and other per-row arguments. As the last step of a Pipeline it works like any other
    classifier; new rows are predicted, never judged.

    Parameters
    ----------
    filter : estimator
        A filter or trainer of this library, or any estimator that has a `verdict_` after ``fit(X, y)``.
    classifier : estimator
        Any scikit-learn classifier, or a Pipeline that ends in one.
    mode : {"drop", "weight", "relabel"}, default="drop"
        - ``"drop"``: learn from the rows judged clean.
        - ``"weight"``: learn from all rows, each weighted by the verdict's `clean_proba`; a filter without
          probabilities gives weight 1 to clean rows and 0 to the others. Rows of no class weigh 0 either way.
          Multiplied with `sample_weight` where given. Rows of weight 0 by the verdict are left out, since
          some classifiers divide by the weight of a class.
        - ``"relabel"``: learn from clean rows as they are and from wrongly labelled rows under their
          suggested label; rows of no class are left out.

    Attributes
    ----------
    filter_, classifier_ : estimator
        The fitted clones.
    verdict_ : Verdict
        The judgement of the training rows.
    classes_ : ndarray of shape (n_classes,)
        The sorted labels in ``y``. A class of which no row was left gets probability 0 (and the lowest
        float as decision value).
    n_features_in_ : int
        Number of features the filter saw; defined where the filter defines it.
    feature_names_in_ : ndarray of shape (d,)
        Their names; defined where the filter defines it.

    Raises
    ------
    ParameterError
        If `mode` is unknown, or is ``"weight"`` and the classifier takes no `sample_weight`.
    InputTypeError
        If `filter` has no `verdict_` after fit.
    LabelError
        If fewer than two classes are left.

    Warns
    -----
    UserWarning
        Names the classes of which no row was left.

    See Also
    --------
    FilterSampler : The same for the Pipeline of imbalanced-learn.

    Notes
    -----
    Where the filter has `transform`, the classifier sees ``filter_.transform(X)``, in fit and in predict:
    the rows unchanged, or the features of the filter's network if it was made with ``output="features"``.

    Keyword arguments of `fit`, without metadata routing: `sample_weight` and names without a prefix go to
    the classifier, ``filter__<name>`` goes to the filter (``filter__features=embedding``). With routing on,
    both take what they request: ``INNScorer().set_fit_request(features=True)``. Arguments for the classifier
    that have one entry per row are cut along with the rows; the filter always sees all rows.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from noisefilter import FilteredClassifier, INNScorer
    >>> model = FilteredClassifier(INNScorer(), LogisticRegression())
    >>> model.get_params()["classifier__C"]
    1.0
    """

    def __init__(self, filter: Any, classifier: Any, mode: str = "drop") -> None:
        self.filter = filter
        self.classifier = classifier
        self.mode = mode

    def fit(self, X: Any, y: Any, sample_weight: Any = None, **params: Any) -> FilteredClassifier:
        """Judge the rows, then fit the classifier on what is left.

        Parameters
        ----------
        X : array, DataFrame or whatever both estimators take, n rows
            Training rows.
        y : array-like of shape (n,)
            Labels, some of them wrong.
        sample_weight : array-like of shape (n,), optional
            For the classifier.
        **params : dict
            See Notes of the class.

        Returns
        -------
        self : FilteredClassifier
            The fitted classifier.
        """
        _check_mode(self.mode, ("drop", "weight", "relabel"))
        if self.mode == "weight" and not _takes_weight(self.classifier):
            raise ParameterError(
                "classifier must take sample_weight with mode='weight', got "
                f"{type(self.classifier).__name__}. Use mode='drop', or another classifier."
            )
        if sample_weight is not None:
            params["sample_weight"] = sample_weight
        for_filter, for_classifier = self._divided(params)
        _check_weights(for_classifier.get("sample_weight"), y)
        filter_, verdict = judged_by(self.filter, X, y, for_filter)
        rows, labels, weights = _kept(verdict, self.mode)
        n_samples = len(verdict)
        for_classifier = {name: _cut(value, rows, n_samples) for name, value in for_classifier.items()}
        if weights is not None:
            given = for_classifier.get("sample_weight")
            for_classifier["sample_weight"] = weights if given is None else weights * np.asarray(given)
        seen = take_rows(_seen_by_classifier(filter_, X), rows)
        self.classifier_ = clone(self.classifier).fit(seen, labels, **for_classifier)
        self.filter_, self.verdict_ = filter_, verdict
        self.classes_ = np.asarray(verdict.classes)
        return self

    @available_if(_classifier_has("predict"))
    def predict(self, X: Any, **params: Any) -> NDArray[Any]:
        """Predict the label of each row, (n,)."""
        return self._ask("predict", X, params)

    @available_if(_classifier_has("predict_proba"))
    def predict_proba(self, X: Any, **params: Any) -> NDArray[np.float64]:
        """Predict the probability of each class, (n, n_classes); 0 for a class no row was left of."""
        return self._in_all_classes(self._ask("predict_proba", X, params), missing=0.0)

    @available_if(_classifier_has("predict_log_proba"))
    def predict_log_proba(self, X: Any, **params: Any) -> NDArray[np.float64]:
        """Predict the logarithm of the probability of each class, (n, n_classes)."""
        return self._in_all_classes(self._ask("predict_log_proba", X, params), missing=-np.inf)

    @available_if(_classifier_has("decision_function"))
    def decision_function(self, X: Any, **params: Any) -> NDArray[np.float64]:
        """Compute the decision values, (n,) for two classes and else (n, n_classes)."""
        values = self._ask("decision_function", X, params)
        n_known, n_classes = len(self.classifier_.classes_), len(self.classes_)
        if np.ndim(values) == 1 and n_classes > 2:  # the classifier knows two classes only
            values = np.column_stack([-values, values])
        pairwise = getattr(self.classifier_, "decision_function_shape", None) == "ovo" and n_known > 2
        if n_known < n_classes and (pairwise or values.shape[1] != n_known):
            raise NoiseFilterError(
                "The decision values must have one column per class where the filter left no row of a class, "
                f"got {values.shape[1]} columns for {n_known} classes. Choose the one-vs-rest form."
            )
        return self._in_all_classes(values, missing=float(np.finfo(np.float64).min))

    @available_if(_classifier_has("score"))
    def score(self, X: Any, y: Any, **params: Any) -> float:
        """Return the score of the classifier on these rows, in general its accuracy."""
        return self._ask("score", X, params, y)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return which method hands metadata to which."""
        to_classifier = MethodMapping()
        for name in ("fit", "predict", "predict_proba", "predict_log_proba", "decision_function", "score"):
            to_classifier.add(caller=name, callee=name)
        return (
            MetadataRouter(owner=self)
            .add(filter=self.filter, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
            .add(classifier=self.classifier, method_mapping=to_classifier)
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        both = [get_tags(self.filter), get_tags(self.classifier)]
        tags.input_tags.sparse = all(each.input_tags.sparse for each in both)
        tags.input_tags.allow_nan = all(each.input_tags.allow_nan for each in both)
        tags.non_deterministic = any(each.non_deterministic for each in both)
        if both[1].classifier_tags is not None:
            tags.classifier_tags = both[1].classifier_tags
        return tags

    @property
    def n_features_in_(self) -> int:
        """Number of features the filter saw."""
        return int(self._of_filter("n_features_in_"))

    @property
    def feature_names_in_(self) -> NDArray[Any]:
        """Names of the features the filter saw."""
        return np.asarray(self._of_filter("feature_names_in_"))

    def _of_filter(self, name: str) -> Any:
        if not hasattr(self, "filter_"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r} before fit.")
        return getattr(self.filter_, name)

    def _divided(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the arguments of the filter and those of the classifier."""
        if _routing_on():
            routed = process_routing(self, "fit", **params)
            return dict(routed.filter.fit), dict(routed.classifier.fit)
        prefix = len(_FOR_FILTER)
        for_filter = {name[prefix:]: value for name, value in params.items() if name.startswith(_FOR_FILTER)}
        return for_filter, {name: params[name] for name in params if not name.startswith(_FOR_FILTER)}

    def _ask(self, method: str, X: Any, params: dict[str, Any], *y: Any) -> Any:
        """Call the method of the fitted classifier."""
        check_is_fitted(self)
        if _routing_on():
            params = process_routing(self, method, **params).classifier[method]
        return getattr(self.classifier_, method)(_seen_by_classifier(self.filter_, X), *y, **params)

    def _in_all_classes(self, values: NDArray[Any], missing: float) -> NDArray[np.float64]:
        """Put the classifier's columns where `classes_` has them."""
        known = self.classifier_.classes_
        if len(known) == len(self.classes_):
            return values
        columns = np.full((len(values), len(self.classes_)), missing)
        columns[:, np.searchsorted(self.classes_, known)] = values
        return columns


class FilterSampler(MetaEstimatorMixin, BaseEstimator):
    """Drop or relabel the rows a filter rejects, as a step of imbalanced-learn's Pipeline.

    That Pipeline lets a step change rows if it has `fit_resample` and no `transform`, and skips it when
    predicting. imbalanced-learn itself is not needed to use this class.

    Parameters
    ----------
    filter : estimator
        A filter or trainer of this library, or any estimator that has a `verdict_` after ``fit(X, y)``.
    mode : {"drop", "relabel"}, default="drop"
        - ``"drop"``: keep the rows judged clean.
        - ``"relabel"``: keep also wrongly labelled rows, under their suggested label; rows of no class go.

    Attributes
    ----------
    filter_ : estimator
        The fitted clone.
    verdict_ : Verdict
        The judgement of the rows.
    sample_indices_ : ndarray of int, shape (n_kept,)
        Which rows are left, in row order.

    Raises
    ------
    ParameterError
        If `mode` is unknown.
    InputTypeError
        If `filter` has no `verdict_` after fit.
    LabelError
        If fewer than two classes are left.

    Warns
    -----
    UserWarning
        Names the classes of which no row was left.

    See Also
    --------
    FilteredClassifier : The same in one estimator, for any Pipeline.
    """

    def __init__(self, filter: Any, mode: str = "drop") -> None:
        self.filter = filter
        self.mode = mode

    def fit_resample(self, X: Any, y: Any, **params: Any) -> tuple[Any, Any]:
        """Judge the rows and return those that are left.

        Parameters
        ----------
        X : array, DataFrame or whatever the filter takes, n rows
            Training rows, images too.
        y : array-like of shape (n,)
            Labels, some of them wrong.
        **params : dict
            For ``filter.fit``, such as `features`. imbalanced-learn's Pipeline passes them on only with
            metadata routing (the filter requests them); without it, that Pipeline drops them silently.

        Returns
        -------
        X_resampled, y_resampled
            The rows left, in row order, in the kind of `X` and `y`.
        """
        _check_mode(self.mode, ("drop", "relabel"))
        filter_, verdict = judged_by(self.filter, X, y, params)
        rows, labels, _ = _kept(verdict, self.mode)
        self.filter_, self.verdict_, self.sample_indices_ = filter_, verdict, rows
        if hasattr(y, "iloc"):  # keeps its name, index and dtype
            resampled = take_rows(y, self.sample_indices_).copy()
            resampled[:] = labels
            labels = resampled
        return take_rows(X, self.sample_indices_), labels

    def get_metadata_routing(self) -> MetadataRouter:
        """Return which method hands metadata to which."""
        router = MetadataRouter(owner=self)
        try:
            mapping = MethodMapping().add(caller="fit_resample", callee="fit")
        except ValueError:  # scikit-learn knows the verb only once imbalanced-learn is imported
            return router
        return router.add(filter=self.filter, method_mapping=mapping)


def _check_mode(mode: Any, modes: tuple[str, ...]) -> None:
    if mode not in modes:
        raise ParameterError(f"mode must be one of {', '.join(map(repr, modes))}, got {mode!r}.")


def _routing_on() -> bool:
    return bool(get_config()["enable_metadata_routing"])


def _takes_weight(classifier: Any) -> bool:
    if has_fit_parameter(classifier, "sample_weight"):
        return True
    routing = get_routing_for_object(classifier)  # a Pipeline can pass it on if a step requests it
    return _routing_on() and "sample_weight" in routing.consumes("fit", ["sample_weight"])


def _check_weights(weights: Any, y: Any) -> None:
    """Refuse weights that are not one per row: cut along with the rows, they would fall on others."""
    if weights is None or y is None:
        return
    shape, n_samples = np.asarray(weights).shape, len(y) if hasattr(y, "__len__") else np.asarray(y).size
    if shape and shape[0] != n_samples:
        raise InputError(
            f"sample_weight must have one entry for each of the {n_samples} rows, got {shape[0]}."
        )


def _seen_by_classifier(filter: Any, X: Any) -> Any:
    return filter.transform(X) if hasattr(filter, "transform") else X


class _Kept(NamedTuple):
    rows: NDArray[np.int64]  # (m,) ascending
    labels: NDArray[Any]  # (m,)
    weights: NDArray[np.float64] | None  # (m,)


def _kept(verdict: Verdict, mode: str) -> _Kept:
    """Return which rows to learn from, under which label, with which weight."""
    labels, weights = verdict.labels, None
    if mode == "drop":
        keep = verdict.clean_mask
    elif mode == "relabel":
        keep, labels = ~verdict.ood_mask, verdict.suggested_labels
    else:
        proba = verdict.clean_proba
        weights = verdict.clean_mask.astype(np.float64) if proba is None else proba * ~verdict.ood_mask
        keep = weights > 0
    rows = np.flatnonzero(keep).astype(np.int64)
    _check_classes(verdict.classes, np.unique(labels[rows]))
    return _Kept(rows, labels[rows], None if weights is None else weights[rows])


def _check_classes(given: NDArray[Any], left: NDArray[Any]) -> None:
    if len(left) < 2:
        raise LabelError(
            f"The rows left by the filter must hold at least two classes, got {left.tolist()} of "
            f"{given.tolist()}. Keep more rows (a lower threshold), or use mode='weight'."
        )
    lost = np.setdiff1d(given, left)
    if len(lost):
        warnings.warn(
            f"The filter left no row of the classes {lost.tolist()}; they will never be predicted.",
            UserWarning,
            stacklevel=4,
        )


def _cut(value: Any, rows: NDArray[np.int64], n_samples: int) -> Any:
    """Return the entries of `rows` where `value` has one entry per row, otherwise `value`."""
    if hasattr(value, "__array__") and not hasattr(value, "shape"):
        value = np.asarray(value)
    shape: tuple[int, ...] = (len(value),) if isinstance(value, list | tuple) else getattr(value, "shape", ())
    return take_rows(value, rows) if len(shape) > 0 and shape[0] == n_samples else value
