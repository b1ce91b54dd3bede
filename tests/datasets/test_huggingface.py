"""Saved Hugging Face data sets: labels, pictures, columns, copies; and that nothing leaves the machine."""

import builtins
import json
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from noisefilter.datasets import load, open_store
from noisefilter.errors import InputError, ParameterError

datasets = pytest.importorskip("datasets")
ClassLabel, Dataset, DatasetDict, Features, Value = (
    datasets.ClassLabel, datasets.Dataset, datasets.DatasetDict, datasets.Features, datasets.Value,
)  # fmt: skip
CLASSES = ClassLabel(names=["cat", "dog", "<script>"])


@pytest.fixture(autouse=True)
def quiet(tmp_path_factory, monkeypatch):
    """Save without bars, and keep what the library caches out of the home."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def save(folder, columns, **features):
    """Save columns; features not given are found by the library."""
    dataset = Dataset.from_dict(columns)
    dataset.cast(Features({**dataset.features, **features})).save_to_disk(folder)
    return folder


@pytest.fixture
def animals(tmp_path):
    """Pictures of 6 shades of gray, with an identifier and a text."""
    images = [Image.new("RGB", (10, 10), (40 * i, 0, 0)) for i in range(6)]
    columns = {
        "id": list(range(6)),
        "photo": images,
        "caption": ["x" * 299 + "äüö" + "y" * 1000] * 6,
        "animal": [0, 1, 2, 0, 1, 2],
    }
    return save(tmp_path / "animals", columns, photo=datasets.Image(), animal=CLASSES)


@pytest.fixture
def table(tmp_path):
    """Numbers and categories; 40 rows."""
    rng = np.random.default_rng(0)
    columns = {
        "size": rng.normal(size=40).tolist(),
        "color": [["red", "blue", None][i % 3] for i in range(40)],
        "target": [["yes", "no"][i % 2] for i in range(40)],
    }
    return save(tmp_path / "table", columns)


# pictures


def test_pictures_are_decoded_as_folders_decode_them(animals):
    source = load(animals, image_size=8)
    assert source.X.shape == (6, 8, 8, 3)
    assert source.X[:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160, 200]
    assert source.y.tolist() == ["cat", "dog", "<script>"] * 2
    assert source.kind == "images"
    assert source.names is None
    assert load(animals).X.shape == (6, 32, 32, 3)
    assert source.store.picture(3).getpixel((0, 0)) == (120, 0, 0)


def test_cells_are_the_other_columns_with_text_cut(animals):
    cells = open_store(animals).cells(np.array([4, 0]))
    assert list(cells) == ["id", "caption"]
    assert cells["id"].tolist() == [4, 0]
    assert cells["caption"].tolist() == ["x" * 299 + "ä"] * 2


def test_unreadable_pictures_and_missing_labels_are_refused_or_skipped(tmp_path):
    whole = BytesIO()
    Image.new("RGB", (9, 9), "red").save(whole, "png")
    sound = {"bytes": whole.getvalue(), "path": None}
    broken = [{"bytes": data, "path": None} for data in (b"broken", whole.getvalue()[:50], b"")]
    cells = [*broken, None, sound, sound, sound, sound, *broken]
    labels = [None, 1, 0, 1, 0, 1, -1, 0, 0, 0, None]
    save(tmp_path / "d", {"image": cells, "label": labels}, image=datasets.Image(), label=CLASSES)
    store = open_store(tmp_path / "d")
    names = [None, "dog", "cat", "dog", "cat", "dog", None, "cat", "cat", "cat", None]
    assert store.labels.tolist() == names
    with pytest.raises(
        InputError, match=r"Every row must have a label, got 3 of 11 without one, the first row 0"
    ):
        store.load()
    source = store.load(skip_unreadable=True)
    assert source.rows.tolist() == [4, 5, 7]
    assert source.y.tolist() == ["cat", "dog", "cat"]
    assert (source.X == (255, 0, 0)).all()
    assert source.left_out == [
        "3 rows without a label: 0, 6, 10",
        *(f"row {row}: its picture cannot be read" for row in (1, 2, 3, 8, 9)),
    ]
    assert store.picture(1) is None
    part = {"image": [sound, broken[0]], "label": [0, 1]}
    save(tmp_path / "e", part, image=datasets.Image(), label=CLASSES)
    with pytest.raises(
        InputError, match=r"must be readable, got 1 of 2 that are not: rows 1\. skip_unreadable"
    ):
        load(tmp_path / "e")


def test_skipping_must_leave_a_picture(tmp_path):
    columns = {"image": [{"bytes": b"broken", "path": None}] * 3, "label": [0, 1, None]}
    save(tmp_path / "d", columns, image=datasets.Image(), label=CLASSES)
    with pytest.raises(InputError, match="must be readable, got 2 of 3 that are not: rows 0, 1"):
        load(tmp_path / "d", skip_unreadable=True)


def test_one_of_several_pictures_is_chosen(tmp_path):
    left, right = ([Image.new("L", (9, 9), value)] * 2 for value in (10, 200))
    columns = {"left": left, "right": right, "label": [0, 1]}
    save(tmp_path / "d", columns, left=datasets.Image(), right=datasets.Image(), label=CLASSES)
    with pytest.raises(
        InputError, match=r"image \(--image\) must name a column of pictures .*'left', 'right', got nothing"
    ):
        open_store(tmp_path / "d")
    assert (load(tmp_path / "d", image="right").X == 200).all()
    with pytest.raises(InputError, match="got 'label'"):
        load(tmp_path / "d", image="label")


# tables


def test_columns_become_numeric(table):
    source = load(table)
    assert source.kind == "table"
    assert source.X.shape == (40, 4)  # the size, and three kinds of color
    assert np.isfinite(source.X).all()
    assert source.y.tolist() == ["yes", "no"] * 20
    assert [name for name, _ in source.preparation] == ["size", "color"]
    assert load(table, drop=["color"]).X.shape == (40, 1)
    assert load(table, missing="red").X.shape == (40, 3)
    assert source.store.picture(0) is None
    assert source.store.cells(np.array([1]))["color"].tolist() == ["blue"]


def test_other_columns_are_left_out_and_named(tmp_path):
    columns = {"a": [1.5, 2.5, 3.0], "list": [[1], [2], [3]], "kind": [0, 1, None], "label": ["x", "y", "x"]}
    save(tmp_path / "d", columns, kind=CLASSES)
    source = load(tmp_path / "d", label="label")
    assert source.left_out == ["column 'list': holds List"]
    assert list(source.store.cells(np.arange(3))) == ["a", "kind"]
    assert source.X.shape == (3, 4)  # two kinds, and a missing one
    assert load(tmp_path / "d", label="label", drop=["kind", "list"]).X.shape == (3, 1)
    assert source.store.cells(np.arange(3))["kind"].tolist() == ["cat", "dog", None]


def test_text_needs_an_embedding(tmp_path):
    columns = {"text": [f"text number {i}" for i in range(20)], "label": [0, 1] * 10}
    save(tmp_path / "d", columns, label=CLASSES)
    with pytest.raises(
        InputError, match=r"Text can be judged by an embedding of it: features \(--features\)"
    ):
        load(tmp_path / "d")
    np.save(tmp_path / "emb.npy", np.eye(20))
    source = load(tmp_path / "d", features=tmp_path / "emb.npy")
    assert np.array_equal(source.X, np.eye(20))
    assert source.kind == "table"
    assert source.store.cells(np.array([3]))["text"].tolist() == ["text number 3"]


# labels and options


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"a": Value("int64"), "what": CLASSES}, "what"),
        ({"label": Value("int64"), "what": CLASSES}, "what"),
        ({"a": Value("int64"), "target": Value("string")}, "target"),
        ({"Label ": Value("string"), "a": Value("int64")}, "Label "),
        ({"fine": CLASSES, "label": CLASSES}, "label"),
        ({"fine": CLASSES, "coarse": CLASSES, "label": Value("int64")}, None),
        ({"a": Value("int64"), "b": Value("string")}, None),
        ({"y": Value("int64"), "label": Value("int64")}, None),
    ],
)
def test_the_column_of_the_labels(tmp_path, columns, chosen):
    save(tmp_path / "d", {name: [0, 1] for name in columns}, **columns)
    if chosen:
        assert open_store(tmp_path / "d").label == chosen
    else:
        names = ", ".join(map(repr, columns))
        with pytest.raises(
            InputError, match=rf"label \(--label\) must name .*, got nothing for it; it has {names}\."
        ):
            open_store(tmp_path / "d")
    assert open_store(tmp_path / "d", label=next(iter(columns))).label == next(iter(columns))


def test_a_label_that_is_none_is_refused(animals):
    for label in ("photo", "Animal"):
        with pytest.raises(InputError, match=f"got '{label}'; it has 'id', 'caption', 'animal'"):
            open_store(animals, label=label)


def test_a_split_is_chosen(tmp_path, table):
    part = Dataset.load_from_disk(table)
    DatasetDict(train=part.select(range(30)), test=part.select(range(30, 40))).save_to_disk(tmp_path / "dict")
    with pytest.raises(
        InputError, match=r"split \(--split\) must name .* 'train', 'test', got nothing for it\."
    ):
        load(tmp_path / "dict")
    with pytest.raises(InputError, match=r"'train', 'test', got '\.\./table'"):
        load(tmp_path / "dict", split="../table")
    assert len(load(tmp_path / "dict", split="test")) == 10
    DatasetDict(all=part).save_to_disk(tmp_path / "one")
    assert len(load(tmp_path / "one")) == 40
    with pytest.raises(ParameterError, match=r"split must be left out for the one data set"):
        load(table, split="train")


def test_options_must_fit_what_is_there(animals, table):
    for option in ("categorical", "drop", "missing"):
        with pytest.raises(ParameterError, match=f"{option} must be left out for a data set of pictures"):
            open_store(animals, **{option: ["id"]})
    for option, value in (("image_size", 32), ("backbone", "resnet18")):
        with pytest.raises(ParameterError, match=f"{option} must be left out for rows without pictures"):
            load(table, **{option: value})


def test_without_the_library_it_is_said_how_to_get_it(table, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **options):
        if name.split(".")[0] == "datasets":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"pip install 'noisefilter\[huggingface\]' installs it\."):
        load(table)


# copies


def test_a_copy_has_the_same_columns_and_the_new_labels(animals, tmp_path):
    store = open_store(animals)
    before = sorted(path.name for path in animals.iterdir())
    assert store.write(tmp_path / "copy", np.array([5, 0, 1]), np.array(["dog", "cat", "<script>"])) is None
    copy, original = Dataset.load_from_disk(tmp_path / "copy"), Dataset.load_from_disk(animals)
    assert copy.features == original.features
    assert copy["animal"] == [1, 0, 2]
    assert copy["id"] == [5, 0, 1]
    assert [image.getpixel((0, 0))[0] for image in copy["photo"]] == [200, 0, 40]
    assert sorted(path.name for path in animals.iterdir()) == before  # nothing cached beside the data


def test_a_copy_keeps_numbers_and_texts_as_labels(table, tmp_path):
    open_store(table).write(tmp_path / "copy", np.array([3, 2]), np.array(["yes", "yes"]))
    assert Dataset.load_from_disk(tmp_path / "copy")["target"] == ["yes", "yes"]
    save(tmp_path / "n", {"a": [1.0, 2.0], "y": [3, 4]}, y=Value("int8"))
    open_store(tmp_path / "n").write(tmp_path / "m", np.array([0, 1]), np.array([4, 4]))
    assert Dataset.load_from_disk(tmp_path / "m").features["y"] == Value("int8")
    assert Dataset.load_from_disk(tmp_path / "m")["y"] == [4, 4]


def test_bars_stay_as_they_were(table, tmp_path):
    for was, setter in ((True, datasets.disable_progress_bars), (False, datasets.enable_progress_bars)):
        setter()
        open_store(table).write(tmp_path / f"copy{was}", np.arange(2), np.array(["yes", "no"]))
        assert datasets.are_progress_bars_disabled() == was


# hostile and broken folders


@pytest.mark.parametrize(
    "path", ["http://192.0.2.1/a.png", "hf://datasets/a/b.png", "/etc/passwd", "zip://a::http://192.0.2.1"]
)
@pytest.mark.parametrize("nested", [False, True])
def test_pictures_that_lie_elsewhere_are_refused(tmp_path, path, nested):
    import pyarrow as pa

    cells = [{"bytes": b"x", "path": "a.png"}, {"bytes": None, "path": path}]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells, kind = ([[cell] for cell in cells], pa.list_(kind)) if nested else (cells, kind)
    raw = pa.table({"image": pa.array(cells, type=kind), "label": [0, 1]})
    # written as save_to_disk does, but for what it would have stored inside
    image = datasets.List(datasets.Image()) if nested else datasets.Image()
    folder = save(tmp_path / "d", {"image": [[]] * 2 if nested else [None] * 2, "label": [0, 1]}, image=image)
    features = Dataset.load_from_disk(folder).features
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file:
        schema = features.arrow_schema
        with pa.ipc.new_stream(file, schema) as writer:
            writer.write_table(raw.cast(schema))
    with pytest.raises(
        InputError, match="must hold all its pictures and sounds itself, got 1 in 'image' that only"
    ):
        open_store(folder)


def test_nothing_leaves_the_machine(animals, tmp_path):
    """With the network cut, and told when somebody tries it."""
    code = f"""
import socket, sys
def refuse(*arguments, **options):
    print("tried", arguments, file=sys.stderr)
    raise SystemExit(3)
for name in ("getaddrinfo", "create_connection", "gethostbyname"):
    setattr(socket, name, refuse)
socket.socket.connect = refuse
import numpy as np
from noisefilter.datasets import load
source = load({str(animals)!r})
source.store.picture(0), source.store.cells(source.rows)
from pathlib import Path
source.store.write(Path({str(tmp_path / "copy")!r}), source.rows, source.y)
print(len(load({str(tmp_path / "copy")!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")


@pytest.mark.parametrize("damage", ["cut", "no state", "json", "splits", "gone", "class", "empty"])
def test_broken_folders_are_one_sentence(table, damage):
    data = table / "data-00000-of-00001.arrow"
    if damage == "cut":
        data.write_bytes(data.read_bytes()[:300])
    elif damage == "gone":
        data.unlink()
    elif damage == "empty":
        data.write_bytes(b"")
    elif damage == "json":
        (table / "state.json").write_text("{")
    elif damage == "no state":
        (table / "state.json").write_text("{}")
    elif damage == "splits":
        (table / "dataset_dict.json").write_text('{"splits": 3}')
    else:
        info = json.loads((table / "dataset_info.json").read_text())
        info["features"]["size"] = {"_type": "Nonsense"}
        (table / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(
        InputError, match=r"must be a folder that save_to_disk wrote, sound and whole, got an error: "
    ) as caught:
        load(table)
    assert "\n" not in str(caught.value)


def test_no_rows_are_refused(table):
    import pyarrow as pa

    dataset = Dataset.load_from_disk(table)
    schema = dataset.features.arrow_schema
    with pa.OSFile(str(table / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, schema):
        pass
    with pytest.raises(InputError, match="must have rows, got a data set without"):
        load(table)
