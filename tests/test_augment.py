"""The weak view against a crop and flip of one picture after the other."""

import numpy as np
import pytest
import torch

from noisefilter.augment import CropFlip, default_augmentation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def naive(x, pad, flip):
    """Pad each picture by its border, crop at the same draws, mirror."""
    g = generator()
    b, _, h, w = x.shape
    shift = torch.randint(-pad, pad + 1, (2, b, 1), generator=g)[..., 0].tolist()
    mirrored = (torch.rand((b, 1), generator=g) < 0.5)[:, 0].tolist() if flip else [False] * b
    views = []
    for i in range(b):
        padded = np.pad(x[i].numpy(), ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        top, left = pad + shift[0][i], pad + shift[1][i]
        view = padded[:, top : top + h, left : left + w]
        views.append(view[..., ::-1] if mirrored[i] else view)
    return np.stack(views)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("shape", "padding", "pad"), [((32, 3, 32, 32), None, 4), ((20, 1, 8, 17), None, 1), ((5, 4, 6, 5), 3, 3)]
)
def test_equals_the_naive_crop(shape, padding, pad, dtype, flip):
    x = torch.randint(256, shape, generator=generator(1)).to(dtype)
    before = x.clone()
    view = CropFlip(flip, padding)(x, generator())
    assert view.dtype == dtype
    np.testing.assert_array_equal(view.numpy(), naive(x, pad, flip))
    assert torch.equal(x, before)


def test_channels_last_stays_channels_last():
    x = torch.rand(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    assert CropFlip(True)(x, generator()).is_contiguous(memory_format=torch.channels_last)


def test_half_of_the_pictures_are_flipped():
    x = torch.arange(8.0).expand(1000, 1, 8, 8)
    flipped = CropFlip(True, padding=0)(x, generator())[:, 0, 0, 0] == 7
    assert 450 < int(flipped.sum()) < 550


def test_shifts_reach_every_offset_alike():
    x = torch.arange(32.0).expand(2000, 1, 32, 32)
    offsets = CropFlip(False)(x, generator())[:, 0, 0, 16] - 16
    counts = torch.bincount((offsets + 4).long(), minlength=9)
    assert len(counts) == 9
    assert counts.min() > 150


def test_only_its_own_generator_is_used():
    state = torch.get_rng_state()
    first, second = (
        CropFlip(True)(torch.rand(4, 3, 16, 16, generator=generator(2)), generator()) for _ in "ab"
    )
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_default_choice():
    assert default_augmentation((10,)) is None
    assert default_augmentation((3, 7, 32)) is None
    color, gray = default_augmentation((3, 32, 32)), default_augmentation((1, 8, 8))
    assert isinstance(color, CropFlip)
    assert color.flip
    assert isinstance(gray, CropFlip)
    assert not gray.flip
