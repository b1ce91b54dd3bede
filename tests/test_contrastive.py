"""Jo-SRC's training: against Algorithm 1 written as a plain loop, and piece by piece."""

import copy
import math

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from noisefilter import estimates
from noisefilter.batches import ArrayRows, shuffled
from noisefilter.contrastive import JoSRCNetwork, MeanTeacher, TwoViewNet, two_view_net
from noisefilter.errors import ParameterError, TrainingDivergedError
from noisefilter.net import Net
from noisefilter.networks import MLP


@pytest.fixture(autouse=True)
def from_the_first_step(monkeypatch):
    """Let networks be known to memorize in the few steps that a test has."""
    monkeypatch.setattr(estimates, "_FIRST_STEPS", 0)


class Tiny(nn.Module):
    def __init__(self, n_inputs=5, n_classes=3):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, n_classes)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.hidden(x))))


class Dropping(Tiny):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.5, self.training))


class Probabilities(Tiny):
    def forward(self, x):
        return torch.softmax(super().forward(x), 1)


def jitter(x, generator):
    return x + 0.3 * torch.randn(x.shape, generator=generator)


def make(**changes):
    settings = {"module": Tiny, "max_epochs": 4, "lr": 0.1, "batch_size": 50, "augment": jitter,
                "warmup_epochs": 1, "warmup_threshold": 0.8, "final_threshold": 0.93,
                "precision": "float32", "random_state": 0}  # fmt: skip
    return TwoViewNet(**settings | changes)


def naive_likelihood(p, code, eps):
    y = [1 - eps if c == code else eps / (len(p) - 1) for c in range(len(p))]
    d = 0.0
    for a, b in zip(p, y, strict=True):
        m = (a + b) / 2
        d += (a * math.log2(a / m) + b * math.log2(b / m)) / 2
    return 1 - d


def naive_training(net, x, codes):
    """Algorithm 1, one row at a time; returns student, teacher, and the groups of the last epoch."""
    student = copy.deepcopy(net.module_).train()
    teacher = copy.deepcopy(student).eval()
    optimizer = torch.optim.SGD(student.parameters(), lr=net.lr)
    generator = torch.Generator().manual_seed(net.seed_)
    groups, n_steps = torch.zeros(len(x), dtype=torch.long), 0
    for e in range(net.max_epochs):
        if e < net.warmup_epochs:
            tau = net.warmup_threshold * e / net.warmup_epochs
        else:
            done = (e - net.warmup_epochs) / (net.max_epochs - net.warmup_epochs)
            tau = net.warmup_threshold + (net.final_threshold - net.warmup_threshold) * done
        for index in shuffled(len(x), net.batch_size, generator):
            one, two = net.augment(x[index], generator), net.augment(x[index], generator)
            p, q = torch.softmax(student(one), 1), torch.softmax(student(two), 1)
            with torch.no_grad():
                taught = (torch.softmax(teacher(one), 1) + torch.softmax(teacher(two), 1)) / 2
            fits, aparts = [], []
            for i, row in enumerate(index):
                clean = naive_likelihood(p[i].tolist(), int(codes[row]), net.eps_js) >= tau
                agree = int(p[i].argmax()) == int(q[i].argmax())
                groups[row] = 0 if clean else 1 if agree else 2
                if clean:
                    target = torch.full((3,), net.eps_target / 2)
                    target[codes[row]] = 1 - net.eps_target
                else:
                    target = taught[i] if agree else torch.softmax(taught[i] / net.ood_temperature, 0)
                if clean or e >= net.warmup_epochs:
                    fits.append(-(target * (p[i].log() + q[i].log())).sum())
                    apart = (p[i] * (p[i] / q[i]).log() + q[i] * (q[i] / p[i]).log()).sum()
                    outside = not clean and not agree
                    aparts.append(-torch.clamp(apart, max=net.ood_cap) if outside else apart)
            loss = torch.stack(fits).mean()
            if e >= net.warmup_epochs:
                loss = (1 - net.consistency) * loss + net.consistency * torch.stack(aparts).mean() / math.log(
                    2
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            w = min(net.teacher_decay, n_steps / (n_steps + 9))
            n_steps += 1
            there = student.state_dict()
            average = {
                name: w * value + (1 - w) * there[name] if value.is_floating_point() else there[name]
                for name, value in teacher.state_dict().items()
            }
            teacher.load_state_dict(average)
    return student, teacher, groups


def assert_same_state(one, other, **tolerance):
    for (name, value), (_, wanted) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        np.testing.assert_allclose(value, wanted, err_msg=name, **{"rtol": 1e-3, "atol": 1e-4} | tolerance)


@pytest.mark.parametrize("decay", [0.99, 0.3])
def test_training_is_algorithm_1(blobs, decay):
    x, codes = torch.from_numpy(blobs.X), torch.from_numpy(blobs.y)
    x = (x - x.mean(0)) / x.std(0)
    net = make(teacher_decay=decay).initialize()
    student, teacher, groups = naive_training(net, x, codes)
    net.partial_fit(x.numpy(), blobs.y)
    assert len(groups.unique()) == 3
    assert (net.groups_ == groups).float().mean() > 0.99  # a row on the edge may fall to the other side
    assert_same_state(net.module_, student)
    assert_same_state(net.teacher_.module, teacher)


def test_history_counts_the_groups(blobs):
    net = make().fit(blobs.X, blobs.y)
    assert [row["threshold"] for row in net.history] == pytest.approx(
        [0, 0.8, 0.8 + 0.13 / 3, 0.8 + 0.26 / 3]
    )
    for row in net.history:
        assert row["n_clean"] + row["n_id"] + row["n_ood"] == 300
    assert net.history[0]["n_clean"] == 300
    last = net.history[-1]
    assert torch.bincount(net.groups_, minlength=3).tolist() == [last["n_clean"], last["n_id"], last["n_ood"]]


# --- the teacher ----------------------------------------------------------------------------------


def test_teacher_by_hand_over_three_steps():
    """Ramp: 0, then 1/10, then min(0.15, 2/11) of the past; running statistics and counts included."""
    student = Tiny()
    teacher = MeanTeacher(student, 0.15)
    expected = None
    for step, keep in enumerate((0.0, 0.1, 0.15)):
        with torch.no_grad():
            student.head.bias.copy_(torch.tensor([1.0, 2.0, 4.0]) * (step + 1))
        student.train()(torch.randn((20, 5), generator=torch.Generator().manual_seed(step)))
        teacher.update(student)
        now = {name: value.clone() for name, value in student.state_dict().items()}
        if expected is None:
            expected = now
        expected = {
            name: keep * expected[name] + (1 - keep) * value if value.is_floating_point() else value
            for name, value in now.items()
        }
    assert teacher.module.norm.num_batches_tracked == 3
    for name, value in teacher.module.state_dict().items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert teacher.module.norm.running_mean.abs().min() > 0
    assert not teacher.module.training and not any(p.requires_grad for p in teacher.module.parameters())


def test_without_memory_the_teacher_is_the_student(blobs):
    net = make(teacher_decay=0.0).fit(blobs.X, blobs.y)
    for one, other in zip(
        net.teacher_.module.state_dict().values(), net.module_.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    assert torch.equal(net.teacher_.module(torch.ones(2, 5)), net.module_.eval()(torch.ones(2, 5)))


def test_statistics_of_the_rows_stay_exact(blobs):
    """An average of equal numbers must be that number, or the teacher would see other inputs."""
    net = make(module=MLP, module__n_inputs=5, module__n_classes=3, augment=None).fit(blobs.X, blobs.y)
    assert torch.equal(net.teacher_.module.standardize.mean, net.module_.standardize.mean)
    assert torch.equal(net.teacher_.module.standardize.scale, net.module_.standardize.scale)


# --- edges ----------------------------------------------------------------------------------------


def test_warm_up_batches_without_a_clean_row_are_skipped(blobs):
    """No label reaches likelihood 1, so from the second epoch on there is nothing to learn from."""
    net = make(warmup_epochs=4, warmup_threshold=4.0, max_epochs=1).fit(blobs.X, blobs.y)
    longer = make(warmup_epochs=4, warmup_threshold=4.0, max_epochs=2).fit(blobs.X, blobs.y)
    for (name, value), (_, other) in zip(
        net.module_.named_parameters(), longer.module_.named_parameters(), strict=True
    ):
        assert torch.equal(value, other), name
    assert longer.history[-1]["train_loss"] == 0.0 and longer.history[-1]["n_clean"] == 0
    assert longer.teacher_.n_steps == net.teacher_.n_steps > 0


def test_skipping_leaves_momentum_and_weight_decay_alone(blobs):
    sgd = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "optimizer__weight_decay": 0.1}
    ends = [
        make(warmup_epochs=4, warmup_threshold=8.0, max_epochs=epochs, **sgd).fit(blobs.X, blobs.y).module_
        for epochs in (1, 2)
    ]
    assert torch.equal(ends[0].head.weight, ends[1].head.weight)


def test_threshold_freezes_where_hardly_a_row_is_left(blobs):
    """The third epoch asks for more than any row has; the fourth goes back to what the second asked for."""
    net = make(max_epochs=6, warmup_epochs=1, warmup_threshold=0.5, final_threshold=3.0).fit(blobs.X, blobs.y)
    asked = [row["threshold"] for row in net.history]
    assert asked == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.5, 0.5])
    assert net.history[2]["n_clean"] < 3 and net.history[3]["n_clean"] >= 3


def test_a_share_of_every_class_is_clean_whatever_the_threshold(blobs):
    """The best rows of the epoch before, by class; half of them, as the network hardly moves any more."""
    asking = {"warmup_epochs": 1, "warmup_threshold": 9.0, "final_threshold": 9.0, "max_epochs": 2}
    nothing = make(**asking).fit(blobs.X, blobs.y)
    assert nothing.history[1]["n_clean"] == 0
    net = make(**asking, least_clean=0.5, lr=1e-6, augment=lambda x, generator: x, batch_size=300)
    net.fit(blobs.X, blobs.y)
    for code in range(3):
        own = torch.from_numpy(blobs.y == code)
        clean, likely = net.groups_[own] == 0, net.likelihoods_[own]
        assert abs(int(clean.sum()) - int(own.sum()) / 2) <= 1
        assert likely[clean].min() >= likely[~clean].max() - 1e-4
    lenient = make(**asking | {"warmup_threshold": 0.0, "final_threshold": 0.0}, least_clean=0.5)
    assert lenient.fit(blobs.X, blobs.y).history[-1]["n_clean"] == 300


def test_one_in_a_hundred_is_enough(blobs):
    class ThreeLeft(TwoViewNet):
        def _groups(self, first, second, target, index):
            return torch.ones_like(super()._groups(first, second, target, index))

        def on_epoch_end(self, net, **kwargs):
            self.groups_[: self.left] = 0
            super().on_epoch_end(net, **kwargs)

    for left, frozen in ((3, False), (2, True)):
        net = ThreeLeft(Tiny, max_epochs=3, batch_size=100, warmup_epochs=0, augment=jitter, random_state=0)
        net.left = left
        assert net.fit(blobs.X, blobs.y).frozen_ is frozen


def test_callbacks_see_every_batch(blobs):
    class Counter(Callback):
        def on_train_begin(self, net, **kwargs):
            self.counts = {"begin": 0, "grad": 0, "end": 0}

        def on_batch_begin(self, net, **kwargs):
            self.counts["begin"] += 1

        def on_grad_computed(self, net, named_parameters, **kwargs):
            assert all(p.grad is not None for _, p in named_parameters)
            self.counts["grad"] += 1

        def on_batch_end(self, net, loss, y_pred, **kwargs):
            assert y_pred.shape[1] == 3 and not y_pred.requires_grad
            self.counts["end"] += 1

    net = make(callbacks=[("counter", Counter())]).fit(blobs.X, blobs.y)
    assert dict(net.callbacks_)["counter"].counts == {"begin": 24, "grad": 24, "end": 24}
    alone = make().fit(blobs.X, blobs.y)
    assert torch.equal(net.module_.head.weight, alone.module_.head.weight)


def test_only_its_own_objective():
    for name, value, message in (
        ("objective", "mixup", "objective must be 'cross_entropy'"),
        ("criterion", nn.MultiMarginLoss, "criterion must be CrossEntropyLoss or NLLLoss"),
    ):
        with pytest.raises(ParameterError, match=f"^{message}"):
            make(**{name: value}).fit(np.zeros((20, 5), dtype=np.float32), np.arange(20) % 3)


def test_probabilities_and_logits_are_trained_alike(blobs):
    one = make(max_epochs=2).fit(blobs.X, blobs.y)
    other = make(max_epochs=2, module=Probabilities, criterion=nn.NLLLoss).fit(blobs.X, blobs.y)
    np.testing.assert_allclose(
        one.module_.head.weight.detach(), other.module_.head.weight.detach(), atol=1e-4
    )
    rows = ArrayRows(torch.from_numpy(blobs.X))
    np.testing.assert_allclose(one.look(rows).teacher_probs, other.look(rows).teacher_probs, atol=1e-4)


def test_probabilities_of_the_second_half_of_the_warm_up(blobs):
    class Spying(TwoViewNet):
        def _groups(self, first, second, target, index):
            self.seen.append((self.epoch_, index, first.exp()))
            return super()._groups(first, second, target, index)

    for warmup, epochs, read in ((4, 6, (2, 3)), (1, 2, (0,)), (6, 4, (3,))):
        net = Spying(Tiny, max_epochs=epochs, warmup_epochs=warmup, augment=jitter, random_state=0)
        net.seen = []
        net.fit(blobs.X, blobs.y)
        expected = np.zeros((300, 3))
        for epoch, index, probs in net.seen:
            if epoch in read:
                expected[index.numpy()] += probs.numpy() / len(read)
        np.testing.assert_allclose(net.warm_probs(), expected, atol=1e-6)
    assert make(warmup_epochs=0).fit(blobs.X, blobs.y).warm_probs() is None


def planted(blobs, n=30):
    codes, rows = blobs.y.copy(), np.arange(n)
    codes[rows] = (codes[rows] + 1) % 3
    return codes, rows


def test_a_warm_up_ends_when_planted_labels_are_known_by_heart(blobs):
    class Spying(TwoViewNet):
        def _groups(self, first, second, target, index):
            self.seen.append((self.epoch_, index, first.exp()))
            return super()._groups(first, second, target, index)

    codes, rows = planted(blobs, 20)
    settings = {"max_epochs": 40, "warmup_epochs": 36, "augment": None, "lr": 0.2, "batch_size": 10}
    wide = {"module": MLP, "module__n_inputs": 5, "module__n_classes": 3, "module__hidden": (256,),
            "module__dropout": 0.0, "module__noise": 0.0}  # fmt: skip
    net = Spying(**make(**settings | wide, planted_rows=rows).get_params())
    net.seen = []
    net.fit(blobs.X[:100], codes[:100])
    known = [epoch["planted_known"] for epoch in net.history if "planted_known" in epoch]
    assert 1 < net.warm_epochs_ == len(known) < 18
    assert max(known[:-1]) <= estimates.BY_HEART < known[-1]
    thresholds = net.history[:, "threshold"]
    late = (40 - 1 - net.warm_epochs_) / (40 - net.warm_epochs_)
    assert thresholds[net.warm_epochs_] == 0.8
    assert thresholds[-1] == pytest.approx(0.8 + late * 0.13)
    expected = np.zeros((100, 3))
    half = max(n for n in (1, 2, 3, 4, 6, 8) if n <= net.warm_epochs_ / 2)
    for epoch, index, probs in net.seen:
        if epoch < half:
            expected[index.numpy()] += probs.numpy() * 0.5 ** (half - 1 - epoch)
    np.testing.assert_allclose(net.warm_probs(), expected / expected.sum(1, keepdims=True), atol=1e-6)


def driven(net, data, epochs):
    for epoch in epochs:
        with net.drawing(epoch):
            net.run_epoch(*data, epoch)


@pytest.mark.parametrize("taken_up", [False, True])
def test_a_network_that_knows_planted_labels_goes_back_to_half_of_its_warm_up(blobs, monkeypatch, taken_up):
    codes, rows = planted(blobs)
    data = ArrayRows(torch.from_numpy(blobs.X)), torch.from_numpy(codes)
    settings = {"planted_rows": rows, "max_epochs": 9, "warmup_epochs": 8, "optimizer__momentum": 0.9}
    net, half = (make(**settings).initialize() for _ in range(2))
    for each in (net, half):
        each.begin(*data)
    driven(half, data, range(2))
    driven(net, data, range(4))
    if taken_up:
        net, saved = make(**settings).initialize(), net.state()
        net.begin(*data)
        net.load_state(*saved)
    monkeypatch.setattr(estimates, "BY_HEART", -2.0)  # in the fifth epoch
    driven(net, data, [4])
    assert net.warm_epochs_ == 5 and len(net.history) == 5 and net.early_.state() == ({}, {})
    (own, rest), (wanted, others) = net.snapshot(), half.snapshot()
    assert own.keys() == wanted.keys() and "optimizer.0.momentum_buffer" in own and rest == others
    for name, tensor in own.items():  # of the teacher and the sums, too
        assert torch.equal(tensor, wanted[name]), name
    driven(net, data, [5])
    assert net.history[-1, "threshold"] == 0.8  # epochs go on being counted


def test_going_back_undoes_no_drop_of_the_learning_rate_and_no_record(blobs, monkeypatch):
    codes, rows = planted(blobs)
    data = ArrayRows(torch.from_numpy(blobs.X)), torch.from_numpy(codes)
    net = make(
        planted_rows=rows, max_epochs=9, warmup_epochs=8, lr_drops=(0.3,), lr_drop_factor=5.0,
        record=("losses",),
    ).initialize()  # fmt: skip
    net.begin(*data)
    driven(net, data, range(4))
    net.threshold_, net.frozen_ = 0.1, True
    monkeypatch.setattr(estimates, "BY_HEART", -2.0)
    driven(net, data, [4])
    assert net.optimizer_.param_groups[0]["lr"] == pytest.approx(0.02)  # divided before the third epoch
    assert (net._running.recorder.losses[:5] != 0).all()
    driven(net, data, [5])
    assert net.history[-1, "threshold"] == 0.8


def test_in_the_last_epoch_there_is_nothing_to_go_back_for(blobs, monkeypatch):
    codes, rows = planted(blobs)
    data = ArrayRows(torch.from_numpy(blobs.X)), torch.from_numpy(codes)
    nets = [make(planted_rows=rows, max_epochs=5, warmup_epochs=9).initialize() for _ in range(2)]
    for net, share in zip(nets, (2.0, -2.0), strict=True):
        net.begin(*data)
        driven(net, data, range(4))
        monkeypatch.setattr(estimates, "BY_HEART", share)
        driven(net, data, [4])
        monkeypatch.setattr(estimates, "BY_HEART", 2.0)
    assert_same_state(nets[0].module_, nets[1].module_, rtol=0, atol=0)


def test_no_early_state_outlives_a_training(blobs):
    codes, rows = planted(blobs)
    net = make(planted_rows=rows, max_epochs=4, warmup_epochs=9).fit(blobs.X, codes)
    assert net.early_.state() == ({}, {})


def test_a_warm_up_that_has_ended_stays_so_in_a_training_taken_up_again(blobs):
    codes, rows = planted(blobs)
    nets = [make(planted_rows=rows, max_epochs=6, warmup_epochs=5).initialize() for _ in range(2)]
    data = ArrayRows(torch.from_numpy(blobs.X)), torch.from_numpy(codes)
    for net in nets:
        net.begin(*data)
    nets[0].run_epoch(*data, 0)
    nets[0].warm_epochs_ = 1
    nets[1].load_state(*nets[0].state())
    for net in nets:
        with net.drawing(1):
            net.run_epoch(*data, 1)
    assert nets[1].warm_epochs_ == 1 and nets[1].history[-1, "threshold"] == 0.8
    assert np.array_equal(nets[0].predict_proba(blobs.X), nets[1].predict_proba(blobs.X))


def test_a_warm_up_lasts_where_planted_labels_are_not_learned(blobs):
    codes, rows = planted(blobs)
    net = make(planted_rows=rows, max_epochs=6, warmup_epochs=4).fit(blobs.X, codes)
    plain = make(max_epochs=6, warmup_epochs=4).fit(blobs.X, codes)
    assert net.warm_epochs_ == 4 and max(net.history[:4, "planted_known"]) <= estimates.BY_HEART
    assert np.array_equal(net.predict_proba(blobs.X), plain.predict_proba(blobs.X))  # looking changes nothing


# --- the last look --------------------------------------------------------------------------------


def test_a_look_is_seeded_and_changes_nothing(blobs):
    net = make().fit(blobs.X, blobs.y)
    rows = ArrayRows(torch.from_numpy(blobs.X))
    before, state = copy.deepcopy(net.module_.state_dict()), torch.get_rng_state()
    one = net.look(rows)
    torch.manual_seed(7)
    other = net.look(rows)
    torch.set_rng_state(state)
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first, second)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert one.view_probs.shape == (2, 300, 3) and one.features.shape == (300, 16)
    assert not np.array_equal(one.view_probs[0], one.view_probs[1])
    generator = torch.Generator().manual_seed(net.seed_)
    views = [net.augment(torch.from_numpy(blobs.X), generator) for _ in range(2)]
    with torch.inference_mode():
        seen = [torch.softmax(net.module_.eval()(view), 1).numpy() for view in views]
        taught = sum(torch.softmax(net.teacher_.module(view), 1).numpy() for view in views) / 2
    np.testing.assert_allclose(one.view_probs, seen, atol=1e-6)
    np.testing.assert_allclose(one.teacher_probs, taught, atol=1e-6)
    np.testing.assert_allclose(one.probs, net.predict_proba(blobs.X), atol=1e-6)


def test_a_look_without_chance_sees_rows_as_they_are(blobs):
    net = make().fit(blobs.X, blobs.y)
    seen = net.look(ArrayRows(torch.from_numpy(blobs.X)), random=False)
    assert np.array_equal(seen.view_probs, np.stack([seen.probs, seen.probs]))
    with torch.inference_mode():
        taught = torch.softmax(net.teacher_.module(torch.from_numpy(blobs.X)), 1).numpy()
    np.testing.assert_allclose(seen.teacher_probs, taught, atol=1e-6)
    np.testing.assert_allclose(seen.probs, net.predict_proba(blobs.X), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "differ"),
    [
        ({"module": MLP, "module__n_inputs": 5, "module__n_classes": 3}, True),
        ({"module": Dropping}, True),
        ({"module": Tiny}, False),
        ({"module": MLP, "module__n_inputs": 5, "module__n_classes": 3, "augment": jitter}, True),
    ],
    ids=["noise", "dropout", "nothing", "augmented"],
)
def test_what_makes_the_views_of_a_table(blobs, settings, differ):
    net = make(**{"augment": None} | settings).fit(blobs.X, blobs.y)
    seen = net.look(ArrayRows(torch.from_numpy(blobs.X)))
    assert (not np.array_equal(seen.view_probs[0], seen.view_probs[1])) is differ
    np.testing.assert_allclose(net.predict_proba(blobs.X), seen.probs, atol=1e-6)


def test_weights_that_are_no_numbers_are_an_error(blobs):
    net = make().fit(blobs.X, blobs.y)
    with torch.no_grad():
        net.module_.head.bias[0] = float("nan")
    with pytest.raises(TrainingDivergedError, match="must give finite outputs"):
        net.look(ArrayRows(torch.from_numpy(blobs.X)))


# --- the official optimizer, the official network -------------------------------------------------


def test_adam_changes_its_mind_at_two_fifths(blobs):
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, net, **kwargs):
            group = net.optimizer_.param_groups[0]
            seen.append((group["lr"], *group["betas"]))

    plain = Net(Tiny, max_epochs=10, lr=1e-3, lr_drops=(0.5,), optimizer=torch.optim.SGD,
                optimizer__momentum=0.9, callbacks=[("watch", Watch())], random_state=0)  # fmt: skip
    net = two_view_net(plain, "adam", {"warmup_epochs": 2}).fit(blobs.X, blobs.y)
    assert type(net.optimizer_) is torch.optim.Adam and net.warmup_epochs == 2
    rates = [1e-3] * 4 + [1e-3 * (10 - e) / 6 for e in range(4, 10)]
    assert [s[0] for s in seen] == pytest.approx(rates)
    assert [s[1:] for s in seen] == [(0.9, 0.999)] * 4 + [(0.1, 0.999)] * 6
    kept = two_view_net(plain, "own", {})
    assert kept.optimizer is torch.optim.SGD and kept.optimizer__momentum == 0.9 and kept.lr_drops == (0.5,)


def test_official_network():
    network = JoSRCNetwork(3, 100)
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(256, 512), (512, 100)]
    assert all((layer.bias == 0).all() for layer in linear)
