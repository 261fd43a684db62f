"""Batches: what one run found new in one source, kept for as long as a row of it is wanted.

    <memory>/batches/00003-laion/
        batch.json                    source, kind, number of shards, whether it is closed
        rows/00000.parquet            what is still to be fetched; gone when the batch is closed
        images/00000.tar              img2dataset's webdataset shards, of a URL list
        outcomes/00000.parquet        each row tried: memory_key, or the cause of its failure
        features-<model>/             img_emb/ text_emb/ metadata/ done/, a file each a shard

A shard counts as tried when its outcomes are there. A run that was stopped leaves its batch open:
the next one goes on with it, or, if by then the sources differ, closes it with what is whole.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from xmore.files.digests import digest_of
from xmore.files.errors import SnapshotError
from xmore.files.paths import write_whole
from xmore.models.spec import ModelCard


@dataclass(frozen=True)
class Batch:
    """One batch of one memory."""

    path: Path
    source: str  # its label
    kind: str  # urls, images, tars or clip_retrieval
    root: str | None  # folder that holds the images of a source that is here already
    asked: str  # digest of what the run was asked for
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
        """Where this batch's features of a model lie."""
        return self.path / features_name(model.identity)

    def tried(self) -> list[int]:
        """Numbers of the shards whose outcomes are known."""
        return sorted(int(path.stem) for path in self.outcomes.glob("*.parquet"))


def features_name(identity: dict[str, Any]) -> str:
    """The name of the folder of a model's features, by its weights and preprocessing."""
    return f"features-{digest_of(identity)[:16]}"


def list_batches(memory: Path) -> list[Batch]:
    """The batches of a memory, oldest first. Raises SnapshotError for one that cannot be read."""
    return [
        read_batch(path)
        for path in sorted((memory / "batches").glob("[0-9]*"))
        if (path / "batch.json").exists()
    ]


def read_batch(path: Path) -> Batch:
    """Open one batch; raises SnapshotError."""
    try:
        return Batch(path, **json.loads((path / "batch.json").read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise SnapshotError(
            f"{path / 'batch.json'}: not a batch's description ({error}). Remove {path} to have "
            "its rows fetched anew."
        ) from error


def new_path(memory: Path, source: str) -> Path:
    """Where the next batch goes: numbers rise for ever, so that names sort by age."""
    numbers = [int(path.name[:5]) for path in (memory / "batches").glob("[0-9]*")]
    return memory / "batches" / f"{max(numbers, default=0) + 1:05d}-{source}"


def write_batch(batch: Batch) -> None:
    """Say what a batch is; a batch exists once this has been written."""
    facts = {key: value for key, value in asdict(batch).items() if key != "path"}
    write_whole(batch.path / "batch.json", json.dumps(facts, sort_keys=True).encode())


def close(batch: Batch) -> None:
    """End a batch with the shards that were tried; the rest of its rows are as if never asked."""
    if batch.closed:
        return
    if not batch.tried():
        shutil.rmtree(batch.path)
        return
    write_batch(replace(batch, closed=True))
    shutil.rmtree(batch.rows, ignore_errors=True)
    for path in batch.images.parent.glob("images.*"):
        path.unlink()
    tried = {f"{number:05d}" for number in batch.tried()}
    for path in batch.images.glob("*"):
        if path.is_dir():  # img2dataset's, of a download that was killed
            shutil.rmtree(path)
        elif path.suffix != ".tar" or path.stem not in tried:  # its own records
            path.unlink()
