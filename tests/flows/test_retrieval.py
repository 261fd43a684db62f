"""A run with a retrieval dataset: ranks, recalls, what is set aside, what commands say of it."""

import csv
import json
import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from flows.benchmark import xmore_benchmark
from xmore.files.errors import DatasetError, QueryError
from xmore.report.opened import OpenRun
from xmore.report.page import write_report
from xmore.report.recalls import LEGEND
from xmore.results.notes import notes
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store.artifacts import path_of, read_rows
from xmore.store.schemas import to_matrix

HOSTILE = (
    'a "quoted", comma\nand a new line',
    "\x1b[31mred\x1b[0m <script>alert(1)</script>",
    "a long one " * 9_000,
)


@pytest.fixture(scope="module")
def place(world, done, distinct, tmp_path_factory):
    """Eleven images with one to four captions, and a config without a memory."""
    root = tmp_path_factory.mktemp("retrieval")
    (root / "images").mkdir()
    rows = []
    for number, row in enumerate(distinct.to_pylist()[::40][:11]):
        shutil.copy(world.images / row["path"], root / "images" / f"{number:02d}.jpg")
        texts = [f"{row['caption']} {i}" for i in range(1 + number % 3)]
        rows += [(f"{number:02d}.jpg", text) for text in texts]
    rows += [("00.jpg", text) for text in HOSTILE]
    rows += [("03.jpg", ""), ("05.jpg", " "), ("gone.jpg", "of no image"), ("gone.jpg", "at all")]
    with (root / "captions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "caption"), *rows])
    card = {"name": "pairs", "task": "retrieval", "root": "images"}
    write_card(root / "pairs.yaml", card | {"captions": {"file": "captions.csv"}})
    results = tmp_path_factory.mktemp("results")
    shutil.copytree(done.config.results / "store", results / "store")
    values = world.config(results).model_dump(exclude_unset=True)
    values |= {"datasets": [str(root / "pairs.yaml")], "memory": None, "retrieval": {}}
    values |= {"roles": {"inference": ["lite0", "lite2"]}, "max_rejected": 0.2, "report": True}
    del values["adjustments"]
    return SimpleNamespace(root=root, config=type(world.config(results)).model_validate(values))


def write_card(path, card):
    path.write_text(yaml.safe_dump(card))


@pytest.fixture(scope="module")
def run(place):
    return load_run(place.config.results, xmore_benchmark.fn(place.config))


@pytest.fixture(scope="module")
def db(run):
    return open_views(run)


def column(db, query):
    return [value for (value,) in db.execute(query).fetchall()]


def test_each_image_and_each_caption_has_a_rank(run, db):
    assert [(ref.stage, ref.model) for ref in run.artifacts] == [
        ("queries", None), ("image_captions", None), ("rejected", None),
        ("query_embeddings", "lite0"), ("ranks", "lite0"),
        ("query_embeddings", "lite2"), ("ranks", "lite2"),
        ("retrieval_metrics", None), ("retrieval_comparisons", None),
    ]  # fmt: skip
    counts = (
        "select direction, count(*), count(distinct query_id) from ranks group by all order by 1"
    )
    assert db.execute(counts).fetchall() == [("image-to-text", 22, 11), ("text-to-image", 48, 11)]
    assert set(HOSTILE) <= set(column(db, "select caption from ranks"))
    own = "select bool_and(r.query_id = c.query_id) from ranks r join image_captions c "
    own += "using (caption_id)"
    assert column(db, own) == [True]


def test_ranks_are_those_of_the_stored_features(run, db, place):
    """Counted by hand from the artifacts, whose parts hold four rows."""
    for model in ("lite0", "lite2"):
        (ref,) = [r for r in run.artifacts if (r.stage, r.model) == ("query_embeddings", model)]
        images = to_matrix(read_rows(ref)["embedding"])
        texts, owner = np.array(
            db.execute(
                "select caption, query_id from image_captions order by caption_id"
            ).fetchall(),
            object,
        ).T
        features = stored_features(place.config, model, texts)
        similar = (images.astype(float) @ features.T.astype(float)).astype(np.float32)
        by_image = [
            min(1 + sorted(-row).index(-value) for value in row[owner == i])
            for i, row in enumerate(similar)
        ]
        by_text = [1 + sorted(-row).index(-row[i]) for row, i in zip(similar.T, owner, strict=True)]
        ranks = f"select rank from ranks where model = '{model}' and direction ="
        assert column(db, f"{ranks} 'image-to-text' order by query_id") == by_image
        assert column(db, f"{ranks} 'text-to-image' order by caption_id") == by_text


def stored_features(config, model, texts):
    from xmore.models.spec import describe_model
    from xmore.store.texts import CaptionStore

    card = describe_model(model, config.model(model), config.results / "cache")
    return CaptionStore(config.results / "store", card).lookup(list(texts)).unit


def test_what_cannot_be_used_is_listed_and_told(run, db):
    assert db.execute("select uri, cause from rejected").fetchall() == [
        ("gone.jpg", "no such file"),
        ("03.jpg", "empty caption"),
        ("05.jpg", "empty caption"),
        ("gone.jpg", "caption of a rejected image"),
        ("gone.jpg", "caption of a rejected image"),
    ]
    told = notes(db, run)
    assert "pairs: 2 captions rejected: empty caption (03.jpg)" in told
    assert "pairs: 1 test image rejected: no such file (gone.jpg)" in told
    (cut,) = [line for line in told if "of lite0 and were cut" in line]
    assert cut.startswith("pairs: 1 of 24 captions are longer than the ")


def test_recalls_and_comparisons_are_of_both_models(db):
    found = db.execute("select direction, model, k, n, difference is null from recalls").fetchall()
    assert found == [
        (direction, model, k, n, model == "lite0")
        for direction, n in (("image-to-text", 11), ("text-to-image", 24))
        for model in ("lite0", "lite2")
        for k in (1, 5, 10)
    ]
    wrong = """
        select * from recalls join (
          select model, direction, k, avg((rank <= k)::int) as share,
                 median(rank) as middle
          from (select model, direction, rank, unnest([1, 5, 10]) as k from ranks) group by all
        ) using (model, direction, k)
        where abs(recall - share) > 1e-12 or median_rank != middle
           or not (ci_low <= recall and recall <= ci_high)
    """
    assert db.execute(wrong).fetchall() == []
    pairs = "select distinct model, baseline_model, p <= p_holm from retrieval_comparisons"
    assert db.execute(pairs).fetchall() == [("lite2", "lite0", True)]
    assert column(db, "select count(*) from retrieval_comparisons") == [6]


def test_commands_and_exports_say_it(run, xmore, tmp_path):
    where = ("--results", run.results)
    shown = xmore("show", run.name, *where)
    assert shown.returncode == 0 and "pairs, image-to-text, n = 11" in shown.stdout
    assert all(len(line) <= 80 for line in LEGEND) and LEGEND[-1] in shown.stdout
    assert "recall@10 %" in shown.stdout and "to clip" not in shown.stdout
    data = json.loads(xmore("show", run.name, "--json", *where).stdout)
    assert len(data["recalls"]) == 12 and len(data["model_comparisons"]) == 6
    page = (run.path / "report" / "report.html").read_text()
    assert "All pairs of models" in page and "Examples" not in page and "alert(1)" not in page
    assert "recall@1" in OpenRun(run)._repr_html_()
    assert xmore("verify", run.name, *where).returncode == 0
    listed = xmore("export", run.name, "--to", "csv", *where).stdout.splitlines()
    assert len(listed) == 13 and listed[0].startswith("dataset,direction,model,k,n,recall")
    refused = xmore("export", run.name, "--to", "latex", *where)
    assert (
        refused.returncode == 2 and "retrieval datasets alone. Export it to csv" in refused.stderr
    )
    assert (
        xmore("export", run.name, "--to", "clip-benchmark", "--output", tmp_path, *where).returncode
        == 0
    )
    theirs = json.loads((tmp_path / "pairs_lite2_retrieval.json").read_text())
    assert theirs["task"] == "zeroshot_retrieval" and theirs["dataset"] == "pairs"
    query = "select recall from recalls where model = 'lite2' and k = 5 order by direction"
    assert column(open_views(run), query) == [
        theirs["metrics"]["text_retrieval_recall@5"],
        theirs["metrics"]["image_retrieval_recall@5"],
    ]


def test_a_packed_run_has_ranks_and_recalls_but_no_caption(run, db, xmore, tmp_path):
    study = tmp_path / "pairs.zip"
    assert xmore("pack", run.name, study, "--results", run.results).returncode == 0
    assert xmore("open", study, tmp_path / "there").returncode == 0
    there = open_views(load_run(tmp_path / "there", run.name))
    for query in (
        "from recalls",
        "from retrieval_comparisons",
        "select * exclude caption from ranks",
    ):
        rows = there.execute(query).fetchall()
        assert rows and sorted(rows, key=str) == sorted(db.execute(query).fetchall(), key=str)
    assert column(there, "select count(caption) from ranks") == [0]
    made = xmore("reproduce", study, "--results", run.results)
    assert made.returncode == 0, made.stdout + made.stderr
    assert made.stdout.splitlines()[-1].endswith(". Same recalls.")


def test_what_a_study_of_it_has_is_said(run, xmore, tmp_path):
    where = ("--results", run.results)
    for option, says in (((), "Without captions"), (("--captions",), "With captions.")):
        packed = xmore("pack", run.name, tmp_path / "pairs.zip", *option, *where)
        assert packed.returncode == 0 and says in packed.stdout, packed
        card = run.config["datasets"][0]
        assert card.replace("pairs.yaml", "images") in packed.stdout  # a place that the card names
    told = xmore("open", tmp_path / "pairs.zip", tmp_path / "opened").stdout
    assert '"from ranks"' in told and "predictions" not in told


def test_the_same_run_is_found_again_and_nothing_is_made(run, place, encoded):
    assert xmore_benchmark.fn(place.config) == run.name
    assert encoded == {"texts": 0, "images": 0}


def test_beside_a_classification_dataset_that_one_stays_as_it_is(run, place, done, xmore, encoded):
    config = done.config.model_copy(
        update={
            "results": run.results,
            "name": "both",
            "max_rejected": 0.2,
            "datasets": [*done.config.datasets, *place.config.datasets],
        }
    )
    both, alone = (
        load_run(run.results, xmore_benchmark.fn(config)),
        load_run(done.config.results, done.name),
    )
    digests = [{ref.digest for ref in each.artifacts} for each in (both, alone)]
    assert digests[1] <= digests[0] and encoded == {"texts": 0, "images": 0}
    here, there = open_views(both), open_views(alone)
    board = "select * exclude (seconds_per_image, peak_memory_mb) from leaderboard"
    assert here.execute(board).fetchall() == there.execute(board).fetchall()
    assert {dataset for (dataset,) in here.execute("select dataset from recalls").fetchall()} == {
        "pairs"
    }
    page = write_report(both, both.path / "report").read_text()
    assert 'id="recall"' in page and 'id="gallery"' in page
    assert "captions" in json.dumps(notes(here, both))
    leaks = xmore("leaks", both.name, "--results", run.results)
    assert leaks.returncode == 0 and "tiny" in leaks.stdout and "pairs" not in leaks.stdout
    with pytest.raises(QueryError, match="query 0 of pairs has ranks instead"):
        OpenRun(both).explain("00.jpg", "pairs")


def test_a_trial_run_takes_some_images_with_all_their_captions(run, place):
    trial = load_run(run.results, xmore_benchmark.fn(place.config.model_copy(update={"limit": 5})))
    db = open_views(trial)
    per_image = "select uri, count(*) from image_captions join queries using (query_id) group by 1"
    some, everything = (
        dict(db.execute(per_image).fetchall()),
        dict(open_views(run).execute(per_image).fetchall()),
    )
    assert len(some) >= 4 and some.items() <= everything.items()


def test_too_many_wrong_captions_stop_the_run(place):
    config = place.config.model_copy(update={"max_rejected": 0.08})
    with pytest.raises(DatasetError, match=r"1 of 12 images cannot be used"):
        xmore_benchmark.fn(config)


def test_settings_without_effect_are_told(place, done, caplog):
    config = place.config.model_copy(update={"prompt": "a {}", "limit": 5})
    with caplog.at_level(logging.WARNING):
        xmore_benchmark.fn(config)
    assert "only retrieval datasets: `prompt` has no effect" in caplog.text


def test_a_damaged_part_is_seen_and_made_again(run, place, xmore):
    (ref,) = [r for r in run.artifacts if (r.stage, r.model) == ("ranks", "lite0")]
    part = path_of(run.results / "store", "ranks", "pairs", ref.digest) / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    assert xmore("verify", run.name, "--results", run.results).returncode == 1
    again = load_run(run.results, xmore_benchmark.fn(place.config))
    assert [r.digest for r in again.artifacts] == [r.digest for r in run.artifacts]
    assert xmore("verify", again.name, "--results", run.results).returncode == 0
