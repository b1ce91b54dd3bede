"""The papers' real-noise sets, read from small folders made up in their published layout."""

import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from noisefilter import SmallLossSelector
from noisefilter.datasets import (
    load_cifar_n,
    load_clothing1m,
    load_food101n,
    load_image_folder,
    load_webvision,
    noisy_sets,
)
from noisefilter.datasets.source import Source
from noisefilter.errors import InputError, ParameterError


def written(folder, files):
    for name, lines in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return folder


def photos(folder, names):
    """Photos of one color each, by their number."""
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (10 * i, 0, 0)).save(path, quality=95)
    return list(names)


# --- CIFAR-N --------------------------------------------------------------------------------------

CLASSES = np.array(["airplane", "automobile", "bird"])
CLEAN = np.array([2, 0, 1, 1, 2, 0])
WORSE = np.array([2, 1, 1, 0, 2, 0])


@pytest.fixture
def cifar(monkeypatch):
    """Six images where torchvision's files would be."""
    X = np.arange(6 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(6, 32, 32, 3)
    source = Source(X, CLASSES[CLEAN], None, "images", "cifar10, 6 training images of 32 x 32")
    monkeypatch.setattr(noisy_sets, "load_cifar", lambda root, name: source)
    return X


def label_file(folder, name="CIFAR-10_human.pt", payload=None, old=True, **arrays):
    """Write what torch.save wrote in 2021: a zip with a pickle of protocol 2, by numpy's old names."""
    data = pickle.dumps(arrays if payload is None else payload, protocol=2)
    if old:
        data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")


@pytest.mark.parametrize("old", [True, False])
def test_cifar_n_has_both_labels_of_every_image(cifar, tmp_path, old):
    label_file(tmp_path, clean_label=CLEAN, worse_label=WORSE, aggre_label=CLEAN, old=old)
    source = load_cifar_n(tmp_path)
    assert source.y.tolist() == CLASSES[WORSE].tolist() and source.truth.tolist() == CLASSES[CLEAN].tolist()
    assert np.array_equal(source.X, cifar) and "worse_label of CIFAR-10_human.pt" in source.description
    assert source.store.truth is not None
    assert load_cifar_n(tmp_path, labels="aggre_label").y.tolist() == source.truth.tolist()


def test_a_label_file_runs_nothing(cifar, tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    for payload in (Evil(), {"clean_label": CLEAN, "worse_label": Evil()}):
        label_file(tmp_path, payload=payload)
        with pytest.raises(InputError, match=r"must be the label file as published, .* names .*print"):
            load_cifar_n(tmp_path)


def test_wrong_label_files_are_one_sentence(cifar, tmp_path):
    with pytest.raises(InputError, match=r"CIFAR10N as it was published, .* has no 'CIFAR-10_human.pt'"):
        load_cifar_n(tmp_path)
    with pytest.raises(InputError, match=r"label_file must be a file, got .* does not exist"):
        load_cifar_n(tmp_path, label_file=tmp_path / "labels.pt")
    (tmp_path / "CIFAR-10_human.pt").write_bytes(b"no zip")
    with pytest.raises(InputError, match=r"must be the label file as published, got an error: BadZipFile"):
        load_cifar_n(tmp_path)
    label_file(tmp_path, clean_label=CLEAN)
    with pytest.raises(InputError, match=r"got an error: KeyError: 'worse_label'"):
        load_cifar_n(tmp_path)
    label_file(tmp_path, clean_label=CLEAN, worse_label=WORSE[:5])
    with pytest.raises(
        InputError, match=r"worse_label .* must be 6 numbers from 0 to 2, got int64 of shape \(5,\)"
    ):
        load_cifar_n(tmp_path)
    label_file(tmp_path, clean_label=np.roll(CLEAN, 1), worse_label=WORSE)
    with pytest.raises(
        InputError, match=r"clean_label in .* must be the labels of torchvision's cifar10, image by"
    ):
        load_cifar_n(tmp_path)
    with pytest.raises(ParameterError, match=r"labels must be one of .* for cifar10, got 'worst'"):
        load_cifar_n(tmp_path, labels="worst")
    with pytest.raises(ParameterError, match=r"name must be 'cifar10' or 'cifar100', got 'mnist'"):
        load_cifar_n(tmp_path, "mnist")


# --- Clothing1M -----------------------------------------------------------------------------------


@pytest.fixture
def clothes(tmp_path):
    keys = photos(tmp_path, [f"images/{i % 2}/0{i}/{i},1.jpg" for i in range(6)])
    return written(tmp_path, {
        "category_names_eng.txt": ["T-Shirt", "Shirt", "Knitwear"],
        "noisy_label_kv.txt": [f"{key} {i % 3}" for i, key in enumerate(keys[:5])],
        "clean_label_kv.txt": [f"{keys[5]} 1", f"{keys[4]} 0", f"{keys[3]} 0"],
        "noisy_train_key_list.txt": [keys[2], keys[0], keys[1]],
        "clean_train_key_list.txt": [keys[5]], "clean_val_key_list.txt": [keys[4]],
        "clean_test_key_list.txt": [keys[3]],
    })  # fmt: skip


def test_clothing1m_goes_by_its_lists(clothes):
    source = load_clothing1m(clothes, image_size=8)
    assert source.names == ["images/0/02/2,1.jpg", "images/0/00/0,1.jpg", "images/1/01/1,1.jpg"]
    assert source.y.tolist() == ["Knitwear", "T-Shirt", "Shirt"] and source.truth is None
    assert source.X.shape == (3, 8, 8, 3)
    assert np.abs(source.X[:, 0, 0, 0].astype(int) - [20, 0, 10]).max() < 4
    twice = load_clothing1m(clothes, "labeled_twice", stream=True)
    assert sorted(twice.names) == ["images/0/04/4,1.jpg", "images/1/03/3,1.jpg"]
    assert dict(zip(twice.names, twice.y, strict=True))["images/0/04/4,1.jpg"] == "Shirt"
    assert twice.truth.tolist() == ["T-Shirt", "T-Shirt"]
    assert load_clothing1m(clothes, "clean_train").y.tolist() == ["Shirt"]


def test_a_copy_of_clothing1m_is_a_folder_of_classes(clothes, tmp_path_factory):
    store = load_clothing1m(clothes).store
    out = tmp_path_factory.mktemp("copies") / "copy"
    store.write(out, np.array([0, 1, 2]), np.array(["Shirt", "T-Shirt", "Shirt"]))
    copy = load_image_folder(out)
    assert copy.y.tolist() == ["Shirt", "Shirt", "T-Shirt"]


def test_what_clothing1m_lacks_is_named(clothes):
    with pytest.raises(ParameterError, match=r"part must be one of \('noisy_train'"):
        load_clothing1m(clothes, "train")
    written(clothes, {"noisy_label_kv.txt": ["images/0/02/2,1.jpg 2"]})
    with pytest.raises(
        InputError, match=r"a label for every key in noisy_train_key_list.txt, got none for 'images/0/00"
    ):
        load_clothing1m(clothes)
    written(clothes, {"noisy_label_kv.txt": ["images/0/02/2,1.jpg 3"]})
    with pytest.raises(InputError, match=r"must number classes from 0 to 2, got '3' for 'images"):
        load_clothing1m(clothes)
    written(clothes, {"noisy_label_kv.txt": ["images/0/02/2,1.jpg"]})
    with pytest.raises(InputError, match=r"must have two columns, got the line 'images"):
        load_clothing1m(clothes)
    (clothes / "noisy_label_kv.txt").unlink()
    with pytest.raises(
        InputError, match=r"Clothing1M as it was published, got .* has no 'noisy_label_kv.txt'"
    ):
        load_clothing1m(clothes)
    (clothes / "category_names_eng.txt").write_text("\n")
    with pytest.raises(InputError, match=r"category_names_eng.txt in .* must have lines, got an empty file"):
        load_clothing1m(clothes)


def test_photos_that_are_missing_are_counted(clothes):
    (clothes / "images/0/00/0,1.jpg").unlink()
    with pytest.raises(InputError, match=r"must be readable, got 1 of 3 that are not: 'images/0/00/0,1.jpg'"):
        load_clothing1m(clothes)
    source = load_clothing1m(clothes, skip_unreadable=True)
    assert source.y.tolist() == ["Knitwear", "Shirt"] and source.left_out == ["images/0/00/0,1.jpg"]
    streamed = load_clothing1m(clothes, stream=True)
    with pytest.raises(InputError, match=r"must be readable, got 'images/0/00/0,1.jpg', which is not"):
        streamed.X[1]


# --- Food-101N ------------------------------------------------------------------------------------


@pytest.fixture
def food(tmp_path):
    keys = ["apple_pie/a.jpg", "apple_pie/b c.jpg", "ramen/c.jpg", "ramen/d.jpg"]
    photos(tmp_path, [f"images/{key}" for key in keys])
    return written(tmp_path, {
        "meta/imagelist.tsv": ["class_name/key", *keys],
        "meta/verified_train.tsv": [
            "class_name/key\tverification_label", f"{keys[3]}\t1", f"{keys[1]}\t0", "ramen/a.jpg\t0",
        ],
        "meta/verified_val.tsv": ["class_name/key\tverification_label", f"{keys[0]}\t1"],
    })  # fmt: skip


def test_food101n_says_which_labels_were_verified(food):
    source = load_food101n(food)
    assert source.y.tolist() == ["apple_pie"] * 2 + ["ramen"] * 2 and source.truth is None
    assert source.verified.tolist() == [1, 0, -1, 1] and source.names[1] == "images/apple_pie/b c.jpg"
    assert source.left_out == ["meta/verified_train.tsv: ramen/a.jpg is not in imagelist.tsv"]
    assert source.take(np.array([1, 3])).verified.tolist() == [0, 1]
    written(food, {"meta/verified_val.tsv": ["class_name/key\tverification_label", "ramen/c.jpg\tyes"]})
    with pytest.raises(InputError, match=r"must say 0 or 1 of every image, got 'yes'"):
        load_food101n(food)
    (food / "meta/imagelist.tsv").unlink()
    with pytest.raises(
        InputError, match=r"Food-101N as it was published, got .* has no 'meta/imagelist.tsv'"
    ):
        load_food101n(food)


# --- WebVision ------------------------------------------------------------------------------------


@pytest.fixture
def web(tmp_path):
    google = [f"google/q000{k}/{k}.jpg" for k in range(4)]
    photos(tmp_path, [*google, "flickr/q0001/f.jpg", "val_images_256/val0.jpg", "val_images_256/val1.jpg"])
    synsets = ["n1 tench, Tinca", "n2 crane", "n3 drake", "n4 crane, lifting device"]
    return written(tmp_path, {
        "info/synsets.txt": synsets,
        "info/train_filelist_google.txt": [f"{name} {3 - k}" for k, name in enumerate(google)],
        "info/train_filelist_flickr.txt": ["flickr/q0001/f.jpg 1"],
        "info/val_filelist.txt": ["val0.jpg 1", "val1.jpg 3"],
    })  # fmt: skip


def test_webvision_goes_by_its_lists(web):
    mini = load_webvision(web, n_classes=2)
    assert mini.names == ["google/q0002/2.jpg", "google/q0003/3.jpg"]
    assert mini.y.tolist() == ["n2 crane", "n1 tench"]
    every = load_webvision(web, "train", n_classes=None, stream=True)
    assert len(every) == 5 and every.y[0] == "n4 crane" and every.names[-1] == "flickr/q0001/f.jpg"
    val = load_webvision(web, "val", n_classes=4, image_size=8)
    assert val.names[0] == "val_images_256/val0.jpg" and val.X.shape == (2, 8, 8, 3)
    with pytest.raises(ParameterError, match=r"n_classes must be None or from 2 to 4, got 50"):
        load_webvision(web)
    with pytest.raises(ParameterError, match=r"part must be one of \('train_google', .* got 'google'"):
        load_webvision(web, "google")
    (web / "info/synsets.txt").unlink()
    with pytest.raises(InputError, match=r"WebVision as it was published, got .* has no 'info/synsets.txt'"):
        load_webvision(web)


# --- streaming ------------------------------------------------------------------------------------


def test_a_streamed_folder_is_read_when_asked_and_trains_to_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(24):
        pixels = rng.integers(0, 120, size=(12, 12, 3)) + 120 * (i % 2)
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"class{i % 2}" / f"{i}.png")
    whole, streamed = (
        load_image_folder(tmp_path, image_size=8),
        load_image_folder(tmp_path, image_size=8, stream=True),
    )
    assert streamed.X.shape == whole.X.shape and streamed.names == whole.names
    assert np.array_equal(np.stack([streamed.X[i] for i in range(24)]), whole.X)
    some = streamed.take(np.arange(0, 24, 5))
    assert np.array_equal(some.X[1], whole.X[5]) and len(some.X) == 5
    judged = [
        SmallLossSelector(max_epochs=2, random_state=0).fit(each.X, each.y).scores_
        for each in (whole, streamed)
    ]
    assert np.array_equal(*judged)
    for option in ({"backbone": "resnet18"}, {"skip_unreadable": True}):
        with pytest.raises(ParameterError, match=r"must be left out where images are streamed"):
            load_image_folder(tmp_path, stream=True, **option)
    with pytest.raises(ParameterError, match=r"image_size must be a whole number"):
        load_image_folder(tmp_path, stream=True, image_size=4)
