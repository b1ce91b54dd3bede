"""Augmented views of a whole batch, on the device the batch lies on, from a local generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]


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
