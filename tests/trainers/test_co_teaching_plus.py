"""Co-teaching+: the choice among rows of disagreement against a naive version."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch.nn import functional as F

from noisefilter import CoTeachingClassifier, CoTeachingPlusClassifier, plant_noise
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
    kind, own = CoTeachingPlusClassifier(**parameters)._training()
    training = object.__new__(kind)
    vars(training).update(own, epoch=epoch, rate=rate, ramp_epochs=10, ramp_power=1.0)
    return training


def test_after_some_epochs_only_rows_of_disagreement_are_chosen_from():
    """Algorithm 1: disagreement first, then R(t) of these rows, row 0 among them, of logits and not twice."""
    seen, logits, target = batch()
    rows = np.array([i for i in range(40) if logits[0, i].argmax() != logits[1, i].argmax()])
    assert rows[0] == 0 and len(rows) > 8
    kept = round(0.7 * len(rows))
    of_first, of_second = (rows[np.argsort(losses.detach().numpy()[rows])[:kept]] for losses in seen.losses)
    assert set(of_first) != set(of_second)
    found = run(21).chosen(seen)
    assert [own.tolist() for own in found.rows] == [of_second.tolist(), of_first.tolist()]
    naive = F.cross_entropy(logits[0, of_second], target[of_second])
    naive = naive + F.cross_entropy(logits[1, of_first], target[of_first])
    np.testing.assert_allclose(gradient(found.loss, logits), gradient(naive, logits), atol=1e-6)


def test_before_it_is_co_teaching():
    seen, *_ = batch()
    kind, _ = CoTeachingClassifier()._training()
    expected = [own.tolist() for own in kind.chosen(run(20), seen).rows]
    assert [own.tolist() for own in run(20).chosen(seen).rows] == expected
    assert len(expected[0]) == 28 and [own.tolist() for own in run(21).chosen(seen).rows] != expected


def test_where_networks_agree_it_is_co_teaching():
    (first, second), losses = batch()[0]
    found = run(21).chosen(Seen((first, first), losses))
    expected = run(20).chosen(Seen((first, second), losses))
    assert all(map(torch.equal, found.rows, expected.rows))
    one = Seen(*(tuple(part[:1] for part in pair) for pair in ((first, first), losses)))
    assert [own.tolist() for own in run(21).chosen(one).rows] == [[0], [0]]


@pytest.fixture(scope="module")
def fitted():
    """A fit on three blobs, a fifth of whose labels are wrong."""
    X, truth = make_blobs(300, n_features=5, centers=3, cluster_std=1.5, random_state=0)
    y, _ = plant_noise(truth, "symmetric", 0.3, random_state=0)
    X = X.astype(np.float32)
    return (
        CoTeachingPlusClassifier(max_epochs=15, ramp_epochs=5, agreeing_epochs=12, random_state=0).fit(X, y),
        X,
        y,
        truth,
    )


def test_classes_are_learned_and_wrong_labels_score_lower(fitted):
    model, X, y, truth = fitted
    assert model.score(X, truth) > 0.95
    assert clean_auc(model.scores_, y != truth) > 0.95
    assert model.verdict_.estimated_noise_rate == pytest.approx((y != truth).mean(), abs=0.06)
    n_rows = [record["n_labeled_1"] for record in model.history_ if record["phase"] == "selection"]
    assert min(n_rows[:2]) > 190 and max(n_rows[2:]) < 190  # the warm-up has ten epochs


def test_a_parameter_out_of_range_is_named(fitted):
    _, X, y, _ = fitted
    with pytest.raises(ParameterError, match=r"^agreeing_epochs must be a whole number .*, got -1"):
        CoTeachingPlusClassifier(agreeing_epochs=-1).fit(X, y)


def test_the_published_settings_are_parameters():
    model = CoTeachingPlusClassifier.as_published(batch_size=64)
    expected = {
        "network": SevenLayerCNN, "max_epochs": 200, "batch_size": 64, "lr": 1e-3, "optimizer": "adam",
        "noise_rate": 0.5, "ramp_epochs": 10, "ramp_power": 1.0, "agreeing_epochs": 20, "warmup_epochs": 0,
        "probes": 0.0,
    }  # fmt: skip
    assert {name: model.get_params()[name] for name in expected} == expected
    others = CoTeachingPlusClassifier().get_params()
    assert all(value == others[name] for name, value in model.get_params().items() if name not in expected)
