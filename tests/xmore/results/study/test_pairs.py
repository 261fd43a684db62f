"""Where two runs part, and why: told from their manifests."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from xmore.files.sealed import sealed
from xmore.results.runs import Run
from xmore.results.study.pairs import pairs, partings
from xmore.store.artifacts import ArtifactRef

FILES = [["a.jpg", 0, "1" * 64], ["b.jpg", 1, "2" * 64]]


def run_of(folder: Path, **changes) -> Run:
    """Queries -> embeddings -> candidates of a snapshot -> scores, as a run's artifacts."""
    snapshot = changes.pop("snapshot", "s1")
    stages = {
        "queries": {"params": {"files": FILES}, "inputs": []},
        "query_embeddings": {"params": {"weights": "w1"}, "inputs": ["queries"]},
        "candidates": {"params": {"k": 8}, "inputs": ["query_embeddings", snapshot]},
        "scores": {"params": {"m": 8}, "inputs": ["candidates"]},
    }
    digests, refs = {snapshot: snapshot}, []
    for stage, each in stages.items():
        facts = {"version": 1, "made_by": {"torch": "2.0"}, "bytes": "x"} | each
        facts |= changes.get(stage, {})
        inputs = [digests[name] for name in facts["inputs"]]
        digest = json.dumps([stage, facts["version"], facts["params"], inputs])
        digests[stage] = f"{stage}-{abs(hash(digest))}"
        path = folder / stage / "d" / digests[stage]
        path.mkdir(parents=True)
        part = {"file": "p", "rows": 1, "bytes": 1, "sha256": facts.pop("bytes")}
        manifest = facts | {"parts": [part], "rows": 1, "inputs": inputs}
        (path / "manifest.json").write_bytes(sealed(manifest | {"digest": digests[stage]}))
        refs.append(ArtifactRef(stage, "d", None, digests[stage], str(path), 1))
    facts = {"name": f"name-{snapshot}", "digest": snapshot}
    return Run(folder / "runs" / "r", {}, facts, "", artifacts=refs)


@pytest.mark.parametrize(
    ("changes", "stage", "because"),
    [
        ({"snapshot": "s2"}, "candidates", "memory snapshot name-s1, here name-s2"),
        ({"candidates": {"params": {"k": 9}}}, "candidates", "`k` 8, here 9"),
        ({"scores": {"version": 2}}, "scores", "version 1 of the stage, here 2"),
        (
            {"query_embeddings": {"params": {"weights": "w" * 64}}},
            "query_embeddings",
            "`weights` w1, here wwwwwwww…",
        ),
        (
            {"queries": {"params": {"files": [["a.jpg", 0, "3" * 64], ["c.jpg", 1, "2" * 64]]}}},
            "queries",
            "of 2 images: 1 differ, 1 are not here, 1 are new",
        ),
        (
            {"query_embeddings": {"bytes": "y", "made_by": {"torch": "3.0"}}},
            "query_embeddings",
            "same digest, other last bits: torch 2.0, here 3.0",
        ),
        (
            {"scores": {"bytes": "y"}},
            "scores",
            "same digest, other last bits: the same versions: another processor, or other batches",
        ),
        (
            {"scores": {"bytes": "y", "source": {"a.py": "1"}}},
            "scores",
            "same digest, other last bits: the method's source",
        ),
    ],
)  # fmt: skip
def test_the_first_that_differs_is_told_and_why(tmp_path, changes, stage, because):
    study, here = run_of(tmp_path / "a"), run_of(tmp_path / "b", **changes)
    found = pairs(study, here)
    told = [(pair.stage, why) for pair, why in partings(found, study, here)]
    assert told == [(stage, because)]


def test_bits_that_follow_from_others_are_not_told(tmp_path):
    study = run_of(tmp_path / "a")
    first = {"bytes": "y", "made_by": {"torch": "3.0"}}
    second = {"bytes": "y", "made_by": {"torch": "4.0"}}
    here = run_of(tmp_path / "b", query_embeddings=first, candidates=second)
    ((pair, why),) = partings(pairs(study, here), study, here)
    assert pair.stage == "query_embeddings" and why.endswith("torch 2.0, here 3.0")


def test_equal_runs_part_nowhere(tmp_path):
    study, here = run_of(tmp_path / "a"), run_of(tmp_path / "b")
    found = pairs(study, here)
    assert all(pair.same_digest and pair.same_bytes for pair in found) and len(found) == 4
    assert partings(found, study, here) == []


def test_what_was_not_made_here_is_told_once(tmp_path):
    study, here = run_of(tmp_path / "a"), run_of(tmp_path / "b")
    here = replace(here, artifacts=here.artifacts[:2])
    told = [(p.stage, why) for p, why in partings(pairs(study, here), study, here)]
    assert told == [("candidates", "not made here")]


def test_a_run_without_a_memory_has_no_snapshot(tmp_path):
    study, here = run_of(tmp_path / "a"), run_of(tmp_path / "b", snapshot="s2")
    study.snapshot = here.snapshot = {}
    ((pair, why),) = partings(pairs(study, here), study, here)
    assert pair.stage == "candidates" and why == "inputs s1, here s2"
