"""A training that is driven epoch by epoch, and taken up again from its state: the same bits."""

import json
import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from noisefilter.augment import CropFlip
from noisefilter.contrastive import TwoViewNet, two_view_net
from noisefilter.errors import InputError
from noisefilter.net import Net, derived_seed, local_seed
from noisefilter.networks import SmallCNN
from noisefilter.states import behind, named

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5)).astype(np.float32)
IMAGES = RNG.random((60, 3, 8, 8)).astype(np.float32)
CODES = torch.arange(60) % 3
ALL = ("losses", "margins", "predictions", "mean_probs")


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(5, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(nn.functional.dropout(torch.relu(self.norm(self.hidden(x))), 0.5, self.training))


def jitter(x, generator):
    return x + 0.3 * torch.randn(x.shape, generator=generator)


MOMENTUM = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "optimizer__weight_decay": 1e-3}
ADAM = {"optimizer": torch.optim.Adam}
CNN = {"module__n_channels": 3, "module__n_classes": 3, "module__image_size": 8, "augment": CropFlip(True)}


def make(kind=Net, module=Dropping, **changes):
    settings = {"max_epochs": 4, "batch_size": 16, "lr": 0.02, "random_state": 0, "precision": "float32"}
    return kind(module, **settings | changes)


def two_view(**changes):
    return make(TwoViewNet, warmup_epochs=2, warmup_threshold=0.9, least_clean=0.3, **changes)


NETS = {
    "plain SGD": lambda: make(optimizer=torch.optim.SGD),
    "momentum": lambda: make(**MOMENTUM, lr_drops=(0.3, 0.8), record=ALL),
    "Adam": lambda: make(**ADAM, augment=jitter, record=ALL),
    "mixup": lambda: make(**MOMENTUM, objective="mixup", record=("mean_probs",)),
    "cycles": lambda: make(**MOMENTUM, schedule="cyclical", n_cycles=1, cycle_epochs=3, record=("losses",)),
    "images": lambda: make(module=SmallCNN, **CNN, **MOMENTUM),
    "two views, momentum": lambda: two_view(**MOMENTUM),
    "two views, Adam": lambda: two_view(**ADAM, augment=jitter),
    "two views, Jo-SRC's Adam": lambda: two_view_net(make(), "adam", {"warmup_epochs": 2}),
}


def begun(net):
    """Return a net that is ready, its rows, and how many epochs it has."""
    net.initialize()
    rows = net._rows(IMAGES if net.module is SmallCNN else X)
    with local_seed(net.seed_, rows.device):
        n_epochs = net.begin(rows, CODES)
    return net, rows, n_epochs


def run(net, rows, epochs):
    for epoch in epochs:
        with local_seed(derived_seed(net.seed_, epoch), rows.device):
            net.reseed(epoch)
            assert not net.run_epoch(rows, CODES, epoch)


def bits(tensors):
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in tensors.items()}


def sent(tensors, rest):
    """What comes out of a file on the other side: tensors without their layout, JSON."""
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}, json.loads(
        json.dumps(rest)
    )


@pytest.mark.parametrize("kind", NETS)
def test_taken_up_again_ends_in_the_same_bits(kind):
    whole, rows, n_epochs = begun(NETS[kind]())
    run(whole, rows, range(n_epochs))
    tensors, rest = whole.state()
    whole.end(rows, CODES)
    for stop in {1, n_epochs // 2, n_epochs - 1}:
        first, _, _ = begun(NETS[kind]())
        run(first, rows, range(stop))
        saved = sent(*first.state())
        second, _, _ = begun(NETS[kind]())
        torch.manual_seed(stop)
        second.load_state(*saved)
        run(second, rows, range(stop, n_epochs))
        found, said = second.state()
        assert json.dumps(said) == json.dumps(rest)
        assert bits(found) == bits(tensors)
        second.end(rows, CODES)
        np.testing.assert_array_equal(second.predict_proba(rows), whole.predict_proba(rows))
        for one, other in zip(getattr(second, "recorded_", ()), getattr(whole, "recorded_", ()), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["momentum", "cycles", "images", "two views, momentum"])
def test_a_driver_that_never_reseeds_is_fit(kind):
    net, rows, n_epochs = begun(NETS[kind]())
    with local_seed(net.seed_, rows.device):
        net.begin(rows, CODES)
        for epoch in range(n_epochs):
            net.run_epoch(rows, CODES, epoch)
    net.end(rows, CODES)
    fitted = NETS[kind]().fit(rows, CODES.numpy())
    assert bits(net.module_.state_dict()) == bits(fitted.module_.state_dict())
    assert net.history == fitted.history
    for one, other in zip(getattr(net, "recorded_", ()), getattr(fitted, "recorded_", ()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_every_part_of_the_state_is_needed():
    """Whatever is left as it was at the start, the end is another one."""
    whole, rows, n_epochs = begun(NETS["two views, momentum"]())
    run(whole, rows, range(2))
    tensors, rest = whole.state()
    fresh = begun(NETS["two views, momentum"]())[0].state()
    run(whole, rows, range(2, n_epochs))
    wanted = bits(whole.state()[0])
    for part in ("module.head", "module.norm.running", "optimizer.", "teacher.", "limits_", "warm_sum_"):
        net, _, _ = begun(NETS["two views, momentum"]())
        start = {name: torch.zeros_like(value) for name, value in tensors.items() if name.startswith(part)}
        start |= {name: value for name, value in fresh[0].items() if name.startswith(part)}
        assert start
        net.load_state(tensors | start, rest)
        run(net, rows, range(2, n_epochs))
        assert bits(net.state()[0]) != wanted, part


def test_the_state_is_a_copy_and_so_is_what_was_loaded():
    net, rows, _ = begun(NETS["two views, momentum"]())
    run(net, rows, [0])
    tensors, rest = net.state()
    before, said = bits(tensors), json.dumps(rest)
    net.load_state(tensors, rest)
    run(net, rows, [1])
    assert bits(tensors) == before and json.dumps(rest) == said
    assert bits(net.state()[0]) != before


def test_tuples_of_an_optimizer_are_tuples_again():
    net, rows, _ = begun(make(**ADAM))
    run(net, rows, [0])
    other, _, _ = begun(make(**ADAM, optimizer__betas=(0.5, 0.6)))
    other.load_state(*sent(*net.state()))
    assert other.optimizer_.param_groups[0]["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("kind", NETS)
def test_loading_keeps_memory_layouts(kind):
    net, rows, _ = begun(NETS[kind]())
    run(net, rows, [0])
    tensors, rest = net.state()
    other, _, _ = begun(NETS[kind]())
    other.load_state(*sent(tensors, rest))
    strides = [{name: t.stride() for name, t in found.items()} for found in (tensors, other.state()[0])]
    assert strides[0] == strides[1]


def test_the_state_has_names_to_read():
    net, rows, _ = begun(make(**MOMENTUM, record=("losses",)))
    run(net, rows, [0])
    tensors, rest = net.state()
    assert {"module.head.weight", "module.norm.running_mean", "recorded.losses"} < set(tensors)
    assert tensors["optimizer.0.momentum_buffer"].shape == net.module_.hidden.weight.shape
    group = rest["optimizers"]["optimizer"]["groups"][0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.02, 0.9, 1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("module.head.bias"), r"must have every tensor .* none named \['module.head.bias'\]"),
        (lambda t: t.pop("optimizer.1.momentum_buffer"), r"none named \['optimizer.1.momentum_buffer'\]"),
        (lambda t: t.update({"teacher.x": torch.ones(1)}), r"of this training alone, got \['teacher.x'\]"),
        (lambda t: t.update({"module.head.bias": torch.ones(4)}), r"bias must be .* \(3,\) .* got \(4,\)"),
        (lambda t: t.update({"module.head.bias": torch.ones(3, dtype=torch.int)}), "got .* torch.int32"),
    ],
)
def test_another_state_is_an_error_and_changes_nothing(change, message):
    net, rows, _ = begun(make(**MOMENTUM))
    run(net, rows, [0])
    saved, rest = net.state()
    run(net, rows, [1])
    before = bits(net.state()[0])
    change(saved)
    with pytest.raises(InputError, match=message):
        net.load_state(saved, rest)
    assert bits(net.state()[0]) == before


def test_the_state_of_another_optimizer_is_an_error():
    net, rows, _ = begun(make(**MOMENTUM))
    run(net, rows, [0])
    other, _, _ = begun(make(**ADAM))
    with pytest.raises(InputError, match=r"parameter groups of the optimizer must have .*amsgrad.* got "):
        other.load_state(*net.state())


def test_an_epoch_is_seeded_by_its_number_alone():
    net, _, _ = begun(make())
    draws = []
    for numbers in ((3,), (4,), (3,), (3, 1)):
        draws.append(torch.rand(4, generator=net.reseed(*numbers)))
        torch.rand(7, generator=net.generator_)
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[3])
    other, _, _ = begun(make(random_state=1))
    assert not torch.equal(torch.rand(4, generator=other.reseed(3)), draws[0])
    net.reseed(3)
    with local_seed(derived_seed(net.seed_, 3), torch.device("cpu")):
        assert not torch.equal(torch.rand(4), draws[0])  # dropout draws other numbers than the order


def test_derived_seeds_are_seeds():
    seeds = {derived_seed(seed, epoch) for seed in (0, 1, 2**31 - 2) for epoch in range(200)}
    assert len(seeds) == 600 and 0 <= min(seeds) and max(seeds) < 2**32
    with pytest.raises(ValueError, match="non-negative"):
        derived_seed(0, -1)


def test_without_a_training_there_is_no_state():
    net = make().initialize()
    for call in (net.state, lambda: net.run_epoch(None, None, 0)):
        with pytest.raises(RuntimeError, match=r"Net\.begin must have been called"):
            call()
    fitted = make().fit(X, CODES.numpy())
    with pytest.raises(RuntimeError, match=r"Net\.begin must have been called"):
        fitted.state()
    assert not hasattr(fitted, "generator_")
    pickle.loads(pickle.dumps(fitted))


class Said(Callback):
    def __init__(self):
        self.calls = []

    def on_train_begin(self, net, X, y, **kwargs):
        self.calls.append(("begin", len(X), len(y)))

    def on_epoch_begin(self, net, **kwargs):
        self.calls.append("epoch")

    def on_train_end(self, net, X, y, **kwargs):
        self.calls.append(("end", len(X), len(y)))


def test_callbacks_hear_of_it():
    net, rows, _ = begun(make(callbacks=[("said", Said())]))
    run(net, rows, range(2))
    net.end(rows, CODES)
    assert dict(net.callbacks_)["said"].calls == [("begin", 60, 60), "epoch", "epoch", ("end", 60, 60)]


def test_names_get_a_prefix_and_lose_it():
    tensors = {"a": torch.zeros(1), "b.a": torch.ones(1)}
    both = named("b.", tensors) | named("bb.", {"a": torch.zeros(2)})
    assert list(both) == ["b.a", "b.b.a", "bb.a"]
    again = behind("b.", both)
    assert again.keys() == tensors.keys() and all(again[name] is tensors[name] for name in tensors)
