"""The job of one img2dataset process."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from xmore.config.memory import DownloadConfig

TAKEN_DOWN = "taken down"  # the failure cause of rows in a take-down list
VARIABLE = "XMORE_DOWNLOAD"  # environment variable that holds a Job as JSON


class Job(BaseModel, frozen=True):
    """The rows to download, the target folder, and the bounds."""

    rows: Path  # folder of 00000.parquet ...
    target: Path
    shard_rows: int
    bounds: DownloadConfig
    spark_master: str = "local[2]"
    taken: list[str] = []  # sha256 of images that may not come back

    @property
    def tally(self) -> Path:
        """A file to which each worker adds a byte for each row that it has requested."""
        return self.target.with_name(f"{self.target.name}.tally")
