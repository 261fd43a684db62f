"""What was made before a model's identity had its tokenizer is opened and used, not made again."""

import json
import logging
import shutil
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sharing import same_rows

from flows.benchmark import xmore_benchmark
from flows.reco_train import xmore_reco_train
from flows.reindex import xmore_reindex
from xmore.config.reco import RecoTrainConfig
from xmore.files.errors import SnapshotError
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.models import spec
from xmore.models.encoder import OpenClipEncoder
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows


@pytest.fixture(scope="module")
def older(world, tmp_path_factory) -> SimpleNamespace:
    """A memory by a model with a tokenizer, RECO's layers trained on it, and a run of them."""
    root = tmp_path_factory.mktemp("older")
    lite0 = shutil.copytree(world.root / "models" / "lite0", root / "lite0")
    named = {"model_name": "lite0", "model": {"folder": lite0}}
    memory = world.memory_config(memory=root / "memory", index={"text": True}, **named)
    training = RecoTrainConfig.model_validate(
        {"name": "tiny", "memory": memory.memory, "held_out": 0.2, "k": 4, "epochs": 1}
        | {"output": root / "reco", "batch_size": 32, "cache": root / "cache"}
        | named
    )
    config = world.config(
        root / "results",
        memory=memory.memory,
        models={"lite0": {"folder": lite0}},
        roles={"inference": ["lite0"], "coarse": "lite0", "fine": "lite0"},
        methods=["clip", "xmore", "reco"],
        options={"reco": {"checkpoint": root / "reco"}},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec, "tokenizer_digest", lambda *_: None)
        xmore_reindex.fn(memory)
        xmore_reco_train.fn(training)
        name = xmore_benchmark.fn(config)
    snapshot = open_snapshot(memory.memory, resolve_current(memory.memory))
    assert "tokenizer" not in snapshot.manifest["model"]["identity"]
    return SimpleNamespace(memory=memory, training=training, config=config, run=name, lite0=lite0)


def test_a_memory_is_unchanged_and_a_checkpoint_is_trained(older):
    assert xmore_reindex.fn(older.memory).skipped
    assert xmore_reco_train.fn(older.training).skipped


def test_a_new_row_is_added_to_such_a_memory(older, world, encoded, tmp_path):
    memory = shutil.copytree(older.memory.memory, tmp_path / "memory")
    rows = read_captions(world)
    rows.append(rows[0] | {"caption": "one more"})
    captions = write_captions(tmp_path, rows)
    images = {"folder": world.images, "captions": captions}
    changed = older.memory.model_dump() | {"memory": memory, "sources": [{"images": images}]}
    result = xmore_reindex.fn(type(older.memory).model_validate(changed))
    assert not result.skipped and encoded["images"] <= 1


def read_captions(world) -> list[dict]:
    return pq.read_table(world.root / "captions.parquet").to_pylist()


def write_captions(folder, rows):
    pq.write_table(pa.Table.from_pylist(rows), folder / "captions.parquet")
    return folder / "captions.parquet"


def test_a_run_encodes_its_texts_once_more_and_says_so(older, monkeypatch, caplog):
    images = []
    monkeypatch.setattr(OpenClipEncoder, "start_images", lambda *a: images.append(a))
    with caplog.at_level(logging.WARNING):
        name = xmore_benchmark.fn(older.config)
    before, after = (load_run(older.config.results, run) for run in (older.run, name))
    skipped = {ref.stage: ref.skipped for ref in after.artifacts}
    assert not images and skipped["query_embeddings"] and skipped["candidates"]
    assert not skipped["scores"] and not skipped["method_scores"]
    assert caplog.text.count("texts are encoded again, once") == 1
    for stage in ("captions", "scores", "method_scores"):
        old, new = (next(r for r in run.artifacts if r.stage == stage) for run in (before, after))
        assert same_rows(read_rows(old), read_rows(new)), stage
    caplog.clear()
    again = load_run(older.config.results, xmore_benchmark.fn(older.config, again=True))
    assert all(ref.skipped for ref in again.artifacts) and "again" not in caplog.text


def test_a_memory_that_knows_its_tokenizer_is_not_that_of_another(world, tmp_path):
    lite0 = shutil.copytree(world.root / "models" / "lite0", tmp_path / "lite0")
    named = {"model_name": "lite0", "model": {"folder": lite0}}
    memory = world.memory_config(memory=tmp_path / "memory", **named)
    xmore_reindex.fn(memory)
    config = world.config(
        tmp_path / "results",
        memory=memory.memory,
        models={"lite0": {"folder": lite0}},
        roles={"inference": ["lite0"], "coarse": "lite0", "fine": "lite0"},
    )
    file = lite0 / "text" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_lower_case": False}))
    with pytest.raises(SnapshotError, match="is not the coarse model"):
        xmore_benchmark.fn(config)
    assert not xmore_reindex.fn(memory).skipped
    snapshot = open_snapshot(memory.memory, resolve_current(memory.memory))
    assert snapshot.manifest["model"]["identity"]["tokenizer"]
    xmore_benchmark.fn(config)
