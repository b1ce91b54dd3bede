"""Co-teaching: what networks choose for each other against a naive version."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch.nn import functional as F

from noisefilter import CoTeachingClassifier, plant_noise
from noisefilter.metrics import clean_auc
from noisefilter.networks import SevenLayerCNN
from noisefilter.pairs import Seen


def batch(n=40, k=4, seed=0):
    """What two networks say of a batch, which often agree."""
    draw = torch.Generator().manual_seed(seed)
    base = 2 * torch.randn((n, k), generator=draw)
    logits = (base + torch.randn((2, n, k), generator=draw)).requires_grad_()
    target = torch.arange(n) % k
    first, second = torch.log_softmax(logits, dim=2)
    losses = tuple(F.nll_loss(each, target, reduction="none") for each in (first, second))
    return Seen((first, second), losses), logits, target


def gradient(loss, logits):
    return torch.autograd.grad(loss, logits, retain_graph=True)[0].numpy()


def run(epoch, rate=0.3, **parameters):
    """Make a training in that epoch, with no networks: only what it chooses is asked."""
    kind, own = CoTeachingClassifier(**parameters)._training()
    training = object.__new__(kind)
    vars(training).update(own, epoch=epoch, rate=rate, ramp_epochs=10, ramp_power=1.0)
    return training


@pytest.mark.parametrize(("epoch", "kept"), [(1, 39), (5, 34), (10, 28), (99, 28)])
def test_each_network_learns_the_small_losses_of_the_other(epoch, kept):
    """Algorithm 1: R(t) |B| rows of the smallest losses, and the mean of their losses, taken once."""
    seen, logits, target = batch()
    of_first, of_second = (np.argsort(losses.detach().numpy())[:kept] for losses in seen.losses)
    assert set(of_first) != set(of_second)
    found = run(epoch).chosen(seen)
    assert [own.tolist() for own in found.rows] == [of_second.tolist(), of_first.tolist()]
    naive = F.cross_entropy(logits[0, of_second], target[of_second])
    naive = naive + F.cross_entropy(logits[1, of_first], target[of_first])
    np.testing.assert_allclose(gradient(found.loss, logits), gradient(naive, logits), atol=1e-6)


def test_one_row_is_learned_where_the_share_is_less():
    seen, *_ = batch(n=8, k=4)
    assert [len(own) for own in run(10, rate=0.99).chosen(seen).rows] == [1, 1]


@pytest.fixture(scope="module")
def fitted():
    """A fit on three blobs, a fifth of whose labels are wrong."""
    X, truth = make_blobs(300, n_features=5, centers=3, cluster_std=1.5, random_state=0)
    y, _ = plant_noise(truth, "symmetric", 0.3, random_state=0)
    X = X.astype(np.float32)
    return CoTeachingClassifier(max_epochs=15, ramp_epochs=5, random_state=0).fit(X, y), X, y, truth


def test_classes_are_learned_and_wrong_labels_score_lower(fitted):
    model, X, y, truth = fitted
    assert model.score(X, truth) > 0.95
    assert clean_auc(model.scores_, y != truth) > 0.95
    assert model.verdict_.estimated_noise_rate == pytest.approx((y != truth).mean(), abs=0.06)
    assert model.labeled_[:, y == truth].mean() > 0.75 > 0.3 > model.labeled_[:, y != truth].mean()


def test_the_published_settings_are_parameters():
    model = CoTeachingClassifier.as_published(batch_size=64)
    expected = {
        "network": SevenLayerCNN, "max_epochs": 200, "batch_size": 64, "lr": 1e-3, "optimizer": "adam",
        "noise_rate": 0.5, "ramp_epochs": 10, "ramp_power": 1.0, "warmup_epochs": 0, "probes": 0.0,
    }  # fmt: skip
    assert {name: model.get_params()[name] for name in expected} == expected
    others = CoTeachingClassifier().get_params()
    assert all(value == others[name] for name, value in model.get_params().items() if name not in expected)


def test_a_published_training_runs():
    rng = np.random.default_rng(0)
    y = np.arange(48) % 2
    X = (100 * rng.random((48, 3, 8, 8)) + 100 * y[:, None, None, None]).astype(np.uint8)
    model = CoTeachingClassifier.as_published(max_epochs=2, batch_size=16, random_state=0).fit(X, y)
    assert [record["lr"] for record in model.history_] == pytest.approx([1e-3, 1e-3 / 1.2])
    assert model.history_[0]["n_labeled_1"] == 3 * 15  # 95 % of sixteen
