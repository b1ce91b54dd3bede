"""Columns of any kind made numeric: numbers imputed and scaled, categories one-hot or numbered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from noisefilter.errors import InputError, InputTypeError

__all__ = ["MISSING", "Columns", "Prepared", "as_names", "check_columns", "named", "numeric"]

# What pandas.read_csv takes for missing.
_NA = "|#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"
MISSING = frozenset(_NA.split("|"))
_ONE_HOT = 50  # categories at most; more are numbered
_LARGEST = 1e100  # whose square is still finite, as scaling needs it
_NESTED = (list, tuple, set, dict, bytes, bytearray, np.ndarray)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NAMED = 30
_REASONS = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a column can be read as.
_NUMBERS, _FLAGS, _CATEGORIES = "numbers", "true or false", "categories"
_DATES, _TIMES = "dates, as days", "times, as days"


class Prepared(NamedTuple):
    """Columns made numeric.

    Attributes
    ----------
    X : (n, d) float32 array
        Finite.
    preparation : list of (str, str)
        Every column in its order, with what was done to it.
    left_out : list of str
        The columns that are not in ``X``, and why.
    columns : Columns
        Makes more rows numeric in the same way.
    """

    X: NDArray[np.float32]
    preparation: list[tuple[str, str]]
    left_out: list[str]
    columns: Columns


class Columns(TransformerMixin, BaseEstimator):
    """Makes more rows numeric as `numeric` made the first ones; a fitted transformer of DataFrames.

    Each column is read as it was read before. Categories that were not there before are none of those known,
    and columns that were left out need not be there.

    Parameters
    ----------
    kinds : dict of str to str
        What each column that is used was read as.
    missing : tuple of str
        What else means a missing cell; see `numeric`.
    transformer : ColumnTransformer
        Fitted; makes numbers of the columns that were read.
    """

    def __init__(self, kinds: dict[str, str], missing: tuple[str, ...], transformer: ColumnTransformer):
        self.kinds = kinds
        self.missing = missing
        self.transformer = transformer

    def fit(self, X: Any, y: Any = None) -> Self:
        """Return self: it is fitted."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def transform(self, X: pd.DataFrame) -> NDArray[np.float32]:
        """Make the rows of a frame numeric, (n, d); errors are those of `read`."""
        if not isinstance(X, pd.DataFrame):
            raise InputTypeError(
                f"X must be a DataFrame with the columns {named(list(self.kinds))}, got an object of type "
                f"{type(X).__name__}."
            )
        return self.read(X, name="X")

    def read(
        self,
        frame: pd.DataFrame,
        *,
        decimal: Literal[".", ","] = ".",
        rows: NDArray[np.intp] | None = None,
        place: Callable[[int], str] = "row {}".format,
        name: str = "the table",
    ) -> NDArray[np.float32]:
        """Make the rows of a frame numeric, (n, d).

        Parameters
        ----------
        frame : (n, columns) DataFrame
            Has all columns of ``kinds``; others are not looked at.
        decimal, rows, place, name
            See `numeric`.

        Raises
        ------
        InputError
            If a column is not there, or holds something else than before.
        """
        absent = [column for column in self.kinds if column not in frame.columns]
        if absent:
            raise InputError(
                f"{name} must have the columns {named(list(self.kinds))}, got none called {named(absent)}."
            )
        rows = np.arange(len(frame)) if rows is None else rows
        reader = _Reader(self.missing, decimal, rows, np.ones(len(frame), dtype=bool), place, name)
        values = {
            column: pd.Series(reader.again(column, frame[column], kind))
            for column, kind in self.kinds.items()
        }
        return np.asarray(self.transformer.transform(pd.DataFrame(values)), dtype=np.float32)


def numeric(
    frame: pd.DataFrame,
    *,
    categorical: Sequence[str] = (),
    drop: Sequence[str] = (),
    missing: Sequence[str] = (),
    decimal: Literal[".", ","] = ".",
    unusable: Mapping[str, str] = MappingProxyType({}),
    rows: NDArray[np.intp] | None = None,
    held_out: NDArray[np.bool_] | None = None,
    place: Callable[[int], str] = "row {}".format,
    name: str = "the table",
) -> Prepared:
    """Make columns numeric by what they hold.

    Numbers, true/false and ISO dates (as days) are imputed by their median, with a column that says where,
    and scaled. Texts with at most 50 different values become one column each, more are numbered; a missing
    cell is a category of its own. Left out are columns that tell nothing (one value only, or none) or too
    much (a count of the rows, which gives the labels of a sorted file away; texts that all differ, or, of
    more than 50, more than half, as names do), and columns of lists or bytes.

    Parameters
    ----------
    frame : (n, columns) DataFrame
        Without the label. Its columns have different names, all text.
    categorical : sequence of str, default=()
        Columns to take as categories whatever they hold.
    drop : sequence of str, default=()
        Columns to leave out.
    missing : sequence of str, default=()
        What else means a missing cell, beside an empty one, NA, NaN, null and whatever pandas takes for one.
    decimal : "." or ",", default="."
        With a comma, columns whose numbers have one are read, too.
    unusable : mapping of str to str, default={}
        More columns, which are not in ``frame`` because no such column can be used, and why.
    rows : (n,) int array, optional
        The numbers of these rows in the whole table, where some are not here.
    held_out : (n,) bool array, optional
        Rows to test on: they are made numeric like the others, but medians, scales, categories and whether a
        column tells anything are read from the others alone.
    place : callable, default=``"row {}".format``
        What errors call a row of the whole table.
    name : str, default="the table"
        What errors call the table.

    Raises
    ------
    InputError
        If ``categorical`` or ``drop`` name no column, a column holds numbers and texts and at least half are
        numbers, a number is infinite, or no column can be used.

    Examples
    --------
    >>> frame = pd.DataFrame({"age": ["3", "", "5", "4"], "color": ["red", "blue", "red", "NA"]})
    >>> numeric(frame).X.round(2)
    array([[-1.41, -0.58,  0.  ,  1.  ,  0.  ],
           [ 0.  ,  1.73,  1.  ,  0.  ,  0.  ],
           [ 1.41, -0.58,  0.  ,  1.  ,  0.  ],
           [ 0.  , -0.58,  0.  ,  0.  ,  1.  ]], dtype=float32)
    """
    categorical, drop, missing = as_names(categorical), as_names(drop), as_names(missing)
    check_columns("categorical", categorical, [*frame.columns, *unusable], name)
    check_columns("drop", drop, [*frame.columns, *unusable], name)
    rows = np.arange(len(frame)) if rows is None else rows
    seen = np.ones(len(frame), dtype=bool) if held_out is None else ~held_out
    reader = _Reader(missing, decimal, rows, seen, place, name)
    columns = [
        reader.left_out(column, "asked for by --drop")
        if column in drop
        else reader.read(column, frame[column], column in categorical)
        for column in frame.columns
    ] + [reader.left_out(column, reason) for column, reason in unusable.items()]
    used = {column.name: column for column in columns if column.values is not None}
    left_out = [f"column {c.name!r}: {c.reason}" for c in columns if c.values is None]
    if not used:
        why = "; ".join(left_out[:_REASONS]) or "it has no column beside the label"
        more = f"; and {len(left_out) - _REASONS:,} more" if len(left_out) > _REASONS else ""
        raise InputError(f"{name} must have a column to judge rows by, got none: {why}{more}.")
    transformer = _transformer(used)
    values = pd.DataFrame({column.name: pd.Series(column.values) for column in used.values()})
    fitted = transformer.fit(values if held_out is None else values[seen])
    X = np.asarray(fitted.transform(values), dtype=np.float32)
    preparation = [(c.name, c.done if c.values is not None else f"left out: {c.reason}") for c in columns]
    kinds = {column.name: column.kind for column in used.values()}
    return Prepared(X, preparation, left_out, Columns(kinds, missing, transformer))


def as_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names as a tuple; a text alone is one name, not its letters."""
    return (names,) if isinstance(names, str) else tuple(names)


def check_columns(option: str, names: Sequence[str], columns: Sequence[str], table: str) -> None:
    """Raise InputError for the first of ``names`` that no column has, and list the columns."""
    for name in names:
        if name not in columns:
            raise InputError(f"{option} must name columns of {table}, got {name!r}; it has {named(columns)}.")


def named(columns: Sequence[str]) -> str:
    """Name columns, so many that a person finds the one that was meant."""
    more = f" and {len(columns) - _NAMED:,} more" if len(columns) > _NAMED else ""
    return ", ".join(map(repr, columns[:_NAMED])) + more


def _quoted(text: str) -> str:
    """Return a text as a shell takes it, or a word that stands for it where it is long."""
    if len(text) > 40:
        return "TEXT"
    return text if re.fullmatch(r"[\w.+%/][\w.+%/-]*", text, re.ASCII) else repr(text)


def _transformer(columns: dict[str, _Column]) -> ColumnTransformer:
    """Return the transformer of columns whose treatments are known; it makes float32 throughout."""
    single = FunctionTransformer(_single, feature_names_out="one-to-one")
    treatments = {
        "numbers": make_pipeline(
            SimpleImputer(strategy="median", add_indicator=True), StandardScaler(), single
        ),
        "categories": OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.float32),
        "numbered": make_pipeline(
            OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-2, encoded_missing_value=-1),
            StandardScaler(),
            single,
        ),
    }
    chosen = {
        treatment: [column.name for column in columns.values() if column.treatment == treatment]
        for treatment in treatments
    }
    return ColumnTransformer(
        [(treatment, treatments[treatment], names) for treatment, names in chosen.items() if names],
        sparse_threshold=0,
    )


def _single(values: Any) -> Any:
    return values.astype(np.float32)


class _Column(NamedTuple):
    """A column that was read: float64 numbers, or categories as objects with NaN; or why there is none."""

    name: str
    values: NDArray[Any] | None = None
    kind: str = ""
    treatment: str = ""
    done: str = ""
    reason: str = ""


class _Texts(NamedTuple):
    """A column as texts: ``values[codes]``, where the code -1 is a missing cell."""

    codes: NDArray[np.intp]
    values: NDArray[Any]

    def cells(self, values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """Return what each cell has where each text has one of ``values``."""
        return np.append(values, np.array([missing], dtype=values.dtype))[self.codes]


@dataclass(frozen=True)
class _Reader:
    """Finds out what a column holds."""

    missing: tuple[str, ...]
    decimal: str
    rows: NDArray[np.intp]
    seen: NDArray[np.bool_]  # rows to learn from; the others are only made numeric
    place: Callable[[int], str]
    table: str

    def read(self, name: str, cells: pd.Series, forced: bool) -> _Column:
        """Return one column; ``forced`` are categories whatever it holds."""
        nested = _nested(cells)
        if nested:
            return self.left_out(name, f"holds {nested}")
        typed = None if forced else _typed(cells)
        if typed is not None:
            return self._numbers(name, *typed, typed[1])
        texts = self._texts(cells)
        if not (texts.codes[self.seen] >= 0).any():
            return self.left_out(name, "every cell is missing")
        if forced or isinstance(cells.dtype, pd.CategoricalDtype):
            return self._categories(name, texts, forced)
        spelled, what = self._spelled(texts.values)
        self._refuse_mixed(name, texts, np.isnan(spelled))
        flags, days = _flags(texts.values), _days(texts.values)
        for parsed, kind, called in (
            (spelled, _NUMBERS, what), (flags, _FLAGS, _FLAGS), (days, _DATES, _DATES)
        ):  # fmt: skip
            if not np.isnan(parsed).any():
                return self._numbers(name, texts.cells(parsed, np.nan), kind, called)
        return self._categories(name, texts, forced)

    def again(self, name: str, cells: pd.Series, kind: str) -> NDArray[Any]:
        """Return the values of a column that was read as this kind before."""
        nested = _nested(cells)
        if nested:
            raise self._other_kind(name, kind, nested)
        typed = None if kind == _CATEGORIES else _typed(cells)
        if typed is not None:
            return self._finite(name, self._of_kind(name, kind, *typed))
        texts = self._texts(cells)
        if kind == _CATEGORIES:
            return texts.cells(texts.values, np.nan)
        return self._finite(name, texts.cells(self._parsed(name, texts, kind), np.nan))

    def _of_kind(self, name: str, kind: str, values: NDArray[Any], found: str) -> NDArray[Any]:
        """Return typed values, where flags and numbers are the same; an empty column is of every kind."""
        plain = (_NUMBERS, _FLAGS)
        if found == kind or (found in plain and kind in plain) or np.isnan(values).all():
            return values
        raise self._other_kind(name, kind, found)

    def _parsed(self, name: str, texts: _Texts, kind: str) -> NDArray[np.float64]:
        """Return what each text spells."""

        def parse(some: NDArray[Any]) -> NDArray[np.float64]:
            if kind == _NUMBERS:
                return self._spelled(some)[0]
            if kind == _FLAGS:
                return _flags(some)
            return _days(some) if kind == _DATES else np.full(len(some), np.nan)  # no text spells a duration

        parsed = parse(texts.values)
        if not np.isnan(parsed).any():
            return parsed
        strange = np.array([np.isnan(parse(texts.values[[i]])[0]) for i in range(len(texts.values))])
        first = int(np.argmax(texts.cells(strange, False) & (texts.codes >= 0)))
        text = texts.values[texts.codes[first]]
        raise self._other_kind(name, kind, f"{text[:40]!r} ({self._where(first)})")

    def _other_kind(self, name: str, kind: str, found: str) -> InputError:
        what = kind.partition(",")[0]
        return InputError(f"column {name!r} of {self.table} must hold {what}, as in training, got {found}.")

    def left_out(self, name: str, reason: str) -> _Column:
        """Return a column that is not used."""
        return _Column(name, reason=reason)

    def _texts(self, cells: pd.Series) -> _Texts:
        codes, found = pd.factorize(cells)
        stripped = pd.Series([str(text).strip() for text in np.asarray(found, dtype=object)], dtype=object)
        stripped[stripped.isin([*MISSING, *self.missing])] = None
        merged, texts = pd.factorize(stripped)
        return _Texts(np.append(merged, -1)[codes], np.asarray(texts, dtype=object))

    def _spelled(self, texts: NDArray[Any]) -> tuple[NDArray[np.float64], str]:
        """Return the numbers that texts spell, NaN for other texts, and what to call them."""
        if self.decimal == ",":
            parsed = _floats(np.array([text.replace(",", ".") for text in texts], dtype=object))
            marks = set("".join(texts[~np.isnan(parsed)])) & {",", "."}
            if marks == {","}:
                return parsed, "numbers with a decimal comma"
        return _floats(texts), "numbers"

    def _refuse_mixed(self, name: str, texts: _Texts, is_text: NDArray[np.bool_]) -> None:
        text_cells = texts.cells(is_text, False) & (texts.codes >= 0)
        n_texts = int(text_cells.sum())
        n_numbers = int((texts.codes >= 0).sum()) - n_texts
        if not n_texts or n_numbers < n_texts:
            return
        first = int(np.argmax(text_cells))
        text = texts.values[texts.codes[first]]
        shown = text if len(text) <= 40 else f"{text[:40]}…"
        raise InputError(
            f"column {name!r} of {self.table} must hold numbers or categories, got {n_numbers:,} numbers and "
            f"{n_texts:,} texts such as {shown!r} ({self._where(first)}). --missing {_quoted(text)} treats "
            f"it as missing, --categorical {_quoted(name)} as categories, --drop {_quoted(name)} leaves it "
            "out."
        )

    def _where(self, position: int) -> str:
        return self.place(int(self.rows[position]))

    def _finite(self, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return numbers with NaN where they stand for a missing cell, if none is too large."""
        values = np.where(np.isin(values, _floats(np.array(self.missing, dtype=object))), np.nan, values)
        too_large = np.abs(values) > _LARGEST
        if too_large.any():
            first = int(np.argmax(too_large))
            raise InputError(
                f"column {name!r} of {self.table} must hold finite numbers, got {values[first]:g} "
                f"({self._where(first)}). --missing {values[first]:g} treats it as missing, --drop "
                f"{_quoted(name)} leaves the column out."
            )
        return values

    def _numbers(self, name: str, values: NDArray[np.float64], kind: str, what: str) -> _Column:
        values = self._finite(name, values)
        seen = values[self.seen]
        known = seen[~np.isnan(seen)]
        if not len(known):
            return self.left_out(name, "every cell is missing")
        n_missing = len(seen) - len(known)
        if not n_missing and (known == known[0]).all():
            return self.left_out(name, f"holds one value only, {known[0]:g}")
        if not n_missing and _counts(seen, self.rows[self.seen]):
            return self.left_out(name, "counts the rows, which gives the labels of a sorted table away")
        imputed = f", {n_missing:,} missing by their median and marked" if n_missing else ""
        return _Column(name, values, kind, "numbers", f"{what}{imputed}, scaled")

    def _categories(self, name: str, texts: _Texts, forced: bool) -> _Column:
        codes = texts.codes[self.seen]
        found = np.unique(codes[codes >= 0])
        n_known, n_texts = int((codes >= 0).sum()), len(found)
        n_missing = len(codes) - n_known
        if n_texts == 1 and not n_missing:
            return self.left_out(name, f"holds one value only, {texts.values[found[0]][:40]!r}")
        if not forced and (n_texts == n_known > 1 or (n_texts > _ONE_HOT and 2 * n_texts > n_known)):
            return self.left_out(
                name, f"{n_texts:,} different texts in {n_known:,} cells, as in names or free text"
            )
        treatment = "categories" if n_texts <= _ONE_HOT else "numbered"
        how = "a column each" if n_texts <= _ONE_HOT else "numbered and scaled"
        own = f", {n_missing:,} missing as one of their own" if n_missing else ""
        return _Column(
            name, texts.cells(texts.values, np.nan), _CATEGORIES, treatment,
            f"{n_texts} categories{own}, {how}",
        )  # fmt: skip


def _nested(cells: pd.Series) -> str:
    """Say what a column holds that is no plain value, or nothing."""
    if cells.dtype != object:
        return ""
    kinds = sorted({kind.__name__ for kind in set(map(type, cells)) if issubclass(kind, _NESTED)})
    return f"values of the type {' and '.join(kinds)}" if kinds else ""


def _typed(cells: pd.Series) -> tuple[NDArray[np.float64], str] | None:
    """Return columns that are numbers by their type, and what to call them; or None."""
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        utc = pd.to_datetime(cells, utc=True).dt.tz_localize(None)
        return _in_days(utc.to_numpy(dtype="datetime64[us]") - np.datetime64(0, "us")), _DATES
    if pd.api.types.is_timedelta64_dtype(cells.dtype):
        return _in_days(cells.to_numpy(dtype="timedelta64[us]")), _TIMES
    is_flag, is_number = pd.api.types.is_bool_dtype(cells.dtype), pd.api.types.is_numeric_dtype(cells.dtype)
    if isinstance(cells.dtype, pd.CategoricalDtype) or not (is_flag or is_number):
        return None
    numbers = np.asarray(cells.to_numpy(dtype=np.float64, na_value=np.nan))
    return numbers, _FLAGS if is_flag else _NUMBERS


def _in_days(times: NDArray[np.timedelta64]) -> NDArray[np.float64]:
    return np.asarray(times / np.timedelta64(1, "D"), dtype=np.float64)


def _floats(texts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the numbers that texts spell, NaN for other texts."""
    return np.asarray(pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce"), dtype=np.float64)


def _flags(texts: NDArray[Any]) -> NDArray[np.float64]:
    """Return true and false as 1 and 0, NaN for other texts."""
    flags = {"true": 1.0, "false": 0.0}
    return np.array([flags.get(text.casefold(), np.nan) for text in texts])


def _days(texts: NDArray[Any]) -> NDArray[np.float64]:
    """Return ISO dates and times as days since 1970, or one NaN where a text is none."""
    days = np.empty(len(texts))
    for i, text in enumerate(texts):
        try:
            time = datetime.fromisoformat(text if _DATE.match(text) else "")
        except ValueError:
            return np.array([np.nan])
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        days[i] = (time - _EPOCH).total_seconds() / 86400
    return days


def _counts(values: NDArray[np.float64], rows: NDArray[np.intp]) -> bool:
    """Whether whole numbers do nothing but count the rows."""
    return len(values) > 2 and values[0].is_integer() and bool((np.diff(values) == np.diff(rows)).all())
