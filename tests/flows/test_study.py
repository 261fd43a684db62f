"""A study: packed without captions, images and paths of home, read elsewhere, and run anew."""

import io
import json
import os
import shutil
from pathlib import Path
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest
from unprivileged import read_only, unprivileged

from flows.study import pack_run
from xmore.report.opened import open_run
from xmore.results.runs import load_run
from xmore.results.study.unpack import unpack
from xmore.results.views import open_views


@pytest.fixture(scope="module")
def run(done):
    return load_run(done.config.results, done.name)


@pytest.fixture(scope="module")
def study(run, world, tmp_path_factory) -> Path:
    """The tiny run, packed by a user whose home holds the tiny world."""
    out = tmp_path_factory.mktemp("packed") / "tiny.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(world.root))
        pack_run(run, out, captions=False, images=False)
    return out


@pytest.fixture(scope="module")
def opened(study, tmp_path_factory):
    return unpack(study, tmp_path_factory.mktemp("elsewhere") / "tiny")


def content(study: Path) -> dict[str, str]:
    """The text in each file of a study; of a table, all its values."""
    found = {}
    with ZipFile(study) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith(".parquet"):
                found[name] = str(pq.read_table(io.BytesIO(data)).to_pylist())
            else:
                found[name] = data.decode("utf-8", "replace")
    return found


def test_a_study_has_no_caption_no_image_and_no_path_of_its_owner(study, run, world):
    rows = open_views(run).execute("select distinct caption from captions_long").fetchall()
    captions = [caption for (caption,) in rows]
    assert len(captions) > 50
    found = content(study)
    html = found[f"runs/{run.name}/report/report.html"]
    assert "Wilson" in html and "Examples" not in html and "data:image" not in html
    for name, text in found.items():
        assert not [caption for caption in captions if caption in text], name
        assert str(world.root) not in text, name
    config = json.loads(found[f"runs/{run.name}/run.json"])["config"]
    assert config["memory"] == "~/memory" and config["models"]["lite0"]["folder"].startswith("~/")


def test_packing_again_gives_the_same_bytes(study, run, world, xmore, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(world.root))
    again = tmp_path / "again.zip"
    answer = xmore("pack", run.name, again, "--results", run.results, "--json")
    assert again.read_bytes() == study.read_bytes() and os.listdir(tmp_path) == ["again.zip"]
    told = json.loads(answer.stdout)
    assert told["study"][0]["captions"] is told["study"][0]["images"] is False
    packed = {row["stage"]: row["packed"] for row in told["stages"]}
    assert packed["predictions"] == "yes" and packed["captions"] == packed["scores"] == "hashes"
    assert {"place": "~/memory"} in told["places"]


SAME = (
    "from predictions order by all",
    "from metrics order by all",
    "from comparisons order by all",
    "from leaderboard",
    "from by_class",
    "from hyperparameters order by all",
    "from class_prompts",
    "from leaks order by all",
)


def test_an_opened_study_answers_the_same_questions(run, opened):
    here, there = open_views(opened), open_views(run)
    for query in SAME:
        assert here.sql(query).fetchall() == there.sql(query).fetchall(), query
    for view in ("candidates_long", "captions_long", "scores_long", "query_embeddings"):
        assert here.sql(f"from {view}").fetchall() == [], view
        assert here.sql(f"from {view}").columns == there.sql(f"from {view}").columns


def test_what_an_opened_study_lacks_is_said(opened, run, xmore, caplog):
    place = ("--results", opened.results)
    for command in (("show",), ("explain", "0"), ("sql", "from scores")):
        answer = xmore(command[0], "latest", *command[1:], *place)
        assert answer.returncode == 0
    assert "left out when it was packed" in caplog.text and "scores" in caplog.text
    image = next(Path(run.config["datasets"][0]).parent.rglob("*.jpg"))
    classify = ("classify", image, "--run", "tiny")
    for command in (("report", "latest"), ("leaks", "latest"), classify):
        answer = xmore(*command, *place)
        assert answer.returncode == 2 and "left out when it was packed" in answer.stderr
        assert answer.stderr.splitlines()[-1].startswith("error: ")
    answer = xmore("report", "latest", *place, "--output", opened.results.with_name("page"))
    assert answer.returncode == 0 and answer.stdout
    for what in (("latest",), ("--all",)):
        answer = xmore("verify", *what, *place)
        assert answer.returncode == 0 and "left out when it was packed" in answer.stdout
    answer = xmore("pack", "latest", opened.results.with_name("x.zip"), *place)
    assert answer.returncode == 2 and "was opened from a study" in answer.stderr


def test_damage_of_an_opened_study_is_found(opened, xmore, tmp_path):
    results = shutil.copytree(opened.results, tmp_path / "copy")
    part = next((results / "store" / "predictions").rglob("*.parquet"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    assert xmore("verify", "latest", "--results", results).returncode == 1
    assert xmore("show", "latest", "--results", results).returncode == 2
    index = results / "runs" / opened.name / "study.json"
    index.write_bytes(index.read_bytes().replace(b"predictions", b"qredictions", 1))
    shutil.copy2(next((opened.results / "store" / "predictions").rglob(part.name)), part)


def test_another_user_opens_and_reads_it(study, xmore, tmp_path):
    sent = tmp_path / "sent"
    sent.mkdir()
    shutil.copy(study, sent)
    with read_only(sent):
        answer = xmore("open", sent / "tiny.zip", cwd=tmp_path)
        assert answer.returncode == 0 and "xmore show" in answer.stdout
        again = xmore("open", sent / "tiny.zip", cwd=tmp_path)
        assert again.returncode == 2 and "is there already" in again.stderr
        refused = xmore("open", sent / "tiny.zip", sent / "here")
        assert refused.returncode == 2 and "Permission denied" in refused.stderr
    with read_only(tmp_path / "tiny"):
        assert open_run(results=tmp_path / "tiny").leaderboard().num_rows
        assert xmore("show", "latest", "--results", tmp_path / "tiny").returncode == 0
    with unprivileged():
        assert xmore("verify", "--all", "--results", tmp_path / "tiny").returncode == 0


@pytest.fixture
def again(done_again) -> tuple[str, ...]:
    return ("--results", str(done_again.results), "--json")


def test_a_study_is_reproduced(study, world, again, xmore, monkeypatch):
    monkeypatch.setenv("HOME", str(world.root))
    answer = xmore("reproduce", study, *again)
    told = json.loads(answer.stdout)
    assert answer.returncode == 0 and told["partings"] == []
    (facts,) = told["reproduced"]
    assert facts["same"] and facts["differ"] == facts["absent"] == 0 and facts["predictions"] > 100
    assert facts["reused"] == len(told["artifacts"])
    assert {(row["digest"], row["bytes"]) for row in told["artifacts"]} == {("same", "same")}
    assert {row["off_by"] for row in told["artifacts"] if row["stage"] == "metrics"} == {0}


def test_where_a_study_and_its_reproduction_part(study, world, again, xmore, monkeypatch):
    monkeypatch.setenv("HOME", str(world.root))
    answer = xmore("reproduce", study, *again, "--set", "retrieval.candidates=9")
    told = json.loads(answer.stdout)
    assert answer.returncode == 1
    assert [(row["artifact"], row["because"]) for row in told["partings"]] == [
        ("candidates, lite0-pooled", "`k` 24, here 9"),
        ("metrics", "other `hyperparameters`"),
    ]
    other = {row["stage"] for row in told["artifacts"] if row["digest"] == "other"}
    assert other == {"candidates", "leaks", "captions", "scores", "predictions", "metrics",
                     "comparisons"}  # fmt: skip
    rows = [row for row in told["artifacts"] if row["stage"] == "predictions"]
    assert [row["differ"] for row in rows if row["method"] == "clip"] == [0]
    assert sum(row["differ"] for row in rows) == told["reproduced"][0]["differ"] > 0


def test_an_opened_study_is_no_place_to_reproduce_it(study, opened, xmore):
    answer = xmore("reproduce", study, "--results", opened.results)
    assert answer.returncode == 2 and "holds an opened study" in answer.stderr
