"""JSON with a checksum: no flipped bit in it is believed, and one is put right."""

import json
from contextlib import suppress

import pytest

from xmore.files.sealed import is_whole, is_whole_json, mended, sealed, unsealed

DATA = {"rows": 12, "small": 1e-05, "text": "\u00e9 \n", "list": [1, {"a": None}]}


def test_content_comes_back_without_its_checksum():
    assert unsealed(sealed(DATA)) == DATA and is_whole(sealed(DATA))
    assert unsealed(json.dumps(DATA)) == DATA and is_whole(json.dumps(DATA).encode())


def test_each_flipped_bit_is_seen_and_none_changes_the_content(tmp_path):
    whole = sealed(DATA)
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        assert not is_whole(bytes(data)), (place, bytes(data))
        with suppress(ValueError):
            assert unsealed(bytes(data)) == DATA  # such as 1E-05
    assert not is_whole_json(tmp_path / "absent")


@pytest.mark.parametrize("place", [3, 100, 701])
def test_one_flipped_bit_is_put_right_and_no_more(place):
    whole = sealed(DATA)
    data = bytearray(whole)
    data[place // 8] ^= 1 << place % 8
    assert mended(bytes(data)) == whole
    data[place // 8 + 2] ^= 1
    assert mended(bytes(data)) is None
