"""What each method costs: seconds an image and memory, of all stages that its answers come from.

An artifact that was there already costs what it did when it was made, by the newest run that made
it. Not counted: listing the images, and all of a memory's making.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmore.methods import METHODS
from xmore.runs import Run
from xmore.store import ArtifactRef, read_manifest

COUNTED = (
    "query_embeddings",
    "view_embeddings",
    "candidates",
    "captions",
    "scores",
    "method_scores",
    "predictions",
)


@dataclass(frozen=True)
class Cost:
    """Of one method on one dataset under one model; None where no run says it."""

    dataset: str
    model: str
    method: str
    m: int | None
    seconds_per_image: float | None
    peak_memory_mb: float | None  # of the process, in whichever stage it was largest


def costs(run: Run, earlier: Iterable[Run]) -> list[Cost]:
    """Costs of every method of `run`; `earlier` runs, the oldest first, made what it skipped."""
    made = {ref.path: ref for one in (*earlier, run) for ref in one.artifacts if not ref.skipped}
    found: dict[str, dict[str, ArtifactRef]] = defaultdict(dict)  # by dataset, then by digest
    for ref in run.artifacts:
        found[ref.dataset][ref.digest] = made.get(ref.path, ref)
    return [
        _cost(ref, by_digest)
        for by_digest in found.values()
        for ref in by_digest.values()
        if ref.stage == "predictions"
    ]


def _cost(answers: ArtifactRef, by_digest: dict[str, ArtifactRef]) -> Cost:
    params = _manifest(answers)["params"]
    method = params["method"][0]
    chain = {ref.digest: ref for ref in _chain(answers, by_digest, method)}.values()
    known = all(not ref.skipped for ref in chain)
    seconds = sum(ref.seconds / max(_images(ref), 1) for ref in chain)
    peak = max((ref.peak_rss_mb for ref in chain if ref.peak_rss_mb), default=None)
    return Cost(
        answers.dataset,
        str(answers.model),
        method,
        params["m"],
        seconds if known else None,
        peak if known else None,
    )


def _chain(
    ref: ArtifactRef, by_digest: dict[str, ArtifactRef], method: str
) -> Iterator[ArtifactRef]:
    """The artifacts that a method's answers come from, `ref` first.

    `scores` holds two opinions: a method that reads the image's alone has no use for captions.
    """
    inputs = [by_digest[digest] for digest in _manifest(ref)["inputs"] if digest in by_digest]
    if ref.stage == "scores" and "text_scores" not in METHODS[method].needs:
        inputs = [each for each in inputs if each.stage == "query_embeddings"]
    elif ref.stage in COUNTED:
        yield ref
    for each in inputs:
        yield from _chain(each, by_digest, method)


def _images(ref: ArtifactRef) -> int:
    """How many test images an artifact is of."""
    params = _manifest(ref)["params"]
    if ref.stage == "view_embeddings":
        return ref.rows // params["count"]
    if ref.stage == "predictions":
        return ref.rows // len(params["variants"])
    return ref.rows


def _manifest(ref: ArtifactRef) -> dict[str, Any]:
    return read_manifest(Path(ref.path))
