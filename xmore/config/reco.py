"""The configuration of RECO's training."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from pydantic import Field

from xmore.config.execution import ExecutionConfig
from xmore.files.anchored import AnchoredPath
from xmore.files.paths import RESULTS
from xmore.files.yaml import NAME, Section
from xmore.methods.reco.recipe import Recipe
from xmore.models.spec import ModelSpec


class RecoTrainConfig(Section):
    """RECO's layers, trained on a memory whose images and captions one model has embedded."""

    name: str = Field("reco", pattern=NAME, description="Name of the flow's runs.")
    memory: AnchoredPath = Field(description="Folder of the memory, which contains CURRENT.")
    model_name: str = Field("model", description="The model's name in messages and the checkpoint.")
    model: ModelSpec = Field(
        description="The model that embedded the memory, and that will be the inference model."
    )
    output: AnchoredPath = Field(description="Folder for reco-*.safetensors and reco.json.")
    k: int = Field(10, ge=1, description="Number of neighbours of each image and each text.")
    sides: Literal["both", "image", "text"] = Field(
        "both",
        description="Modalities to refine; the embeddings of the other one stay unchanged.",
    )
    search: Literal["uni-modal", "cross-modal"] = Field(
        "uni-modal",
        description="Where neighbours are searched: an image's among images (`uni-modal`) or among "
        "texts (`cross-modal`). In both cases the other modality's embeddings are fused.",
    )
    duplicates: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Minimum similarity of two images or captions at which their rows are near "
        "duplicates, not neighbours; its meaning depends on the model.",
    )
    heads: int = Field(8, ge=1, description="Attention heads; must divide the model's dimensions.")
    epochs: int = Field(10, ge=1, description="Passes over the pairs.")
    batch_size: int = Field(
        256, ge=2, description="Pairs per batch; the loss distinguishes them from each other."
    )
    learning_rate: float = Field(1e-4, gt=0, description="Adam's learning rate, constant.")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="Share of captions held out to measure recall."
    )
    seed: int = Field(
        0, ge=0, description="Seed of the held-out captions, the initial weights and the order."
    )
    every: int = Field(
        100, ge=1, description="Steps between two saved states, from which a run resumes."
    )
    cache: AnchoredPath = Field(RESULTS / "cache", description="Folder for file hashes.")
    execution: ExecutionConfig = ExecutionConfig()

    @property
    def recipe(self) -> Recipe:
        """The keys that the weights depend on, besides the memory."""
        return Recipe(**self.model_dump(include={field.name for field in fields(Recipe)}))
