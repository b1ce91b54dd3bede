"""``noisefilter noise``: a copy with wrong labels, and the truth beside it, both or none."""

import csv

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_iris

from noisefilter.audit.plant import LABEL_KINDS, ROW_KINDS
from noisefilter.audit.truth import read_truth
from noisefilter.datasets import open_store
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.datasets.folders import FolderStore
from noisefilter.noise import plant_noise

X, Y = load_iris(return_X_y=True)


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "d.npz", X=X, y=Y)
    return tmp_path / "d.npz"


@pytest.fixture
def photos(tmp_path):
    """Twenty files of two classes, whose names are the same in both."""
    for row in range(20):
        path = tmp_path / "photos" / ("dog" if row % 2 else "cat") / f"{row // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (row, 0, 0)).save(path)
    return tmp_path / "photos"


def test_the_copy_is_wrong_where_the_truth_says(run, tmp_path, npz):
    code, out, err = run("noise", npz, "--out", tmp_path / "n.npz", "--rate", 0.3)
    assert (code, err) == (0, "")
    store = open_store(tmp_path / "n.npz")
    truth = read_truth(tmp_path / "n.truth.csv", store)
    assert truth.tolist() == Y.tolist()
    assert store.X.tolist() == X.tolist()
    expected, info = plant_noise(Y, "symmetric", 0.3, random_state=0)
    assert store.labels.tolist() == expected.tolist()
    assert f"{info.mask.sum()} of 150 ({info.mask.mean():.1%}), symmetric noise" in out
    assert f"noisefilter audit {tmp_path / 'n.npz'} --truth {tmp_path / 'n.truth.csv'} --out n-audit" in out


def test_files_are_called_as_in_the_copy(run, tmp_path, photos):
    assert run("noise", photos, "--out", tmp_path / "noisy.v2", "--rate", 0.5)[0] == 0
    with open(tmp_path / "noisy.v2.truth.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 20
    wrong = 0
    for line in lines:
        copy = tmp_path / "noisy.v2" / line["file"]
        with Image.open(copy) as image:
            row = image.getpixel((0, 0))[0]
        assert line["label"] == ("dog" if row % 2 else "cat")
        wrong += copy.parent.name != line["label"]
    _, info = plant_noise(open_store(photos).labels, "symmetric", 0.5, random_state=0)
    assert wrong == info.mask.sum() > 0
    assert read_truth(tmp_path / "noisy.v2.truth.csv", open_store(tmp_path / "noisy.v2")).shape == (20,)


@pytest.mark.parametrize("kind", LABEL_KINDS + ROW_KINDS)
def test_every_kind_that_is_offered_works_and_repeats(run, tmp_path, npz, kind):
    copies = []
    for name in ("a", "b"):
        args = ("noise", npz, "--out", tmp_path / f"{name}.npz", "--kind", kind, "--random-state", 3)
        assert run(*args)[0] == 0
        copies.append(open_store(tmp_path / f"{name}.npz").labels)
    expected, _ = plant_noise(Y, kind, 0.2, random_state=3, X=X)
    assert copies[0].tolist() == copies[1].tolist() == expected.tolist() != Y.tolist()


@pytest.mark.parametrize("kind", LABEL_KINDS + ROW_KINDS)
def test_images_are_decoded_only_for_kinds_that_look_at_them(run, tmp_path, photos, kind):
    (photos / "cat/0.png").write_bytes(b"no image")
    code, _, err = run("noise", photos, "--out", tmp_path / "n", "--kind", kind)
    if kind in LABEL_KINDS:
        assert code == 0
        return
    assert code == 2
    assert "cat/0.png" in err
    assert run("noise", photos, "--out", tmp_path / "n", "--kind", kind, "--skip-unreadable")[0] == 0
    assert len(open_store(tmp_path / "n")) == 19


def test_the_next_command_can_be_typed_as_it_is(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a d.npz", rows=X, y=Y)
    _, out, _ = run("noise", "a d.npz", "--out", "a n.npz", "--x-key", "rows")
    assert out.splitlines()[-1] == (
        "Try: noisefilter audit 'a n.npz' --truth 'a n.truth.csv' --out 'a n-audit' --x-key rows"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "n.npz", "--rate", "1.5"], "--rate must be in [0, 1), got 1.5."),
        (["--out", "n.npz", "--kind", "open_set"], "--kind must be one of symmetric, "),
        (["--out", "n.npz", "--kind", "asymmetric"], "got 'asymmetric'."),
        (["--out", "n.csv"], "--out must end in .npz"),
        (["--out", "d.npz"], "--out must not exist yet"),
        (["--out", "t.npz"], "The file for the truth must not exist yet, got 't.truth.csv'."),
        (["--out", "n.npz", "--image-size", "64"], "--image-size must be left out for the source"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, npz, tree, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.truth.csv").touch()
    before = tree(tmp_path)
    code, out, err = run("noise", "d.npz", *args)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert tree(tmp_path) == before


def test_a_copy_in_the_source_folder_is_refused(run, photos):
    code, _, err = run("noise", photos, "--out", photos / "noisy")
    assert code == 2
    assert "--out must be outside the source folder" in err


@pytest.mark.parametrize("what", ["npz", "photos"])
def test_a_failure_in_the_middle_leaves_neither(run, tmp_path, npz, photos, tree, full_disk, what):
    full_disk({"npz": ArrayStore, "photos": FolderStore}[what])
    before = tree(tmp_path)
    source, out = {"npz": (npz, "n.npz"), "photos": (photos, "n")}[what]
    code, _, err = run("noise", source, "--out", tmp_path / out)
    assert (code, err) == (2, "No space left on device.\n")
    assert tree(tmp_path) == before


def test_a_failure_of_the_second_file_takes_back_the_first(run, tmp_path, npz, tree, monkeypatch):
    rename = type(tmp_path).rename

    def broken(self, target):
        if self.suffix == ".csv":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "rename", broken)
    before = tree(tmp_path)
    assert run("noise", npz, "--out", tmp_path / "n.npz")[0] == 2
    assert tree(tmp_path) == before
