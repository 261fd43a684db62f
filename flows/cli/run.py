"""The commands that run something: demo, benchmark, sweep, reindex, reco-train, classify."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import BEGUN, RESULTS, ConfigFile, Results, named_run, with_json
from flows.start import start_benchmark, start_reco_train, start_reindex
from xmore.files.errors import ConfigError
from xmore.files.paths import PROJECT_ROOT, check_writable, real

if TYPE_CHECKING:
    from xmore.config.benchmark import BenchmarkConfig


@with_json
def demo() -> None:
    """Build the demo's models and memory, run its benchmark, and print the leaderboard."""
    from flows.cli.demo_server import demo_server
    from flows.cli.terminal.console import step
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.load import load_config
    from xmore.config.memory import ReindexConfig

    for lite in ("lite0", "lite2"):
        folder = PROJECT_ROOT / "data" / "models" / lite
        if not folder.is_dir():
            from xmore.models.conse import build_model

            with step(f"model {lite}"):
                build_model(lite, folder)
    memory = load_config(PROJECT_ROOT / "configs" / "demo-memory.yaml", ReindexConfig)
    with step("memory") as note, demo_server():
        note(_reindex(memory))
    _benchmark(load_config(PROJECT_ROOT / "configs" / "demo.yaml", BenchmarkConfig))


@with_json
def benchmark(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; configs/ has examples.", show_default=False)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key of CONFIG for this run, as in retrieval.candidates=64; the value is "
            "YAML. Repeatable.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Inference model to use instead of CONFIG's. Repeatable."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Run to resume, with its own config and snapshot.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Add a run even if a completed one is the same.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Results folder to use instead of CONFIG's, or that of the run to resume.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the benchmark of CONFIG and print its leaderboard; complete stages are skipped.

    If a completed run has the same config, memory, images and artifacts, that one is shown.
    """
    from xmore.config.load import read_changes

    wanted = read_changes(changes or [])
    if model:
        wanted["roles.inference"] = model
    _benchmark(_wanted_config(config, wanted, resume, results), resume, again)


def _wanted_config(
    config: Path | None, wanted: dict[str, Any], resume: str | None, results: Path | None
) -> BenchmarkConfig:
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.load import change_config, load_config
    from xmore.results.runs import config_of

    if resume and wanted:
        raise ConfigError("a resumed run keeps its config: leave out --set and --model.")
    if config is None and resume is None:
        raise ConfigError("name a config (see configs/), or a run to resume: --resume RUN.")
    if config is None:
        place = results or RESULTS
        return config_of(named_run(place, str(resume))).model_copy(update={"results": place})
    if results:
        wanted = wanted | {"results": str(results)}
    if wanted:
        return change_config(config, wanted, Path.cwd())
    return load_config(config, BenchmarkConfig)


@with_json
def sweep(
    config: ConfigFile,
    base: Annotated[
        Path | None, typer.Option(help="YAML of a benchmark to use instead of the sweep's.")
    ] = None,
) -> None:
    """Run a benchmark for each combination of a sweep's values; print and save one table."""
    from flows.cli.terminal.runs import show_sweep
    from flows.sweep import run_sweep

    show_sweep(run_sweep(config, base, start_benchmark))


@with_json
def classify(
    image: Annotated[Path, typer.Argument(help="An image file.", show_default=False)],
    labels: Annotated[
        str | None,
        typer.Option(help="Class names, separated by commas. Default: the classes of --run."),
    ] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="File of class names, one per line, instead of --labels.")
    ] = None,
    config: Annotated[
        Path, typer.Option(help="YAML of a benchmark: models, memory, retrieval.")
    ] = PROJECT_ROOT / "configs" / "demo.yaml",
    memory: Annotated[
        Path | None, typer.Option(help="Folder of a memory to use instead of the config's.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="Run whose config, snapshot and range of confidences to use."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Dataset of that run, if it has several.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the explanation, with images, to this HTML file; print nothing."),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Classify one image among labels, and print each step."""
    from flows.classify import classified, parse_labels, with_memory
    from flows.cli.terminal.console import safe, say
    from flows.cli.terminal.explain import show_explanation
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.load import load_config
    from xmore.results.runs import config_of

    given = not run or labels is not None or labels_file is not None
    names = parse_labels(labels, labels_file) if given else None
    if html:
        check_writable(html)
    if dataset and not run:
        raise ConfigError("--dataset is that of a run: set --run, too.")
    like = named_run(results, run) if run else None
    used = config_of(like) if like else load_config(config, BenchmarkConfig)
    if memory:
        used = with_memory(used, real(memory))
    with classified(image, names, used, like, dataset) as (steps, plan):
        if html:
            _explain_in_page(steps, image, plan.snapshot, html)
            return
        show_explanation(steps)
        if plan.snapshot:
            say("A single image has no stream: `xmore none` weighs by the raw confidences.")
        if like and plan.snapshot:
            say(safe(f"In the stream: as if it came after the queries of {like.name}."))


def _explain_in_page(steps: Any, image: Path, snapshot: Any, html: Path) -> None:
    from flows.cli.terminal.console import safe, say
    from xmore.report.explain import write_page
    from xmore.report.pictures import pictures_in

    write_page(steps, image.read_bytes(), pictures_in(snapshot), html)
    say(safe(f"{html}: {image}"))


@with_json
def reindex(config: ConfigFile) -> None:
    """Build or update the memory of CONFIG and print a summary; complete work is skipped."""
    from flows.cli.terminal.console import step
    from xmore.config.load import load_config
    from xmore.config.memory import ReindexConfig

    loaded = load_config(config, ReindexConfig)
    with step("memory") as note:
        note(_reindex(loaded))


@with_json
def reco_train(config: ConfigFile) -> None:
    """Train RECO's layers on CONFIG's memory; print recall before and after. Resumes if killed."""
    from flows.cli.terminal.reco import show_trained
    from xmore.config.load import load_config
    from xmore.config.reco import RecoTrainConfig

    show_trained(start_reco_train(load_config(config, RecoTrainConfig)))


def _benchmark(config: Any, resume: str | None = None, again: bool = False) -> None:
    """Run the flow and print its run, or the one that has it all."""
    from flows.cli.terminal.console import safe, say
    from flows.cli.terminal.runs import show_run
    from xmore.files.progress import duration

    runs = config.results / "runs"
    before = {path.name for path in runs.iterdir()} if runs.is_dir() and not resume else set()
    name = start_benchmark(config, resume, again)
    show_run(config.results, name)
    if name in before:
        say(safe(f"Nothing to do: {name} has it all. To add a run nevertheless: --again."))
    say(f"This command took {duration(time.monotonic() - BEGUN)} in all.")


def _reindex(config: Any) -> str:
    """Run the flow and return its result as text."""
    from flows.cli.terminal.console import record

    done = start_reindex(config)
    from flows.reindex import facts, summary

    for name, rows in facts(done).items():
        record(name, rows)
    return "\n".join(summary(done))
