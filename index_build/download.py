"""Download the selected rows' images with img2dataset, as webdataset shards that can be trusted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index_build.img2dataset_job import VARIABLE, Job
from xmore.errors import SnapshotError
from xmore.progress import counting

MODULE = "index_build.img2dataset_process"
PATIENCE = 600  # seconds beyond the longest that a shard can take by its requests' time limits
SUCCESS = "success"


def download_shards(job: Job, shards: int) -> tuple[Counter[str], int]:
    """Fetch the rows of `job.rows`/00000.parquet ... into `job.target`/00000.tar, 00000.parquet.

    Returns the outcomes, "success" or a failure's cause, and how many shards were fetched now:
    those that are whole already are left alone. Memory is bounded by img2dataset's: two images a
    thread. Raises SnapshotError where the download fails as a whole.
    """
    job.target.mkdir(parents=True, exist_ok=True)
    for number in _done(job.target):
        if not _is_whole(job.target, number):
            forget(job.target, number)
    before = _done(job.target)
    if len(before) < shards:
        _run(job, shards)
        # A shard without one success looks like an outage; img2dataset would call it done.
        failed = [n for n in sorted(_done(job.target) - before) if not _outcomes(job, n)[SUCCESS]]
        for number in failed:
            forget(job.target, number)
        if failed:
            _run(job, shards)
    outcomes = sum((_outcomes(job, number) for number in range(shards)), Counter[str]())
    return outcomes, shards - len(before)


def forget(target: Path, number: int) -> None:
    """Have a shard downloaded anew by the next call."""
    for ending in ("_stats.json", ".parquet", ".tar"):  # img2dataset's own mark of done first
        (target / f"{number:05d}{ending}").unlink(missing_ok=True)


def forget_failed(job: Job, shards: int, share: float) -> None:
    """Have the shards of which more than `share` has failed downloaded anew by the next call."""
    for number in range(shards):
        outcomes = _outcomes(job, number)
        if outcomes.total() - outcomes[SUCCESS] > share * outcomes.total():
            forget(job.target, number)


def _done(target: Path) -> set[int]:
    return {int(path.name.split("_")[0]) for path in target.glob("*_stats.json")}


def _is_whole(target: Path, number: int) -> bool:
    """Whether a shard that img2dataset calls done can be read to its end: it does not sync."""
    try:
        statuses = _column(target, number, "status")
        with tarfile.open(target / f"{number:05d}.tar") as tar:
            images = sum(member.name.endswith(".jpg") for member in tar)
    except (OSError, pa.ArrowInvalid, tarfile.TarError):
        return False
    return images == statuses.count(SUCCESS)


def _outcomes(job: Job, number: int) -> Counter[str]:
    statuses = _column(job.target, number, "status")
    messages = _column(job.target, number, "error_message")
    return Counter(
        SUCCESS if status == SUCCESS else _cause(status, message)
        for status, message in zip(statuses, messages, strict=True)
    )


def _cause(status: str, message: str | None) -> str:
    # Causes of failed requests are ours, few and short; what cv2 says of an image is neither.
    return message or "unknown" if status == "failed_to_download" else "cannot be scaled down"


def _column(target: Path, number: int, name: str) -> list[str]:
    return pq.read_table(target / f"{number:05d}.parquet", columns=[name])[name].to_pylist()


def _run(job: Job, shards: int) -> None:
    """img2dataset in its own process group, which ends with this call, however that ends."""
    log_path = job.target.with_name(f"{job.target.name}.log")
    environment = os.environ | {
        VARIABLE: job.model_dump_json(),
        "NO_ALBUMENTATIONS_UPDATE": "1",  # it would ask the network for its newest version
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
        with counting("memory downloading", shards, "shard") as report:
            _watch(process, job, report)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            process.stdin.close()
    missing = shards - len(_done(job.target))
    if process.returncode or missing:
        # img2dataset ends well even if it gave shards up.
        raise SnapshotError(
            f"{job.target}: img2dataset left {missing} of {shards} shards undone, see {log_path}. "
            "What is whole is kept; run again to go on."
        )


def _watch(process: subprocess.Popen[bytes], job: Job, report: Callable[[int], None]) -> None:
    """Wait for the end. A worker that the system killed is never missed by its pool: give up."""
    bounds = job.bounds
    longest = job.shard_rows * bounds.timeout * (bounds.retries + 1) / bounds.threads + PATIENCE
    done, since = -1, time.monotonic()
    while process.poll() is None:
        now = len(_done(job.target))
        if now != done:
            done, since = now, time.monotonic()
            report(done)
        if time.monotonic() - since > longest:
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
