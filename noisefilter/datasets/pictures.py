"""Pictures, wherever they come from: upright, in RGB, as squares, thumbnails or embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noisefilter.errors import ParameterError
from noisefilter.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["formats", "on_white", "read_all", "thumbnail"]

DEFAULT_SIZE = 32  # suits the default network and two CPU cores
# What a file may really be, whatever its name says. Not EPS: Pillow would run Ghostscript on it.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP")


def formats() -> list[str]:
    """Return the formats that this Pillow can read and that are opened."""
    from PIL import Image

    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]  # AVIF is young


def read_all(
    opened: Callable[[int], Image],
    n: int,
    *,
    backbone: str | None = None,
    image_size: int | None = None,
    verbose: bool = False,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Decode pictures, several at a time.

    Parameters
    ----------
    opened : callable
        Opens picture ``i`` of ``n``; may raise anything.
    n : int
        Number of pictures.
    backbone : str, optional
        Return what this network of torchvision sees in them, not their pixels.
    image_size : int, optional
        Side of the squares in pixels, at least 8. 32 by default; for a backbone, what its weights ask for.
    verbose : bool, default=False
        Show a progress bar where it takes long.

    Returns
    -------
    (m, image_size, image_size, 3) uint8 or (m, d) float32 array
        The pictures that could be read, in order.
    (n,) bool array
        Which those are.

    Raises
    ------
    ParameterError
        If ``image_size`` is not a whole number of at least 8, or the backbone does not exist.
    InputError
        If the weights of the backbone are not on this machine.
    """
    check_size(image_size)
    read = np.ones(n, dtype=bool)

    def tried(row: int, view: Callable[[Image], Any]) -> Any:
        try:
            with opened(row) as image:
                return view(image)
        except Exception:  # Pillow's readers raise far more than OSError on broken files
            read[row] = False
            return None

    X: NDArray[Any]
    if backbone is not None:
        from noisefilter.backbones import embed

        X = embed(
            lambda row, side: tried(row, lambda image: upright(image, side)),
            n,
            backbone,
            image_size=image_size,
            verbose=verbose,
        )
    else:
        X = _squares(tried, n, image_size or DEFAULT_SIZE, verbose)
    return (X if read.all() else X[read]), read


def check_size(image_size: int | None) -> None:
    """Raise ParameterError unless images can have this side."""
    if image_size is not None and (not isinstance(image_size, int) or image_size < 8):
        raise ParameterError(f"image_size must be a whole number of at least 8 pixels, got {image_size!r}.")


def _squares(
    tried: Callable[[int, Callable[[Image], Any]], Any], n: int, size: int, verbose: bool
) -> NDArray[np.uint8]:
    squares = np.zeros((n, size, size, 3), dtype=np.uint8)

    def fill(row: int) -> None:
        pixels = tried(row, lambda image: square(image, size))
        if pixels is not None:
            squares[row] = pixels

    # Threads are enough: Pillow lets go of the interpreter lock.
    with (
        ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as threads,
        Progress(f"reading {n:,} images", n, verbose) as progress,
    ):
        for _ in threads.map(fill, range(n)):
            progress.step()
    return squares


def square(image: Image, size: int) -> NDArray[np.uint8]:
    """Return the central square of an opened image as (size, size, 3) uint8."""
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(upright(image, size), (size, size), method=Image.Resampling.BICUBIC)
    return np.asarray(fitted, dtype=np.uint8)


def upright(image: Image, side: int) -> Image:
    """Return an opened image turned by its EXIF tag, in RGB; its short side may shrink to ``side``."""
    from PIL import ImageOps

    image.draft(None, (2 * side, 2 * side))  # a large JPEG is decoded at the scale that is needed
    return on_white(ImageOps.exif_transpose(image))


def on_white(image: Image) -> Image:
    """Return an image in RGB: transparency on white, 16-bit gray scaled to 8 bits."""
    from PIL import Image

    if image.mode.startswith("I"):  # convert("RGB") would clip every value above 255 to white
        gray = np.asarray(image).astype(np.int64)
        if gray.min() < 0 or gray.max() > 65535:
            raise ValueError("32-bit gray has no known range")
        return Image.fromarray((gray // 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point gray has no known range")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", pixels.size, "white"), pixels).convert("RGB")
    return image.convert("RGB")


def thumbnail(image: Image, side: int) -> Image:
    """Return an opened image, whole, in RGB, its longer side at most ``side`` pixels."""
    small = upright(image, side)
    small.thumbnail((side, side))
    return small
