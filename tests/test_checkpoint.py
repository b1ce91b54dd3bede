"""Checkpoints: whole or not there, whoever kills the process, and never of another training.

Run as a script, this file is the process that is killed: ``test_checkpoint.py FOLDER WHERE``.
"""

import json
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from noisefilter import checkpoint
from noisefilter.checkpoint import Checkpoints
from noisefilter.errors import ParameterError
from noisefilter.net import Net, derived_seed, local_seed

CONFIGURATION = {"class": "Something", "parameters": {"lr": 0.1, "drops": (0.5,), "weight": float("nan")}}
N_EPOCHS = 4


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(5, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(nn.functional.dropout(torch.relu(self.norm(self.hidden(x))), 0.5, self.training))


def train(folder):
    """Train with a checkpoint after each epoch, from the newest one there is; returns where that was."""
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    net = Net(Dropping, optimizer=torch.optim.Adam, max_epochs=N_EPOCHS, batch_size=16, random_state=0)
    rows, codes = net.initialize()._rows(x), torch.arange(60) % 3
    with local_seed(net.seed_, rows.device):
        net.begin(rows, codes)
    checkpoints = Checkpoints(folder, CONFIGURATION)
    saved = checkpoints.latest()
    if saved is not None:
        net.load_state(saved.tensors, saved.record["net"])
    first = 0 if saved is None else saved.epoch + 1
    for epoch in range(first, N_EPOCHS):
        with local_seed(derived_seed(net.seed_, epoch), rows.device):
            net.reseed(epoch)
            net.run_epoch(rows, codes, epoch)
        tensors, rest = net.state()
        checkpoints.save(epoch, tensors, {"net": rest})
    return first


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def save(folder, *epochs, configuration=CONFIGURATION):
    checkpoints = Checkpoints(folder, configuration)
    for epoch in epochs:
        checkpoints.save(epoch, {"x": torch.full((3,), float(epoch))}, {"said": f"epoch {epoch}"})
    return checkpoints


def quiet_latest(checkpoints):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return checkpoints.latest()


# --- what is written is what is read --------------------------------------------------------------


def test_an_empty_folder_has_none(tmp_path):
    assert quiet_latest(Checkpoints(tmp_path / "new" / "folder", CONFIGURATION)) is None
    (tmp_path / "weights.safetensors").write_text("of the user")
    assert quiet_latest(Checkpoints(tmp_path, CONFIGURATION)) is None
    assert (tmp_path / "weights.safetensors").exists()


def test_tensors_come_back_to_the_bit_and_records_as_they_were(tmp_path):
    shared = torch.tensor([1.0, torch.nan, -0.0, torch.inf])
    tensors = {
        "shared": shared, "again": shared, "part": shared[1:3], "scalar": torch.tensor(7),
        "empty": torch.zeros((0, 3)), "flags": torch.tensor([True, False]),
        "half": torch.tensor([1.5, 3e38], dtype=torch.bfloat16), "bytes": torch.arange(5, dtype=torch.uint8),
        "exact": torch.tensor([1 / 3], dtype=torch.float64), "turned": torch.arange(6.0).reshape(2, 3).T,
        "image": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "learned": nn.Parameter(torch.rand(2)),
    }  # fmt: skip
    record = {"rates": [0.1, 1 / 3], "best": None, "nested": {"done": True, "name": "é"}, "nan": float("nan")}
    Checkpoints(tmp_path, CONFIGURATION).save(12, tensors, record)
    assert names(tmp_path) == ["epoch-0012.safetensors"]
    saved = quiet_latest(Checkpoints(tmp_path, CONFIGURATION))
    assert saved.epoch == 12
    assert json.dumps(saved.record) == json.dumps(record)
    assert saved.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        found = saved.tensors[name]
        assert found.dtype == value.dtype and found.shape == value.shape, name
        as_bytes = [tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in (found, value)]
        assert torch.equal(*as_bytes), name


def test_what_was_read_outlives_its_file(tmp_path):
    saved = save(tmp_path, 1).latest()
    path = tmp_path / "epoch-0001.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert saved.tensors["x"].tolist() == [1.0] * 3


def test_the_last_two_are_kept(tmp_path):
    save(tmp_path, 0, 1, 2, 9, 10, 10000)
    assert names(tmp_path) == ["epoch-0010.safetensors", "epoch-10000.safetensors"]
    assert quiet_latest(Checkpoints(tmp_path, CONFIGURATION)).epoch == 10000


def test_what_a_killed_process_did_not_remove_goes_with_the_next(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_tidy", lambda *args: None)
        save(tmp_path, 1, 2, 3)
    assert quiet_latest(Checkpoints(tmp_path, CONFIGURATION)).epoch == 3
    assert names(tmp_path) == ["epoch-0002.safetensors", "epoch-0003.safetensors"]


def test_a_spoiled_later_file_does_not_push_out_good_ones(tmp_path):
    checkpoints = save(tmp_path, 1, 2)
    for epoch in (3, 4):
        (tmp_path / f"epoch-000{epoch}.safetensors").write_bytes(b"")
    save(tmp_path, 3)
    assert "epoch-0002.safetensors" in names(tmp_path)
    with pytest.warns(UserWarning, match="epoch-0004"):
        assert checkpoints.latest().epoch == 3


# --- what cannot be read, and what is of another training ------------------------------------------


def spoil_header(data):
    return data.replace(b"noisefilter", b"noisesilter")


def spoil_json(data):
    return data.replace(b'\\"record\\"', b'\\"rekord\\"')


@pytest.mark.parametrize(
    "spoil",
    [lambda data: data[:-1], lambda data: b"", lambda data: b"PK" + data, spoil_header, spoil_json],
    ids=["truncated", "empty", "foreign", "of another program", "of another layout"],
)
def test_a_spoiled_file_is_named_and_passed_over(tmp_path, spoil):
    checkpoints = save(tmp_path, 1, 2)
    path = tmp_path / "epoch-0002.safetensors"
    data = path.read_bytes()
    assert spoil(data) != data
    path.write_bytes(spoil(data))
    with pytest.warns(UserWarning, match=r"epoch-0002\.safetensors must be a whole checkpoint, got .*passed"):
        saved = checkpoints.latest()
    assert saved.epoch == 1 and saved.record == {"said": "epoch 1"}


def test_every_truncation_is_found(tmp_path):
    checkpoints = save(tmp_path, 1)
    path = tmp_path / "epoch-0001.safetensors"
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.warns(UserWarning, match="must be a whole checkpoint"):
            assert checkpoints.latest() is None


def test_another_configuration_is_an_error_that_names_what_differs(tmp_path):
    save(tmp_path, 1)
    parameters = {"lr": 0.2, "drops": [0.5], "weight": float("nan"), "new": None}
    other = {"class": "Something", "parameters": parameters, "rows": "ab" * 100}
    with pytest.raises(ParameterError) as caught:
        Checkpoints(tmp_path, other).latest()
    message = str(caught.value)
    assert "parameters.lr was 0.1, is 0.2; parameters.new was not there, is null; rows was not" in message
    assert message.endswith("Name another folder, or empty this one.") and str(tmp_path) in message
    assert not any(word in message for word in ("class", "drops", "weight", "format")) and len(message) < 500


def test_a_later_format_is_another_configuration(tmp_path, monkeypatch):
    save(tmp_path, 1)
    monkeypatch.setattr(checkpoint, "_FORMAT", 2)
    with pytest.raises(ParameterError, match="format was 1, is 2"):
        Checkpoints(tmp_path, CONFIGURATION).latest()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(ParameterError, match="checkpoint_dir must be a folder that can be written to"):
            Checkpoints(folder, {})


# --- what goes wrong while writing ----------------------------------------------------------------


def test_a_file_that_may_not_grow_is_a_warning(tmp_path):
    """The limit ends a real write halfway, as a full disk does."""
    resource = pytest.importorskip("resource")
    checkpoints = save(tmp_path, 1, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="epoch 3 could not be written .*Training goes on"):
            checkpoints.save(3, {"x": torch.zeros(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["epoch-0001.safetensors", "epoch-0002.safetensors"]
    assert quiet_latest(checkpoints).epoch == 2


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_a_warning(tmp_path, monkeypatch, step):
    checkpoints = save(tmp_path, 1, 2)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, full)
        with pytest.warns(UserWarning, match="epoch 3 could not be written .*No space left"):
            save(tmp_path, 3)
    assert names(tmp_path) == ["epoch-0001.safetensors", "epoch-0002.safetensors"]
    assert quiet_latest(checkpoints).epoch == 2
    save(tmp_path, 3)
    assert quiet_latest(checkpoints).epoch == 3


def test_an_interrupt_while_writing_leaves_nothing_behind(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    assert names(tmp_path) == ["epoch-0001.safetensors"]


def test_bytes_are_on_the_disk_before_the_name_is_and_the_name_behind_it(tmp_path, monkeypatch):
    calls = []

    def noted(name):
        own = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args: (calls.append(name), own(*args))[1])

    noted("fsync")
    noted("replace")
    save(tmp_path, 1)
    assert calls == ["fsync", "replace", "fsync"][: 3 if hasattr(os, "O_DIRECTORY") else 2]


def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a signal of POSIX")
@pytest.mark.parametrize("where", ["training", "writing", "renaming"])
def test_killed_and_taken_up_again_ends_in_the_same_bits(tmp_path, where):
    """In the third epoch, while it trains, writes its file, or renames it."""
    folder = tmp_path / "killed"
    done = subprocess.run([sys.executable, __file__, str(folder), where], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    parts = [name for name in names(folder) if name.endswith(".part.safetensors")]
    assert len(parts) == (where != "training")
    assert [name for name in names(folder) if name not in parts] == [
        "epoch-0000.safetensors",
        "epoch-0001.safetensors",
    ]
    assert train(folder) == 2
    assert train(tmp_path / "whole") == 0
    assert names(folder) == names(tmp_path / "whole")
    for name in names(folder):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class _Slow:
    """A file whose second half is never written."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        die()


def doomed(where):
    """Have this process killed in the third epoch."""
    own_step, own_save, own_open = Net._step, Checkpoints.save, checkpoint.Path.open

    def step(net, *args):
        if len(net.history) == 3 and where == "training":
            die()
        return own_step(net, *args)

    def saving(checkpoints, epoch, *args):
        if epoch == 2 and where == "writing":
            checkpoint.Path.open = lambda path, mode: _Slow(own_open(path, mode))
        if epoch == 2 and where == "renaming":
            os.replace = die
        own_save(checkpoints, epoch, *args)

    Net._step, Checkpoints.save = step, saving


if __name__ == "__main__":
    doomed(sys.argv[2])
    train(sys.argv[1])
