"""Augmented views of a whole batch, on the device the batch lies on, from a local generator."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from noisefilter.batches import Rows, in_blocks
from noisefilter.errors import InputError

__all__ = [
    "Augment",
    "CropFlip",
    "Crops",
    "Jitter",
    "SimCLRViews",
    "StrongViews",
    "blended",
    "cropped",
    "cut_out",
    "default_augmentation",
    "grays",
    "hue_shifted",
    "jittered",
    "mapped",
    "operated",
    "simclr_views",
    "strong_views",
]

Augment = Callable[[Tensor, torch.Generator], Tensor]
_LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue, as in torchvision
_TRIES = 10  # at a crop, as in torchvision


class CropFlip:
    """Weak view: a random crop of the picture padded by ``padding`` pixels, and a horizontal flip.

    Pad 4 and crop for 32x32 images, as in DivideMix, Jo-SRC and INN; pictures of other sizes are
    padded by an eighth of their shorter side. Padding repeats the border's pixels: zeros would be a
    color of their own, because images come in unstandardized.

    Parameters
    ----------
    flip : bool
        Flip half of the pictures. Leave it out where a mirrored picture is another class, as with
        digits and letters.
    padding : int, optional
        Pixels to shift by at most, in each direction.
    """

    def __init__(self, flip: bool, padding: int | None = None):
        self.flip = flip
        self.padding = padding

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the view of images (b, c, h, w), in the same dtype, channels-last in memory."""
        b, _, h, w = x.shape
        pad = min(h, w) // 8 if self.padding is None else self.padding
        device = generator.device
        shift = torch.randint(-pad, pad + 1, (2, b, 1), generator=generator, device=device)
        rows = (torch.arange(h, device=device) + shift[0]).clamp_(0, h - 1)  # (b, h)
        columns = (torch.arange(w, device=device) + shift[1]).clamp_(0, w - 1)  # (b, w)
        if self.flip:
            mirrored = torch.rand((b, 1), generator=generator, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        rows, columns = rows.to(x.device), columns.to(x.device)
        # One gather in channels-last order: (b, h, w, c), seen as (b, c, h, w) without a copy.
        picked = x.permute(0, 2, 3, 1)[
            torch.arange(b, device=x.device)[:, None, None], rows[:, :, None], columns[:, None, :]
        ]
        return picked.permute(0, 3, 1, 2)


def default_augmentation(shape: tuple[int, ...]) -> Augment | None:
    """Choose the augmentation for rows of this shape, ``None`` for tables.

    Images are shifted; only color pictures are flipped, since single-channel ones are so often
    glyphs. Pictures below 8 pixels are left alone.
    """
    if len(shape) == 1 or min(shape[1:]) < 8:
        return None
    return CropFlip(flip=shape[0] >= 3)


# --- contrastive and strong views -----------------------------------------------------------------


class Crops(NamedTuple):
    """A box for each picture, in pixels, (b,) each; ``mirrored`` says whether it is flipped."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor


class Jitter(NamedTuple):
    """How the colors of each picture change.

    Attributes
    ----------
    factors : (b, 3) Tensor
        Of brightness, contrast and saturation; 1 changes nothing.
    shift : (b,) Tensor
        Of the hue, in turns.
    order : (b, 3) Tensor
        In which order the three are applied.
    by_turn : (b,) Tensor
        Rows 0, 4, 8, ... of this permutation have their hue shifted before the three, the next ones behind
        the first of them, and so on. Groups of a size known beforehand are what a GPU need not be asked for.
    """

    factors: Tensor
    shift: Tensor
    order: Tensor
    by_turn: Tensor


class SimCLRViews:
    """Contrastive views: a random part of the picture at full size, mirrored or not, in other colors.

    The views of SimCLR (T. Chen et al., ICML 2020, arXiv:2002.05709, appendix A) without blur, as for
    CIFAR-10. Every picture of a batch has a transform of its own, and the whole batch is one operation. Boxes
    are drawn as torchvision's ``RandomResizedCrop`` draws them, with an aspect ratio from 3/4 to 4/3; the
    four changes of color come in random order, that of the hue equally often in each place. A picture that
    does not have three channels has no hue, and its saturation is how far its channels are from their mean.

    Parameters
    ----------
    low, high : float, default=0, 255
        Values of black and white.
    area : (float, float), default=(0.2, 1.0)
        Share of the picture that is seen, in (0, 1].
    flip : bool, default=True
        Mirror half of the pictures.
    brightness, contrast, saturation : float, default=0.4
        Factors are drawn from 1 - this to 1 + this; in [0, 1].
    hue : float, default=0.1
        Shifts are drawn from minus this to this, in turns; in [0, 0.5].
    jitter_share, gray_share : float, default=0.8, 0.2
        Share of the pictures whose colors change, and of those that lose them.
    """

    def __init__(
        self,
        low: float = 0.0,
        high: float = 255.0,
        *,
        area: tuple[float, float] = (0.2, 1.0),
        flip: bool = True,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        jitter_share: float = 0.8,
        gray_share: float = 0.2,
    ):
        self.low = low
        self.high = high
        self.area = area
        self.flip = flip
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.hue = hue
        self.jitter_share = jitter_share
        self.gray_share = gray_share

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return views of images (b, c, h, w) in float32, channels-last in memory."""
        b, _, h, w = x.shape
        crops = self.crops(b, h, w, generator)
        jitter = self.jitter(b, generator)
        gray = torch.rand(b, generator=generator, device=generator.device) < self.gray_share
        unit = (x.float() - self.low) / (self.high - self.low)
        unit = jittered(cropped(unit, crops), jitter)
        unit = torch.where(_wide(gray, x), grays(unit), unit)
        return _stretched(unit, self.low, self.high)

    def crops(self, b: int, h: int, w: int, generator: torch.Generator) -> Crops:
        """Draw boxes: the first of ten tries that fits, else the middle."""
        device = generator.device
        area = _uniform((b, _TRIES), *self.area, generator) * (h * w)
        ratio = _uniform((b, _TRIES), math.log(3 / 4), math.log(4 / 3), generator).exp()
        width, height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (width > 0) & (width <= w) & (height > 0) & (height <= h)
        first = fits.int().argmax(1, keepdim=True)
        whole = fits.any(1)
        width = torch.where(whole, width.gather(1, first)[:, 0], min(w, round(h * 4 / 3))).long()
        height = torch.where(whole, height.gather(1, first)[:, 0], min(h, round(w * 4 / 3))).long()
        free_h, free_w = h - height, w - width
        place = torch.rand((2, b), generator=generator, device=device)
        top = torch.where(whole, (place[0] * (free_h + 1)).long(), free_h // 2)
        left = torch.where(whole, (place[1] * (free_w + 1)).long(), free_w // 2)
        mirrored = torch.rand(b, generator=generator, device=device) < (0.5 if self.flip else 0.0)
        return Crops(top, left, height, width, mirrored)

    def jitter(self, b: int, generator: torch.Generator) -> Jitter:
        """Draw changes of color."""
        device = generator.device
        spread = _constants(device, self.brightness, self.contrast, self.saturation)
        chosen = torch.rand(b, generator=generator, device=device) < self.jitter_share
        factors = 1.0 + spread * _uniform((b, 3), -1.0, 1.0, generator)
        shift = self.hue * _uniform((b,), -1.0, 1.0, generator)
        order = torch.rand((b, 3), generator=generator, device=device).argsort(1)
        by_turn = torch.randperm(b, generator=generator, device=device)
        return Jitter(
            torch.where(chosen[:, None], factors, 1.0), torch.where(chosen, shift, 0.0), order, by_turn
        )


class StrongViews:
    """Strong views: four operations drawn from twelve, a mirror image or not, and a square cut out.

    After RandAugment (E. D. Cubuk et al., NeurIPS 2020, arXiv:1909.13719) and Cutout (T. DeVries & G. W.
    Taylor, 2017, arXiv:1708.04552), as SCAN looks at rows. Each operation is one of: nothing; stretched
    contrast; brightness, color or contrast times 0.05 to 0.95; 4 to 8 bits a channel; values above a
    threshold inverted; rotation up to 30 degrees; sheared in x or y up to 0.1; moved in x or y by up to a
    tenth of the size. Each picture has its own, the same one may come twice.

    A subset, and not the same to the pixel: equalizing and sharpening are left out; rotations, shears and
    moves of a picture are one map about its middle, done first and interpolated once; what lies outside is
    gray, not black.

    Parameters
    ----------
    low, high : float, default=0, 255
        Values of black and white.
    n_operations : int, default=4
        Operations per picture.
    cutout : float, default=0.5
        Side of the square that is made gray, as a share of the shorter side of the picture: 16 of 32 pixels.
        Its middle may be anywhere in the picture.
    flip : bool, default=True
        Mirror half of the pictures.
    """

    def __init__(
        self,
        low: float = 0.0,
        high: float = 255.0,
        *,
        n_operations: int = 4,
        cutout: float = 0.5,
        flip: bool = True,
    ):
        self.low = low
        self.high = high
        self.n_operations = n_operations
        self.cutout = cutout
        self.flip = flip

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return views of images (b, c, h, w) in float32, channels-last in memory."""
        b, _, h, w = x.shape
        device = generator.device
        kinds = torch.randint(len(OPERATIONS), (b, self.n_operations), generator=generator, device=device)
        sizes = torch.rand((b, self.n_operations), generator=generator, device=device)
        mirrored = torch.rand(b, generator=generator, device=device) < (0.5 if self.flip else 0.0)
        middle = torch.rand((2, b), generator=generator, device=device)
        unit = (x.float() - self.low) / (self.high - self.low)
        unit = operated(torch.where(_wide(mirrored, x), unit.flip(3), unit), kinds, sizes)
        side = round(self.cutout * min(h, w))
        corners = (middle * _constants(device, h, w)[:, None]).long() - side // 2
        return _stretched(cut_out(unit, corners[0], corners[1], side), self.low, self.high)


def simclr_views(rows: Rows) -> SimCLRViews:
    """Return the contrastive views for rows like these; single-channel pictures are not mirrored.

    Raises
    ------
    InputError
        If rows are no images.
    """
    low, high = _range(rows)
    return SimCLRViews(low, high, flip=rows.shape[0] >= 3)


def strong_views(rows: Rows) -> StrongViews:
    """Return the strong views for rows like these; single-channel pictures are not mirrored.

    Raises
    ------
    InputError
        If rows are no images.
    """
    low, high = _range(rows)
    return StrongViews(low, high, flip=rows.shape[0] >= 3)


def _range(rows: Rows) -> tuple[float, float]:
    """Return the values of black and white: the least (of bytes 0) and the greatest there are.

    Bytes may end far below 255, as those of scanned digits do: gray would be whiter than any of them.
    """
    if len(rows.shape) != 3:
        raise InputError(
            f"X must be images, as there are no published views of other rows, got rows of shape "
            f"{tuple(rows.shape)}. Pass views= of your own, or use an embedding of the rows as it is."
        )
    ends = torch.stack([torch.stack(rows.take(index).aminmax()) for index in in_blocks(rows)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    if ends.dtype == torch.uint8:
        return 0.0, high or 255.0
    return low, high if high > low else low + 1.0


# --- what is done to pictures (b, c, h, w) with values in [0, 1] ----------------------------------


def cropped(x: Tensor, crops: Crops) -> Tensor:
    """Return the boxes, mirrored or not, each stretched to the size of the picture, bilinearly.

    A box has nothing but itself: at its border its own pixels are repeated.
    """
    rows = _sources(x.shape[2], crops.top, crops.height, torch.zeros_like(crops.mirrored))
    columns = _sources(x.shape[3], crops.left, crops.width, crops.mirrored)
    # As grid_sample has it, -1 and 1 are the outer edges of the picture.
    y = (2.0 * rows + 1.0) / x.shape[2] - 1.0  # (b, h)
    z = (2.0 * columns + 1.0) / x.shape[3] - 1.0  # (b, w)
    grid = torch.stack(torch.broadcast_tensors(z[:, None, :], y[:, :, None]), dim=-1)
    return grid_sample(x, grid.to(x.device), padding_mode="border", align_corners=False)


def _sources(size: int, start: Tensor, length: Tensor, mirrored: Tensor) -> Tensor:
    """Return where `size` pixels come from, (b, size), when `length` pixels from `start` on are stretched."""
    place = torch.arange(size, device=start.device) + 0.5
    place = torch.where(mirrored[:, None], size - place, place)
    within = place * (length[:, None] / size) - 0.5
    return start[:, None] + torch.minimum(within.clamp_min(0.0), (length[:, None] - 1).float())


def jittered(x: Tensor, jitter: Jitter) -> Tensor:
    """Return pictures with their brightness, contrast, saturation and hue changed, each in its own order."""
    factors, shift, order, by_turn = (part.to(x.device) for part in jitter)
    turn = torch.empty_like(by_turn)
    turn[by_turn] = torch.arange(len(x), device=x.device) % 4
    for step in range(4):
        place = (step - (turn < step).long()).clamp_max(2)
        kind = order.gather(1, place[:, None])[:, 0]
        own = factors.gather(1, kind[:, None])[:, 0]
        x = blended(x, torch.where(turn == step, 1.0, own), kind)
        if x.shape[1] == 3:
            rows = by_turn[step::4]
            x[rows] = hue_shifted(x[rows], shift[rows])
    return x


def blended(x: Tensor, factor: Tensor, kind: Tensor) -> Tensor:
    """Return ``factor * x + (1 - factor) * other``, in [0, 1], for factors and kinds (b,).

    The other is black for kind 0, brightness; the mean of the gray picture for kind 1, contrast; the gray
    picture for kind 2, saturation.
    """
    gray = grays(x)
    mean = gray.mean(dim=(2, 3), keepdim=True)
    other = torch.where(_wide(kind == 2, x), gray, mean) * _wide(kind != 0, x)
    factor = _wide(factor, x)
    return (factor * x + (1.0 - factor) * other).clamp_(0.0, 1.0)


def grays(x: Tensor) -> Tensor:
    """Return the gray pictures (b, 1, h, w), the mean of the channels where there are not three."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = _LUMA
    return red * x[:, :1] + green * x[:, 1:2] + blue * x[:, 2:]


@lru_cache(maxsize=64, typed=True)
def _constants(device: torch.device, *values: float) -> Tensor:
    """Return numbers (len(values),) on a device; a copy for each batch would be a wait for it."""
    with torch.inference_mode(False):  # what is made inside can be used outside
        return torch.tensor(values, device=device)


def hue_shifted(x: Tensor, shift: Tensor) -> Tensor:
    """Return pictures of three channels with their hue shifted by (b,) turns, lightness and chroma kept."""
    high, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    chroma = high - low
    red, green, blue = x[:, :1], x[:, 1:2], x[:, 2:]
    sixth = torch.where(
        high == red, green - blue, torch.where(high == green, blue - red, red - green)
    ) / chroma.clamp_min(torch.finfo(x.dtype).tiny)
    sixth = sixth + torch.where(high == red, 0.0, torch.where(high == green, 2.0, 4.0))
    place = _constants(x.device, 5.0, 3.0, 1.0)[:, None, None]
    k = (sixth + 6.0 * _wide(shift, x) + place) % 6.0  # (b, 3, h, w)
    return high - chroma * torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)


OPERATIONS = (
    "identity",
    "autocontrast",
    "brightness",
    "color",
    "contrast",
    "posterize",
    "solarize",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)


def operated(x: Tensor, kinds: Tensor, sizes: Tensor) -> Tensor:
    """Return pictures after m operations each: numbers (b, m) in ``OPERATIONS``, sizes (b, m) in [0, 1)."""
    kinds, sizes = kinds.to(x.device), sizes.to(x.device)
    x = mapped(x, *_maps(kinds, sizes, x.shape[2], x.shape[3]))
    for kind, size in zip(kinds.T, sizes.T, strict=True):
        x = _recolored(x, kind, size)
    return x


def mapped(x: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Return pictures whose pixel p shows what was at ``matrix @ p + offset``, from the middle, gray outside.

    Matrices (b, 2, 2) and offsets (b, 2) of (x, y) in pixels; bilinear.
    """
    size = _constants(x.device, x.shape[3], x.shape[2])
    theta = torch.cat(
        [matrix * (size / size[:, None]), 2.0 * offset[:, :, None] / size[:, None]], dim=2
    )  # (b, 2, 3): in halves of the picture
    grid = torch.nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return grid_sample(x - 0.5, grid, align_corners=False) + 0.5


def _maps(kinds: Tensor, sizes: Tensor, h: int, w: int) -> tuple[Tensor, Tensor]:
    """Return the matrices (b, 2, 2) and offsets (b, 2) of all operations of each picture, one by one."""
    signed = 2.0 * sizes - 1.0

    def amount(name: str, most: float) -> Tensor:
        return torch.where(kinds == OPERATIONS.index(name), most * signed, 0.0)

    angle = amount("rotate", math.pi / 6)
    matrices = torch.stack(
        [
            torch.stack([angle.cos(), amount("shear_x", 0.1) - angle.sin()], dim=-1),
            torch.stack([amount("shear_y", 0.1) + angle.sin(), angle.cos()], dim=-1),
        ],
        dim=-2,
    )  # (b, m, 2, 2); at most one of the amounts is not 0
    offsets = torch.stack([amount("translate_x", 0.1 * w), amount("translate_y", 0.1 * h)], dim=-1)
    matrix, offset = matrices[:, 0], offsets[:, 0]
    for step in range(1, kinds.shape[1]):
        offset = offset + (matrix @ offsets[:, step, :, None])[:, :, 0]
        matrix = matrix @ matrices[:, step]
    return matrix, offset


def _recolored(x: Tensor, kind: Tensor, size: Tensor) -> Tensor:
    """Do one operation on the colors of each picture; those of other operations stay as they are."""

    def chosen(name: str) -> Tensor:
        return kind == OPERATIONS.index(name)

    blends = [chosen(name) for name in ("brightness", "contrast", "color")]
    factor = torch.where(blends[0] | blends[1] | blends[2], 0.05 + 0.9 * size, 1.0)
    x = blended(x, factor, blends[1].long() + 2 * blends[2].long())
    step = _wide(torch.exp2(4.0 - (5.0 * size).floor()), x)  # 8 to 4 bits
    levels = (x * 255.0).round()
    x = torch.where(_wide(chosen("posterize"), x), (levels / step).floor() * step / 255.0, x)
    x = torch.where(_wide(chosen("solarize"), x) & (x >= _wide(size, x)), 1.0 - x, x)
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretches = _wide(chosen("autocontrast"), x) & (high > low)
    return torch.where(stretches, (x - low) / (high - low), x)


def cut_out(x: Tensor, top: Tensor, left: Tensor, side: int) -> Tensor:
    """Return pictures with a gray square whose first corners are given, (b,); they may lie outside."""
    rows = torch.arange(x.shape[2], device=top.device) - top[:, None]
    columns = torch.arange(x.shape[3], device=left.device) - left[:, None]
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
    return x.masked_fill(inside[:, None].to(x.device), 0.5)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Return values (b,) as (b, 1, 1, 1), where the pictures are."""
    return values.to(x.device)[:, None, None, None]


def _stretched(unit: Tensor, low: float, high: float) -> Tensor:
    return (low + (high - low) * unit).contiguous(memory_format=torch.channels_last)
