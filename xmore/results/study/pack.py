"""`xmore pack`: a run as one zip. Packing it again gives the same bytes."""

from __future__ import annotations

import hashlib
import logging
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import yaml

from xmore.datasets.card import load_card
from xmore.files.errors import ArtifactError, StudyError, XmoreError
from xmore.files.paths import PROJECT_ROOT, writing_whole
from xmore.files.progress import track
from xmore.files.sealed import sealed
from xmore.results.absent import is_absent
from xmore.results.runs import Run
from xmore.results.study.layout import (
    CAPTIONS,
    FORMAT,
    INDEX,
    INPUTS,
    MOST_FILES,
    PACKED,
    STUDY,
    portable,
    without_cluster,
)
from xmore.store.artifacts import ArtifactRef
from xmore.store.checks import DIFFERS, MANIFEST, read_manifest

log = logging.getLogger(__name__)

TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows
BLOCK = 1 << 20  # bytes


@dataclass
class Contents:
    """What a study will contain: a run whose paths are portable, and its files by their names."""

    run: Run
    files: dict[str, Path | bytes] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)  # sha256 of those files that are parts
    left_out: list[dict[str, Any]] = field(default_factory=list)  # manifests
    written: list[dict[str, Any]] = field(default_factory=list)  # File entries, once packed

    @property
    def here(self) -> str:
        """The run's folder in the zip."""
        return f"runs/{self.run.name}"

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The cards, as they are packed."""
        begin = f"{self.here}/{INPUTS}/"
        return [
            yaml.safe_load(data)
            for name, data in self.files.items()
            if isinstance(data, bytes) and name.startswith(begin) and name.endswith(".yaml")
        ]


def gather(run: Run, captions: bool) -> Contents:
    """Return what is packed of a completed run, all but its report. Raises ArtifactError."""
    found = Contents(run)
    stages = (*PACKED, *(CAPTIONS if captions else ()))
    refs = [
        replace(ref, left_out=ref.stage not in stages or is_absent(ref)) for ref in run.artifacts
    ]
    for ref in {ref.path: ref for ref in refs}.values():
        _add_artifact(found, ref)
    config = without_cluster(_with_inputs(found, run.config | {"results": STUDY}))
    facts = portable({"config": config, "snapshot": run.snapshot})
    found.run = replace(run, **facts, artifacts=refs)
    found.files[f"{found.here}/run.json"] = found.run.as_json()
    return found


def _add_artifact(found: Contents, ref: ArtifactRef) -> None:
    """Add an artifact, or its manifest if it is left out; of a deleted one, nothing."""
    path, place = Path(ref.path), f"store/{ref.stage}/{ref.dataset}/{ref.digest}"
    if not path.exists() and ref.left_out:
        return
    manifest = read_manifest(path)
    if ref.left_out:
        which = {"stage": ref.stage, "dataset": ref.dataset, "digest": ref.digest}
        found.left_out.append(manifest | which)
        return
    found.files[f"{place}/{MANIFEST}"] = path / MANIFEST
    for part in manifest["parts"]:
        found.files[f"{place}/{part['file']}"] = path / part["file"]
        found.parts[f"{place}/{part['file']}"] = part["sha256"]


def _with_inputs(found: Contents, config: dict[str, Any]) -> dict[str, Any]:
    """Add the cards, and prompts that are not the project's -> the config that names them."""
    config["datasets"] = [_card(found, name, config) for name in config["datasets"]]
    if config.get("prompts"):
        config["prompts"] = _input(found, Path(config["prompts"]))
    if config.get("prompt_sets"):
        config["prompt_sets"] = [
            each | ({"file": _input(found, Path(each["file"]))} if each.get("file") else {})
            for each in config["prompt_sets"]
        ]
    return config


def _card(found: Contents, name: str, config: dict[str, Any]) -> str:
    """Add a card and its class names; returns its path, or the name of one of ours."""
    root = config.get("data_root")
    try:
        card = load_card(name, Path(root) if root else None)
    except XmoreError as error:
        log.warning("%s The card is not packed.", error)
        return name
    data = card.model_dump(mode="json", exclude_unset=True)
    if card.folder is not None:
        data.pop("root", None)
    if isinstance(card.classes, Path):
        data["classes"] = _input(found, card.classes, beside=True)
    text = yaml.safe_dump(portable(data), sort_keys=False, allow_unicode=True)
    place = f"{INPUTS}/{card.name}.yaml"
    found.files[f"{found.here}/{place}"] = text.encode()
    return f"{STUDY}/{place}" if name.endswith((".yaml", ".yml")) else name


def _input(found: Contents, path: Path, beside: bool = False) -> str:
    """Add a file that the config names, unless it is the project's; returns its portable path."""
    if path.is_relative_to(PROJECT_ROOT) or not path.is_file():
        return str(path)
    data = path.read_bytes()
    suffix = ".json" if path.suffix == ".json" else ".txt"
    place = f"{INPUTS}/{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    found.files[f"{found.here}/{place}"] = data
    return Path(place).name if beside else f"{STUDY}/{place}"


def write_study(found: Contents, out: Path) -> None:
    """Write a study's zip, whole or not at all. Raises XmoreError, OSError. Memory: a block."""
    if len(found.files) > MOST_FILES:
        raise StudyError(
            f"run {found.run.name}: has {len(found.files):,} files to pack; {MOST_FILES:,} are the "
            "most. Run it again with a larger `execution.part_rows`."
        )
    with writing_whole(out) as stream, ZipFile(stream, "w") as archive:
        for name in track(sorted(found.files), "packing", "file"):
            source = found.files[name]
            written = _write(archive, name, source)
            is_part = name.endswith(".parquet")
            if isinstance(source, Path) and is_part and written["sha256"] != found.parts[name]:
                raise ArtifactError(f"{source}: {DIFFERS}. See `xmore verify`.")
            found.written.append(written)
        index = {"format": FORMAT, "run": found.run.name, "left_out": found.left_out}
        _write(archive, INDEX, sealed(index | {"files": found.written}))


def _write(archive: ZipFile, name: str, source: Path | bytes) -> dict[str, Any]:
    """Write one file; returns its entry in the index."""
    info = ZipInfo(name, TIME)
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    info.compress_type = ZIP_STORED if name.endswith(".parquet") else ZIP_DEFLATED
    digest, size = hashlib.sha256(), 0
    with archive.open(info, "w") as stream:
        for block in _blocks(source):
            stream.write(block)
            digest.update(block)
            size += len(block)
    return {"file": name, "bytes": size, "sha256": digest.hexdigest()}


def _blocks(source: Path | bytes) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with source.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block
