"""Whatever a source names is found, and what holds for every store."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from noisefilter.datasets import Source, load, open_store
from noisefilter.datasets.arrays import ArrayStore
from noisefilter.errors import InputError, ParameterError


@pytest.mark.parametrize("source", ["nonsense", "photos.zip", "missing/", "digits.txt", "CIFAR10"])
def test_an_unknown_source_lists_what_is_possible(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos.zip").touch()
    with pytest.raises(InputError, match=r"^source must be digits, cifar10, .*, got '") as caught:
        load(source)
    message = str(caught.value)
    assert ("does not exist" in message) == (source != "photos.zip")
    for kind in (
        "digits",
        "cifar100",
        ".npz",
        ".csv",
        ".tsv",
        ".parquet",
        "sub-folder of images",
        "save_to_disk",
    ):
        assert kind in message


def test_an_option_of_another_source_is_refused(photos):
    with pytest.raises(
        ParameterError, match=r"image_size must be left out for the source 'digits', got 64\."
    ):
        load("digits", image_size=64)
    with pytest.raises(ParameterError, match="x_key must be left out"):
        load(photos, x_key="data")


def test_verbose_is_for_sources_that_take_long(photos, capsys, monkeypatch):
    monkeypatch.setattr("noisefilter.progress._QUIET_BELOW", 0.0)
    load("digits", verbose=True)
    assert capsys.readouterr().err == ""
    load(photos, verbose=True)
    assert "reading 4 images" in capsys.readouterr().err
    load(photos)
    assert capsys.readouterr().err == ""


def test_opening_loads_pandas_for_tables_only(photos, tmp_path):
    np.savez(tmp_path / "d.npz", X=np.zeros((3, 2)), y=[0, 1, 0])
    code = (
        "import sys; from noisefilter.datasets import load, open_store; "
        f"load({str(tmp_path / 'd.npz')!r}); load({str(photos)!r}); print('pandas' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_folder_comes_before_a_name(photos, tmp_path, monkeypatch):
    photos.rename(tmp_path / "cifar10")
    monkeypatch.chdir(tmp_path)
    assert len(load("cifar10")) == 4


# what holds for every store


def npz_of_images(folder):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    np.savez(folder / "images.npz", X=X, y=np.array(["a", "b", "ü"])[np.arange(12) % 3])
    return folder / "images.npz"


def npz_of_rows(folder):
    X = np.random.default_rng(0).normal(size=(12, 3))
    np.savez(folder / "rows.npz", X=X, y=np.arange(12) % 3)
    return folder / "rows.npz"


def table(folder, name):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=12), "label": np.array(["x", "y", 'z"\n'])[np.arange(12) % 3]})
    frame["b"] = rng.integers(0, 1000, 12) / 8
    getattr(frame, f"to_{name}")(folder / f"table.{name}", index=False)
    return folder / f"table.{name}"


def csv(folder):
    return table(folder, "csv")


def parquet(folder):
    return table(folder, "parquet")


def images(folder):
    rng = np.random.default_rng(0)
    for i in range(12):
        path = folder / "photos" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return folder / "photos"


def hub(folder):
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(12)]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b", "c"]))
    columns = {"image": pictures, "label": np.arange(12) % 3}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(folder / "saved")
    return folder / "saved"


@pytest.fixture(
    params=[npz_of_images, npz_of_rows, csv, parquet, images, hub], ids=lambda make: make.__name__
)
def path(request, tmp_path):
    return request.param(tmp_path)


def shown(store, row):
    """What people see of a row."""
    picture = store.picture(row)
    cells = store.cells(np.array([row]))
    return (
        None if picture is None else np.asarray(picture).tolist(),
        None if cells is None else cells.to_numpy().tolist(),
    )


def test_a_copy_has_the_rows_and_the_new_labels(path, tmp_path):
    store = open_store(path)
    rows = np.array([11, 0, 5, 4, 7, 2])
    labels = np.unique(store.labels)[[0, 1, 2, 0, 1, 2]]
    copy_path = tmp_path / f"copy{path.suffix}"
    names = store.write(copy_path, rows, labels)
    copy = open_store(copy_path)
    order = [copy.names.index(name) for name in names] if names else range(6)
    assert [copy.labels[i] for i in order] == labels.tolist()
    assert [shown(copy, i) for i in order] == [shown(store, row) for row in rows]
    assert type(copy) is type(store)
    assert copy.kind == store.kind
    assert copy.suffixes == store.suffixes
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == [copy_path.name]


def test_a_whole_copy_loads_as_the_original(path, tmp_path):
    original = load(path)
    copy_path = tmp_path / f"copy{path.suffix}"
    original.store.write(copy_path, np.arange(12), original.store.labels)
    copy = load(copy_path)
    assert np.array_equal(copy.X, original.X)
    assert np.array_equal(copy.y, original.y)
    assert copy.y.dtype.kind == original.y.dtype.kind
    assert copy.names == original.names
    assert copy.store.fingerprint == original.store.fingerprint
    assert np.array_equal(original.rows, np.arange(12))


def test_features_fit_every_store(path, tmp_path):
    np.save(tmp_path / "emb.npy", np.eye(12, 5))
    source = load(path, features=tmp_path / "emb.npy")
    assert np.array_equal(source.X, np.eye(12, 5))
    assert np.array_equal(source.y, load(path).y)
    assert source.kind == source.store.kind
    assert source.names == source.store.names


LABELS = st.lists(
    st.text(alphabet=["a", "b", "\0", "\1", ";", "1", "-", "\udcff", "ß"], max_size=3), max_size=5
)


def stored(labels, names):
    store = ArrayStore(np.zeros((len(labels), 1)), np.array(labels, dtype=object), "")
    store.names = names
    return store


@given(LABELS, LABELS, LABELS, LABELS)
def test_fingerprints_differ_where_labels_or_names_do(labels, names, other_labels, other_names):
    first, second = stored(labels, names), stored(other_labels, other_names)
    assert first.fingerprint == stored(list(labels), list(names)).fingerprint
    assert (first.fingerprint == second.fingerprint) == ((labels, names) == (other_labels, other_names))


def test_fingerprints_know_a_missing_label_from_a_text():
    prints = {stored([label, "a"], None).fingerprint for label in (None, "None", "nan", "", "-", "a")}
    assert len(prints) == 6
    for missing in (float("nan"), pd.NA, np.datetime64("NaT")):
        assert stored([missing, "a"], None).fingerprint == stored([None, "a"], None).fingerprint
    numbers = ArrayStore(np.zeros((2, 1)), np.array([1, 2], dtype=np.int8), "")
    assert numbers.fingerprint == stored(["1", "2"], None).fingerprint  # as decisions have them


@given(st.data())
def test_taking_rows_takes_all_that_belongs_to_them(data):
    n = data.draw(st.integers(1, 8))
    numbers = data.draw(st.lists(st.integers(0, n - 1), max_size=8))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool)
    source = Source(
        np.arange(n)[:, None], np.arange(n), [f"{i}" for i in range(n)], "table", "", truth=np.arange(n)
    )
    source = replace(source, rows=np.arange(n) * 3)
    for index in (np.array(numbers, dtype=np.intp), mask):
        expected = np.arange(n)[index]
        taken = source.take(index)
        assert taken.X[:, 0].tolist() == taken.y.tolist() == taken.truth.tolist() == expected.tolist()
        assert taken.names == [str(i) for i in expected]
        assert taken.rows.tolist() == (3 * expected).tolist()
        assert replace(source, names=None, truth=None).take(index).rows.tolist() == taken.rows.tolist()
