"""Folders of photos, one sub-folder per class."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from noisefilter.datasets.source import Source, Store, listed
from noisefilter.errors import InputError, ParameterError
from noisefilter.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FolderStore", "load_image_folder"]

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
# What a file may really be, whatever its name says. Not EPS: Pillow would run Ghostscript on it.
IMAGE_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")


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
    return FolderStore(root).load(image_size=image_size, skip_unreadable=skip_unreadable, verbose=verbose)


class FolderStore(Store):
    """A folder with one sub-folder of images per class; a copy is a folder again.

    Parameters
    ----------
    root : str or path
        The folder.

    Raises
    ------
    InputError
        If there are fewer than two class folders with images.
    """

    kind = "images"

    def __init__(self, root: str | os.PathLike[str]):
        self.root = Path(root)
        self.names: list[str]
        self.names, self.left_out = _image_names(self.root)
        self.labels = _labels(self.root, self.names, self.left_out)
        self.description = f"{len(self.names):,} images in {self.root.name or self.root}/"

    def load(  # type: ignore[override]
        self, *, image_size: int = 32, skip_unreadable: bool = False, verbose: bool = False
    ) -> Source:
        """Decode all images; see `load_image_folder`."""
        if not isinstance(image_size, int) or image_size < 8:
            raise ParameterError(
                f"image_size must be a whole number of at least 8 pixels, got {image_size!r}."
            )
        images = np.empty((len(self.names), image_size, image_size, 3), dtype=np.uint8)
        unreadable = _decode_all(self.root, self.names, images, verbose)
        if unreadable and not skip_unreadable:
            raise InputError(
                f"All images in {str(self.root)!r} must be readable, got {len(unreadable)} of "
                f"{len(self.names)} that are not: {listed(unreadable)}. skip_unreadable "
                "(--skip-unreadable) goes on without them."
            )
        lost = set(unreadable)
        read = np.array([name not in lost for name in self.names], dtype=bool)
        names = [name for name in self.names if name not in lost]
        left_out = sorted(self.left_out + unreadable)
        return Source(
            X=images[read] if lost else images,
            y=_labels(self.root, names, left_out),
            names=names,
            kind="images",
            description=f"{len(names):,} images in {self.root.name or self.root}/, as {image_size} x "
            f"{image_size} pixels",
            left_out=left_out,
            rows=np.flatnonzero(read),
            store=self,
        )

    def picture(self, row: int, side: int = 128) -> Image:
        """Return one image, whole, its longer side at most ``side`` pixels."""
        from PIL import Image, ImageOps

        with Image.open(self.root / self.names[row], formats=_formats()) as opened:
            opened.draft(None, (side, side))
            picture = _rgb(ImageOps.exif_transpose(opened))
            picture.thumbnail((side, side))
        return picture

    def write(self, out: Path, rows: NDArray[np.intp], labels: NDArray[Any]) -> list[str]:
        """Copy the files into class folders of their new labels; a name that is taken gets a number."""
        names = _renamed([self.names[row] for row in rows], [str(label) for label in labels])
        for row, name in zip(rows, names, strict=True):
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.root / self.names[row], target)
        return names


def _renamed(names: list[str], labels: list[str]) -> list[str]:
    """Return where files go under new labels: files that stay where they are keep their names."""
    stays = [name.partition("/")[0] == label for name, label in zip(names, labels, strict=True)]
    taken = {name.casefold() for name, stay in zip(names, stays, strict=True) if stay}
    renamed = []
    for name, label, stay in zip(names, labels, stays, strict=True):
        below = PurePosixPath(name.partition("/")[2])
        target, number = f"{label}/{below}", 1
        while not stay and target.casefold() in taken:
            number += 1
            target = f"{label}/{below.with_name(f'{below.stem}-{number}{below.suffix}')}"
        taken.add(target.casefold())
        renamed.append(target)
    return renamed


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
        found = f"no image in a class folder, only {listed(others)}"
    else:
        found = "an empty folder"
    raise InputError(
        f"{str(root)!r} must hold one sub-folder of images per class, at least two, got {found}. "
        f"Images are files that end in {', '.join(sorted(IMAGE_SUFFIXES))}."
    )


def _decode_all(root: Path, names: list[str], images: NDArray[np.uint8], verbose: bool) -> list[str]:
    """Read every named image into its row of ``images``; return the names that could not be read."""
    formats = _formats()

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


def _formats() -> list[str]:
    from PIL import Image

    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]  # AVIF is young


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
