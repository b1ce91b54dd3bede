"""Arrays: digits, archives, torchvision's CIFAR, embeddings, the broken files included."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits as sklearn_digits
from torchvision import datasets as torchvision_datasets

from noisefilter.datasets import load, load_cifar, load_digits, load_npz, loaded, open_store, opened
from noisefilter.datasets.arrays import ArrayStore, read_features
from noisefilter.errors import InputError, ParameterError

# digits and npz


def test_digits_are_the_ones_of_sklearn():
    source, raw = load("digits"), sklearn_digits()
    assert source.X.dtype == np.uint8
    assert np.array_equal(source.X, raw.images)
    assert np.array_equal(source.y, raw.target)
    assert np.array_equal(source.truth, raw.target)
    assert source.kind == "images"
    assert len(source) == 1797


def test_npz_of_images_and_of_rows(tmp_path):
    X, y = np.arange(24, dtype=np.uint8).reshape(6, 2, 2), np.array(list("aabbcc"))
    np.savez(tmp_path / "d.npz", X=X, y=y, rows=X.reshape(6, 4), labels=y[::-1])
    source = load(tmp_path / "d.npz")
    assert np.array_equal(source.X, X)
    assert np.array_equal(source.y, y)
    assert source.kind == "images"
    other = load(str(tmp_path / "d.npz"), x_key="rows", y_key="labels")
    assert np.array_equal(other.X, X.reshape(6, 4))
    assert np.array_equal(other.y, y[::-1])
    assert other.kind == "table"


def test_npz_keys_are_listed(tmp_path):
    np.savez(tmp_path / "d.npz", data=np.zeros((3, 2)), target=np.zeros(3))
    with pytest.raises(InputError, match=r"x_key must name an array .* got 'X'; it has 'data', 'target'\."):
        load_npz(tmp_path / "d.npz")
    with pytest.raises(InputError, match=r"y_key must name an array .* got 'label'"):
        load_npz(tmp_path / "d.npz", x_key="data", y_key="label")


def test_npz_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    np.savez(tmp_path / "d.npz", X=np.array([Bomb(), Bomb()], dtype=object), y=np.array([0, 1]))
    with pytest.raises(InputError, match=r"X .* must hold numbers or text, got Python objects"):
        load_npz(tmp_path / "d.npz")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut", "flipped", "npy"])
def test_broken_npz_is_one_sentence(tmp_path, damage):
    path = tmp_path / "d.npz"
    np.savez(path, X=np.random.default_rng(0).random((50, 4)), y=np.arange(50) % 2)
    whole = path.read_bytes()
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros((3, 2)))
    elif damage == "missing":
        path.unlink()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
        path.write_bytes(
            {"empty": b"", "text": b"X,y\n1,2\n", "cut": whole[:middle], "flipped": flipped}[damage]
        )
    with pytest.raises(InputError, match=r"d\.npz' must be an? (sound )?\.npz archive, got") as caught:
        load_npz(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(("x_shape", "y_shape"), [((5, 2), (4,)), ((5,), (5,)), ((5, 2), (5, 1)), ((), ())])
def test_npz_shapes_must_fit(tmp_path, x_shape, y_shape):
    np.savez(tmp_path / "d.npz", X=np.zeros(x_shape), y=np.zeros(y_shape))
    with pytest.raises(InputError, match="must be rows and as many labels, got the shapes"):
        load_npz(tmp_path / "d.npz")


# CIFAR


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Tiny files in the layout of the published ones; only their checksums are not looked at."""

    def batch(path, n, **labels):
        rng = np.random.default_rng(len(path.name))
        data = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps({"data": data, **labels}))
        return data

    ten, hundred = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-100-python"
    pixels = [batch(ten / f"data_batch_{i}", 2, labels=[i, 0]) for i in range(1, 6)]
    batch(ten / "test_batch", 3, labels=[9, 8, 7])
    (ten / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    batch(hundred / "train", 4, fine_labels=[0, 99, 5, 5], coarse_labels=[0, 1, 1, 1])
    batch(hundred / "test", 2, fine_labels=[1, 2], coarse_labels=[0, 1])
    (hundred / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"fine{i}" for i in range(100)]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5: Path(path).is_file())
    return tmp_path, np.concatenate(pixels)


def test_cifar_10(cifar):
    root, pixels = cifar
    source = load_cifar(root, "cifar10")
    assert source.y.tolist() == ["b", "a", "c", "a", "d", "a", "e", "a", "f", "a"]
    assert source.X.shape == (10, 32, 32, 3)
    assert source.X.dtype == np.uint8
    assert source.X[3, 5, 7, 2] == pixels[3].reshape(3, 32, 32)[2, 5, 7]
    assert load_cifar(root, "cifar10", train=False).y.tolist() == ["j", "i", "h"]


def test_rows_to_predict_are_the_test_images_without_their_labels(cifar):
    root, _ = cifar
    store, reading = opened("cifar10", {"root": root}, labeled=False, train=False, image_size=9)
    assert reading == {} and len(store) == 3
    source = loaded(store, reading, image_size=32, columns=None)
    assert np.array_equal(source.X, load_cifar(root, "cifar10", train=False).X)


def test_an_archive_without_labels(tmp_path):
    np.savez(tmp_path / "rows.npz", X=np.eye(3))
    source = load(tmp_path / "rows.npz", labeled=False)
    assert source.y.tolist() == ["", "", ""] and source.description == "rows.npz: X (3, 3) float64"
    with pytest.raises(InputError, match="y_key must name an array"):
        load(tmp_path / "rows.npz")


def test_cifar_100(cifar):
    root, _ = cifar
    assert load_cifar(root, "cifar100").y.tolist() == ["fine0", "fine99", "fine5", "fine5"]
    assert load_cifar(root, "cifar100", train=False).y.tolist() == ["fine1", "fine2"]


def test_load_knows_torchvisions_folder(cifar):
    root, _ = cifar
    assert len(load(root)) == 10
    (root / "cifar-10-batches-py").rename(root / "elsewhere")
    assert len(load(root)) == 4


def test_cifar_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(
        InputError, match=r"root must be a folder with cifar100 .*download=True\) fetches it\."
    ):
        load_cifar(tmp_path, "cifar100")
    with pytest.raises(ParameterError, match="name must be 'cifar10' or 'cifar100', got 'cifar'"):
        load_cifar(tmp_path, "cifar")


def test_pickles_that_are_not_the_published_ones_are_not_opened(cifar, monkeypatch):
    root, _ = cifar
    monkeypatch.setattr(
        "torchvision.datasets.cifar.check_integrity", torchvision_datasets.utils.check_integrity
    )
    with pytest.raises(InputError, match="complete, got"):
        load(root)


def test_digits_need_no_options():
    assert load_digits().names is None


def test_cifar_by_name(cifar, monkeypatch, tmp_path):
    root, _ = cifar
    assert len(load("cifar10", root=root)) == 10
    assert load("cifar100", root=root, train=False).y.tolist() == ["fine1", "fine2"]
    with pytest.raises(
        ParameterError, match=r"root \(--root\) must be the folder in which torchvision keeps"
    ):
        load("cifar10")
    with pytest.raises(InputError, match=r"download=True\) fetches it"):
        load("cifar10", root=root / "nowhere")


# what people see of a row


def picture(X, row=0):
    seen = ArrayStore(np.asarray(X), np.zeros(len(X)), "").picture(row)
    assert seen.mode == "RGB"
    return np.asarray(seen)


GRAY = np.array([[[0, 51], [102, 255]]])


@pytest.mark.parametrize(
    ("X", "expected"),
    [
        (GRAY.astype(np.uint8), GRAY[0]),
        (GRAY / 255, GRAY[0]),
        ((GRAY / 255).astype(np.float16), GRAY[0]),
        (GRAY.astype(np.uint16) * 257, GRAY[0]),
        (GRAY - 1000, GRAY[0]),
        (np.array([[[0, 4], [8, 16]]], dtype=np.uint8), [[0, 63], [127, 255]]),
        (np.array([[[False, True], [True, False]]]), [[0, 255], [255, 0]]),
        (np.full((1, 2, 2), 0.3), np.zeros((2, 2))),
        (np.array([[[np.nan, 0.0], [np.inf, 1.0]]]), [[0, 0], [255, 255]]),
        (np.full((1, 2, 2), np.nan), np.zeros((2, 2))),
    ],
    ids=["bytes", "floats", "half", "16 bits", "negative", "digits", "bool", "constant", "nan", "all nan"],
)
def test_gray_pictures(X, expected):
    for shaped in (X, X[..., None], X[:, None]):
        seen = picture(shaped)
        assert np.abs(seen.astype(int) - np.asarray(expected)[..., None]).max() <= (
            1 if X.itemsize == 2 else 0
        )


def test_pictures_of_colors():
    red = np.zeros((2, 5, 6, 3), dtype=np.uint8)
    red[1, :2] = (255, 0, 100)
    assert np.array_equal(picture(red, 1), red[1])
    assert np.array_equal(picture(np.moveaxis(red, -1, 1), 1), red[1])
    assert np.array_equal(picture(red / 255, 1), red[1])
    clear = np.concatenate([red, np.full((2, 5, 6, 1), 255, dtype=np.uint8)], axis=-1)
    clear[1, 0, 0, 3] = 0
    assert np.array_equal(picture(clear, 1)[1:], red[1, 1:])
    assert picture(clear, 1)[0, 0].tolist() == [255, 255, 255]  # transparency lies on white
    assert np.array_equal(picture(np.moveaxis(clear, -1, 1), 1), picture(clear, 1))


@pytest.mark.parametrize(
    ("shape", "size"),
    [((4, 3, 32, 3), (3, 32)), ((4, 1, 7, 1), (1, 7)), ((4, 2, 8, 9), (8, 9)), ((4, 8, 9, 5), (8, 9))],
)
def test_where_channels_are_in_doubt_the_first_is_shown(shape, size):
    X = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    channel = X[0, 0] if size == shape[2:] else X[0, ..., 0]
    assert np.array_equal(picture(X)[..., 0], channel)


@pytest.mark.parametrize("X", [np.zeros((2, 3)), np.zeros((2, 3, 3, 3, 3)), np.full((2, 3, 3), "a")])
def test_what_is_no_picture_has_none(X):
    assert ArrayStore(X, np.zeros(2), "").picture(0) is None


def test_black_and_white_are_those_of_all_rows():
    X = np.array([[[0.0, 10.0]], [[0.0, 5.0]]])
    assert picture(X, 1)[0, :, 0].tolist() == [0, 127]


def test_cells_are_the_columns():
    X = np.arange(3 * 512.0).reshape(3, 512)
    cells = ArrayStore(X, np.zeros(3), "").cells(np.array([2, 0]))
    assert cells.shape == (2, 512)
    assert cells["column 511"].tolist() == [1535, 511]
    assert ArrayStore(np.zeros((3, 2, 2)), np.zeros(3), "").cells(np.arange(3)) is None


@pytest.mark.parametrize(("x_key", "y_key"), [("X", "y"), ("file", "allow_pickle"), ("<script>", "ü/../b")])
def test_a_copy_has_the_keys_and_types_of_the_archive(tmp_path, x_key, y_key):
    store = ArrayStore(np.arange(6, dtype=np.int16).reshape(3, 2), np.array([1, 2, 1]), "", (x_key, y_key))
    store.write(tmp_path / ".unfinished", np.array([2, 0]), np.array(["2", "1"], dtype=object))
    (tmp_path / ".unfinished").rename(tmp_path / "copy.npz")
    copy = load_npz(tmp_path / "copy.npz", x_key=x_key, y_key=y_key)
    assert copy.X.tolist() == [[4, 5], [0, 1]]
    assert copy.X.dtype == np.int16
    assert copy.y.tolist() == [2, 1]


# embeddings


def test_features_take_the_place_of_pixels(tmp_path):
    emb = np.random.default_rng(0).normal(size=(1797, 4)).astype(np.float32)
    np.save(tmp_path / "emb.npy", emb)
    source = load("digits", features=tmp_path / "emb.npy")
    assert np.array_equal(source.X, emb)
    assert source.kind == "images"
    assert np.array_equal(source.truth, sklearn_digits().target)
    assert np.array_equal(source.y, sklearn_digits().target)
    assert source.store.picture(5).size == (8, 8)
    assert "'emb.npy'" in source.description


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (
            np.zeros((4, 2)),
            r"must have a row for each of the 3 rows of the source, in the same order, got 4\.",
        ),
        (np.zeros(3), r"must be numbers of shape \(rows, columns\), got float64 of shape \(3,\)\."),
        (np.zeros((3, 2, 2)), r"must be numbers of shape .* got float64 of shape \(3, 2, 2\)\."),
        (np.zeros((3, 2), dtype=complex), "must be numbers of shape .* got complex128"),
        (np.full((3, 2), "a"), "must be numbers of shape .* got <U1"),
        (np.zeros((3, 2), dtype="M8[s]"), "must be numbers of shape .* got datetime64"),
        (
            np.array([[0, 1], [0, np.nan], [0, 1]]),
            r"must be finite, got NaN or infinity, the first in row 1\.",
        ),
        (np.array([[0, 1], [0, 1], [-np.inf, 1]]), "must be finite, got NaN or infinity, the first in row 2"),
        (np.zeros((3, 0)), "must be"),
        (np.array([[Bomb()]] * 3), r"must be an \.npy file of numbers, got an error: .*(?i:object)"),
    ],
)
def test_features_that_do_not_fit_are_one_sentence(tmp_path, monkeypatch, array, found):
    monkeypatch.chdir(tmp_path)
    np.save("emb.npy", array)
    np.savez("d.npz", X=np.zeros((3, 2)), y=[0, 1, 1])
    with pytest.raises(InputError, match=rf"features \(--features\) in 'emb.npy' {found}") as caught:
        load("d.npz", features="emb.npy")
    assert "\n" not in str(caught.value)
    assert not Path("exploded").exists()


@pytest.mark.parametrize("damage", ["missing", "folder", "text", "archive", "cut", "empty"])
def test_a_file_that_is_no_npy_is_one_sentence(tmp_path, damage):
    path = tmp_path / "emb.npy"
    np.save(path, np.zeros((3, 50)))
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "archive":
        with path.open("wb") as file:
            np.savez(file, X=np.zeros((3, 50)))
    elif damage != "missing":
        path.write_bytes({"text": b"1,2\n3,4\n", "cut": whole[:200], "empty": b""}[damage])
    with pytest.raises(InputError, match=r"must be an \.npy file of numbers, got an error: .*\.$") as caught:
        load("digits", features=path)
    assert "\n" not in str(caught.value)


@given(st.binary(min_size=1, max_size=8), st.integers(0, 127))
def test_a_damaged_header_is_one_sentence_or_none(tmp_path_factory, damage, at):
    path = tmp_path_factory.mktemp("npy") / "emb.npy"
    np.save(path, np.ones((3, 2)))
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    try:
        assert read_features(path, 3, np.arange(3)).shape[0] == 3
    except InputError as error:
        assert "\n" not in str(error)


def test_other_reading_options_are_refused_beside_features(tmp_path, photos):
    np.save(tmp_path / "emb.npy", np.eye(4))
    (photos / "red/a.png").write_bytes(b"not read")
    source = load(photos, features=tmp_path / "emb.npy", skip_unreadable=True)
    assert len(source) == 4
    assert source.names == open_store(photos).names
    with pytest.raises(
        ParameterError, match=r"image_size must be left out where there are features, got 64\."
    ):
        load(photos, features=tmp_path / "emb.npy", image_size=64)


def test_features_and_labels_leave_the_same_rows_out(tmp_path):
    np.save(tmp_path / "emb.npy", np.array([[0.0], [1.0], [np.nan], [3.0]]))
    np.savez(tmp_path / "d.npz", X=np.zeros((4, 2)), y=[1.0, 0.0, np.nan, 1.0])
    store = open_store(tmp_path / "d.npz")
    with pytest.raises(
        InputError, match=r"Every row must have a label, got 1 of 4 without one, the first row 2\."
    ):
        store.usable()
    rows, left_out = store.usable(skip_unreadable=True)
    assert rows.tolist() == [0, 1, 3]
    assert left_out == ["1 row without a label: 2"]
    assert read_features(tmp_path / "emb.npy", 4, rows).ravel().tolist() == [0, 1, 3]
    with pytest.raises(InputError, match="Every row must have a label"):
        load(tmp_path / "d.npz", features=tmp_path / "emb.npy")
