"""The right labels: found whatever the order, and refused where they do not fit."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from noisefilter.audit.copies import write_list
from noisefilter.audit.truth import read_truth
from noisefilter.datasets import open_store
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.errors import InputError

LABELS = np.array([3, 1, 2, 1])
STORE = ArrayStore(np.zeros((4, 2)), LABELS, "rows")


@pytest.fixture
def photos(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(tmp_path / "photos" / name)
    return open_store(tmp_path / "photos")


def text(tmp_path, content):
    path = tmp_path / "truth.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_labels_in_row_order(tmp_path):
    for content in ("label\n3\n2\n2\n1\n", "\ufefflabel,other\r\n3,x\r\n2,x\r\n\r\n2,x\r\n1,x\r\n"):
        truth = read_truth(text(tmp_path, content), STORE)
        assert truth.tolist() == [3, 2, 2, 1]
        assert truth.dtype == LABELS.dtype


def test_rows_in_any_order(tmp_path):
    assert read_truth(text(tmp_path, "label,row\n1,3\n2,1\n3,0\n2,2\n"), STORE).tolist() == [3, 2, 2, 1]


def test_files_in_any_order(tmp_path, photos):
    path = text(tmp_path, 'label,file\ndog,cat/2.png\ndog,dog/1.png\ncat,"cat/1.png"\n')
    assert read_truth(path, photos).tolist() == ["cat", "dog", "dog"]


def test_an_array(tmp_path):
    np.save(tmp_path / "t.npy", np.array(["3", "2", "2", "1"]))
    assert read_truth(tmp_path / "t.npy", STORE).tolist() == [3, 2, 2, 1]


def test_a_class_that_is_no_longer_there_is_kept_as_text(tmp_path):
    truth = read_truth(text(tmp_path, "label\n3\nfox\n2\n1\n"), STORE)
    assert truth.tolist() == [3, "fox", 2, 1]
    assert (truth != LABELS).tolist() == [False, True, False, False]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0")) | st.just(os.fsdecode(b"\xff")),
            st.sampled_from("ab"),
        ),
        unique_by=lambda pair: pair[0],
        min_size=1,
    )
)
def test_a_list_that_we_wrote_is_read_again(tmp_path_factory, pairs):
    names, labels = map(list, zip(*pairs, strict=True))
    store = ArrayStore(np.zeros((len(names), 2)), np.array(labels), "rows")
    store.names = names
    path = tmp_path_factory.mktemp("t") / "truth.csv"
    write_list(path, {"file": names[::-1], "label": labels[::-1]})
    assert read_truth(path, store).tolist() == labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must have the column 'label', got nothing"),
        ("file,class\n", "must have the column 'label', got 'file', 'class'"),
        ("label\n1\n2\n3\n", "must have one label for each of the 4 rows, got 3"),
        ("row,label\n0,1\n1,1\n2,1\n", "must have every row of the data set, got none of '3'"),
        ("row,label\n0,1\n1,1\n2,1\n3,1\n4,1\n", "Each row in .* must be in the data set, got '4'"),
        ("row,label\n0,1\n1,1\n2,1\n3,1\n1,2\n", "must have each row once, got more of '1'"),
        ('label\n1\n2\n"3\n1\n', "must be a sound CSV file, got an error in line 5"),
        ("label\n1\n2\n3,4\n1\n", "got an error in line 4: 2 cells under a header of 1"),
        ("label\na\nb\nc\na\n", "must be those of the data set, got 'a', 'b', 'c'; it has '1', '2', '3'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_truth(text(tmp_path, content), STORE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label\ncat\ncat\ndog\n", "must have the column 'file', got 'label'"),
        ("file,label\ncat/1.png,cat\ncat/9.png,cat\ndog/1.png,dog\n", "Each file in .* got 'cat/9.png'"),
        ("file,label\ncat/1.png,cat\ndog/1.png,dog\n", "must have every file .* got none of 'cat/2.png'"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, photos, content, message):
    with pytest.raises(InputError, match=message):
        read_truth(text(tmp_path, content), photos)


def test_arrays_that_do_not_fit_are_refused(tmp_path):
    np.save(tmp_path / "t.npy", np.ones((4, 1)))
    with pytest.raises(InputError, match=r"one label for each of the 4 rows, got \(4, 1\)"):
        read_truth(tmp_path / "t.npy", STORE)
    np.save(tmp_path / "t.npy", np.array([1, "a", None, 2], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"must be a sound \.npy file of numbers or text"):
        read_truth(tmp_path / "t.npy", STORE)
    (tmp_path / "t.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"must be a sound \.npy file"):
        read_truth(tmp_path / "t.npy", STORE)
    np.savez(tmp_path / "t.npz", y=LABELS)
    (tmp_path / "t.npz").rename(tmp_path / "t.npy")
    with pytest.raises(InputError, match="got several arrays"):
        read_truth(tmp_path / "t.npy", STORE)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"truth must be a \.csv or \.npy file, got 't\.txt'"):
        read_truth("t.txt", STORE)
    with pytest.raises(InputError, match="must be a readable file, got an error: No such file"):
        read_truth(tmp_path / "t.csv", STORE)
