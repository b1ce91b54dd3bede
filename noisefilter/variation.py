r"""Sample selection by the variation of losses: Eq. (3) to (6) of VRLVMix, arrays in, arrays out.

``losses`` (E, n) against the labels trained on, ``predictions`` (E, n) and ``learning_rates`` (E,) are
those of the epochs recorded. The paper writes r for two things; here ``clean_share`` is the share of rows
believed clean, which is what both its uses need.

Hailun Wang et al., "VRLVMix: combating noisy labels with sample selection based on loss variation".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from noisefilter.errors import InputError, ParameterError

__all__ = [
    "BETA_RULES",
    "VariationSets",
    "adapted",
    "changed_rate",
    "clean_set",
    "loss_variance",
    "lowest",
    "rank_variance",
    "variation_sets",
]

BETA_RULES = ("stable_label", "stable", "text", "eq5")

Mask = NDArray[np.bool_]


class VariationSets(NamedTuple):
    """Eq. (4): rows of little variation, of much variation, and those to choose from; (n,) masks."""

    low: Mask  # V_l
    high: Mask  # V_h
    candidates: Mask  # V_c


def rank_variance(losses: NDArray[Any], window: int | None = None) -> NDArray[np.float64]:
    r"""Return the variance of the rank that the change of a row's loss has among all rows, Eq. (3).

    .. math:: var_i = \frac1\tau \sum_{s=t-\tau+1}^{t} (S_i^s - S_i^{mean})^2, \quad
        S_i^s = \frac1n rank_i(\ell_{s-1} - \ell_s)

    Lower = cleaner, in [0, 1/4]. The paper prints argsort for the rank, which tells which row stands where
    instead of where a row stands, and is as good as chance. Ranks are divided by n, equal changes share their
    mean rank, and the direction of the sort makes no difference.

    Parameters
    ----------
    losses : (E, n) array
        E >= 3.
    window : int, optional
        :math:`\tau`, how many of the last changes count; clipped to E - 1, and all of them by default.
    """
    changes = _last_changes(losses, window)
    return np.asarray((rankdata(changes, axis=1) / changes.shape[1]).var(axis=0))


def loss_variance(losses: NDArray[Any], window: int | None = None) -> NDArray[np.float64]:
    """Return the variance of the changes themselves, to compare `rank_variance` with; lower = cleaner."""
    return np.asarray(_last_changes(losses, window).var(axis=0))


def _last_changes(losses: NDArray[Any], window: int | None) -> NDArray[np.float64]:
    if np.ndim(losses) != 2 or len(losses) < 3:
        raise InputError(f"losses must be of shape (E, n) with E >= 3, got {np.shape(losses)}.")
    if window is not None and window < 2:
        raise ParameterError(f"window must be at least 2, got {window}.")
    n_changes = len(losses) - 1 if window is None else min(window, len(losses) - 1)
    recorded = np.asarray(losses[-n_changes - 1 :], dtype=np.float64)
    return recorded[:-1] - recorded[1:]


def lowest(count: int, *keys: NDArray[Any], among: Mask | None = None) -> Mask:
    """Mark the `count` rows that are lowest in the first key, ties by the next one.

    Rows that tie in every key with the last one taken are taken too, so the order of rows does not matter.

    Parameters
    ----------
    count : int
        At least 0.
    *keys : (n,) arrays
        Lower goes first.
    among : (n,) bool array, optional
        The rows to choose from; all by default.
    """
    among = np.ones(len(keys[0]), dtype=bool) if among is None else among
    rows = np.flatnonzero(among)
    marked = np.zeros(len(among), dtype=bool)
    if count < 1 or not len(rows):
        return marked
    columns = np.stack([np.asarray(key, dtype=np.float64)[rows] for key in keys])
    place = np.unique(columns, axis=1, return_inverse=True)[1].ravel()  # columns sort by their first key
    last = np.partition(place, min(count, len(rows)) - 1)[min(count, len(rows)) - 1]
    marked[rows[place <= last]] = True
    return marked


def variation_sets(
    variance: NDArray[Any], clean_share: float, high_share: float | None = None
) -> VariationSets:
    r"""Divide rows by the variance of their rank, Eq. (4).

    Both thresholds :math:`\gamma` are the quantile of the variance at `clean_share`, so :math:`V_l` and
    :math:`V_c` are the ``round(clean_share * n)`` rows of lowest variance and :math:`V_h` is the rest. (The
    paper leaves them open, and names "sort(Var) x r" with r the noise rate for the rows selected as clean.)

    Parameters
    ----------
    variance : (n,) array
        Eq. (3).
    clean_share : float
        In [0, 1].
    high_share : float, optional
        Share of rows in :math:`V_h`, those of highest variance; by default ``1 - clean_share``.
    """
    variance = np.asarray(variance, dtype=np.float64)
    low = lowest(round(clean_share * len(variance)), variance)
    high = ~low if high_share is None else lowest(round(high_share * len(variance)), -variance)
    return VariationSets(low, high, low)


def changed_rate(learning_rates: NDArray[Any] | None, window: int) -> int | None:
    r"""Return the first epoch :math:`t_*` at the learning rate of the last epoch, if that change still acts.

    It does from its third epoch on (before, there is nothing to compare) and until `window` epochs after it.
    ``None`` means that the branch for a constant learning rate applies.
    """
    if learning_rates is None:
        return None
    changes = np.flatnonzero(np.diff(learning_rates)) + 1
    now = len(learning_rates) - 1
    return int(changes[-1]) if len(changes) and changes[-1] + 2 <= now <= changes[-1] + window else None


def adapted(
    predictions: NDArray[Any],
    codes: NDArray[np.int64],
    window: int,
    change: int | None = None,
    rule: str = "stable_label",
) -> Mask:
    r"""Return :math:`\beta_i = 1`, how a row adapts to the network, Eq. (5).

    With a constant learning rate it says that the prediction changed between the ends of the window. After a
    change of the rate at epoch :math:`t_*`, with *before* the prediction of epoch :math:`t_* - 1` and *now*
    that of the last epoch:

    - ``"stable_label"``: before = now = given label;
    - ``"stable"``: before = now;
    - ``"text"``: changed within the window, and before = now;
    - ``"eq5"``: changed within the window, and the prediction at :math:`t_*` differs from now.

    ``"eq5"`` is what the paper prints and ``"text"`` what its prose says; measured, rows selected by them are
    hardly purer than all rows, and often less.

    Parameters
    ----------
    predictions : (E, n) int array
        E >= 2.
    codes : (n,) int array
        Given labels.
    window : int
        Changes of the loss that are looked at, :math:`\tau`; clipped to E - 1.
    change : int, optional
        :math:`t_*`, see `changed_rate`; ``None`` for a constant rate.
    rule : {"stable_label", "stable", "text", "eq5"}
        Read only after a change.
    """
    if rule not in BETA_RULES:
        raise ParameterError(f"rule must be one of {BETA_RULES}, got {rule!r}.")
    now = predictions[-1]
    moved = np.asarray(predictions[-1 - min(window, len(predictions) - 1)] != now)
    if change is None:
        return moved
    if rule == "eq5":
        return np.asarray(moved & (predictions[change] != now))
    kept = np.asarray(predictions[change - 1] == now)
    if rule == "text":
        return moved & kept
    return kept if rule == "stable" else np.asarray(kept & (now == codes))


def clean_set(
    sets: VariationSets,
    small_loss: Mask,
    beta: Mask,
    losses: NDArray[Any],
    *,
    rate_changed: bool,
    most_unstable: int | None = None,
) -> Mask:
    r"""Return the rows selected as clean by both criteria, :math:`D_c` of Eq. (6).

    With a constant learning rate :math:`V_c \cap G_l` where :math:`\beta = 0`, after a change
    :math:`(V_l \cap G_l) \cup V_h` where :math:`\beta = 1`.

    Parameters
    ----------
    sets : VariationSets
        Eq. (4).
    small_loss : (n,) bool array
        :math:`G_l`, the component of small losses.
    beta : (n,) bool array
        Eq. (5).
    losses : (n,) array
        Losses of the last epoch.
    rate_changed : bool
        Which branch.
    most_unstable : int, optional
        At most so many rows are taken from :math:`V_h` alone, lowest losses first. The paper has no limit;
        measured, these rows are the least pure.
    """
    if not rate_changed:
        return sets.candidates & small_loss & ~beta
    stable = sets.low & small_loss & beta
    unstable = sets.high & beta & ~stable
    if most_unstable is not None:
        unstable = lowest(most_unstable, losses, among=unstable)
    return stable | unstable
