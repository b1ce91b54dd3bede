"""JoSRCClassifier: its loss against a plain loop, its verdict against the selector's, and what it is for."""

import math
import pickle
import signal
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch import nn

import noisefilter.budgets as budgets
from noisefilter import (
    JoSRCClassifier,
    JoSRCSelector,
    Net,
    SmallLossSelector,
    estimates,
    plant_noise,
    scores,
)
from noisefilter.batches import ArrayRows
from noisefilter.contrastive import TwoViewNet
from noisefilter.errors import InputTypeError, ParameterError, TrainingDivergedError
from noisefilter.inputs import check_labels
from noisefilter.net import local_seed
from noisefilter.trainers import josrc
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE


@pytest.fixture(autouse=True)
def from_the_first_step(monkeypatch):
    """Let networks be known to memorize in the few steps that a test has."""
    monkeypatch.setattr(estimates, "_FIRST_STEPS", 0)


ARRAYS = ("labels", "classes", "scores", "partition", "alternatives", "clean_proba", "transition_matrix")


class Wide(nn.Module):
    """A network that learns wrong labels by heart; its dropout makes the views of a row."""

    def __init__(self, n_inputs=5, n_classes=3, width=16):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        x = nn.functional.dropout(x.flatten(1), 0.1, self.training)
        return self.head(torch.relu(self.hidden(x)))


def short(**parameters):
    return JoSRCClassifier(**{"max_epochs": 5, "random_state": 0} | parameters)


def assert_same_verdict(one, other):
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.threshold == other.threshold and one.estimated_noise_rate == other.estimated_noise_rate
    assert one.open_set == other.open_set and one.noise_rate_interval == other.noise_rate_interval


def assert_same_fit(one, other, X):
    assert_same_verdict(one.verdict_, other.verdict_)
    assert one.history_ == other.history_
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X))


# --- the loss, by a plain loop --------------------------------------------------------------------


def naive_loss(net, first, second, groups, target, taught):
    """Eq. (9) to (11) over the rows that are learned from, one at a time."""
    learned = {"clean": (CLEAN,), "clean+id": (CLEAN, ID_NOISE), "all": (CLEAN, ID_NOISE, OOD_NOISE)}
    warming = net.epoch_ < net.warmup_epochs
    n_classes = first.shape[1]
    fits, aparts = [], []
    for i, group in enumerate(groups.tolist()):
        if group not in (learned["clean"] if warming else learned[net.learn_from]):
            continue
        if group == CLEAN:
            wanted = [net.eps_target / (n_classes - 1)] * n_classes
            wanted[int(target[i])] = 1 - net.eps_target
        elif group == ID_NOISE:
            wanted = taught[i].tolist()
        else:
            powers = [math.exp(float(q) / net.ood_temperature) for q in taught[i]]
            wanted = [power / sum(powers) for power in powers]
        p, q = first[i].exp(), second[i].exp()
        fits.append(-sum(wanted[c] * (p[c].log() + q[c].log()) for c in range(n_classes)))
        apart = sum(p[c] * (p[c] / q[c]).log() + q[c] * (q[c] / p[c]).log() for c in range(n_classes))
        apart = apart / math.log(2)
        if group == OOD_NOISE:
            apart = -min(apart, torch.tensor(net.ood_cap / math.log(2)))
        aparts.append(apart)
    if not fits:
        return None
    fit, apart = sum(fits) / len(fits), sum(aparts) / len(aparts)
    return fit if warming else (1 - net.consistency) * fit + net.consistency * apart


def begun(blobs, **parameters):
    rows, codes = ArrayRows(torch.from_numpy(blobs.X)), torch.from_numpy(blobs.y)
    settings = {"module": Wide, "max_epochs": 4, "warmup_epochs": 1, "random_state": 0}
    net = TwoViewNet(**settings | parameters).initialize()
    with local_seed(net.seed_, rows.device):
        net.begin(rows, codes)
    return net, rows, codes


def batch(groups):
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn((2, len(groups), 3), generator=draw)
    target = torch.randint(3, (len(groups),), generator=draw)
    return logits.requires_grad_(), torch.tensor(groups, dtype=torch.uint8), target


MIXED = [CLEAN, ID_NOISE, OOD_NOISE, CLEAN, OOD_NOISE, ID_NOISE, ID_NOISE]


@pytest.mark.parametrize("consistency", [0.0, 0.5])
@pytest.mark.parametrize("epoch", [0, 2], ids=["warm-up", "joint"])
@pytest.mark.parametrize("learn_from", ["clean", "clean+id", "all"])
@pytest.mark.parametrize("members", [MIXED, [ID_NOISE, ID_NOISE, OOD_NOISE], [OOD_NOISE, OOD_NOISE]], ids=str)
def test_loss_of_a_batch(blobs, learn_from, consistency, epoch, members):
    net = begun(blobs, learn_from=learn_from, consistency=consistency, ood_cap=1.0)[0]
    net.epoch_ = epoch
    logits, groups, target = batch(members)
    views = tuple(torch.from_numpy(blobs.X[i : i + len(members)]) for i in (0, 50))
    with torch.no_grad():
        taught = sum(torch.softmax(net.teacher_.module(view), 1) for view in views) / 2
    loss = net._objective(*torch.log_softmax(logits, 2), groups, target, views)
    expected = naive_loss(net, *torch.log_softmax(logits, 2), groups, target, taught)
    if expected is None:
        assert loss is None
        return
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    slope, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(slope, wanted, rtol=1e-4, atol=1e-6)


def test_each_ablation_is_another_training(blobs):
    """Each leaves something out, and nobody asks the teacher where clean rows are all there is to learn."""
    fits = {}
    for learn_from in ("clean", "clean+id", "all"):
        for consistency in (0.0, 0.5):
            model = short(learn_from=learn_from, consistency=consistency, final_threshold=0.9)
            fits[learn_from, consistency] = model.fit(blobs.X, blobs.y)
    last = fits["all", 0.5].history_[-1]
    assert min(last["n_clean"], last["n_id"], last["n_ood"]) > 0
    probs = [model.predict_proba(blobs.X) for model in fits.values()]
    for i, one in enumerate(probs):
        assert not any(np.array_equal(one, other) for other in probs[:i])


def test_labels_of_rows_left_out_are_never_read(blobs):
    believed = np.arange(300) % 3 > 0
    found = []
    for shift in (0, 1):
        y = np.where(believed, blobs.y, (blobs.y + shift) % 3)
        net, rows, codes = begun(blobs._replace(y=y), learn_from="clean")
        net.hold(believed, 4)
        for epoch in range(4):
            with net.drawing(epoch):
                net.run_epoch(rows, codes, epoch)
        assert net.history[-1]["n_clean"] == 200 and net.history[-1]["threshold"] is None
        found.append(net.module_.state_dict())
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_nobody_asks_the_teacher_about_clean_rows(blobs, monkeypatch):
    asked = []
    own = TwoViewNet._taught
    monkeypatch.setattr(
        TwoViewNet,
        "_taught",
        lambda self, *args, **more: asked.append(self.epoch_) or own(self, *args, **more),
    )
    for learn_from, epochs in (("clean", set()), ("clean+id", {1, 2, 3}), ("all", {1, 2, 3})):
        asked.clear()
        net, rows, codes = begun(blobs, learn_from=learn_from)
        for epoch in range(4):
            net.run_epoch(rows, codes, epoch)
        assert set(asked) == epochs


# --- seeds, checkpoints, filters ------------------------------------------------------------------


def test_the_seed_decides_every_bit(blobs):
    one, other = short().fit(blobs.X, blobs.y), short().fit(blobs.X, blobs.y)
    assert_same_fit(one, other, blobs.X)
    third = short(random_state=1).fit(blobs.X, blobs.y)
    assert not np.array_equal(one.predict_proba(blobs.X), third.predict_proba(blobs.X))
    own = Net(Wide, random_state=3, max_epochs=2)  # the seed of a prototype decides nothing
    fits = [short(estimator=own, max_epochs=None, random_state=seed).fit(blobs.X, blobs.y) for seed in (0, 1)]
    assert not np.array_equal(fits[0].scores_, fits[1].scores_)


KILLED = """
import os, signal
import numpy as np
from noisefilter import JoSRCClassifier, SmallLossSelector
from noisefilter.trainers.josrc import _JoSRC

class Bar:
    def step(self):
        os.kill(os.getpid(), signal.SIGKILL)

run = _JoSRC.run_epoch
_JoSRC.run_epoch = lambda self, epoch, bar: run(self, epoch, Bar() if epoch == {epoch} else bar)
data = np.load({data!r})
JoSRCClassifier(**{parameters}, checkpoint_dir={folder!r}).fit(data["X"], data["y"])
"""


def test_a_killed_training_goes_on_with_the_same_bits(images, tmp_path, monkeypatch):
    """Augmented images, the thresholds of each class, the teacher, sums of the warm-up: all comes back."""
    monkeypatch.undo()  # as it is in the other process
    epoch = 3  # the first after the warm-up
    parameters = {"max_epochs": 5, "batch_size": 32, "random_state": 0}
    data, folder = str(tmp_path / "data.npz"), str(tmp_path / "run")
    np.savez(data, X=images.X, y=images.y)
    code = KILLED.format(epoch=epoch, data=data, parameters=parameters, folder=folder)
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    epochs, run = [], josrc._JoSRC.run_epoch
    monkeypatch.setattr(
        josrc._JoSRC, "run_epoch", lambda self, number, bar: epochs.append(number) or run(self, number, bar)
    )
    resumed = JoSRCClassifier(**parameters, checkpoint_dir=folder).fit(images.X, images.y)
    assert epochs == list(range(epoch, 5))
    assert_same_fit(resumed, JoSRCClassifier(**parameters).fit(images.X, images.y), images.X)


def test_a_verdict_is_the_clean_set_until_the_warm_up_ends(blobs):
    judge = SmallLossSelector(max_epochs=10, random_state=0)
    inside = short(filter=judge, probes=0.0).fit(blobs.X, blobs.y)
    before = Pipeline([("filter", judge), ("train", short(probes=0.0))]).fit(blobs.X, blobs.y)
    assert_same_fit(inside, before["train"], blobs.X)
    n_clean = int(inside.given_verdict_.clean_mask.sum())
    assert n_clean < 300
    held = [(record["n_clean"], record["threshold"]) for record in inside.history_]
    assert held[:3] == [(n_clean, None)] * 3  # two thirds of five
    assert held[3][0] != n_clean and held[3][1] > 0
    shorter = short(filter=judge, probes=0.0, split_epochs=1).fit(blobs.X, blobs.y)
    assert shorter.history_[0] == inside.history_[0] and shorter.history_[1]["threshold"] > 0
    longer = short(filter=judge, probes=0.0, split_epochs=9).fit(blobs.X, blobs.y)
    assert [record["n_clean"] for record in longer.history_] == [n_clean] * 5


def test_planted_rows_are_not_among_the_rows_believed(blobs, monkeypatch):
    held, hold = [], TwoViewNet.hold
    monkeypatch.setattr(TwoViewNet, "hold", lambda self, *args: held.append(args) or hold(self, *args))
    planted, plant = [], JoSRCSelector._plant
    monkeypatch.setattr(
        JoSRCSelector, "_plant", lambda self, *args: planted.append(plant(self, *args)) or planted[-1]
    )
    model = short(filter=SmallLossSelector(max_epochs=10, random_state=0)).fit(blobs.X, blobs.y)
    rows = planted[0].probes["probe_rows"]
    clean, given = held[0][0], model.given_verdict_.clean_mask
    assert len(rows) == 30 and given[rows].any() and not clean[rows].any()
    others = np.delete(np.arange(300), rows)
    assert np.array_equal(clean[others], given[others])


def test_a_training_that_is_stopped_early_stays_so(blobs):
    stopping = EarlyStopping(monitor="train_loss", patience=2, threshold=9.0)
    net = Net(Wide, max_epochs=9, callbacks=[("stop", stopping)])
    stopped = JoSRCClassifier(net, random_state=0).fit(blobs.X, blobs.y)
    n_epochs = len(stopped.history_)
    assert n_epochs < 9 and stopped._fitted.training.n_epochs == n_epochs


# --- too few epochs for guesses -------------------------------------------------------------------


@pytest.fixture
def poor(monkeypatch):
    """Let no guesses be good enough."""
    monkeypatch.setattr(budgets, "_POOR", 1.1)


LATE = {"max_epochs": 6, "warmup_epochs": 3, "least_epochs": 4}


def test_with_few_epochs_left_it_goes_on_with_the_labels_believed(poor, blobs, monkeypatch):
    said, own = [], josrc._JoSRC._verdict

    def verdict(self, signals):
        said.append((signals, own(self, signals), self.codes.copy()))
        return said[-1][1]

    monkeypatch.setattr(josrc._JoSRC, "_verdict", verdict)
    with pytest.warns(UserWarning, match=r"at least 4 epochs or 3,000 steps to learn .*, got 3\. Plain"):
        model = short(**LATE).fit(blobs.X, blobs.y)
    assert [record["phase"] for record in model.history_] == ["warm-up"] * 3 + ["supervised"] * 3
    signals, believed, codes = said[0]  # after the warm-up
    planted = signals.probe_rows
    n_clean = np.delete(believed.clean_mask, planted).sum()
    later = [(record["n_clean"], record["threshold"]) for record in model.history_[3:]]
    assert later == [(n_clean, None)] * 3 and n_clean < len(blobs.y) - len(planted)
    net = model._fitted.training.net
    assert (net.learn_from, net.consistency) == ("clean", 0.0)  # as Jo-SRC-C
    rate = believed.estimated_noise_rate
    expected = estimates.guessed_right(signals.probs.argmax(axis=1), codes, planted, rate, 3)
    assert [record.get("guessed_right") for record in model.history_[:3]] == [None, None, expected]


@pytest.mark.filterwarnings("error:max_epochs must leave")
@pytest.mark.parametrize(
    "parameters",
    [
        {"least_epochs": 3},
        {"least_epochs": 0},
        {"probes": 0.0},
        {"filter": SmallLossSelector(max_epochs=5, random_state=0)},
    ],
    ids=["left", "asked for", "unknown", "given"],
)
def test_other_rows_are_learned_where_epochs_are_left_or_nobody_knows(poor, blobs, parameters):
    model = short(**LATE | parameters)
    phases = [record["phase"] for record in model.fit(blobs.X, blobs.y).history_]
    assert phases == ["warm-up"] * 3 + ["joint"] * 3


@pytest.mark.filterwarnings("ignore:max_epochs must leave")
def test_labels_learned_by_heart_and_many_steps_are_no_short_training(poor, blobs, monkeypatch):
    def phases():
        model = short(**LATE, batch_size=16).fit(blobs.X, blobs.y)
        return {record["phase"] for record in model.history_}

    assert phases() == {"warm-up", "supervised"}
    monkeypatch.setattr(josrc, "LEAST_STEPS", 3 * -(-300 // 16))  # of the epochs that are left
    assert phases() == {"warm-up", "joint"}
    monkeypatch.setattr(josrc, "LEAST_STEPS", 3 * -(-300 // 16) + 1)
    assert phases() == {"warm-up", "supervised"}
    monkeypatch.setattr(estimates, "BY_HEART", -2.0)
    assert phases() == {"warm-up", "joint"}


@pytest.mark.filterwarnings("ignore:max_epochs must leave")
def test_no_class_is_left_out_where_few_labels_are_believed(poor, blobs, monkeypatch):
    own = josrc._JoSRC._verdict

    def verdict(self, signals):
        found = own(self, signals)
        return replace(found, partition=np.where(found.labels == 0, ID_NOISE, found.partition))

    monkeypatch.setattr(josrc._JoSRC, "_verdict", verdict)
    learned, alone = [], TwoViewNet.learn_alone
    monkeypatch.setattr(
        TwoViewNet, "learn_alone", lambda self, rows: learned.append(rows) or alone(self, rows)
    )
    model = short(**LATE).fit(blobs.X, blobs.y)
    codes = np.unique(blobs.y, return_inverse=True)[1]
    counts = np.bincount(codes[learned[0]], minlength=3)
    assert 0 < counts.min() <= 5 and len(model.history_) == 6


@pytest.mark.filterwarnings("ignore:max_epochs must leave")
@pytest.mark.parametrize("stopped", [3, 4])
def test_with_few_epochs_left_too_it_is_taken_up_with_the_same_bits(
    poor, blobs, tmp_path, monkeypatch, stopped
):
    whole = short(**LATE).fit(blobs.X, blobs.y)
    run = josrc._JoSRC.run_epoch

    def stopping(self, epoch, bar):
        if epoch == stopped:
            raise KeyboardInterrupt
        return run(self, epoch, bar)

    monkeypatch.setattr(josrc._JoSRC, "run_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        short(**LATE, checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    monkeypatch.setattr(josrc._JoSRC, "run_epoch", run)
    assert_same_fit(short(**LATE, checkpoint_dir=tmp_path).fit(blobs.X, blobs.y), whole, blobs.X)


# --- labels that are known by heart ---------------------------------------------------------------


def known_in(epoch, monkeypatch):
    """Let planted labels be known by heart in that epoch, numbered from 0, and not before."""
    watch = TwoViewNet._watch

    def watched(self, *args):
        monkeypatch.setattr(estimates, "BY_HEART", -2.0 if self.epoch_ == epoch else 2.0)
        watch(self, *args)

    monkeypatch.setattr(TwoViewNet, "_watch", watched)


def test_rows_believed_in_half_of_the_warm_up_are_the_clean_ones_to_the_end(blobs, monkeypatch):
    known_in(3, monkeypatch)
    said, own = [], josrc._JoSRC._verdict
    monkeypatch.setattr(
        josrc._JoSRC, "_verdict", lambda self, s: said.append((s, own(self, s))) or said[-1][1]
    )
    model = short(max_epochs=8, warmup_epochs=6).fit(blobs.X, blobs.y)
    assert [record["phase"] for record in model.history_] == ["warm-up"] * 4 + ["joint"] * 4
    signals, believed = said[0]
    n_clean = np.delete(believed.clean_mask, signals.probe_rows).sum()
    later = [(record["n_clean"], record["threshold"]) for record in model.history_[4:]]
    assert later == [(n_clean, None)] * 4
    net = model._fitted.training.net
    assert (net.learn_from, net.consistency) == ("all", 0.5)


def test_a_verdict_given_is_not_replaced_where_labels_are_known_by_heart(blobs, monkeypatch):
    monkeypatch.setattr(estimates, "BY_HEART", -2.0)
    judge = SmallLossSelector(max_epochs=10, random_state=0)
    held = [
        record["threshold"] for record in short(filter=judge, split_epochs=2).fit(blobs.X, blobs.y).history_
    ]
    assert held[:2] == [None, None] and all(each > 0 for each in held[2:])


@pytest.mark.parametrize("stopped", [2, 3, 4])
def test_known_by_heart_it_is_taken_up_with_the_same_bits(blobs, tmp_path, monkeypatch, stopped):
    """Before the warm-up ends, in the third epoch, and after it."""
    known_in(2, monkeypatch)
    run = josrc._JoSRC.run_epoch

    def stopping(self, epoch, bar):
        if epoch == stopped:
            raise KeyboardInterrupt
        return run(self, epoch, bar)

    settings = {"max_epochs": 6, "warmup_epochs": 5}
    whole = short(**settings).fit(blobs.X, blobs.y)
    assert [record["phase"] for record in whole.history_] == ["warm-up"] * 3 + ["joint"] * 3
    monkeypatch.setattr(josrc._JoSRC, "run_epoch", stopping)
    with pytest.raises(KeyboardInterrupt):
        short(**settings, checkpoint_dir=tmp_path).fit(blobs.X, blobs.y)
    monkeypatch.setattr(josrc._JoSRC, "run_epoch", run)
    assert_same_fit(short(**settings, checkpoint_dir=tmp_path).fit(blobs.X, blobs.y), whole, blobs.X)


# --- the verdict, the record, predictions ---------------------------------------------------------


@pytest.mark.filterwarnings("ignore:eps_js")
@pytest.mark.parametrize(
    ("parameters", "own"),
    [
        ({}, {}),
        ({"open_set": False, "probes": 0.0}, {}),
        (
            {"split": "paper", "eps_js": 0.6, "warmup_threshold": 0.95, "final_threshold": 0.6},
            {"row_score": "js"},
        ),
    ],
    ids=["planted rows", "no strangers", "paper"],
)
def test_the_verdict_is_the_selector_s(blobs, monkeypatch, parameters, own):
    seen, look = [], josrc.look_again
    monkeypatch.setattr(josrc, "look_again", lambda *args: seen.append(look(*args)) or seen[-1])
    names = np.array(["c", "a", "b"])
    model = short(**parameters).fit(blobs.X, names[blobs.y])
    labels = check_labels(names[blobs.y])
    selector = JoSRCSelector(**parameters, **own)
    assert len(seen) == (1 if parameters else 2)  # one more when a warm-up with planted rows ends
    selector.fit_signals(seen[-1].with_class_order(np.argsort(labels.order)), names[blobs.y])
    assert_same_verdict(model.verdict_, selector.verdict_)
    assert model.verdict_.method == "JoSRCClassifier"
    assert seen[-1].mean_probs is not None and (seen[-1].probe_rows is not None) is (not parameters)


def test_the_record_of_an_epoch(blobs):
    model = short(warmup_epochs=2, warmup_threshold=0.8, final_threshold=0.92).fit(blobs.X, blobs.y)
    assert [record["phase"] for record in model.history_] == ["warm-up"] * 2 + ["joint"] * 3
    thresholds = [record["threshold"] for record in model.history_]
    assert thresholds == pytest.approx([0, 0.4, 0.8, 0.84, 0.88])
    for record in model.history_:
        assert record["n_clean"] + record["n_id"] + record["n_ood"] == 300
        watched = ["planted_known"] if record["phase"] == "warm-up" else []
        sizes = ["n_clean", "n_id", "n_ood"]
        ended = ["guessed_right"] if record["epoch"] == 2 else []  # the warm-up has
        assert list(record) == ["epoch", "phase", "loss", "threshold", *sizes, *watched, "lr", *ended]
    assert [record["lr"] for record in model.history_] == pytest.approx([0.05, 0.05, 0.01, 0.002, 0.002])


def test_student_and_teacher_predict_without_smoothing(blobs):
    student = short(eps_target=0.5, max_epochs=12).fit(blobs.X, blobs.y)
    teacher = short(eps_target=0.5, max_epochs=12, predict_with="teacher").fit(blobs.X, blobs.y)
    assert_same_verdict(student.verdict_, teacher.verdict_)
    for model, which in ((student, "module_"), (teacher, "teacher_")):
        net = model._fitted.training.net
        module = net.module_ if which == "module_" else net.teacher_.module
        with torch.inference_mode():
            smoothed = torch.softmax(module.eval()(torch.from_numpy(blobs.X)), 1).numpy()
        rank = np.argsort(check_labels(blobs.y).order)
        expected = scores.unsmoothed(smoothed, 0.5)[:, rank]
        np.testing.assert_allclose(model.predict_proba(blobs.X), expected, atol=1e-5)
        assert np.median(smoothed.max(axis=1)) < 0.7 < np.median(model.predict_proba(blobs.X).max(axis=1))
    assert not np.array_equal(student.predict_proba(blobs.X), teacher.predict_proba(blobs.X))


def test_rows_and_their_numbers_are_let_go(blobs):
    model = short().fit(blobs.X, blobs.y)
    net = model._fitted.training.net
    assert not {"warm_sum_", "likelihoods_", "held_clean_"} & set(vars(net))
    assert not {"rows", "codes", "target", "planted"} & set(vars(model._fitted.training))
    back = pickle.loads(pickle.dumps(model))
    assert np.array_equal(back.predict_proba(blobs.X), model.predict_proba(blobs.X))


def test_weights_that_are_no_numbers_are_an_error(blobs):
    model = short(max_epochs=1).fit(blobs.X, blobs.y)
    with torch.no_grad():
        model._fitted.training.net.module_.head.bias[0] = float("nan")
    with pytest.raises(TrainingDivergedError, match="must give finite outputs"):
        model.predict(blobs.X)


# --- what it is for -------------------------------------------------------------------------------


def test_it_beats_plain_training_on_noisy_digits():
    """A wide network, to the end: cross-entropy learns wrong labels, Jo-SRC of the same network does not."""
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:500], order[500:]
    noisy = plant_noise(y[train], "symmetric", 0.4, random_state=0)[0]
    net = Net(Wide, module__n_inputs=64, module__n_classes=10, module__width=256, max_epochs=40,
              batch_size=25, lr=3e-3, optimizer=torch.optim.Adam, random_state=0, verbose=0)  # fmt: skip
    model = JoSRCClassifier(net, random_state=0).fit(X[train], noisy, eval_set=(X[test], y[test]))
    plain = net.fit(X[train], noisy).predict_proba(X[test]).argmax(axis=1)
    wrong = noisy != y[train]
    assert (net.predict_proba(X[train]).argmax(axis=1) == noisy)[wrong].mean() > 0.25
    assert model.eval_report_["last"] > (plain == y[test]).mean() + 0.05
    assert (model.predict(X[train]) == noisy)[wrong].mean() < 0.15
    assert (model.verdict_.suggested_labels == y[train]).mean() > 0.85


@pytest.mark.parametrize("kind", ["table", "images"])
def test_tables_and_images_with_the_default_network(kind, blobs, images):
    data = blobs if kind == "table" else images
    model = JoSRCClassifier(max_epochs=12, random_state=0).fit(data.X, data.y)
    assert model.score(data.X, data.truth) > 0.9
    assert model.scores_[~data.wrong].mean() > model.scores_[data.wrong].mean()


@pytest.mark.filterwarnings("ignore:eps_js")
def test_published_settings(images):
    """Smoothing of 0.6 needs three classes; 32 x 32 is what the network is for."""
    model = JoSRCClassifier.as_published(random_state=0)
    paper = {name: v for name, v in JoSRCSelector.as_published().get_params().items() if name != "row_score"}
    assert paper["max_epochs"] == 200 and paper["eps_target"] == paper["eps_js"] == 0.6
    for name, value in model.get_params().items():
        if name in paper and name != "random_state":
            assert value == paper[name], name
    assert model.split == "paper" and model.learn_from == "all" and model.predict_with == "student"
    X = np.kron(images.X, np.ones((4, 4), np.float32))
    y = np.arange(120) % 3
    model.set_params(max_epochs=2, batch_size=30, warmup_epochs=1).fit(X, y)
    assert model.verdict_.threshold == 0.95 and model.scores_.min() >= 0
    assert model.history_[0]["n_clean"] == 120  # the threshold of the first epoch is 0


# --- parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"learn_from": "noisy"}, r"learn_from must be one of \('clean', 'clean\+id', 'all'\), got 'noisy'"),
        ({"predict_with": "both"}, r"predict_with must be one of \('student', 'teacher'\), got 'both'"),
        ({"split": "joint"}, r"split must be one of \('auto', 'paper'\), got 'joint'"),
        ({"optimizer": "sgd"}, r"optimizer must be one of \('own', 'adam'\), got 'sgd'"),
        ({"eps_target": 1.0}, r"eps_target must be in \[0, 1\), got 1.0"),
        ({"eps_js": 0.7}, "eps_js must be less than 0.667 with 3 classes"),
        ({"warmup_epochs": -1}, "warmup_epochs must be a whole number of at least 0, got -1"),
        ({"final_threshold": 1.5}, r"final_threshold must be in \[0, 1\], got 1.5"),
        ({"consistency": 2}, r"consistency must be in \[0, 1\], got 2"),
        ({"ood_temperature": 0.0}, "ood_temperature must be greater than 0 and finite, got 0.0"),
        ({"probes": 0.6}, r"probes must be in \[0, 0.5\], got 0.6"),
        ({"open_set": "yes"}, "open_set must be True or False, got 'yes'"),
        ({"split_epochs": 0}, "split_epochs must be a whole number of at least 1, got 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_parameters(blobs, parameters, message):
    with pytest.raises(ParameterError, match=f"^{message}"):
        short(**parameters).fit(blobs.X, blobs.y)
    if "learn_from" in parameters:
        with pytest.raises(ParameterError, match=f"^{message}"):
            TwoViewNet(Wide, **parameters).initialize()


class OwnNet(NeuralNetClassifier):
    """A subclass, whose training is its own."""


@pytest.mark.parametrize("estimator", [OwnNet(Wide), LogisticRegression()], ids=["subclass", "no network"])
def test_networks_alone_whose_training_is_not_their_own(blobs, estimator):
    with pytest.raises(InputTypeError, match="estimator must be a skorch NeuralNetClassifier or"):
        JoSRCClassifier(estimator).fit(blobs.X, blobs.y)


def test_smoothing_that_does_not_fit_is_told_once_and_before_training(blobs, monkeypatch):
    monkeypatch.setattr(josrc._JoSRC, "run_epoch", lambda *args: pytest.fail("trained"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"eps_js=0\.3 does not fit the thresholds"):
            short(eps_js=0.3).fit(blobs.X, blobs.y)
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="eps_js") as caught:
        short(eps_js=0.3, max_epochs=1).fit(blobs.X, blobs.y)
    assert len(caught) == 1 and caught[0].filename == __file__
