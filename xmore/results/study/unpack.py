"""`xmore open`: a study's zip as a results folder. All of it is checked before it is there."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import unicodedata
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import yaml

from xmore.files.errors import ConfigError, StudyError, cause_of
from xmore.files.paths import fsync_dir, naming, real, write_whole
from xmore.files.progress import track
from xmore.files.sealed import sealed, unsealed
from xmore.files.yaml import load_yaml
from xmore.methods.outside import is_file
from xmore.results.runs import Run, read_run
from xmore.results.study.layout import (
    FORMAT,
    INDEX,
    INPUTS,
    MEMBER,
    MOST_FILES,
    local,
    without_cluster,
)
from xmore.results.views import write_views
from xmore.store.checks import check_hashes
from xmore.store.contracts import RunFile, StudyFile, parse_contract, read_contract

CONFIG = "config.yaml"  # of the opened run: it can be run
MOST_INDEX = 64e6  # bytes of the index
MOST_TIMES, SMALL = 200, 10e6  # a zip's bytes, and some more, are the most that it unpacks to
BLOCK = 1 << 20  # bytes
_NO_ZIP = (BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError)


def unpack(study: Path, folder: Path) -> Run:
    """Unpack a study to a results folder of its own, which must not exist or be empty.

    Nothing is there until all of it is. Every name, size, hash and manifest is checked; nothing in
    it is run. Raises StudyError, OSError. Memory: a block, and the index.
    """
    folder = real(folder)
    if not study.is_file():
        raise StudyError(f"{study}: is no file. Name a zip that `xmore pack` has made.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StudyError(f"{folder}: is there already. Name another folder to unpack to.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        new = Path(scratch) / "study"
        index = _extract(study, new)
        _settle(study, new, folder, index)
        _check(study, new, index)
        os.rename(new, folder)
        fsync_dir(folder.parent)
    run = read_run(folder / "runs" / index["run"] / "run.json")
    write_views(run)
    return run


def _extract(study: Path, folder: Path) -> dict[str, Any]:
    """Write the files of a zip below `folder`; returns its index. Raises StudyError."""
    try:
        with ZipFile(study) as archive:
            index = _read_index(study, archive)
            listed = _check_names(study, archive, index)
            free = shutil.disk_usage(folder.parent).free
            if (total := sum(entry["bytes"] for entry in listed.values())) > free:
                raise StudyError(f"{study}: needs {total:,} bytes, and {free:,} are free there.")
            for name in track(sorted(listed), "unpacking", "file"):
                _write(study, archive, listed[name], folder / name)
    except _NO_ZIP as error:
        raise StudyError(f"{study}: is no zip, or damaged ({cause_of(error)}).") from error
    return index


def _read_index(study: Path, archive: ZipFile) -> dict[str, Any]:
    names = archive.namelist()
    if names.count(INDEX) != 1:
        raise StudyError(f"{study}: is no study that `xmore pack` has made.")
    with archive.open(INDEX) as stream:
        text = stream.read(int(MOST_INDEX) + 1)
    if len(text) > MOST_INDEX:
        raise StudyError(f"{study}: its {INDEX} has more than {MOST_INDEX:,.0f} bytes.")
    try:
        version = unsealed(text).get("format")
        if isinstance(version, int) and version > FORMAT:
            raise StudyError(
                f"{study}: was packed by a newer version of X-MoRe (format {version}, this one "
                f"reads {FORMAT}). Update X-MoRe."
            )
        return parse_contract(text, StudyFile)
    except (ValueError, AttributeError, RecursionError) as error:
        raise StudyError(f"{study}: its {INDEX} is damaged ({cause_of(error)}).") from error


def _check_names(study: Path, archive: ZipFile, index: dict[str, Any]) -> dict[str, Any]:
    """Return the index's entries by their names, which are those of the zip. Raises StudyError."""
    infos = [info for info in archive.infolist() if info.filename != INDEX]
    listed = {entry["file"]: entry for entry in index["files"]}
    forms = {unicodedata.normalize("NFC", name).casefold() for name in listed}
    total, most = sum(entry["bytes"] for entry in listed.values()), study.stat().st_size
    if len(infos) > MOST_FILES or total > MOST_TIMES * most + SMALL:
        what = f"{len(infos):,} files of {total:,} bytes, which is too much"
    elif sorted(info.filename for info in infos) != sorted(e["file"] for e in index["files"]):
        what = f"other files than its {INDEX} lists"
    elif len(forms) != len(infos):
        what = "two files of one name"
    else:
        what = next(filter(None, (_wrong(info, listed, index["run"]) for info in infos)), "")
    if what:
        raise StudyError(f"{study}: damaged, or not packed by `xmore pack`: it has {what}.")
    return listed


def _wrong(info: ZipInfo, listed: dict[str, Any], run: str) -> str:
    """Return what is wrong with a file of a zip, by its name and kind; empty if nothing is."""
    name, mode = info.filename, info.external_attr >> 16
    if info.orig_filename != name or not MEMBER.fullmatch(name):
        return f"a file that no study has, {info.orig_filename!r}"
    if name.startswith("runs/") and not name.startswith(f"runs/{run}/"):
        return f"a file of another run, {name!r}"
    if info.flag_bits & 1 or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        return f"a link or an encrypted file, {name!r}"
    if info.file_size != listed[name]["bytes"]:
        return f"{name!r} in another size than its {INDEX} says"
    return ""


def _write(study: Path, archive: ZipFile, entry: dict[str, Any], path: Path) -> None:
    """Unpack one file, no further than its size. Raises StudyError if its sha256 differs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry["bytes"]
    with archive.open(entry["file"]) as packed, naming(path), path.open("xb") as stream:
        while block := packed.read(min(BLOCK, left + 1)):
            left -= len(block)
            if left < 0:
                break
            digest.update(block)
            stream.write(block)
        os.fsync(stream.fileno())
    if left or digest.hexdigest() != entry["sha256"]:
        raise StudyError(f"{study}: {entry['file']} is damaged. Get it again from its sender.")


def _settle(study: Path, new: Path, folder: Path, index: dict[str, Any]) -> None:
    """Let the paths in the run, which will lie in `folder`, be those of this machine."""
    here, there = new / "runs" / index["run"], folder / "runs" / index["run"]
    try:
        data = local(read_contract(here / "run.json", RunFile), there)
        config = without_cluster(data["config"])
        config["methods"] = [_not_run(spec) for spec in config["methods"]]
        for card in sorted((here / INPUTS).glob("*.yaml")):
            text = local(load_yaml(card), there)
            write_whole(card, yaml.safe_dump(text, sort_keys=False, allow_unicode=True).encode())
    except (ConfigError, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        told = str(error).replace(f"{new}/", "")
        raise StudyError(f"{study}: its run is damaged ({told}).") from error
    write_whole(here / "run.json", sealed(data | {"config": config | {"results": str(folder)}}))
    runnable = {key: value for key, value in config.items() if key != "results"}
    write_whole(here / CONFIG, yaml.safe_dump(runnable, sort_keys=False).encode())
    write_whole(here / INDEX, sealed(index))


def _not_run(spec: str) -> str:
    """Return a method's name; of a sender's file, what is never taken for a file here."""
    return f"{Path(spec).name} of its sender" if is_file(spec) else spec


def _check(study: Path, new: Path, index: dict[str, Any]) -> None:
    """Raise StudyError unless the run is complete, with what it names and nothing else."""
    run = read_run(new / "runs" / index["run"] / "run.json")
    named = {ref.path for ref in run.artifacts if not ref.left_out}
    problems = [problem for path in sorted(named) for problem in check_hashes(Path(path))]
    packed = {str((new / entry["file"]).parent) for entry in index["files"]}
    extra = sorted(path for path in packed - named if path.startswith(f"{new / 'store'}/"))
    if run.status != "completed":
        problems.append(f"its run is {run.status}")
    problems += [f"its run does not name {Path(path).relative_to(new)}" for path in extra]
    if problems:
        raise StudyError(f"{study}: damaged: {problems[0].replace(f'{new}/', '')}.")
