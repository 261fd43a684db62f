"""What `xmore memory` prints."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flows.cli.terminal.console import cut, record, safe, say, show_table, wants_json
from flows.upkeep import Difference, Entry
from index_build.base.takedown import TakeDown
from index_build.upkeep.estimate import ReindexEstimate
from index_build.upkeep.gc import Freed
from index_build.upkeep.traces import Trace
from xmore.files.text import counted
from xmore.memory.snapshot import Snapshot, card_of
from xmore.report.snapshot import index_name, most_common, recall_line
from xmore.report.table import Kind, Table, size


def show_entries(found: list[Entry], every_column: bool = False) -> None:
    """Print one line per snapshot, newest first."""
    columns: list[tuple[str, Kind]] = [
        ("snapshot", "name"),
        ("published", "time"),
        ("rows", "count"),
        ("added", "count"),
        ("removed", "count"),
        ("marks", "text"),
        ("size", "bytes"),
        ("index", "text"),
    ]
    rows = [
        (
            *(entry.name, entry.published, entry.rows, entry.added, entry.removed),
            *(entry.marks, entry.bytes, entry.index),
        )
        for entry in found
    ]
    shown = len(columns) if every_column or wants_json() else -2
    show_table(Table("snapshots", "", "", columns[:shown], [row[:shown] for row in rows]))


def show_take_downs(found: list[TakeDown]) -> None:
    """Print what is taken down, oldest first; a follower stands below its URL or row_key."""
    if not found:
        say("Nothing is taken down.")
    rows: list[tuple[Any, ...]] = []
    for down in (each for each in found if each.follows is None):
        rows.append((down.value, down.at, down.reason))
        followers = (other.value for other in found if other.follows == down.value)
        rows += [(f"  and its image {value}", None, "") for value in followers]
    record("takedowns", map(asdict, found))
    if found and not wants_json():
        columns: list[tuple[str, Kind]] = [
            ("taken down", "text"),
            ("since", "time"),
            ("reason", "text"),
        ]
        show_table(Table("takedowns", "", "", columns, rows))


def show_traces(found: list[Trace], results: str, removed: bool) -> None:
    """Print what results hold of rows that were taken down, and which runs need it."""
    record("traces", (asdict(trace) | {"removed": removed} for trace in found))
    if not found:
        say(safe(f"{results}: nothing of what was taken down is left."))
        return
    for trace in found:
        say(safe(f"{'removed' if removed else 'holds some'}: {trace.path} ({trace.what})"))
    runs = sorted({name for trace in found for name in trace.runs})
    if runs:
        can = "can" if removed else "could"
        say(safe(f"these runs {can} no longer be drawn: {', '.join(runs)}"))
    if not removed:
        say("`--remove` deletes all of these. The next run makes them again, without the rows.")


def show_card(snapshot: Snapshot) -> None:
    """Print a snapshot's facts, failures by cause and success by host."""
    facts = card_of(snapshot)
    index = facts["index"]
    record("snapshot", [_facts_of(snapshot)])
    say(safe(f"snapshot {snapshot.name} of {snapshot.path.parents[1]}"))
    lines = {
        "rows": f"{snapshot.rows:,} of {facts['asked']:,} requested",
        "model": f"{facts['model']['name']}, {snapshot.dim} dimensions",
        "index": "none",
    }
    if index:
        lines["index"] = (
            f"{index_name(index)}, {size(index['bytes'])}, {index['how']}, "
            f"{index['measured']['ms_per_query']} ms per query"
        )
    if texts := facts.get("text_index"):
        lines["index of texts"] = f"{index_name(texts)}, {size(texts['bytes'])}, {texts['how']}"
    for name, source in facts["sources"].items():
        lines[f"source {name}"] = source["place"]
    if index:
        measured = index["measured"]["of"].items()
        lines["recall"] = "; ".join(f"{recall_line(of['recall'])}, {kind}" for kind, of in measured)
    if facts["retryable"]:
        lines["retryable"] = f"{facts['retryable']:,} failed rows; the next re-index retries them"
    for name, text in lines.items():
        say(f"  {safe(name):<16} {safe(text)}")
    filtered = {f"filtered out: {name}": count for name, count in facts["filtered"].items()}
    causes = [*most_common(facts["failures"]), *most_common(filtered)]
    if causes or wants_json():
        columns: list[tuple[str, Kind]] = [("not in the memory", "text"), ("rows", "count")]
        show_table(Table("absent", "", "", columns, causes))
    if facts["hosts"]:
        show_table(
            Table(
                "hosts",
                "",
                "",
                [
                    ("host", "text"),
                    ("rows attempted", "count"),
                    ("images", "count"),
                    ("images %", "share"),
                ],
                [(host, rows, images, images / rows) for host, rows, images in facts["hosts"]],
            )
        )


def _facts_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return a snapshot's facts for programs."""
    facts = card_of(snapshot)
    kept = ("asked", "retryable", "index", "sources")
    of = {"name": snapshot.name, "rows": snapshot.rows, "model": facts["model"]["name"]}
    return of | {"dim": snapshot.dim} | {key: facts[key] for key in kept}


def show_difference(one: Snapshot, other: Snapshot, found: Difference) -> None:
    """Print what two snapshots share, and what only one of them has."""
    names = (one.name, other.name)
    counts = {"shared": found.shared, "only_a": found.only[0], "only_b": found.only[1]}
    counts["captions"] = found.captions
    record("difference", [{"a": one.name, "b": other.name} | counts])
    say(safe(f"{one.name} -> {other.name}: {found.shared:,} rows in both"))
    for sign, count, captions in zip("-+", found.only, found.samples, strict=True):
        some = "" if count == len(captions) else f", {len(captions)} of them:"
        say(f"{sign}{count:,} rows{some}")
        for caption in captions:
            say(f"    {safe(cut(caption, 4))}")
    if found.captions:
        pairs = len(found.recaptioned)
        shown = "" if found.captions == pairs else f", {pairs} of them:"
        say(f"~{counted(found.captions, 'row')} in both with another caption{shown}")
        for old, new in found.recaptioned:
            say(f"    {safe(cut(old, 4))}")
            say(f" -> {safe(cut(new, 4))}")
    if found.facts or wants_json():
        columns: list[tuple[str, Kind]] = [("fact", "text"), *((name, "text") for name in names)]
        record("facts", ({"fact": fact, "a": a, "b": b} for fact, a, b in found.facts))
        if not wants_json():
            show_table(Table("facts", "", "", columns, found.facts))


def show_freed(freed: Freed, dry_run: bool) -> None:
    """Print what gc deleted, or would delete, and what it keeps."""
    verb = "would delete" if dry_run else "deleted"
    for kept, names in ((False, freed.snapshots), (True, freed.kept)):
        record("snapshots", ({"name": n, "kept": kept, "why": why} for n, why in names.items()))
    facts = {"rows": freed.rows, "files": freed.files, "bytes": freed.bytes}
    record("freed", [facts | {"deleted": not dry_run}])
    for name, why in freed.snapshots.items():
        say(f"{verb:<12} {safe(name)}  {why}")
    for name, why in freed.kept.items():
        say(f"{'kept':<12} {safe(name)}  {why}")
    disk = f"{size(freed.bytes)} less"
    if freed.bytes < 0:
        disk = f"{size(-freed.bytes)} more, as kept snapshots still hold what was rewritten"
    say(
        f"{verb}: {counted(len(freed.snapshots), 'snapshot')}, the images of "
        f"{counted(freed.rows, 'row')} in {counted(freed.files, 'shard')}; on disk: {disk}"
    )


def show_estimate(found: ReindexEstimate) -> None:
    """Print the estimate of a re-index: rows by source, hours by step, bytes."""
    show_table(
        Table(
            "sources",
            "",
            "",
            [
                ("source", "text"),
                ("kind", "text"),
                ("requested", "count"),
                ("filtered out", "count"),
                ("new", "count"),
            ],
            [(s.name, s.kind, s.asked, s.filtered.total(), s.new) for s in found.sources],
        )
    )
    show_table(
        Table(
            "steps",
            "",
            "",
            [
                ("step", "text"),
                ("rows", "count"),
                ("rows/s", "number"),
                ("rate from", "text"),
                ("takes", "hours"),
            ],
            [
                (step, rows, *found.rates[step], found.hours[step])
                for step, rows in (("download", found.to_download), ("embed", found.to_embed))
            ],
        )
    )
    each, origin = found.rates["image_bytes"]
    record("bytes", [{"download": found.download_bytes, "disk": found.disk_bytes}])
    say(
        f"to download: about {size(found.download_bytes)} ({size(each)} per image, {origin}); "
        f"additional disk space: about {size(found.disk_bytes)}"
    )
