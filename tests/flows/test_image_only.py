"""A run without a memory: the same leaderboard for the methods that need none."""

import shutil

import pytest

from flows.benchmark import xmore_benchmark
from xmore.results.runs import load_run
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
        "from hyperparameters",
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
