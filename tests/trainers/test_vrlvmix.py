"""VRLVMix: Algorithm 1 by plain loops, what each network learns from, SCAN, pre-training, taking up again."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import noisefilter.clustered as clustered
import noisefilter.trainers.vrlvmix as vrlvmix
from noisefilter import INNScorer, Net, VRLVMixClassifier, estimates, plant_noise
from noisefilter.batches import ArrayRows
from noisefilter.metrics import clean_auc
from noisefilter.networks import MLP
from noisefilter.pretrain import Clusters, reordered


@pytest.fixture(autouse=True)
def from_the_first_step(monkeypatch):
    """Let networks be known to memorize in the few steps that a test has."""
    monkeypatch.setattr(estimates, "_FIRST_STEPS", 0)


class Bar:
    """A progress bar that counts."""

    def __init__(self):
        self.steps = 0

    def step(self, cost=1.0):
        self.steps += cost


N, K = 240, 4


def training(seed=0, epochs=24, **parameters):
    """A VRLVMix about to start on rows of four blobs, a third of which have another label."""
    rng = np.random.default_rng(seed)
    truth = np.arange(N) % K
    codes = np.where(rng.random(N) < 1 / 3, (truth + rng.integers(1, K, size=N)) % K, truth)
    X = (rng.normal(size=(N, 4)) + 3 * np.eye(K)[truth]).astype(np.float32)
    settings = {"max_epochs": epochs, "warmup_epochs": 2, "probes": 0.0, "random_state": seed}
    trainer = VRLVMixClassifier(**settings | parameters)
    trainer._check_parameters()
    return trainer._begin(ArrayRows(torch.from_numpy(X)), codes, K, None, X, np.random.RandomState(seed))


def remembering(seed=0, seen=12, drop=None, **parameters):
    """A VRLVMix after `seen` epochs whose bank is filled by hand; the rate fell in the epoch `drop`."""
    rng = np.random.default_rng(seed)
    run = training(seed, **parameters)
    depth = len(run.rates)
    wrong = rng.random(N) < 0.35
    run.losses[:, -depth:] = rng.gamma(2.0, 0.05, size=(2, depth, N)) + wrong * rng.normal(
        2.0, 0.4, (2, depth, N)
    )
    settled = rng.random(N) < 0.7
    moving = rng.integers(K, size=(2, depth, N))
    run.predictions[:] = np.where(settled, run.codes, moving)
    run.predicted[:] = run.codes
    run.rates[:] = 0.1
    if drop is not None:
        run.rates[drop - seen :] = 0.01
    run.rate, run.n_epochs_seen = 0.3, seen
    return run


# --- Algorithm 1, row by row ----------------------------------------------------------------------


def naive_variance(losses, tau):
    """Eq. (3) with the rank of a row for the printed argsort."""
    ranks = []
    for t in range(len(losses) - tau, len(losses)):
        change = losses[t - 1].astype(float) - losses[t]
        ranks.append([1 + sum(change < own) for own in change])
    mean = np.mean(ranks, axis=0)
    return sum((np.array(each) - mean) ** 2 for each in ranks) / tau


def naive_share(run):
    return (sum(run._small_losses(which)[1].mean() for which in (0, 1))) / 2


def naive_selection(run, tau, drop, seen):
    """Algorithm 1, lines 8 to 21, with beta as the class reads it and a tenth of rho N from V_h at most."""
    small = run._small_losses(0)[1]
    var = naive_variance(run.losses[1], tau)
    rho = naive_share(run)
    count = round(rho * N)
    low = set(sorted(range(N), key=lambda i: var[i])[:count])
    now, before = run.predictions[1, -1], run.predictions[1, -1 - tau]
    if drop is None:
        return {i for i in low if small[i] and before[i] == now[i]}
    last = run.predictions[1, drop - seen - 1]  # in the epoch before the rate fell
    beta = {i for i in range(N) if last[i] == now[i] == run.codes[i]}
    stable = {i for i in low if small[i]} & beta
    unstable = sorted(set(range(N)) - low, key=lambda i: run.losses[0, -1, i])
    return stable | set([i for i in unstable if i in beta][: round(0.1 * rho * N)])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("drop", [None, 9, 3], ids=["constant", "changed", "changed at the window's end"])
def test_what_both_networks_believe_is_algorithm_1(seed, drop):
    run = remembering(seed, seen=12, drop=drop, window=9)
    found = run._selection()
    assert found.branch == ("constant rate" if drop is None else "changed rate")
    expected = naive_selection(run, 9, drop, 12)
    assert set(np.flatnonzero(found.clean)) == expected and 20 < len(expected) < N


@pytest.mark.parametrize("drop", [1, 11], ids=["long ago", "just now"])
def test_a_change_of_the_rate_acts_from_its_third_epoch_for_a_window(drop):
    assert remembering(seen=12, drop=drop, window=9)._selection().branch == "constant rate"


def naive_walk(run, candidates, n_kept, clean):
    """From the worst on, those go whose neighbors in D_c (at least 3, or all) name another class more."""
    kept = list(candidates)
    for i in reversed(candidates):
        if len(kept) == n_kept:
            break
        near = [j for j in run.neighbors[i] if j in clean]
        near = near if len(near) >= 3 else list(run.neighbors[i])
        votes = np.bincount([run.codes[j] for j in near], minlength=K)
        if votes[run.codes[i]] < votes.max():
            kept.remove(i)
    return kept[:n_kept]


@pytest.mark.parametrize("seed", [0, 1])
def test_each_network_is_given_what_its_peer_believes(seed):
    """Lines 11 to 26: A's labels come from the variation of B, B's from the sizes of A's losses."""
    run = remembering(seed, window=9, n_neighbors=8)
    run.selected = run._selection()
    told = {0: run.divided(1), 1: run.divided(0)}  # to A by B, to B by A
    rho, var = naive_share(run), naive_variance(run.losses[1], 9)
    clean = naive_selection(run, 9, None, 12)
    low = set(sorted(range(N), key=lambda i: var[i])[: round(rho * N)])
    small = set(np.flatnonzero(run._small_losses(0)[1]))
    per_class = round(rho * N / K)
    for network, pool, order in ((0, low, var), (1, small, run.losses[0, -1])):
        expected = set(clean)
        for k in range(K):
            own = sorted((i for i in pool - clean if run.codes[i] == k), key=lambda i: order[i])
            needed = max(0, per_class - sum(run.codes[i] == k for i in clean))
            expected |= set(naive_walk(run, own, needed, clean) if len(own) > needed else own)
        division = told[network]
        assert set(np.flatnonzero(division.labeled)) == expected > clean
        assert (division.clean_proba[list(clean)] == 1.0).all()
        others = np.setdiff1d(np.arange(N), list(clean))
        peer = run._small_losses(1 - network)[0]
        assert np.array_equal(division.clean_proba[others], peer[others])
        sizes = np.bincount(run.codes[division.labeled], minlength=K)
        weights = sizes.sum() / (sizes * K)  # Eq. (10)
        np.testing.assert_allclose(division.row_weights, weights[run.codes])
    assert not np.array_equal(told[0].labeled, told[1].labeled)


def test_after_a_change_of_the_rate_both_are_given_the_lowest_losses():
    """Lines 15 to 18."""
    run = remembering(drop=9, window=9)
    run.selected = run._selection()
    rho, small, sizes = naive_share(run), run._small_losses(0)[1], run.losses[0, -1]
    expected = set(np.flatnonzero(run.selected.clean))
    for k in range(K):
        needed = round(rho * N / K) - sum(run.codes[i] == k for i in np.flatnonzero(run.selected.clean))
        own = [i for i in np.flatnonzero(small & ~run.selected.clean) if run.codes[i] == k]
        expected |= set(sorted(own, key=lambda i: sizes[i])[: max(0, needed)])
    for which in (0, 1):
        assert set(np.flatnonzero(run.divided(which).labeled)) == expected


def test_synthetic_rows_make_up_what_a_class_lacks():
    """Lines 27 to 29: of class 0 hardly a label is believed."""
    run = remembering(window=9, synthetic=True, n_neighbors=8)
    run.losses[:, :, run.codes == 0] += 2.0
    run.losses[:, -1, np.flatnonzero(run.codes == 0)[:6]] = 0.01
    run.predictions[1, :, np.flatnonzero(run.codes == 0)[:6]] = 0
    run.selected = run._selection()
    clean, pool = run.selected.clean, run.selected.small
    division = run.divided(0)  # for B
    per_class = round(run.selected.share * N / K)
    first, second, share, _ = division.blends
    lacking = per_class - np.bincount(run.codes[clean | (division.labeled & pool)], minlength=K)
    assert np.bincount(run.codes[first], minlength=K).tolist() == np.maximum(lacking, 0).tolist()
    assert lacking[0] > 10 and clean[first].all()
    made = share < 1.0
    assert not pool[second[made]].any() and (share >= 0.5).all()
    assert all(j in run.neighbors[i] for i, j in zip(first[made], second[made], strict=True))
    learned = np.bincount(np.concatenate([run.codes[division.labeled], run.codes[first]]), minlength=K)
    np.testing.assert_allclose(
        division.row_weights, np.clip(learned.sum() / (K * learned), 0.2, 5.0)[run.codes]
    )


# --- ablations and readings -----------------------------------------------------------------------


def test_without_balance_each_network_learns_all_that_its_peer_believes():
    run = remembering(balance=False, window=9)
    run.selected = run._selection()
    clean, (pool_a, pool_b) = run.selected.clean, run.selected.pools
    assert np.array_equal(run.divided(1).labeled, clean | pool_a)
    assert np.array_equal(run.divided(0).labeled, clean | pool_b)
    assert run.divided(0).row_weights is None and run.divided(0).blends is None


def test_it_does_not_go_back(monkeypatch):
    """Its banks of losses and predictions are not in the early states."""
    run, back = training(0), []
    monkeypatch.setattr(run, "_go_back", lambda *state: back.append(state))
    for n_epochs in (1, 2):
        run._watch(n_epochs, n_epochs == 2)
    assert run.by_heart and run.warmup_epochs == 2 and not back and run.early.state() == ({}, {})


@pytest.mark.parametrize("case", [{"variation": False}, {"seen": 2}], ids=str)
def test_without_variation_both_networks_read_sizes(case):
    run = remembering(window=9, **case)
    found = run._selection()
    small_a, small_b = (run._small_losses(which)[1] for which in (0, 1))
    assert found.branch == "small losses"
    assert np.array_equal(found.clean, small_a & small_b)
    assert np.array_equal(found.pools[0], small_b) and np.array_equal(found.pools[1], small_a)
    assert np.array_equal(found.orders[0], run.losses[1, -1])


def test_what_is_added_may_be_guessed_as_well():
    plain, literal = remembering(window=9), remembering(window=9, unlabeled="not clean")
    for run in (plain, literal):
        run.selected = run._selection()
        assert run.selected.clean.any()
    expected, found = plain.divided(0), literal.divided(0)
    assert np.array_equal(found.labeled, literal.selected.clean)
    assert np.array_equal(found.all_labeled(), expected.labeled)
    assert np.array_equal(found.row_weights, expected.row_weights)
    assert (found.blends.weight == 1.0).all() and np.array_equal(found.blends.first, found.blends.second)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("falling", [0.6, 0.4, 0.6, 0.05]), ("first", [0.6] * 4), ("current", [0.6, 0.4, 0.9, 0.05])],
)
def test_the_share_believed_clean_falls_and_never_rises(rule, expected):
    run = training(clean_share=rule)
    assert [run._clean_share(now) for now in (0.6, 0.4, 0.9, 0.01)] == expected


def test_no_limit_on_rows_of_much_variation_and_other_rules_of_beta():
    limited, free = (remembering(drop=9, window=9, most_unstable=most)._selection() for most in (0.1, None))
    assert (limited.clean <= free.clean).all() and limited.clean.sum() < free.clean.sum()
    literal = remembering(drop=9, window=9, beta_rule="eq5")._selection()
    assert not np.array_equal(literal.clean, limited.clean)


def test_labels_of_which_none_is_believed_are_counted():
    run = remembering(window=9)
    run.predictions[1, -1, run.codes == 2] = 3
    run.predictions[1, -2, run.codes == 2] = 1
    run.predictions[1, :-2, run.codes == 2] = 0
    run.selected = run._selection()
    told = run._told(run.selected)
    assert told["classes_without_clean"] == 1 and told["n_clean"] == run.selected.clean.sum()
    assert (np.bincount(run.codes[run.divided(0).labeled], minlength=K) >= 5).all()


# --- epochs ---------------------------------------------------------------------------------------


def test_the_bank_remembers_both_networks_and_the_rate():
    run = training(epochs=8, lr_drops=(0.25,), lr=0.1)
    for epoch in range(4):
        run.run_epoch(epoch, Bar())
    assert run.rates[-4:] == pytest.approx([0.1] * 2 + [0.02] * 2)
    probs = [run._evaluated(which, run.rows) for which in (0, 1)]
    for which in (0, 1):
        assert np.array_equal(run.predictions[which, -1], probs[which].argmax(axis=1))
        expected = -np.log(probs[which][np.arange(N), run.codes])
        np.testing.assert_allclose(run.losses[which, -1], expected, rtol=1e-4)
    assert np.array_equal(run.predicted, run.predict(run.rows).argmax(axis=1))


def test_history_tells_the_selection():
    X, y = load_digits(return_X_y=True)
    settings = {"max_epochs": 14, "warmup_epochs": 3, "probes": 0.0, "lr_drops": (0.5,), "window": 5}
    model = VRLVMixClassifier(**settings, synthetic=True, scan=None, random_state=0).fit(X[:200], y[:200])
    branches = [record.get("branch") for record in model.history_]
    # Three epochs are too few for a variation of five changes.
    assert branches == [None] * 3 + ["small losses"] * 3 + ["constant rate"] * 4 + ["changed rate"] * 4
    last = model.history_[-1]
    assert last["n_labeled_1"] == model.labeled_[0].sum() and model.labeled_.shape == (2, 200)
    sizes = [np.bincount(y[:200][rows], minlength=10) for rows in model.labeled_]
    assert last["smallest_class"] == np.min(sizes) and last["largest_class"] == np.max(sizes)
    assert last["n_clean"] <= last["n_labeled_1"] and 0.05 <= last["clean_share"] <= 1.0
    assert "scan_loss" not in last and last["n_synthetic_1"] == 0
    with pytest.raises(AttributeError, match="labeled_"):
        VRLVMixClassifier().labeled_  # noqa: B018


@pytest.mark.parametrize(
    ("scan", "rate", "expected"),
    # Of four classes, symmetric 0.59 and 0.61 of the papers, as shares of wrong labels.
    [(None, 0.44, False), (None, 0.46, True), (True, 0.1, True), (False, 0.7, False)],
)
def test_neighbors_are_told_alike_where_most_labels_are_wrong(monkeypatch, scan, rate, expected):
    run = training(scan=scan, n_neighbors=7, scan_lr=0.01, scan_entropy=3.0)
    for epoch in range(2):
        run.run_epoch(epoch, Bar())
    asked = []

    def scanned(net, rows, neighbors, generator, **settings):
        asked.append((run.nets.index(net), neighbors.shape, settings))
        return {"loss": 1.5}

    monkeypatch.setattr(clustered, "scan_epoch", scanned)
    run.rate = rate
    before = run.predictions[:, -1].copy()
    record = run.run_epoch(2, Bar())
    assert ("scan_loss" in record) is expected and bool(asked) is expected
    for which, shape, settings in asked:
        assert shape == (N, 7) and settings["lr"] == 0.01 and settings["entropy_weight"] == 3.0
        assert np.array_equal(settings["predictions"], before[1 - which])
    if expected:
        run.predicted[:] = 1  # all rows in one class
        assert run.run_epoch(3, Bar())["scan_loss"] is None and len(asked) == 2


def test_features_given_are_where_neighbors_are_looked_for():
    run = training(n_neighbors=3)
    run.find_neighbors(run._space())
    unit = run.features / np.linalg.norm(run.features, axis=1, keepdims=True)
    naive = np.argsort(-(unit @ unit.T) + 9 * np.eye(N), axis=1, kind="stable")[:, :3]
    assert np.array_equal(run.neighbors, naive)
    own = training(n_neighbors=3)
    own.features = None
    assert own._space().shape[1] == 2 * own.nets[0].evaluate(own.rows, features=True)[1].shape[1]
    np.testing.assert_allclose(np.linalg.norm(own._space(), axis=1), np.sqrt(2), rtol=1e-5)


# --- pre-training ---------------------------------------------------------------------------------


def pictures(n=60):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    X = rng.uniform(0, 0.5, size=(n, 12, 12)).astype(np.float32)
    for row, code in zip(X, y, strict=True):
        row[4 * code : 4 * code + 4] += 0.5
    return X, y


@pytest.mark.parametrize("scan", [None, False])
def test_networks_begin_where_pre_training_ends(monkeypatch, scan):
    X, y = pictures()
    seen = {}
    own = clustered.simclr_weights

    def simclr(net, rows, **settings):
        seen["simclr"], seen["epochs"] = own(net, rows, **settings), settings["epochs"]
        return seen["simclr"]

    def clusters(net, rows, neighbors, *, weights, **settings):
        assert weights is seen["simclr"]
        seen["neighbors"] = neighbors
        probs = np.eye(3, dtype=np.float32)[(y + 1) % 3]  # cluster 1 is class 0
        return Clusters({name: tensor + 1 for name, tensor in weights.items()}, probs, 1.0)

    monkeypatch.setattr(clustered, "simclr_weights", simclr)
    monkeypatch.setattr(clustered, "scan_weights", clusters)
    run = untrained(X, y, scan=scan, pretrain_epochs=2)
    run._pretrain()
    assert seen["epochs"] == 2 and run.neighbors.shape == (60, 20)
    expected = seen["simclr"]
    if scan is None:
        assert np.array_equal(run.neighbors, seen["neighbors"])
        shifted = {name: tensor + 1 for name, tensor in expected.items()}
        expected = reordered(run.nets[0], run.rows, shifted, np.array([2, 0, 1]))
    for net in run.nets:
        for name, tensor in net.module_.state_dict().items():
            assert torch.equal(tensor, expected[name]), name


def untrained(X, y, **parameters):
    settings = {
        "pretrain": "simclr",
        "pretrain_epochs": 1,
        "max_epochs": 3,
        "warmup_epochs": 1,
        "probes": 0.0,
    }
    rows = ArrayRows(torch.from_numpy(X[..., None]), images=True)
    return VRLVMixClassifier(**settings | parameters)._begin(rows, y, 3, None, None, np.random.RandomState(0))


def test_a_warm_up_behind_pre_training_moves_the_last_layer_alone():
    run = untrained(*pictures(), scan=False)
    run._pretrain()
    before = [{name: p.detach().clone() for name, p in net.module_.named_parameters()} for net in run.nets]
    run._warm_up(0, Bar())
    for net, weights in zip(run.nets, before, strict=True):
        moved = {name for name, p in net.module_.named_parameters() if not torch.equal(p, weights[name])}
        assert moved == {name for name in weights if name.startswith("head")}
        assert all(p.requires_grad for p in net.module_.parameters())
    run._train_plainly(np.arange(60) < 50)
    run._warm_up(1, Bar())
    for net, weights in zip(run.nets, before, strict=True):
        assert not any(torch.equal(p, weights[name]) for name, p in net.module_.named_parameters())


def test_pre_training_is_part_of_fit():
    X, y = pictures()
    model = VRLVMixClassifier(pretrain="simclr", pretrain_epochs=1, max_epochs=3, scan=False, random_state=0)
    assert np.isfinite(model.fit(X, y).predict_proba(X)).all() and len(model.history_) == 3


# --- taking up again ------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stopped", [2, 4, 9])
def test_a_run_is_taken_up_with_the_same_bits(tmp_path, monkeypatch, stopped):
    """In the warm-up, with few recorded epochs, and after a change of the learning rate."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], plant_noise(y[:200], "symmetric", 0.3, random_state=0)[0]
    settings = {"max_epochs": 12, "warmup_epochs": 3, "window": 4, "synthetic": True, "scan": True}
    settings |= {"least_epochs": 0, "unlabeled": "not clean", "random_state": 0}
    whole = VRLVMixClassifier(**settings).fit(X, y)
    own = vrlvmix._VRLVMix.run_epoch

    def run_epoch(self, epoch, bar):
        if epoch == stopped:
            raise Stopped
        return own(self, epoch, bar)

    monkeypatch.setattr(vrlvmix._VRLVMix, "run_epoch", run_epoch)
    with pytest.raises(Stopped):
        VRLVMixClassifier(**settings, checkpoint_dir=tmp_path).fit(X, y)
    monkeypatch.undo()
    again = VRLVMixClassifier(**settings, checkpoint_dir=tmp_path).fit(X, y)
    assert again.history_ == whole.history_ and np.array_equal(again.labeled_, whole.labeled_)
    assert np.array_equal(again.scores_, whole.scores_)
    assert np.array_equal(again.predict_proba(X), whole.predict_proba(X))


KILLED = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import noisefilter.cotraining as cotraining
import noisefilter.losses as losses
from test_vrlvmix import pretrained

def killing(own, n_calls):
    calls = []
    def call(*args, **settings):
        calls.append(0)
        if len(calls) == n_calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return own(*args, **settings)
    return call

module, name = {{"simclr": (losses, "nt_xent"), "mixmatch": (cotraining, "mixmatch_epoch")}}[{where!r}]
setattr(module, name, killing(getattr(module, name), {n_calls}))
pretrained({checkpoints!r})
"""


def pretrained(checkpoints):
    """Return a fit of two epochs without labels, two of warm-up and three of MixMatch."""
    settings = {"pretrain": "simclr", "pretrain_epochs": 3, "max_epochs": 5, "warmup_epochs": 2}
    settings |= {"probes": 0.0, "scan": False, "random_state": 0, "checkpoint_dir": checkpoints}
    return VRLVMixClassifier(**settings).fit(*pictures())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a signal of POSIX")
@pytest.mark.parametrize(
    ("where", "n_calls", "there"),
    # 60 pictures are two steps of SimCLR: the fourth is in the middle of its second epoch; of MixMatch the
    # fourth call is that of the second network in its second epoch.
    [("simclr", 4, "simclr/epoch-0001"), ("mixmatch", 4, "epoch-0003")],
)
def test_a_killed_process_is_taken_up_again_with_the_same_bits(tmp_path, where, n_calls, there):
    checkpoints = tmp_path / "checkpoints"
    folder = str(Path(__file__).parent)
    code = KILLED.format(folder=folder, where=where, n_calls=n_calls, checkpoints=str(checkpoints))
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    newest = max((checkpoints / there).parent.glob("*.safetensors"))
    assert newest == checkpoints / f"{there}.safetensors"
    again, whole = pretrained(str(checkpoints)), pretrained(None)
    X, _ = pictures()
    assert again.history_ == whole.history_ and np.array_equal(again.scores_, whole.scores_)
    assert np.array_equal(again.predict_proba(X), whole.predict_proba(X))


# --- what is learned ------------------------------------------------------------------------------


def memorizing(epochs):
    """A network with room enough to learn wrong labels by heart, and nothing that keeps it from it."""
    return Net(
        MLP, module__n_inputs=64, module__n_classes=10, module__hidden=(128, 128), module__dropout=0.0,
        module__noise=0.0, max_epochs=epochs, batch_size=32, lr=0.05, optimizer=torch.optim.SGD,
        optimizer__momentum=0.9, verbose=0, lr_drops=(0.5, 0.75),
    )  # fmt: skip


def test_it_does_not_learn_the_wrong_labels_that_plain_training_learns():
    X, truth = load_digits(return_X_y=True)
    X, truth = X[:600].astype(np.float32), truth[:600]
    y = plant_noise(truth, "symmetric", 0.4, random_state=0)[0]
    train, test = np.arange(600) < 450, np.arange(600) >= 450
    model = VRLVMixClassifier(memorizing(30), random_state=0).fit(X[train], y[train])
    plain = memorizing(30).set_params(random_state=0).fit(X[train], y[train])
    robust = np.mean(model.predict(X[test]) == truth[test])
    assert robust > np.mean(plain.predict(X[test]) == truth[test]) + 0.1
    assert clean_auc(model.verdict_.scores, y[train] != truth[train]) > 0.9
    for rows in model.labeled_:
        assert np.mean(y[train][rows] == truth[train][rows]) > 0.85


def test_clean_labels_are_left_alone():
    X, truth = load_digits(return_X_y=True)
    X, truth = X[:600], truth[:600]
    model = VRLVMixClassifier(max_epochs=20, random_state=0).fit(X, truth)
    assert model.verdict_.noise_rate < 0.02
    assert model.score(X, truth) > 0.95


def test_a_verdict_given_is_held_before_the_selection_begins():
    X, y = load_digits(return_X_y=True)
    X, y = X[:300], plant_noise(y[:300], "symmetric", 0.3, random_state=0)[0]
    filter_ = INNScorer(max_epochs=5, random_state=0)
    model = VRLVMixClassifier(max_epochs=8, warmup_epochs=2, split_epochs=3, filter=filter_, random_state=0)
    model.fit(X, y)
    branches = [record.get("branch") for record in model.history_]
    assert branches[:5] == [None] * 2 + ["verdict given"] * 3 and "verdict given" not in branches[5:]
    assert model.history_[2]["n_labeled_1"] == model.given_verdict_.clean_mask.sum()


# --- parameters -----------------------------------------------------------------------------------


def test_as_published_spells_out_the_paper():
    published = VRLVMixClassifier.as_published(scan=False).get_params()
    wanted = {
        "max_epochs": 300, "warmup_epochs": 10, "batch_size": 128, "lr": 0.02, "lr_drops": (0.5,),
        "lr_drop_factor": 10.0, "n_neighbors": 20, "scan_lr": 1e-3, "scan_entropy": 2.0, "scan": False,
        "pretrain": "simclr", "pretrain_epochs": 500, "beta_rule": "eq5", "most_unstable": None,
        "clean_share": "first", "unlabeled": "not clean", "synthetic": True, "weighted": True,
        "balance": True, "variation": True, "weight_average": None, "probes": 0.0,
        "confidence_penalty": False, "least_labeled": 0.0, "mixup_alpha": 4.0, "temperature": 0.5,
    }  # fmt: skip
    assert {name: published[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"window": 1}, "window must be a whole number of at least 2, got 1"),
        ({"n_neighbors": 0}, "n_neighbors must be a whole number of at least 1, got 0"),
        (
            {"clean_share": "much"},
            r"clean_share must be one of \('falling', 'first', 'current'\), got 'much'",
        ),
        ({"beta_rule": "any"}, "beta_rule must be one of .*, got 'any'"),
        ({"most_unstable": 1.5}, r"most_unstable must be in \[0, 1\] or None, got 1.5"),
        ({"variation": 2}, r"variation must be True or False, got 2"),
        ({"balance": "yes"}, "balance must be True, False or None, got 'yes'"),
        ({"synthetic": None}, "synthetic must be True or False, got None"),
        ({"unlabeled": 1}, r"unlabeled must be one of \('rest', 'not clean'\), got 1"),
        ({"scan": "no"}, "scan must be True, False or None, got 'no'"),
        ({"scan_lr": 0}, "scan_lr must be greater than 0 and finite, got 0"),
        ({"scan_entropy": -1}, "scan_entropy must be at least 0 and finite, got -1"),
        ({"pretrain": "moco"}, "pretrain must be 'simclr' or None, got 'moco'"),
        ({"pretrain_epochs": 0}, "pretrain_epochs must be a whole number of at least 1, got 0"),
        ({"temperature": 0}, "temperature must be greater than 0 and finite, got 0"),
        ({"warmup_epochs": 0}, "warmup_epochs must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_parameters(parameters, message):
    X, y = load_digits(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        VRLVMixClassifier(**parameters).fit(X[:100], y[:100])


def test_rows_that_are_no_pictures_have_no_contrastive_views():
    X, y = load_digits(return_X_y=True)
    with pytest.raises(ValueError, match="pretrain must be None where rows are no images"):
        VRLVMixClassifier(pretrain="simclr", max_epochs=2).fit(X[:100], y[:100])
