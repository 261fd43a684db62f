"""What a re-index can be told: download, index, and all of it."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from xmore.config.execution import ExecutionConfig
from xmore.config.sources import SourceConfig
from xmore.files.anchored import AnchoredPath
from xmore.files.paths import PROJECT_ROOT
from xmore.files.yaml import NAME, Section
from xmore.models.spec import ModelSpec

SPARK_KEY = r"IVF\d+,Flat|OPQ\d+_\d+,IVF\d+(_HNSW\d+)?,PQ\d+(x8)?"


class DownloadConfig(Section):
    """How images are fetched, and the bounds that keep strangers' servers harmless."""

    distributor: Literal["multiprocessing", "pyspark"] = Field(
        "multiprocessing", description="img2dataset's: processes here, or Spark's executors."
    )
    processes: int = Field(2, ge=1, description="Download processes; Spark has its own count.")
    threads: int = Field(32, ge=1, description="Requests at a time in each process.")
    timeout: float = Field(
        10, gt=0, description="Seconds that one request may take, from connecting to the last byte."
    )
    retries: int = Field(1, ge=0, description="Further tries of a request that failed.")
    max_bytes: int = Field(20_000_000, ge=1, description="Bytes of an image; larger are refused.")
    max_pixels: int = Field(
        100_000_000, ge=1, description="Pixels of an image, told by its header before decoding."
    )
    image_size: int = Field(
        256, ge=32, description="Images with a longer short side are scaled down to it."
    )
    tries: int = Field(
        5,
        ge=1,
        description="Runs that ask for an image whose failure may pass: timeout, HTTP 5xx, 429.",
    )
    honour_opt_out: bool = Field(
        True,
        title="Honour opt-outs",
        description="Leave out images whose server says so in X-Robots-Tag.",
    )
    opt_out_directives: list[str] = Field(
        ["noai", "noimageai", "noindex", "noimageindex"],
        description="What in X-Robots-Tag counts as an opt-out.",
    )
    user_agent: str | None = Field(
        None, description="Token that names you to servers, and in X-Robots-Tag."
    )


class IndexConfig(Section):
    """The memory's nearest-neighbour index, and how much of exact search it must find."""

    key: str | None = Field(
        None, description="A faiss factory string, such as IVF4096,SQ8; left out: by size."
    )
    memory_gb: float = Field(
        16, gt=0, description="GiB that the index may take; making it takes up to twice that."
    )
    target_recall: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Share of the 128 true neighbours that a search must find: sets nprobe or "
        "efSearch.",
    )
    rerank: int = Field(
        1,
        ge=1,
        description="Searches take so many times K from the index and let exact inner products "
        "decide; 1: none of that.",
    )
    text: bool = Field(
        False, description="Index the captions' embeddings as well, for `reco`: text.index."
    )
    distributed: Literal["pyspark"] | None = Field(
        None, description="Let autofaiss add rows on Spark's executors; left out: here."
    )

    @model_validator(mode="after")
    def _spark_builds_such(self) -> Self:
        if self.distributed and self.key and not re.fullmatch(SPARK_KEY, self.key):
            raise ValueError(
                "`distributed: pyspark` builds IVF...,Flat and OPQ...,IVF...,PQ... indices, got "
                f"`key` {self.key}; leave one of the two out"
            )
        return self

    @property
    def wanted(self) -> dict[str, Any]:
        """What the indices must be, however they are made: part of digests."""
        return self.each | ({"text": True} if self.text else {})

    @property
    def each(self) -> dict[str, Any]:
        """What each of them must be."""
        return self.model_dump(exclude={"distributed", "text"})


class ReindexConfig(Section):
    """One memory: where its pairs come from, which model embeds them, how they are indexed."""

    name: str = Field("memory", pattern=NAME, description="Names the flow's runs.")
    memory: AnchoredPath = Field(description="Folder to publish snapshots in.")
    sources: list[SourceConfig] = Field(
        min_length=1, description="Where pairs come from; of a row in two, the first counts."
    )
    take_down: AnchoredPath | None = Field(
        None,
        title="Take-down list",
        description="Text file, a line each: URL, row_key, memory_key or sha256 of what must go.",
    )
    download: DownloadConfig = DownloadConfig()
    model_name: str = Field("coarse", description="The model's name in the manifest.")
    model: ModelSpec = Field(description="Embeds the images: the benchmark's coarse model.")
    index: IndexConfig = IndexConfig()
    spark_master: str = Field(
        "local[2]",
        title="Spark master",
        description="Of what says `pyspark`: local[N], spark://HOST:PORT, yarn, k8s://HOST:PORT.",
    )
    shard_rows: int = Field(10_000, ge=10, description="Rows of a shard: the unit of resume.")
    max_rejected: float = Field(
        0.5, ge=0, le=1, description="Share of failed rows that stops it before publishing."
    )
    cache: AnchoredPath = Field(
        PROJECT_ROOT / "results" / "cache", description="Folder for file hashes."
    )
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        labels = [source.label for source in self.sources]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice:
            raise ValueError(f"two sources are called `{twice}`; give each a `name`")
        return self

    @model_validator(mode="after")
    def _texts_can_be_indexed(self) -> Self:
        if self.index.text and self.model.pooled:
            raise ValueError(
                "`index.text` needs embeddings of captions, and `model` with `pooled: true` has "
                "images only; leave one of the two out"
            )
        return self
