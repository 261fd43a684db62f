"""The condition `where` on a list's rows: what it may contain, and which columns it reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb

from xmore.config.sources import UrlListConfig
from xmore.files.errors import ConfigError
from xmore.files.sql import quote

# Written without brackets, DuckDB's parser takes them for columns.
TIMES = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp"}


def check_condition(where: str | None) -> None:
    """Raise ConfigError unless `where` is one condition on a row, the same for each look.

    A query within it may run for ever; chance and the time select other rows each time.
    """
    if not where:
        return
    with duckdb.connect() as db:
        text = quote(f"select 1 where ({where}\n)")
        parsed = json.loads(db.execute(f"select json_serialize_sql({text})").fetchall()[0][0])
        if parsed["error"]:
            raise ConfigError(f"`urls.where`: {parsed['error_message'].splitlines()[0]}.")
        unstable = {
            name
            for (name,) in db.execute(
                "select function_name from duckdb_functions() where stability <> 'CONSISTENT'"
            ).fetchall()
        }
    node = parsed["statements"][0]["node"]
    only = node["type"] == "SELECT_NODE" and not node["group_expressions"] and not node["having"]
    if len(parsed["statements"]) > 1 or not only or node["modifiers"]:
        raise ConfigError("`urls.where`: must be one condition, as in `similarity > 0.3`.")
    for part in _parts(node["where_clause"]):
        if part.get("class") == "SUBQUERY":
            raise ConfigError(
                "`urls.where`: has a query within it. Write a condition on a row's columns alone."
            )
        name = part.get("function_name") if part.get("class") == "FUNCTION" else None
        if part.get("column_names", [""])[-1].lower() in TIMES:
            name = part["column_names"][-1]
        if name in unstable | TIMES:
            raise ConfigError(
                f"`urls.where`: `{name}` selects other rows each time. Remove it; "
                "for a share of the rows set `sample`."
            )


def in_condition(config: UrlListConfig, existing: Iterable[str]) -> list[str]:
    """Return the columns that `where` may read, other than URL and caption."""
    where, texts = (config.where or "").lower(), (config.names.url, config.names.caption)
    return [name for name in existing if name.lower() in where and name not in texts]


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield each object of JSON within another."""
    found = [tree]
    while found:
        part = found.pop()
        if isinstance(part, dict):
            yield part
            found += part.values()
        elif isinstance(part, list):
            found += part
