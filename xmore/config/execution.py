"""How the work is done: devices, batches, workers, clusters."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from xmore.files.yaml import Section


class ExecutionConfig(Section):
    """How the work is done. Changes speed and memory, never an artifact's digest."""

    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:1`.")
    batch_size: int = Field(64, ge=1, description="Images or texts in one forward pass.")
    workers: int = Field(
        0,
        ge=0,
        description="Processes that decode images; 0: one for a model on the CPU, all cores but "
        "one beside a GPU.",
    )
    part_rows: int = Field(
        1024, ge=1, description="Queries in one part: the unit of progress, memory and resume."
    )
    runner: Literal["local", "dask", "ray"] = Field(
        "local",
        description="Where images are embedded and candidates found: here, or on the workers of "
        "a Dask or Ray cluster that see the same folders.",
    )
    runners: int = Field(2, ge=1, description="Workers to start here, where no address is given.")
    address: str | None = Field(None, description="Of a Dask scheduler or Ray head that runs.")

    @model_validator(mode="after")
    def _address_has_a_runner(self) -> Self:
        if self.address and self.runner == "local":
            raise ValueError("`address` needs `runner: dask` or `runner: ray`")
        return self
