"""The command line: what it prints, writes and refuses. Most tests put a cheap filter in the place of INN."""

import csv
import importlib.util
import io
import json
import os
import re
import signal
import subprocess
import sys
import types
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from noisefilter import __version__
from noisefilter.audit.methods import METHODS
from noisefilter.audit.terminal import printable
from noisefilter.cli import build_app, main
from noisefilter.datasets import open_store
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.errors import InputError, InputTypeError, TrainingDivergedError
from noisefilter.verdict import ID_NOISE, Verdict

ROOT = Path(__file__).parents[1]
CHILD = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


class CentroidScorer:
    """Stands in for INNScorer: a label is right when its class has the nearest mean."""

    made: list["CentroidScorer"] = []  # noqa: RUF012
    rate = 0.125
    error: BaseException | None = None

    def __init__(self, **settings):
        self.settings = settings
        self.made.append(self)

    def fit(self, X, y):
        if self.error is not None:
            raise self.error
        rows = X.reshape(len(X), -1).astype(float)
        self.X, self.y = X, y
        classes, codes = np.unique(y, return_inverse=True)
        means = np.stack([rows[codes == code].mean(axis=0) for code in range(len(classes))])
        distances = ((rows[:, None] - means) ** 2).sum(axis=-1)
        own = distances[np.arange(len(y)), codes].copy()
        distances[np.arange(len(y)), codes] = np.inf
        scores = distances.min(axis=1) - own
        self.verdict_ = Verdict(
            labels=y,
            classes=classes,
            scores=scores,
            partition=np.where(scores < 0, ID_NOISE, 0),
            alternatives=classes[distances.argmin(axis=1)],
            estimated_noise_rate=self.rate,
            method="centroids",
        )
        return self


@pytest.fixture(autouse=True)
def scorer(monkeypatch):
    stand_in = type("StandIn", (CentroidScorer,), {"made": []})
    module = types.ModuleType("noisefilter.filters.inn")
    module.INNScorer = stand_in
    monkeypatch.setitem(sys.modules, "noisefilter.filters.inn", module)
    monkeypatch.setenv("COLUMNS", "100")
    return stand_in


@pytest.fixture(autouse=True)
def pages(monkeypatch):
    """Stand-in for the page, which takes its time and has tests of its own; returns what it was given."""
    written = []

    def write_report(folder, report):
        written.append(report)
        (folder / "report.html").write_text("the page")

    module = types.ModuleType("noisefilter.audit.report")
    module.Report, module.write_report = types.SimpleNamespace, write_report
    monkeypatch.setitem(sys.modules, "noisefilter.audit.report", module)
    return written


@pytest.fixture
def run(capsys):
    """Run the command line; return its exit code, what it printed and what it complained about."""

    def run(*args):
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


@pytest.fixture
def photos(tmp_path):
    """Forty dark and bright photos; one of each is in the wrong folder."""
    rng = np.random.default_rng(0)
    for row in range(40):
        bright = row % 2
        folder = tmp_path / "photos" / ("bright" if bright ^ (row < 2) else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(120 * bright, 120 * bright + 100, (20 + row, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{row:02}.png")
    return tmp_path / "photos"


FILES = ["audit.json", "clean_mask.npy", "report.html", "verdict.csv", "verdict.parquet"]
IN_A = ["a", *(f"a/{name}" for name in FILES)]


def table(out):
    with open(out / "verdict.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tree(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def fact(printed, name):
    """Return the value the summary gives for `name`."""
    return re.search(rf"^ *{name} +(.*?) *$", printed, re.MULTILINE)[1]


# what comes out


def test_a_class_with_one_photo_is_audited_and_named(run, tmp_path, photos):
    (photos / "lone").mkdir()
    Image.new("RGB", (8, 8)).save(photos / "lone" / "0.png")
    code, _, err = run("audit", photos, "--out", tmp_path / "a")
    assert code == 0
    assert err.startswith("Note: Every class should have two rows or more, got one only in 'lone': ")
    assert "lone/0.png" in (tmp_path / "a" / "verdict.csv").read_text()


def test_digits_say_how_right_the_verdict_was(run, tmp_path, scorer):
    code, out, err = run("audit", "digits", "--out", tmp_path / "a")
    assert (code, err) == (0, "")
    verdict, y = scorer.made[0].verdict_, scorer.made[0].y
    truth = load_digits().target
    wrong, flagged = y != truth, ~verdict.clean_mask
    assert 0.15 < wrong.mean() < 0.21
    assert fact(out, "rows") == "1,797 in 10 classes"
    assert fact(out, "flagged") == f"{flagged.sum()} ({flagged.mean():.1%})"
    assert fact(out, "estimated noise rate") == "12.5%"
    assert fact(out, "out of distribution") == "not looked for"
    assert fact(out, "really wrong") == f"{wrong.sum()} ({wrong.mean():.1%})"
    assert fact(out, "precision").startswith(f"{wrong[flagged].mean():.3f} ")
    assert fact(out, "recall").startswith(f"{flagged[wrong].mean():.3f} ")
    pairs = np.mean(verdict.scores[~wrong][:, None] > verdict.scores[wrong][None])
    assert float(fact(out, "AUC")) == pytest.approx(pairs, abs=1e-3)
    assert float(fact(out, "seconds")) < 60
    assert fact(out, "written").startswith(", ".join(FILES) + " in")
    assert "".join(out.split()).endswith(f"report{tmp_path / 'a' / 'report.html'}")  # a long path is wrapped


def test_files_agree_with_the_verdict(run, tmp_path, scorer):
    run("audit", "digits", "--out", tmp_path / "a")
    verdict = scorer.made[0].verdict_
    rows = table(tmp_path / "a")
    assert [int(row["row"]) for row in rows] == list(range(1797))
    assert {row["file"] for row in rows} == {""}
    assert [int(row["given_label"]) for row in rows] == verdict.labels.tolist()
    assert [float(row["score"]) for row in rows] == verdict.scores.tolist()
    assert [row["verdict"] == "clean" for row in rows] == verdict.clean_mask.tolist()
    assert [int(row["suggested_label"]) for row in rows] == verdict.suggested_labels.tolist()
    assert np.array_equal(np.load(tmp_path / "a" / "clean_mask.npy"), verdict.clean_mask)
    marker = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert marker["counts"] == {
        "rows": 1797,
        "flagged": int((~verdict.clean_mask).sum()),
        "wrong_label": int(verdict.id_mask.sum()),
        "out_of_distribution": 0,
        "estimated_noise_rate": 0.125,
    }
    assert marker["method"] == "centroids"
    assert marker["files"] == FILES[1:]
    assert marker["random_state"] == 0
    assert "symmetric noise 0.2" in marker["source"]


def test_an_image_folder_finds_the_misplaced_files(run, tmp_path, photos):
    code, out, _ = run("audit", photos, "--out", tmp_path / "a")
    assert code == 0
    flagged = {row["file"]: row for row in table(tmp_path / "a") if row["verdict"] != "clean"}
    assert sorted(flagged) == ["bright/00.png", "dark/01.png"]
    assert flagged["dark/01.png"]["given_label"] == "dark"
    assert flagged["dark/01.png"]["suggested_label"] == "bright"
    assert "bright/00.png" in out
    assert "really wrong" not in out  # nobody knows
    assert fact(out, "source") == "40 images in photos/, as 32 x 32 pixels"


def test_the_channel_axis_reaches_the_filter(run, tmp_path, scorer):
    np.savez(tmp_path / "d.npz", X=np.random.default_rng(0).random((30, 3, 8, 3)), y=np.repeat([0, 1], 15))
    assert run("audit", tmp_path / "d.npz", "--out", tmp_path / "a", "--channels", "last")[0] == 0
    assert scorer.made[0].settings["channels"] == "last"


def test_an_npz_with_keys_of_its_own(run, tmp_path, scorer):
    X, y = np.random.default_rng(0).random((30, 3)), np.repeat([-1, 5], 15)
    np.savez(tmp_path / "d.npz", data=X, target=y)
    code, _, err = run("audit", tmp_path / "d.npz", "--out", tmp_path / "a")
    assert code == 2
    assert "'data', 'target'" in err
    keys = ("--x-key", "data", "--y-key", "target")
    assert run("audit", tmp_path / "d.npz", "--out", tmp_path / "a", *keys)[0] == 0
    assert np.array_equal(scorer.made[0].X, X)
    assert [row["given_label"] for row in table(tmp_path / "a")] == [str(label) for label in y]


def test_options_reach_the_filter_and_the_loader(run, tmp_path, photos, scorer):
    run(
        "audit",
        photos,
        "--out",
        tmp_path / "a",
        "--epochs",
        3,
        "--random-state",
        7,
        "--image-size",
        16,
        "--quiet",
    )
    run("audit", photos, "--out", tmp_path / "a")
    assert scorer.made[0].settings == {"max_epochs": 3, "random_state": 7, "verbose": 0}
    assert scorer.made[1].settings == {"random_state": 0, "verbose": 1}
    assert scorer.made[0].X.shape == (40, 16, 16, 3)
    assert scorer.made[1].X.shape == (40, 32, 32, 3)


@pytest.mark.parametrize(("switch", "settings"), [("--open-set", True), ("--closed-set", False)])
def test_strangers_are_looked_for_when_asked(run, tmp_path, npz, scorer, switch, settings):
    assert run("audit", npz, "--out", tmp_path / "a", switch, "--quiet")[0] == 0
    assert scorer.made[0].settings["open_set"] is settings


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_its_filter(run, tmp_path, npz, scorer, monkeypatch, pages, method):
    """A short training each; INN has its stand-in, which no vote would take."""
    monkeypatch.delitem(sys.modules, "noisefilter.filters.inn")
    classes = {"inn": "INNScorer", "small_loss": "SmallLossSelector", "josrc": "JoSRCSelector"}
    classes |= {
        "loss_variation": "LossVariationSelector",
        "confident_learning": "ConfidentLearningSelector",
        "vote": "VoteFilter (INNScorer, SmallLossSelector)",
    }
    args = ["audit", npz, "--out", tmp_path / "a", "--method", method, "--epochs", 2, "--open-set", "--quiet"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(*args)[0] == 0
    assert pages[0].verdict.method == classes[method] and pages[0].verdict.open_set
    about = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert about["method"] == classes[method] and about["open_set"] is True
    assert pages[0].settings["strangers"] == "looked for"


def test_noise_can_be_chosen_and_turned_off(run, tmp_path, scorer):
    digits = ("audit", "digits", "--out", tmp_path / "a")
    _, out, _ = run(*digits, "--noise", 0)
    assert fact(out, "really wrong") == "0 (0.0%)"
    assert "precision" not in out
    _, out, _ = run(*digits, "--noise", 0.5, "--noise-kind", "pair")
    assert 0.45 < (scorer.made[1].y != scorer.made[0].y).mean() < 0.55
    changed = scorer.made[1].y != scorer.made[0].y
    assert np.array_equal(scorer.made[1].y[changed], (scorer.made[0].y[changed] + 1) % 10)
    run(*digits, "--random-state", 1)
    run(*digits)
    run(*digits)
    assert (scorer.made[2].y != scorer.made[3].y).any()
    assert np.array_equal(scorer.made[3].y, scorer.made[4].y)


def test_quiet_prints_nothing(run, tmp_path, photos):
    assert run("audit", photos, "--out", tmp_path / "a", "--quiet") == (0, "", "")
    assert tree(tmp_path / "a") == FILES


def test_an_earlier_audit_is_replaced(run, tmp_path, photos):
    run("audit", "digits", "--out", tmp_path / "a", "--quiet")
    run("audit", photos, "--out", tmp_path / "a", "--quiet")
    assert len(table(tmp_path / "a")) == 40
    assert tree(tmp_path / "a") == FILES
    assert {path.name for path in tmp_path.iterdir()} == {"a", "photos"}


def test_skipped_files_are_mentioned(run, tmp_path, photos):
    (photos / "dark" / "zero.png").touch()
    (photos / "dark" / "notes.txt").touch()
    code, out, err = run("audit", photos, "--out", tmp_path / "a")
    assert (code, out) == (2, "")
    sentence = err.splitlines()[-1]  # behind the progress bar
    assert sentence.startswith("All images in ")
    assert "1 of 41 that are not: 'dark/zero.png'" in sentence
    assert not (tmp_path / "a").exists()
    code, out, _ = run("audit", photos, "--out", tmp_path / "a", "--skip-unreadable")
    assert code == 0
    assert fact(out, "left out") == "2, such as 'dark/notes.txt'"
    assert json.loads((tmp_path / "a/audit.json").read_text())["left_out"] == [
        "dark/notes.txt",
        "dark/zero.png",
    ]


def test_hostile_names_print_on_lines_of_their_own(run, tmp_path, photos):
    name = "[bold]\n\x1b[2J\u202e=1.png"
    (photos / "dark/01.png").rename(photos / "dark" / name)
    code, out, _ = run("audit", photos, "--out", tmp_path / "a")
    assert code == 0
    assert "\x1b" not in out
    assert r"dark/[bold]\n\x1b[2J\u202e=1.png" in out
    assert f"dark/{name}" in [row["file"] for row in table(tmp_path / "a")]


def test_a_terminal_without_unicode_still_gets_its_summary(tmp_path, photos, monkeypatch):
    (photos / "dark/01.png").rename(photos / "dark" / "ü.png")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii", write_through=True))
    with pytest.raises(SystemExit) as end:
        main(["audit", str(photos), "--out", str(tmp_path / "a")])
    assert not end.value.code
    assert rb"dark/\xfc.png" in printed.getvalue()


def test_many_classes_are_cut_to_the_worst(run, tmp_path):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(100, 130), 8)
    X = np.eye(30)[y - 100] + rng.normal(0, 0.01, (240, 30))
    y[0] = 129  # a row of class 100
    np.savez(tmp_path / "d.npz", X=X, y=y)
    _, out, _ = run("audit", tmp_path / "d.npz", "--out", tmp_path / "a")
    assert "The 20 of 30 classes with the largest share flagged" in out
    shown = re.findall(r"^[│|] +(\d+) [│|] +\d+ [│|] +\d+ [│|] +[\d.]+%", out, re.MULTILINE)
    assert len(shown) == 20
    assert shown[0] == "129"


# decisions, truth, clean data


@pytest.fixture
def npz(tmp_path):
    """Forty rows of two classes far apart; rows 3 and 8 have the label of the other class."""
    y = np.repeat([5, -1], 20)
    X = np.random.default_rng(0).normal(size=(40, 3)) + 9.0 * y[:, None]
    y[[3, 38]] = y[[38, 3]]
    np.savez(tmp_path / "d.npz", X=X, y=y)
    return tmp_path / "d.npz"


def decisions_of(out, path, store, decide):
    """Save what `decide` says about each row that an audit flagged: an action and a label."""
    verdict = pd.read_parquet(out / "verdict.parquet")
    entries = []
    for row, suggested in verdict.loc[verdict["verdict"] != "clean", ["row", "suggested_label"]].values:
        action, label = decide(row, str(suggested))
        file = None if store.names is None else store.names[row]
        given = str(store.labels[row])
        entries.append({"row": int(row), "file": file, "given": given, "action": action, "label": label})
    content = {"made_by": "noisefilter report", "format": 1, "fingerprint": store.fingerprint}
    path.write_text(json.dumps({**content, "rows": len(store), "description": "", "decisions": entries}))
    return path


def test_clean_rows_of_an_array_are_written(run, tmp_path, npz):
    code, out, _ = run("audit", npz, "--out", tmp_path / "a", "--write-clean", tmp_path / "c.npz")
    assert code == 0
    assert "c.npz" in "".join(out.split())  # a long path is wrapped
    kept = np.delete(np.arange(40), [3, 38])
    with np.load(npz) as given, np.load(tmp_path / "c.npz") as clean:
        assert clean["X"].tolist() == given["X"][kept].tolist()
        assert clean["y"].tolist() == given["y"][kept].tolist()


def test_clean_files_of_a_folder_are_listed(run, tmp_path, photos):
    (photos / "dark/02.png").rename(photos / "dark" / "=,\n.png")
    assert run("audit", photos, "--out", tmp_path / "a", "--write-clean", tmp_path / "c.csv")[0] == 0
    with open(tmp_path / "c.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 38
    assert {"file": "dark/=,\n.png", "label": "dark"} in rows
    assert all(row["file"].startswith(row["label"] + "/") for row in rows)
    assert not {"bright/00.png", "dark/01.png"} & {row["file"] for row in rows}


@pytest.mark.parametrize(("limit", "expected"), [(0.124, 1), (0.125, 0), (0, 1), (1, 0)])
def test_a_noise_rate_above_the_limit_exits_1(run, tmp_path, npz, limit, expected):
    code, out, err = run("audit", npz, "--out", tmp_path / "a", "--fail-above", limit)
    assert code == expected
    assert err == (
        f"The estimated noise rate must be at most {limit:g} (--fail-above), got 0.125.\n" if expected else ""
    )
    assert fact(out, "rows") == "40 in 2 classes"
    assert tree(tmp_path / "a") == FILES


def test_an_unknown_noise_rate_is_above_any_limit(run, tmp_path, npz, scorer, monkeypatch):
    monkeypatch.setattr(scorer, "rate", float("nan"))
    assert run("audit", npz, "--out", tmp_path / "a", "--fail-above", 1)[0] == 1


def test_a_second_audit_starts_from_the_decisions(run, tmp_path, npz, scorer, pages):
    run("audit", npz, "--out", tmp_path / "a", "--quiet")
    shall = {3: ("keep", "5"), 38: ("confirm", "-1")}
    store = open_store(npz)
    shall[3] = ("keep", str(store.labels[3]))
    path = decisions_of(tmp_path / "a", tmp_path / "d.json", store, lambda row, _: shall[row])
    code, out, _ = run("audit", npz, "--out", tmp_path / "b", "--decisions", path)
    assert code == 0
    expected = store.labels.copy()
    expected[38] = -1
    assert scorer.made[1].y.tolist() == expected.tolist()
    assert scorer.made[1].verdict_.partition[3] != 0  # judged wrong again, but a person knows better
    assert {row["verdict"] for row in table(tmp_path / "b")} == {"clean"}
    assert np.load(tmp_path / "b" / "clean_mask.npy").all()
    assert fact(out, "decided before") == "2 rows: 1 relabelled, 0 removed, 1 kept"
    assert [decision.row for decision in pages[1].decisions] == [3, 38]
    assert json.loads((tmp_path / "b/audit.json").read_text())["fingerprint"] == store.fingerprint


def test_removed_rows_leave_and_the_others_keep_their_numbers(run, tmp_path, npz, scorer):
    run("audit", npz, "--out", tmp_path / "a", "--quiet")
    store = open_store(npz)
    path = decisions_of(tmp_path / "a", tmp_path / "d.json", store, lambda *_: ("remove", None))
    out = ("--write-clean", tmp_path / "c.npz", "--quiet")
    assert run("audit", npz, "--out", tmp_path / "b", "--decisions", path, *out)[0] == 0
    kept = np.delete(np.arange(40), [3, 38])
    assert scorer.made[1].X.tolist() == store.X[kept].tolist()
    assert [int(row["row"]) for row in table(tmp_path / "b")] == kept.tolist()
    mask = np.load(tmp_path / "b" / "clean_mask.npy")
    assert np.flatnonzero(~mask).tolist() == [3, 38]
    with np.load(tmp_path / "c.npz") as clean:
        assert clean["X"].tolist() == store.X[kept].tolist()


def test_skipped_rows_keep_the_numbers_right(run, tmp_path, photos, pages):
    (photos / "dark" / "00.png").touch()  # the first of its class, and broken
    arguments = ("audit", photos, "--out", tmp_path / "a", "--skip-unreadable")
    names = open_store(photos).names
    wrong = {"bright/00.png": "dark", "dark/01.png": "bright"}
    right = [f"{name},{wrong.get(name, name.partition('/')[0])}" for name in names]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *right]))
    _, out, _ = run(*arguments, "--truth", tmp_path / "t.csv")
    assert fact(out, "really wrong") == "2 (5.0%)"
    assert fact(out, "precision").startswith("1.000")
    rows = table(tmp_path / "a")
    assert len(rows) == 40
    assert all(names[int(row["row"])] == row["file"] for row in rows)
    mask = np.load(tmp_path / "a" / "clean_mask.npy")
    bad = ["bright/00.png", "dark/00.png", "dark/01.png"]
    assert sorted(name for name, clean in zip(names, mask, strict=True) if not clean) == bad
    assert re.search(rf" {names.index('dark/01.png')} +[│|] dark/01\.png", out)
    path = decisions_of(tmp_path / "a", tmp_path / "d.json", open_store(photos), lambda *_: ("remove", None))
    assert run(*arguments, "--decisions", path)[0] == 0
    assert [row["file"] for row in table(tmp_path / "a")] == sorted(set(names) - set(bad))


@pytest.mark.parametrize("what", ["photos", "npz", "csv"])
def test_from_planted_noise_to_right_labels(run, tmp_path, photos, npz, what):
    """Plant noise, audit with the truth, confirm what was found, apply: the labels are right again."""
    source, label = {"photos": photos, "npz": npz, "csv": tmp_path / "d.csv"}[what], ()
    if what == "photos":  # undo the two mistakes
        (photos / "bright/00.png").rename(photos / "dark/00.png")
        (photos / "dark/01.png").rename(photos / "bright/01.png")
    with np.load(npz) as arrays:
        X, y = arrays["X"], np.repeat([5, -1], 20)
    np.savez(npz, X=X, y=y)
    if what == "csv":
        frame = pd.DataFrame(X, columns=list("abc")).assign(kind=np.where(y > 0, "=up", "down, left"))
        frame.to_csv(source, index=False)
        label = ("--label", "kind")
    noisy, fixed = (tmp_path / f"{name}{source.suffix}" for name in ("noisy", "fixed"))
    assert run("noise", source, "--out", noisy, "--rate", 0.4, *label)[0] == 0
    truth = tmp_path / "noisy.truth.csv"
    code, out, err = run("audit", noisy, "--out", tmp_path / "a", "--truth", truth, *label)
    assert code == 0, err
    assert not fact(out, "really wrong").startswith("0 ")
    assert fact(out, "precision").startswith("1.000")
    assert fact(out, "recall").startswith("1.000")
    store = open_store(noisy, **({"label": "kind"} if label else {}))
    rows = table(tmp_path / "a")
    assert sum(row["truth"] != row["given_label"] for row in rows) == int(fact(out, "flagged").split()[0])
    path = decisions_of(tmp_path / "a", tmp_path / "d.json", store, lambda _, label: ("confirm", label))
    assert run("apply", path, noisy, "--out", fixed, *label)[0] == 0
    if what == "photos":
        bright = [np.asarray(Image.open(path)).mean() > 100 for path in sorted(fixed.rglob("*.png"))]
        assert [path.parent.name == "bright" for path in sorted(fixed.rglob("*.png"))] == bright
        assert len(bright) == 40
    elif what == "npz":
        with np.load(fixed) as arrays:
            assert arrays["y"].tolist() == y.tolist()
    else:
        assert fixed.read_bytes() == source.read_bytes()


def test_the_page_is_told_how_it_was_made(run, tmp_path, npz, pages):
    args = ["audit", npz, "--out", tmp_path / "a b", "--epochs", 3, "--random-state", 7, "--thumbnails", 9]
    assert run(*args, "--quiet")[0] == 0
    (page,) = pages
    typed = f"audit {npz} --out '{tmp_path / 'a b'}' --epochs 3 --random-state 7 --thumbnails 9 --quiet"
    assert page.command == f"noisefilter {typed}"
    assert page.apply_command == f"noisefilter apply decisions.json {npz} --out corrected.npz"
    assert page.thumbnails == 9
    assert page.source.store.labels.tolist() == page.verdict.labels.tolist()
    settings = page.settings
    assert (settings["method"], settings["seed"], settings["epochs"]) == ("centroids", "7", "3")
    assert settings["strangers"] == "not looked for"
    assert settings["noisefilter"] == __version__
    assert settings["scikit-learn"] == sklearn.__version__
    assert settings["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", settings["date"])
    assert float(settings["seconds"]) < 60


def test_the_decisions_about_digits_can_be_applied(run, tmp_path, pages):
    run(
        "audit",
        "digits",
        "--out",
        tmp_path / "a",
        "--noise",
        0.1,
        "--noise-kind",
        "pair",
        "--random-state",
        2,
    )
    command = pages[0].apply_command.replace("decisions.json", str(tmp_path / "d.json"))
    store = pages[0].source.store
    decisions_of(tmp_path / "a", tmp_path / "d.json", store, lambda *_: ("remove", None))
    code, out, err = run(*command.replace("corrected", str(tmp_path / "c")).split()[1:])
    assert (code, err) == (0, "")
    assert int(fact(out, "removed")) == (~pages[0].verdict.clean_mask).sum()


def test_a_table_with_text_and_gaps_is_audited(run, tmp_path, scorer):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(size=40), "color": ["red", "blue"] * 20, "id": range(40)})
    frame["kind"] = ["a", "b"] * 20
    frame.loc[3, "size"] = np.nan
    frame.to_csv(tmp_path / "d.csv", index=False)
    code, _, err = run("audit", tmp_path / "d.csv", "--out", tmp_path / "a")
    assert code == 2
    assert all(name in err for name in ("size", "color", "id", "kind"))
    code, _, err = run("audit", tmp_path / "d.csv", "--out", tmp_path / "a", "--label", "species")
    assert code == 2
    assert err.startswith("--label must ")
    assert all(name in err for name in ("'species'", "size", "color", "id", "kind"))
    args = ("--label", "kind", "--drop", "id", "--write-clean", tmp_path / "c.csv")
    assert run("audit", tmp_path / "d.csv", "--out", tmp_path / "a", *args)[0] == 0
    assert np.isfinite(scorer.made[0].X).all()
    assert {row["verdict"] for row in table(tmp_path / "a")} == {"clean"}
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "d.csv").read_bytes()


def test_an_embedding_beside_the_source_is_judged(run, tmp_path, photos, scorer):
    embedding = np.random.default_rng(0).normal(size=(40, 5))
    np.save(tmp_path / "e.npy", embedding)
    args = ("audit", photos, "--out", tmp_path / "a", "--features")
    assert run(*args, tmp_path / "e.npy")[0] == 0
    assert np.allclose(scorer.made[0].X, embedding)
    np.save(tmp_path / "e.npy", embedding[1:])
    code, _, err = run(*args, tmp_path / "e.npy")
    assert code == 2
    assert err.count("\n") == 1
    assert "39" in err


@pytest.mark.parametrize("what", ["write_report", "write"])
def test_a_failure_of_any_file_leaves_none(run, tmp_path, npz, monkeypatch, what):
    run("audit", npz, "--out", tmp_path / "a", "--quiet")
    before = tree(tmp_path), (tmp_path / "a" / "audit.json").stat().st_mtime_ns

    def full(*args):
        raise OSError(28, "No space left on device")

    owner = ArrayStore if what == "write" else sys.modules["noisefilter.audit.report"]
    monkeypatch.setattr(owner, what, full)
    args = ("--out", tmp_path / "a", "--write-clean", tmp_path / "c.npz", "--quiet")
    assert run("audit", npz, *args) == (2, "", "No space left on device.\n")
    assert (tree(tmp_path), (tmp_path / "a" / "audit.json").stat().st_mtime_ns) == before


# what is refused


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["nonsense"], "source must be digits, cifar10, cifar100, an .npz, .csv"),
        (["missing.npz"], "'missing.npz' must be an .npz archive, got no such file."),
        (
            ["empty"],
            "'empty' must hold one sub-folder of images per class, at least two, got an empty folder.",
        ),
        (["digits", "--image-size", "64"], "--image-size must be left out for the source 'digits', got 64."),
        (["digits", "--skip-unreadable"], "--skip-unreadable must be left out"),
        (["digits", "--noise", "1.5"], "rate must be in [0, 1), got 1.5."),
        (["digits", "--noise-kind", "strange"], "kind must be"),
        (["photos", "--noise", "0.1"], "--noise must be left out for a source other than digits, got 0.1."),
        (["photos", "--noise-kind", "pair"], "--noise-kind must be left out for a source other than digits"),
        (["photos", "--out", "full"], "must be new, empty or an earlier audit"),
        (["photos", "--out", "full/thesis.tex"], "must be a folder, got the file"),
        (["photos", "--out", "photos/a"], "The output must be outside the source folder"),
        (["photos", "--out", "."], "other things, such as"),
        (["digits", "--fail-above", "1.5"], "--fail-above must be in [0, 1], got 1.5."),
        (["digits", "--fail-above", "nan"], "--fail-above must be in [0, 1], got nan."),
        (["digits", "--write-clean", "full"], "--write-clean must not exist yet, got 'full'."),
        (["digits", "--write-clean", "no/c.npz"], "--write-clean must be in a folder that exists"),
        (["digits", "--write-clean", "c.csv"], "--write-clean must end in .npz for this source"),
        (["photos", "--write-clean", "c.npz"], "--write-clean must end in .csv for this source"),
        (["photos", "--write-clean", "a/c.csv"], "--write-clean must be outside the output folder"),
        (["photos", "--write-clean", "photos/c.csv"], "--write-clean must be outside the source folder"),
        (
            ["digits", "--decisions", "no.json"],
            "'no.json' must be a readable file, got an error: No such file",
        ),
        (["digits", "--decisions", "other.json"], "The decisions in 'other.json' must be for this data set"),
        (["digits", "--truth", "no.npy"], "'no.npy' must be a readable file, got an error: No such file"),
        (["digits", "--truth", "full/thesis.tex"], "--truth must be a .csv or .npy file, got 'full/"),
        (["photos", "--label", "y"], "--label must be left out for the source 'photos', got 'y'."),
        (["digits", "--method", "magic"], "--method must be one of inn, small_loss, "),
        (["digits", "--x-key", "a"], "--x-key must be left out for the source 'digits', got 'a'."),
        (["cifar10", "--root", "empty"], "--root must be a folder with cifar10"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, photos, monkeypatch, scorer, args, sentence):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "full"):
        (tmp_path / folder).mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "other.json").write_text('{"made_by": "noisefilter report", "format": 1}')
    before = tree(tmp_path)
    code, out, err = run("audit", *args, *(() if "--out" in args else ("--out", "a")), "--quiet")
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert tree(tmp_path) == before
    assert not scorer.made  # all of it is known before the training


def test_a_table_of_an_audit_is_not_replaced_by_its_own_audit(run, tmp_path, npz, scorer):
    run("audit", npz, "--out", tmp_path / "a", "--quiet")
    before = (tmp_path / "a" / "verdict.csv").read_bytes()
    code, _, err = run("audit", tmp_path / "a/verdict.csv", "--label", "given_label", "--out", tmp_path / "a")
    assert (code, err.count("\n")) == (2, 1)
    assert "The output must not have the source in it" in err
    assert (tmp_path / "a" / "verdict.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("X must be finite,\n got NaN."), 2, "X must be finite, got NaN.\n"),
        (InputTypeError("X must be dense, got sparse."), 2, "X must be dense, got sparse.\n"),
        (
            TrainingDivergedError("The loss must stay finite, got nan."),
            2,
            "The loss must stay finite, got nan.\n",
        ),
        (OSError(28, "No space left on device", "a\x1bb"), 2, "'a\\x1bb': No space left on device.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (ZeroDivisionError("oops"), 3, "Unexpected ZeroDivisionError: oops (--debug shows where)\n"),
    ],
)
def test_an_error_in_the_training_leaves_nothing(run, tmp_path, scorer, error, code, sentence):
    scorer.error = error
    assert run("audit", "digits", "--out", tmp_path / "deep" / "a") == (code, "", sentence)
    assert tree(tmp_path) == []


def test_debug_shows_the_traceback(run, tmp_path, scorer):
    scorer.error = InputError("X must be finite, got NaN.")
    code, _, err = run("audit", "digits", "--out", tmp_path / "a", "--debug")
    assert code == 2
    assert err.startswith("Traceback")
    assert err.endswith("\nX must be finite, got NaN.\n")


def test_an_error_in_the_writing_leaves_nothing(run, tmp_path, monkeypatch):
    run("audit", "digits", "--out", tmp_path / "a", "--quiet")
    before = (tmp_path / "a" / "verdict.csv").read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    code, _, err = run("audit", "digits", "--out", tmp_path / "a", "--random-state", 1, "--quiet")
    assert (code, err) == (2, "No space left on device.\n")
    assert tree(tmp_path) == IN_A
    assert (tmp_path / "a" / "verdict.csv").read_bytes() == before


def test_warnings_are_one_line(run, tmp_path, scorer, monkeypatch):
    fit = scorer.fit
    monkeypatch.setattr(
        scorer, "fit", lambda self, X, y: (warnings.warn("mind\nthis", stacklevel=1), fit(self, X, y))[1]
    )
    _, _, err = run("audit", "digits", "--out", tmp_path / "a", "--quiet")
    assert err == "Note: mind\\nthis\n"


def test_usage_errors_exit_2_and_help_explains():
    runner = CliRunner()
    assert runner.invoke(build_app(), ["audit", "digits"]).exit_code == 2  # --out is missing
    assert runner.invoke(build_app(), ["audit", "digits", "--out", "a", "--epochs", "0"]).exit_code == 2
    result = runner.invoke(build_app(), ["audit", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    for word in (
        "--skip-unreadable",
        "--image-size",
        "--noise-kind",
        "noisefilter audit photos/ --out audit/",
    ):
        assert word in result.output


def test_every_command_explains_itself_by_an_example():
    runner, wide = CliRunner(), {"COLUMNS": "200", "TERM": "dumb"}
    commands = runner.invoke(build_app(), ["--help"], env=wide).output
    for name in ("audit", "apply", "train", "predict", "noise"):
        assert re.search(rf"^\W*{name} ", commands, re.MULTILINE)
        assert (
            f"Example: noisefilter {name} " in runner.invoke(build_app(), [name, "--help"], env=wide).output
        )
    assert "Example: noisefilter audit " in commands


def test_the_version_is_told(run):
    assert run("--version") == (0, f"noisefilter {__version__}\n", "")


@pytest.mark.parametrize("package", ["jinja2", "pyarrow"])
def test_what_only_the_results_need_is_asked_for_before_the_training(
    run, tmp_path, scorer, monkeypatch, package
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest)
    )
    code, _, err = run("audit", "digits", "--out", tmp_path / "a")
    assert (code, err) == (2, f'The command line needs {package}: pip install "noisefilter[audit]"\n')
    assert not scorer.made


def test_printable_keeps_letters_and_spells_out_the_rest():
    assert printable("ü中 [x] a\tb\udcff\u202e") == "ü中 [x] a\\tb\\udcff\\u202e"


# the true thing


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_without_the_extra_one_sentence_says_what_to_install(package):
    code = f"import sys; sys.modules[{package!r}] = None; import noisefilter.cli as cli; cli.main(['audit'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=CHILD)
    assert done.returncode == 2
    assert done.stderr == f'The command line needs {package}: pip install "noisefilter[audit]"\n'


def test_bad_input_is_told_without_loading_torch():
    code = (
        "import sys, noisefilter.cli as cli\n"
        "try: cli.main(['audit', 'nonsense', '--out', 'a'])\n"
        "finally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=CHILD)
    assert (done.returncode, done.stdout) == (2, "False\n")


def test_a_short_audit_of_digits_in_a_process(tmp_path):
    command = [sys.executable, "-m", "noisefilter", "audit", "digits", "--out", "a", "--epochs", "5"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=CHILD)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert tree(tmp_path) == IN_A
    assert float(fact(done.stdout, "AUC")) > 0.9
    assert len(table(tmp_path / "a")) == 1797


@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_ctrl_c_in_a_training_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "noisefilter", "audit", "digits", "--out", "a", "--epochs", "100000"]
    heard = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # in the background of a shell it is ignored
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=CHILD, preexec_fn=heard
    )
    assert process.stderr.read(20)  # the progress bar: the training runs
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("Interrupted.\n")
    assert "Traceback" not in err
    assert tree(tmp_path) == []
