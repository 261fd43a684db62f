"""Which rows a re-index downloads again: a table of causes, stated apart from the code."""

from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_build.base.batches import Batch, list_batches, write_batch
from index_build.download.fetch import is_retryable
from index_build.ledger import bounds_of, open_ledger
from xmore.config.memory import DownloadConfig

AGAIN = {
    None: False,  # its image came
    "timeout": True,
    "connection lost": True,
    "connection refused": True,
    "HTTP 429": True,
    "HTTP 500": True,
    "HTTP 503": True,
    "HTTP 599": True,
    "HTTP 302": False,
    "HTTP 404": False,
    "HTTP 410": False,
    "no such host": False,
    "TLS failed": False,
    "not a usable URL": False,
    "not an image": False,
    "truncated or damaged": False,
    "empty file": False,
    "too many bytes": False,
    "too many pixels": False,
    "forbidden by the server's X-Robots-Tag": False,
    "taken down": True,  # its take-down may have been lifted
}
BY_BOUNDS = {"too many bytes", "too many pixels", "forbidden by the server's X-Robots-Tag"}


@pytest.fixture
def memory(tmp_path):
    """One batch, each of whose rows came to another of the causes, once."""
    bounds = bounds_of(DownloadConfig())
    batch = Batch(tmp_path / "batches" / "00001-urls", "urls", "urls", None, "asked", bounds, 1)
    batch.outcomes.mkdir(parents=True)
    write_batch(batch)
    keys = [str(i) for i in range(len(AGAIN))]
    outcomes = {
        "row_key": keys,
        "memory_key": pa.nulls(len(AGAIN), pa.string()),
        "cause": pa.array(AGAIN, pa.string()),
        "tries": [1] * len(AGAIN),
        "host": pa.nulls(len(AGAIN), pa.string()),
    }
    pq.write_table(pa.table(outcomes), batch.outcomes / "00000.parquet")
    pq.write_table(pa.table({"row_key": keys, "url": keys}), tmp_path / "wanted.parquet")
    assert list_batches(tmp_path)
    return tmp_path


def tried_again(memory, **changes) -> set[str | None]:
    listed = SimpleNamespace(source=SimpleNamespace(urls=True))
    wanted = SimpleNamespace(files=[memory / "wanted.parquet"], listed=listed)
    with open_ledger(memory, [wanted], [], DownloadConfig(**changes)) as ledger:
        rows = ledger.db.execute(f"select row_key from ({ledger.new_rows(0)})").fetchall()
        assert ledger.count_new(0) == len(rows)
    causes = list(AGAIN)
    return {causes[int(key)] for (key,) in rows}


def test_what_may_pass_is_asked_for_again(memory):
    assert tried_again(memory) == {cause for cause, again in AGAIN.items() if again}


def test_nothing_is_asked_for_again_for_ever(memory):
    assert tried_again(memory, tries=1) == {"taken down"}


def test_what_a_bound_stopped_is_asked_for_again_under_another_bound(memory):
    more = tried_again(memory, max_bytes=1) - tried_again(memory)
    assert more == BY_BOUNDS


def test_a_request_is_repeated_at_once_for_the_same_causes():
    of_requests = [cause for cause in AGAIN if cause and cause != "taken down"]
    assert [cause for cause in of_requests if is_retryable(cause)] == [
        cause for cause in of_requests if AGAIN[cause]
    ]
