"""A flipped bit in what a result comes from is seen before it is used."""

import json
import shutil
from pathlib import Path

import pytest

from flows.benchmark import xmore_benchmark
from xmore.results.runs import load_run
from xmore.results.views import open_views

STAGES = (
    "queries",
    "query_embeddings",
    "candidates",
    "captions",
    "scores",
    "predictions",
    "metrics",
)


def flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 1 << 3
    stat = path.stat()
    path.write_bytes(data)
    assert path.stat().st_size == stat.st_size


@pytest.fixture
def copied(done, tmp_path):
    """A copy of a run's results, and its config there."""
    shutil.copytree(done.config.results, tmp_path / "results")
    return done.config.model_copy(update={"results": tmp_path / "results"}), done.name


def answers(config, name):
    db = open_views(load_run(config.results, name))
    query = (
        "select dataset, query_id, method, adjustment, model, m, seed, prediction, "
        "round(probability, 4) as probability from predictions order by all"
    )
    return db.execute(query).fetchall()


def assert_made_again(config, done) -> None:
    """A further run says what the undamaged one said."""
    again = xmore_benchmark.fn(config)
    assert answers(config, again) == answers(done.config, done.name)


def without_text_stages(config) -> None:
    """The next run reads the text store again."""
    for stage in ("captions", "scores", "predictions"):
        shutil.rmtree(config.results / "store" / stage)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_damaged_part_is_not_shown_and_made_again(done, copied, stage, share):
    config, name = copied
    run = load_run(config.results, name)
    artifact = next(Path(ref.path) for ref in run.artifacts if ref.stage == stage)
    flip(min(artifact.glob("part-*.parquet")), share)
    with pytest.raises(Exception, match=r"damaged or gone .*part-00000"):
        open_views(run)
    assert_made_again(config, done)
    assert list(artifact.parent.glob(f"{artifact.name}.broken-*"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_damaged_manifest_is_not_believed(done, copied, stage):
    config, name = copied
    run = load_run(config.results, name)
    artifact = next(Path(ref.path) for ref in run.artifacts if ref.stage == stage)
    path = artifact / "manifest.json"
    data = json.loads(path.read_text())
    data["rows"] += 1  # any value: the checksum is of all of them
    path.write_text(json.dumps(data))
    assert_made_again(config, done)


def test_an_artifact_in_anothers_place_is_not_believed(done, copied):
    config, name = copied
    refs = [
        Path(r.path) for r in load_run(config.results, name).artifacts if r.stage == "predictions"
    ]
    assert len(refs) > 1
    shutil.rmtree(refs[0])
    shutil.copytree(refs[1], refs[0])
    assert_made_again(config, done)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_a_damaged_part_of_the_text_store_is_encoded_again(done, copied, share):
    config, _ = copied
    (part,) = config.results.glob("store/caption_embeddings/*/*/part-00000.arrow")
    flip(part, share)
    without_text_stages(config)
    assert_made_again(config, done)


def test_two_parts_of_the_text_store_that_were_exchanged_are_seen(done, copied, monkeypatch):
    config, _ = copied
    monkeypatch.setattr("xmore.store.texts.PART_TEXTS", 40)
    shutil.rmtree(config.results / "store")
    xmore_benchmark.fn(config)
    one, other = sorted(config.results.glob("store/caption_embeddings/*/*/part-*.arrow"))[:2]
    between = one.with_name("between")
    for here, there in ((one, between), (other, one), (between, other)):
        here.rename(there)
    without_text_stages(config)
    assert_made_again(config, done)


def test_a_damaged_run_file_is_named(copied, xmore, caplog):
    config, name = copied
    path = config.results / "runs" / name / "run.json"
    path.write_text(path.read_text().replace('"tiny"', '"tinz"', 1))
    answer = xmore("runs", "--results", config.results)
    assert str(path) in answer.stderr + caplog.text
