"""The hyper-parameters of RECO's training, without torch."""

from __future__ import annotations

from dataclasses import dataclass

SIDES = ("image", "text")


@dataclass(frozen=True)
class Recipe:
    """Everything that the layers' weights depend on, except the memory."""

    k: int  # neighbours of each image and each text
    sides: str  # which are refined: `both`, `image` or `text`
    search: str  # `uni-modal` or `cross-modal`
    duplicates: float  # minimum similarity of near duplicates, which are no neighbours
    heads: int
    epochs: int
    batch_size: int
    learning_rate: float
    held_out: float  # share of the captions
    seed: int

    @property
    def refined(self) -> tuple[str, ...]:
        """The modalities that retrieve, image first."""
        return SIDES if self.sides == "both" else (self.sides,)
