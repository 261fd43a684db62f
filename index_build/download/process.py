"""img2dataset in a separate process: `python -m index_build.download.process`.

It installs signal handlers, so it needs its own main thread. It spawns a pool and a logger, or
hands its shards to Spark; these processes import this module again. The job comes as JSON in the
environment variable XMORE_DOWNLOAD. images.py starts this process; see also worker.py.

Its standard input is a pipe that closes when the starting process ends in any way. Then the
complete process group is killed, and nothing is left downloading.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import nullcontext
from typing import Any


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: its lock would be held at exit
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    # Before the imports below: they take seconds, in which the starting process may end.
    threading.Thread(target=_end_with_parent, daemon=True).start()

import importlib  # noqa: E402

import img2dataset  # noqa: E402

from index_build.base.spark import spark_session  # noqa: E402
from index_build.download.job import VARIABLE  # noqa: E402
from index_build.download.worker import JOB, BoundedDownloader  # noqa: E402
from xmore.files.locks import locked  # noqa: E402
from xmore.files.paths import without_patterns  # noqa: E402


def main() -> None:
    """Download the images of the job's rows as webdataset shards."""
    # Imported by name: the package's function `main` hides the module.
    module: Any = importlib.import_module("img2dataset.main")
    module.Downloader = BoundedDownloader
    spark = JOB.bounds.distributor == "pyspark"
    environment = {VARIABLE: os.environ[VARIABLE], "NO_ALBUMENTATIONS_UPDATE": "1"}
    session = spark_session(JOB.spark_master, environment) if spark else nullcontext()
    lock = locked(JOB.target.with_name(f"{JOB.target.name}.lock"))
    with lock, session, without_patterns(JOB.rows) as rows, without_patterns(JOB.target) as target:
        img2dataset.download(
            url_list=str(rows),
            input_format="parquet",
            url_col="url",
            caption_col="caption",
            output_folder=str(target),
            output_format="webdataset",
            number_sample_per_shard=JOB.shard_rows,
            distributor=JOB.bounds.distributor,
            processes_count=JOB.bounds.processes,
            thread_count=JOB.bounds.threads,
            retries=JOB.bounds.retries,
            image_size=JOB.bounds.image_size,
            resize_mode="keep_ratio",
            resize_only_if_bigger=True,
            skip_reencode=True,
            extract_exif=False,
            compute_hash="sha256",
            user_agent_token=JOB.bounds.user_agent,
            disallowed_header_directives=(
                JOB.bounds.opt_out_directives if JOB.bounds.honour_opt_out else []
            ),
        )


if __name__ == "__main__":
    main()
