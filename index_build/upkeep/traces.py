"""What results still hold of rows that were taken down: found, and removed on request.

Artifacts and reports are removed whole, and made again by the next run, without the row. Runs that
read them cannot be drawn again; their files, and numbers computed from captions, stay.
"""

from __future__ import annotations

import html
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import escape

from index_build.base import takedown
from index_build.base.batches import list_batches, whole_outcomes
from index_build.base.changes import changing
from index_build.ledger import followers
from xmore.files.errors import ArtifactError, LockedError, XmoreError, is_shortage
from xmore.memory.pairs import KEY, batches_of
from xmore.results.absent import REMOVABLE
from xmore.results.runs import all_runs
from xmore.results.views import VIEWS, write_views
from xmore.store.text_parts import holds_any
from xmore.store.texts import TEXTS, drop_part

PAGES = (".html", ".csv", ".tsv", ".md", ".svg", ".json", ".jsonl", ".txt")
OURS = {"store", "prefect", "reference"}  # folders of results that are not searched for texts
SHORTEST, SHOWN = 8, 200  # characters of a caption that are searched for in pages


@dataclass(frozen=True)
class Trace:
    """A file or a folder that holds something of a row that was taken down."""

    path: Path
    what: str
    runs: tuple[str, ...] = ()  # those that cannot be drawn again without it


@dataclass
class _Rows:
    """What is known of the rows: keys of images, captions, and other texts to search for."""

    keys: set[str]
    captions: set[str] = field(default_factory=set)
    urls: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)  # the keys of which the caption is known
    met: set[str] = field(default_factory=set)  # the keys that results hold


def find_traces(memory: Path, results: Path) -> list[Trace]:
    """Return what a results folder holds of the rows that a memory has taken down.

    Reads every part that can hold one, and all pages. Memory: one part, one page. Raises
    SnapshotError, and LockedError while a re-index runs.
    """
    with changing(memory, "a re-index is running. Wait for it to end, then try again."):
        rows = _taken(memory)
    if not rows.keys and not rows.urls:
        return []
    readers = defaultdict[str, list[str]](list)
    runs = all_runs(results)
    for run in runs:
        for ref in {ref.path for ref in run.artifacts}:
            readers[ref].append(run.name)
    found = []
    for folder in sorted((results / "store").glob("[!.]*/*/*")):
        if folder.parts[-3] != TEXTS and any(list(_hits(folder, rows))):  # all: for `met`
            what = f"{folder.parts[-3]} of {folder.parts[-2]}"
            found.append(Trace(folder, what, tuple(readers[str(folder)])))
    for path in sorted((results / "cache").glob("*.parquet")):
        if _part_holds(path, rows):
            found.append(Trace(path, "cached list of a tar"))
    for path in sorted((results / "cache").glob("pairs-*.arrow")):
        if _pairs_hold(path, rows):
            found.append(Trace(path, "cached captions of a snapshot"))
    prefixes = {run.config.get("retrieval", {}).get("caption_prefix") or "" for run in runs}
    found += _texts(results / "store" / TEXTS, rows, prefixes | {""})
    pages = dict.fromkeys(
        results / "runs" / name / "report" for trace in found for name in trace.runs
    )
    pages |= dict.fromkeys(_pages(results, rows))
    return [Trace(path, "page") for path in pages if path.exists()] + found


def remove_traces(results: Path, traces: list[Trace]) -> None:
    """Delete what was found. Raises LockedError while a run of this results folder runs."""
    runs = all_runs(results)
    running = [run.name for run in runs if run.status == "running"]
    if running:
        raise LockedError(f"{results}: run {running[0]} is running. Wait for it to end.")
    for trace in traces:
        if TEXTS in trace.path.parts and trace.path.is_file():
            with suppress(XmoreError):  # damaged: its parts are not read
                drop_part(trace.path.parent, trace.path.name)
        if trace.path.is_dir():
            shutil.rmtree(trace.path)
        else:
            trace.path.unlink(missing_ok=True)
    named = {name for trace in traces for name in trace.runs}
    for run in runs:
        if run.name in named and (run.path / VIEWS).exists():
            write_views(run)  # without what was deleted


def _taken(memory: Path) -> _Rows:
    """Return what the memory knows of the rows that it has taken down."""
    known = list(takedown.current(memory))
    rows = _Rows({value for value in known if "://" not in value})
    rows.urls = {value for value in known if "://" in value}
    for images in followers(memory, known).values():
        rows.keys |= set(images)
    wanted = pa.array(sorted(rows.keys), pa.string())
    for batch in list_batches(memory) if known else ():
        for path in whole_outcomes(batch):
            names = pq.read_schema(path).names
            names = [n for n in ("memory_key", "row_key", "caption", "url") if n in names]
            table = pq.read_table(path, columns=names, partitioning=None)
            hit = pc.or_(pc.is_in(table["memory_key"], wanted), pc.is_in(table["row_key"], wanted))
            for row in table.filter(hit).to_pylist():
                rows.keys |= {row["memory_key"] or row["row_key"]}
                rows.urls |= {row["url"]} if row.get("url") else set()
                if row.get("caption") is not None:  # gc deletes it
                    rows.captions |= {row["caption"]} - {""}
                    rows.told.add(row["memory_key"])
    return rows


def _hits(folder: Path, rows: _Rows) -> Iterator[bool]:
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            yield _part_holds(path, rows)
        except (OSError, pa.ArrowException) as error:
            if is_shortage(error):
                raise
            yield folder.parts[-3] in REMOVABLE


def _part_holds(path: Path, rows: _Rows) -> bool:
    """Return whether a part holds one of the keys; its captions of them are added to `rows`."""
    names = pq.read_schema(path).names
    name = next((name for name in ("memory_keys", "memory_key") if name in names), None)
    if name is None:
        return False
    text = next((name for name in ("captions", "caption") if name in names), None)
    table = pq.read_table(path, columns=[name, *([text] if text else [])], partitioning=None)
    keys = _flat(table[name])
    hit = pc.is_in(keys, pa.array(sorted(rows.keys), pa.string()))
    if not pc.any(hit).as_py():
        return False
    met = keys.filter(hit).to_pylist()
    rows.met.update(met)
    if text:
        rows.captions.update(filter(None, _flat(table[text]).filter(hit).to_pylist()))
        rows.told.update(met)
    return True


def _pairs_hold(path: Path, rows: _Rows) -> bool:
    """Return whether a cached file of captions holds one of the keys. Memory: a record batch."""
    try:
        keys = pa.array(sorted(rows.keys), pa.string())
        return any(pc.any(pc.is_in(batch[KEY], keys)).as_py() for batch in batches_of(path))
    except (OSError, pa.ArrowException):
        return True  # it cannot be told, and is made again


def _flat(column: pa.ChunkedArray) -> pa.Array:
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return array.flatten() if pa.types.is_list(array.type) else array


def _texts(store: Path, rows: _Rows, prefixes: set[str]) -> Iterator[Trace]:
    """Yield the parts of the text store that hold a caption, or may: not each caption is known.

    All candidates' captions are encoded, but only those that were kept are in an artifact.
    """
    texts = [prefix + caption for prefix in prefixes for caption in rows.captions]
    untold = bool(rows.met - rows.told)
    for path in sorted(store.glob("*/*/part-*")):
        try:
            holds = holds_any(path, texts)
        except ArtifactError:
            holds = True  # it cannot be told
        if holds or untold:
            yield Trace(path, f"texts of {path.parts[-3]}{'' if holds else ', perhaps'}")


def _pages(results: Path, rows: _Rows) -> Iterator[Path]:
    """Yield pages that have a caption or a URL; of a run's report, its folder."""
    texts = [text for text in rows.captions | rows.urls if len(text) >= SHORTEST]
    needles = {form.encode() for text in texts for form in _forms(text[:SHOWN])}
    for path in sorted(results.rglob("*")) if needles else ():
        inside = path.relative_to(results).parts
        if inside[0] in OURS or path.suffix not in PAGES or path.name == "run.json":
            continue
        data = path.read_bytes() if path.is_file() else b""
        if any(needle in data for needle in needles):
            report = len(inside) > 3 and inside[0] == "runs" and inside[2] == "report"
            yield results.joinpath(*inside[:3]) if report else path


def _forms(text: str) -> set[str]:
    """Return how a text may be written in a page: plain, in HTML, and in JSON in HTML."""
    plain = json.dumps(text, ensure_ascii=False)[1:-1]
    in_json = json.dumps(text)[1:-1]
    in_page = in_json
    for mark in "<>&'":
        in_page = in_page.replace(mark, f"\\u{ord(mark):04x}")
    return {text, plain, in_json, in_page, html.escape(text), str(escape(text))}
