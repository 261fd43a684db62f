"""The required keys of our JSON files, checked when they are read: manifests and run.json.

Additional keys are allowed. Values are not converted: a number in quotes is refused.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from xmore.files.sealed import unsealed


def _inside(name: str) -> str:
    """Return a relative path that stays in its folder. Raises ValueError for any other."""
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise ValueError("must stay inside its folder")
    return name


_Inside = Annotated[str, AfterValidator(_inside)]
_Count = Annotated[int, Field(ge=0)]
_STRICT = ConfigDict(strict=True)


@with_config(_STRICT)
class File(TypedDict):
    """A file in a manifest, with its size and hash."""

    file: _Inside
    bytes: _Count
    sha256: str


@with_config(_STRICT)
class Part(File):
    """A part of an artifact."""

    rows: _Count


@with_config(_STRICT)
class ArtifactManifest(TypedDict):
    """manifest.json of an artifact."""

    parts: list[Part]
    rows: _Count
    params: dict[str, Any]
    part_rows: NotRequired[list[_Count]]  # items of each part; absent if parts are appended
    facts: NotRequired[dict[str, Any]]
    made_by: NotRequired[dict[str, str]]  # versions and device; older artifacts lack it
    source: NotRequired[dict[str, str]]  # of the method: sha256 by file; older artifacts lack it


@with_config(_STRICT)
class CostFile(TypedDict):
    """cost.json of an artifact; older artifacts lack it."""

    seconds: float | None  # over all attempts; None if one of them was not recorded
    peak_rss_mb: float | None


@with_config(_STRICT)
class _Model(TypedDict):
    name: str
    identity: dict[str, Any]


@with_config(_STRICT)
class _Index(TypedDict):
    key: str
    sha256: str
    rerank: NotRequired[Annotated[int, Field(ge=1)]]


@with_config(_STRICT)
class SnapshotManifest(TypedDict):
    """manifest.json of a snapshot."""

    digest: str
    rows: Annotated[int, Field(ge=1)]
    dim: Annotated[int, Field(ge=1)]
    files: list[File]
    model: _Model
    index: _Index | None
    text_index: NotRequired[_Index]
    made_by: NotRequired[list[dict[str, str]]]


@with_config(_STRICT)
class _Measured(TypedDict):
    ms_per_query: float
    queries: _Count
    of: dict[str, dict[str, dict[str, float]]]


@with_config(_STRICT)
class _Built(_Index):
    bytes: _Count
    how: str
    parameters: str
    measured: _Measured


@with_config(_STRICT)
class _Place(TypedDict):
    place: str


@with_config(_STRICT)
class SnapshotCard(TypedDict):
    """What a snapshot's card shows of its manifest; to read its rows needs none of it."""

    asked: _Count
    failures: dict[str, _Count]
    filtered: dict[str, _Count]
    hosts: list[list[Any]]
    retryable: _Count
    sources: dict[str, _Place]
    model: _Model
    index: _Built | None


@with_config(_STRICT)
class _Read(TypedDict):
    name: str
    digest: str
    memory: str


@with_config(_STRICT)
class _Config(TypedDict):
    name: str
    datasets: list[str]
    results: str


@with_config(_STRICT)
class _Ref(TypedDict):
    stage: Annotated[str, Field(pattern=r"^[a-z_]+$")]
    dataset: _Inside
    model: str | None
    digest: _Inside
    path: str  # of the artifact, relative to the results folder; absolute in older files
    rows: _Count
    skipped: bool
    seconds: float
    peak_rss_mb: float | None
    prompt_set: NotRequired[str]
    left_out: NotRequired[bool]  # of a packed run


@with_config(_STRICT)
class _Cost(TypedDict):
    dataset: str
    model: str
    method: str
    m: int | None
    prompt_set: NotRequired[str]
    seconds_per_image: float | None
    peak_memory_mb: float | None


@with_config(_STRICT)
class _RunModel(TypedDict):
    precision: str
    batch_size: Annotated[int, Field(ge=1)]
    digest: str


@with_config(_STRICT)
class RunFile(TypedDict):
    """run.json."""

    config: _Config
    snapshot: _Read | None  # None: a run without a memory
    started: str
    finished: str | None
    seconds: float | None
    error: str | None
    versions: dict[str, str]
    code: NotRequired[dict[str, str | bool | None]]  # commit, dirty
    models: NotRequired[dict[str, _RunModel]]
    artifacts: list[_Ref]
    costs: NotRequired[list[_Cost]]


@with_config(_STRICT)
class _LeftOut(ArtifactManifest):
    stage: str
    dataset: str
    digest: str


@with_config(_STRICT)
class StudyFile(TypedDict):
    """study.json of a packed run."""

    format: Annotated[int, Field(ge=1)]
    run: _Inside
    files: list[File]  # all others
    left_out: list[_LeftOut]  # the manifests of artifacts whose parts are not among them


@with_config(_STRICT)
class _Trained(TypedDict):
    name: str
    digest: str


@with_config(_STRICT)
class _RecoParameters(TypedDict):
    k: Annotated[int, Field(ge=1)]
    heads: Annotated[int, Field(ge=1)]
    sides: Literal["both", "image", "text"]
    search: Literal["uni-modal", "cross-modal"]


@with_config(_STRICT)
class RecoFile(TypedDict):
    """reco.json of a trained checkpoint."""

    digest: str
    memory: str
    snapshot: _Trained
    model: _Model
    dim: Annotated[int, Field(ge=1)]
    parameters: _RecoParameters
    weights_sha256: str
    retrieval: list[dict[str, Any]]


def read_contract(path: Path, kind: Any) -> dict[str, Any]:
    """Read a JSON file that satisfies `kind`. Raises OSError, or ValueError with one line."""
    return parse_contract(path.read_bytes(), kind)


def parse_contract(text: bytes, kind: Any) -> dict[str, Any]:
    """Return the content of JSON that satisfies `kind`. Raises ValueError with one line."""
    try:
        data = unsealed(text)
        _adapter(kind).validate_python(data)
    except (ValueError, RecursionError) as error:  # includes pydantic's and json's errors
        raise ValueError(re.sub(r"\s+", " ", str(error))[:200]) from error
    return data


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    """Return pydantic's validator, which takes longer to build than a manifest to read."""
    return TypeAdapter(kind)
