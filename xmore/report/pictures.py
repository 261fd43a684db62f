"""The images of a run: its queries, and the memory images of its captions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xmore.datasets.card import load_card
from xmore.datasets.scan import open_images
from xmore.files.errors import XmoreError
from xmore.images.decode import ImageRejected
from xmore.images.readers import ImageReader
from xmore.memory.adopt import open_memory
from xmore.memory.pictures import memory_pictures
from xmore.memory.snapshot import Snapshot
from xmore.results.runs import Run


@dataclass(frozen=True)
class RunImages:
    """The bytes of a run's images, as far as they still exist."""

    reader: ImageReader | None  # of the test images
    snapshot: Snapshot | None

    def query(self, uri: str) -> bytes | None:
        """Return the bytes of a test image; None if it cannot be read."""
        with suppress(ImageRejected):
            return self.reader.read(uri) if self.reader else None
        return None

    def memory(self, memory_ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (memory_id, bytes) of memory images, in the order of storage."""
        return pictures_in(self.snapshot)(memory_ids)


def pictures_in(
    snapshot: Snapshot | None,
) -> Callable[[Iterable[int]], Iterator[tuple[int, bytes]]]:
    """Return what yields a snapshot's images of memory_ids, none without a snapshot."""
    return partial(memory_pictures, snapshot) if snapshot else lambda _: iter(())


NO_IMAGES = RunImages(None, None)


@contextmanager
def pictures_of(run: Run, dataset: str) -> Iterator[RunImages]:
    """Open the dataset and the snapshot that the run has read, as far as they exist."""
    reader, data_root = None, run.config.get("data_root")
    for name in run.config["datasets"]:
        with suppress(XmoreError):
            card = load_card(name, Path(data_root) if data_root else None)
            reader = open_images(card) if card.name == dataset else reader
    read, cache = run.snapshot, run.results / "cache"
    with ExitStack() as stack:
        snapshot = None
        with suppress(XmoreError):
            if read:
                opened = open_memory(Path(read["memory"]), cache, read["name"])
                snapshot = stack.enter_context(opened)
        yield RunImages(reader, snapshot)
