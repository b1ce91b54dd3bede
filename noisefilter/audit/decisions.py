"""What a person decided about rows: the file that the report page saves, and what becomes of the labels."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from noisefilter.datasets import Store
from noisefilter.datasets.source import is_missing, reason
from noisefilter.errors import InputError

__all__ = [
    "FORMAT",
    "MADE_BY",
    "Action",
    "Decision",
    "class_of",
    "decided",
    "plain",
    "read_decisions",
    "tally",
]

MADE_BY = "noisefilter report"
FORMAT = 1
Action = Literal["confirm", "relabel", "keep", "remove"]


@dataclass(frozen=True)
class Decision:
    """What a person decided about one row.

    Parameters
    ----------
    row : int
        Its number in the store, from 0.
    file : str or None
        Its name, where rows have names.
    given : str
        Its label in the store, as text.
    action : "confirm", "relabel", "keep" or "remove"
        The suggestion is right; another label is; the given label is; the row shall go.
    label : str or None
        The label it shall have, as text; None if the row shall go.
    """

    row: int
    file: str | None
    given: str
    action: Action
    label: str | None


def read_decisions(path: str | os.PathLike[str], store: Store) -> list[Decision]:
    """Read the decisions that the report page saved.

    Parameters
    ----------
    path : str or path
        The JSON file.
    store : Store
        The data set they must be for.

    Raises
    ------
    InputError
        If it is no such file, is for another data set, or a decision in it does not fit; the first that does
        not is named.
    """
    name = repr(os.fspath(path))
    content = _json(Path(path), name)
    if content.get("fingerprint") != store.fingerprint:
        raise InputError(
            f"The decisions in {name} must be for this data set, got ones for "
            f"{content.get('description')!r} ({content.get('rows')} rows)."
        )
    entries = content.get("decisions")
    if not isinstance(entries, list):
        raise InputError(f"The decisions in {name} must be a list, got {type(entries).__name__}.")
    known = set(class_of(store.labels))
    decisions = [_decision(entry, store, known, f"Decision {i} in {name}") for i, entry in enumerate(entries)]
    for row, n in Counter(decision.row for decision in decisions).items():
        if n > 1:
            raise InputError(f"{name} must decide about each row once, got {n} decisions about row {row}.")
    return decisions


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{name} must be a readable file, got an error: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        raise InputError(
            f"{name} must be the JSON file that the report page saves, got an error: {reason(error)}."
        ) from error
    if not isinstance(content, dict) or (content.get("made_by"), content.get("format")) != (MADE_BY, FORMAT):
        raise InputError(
            f"{name} must be a decisions file of format {FORMAT} that a report page saved, got another file."
        )
    return content


def _decision(entry: Any, store: Store, known: set[str], what: str) -> Decision:
    """Turn one entry of the file into a decision, after checking it against the store."""
    names = [field.name for field in fields(Decision)]
    if not isinstance(entry, dict) or not set(names) <= entry.keys():
        raise InputError(f"{what} must have {', '.join(names)}, got {_short(entry)}.")
    decision = Decision(**{name: entry[name] for name in names})
    row, n_rows = decision.row, len(store)
    if type(row) is not int or not 0 <= row < n_rows:
        raise InputError(f"{what} must be about a row from 0 to {n_rows - 1}, got {_short(row)}.")
    is_there = {"file": None if store.names is None else store.names[row], "given": str(store.labels[row])}
    for name, value in is_there.items():
        if entry[name] != value:
            raise InputError(
                f"{what} must have {name} {value!r}, as row {row} of the data set, got {_short(entry[name])}."
            )
    if decision.action not in get_args(Action):
        raise InputError(
            f"{what} must have an action of {', '.join(get_args(Action))}, got {_short(decision.action)}."
        )
    _check_label(decision, known, what)
    return decision


def _check_label(decision: Decision, known: set[str], what: str) -> None:
    action, label = decision.action, decision.label
    if not isinstance(label, str | None):
        raise InputError(f"{what} must have a text or null as label, got {_short(label)}.")
    allowed: Mapping[Action, tuple[bool, str]] = {
        "confirm": (label is None or label in known, "a label of the data set or null"),
        "relabel": (label in known, "a label of the data set"),
        "keep": (label == decision.given and label in known, f"the given label {decision.given!r}"),
        "remove": (label is None, "null"),
    }
    fits, rule = allowed[action]
    if not fits:
        raise InputError(f"{what} must have {rule} as label, to {action}, got {_short(label)}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def class_of(labels: NDArray[Any]) -> dict[str, Any]:
    """Return the classes among some labels by their texts, in the order of the texts."""
    return dict(sorted({str(label): label for label in labels if not is_missing(label)}.items()))


def plain(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels that are objects as what they are, text or numbers, as sources have them."""
    return np.array(labels.tolist()) if labels.dtype == object else labels


def decided(labels: NDArray[Any], decisions: Sequence[Decision]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels after the decisions, and which rows stay.

    Parameters
    ----------
    labels : (N,) array
        Those of the store.
    decisions : sequence of Decision
        Of the same store, see `read_decisions`.

    Returns
    -------
    labels : (N,) array
        A copy, of the same dtype.
    kept : (N,) bool array
        False where the row shall go.

    Examples
    --------
    >>> wrong = Decision(row=1, file=None, given="cat", action="relabel", label="dog")
    >>> decided(np.array(["dog", "cat", "cat"]), [wrong])
    (array(['dog', 'dog', 'cat'], dtype='<U3'), array([ True,  True,  True]))
    """
    classes = class_of(labels)
    labels, kept = labels.copy(), np.ones(len(labels), dtype=bool)
    for decision in decisions:
        if decision.label is None:
            kept[decision.row] = False
        else:
            labels[decision.row] = classes[decision.label]
    return labels, kept


def tally(decisions: Sequence[Decision]) -> str:
    """Say how many rows were decided about, and how.

    Examples
    --------
    >>> tally([Decision(0, None, "cat", "remove", None), Decision(1, None, "cat", "keep", "cat")])
    '2 rows: 0 relabelled, 1 removed, 1 kept'
    """
    removed = sum(decision.label is None for decision in decisions)
    kept = sum(decision.label == decision.given for decision in decisions)
    changed = len(decisions) - removed - kept
    return f"{len(decisions):,} rows: {changed:,} relabelled, {removed:,} removed, {kept:,} kept"
