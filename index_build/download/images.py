"""Download the selected rows' images with img2dataset, as webdataset shards that are checked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_build.base import batches
from index_build.base.batches import Batch
from index_build.download.job import TAKEN_DOWN, VARIABLE, Job
from xmore.files.errors import SnapshotError, is_shortage
from xmore.files.progress import counting

MODULE = "index_build.download.process"
PATIENCE = 600  # seconds beyond the longest time that its requests' limits allow a shard
SUCCESS = "success"


def download_shards(job: Job, shards: int) -> int:
    """Fetch the rows of `job.rows`/00000.parquet ... into `job.target`/00000.tar, 00000.parquet.

    Complete shards are skipped. Returns the number of shards fetched now. Memory: img2dataset's,
    two images per thread. Raises SnapshotError if the download does not complete.
    """
    job.target.mkdir(parents=True, exist_ok=True)
    for number in _done(job.target):
        if not _is_complete(job.target, number):
            forget(job.target, number)
    before = _done(job.target)
    if len(before) < shards:
        _run(job, shards)
        # A shard without any success looks like an outage, but img2dataset marks it as done.
        failed = [n for n in sorted(_done(job.target) - before) if not _succeeded(job.target, n)]
        for number in failed:
            forget(job.target, number)
        if failed:
            _run(job, shards)
    return shards - len(before)


def write_outcomes(batch: Batch) -> tuple[int, int]:
    """Record the outcome of each row of a downloaded batch -> numbers of rows and of images.

    Rows stay in the order of their shard. img2dataset writes in the order of the responses, which
    differs each time; its keys give each row's position. Memory: one shard's rows.
    """
    attempted = images = 0
    for number in range(batch.shards):
        name = f"{number:05d}.parquet"
        rows = pq.read_table(batch.rows / name)
        fetched = pq.read_table(
            batch.images / name,
            columns=["key", "status", "error_message", "sha256", "width", "height"],
        ).sort_by("key")
        if fetched.num_rows != rows.num_rows:
            raise SnapshotError(
                f"{batch.images / name}: has {fetched.num_rows} rows, expected {rows.num_rows}. "
                "Delete it, then run the same command again to resume."
            )
        facts = (fetched[column].to_pylist() for column in ("status", "error_message", "sha256"))
        outcomes = [_outcome(*row) for row in zip(*facts, strict=True)]
        columns = {
            "memory_key": pa.array([key for key, _ in outcomes], pa.string()),
            "width": fetched["width"],
            "height": fetched["height"],
            "image_path": pc.binary_join_element_wise(fetched["key"], "jpg", "."),
            "host": pa.array([_host(url) for url in rows["url"].to_pylist()], pa.string()),
            "cause": pa.array([cause for _, cause in outcomes], pa.string()),
        }
        tries = pc.add(rows["tries"], pa.scalar(1, pa.int32())).cast(pa.int32())
        table = rows.set_column(rows.column_names.index("tries"), "tries", tries)
        for column, values in columns.items():
            table = table.append_column(column, values)
        batches.write_outcomes(batch, number, table)
        attempted += len(table)
        images += table["cause"].null_count
    return attempted, images


def forget(target: Path, number: int) -> None:
    """Mark a shard for download by the next call."""
    for ending in ("_stats.json", ".parquet", ".tar"):  # img2dataset's own mark of done first
        (target / f"{number:05d}{ending}").unlink(missing_ok=True)


def forget_failed(batch: Batch, share: float) -> None:
    """Mark the shards with more than `share` of failed rows for download by the next run."""
    for number in batch.attempted():
        path = batch.outcome(number)
        causes = pq.read_table(path, columns=["cause"])["cause"]
        if len(causes) - causes.null_count > share * len(causes):
            batch.sums(number).unlink(missing_ok=True)
            path.unlink()
            forget(batch.images, number)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "none"
    except ValueError:
        return "none"


def _succeeded(target: Path, number: int) -> int:
    return _column(target, number, "status").count(SUCCESS)


def _done(target: Path) -> set[int]:
    return {int(path.name.split("_")[0]) for path in target.glob("*_stats.json")}


def _is_complete(target: Path, number: int) -> bool:
    """Return whether a shard marked as done is readable to its end: img2dataset does not fsync."""
    try:
        statuses = _column(target, number, "status")
        with tarfile.open(target / f"{number:05d}.tar") as tar:
            images = sum(member.name.endswith(".jpg") for member in tar)
    except (OSError, pa.ArrowInvalid, tarfile.TarError) as error:
        if is_shortage(error):
            raise
        return False
    return images == statuses.count(SUCCESS)


def _outcome(status: str, message: str | None, sha256: str | None) -> tuple[str | None, str | None]:
    """Return memory_key and cause of a row (at least one) from img2dataset's own columns."""
    if status == SUCCESS:
        return sha256, None
    # Causes of failed requests are our own, few and short; cv2's messages are neither.
    cause = message or "unknown" if status == "failed_to_download" else "cannot be scaled down"
    if cause.startswith(TAKEN_DOWN):
        return cause.removeprefix(TAKEN_DOWN).strip(), TAKEN_DOWN
    return sha256, cause


def _column(target: Path, number: int, name: str) -> list[str]:
    return pq.read_table(target / f"{number:05d}.parquet", columns=[name])[name].to_pylist()


def _run(job: Job, shards: int) -> None:
    """Run img2dataset in its own process group, which ends with this call in every case."""
    job.tally.unlink(missing_ok=True)
    log_path = job.target.with_name(f"{job.target.name}.log")
    environment = os.environ | {
        VARIABLE: job.model_dump_json(),
        "NO_ALBUMENTATIONS_UPDATE": "1",  # it would look for its newest version online
        "WANDB_MODE": "disabled",
    }
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,  # closes when this process ends, even by kill -9
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    try:
        before = sum(_rows(job, number) for number in _done(job.target))
        total = sum(_rows(job, number) for number in range(shards))
        with counting("memory downloading", total, "row") as report:
            report(before)
            _watch(process, job, lambda: report(min(before + _tallied(job), total)))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()
        job.tally.unlink(missing_ok=True)
    missing = shards - len(_done(job.target))
    if process.returncode or missing:
        # img2dataset exits with 0 even if it gave up shards.
        raise SnapshotError(
            f"{job.target}: img2dataset did not finish {missing} of {shards} shards, see "
            f"{log_path}. Complete shards are kept. Run the same command again to resume."
        )


def _rows(job: Job, number: int) -> int:
    return int(pq.read_metadata(job.rows / f"{number:05d}.parquet").num_rows)


def _tallied(job: Job) -> int:
    """Return the number of rows that the workers have requested."""
    return job.tally.stat().st_size if job.tally.exists() else 0


def _watch(process: subprocess.Popen[bytes], job: Job, report: Callable[[], None]) -> None:
    """Wait for the end; give up without progress: the pool never notices a killed worker."""
    bounds = job.bounds
    longest = job.shard_rows * bounds.timeout * (bounds.retries + 1) / bounds.threads + PATIENCE
    done, since = -1, time.monotonic()
    while process.poll() is None:
        now = len(_done(job.target))
        if now != done:
            done, since = now, time.monotonic()
        report()
        if time.monotonic() - since > longest:
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
