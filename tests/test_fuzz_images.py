"""Whatever surrounds the pixels: check and decode agree, and good pixels are read."""

import json
import os
import re
import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from odd.pixels import JPEG, PNG, READ, encoded, exif, flag, jpeg_with, png_with
from PIL import Image
from test_fuzz import ANY, json_values, one_line

from xmore.datasets.folders import folder_listing
from xmore.datasets.sources import CoopSource
from xmore.files.errors import DatasetError
from xmore.images.decode import ImageRejected, check_image, decode_image

WORDS = st.sampled_from([b"Exif\0\0", b"II*\0", b"MM\0*", struct.pack("<I", 8), b"\x12\x01\x03\0"])
BLOCKS = st.lists(st.binary(max_size=12) | WORDS, max_size=8).map(b"".join)
UPRIGHT = {"JPEG": decode_image(JPEG), "PNG": decode_image(PNG)}


NAMES = st.binary(min_size=1, max_size=20).filter(lambda n: not set(n) & {0, 47} and n[:2] != b"..")
ENDINGS = st.sampled_from([b"", b".jpg", b".JFIF", b".txt", b".avif", b"."])


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


@ANY
@given(st.lists(st.tuples(NAMES, ENDINGS, st.sampled_from([JPEG, b"text"])), min_size=1))
def test_names_of_files(files):
    """Files = images listed + images set aside + files passed over."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        (root / "class").mkdir()
        for stem, ending, data in files:
            name = os.fsdecode(stem + ending)
            if name != ".":
                (root / "class" / name).write_bytes(data)
        there = len(list((root / "class").iterdir()))
        try:
            found = folder_listing(root, ["class"])
        except DatasetError as error:
            one_line(error)
            return
        passed = sum(int(re.search(r"over: (\d+) ", note)[1]) for note in found.notes)
        assert there == len(found.labels) + len(found.rejected) + passed
        json.dumps([found.labels, found.rejected, found.notes], ensure_ascii=False).encode()
        assert all(found.reader.read(uri) in (JPEG, b"text") for uri in found.labels)


ROWS = st.tuples(
    st.sampled_from(["a.jpg", "./a.jpg", "b.jpg", "../c.jpg", "/d.jpg", "e\udc00.jpg"])
    | json_values,
    st.integers(-1, 3) | json_values,
    st.sampled_from(["cat", "dog"]) | json_values,
).map(list)


@ANY
@given(st.lists(ROWS | json_values, max_size=5) | json_values, st.none() | st.just(["cat", "dog"]))
def test_a_split_of_coops(rows, names):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "split.json").write_text(json.dumps({"test": rows}))
        try:
            found = CoopSource(kind="coop", split="split.json").listing(Path(folder), names)
            assert len(found.labels) == len(rows)
            assert all(0 <= label < len(names or found.names) for label in found.labels.values())
        except DatasetError as error:
            one_line(error)
