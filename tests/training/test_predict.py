"""`noisefilter predict`: the model that a training left says the same of new rows as it would in Python."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from noisefilter.cli import main
from noisefilter.datasets import load
from noisefilter.datasets.columns import numeric
from noisefilter.training import command, predict
from noisefilter.training.methods import METHODS

ROOT = Path(__file__).parents[2]
CHILD = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
SHORT = ("--epochs", 2, "--batch-size", 64, "--quiet")


def predicted(path):
    """Return the columns of a table of predictions, and its probabilities."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    probs = [[float(row[name]) for name in row if name.startswith("proba_")] for row in rows]
    return rows, np.array(probs)


@pytest.fixture
def trainers(monkeypatch):
    """Return the trainers whose models are written."""
    seen = []
    write = command.write_model

    def spied(path, data, trainer):
        seen.append(trainer)
        write(path, data, trainer)

    monkeypatch.setattr(command, "write_model", spied)
    return seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a folder with a training on rows of 5 numbers, and one on columns."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5)).astype(np.float32)
    np.savez(folder / "rows.npz", X=X, y=(X[:, 0] > 0).astype(int))
    frame = pd.DataFrame({"size": X[:, 0], "color": rng.choice(["red", "blue"], 60)})
    frame["label"] = np.where(frame["size"] > 0, "big", "small")
    frame.to_csv(folder / "people.csv", index=False)
    for source, out in (("rows.npz", "rows"), ("people.csv", "columns")):
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in ("train", folder / source, "--out", folder / out, *SHORT)])
        assert not end.value.code
    return folder


# equal to the model


@pytest.mark.parametrize("method", METHODS)
def test_the_model_predicts_what_the_trainer_would(run, tmp_path, npz, trainers, blobs, method):
    code, printed, err = run("train", npz, "--out", tmp_path / "t", "--method", method, *SHORT)
    assert (code, printed) == (0, "")
    assert not err or err.startswith("Note: max_epochs must leave at least")  # two epochs may be too few
    np.savez(tmp_path / "new.npz", X=blobs.X[:40])  # no labels
    code, printed, err = run("predict", tmp_path / "t", tmp_path / "new.npz", "--out", tmp_path / "p.csv")
    assert (code, err) == (0, "")
    rows, probs = predicted(tmp_path / "p.csv")
    assert list(rows[0]) == ["row", "predicted_label", "proba_0", "proba_1", "proba_2"]
    assert [int(row["row"]) for row in rows] == list(range(40))
    assert np.array_equal(probs, trainers[0].predict_proba(blobs.X[:40]))
    assert [int(row["predicted_label"]) for row in rows] == trainers[0].predict(blobs.X[:40]).tolist()
    assert re.search(r"^ *rows +40 *$", printed, re.MULTILINE)
    model = joblib.load(tmp_path / "t" / "model.joblib")
    assert np.array_equal(model.predict_proba(blobs.X[:40]), probs)
    assert blobs.X[:4].tobytes() not in (tmp_path / "t" / "model.joblib").read_bytes(), "rows are not kept"


def test_new_rows_of_a_table_are_read_like_those_of_the_training(run, tmp_path, trainers):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({
        "id": np.arange(60), "size": rng.normal(10, 3, 60).round(3).astype(str),
        "color": rng.choice(["red", "blue"], 60), "code": rng.choice([1, 2, 3], 60),
        "since": [f"2024-01-{1 + day:02}" for day in rng.integers(0, 30, 60)],
        "member": rng.choice(["yes", "?"], 60), "ok": rng.choice(["true", "false"], 60),
        "label": rng.choice(["big", "small"], 60),
    })  # fmt: skip
    frame.loc[5, "size"] = "?"
    new = pd.DataFrame({
        "ok": ["false", "", "true"], "member": ["?", "yes", "yes"], "size": ["7.5", "?", "1000"],
        "since": ["2025-06-01", "?", "2024-01-02"], "code": [3, 9, 1], "color": ["blue", "green", "?"],
    })  # fmt: skip
    for name, one in (("old", frame), ("new", new)):
        one.to_csv(tmp_path / f"{name}.csv", index=False)
    how = {"categorical": ["code"], "missing": ["?"]}
    options = ("--categorical", "code", "--missing", "?", "--drop", "id")
    code, _, err = run("train", tmp_path / "old.csv", "--out", tmp_path / "t", *options, *SHORT)
    assert code == 0 and err.startswith("Note: max_epochs must leave at least 15 epochs")  # labels by chance
    new_source = ("predict", tmp_path / "t", tmp_path / "new.csv")
    assert run(*new_source, "--out", tmp_path / "p.csv", "--quiet") == (0, "", "")

    both = pd.concat([frame.drop(columns=["id", "label"]), new]).astype(str).reset_index(drop=True)
    X = numeric(both, **how, held_out=np.arange(63) >= 60).X[60:]
    rows, probs = predicted(tmp_path / "p.csv")
    assert np.array_equal(probs, trainers[0].predict_proba(X))
    assert {row["predicted_label"] for row in rows} <= {"big", "small"}
    model = joblib.load(tmp_path / "t" / "model.joblib")
    assert np.array_equal(model.predict_proba(pd.read_csv(tmp_path / "new.csv", dtype=str)), probs)
    typed = pd.read_csv(tmp_path / "new.csv", na_values="?")  # numbers, flags and texts by their types
    assert np.array_equal(model.predict_proba(typed), probs)


@pytest.fixture
def photos(tmp_path):
    """Return a folder with class folders, and one with the same images side by side."""
    rng = np.random.default_rng(0)
    for row in range(24):
        pixels = rng.integers(120 * (row % 2), 120 * (row % 2) + 100, (12, 12, 3), dtype=np.uint8)
        for path in (tmp_path / "classes" / ("dark", "bright")[row % 2], tmp_path / "flat"):
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path / f"{row:02}.png")
    return tmp_path / "classes", tmp_path / "flat"


def test_images_with_and_without_class_folders(run, tmp_path, photos, trainers):
    classes, flat = photos
    args = ("--image-size", 10, "--epochs", 1, "--quiet")
    assert run("train", classes, "--out", tmp_path / "t", *args)[0] == 0
    (flat / "notes.txt").touch()
    for name, source in (("a", classes), ("b", flat)):
        options = ("--out", tmp_path / f"{name}.csv", "--quiet")
        assert run("predict", tmp_path / "t", source, *options) == (0, "", "")
    rows, probs = predicted(tmp_path / "a.csv")
    assert [row["file"] for row in rows[:2]] == ["bright/01.png", "bright/03.png"]
    X = np.stack([np.asarray(Image.open(classes / row["file"]).resize((10, 10), 3)) for row in rows])
    assert np.array_equal(probs, trainers[0].predict_proba(X))
    assert np.array_equal(load(classes, labeled=False, image_size=10).X, X)
    beside, others = predicted(tmp_path / "b.csv")
    assert [row["file"] for row in beside] == [f"{row:02}.png" for row in range(24)]
    assert np.array_equal(others, probs[np.argsort([row["file"][-6:] for row in rows])])

    (flat / "07.png").write_bytes(b"no image")
    args = ("predict", tmp_path / "t", flat, "--out", tmp_path / "c.csv", "--quiet")
    code, _, err = run(*args)
    assert code == 2 and "must be readable, got 1 of 24 that are not: '07.png'" in err
    assert run(*args, "--skip-unreadable")[0] == 0
    assert [int(row["row"]) for row in predicted(tmp_path / "c.csv")[0]] == [*range(7), *range(8, 24)]


def test_hugging_face_data_sets_of_images_and_of_columns(run, tmp_path, trainers):
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    names = datasets.ClassLabel(names=["a", "b"])
    kinds = datasets.Features({"image": datasets.Image(), "label": names})
    images = {"image": [Image.fromarray(image) for image in pixels], "label": [k % 2 for k in range(20)]}
    datasets.Dataset.from_dict(images, kinds).save_to_disk(str(tmp_path / "images"))
    cells = {"size": rng.normal(size=20), "color": rng.choice(["red", "blue"], 20)}
    labeled = {**cells, "label": images["label"]}
    for name in ("columns", "test-columns"):
        datasets.Dataset.from_dict(labeled).save_to_disk(str(tmp_path / name))
    only = datasets.Features({"image": datasets.Image()})
    parts = {"more": datasets.Dataset.from_dict({"image": images["image"]}, only)}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "new-images"))
    datasets.Dataset.from_dict(cells).save_to_disk(str(tmp_path / "new-columns"))
    frame = pd.DataFrame(cells)
    tested = ("--test", tmp_path / "test-columns")
    for kind, X, options in (
        ("images", pixels, ("--image-size", 8)), ("columns", numeric(frame).X, tested)
    ):  # fmt: skip
        out = tmp_path / f"t-{kind}"
        assert run("train", tmp_path / kind, "--out", out, *options, "--epochs", 1, "--quiet")[0] == 0
        split = ("--split", "more") if kind == "images" else ()
        args = (
            "predict",
            out,
            tmp_path / f"new-{kind}",
            *split,
            "--out",
            tmp_path / f"{kind}.csv",
            "--quiet",
        )
        assert run(*args) == (0, "", "")
        assert np.array_equal(predicted(tmp_path / f"{kind}.csv")[1], trainers[-1].predict_proba(X))


def test_digits_and_an_embedding(run, tmp_path, trained, trainers):
    rng = np.random.default_rng(0)
    E = rng.normal(size=(60, 7)).astype(np.float32)
    np.save(tmp_path / "e.npy", E)
    source = trained / "rows.npz"
    args = ("--features", tmp_path / "e.npy")
    assert run("train", source, *args, "--out", tmp_path / "t", *SHORT)[0] == 0
    assert run("predict", tmp_path / "t", source, *args, "--out", tmp_path / "p.csv", "--quiet")[0] == 0
    assert np.array_equal(predicted(tmp_path / "p.csv")[1], trainers[0].predict_proba(E))
    code, _, err = run("predict", tmp_path / "t", source, "--out", tmp_path / "q.csv")
    assert (code, err) == (
        2, "--features must be given for a model that was trained on an embedding, got none.\n"
    )  # fmt: skip

    args = ("--test-share", 0.9, "--epochs", 1, "--quiet")
    assert run("train", "digits", "--out", tmp_path / "digits", *args)[0] == 0
    assert run("predict", tmp_path / "digits", "digits", "--out", tmp_path / "d.csv", "--quiet")[0] == 0
    from sklearn.datasets import load_digits

    X = load_digits().images.astype(np.uint8)
    assert np.array_equal(predicted(tmp_path / "d.csv")[1], trainers[1].predict_proba(X))
    np.savez(tmp_path / "scaled.npz", X=X / 16)
    code, _, err = run("predict", tmp_path / "digits", tmp_path / "scaled.npz", "--out", tmp_path / "q.csv")
    assert code == 2 and "must have the shape (8, 8) of uint8, as in training, got (8, 8) of float64" in err


def test_a_name_that_a_spreadsheet_would_run_is_defused(tmp_path):
    from noisefilter.audit.tables import write_predictions
    from noisefilter.datasets import Source

    source = Source(np.zeros((1, 2)), np.array([""]), ["=1+1.png"], "images", "one image")
    classes, probs = np.array(["=cmd()", "-1"]), np.array([[0.75, 0.25]])
    write_predictions(tmp_path / "p.csv", source, classes[:1], classes, probs)
    rows, _ = predicted(tmp_path / "p.csv")
    assert rows == [{"row": "0", "file": "./=1+1.png", "predicted_label": "'=cmd()", "proba_=cmd()": "0.75",
                     "proba_-1": "0.25"}]  # fmt: skip


# what is refused


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (
            ["missing", "rows.npz"],
            "model must be the output folder of a training that has ended, got 'missing'",
        ),
        (["stopped", "rows.npz"], "The command that trained goes on with the training, and writes it."),
        (["rows.npz", "rows.npz"], "model must be the output folder"),
        (["rows", "nonsense"], "source must be digits, cifar10"),
        (["rows", "digits"], "source must be rows of the shape (5,), as in training, got 'digits'"),
        (["rows", "people.csv"], "source must be rows of the shape (5,), as in training, got 'people.csv'"),
        (["rows", "photos"], "source must be rows of the shape (5,), as in training, got 'photos'"),
        (["rows", "empty"], "'empty' must hold images, got an empty folder."),
        (["columns", "rows.npz"], "source must be a table, as in training, got 'rows.npz'"),
        (["columns", "photos"], "source must be a table, as in training, got 'photos'"),
        (
            ["columns", "other.csv"],
            "'other.csv' must have the columns 'size', 'color', got none called 'size'.",
        ),
        (["columns", "texts.csv"], "must hold numbers, as in training, got 'huge' (line 3)."),
        (["rows", "rows.npz", "--features", "e.npy"], "--features must be left out for a model that"),
        (["rows", "rows.npz", "--split", "train"], "--split must be left out for the source 'rows.npz'"),
        (["broken", "rows.npz"], "must be a model that can be read here, got an error"),
        (["rows", "rows.npz", "--out", "p.txt"], "--out must end in .csv"),
        (["rows", "rows.npz", "--out", "people.csv"], "--out must not exist yet"),
        (["rows", "rows.npz", "--out", "rows/p.csv"], "--out must be outside the folder of the model"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, tmp_path, trained, monkeypatch, args, sentence):
    monkeypatch.chdir(tmp_path)
    for path in trained.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for folder in ("empty", "photos", "stopped/checkpoints", "broken"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / "a.png")
    (tmp_path / "broken" / "training.json").write_bytes((trained / "rows" / "training.json").read_bytes())
    (tmp_path / "broken" / "model.joblib").write_bytes(b"no pickle")
    (tmp_path / "other.csv").write_text("color,weight\nred,1\n")
    (tmp_path / "texts.csv").write_text("color,size\nred,1\nred,huge\n")
    np.save(tmp_path / "e.npy", np.zeros((60, 2)))
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run("predict", *args, *(() if "--out" in args else ("--out", "p.csv")))
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failure_while_writing_leaves_no_table(run, tmp_path, trained, monkeypatch):
    def full(path, *args):
        path.write_text("row")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predict, "write_predictions", full)
    args = ("predict", trained / "rows", trained / "rows.npz", "--out", tmp_path / "p.csv")
    assert run(*args) == (2, "", "No space left on device.\n")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_or_another_kind_is_told_without_loading_torch(trained, tmp_path):
    code = (
        "import sys, noisefilter.cli as cli\n"
        "for words in (['nowhere', 'digits'], ['rows', 'digits'], ['columns', 'rows.npz']):\n"
        f"    try: cli.main(['predict', *words, '--out', {str(tmp_path / 'p.csv')!r}])\n"
        "    except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=CHILD, cwd=trained
    )
    assert done.stdout == "2 False\n" * 3, done.stderr


def test_the_snippet_of_the_documentation_runs(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "income").symlink_to(trained / "columns")
    pd.read_csv(trained / "people.csv").drop(columns="label").to_csv(tmp_path / "new.csv", index=False)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (snippet,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "joblib" in block]
    named: dict = {}
    exec(snippet, named)
    assert named["model"].predict(named["rows"]).shape == (60,)
    assert json.loads((trained / "columns" / "training.json").read_text())["rows"] == {
        "shape": [3], "dtype": "float32", "columns": True, "features": False, "options": {},
    }  # fmt: skip
