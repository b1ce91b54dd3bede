"""Tables: ``.csv``, ``.tsv`` and ``.parquet`` files with a column of labels."""

from __future__ import annotations

import csv
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from noisefilter.datasets.columns import Columns, Prepared, as_names, check_columns, named, numeric
from noisefilter.datasets.source import Source, Store, is_missing, listed, reason
from noisefilter.errors import InputError

__all__ = ["ColumnStore", "Prepared", "TableStore", "numeric"]

_LONGEST_CELL = 16_000_000  # characters; beyond, a quote has swallowed the file
_LABEL_NAMES = frozenset({"label", "labels", "target", "class", "y"})
_DELIMITERS = ",;\t|"
_BLOCK = 10_000  # rows that are Python objects at a time
_LONGEST_LABEL = 1000  # characters; one label of a megabyte would make every label take as much
_FEW_CLASSES = 50
_PLACES_SHOWN = 5
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")  # an int64 that is written the only way there is


class ColumnStore(Store):
    """Rows of an Arrow table, one column of which holds the labels; how a copy is written is left open.

    Parameters
    ----------
    table : pyarrow.Table
        All columns.
    name : str
        What people call the table; `description` is made of it.
    label : str, optional
        The column of the labels. By default the one called label, labels, target, class or y.
    categorical, drop, missing : sequence of str, default=()
        See `numeric`.
    labeled : bool, default=True
        If False no column is looked at as labels, and every row has an empty text for one.

    Attributes
    ----------
    table : pyarrow.Table
        As given.
    label : str
        The column of the labels; empty where there is none.

    Raises
    ------
    InputError
        If column names are missing or not unique, there are no rows, an option names no column, no column or
        several could be the label, or the label column holds no classes.
    """

    kind = "table"
    # Whether cells are texts only because the file knows no types, and what its numbers may have for a point.
    untyped: bool = False
    decimal: Literal[".", ","] = "."

    def __init__(
        self,
        table: pa.Table,
        name: str,
        *,
        label: str | None = None,
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        missing: Sequence[str] = (),
        labeled: bool = True,
    ):
        self.table, self.name = table, name
        self.categorical, self.drop, self.missing = as_names(categorical), as_names(drop), as_names(missing)
        _check_names(table.column_names, repr(name))
        if not len(table):
            raise InputError(f"{name!r} must have rows below its columns, got none.")
        self.label = _label_column(table.column_names, label, repr(name)) if labeled else ""
        self._features = [column for column in table.column_names if column != self.label]
        reasons = {name: _unreadable(table.schema.field(name).type) for name in self._features}
        self._unusable = {name: reason for name, reason in reasons.items() if reason}
        check_columns("categorical", self.categorical, self._features, repr(name))
        check_columns("drop", self.drop, self._features, repr(name))
        self.description = f"{name}: {len(table):,} rows, {len(self._features):,} columns"
        if not labeled:
            self.labels, self._without_label = np.full(len(table), ""), np.zeros(len(table), dtype=bool)
            return
        what = f"column {self.label!r} of {name!r}"
        self.labels, self._without_label = _labels(table[self.label], self.missing, what, self.untyped)
        self.description += f", label {self.label!r}"

    def _place(self, row: int) -> str:
        return f"row {row}"

    def cells(self, rows: NDArray[np.intp]) -> pd.DataFrame:
        """Return the columns as they are stored, without the label and without lists and bytes."""
        return self._frame(rows)

    def _frame(self, rows: NDArray[np.intp] | None = None) -> pd.DataFrame:
        table = self.table.select([name for name in self._features if name not in self._unusable])
        table = table if rows is None else table.take(pa.array(rows, type=pa.int64()))
        # What pandas left in the file is not looked at, nor may it fail there.
        return table.replace_schema_metadata().to_pandas(ignore_metadata=True, date_as_object=False)

    def load(  # type: ignore[override]
        self,
        *,
        skip_unreadable: bool = False,
        held_out: NDArray[np.bool_] | None = None,
        columns: Columns | None = None,
    ) -> Source:
        """Make the columns numeric; see `numeric`.

        Parameters
        ----------
        skip_unreadable : bool, default=False
            Go on without rows that have no label, and name them in ``left_out``.
        held_out : (N,) bool array, optional
            Rows from which nothing is learned about the columns; see `numeric`.
        columns : Columns, optional
            Makes the columns numeric as those of other rows were.

        Raises
        ------
        InputError
            If labels are missing, all rows have the same, or `numeric` cannot use the columns.
        """
        rows, left_out = self.usable(skip_unreadable)
        labels = np.array(self.labels[rows].tolist())  # of the type they have without a missing one
        if columns is not None:
            X = columns.read(
                self._frame(rows), decimal=self.decimal, rows=rows, place=self._place, name=repr(self.name)
            )
            return Source(
                X, labels, None, "table", self.description, left_out=left_out, rows=rows, store=self,
                columns=columns,
            )  # fmt: skip
        if (labels == labels[:1]).all():
            raise InputError(
                f"column {self.label!r} of {self.name!r} must hold two classes at least, got "
                f"{labels.tolist()[0]!r:.60} in every row. --label NAME names another column."
            )
        prepared = numeric(
            self._frame(rows if len(rows) < len(self) else None),
            categorical=self.categorical,
            drop=self.drop,
            missing=self.missing,
            decimal=self.decimal,
            unusable=self._unusable,
            rows=rows,
            held_out=None if held_out is None else held_out[rows],
            place=self._place,
            name=repr(self.name),
        )
        return Source(
            X=prepared.X,
            y=labels,
            names=None,
            kind="table",
            description=self.description,
            left_out=left_out + prepared.left_out,
            rows=rows,
            store=self,
            preparation=prepared.preparation,
            columns=prepared.columns,
        )

    def usable(self, skip_unreadable: bool = False) -> tuple[NDArray[np.intp], list[str]]:
        """Return the rows that have a label, and a line about those that have none."""
        rows = np.flatnonzero(self._without_label)
        places = [self._place(row) for row in rows[:_PLACES_SHOWN].tolist()]
        if len(rows) and (not skip_unreadable or len(rows) == len(self)):
            raise InputError(
                f"column {self.label!r} of {self.name!r} must hold a label in every row, got {len(rows):,} "
                f"of {len(self):,} without, the first in {places[0]}. skip_unreadable (--skip-unreadable) "
                "goes on without them."
            )
        more = f" and {len(rows) - len(places):,} more" if len(rows) > len(places) else ""
        line = f"{len(rows):,} without a label: {', '.join(places)}{more}"
        return np.flatnonzero(~self._without_label), [line] if len(rows) else []


class TableStore(ColumnStore):
    """A table in a file; a copy has the same format, the same columns and the same cells.

    A ``.csv`` file is UTF-8 text with a line of column names. Columns are separated by whichever of ``, ;``,
    tab and ``|`` makes most of them in that line, in a ``.tsv`` file by tabs. Where it is ``;``, numbers may
    have a decimal comma. Blank lines are skipped.

    Parameters
    ----------
    path : str or path
        Ends in .csv, .tsv or .parquet.
    label : str, optional
        The column of the labels. By default the one called label, labels, target, class or y.
    categorical, drop, missing : sequence of str, default=()
        See `numeric`.
    labeled : bool, default=True
        If False no column is looked at as labels.

    Raises
    ------
    InputError
        If the file cannot be read (of a text the line is named), or for the reasons of `ColumnStore`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        label: str | None = None,
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        missing: Sequence[str] = (),
        labeled: bool = True,
    ):
        self.path = Path(path)
        self.suffixes = (self.path.suffix.lower(),)
        if not self.path.is_file():
            found = "a folder" if self.path.is_dir() else "no such file"
            raise InputError(f"{str(self.path)!r} must be a table, got {found}.")
        self._text: _Text | None = None
        if self.suffixes == (".parquet",):
            table = _read_parquet(self.path)
        else:
            self._text = _read_text(self.path, "\t" if self.suffixes == (".tsv",) else _DELIMITERS)
            table = self._text.table
            self.untyped, self.decimal = True, "," if self._text.delimiter == ";" else "."
        super().__init__(
            table, self.path.name, label=label, categorical=categorical, drop=drop, missing=missing,
            labeled=labeled,
        )  # fmt: skip

    def _place(self, row: int) -> str:
        return f"line {self._text.lines[row]}" if self._text else super()._place(row)

    def write(self, out: Path, rows: NDArray[np.intp], labels: NDArray[Any]) -> None:
        """Write a file of the same format; a label that is missing stays missing the way it was."""
        first = {str(label): row for row, label in reversed(list(enumerate(self.labels.tolist())))}
        try:
            cells = [
                row if is_missing(label) else first[str(label)]
                for row, label in zip(rows.tolist(), labels.tolist(), strict=True)
            ]
        except KeyError as error:
            raise InputError(f"labels must be among those of {self.name!r}, got {error.args[0]!r}.") from None
        relabeled = self.table[self.label].take(pa.array(cells, type=pa.int64()))
        table = self.table.take(pa.array(rows, type=pa.int64()))
        index = table.schema.get_field_index(self.label)
        table = table.set_column(index, table.schema.field(index), relabeled)
        if self._text:
            _write_text(out, table, self._text)
        else:
            pq.write_table(table, out)


class _Text(NamedTuple):
    """A text file as it was read: all cells are text; ``lines[row]`` is where a row starts, from 1."""

    table: pa.Table
    lines: array[int]
    delimiter: str
    line_end: str
    encoding: Literal["utf-8", "utf-8-sig"]


def _read_text(path: Path, delimiters: str) -> _Text:
    try:
        with path.open("rb") as raw:
            start = raw.read(3)
        encoding: Literal["utf-8", "utf-8-sig"] = "utf-8-sig" if start == b"\xef\xbb\xbf" else "utf-8"
        with path.open(encoding=encoding, newline="") as file:
            delimiter = _delimiter(file, delimiters)
            file.seek(0)
            records = _records(file, delimiter, path)
            header = next(records, (1, []))[1]
            if not header:
                raise InputError(f"{str(path)!r} must start with a line of column names, got an empty file.")
            table, lines = _table(records, header)
            line_end = _line_end(file, delimiter)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{str(path)!r} must be UTF-8 text, got other bytes in line {_undecodable_line(path)}. Save it "
            "as UTF-8."
        ) from error
    except OSError as error:
        raise InputError(f"{str(path)!r} must be a readable file, got an error: {error.strerror}.") from error
    return _Text(table, lines, delimiter, line_end, encoding)


def _delimiter(file: TextIO, delimiters: str) -> str:
    """Return the delimiter that makes most columns of the first line that is not blank."""
    counts: list[float] = []
    for delimiter in delimiters:
        file.seek(0)
        try:
            counts.append(len(next(filter(None, csv.reader(file, delimiter=delimiter, strict=True)), [])))
        except csv.Error:
            counts.append(1.5)  # a broken quote shall be told, rather than hidden in a header of one name
    return delimiters[int(np.argmax(counts))]


def _line_end(file: TextIO, delimiter: str) -> str:
    r"""Return \r\n where the header ends in it, else \n; a line that ends inside a quote says nothing."""
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter)
    next(filter(None, reader))
    file.seek(0)
    (last,) = islice(file, reader.line_num - 1, reader.line_num)
    return "\r\n" if last.endswith("\r\n") else "\n"


def _records(file: TextIO, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line where each row starts, and its cells; the first one is the header.

    csv alone reads the file, once: where a second reader took a quote or line break in another way, rows
    would belong to other lines, or to other labels.
    """
    reader = csv.reader(_lines(file, path), delimiter=delimiter, strict=True)
    width, line = 0, 1
    usual = csv.field_size_limit(_LONGEST_CELL)
    try:
        for cells in reader:
            if cells:
                width = width or len(cells)
                if len(cells) != width:
                    raise InputError(
                        f"{str(path)!r} must have {width} cells in every row, as in its header, got "
                        f"{len(cells)} in line {line}."
                    )
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(
            f"{str(path)!r} must close every quote it opens, and double quotes inside a cell, got a row that "
            f"cannot be read in line {line} ({error})."
        ) from error
    finally:
        csv.field_size_limit(usual)


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        if "\0" in line:
            raise InputError(f"{str(path)!r} must be text, got a NUL character in line {number}.")
        yield line


def _table(records: Iterator[tuple[int, list[str]]], header: list[str]) -> tuple[pa.Table, array[int]]:
    """Return all cells as Arrow texts, and the lines; only a block of rows at a time is Python objects."""
    lines = array("q")
    blocks: list[list[pa.Array]] = []
    while block := list(islice(records, _BLOCK)):
        lines.extend(line for line, _ in block)
        columns = zip(*(cells for _, cells in block), strict=True)
        blocks.append([pa.array(column, type=pa.large_string()) for column in columns])
    chunks = zip(*blocks, strict=True) if blocks else ([] for _ in header)
    texts = [pa.chunked_array(list(chunk), type=pa.large_string()) for chunk in chunks]
    return pa.Table.from_arrays(texts, names=header), lines


def _undecodable_line(path: Path) -> int:
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return 1 + len(re.findall(rb"\r\n|\r|\n", content[: error.start]))
    return 1


def _write_text(out: Path, table: pa.Table, text: _Text) -> None:
    with out.open("w", encoding=text.encoding, newline="") as file:
        writer = csv.writer(_Lines(file, text.line_end), delimiter=text.delimiter)
        writer.writerow(table.column_names)
        for batch in table.to_batches(max_chunksize=_BLOCK):
            writer.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))


class _Lines(NamedTuple):
    r"""Where csv writes: it quotes \r as well as \n only if its lines end in both."""

    file: TextIO
    line_end: str

    def write(self, line: str) -> int:
        """Write one row."""
        return self.file.write(line.removesuffix("\r\n") + self.line_end)


def _read_parquet(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} must be a whole parquet file, got one of another format, damaged, or cut short "
            f"({reason(error)})."
        ) from error
    return table


def _unreadable(kind: pa.DataType) -> str:
    """Say what a column holds that is no plain value, or nothing."""
    if pa.types.is_dictionary(kind):
        return _unreadable(kind.value_type)
    if pa.types.is_nested(kind) or "binary" in str(kind) or isinstance(kind, pa.BaseExtensionType):
        return f"holds {' '.join(str(kind).split()):.60}"
    return ""


def _check_names(names: list[str], table: str) -> None:
    if "" in names:
        raise InputError(
            f"every column of {table} must have a name, got none for column {names.index('') + 1}. Where it "
            "is the index of a pandas frame, save it with index=False."
        )
    if any("\0" in name for name in names):
        raise InputError(f"the columns of {table} must have names of text, got a NUL character in one.")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise InputError(f"the columns of {table} must have different names, got {listed(twice)} repeatedly.")


def _label_column(columns: list[str], label: str | None, table: str) -> str:
    """Return which column holds the labels."""
    if label is not None:
        if label not in columns:
            raise InputError(f"label must name a column of {table}, got {label!r}; it has {named(columns)}.")
        return label
    likely = [column for column in columns if column.strip().casefold() in _LABEL_NAMES]
    if len(likely) == 1:
        return likely[0]
    found = f"none, and {listed(likely)} could each be it" if likely else "none"
    raise InputError(
        f"label must name a column of {table}, got {found}; it has {named(columns)}. --label NAME says which."
    )


def _labels(
    column: pa.ChunkedArray, missing: Sequence[str], what: str, untyped: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels as stored, missing ones as None, and which are missing."""
    kind = column.type
    if _unreadable(kind):
        raise InputError(f"{what} must hold texts or whole numbers, got one that {_unreadable(kind)}.")
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
    encoded = column.combine_chunks().dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    found = encoded.dictionary.to_pylist()
    texts = [str(value) for value in found]
    _check_classes(texts, len(codes), what)
    no_label = {"", *missing}  # a class may well be called None or NA
    if pa.types.is_floating(kind):
        no_label.add("nan")
    is_label = [text.strip() not in no_label for text in texts]
    classes: list[Any]
    if untyped and all(
        _WHOLE.fullmatch(text) for text, is_one in zip(texts, is_label, strict=True) if is_one
    ):
        classes = [int(text) if is_one else 0 for text, is_one in zip(texts, is_label, strict=True)]
    else:
        numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        classes = found if numbers else texts
    labels = np.array(classes or [0])[codes]
    without = ~np.array([*is_label, False])[codes]
    if without.any():
        labels = labels.astype(object)
        labels[without] = None
    return labels, without


def _check_classes(texts: list[str], n_rows: int, what: str) -> None:
    odd = [text for text in texts if len(text) > _LONGEST_LABEL or "\0" in text]
    if odd:
        raise InputError(
            f"{what} must hold short labels, got {odd[0][:40]!r}… of {len(odd[0]):,} characters."
        )
    if len(texts) > max(_FEW_CLASSES, n_rows / 2):
        raise InputError(
            f"{what} must hold classes, got {len(texts):,} different values in {n_rows:,} rows. --label NAME "
            "names another column."
        )
