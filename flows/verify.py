"""Verify results: read every byte, say what is not as it was written, and repair it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from index_build.sources.tars import is_whole_listing
from index_build.verify import verify_snapshot
from xmore.files.digests import compare_again, holds_facts
from xmore.files.errors import ArtifactError, ModelError, SnapshotError, SnapshotGone, is_shortage
from xmore.files.paths import where, write_whole
from xmore.files.progress import track
from xmore.files.sealed import is_whole_json, mended
from xmore.memory.adopt import open_memory
from xmore.memory.pairs import holds_pairs
from xmore.results.absent import is_absent, is_removed, left_out
from xmore.results.runs import Run, all_runs
from xmore.results.views import VIEWS, are_whole, write_views
from xmore.store.artifacts import move_aside
from xmore.store.checks import MANIFEST, check_hashes, is_whole, read_manifest
from xmore.store.contracts import RunFile, read_contract
from xmore.store.texts import TEXTS, drop_part


@dataclass
class Verified:
    """What was read, and what is damaged."""

    things: int = 0  # artifacts, runs, caches, snapshots or shards
    bytes: int = 0
    problems: list[str] = field(default_factory=list)
    put_right: list[str] = field(default_factory=list)  # those of them that a repair has ended
    beyond: list[str] = field(default_factory=list)  # those that it cannot: each says what does
    absent: list[str] = field(default_factory=list)  # what was deleted on purpose
    moved: list[Path] = field(default_factory=list)  # where damage was moved to
    mended: list[Path] = field(default_factory=list)  # what is whole again, or was deleted
    aside: list[Path] = field(default_factory=list)  # what an earlier repair has moved aside

    def read(self, *files: Path) -> None:
        """Count what was read."""
        self.things += 1
        self.bytes += sum(file.stat().st_size for file in files if file.is_file())

    @property
    def left(self) -> list[str]:
        """The problems that are still there."""
        return [problem for problem in self.problems if problem not in self.put_right]

    def mend(self, path: Path, *problems: str) -> None:
        """Note that a file is whole again, or was deleted, and its problems are no more."""
        self.mended.append(path)
        self.put_right += problems

    def past_repair(self, problem: str) -> None:
        """Note a problem that no repair ends."""
        self.problems.append(problem)
        self.beyond.append(problem)

    def artifact(self, path: Path, repair: bool) -> None:
        """Read an artifact; with `repair`, move a damaged one aside."""
        found = check_hashes(path)
        if not found and not is_whole_json(path / MANIFEST):
            found = [f"{path / MANIFEST}: its bytes are not those that were written"]
        self.problems += found
        self.beyond += [] if path.exists() else found
        self.read(*path.glob("*"))
        if found and repair and path.exists():
            self.moved += _set_aside(path)

    def json(self, path: Path, problem: str, repair: bool) -> bool:
        """Read a file that has a checksum -> whether it is whole; repair puts one bit right."""
        self.read(path)
        if is_whole_json(path):
            return True
        whole = mended(path.read_bytes()) if repair and path.is_file() else None
        self.problems.append(f"{path}: {problem}")
        if whole is not None:
            write_whole(path, whole)
            self.mend(path, self.problems[-1])
        elif repair:
            self.beyond.append(self.problems[-1])
        return whole is not None


def _set_aside(path: Path) -> list[Path]:
    """Move a damaged artifact aside; of a model's texts, only the parts that are damaged."""
    if path.parents[1].name == TEXTS:
        with suppress(ArtifactError):
            parts = read_manifest(path)["parts"]
            names = [part["file"] for part in parts if not is_whole(path, part)]
            for name in names:
                drop_part(path, name)
            if names:
                return [move_aside(path / name) for name in names if (path / name).exists()]
    return [move_aside(path)]


def verify_run(run: Run, repair: bool) -> Verified:
    """Read a run's artifacts and its snapshot, if it has read one; a packed run may lack it."""
    compare_again()
    done = Verified()
    _look_for_removed(done, run)
    there = sorted({ref.path for ref in run.artifacts if not is_absent(ref)})
    for path in track(there, "verifying", "artifact"):
        done.artifact(Path(path), repair)
    if run.snapshot:
        memory, cache = Path(run.snapshot["memory"]), run.results / "cache"
        _verify_snapshot(done, memory, cache, run.snapshot["name"], may_lack=bool(left_out(run)))
    return done


def _verify_snapshot(done: Verified, memory: Path, cache: Path, name: str, may_lack: bool) -> None:
    try:
        with open_memory(memory, cache, name) as snapshot:
            for problem in verify_snapshot(snapshot):
                done.past_repair(f"{problem}. See `xmore memory verify {memory} --all --repair`")
            done.read(*(snapshot.path / file["file"] for file in snapshot.manifest["files"]))
    except SnapshotGone as gone:
        done.absent.append(str(gone))
    except SnapshotError as error:
        if may_lack:
            done.absent.append(str(error))
        else:
            done.past_repair(str(error))


def verify_results(results: Path, repair: bool) -> Verified:
    """Read the whole store, the text store, the files of all runs, and the caches."""
    compare_again()
    done = Verified()
    places = sorted(path.parent for path in (results / "store").glob(f"*/*/*/{MANIFEST}"))
    whole = [path for path in places if "." not in path.name]  # neither .partial nor .broken-<n>
    for path in track(whole, "verifying", "artifact"):
        done.artifact(path, repair)
    for file in sorted((results / "runs").glob("*/run.json")):
        so = (
            "The run is not listed; its artifacts are kept. If `--repair` does not mend it, delete "
            f"{file.parent} and run its benchmark again"
        )
        if done.json(file, f"damaged. {so}", repair):
            try:
                read_contract(file, RunFile)
            except (OSError, ValueError) as error:
                if is_shortage(error):
                    raise
                done.past_repair(f"{file}: {error}. {so}")
    runs = all_runs(results)
    for run in runs:
        _verify_views(done, run, repair)
        _look_for_removed(done, run)
        refs = [ref for ref in run.artifacts if not Path(ref.path).is_dir()]
        gone = sorted({ref.stage for ref in refs if not is_absent(ref)})
        if gone:
            done.past_repair(
                f"run {run.name}: {', '.join(gone)} are gone: moved aside as damaged, or deleted. "
                f"`xmore benchmark --resume {run.name}{where(results)}` makes them again"
            )
    _verify_checkpoints(done, runs)
    for path in _damaged_caches(done, results / "cache"):
        done.problems.append(f"{path}: its bytes are not those that were written")
        if repair:
            path.unlink()
            done.mend(path, done.problems[-1])
    done.aside = [
        path
        for path in sorted((results / "store").rglob("*.broken-*"))
        if path not in done.moved and not any(".broken-" in part.name for part in path.parents)
    ]
    return done


def _look_for_removed(done: Verified, run: Run) -> None:
    removed = sorted({ref.stage for ref in run.artifacts if is_removed(ref)})
    if removed:
        what = "deleted, as `takedown traces --remove` does; the run's numbers are there"
        done.absent.append(f"run {run.name}: {', '.join(removed)}: {what}")
    if lacking := left_out(run):
        done.absent.append(f"run {run.name}: {', '.join(lacking)}: left out when it was packed")


def _verify_views(done: Verified, run: Run, repair: bool) -> None:
    views = run.path / VIEWS
    done.read(views)
    if views.exists() and not are_whole(views):
        done.problems.append(f"{views}: damaged. `xmore sql {run.name} --write-views` mends it")
        if repair:
            done.mend(write_views(run), done.problems[-1])


def _verify_checkpoints(done: Verified, runs: Sequence[Run]) -> None:
    """Read the layers that runs of `reco` used, as far as they still exist."""
    options = (run.config.get("options", {}).get("reco") or {} for run in runs)
    folders = {Path(each["checkpoint"]) for each in options if each.get("checkpoint")}
    for folder in sorted(folder for folder in folders if folder.is_dir()):
        from xmore.methods.reco.checkpoint import FACTS, read_checkpoint  # torch

        try:
            read_checkpoint(folder)
            if not is_whole_json(folder / FACTS):
                done.past_repair(f"{folder / FACTS}: its bytes are not those that were written")
        except ModelError as error:
            done.past_repair(str(error))
        done.read(folder / FACTS, *folder.glob("reco*.safetensors"))


def _damaged_caches(done: Verified, cache: Path) -> Iterator[Path]:
    """Yield damaged caches: facts of files, listings of tars, captions. They are made again."""
    checks = {
        "*.json": holds_facts,
        "shard-*.parquet": is_whole_listing,
        "pairs-*.arrow": holds_pairs,
    }
    for pattern, holds in checks.items():
        for path in sorted(cache.glob(pattern)):
            done.read(path)
            if not holds(path):
                yield path
