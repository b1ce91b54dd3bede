"""UNICON: the uniform selection by plain loops, what is learned beside MixMatch, going on from a state."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import noisefilter.cotraining as cotraining
from noisefilter import INNScorer, UNICONClassifier, estimates, plant_noise
from noisefilter.augment import StrongViews
from noisefilter.batches import ArrayRows

N, K = 120, 4


@pytest.fixture(autouse=True, scope="module")
def from_the_first_step():
    """Let networks be known to memorize in the few steps that a test has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "_FIRST_STEPS", 0)
        yield


class Bar:
    """A progress bar that is told nothing."""

    def step(self, cost=1.0):
        pass


def training(seed=0, images=False, epochs=5, **parameters):
    """A UNICON about to start on rows of four blobs, or pictures, a third of which have another label."""
    rng = np.random.default_rng(seed)
    truth = np.arange(N) % K
    codes = np.where(rng.random(N) < 1 / 3, (truth + rng.integers(1, K, size=N)) % K, truth)
    X = (rng.normal(size=(N, 4)) + 3 * np.eye(K)[truth]).astype(np.float32)
    if images:
        X = np.repeat(X, 16, axis=1).reshape(N, 1, 8, 8)
    settings = {"max_epochs": epochs, "warmup_epochs": 2, "probes": 0.0, "least_epochs": 0}
    trainer = UNICONClassifier(**settings | parameters)
    trainer._check_parameters()
    return trainer._begin(ArrayRows(torch.from_numpy(X)), codes, K, None, None, np.random.RandomState(seed))


def seen(run, seed=0):
    """Let a training have seen what two networks might predict after its warm-up; returns both."""
    rng = np.random.default_rng(seed)
    right = np.eye(K)[np.where(rng.random(N) < 0.7, run.codes, (run.codes + 1) % K)]
    both = [(4 * right + rng.dirichlet(np.ones(K), size=N)).astype(np.float32) / 5 for _ in range(2)]
    run._note(both)
    run.rate, run.n_epochs_seen, run.by_heart = 0.0, 2, True
    return both


# --- the division ---------------------------------------------------------------------------------


def naive_divergence(first, second, label):
    """The Jensen-Shannon divergence of the mean prediction and the label, in nats."""
    found = 0.0
    for k in range(K):
        p, q = (first[k] + second[k]) / 2, float(k == label)
        m = (p + q) / 2
        found += (p * math.log(p / m) if p else 0.0) / 2 + (q * math.log(q / m) if q else 0.0) / 2
    return found


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_a_division_believes_as_many_labels_of_each_class_the_nearest(least):
    run = training(least_labeled=least)
    first, second = seen(run)
    run.rate = 0.1
    d = [naive_divergence(*each) for each in zip(first, second, run.codes, strict=True)]
    np.testing.assert_allclose(run.divergence, d, atol=1e-6)
    share = sum(each < sum(d) / N for each in d) / N
    share = max(share, least * 0.9)
    expected = set()
    for k in range(K):
        own = sorted((i for i in range(N) if run.codes[i] == k), key=lambda i: d[i])
        expected |= set(own[: round(share * N / K)])
    for which in range(2):  # both networks share it
        division = run.divided(which)
        assert set(np.flatnonzero(division.labeled)) == expected and K * 5 < len(expected) < N
        weights = [1.0 if each < 0.5 else 1.0 - each for each in d]
        np.testing.assert_allclose(division.clean_proba, weights, atol=1e-6)
    assert 0 < np.mean(division.clean_proba == 1.0) < 1


def test_a_label_that_nobody_predicts_is_the_logarithm_of_two_away():
    run = training()
    wrong = np.eye(K, dtype=np.float32)[(run.codes + 1) % K]
    run._note([wrong, wrong])
    np.testing.assert_allclose(run.divergence, 0.6931, atol=5e-5)


def test_a_class_with_too_few_rows_is_believed_entirely():
    run = training(least_labeled=1.0)
    seen(run)
    run.codes = np.where(np.arange(N) < 6, 3, np.arange(N) % 3)
    division = run.divided(0)
    assert division.labeled[run.codes == 3].all() and not division.labeled.all()


# --- what is learned ------------------------------------------------------------------------------


def asked(run, monkeypatch):
    """Run the epoch after the warm-up; returns what MixMatch was told of both networks, and the record."""
    told, own = [], cotraining.mixmatch_epoch

    def epoch(*args, **settings):
        told.append(settings)
        return own(*args, **settings)

    monkeypatch.setattr(cotraining, "mixmatch_epoch", epoch)
    for number in range(3):
        record = run.run_epoch(number, Bar())
    return told, record


@pytest.mark.parametrize(("images", "strong"), [(True, True), (True, False), (False, True)])
def test_strong_views_are_learned_of_images_alone(monkeypatch, images, strong):
    told, _ = asked(training(images=images, strong_views=strong), monkeypatch)
    for settings in told:
        assert isinstance(settings["learned_views"], StrongViews if images and strong else type(None))


def test_unlabeled_rows_are_as_many_as_the_share_believed_says(monkeypatch):
    told, record = asked(training(), monkeypatch)
    assert told[0]["unlabeled_ratio"] == told[1]["unlabeled_ratio"] == 0.5 / record["clean_share"]
    run = training(least_labeled=0.0)
    seen(run)
    run.divergence[:] = np.arange(N) != 0  # all but one above the mean
    assert run.unlabeled_ratio() == 5.0


def test_each_network_has_a_contrast_of_its_own_that_learns(monkeypatch):
    run = training(contrast_weight=0.3, contrast_temperature=0.2)
    before = [[each.clone() for each in contrast.projection.parameters()] for contrast in run.contrasts]
    told, record = asked(run, monkeypatch)
    for which, contrast in enumerate(run.contrasts):
        assert told[which]["beside"] is contrast
        assert (contrast.weight, contrast.temperature) == (0.3, 0.2)
        assert contrast.optimizer.param_groups[0]["lr"] == record["lr"]
        moved = zip(before[which], contrast.projection.parameters(), strict=True)
        assert all(not torch.equal(one, other) for one, other in moved)
    assert not torch.equal(before[0][0], before[1][0])
    assert record["contrast_loss"] == pytest.approx(np.mean([each.mean_loss() for each in run.contrasts]))


def test_without_its_weight_there_is_no_contrast(monkeypatch):
    told, record = asked(training(contrast_weight=0.0), monkeypatch)
    assert "contrast_loss" not in record and told[0]["beside"] is None


# --- as a trainer ---------------------------------------------------------------------------------


def ended(run, start):
    records = [run.run_epoch(epoch, Bar()) for epoch in range(start, 5)]
    return json.dumps(records), run.predict(run.rows).tobytes(), run.judged().scores.tobytes()


def test_a_training_goes_on_from_its_state_with_the_same_bits():
    run = training(contrast_weight=0.5)
    for epoch in range(3):
        run.run_epoch(epoch, Bar())
    tensors, rest = run.state()
    tensors, rest = {name: torch.as_tensor(each).clone() for name, each in tensors.items()}, json.dumps(rest)
    whole = ended(run, 3)
    again = training(contrast_weight=0.5)
    again.load_state(tensors, json.loads(rest))
    assert ended(again, 3) == whole
    for forgotten in ("contrast_1.projection", "contrast_0.optimizer", "own.divergence"):
        other = training(contrast_weight=0.5)
        new, _ = other.state()
        partly = {
            name: new.get(name, torch.zeros_like(each)) if name.startswith(forgotten) else each
            for name, each in tensors.items()
        }
        assert any(name.startswith(forgotten) for name in tensors), forgotten
        other.load_state(partly, json.loads(rest))
        assert ended(other, 3) != whole, forgotten


def test_networks_that_go_back_take_the_divergence_along():
    run = training()
    both = seen(run)
    earlier = run._snapshot()
    run._note(both[::-1][:1] * 2)
    assert not np.array_equal(run.divergence, earlier[0]["divergence"])
    run._go_back(*earlier)
    assert np.array_equal(run.divergence, earlier[0]["divergence"])


@pytest.fixture(scope="module")
def digits():
    X, truth = load_digits(return_X_y=True)
    X, truth = X[:500].astype(np.float32), truth[:500]
    return X, truth, plant_noise(truth, "symmetric", 0.4, random_state=0)[0]


def test_a_filter_before_it_divides_first(digits):
    X, truth, y = digits
    model = UNICONClassifier(
        max_epochs=12, warmup_epochs=3, filter=INNScorer(max_epochs=5), split_epochs=4, random_state=0
    )
    history = model.fit(X, y).history_
    assert len({each["n_labeled_1"] for each in history[3:7]}) == 1
    held = {each["clean_share"] for each in history[3:7]}
    assert held == {history[3]["n_labeled_1"] / 500} and history[7]["clean_share"] not in held
    assert model.score(X, truth) > 0.9


def test_as_published_spells_out_the_paper():
    published = UNICONClassifier.as_published(unlabeled_share=1.0).get_params()
    wanted = {
        "max_epochs": 350, "warmup_epochs": 10, "batch_size": 128, "lr": 0.02, "temperature": 0.5,
        "mixup_alpha": 4.0, "unlabeled_weight": 30.0, "contrast_weight": 0.025, "contrast_temperature": 0.05,
        "unlabeled_share": 1.0, "probes": 0.0, "weight_average": None, "strong_views": True,
    }  # fmt: skip
    assert {name: published[name] for name in wanted} == wanted


class Averages(torch.nn.Module):
    """A network without a linear layer."""

    def __init__(self, n_inputs, n_classes):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(n_inputs, n_classes))

    def forward(self, x):
        return x @ self.weight


def test_a_network_without_a_linear_layer_has_nothing_to_contrast():
    with pytest.raises(ValueError, match=r"network must have a linear layer, .* got Averages"):
        training(network=Averages)
    assert training(network=Averages, contrast_weight=0.0).run_epoch(0, Bar())["phase"] == "warm-up"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"unlabeled_share": 0}, "unlabeled_share must be greater than 0 and finite, got 0"),
        ({"strong_views": "no"}, "strong_views must be True or False, got 'no'"),
        ({"contrast_weight": -1}, "contrast_weight must be at least 0 and finite, got -1"),
        ({"contrast_temperature": 0}, "contrast_temperature must be greater than 0 and finite, got 0"),
    ],
)
def test_bad_parameters(digits, parameters, message):
    X, _, y = digits
    with pytest.raises(ValueError, match=message):
        UNICONClassifier(**parameters).fit(X, y)
