"""Loading: what people have on their disks, the broken files included."""

import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits as sklearn_digits
from torchvision import datasets as torchvision_datasets

from noisefilter.datasets import load, load_cifar, load_digits, load_image_folder, load_npz
from noisefilter.errors import InputError, ParameterError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(path, color=RED, size=(12, 12), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two classes with two images each."""
    for name, color in (("red/b.png", RED), ("red/a.png", RED), ("blue/2.png", BLUE), ("blue/10.png", BLUE)):
        paint(tmp_path / "photos" / name, color)
    return tmp_path / "photos"


def row(source, name):
    return source.X[source.names.index(name)]


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


# dispatch


@pytest.mark.parametrize("source", ["nonsense", "photos.zip", "missing/"])
def test_an_unknown_source_lists_what_is_possible(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos.zip").touch()
    with pytest.raises(InputError, match=r"digits, an \.npz file, a folder .*, got '") as caught:
        load(source)
    assert ("does not exist" in str(caught.value)) == (source != "photos.zip")


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


# image folders


def test_folder_rows_are_in_sorted_order(photos):
    source = load(photos)
    assert source.names == ["blue/10.png", "blue/2.png", "red/a.png", "red/b.png"]
    assert source.y.tolist() == ["blue", "blue", "red", "red"]
    assert source.X.shape == (4, 32, 32, 3)
    assert source.X.dtype == np.uint8
    assert source.left_out == []
    assert (source.X[:2] == BLUE).all()
    assert (source.X[2:] == RED).all()


def test_images_of_many_are_in_their_own_rows(tmp_path):
    for level in range(60):  # threads finish in any order
        paint(tmp_path / f"{'ab'[level % 2]}/{level}.png", (level, 0, 0), size=(200 - 3 * level, 20))
    source = load_image_folder(tmp_path, image_size=8)
    assert [int(name[2:-4]) for name in source.names] == source.X[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("size", [(96, 32), (32, 96), (48, 16), (300, 100)])
def test_the_centre_is_cut_from_the_scaled_image(photos, size):
    wide = size[0] > size[1]
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:] = BLUE
    third = slice(max(size) // 3, 2 * max(size) // 3)
    pixels[(slice(None), third) if wide else third] = GREEN
    Image.fromarray(pixels).save(photos / "red/c.png")
    image = row(load(photos, image_size=32), "red/c.png").astype(int)
    assert (image[8:-8, 8:-8] == GREEN).all()  # the borders may be touched by the resampling
    assert (image[..., 1] > 128).all()


def test_exif_orientation_is_applied(photos):
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20] = (255, 255, 255)  # stored: bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: bright on the right
    Image.fromarray(pixels).save(photos / "red/c.jpg", exif=exif, quality=95)
    image = row(load(photos), "red/c.jpg")
    assert image[:, 20:].min() > 200
    assert image[:, :12].max() < 50


def test_a_large_jpeg_is_still_itself(photos):
    pixels = np.zeros((1000, 1600, 3), np.uint8)
    pixels[:, :800] = RED
    pixels[:, 800:] = BLUE
    Image.fromarray(pixels).save(photos / "red/c.jpg", quality=95)
    image = row(load(photos), "red/c.jpg").astype(int)
    assert np.abs(image[:, :14] - RED).max() < 12
    assert np.abs(image[:, 18:] - BLUE).max() < 12


def test_a_small_jpeg_keeps_its_detail(photos):
    stripes = (np.arange(64) // 4 % 2 * 255).astype(np.uint8)
    Image.fromarray(np.tile(stripes, (64, 1))).save(photos / "red/c.jpg", quality=95)
    image = row(load(photos, image_size=64), "red/c.jpg")
    assert np.abs(image[..., 0].astype(int) - stripes).max() < 20


@pytest.mark.parametrize(
    ("mode", "color", "suffix", "expected"),
    [
        ("L", 77, "png", (77, 77, 77)),
        ("L", 77, "jpg", (77, 77, 77)),
        ("1", 1, "png", (255, 255, 255)),
        ("LA", (77, 255), "png", (77, 77, 77)),
        ("RGBA", (255, 0, 0, 255), "png", RED),
        ("RGBA", (255, 0, 0, 0), "png", (255, 255, 255)),
        ("RGBA", (255, 0, 0, 51), "webp", (255, 204, 204)),
        ("I;16", 300, "png", (1, 1, 1)),
        ("I;16", 65535, "png", (255, 255, 255)),
        ("I;16", 32896, "tif", (128, 128, 128)),
        ("I", 32896, "pgm", (128, 128, 128)),
        ("CMYK", (0, 255, 255, 0), "tif", RED),
        ("P", 0, "gif", (0, 0, 0)),
        ("RGB", RED, "bmp", RED),
    ],
)
def test_every_mode_becomes_rgb(photos, mode, color, suffix, expected):
    options = {"lossless": True} if suffix == "webp" else {}
    paint(photos / f"red/c.{suffix}", color, mode=mode, **options)
    image = row(load(photos), f"red/c.{suffix}").astype(int)
    assert np.abs(image - expected).max() <= 2


def test_a_gif_with_a_palette_gives_its_first_frame_on_white(photos):
    first = Image.new("P", (12, 12), 1)
    first.putpalette([0, 0, 0, *GREEN, *BLUE])
    first.paste(0, (0, 0, 12, 6))  # the upper half is transparent
    second = first.copy()
    second.paste(2, (0, 0, 12, 12))
    first.save(photos / "red/c.gif", save_all=True, append_images=[second], transparency=0)
    image = row(load(photos), "red/c.gif")
    assert (image[:8] == 255).all()
    assert (image[-8:] == GREEN).all()


def test_a_phone_photo_with_several_pictures_is_read(photos):
    main = Image.new("RGB", (400, 300), GREEN)
    main.save(photos / "red/c.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (400, 300), RED)])
    assert np.abs(row(load(photos), "red/c.jpg").astype(int) - GREEN).max() < 5


def broken_files(folder):
    """Write one file of every kind of damage; return their names."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("cut.png", "cut.jpg", "cut.gif", "cut.tif"):
        noise.save(folder / name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "zero.png").touch()
    (folder / "text.jpg").write_text("not an image")
    (folder / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("F", (12, 12), 0.5).save(folder / "float.tif")
    Image.fromarray(np.full((12, 12), 10**6, dtype=np.int32)).save(folder / "int.tif")
    noise.save(folder / "icon.png", "ICO")  # Pillow could, but only formats that are photos are opened
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    return ["cut.gif", "cut.jpg", "cut.png", "cut.tif", "float.tif", "gone.png", "icon.png", "int.tif",
            "script.png", "text.jpg", "zero.png"]  # fmt: skip


def test_unreadable_images_are_counted_and_named(photos):
    names = broken_files(photos / "red")
    with warnings.catch_warnings(), pytest.raises(InputError) as caught:
        warnings.simplefilter("ignore")  # Pillow says of some that they are cut
        load(photos)
    message = str(caught.value)
    assert f"got {len(names)} of {len(names) + 4} that are not: 'red/cut.gif', 'red/cut.jpg'" in message
    assert f"and {len(names) - 5} more" in message
    assert "--skip-unreadable" in message
    assert "\n" not in message


def test_unreadable_images_can_be_skipped(photos):
    names = broken_files(photos / "red")
    (photos / "blue/0.png").touch()
    (photos / "notes.txt").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = load(photos, skip_unreadable=True)
    assert source.names == ["blue/10.png", "blue/2.png", "red/a.png", "red/b.png"]
    assert source.y.tolist() == ["blue", "blue", "red", "red"]
    assert (source.X[:2] == BLUE).all()
    assert (source.X[2:] == RED).all()
    assert source.left_out == ["blue/0.png", "notes.txt", *(f"red/{name}" for name in names)]
    assert "4 images" in source.description


def test_skipping_must_leave_two_classes(photos):
    for path in (photos / "red").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="at least two, got images of one class only, 'blue'"):
        load(photos, skip_unreadable=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read anything")
def test_files_without_permission_are_named(photos):
    (photos / "red/a.png").chmod(0)
    with pytest.raises(InputError, match=r"1 of 4 that are not: 'red/a\.png'"):
        load(photos)
    (photos / "red").chmod(0)
    with pytest.raises(InputError, match="must be a readable folder"):
        load(photos)
    (photos / "red").chmod(0o700)


def test_hidden_files_are_ignored_and_others_named(photos):
    for name in (".DS_Store", "red/._a.png", ".git/b.png", "red/.thumbs/c.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_text("hidden")
    for name in ("README.md", "loose.png", "red/notes.txt", "red/Thumbs.db", "blue/IMG.HEIC"):
        (photos / name).write_text("other")
    (photos / "empty").mkdir()
    source = load(photos)
    assert len(source) == 4
    assert source.left_out == [
        "README.md",
        "blue/IMG.HEIC",
        "empty",
        "loose.png",
        "red/Thumbs.db",
        "red/notes.txt",
    ]


def test_folders_in_class_folders_and_links_belong_to_the_class(photos, tmp_path):
    paint(photos / "red/more/deep/c.PNG", RED)
    paint(tmp_path / "elsewhere/d.png", GREEN)
    (photos / "green").symlink_to(tmp_path / "elsewhere")
    (photos / "red/loop").symlink_to(photos)
    source = load(photos)
    assert source.names == [
        "blue/10.png",
        "blue/2.png",
        "green/d.png",
        "red/a.png",
        "red/b.png",
        "red/more/deep/c.PNG",
    ]
    assert source.y.tolist() == ["blue", "blue", "green", "red", "red", "red"]


@pytest.mark.parametrize(
    "name",
    [
        " a b ",
        'it\'s "quoted"',
        "new\nline",
        "=1+1",
        "[red]",
        "ü中文",
        "-",
        "back\\slash",
        os.fsdecode(b"\xff"),
    ],
)
def test_hostile_names_are_kept(photos, name):
    paint(photos / name / f"{name}.png", GREEN)
    source = load(photos)
    assert f"{name}/{name}.png" in source.names
    assert name in source.y.tolist()
    (photos / name / f"{name}.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        load(photos)
    str(caught.value).encode()  # what the terminal gets is one line of valid text
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ([], "an empty folder"),
        ([".hidden/a.png"], "an empty folder"),
        (["a.png", "b.png"], r"no image in a class folder, only 'a\.png', 'b\.png'"),
        (["red/notes.txt"], r"no image in a class folder, only 'red/notes\.txt'"),
        (["red/a.png", "red/b.png"], "images of one class only, 'red'"),
        (["red/a.png", "blue/b.heic"], "images of one class only, 'red'"),
    ],
)
def test_a_folder_without_two_classes_is_refused(tmp_path, files, found):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=rf"one sub-folder of images per class, at least two, got {found}\."):
        load(tmp_path)


@pytest.mark.parametrize("image_size", [7, 0, -1, 32.0, True, "32"])
def test_image_size_is_checked_first(photos, image_size):
    with pytest.raises(ParameterError, match="image_size must be a whole number of at least 8 pixels, got"):
        load(photos, image_size=image_size)


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
