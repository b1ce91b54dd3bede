"""PENCILClassifier: labels give way to what the network says, in one phase of three, and in a checkpoint."""

from itertools import pairwise

import numpy as np
import pytest

from noisefilter import PENCILClassifier, estimates
from noisefilter.single import SingleTraining
from noisefilter.trainers import pencil


def short(**parameters):
    return PENCILClassifier(**{"max_epochs": 6, "random_state": 0, "warmup_epochs": 2} | parameters)


@pytest.fixture
def watched(monkeypatch):
    """Write down distributions, phase and rate of the loss after every epoch."""
    seen, own = [], pencil._PENCIL.looked

    def looked(self, epoch, probs):
        loss = self.net.criterion_
        seen.append((loss.label_logits.clone(), loss.phase, loss.label_lr))
        return own(self, epoch, probs)

    monkeypatch.setattr(pencil._PENCIL, "looked", looked)
    return seen


def test_distributions_of_wrong_labels_move_to_the_class_that_rows_belong_to(blobs, monkeypatch):
    """Whatever the order of the rows, and with a last batch of one row."""
    found = []
    release = SingleTraining.release
    monkeypatch.setattr(
        SingleTraining, "release",
        lambda self: found.append(self.net.criterion_.label_logits.clone().numpy()) or release(self),
    )  # fmt: skip
    order = np.random.default_rng(0).permutation(300)[:289]
    for rows in (np.arange(300), order):
        y, wrong = blobs.y[rows], blobs.wrong[rows]
        model = PENCILClassifier(max_epochs=20, batch_size=16, random_state=0).fit(blobs.X[rows], y)
        named = model.network_classes_[found.pop().argmax(axis=1)]
        assert (named[wrong] == blobs.truth[rows][wrong]).mean() > 0.9
        assert (named[~wrong] == y[~wrong]).mean() > 0.98
        assert model.history_[-1]["corrected"] == (named != y).mean()
        assert (model.predict(blobs.X) == blobs.truth).mean() > 0.97
    assert not len(model._fitted.training.net.criterion_.label_logits)


def test_labels_are_learned_in_the_correction_alone(blobs, watched):
    history = (
        short(max_epochs=9, correction_epochs=3, fine_tuning_lr=0.03, lr=0.1).fit(blobs.X, blobs.y).history_
    )
    phases = ["warm-up"] * 2 + ["correction"] * 3 + ["fine-tuning"] * 4
    assert [record["phase"] for record in history] == [phase for _, phase, _ in watched] == phases
    codes = [{name: i for i, name in enumerate(dict.fromkeys(blobs.y))}[label] for label in blobs.y]
    started = [[10.0 * (k == code) for k in range(3)] for code in codes]
    moves = [watched[0][0].tolist() != started]
    moves += [not np.array_equal(a, b) for (a, *_), (b, *_) in pairwise(watched)]
    assert moves == [False] * 2 + [True] * 3 + [False] * 4
    # The rate falls at half of the epochs, and at three quarters; in between the fine-tuning begins.
    expected = [0.1] * 4 + [0.02] + [0.03] + [0.006] * 3
    np.testing.assert_allclose([record["lr"] for record in history], expected)


@pytest.mark.parametrize(
    ("parameters", "n_corrected", "rate"),
    [
        ({"max_epochs": 60}, 28, 60 / 28),  # to half of the epochs
        ({"max_epochs": 10}, 3, 3 / 1.1),  # no faster than what settles
        ({"max_epochs": 10, "compatibility": 1.0}, 3, 1.5),
        ({"max_epochs": 3}, 1, 3 / 1.1),  # one at least
        ({"max_epochs": 3, "label_lr": 0.5}, 1, 0.5),
        ({"max_epochs": 10, "correction_epochs": 5}, 5, 3 / 1.1),
    ],
)
def test_the_rate_of_labels_follows_the_length_of_the_correction(parameters, n_corrected, rate, watched):
    X = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    short(**parameters).fit(X, (X[:, 0] > 0).astype(int))
    rates = [each for _, phase, each in watched if phase == "correction"]
    assert rates == pytest.approx([rate] * n_corrected)


def test_the_warm_up_ends_where_planted_labels_begin_to_be_known_by_heart(blobs, monkeypatch):
    asked = []
    monkeypatch.setattr(estimates, "memorizes", lambda known, n: asked.append((known, n)) or len(asked) == 2)
    settings = {"max_epochs": 24, "warmup_epochs": None, "batch_size": 16}
    history = short(**settings).fit(blobs.X, blobs.y).history_
    assert [record["phase"] for record in history[:3]] == ["warm-up", "warm-up", "correction"]
    assert asked == [(record["planted_known"], 19 * (i + 1)) for i, record in enumerate(history[:2])]
    assert ["estimated_rate" in record for record in history[:3]] == [False, True, False]
    assert [record["phase"] for record in history].count("correction") == 12 - 2
    asked.clear()
    history = short(**settings | {"warmup_epochs": 4}).fit(blobs.X, blobs.y).history_
    assert not asked and [record["phase"] for record in history].count("warm-up") == 4


@pytest.mark.parametrize("left", [4, 8, 15])
def test_phases_and_distributions_are_in_the_checkpoint(blobs, tmp_path, monkeypatch, left):
    """As if stopped in the correction, or in the fine-tuning, after a warm-up that ended early."""
    monkeypatch.setattr(estimates, "memorizes", lambda known, n_steps: n_steps > 20)
    settings = {"max_epochs": 16, "warmup_epochs": None, "batch_size": 16, "fine_tuning_lr": 0.02}
    whole = short(**settings).fit(blobs.X, blobs.y)
    assert [record["phase"] for record in whole.history_].count("warm-up") == 2

    class Stopped(KeyboardInterrupt):
        pass

    own = pencil._PENCIL.run_epoch

    def run_epoch(self, epoch, bar):
        if epoch == left:
            raise Stopped
        return own(self, epoch, bar)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(pencil._PENCIL, "run_epoch", run_epoch)
        short(**settings, checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    resumed = short(**settings, checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    assert resumed.history_ == whole.history_
    assert np.array_equal(resumed.predict_proba(blobs.X), whole.predict_proba(blobs.X))
    assert np.array_equal(resumed.scores_, whole.scores_)
