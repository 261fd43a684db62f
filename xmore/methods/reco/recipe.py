"""How RECO is trained: what a config says of it, without torch."""

from __future__ import annotations

from dataclasses import dataclass

SIDES = ("image", "text")


@dataclass(frozen=True)
class Recipe:
    """How the layers are trained: all that their weights depend on, beside the memory."""

    k: int  # neighbours of each image and each text
    sides: str  # which are refined: `both`, `image` or `text`
    search: str  # `uni-modal` or `cross-modal`
    duplicates: float  # similarity from which on a row is no neighbour of another
    heads: int
    epochs: int
    batch_size: int
    learning_rate: float
    held_out: float  # share of the captions
    seed: int

    @property
    def refined(self) -> tuple[str, ...]:
        """The sides that retrieve, the image's first."""
        return SIDES if self.sides == "both" else (self.sides,)
