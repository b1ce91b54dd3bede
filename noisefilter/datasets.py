"""Where rows and labels come from: digits, ``.npz`` files, folders of photos, torchvision's CIFAR.

Every loader returns a `Source`; `load` picks the loader by looking at what it is given.
"""

from __future__ import annotations

import inspect
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray

from noisefilter.errors import InputError, ParameterError
from noisefilter.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Source", "load", "load_cifar", "load_digits", "load_image_folder", "load_npz"]

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
# What a file may really be, whatever its name says. Not EPS: Pillow would run Ghostscript on it.
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")
_NAMES_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Source:
    """Rows and their labels, with what a report says about them.

    Parameters
    ----------
    X : (n, d) array, or (n, H, W) or (n, H, W, 3) array of images
        The rows.
    y : (n,) array
        The labels as given.
    names : list of n str, optional
        What each row is called, for a folder its path inside the folder, with ``/``.
    kind : "images" or "table"
        Whether a row is a picture or a list of numbers.
    description : str
        One line for people.
    truth : (n,) array, optional
        The right labels, where they are known.
    left_out : list of str
        Files that were found but not read: no images, or unreadable and skipped.
    """

    X: NDArray[Any]
    y: NDArray[Any]
    names: list[str] | None
    kind: Literal["images", "table"]
    description: str
    truth: NDArray[Any] | None = None
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.y)


def load(source: str | os.PathLike[str], *, verbose: bool = False, **options: Any) -> Source:
    """Load whatever ``source`` names.

    Parameters
    ----------
    source : str or path
        ``"digits"``; the path of a ``.npz`` file; a folder with one sub-folder of images per class; or the
        folder in which torchvision keeps CIFAR-10 or CIFAR-100.
    verbose : bool, default=False
        Show a progress bar, where loading takes long enough for one.
    **options
        Passed to the loader: `load_digits`, `load_npz`, `load_image_folder` or `load_cifar`.

    Raises
    ------
    InputError
        If there is nothing of that name, or nothing that can be read.
    ParameterError
        If the loader for this source has no such option.
    """
    path = Path(source)
    loader, arguments = _loader(path, is_digits=str(source) == "digits")
    accepted = set(inspect.signature(loader).parameters)
    for name in options:
        if name not in accepted:
            raise ParameterError(
                f"{name} must be left out for the source {str(source)!r}, got {options[name]!r}."
            )
    if "verbose" in accepted:
        options["verbose"] = verbose
    return loader(*arguments, **options)


def _loader(path: Path, is_digits: bool) -> tuple[Callable[..., Source], tuple[Any, ...]]:
    if is_digits:
        return load_digits, ()
    if path.is_dir():
        for name, folder in (("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")):
            if (path / folder).is_dir():
                return load_cifar, (path, name)
        return load_image_folder, (path,)
    if path.suffix.lower() == ".npz":
        return load_npz, (path,)
    raise InputError(
        f"source must be digits, an .npz file, a folder with one sub-folder of images per class, or "
        f"torchvision's CIFAR folder, got {str(path)!r}{'' if path.exists() else ', which does not exist'}."
    )


def load_digits() -> Source:
    """Load the 1,797 handwritten digits that come with scikit-learn, as (1797, 8, 8) uint8 images of 0 to 16.

    Examples
    --------
    >>> load_digits().X.shape
    (1797, 8, 8)
    """
    from sklearn.datasets import load_digits as sklearn_digits

    digits = sklearn_digits()
    return Source(
        X=digits.images.astype(np.uint8),
        y=digits.target,
        names=None,
        kind="images",
        description="scikit-learn's handwritten digits, 1,797 images of 8 x 8",
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
    path = Path(path)
    if not zipfile.is_zipfile(path):
        found = "a file of another format, or cut short" if path.exists() else "no such file"
        raise InputError(f"{str(path)!r} must be an .npz archive, got {found}.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            X, y = _array(archive, x_key, "x_key", path), _array(archive, y_key, "y_key", path)
    except InputError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{str(path)!r} must be a sound .npz archive, got an error: {error}.") from error
    if X.ndim < 2 or y.ndim != 1 or len(X) != len(y):
        raise InputError(
            f"{x_key} and {y_key} in {str(path)!r} must be rows and as many labels, got the shapes {X.shape} "
            f"and {y.shape}."
        )
    kind: Literal["images", "table"] = "images" if X.ndim > 2 else "table"
    return Source(X, y, None, kind, f"{path.name}: {x_key} {X.shape} {X.dtype}, {y_key} {y.shape} {y.dtype}")


def _array(archive: Any, key: str, option: str, path: Path) -> NDArray[Any]:
    if key not in archive.files:
        raise InputError(
            f"{option} must name an array in {str(path)!r}, got {key!r}; it has {_listed(archive.files)}."
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
    return np.asarray(array)


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
    return Source(
        X=np.asarray(cifar.data),
        y=np.asarray(cifar.classes)[cifar.targets],
        names=None,
        kind="images",
        description=f"{name}, {len(cifar.targets):,} {'training' if train else 'test'} images of 32 x 32",
    )


def load_image_folder(
    root: str | os.PathLike[str],
    *,
    image_size: int = 32,
    skip_unreadable: bool = False,
    verbose: bool = False,
) -> Source:
    """Load a folder that has one sub-folder of images per class; the sub-folders' names are the labels.

    Images may be of any size: each is turned upright by its EXIF tag, resized so that its short side is
    ``image_size``, and cut to the central square. Transparency lies on white, 16-bit gray is scaled to
    8 bits, an animation gives its first frame. Rows come in the sorted order of their paths. Files and
    folders whose name starts with a dot are ignored; other files that are no images, and class folders
    without files, are named in ``left_out``.

    Parameters
    ----------
    root : str or path
        The folder. A class folder may have folders of its own; all images below it belong to the class.
    image_size : int, default=32
        Side of the images in pixels, at least 8. 32 suits the default network and two CPU cores; 64 shows it
        finer detail for four times the time.
    skip_unreadable : bool, default=False
        Go on without images that cannot be read, and name them in ``left_out``.
    verbose : bool, default=False
        Say how long reading takes and show a progress bar, unless it is a matter of seconds.

    Returns
    -------
    Source
        ``X`` (n, image_size, image_size, 3) uint8, ``y`` (n,) str, ``names`` paths below ``root``.

    Raises
    ------
    InputError
        If there are fewer than two class folders with images, or images that cannot be read (all are counted
        and the first five named).
    ParameterError
        If ``image_size`` is not a whole number of at least 8.
    """
    if not isinstance(image_size, int) or image_size < 8:
        raise ParameterError(f"image_size must be a whole number of at least 8 pixels, got {image_size!r}.")
    root = Path(root)
    names, left_out = _image_names(root)
    images = np.empty((len(names), image_size, image_size, 3), dtype=np.uint8)
    unreadable = _decode_all(root, names, images, verbose)
    if unreadable and not skip_unreadable:
        raise InputError(
            f"All images in {str(root)!r} must be readable, got {len(unreadable)} of {len(names)} "
            f"that are not: {_listed(unreadable)}. skip_unreadable (--skip-unreadable) goes on without them."
        )
    if unreadable:
        lost = set(unreadable)
        images = images[[name not in lost for name in names]]
        names = [name for name in names if name not in lost]
        left_out = sorted(left_out + unreadable)
    labels = _labels(root, names, left_out)
    return Source(
        X=images,
        y=labels,
        names=names,
        kind="images",
        description=f"{len(names):,} images in {root.name or root}/, as {image_size} x {image_size} pixels",
        left_out=left_out,
    )


def _image_names(root: Path) -> tuple[list[str], list[str]]:
    """Return the sorted paths of images in class folders below ``root``, and those of all other files."""
    if not root.is_dir():
        raise InputError(f"root must be a folder, got {str(root)!r}.")
    names: list[str] = []
    others: list[str] = []
    for top in _listdir(root):
        files = _files_below(root / top) if (root / top).is_dir() else []
        for file in files:
            (names if file.suffix.lower() in IMAGE_SUFFIXES else others).append(
                file.relative_to(root).as_posix()
            )
        if not files:
            others.append(top)
    names.sort()
    others.sort()
    _labels(root, names, others)
    return names, others


def _listdir(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError as error:
        _raise(error)


def _files_below(folder: Path) -> list[Path]:
    """Return all files that are not hidden; ``folder`` may be a link, links below it are not entered."""
    found: list[Path] = []
    for here, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(here, name) for name in files if not name.startswith(".")]
    return found


def _raise(error: OSError) -> NoReturn:
    raise InputError(
        f"{error.filename!r} must be a readable folder, got an error: {error.strerror}."
    ) from error


def _labels(root: Path, names: list[str], others: list[str]) -> NDArray[np.str_]:
    """Return the class of each path, after checking that there are two classes at least."""
    labels = np.array([name.partition("/")[0] for name in names], dtype=np.str_)
    classes = sorted(set(labels.tolist()))
    if len(classes) >= 2:
        return labels
    if classes:
        found = f"images of one class only, {classes[0]!r}"
    elif others:
        found = f"no image in a class folder, only {_listed(others)}"
    else:
        found = "an empty folder"
    raise InputError(
        f"{str(root)!r} must hold one sub-folder of images per class, at least two, got {found}. "
        f"Images are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}."
    )


def _decode_all(root: Path, names: list[str], images: NDArray[np.uint8], verbose: bool) -> list[str]:
    """Read every named image into its row of ``images``; return the names that could not be read."""
    from PIL import Image

    Image.init()
    formats = [name for name in IMAGE_FORMATS if name in Image.OPEN]  # AVIF is young

    def readable(row: int) -> bool:
        try:
            images[row] = _decode(root / names[row], images.shape[1], formats)
        except Exception:  # Pillow's readers raise far more than OSError on broken files
            return False
        return True

    # Threads are enough: Pillow lets go of the interpreter lock.
    with (
        ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as threads,
        Progress(f"reading {len(names):,} images", len(names), verbose) as progress,
    ):
        unreadable = []
        for name, was_read in zip(names, threads.map(readable, range(len(names))), strict=True):
            progress.step()
            if not was_read:
                unreadable.append(name)
    return unreadable


def _decode(path: Path, size: int, formats: list[str]) -> NDArray[np.uint8]:
    """Return one file as (size, size, 3) uint8."""
    from PIL import Image, ImageOps

    with Image.open(path, formats=formats) as opened:
        opened.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at the scale that is needed
        upright = _rgb(ImageOps.exif_transpose(opened))
        square = ImageOps.fit(upright, (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.uint8)


def _rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):  # convert("RGB") would clip every value above 255 to white
        gray = np.asarray(image).astype(np.int64)
        if gray.min() < 0 or gray.max() > 65535:
            raise ValueError("32-bit gray has no known range")
        return Image.fromarray((gray // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point gray has no known range")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    return image.convert("RGB")


def _listed(names: Sequence[str]) -> str:
    """Name the first few; ``repr`` keeps a line break or an odd byte in a name from breaking the sentence."""
    shown = ", ".join(map(repr, names[:_NAMES_SHOWN]))
    return (
        f"{shown} and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else shown or "nothing"
    )
