"""A config's options for single methods."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xmore.files.anchored import AnchoredPath
from xmore.files.yaml import Section


class ViewsOptions(Section):
    """Augmented views of each test image, for `confident-views`, `tpt` and `zero`."""

    count: int = Field(64, ge=2, description="Augmented views per image, including the clean one.")
    keep: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Share of augmented views to keep: those of lowest entropy. Not for `zero`.",
    )
    augmix: bool | None = Field(
        None,
        description="Mix in additional augmentations, never for `zero`. Default: for all datasets "
        "except ImageNet's.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Maximum number of images per dataset, drawn by `seed`. Default: all.",
    )
    seed: int = Field(0, ge=0, description="Seed of the crops and of the draw by `limit`.")


class ZeroOptions(Section):
    """How many augmented views vote for `zero`."""

    keep: float = Field(
        0.3, gt=0, le=1, description="Share of augmented views that vote: those of lowest entropy."
    )


class CalipOptions(Section):
    """The weights of `calip`'s two attended scores, relative to CLIP's own."""

    beta2: float = Field(
        1.0, ge=0, description="Weight of the image compared with the visual-guided texts."
    )
    beta3: float = Field(
        0.085, ge=0, description="Weight of the text-guided image compared with the texts."
    )


class CoderOptions(Section):
    """The neighbour texts of `coder` and `coder-rerank`, and when the latter re-ranks."""

    texts: AnchoredPath | None = Field(
        None, description="JSONL file of texts. Default: data/neighbours/DATASET.jsonl."
    )
    tau: float = Field(
        0.1,
        ge=0,
        le=1,
        description="`coder-rerank` re-ranks if the two best probabilities differ by less.",
    )
    top: int = Field(5, ge=2, description="Number of most probable classes to re-rank.")


class RecoOptions(Section):
    """The trained layers of `reco`, and the memory from which it retrieves."""

    checkpoint: AnchoredPath | None = Field(
        None, description="Folder that `xmore reco-train` wrote; required for `reco`."
    )
    memory: AnchoredPath | None = Field(
        None,
        description="Memory to retrieve from, embedded by the same model. Default: the snapshot "
        "on which the layers were trained.",
    )


class RattaOptions(Section):
    """The descriptions of classes for `ra-tta`."""

    descriptions: AnchoredPath | None = Field(
        None,
        description="JSON file of sentences per class. Default: data/descriptions/DATASET.json.",
    )


class MethodOptions(Section):
    """Options for single methods."""

    calip: CalipOptions = CalipOptions()
    coder: CoderOptions = CoderOptions()
    views: ViewsOptions = ViewsOptions()
    zero: ZeroOptions = ZeroOptions()
    reco: RecoOptions = RecoOptions()
    ratta: RattaOptions = RattaOptions()
    memories: dict[str, AnchoredPath] = Field(
        default_factory=dict,
        description="Inference model to the memory in which `tip-x` and `ra-tta` search images by "
        "text; that model must have embedded it. Default: the run's `memory`, if it has.",
    )


Source = Literal["paper", "fixed", "validation", "oracle"]
"""The source of a hyper-parameter's value: the method's paper; set once, before any label was seen;
searched on the labels of a validation set; searched on the test labels."""
