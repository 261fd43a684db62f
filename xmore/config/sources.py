"""Where a memory's rows come from, and which of them are wanted."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from xmore.files.anchored import AnchoredAddress, AnchoredPath
from xmore.files.yaml import NAME, Section

SOURCE_KINDS = ("urls", "images", "tars", "clip_retrieval")


class ColumnsConfig(Section, title="Names"):
    """How a URL list names its columns."""

    url: str = Field("url", description="Column of the image's address.")
    caption: str = Field("caption", description="Column of its caption.")
    width: str | None = Field(None, description="Column of the image's width, for `min_size`.")
    height: str | None = Field(None, description="Column of its height, for `min_size`.")
    similarity: str | None = Field(None, description="Column for `min_similarity`.")
    nsfw: str | None = Field(None, description="Column for `nsfw`.")
    keep: list[str] = Field([], description="Columns to carry into the memory's metadata.")
    header: list[str] = Field([], description="Names of the columns of a file without a header.")


COLUMN_PRESETS = {
    "laion-400m": ColumnsConfig(
        url="URL",
        caption="TEXT",
        width="WIDTH",
        height="HEIGHT",
        similarity="similarity",
        nsfw="NSFW",
        keep=["LICENSE", "NSFW", "similarity"],
    ),
    "re-laion": ColumnsConfig(
        similarity="similarity",
        keep=["similarity", "punsafe", "pwatermark"],
    ),
    # Google's own files, which have no header: the order of their columns is the preset.
    "cc3m": ColumnsConfig(header=["caption", "url"]),
    "cc12m": ColumnsConfig(header=["url", "caption"]),
}


class UrlListConfig(Section, title="Download"):
    """Which rows of a URL list become the memory."""

    path: AnchoredAddress = Field(
        title="URL list",
        description="A Parquet, CSV, TSV or JSONL file or a folder of such files; here, or at any "
        "address that fsspec reads (s3://, https://).",
    )
    columns: Literal["laion-400m", "re-laion", "cc3m", "cc12m"] | ColumnsConfig = Field(
        "laion-400m", description="A preset, or the names of the columns."
    )
    where: str | None = Field(
        None, description="A condition on the list's columns in DuckDB's SQL: similarity > 0.3"
    )
    sample: float = Field(
        1.0, gt=0, le=1, description="Share of the rows, by a hash of each: 0.1 is part of 0.2."
    )
    limit: int | None = Field(None, ge=1, description="At most so many rows, by the same hash.")

    @property
    def names(self) -> ColumnsConfig:
        """The columns' names, a preset looked up."""
        return COLUMN_PRESETS[self.columns] if isinstance(self.columns, str) else self.columns


class ImageFolderConfig(Section, title="Folder"):
    """Images that are here already."""

    folder: AnchoredPath = Field(description="Folder that the captions' paths are relative to.")
    captions: AnchoredPath = Field(description="Parquet with columns `path` and `caption`.")


class TarsConfig(Section, title="Tars"):
    """Webdataset shards that are here already: `key.jpg` beside `key.txt` (or `key.json`)."""

    folder: AnchoredPath = Field(description="Folder of *.tar files; they are read where they lie.")


class ClipRetrievalConfig(Section, title="Embeddings"):
    """A folder that clip-retrieval made: its embeddings are taken over, not computed."""

    folder: AnchoredPath = Field(description="Folder with img_emb/ and metadata/.")


class FiltersConfig(Section, title="Filters"):
    """Which rows of a source are wanted; the rest are counted and left out."""

    languages: list[str] = Field(
        [],
        description="Languages to keep, as ISO 639-1: en, fr. Guessed from the caption.",
    )
    min_size: int = Field(
        0, ge=0, description="Least pixels of the shorter side, by the list's width and height."
    )
    min_similarity: float | None = Field(
        None, description="Least similarity of image and caption, by the list."
    )
    nsfw: list[str] = Field([], description="Tags to keep, e.g. UNLIKELY; none: all.")

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: list[str]) -> list[str]:
        for code in languages:
            if not re.fullmatch("[a-z]{2,3}", code):
                raise ValueError(f"languages are ISO 639-1 codes as in `en`, got {code!r}")
        return languages


class SourceConfig(Section, title="Source"):
    """Where pairs of images and captions come from: one of the four."""

    name: str | None = Field(None, pattern=NAME, description="In tables; none: of its kind.")
    urls: UrlListConfig | None = Field(None, title="URL list", description="Images to download.")
    images: ImageFolderConfig | None = Field(
        None, title="Image folder", description="Images that are here, with captions."
    )
    tars: TarsConfig | None = Field(None, title="Webdataset", description="Shards that are here.")
    clip_retrieval: ClipRetrievalConfig | None = Field(
        None, title="clip-retrieval", description="Embeddings that are here."
    )
    filters: FiltersConfig = FiltersConfig()

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"a source is one of {', '.join(SOURCE_KINDS)}; got {given or 'none'}")
        listed = self.filters.model_dump(exclude={"languages"}, exclude_defaults=True)
        if self.urls is None and listed:
            raise ValueError(
                f"`filters.{next(iter(listed))}` needs a URL list, which has such a column"
            )
        return self

    @property
    def kind(self) -> str:
        """urls, images, tars or clip_retrieval."""
        return next(kind for kind in SOURCE_KINDS if getattr(self, kind) is not None)

    @property
    def label(self) -> str:
        """Its name, or its kind."""
        return self.name or self.kind.replace("_", "-")

    @property
    def place(self) -> str:
        """What the user named, for messages."""
        if self.urls:
            return self.urls.path
        if self.images:
            return str(self.images.captions)
        return str((self.tars or self.clip_retrieval).folder)  # type: ignore[union-attr]
