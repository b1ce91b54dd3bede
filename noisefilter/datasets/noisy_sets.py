"""The real label noise that papers measure on, from a local folder in the layout it was published in.

Nothing is downloaded, and nothing that a file says is run. Class names are the labels.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noisefilter.datasets.arrays import ArrayStore, load_cifar
from noisefilter.datasets.folders import FolderStore
from noisefilter.datasets.source import Source, listed
from noisefilter.errors import InputError, ParameterError

__all__ = ["ListedStore", "load_cifar_n", "load_clothing1m", "load_food101n", "load_webvision"]

_CIFAR_N = {
    "cifar10": (
        "CIFAR-10_human.pt",
        ("worse_label", "aggre_label", "random_label1", "random_label2", "random_label3"),
    ),
    "cifar100": ("CIFAR-100_human.pt", ("noisy_label",)),
}  # fmt: skip
_PARTS = ("noisy_train", "labeled_twice", "clean_train", "clean_val", "clean_test")
# All that an array of numbers pickled by numpy names.
_ARRAY_NAMES = frozenset(
    [("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")]
    + [(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")]
)


class ListedStore(FolderStore):
    """Images that a list names, with labels from elsewhere; a copy is a folder with a sub-folder per class.

    Parameters
    ----------
    root : str or path
        The folder.
    names : sequence of N str
        Paths of the images below it, with ``/``.
    labels : (N,) array
        Their labels.
    title : str
        What the data set is called.
    truth : (N,) array, optional
        The right labels, where they are known.
    verified : (N,) int8 array, optional
        1 where people found the label right, 0 where they found it wrong, -1 where nobody looked.
    left_out : sequence of str
        Entries that are no part of it, and why.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        names: Sequence[str],
        labels: NDArray[Any],
        title: str,
        *,
        truth: NDArray[Any] | None = None,
        verified: NDArray[np.int8] | None = None,
        left_out: Sequence[str] = (),
    ):
        self.root, self.names, self.labels, self.labeled = Path(root), list(names), labels, True
        self.truth, self.verified, self.left_out = truth, verified, list(left_out)
        self.description = f"{title}, {len(self.names):,} images"

    def _read_labels(self, rows: NDArray[np.intp], left_out: Sequence[str]) -> NDArray[Any]:
        return np.asarray(self.labels[rows])

    def load(self, **options: Any) -> Source:
        """Decode the images, or leave them where they are; see `load_image_folder`."""
        source = super().load(**options)
        truth = None if self.truth is None else self.truth[source.rows]
        verified = None if self.verified is None else self.verified[source.rows]
        return replace(source, truth=truth, verified=verified)


def load_cifar_n(
    root: str | os.PathLike[str],
    name: Literal["cifar10", "cifar100"] = "cifar10",
    *,
    labels: str | None = None,
    label_file: str | os.PathLike[str] | None = None,
) -> Source:
    """Load CIFAR-10N or CIFAR-100N: CIFAR's training images under labels that people on the internet gave.

    Where from: ``CIFAR-10_human.pt`` and ``CIFAR-100_human.pt`` in the folder ``data`` of
    https://github.com/UCSC-REAL/cifar-10-100n, under CC BY-NC 4.0; the images from torchvision. The files are
    pickles: they are read by a reader that knows arrays of numbers and refuses anything else. The ``.npy``
    files beside them are for another order of the images and are not read.

    Parameters
    ----------
    root : str or path
        The folder that has ``cifar-10-batches-py`` or ``cifar-100-python`` in it, and the label file.
    name : "cifar10" or "cifar100"
        Which of the two.
    labels : str, optional
        Which labels, by their name in the file. Of CIFAR-10 ``"worse_label"`` (the default; 40 % wrong),
        ``"aggre_label"`` (majority of three, 9 %), ``"random_label1"``, ``"random_label2"`` or
        ``"random_label3"`` (17 to 18 %); of CIFAR-100 ``"noisy_label"`` (40 %).
    label_file : str or path, optional
        The label file, if it lies elsewhere.

    Returns
    -------
    Source
        ``X`` (50000, 32, 32, 3) uint8, ``y`` the labels people gave, ``truth`` CIFAR's own.

    Raises
    ------
    ParameterError
        If there is no such data set, or no such labels.
    InputError
        If a file is missing or not the published one, or labels are not in the order of the images.

    References
    ----------
    J. Wei, Z. Zhu, H. Cheng, T. Liu, G. Niu and Y. Liu, "Learning with noisy labels revisited: a study using
    real-world human annotations", ICLR 2022, arXiv:2110.12088.
    """
    if name not in _CIFAR_N:
        raise ParameterError(f"name must be 'cifar10' or 'cifar100', got {name!r}.")
    file, kinds = _CIFAR_N[name]
    kind = kinds[0] if labels is None else labels
    if kind not in kinds:
        raise ParameterError(f"labels must be one of {kinds} for {name}, got {labels!r}.")
    path = _file(root, file, f"{name.upper()}N") if label_file is None else Path(label_file)
    cifar = load_cifar(root, name)
    classes = np.unique(cifar.y)
    codes = _arrays(path, ("clean_label", kind), len(cifar), len(classes))
    numbered = {int(code): label for code, label in zip(codes["clean_label"], cifar.y, strict=True)}
    own = np.array([numbered.get(code, "") for code in range(len(classes))])
    if not np.array_equal(own[codes["clean_label"]], cifar.y):
        raise InputError(
            f"clean_label in {str(path)!r} must be the labels of torchvision's {name}, image by image, got "
            "others."
        )
    description = f"{cifar.description}, under {kind} of {path.name}"
    return ArrayStore(cifar.X, own[codes[kind]], description, truth=cifar.y).load()


def _arrays(path: Path, keys: Iterable[str], n: int, n_classes: int) -> dict[str, NDArray[np.int64]]:
    """Read class numbers (n,) from a file that torch wrote, and run nothing that it says."""
    try:
        with zipfile.ZipFile(path) as archive:
            inner = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            found = _ArrayUnpickler(io.BytesIO(archive.read(inner))).load()
        codes = {key: np.asarray(found[key]) for key in keys}
    except FileNotFoundError as error:
        raise InputError(f"label_file must be a file, got {str(path)!r}, which does not exist.") from error
    except Exception as error:  # bytes in disorder can raise anything
        raise InputError(
            f"{str(path)!r} must be the label file as published, got an error: "
            f"{type(error).__name__}: {str(error).rstrip('.')}."
        ) from error
    for key, value in codes.items():
        if (
            value.shape != (n,)
            or value.dtype.kind not in "iu"
            or not 0 <= value.min() <= value.max() < n_classes
        ):
            raise InputError(
                f"{key} in {str(path)!r} must be {n:,} numbers from 0 to {n_classes - 1}, got {value.dtype} "
                f"of shape {value.shape}."
            )
    return {key: value.astype(np.int64) for key, value in codes.items()}


class _ArrayUnpickler(pickle.Unpickler):
    """Knows what arrays of numbers are made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, or refuse."""
        if (module, name) not in _ARRAY_NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_clothing1m(root: str | os.PathLike[str], part: str = "noisy_train", **options: Any) -> Source:
    """Load Clothing1M: a million photos of 14 kinds of clothes, labeled by words in their surroundings.

    Where from: on request from its authors, for research, see https://github.com/Cysu/noisy_label. About
    38 % of the labels are wrong. A part of the photos was labeled by hand as well.

    Expected in the folder: ``category_names_eng.txt``; ``noisy_label_kv.txt`` and ``clean_label_kv.txt``,
    lines of a key and a class number; ``noisy_train_key_list.txt``, ``clean_train_key_list.txt``,
    ``clean_val_key_list.txt`` and ``clean_test_key_list.txt``, keys such as ``images/0/00/123.jpg``, which
    are the paths of the photos below the folder.

    Parameters
    ----------
    root : str or path
        The folder.
    part : str, default="noisy_train"
        ``"noisy_train"``, the million; ``"clean_train"``, ``"clean_val"`` or ``"clean_test"``, under the
        labels given by hand; ``"labeled_twice"``, all photos that have both labels: ``y`` is the noisy one,
        ``truth`` that given by hand.
    **options
        Keyword-only arguments of `load_image_folder`: ``stream=True`` leaves the photos on disk until a batch
        asks for them.

    Returns
    -------
    Source
        ``names`` are the keys.

    Raises
    ------
    ParameterError
        If there is no such part.
    InputError
        If a file is missing, or says something else than was published.

    References
    ----------
    T. Xiao, T. Xia, Y. Yang, C. Huang and X. Wang, "Learning from massive noisy labeled data for image
    classification", CVPR 2015, doi:10.1109/CVPR.2015.7298885.
    """
    if part not in _PARTS:
        raise ParameterError(f"part must be one of {_PARTS}, got {part!r}.")
    title = "Clothing1M"
    classes = np.array(_lines(root, "category_names_eng.txt", title))
    kinds = {"noisy_train": ("noisy",), "labeled_twice": ("noisy", "clean")}.get(part, ("clean",))
    tables = [_numbered(root, f"{kind}_label_kv.txt", title, len(classes)) for kind in kinds]
    if part == "labeled_twice":
        names = [key for key in tables[1] if key in tables[0]]
    else:
        names = _lines(root, f"{part}_key_list.txt", title)
        missing = [key for key in names if key not in tables[0]]
        if missing:
            raise InputError(
                f"{kinds[0]}_label_kv.txt in {str(root)!r} must have a label for every key in "
                f"{part}_key_list.txt, got none for {listed(missing)}."
            )
    given, *hand = (classes[[table[key] for key in names]] for table in tables)
    store = ListedStore(root, names, given, f"{title}, {part}", truth=hand[0] if hand else None)
    return store.load(**options)


def load_food101n(root: str | os.PathLike[str], **options: Any) -> Source:
    """Load Food-101N: 310,000 photos of 101 dishes, labeled by the words they were searched for.

    Where from: https://kuanghuei.github.io/Food-101N/, which has the terms; the photos belong to those who
    took them. About 20 % of the labels are wrong. Of 57,000 photos people said whether the label is right;
    what the photo shows otherwise they did not say. Papers test on the test photos of Food-101.

    Expected in the folder: ``meta/imagelist.tsv``, under a heading one ``class/file.jpg`` a line, the photos
    in ``images/``; and ``meta/verified_train.tsv`` and ``meta/verified_val.tsv``, with 1 (right) or 0 behind
    a tab.

    Parameters
    ----------
    root : str or path
        The folder, ``Food-101N_release``.
    **options
        Keyword-only arguments of `load_image_folder`: ``stream=True`` leaves the photos on disk until a batch
        asks for them.

    Returns
    -------
    Source
        ``verified`` is 1 where the label was found right, 0 where it was found wrong, -1 where nobody looked.
        Verified entries that the list of images has not under this class are named in ``left_out``.

    Raises
    ------
    InputError
        If a file is missing, or says something else than was published.

    References
    ----------
    K.-H. Lee, X. He, L. Zhang and L. Yang, "CleanNet: transfer learning for scalable image classifier
    training with label noise", CVPR 2018, arXiv:1711.07131.
    """
    title = "Food-101N"
    keys = _lines(root, "meta/imagelist.tsv", title)[1:]
    place = {key: row for row, key in enumerate(keys)}
    verified, others = np.full(len(keys), -1, dtype=np.int8), []
    for file in ("meta/verified_train.tsv", "meta/verified_val.tsv"):
        for key, value in _pairs(root, file, title, first=1):
            if value not in ("0", "1"):
                raise InputError(f"{file} in {str(root)!r} must say 0 or 1 of every image, got {value!r}.")
            if key in place:
                verified[place[key]] = int(value)
            else:
                others.append(f"{file}: {key} is not in imagelist.tsv")
    labels = np.array([key.partition("/")[0] for key in keys])
    names = [f"images/{key}" for key in keys]
    return ListedStore(root, names, labels, title, verified=verified, left_out=others).load(**options)


def load_webvision(
    root: str | os.PathLike[str],
    part: str = "train_google",
    *,
    n_classes: int | None = 50,
    **options: Any,
) -> Source:
    """Load WebVision 1.0, by default its first 50 classes as Google found them: mini WebVision.

    Where from: https://data.vision.ee.ethz.ch/cvl/webvision/dataset2017.html, for research that is not
    commercial, see there; the photos belong to those who took them. 2.4 million photos of the 1,000 classes
    of ImageNet's challenge, labeled by the words they were searched for, about 20 % of them wrongly. The
    validation photos were labeled by hand.

    Expected in the folder: ``info/train_filelist_google.txt``, ``info/train_filelist_flickr.txt`` and
    ``info/val_filelist.txt``, lines of a path and a class number; ``info/synsets.txt``, in line k the name of
    class k, such as ``n01440764 tench, Tinca tinca``; the photos of the training lists at their paths below
    the folder, those of validation in ``val_images_256/``.

    Parameters
    ----------
    root : str or path
        The folder.
    part : {"train_google", "train_flickr", "train", "val"}, default="train_google"
        ``"train"`` is Google's and Flickr's.
    n_classes : int or None, default=50
        Only the first ones; None for all.
    **options
        Keyword-only arguments of `load_image_folder`: ``stream=True`` leaves the photos on disk until a batch
        asks for them.

    Returns
    -------
    Source
        Labels are the name of the synset and its first word, as ``"n01440764 tench"``: words alone occur
        twice.

    Raises
    ------
    ParameterError
        If there is no such part, or ``n_classes`` is not a number of classes.
    InputError
        If a file is missing, or says something else than was published.

    References
    ----------
    W. Li, L. Wang, W. Li, E. Agustsson and L. Van Gool, "WebVision database: visual learning and
    understanding from web data", arXiv:1708.02862, 2017. The first 50 classes: L. Jiang et al., "MentorNet",
    ICML 2018, arXiv:1712.05055.
    """
    lists = {part: [part] for part in ("train_google", "train_flickr", "val")}
    lists["train"] = ["train_google", "train_flickr"]
    if part not in lists:
        raise ParameterError(f"part must be one of {tuple(lists)}, got {part!r}.")
    title = "WebVision"
    classes = [line.split(",")[0] for line in _lines(root, "info/synsets.txt", title)]
    wanted = len(classes) if n_classes is None else n_classes
    if not isinstance(wanted, int) or not 2 <= wanted <= len(classes):
        raise ParameterError(f"n_classes must be None or from 2 to {len(classes)}, got {n_classes!r}.")
    tables: dict[str, int] = {}
    for one in lists[part]:
        name = "val_filelist.txt" if one == "val" else f"{one.replace('_', '_filelist_')}.txt"
        tables |= _numbered(root, f"info/{name}", title, len(classes))
    rows = {key: code for key, code in tables.items() if code < wanted}
    below = "val_images_256/" if part == "val" else ""
    labels = np.array(classes)[list(rows.values())]
    store = ListedStore(root, [f"{below}{key}" for key in rows], labels, f"{title}, {part}")
    return store.load(**options)


# --- files of lines -------------------------------------------------------------------------------


def _file(root: str | os.PathLike[str], name: str, title: str) -> Path:
    path = Path(root) / name
    if not path.is_file():
        raise InputError(
            f"root must be a folder with {title} as it was published, got {str(root)!r}, which has no "
            f"{name!r}."
        )
    return path


def _lines(root: str | os.PathLike[str], name: str, title: str) -> list[str]:
    """Return the lines of a text file that are not blank."""
    try:
        text = _file(root, name, title).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} in {str(root)!r} must be text in UTF-8, got other bytes.") from error
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{name} in {str(root)!r} must have lines, got an empty file.")
    return found


def _pairs(root: str | os.PathLike[str], name: str, title: str, first: int = 0) -> Iterable[tuple[str, str]]:
    """Yield the two columns of a text file, from line ``first`` on; a name may have blanks."""
    for line in _lines(root, name, title)[first:]:
        parts = line.rsplit(maxsplit=1)
        if len(parts) != 2:
            raise InputError(f"{name} in {str(root)!r} must have two columns, got the line {line!r}.")
        yield parts[0], parts[1]


def _numbered(root: str | os.PathLike[str], name: str, title: str, n_classes: int) -> dict[str, int]:
    """Return the class number of each path in a file."""
    found: dict[str, int] = {}
    for key, value in _pairs(root, name, title):
        if not value.isascii() or not value.isdigit() or int(value) >= n_classes:
            raise InputError(
                f"{name} in {str(root)!r} must number classes from 0 to {n_classes - 1}, got {value!r} for "
                f"{key!r}."
            )
        found[key] = int(value)
    return found
