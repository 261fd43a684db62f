"""The plan of a re-index, made before anything else: its sources as they are now, and its digests.

    <memory>/CURRENT                  the snapshot to read
    <memory>/snapshots/<name>/        see xmore/memory/snapshot.py
    <memory>/batches/<n>-<source>/    see index_build/base/batches.py
    <memory>/history.jsonl            what was published when, see index_build/base/history.py
    <memory>/making/                  wanted rows and the snapshot being built; can be deleted

A snapshot is built from a plan: a changed list, selection, model or index is another plan.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from index_build.base import history, takedown
from index_build.base.spark import check_spark
from index_build.download.fetch import PRIVATE
from index_build.ledger import bounds_of
from index_build.sources.look_up import Listed, look_up
from xmore.config.memory import ReindexConfig
from xmore.files.digests import digest_of
from xmore.files.errors import SnapshotError, passed_over
from xmore.memory.snapshot import open_snapshot, read_snapshot, resolve_current
from xmore.models.spec import ModelCard, describe_model


@dataclass(frozen=True)
class ReindexPlan:
    """A config and everything that it names."""

    config: ReindexConfig
    model: ModelCard
    listed: list[Listed]
    taken: list[str]  # the take-downs that were named, by the memory's ledger or the config

    @property
    def refused(self) -> list[str]:
        """The take-downs, and the images that follow from them so far."""
        return sorted({*self.taken, *takedown.current(self.config.memory)})

    @property
    def selection_digest(self) -> str:
        """Digest of the wanted rows, the take-downs and the bounds of the download."""
        sources = [[listed.source.label, listed.digest] for listed in self.listed]
        return digest_of([sources, self.taken, bounds_of(self.config.download)])

    @property
    def digest(self) -> str:
        """Digest of everything that the snapshot is built from."""
        return digest_of([self.selection_digest, self.model.identity, self.config.index.wanted])

    @property
    def work(self) -> Path:
        """Folder in which the snapshot is built."""
        return self.config.memory / "making" / f"snapshot-{self.digest[:16]}"


def make_plan(config: ReindexConfig) -> ReindexPlan:
    """Look up sources and model. Raises ConfigError, DatasetError, ModelError, SnapshotError."""
    check_spark(config)
    listed = takedown.read_take_down(config.take_down)
    taken = sorted({*listed, *takedown.named(config.memory)})
    model = _as_before(config.memory, describe_model(config.model_name, config.model, config.cache))
    return ReindexPlan(config, model, [look_up(source, config) for source in config.sources], taken)


def already_published(plan: ReindexPlan) -> str | None:
    """Return the snapshot built from this plan, if it is complete and has no retryable rows."""
    memory = plan.config.memory
    for name in [*_current(memory), *history.names(memory)]:
        with passed_over(SnapshotError, OSError, ValueError):
            manifest = json.loads((memory / "snapshots" / name / "manifest.json").read_bytes())
            allowed = plan.config.download.allow_private and PRIVATE in manifest["failures"]
            if manifest["plan"] == plan.digest and not manifest["retryable"] and not allowed:
                open_snapshot(memory, name)
                return name
    return None


def stop_if_too_many(
    plan: ReindexPlan, failures: Counter[str], asked: int, first_bad: str = ""
) -> None:
    """Raise SnapshotError if more rows have failed than the config allows."""
    failed = failures.total() - failures["taken down"]
    if not asked or failed == asked or failed > plan.config.max_rejected * asked:
        causes = ", ".join(f"{n} {cause}" for cause, n in failures.most_common())
        first = plan.listed[0]
        if first.source.images and None in first.found.hashes:
            path = first.found.paths[first.found.hashes.index(None)]
            causes += f"; the first is {first.found.folder / path}"
        if first_bad:
            causes += f"; the first bad line is {first_bad}"
        places = ", ".join(listed.source.place for listed in plan.listed)
        todo = "Fix them or raise `max_rejected`"
        if failures[PRIVATE]:
            todo = "If the servers on private addresses are yours, set `allow_private: true` under "
            todo += "`download`; else fix the rows or raise `max_rejected`"
        raise SnapshotError(
            f"{places}: {failed} of {asked} rows failed ({causes or 'no rows'}), more than "
            f"{plan.config.max_rejected:.0%}. Nothing was published. {todo}, then run the same "
            "command again to resume."
        )


def _as_before(memory: Path, model: ModelCard) -> ModelCard:
    """Return a model as the newest snapshot identifies it, so that its features stay in use."""
    for name in history.names(memory):
        with suppress(SnapshotError):
            newest = read_snapshot(memory / "snapshots" / name)
            return model.as_in(newest.manifest["model"]["identity"])
    return model


def _current(memory: Path) -> list[str]:
    with suppress(SnapshotError):
        return [resolve_current(memory)]
    return []
