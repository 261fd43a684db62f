"""`queries` of a retrieval dataset: its images, with their `image_captions` and its `rejected`."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from tasks.queries import query_rows, usable, write_rejected
from tasks.stage import Workspace, stage
from xmore.config.benchmark import BenchmarkConfig
from xmore.datasets.captions import OF_REJECTED, CaptionsFile, ImageCaptions
from xmore.datasets.card import DatasetCard
from xmore.datasets.scan import Scan
from xmore.files.digests import digest_of
from xmore.files.errors import DatasetError, printable
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, split_rows

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Captioned:
    """A retrieval dataset's images and captions that can be used."""

    images: Scan
    captions: list[tuple[int, str]]  # query_id and text, by image
    rejected: list[tuple[str, str]]  # images, then captions


@stage("queries {card.name}")
def captioned_queries(
    work: Workspace, card: DatasetCard, config: BenchmarkConfig
) -> tuple[ArtifactRef, ArtifactRef, ArtifactRef]:
    """List, hash and check images -> refs of `queries`, `image_captions` and `rejected`.

    Raises DatasetError if none or too few of the images or of the captions can be used.
    """
    found = _captioned(work, card, config)
    files = [[query.uri, query.sha256] for query in found.images.queries]
    rows = work.execution.part_rows
    listed = work.store.write(
        ArtifactKey("queries", card.name, {"task": card.task, "files": files}),
        split_rows(len(files), rows),
        lambda start, stop: query_rows(found.images, start, stop),
    )
    params = {"captions": digest_of(found.captions)}
    captions = work.store.write(
        ArtifactKey("image_captions", card.name, params, (listed.digest,)),
        split_rows(len(found.captions), rows),
        lambda start, stop: _captions(found.captions[start:stop], start),
    )
    return listed, captions, write_rejected(work, card.name, found.rejected)


def _captioned(work: Workspace, card: DatasetCard, config: BenchmarkConfig) -> Captioned:
    file = card.captions
    assert file is not None, card.name  # of a retrieval card: see DatasetCard
    texts = file.read()
    images = usable(work, card, config)
    for note in texts.notes:
        log.warning("%s", printable(f"dataset `{card.name}`: {note}"))
    captions = [
        (number, text)
        for number, query in enumerate(images.queries)
        for text in texts.of[query.uri]
    ]
    unused = _unused(texts, images, trial=config.limit is not None)
    _check_share(file, unused, len(captions), config.max_rejected)
    return Captioned(images, captions, [*images.rejected, *unused])


def _unused(texts: ImageCaptions, images: Scan, trial: bool) -> list[tuple[str, str]]:
    """Return the captions that cannot be used; of a trial run those of its images."""
    rejected = {uri for uri, _ in images.rejected}
    asked = rejected | {query.uri for query in images.queries}
    own = [each for each in texts.rejected if each[0] in asked or not trial]
    return own + [(uri, OF_REJECTED) for uri in sorted(rejected) for _ in texts.of[uri]]


def _check_share(file: CaptionsFile, unused: list[tuple[str, str]], used: int, most: float) -> None:
    wrong = Counter(cause for _, cause in unused if cause != OF_REJECTED)
    count = wrong.total()
    if count > most * (count + used):
        causes = ", ".join(f"{n} {cause}" for cause, n in wrong.most_common())
        where = next(where for where, cause in unused if cause != OF_REJECTED)
        raise DatasetError(
            f"{file.file}: {count} of {count + used} captions cannot be used ({causes}), the first "
            f"is of {where}. Fix them or raise `max_rejected`."
        )


def _captions(part: list[tuple[int, str]], start: int) -> pa.Table:
    ids, texts = [number for number, _ in part], [text for _, text in part]
    columns = {"caption_id": range(start, start + len(part)), "query_id": ids, "caption": texts}
    return pa.table(columns, schema=schemas.IMAGE_CAPTIONS)
