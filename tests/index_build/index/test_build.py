"""The index over real files: built, tuned to a recall, measured, added to."""

import json

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_build.index import build as building
from index_build.index import tune as measuring
from index_build.index.build import add_rows, build_index, can_add, pick_key
from index_build.index.tune import IMAGES, make_recall_queries
from xmore.config.memory import IndexConfig
from xmore.files.digests import digest_file
from xmore.files.errors import SnapshotError

DIM, ROWS, SHARD = 32, 3000, 700
KEYS = ["Flat", "HNSW16", "IVF32,Flat", "IVF32,SQ8", "IVF32_HNSW8,SQ8", "SQ8"]


@pytest.fixture(autouse=True)
def one_thread():
    """Training a codebook of a few rows waits for its threads more than it works."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def features():
    """60 clusters of unit rows, as float16 holds them."""
    rng = np.random.default_rng(0)
    centres = unit(rng.standard_normal((60, DIM)))
    rows = unit(centres[rng.integers(0, 60, ROWS)] + 0.1 * rng.standard_normal((ROWS, DIM)))
    return rows.astype(np.float16)


@pytest.fixture
def folder(features, tmp_path):
    """A features folder with nothing but its rows."""
    folder = tmp_path / "features"
    for kind in ("img_emb", "metadata"):
        (folder / kind).mkdir(parents=True)
    for number, start in enumerate(range(0, ROWS, SHARD)):
        rows = features[start : start + SHARD]
        np.save(folder / "img_emb" / f"img_emb_{number:05d}.npy", rows)
        table = pa.table({"caption": ["a"] * len(rows)})
        pq.write_table(table, folder / "metadata" / f"metadata_{number:05d}.parquet")
    return folder


def recall_by_hand(folder, features, k):
    """Share of the k true neighbours, for the trial's queries, from the index as clients see it."""
    queries = make_recall_queries(building.unpublished(folder)).queries[IMAGES]
    truth = np.argsort(-(queries @ features.astype(np.float32).T), axis=1)[:, :k]
    found = faiss.read_index(str(folder / "image.index")).search(queries, k)[1]
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(found, truth, strict=True)])


@pytest.mark.parametrize("key", KEYS)
def test_an_index_reaches_its_target_and_its_facts_are_true(folder, features, key):
    facts = build_index(folder, IndexConfig(key=key, target_recall=0.9))
    path = folder / "image.index"
    assert (facts["key"], facts["bytes"]) == (key, path.stat().st_size)
    assert facts["sha256"] == digest_file(path)
    measured = facts["measured"]["of"][IMAGES]["recall"]
    assert list(measured) == ["1", "16", "128"] and measured["128"] >= 0.9
    for k in (1, 16, 128):
        assert measured[str(k)] == pytest.approx(recall_by_hand(folder, features, k), abs=2e-3)
    index = faiss.read_index(str(path))
    assert (index.ntotal, index.metric_type) == (ROWS, faiss.METRIC_INNER_PRODUCT)


def test_a_higher_target_raises_the_parameter_of_the_same_index(folder, monkeypatch):
    def parameter(target):
        facts = build_index(folder, IndexConfig(key="IVF64,SQ8", target_recall=target))
        index = faiss.read_index(str(folder / "image.index"))
        assert facts["parameters"] == f"nprobe={index.nprobe}"
        return index.nprobe, facts["measured"]["of"][IMAGES]["recall"]["128"]

    low, poor = parameter(0.6)
    monkeypatch.setattr(building, "_build", None)  # never again
    high, good = parameter(0.97)
    assert 1 <= low < high < 64 and 0.6 <= poor < 0.97 <= good
    assert parameter(0.6) == (low, poor)


def test_a_changed_key_builds_anew(folder):
    assert build_index(folder, IndexConfig(key="Flat"))["key"] == "Flat"
    assert build_index(folder, IndexConfig(key="HNSW8"))["key"] == "HNSW8"
    assert isinstance(faiss.read_index(str(folder / "image.index")), faiss.IndexHNSW)


def test_a_target_out_of_reach_names_what_would_do(folder):
    with pytest.raises(SnapshotError) as refused:
        build_index(folder, IndexConfig(key="IVF8,PQ8x4", target_recall=0.9))
    message = str(refused.value)
    assert "recall@128 is 0." in message and "at nprobe 8, the largest for IVF8,PQ8x4" in message
    factor = int(message.partition("`index.rerank: ")[2].partition("`")[0])
    facts = build_index(folder, IndexConfig(key="IVF8,PQ8x4", target_recall=0.9, rerank=factor))
    found = facts["measured"]["of"][IMAGES]
    assert found["without_rerank"]["128"] < 0.9 <= found["recall"]["128"]
    assert facts["rerank"] == factor


def test_queries_are_in_no_memory_and_near_the_rows(folder, features):
    trial = make_recall_queries(building.unpublished(folder))
    similarities = trial.queries[IMAGES] @ features.astype(np.float32).T
    assert list(trial.queries) == [IMAGES] and len(similarities) == measuring.QUERIES
    assert similarities.max() < 0.999 and similarities.max(1).min() > 0.9
    best = np.sort(similarities, axis=1)[:, -2:]
    assert np.median(best[:, 1] - best[:, 0]) > 0.005  # the first place is no tie


def test_captions_in_the_same_space_are_a_second_set_of_queries(folder, features):
    (folder / "text_emb").mkdir()
    for number, start in enumerate(range(0, ROWS, SHARD)):
        rows = -features[start : start + SHARD]
        np.save(folder / "text_emb" / f"text_emb_{number:05d}.npy", rows)
    trial = make_recall_queries(building.unpublished(folder))
    texts = trial.queries["captions"]
    assert (texts @ -features.astype(np.float32).T).max(1).min() > 0.999  # they are its texts
    truth = np.sort(texts @ features.astype(np.float32).T, axis=1)[:, ::-1][:, :128]
    np.testing.assert_allclose(trial.truth["captions"].similarities, truth, atol=1e-6)
    facts = build_index(folder, IndexConfig(key="Flat"))
    assert facts["measured"]["of"]["captions"]["recall"]["128"] > 0.99


def test_a_small_memory_and_one_of_copies_can_be_tried(folder):
    for path in [*folder.glob("*/*_0000[1-9].*")]:
        path.unlink()
    rows = np.load(folder / "img_emb" / "img_emb_00000.npy")
    np.save(folder / "img_emb" / "img_emb_00000.npy", rows[[0] * 5])
    pq.write_table(pa.table({"caption": ["a"] * 5}), folder / "metadata" / "metadata_00000.parquet")
    facts = build_index(folder, IndexConfig())
    assert facts["measured"]["queries"] == 5
    assert facts["measured"]["of"][IMAGES]["recall"]["128"] == 1


GB = 2**30


@pytest.mark.parametrize(
    ("rows", "dim", "memory", "key"),
    [
        (240, 512, 16 * GB, None),
        (500_000, 384, 16 * GB, None),  # autofaiss: HNSW
        (1_000_000, 384, 16 * GB, "IVF4096,Flat"),
        (1_000_000, 384, 1 * GB, "IVF4096,SQ8"),
        (500_000, 384, GB // 4, "IVF2048,SQ8"),
        (20_000_000, 512, 16 * GB, "IVF16384_HNSW32,SQ8"),
        (1_000_000, 384, GB // 8, None),  # autofaiss: OPQ and PQ
    ],
)
def test_the_key_is_picked_by_size(rows, dim, memory, key):
    assert pick_key(rows, dim, memory) == key


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"key": "nonsense"}, "could not parse index string nonsense"),
        ({"key": "IVF5000,Flat"}, "Number of training points (3000)"),
        ({"key": "IVF5000,SQ8"}, "Number of training points (3000)"),
        ({"key": "Flat", "memory_gb": 1e-4}, "autofaiss gives up within 0.0001 GiB"),
        ({"key": "IVF16,SQ8", "memory_gb": 1e-4}, "more than `index.memory_gb` 0.0001"),
        ({"memory_gb": 1e-6}, "gives up within"),
    ],
)
def test_an_index_that_cannot_be_built(folder, config, says):
    with pytest.raises(SnapshotError) as refused:
        build_index(folder, IndexConfig(**config))
    message = str(refused.value)
    assert says in message and "\n" not in message and "The embeddings are kept" in message
    assert not (folder / "image.index").exists() and not [*folder.parent.glob("*.index.json")]


def test_a_killed_build_is_begun_anew(folder):
    build_index(folder, IndexConfig(key="Flat"))
    (folder / "image.index").write_bytes(b"half")
    (folder.parent / "features.index.json").unlink()
    assert (
        build_index(folder, IndexConfig(key="Flat"))["measured"]["of"][IMAGES]["recall"]["1"] == 1
    )


@pytest.mark.parametrize("key", ["Flat", "HNSW16", "IVF16,Flat", "IVF16,SQ8", "PCA16,IVF16,PQ8x4"])
def test_rows_added_are_found_at_their_positions(folder, features, tmp_path, key):
    rows = features.astype(np.float32)
    index = faiss.index_factory(DIM, key, faiss.METRIC_INNER_PRODUCT)
    index.train(rows[:2000])
    index.add(rows[:2000])
    old, new = tmp_path / "old.index", folder / "image.index"
    faiss.write_index(index, str(old))
    before = digest_file(old)
    assert can_add(old)
    add_rows(old, 2000, iter([(2000, rows[2000:2001]), (2001, rows[2001:])]), new)
    assert digest_file(old) == before
    if key == "Flat":  # an index takes the rows as one that had them all along would
        index.add(rows[2000:])
        assert new.read_bytes() == faiss.serialize_index(index).tobytes()
    found = faiss.read_index(str(new)).search(rows[2000:], 64)[1]
    assert (found == np.arange(2000, 3000)[:, None]).any(1).mean() > 0.97
    facts = building.tune_index(
        building.unpublished(folder), key, IndexConfig(key=key, target_recall=0.9, rerank=4)
    )
    assert facts["measured"]["of"][IMAGES]["recall"]["128"] >= 0.9


def test_rows_that_do_not_follow_are_refused(features, tmp_path):
    rows = features.astype(np.float32)
    index = faiss.IndexFlatIP(DIM)
    index.add(rows[:10])
    old, new = tmp_path / "old.index", tmp_path / "new.index"
    faiss.write_index(index, str(old))
    for start, blocks, says in (
        (9, [(9, rows[9:12])], "has 10 rows, expected 9"),
        (10, [(10, rows[10:12]), (13, rows[13:14])], "got row 13 to add, expected row 12"),
    ):
        with pytest.raises(SnapshotError, match=says):
            add_rows(old, start, blocks, new)
    old.write_bytes(old.read_bytes()[:100])
    with pytest.raises(SnapshotError, match="not a readable index"):
        add_rows(old, 10, [], new)
    assert [path.name for path in tmp_path.iterdir()] == ["old.index"]


def test_an_index_that_cannot_be_added_to(features, tmp_path):
    index = faiss.index_factory(DIM, "PQ8x4", faiss.METRIC_INNER_PRODUCT)
    index.train(features.astype(np.float32))
    faiss.write_index(index, str(tmp_path / "pq.index"))
    assert not can_add(tmp_path / "pq.index")


def test_the_facts_are_json(folder):
    json.dumps(build_index(folder, IndexConfig(key="Flat", rerank=2)), allow_nan=False)
