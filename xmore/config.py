"""What a run can be told: pydantic models that YAML, the command line and Prefect's form fill."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from xmore.adjust import ADJUSTMENTS
from xmore.errors import ConfigError
from xmore.methods import METHODS, PAPERS
from xmore.models import ModelSpec
from xmore.options import MethodOptions
from xmore.paths import PROJECT_ROOT

Model = TypeVar("Model", bound=BaseModel)
SOURCE_KINDS = ("urls", "images", "tars", "clip_retrieval")
SPARK_KEY = r"IVF\d+,Flat|OPQ\d+_\d+,IVF\d+(_HNSW\d+)?,PQ\d+(x8)?"
NAME = r"^[A-Za-z0-9][\w.-]*$"


def _one_of(names: Iterable[str]) -> dict[str, Any]:
    """Lets a form offer a list's items; what may be in it is checked by the model itself."""
    return {"items": {"type": "string", "enum": sorted(names)}}


class _Section(BaseModel, frozen=True, extra="forbid"):
    pass


class RolesConfig(_Section):
    """Which model does what. A model in two roles is run once."""

    inference: list[str] = Field(
        min_length=1, title="Inference models", description="Score images, captions and classes."
    )
    coarse: str = Field(description="Finds candidates: must be the model of the memory's images.")
    fine: str = Field(description="Ranks the candidates' captions against the query image.")


class RetrievalConfig(_Section):
    """How captions are found for an image."""

    candidates: int = Field(128, ge=1, title="K", description="Nearest memory images of a query.")
    captions: list[int] = Field(
        [16], min_length=1, title="M", description="Captions kept; several values make a sweep."
    )
    search: Literal["auto", "exact", "index"] = Field(
        "auto", description="`auto`: exact while it is affordable, else the snapshot's index."
    )
    rerank: int | None = Field(
        None,
        ge=1,
        description="The index gives so many times K, exact inner products decide; 1: none of "
        "that. Left out: as the memory's index was tuned.",
    )
    fine: Literal["direct", "indirect"] = Field(
        "direct", description="`direct`: image against text; `indirect`: in coarse order."
    )
    deduplicate: bool = Field(True, description="Keep equal captions of a query once.")
    # The authors' code differs from the paper in these three; see docs/reproduce.md.
    normalise_texts: bool = Field(
        True, description="Rank captions by unit features; the authors' code does not."
    )
    caption_prefix: str = Field(
        "", description="Put before captions when they are scored; theirs is `a_photo_of_a `."
    )
    drop_short: bool = Field(
        False, title="Drop", description="Leave out queries with fewer than K raw hits, as theirs."
    )

    @model_validator(mode="after")
    def _captions_fit(self) -> Self:
        wrong = [m for m in self.captions if not 1 <= m <= self.candidates]
        if len(set(self.captions)) != len(self.captions):
            raise ValueError(f"`captions` names something twice: {self.captions}")
        if wrong:
            raise ValueError(
                f"`captions` must be in [1, {self.candidates}] (candidates), got {wrong[0]}; "
                "lower it or raise `candidates`"
            )
        return self


class LeaksConfig(_Section):
    """Test images that are in the memory: which count as such, and whether they are left out."""

    threshold: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Similarity from which on a memory image is a near duplicate of a query; what "
        "a number means depends on the coarse model.",
    )
    exclude: bool = Field(
        False, description="Keep such queries out of the stream: not answered, not counted."
    )


class ExecutionConfig(_Section):
    """How the work is done. Changes speed and memory, never an artifact's digest."""

    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:1`.")
    batch_size: int = Field(64, ge=1, description="Images or texts in one forward pass.")
    workers: int = Field(
        0,
        ge=0,
        description="Processes that decode images; 0: one for a model on the CPU, all cores but "
        "one beside a GPU.",
    )
    part_rows: int = Field(
        1024, ge=1, description="Queries in one part: the unit of progress, memory and resume."
    )
    runner: Literal["local", "dask", "ray"] = Field(
        "local",
        description="Where images are embedded and candidates found: here, or on the workers of "
        "a Dask or Ray cluster that see the same folders.",
    )
    runners: int = Field(2, ge=1, description="Workers to start here, where no address is given.")
    address: str | None = Field(None, description="Of a Dask scheduler or Ray head that runs.")

    @model_validator(mode="after")
    def _address_has_a_runner(self) -> Self:
        if self.address and self.runner == "local":
            raise ValueError("`address` needs `runner: dask` or `runner: ray`")
        return self


class BenchmarkConfig(_Section):
    """One benchmark: datasets, a memory, models, retrieval and methods."""

    name: str = Field("benchmark", pattern=NAME, description="Begins the name of each run.")
    datasets: list[str] = Field(
        min_length=1, description="Cards: a name in data/, or the path of a card's YAML."
    )
    memory: Path = Field(description="Folder of the memory, with CURRENT in it.")
    models: dict[str, ModelSpec] = Field(
        default_factory=dict,
        description="Names for local models; `ARCHITECTURE/TAG` of open_clip needs none.",
    )
    roles: RolesConfig
    retrieval: RetrievalConfig = RetrievalConfig()
    methods: list[str] = Field(
        list(PAPERS),
        min_length=1,
        description="What classifies; left out: the paper's four.",
        json_schema_extra=_one_of(METHODS),
    )
    adjustments: list[str] = Field(
        ["minmax", "running-sum"],
        min_length=1,
        description="How `xmore` turns confidences into weights; `minmax` is the paper's.",
        json_schema_extra=_one_of(ADJUSTMENTS),
    )
    options: MethodOptions = MethodOptions()
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="Orders in which queries come.")
    data_root: Path | None = Field(
        None, description="Folder of the datasets that are to be got; none: data/datasets."
    )
    class_names: str | None = Field(
        None, description="One of the cards' alternative lists of names; none: their own."
    )
    prompt: str | None = Field(
        None, description="`{}` is the class name; none: the card's, `a photo of a {}.`"
    )
    prompts: Path | None = Field(
        None,
        description="Instead: a .txt file of templates, or a .json file of sentences by class.",
    )
    leaks: LeaksConfig = LeaksConfig()
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="Share of unreadable images that stops a run."
    )
    results: Path = Field(
        PROJECT_ROOT / "results", description="Folder for artifacts (store/) and runs (runs/)."
    )
    report: bool = Field(True, description="Draw the run as a page at its end: `report/`.")
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for key, known in (("methods", METHODS), ("adjustments", ADJUSTMENTS)):
            for name in getattr(self, key):
                if name not in known:
                    raise ValueError(f"`{key}`: no `{name}`; there are {', '.join(known)}")
        for key in ("datasets", "methods", "adjustments", "seeds"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"`{key}` names something twice: {values}")
        if min(self.seeds) < 0:
            raise ValueError(f"`seeds` must not be negative, got {min(self.seeds)}")
        if self.prompt is not None and "{}" not in self.prompt:
            raise ValueError(f"`prompt` needs `{{}}` for the class name, got {self.prompt!r}")
        for name in (*self.roles.inference, self.roles.coarse, self.roles.fine):
            if name not in self.models and "/" not in name:
                raise ValueError(
                    f"`roles`: no model `{name}`; name it under `models`, or write "
                    "ARCHITECTURE/TAG as in RN50/openai"
                )
        return self

    def model(self, name: str) -> ModelSpec:
        """The model that a role names."""
        return self.models.get(name) or ModelSpec.from_name(name)


class ColumnsConfig(_Section, title="Names"):
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


class UrlListConfig(_Section, title="Download"):
    """Which rows of a URL list become the memory."""

    path: str = Field(
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


class ImageFolderConfig(_Section, title="Folder"):
    """Images that are here already."""

    folder: Path = Field(description="Folder that the captions' paths are relative to.")
    captions: Path = Field(description="Parquet with columns `path` and `caption`.")


class TarsConfig(_Section, title="Tars"):
    """Webdataset shards that are here already: `key.jpg` beside `key.txt` (or `key.json`)."""

    folder: Path = Field(description="Folder of *.tar files; they are read where they lie.")


class ClipRetrievalConfig(_Section, title="Embeddings"):
    """A folder that clip-retrieval made: its embeddings are taken over, not computed."""

    folder: Path = Field(description="Folder with img_emb/ and metadata/.")


class FiltersConfig(_Section, title="Filters"):
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


class SourceConfig(_Section, title="Source"):
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


class DownloadConfig(_Section):
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


class IndexConfig(_Section):
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


class ReindexConfig(_Section):
    """One memory: where its pairs come from, which model embeds them, how they are indexed."""

    name: str = Field("memory", pattern=NAME, description="Names the flow's runs.")
    memory: Path = Field(description="Folder to publish snapshots in.")
    sources: list[SourceConfig] = Field(
        min_length=1, description="Where pairs come from; of a row in two, the first counts."
    )
    take_down: Path | None = Field(
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
    cache: Path = Field(PROJECT_ROOT / "results" / "cache", description="Folder for file hashes.")
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


def load_config(path: Path, kind: type[Model]) -> Model:
    """Read a YAML file into `kind`; relative paths in it are relative to the file's folder.

    Raises ConfigError with one line: file, key, what it got, what to do.
    """
    data = load_yaml(path)
    _check_kind(path, data, kind)
    try:
        return kind.model_validate(_anchor(data, kind, path.resolve().parent))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, kind)}") from error
    except RuntimeError as error:  # a `~user` that is none
        raise ConfigError(f"{path}: {error}") from error


def change_config(path: Path, changes: dict[str, Any], folder: Path) -> BenchmarkConfig:
    """The benchmark of `path` with some keys changed; a section's keys are changed one by one.

    `changes` maps dotted keys (`retrieval.fine`) to values; relative paths in them are relative
    to `folder`. Raises ConfigError.
    """
    data = _anchor(load_yaml(path), BenchmarkConfig, path.resolve().parent)
    for key, value in changes.items():
        *sections, last = key.split(".")
        nested: dict[str, Any] = {last: value}
        for section in reversed(sections):
            nested = {section: nested}
        data = _merge(data, _anchor(nested, BenchmarkConfig, folder))
    try:
        return BenchmarkConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{path}, changed: {explain(error, BenchmarkConfig)}") from error


def _merge(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(data)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(data.get(key), dict)
        merged[key] = _merge(data[key], value) if both else value
    return merged


def _check_kind(path: Path, data: dict[str, Any], kind: type[BaseModel]) -> None:
    """Say so where a YAML of another kind was named. Raises ConfigError."""
    if kind in (BenchmarkConfig, ReindexConfig) and "base" in data:
        raise ConfigError(f"{path}: is a sweep's config; use `xmore sweep {path}`.")
    if kind is BenchmarkConfig and "datasets" not in data:
        if "root" in data:
            raise ConfigError(f"{path}: is a dataset's card; name it under a config's `datasets`.")
        if "sources" in data:
            raise ConfigError(f"{path}: is a memory's config; use `xmore reindex {path}`.")
    trains = "output" in kind.model_fields
    if (kind is ReindexConfig or trains) and "datasets" in data:
        raise ConfigError(f"{path}: is a benchmark's config; use `xmore benchmark {path}`.")
    if kind in (BenchmarkConfig, ReindexConfig) and "output" in data:
        raise ConfigError(f"{path}: is a config of RECO's training; use `xmore reco-train {path}`.")
    if trains and "sources" in data:
        raise ConfigError(f"{path}: is a memory's config; use `xmore reindex {path}`.")


def absolute(config: Model) -> Model:
    """The same config with its relative paths made absolute from the working directory.

    A deployment's parameters come without a file that they could be relative to.
    """
    kind = type(config)
    data = config.model_dump(mode="json", exclude_unset=True)
    return kind.model_validate(_anchor(data, kind, Path.cwd()))


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises ConfigError."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Check the path.") from error
    except (
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:  # PyYAML's own constructors raise what they like
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{path}{where}: not valid YAML ({what}).") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold keys and values, got {type(data).__name__}.")
    return data


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """pydantic's first complaint as one sentence, with the nearest key for a misspelt one."""
    complaints = error.errors()
    unknown = [c for c in complaints if c["type"] == "extra_forbidden"]
    first = (unknown or complaints)[0]  # a misspelt required key is also missing
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(kind, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, 1, 0.5)
        hint = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(known)}."
        return f"unknown key `{key}`; {hint}"
    if first["type"] == "missing":
        return f"key `{key}` is missing; add it."
    message = first["msg"].removeprefix("Value error, ")
    if not key:
        return f"{message}."
    if first["type"] == "value_error":
        return f"{key}: {message}."
    return f"`{key}`: {message[0].lower()}{message[1:]}, got {first['input']!r}."


def _keys_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    fields = kind.model_fields
    for part in location:
        if isinstance(part, int):
            continue  # an item of a list of sections
        section = _section(fields[str(part)].annotation) if part in fields else None
        fields = (section or ModelSpec).model_fields
    return list(fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone or as `Model | None`."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _anchor(data: Any, kind: type[BaseModel], base: Path) -> Any:
    """`data` with the relative paths of `kind`'s fields made absolute from `base`."""
    if not isinstance(data, dict):
        return data
    anchored = dict(data)
    for key, field in kind.model_fields.items():
        if key not in data:
            continue
        value = data[key]
        if field.annotation in (Path, Path | None) and isinstance(value, str):
            anchored[key] = os.path.normpath(base / Path(value).expanduser())
        elif field.annotation == dict[str, ModelSpec] and isinstance(value, dict):
            anchored[key] = {name: _anchor(spec, ModelSpec, base) for name, spec in value.items()}
        elif key == "path" and kind is UrlListConfig and isinstance(value, str):
            if "://" not in value:
                anchored[key] = os.path.normpath(base / Path(value).expanduser())
        elif field.annotation == list[SourceConfig] and isinstance(value, list):
            anchored[key] = [_anchor(item, SourceConfig, base) for item in value]
        elif section := _section(field.annotation):
            anchored[key] = _anchor(value, section, base)
        elif key == "datasets" and isinstance(value, list):
            anchored[key] = [
                os.path.normpath(base / v)
                if isinstance(v, str) and v.endswith((".yaml", ".yml"))
                else v
                for v in value
            ]
    return anchored
