"""The bytes of an image without what is not pixels: texts, colour profiles, thumbnails, EXIF.

Pillow reads such blocks when it opens a file, and refuses good pixels where one of them is damaged
or large. Only what says how to turn the image is kept, apart from the bytes.
"""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from typing import Any

from PIL.PngImagePlugin import PngStream

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
PNG_TURNS = (  # how chunks begin that may tell an orientation; the last two are ImageMagick's
    b"eXIf",
    b"iTXtXML:com.adobe.xmp\0",
    b"tEXtexif\0",
    b"tEXtRaw profile type exif\0",
    b"zTXtRaw profile type exif\0",
)
EXIF, XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
APP0, APP1, APP14, APP15, COMMENT = 0xE0, 0xE1, 0xEE, 0xEF, 0xFE
JPEG_COLOURS = {APP0: 14, APP14: 12}  # libjpeg takes the colours from these, if so long
JPEG_ENDS = frozenset({0x00, 0x01, *range(0xD0, 0xDB)})  # no length follows, or pixels do


def bare(data: bytes) -> tuple[bytes, dict[str, Any]]:
    """Return an image's bytes for Pillow, and what its `info` should hold for the turning."""
    if data.startswith(PNG):
        return _bare_png(data)
    if data.startswith(JPEG):
        return _bare_jpeg(data)
    if data[4:8] == b"ftyp":  # AVIF has its own turns, which stand above EXIF
        boxes, mark, pixels = data.partition(b"mdat")
        return boxes.replace(b"Exif", b"skip") + mark + pixels, {}
    return data, {}


def _bare_png(data: bytes) -> tuple[bytes, dict[str, Any]]:
    stream = PngStream(io.BytesIO(data))
    kept, turns, at = [data[:8]], set(PNG_TURNS), 8
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            break
        begin = next((begin for begin in turns if data.startswith(begin, at + 4)), None)
        if kind == b"tRNS" or not kind[0] & 32:  # the others need not be understood
            kept.append(data[at:end])
        elif begin and zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end]):
            turns.remove(begin)  # the first of each, so that many cost no more
            stream.fp = io.BytesIO(data[at + 8 : end - 4])
            with suppress(Exception):  # Pillow raises almost anything on damaged data
                stream.call(kind, 0, length)
        at = end
    return b"".join([*kept, data[at:]]), {str(key): fact for key, fact in stream.im_info.items()}


def _bare_jpeg(data: bytes) -> tuple[bytes, dict[str, Any]]:
    info: dict[str, Any] = {}
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] not in JPEG_ENDS:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if not at + 4 <= end <= len(data):
            break
        body = data[at + 4 : end]
        if marker == APP1 and body.startswith(EXIF):
            info["exif"] = info.get("exif", EXIF) + body[len(EXIF) :]  # may be in several blocks
        elif marker == APP1 and body.startswith(XMP):
            info["xmp"] = body[len(XMP) :]
        elif marker in JPEG_COLOURS:
            kept += [data[at:end]] if len(body) >= JPEG_COLOURS[marker] else []
        elif not (APP0 <= marker <= APP15 or marker == COMMENT):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]]), info
