"""`xmore explain` and `xmore classify`: what they show is what the artifacts hold."""

import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from flows.benchmark import xmore_benchmark
from flows.reindex import xmore_reindex
from xmore.files.errors import QueryError
from xmore.report.explain import write_page
from xmore.report.pictures import pictures_of
from xmore.results.explain import explain
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store.artifacts import read_rows


@pytest.fixture
def run(done):
    return load_run(done.config.results, done.name)


def test_a_querys_way_is_what_the_artifacts_hold(run):
    found = explain(open_views(run), "7", None)
    rows = {
        ref.stage: [row for row in read_rows(ref).to_pylist() if row.get("query_id") == 7]
        for ref in run.artifacts
    }
    scores, captions = rows["scores"][0], rows["captions"][0]
    (opinions,) = found.scores
    assert (
        found.uri == rows["queries"][0]["uri"] and found.label == rows["queries"][0]["class_name"]
    )
    assert [p for _, p in opinions.image] == sorted(scores["image_scores"], reverse=True)[:5]
    assert [p for _, p in opinions.text] == sorted(scores["text_scores"], reverse=True)[:5]
    assert opinions.text_confidence == scores["text_confidence"]
    assert [row.caption for row in found.captions] == captions["captions"]
    assert [row.memory_id for row in found.candidates] == rows["candidates"][0]["memory_ids"]
    methods = [answer.method for answer in found.answers]
    board = open_views(run).execute("select variant(method, adjustment) from leaderboard")
    assert list(dict.fromkeys(methods)) == [name for (name,) in board.fetchall()]
    for answer in found.answers:
        assert answer.correct == (answer.answer == found.label)


def test_a_query_is_found_by_path_and_an_unknown_or_unclear_one_is_named(run):
    db = open_views(run)
    uri = explain(db, "7", None).uri
    assert explain(db, uri, None).query_id == explain(db, uri.split("/")[1], "tiny").query_id == 7
    for query, dataset in (("99", None), ("", None), ("99", "tiny"), ("' or 1=1 --", None)):
        with pytest.raises(QueryError, match="tiny has 0 to 19"):
            explain(db, query, dataset)


def test_the_terminal_shows_it(done, xmore):
    answer = xmore("explain", done.name, "7", "--results", done.config.results)
    assert answer.returncode == 0, answer.stderr
    for part in ("tiny query 7", "label:", "text scores (M = 8)", "24 candidates", "xmore minmax"):
        assert part in answer.stdout


def test_captions_in_a_page_are_text_never_html(world, tmp_path, xmore):
    evil = '<script>alert(1)</script><img src="http://h/x.png"> \x1b[31m {{ 7 * 7 }} [red]x[/red]'
    table = pq.read_table(world.root / "captions.parquet")[:30]
    texts = pa.array([f"{evil} {i}" for i in range(30)])
    table = table.set_column(table.column_names.index("caption"), "caption", texts)
    pq.write_table(table, tmp_path / "captions.parquet")
    xmore_reindex.fn(
        world.memory_config(memory=tmp_path / "m", captions=tmp_path / "captions.parquet")
    )
    config = world.config(tmp_path / "results", memory=tmp_path / "m")
    run = load_run(config.results, xmore_benchmark.fn(config))
    way = explain(open_views(run), "0", None)
    with pictures_of(run, "tiny") as pictures:
        write_page(way, pictures.query(way.uri), pictures.memory, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page and "&lt;script&gt;" in page and "{{ 7 * 7 }}" in page
    assert page.count("data:image/webp") == 1 + len(way.captions)  # the query, and each caption's
    assert not re.search(r'(src|href)="(?!data:)', page)
    answer = xmore("explain", run.name, "0", "--results", config.results)
    assert (
        answer.returncode == 0 and "\x1b" not in answer.stdout and "[red]x[/red]" in answer.stdout
    )


def test_pictures_of_a_downloaded_memory_come_from_its_tars(world, web, tmp_path):
    from xmore.files.digests import digest_file
    from xmore.memory.pictures import memory_pictures

    urls = web.url_list(tmp_path / "urls.parquet", rows=12)
    snapshot = xmore_reindex.fn(world.url_config(urls, tmp_path / "m")).snapshot
    folder = world.images
    rows = pq.read_table(snapshot.shards[0].metadata).to_pylist()
    for memory_id in (0, 5, 11):
        picture = dict(memory_pictures(snapshot, [memory_id])).get(memory_id)
        original = folder / rows[memory_id]["url"].rpartition("/")[2]
        assert digest_file(original) == rows[memory_id]["memory_key"]
        assert picture == original.read_bytes() or max(rows[memory_id]["width"], 257) >= 256
    shutil.rmtree(tmp_path / "m" / "batches")
    assert dict(memory_pictures(snapshot, [0])).get(0) is None


@pytest.fixture
def config_file(done, tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(done.config.model_dump(mode="json", exclude_none=True)))
    return path


def test_a_new_picture_is_classified_as_the_run_did(world, done, run, config_file, xmore):
    row = explain(open_views(run), "7", None)
    classes = open_views(run).sql("select class_name from classes order by label").fetchall()
    labels = ",".join(name for (name,) in classes)
    image = world.root / "queries" / row.uri
    answer = xmore(
        "classify", image, "--labels", labels, "--run", done.name, "--results", done.config.results
    )
    assert answer.returncode == 0, answer.stderr
    expected = next(a for a in row.answers if a.method == "xmore none")
    line = next(line for line in answer.stdout.splitlines() if "xmore none" in line)
    assert expected.answer in line and f"{expected.probability:.3f}" in line
    assert "xmore minmax in the stream" in answer.stdout and "no stream" in answer.stdout
    own = xmore("classify", image, "--run", done.name, "--results", done.config.results)
    assert own.stdout == answer.stdout  # the run's classes
    refused = xmore("classify", image)
    assert refused.returncode == 2 and "--labels, --labels-file and --run" in refused.stderr


@pytest.fixture(scope="module")
def two(world, tmp_path_factory):
    """A run of two datasets: of five classes, and of two under a prompt that is too long."""
    folder = tmp_path_factory.mktemp("two")
    for name in ("bird", "tool"):
        shutil.copytree(world.root / "queries" / name, folder / "few" / name)
    (folder / "few.yaml").write_text(
        "name: few\nroot: few\nprompt: '{}" + ", one of very many words" * 90 + "'\n"
    )
    datasets = [str(world.root / "tiny.yaml"), str(folder / "few.yaml")]
    config = world.config(folder / "results", datasets=datasets)
    return load_run(config.results, xmore_benchmark.fn(config))


def test_a_picture_comes_after_the_queries_of_one_dataset(world, two, tmp_path):
    from flows.classify import classified
    from xmore.results.runs import config_of

    image = min((world.root / "queries").rglob("*.jpg"))
    config, weights = config_of(two), {}
    roles = config.roles.model_copy(update={"inference": ["lite0", "lite2"]})
    config = config.model_copy(update={"roles": roles})
    for name in ("tiny", "few"):
        bounds = open_views(two).execute(
            "select min(image_confidence), max(image_confidence) from scores where dataset = ?",
            [name],
        )
        ((low, high),) = bounds.fetchall()
        with classified(image, ["bird", "tool"], config, two, name) as (found, _):
            assert [a.model for a in found.answers] == ["lite0"] * 5 + ["lite2"] * 5
            after = next(
                a for a in found.answers if a.method.startswith("xmore minmax in the stream")
            )
            mine = found.scores[0].image_confidence
        weights[name] = after.image_weight
        assert after.image_weight == pytest.approx(min(max((mine - low) / (high - low), 0), 1))
    assert weights["tiny"] != weights["few"]


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (None, "has several datasets: "),
        (
            "tinny",
            "within one. Did you mean `tiny`? Set",
        ),
    ],
)
def test_a_run_of_several_datasets_wants_one(world, two, xmore, dataset, says):
    image = min((world.root / "queries").rglob("*.jpg"))
    results = two.path.parents[1]
    arguments = ["--labels", "a,b", "--run", two.name, "--results", results]
    answer = xmore("classify", image, *arguments, *(["--dataset", dataset] if dataset else []))
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1
    assert says in answer.stderr and answer.stderr.rstrip().endswith(
        "--dataset to one of: few, tiny."
    )


def test_a_misspelt_dataset_of_a_query_is_answered_with_the_nearest(two):
    with pytest.raises(QueryError, match=r"`fwe`\. Did you mean `few`\? .*: few, tiny\."):
        explain(open_views(two), "0", "fwe")


def test_class_sentences_that_were_cut_are_counted_and_named(two, run, xmore):
    answer = xmore("show", two.name, "--results", two.path.parents[1])
    line = "few: 2 of 2 class sentences are longer than the 256 tokens of lite0 and were cut"
    assert line in answer.stdout and "the first is 'bird, one of very" in answer.stdout
    assert "were cut" not in xmore("show", run.name, "--results", run.path.parents[1]).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["x.jpg", "--labels", "a,b", "--dataset", "d"], "set --run"),
        (["nowhere.jpg", "--labels", "a,b"], "nowhere.jpg: no such file"),
        ([__file__, "--labels", "a,b"], "not an image"),
        (["x.jpg", "--labels", "a"], "at least two"),
        (["x.jpg", "--labels", "a,b, a"], "'a' twice"),
        (["x.jpg"], "--labels-file"),
        (["x.jpg", "--labels-file", "nowhere.txt"], "nowhere.txt: cannot be read"),
    ],
)
def test_a_mistake_is_one_line(config_file, arguments, says, xmore):
    answer = xmore("classify", *arguments, "--config", config_file)
    assert answer.returncode == 2 and says in answer.stderr and answer.stderr.count("\n") == 1
