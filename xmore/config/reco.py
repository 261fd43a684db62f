"""What RECO's training can be told."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import Field

from xmore.config.execution import ExecutionConfig
from xmore.files.anchored import AnchoredPath
from xmore.files.paths import PROJECT_ROOT
from xmore.files.yaml import NAME, Section
from xmore.methods.reco.recipe import Recipe
from xmore.models.spec import ModelSpec


class RecoTrainConfig(Section):
    """RECO's layers, trained on a memory whose images and captions one model has embedded."""

    name: str = Field("reco", pattern=NAME, description="Names the flow's runs.")
    memory: AnchoredPath = Field(description="Folder of the memory, with CURRENT in it.")
    model_name: str = Field("model", description="The model's name in messages and the checkpoint.")
    model: ModelSpec = Field(
        description="Embedded the memory's images and captions; classifies later."
    )
    output: AnchoredPath = Field(description="Folder for reco.safetensors and reco.json.")
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
    cache: AnchoredPath = Field(
        PROJECT_ROOT / "results" / "cache", description="Folder for file hashes."
    )
    execution: ExecutionConfig = ExecutionConfig()

    @property
    def recipe(self) -> Recipe:
        """What the weights depend on, beside the memory."""
        return Recipe(**self.model_dump(include={field.name for field in fields(Recipe)}))
