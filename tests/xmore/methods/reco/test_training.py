"""RECO on planted memories: whose neighbours are whose, what training is worth, what kills cost."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xmore.config.reco import RecoTrainConfig
from xmore.files.errors import ConfigError, SnapshotError
from xmore.memory.rows import embeddings_of
from xmore.memory.snapshot import open_snapshot
from xmore.methods.reco.neighbours import (
    JointMemory,
    Searcher,
    fused_rows,
    joint_memory,
    split_rows,
)
from xmore.methods.reco.training import Training, TrainingPairs, batch_of, prepare, retrieval, train
from xmore.models.spec import ModelCard, ModelSpec

DIM = 32  # of what both sides share, and of each trait
SPEC = ModelSpec(folder="nowhere")
CARD = ModelCard("m", SPEC, {"weights_sha256": "0" * 64})


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def publish(folder, images, texts, captions, shard=500):
    """A snapshot of some embeddings, as far as RECO reads one."""
    path = folder / "snapshots" / "planted"
    files = []
    for place, start in enumerate(range(0, len(images), shard)):
        some = slice(start, start + shard)
        for kind, rows in (("img_emb", images), ("text_emb", texts)):
            (path / kind).mkdir(parents=True, exist_ok=True)
            np.save(path / kind / f"{kind}_{place:05d}.npy", rows[some].astype(np.float16))
        (path / "metadata").mkdir(exist_ok=True)
        table = {"memory_key": [f"{i:064d}" for i in range(len(captions))][some],
                 "caption": captions[some]}  # fmt: skip
        pq.write_table(pa.table(table), path / "metadata" / f"metadata_{place:05d}.parquet")
    manifest = {"digest": "d", "rows": len(images), "dim": images.shape[1], "files": files,
                "model": {"name": "m", "identity": CARD.identity}, "index": None}  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(manifest))
    (folder / "CURRENT").write_text("planted\n")
    return open_snapshot(folder, "planted")


def planted(folder, concepts=900, each=6, noise=1.0, seed=0):
    """Pairs of a concept whose two sides agree but for noise, each pair's own.

    Rows of a concept also share a trait within their modality, which the other's has not: it is
    what neighbours are found by. Their mean is nearly free of noise.
    """
    rng = np.random.default_rng(seed)
    of = rng.permutation(np.repeat(np.arange(concepts), each))
    shared, *traits = (unit(rng.standard_normal((concepts, DIM)))[of] for _ in range(3))
    sides = []
    for number, trait in enumerate(traits):
        noisy = shared + noise * unit(rng.standard_normal(shared.shape))
        apart = [trait, np.zeros_like(trait)]
        sides.append(unit(np.hstack([noisy, *(apart if number else apart[::-1])])))
    return publish(folder, *sides, [f"a caption {i}" for i in range(len(of))])


def config_for(folder, **changes):
    values = {"memory": folder, "model": SPEC, "output": folder / "out", "k": 5, "heads": 4,
              "epochs": 2, "batch_size": 64, "learning_rate": 1e-3, "held_out": 0.05}  # fmt: skip
    return RecoTrainConfig.model_validate(values | changes)


def training_of(folder, snapshot, **changes):
    config = config_for(folder, **changes)
    memory = joint_memory(snapshot, "m", CARD.identity)
    return Training(config.recipe, CARD, memory, config.output, config.every)


def first_places(rows):
    """recall@1 of images, then of texts."""
    return [row for row in rows if row["k"] == 1]


@pytest.mark.slow
def test_neighbours_take_noise_away_and_those_of_a_shuffled_memory_do_not(tmp_path):
    training = training_of(tmp_path, planted(tmp_path), epochs=1)
    pairs, held_out = prepare(training)
    model, _ = train(training, pairs)
    for row in first_places(retrieval(training, model, held_out)):
        assert 0.4 < row["before"][0] < 0.7 and row["after"][0] > 0.8
        assert row["difference"][1] > 0.1 and row["p"] < 1e-6
    rng = np.random.default_rng(1)

    def shuffled(pairs):
        """Each pair with other pairs' neighbours."""
        sides = pairs.neighbours.items()
        return TrainingPairs(pairs.ids, {side: rng.permutation(rows) for side, rows in sides})

    other = training_of(tmp_path, training.memory.image, epochs=1, output=tmp_path / "shuffled")
    other.folder.mkdir(parents=True)
    model, _ = train(other, shuffled(pairs))
    for row in first_places(retrieval(other, model, shuffled(held_out))):
        assert row["after"][0] < row["before"][0] + 0.02 and row["difference"][1] < 0


def test_retrieval_is_counted_before_and_after(tmp_path):
    """Against recall@k written out; an untrained model changes nothing."""
    training = training_of(tmp_path, planted(tmp_path, concepts=60))
    pairs, held_out = prepare(training)
    untrained, _ = train(training_of(tmp_path, training.memory.image, learning_rate=1e-30), pairs)
    images, texts = (embeddings_of(training.memory.of(k), held_out.ids) for k in ("image", "text"))
    _, losses = train(training_of(tmp_path, training.memory.image, epochs=3), pairs)
    assert len(losses) == 3 and losses == sorted(losses, reverse=True)
    rows = retrieval(training, untrained, held_out)
    assert [(row["query"], row["k"]) for row in rows] == [
        (query, k) for query in ("image", "text") for k in (1, 5, 10)
    ]
    for row in rows:
        queries, wanted = (images, texts) if row["query"] == "image" else (texts, images)
        better = [np.sum(wanted @ q > w @ q + 1e-6) for q, w in zip(queries, wanted, strict=True)]
        share = np.mean([rank < row["k"] for rank in better])
        assert row["before"][0] == row["after"][0] == pytest.approx(share)
        assert row["before"][1] <= share <= row["before"][2] and row["n"] == len(better) == 18
        assert row["difference"] == [0, 0, 0] and row["p"] == 1


def by_hand(memory, split, side, row, k, search, duplicates):
    """Every row looked at, one by one."""
    rows = memory.image.rows
    images, texts = (embeddings_of(memory.of(kind), np.arange(rows)) for kind in ("image", "text"))
    query = (images if side == "image" else texts)[row]
    same = (side == "image") == (search == "uni-modal")
    ranked = sorted(range(rows), key=lambda j: (-float(query @ (images if same else texts)[j]), j))
    found = [
        j
        for j in ranked
        if j != row
        and split.bank[j]
        and split.captions[j] != split.captions[row]
        and images[j] @ images[row] < duplicates
        and texts[j] @ texts[row] < duplicates
    ][:k]
    return found + [-1] * (k - len(found))


@pytest.fixture
def small(tmp_path):
    """90 rows, among them copies, near duplicates, repeated and empty captions."""
    rng = np.random.default_rng(3)
    images, texts = unit(rng.standard_normal((90, 8))), unit(rng.standard_normal((90, 8)))
    captions = [f"caption {i % 70}" for i in range(90)]
    images[40:60] = unit(images[0] + 0.05 * rng.standard_normal((20, 8)))
    texts[55:80] = unit(texts[3] + 0.05 * rng.standard_normal((25, 8)))
    captions[7] = captions[30] = ""
    return publish(tmp_path, images, texts, captions, shard=40)


@pytest.mark.parametrize("search", ["uni-modal", "cross-modal"])
@pytest.mark.parametrize("k", [3, 20, 80])
def test_neighbours_equal_a_slow_search(small, tmp_path, search, k):
    """k = 80 is more than there are for any row."""
    training = training_of(tmp_path, small, k=k, search=search, duplicates=0.9, held_out=0.2)
    pairs, held_out = prepare(training)
    split = split_rows(small, 0.2, 0)
    assert (held_out.ids == split.held_out).all() and len(held_out.ids) == 14
    for part in (pairs, held_out):
        assert sorted(part.neighbours) == ["image", "text"]
        for side, found in part.neighbours.items():
            for place in range(0, len(part.ids), 5):
                expected = by_hand(training.memory, split, side, part.ids[place], k, search, 0.9)
                assert found[place].tolist() == expected, (side, part.ids[place])


def test_held_out_captions_are_nowhere_in_training(small, tmp_path):
    training = training_of(tmp_path, small, duplicates=0.9, held_out=0.2)
    pairs, held_out = prepare(training)
    captions = [row for s in small.shards
                for row in pq.read_table(s.metadata)["caption"].to_pylist()]  # fmt: skip
    measured = {captions[i] for i in held_out.ids}
    assert len(measured) == len(held_out.ids) and "" not in measured
    used = np.concatenate([pairs.ids, *(rows[rows >= 0] for part in (pairs, held_out)
                                        for rows in part.neighbours.values())])  # fmt: skip
    assert not measured & {captions[i] for i in used} and "" not in {captions[i] for i in used}
    for kind in ("image", "text"):  # nor is what looks, or reads, like it
        view = training.memory.of(kind)
        similar = embeddings_of(view, held_out.ids) @ embeddings_of(view, pairs.ids).T
        assert similar.max() < 0.9
    other = split_rows(small, 0.2, 1).held_out
    assert set(other) != set(held_out.ids), "the seed draws them"


def test_a_side_fuses_the_other_modality(small, tmp_path):
    memory = joint_memory(small, "m", CARD.identity)
    ids = np.array([[5, -1], [88, 0]])
    rows, missing = fused_rows(memory, "image", ids)
    assert missing.tolist() == [[False, True], [False, False]]
    np.testing.assert_array_equal(rows[1], embeddings_of(memory.text, ids[1]))
    assert not rows[0, 1].any()
    rows, _ = fused_rows(memory, "text", ids)
    np.testing.assert_array_equal(rows[0, 0], embeddings_of(memory.image, ids[0, :1])[0])
    pairs = TrainingPairs(np.array([2, 9]), {"text": ids})
    batch = batch_of(memory, pairs, np.array([1]), "cpu")
    np.testing.assert_array_equal(batch.original[1], embeddings_of(memory.text, np.array([9])))
    assert list(batch.retrieved) == ["text"]


@pytest.mark.parametrize("side", ["image", "text"])
def test_one_side_alone(small, tmp_path, side):
    training = training_of(tmp_path, small, sides=side, held_out=0.2, epochs=1, batch_size=8)
    pairs, held_out = prepare(training)
    model, _ = train(training, pairs)
    assert list(model.fusions) == list(pairs.neighbours) == [side]
    batch = batch_of(training.memory, held_out, np.arange(3), "cpu")
    changed = [not np.array_equal(a, b.detach())
               for a, b in zip(batch.original, batch.refined(model), strict=True)]  # fmt: skip
    assert changed == [side == "image", side == "text"]


TRAIN = """
import sys
from pathlib import Path
import test_training as planted
from tasks.reco import train_layers
from xmore.memory.snapshot import open_snapshot
folder, output = Path(sys.argv[1]), Path(sys.argv[1], sys.argv[2])
changes = {"every": 5, "epochs": 30}
snapshot = open_snapshot(folder, "planted")
config = planted.config_for(folder, output=output, **changes)
train_layers.fn(config, planted.training_of(folder, snapshot, output=output, **changes))
"""


def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, warm):
    planted(tmp_path, concepts=40)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}

    def begin(output):
        return warm.code(TRAIN, tmp_path, output, environment=environment)

    undisturbed = begin("undisturbed").end()
    assert undisturbed[0] == 0, undisturbed
    process, killed, until = begin("killed"), tmp_path / "killed", time.monotonic() + 60
    while not [*killed.glob("training-*/state.safetensors")]:
        assert time.monotonic() < until
        time.sleep(0.001)
    process.child.send_signal(signal.SIGKILL)
    assert process.end()[0] == -signal.SIGKILL and not (killed / "reco.json").exists()
    again = begin("killed").end()
    assert again[0] == 0, again
    written = [
        {path.name: path.read_bytes() for path in folder.glob("reco*")}
        for folder in (killed, tmp_path / "undisturbed")
    ]
    assert written[0] == written[1] and len(written[0]) == 2  # weights and facts


def test_a_training_goes_on_at_its_step(small, tmp_path, monkeypatch):
    """What was found and trained is not done again; another config begins anew."""
    training = training_of(tmp_path, small, held_out=0.2, epochs=4, batch_size=8, every=3)
    pairs, _ = prepare(training)
    calls = []
    monkeypatch.setattr(
        "xmore.methods.reco.training.alignment", lambda *a: calls.append(a) or stop(len(calls))
    )

    def stop(count):
        from xmore.methods.reco.loss import alignment

        if count == 8:
            raise KeyboardInterrupt
        return alignment(*calls[-1])

    with pytest.raises(KeyboardInterrupt):
        train(training, pairs)
    calls.clear()
    total = 4 * (len(pairs.ids) // 8)
    monkeypatch.setattr("xmore.methods.reco.training.split_rows", None)  # never again
    monkeypatch.setattr(Searcher, "__call__", None)
    again, _ = prepare(training)
    assert (again.ids == pairs.ids).all()
    monkeypatch.setattr(
        "xmore.methods.reco.training.alignment", lambda *a: calls.append(a) or stop(9)
    )
    train(training, again)
    assert len(calls) == total - 6, "six steps were kept of seven"
    other = training_of(tmp_path, small, held_out=0.2, epochs=4, batch_size=8, every=3, seed=1)
    assert other.folder != training.folder


def test_another_model_or_none_or_no_texts_are_refused(small):
    with pytest.raises(SnapshotError, match="was embedded by `m`, which is not `n`"):
        joint_memory(small, "n", {"weights_sha256": "1" * 64})
    small.manifest["model"] = None
    with pytest.raises(SnapshotError, match="names no model"):
        joint_memory(small, "m", CARD.identity)
    small.manifest["model"] = {"name": "m", "identity": CARD.identity}
    shutil.rmtree(small.path / "text_emb")
    with pytest.raises(SnapshotError, match="no embeddings of its captions"):
        joint_memory(small, "m", CARD.identity)


def test_too_few_captions_or_too_many_duplicates_are_refused(small, tmp_path):
    with pytest.raises(SnapshotError, match="distinct captions, of which 1 would be held out"):
        split_rows(small, 0.01, 0)
    with pytest.raises(ConfigError, match=r"`duplicates` 0\.0001"):
        prepare(training_of(tmp_path, small, duplicates=0.0001, held_out=0.3))


def test_a_memory_too_large_for_exact_search_needs_its_text_index(small, monkeypatch):
    monkeypatch.setattr("xmore.memory.cost.EXACT_MAX_MACS", 1)
    memory = joint_memory(small, "m", CARD.identity)
    assert isinstance(memory, JointMemory)
    with pytest.raises(SnapshotError, match=r"has no image\.index"):
        _ = training_of(small.path.parents[1], small).digest
    with pytest.raises(SnapshotError, match=r"has no text\.index.*`index\.text: true`"):
        _ = training_of(small.path.parents[1], small, sides="text").digest
