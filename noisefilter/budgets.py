"""Whether the epochs that are left are enough to learn from guessed labels."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["LEAST_EPOCHS", "LEAST_STEPS", "Budget"]

LEAST_EPOCHS, LEAST_STEPS = 15, 3_000
_POOR = 0.8  # guesses of which fewer are right


class Budget(NamedTuple):
    """The least that a training must have left to learn from guesses, where these are bad.

    Bad guesses are learned like good ones, and it takes time until they are better. They are bad where fewer
    than 80 % are right (:func:`noisefilter.estimates.guessed_right`). Networks that know wrong labels by
    heart are not meant: what they would learn instead of guesses are these labels.

    Attributes
    ----------
    epochs, steps : int
        As many of either are enough. A step is a batch of the warm-up.
    """

    epochs: int = 0
    steps: int = 0

    def is_short(self, epochs: int, steps: int, by_heart: bool | None, guessed_right: float) -> bool:
        """Return whether so much is too little; never where nobody knows what was learned by heart."""
        poor = by_heart is False and guessed_right < _POOR
        return poor and 0 < epochs < self.epochs and steps < self.steps

    def warning(self, epochs: int, n_believed: int) -> str:
        """Say that it is too little, and what is done instead."""
        return (
            f"max_epochs must leave at least {self.epochs} epochs or {self.steps:,} steps to learn from "
            f"guessed labels, got {epochs}. Plain training on the {n_believed:,} labels believed takes the "
            "place of that. Allow more epochs, or take FilteredClassifier, which does the like; "
            "least_epochs=0 guesses all the same."
        )
