"""What results still hold of a row that was taken down is listed, and gone once it is removed."""

import html
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from index_build.upkeep.gc import collect
from index_build.upkeep.traces import find_traces, remove_traces
from xmore.files.digests import digest_text
from xmore.files.errors import LockedError
from xmore.files.locks import locked
from xmore.memory.pairs import write_pairs
from xmore.memory.snapshot import open_snapshot, resolve_current
from xmore.results.runs import load_run
from xmore.results.views import open_views

CAPTION = 'the <one> "caption" & nothing \u00e9lse like it'


@pytest.fixture(scope="module")
def made(world, done, tmp_path_factory):
    """A run with its report over 24 drawings; each candidate of each query, for K is 24."""
    root = tmp_path_factory.mktemp("traces")
    rows = pq.read_table(world.root / "captions.parquet").slice(0, 24).to_pylist()
    rows[5]["caption"] = CAPTION
    pq.write_table(pa.Table.from_pylist(rows), root / "captions.parquet")
    memory = world.memory_config(root / "captions.parquet", memory=root / "memory")
    snapshot = xmore_reindex.fn(memory).snapshot
    shutil.copytree(done.config.results, root / "results")
    config = world.config(root / "results", memory=root / "memory", report=True)
    name = xmore_benchmark.fn(config)
    table = pq.read_table(snapshot.shards[0].metadata)
    (row,) = [row for row in table.to_pylist() if row["caption"] == CAPTION]
    return memory, config, name, row, done.name


@pytest.fixture
def copied(made, tmp_path):
    memory, config, *more = made
    shutil.copytree(memory.memory, tmp_path / "memory")
    shutil.copytree(config.results, tmp_path / "results")
    return (
        memory.model_copy(update={"memory": tmp_path / "memory"}),
        config.model_copy(update={"memory": tmp_path / "memory", "results": tmp_path / "results"}),
        *more,
    )


def holders(folder, row) -> list:
    """The files in which the row's caption, or its text's hash, is."""
    wanted = {CAPTION, digest_text(CAPTION)}
    forms = {form.encode() for form in (CAPTION, html.escape(CAPTION), "nothing \\u00e9lse like")}
    forms.add(bytes.fromhex(digest_text(CAPTION)))
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        held = any(form in path.read_bytes() for form in forms)
        if path.suffix == ".parquet":
            texts = str(pq.read_table(path, partitioning=None).to_pydict())
            held = any(text in texts for text in wanted) or row["memory_key"] in texts
        if held:
            found.append(path)
    return found


@pytest.mark.parametrize("after_gc", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_nothing_of_a_row_is_left_and_a_run_makes_the_rest_again(copied, xmore, after_gc, caplog):
    memory, config, name, row, other = copied
    page = config.results / "leaks.html"
    page.write_text(f"<td>{html.escape(CAPTION)}</td>")
    old = open_snapshot(memory.memory, resolve_current(memory.memory))  # as if it lacked its own
    write_pairs(old, config.results / "cache" / "pairs-0.arrow")
    before = find_traces(config.memory, config.results)
    assert before == []
    answer = xmore("memory", "takedown", "add", memory.memory, row["row_key"])
    assert answer.returncode == 0 and "takedown traces" in answer.stdout
    captions = memory.sources[0].images.captions
    if after_gc:
        assert xmore_reindex.fn(memory).removed == 1
        collect(memory.memory, keep=1, dry_run=False)
    listed = xmore("memory", "takedown", "traces", memory.memory, "--results", config.results)
    assert listed.returncode == 0 and name in listed.stdout, listed
    found = find_traces(memory.memory, config.results)
    whats = {trace.what.replace(", perhaps", "") for trace in found}
    cached = "cached captions of a snapshot"
    assert whats == {"candidates of tiny", "captions of tiny", "texts of lite0", "page", cached}
    assert page in {trace.path for trace in found}
    assert {run for trace in found for run in trace.runs} == {name}
    held = holders(config.results, row)
    assert held and all(any(path.is_relative_to(trace.path) for trace in found) for path in held)
    before = xmore("show", name, "--results", config.results)
    removed = xmore(
        "memory", "takedown", "traces", memory.memory, "--results", config.results, "--remove"
    )
    assert removed.returncode == 0 and f"no longer be drawn: {name}" in removed.stdout, removed
    assert holders(config.results, row) == [] and find_traces(memory.memory, config.results) == []
    assert (
        "nothing of what was taken down is left"
        in xmore("memory", "takedown", "traces", memory.memory, "--results", config.results).stdout
    )

    shown = xmore("show", name, "--results", config.results)
    tables, told = (said.stdout.partition("\nRun ")[0] for said in (before, shown))
    assert shown.returncode == 0 and told == tables, shown
    open_views(load_run(config.results, name))
    assert f"run {name}: the captions of tiny were removed" in caplog.text
    asked = "select count(*) from captions_long where memory_key = '" + row["memory_key"] + "'"
    said = xmore("sql", name, asked, "--format", "csv", "--results", config.results)
    assert said.stdout.split()[1:] == ["0"], said
    checked = xmore("verify", name, "--results", config.results).stdout
    assert f"run {name}: candidates, captions" in checked
    assert open_views(load_run(config.results, other))  # it read another memory
    if not after_gc:
        assert xmore_reindex.fn(memory).removed == 1
        collect(memory.memory, keep=1, dry_run=False)
    assert [path.name for path in holders(memory.memory, row)] == ["00000.parquet"]  # its sha256
    again = xmore_benchmark.fn(config)
    assert open_views(load_run(config.results, again)) and holders(config.results, row) == []
    assert xmore("verify", "--all", "--results", config.results).returncode == 0
    assert captions.exists()  # the user's own


def test_nothing_is_removed_from_under_a_run(copied, xmore):
    memory, config, name, row, _ = copied
    xmore("memory", "takedown", "add", memory.memory, row["memory_key"])
    run = load_run(config.results, name)
    run.finished = None
    run.save()
    found = find_traces(memory.memory, config.results)
    with locked(run.path / "run.lock"), pytest.raises(LockedError, match="is running"):
        remove_traces(config.results, found)
    assert all(trace.path.exists() for trace in found)
