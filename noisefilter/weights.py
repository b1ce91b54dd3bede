"""Trained networks as tensors and plain values, without code, and back again.

Only what is listed here by name is ever made from what a file says, and classes that the user hands over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import torch
from skorch import NeuralNetClassifier
from torch import Tensor, nn

from noisefilter.augment import CropFlip
from noisefilter.contrastive import JoSRCNetwork, MeanTeacher, TwoViewNet
from noisefilter.criteria import (
    ConfidencePenaltyLoss,
    ELRLoss,
    GCELoss,
    HardBootstrappingLoss,
    RobustLoss,
    SoftBootstrappingLoss,
    SymmetricCELoss,
)
from noisefilter.errors import InputError, ParameterError
from noisefilter.models import Model, NetModel
from noisefilter.net import Net, first_output
from noisefilter.networks import (
    MLP,
    PreActResNet18,
    SevenLayerCNN,
    SmallCNN,
    TorchvisionClassifier,
    WideResNet28_2,
)
from noisefilter.states import behind, check_tensors, named

__all__ = [
    "CLASSES",
    "NETWORKS",
    "OBJECTS",
    "Place",
    "is_network",
    "load_model",
    "load_network",
    "load_two_view_net",
    "model_state",
    "network_state",
    "parameters_of",
    "two_view_net_state",
]

_TRAINED_BY = (Net, TwoViewNet)
_PREFIX = "module__"
_ONE_ROW = 2**28  # values in a row; more is no row of anything
NETWORKS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        MLP, SmallCNN, SevenLayerCNN, PreActResNet18, WideResNet28_2, TorchvisionClassifier, JoSRCNetwork,
    )
}  # fmt: skip
# Classes that parameters may be.
CLASSES: dict[str, type[Any]] = NETWORKS | {
    kind.__name__: kind
    for kind in (
        torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, nn.CrossEntropyLoss, nn.NLLLoss, GCELoss,
        SymmetricCELoss, SoftBootstrappingLoss, HardBootstrappingLoss, ConfidencePenaltyLoss, ELRLoss,
    )
}  # fmt: skip
# Classes of which parameters may be instances.
OBJECTS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Net, NeuralNetClassifier, CropFlip)}
NetT = TypeVar("NetT", bound=Net)


class Place(NamedTuple):
    """What a loaded network is for: rows of this shape, so many classes, on this device."""

    shape: tuple[int, ...]
    n_classes: int
    device: torch.device


def is_network(kind: type[Any]) -> bool:
    """Whether this is the class of a network."""
    return issubclass(kind, nn.Module)


def parameters_of(thing: Any) -> dict[str, Any] | None:
    """Return the parameters of an instance of `OBJECTS` that are not the default; None for other things."""
    if type(thing) not in OBJECTS.values():
        return None
    if isinstance(thing, CropFlip):
        return dict(vars(thing))
    plain = type(thing)(thing.module).get_params(deep=False)
    given = thing.get_params(deep=False)
    return {
        name: value
        for name, value in given.items()
        if not name.startswith("_")  # skorch's own notes
        and (name == "module" or name not in plain or not _alike(value, plain[name]))
    }


def _alike(value: Any, default: Any) -> bool:
    """Whether a parameter is the default, or a copy of it: clones have copies."""
    if value is default:
        return True
    if type(value) is not type(default):
        return False
    return bool(vars(value) == vars(default) if hasattr(value, "__dict__") else value == default)


def network_state(net: Net) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a trained network, and what else it answers by."""
    given = net.get_params(deep=False)
    return net.module_.state_dict(), {
        "module": net.module,
        "arguments": {name.removeprefix(_PREFIX): v for name, v in given.items() if name.startswith(_PREFIX)},
        # All that is asked of a loss by then is whether it takes logits.
        "criterion": nn.CrossEntropyLoss if isinstance(net.criterion_, RobustLoss) else net.criterion,
        "predict_nonlinearity": net.predict_nonlinearity,
        "feature_layer": net.feature_layer,
        "precision": net.precision,
        "bfloat16_inference": net.bfloat16_inference_,
        "seed": net.seed_,
    }


def load_network(tensors: Mapping[str, Tensor], rest: Mapping[str, Any], place: Place) -> Net:
    """Return the network of which :func:`network_state` was asked.

    Raises
    ------
    InputError, or whatever a network raises that cannot be built so
        If weights, description and rows do not fit each other.
    """
    return _loaded(Net, tensors, rest, place)


def two_view_net_state(net: TwoViewNet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a trained network and its teacher, and what else they answer by."""
    tensors, rest = network_state(net)
    return named("student.", tensors) | named("teacher.", net.teacher_.module.state_dict()), rest


def load_two_view_net(tensors: Mapping[str, Tensor], rest: Mapping[str, Any], place: Place) -> TwoViewNet:
    """Return the network of which :func:`two_view_net_state` was asked; errors as of `load_network`."""
    net = _loaded(TwoViewNet, behind("student.", tensors), rest, place)
    net.teacher_ = MeanTeacher(net.module_, net.teacher_decay)
    _fill(net.teacher_.module, behind("teacher.", tensors))
    return net


def model_state(model: Model) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return what :func:`network_state` does of a model that is a network of ours.

    Raises
    ------
    ParameterError
        If it is another estimator.
    """
    if not isinstance(model, NetModel) or type(model.net) not in _TRAINED_BY:
        own = getattr(model, "classifier", None) or getattr(model, "net", model)
        raise ParameterError(
            "estimator must be None, a noisefilter.Net or a NeuralNetClassifier to be saved, got "
            f"{type(own).__name__}, which no file can hold without its code. Save the verdict alone: "
            "noisefilter.save(filter.verdict_, path)."
        )
    return network_state(model.net)


def load_model(tensors: Mapping[str, Tensor], rest: Mapping[str, Any], place: Place) -> NetModel:
    """Return the model of which :func:`model_state` was asked; errors as of `load_network`."""
    return NetModel(load_network(tensors, rest, place))


def _loaded(kind: type[NetT], tensors: Mapping[str, Tensor], rest: Mapping[str, Any], place: Place) -> NetT:
    _check_description(rest, place)
    arguments = dict(rest["arguments"])
    if rest["module"] in NETWORKS.values():  # of a user's own nothing is known
        _try_on_paper(rest["module"], arguments, tensors, place)
    net = kind(
        rest["module"],
        criterion=rest["criterion"],
        predict_nonlinearity=rest["predict_nonlinearity"],
        feature_layer=rest["feature_layer"],
        precision=rest["precision"],
        device=str(place.device),
        random_state=0,
        **{_PREFIX + name: value for name, value in arguments.items()},
    ).initialize()
    net.lay_out()
    _fill(net.module_, tensors)
    net.bfloat16_inference_, net.seed_ = rest["bfloat16_inference"], rest["seed"]
    return net


def _check_description(rest: Mapping[str, Any], place: Place) -> None:
    """Raise InputError where a description says what no trained network of ours says."""
    if not place.shape or min(place.shape) < 1 or math.prod(place.shape) > _ONE_ROW:
        raise InputError(f"Rows must have a shape of numbers of at least 1, got {place.shape!s:.60}.")
    seed, half = rest["seed"], rest["bfloat16_inference"]
    holds = {
        "module": isinstance(rest["module"], type) and is_network(rest["module"]),
        "criterion": rest["criterion"] in (nn.CrossEntropyLoss, nn.NLLLoss),
        "predict_nonlinearity": rest["predict_nonlinearity"] in ("auto", None),
        "seed": type(seed) is int and 0 <= seed < 2**31,
        "bfloat16_inference": half is None or isinstance(half, bool),
    }
    for name, right in holds.items():
        if not right:
            raise InputError(f"{name} must be that of a trained network, got {rest[name]!r:.60}.")


def _try_on_paper(
    network: type[nn.Module], arguments: dict[str, Any], tensors: Mapping[str, Tensor], place: Place
) -> None:
    """Check without using memory that such a network has such weights and takes such rows."""
    with torch.device("meta"), torch.inference_mode():
        paper = network(**arguments).eval()
        check_tensors(tensors, paper.state_dict(), set())
        answer = tuple(first_output(paper(torch.empty((1, *place.shape)))).shape)
    if answer != (1, place.n_classes):
        raise InputError(f"The network must give {place.n_classes} outputs for a row, got {answer}.")


def _fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    check_tensors(tensors, module.state_dict(), set())
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(f"{name} must be finite, got NaN or infinity.")
    module.load_state_dict(dict(tensors))
