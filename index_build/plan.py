"""What a re-index comes to, before any of it is done: its digests, and where each step works.

    <memory>/CURRENT                      the snapshot to read
    <memory>/snapshots/<name>/            see xmore/memory.py
    <memory>/making/rows-<digest>/        00000.parquet ...   the rows selected, one file a shard
    <memory>/making/images-<digest>/      00000.tar ...       img2dataset's webdataset shards
    <memory>/making/features-<digest>/    img_emb/ text_emb/ metadata/ image.index, to be published

Shard n has the same number in all of them. A digest is of all that a step's result rests on, so
a changed list, selection or model starts a folder of its own and never goes on with another's.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from index_build.folder import Pairs, read_pairs
from index_build.urls import list_files, rows_digest
from xmore.config import ReindexConfig
from xmore.digest import digest_of
from xmore.errors import SnapshotError
from xmore.memory import open_snapshot, resolve_current
from xmore.models import ModelCard, describe_model


@dataclass(frozen=True)
class Plan:
    """A config with all that it names looked up."""

    config: ReindexConfig
    model: ModelCard
    pairs: Pairs | None  # of an image folder; none for a URL list
    rows: str  # digests of what the steps make
    images: str
    features: str

    @property
    def digest(self) -> str:
        """What the snapshot is made from."""
        return digest_of([self.features, self.config.index.model_dump()])

    @property
    def rows_folder(self) -> Path:
        return self._work("rows", self.rows)

    @property
    def images_folder(self) -> Path:
        return self._work("images", self.images)

    @property
    def features_folder(self) -> Path:
        return self._work("features", self.features)

    @property
    def source(self) -> Path:
        """What the user named as the source, for messages."""
        return self.config.urls.path if self.config.urls else self.config.images.captions  # type: ignore[union-attr]

    def _work(self, kind: str, digest: str) -> Path:
        return self.config.memory / "making" / f"{kind}-{digest[:16]}"


def make_plan(config: ReindexConfig) -> Plan:
    """Look up the source and the model. Raises DatasetError or ModelError."""
    model = describe_model(config.model_name, config.model, config.cache)
    if config.images:
        pairs = read_pairs(config.images, config.cache)
        rows = images = digest_of([pairs.digest, config.shard_rows])
    else:
        assert config.urls  # the config's own rule
        pairs = None
        files = list_files(config.urls.path)
        rows = digest_of([rows_digest(config.urls, files, config.cache), config.shard_rows])
        # What changes an image's bytes or lets it through; not how fast it is fetched.
        bounds = config.download.model_dump(
            include={"max_bytes", "max_pixels", "image_size", "honour_opt_out"}
        )
        images = digest_of([rows, bounds])
    features = digest_of([images, model.identity])
    return Plan(config, model, pairs, rows, images, features)


def already_published(plan: Plan) -> str | None:
    """The snapshot that was made from this plan, if it is whole: CURRENT's, or one beside it."""
    for name in _snapshots(plan.config.memory):
        with suppress(SnapshotError, OSError, ValueError):
            manifest = plan.config.memory / "snapshots" / name / "manifest.json"
            if json.loads(manifest.read_bytes())["plan"] == plan.digest:
                open_snapshot(plan.config.memory, name)
                return name
    return None


def stop_if_too_many(plan: Plan, failures: Counter[str], asked: int) -> None:
    """Raise SnapshotError where more rows have failed than the config allows."""
    failed = failures.total()
    if failed == asked or failed > plan.config.max_rejected * asked:
        causes = ", ".join(f"{n} {cause}" for cause, n in failures.most_common())
        if plan.pairs and None in plan.pairs.hashes:
            first = plan.pairs.paths[plan.pairs.hashes.index(None)]
            causes += f"; the first is {plan.pairs.folder / first}"
        raise SnapshotError(
            f"{plan.source}: {failed} of {asked} rows failed ({causes}), more than "
            f"{plan.config.max_rejected:.0%}. Nothing was published. Mend them or raise "
            "`max_rejected`; run again to go on."
        )


def _snapshots(memory: Path) -> Iterator[str]:
    with suppress(SnapshotError):
        yield resolve_current(memory)
    folder = memory / "snapshots"
    if folder.is_dir():
        yield from sorted(path.name for path in folder.iterdir() if path.is_dir())
