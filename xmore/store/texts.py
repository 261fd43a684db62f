"""The text store: caption embeddings, so that each model encodes a distinct text only once.

    <store>/caption_embeddings/<model's name>/<digest>/part-*.parquet  manifest.json

Unlike other artifacts this one grows: parts are appended and never changed, and its digest depends
on the model alone. Memory: 72 bytes per text for the index, one part while reading, and the result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xmore.files.digests import digest_of, digest_text
from xmore.files.errors import ArtifactError
from xmore.files.locks import locked
from xmore.files.paths import sweep, write_whole
from xmore.files.sealed import sealed
from xmore.models.spec import ModelCard
from xmore.store import schemas
from xmore.store.artifacts import move_aside, write_part
from xmore.store.checks import MANIFEST, is_whole, read_manifest
from xmore.store.made_by import made_by, warn_if_other

if TYPE_CHECKING:
    from xmore.models.encoder import TextFeatures

log = logging.getLogger(__name__)

TEXTS = "caption_embeddings"  # the folder of all models' texts, of which any run may use a part
PART_TEXTS = 4096  # 4096 x 768 float32 = 12 MB


class CaptionStore:
    """The embeddings of all texts that one model has encoded so far."""

    def __init__(self, store: Path, card: ModelCard, device: str = "auto") -> None:
        self.identity = card.identity
        self.digest = _digest(card.identity)
        self.path = store / TEXTS / card.name.replace("/", "-") / self.digest
        self._older = self.path.with_name(_digest(card.image_identity))
        self._device = device
        self._lock = _lock_of(self.path)
        self._parts: list[dict] = []
        self._keys = np.zeros(0, "S64")
        self._where = np.zeros((0, 2), np.int32)  # (part, row) of each key
        self._refresh()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, texts: Sequence[str], encode: Callable[[list[str]], TextFeatures]) -> int:
        """Encode the missing ones of `texts`, part by part; returns their number."""
        with self._exclusive():
            new = self.missing(texts)
            for start in range(0, len(new), PART_TEXTS):
                chunk = new[start : start + PART_TEXTS]
                self._append(chunk, encode(chunk))
        return len(new)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the distinct texts without an embedding, in order of appearance."""
        distinct = list(dict.fromkeys(texts))
        keys = np.array([digest_text(text) for text in distinct], "S64")
        absent = self._find(keys) < 0
        return [text for text, gone in zip(distinct, absent, strict=True) if gone]

    def lookup(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of `texts`, in order. Raises KeyError for a missing text."""
        from xmore.models.encoder import TextFeatures  # imports torch

        found = self._find(np.array([digest_text(text) for text in texts], "S64"))
        if (found < 0).any():
            raise KeyError(texts[int(np.argmax(found < 0))])
        where = self._where[found]
        dim = pq.read_schema(self.path / self._parts[0]["file"]).field("embedding").type.list_size
        features = TextFeatures(
            np.empty((len(texts), dim), np.float32),
            np.empty(len(texts), np.float32),
            np.empty(len(texts), bool),
        )
        for part in np.unique(where[:, 0]):
            at = where[:, 0] == part
            table = pq.read_table(self.path / self._parts[part]["file"], partitioning=None)
            rows = table.take(pa.array(where[at, 1]))
            features.unit[at] = schemas.to_matrix(rows["embedding"])
            features.norm[at] = rows["norm"].to_numpy()
            features.truncated[at] = rows["truncated"].to_numpy()
        return features

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        with locked(self._lock):
            self._refresh()  # another process may have added texts
            yield

    def _refresh(self) -> None:
        """Read the keys of the parts that are whole; the texts of others are encoded again."""
        parts = [part for part in self._recorded() or () if self._usable(part)]
        for part in parts[len(self._parts) :]:
            warn_if_other(part.get("made_by"), self._device, self.path / part["file"])
        if parts != self._parts:
            tables = [
                pq.read_table(self.path / part["file"], columns=["text_sha256"], partitioning=None)
                for part in parts
            ]
            self._parts = parts
            self._index([table["text_sha256"].to_numpy().astype("S64") for table in tables])

    def _recorded(self) -> list[dict[str, Any]] | None:
        """Return the parts in the manifest, none if there is none; None if it is damaged."""
        if not (self.path / MANIFEST).exists():
            return []
        try:
            return read_manifest(self.path)["parts"]
        except ArtifactError as error:
            log.warning("%s: all texts are encoded again", error)
            return None

    def _usable(self, part: dict[str, Any]) -> bool:
        file = self.path / part["file"]
        whole = is_whole(self.path, part)
        if not whole:
            log.warning("%s: is absent or damaged; its texts are encoded again", file)
        return whole

    def _index(self, keys: list[np.ndarray]) -> None:
        flat = np.concatenate(keys) if keys else np.zeros(0, "S64")
        if not keys:
            self._keys, self._where = flat, np.zeros((0, 2), np.int32)
            return
        where = [np.stack([np.full(len(k), i), np.arange(len(k))], 1) for i, k in enumerate(keys)]
        order = np.argsort(flat)
        self._keys, self._where = flat[order], np.concatenate(where).astype(np.int32)[order]

    def _find(self, keys: np.ndarray) -> np.ndarray:
        """Return the position of each key in the index, -1 if absent."""
        if not len(self._keys):
            return np.full(len(keys), -1)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, at, -1)

    def _append(self, texts: list[str], features: TextFeatures) -> None:
        if self._older.exists() and not self.path.exists():
            log.warning(
                "%s: texts are encoded again, once: the identity of their model now has the "
                "files of its tokenizer",
                self._older,
            )
        if (self.path / MANIFEST).exists() and self._recorded() is None:
            move_aside(self.path)  # which text a part is of cannot be told
        self.path.mkdir(parents=True, exist_ok=True)
        sweep(self.path)
        table = pa.table(
            {
                "text_sha256": [digest_text(text) for text in texts],
                "embedding": schemas.fixed_lists(features.unit),
                "norm": features.norm,
                "truncated": features.truncated,
            },
            schema=schemas.caption_embeddings(features.unit.shape[1]),
        )
        listed = {part["file"] for part in self._recorded() or ()}
        for path in self.path.glob("part-*"):
            if ".broken-" not in path.name and path.name not in listed:
                path.unlink()  # of a killed process, which did not come to list it
            elif path.name in listed - {part["file"] for part in self._parts}:
                move_aside(path)
        # Never a number that was listed: another process may still read that part.
        name = f"part-{max((int(each[5:10]) for each in listed), default=-1) + 1:05d}.parquet"
        part = write_part(self.path / name, table)
        part["made_by"] = made_by(self._device)
        manifest = {
            "stage": TEXTS,
            "digest": self.digest,
            "params": self.identity,
            "parts": [*self._parts, part],
            "rows": sum(p["rows"] for p in self._parts) + part["rows"],
        }
        write_whole(self.path / MANIFEST, sealed(manifest))
        self._refresh()


def drop_part(folder: Path, name: str) -> None:
    """Leave a part out of the manifest of a model's texts, which are encoded again when needed."""
    with locked(_lock_of(folder)):
        manifest = read_manifest(folder)
        parts = [part for part in manifest["parts"] if part["file"] != name]
        rows = sum(part["rows"] for part in parts)
        write_whole(folder / MANIFEST, sealed(manifest | {"parts": parts, "rows": rows}))


def _lock_of(folder: Path) -> Path:
    return folder.parents[2] / ".locks" / f"{TEXTS}-{folder.name[:16]}.lock"


def _digest(identity: dict[str, Any]) -> str:
    version = schemas.STAGE_VERSIONS[TEXTS]
    return digest_of([TEXTS, version, identity])
