"""The pictures of a run: its queries', and those behind the captions of its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from index_build.pictures import memory_picture
from xmore.adopt import open_memory
from xmore.dataset import load_card
from xmore.errors import XmoreError
from xmore.images import ImageRejected, read_image
from xmore.memory import Snapshot
from xmore.runs import Run


@dataclass(frozen=True)
class Pictures:
    """Bytes of images, none where they are gone."""

    root: Path | None  # of the test images
    snapshot: Snapshot | None

    def query(self, uri: str) -> bytes | None:
        """A test image."""
        if self.root is None or not (self.root / uri).resolve().is_relative_to(self.root.resolve()):
            return None
        with suppress(ImageRejected):
            return read_image(self.root / uri)
        return None

    def memory(self, memory_id: int) -> bytes | None:
        """The image that a caption belongs to."""
        return memory_picture(self.snapshot, memory_id) if self.snapshot else None


@contextmanager
def pictures_of(run: Run, dataset: str) -> Iterator[Pictures]:
    """What is still here of the dataset and the snapshot that the run has read."""
    root = None
    for name in run.config["datasets"]:
        with suppress(XmoreError):
            card = load_card(name)
            root = card.root if card.name == dataset else root
    memory, cache = Path(run.snapshot["memory"]), Path(run.config["results"]) / "cache"
    with ExitStack() as stack:
        snapshot = None
        with suppress(XmoreError):
            snapshot = stack.enter_context(open_memory(memory, cache, run.snapshot["name"]))
        yield Pictures(root, snapshot)
