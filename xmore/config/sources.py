"""The configuration of a memory's sources, and of the filters on their rows."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from xmore.files.anchored import AnchoredAddress, AnchoredPath
from xmore.files.yaml import NAME, Section

SOURCE_KINDS = ("urls", "images", "tars", "clip_retrieval")


class ColumnsConfig(Section, title="Names"):
    """The names of a URL list's columns."""

    url: str = Field("url", description="Column of the image's URL.")
    caption: str | None = Field(
        "caption", description="Column of the caption; null: the images have none."
    )
    width: str | None = Field(None, description="Column of the image's width, for `min_size`.")
    height: str | None = Field(None, description="Column of the image's height, for `min_size`.")
    similarity: str | None = Field(None, description="Column for `min_similarity`.")
    nsfw: str | None = Field(None, description="Column for `nsfw`.")
    keep: list[str] = Field([], description="Columns to copy into the memory's metadata.")
    header: list[str] = Field([], description="Column names for a file without a header.")


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
    """A list of images to download, and the selection of its rows."""

    path: AnchoredAddress = Field(
        title="URL list",
        description="A Parquet, CSV, TSV or JSONL file, a text file of URLs, or a folder of such "
        "files: a local path, or an address that fsspec reads (s3://, https://).",
    )
    columns: Literal["laion-400m", "re-laion", "cc3m", "cc12m"] | ColumnsConfig = Field(
        "laion-400m", description="A preset, or the names of the columns."
    )
    where: str | None = Field(
        None,
        description="A condition on the list's columns in DuckDB's SQL, e.g. similarity > 0.3, "
        "without a query, chance or the time in it.",
    )
    sample: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of rows, selected by a hash of each: 0.1 is a subset of 0.2.",
    )
    limit: int | None = Field(
        None, ge=1, description="Maximum number of rows, selected by the same hash."
    )

    @property
    def names(self) -> ColumnsConfig:
        """The names of the columns, from the preset or as given."""
        return COLUMN_PRESETS[self.columns] if isinstance(self.columns, str) else self.columns


class ImageFolderConfig(Section, title="Folder"):
    """Local images."""

    folder: AnchoredPath = Field(description="Folder of the images; paths are relative to it.")
    captions: AnchoredPath = Field(
        description="Parquet, CSV, TSV or JSONL with columns `path` and `caption`."
    )


class TarsConfig(Section, title="Tars"):
    """Local webdataset shards: `key.jpg` with `key.txt`, or with a caption in `key.json`.

    A key is a path up to the first dot of its last part; its extension is the rest.
    """

    folder: AnchoredPath = Field(
        description="Folder of *.tar files, which are read in place, and of *.tar.gz and *.tgz."
    )
    images: list[str] = Field(
        [],
        description="Extensions of the images, e.g. img. Default: those of image files (jpg, png, "
        "webp, ...).",
    )
    captions: list[str] = Field(
        ["txt", "json.caption", "json.TEXT"],
        description="Where a caption is, the first that a key has: an extension, or an extension "
        "that ends in json and a key in it. Of a list in JSON, the first text is the caption.",
    )

    @field_validator("images", "captions", mode="before")
    @classmethod
    def _one_or_more(cls, names: Any) -> Any:
        return [names] if isinstance(names, str) else names

    @field_validator("images", "captions")
    @classmethod
    def _extensions(cls, names: list[str]) -> list[str]:
        bare = [name.removeprefix(".") for name in names]
        if "" in bare or any("/" in _place(name)[0] for name in bare):
            raise ValueError(f"an extension is as in `jpg` or `seg.png`, got {names}")
        return bare

    @field_validator("images")
    @classmethod
    def _lower(cls, names: list[str]) -> list[str]:
        return [name.lower() for name in names]

    @field_validator("captions")
    @classmethod
    def _keys_of_json(cls, names: list[str]) -> list[str]:
        if not names:
            raise ValueError("name one place at least")
        for extension, key in map(_place, names):
            if key is None and extension.split(".")[-1] == "json":
                raise ValueError(f"name the key too, as in `{extension}.caption`")
        return names

    @property
    def caption_places(self) -> list[tuple[str, str | None]]:
        """(extension, key in its JSON) of `captions`; the key is None for plain text."""
        return [_place(name) for name in self.captions]


def _place(name: str) -> tuple[str, str | None]:
    found = re.fullmatch(r"((?:.*?\.)??json)\.(.+)", name, re.IGNORECASE | re.DOTALL)
    return (found[1].lower(), found[2]) if found else (name.lower(), None)


class ClipRetrievalConfig(Section, title="Embeddings"):
    """A folder made by clip-retrieval; its embeddings are copied, not computed."""

    folder: AnchoredPath = Field(description="Folder with img_emb/ and metadata/.")


class FiltersConfig(Section, title="Filters"):
    """The rows of a source to use; the others are counted and excluded."""

    languages: list[str] = Field(
        [],
        description="Languages to keep, as ISO 639-1 codes (en, fr), detected from the caption. "
        "Default: all.",
    )
    min_size: int = Field(
        0,
        ge=0,
        description="Minimum pixels of the shorter side, from the list's width and height.",
    )
    min_similarity: float | None = Field(
        None, description="Minimum similarity of image and caption, from the list."
    )
    nsfw: list[str] = Field([], description="Tags to keep, e.g. UNLIKELY. Default: all.")

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, languages: list[str]) -> list[str]:
        for code in languages:
            if not re.fullmatch("[a-z]{2,3}", code):
                raise ValueError(f"languages are ISO 639-1 codes as in `en`, got {code!r}")
        return languages


class SourceConfig(Section, title="Source"):
    """A source of image-text pairs: exactly one of the four kinds."""

    name: str | None = Field(
        None, pattern=NAME, description="Its name in tables. Default: the name of its kind."
    )
    urls: UrlListConfig | None = Field(None, title="URL list", description="Images to download.")
    images: ImageFolderConfig | None = Field(
        None, title="Image folder", description="Local images with captions."
    )
    tars: TarsConfig | None = Field(None, title="Webdataset", description="Local shards.")
    clip_retrieval: ClipRetrievalConfig | None = Field(
        None, title="clip-retrieval", description="Existing embeddings."
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
        """The kind: urls, images, tars or clip_retrieval."""
        return next(kind for kind in SOURCE_KINDS if getattr(self, kind) is not None)

    @property
    def label(self) -> str:
        """The name, or else the kind."""
        return self.name or self.kind.replace("_", "-")

    @property
    def place(self) -> str:
        """The path or address from the config, for messages."""
        if self.urls:
            return self.urls.path
        if self.images:
            return str(self.images.captions)
        return str((self.tars or self.clip_retrieval).folder)  # type: ignore[union-attr]
