"""The upkeep of memories and runs: `xmore memory` and `xmore verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from index_build.base import history, takedown
from index_build.base.changes import Change, beside, changing, commit
from index_build.base.tables import parquet
from index_build.plan import make_plan
from index_build.sources.look_up import want
from index_build.upkeep.estimate import ReindexEstimate, estimate
from index_build.verify import check_rows, verify_snapshot
from xmore.config.load import absolute
from xmore.config.memory import ReindexConfig
from xmore.files.errors import ConfigError, SnapshotError, meant
from xmore.files.locks import is_locked
from xmore.files.paths import write_whole
from xmore.files.text import counted
from xmore.memory.locks import lock_of
from xmore.memory.snapshot import Snapshot, card_of, open_snapshot, resolve_current
from xmore.report.snapshot import outcome

SAMPLES = 5


@dataclass(frozen=True)
class Entry:
    """A snapshot in a list."""

    name: str
    published: str
    rows: int
    added: int
    removed: int
    bytes: int
    index: str
    marks: str  # CURRENT, in use, rolled back; separated by commas


@dataclass(frozen=True)
class Difference:
    """How two snapshots differ."""

    shared: int
    only: tuple[int, int]  # rows in the first only, in the second only
    samples: tuple[list[str], list[str]]  # captions of some of these rows
    captions: int  # rows in both, whose caption differs
    recaptioned: list[tuple[str, str]]  # both captions of some of these rows
    facts: list[tuple[str, str, str]]  # name, the first's value, the second's value


def entries(memory: Path) -> list[Entry]:
    """Return the memory's snapshots, newest first. Raises SnapshotError."""
    current, withdrawn = resolve_current(memory), history.withdrawn(memory)
    events = {e["snapshot"]: e for e in history.read(memory) if e["event"] == "published"}
    found = []
    for name in history.names(memory):
        snapshot = open_snapshot(memory, name)
        manifest = snapshot.manifest
        event = events.get(name, {})
        marks = [
            "CURRENT" if name == current else "",
            "in use" if is_locked(lock_of(memory, name)) else "",
            "rolled back" if name in withdrawn else "",
        ]
        found.append(
            Entry(
                name=name,
                published=str(event.get("at", "")),
                rows=manifest["rows"],
                added=event.get("added", 0),
                removed=event.get("removed", 0),
                bytes=sum(file["bytes"] for file in manifest["files"]),
                index=f"{_key(snapshot)}, {_how(event)}",
                marks=", ".join(filter(None, marks)),
            )
        )
    return found


def find(memory: Path, name: str | None) -> Snapshot:
    """Open a snapshot by its name or the beginning of it; CURRENT's by default.

    Raises SnapshotError.
    """
    if name is None:
        return open_snapshot(memory, resolve_current(memory))
    existing = history.names(memory)
    matching = [each for each in existing if each == name]
    matching = matching or [each for each in existing if each.startswith(name)]
    if len(matching) != 1:
        what = "no snapshot" if not matching else f"{len(matching)} snapshots"
        have = ", ".join(existing) or "none"
        raise SnapshotError(
            f"{memory}: {what} called {name!r}.{meant(name, existing)} Name one of: {have}."
        )
    return open_snapshot(memory, matching[0])


def compare(one: Snapshot, other: Snapshot) -> Difference:
    """Compare two snapshots' rows by memory_key. Memory: DuckDB's, which spills to disk."""
    with duckdb.connect() as db:
        for side, snapshot in (("a", one), ("b", other)):
            files = parquet([shard.metadata for shard in snapshot.shards])
            db.execute(f"create view {side} as select memory_key, caption from {files}")
        shared = db.execute("select count(*) from a semi join b using (memory_key)").fetchall()
        only, samples = [], []
        for mine, theirs in (("a", "b"), ("b", "a")):
            rows = f"from {mine} anti join {theirs} using (memory_key)"
            only.append(db.execute(f"select count(*) {rows}").fetchall()[0][0])
            some = db.execute(f"select caption {rows} order by memory_key limit {SAMPLES}")
            samples.append([caption or "" for (caption,) in some.fetchall()])
        changed = "from a join b using (memory_key) where a.caption is distinct from b.caption"
        captions = db.execute(f"select count(*) {changed}").fetchall()[0][0]
        pairs = f"select a.caption, b.caption {changed} order by memory_key limit {SAMPLES}"
        both = [(old or "", new or "") for old, new in db.execute(pairs).fetchall()]
    facts = [(name, str(a), str(b)) for name, a, b in _facts(one, other) if a != b]
    return Difference(
        shared[0][0], (only[0], only[1]), (samples[0], samples[1]), captions, both, facts
    )


def roll_back(memory: Path, to: str | None) -> tuple[str, str]:
    """Point CURRENT to an earlier snapshot, the previous one by default -> (old, new) names.

    A re-index does not return to the old snapshot unless its sources change. If an earlier roll
    back was killed before it ended, this completes it and goes no further. Raises SnapshotError,
    LockedError.
    """
    busy = "a re-index is running. Wait for it to end, then roll back."
    with changing(memory, busy) as completed:
        if "rolled back" in completed:
            old, new = completed["rolled back"]
            return old, new
        current = resolve_current(memory)
        if to is None:
            names, told = history.names(memory), history.published(memory)
            if told and current not in told:  # published by a run that was killed before it said so
                earlier = [name for name in names if name != current]
            else:
                earlier = names[names.index(current) + 1 :] if current in names else names
            if not earlier:
                raise SnapshotError(f"{memory}: there is no snapshot before {current}.")
            to = earlier[0]
        target = find(memory, to)
        if target.name == current:
            raise SnapshotError(f"{memory}: CURRENT is already {current}.")
        held = _holds(memory, target.name)
        if held:
            others = (name for name in history.names(memory) if name != current)
            free = next((other for other in others if not _holds(memory, other)), None)
            advice = f"Roll back with --to {free}, or run" if free else "Run"
            raise SnapshotError(
                f"{memory}: {target.name} holds {counted(held, 'row')} taken down since. {advice} "
                "`xmore reindex` with the older sources."
            )
        pointer, events = memory / "CURRENT", memory / history.FILE
        write_whole(beside(pointer), f"{target.name}\n".encode())
        write_whole(
            beside(events), history.with_event(memory, "rolled back", target.name, left=current)
        )
        changes = [Change(path, beside(path)) for path in (events, pointer)]
        commit(memory, changes, **{"rolled back": [current, target.name]})
        return current, target.name


def _holds(memory: Path, name: str) -> int:
    """Return how many rows of a snapshot are taken down; 0 of one that is gone."""
    path = memory / "snapshots" / name
    return takedown.holds(path, takedown.current(memory)) if path.is_dir() else 0


def estimate_reindex(config: ReindexConfig) -> ReindexEstimate:
    """Estimate a re-index. The rows that it lists are kept for the re-index itself."""
    config = absolute(config)
    with changing(config.memory, "a re-index is running. Wait for it to end, then plan."):
        plan = make_plan(config)
        return estimate(plan, [want(listed, config) for listed in plan.listed])


def check(snapshot: Snapshot) -> list[str]:
    """Return the problems found in a snapshot. Reads every byte and checks every row."""
    return verify_snapshot(snapshot) or check_rows(snapshot)


def _key(snapshot: Snapshot) -> str:
    return snapshot.index["key"] if snapshot.index else "none"


def _how(event: dict[str, Any]) -> str:
    """Return how the index was built and in how many seconds; empty if it was not recorded."""
    seconds = event.get("seconds", {}).get("index")
    return f"{event.get('index', '')} {seconds:.1f} s" if seconds is not None else ""


def _facts(one: Snapshot, other: Snapshot) -> list[tuple[str, Any, Any]]:
    a, b = card_of(one), card_of(other)
    rows: list[tuple[str, Any, Any]] = [
        ("model", a["model"]["name"], b["model"]["name"]),
        ("index", _key(one), _key(other)),
        ("requested", a["asked"], b["asked"]),
    ]
    for cause in sorted({*a["failures"], *b["failures"]}):
        counts = (each["failures"].get(cause, 0) for each in (a, b))
        rows.append((outcome(cause), *counts))
    return rows


def take_down(memory: Path, values: list[str], reason: str) -> list[tuple[str, bool]]:
    """Take values down -> each, and whether it was taken down before.

    Raises ConfigError for a value that is none, LockedError.
    """
    try:
        wanted = [takedown.as_value(value) for value in values]
    except ValueError as error:
        raise ConfigError(f"a take-down {error}.") from error
    resolve_current(memory)  # a mistyped folder is not a memory
    with changing(memory, "a re-index is running. Wait for it to end, then take down."):
        new = takedown.add(memory, wanted, reason)
    return [(value, value not in new) for value in wanted]


def reinstate(memory: Path, value: str) -> list[str]:
    """Let a value come back -> it and its followers. Raises SnapshotError, LockedError."""
    resolve_current(memory)
    with changing(memory, "a re-index is running. Wait for it to end, then reinstate."):
        return takedown.reinstate(memory, value.lower() if len(value) == 64 else value)
