"""What `xmore memory` prints."""

from __future__ import annotations

from flows.cli.terminal.console import safe, say, show_table, table_of
from flows.upkeep import Difference, Entry
from index_build.upkeep.estimate import ReindexEstimate
from index_build.upkeep.gc import Freed
from xmore.memory.snapshot import Snapshot
from xmore.report.snapshot import index_name, most_common, recall_line


def show_entries(found: list[Entry]) -> None:
    """One line a snapshot, the newest first."""
    table = table_of("snapshot", "published", "rows", "came", "went", "size", "index", "")
    for entry in found:
        table.add_row(
            entry.name,
            entry.published.removesuffix("+00:00").replace("T", " "),
            f"{entry.rows:,}",
            f"+{entry.added:,}",
            f"-{entry.removed:,}",
            size(entry.bytes),
            safe(entry.index),
            entry.marks,
        )
    show_table(table)


def show_card(snapshot: Snapshot) -> None:
    """A snapshot's facts, failures by cause and success by host."""
    facts = snapshot.manifest
    index = facts["index"]
    say(safe(f"snapshot {snapshot.name} of {snapshot.path.parents[1]}"))
    lines = {
        "rows": f"{snapshot.rows:,} of {facts['asked']:,} asked for",
        "model": f"{facts['model']['name']}, {snapshot.dim} dimensions",
        "index": f"{index_name(index)}, {size(index['bytes'])}, {index['how']}, "
        f"{index['measured']['ms_per_query']} ms a query",
    }
    if texts := facts.get("text_index"):
        lines["index of texts"] = f"{index_name(texts)}, {size(texts['bytes'])}, {texts['how']}"
    for name, source in facts["sources"].items():
        lines[f"source {name}"] = source["place"]
    lines["recall"] = "; ".join(
        f"{recall_line(found['recall'])}, of {kind}"
        for kind, found in index["measured"]["of"].items()
    )
    if facts["retryable"]:
        lines["to try again"] = f"{facts['retryable']:,} rows whose failure may pass"
    for name, text in lines.items():
        say(f"  {safe(name):<16} {safe(text)}")
    for title, counts in (("failed", facts["failures"]), ("left out", facts["filtered"])):
        if counts:
            table = table_of(title, "rows")
            for cause, count in most_common(counts):
                table.add_row(safe(cause), f"{count:,}")
            show_table(table)
    if facts["hosts"]:
        table = table_of("host", "rows tried", "images")
        for host, tried, came in facts["hosts"]:
            table.add_row(safe(host), f"{tried:,}", f"{came / tried:.1%}")
        show_table(table)


def show_difference(one: Snapshot, other: Snapshot, found: Difference) -> None:
    """What two snapshots share, and what each has alone."""
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
    """What gc has freed, or would, and what stays."""
    verb = "would go" if dry_run else "gone"
    for name, why in freed.snapshots.items():
        say(f"{verb:<9} {safe(name)}  {why}")
    for name, why in freed.kept.items():
        say(f"{'stays':<9} {safe(name)}  {why}")
    say(
        f"{verb}: {len(freed.snapshots)} snapshots, {freed.rows:,} rows' images from "
        f"{freed.files} shards; {size(freed.bytes)}"
    )


def show_estimate(found: ReindexEstimate) -> None:
    """What a re-index would come to."""
    table = table_of("source", "kind", "asked for", "filtered out", "new", first_columns_left=2)
    for source in found.sources:
        table.add_row(
            safe(source.name),
            source.kind,
            f"{source.asked:,}",
            f"{source.filtered.total():,}",
            f"{source.new:,}",
        )
    show_table(table)
    steps = table_of("step", "rows", "rows/s", "measured by", "hours")
    for step, rows in (("download", found.to_download), ("embed", found.to_embed)):
        rate, origin = found.rates[step]
        steps.add_row(step, f"{rows:,}", f"{rate:,.0f}", origin, f"{found.hours[step]:,.2f}")
    show_table(steps)
    each, origin = found.rates["image_bytes"]
    say(
        f"to download: about {size(found.download_bytes)} ({size(each)} an image, {origin}); "
        f"on disk: about {size(found.disk_bytes)} more"
    )


def size(count: float) -> str:
    """Bytes for people."""
    units = iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while count >= 1000 and unit != "PB":
        count, unit = count / 1000, next(units)
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
