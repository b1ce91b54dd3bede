"""The command ``noisefilter apply``: decisions become a corrected copy."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from noisefilter import datasets
from noisefilter.audit import options as opt
from noisefilter.audit.copies import check_copy, whole
from noisefilter.audit.decisions import class_of, decided, read_decisions
from noisefilter.audit.tables import escaped, read_flagged
from noisefilter.audit.terminal import one_sentence, show_facts
from noisefilter.errors import InputError, ParameterError


class Undecided(StrEnum):
    """What becomes of rows that an audit judged wrong and nobody decided about."""

    keep = "keep"
    remove = "remove"
    relabel = "relabel"


DecisionsFile = Annotated[
    Path, typer.Argument(help="The file that the report page saved.", show_default=False)
]
Out = Annotated[
    Path, typer.Option(help="The corrected copy, a file like the source or a folder; must not exist yet.")
]
OfUndecided = Annotated[
    Undecided,
    typer.Option(
        help="What becomes of rows that the audit judged wrong and nobody decided about: they stay as they "
        "are, go, or get the suggested label (those out of distribution go)."
    ),
]
Audit = Annotated[
    Path | None, typer.Option(help="Output folder of the audit, for --undecided remove or relabel.")
]


def apply(
    context: typer.Context,
    decisions: DecisionsFile,
    source: opt.SourceName,
    out: Out,
    undecided: OfUndecided = Undecided.keep,
    audit: Audit = None,
    label: opt.Label = None,
    categorical: opt.Categorical = None,
    drop: opt.Drop = None,
    missing: opt.Missing = None,
    split: opt.Split = None,
    image: opt.Image = None,
    root: opt.Root = None,
    x_key: opt.XKey = None,
    y_key: opt.YKey = None,
    noise: opt.DigitsNoise = None,
    noise_kind: opt.DigitsKind = None,
    random_state: opt.DigitsSeed = 0,
    debug: opt.Debug = False,
) -> None:
    """Write a corrected copy of a data set, by the decisions made in the report page.

    Example: noisefilter apply decisions.json photos/ --out corrected/

    Example: noisefilter apply decisions.json people.csv --label income --out corrected.csv
    --undecided remove --audit audit/
    """
    with one_sentence(context):
        typed = opt.given(
            label=label, categorical=categorical, drop=drop, missing=missing, split=split, image=image,
            root=root, x_key=x_key, y_key=y_key,
        )  # fmt: skip
        _check_audit(undecided, audit)
        store, _ = datasets.opened(source, typed)
        store = opt.planted(store, source, noise, noise_kind, random_state)
        check_copy(out, "out", store.suffixes, source)
        made = read_decisions(decisions, store)
        labels, kept = decided(store.labels, made)
        if audit is not None:
            flagged = read_flagged(audit, store)
            for decision in made:
                flagged.pop(decision.row, None)
            _settle(flagged, undecided, class_of(store.labels), labels, kept)
        if not kept.any():
            raise InputError("The decisions must leave one row at least, got none.")
        changed = kept & np.array(
            [str(new) != str(old) for new, old in zip(labels, store.labels, strict=True)]
        )
        with whole(out) as (copy,):
            store.write(copy, np.flatnonzero(kept), labels[kept])
        show_facts(_summary(len(store), changed, kept, out))


def _check_audit(undecided: Undecided, audit: Path | None) -> None:
    if undecided is not Undecided.keep and audit is None:
        raise ParameterError(f"audit must be given with --undecided {undecided}, got none.")
    if undecided is Undecided.keep and audit is not None:
        raise ParameterError(
            f"audit must be left out with --undecided keep, got {str(audit)!r}. remove and relabel read it."
        )


def _settle(
    flagged: Mapping[int, str | None],
    undecided: Undecided,
    classes: Mapping[str, Any],
    labels: NDArray[Any],
    kept: NDArray[np.bool_],
) -> None:
    """Remove or relabel, in place, the flagged rows."""
    classes = {escaped(text): label for text, label in classes.items()}
    for row, suggested in flagged.items():
        if undecided is Undecided.remove or suggested is None:
            kept[row] = False
        elif suggested in classes:
            labels[row] = classes[suggested]
        else:
            raise InputError(
                f"The labels suggested by the audit must be those of the data set, got {suggested!r}."
            )


def _summary(
    n_rows: int, changed: NDArray[np.bool_], kept: NDArray[np.bool_], out: Path
) -> list[tuple[str, str]]:
    return [
        ("rows", f"{n_rows:,}"),
        ("relabelled", f"{changed.sum():,}"),
        ("removed", f"{n_rows - kept.sum():,}"),
        ("kept as they were", f"{kept.sum() - changed.sum():,}"),
        ("written", f"{kept.sum():,} rows to {out}"),
    ]
