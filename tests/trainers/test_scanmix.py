"""ScanMix: the divisions of DivideMix, SCAN behind every epoch, pre-training, going on from a state."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import noisefilter.clustered as clustered
from noisefilter import DivideMixClassifier, INNScorer, ScanMixClassifier, estimates, plant_noise
from noisefilter.batches import ArrayRows
from noisefilter.pretrain import Clusters, encoded, last_linear, neighbor_sets

N, K = 120, 4


@pytest.fixture(autouse=True, scope="module")
def from_the_first_step():
    """Let networks be known to memorize in the few steps that a test has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "_FIRST_STEPS", 0)
        yield


class Bar:
    """A progress bar that is told nothing."""

    def step(self, cost=1.0):
        pass


def training(kind=ScanMixClassifier, seed=0, images=False, **parameters):
    """A ScanMix about to start on rows of four blobs, or pictures, a third of which have another label."""
    rng = np.random.default_rng(seed)
    truth = np.arange(N) % K
    codes = np.where(rng.random(N) < 1 / 3, (truth + rng.integers(1, K, size=N)) % K, truth)
    X = (rng.normal(size=(N, 4)) + 3 * np.eye(K)[truth]).astype(np.float32)
    if images:
        X = np.repeat(X, 16, axis=1).reshape(N, 1, 8, 8)
    settings = {"max_epochs": 5, "warmup_epochs": 2, "probes": 0.0, "least_epochs": 0}
    trainer = kind(**settings | parameters)
    trainer._check_parameters()
    return trainer._begin(ArrayRows(torch.from_numpy(X)), codes, K, None, None, np.random.RandomState(seed))


def test_without_scan_it_is_dividemix(monkeypatch):
    monkeypatch.setattr(clustered, "scan_epoch", lambda *args, **settings: {"loss": 1.0})
    own, other = training(), training(DivideMixClassifier)
    for epoch in range(5):
        record = own.run_epoch(epoch, Bar())
        assert record.pop("scan_loss", None) == (1.0 if epoch >= 2 else None)
        assert record == other.run_epoch(epoch, Bar())
    assert own.judged().scores.tobytes() == other.judged().scores.tobytes()


@pytest.mark.parametrize(
    ("scan_lr", "rate", "expected"),
    # Of four classes, symmetric 0.59 and 0.61 of the papers, as shares of wrong labels.
    [("auto", 0.44, 1e-5), ("auto", 0.46, 1e-3), (0.01, 0.1, 0.01), (0.01, 0.7, 0.01)],
)
def test_neighbors_are_told_alike_faster_where_most_labels_are_wrong(monkeypatch, scan_lr, rate, expected):
    run = training(scan_lr=scan_lr, n_neighbors=7, scan_entropy=3.0)
    for epoch in range(2):
        run.run_epoch(epoch, Bar())
    asked = []

    def scanned(net, rows, neighbors, generator, **settings):
        asked.append((run.nets.index(net), neighbors.shape, settings))
        return {"loss": 1.5}

    monkeypatch.setattr(clustered, "scan_epoch", scanned)
    run.rate, before = rate, run.predictions[:, -1].copy()
    assert run.run_epoch(2, Bar())["scan_loss"] == 1.5
    assert [which for which, *_ in asked] == [0, 1]
    for which, shape, settings in asked:
        assert shape == (N, 7) and settings["lr"] == expected and settings["entropy_weight"] == 3.0
        assert np.array_equal(settings["predictions"], before[1 - which])
    run.predicted[:] = 1  # all rows in one class
    assert run.run_epoch(3, Bar())["scan_loss"] is None and len(asked) == 2


def test_with_pre_training_networks_begin_at_clusters_and_warm_up_their_last_layer(monkeypatch):
    seen = {}

    def clusters(net, rows, neighbors, *, weights, **settings):
        seen["weights"], seen["neighbors"] = weights, neighbors
        probs = np.eye(K, dtype=np.float32)[np.arange(N) % K]
        return Clusters({name: tensor * 2 for name, tensor in weights.items()}, probs, 1.0)

    monkeypatch.setattr(clustered, "scan_weights", clusters)
    run = training(images=True, pretrain="simclr", pretrain_epochs=1)
    run.run_epoch(0, Bar())
    near = neighbor_sets(encoded(run.nets[0], run.rows, seen["weights"]))
    assert np.array_equal(seen["neighbors"], near) and np.array_equal(run.neighbors, near)
    for net in run.nets:
        name, _ = last_linear(net, run.rows)
        for key, value in net.module_.named_parameters():
            assert torch.equal(value, 2 * seen["weights"][key]) is not key.startswith(name), key


def test_networks_that_go_back_take_their_predictions_along():
    run = training()
    run.run_epoch(0, Bar())
    earlier = run._snapshot()
    run.predictions[:], run.predicted[:] = -1, -1
    run._go_back(*earlier)
    assert (run.predictions >= 0).all() and (run.predicted >= 0).all()


def ended(run, start):
    records = [run.run_epoch(epoch, Bar()) for epoch in range(start, 5)]
    return json.dumps(records), run.predict(run.rows).tobytes(), run.judged().scores.tobytes()


def test_a_training_goes_on_from_its_state_with_the_same_bits():
    run = training(scan_lr=0.01)
    for epoch in range(3):
        run.run_epoch(epoch, Bar())
    tensors, rest = run.state()
    tensors, rest = {name: torch.as_tensor(each).clone() for name, each in tensors.items()}, json.dumps(rest)
    whole = ended(run, 3)
    again = training(scan_lr=0.01)
    again.load_state(tensors, json.loads(rest))
    assert ended(again, 3) == whole
    other = training(scan_lr=0.01)
    other.load_state(
        {name: each for name, each in tensors.items() if name != "own.neighbors"}, json.loads(rest)
    )
    assert ended(other, 3) != whole  # it looks for neighbors in what the networks know by now


class Averages(torch.nn.Module):
    """A network without a linear layer."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(n_inputs, n_classes))

    def forward(self, x):
        return x @ self.weight


def test_a_network_without_features_is_named_before_it_is_trained():
    with pytest.raises(ValueError, match="feature_layer must name a submodule of Averages"):
        training(network=Averages)


@pytest.fixture(scope="module")
def digits():
    X, truth = load_digits(return_X_y=True)
    X, truth = X[:500].astype(np.float32), truth[:500]
    return X, truth, plant_noise(truth, "symmetric", 0.4, random_state=0)[0]


def test_as_long_as_a_verdict_is_held_there_is_no_scan(digits):
    X, truth, y = digits
    model = ScanMixClassifier(
        max_epochs=12, warmup_epochs=3, filter=INNScorer(max_epochs=5), split_epochs=4, random_state=0
    )
    history = model.fit(X, y, features=X).history_
    assert ["scan_loss" in each for each in history] == [False] * 7 + [True] * 5
    assert model.score(X, truth) > 0.9


def test_as_published_spells_out_the_paper():
    published = ScanMixClassifier.as_published(unlabeled_weight=50.0).get_params()
    wanted = {
        "max_epochs": 300, "warmup_epochs": 10, "batch_size": 128, "lr": 0.02, "pretrain": "simclr",
        "pretrain_epochs": 500, "n_neighbors": 20, "scan_lr": "auto", "scan_entropy": 5.0, "probes": 0.0,
        "mixup_alpha": 4.0, "unlabeled_weight": 50.0, "weight_average": None,
    }  # fmt: skip
    assert {name: published[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scan_lr": 0}, "scan_lr must be 'auto' or greater than 0 and finite, got 0"),
        ({"scan_lr": "slow"}, "scan_lr must be 'auto' or greater than 0 and finite, got 'slow'"),
        ({"scan_entropy": -1}, "scan_entropy must be at least 0 and finite, got -1"),
        ({"n_neighbors": 0}, "n_neighbors must be a whole number of at least 1, got 0"),
        ({"pretrain": "magic"}, "pretrain must be 'simclr' or None, got 'magic'"),
        ({"pretrain": "simclr"}, "pretrain must be None where rows are no images"),
    ],
)
def test_bad_parameters(digits, parameters, message):
    X, _, y = digits
    with pytest.raises(ValueError, match=message):
        ScanMixClassifier(**parameters).fit(X, y)
