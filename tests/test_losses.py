"""Losses: against one row at a time, written from the papers, and at extreme logits."""

import math

import numpy as np
import pytest
import torch

from noisefilter import losses, scores

CAP = 5.0


def entropy_of(p, q):
    """KL(p || q) in nats, in float64."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def js_of(p, y):
    """Eq. (2), in bits."""
    middle = [(a + b) / 2 for a, b in zip(p, y, strict=True)]
    return (entropy_of(p, middle) + entropy_of(y, middle)) / 2 / math.log(2)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn((12, 4), generator=generator, dtype=torch.float64) * 2 for _ in range(2))
    codes = torch.randint(4, (12,), generator=generator)
    return first.requires_grad_(), second.requires_grad_(), codes


def test_smoothed_labels_are_eq_5():
    targets = losses.smoothed(torch.tensor([2, 0]), 4, 0.3)
    np.testing.assert_allclose(targets, [[0.1, 0.1, 0.7, 0.1], [0.7, 0.1, 0.1, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(targets, scores.smoothed(np.array([2, 0]), 4, 0.3), rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_likelihood_is_eq_2_and_3_row_by_row(batch, smoothing):
    log_probs = torch.log_softmax(batch[0].detach(), 1)
    targets = losses.smoothed(batch[2], 4, smoothing).double()
    expected = [1 - js_of(p, y) for p, y in zip(log_probs.exp().tolist(), targets.tolist(), strict=True)]
    np.testing.assert_allclose(losses.js_likelihood(log_probs, targets), expected, atol=1e-9)
    told = scores.js_likelihood(log_probs.exp().numpy(), batch[2].numpy(), smoothing)
    np.testing.assert_allclose(told, expected, atol=1e-7)


def test_likelihood_survives_certainty():
    sure = torch.log_softmax(torch.tensor([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0]]), 1)
    targets = losses.smoothed(torch.tensor([0, 0]), 3, 0.0)
    np.testing.assert_allclose(losses.js_likelihood(sure, targets), [1.0, 0.0], atol=1e-6)


def test_softened_probabilities_are_all_but_uniform():
    soft = losses.softened(torch.eye(100, dtype=torch.float64)[:1], 10.0)[0]
    assert soft[0] == pytest.approx(0.01104, abs=5e-6)
    assert soft[1:].tolist() == pytest.approx([0.00999] * 99, abs=5e-6)
    assert soft.sum() == pytest.approx(1)


def test_joint_loss_is_eq_9_to_11_row_by_row(batch):
    """With its gradient, by differences; two of the four strangers lie beyond the cap."""
    first, second, codes = batch
    strange = torch.arange(12) % 3 == 0
    targets = losses.smoothed(codes, 4, 0.3).double()

    def naive(logits, others):
        total = 0.0
        for i in range(12):
            p = [math.exp(v) / sum(math.exp(u) for u in logits[i]) for v in logits[i]]
            q = [math.exp(v) / sum(math.exp(u) for u in others[i]) for v in others[i]]
            fit = sum(-y * math.log(a) - y * math.log(b) for y, a, b in zip(targets[i], p, q, strict=True))
            apart = (entropy_of(p, q) + entropy_of(q, p)) / math.log(2)
            if strange[i]:
                apart = -min(apart, CAP / math.log(2))
            total += (0.6 * fit + 0.4 * apart) / 12
        return float(total)

    nats = losses.consistency(first.log_softmax(1), second.log_softmax(1)) * math.log(2)
    assert (nats[strange] > CAP).any() and (nats[strange] < CAP).any()
    loss = losses.josrc_loss(first.log_softmax(1), second.log_softmax(1), targets, strange, 0.4, CAP)
    loss.backward()
    here = [first.detach().numpy(), second.detach().numpy()]
    assert float(loss.detach()) == pytest.approx(naive(*here), rel=1e-9)
    for which, tensor in enumerate((first, second)):
        for row, column in ((0, 1), (3, 2), (4, 0), (6, 0), (9, 3)):
            moved = []
            for step in (1e-5, -1e-5):
                there = [value.copy() for value in here]
                there[which][row, column] += step
                moved.append(naive(*there))
            slope = (moved[0] - moved[1]) / 2e-5
            assert float(tensor.grad[row, column]) == pytest.approx(slope, abs=1e-7)


@pytest.mark.parametrize("size", [200.0, 1e4, 1e8])
@pytest.mark.parametrize("strange", [True, False])
def test_gradients_stay_finite_at_extreme_logits(size, strange):
    """A product of a probability and its logarithm would be NaN from a gap of 104 on."""
    first = torch.tensor([[size, 0.0, -size], [0.0, size, 0.0]], requires_grad=True)
    second = torch.tensor([[-size, 0.0, size], [0.0, size, 0.0]], requires_grad=True)
    targets = losses.smoothed(torch.tensor([1, 1]), 3, 0.3)
    rows = torch.tensor([strange, strange])
    loss = losses.josrc_loss(first.log_softmax(1), second.log_softmax(1), targets, rows, 0.5, CAP)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(first.grad).all() and torch.isfinite(second.grad).all()


def test_strangers_are_driven_apart_only_up_to_the_cap():
    """Without it the loss of this batch would be near -29,000 and fall further."""
    logits = torch.tensor([[1e4, 0.0], [1.0, 0.0]], requires_grad=True)
    others = torch.tensor([[0.0, 1e4], [0.0, 1.0]])
    uniform, rows = torch.full((2, 2), 0.5), torch.tensor([True, True])
    loss = losses.josrc_loss(logits.log_softmax(1), others.log_softmax(1), uniform, rows, 1.0, CAP)
    loss.backward()
    apart = (
        2 * (math.e - 1) / (math.e + 1) / math.log(2)
    )  # (p - p') (log p - log p'), twice, of the second row
    assert float(loss.detach()) == pytest.approx(-(CAP / math.log(2) + apart) / 2, rel=1e-5)
    assert (logits.grad[0] == 0).all() and (logits.grad[1] != 0).all()


# --- MixMatch and DivideMix -----------------------------------------------------------------------


def test_soft_cross_entropy_is_eq_9_row_by_row(batch):
    log_probs = torch.log_softmax(batch[0].detach(), 1)
    targets = torch.softmax(batch[1].detach(), 1)
    expected = [
        -sum(y * math.log(p) for y, p in zip(row, probs, strict=True))
        for row, probs in zip(targets.tolist(), log_probs.exp().tolist(), strict=True)
    ]
    np.testing.assert_allclose(losses.soft_cross_entropy(log_probs, targets), expected, rtol=1e-9)
    onehot = torch.eye(4, dtype=torch.float64)[batch[2]]
    plain = torch.nn.functional.cross_entropy(batch[0].detach(), batch[2], reduction="none")
    np.testing.assert_allclose(losses.soft_cross_entropy(log_probs, onehot), plain, rtol=1e-9)


def test_brier_is_the_mean_over_classes():
    probs, targets = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]]), torch.tensor([[1.0, 0, 0], [1, 0, 0]])
    np.testing.assert_allclose(losses.brier(probs, targets), [0.14 / 3, 2 / 3], rtol=1e-6)


def test_uniform_penalty_is_a_divergence_from_the_mean_prediction(batch):
    probs = torch.softmax(batch[0].detach(), 1)
    expected = entropy_of([0.25] * 4, probs.mean(0).tolist())
    assert float(losses.uniform_penalty(probs.log())) == pytest.approx(expected, rel=1e-9)
    sure_of_each = torch.log_softmax(1e4 * torch.eye(4), 1)  # every class once: nothing to punish
    assert float(losses.uniform_penalty(sure_of_each)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("size", [200.0, 1e4])
def test_a_class_that_nobody_predicts_is_still_learned(size):
    """Its mean probability is zero in float32, whose logarithm would be infinite."""
    logits = torch.tensor([[size, 0.0, 0.0], [size, 0.0, -1.0]], requires_grad=True)
    loss = losses.uniform_penalty(logits.log_softmax(1))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    assert (logits.grad[:, 0] > 0).all() and (logits.grad[:, 1] < 0).all()


# --- without labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_eq_1_of_simclr_view_by_view(temperature):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn((5, 3), generator=generator) for _ in range(2))
    views = [row / math.sqrt(sum(v * v for v in row)) for row in np.concatenate([first, second])]
    total = 0.0
    for i in range(10):
        alike = [math.exp(float(views[i] @ views[k]) / temperature) for k in range(10)]
        total -= math.log(alike[(i + 5) % 10] / sum(alike[k] for k in range(10) if k != i))
    assert losses.nt_xent(first, second, temperature).item() == pytest.approx(total / 10, rel=1e-5)
    scaled = losses.nt_xent(first * 7, second * torch.arange(1.0, 6.0)[:, None], temperature)
    assert scaled.item() == pytest.approx(total / 10, rel=1e-5)


def test_nt_xent_of_equal_and_of_empty_views():
    same = torch.eye(4)
    assert losses.nt_xent(same, same, 0.1).item() == pytest.approx(math.log(1 + 6 * math.exp(-10)), rel=1e-3)
    nothing = torch.zeros(4, 3, requires_grad=True)
    loss = losses.nt_xent(nothing, nothing, 0.1)
    assert loss.item() == pytest.approx(math.log(7))
    loss.backward()
    assert torch.isfinite(nothing.grad).all()


@pytest.mark.parametrize("weight", [0.0, 2.0, 5.0])
def test_scan_loss_is_its_eq_2_row_by_row(batch, weight):
    anchors, others = (torch.log_softmax(logits.detach(), 1) for logits in batch[:2])
    first, second = anchors.exp().numpy(), others.exp().numpy()
    alike = [sum(a * b for a, b in zip(p, q, strict=True)) for p, q in zip(first, second, strict=True)]
    mean = first.mean(axis=0)
    expected = -np.mean([math.log(value) for value in alike]) - weight * -sum(m * math.log(m) for m in mean)
    assert losses.scan_loss(anchors, others, weight).item() == pytest.approx(expected)


def test_scan_loss_survives_certainty():
    sure = (torch.tensor([[1e4, 0.0, 0.0], [0.0, 1e4, 0.0]])).requires_grad_()
    log_probs = torch.log_softmax(sure, 1)
    loss = losses.scan_loss(log_probs, log_probs.flip(0), 5.0)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(sure.grad).all()
    assert losses.mean_entropy(log_probs).item() == pytest.approx(math.log(2), abs=1e-6)
    assert losses.agreement(log_probs, log_probs).item() == pytest.approx(0, abs=1e-6)
