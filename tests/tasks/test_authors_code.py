"""What the authors' code does and the paper's text does not: three switches, off by default."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from flows.benchmark import xmore_benchmark
from tasks.queries import full_queries
from tasks.scores import ScoreInputs, scores
from tasks.stage import Workspace
from tasks.texts import TextEncoder
from xmore.files.errors import DatasetError
from xmore.memory.scan import Scan
from xmore.models.spec import describe_model
from xmore.results.costs import costs
from xmore.results.runs import load_run
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, read_rows
from xmore.store.checks import read_manifest
from xmore.store.cost import read_cost

PREFIX = "a_photo_of_a "


@pytest.fixture(scope="module")
def made(done_again):
    """The config, its workspace, and the artifacts of a run by stage."""
    run = load_run(done_again.results, xmore_benchmark.fn(done_again))
    work = Workspace(done_again.results, done_again.execution)
    return done_again, work, {ref.stage: ref for ref in run.artifacts}


def test_a_prefix_is_put_before_captions_and_nothing_else(made):
    config, work, refs = made
    card = describe_model("lite0", config.model("lite0"), work.cache)
    features = next(
        ref
        for ref in load_run(config.results, "latest").artifacts
        if ref.stage == "query_embeddings" and ref.model == "lite0"
    )
    inputs = ScoreInputs(features, refs["captions"], refs["classes"])
    plain = scores(work, inputs, card, 8)
    prefixed = scores(work, replace(inputs, prefix=PREFIX), card, 8)
    table = read_rows(refs["captions"])
    texts = [[PREFIX + text for text in of_query] for of_query in table["captions"].to_pylist()]
    table = table.set_column(
        table.schema.get_field_index("captions"), "captions", pa.array(texts)
    ).cast(schemas.CAPTIONS)
    written = work.store.write(
        ArtifactKey("captions", "tiny", {"by": "hand"}), [20], lambda a, b: table
    )
    by_hand = scores(work, replace(inputs, captions=written), card, 8)
    assert read_rows(prefixed).equals(read_rows(by_hand))
    assert read_rows(prefixed)["image_scores"].equals(read_rows(plain)["image_scores"])
    assert not read_rows(prefixed)["text_scores"].equals(read_rows(plain)["text_scores"])


def test_captions_are_ranked_by_features_that_are_not_normalised(made):
    config, work, refs = made
    retrieval = config.retrieval.model_copy(update={"normalise_texts": False})
    other = config.model_copy(update={"retrieval": retrieval})
    run = load_run(config.results, xmore_benchmark.fn(other))
    ref = next(ref for ref in run.artifacts if ref.stage == "captions")
    assert ref.digest != refs["captions"].digest
    rows = read_rows(ref)
    card = describe_model("lite0", config.model("lite0"), work.cache)
    encoder = TextEncoder(work, card)
    embeddings = next(
        ref for ref in run.artifacts if ref.stage == "query_embeddings" and ref.model == "lite0"
    )
    queries = schemas.to_matrix(read_rows(embeddings)["embedding"])
    for query, texts, found in zip(
        queries, rows["captions"].to_pylist(), rows["similarities"].to_pylist(), strict=True
    ):
        features = encoder.features(texts)
        assert np.allclose(found, (features.unit @ query) * features.norm, atol=1e-6)
        assert found == sorted(found, reverse=True)
        assert not np.allclose(features.norm, 1, atol=1e-3)


def test_queries_without_k_hits_are_dropped_and_listed(made):
    _, work, refs = made
    hits = [3 if i % 4 else 2 for i in range(20)]
    table = pa.table(
        {
            "query_id": range(20),
            "memory_ids": [list(range(n)) for n in hits],
            "memory_keys": [["key"] * n for n in hits],
            "similarities": [[0.5] * n for n in hits],
        },
        schema=schemas.CANDIDATES,
    )
    features = refs["query_embeddings"]
    key = ArtifactKey("candidates", "tiny", {"by": "hand"}, (features.digest,))
    candidates = work.store.write(key, [20], lambda a, b: table)
    before = read_rows(refs["queries"])
    listed = [refs["queries"], refs["rejected"]]
    kept, rejected, embedded, found = full_queries(work, *listed, features, candidates, 3)
    rows = read_rows(kept)
    assert rows["query_id"].to_pylist() == list(range(15))
    uris = before["uri"].to_pylist()
    assert rows["uri"].to_pylist() == [uri for i, uri in enumerate(uris) if i % 4]
    assert read_rows(rejected).to_pylist() == [
        {"uri": uri, "cause": "fewer than 3 hits"} for uri in uris[::4]
    ]
    places = [i for i in range(20) if i % 4]
    whole, cut = read_rows(features), read_rows(embedded)
    assert cut["query_id"].to_pylist() == list(range(15))
    assert cut["embedding"].to_pylist() == whole["embedding"].take(places).to_pylist()
    assert read_rows(found)["memory_ids"].to_pylist() == [[0, 1, 2]] * 15
    facts = [read_manifest(Path(ref.path))["facts"] for ref in (features, embedded)]
    assert facts[0] == facts[1] and facts[0]["logit_scale"]
    spent = [read_cost(Path(ref.path)) for ref in (features, embedded)]
    assert spent[1]["seconds"] == pytest.approx(spent[0]["seconds"] * 15 / 20, abs=1e-3)
    same = full_queries(work, *listed, features, candidates, 2)
    assert [ref.digest for ref in same] == [r.digest for r in (*listed, features, candidates)]
    with pytest.raises(DatasetError, match="no query has 4 hits"):
        full_queries(work, *listed, features, candidates, 4)


def test_dropped_queries_are_searched_once_and_embedded_by_the_coarse_model_alone(
    world, tmp_path, encoded, monkeypatch
):
    """Also the captions: made once, of the kept queries."""
    searched, scan = [], Scan.__call__

    def short(self, start, stop, read):
        found = scan(self, start, stop, read)
        searched.extend(range(start, stop))
        found.ids[np.arange(start, stop) % 4 == 0, -1] = -1
        return found

    monkeypatch.setattr(Scan, "__call__", short)
    retrieval = {"candidates": 24, "captions": [8], "drop_short": True}
    config = world.config(tmp_path, retrieval=retrieval)
    run = load_run(tmp_path, xmore_benchmark.fn(config))
    assert searched == list(range(20)) and encoded["images"] == 20 + 15
    stages = ("queries", "query_embeddings", "candidates", "captions", "scores")
    assert {ref.rows for ref in run.artifacts if ref.stage in stages} == {15}
    assert len(list((tmp_path / "store" / "captions" / "tiny").iterdir())) == 1
    assert all(cost.seconds_per_image for cost in costs(run, [run]))
