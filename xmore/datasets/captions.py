"""A retrieval card's captions: which texts belong to which of its images, as others write them."""

from __future__ import annotations

import json
import posixpath
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from xmore.datasets.sources import Listing
from xmore.files.anchored import AnchoredPath
from xmore.files.errors import DatasetError
from xmore.files.paths import is_text
from xmore.files.tables import BAD_LINE, as_text, read_columns
from xmore.files.text import counted
from xmore.files.yaml import Section
from xmore.images.readers import Files

NO_CAPTION = "no caption"  # of an image
EMPTY = "empty caption"
NO_IMAGE = "no image named"
OF_REJECTED = "caption of a rejected image"
OF_CAPTIONS = (BAD_LINE, EMPTY, NO_IMAGE, OF_REJECTED)  # causes that count captions, not images


@dataclass(frozen=True)
class ImageCaptions:
    """The captions of each image. Memory: all texts."""

    of: dict[str, list[str]]  # uri -> its captions, in the file's order; none of an empty one
    rejected: list[tuple[str, str]]  # (uri, or the line that is none, cause): one per caption
    notes: list[str] = field(default_factory=list)  # what may be meant otherwise, a line each


class CaptionsFile(Section):
    """The captions of a retrieval card's images: one row per image and caption."""

    file: AnchoredPath = Field(
        description="Parquet, CSV, TSV or JSONL; or Karpathy's JSON, as dataset_flickr30k.json."
    )
    image: str = Field("image", description="Column of image paths, in the root.")
    caption: str = Field("caption", description="Column of captions.")
    split: str = Field("test", description="Of Karpathy's JSON: the images of which split.")

    def read(self) -> ImageCaptions:
        """Return the captions of all images that the file names. Raises DatasetError."""
        found = ImageCaptions({}, [])
        names: dict[str, str] = {}  # as first written, by normal path: `./a.jpg` is `a.jpg`
        for where, image, caption in self._rows(found.rejected):
            if not image:
                found.rejected.append((where, NO_IMAGE))
                continue
            uri = names.setdefault(posixpath.normpath(image), image)
            if uri == image and (image.startswith("/") or not _stays_inside(image)):
                raise DatasetError(
                    f"{self.file}: {where}: {reprlib.repr(image)} must stay inside the root. Write "
                    "paths relative to it."
                )
            texts = found.of.setdefault(uri, [])
            if caption and not is_text(caption):  # half of a character, in JSON
                found.rejected.append((uri, BAD_LINE))
            elif caption and caption.strip():
                texts.append(caption)
            else:
                found.rejected.append((uri, EMPTY))
        if not any(found.of.values()):
            raise DatasetError(f"{self.file}: has no image with a caption. Correct `captions`.")
        found.notes.extend(_repeated(found.of.values()))
        return found

    def listing(self, root: Path, follow_links: bool) -> Listing:
        """Return the images under `root` that have captions; none has a class. Raises DatasetError.

        An image without any caption that can be used is among the rejected.
        """
        of = self.read().of
        labels = {uri: 0 for uri, texts in of.items() if texts}
        without = [(uri, NO_CAPTION) for uri, texts in of.items() if not texts]
        return Listing(labels, None, Files(root, follow_links), without)

    def _rows(
        self, rejected: list[tuple[str, str]]
    ) -> Iterator[tuple[str, str | None, str | None]]:
        """Yield where each row is, its image and its caption; bad lines are `rejected`."""
        if self.file.suffix.lower() == ".json":
            yield from _of_karpathy(self.file, self.split)
            return
        try:
            table, bad = read_columns(self.file, [self.image, self.caption], ".csv")
        except DatasetError as error:
            raise DatasetError(f"{error} Correct `captions`.") from error
        rejected += [(line.partition(":")[0], BAD_LINE) for line in bad]
        columns = [
            as_text(table[name], f"{self.file}: column `{name}`", "null").to_pylist()
            for name in (self.image, self.caption)
        ]
        for number, (image, caption) in enumerate(zip(*columns, strict=True)):
            yield f"row {number}", image, caption


def _stays_inside(path: str) -> bool:
    return ".." not in path.split("/") and "\0" not in path and is_text(path)


def _repeated(captions: Iterable[list[str]]) -> list[str]:
    """Return a note on captions that one image has twice.

    They are kept: in published test sets two people have written the same, and others count both.
    """
    twice = [(n - 1, text) for texts in captions for text, n in Counter(texts).items() if n > 1]
    if not twice:
        return []
    number = sum(n for n, _ in twice)
    told = reprlib.repr(twice[0][1])
    return [f"{counted(number, 'caption')} of the same image again, such as {told}; all count."]


def _of_karpathy(file: Path, split: str) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the rows of one split of a JSON in Karpathy's form. Raises DatasetError."""
    try:
        images = json.loads(file.read_bytes())["images"]
        splits = Counter(image["split"] for image in images)
    except OSError as error:
        raise DatasetError(
            f"{file}: cannot be read ({error.strerror}). Correct `captions`."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{file}: not in Karpathy's form: no list `images` with a `split` each. Give a table "
            "of captions, or correct `captions`."
        ) from error
    if split not in splits:
        known = ", ".join(map(str, splits)) or "none"
        raise DatasetError(f"{file}: no split `{split}`; it has {known}. Correct `captions.split`.")
    for number, image in enumerate(images):
        if image["split"] == split:
            yield from _of_one(file, f"images[{number}]", image)


def _of_one(file: Path, where: str, image: Any) -> Iterator[tuple[str, str | None, str | None]]:
    try:
        path = posixpath.join(image.get("filepath", ""), image["filename"])
        texts = [sentence["raw"] for sentence in image["sentences"]]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(texts)
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{file}: {where}: must have a `filename` and `sentences`, each with its text `raw`."
        ) from error
    for text in texts or [None]:
        yield where, path, text
