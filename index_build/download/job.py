"""What one img2dataset process is told to do."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from xmore.config.memory import DownloadConfig

TAKEN_DOWN = "taken down"  # the cause of what a take-down list names
VARIABLE = "XMORE_DOWNLOAD"  # environment variable that holds a Job as JSON


class Job(BaseModel, frozen=True):
    """Rows to download, where to, and within which bounds."""

    rows: Path  # folder of 00000.parquet ...
    target: Path
    shard_rows: int
    bounds: DownloadConfig
    spark_master: str = "local[2]"
    taken: list[str] = []  # sha256 of images that may not come back
