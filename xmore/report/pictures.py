"""The pictures of a run: its queries', and those behind the captions of its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
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
    """Bytes of images, none where they are gone."""

    reader: ImageReader | None  # of the test images
    snapshot: Snapshot | None

    def query(self, uri: str) -> bytes | None:
        """A test image."""
        with suppress(ImageRejected):
            return self.reader.read(uri) if self.reader else None
        return None

    def memory(self, memory_ids: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The images that captions belong to, as they lie."""
        return memory_pictures(self.snapshot, memory_ids) if self.snapshot else iter(())


@contextmanager
def pictures_of(run: Run, dataset: str) -> Iterator[RunImages]:
    """What is still here of the dataset and the snapshot that the run has read."""
    reader, data_root = None, run.config.get("data_root")
    for name in run.config["datasets"]:
        with suppress(XmoreError):
            card = load_card(name, Path(data_root) if data_root else None)
            reader = open_images(card) if card.name == dataset else reader
    memory, cache = Path(run.snapshot["memory"]), Path(run.config["results"]) / "cache"
    with ExitStack() as stack:
        snapshot = None
        with suppress(XmoreError):
            snapshot = stack.enter_context(open_memory(memory, cache, run.snapshot["name"]))
        yield RunImages(reader, snapshot)
