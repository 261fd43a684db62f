"""A memory snapshot's summary in Markdown, and its facts in words."""

from __future__ import annotations

from typing import Any

from xmore.memory.snapshot import Snapshot


def snapshot_card(snapshot: Snapshot) -> str:
    """Return a snapshot in Markdown: rows, failures by cause, model, index and its recall."""
    facts = snapshot.manifest
    requested, index = facts["asked"], facts["index"]
    lines = [
        f"# Snapshot {snapshot.name}",
        "",
        "| | |",
        "|---|---|",
        *[f"| source {name} | `{s['place']}` |" for name, s in facts["sources"].items()],
        f"| requested rows | {requested:,} |",
        f"| rows in the memory | {snapshot.rows:,} ({snapshot.rows / requested:.1%}) |",
        f"| model | {facts['model']['name']}, {snapshot.dim} dimensions |",
        f"| index | {index_name(index)} |",
        f"| index size | {index['bytes'] / 2**20:,.1f} MiB |",
        f"| index search | {index['measured']['ms_per_query']} ms per query, one thread |",
    ]
    if texts := facts.get("text_index"):
        lines.append(f"| text index | {index_name(texts)} |")
    if index["rerank"] > 1:
        lines.append(f"| exact re-ranking | of the best {index['rerank']} times K |")
    for kind, found in index["measured"]["of"].items():
        for name, recall in found.items():
            shares = recall_line(recall)
            words = {"recall": "recall", "without_rerank": "recall without re-ranking"}[name]
            lines.append(f"| {words}, {index['measured']['queries']} {kind} | {shares} |")
    if facts["failures"]:
        lines += ["", "## Rows not in the memory", "", "| cause | rows |", "|---|---:|"]
        lines += [f"| {cause} | {count:,} |" for cause, count in most_common(facts["failures"])]
    if facts["filtered"]:
        lines += ["", "## Excluded by filters", "", "| filter | rows |", "|---|---:|"]
        lines += [f"| {name} | {count:,} |" for name, count in most_common(facts["filtered"])]
    if facts["hosts"]:
        lines += ["", "## Hosts", "", "| host | rows attempted | images |", "|---|---:|---:|"]
        lines += [f"| {host} | {n:,} | {came / n:.1%} |" for host, n, came in facts["hosts"]]
    return "\n".join(lines)


def index_name(index: dict[str, Any]) -> str:
    """Return an index's key and its search parameter, if it has one."""
    return f"{index['key']} {index['parameters']}".strip()


def recall_line(recall: dict[str, float]) -> str:
    """Return the recall at each number of neighbours, smallest first."""
    return ", ".join(f"{recall[k]:.3f} @{k}" for k in sorted(recall, key=int))


def outcome(cause: str) -> str:
    """Return what became of rows that the memory lacks: a take-down is no failure."""
    return cause if cause == "taken down" else f"failed: {cause}"


def most_common(failures: dict[str, int]) -> list[tuple[str, int]]:
    """Return causes and counts, most common first."""
    return sorted(failures.items(), key=lambda item: (-item[1], item[0]))
