"""The artifacts of a packed run beside those of a run made here, and why they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmore.files.text import counted
from xmore.files.yaml import flat
from xmore.results.runs import Run
from xmore.results.study.layout import left_out_manifests
from xmore.store.artifacts import ArtifactRef
from xmore.store.checks import read_manifest

Which = tuple[str, str, str, str, str, int | None, int]
SHOWN = 40  # characters of a value


@dataclass(frozen=True)
class Pair:
    """An artifact of the study, and the one with its place in the run here."""

    dataset: str
    stage: str
    model: str  # empty if it is of none
    method: str
    prompt_set: str
    m: int | None
    theirs: dict[str, Any]  # manifest; empty if it is unknown
    ours: dict[str, Any] | None  # None: not made here

    @property
    def same_digest(self) -> bool:
        """Whether both are made from equal inputs, with equal parameters."""
        return self.ours is not None and self.theirs["digest"] == self.ours["digest"]

    @property
    def same_bytes(self) -> bool:
        """Whether both have equal parts."""
        return self.ours is not None and _parts(self.theirs) == _parts(self.ours)


def pairs(theirs: Run, ours: Run) -> list[Pair]:
    """Pair each artifact of a study with the one here, in the order of the stages."""
    here = {which: manifest for which, manifest in _artifacts(ours)}
    return [Pair(*which[:6], manifest, here.get(which)) for which, manifest in _artifacts(theirs)]


def _artifacts(run: Run) -> Iterator[tuple[Which, dict[str, Any]]]:
    """Yield the place and manifest of each artifact; of equal places, the last number counts."""
    known, seen = left_out_manifests(run), Counter[tuple[Any, ...]]()
    for ref in run.artifacts:
        there = ref.left_out or Path(ref.path).exists()
        manifest = known.get(ref.digest) or (read_manifest(Path(ref.path)) if there else {})
        which = _which(ref, manifest.get("params", {}))
        seen[which] += 1
        yield (*which, seen[which]), manifest | {"digest": ref.digest}


def _which(ref: ArtifactRef, params: dict[str, Any]) -> tuple[str, str, str, str, str, int | None]:
    method, m = params.get("method"), params.get("m")
    name = method[0] if isinstance(method, list) and method else method
    number = m if isinstance(m, int) else None
    return ref.dataset, ref.stage, ref.model or "", str(name or ""), ref.prompt_set, number


def _parts(manifest: dict[str, Any]) -> list[tuple[int, str]]:
    return [(part["rows"], part["sha256"]) for part in manifest.get("parts", [])]


def partings(found: list[Pair], theirs: Run, ours: Run) -> list[tuple[Pair, str]]:
    """Return where two runs part: the first artifacts whose digest, or bytes, differ, and why.

    What differs only because it was made from those is not among them.
    """
    told: dict[tuple[str, str], Pair] = {}
    changed = {pair.theirs["digest"] for pair in found if not pair.same_bytes}
    for pair in found:
        inputs = set(pair.theirs.get("inputs", []))
        if pair.ours is None:
            reason = "not made here"
        elif not pair.same_digest:
            reason = _other_digest(pair, found, theirs, ours)
        else:
            reason = "" if pair.same_bytes or inputs & changed else _other_bytes(pair)
        if reason:
            told.setdefault((pair.dataset, reason), pair)
    return [(pair, reason) for (_, reason), pair in told.items()]


def _other_digest(pair: Pair, found: list[Pair], theirs: Run, ours: Run) -> str:
    """Return why an artifact's digest differs; empty if only that of another artifact does."""
    mine, other = pair.ours or {}, pair.theirs
    reasons = []
    if other.get("version") != mine.get("version"):
        reasons.append(f"version {other.get('version')} of the stage, here {mine.get('version')}")
    a, b = dict(flat(other.get("params", {}))), dict(flat(mine.get("params", {})))
    differing = [key for key in dict.fromkeys((*a, *b)) if a.get(key) != b.get(key)]
    reasons += [_differ(key, a.get(key), b.get(key)) for key in differing]
    known = {each["digest"] for both in found for each in (both.theirs, both.ours or {}) if each}
    outside = [
        [digest for digest in manifest.get("inputs", []) if digest not in known]
        for manifest in (other, mine)
    ]
    if outside[0] != outside[1]:
        reasons.append(_other_inputs(outside, theirs, ours))
    return "; ".join(reasons)


def _differ(key: str, theirs: Any, ours: Any) -> str:
    """Return how two values of a parameter differ; of a list of images, how many of them do."""
    if key == "files" and isinstance(theirs, list) and isinstance(ours, list):
        a, b = ({row[0]: row[1:] for row in rows} for rows in (theirs, ours))
        other = sum(a[name] != b[name] for name in a.keys() & b.keys())
        counts = [(other, "differ"), (len(a.keys() - b.keys()), "are not here")]
        counts.append((len(b.keys() - a.keys()), "are new"))
        told = ", ".join(f"{n:,} {what}" for n, what in counts if n) or "other order"
        return f"of {counted(len(a), 'image')}: {told}"
    if isinstance(theirs, list | dict) or isinstance(ours, list | dict):
        return f"other `{key}`"
    return f"`{key}` {_short(theirs)}, here {_short(ours)}"


def _other_inputs(outside: list[list[str]], theirs: Run, ours: Run) -> str:
    """Return which inputs differ that are no artifacts of the runs: the memory's snapshot."""
    a, b = (run.snapshot or {} for run in (theirs, ours))
    if a.get("digest") in outside[0] and b.get("digest") in outside[1]:
        return f"memory snapshot {a.get('name')}, here {b.get('name')}"
    told = [", ".join(digest[:8] for digest in each) or "none" for each in outside]
    return f"inputs {told[0]}, here {told[1]}"


def _other_bytes(pair: Pair) -> str:
    """Return what made two artifacts of one digest that have other bytes."""
    a, b = (manifest.get("made_by") or {} for manifest in (pair.theirs, pair.ours or {}))
    differ = [f"{key} {a[key]}, here {b.get(key)}" for key in a if a[key] != b.get(key)]
    source = [manifest.get("source") or {} for manifest in (pair.theirs, pair.ours or {})]
    if source[0] != source[1]:
        differ.append("the method's source")
    told = "; ".join(differ) or "the same versions: another processor, or other batches"
    return f"same digest, other last bits: {told}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:8]}…"
