"""Whatever is trained: prototypes of every kind, and those that are refused."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, GradientNormClipping, LRScheduler
from torch import nn

from noisefilter import estimates
from noisefilter.batches import ArrayRows, picked
from noisefilter.errors import InputTypeError, ParameterError
from noisefilter.models import (
    NetModel,
    SklearnModel,
    SkorchModel,
    build_model,
    default_batch_size,
    feeds_raw,
    loading_callback,
    remembering_callback,
)
from noisefilter.net import Net
from noisefilter.networks import MLP, SevenLayerCNN, SmallCNN


@pytest.fixture(autouse=True)
def from_the_first_step(monkeypatch):
    """Let networks be known to memorize in the few steps that a test has."""
    monkeypatch.setattr(estimates, "_FIRST_STEPS", 0)


RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 4)).astype(np.float32)
Y = np.arange(50) % 3
ROWS = ArrayRows(torch.from_numpy(X))
ALL = ("losses", "margins", "predictions", "mean_probs")
CROSS_ENTROPY = {"objective": "cross_entropy", "mixup_alpha": 1.0}
MIXUP = {"objective": "mixup", "mixup_alpha": 2.0}
UNSET = {"max_epochs": None, "batch_size": None, "lr": None, "verbose": 0}


def build(estimator=None, rows=ROWS, network=None, settings=None, training=CROSS_ENTROPY, record=(), seed=0):
    return build_model(
        estimator,
        rows,
        3,
        network=network,
        settings=UNSET | (settings or {}),
        training=training,
        record=record,
        seed=seed,
    )


class Softmaxed(nn.Module):
    def __init__(self, n_outputs=3):
        super().__init__()
        self.hidden = nn.Linear(4, 5)
        self.linear = nn.Linear(5, n_outputs)

    def forward(self, x):
        return self.linear(torch.relu(self.hidden(x))).softmax(1)


class Subclass(NeuralNetClassifier):
    """A net with a loop of its own kind: it counts its steps, and draws from the global generators."""

    def train_step(self, batch, **fit_params):
        self.n_steps_ = getattr(self, "n_steps_", 0) + 1
        np.random.rand()  # noqa: NPY002
        return super().train_step(batch, **fit_params)


def prototype(kind=NeuralNetClassifier, **changes):
    return kind(Softmaxed, **({"max_epochs": 3, "verbose": 0, "lr": 0.1, "batch_size": 20} | changes))


# The default network


def test_default_network():
    model = build(record=("losses",), training=MIXUP, seed=7)
    net = model.net
    assert isinstance(model, NetModel)
    assert (net.module, net.max_epochs, net.lr, net.batch_size) == (MLP, 30, 0.05, 8)
    assert (net.lr_drops, net.lr_drop_factor) == ((0.5, 0.75), 5.0)
    assert (net.objective, net.mixup_alpha, net.record, net.random_state) == ("mixup", 2.0, ("losses",), 7)
    assert net.augment is None
    pictures = build(rows=ArrayRows(torch.zeros(50, 8, 8, 3), images=True)).net
    assert pictures.module is SmallCNN
    assert (pictures.module__n_channels, pictures.module__image_size) == (3, 8)
    assert pictures.augment.flip


def test_settings_and_network():
    rows = ArrayRows(torch.zeros(50, 8, 8, 1), images=True)
    net = build(rows=rows, network=SevenLayerCNN, settings={"max_epochs": 2, "batch_size": 5, "lr": 0.5}).net
    assert (net.module, net.max_epochs, net.batch_size, net.lr) == (SevenLayerCNN, 2, 5, 0.5)
    with pytest.raises(ParameterError, match="network must be a class, got an instance of MLP"):
        build(network=MLP(4, 3))


def test_batch_size_grows_with_the_data():
    assert [default_batch_size(n) for n in (10, 160, 2047, 2048, 10**6)] == [8, 10, 127, 128, 128]


def test_who_knows_its_input():
    assert feeds_raw(LogisticRegression())
    assert not feeds_raw(None)


# skorch's own class


class Watching(Callback):
    def on_train_begin(self, net, **kwargs):
        self.epochs = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1


def test_skorch_classifier_becomes_a_net():
    given = prototype(
        module__n_outputs=3,
        optimizer=torch.optim.Adam,
        optimizer__weight_decay=0.1,
        callbacks=[("watching", Watching())],
        callbacks__valid_acc=None,
        callbacks__print_log__sink=print,
        iterator_train__shuffle=True,
    )
    before = {k: v for k, v in given.get_params().items() if isinstance(v, int | float | str | type | None)}
    model = build(given, record=ALL, training=MIXUP, seed=5)
    net = model.net
    assert type(net) is Net
    assert (net.module, net.max_epochs, net.lr, net.batch_size, net.module__n_outputs) == (
        Softmaxed,
        3,
        0.1,
        20,
        3,
    )
    assert (net.criterion, net.optimizer, net.optimizer__weight_decay) == (nn.NLLLoss, torch.optim.Adam, 0.1)
    assert (net.train_split, net.objective, net.mixup_alpha, net.random_state) == (None, "mixup", 2.0, 5)
    recorded = model.train(ROWS, Y, 3)
    assert recorded.losses.shape == (3, 50)  # all rows: nothing was held out
    assert dict(net.callbacks_)["watching"].epochs == 3
    assert given.train_split is not None
    assert before == {k: v for k, v in given.get_params().items() if k in before}
    assert net.callbacks[0][1] is not given.callbacks[0][1]


def test_a_callback_keeps_its_parameters():
    given = prototype(callbacks=[("rate", LRScheduler("StepLR", step_size=9))], callbacks__rate__step_size=1)
    model = build(given)
    model.train(ROWS, Y, 3)
    assert model.net.optimizer_.param_groups[0]["lr"] == pytest.approx(0.1 * 0.1**3)


def test_a_fitted_prototype_gives_away_nothing():
    fresh, fitted = prototype(), prototype(train_split=None).fit(X, Y)
    a, b = build(fresh), build(fitted)
    for model in (a, b):
        model.train(ROWS, Y, 3)
    np.testing.assert_array_equal(a.evaluate(ROWS, False)[0], b.evaluate(ROWS, False)[0])


def test_net_prototype():
    given = Net(
        MLP, module__n_inputs=4, module__n_classes=3, record=("losses",), max_epochs=2, objective="mixup"
    )
    model = build(given, record=("mean_probs",), seed=9)
    assert model.net is not given
    assert set(model.net.record) == {"losses", "mean_probs"}
    assert (model.net.random_state, model.net.objective) == (9, "mixup")
    assert given.record == ("losses",)
    assert build(Net(MLP, random_state=1)).net.random_state == 1
    assert build(Net(MLP), training=MIXUP).net.mixup_alpha == 2.0
    cycles = CROSS_ENTROPY | {"schedule": "cyclical", "n_cycles": 2, "cycle_epochs": 4}
    cyclical = build(given, training=cycles).net
    assert (cyclical.schedule, cyclical.n_cycles, cyclical.cycle_epochs) == ("cyclical", 2, 4)
    assert cyclical.objective == "mixup"  # of the user's own
    own = Net(MLP, schedule="cyclical", n_cycles=5)
    assert build(own, training=cycles | {"schedule": "steps"}).net.n_cycles == 5


# A subclass


@pytest.mark.parametrize(
    "callbacks", [None, "disable", [("watching", Watching())]], ids=["none", "disable", "own"]
)
def test_subclass_is_trained_as_it_is_and_recorded(callbacks):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(2), np.random.rand(2)  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    model = build(prototype(Subclass, callbacks=callbacks), record=ALL)
    assert isinstance(model, SkorchModel)
    recorded = model.train(ROWS, Y, 3)
    assert torch.equal(torch.rand(2), expected[0])
    np.testing.assert_array_equal(np.random.rand(2), expected[1])  # noqa: NPY002
    assert model.net.n_steps_ == 3 * 3
    probs, features = model.evaluate(ROWS, True)
    given = probs[np.arange(50), Y]
    others = np.where(np.eye(3, dtype=bool)[Y], 0, probs).max(axis=1)
    np.testing.assert_allclose(recorded.losses[-1], -np.log(given), rtol=1e-4)
    np.testing.assert_allclose(recorded.margins[-1], np.log(given / others), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(recorded.predictions[-1], probs.argmax(axis=1))
    assert recorded.learning_rates.tolist() == [0.1] * 3
    hidden = torch.relu(model.net.module_.hidden(ROWS.data)).detach()
    np.testing.assert_allclose(features, hidden, rtol=1e-6)
    assert recorded.mean_probs.shape == (50, 3)
    assert recorded.losses[0].mean() > recorded.losses[-1].mean()
    assert type(model.net.callbacks) is type(callbacks)
    assert "noisefilter" not in str(model.net.callbacks)
    # Two rows: a batch that skorch must not take for (X, y).
    np.testing.assert_allclose(model.predict_batch(ROWS.data[:2]), probs[:2], rtol=1e-6)


def test_subclass_is_seeded():
    first, again, other = (build(prototype(Subclass), seed=s) for s in (3, 3, 4))
    for model in (first, again, other):
        model.train(ROWS, Y, 3)
    probs = [model.evaluate(ROWS, False)[0] for model in (first, again, other)]
    np.testing.assert_array_equal(probs[0], probs[1])
    assert not np.array_equal(probs[0], probs[2])


def planted_net(**changes):
    """Return a wide network that learns anything by heart, rows, labels without sense, and planted rows."""
    rng = np.random.default_rng(0)
    rows, codes = (
        ArrayRows(torch.from_numpy(rng.normal(size=(120, 20)).astype(np.float32))),
        rng.integers(3, size=120),
    )
    sizes = {"module__n_inputs": 20, "module__n_classes": 3, "module__hidden": (256,), "module__dropout": 0.0,
             "module__noise": 0.0}  # fmt: skip
    settings = {"max_epochs": 30, "batch_size": 16, "lr": 0.02, "record": ("mean_probs",), "random_state": 0}
    return Net(MLP, **sizes, **settings | changes), rows, codes, np.arange(0, 120, 3)


def test_where_planted_labels_are_known_only_the_epochs_before_are_trained():
    net, rows, codes, planted = planted_net()
    taken = []

    class Counting(Callback):
        def on_epoch_end(self, net, **kwargs):
            predicted = net.predict_proba(rows.take(torch.arange(120))).argmax(axis=1)
            taken.append(estimates.known_by_heart(predicted, codes, planted, 3))

    net.callbacks = [("counting", Counting())]
    model = NetModel(net)
    recorded = model.train_unmemorized(rows, codes, 3, planted)
    first = next(k + 1 for k, known in enumerate(taken) if known > estimates.BY_HEART)
    assert 1 < first < 30 and net.max_epochs == first - 1
    assert len(taken) == first + first - 1  # up to that epoch, and once more without it
    assert [name for name, _ in net.callbacks_] == ["counting"]
    again = NetModel(planted_net(max_epochs=first - 1)[0])
    expected = again.train(rows, codes, 3)
    np.testing.assert_array_equal(recorded.mean_probs, expected.mean_probs)
    np.testing.assert_array_equal(model.evaluate(rows, False)[0], again.evaluate(rows, False)[0])


def test_known_after_one_epoch_one_epoch_is_trained(monkeypatch):
    monkeypatch.setattr(estimates, "BY_HEART", -2.0)
    net, rows, codes, planted = planted_net()
    assert NetModel(net).train_unmemorized(rows, codes, 3, planted) is not None and net.max_epochs == 1


def test_looking_at_planted_labels_changes_no_bit():
    net, rows, codes, planted = planted_net(lr=1e-4)
    other = planted_net(lr=1e-4)[0]
    watched = NetModel(net).train_unmemorized(rows, codes, 3, planted)
    np.testing.assert_array_equal(watched.mean_probs, NetModel(other).train(rows, codes, 3).mean_probs)
    assert net.max_epochs == 30 and net.callbacks is None and net.callbacks_ == []


def test_early_stopping_of_the_user_s_own_still_ends_a_training():
    stopping = EarlyStopping(monitor="train_loss", patience=2, threshold=9.0)
    net, rows, codes, planted = planted_net(lr=1e-4, callbacks=[("stop", stopping)])
    NetModel(net).train_unmemorized(rows, codes, 3, planted)
    assert len(net.history) < 30 and net.max_epochs == 30


def test_subclass_that_stops_early():
    stop = EarlyStopping("train_loss", patience=1, threshold=10.0, sink=lambda _: None)
    model = build(prototype(Subclass, max_epochs=9, callbacks=[stop]), record=ALL)
    recorded = model.train(ROWS, Y, 3)
    assert len(recorded.learning_rates) == len(recorded.losses) < 9
    assert recorded.mean_probs is None


# Any classifier


def test_sklearn_classifier():
    given = RandomForestClassifier(5)
    model = build(given, record=ALL, seed=11)
    assert isinstance(model, SklearnModel)
    assert model.train(ROWS, Y, 3) is None
    assert not hasattr(given, "classes_")
    probs, features = model.evaluate(ROWS, True)
    np.testing.assert_array_equal(
        probs, RandomForestClassifier(5, random_state=11).fit(X, Y).predict_proba(X)
    )
    np.testing.assert_allclose(features, StandardScaler().fit_transform(X), rtol=1e-4, atol=1e-5)
    assert model.evaluate(ROWS, False)[1] is None


def test_features_of_new_rows_are_on_the_scale_of_training():
    model = build(LogisticRegression())
    model.train(ROWS, Y, 3)
    some = picked(ROWS, np.array([4, 2]))
    np.testing.assert_allclose(model.evaluate(some, True)[1], model.evaluate(ROWS, True)[1][[4, 2]])


def test_images_are_flattened_and_constants_only_centered():
    images = RNG.integers(0, 256, (50, 2, 2)).astype(np.uint8)
    images[:, 0, 0] = 9
    model = build(LogisticRegression(max_iter=1000), rows=ArrayRows(torch.from_numpy(images)))
    model.train(ArrayRows(torch.from_numpy(images)), Y, 3)
    probs, features = model.evaluate(ArrayRows(torch.from_numpy(images)), True)
    assert probs.shape == (50, 3)
    assert (features[:, 0] == 0).all()
    np.testing.assert_allclose(features[:, 1:].std(axis=0), 1, rtol=1e-5)


def test_a_class_that_is_missing_has_probability_zero():
    model = build(LogisticRegression())
    codes = np.where(Y == 1, 0, Y)
    model.train(ROWS, codes, 3)
    probs = model.evaluate(ROWS, False)[0]
    assert (probs[:, 1] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1)


def test_nested_states_are_seeded_too_and_given_ones_kept():
    model = build(make_pipeline(StandardScaler(), RandomForestClassifier(3)), seed=4)
    assert model.classifier[-1].random_state == 4
    assert build(RandomForestClassifier(random_state=8)).classifier.random_state == 8


class Random(LogisticRegression):
    def fit(self, X, y):
        np.random.rand()  # noqa: NPY002
        return super().fit(X, y)


def test_global_generator_is_left_alone():
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    build(Random()).train(ROWS, Y, 3)
    assert np.random.rand() == expected  # noqa: NPY002


# Refusals


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"estimator": Net(MLP), "settings": {"max_epochs": 3}},
            ParameterError,
            "max_epochs must be None.*got 3",
        ),
        ({"estimator": Net(MLP), "settings": {"batch_size": 3}}, ParameterError, "batch_size must be None"),
        ({"estimator": Net(MLP), "settings": {"lr": 3}}, ParameterError, "lr must be None"),
        ({"estimator": Net(MLP), "network": MLP}, ParameterError, "network must be None"),
        (
            {"estimator": RandomForestClassifier},
            InputTypeError,
            "an instance, got the class RandomForestClassifier",
        ),
        ({"estimator": RidgeClassifier()}, InputTypeError, "have predict_proba, got RidgeClassifier"),
        (
            {"estimator": LogisticRegression(), "training": MIXUP},
            ParameterError,
            "with LogisticRegression.*'mixup'",
        ),
        ({"estimator": prototype(Subclass), "training": MIXUP}, ParameterError, "with Subclass.*'mixup'"),
        (
            {"estimator": prototype(Subclass), "training": CROSS_ENTROPY | {"schedule": "cyclical"}},
            ParameterError,
            "schedule must be 'steps' with Subclass.*'cyclical'",
        ),
        (
            {"estimator": NeuralNetClassifier(Softmaxed())},
            ParameterError,
            "a class, got an instance of Softmaxed",
        ),
        ({"estimator": Net(Softmaxed())}, ParameterError, "a class, got an instance of Softmaxed"),
    ],
)
def test_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        build(**arguments)


@pytest.mark.parametrize("kind", [NeuralNetClassifier, Subclass, Net])
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"callbacks": [EarlyStopping()]}, "EarlyStopping on 'valid_loss'"),
        ({"callbacks": [("stop", EarlyStopping)]}, "EarlyStopping on 'valid_loss'"),
        ({"callbacks": [EarlyStopping]}, "EarlyStopping on 'valid_loss'"),
        ({"callbacks": [("point", Checkpoint())]}, "Checkpoint on 'valid_loss_best'"),
        (
            {"callbacks": [LRScheduler("ReduceLROnPlateau", monitor="valid_acc")]},
            "LRScheduler on 'valid_acc'",
        ),
        (
            {"callbacks": [("stop", EarlyStopping("train_loss"))], "callbacks__stop__monitor": "valid_acc"},
            "'valid_acc'",
        ),
    ],
)
def test_callbacks_that_need_held_out_rows_are_refused(kind, changes, name):
    with pytest.raises(ParameterError, match=f"must not monitor validation scores, got .*{name}"):
        build(prototype(kind, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"callbacks": [EarlyStopping("train_loss")]},
        {"callbacks": "disable"},
        {"callbacks": None},
        {"callbacks": [("stop", EarlyStopping())], "callbacks__stop__monitor": "train_loss"},
    ],
    ids=["train_loss", "disable", "none", "by parameter"],
)
def test_other_callbacks_are_welcome(changes):
    build(prototype(**changes)).train(ROWS, Y, 3)


@pytest.mark.parametrize("kind", [NeuralNetClassifier, Subclass])
def test_too_many_outputs(kind):
    with pytest.raises(ParameterError, match=r"one output per class \(3\), got 4"):
        build(prototype(kind, module__n_outputs=4), record=("losses",)).train(ROWS, Y, 3)


# Memory of callbacks


@pytest.mark.parametrize(
    ("callbacks", "later", "name"),
    [
        (None, {}, None),
        ("disable", {}, None),
        ([GradientNormClipping(1.0), ("clip", GradientNormClipping)], {}, None),
        ([GradientNormClipping(1.0), LRScheduler], {}, "LRScheduler"),
        ([("rate", LRScheduler())], {"callbacks__rate": None}, None),
        ([("clip", GradientNormClipping(1.0))], {"callbacks__clip": EarlyStopping()}, "EarlyStopping"),
        ([("own", type("OwnClipping", (GradientNormClipping,), {})())], {}, "OwnClipping"),
    ],
)
def test_a_callback_that_may_remember_something_is_named(callbacks, later, name):
    assert remembering_callback(prototype(callbacks=callbacks, **later)) == name


def test_what_has_no_callbacks_remembers_nothing():
    assert remembering_callback(None) is None and remembering_callback(LogisticRegression()) is None


@pytest.mark.parametrize(
    ("callbacks", "later", "name"),
    [
        ([EarlyStopping("train_loss")], {}, None),
        ([EarlyStopping("train_loss", load_best=True)], {}, "EarlyStopping"),
        ([("stop", EarlyStopping("train_loss"))], {"callbacks__stop__load_best": True}, "EarlyStopping"),
        ([("stop", EarlyStopping("train_loss", load_best=True))], {"callbacks__stop": None}, None),
        ([EarlyStopping], {"callbacks__EarlyStopping__load_best": True}, "EarlyStopping"),
        ([GradientNormClipping, ("last", Checkpoint("train_loss", load_best=True))], {}, "Checkpoint"),
        (None, {}, None),
        ("disable", {}, None),
    ],
)
def test_callbacks_that_put_back_earlier_weights_are_found(callbacks, later, name):
    assert loading_callback(prototype(callbacks=callbacks, **later)) == name
    assert loading_callback(LogisticRegression()) is None


# The device


@pytest.mark.parametrize("kind", [NeuralNetClassifier, Net, Subclass])
@pytest.mark.parametrize("own", ["cuda:7", "cpu", None])
def test_a_prototype_goes_where_the_rows_are(kind, own):
    given = prototype(kind, device=own)
    model = build(given)
    assert model.net.device == "cpu" and given.device == own
    model.train(ROWS, Y, 3)
    elsewhere = ArrayRows(torch.empty((50, 4), device="meta"))
    assert build(given, rows=elsewhere).net.device == "meta"


def test_a_step_of_the_optimizer_is_one_kernel_where_it_pays_and_the_same_step():
    assert build().net.optimizer__fused is True
    pictures = ArrayRows(torch.zeros((50, 8, 8, 1)), images=True)
    assert build(rows=pictures).net.optimizer__fused is None
    there = ArrayRows(torch.empty((50, 4), device="meta"))
    there.device = torch.device("cuda")
    assert build(rows=there).net.optimizer__fused is True
    probs = []
    for fused in (None, True):  # torch has the kernel for CPUs, too
        model = build(settings={"max_epochs": 3})
        model.net.set_params(optimizer__fused=fused)
        model.train(ROWS, Y, 3)
        probs.append(model.evaluate(ROWS, False)[0])
    np.testing.assert_allclose(probs[0], probs[1], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [NeuralNetClassifier, Net, Subclass])
def test_a_prototype_that_names_no_device_is_trained_on_the_gpu(kind):
    rows = ArrayRows(ROWS.data.cuda())
    model = build(prototype(kind), rows=rows, record=ALL)
    model.train(rows, Y, 3)
    assert next(model.net.module_.parameters()).is_cuda
    assert np.isfinite(model.evaluate(rows, True)[0]).all()
