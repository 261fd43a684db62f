"""Batches: the new rows of one source in one run, kept as long as one of them is wanted.

    <memory>/batches/00003-laion/
        batch.json                    source, kind, number of shards, whether it is closed
        rows/00000.parquet            rows to process; deleted when the batch is closed
        images/00000.tar              img2dataset's webdataset shards, of a URL list
        outcomes/00000.parquet        each row attempted: memory_key, or the cause of its failure
        outcomes/00000.json           sha256 of the outcomes and of the tar; older shards have none
        features-<model>/             img_emb/ text_emb/ metadata/ done/, one file each per shard

A shard counts as attempted when its outcomes exist. A stopped run leaves its batch open. The next
run resumes it, or closes it with its complete shards if the sources have changed since.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from index_build.base.tables import write_table
from xmore.files.digests import digest_file, digest_of, has_digest
from xmore.files.errors import SnapshotError, is_shortage
from xmore.files.paths import remove_folder, sweep, write_whole
from xmore.files.sealed import sealed, unsealed
from xmore.models.spec import ModelCard

DESCRIPTION = "batch.json"


@dataclass(frozen=True)
class Batch:
    """One batch of one memory."""

    path: Path
    source: str  # its label
    kind: str  # urls, images, tars or clip_retrieval
    root: str | None  # folder that holds the images of a local source
    asked: str  # the plan's `selection_digest`
    bounds: dict[str, Any]  # of the download
    shards: int
    closed: bool = False

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def rows(self) -> Path:
        return self.path / "rows"

    @property
    def images(self) -> Path:
        return self.path / "images"

    @property
    def outcomes(self) -> Path:
        return self.path / "outcomes"

    def features(self, model: ModelCard) -> Path:
        """Folder of this batch's features under a model."""
        return self.path / features_name(model.identity)

    def outcome(self, number: int) -> Path:
        """Path of the outcomes of a shard's rows."""
        return self.outcomes / f"{number:05d}.parquet"

    def sums(self, number: int) -> Path:
        """Path of the checksums of a shard's outcomes and tar."""
        return self.outcomes / f"{number:05d}.json"

    def tar(self, number: int) -> Path:
        """Path of a shard's downloaded images; other sources have none."""
        return self.images / f"{number:05d}.tar"

    def attempted(self) -> list[int]:
        """Return the numbers of the shards whose outcomes are known."""
        return sorted(int(path.stem) for path in self.outcomes.glob("*.parquet"))


def features_name(identity: dict[str, Any]) -> str:
    """Return the name of the folder of a model's features, by its weights and preprocessing."""
    return f"features-{digest_of(identity)[:16]}"


def list_batches(memory: Path) -> list[Batch]:
    """Return a memory's batches, oldest first. Raises SnapshotError if one cannot be read."""
    return [
        read_batch(path)
        for path in sorted((memory / "batches").glob("[0-9]*"))
        if (path / DESCRIPTION).exists()
    ]


def read_batch(path: Path) -> Batch:
    """Open one batch. Raises SnapshotError."""
    try:
        return Batch(path, **unsealed((path / DESCRIPTION).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        if is_shortage(error):
            raise
        raise SnapshotError(
            f"{path / DESCRIPTION}: not a batch's description ({error}). `xmore memory verify "
            f"{path.parents[1]} --all --repair` puts a flipped bit right; else delete {path} to "
            "fetch its rows again."
        ) from error


def new_path(memory: Path, source: str) -> Path:
    """Return the next batch's path. Numbers are never reused, so that names sort by age."""
    numbers = [int(path.name[:5]) for path in (memory / "batches").glob("[0-9]*")]
    return memory / "batches" / f"{max(numbers, default=0) + 1:05d}-{source}"


def clear_unfinished(memory: Path) -> None:
    """Delete the folders that killed processes left before they were batches, or after."""
    for path in (memory / "batches").glob("[0-9]*"):
        if not (path / DESCRIPTION).exists():
            shutil.rmtree(path)


def write_batch(batch: Batch) -> None:
    """Write a batch's description. A batch exists once this is written."""
    facts = {key: value for key, value in asdict(batch).items() if key != "path"}
    write_whole(batch.path / DESCRIPTION, sealed(facts))


def write_outcomes(batch: Batch, number: int, outcomes: pa.Table) -> None:
    """Write the outcomes of a shard whose tar, if it has one, is complete; and their checksums.

    If this is killed, the shard has no checksums until the next run writes it again.
    """
    batch.sums(number).unlink(missing_ok=True)
    path = batch.outcome(number)
    write_table(path, outcomes)
    write_whole(batch.sums(number), sums_of(path, batch.tar(number)))


def sums_of(outcomes: Path, tar: Path) -> bytes:
    """Return the content of a shard's file of checksums."""
    files = {"outcomes": outcomes, "images": tar}
    return sealed({name: digest_file(path) for name, path in files.items() if path.exists()})


def damaged_outcomes(batch: Batch, number: int, *, images: bool = True) -> Iterator[Path]:
    """Yield which of a shard's outcomes, tar and checksums are not as they were written.

    Each is read once a process. A shard without checksums is of an older version: nothing is known.
    """
    path = batch.sums(number)
    if not path.exists():
        return
    try:
        sums = unsealed(path.read_bytes())
        outcomes, tar = sums["outcomes"], sums.get("images")
    except (ValueError, KeyError, TypeError, AttributeError):
        yield path
        return
    if not has_digest(batch.outcome(number), outcomes):
        yield batch.outcome(number)
    if images and tar and not has_digest(batch.tar(number), tar):
        yield batch.tar(number)


def check_outcomes(batch: Batch, number: int, *, images: bool = False) -> None:
    """Raise SnapshotError if a shard's outcomes, or its tar, are not as they were written."""
    for path in damaged_outcomes(batch, number, images=images):
        raise SnapshotError(
            f"{path}: its bytes are not those that were written. `xmore memory verify "
            f"{batch.path.parents[1]} --all --repair` moves its shard aside, and the next re-index "
            "requests its rows again."
        )


def whole_outcomes(batch: Batch) -> list[Path]:
    """Return the files of a batch's outcomes. Raises SnapshotError if one is damaged."""
    for number in batch.attempted():
        check_outcomes(batch, number)
    return [batch.outcome(number) for number in batch.attempted()]


def close(batch: Batch) -> None:
    """Close a batch with its attempted shards. Its other rows count as never attempted."""
    if batch.closed and not batch.rows.exists():
        return
    if not batch.attempted():
        (batch.path / DESCRIPTION).unlink()  # first: half a batch is none
        shutil.rmtree(batch.path)
        return
    write_batch(replace(batch, closed=True))
    sweep(batch.path)
    for path in batch.images.parent.glob("images.*"):
        path.unlink()
    attempted = {f"{number:05d}" for number in batch.attempted()}
    for path in batch.images.glob("*"):
        if path.is_dir():  # img2dataset's, of a killed download
            shutil.rmtree(path)
        elif path.suffix != ".tar" or path.stem not in attempted:  # img2dataset's own records
            path.unlink()
    remove_folder(batch.rows)  # last: while it is there, not all of this is done
