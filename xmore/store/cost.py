"""What an artifact cost: `cost.json` beside its manifest, which later runs and copies find there.

Time is no part of an artifact: parts and manifest are the same however often its work was stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from xmore.files.errors import is_shortage
from xmore.files.paths import write_whole
from xmore.files.sealed import sealed
from xmore.store.contracts import CostFile, read_contract

COST = "cost.json"


@dataclass
class Stopwatch:
    """The time and peak memory of a stage, from its beginning; artifacts are charged for laps."""

    begun: float
    charged: float  # when the last lap ended
    seconds: float = 0.0  # of the whole stage, once it has ended
    peak: float | None = None  # MB of resident memory of the process

    def lap(self) -> float:
        """Return the seconds since the last lap ended; the next one begins."""
        now = time.perf_counter()
        lap, self.charged = now - self.charged, now
        return lap


_running: ContextVar[Stopwatch | None] = ContextVar("_running", default=None)


@contextmanager
def measuring() -> Iterator[Stopwatch]:
    """Measure a block; the artifacts that are written in it are charged for it."""
    now = time.perf_counter()
    watch = Stopwatch(now, now)
    _reset_peak()
    token = _running.set(watch)
    try:
        yield watch
    finally:
        _running.reset(token)
    watch.seconds, watch.peak = round(time.perf_counter() - watch.begun, 3), _peak()


class Meter:
    """Adds what an artifact costs to its `cost.json`, over all attempts."""

    def __init__(self, folder: Path, resumed: bool) -> None:
        """Continue a folder's cost if it was `resumed`; without a record it stays unknown."""
        now = time.perf_counter()
        self._watch = _running.get() or Stopwatch(now, now)
        self._path = folder / COST
        earlier = read_cost(folder) if resumed else None
        self.seconds = 0.0 if not resumed else earlier["seconds"] if earlier else None
        self.peak = earlier["peak_rss_mb"] if earlier else None

    def charge(self) -> None:
        """Add what was spent since the last charge, and write the file."""
        lap, peaks = self._watch.lap(), [peak for peak in (self.peak, _peak()) if peak]
        self.peak = max(peaks, default=None)
        if self.seconds is not None:
            self.seconds = round(self.seconds + lap, 3)
        write_cost(self._path.parent, self.seconds, self.peak)


def write_cost(folder: Path, seconds: float | None, peak: float | None) -> None:
    """Write the cost of the artifact in `folder`: seconds, and MB of resident memory."""
    write_whole(folder / COST, sealed({"seconds": seconds, "peak_rss_mb": peak}))


def read_cost(folder: Path) -> CostFile | None:
    """Return the cost beside an artifact; None if there is none that can be read."""
    try:
        return read_contract(folder / COST, CostFile)  # type: ignore[return-value]
    except (OSError, ValueError) as error:
        if is_shortage(error):
            raise
        return None


def _reset_peak() -> None:
    # Not Linux, or not allowed: the peak is then the process's since its start.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 1024, 1)
