"""Trial runs: `limit`, `--set`, `--model` and `--results`."""

from collections import Counter

import pytest
import yaml

from flows.benchmark import xmore_benchmark
from xmore.datasets.scan import sample
from xmore.report.leaderboard import leaderboards
from xmore.report.page import write_report
from xmore.report.tables import comparisons
from xmore.results.runs import all_runs, load_run
from xmore.results.views import open_views

LABELS = {f"{label}/{i}.jpg": label for label, n in enumerate((60, 30, 10)) for i in range(n)}


def test_a_sample_is_fixed_in_proportion_and_grows():
    smaller = {}
    for limit in (1, 10, 20, 50, 100):
        some = sample(LABELS, limit)
        assert len(some) == limit and some == sample(dict(reversed(LABELS.items())), limit)
        assert smaller.items() <= some.items() <= LABELS.items()
        sizes = Counter(some.values())
        assert all(abs(sizes[label] - limit * n / 100) <= 1 for label, n in enumerate((60, 30, 10)))
        smaller = some
    assert [*sample(LABELS, 50)] != [*LABELS][:50]
    assert sample(LABELS, 1000) == LABELS


@pytest.fixture(scope="module")
def trial(done_again):
    config = done_again.model_copy(update={"limit": 10})
    return load_run(config.results, xmore_benchmark.fn(config))


def test_a_trial_says_so_everywhere_and_is_never_mixed(trial, done, done_again, xmore, tmp_path):
    full = load_run(done_again.results, xmore_benchmark.fn(done_again))
    where = ("--results", trial.results)
    assert trial.name.startswith("tiny-limit10-") and trial.config["limit"] == 10
    by_stage = {ref.stage: ref.digest for ref in full.artifacts}
    for ref in trial.artifacts:  # the classes are all there, and no image was rejected
        shared = ref.stage in ("classes", "rejected")
        assert (by_stage[ref.stage] == ref.digest) == shared, ref.stage
    first = load_run(done.config.results, done.name)
    assert [ref.digest for ref in full.artifacts] == [ref.digest for ref in first.artifacts]
    query = "select distinct trial_limit, n from leaderboard"
    assert open_views(trial).execute(query).fetchall() == [(10, 10)]
    assert open_views(full).execute(query).fetchall() == [(None, 20)]
    classes = "select count(*) from queries group by label"
    assert open_views(trial).execute(classes).fetchall() == [(2,)] * 5
    assert {board.dataset for board in leaderboards(open_views(trial), trial)} == {
        "tiny (limit 10)"
    }
    page = write_report(trial, tmp_path).read_text()
    assert "tiny (n = 10); model lite0" in page and "(limit 10)" in page
    assert "a trial run (limit 10)" in comparisons(open_views(trial), trial).note
    assert "tiny (limit 10), lite0" in xmore("show", trial.name, *where).stdout
    lines = xmore("runs", *where).stdout.splitlines()
    assert ["tiny (limit 10)" in line for line in lines if trial.name in line] == [True]
    shown = xmore("compare", trial.name, full.name, *where).stdout
    assert f"A = {trial.name} (limit 10), B = {full.name}" in shown and "limit" in shown


def test_a_limit_above_the_number_of_images_changes_nothing_but_the_marks(done_again):
    config = done_again.model_copy(update={"limit": 20})
    run = load_run(config.results, xmore_benchmark.fn(config))
    assert all(ref.skipped for ref in run.artifacts)


def test_a_full_run_reads_no_image_that_was_read_before(trial, done_again):
    xmore_benchmark.fn(done_again)
    facts = next((done_again.results / "cache").glob("images-*.json")).read_text()
    assert facts.count(".jpg") == 20


@pytest.fixture
def config_file(done_again, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(done_again.model_dump(mode="json", exclude_none=True)))
    return path


def test_keys_are_changed_on_the_command_line_and_recorded(config_file, tmp_path, xmore):
    (tmp_path / "here").mkdir()
    answer = xmore(
        "benchmark", config_file, "--set", "retrieval.candidates=6", "--set", "limit=10",
        "--set", "retrieval.captions=[2, 4]", "--set", "methods=[clip, equal]", "--model", "lite2",
        "--results", "out", cwd=tmp_path / "here",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    (run,) = all_runs(tmp_path / "here" / "out")
    retrieval = run.config["retrieval"]
    assert (retrieval["candidates"], retrieval["captions"]) == (6, [2, 4])
    assert run.config["limit"] == 10 and run.config["methods"] == ["clip", "equal"]
    assert run.config["roles"] == {
        "inference": ["lite2"],
        "coarse": "lite0-pooled",
        "fine": "lite0",
    }
    # The commands that it recommends find the run.
    assert f"xmore report {run.name} --results {tmp_path / 'here' / 'out'}" in answer.stdout
    assert f"s in its stages, results in {tmp_path / 'here' / 'out'}. " in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "retrieval.candidate=5"], ["unknown key `retrieval.candidate`", "candidates"]),
        (["--set", "limits=5"], ["unknown key `limits`", "Did you mean `limit`?"]),
        (["--set", "retrieval.candidates.x=5"], ["`retrieval.candidates`", "valid integer"]),
        (["--set", "retrieval.candidates=many"], ["`retrieval.candidates`", "'many'"]),
        (["--set", "limit=0"], ["`limit`", "greater than or equal to 1"]),
        (["--set", "limit=2", "--set", "limit=3"], ["`limit`", "twice"]),
        (["--set", "methods=[clip"], ["--set methods=[clip", "not valid YAML"]),
        (["--set", "limit"], ["--set limit", "KEY=VALUE"]),
        (["--set", "=1"], ["--set =1", "KEY=VALUE"]),
        (["--set", "a..b=1"], ["--set a..b=1", "KEY=VALUE"]),
        (["--model", "lite9"], ["no model `lite9`", "Did you mean `lite2`? `models` has lite0"]),
        (["--resume", "latest", "--set", "limit=2"], ["resumed", "--set"]),
    ],
)
def test_changes_that_are_none_are_refused_in_one_line(config_file, xmore, arguments, says):
    answer = xmore("benchmark", config_file, *arguments)
    assert answer.returncode == 2 and not answer.stdout and answer.stderr.count("\n") == 1
    assert all(part in answer.stderr for part in says), answer.stderr
