"""ELRClassifier: its targets belong to rows, survive a checkpoint, and are let go of in the end."""

import numpy as np

from noisefilter import ELRClassifier
from noisefilter.single import SingleTraining


def short(**parameters):
    return ELRClassifier(**{"max_epochs": 6, "random_state": 0} | parameters)


def test_targets_name_the_class_that_rows_belong_to(blobs, monkeypatch):
    """Whatever the order of the rows, and with a last batch of one row."""
    found = []
    release = SingleTraining.release
    monkeypatch.setattr(
        SingleTraining, "release",
        lambda self: found.append(self.net.criterion_.targets.clone().numpy()) or release(self),
    )  # fmt: skip
    order = np.random.default_rng(0).permutation(300)[:289]
    for rows in (np.arange(300), order):
        y = blobs.y[rows]
        model = short(max_epochs=15, batch_size=16).fit(blobs.X[rows], y)
        targets = found.pop()
        named = model.network_classes_[targets.argmax(axis=1)]
        assert (named == blobs.truth[rows]).mean() > 0.95 > (y == blobs.truth[rows]).mean()
        np.testing.assert_allclose(targets.sum(axis=1), 1 - 0.7**15, rtol=1e-4)  # one visit an epoch
    assert not len(model._fitted.training.net.criterion_.targets)


def test_targets_are_in_the_checkpoint(blobs, tmp_path):
    whole = short().fit(blobs.X, blobs.y)
    short(checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    (tmp_path / "epoch-0006.safetensors").unlink()  # as if stopped in the last epoch
    resumed = short(checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    assert resumed.history_ == whole.history_
    assert np.array_equal(resumed.predict_proba(blobs.X), whole.predict_proba(blobs.X))
    other = short(strength=0.0).fit(blobs.X, blobs.y)
    assert not np.array_equal(other.predict_proba(blobs.X), whole.predict_proba(blobs.X))
