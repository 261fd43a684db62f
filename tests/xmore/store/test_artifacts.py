"""Artifacts: whole or none, resumable part by part, damage found."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xmore.files.errors import ArtifactError
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactStore, read_rows, split_rows
from xmore.store.checks import check_hashes, read_manifest

KEY = ArtifactKey("rejected", "d", {"a": 1})


def rows(start: int, stop: int) -> pa.Table:
    names = [f"u{i}" for i in range(start, stop)]
    return pa.table({"uri": names, "cause": names}, schema=schemas.REJECTED)


def path_of(root: Path) -> Path:
    return root / "rejected" / "d" / KEY.digest


def test_parts_come_back_in_order(tmp_path):
    ref = ArtifactStore(tmp_path).write(KEY, split_rows(10, 4), rows)
    assert ref.rows == 10
    files = sorted(path_of(tmp_path).glob("part-*.parquet"))
    assert [pq.read_metadata(file).num_rows for file in files] == [4, 4, 2]
    assert read_rows(ref)["uri"].to_pylist() == [f"u{i}" for i in range(10)]
    assert read_rows(ref, 3, 9, ["cause"])["cause"].to_pylist() == [f"u{i}" for i in range(3, 9)]


def test_an_empty_artifact_is_an_artifact(tmp_path):
    ref = ArtifactStore(tmp_path).write(KEY, split_rows(0, 4), rows)
    assert ref.rows == 0 and read_rows(ref).schema == schemas.REJECTED


def test_parts_are_bounded_by_bytes():
    assert split_rows(10, 4, row_bytes=32 << 20) == [2, 2, 2, 2, 2]
    assert split_rows(3, 4, row_bytes=1 << 40) == [1, 1, 1]


def test_a_second_write_skips(tmp_path):
    store = ArtifactStore(tmp_path)
    store.write(KEY, [2], rows)

    def never(start, stop):
        raise AssertionError("made again")

    assert store.write(KEY, [2], never).skipped


def test_a_failed_part_keeps_the_whole_ones_and_publishes_nothing(tmp_path):
    store = ArtifactStore(tmp_path)

    def fails(start, stop):
        if start >= 4:
            raise OSError("disk full")
        return rows(start, stop)

    with pytest.raises(OSError):
        store.write(KEY, [2, 2, 2], fails)
    assert store.find(KEY) is None
    made = []
    ref = store.write(KEY, [2, 2, 2], lambda a, b: made.append(a) or rows(a, b))
    assert made == [4]
    other = ArtifactStore(tmp_path / "other").write(KEY, [2, 2, 2], rows)
    assert read_manifest(Path(ref.path)) == read_manifest(Path(other.path))
    assert not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.partial"))


def test_a_damaged_part_of_a_killed_run_is_made_again(tmp_path):
    store = ArtifactStore(tmp_path)
    with pytest.raises(ZeroDivisionError):
        store.write(KEY, [2, 2], lambda a, b: rows(a, b) if a < 2 else 1 / 0)
    part = next(tmp_path.rglob("*.partial/part-00000.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"!")
    made = []
    store.write(KEY, [2, 2], lambda a, b: made.append(a) or rows(a, b))
    assert made == [0, 2]


@pytest.mark.parametrize("damage", ["cut", "removed", "manifest"])
def test_a_damaged_artifact_is_moved_aside_and_made_again(tmp_path, damage):
    store = ArtifactStore(tmp_path)
    store.write(KEY, [2], rows)
    path = path_of(tmp_path)
    part = path / "part-00000.parquet"
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    elif damage == "removed":
        part.unlink()
    else:
        (path / "manifest.json").write_text("{")
    assert check_hashes(path)
    assert not store.write(KEY, [2], rows).skipped
    assert path.with_name(f"{path.name}.broken-1").is_dir()
    assert not check_hashes(path)


def test_a_flipped_byte_is_found(tmp_path):
    ArtifactStore(tmp_path).write(KEY, [2], rows)
    part = path_of(tmp_path) / "part-00000.parquet"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    assert "part-00000.parquet" in check_hashes(path_of(tmp_path))[0]


def test_digest_depends_on_what_it_is_made_from():
    same = ArtifactKey("rejected", "d", {"a": 1}, model="another name")
    assert same.digest == KEY.digest
    for other in (
        ArtifactKey("classes", "d", {"a": 1}),
        ArtifactKey("rejected", "d", {"a": 2}),
        ArtifactKey("rejected", "d", {"a": 1}, ("input",)),
    ):
        assert other.digest != KEY.digest


def test_reading_past_the_end_is_said(tmp_path):
    ref = ArtifactStore(tmp_path).write(KEY, [2], rows)
    with pytest.raises(ArtifactError, match="only 2"):
        read_rows(ref, 5, 6)


WRITE_SLOWLY = """
import sys, time
from pathlib import Path
import pyarrow as pa
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactStore

def slow(start, stop):
    with open(sys.argv[2], "a") as log:
        log.write(f"{start}\\n")
    time.sleep(0.3)
    return pa.table({"uri": ["u"], "cause": ["c"]}, schema=schemas.REJECTED)

ArtifactStore(Path(sys.argv[1])).write(ArtifactKey("rejected", "d", {}), [1, 1, 1], slow)
"""


def test_two_processes_never_write_one_artifact(tmp_path, warm):
    log = tmp_path / "log"
    both = [warm.code(WRITE_SLOWLY, tmp_path / "store", log) for _ in range(2)]
    assert [process.end(60)[0] for process in both] == [0, 0]
    assert log.read_text().split() == ["0", "1", "2"]
