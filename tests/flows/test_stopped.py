"""A run that was stopped and goes on, and one over a copied store, know what their stages cost."""

import shutil

import pytest

from flows import stages
from flows.benchmark import xmore_benchmark
from xmore.files.errors import RunError
from xmore.results.runs import load_run
from xmore.results.views import open_views

COSTS = "select method, m, seconds_per_image, peak_memory_mb from leaderboard order by all"


@pytest.fixture(scope="module")
def stopped(world, tmp_path_factory):
    """The config of a run that was interrupted at its last stage but one, and its name."""
    config = world.config(tmp_path_factory.mktemp("stopped"))

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "metrics", stop)
        with pytest.raises(KeyboardInterrupt):
            xmore_benchmark.fn(config)
    (path,) = (config.results / "runs").glob("[!.]*")
    return config, path.name


def test_a_run_is_written_as_it_goes_and_keeps_what_it_made(stopped):
    config, name = stopped
    left = load_run(config.results, name)
    assert left.status == "interrupted" and left.artifacts[0].stage == "queries"
    made = {ref.digest: ref.seconds for ref in left.artifacts if not ref.skipped}
    assert {"query_embeddings", "captions", "predictions"} <= {r.stage for r in left.artifacts}
    with pytest.raises(RunError, match="is interrupted and has no results yet"):
        open_views(left)
    xmore_benchmark.fn(config, resume=name)
    run = load_run(config.results, name)
    again = {ref.digest: ref.seconds for ref in run.artifacts if not ref.skipped}
    assert again.keys() >= made.keys() and made.items() <= again.items()
    rows = open_views(run).execute(COSTS).fetchall()
    assert rows and all(seconds > 0 and peak > 1 for _, _, seconds, peak in rows)
    run.seconds, run.finished = 1234.5, "2026-01-01T00:00:00+00:00"
    run.save()
    xmore_benchmark.fn(config, resume=name)  # it is complete
    again = load_run(config.results, name)
    assert (again.seconds, again.finished) == (run.seconds, run.finished)


def test_a_copied_store_brings_its_costs(done, tmp_path):
    shutil.copytree(done.config.results / "store", tmp_path / "store")
    config = done.config.model_copy(update={"results": tmp_path})
    copy = load_run(tmp_path, xmore_benchmark.fn(config))
    of_first = open_views(load_run(done.config.results, done.name)).execute(COSTS).fetchall()
    assert open_views(copy).execute(COSTS).fetchall() == of_first
    assert all(None not in row[2:] for row in of_first)
    for file in (tmp_path / "store").rglob("cost.json"):  # as older code left it, without its runs
        file.unlink()
    shutil.rmtree(copy.path)
    unknown = load_run(tmp_path, xmore_benchmark.fn(config))
    assert all(row[2:] == (None, None) for row in open_views(unknown).execute(COSTS).fetchall())
