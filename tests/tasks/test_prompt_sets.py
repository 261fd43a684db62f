"""Several prompt sets in one run: each has what a run with this set alone has, and they compare."""

import json
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import CLASSES

from flows.benchmark import xmore_benchmark
from flows.classify import classified
from flows.cli.terminal.explain import show_explanation
from flows.cli.terminal.runs import show_run
from flows.leaks import leak_reports
from xmore.config.benchmark import BenchmarkConfig
from xmore.memory.adopt import open_memory
from xmore.report.page import write_report
from xmore.results.compare import between
from xmore.results.explain import explain
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.statistics.significance import holm, mcnemar_p
from xmore.store.checks import read_manifest

METHODS = ["clip", "confident-views", "tpt", "coder-captions", "equal", "xmore"]
NAMES = ["paper", "told", "three"]  # in the config's order
VIEWS = {"views": {"count": 2, "limit": 6, "keep": 1.0}}
OF_SETS = ("classes", "scores", "method_scores", "predictions", "metrics")
# What a language model may be asked for each class: several sentences, used as they are.
SENTENCES = {
    "bird": ["A bird has a beak and feathers.", "A small bird sits on a branch."],
    "flower": ["A flower has petals around its centre."],
    "fruit": ["A ripe fruit hangs on a tree.", "A fruit with seeds.", "Sweet fruit in a bowl."],
    "insect": ["An insect has six legs."],
    "tool": ["A tool with a wooden handle.", "A tool made of steel."],
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> list[dict]:
    """The paper's template, three templates, and sentences per class."""
    root = tmp_path_factory.mktemp("prompts")
    (root / "three.txt").write_text("a photo of a {}.\na {} on a stamp.\nart of the {}.\n")
    (root / "told.json").write_text(json.dumps(SENTENCES))
    return [
        {"name": "paper"},
        {"name": "told", "file": str(root / "told.json")},
        {"name": "three", "file": str(root / "three.txt")},
    ]


def changed(config: BenchmarkConfig, **changes) -> BenchmarkConfig:
    return BenchmarkConfig.model_validate(config.model_dump(mode="json") | changes)


def run_of(config: BenchmarkConfig):
    return load_run(config.results, xmore_benchmark.fn(config))


@pytest.fixture(scope="module")
def config(done_again, sets):
    return changed(done_again, methods=METHODS, options=VIEWS, prompt_sets=sets)


@pytest.fixture(scope="module")
def run(config):
    return run_of(config)


@pytest.fixture(scope="module")
def alone(config, sets, done, tmp_path_factory):
    """For each set a run with this set alone, over a store of its own."""
    runs = {}
    for one in sets:
        name, source = one["name"], one.get("file")
        results = tmp_path_factory.mktemp(name)
        for stage in ("query_embeddings", "caption_embeddings"):
            shutil.copytree(done.config.results / "store" / stage, results / "store" / stage)
        runs[name] = run_of(changed(config, prompt_sets=None, prompts=source, results=str(results)))
    return runs


def parts(run, prompt_set):
    """(stage, model, method or M) -> the hashes of its parts, under a prompt set."""
    found = {}
    for ref in run.artifacts:
        if ref.stage in OF_SETS and ref.prompt_set == prompt_set:
            manifest = read_manifest(Path(ref.path))
            params = manifest["params"]
            key = (ref.stage, str(params.get("method")), str(params.get("m")))
            assert key not in found
            found[key] = [part["sha256"] for part in manifest["parts"]]
    return found


def rows_of(run, query):
    return open_views(run).execute(query).fetchall()


@pytest.mark.parametrize("name", ["paper", "three", "told"])
def test_a_set_has_the_bytes_of_a_run_with_this_set_alone(run, alone, name):
    mine, theirs = parts(run, name), parts(alone[name], "")
    assert mine == theirs and len(mine) == 2 + 3 + len(METHODS) + 1
    measured = "prompt_set, seconds_per_image, peak_memory_mb"
    board = f"select * exclude ({measured}) from leaderboard_all where prompt_set = $name"
    together = open_views(run).execute(board, {"name": name}).fetchall()
    assert together == open_views(alone[name]).execute(board, {"name": ""}).fetchall()
    pairs = (
        "select * exclude (prompt_set, baseline_prompt_set) from comparisons "
        "where prompt_set = $name and baseline_prompt_set = $name"
    )
    together = open_views(run).execute(pairs, {"name": name}).fetchall()
    assert len(together) > 20
    assert together == open_views(alone[name]).execute(pairs, {"name": ""}).fetchall()


def test_what_reads_no_prompts_is_computed_once(run):
    tuned = [
        ref
        for ref in run.artifacts
        if ref.stage == "method_scores"
        and read_manifest(Path(ref.path))["params"]["method"][0] == "tpt"
    ]
    assert [ref.prompt_set for ref in tuned] == NAMES
    assert len({ref.digest for ref in tuned}) == 1
    for stage in ("view_embeddings", "query_embeddings", "captions"):
        refs = [ref.digest for ref in run.artifacts if ref.stage == stage]
        assert refs and len(set(refs)) == len(refs), "not of a prompt set"


def test_every_text_is_encoded_once(run, config, encoded, tmp_path):
    again = load_run(config.results, xmore_benchmark.fn(config, again=True))
    assert all(ref.skipped for ref in again.artifacts)
    assert [ref.prompt_set for ref in again.artifacts] == [r.prompt_set for r in run.artifacts]
    assert encoded == {"texts": 0, "images": 0}
    (tmp_path / "four.txt").write_text("art of the {}.\na {} on a stamp.\na shape of {}.\n")
    more = [
        {"name": "new", "file": str(tmp_path / "four.txt")},
        {"name": "newer", "template": "a shape of {}."},
        {"name": "old", "template": "art of the {}."},
    ]
    run_of(changed(config, prompt_sets=more, methods=["clip", "xmore"]))
    assert encoded["texts"] == len(CLASSES), "one new template, though two sets have it"


def test_sets_are_compared_pair_by_pair(run):
    told = defaultdict(lambda: defaultdict(dict))
    for *which, seed, query, right in rows_of(
        run,
        "select method, adjustment, m, prompt_set, seed, query_id, correct from predictions",
    ):
        told[tuple(which)][seed][query] = right
    rows = rows_of(
        run,
        "select method, adjustment, m, prompt_set, baseline_prompt_set, baseline, "
        "baseline_adjustment, n, difference, p, p_holm from comparisons "
        "where prompt_set != baseline_prompt_set",
    )
    variants = {which[:3] for which in told}
    expected = {(*v, b, a) for v in variants for a in NAMES for b in NAMES[NAMES.index(a) + 1 :]}
    assert {row[:5] for row in rows} == expected and len(rows) == len(expected)
    families = defaultdict(list)
    for method, adjustment, m, mine, other, baseline, theirs, n, difference, p, p_holm in rows:
        assert (baseline, theirs) == (method, adjustment)
        a, b = (told[method, adjustment, m, name] for name in (mine, other))
        mean = [sum(a[s].values()) / len(a[s]) - sum(b[s].values()) / len(b[s]) for s in a]
        assert n == len(a[next(iter(a))]) and difference == pytest.approx(sum(mean) / len(mean))
        least = max(
            mcnemar_p(
                sum(a[s][query] and not b[s][query] for query in a[s]),
                sum(b[s][query] and not a[s][query] for query in a[s]),
            )
            for s in a
        )
        assert p == pytest.approx(least)
        families[other].append((p, p_holm))
    for family in families.values():
        assert [one[1] for one in family] == pytest.approx(holm([one[0] for one in family]))
    assert sorted(map(len, families.values())) == [len(variants), 2 * len(variants)]


def test_sql_tells_the_sets_apart(run):
    assert rows_of(run, "select label, prompt from classes order by label") == [
        (label, f"a photo of a {name}.") for label, name in enumerate(CLASSES)
    ]
    counts = dict(rows_of(run, "select prompt_set, count(*) from class_prompts group by all"))
    assert counts == {"paper": 5, "three": 15, "told": sum(map(len, SENTENCES.values()))}
    assert rows_of(run, "select distinct prompt_set from costs order by all") == [
        ("paper",), ("three",), ("told",),
    ]  # fmt: skip
    assert all(s for (s,) in rows_of(run, "select seconds_per_image from leaderboard"))
    (n,) = rows_of(run, "select count(*) from scores_long")[0]
    assert n == 3 * 20 * len(CLASSES)
    names = rows_of(run, "select distinct prompt_set from disagreements order by all")
    assert names == [("paper",), ("three",), ("told",)]


def test_one_set_is_shown_as_ever(run, config, sets, alone, capsys):
    told = [one for one in sets if one["name"] == "told"]
    named = changed(config, prompt_sets=told, results=str(alone["told"].results))
    same = load_run(named.results, xmore_benchmark.fn(named, again=True))
    assert all(ref.skipped and ref.prompt_set == "" for ref in same.artifacts)
    for one in (same, alone["told"]):
        show_run(one.results, one.name, every_column=True)
        printed = capsys.readouterr().out
        assert "prompts" not in printed and "under" not in printed
    assert rows_of(same, "select distinct prompt_set from leaderboard") == [("",)]


def test_tables_have_the_sets_side_by_side(run, capsys, tmp_path):
    show_run(run.results, run.name)
    printed = re.sub(r"[^\S\n]+", " ", capsys.readouterr().out)
    lines = [line.strip(" │|") for line in printed.splitlines()]
    firsts = [line for line in lines if line.startswith("clip ")]
    assert [re.search("paper|three|told", line)[0] for line in firsts[:3]] == NAMES
    page = write_report(run, tmp_path).read_text()
    board = (tmp_path / "tables" / "leaderboard.csv").read_text().splitlines()
    assert board[0].startswith("dataset,model,n,method,m,prompts,top1,")
    # clip, two of views, coder-captions, equal, and four adjustments of xmore
    assert len(board) == 1 + 3 * 9
    between_sets = (tmp_path / "tables" / "prompt_sets.csv").read_text().splitlines()
    assert len(between_sets) == 1 + 3 * 9
    assert "Each method under two prompt sets" in page and "prompts paper; memory" in page
    assert "xmore minmax (M = 8) under told predicts" in page
    assert "equal under told" in (tmp_path / "tables" / "comparisons.csv").read_text()
    by_class = (tmp_path / "tables" / "by_class.csv").read_text().splitlines()
    assert len(by_class) == 1 + len(CLASSES), "of the first set alone"


def test_single_images_are_explained_under_each_set(run, config, capsys):
    found = explain(open_views(run), "3", None)
    assert [scores.prompt_set for scores in found.scores] == NAMES
    assert {answer.method for answer in found.answers} >= {"clip under told", "equal under paper"}
    show_explanation(found)
    assert "lite0 under three: image confidence" in capsys.readouterr().out
    folder = Path(config.datasets[0]).with_name("queries")
    image = min(folder.glob("*/*.jpg"))
    for labels in (None, ["fruit", "tool"]):  # the run's classes, or others of the file
        with classified(image, labels, config, run) as (one, _):
            assert [scores.prompt_set for scores in one.scores] == NAMES
            after = [a.method for a in one.answers if " in the stream" in a.method]
            assert after == [f"xmore minmax in the stream under {name}" for name in NAMES]


def test_runs_are_compared_set_by_set(run, alone):
    flips = between(run, run).flips
    assert {(f.variant.partition(" under ")[2], f.only_a, f.only_b) for f in flips} == {
        (name, 0, 0) for name in ("paper", "three", "told")
    }
    for one, other in ((run, alone["told"]), (alone["told"], run)):  # one set against each
        flips = {f.variant: (f.only_a, f.only_b) for f in between(one, other).flips}
        assert flips["clip under told"] == (0, 0) and "clip under paper" in flips


def test_leaks_are_told_under_each_set(run):
    with open_memory(Path(run.snapshot["memory"]), run.results / "cache", None) as snapshot:
        (report,) = leak_reports(run, snapshot, 0.5)
    tops = {
        (method if not adjustment else f"{method} {adjustment}") + f" under {name}": top1
        for method, adjustment, name, top1 in rows_of(
            run, "select method, adjustment, prompt_set, top1 from leaderboard"
        )
    }
    assert {row.method: row.all for row in report.accuracies} == pytest.approx(tops)


def test_equal_prompts_under_two_names_are_made_once(config, tmp_path):
    twice = [{"name": "papers", "template": "a photo of a {}."}, {"name": "card"}]
    run = run_of(changed(config, prompt_sets=twice, methods=["clip", "xmore"]))
    rows = rows_of(run, "select prompt_set, top1, seconds_per_image from leaderboard order by all")
    half = len(rows) // 2
    assert [row[1:] for row in rows[:half]] == [row[1:] for row in rows[half:]]
    resumed = load_run(run.results, xmore_benchmark.fn(config, resume=run.name))
    assert [r.prompt_set for r in resumed.artifacts] == [r.prompt_set for r in run.artifacts]
    assert all(
        p == 1
        for (p,) in rows_of(
            run, "select p from comparisons where prompt_set != baseline_prompt_set"
        )
    )


def test_a_run_of_before_is_shown(alone, tmp_path, capsys):
    """Its run.json names no prompt sets."""
    shutil.copytree(alone["paper"].results, tmp_path / "results")
    old = load_run(tmp_path / "results", "latest")
    data = json.loads((old.path / "run.json").read_text())
    data.pop("checksum")
    for each in (*data["artifacts"], *data["costs"]):
        del each["prompt_set"]
    (old.path / "run.json").write_text(json.dumps(data))
    old = load_run(tmp_path / "results", "latest")
    board = "select * exclude (seconds_per_image) from leaderboard"
    assert rows_of(old, board) == rows_of(alone["paper"], board)
    assert None not in [s for (s,) in rows_of(old, "select seconds_per_image from leaderboard")]
    show_run(old.results, old.name)
    assert "prompts" not in capsys.readouterr().out
    assert between(old, alone["paper"]).flips
