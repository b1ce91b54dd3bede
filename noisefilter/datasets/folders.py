"""Folders of photos, one sub-folder per class."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from noisefilter.datasets.pictures import DEFAULT_SIZE, check_size, formats, read_all, square, thumbnail
from noisefilter.datasets.source import Source, Store, listed
from noisefilter.errors import InputError, ParameterError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["FolderStore", "StreamedImages", "load_image_folder"]

_SPLITS = frozenset({"dev", "test", "train", "training", "val", "valid", "validation"})

IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)


def load_image_folder(
    root: str | os.PathLike[str],
    *,
    backbone: str | None = None,
    image_size: int | None = None,
    skip_unreadable: bool = False,
    stream: bool = False,
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
    backbone : str, optional
        A classifier of torchvision, such as ``"resnet18"``, whose trained weights are on this machine: its
        features take the place of the pixels. See :func:`noisefilter.backbones.embed`.
    image_size : int, optional
        Side of the images in pixels, at least 8. By default 32, which suits the default network and two CPU
        cores; 64 shows it finer detail for four times the time. With a backbone, what its weights ask for.
    skip_unreadable : bool, default=False
        Go on without images that cannot be read, and name them in ``left_out``.
    stream : bool, default=False
        Leave the images on disk and decode each whenever it is asked for, batch by batch, for folders larger
        than memory. Every epoch decodes them again. One that cannot be read is an error when it is met.
    verbose : bool, default=False
        Say how long reading takes and show a progress bar, unless it is a matter of seconds.

    Returns
    -------
    Source
        ``X`` (n, image_size, image_size, 3) uint8, or (n, d) float32 features of the backbone, ``y`` (n,)
        str, ``names`` paths below ``root``. With ``stream=True`` ``X`` is a `StreamedImages`.

    Raises
    ------
    InputError
        If there are fewer than two class folders with images, images that cannot be read (all are counted
        and the first five named), or no weights for the backbone.
    ParameterError
        If ``image_size`` is not a whole number of at least 8, there is no backbone of that name, or images
        are to be streamed to a backbone or without those that cannot be read.
    """
    return FolderStore(root).load(
        backbone=backbone, image_size=image_size, skip_unreadable=skip_unreadable, stream=stream,
        verbose=verbose,
    )  # fmt: skip


class FolderStore(Store):
    """A folder with one sub-folder of images per class; a copy is a folder again.

    Parameters
    ----------
    root : str or path
        The folder.
    labeled : bool, default=True
        If False sub-folders are no classes: all images below the folder are rows, and every row has an empty
        text for a label.

    Raises
    ------
    InputError
        If there are fewer than two class folders with images, or without labels no image.
    """

    kind = "images"

    def __init__(self, root: str | os.PathLike[str], *, labeled: bool = True):
        self.root, self.labeled = Path(root), labeled
        self.names: list[str]
        self.names, self.left_out = _image_names(self.root) if labeled else _all_images(self.root)
        self.labels = self._labels_of(self.names, self.left_out)
        self.description = f"{len(self.names):,} images in {self.root.name or self.root}/"

    def _labels_of(self, names: list[str], others: Sequence[str]) -> NDArray[np.str_]:
        return _labels(self.root, names, others) if self.labeled else np.full(len(names), "")

    def load(  # type: ignore[override]
        self,
        *,
        backbone: str | None = None,
        image_size: int | None = None,
        skip_unreadable: bool = False,
        stream: bool = False,
        verbose: bool = False,
    ) -> Source:
        """Decode all images, or leave them where they are; see `load_image_folder`."""
        if stream:
            return self._streamed(backbone, image_size, skip_unreadable)
        X, read = read_all(
            self._open, len(self.names), backbone=backbone, image_size=image_size, verbose=verbose
        )
        names = [self.names[row] for row in np.flatnonzero(read)]
        unreadable = [self.names[row] for row in np.flatnonzero(~read)]
        if unreadable and not skip_unreadable:
            raise InputError(
                f"All images in {str(self.root)!r} must be readable, got {len(unreadable)} of "
                f"{len(self.names)} that are not: {listed(unreadable)}. skip_unreadable "
                "(--skip-unreadable) goes on without them."
            )
        left_out = sorted([*self.left_out, *unreadable])
        seen = f"as {X.shape[1]} x {X.shape[1]} pixels" if backbone is None else f"as {backbone} sees them"
        return Source(
            X=X,
            y=self._read_labels(np.flatnonzero(read), left_out),
            names=names,
            kind="images",
            description=f"{len(names):,} images in {self.root.name or self.root}/, {seen}",
            left_out=left_out,
            rows=np.flatnonzero(read),
            store=self,
        )

    def _read_labels(self, rows: NDArray[np.intp], left_out: Sequence[str]) -> NDArray[Any]:
        """Return the labels of the rows that could be read."""
        return self._labels_of([self.names[row] for row in rows], left_out)

    def _streamed(self, backbone: str | None, image_size: int | None, skip_unreadable: bool) -> Source:
        for name, value in (("backbone", backbone), ("skip_unreadable", skip_unreadable or None)):
            if value is not None:
                raise ParameterError(f"{name} must be left out where images are streamed, got {value!r}.")
        check_size(image_size)
        X = StreamedImages(self, np.arange(len(self)), image_size or DEFAULT_SIZE)
        return Source(
            X=X,  # type: ignore[arg-type]
            y=np.asarray(self.labels),
            names=list(self.names),
            kind="images",
            description=f"{self.description}, read as {X.size} x {X.size} pixels when asked for",
            left_out=list(self.left_out),
            store=self,
        )

    def _open(self, row: int) -> Image:
        from PIL import Image

        path = self.root / self.names[row]
        if path.is_fifo():
            raise OSError("opening a pipe that nobody writes into would never end")
        return Image.open(path, formats=formats())

    def picture(self, row: int, side: int = 128) -> Image | None:
        """Return one image, whole, its longer side at most ``side`` pixels; None if it cannot be read."""
        try:
            with self._open(row) as opened:
                return thumbnail(opened, side)
        except Exception:  # whatever Pillow raises on a broken file
            return None

    def write(self, out: Path, rows: NDArray[np.intp], labels: NDArray[Any]) -> list[str]:
        """Copy the files into class folders of their new labels; a name that is taken gets a number."""
        names = _renamed([self.names[row] for row in rows], [str(label) for label in labels])
        out.mkdir(exist_ok=True)
        for row, name in zip(rows, names, strict=True):
            target = out / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copy2(self.root / self.names[row], target)
            except OSError as error:
                raise InputError(
                    f"{self.names[row]!r} must be a file that can be copied, got an error: "
                    f"{error.strerror or error}."
                ) from error
        return names


class StreamedImages:
    """A map-style Dataset of the images of a store, each decoded when it is asked for.

    Parameters
    ----------
    store : FolderStore
        Where they lie.
    rows : (n,) int array
        Which of them.
    size : int
        Side of the squares in pixels.
    """

    def __init__(self, store: FolderStore, rows: NDArray[np.intp], size: int):
        self.store, self.rows, self.size = store, rows, size

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """What the shape of all would be."""
        return len(self), self.size, self.size, 3

    def __getitem__(self, index: Any) -> Any:
        """Return image ``index`` as (size, size, 3) uint8; of an array or slice, a Dataset of these."""
        if not isinstance(index, int | np.integer):
            return StreamedImages(self.store, self.rows[index], self.size)
        row = int(self.rows[index])
        try:
            with self.store._open(row) as image:
                return square(image, self.size)
        except Exception as error:  # whatever Pillow raises on a broken file
            raise InputError(
                f"Every image in {str(self.store.root)!r} must be readable, got {self.store.names[row]!r}, "
                "which is not."
            ) from error


def _renamed(names: list[str], labels: list[str]) -> list[str]:
    """Return where files go under new labels: files that stay where they are keep their names."""
    stays = [name.partition("/")[0] == label for name, label in zip(names, labels, strict=True)]
    taken = _Taken()
    for name, stay in zip(names, stays, strict=True):
        if stay:
            taken.add(name)
    renamed = []
    for name, label, stay in zip(names, labels, stays, strict=True):
        target = name if stay else taken.free(label, PurePosixPath(name.partition("/")[2]))
        taken.add(target)
        renamed.append(target)
    return renamed


class _Taken:
    """Names that are in use, in any case: some file systems take ``A.png`` and ``a.png`` for one file."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def add(self, name: str) -> None:
        self.files.add(name.casefold())
        self.folders.update(_above(name))

    def free(self, label: str, below: PurePosixPath) -> str:
        """Return a free path below the folder ``label``, with a number where the plain one is taken."""
        if _above(f"{label}/{below}") & self.files:  # where a folder is needed there is a file
            below = PurePosixPath("-".join(below.parts))
        target, number = f"{label}/{below}", 1
        while target.casefold() in self.files or target.casefold() in self.folders:
            number += 1
            target = f"{label}/{below.with_name(f'{below.stem}-{number}{below.suffix}')}"
        return target


def _above(name: str) -> set[str]:
    """Return the folders above a path, except the root."""
    parts = name.casefold().split("/")
    return {"/".join(parts[:depth]) for depth in range(1, len(parts))}


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


def _all_images(root: Path) -> tuple[list[str], list[str]]:
    """Return the sorted paths of all images below ``root``, and those of all other files."""
    files = sorted(file.relative_to(root).as_posix() for file in _files_below(root))
    is_image = [PurePosixPath(file).suffix.lower() in IMAGE_SUFFIXES for file in files]
    names = [file for file, is_one in zip(files, is_image, strict=True) if is_one]
    others = [file for file, is_one in zip(files, is_image, strict=True) if not is_one]
    if not names:
        found = f"only {listed(others)}" if others else "an empty folder"
        raise InputError(f"{str(root)!r} must hold images, got {found}.")
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


def _check_no_splits(root: Path, names: list[str], classes: list[str]) -> None:
    """Refuse a folder of splits, each with the same class folders: train and test are no classes."""
    if not set(classes) <= _SPLITS:
        return
    below = [{name.split("/")[1] for name in names if name.startswith(f"{one}/")} for one in classes]
    folders = sorted(name for name in set.intersection(*below) if (root / classes[0] / name).is_dir())
    if len(folders) >= 2:
        raise InputError(
            f"{str(root)!r} must hold one sub-folder of images per class, got {listed(classes)}, which each "
            f"hold {listed(folders)}. To audit one of them, name it: {str(root / classes[0])!r}."
        )


def _labels(root: Path, names: list[str], others: Sequence[str]) -> NDArray[np.str_]:
    """Return the class of each path, after checking that there are two classes at least."""
    labels = np.array([name.partition("/")[0] for name in names], dtype=np.str_)
    classes = sorted(set(labels.tolist()))
    if len(classes) >= 2:
        _check_no_splits(root, names, classes)
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
