"""The bytes of images by their `uri`: files, members of tars, items of torchvision datasets.

Readers can be sent to worker processes. All raise ImageRejected, with a cause to be counted.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xmore.files.errors import is_shortage
from xmore.images.decode import ImageRejected, read_image
from xmore.images.webdataset import read_at


class ImageReader(Protocol):
    """Reads images by their uri."""

    def read(self, uri: str) -> bytes:
        """Return the bytes of an image. Raises ImageRejected."""

    def file_of(self, uri: str) -> str | None:
        """Return the file under the root whose size and time reveal a change; None if none does."""

    def only(self, uris: Iterable[str]) -> ImageReader:
        """Return a reader of these images, which is small to send to another process."""


@dataclass(frozen=True)
class Files:
    """Image files under a root; links that lead out of it are rejected, if not followed."""

    root: Path
    follow_links: bool = False

    def read(self, uri: str) -> bytes:
        path = self.root / uri
        try:
            inside = self.follow_links or path.resolve().is_relative_to(self.root.resolve())
        except (OSError, RuntimeError, ValueError) as error:  # loops of links, a null byte
            raise ImageRejected("unreadable file") from error
        if not inside:
            raise ImageRejected("link out of the root")
        return read_image(path)

    def file_of(self, uri: str) -> str | None:
        return uri

    def only(self, uris: Iterable[str]) -> ImageReader:
        return self


@dataclass(frozen=True)
class Tars:
    """Members of tars, read in place: nothing is unpacked. See `webdataset.read_at`."""

    root: Path
    places: Mapping[str, tuple[str, int, int]]  # uri -> tar under the root, offset, size

    def read(self, uri: str) -> bytes:
        if uri not in self.places:
            raise ImageRejected("no such file")
        tar, offset, size = self.places[uri]
        try:
            return read_at(self.root / tar, offset, size)
        except OSError as error:
            if is_shortage(error):
                raise
            raise ImageRejected("unreadable file") from error

    def file_of(self, uri: str) -> str | None:
        return self.places[uri][0] if uri in self.places else None

    def only(self, uris: Iterable[str]) -> ImageReader:
        return Tars(self.root, {uri: self.places[uri] for uri in uris if uri in self.places})


@dataclass(frozen=True)
class TorchvisionImages:
    """Items of a torchvision dataset as PNG, as torchvision returns pixels and not files.

    Each read decodes and encodes again: 10 to 50 ms per image. Pillow's bound on pixels applies.
    """

    dataset: Any

    def read(self, uri: str) -> bytes:
        out = io.BytesIO()
        try:
            self.dataset[int(Path(uri).stem)][0].save(out, "PNG", compress_level=1)
        except Exception as error:  # its loader may raise anything
            raise ImageRejected("truncated or damaged") from error
        return out.getvalue()

    def file_of(self, uri: str) -> str | None:
        return None

    def only(self, uris: Iterable[str]) -> ImageReader:
        return self


@dataclass(frozen=True)
class ListedImages:
    """Images of a reader by number; their bytes must be the same as when they were listed."""

    reader: ImageReader
    names: list[str]  # uris
    hashes: Sequence[str | None]  # sha256 (hex) of each; None: no check, as it cannot change

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> bytes:
        """Return the bytes of image `i`. Raises ImageRejected."""
        data = self.reader.read(self.names[i])
        if self.hashes[i] and hashlib.sha256(data).hexdigest() != self.hashes[i]:
            raise ImageRejected("changed since it was listed")
        return data
