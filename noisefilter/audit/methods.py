"""The filters an audit can be made by, by the names they have on the command line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from noisefilter.errors import ParameterError

# Named, not imported: torch takes seconds to load, and bad input is told before.
_FILTERS = {
    "inn": ("inn", "INNScorer"),
    "small_loss": ("small_loss", "SmallLossSelector"),
    "loss_variation": ("loss_variation", "LossVariationSelector"),
    "josrc": ("josrc", "JoSRCSelector"),
    "confident_learning": ("confident_learning", "ConfidentLearningSelector"),
}
_VOTERS = ("inn", "small_loss")
METHODS = (*_FILTERS, "vote")


def check_method(method: str) -> None:
    """Raise ParameterError for a method that there is not."""
    if method not in METHODS:
        raise ParameterError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")


def made(method: str, *, random_state: int, **settings: Any) -> Any:
    """Return an unfitted filter; settings that are None are left to its defaults."""
    given = {name: value for name, value in settings.items() if value is not None}
    if method != "vote":
        return _class_of(method)(random_state=random_state, **given)
    from noisefilter.voting import VoteFilter

    return VoteFilter([(name, _class_of(name)(**given)) for name in _VOTERS], random_state=random_state)


def _class_of(method: str) -> Any:
    file, name = _FILTERS[method]
    return getattr(import_module(f"noisefilter.filters.{file}"), name)
