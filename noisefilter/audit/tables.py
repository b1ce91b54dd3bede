"""The files of an audit, written whole or not at all."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from noisefilter import __version__
from noisefilter.errors import InputError
from noisefilter.verdict import PARTITION_NAMES, Verdict

__all__ = ["check_output", "output_folder", "summarize", "write_verdict"]

MARKER = "audit.json"
MADE_BY = "noisefilter audit"
COLUMNS = ("row", "file", "given_label", "score", "verdict", "suggested_label")


def check_output(out: str | os.PathLike[str]) -> Path:
    """Return the real path of an output folder, if writing it would destroy nothing.

    Parameters
    ----------
    out : str or path
        A folder that does not exist, is empty, or holds the files of an earlier audit and nothing else.

    Raises
    ------
    InputError
        If it holds other things, is a file or a mount point, or its parent cannot be written.
    """
    folder = Path(out).resolve()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"The output must be a folder, got the file {str(folder)!r}.")
    if os.path.ismount(folder):
        raise InputError(
            f"The output must be a folder that can be replaced, got the mount point {str(folder)!r}. "
            "Name a folder inside it."
        )
    others = sorted(_entries(folder) - _own_files(folder))
    if others:
        raise InputError(
            f"The output folder must be new, empty or an earlier audit, got {str(folder)!r}, which holds "
            f"other things, such as {others[0]!r}."
        )
    if not os.access(_existing(folder.parent), os.W_OK | os.X_OK):
        raise InputError(f"The output must be in a folder that can be written, got {str(folder)!r}.")
    return folder


def _entries(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.exists() else set()


def _own_files(folder: Path) -> set[str]:
    """Return the names an earlier audit says it wrote, or nothing where there was none."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return {MARKER, *marker["files"]} if marker["made_by"] == MADE_BY else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


@contextmanager
def output_folder(out: str | os.PathLike[str], about: Mapping[str, Any]) -> Iterator[Path]:
    """Give a new folder to write into, which takes the place of ``out`` when the block ends well.

    If the block raises, ``out`` is as it was, and nothing else is left. The folder gets a small
    ``audit.json`` that says what made it and lists its files; by that a later audit knows that it may
    replace it.

    Parameters
    ----------
    out : str or path
        The output folder; see `check_output`.
    about : mapping
        What to say in ``audit.json``. A number that is not finite becomes null.
    """
    folder = check_output(out)
    beside = _existing(folder.parent)
    new, old = (beside / f".{folder.name}.{os.getpid()}.{what}" for what in ("new", "old"))
    new.mkdir()
    try:
        yield new
        marker = {"made_by": MADE_BY, "version": __version__, **_plain(about), "files": sorted(_entries(new))}
        text = json.dumps(marker, indent=2, ensure_ascii=False, allow_nan=False)
        (new / MARKER).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        check_output(folder)  # the training took minutes: look again before anything is replaced
        _replace(folder, new, old)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``folder``; whatever goes wrong, one of the two stands there afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _plain(value: Any) -> Any:
    """Turn NumPy values and NaN into what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_verdict(folder: Path, verdict: Verdict, names: list[str] | None = None) -> None:
    r"""Write ``verdict.csv`` and ``clean_mask.npy``, both in row order.

    The table is UTF-8 with the columns row (from 0), file, given_label, score, verdict (clean, wrong label,
    out of distribution) and suggested_label. Names with quotes, commas or line breaks are quoted as CSV has
    it. Two things are not written as they are: bytes in a file name that are no UTF-8 become ``\udcXX``, and
    a text that a spreadsheet would run as a formula is defused, ``./`` before a file, ``'`` before a label.

    Parameters
    ----------
    folder : Path
        Where to write.
    verdict : Verdict
        The judgement.
    names : list of n str, optional
        The files; without them that column is empty.
    """
    rows = zip(
        range(len(verdict)),
        [_defused(name, "./") for name in names] if names is not None else [""] * len(verdict),
        [_defused(str(label), "'") for label in verdict.labels],
        verdict.scores.tolist(),
        [PARTITION_NAMES[part] for part in verdict.partition],
        [_defused(str(label), "'") for label in verdict.suggested_labels],
        strict=True,
    )
    path = folder / "verdict.csv"
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        table.writerows(rows)
    np.save(folder / "clean_mask.npy", verdict.clean_mask)


def _defused(text: str, prefix: str) -> str:
    """Keep a spreadsheet from taking a text for a formula; numbers such as -1 stay numbers."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return prefix + text
    return text


def summarize(verdict: Verdict, n_confusions: int = 5, n_suspects: int = 10) -> dict[str, Any]:
    """Count what a summary shows.

    Returns
    -------
    dict
        ``rows``, ``flagged``, ``wrong_label``, ``out_of_distribution``, ``estimated_noise_rate``;
        ``classes``: for each class (label, rows, flagged); ``confusions``: the most frequent (given,
        suggested, rows); ``suspects``: the flagged rows with the lowest scores, lowest first.
    """
    flagged = ~verdict.clean_mask
    per_class = [(label, verdict.labels == label) for label in verdict.classes]
    moved = zip(verdict.labels[verdict.id_mask], verdict.suggested_labels[verdict.id_mask], strict=True)
    order = np.argsort(verdict.scores, kind="stable")
    return {
        "rows": len(verdict),
        "flagged": int(flagged.sum()),
        "wrong_label": int(verdict.id_mask.sum()),
        "out_of_distribution": int(verdict.ood_mask.sum()),
        "estimated_noise_rate": verdict.estimated_noise_rate,
        "classes": [(label, int(mine.sum()), int((flagged & mine).sum())) for label, mine in per_class],
        "confusions": [(*pair, count) for pair, count in Counter(moved).most_common(n_confusions)],
        "suspects": order[flagged[order]][:n_suspects],
    }
