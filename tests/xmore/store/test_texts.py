import hashlib
import json
import logging
import shutil
from pathlib import Path

import crash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmore.files.digests import compare_again, digest_text
from xmore.files.errors import ArtifactError
from xmore.files.sealed import sealed
from xmore.models.encoder import TextFeatures
from xmore.models.spec import ModelCard, ModelSpec
from xmore.store import schemas
from xmore.store.artifacts import write_part
from xmore.store.checks import check_hashes, read_manifest
from xmore.store.text_index import TextIndex
from xmore.store.text_parts import holds_any, read_keys
from xmore.store.texts import CaptionStore, drop_part

CARD = ModelCard("m", ModelSpec(folder="m"), {})


def encode(texts: list[str]) -> TextFeatures:
    """Features that tell texts apart."""
    seeds = [hashlib.sha256(text.encode()).digest() for text in texts]
    unit = np.array([list(seed[:8]) for seed in seeds], np.float32)
    return TextFeatures(unit, unit.sum(1), unit[:, 0] > 128)


class Encoder:
    def __init__(self) -> None:
        self.encoded: list[str] = []

    def __call__(self, texts: list[str]) -> TextFeatures:
        self.encoded += texts
        return encode(texts)


def same(found: TextFeatures, texts: list[str]) -> bool:
    return all(
        np.array_equal(a, b) and a.dtype == b.dtype
        for a, b in zip(vars(found).values(), vars(encode(texts)).values(), strict=True)
    )


@pytest.fixture
def small(monkeypatch):
    """Parts of two texts, four of which are merged, up to 32 texts."""
    monkeypatch.setattr("xmore.store.texts.PART_TEXTS", 2)
    monkeypatch.setattr("xmore.store.text_parts.MERGE", 4)
    monkeypatch.setattr("xmore.store.text_parts.MERGED_TEXTS", 32)


def words(n: int, first: int = 0) -> list[str]:
    return [f"text {i}" for i in range(first, first + n)]


def files(store: CaptionStore) -> list[str]:
    return sorted(path.name for path in store.path.iterdir())


def write_older(store: CaptionStore, texts: list[str], parts: int) -> None:
    """Write texts as older versions did."""
    store.path.mkdir(parents=True)
    entries = []
    for i, some in enumerate(np.array_split(texts, parts)):
        features = encode(list(some))
        table = pa.table(
            {
                "text_sha256": [digest_text(text) for text in some],
                "embedding": schemas.fixed_lists(features.unit),
                "norm": features.norm,
                "truncated": features.truncated,
            }
        )
        entries.append(write_part(store.path / f"part-{i:05d}.parquet", table))
    manifest = {"stage": "caption_embeddings", "digest": store.digest, "params": store.identity}
    manifest |= {"parts": entries, "rows": len(texts)}
    (store.path / "manifest.json").write_bytes(sealed(manifest))


def flip(path: Path, needle: bytes) -> None:
    """Flip a bit of the first of some bytes in a file."""
    data = bytearray(path.read_bytes())
    data[data.index(needle)] ^= 4
    path.write_bytes(data)


def test_the_next_writer_sweeps_up_after_a_killed_one(tmp_path):
    store = CaptionStore(tmp_path, CARD)
    store.features(["a", "b"], encode)
    (store.path / ".manifest.json.1.tmp").write_text("{")
    for name in ("part-00001.arrow", "part-00002.tmp"):  # written, but not listed yet
        (store.path / name).write_text("half")

    again, encoder = CaptionStore(tmp_path, CARD), Encoder()
    assert same(again.features(["b", "c", "b"], encoder), ["b", "c", "b"])
    assert encoder.encoded == ["c"]
    assert files(store) == ["manifest.json", "part-00000.arrow", "part-00001.arrow"]
    assert same(CaptionStore(tmp_path, CARD).lookup(["c", "a", "c"]), ["c", "a", "c"])
    with pytest.raises(KeyError, match="d"):
        again.lookup(["a", "d"])


def test_a_store_opened_before_another_wrote_encodes_only_what_that_lacks(tmp_path):
    mine, theirs, encoder = CaptionStore(tmp_path, CARD), CaptionStore(tmp_path, CARD), Encoder()
    theirs.features(["a", "b"], encode)
    assert same(mine.features(["a", "c"], encoder), ["a", "c"]) and encoder.encoded == ["c"]
    again = CaptionStore(tmp_path, CARD)
    assert len(again) == 3 and same(again.lookup(["b"]), ["b"])


def test_a_part_that_is_not_readable_is_moved_aside_and_its_number_not_taken_again(tmp_path):
    store = CaptionStore(tmp_path, CARD)
    store.features(["a", "b"], encode)
    (store.path / "part-00000.arrow").write_bytes(b"damaged")
    again, encoder = CaptionStore(tmp_path, CARD), Encoder()
    assert same(again.features(["a"], encoder), ["a"]) and encoder.encoded == ["a"]
    assert files(store) == ["manifest.json", "part-00000.arrow.broken-1", "part-00001.arrow"]


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("column", ["embedding", "norm", "text_sha256", "checksum"])
def test_a_damaged_row_is_encoded_again_and_no_other(tmp_path, caplog, column, opened):
    caplog.set_level(logging.WARNING)
    store, encoder = CaptionStore(tmp_path, CARD), Encoder()
    store.features(words(9), encode)
    path = store.path / "part-00000.arrow"
    with pa.memory_map(str(path)) as source:
        value = pa.ipc.open_file(source).read_all()[column][5].as_py()
    raw = {
        "embedding": lambda: np.array(value, np.float32).tobytes(),
        "norm": lambda: np.float32(value).tobytes(),
        "text_sha256": lambda: value,
        "checksum": lambda: np.uint64(value).tobytes(),
    }[column]()
    if opened == "after":
        store = CaptionStore(tmp_path, CARD)
    flip(path, raw)
    if opened == "after":
        store = CaptionStore(tmp_path, CARD)
    assert same(store.features(words(9), encoder), words(9)) and encoder.encoded == ["text 5"]
    again, encoder = CaptionStore(tmp_path, CARD), Encoder()
    assert same(again.features(words(9), encoder), words(9)) and not encoder.encoded
    compare_again()
    assert [str(path) in each for each in check_hashes(store.path)] == [True]


def test_rows_of_another_model_are_not_believed(tmp_path):
    other = ModelCard("m", ModelSpec(folder="m"), {"another": 1})
    store, theirs, encoder = CaptionStore(tmp_path, CARD), CaptionStore(tmp_path, other), Encoder()
    store.features(["a", "b"], encode)
    theirs.features(["a", "b"], lambda texts: encode([text + "!" for text in texts]))
    shutil.copy(theirs.path / "part-00000.arrow", store.path)
    assert same(CaptionStore(tmp_path, CARD).features(["a", "b"], encoder), ["a", "b"])
    assert encoder.encoded == ["a", "b"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 120).map(str), max_size=20), min_size=1, max_size=14))
def test_whatever_is_asked_for_is_right_and_encoded_once(tmp_path_factory, asked):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xmore.store.texts.PART_TEXTS", 3)
        patch.setattr("xmore.store.text_parts.MERGE", 4)
        patch.setattr("xmore.store.text_parts.MERGED_TEXTS", 24)
        folder, encoder = tmp_path_factory.mktemp("texts"), Encoder()
        stores = [CaptionStore(folder, CARD), CaptionStore(folder, CARD)]
        for i, texts in enumerate(asked):
            found = stores[i % 2].features(texts, encoder)
            assert not texts or same(found, texts)
        assert len(set(encoder.encoded)) == len(encoder.encoded)
        everything = sorted(set(encoder.encoded))
        if everything:
            assert same(CaptionStore(folder, CARD).lookup(everything), everything)
            assert check_hashes(stores[0].path) == []


def test_small_parts_are_merged_and_readers_follow(tmp_path, small, caplog):
    store, reader = CaptionStore(tmp_path, CARD), CaptionStore(tmp_path, CARD)
    store.features(words(6), encode)
    assert len(CaptionStore(tmp_path, CARD)._parts) == 3
    reader.features([], encode)
    reader = CaptionStore(tmp_path, CARD)
    store.features(words(34, 6), encode)  # 20 parts of two
    parts = read_manifest(store.path)["parts"]
    assert [part["rows"] for part in parts] == [20, 20]
    assert files(store) == ["manifest.json", *(part["file"] for part in parts)]
    for each in (store, reader, CaptionStore(tmp_path, CARD)):
        encoder = Encoder()
        assert same(each.features(words(40)[::-1], encoder), words(40)[::-1])
        assert not encoder.encoded and len(each) == 40 and not caplog.records
    assert check_hashes(store.path) == []


def test_parts_of_other_versions_are_not_merged(tmp_path, small, monkeypatch):
    for n in range(3):
        monkeypatch.setattr("xmore.store.texts.made_by", lambda _, n=n: {"torch": str(n)})
        CaptionStore(tmp_path, CARD).features(words(6, 6 * n), encode)
    parts = read_manifest(CaptionStore(tmp_path, CARD).path)["parts"]
    assert [part["made_by"]["torch"] for part in parts] == [*"000111222"]


def test_a_damaged_part_is_not_merged(tmp_path, small):
    store, encoder = CaptionStore(tmp_path, CARD), Encoder()
    store.features(words(6), encode)
    flip(store.path / "part-00001.arrow", encode(["text 3"]).unit.tobytes())
    compare_again()
    store.features(words(2, 6), encode)
    assert "part-00001.arrow.broken-1" in files(store)
    assert same(CaptionStore(tmp_path, CARD).features(words(8), encoder), words(8))
    assert encoder.encoded == ["text 2", "text 3"]
    assert check_hashes(store.path) == []


def test_what_older_versions_wrote_is_read_checked_and_merged(tmp_path, small):
    store, encoder = CaptionStore(tmp_path, CARD), Encoder()
    write_older(store, words(12), 6)
    older = CaptionStore(tmp_path, CARD)
    assert len(older) == 12 and same(older.lookup(words(12)[::-1]), words(12)[::-1])
    assert holds_any(store.path / "part-00001.parquet", ["x", "text 2"])
    assert not holds_any(store.path / "part-00001.parquet", ["x", "text 5"])
    damaged = store.path / "part-00005.parquet"
    table = pq.read_table(damaged)
    pq.write_table(table.set_column(2, "norm", pa.array([1, 2], pa.float32())), damaged)
    assert same(CaptionStore(tmp_path, CARD).features(words(13), encoder), words(13))
    assert encoder.encoded == ["text 10", "text 11", "text 12"]
    names = files(store)
    assert "part-00005.parquet.broken-1" in names and "part-00004.parquet" in names
    assert "part-00000.parquet" not in names  # merged
    assert same(CaptionStore(tmp_path, CARD).lookup(words(13)), words(13))
    assert check_hashes(store.path) == []


def test_a_part_that_was_dropped_is_encoded_again_by_a_store_that_is_open(tmp_path):
    store, encoder = CaptionStore(tmp_path, CARD), Encoder()
    store.features(["a"], encode)
    store.features(["b"], encode)
    first = store.path / "part-00000.arrow"
    assert holds_any(first, ["a"]) and not holds_any(first, ["b"])
    assert not holds_any(first, [])
    drop_part(store.path, first.name)
    first.unlink()
    assert same(store.features(["a", "b"], encoder), ["a", "b"]) and encoder.encoded == ["a"]
    with pytest.raises(ArtifactError, match=r"part-00007.arrow: not readable"):
        read_keys(store.path / "part-00007.arrow")


def test_of_equal_keys_the_last_counts():
    rng, index, last = np.random.default_rng(0), TextIndex(), {}
    keys = rng.integers(0, 256, (50, 32), np.uint8)
    for n in range(0, 4000, 40):
        which = rng.integers(0, 50, 40)
        places = np.arange(n, n + 40)
        index.add(keys[which], places)
        last.update(zip(which.tolist(), places.tolist(), strict=True))
        assert index.find(keys).tolist() == [last.get(i, -1) for i in range(50)]
    assert len(index._runs) < 12


def test_wherever_a_writer_is_killed_nothing_is_lost(tmp_path, small):
    if why := crash.refused():
        pytest.skip(why)
    before = CaptionStore(tmp_path / "before", CARD)
    before.features(words(4), encode)
    for n in range(1, 200):
        folder = tmp_path / str(n)
        shutil.copytree(tmp_path / "before", folder)
        ended = crash.run(
            lambda: CaptionStore(folder, CARD).features(words(9), encode),  # noqa: B023
            folder,
            n,
        )
        store, encoder = CaptionStore(folder, CARD), Encoder()
        assert same(store.lookup(words(4)), words(4)), ended.calls[-1]
        assert check_hashes(store.path) == [], ended.calls[-1]
        assert same(store.features(words(9), encoder), words(9)), ended.calls[-1]
        assert same(store.features(words(10), encoder), words(10))
        listed = [part["file"] for part in read_manifest(store.path)["parts"]]
        assert files(store) == ["manifest.json", *sorted(listed)], ended.calls[-1]
        if not ended.reached:
            break
    assert n > 30 and json.dumps(ended.calls).count("unlink") >= 4
