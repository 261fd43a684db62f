"""What a benchmark retrieves from its memory, if it has one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from xmore.files.yaml import Section


class RetrievalConfig(Section):
    """How captions are retrieved for an image."""

    candidates: int = Field(
        128, ge=1, le=1_000_000, title="K", description="Number of nearest memory images per query."
    )
    captions: list[int] = Field(
        [16],
        min_length=1,
        title="M",
        description="Number of captions to keep; several values are all evaluated.",
    )
    search: Literal["auto", "exact", "index"] = Field(
        "auto", description="`auto`: exact if it is affordable, else by the snapshot's index."
    )
    rerank: int | None = Field(
        None,
        ge=1,
        description="Take this many times K from the index and re-rank by exact inner product; 1: "
        "no re-ranking. Default: the value for which the memory's index was tuned.",
    )
    fine: Literal["direct", "indirect"] = Field(
        "direct",
        description="`direct`: rank by image-text similarity; `indirect`: keep the coarse order.",
    )
    deduplicate: bool = Field(True, description="Keep equal captions of a query only once.")
    # The authors' code differs from the paper in these three; see docs/reproduce.md.
    normalise_texts: bool = Field(
        True, description="Normalise text features before ranking; the authors' code does not."
    )
    caption_prefix: str = Field(
        "",
        description="Prefix of captions when they are scored; the authors' is `a_photo_of_a `.",
    )
    drop_short: bool = Field(
        False,
        title="Drop",
        description="Exclude queries with fewer than K raw hits, as the authors' code does.",
    )

    @model_validator(mode="after")
    def _captions_fit(self) -> Self:
        wrong = [m for m in self.captions if not 1 <= m <= self.candidates]
        if len(set(self.captions)) != len(self.captions):
            raise ValueError(f"`captions` contains a value twice: {self.captions}")
        if wrong:
            raise ValueError(
                f"`captions` must be in [1, {self.candidates}] (candidates), got {wrong[0]}; "
                "lower it or raise `candidates`"
            )
        return self


class LeaksConfig(Section):
    """Test images in the memory: which count as leaks, and whether to exclude them."""

    threshold: float = Field(
        0.95,
        gt=0,
        le=1,
        description="Minimum similarity at which a memory image is a near duplicate of a query; "
        "its meaning depends on the coarse model.",
    )
    exclude: bool = Field(
        False, description="Exclude such queries from the stream: no prediction, not counted."
    )


def check_memory(
    memory: Path | None,
    roles: Mapping[str, str | None],
    retrieval: RetrievalConfig,
    leaks: LeaksConfig,
) -> None:
    """Check that a config has a memory with the `roles` that read it, or nothing of these.

    Settings that would do nothing without a memory are refused, too. Raises ValueError.
    """
    keys = {"memory": memory} | {f"roles.{name}": model for name, model in roles.items()}
    missing = [f"`{key}`" for key, value in keys.items() if value is None]
    there = [f"`{key}`" for key, value in keys.items() if value is not None]
    if missing and there:
        are, them = ("is", "it") if len(missing) == 1 else ("are", "them")
        raise ValueError(
            f"{' and '.join(missing)} {are} missing: add {them}, or for a run without a memory "
            f"remove {' and '.join(there)}"
        )
    for key, value in {"retrieval": retrieval, "leaks": leaks}.items():
        if missing and value != type(value)():
            raise ValueError(
                f"`{key}` does nothing without a memory: remove it, or add "
                f"{', '.join(missing[:-1])} and {missing[-1]}"
            )
