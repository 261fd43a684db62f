"""`xmore leaks`: its numbers are the artifacts', and text from data stays text."""

import re
from types import SimpleNamespace

import pyarrow as pa
import pytest

from flows import leaks as gathering
from flows.benchmark import xmore_benchmark
from flows.cli.terminal.explain import show_explanation
from flows.cli.terminal.leaks import show_reports
from flows.leaks import leak_reports
from xmore.memory.adopt import open_memory
from xmore.report.explain import write_page
from xmore.report.leaks import write_leaks_page
from xmore.results.explain import explain
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactStore, read_rows


def reports_of(done, threshold=None, name=None):
    run = load_run(done.config.results, name or done.name)
    with open_memory(done.config.memory, done.config.results / "cache") as snapshot:
        return run, leak_reports(run, snapshot, threshold)


def test_the_report_counts_the_planted_and_names_them(leaky):
    _, (report,) = reports_of(leaky.done)
    assert (report.n, report.same, report.near, report.leaked) == (20, 1, 1, 2)
    assert (report.dataset, report.space, report.threshold) == ("tiny", "lite0-pooled", 0.95)
    same, near = report.pairs
    assert (same.uri, same.kind, near.uri, near.kind) == (
        leaky.same, "same bytes", leaky.near, "near",
    )  # fmt: skip
    assert same.caption == near.caption == leaky.caption
    assert (same.place, near.place) == ("same.jpg", "near.jpg")


def test_accuracies_are_those_of_the_run_counted_with_and_without(leaky):
    run, (report,) = reports_of(leaky.done)
    views = open_views(run)
    everything = {
        (f"{method} {adjustment or ''}".strip(), m): (top1, counted)
        for method, adjustment, m, top1, counted in views.execute(
            "select method, adjustment, m, avg(correct::int), "
            "avg(correct::int) filter (uri not in (?, ?)) from predictions group by all",
            [leaky.same, leaky.near],
        ).fetchall()
    }
    assert len(report.accuracies) == len(everything) == 7
    for row in report.accuracies:
        top1, counted = everything[row.method, row.m]
        assert (row.all, row.counted) == (pytest.approx(top1), pytest.approx(counted))
        if (
            "minmax" not in row.method
            and "running" not in row.method
            and "global" not in row.method
        ):
            assert row.alone == pytest.approx(counted)  # no other query plays a part


def test_a_query_without_an_answer_counts_as_wrong(tmp_path):
    store = ArtifactStore(tmp_path)

    def written(stage, rows, schema):
        table = pa.Table.from_pylist(rows, schema=pa.schema([schema.field(n) for n in rows[0]]))
        return store.write(ArtifactKey(stage, "d", {}), [len(rows)], lambda *_: table)

    answers = [(0, 1), (1, None), (2, 1), (3, 0)]  # the labels are 1; the last is leaked
    predictions = written(
        "predictions",
        [{"query_id": i, "adjustment": "none", "prediction": p} for i, p in answers],
        schemas.PREDICTIONS,
    )
    queries = written("queries", [{"query_id": i, "label": 1} for i, _ in answers], schemas.QUERIES)
    leaked = written("leaks", [{"query_id": 3}], schemas.LEAKS)
    item = SimpleNamespace(predictions=predictions, run=SimpleNamespace(method="xmore", m=8))
    (top1,) = gathering._top1_without(item, queries, leaked).values()
    assert top1 == pytest.approx(2 / 3)


@pytest.fixture(scope="module")
def excluding(leaky) -> str:
    """The same run, the two left out."""
    config = leaky.done.config
    leaks = config.leaks.model_copy(update={"exclude": True})
    return xmore_benchmark.fn(config.model_copy(update={"leaks": leaks}))


def test_alone_is_a_run_that_leaves_them_out(leaky, excluding, xmore):
    config, name = leaky.done.config, excluding
    run, (report,) = reports_of(leaky.done, name=name)
    board = open_views(run).execute("select method, adjustment, m, top1, n from leaderboard")
    expected = {
        (f"{method} {adjustment or ''}".strip(), m): (top1, n)
        for method, adjustment, m, top1, n in board.fetchall()
    }
    for row in report.accuracies:
        assert (pytest.approx(row.alone), 18) == expected[row.method, row.m]
    assert report.accuracies == reports_of(leaky.done)[1][0].accuracies
    answer = xmore("show", name, "--results", config.results)
    assert "2 of 20 test images are in the memory, and were excluded; see" in answer.stdout


def test_a_query_that_was_left_out_is_explained(leaky, excluding, tmp_path, capsys):
    run = load_run(leaky.done.config.results, excluding)
    way = explain(open_views(run), leaky.same, None)
    show_explanation(way)
    write_page(way, None, lambda _: [], tmp_path / "page.html")
    for shown in (capsys.readouterr().out, (tmp_path / "page.html").read_text()):
        assert "No predictions: this test image is in the memory" in shown


def test_the_terminal_shows_it(leaky, xmore):
    answer = xmore("leaks", leaky.done.name, "--results", leaky.done.config.results)
    assert answer.returncode == 0, answer.stderr
    lines = [line.split() for line in answer.stdout.splitlines()]
    assert ["tiny", "20", "1", "1", "2", "10.0"] in lines
    assert "all 20   18 of them   18 alone" in answer.stdout
    assert leaky.same in answer.stdout and "[red]x[/red]" in answer.stdout
    assert "\x1b" not in answer.stdout


def test_the_page_has_the_pictures_and_no_caption_becomes_html(leaky, tmp_path):
    run, reports = reports_of(leaky.done)
    write_leaks_page(run, reports, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "{{ 7 * 7 }}" in page
    assert page.count("data:image/webp") == 4
    assert len(re.findall(r'<img [^>]*alt="[^"]+"', page)) == page.count("<img") == 4
    assert not re.search(r'(src|href)="(?!data:)', page) and "Not shown" not in page


def test_the_page_is_bounded_and_says_so(leaky, tmp_path, monkeypatch):
    monkeypatch.setattr(gathering, "SHOWN", 1)
    run, reports = reports_of(leaky.done)
    assert [pair.kind for pair in reports[0].pairs] == ["same bytes"]
    write_leaks_page(run, reports, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img") == 2 and "Not shown, the least similar pairs: 1." in page


def test_no_leak_reads_well(done, tmp_path, capsys):
    run, reports = reports_of(done)
    assert (reports[0].leaked, reports[0].pairs, reports[0].accuracies) == (0, [], [])
    show_reports(reports)
    assert "No test image is in the memory." in capsys.readouterr().out
    write_leaks_page(run, reports, tmp_path / "page.html")
    assert "No test image is in the memory." in (tmp_path / "page.html").read_text()


def test_a_memory_that_cannot_tell_all_bytes_says_so(leaky, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gathering, "binds_bytes", lambda _: False)
    run, reports = reports_of(leaky.done)
    show_reports(reports)
    write_leaks_page(run, reports, tmp_path / "page.html")
    for shown in (capsys.readouterr().out, (tmp_path / "page.html").read_text()):
        assert "≥ 1" in shown and "no hashes of their images" in shown


def test_all_leaked_leaves_nothing_to_count(leaky):
    run, (report,) = reports_of(leaky.done, threshold=0.01)
    assert report.leaked == 20
    assert {(row.counted, row.alone) for row in report.accuracies} == {(None, None)}
    (found,) = (ref for ref in run.artifacts if ref.stage == "candidates")
    like = [sum(s >= 0.01 for s in row) for row in read_rows(found)["similarities"].to_pylist()]
    uris = open_views(run).sql("select uri from queries order by query_id").fetchall()
    others = {uri: count - 1 for (uri,), count in zip(uris, like, strict=True)}
    assert max(others.values()) > 10
    assert all(pair.others == others[pair.uri] for pair in report.pairs)


def test_another_threshold_leaves_the_run_as_it_is(leaky):
    path = leaky.done.config.results / "runs" / leaky.done.name / "run.json"
    before = path.read_bytes()
    _, (report,) = reports_of(leaky.done, threshold=0.9999)
    assert (report.same, report.near) == (1, 0)
    assert path.read_bytes() == before


def test_a_benchmark_says_that_there_are_leaks(leaky, xmore):
    answer = xmore("show", leaky.done.name, "--results", leaky.done.config.results)
    assert "tiny: 2 of 20 test images are in the memory; see: xmore leaks" in answer.stdout
