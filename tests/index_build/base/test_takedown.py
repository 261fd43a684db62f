"""What was taken down stays so, whatever a config, a rollback or another URL says."""

import pyarrow.parquet as pq
import pytest

from flows.reindex import xmore_reindex
from index_build.base import takedown
from xmore.files.errors import ConfigError, SnapshotError
from xmore.memory.snapshot import resolve_current

IMAGE, OTHER = "a" * 64, "b" * 64


def test_values_are_kept_with_their_time_and_reason(tmp_path):
    assert takedown.add(tmp_path, ["http://a/1", IMAGE, "http://a/1"], "asked") == [
        "http://a/1",
        IMAGE,
    ]
    assert takedown.add(tmp_path, [IMAGE], "again") == []
    assert takedown.add(tmp_path, [OTHER], "its image", "http://a/1") == [OTHER]
    found = takedown.current(tmp_path)
    assert [(d.value, d.reason, d.follows) for d in found.values()] == [
        ("http://a/1", "asked", None),
        (IMAGE, "asked", None),
        (OTHER, "its image", "http://a/1"),
    ]
    assert all(down.at for down in found.values())
    assert takedown.named(tmp_path) == sorted(["http://a/1", IMAGE])


def test_followers_go_with_what_they_follow_unless_they_are_named(tmp_path):
    takedown.add(tmp_path, ["http://a/1"], "asked")
    takedown.add(tmp_path, [IMAGE, OTHER], "its image", "http://a/1")
    assert takedown.add(tmp_path, [OTHER], "asked, too") == [OTHER]
    assert takedown.reinstate(tmp_path, "http://a/1") == ["http://a/1", IMAGE]
    assert list(takedown.current(tmp_path)) == [OTHER]
    events = (tmp_path / takedown.FILE).read_bytes()
    assert takedown.reinstate(tmp_path, IMAGE) == [IMAGE]  # again, as after a kill
    assert (tmp_path / takedown.FILE).read_bytes() == events
    with pytest.raises(SnapshotError, match="is not taken down"):
        takedown.reinstate(tmp_path, "http://a/2")


def test_an_older_versions_list_stays_until_it_is_reinstated(tmp_path):
    (tmp_path / takedown.OLDER).write_text(f"http://a/1\n{IMAGE}\n")
    assert takedown.named(tmp_path) == sorted(["http://a/1", IMAGE])
    takedown.reinstate(tmp_path, IMAGE)
    assert takedown.named(tmp_path) == ["http://a/1"]


def test_a_ledger_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / takedown.FILE).write_text("{\n")
    with pytest.raises(SnapshotError, match="without it, rows come back"):
        takedown.current(tmp_path)


def test_a_list_has_urls_and_hashes(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfhttp://a/1 \r\n# why\r\n\r\n" + IMAGE.upper().encode())
    assert takedown.read_take_down(path) == sorted(["http://a/1", IMAGE])
    path.write_text("http://a/1\nnothing\n")
    with pytest.raises(ConfigError, match="line 2: a take-down must be a URL or 64"):
        takedown.read_take_down(path)


def test_a_row_is_gone_under_any_name_and_a_rollback_does_not_bring_it(world, xmore, tmp_path):
    table = pq.read_table(world.root / "captions.parquet").slice(0, 12)
    captions = tmp_path / "captions.parquet"
    pq.write_table(table, captions)
    config = world.memory_config(captions, memory=tmp_path / "memory")
    first = xmore_reindex.fn(config).snapshot
    row = pq.read_table(first.shards[0].metadata).slice(3, 1).to_pylist()[0]
    memory = config.memory
    answer = xmore("memory", "takedown", "add", memory, row["row_key"].upper(), "--reason", "asked")
    assert answer.returncode == 0 and f"taken down: {row['row_key']}" in answer.stdout, answer
    gone = xmore_reindex.fn(config)
    assert (gone.snapshot.rows, gone.removed) == (11, 1)
    assert xmore_reindex.fn(config).skipped
    listed = xmore("memory", "takedown", "list", memory).stdout
    assert row["row_key"] in listed and f"its image {row['memory_key']}" in listed

    back = xmore("memory", "rollback", memory)
    assert back.returncode == 2 and "holds 1 row taken down since" in back.stderr
    assert "newer" not in back.stderr and "xmore reindex" in back.stderr
    assert resolve_current(memory) == gone.snapshot.name
    other = table.slice(3, 1).to_pylist()[0] | {"caption": "the same image, another caption"}
    more = [*table.to_pylist(), other]
    pq.write_table(table.from_pylist(more), captions)
    assert xmore_reindex.fn(config).snapshot.rows == 11

    assert xmore("memory", "takedown", "reinstate", memory, row["row_key"]).returncode == 0
    assert xmore_reindex.fn(config).snapshot.rows == 12  # its bytes are once in a memory
    assert xmore("memory", "takedown", "list", memory).stdout.strip() == "Nothing is taken down."


@pytest.mark.parametrize("value", ["nothing", "abc123", ""])
def test_what_is_no_value_is_refused_in_one_line(world, xmore, value):
    answer = xmore("memory", "takedown", "add", world.root / "memory", value)
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer
    assert "must be a URL or 64 hexadecimal digits" in answer.stderr
    answer = xmore("memory", "takedown", "add", world.root, "http://a/1")
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1, answer


def test_a_comment_may_follow_a_row_and_a_fragment_is_none(tmp_path):
    path = tmp_path / "down.txt"
    path.write_text(
        f"\ufeff# by letter\nhttp://h/a b.jpg  # asked by A\n{IMAGE.upper()}\t# see https://h/x\n"
        "http://h/1#2\n \r\n"
    )
    found = takedown.read_take_down(path)
    assert found == [IMAGE, "http://h/1#2", "http://h/a b.jpg"]
    takedown.add(tmp_path, [*found, "http://h/a\u2028b", "http://h/ü"], "asked")
    assert set(takedown.current(tmp_path)) == {*found, "http://h/a\u2028b", "http://h/ü"}


@pytest.mark.parametrize(
    "line",
    [
        '"http://h/1.jpg"',
        "- http://h/1.jpg",
        "http://h/1.jpg\tDMCA",
        f"{IMAGE}  1.jpg",
        f"sha256:{IMAGE}",
        "http://",
        "h/1.jpg",
    ],
)
def test_what_would_match_nothing_is_refused_with_its_line(tmp_path, line):
    (tmp_path / "down.txt").write_text(f"http://h/0.jpg\n{line}\n")
    with pytest.raises(ConfigError, match=r"down\.txt, line 2: a take-down must be"):
        takedown.read_take_down(tmp_path / "down.txt")


def test_a_url_has_the_form_in_which_it_is_requested_too():
    values = ["http://bücher.de/a b", "http://h/%20", "s3://b/ä ä", IMAGE]
    assert set(takedown.all_forms(values)) == {*values, "http://xn--bcher-kva.de/a%20b"}
