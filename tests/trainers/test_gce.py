"""GCEClassifier: what truncation leaves out, and that it goes on from a checkpoint."""

import numpy as np

from noisefilter import GCEClassifier
from noisefilter.scores import given_probability
from noisefilter.semisupervised import floored
from noisefilter.trainers import gce


def short(**parameters):
    return GCEClassifier(**{"max_epochs": 7, "random_state": 0, "warmup_epochs": 2} | parameters)


def test_all_labels_are_learned_without_truncation(blobs):
    assert {record["n_learned"] for record in short(truncation=None).fit(blobs.X, blobs.y).history_} == {300}


def test_truncation_leaves_out_what_the_averaged_predictions_disbelieve(blobs, monkeypatch):
    decided, own = [], gce._GCE.looked

    def looked(self, epoch, probs):
        before = self.kept
        found = own(self, epoch, probs)
        if self.kept is not before:
            believed = given_probability(self.latest_probs(), self.codes)
            expected = floored(believed, self.codes, 3, 0.5, self.net.batch_size // 2)
            assert np.array_equal(self.kept, expected)
            assert (self.kept == (believed > 0.5)).mean() > 0.95  # the floor adds next to nothing
            decided.append((epoch + 1, int(self.kept.sum())))
        return found

    monkeypatch.setattr(gce._GCE, "looked", looked)
    model = short(truncation=0.5, prune_epochs=2, max_epochs=8).fit(blobs.X, blobs.y)
    assert [epoch for epoch, _ in decided] == [2, 4, 6, 8]
    learned = [record["n_learned"] for record in model.history_]
    sizes = [size for _, size in decided]
    assert learned == [300, 300, sizes[0], sizes[0], sizes[1], sizes[1], sizes[2], sizes[2]]
    assert sizes[-1] < 290 and model.history_[-1]["phase"] == "truncated"


def test_a_network_that_is_sure_of_nothing_learns_as_many_labels_as_are_right(blobs, monkeypatch):
    kept = []

    def looked(self, epoch, probs):
        self.rate, flat = 0.25, np.full((300, 3), 1 / 3)
        monkeypatch.setattr(self, "latest_probs", lambda: flat + np.linspace(0, 1e-3, 300)[:, None])
        own(self, epoch, probs)
        kept.append(None if self.kept is None else np.flatnonzero(self.kept).tolist())
        return {}

    own = gce._GCE.looked
    monkeypatch.setattr(gce._GCE, "looked", looked)
    short(truncation=0.5, warmup_epochs=1, max_epochs=2).fit(blobs.X, blobs.y)
    assert set(range(75, 300)) <= set(kept[0]) and len(kept[0]) < 240  # and a few of each class


def test_a_truncated_training_goes_on_to_the_same_bits(blobs, tmp_path):
    """Rows that were left out are so after the checkpoint, too."""
    settings = {"truncation": 0.6, "prune_epochs": 3}
    whole = short(**settings).fit(blobs.X, blobs.y)
    short(checkpoint_dir=tmp_path, **settings).fit(blobs.X, blobs.y)
    (tmp_path / "epoch-0007.safetensors").unlink()  # as if stopped in the last epoch
    resumed = short(checkpoint_dir=tmp_path, **settings).fit(blobs.X, blobs.y)
    assert resumed.history_ == whole.history_ and whole.history_[-1]["n_learned"] < 300
    assert np.array_equal(resumed.predict_proba(blobs.X), whole.predict_proba(blobs.X))
    assert np.array_equal(resumed.scores_, whole.scores_)


def test_a_large_q_learns_fewer_wrong_labels_by_heart(blobs):
    """A network that can memorize does so under what is all but cross-entropy."""
    from noisefilter import Net
    from noisefilter.networks import MLP

    rng = np.random.default_rng(0)
    X = np.concatenate([blobs.X, rng.normal(size=(300, 40)).astype(np.float32)], axis=1)
    net = Net(
        MLP, module__n_inputs=45, module__n_classes=3, module__hidden=(64,), module__dropout=0.0,
        module__noise=0.0, max_epochs=30, batch_size=32,
    )  # fmt: skip
    known = [
        (
            GCEClassifier(net, q=q, truncation=None, probes=0.0, random_state=0).fit(X, blobs.y).predict(X)
            == blobs.y
        )[blobs.wrong].mean()
        for q in (0.01, 0.9)
    ]
    assert known[1] < known[0] - 0.2
