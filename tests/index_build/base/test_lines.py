"""Files of events: each line has its own checksum, and one flipped bit is put right."""

import json

import pytest

from index_build.base.lines import damaged_lines, read_lines, repaired, with_events

EVENTS = [{"event": "added", "value": "http://a/J*", "n": i} for i in range(3)]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "events.jsonl"
    file.write_bytes(with_events(file, EVENTS))
    return file


def test_events_are_read_as_they_were_written(path):
    assert read_lines(path) == EVENTS and damaged_lines(path) == []
    assert read_lines(path.with_name("absent")) == []


def test_lines_of_an_older_version_have_no_checksum(path):
    older = b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS)
    path.write_bytes(older.rstrip(b"\n"))
    assert read_lines(path) == EVENTS and damaged_lines(path) == []
    path.write_bytes(with_events(path, EVENTS[:1]))
    assert path.read_bytes().startswith(older) and read_lines(path) == [*EVENTS, EVENTS[0]]
    assert repaired(path) == (path.read_bytes(), [])


def test_each_flipped_bit_is_seen_and_put_right(path):
    whole = path.read_bytes()
    for place in range(0, 8 * len(whole), 7):  # 7: each bit of a byte in turn
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        assert damaged_lines(path), (place, bytes(data))
        if place % 13 == 0 or whole[place // 8] in b"\nJ*":
            assert repaired(path) == (whole, []), place


def test_what_is_damaged_otherwise_is_left_out(path):
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b"http", b"ftp")
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match="line 2: its content differs from its checksum"):
        read_lines(path)
    content, left_out = repaired(path)
    assert left_out == [2]
    path.write_bytes(content)
    assert read_lines(path) == [EVENTS[0], EVENTS[2]]
