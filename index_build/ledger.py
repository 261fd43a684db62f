"""The ledger: which of the rows that the sources hold now are new, done or failed.

It is not stored. It is computed each time from the wanted rows, the batches' outcomes and their
features, as DuckDB tables in a scratch file. Memory: MEMORY_LIMIT for any number of rows.

    wanted   row_key, source, taken; cause, tries and retryable of its last attempt
    pieces   row_key, memory_key, batch, shard, position of each row that has features
    kept     batch, shard, position of the rows of the snapshot, each image once
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from index_build.base import takedown
from index_build.base.batches import Batch, list_batches, whole_outcomes
from index_build.base.features import read_record
from index_build.base.tables import parquet, scratch_db
from index_build.download.fetch import PRIVATE, RETRYABLE
from index_build.sources.look_up import Wanted
from xmore.config.memory import DownloadConfig
from xmore.files.sql import quote, quote_all
from xmore.models.spec import ModelCard

BOUNDED = ("too many bytes", "too many pixels", "forbidden by the server's X-Robots-Tag")
HOSTS = 20


@dataclass(frozen=True)
class Totals:
    """The outcomes of the requested rows."""

    asked: int  # requested rows
    rows: int  # in the snapshot
    failures: Counter[str]
    filtered: Counter[str]
    without_caption: int
    retryable: int  # failed rows that a later run requests again
    hosts: list[tuple[str, int, int]]  # the most common: name, rows attempted, images received


@dataclass(frozen=True)
class Ledger:
    """An open ledger."""

    db: duckdb.DuckDBPyConnection
    memory: Path
    wanted: list[Wanted]
    download: DownloadConfig

    def new_rows(self, source: int) -> str:
        """Return SQL for a source's rows to process: its columns, and `tries` so far."""
        table = parquet(self.wanted[source].files, "filename = true, file_row_number = true")
        by_key = self.wanted[source].listed.source.urls
        return f"""
            select list.* exclude (filename, file_row_number), coalesce(wanted.tries, 0) as tries
            from {table} as list
            join wanted using (row_key)
            where wanted.source = {source} and not wanted.taken
              and (wanted.tries is null or wanted.retryable)
            order by {"row_key" if by_key else "list.filename, list.file_row_number"}
        """

    def count_new(self, source: int) -> int:
        """Return the number of a source's rows to process."""
        return _one(
            self.db,
            f"select count(*) from wanted where source = {source} and not taken "
            "and (tries is null or retryable)",
        )

    def read_outcomes(self, taken: list[str]) -> None:
        """Read the batches' outcomes into the table `wanted`."""
        batches = list_batches(self.memory)
        self.db.execute("create or replace table taken (value varchar)")
        if forms := sorted(takedown.all_forms(taken)):
            self.db.executemany("insert into taken values (?)", [[form] for form in forms])
        self.db.execute(_ATTEMPTED.format(outcomes=_outcomes(batches)))
        bounded = [b.name for b in batches if b.bounds != bounds_of(self.download)]
        listed = " union all by name ".join(
            f"select {i} as source, * from ({_slim(want)})" for i, want in enumerate(self.wanted)
        )
        self.db.execute(
            _WANTED.format(
                listed=listed,
                url=_REQUESTED if taken else "url",
                retryable=quote_all(sorted(RETRYABLE)),
                tries=self.download.tries,
                bounded=quote_all(BOUNDED),
                private=quote(PRIVATE) if self.download.allow_private else "null",
                changed=quote_all(bounded) or "null",
            )
        )

    def read_features(self, model: ModelCard) -> None:
        """Read which rows have features into the tables `pieces` and `kept`."""
        batches = list_batches(self.memory)
        files = [
            path
            for batch in batches
            for path in sorted((batch.features(model) / "metadata").glob("*.parquet"))
        ]
        self.db.execute(_PIECES.format(metadata=_metadata(files)))
        self.db.execute("create or replace table rejected (row_key varchar, cause varchar)")
        for batch in batches:
            for record in sorted((batch.features(model) / "done").glob("*.json")):
                if causes := read_record(record.parents[1], int(record.stem))["rejected"]:
                    self.db.executemany("insert into rejected values (?, ?)", list(causes.items()))
        self.db.execute(_KEPT)

    def kept_shards(self) -> Iterator[tuple[str, int, list[int]]]:
        """Yield (batch, shard, positions) of the snapshot's rows, in their order."""
        cursor = self.db.cursor()
        cursor.execute(
            "select batch, shard, list(position order by position) from kept "
            "group by batch, shard order by batch, shard"
        )
        while rows := cursor.fetchmany(16):
            yield from rows

    def count_shards(self) -> int:
        """Return the number of shards that the snapshot will have."""
        return _one(self.db, "select count(*) from (select distinct batch, shard from kept)")

    def outcome_counts(self) -> tuple[Counter[str], int]:
        """Return failures by cause, before anything is embedded, and the number requested."""
        failures = sum((want.failures for want in self.wanted), Counter[str]())
        failures += Counter(dict(self.db.execute(_CAUSES).fetchall()))
        asked = sum(want.asked for want in self.wanted)
        unique = _one(self.db, "select count(*) from wanted")
        twice = asked - sum(want.failures.total() for want in self.wanted) - unique
        return failures + Counter({"in an earlier source": twice}), asked

    def totals(self) -> Totals:
        """Return the outcomes of all rows; `rows` and the failures add up to the requested rows."""
        failures, asked = self.outcome_counts()
        failures += Counter(dict(self.db.execute(_NOT_KEPT).fetchall()))
        rows, without = self.db.execute(
            "select count(*), count(*) filter (no_caption) from kept"
        ).fetchall()[0]
        hosts = self.db.execute(_HOSTS.format(limit=HOSTS)).fetchall()
        filtered = sum((want.filtered for want in self.wanted), Counter[str]())
        retryable = _one(self.db, "select count(*) from wanted where not taken and retryable")
        return Totals(asked, rows, failures, filtered, without, retryable, hosts)


def followers(memory: Path, taken: list[str]) -> dict[str, list[str]]:
    """Return the sha256 of the images of the rows that each URL or row_key in `taken` names."""
    found: dict[str, list[str]] = {}
    if not taken:
        return found
    with scratch_db(memory / "making" / "followers") as db:
        db.create_function("requested", takedown.requested, ["VARCHAR"], "VARCHAR")
        db.execute("create table taken (form varchar, value varchar)")
        forms = map(list, takedown.all_forms(taken).items())
        db.executemany("insert into taken values (?, ?)", list(forms))
        query = _FOLLOWERS.format(outcomes=_outcomes(list_batches(memory)), url=_REQUESTED)
        for value, key in db.execute(query).fetchall():
            found.setdefault(value, []).append(key)
    return found


@contextmanager
def open_ledger(
    memory: Path, wanted: list[Wanted], taken: list[str], download: DownloadConfig
) -> Iterator[Ledger]:
    """Open a ledger over the files that are on disk now."""
    with scratch_db(memory / "making" / "ledger") as db:
        db.create_function("requested", takedown.requested, ["VARCHAR"], "VARCHAR")
        ledger = Ledger(db, memory, wanted, download)
        ledger.read_outcomes(taken)
        yield ledger


def bounds_of(download: DownloadConfig) -> dict[str, object]:
    """Return the bounds of a download. If they change, rows that they stopped are retried."""
    return download.model_dump(
        include={"max_bytes", "max_pixels", "honour_opt_out", "opt_out_directives", "user_agent"}
    )


def _outcomes(batches: list[Batch]) -> str:
    files = [path for batch in batches for path in whole_outcomes(batch)]
    if not files:
        return (
            "select null::varchar as row_key, null::varchar as memory_key, null::varchar as cause, "
            "null::integer as tries, null::varchar as host, null::varchar as url, "
            "null::varchar as batch where false"
        )
    return (
        "select row_key, memory_key, cause, tries, host, url, parse_path(filename)[-3] as batch "
        f"from (from {parquet(files, 'filename = true')} "
        "union all by name select null::varchar as url where false)"  # local sources have none
    )


def _metadata(files: list[Path]) -> str:
    if not files:
        return (
            "select null::varchar as row_key, null::varchar as memory_key, false as no_caption, "
            "null::varchar as batch, 0 as shard, 0 as position where false"
        )
    return (
        "select row_key, memory_key, trim(caption) = '' as no_caption, "
        "parse_path(filename)[-4] as batch, parse_filename(filename, true)[-5:]::integer as shard, "
        "file_row_number as position "
        f"from {parquet(files, 'filename = true, file_row_number = true')}"
    )


def _slim(want: Wanted) -> str:
    columns = "row_key, url, null::varchar as memory_key"
    if not want.listed.source.urls:
        columns = "row_key, null::varchar as url, memory_key"
    if not want.files:
        return (
            f"select {columns} from (select null as row_key, '' as url, '' as memory_key) limit 0"
        )
    return f"select {columns} from {parquet(want.files)}"


def _one(db: duckdb.DuckDBPyConnection, query: str) -> int:
    return db.execute(query).fetchall()[0][0]


_ATTEMPTED = """
    create or replace table attempted as
    select row_key, unnest(arg_max({{'memory_key': memory_key, 'cause': cause, 'tries': tries,
                                     'host': host, 'batch': batch}}, batch))
    from ({outcomes}) group by row_key
"""

# Python's function is called for the few that need it.
_REQUESTED = (
    f"case when regexp_full_match(url, {quote(takedown.PLAIN)}) then url else requested(url) end"
)

_FOLLOWERS = """
    select distinct value, memory_key from ({outcomes}) join taken on form in (row_key, {url})
    where memory_key is not null and memory_key <> value order by all
"""

_WANTED = """
    create or replace table wanted as
    with listed as (
        select row_key, min(source) as source, any_value(url) as url,
               any_value(memory_key) as memory_key
        from ({listed}) group by row_key
    )
    select listed.row_key, source, attempted.cause, attempted.tries, attempted.host,
           listed.row_key in (from taken) or coalesce({url} in (from taken), false)
               or coalesce(coalesce(attempted.memory_key, listed.memory_key) in (from taken), false)
               as taken,
           coalesce(
               attempted.cause = 'taken down'
               or attempted.tries < {tries}
                   and (attempted.cause in ({retryable}) or attempted.cause like 'HTTP 5%')
               or attempted.cause = {private}
               or attempted.cause in ({bounded}) and attempted.batch in ({changed}),
               false) as retryable
    from listed left join attempted using (row_key)
"""

_PIECES = "create or replace table pieces as {metadata}"

_KEPT = """
    create or replace table kept as
    select batch, shard, position, row_key, no_caption
    from pieces join wanted using (row_key)
    where not taken
    qualify row_number() over (partition by memory_key order by batch, shard, position) = 1
"""

# Failures found in the list itself, by a download, or while a local image was read.
_CAUSES = """
    select case when taken then 'taken down' when tries is null then 'not tried' else cause end,
           count(*)
    from wanted where taken or tries is null or cause is not null group by 1
"""

# Rows that have an image but are not in the snapshot.
_NOT_KEPT = """
    select coalesce(rejected.cause, 'same bytes as another row'), count(*)
    from wanted left join (select distinct on (row_key) * from rejected) as rejected using (row_key)
    where not taken and tries is not null and wanted.cause is null
      and row_key not in (select row_key from kept)
    group by 1
"""

_HOSTS = """
    select host, count(*), count(*) filter (cause is null) from wanted
    where host is not null group by host order by count(*) desc, host limit {limit}
"""
