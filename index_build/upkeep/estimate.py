"""Estimate a re-index before anything is downloaded: rows, bytes, hours, disk space."""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from index_build.base import history
from index_build.base.batches import list_batches
from index_build.base.features import to_embed
from index_build.ledger import open_ledger
from index_build.plan import ReindexPlan
from index_build.sources.look_up import Wanted
from xmore.files.progress import working
from xmore.images.readers import ListedImages
from xmore.models.batch_size import settled
from xmore.models.device import pick_device
from xmore.models.loaded import load_encoder

if TYPE_CHECKING:
    from xmore.models.encoder import OpenClipEncoder

# Used if no run of this memory has measured them; docs/scale.md says how these were measured.
ASSUMED = {"download": 172.0, "image_bytes": 20_000.0}  # images per second and process; bytes each
PROBE = 128  # images embedded to measure the model on this machine, at most
FIRST = 16  # images embedded before
METADATA_BYTES = 390  # per row: key, URL, caption compressed; key and caption not, in pairs.arrow


@dataclass(frozen=True)
class SourcePlan:
    """One source's rows."""

    name: str
    kind: str
    asked: int  # requested rows
    filtered: Counter[str]
    new: int  # rows to process


@dataclass(frozen=True)
class ReindexEstimate:
    """The rows that the next re-index would process, and its cost."""

    sources: list[SourcePlan]
    to_download: int
    to_embed: int
    rates: dict[str, tuple[float, str]]  # rate and where it comes from
    download_bytes: float
    disk_bytes: float
    hours: dict[str, float]


def estimate(plan: ReindexPlan, wanted: list[Wanted]) -> ReindexEstimate:
    """Count the new rows and multiply by measured rates. Memory: DuckDB's, and the model."""
    config = plan.config
    with open_ledger(config.memory, wanted, plan.refused, config.download) as ledger:
        sources = [
            SourcePlan(
                name=want.listed.source.label,
                kind=want.listed.source.kind,
                asked=want.asked,
                filtered=want.filtered,
                new=ledger.count_new(i),
            )
            for i, want in enumerate(wanted)
        ]
    to_download = sum(source.new for source in sources if source.kind == "urls")
    unembedded = sum(
        len(to_embed(batch, batch.features(plan.model))) for batch in list_batches(config.memory)
    )
    fresh = sum(source.new for source in sources if source.kind != "clip_retrieval")
    todo = fresh + unembedded * config.shard_rows
    encoder = load_encoder(plan.model, pick_device(config.execution.device))
    known = history.rates(config.memory)
    with working("timing the model"):
        embed, dim, source = _probe(encoder, plan, min(PROBE, max(todo, FIRST)))
    rates = {
        "download": _rate(known, "download", ASSUMED["download"] * config.download.processes),
        "image_bytes": _rate(known, "image_bytes", ASSUMED["image_bytes"]),
        "embed": (known["embed"], "earlier runs") if "embed" in known else (embed, source),
    }
    size = rates["image_bytes"][0] * to_download
    vectors = 2 * dim * (2 if encoder.has_text else 1) + 4 * dim  # float16 each, float32 index
    return ReindexEstimate(
        sources=sources,
        to_download=to_download,
        to_embed=todo,
        rates=rates,
        download_bytes=size,
        disk_bytes=size + todo * (vectors + METADATA_BYTES),
        hours={
            "download": to_download / rates["download"][0] / 3600,
            "embed": todo / rates["embed"][0] / 3600,
        },
    )


def _rate(known: dict[str, float], name: str, assumed: float) -> tuple[float, str]:
    return (known[name], "earlier runs") if name in known else (assumed, "assumed")


@dataclass(frozen=True)
class _Noise:
    """Reads a noise image of the web's typical size, to time a model with."""

    data: bytes

    def read(self, uri: str) -> bytes:
        return self.data

    def file_of(self, uri: str) -> None:
        return None

    def only(self, uris: Iterable[str]) -> _Noise:
        return self


def _probe(encoder: OpenClipEncoder, plan: ReindexPlan, count: int) -> tuple[float, int, str]:
    """Embed some images on this machine -> images per second with decoding, dim, and the source."""
    from xmore.models.features import encode_images  # imports torch

    pixels = np.random.default_rng(0).integers(0, 256, (256, 340, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    execution = plan.config.execution
    sizes = settled(execution.batch_size, [plan.model], execution.device), execution.workers
    few, many = (
        ListedImages(_Noise(buffer.getvalue()), [""] * n, [None] * n) for n in (FIRST, count)
    )
    encode_images(few, encoder, *sizes)  # the first pass is slower
    begun = time.perf_counter()
    unit = encode_images(many, encoder, *sizes).unit
    return count / (time.perf_counter() - begun), unit.shape[1], f"{count} images, now"
