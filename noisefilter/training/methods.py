"""The trainers of the command line, by the names they have there."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from noisefilter.audit import methods
from noisefilter.errors import ParameterError

__all__ = ["FILTERS", "METHODS", "check_methods", "made"]

# Named, not imported: torch takes seconds to load, and bad input is told before.
_TRAINERS = {
    "dividemix": ("dividemix", "DivideMixClassifier"),
    "co_teaching": ("co_teaching", "CoTeachingClassifier"),
    "co_teaching_plus": ("co_teaching_plus", "CoTeachingPlusClassifier"),
    "decoupling": ("decoupling", "DecouplingClassifier"),
    "elr": ("elr", "ELRClassifier"),
    "gce": ("gce", "GCEClassifier"),
    "inn_dividemix": ("inn_dividemix", "INNDivideMixClassifier"),
    "jocor": ("jocor", "JoCoRClassifier"),
    "josrc": ("josrc", "JoSRCClassifier"),
    "m_correction": ("m_correction", "MCorrectionClassifier"),
    "pencil": ("pencil", "PENCILClassifier"),
    "scanmix": ("scanmix", "ScanMixClassifier"),
    "unicon": ("unicon", "UNICONClassifier"),
    "vrlvmix": ("vrlvmix", "VRLVMixClassifier"),
}
METHODS = tuple(_TRAINERS)
FILTERS = ("none", *methods.METHODS)


def check_methods(method: str, filter: str) -> None:
    """Raise ParameterError for a trainer or a filter that there is not."""
    if method not in METHODS:
        raise ParameterError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if filter not in FILTERS:
        raise ParameterError(f"filter must be one of {', '.join(FILTERS)}, got {filter!r}.")


def made(method: str, filter: str, *, random_state: int, **settings: Any) -> Any:
    """Return an unfitted trainer; settings that are None are left to its defaults.

    The filter gets those of the settings that every method has: where channels are, the device, verbosity.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    shared = {name: given[name] for name in ("channels", "device", "verbose") if name in given}
    judge = None
    if filter != "none":
        judge = methods.made(filter, random_state=random_state, **shared)
    file, name = _TRAINERS[method]
    trainer = getattr(import_module(f"noisefilter.trainers.{file}"), name)
    return trainer(filter=judge, random_state=random_state, **given)
