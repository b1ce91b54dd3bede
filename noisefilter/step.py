"""BaseJudge, what everything with a verdict shares, and BaseStep, what makes it a step of a Pipeline."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from noisefilter.balance import replacement_rows
from noisefilter.batches import Rows
from noisefilter.errors import InputError, ParameterError
from noisefilter.handover import hand_over
from noisefilter.inputs import Labels, check_array_like, check_finite, check_labels, is_dataset
from noisefilter.verdict import Verdict


class BaseJudge(BaseEstimator, ABC):
    """Something that has a ``verdict_`` after ``fit(X, y)``: what filters and trainers share."""

    random_state: Any
    verdict_: Verdict
    classes_: NDArray[Any]

    @abstractmethod
    def fit(self, X: Any, y: Any = None, features: Any = None) -> Self:
        """Judge all rows."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.three_d_array = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "verdict_")

    @property
    def scores_(self) -> NDArray[np.float64]:
        """(n,) scores, higher = cleaner."""
        return self._fitted_verdict().scores

    @property
    def clean_mask_(self) -> NDArray[np.bool_]:
        """(n,) rows judged clean."""
        return self._fitted_verdict().clean_mask

    @property
    def id_mask_(self) -> NDArray[np.bool_]:
        """(n,) rows judged to have a wrong label."""
        return self._fitted_verdict().id_mask

    @property
    def ood_mask_(self) -> NDArray[np.bool_]:
        """(n,) rows judged to belong to no class."""
        return self._fitted_verdict().ood_mask

    def _fitted_verdict(self) -> Verdict:
        if not hasattr(self, "verdict_"):
            raise AttributeError(f"{type(self).__name__} has no verdict before fit.")
        return self.verdict_

    def _seed(self) -> int:
        try:
            return int(check_random_state(self.random_state).randint(2**31 - 1))
        except ValueError as error:
            raise ParameterError(
                f"random_state must be an int, a RandomState or None, got {self.random_state!r}."
            ) from error

    # -- what a file keeps ------------------------------------------------------------------------

    def _fitted_state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what answers for later rows, as tensors by name and plain values, without code.

        Raises
        ------
        ParameterError
            If it cannot be kept so; the message names the parameter.
        """
        raise ParameterError(f"What is saved must be able to say what it learned, got {type(self).__name__}.")

    def _load_fitted(self, tensors: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        """Be fitted as :meth:`_fitted_state` was asked of; parameters, verdict and columns are there by now.

        Raises
        ------
        InputError, or whatever is raised by things that cannot be
            If these do not fit the verdict or each other: the file may come from anywhere.
        """
        raise NotImplementedError

    def _check_columns(self, shape: tuple[int, ...]) -> None:
        """Raise InputError unless rows of this shape are those that columns were counted of."""
        if hasattr(self, "n_features_in_") and shape != (self.n_features_in_,):
            raise InputError(f"Rows must have {self.n_features_in_} columns, got the shape {shape!s:.60}.")

    # -- rows that arrive later -------------------------------------------------------------------

    def _check_new(self, X: Any, n: int | None = None) -> Any:
        """Validate rows that arrive after fit against the columns that fit saw."""
        checked = check_input(X, n)
        if has_columns(checked):
            validate_data(self, X, reset=False, skip_check_array=True)
        return checked


class BaseStep(OneToOneFeatureMixin, TransformerMixin, BaseJudge, auto_wrap_output_keys=None):  # type: ignore[call-arg]
    """Something with a ``verdict_`` after fit, as a step of a Pipeline.

    In a scikit-learn ``Pipeline`` the number of rows must not change, so :meth:`fit_transform`, which
    the Pipeline calls in training, replaces every row judged noisy by a clean row of the same given
    label, and :meth:`transform`, which it calls at predict time, passes rows through. The two differ
    on purpose, as in scikit-learn's ``TargetEncoder``. To drop rows instead, use
    :class:`~noisefilter.FilteredClassifier`.
    """

    def fit_transform(self, X: Any, y: Any = None, features: Any = None) -> Any:
        """Fit, and return the rows with every noisy one replaced by a clean row of the same given label.

        The result has the rows of ``X`` in number and order, so ``y`` needs no touching. It carries the
        verdict to the next step; any operation on it drops the verdict. A class without a clean row
        keeps its best-scored rows, with a warning. With ``output="features"`` the features of the
        network stand in for the rows.
        """
        self.fit(X, y, features)
        codes = check_labels(self.verdict_.labels).codes
        rng = np.random.default_rng(self._seed())
        index, lost = replacement_rows(codes, self.clean_mask_, self.scores_, rng)
        if len(lost):
            names = ", ".join(repr(self.verdict_.labels[codes == code].tolist()[0]) for code in lost)
            warnings.warn(
                f"No clean row is left in class {names}; its best-scored rows are kept. Judge the labels of "
                "this class by hand, or use a decision rule that rejects less.",
                UserWarning,
                stacklevel=2,
            )
        return hand_over(self._wrap(self._output(X, new=False)), index, self.verdict_)

    def transform(self, X: Any) -> Any:
        """Return the rows unchanged, or their features with ``output="features"``."""
        check_is_fitted(self, "verdict_")
        return self._wrap(self._output(X, new=True))

    def _output(self, X: Any, new: bool) -> Any:
        """Return what goes on to the next step; rows that arrive after fit have yet to be checked."""
        if new:
            self._check_new(X)
        return self._plain(X)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Return the column names of what :meth:`transform` gives."""
        check_is_fitted(self, "verdict_")
        if not hasattr(self, "n_features_in_"):
            raise InputError(
                "X must have been 2-D in fit for its columns to have names, got rows without columns."
            )
        return np.asarray(super().get_feature_names_out(input_features))

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose the container of 2-D output: ``"default"`` (what came in) or ``"pandas"``.

        Images, memory maps and Datasets are not affected.
        """
        if transform not in (None, "default", "pandas"):
            raise ParameterError(f"transform must be 'default' or 'pandas', got {transform!r}.")
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    @staticmethod
    def _plain(X: Any) -> Any:
        return X if hasattr(X, "__array__") or hasattr(X, "iloc") or is_dataset(X) else np.asarray(X)

    def _wrap(self, data: Any) -> Any:
        """Put 2-D arrays into the container asked for by set_output, here or globally."""
        own = getattr(self, "_sklearn_output_config", {}).get("transform")
        wanted = own or get_config()["transform_output"]
        lazy = isinstance(data, np.memmap) or is_dataset(data)
        if wanted != "pandas" or lazy or data.ndim != 2 or hasattr(data, "columns"):
            return data
        import pandas as pd

        return pd.DataFrame(np.asarray(data), columns=self.get_feature_names_out())


def check_input(X: Any, n: int | None = None) -> Any:
    """Validate ``X``, with n rows where n is given; anything but a memory map or Dataset becomes an array."""
    if hasattr(X, "toarray"):
        check_array(X, input_name="X")  # scikit-learn's own sentence about sparse input
    if isinstance(X, np.memmap):
        _check_on_disk(X)
    elif not is_dataset(X):
        names = np.asarray(X.columns) if hasattr(X, "columns") else None
        X = check_array_like(X)
        check_finite(X, names)
    if n is not None and len(X) != n:
        raise InputError(
            f"X and y must have the same length, got {len(X)} rows and {n} labels. Inconsistent numbers."
        )
    if len(X) == 0:
        shape = getattr(X, "shape", (0,))
        raise InputError(
            f"X must have rows, got 0 sample(s) (shape={shape}) while a minimum of 1 is required."
        )
    return X


def _check_on_disk(X: np.memmap[Any, Any], chunk: int = 1000) -> None:
    """Look for NaN and infinity without reading everything at once."""
    for start in range(0, len(X) if X.dtype.kind == "f" else 0, chunk):
        finite = np.isfinite(X[start : start + chunk])
        if not finite.all():
            row, *column = np.argwhere(~finite)[0]
            where = f"column {column[0]}, " if X.ndim == 2 else ""
            raise InputError(f"X must be finite, got NaN or infinity in {where}row {start + row}.")


def has_columns(checked: Any) -> bool:
    """Whether rows have columns that can be counted."""
    return getattr(checked, "ndim", 0) == 2


def same_shape(rows: Rows, shape: tuple[int, ...], what: str = "X") -> Rows:
    """Return the rows, if they have the shape of those in fit."""
    if rows.shape != shape:
        raise InputError(f"{what} must hold rows of shape {shape} as in fit, got {rows.shape}.")
    return rows


def verdict_of_codes(
    labels: Labels, others: NDArray[Any], transition: NDArray[np.float64], **fields: Any
) -> Verdict:
    """Return a verdict from what was found in class numbers.

    Parameters
    ----------
    labels : Labels
        The labels judged.
    others : (n,) int array
        The best other class of each row.
    transition : (K, K) array
        P(given j | true i) in the order of the class numbers.
    **fields
        The other fields of :class:`~noisefilter.Verdict`.
    """
    rank = np.argsort(labels.order)
    return Verdict(
        labels=labels.given,
        classes=labels.classes,
        alternatives=labels.classes[labels.order[others]],
        transition_matrix=transition[np.ix_(rank, rank)],
        **fields,
    )


def columns_of(X: Any, checked: Any) -> dict[str, Any]:
    """Return ``n_features_in_`` and ``feature_names_in_``, where there are any, as scikit-learn has them."""
    memory = BaseEstimator()
    if has_columns(checked):
        validate_data(memory, X, skip_check_array=True)
    return vars(memory)
