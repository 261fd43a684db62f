"""What `import xmore` offers beside runs: the commands that run something, as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from flows.classify import check_labels, classified, nearest, with_memory
from flows.start import start_benchmark, start_reindex
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import load_config
from xmore.config.memory import ReindexConfig
from xmore.datasets.names import plain
from xmore.files.errors import ConfigError
from xmore.files.paths import PROJECT_ROOT, RESULTS, real
from xmore.files.yaml import explain
from xmore.report.explain import explain_page
from xmore.report.html import inline, render
from xmore.report.opened import Explained, OpenRun, open_run
from xmore.report.pictures import pictures_in
from xmore.results.runs import config_of, load_run

if TYPE_CHECKING:
    import pyarrow as pa

    from flows.reindex import Reindexed

DEMO = PROJECT_ROOT / "configs" / "demo.yaml"
Place = Path | str
Kind = TypeVar("Kind", bound=BaseModel)


@dataclass(frozen=True)
class Found:
    """The rows of a memory that are nearest to an image; in a notebook, with their pictures."""

    rows: pa.Table  # rank, memory_id, memory_key, similarity, caption, place
    pictures: dict[int, bytes] = field(repr=False)  # of the memory_ids whose images exist

    def _repr_html_(self) -> str:
        pictures = {i: inline(data) for i, data in self.pictures.items()}
        return render("found.html", rows=self.rows.to_pylist(), pictures=pictures)


def benchmark(
    config: Place | Mapping[str, Any] | BenchmarkConfig,
    resume: str | None = None,
    again: bool = False,
) -> OpenRun:
    """Run a benchmark as `xmore benchmark` does, and open its run.

    `config` is a YAML file, or its content, whose relative paths are then relative to the working
    directory. Complete stages are skipped; if a completed run has the same config, memory, images
    and artifacts, that one is opened, unless `again`. Raises XmoreError.
    """
    loaded = _loaded(config, BenchmarkConfig)
    return open_run(start_benchmark(loaded, resume, again), loaded.results)


def reindex(config: Place | Mapping[str, Any] | ReindexConfig) -> Reindexed:
    """Build a memory or bring it up to date, as `xmore reindex` does. Raises XmoreError."""
    return start_reindex(_loaded(config, ReindexConfig))


def classify(
    image: Place,
    labels: Sequence[str] | None = None,
    config: Place | Mapping[str, Any] | BenchmarkConfig = DEMO,
    run: str | None = None,
    dataset: str | None = None,
    results: Place = RESULTS,
) -> Explained:
    """Classify one image among labels, step by step, as `xmore classify` does.

    With `run`, its config, snapshot and range of confidences are used; without `labels` the classes
    of its `dataset`, too. A single image has no stream: `xmore none` weighs by the raw confidences.
    Raises XmoreError.
    """
    like = load_run(Path(results), run) if run else None
    if labels is None and like is None:
        raise ConfigError("name the classes: labels, or a run whose classes are taken.")
    if isinstance(labels, str):
        raise ConfigError(f"labels must be a list of names, got the text {labels!r}.")
    names = None if labels is None else check_labels([plain(label) for label in labels])
    used = config_of(like) if like else _loaded(config, BenchmarkConfig)
    with classified(Path(image), names, used, like, dataset) as (steps, plan):
        page = explain_page(steps, Path(image).read_bytes(), pictures_in(plan.snapshot))
        return Explained(**vars(steps), page=page)


def search(
    memory: Place,
    image: Place,
    k: int = 10,
    config: Place | Mapping[str, Any] | BenchmarkConfig = DEMO,
) -> Found:
    """Find the k rows of a memory whose images are nearest to one.

    By the coarse model of `config`, with which the memory was embedded. Raises XmoreError.
    """
    if k < 1:
        raise ConfigError(f"k must be at least 1, got {k}.")
    used = with_memory(_loaded(config, BenchmarkConfig), real(Path(memory)))
    return Found(*nearest(Path(image), used, k))


def _loaded(config: Place | Mapping[str, Any] | Kind, kind: type[Kind]) -> Kind:
    if isinstance(config, kind):
        return config
    if isinstance(config, Path | str):
        return load_config(Path(config), kind)
    try:
        return kind.model_validate(config, context={"base": Path.cwd()})
    except ValidationError as error:
        raise ConfigError(f"config: {explain(error, kind)}") from error
