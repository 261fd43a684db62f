"""The bytes of images, by their `uri`: files, members of tars, items of torchvision.

Readers can be sent to worker processes. All raise ImageRejected, whose cause is to be counted.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xmore.images.decode import ImageRejected, read_image


class ImageReader(Protocol):
    """Images by their uri."""

    def read(self, uri: str) -> bytes:
        """The bytes of an image; raises ImageRejected."""

    def file_of(self, uri: str) -> str | None:
        """The file under the root whose size and time tell of a change; none: there is none."""


@dataclass(frozen=True)
class Files:
    """Image files under a root, which they must not leave."""

    root: Path

    def read(self, uri: str) -> bytes:
        path = self.root / uri
        try:
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise ImageRejected("link out of the root")
        except (OSError, RuntimeError) as error:  # loops of links
            raise ImageRejected("unreadable file") from error
        return read_image(path)

    def file_of(self, uri: str) -> str | None:
        return uri


@dataclass(frozen=True)
class Tars:
    """Members of tars, read where they lie: nothing is ever unpacked."""

    root: Path
    places: Mapping[str, tuple[str, int, int]]  # uri -> tar under the root, offset, size

    def read(self, uri: str) -> bytes:
        if uri not in self.places:
            raise ImageRejected("no such file")
        tar, offset, size = self.places[uri]
        try:
            with (self.root / tar).open("rb") as stream:
                stream.seek(offset)
                return stream.read(size)
        except OSError as error:
            raise ImageRejected("unreadable file") from error

    def file_of(self, uri: str) -> str | None:
        return self.places[uri][0] if uri in self.places else None


@dataclass(frozen=True)
class TorchvisionImages:
    """Items of a torchvision dataset, as PNG: torchvision hands out pixels, not files.

    So every reading decodes and encodes: 10 to 50 ms an image. Pillow's own bound on pixels holds.
    """

    dataset: Any

    def read(self, uri: str) -> bytes:
        out = io.BytesIO()
        try:
            self.dataset[int(Path(uri).stem)][0].save(out, "PNG", compress_level=1)
        except Exception as error:  # whatever its loader raises
            raise ImageRejected("truncated or damaged") from error
        return out.getvalue()

    def file_of(self, uri: str) -> str | None:
        return None


@dataclass(frozen=True)
class ListedImages:
    """Some images of a reader by their number, whose bytes must still be those that were listed."""

    reader: ImageReader
    names: list[str]  # uris
    hashes: Sequence[str | None]  # sha256 (hex) of each; none: nobody else can have changed it

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        """The bytes of image `i`; raises ImageRejected."""
        data = self.reader.read(self.names[i])
        if self.hashes[i] and hashlib.sha256(data).hexdigest() != self.hashes[i]:
            raise ImageRejected("changed since it was listed")
        return data
