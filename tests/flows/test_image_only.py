"""A run without a memory: the same leaderboard for the methods that need none."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
from sharing import unsealed

from flows import cluster, prefect_ui
from flows.benchmark import xmore_benchmark
from flows.plan import look_up, snapshot_of
from xmore.config.benchmark import BenchmarkConfig
from xmore.files.errors import ConfigError
from xmore.report.opened import open_run
from xmore.report.page import write_report
from xmore.results.runs import config_of, load_run
from xmore.results.views import open_views

METHODS = ["clip", "tda", "zero"]
ALONE = {"memory": None, "roles": {"inference": ["lite0"]}, "retrieval": {}}
SHARED = ("queries", "classes", "rejected", "query_embeddings", "view_embeddings", "method_scores")


@pytest.fixture(scope="module")
def config(world, done, tmp_path_factory):
    """A config with a memory, whose methods need none, over a copy of the tiny store."""
    results = tmp_path_factory.mktemp("image-only")
    shutil.copytree(done.config.results / "store", results / "store")
    options = {"views": {"count": 4}}
    return world.config(results, methods=METHODS, options=options, seeds=[0, 1])


@pytest.fixture(scope="module")
def with_memory(config):
    return load_run(config.results, xmore_benchmark.fn(config))


@pytest.fixture(scope="module")
def alone(config, with_memory):
    changed = {**config.model_dump(exclude_unset=True), **ALONE, "name": "alone"}
    return load_run(config.results, xmore_benchmark.fn(type(config).model_validate(changed)))


def test_the_numbers_are_those_of_a_run_with_a_memory_to_the_last_bit(with_memory, alone):
    assert alone.snapshot is None and with_memory.snapshot
    here, there = open_views(alone), open_views(with_memory)
    costs = "seconds_per_image, peak_memory_mb"
    for query in (
        f"select * exclude ({costs}) from leaderboard_all",
        "from comparisons",
        "from by_class",
        "from metrics",
        "from hyperparameters order by all",
        "select query_id, image_scores, image_confidence from scores",
        "select * exclude (text_prediction) from predictions order by all",
    ):
        rows = here.execute(query).fetchall()
        assert rows and rows == there.execute(query).fetchall(), query


def test_what_needs_no_memory_is_shared_and_nothing_else_is_made(with_memory, alone):
    def digests(run, stage):
        return {ref.digest for ref in run.artifacts if ref.stage == stage}

    for stage in SHARED:
        assert digests(alone, stage) and digests(alone, stage) <= digests(with_memory, stage), stage
    assert not digests(alone, "scores") & digests(with_memory, "scores")
    stages = {ref.stage for ref in alone.artifacts}
    assert not stages & {"candidates", "captions", "leaks"}


@pytest.fixture
def asked(alone, xmore):
    """A command's output over these runs, or with `code=2` the one line that says why not."""

    def ask(*arguments, code=0):
        found = xmore(*arguments, "--results", alone.results)
        assert found.returncode == code, found
        assert code == 0 or found.stderr.count("\n") == 1, found
        return found.stderr if code else found.stdout

    return ask


def test_tables_say_that_it_had_no_memory(with_memory, alone, asked, tmp_path):
    shown = asked("show", alone.name)
    assert "tiny, lite0, n = 20, no memory" in shown and "  M  " not in shown
    runs = json.loads(asked("runs", "--json"))["runs"]
    wanted = {with_memory.name: with_memory.snapshot_name, alone.name: None}
    assert {run["run"]: run["snapshot"] for run in runs} == wanted  # of one second: in any order
    compared = asked("compare", with_memory.name, alone.name)
    assert compared.count("  0        0     +0.0   1.000") == len(METHODS)
    for form in ("latex", "markdown"):
        assert "no memory" in asked("export", alone.name, "--to", form)
    assert json.loads(asked("export", alone.name, "--to", "json"))["snapshot"] is None
    for name, of in (("a", alone), ("m", with_memory)):
        asked("export", of.name, "--to", "clip-benchmark", "--output", tmp_path / name)
    (mine,), (theirs,) = ([*(tmp_path / name).iterdir()] for name in "am")
    assert mine.name == theirs.name and mine.read_text() == theirs.read_text()


def test_views_of_what_it_did_not_retrieve_are_empty(alone, asked):
    empty = ("candidates", "candidates_long", "captions", "captions_long", "leaks")
    for view in (*empty, "disagreements", "weight_ratios"):
        told = asked("sql", alone.name, f"select count(*) from {view}", "--format", "csv")
        assert told.split()[1] == "0"
    nulls = ("m", "text_scores", "text_confidence", "caption_count", "truncated_count")
    counts = ", ".join(f"count({name})" for name in nulls)
    told = asked("sql", alone.name, f"select {counts}, count(*) from scores", "--format", "csv")
    assert told.split()[1] == "0,0,0,0,0,20"


def test_a_query_is_explained_by_its_image(alone, asked, tmp_path):
    told = asked("explain", alone.name, "0")
    assert "image scores" in told and "caption" not in told and "text" not in told
    scores = json.loads(asked("explain", alone.name, "0", "--json"))["scores"]
    assert {(row["m"], row["of"]) for row in scores} == {(None, "image")}
    asked("explain", alone.name, "0", "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "Image scores" in page and "Text scores" not in page and "Kept captions" not in page


def test_one_image_is_classified_as_in_it(world, alone, asked, xmore, tmp_path):
    image = min((world.root / "queries").rglob("*.jpg"))
    told = asked("classify", image, "--run", alone.name)
    assert "clip" in told and "zero" in told and "stream" not in told
    asked("classify", image, "--run", alone.name, "--html", tmp_path / "page.html")
    assert "Image scores" in (tmp_path / "page.html").read_text()
    memory = ("--memory", world.root / "memory")
    refusal = asked("classify", image, "--run", alone.name, *memory, code=2)
    assert "no models to read a memory with" in refusal


def test_what_is_about_a_memory_is_refused_or_left_out(alone, asked, tmp_path):
    assert "had no memory" in asked("leaks", alone.name, code=2)
    assert f"{alone.name}: intact" in asked("verify", alone.name)
    asked("verify", "--all")
    packed = asked("pack", alone.name, tmp_path / "x.zip")
    assert "With" in packed and "captions" not in packed


def test_its_artifacts_in_prefect_name_no_snapshot(alone, monkeypatch):
    made = {}

    def create(*content, key, description, **of_table):
        made[key] = description

    monkeypatch.setattr(prefect_ui, "in_flow_run", lambda: True)
    monkeypatch.setattr(prefect_ui, "log_lines", list)
    monkeypatch.setattr(prefect_ui, "create_table_artifact", create)
    prefect_ui.show_results(alone, None, None)
    assert list(made) == ["leaderboard-alone", "comparisons-alone"]
    assert f"Run **{alone.name}**, no memory. " in made["leaderboard-alone"]


def test_a_cluster_makes_the_same(alone, monkeypatch, tmp_path):
    monkeypatch.setattr(cluster, "prefect_server", nullcontext)
    monkeypatch.setattr(cluster, "spread", lambda step, calls, how: [step(*c) for c in calls])
    shutil.copytree(alone.results / "store", tmp_path / "store")
    config = config_of(alone).model_copy(update={"results": tmp_path})
    with snapshot_of(config) as nothing:
        refs = []
        cluster.run_on_cluster(replace(look_up(config, nothing), record=refs.append))
    made = {ref.digest for ref in alone.artifacts if ref.stage not in ("metrics", "comparisons")}
    assert {ref.digest for ref in refs} == made and all(ref.skipped for ref in refs)


def test_the_same_again_adds_no_run_and_an_interrupted_one_goes_on(alone):
    config = config_of(alone)
    assert xmore_benchmark.fn(config) == alone.name
    path = alone.path / "run.json"
    whole = path.read_bytes()
    path.write_text(json.dumps(unsealed(json.loads(whole)) | {"finished": None, "artifacts": []}))
    assert xmore_benchmark.fn(config, resume=alone.name) == alone.name
    again = load_run(alone.results, alone.name)
    assert again.status == "completed" and again.snapshot is None
    assert [ref.digest for ref in again.artifacts] == [ref.digest for ref in alone.artifacts]
    path.write_bytes(whole)


def test_each_of_several_prompt_sets_has_its_own_scores(alone, tmp_path):
    sets = [{"name": "photo"}, {"name": "drawing", "template": "a drawing of a {}."}]
    values = config_of(alone).model_dump(exclude_unset=True)
    config = BenchmarkConfig.model_validate(values | {"name": "sets", "prompt_sets": sets})
    db = open_views(load_run(config.results, xmore_benchmark.fn(config)))
    query = "select prompt_set, method, top1 from leaderboard order by all"
    told = db.execute(query).fetchall()
    assert len(told) == 2 * len(METHODS)
    of_card = open_views(alone).execute(query).fetchall()
    assert [row[1:] for row in of_card] == [row[1:] for row in told if row[0] == "photo"]
    counts = db.execute("select prompt_set, count(*) from scores group by all order by all")
    assert counts.fetchall() == [("drawing", 20), ("photo", 20)]


def test_a_method_from_outside_that_needs_captions_is_refused(alone, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from xmore.methods.base import Method\n\n\nclass Mine(Method):\n"
        "    name = 'mine'\n    needs = frozenset({'text_scores'})\n\n"
        "    def class_scores(self, scores, weights):\n        return scores.text\n\n\n"
        "METHOD = Mine()\n"
    )
    config = config_of(alone).model_copy(update={"methods": ["clip", str(tmp_path / "mine.py")]})
    with pytest.raises(ConfigError, match="`mine` cannot run without a memory"):
        xmore_benchmark.fn(config)


def test_its_report_has_no_captions(alone, tmp_path):
    page = write_report(alone, tmp_path).read_text()
    assert "No memory, started" in page and "<dt>memory</dt><dd>none</dd>" in page
    assert "no captions" not in page and "retrieved captions" not in page
    assert '"cases": ["tda wrong", "tda right"]' in page


def test_it_opens_in_python(alone):
    run = open_run(alone.name, alone.results)
    assert run.snapshot is None and "no memory" in run._repr_html_()
    found = run.explain(0)
    assert [(each.m, each.text) for each in found.scores] == [(None, [])] and not found.captions
    assert len(run.leaderboard()) == 3
