"""The commands that change results, crashed at their points; then the same command again."""

import shutil
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from crash_points import check_points, in_turns

from flows.benchmark import xmore_benchmark
from flows.reco_train import xmore_reco_train
from flows.reindex import xmore_reindex
from flows.verify import verify_results
from index_build.snapshot import point_current
from index_build.upkeep.gc import collect
from xmore.config.memory import ReindexConfig
from xmore.config.reco import RecoTrainConfig
from xmore.files.locks import is_locked
from xmore.memory.locks import lock_of
from xmore.memory.snapshot import resolve_current
from xmore.store.checks import read_manifest

ROWS = 40


@pytest.fixture(scope="module")
def joint(world, tmp_path_factory) -> ReindexConfig:
    """The config of a memory of 40 drawings, which no test may change."""
    root = tmp_path_factory.mktemp("joint")
    pq.write_table(pq.read_table(world.root / "captions.parquet")[:ROWS], root / "some.parquet")
    config = world.memory_config(
        root / "some.parquet",
        memory=root / "memory",
        model_name="lite0",
        model={"folder": world.root / "models" / "lite0"},
        index={"text": True},
    )
    xmore_reindex.fn(config)
    return config


@pytest.fixture
def folder(tmp_path) -> Path:
    """What a command changes."""
    (tmp_path / "crashed").mkdir()
    return tmp_path / "crashed"


@pytest.fixture
def config(world, joint, folder):
    """The config of a benchmark of 20 queries."""
    values = {
        "memory": joint.memory,
        "roles": {"inference": ["lite0"], "coarse": "lite0", "fine": "lite0"},
        "adjustments": ["minmax"],
        "methods": ["clip", "xmore"],
        "execution": {"workers": 1, "part_rows": 10},
    }
    return world.config(folder / "results", **values)


def saved(folder: Path, config) -> Path:
    path = folder.with_suffix(".yaml")
    path.write_text(config.model_dump_json(exclude_unset=True))
    return path


@in_turns
def test_benchmark(warm, config, folder, turn):
    check_points(warm, folder, "benchmark", saved(folder, config), sample=2, turn=turn)


def test_repair(warm, config, folder):
    xmore_benchmark.fn(config)
    for stage in ("scores", "captions"):
        part = next((config.results / "store" / stage).rglob("part-00000.parquet"))
        data = bytearray(part.read_bytes())
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    words = ("verify", "--all", "--repair", "--results", config.results)
    check_points(warm, folder, *words, sample=2)


OLDER = pytest.param(True, marks=pytest.mark.slow, id="over an older one")


@pytest.mark.parametrize("older", [pytest.param(False, id="fresh"), OLDER])
def test_reco_train(warm, world, joint, folder, older):
    if older:
        xmore_reco_train.fn(reco(world, joint, folder, epochs=1))
    config = reco(world, joint, folder, epochs=2)
    check_points(warm, folder, "reco-train", saved(folder, config), sample=1)


def reco(world, joint, folder: Path, epochs: int) -> RecoTrainConfig:
    values = {"name": "tiny", "memory": joint.memory, "model_name": "lite0", "held_out": 0.2,
              "model": {"folder": world.root / "models" / "lite0"}, "output": folder / "out",
              "batch_size": 8, "cache": folder / "cache", "k": 4, "every": 4}  # fmt: skip
    return RecoTrainConfig.model_validate(values | {"epochs": epochs})


RARE = [pytest.param(each, marks=pytest.mark.slow) for each in ("benchmark", "reco-train")]


@pytest.mark.parametrize("command", ["verify", *RARE])
def test_too_many_open_files(warm, world, joint, config, folder, command):
    """They stop what runs in one line, and nothing is called damaged: all results stay."""
    xmore_benchmark.fn(config)
    words = [command, saved(folder, config)]
    if command == "verify":
        words = ["verify", "--all", "--repair", "--results", config.results]
    elif command == "benchmark":
        saved(folder, config.model_copy(update={"prompt": "a drawing of a {}."}))
    else:
        values = reco(world, joint, folder, epochs=1)
        xmore_reco_train.fn(values)
        saved(folder, values)
    check_points(warm, folder, *words, sample=2, opens=True)


def parts(results: Path) -> dict[str, str]:
    """Every part's sha256, by its place in the store."""
    return {
        str((manifest.parent / part["file"]).relative_to(results)): part["sha256"]
        for manifest in (results / "store").rglob("manifest.json")
        for part in read_manifest(manifest.parent)["parts"]
    }


@pytest.fixture
def left(warm, joint, config, folder) -> SimpleNamespace:
    """A benchmark's config, its memory's older snapshot and the newer one, and what it makes."""
    memory = shutil.copytree(joint.memory, folder / "memory")
    old = resolve_current(memory)
    pq.write_table(pq.read_table(joint.sources[0].images.captions)[:30], folder / "few.parquet")
    fewer = joint.model_dump(mode="json", exclude_unset=True) | {"memory": str(memory)}
    fewer["sources"][0]["images"]["captions"] = str(folder / "few.parquet")
    xmore_reindex.fn(ReindexConfig.model_validate(fewer))
    new = resolve_current(memory)
    point_current(memory, old)
    config = config.model_copy(update={"memory": memory})
    (folder / "alone.json").write_text(
        config.model_copy(update={"results": folder / "alone"}).model_dump_json()
    )
    assert warm.flow("benchmark", folder / "alone.json").end()[0] == 0
    return SimpleNamespace(config=config, old=old, new=new, expected=parts(folder / "alone"))


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(3))
def test_gc_again_and_again_beside_a_benchmark(warm, left, folder, attempt):
    """Nothing is taken from under a benchmark: its results are those of one alone."""
    memory, results = left.config.memory, left.config.results
    running = warm.xmore("benchmark", saved(folder, left.config))
    while not is_locked(lock_of(memory, left.old)):
        assert running.child.poll() is None
        time.sleep(0.002)
    point_current(memory, left.new)
    ended = Counter()
    commands = (("memory", "gc", memory, "--keep", "1"), ("runs", "gc", "--results", results))
    while running.child.poll() is None:
        for words in commands:
            code, _, error = warm.xmore(*words).end()
            assert code in (0, 2) and "Traceback" not in error, error
            ended[words[0], code] += running.child.poll() is None
    code, _, error = running.end()
    assert code == 0, error
    print(dict(ended))
    assert ended["memory", 0] and ended["runs", 0] + ended["runs", 2]
    assert parts(results) == left.expected
    assert verify_results(results, repair=False).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["queries", "candidates", "captions"])
def test_gc_beside_a_benchmark(warm, left, folder, stage):
    """gc keeps what a running benchmark reads, though CURRENT has moved on; then it deletes it."""
    config, memory, old, new = left.config, left.config.memory, left.old, left.new
    (folder / "beside.json").write_text(config.model_dump_json())
    running = warm.flow("benchmark", folder / "beside.json")
    until = time.monotonic() + 60
    while not (config.results / "store" / stage).exists():
        assert running.child.poll() is None and time.monotonic() < until
        time.sleep(0.002)
    point_current(memory, new)
    assert is_locked(lock_of(memory, old))
    freed = collect(memory, keep=1, dry_run=False)
    assert freed.kept[old].startswith("in use") and not freed.snapshots
    code, _, error = running.end()
    assert code == 0, error
    assert parts(config.results) == left.expected
    assert list(collect(memory, keep=1, dry_run=False).snapshots) == [old]
