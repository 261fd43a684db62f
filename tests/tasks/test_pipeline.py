"""The whole path on the tiny world: each stage's artifact against a literal recomputation."""

import math
from pathlib import Path

import duckdb
import numpy as np
import pytest

from flows.benchmark import xmore_benchmark
from xmore.memory.rows import captions_of, embedding_blocks, keys_of
from xmore.memory.snapshot import open_snapshot
from xmore.results.runs import load_run
from xmore.store.artifacts import read_rows
from xmore.store.checks import read_manifest


def refs(done, stage):
    run = load_run(done.config.results, done.name)
    return [ref for ref in run.artifacts if ref.stage == stage]


def rows(done, stage, at=0):
    return read_rows(refs(done, stage)[at]).to_pylist()


def snapshot_of(done):
    run = load_run(done.config.results, done.name)
    return open_snapshot(done.config.memory, run.snapshot["name"])


def test_candidates_are_the_nearest_rows_of_the_memory(done):
    pooled = next(r for r in refs(done, "query_embeddings") if r.model == "lite0-pooled")
    queries = [row["embedding"] for row in read_rows(pooled).to_pylist()]
    memory = np.concatenate([block for _, block in embedding_blocks(snapshot_of(done))])
    for query, row in zip(queries, rows(done, "candidates"), strict=True):
        similarity = memory @ np.array(query, np.float32)
        order = np.lexsort((np.arange(len(memory)), -similarity))[:24]
        np.testing.assert_allclose(row["similarities"], similarity[order], atol=1e-5)
        assert len(set(row["memory_ids"]) ^ set(order.tolist())) <= 2  # last-bit ties at the cut


def test_keys_and_captions_are_those_of_the_memory(done):
    snapshot = snapshot_of(done)
    for row in rows(done, "candidates"):
        keys = keys_of(snapshot, np.array(row["memory_ids"]))
        assert row["memory_keys"] == keys.to_pylist()
    for row in rows(done, "captions"):
        captions = captions_of(snapshot, np.array(row["memory_ids"]))
        assert row["captions"] == captions.to_pylist()
        assert len(set(row["captions"])) == len(row["captions"]) and all(row["captions"])


def test_captions_are_the_best_of_the_candidates(done):
    for found, kept in zip(rows(done, "candidates"), rows(done, "captions"), strict=True):
        assert set(kept["memory_ids"]) <= set(found["memory_ids"])
        assert kept["similarities"] == sorted(kept["similarities"], reverse=True)
        assert len(kept["captions"]) <= 8


def test_scores_are_distributions_and_hold_no_label(done):
    table = read_rows(refs(done, "scores")[0])
    assert not {"label", "class_name"} & set(table.column_names)
    for row in table.to_pylist():
        for scores, confidence in (
            (row["image_scores"], row["image_confidence"]),
            (row["text_scores"], row["text_confidence"]),
        ):
            assert math.isclose(sum(scores), 1, abs_tol=1e-5)
            entropy = -sum(p * math.log(p) for p in scores if p > 0)
            expected = min(1, max(0, 1 - entropy / math.log(len(scores))))
            assert math.isclose(confidence, expected, abs_tol=1e-12)


def literal_weights(confidences, adjustment):
    """One modality, one query after another."""
    weights, low, high, total = [], math.inf, -math.inf, 0.0
    for c in confidences:
        low, high, total = min(low, c), max(high, c), total + c
        if adjustment == "minmax":
            weights.append(0.5 if high == low else (c - low) / (high - low))
        elif adjustment == "running-sum":
            weights.append(0.0 if total == 0 else c / total)
        elif adjustment == "global":
            lo, hi = min(confidences), max(confidences)
            weights.append(0.5 if hi == lo else (c - lo) / (hi - lo))
        else:
            weights.append(c)
    return weights


def test_predictions_follow_from_scores_to_the_last_bit(done):
    """An independent, literal loop over the stored scores: design steps 7 and 8."""
    scores = rows(done, "scores")
    said = [r for r in refs(done, "predictions")]
    xmore = next(
        table
        for table in (read_rows(ref).to_pylist() for ref in said)
        if table[0]["method"] == "xmore"
    )
    by_key = {(row["adjustment"], row["seed"], row["query_id"]): row for row in xmore}
    for adjustment in ("minmax", "running-sum", "global", "none"):
        ordered = adjustment in ("minmax", "running-sum")
        for seed in (0, 1, 2) if ordered else (None,):
            n = len(scores)
            order = np.random.default_rng(seed).permutation(n) if ordered else range(n)
            stream = [scores[i] for i in order]
            images = literal_weights([s["image_confidence"] for s in stream], adjustment)
            texts = literal_weights([s["text_confidence"] for s in stream], adjustment)
            for step, (row, wi, wt) in enumerate(zip(stream, images, texts, strict=True), 1):
                stored = by_key.pop((adjustment, seed, row["query_id"]))
                assert (stored["image_weight"], stored["text_weight"]) == (wi, wt)
                assert stored["step"] == (step if ordered else None)
                a, b = (0.5, 0.5) if wi == wt == 0 else (wi, wt)
                pairs = zip(row["image_scores"], row["text_scores"], strict=True)
                classes = [(a * p + b * q) / (a + b) for p, q in pairs]
                best = classes.index(max(classes))
                assert stored["prediction"] == best and stored["probability"] == classes[best]
                assert stored["top5"] == sorted(range(len(classes)), key=lambda c: -classes[c])[:5]
    assert not by_key


def test_metrics_follow_from_predictions_and_labels(done):
    labels = {row["query_id"]: row["label"] for row in rows(done, "queries")}
    metrics = {(m["method"], m["adjustment"], m["seed"]): m for m in rows(done, "metrics")}
    assert len(metrics) == 3 + 2 * 3 + 2
    seen = 0
    for ref in refs(done, "predictions"):
        table = read_rows(ref).to_pylist()
        for key in {(row["method"], row["adjustment"], row["seed"]) for row in table}:
            mine = [row for row in table if (row["method"], row["adjustment"], row["seed"]) == key]
            right = sum(row["prediction"] == labels[row["query_id"]] for row in mine)
            top5 = sum(labels[row["query_id"]] in row["top5"] for row in mine)
            assert metrics[key]["n"] == len(mine) == 20
            assert metrics[key]["top1"] == right / 20 and metrics[key]["top5"] == top5 / 20
            seen += 1
    assert seen == len(metrics)


def test_an_exact_search_says_nothing_of_an_index(done):
    """Its key names none: another index of the same rows must not leave the first one's recall."""
    manifest = read_manifest(Path(refs(done, "candidates")[0].path))
    assert manifest["params"]["search"] == "exact" and manifest["facts"] == {}


def test_a_search_by_the_index_finds_nearly_the_same(world, done, done_again):
    changed = {"candidates": 24, "captions": [8], "search": "index"}
    name = xmore_benchmark.fn(world.config(done_again.results, retrieval=changed))
    run = load_run(done_again.results, name)
    by_index = next(ref for ref in run.artifacts if ref.stage == "candidates")
    pairs = zip(rows(done, "candidates"), read_rows(by_index).to_pylist(), strict=True)
    shared = [len(set(a["memory_ids"]) & set(b["memory_ids"])) / 24 for a, b in pairs]
    facts = read_manifest(Path(by_index.path))["facts"]["index_recall"]
    recall = facts["recall"]
    assert facts["k"] == 24 and facts["queries"] == 20 and 0.9 < recall <= 1
    assert by_index.digest != refs(done, "candidates")[0].digest
    assert np.mean(shared) == pytest.approx(recall)


def test_re_ranking_is_an_artifact_of_its_own(world, done, done_again):
    """Exact products over all that a flat index has: exact search, by another way."""
    changed = {"candidates": 24, "captions": [8], "search": "index", "rerank": 3}
    name = xmore_benchmark.fn(world.config(done_again.results, retrieval=changed))
    run = load_run(done_again.results, name)
    ref = next(ref for ref in run.artifacts if ref.stage == "candidates")
    manifest = read_manifest(Path(ref.path))
    assert manifest["params"]["rerank"] == manifest["facts"]["index_recall"]["rerank"] == 3
    for exact, found in zip(rows(done, "candidates"), read_rows(ref).to_pylist(), strict=True):
        assert found["memory_ids"] == exact["memory_ids"]
        np.testing.assert_allclose(found["similarities"], exact["similarities"], atol=1e-6)


def test_each_text_and_image_is_encoded_once_per_model(world, tmp_path, encoded):
    """Over two runs and an M sweep; fine and inference are one model here, in two roles."""
    config = world.config(tmp_path)
    run = load_run(tmp_path, xmore_benchmark.fn(config))
    found = next(ref for ref in run.artifacts if ref.stage == "candidates")
    snapshot = open_snapshot(config.memory, run.snapshot["name"])
    ids = np.unique([i for row in read_rows(found).to_pylist() for i in row["memory_ids"]])
    captions = set(captions_of(snapshot, ids).to_pylist()) - {""}
    assert encoded == {"texts": len(captions) + 5, "images": 20 * 2}

    xmore_benchmark.fn(config)
    sweep = {"candidates": 24, "captions": [1, 2, 4, 8, 16, 24]}
    run = load_run(tmp_path, xmore_benchmark.fn(world.config(tmp_path, retrieval=sweep)))
    assert sum(ref.stage == "scores" for ref in run.artifacts) == 6
    assert encoded == {"texts": len(captions) + 5, "images": 20 * 2}


def test_the_order_in_which_m_is_listed_does_not_matter(world, done_again):
    def scores(captions):
        retrieval = {"candidates": 24, "captions": captions}
        run = xmore_benchmark.fn(world.config(done_again.results, retrieval=retrieval))
        run = load_run(done_again.results, run)
        return sorted(ref.digest for ref in run.artifacts if ref.stage in ("captions", "scores"))

    assert scores([8, 2]) == scores([2, 8])


MATTERS = [
    ({"prompt": "{}"}, {"classes", "scores", "predictions", "metrics", "comparisons"}),
    ({"seeds": [7]}, {"predictions", "metrics", "comparisons"}),
    ({"adjustments": ["none"]}, {"predictions", "metrics", "comparisons"}),
    ({"retrieval": {"candidates": 20, "captions": [8]}}, "candidates"),
    ({"retrieval": {"candidates": 24, "captions": [4]}}, "captions"),
    ({"retrieval": {"candidates": 24, "captions": [8], "deduplicate": False}}, "captions"),
    ({"retrieval": {"candidates": 24, "captions": [8], "fine": "indirect"}}, "captions"),
]
AFTER = {
    "candidates": {
        "candidates",
        "leaks",
        "captions",
        "scores",
        "predictions",
        "metrics",
        "comparisons",
    },
    "captions": {"captions", "scores", "predictions", "metrics", "comparisons"},
}


def digests(config, name=None):
    run = load_run(config.results, name or xmore_benchmark.fn(config))
    return {
        stage: {ref.digest for ref in run.artifacts if ref.stage == stage}
        for stage in {ref.stage for ref in run.artifacts}
    }


@pytest.mark.parametrize(("change", "stages"), MATTERS)
def test_a_parameter_that_matters_changes_the_digests_from_its_stage_on(
    world, done, done_again, change, stages
):
    before = digests(done.config, done.name)
    after = digests(world.config(done_again.results, **change))
    # a method that ignores what was changed keeps its predictions
    changed = {stage for stage in before if before[stage] - after[stage]}
    assert changed == AFTER.get(stages, stages) if isinstance(stages, str) else changed == stages


def test_how_the_work_is_done_changes_no_digest_and_no_row(world, done, tmp_path, monkeypatch):
    memory = snapshot_of(done)  # `search: auto` may read it once, however small the parts are
    monkeypatch.setattr("xmore.memory.cost.EXACT_MAX_BYTES", memory.rows * memory.dim * 2)
    execution = {"workers": 2, "batch_size": 7, "part_rows": 9}
    other = world.config(tmp_path / "other", name="renamed", execution=execution)
    assert digests(other) == digests(done.config, done.name)
    # the last bits of features may differ with the batch; the ranks and answers do not
    theirs = load_run(other.results, "latest")
    mine = load_run(done.config.results, done.name)
    for a, b in zip(mine.artifacts, theirs.artifacts, strict=True):
        if a.stage == "predictions":
            assert read_rows(a)["prediction"].to_pylist() == read_rows(b)["prediction"].to_pylist()


def test_views_open_with_duckdb_alone_from_anywhere(done, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = done.config.results / "runs" / done.name / "views.sql"
    connection = duckdb.connect()
    connection.execute(path.read_text())
    views = [
        name
        for (name,) in connection.execute(
            "select view_name from duckdb_views() where not internal"
        ).fetchall()
    ]
    for view in views:
        connection.execute(f"select * from {view}").fetchall()
    assert {"queries", "candidates_long", "captions_long", "leaderboard", "disagreements"} <= set(
        views
    )
    wilson = connection.execute(
        "select l.ci_low - m.ci_low, l.ci_high - m.ci_high from leaderboard l "
        "join metrics m using (dataset, model, method) where l.method = 'clip'"
    ).fetchone()
    assert wilson == pytest.approx((0, 0), abs=1e-12)
