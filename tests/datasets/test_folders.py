"""Folders of photos: what people have on their disks, the broken files included."""

import os
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from noisefilter.datasets import load, load_image_folder, open_store
from noisefilter.datasets.folders import _renamed
from noisefilter.errors import InputError, ParameterError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def paint(path, color=RED, size=(12, 12), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


def row(source, name):
    return source.X[source.names.index(name)]


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


def test_a_class_of_one_photo_is_loaded(photos):
    paint(photos / "green/only.png", GREEN)
    source = load(photos)
    assert source.y.tolist() == ["blue", "blue", "green", "red", "red"]
    assert (row(source, "green/only.png") == GREEN).all()


# pictures and copies


def test_pictures_are_whole_and_small(photos):
    paint(photos / "red/c.jpg", GREEN, size=(600, 300))
    store = open_store(photos)
    picture = store.picture(store.names.index("red/c.jpg"))
    assert picture.size == (128, 64)
    assert picture.mode == "RGB"
    assert np.abs(np.asarray(picture).astype(int) - GREEN).max() < 5
    assert store.picture(0).size == (12, 12)
    (photos / store.names[0]).write_bytes(b"broken")
    assert store.picture(0) is None


HOSTILE = [
    "<script>alert(1)",
    "\"'`&amp;",
    "new\nline\r",
    "\u202egnp.exe\u05d0",
    os.fsdecode(b"\xff\xfe"),
    "-rf *",
    "%00..%2f",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_pictured_and_copied(photos, tmp_path, name):
    paint(photos / name / f"{name}.png", GREEN)
    store = open_store(photos)
    at = store.names.index(f"{name}/{name}.png")
    assert store.labels[at] == name
    assert (np.asarray(store.picture(at)) == GREEN).all()
    labels = store.labels.copy()
    labels[store.names.index("red/a.png")] = name
    labels[at] = "blue"
    names = store.write(tmp_path / "copy", np.arange(5), labels)
    copy = load(tmp_path / "copy")
    assert sorted(names) == copy.names
    assert (row(copy, f"blue/{name}.png") == GREEN).all()
    assert (row(copy, f"{name}/a.png") == RED).all()


def test_a_copy_has_the_very_files_in_the_folders_of_their_labels(photos, tmp_path):
    paint(photos / "blue/a.png", GREEN)
    store = open_store(photos)  # blue/10, blue/2, blue/a, red/a, red/b
    names = store.write(tmp_path / "copy", np.array([4, 3, 2]), np.array(["red", "blue", "blue"]))
    assert names == ["red/b.png", "blue/a-2.png", "blue/a.png"]
    for name, original in zip(names, ["red/b.png", "red/a.png", "blue/a.png"], strict=True):
        assert (tmp_path / "copy" / name).read_bytes() == (photos / original).read_bytes()
    assert len([path for path in (tmp_path / "copy").rglob("*") if path.is_file()]) == 3


def test_a_file_that_cannot_be_copied_is_named(photos, tmp_path):
    (photos / "red/gone.png").symlink_to(photos / "nowhere.png")
    store = open_store(photos)
    with pytest.raises(
        InputError, match=r"'red/gone\.png' must be a file that can be copied, got an error: "
    ):
        store.write(tmp_path / "copy", np.arange(len(store)), store.labels)


def test_a_pipe_is_unreadable_and_waited_for_by_nobody(photos, tmp_path):
    os.mkfifo(photos / "red/pipe.png")
    assert load(photos, skip_unreadable=True).left_out == ["red/pipe.png"]
    store = open_store(photos)
    with pytest.raises(InputError, match=r"'red/pipe\.png' must be .* got an error: .*named pipe"):
        store.write(tmp_path / "copy", np.arange(len(store)), store.labels)


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["a/x.png", "b/x.png"], ["b", "a"], ["b/x.png", "a/x.png"]),
        (["a/x.png", "b/x.png"], ["b", "b"], ["b/x-2.png", "b/x.png"]),
        (["a/x.png", "b/x-2.png", "b/X.png"], ["b", "b", "b"], ["b/x-3.png", "b/x-2.png", "b/X.png"]),
        (["a/x.png", "c/x.png"], ["b", "b"], ["b/x.png", "b/x-2.png"]),
        (["a/s/x.png", "b/s/x.png"], ["b", "b"], ["b/s/x-2.png", "b/s/x.png"]),
        # a folder that would have to be where a file is, and the reverse
        (["a/s.png/x.png", "b/s.png"], ["b", "b"], ["b/s.png-x.png", "b/s.png"]),
        (["a/s.png", "b/s.png/x.png"], ["b", "b"], ["b/s-2.png", "b/s.png/x.png"]),
    ],
)
def test_a_name_that_is_taken_gets_a_number(names, labels, expected):
    assert _renamed(names, labels) == expected


PARTS = st.sampled_from(["x", "X", "x-2", "x.png", "X.PNG", "x-2.png", "x.png-x", "\u0130", "ß", "ss"])
NAMES = st.lists(
    st.builds(
        lambda top, below: "/".join([top, *below]),
        st.sampled_from("abA"),
        st.lists(PARTS, min_size=1, max_size=3),
    ),
    unique=True,
)


@given(NAMES, st.data())
def test_files_never_collide(names, data):
    """No two files get one name, in whatever case, none lies where another needs a folder."""
    names = [n for n in names if not any(m.startswith(n + "/") for m in names)]  # no folder is a file
    labels = [data.draw(st.sampled_from("abA")) for _ in names]
    renamed = _renamed(names, labels)
    assert [name.partition("/")[0] for name in renamed] == labels
    stays = [name for name, label in zip(names, labels, strict=True) if name[0] == label]
    moved = [new for new, old in zip(renamed, names, strict=True) if new != old]
    assert set(stays) <= set(renamed)
    assert len(set(renamed)) == len(names)
    files = {name.casefold() for name in renamed}
    for name in moved:
        folded = name.casefold()
        assert [other.casefold() for other in renamed].count(folded) == 1
        assert not any(other.startswith(folded + "/") or folded.startswith(other + "/") for other in files)


def test_splits_are_no_classes(tmp_path):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "photos" / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / split / label / "0.png")
    with pytest.raises(InputError, match=r"got 'test', 'train', which each hold 'cat', 'dog'. To audit one"):
        load_image_folder(tmp_path / "photos")
    assert len(load_image_folder(tmp_path / "photos" / "train")) == 2


def test_classes_called_test_and_train_are_classes(tmp_path):
    for label in ("train", "test"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / label / "0.png")
    assert load_image_folder(tmp_path / "photos").y.tolist() == ["test", "train"]
