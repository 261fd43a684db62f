"""Odd images, as bytes: a flag that is red on its left and blue on its right, 40 x 20."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def flag() -> Image.Image:
    image = Image.new("RGB", (40, 20), "blue")
    image.paste("red", (0, 0, 20, 20))
    return image


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def half(image: Image.Image, kind: str, **options) -> bytes:
    data = encoded(image, kind, **options)
    return data[: len(data) // 2]


def frames(kind: str) -> bytes:
    """Three pages, or frames; the first is red."""
    first, *more = (Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue"))
    return encoded(first, kind, save_all=True, append_images=more)


def png_chunk(kind: bytes, body: bytes, wrong: int = 0) -> bytes:
    checksum = zlib.crc32(kind + body) ^ wrong
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png_with(kind: bytes, body: bytes, png: bytes = b"", wrong: int = 0) -> bytes:
    """A PNG with one more chunk behind its header."""
    png = png or PNG
    return png[:33] + png_chunk(kind, body, wrong) + png[33:]


def png_of(width: int, height: int, rows: bytes, bits: int = 8, interlaced: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, interlaced)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def jpeg_with(marker: int, body: bytes, jpeg: bytes = b"") -> bytes:
    """A JPEG with one more block behind its first bytes."""
    jpeg = jpeg or JPEG
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[274] = orientation
    return tags.tobytes()


def array(values, dtype, kind: str, **options) -> bytes:
    return encoded(Image.fromarray(np.array(values, dtype)), kind, **options)


def out_of_palette() -> bytes:
    """A palette of two colours; half of the pixels are of a third."""
    image = Image.fromarray(np.repeat([[0, 7]], 16, 0).repeat(8, 1).astype(np.uint8), "P")
    image.putpalette([255, 0, 0] * 8)
    data = encoded(image, "PNG", bits=8)
    at = data.index(b"PLTE") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4])
    return data[:at] + png_chunk(b"PLTE", b"\xff\0\0\0\xff\0") + data[end:]


def clear_palette() -> bytes:
    """Index 0: red, opaque; 1: half clear; 2: clear."""
    image = Image.fromarray(np.array([[0, 1, 2]] * 8, np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 255])
    return encoded(image, "PNG", transparency=bytes([255, 128, 0]))


def ycck() -> bytes:
    """A JPEG of four inks whose Adobe block says that they are YCCK."""
    data = bytearray(encoded(flag().convert("CMYK"), "JPEG"))
    data[data.index(b"Adobe") + 11] = 2
    return bytes(data)


def small_screen() -> bytes:
    """A GIF whose frame is larger than its screen of 4 x 4."""
    data = bytearray(encoded(flag(), "GIF"))
    data[6:10] = struct.pack("<HH", 4, 4)
    return bytes(data)


def rle_bmp() -> bytes:
    """A BMP of 4 x 2, run-length encoded: red above, blue below."""
    palette = bytes([0, 0, 255, 0, 255, 0, 0, 0]) + bytes(254 * 4)
    pixels = bytes([4, 1, 0, 0, 4, 0, 0, 1])
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(pixels), 0, 0, 256, 0)
    start = 14 + len(header) + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    return head + header + palette + pixels


def signed_tiff() -> bytes:
    """A TIFF of 16-bit numbers that its tags call signed."""
    data = array(np.full((8, 8), 300), np.uint16, "TIFF", tiffinfo={339: 2})
    assert Image.open(io.BytesIO(data)).mode == "I"
    return data


JPEG, PNG = encoded(flag(), "JPEG", quality=95), encoded(flag(), "PNG")
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
LONG = b"a" * 3_000_000
LOOP = b"Exif\0\0II*\0\x08\0\0\0" + b"\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0" + b"\x08\0\0\0"
WIDE_LOOP = b"MM\0*\0\0\0\x08\0\x02" + b"\x87\x69\0\x04\0\0\0\x01\0\0\0\x08" * 2 + b"\0\0\0\x08"

READ = {  # file -> bytes that are read, whatever surrounds their pixels
    "damaged eXIf.png": png_with(b"eXIf", bytes.fromhex("0008000201120003")),
    "eXIf of a wrong checksum.png": png_with(b"eXIf", exif(6)[6:], wrong=1),
    "eXIf that loops.png": png_with(b"eXIf", WIDE_LOOP),
    "long text.png": png_with(b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
    "long international text.png": png_with(b"iTXt", b"k\0\x01\0\0\0" + zlib.compress(LONG)),
    "many long texts.png": PNG[:33] + png_chunk(b"tEXt", b"k\0" + LONG) * 25 + PNG[33:],
    "long text at the end.png": PNG[:-12] + png_chunk(b"tEXt", b"k\0" + LONG) + PNG[-12:],
    "long profile.png": png_with(b"iCCP", b"x\0\0" + zlib.compress(LONG)),
    "short pHYs.png": png_with(b"pHYs", b"\0"),
    "16 bits a colour.png": png_of(1, 1, b"\0\xff\xff\0\0\0\0", bits=16),
    "1 bit.png": encoded(flag().convert("1"), "PNG"),
    "clear palette.png": clear_palette(),
    "out of its palette.png": out_of_palette(),
    "grey and clear.png": encoded(flag().convert("LA"), "PNG"),
    "16 bits, one clear.png": png_with(b"tRNS", b"\0\0", array([[0, 9]], np.uint16, "PNG")),
    "interlaced.png": png_of(1, 1, b"\0\xff\0\0", interlaced=1),
    "more data than pixels.png": png_of(2, 1, b"\0" + b"\xff\0\0" * 2 + bytes(1_000_000)),
    "animated.png": frames("PNG"),
    "damaged EXIF.jpg": jpeg_with(0xE1, b"Exif\0\0" + bytes.fromhex("0008000201120003")),
    "EXIF that loops.jpg": jpeg_with(0xE1, LOOP),
    "orientation 9.jpg": jpeg_with(0xE1, exif(9)),
    "XMP.jpg": jpeg_with(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
    "damaged MPF.jpg": jpeg_with(0xE2, b"MPF\0II*\0\x08\0\0\0\0\0\0\0\0\0"),
    "damaged Photoshop block.jpg": jpeg_with(0xED, b"Photoshop 3.0\0008BIM\x03\xed"),
    "short JFIF block.jpg": jpeg_with(0xE0, b"JFIF\0"),
    "four inks.jpg": encoded(flag().convert("CMYK"), "JPEG"),
    "YCCK.jpg": ycck(),
    "two views.jpg": frames("MPO"),
    "rubbish behind.jpg": JPEG + bytes(1000),
    "progressive.jpg": encoded(flag(), "JPEG", progressive=True),
    "a.jfif": JPEG,
    "a.jpe": JPEG,
    "no suffix": JPEG,
    "larger than its screen.gif": small_screen(),
    "16 bits, big-endian.tif": array([[0, 9]], ">u2", "TIFF"),
    "pages.tif": frames("TIFF"),
    "CIELAB.tif": encoded(Image.new("LAB", (8, 8)), "TIFF"),
    "LZW.tif": encoded(flag(), "TIFF", compression="tiff_lzw"),
    "sideways.tif": encoded(flag(), "TIFF", exif=exif(6)[6:]),
    "animated.webp": frames("WEBP"),
    "a.avif": encoded(flag(), "AVIF"),
    "damaged EXIF.avif": encoded(flag(), "AVIF", exif=exif(1)).replace(b"MM\0*", b"ZZZZ"),
    "run-length.bmp": rle_bmp(),
    "ascii.ppm": b"P3\n# a comment\n2 1\n255\n255 0 0 0 0 255\n",
}
REJECTED = {  # file -> bytes, cause
    "cut.jpg": (half(NOISE, "JPEG"), "truncated or damaged"),
    "progressive, cut.jpg": (
        half(NOISE, "JPEG", progressive=True),
        "truncated or damaged",
    ),
    "cut.png": (half(NOISE, "PNG"), "truncated or damaged"),
    "no pixels.png": (png_of(0, 0, b""), "not an image"),
    "bomb.png": (png_of(30_000, 30_000, b"\0"), "too many pixels"),
    "thread.png": (encoded(Image.new("L", (5000, 2)), "PNG"), "too narrow"),
    "float.tif": (array(np.ones((8, 8)) / 2, np.float32, "TIFF"), "floating-point pixels"),
    "32 bits.tif": (array(np.ones((8, 8)), np.int32, "TIFF"), "signed or 32-bit pixels"),
    "signed.tif": (signed_tiff(), "signed or 32-bit pixels"),
    "page.html.jpg": (b"<html>404 not found</html>", "not an image"),
    "empty.jpg": (b"", "empty file"),
}
