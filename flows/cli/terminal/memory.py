"""What `xmore memory` prints."""

from __future__ import annotations

from flows.cli.terminal.console import safe, say, show_table, table_of
from flows.upkeep import Difference, Entry
from index_build.base.takedown import TakeDown
from index_build.upkeep.estimate import ReindexEstimate
from index_build.upkeep.gc import Freed
from index_build.upkeep.traces import Trace
from xmore.memory.snapshot import Snapshot, card_of
from xmore.report.snapshot import index_name, most_common, recall_line


def show_entries(found: list[Entry]) -> None:
    """Print one line per snapshot, newest first."""
    table = table_of("snapshot", "published", "rows", "added", "removed", "size", "index", "")
    for entry in found:
        table.add_row(
            entry.name,
            _time(entry.published),
            f"{entry.rows:,}",
            f"+{entry.added:,}",
            f"-{entry.removed:,}",
            size(entry.bytes),
            safe(entry.index),
            entry.marks,
        )
    show_table(table)


def show_take_downs(found: list[TakeDown]) -> None:
    """Print what is taken down, oldest first; a follower stands below its URL or row_key."""
    if not found:
        say("Nothing is taken down.")
        return
    table = table_of("taken down", "since", "reason", first_columns_left=3)
    for down in (each for each in found if each.follows is None):
        table.add_row(safe(down.value), _time(down.at), safe(down.reason))
        for other in found:
            if other.follows == down.value:
                table.add_row(safe(f"  and its image {other.value}"), "", "")
    show_table(table)


def show_traces(found: list[Trace], results: str, removed: bool) -> None:
    """Print what results hold of rows that were taken down, and which runs need it."""
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
    for title, counts in (("failed", facts["failures"]), ("filtered out", facts["filtered"])):
        if counts:
            table = table_of(title, "rows")
            for cause, count in most_common(counts):
                table.add_row(safe(cause), f"{count:,}")
            show_table(table)
    if facts["hosts"]:
        table = table_of("host", "rows attempted", "images")
        for host, attempted, images in facts["hosts"]:
            table.add_row(safe(host), f"{attempted:,}", f"{images / attempted:.1%}")
        show_table(table)


def show_difference(one: Snapshot, other: Snapshot, found: Difference) -> None:
    """Print what two snapshots share, and what only one of them has."""
    say(safe(f"{one.name} -> {other.name}: {found.shared:,} rows in both"))
    for sign, count, captions in zip("-+", found.only, found.samples, strict=True):
        say(f"{sign}{count:,} rows")
        for caption in captions:
            say(f"    {safe(caption[:70])}")
    if found.facts:
        table = table_of("", one.name, other.name)
        for name, a, b in found.facts:
            table.add_row(safe(name), safe(a), safe(b))
        show_table(table)


def show_freed(freed: Freed, dry_run: bool) -> None:
    """Print what gc deleted, or would delete, and what it keeps."""
    verb = "would delete" if dry_run else "deleted"
    for name, why in freed.snapshots.items():
        say(f"{verb:<12} {safe(name)}  {why}")
    for name, why in freed.kept.items():
        say(f"{'kept':<12} {safe(name)}  {why}")
    say(
        f"{verb}: {len(freed.snapshots)} snapshots, the images of {freed.rows:,} rows in "
        f"{freed.files} shards; {size(freed.bytes)}"
    )


def show_estimate(found: ReindexEstimate) -> None:
    """Print the estimate of a re-index: rows by source, hours by step, bytes."""
    table = table_of("source", "kind", "requested", "filtered out", "new", first_columns_left=2)
    for source in found.sources:
        table.add_row(
            safe(source.name),
            source.kind,
            f"{source.asked:,}",
            f"{source.filtered.total():,}",
            f"{source.new:,}",
        )
    show_table(table)
    steps = table_of("step", "rows", "rows/s", "rate from", "hours")
    for step, rows in (("download", found.to_download), ("embed", found.to_embed)):
        rate, origin = found.rates[step]
        steps.add_row(step, f"{rows:,}", f"{rate:,.0f}", origin, f"{found.hours[step]:,.2f}")
    show_table(steps)
    each, origin = found.rates["image_bytes"]
    say(
        f"to download: about {size(found.download_bytes)} ({size(each)} per image, {origin}); "
        f"additional disk space: about {size(found.disk_bytes)}"
    )


def _time(at: str) -> str:
    """Return a time in UTC as a table shows it."""
    return at.removesuffix("+00:00").replace("T", " ")


def size(count: float) -> str:
    """Return a number of bytes as human-readable text."""
    units = iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while count >= 1000 and unit != "PB":
        count, unit = count / 1000, next(units)
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
