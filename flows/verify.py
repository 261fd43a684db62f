"""Verify results and memories: read every byte, and say what is not as it was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from index_build.base import history
from index_build.base.batches import list_batches
from index_build.embed import part, read_record
from index_build.verify import check_rows, verify_snapshot
from xmore.files.digests import digest_file
from xmore.files.errors import ArtifactError, SnapshotError
from xmore.files.progress import track
from xmore.memory.adopt import open_memory
from xmore.memory.snapshot import open_snapshot
from xmore.results.runs import Run, all_runs
from xmore.results.views import VIEWS, views_of
from xmore.store.artifacts import move_aside
from xmore.store.checks import MANIFEST, check_hashes
from xmore.store.contracts import RunFile, read_contract


@dataclass
class Verified:
    """What was read, and what is damaged."""

    things: int = 0  # artifacts, runs, snapshots or shards
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    moved: list[Path] = field(default_factory=list)  # where damage was moved to

    def artifact(self, path: Path, repair: bool) -> None:
        """Read an artifact; with `repair`, move a damaged one aside."""
        found = check_hashes(path)
        self.problems += found
        self.things += 1
        self.bytes += sum(file.stat().st_size for file in path.glob("*") if file.is_file())
        # The text store encodes a damaged part again by itself, and keeps the others.
        if found and repair and path.exists() and path.parents[1].name != "caption_embeddings":
            self.moved.append(move_aside(path))


def verify_run(run: Run, repair: bool) -> Verified:
    """Read a run's artifacts and its snapshot."""
    done = Verified()
    for path in track(sorted({ref.path for ref in run.artifacts}), "verifying", "artifact"):
        done.artifact(Path(path), repair)
    try:
        memory = Path(run.snapshot["memory"])
        with open_memory(memory, run.results / "cache", run.snapshot["name"]) as snapshot:
            done.problems += verify_snapshot(snapshot)
    except SnapshotError as error:
        done.problems.append(str(error))
    return done


def verify_results(results: Path, repair: bool) -> Verified:
    """Read the whole store, the text store, and the files of all runs."""
    done = Verified()
    places = sorted(path.parent for path in (results / "store").glob(f"*/*/*/{MANIFEST}"))
    whole = [path for path in places if "." not in path.name]  # neither .partial nor .broken-<n>
    for path in track(whole, "verifying", "artifact"):
        done.artifact(path, repair)
    for file in sorted((results / "runs").glob("*/run.json")):
        done.things += 1
        done.bytes += file.stat().st_size
        try:
            read_contract(file, RunFile)
        except (OSError, ValueError) as error:
            done.problems.append(f"{file}: {error}. The run is not listed; its artifacts are kept")
    for run in all_runs(results):
        views = run.path / VIEWS
        try:
            same = not views.exists() or views.read_text(encoding="utf-8") == views_of(run)
        except (OSError, ValueError, ArtifactError):
            same = False
        if not same:
            again = f"xmore sql {run.name} --write-views"
            done.problems.append(f"{views}: is not this run's, or of another place; see `{again}`")
    return done


def verify_memory(memory: Path) -> Verified:
    """Read all snapshots of a memory, its batches' features, and its history."""
    done = Verified()
    names = history.names(memory)  # raises SnapshotError where the history cannot be read
    for name in names:
        try:
            snapshot = open_snapshot(memory, name)
        except SnapshotError as error:
            done.problems.append(str(error))
            continue
        done.things += 1
        done.bytes += sum(file["bytes"] for file in snapshot.manifest["files"])
        done.problems += verify_snapshot(snapshot) or check_rows(snapshot)
    records = [
        record
        for batch in list_batches(memory)
        for record in sorted(batch.path.glob("features-*/done/*.json"))
    ]
    for record in track(records, "memory verifying", "shard"):
        folder, number = record.parents[1], int(record.stem)
        done.things += 1
        try:
            files = read_record(folder, number)["files"].items()
        except (SnapshotError, KeyError, AttributeError) as error:
            done.problems.append(str(error))
            continue
        for kind, facts in files:
            path = part(folder, kind, number)
            done.bytes += facts["bytes"]
            if not path.is_file() or digest_file(path) != facts["sha256"]:
                done.problems.append(f"{path}: its bytes are not those that were embedded")
    return done
