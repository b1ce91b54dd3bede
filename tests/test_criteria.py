"""Robust losses: against one row at a time, from the papers; at extreme logits; with skorch and Net."""

import math

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from noisefilter import (
    ConfidencePenaltyLoss,
    ELRLoss,
    GCELoss,
    HardBootstrappingLoss,
    IndexedDataset,
    Net,
    SoftBootstrappingLoss,
    SymmetricCELoss,
)
from noisefilter.criteria import DynamicBootstrappingLoss, LabelDistributionLoss
from noisefilter.errors import InputError, ParameterError

N, K = 12, 4


def log(p):
    return math.log(p)


def elr(p, y, target, strength):
    return -log(p[y]) + strength * log(1 - sum(t * q for t, q in zip(target, p, strict=True)))


# Each loss with the loss of one row, from its probabilities and its label.
PLAIN = {
    "gce": (GCELoss(), lambda p, y: (1 - p[y] ** 0.7) / 0.7),
    "gce, mean absolute error": (
        GCELoss(1.0), lambda p, y: sum(abs(q - (k == y)) for k, q in enumerate(p)) / 2
    ),
    "gce, all but cross-entropy": (GCELoss(1e-9), lambda p, y: -log(p[y])),
    "symmetric": (
        SymmetricCELoss(0.5, 2.0, log_zero=-6.0),
        lambda p, y: -0.5 * log(p[y]) - 2.0 * sum(q * (0.0 if k == y else -6.0) for k, q in enumerate(p)),
    ),
    "soft bootstrapping": (
        SoftBootstrappingLoss(0.9),
        lambda p, y: -sum((0.9 * (k == y) + 0.1 * q) * log(q) for k, q in enumerate(p)),
    ),
    "hard bootstrapping": (
        HardBootstrappingLoss(0.7),
        lambda p, y: -sum((0.7 * (k == y) + 0.3 * (k == p.index(max(p)))) * log(q) for k, q in enumerate(p)),
    ),
    "confidence penalty": (
        ConfidencePenaltyLoss(0.5),
        lambda p, y: -log(p[y]) + 0.5 * sum(q * log(q) for q in p),
    ),
}  # fmt: skip
every_plain = pytest.mark.parametrize("name", PLAIN)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((N, K), generator=generator, dtype=torch.float64) * 2
    return logits.requires_grad_(), torch.randint(K, (N,), generator=generator)


def rows_of(logits):
    return logits.detach().softmax(1).tolist()


def with_memory(mode=True):
    """Make the losses that keep something of each row, with something to keep, in training mode or not."""
    generator = torch.Generator().manual_seed(1)
    elr, dynamic, labels = ELRLoss(N + 3, K), DynamicBootstrappingLoss(N + 3), LabelDistributionLoss(N + 3, K)
    elr.targets.copy_(torch.rand((N + 3, K), generator=generator).softmax(1))
    dynamic.believe(torch.rand(N + 3, generator=generator), torch.randint(K, (N + 3,), generator=generator))
    labels.label_logits.copy_(3 * torch.randn((N + 3, K), generator=generator))
    return [loss.train(mode) for loss in (elr, dynamic, labels)]


# --- formulas -------------------------------------------------------------------------------------


@every_plain
def test_a_loss_is_that_of_its_paper_row_by_row(name, batch):
    criterion, naive = PLAIN[name]
    expected = [naive(p, y) for p, y in zip(rows_of(batch[0]), batch[1].tolist(), strict=True)]
    assert float(criterion(*batch).detach()) == pytest.approx(np.mean(expected), rel=1e-6)
    criterion.reduction = "sum"
    assert float(criterion(*batch).detach()) == pytest.approx(np.sum(expected), rel=1e-6)
    criterion.reduction = "none"
    np.testing.assert_allclose(criterion(*batch).detach(), expected, rtol=1e-6)
    criterion.reduction = "mean"


def test_elr_moves_targets_first_row_by_row(batch):
    logits, codes = batch
    loss = ELRLoss(N + 3, K, beta=0.6, strength=2.0, reduction="none")
    index = torch.arange(N).flip(0) + 3
    target = [[0.0] * K for _ in range(N)]
    for _ in range(3):
        found = loss(logits, codes, index)
        probs = rows_of(logits)
        for i, p in enumerate(probs):
            p = [min(max(q, 1e-4), 1 - 1e-4) for q in p]
            target[i] = [0.6 * t + 0.4 * q / sum(p) for t, q in zip(target[i], p, strict=True)]
        expected = [elr(p, y, t, 2.0) for p, y, t in zip(probs, codes.tolist(), target, strict=True)]
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-4)
        logits = -logits  # another prediction at the next visit
    np.testing.assert_allclose(loss.targets[index], target, rtol=1e-5)
    assert not loss.targets[:3].any()  # nobody saw these rows


def test_targets_follow_the_row_whatever_the_order_and_the_batch(batch):
    logits, codes = batch
    whole, parts = ELRLoss(N, K), ELRLoss(N, K)
    whole(logits, codes, torch.arange(N))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    for index in (order[:5], order[5:11], order[11:]):  # the last batch is of one row
        parts(logits[index], codes[index], index)
    torch.testing.assert_close(whole.targets, parts.targets)


def test_targets_stay_in_evaluation_mode(batch):
    loss = ELRLoss(N, K)
    loss(*batch, torch.arange(N))
    before = loss.targets.clone()
    loss.eval()(-batch[0], batch[1], torch.arange(N))
    assert torch.equal(loss.targets, before)


def test_the_regularizer_takes_away_what_a_disbelieved_label_would_teach():
    """Where targets name another class, the slope towards the label is smaller than that of cross-entropy."""
    logits = torch.tensor([[3.0, 0.0, 0.0]], requires_grad=True)
    label, index = torch.tensor([1]), torch.tensor([0])
    loss = ELRLoss(1, 3, strength=3.0).eval()
    loss.targets[0] = torch.tensor([0.9, 0.05, 0.05])
    own = torch.autograd.grad(loss(logits, label, index), logits)[0]
    plain = torch.autograd.grad(nn.functional.cross_entropy(logits, label), logits)[0]
    assert plain[0, 0] > 0 > own[0, 0]  # the first class is learned, not unlearned


@pytest.mark.parametrize("penalty", [0.0, 0.5])
def test_dynamic_bootstrapping_row_by_row(batch, penalty):
    logits, codes = batch
    loss = with_memory()[1]
    loss.penalty = penalty
    index = torch.arange(N).flip(0) + 3
    probs = rows_of(logits)
    means = [sum(p[c] for p in probs) / N for c in range(K)]
    even = sum(math.log(1 / K / mean) / K for mean in means)
    expected = 0.0
    for p, y, i in zip(probs, codes.tolist(), index.tolist(), strict=True):
        w, z = float(loss.doubt[i]), int(loss.others[i])
        expected += (-(1 - w) * math.log(p[y]) - w * math.log(p[z]) + penalty * even) / N
    assert float(loss(logits, codes, index).detach()) == pytest.approx(expected, rel=1e-5)


def test_label_distributions_go_down_the_slope_of_their_row(batch):
    """The formulas of PENCIL, for ten classes; how labels move is asked of differences."""
    generator = torch.Generator().manual_seed(4)
    logits, codes = (
        2 * torch.randn((N, 10), generator=generator),
        torch.randint(10, (N,), generator=generator),
    )
    loss = LabelDistributionLoss(N + 3, 10, compatibility=0.7, entropy=0.3, label_lr=2.0, reduction="none")
    loss.label_logits.copy_(2 * torch.randn((N + 3, 10), generator=generator))
    index, before = torch.arange(N).flip(0) + 3, loss.label_logits.double()
    found = loss(logits, codes, index)

    def pencil(p, scores, y, alpha, beta, c):
        d = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
        divergence = sum(q * math.log(q / e) for q, e in zip(p, d, strict=True)) / c
        return divergence - alpha * math.log(d[y]) - beta / c * sum(q * math.log(q) for q in p)

    for row, (p, y, i) in enumerate(
        zip(rows_of(logits.double()), codes.tolist(), index.tolist(), strict=True)
    ):
        assert float(found[row]) == pytest.approx(pencil(p, before[i].tolist(), y, 0.07, 0.3, 10), rel=1e-5)
        for k in range(10):
            step = 1e-4 * (torch.arange(10) == k).double()
            ends = [pencil(p, (before[i] + sign * step).tolist(), y, 0.07, 0.3, 10) for sign in (1, -1)]
            slope = (ends[0] - ends[1]) / 2e-4
            moved = float(loss.label_logits[i, k]) - float(before[i, k])
            assert moved == pytest.approx(-2.0 * 10 * slope, abs=1e-5)
    assert torch.equal(loss.label_logits[:3].double(), before[:3])  # nobody saw these rows


def test_label_distributions_follow_the_row_whatever_the_order_and_the_batch(batch):
    logits, codes = batch
    whole, parts = LabelDistributionLoss(N, K), LabelDistributionLoss(N, K)
    for loss in (whole, parts):
        loss.start(codes)
    whole(logits, codes, torch.arange(N))
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    for index in (order[:5], order[5:11], order[11:]):  # the last batch is of one row
        parts(logits[index], codes[index], index)
    torch.testing.assert_close(whole.label_logits, parts.label_logits)
    assert not torch.equal(whole.label_logits, whole.label_logits.round())  # as it was started


def test_label_distributions_rest_between_prediction_and_label(batch):
    logits, codes = batch
    loss = LabelDistributionLoss(N, K, compatibility=0.5, label_lr=2.0)
    loss.start(codes)
    for _ in range(500):
        loss(logits, codes, torch.arange(N))
    between = (logits.softmax(1) + 0.5 * nn.functional.one_hot(codes, K)) / 1.5
    np.testing.assert_allclose(loss.label_logits.softmax(1), between.detach(), atol=5e-3)


def test_the_phases_of_label_distributions(batch):
    logits, codes = batch
    index, loss = torch.arange(N), LabelDistributionLoss(N, K, entropy=0.5)
    loss.start(codes)
    started = loss.label_logits.clone()
    assert started.tolist() == [[10.0 * (k == y) for k in range(K)] for y in codes.tolist()]
    loss.phase = "warm-up"
    plain = nn.functional.cross_entropy(logits, codes)
    assert float(loss(logits, codes, index).detach()) == pytest.approx(plain.item(), rel=1e-6)
    loss.phase = "fine-tuning"
    p, d = logits.softmax(1), started.double().softmax(1)
    divergence = (p * (p / d).log()).sum(1).mean() / 10
    assert float(loss(logits, codes, index).detach()) == pytest.approx(divergence.item(), rel=1e-5)
    assert torch.equal(loss.label_logits, started)
    loss.phase = "correction"
    loss.eval()(logits, codes, index)
    assert torch.equal(loss.label_logits, started)
    loss.train()(logits, codes, index)
    assert not torch.equal(loss.label_logits, started)


def test_a_label_without_doubt_is_learned_by_cross_entropy(batch):
    found = DynamicBootstrappingLoss(N)(*batch, torch.arange(N))
    assert found.item() == pytest.approx(nn.functional.cross_entropy(*batch).item())


# --- slopes and extremes --------------------------------------------------------------------------


@every_plain
def test_slopes_are_those_of_differences(name, batch):
    criterion = PLAIN[name][0]
    assert torch.autograd.gradcheck(lambda logits: criterion(logits, batch[1]), (batch[0],))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_slopes_of_losses_with_memory_are_those_of_differences(which, batch):
    loss = with_memory(mode=False)[which]
    loss.double()
    assert torch.autograd.gradcheck(lambda logits: loss(logits, batch[1], torch.arange(N)), (batch[0],))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_extreme_logits_are_finite_with_finite_slopes(dtype):
    rows = torch.tensor([[1e4, -1e4, 0.0, 0.0], [-1e4, 1e4, 1e4, 0.0], [0.0, 0.0, 0.0, 0.0], [3e4] * 4])
    for codes in (torch.zeros(4, dtype=torch.int64), torch.arange(4), torch.full((4,), 1)):
        criteria = [criterion for criterion, _ in PLAIN.values()]
        told = [(criterion, (codes,)) for criterion in criteria]
        told += [(criterion, (codes, torch.arange(4))) for criterion in with_memory()]
        for criterion, arguments in told:
            logits = rows.to(dtype).requires_grad_()
            loss = criterion(logits, *arguments)
            loss.backward()
            assert torch.isfinite(loss) and torch.isfinite(logits.grad).all(), type(criterion).__name__


# --- in somebody's training -----------------------------------------------------------------------


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.line = nn.Linear(5, 3)

    def forward(self, x):
        return self.line(x)


def trained(kind, blobs, criterion, **settings):
    torch.manual_seed(0)
    rows = {"train_split": None, "max_epochs": 8, "lr": 0.1, "batch_size": 16, "verbose": 0}
    net = kind(Line, criterion=criterion, **rows | settings)
    return net.fit(blobs.X / 5, blobs.y)


CRITERIA = [GCELoss, SymmetricCELoss, SoftBootstrappingLoss, HardBootstrappingLoss, ConfidencePenaltyLoss]


@pytest.mark.parametrize("kind", [NeuralNetClassifier, Net], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_loss_is_a_criterion_for_skorch_and_for_net(kind, criterion, blobs):
    net = trained(kind, blobs, criterion)
    probs = net.predict_proba(blobs.X / 5)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)  # of logits, by softmax
    assert (net.predict(blobs.X / 5) == blobs.truth).mean() > 0.9


def test_arguments_come_as_skorch_hands_them_over_and_losses_are_recorded(blobs):
    net = trained(Net, blobs, GCELoss, criterion__q=0.4, record=("losses",), lr=0.0)
    assert net.criterion_.q == 0.4
    p = net.predict_proba(blobs.X / 5)[np.arange(300), blobs.y]
    np.testing.assert_allclose(net.recorded_.losses[-1], (1 - p**0.4) / 0.4, rtol=1e-4)


def test_net_tells_a_loss_which_rows_it_sees(blobs):
    net = trained(
        Net, blobs, ELRLoss, criterion__n_rows=300, criterion__n_classes=3, criterion__beta=0.0, lr=0.0,
        random_state=0, record=("losses",),
    )  # fmt: skip
    probs = net.predict_proba(blobs.X / 5)
    np.testing.assert_allclose(net.criterion_.targets, np.clip(probs, 1e-4, None), atol=1e-3)
    expected = [elr(list(p), y, list(p), 7.0) for p, y in zip(probs.tolist(), blobs.y, strict=True)]
    np.testing.assert_allclose(net.recorded_.losses[-1], expected, rtol=2e-2, atol=1e-3)
    assert net.criterion_.training


def test_mixup_tells_it_of_both_rows_of_a_mixture(blobs):
    seen = []

    class Watching(DynamicBootstrappingLoss):
        def indexed_losses(self, log_probs, codes, index):
            seen.append((codes.clone(), index.clone()))
            return super().indexed_losses(log_probs, codes, index)

    trained(Net, blobs, Watching, criterion__n_rows=300, objective="mixup", max_epochs=1)
    assert len(seen) == 2 * 19  # batches, of which the last is joined by four rows or stands alone
    for codes, index in seen:
        assert np.array_equal(codes, blobs.y[index])
    assert sorted(torch.cat([index for _, index in seen[::2]]).tolist()) == list(range(300))


def test_elr_with_plain_skorch_learns_from_pairs(blobs):
    net = NeuralNetClassifier(
        Line, criterion=ELRLoss, criterion__n_rows=300, criterion__n_classes=3, train_split=None, verbose=0,
        max_epochs=8, lr=0.1, batch_size=16, iterator_train__shuffle=True,
    )  # fmt: skip
    torch.manual_seed(0)
    net.fit(IndexedDataset(blobs.X / 5, blobs.y), None)
    assert (net.predict_proba(blobs.X / 5).argmax(axis=1) == blobs.truth).mean() > 0.9
    assert (net.criterion_.targets.argmax(dim=1).numpy() == blobs.truth).mean() > 0.9


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: GCELoss(0), r"q must be in \(0, 1\], got 0"),
        (lambda: GCELoss(1.5), r"q must be in \(0, 1\], got 1.5"),
        (lambda: GCELoss(reduction="max"), "reduction must be one of .* got 'max'"),
        (lambda: SymmetricCELoss(-1), "alpha must be at least 0 and finite, got -1"),
        (lambda: SymmetricCELoss(log_zero=0), "log_zero must be less than 0 and finite, got 0"),
        (lambda: SoftBootstrappingLoss(1.1), r"beta must be in \[0, 1\], got 1.1"),
        (lambda: HardBootstrappingLoss(math.nan), r"beta must be in \[0, 1\], got nan"),
        (lambda: ConfidencePenaltyLoss(math.inf), "strength must be at least 0 and finite, got inf"),
        (lambda: ELRLoss(0, 3), "n_rows must be a whole number of at least 1, got 0"),
        (lambda: ELRLoss(3, 2.5), "n_classes must be a whole number of at least 1, got 2.5"),
        (lambda: ELRLoss(3, 3, beta=1.0), r"beta must be in \[0, 1\), got 1.0"),
        (lambda: LabelDistributionLoss(3, 0), "n_classes must be a whole number of at least 1, got 0"),
        (lambda: LabelDistributionLoss(3, 3, -1.0), "compatibility must be at least 0 and finite, got -1"),
        (lambda: LabelDistributionLoss(3, 3, entropy=math.inf), "entropy must be at least 0 and finite"),
        (lambda: LabelDistributionLoss(3, 3, label_lr=math.nan), "label_lr must be at least 0 and finite"),
        (lambda: DynamicBootstrappingLoss(3, penalty=-1), "penalty must be at least 0 and finite, got -1"),
    ],
)  # fmt: skip
def test_bad_parameters(made, message):
    with pytest.raises(ParameterError, match=f"^{message}"):
        made()


def test_bad_targets(batch):
    logits, codes = batch
    for wrong in (codes[:-1], codes.double(), nn.functional.one_hot(codes, K)):
        with pytest.raises(
            InputError, match=r"^logits and class numbers must be of shapes \(b, K\) and \(b,\)"
        ):
            GCELoss()(logits, wrong)
    with pytest.raises(InputError, match=r"^ELRLoss must know which rows it sees, got class numbers alone"):
        ELRLoss(N, K)(logits, codes)
    with pytest.raises(InputError, match=r"^X and y must have the same length, got 3 rows and 2 labels"):
        IndexedDataset(np.zeros((3, 2)), [0, 1])


def test_net_refuses_a_memory_that_is_too_small_or_of_mixtures(blobs):
    sizes = {"criterion__n_rows": 299, "criterion__n_classes": 3}
    with pytest.raises(ParameterError, match=r"^criterion__n_rows must be at least .* \(300\), got 299"):
        trained(Net, blobs, ELRLoss, **sizes)
    sizes["criterion__n_rows"] = 300
    for kind in (ELRLoss, LabelDistributionLoss):
        with pytest.raises(
            ParameterError, match=rf"^objective must not be 'mixup' with {kind.__name__}, whose"
        ):
            trained(Net, blobs, kind, objective="mixup", **sizes)
