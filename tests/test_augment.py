"""Views of batches against views of one picture after the other."""

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as F

from noisefilter.augment import (
    OPERATIONS,
    CropFlip,
    Crops,
    SimCLRViews,
    StrongViews,
    blended,
    cropped,
    cut_out,
    default_augmentation,
    grays,
    hue_shifted,
    jittered,
    operated,
    simclr_views,
    strong_views,
)
from noisefilter.batches import ArrayRows
from noisefilter.errors import InputError


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


# --- contrastive and strong views: against torchvision, one picture after the other ----------------


def pictures(*shape, seed=1):
    return torch.rand(shape, generator=generator(seed))


def each(x, change):
    return torch.stack([change(i, picture) for i, picture in enumerate(x)])


def wide(values):
    return torch.tensor(values)


@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (30, 1, 9, 20)])
@pytest.mark.parametrize("flip", [False, True])
def test_boxes_are_cropped_and_stretched_as_by_torchvision(shape, flip):
    x = pictures(*shape)
    crops = SimCLRViews(flip=flip).crops(len(x), *shape[2:], generator())
    top, left, height, width, mirrored = (part.tolist() for part in crops)
    assert any(mirrored) == flip

    def naive(i, picture):
        view = F.resized_crop(picture, top[i], left[i], height[i], width[i], list(shape[2:]), antialias=False)
        return F.horizontal_flip(view) if mirrored[i] else view

    torch.testing.assert_close(cropped(x, crops), each(x, naive), atol=1e-4, rtol=0)
    whole = Crops(*(torch.tensor([v] * len(x)) for v in (0, 0, *shape[2:], False)))
    torch.testing.assert_close(cropped(x, whole), x, atol=1e-5, rtol=0)


def test_boxes_are_drawn_as_by_torchvision():
    top, left, height, width, mirrored = SimCLRViews().crops(20_000, 32, 32, generator())
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 32).all() and (left + width <= 32).all()
    share = height * width / 32**2
    picture = torch.empty(1, 32, 32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        boxes = [RandomResizedCrop.get_params(picture, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    theirs = torch.tensor(boxes).float()
    for own, other in ((top, 0), (left, 1), (height, 2), (width, 3)):
        assert own.float().mean().item() == pytest.approx(theirs[:, other].mean().item(), abs=0.5)
        assert own.float().std().item() == pytest.approx(theirs[:, other].std().item(), abs=0.4)
    assert share.min() > 0.17 and share.max() == 1.0
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.02)
    thin = SimCLRViews(area=(0.9, 1.0)).crops(200, 4, 40, generator())
    assert set(thin.height.tolist()) == {4} and set(thin.width.tolist()) == {5}  # no box fits: the middle
    assert set(thin.left.tolist()) == {17}


def test_colors_are_blended_as_by_torchvision():
    x, factors = pictures(6, 3, 8, 8), [0.6, 1.0, 1.4, 0.0, 0.9, 1.2]
    for kind, name in enumerate(("adjust_brightness", "adjust_contrast", "adjust_saturation")):
        expected = torch.stack([getattr(F, name)(p, f) for p, f in zip(x, factors, strict=True)])
        found = blended(x, wide(factors), torch.full((6,), kind))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(grays(x), F.rgb_to_grayscale(x), atol=1e-6, rtol=0)
    gray = pictures(6, 1, 8, 8)
    expected = each(gray, lambda i, p: F.adjust_contrast(p, factors[i]))
    torch.testing.assert_close(blended(gray, wide(factors), torch.ones(6)), expected, atol=1e-5, rtol=0)


def test_hues_are_shifted_as_by_torchvision():
    x = pictures(5, 3, 8, 8)
    x[0] = x[0, :1]  # gray: it has no hue
    x[1, :, :4] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    x[2, 0] = x[2, 1]  # two channels equal
    shifts = [0.1, -0.1, 0.05, 0.5, 0.0]
    expected = each(x, lambda i, p: F.adjust_hue(p, shifts[i]))
    torch.testing.assert_close(hue_shifted(x, wide(shifts)), expected, atol=1e-5, rtol=0)


def test_each_picture_has_its_own_order_of_colors():
    x = pictures(24, 3, 6, 6)
    jitter = SimCLRViews(jitter_share=1.0).jitter(24, generator(2))
    turns = torch.empty(24, dtype=torch.int64)
    turns[jitter.by_turn] = torch.arange(24) % 4
    assert len(set(zip(turns.tolist(), map(tuple, jitter.order.tolist()), strict=True))) > 8
    names = ("adjust_brightness", "adjust_contrast", "adjust_saturation")

    def naive(i, picture):
        steps = [(names[kind], jitter.factors[i, kind].item()) for kind in jitter.order[i].tolist()]
        steps.insert(int(turns[i]), ("adjust_hue", jitter.shift[i].item()))
        for name, amount in steps:
            picture = getattr(F, name)(picture, amount)
        return picture

    before = x.clone()
    torch.testing.assert_close(jittered(x, jitter), each(x, naive), atol=1e-4, rtol=0)
    assert torch.equal(x, before)


def test_changes_of_color_are_drawn_as_said():
    drawn = SimCLRViews().jitter(10_000, generator())
    changed = (drawn.factors != 1).any(1)
    assert changed.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (drawn.shift[~changed] == 0).all()
    assert drawn.factors.min() >= 0.6 and drawn.factors.max() <= 1.4 and drawn.shift.abs().max() <= 0.1
    assert drawn.factors[changed].std(0).tolist() == pytest.approx([0.8 / 12**0.5] * 3, abs=0.01)
    counts = torch.bincount(drawn.order[:, 0], minlength=3) / 10_000
    assert counts.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_contrastive_views_are_all_of_it_in_turn():
    x = pictures(16, 3, 16, 16) * 4 - 1
    views = SimCLRViews(-1.0, 3.0)
    g = generator()
    crops, jitter = views.crops(16, 16, 16, g), views.jitter(16, g)
    gray = torch.rand(16, generator=g) < 0.2
    expected = jittered(cropped((x + 1) / 4, crops), jitter)
    expected[gray] = grays(expected[gray]).expand(-1, 3, -1, -1)
    found = views(x, generator())
    assert 0 < gray.sum() < 16 and found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, 4 * expected - 1, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [SimCLRViews, StrongViews])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_views_follow_from_the_generator_alone(kind, channels):
    x = torch.randint(256, (9, channels, 12, 10), generator=generator(1), dtype=torch.uint8)
    state = torch.random.get_rng_state()
    one, same, other = (kind()(x, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert one.shape == x.shape and one.dtype == torch.float32
    assert one.min() >= 0 and one.max() <= 255 and one.std() > 10
    g = generator()
    assert not torch.equal(kind()(x, g), kind()(x, g))  # the second view is another


def test_values_of_black_and_white_are_those_of_the_rows():
    numbers = ArrayRows(torch.tensor([-2.0, 6.0]).repeat(3, 8, 8, 4), images=True)
    assert (simclr_views(numbers).low, simclr_views(numbers).high, simclr_views(numbers).flip) == (
        -2,
        6,
        True,
    )
    pixels = ArrayRows(torch.zeros((3, 8, 8, 1), dtype=torch.uint8), images=True)
    strong = strong_views(pixels)
    assert (strong.low, strong.high, strong.flip) == (0, 255, False)
    digits = strong_views(ArrayRows(torch.tensor([3, 16], dtype=torch.uint8).repeat(3, 8, 8, 4), images=True))
    assert (digits.low, digits.high) == (0, 16)
    assert digits(torch.full((50, 1, 8, 8), 16), generator()).max() <= 16
    even = simclr_views(ArrayRows(torch.ones(3, 8, 8, 3), images=True))
    assert torch.isfinite(even(torch.ones(2, 3, 8, 8), generator())).all()
    for views in (simclr_views, strong_views):
        with pytest.raises(InputError, match=r"X must be images.*embedding"):
            views(ArrayRows(torch.zeros(3, 5)))


def signed(size):
    return 2 * size - 1


def gray_outside(change):
    """Fill with middle gray, which torchvision would not do with one number for all modes."""
    return lambda p, size: change(p - 0.5, size) + 0.5


bilinear = {"interpolation": InterpolationMode.BILINEAR}


def moved(x, y):
    return lambda p, size: F.affine(
        p, 0.0, [-x * signed(size), -y * signed(size)], 1.0, [0.0, 0.0], **bilinear
    )


NAIVE = {
    "identity": lambda p, size: p,
    "autocontrast": lambda p, size: F.autocontrast(p),
    "brightness": lambda p, size: F.adjust_brightness(p, 0.05 + 0.9 * size),
    "color": lambda p, size: F.adjust_saturation(p, 0.05 + 0.9 * size),
    "contrast": lambda p, size: F.adjust_contrast(p, 0.05 + 0.9 * size),
    "posterize": lambda p, size: F.posterize((255 * p).round().to(torch.uint8), 4 + int(5 * size)) / 255,
    "solarize": lambda p, size: F.solarize(p, size),
    "rotate": gray_outside(lambda p, size: F.rotate(p, 30 * signed(size), **bilinear)),
    "shear_x": gray_outside(lambda p, size: sheared(p, 0.1 * signed(size), 0.0)),
    "shear_y": gray_outside(lambda p, size: sheared(p, 0.0, 0.1 * signed(size))),
    "translate_x": gray_outside(moved(1.2, 0)),
    "translate_y": gray_outside(moved(0, 1.2)),
}


def sheared(p, x, y):
    angles = [np.degrees(np.arctan(x)), np.degrees(np.arctan(y))]
    return F.affine(p, 0.0, [0, 0], 1.0, angles, **bilinear)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_torchvisions(name):
    x = pictures(7, 3, 12, 12) * 0.8
    sizes = torch.tensor([0.02, 0.2, 0.35, 0.5, 0.65, 0.85, 0.99])
    kinds = torch.full((7, 1), OPERATIONS.index(name))
    expected = each(x, lambda i, p: NAIVE[name](p, sizes[i].item()))
    found = operated(x, kinds, sizes[:, None])
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=0)


def test_operations_follow_one_another():
    x = pictures(3, 3, 12, 12)
    kinds = torch.tensor(
        [[OPERATIONS.index(name) for name in ("contrast", "solarize", "color", "posterize")]] * 3
    )
    sizes = torch.rand((3, 4), generator=generator())
    step = x
    for m in range(4):
        step = operated(step, kinds[:, m : m + 1], sizes[:, m : m + 1])
    torch.testing.assert_close(operated(x, kinds, sizes), step, atol=1e-5, rtol=0)
    # The middle of a smooth picture tells whether maps are composed in the right order.
    smooth = torch.linspace(0, 1, 40).expand(1, 1, 40, 40) * 0.5 + torch.linspace(0, 0.5, 40)[:, None]
    kinds = torch.tensor([[OPERATIONS.index(name) for name in ("translate_x", "rotate", "shear_y")]])
    sizes = torch.tensor([[1.0, 1.0, 1.0]])
    step = smooth
    for m in range(3):
        step = operated(step, kinds[:, m : m + 1], sizes[:, m : m + 1])
    middle = (slice(None), slice(None), slice(14, 26), slice(14, 26))
    assert (operated(smooth, kinds, sizes) - step)[middle].abs().max() < 1e-3
    assert (operated(smooth, kinds.flip(1), sizes) - step)[middle].abs().max() > 0.01


def test_a_square_is_cut_out_also_at_the_border():
    x = pictures(3, 2, 6, 8)
    found = cut_out(x, torch.tensor([1, -2, 5]), torch.tensor([2, -1, 7]), 3)
    expected = x.clone()
    expected[0, :, 1:4, 2:5] = 0.5
    expected[1, :, :1, :2] = 0.5
    expected[2, :, 5:, 7:] = 0.5
    assert torch.equal(found, expected)
    views = StrongViews(0.0, 1.0, n_operations=1, flip=False)(torch.ones(50, 1, 16, 16), generator())
    cut = (views == 0.5).float().sum((1, 2, 3))
    assert cut.max() >= 64 and cut.min() > 0
