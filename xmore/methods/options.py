"""What a config may say to single methods."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from xmore.files.anchored import AnchoredPath
from xmore.files.yaml import Section


class ViewsOptions(Section):
    """Augmented views of each test image: what `confident-views` and `tpt` look at."""

    count: int = Field(64, ge=2, description="Views of an image, the clean one among them.")
    keep: float = Field(
        0.1, gt=0, le=1, description="Share of the views that is kept: those of lowest entropy."
    )
    augmix: bool | None = Field(
        None, description="Mix further augmentations in; none: for all datasets but ImageNet's."
    )
    limit: int | None = Field(
        None, ge=1, description="At most so many images of a dataset, drawn by `seed`; none: all."
    )
    seed: int = Field(0, ge=0, description="Of the crops, and of what `limit` draws.")


class CalipOptions(Section):
    """How much `calip`'s two attended opinions count beside CLIP's own."""

    beta2: float = Field(1.0, ge=0, description="Of the image against visual-guided texts.")
    beta3: float = Field(0.085, ge=0, description="Of the text-guided image against the texts.")


class CoderOptions(Section):
    """The neighbour texts of `coder` and `coder-rerank`, and when the second looks again."""

    texts: AnchoredPath | None = Field(
        None, description="JSONL file of texts; none: data/neighbours/DATASET.jsonl."
    )
    tau: float = Field(
        0.1,
        ge=0,
        le=1,
        description="`coder-rerank` looks again where the two best probabilities differ by less.",
    )
    top: int = Field(5, ge=2, description="At so many classes, the most probable ones.")


class RecoOptions(Section):
    """The layers that `reco` refines with, and the memory that it retrieves from."""

    checkpoint: AnchoredPath | None = Field(
        None, description="Folder that `xmore reco-train` wrote; `reco` needs one."
    )
    memory: AnchoredPath | None = Field(
        None,
        description="Memory to retrieve from, embedded by the same model; none: the snapshot that "
        "the layers were trained on.",
    )


class MethodOptions(Section):
    """Each method's own settings."""

    calip: CalipOptions = CalipOptions()
    coder: CoderOptions = CoderOptions()
    views: ViewsOptions = ViewsOptions()
    reco: RecoOptions = RecoOptions()


Source = Literal["paper", "fixed", "validation", "oracle"]
"""Where a hyper-parameter's value comes from: the method's paper; set once, before any label was
seen; searched on labels of a validation set; searched on the test labels themselves."""
