"""The files of an audit or a training, written whole or not at all."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisefilter import __version__
from noisefilter.atomic import discard, left_over, temporary
from noisefilter.datasets import Source, Store
from noisefilter.datasets.source import reason
from noisefilter.errors import InputError
from noisefilter.verdict import CLEAN, OOD_NOISE, PARTITION_NAMES, Verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AUDIT",
    "TRAINING",
    "Maker",
    "check_output",
    "escaped",
    "output_folder",
    "put_right",
    "read_flagged",
    "summarize",
    "write_predictions",
    "write_verdict",
]


class Maker(NamedTuple):
    """A command that fills an output folder.

    Attributes
    ----------
    made_by : str
        The command.
    marker : str
        The file that says so, and lists the others.
    work : str
        What people call what it made.
    kept : str
        A folder in the output folder that is not replaced; none if empty.
    """

    made_by: str
    marker: str
    work: str
    kept: str = ""


AUDIT = Maker("noisefilter audit", "audit.json", "audit")
TRAINING = Maker("noisefilter train", "training.json", "training", "checkpoints")


def check_output(out: str | os.PathLike[str], maker: Maker = AUDIT) -> Path:
    """Return the real path of an output folder, if writing it would destroy nothing.

    Parameters
    ----------
    out : str or path
        A folder that does not exist, is empty, or holds the files of an earlier audit and nothing else.
    maker : Maker, default=AUDIT
        The command that is to fill it, whose earlier work it may hold.

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
    others = sorted(_entries(folder) - _own_files(folder, maker) - {maker.kept})
    if others:
        raise InputError(
            f"The output folder must be new, empty or an earlier {maker.work}, got {str(folder)!r}, which "
            f"holds other things, such as {others[0]!r}."
        )
    if not os.access(_existing(folder.parent), os.W_OK | os.X_OK):
        raise InputError(f"The output must be in a folder that can be written, got {str(folder)!r}.")
    return folder


def _entries(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.exists() else set()


def _own_files(folder: Path, maker: Maker) -> set[str]:
    """Return the names an earlier audit or training says it wrote, or nothing where there was none."""
    try:
        marker = json.loads((folder / maker.marker).read_text(encoding="utf-8"))
        return {maker.marker, *marker["files"]} if marker["made_by"] == maker.made_by else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


@contextmanager
def output_folder(
    out: str | os.PathLike[str], about: Mapping[str, Any], maker: Maker = AUDIT
) -> Iterator[Path]:
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
    maker : Maker, default=AUDIT
        The command that fills it; a training writes ``training.json``, and its checkpoints stay.
    """
    put_right(out)
    folder = check_output(out, maker)
    new = temporary(folder, "new", _existing(folder.parent))
    new.mkdir()
    try:
        yield new
        marker = {
            "made_by": maker.made_by, "version": __version__, **_plain(about), "files": sorted(_entries(new))
        }  # fmt: skip
        text = json.dumps(marker, indent=2, ensure_ascii=False, allow_nan=False)
        (new / maker.marker).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        check_output(folder, maker)  # the training took minutes: look again before anything is replaced
        _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def put_right(out: str | os.PathLike[str]) -> None:
    """Finish or undo what a process was about when it was killed while it replaced an output folder.

    Afterwards the folder is as it was before that process or as it would have been after it, and nothing is
    left beside it.

    Parameters
    ----------
    out : str or path
        The output folder of an audit or a training.
    """
    folder = Path(out).resolve()
    beside = _existing(folder.parent)
    for old in left_over(folder, "old", beside):
        _settle(folder, old)
    for what in ("new", "gone"):
        for left in left_over(folder, what, beside):
            discard(left)


def _replace(folder: Path, new: Path) -> None:
    """Put ``new`` in the place of ``folder``; whatever goes wrong, one of the two stands there afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    old = temporary(folder, "old", new.parent)
    try:
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        _settle(folder, old)


def _settle(folder: Path, old: Path) -> None:
    """Put back what ``folder`` was if nothing stands there; else keep its checkpoints, and remove the rest.

    The rest has another name before it is removed: half of a folder must not be put back.
    """
    if not old.exists():
        return
    if not folder.exists():
        old.rename(folder)
        return
    earlier, kept = old / TRAINING.kept, folder / TRAINING.kept
    if os.path.lexists(earlier) and not os.path.lexists(kept):
        earlier.rename(kept)
    gone = temporary(folder, "gone", old.parent)
    old.rename(gone)
    discard(gone)


def _plain(value: Any) -> Any:
    """Turn NumPy values and NaN into what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_verdict(folder: Path, source: Source, verdict: Verdict) -> None:
    r"""Write ``verdict.csv``, ``verdict.parquet`` and ``clean_mask.npy``, all in row order.

    The tables have the columns row (its number in the store, from 0), file, given_label, score, verdict
    (clean, wrong label, out of distribution) and suggested_label; then clean_proba if the verdict has it, and
    truth where it is known. Bytes in a file name that are no UTF-8 become ``\udcXX``. The CSV file is UTF-8;
    names with quotes, commas or line breaks are quoted as CSV has it, and a text that a spreadsheet would run
    as a formula is defused, ``./`` before a file, ``'`` before a label. The parquet file keeps the types.

    The mask has one entry for each row of the store; rows that were not judged are not clean.

    Parameters
    ----------
    folder : Path
        Where to write.
    source : Source
        What was judged.
    verdict : Verdict
        The judgement of its rows, in their order.
    """
    frame = _frame(source, verdict)
    frame.to_parquet(folder / "verdict.parquet", index=False, engine="pyarrow")
    path = folder / "verdict.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(frame.columns)
        table.writerows(zip(*(_cells(frame, name) for name in frame.columns), strict=True))
    rows = np.arange(len(source)) if source.rows is None else source.rows
    mask = np.zeros(len(source) if source.store is None else len(source.store), dtype=bool)
    mask[rows[verdict.clean_mask]] = True
    np.save(folder / "clean_mask.npy", mask)


def write_predictions(
    path: Path, source: Source, labels: NDArray[Any], classes: NDArray[Any], probs: NDArray[Any]
) -> None:
    """Write a CSV file with a line for each row of a source: what was predicted, and how probable it is.

    Columns are row (its number in the store, from 0), file where rows have names, predicted_label, and proba_
    before the name of each class. Texts are written as `write_verdict` writes them.

    Parameters
    ----------
    path : Path
        The file.
    source : Source
        The rows.
    labels : (n,) array
        What they are predicted as.
    classes : (K,) array
        All classes.
    probs : (n, K) array
        Their probabilities.
    """
    names = [] if source.names is None else [[_defused(escaped(name), "./") for name in source.names]]
    predicted = [_defused(escaped(str(label)), "'") for label in labels]
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        headers = [escaped(f"proba_{label}") for label in classes]
        table.writerow(["row", *(["file"] if names else []), "predicted_label", *headers])
        rows = np.arange(len(source)) if source.rows is None else source.rows
        table.writerows(zip(rows.tolist(), *names, predicted, *probs.T.tolist(), strict=True))


def _frame(source: Source, verdict: Verdict) -> pd.DataFrame:
    import pandas as pd

    names: Sequence[str | None] = [None] * len(source) if source.names is None else source.names
    columns: dict[str, Any] = {
        "row": source.rows,
        "file": pd.array([name and escaped(name) for name in names], dtype="string"),
        "given_label": _typed(verdict.labels),
        "score": verdict.scores,
        "verdict": np.array(PARTITION_NAMES)[verdict.partition],
        "suggested_label": _typed(verdict.suggested_labels),
    }
    if verdict.clean_proba is not None:
        columns["clean_proba"] = verdict.clean_proba
    if source.truth is not None:
        columns["truth"] = _typed(source.truth)
    return pd.DataFrame(columns)


def _typed(labels: NDArray[Any]) -> Any:
    """Numbers as they are, all else as text that any program can read."""
    return labels if labels.dtype.kind in "biuf" else [escaped(str(label)) for label in labels]


def escaped(text: str) -> str:
    """Spell out what UTF-8 cannot write, as bytes of a file name that are none."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cells(frame: pd.DataFrame, name: str) -> list[Any]:
    """Return a column as it stands in the CSV file."""
    values = frame[name].tolist()
    if name == "file":
        return [_defused(value, "./") if isinstance(value, str) else "" for value in values]
    if name in ("given_label", "suggested_label", "truth"):
        return [_defused(str(value), "'") for value in values]
    return values


def read_flagged(out: str | os.PathLike[str], store: Store) -> dict[int, str | None]:
    """Return the rows that an earlier audit or training of the same data set judged wrong.

    Parameters
    ----------
    out : str or path
        The output folder of the audit or training.
    store : Store
        The data set.

    Returns
    -------
    dict
        Row number in the store -> suggested label as text (see `escaped`), None out of distribution.

    Raises
    ------
    InputError
        If there is no audit, it was one of other data, or its verdict cannot be read.
    """
    import pandas as pd

    put_right(out)
    folder = Path(out)
    maker = next((maker for maker in (AUDIT, TRAINING) if _own_files(folder, maker)), None)
    if maker is None:
        raise InputError(f"audit must be the output folder of an audit, got {str(folder)!r}.")
    marker = json.loads((folder / maker.marker).read_text(encoding="utf-8"))
    if marker.get("fingerprint") != store.fingerprint:
        raise InputError(
            f"The {maker.work} in {str(folder)!r} must be of this data set, got one of "
            f"{marker.get('source')!r}."
        )
    path = folder / "verdict.parquet"
    try:
        frame = pd.read_parquet(path, columns=["row", "verdict", "suggested_label"], engine="pyarrow")
        flagged = frame[frame["verdict"] != PARTITION_NAMES[CLEAN]]
        strangers = (flagged["verdict"] == PARTITION_NAMES[OOD_NOISE]).tolist()
        suggested = [str(label) for label in flagged["suggested_label"].tolist()]
        rows = [int(row) for row in flagged["row"]]
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:  # pyarrow's are such
        raise InputError(
            f"{str(path)!r} must be the table of an audit, got an error: {reason(error)}."
        ) from error
    if any(not 0 <= row < len(store) for row in rows):
        raise InputError(f"{str(path)!r} must be about the {len(store)} rows of the data set, got others.")
    return {
        row: None if stranger else label
        for row, stranger, label in zip(rows, strangers, suggested, strict=True)
    }


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
