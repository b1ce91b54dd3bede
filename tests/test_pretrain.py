"""SimCLR, neighbor sets and SCAN: against the formulas, to the same bits, and learning something."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from noisefilter import Net, losses, pretrain
from noisefilter.augment import CropFlip
from noisefilter.batches import ArrayRows, count_batches, shuffled
from noisefilter.errors import InputError, InputTypeError, ParameterError, TrainingDivergedError
from noisefilter.pretrain import (
    LinearNetwork,
    cluster_entropy,
    encoded,
    matched_clusters,
    neighbor_sets,
    predicted,
    reordered,
    scan_epoch,
    scan_weights,
    simclr_weights,
    untrained_net,
)

CPU = torch.device("cpu")


def textures(n=40, size=8, seed=0):
    """Color pictures of bytes."""
    rng = np.random.default_rng(seed)
    return ArrayRows(torch.from_numpy(rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8)), images=True)


def table(n=200, k=3, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % k
    x = rng.normal(size=(n, 6)) + 8 * np.eye(k, 6)[codes]
    return ArrayRows(torch.from_numpy(x)), codes


def net_for(rows, n_outputs=3, network=None, seed=0):
    return untrained_net(None, network, rows, n_outputs, seed)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- SimCLR ---------------------------------------------------------------------------------------


def test_what_views_change_is_forgotten_and_what_they_keep_is_kept():
    rng = np.random.default_rng(0)
    kept = rng.normal(size=(120, 5))

    def views(x, generator):  # columns from the sixth on are another row's
        order = torch.randperm(len(x), generator=generator)
        return torch.cat([x[:, :5], x[order, 5:]], dim=1)

    rows, others = (
        ArrayRows(torch.from_numpy(np.hstack([kept, 2 * rng.normal(size=(120, 15))]))) for _ in range(2)
    )
    net = untrained_net(Net(TwoHeads, module__n_inputs=20), None, rows, 3, 0)
    weights = simclr_weights(net, rows, epochs=30, seed=0, batch_size=30, lr=0.1, views=views)

    def found_again(weights):
        features = [encoded(net, part, weights) for part in (rows, others)]
        first, second = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in features)
        return ((first @ second.T).argmax(axis=1) == np.arange(120)).mean()

    assert found_again(None) < 0.05 and found_again(weights) > 0.15


def test_the_net_and_the_global_generators_stay_as_they_were():
    rows = textures(40)
    net = net_for(rows)
    before = copy.deepcopy(net.module_.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    weights = simclr_weights(net, rows, epochs=1, seed=0)
    assert same(net.module_.state_dict(), before) and not same(weights, before)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    for name in ("head.weight", "head.bias"):  # the last layer has nothing to learn
        assert torch.equal(weights[name], before[name])
    net.module_.load_state_dict(weights)
    assert same(simclr_weights(net_for(rows), rows, epochs=1, seed=0), weights)
    assert not same(simclr_weights(net_for(rows), rows, epochs=1, seed=1), weights)


def test_a_step_is_the_gradient_of_nt_xent_of_the_projections():
    rows = textures(10)
    net = net_for(rows)
    net.set_params(precision="float32")
    start = torch.arange(10)
    course = pretrain._Contrast(
        net, rows, epochs=2, seed=3, batch_size=10, lr=0.1, temperature=0.2, weight_decay=0.01,
        views=lambda x, generator: x.float() + torch.rand(x.shape, generator=generator),
    )  # fmt: skip
    module, projection = copy.deepcopy(course.module), copy.deepcopy(course.projection)
    generator = torch.Generator().manual_seed(5)
    index = shuffled(10, 10, generator)[0]
    assert sorted(index.tolist()) == start.tolist()
    x = rows.take(index).float()
    views = [x + torch.rand(x.shape, generator=generator) for _ in range(2)]
    module.train()
    features = module.body(module.standardize(torch.cat(views)))
    first, second = projection(features).chunk(2)
    losses.nt_xent(first, second, 0.2).backward()
    course.module.train()
    course.run_epoch(torch.Generator().manual_seed(5), pretrain.Progress("", 1, False))
    for own, other in zip(course.projection.parameters(), projection.parameters(), strict=True):
        expected = other - 0.1 * (other.grad + 0.01 * other)
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-3)
    own, other = course.module.body[0][0].weight, module.body[0][0].weight
    torch.testing.assert_close(own, other - 0.1 * (other.grad + 0.01 * other), atol=1e-5, rtol=1e-3)


def test_a_contrast_beside_another_training_is_the_weighted_gradient_of_nt_xent():
    rows = textures(10)
    net = net_for(rows)
    net.set_params(precision="float32")
    contrast = pretrain.Contrast(net, rows, weight=0.3, temperature=0.2, seed=1)
    contrast.begin(0.1)
    module, projection = copy.deepcopy(net.module_).train(), copy.deepcopy(contrast.projection)
    x = rows.take(torch.arange(10)).float()
    views = x, x + torch.rand(x.shape)
    first, second = projection(module.body(module.standardize(torch.cat(views)))).chunk(2)
    expected = losses.nt_xent(first, second, 0.2)
    (0.3 * expected).backward()
    net.module_.train()
    found = contrast.loss(net, views)
    found.backward()
    torch.testing.assert_close(found, 0.3 * expected, rtol=1e-4, atol=1e-6)
    assert contrast.mean_loss() == pytest.approx(float(expected.detach()), rel=1e-4)
    own, other = net.module_.body[0][0].weight.grad, module.body[0][0].weight.grad
    torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-3)
    contrast.step()
    for own, other in zip(contrast.projection.parameters(), projection.parameters(), strict=True):
        torch.testing.assert_close(own, other - 0.1 * (other.grad + 5e-4 * other), atol=1e-6, rtol=1e-3)
        assert own.grad is None
    contrast.begin(0.01)
    assert contrast.mean_loss() is None and contrast.optimizer.param_groups[0]["lr"] == 0.01


def test_the_last_layer_of_a_compiled_network_is_found():
    rows = textures(4)
    net = net_for(rows)
    net.module_.compile(backend="eager")
    net.predict_batch(rows.take(torch.arange(1)))
    name, layer = pretrain.last_linear(net, rows)
    assert layer is dict(net.module_.named_modules())[name] and net.module_._compiled_call_impl is not None


def test_the_projection_is_as_wide_as_the_features_and_the_rate_falls_along_a_cosine():
    rows = textures(10)
    course = pretrain._Contrast(
        net_for(rows), rows, epochs=5, seed=0, batch_size=4, lr=0.4, temperature=0.1, weight_decay=0.0,
        views=lambda x, generator: x,
    )  # fmt: skip
    assert [layer.weight.shape for layer in course.projection if hasattr(layer, "weight")] == [
        (128, 128),
        (128, 128),
    ]
    low = 0.4 * 0.1**3
    expected = [low + (0.4 - low) * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]
    assert [course.learning_rate(epoch) for epoch in range(5)] == pytest.approx(expected)


class Interrupted(Exception):
    pass


class Views:
    """Views that can be interrupted; where they are is no part of a training."""

    left = 10**9

    def __call__(self, x, generator):
        if Views.left <= 0:
            raise Interrupted
        Views.left -= 1
        return x.float() + 9 * torch.randn(x.shape, generator=generator)


def run_interrupted(train, calls, monkeypatch):
    monkeypatch.setattr(Views, "left", calls)
    with pytest.raises(Interrupted):
        train()
    monkeypatch.setattr(Views, "left", 10**9)
    return train()


def test_an_interrupted_contrast_is_taken_up_again_with_the_same_bits(tmp_path, monkeypatch):
    rows = textures(24)

    def train(folder, **changes):
        settings = {"epochs": 4, "seed": 0, "batch_size": 8, "views": Views()} | changes
        return simclr_weights(net_for(rows), rows, checkpoint_dir=folder, **settings)

    whole = train(None)
    resumed = run_interrupted(lambda: train(tmp_path), 2 * 3 * 2 + 3, monkeypatch)
    assert same(whole, resumed)
    monkeypatch.setattr(Views, "left", 0)
    assert same(train(tmp_path), whole)  # it has ended, and is read back
    for changes in ({"epochs": 5}, {"seed": 1}, {"lr": 0.1}, {"views": CropFlip(True)}):
        with pytest.raises(ParameterError, match="checkpoint_dir must hold checkpoints of this same"):
            train(tmp_path, **changes)
    with pytest.raises(ParameterError, match="initial weights"):
        simclr_weights(
            net_for(rows, seed=1),
            rows,
            epochs=4,
            seed=0,
            batch_size=8,
            views=Views(),
            checkpoint_dir=tmp_path,
        )


class TwoHeads(nn.Module):
    """A module of a user's own: of two linear layers the last to run is the first that it lists."""

    def __init__(self, n_inputs=6, dropout=0.1):
        super().__init__()
        self.last = nn.Linear(32, 3)
        self.first = nn.Linear(n_inputs, 32)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return self.last(self.drop(torch.relu(self.first(x.float()))))


class NoLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return x.float()[:, :3] * self.scale


def test_a_module_of_ones_own_and_rows_with_ones_own_views():
    rows, _ = table()
    net = untrained_net(Net(TwoHeads, lr=0.1), None, rows, 3, 0)

    def views(x, generator):
        return x + torch.randn(x.shape, generator=generator, dtype=x.dtype)

    weights = simclr_weights(net, rows, epochs=2, seed=0, views=views)
    assert torch.equal(weights["last.weight"], net.module_.last.weight)
    assert not torch.equal(weights["first.weight"], net.module_.first.weight)
    assert same(weights, simclr_weights(net, rows, epochs=2, seed=0, views=views))  # dropout is seeded
    features = encoded(net, rows, weights)
    layer = nn.functional.linear(rows.data.float(), weights["first.weight"], weights["first.bias"])
    np.testing.assert_allclose(features, torch.relu(layer), atol=1e-5)
    with pytest.raises(ParameterError, match=r"network must have a linear layer, .* got NoLinear"):
        simclr_weights(untrained_net(Net(NoLinear), None, rows, 3, 0), rows, epochs=1, seed=0, views=views)


def test_statistics_are_of_the_rows_and_weights_are_loaded_strictly():
    rows = textures(20)
    net = net_for(rows)
    weights = simclr_weights(net, rows, epochs=1, seed=0)
    mean = rows.data.double().mean((0, 1, 2))
    torch.testing.assert_close(weights["standardize.mean"].flatten(), mean)
    with pytest.raises(RuntimeError, match="size mismatch"):
        encoded(net_for(rows, n_outputs=5), rows, weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 1}, "batch_size must be at least 2, got 1"),
        ({"lr": 0.0}, "lr must be greater than 0 and finite, got 0.0"),
        ({"weight_decay": -1}, "weight_decay must be at least 0, got -1"),
        ({"temperature": 0}, "temperature must be greater than 0, got 0"),
    ],
)
def test_numbers_out_of_range(changes, message):
    rows = textures(8)
    with pytest.raises(ParameterError, match=message):
        simclr_weights(net_for(rows), rows, **{"epochs": 1, "seed": 0} | changes)


def test_a_training_that_diverges_is_named(monkeypatch):
    rows = textures(8)
    monkeypatch.setattr(losses, "nt_xent", lambda first, *_: first.sum() * torch.nan)
    with pytest.raises(TrainingDivergedError, match="loss must stay finite, got nan"):
        simclr_weights(net_for(rows), rows, epochs=1, seed=0)
    with pytest.raises(InputError, match="at least 2 rows"):
        simclr_weights(net_for(rows), textures(1), epochs=1, seed=0)
    with pytest.raises(InputError, match="X must be images"):
        simclr_weights(net_for(table()[0]), table()[0], epochs=1, seed=0)


def test_a_classifier_that_is_no_network_is_refused():
    from sklearn.linear_model import LogisticRegression

    with pytest.raises(InputTypeError, match="estimator must be a skorch NeuralNetClassifier"):
        untrained_net(LogisticRegression(), None, table()[0], 3, 0)


# --- neighbors ------------------------------------------------------------------------------------


def test_neighbors_are_the_most_alike_by_cosine():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4)) * rng.uniform(0.1, 50, size=(60, 1)) + 0.3
    features[7] = 0.0
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-300)
    found = neighbor_sets(features, 5)
    for i in [i for i in range(60) if i != 7]:
        alike = unit @ unit[i]
        others = [j for j in np.argsort(-alike, kind="stable") if j not in (i, 7)]
        assert [j for j in found[i].tolist() if j != 7][:4] == others[:4]
    assert found.shape == (60, 5) and (found != np.arange(60)[:, None]).all()
    assert (found[7] >= 0).all()


def test_neighbors_of_copies_and_of_few_rows():
    found = neighbor_sets(np.ones((9, 3)), 4)
    assert (found != np.arange(9)[:, None]).all()
    with pytest.warns(UserWarning, match="n_neighbors must be less than the number of rows, got 20 for 6"):
        assert neighbor_sets(np.random.default_rng(0).normal(size=(6, 2))).shape == (6, 5)
    with pytest.raises(ParameterError, match="n_neighbors must be at least 1"):
        neighbor_sets(np.ones((9, 3)), 0)


# --- SCAN -----------------------------------------------------------------------------------------


def test_partners_are_of_the_same_prediction_where_there_is_one():
    rows = ArrayRows(torch.zeros(6, 2))
    neighbors = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [4, 5, 0], [3, 5, 0], [3, 4, 1]])
    said = np.array([0, 1, 0, 0, 1, 2])
    draw = pretrain._Partners(rows, neighbors, said)
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(6).repeat(500)
    found = draw(index, generator).reshape(500, 6)
    assert set(found[:, 0].tolist()) == {2, 3}  # of the same prediction, each of them
    assert set(found[:, 1].tolist()) == {0, 2, 3}  # none is: any
    assert set(found[:, 2].tolist()) == {0, 3}
    assert set(found[:, 5].tolist()) == {3, 4, 1}
    assert torch.bincount(found[:, 0])[[2, 3]].min() > 200
    free = pretrain._Partners(rows, neighbors, None)(index, generator).reshape(500, 6)
    assert set(free[:, 0].tolist()) == {1, 2, 3}


@pytest.mark.parametrize("wrong", [np.zeros((3, 2), int), np.full((4, 2), 4), np.zeros((4, 0), int)])
def test_neighbors_that_fit_no_rows(wrong):
    rows = ArrayRows(torch.zeros(4, 2))
    with pytest.raises(InputError, match="neighbors must be row numbers"):
        pretrain._Partners(rows, wrong, None)


def begun(rows, codes, **parameters):
    settings = {"module__n_inputs": 6, "module__n_classes": 3, "random_state": 0, "lr": 0.5} | parameters
    net = Net(LinearNetwork, optimizer__momentum=0.9, **settings).initialize()
    net.begin(rows, torch.from_numpy(codes))
    return net


def test_a_scan_epoch_follows_eq_12_and_puts_the_rate_back():
    rows, codes = table(40)
    neighbors = neighbor_sets(rows.data.numpy(), 6)
    net = begun(rows, codes)
    reference = copy.deepcopy(net.module_)
    generator = torch.Generator().manual_seed(3)
    index = shuffled(40, 40, generator)[0]
    partners = pretrain._Partners(rows, neighbors, codes)(index, generator)
    anchors, others = (reference(rows.take(part)).double().softmax(1) for part in (index, partners))
    mean = anchors.mean(0)
    entropy = -(mean * mean.log()).sum()
    agreement = (anchors * others).sum(1).log().mean()
    (-agreement - 2.0 * entropy).backward()
    found = scan_epoch(
        net, rows, neighbors, torch.Generator().manual_seed(3), predictions=codes, batch_size=40, lr=0.01
    )
    for own, other in zip(net.module_.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own, other - 0.01 * other.grad, atol=1e-6, rtol=1e-4)
    assert net.optimizer_.param_groups[0]["lr"] == 0.5
    assert found["loss"] == pytest.approx((-agreement - 2.0 * entropy).item(), rel=1e-4)
    assert found["agreement"] == pytest.approx(agreement.item(), rel=1e-4)
    assert found["entropy"] == pytest.approx(entropy.item() / math.log(3), rel=1e-4)
    assert found["n_steps"] == count_batches(40, 40) == 1
    assert net.optimizer_.state_dict()["state"]  # its momentum goes on


def test_a_scan_epoch_uses_the_views_of_the_net_or_those_given_and_its_own_rate():
    rows, codes = table(40)
    neighbors = neighbor_sets(rows.data.numpy(), 6)
    seen = []

    def views(x, generator):
        seen.append(len(x))
        return x

    net = begun(rows, codes, augment=views)
    moved = [copy.deepcopy(net.module_.state_dict())]
    for arguments in ({}, {"views": lambda x, generator: x}, {"lr": None}):
        scan_epoch(net, rows, neighbors, torch.Generator().manual_seed(0), batch_size=20, **arguments)
        moved.append(copy.deepcopy(net.module_.state_dict()))
    assert seen == [20] * 8
    steps = [(b["head.weight"] - a["head.weight"]).norm() for a, b in itertools.pairwise(moved)]
    assert steps[2] > 10 * steps[0]
    with pytest.raises(ParameterError, match="entropy_weight must be at least 0"):
        scan_epoch(net, rows, neighbors, torch.Generator(), entropy_weight=-1)


def test_clusters_are_found_and_made_classes():
    rows, codes = table()
    net = net_for(rows, network=LinearNetwork)
    before = copy.deepcopy(net.module_.state_dict())
    neighbors = neighbor_sets(encoded(net, rows), 10)
    found = scan_weights(net, rows, neighbors, epochs=100, seed=0, batch_size=50, lr=0.01)
    assert same(net.module_.state_dict(), before) and found.entropy > 0.95
    wrong = codes.copy()
    wrong[:80] = 0  # labels of which many are wrong, but the right one is the most frequent
    classes = matched_clusters(found.probs.argmax(1), wrong, 3)
    weights = reordered(net, rows, found.weights, classes)
    probs = predicted(net, rows, weights)
    np.testing.assert_array_equal(probs.argmax(1), codes)
    for k in range(3):
        np.testing.assert_allclose(probs[:, classes[k]], found.probs[:, k], rtol=1e-5, atol=1e-7)
    with pytest.raises(ParameterError, match=r"one output per class \(4\)"):
        reordered(net, rows, found.weights, np.arange(4))


def test_clusters_are_matched_by_the_best_of_all_permutations():
    rng = np.random.default_rng(0)
    for _ in range(5):
        clusters, codes = rng.integers(0, 4, 30), rng.integers(0, 4, 30)
        classes = matched_clusters(clusters, codes, 4)
        best = max(
            sum(order[c] == y for c, y in zip(clusters, codes, strict=True))
            for order in itertools.permutations(range(4))
        )
        assert sorted(classes.tolist()) == [0, 1, 2, 3]
        assert (classes[clusters] == codes).sum() == best


def test_an_interrupted_clustering_is_taken_up_again_with_the_same_bits(tmp_path, monkeypatch):
    rows, _ = table(60)
    net = net_for(rows, network=LinearNetwork)
    neighbors = neighbor_sets(encoded(net, rows), 5)

    def train(folder, neighbors=neighbors):
        return scan_weights(
            net,
            rows,
            neighbors,
            epochs=4,
            seed=0,
            batch_size=20,
            lr=0.01,
            views=Views(),
            checkpoint_dir=folder,
        )

    whole = train(None)
    resumed = run_interrupted(lambda: train(tmp_path), 2 * 3 * 2 + 3, monkeypatch)
    assert same(whole.weights, resumed.weights) and np.array_equal(whole.probs, resumed.probs)
    with pytest.raises(ParameterError, match="neighbors was"):
        train(tmp_path, neighbors[:, ::-1].copy())


def test_clusters_that_collapse_are_named():
    rows, _ = table(60)
    net = net_for(rows, network=LinearNetwork)
    with torch.no_grad():
        net.module_.head.bias[0] = 50.0
    neighbors = neighbor_sets(encoded(net, rows), 5)
    with pytest.warns(UserWarning, match="clusters must be of some size, got a mean prediction with 0.00"):
        found = scan_weights(net, rows, neighbors, epochs=1, seed=0)
    assert found.entropy < 0.01


def test_entropy_of_the_mean_prediction():
    assert cluster_entropy(np.eye(4)) == pytest.approx(1.0)
    assert cluster_entropy(np.tile([0.0, 1.0, 0.0], (5, 1))) == 0.0
    halves = np.array([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    assert cluster_entropy(halves) == pytest.approx(0.5)
