"""MixMatch with DivideMix's targets: against a plain loop written from the papers, and piece by piece."""

import copy
import math

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from noisefilter.augment import CropFlip
from noisefilter.batches import ArrayRows, count_batches
from noisefilter.contrastive import MeanTeacher
from noisefilter.errors import InputError, ParameterError, TrainingDivergedError
from noisefilter.net import Net, local_seed
from noisefilter.networks import MLP, SmallCNN
from noisefilter.semisupervised import (
    Blends,
    floored,
    guessed,
    mixed,
    mixmatch_epoch,
    ramp,
    refined,
    sharpened,
)

N, D, K = 90, 5, 3


class Tiny(nn.Module):
    def __init__(self, n_inputs=D, n_classes=K):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.hidden(x))))


class Probabilities(Tiny):
    def forward(self, x):
        return torch.softmax(super().forward(x), 1)


class Counting(Tiny):
    """Counts the rows of its passes: (forward only, forward and backward)."""

    def __init__(self, n_inputs=D, n_classes=K):
        super().__init__(n_inputs, n_classes)
        self.rows = [0, 0]
        self.calls = 0

    def forward(self, x):
        assert self.training is torch.is_grad_enabled() and len(x)
        self.rows[self.training] += len(x)
        self.calls += 1
        return super().forward(x)


def jitter(x, generator):
    return x + 0.3 * torch.randn(x.shape, generator=generator)


def make(module=Tiny, seed=0, **changes):
    settings = {"lr": 0.05, "optimizer__momentum": 0.9, "optimizer": torch.optim.SGD, "batch_size": 16}
    settings |= {"augment": jitter, "precision": "float32", "random_state": seed, "verbose": 0}
    return Net(module, **settings | changes).initialize()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(0, K, N))
    x = torch.from_numpy(rng.normal(size=(N, D)).astype(np.float32)) + codes[:, None]
    proba = torch.from_numpy(rng.random(N).astype(np.float32))
    return ArrayRows(x), codes, proba


def first(n):
    return torch.arange(N) < n


def epoch(net, peer, data, labeled, seed=0, **changes):
    settings = {"batch_size": 16, "temperature": 0.5, "mixup_alpha": 4.0}
    settings |= {"unlabeled_weight": lambda step: 25.0, "generator": torch.Generator().manual_seed(seed)}
    return mixmatch_epoch(net, peer, *data, labeled, **settings | changes)


def weights(net):
    return {name: value.clone() for name, value in net.module_.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def assert_close(one, other):
    for name, value in other.items():
        np.testing.assert_allclose(one[name], value, rtol=1e-4, atol=1e-6, err_msg=name)


# --- targets, by hand -----------------------------------------------------------------------------


def test_sharpened_is_eq_4():
    probs = torch.tensor([[0.6, 0.3, 0.1], [0.0, 0.5, 0.5]])
    expected = [[0.7826, 0.1957, 0.0217], [0.0, 0.5, 0.5]]
    np.testing.assert_allclose(sharpened(probs, 0.5), expected, atol=5e-5)
    np.testing.assert_allclose(sharpened(probs, 1.0), probs, atol=1e-6)


def test_sharpening_survives_low_temperatures():
    """The powers themselves are 1e-400 and less."""
    np.testing.assert_allclose(sharpened(torch.tensor([[0.1] * 9 + [0.101]]), 0.0025).sum(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(sharpened(torch.tensor([[0.4, 0.6]]), 1e-3), [[0.0, 1.0]], atol=1e-6)


def test_refined_is_eq_3_row_by_row():
    probs = torch.tensor([[0.2, 0.3, 0.5]] * 3)
    onehot = torch.tensor([[1.0, 0.0, 0.0]] * 3)
    targets = refined(probs, onehot, torch.tensor([0.0, 0.4, 1.0]), 0.5)
    for target, w in zip(targets.tolist(), (0.0, 0.4, 1.0), strict=True):
        powers = [(w * y + (1 - w) * p) ** 2 for y, p in zip([1.0, 0.0, 0.0], [0.2, 0.3, 0.5], strict=True)]
        assert target == pytest.approx([v / sum(powers) for v in powers], abs=1e-6)
    assert targets[2].tolist() == [1.0, 0.0, 0.0]


def test_guesses_are_averaged_before_they_are_sharpened():
    several = torch.tensor([[[0.9, 0.1]], [[0.7, 0.3]], [[0.2, 0.8]], [[0.6, 0.4]]])
    assert guessed(several, 0.5)[0].tolist() == pytest.approx([0.36 / 0.52, 0.16 / 0.52], abs=1e-6)


@pytest.mark.parametrize("weight", [0.3, 0.7])
def test_each_row_stays_the_larger_part_of_its_mixture(weight):
    x, order = torch.tensor([[0.0], [10.0], [20.0]]), torch.tensor([1, 2, 0])
    rows, targets = mixed(x, torch.eye(3), weight, order)
    np.testing.assert_allclose(rows, [[3.0], [13.0], [14.0]], rtol=1e-6)
    np.testing.assert_allclose(targets, [[0.7, 0.3, 0], [0, 0.7, 0.3], [0.3, 0, 0.7]], rtol=1e-6)


def test_pixels_are_mixed_as_numbers_and_stay_channels_last():
    images = torch.randint(256, (4, 6, 6, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    rows, _ = mixed(images, torch.eye(4), 0.9, torch.tensor([3, 2, 1, 0]))
    assert rows.dtype == torch.float32
    assert rows.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(rows, 0.9 * images.float() + 0.1 * images.flip(0).float(), atol=1e-4)


def test_float64_columns_keep_their_digits():
    x = torch.tensor([[1e9 + 1.0], [1e9 + 3.0]], dtype=torch.float64)
    assert mixed(x, torch.eye(2), 0.75, torch.tensor([1, 0]))[0].tolist() == [[1e9 + 1.5], [1e9 + 2.5]]


def test_ramp_rises_over_16_epochs_after_the_warm_up():
    assert [ramp(epoch, 10, 16) for epoch in (0, 10, 18, 26, 300)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert [ramp(epoch, 3, 0) for epoch in (2, 3)] == [0.0, 1.0]


# --- the division ---------------------------------------------------------------------------------


def test_enough_rows_are_divided_by_the_threshold_alone():
    proba = np.tile([0.9, 0.5, 0.1], 400)
    labeled = floored(proba, np.arange(1200) % 4, 4, 0.5, batch_size=64)
    np.testing.assert_array_equal(labeled, proba > 0.5)


@pytest.mark.parametrize(
    ("n", "n_classes", "batch_size", "expected"),
    [(1000, 2, 64, 128), (100, 2, 64, 50), (4000, 2, 5, 20), (1000, 10, 5, 50), (4001, 2, 5, 21)],
    ids=["two batches", "half", "half a percent", "five per class", "rounded up"],
)
def test_the_best_rows_are_labeled_where_too_few_are(n, n_classes, batch_size, expected):
    proba = np.random.default_rng(0).permutation(n) / n * 0.3
    codes = np.zeros(n, dtype=int)  # one class only, so that the floor of each class is out of the way
    labeled = floored(proba, codes, n_classes, 0.5, batch_size)
    assert labeled.sum() == expected
    assert proba[labeled].min() > proba[~labeled].max()


def test_every_class_has_rows_of_its_own():
    """Class 1 has many rows, all doubtful, class 2 three; class 3 has none."""
    codes = np.repeat([0, 1, 2], [500, 100, 3])
    proba = np.where(codes == 0, 0.9, np.random.default_rng(0).permutation(603) / 2000)
    labeled = floored(proba, codes, 4, 0.5, batch_size=8)
    assert np.bincount(codes[labeled]).tolist() == [500, 5, 2]
    for code in (1, 2):
        own = codes == code
        assert proba[own & labeled].min() > proba[own & ~labeled].max()


def test_among_equals_the_first_are_labeled():
    labeled = floored(np.zeros(100), np.zeros(100, dtype=int), 2, 0.5, batch_size=4)
    assert np.flatnonzero(labeled).tolist() == list(range(10))


def test_a_division_may_leave_nothing_unlabeled():
    assert floored(np.ones(20), np.arange(20) % 2, 2, 0.5, 64).all()


def test_probabilities_must_be_finite():
    with pytest.raises(InputError, match="clean_proba must be a finite"):
        floored(np.array([0.5, np.nan]), np.array([0, 1]), 2, 0.5, 64)


# --- one epoch, by a plain loop -------------------------------------------------------------------


def probabilities(module, x):
    return torch.softmax(module(x), 1)


def naive_sharpened(row, temperature):
    powers = [float(p) ** (1 / temperature) for p in row]
    return torch.tensor([p / sum(powers) for p in powers])


def naive_epoch(
    net, peer, data, labeled, lam_u, temperature=0.5, alpha=4.0, size=16, blends=(), weigh=None,
    ratio=1.0, strong=None, beside=None,
):  # fmt: skip
    """Algorithm 1 of DivideMix, lines 10 to 29, view by view and row by row; returns network and loss.

    With blends (first, second, share) among the labeled rows, and weights of the labeled loss; with so many
    unlabeled rows for a labeled one, other views to learn, and a loss of these beside.
    """
    rows, codes, proba = data
    net_, peer_ = copy.deepcopy(net.module_), copy.deepcopy(peer.module_).eval()
    optimizer = torch.optim.SGD(net_.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    known, unknown = labeled.nonzero()[:, 0].tolist(), (~labeled).nonzero()[:, 0]
    known = [(row, row, 1.0) for row in known] + [tuple(blend) for blend in blends]
    weigh = torch.ones(N) if weigh is None else weigh
    batches = [
        [known[k] for k in part] for part in torch.randperm(len(known), generator=generator).split(size)
    ]
    stream = []
    while len(stream) < sum(round(ratio * len(batch)) for batch in batches):
        stream += unknown[torch.randperm(len(unknown), generator=generator)].tolist()
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    lambdas = torch._sample_dirichlet(
        torch.full((len(batches), 2), alpha, dtype=torch.float64), torch.Generator().manual_seed(seed)
    )[:, 0]
    total = 0.0
    for step, batch in enumerate(batches):
        others = torch.tensor([stream.pop(0) for _ in range(round(ratio * len(batch)))])
        batch, partners, shares = (torch.tensor(part) for part in zip(*batch, strict=True))
        both = rows.take(torch.cat([batch, others]))
        views = [jitter(both, generator) for _ in range(2)]
        b, n = len(batch), len(both)
        for view in views if blends else ():
            partner, share = jitter(rows.take(partners), generator), shares[:, None]
            view[:b] = share * view[:b] + (1 - share) * partner
        net_.eval()
        with torch.no_grad():
            own = sum(probabilities(net_, view) for view in views) / 2
            other = sum(probabilities(peer_, view) for view in views) / 2
        targets = []
        for i in range(b):
            w, label = float(proba[batch[i]]), torch.eye(K)[codes[batch[i]]]
            targets.append(naive_sharpened(w * label + (1 - w) * own[i], temperature))
        targets += [naive_sharpened((own[i] + other[i]) / 2, temperature) for i in range(b, n)]
        views = [strong(both, generator) for _ in range(2)] if strong else views
        x, wanted = torch.cat(views), torch.stack(targets + targets)
        lam = max(float(lambdas[step]), 1 - float(lambdas[step]))
        order = torch.randperm(2 * n, generator=generator)
        x, wanted = lam * x + (1 - lam) * x[order], lam * wanted + (1 - lam) * wanted[order]
        count = torch.cat([weigh[batch], torch.ones(n - b)]).repeat(2)
        count = lam * count + (1 - lam) * count[order]
        net_.train()
        p = probabilities(net_, x)
        fit, guess = [], []
        for i in range(2 * n):
            if i % n < b:
                fit.append(count[i] * -(wanted[i] * p[i].log()).sum())
            else:
                guess.append(sum((p[i, c] - wanted[i, c]) ** 2 for c in range(K)) / K)
        prior = sum((1 / K) * torch.log((1 / K) / p[:, c].mean()) for c in range(K))
        loss = sum(fit) / len(fit) + lam_u(step) * sum(guess) / len(guess) + prior
        loss = loss + beside(net_, [view[b:] for view in views]) if beside else loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += float(loss.detach()) * b / len(known)
    return net_, total


@pytest.mark.parametrize("n_labeled", [44, 60], ids=["one pass over the others", "two"])
def test_epoch_is_algorithm_1(data, n_labeled):
    """The last batch has 12 rows; the 30 others of 60 labeled rows are passed over twice."""
    net, peer, labeled = make(), make(seed=1), first(n_labeled)

    def lam_u(step):
        return 3.0 * step

    expected, loss = naive_epoch(net, peer, data, labeled, lam_u)
    means = epoch(net, peer, data, labeled, unlabeled_weight=lam_u)
    assert means["n_steps"] == count_batches(n_labeled, 16) == math.ceil(n_labeled / 16)
    assert means["loss"] == pytest.approx(loss, rel=1e-5)
    assert_close(weights(net), expected.state_dict())


def test_blended_rows_and_weights_are_those_of_a_plain_loop(data):
    """Of an epoch with 30 labeled rows, 14 blends of any two rows, and weights of the labeled loss."""
    rng = np.random.default_rng(1)
    first_, second = rng.integers(30, size=14), rng.integers(N, size=14)
    share = rng.uniform(0.5, 1.0, size=14).astype(np.float32)
    weigh = torch.from_numpy(rng.uniform(0.2, 5.0, size=N).astype(np.float32))
    net, peer = make(), make(seed=1)
    blends = list(zip(first_.tolist(), second.tolist(), share.tolist(), strict=True))
    expected, loss = naive_epoch(net, peer, data, first(30), lambda step: 3.0, blends=blends, weigh=weigh)
    made = Blends(*(torch.from_numpy(part) for part in (first_, second, share)))
    means = epoch(
        net, peer, data, first(30), unlabeled_weight=lambda step: 3.0, blends=made, row_weights=weigh
    )
    assert means["loss"] == pytest.approx(loss, rel=1e-5) and means["n_steps"] == 3
    assert_close(weights(net), expected.state_dict())


class Bar:
    """A progress bar that counts."""

    def __init__(self):
        self.n_steps, self.total = 0, 0.0

    def step(self, cost=1.0):
        self.n_steps, self.total = self.n_steps + 1, self.total + cost


class Alike:
    """Beside MixMatch, a number of its own times the distance of what is said of two views."""

    def __init__(self):
        self.scale = torch.tensor(2.0, requires_grad=True)

    def loss(self, net, views):
        first, second = (net.outputs(view) for view in views)
        return self.scale * (first - second).square().mean()

    def step(self):
        self.scale, self.scale.grad = (self.scale - 0.1 * self.scale.grad).detach().requires_grad_(), None


def test_other_views_to_learn_more_unlabeled_rows_and_a_loss_beside_are_those_of_a_plain_loop(data):
    net, peer, other = make(), make(seed=1), Alike()
    stronger = {"strong": lambda x, generator: jitter(x, generator) * 2.0}

    def beside(net_, views):
        found = other.loss(Saying(net_), views)
        scales.append(float(other.scale.detach()))
        own = found / other.scale
        other.scale = (other.scale - 0.1 * own).detach().requires_grad_()
        return found

    scales = []
    expected, loss = naive_epoch(
        net, peer, data, first(24), lambda step: 3.0, ratio=1.75, beside=beside, **stronger
    )
    own, bar = Alike(), Bar()
    means = epoch(
        net, peer, data, first(24), unlabeled_weight=lambda step: 3.0, unlabeled_ratio=1.75,
        learned_views=stronger["strong"], beside=own, bar=bar,
    )  # fmt: skip
    assert scales[0] == 2.0 > scales[1]
    torch.testing.assert_close(own.scale, other.scale)
    assert means["loss"] == pytest.approx(loss, rel=1e-5)
    assert_close(weights(net), expected.state_dict())
    # Two views of 24 rows looked at once and of 42 by both networks, learned, and of the 42 once more beside.
    rows_forward = 2 * 24 + 2 * 2 * 42 + 3 * 2 * (24 + 42) + 3 * 2 * 42
    assert bar.total == pytest.approx(rows_forward / (2 * 3 * 16))


class Saying:
    """A module where a net is expected."""

    def __init__(self, module):
        self.outputs = module


def test_weights_of_one_and_no_blends_change_nothing(data):
    nothing = Blends(*(torch.zeros(0, dtype=kind) for kind in (torch.int64, torch.int64, torch.float32)))
    nets = [make(augment=None) for _ in range(2)]
    epoch(nets[0], make(seed=1, augment=None), data, first(40))
    epoch(nets[1], make(seed=1, augment=None), data, first(40), blends=nothing, row_weights=torch.ones(N))
    assert_same(*map(weights, nets))


def test_losses_add_up(data):
    means = epoch(make(), make(seed=1), data, first(48), unlabeled_weight=lambda step: 25.0, penalty=0.5)
    parts = means["labeled_loss"] + 25.0 * means["unlabeled_loss"] + 0.5 * means["penalty"]
    assert means["loss"] == pytest.approx(parts, rel=1e-5)
    assert min(means.values()) > 0


def test_the_seed_decides_every_bit(data):
    nets = [make(), make(), make()]
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        epoch(net, make(seed=1), data, first(40), seed=seed)
    assert_same(weights(nets[0]), weights(nets[1]))
    assert not torch.equal(nets[0].module_.head.weight, nets[2].module_.head.weight)


def test_labels_of_unlabeled_rows_are_never_read(data):
    rows, codes, proba = data
    one, other = make(), make()
    epoch(one, make(seed=1), (rows, codes, proba), first(40))
    hidden = torch.where(first(40), codes, -1), torch.where(first(40), proba, torch.nan)
    epoch(other, make(seed=1), (rows, *hidden), first(40))
    assert_same(weights(one), weights(other))


# --- passes, modes, memory ------------------------------------------------------------------------


def counted(data, labeled, peer_is_net=False, **changes):
    net, peer = (make(Counting, seed=seed, **changes) for seed in (0, 1))
    peer = net if peer_is_net else peer
    epoch(net, peer, data, labeled)
    steps = count_batches(int(labeled.sum()), 16)
    passes = net.module_.rows, [0, 0] if peer_is_net else peer.module_.rows
    return *passes, net.module_.calls / steps


def test_a_labeled_row_costs_six_passes_forward_and_four_of_training(data):
    """Of the forward passes, two are the peer's; the three calls of a step are two of the network."""
    n = 44
    assert counted(data, first(n)) == ([4 * n, 4 * n], [2 * n, 0], 2)


def test_what_is_not_needed_is_not_looked_at(data):
    rows, codes, _ = data
    n = 40
    certain = (rows, codes, torch.ones(N))
    assert counted(data, first(n), peer_is_net=True) == ([4 * n, 4 * n], [0, 0], 2)
    assert counted(certain, first(n)) == ([2 * n, 4 * n], [2 * n, 0], 2)
    assert counted(certain, first(n), peer_is_net=True) == ([2 * n, 4 * n], [0, 0], 2)
    assert counted(data, first(N)) == counted(certain, first(N)) == ([2 * N, 2 * N], [0, 0], 2)
    # Equal views are looked at once, and trained on twice, with other partners.
    assert counted(data, first(n), augment=None) == ([2 * n, 4 * n], [n, 0], 2)


def test_labels_that_are_believed_are_the_targets(data):
    """With clean_proba 1, leaving out the look at labeled rows changes nothing."""
    rows, codes, _ = data
    nearly = torch.ones(N)
    nearly[0] = 1 - 1e-7
    one, other = make(), make()
    means = epoch(one, make(seed=1), (rows, codes, torch.ones(N)), first(40))
    assert epoch(other, make(seed=1), (rows, codes, nearly), first(40)) == pytest.approx(means, rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_guesses_leave_running_statistics_alone(data, training):
    net, peer = make(), make(seed=1)
    before = weights(peer)
    for each in (net, peer):
        each.module_.train(training)
    epoch(net, peer, data, first(48))
    assert_same(weights(peer), before)
    assert net.module_.training is peer.module_.training is peer.module_.norm.training is training
    assert net.module_.norm.num_batches_tracked == 3  # steps


def test_the_average_follows_every_step(data):
    net = make()
    average = MeanTeacher(net.module_, 0.9)
    epoch(net, make(seed=1), data, first(48), average=average)
    assert average.n_steps == 3
    alone = make()
    epoch(alone, make(seed=1), data, first(48))
    assert_same(weights(net), weights(alone))


def test_the_device_is_not_waited_for_in_a_step(data, monkeypatch):
    """Twelve steps move as many numbers from the device to the host as two."""
    count = 0

    def watched(name):
        original = getattr(torch.Tensor, name)

        def call(self, *args, **kwargs):
            nonlocal count
            count += 1
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, call)

    net, peer = make(), make(seed=1)
    for name in (
        "item",
        "tolist",
        "__bool__",
        "__float__",
        "__int__",
        "__index__",
        "cpu",
        "numpy",
        "nonzero",
    ):
        watched(name)
    counts = []
    for batch_size in (40, 8):
        count = 0
        epoch(net, peer, data, first(80), batch_size=batch_size)
        counts.append(count)
    assert counts[0] == counts[1] > 0


# --- sizes ----------------------------------------------------------------------------------------


def test_without_unlabeled_rows_the_steps_are_supervised(data):
    net = make()
    before = weights(net)
    means = epoch(net, make(seed=1), data, first(N))
    assert means["unlabeled_loss"] == 0.0 and means["labeled_loss"] > 0.0
    assert not torch.equal(net.module_.head.weight, before["head.weight"])


@pytest.mark.parametrize("n_unlabeled", [1, 5, 16, 17])
def test_few_unlabeled_rows_are_gone_through_again_and_again(data, n_unlabeled):
    seen = []

    def noting(x, generator):
        seen.append(x)
        return jitter(x, generator)

    net, n = make(augment=noting), N - n_unlabeled
    epoch(net, make(seed=1), data, first(n))
    rows = data[0].data
    number = [[int((rows == row).all(1).nonzero()) for row in x] for x in seen[::2]]
    labeled = [row for batch in number for row in batch if row < n]
    assert sorted(labeled) == list(range(n))
    counts = np.bincount([row for batch in number for row in batch if row >= n])[n:]
    assert len(counts) == n_unlabeled and np.ptp(counts) <= 1
    for batch in number:
        others = [row for row in batch if row >= n]
        assert len(others) == min(n_unlabeled, len(batch) - len(others))


def test_a_small_last_batch_joins_the_one_before_it(data):
    net = make(Counting)
    means = epoch(net, net, data, first(32 + 7))
    assert means["n_steps"] == 2 and net.module_.norm.num_batches_tracked == 2
    assert epoch(net, net, data, first(32 + 8))["n_steps"] == 3


def test_one_labeled_row_is_enough(data):
    assert epoch(make(), make(seed=1), data, first(1))["n_steps"] == 1


# --- kinds of rows and networks -------------------------------------------------------------------


def test_a_network_may_give_probabilities(data):
    logits = make()
    probs = make(Probabilities, criterion=nn.NLLLoss)
    one = epoch(logits, make(seed=1), data, first(48))
    other = epoch(probs, make(Probabilities, seed=1, criterion=nn.NLLLoss), data, first(48))
    assert one == pytest.approx(other, rel=1e-4)
    np.testing.assert_allclose(
        logits.module_.head.weight.detach(), probs.module_.head.weight.detach(), atol=1e-5
    )


def learned(net, peer, rows, codes, n_epochs):
    """Train on the labels of the first 48 rows; returns the accuracy on the others."""
    for seed in range(n_epochs):
        data = (rows, codes, torch.ones(N))
        epoch(net, peer, data, first(48), seed=seed, unlabeled_weight=lambda step: 1.0)
    probs = net.predict_batch(rows.take(torch.arange(48, N)))
    return float((probs.argmax(1) == codes[48:]).float().mean())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_images_of_bytes_are_learned(precision):
    rng = np.random.default_rng(0)
    codes = torch.from_numpy(rng.integers(0, K, N))
    images = rng.integers(0, 100, (N, 8, 8, 3)) + 70 * codes.numpy()[:, None, None, None]
    rows = ArrayRows(torch.from_numpy(images.astype(np.uint8)), images=True)
    shape = {"module__n_channels": 3, "module__n_classes": K, "module__image_size": 8}
    nets = [make(SmallCNN, s, augment=CropFlip(True), precision=precision, **shape) for s in (0, 1)]
    for net in nets:
        net._prepare(rows, codes)
    assert learned(*nets, rows, codes, 8) > 0.8


def test_tables_are_learned_through_dropout_and_noise(data):
    rows, codes = ArrayRows(data[0].data + 2.0 * data[1][:, None]), data[1]
    nets = [make(MLP, s, augment=None, module__n_inputs=D, module__n_classes=K) for s in (0, 1)]
    with local_seed(0, torch.device("cpu")):
        assert learned(*nets, rows, codes, 8) > 0.8


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.head = nn.Linear(4, K)

    def forward(self, x):
        return self.head(self.words(x.long()).mean(1))


class Placed(nn.Module):
    """An embedding of places: the same for every row."""

    def __init__(self):
        super().__init__()
        self.places = nn.Embedding(D, 4)
        self.head = nn.Linear(4 * D, K)

    def forward(self, x):
        places = self.places(torch.arange(D).expand(len(x), D))
        return self.head((x[:, :, None] * places).flatten(1))


def test_rows_that_are_looked_up_cannot_be_mixed(data):
    _, codes, proba = data
    numbers = ArrayRows(torch.randint(10, (N, D), generator=torch.Generator().manual_seed(0)))
    for rows in (numbers, ArrayRows(numbers.data.float())):
        net = make(Words, augment=None)
        with pytest.raises(ParameterError, match="looks up in an embedding"):
            epoch(net, net, (rows, codes, proba), first(48))
    net = make(Placed, augment=None)
    assert epoch(net, net, data, first(48))["n_steps"] == 3


def test_gradients_are_shown_to_callbacks(data):
    class Stopper(Callback):
        def on_grad_computed(self, net, named_parameters, X, y, **kwargs):
            assert len(X) == len(y)
            for _, parameter in named_parameters:
                parameter.grad.zero_()

    net = make(callbacks=[("stopper", Stopper())])
    before = weights(net)
    epoch(net, make(seed=1), data, first(48))
    assert torch.equal(net.module_.head.weight, before["head.weight"])


def test_progress_is_told_of_every_step(data):
    bar = Bar()
    assert epoch(make(), make(seed=1), data, first(48), bar=bar)["n_steps"] == bar.n_steps == 3


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha must be greater than 0"),
        ({"unlabeled_ratio": 0.0}, "unlabeled_ratio must be greater than 0, got 0.0"),
    ],
)
def test_numbers_outside_their_range_are_refused(data, changes, words):
    with pytest.raises(ParameterError, match=words):
        epoch(make(), make(seed=1), data, first(48), **changes)


def test_a_labeled_row_is_needed(data):
    with pytest.raises(InputError, match="labeled must hold at least one row"):
        epoch(make(), make(seed=1), data, first(0))


def test_only_two_kinds_of_criterion_are_understood(data):
    with pytest.raises(ParameterError, match="criterion must be CrossEntropyLoss or NLLLoss"):
        epoch(make(criterion=nn.MultiMarginLoss), make(seed=1), data, first(48))


def test_a_loss_that_is_not_finite_is_an_error(data):
    with pytest.raises(TrainingDivergedError, match="smaller lr="):
        epoch(make(lr=1e30), make(seed=1), data, first(48))


@pytest.mark.gpu
def test_a_step_does_not_wait_for_the_gpu(data):
    device = torch.device("cuda")
    rows, codes, proba = data
    net, peer = (make(seed=s, device="cuda", augment=None) for s in (0, 1))
    there = ArrayRows(rows.data.to(device)), codes.to(device), proba.to(device)
    bar = type("Bar", (), {"step": lambda self: torch.cuda.set_sync_debug_mode("error")})()
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):  # when the means are read, after the last step
            epoch(net, peer, there, first(48).to(device), bar=bar, generator=torch.Generator(device))
        assert net.module_.norm.num_batches_tracked.item() == 3
    finally:
        torch.cuda.set_sync_debug_mode("default")
