"""What a benchmark can be told: models that YAML, the command line and Prefect's form fill."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from xmore.config.execution import ExecutionConfig
from xmore.files.anchored import AnchoredPath, from_base
from xmore.files.paths import PROJECT_ROOT
from xmore.files.yaml import NAME, Section
from xmore.methods.adjust import ADJUSTMENTS
from xmore.methods.options import MethodOptions
from xmore.methods.registry import METHODS, PAPERS
from xmore.models.spec import ModelSpec


def _unless_name(value: str, info: ValidationInfo) -> str:
    return from_base(value, info) if value.endswith((".yaml", ".yml")) else value


AnchoredCard = Annotated[str, AfterValidator(_unless_name)]
"""A card's name, or the path of its YAML."""


def one_of(names: Iterable[str]) -> dict[str, Any]:
    """Lets a form offer a list's items; what may be in it is checked by the model itself."""
    return {"items": {"type": "string", "enum": sorted(names)}}


class RolesConfig(Section):
    """Which model does what. A model in two roles is run once."""

    inference: list[str] = Field(
        min_length=1, title="Inference models", description="Score images, captions and classes."
    )
    coarse: str = Field(description="Finds candidates: must be the model of the memory's images.")
    fine: str = Field(description="Ranks the candidates' captions against the query image.")


class RetrievalConfig(Section):
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


class LeaksConfig(Section):
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


class BenchmarkConfig(Section):
    """One benchmark: datasets, a memory, models, retrieval and methods."""

    name: str = Field("benchmark", pattern=NAME, description="Begins the name of each run.")
    datasets: list[AnchoredCard] = Field(
        min_length=1, description="Cards: a name in data/, or the path of a card's YAML."
    )
    memory: AnchoredPath = Field(description="Folder of the memory, with CURRENT in it.")
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
        json_schema_extra=one_of(METHODS),
    )
    adjustments: list[str] = Field(
        ["minmax", "running-sum"],
        min_length=1,
        description="How `xmore` turns confidences into weights; `minmax` is the paper's.",
        json_schema_extra=one_of(ADJUSTMENTS),
    )
    options: MethodOptions = MethodOptions()
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="Orders in which queries come.")
    data_root: AnchoredPath | None = Field(
        None, description="Folder of the datasets that are to be got; none: data/datasets."
    )
    class_names: str | None = Field(
        None, description="One of the cards' alternative lists of names; none: their own."
    )
    prompt: str | None = Field(
        None, description="`{}` is the class name; none: the card's, `a photo of a {}.`"
    )
    prompts: AnchoredPath | None = Field(
        None,
        description="Instead: a .txt file of templates, or a .json file of sentences by class.",
    )
    leaks: LeaksConfig = LeaksConfig()
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="Share of unreadable images that stops a run."
    )
    results: AnchoredPath = Field(
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
