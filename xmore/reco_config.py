"""What RECO's training can be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from xmore.config import NAME, ExecutionConfig
from xmore.models import ModelSpec
from xmore.paths import PROJECT_ROOT


class RecoTrainConfig(BaseModel, frozen=True, extra="forbid"):
    """RECO's layers, trained on a memory whose images and captions one model has embedded."""

    name: str = Field("reco", pattern=NAME, description="Names the flow's runs.")
    memory: Path = Field(description="Folder of the memory, with CURRENT in it.")
    model_name: str = Field("model", description="The model's name in messages and the checkpoint.")
    model: ModelSpec = Field(
        description="Embedded the memory's images and captions; classifies later."
    )
    output: Path = Field(description="Folder for reco.safetensors and reco.json.")
    k: int = Field(10, ge=1, description="Neighbours of each image and each text.")
    sides: Literal["both", "image", "text"] = Field(
        "both", description="What is refined; the other's embeddings stay as they are."
    )
    search: Literal["uni-modal", "cross-modal"] = Field(
        "uni-modal",
        description="Among what neighbours are looked for: an image's among images, or texts. "
        "What is fused is the other modality's either way.",
    )
    duplicates: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Similarity of two images or two captions from which on a row is no neighbour "
        "of the other; what a number means depends on the model.",
    )
    heads: int = Field(8, ge=1, description="Attention heads; must divide the model's dimensions.")
    epochs: int = Field(10, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(256, ge=2, description="Pairs that are told apart from each other.")
    learning_rate: float = Field(1e-4, gt=0, description="Adam's, constant.")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="Share of the captions that retrieval is measured on."
    )
    seed: int = Field(0, ge=0, description="Of what is held out, the first weights, the order.")
    every: int = Field(100, ge=1, description="Steps between two states that a run can go on from.")
    cache: Path = Field(PROJECT_ROOT / "results" / "cache", description="Folder for file hashes.")
    execution: ExecutionConfig = ExecutionConfig()

    @property
    def refined(self) -> tuple[str, ...]:
        """The sides that retrieve, the image's first."""
        return ("image", "text") if self.sides == "both" else (self.sides,)

    @property
    def parameters(self) -> dict[str, Any]:
        """What the weights depend on, beside the memory."""
        names = ("k", "sides", "search", "duplicates", "heads", "epochs", "batch_size")
        return self.model_dump(include={*names, "learning_rate", "held_out", "seed"})
