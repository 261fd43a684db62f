"""Whatever files hold, they are read or refused in one line: no other exception gets out."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sharing import unsealed

from index_build.sources.urls import select_rows
from xmore.config.sources import FiltersConfig, UrlListConfig
from xmore.datasets.card import load_card
from xmore.files.errors import XmoreError
from xmore.memory.captions import usable
from xmore.memory.rows import captions_of, keys_of
from xmore.memory.snapshot import PAIRS, open_snapshot, resolve_current
from xmore.results.runs import all_runs, config_of, load_run
from xmore.results.views import open_views
from xmore.store.checks import check_hashes, read_manifest

MANY = int(os.environ.get("XMORE_KILLS", 1)) > 1  # `make test-slow`
ANY = settings(
    max_examples=60 if MANY else 20,
    derandomize=True,  # the same cases everywhere; take it out to look for more
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
text = st.text(st.characters(codec="utf-8"), max_size=12)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | text
json_values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(text, v, max_size=3), max_leaves=6
)


def changed(data, draw) -> dict:
    """`data` with one of its values, somewhere, replaced or taken out."""
    data = json.loads(json.dumps(data))
    where = data
    for _ in range(draw(st.integers(0, 3))):
        inner = [k for k in _keys(where) if isinstance(where[k], dict | list) and where[k]]
        if not inner:
            break
        where = where[draw(st.sampled_from(inner))]
    key = draw(st.sampled_from(_keys(where)))
    if draw(st.booleans()):
        where[key] = draw(json_values)
    else:
        del where[key]
    return data


def _keys(where) -> list:
    return sorted(where) if isinstance(where, dict) else list(range(len(where)))


def one_line(error: XmoreError) -> None:
    assert str(error) and "\n" not in str(error) and str(error).isprintable()


@pytest.fixture(scope="module")
def memory(world, tmp_path_factory) -> Path:
    return shutil.copytree(world.root / "memory", tmp_path_factory.mktemp("fuzz") / "memory")


@ANY
@given(st.data())
def test_a_snapshots_manifest(memory, data):
    name = resolve_current(memory)
    path = memory / "snapshots" / name / "manifest.json"
    whole = path.read_bytes()
    try:
        if data.draw(st.booleans()):
            text = json.dumps(changed(unsealed(json.loads(whole)), data.draw)).encode()
        else:
            text = data.draw(st.binary(max_size=40))
        path.write_bytes(text)
        snapshot = open_snapshot(memory, name)
        assert snapshot.rows == sum(shard.rows for shard in snapshot.shards)
    except XmoreError as error:
        one_line(error)
    finally:
        path.write_bytes(whole)


@ANY
@given(st.binary(max_size=30) | text.map(str.encode))
def test_a_current_file(memory, content):
    path = memory / "CURRENT"
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        open_snapshot(memory, resolve_current(memory))
    except XmoreError as error:
        one_line(error)
    finally:
        path.write_bytes(whole)


@ANY
@given(st.data())
def test_an_artifacts_manifest(done, tmp_path_factory, data):
    run = load_run(done.config.results, done.name)
    folder = tmp_path_factory.mktemp("artifact") / run.artifacts[0].digest
    folder.mkdir()
    manifest = changed(read_manifest(Path(run.artifacts[0].path)), data.draw)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert check_hashes(folder) or manifest["parts"] == []


@ANY
@given(st.data())
def test_a_run_json(done, tmp_path_factory, data):
    results = tmp_path_factory.mktemp("results")
    (results / "runs" / "r").mkdir(parents=True)
    content = json.loads((done.config.results / "runs" / done.name / "run.json").read_text())
    text = json.dumps(changed(unsealed(content), data.draw)).encode()
    (results / "runs" / "r" / "run.json").write_bytes(data.draw(st.just(text) | st.binary()))
    try:
        for run in all_runs(results):
            assert run.status
        run = load_run(results, "latest")
        config_of(run)
        open_views(run).close()
    except XmoreError as error:
        one_line(error)


@ANY
@given(st.dictionaries(st.sampled_from(["name", "root", "classes", "nmae"]), json_values))
def test_a_card(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "card.yaml"
    try:
        path.write_text(yaml.safe_dump(data, allow_unicode=True))
    except yaml.YAMLError:
        return
    try:
        load_card(str(path))
    except XmoreError as error:
        one_line(error)


@ANY
@given(st.lists(st.binary(max_size=20) | st.none(), min_size=5, max_size=5))
def test_captions_of_any_bytes(memory, raw):
    snapshot = open_snapshot(memory, resolve_current(memory))
    files = snapshot.manifest["files"]  # as in an older one, captions are in the metadata alone
    snapshot.manifest["files"] = [file for file in files if file["file"] != PAIRS]
    path = snapshot.shards[-1].metadata
    whole = path.read_bytes()
    table = pq.read_table(path)
    column = pa.array(raw * (len(table) // 5), pa.binary()).view(pa.string())
    pq.write_table(table.set_column(2, "caption", column), path)
    try:
        ids = np.arange(snapshot.shards[-1].start, snapshot.shards[-1].start + 5)
        captions = captions_of(snapshot, ids).to_pylist()
        assert captions == [(value or b"").decode("utf-8", "replace") for value in raw]
        assert len(keys_of(snapshot, ids)) == 5
        codes = np.arange(5)[None]
        assert usable(codes, deduplicate=True).shape == (1, 5)
    finally:
        path.write_bytes(whole)


@ANY
@given(st.binary(max_size=60) | text.map(lambda t: f"url,caption\n{t},x\n".encode()))
def test_a_url_list(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("list")
    for ending in ("csv", "jsonl"):
        path = folder / f"list.{ending}"
        path.write_bytes(content)
        try:
            config = UrlListConfig(path=str(path), columns={"url": "url", "caption": "caption"})
            selected = select_rows(config, FiltersConfig(), [path], 10, folder / f"rows-{ending}")
            assert selected.asked >= sum(selected.failures.values())
        except XmoreError as error:
            one_line(error)
