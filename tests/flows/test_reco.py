"""RECO from a memory to a leaderboard: trained by its flow, then a method of a benchmark."""

import contextlib
import json
import math
import os
import random
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reco_literal import fuse
from sharing import unsealed
from typer.testing import CliRunner

from flows.benchmark import xmore_benchmark
from flows.cli.main import commands
from flows.plan import look_up
from flows.reco_train import xmore_reco_train
from flows.reindex import xmore_reindex
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import load_config
from xmore.config.reco import RecoTrainConfig
from xmore.files.errors import ConfigError, LockedError, ModelError, SnapshotError
from xmore.files.locks import is_locked, locked
from xmore.memory import adopt
from xmore.memory.locks import lock_of
from xmore.memory.rows import captions_of, embeddings_of
from xmore.memory.snapshot import open_snapshot, resolve_current, seen_by
from xmore.methods.reco.checkpoint import read_checkpoint
from xmore.models.spec import describe_model
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows

K = 4


@pytest.fixture(scope="module")
def memory(world, tmp_path_factory) -> Path:
    """70 of the world's drawings by lite0, images and captions; each sixth has no caption."""
    root = tmp_path_factory.mktemp("joint")
    rows = pq.read_table(world.root / "captions.parquet").slice(0, 70).to_pylist()
    for row in rows[::6]:
        row["caption"] = ""
    pq.write_table(pa.Table.from_pylist(rows), root / "captions.parquet")
    config = world.memory_config(
        root / "captions.parquet",
        memory=root / "memory",
        model_name="lite0",
        model={"folder": world.root / "models" / "lite0"},
        index={"text": True},
        shard_rows=40,
    )
    xmore_reindex.fn(config)
    return config.memory


@pytest.fixture(scope="module")
def training(world, memory) -> RecoTrainConfig:
    values = {"name": "tiny", "memory": memory, "model_name": "lite0", "held_out": 0.2,
              "model": {"folder": world.root / "models" / "lite0"}, "k": K, "epochs": 2,
              "output": memory.parent / "out", "batch_size": 8, "learning_rate": 1e-3,
              "cache": memory.parent / "cache"}  # fmt: skip
    return RecoTrainConfig.model_validate(values)


@pytest.fixture(scope="module")
def trained(training) -> RecoTrainConfig:
    """Trained once; no test may change it."""
    assert not xmore_reco_train.fn(training).skipped
    return training


def test_a_checkpoint_says_where_it_comes_from(trained, memory):
    facts = json.loads((trained.output / "reco.json").read_text())
    snapshot = open_snapshot(memory, resolve_current(memory))
    assert facts["snapshot"] == {"name": snapshot.name, "digest": snapshot.digest}
    assert facts["model"] == snapshot.manifest["model"] and facts["memory"] == str(memory)
    assert facts["parameters"] == asdict(trained.recipe) and facts["parameters"]["k"] == K
    assert facts["pairs"]["held_out"] >= 10 and len(facts["losses"]) == 2
    assert facts["versions"]["torch"]
    assert len(facts["retrieval"]) == 6
    layers = read_checkpoint(trained.output).layers()
    assert sorted(layers.fusions) == ["image", "text"]


def test_a_second_run_does_nothing_and_another_config_trains_again(trained, monkeypatch):
    before = (trained.output / "reco.json").stat().st_mtime_ns
    (trained.output / "training-killed").mkdir()
    assert xmore_reco_train.fn(trained).skipped
    assert (trained.output / "reco.json").stat().st_mtime_ns == before
    assert not [*trained.output.glob("training-*")]
    other = trained.model_copy(update={"epochs": 1, "output": trained.output.with_name("other")})
    shutil.copytree(trained.output, other.output)
    assert not xmore_reco_train.fn(other).skipped
    assert read_checkpoint(other.output).facts["parameters"]["epochs"] == 1


def test_it_is_shown_on_the_command_line_and_in_prefect(trained, tmp_path):
    path = tmp_path / "reco.yaml"
    data = trained.model_dump(mode="json", exclude_unset=True)
    path.write_text(json.dumps(data | {"output": "relative"}))
    shutil.copytree(trained.output, tmp_path / "relative")
    answer = CliRunner().invoke(commands, ["reco-train", str(path)])
    assert answer.exit_code == 0, answer.output
    row = json.loads((trained.output / "reco.json").read_text())["retrieval"][1]
    assert "image to text" in answer.output and "Nothing to do" in answer.output
    for key in ("before", "after"):
        share, low, high = (100 * value for value in row[key])
        assert f"{share:.1f} [{low:.1f}, {high:.1f}]" in answer.output


def test_a_flow_run_leaves_its_table(trained, monkeypatch):
    left = []
    monkeypatch.setattr("flows.reco_train.in_flow_run", lambda: True)
    monkeypatch.setattr(
        "flows.reco_train.create_table_artifact", lambda *a, **k: left.append((a, k))
    )
    xmore_reco_train.fn(trained)
    (((table,), told),) = left
    assert told["key"] == "reco-tiny" and len(table) == 6
    assert list(table[0])[:4] == ["query", "recall", "before", "after"]


def config_of(world, done_again, checkpoint, **changes) -> BenchmarkConfig:
    options = {"reco": {"checkpoint": checkpoint}}
    values = {"methods": ["clip", "reco"], "options": options} | changes
    return world.config(done_again.results, **values)


def test_the_method_equals_its_formula(world, trained, memory, done_again):
    config = config_of(world, done_again, trained.output)
    run = load_run(config.results, xmore_benchmark.fn(config))
    (own,) = [ref for ref in run.artifacts if ref.stage == "method_scores"]
    (embedded,) = [r for r in run.artifacts if r.stage == "query_embeddings" and r.model == "lite0"]
    queries = np.array(read_rows(embedded)["embedding"].to_pylist(), np.float32)
    got = np.array(read_rows(own)["class_scores"].to_pylist())

    from tasks.stage import Workspace
    from tasks.texts import TextEncoder

    card = describe_model("lite0", config.model("lite0"), config.results / "cache")
    encoder = TextEncoder(Workspace(config.results, config.execution), card)
    (classes,) = [ref for ref in run.artifacts if ref.stage == "classes"]
    prompts = [prompts[0] for prompts in read_rows(classes)["prompts"].to_pylist()]
    snapshot = open_snapshot(memory, resolve_current(memory))
    rows = {
        side: embeddings_of(seen_by(snapshot, side), np.arange(70)) for side in ("image", "text")
    }
    captions = captions_of(snapshot, np.arange(70)).to_pylist()
    layers = read_checkpoint(trained.output).layers()
    assert captions.count("") >= 12

    def refined(side, query):
        ranked = sorted(range(70), key=lambda j: (-float(query @ rows[side][j]), j))[:K]
        lent = rows["text" if side == "image" else "image"][ranked]
        return fuse(layers.fusions[side].layer, query, lent, [not captions[j] for j in ranked])

    texts = [refined("text", query) for query in encoder.features(prompts).unit]
    tau = json.loads((Path(embedded.path) / "manifest.json").read_text())["facts"]["logit_scale"]
    for query, scores in zip(queries, got, strict=True):
        image = refined("image", query)
        powers = [math.exp(tau * float(image @ text)) for text in texts]
        np.testing.assert_allclose(scores, [p / sum(powers) for p in powers], rtol=0, atol=1e-5)
    (metrics,) = [ref for ref in run.artifacts if ref.stage == "metrics"]
    told = {row["method"]: row for row in read_rows(metrics).to_pylist()}
    settings = json.loads(told["reco"]["hyperparameters"])
    assert settings["k"] == {"value": K, "source": "fixed"}

    again = load_run(config.results, xmore_benchmark.fn(config, again=True))
    assert all(ref.skipped for ref in again.artifacts)


def test_shuffled_labels_change_no_prediction(world, trained, done_again, unmoved):
    config = config_of(world, done_again, trained.output)
    unmoved(load_run(config.results, xmore_benchmark.fn(config)), config)


def test_another_memory_and_other_weights_are_other_scores(world, trained, memory, done_again):
    from xmore.methods.base import MethodRequest
    from xmore.methods.registry import METHODS

    def identity(checkpoint, **changes):
        config = config_of(world, done_again, checkpoint)
        options = config.options.model_copy(
            update={"reco": config.options.reco.model_copy(update=changes)}
        )
        return METHODS["reco"].identity(MethodRequest("tiny", 24, None, options))

    mine = identity(trained.output)
    assert identity(trained.output, memory=memory) == mine, "the same snapshot by another way"
    other = trained.output.with_name("seed")
    xmore_reco_train.fn(trained.model_copy(update={"seed": 3, "output": other}))
    assert identity(other)["weights_sha256"] != mine["weights_sha256"]


def test_paths_in_a_benchmarks_config_are_relative_to_it(world, done_again, tmp_path):
    config = config_of(world, done_again, Path("/x"))
    data = config.model_dump(mode="json", exclude_unset=True)
    data["options"] = {"reco": {"checkpoint": "trained", "memory": "../m"}}
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    read = load_config(tmp_path / "run.yaml", BenchmarkConfig).options.reco
    assert (read.checkpoint, read.memory) == (tmp_path / "trained", tmp_path.parent / "m")


def no_checkpoint(world, again, trained, folder):
    return config_of(world, again, None), ConfigError, "needs trained layers"


def absent_checkpoint(world, again, trained, folder):
    return config_of(world, again, folder), ModelError, "no checkpoint of `reco`"


def changed_weights(world, again, trained, folder):
    shutil.copytree(trained.output, folder / "out")
    (weights,) = (folder / "out").glob("reco-*.safetensors")
    with weights.open("ab") as stream:
        stream.write(b"x")
    return config_of(world, again, folder / "out"), ModelError, "differ from those of the training"


def another_model(world, again, trained, folder):
    roles = {"inference": ["lite2"], "coarse": "lite0-pooled", "fine": "lite0"}
    config = config_of(world, again, trained.output, roles=roles)
    return config, ModelError, "not the inference model `lite2`"


def snapshot_gone(world, again, trained, folder):
    shutil.copytree(trained.output, folder / "out")
    facts = unsealed(json.loads((folder / "out" / "reco.json").read_text()))
    facts["snapshot"]["name"] = "gone"
    (folder / "out" / "reco.json").write_text(json.dumps(facts))
    return config_of(world, again, folder / "out"), SnapshotError, "on which `reco` was trained"


def memory_of_another_model(world, again, trained, folder):
    options = {"reco": {"checkpoint": trained.output, "memory": world.root / "memory"}}
    return config_of(world, again, None, options=options), SnapshotError, "embedded by"


@pytest.mark.parametrize(
    "case",
    [no_checkpoint, absent_checkpoint, changed_weights, another_model, snapshot_gone,
     memory_of_another_model],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_the_run(case, world, done_again, trained, tmp_path):
    config, kind, says = case(world, done_again, trained, tmp_path)
    before = [*(config.results / "runs").glob("*")]
    with pytest.raises(kind, match=says) as refused:
        xmore_benchmark.fn(config)
    assert "\n" not in str(refused.value) and [*(config.results / "runs").glob("*")] == before


def test_its_memory_is_locked_then_compared_then_read(
    world, done_again, trained, memory, tmp_path, monkeypatch
):
    shutil.copytree(memory, tmp_path / "memory")
    config = config_of(world, done_again, trained.output)
    options = {"reco": {"checkpoint": trained.output, "memory": tmp_path / "memory"}}
    config = BenchmarkConfig.model_validate(config.model_dump() | {"options": options})
    opened, open_it = [], adopt.open_snapshot

    def locked_first(folder, name):
        opened.append((folder, is_locked(lock_of(folder, name))))
        return open_it(folder, name)

    monkeypatch.setattr(adopt, "open_snapshot", locked_first)
    look_up_methods(config)
    assert (tmp_path / "memory", True) in opened and all(was for _, was in opened)
    path = min((tmp_path / "memory" / "snapshots").glob("*/text_emb/*.npy"))
    flip_a_bit(path, 0)
    with pytest.raises(SnapshotError, match="its bytes differ from those that were published"):
        look_up_methods(config)


@pytest.mark.parametrize("n", range(20 if int(os.environ.get("XMORE_KILLS", 1)) > 1 else 3))
@pytest.mark.parametrize("name", ["reco.json", "reco-*.safetensors"])
def test_a_flip_in_a_checkpoint_is_seen(world, done, trained, xmore, tmp_path, name, n):
    shutil.copytree(trained.output, tmp_path / "out")
    shutil.copytree(done.config.results / "runs" / done.name, tmp_path / "runs" / "of-reco")
    run = load_run(tmp_path, "of-reco")
    run.config["options"]["reco"] = {"checkpoint": str(tmp_path / "out")}
    run.artifacts = []  # they are not copied
    run.save()
    verify = ("verify", "--all", "--results", tmp_path)
    assert xmore(*verify).returncode == 0
    flip_a_bit(next((tmp_path / "out").glob(name)), n)
    answer = xmore(*verify)
    assert answer.returncode == 1 and str(tmp_path / "out") in answer.stdout, answer
    with contextlib.suppress(ModelError):  # or it says the same, as with 1E-05
        facts = read_checkpoint(tmp_path / "out").facts
        assert facts == read_checkpoint(trained.output).facts


def look_up_methods(config) -> None:
    with adopt.open_memory(config.memory, config.results / "cache") as snapshot:
        look_up(config, snapshot)


def flip_a_bit(path: Path, n: int) -> None:
    chosen, data = random.Random(f"{path.name} {n}"), bytearray(path.read_bytes())
    data[chosen.randrange(len(data))] ^= 1 << chosen.randrange(8)
    path.write_bytes(data)


def test_training_refuses_in_one_line(world, training, tmp_path):
    def refused(kind, says, **changes):
        with pytest.raises(kind, match=says) as error:
            xmore_reco_train.fn(training.model_copy(update={"output": tmp_path, **changes}))
        assert "\n" not in str(error.value) and not [*tmp_path.glob("training-*")]

    refused(ConfigError, "`heads` must divide the model's 384 dimensions, got 7", heads=7)
    refused(SnapshotError, "was embedded by `lite0-pooled`", memory=world.root / "memory")
    refused(SnapshotError, "no memory is there", memory=tmp_path / "nothing")
    with locked(tmp_path / ".lock"):
        refused(LockedError, "another training writes there")
