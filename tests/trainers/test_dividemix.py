"""DivideMix: divisions against the paper's, what is exchanged, when the warm-up ends, what is learned."""

import json
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.datasets import load_digits, make_blobs
from sklearn.mixture import GaussianMixture
from skorch.callbacks import EarlyStopping
from torch import nn

import noisefilter.budgets as budgets
import noisefilter.cotraining as cotraining
from noisefilter import (
    DivideMixClassifier,
    INNScorer,
    JoSRCClassifier,
    Net,
    estimates,
    plant_noise,
    scores,
    splits,
)
from noisefilter.batches import ArrayRows
from noisefilter.cotraining import Division
from noisefilter.errors import InputTypeError, ParameterError
from noisefilter.metrics import clean_auc
from noisefilter.networks import MLP
from noisefilter.trainers.dividemix import _DivideMix
from noisefilter.twonets import together, two_nets


@pytest.fixture(autouse=True, scope="module")
def from_the_first_step():
    """Let networks be known to memorize in the few steps that a test has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "_FIRST_STEPS", 0)
        yield


class Bar:
    """A progress bar that counts."""

    def __init__(self):
        self.cost = 0.0

    def step(self, cost=1.0):
        self.cost += cost


@pytest.fixture(scope="module")
def digits():
    X, truth = load_digits(return_X_y=True)
    X, truth = X[:600].astype(np.float32), truth[:600]
    return X, truth, plant_noise(truth, "symmetric", 0.4, random_state=0)[0]


def memorizing(epochs, **parameters):
    """A network with room enough to learn wrong labels by heart, and nothing that keeps it from it."""
    return Net(
        MLP, module__n_inputs=64, module__n_classes=10, module__hidden=(128, 128), module__dropout=0.0,
        module__noise=0.0, max_epochs=epochs, batch_size=32, lr=0.05, optimizer=torch.optim.SGD,
        optimizer__momentum=0.9, verbose=0, **parameters,
    )  # fmt: skip


def training(n=60, n_classes=3, epochs=4, warmup=2, seed=0, **parameters):
    """A DivideMix about to start on rows of three blobs, however few its epochs."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    rows = ArrayRows(torch.from_numpy((rng.normal(size=(n, 4)) + 3 * codes[:, None]).astype(np.float32)))
    parameters = {"least_epochs": 0} | parameters
    trainer = DivideMixClassifier(max_epochs=epochs, warmup_epochs=warmup, **parameters)
    return trainer._begin(rows, codes, n_classes, None, None, np.random.RandomState(seed)), trainer


# --- the division ---------------------------------------------------------------------------------


def test_a_division_is_the_mixture_of_two_gaussians_on_scaled_losses():
    run, _ = training(n=300)
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(0.3, 0.1, size=200), rng.normal(2.5, 0.4, size=100)])
    run.losses[0, -1], run.rate, run.n_epochs_seen = losses, 0.3, 2
    scaled = ((losses - losses.min()) / np.ptp(losses))[:, None]
    naive = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=0).fit(scaled)
    w = naive.predict_proba(scaled)[:, naive.means_.argmin()]
    division = run.divided(0)
    np.testing.assert_allclose(division.clean_proba, w, atol=0.02)
    assert np.array_equal(division.labeled, w > 0.5)


def test_a_division_believes_most_of_the_labels_that_are_right():
    rng = np.random.default_rng(0)
    losses = np.concatenate([rng.normal(0.3, 0.05, size=60), rng.uniform(1.0, 3.0, size=240)])
    # Two thirds are right, and a hill of sixty is plain to see.
    for share, heart, least in (
        (0.8, None, 160), (0.0, None, 60), (None, None, 160), (None, True, 160), (None, False, 200),
    ):  # fmt: skip
        run, _ = training(n=300, least_labeled=share)
        run.losses[0, -1], run.rate, run.n_epochs_seen, run.by_heart = losses, 1 / 3, 2, heart
        division = run.divided(0)
        smallest = np.isin(np.arange(300), np.argsort(losses)[:least])
        assert division.labeled.sum() == least and np.array_equal(division.labeled, smallest)
    right = np.exp(-losses)
    odds = np.log(right / (1 - right))
    run, _ = training(n=300)
    run.losses[0, -1], run.rate, run.n_epochs_seen = losses, 1 / 3, 2
    moved = np.log(run.divided(0).clean_proba) - np.log1p(-run.divided(0).clean_proba) - odds
    np.testing.assert_allclose(moved, moved[0], atol=1e-5)
    assert run.divided(0).clean_proba.mean() == pytest.approx(0.8 * 2 / 3)


def test_heavy_noise_averages_five_epochs_of_losses_scaled_one_by_one():
    run, _ = training(n=300)
    rng = np.random.default_rng(0)
    wrong = np.arange(300) >= 200
    for epoch in range(5):  # epochs of different size: unscaled, the last one would decide alone
        run.losses[0, epoch] = 10.0**epoch * (wrong + rng.uniform(0, 1.2, size=300))
    run.n_epochs_seen = 9
    run.rate = 0.3
    alone = run.divided(0).labeled
    run.rate = 0.6  # of three classes: symmetric 0.9 of the papers
    averaged = run.divided(0).labeled
    run.n_epochs_seen = run.warmup_epochs  # nothing of the warm-up but its end
    assert np.array_equal(run.divided(0).labeled, alone)
    run.wanted_epochs, run.n_epochs_seen, run.rate = 5, 9, 0.3
    assert np.array_equal(run.divided(0).labeled, averaged)
    assert np.mean(averaged == ~wrong) > np.mean(alone == ~wrong) + 0.03


def test_where_losses_are_one_hill_their_order_divides_at_the_estimated_rate():
    run, _ = training(n=400)
    losses = np.random.default_rng(0).normal(1.0, 0.1, size=400)
    run.losses[0, -1], run.rate, run.n_epochs_seen = losses, 0.25, 2
    labeled = run.divided(0).labeled
    assert np.array_equal(labeled, losses <= np.sort(losses)[299])


def test_neither_half_of_a_division_can_ruin_the_training():
    run, _ = training(n=400, n_classes=4)
    run.rate, run.n_epochs_seen = 0.0, 2
    run.losses[0, -1] = 1.0  # all alike: everything is believed
    assert run.divided(0).labeled.all()
    losses = np.full(400, 5.0)
    losses[np.arange(400) % 4 == 0] = 0.1  # three classes look wrong from end to end
    run.losses[0, -1] = losses
    labeled = run.divided(0).labeled
    counts = np.bincount(run.codes[labeled], minlength=4)
    assert counts.min() >= 5 and counts[0] == 100


@pytest.mark.parametrize(
    ("n_classes", "rate", "weight"),
    # symmetric 0.2, 0.5, 0.8 and 0.9 of the papers, as shares of wrong labels
    [
        (10, 0.18, 0.0),
        (10, 0.45, 25.0),
        (10, 0.72, 25.0),
        (10, 0.81, 50.0),
        (100, 0.198, 25.0),
        (100, 0.495, 150.0),
        (2, 0.3, 5.0),  # a mean over two classes, not ten
        (15, 0.6, 25.0),
    ],
)
def test_the_weight_of_guesses_follows_the_published_presets(n_classes, rate, weight):
    run, _ = training(n_classes=3)
    run.n_classes, run.rate = n_classes, rate
    assert run.unlabeled_weight() == weight
    run.wanted_weight = 7
    assert run.unlabeled_weight() == 7.0


# --- one epoch ------------------------------------------------------------------------------------


def test_each_network_learns_from_the_division_of_the_other(monkeypatch):
    run, _ = training(warmup=1)
    run.run_epoch(0, Bar())
    asked, learned = [], []

    def divided(self, which):
        asked.append(which)
        return Division(np.full(60, 0.9 - 0.3 * which), np.arange(60) % 2 == which)

    def epoch(net, peer, rows, codes, clean_proba, labeled, **settings):
        learned.append((run.nets.index(net), run.nets.index(peer), float(clean_proba[0]), bool(labeled[0])))
        return dict.fromkeys(("loss", "labeled_loss", "unlabeled_loss", "penalty"), 0.0) | {"n_steps": 3}

    monkeypatch.setattr(_DivideMix, "divided", divided)
    monkeypatch.setattr(cotraining, "mixmatch_epoch", epoch)
    record = run.run_epoch(1, Bar())
    assert asked == [0, 1]
    assert learned == [(0, 1, pytest.approx(0.6), False), (1, 0, pytest.approx(0.9), True)]
    assert record["n_labeled_1"] == record["n_labeled_2"] == 30


def test_both_divisions_are_made_before_either_network_moves_on(monkeypatch):
    run, _ = training(warmup=1)
    run.run_epoch(0, Bar())
    weights = []
    own = _DivideMix.divided

    def divided(self, which):
        weights.append([sum(float(p.detach().sum()) for p in net.module_.parameters()) for net in self.nets])
        return own(self, which)

    monkeypatch.setattr(_DivideMix, "divided", divided)
    run.run_epoch(1, Bar())
    assert weights[0] == weights[1]


class Counted(nn.Module):
    """Counts the rows that go forward through any network of its kind, and those that go back."""

    rows: ClassVar = Counter()

    def __init__(self, n_channels, n_classes):
        super().__init__()
        self.head = nn.Linear(n_channels, n_classes)

    def forward(self, x):
        self.rows["forward"] += len(x)
        output = self.head(x.float().mean((2, 3)) / 255)
        if torch.is_grad_enabled():
            output.register_hook(self.count_back)
        return output

    def count_back(self, gradient):
        self.rows["backward"] += len(gradient)


def passes(record, n, n_test, n_views=2, alone=False):
    """Rows of an epoch: 2 n_L (6 F + 4 T) + 2 N F + 2 n_test F, n_L as the two networks have it.

    F is a row forward, T a row forward and backward. Two of the six F are the peer's. Two things are saved:
    two views that are the same are looked at once, and with nothing to guess there are no unlabeled rows
    beside the labeled ones, and no peer is asked.
    """
    looks = 2 * n + 2 * n_test
    if record["phase"] == "warm-up":
        return Counter(forward=2 * n + looks, backward=2 * n)
    n_labeled = record["n_labeled_1"] + record["n_labeled_2"]
    F, T = (n_views, 2) if alone else (3 * n_views, 4)
    return Counter(forward=n_labeled * (F + T) + looks, backward=n_labeled * T)


@pytest.mark.parametrize(
    ("n_pixels", "parameters", "saved"),
    [(8, {}, {}), (6, {}, {"n_views": 1}), (8, {"clean_threshold": 0.0}, {"alone": True})],
    ids=["as published", "pictures too small for views", "every label believed"],
)
def test_an_epoch_costs_what_the_method_says(n_pixels, parameters, saved):
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    shades = rng.normal(60 + 40 * truth[:, None, None, None], 20, (120, n_pixels, n_pixels, 3))
    X, y = shades.clip(0, 255).astype(np.uint8), np.where(rng.random(120) < 0.3, (truth + 1) % 3, truth)
    settings = {"network": Counted, "batch_size": 16, "warmup_epochs": 1, "probes": 0.0, "device": "cpu"}
    beside = []
    for n_epochs in (2, 5):
        model = DivideMixClassifier(max_epochs=n_epochs, random_state=0, **settings, **parameters)
        Counted.rows.clear()
        model.fit(X[:100], y[:100], eval_set=(X[100:], truth[100:]))
        Counted.rows.subtract(sum((passes(record, 100, 20, **saved) for record in model.history_), Counter()))
        beside.append(dict(Counted.rows))
    sizes = {record["n_labeled_1"] for record in model.history_[1:]}
    assert sizes == {100} if saved.get("alone") else max(sizes) <= 100 - 8  # a batch of the others
    assert beside[0] == beside[1]
    assert beside[0]["backward"] == 0 and 0 <= beside[0]["forward"] < 10  # of one row, to see what comes out


@pytest.mark.parametrize(("n_views", "looks"), [(2, 6), (1, 3)])
def test_the_bar_counts_rows_that_go_forward_in_steps_of_the_warm_up(monkeypatch, n_views, looks):
    run, _ = training(n=96, warmup=1, batch_size=16)
    if n_views == 2:
        run.nets[0].augment = run.nets[1].augment = lambda x, generator: x + 0
    warm_up, mixmatch = Bar(), Bar()
    run.run_epoch(0, warm_up)
    half = Division(np.full(96, 0.9), np.arange(96) < 48)
    monkeypatch.setattr(_DivideMix, "divided", lambda self, which: half)
    run.run_epoch(1, mixmatch)
    step = 16 * 3  # forward, and backward twice as much
    assert warm_up.cost == pytest.approx(2 * (6 + 96 / step))
    assert mixmatch.cost == pytest.approx(2 * (48 * (looks + 4 * 3) + 96) / step)
    assert run.cost(0) == pytest.approx(warm_up.cost) and run.cost(2) == pytest.approx(mixmatch.cost)


def test_the_bar_is_told_of_a_warm_up_that_ends_early(digits):
    run, _ = training(n=96, epochs=9, warmup=4, batch_size=16)
    warm, later = run.cost(0), run.cost(8)
    bar = Bar()
    run.run_epoch(0, bar)
    assert bar.cost == pytest.approx(warm) == pytest.approx(2 * (6 + 96 / 48))
    assert warm == run.cost(3) < run.cost(4) == later
    run.warmup_epochs = 1
    assert run.cost(1) == later


def test_the_weight_of_guesses_rises_with_the_steps(monkeypatch):
    run, _ = training(warmup=1, epochs=6, unlabeled_weight=8.0, ramp_steps=20)
    weights = []

    def epoch(net, *args, unlabeled_weight, **settings):
        weights.append([unlabeled_weight(step) for step in range(5)])
        return dict.fromkeys(("loss", "labeled_loss", "unlabeled_loss", "penalty"), 0.0) | {"n_steps": 5}

    monkeypatch.setattr(cotraining, "mixmatch_epoch", epoch)
    records = [run.run_epoch(e, Bar()) for e in range(6)]
    mine = weights[::2]  # of the first network
    assert mine[0] == [0.0, 0.4, 0.8, 1.2, 1.6] and mine[1][0] == 2.0 and mine[4] == [8.0] * 5
    assert records[1]["unlabeled_weight"] == 2.0 and records[5]["unlabeled_weight"] == 8.0


def test_predictions_are_those_of_the_summed_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 50, 4)) * 3
    probs = softmax(logits, axis=2)
    np.testing.assert_allclose(together(list(probs)), softmax(logits.mean(axis=0), axis=1), atol=1e-6)
    three = np.concatenate([probs, probs[:1]]).astype(np.float32)
    before = three.copy()
    expected = softmax(np.log(three.astype(np.float64)).mean(axis=0), axis=1)
    np.testing.assert_allclose(together(list(three)), expected, atol=1e-6)
    assert np.array_equal(three, before)
    certain = together([np.eye(3), np.eye(3)])
    assert np.isfinite(certain).all() and np.array_equal(certain.argmax(axis=1), np.arange(3))


@pytest.fixture
def learned(monkeypatch):
    """Return the labeled rows that each epoch of MixMatch was called with; nothing is trained."""
    seen = []

    def epoch(net, peer, rows, codes, clean_proba, labeled, **settings):
        seen.append((labeled.numpy().copy(), clean_proba.numpy().copy()))
        return dict.fromkeys(("loss", "labeled_loss", "unlabeled_loss", "penalty"), 0.0) | {"n_steps": 3}

    monkeypatch.setattr(cotraining, "mixmatch_epoch", epoch)
    return seen


def dividing(monkeypatch, *sides):
    """Let network 0 divide so in the epochs after a warm-up of one, and network 1 believe everything."""

    def divided(self, which):
        labeled = sides[self.n_epochs_seen - 1] if which == 0 else np.ones(60, dtype=bool)
        return Division(np.where(labeled, 0.9, 0.1), labeled.copy())

    monkeypatch.setattr(_DivideMix, "divided", divided)


def test_a_division_that_turns_most_rows_over_is_not_taken_but_if_it_lasts(monkeypatch, learned):
    one = np.arange(60) < 20
    half = ~one ^ (np.arange(60) < 30)  # 30 of 60 change sides: not more than half
    dividing(monkeypatch, one, ~one, one, ~one, ~one, half, half ^ (np.arange(60) < 31))
    run, _ = training(warmup=1, epochs=8)
    records = [run.run_epoch(epoch, Bar()) for epoch in range(8)][1:]
    for (labeled, proba), wanted in zip(
        learned[1::2], (one, one, one, one, ~one, half, half), strict=True
    ):  # network 1 learns from it
        assert np.array_equal(labeled, wanted) and np.array_equal(proba > 0.5, wanted)
    assert all(labeled.all() for labeled, _ in learned[::2])
    assert [record["changed_2"] for record in records] == [None, 60, 60, 60, 0, 30, 31]
    assert [record["changed_1"] for record in records] == [None] + [0] * 6
    assert [record["divisions_refused"] for record in records] == [0, 1, 1, 1, 0, 0, 1]
    assert [record["n_labeled_2"] for record in records][:5] == [20, 20, 20, 20, 40]


@pytest.mark.parametrize("forgotten", [(), ("division_",), ("found_",)], ids=str)
def test_the_division_in_use_and_the_newest_one_are_in_the_state(monkeypatch, learned, forgotten):
    one = np.arange(60) < 20
    dividing(monkeypatch, one, ~one, ~one)
    run, _ = training(warmup=1)
    for epoch in range(3):
        run.run_epoch(epoch, Bar())  # the last one is refused
    tensors, rest = run.state()
    again, _ = training(warmup=1)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(forgotten or "-")}
    again.load_state(kept, rest)
    records = [each.run_epoch(3, Bar()) for each in (run, again)]
    assert records[0]["changed_2"] == records[0]["divisions_refused"] == 0
    assert (records[0] == records[1]) is not forgotten


# --- the warm-up ----------------------------------------------------------------------------------


def test_the_warm_up_ends_when_planted_labels_are_learned_by_heart(digits):
    X, _, y = digits
    common = {"random_state": 0, "warmup_epochs": 20}
    found = DivideMixClassifier(memorizing(22), **common).fit(X, y).history_
    warm = [record for record in found if record["phase"] == "warm-up"]
    known = [record["planted_known"] for record in warm]
    assert len(warm) < 20 and known[-1] > 0.1 and max(known[:-1], default=0.0) <= 0.1
    bare = DivideMixClassifier(memorizing(22), probes=0.0, **common).fit(X, y).history_
    assert sum(record["phase"] == "warm-up" for record in bare) == 20
    assert "planted_known" not in bare[0]


def test_networks_that_know_planted_labels_go_back_to_half_of_the_warm_up():
    """The first of two epochs of warm-up, with all that was seen of the rows by then."""
    run, half = heavy(), heavy()
    half.run_epoch(0, Bar())
    wanted, others = half._snapshot()
    for epoch in range(2):
        run.run_epoch(epoch, Bar())
    assert run.by_heart and run.warmup_epochs == 2 and run.early.state() == ({}, {})
    own, rest = run._snapshot()
    assert rest == others and own.keys() == wanted.keys() and "net_1.optimizer.0.momentum_buffer" in own
    for name, tensor in own.items():
        assert torch.equal(tensor, wanted[name]), name


def test_in_the_last_epoch_there_is_nothing_to_go_back_for(monkeypatch):
    ends = []
    for share in (2.0, -2.0):
        run = heavy()
        run.n_epochs = 2
        run.run_epoch(0, Bar())
        monkeypatch.setattr(estimates, "BY_HEART", share)
        run.run_epoch(1, Bar())
        monkeypatch.undo()
        ends.append(run.predict(run.rows))
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize("forgets", [False, True])
def test_a_warm_up_goes_on_from_its_state_with_the_earlier_networks(forgets):
    whole, run, again = heavy(), heavy(), heavy()
    run.run_epoch(0, Bar())
    tensors, rest = run.state()
    again.load_state(tensors, json.loads(json.dumps(rest)))
    if forgets:
        again.early.forget()
    for epoch in range(3):
        expected = whole.run_epoch(epoch, Bar())
    found = [again.run_epoch(epoch, Bar()) for epoch in (1, 2)][-1]
    assert found["phase"] == "mixmatch" and (found == expected) != forgets


def test_planted_labels_are_trained_in_the_warm_up_alone(monkeypatch):
    run, _ = training(n=100, warmup=1, probes=0.2)
    assert len(run.probe_rows) == 20
    assert (run.learned != run.targets).sum() == 20
    run.run_epoch(0, Bar())
    given = []

    def epoch(net, peer, rows, codes, *args, **settings):
        given.append(codes)
        return dict.fromkeys(("loss", "labeled_loss", "unlabeled_loss", "penalty"), 0.0) | {"n_steps": 1}

    monkeypatch.setattr(cotraining, "mixmatch_epoch", epoch)
    run.run_epoch(1, Bar())
    assert all(np.array_equal(codes.numpy(), run.codes) for codes in given)


@pytest.mark.parametrize("warmup", [1, 5])
def test_a_callback_may_end_the_training_in_either_phase(digits, warmup):
    stopping = EarlyStopping("train_loss", patience=2, threshold=9.0)  # no loss improves on a first one so
    prototype = memorizing(9, callbacks=[("stop", stopping)])
    trainer = DivideMixClassifier(prototype, warmup_epochs=warmup, random_state=0)
    trainer.fit(digits[0][:200], digits[2][:200])
    assert len(trainer.history_) == 3 and trainer._fitted.training.n_epochs == 3


@pytest.mark.parametrize("asking", [0, 1])
def test_one_network_ends_the_training_of_both_and_it_stays_so(asking):
    run, _ = training()
    run.nets[asking].notify_epoch_end = lambda rows, codes: True
    run.run_epoch(0, Bar())
    assert run.n_epochs == 1
    again, _ = training()
    again.load_state(*run.state())
    assert again.n_epochs == 1


def test_what_is_kept_predicts_by_the_moving_averages_alone():
    run, _ = training(weight_average=0.9)
    for epoch in range(4):
        run.run_epoch(epoch, Bar())
    rows = run.rows
    students = [net.predict_proba(rows) for net in run.nets]
    with run.answering(0):
        average = run.nets[0].predict_proba(rows)
    before = run.predict(rows)
    run.release()
    assert run.averages is None and np.array_equal(run.predict(rows), before)
    assert np.array_equal(run.nets[0].predict_proba(rows), average)
    assert not np.array_equal(average, students[0])


def test_the_confidence_penalty_is_the_nets_objective():
    plain, punished = training(confidence_penalty=False)[0], training()[0]
    assert {net.objective for net in plain.nets} == {"cross_entropy"}
    assert {net.objective for net in punished.nets} == {"cross_entropy_ne"}


def test_probabilities_of_a_penalized_warm_up_are_read_as_if_it_had_been_none():
    for penalized in (True, False):
        run, _ = training(confidence_penalty=penalized)
        run.run_epoch(0, Bar())
        both = [net.evaluate(run.rows)[0] for net in run.nets]
        told = together([scores.unpenalized(probs) for probs in both] if penalized else both)
        np.testing.assert_allclose(run.seen_probs(), told, atol=1e-6)


def test_a_verdict_is_made_of_the_warm_up_and_of_all_epochs_after_it_half_and_half():
    run, _ = training(warmup=1, weight_average=None)
    seen = []
    for epoch in range(3):
        run.run_epoch(epoch, Bar())
        both = [net.evaluate(run.rows)[0] for net in run.nets]
        # MixMatch has no penalty that would have to be undone.
        seen.append(together([scores.unpenalized(probs) for probs in both] if epoch == 0 else both))
    np.testing.assert_allclose(run.seen_probs(), seen[0] / 2 + (seen[1] + seen[2]) / 4, atol=1e-6)
    run.prob_sum[:], run.n_seen = 0.0, 0.0  # as an interrupt leaves them between the two
    np.testing.assert_allclose(run.seen_probs(), seen[0], atol=1e-6)


def test_a_verdict_flags_at_least_what_is_contradicted_beyond_doubt():
    run, _ = training(n=60)
    run.run_epoch(0, Bar())
    run.rate = 0.05
    wrong = np.linspace(0.03, 0.05, 60)  # each of two
    sure = np.repeat(wrong[:, None], 3, axis=1)
    sure[np.arange(60), run.codes] = 1 - 2 * wrong
    contradicted = np.arange(60) % 3 == 0  # twenty of sixty
    sure[contradicted] = np.roll(sure[contradicted], 1, axis=1)
    run.prob_sum, run.n_seen = sure.astype(np.float32), 1.0
    assert run.judged().noise_rate == pytest.approx(1 / 3 - 1.25 * 0.08)
    assert (~run.judged().clean).sum() == 14 and contradicted[~run.judged().clean].all()
    run.rate = 0.3
    assert run.judged().noise_rate == 0.3
    doubtful = np.full((60, 3), 0.25)
    doubtful[np.arange(60), (run.codes + contradicted) % 3] = 0.5
    run.prob_sum, run.rate = doubtful.astype(np.float32), 0.05
    assert run.judged().noise_rate == 0.05


def test_where_every_label_is_believed_history_says_that_training_is_supervised(monkeypatch):
    run, _ = training(warmup=1)
    run.run_epoch(0, Bar())
    everything = Division(np.ones(60), np.ones(60, dtype=bool))
    monkeypatch.setattr(_DivideMix, "divided", lambda self, which: everything)
    record = run.run_epoch(1, Bar())
    assert record["phase"] == "supervised" and record["unlabeled_loss"] == 0.0


# --- too few epochs for guesses -------------------------------------------------------------------

EARLY, LATE = 3, 6  # epochs


@pytest.fixture
def poor(monkeypatch):
    """Let no guesses be good enough."""
    monkeypatch.setattr(budgets, "_POOR", 1.1)


def late(**parameters):
    """A DivideMix that has learned nothing by heart with three epochs left, on rows of three blobs."""
    settings = {"least_epochs": 15, "probes": 0.1, "batch_size": 16} | parameters
    run, _ = training(n=90, epochs=LATE, warmup=EARLY, **settings)
    run.codes[:12] = (run.codes[:12] + 1) % 3
    run.targets[:] = torch.from_numpy(run.codes)
    return run


def test_with_few_epochs_left_the_warm_up_goes_on_with_the_labels_believed(poor, monkeypatch):
    run = late()
    seen = []
    own = Net.run_epoch

    def run_epoch(self, rows, targets, epoch, bar):
        seen.append((rows.take(torch.arange(len(rows))).numpy().copy(), targets.numpy().copy()))
        return own(self, rows, targets, epoch, bar)

    monkeypatch.setattr(Net, "run_epoch", run_epoch)
    records = [run.run_epoch(epoch, Bar()) for epoch in range(EARLY - 1)]
    assert [len(rows) for rows, _ in seen] == [90] * 4
    records.append(run.run_epoch(EARLY - 1, Bar()))
    rate, believed = run.rate, run.labeled[0]
    assert run.by_heart is False and 60 <= believed.sum() < 90
    assert np.array_equal(believed, run.judged().clean) and np.array_equal(run.labeled[0], run.labeled[1])
    records += [run.run_epoch(epoch, Bar()) for epoch in range(EARLY, LATE)]
    assert [record["phase"] for record in records] == ["warm-up"] * EARLY + ["supervised"] * 3
    X = run.rows.take(torch.arange(90)).numpy()
    for rows, targets in seen[2 * EARLY :]:  # the planted labels are gone
        assert np.array_equal(rows, X[believed]) and np.array_equal(targets, run.codes[believed])
    assert records[-1]["n_labeled_1"] == records[-1]["n_labeled_2"] == believed.sum()
    assert run.rate == rate and run.n_epochs_seen == LATE
    assert run.n_seen == pytest.approx(sum(0.9**k for k in range(LATE)))  # the verdict is of all epochs


def test_no_class_is_left_out_where_few_labels_are_believed():
    run = late()
    clean = run.codes > 0
    run._stay_plain(splits.Split(clean=clean, clean_proba=np.full(90, 0.3), threshold=0.0, noise_rate=0.3))
    assert np.bincount(run.codes[run.warmup], minlength=3)[0] == 5 and clean[run.warmup].sum() == clean.sum()


def test_it_says_so_where_there_are_too_few_epochs_for_guesses(poor, digits):
    X, _, y = digits
    said = (
        "max_epochs must leave at least 15 epochs or 3,000 steps to learn from guessed labels, got 2. "
        "Plain training on the "
    )
    short = DivideMixClassifier(max_epochs=5, random_state=0)
    with pytest.warns(UserWarning, match=said) as caught:
        short.fit(X, y)
    assert [each.filename for each in caught] == [__file__]  # the line of the user, not one of ours
    assert [record["phase"] for record in short.history_] == ["warm-up"] * 3 + ["supervised"] * 2
    assert short.labeled_[0].sum() == short.history_[-1]["n_labeled_1"] < len(y)


@pytest.mark.parametrize("parameters", [{"least_epochs": 0}, {"least_epochs": 3}])
def test_guesses_are_tried_where_that_is_asked_for_or_epochs_are_left(poor, parameters):
    run = late(**parameters)
    phases = [run.run_epoch(epoch, Bar())["phase"] for epoch in range(LATE)]
    assert run.by_heart is False and phases == ["warm-up"] * EARLY + ["mixmatch"] * 3


@pytest.mark.parametrize(
    ("by_heart", "right", "n_steps"),
    [(True, 0.79, 3_000), (None, 0.79, 3_000), (False, 0.8, 3_000), (False, 0.79, 3 * 6)],
)
def test_guesses_are_tried_where_they_are_good_or_nobody_knows_or_steps_are_left(by_heart, right, n_steps):
    run = late()
    run.by_heart, run.guessed_right, run.budget = by_heart, right, budgets.Budget(15, n_steps)
    assert not run._is_late()
    run.by_heart, run.guessed_right, run.budget = False, 0.79, budgets.Budget(15, 3 * 6 + 1)
    assert run._is_late()


def test_guesses_are_measured_on_rows_with_planted_labels():
    run = late(least_epochs=0)
    for epoch in range(EARLY):
        run.run_epoch(epoch, Bar())
    guesses = run.seen_probs().argmax(axis=1)
    right = [guesses[row] == run.codes[row] for row in run.probe_rows]
    a = np.mean(right) - np.sqrt(np.mean(right) * (1 - np.mean(right)) / len(right))
    chance = run.rate / 2  # that a wrong guess hits a wrong label, of three classes
    assert run.guessed_right == pytest.approx(min(1.0, (a - chance) / (1 - run.rate - chance)))


@pytest.mark.parametrize("stop", [EARLY, EARLY + 1])
def test_a_plain_training_goes_on_from_its_state_with_the_same_bits(poor, stop):
    run = late()
    for epoch in range(stop):
        run.run_epoch(epoch, Bar())
    tensors, rest = run.state()
    rest = json.dumps(rest)
    ends = []
    for each in (run, late(), late(), late()):
        if each is not run:
            each.load_state(tensors, json.loads(rest))
        if len(ends) == 2:  # forgotten, it would end otherwise
            each.warmup = np.arange(90)
        if len(ends) == 3:
            each.learned[each.probe_rows] = torch.from_numpy(each.probe_codes)
        for epoch in range(stop, LATE):
            each.run_epoch(epoch, Bar())
        ends.append(each.judged().scores.tobytes() + each.predict(each.rows).tobytes())
    assert ends[0] == ends[1] != ends[2] and ends[1] != ends[3]


# --- a training that is taken up again ------------------------------------------------------------

STOPPED, ENDS = 5, 8  # epochs


def heavy():
    """Return a DivideMix that remembers much: two epochs of warm-up of nine, then losses of five epochs."""
    X, truth = make_blobs(240, n_features=64, centers=10, cluster_std=6.0, random_state=0)
    y = plant_noise(truth, "symmetric", 0.3, random_state=0)[0]
    trainer = DivideMixClassifier(
        memorizing(ENDS), warmup_epochs=7, loss_epochs=5, unlabeled_weight=10.0, ramp_steps=300,
        weight_average=0.95,
    )  # fmt: skip
    rows = ArrayRows(torch.from_numpy(X.astype(np.float32)))
    return trainer._begin(rows, y, 10, None, None, np.random.RandomState(0))


def ended(run):
    """Run the epochs that are left; returns all that can be seen of the training."""
    records = [run.run_epoch(epoch, Bar()) for epoch in range(STOPPED, ENDS)]
    judged = run.judged()
    return json.dumps(records), run.predict(run.rows).tobytes(), judged.scores.tobytes(), judged.noise_rate


@pytest.fixture(scope="module")
def stopped():
    """Return a state in the middle, as a checkpoint has it, and what would have come of the training."""
    run = heavy()
    phases = [run.run_epoch(epoch, Bar())["phase"] for epoch in range(STOPPED)]
    assert phases == ["warm-up"] * 2 + ["mixmatch"] * 3  # the planted labels ended it
    tensors, rest = run.state()
    return tensors, json.dumps(rest), ended(run)


def test_a_training_goes_on_from_its_state_with_the_same_bits(stopped):
    tensors, rest, whole = stopped
    for _ in range(2):  # what was loaded is a copy
        again = heavy()
        again.load_state(tensors, json.loads(rest))
        assert again.by_heart is True  # unknown would divide alike here, but not everywhere
        assert ended(again) == whole


@pytest.mark.parametrize(
    "forgotten",
    ["warmup_epochs", "losses", "prob_sum", "n_seen", "n_epochs_seen", "rate", "n_ssl_steps", "averages",
     "kept", "first_probs"],
)  # fmt: skip
def test_nothing_in_the_state_could_be_left_out(stopped, forgotten):
    """Were it, the test above would fail."""
    tensors, rest, whole = stopped
    again = heavy()
    new = getattr(again, forgotten)
    again.load_state(tensors, json.loads(rest))
    setattr(again, forgotten, new)
    if forgotten == "n_seen":  # then the averaged predictions are no probabilities
        with pytest.raises(ParameterError, match=r"noise_rate must be in \[0, 1\]"):
            ended(again)
    else:
        assert ended(again) != whole


def test_averages_go_on_with_as_many_steps_as_they_had(stopped):
    tensors, rest, whole = stopped
    again = heavy()
    again.load_state(tensors, json.loads(rest))
    again.averages[1].n_steps = 0
    assert ended(again) != whole


# --- a verdict to start from ----------------------------------------------------------------------


def test_a_verdict_given_is_warmed_up_on_and_held(digits):
    X, _, y = digits
    filter_ = INNScorer(max_epochs=8, random_state=0)
    model = DivideMixClassifier(max_epochs=9, warmup_epochs=3, split_epochs=3, filter=filter_, random_state=0)
    model.fit(X, y)
    clean = model.given_verdict_.clean_mask
    sizes = [record["n_labeled_1"] for record in model.history_[3:]]
    assert sizes[:3] == [clean.sum()] * 3
    assert len(set(sizes[3:]) - {clean.sum()}) >= 1
    assert model.verdict_.estimated_noise_rate == model.given_verdict_.estimated_noise_rate


@pytest.mark.parametrize("kind", [DivideMixClassifier, JoSRCClassifier], ids=lambda kind: kind.__name__)
def test_a_filter_that_rejects_everything_is_named_and_softened(digits, kind):
    X, truth, y = digits
    filter_ = INNScorer(max_epochs=5, split="keep", keep=0.0, random_state=0)
    model = kind(max_epochs=6, filter=filter_, random_state=0)
    with pytest.warns(UserWarning, match="must leave at least 50 clean rows, got 0 of 600"):
        model.fit(X, y)
    assert not model.given_verdict_.clean_mask.any()
    assert model.score(X, truth) > 0.3


# --- what is learned ------------------------------------------------------------------------------


def test_it_does_not_learn_the_wrong_labels_that_plain_training_learns(digits):
    X, truth, y = digits
    train, test = np.arange(600) < 450, np.arange(600) >= 450
    model = DivideMixClassifier(memorizing(30), random_state=0).fit(X[train], y[train])
    plain = memorizing(30, random_state=0).fit(X[train], y[train])
    robust = np.mean(model.predict(X[test]) == truth[test])
    assert robust > np.mean(plain.predict(X[test]) == truth[test]) + 0.1
    assert clean_auc(model.verdict_.scores, y[train] != truth[train]) > 0.9


def test_clean_labels_are_left_alone(digits):
    X, truth, _ = digits
    model = DivideMixClassifier(max_epochs=20, random_state=0).fit(X, truth)
    assert model.verdict_.noise_rate < 0.02
    assert model.score(X, truth) > 0.95


def test_labels_without_any_sense_are_no_error(digits):
    X, truth, _ = digits
    y = np.random.default_rng(0).integers(10, size=len(truth))
    model = DivideMixClassifier(max_epochs=4, warmup_epochs=2, random_state=0).fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all() and np.isfinite(model.verdict_.scores).all()


# --- parameters -----------------------------------------------------------------------------------


def test_as_published_spells_out_the_paper():
    published = DivideMixClassifier.as_published(unlabeled_weight=0.0).get_params()
    wanted = {
        "max_epochs": 300, "warmup_epochs": 10, "batch_size": 128, "lr": 0.02, "temperature": 0.5,
        "mixup_alpha": 4.0, "clean_threshold": 0.5, "penalty": 1.0, "unlabeled_weight": 0.0, "probes": 0.0,
        "weight_average": None, "lr_drops": (0.5,), "lr_drop_factor": 10.0, "loss_epochs": 1,
    }  # fmt: skip
    assert {name: published[name] for name in wanted} == wanted


def test_two_networks_differ_in_their_seed_alone():
    rows = ArrayRows(torch.zeros((20, 4)))
    settings = {"max_epochs": 3, "batch_size": None, "lr": None, "verbose": 0}
    rng = np.random.RandomState(0)
    first, second = two_nets(memorizing(3, random_state=5), None, rows, 10, {**settings, "max_epochs": None},
                             {"objective": "cross_entropy"}, rng)  # fmt: skip
    assert first.random_state != second.random_state
    assert first.lr == second.lr == 0.05 and first.max_epochs == 3


class Own(Net):
    """A net whose training is its own."""


def test_nets_of_another_training_are_refused(digits):
    X, _, y = digits
    own = Own(MLP, module__n_inputs=64, module__n_classes=10)
    with pytest.raises(InputTypeError, match="estimator must be a skorch NeuralNetClassifier"):
        DivideMixClassifier(own).fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"warmup_epochs": 0}, "warmup_epochs must be a whole number of at least 1, got 0"),
        ({"probes": 0.6}, r"probes must be in \[0, 0.5\], got 0.6"),
        ({"loss_epochs": 0}, "loss_epochs must be a whole number of at least 1, got 0"),
        ({"lr_drops": (2,)}, r"lr_drops must be shares in \(0, 1\), got \(2,\)"),
        ({"probes": 0.1, "filter": INNScorer(max_epochs=1)}, "probes must be None where a filter has judged"),
        ({"clean_threshold": 1.5}, r"clean_threshold must be in \[0, 1\], got 1.5"),
        ({"unlabeled_weight": -1}, "unlabeled_weight must be 'auto' or at least 0 and finite, got -1"),
        (
            {"unlabeled_weight": "much"},
            "unlabeled_weight must be 'auto' or at least 0 .*, got 'much'",
        ),
        ({"ramp_steps": 1.5}, "ramp_steps must be a whole number of at least 0, got 1.5"),
        ({"temperature": 0}, "temperature must be greater than 0 and finite, got 0"),
        ({"mixup_alpha": 0}, "mixup_alpha must be greater than 0 and finite, got 0"),
        ({"penalty": -1}, "penalty must be at least 0 and finite, got -1"),
        ({"weight_average": 1.0}, r"weight_average must be in \[0, 1\) or None, got 1.0"),
        ({"confidence_penalty": 1}, "confidence_penalty must be True or False, got 1"),
    ],
)
def test_bad_parameters(digits, parameters, message):
    X, _, y = digits
    with pytest.raises(ValueError, match=message):
        DivideMixClassifier(**parameters).fit(X, y)
