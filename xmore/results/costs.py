"""The cost of each method: seconds per image and memory, of all stages behind its predictions.

The cost of an artifact lies beside it, whichever run built it. Of an older artifact, it is that of
the newest run that built it. Not counted: listing the images, and building the memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmore.results.runs import Run
from xmore.store.artifacts import ArtifactRef
from xmore.store.checks import read_manifest
from xmore.store.cost import read_cost

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
    """The cost of one method on one dataset under one model; None if it was not recorded."""

    dataset: str
    model: str
    method: str
    m: int | None
    prompt_set: str
    seconds_per_image: float | None
    peak_memory_mb: float | None  # of the process, the maximum over the stages


def costs(run: Run, earlier: Iterable[Run]) -> list[Cost]:
    """Return the cost of every method of `run`.

    `earlier` are the runs, oldest first, that built the artifacts without a cost beside them.
    """
    paid = {
        ref.path: (ref.seconds, ref.peak_rss_mb)
        for one in earlier
        for ref in one.artifacts
        if not ref.skipped
    }
    found: dict[str, dict[str, _Artifact]] = defaultdict(dict)  # dataset -> digest -> artifact
    for ref in run.artifacts:
        manifest, beside = read_manifest(Path(ref.path)), read_cost(Path(ref.path))
        cost = (beside["seconds"], beside["peak_rss_mb"]) if beside else paid.get(ref.path)
        artifact = _Artifact(ref, manifest["params"], manifest.get("inputs", []), *cost or ())
        found[ref.dataset][ref.digest] = artifact
    return [_cost(ref, found[ref.dataset]) for ref in run.artifacts if ref.stage == "predictions"]


@dataclass(frozen=True)
class _Artifact:
    """An artifact with its cost when it was built, and entries of its manifest."""

    ref: ArtifactRef
    params: dict[str, Any]
    inputs: list[str]  # digests
    seconds: float | None = None
    peak_rss_mb: float | None = None

    @property
    def images(self) -> int:
        """The number of its test images."""
        if self.ref.stage == "view_embeddings":
            return self.ref.rows // self.params["count"]
        if self.ref.stage == "predictions":
            return self.ref.rows // len(self.params["variants"])
        return self.ref.rows


def _cost(ref: ArtifactRef, by_digest: dict[str, _Artifact]) -> Cost:
    predictions = by_digest[ref.digest]
    method = predictions.params["method"][0]
    chain = {
        artifact.ref.digest: artifact
        for artifact in _chain(predictions, by_digest, _combines(predictions, by_digest))
    }.values()
    seconds = [a.seconds / max(a.images, 1) for a in chain if a.seconds is not None]
    known = len(seconds) == len(chain)
    peak = max((a.peak_rss_mb for a in chain if a.peak_rss_mb), default=None)
    return Cost(
        ref.dataset,
        str(ref.model),
        method,
        predictions.params["m"],
        ref.prompt_set,
        sum(seconds) if known else None,
        peak if known else None,
    )


def _combines(predictions: _Artifact, by_digest: dict[str, _Artifact]) -> bool:
    """Return whether a method reads text scores: it reads captions, and has no own scores."""
    inputs = [by_digest[digest] for digest in predictions.inputs if digest in by_digest]
    own = any(each.ref.stage == "method_scores" for each in inputs)
    return predictions.params["m"] is not None and not own


def _chain(
    artifact: _Artifact, by_digest: dict[str, _Artifact], text_scores: bool
) -> Iterator[_Artifact]:
    """Yield the artifacts behind a method's predictions, `artifact` first.

    `scores` contains image and text scores: for a method that reads no text scores, the captions
    behind them do not count.
    """
    inputs = [by_digest[digest] for digest in artifact.inputs if digest in by_digest]
    if artifact.ref.stage == "scores" and not text_scores:
        inputs = [each for each in inputs if each.ref.stage == "query_embeddings"]
    elif artifact.ref.stage in COUNTED:
        yield artifact
    for each in inputs:
        yield from _chain(each, by_digest, text_scores)
