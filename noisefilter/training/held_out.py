"""Rows to test on: a share of the source, another split of it, or another source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisefilter import datasets
from noisefilter.audit import options as opt
from noisefilter.datasets import Source, Store
from noisefilter.datasets.source import listed
from noisefilter.errors import InputError, ParameterError

if TYPE_CHECKING:
    from noisefilter.training.page import TestRows

__all__ = ["Held", "check_held", "held_out", "read_held"]

_CIFAR = ("cifar10", "cifar100")


@dataclass(frozen=True)
class Held:
    """What was typed about the rows to test on."""

    test: str | None = None
    test_split: str | None = None
    test_share: float | None = None
    random_state: int = 0

    @property
    def is_asked_for(self) -> bool:
        """Whether there are to be any."""
        return any(value is not None for value in (self.test, self.test_split, self.test_share))

    def described(self, tested: Source) -> TestRows:
        """Return what the page says of them."""
        from noisefilter.training.page import TestRows

        came_from = tested.description
        if self.test_share is not None:
            came_from = f"{self.test_share:.0%} of each class, held out at random (seed {self.random_state})"
        # Rows of another source were chosen to test on; a share has the labels of the source.
        trusted = self.test_share is None or tested.truth is not None
        return TestRows(len(tested), came_from, trusted)


def check_held(held: Held, source: str, typed: Mapping[str, Any]) -> None:
    """Raise ParameterError for options that do not go together."""
    if held.test_share is not None:
        _check_share(held, held.test_share)
    elif held.is_asked_for:
        _check_other(held, source, typed)


def _check_share(held: Held, share: float) -> None:
    for option, value in (("test", held.test), ("test_split", held.test_split)):
        if value is not None:
            raise ParameterError(f"{option} must be left out beside --test-share, got {value!r}.")
    if not 0 < share < 1:
        raise ParameterError(f"test_share must be between 0 and 1, got {share}.")


def _check_other(held: Held, source: str, typed: Mapping[str, Any]) -> None:
    if "features" in typed:
        raise ParameterError(
            f"features must be left out beside --test and --test-split, got {str(typed['features'])!r}. "
            "--test-share holds rows of the source out instead."
        )
    same = held.test is None or Path(held.test).resolve() == Path(source).resolve()
    if same and held.test_split == typed.get("split"):
        what, value = ("test", held.test) if held.test_split is None else ("test_split", held.test_split)
        raise ParameterError(f"{what} must name other rows than those to train on, got {value!r}.")
    if (held.test or source) in _CIFAR and held.test_split not in (None, "test"):
        raise ParameterError(f"test_split must be test for CIFAR, got {held.test_split!r}.")


def held_out(labels: NDArray[Any], share: float, random_state: int) -> NDArray[np.bool_]:
    """Choose a share of the rows of each class, rounded down, so that none is without training rows.

    Parameters
    ----------
    labels : (n,) array
        Given labels; each text is a class.
    share : float
        In (0, 1).
    random_state : int
        The same seed chooses the same rows.

    Returns
    -------
    (n,) bool array
        True for rows that are held out.

    Raises
    ------
    ParameterError
        If not one row would be.

    Examples
    --------
    >>> held_out(["a", "a", "a", "a", "b"], 0.5, random_state=0).sum()
    np.int64(2)
    """
    codes = np.unique([str(label) for label in labels], return_inverse=True)[1]
    order = np.random.RandomState(random_state).permutation(len(codes))
    held = np.zeros(len(codes), dtype=bool)
    for code in range(codes.max() + 1):
        mine = order[codes[order] == code]
        held[mine[: int(share * len(mine))]] = True
    if not held.any():
        raise ParameterError(
            f"test_share must hold out a row at least, got {share} of classes of at most "
            f"{np.bincount(codes).max()} rows."
        )
    return held


def read_held(
    held: Held,
    source: str,
    store: Store,
    reading: Mapping[str, Any],
    typed: Mapping[str, Any],
    truth: NDArray[Any] | None,
    verbose: bool,
) -> tuple[Source, Source | None]:
    """Return the rows to train on and those to test on, whose labels are the right ones where known.

    Parameters
    ----------
    held : Held
        What to test on.
    source : str
        The source as it was typed.
    store, reading : Store, mapping
        The source, opened.
    typed : mapping
        The options that it was opened by, for another source like it.
    truth : (N,) array, optional
        The right labels of the store.
    verbose : bool
        Show progress.

    Raises
    ------
    InputError
        If the two cannot be read alike.
    """
    if held.test_share is not None:
        mask = held_out(store.labels, held.test_share, held.random_state)
        data = _with_truth(datasets.loaded(store, reading, verbose, mask), truth)
        out = mask[opt.rows_of(data)]
        data, tested = data.take(~out), data.take(out)
    elif held.is_asked_for:
        data, tested = _another(held, source, store, reading, typed, verbose)
        data = _with_truth(data, truth)
    else:
        return _with_truth(datasets.loaded(store, reading, verbose), truth), None
    if tested.X.shape[1:] != data.X.shape[1:]:
        raise InputError(
            f"test must have rows of the same shape as those to train on, {data.X.shape[1:]}, got "
            f"{tested.X.shape[1:]}."
        )
    if tested.truth is not None:
        tested = replace(tested, y=tested.truth)
    return data, replace(tested, y=_among(tested.y, data.y))


def _among(labels: NDArray[Any], known: NDArray[Any]) -> NDArray[Any]:
    """Return labels as they are called among those known: in a file where all are numbers, 1 is no text."""
    classes = set(known.tolist())
    texts = {str(label): label for label in classes}
    renamed = [label if label in classes else texts.get(str(label)) for label in labels.tolist()]
    unseen = {label for label, new in zip(labels.tolist(), renamed, strict=True) if new is None}
    if unseen:
        raise InputError(
            "Labels of rows to test on must be among those to train on, got "
            f"{listed(sorted(unseen, key=str))} besides."
        )
    return np.array(renamed)


def _with_truth(data: Source, truth: NDArray[Any] | None) -> Source:
    return data if truth is None else replace(data, truth=truth[opt.rows_of(data)])


def _another(
    held: Held,
    source: str,
    store: Store,
    reading: Mapping[str, Any],
    typed: Mapping[str, Any],
    verbose: bool,
) -> tuple[Source, Source]:
    """Read two sources alike."""
    name = held.test or source
    options = {option: value for option, value in typed.items() if option != "split"}
    if name in _CIFAR:
        options["train"] = False
    elif held.test_split is not None:
        options["split"] = held.test_split
    other, other_reading = datasets.opened(name, options)
    if store.kind != other.kind or type(store) is not type(other):
        raise InputError(f"test must be a source of the same kind as {source!r}, got {name!r}.")
    data = datasets.loaded(store, reading, verbose)
    return data, datasets.loaded(other, other_reading, verbose, columns=data.columns)
