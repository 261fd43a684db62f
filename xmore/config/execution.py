"""The configuration of execution: devices, batches, workers, clusters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from xmore.files.yaml import Section


class ExecutionConfig(Section):
    """How the work is executed. Changes speed and memory, never an artifact's digest."""

    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:1`.")
    devices: Literal["one", "all"] = Field(
        "one",
        description="`all`: every GPU that torch sees, with a worker process each. They share out "
        "the parts of a stage and the shards of a re-index.",
    )
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["auto"] = Field(
        "auto",
        description="Images or texts per forward pass. `auto`: 64 on a CPU; on a GPU by the "
        "models' input and the free memory, up to 1024. A run keeps its own, in run.json.",
    )
    workers: int = Field(
        0,
        ge=0,
        description="Processes that decode images; 0: one for a model on the CPU, all cores but "
        "one for a model on a GPU.",
    )
    part_rows: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Queries per part: the unit of progress, memory and resume.",
    )
    runner: Literal["local", "dask", "ray"] = Field(
        "local",
        description="Where a benchmark's stages run and a memory's images are embedded: on this "
        "machine, or on the workers of a Dask or Ray cluster with the same folders.",
    )
    runners: int = Field(
        2, ge=1, description="Workers to start on this machine if there is no `address`."
    )
    address: str | None = Field(
        None, description="Address of a running Dask scheduler or Ray head."
    )

    @model_validator(mode="after")
    def _address_has_a_runner(self) -> Self:
        if self.address and self.runner == "local":
            raise ValueError("`address` needs `runner: dask` or `runner: ray`")
        return self

    @model_validator(mode="after")
    def _all_devices_are_this_machines(self) -> Self:
        if self.devices == "all" and self.runner != "local":
            raise ValueError(
                "`devices: all` needs `runner: local`; a cluster's workers take one each"
            )
        if self.devices == "all" and self.device != "auto":
            raise ValueError(
                f"`devices: all` contradicts `device: {self.device}`; remove one of them"
            )
        return self
