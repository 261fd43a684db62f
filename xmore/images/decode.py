"""Decoding of untrusted images within bounds: an RGB image, or the cause of its rejection."""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from xmore.files.errors import is_shortage
from xmore.images.strip import bare

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif"}
    | {".tif", ".tiff", ".ppm"}
)
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")  # no PostScript
FIRST_BYTES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
MAX_PIXELS = 100_000_000  # 300 MB as RGB; the largest photo that a camera commonly writes
MAX_BYTES = 1 << 30  # more than so many pixels take in any format
MAX_RATIO = 1000  # of the sides: models scale the short one up, and the long one with it
DAMAGED = "truncated or damaged"
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageRejected(Exception):
    """An image cannot be used; `cause` is one of a few fixed phrases, so that it can be counted."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode bytes to an upright RGB image; transparency becomes white.

    Only the first frame of an animation is read; EXIF and XMP only turn the image. Raises
    ImageRejected: `empty file`, `not an image`, `too many pixels` (read from the header, before
    any pixel is decoded), `too narrow`, `truncated or damaged`, or a kind of pixels whose black
    and white are not known (`floating-point pixels`, ...).
    """
    return _decoded(data, max_pixels, draft=False)


def check_image(data: bytes, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageRejected as `decode_image` does; for JPEG at a fraction of its cost."""
    _decoded(data, max_pixels, draft=True)


def read_image(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises ImageRejected: `no such file`, `unreadable file` (also what is no plain file: to open a
    pipe would wait for ever) or `too many bytes`.
    """
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise ImageRejected("unreadable file")
        if facts.st_size > MAX_BYTES:
            raise ImageRejected("too many bytes")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageRejected("no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a null byte
        if is_shortage(error):
            raise
        raise ImageRejected("unreadable file") from error


def begins_as_image(path: Path) -> bool:
    """Return whether the first bytes of a file are those of an image, for one without a suffix."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return False
    return head.startswith(FIRST_BYTES) or head[8:12] == b"WEBP" or head[4:12] == b"ftypavif"


def _decoded(data: bytes, max_pixels: int, draft: bool) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's of bombs and of odd blocks: they are handled
        image = _open(data, max_pixels)
        turn = _turn(image)
        try:
            if draft:
                image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                vars(image)["load_end"] = lambda: None  # it would turn, and fail on bad EXIF
            image.load()
            return _as_rgb(image if turn is None else image.transpose(turn))
        except Exception as error:  # Pillow's decoders raise almost anything on damaged data
            raise ImageRejected(DAMAGED) from error


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageRejected("empty file")
    pixels, info = bare(data)
    try:
        image = Image.open(io.BytesIO(pixels), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageRejected("too many pixels") from error
    except Exception as error:
        raise ImageRejected("not an image") from error
    if image.width * image.height > max_pixels:
        raise ImageRejected("too many pixels")
    if not min(image.size):
        raise ImageRejected("not an image")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise ImageRejected("too narrow")
    if cause := _unscaled(image):
        raise ImageRejected(cause)
    image.info.update(info)
    return image


def _unscaled(image: Image.Image) -> str | None:
    """Return the kind of pixels whose black and white are not known, or not to Pillow."""
    if image.mode == "F":
        return "floating-point pixels"
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return None
    if image.mode == "I":  # PPM's are of 16 bits
        return "signed or 32-bit pixels"
    return "12-bit pixels" if image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE) == (12,) else None


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Return how EXIF or XMP turn an image. Damaged ones do not."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises almost anything on damaged data
        return None


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 instead of scaling it.
        grey = np.asarray(image, dtype=np.float64)
        scaled = (grey * (255.0 / 65535.0)).round().clip(0, 255).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):
            scaled[grey == clear] = 255
        return Image.fromarray(scaled).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
