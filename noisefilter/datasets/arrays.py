"""Arrays: scikit-learn's digits, ``.npz`` files, torchvision's CIFAR."""

from __future__ import annotations

import os
import zipfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from noisefilter.datasets.pictures import on_white, read_all
from noisefilter.datasets.source import Source, Store, is_sound_text, listed, reason
from noisefilter.errors import InputError, ParameterError

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

__all__ = ["ArrayStore", "load_cifar", "load_digits", "load_npz"]


class ArrayStore(Store):
    """Rows in memory; a copy is an ``.npz`` file.

    Parameters
    ----------
    X : (N, d) array, or images (N, H, W), (N, C, H, W) or (N, H, W, C)
        The rows.
    labels : (N,) array
        Their labels.
    description : str
        One line for people.
    keys : (str, str), default=("X", "y")
        What the two arrays are called in a copy.
    truth : (N,) array, optional
        The right labels, where they are known.
    """

    suffixes = (".npz",)

    def __init__(
        self,
        X: NDArray[Any],
        labels: NDArray[Any],
        description: str,
        keys: tuple[str, str] = ("X", "y"),
        truth: NDArray[Any] | None = None,
    ):
        self.X, self.labels, self.description, self.keys, self.truth = X, labels, description, keys, truth
        self.kind = "images" if X.ndim > 2 else "table"

    def load(  # type: ignore[override]
        self, *, backbone: str | None = None, verbose: bool = False
    ) -> Source:
        """Return the rows as they are, or as a backbone sees them; see `load_image_folder`.

        Raises
        ------
        ParameterError
            If a backbone is to see rows that are no images.
        """
        X, description = self.X, self.description
        if backbone is not None:
            if self.picture(0) is None:
                raise ParameterError(
                    f"backbone must be left out for rows that are no images, got {backbone!r}."
                )
            X, _ = read_all(self._open, len(self), backbone=backbone, verbose=verbose)
            description = f"{description}, as {backbone} sees them"
        return Source(X, self.labels, None, self.kind, description, truth=self.truth, store=self)

    def _open(self, row: int) -> Image:
        picture = self.picture(row)
        assert picture is not None
        return picture

    def picture(self, row: int) -> Image | None:
        """Return one row as a picture: values of uint8 as they are, others stretched over all rows seen."""
        if self.X.ndim not in (3, 4) or self.X.dtype.kind not in "fiub":
            return None
        from PIL import Image

        low, high = self._range
        pixels = _channels_last(np.asarray(self.X[row]))
        if (low, high) != (0.0, 255.0):
            with np.errstate(invalid="ignore"):
                pixels = (pixels.astype(np.float64) - low) / max(high - low, 1e-300) * 255
            pixels = np.clip(np.nan_to_num(pixels), 0, 255)
        return on_white(Image.fromarray(pixels.astype(np.uint8)))

    @cached_property
    def _range(self) -> tuple[float, float]:
        """Return the values of black and white: those of 8-bit pixels, or the extremes of the first rows."""
        some = np.asarray(self.X[:1000])
        if some.dtype == np.uint8 and some.max(initial=0) > 63:
            return 0.0, 255.0
        some = some[np.isfinite(some)]
        return (float(some.min()), float(some.max())) if some.size else (0.0, 1.0)

    def cells(self, rows: NDArray[np.intp]) -> pd.DataFrame | None:
        """Return the columns, called by their numbers; None for images."""
        if self.X.ndim > 2:
            return None
        import pandas as pd

        return pd.DataFrame(self.X[rows], columns=[f"column {j}" for j in range(self.X.shape[1])])

    def write(self, out: Path, rows: NDArray[np.intp], labels: NDArray[Any]) -> None:
        """Write an ``.npz`` file."""
        x_key, y_key = self.keys
        # Not np.savez: it would pickle objects, and add .npz to the name of a file that is not finished yet.
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for key, array in ((x_key, self.X[rows]), (y_key, labels.astype(self.labels.dtype))):
                with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def _channels_last(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return one image as (H, W) or (H, W, 3 or 4); of channels in doubt the first one, in gray."""
    if pixels.ndim == 2:
        return pixels
    first, last = pixels.shape[0] in (1, 3, 4), pixels.shape[-1] in (1, 3, 4)
    if first == last:
        return pixels[0] if pixels.shape[0] < pixels.shape[-1] else pixels[..., 0]
    pixels = np.moveaxis(pixels, 0, -1) if first else pixels
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels


def load_digits() -> Source:
    """Load the 1,797 handwritten digits that come with scikit-learn, as (1797, 8, 8) uint8 images of 0 to 16.

    Examples
    --------
    >>> load_digits().X.shape
    (1797, 8, 8)
    """
    return open_digits().load()


def open_digits() -> ArrayStore:
    """Return the digits as a store."""
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    return ArrayStore(
        digits.images.astype(np.uint8),
        digits.target,
        "scikit-learn's handwritten digits, 1,797 images of 8 x 8",
        truth=digits.target,
    )


def load_npz(path: str | os.PathLike[str], *, x_key: str = "X", y_key: str = "y") -> Source:
    """Load rows and labels from one ``.npz`` file, without unpickling anything.

    Parameters
    ----------
    path : str or path
        The file.
    x_key, y_key : str, default="X" and "y"
        Names of the two arrays: (n, d) rows or (n, ...) images, and (n,) labels.

    Raises
    ------
    InputError
        If the file cannot be read, lacks a key (the keys it has are listed), holds Python objects, or the
        lengths differ.
    """
    return open_npz(path, x_key=x_key, y_key=y_key).load()


def open_npz(
    path: str | os.PathLike[str], *, x_key: str = "X", y_key: str = "y", labeled: bool = True
) -> ArrayStore:
    """Return an ``.npz`` file as a store, see `load_npz`; unless ``labeled`` it need hold no labels."""
    path = Path(path)
    if not zipfile.is_zipfile(path):
        found = "a file of another format, or cut short" if path.exists() else "no such file"
        raise InputError(f"{str(path)!r} must be an .npz archive, got {found}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            X = _array(archive, x_key, "x_key", path)
            y = _array(archive, y_key, "y_key", path) if labeled else np.full(X.shape[:1], "")
    except InputError:
        raise
    except Exception as error:  # archives and headers can be wrong in many ways
        raise InputError(
            f"{str(path)!r} must be a sound .npz archive, got an error: {reason(error)}."
        ) from error
    if X.ndim < 2 or y.ndim != 1 or len(X) != len(y):
        raise InputError(
            f"{x_key} and {y_key} in {str(path)!r} must be rows and as many labels, got the shapes {X.shape} "
            f"and {y.shape}."
        )
    description = f"{path.name}: {x_key} {X.shape} {X.dtype}"
    description += f", {y_key} {y.shape} {y.dtype}" if labeled else ""
    return ArrayStore(X, y, description, (x_key, y_key))


def _array(archive: Any, key: str, option: str, path: Path) -> NDArray[Any]:
    if key not in archive.files:
        raise InputError(
            f"{option} must name an array in {str(path)!r}, got {key!r}; it has {listed(archive.files)}."
        )
    try:
        array = archive[key]
    except ValueError as error:
        if "pickle" not in str(error):
            raise
        raise InputError(
            f"{key} in {str(path)!r} must hold numbers or text, got Python objects, which would have to be "
            f"unpickled. Save it again with a numeric or text dtype."
        ) from error
    array = np.asarray(array)
    if not is_sound_text(array):
        raise InputError(f"{key} in {str(path)!r} must hold text, got characters that do not exist.")
    return array


def load_cifar(
    root: str | os.PathLike[str], name: Literal["cifar10", "cifar100"] = "cifar10", *, train: bool = True
) -> Source:
    """Load CIFAR-10 or CIFAR-100 from where torchvision keeps it; labels are the class names.

    Nothing is downloaded: ``torchvision.datasets.CIFAR10(root, download=True)`` does that, once. The files
    are pickles; torchvision reads them only if their checksums are those of the published ones.

    Parameters
    ----------
    root : str or path
        The folder that has ``cifar-10-batches-py`` or ``cifar-100-python`` in it.
    name : "cifar10" or "cifar100"
        Which of the two.
    train : bool, default=True
        The 50,000 training images, or else the 10,000 test images, (n, 32, 32, 3) uint8.

    Raises
    ------
    ParameterError
        If ``name`` is neither.
    InputError
        If the files are not there or not the published ones.
    """
    return open_cifar(root, name, train=train).load()


def open_named_cifar(
    name: Literal["cifar10", "cifar100"], *, root: str | os.PathLike[str] | None = None, train: bool = True
) -> ArrayStore:
    """Return CIFAR, which torchvision keeps in ``root``, as a store; see `load_cifar`."""
    if root is None:
        raise ParameterError(
            f"root (--root) must be the folder in which torchvision keeps {name}, got nothing for it."
        )
    return open_cifar(root, name, train=train)


def open_cifar(
    root: str | os.PathLike[str], name: Literal["cifar10", "cifar100"] = "cifar10", *, train: bool = True
) -> ArrayStore:
    """Return CIFAR as a store; see `load_cifar`."""
    from torchvision import datasets

    classes = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}
    if name not in classes:
        raise ParameterError(f"name must be 'cifar10' or 'cifar100', got {name!r}.")
    try:
        cifar = classes[name](root, train=train)
    except RuntimeError as error:
        raise InputError(
            f"root must be a folder with {name} as torchvision stores it, complete, got {str(root)!r}. "
            f"torchvision.datasets.{classes[name].__name__}({str(root)!r}, download=True) fetches it."
        ) from error
    part = "training" if train else "test"
    description = f"{name}, {len(cifar.targets):,} {part} images of 32 x 32"
    return ArrayStore(np.asarray(cifar.data), np.asarray(cifar.classes)[cifar.targets], description)


def read_features(path: str | os.PathLike[str], n_rows: int, rows: NDArray[np.intp]) -> NDArray[Any]:
    """Read an embedding that stands for the rows of a store, without unpickling anything.

    Parameters
    ----------
    path : str or path
        An ``.npy`` file of finite numbers, (N, d).
    n_rows : int
        The number N of rows in the store.
    rows : (n,) int array
        Which of them are wanted.

    Returns
    -------
    (n, d) array
        In memory.

    Raises
    ------
    InputError
        If the file cannot be read, or holds anything else.
    """
    what = f"features (--features) in {str(path)!r}"
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a header is text in Python's own syntax: it can be wrong in many ways
        raise InputError(f"{what} must be an .npy file of numbers, got an error: {reason(error)}.") from error
    if mapped.dtype.kind not in "fiub" or mapped.ndim != 2 or not mapped.shape[1]:
        raise InputError(
            f"{what} must be numbers of shape (rows, columns), got {mapped.dtype} of shape {mapped.shape}."
        )
    if len(mapped) != n_rows:
        raise InputError(
            f"{what} must have a row for each of the {n_rows:,} rows of the source, in the same order, got "
            f"{len(mapped):,}."
        )
    X = np.asarray(mapped[rows])
    if not np.isfinite(X).all():
        row = int(rows[np.flatnonzero(~np.isfinite(X).all(axis=1))[0]])
        raise InputError(f"{what} must be finite, got NaN or infinity, the first in row {row}.")
    return X
