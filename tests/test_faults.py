"""Bad days: what was whole before is whole after, and a GPU that is full is told in one sentence."""

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch

import noisefilter
from noisefilter import DivideMixClassifier, SimCLR, judge, save
from noisefilter.atomic import left_over, temporary
from noisefilter.audit.copies import whole
from noisefilter.audit.tables import TRAINING, check_output, output_folder, put_right, read_flagged
from noisefilter.base import BaseFilter
from noisefilter.checkpoint import Checkpoints
from noisefilter.errors import InputError, ParameterError
from noisefilter.net import Net
from noisefilter.trainer import BaseTrainer

PUBLIC = [getattr(noisefilter, name) for name in noisefilter.__all__]
JUDGES = [kind for kind in PUBLIC if isinstance(kind, type) and issubclass(kind, BaseFilter | BaseTrainer)]

posix = pytest.mark.skipif(os.name == "nt", reason="forks, and asks for processes by number")


# --- struck at any moment -------------------------------------------------------------------------


@posix
def test_nothing_is_lost_whatever_strikes(script):
    """A few strikes of each kind on three kinds of work; the benchmark has them all."""
    faults = script("faults")
    records = faults.struck(2, 60, kinds=("audit", "apply", "save"))
    assert [record["wrong"] for record in records] == [[]] * 9
    assert [record["times"] for record in records] == [2] * 9


@posix
@pytest.mark.parametrize(
    ("kind", "spoiled", "seen"),
    [
        ("apply", "decisions.json", {"lost or torn"}),
        ("save", "out.safetensors", {"lost or torn", "cannot be loaded"}),
        ("save", ".out.part", {"left over after the next process"}),
    ],
)
def test_a_strike_that_loses_something_is_seen(script, tmp_path, monkeypatch, kind, spoiled, seen):
    faults = script("faults")
    arena = faults.Arena(faults.WORKS[kind][0], tmp_path)

    def careless(folder):
        (folder / spoiled).write_text("{}")
        return 0

    monkeypatch.setattr(arena, "work", faults.Work(kind, careless))
    _, wrong = arena.trial("full", 0, np.random.default_rng(0))  # a disk with room for so little
    assert seen <= {line.partition(":")[0] for line in wrong}


# --- killed while a folder is replaced --------------------------------------------------------------


@pytest.fixture
def dead():
    """Return the number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def hidden(folder):
    return sorted(path.name for path in folder.glob(".*"))


def write(out, maker=TRAINING, **files):
    with output_folder(out, {}, maker) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


@posix
def test_what_a_killed_process_moved_away_is_put_back(tmp_path, dead):
    write(tmp_path / "out", page="1")
    (tmp_path / "out" / "checkpoints").mkdir()
    (tmp_path / "out").rename(tmp_path / f".out.{dead}.old")
    (tmp_path / f".out.{dead}.new").mkdir()
    put_right(tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["checkpoints", "page", "training.json"]
    assert hidden(tmp_path) == []


@posix
def test_checkpoints_follow_a_folder_that_was_replaced(tmp_path, dead):
    write(tmp_path / "out", page="2")
    old = tmp_path / f".out.{dead}.old"
    (old / "checkpoints").mkdir(parents=True)
    (old / "page").write_text("1")
    put_right(tmp_path / "out")
    assert (tmp_path / "out" / "page").read_text() == "2" and (tmp_path / "out" / "checkpoints").is_dir()
    assert hidden(tmp_path) == []


@posix
def test_half_of_a_folder_is_never_put_back(tmp_path, dead):
    (tmp_path / f".out.{dead}.gone").mkdir()
    put_right(tmp_path / "out")
    assert os.listdir(tmp_path) == []


@posix
def test_what_a_running_process_writes_is_left_alone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        for what in ("old", "new"):
            (tmp_path / f".out.{process.pid}.{what}").mkdir()
        put_right(tmp_path / "out")
        assert len(hidden(tmp_path)) == 2
        process.communicate(b"\n")
    put_right(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out"]


@posix
def test_other_names_are_left_alone(tmp_path, dead):
    others = {
        f".out.{dead}.new.csv",
        f".outer.{dead}.new",
        ".out.new",
        f".out.{dead}.news",
        f"out.{dead}.new",
    }
    for name in others:
        (tmp_path / name).mkdir()
    put_right(tmp_path / "out")
    assert set(os.listdir(tmp_path)) == others


@posix
@pytest.mark.parametrize("name", ["copy.csv", "photos"])
def test_a_copy_that_was_cut_short_goes_with_the_next_one(tmp_path, dead, name):
    stem, dot, suffix = name.partition(".")
    left = tmp_path / f".{stem}.{dead}.new{dot}{suffix}"
    left.mkdir() if not suffix else left.write_text("half")
    with whole(tmp_path / name) as (new,):
        assert new == temporary(tmp_path / name, "new", tmp_path) and not left.exists()
        new.write_text("whole")
    assert os.listdir(tmp_path) == [name]


@posix
def test_a_file_that_was_cut_short_goes_with_the_next_save(tmp_path, dead):
    """Of this file alone, and not while its process runs."""
    others = {f".other.{dead}.part.safetensors", f".saved.{os.getppid()}.part.safetensors"}
    for name in {f".saved.{dead}.part.safetensors", *others}:
        (tmp_path / name).write_bytes(b"half")
    verdict = judge(np.tile([[0.9, 0.1], [0.2, 0.8]], (10, 1)), np.arange(20) % 2)
    save(verdict, tmp_path / "saved.safetensors")
    assert set(os.listdir(tmp_path)) == {"saved.safetensors", *others}


def test_where_nothing_can_be_listed_nothing_is_left_over(tmp_path):
    assert left_over(tmp_path / "none" / "out", "old", tmp_path / "none") == []


@posix
def test_an_audit_that_was_moved_away_can_still_be_applied(tmp_path, dead):
    from noisefilter.datasets.arrays import ArrayStore

    store = ArrayStore(np.zeros((2, 2)), np.array(["a", "b"]), "rows")
    write(tmp_path / "out", page="1")
    (tmp_path / "out").rename(tmp_path / f".out.{dead}.old")
    with pytest.raises(InputError, match=r"The training in .* must be of this data set"):
        read_flagged(tmp_path / "out", store)
    assert check_output(tmp_path / "out", TRAINING) == (tmp_path / "out").resolve()


# --- folders that cannot be written -----------------------------------------------------------------


@posix
def test_a_read_only_folder_is_told_before_training(blobs, tmp_path, monkeypatch):
    (tmp_path / "epoch-0001.safetensors").write_bytes(b"of the user")
    if os.geteuid():
        tmp_path.chmod(0o500)
    else:  # root may write anywhere
        monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    try:
        with pytest.raises(
            ParameterError, match="checkpoint_dir must be a folder that can be written to, got"
        ):
            Checkpoints(tmp_path, {})
        with pytest.raises(ParameterError, match="which is read-only"):
            DivideMixClassifier(checkpoint_dir=tmp_path, random_state=0).fit(blobs.X, blobs.y)
    finally:
        tmp_path.chmod(0o700)
    assert (tmp_path / "epoch-0001.safetensors").read_bytes() == b"of the user"


# --- the memory of a GPU ----------------------------------------------------------------------------


class Large:
    """What lies on the device while it becomes full."""


@pytest.fixture
def full(monkeypatch):
    """Let every step of a network meet a full GPU; return what was alive there."""
    alive = []

    def outputs(net, x, half=False):
        large = Large()
        alive.append(weakref.ref(large))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    monkeypatch.setattr(Net, "outputs", outputs)
    return alive


@pytest.mark.parametrize("kind", JUDGES, ids=lambda kind: kind.__name__)
def test_a_full_gpu_is_one_sentence(kind, blobs, full):
    judge = kind(max_epochs=2, batch_size=64, random_state=0)
    with pytest.raises(ParameterError) as caught:
        judge.fit(blobs.X, blobs.y)
    message = str(caught.value)
    assert message.startswith(
        "batch_size must leave room in the memory of the device, got 64 (CUDA out of memory. Tried to "
        "allocate 2.00 GiB.). Halve it, "
    )
    assert "\n" not in message and not hasattr(judge, "verdict_")
    gc.collect()
    assert full and not any(reference() for reference in full)


def test_a_full_gpu_at_predict_time(blobs, monkeypatch):
    model = DivideMixClassifier(max_epochs=2, random_state=0).fit(blobs.X, blobs.y)
    probs = model.predict_proba(blobs.X)
    with monkeypatch.context() as patch:
        patch.setattr(Net, "outputs", lambda *args, **kwargs: raise_full())
        with pytest.raises(ParameterError, match="got its default"):
            model.predict(blobs.X)
    assert np.array_equal(model.predict_proba(blobs.X), probs)


def test_a_full_gpu_without_labels(images, full):
    with pytest.raises(ParameterError, match="batch_size must leave room"):
        SimCLR(max_epochs=1, random_state=0).fit(images.X)


def raise_full():
    raise torch.OutOfMemoryError("CUDA out of memory.")
