"""A memory snapshot's card in Markdown, and its facts in words."""

from __future__ import annotations

from typing import Any

from xmore.memory.snapshot import Snapshot


def snapshot_card(snapshot: Snapshot) -> str:
    """A snapshot in Markdown: rows, failures by cause, model, index and its recall."""
    facts = snapshot.manifest
    asked, index = facts["asked"], facts["index"]
    lines = [
        f"# Snapshot {snapshot.name}",
        "",
        "| | |",
        "|---|---|",
        *[f"| source {name} | `{s['place']}` |" for name, s in facts["sources"].items()],
        f"| rows asked for | {asked:,} |",
        f"| rows in the memory | {snapshot.rows:,} ({snapshot.rows / asked:.1%}) |",
        f"| model | {facts['model']['name']}, {snapshot.dim} dimensions |",
        f"| index | {index_name(index)} |",
        f"| its size | {index['bytes'] / 2**20:,.1f} MiB |",
        f"| search by the index | {index['measured']['ms_per_query']} ms a query, one thread |",
    ]
    if texts := facts.get("text_index"):
        lines.append(f"| index of texts | {index_name(texts)} |")
    if index["rerank"] > 1:
        lines.append(f"| re-ranked exactly | the best {index['rerank']} times K |")
    for kind, found in index["measured"]["of"].items():
        for name, recall in found.items():
            shares = recall_line(recall)
            words = {"recall": "recall", "without_rerank": "recall without re-ranking"}[name]
            lines.append(f"| {words}, {index['measured']['queries']} {kind} | {shares} |")
    if facts["failures"]:
        lines += ["", "## Failures", "", "| cause | rows |", "|---|---:|"]
        lines += [f"| {cause} | {count:,} |" for cause, count in most_common(facts["failures"])]
    if facts["filtered"]:
        lines += ["", "## Left out by filters", "", "| filter | rows |", "|---|---:|"]
        lines += [f"| {name} | {count:,} |" for name, count in most_common(facts["filtered"])]
    if facts["hosts"]:
        lines += ["", "## Hosts", "", "| host | rows tried | images |", "|---|---:|---:|"]
        lines += [f"| {host} | {n:,} | {came / n:.1%} |" for host, n, came in facts["hosts"]]
    return "\n".join(lines)


def index_name(index: dict[str, Any]) -> str:
    """An index's key, and the parameter that it is searched with where it has one."""
    return f"{index['key']} {index['parameters']}".strip()


def recall_line(recall: dict[str, float]) -> str:
    """Recall at each number of neighbours, the fewest first."""
    return ", ".join(f"{recall[k]:.3f} @{k}" for k in sorted(recall, key=int))


def most_common(failures: dict[str, int]) -> list[tuple[str, int]]:
    """Causes and counts, the commonest first."""
    return sorted(failures.items(), key=lambda item: (-item[1], item[0]))
