"""Costs on planted artifacts: what counts for whom, and what an earlier run made."""

from pathlib import Path

import pytest

from xmore.files.sealed import sealed
from xmore.results.costs import costs
from xmore.results.runs import Run
from xmore.store.artifacts import ArtifactKey, ArtifactStore


@pytest.fixture
def planted(tmp_path):
    """Two runs over one store: 10 queries; the second found the embeddings made."""
    from dataclasses import replace

    import pyarrow as pa

    store = ArtifactStore(tmp_path / "store")

    def make(stage, params, inputs, seconds, rows=10, peak=100.0, beside=True):
        key = ArtifactKey(stage, "d", params, tuple(ref.digest for ref in inputs), "m")
        table = pa.table({"query_id": list(range(rows))})
        ref = store.write(key, [rows], lambda *_: table)
        cost = Path(ref.path) / "cost.json"
        cost.unlink()  # as of an older artifact, or
        if beside:
            cost.write_bytes(sealed({"seconds": seconds, "peak_rss_mb": peak}))
        return replace(ref, seconds=seconds, peak_rss_mb=peak, skipped=False)

    queries = make("queries", {}, [], 99.0)
    features = make("query_embeddings", {}, [queries], 5.0, beside=False)
    coarse = make("query_embeddings", {"other": 1}, [queries], 7.0, beside=False)
    found = make("candidates", {}, [coarse], 1.0)
    captions = make("captions", {}, [found, features], 20.0, peak=900.0)
    scores = make("scores", {"m": 16}, [features, captions], 10.0)
    views = make("view_embeddings", {"count": 5}, [queries], 30.0, rows=20)
    own = make("method_scores", {"method": ["tpt", 1]}, [features, views], 8.0, rows=4)
    said = {
        method: make(
            "predictions", {"method": [method, 1], "m": m, "variants": variants}, of, 1.0, n
        )
        for method, m, variants, of, n in (
            ("clip", None, [[None, None]], [scores], 10),
            ("xmore", 16, [["minmax", 0], ["minmax", 1]], [scores], 20),
            ("tpt", None, [[None, None]], [scores, own], 4),
        )
    }
    first = Run(tmp_path / "first", {}, {}, "", artifacts=[queries, features, coarse])
    again = [replace(ref, skipped=True, seconds=0.0) for ref in (queries, features, coarse)]
    rest = [found, captions, scores, views, own, *said.values()]
    return first, Run(tmp_path / "second", {}, {}, "", artifacts=[*again, *rest])


def test_each_method_costs_what_its_answers_come_from(planted):
    first, second = planted
    said = {c.method: (c.seconds_per_image, c.peak_memory_mb, c.m) for c in costs(second, [first])}
    assert said["clip"] == (pytest.approx((5 + 1) / 10), 100, None)  # not the captions
    both = (5 + 7 + 1 + 20 + 10 + 1) / 10
    assert said["xmore"] == (pytest.approx(both), 900, 16)
    # 20 views are 4 images of 5; its features are read of all 10
    assert said["tpt"] == (pytest.approx(30 / 4 + 8 / 4 + 1 / 4 + 5 / 10), 100, None)


def test_what_no_run_has_made_is_unknown(planted):
    _, second = planted
    assert {c.seconds_per_image for c in costs(second, [])} == {None}


def test_what_lies_beside_an_artifact_is_believed_before_any_run(planted):
    first, second = planted
    for ref in first.artifacts:
        (Path(ref.path) / "cost.json").write_bytes(sealed({"seconds": 1.0, "peak_rss_mb": 7.0}))
    said = {c.method: c.seconds_per_image for c in costs(second, [first])}
    assert said["clip"] == pytest.approx((1 + 1) / 10)
    for text in (b"{", sealed({"seconds": None, "peak_rss_mb": None})):  # damaged; not recorded
        for ref in second.artifacts:
            (Path(ref.path) / "cost.json").write_bytes(text)
        assert {c.seconds_per_image for c in costs(second, [])} == {None}
