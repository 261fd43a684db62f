"""The text store: caption embeddings, so that each model encodes a distinct text only once.

    <store>/caption_embeddings/<model's name>/<digest>/part-*.arrow  manifest.json

Unlike other artifacts this one grows: parts are appended, small ones are merged, and its digest
depends on the model alone. Adding a text costs the same in a large store, and reading one does not
read others. Memory: 16 bytes per text for the index (48 for a moment, as it grows), one part of
PART_TEXTS texts while they are encoded or one of MERGED_TEXTS while parts are merged, and the
result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.files.digests import digest_of
from xmore.files.errors import ArtifactError
from xmore.files.locks import locked
from xmore.files.paths import sweep, write_whole
from xmore.files.sealed import sealed
from xmore.models.spec import ModelCard
from xmore.store import schemas
from xmore.store.artifacts import move_aside
from xmore.store.checks import DIFFERS, MANIFEST, is_whole, read_manifest
from xmore.store.found_texts import FoundTexts
from xmore.store.made_by import made_by, warn_if_other
from xmore.store.text_index import TextIndex
from xmore.store.text_parts import merge_texts, read_keys, read_texts, to_merge, write_texts

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
        self._parts: list[dict[str, Any]] = []  # of the manifest, but for those that are left out
        self._left_out = set[str]()  # files that are absent or damaged
        self._warned = set[str]()
        self._next = 0  # the number of the next part
        self._forget()
        self._refresh()

    def __len__(self) -> int:
        return len(self._index)

    def features(
        self, texts: Sequence[str], encode: Callable[[list[str]], TextFeatures]
    ) -> TextFeatures:
        """Return the features of `texts`, in order; those that are missing are encoded first.

        They are written part by part, so that a kill loses at most one part.
        """
        found = FoundTexts(texts)
        self._read(found)
        if len(found.missing):
            with locked(self._lock):
                if self._refresh():  # another process has added texts
                    self._read(found)
                new = found.missing
                if len(new):
                    self._prepare()
                for start in range(0, len(new), PART_TEXTS):
                    which = new[start : start + PART_TEXTS]
                    encoded = encode([found.texts[i] for i in which])
                    self._append(found.keys[which], encoded)
                    found.put(which, encoded.unit, encoded.norm, encoded.truncated)
        return found.features()

    def lookup(self, texts: Sequence[str]) -> TextFeatures:
        """Return the features of `texts`, in order. Raises KeyError for a missing text."""
        found = FoundTexts(texts)
        self._read(found)
        if len(found.missing):
            raise KeyError(found.texts[found.missing[0]])
        return found.features()

    def _read(self, found: FoundTexts) -> None:
        """Read what is there of the missing texts; a row that is not as it was written is not."""
        missing = found.missing
        places = self._index.find(found.keys[missing])
        order = np.argsort(places, kind="stable")
        order = order[np.searchsorted(places[order], 0) :]
        where = self._where[places[order] >> 32]  # (part, its rows before these)
        rows = where[:, 1] + (places[order] & 0xFFFFFFFF)
        for number in np.unique(where[:, 0]):
            mine = where[:, 0] == number
            part, which = self._parts[number], missing[order[mine]]
            try:
                got = read_texts(self.path, part, rows[mine])
            except ArtifactError as error:
                if not self._refresh():  # else another process has merged it
                    self._leave_out(part, error)
                return self._read(found)
            if not got.sound.all():
                self._warn(part, f"{int((~got.sound).sum())} of its texts are damaged")
            good = got.sound & (got.keys == found.keys[which]).all(1)
            found.put(which[good], got.unit[good], got.norm[good], got.truncated[good])

    def _refresh(self) -> bool:
        """Read the manifest, and the keys of parts that are new -> whether it has changed."""
        parts = [part for part in self._recorded() or () if part["file"] not in self._left_out]
        if parts == self._parts:
            return False
        known = len(self._parts)
        if parts[:known] != self._parts:  # another process has merged or removed some
            self._forget()
            known = 0
        for part in parts[known:]:
            warn_if_other(part.get("made_by"), self._device, self.path / part["file"])
            try:
                self._take_in(part, read_keys(self.path / part["file"]))
            except ArtifactError as error:
                self._left_out.add(part["file"])
                self._warn(part, str(error))
        return True

    def _forget(self) -> None:
        self._parts, self._index = [], TextIndex()
        # Places are numbers of appended parts, and rows in them, so that merging changes none.
        self._where = np.zeros((0, 2), np.int64)

    def _take_in(self, part: dict[str, Any], keys: np.ndarray) -> None:
        place = len(self._where) << 32
        self._where = np.concatenate([self._where, [[len(self._parts), 0]]])
        self._parts.append(part)
        self._index.add(keys, np.arange(place, place + len(keys)))

    def _leave_out(self, part: dict[str, Any], error: ArtifactError) -> None:
        self._left_out.add(part["file"])
        self._warn(part, str(error))
        self._refresh()

    def _warn(self, part: dict[str, Any], what: str) -> None:
        if part["file"] not in self._warned:
            file = self.path / part["file"]
            log.warning("%s: %s; they are encoded again", file, what.removeprefix(f"{file}: "))
        self._warned.add(part["file"])

    def _recorded(self) -> list[dict[str, Any]] | None:
        """Return the parts in the manifest, none if there is none; None if it is damaged."""
        if not (self.path / MANIFEST).exists():
            return []
        try:
            return read_manifest(self.path)["parts"]
        except ArtifactError as error:
            log.warning("%s: all texts are encoded again", error)
            return None

    def _prepare(self) -> None:
        """Make the folder ready for new parts: remove what a killed process left there."""
        if self._older.exists() and not self.path.exists():
            log.warning(
                "%s: texts are encoded again, once: the identity of their model now has the "
                "files of its tokenizer",
                self._older,
            )
        recorded = self._recorded()
        if recorded is None:
            move_aside(self.path)  # which text a part is of cannot be told
        self.path.mkdir(parents=True, exist_ok=True)
        sweep(self.path)
        listed = {part["file"] for part in recorded or ()}
        for path in self.path.glob("part-*"):
            if ".broken-" not in path.name and path.name not in listed:
                path.unlink()  # of a killed process, which did not come to list it
            elif path.name in self._left_out:
                move_aside(path)
        numbers = (int(name[5:].partition(".")[0]) for name in listed)
        self._next = max(numbers, default=-1) + 1

    def _append(self, keys: np.ndarray, features: TextFeatures) -> None:
        part = write_texts(self._new_path(), keys, features)
        part["made_by"] = made_by(self._device)
        self._commit([*self._parts, part])
        self._take_in(part, keys)
        self._merge()

    def _new_path(self) -> Path:
        # Never a number that was listed: another process may still read that part.
        self._next += 1
        return self.path / f"part-{self._next - 1:05d}.arrow"

    def _merge(self) -> None:
        """Merge adjacent small parts, if there are enough, so that the manifest stays short."""
        which = to_merge(self._parts)
        if which is None:
            return
        old = self._parts[which]
        for part in old:
            if not is_whole(self.path, part):
                self._leave_out(part, ArtifactError(DIFFERS))
                if (self.path / part["file"]).exists():
                    move_aside(self.path / part["file"])
                return
        part = merge_texts(self._new_path(), self.path, old)
        if old[0].get("made_by"):
            part["made_by"] = old[0]["made_by"]
        self._commit([*self._parts[: which.start], part, *self._parts[which.stop :]])
        before = np.cumsum([0, *(each["rows"] for each in old[:-1])])
        inside = (self._where[:, 0] >= which.start) & (self._where[:, 0] < which.stop)
        self._where[inside, 1] += before[self._where[inside, 0] - which.start]
        self._where[inside, 0] = which.start
        self._where[self._where[:, 0] >= which.stop, 0] -= len(old) - 1
        self._parts[which] = [part]
        for each in old:
            (self.path / each["file"]).unlink()

    def _commit(self, parts: list[dict[str, Any]]) -> None:
        manifest = {
            "stage": TEXTS,
            "digest": self.digest,
            "params": self.identity,
            "parts": parts,
            "rows": sum(part["rows"] for part in parts),
        }
        write_whole(self.path / MANIFEST, sealed(manifest))


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
