"""`coder` and its kin through a whole run; and what labels have to do with it: nothing."""

import json
import shutil

import pytest
import yaml

from flows.benchmark import xmore_benchmark
from flows.classify import classified
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import load_config
from xmore.files.errors import ConfigError
from xmore.methods.coder.texts import FOLDER
from xmore.results.runs import load_run
from xmore.results.views import open_views
from xmore.store.artifacts import read_rows

METHODS = ["clip", "coder", "coder-rerank", "coder-captions"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The demo's texts of the tiny world's classes."""
    names = ("bird", "flower", "fruit", "insect", "tool")
    rows = map(json.loads, (FOLDER / "stamps.jsonl").read_text().splitlines())
    kept = [row for row in rows if row["class"] in names and row.get("other", "bird") in names]
    path = tmp_path_factory.mktemp("texts") / "tiny.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    return path


@pytest.fixture(scope="module")
def config(done_again, texts):
    options = {"coder": {"texts": texts, "tau": 1.0}}
    values = done_again.model_dump() | {"methods": METHODS, "options": options}
    return BenchmarkConfig.model_validate(values)


@pytest.fixture(scope="module")
def run(config):
    return load_run(config.results, xmore_benchmark.fn(config))


def answers(run):
    """(method, picture) -> the class that it is said to be, and how sure that is."""
    rows = open_views(run).execute(
        "select method, q.sha256, c.class_name, probability from predictions p "
        "join queries q using (dataset, query_id) join classes c "
        "on c.dataset = p.dataset and c.label = p.prediction"
    )
    return {(method, picture): (name, sure) for method, picture, name, sure in rows.fetchall()}


def test_every_query_is_answered_with_a_distribution(run):
    stored = [ref for ref in run.artifacts if ref.stage == "method_scores"]
    assert len(stored) == 3
    for ref in stored:
        scores = read_rows(ref)["class_scores"].to_pylist()
        assert len(scores) == 20 and {len(row) for row in scores} == {5}
        assert all(abs(sum(row) - 1) < 1e-5 for row in scores)
    found = answers(run)
    assert len(found) == 80
    for method in METHODS[1:]:
        other = "coder" if method == "coder-rerank" else "clip"
        differ = [found[method, p] != found[other, p] for m, p in found if m == "clip"]
        assert any(differ), f"{method} is not {other}"


def test_settings_reach_the_metrics(run):
    rows = open_views(run).execute("select method, hyperparameters from metrics").fetchall()
    settings = {method: json.loads(found) for method, found in rows}
    assert settings["coder-rerank"] == {
        "texts": {"value": "tiny.jsonl", "source": "fixed"},
        "tau": {"value": 1.0, "source": "fixed"},
        "top": {"value": 5, "source": "fixed"},
    }
    assert settings["coder-captions"]["M"]["value"] == 8


def test_shuffled_labels_change_no_answer(world, config, run, tmp_path):
    """The same pictures in each other's folders: all labels are wrong, all answers the same."""
    pictures = sorted((world.root / "queries").rglob("*.jpg"))
    moved = [picture.parent.name for picture in pictures[7:] + pictures[:7]]
    for number, (picture, folder) in enumerate(zip(pictures, moved, strict=True)):
        (tmp_path / "queries" / folder).mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / "queries" / folder / f"{number}.jpg")
    (tmp_path / "tiny.yaml").write_text("name: tiny\nroot: queries\n")
    changed = config.model_copy(update={"datasets": [str(tmp_path / "tiny.yaml")]})
    shuffled = load_run(config.results, xmore_benchmark.fn(changed))
    accuracy = "select method, top1 from metrics order by all"
    before, after = (open_views(of).execute(accuracy).fetchall() for of in (run, shuffled))
    assert before != after, "labels do matter to accuracy"
    found = answers(shuffled)
    for key, (name, sure) in answers(run).items():
        assert found[key][0] == name
        assert found[key][1] == pytest.approx(sure, abs=1e-5)


def test_new_texts_make_new_scores(config, run, texts, tmp_path):
    shorter = tmp_path / "tiny.jsonl"
    shorter.write_text("".join(texts.read_text().splitlines(True)[1:]))
    options = config.options.model_copy(
        update={"coder": config.options.coder.model_copy(update={"texts": shorter})}
    )
    again = config.model_copy(update={"options": options})
    second = load_run(config.results, xmore_benchmark.fn(again))
    made = {ref.digest for ref in second.artifacts if ref.stage == "method_scores"}
    old = {ref.digest for ref in run.artifacts if ref.stage == "method_scores"}
    assert len(made & old) == 1, "only the captions' own stay"


def test_a_configs_path_is_relative_to_the_config(config, tmp_path):
    data = config.model_dump(mode="json") | {"options": {"coder": {"texts": "mine/texts.jsonl"}}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(data))
    loaded = load_config(tmp_path / "run.yaml", BenchmarkConfig)
    assert loaded.options.coder.texts == tmp_path / "mine" / "texts.jsonl"


def test_classify_takes_the_texts_of_its_labels(world, config):
    picture = min((world.root / "queries" / "bird").glob("*.jpg"))
    labels = ["bird", "flower", "fruit", "insect", "tool"]
    with classified(picture, labels, config, None) as (way, _):
        assert {answer.method for answer in way.answers} >= set(METHODS)
    with (
        pytest.raises(ConfigError, match="no class 'insect'"),
        classified(picture, ["bird", "flower", "fruit"], config, None),
    ):
        pass
