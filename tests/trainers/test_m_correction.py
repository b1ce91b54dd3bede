"""MCorrectionClassifier: what is doubted, from when on, and where the losses are one hill."""

import numpy as np
import pytest
import torch

from noisefilter import MCorrectionClassifier
from noisefilter.mixtures import mixture
from noisefilter.scores import log_probability
from noisefilter.splits import at_rate
from noisefilter.trained import log_odds
from noisefilter.trainers import m_correction


def short(**parameters):
    return MCorrectionClassifier(**{"max_epochs": 6, "random_state": 0, "warmup_epochs": 2} | parameters)


@pytest.fixture
def watched(monkeypatch):
    """Write down, after every epoch, losses and what is believed of the rows."""
    seen, own = [], m_correction._MCorrection.looked

    def looked(self, epoch, probs):
        found = own(self, epoch, probs)
        loss = self.net.criterion_
        seen.append(
            (
                probs.copy(),
                self.codes,
                self.rate,
                loss.doubt.numpy().copy(),
                loss.others.numpy().copy(),
                loss.penalty,
            )
        )
        return found

    monkeypatch.setattr(m_correction._MCorrection, "looked", looked)
    return seen


def test_doubt_is_the_posterior_of_the_component_of_larger_loss(blobs, watched):
    model = short(max_epochs=24, warmup_epochs=16, penalty=0.5).fit(blobs.X, blobs.y)
    assert [penalty for *_, penalty in watched] == [0.0] * 16 + [0.5] * 8
    assert not any(doubt.any() for *_, doubt, _, _ in watched[:15])
    assert ["doubt" in record for record in model.history_] == [False] * 15 + [True] * 9
    for (probs, codes, _, doubt, others, _), record in zip(watched[15:], model.history_[15:], strict=True):
        assert record["separation"] > 1 and record["doubt"] == pytest.approx(doubt.mean())
        expected = 1 - mixture(log_probability(probs, codes), "beta", scale=True).clean_proba
        np.testing.assert_allclose(doubt, expected, atol=1e-6)
        assert np.array_equal(others, probs.argmax(axis=1))
        assert doubt[blobs.wrong].mean() > doubt[~blobs.wrong].mean() + 0.5
        by_loss = np.argsort(-log_probability(probs, codes))
        assert (np.diff(doubt[by_loss]) >= -1e-6).all()  # never less about a larger loss


def test_losses_on_one_hill_are_doubted_by_their_order_at_the_estimated_rate(blobs, watched, monkeypatch):
    monkeypatch.setattr(m_correction, "_ONE_HILL", np.inf)
    short().fit(blobs.X, blobs.y)
    probs, codes, rate, doubt, *_ = watched[-1]
    odds = log_odds(probs[np.arange(300), codes].astype(np.float64))
    np.testing.assert_allclose(doubt, 1 - at_rate(odds, rate).clean_proba, atol=1e-6)
    assert doubt.mean() == pytest.approx(rate, abs=1e-4)


def test_clean_labels_are_hardly_doubted(blobs, watched):
    """A mixture finds two components in any losses; here the estimated rate says that one of them is none."""
    model = short(max_epochs=10).fit(blobs.X, blobs.truth)
    assert max(record["doubt"] for record in model.history_[1:]) < 0.05
    assert model.verdict_.clean_mask.mean() > 0.97 and model.score(blobs.X, blobs.truth) > 0.97


def test_equal_losses_are_doubted_alike():
    training = m_correction._MCorrection.__new__(m_correction._MCorrection)
    training.codes, training.rate = np.arange(60) % 3, 0.25
    doubt, distance = training._doubt(np.full((60, 3), 1 / 3, dtype=np.float32))
    assert distance == 0 and doubt == pytest.approx(np.full(60, 0.25), abs=1e-6)


def test_doubts_are_in_the_checkpoint(blobs, tmp_path):
    whole = short().fit(blobs.X, blobs.y)
    short(checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    (tmp_path / "epoch-0006.safetensors").unlink()  # as if stopped in the last epoch
    resumed = short(checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    assert resumed.history_ == whole.history_
    assert np.array_equal(resumed.predict_proba(blobs.X), whole.predict_proba(blobs.X))


def test_a_prototype_is_trained_by_mixup_whatever_it_says(blobs):
    from noisefilter import Net
    from noisefilter.networks import MLP

    net = Net(MLP, module__n_inputs=5, module__n_classes=3, max_epochs=2, objective="cross_entropy_ne")
    model = MCorrectionClassifier(net, mixup_alpha=8.0, random_state=0).fit(blobs.X, blobs.y)
    trained = model._fitted.training.net
    assert (trained.objective, trained.mixup_alpha) == ("mixup", 8.0)
    assert isinstance(model.networks_[0], torch.nn.Module)
