"""The configuration of a re-index: sources, download and index."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from xmore.config.execution import ExecutionConfig
from xmore.config.sources import SourceConfig
from xmore.files.anchored import AnchoredPath
from xmore.files.paths import RESULTS
from xmore.files.yaml import NAME, Section
from xmore.models.spec import ModelSpec

SPARK_KEY = r"IVF\d+,Flat|OPQ\d+_\d+,IVF\d+(_HNSW\d+)?,PQ\d+(x8)?"


class DownloadConfig(Section):
    """How images are downloaded, and the bounds that protect against untrusted servers."""

    distributor: Literal["multiprocessing", "pyspark"] = Field(
        "multiprocessing",
        description="img2dataset's distributor: processes on this machine, or Spark's executors.",
    )
    processes: int = Field(2, ge=1, description="Download processes; Spark sets its own number.")
    threads: int = Field(32, ge=1, description="Simultaneous requests per process.")
    timeout: float = Field(
        10, gt=0, description="Seconds per request, from looking up the host to the last byte."
    )
    retries: int = Field(
        1, ge=0, description="Additional attempts of a failed request in the same run."
    )
    max_bytes: int = Field(
        20_000_000, ge=1, description="Maximum bytes per image; larger ones are refused."
    )
    max_pixels: int = Field(
        100_000_000,
        ge=1,
        description="Maximum pixels per image, read from its header before decoding.",
    )
    image_size: int = Field(
        256, ge=32, description="Images with a longer short side are scaled down to this size."
    )
    allow_private: bool = Field(
        False,
        title="Allow private addresses",
        description="Also request images from this machine and its networks: loopback, private and "
        "link-local addresses, which a list from the web has no reason to name.",
    )
    tries: int = Field(
        5,
        ge=1,
        description="Runs that request an image after retryable failures: timeout, HTTP 5xx, 429.",
    )
    honour_opt_out: bool = Field(
        True,
        title="Honour opt-outs",
        description="Exclude images whose server opts out in X-Robots-Tag.",
    )
    opt_out_directives: list[str] = Field(
        ["noai", "noimageai", "noindex", "noimageindex"],
        description="Directives in X-Robots-Tag that count as an opt-out.",
    )
    user_agent: str | None = Field(
        None, description="Token that identifies you to servers, and in X-Robots-Tag."
    )


class IndexConfig(Section):
    """The memory's nearest-neighbour index and its target recall."""

    key: str | None = Field(
        None,
        description="A faiss factory string, such as IVF4096,SQ8. Default: chosen by size.",
    )
    memory_gb: float = Field(
        16, gt=0, description="Maximum GiB of the index; building it needs up to twice as much."
    )
    target_recall: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of the 128 true neighbours that a search must find; nprobe or efSearch "
        "is tuned to it.",
    )
    rerank: int = Field(
        1,
        ge=1,
        description="Searches take this many times K from the index and re-rank by exact inner "
        "product; 1: no re-ranking.",
    )
    text: bool = Field(
        False, description="Also index the captions' embeddings, for `reco`: text.index."
    )
    distributed: Literal["pyspark"] | None = Field(
        None,
        description="Let autofaiss add rows on Spark's executors. Default: on this machine.",
    )

    @model_validator(mode="after")
    def _spark_builds_such(self) -> Self:
        if self.distributed and self.key and not re.fullmatch(SPARK_KEY, self.key):
            raise ValueError(
                "`distributed: pyspark` builds IVF...,Flat and OPQ...,IVF...,PQ... indices, got "
                f"`key` {self.key}; remove one of the two"
            )
        return self

    @property
    def wanted(self) -> dict[str, Any]:
        """The required properties of all indices, however they are built; enters digests."""
        return self.each | ({"text": True} if self.text else {})

    @property
    def each(self) -> dict[str, Any]:
        """The required properties of each index."""
        return self.model_dump(exclude={"distributed", "text"})


class ReindexConfig(Section):
    """One memory: the sources of its pairs, the model that embeds them, and their index."""

    name: str = Field("memory", pattern=NAME, description="Name of the flow's runs.")
    memory: AnchoredPath = Field(description="Folder in which snapshots are published.")
    sources: list[SourceConfig] = Field(
        min_length=1, description="Sources of pairs; for a row in two sources, the first counts."
    )
    take_down: AnchoredPath | None = Field(
        None,
        title="Take-down list",
        description="Text file, one row to delete per line: URL, row_key, memory_key or sha256. "
        "A `#` at the start, or after a space, begins a comment.",
    )
    download: DownloadConfig = DownloadConfig()
    model_name: str = Field("coarse", description="The model's name in the manifest.")
    model: ModelSpec = Field(
        description="The benchmark's coarse model; embeds images and, unless `pooled`, captions."
    )
    index: IndexConfig = IndexConfig()
    spark_master: str = Field(
        "local[2]",
        title="Spark master",
        description="Master for keys set to `pyspark`: local[N], spark://HOST:PORT, yarn, "
        "k8s://HOST:PORT.",
    )
    shard_rows: int = Field(10_000, ge=10, description="Rows per shard: the unit of resume.")
    max_rejected: float = Field(
        0.5, ge=0, le=1, description="Maximum share of failed rows; with more nothing is published."
    )
    cache: AnchoredPath = Field(RESULTS / "cache", description="Folder for file hashes.")
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        labels = [source.label for source in self.sources]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice:
            raise ValueError(f"two sources have the name `{twice}`; give each a `name`")
        return self

    @model_validator(mode="after")
    def _texts_can_be_indexed(self) -> Self:
        if self.index.text and self.model.pooled:
            raise ValueError(
                "`index.text` needs embeddings of captions, but `model` with `pooled: true` embeds "
                "images only; remove one of the two"
            )
        return self
