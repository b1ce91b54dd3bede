"""The course of the trainers with one network: planted labels, verdicts, and what is believed."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from noisefilter import (
    ELRClassifier,
    GCEClassifier,
    GCELoss,
    MCorrectionClassifier,
    Net,
    PENCILClassifier,
    SmallLossSelector,
)
from noisefilter.batches import ArrayRows
from noisefilter.errors import InputTypeError, ParameterError
from noisefilter.estimates import corrected_log_odds, estimate_noise_rate, estimate_transition
from noisefilter.net import derived_seed
from noisefilter.networks import MLP
from noisefilter.progress import Progress
from noisefilter.single import SingleTraining, with_criterion

every = pytest.mark.parametrize(
    "kind",
    [GCEClassifier, ELRClassifier, MCorrectionClassifier, PENCILClassifier],
    ids=lambda kind: kind.__name__,
)


class Line(nn.Module):
    """One linear layer: nothing in it is random."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(5, 3)

    def forward(self, x):
        return self.line(x.float())


def begun(blobs, kind=SingleTraining, n_epochs=4, probe_rows=(), probe_codes=(), **settings):
    net = with_criterion(Net(Line, max_epochs=n_epochs, batch_size=16, random_state=0), GCELoss, q=0.5)
    rows = ArrayRows(torch.from_numpy(blobs.X / 5))
    planted = {
        "probe_rows": np.array(probe_rows, dtype=np.int64),
        "probe_codes": np.array(probe_codes, dtype=np.int64),
    }
    return kind(net, rows, blobs.y, 3, **{"warmup_epochs": 2} | planted | settings)


def run(training, n_epochs=4):
    with Progress("test", 1, False) as bar:
        return [training.run_epoch(epoch, bar) for epoch in range(n_epochs)]


def test_planted_labels_are_learned_in_the_warm_up_alone(blobs, monkeypatch):
    seen, own = [], Net.run_epoch
    monkeypatch.setattr(
        Net,
        "run_epoch",
        lambda self, rows, codes, *a, **b: (
            seen.append(codes.numpy().copy()) or own(self, rows, codes, *a, **b)
        ),
    )
    rows = np.arange(0, 300, 10)
    wrong = (blobs.y[rows] + 1) % 3
    records = run(begun(blobs, probe_rows=rows, probe_codes=wrong))
    planted = blobs.y.copy()
    planted[rows] = wrong
    assert [np.array_equal(codes, planted) for codes in seen] == [True, True, False, False]
    assert np.array_equal(seen[2], blobs.y) and np.array_equal(seen[3], blobs.y)
    assert [record["phase"] for record in records] == ["warm-up", "warm-up", "robust", "robust"]
    assert ["planted_known" in record for record in records] == [True, True, False, False]
    assert ["estimated_rate" in record for record in records] == [False, True, False, False]


def test_a_verdict_is_made_half_of_the_warm_up_and_half_of_all_epochs_after_it(blobs):
    training, looks = begun(blobs), []
    with Progress("test", 1, False) as bar:
        for epoch in range(4):
            training.run_epoch(epoch, bar)
            looks.append(training.predict(training.rows).astype(np.float64))
            expected = np.average(looks[:2], axis=0, weights=(0.9, 1.0)[2 - len(looks[:2]) :])
            if epoch == 1:
                assert training.rate == estimate_noise_rate(training.seen_probs(), blobs.y)
            if epoch >= 2:
                np.testing.assert_allclose(training.latest_probs(), np.mean(looks[2:], axis=0), atol=1e-6)
                expected = (expected + np.mean(looks[2:], axis=0)) / 2
            np.testing.assert_allclose(training.seen_probs(), expected, atol=1e-6)
    judged, probs = training.judged(), training.seen_probs()
    transition = estimate_transition(probs, blobs.y, judged.noise_rate)
    assert np.array_equal(judged.scores, corrected_log_odds(probs, blobs.y, transition))
    latest = training.latest_probs()
    beyond = (latest.argmax(axis=1) != blobs.y).mean() - 1.25 * (1 - latest.max(axis=1)).mean()
    assert judged.noise_rate == pytest.approx(max(training.rate, beyond))


def test_an_epoch_is_a_plain_loop_over_the_rows_chosen(blobs):
    """One step a batch of chosen rows, in the order that the seed of the epoch gives."""
    training = begun(blobs, n_epochs=1)
    training.kept = np.arange(300) % 3 == 0
    module = Line()
    module.load_state_dict(training.net.module_.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=training.net.lr)
    seed = np.random.SeedSequence([training.net.seed_, 0]).generate_state(2)[1]
    assert derived_seed(training.net.seed_, 0) != seed
    order = torch.randperm(100, generator=torch.Generator().manual_seed(int(seed)))
    run(training, 1)
    chosen = torch.arange(0, 300, 3)[order].split(16)
    for index in [*chosen[:-2], torch.cat(chosen[-2:])]:  # four rows are too few for a batch
        optimizer.zero_grad()
        p = module(torch.from_numpy(blobs.X / 5)[index]).softmax(1)[torch.arange(len(index)), blobs.y[index]]
        ((1 - p**0.5) / 0.5).mean().backward()
        optimizer.step()
    torch.testing.assert_close(training.net.module_.line.weight, module.line.weight)


@every
def test_wrong_labels_score_lower_and_are_not_learned(kind, blobs):
    model = kind(max_epochs=15, random_state=0).fit(blobs.X, blobs.y)
    assert roc_auc_score(~blobs.wrong, model.scores_) > 0.95
    assert model.score(blobs.X, blobs.truth) > 0.95
    assert model.verdict_.estimated_noise_rate == pytest.approx(0.15, abs=0.06)
    assert (model.verdict_.suggested_labels == blobs.truth).mean() > 0.95


@every
def test_nothing_is_planted_behind_a_filter_whose_clean_rows_alone_are_learned_first(kind, blobs):
    judge = SmallLossSelector(max_epochs=5, random_state=0)
    settings = {"max_epochs": 6, "warmup_epochs": 2, "split_epochs": 3}
    settings |= {"truncation": None} if kind is GCEClassifier else {}
    model = kind(filter=judge, random_state=0, **settings).fit(blobs.X, blobs.y)
    given = model.given_verdict_
    n_clean = int(given.clean_mask.sum())
    assert n_clean < 300
    assert [record["n_learned"] for record in model.history_] == [n_clean] * 3 + [300] * 3
    assert not any("planted_known" in record for record in model.history_)
    assert model.history_[1]["estimated_rate"] == given.estimated_noise_rate
    with pytest.raises(
        ParameterError, match=r"^probes must be None where a filter has judged before, got 0.1"
    ):
        kind(filter=judge, probes=0.1, random_state=0).fit(blobs.X, blobs.y)


@every
def test_a_training_may_be_all_warm_up(kind, blobs):
    model = kind(max_epochs=3, warmup_epochs=7, random_state=0).fit(blobs.X, blobs.y)
    assert [record["phase"] for record in model.history_] == ["warm-up"] * 3
    assert "estimated_rate" in model.history_[-1]


@every
def test_published_settings_are_parameters(kind):
    model = kind.as_published(max_epochs=7)
    assert model.max_epochs == 7 and model.probes == 0.0
    assert repr(kind(**model.get_params(deep=False))) == repr(model)
    model._check_parameters()


@every
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"criterion": nn.NLLLoss}, ParameterError, "estimator.criterion must be .* got NLLLoss"),
        ({"criterion": GCELoss}, ParameterError, "estimator.criterion must be .* got GCELoss"),
        (
            {"criterion__label_smoothing": 0.1},
            ParameterError,
            "estimator.criterion must be .* got CrossEntropyLoss with criterion__label_smoothing",
        ),
    ],
    ids=["another", "robust", "arguments"],
)
def test_a_loss_of_the_prototype_s_own_is_refused(kind, blobs, settings, error, message):
    net = Net(MLP, module__n_inputs=5, module__n_classes=3, **settings)
    with pytest.raises(error, match=f"^{message}"):
        kind(net, random_state=0).fit(blobs.X, blobs.y)


class Subclass(Net):
    pass


@every
def test_a_prototype_with_a_training_of_its_own_is_refused(kind, blobs):
    with pytest.raises(InputTypeError, match=r"^estimator must be .* no subclass, .* got Subclass"):
        kind(Subclass(MLP, module__n_inputs=5, module__n_classes=3), random_state=0).fit(blobs.X, blobs.y)


BAD = {
    GCEClassifier: [
        ({"q": 0.0}, r"q must be in \(0, 1\], got 0.0"),
        ({"truncation": 1}, "truncation must be in"),
        ({"prune_epochs": 0}, "prune_epochs must be a whole number of at least 1, got 0"),
    ],
    ELRClassifier: [
        ({"beta": 1.0}, r"beta must be in \[0, 1\), got 1.0"),
        ({"strength": -1}, "strength must be at least 0 and finite, got -1"),
    ],
    MCorrectionClassifier: [
        ({"mixup_alpha": 0}, "mixup_alpha must be greater than 0"),
        ({"penalty": -1}, "penalty must be at least 0 and finite, got -1"),
    ],
    PENCILClassifier: [
        ({"compatibility": -1}, "compatibility must be at least 0 and finite, got -1"),
        ({"entropy": np.inf}, "entropy must be at least 0 and finite, got inf"),
        ({"label_lr": 0}, "label_lr must be greater than 0 and finite, got 0"),
        ({"correction_epochs": 0}, "correction_epochs must be a whole number of at least 1, got 0"),
        ({"fine_tuning_lr": -1.0}, "fine_tuning_lr must be greater than 0 and finite, got -1"),
    ],
}
SHARED = [
    ({"warmup_epochs": 0}, "warmup_epochs must be a whole number of at least 1, got 0"),
    ({"probes": 0.6}, r"probes must be in \[0, 0.5\], got 0.6"),
    ({"lr_drops": (2.0,)}, r"lr_drops must be shares in \(0, 1\)"),
]


@every
def test_bad_parameters(kind, blobs):
    for parameters, message in BAD[kind] + SHARED:
        with pytest.raises(ParameterError, match=f"^{message}"):
            kind(**parameters, random_state=0).fit(blobs.X, blobs.y)
