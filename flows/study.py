"""Runs to share: packed with their report, and run anew from their packed form."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from flows.start import start_benchmark
from xmore.config.load import changed_config
from xmore.files.errors import (
    ConfigError,
    DatasetError,
    ModelError,
    RunError,
    SnapshotError,
    StudyError,
)
from xmore.results.absent import left_out
from xmore.results.runs import Run, all_runs, load_run
from xmore.results.study.pack import Contents, gather, write_study
from xmore.results.study.reproduced import Reproduced, reproduced
from xmore.results.study.unpack import unpack

PLACES = (ConfigError, DatasetError, ModelError, SnapshotError)  # of what may lie elsewhere here


def pack_run(run: Run, out: Path, captions: bool, images: bool) -> Contents:
    """Write a completed run as one zip, with a report that shows as much as is asked for.

    Raises RunError, ArtifactError, OSError.
    """
    from xmore.report.gallery import Shown
    from xmore.report.page import write_report  # imports matplotlib

    if run.status != "completed":
        raise RunError(f"run {run.name} is {run.status}. Name a completed run.")
    if left_out(run):
        raise RunError(f"run {run.name}: was opened from a study. Pass that on instead.")
    found = gather(run, captions)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "report"
        write_report(found.run, folder, Shown(captions, images))
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            found.files[f"{found.here}/report/{path.relative_to(folder)}"] = path
        write_study(found, out)
    return found


def reproduce(study: Path, wanted: dict[str, Any], results: Path) -> Reproduced:
    """Run a study's benchmark here, with some keys of its config changed, and compare the runs.

    What `results` has already is reused. Raises XmoreError.
    """
    before = all_runs(results)
    if any(left_out(run) for run in before):
        raise StudyError(f"{results}: holds an opened study. Name another folder for the results.")
    with tempfile.TemporaryDirectory(prefix="xmore-") as scratch:
        theirs = unpack(study, Path(scratch) / "study")
        changes = wanted | {"results": str(results)}
        try:
            config = changed_config(theirs.config, changes, Path.cwd(), str(study))
            ours = load_run(config.results, start_benchmark(config))
        except PLACES as error:
            raise type(error)(f"{error} What differs here: --set KEY=VALUE.") from error
        made = [] if ours.name in {run.name for run in before} else ours.artifacts
        kept = len(ours.artifacts) - sum(not ref.skipped for ref in made)
        return reproduced(theirs, ours, kept)
