"""Two test images planted in a memory: they are found, and kept out of the stream where asked."""

import shutil

import pyarrow as pa
import pytest
import yaml

from flows.benchmark import xmore_benchmark
from tasks.predictions import MethodRun, ScoreSource, predictions
from tasks.stage import Workspace
from xmore.methods.base import MethodRequest
from xmore.methods.registry import MethodRef
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, read_rows


def rows(config, name, stage):
    refs = [ref for ref in load_run(config.results, name).artifacts if ref.stage == stage]
    return [row for ref in refs for row in read_rows(ref).to_pylist()]


def test_planted_copies_are_found_and_nothing_else(leaky):
    config, name = leaky.done.config, leaky.done.name
    views = open_views(load_run(config.results, name))
    found = views.execute("select uri, kind, similarity from leaks order by query_id")
    same, near = found.fetchall()
    assert same == (leaky.same, "same bytes", pytest.approx(1, abs=1e-4))
    assert near[:2] == (leaky.near, "near") and 0.95 <= near[2] < 0.99999
    queries = {row["query_id"]: row for row in rows(config, name, "queries")}
    first = rows(config, name, "leaks")[0]
    assert first["memory_key"] == queries[first["query_id"]]["sha256"]


@pytest.fixture(scope="module")
def excluding(leaky):
    """The same run, the two kept out."""
    config = leaky.done.config.model_copy(
        update={"leaks": leaky.done.config.leaks.model_copy(update={"exclude": True})}
    )
    return config, xmore_benchmark.fn(config)


def test_left_out_means_as_if_they_had_never_been_there(world, leaky, excluding, tmp_path):
    config, name = excluding
    shutil.copytree(world.root / "queries", tmp_path / "queries")
    for uri in (leaky.same, leaky.near):
        (tmp_path / "queries" / uri).unlink()
    card = tmp_path / "tiny.yaml"
    card.write_text(yaml.safe_dump({"name": "tiny", "root": "queries"}))
    other = config.model_copy(update={"datasets": [str(card)], "results": tmp_path / "results"})
    never = xmore_benchmark.fn(other)
    uris = {row["query_id"]: row["uri"] for row in rows(config, name, "queries")}
    theirs = {row["query_id"]: row["uri"] for row in rows(other, never, "queries")}
    mine, expected = rows(config, name, "predictions"), rows(other, never, "predictions")
    assert len(mine) == len(expected) > 0
    for one, two in zip(mine, expected, strict=True):
        assert uris[one.pop("query_id")] == theirs[two.pop("query_id")]
        floats = ("image_weight", "text_weight", "probability")  # features differ in the last bits
        for key in floats:
            assert one.pop(key) == pytest.approx(two.pop(key), abs=1e-3)
        assert one == two
    for one, two in zip(rows(config, name, "metrics"), rows(other, never, "metrics"), strict=True):
        assert one["n"] == two["n"] == 18
        assert one == pytest.approx(two, abs=1e-3)


def test_what_comes_before_the_stream_is_shared(leaky, excluding):
    plain, run = (
        load_run(leaky.done.config.results, name) for name in (leaky.done.name, excluding[1])
    )
    pairs = list(zip(plain.artifacts, run.artifacts, strict=True))
    assert {one.stage for one, two in pairs if one.digest != two.digest} == {
        "predictions",
        "metrics",
        "comparisons",
    }
    assert all(one.digest != two.digest for one, two in pairs if one.stage == "predictions")


def test_a_part_of_which_no_query_is_left(leaky):
    """Parts hold four queries: the whole first class is left out with its part."""
    config = leaky.done.config
    run = load_run(config.results, leaky.done.name)
    scores = next(ref for ref in run.artifacts if ref.stage == "scores")
    work = Workspace(config.results, config.execution)
    table = pa.Table.from_pylist([{"query_id": i} for i in range(4)], schema=schemas.LEAKS)
    key = ArtifactKey("leaks", "tiny", {"planted": True})
    planted = work.store.write(key, [4], lambda *_: table)
    how = MethodRun(MethodRef("xmore"), MethodRequest("tiny", 24, 8), ("minmax",), (0,))
    assert how.name == "xmore, M=8"
    assert MethodRun(MethodRef("clip"), MethodRequest("tiny", 24, None), (), ()).name == "clip"
    ref = predictions(work, ScoreSource(scores, left_out=planted), how)
    said = read_rows(ref)
    assert said["query_id"].to_pylist() == list(range(4, 20))
    assert sorted(said["step"].to_pylist()) == list(range(1, 17))
