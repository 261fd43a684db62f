"""The cost beside an artifact: over all attempts, or unknown."""

from pathlib import Path

import pytest

from xmore.store import cost, schemas
from xmore.store.artifacts import ArtifactKey, ArtifactStore
from xmore.store.checks import check_hashes, read_manifest

KEY = ArtifactKey("rejected", "d", {})
EMPTY = schemas.REJECTED.empty_table()


@pytest.fixture
def clock(monkeypatch):
    """A clock that only a test moves."""
    now = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])
    return now


def write(root, clock, parts, fails_at=None, seconds=3.0):
    def make_part(start, stop):
        clock[0] += seconds
        if start == fails_at:
            raise KeyboardInterrupt
        return EMPTY

    return ArtifactStore(root).write(KEY, [1] * parts, make_part)


def test_each_attempt_counts_up_to_its_last_part(tmp_path, clock):
    for fails_at in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, clock, 4, fails_at)
    clock[0] += 1000  # nobody works
    path = Path(write(tmp_path, clock, 4, seconds=10.0).path)
    found = cost.read_cost(path)
    assert found["seconds"] == 3 * 3 + 10 and found["peak_rss_mb"] > 1
    assert not check_hashes(path)
    plain = Path(write(tmp_path / "at-once", clock, 4).path)
    assert read_manifest(plain) == read_manifest(path)


def test_what_a_stage_does_before_its_first_part_is_counted_once(tmp_path, clock):
    store = ArtifactStore(tmp_path)
    keys = [ArtifactKey("rejected", "d", {"n": n}) for n in range(2)]
    with cost.measuring() as watch:
        clock[0] += 5
        refs = [store.write(key, [1], lambda *_: EMPTY) for key in keys]
        clock[0] += 1
    assert [cost.read_cost(Path(ref.path))["seconds"] for ref in refs] == [5, 0]
    assert watch.seconds == 6


@pytest.mark.parametrize("text", [None, "{", '{"seconds": null, "peak_rss_mb": null}'])
def test_parts_of_unknown_cost_make_that_of_the_artifact_unknown(tmp_path, clock, text):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, clock, 3, fails_at=1)
    (file,) = tmp_path.rglob("cost.json")
    file.unlink() if text is None else file.write_text(text)
    found = cost.read_cost(Path(write(tmp_path, clock, 3).path))
    assert found["seconds"] is None
