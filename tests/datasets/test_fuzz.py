"""Whatever a file holds, a reader gives a result or one of the library's errors; a benchmark tries more."""

import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from noisefilter.audit.truth import read_truth
from noisefilter.datasets import load, load_npz
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.datasets.source import reason
from noisefilter.errors import InputError

READERS = (
    "text tables", "parquet tables", "npz archives", "embeddings", "images", "decisions", "truth, text",
    "truth, array", "audits, marker", "audits, verdict", "checkpoints", "saved verdicts",
)  # fmt: skip


def test_all_readers_are_tried(script):
    assert set(script("fuzz").READERS) == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_a_result_or_an_error_of_the_library(script, name):
    counts = script("fuzz").tried(name, 40)
    assert counts["result"] and counts.total() >= 40


def test_anything_else_is_seen(script, monkeypatch):
    fuzz = script("fuzz")

    def careless(folder, content):
        if b"9" in content:
            raise KeyError(content)

    monkeypatch.setitem(fuzz.READERS, "careless", (careless, lambda: fuzz.spoiled(b"1239")))
    with pytest.raises(KeyError):
        fuzz.tried("careless", 40)


# --- what was found -------------------------------------------------------------------------------


def no_such_characters(order):
    return np.full(6, 0x61, dtype=f"{order}u4").view(f"{order}U1"), np.full(6, 0x7FFFFFFF, f"{order}u4")


@pytest.mark.parametrize("order", "<>")
def test_text_of_characters_that_do_not_exist(tmp_path, order):
    sound, odd = no_such_characters(order)
    np.savez(tmp_path / "d.npz", X=np.zeros((6, 2)), y=odd.view(f"{order}U1"))
    with pytest.raises(InputError, match=r"y in .* must hold text, got characters that do not exist\."):
        load_npz(tmp_path / "d.npz")
    np.save(tmp_path / "t.npy", odd.view(f"{order}U1"))
    store = ArrayStore(np.zeros((6, 2)), np.array(list("abaaba")), "rows")
    with pytest.raises(InputError, match=r"must hold text, got characters that do not exist\."):
        read_truth(tmp_path / "t.npy", store)
    np.save(tmp_path / "t.npy", sound)
    assert read_truth(tmp_path / "t.npy", store).tolist() == ["a"] * 6


@pytest.mark.parametrize("header", ["{'shape': (", "[" * 500, ""])
def test_an_array_whose_header_is_no_python(tmp_path, header):
    content = b"\x93NUMPY\x01\x00\x76\x00" + header.encode().ljust(117)[:117] + b"\n"
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("X.npy", content)
        archive.writestr("y.npy", content)
    with pytest.raises(InputError, match=r"must be a sound \.npz archive, got an error: "):
        load_npz(tmp_path / "d.npz")
    (tmp_path / "t.npy").write_bytes(content)
    store = ArrayStore(np.zeros((2, 2)), np.array(["a", "b"]), "rows")
    with pytest.raises(InputError, match=r"must be a sound \.npy file"):
        read_truth(tmp_path / "t.npy", store)


def test_what_pandas_left_in_a_parquet_file_may_be_anything(tmp_path):
    table = pa.table({"u": [1.5, 2.0, 3.5, 0.0], "label": list("abab")})
    pq.write_table(table.replace_schema_metadata({"pandas": "no JSON"}), tmp_path / "t.parquet")
    source = load(tmp_path / "t.parquet")
    assert source.X.shape == (4, 1) and source.store.cells(np.arange(2)).shape == (2, 1)


def test_an_error_that_says_nothing_is_named():
    assert reason(MemoryError()) == "MemoryError"
    assert reason(ValueError("two\nlines.")) == "two lines"
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
