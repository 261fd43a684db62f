"""Methods that search a memory by text, through the whole benchmark."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ra_tta_literal import literal as ra_tta
from ra_tta_literal import unit_mean
from tip_x_literal import literal as tip_x

from flows.benchmark import xmore_benchmark
from flows.classify import classified
from flows.reindex import xmore_reindex
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import load_config
from xmore.files.errors import ConfigError, SnapshotError
from xmore.files.paths import PROJECT_ROOT
from xmore.memory.rows import embeddings_of, places_of
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.methods.registry import METHODS as REGISTERED
from xmore.models.spec import describe_model
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows

ROWS = 60
METHODS = ["tip-x", "ra-tta"]
VIEWS, SOME = 9, 6  # augmented views of some images
DESCRIPTIONS = PROJECT_ROOT / "data" / "descriptions" / "stamps.json"


def memory_config(world, root: Path):
    return world.memory_config(
        root / "captions.parquet",
        memory=root / "memory",
        model_name="lite0",
        model={"folder": world.root / "models" / "lite0"},
        sources=[{"images": {"folder": root / "images", "captions": root / "captions.parquet"}}],
        shard_rows=40,
    )


@pytest.fixture(scope="module", autouse=True)
def few_views():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xmore.methods.ra_tta.ra_tta.VIEWS", VIEWS)
        yield


@pytest.fixture(scope="module")
def memory(world, tmp_path_factory) -> Path:
    """60 of the world's drawings and one of its photos, by lite0; no index, as it is so small."""
    root = tmp_path_factory.mktemp("by-text")
    rows = pq.read_table(world.root / "captions.parquet").slice(0, ROWS).to_pylist()
    for row in rows:
        (root / "images" / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(world.images / row["path"], root / "images" / row["path"])
    shutil.copy(min((world.root / "queries" / "bird").iterdir()), root / "images" / "photo.jpg")
    rows.append({"path": "photo.jpg", "caption": "a bird"})
    pq.write_table(pa.Table.from_pylist(rows), root / "captions.parquet")
    config = memory_config(world, root)
    xmore_reindex.fn(config)
    return config.memory


def config_of(world, results: Path, searched: Path | None, **changes) -> BenchmarkConfig:
    options = {"ratta": {"descriptions": DESCRIPTIONS}, "views": {"limit": SOME}}
    if searched:
        options |= {"memories": {"lite0": searched}}
    values = {"methods": ["clip", *METHODS], "options": options} | changes
    return world.config(results, **values)


@pytest.fixture(scope="module")
def config(world, memory, done_again) -> BenchmarkConfig:
    return config_of(world, done_again.results, memory)


@pytest.fixture(scope="module")
def run(config):
    return load_run(config.results, xmore_benchmark.fn(config))


def scores_of(run, method: str) -> np.ndarray:
    for ref in run.artifacts:
        if ref.stage == "method_scores":
            table = read_rows(ref)
            if table["method"][0].as_py() == method:
                return np.array(table["class_scores"].to_pylist())
    raise KeyError(method)


def parts_of(run, method: str) -> list[bytes]:
    """The bytes of each part of a method's scores."""
    for ref in run.artifacts:
        if ref.stage == "method_scores" and read_rows(ref)["method"][0].as_py() == method:
            return [path.read_bytes() for path in sorted(Path(ref.path).glob("part-*.parquet"))]
    raise KeyError(method)


def encoder_of(config):
    from tasks.stage import Workspace
    from tasks.texts import TextEncoder

    card = describe_model("lite0", config.model("lite0"), config.results / "cache")
    encoder = TextEncoder(Workspace(config.results, config.execution), card)
    return lambda texts: encoder.features(texts).unit


def inputs_of(run, config):
    """Queries and class texts, and tau, as the stages before have stored them."""
    (embedded,) = [r for r in run.artifacts if r.stage == "query_embeddings" and r.model == "lite0"]
    (classes,) = [ref for ref in run.artifacts if ref.stage == "classes"]
    texts = [prompts[0] for prompts in read_rows(classes)["prompts"].to_pylist()]
    queries = np.array(read_rows(embedded)["embedding"].to_pylist(), np.float32)
    tau = json.loads((Path(embedded.path) / "manifest.json").read_text())["facts"]["logit_scale"]
    return queries, encoder_of(config)(texts), tau


def rows_of(memory: Path) -> tuple[np.ndarray, list[int]]:
    """The memory's images, and those of them that are test images."""
    snapshot = open_snapshot(memory, resolve_current(memory))
    ids = np.arange(snapshot.rows)
    leaked = [i for i, place in enumerate(places_of(snapshot, ids)) if place.endswith("photo.jpg")]
    return embeddings_of(snapshot, ids).astype(np.float64), leaked


def test_tip_x_equals_its_formulas_and_no_key_is_a_test_image(run, config, memory):
    queries, texts, tau = inputs_of(run, config)
    rows, leaked = rows_of(memory)
    assert len(rows) == ROWS + 1 and len(leaked) == 1
    got = scores_of(run, "tip-x")
    expected = np.array([tip_x(query, rows, texts, tau, leaked) for query in queries])
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    with_photo = np.array([tip_x(query, rows, texts, tau) for query in queries])
    assert np.abs(with_photo - expected).max() > 1e-4


def test_ra_tta_equals_its_formulas_and_retrieves_no_test_image(run, config, memory):
    _, _, tau = inputs_of(run, config)
    (embedded,) = [ref for ref in run.artifacts if ref.stage == "view_embeddings"]
    views = np.array(read_rows(embedded)["embedding"].to_pylist(), np.float32)
    views = views.reshape(SOME, VIEWS, -1)
    (classes,) = [ref for ref in run.artifacts if ref.stage == "classes"]
    rows, leaked = rows_of(memory)
    encode, sentences = encoder_of(config), json.loads(DESCRIPTIONS.read_text())
    described, texts = [], []
    for row in read_rows(classes).to_pylist():
        mine, before = sentences[row["class_name"]], f"a photo of a {row['class_name']}."
        described.append(encode([*(f"{before} {sentence}" for sentence in mine), before]))
        texts.append(unit_mean(encode([*mine, *row["prompts"]])))
    known = described, np.array(texts), rows, tau, 0.75
    kept = []
    expected = np.array([ra_tta(each, *known, leaked, kept) for each in views])
    assert kept, "classes that are kept"
    np.testing.assert_allclose(scores_of(run, "ra-tta"), expected, rtol=0, atol=1e-5)


def test_a_second_run_does_nothing_and_its_settings_are_told(run, config):
    again = load_run(config.results, xmore_benchmark.fn(config, again=True))
    assert all(ref.skipped for ref in again.artifacts)
    (metrics,) = [ref for ref in run.artifacts if ref.stage == "metrics"]
    told = {
        row["method"]: json.loads(row["hyperparameters"]) for row in read_rows(metrics).to_pylist()
    }
    assert told["ra-tta"]["views"] == {"value": VIEWS, "source": "paper"}
    assert told["tip-x"] == {
        "keys": {"value": 16, "source": "fixed"},
        "alpha": {"value": 1.17, "source": "fixed"},
        "beta": {"value": 1.0, "source": "fixed"},
        "gamma": {"value": 1.0, "source": "fixed"},
    }


def test_shuffled_labels_change_no_prediction(run, config, unmoved):
    unmoved(run, config)


def test_scores_do_not_depend_on_parts_nor_on_queries_that_are_left_out(run, config, tmp_path):
    shutil.copytree(config.results / "store", tmp_path / "store")
    for path in (tmp_path / "store" / "method_scores").glob("*/*"):
        shutil.rmtree(path)
    other = config.model_copy(
        update={
            "results": tmp_path,
            "leaks": config.leaks.model_copy(update={"exclude": True}),
            "execution": config.execution.model_copy(update={"part_rows": 7}),
        }
    )
    parted = load_run(tmp_path, xmore_benchmark.fn(other))
    for method in METHODS:
        np.testing.assert_array_equal(scores_of(parted, method), scores_of(run, method))


@pytest.mark.parametrize("method", METHODS)
def test_stopped_in_the_middle_it_goes_on_with_the_same_bytes(
    run, config, method, tmp_path, monkeypatch
):
    shutil.copytree(config.results / "store", tmp_path / "store")
    for path in (tmp_path / "store" / "method_scores").glob("*/*"):
        shutil.rmtree(path)
    prepare = REGISTERED[method].prepare
    made = []

    def prepare_to_stop(context):
        score = prepare(context)

        def stopping(shard):
            if made:
                raise KeyboardInterrupt
            made.append(shard)
            return score(shard)

        return stopping

    other = config.model_copy(update={"results": tmp_path, "methods": [method]})
    with monkeypatch.context() as patch:
        patch.setattr(REGISTERED[method], "prepare", prepare_to_stop)
        with pytest.raises(KeyboardInterrupt):
            xmore_benchmark.fn(other)
    assert len([*(tmp_path / "store" / "method_scores").glob("*/*.partial/part-*.parquet")]) == 1
    resumed = load_run(tmp_path, xmore_benchmark.fn(other))
    assert parts_of(resumed, method) == parts_of(run, method)


def test_the_runs_own_memory_is_searched_where_the_model_has_embedded_it(
    world, run, config, memory, tmp_path
):
    roles = {"inference": ["lite0"], "coarse": "lite0", "fine": "lite0"}
    own = config_of(world, tmp_path, None, memory=memory, roles=roles)
    found = load_run(tmp_path, xmore_benchmark.fn(own))
    for method in METHODS:
        np.testing.assert_array_equal(scores_of(found, method), scores_of(run, method))


def test_another_snapshot_is_searched_anew(world, run, config, memory, tmp_path):
    shutil.copytree(memory.parent, tmp_path / "by-text")
    changed = memory_config(world, tmp_path / "by-text")
    rows = pq.read_table(tmp_path / "by-text" / "captions.parquet")
    pq.write_table(rows.slice(0, ROWS), tmp_path / "by-text" / "captions.parquet")
    xmore_reindex.fn(changed)
    without = config_of(world, config.results, changed.memory)
    found = load_run(config.results, xmore_benchmark.fn(without))
    made = {ref.stage for ref in found.artifacts if not ref.skipped}
    assert "method_scores" in made and "scores" not in made
    for method in METHODS:  # as it was no key before
        np.testing.assert_allclose(scores_of(found, method), scores_of(run, method), atol=1e-6)


def test_an_image_is_classified(world, config):
    photo = min((world.root / "queries" / "bird").iterdir())
    with classified(photo, ["bird", "tool", "fruit"], config, None) as (found, _):
        methods = [answer.method for answer in found.answers]
    assert methods == ["clip", *METHODS]


def test_paths_are_relative_to_the_config(config, tmp_path):
    data = config.model_dump(mode="json", exclude_unset=True) | {
        "options": {"memories": {"lite0": "../m"}}
    }
    (tmp_path / "run.yaml").write_text(json.dumps(data))
    read = load_config(tmp_path / "run.yaml", BenchmarkConfig).options.memories
    assert read == {"lite0": tmp_path.parent / "m"}


def no_memory(world, results, memory):
    says = "needs images embedded by `lite0-pooled`, not by the inference model `lite0`"
    return config_of(world, results, None), ConfigError, says


def memory_of_another_model(world, results, memory):
    config = config_of(world, results, world.root / "memory")
    return config, SnapshotError, "was embedded by `lite0-pooled`, not by the inference model"


def absent_memory(world, results, memory):
    return config_of(world, results, memory / "nothing"), SnapshotError, "no memory is there"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", [no_memory, memory_of_another_model, absent_memory])
def test_what_cannot_work_is_refused_before_the_run(case, method, world, memory, done_again):
    config, kind, says = case(world, done_again.results, memory)
    config = config.model_copy(update={"methods": [method]})
    before = [*(config.results / "runs").glob("*")]
    with pytest.raises(kind, match=says) as refused:
        xmore_benchmark.fn(config)
    assert "\n" not in str(refused.value) and [*(config.results / "runs").glob("*")] == before


def test_a_model_that_no_role_knows_is_refused(world, tmp_path):
    with pytest.raises(ValueError, match=r"no model `lite9`\. Did you mean `lite2`\? Known: lite0"):
        config_of(world, tmp_path, None, options={"memories": {"lite9": tmp_path}})
