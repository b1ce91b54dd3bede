"""Net: the loop, the record, and that nothing leaks out of it."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from noisefilter.augment import CropFlip
from noisefilter.batches import ArrayRows, picked
from noisefilter.errors import InputError, ParameterError, TrainingDivergedError
from noisefilter.losses import negative_entropy
from noisefilter.net import (
    Net,
    Recorder,
    check_finite_loss,
    check_finite_outputs,
    local_seed,
)
from noisefilter.networks import MLP, SmallCNN

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = np.arange(40) % 3


def net(module=MLP, **changes):
    parameters = {"max_epochs": 2, "batch_size": 16, "random_state": 0, "verbose": 0}
    if module is MLP:
        parameters |= {"module__n_inputs": 4, "module__n_classes": 3, "module__hidden": (8,)}
    return Net(module, **(parameters | changes))


class Plain(nn.Module):
    """One linear layer: outputs that a test can compute by hand."""

    def __init__(self, n_inputs=4, n_classes=3):
        super().__init__()
        self.linear = nn.Linear(n_inputs, n_classes)

    def forward(self, x):
        return self.linear(x)


class Softmaxed(Plain):
    def forward(self, x):
        return self.linear(x).softmax(1)


class Paired(Plain):
    def forward(self, x):
        return self.linear(x), x


ALL = ("losses", "margins", "predictions", "mean_probs")


# Randomness


def test_the_seed_decides_every_bit():
    a, b, other = (net(record=ALL, random_state=s).fit(X, Y) for s in (3, 3, 4))
    for name in (*ALL, "learning_rates"):
        np.testing.assert_array_equal(getattr(a.recorded_, name), getattr(b.recorded_, name))
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X))
    assert not np.array_equal(a.recorded_.losses, other.recorded_.losses)


@pytest.mark.parametrize("objective", ["cross_entropy", "mixup"])
def test_fitting_again_equals_a_new_fit(objective):
    images = RNG.random((40, 3, 8, 8)).astype(np.float32)
    cnn = net(
        SmallCNN,
        module__n_channels=3,
        module__n_classes=3,
        module__image_size=8,
        augment=CropFlip(True),
        objective=objective,
        precision="float32",
    )
    first = cnn.fit(images, Y).predict_proba(images)
    np.testing.assert_array_equal(cnn.fit(images, Y).predict_proba(images), first)
    np.testing.assert_array_equal(clone(cnn).fit(images, Y).predict_proba(images), first)


class Failing(Callback):
    def __init__(self, error):
        self.error = error

    def on_epoch_end(self, net, **kwargs):
        np.random.rand()  # noqa: NPY002
        raise self.error


@pytest.mark.parametrize(
    "error", [None, RuntimeError("x"), KeyboardInterrupt()], ids=["end", "error", "interrupt"]
)
def test_global_generators_are_left_alone(error):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = torch.rand(3), np.random.rand(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    model = net(callbacks=[] if error is None else [("failing", Failing(error))])
    if error is None:
        model.fit(X, Y).predict_proba(X)
    else:
        with pytest.raises(type(error)):
            model.fit(X, Y)
    assert torch.equal(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.rand(3), expected[1])  # noqa: NPY002


def test_global_generators_do_not_matter():
    torch.manual_seed(1)
    first = net().fit(X, Y).predict_proba(X)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(net().fit(X, Y).predict_proba(X), first)


def jitter(batch, generator):
    """Augment as users do who know nothing of generators."""
    return batch + torch.from_numpy(np.random.rand(*batch.shape)).float()  # noqa: NPY002


def test_an_augmentation_that_uses_the_global_generator_is_seeded():
    probs = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        probs.append(net(augment=jitter).fit(X, Y).predict_proba(X))
    np.testing.assert_array_equal(*probs)


def test_the_order_and_the_augmentation_follow_the_seed():
    seen = []

    def keep(batch, generator):
        seen.append((batch, torch.rand(2, generator=generator)))
        return batch

    for seed in (1, 1, 2):
        net(augment=keep, random_state=seed, max_epochs=1, batch_size=-1).fit(X, Y)
    (first, drawn), (again, drawn_again), (other, drawn_other) = seen
    assert torch.equal(first, again)
    assert torch.equal(drawn, drawn_again)
    assert not torch.equal(first, other)
    assert not torch.equal(drawn, drawn_other)
    assert sorted(first.tolist()) == sorted(X.tolist())


def test_augmented_rows_are_what_is_learned_from():
    constant = net(Plain, augment=lambda batch, generator: torch.zeros_like(batch), optimizer=torch.optim.SGD)
    constant.fit(X, Y)
    start = constant.__class__(Plain, random_state=0).initialize()
    assert torch.equal(constant.module_.linear.weight, start.module_.linear.weight)  # zeros have no slope
    assert not torch.equal(constant.module_.linear.bias, start.module_.linear.bias)


def test_steps_are_those_of_plain_torch():
    model = net(Plain, batch_size=-1, max_epochs=3, lr=0.5, optimizer=torch.optim.SGD).fit(X, Y)
    module = net(Plain).initialize().module_
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(torch.from_numpy(X)), torch.from_numpy(Y)).backward()
        optimizer.step()
    torch.testing.assert_close(model.module_.linear.weight, module.linear.weight)


def test_local_seed():
    with local_seed(7, torch.device("cpu")):
        inside = torch.rand(2)
    assert torch.equal(inside, torch.rand(2, generator=torch.Generator().manual_seed(7)))


# The record


def outputs_by_hand(model, x):
    weight, bias = (p.detach().double().numpy() for p in model.module_.parameters())
    return x.astype(np.float64) @ weight.T + bias


@pytest.mark.parametrize("objective", ["cross_entropy", "mixup"])
@pytest.mark.parametrize("epochs", [1, 4, 5])
def test_record_of_a_still_network(objective, epochs):
    model = net(
        Plain, lr=0.0, max_epochs=epochs, record=ALL, objective=objective, optimizer=torch.optim.SGD
    ).fit(X, Y)
    logits = outputs_by_hand(model, X)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for i in range(40):
        loss = -np.log(probs[i, Y[i]])
        margin = logits[i, Y[i]] - max(logits[i, c] for c in range(3) if c != Y[i])
        np.testing.assert_allclose(model.recorded_.losses[:, i], loss, rtol=1e-4)
        np.testing.assert_allclose(model.recorded_.margins[:, i], margin, rtol=1e-4, atol=1e-5)
        assert (model.recorded_.predictions[:, i] == logits[i].argmax()).all()
    np.testing.assert_allclose(model.recorded_.mean_probs, probs, rtol=1e-4)
    assert model.recorded_.losses.shape == (epochs, 40)
    assert model.recorded_.learning_rates.tolist() == [0.0] * epochs


class Watching(Callback):
    """Keeps what it was called with, and the module's outputs after every epoch."""

    def on_train_begin(self, net, X, y, **kwargs):
        self.rows, self.calls, self.probs = X, [], []

    def on_epoch_end(self, net, **kwargs):
        self.calls.append("epoch")
        self.probs.append(net.predict_batch(self.rows.take(torch.arange(40))).numpy())


@pytest.mark.parametrize(
    ("epochs", "second_half"), [(1, slice(0, None)), (2, slice(1, None)), (5, slice(2, None))]
)
def test_mean_probs_are_of_the_second_half(epochs, second_half):
    watching = Watching()
    model = net(
        max_epochs=epochs, record=("mean_probs",), objective="mixup", callbacks=[("watching", watching)]
    )
    model.fit(X, Y)
    watching = dict(model.callbacks_)["watching"]
    np.testing.assert_allclose(
        model.recorded_.mean_probs, np.mean(watching.probs[second_half], axis=0), rtol=1e-5
    )
    assert model.recorded_.losses is model.recorded_.margins is model.recorded_.predictions is None


def test_losses_come_from_the_training_pass_itself():
    # One batch an epoch: the loss recorded is of the weights before the step, the history its mean.
    model = net(Plain, batch_size=-1, max_epochs=3, record=("losses",)).fit(X, Y)
    np.testing.assert_allclose(model.recorded_.losses.mean(axis=1), model.history[:, "train_loss"], rtol=1e-5)
    start = net(Plain).initialize()
    logits = torch.from_numpy(outputs_by_hand(start, X))
    expected = nn.functional.cross_entropy(logits, torch.from_numpy(Y), reduction="none")
    np.testing.assert_allclose(model.recorded_.losses[0], expected, rtol=1e-4)


def test_record_follows_the_criterion():
    weight = torch.tensor([1.0, 2.0, 3.0])
    model = net(
        Plain, lr=0.0, record=("losses",), criterion__weight=weight, criterion__label_smoothing=0.1
    ).fit(X, Y)
    logits = torch.from_numpy(outputs_by_hand(model, X))
    expected = nn.functional.cross_entropy(
        logits, torch.from_numpy(Y), weight=weight.double(), label_smoothing=0.1, reduction="none"
    )
    np.testing.assert_allclose(model.recorded_.losses[0], expected, rtol=1e-4)
    assert model.criterion_.reduction == "mean"


def test_nll_loss_on_probabilities():
    model = net(Softmaxed, criterion=nn.NLLLoss, lr=0.0, record=ALL).fit(X, Y)
    logits = torch.from_numpy(outputs_by_hand(model, X))
    log_probs = logits.log_softmax(1).numpy()
    np.testing.assert_allclose(model.recorded_.losses[0], -log_probs[np.arange(40), Y], rtol=1e-4)
    np.testing.assert_allclose(model.predict_proba(X), np.exp(log_probs), rtol=1e-4)
    np.testing.assert_allclose(model.recorded_.mean_probs, np.exp(log_probs), rtol=1e-4)
    others = np.where(np.eye(3, dtype=bool)[Y], -np.inf, log_probs)
    np.testing.assert_allclose(
        model.recorded_.margins[1], log_probs[np.arange(40), Y] - others.max(axis=1), rtol=1e-3, atol=1e-5
    )


def test_nothing_recorded_is_nothing_left_over():
    model = net(record=("losses",)).fit(X, Y)
    model.set_params(record=()).fit(X, Y)
    assert not hasattr(model, "recorded_")


def test_recorder_refuses_unknown_names():
    with pytest.raises(ParameterError, match=r"record must name some of .*got \['scores'\]"):
        net(record=("losses", "scores")).fit(X, Y)
    with pytest.raises(ParameterError, match="record must name some of"):
        Recorder(("scores",), 1, 2, 1, torch.device("cpu"))


# The objective


def test_mixup_is_the_mixed_objective_of_mixed_rows(monkeypatch):
    monkeypatch.setattr(torch, "_sample_dirichlet", lambda alpha, generator: torch.tensor([0.3, 0.7]))
    model = net(Plain, objective="mixup").initialize()
    model.host_generator_ = None
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(9))
    mixed, objective = model._mixup(x, y, torch.arange(40), torch.Generator().manual_seed(9))
    torch.testing.assert_close(mixed, 0.3 * x + 0.7 * x[order])
    output = model.module_(mixed)
    log_probs = output.log_softmax(1)
    by_hand = np.mean(
        [-0.3 * log_probs[i, y[i]].item() - 0.7 * log_probs[i, y[order[i]]].item() for i in range(40)]
    )
    assert objective(output).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(("alpha", "deviation"), [(1.0, 1 / 12), (4.0, 1 / 36)])
def test_mixup_weights_are_beta(alpha, deviation):
    model = net(Plain, objective="mixup", mixup_alpha=alpha).initialize()
    model.host_generator_ = generator = torch.Generator().manual_seed(0)
    x = torch.eye(2, 4)
    weights = []
    while len(weights) < 600:
        mixed = model._mixup(x, torch.tensor([0, 1]), torch.arange(2), generator)[0]
        if mixed[0, 1] > 0:  # the permutation was no identity
            weights.append(mixed[0, 0].item())
    assert np.mean(weights) == pytest.approx(0.5, abs=0.04)
    assert np.var(weights) == pytest.approx(deviation, rel=0.15)


def test_bytes_are_mixed_as_numbers():
    rows = ArrayRows(torch.from_numpy((X * 50 + 128).astype(np.uint8)))
    model = net(objective="mixup").fit(rows, Y)
    assert np.isfinite(model.history[-1, "train_loss"])


def naive_ne(output, target):
    """CE + sum_c p_c log p_c, one number at a time."""
    total = 0.0
    for z, y in zip(output, target, strict=True):
        p = [torch.exp(z[c]) / sum(torch.exp(z)) for c in range(3)]
        total = total - torch.log(p[y]) + sum(p[c] * torch.log(p[c]) for c in range(3))
    return total / len(output)


@pytest.mark.parametrize("kind", [Plain, Softmaxed])
def test_negative_entropy_is_added_to_the_loss(kind):
    settings = {"batch_size": -1, "max_epochs": 3, "lr": 0.5, "optimizer": torch.optim.SGD}
    criterion = nn.NLLLoss if kind is Softmaxed else nn.CrossEntropyLoss
    objective = {"objective": "cross_entropy_ne", "record": ("losses",), "criterion": criterion}
    model = net(kind, **settings, **objective).fit(X, Y)
    module = net(Plain).initialize().module_
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for epoch in range(3):
        optimizer.zero_grad()
        output = module(torch.from_numpy(X))
        loss = naive_ne(output, torch.from_numpy(Y))
        plain = nn.functional.cross_entropy(output, torch.from_numpy(Y), reduction="none")
        loss.backward()
        optimizer.step()
        assert model.history[epoch, "train_loss"] == pytest.approx(loss.item(), abs=1e-5)
        np.testing.assert_allclose(model.recorded_.losses[epoch], plain.detach(), rtol=1e-3)  # without it
    torch.testing.assert_close(model.module_.linear.weight, module.linear.weight)


def test_negative_entropy_of_a_sure_network_has_a_slope():
    logits = torch.tensor([[0.0, 200.0, -300.0]], requires_grad=True)
    value = negative_entropy(torch.softmax(logits, 1)).mean()
    value.backward()
    assert value.item() == 0.0 and torch.isfinite(logits.grad).all()


# Learning rates


@pytest.mark.parametrize(
    ("epochs", "rates"),
    [(8, [1.0] * 4 + [0.2] * 2 + [0.04] * 2), (1, [1.0]), (2, [1.0, 0.2]), (3, [1.0, 0.2, 0.04])],
)
def test_lr_drops(epochs, rates):
    model = net(Plain, lr=1.0, lr_drops=(0.5, 0.75), max_epochs=epochs, record=("losses",)).fit(X / 100, Y)
    np.testing.assert_allclose(model.history[:, "event_lr"], rates)
    np.testing.assert_allclose(model.recorded_.learning_rates, rates)


def test_lr_drop_factor():
    model = net(Plain, lr=1.0, lr_drops=(0.5,), lr_drop_factor=10).fit(X / 100, Y)
    np.testing.assert_allclose(model.history[:, "event_lr"], [1.0, 0.1])


def test_cycles_follow_the_ordinary_epochs():
    """O2U-Net: r(t) = (1 - s) r1 + s r2 with s = (1 + (t - 1) mod c) / c, r2 = r1 / 10."""
    watching = Watching()
    model = net(
        Plain, lr=1.0, lr_drops=(0.5,), max_epochs=4, schedule="cyclical", n_cycles=2, cycle_epochs=5,
        record=ALL, callbacks=[("watching", watching)], optimizer=torch.optim.SGD, batch_size=-1,
    ).fit(X / 100, Y)  # fmt: skip
    shares = [(1 + (t - 1) % 5) / 5 for t in range(1, 11)]
    cycles = [(1 - s) * 1.0 + s * 0.1 for s in shares]
    assert cycles[4] == pytest.approx(0.1) and cycles[5] == pytest.approx(0.82)
    np.testing.assert_allclose(model.history[:, "event_lr"], [1.0, 1.0, 0.2, 0.2, *cycles])
    np.testing.assert_allclose(model.recorded_.learning_rates, cycles)  # only they are recorded
    np.testing.assert_allclose(
        model.recorded_.losses.mean(axis=1), model.history[4:, "train_loss"], rtol=1e-5
    )
    assert model.recorded_.margins.shape == model.recorded_.predictions.shape == (10, 40)
    # Each epoch is recorded before its one step, so it sees the weights that the epoch before it left.
    before = np.mean(dict(model.callbacks_)["watching"].probs[8:13], axis=0)
    np.testing.assert_allclose(model.recorded_.mean_probs, before, rtol=1e-5)


def test_ordinary_epochs_know_nothing_of_the_cycles_to_come():
    short = net(Plain, max_epochs=3, lr_drops=(0.5,)).fit(X, Y)
    long = net(Plain, max_epochs=3, lr_drops=(0.5,), schedule="cyclical", n_cycles=1, cycle_epochs=2)
    assert short.history[:, "train_loss"] == long.fit(X, Y).history[:3, "train_loss"]
    assert len(long.history) == 5
    again = net(Plain, max_epochs=3, lr_drops=(0.5,), n_cycles=7, cycle_epochs=9).fit(X, Y)
    assert again.history[:, "train_loss"] == short.history[:, "train_loss"]


def test_mixup_in_cycles_records_the_cycles():
    model = net(
        Plain, objective="mixup", schedule="cyclical", n_cycles=1, cycle_epochs=4, record=ALL, max_epochs=2
    ).fit(X, Y)
    assert model.recorded_.losses.shape == (4, 40) and (model.recorded_.losses > 0).all()
    np.testing.assert_allclose(model.recorded_.mean_probs.sum(axis=1), 1, rtol=1e-5)


def test_a_training_that_ends_before_its_cycles_has_recorded_nothing():
    stop = EarlyStopping("train_loss", patience=2, sink=lambda _: None)
    model = net(Plain, lr=0.0, max_epochs=9, record=ALL, callbacks=[("stop", stop)], schedule="cyclical").fit(
        X, Y
    )
    assert model.recorded_.losses.shape == (0, 40) and model.recorded_.mean_probs is None
    assert len(model.recorded_.learning_rates) == 0


# When it ends


def test_divergence_is_a_named_error():
    with pytest.raises(TrainingDivergedError, match=r"in epoch 2.*smaller lr="):
        net(Plain, lr=1e38, optimizer=torch.optim.SGD, max_epochs=5, batch_size=-1).fit(X, Y)


def test_early_stopping_ends_in_peace():
    stop = EarlyStopping("train_loss", patience=2, sink=lambda _: None)
    model = net(Plain, lr=0.0, max_epochs=9, record=ALL, callbacks=[("stop", stop)]).fit(X, Y)
    assert len(model.history) == 3
    assert model.recorded_.losses.shape == (3, 40)
    assert (model.recorded_.losses > 0).all()
    assert len(model.recorded_.learning_rates) == 3
    assert model.recorded_.mean_probs is None  # its epochs were never reached
    longer = net(Plain, lr=0.0, max_epochs=4, record=ALL, callbacks=[("stop", stop)]).fit(X, Y)
    np.testing.assert_allclose(longer.recorded_.mean_probs, longer.predict_proba(X), rtol=1e-5)


def test_an_interrupt_beside_early_stopping_is_passed_on():
    callbacks = [("stop", EarlyStopping("train_loss")), ("failing", Failing(KeyboardInterrupt()))]
    with pytest.raises(KeyboardInterrupt):
        net(callbacks=callbacks).fit(X, Y)


# Callbacks


class Batches(Callback):
    def on_train_begin(self, net, **kwargs):
        self.begun, self.ended, self.graded = [], [], 0

    def on_batch_begin(self, net, batch, training, **kwargs):
        self.begun.append(len(batch[0]))

    def on_grad_computed(self, net, named_parameters, **kwargs):
        assert all(p.grad is not None for _, p in named_parameters)
        self.graded += 1

    def on_batch_end(self, net, batch, training, loss, y_pred, **kwargs):
        assert training
        assert y_pred.shape == (len(batch[1]), 3)
        self.ended.append(float(loss))


def test_batch_callbacks_see_every_batch():
    model = net(callbacks=[("batches", Batches())]).fit(X, Y)
    batches = dict(model.callbacks_)["batches"]
    assert batches.begun == [16, 16, 8] * 2
    assert batches.graded == len(batches.ended) == 6
    assert [len(epoch["batches"]) for epoch in model.history] == [3, 3]
    assert [b["train_loss"] for epoch in model.history for b in epoch["batches"]] == batches.ended


def test_batch_verbs_are_silent_unless_somebody_listens(monkeypatch):
    notified = []
    original = Net.notify
    monkeypatch.setattr(
        Net, "notify", lambda self, verb, **kw: notified.append(verb) or original(self, verb, **kw)
    )
    model = net(callbacks=[("watching", Watching())]).fit(X, Y)
    assert notified == ["on_train_begin"] + ["on_epoch_begin", "on_epoch_end"] * 2 + ["on_train_end"]
    assert dict(model.callbacks_)["watching"].calls == ["epoch"] * 2
    assert "batches" not in model.history[0] or not model.history[0]["batches"]


def test_watching_changes_nothing():
    plain, watched = net().fit(X, Y), net(callbacks=[("batches", Batches())]).fit(X, Y)
    np.testing.assert_array_equal(plain.predict_proba(X), watched.predict_proba(X))


def test_skorch_callbacks_work():
    callbacks = [("lr", LRScheduler("StepLR", step_size=1, gamma=0.5))]
    model = net(lr=1.0, callbacks=callbacks).fit(X, Y)
    assert model.optimizer_.param_groups[0]["lr"] == 0.25
    scored = net(
        callbacks=[("accuracy", EpochScoring("accuracy", name="acc", on_train=True, use_caching=False))]
    )
    scored.initialize()


# Modules of every kind


def test_a_module_that_gives_a_tuple():
    single, paired = net(Plain).fit(X, Y), net(Paired).fit(X, Y)
    np.testing.assert_array_equal(single.predict_proba(X), paired.predict_proba(X))


class Backwards(nn.Module):
    """Lists its head before its body; the head is what runs last."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 3)
        self.body = nn.Sequential(nn.Linear(4, 5), nn.ReLU())

    def forward(self, x):
        return self.head(self.body(x))


def test_features_are_the_input_of_the_last_linear_layer():
    model = net(Backwards).fit(X, Y)
    probs, features = model.evaluate(X, features=True)
    np.testing.assert_array_equal(features, model.module_.body(torch.from_numpy(X)).detach())
    np.testing.assert_array_equal(probs, model.predict_proba(X))
    assert model.evaluate(X)[1] is None
    assert not model.module_.head._forward_pre_hooks
    assert features.shape == (40, 5)


def test_feature_layer():
    model = net(Backwards, feature_layer="body.1").fit(X, Y)
    np.testing.assert_array_equal(
        model.evaluate(X, True)[1], model.module_.body[0](torch.from_numpy(X)).detach()
    )
    with pytest.raises(ParameterError, match="feature_layer must name a submodule of Backwards, got 'neck'"):
        net(Backwards, feature_layer="neck").fit(X, Y).evaluate(X, True)


class Convolutional(nn.Module):
    def __init__(self, n_classes=3, dimensions=2):
        super().__init__()
        self.conv = (nn.Conv2d if dimensions == 2 else nn.Conv3d)(1, n_classes, 2)

    def forward(self, x):
        return self.conv(x).flatten(2).mean(2)


def test_no_linear_layer():
    model = net(Convolutional).fit(RNG.random((40, 1, 4, 4)), Y)
    with pytest.raises(ParameterError, match="A network without a linear layer needs it, or features="):
        model.evaluate(RNG.random((40, 1, 4, 4)), True)


def test_convolutions_in_three_dimensions():
    x = RNG.random((40, 1, 3, 3, 3))
    assert net(Convolutional, module__dimensions=3).fit(x, Y).predict_proba(x).shape == (40, 3)


@pytest.mark.parametrize(("n_classes", "shape"), [(2, r"\(1, 2\)"), (1, r"\(1, 1\)")])
def test_too_few_outputs(n_classes, shape):
    with pytest.raises(ParameterError, match=rf"one output per class \(3\) and row, got shape {shape}"):
        net(Plain, module__n_classes=n_classes).fit(X, Y)


def test_statistics_are_those_of_the_rows():
    model = net().fit(X, Y)
    np.testing.assert_allclose(model.module_.standardize.mean, X.astype(np.float64).mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(model.module_.standardize.scale, X.astype(np.float64).std(axis=0), rtol=1e-10)


class OwnStandardize(Plain):
    def standardize(self, x):
        return x / 2

    def forward(self, x):
        return self.linear(self.standardize(x))


def test_a_method_called_standardize_is_left_alone():
    assert net(OwnStandardize).fit(X, Y).predict_proba(X).shape == (40, 3)


# scikit-learn


def test_clone_get_and_set_params():
    model = net(
        augment=CropFlip(True), mixup_alpha=2.0, lr_drops=(0.5,), record=("losses",), feature_layer="head"
    )
    copied = clone(model)
    for name in (
        "augment",
        "objective",
        "mixup_alpha",
        "lr_drops",
        "lr_drop_factor",
        "precision",
        "feature_layer",
        "record",
        "random_state",
        "max_epochs",
        "batch_size",
        "module__n_inputs",
        "lr",
    ):
        value = copied.get_params()[name]
        assert value == model.get_params()[name] or name == "augment"
    model = net()
    for lr, width in ((0.01, 4), (0.1, 6)):
        model.set_params(lr=lr, module__hidden=(width,), objective="mixup").fit(X, Y)
        assert model.module_.head.in_features == width
        fresh = net(lr=lr, module__hidden=(width,), objective="mixup").fit(X, Y)
        np.testing.assert_array_equal(model.predict_proba(X), fresh.predict_proba(X))


def test_pickle_of_a_fitted_net():
    model = net(record=ALL).fit(X, Y)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(loaded.recorded_.losses, model.recorded_.losses)
    np.testing.assert_array_equal(loaded.fit(X, Y).predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    "rows",
    [
        X.astype(np.float64),
        X.tolist(),
        torch.from_numpy(X),
        torch.from_numpy(X).requires_grad_(),
        X.astype(">f4"),
        np.asfortranarray(X),
        ArrayRows(torch.from_numpy(X)),
        picked(ArrayRows(torch.from_numpy(X)), np.arange(40)),
    ],
    ids=["float64", "list", "tensor", "gradients", "big-endian", "fortran", "rows", "picked"],
)
def test_rows_of_any_kind(rows):
    model = net().fit(rows, Y)
    np.testing.assert_array_equal(model.predict_proba(rows), net().fit(X, Y).predict_proba(X))
    np.testing.assert_array_equal(model.predict(rows), model.predict_proba(rows).argmax(axis=1))


def test_warm_start_goes_on():
    model = net(Plain, warm_start=True).fit(X, Y)
    before = model.predict_proba(X)
    model.set_params(lr=0.0).fit(X, Y)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_partial_fit_goes_on():
    model = net(Plain).partial_fit(X, Y)
    before = model.history[-1, "train_loss"]
    model.partial_fit(X, Y)
    assert len(model.history) == 4
    assert model.history[-1, "train_loss"] < before


def test_no_device_means_where_things_are():
    np.testing.assert_array_equal(
        net(device=None).fit(X, Y).predict_proba(X), net().fit(X, Y).predict_proba(X)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "mixed"}, r"objective must be one of .*got 'mixed'\."),
        ({"precision": "half"}, "precision must be one of"),
        ({"schedule": "cosine"}, "schedule must be one of"),
        ({"n_cycles": 0}, "n_cycles must be at least 1, got 0"),
        ({"cycle_epochs": 0}, "cycle_epochs must be at least 1"),
        ({"mixup_alpha": 0.0}, "mixup_alpha must be greater than 0"),
        ({"max_epochs": 0}, "max_epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_bad_parameters(changes, message):
    with pytest.raises(ParameterError, match=message):
        net(**changes).fit(X, Y)


@pytest.mark.parametrize(
    "y", [Y[:-1], Y.astype(str), Y / 2, Y[:, None]], ids=["short", "text", "float", "2-D"]
)
def test_bad_labels(y):
    with pytest.raises(InputError, match="y must be 40 class numbers, one per row of X"):
        net().fit(X, y)


def test_fused_sgd_takes_weights_that_get_a_gradient_later():
    """Weights that are trained from the second epoch on move as those of a plain SGD do."""
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    moved = []
    for fused in (True, False):
        net = Net(
            MLP, module__n_inputs=4, module__n_classes=2, module__hidden=(8,), optimizer=torch.optim.SGD,
            optimizer__momentum=0.9, optimizer__nesterov=True, optimizer__fused=fused, random_state=0,
        ).initialize()  # fmt: skip
        net.begin(ArrayRows(x), torch.arange(32) % 2)
        net.module_.eval()
        for frozen in (True, False):
            net.module_.body.requires_grad_(not frozen)
            net.optimizer_.zero_grad()
            net.module_(x).square().sum().backward()
            net.optimizer_.step()
        moved.append(torch.cat([weight.detach().flatten() for weight in net.module_.parameters()]))
    torch.testing.assert_close(*moved)


def test_negative_class_numbers_are_refused():
    with pytest.raises(InputError, match="y must be class numbers of at least 0, got -1"):
        net().fit(X, Y - 1)


def test_bad_rows():
    with pytest.raises(InputError, match="X must be finite"):
        net().fit(np.where(X > 2, np.nan, X), Y)
    with pytest.raises(ParameterError, match=r"X and y only, got \['sample_weight'\]"):
        net().fit(X, Y, sample_weight=Y)


# Precision


def test_a_training_that_was_driven_has_settled_how_it_infers():
    model, rows, codes = (
        net(precision="bfloat16").initialize(),
        ArrayRows(torch.from_numpy(X)),
        torch.tensor(Y),
    )
    model.begin(rows, codes)
    with model.drawing(0):
        model.run_epoch(rows, codes, 0)
    assert model.bfloat16_inference_ is None
    model.end(rows, codes)
    assert model.bfloat16_inference_ is not None


def test_who_drives_an_epoch_learns_that_a_callback_asks_for_the_end():
    stop = EarlyStopping("train_loss", patience=1, threshold=9.0)
    model, rows, codes = net(callbacks=[("stop", stop)]), ArrayRows(torch.from_numpy(X)), torch.from_numpy(Y)
    model.initialize()
    model.begin(rows, codes)
    answers = []
    for loss in (1.0, 1.0):
        model.notify("on_epoch_begin", dataset_train=(rows, codes), dataset_valid=None)
        model.history.record("train_loss", loss)
        answers.append(model.notify_epoch_end(rows, codes))
    assert answers == [False, True]


def test_bfloat16_inference_only_if_it_ranks_alike(monkeypatch):
    model = net(precision="bfloat16").fit(X, Y)
    model.predict_proba(X)
    assert model.bfloat16_inference_ in (True, False)
    exact = net(precision="bfloat16", random_state=0).fit(X, Y)
    monkeypatch.setattr("noisefilter.net.spearmanr", lambda a, b: type("R", (), {"statistic": 0.9}))
    probs = exact.predict_proba(X)
    assert exact.bfloat16_inference_ is False
    with exact.evaluating():
        np.testing.assert_array_equal(probs, exact._probs(exact.outputs(torch.from_numpy(X))).numpy())
    assert not net(precision="float32").fit(X, Y)._half_training()


class Evaluating(Callback):
    def on_epoch_end(self, net, **kwargs):
        net.predict_proba(X)


def test_inference_is_chosen_with_the_final_weights():
    model = net(callbacks=[Evaluating()]).fit(X, Y)
    assert model.bfloat16_inference_ is None
    model.predict_proba(X)
    assert model.bfloat16_inference_ is False


def test_evaluation_leaves_the_mode():
    model = net().fit(X, Y)
    for training in (True, False):
        model.module_.train(training)
        model.predict_proba(X)
        assert model.module_.training is training
        assert all(part.training is training for part in model.module_.modules())


def test_a_pass_after_each_epoch_records_what_the_network_says_then(blobs):
    settings = {
        "module__n_inputs": 5, "module__n_classes": 3, "max_epochs": 3, "batch_size": 32, "random_state": 0,
        "record": ("losses", "margins", "predictions", "mean_probs"),
    }  # fmt: skip
    told = Net(MLP, record_from="evaluation", **settings).fit(blobs.X, blobs.y)
    plain = Net(MLP, **settings).fit(blobs.X, blobs.y)
    probs = told.predict_proba(blobs.X)
    assert np.array_equal(probs, plain.predict_proba(blobs.X))  # the training is the same
    own = probs[np.arange(300), blobs.y]
    np.testing.assert_allclose(told.recorded_.losses[-1], -np.log(own), atol=1e-4)
    assert np.array_equal(told.recorded_.predictions[-1], probs.argmax(axis=1))
    assert not np.allclose(plain.recorded_.losses[-1], told.recorded_.losses[-1])
    with pytest.raises(ParameterError, match="record_from must be one of"):
        Net(MLP, record_from="nowhere", **settings).fit(blobs.X, blobs.y)


def test_what_is_not_finite_is_named():
    check_finite_loss(0.5)
    check_finite_outputs(np.zeros(2), np.ones((2, 3)))
    with pytest.raises(TrainingDivergedError, match=r"must stay finite, got nan\. A smaller lr= usually"):
        check_finite_loss(float("nan"))
    with pytest.raises(TrainingDivergedError, match=r"must stay finite, got inf in epoch 3\."):
        check_finite_loss(float("inf"), 2)
    for spoiled in (np.nan, -np.inf):
        with pytest.raises(TrainingDivergedError, match="must give finite outputs, got NaN or infinity"):
            check_finite_outputs(np.zeros(2), np.array([[1.0, spoiled]]))


def test_log_probabilities_of_logits_and_of_probabilities():
    logits = torch.tensor([[0.0, 2.0, -1.0], [200.0, 0.0, 0.0]])
    given = net().initialize()
    torch.testing.assert_close(given.log_probs(logits), logits.softmax(1).log().nan_to_num(neginf=-200.0))
    given = net(criterion=nn.NLLLoss).initialize()
    probs = torch.tensor([[0.25, 0.75, 0.0]])
    found = given.log_probs(probs)
    torch.testing.assert_close(found[0, :2], probs[0, :2].log())
    assert torch.isfinite(found).all()


def test_two_views_are_drawn_in_turn_or_are_one():
    x, generator = torch.zeros(5, 4), torch.Generator().manual_seed(0)
    one, other = net().initialize().two_views(x, generator)
    assert one is other is x
    jitter = net(augment=lambda x, g: x + torch.randn(x.shape, generator=g)).initialize()
    views = jitter.two_views(x, generator.manual_seed(0))
    generator.manual_seed(0)
    assert all(torch.equal(view, torch.randn(5, 4, generator=generator)) for view in views)
    assert not torch.equal(*views)


# Compiled


def test_a_compiled_net_is_the_same_net():
    """The backend runs what was traced as it is, so every bit is that of the module."""
    settings = {"record": ALL, "objective": "mixup", "module__dropout": 0.0, "module__noise": 0.0}
    plain, compiled = net(**settings), net(**settings, compile=True, compile__backend="eager")
    for each in (plain, compiled):
        each.fit(X, Y)
    for name in ALL:
        np.testing.assert_array_equal(getattr(plain.recorded_, name), getattr(compiled.recorded_, name))
    for own, other in zip(plain.evaluate(X, features=True), compiled.evaluate(X, features=True), strict=True):
        np.testing.assert_array_equal(own, other)
    assert list(plain.module_.state_dict()) == list(compiled.module_.state_dict())
    np.testing.assert_array_equal(clone(compiled).fit(X, Y).predict_proba(X), plain.predict_proba(X))


def test_compiling_runs_the_module_and_leaves_the_criterion():
    traced = []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    model = net(Softmaxed, criterion=nn.NLLLoss, compile=True, compile__backend=backend)
    expected = net(Softmaxed, criterion=nn.NLLLoss).fit(X, Y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, Y).predict_proba(X), expected)
    assert traced and type(model.criterion_) is nn.NLLLoss and type(model.module_) is Softmaxed


# What a GPU would have to be waited for


class Waits(TorchDispatchMode):
    """Counts what reads a tensor's numbers to go on: on a GPU, each is a wait."""

    n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.n += name in ("_local_scalar_dense", "nonzero", "masked_select", "bincount")
        if name in ("index", "index_put", "index_put_"):
            self.n += any(index is not None and index.dtype == torch.bool for index in args[1])
        return func(*args, **(kwargs or {}))


def small_cnn(**changes):
    sizes = {"module__n_channels": 3, "module__n_classes": 3, "module__image_size": 8}
    return net(SmallCNN, augment=CropFlip(True), batch_size=8, record=ALL, max_epochs=1, **sizes, **changes)


def pictures(n):
    return ArrayRows(torch.from_numpy(RNG.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8)), images=True)


@pytest.mark.parametrize("objective", ["cross_entropy", "cross_entropy_ne", "mixup"])
def test_more_batches_are_not_more_waits(objective):
    counted = []
    for n in (16, 48):
        with Waits() as waits:
            small_cnn(objective=objective).fit(pictures(n), np.arange(n) % 3)
        counted.append(waits.n)
    assert counted[0] == counted[1] > 0


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["cross_entropy", "cross_entropy_ne", "mixup"])
def test_a_step_does_not_wait_for_the_gpu(objective):
    data, codes = pictures(32), torch.arange(32) % 3
    rows = ArrayRows(data.data.cuda(), images=True)
    model = small_cnn(objective=objective, device="cuda").initialize()
    model.begin(rows, codes.cuda())
    steps = []

    def step():
        steps.append(torch.cuda.set_sync_debug_mode("error"))

    try:
        with pytest.raises(RuntimeError, match="synchroniz"):  # when the loss is read, after the last step
            model.run_epoch(rows, codes.cuda(), 0, bar=type("Bar", (), {"step": lambda self: step()})())
        assert len(steps) == 4
    finally:
        torch.cuda.set_sync_debug_mode("default")
