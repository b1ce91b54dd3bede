"""LossVariationSelector: by hand, against Algorithm 1 written naively, and with everything it accepts."""

import dataclasses
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from skorch import NeuralNetClassifier
from torch import nn

from noisefilter import LossVariationSelector, Net, Signals
from noisefilter.balance import supplement
from noisefilter.errors import InputError, InputTypeError, MissingSignalError, ParameterError
from noisefilter.mixtures import mixture, separation
from noisefilter.networks import PreActResNet18
from noisefilter.variation import loss_variance, rank_variance


class Small(nn.Module):
    def __init__(self, n_inputs=5, n_classes=3):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, 32)
        self.head = nn.Linear(32, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(x.flatten(1))))


class OwnNet(NeuralNetClassifier):
    """A subclass, whose training is its own."""


SKORCH = {"module": Small, "criterion": nn.CrossEntropyLoss, "max_epochs": 12, "lr": 0.2, "batch_size": 16}


def auc(selector, data):
    return roc_auc_score(~data.wrong, selector.scores_)


def assert_same_verdict(one, other):
    for name in ("labels", "classes", "scores", "partition", "alternatives", "transition_matrix"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(one.clean_proba, other.clean_proba)


def history(seed=0, n=240, n_epochs=12, n_classes=3, wrong=0.3, change=None):
    """Signals as of a training: losses of right labels fall early, those of wrong ones unsteadily."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(n_classes, size=n)
    bad = rng.random(n) < wrong
    y = np.where(bad, (truth + 1) % n_classes, truth)
    epochs = np.arange(n_epochs)[:, None]
    level = np.where(bad, 3.0 - 0.1 * epochs, 1.5 * np.exp(-0.5 * epochs))
    losses = level + rng.normal(size=(n_epochs, n)) * np.where(bad, 0.3, 0.05) + 0.5
    predictions = np.where(
        rng.random((n_epochs, n)) < 0.2, rng.integers(n_classes, size=(n_epochs, n)), truth
    )
    probs = 0.7 * np.eye(n_classes)[truth] + 0.3 * rng.dirichlet(np.ones(n_classes), n)
    rates = np.where(np.arange(n_epochs) < (change or n_epochs), 0.1, 0.01)
    near = np.stack([rng.permutation(np.delete(np.arange(n), i))[:8] for i in range(n)])
    signals = Signals(
        losses=losses, predictions=predictions, mean_probs=probs, learning_rates=rates, neighbors=near
    )
    return signals, y, bad


# --- the scores -----------------------------------------------------------------------------------

LOSSES = np.array([[2.0, 2.0, 2.0], [1.0, 1.5, 2.5], [0.0, 2.5, 1.8]])
THREE = Signals(losses=LOSSES, mean_probs=np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]))


@pytest.mark.parametrize(
    ("parameters", "scores"),
    [
        ({"row_score": "variation"}, np.array([0, -0.25, -0.25]) / 9),
        ({"row_score": "raw_variation"}, [0, -(0.75**2), -(0.6**2)]),
        ({"row_score": "loss"}, [0, -2.5, -1.8]),
        ({"row_score": "mean_loss"}, [-1, -2, -2.1]),
        ({"weight": 0.5}, [5 / 6, 5 / 12, 1 / 4]),
        ({}, [5 / 6, 0.1 / 3 + 0.9 / 2, 0.1 / 3 + 0.9 / 6]),
        ({"weight": 1.0}, [5 / 6, 1 / 3, 1 / 3]),
        ({"weight": 0.0}, [5 / 6, 1 / 2, 1 / 6]),
        ({"weight": 0.25}, [5 / 6, 11 / 24, 5 / 24]),
    ],
    ids=str,
)
def test_three_rows_by_hand(parameters, scores):
    selector = LossVariationSelector(split="keep", keep=1 / 3, **parameters)
    verdict = selector.fit_signals(THREE, ["cat", "dog", "dog"]).verdict_
    np.testing.assert_allclose(verdict.scores, scores, atol=1e-12)
    assert verdict.clean_mask.tolist() == [True, False, False]
    assert verdict.suggested_labels.tolist() == ["cat", "cat", "cat"]
    assert verdict.method == "LossVariationSelector" and verdict.classes.tolist() == ["cat", "dog"]


def test_only_the_window_counts_for_the_variation_and_all_epochs_for_the_mean():
    signals, y, _ = history()
    for window in (2, 5, 30):
        found = LossVariationSelector(row_score="variation", window=window).fit_signals(signals, y)
        np.testing.assert_array_equal(found.scores_, -rank_variance(signals.losses, window))
        found = LossVariationSelector(row_score="raw_variation", window=window).fit_signals(signals, y)
        np.testing.assert_array_equal(found.scores_, -loss_variance(signals.losses, window))
        found = LossVariationSelector(row_score="mean_loss", window=window).fit_signals(signals, y)
        np.testing.assert_allclose(found.scores_, -signals.losses.mean(axis=0))


def planted(signals, y, steady):
    """Plant every tenth row; they are unsteady, or of large loss."""
    rows = np.arange(0, len(y), 10)
    losses = signals.losses.copy()
    if steady:
        losses[:, rows] += 5.0
    else:
        losses[:, rows] += np.where(np.arange(len(losses)) % 2, -1.0, 1.0)[:, None]
    return dataclasses.replace(signals, losses=losses, probe_rows=rows, probe_codes=(y[rows] + 1) % 3)


@pytest.mark.parametrize("steady", [True, False])
def test_the_weight_is_the_one_that_ranks_planted_rows_lowest(steady):
    given, y, _ = history(wrong=0.0)
    signals = planted(given, y, steady)
    found = LossVariationSelector(probes=0.1).fit_signals(signals, y)
    others = np.delete(np.arange(len(y)), signals.probe_rows)
    parts = [rankdata(-rank_variance(signals.losses, 10)), rankdata(-signals.losses.mean(axis=0))]
    unplanted = ~np.isin(np.arange(len(y)), signals.probe_rows)
    chosen = parts[1 if steady else 0]
    assert roc_auc_score(unplanted, chosen) > roc_auc_score(unplanted, parts[0 if steady else 1]) + 0.1
    np.testing.assert_allclose(found.scores_[others], ((chosen - 0.5) / len(y))[others], atol=1e-12)
    fixed = LossVariationSelector(weight=0.5).fit_signals(signals, y)
    np.testing.assert_allclose(fixed.scores_[others], ((sum(parts) / 2 - 0.5) / len(y))[others])


def test_a_mix_is_taken_only_where_it_gains_more_than_chance():
    """Half of the planted rows are unsteady, half are of large loss: only together the parts see them all."""
    given, y, _ = history(wrong=0.0, n=600)
    rows = np.arange(0, 600, 10)
    losses = given.losses.copy()
    losses[:, rows[::2]] += 5.0
    losses[:, rows[1::2]] += np.where(np.arange(len(losses)) % 2, -1.0, 1.0)[:, None]
    parts = rankdata(-rank_variance(losses, 10)), rankdata(-losses.mean(axis=0))
    mixes = {t: rankdata(t * parts[0] + (10 - t) * parts[1])[rows] for t in range(11)}
    best = min(mixes, key=lambda t: mixes[t].mean())
    gains = mixes[0] - mixes[best]
    assert 0 < best < 10 and gains.mean() > 2 * gains.std() / np.sqrt(len(rows))
    others = np.delete(np.arange(600), rows)

    def scores(rows):
        told = dataclasses.replace(given, losses=losses, probe_rows=rows, probe_codes=(y[rows] + 1) % 3)
        return LossVariationSelector().fit_signals(told, y).scores_[others]

    expected = ((best * parts[0] + (10 - best) * parts[1]) / 10 - 0.5) / 600
    np.testing.assert_allclose(scores(rows), expected[others])
    for few in (rows[:2], rows[1:2]):  # gains on one of two rows, or on one row, may be chance
        np.testing.assert_allclose(scores(few), ((parts[1] - 0.5) / 600)[others])


def test_planted_rows_are_ranked_by_their_given_labels():
    given, y, _ = history(wrong=0.0)
    signals = planted(given, y, True)
    found = LossVariationSelector().fit_signals(signals, y)
    rows = signals.probe_rows
    own = np.log(given.mean_probs[rows, y[rows]])
    others = given.mean_probs[rows].copy()
    others[np.arange(len(rows)), y[rows]] = 0
    margins = own - np.log(others.max(axis=1))
    assert np.array_equal(rankdata(found.scores_[rows]), rankdata(margins))
    assert abs(found.scores_[rows].mean() - np.delete(found.scores_, rows).mean()) < 0.05


def test_fewer_than_three_epochs_fall_back_to_the_loss(blobs):
    with pytest.warns(UserWarning, match="at least 3 recorded epochs for a variation, got 2"):
        selector = LossVariationSelector(max_epochs=2, random_state=0).fit(blobs.X, blobs.y)
    others = np.delete(np.arange(300), selector.signals_.probe_rows)
    expected = rankdata(-selector.signals_.losses.astype(float).mean(axis=0))
    np.testing.assert_allclose(selector.scores_[others], ((expected - 0.5) / 300)[others])
    with pytest.warns(UserWarning, match="the loss stands in"):
        LossVariationSelector(max_epochs=1, split="paper", random_state=0).fit(blobs.X, blobs.y)


def test_missing_signals_are_named():
    signals, y, _ = history()
    for name, split in (("losses", "auto"), ("mean_probs", "auto"), ("predictions", "paper")):
        with pytest.raises(MissingSignalError, match=rf"^signals\.{name} must be recorded"):
            LossVariationSelector(split=split).fit_signals(dataclasses.replace(signals, **{name: None}), y)
    plain = dataclasses.replace(signals, mean_probs=None, probs=signals.mean_probs)
    assert np.array_equal(
        LossVariationSelector().fit_signals(plain, y).scores_,
        LossVariationSelector().fit_signals(signals, y).scores_,
    )
    with pytest.raises(InputError, match="must hold at least one epoch, got 0"):
        LossVariationSelector().fit_signals(
            Signals(losses=np.zeros((0, 240)), mean_probs=signals.mean_probs), y
        )


# --- a peer ---------------------------------------------------------------------------------------


def test_the_peer_is_read_for_its_small_losses_only():
    signals, y, _ = history()
    other, _, _ = history(seed=1)
    peer = Signals(losses=other.losses[:5])
    for row_score, source in (("mean_loss", peer), ("loss", peer), ("variation", signals)):
        found = LossVariationSelector(row_score=row_score).fit_signals(signals, y, peer=peer)
        alone = LossVariationSelector(row_score=row_score).fit_signals(
            dataclasses.replace(signals, losses=source.losses, predictions=None, learning_rates=None), y
        )
        assert np.array_equal(found.scores_, alone.scores_)
        kept = LossVariationSelector(row_score=row_score).fit_signals(found.signals_, y)
        assert_same_verdict(kept.verdict_, found.verdict_)


def test_a_peer_of_another_shape_is_an_error():
    signals, y, _ = history()
    for peer, message in (
        (Signals(losses=signals.losses[:, 1:]), r"^signals\.peer\.losses must have one entry for each of"),
        (Signals(losses=np.full((4, 240), np.nan)), r"^signals\.peer\.losses must be finite"),
    ):
        with pytest.raises(InputError, match=message):
            LossVariationSelector().fit_signals(signals, y, peer=peer)
    with pytest.raises(MissingSignalError, match="losses must be recorded"):
        LossVariationSelector().fit_signals(signals, y, peer=Signals())
    with pytest.raises(InputTypeError, match="peer must be Signals or None, got ndarray"):
        LossVariationSelector().fit_signals(signals, y, peer=signals.losses)


def test_two_networks_are_trained_alike_and_differ(blobs):
    both = LossVariationSelector(peer=True, max_epochs=4, random_state=0).fit(blobs.X, blobs.y)
    one = LossVariationSelector(max_epochs=4, random_state=0).fit(blobs.X, blobs.y)
    assert np.array_equal(both.signals_.losses, one.signals_.losses) and one.signals_.peer is None
    assert both.signals_.peer.losses.shape == both.signals_.losses.shape
    assert not np.array_equal(both.signals_.peer.losses, both.signals_.losses)
    told = LossVariationSelector().fit_signals(both.signals_, blobs.y)
    assert_same_verdict(told.verdict_, both.verdict_)


# --- the paper's selection ------------------------------------------------------------------------


def naive_selection(signals, y, rho, n_classes, change, balance, window=10, cap=0.1):
    """Algorithm 1 for the last epoch, with sets; distinct variances and losses."""
    n, losses = len(y), signals.losses
    variance, last = rank_variance(losses, window), losses[-1]
    v_c = set(sorted(range(n), key=lambda i: variance[i])[: round(rho * n)])
    g_l = set(np.flatnonzero(mixture(-last, "gaussian").clean).tolist())
    now, first = signals.predictions[-1], signals.predictions[max(0, len(losses) - 1 - window)]
    if change is None:
        d_c = {i for i in v_c & g_l if first[i] == now[i]}
    else:
        adapted = {i for i in range(n) if signals.predictions[change - 1, i] == now[i] == y[i]}
        unstable = sorted((set(range(n)) - v_c) & adapted, key=lambda i: last[i])
        d_c = (v_c & g_l & adapted) | set(unstable[: round(cap * rho * n)])
    if not balance:
        return d_c
    mask = np.isin(np.arange(n), list(d_c))
    near = signals.neighbors if change is None else None
    pool = np.isin(np.arange(n), list(g_l))
    return d_c | set(
        np.flatnonzero(supplement(y, mask, pool, last, round(rho * n / n_classes), near)).tolist()
    )


@pytest.mark.parametrize("change", [None, 6])
@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_selection_against_the_algorithm(change, balance, seed):
    signals, y, bad = history(seed, change=change)
    assert separation(-signals.losses[3]) > 1 and separation(-signals.losses[-1]) > 1
    rho = mixture(-signals.losses[3], "gaussian").clean.mean()
    found = LossVariationSelector(split="paper", balance=balance, warm_up=4).fit_signals(signals, y)
    expected = naive_selection(signals, y, rho, 3, change, balance)
    assert set(np.flatnonzero(found.clean_mask_).tolist()) == expected
    assert found.verdict_.estimated_noise_rate == pytest.approx(1 - rho)
    assert bad[found.clean_mask_].mean() < 0.1 and 80 < len(expected) < 200


def test_the_share_is_taken_after_the_warm_up_from_both_networks():
    signals, y, _ = history(n_epochs=12)
    clean = [mixture(-losses, "gaussian").clean.mean() for losses in signals.losses]
    for warm_up, epoch in ((None, 4), (1, 1), (7, 7), (99, 12)):
        found = LossVariationSelector(split="paper", warm_up=warm_up).fit_signals(signals, y).verdict_
        assert found.estimated_noise_rate == pytest.approx(1 - clean[epoch - 1])
    other, _, _ = history(seed=5)
    peers = mixture(-other.losses[3], "gaussian").clean.mean()
    both = LossVariationSelector(split="paper").fit_signals(signals, y, peer=Signals(losses=other.losses))
    assert both.verdict_.estimated_noise_rate == pytest.approx(1 - (clean[3] + peers) / 2)


@pytest.mark.parametrize(("n_small", "rate"), [(237, 0.05), (3, 0.95)])
def test_the_share_stays_away_from_none_and_all(n_small, rate):
    signals, y, _ = history()
    losses = np.random.default_rng(0).uniform(0, 0.1, signals.losses.shape) + 9 * (np.arange(240) >= n_small)
    signals = dataclasses.replace(signals, losses=losses)
    assert mixture(-losses[0], "gaussian").clean.sum() == n_small
    found = LossVariationSelector(split="paper").fit_signals(signals, y).verdict_
    assert found.estimated_noise_rate == pytest.approx(rate)


def test_where_the_mixture_is_one_hill_the_estimated_rate_stands_in():
    signals, y, _ = history()
    hill = np.random.default_rng(0).normal(size=signals.losses.shape)
    assert max(separation(-losses) for losses in hill[[3, -1]]) < 1
    told = dataclasses.replace(signals, losses=hill)
    rate = LossVariationSelector().fit_signals(told, y).verdict_.estimated_noise_rate
    found = LossVariationSelector(split="paper").fit_signals(told, y).verdict_
    assert 0.1 < rate < 0.6 and found.estimated_noise_rate == pytest.approx(rate, abs=0.01)


def test_rows_of_much_variation_are_limited():
    signals, y, _ = history(change=6)
    counts = [
        LossVariationSelector(split="paper", balance=False, beta_rule="stable", most_unstable=most)
        .fit_signals(signals, y)
        .clean_mask_.sum()
        for most in (0.0, 0.05, None)
    ]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("change", [None, 6])
def test_a_class_without_a_clean_row_is_filled_up_by_the_balance(change):
    """Predictions of one class never settle, so Eq. (6) takes none of its rows."""
    signals, y, _ = history(change=change)
    predictions = signals.predictions.copy()
    predictions[:, y == 1] = np.where(np.arange(12) % 2, 0, 2)[:, None]
    predictions[1, y == 1] = 2 if predictions[-1, y == 1][0] == 0 else 0
    told = dataclasses.replace(signals, predictions=predictions)
    parts = [
        LossVariationSelector(split="paper", balance=balance).fit_signals(told, y).clean_mask_
        for balance in (False, True)
    ]
    assert not parts[0][y == 1].any() and parts[1][y == 1].sum() > 20
    assert (parts[1] | ~parts[0]).all()


def test_without_neighbors_and_learning_rates_the_rest_still_selects():
    signals, y, bad = history()
    told = dataclasses.replace(signals, neighbors=None, learning_rates=None)
    found = LossVariationSelector(split="paper").fit_signals(told, y)
    assert bad[found.clean_mask_].mean() < 0.1 and found.clean_mask_.sum() > 80


def test_permuting_rows_permutes_the_selection():
    for change in (None, 6):
        signals, y, _ = history(change=change)
        order = np.random.default_rng(0).permutation(len(y))
        shuffled = Signals(
            losses=signals.losses[:, order], predictions=signals.predictions[:, order],
            mean_probs=signals.mean_probs[order], learning_rates=signals.learning_rates,
            neighbors=np.argsort(order)[signals.neighbors[order]],
        )  # fmt: skip
        selector = LossVariationSelector(split="paper")
        expected = selector.fit_signals(signals, y).clean_mask_[order]
        assert np.array_equal(selector.fit_signals(shuffled, y[order]).clean_mask_, expected)


def test_planted_rows_are_selected_by_rank():
    given, y, _ = history()
    signals = planted(given, y, True)
    found = LossVariationSelector(split="paper").fit_signals(signals, y)
    rows = signals.probe_rows
    chosen = found.clean_mask_[rows]
    assert 0 < chosen.sum() < len(rows)
    assert found.scores_[rows][chosen].min() > found.scores_[rows][~chosen].max()
    assert abs(chosen.mean() - np.delete(found.clean_mask_, rows).mean()) < 0.15


def test_fit_plants_only_what_is_read(blobs):
    def n_planted(**parameters):
        signals = (
            LossVariationSelector(max_epochs=3, random_state=0, **parameters).fit(blobs.X, blobs.y).signals_
        )
        return 0 if signals.probe_rows is None else len(signals.probe_rows)

    assert n_planted() == n_planted(split="keep", keep=0.5) == n_planted(split="probes") == 30
    assert n_planted(split="keep", keep=0.5, weight=0.5) == n_planted(split="paper") == 0
    assert n_planted(split="keep", keep=0.5, row_score="loss") == n_planted(probes=0.0) == 0


def test_trainings_are_shared_by_filters_that_train_alike():
    def key(**parameters):
        return LossVariationSelector(random_state=0, **parameters)._training_key(0)

    assert key() == key(window=5) == key(split="probes") == key(split="keep", keep=0.5) != key(peer=True)
    assert key() != key(split="keep", keep=0.5, row_score="loss")  # which plants nothing
    assert key(probes=0.0) != key(probes=0.0, split="paper")  # which needs neighbors
    assert key(probes=0.0) == key(probes=0.0, split="paper", balance=False) != key(probes=0.1)


def test_neighbors_are_found_for_the_balance_only(blobs):
    def neighbors(**parameters):
        return (
            LossVariationSelector(max_epochs=3, random_state=0, **parameters).fit(blobs.X, blobs.y).signals_
        )

    assert neighbors(split="paper", n_neighbors=3).neighbors.shape == (300, 3)
    assert neighbors(split="paper", balance=False).neighbors is None and neighbors().neighbors is None
    line = np.stack([np.cos(np.arange(300) / 100), np.sin(np.arange(300) / 100)], axis=1)
    line *= np.random.default_rng(0).uniform(1, 9, size=(300, 1))  # lengths do not matter
    selector = LossVariationSelector(max_epochs=3, split="paper", n_neighbors=2, random_state=0)
    found = selector.fit(blobs.X, blobs.y, features=line).signals_.neighbors
    assert np.array_equal(np.sort(found[1:-1]), np.stack([np.arange(298), np.arange(2, 300)], axis=1))


def test_published_settings(blobs):
    given = LossVariationSelector.as_published(random_state=3).get_params()
    paper = {
        "network": PreActResNet18, "max_epochs": 300, "batch_size": 128, "lr": 0.02, "peer": True,
        "lr_drops": (0.5,), "lr_drop_factor": 10.0, "record": "eval",
        "window": 10, "weight": 0.5, "split": "paper", "warm_up": 10, "beta_rule": "eq5",
        "most_unstable": None, "balance": True, "n_neighbors": 20, "random_state": 3,
    }  # fmt: skip
    assert given == LossVariationSelector().get_params() | paper
    selector = LossVariationSelector.as_published(network=Small, max_epochs=15, batch_size=16, random_state=0)
    selector.fit(blobs.X, blobs.y)
    assert selector.signals_.probe_rows is None and selector.signals_.peer is not None
    assert auc(selector, blobs) > 0.8


# --- training -------------------------------------------------------------------------------------


def test_the_learning_rate_is_divided_as_told(blobs):
    def rates(**parameters):
        selector = LossVariationSelector(max_epochs=8, random_state=0, **parameters)
        return selector.fit(blobs.X, blobs.y).signals_.learning_rates

    np.testing.assert_allclose(rates(), [0.05] * 4 + [0.01] * 2 + [0.002] * 2)
    np.testing.assert_allclose(rates(lr_drops=(0.5,), lr_drop_factor=10), [0.05] * 4 + [0.005] * 4)
    np.testing.assert_allclose(rates(lr_drops=(), lr=0.1), [0.1] * 8)


def test_losses_are_recorded_by_a_pass_if_asked_for(blobs):
    selector = LossVariationSelector(record="eval", max_epochs=4, random_state=0).fit(blobs.X, blobs.y)
    signals = selector.signals_
    trained = blobs.y.copy()
    order = np.array(list(dict.fromkeys(blobs.y)))
    assert sorted(order) == [0, 1, 2]
    trained[signals.probe_rows] = signals.probe_codes
    last = -np.log(signals.probs[np.arange(300), trained])
    np.testing.assert_allclose(signals.losses[-1], last, atol=1e-4)
    assert np.array_equal(signals.predictions[-1], signals.probs.argmax(axis=1))
    default = LossVariationSelector(max_epochs=4, random_state=0).fit(blobs.X, blobs.y).signals_
    assert np.array_equal(default.probs, signals.probs) and not np.allclose(default.losses, signals.losses)
    net = Net(**SKORCH, record_from="evaluation")
    kept = LossVariationSelector(net, random_state=0).fit(blobs.X, blobs.y).signals_
    assert np.array_equal(kept.predictions[-1], kept.probs.argmax(axis=1))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"row_score": "loss"},
        {"row_score": "mean_loss"},
        {"row_score": "mean_loss", "split": "gaussian"},
        {"peer": True},
        {"split": "probes"},
        {"split": "joint"},
        {"split": "keep", "keep": 0.85},
        {"split": "threshold", "threshold": 0.15},
        {"network": Small, "max_epochs": 20},
        {"window": np.int64(5), "batch_size": np.int64(16), "lr": np.float32(0.1)},
    ],
    ids=str,
)
def test_every_choice_finds_the_wrong_labels(blobs, parameters):
    selector = LossVariationSelector(**{"max_epochs": 12, "random_state": 0} | parameters)
    selector.fit(blobs.X, blobs.y)
    assert auc(selector, blobs) > 0.95
    assert (selector.clean_mask_ == ~blobs.wrong).mean() > 0.9


@pytest.mark.parametrize("peer", [False, True])
def test_the_papers_selection_is_purer_than_the_labels(blobs, peer):
    selector = LossVariationSelector(split="paper", peer=peer, max_epochs=15, random_state=0)
    selector.fit(blobs.X, blobs.y)
    assert blobs.wrong[selector.clean_mask_].mean() < 0.05 and selector.clean_mask_.sum() > 100


@pytest.mark.parametrize("kind", [NeuralNetClassifier, OwnNet, Net])
def test_any_network_serves(blobs, kind):
    estimator = kind(**SKORCH, verbose=0)
    selector = LossVariationSelector(estimator, random_state=0).fit(blobs.X, blobs.y)
    assert auc(selector, blobs) > 0.95 and selector.signals_.losses.shape == (12, 300)


def test_what_has_no_epochs_is_refused(blobs):
    with pytest.raises(
        MissingSignalError, match=r"estimator must be a network, .* got RandomForestClassifier"
    ):
        LossVariationSelector(RandomForestClassifier()).fit(blobs.X, blobs.y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"row_score": "best"}, "row_score must be one of"),
        ({"beta_rule": "best"}, "beta_rule must be one of"),
        ({"split": "best"}, "split must be one of"),
        ({"window": 1}, "window must be a whole number of at least 2, got 1"),
        ({"window": None}, "window must be a whole number"),
        ({"window": 2.5}, "window must be a whole number"),
        ({"record": "both"}, "record must be one of"),
        ({"lr_drops": (0.5, 1.0)}, r"lr_drops must be shares in \(0, 1\)"),
        ({"lr_drops": 0.5}, "lr_drops must be shares"),
        (
            {"lr_drops": (0.5,), "estimator": Net(**SKORCH)},
            "lr_drops must be None when an estimator is given",
        ),
        ({"lr_drop_factor": 0}, "lr_drop_factor must be greater than 0"),
        ({"weight": 1.1}, r"weight must be in \[0, 1\]"),
        ({"weight": float("nan")}, r"weight must be in \[0, 1\]"),
        ({"most_unstable": -0.1}, r"most_unstable must be in \[0, 1\]"),
        ({"warm_up": 0}, "warm_up must be a whole number of at least 1"),
        ({"n_neighbors": 0}, "n_neighbors must be a whole number of at least 1"),
        ({"peer": "yes"}, "peer must be True or False, got 'yes'"),
        ({"balance": 1}, "balance must be True or False, got 1"),
        ({"split": "gaussian"}, "row_score must not be 'combined' with split='gaussian'"),
        ({"split": "beta"}, "row_score must not be 'combined' with split='beta'"),
        ({"split": "keep"}, "keep must be given"),
        ({"network": Small()}, "network must be a class"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_one_sentence(blobs, parameters, message):
    selector = LossVariationSelector(**parameters)
    with pytest.raises(ParameterError, match=f"^{message}") as caught:
        selector.fit(blobs.X, blobs.y)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert not hasattr(selector, "verdict_")


# --- inputs ---------------------------------------------------------------------------------------


def fitted_on(X, y, **parameters):
    return LossVariationSelector(**{"max_epochs": 5, "random_state": 0} | parameters).fit(X, y)


@pytest.mark.parametrize("split", ["auto", "paper"])
def test_strings_frames_and_pipelines(blobs, split):
    names = np.array(["cherry", "apple", "banana"])
    plain = fitted_on(blobs.X, blobs.y, split=split, max_epochs=12)
    frame = pd.DataFrame(blobs.X, columns=list("abcde"))
    named = fitted_on(frame, names[blobs.y], split=split, max_epochs=12)
    assert np.array_equal(named.scores_, plain.scores_)
    assert np.array_equal(named.clean_mask_, plain.clean_mask_)
    assert np.array_equal(named.verdict_.suggested_labels, names[plain.verdict_.suggested_labels])
    steps = make_pipeline(
        LossVariationSelector(split=split, max_epochs=12, random_state=0), LogisticRegression()
    )
    assert steps.fit(frame, names[blobs.y]).score(frame, names[blobs.truth]) > 0.95


def test_images_are_judged(images):
    selector = fitted_on(images.X, images.y, max_epochs=12)
    assert auc(selector, images) > 0.95
    color = (np.stack([images.X] * 3, axis=-1) * 255).astype(np.uint8)
    assert fitted_on(color, images.y, split="paper", peer=True).scores_.shape == (120,)


@pytest.mark.parametrize("split", ["auto", "paper"])
def test_a_class_with_one_row_is_judged(blobs, split):
    y = blobs.truth.copy()
    y[17] = 9
    selector = fitted_on(blobs.X, y, split=split, max_epochs=15, probes=0.0)
    assert selector.classes_.tolist() == [0, 1, 2, 9] and not np.isnan(selector.scores_).any()
    assert selector.scores_[17] < np.quantile(selector.scores_, 0.05)
    assert selector.verdict_.alternatives[17] == blobs.truth[17]


def test_score_new_judges_rows_that_arrive_later(blobs):
    names = np.array(["b", "c", "a"])
    selector = fitted_on(blobs.X[:200], names[blobs.y[:200]], max_epochs=10)
    later = selector.score_new(blobs.X[200:], names[blobs.y[200:]])
    assert roc_auc_score(~blobs.wrong[200:], later) > 0.95
    assert selector.scores_.min() <= later.min() and later.max() <= selector.scores_.max()
    np.testing.assert_allclose(
        selector.score_new(blobs.X[200:201], names[blobs.y[200:201]]), later[:1], rtol=1e-4
    )


def test_pickle_keeps_everything(blobs):
    selector = fitted_on(blobs.X, blobs.y, peer=True)
    copy = pickle.loads(pickle.dumps(selector))
    assert_same_verdict(copy.verdict_, selector.verdict_)
    assert np.array_equal(
        copy.score_new(blobs.X[:9], blobs.y[:9]), selector.score_new(blobs.X[:9], blobs.y[:9])
    )


def test_clean_proba_is_calibrated_to_the_rate(blobs):
    verdict = fitted_on(blobs.X, blobs.y, max_epochs=12).verdict_
    assert verdict.clean_proba.mean() == pytest.approx(1 - verdict.estimated_noise_rate, abs=1e-6)
    assert verdict.clean_proba[~blobs.wrong].mean() > verdict.clean_proba[blobs.wrong].mean() + 0.3
    assert (np.diff(verdict.clean_proba[np.argsort(verdict.scores)]) >= 0).all()
