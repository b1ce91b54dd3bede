"""Data sets of Hugging Face's library `datasets`, as ``save_to_disk`` writes them; never the network."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.datasets.pictures import formats, read_all, thumbnail
from noisefilter.datasets.source import Source, Store, listed
from noisefilter.errors import InputError, ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from noisefilter.datasets.columns import Columns, Prepared

__all__ = ["HubStore", "is_saved_dataset"]

_LABEL_NAMES = frozenset({"label", "labels", "target", "class", "y"})
_TEXT_SHOWN = 300  # characters


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder looks like one that ``save_to_disk`` wrote, of a Dataset or of a DatasetDict."""
    return _is_dict(path) or all((path / name).is_file() for name in ("state.json", "dataset_info.json"))


def _is_dict(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file()


class HubStore(Store):
    """A folder that ``datasets.Dataset.save_to_disk`` wrote; a copy is such a folder again.

    Parameters
    ----------
    path : str or path
        The folder of a Dataset, or of a DatasetDict.
    label : str, optional
        The column of the labels. By default the only ClassLabel, or else a column called label, labels,
        target, class or y. Numbers of a ClassLabel become its names; -1 and None are missing labels.
    split : str, optional
        Which data set of a DatasetDict; needed where it has more than one.
    image : str, optional
        The column of the pictures, where there are several. Without pictures, the columns are a table.
    categorical, drop, missing : sequence of str, default=()
        How columns become numeric; see :func:`noisefilter.datasets.columns.numeric`.
    labeled : bool, default=True
        If False no column is looked at as labels, and every row has an empty text for one.

    Raises
    ------
    InputError
        If the library is not installed, the folder cannot be read, a column or split is missing, or pictures
        or sounds lie outside the folder: they might be anywhere.
    ParameterError
        If an option does not fit what the folder holds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        label: str | None = None,
        split: str | None = None,
        image: str | None = None,
        categorical: Sequence[str] = (),
        drop: Sequence[str] = (),
        missing: Sequence[str] = (),
        labeled: bool = True,
    ):
        self.path = Path(path)
        self.dataset = _read(_folder(self.path, split), self.path)
        self.label = _label_column(self.dataset.features, label, self.path) if labeled else ""
        self.image = _image_column(self.dataset.features, image, self.path)
        self.kind = "images" if self.image else "table"
        self.categorical, self.drop, self.missing = categorical, drop, missing
        for option, value in {"categorical": categorical, "drop": drop, "missing": missing}.items():
            if self.image and len(value):
                raise ParameterError(f"{option} must be left out for a data set of pictures, got {value!r}.")
        self.labels = self._names_of_labels() if labeled else np.full(len(self.dataset), "")
        split_name = f"/{split}" if split else ""
        self.description = f"{len(self.labels):,} rows in {self.path.name or self.path}{split_name}"

    def _names_of_labels(self) -> NDArray[Any]:
        values = self._column(self.label).to_pylist()
        names = getattr(self.dataset.features[self.label], "names", None)
        if names is not None:
            if wrong := [value for value in values if value is not None and not -1 <= value < len(names)]:
                raise InputError(
                    f"{self.label!r} in {str(self.path)!r} must hold numbers of its {len(names)} classes, "
                    f"got {wrong[0]}."
                )
            values = [None if value in (None, -1) else names[value] for value in values]
        return np.array(values, dtype=object if None in values else None)

    def _column(self, name: str) -> Any:
        return self.dataset.data.column(name)

    def load(  # type: ignore[override]
        self,
        *,
        backbone: str | None = None,
        image_size: int | None = None,
        skip_unreadable: bool = False,
        held_out: NDArray[np.bool_] | None = None,
        columns: Columns | None = None,
        verbose: bool = False,
    ) -> Source:
        """Decode the pictures as folders do, see `load_image_folder`; or make the columns numeric.

        Rows without a label are skipped like pictures that cannot be read. Nothing is learned about columns
        from rows that are held out, (N,) bool, nor where there are ``columns`` of other rows to go by.
        """
        rows, left_out = self.usable(skip_unreadable)
        preparation: Sequence[tuple[str, str]] = ()
        if self.image is None:
            for option, value in {"backbone": backbone, "image_size": image_size}.items():
                if value is not None:
                    raise ParameterError(
                        f"{option} must be left out for rows without pictures, got {value!r}."
                    )
            if columns is None:
                prepared, others = self._numeric(rows, held_out)
                X, preparation, columns = prepared.X, prepared.preparation, prepared.columns
                left_out += [*prepared.left_out, *others]
            else:
                X = columns.read(self._frame(self._plain(), rows), rows=rows, name=repr(str(self.path)))
        else:
            X, read = read_all(
                lambda i: self._open(int(rows[i])),
                len(rows),
                backbone=backbone,
                image_size=image_size,
                verbose=verbose,
            )
            left_out += self._unreadable(rows[~read], skip_unreadable and bool(read.any()))
            rows = rows[read]
        y = np.array(self.labels[rows].tolist())
        return Source(
            X, y, None, self.kind, self.description, left_out=left_out, rows=rows, store=self,
            preparation=preparation, columns=columns,
        )  # fmt: skip

    def _unreadable(self, rows: NDArray[np.intp], skip: bool) -> list[str]:
        if len(rows) and not skip:
            raise InputError(
                f"All pictures in {str(self.path)!r} must be readable, got {len(rows):,} of {len(self):,} "
                f"that are not: rows {listed(rows.tolist())}. skip_unreadable (--skip-unreadable) goes on "
                "without them."
            )
        return [f"row {row}: its picture cannot be read" for row in rows]

    def _numeric(
        self, rows: NDArray[np.intp], held_out: NDArray[np.bool_] | None
    ) -> tuple[Prepared, list[str]]:
        from noisefilter.datasets.columns import as_names, numeric

        features, plain = self.dataset.features, self._plain()
        others = [name for name in features if name not in (*plain, self.label)]
        left_out = [f"column {name!r}: holds {type(features[name]).__name__}" for name in others]
        classes = [name for name in plain if _is_class(features[name])]
        drop = [name for name in as_names(self.drop) if name not in others]
        frame = self._frame(plain, rows)
        try:
            prepared = numeric(
                frame,
                categorical=[*as_names(self.categorical), *classes],
                drop=drop,
                missing=self.missing,
                rows=rows,
                held_out=None if held_out is None else held_out[rows],
                name=repr(str(self.path)),
            )
        except InputError as error:
            if not all(self._is_text(name) for name in plain if name not in drop):
                raise
            raise InputError(
                f"{error} Text can be judged by an embedding of it: features (--features) names an .npy file."
            ) from error
        return prepared, left_out

    def _plain(self) -> list[str]:
        """Return the columns that hold one value a cell, without the label."""
        features = self.dataset.features
        plain = [
            name for name, feature in features.items() if type(feature).__name__ in ("Value", "ClassLabel")
        ]
        return [name for name in plain if name != self.label]

    def _is_text(self, name: str) -> bool:
        return getattr(self.dataset.features[name], "dtype", "") in ("string", "large_string")

    def _frame(self, names: list[str], rows: NDArray[np.intp], longest: int | None = None) -> pd.DataFrame:
        import pandas as pd
        import pyarrow.compute as pc

        columns = {}
        for name in names:
            column = self._column(name).take(rows)
            classes = getattr(self.dataset.features[name], "names", None)
            if longest is not None and self._is_text(name):
                column = pc.utf8_slice_codeunits(column, 0, longest)
            if classes is not None:
                codes = [None if code in (None, -1) else classes[code] for code in column.to_pylist()]
                columns[name] = pd.Series(codes, dtype=object)
            else:
                columns[name] = column.to_pandas()
        return pd.DataFrame(columns, index=pd.RangeIndex(len(rows)))

    def _open(self, row: int) -> Image:
        from PIL import Image

        cell = self._column(str(self.image))[row].as_py()
        return Image.open(BytesIO(cell["bytes"]), formats=formats())

    def picture(self, row: int, side: int = 128) -> Image | None:
        """Return a picture, whole, its longer side at most ``side`` pixels; None if it cannot be read."""
        if self.image is None:
            return None
        try:
            with self._open(row) as opened:
                return thumbnail(opened, side)
        except Exception:  # whatever Pillow raises on a broken file
            return None

    def cells(self, rows: NDArray[np.intp]) -> pd.DataFrame | None:
        """Return the columns with one value a cell, long text cut; None where there are none."""
        names = self._plain()
        return self._frame(names, np.asarray(rows), longest=_TEXT_SHOWN) if names else None

    def write(self, out: Path, rows: NDArray[np.intp], labels: NDArray[Any]) -> None:
        """Save a Dataset with the same columns."""
        import pyarrow as pa
        from datasets import Dataset

        values = self._column(self.label).to_pylist()
        classes = getattr(self.dataset.features[self.label], "names", None)
        for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
            values[row] = label if classes is None else classes.index(label)
        table = self.dataset.data.table
        at = table.column_names.index(self.label)
        field = table.schema.field(at)
        table = table.set_column(at, field, pa.chunked_array([pa.array(values, type=field.type)]))
        # datasets would hash all the pictures for a fingerprint of its own.
        fingerprint = hashlib.sha256(repr((self.fingerprint, values)).encode()).hexdigest()[:16]
        changed = Dataset(
            table, info=self.dataset.info.copy(), split=self.dataset.split, fingerprint=fingerprint
        )
        with _no_bars():
            changed.select(rows.tolist()).save_to_disk(str(out.resolve()))


def _folder(path: Path, split: str | None) -> Path:
    """Return the folder of the one data set that is meant."""
    if not _is_dict(path):
        if split is not None:
            raise ParameterError(
                f"split must be left out for the one data set in {str(path)!r}, got {split!r}."
            )
        return path
    try:
        splits = [str(name) for name in json.loads((path / "dataset_dict.json").read_bytes())["splits"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unsound(path, error) from error
    if split is None and len(splits) == 1:
        split = splits[0]
    if split not in splits:
        found = "nothing for it" if split is None else repr(split)
        raise InputError(
            f"split (--split) must name one of the data sets in {str(path)!r}, {listed(splits)}, got {found}."
        )
    return path / split


def _read(folder: Path, path: Path) -> Any:
    """Return the Dataset in a folder, memory-mapped and checked."""
    try:
        from datasets import Dataset
    except ImportError as error:
        raise InputError(
            f"{str(path)!r} must be read by Hugging Face's library, got no module 'datasets' here. "
            "pip install 'noisefilter[huggingface]' installs it."
        ) from error
    try:
        with _no_bars():
            dataset = Dataset.load_from_disk(str(folder.resolve()), keep_in_memory=False)
        dataset.data.validate(full=True)  # what Arrow is told about its own buffers it takes on trust
    except Exception as error:  # from JSON, Arrow and the library itself
        raise _unsound(path, error) from error
    if not len(dataset):
        raise InputError(f"{str(path)!r} must have rows, got a data set without.")
    for name in dataset.column_names:
        if outside := sum(_outside(chunk) for chunk in dataset.data.column(name).chunks):
            raise InputError(
                f"{str(path)!r} must hold all its pictures and sounds itself, got {outside:,} in {name!r} "
                "that only name a file or an address. save_to_disk of a recent version stores them inside."
            )
    return dataset.with_format(None)


def _unsound(path: Path, error: Exception) -> InputError:
    reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return InputError(
        f"{str(path)!r} must be a folder that save_to_disk wrote, sound and whole, got an error: {reason}."
    )


def _outside(array: Any) -> int:
    """Count the files that an Arrow array only names: on saving, `datasets` would open or fetch them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(array.type):
        fields = [array.type.field(i).name for i in range(array.type.num_fields)]
        if {"bytes", "path"} <= set(fields):
            named = pc.is_valid(pc.struct_field(array, "path"))
            inside = pc.is_valid(pc.struct_field(array, "bytes"))
            return int(pc.sum(pc.and_not(named, inside)).as_py() or 0)
        return sum(_outside(pc.struct_field(array, name)) for name in fields)
    if (
        pa.types.is_list(array.type)
        or pa.types.is_large_list(array.type)
        or pa.types.is_fixed_size_list(array.type)
    ):
        return _outside(array.flatten())
    return 0


def _label_column(features: Any, label: str | None, path: Path) -> str:
    classes = [str(name) for name, feature in features.items() if _is_class(feature)]
    possible = [str(name) for name, feature in features.items() if _is_class(feature) or _is_value(feature)]
    if label is None and len(classes) == 1:
        return classes[0]
    likely = [name for name in classes or possible if name.strip().casefold() in _LABEL_NAMES]
    if label is None and len(likely) == 1:
        return likely[0]
    if label is None or label not in possible:
        found = "nothing for it" if label is None else repr(label)
        raise InputError(
            f"label (--label) must name the column of the labels in {str(path)!r}, got {found}; it has "
            f"{listed(possible)}."
        )
    return label


def _is_class(feature: Any) -> bool:
    return type(feature).__name__ == "ClassLabel"


def _is_value(feature: Any) -> bool:
    return type(feature).__name__ == "Value"


def _image_column(features: Any, image: str | None, path: Path) -> str | None:
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if image is None and len(images) < 2:
        return images[0] if images else None
    if image not in images:
        found = "nothing for it" if image is None else repr(image)
        raise InputError(
            f"image (--image) must name a column of pictures in {str(path)!r}, {listed(images)}, got {found}."
        )
    return image


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep `datasets` from showing bars of its own, and leave its setting as it was."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
