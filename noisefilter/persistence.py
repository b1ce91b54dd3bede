"""Verdicts, fitted filters and fitted trainers as files, without code in them.

One safetensors file (:mod:`noisefilter.tensorfile`): arrays and weights are its tensors, and a description in
JSON says what they are. Classes are names out of two lists: the public ones of this library, and
those of :mod:`noisefilter.weights`. No name in a file is ever imported.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.utils import Bunch

import noisefilter
from noisefilter.base import BaseFilter
from noisefilter.compose import FilteredClassifier, FilterSampler
from noisefilter.errors import FileError, InputError, InputTypeError, ParameterError
from noisefilter.inputs import check_labels
from noisefilter.states import (
    VERDICT_ARRAYS,
    VERDICT_VALUES,
    array_state,
    behind,
    load_array,
    named,
    verdict_parts,
    with_parts,
)
from noisefilter.tensorfile import read_file, write_file
from noisefilter.trainer import BaseTrainer
from noisefilter.verdict import Signals, Verdict
from noisefilter.voting import VoteFilter
from noisefilter.weights import CLASSES, OBJECTS, is_network, parameters_of

__all__ = ["load", "save"]

_SCHEMA = 1
# Of a folder on one machine: it is no part of what was learned, and a file from elsewhere must not name one.
_LEFT_OUT = "checkpoint_dir"
_MOST_ENTRIES = 1000  # of a list among the parameters
_REQUESTS = ("fit", "predict", "score", "transform")  # methods that may ask for metadata
_SIGNALS = [field.name for field in fields(Signals) if field.name != "peer"]
_RECORD = (bool, int, float, str, type(None))  # what an epoch's record is made of
_COLUMNS, _HISTORY, _REPORT = "feature_names_in_", "history_", "eval_report_"


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write a verdict, a fitted filter or a fitted trainer to a file that :func:`noisefilter.load` reads.

    The file is whole or not there, whatever happens meanwhile; one of that name is replaced. What a process
    left beside it that was killed while it wrote it goes with the next :func:`save`. The file holds
    parameters, networks, verdict, signals and record, but not the rows of ``fit``: of a filter the first one,
    which tells their shape, of :class:`noisefilter.INNScorer` all, for later rows are judged by neighbors.
    ``checkpoint_dir`` is left out, and so is the memory of ``random_state``.

    Parameters
    ----------
    obj : Verdict, filter, VoteFilter or trainer
        Fitted.
    path : path
        Of any ending; ``.safetensors`` says what it is.

    Raises
    ------
    InputTypeError
        If `obj` is something else, or labels are objects other than texts, numbers and truths.
    ParameterError
        If it is not fitted, or a parameter cannot be kept without code; the message names it. Networks and
        their training may be those of this library, of torch and your own class in ``network`` or in
        ``estimator=Net(YourNetwork)``; see :func:`noisefilter.load`.
    OSError
        If there can be no such file: no such folder, a full disk.

    Examples
    --------
    >>> import noisefilter, tempfile, os
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> fitted = noisefilter.SmallLossSelector(max_epochs=2, random_state=0).fit(X, y)
    >>> path = os.path.join(tempfile.mkdtemp(), "filter.safetensors")
    >>> noisefilter.save(fitted, path)
    >>> bool((noisefilter.load(path).score_new(X, y) == fitted.score_new(X, y)).all())
    True
    """
    tensors, description = _verdict_saved(obj) if type(obj) is Verdict else _estimator_saved(obj)
    head = {"schema": _SCHEMA, "noisefilter": noisefilter.__version__}
    write_file(Path(path), tensors, head | description)


def load(path: str | os.PathLike[str], *, networks: Iterable[type[Any]] = ()) -> Any:
    """Read what :func:`noisefilter.save` wrote.

    On a CPU the result answers to the same bits as what was saved. Its networks go where its ``device`` says,
    as far as this machine has that.

    Nothing in the file is run, nothing outside it is read, and no more memory is used than a few times its
    size. So a file from a stranger does no harm by being loaded; whether to believe what it says is another
    question.

    Parameters
    ----------
    path : path
    networks : iterable of type, default=()
        Your own network classes, where the file was trained with such. They are found by their names, and
        made with the arguments in the file.

    Returns
    -------
    Verdict, filter, VoteFilter or trainer

    Raises
    ------
    FileError
        If it is another file, not whole, changed since, or of a newer version of this library; or
        if its parts do not fit each other.
    OSError
        If there is no such file.
    """
    path = Path(path)
    description, tensors = read_file(path)
    schema, version = description.get("schema"), description.get("noisefilter")
    if type(schema) is not int or schema != _SCHEMA:
        raise FileError(
            f"{path} must be of schema {_SCHEMA}, which noisefilter {noisefilter.__version__} reads, got "
            f"schema {schema!r:.20}, written by noisefilter {version!s:.20}. Load it with that version, or a "
            "newer one."
        )
    try:
        return _Reader({kind.__qualname__: kind for kind in networks}).thing(description, tensors)
    except Exception as error:  # contents that do not fit can fail in any way; none of them has been run
        said = f"nothing named {error}" if isinstance(error, KeyError) else f"{error!s:.300}"
        raise FileError(
            f"{path} must hold what noisefilter.save wrote, got parts that do not fit: {said}"
        ) from error


# --- what is written ------------------------------------------------------------------------------

Parts = tuple[dict[str, Any], dict[str, Any]]  # tensors by name, and a description for JSON


def _verdict_saved(verdict: Verdict) -> Parts:
    _check_verdict(verdict)
    arrays, values = verdict_parts(verdict)
    tensors, kinds = _arrays_saved(arrays)
    encoded = {name: _encoded(value, name) for name, value in values.items()}
    return tensors, {"class": "Verdict", "values": encoded, "arrays": kinds}


def _arrays_saved(arrays: Mapping[str, NDArray[Any]]) -> Parts:
    """Return tensors, and what else it takes to get those arrays back that torch has no dtype for."""
    states = {name: array_state(array, name) for name, array in arrays.items()}
    kinds = {name: kind for name, (_, kind) in states.items() if kind is not None}
    return {name: tensor for name, (tensor, _) in states.items()}, kinds


def _signals_saved(signals: Signals) -> Parts:
    tensors, kinds = _arrays_saved({name: getattr(signals, name) for name in _SIGNALS if signals.has(name)})
    peer = None
    if signals.peer is not None:
        own, peer = _signals_saved(signals.peer)
        tensors |= named("peer.", own)
    return tensors, {"arrays": kinds, "peer": peer}


def _estimator_saved(estimator: Any) -> Parts:
    _check_savable(estimator)
    estimator._check_parameters()  # what cannot be read again is not written
    tensors: dict[str, Any] = {}
    description = _object_encoded(estimator, "")
    verdicts = {name: getattr(estimator, name, None) for name in ("verdict_", "given_verdict_")}
    for name, verdict in verdicts.items():
        if verdict is not None:
            own, description[name] = _verdict_saved(verdict)
            tensors |= named(name + ".", own)
    if hasattr(estimator, "signals_"):
        own, description["signals_"] = _signals_saved(estimator.signals_)
        tensors |= named("signals_.", own)
    description["attributes"] = _attributes_saved(estimator)
    if isinstance(estimator, VoteFilter):
        parts = [_estimator_saved(member) for member in estimator.filters_]
        description["members"] = [member for _, member in parts]
        for i, (own, _) in enumerate(parts):
            tensors |= named(f"member_{i}.", own)
    elif estimator._fitted is not None:
        own, rest = estimator._fitted_state()
        description["fitted"] = _encoded(rest, "what is fitted")
        tensors |= named("fitted.", own)
    return tensors, description


def _check_savable(estimator: Any) -> None:
    name = type(estimator).__name__
    if isinstance(estimator, FilteredClassifier | FilterSampler):
        raise InputTypeError(
            f"obj must be a verdict, a filter or a trainer, got {name}, whose parts may be of any kind. Save "
            "its filter_ or verdict_ here, and a classifier by its own library."
        )
    if _public(name) is not type(estimator):
        raise InputTypeError(
            f"obj must be a verdict, a filter or a trainer of this library and no subclass, got {name}. What "
            "has a verdict_ has that to be saved."
        )
    if not hasattr(estimator, "verdict_"):
        raise ParameterError(f"obj must be fitted to be saved, got {name} before fit.")


def _public(name: str) -> type[Any] | None:
    """Return the public class of estimators that has this name."""
    kind = getattr(noisefilter, name) if name in noisefilter.__all__ else None
    known = isinstance(kind, type) and issubclass(kind, BaseFilter | BaseTrainer | VoteFilter)
    return kind if known else None


def _attributes_saved(estimator: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if hasattr(estimator, "n_features_in_"):
        found["n_features_in_"] = int(estimator.n_features_in_)
    if hasattr(estimator, _COLUMNS):
        found[_COLUMNS] = [str(name) for name in estimator.feature_names_in_]
    for name in (_HISTORY, _REPORT):
        if hasattr(estimator, name):
            found[name] = getattr(estimator, name)
    if container := getattr(estimator, "_sklearn_output_config", {}).get("transform"):
        found["set_output"] = container
    if hasattr(estimator, "_metadata_request"):
        asked = {name: getattr(estimator._metadata_request, name, None) for name in _REQUESTS}
        found["requests"] = {name: each.requests for name, each in asked.items() if each and each.requests}
    return found


def _encoded(value: Any, what: str) -> Any:
    """Return a parameter as JSON can hold it: what JSON does not know is an object that names its kind."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": repr(float(value))}
    if isinstance(value, list | tuple):
        entries = [_encoded(entry, what) for entry in value]
        return entries if isinstance(value, list) else {"tuple": entries}
    if isinstance(value, Mapping):
        return {"dict": {str(name): _encoded(entry, f"{what}.{name}") for name, entry in value.items()}}
    return _class_encoded(value, what) if isinstance(value, type) else _object_encoded(value, what)


def _class_encoded(kind: type[Any], what: str) -> dict[str, Any]:
    if CLASSES.get(kind.__name__) is kind:
        return {"class": kind.__name__}
    if is_network(kind) and "<locals>" not in kind.__qualname__:
        return {"network": kind.__qualname__}  # of the user's own, who has it when loading
    raise ParameterError(
        f"{what} must be one of {', '.join(CLASSES)} or a network class of your own to be saved, got "
        f"{kind.__qualname__}."
    )


def _object_encoded(thing: Any, what: str) -> dict[str, Any]:
    name, parameters = type(thing).__name__, parameters_of(thing)
    if parameters is None and _public(name) is type(thing):
        parameters = thing.get_params(deep=False)
        parameters.pop(_LEFT_OUT, None)
    if parameters is None:
        raise ParameterError(
            f"{what} must be a number, a text, a class or an estimator of this library to be saved, got an "
            f"object of type {name}, which no file can hold without its code. Set another with set_params, "
            "or save the verdict_ alone."
        )
    inside = f"{what}." if what else ""
    return {"object": name, "parameters": {k: _encoded(v, inside + k) for k, v in parameters.items()}}


# --- what is read: nothing in it is taken on trust ------------------------------------------------


class _Reader:
    """Makes of tensors and descriptions what they were; `networks` are classes of the user's own, by name."""

    def __init__(self, networks: Mapping[str, type[Any]]):
        self.networks = networks

    def thing(self, description: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
        """Return a verdict or an estimator."""
        if description.get("class") == "Verdict":
            return self.verdict(description, tensors)
        return self.estimator(description, tensors)

    def verdict(self, description: Mapping[str, Any], tensors: Mapping[str, Any]) -> Verdict:
        """Return a verdict."""
        arrays = self.arrays(description["arrays"], tensors, VERDICT_ARRAYS)
        values = {name: self.decoded(description["values"][name]) for name in VERDICT_VALUES}
        for name in set(arrays) - {"labels", "classes", "alternatives"}:
            _check_kind(name, arrays[name])
        verdict = with_parts(arrays, values)
        _check_verdict(verdict)
        return verdict

    def arrays(
        self, kinds: Mapping[str, Any], tensors: Mapping[str, Any], names: Iterable[str]
    ) -> dict[str, NDArray[Any]]:
        """Return those of the named arrays that there are."""
        return {name: load_array(tensors[name], kinds.get(name)) for name in names if name in tensors}

    def signals(self, description: Mapping[str, Any], tensors: Mapping[str, Any]) -> Signals:
        """Return signals, unchecked but for the kind of their numbers."""
        arrays = self.arrays(description["arrays"], tensors, _SIGNALS)
        for name, array in arrays.items():
            _check_kind(name, array)
        peer = description["peer"]
        return Signals(**arrays, peer=None if peer is None else self.signals(peer, behind("peer.", tensors)))

    def estimator(self, description: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
        """Return a fitted filter or trainer."""
        estimator = self.object(description)
        if not isinstance(estimator, BaseFilter | BaseTrainer | VoteFilter):
            raise InputError(f"An estimator must be a filter or trainer, got {type(estimator).__name__}.")
        estimator._check_parameters()
        estimator.verdict_ = self.verdict(description["verdict_"], behind("verdict_.", tensors))
        estimator.classes_ = _check_judged(estimator.verdict_)
        if "given_verdict_" in description:
            given = self.verdict(description["given_verdict_"], behind("given_verdict_.", tensors))
            if not np.array_equal(given.labels, estimator.verdict_.labels):
                raise InputError("Both verdicts must be about the same labels, got others.")
            _check_judged(given)
            estimator.__dict__["given_verdict_"] = given
        if "signals_" in description:
            signals = self.signals(description["signals_"], behind("signals_.", tensors))
            signals.check(len(estimator.verdict_), len(estimator.classes_))
            estimator.__dict__["signals_"] = signals
        _load_attributes(estimator, description["attributes"])
        self._load_fitted(estimator, description, tensors)
        return estimator

    def _load_fitted(
        self, estimator: Any, description: Mapping[str, Any], tensors: Mapping[str, Any]
    ) -> None:
        if isinstance(estimator, VoteFilter):
            pairs = list(zip(estimator.filters, description["members"], strict=True))
            members = [
                self.estimator(own, behind(f"member_{i}.", tensors)) for i, (_, own) in enumerate(pairs)
            ]
            for (name, given), member in zip(estimator.filters, members, strict=True):
                if type(given) is not type(member) or len(member.verdict_) != len(estimator.verdict_):
                    raise InputError(f"The filter {name!r:.60} must be fitted as such, got another.")
            estimator.filters_ = members
            names = (name for name, _ in estimator.filters)
            estimator.named_filters_ = Bunch(**dict(zip(names, members, strict=True)))
        elif "fitted" in description:
            estimator._load_fitted(behind("fitted.", tensors), self.decoded(description["fitted"]))
        elif isinstance(estimator, BaseFilter):
            estimator._fitted = None
        else:
            raise InputError("A trainer must have what it learned, got nothing.")

    # -- parameters -------------------------------------------------------------------------------

    def object(self, value: Mapping[str, Any]) -> Any:
        """Return an instance of one of our classes, not fitted."""
        name, parameters = value["object"], self._each(value["parameters"])
        kind = OBJECTS.get(name) or _public(name)
        if kind is None:
            raise InputError(f"An object must be of a class that noisefilter.save knows, got {name!r:.60}.")
        if _public(name) is None:
            _check_names(name, parameters)
        return kind(**parameters)

    def decoded(self, value: Any) -> Any:
        """Return the value that was encoded so."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list):
            if len(value) > _MOST_ENTRIES:
                raise InputError(f"A list must have at most {_MOST_ENTRIES} entries, got {len(value)}.")
            return [self.decoded(entry) for entry in value]
        if "object" in value:
            return self.object(value)
        ((tag, inside),) = value.items()
        return self._tagged(tag, inside)

    def _tagged(self, tag: str, inside: Any) -> Any:
        if tag == "tuple":
            return tuple(self.decoded(list(inside)))
        if tag == "dict":
            return self._each(inside)
        if tag == "float":
            return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[inside]
        if tag == "class":
            return CLASSES[inside]
        if tag == "network" and inside in self.networks:
            return self.networks[inside]
        if tag == "network":
            raise InputError(
                f"load must be given your own network class, networks=[{inside!s:.60}], got none of that "
                "name."
            )
        raise InputError(f"A value must be of a kind that noisefilter.save writes, got {tag!r:.60}.")

    def _each(self, values: Mapping[str, Any]) -> dict[str, Any]:
        if len(values) > _MOST_ENTRIES:
            raise InputError(f"There must be at most {_MOST_ENTRIES} parameters, got {len(values)}.")
        return {name: self.decoded(value) for name, value in values.items()}


def _check_names(name: str, parameters: Mapping[str, Any]) -> None:
    """Raise InputError unless a class that takes any keyword gets those that it has."""
    kind = OBJECTS[name]
    known = set(kind(CLASSES["MLP"]).get_params(deep=False)) if hasattr(kind, "get_params") else None
    prefixes = ("module__", "criterion__", "optimizer__")
    for key in parameters:
        if known is not None and key not in known and not key.startswith(prefixes):
            raise InputError(f"{name} must have parameters of its own, got {key!r:.60}.")


def _check_kind(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name} must be numbers, got {array.dtype}.")


def _check_verdict(verdict: Verdict) -> None:
    """Raise InputError unless a verdict says what verdicts say; much of it is checked when it is made."""
    k = len(verdict.classes)
    arrays = {"clean_proba": (len(verdict),), "transition_matrix": (k, k), "classes": (k,)}
    for name, shape in arrays.items():
        array = getattr(verdict, name)
        if array is not None and array.shape != shape:
            raise InputError(f"{name} must have shape {shape}, got {array.shape}.")
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"{name} must be finite, got NaN or infinity.")
    interval = verdict.noise_rate_interval
    holds = {
        "threshold": verdict.threshold is None or _is_number(verdict.threshold),
        "open_set": isinstance(verdict.open_set, bool | np.bool_),
        "estimated_noise_rate": _is_number(verdict.estimated_noise_rate),
        "noise_rate_interval": interval is None or (len(interval) == 2 and all(map(_is_number, interval))),
        "method": isinstance(verdict.method, str),
    }
    for name, right in holds.items():
        if not right:
            raise InputError(f"{name} must be what a verdict has there, got {getattr(verdict, name)!r:.60}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_judged(verdict: Verdict) -> NDArray[Any]:
    """Return the classes of a verdict that a fit came to, whose labels say which there are."""
    classes = check_labels(verdict.labels).classes
    same = verdict.classes.dtype == classes.dtype and np.array_equal(verdict.classes, classes)
    if not same or verdict.alternatives.dtype.kind != classes.dtype.kind:
        raise InputError("The classes must be those of the labels, got others.")
    if not np.isin(verdict.alternatives, classes).all() or verdict.transition_matrix is None:
        raise InputError("A verdict must suggest known classes and have a transition matrix, got others.")
    return verdict.classes


def _load_attributes(estimator: Any, found: Mapping[str, Any]) -> None:
    own = vars(estimator)
    if "n_features_in_" in found:
        own["n_features_in_"] = _count(found["n_features_in_"])
    if _COLUMNS in found:
        names = found[_COLUMNS]
        if len(names) != own["n_features_in_"] or not all(isinstance(name, str) for name in names):
            raise InputError(f"{_COLUMNS} must be {own['n_features_in_']} texts, got others.")
        own[_COLUMNS] = np.array(names, dtype=object)
    if _HISTORY in found:
        own[_HISTORY] = [_record(record) for record in found[_HISTORY]]
    if _REPORT in found:
        own[_REPORT] = _record(found[_REPORT])
    if "set_output" in found:
        estimator.set_output(transform=found["set_output"])
    _load_requests(estimator, found.get("requests", {}))


def _load_requests(estimator: Any, requests: Mapping[str, Any]) -> None:
    with config_context(enable_metadata_routing=True):
        for name, asked in requests.items():
            if name not in _REQUESTS:
                raise InputError(f"Metadata must be asked for by one of {_REQUESTS}, got {name!r:.60}.")
            getattr(estimator, f"set_{name}_request")(**asked)


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise InputError(f"n_features_in_ must be a whole number of at least 1, got {value!r:.60}.")
    return value


def _record(record: Any) -> dict[str, Any]:
    if not isinstance(record, dict) or not all(type(value) in _RECORD for value in record.values()):
        raise InputError("A record must have plain numbers and texts by name, got others.")
    return record
