"""What a row stores is in its artifact's digest: other names over the same images are shown."""

import duckdb
import pytest
from sharing import same_rows

from flows.benchmark import xmore_benchmark
from xmore.results.runs import config_of, load_run
from xmore.results.views import open_views
from xmore.store.artifacts import ArtifactKey, ArtifactStore, read_rows
from xmore.store.checks import read_manifest

MEASURED = ("seconds_per_image", "peak_memory_mb")  # when the artifacts were made


@pytest.fixture(scope="module")
def renamed(world, done_again, tmp_path_factory):
    """Two runs over one store; the second has the same images and model under other names."""
    root = tmp_path_factory.mktemp("renamed")
    (root / "other.yaml").write_text(f"name: other\nroot: {world.root / 'queries'}\n")
    changes = {
        "methods": ["clip", "confident-views", "equal", "xmore"],
        "options": {"views": {"count": 2, "limit": 6}},
    }
    first = world.config(done_again.results, **changes)
    models = {"small": first.models["lite0"], "coarse": first.models["lite0-pooled"]}
    second = world.config(
        done_again.results,
        **changes,
        datasets=[str(root / "other.yaml")],
        models={name: spec.model_dump(exclude_unset=True) for name, spec in models.items()},
        roles={"inference": ["small"], "coarse": "coarse", "fine": "small"},
    )
    return [load_run(c.results, xmore_benchmark.fn(c)) for c in (first, second)]


def columns_of(db: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for view, column in db.execute(
        "select view_name, column_name from duckdb_views() v join duckdb_columns() c "
        "on c.table_name = v.view_name where not v.internal order by column_index"
    ).fetchall():
        found.setdefault(view, []).append(column)
    return found


def test_every_view_shows_its_own_names_and_the_same_content(renamed):
    first, second = map(open_views, renamed)
    columns = columns_of(first)
    assert columns == columns_of(second) and {"comparisons", "leaderboard"} <= columns.keys()
    stages = {ref.stage for ref in renamed[1].artifacts}
    assert {"view_embeddings", "method_scores"} <= stages
    for view, names in columns.items():
        if view == "runs":
            continue
        for column, allowed in (("dataset", {"other"}), ("model", {"small", "coarse"})):
            if column in names:
                query = f"select distinct {column} from {view}"
                told = {name for (name,) in second.execute(query).fetchall()}
                assert told <= allowed, (view, column, told)
        left = [name for name in names if name not in ("dataset", "model", *MEASURED)]
        query = f"select {', '.join(left)} from {view} order by all"
        # Means over rows are taken in any order: their last bits differ.
        one, other = (db.sql(query).to_arrow_table() for db in (first, second))
        assert same_rows(one, other), view
    shown = "select difference, p_holm from leaderboard where method != 'clip'"
    assert all(None not in row for row in second.execute(shown).fetchall())


def test_older_comparisons_are_reused_where_their_names_are_right(world, renamed):
    """Their digest had no names."""
    first, second = (
        next(ref for ref in run.artifacts if ref.stage == "comparisons") for run in renamed
    )
    store = ArtifactStore(renamed[0].results / "store")
    manifest = read_manifest(store.root / "comparisons" / "all" / first.digest)
    params = {key: value for key, value in manifest["params"].items() if key != "datasets"}
    key = ArtifactKey("comparisons", "all", params, tuple(manifest["inputs"]))
    older = store.write(key, [1], lambda *_: read_rows(first))
    for run, expected in zip(renamed, (older.digest, second.digest), strict=True):
        again = load_run(run.results, xmore_benchmark.fn(config_of(run), again=True))
        (ref,) = (ref for ref in again.artifacts if ref.stage == "comparisons")
        assert ref.skipped and ref.digest == expected
