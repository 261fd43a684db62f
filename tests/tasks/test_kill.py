"""`kill -9` at random moments: the next run keeps whole parts and ends with equal artifacts."""

import os
import random
import time
from pathlib import Path

from xmore.store.checks import read_manifest

KILLS = int(os.environ.get("XMORE_KILLS", 1))  # `make test-slow` makes ten


def parts(results: Path) -> dict[str, str]:
    """Every part's sha256, by its place in the store."""
    return {
        str((manifest.parent / part["file"]).relative_to(results)): part["sha256"]
        for manifest in (results / "store").rglob("manifest.json")
        for part in read_manifest(manifest.parent)["parts"]
    }


def inodes(results: Path, names) -> dict[str, int]:
    return {name: (results / name).stat().st_ino for name in names}


def test_killed_runs_end_as_undisturbed_ones(world, tmp_path, starter):
    undisturbed = world.config(tmp_path / "undisturbed")
    begun = time.monotonic()
    assert starter.run("benchmark", undisturbed) == "0"
    duration = time.monotonic() - begun
    expected = parts(undisturbed.results)
    seed = random.randrange(1 << 32)
    moments, resumed, killed, i = random.Random(seed), 0, 0, 0
    while killed < KILLS or not resumed:
        i += 1
        assert i <= 4 * KILLS, f"seed {seed}: killed {killed}, resumed {resumed} of {i}"
        config = world.config(tmp_path / f"killed-{i}")
        moment = moments.uniform(0, duration)
        # The first between two parts: what it has made is to be resumed.
        when = {"kill_when": starter.partly(config.results)} if i == 1 else {"kill_after": moment}
        if starter.run("benchmark", config, **when) == "killed":
            killed += 1
        else:  # it was quicker than the undisturbed one: kill sooner
            duration = moment
        whole = parts(config.results)
        before = inodes(config.results, whole)
        assert starter.run("benchmark", config) == "0", (
            f"seed {seed}, kill {i} after {moment:.2f} s"
        )
        assert parts(config.results) == expected, f"seed {seed}, kill {i} after {moment:.2f} s"
        after = inodes(config.results, {name.replace(".partial", "") for name in whole})
        assert after == {name.replace(".partial", ""): node for name, node in before.items()}
        resumed += any(".partial" in name for name in whole)
        store = config.results / "store"
        assert not list(store.rglob("*.partial")) and not list(store.rglob("*.tmp"))
