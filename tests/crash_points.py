"""Crash a command at its points, one after the other, and see that nothing is lost.

A point is a system call that changes a file under the command's folder. Before it the command is
killed, or the call fails because the disk is full or broken. Then what is there must be readable,
and the same command again must end as one that nothing has disturbed.

With `opens`, a point is each opening of a file, which fails because too many are open.
"""

import errno
import importlib
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import crash
import pytest
import warm
from sharing import unsealed

ALL = int(os.environ.get("XMORE_KILLS", 1)) > 1  # `make test-slow`; else a few of each command
TURNS = 4 if ALL else 1  # tests that share the points of a long command: workers take them in turns
in_turns = pytest.mark.parametrize("turn", range(TURNS))
FAULTS = {"killed": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
OPENING = {"EMFILE": errno.EMFILE}
SAMPLED = ("killed", "ENOSPC", "killed", "EIO")
# What differs between two runs that do the same, or of which one resumes another.
OF_A_RUN = {"at", "started", "finished", "seconds", "costs", "peak_rss_mb", "skipped", "measured"}
OF_A_RUN |= {"fetched", "embedded", "images", "image_bytes"}
RUN_FILES = {"run.json", "run.lock", "views.sql"}
# Our packages first: folders of tests have their names.
MAIN = f"""
import sys, flows, tasks, index_build, xmore
sys.path.append({str(Path(__file__).parent)!r})
import crash_points
crash_points.main()
"""


def check_points(
    server: warm.Warm,
    folder: Path,
    *command: object,
    sample: int,
    opens: bool = False,
    turn: int | None = None,
) -> None:
    """Crash `xmore` with these arguments at all points, or at a sample of them.

    `folder` is as it is before the command, and holds all that it changes. With `turn`, of all
    points each TURNS-th.
    """
    words = [str(each) for each in command]
    asked = {"folder": str(folder), "command": words, "opens": opens, "sample": sample}
    asked["every"] = [1, 1] if turn is None else [turn + 1, TURNS]
    code, out, error = server.code(MAIN, json.dumps(asked)).end(None)
    assert code == 0, error
    told = json.loads(out.splitlines()[-1])
    if "refused" in told:
        pytest.skip(told["refused"])
    print(json.dumps(told | {"command": words[:2]}))
    assert not told["faults"], "\n".join(told["faults"])
    assert sum(told["points"].get(name, 0) for name in FAULTS | OPENING) >= sample


def main() -> None:
    """Do what `check_points` asks, in a process that has no threads yet; print what was found."""
    asked = json.loads(sys.argv[1])
    if why := crash.refused():
        print(json.dumps({"refused": why}))
        return
    for package in ("flows", "tasks", "index_build", "xmore"):  # once, not once a point
        found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        for module in found:
            if not module.name.startswith("index_build.download."):
                importlib.import_module(module.name)
    importlib.import_module("index_build.download.images").subprocess = crash.FORKING
    points = Points(Path(asked["folder"]), asked["command"], asked["opens"])
    calls = points.undisturbed()
    points.crash_all(*asked["every"]) if ALL else points.crash_some(len(calls), asked["sample"])
    told = {"calls": len(calls), "points": points.count, "faults": points.faults}
    print(json.dumps(told | {"processor seconds": round(sum(os.times()[:4]))}))


@dataclass
class Points:
    """A command, the folder that it changes, and what was found at its points."""

    folder: Path
    command: list[str]
    opens: bool = False
    code: int | None = 0  # of the undisturbed command
    expected: dict[str, object] = field(default_factory=dict)
    count: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def before(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.before")

    @property
    def kinds(self) -> dict[str, int]:
        return OPENING if self.opens else FAULTS

    def crash_some(self, calls: int, sample: int) -> None:
        names = list(OPENING if self.opens else SAMPLED)
        for i in range(sample):
            self.crashed(1 + int((i + 0.5) * calls / sample), names[i % len(names)])

    def crash_all(self, n: int, step: int) -> None:
        left = list(self.kinds)
        while left:
            left = [name for name in left if self.crashed(n, name)]
            n += step

    def undisturbed(self) -> list[str]:
        """Run the command, and return its calls."""
        shutil.rmtree(self.before, ignore_errors=True)
        self.folder.rename(self.before)
        self.restore()
        ended = crash.run(self.xmore, self.folder, opens=self.opens)
        assert ended.code in (0, 1) and "Traceback" not in ended.said, ended.said
        self.code, self.expected = ended.code, content(self.folder)
        look(self.folder, whole=self.code == 0)
        return ended.calls

    def crashed(self, n: int, name: str) -> bool:
        """Crash the command at a point, and run it again; returns whether there was this point."""
        self.restore()
        first = crash.run(self.xmore, self.folder, n, self.kinds[name], self.opens)
        if not first.reached:
            return False
        self.count[name] += 1
        wrong = self.wrong(first, name)
        point = f"{name} at {n} ({first.calls[-1]})"
        with self.folder.with_name("points.txt").open("a") as seen:  # of long runs
            print(f"{point}: {wrong or first.code}", file=seen)
        if wrong:
            self.faults.append(f"{point}: {wrong}")
        return True

    def wrong(self, first: crash.Ended, name: str) -> str:
        """What is wrong after a crash; empty if nothing is."""
        lines = [line for line in first.said.splitlines() if line.startswith("error: ")]
        if name != "killed" and first.code == self.code and "Traceback" not in first.said:
            self.count["went on"] += 1
            return difference(content(self.folder), self.expected)
        told = first.code == 2 and len(lines) == 1 and "Traceback" not in first.said
        if self.opens:
            told &= "Too many open files" in first.said or "images.log" in first.said
        if name != "killed" and not told:
            return f"ended with {first.code}: {first.said.strip()[-1500:]}"
        again = crash.run(self.look_and_repeat, self.folder)
        if again.code != self.code:
            return f"then: {again.said.strip()[-1500:]}"
        return difference(content(self.folder), self.expected)

    def restore(self) -> None:
        """Make the folder as it was, with its hard links."""
        shutil.rmtree(self.folder, ignore_errors=True)
        subprocess.run(["cp", "-a", self.before, self.folder], check=True)

    def xmore(self) -> None:
        sys.argv = ["xmore", *self.command]
        importlib.import_module("flows.cli.main").app()

    def look_and_repeat(self) -> None:
        look(self.folder, whole=self.code == 0)
        self.xmore()


def look(folder: Path, whole: bool) -> None:
    """Read what a folder publishes: the current snapshot of each memory, runs, checkpoints.

    Without `whole`, runs were damaged before.
    """
    from flows.upkeep import check, entries
    from flows.verify import verify_run
    from xmore.memory.snapshot import open_snapshot, resolve_current
    from xmore.methods.reco.checkpoint import FACTS, read_checkpoint
    from xmore.results.runs import all_runs, load_run
    from xmore.results.views import open_views

    for memory in [path.parent for path in folder.rglob("CURRENT")]:
        assert check(open_snapshot(memory, resolve_current(memory))) == []
        assert entries(memory)
    for results in [path.parent for path in folder.rglob("runs")]:
        for run in all_runs(results):
            assert load_run(results, "latest")
            if run.status == "completed" and whole:
                assert verify_run(run, repair=False).problems == []
                assert open_views(run).execute("from leaderboard").fetchall()
    for facts in folder.rglob(FACTS):
        assert read_checkpoint(facts.parent).layers()


def content(folder: Path) -> dict[str, object]:
    """All files under a folder by their names, without what differs between equal runs.

    Of runs, the newest completed one; the others leave nothing but their run.json.
    """
    last = last_run(folder)
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        if ".locks" in place.parts or path.suffix == ".lock":
            continue
        if "cache" in place.parts and not path.name.startswith("."):
            continue  # what may be lost: hashes, with the times of the files
        if path.is_dir():
            if not any(path.iterdir()):
                found[f"{place}/"] = "empty"
            continue
        run = next((each for each in path.parents if each.parent.name == "runs"), None)
        if run and run != last and (run / "run.json").exists() and path.name in RUN_FILES:
            continue
        name = last.name if last and run == last else "RUN"
        found[str(place).replace(name, "RUN")] = timeless(path, name)
    return found


def last_run(folder: Path) -> Path | None:
    from xmore.results.runs import all_runs

    found = [run for place in folder.rglob("runs") for run in all_runs(place.parent)]
    return next((run.path for run in reversed(found) if run.status == "completed"), None)


def timeless(path: Path, run: str) -> object:
    """What is in a file, without times, and without the name of its run, which is one."""
    if path.suffix in (".json", ".jsonl"):
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        found = [_without(json.loads(line)) for line in lines]
        return [_without(line, {"index"}) for line in found] if path.suffix == ".jsonl" else found
    if path.suffix == ".tar":  # a member's time is that of the download, and so is their order
        with tarfile.open(path) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}
    text = path.read_bytes().replace(run.encode(), b"RUN")
    return text.partition(b"\n")[2] if path.name == "views.sql" else text  # first: its own sha256


def _without(value: object, names: set[str] = OF_A_RUN) -> object:
    if isinstance(value, dict):
        return {k: _without(v) for k, v in unsealed(value).items() if k not in names}
    return [_without(each) for each in value] if isinstance(value, list) else value


def difference(found: dict[str, object], expected: dict[str, object]) -> str:
    """How a folder's content differs from the expected one; empty if it does not."""
    names = sorted(found.keys() | expected.keys())
    differ = [name for name in names if found.get(name) != expected.get(name)]
    return ", ".join(_how(name, found, expected) for name in differ[:8])


def _how(name: str, found: dict[str, object], expected: dict[str, object]) -> str:
    if name not in expected or name not in found:
        return f"{'more' if name in found else 'less'}: {name}"
    one, other = found[name], expected[name]
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one | other if one.get(key) != other.get(key)]
        name += "".join(f" {key}: {one.get(key)} not {other.get(key)}" for key in keys)[:600]
    return f"other: {name}"
