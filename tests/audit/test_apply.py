"""``noisefilter apply``: a corrected copy, whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from noisefilter.audit.tables import output_folder, write_verdict
from noisefilter.datasets import Source, open_store
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.datasets.folders import FolderStore
from noisefilter.verdict import Verdict

X, Y = np.arange(12.0).reshape(6, 2), np.array([3, 1, 2, 1, 3, 2])


@pytest.fixture
def npz(tmp_path):
    np.savez(tmp_path / "d.npz", rows=X, target=Y)
    return open_store(tmp_path / "d.npz", x_key="rows", y_key="target")


@pytest.fixture
def photos(tmp_path):
    """Five files; one is no image, which nobody should notice."""
    for shade, name in enumerate(("cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (shade, 0, 0)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/dog/broken.png").write_bytes(b"no image")
    return open_store(tmp_path / "photos")


KEYS = ("--x-key", "rows", "--y-key", "target")


def fact(printed, name):
    return next(line.split(name)[1].strip() for line in printed.splitlines() if line.strip().startswith(name))


def audited(folder, store, partition, suggested, rows=None):
    """Write what an audit leaves behind."""
    rows = np.arange(len(store)) if rows is None else rows
    labels = store.labels[rows]
    verdict = Verdict(
        labels=labels,
        classes=np.unique(store.labels),
        scores=np.zeros(len(labels)),
        partition=np.array(partition),
        alternatives=np.array(suggested),
    )
    names = None if store.names is None else [store.names[row] for row in rows]
    source = Source(np.zeros((len(rows), 2)), labels, names, "table", "", rows=rows, store=store)
    with output_folder(folder, {"fingerprint": store.fingerprint, "source": store.description}) as out:
        write_verdict(out, source, verdict)
    return folder


def test_only_decided_rows_change(run, tmp_path, npz, saved):
    path = saved(npz, (4, "relabel", "1"), (1, "remove"), (2, "keep"), (5, "confirm", "3"), (0, "confirm"))
    code, out, err = run("apply", path, tmp_path / "d.npz", "--out", tmp_path / "c.npz", *KEYS)
    assert (code, err) == (0, "")
    with np.load(tmp_path / "c.npz") as copy:
        assert copy["target"].tolist() == [2, 1, 1, 3]
        assert copy["target"].dtype == Y.dtype
        assert copy["rows"].tolist() == X[[2, 3, 4, 5]].tolist()
    assert fact(out, "rows") == "6"
    assert fact(out, "relabelled") == "2"
    assert fact(out, "removed") == "2"
    assert fact(out, "kept as they were") == "2"
    assert fact(out, "written").startswith("4 rows to ")


def test_files_move_to_their_class_and_are_not_decoded(run, tmp_path, photos, saved, tree):
    path = saved(photos, (0, "relabel", "dog"), (1, "remove"), (2, "keep"))
    assert run("apply", path, tmp_path / "photos", "--out", tmp_path / "new")[0] == 0
    assert tree(tmp_path / "new") == ["dog", "dog/1-2.png", "dog/1.png", "dog/3.png", "dog/broken.png"]
    assert (tmp_path / "new/dog/1-2.png").read_bytes() == (tmp_path / "photos/cat/1.png").read_bytes()
    assert tree(tmp_path) == sorted(
        ["decisions.json", "new", "photos"]
        + [f"new/{name}" for name in tree(tmp_path / "new")]
        + [f"photos/{name}" for name in tree(tmp_path / "photos")]
    )


@pytest.mark.parametrize(
    ("undecided", "labels"),
    # row 0 was relabelled, row 1 kept; 2 and 3 have a wrong label, 4 is out of distribution, 5 is clean
    [("keep", [1, 1, 2, 1, 3, 2]), ("remove", [1, 1, 2]), ("relabel", [1, 1, 3, 2, 2])],
)
def test_what_becomes_of_undecided_rows(run, tmp_path, npz, saved, undecided, labels):
    path = saved(npz, (0, "relabel", "1"), (1, "keep"))
    audit = audited(tmp_path / "a", npz, [1, 1, 1, 1, 2, 0], [2, 2, 3, 2, 1, 1])
    how = () if undecided == "keep" else ("--undecided", undecided, "--audit", audit)
    code, _, err = run("apply", path, tmp_path / "d.npz", "--out", tmp_path / "c.npz", *KEYS, *how)
    assert (code, err) == (0, "")
    with np.load(tmp_path / "c.npz") as copy:
        assert copy["target"].tolist() == labels


def test_a_class_that_the_decisions_emptied_can_still_be_suggested(run, tmp_path, npz, saved):
    audit = audited(tmp_path / "a", npz, [0, 1, 0, 0, 0, 0], [3, 3, 2, 1, 3, 2])
    path = saved(npz, (0, "relabel", "1"), (4, "relabel", "1"))
    how = ("--undecided", "relabel", "--audit", audit)
    assert run("apply", path, tmp_path / "d.npz", "--out", tmp_path / "c.npz", *KEYS, *how)[::2] == (0, "")
    with np.load(tmp_path / "c.npz") as copy:
        assert copy["target"].tolist() == [1, 3, 2, 1, 1, 2]


def test_the_audit_may_have_skipped_rows(run, tmp_path, npz, saved):
    audit = audited(tmp_path / "a", npz, [0, 1], [1, 1], rows=np.array([3, 5]))
    how = ("--undecided", "relabel", "--audit", audit)
    assert run("apply", saved(npz), tmp_path / "d.npz", "--out", tmp_path / "c.npz", *KEYS, *how)[0] == 0
    with np.load(tmp_path / "c.npz") as copy:
        assert copy["target"].tolist() == [*Y[:5], 1]


def test_labels_that_are_formulas_or_no_text_are_suggested_too(run, tmp_path, saved):
    for name in (b"=1/1.png", b"\xff/2.png", b"\xff/3.png") if os.name != "nt" else ():
        path = os.path.join(os.fsencode(tmp_path), b"photos", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).touch()
    store = open_store(tmp_path / "photos")
    audit = audited(tmp_path / "a", store, [1, 1, 0], ["\udcff", "=1", "=1"])
    how = ("--undecided", "relabel", "--audit", audit)
    assert run("apply", saved(store), tmp_path / "photos", "--out", tmp_path / "new", *how)[0] == 0
    assert open_store(tmp_path / "new").names == ["=1/2.png", "\udcff/1.png", "\udcff/3.png"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "there.npz"], "--out must not exist yet, got"),
        (["--out", "dangling.npz"], "--out must not exist yet, got"),
        (["--out", "none/c.npz"], "--out must be in a folder that exists and can be written"),
        (["--out", "c.csv"], "--out must end in .npz for this source, got"),
        (["--out", "c"], "--out must end in .npz for this source, got"),
        (["--out", "c.npz", "--undecided", "remove"], "--audit must be given with --undecided remove"),
        (["--out", "c.npz", "--audit", "a"], "--audit must be left out with --undecided keep, got 'a'."),
        (
            ["--out", "c.npz", "--undecided", "relabel", "--audit", "a"],
            "--audit must be the output folder of",
        ),
        (["--out", "c.npz", "--undecided", "remove", "--audit", "of_other"], "must be of this data set, got"),
        (["--out", "c.npz", "--undecided", "remove", "--audit", "cut"], "must be the table of an audit, got"),
        (["--out", "c.npz", "--label", "y"], "--label must be left out for the source"),
        (["--out", "c.npz", "--noise", "0.1"], "--noise must be left out for a source other than digits"),
    ],
)
def test_bad_input_is_one_sentence(run, tmp_path, npz, saved, tree, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").touch()
    (tmp_path / "dangling.npz").symlink_to("nowhere")
    audited(Path("of_other"), ArrayStore(X, Y[::-1], "other rows"), [0] * 6, [1] * 6)
    audited(Path("cut"), npz, [0] * 6, [1] * 6)
    (tmp_path / "cut/verdict.parquet").write_bytes(b"PAR1")
    path = saved(npz)
    before = tree(tmp_path)
    code, out, err = run("apply", path, "d.npz", *args, *KEYS)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert tree(tmp_path) == before


def test_a_copy_of_a_folder_is_a_folder_elsewhere(run, tmp_path, photos, saved):
    path = saved(photos)
    for out, message in (("photos/new", "outside the source folder"), ("c.csv", "must be a folder")):
        code, _, err = run("apply", path, tmp_path / "photos", "--out", tmp_path / out)
        assert code == 2
        assert message in err
        assert not (tmp_path / out).exists()


def test_something_must_be_left(run, tmp_path, npz, saved):
    path = saved(npz, *[(row, "remove") for row in range(6)])
    code, _, err = run("apply", path, tmp_path / "d.npz", "--out", tmp_path / "c.npz", *KEYS)
    assert (code, err) == (2, "The decisions must leave one row at least, got none.\n")


def test_decisions_of_other_data_are_refused(run, tmp_path, npz, saved):
    path = saved(ArrayStore(X, Y[::-1], "other rows"))
    code, _, err = run("apply", path, tmp_path / "d.npz", "--out", tmp_path / "c.npz", *KEYS)
    assert code == 2
    assert "must be for this data set, got ones for 'other rows' (6 rows)." in err


@pytest.mark.parametrize("what", ["npz", "photos"])
def test_a_failure_in_the_middle_leaves_nothing(run, tmp_path, npz, photos, saved, tree, full_disk, what):
    store, source, out = {
        "npz": (npz, tmp_path / "d.npz", tmp_path / "c.npz"),
        "photos": (photos, tmp_path / "photos", tmp_path / "new"),
    }[what]
    full_disk({"npz": ArrayStore, "photos": FolderStore}[what])
    path = saved(store)
    before = tree(tmp_path)
    code, _, err = run("apply", path, source, "--out", out, *(KEYS if what == "npz" else ()))
    assert (code, err) == (2, "No space left on device.\n")
    assert tree(tmp_path) == before


def test_digits_have_the_noise_of_the_audit(run, tmp_path, saved):
    noisy = open_store("digits")
    from noisefilter.audit.options import planted

    store = planted(noisy, "digits", 0.3, "pair", 5)
    path = saved(store, (0, "remove"))
    args = ("apply", path, "digits", "--out", tmp_path / "c.npz")
    assert run(*args)[0] == 2
    assert run(*args, "--noise", 0.3, "--noise-kind", "pair", "--random-state", 5)[0] == 0
    with np.load(tmp_path / "c.npz") as copy:
        assert copy["y"].tolist() == store.labels[1:].tolist()


def test_torch_is_not_needed(tmp_path, npz, saved):
    args = ["apply", str(saved(npz)), str(tmp_path / "d.npz"), "--out", str(tmp_path / "c.npz"), *KEYS]
    code = (
        f"import sys, noisefilter.cli as cli\ntry: cli.main({args!r})\nfinally: print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert (tmp_path / "c.npz").exists()
