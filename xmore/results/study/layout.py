"""What a study's zip contains, by what names, and where its paths lead on another machine.

study.json                              files with size and sha256; other manifests
runs/<run>/run.json, inputs/*, report/**
store/<stage>/<dataset>/<digest>/manifest.json, part-*.parquet
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmore.files.errors import RunError, cause_of
from xmore.files.paths import PROJECT_ROOT, real
from xmore.results.runs import Run
from xmore.store.contracts import StudyFile, read_contract

FORMAT = 1
INDEX = "study.json"
INPUTS = "inputs"  # the cards of a run, and the files of names and prompts outside of the project
PACKED = (
    "queries",
    "classes",
    "rejected",
    "leaks",
    "predictions",
    "metrics",
    "comparisons",
    "ranks",
    "retrieval_metrics",
    "retrieval_comparisons",
)
CAPTIONS = ("captions", "image_captions")  # packed on request
MOST_FILES = 100_000

_NAME = r"[A-Za-z0-9][\w.-]*"
MEMBER = re.compile(
    rf"store/({'|'.join((*PACKED, *CAPTIONS))})/{_NAME}/[0-9a-f]{{64}}"
    r"/(manifest\.json|part-[0-9]{5,}\.parquet)"
    rf"|runs/{_NAME}/(run\.json|{INPUTS}/{_NAME}\.(yaml|txt|json)|report/report\.html"
    rf"|report/(figures|tables)/{_NAME}\.(svg|pdf|csv|md))"
)
# In a study's texts, and what it stands for: the checkout, the run's folder, the user's home.
PROJECT, STUDY, HOME = "<project>", "<study>", "~"


def portable(value: Any) -> Any:
    """Return JSON in which no text names this checkout's folder, or the user's home."""
    places = [(real(PROJECT_ROOT), PROJECT), (Path.home(), HOME), (real(Path.home()), HOME)]
    for place, mark in places:
        if place != Path("/"):
            pattern = re.compile(rf"(?<![\w.-]){re.escape(str(place))}(?=/|$)")
            value = _mapped(value, lambda text, p=pattern, m=mark: p.sub(m, text))
    return value


def local(value: Any, run: Path) -> Any:
    """Return what `portable` has made, with paths of this machine; `run` is the run's folder."""

    def located(text: str) -> str:
        for mark, place in ((PROJECT, PROJECT_ROOT), (STUDY, run), (HOME, Path.home())):
            if text == mark or text.startswith(f"{mark}/"):
                return f"{place}{text.removeprefix(mark)}"
        return text

    return _mapped(value, located)


def without_cluster(config: dict[str, Any]) -> dict[str, Any]:
    """Return a benchmark's config that runs on one machine: a cluster's address is its owner's."""
    alone = {"runner": "local", "address": None}
    return config | {"execution": config.get("execution", {}) | alone}


def texts(value: Any) -> Iterator[str]:
    """Yield all texts of some JSON that are values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, str):
        yield value


def left_out_manifests(run: Run) -> dict[str, dict[str, Any]]:
    """Return the manifests of artifacts that a packed run lacks, by digest; none of other runs.

    Raises RunError if they are damaged.
    """
    path = run.path / INDEX
    if not path.is_file():
        return {}
    try:
        found = read_contract(path, StudyFile)
    except ValueError as error:
        raise RunError(f"{path}: damaged ({cause_of(error)}). Open its study again.") from error
    return {manifest["digest"]: manifest for manifest in found["left_out"]}


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    return change(value) if isinstance(value, str) else value
