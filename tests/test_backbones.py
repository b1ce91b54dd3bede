"""Pictures as a network of torchvision sees them; weights are random, their files where real ones are."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import get_model, get_model_weights

from noisefilter.backbones import _without_ends, embed
from noisefilter.datasets import load, open_store
from noisefilter.errors import InputError, ParameterError

NAME = "shufflenet_v2_x0_5"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder where torch.hub keeps weights; empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch/hub/checkpoints").mkdir(parents=True)
    return tmp_path / "torch/hub/checkpoints"


def file_name(weights):
    return weights.url.rsplit("/", 1)[1]


def save(hub, name, weights=None):
    """Save a random model under the name of real weights; return it, ready for inference."""
    torch.manual_seed(0)
    model = get_model(name, weights=None).eval()
    torch.save(model.state_dict(), hub / file_name(weights or get_model_weights(name).DEFAULT))
    return model


def pictures(n, seed=0):
    rng = np.random.default_rng(seed)
    shapes = rng.integers(20, 90, (n, 2))
    return [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


def naive(model, head, images, transform):
    """The input of one layer, picture by picture."""
    seen = []
    handle = head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        for image in images:
            model(transform(image)[None])
    handle.remove()
    return torch.cat(seen)


def test_features_are_those_of_a_loop_picture_by_picture(hub):
    model, images = save(hub, NAME), pictures(70)  # three batches, the last one smaller
    asked = set()

    def read(row, side):
        asked.add(side)
        return images[row]

    X = embed(read, 70, NAME)
    transform = get_model_weights(NAME).DEFAULT.transforms()
    expected = naive(model, model.fc, images, transform).numpy()
    assert X.dtype == np.float32
    assert asked == {256}
    np.testing.assert_allclose(X, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert np.std(expected, axis=0).max() > 10 * np.abs(X - expected).max()


def test_a_convolution_as_the_last_layer_is_averaged(hub):
    model, images = save(hub, "squeezenet1_1"), pictures(3)
    X = embed(lambda row, side: images[row], 3, "squeezenet1_1", image_size=64)
    transform = get_model_weights("squeezenet1_1").DEFAULT.transforms(crop_size=64, resize_size=64)
    expected = naive(model, model.classifier[1], images, transform).mean((2, 3)).numpy()
    np.testing.assert_allclose(X, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_image_size_is_what_the_network_gets(hub):
    model, images = save(hub, NAME), pictures(2)
    X = embed(lambda row, side: images[row], 2, NAME, image_size=64)
    transform = get_model_weights(NAME).DEFAULT.transforms(crop_size=64, resize_size=64)
    expected = naive(model, model.fc, images, transform).numpy()
    np.testing.assert_allclose(X, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_what_cannot_be_read_has_no_features(hub):
    save(hub, NAME)
    images = pictures(40)
    gone = {0, 3, *range(32, 40)}
    X = embed(lambda row, side: None if row in gone else images[row], 40, NAME, image_size=32)
    assert set(np.flatnonzero(np.isnan(X).all(axis=1)).tolist()) == gone
    assert np.isfinite(np.delete(X, sorted(gone), axis=0)).all()
    assert embed(lambda row, side: None, 2, NAME, image_size=32).shape == X[:2].shape
    assert embed(lambda row, side: None, 0, NAME, image_size=32).shape == (0, X.shape[1])


def test_the_middle_of_a_very_long_picture_is_seen(hub):
    save(hub, NAME)
    long = Image.new("RGB", (60_000, 20), "blue")  # scaled as it is, it would be 770,000 pixels long
    long.paste("red", (29_000, 0, 31_000, 20))
    images = [long, long.rotate(90, expand=True), Image.new("RGB", (9, 9), "red")]
    assert [_without_ends(image).size for image in images] == [(160, 20), (20, 160), (9, 9)]
    X = embed(lambda row, side: images[row], 3, NAME)
    np.testing.assert_allclose(X[:2], X[[2, 2]], rtol=1e-3, atol=1e-6)


def test_recommended_weights_come_first_then_the_others(hub):
    weights = get_model_weights("mobilenet_v2")
    save(hub, "mobilenet_v2", weights.IMAGENET1K_V1)
    assert weights.DEFAULT is weights.IMAGENET1K_V2
    sides = []
    embed(lambda row, side: sides.append(side), 1, "mobilenet_v2")
    assert sides == [256]
    save(hub, "mobilenet_v2")
    embed(lambda row, side: sides.append(side), 1, "mobilenet_v2")
    assert sides == [256, 232]


def test_weights_that_are_not_there_are_not_fetched(hub, monkeypatch):
    monkeypatch.setattr("torch.hub.download_url_to_file", pytest.fail)
    with pytest.raises(InputError) as caught:
        embed(lambda row, side: None, 1, "resnet18")
    message = str(caught.value)
    assert f"got no file {str(hub / 'resnet18-f37072fd.pth')!r}." in message
    assert (
        "python -c \"import torchvision; torchvision.models.get_model('resnet18', weights='DEFAULT')\""
        in message
    )


@pytest.mark.parametrize(
    ("name", "close"),
    [("resnet81", "'resnet18'"), ("RESNET-18", "'resnet18'"), ("vitb16", "'vit_b_16'"), ("", "'resnet18'")],
)
def test_an_unknown_name_gets_close_ones(name, close):
    with pytest.raises(
        ParameterError, match=f"backbone must be a classifier of torchvision, such as .*{close}"
    ):
        embed(lambda row, side: None, 1, name)


def test_weights_are_never_unpickled(hub, tmp_path):
    class Bomb:
        def __reduce__(self):
            return ((tmp_path / "exploded").touch, ())

    torch.save({"fc.weight": Bomb()}, hub / file_name(get_model_weights(NAME).DEFAULT))
    with pytest.raises(
        InputError, match="must hold torchvision's weights of shufflenet_v2_x0_5, got an error"
    ):
        embed(lambda row, side: None, 1, NAME)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_files_of_something_else_are_one_sentence(hub, content):
    path = hub / file_name(get_model_weights(NAME).DEFAULT)
    if content is None:
        torch.save(get_model("squeezenet1_1", weights=None).state_dict(), path)
    else:
        path.write_bytes(content)
    with pytest.raises(
        InputError, match="must hold torchvision's weights of shufflenet_v2_x0_5, got an error"
    ) as caught:
        embed(lambda row, side: None, 1, NAME)
    assert "\n" not in str(caught.value)


def test_a_size_the_network_cannot_take_is_one_sentence(hub):
    save(hub, "squeezenet1_1")
    with pytest.raises(ParameterError, match="image_size must be a size at which squeezenet1_1 works, got 8"):
        embed(lambda row, side: None, 1, "squeezenet1_1", image_size=8)


def test_names_of_old_weights_are_understood(hub):
    path = hub / file_name(get_model_weights("densenet121").DEFAULT)
    save(hub, "densenet121")
    image = pictures(1)[0]
    expected = embed(lambda row, side: image, 1, "densenet121", image_size=32)
    state = torch.load(path, weights_only=True)
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2.") if "denselayer" in key else key: state[
            key
        ]
        for key in state
    }
    assert set(old) != set(state)
    torch.save(old, path)
    assert np.array_equal(embed(lambda row, side: image, 1, "densenet121", image_size=32), expected)


def test_a_folder_through_a_backbone(hub, tmp_path):
    model = save(hub, NAME)
    for i, image in enumerate(pictures(6)):
        (tmp_path / f"photos/{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / f"photos/{'ab'[i % 2]}/{i}.png")
    (tmp_path / "photos/a/broken.png").write_bytes(b"x")
    source = load(tmp_path / "photos", backbone=NAME, skip_unreadable=True)
    assert source.names == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"]
    assert source.kind == "images"
    assert source.left_out == ["a/broken.png"]
    assert source.description == f"6 images in photos/, as {NAME} sees them"
    images = [Image.open(tmp_path / "photos" / name) for name in source.names]
    expected = naive(model, model.fc, images, get_model_weights(NAME).DEFAULT.transforms()).numpy()
    np.testing.assert_allclose(source.X, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    with pytest.raises(InputError, match=r"1 of 7 that are not: 'a/broken\.png'"):
        load(tmp_path / "photos", backbone=NAME)


def test_arrays_through_a_backbone(hub, tmp_path):
    model = save(hub, NAME)
    X = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", X=X, y=[0, 1, 0], rows=X.reshape(3, -1))
    source = load(tmp_path / "d.npz", backbone=NAME)
    expected = naive(
        model, model.fc, map(Image.fromarray, X), get_model_weights(NAME).DEFAULT.transforms()
    ).numpy()
    np.testing.assert_allclose(source.X, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert source.store.picture(0).size == (9, 9)
    with pytest.raises(ParameterError, match="backbone must be left out for rows that are no images"):
        open_store(tmp_path / "d.npz", x_key="rows").load(backbone=NAME)


def test_a_saved_data_set_through_a_backbone(hub, tmp_path):
    datasets = pytest.importorskip("datasets")
    model, images = save(hub, NAME), pictures(3)
    columns = {"image": images, "label": [0, 1, 0]}
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"]))
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "saved")
    source = load(tmp_path / "saved", backbone=NAME)
    expected = naive(model, model.fc, images, get_model_weights(NAME).DEFAULT.transforms()).numpy()
    np.testing.assert_allclose(source.X, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert source.kind == "images"
