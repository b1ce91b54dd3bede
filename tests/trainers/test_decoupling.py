"""Decoupling: the update by disagreement against a naive one."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch.nn import functional as F

from noisefilter import DecouplingClassifier, plant_noise
from noisefilter.errors import ParameterError
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
    kind, own = DecouplingClassifier(**parameters)._training()
    training = object.__new__(kind)
    vars(training).update(own, epoch=epoch, rate=rate, ramp_epochs=10, ramp_power=1.0)
    return training


@pytest.mark.parametrize("least_share", [0.0, 0.1, 0.9])
def test_both_networks_learn_where_they_disagree(least_share):
    seen, logits, target = batch()
    rows = [i for i in range(40) if logits[0, i].argmax() != logits[1, i].argmax()]
    assert 4 < len(rows) < 36
    size = max(len(rows), least_share * 40)
    naive = sum(F.cross_entropy(logits[k, i], target[i]) for k in range(2) for i in rows) / size
    found = run(1, least_share=least_share).chosen(seen)
    assert [own.tolist() for own in found.rows] == [rows, rows]
    np.testing.assert_allclose(gradient(found.loss, logits), gradient(naive, logits), atol=1e-6)


def test_networks_that_agree_learn_nothing():
    (first, _), losses = batch()[0]
    assert [len(own) for own in run(1).chosen(Seen((first, first), losses)).rows] == [0, 0]


@pytest.fixture(scope="module")
def fitted():
    """A fit on three blobs, a fifth of whose labels are wrong."""
    X, truth = make_blobs(300, n_features=5, centers=3, cluster_std=1.5, random_state=0)
    y, _ = plant_noise(truth, "symmetric", 0.3, random_state=0)
    X = X.astype(np.float32)
    return DecouplingClassifier(max_epochs=15, random_state=0).fit(X, y), X, y, truth


def test_classes_are_learned_and_wrong_labels_score_lower(fitted):
    model, X, y, truth = fitted
    assert model.score(X, truth) > 0.95
    assert clean_auc(model.scores_, y != truth) > 0.95
    assert model.verdict_.estimated_noise_rate == pytest.approx((y != truth).mean(), abs=0.06)


def test_a_given_rate_leaves_the_warm_up(fitted):
    _, X, y, _ = fitted
    model = DecouplingClassifier(max_epochs=3, noise_rate=0.3, random_state=0).fit(X, y)
    assert [record["phase"] for record in model.history_] == ["warm-up", "warm-up", "selection"]
    assert "planted_known" not in model.history_[0]
    assert model.history_[-1]["n_labeled_1"] == model.labeled_[0].sum() < 150


def test_a_parameter_out_of_range_is_named(fitted):
    _, X, y, _ = fitted
    with pytest.raises(ParameterError, match=r"^least_share must be in \[0, 1\], got 1.5"):
        DecouplingClassifier(least_share=1.5).fit(X, y)


def test_the_published_settings_are_parameters():
    model = DecouplingClassifier.as_published(batch_size=64)
    expected = {
        "network": SevenLayerCNN, "max_epochs": 200, "batch_size": 64, "lr": 1e-3, "optimizer": "adam",
        "probes": 0.0, "warmup_epochs": 1, "least_share": 0.1,
    }  # fmt: skip
    assert {name: model.get_params()[name] for name in expected} == expected
    others = DecouplingClassifier().get_params()
    assert all(value == others[name] for name, value in model.get_params().items() if name not in expected)
