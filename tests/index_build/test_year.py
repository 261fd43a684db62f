"""A memory through a year: rows come, go, are taken down; then gc. Real HTTP, real models."""

import hashlib
import os
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.reindex import Reindexed, xmore_reindex
from flows.upkeep import check, compare, entries, roll_back
from index_build.base import history, takedown
from index_build.upkeep.gc import collect
from xmore.config.memory import ReindexConfig
from xmore.files.digests import digest_file
from xmore.files.errors import ConfigError, LockedError, SnapshotError
from xmore.files.locks import locked, read_locked
from xmore.memory.locks import lock_of
from xmore.memory.pictures import memory_pictures
from xmore.memory.rows import places_of
from xmore.memory.snapshot import Snapshot, open_snapshot, resolve_current

ROWS, SHARD = 60, 20


@dataclass(frozen=True)
class Step:
    """A re-index of the year, and what it asked of the server."""

    made: Reindexed
    asked: Counter
    rows: list[dict]


def rows_of(snapshot: Snapshot) -> list[dict]:
    return [row for s in snapshot.shards for row in pq.read_table(s.metadata).to_pylist()]


def features_by_key(snapshot: Snapshot) -> dict[str, bytes]:
    found = np.concatenate([np.load(shard.embeddings) for shard in snapshot.shards])
    keys = [row["memory_key"] for row in rows_of(snapshot)]
    return dict(zip(keys, (row.tobytes() for row in found), strict=True))


@dataclass
class Year:
    """A memory with a web server's list and a folder as its sources."""

    config: ReindexConfig
    web: object
    full: pa.Table

    def run(self, rows: pa.Table, **changes) -> Step:
        pq.write_table(rows, self.config.sources[0].urls.path)
        self.web.asked.clear()
        made = xmore_reindex.fn(self.config.model_copy(update=changes))
        return Step(made, Counter(self.web.asked), rows_of(made.snapshot))

    @property
    def memory(self) -> Path:
        return self.config.memory


@pytest.fixture(scope="module")
def year(world, web_server, distinct, tmp_path_factory) -> Year:
    folder = tmp_path_factory.mktemp("year")
    bad = [(web_server.url("images/gone.jpg"), "gone"), (web_server.url("status/503"), "busy")]
    path = web_server.url_list(folder / "urls.parquet", bad, rows=ROWS + 10)
    full = pq.read_table(path)
    listed = {digest_of_url(world, url) for url in full["URL"].to_pylist()}
    here = [
        row for row in distinct.to_pylist() if digest_file(world.images / row["path"]) not in listed
    ]
    pq.write_table(pa.Table.from_pylist(here[:12]), folder / "captions.parquet")
    images = {"folder": world.images, "captions": folder / "captions.parquet"}
    sources = [{"name": "web", "urls": {"path": str(path)}}, {"images": images}]
    download = {"timeout": 5, "threads": 8, "processes": 1, "retries": 0, "tries": 3}
    config = world.memory_config(
        memory=folder / "memory", sources=sources, shard_rows=SHARD, download=download
    )
    return Year(config, web_server, full)


def digest_of_url(world, url: str) -> str:
    path = world.images / url.rpartition("/")[2]
    return digest_file(path) if path.is_file() else url


@pytest.fixture(scope="module")
def steps(year, tmp_path_factory) -> dict[str, Step]:
    """first: 60 rows and 2 bad ones; more: 10 come; fewer: 5 go; down: 3 are taken down."""
    full, bad = year.full, year.full.slice(ROWS + 10)
    first = year.run(pa.concat_tables([full.slice(0, ROWS), bad]))
    more = year.run(full)
    fewer = year.run(full.slice(5))
    rows = [row for row in fewer.rows if row["source"] == "web"]
    values = [rows[2]["url"], rows[30]["memory_key"], rows[44]["row_key"].upper()]
    path = tmp_path_factory.mktemp("down") / "take-down.txt"
    path.write_text("# asked for by their authors\n\n" + "\n".join(values) + "\n")
    down = year.run(full.slice(5), take_down=path)
    gone = {rows[2]["memory_key"], rows[30]["memory_key"], rows[44]["memory_key"]}
    assert gone.isdisjoint(row["memory_key"] for row in down.rows)
    return {"first": first, "more": more, "fewer": fewer, "down": down, "list": path}


def test_only_what_is_new_is_asked_for_and_embedded(steps):
    first, more, fewer, down = (steps[name] for name in ("first", "more", "fewer", "down"))
    images = [path for path in more.asked if path.startswith("/images/")]
    assert (first.made.fetched, first.made.embedded) == (62, ROWS + 12)
    assert len(images) == 10 and "/images/gone.jpg" not in images  # 404 does not pass
    assert more.asked["/status/503"] > 0 and (more.made.fetched, more.made.embedded) == (11, 10)
    assert fewer.made.embedded == down.made.embedded == 0 and set(fewer.asked) == {"/status/503"}
    assert not down.asked  # three runs have tried what may pass: that is enough
    assert first.made.snapshot.rows == ROWS + 12
    assert (more.made.added, more.made.removed) == (10, 0)
    assert (fewer.made.added, fewer.made.removed) == (0, 5)
    assert (down.made.added, down.made.removed) == (0, 3)
    assert down.made.snapshot.manifest["failures"]["taken down"] == 3


def test_rows_add_up_and_keys_are_unique(steps):
    for name in ("first", "more", "fewer", "down"):
        facts = steps[name].made.snapshot.manifest
        assert facts["asked"] == facts["rows"] + sum(facts["failures"].values())
        keys = [row["memory_key"] for row in steps[name].rows]
        assert len(set(keys)) == len(keys) == facts["rows"]
        assert facts["hosts"][0][0] == "127.0.0.1"


def test_what_stays_keeps_its_features_and_its_files(steps):
    before, after = steps["more"].made.snapshot, steps["fewer"].made.snapshot
    old, new = features_by_key(before), features_by_key(after)
    assert new.items() <= old.items() and len(new) == len(old) - 5
    inodes = {shard.embeddings.stat().st_ino: shard.rows for shard in before.shards}
    shared = [s for s in after.shards if s.embeddings.stat().st_ino in inodes]
    changed = len(after.shards) - len(shared)
    assert shared and 1 <= changed <= 4  # five rows are in four shards at most


def test_each_snapshot_is_whole_and_listed(year, steps):
    for name in ("first", "more", "fewer", "down"):
        assert not check(steps[name].made.snapshot)
    found = entries(year.memory)
    assert [e.name for e in found] == [
        steps[name].made.snapshot.name for name in ("down", "fewer", "more", "first")
    ]
    assert found[0].marks == "CURRENT" and (found[2].added, found[1].removed) == (10, 5)
    difference = compare(steps["more"].made.snapshot, steps["fewer"].made.snapshot)
    assert difference.only == (5, 0) and difference.shared == found[1].rows
    assert history.rates(year.memory)["embed"] > 0


def test_pictures_and_places_come_from_either_source(steps):
    snapshot = steps["more"].made.snapshot
    rows = rows_of(snapshot)
    pictures = dict(memory_pictures(snapshot, range(len(rows))))
    places = places_of(snapshot, np.arange(len(rows)))
    assert len({row["source"] for row in rows}) == 2 and len(pictures) == len(rows)
    for memory_id, row in enumerate(rows):
        place = row["image_path"] if row["source"] == "images" else row["url"]
        assert places[memory_id] == place
        if row["source"] == "images":
            assert hashlib.sha256(pictures[memory_id]).hexdigest() == row["memory_key"]
            alone = dict(memory_pictures(snapshot, [memory_id]))
            assert alone == {memory_id: pictures[memory_id]}


def test_no_rollback_returns_to_a_row_that_was_taken_down(year, steps):
    down = steps["down"].made.snapshot.name
    with pytest.raises(SnapshotError, match="holds 3 rows taken down since"):
        roll_back(year.memory, None)
    assert resolve_current(year.memory) == down
    with pytest.raises(SnapshotError, match=rf"no snapshot called .*Did you mean `{down}`\?"):
        roll_back(year.memory, f"x{down}")


def test_rolled_back_stays_rolled_back_until_sources_change(world, tmp_path):
    table, captions = pq.read_table(world.root / "captions.parquet"), tmp_path / "captions.parquet"
    config = world.memory_config(captions, memory=tmp_path / "memory")
    pq.write_table(table.slice(0, 12), captions)
    before = xmore_reindex.fn(config).snapshot.name
    pq.write_table(table.slice(0, 15), captions)
    after = xmore_reindex.fn(config).snapshot.name
    assert roll_back(config.memory, None) == (after, before)
    again = xmore_reindex.fn(config)
    assert again.skipped and again.withdrawn and resolve_current(config.memory) == before
    assert roll_back(config.memory, after[:6]) == (before, after)
    again = xmore_reindex.fn(config)
    assert again.skipped and not again.withdrawn


def test_gc_says_and_does_and_leaves_no_byte_of_what_was_taken_down(year, steps, world):
    before = steps["fewer"].made.snapshot
    gone = [r for r in steps["fewer"].rows if r not in steps["down"].rows]
    gone += [r for r in steps["more"].rows if r not in steps["fewer"].rows]
    stay = {r["caption"] for r in steps["down"].rows}  # two pictures may have one caption
    needles = [r["caption"].encode() for r in gone if r["caption"] not in stay]
    needles += [(world.images / r["url"].rpartition("/")[2]).read_bytes()[300:500] for r in gone]
    places = found_in(year.memory, needles)
    assert places and len(gone) == 8
    with read_locked(lock_of(year.memory, before.name)):  # as a benchmark does
        held = collect(year.memory, keep=1, dry_run=True)
        assert "in use" in held.kept[before.name]
    files = sorted(year.memory.rglob("*"))
    told = collect(year.memory, keep=1, dry_run=True)
    assert sorted(p for p in year.memory.rglob("*") if p in files) == files
    freed = collect(year.memory, keep=1, dry_run=False)
    assert set(freed.snapshots) == set(told.snapshots) and len(freed.snapshots) == 3
    assert freed.rows == told.rows == 8 and 0 < told.bytes <= 2 * freed.bytes
    assert found_in(year.memory, needles) == []
    current = open_snapshot(year.memory, resolve_current(year.memory))
    assert not check(current) and rows_of(current) == steps["down"].rows
    again = year.run(year.full.slice(5), take_down=steps["list"])
    assert again.made.skipped and not again.asked


def test_what_was_taken_down_comes_back_only_when_the_list_lets_it(year, steps, world):
    """After gc. The bytes under another URL are refused as well."""
    collect(year.memory, keep=1, dry_run=False)
    gone = next(r for r in steps["fewer"].rows if r not in steps["down"].rows)
    twin = gone["url"] + "?again"
    row = {"URL": twin, "TEXT": "another caption"}
    extra = pa.Table.from_pylist([row], schema=year.full.schema)
    path = steps["list"]
    path.write_text(path.read_text() + gone["memory_key"] + "\n")
    rows = pa.concat_tables([year.full.slice(5), extra])
    refused = year.run(rows, take_down=path)
    assert len(refused.asked) == 1 and refused.made.added == 0
    assert refused.made.snapshot.manifest["failures"]["taken down"] == 4
    image = next(path for path in world.images.iterdir() if digest_file(path) == gone["memory_key"])
    assert not found_in(year.memory, [image.read_bytes()]), "it was refused, not kept"
    without = year.run(rows, take_down=None)
    assert without.made.skipped and not without.asked, "a list that is left out brings nothing back"
    known = takedown.current(year.memory)
    named = [value for value, down in known.items() if down.follows is None]
    assert len(named) == 4 and {down.follows for down in known.values()} < {None, *named}
    for value in named:
        assert takedown.reinstate(year.memory, value)[0] == value
    assert not takedown.current(year.memory)
    back = year.run(rows, take_down=None)
    assert back.made.added == 3 and gone["memory_key"] in {r["memory_key"] for r in back.rows}


def found_in(folder: Path, needles: list[bytes]) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(n in path.read_bytes() for n in needles)]


def test_gc_waits_for_nobody(year, steps):
    with (
        locked(year.memory / ".locks" / "reindex.lock"),
        pytest.raises(LockedError, match="then run gc"),
    ):
        collect(year.memory, keep=1, dry_run=False)


def test_foreign_tars_and_embeddings_are_sources_too(world, tmp_path):
    table = pq.read_table(world.root / "captions.parquet").slice(20, 30)
    tars = tmp_path / "tars"
    tars.mkdir()
    names, captions = table["path"].to_pylist(), table["caption"].to_pylist()
    for part in range(2):
        with tarfile.open(tars / f"{part:05d}.tar", "w") as tar:
            for i in range(part * 15, part * 15 + 15):
                (tmp_path / "t.txt").write_text(captions[i])
                tar.add(world.images / names[i], f"sub/{i:04d}.jpg")
                tar.add(tmp_path / "t.txt", f"sub/{i:04d}.txt")
            (tmp_path / "t.txt").write_text("not an image")
            for ending in ("jpg", "txt"):
                tar.add(tmp_path / "t.txt", f"sub/x{part}.{ending}")
    config = world.memory_config(
        memory=tmp_path / "m", sources=[{"tars": {"folder": tars}}], shard_rows=10
    )
    made = xmore_reindex.fn(config)
    rows = rows_of(made.snapshot)
    assert made.snapshot.manifest["failures"]["not an image"] == 2
    assert {r["memory_key"] for r in rows} == {digest_file(world.images / n) for n in names}
    by_key = {digest_file(world.images / n): c for n, c in zip(names, captions, strict=True)}
    assert all(by_key[r["memory_key"]] == r["caption"] for r in rows)
    place = next(i for i, r in enumerate(rows) if r["caption"] == captions[3])
    pictures = dict(memory_pictures(made.snapshot, [place]))
    assert pictures[place] == (world.images / names[3]).read_bytes()

    folder = made.snapshot.path  # clip-retrieval's layout: a source for another memory
    plain = tmp_path / "plain"
    for kind in ("img_emb", "metadata"):
        (plain / kind).mkdir(parents=True)
        for path in (folder / kind).iterdir():
            os.link(path, plain / kind / path.name)
    other = config.model_copy(update={"memory": tmp_path / "other"})
    other = ReindexConfig.model_validate(
        other.model_dump() | {"sources": [{"clip_retrieval": {"folder": plain}}]}
    )
    adopted = xmore_reindex.fn(other)
    assert adopted.embedded == 0 and adopted.snapshot.rows == len(rows)
    mine = np.concatenate([np.load(s.embeddings) for s in made.snapshot.shards])
    theirs = np.concatenate([np.load(s.embeddings) for s in adopted.snapshot.shards])
    assert (mine == theirs).all()
    assert [r["caption"] for r in rows_of(adopted.snapshot)] == [r["caption"] for r in rows]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a cat", "line 2: a take-down must be a URL or 64"),
        ("\xff", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_take_down_list_that_cannot_be_read(world, tmp_path, line, says):
    path = tmp_path / "list.txt"
    if line is not None:
        path.write_bytes(f"# a\n{line}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=says):
        xmore_reindex.fn(world.memory_config(memory=tmp_path / "m", take_down=path))
    assert not (tmp_path / "m" / "batches").exists()
