"""`xmore texts` as a command, against a real HTTP server."""

import json
import sys
from collections import Counter

import pytest
from llm import answer, serving

from flows.cli import main as cli
from xmore.methods.base import MethodRequest
from xmore.methods.coder.texts import read_texts
from xmore.methods.options import CoderOptions, MethodOptions
from xmore.methods.registry import METHODS

NAMES = ["bird", "flower", "fruit", "insect", "tool"]
KEY = "sk-not-to-be-seen"


@pytest.fixture
def server(monkeypatch):
    with serving() as started:
        for name, value in (("URL", started.url), ("MODEL", "a-model"), ("KEY", KEY)):
            monkeypatch.setenv(f"XMORE_LLM_{name}", value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        started.script = [answer("Sure:\n- long wings\n- bright colours.\n- long wings")]
        yield started


@pytest.fixture
def texts(world, monkeypatch, capsys, tmp_path):
    """Runs the command on the tiny world; returns its exit code and all that it said."""

    def run(*arguments, out=tmp_path / "made.jsonl"):
        card = str(world.root / "tiny.yaml")
        monkeypatch.setattr(
            sys, "argv", ["xmore", "texts", card, "--out", str(out), *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as end:
            cli.app()
        said = capsys.readouterr()
        return end.value.code or 0, said.out + said.err

    return run


def test_all_that_is_asked_becomes_a_file_that_coder_reads(server, texts, tmp_path):
    code, said = texts("--kinds", "versus,attribute,analogue")
    assert code == 0, said
    path = tmp_path / "made.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert Counter(row["kind"] for row in rows) == {"attribute": 10, "analogue": 10, "versus": 40}
    assert {row["made_by"] for row in rows} == {"a-model"}
    assert rows[0]["text"] == "a bird, which has long wings."
    assert len(server.requests) == 30
    for part in ("40 of kind versus", "30 lines dropped: repeated", "30 requests sent"):
        assert part in said
    kept = tmp_path / "made.jsonl.prompts.jsonl"
    assert len(kept.read_text().splitlines()) == 30
    assert KEY not in kept.read_text() + path.read_text() + said
    assert read_texts(path, NAMES).undescribed == 0
    options = MethodOptions(coder=CoderOptions(texts=path))
    METHODS["coder-rerank"].check(MethodRequest("tiny", 24, 8, options), None, NAMES)


def test_a_stopped_run_goes_on(server, texts, tmp_path):
    server.script = [answer("- wings")] * 3 + [(500, {"Retry-After": "0"}, b"")]
    code, said = texts("--kinds", "attribute")
    assert code == 2 and said.startswith("error: 127.0.0.1: status 500, 4 times")
    assert said.count("\n") == 1 and not (tmp_path / "made.jsonl").exists()
    server.script = [answer("- legs")]
    asked = len(server.requests)
    assert texts("--kinds", "attribute")[0] == 0
    assert len(server.requests) == asked + 2
    rows = [json.loads(line)["text"] for line in (tmp_path / "made.jsonl").open()]
    assert [row.split()[-1] for row in rows] == ["wings."] * 3 + ["legs."] * 2


def test_a_configs_text_model_says_what_is_near(server, texts, world, real_models, tmp_path):
    config = tmp_path / "run.yaml"
    lite0 = {"folder": real_models / "lite0"}  # which knows what is near
    models = {"lite0": lite0, "lite0-pooled": lite0 | {"pooled": True}}
    used = world.config(tmp_path / "r", models=models)
    config.write_text(used.model_dump_json(exclude_none=True))
    server.script = [answer("- flower\n- kite"), answer("- plane"), answer("- kite")]
    code, said = texts("--kinds", "analogue,versus", "--nearest", 1, "--config", config)
    assert code == 0, said
    rows = [json.loads(line) for line in (tmp_path / "made.jsonl").open()]
    looks = [row["text"] for row in rows if row["kind"] == "analogue"]
    assert looks[:2] == [f"a bird, which looks like a {thing}." for thing in ("kite", "plane")]
    assert len(looks) == 6 and "1 lines dropped: an analogue too near" in said
    pairs = {(row["class"], row["other"]) for row in rows if row["kind"] == "versus"}
    assert 5 <= len(pairs) <= 10 and {pair[::-1] for pair in pairs} == pairs


def test_refusals_are_one_line(server, texts, tmp_path, monkeypatch):
    (tmp_path / "there.jsonl").write_text("mine")
    refused = [
        (texts("--kinds", "attribute", out=tmp_path / "there.jsonl"), "already exists"),
        (texts("--kinds", "attributes"), "--kinds: must be among synonym, attribute"),
        (texts("--kinds", ","), "--kinds"),
    ]
    monkeypatch.delenv("XMORE_LLM_URL")
    refused.append((texts("--kinds", "attribute"), "XMORE_LLM_URL is not set"))
    monkeypatch.setitem(sys.modules, "nltk", None)
    refused.append((texts(), "pip install nltk"))
    for (code, said), part in refused:
        assert code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
        assert part in said
    assert not server.requests, "nothing is asked before all is known to be right"
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert not (tmp_path / "made.jsonl").exists()
