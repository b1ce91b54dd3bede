"""`noisefilter train`: what it writes and says, that it goes on where it was, and what it refuses."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from noisefilter.cotraining import CoTraining
from noisefilter.errors import ParameterError
from noisefilter.trainers.dividemix import DivideMixClassifier
from noisefilter.training.held_out import held_out
from noisefilter.training.methods import FILTERS, METHODS, made

ROOT = Path(__file__).parents[2]
CHILD = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
FILES = [
    "checkpoints", "clean_mask.npy", "history.csv", "model.joblib", "training.html", "training.json",
    "verdict.csv", "verdict.parquet",
]  # fmt: skip
SHORT = ("--epochs", 3, "--batch-size", 64, "--device", "cpu")


def table(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fact(printed, name):
    """Return the value the summary gives for `name`."""
    return re.search(rf"^ *{name} +(.*?) *$", printed, re.MULTILINE)[1]


@pytest.fixture
def fits(monkeypatch):
    """Stand in for the training, which takes its time: return what each fit was given, and change nothing."""
    seen = []
    fit = DivideMixClassifier.fit

    def spied(self, X, y, features=None, eval_set=None):
        seen.append((self, X, y, eval_set))
        return fit(self, X, y, features, eval_set)

    monkeypatch.setattr(DivideMixClassifier, "fit", spied)
    return seen


# what comes out


def test_everything_is_written_and_agrees_with_the_trainer(run, tmp_path, npz, fits, blobs):
    out = tmp_path / "t"
    code, printed, err = run(
        "train", npz, "--out", out, *SHORT, "--test-share", 0.2, "--truth", tmp_path / "truth.npy"
    )
    assert (code, err) == (0, "")
    trainer, X, y, (X_test, y_test) = fits[0]
    assert names(out) == FILES
    assert names(out / "checkpoints") == ["epoch-0002.safetensors", "epoch-0003.safetensors"]

    rows = table(out / "verdict.csv")
    kept = np.array([int(row["row"]) for row in rows])
    assert np.array_equal(X, blobs.X[kept]) and np.array_equal(y, blobs.y[kept])
    held = np.setdiff1d(np.arange(300), kept)
    assert np.array_equal(X_test, blobs.X[held])
    assert np.array_equal(y_test, blobs.truth[held]), "accuracy is that on the right labels"
    assert [row["verdict"] == "clean" for row in rows] == trainer.verdict_.clean_mask.tolist()
    mask = np.load(out / "clean_mask.npy")
    assert np.array_equal(mask[kept], trainer.verdict_.clean_mask) and not mask[held].any()

    history = table(out / "history.csv")
    assert [int(record["epoch"]) for record in history] == [1, 2, 3]
    accuracies = [float(record["test_accuracy"]) for record in history]
    assert accuracies == [record["test_accuracy"] for record in trainer.history_]
    assert history[0]["n_labeled_1"] == "", "nothing is divided in the warm-up"
    marker = json.loads((out / "training.json").read_text())
    assert marker["made_by"] == "noisefilter train"
    assert (marker["method"], marker["filter"], marker["epochs"]) == ("DivideMixClassifier", "none", 3)
    assert marker["accuracy"] == trainer.eval_report_
    assert marker["counts"]["flagged"] == int((~trainer.verdict_.clean_mask).sum())
    assert fact(printed, "test accuracy") == f"{accuracies[-1]:.1%} after the last epoch"
    assert fact(printed, "epochs") == "3"
    page = (out / "training.html").read_text()
    assert f"{len(held)} test rows are predicted right." in page
    assert "Their labels are as given" not in page
    n_kept = f"{trainer.labeled_.sum() / 2:g} of {len(kept)} in all"
    assert ("Labels kept, by class" in page and n_kept in page) is bool(trainer.labeled_.any())


def test_the_same_command_reads_the_training_back(run, tmp_path, npz, monkeypatch):
    command = ("train", npz, "--out", tmp_path / "t", *SHORT, "--test-share", 0.2, "--quiet")
    assert run(*command) == (0, "", "")
    before = {name: (tmp_path / "t" / name).read_bytes() for name in ("verdict.csv", "history.csv")}
    monkeypatch.setattr(CoTraining, "run_epoch", None)  # nothing is left to train
    assert run(*command) == (0, "", "")
    assert before == {name: (tmp_path / "t" / name).read_bytes() for name in before}
    assert names(tmp_path / "t") == FILES


def test_another_training_needs_another_folder_or_a_fresh_start(run, tmp_path, npz):
    run("train", npz, "--out", tmp_path / "t", *SHORT, "--quiet")
    before = (tmp_path / "t" / "history.csv").read_bytes()
    code, _, err = run("train", npz, "--out", tmp_path / "t", *SHORT, "--lr", 0.01, "--quiet")
    assert code == 2 and err.startswith("--checkpoint-dir must hold checkpoints of this same training")
    assert "lr was null, is 0.01" in err and err.endswith("--fresh empties it.\n")
    assert (tmp_path / "t" / "history.csv").read_bytes() == before
    assert run("train", npz, "--out", tmp_path / "t", *SHORT, "--lr", 0.01, "--quiet", "--fresh")[0] == 0
    assert (tmp_path / "t" / "history.csv").read_bytes() != before


def test_a_filter_before_is_asked(run, tmp_path, npz, fits):
    filtered = ("--filter", "small_loss", "--quiet")
    assert run("train", npz, "--out", tmp_path / "t", *SHORT, *filtered)[0] == 0
    trainer = fits[0][0]
    assert type(trainer.filter).__name__ == "SmallLossSelector"
    assert trainer.given_verdict_.method == "SmallLossSelector"
    assert "SmallLossSelector" in (tmp_path / "t" / "training.html").read_text()


@pytest.mark.parametrize("filter", FILTERS)
def test_every_filter_can_stand_before(filter):
    trainer = made("dividemix", filter, random_state=3, channels="last", device="cpu", lr=None, verbose=1)
    assert (trainer.random_state, trainer.lr, trainer.channels) == (3, None, "last")
    assert (trainer.filter is None) == (filter == "none")
    if filter not in ("none", "vote"):
        assert (trainer.filter.random_state, trainer.filter.channels) == (3, "last")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_trainer(method):
    assert hasattr(made(method, "none", random_state=0), "checkpoint_dir")


def test_what_a_training_flagged_can_be_removed(run, tmp_path, npz):
    run("train", npz, "--out", tmp_path / "t", *SHORT, "--quiet")
    (tmp_path / "d.json").write_text(json.dumps({
        "made_by": "noisefilter report", "format": 1, "decisions": [], "rows": 300,
        "fingerprint": json.loads((tmp_path / "t" / "training.json").read_text())["fingerprint"],
        "description": "",
    }))  # fmt: skip
    args = ("--undecided", "remove", "--audit", tmp_path / "t", "--out", tmp_path / "c.npz")
    assert run("apply", tmp_path / "d.json", npz, *args)[0] == 0
    with np.load(tmp_path / "c.npz") as copy, np.load(npz) as archive:
        mask = np.load(tmp_path / "t" / "clean_mask.npy")
        assert np.array_equal(copy["X"], archive["X"][mask])


# rows to test on


def test_a_share_of_each_class_is_held_out():
    labels = np.array(["a"] * 50 + ["b"] * 10 + ["c"])
    held = held_out(labels, 0.2, random_state=0)
    assert [held[labels == name].sum() for name in "abc"] == [10, 2, 0]
    assert np.array_equal(held, held_out(labels, 0.2, random_state=0))
    assert not np.array_equal(held, held_out(labels, 0.2, random_state=1))
    with pytest.raises(ParameterError, match=r"test_share must hold out a row at least, got 0\.01"):
        held_out(labels, 0.01, random_state=0)


def test_given_labels_of_held_out_rows_are_not_trusted(run, tmp_path, npz, fits, blobs):
    assert run("train", npz, "--out", tmp_path / "t", *SHORT, "--test-share", 0.2, "--quiet")[0] == 0
    held = held_out(blobs.y, 0.2, random_state=0)
    assert np.array_equal(fits[0][3][1], blobs.y[held])
    assert "Their labels are as given" in (tmp_path / "t" / "training.html").read_text()


def test_another_table_is_made_numeric_like_the_first(run, tmp_path, fits):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "id": np.arange(120), "size": rng.normal(10, 3, 120), "color": rng.choice(["red", "blue"], 120),
    })  # fmt: skip
    frame["label"] = np.where(frame["size"] > 10, "big", "small")
    frame.loc[5, "size"] = np.nan
    frame.to_csv(tmp_path / "train.csv", index=False)
    other = pd.DataFrame({"label": ["big", "small"], "color": ["green", "red"], "size": [100, np.nan],
                          "id": [7, 7]})  # fmt: skip
    other.to_csv(tmp_path / "test.csv", index=False)
    args = ("--test", tmp_path / "test.csv", "--out", tmp_path / "t", *SHORT, "--quiet")
    assert run("train", tmp_path / "train.csv", *args) == (0, "", "")
    _, X, y, (X_test, y_test) = fits[0]
    known = frame["size"].dropna()
    middle = frame["size"].fillna(known.median())
    assert X.shape == (120, 4), "size, where it is missing, and two colors; the count of the rows is left out"
    assert X_test[:, 0] == pytest.approx(
        (np.array([100, known.median()]) - middle.mean()) / middle.std(ddof=0), rel=1e-5
    )
    assert X_test[:, 2:].tolist() == [[0, 0], [0, 1]]
    assert y_test.tolist() == ["big", "small"] and len(y) == 120
    assert "2 rows, 3 columns" in (tmp_path / "t" / "training.html").read_text()
    assert len(np.load(tmp_path / "t" / "clean_mask.npy")) == 120


def test_labels_to_test_on_are_called_as_those_to_train_on(run, tmp_path, fits):
    frame = pd.DataFrame({"size": np.arange(60) % 7, "label": ["1", "2", "x"] * 20})
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame[frame["label"] == "2"].to_csv(tmp_path / "test.csv", index=False)  # a number, for all it knows
    args = ("--test", tmp_path / "test.csv", "--out", tmp_path / "t", *SHORT, "--quiet")
    code, out, err = run("train", tmp_path / "train.csv", *args)
    assert (code, out) == (0, "")
    assert err.startswith("Note: max_epochs must leave at least 15 epochs")  # nothing can be learned here
    assert fits[0][3][1].tolist() == ["2"] * 20


def test_two_folders_of_photos(run, tmp_path, fits):
    rng = np.random.default_rng(0)
    for folder, n in (("train", 24), ("test", 6)):
        for row in range(n):
            path = tmp_path / folder / ("bright" if row % 2 else "dark")
            path.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(120 * (row % 2), 120 * (row % 2) + 100, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / f"{row:02}.png")
    args = ("--test", tmp_path / "test", "--image-size", 8, "--epochs", 1, "--quiet")
    code, _, err = run("train", tmp_path / "train", "--out", tmp_path / "t", *args)
    assert (code, err) == (0, "")
    assert fits[0][1].shape == (24, 8, 8, 3) and fits[0][3][0].shape == (6, 8, 8, 3)
    assert "6 images in test/" in (tmp_path / "t" / "training.html").read_text()


def test_a_split_of_a_hugging_face_data_set(run, tmp_path, fits):
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)

    def part(n):
        pixels = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(n)]
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        return datasets.Dataset.from_dict({"image": pixels, "label": [k % 2 for k in range(n)]}, kinds)

    datasets.DatasetDict({"train": part(20), "test": part(4)}).save_to_disk(str(tmp_path / "hub"))
    args = ("--split", "train", "--image-size", 8, "--epochs", 1, "--quiet", "--out", tmp_path / "t")
    assert run("train", tmp_path / "hub", *args, "--test-split", "test")[0] == 0
    assert fits[0][3][1].tolist() == ["a", "b", "a", "b"]
    code, _, err = run("train", tmp_path / "hub", *args[:-1], tmp_path / "u", "--test-split", "train")
    assert (code, err) == (
        2, "--test-split must name other rows than those to train on, got 'train'.\n"
    )  # fmt: skip


# what is refused


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["nonsense"], "source must be digits, cifar10, cifar100, an .npz, .csv"),
        (
            ["rows.npz", "--method", "magic"],
            "--method must be one of dividemix, co_teaching, co_teaching_plus, decoupling, elr, gce, "
            "inn_dividemix, jocor, josrc, m_correction, pencil, scanmix, unicon, vrlvmix, got 'magic'.",
        ),
        (["rows.npz", "--filter", "magic"], "--filter must be one of none, inn, small_loss"),
        (["rows.npz", "--lr", "-1"], "--lr must be"),
        (["rows.npz", "--device", "toaster"], "--device must be"),
        (["rows.npz", "--test-share", "1.5"], "--test-share must be between 0 and 1, got 1.5."),
        (["rows.npz", "--test-share", "0.2", "--test", "a"], "--test must be left out beside --test-share"),
        (["rows.npz", "--test", "rows.npz"], "--test must name other rows than those to train on"),
        (["rows.npz", "--test", "missing.npz"], "'missing.npz' must be an .npz archive, got no such file."),
        (["rows.npz", "--test", "digits"], "--test must be a source of the same kind as 'rows.npz'"),
        (
            ["rows.npz", "--test", "wide.npz"],
            "--test must have rows of the same shape as those to train on, (5,), got (9,).",
        ),
        (["rows.npz", "--test", "t.csv"], "--test must be a source of the same kind as 'rows.npz'"),
        (
            ["t.csv", "--test", "u.csv"],
            "'u.csv' must have the columns 'a', got none called 'a'.",
        ),
        (["t.csv", "--test", "v.csv"], "Labels of rows to test on must be among those to train on, got 'z'"),
        (["t.csv", "--features", "e.npy", "--test", "v.csv"], "--features must be left out beside --test"),
        (["rows.npz", "--test-split", "test"], "--split must be left out for the source"),
        (["cifar10", "--root", "r", "--test-split", "valid"], "--test-split must be test for CIFAR"),
        (["rows.npz", "--noise", "0.1"], "--noise must be left out for a source other than digits"),
        (["rows.npz", "--out", "full"], "must be new, empty or an earlier training"),
        (["rows.npz", "--checkpoint-dir", "t/other"], "--checkpoint-dir must be outside the output folder"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, tmp_path, npz, monkeypatch, args, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for name, text in (("t", "a,label\n1,x\n2,y\n4,x\n"), ("u", "b,label\n1,x\n"), ("v", "a,label\n1,z\n")):
        (tmp_path / f"{name}.csv").write_text(text)
    np.savez(tmp_path / "wide.npz", X=np.zeros((2, 9)), y=[0, 1])
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("train", *args, *(() if "--out" in args else ("--out", "t")), "--quiet")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_while_writing_keeps_the_checkpoints_and_what_was_there(run, tmp_path, npz, monkeypatch):
    run("train", npz, "--out", tmp_path / "t", *SHORT, "--quiet")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "t").rglob("*") if path.is_file()}

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert run("train", npz, "--out", tmp_path / "t", *SHORT, "--quiet") == (
        2, "", "No space left on device.\n"
    )  # fmt: skip
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "t").rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["rows.npz", "t", "truth.npy"]


def test_when_the_folder_cannot_be_replaced_the_checkpoints_go_back(run, tmp_path, npz, monkeypatch):
    run("train", npz, "--out", tmp_path / "t", *SHORT, "--quiet")
    rename = Path.rename

    def stubborn(self, target):
        if self.name.endswith(".new"):
            raise OSError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    assert run("train", npz, "--out", tmp_path / "t", *SHORT, "--quiet")[0] == 2
    assert names(tmp_path / "t") == FILES
    assert len(names(tmp_path / "t" / "checkpoints")) == 2


def test_a_batch_size_no_trainer_takes_is_refused_by_the_option(run, npz):
    code, out, err = run("train", npz, "--out", "t", "--batch-size", 1)
    assert (code, out) == (2, "")
    assert "Invalid value for '--batch-size'" in err


# the true thing


def test_ctrl_c_leaves_the_checkpoints_and_says_how_to_go_on(run, tmp_path, npz, monkeypatch):
    run_epoch = CoTraining.run_epoch

    def stopped(self, epoch, bar):
        if epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(self, epoch, bar)

    command = ("train", npz, "--out", tmp_path / "t", *SHORT, "--quiet")
    monkeypatch.setattr(CoTraining, "run_epoch", stopped)
    sentences = "The same command goes on after the last whole epoch.\nInterrupted.\n"
    assert run(*command) == (130, "", sentences)
    assert names(tmp_path / "t") == ["checkpoints"]
    monkeypatch.setattr(CoTraining, "run_epoch", run_epoch)
    assert run(*command)[0] == 0
    assert len(table(tmp_path / "t" / "history.csv")) == 3


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_a_training_that_was_killed_goes_on(run, tmp_path, npz):
    options = ["--epochs", "30", "--device", "cpu", "--test-share", "0.2", "--quiet"]
    command = [sys.executable, "-m", "noisefilter", "train", str(npz), "--out", "t", *options]
    folder = tmp_path / "t" / "checkpoints"
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # others would round sums otherwise
    with subprocess.Popen(command, cwd=tmp_path, env=CHILD | threads) as process:
        try:
            while not (folder.is_dir() and len(names(folder)) > 1):
                assert process.poll() is None
                time.sleep(0.01)
        finally:
            process.kill()
    assert names(tmp_path / "t") == ["checkpoints"]
    reached = max(int(name[6:10]) for name in names(folder) if name.startswith("epoch-"))
    assert 0 < reached < 30

    assert run("train", npz, "--out", tmp_path / "t", *options)[0] == 0
    assert run("train", npz, "--out", tmp_path / "whole", *options)[0] == 0
    for name in ("history.csv", "verdict.csv"):
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_bad_input_is_told_without_loading_torch():
    code = (
        "import sys, noisefilter.cli as cli\n"
        "try: cli.main(['train', 'nonsense', '--out', 'a'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=CHILD)
    assert (done.returncode, done.stdout) == (2, "False\n")
