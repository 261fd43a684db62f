"""`comparisons` against a literal count over the run's own predictions."""

import shutil
from collections import defaultdict

import pytest

from flows.benchmark import xmore_benchmark
from xmore.report.leaderboard import average_table, leaderboards
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.statistics.significance import holm, mcnemar_p


@pytest.fixture(scope="module")
def two(world, tmp_path_factory):
    """A run over two datasets, the second of them a part of the first."""
    root = tmp_path_factory.mktemp("half")
    (root / "half.yaml").write_text("name: half\nroot: half\n")
    for name in ("bird", "tool"):
        shutil.copytree(world.root / "queries" / name, root / "half" / name)
    datasets = [str(world.root / "tiny.yaml"), str(root / "half.yaml")]
    config = world.config(tmp_path_factory.mktemp("two"), datasets=datasets)
    return load_run(config.results, xmore_benchmark.fn(config))


def answers(run):
    """(dataset, method, adjustment) -> seed -> query -> right."""
    found = defaultdict(lambda: defaultdict(dict))
    for dataset, method, adjustment, seed, query, right in (
        open_views(run)
        .execute("select dataset, method, adjustment, seed, query_id, correct from predictions")
        .fetchall()
    ):
        found[dataset, method, adjustment][seed][query] = right
    return found


def mean(seeds, query):
    return sum(said[query] for said in seeds.values()) / len(seeds)


def test_each_pair_is_counted(two):
    told = answers(two)
    rows = open_views(two).execute(
        "select dataset, method, adjustment, baseline, baseline_adjustment, n, only_method, "
        "only_baseline, difference, ci_low, ci_high, p from comparisons"
    )
    seen = set()
    for (
        dataset,
        method,
        adjustment,
        other,
        others,
        n,
        mine,
        theirs,
        d,
        low,
        high,
        p,
    ) in rows.fetchall():
        a, b = told[dataset, method, adjustment], told[dataset, other, others]
        queries = next(iter(a.values())).keys()
        assert n == len(queries)
        assert d == pytest.approx(sum(mean(a, q) - mean(b, q) for q in queries) / n)
        pairs = [(x, y) for x in a for y in b if x == y or None in (x, y)]
        flips = [
            (
                sum(a[x][q] and not b[y][q] for q in queries),
                sum(b[y][q] and not a[x][q] for q in queries),
            )
            for x, y in pairs
        ]
        assert (mine, theirs) in flips
        assert p == pytest.approx(max(mcnemar_p(*flip) for flip in flips))
        assert low - 1e-9 <= d <= high + 1e-9
        seen.add((dataset, method, adjustment, other, others))
    assert len(seen) == 2 * 7 * 6 / 2  # each pair of the seven, on both


def test_the_correction_is_over_datasets_and_methods(two):
    rows = open_views(two).execute(
        "select baseline, baseline_adjustment, p, p_holm from comparisons"
    )
    families = defaultdict(list)
    for baseline, adjustment, p, corrected in rows.fetchall():
        families[baseline, adjustment].append((p, corrected))
    assert len(families["clip", None]) == 2 * 6
    for family in families.values():
        p, corrected = zip(*family, strict=True)
        assert list(corrected) == pytest.approx(holm(p))


def test_the_leaderboard_names_what_is_more_than_chance(two):
    boards = {board.dataset: board for board in leaderboards(open_views(two), two)}
    view = open_views(two).execute(
        "select dataset, method, adjustment, difference, p_holm from leaderboard"
    )
    for dataset, method, adjustment, difference, p in view.fetchall():
        name = f"{method} {adjustment or ''}".strip()
        (line,) = (line for line in boards[dataset].lines if line[0] == name)
        shown = dict(zip(boards[dataset].columns, line, strict=True))
        assert (difference is None) == (method == "clip") == (shown["to clip"] == "")
        assert ("*" in shown["to clip"]) == (p is not None and p < 0.05)


def test_averages_are_over_datasets_alike(two):
    view = open_views(two)
    top1 = view.execute("select avg(top1) from leaderboard where method = 'equal'").fetchone()[0]
    (row,) = (
        row
        for row in average_table(open_views(two), two, every_column=True).rows
        if row[1] == "equal"
    )
    assert row[3:5] == ("2", f"{100 * top1:.1f}")
    low, mid, high = view.execute(
        "select ci_low, top1, ci_high from averages where method = 'equal'"
    ).fetchone()
    parts = view.execute(
        "select top1 - ci_low, ci_high - top1 from leaderboard where method = 'equal'"
    ).fetchall()
    assert mid - low == pytest.approx(sum(below**2 for below, _ in parts) ** 0.5 / 2)
    assert high - mid == pytest.approx(sum(above**2 for _, above in parts) ** 0.5 / 2)


def test_one_dataset_has_no_average_and_one_method_no_comparison(world, tmp_path):
    config = world.config(tmp_path, methods=["equal"])
    run = load_run(config.results, xmore_benchmark.fn(config))
    assert average_table(open_views(run), run, every_column=True).rows == []
    (board,) = leaderboards(open_views(run), run)
    assert [line[4:6] for line in board.lines] == [["", ""]]


def test_a_run_of_before_still_opens(two):
    two.artifacts = [ref for ref in two.artifacts if ref.stage not in ("comparisons", "leaks")]
    view = open_views(two)
    assert view.execute("select count(*) from comparisons").fetchone() == (0,)
    assert view.execute("select count(*) from leaks").fetchone() == (0,)
    assert len(leaderboards(open_views(two), two)) == 2


def test_reliability_gives_the_error_of_calibration(two):
    view = open_views(two)
    by_bins = view.execute(
        "select dataset, sum(answers * abs(top1 - probability)) / sum(answers) from reliability "
        "where method = 'clip' group by dataset order by dataset"
    ).fetchall()
    told = view.execute(
        "select dataset, ece from leaderboard where method = 'clip' order by dataset"
    ).fetchall()
    assert by_bins == [(name, pytest.approx(value, abs=1e-6)) for name, value in told]
