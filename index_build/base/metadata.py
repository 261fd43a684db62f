"""Metadata: those of a snapshot are whole; those of clip-retrieval may differ in types."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import has_digest
from xmore.files.errors import SnapshotError, first_line
from xmore.files.tables import as_text
from xmore.memory.snapshot import Snapshot, read_snapshot


def whole_metadata(snapshot: Path) -> list[Path]:
    """Return the metadata files of the snapshot in a folder; each is read once a process.

    Raises SnapshotError if one is not as it was published: what it says of a row may be wrong.
    """
    files = read_snapshot(snapshot).manifest["files"]
    files = [file for file in files if file["file"].startswith("metadata/")]
    for file in files:
        if not has_digest(snapshot / file["file"], file["sha256"]):
            raise SnapshotError(
                f"{snapshot / file['file']}: its bytes are not those that were published. `xmore "
                f"memory verify {snapshot.parents[1]} --all --repair` moves its snapshot aside."
            )
    return sorted(snapshot / file["file"] for file in files)


def check_metadata(adopted: Snapshot) -> None:
    """Raise SnapshotError if the columns of an adopted folder's files cannot become one table."""
    first, *others = adopted.shards
    schema = plain(pq.read_schema(first.metadata).empty_table()).schema
    for shard in others:
        theirs = plain(pq.read_schema(shard.metadata).empty_table()).schema
        try:
            schema = pa.unify_schemas([schema, theirs], promote_options="permissive")
        except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
            raise SnapshotError(
                f"{shard.metadata}: a column has another type than in the files before it "
                f"({first_line(error)}). Write it as they do, or remove it."
            ) from error


def plain(table: pa.Table) -> pa.Table:
    """Return a table with one type for all kinds of strings."""
    for place, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            text = as_text(table.column(place), field.name)
            table = table.set_column(place, field.name, text)
    return table
