"""States of a training after its first epochs, to go back to about half of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from noisefilter.states import behind, named

__all__ = ["EarlyStates", "State"]

State = tuple[dict[str, Tensor], dict[str, Any]]  # tensors, and plain values that JSON can write


class EarlyStates:
    """What a training was after 1, 2, 3, 4, 6, 8, 12, 16, ... epochs, as far as one may have to go back.

    Planted labels of any class are the last that a network learns by heart: a wrong label of a class that
    looks like the right one is learned well before. So when the planted ones begin to be known, the network
    of about half as many epochs (a third to a half) knows less that is wrong. At most three states are kept.
    """

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def keep(self, n_epochs: int, taken: Callable[[], State]) -> None:
        """Keep the state after so many epochs, where that number is one of those above; forget older ones."""
        if _rounded_down(n_epochs) == n_epochs:
            self._states[n_epochs] = taken()
        oldest = _rounded_down((n_epochs + 1) // 2)  # half of the next number at least
        self._states = {n: state for n, state in self._states.items() if n >= oldest}

    def half_of(self, n_epochs: int) -> State | None:
        """Return the last state kept in the first half of so many epochs, ``None`` where there is none."""
        return self._states.get(_rounded_down(n_epochs // 2))

    def step(self, n_epochs: int, taken: Callable[[], State], *, by_heart: bool, over: bool) -> State | None:
        """Keep the state after an epoch of the warm-up, or return the one to go back to.

        Parameters
        ----------
        n_epochs : int
            Epochs taken.
        taken : callable
            Takes the state.
        by_heart : bool
            Whether planted labels are known, with epochs left to make good use of an earlier state.
        over : bool
            Whether the warm-up ends here: all states are let go of.
        """
        found = self.half_of(n_epochs) if by_heart else None
        if over or by_heart:
            self.forget()
        else:
            self.keep(n_epochs, taken)
        return found

    def forget(self) -> None:
        """Let go of all states."""
        self._states.clear()

    def state(self) -> State:
        """Return all states as one, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for n, (found, _) in self._states.items():
            tensors |= named(f"{n}.", found)
        return tensors, {str(n): rest for n, (_, rest) in self._states.items()}

    def load_state(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self._states = {int(n): (behind(f"{n}.", tensors), own) for n, own in rest.items()}


def _rounded_down(n: int) -> int:
    """Return the greatest of 0, 1, 2, 3, 4, 6, 8, 12, ... up to n: two binary digits, then zeros."""
    dropped = max(0, n.bit_length() - 2)
    return n >> dropped << dropped
