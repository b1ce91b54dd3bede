"""What stands out in a row that is no picture: cells that are rare among clean rows of its given label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["unusual_cells"]

_FAR = 3.0  # standard deviations, or their match in rarity
_READABLE, _LONG = 20, 200  # characters of running text, and of a cell


def unusual_cells(
    frame: pd.DataFrame,
    labels: NDArray[Any],
    clean: NDArray[np.bool_],
    rows: NDArray[np.intp],
    n_columns: int = 8,
) -> list[list[tuple[str, str, bool]]]:
    """Choose the cells of each row that say most about why its label looks wrong.

    Numbers are measured by their distance from the median of the clean rows of the same given label, in
    median absolute deviations scaled to standard deviations; 3 or more is unusual. Other values are unusual
    when at most 1 % of these rows have them, of names and free text none is. A missing cell is a value like
    any other.

    Parameters
    ----------
    frame : (n, d) DataFrame
        The rows as people read them; text that is a number counts as one.
    labels : (n,) array
        Given labels.
    clean : (n,) bool array
        Rows judged clean. A label that has none is compared with all its rows.
    rows : (m,) int array
        Positions of the rows to show.
    n_columns : int, default=8
        Cells to show of each row: the most unusual ones, in column order so that rows can be compared. Up to
        two columns of running text, which a person would read, are always among them.

    Returns
    -------
    list of m lists of (column, value, is unusual)
        Values as text, cut to 200 characters.
    """
    codes = np.unique(labels, return_inverse=True)[1].ravel()
    usual = clean | np.isin(codes, np.setdiff1d(codes, codes[clean]))
    numbers = [_numbers(frame.iloc[:, j]) for j in range(frame.shape[1])]
    strangeness = np.zeros((len(rows), frame.shape[1]))
    for code in np.unique(codes[rows]):
        mine, peers = codes[rows] == code, np.flatnonzero(usual & (codes == code))
        for j, values in enumerate(numbers):
            if values is None:
                strangeness[mine, j] = _rarity(frame.iloc[:, j], peers, rows[mine])
            else:
                strangeness[mine, j] = _distance(values[peers], values[rows[mine]])
    telling = strangeness.copy()
    telling[:, _running_text(frame, numbers)] = np.inf
    order = np.sort(np.argsort(-telling, axis=1, kind="stable")[:, :n_columns], axis=1)
    shown = [frame.iloc[rows, j].to_numpy(dtype=object) for j in range(frame.shape[1])]
    names = [str(name) for name in frame.columns]
    return [
        [(names[j], _text(shown[j][i]), bool(strangeness[i, j] >= _FAR)) for j in chosen]
        for i, chosen in enumerate(order)
    ]


def _running_text(frame: pd.DataFrame, numbers: list[NDArray[np.float64] | None]) -> list[int]:
    """Return the first two columns of texts that are long and mostly different."""
    found = []
    for j, values in enumerate(numbers):
        if values is None:
            some = frame.iloc[:1000, j].dropna().astype(str)
            if len(some) and 2 * some.nunique() > len(some) and some.str.len().mean() >= _READABLE:
                found.append(j)
    return found[:2]


def _numbers(column: pd.Series[Any]) -> NDArray[np.float64] | None:
    """Return a column of numbers, missing ones as NaN, or None if it holds anything else."""
    import pandas as pd

    text = pd.api.types.is_string_dtype(column.dtype) or column.dtype == object
    filled = column.replace("", None) if text else column
    values = pd.to_numeric(filled, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return None if np.isnan(values[filled.notna().to_numpy()]).any() else values


def _distance(peers: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many robust standard deviations each value is from the median of its peers."""
    known = peers[np.isfinite(peers)]
    if not len(known):
        return np.zeros(len(values))
    middle = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - middle)) or known.std() or 1e-12
    missing = _strangeness(np.count_nonzero(np.isnan(peers)), len(peers))
    return np.where(np.isnan(values), missing, np.minimum(np.abs(values - middle) / spread, 1e6))


def _rarity(column: pd.Series[Any], peers: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return how rare each value is among its peers; 0 for names and free text, where every one is rare."""
    counts = column.iloc[peers].value_counts(dropna=False)
    if 2 * len(counts) > len(peers):
        return np.zeros(len(rows))
    found = column.iloc[rows].map(counts).fillna(0).to_numpy(dtype=np.float64)
    return _strangeness(found, len(peers))


def _strangeness(count: Any, n_peers: int) -> Any:
    """Map 1 % to 3, each factor of ten to 1.5 more; with few peers nothing is rare."""
    return -1.5 * np.log10(np.maximum(count, 0.5) / n_peers)


def _text(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"
