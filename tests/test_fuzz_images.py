"""Whatever surrounds the pixels: check and decode agree, and good pixels are read."""

import struct
import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from odd.pixels import JPEG, PNG, READ, encoded, exif, flag, jpeg_with, png_with
from PIL import Image
from test_fuzz import ANY

from xmore.images.decode import ImageRejected, check_image, decode_image

WORDS = st.sampled_from([b"Exif\0\0", b"II*\0", b"MM\0*", struct.pack("<I", 8), b"\x12\x01\x03\0"])
BLOCKS = st.lists(st.binary(max_size=12) | WORDS, max_size=8).map(b"".join)
UPRIGHT = {"JPEG": decode_image(JPEG), "PNG": decode_image(PNG)}


def verdicts(data: bytes) -> list[str | None]:
    """The cause of check_image, and of decode_image; None if it accepts. No other exception."""
    found: list[str | None] = []
    for look in (check_image, decode_image):
        try:
            look(data, 10_000)
            found.append(None)
        except ImageRejected as rejected:
            found.append(rejected.cause)
    return found


def same_pixels(data: bytes, kind: str) -> bool:
    """Whether an image is the flag, turned in some way."""
    pixels, upright = np.asarray(decode_image(data)), np.asarray(UPRIGHT[kind])
    turned = [np.rot90(side, turns) for side in (upright, upright[:, ::-1]) for turns in range(4)]
    return any(np.array_equal(pixels, other) for other in turned)


@ANY
@given(BLOCKS, st.binary(max_size=4))
def test_any_exif_block(block, orientation):
    whole = exif(6)[6:]
    for body in (block, whole[: len(block)] + block, whole[:-6] + orientation):
        jpeg, png = jpeg_with(0xE1, b"Exif\0\0" + body), png_with(b"eXIf", body)
        for data, kind in ((jpeg, "JPEG"), (png, "PNG")):
            assert verdicts(data) == [None, None]
            assert same_pixels(data, kind)
        for kind, options in (("WEBP", {"lossless": True}), ("TIFF", {})):
            try:
                with warnings.catch_warnings(action="ignore"):
                    data = encoded(flag(), kind, exif=body, **options)
            except Exception:  # Pillow's writers read the block first
                continue
            assert verdicts(data) == [None, None] and same_pixels(data, "PNG")


@ANY
@given(st.sampled_from([b"eXIf", b"iTXt", b"zTXt", b"tEXt", b"iCCP", b"pHYs", b"acTL"]), BLOCKS)
def test_any_chunk_of_a_png(kind, body):
    starts = {b"iTXt": b"XML:com.adobe.xmp\0", b"zTXt": b"Raw profile type exif\0"}
    for data in (png_with(kind, body), png_with(kind, starts.get(kind, b"") + body)):
        assert verdicts(data) == [None, None]
        assert same_pixels(data, "PNG")


@ANY
@given(st.integers(0xE0, 0xEF) | st.just(0xFE), BLOCKS)
def test_any_block_of_a_jpeg(marker, body):
    for start in (b"", b"JFIF\0", b"ICC_PROFILE\0", b"MPF\0", b"Photoshop 3.0\0008BIM"):
        data = jpeg_with(marker, start + body)
        assert verdicts(data) == [None, None]
        assert same_pixels(data, "JPEG")


@ANY
@given(st.sampled_from(sorted(READ)), st.data())
def test_damage_anywhere(name, choices):
    data = bytearray(READ[name][:20_000])
    for _ in range(choices.draw(st.integers(1, 6))):
        data[choices.draw(st.integers(0, len(data) - 1))] = choices.draw(st.integers(0, 255))
    check, decode = verdicts(bytes(data))
    assert check == decode


@ANY
@given(st.integers(0, 9), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]))
def test_orientations(orientation, kind):
    data = encoded(flag(), kind, exif=exif(orientation))
    size = (20, 40) if 5 <= orientation <= 8 else (40, 20)
    assert decode_image(data).size == size
    red_last = orientation in (2, 3, 7, 8)  # by the standard's table of the 0th row and column
    first = Image.Image.getpixel(decode_image(data), (2, 2))
    assert (first[2] > 200) == red_last
