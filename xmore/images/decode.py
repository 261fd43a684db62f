"""Decoding of untrusted images within bounds: an RGB image, or the cause of its rejection."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"}
)
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # no PostScript
MAX_PIXELS = 100_000_000  # 300 MB as RGB; the largest photo that a camera commonly writes


class ImageRejected(Exception):
    """An image cannot be used; `cause` is one of a few fixed phrases, so that it can be counted."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode bytes to an upright RGB image; transparency becomes white.

    Only the first frame of an animation is read. Raises ImageRejected: `empty file`, `not an
    image`, `too many pixels` (read from the header, before any pixel is decoded) or `truncated or
    damaged`.
    """
    image = _open(data, max_pixels)
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return _as_rgb(image)
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        raise ImageRejected("truncated or damaged") from error


def check_image(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageRejected as `decode_image` does; for JPEG at a fraction of its cost."""
    image = _open(data, max_pixels)
    try:
        image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except Exception as error:
        raise ImageRejected("truncated or damaged") from error


def read_image(path: Path) -> bytes:
    """Return the bytes of a file. Raises ImageRejected (`no such file`, `unreadable file`)."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageRejected("no such file") from error
    except OSError as error:
        raise ImageRejected("unreadable file") from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageRejected("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's bomb warning: `max_pixels` is the bound
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageRejected("too many pixels") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageRejected("not an image") from error
    if image.width * image.height > max_pixels:
        raise ImageRejected("too many pixels")
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        grey = np.asarray(image, dtype=np.float64)
        scale = 255.0 / 65535.0 if image.mode.startswith("I") else 1.0
        return Image.fromarray((grey * scale).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
