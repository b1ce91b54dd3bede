"""JoCoR: the joint loss and its choice against a naive version."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch.nn import functional as F

from noisefilter import JoCoRClassifier, plant_noise
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
    kind, own = JoCoRClassifier(**parameters)._training()
    training = object.__new__(kind)
    vars(training).update(own, epoch=epoch, rate=rate, ramp_epochs=10, ramp_power=1.0)
    return training


@pytest.mark.parametrize("agreement", [0.0, 0.5, 0.9])
def test_both_networks_learn_the_small_joint_losses(agreement):
    """Eq. (1) to (6), with natural logarithms and sums over classes."""
    seen, logits, target = batch()
    p, q = logits.softmax(dim=2)
    labels = torch.arange(40)
    supervised = -p[labels, target].log() - q[labels, target].log()
    contrastive = (p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)
    joint = (1 - agreement) * supervised + agreement * contrastive
    rows = np.argsort(joint.detach().numpy())[:28]
    found = run(10, agreement=agreement).chosen(seen)
    assert [own.tolist() for own in found.rows] == [rows.tolist()] * 2
    naive = joint[rows].mean()
    assert found.loss.item() == pytest.approx(naive.item(), rel=1e-5)
    np.testing.assert_allclose(gradient(found.loss, logits), gradient(naive, logits), atol=1e-6)


def test_agreement_is_a_reason_to_be_chosen():
    seen, logits, _ = batch()
    alone, joint = (run(10, agreement=share).chosen(seen).rows[0].tolist() for share in (0.0, 0.9))
    p, q = logits.detach().softmax(dim=2).numpy()
    apart = np.abs(p - q).sum(axis=1)
    assert apart[joint].mean() < apart[alone].mean()


def test_one_row_is_learned_where_the_share_is_less():
    seen, *_ = batch(n=8, k=4)
    assert [len(own) for own in run(10, rate=0.99).chosen(seen).rows] == [1, 1]


@pytest.fixture(scope="module")
def fitted():
    """A fit on three blobs, a fifth of whose labels are wrong."""
    X, truth = make_blobs(300, n_features=5, centers=3, cluster_std=1.5, random_state=0)
    y, _ = plant_noise(truth, "symmetric", 0.3, random_state=0)
    X = X.astype(np.float32)
    return JoCoRClassifier(max_epochs=15, ramp_epochs=5, random_state=0).fit(X, y), X, y, truth


def test_classes_are_learned_and_wrong_labels_score_lower(fitted):
    model, X, y, truth = fitted
    assert model.score(X, truth) > 0.95
    assert clean_auc(model.scores_, y != truth) > 0.95
    assert model.verdict_.estimated_noise_rate == pytest.approx((y != truth).mean(), abs=0.06)
    assert model.labeled_[:, y == truth].mean() > 0.75 > 0.3 > model.labeled_[:, y != truth].mean()
    assert np.array_equal(*model.labeled_)


def test_a_parameter_out_of_range_is_named(fitted):
    _, X, y, _ = fitted
    with pytest.raises(ParameterError, match=r"^agreement must be in \[0, 1\), got 1.0"):
        JoCoRClassifier(agreement=1.0).fit(X, y)


def test_the_published_settings_are_parameters():
    model = JoCoRClassifier.as_published(batch_size=64)
    expected = {
        "network": SevenLayerCNN, "max_epochs": 200, "batch_size": 64, "lr": 1e-3, "optimizer": "adam",
        "noise_rate": 0.5, "ramp_epochs": 10, "ramp_power": 1.0, "agreement": 0.9, "warmup_epochs": 0,
        "probes": 0.0,
    }  # fmt: skip
    assert {name: model.get_params()[name] for name in expected} == expected
    others = JoCoRClassifier().get_params()
    assert all(value == others[name] for name, value in model.get_params().items() if name not in expected)
