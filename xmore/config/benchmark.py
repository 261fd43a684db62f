"""The configuration of a benchmark, filled by YAML, the command line or Prefect's form."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from xmore.config.execution import ExecutionConfig
from xmore.config.retrieval import LeaksConfig, RetrievalConfig, check_memory
from xmore.files.anchored import AnchoredPath, from_base
from xmore.files.errors import meant
from xmore.files.paths import RESULTS
from xmore.files.yaml import NAME, Section
from xmore.methods.adjust import ADJUSTMENTS
from xmore.methods.options import MethodOptions
from xmore.methods.outside import is_file
from xmore.methods.registry import METHODS, PAPERS, is_known, known_methods
from xmore.models.spec import ModelSpec, Precision


def _unless_name(value: str, info: ValidationInfo) -> str:
    return from_base(value, info) if value.endswith((".yaml", ".yml")) else value


AnchoredCard = Annotated[str, AfterValidator(_unless_name)]
"""A card's name, or the path of its YAML."""


def _unless_method(value: str, info: ValidationInfo) -> str:
    return from_base(value, info) if is_file(value) else value


AnchoredMethod = Annotated[str, AfterValidator(_unless_method)]
"""A method's name, or the path of its file."""


def one_of(names: Iterable[str]) -> dict[str, Any]:
    """Return JSON schema that lets a form offer a list's items; the model itself checks them."""
    return {"items": {"type": "string", "enum": sorted(names)}}


_a_method: dict[str, Any] = {
    "items": {
        "anyOf": [
            {"type": "string", "title": "One of ours", "enum": sorted(METHODS)},
            {"type": "string", "title": "Your own: a file .py, or an installed package's method"},
        ]
    }
}


class RolesConfig(Section):
    """The role of each model. A model with two roles is run only once."""

    inference: list[str] = Field(
        min_length=1,
        title="Inference models",
        description="They score images and captions for the classes.",
    )
    coarse: str | None = Field(
        None,
        description="Finds candidates; must be the model that embedded the memory's images. "
        "Required with a `memory`, and only then.",
    )
    fine: str | None = Field(
        None,
        description="Ranks the candidates' captions against the query image. Required with a "
        "`memory`, and only then.",
    )

    @property
    def models(self) -> list[str]:
        """The name of each model, once."""
        named = (*self.inference, self.coarse, self.fine)
        return list(dict.fromkeys(name for name in named if name is not None))


class PromptSet(Section):
    """One of several sets of prompts: a template, a file, or by default the `prompt`."""

    name: str = Field(pattern=NAME, description="Its name in tables, and in SQL's `prompt_set`.")
    template: str | None = Field(None, description="One prompt; `{}` is the class name.")
    file: AnchoredPath | None = Field(
        None, description="A .txt file of templates, or a .json file of sentences per class."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.template is not None and self.file is not None:
            raise ValueError(f"prompt set `{self.name}`: name either `template` or `file`")
        if self.template is not None and "{}" not in self.template:
            raise ValueError(
                f"prompt set `{self.name}`: `template` needs `{{}}` for the class name, got "
                f"{self.template!r}"
            )
        return self


def _papers(config: dict[str, Any]) -> list[str]:
    """Return the paper's methods that can run with, or without, the config's memory."""
    return [name for name in PAPERS if config.get("memory") or not METHODS[name].needs_memory]


class BenchmarkConfig(Section):
    """One benchmark: datasets, models, methods, and a memory with its retrieval, if any."""

    name: str = Field("benchmark", pattern=NAME, description="Start of each run's name.")
    datasets: list[AnchoredCard] = Field(
        min_length=1, description="Cards: names in data/, or paths of YAML files."
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="For a trial run: test images per dataset, a fixed sample in proportion to the "
        "classes; its tables say so. Default: all.",
    )
    memory: AnchoredPath | None = Field(
        None,
        description="Folder of the memory, which contains CURRENT. Left out together with "
        "`roles.coarse` and `roles.fine`, only methods run that need none.",
    )
    models: dict[str, ModelSpec] = Field(
        default_factory=dict,
        description="Names of local models; open_clip's `ARCHITECTURE/TAG` needs no entry.",
    )
    precision: Precision = Field(
        "fp32",
        description="In which all models compute whose entry under `models` names none. It is part "
        "of their identity: what they embed is stored for each precision.",
    )
    roles: RolesConfig
    retrieval: RetrievalConfig = RetrievalConfig()
    methods: list[AnchoredMethod] = Field(
        default_factory=_papers,
        min_length=1,
        description="Methods to run, by name; or your own: a file, such as `./mine.py`, or one of "
        "an installed package. Default: the paper's four; without a `memory`, `clip`.",
        json_schema_extra=_a_method,
    )
    adjustments: list[str] = Field(
        ["minmax", "running-sum"],
        min_length=1,
        description="How `xmore` turns confidences into weights; `minmax` is the paper's.",
        json_schema_extra=one_of(ADJUSTMENTS),
    )
    options: MethodOptions = MethodOptions()
    seeds: list[int] = Field([0, 1, 2], min_length=1, description="Seeds of the query orders.")
    data_root: AnchoredPath | None = Field(
        None, description="Folder of the datasets to obtain. Default: data/datasets."
    )
    class_names: str | None = Field(
        None, description="One of the cards' `alternatives`. Default: the cards' own names."
    )
    prompt: str | None = Field(
        None, description="Prompt; `{}` is the class name. Default: the card's, `a photo of a {}.`"
    )
    prompts: AnchoredPath | None = Field(
        None,
        description="Instead of `prompt`: a .txt file of templates, or a .json file of sentences "
        "per class.",
    )
    prompt_sets: list[PromptSet] | None = Field(
        None,
        min_length=1,
        description="Instead of `prompts`: several sets of prompts. All methods run under each, "
        "and are compared with themselves under the others.",
    )
    leaks: LeaksConfig = LeaksConfig()
    max_rejected: float = Field(
        0.05, ge=0, le=1, description="Maximum share of unreadable images; more stop the run."
    )
    results: AnchoredPath = Field(
        RESULTS,
        description="Folder for artifacts (store/) and runs (runs/). Commands look for runs in the "
        "default one, or where `--results` says.",
    )
    report: bool = Field(True, description="Write an HTML page at the end of the run: `report/`.")
    execution: ExecutionConfig = ExecutionConfig()

    @model_validator(mode="after")
    def _has_a_memory_or_none(self) -> Self:
        roles = {"coarse": self.roles.coarse, "fine": self.roles.fine}
        check_memory(self.memory, roles, self.retrieval, self.leaks)
        return self

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name in self.methods:
            if not is_known(name):
                raise ValueError(
                    f"`methods`: no `{name}`.{meant(name, known_methods())} Known: "
                    f"{', '.join(known_methods())}, or the path of a file .py"
                )
        for name in self.adjustments:
            if name not in ADJUSTMENTS:
                raise ValueError(
                    f"`adjustments`: no `{name}`.{meant(name, ADJUSTMENTS)} Known: "
                    f"{', '.join(ADJUSTMENTS)}"
                )
        for key in ("datasets", "methods", "adjustments", "seeds"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"`{key}` contains a value twice: {values}")
        sets = [each.name for each in self.prompt_sets or ()]
        if len(set(sets)) != len(sets):
            raise ValueError(f"`prompt_sets` contains a name twice: {sets}")
        if self.prompt_sets and self.prompts:
            raise ValueError("set either `prompts` or `prompt_sets`")
        if len(set(self.roles.inference)) != len(self.roles.inference):
            raise ValueError(f"`roles.inference` contains a model twice: {self.roles.inference}")
        if min(self.seeds) < 0:
            raise ValueError(f"`seeds` must not be negative, got {min(self.seeds)}")
        if max(self.seeds) >= 2**63:
            raise ValueError(f"`seeds` must be below 2^63, got {max(self.seeds)}")
        if self.prompt is not None and "{}" not in self.prompt:
            raise ValueError(f"`prompt` needs `{{}}` for the class name, got {self.prompt!r}")
        for name in self.options.memories:
            known = dict.fromkeys((*self.roles.models, *self.models))
            if name not in known:
                raise ValueError(
                    f"`options.memories`: no model `{name}`.{meant(name, known)} Known: "
                    f"{', '.join(known)}"
                )
        for name in self.roles.models:
            if name not in self.models and "/" not in name:
                defined = ", ".join(self.models) or "none"
                raise ValueError(
                    f"`roles`: no model `{name}`.{meant(name, self.models)} `models` has "
                    f"{defined}. Define it there, or use ARCHITECTURE/TAG as in RN50/openai"
                )
        return self

    def prompts_by_set(self, card_prompt: str) -> dict[str, tuple[str, Path | None]]:
        """Return the template and file of each prompt set by its name; a single one has none."""
        template = self.prompt or card_prompt
        sets = self.prompt_sets or [PromptSet(name="prompts", file=self.prompts)]
        return {
            each.name if len(sets) > 1 else "": (each.template or template, each.file)
            for each in sets
        }

    def model(self, name: str) -> ModelSpec:
        """Return the model of this name: an entry of `models`, or open_clip's; with precision."""
        spec = self.models.get(name) or ModelSpec.from_name(name)
        return spec.model_copy(update={"precision": spec.precision or self.precision})
