"""img2dataset in a process of its own: `python -m index_build.img2dataset_process`.

It installs signal handlers, so it must own a main thread; it spawns a pool and a logger, which
import this module again, so what is changed in img2dataset is changed at import. What to do comes
as JSON in the environment variable XMORE_DOWNLOAD; see index_build/download.py, which starts it.

Its standard input is a pipe that closes when the starting process ends, however that ends: then
the whole process group goes, and nothing is left downloading.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
from http.client import HTTPMessage


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: its lock would be held at exit
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    # Before the imports below: they take seconds, in which the starting process may end.
    threading.Thread(target=_end_with_parent, daemon=True).start()

import img2dataset  # noqa: E402
import img2dataset.downloader  # noqa: E402

from index_build.fetch import FetchFailed, fetch_image, may_pass  # noqa: E402
from index_build.img2dataset_job import TAKEN_DOWN, VARIABLE, Job  # noqa: E402
from xmore.locks import locked  # noqa: E402


def fetch_row(
    row: tuple[int, str],
    timeout: float,
    retries: int,
    user_agent_token: str | None,
    disallowed_header_directives: set[str] | None,
) -> tuple[int, io.BytesIO | None, str | None]:
    """Stands in for img2dataset's `download_image_with_retry`: the same, within bounds."""

    def refused(headers: HTTPMessage) -> bool:
        return bool(disallowed_header_directives) and img2dataset.downloader.is_disallowed(
            headers, user_agent_token, disallowed_header_directives
        )

    key, url = row
    cause = ""
    for _ in range(retries + 1):
        try:
            data = fetch_image(url, JOB.bounds, refused)
            digest = hashlib.sha256(data).hexdigest()
            if digest in TAKEN:
                return key, None, f"{TAKEN_DOWN} {digest}"
            return key, io.BytesIO(data), None
        except FetchFailed as error:
            cause = error.cause
        if not may_pass(cause):
            break
    return key, None, cause


def main() -> None:
    """Download what the job's rows name as webdataset shards."""
    with locked(JOB.target.with_name(f"{JOB.target.name}.lock")):
        img2dataset.download(
            url_list=str(JOB.rows),
            input_format="parquet",
            url_col="url",
            caption_col="caption",
            output_folder=str(JOB.target),
            output_format="webdataset",
            number_sample_per_shard=JOB.shard_rows,
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


JOB = Job.model_validate_json(os.environ[VARIABLE])
TAKEN = frozenset(JOB.taken)
img2dataset.downloader.download_image_with_retry = fetch_row

if __name__ == "__main__":
    main()
