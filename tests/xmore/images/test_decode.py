import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd.pixels import PNG as FLAG
from odd.pixels import READ, REJECTED, XMP, exif, png_chunk, png_with
from PIL import Image

from xmore.images.decode import ImageRejected, check_image, decode_image, read_image


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode="RGB", size=(40, 24)):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), np.uint8)
    return Image.fromarray(pixels.squeeze(), mode)


def png_header(width, height):
    """A PNG of 8-bit RGB that claims a size and has no pixels to speak of."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def half_red_palette():
    """Left: red and opaque. Right: index 1, transparent."""
    image = Image.fromarray(np.repeat([[0, 1]], 16, 0).repeat(8, 1).astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    return encoded(image, "PNG", transparency=1)


def sideways():
    """Stored 40 x 20 with red on the left; EXIF 6 says: turn a quarter clockwise to view."""
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[274] = 6
    return encoded(image, "JPEG", exif=exif, quality=95)


def animation():
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("lime", "red", "blue")]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def grey16(*values):
    return encoded(Image.fromarray(np.array([values], np.uint16)), "PNG")


JPEG, PNG = encoded(noise(), "JPEG"), encoded(noise(), "PNG")
BAD = {
    "zero bytes": (b"", "empty file"),
    "text": (b"<html>404 not found</html>", "not an image"),
    "JPEG of two bytes": (JPEG[:2], "not an image"),
    "JPEG cut in half": (JPEG[: len(JPEG) // 2], "truncated or damaged"),
    "PNG cut in half": (PNG[: len(PNG) // 2], "truncated or damaged"),
    "PNG without pixels": (png_header(8, 8), "truncated or damaged"),
    "PNG claiming 30000 x 30000": (png_header(30_000, 30_000), "too many pixels"),
    "PNG claiming 11000 x 11000": (png_header(11_000, 11_000), "too many pixels"),
}
# name -> bytes, size as (width, height), {(x, y): RGB}
GOOD = {
    "1 x 1 PNG": (encoded(Image.new("RGB", (1, 1), "red"), "PNG"), (1, 1), {(0, 0): (255, 0, 0)}),
    "palette with alpha": (
        half_red_palette(), (16, 16), {(2, 2): (255, 0, 0), (12, 2): (255, 255, 255)}),
    "RGBA on white": (  # 102 / 255 = 0.4 of black: 255 * 0.6
        encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 102)), "PNG"), (8, 8),
        {(4, 4): (153, 153, 153)}),
    "grey with alpha": (
        encoded(Image.new("LA", (8, 8), (0, 0)), "PNG"), (8, 8), {(4, 4): (255, 255, 255)}),
    "CMYK": (
        encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100), (16, 16),
        {(8, 8): (255, 0, 0)}),
    "16-bit grey": (grey16(0, 32896, 65535), (3, 1), {  # 257 * v is v of 8 bits
        (0, 0): (0, 0, 0), (1, 0): (128, 128, 128), (2, 0): (255, 255, 255)}),
    "EXIF-rotated": (sideways(), (20, 40), {(10, 5): (254, 0, 0), (10, 35): (0, 0, 254)}),
    "animation": (animation(), (9, 9), {(4, 4): (0, 255, 0)}),
    "1-bit": (encoded(Image.new("1", (9, 9), 1), "PNG"), (9, 9), {(4, 4): (255, 255, 255)}),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_decodes_to_upright_rgb(name):
    data, size, pixels = GOOD[name]
    image = decode_image(data)
    check_image(data)
    assert (image.mode, image.size) == ("RGB", size)
    for at, colour in pixels.items():
        assert np.abs(np.subtract(image.getpixel(at), colour)).max() <= 2, at


# odd.pixels' images begin with a red pixel, but for these
BEGINS = {
    "1 bit.png": (0, 0, 0),
    "grey and clear.png": (76, 76, 76),
    "16 bits, one clear.png": (255, 255, 255),
    "16 bits, big-endian.tif": (0, 0, 0),
    "CIELAB.tif": (0, 59, 195),  # of zeros: a and b are in the middle there
    "YCCK.jpg": (179, 0, 227),  # the red ink's numbers, taken for luma and chroma
}
SIDEWAYS = ("XMP.jpg", "sideways.tif")


@pytest.mark.parametrize("name", READ)
def test_odd_images_are_read_right(name):
    image = decode_image(READ[name])
    check_image(READ[name])
    wanted = BEGINS.get(name, (255, 0, 0))
    assert np.abs(np.subtract(image.getpixel((0, 0)), wanted)).max() <= 2
    if name in SIDEWAYS:
        assert image.size == (20, 40)


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.parametrize("look", [decode_image, check_image])
def test_odd_images_are_rejected_by_cause(look, name):
    data, cause = REJECTED[name]
    with pytest.raises(ImageRejected) as rejected:
        look(data)
    assert rejected.value.cause == cause


def test_every_way_to_turn_a_png():
    raw = b"\nexif\n%8d\n%s\n" % (len(exif(6)), exif(6).hex().encode())
    key = b"Raw profile type exif\0"
    turned = {
        "eXIf": png_with(b"eXIf", exif(6)[6:]),
        "eXIf behind the pixels": FLAG[:-12] + png_chunk(b"eXIf", exif(6)[6:]) + FLAG[-12:],
        "XMP": png_with(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        "ImageMagick's": png_with(b"tEXt", key + raw),
        "ImageMagick's, compressed": png_with(b"zTXt", key + b"\0" + zlib.compress(raw)),
        "behind a damaged one": png_with(b"eXIf", exif(6)[6:], png_with(b"iCCP", b"x\0\7oops")),
    }
    assert {name: decode_image(data).size for name, data in turned.items()} == dict.fromkeys(
        turned, (20, 40)
    )
    bomb = png_with(b"zTXt", key + b"\0" + zlib.compress(bytes(50_000_000)))
    assert decode_image(bomb).size == (40, 20)


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("look", [decode_image, check_image])
def test_says_why_not(look, name):
    data, cause = BAD[name]
    with pytest.raises(ImageRejected) as rejected:
        look(data)
    assert rejected.value.cause == cause


def test_the_bound_is_on_pixels_and_inclusive():
    assert decode_image(PNG, max_pixels=40 * 24).size == (40, 24)
    with pytest.raises(ImageRejected, match="too many pixels"):
        decode_image(PNG, max_pixels=40 * 24 - 1)


def test_pixels_of_a_plain_image_are_kept():
    np.testing.assert_array_equal(np.asarray(decode_image(PNG)), np.asarray(noise()))


def test_check_accepts_a_jpeg_with_a_side_below_8():
    data = encoded(Image.new("RGB", (20, 4), "red"), "JPEG")
    assert decode_image(data).size == (20, 4)
    check_image(data)


def test_a_dark_16_bit_image_stays_dark():
    assert decode_image(grey16(200, 255)).getpixel((0, 0)) == (1, 1, 1)


@given(st.sampled_from([JPEG, PNG, GOOD["animation"][0]]), st.data())
def test_damage_anywhere_never_raises_anything_else(data, choices):
    damaged = bytearray(data[: choices.draw(st.integers(0, len(data)))])
    for at in choices.draw(st.lists(st.integers(0, max(len(damaged) - 1, 0)), max_size=4)):
        if damaged:
            damaged[at] = choices.draw(st.integers(0, 255))
    causes = []
    for look in (decode_image, check_image):
        try:
            look(bytes(damaged), 10_000)
            causes.append(None)
        except ImageRejected as rejected:
            causes.append(rejected.cause)
    assert causes[0] == causes[1]


def test_read_image(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    assert read_image(tmp_path / "a.png") == PNG
    for path, cause in ((tmp_path / "absent.png", "no such file"), (tmp_path, "unreadable file")):
        with pytest.raises(ImageRejected, match=cause):
            read_image(path)
