"""`xmore explain --html`: how a query was classified, as a page that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from xmore.files.paths import write_whole
from xmore.report.html import inline, render
from xmore.results.explain import Explanation

LEFT_OUT = "No predictions: this test image is in the memory and was excluded (`leaks.exclude`)."
MemoryImages = Callable[[Iterable[int]], Iterable[tuple[int, bytes]]]


def explain_page(found: Explanation, query_image: bytes | None, memory: MemoryImages) -> str:
    """Return an explanation as HTML that embeds its images.

    `memory` maps memory_ids to pairs of memory_id and image bytes; rows without an image may be
    absent.
    """
    ids = [row.memory_id for row in found.captions]
    pictures = dict.fromkeys(ids) | {i: inline(data) for i, data in memory(ids)}
    return render(
        "explain.html", found=found, image=inline(query_image), pictures=pictures, left_out=LEFT_OUT
    )


def write_page(
    found: Explanation, query_image: bytes | None, memory: MemoryImages, path: Path
) -> None:
    """Write `explain_page` to a file."""
    write_whole(path, explain_page(found, query_image, memory).encode())
