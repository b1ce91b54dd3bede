"""The files of an audit: whole or not at all, and safe to open."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from noisefilter import __version__
from noisefilter.audit.tables import check_output, output_folder, summarize, write_verdict
from noisefilter.datasets import Source
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.errors import InputError
from noisefilter.verdict import CLEAN, ID_NOISE, OOD_NOISE, Verdict

COLUMNS = ["row", "file", "given_label", "score", "verdict", "suggested_label"]


def verdict_of(labels=("a", "b", "a", "b"), partition=(CLEAN, ID_NOISE, OOD_NOISE, ID_NOISE)):
    labels = np.asarray(labels)
    classes = np.unique(labels)
    return Verdict(
        labels=labels,
        classes=classes,
        scores=np.array([0.4, 0.3, 0.2, 0.1]),
        partition=np.asarray(partition),
        alternatives=np.where(labels == classes[0], classes[1], classes[0]),
    )


def source_of(verdict, names=None, **fields):
    """Return rows that such a verdict could be about."""
    X = np.zeros((len(verdict), 2))
    return Source(X, verdict.labels, names, "table", "made for a test", **fields)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def put(folder, verdict, names=None, **fields):
    write_verdict(folder, source_of(verdict, names, **fields), verdict)


def write(out, **files):
    with output_folder(out, {"method": "m"}) as folder:
        for name, text in files.items():
            (folder / name).write_text(text)


def tree(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_the_table_has_every_row_in_order(tmp_path):
    put(tmp_path, verdict_of(), ["x/1.png", "x/2.png", "y/3.png", "y/4.png"])
    assert read(tmp_path / "verdict.csv") == [
        ["row", "file", "given_label", "score", "verdict", "suggested_label"],
        ["0", "x/1.png", "a", "0.4", "clean", "a"],
        ["1", "x/2.png", "b", "0.3", "wrong label", "a"],
        ["2", "y/3.png", "a", "0.2", "out of distribution", "a"],
        ["3", "y/4.png", "b", "0.1", "wrong label", "a"],
    ]
    mask = np.load(tmp_path / "clean_mask.npy", allow_pickle=False)
    assert mask.dtype == bool
    assert mask.tolist() == [True, False, False, False]


def test_without_names_the_file_is_empty(tmp_path):
    put(tmp_path, verdict_of(labels=[-1, 1, -1, 1]))
    assert [row[1:3] for row in read(tmp_path / "verdict.csv")[1:]] == [["", "-1"], ["", "1"]] * 2


@pytest.mark.parametrize(
    "name", ['q"uote.png', "comma,;.png", "new\nline.png", "re\rturn.png", "ü中\u202e.png", "  s.png"]
)
def test_hostile_names_survive_the_table(tmp_path, name):
    put(tmp_path, verdict_of(), [name] * 4)
    assert [row[1] for row in read(tmp_path / "verdict.csv")[1:]] == [name] * 4


def test_names_that_are_no_utf8_are_spelled_out(tmp_path):
    put(tmp_path, verdict_of(), [os.fsdecode(b"a/\xff.png")] * 4)
    assert read(tmp_path / "verdict.csv")[1][1] == r"a/\udcff.png"


def test_formulas_are_defused_and_numbers_are_not(tmp_path):
    labels = ["=1+1", "-1", "@cmd", "-1"]
    put(tmp_path, verdict_of(labels, (CLEAN,) * 4), ["=a/1.png", "+b/2.png", "-c/3.png", "d/=4.png"])
    rows = read(tmp_path / "verdict.csv")[1:]
    assert [row[1] for row in rows] == ["./=a/1.png", "./+b/2.png", "./-c/3.png", "d/=4.png"]
    assert [row[2] for row in rows] == ["'=1+1", "-1", "'@cmd", "-1"]
    assert [row[5] for row in rows] == ["'=1+1", "-1", "'@cmd", "-1"]


def test_rows_are_numbered_as_in_the_store(tmp_path):
    store = ArrayStore(np.zeros((7, 2)), np.array(list("ababxab")), "seven rows")
    put(tmp_path, verdict_of(), rows=np.array([1, 2, 5, 6]), store=store)
    assert [row[0] for row in read(tmp_path / "verdict.csv")[1:]] == ["1", "2", "5", "6"]
    assert pd.read_parquet(tmp_path / "verdict.parquet")["row"].tolist() == [1, 2, 5, 6]
    assert np.load(tmp_path / "clean_mask.npy").tolist() == [False, True, False, False, False, False, False]


def test_both_tables_say_the_same_and_parquet_keeps_types(tmp_path):
    verdict = replace(verdict_of(labels=[-1, 1, -1, 1]), clean_proba=np.array([0.9, 0.1, 0.2, 1 / 3]))
    put(tmp_path, verdict, truth=np.array([-1, -1, -1, 1]))
    frame = pd.read_parquet(tmp_path / "verdict.parquet")
    header, *rows = read(tmp_path / "verdict.csv")
    assert header == [*COLUMNS, "clean_proba", "truth"] == frame.columns.tolist()
    assert frame["file"].isna().all()
    for name in ("given_label", "suggested_label", "truth", "row"):
        assert frame[name].dtype == np.int64
        assert [int(row[header.index(name)]) for row in rows] == frame[name].tolist()
    for name, values in (("score", verdict.scores), ("clean_proba", verdict.clean_proba)):
        assert frame[name].tolist() == values.tolist() == [float(row[header.index(name)]) for row in rows]
    assert frame["verdict"].tolist() == [row[header.index("verdict")] for row in rows]


def test_parquet_holds_names_as_they_are_but_for_bytes_that_are_no_text(tmp_path):
    labels = [os.fsdecode(b"\xff"), "=1+1", os.fsdecode(b"\xff"), "=1+1"]
    put(tmp_path, verdict_of(labels), ["=a/1.png", os.fsdecode(b"\xff/2.png"), "'", "\n"])
    frame = pd.read_parquet(tmp_path / "verdict.parquet")
    assert frame["file"].tolist() == ["=a/1.png", r"\udcff/2.png", "'", "\n"]
    assert frame["given_label"].tolist() == [r"\udcff", "=1+1"] * 2


def test_truth_of_mixed_kinds_is_written_as_text(tmp_path):
    put(tmp_path, verdict_of(labels=[-1, 1, -1, 1]), truth=np.array([-1, 1, "else", 1], dtype=object))
    assert [row[-1] for row in read(tmp_path / "verdict.csv")[1:]] == ["-1", "1", "else", "1"]
    assert pd.read_parquet(tmp_path / "verdict.parquet")["truth"].tolist() == ["-1", "1", "else", "1"]


def test_the_folder_says_what_made_it(tmp_path):
    about = {"method": "INN", "counts": {"rows": np.int64(4), "rate": float("nan")}, "left_out": ["a\udcff"]}
    with output_folder(tmp_path / "deep" / "out", about) as folder:
        (folder / "verdict.csv").write_text("x")
    assert tree(tmp_path) == ["deep", "deep/out", "deep/out/audit.json", "deep/out/verdict.csv"]
    marker = json.loads((tmp_path / "deep/out/audit.json").read_text(encoding="utf-8"))
    assert marker == {
        "made_by": "noisefilter audit",
        "version": __version__,
        "method": "INN",
        "counts": {"rows": 4, "rate": None},
        "left_out": ["a\udcff"],
        "files": ["verdict.csv"],
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("existing", [None, "empty", "ours"])
def test_a_failure_leaves_everything_as_it_was(tmp_path, error, existing):
    out = tmp_path / "deep" / "out"
    if existing == "empty":
        out.mkdir(parents=True)
    if existing == "ours":
        write(out, first="1")
    before = tree(tmp_path)
    with pytest.raises(error), output_folder(out, {}) as folder:
        (folder / "half").write_text("written")
        raise error
    assert tree(tmp_path) == before


def test_a_failure_of_the_move_puts_the_old_audit_back(tmp_path, monkeypatch):
    write(tmp_path / "out", first="1")
    rename = Path.rename

    def broken(self, target):
        if self.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "out", second="2")
    assert tree(tmp_path) == ["out", "out/audit.json", "out/first"]


def test_an_earlier_audit_is_replaced_and_an_empty_folder_filled(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write(out, first="1")
    assert tree(tmp_path) == ["out", "out/audit.json", "out/first"]
    write(out, second="2")
    assert tree(tmp_path) == ["out", "out/audit.json", "out/second"]


def test_the_folder_can_be_read_by_others(tmp_path):
    os.umask(previous := os.umask(0))
    write(tmp_path / "out", first="1")
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~previous


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", first="1")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "first").read_text() == "1"


@pytest.mark.parametrize(
    "marker",
    [None, "{", "[]", '{"made_by": "somebody", "files": ["thesis.tex"]}', '{"made_by": "noisefilter audit"}'],
)
def test_other_things_are_never_replaced(tmp_path, marker):
    (tmp_path / "thesis.tex").write_text("years of work")
    if marker is not None:
        (tmp_path / "audit.json").write_text(marker)
    with pytest.raises(
        InputError, match=r"must be new, empty or an earlier audit, got .* other things, such as"
    ):
        check_output(tmp_path)


def test_an_audit_with_something_added_is_not_replaced(tmp_path):
    write(tmp_path / "out", first="1")
    check_output(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"'notes\.txt'"):
        check_output(tmp_path / "out")


def test_things_that_came_during_the_training_are_kept(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="thesis"), output_folder(out, {}) as folder:
        (folder / "verdict.csv").write_text("x")
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    assert tree(tmp_path) == ["out", "out/thesis.tex"]


def test_a_file_or_a_mount_point_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="must be a folder, got the file"):
        check_output(tmp_path / "file")
    with pytest.raises(InputError, match="mount point"):
        check_output("/")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_parent_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="can be written"):
        check_output(tmp_path / "deep" / "out")
    tmp_path.chmod(0o700)


def test_the_summary_counts():
    labels = np.array(list("aaabbbcc"))
    verdict = Verdict(
        labels=labels,
        classes=np.array(list("abc")),
        scores=np.array([0.9, 0.1, 0.2, 0.05, 0.8, 0.3, 0.0, 0.7]),
        partition=np.array([0, 1, 1, 1, 0, 2, 0, 0]),
        alternatives=np.array(list("bbbcacab")),
    )
    facts = summarize(verdict, n_suspects=3)
    assert (facts["rows"], facts["flagged"], facts["wrong_label"], facts["out_of_distribution"]) == (
        8,
        4,
        3,
        1,
    )
    assert facts["classes"] == [("a", 3, 2), ("b", 3, 2), ("c", 2, 0)]
    assert facts["confusions"] == [("a", "b", 2), ("b", "c", 1)]
    assert facts["suspects"].tolist() == [3, 1, 2]  # row 6 scores lowest, but was judged clean
