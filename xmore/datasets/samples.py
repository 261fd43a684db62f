"""The samples of a webdataset's shard: images, and the labels that belong to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from xmore.files.errors import DatasetError
from xmore.images.webdataset import IMAGES, Member, Shard

MAX_LABEL_BYTES = 20


def samples(path: Path) -> Iterator[tuple[Member, int | str]]:
    """Yield each image of a shard with its label, or with the cause why it has none.

    A label without an image is yielded, too, and what a key has twice. Raises DatasetError.
    """
    images: dict[str, list[Member]] = {}
    labels: dict[str, tuple[Member, bytes]] = {}
    spoiled = set[str]()
    with Shard(path, {*IMAGES, "cls"}) as shard:
        for member in shard:
            if member.cause and member.extension == "cls":
                continue  # its image has no label
            if member.cause:
                spoiled.add(member.key)
                yield member, member.cause
            elif member.extension != "cls":
                images.setdefault(member.key, []).append(member)
            elif member.key in labels:
                yield member, "second label of a key"
            else:
                labels[member.key] = member, shard.read(member, MAX_LABEL_BYTES + 1)
    if shard.fault:
        raise DatasetError(f"{path}: not a complete tar ({shard.fault}). Download it again.")
    for key, found in images.items():
        first, *others = sorted(found, key=lambda member: IMAGES.index(member.extension))
        yield first, _label(labels.pop(key)[1]) if key in labels else "no label"
        for member in others:
            yield member, "second image of a key"
    for key, (member, _) in labels.items():
        if key not in spoiled:
            yield member, "no image"


def _label(text: bytes) -> int | str:
    with suppress(ValueError):
        if len(text) <= MAX_LABEL_BYTES:
            return int(text)
    return "label is not a number"
