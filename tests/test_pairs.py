"""Pairs of networks: the schedule and the choice against naive versions, one batch, one epoch, the rate."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, EarlyStopping, GradientNormClipping
from torch import nn
from torch.nn import functional as F

from noisefilter import CoTeachingClassifier, Net, estimates, plant_noise
from noisefilter.batches import ArrayRows
from noisefilter.errors import ParameterError, TrainingDivergedError
from noisefilter.losses import consistency, symmetric_kl
from noisefilter.networks import MLP
from noisefilter.pairs import Learned, PairTraining, Seen, disagreeing, kept_share, smallest
from noisefilter.twonets import two_nets

N, K = 60, 3


class Bar:
    """A progress bar that counts."""

    def __init__(self):
        self.cost = 0.0

    def step(self, cost=1.0):
        self.cost += cost


class First(PairTraining):
    """Learns the first rows of every batch."""

    n_rows = 2

    def chosen(self, seen):
        """Let both networks learn them."""
        rows = torch.arange(self.n_rows)
        return seen.learned(rows, rows)


def training(kind=First, estimator=None, epochs=4, warmup=0, seed=0, **settings):
    """Begin a training on rows of three blobs."""
    rng = np.random.default_rng(seed)
    codes = np.arange(N) % K
    rows = ArrayRows(torch.from_numpy((rng.normal(size=(N, 4)) + 3 * codes[:, None]).astype(np.float32)))
    sizes = {"max_epochs": None if estimator else epochs, "batch_size": None, "lr": None, "verbose": 0}
    nets = two_nets(estimator, None, rows, K, sizes, {}, np.random.RandomState(seed))
    return kind(nets, rows, codes, K, warmup_epochs=warmup, **{"known_rate": 0.2} | settings)


def prototype(**parameters):
    """Make a small network without dropout or noise."""
    return Net(
        MLP, module__n_inputs=4, module__n_classes=K, module__hidden=(8,), module__dropout=0.0,
        module__noise=0.0, max_epochs=4, batch_size=20, verbose=0, **parameters,
    )  # fmt: skip


def seen(n=12, seed=0):
    """What two networks say of a batch."""
    logits = torch.randn((2, n, K), generator=torch.Generator().manual_seed(seed)).requires_grad_()
    target = torch.arange(n) % K
    first, second = torch.log_softmax(logits, dim=2)
    losses = [F.nll_loss(each, target, reduction="none") for each in (first, second)]
    return Seen((first, second), (losses[0], losses[1])), logits, target


# --- the schedule and the choice ------------------------------------------------------------------


def test_the_share_kept_falls_in_a_straight_line_and_stays():
    shares = [kept_share(t, 0.4, 10) for t in range(1, 14)]
    np.testing.assert_allclose(shares[:10], 1 - np.linspace(0.04, 0.4, 10))
    np.testing.assert_allclose(shares[9:], 0.6)
    assert kept_share(5, 0.4, 10, 2.0) == pytest.approx(0.9)
    assert kept_share(3, 0.0, 10) == 1.0


@pytest.mark.parametrize(("share", "n"), [(1.0, 10), (0.7, 7), (0.3, 3), (0.06, 1), (0.0, 1)])
def test_the_smallest_losses_are_kept_and_one_at_least(share, n):
    losses = torch.randn(10, generator=torch.Generator().manual_seed(0))
    assert smallest(losses, share).tolist() == np.argsort(losses.numpy())[:n].tolist()


def test_the_first_of_equal_losses_are_kept_and_of_none_there_are_none():
    assert smallest(torch.tensor([2.0, 1.0, 1.0, 1.0]), 0.5).tolist() == [1, 2]
    assert smallest(torch.zeros(0), 0.5).tolist() == []


def test_rows_that_networks_disagree_on():
    batch, *_ = seen()
    first, second = (each.argmax(1).tolist() for each in batch.log_probs)
    assert disagreeing(batch.log_probs).tolist() == [i for i in range(12) if first[i] != second[i]]
    assert disagreeing((batch.log_probs[0],) * 2).tolist() == []


def test_each_network_learns_the_mean_of_its_own_rows():
    batch, logits, target = seen()
    first, second = torch.tensor([0, 5]), torch.tensor([1, 2, 3])
    found = batch.learned(first, second)
    naive = F.cross_entropy(logits[0, first], target[first]) + F.cross_entropy(
        logits[1, second], target[second]
    )
    assert found.loss.item() == pytest.approx(naive.item(), rel=1e-6)
    floored = batch.learned(first, second, least=0.25)  # of twelve: three
    by_three = batch.losses[0][first].sum() / 3 + batch.losses[1][second].mean()
    assert floored.loss.item() == pytest.approx(by_three.item(), rel=1e-6)
    none = torch.zeros(0, dtype=torch.int64)
    assert batch.learned(none, none).loss.item() == 0.0


def test_symmetric_divergence_is_in_nats():
    batch, logits, _ = seen()
    p, q = logits.softmax(2).detach().numpy()
    naive = (p * np.log(p / q)).sum(1) + (q * np.log(q / p)).sum(1)
    np.testing.assert_allclose(symmetric_kl(*batch.log_probs).detach(), naive, rtol=1e-4)
    np.testing.assert_allclose(consistency(*batch.log_probs).detach(), naive / np.log(2), rtol=1e-4)


# --- an epoch -------------------------------------------------------------------------------------


def test_a_step_is_the_step_of_each_network_on_its_rows():
    class Some(PairTraining):
        def chosen(self, seen):
            return seen.learned(torch.arange(3), torch.arange(5, 12))

    run = training(Some, prototype(lr=0.1))
    x, target = run.rows.data[:20], run.targets[:20]
    expected = []
    for net, rows in zip(run.nets, (slice(3), slice(5, 12)), strict=True):
        net.module_.train()
        loss = F.cross_entropy(net.module_(x)[rows], target[rows])
        weights = list(net.module_.parameters())
        gradients = torch.autograd.grad(loss, weights)
        expected.append([(w - 0.1 * g).detach() for w, g in zip(weights, gradients, strict=True)])
        net.optimizer_ = torch.optim.SGD(weights, lr=0.1)
    learned = torch.zeros((2, N), dtype=torch.bool)
    run._step(run.rows, torch.arange(20), learned, torch.Generator())
    for net, weights in zip(run.nets, expected, strict=True):
        for own, wanted in zip(net.module_.parameters(), weights, strict=True):
            np.testing.assert_allclose(own.detach(), wanted, rtol=1e-4, atol=1e-6)
    assert [row.nonzero()[:, 0].tolist() for row in learned] == [[0, 1, 2], list(range(5, 12))]


def test_an_epoch_shows_both_networks_each_row_once_and_in_the_same_batches():
    class Watching(First):
        inputs: ClassVar = []

        def chosen(self, seen):
            self.inputs.append(len(seen.losses[0]))
            return super().chosen(seen)

    run, bar = training(Watching, prototype()), Bar()
    fed = [[], []]
    for net, batches in zip(run.nets, fed, strict=True):
        net.module_.register_forward_pre_hook(
            lambda module, x, kept=batches: kept.append(x[0].clone()) if module.training else None
        )
    record = run.run_epoch(0, bar)
    assert Watching.inputs == [20, 20, 20] and all(map(torch.equal, *fed))
    assert torch.equal(torch.cat(fed[0]).sort(0).values, run.rows.data.sort(0).values)
    assert record["n_labeled_1"] == record["n_labeled_2"] == 6 == run.labeled[0].sum()
    assert record["phase"] == "selection" and bar.cost == pytest.approx(run.cost(0))


def test_nothing_moves_where_nothing_is_learned():
    class Nothing(First):
        n_rows = 0

    run = training(Nothing, prototype(optimizer__weight_decay=0.1))
    before = [parameter.clone() for net in run.nets for parameter in net.module_.parameters()]
    record = run.run_epoch(0, Bar())
    assert record["loss"] == 0.0 and not run.labeled.any()
    assert all(map(torch.equal, before, (p for net in run.nets for p in net.module_.parameters())))


def test_a_loss_that_is_not_finite_is_an_error():
    class Broken(First):
        def chosen(self, seen):
            found = super().chosen(seen)
            return Learned(found.loss * torch.inf, found.rows)

    with pytest.raises(TrainingDivergedError, match=r"training loss must stay finite, got .* in epoch 1"):
        training(Broken).run_epoch(0, Bar())


def test_callbacks_are_told_of_gradients_and_may_end_the_training():
    class Told(Callback):
        norms: ClassVar = []

        def on_grad_computed(self, net, named_parameters, **kwargs):
            self.norms.append(float(torch.cat([p.grad.flatten() for _, p in named_parameters]).norm()))

    clipping = GradientNormClipping(0.01)
    stopping = EarlyStopping("train_loss", patience=1, threshold=1e9, threshold_mode="abs")
    callbacks = [("clip", clipping), ("told", Told), ("stop", stopping)]
    run = training(estimator=prototype(callbacks=callbacks))
    for epoch in range(2):
        run.run_epoch(epoch, Bar())
    assert len(Told.norms) == 2 * 2 * 3 and max(Told.norms) < 0.0101
    assert run.n_epochs == 2


def test_only_cross_entropy_can_choose():
    with pytest.raises(ParameterError, match="criterion must be CrossEntropyLoss or NLLLoss where networks"):
        training(estimator=prototype(criterion=nn.MSELoss))


# --- the rate -------------------------------------------------------------------------------------


class Noticing(First):
    """Notes the shares that the schedule has."""

    def chosen(self, seen):
        self.shares = [*getattr(self, "shares", []), self.kept_share()]
        return super().chosen(seen)


def test_epochs_of_the_warm_up_count_in_the_schedule():
    run = training(Noticing, prototype(), warmup=2, ramp_epochs=4)
    for epoch in range(4):
        run.run_epoch(epoch, Bar())
    np.testing.assert_allclose(run.shares[::3], [1 - 0.2 * 3 / 4, 0.8])


def test_a_rate_that_is_given_is_not_estimated_and_takes_no_warm_up(blobs):
    fitted = CoTeachingClassifier(max_epochs=3, noise_rate=0.15, random_state=0).fit(blobs.X, blobs.y)
    assert [record["phase"] for record in fitted.history_] == ["selection"] * 3
    assert fitted.verdict_.estimated_noise_rate == pytest.approx(0.15, abs=0.03)
    warmed = CoTeachingClassifier(max_epochs=4, noise_rate=0.3, warmup_epochs=2, random_state=0)
    warmed.fit(blobs.X, blobs.y)
    assert [record["phase"] for record in warmed.history_] == ["warm-up"] * 2 + ["selection"] * 2
    assert warmed.history_[1]["estimated_rate"] == 0.3 and "planted_known" not in warmed.history_[0]


def test_the_warm_up_plants_labels_and_estimates_the_rate(blobs):
    fitted = CoTeachingClassifier(max_epochs=9, random_state=0).fit(blobs.X, blobs.y)
    warm = [record for record in fitted.history_ if record["phase"] == "warm-up"]
    assert len(warm) == 6 and all("planted_known" in record for record in warm)
    assert warm[-1]["estimated_rate"] == pytest.approx(0.15, abs=0.06)


def test_rows_with_planted_labels_are_not_among_those_learned(blobs):
    trainer = CoTeachingClassifier(max_epochs=1, probes=0.1, random_state=0).fit(blobs.X, blobs.y)
    assert trainer.labeled_.sum(axis=1).tolist() == [270, 270]
    with pytest.raises(AttributeError, match="labeled_ is there after fit only"):
        CoTeachingClassifier().labeled_  # noqa: B018


def test_a_verdict_is_warmed_up_on_and_says_the_rate(blobs):
    before = CoTeachingClassifier(max_epochs=6, random_state=0)
    trainer = CoTeachingClassifier(max_epochs=6, filter=before, random_state=0).fit(blobs.X, blobs.y)
    given = trainer.given_verdict_
    phases = [record["phase"] for record in trainer.history_]
    assert phases == ["warm-up"] * 2 + ["selection"] * 4
    assert trainer.history_[1]["estimated_rate"] == given.estimated_noise_rate
    held = CoTeachingClassifier(max_epochs=2, filter=before, split_epochs=5, random_state=0)
    held.fit(blobs.X, blobs.y)
    assert np.array_equal(held.labeled_, np.stack([given.clean_mask] * 2))
    own = CoTeachingClassifier(max_epochs=3, filter=before, noise_rate=0.4, random_state=0)
    assert own.fit(blobs.X, blobs.y).history_[0]["estimated_rate"] == 0.4


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"noise_rate": 1.0}, r"noise_rate must be in \[0, 1\), got 1.0"),
        ({"ramp_epochs": 0}, "ramp_epochs must be a whole number of at least 1, got 0"),
        ({"ramp_power": 0.0}, "ramp_power must be greater than 0 and finite, got 0.0"),
        ({"optimizer": "sgd"}, r"optimizer must be one of \('own', 'adam'\), got 'sgd'"),
        ({"probes": 0.7}, r"probes must be in \[0, 0.5\], got 0.7"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a whole number of at least 0, got -1"),
        ({"warmup_epochs": 0}, "warmup_epochs must be at least 1 where noise_rate is None, got 0"),
        (
            {"probes": 0.1, "filter": CoTeachingClassifier(max_epochs=1)},
            "probes must be None where a filter has judged before, got 0.1",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_parameters_out_of_range(blobs, parameters, message):
    with pytest.raises(ParameterError, match=f"^{message}"):
        CoTeachingClassifier(max_epochs=2, random_state=0, **parameters).fit(blobs.X, blobs.y)


# --- back and forth -------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [2, 5])
def test_a_training_is_taken_up_again_after_any_epoch(blobs, tmp_path, monkeypatch, stopped):
    """After one of the warm-up with its earlier states, and after one of selection."""
    monkeypatch.setattr(estimates, "_FIRST_STEPS", 0)
    given = {"max_epochs": 6, "random_state": 0}
    whole = CoTeachingClassifier(**given).fit(blobs.X, blobs.y)
    run = PairTraining.run_epoch

    def killed(self, epoch, bar):
        if epoch == stopped:
            raise KeyboardInterrupt
        return run(self, epoch, bar)

    monkeypatch.setattr(PairTraining, "run_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        CoTeachingClassifier(checkpoint_dir=tmp_path, **given).fit(blobs.X, blobs.y)
    monkeypatch.setattr(PairTraining, "run_epoch", run)
    resumed = CoTeachingClassifier(checkpoint_dir=tmp_path, **given).fit(blobs.X, blobs.y)
    assert resumed.history_ == whole.history_ and np.array_equal(resumed.labeled_, whole.labeled_)
    assert np.array_equal(resumed.scores_, whole.scores_)
    assert np.array_equal(resumed.predict_proba(blobs.X), whole.predict_proba(blobs.X))
    assert json.loads(json.dumps(whole.history_)) == whole.history_


def test_labels_learned_by_heart_end_the_warm_up_and_both_networks_go_back(monkeypatch):
    run = training(
        estimator=prototype(), warmup=4, known_rate=None, probe_rows=np.arange(6),
        probe_codes=(np.arange(6) + 1) % K,
    )  # fmt: skip
    monkeypatch.setattr(estimates, "memorizes", lambda known, steps: steps == 9)  # in the third epoch
    weights = []
    for epoch in range(3):
        run.run_epoch(epoch, Bar())
        weights.append([net.module_.head.weight.detach().clone() for net in run.nets])
    assert run.warmup_epochs == 3 and run.by_heart and run.rate is not None
    assert all(map(torch.equal, weights[2], weights[0]))
    assert not torch.equal(weights[1][0], weights[0][0])
    assert run.run_epoch(3, Bar())["phase"] == "selection"


def test_the_published_adam_follows_the_epochs_of_the_training():
    run = training(CoTeachingClassifier()._training()[0], epochs=5)
    assert isinstance(run.nets[0].optimizer_, torch.optim.SGD)
    sizes = {"max_epochs": 5, "batch_size": None, "lr": 0.01, "verbose": 0}
    nets = two_nets(None, None, run.rows, K, sizes, {}, np.random.RandomState(0), optimizer="adam")
    run = First(nets, run.rows, run.codes, K, warmup_epochs=1, known_rate=0.1)
    rates, betas = [], []
    for epoch in range(5):
        run.run_epoch(epoch, Bar())
        for net in run.nets:
            (group,) = net.optimizer_.param_groups
            assert isinstance(net.optimizer_, torch.optim.Adam)
            rates.append(group["lr"]), betas.append(group["betas"][0])
    np.testing.assert_allclose(rates[::2], [0.01, 0.01, 0.01, 0.01 * 2 / 3, 0.01 / 3])
    assert betas[::2] == [0.9, 0.9, 0.1, 0.1, 0.1] and rates[::2] == rates[1::2]


def test_wrong_labels_are_left_out_of_batches(blobs):
    y, _ = plant_noise(blobs.truth, "symmetric", 0.3, random_state=0)
    fitted = CoTeachingClassifier(max_epochs=12, noise_rate=0.3, random_state=0).fit(blobs.X, y)
    assert (
        fitted.labeled_[:, y == blobs.truth].mean() > 0.85 > 0.3 > fitted.labeled_[:, y != blobs.truth].mean()
    )
