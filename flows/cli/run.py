"""The commands that make things: demo, benchmark, sweep, reindex, reco-train, classify."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.options import RESULTS, ConfigFile, Results
from xmore.files.errors import ConfigError, ServiceError
from xmore.files.paths import PROJECT_ROOT


def demo() -> None:
    """Build the demo's models, download and index its memory, run its benchmark."""
    from flows.cli.demo_server import demo_server
    from flows.cli.terminal.console import step
    from flows.cli.terminal.runs import show_run
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
    config = load_config(PROJECT_ROOT / "configs" / "demo.yaml", BenchmarkConfig)
    show_run(config.results, _start(config, None))


def benchmark(
    config: Annotated[
        Path | None, typer.Argument(help="YAML file; see configs/.", show_default=False)
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with this run, its config and its snapshot.")
    ] = None,
    results: Annotated[Path, typer.Option(help="Of the run to go on with.")] = RESULTS,
) -> None:
    """Run every stage that CONFIG asks for; what is already there is not done again."""
    from flows.cli.terminal.runs import show_run
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.load import load_config
    from xmore.results.runs import config_of, load_run

    if config is None and resume is None:
        raise ConfigError("name a config (see configs/), or a run to go on with: --resume RUN.")
    used = load_config(config, BenchmarkConfig) if config else None
    if used is None:
        used = config_of(load_run(results, str(resume))).model_copy(update={"results": results})
    show_run(used.results, _start(used, resume))


def sweep(
    config: ConfigFile,
    base: Annotated[
        Path | None, typer.Option(help="Another benchmark's YAML than the sweep's own.")
    ] = None,
) -> None:
    """Run a sweep: a benchmark for each of some values, and a table over all of them."""
    from flows.cli.terminal.runs import show_sweep
    from flows.sweep import run_sweep

    show_sweep(run_sweep(config, base, lambda member: _start(member, None)))


def classify(
    image: Annotated[Path, typer.Argument(help="An image file.", show_default=False)],
    labels: Annotated[str | None, typer.Option(help="Class names, separated by commas.")] = None,
    labels_file: Annotated[Path | None, typer.Option(help="Or a file, one name a line.")] = None,
    config: Annotated[
        Path, typer.Option(help="A benchmark's YAML: models, memory, retrieval.")
    ] = PROJECT_ROOT / "configs" / "demo.yaml",
    memory: Annotated[Path | None, typer.Option(help="Another memory than the config's.")] = None,
    run: Annotated[
        str | None, typer.Option(help="Take config and snapshot of this run, and weigh as it did.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw it with pictures in this file.")] = None,
    results: Results = RESULTS,
) -> None:
    """Classify one picture among labels, and show how."""
    from flows.classify import classified, parse_labels
    from flows.cli.terminal.console import say
    from flows.cli.terminal.explain import show_explanation
    from xmore.config.benchmark import BenchmarkConfig
    from xmore.config.load import load_config
    from xmore.memory.pictures import memory_pictures
    from xmore.report.explain import write_page
    from xmore.results.runs import config_of, load_run

    names = parse_labels(labels, labels_file)
    like = load_run(results, run) if run else None
    used = config_of(like) if like else load_config(config, BenchmarkConfig)
    if memory:
        used = used.model_copy(update={"memory": memory.resolve()})
    with classified(image, names, used, like) as (way, plan):
        if html:
            pictures = partial(memory_pictures, plan.snapshot)
            write_page(way, image.read_bytes(), pictures, html)
            print(f"{html}: {image}")
            return
        show_explanation(way)
        say("One picture has no stream: `xmore none` weighs by the raw confidences.")


def reindex(config: ConfigFile) -> None:
    """Make the memory of CONFIG, or make it anew; what is already there is not done again."""
    from flows.cli.terminal.console import step
    from xmore.config.load import load_config
    from xmore.config.memory import ReindexConfig

    loaded = load_config(config, ReindexConfig)
    with step("memory") as note:
        note(_reindex(loaded))


def reco_train(config: ConfigFile) -> None:
    """Train the layers of `reco` on CONFIG's memory; a killed training is gone on with."""
    from flows.cli.terminal.reco import show_trained
    from flows.reco_train import xmore_reco_train
    from xmore.config.load import load_config
    from xmore.config.reco import RecoTrainConfig

    show_trained(_call(xmore_reco_train, load_config(config, RecoTrainConfig)))


def _start(config: Any, resume: str | None) -> str:
    """Run the flow and return the run's name."""
    from flows.benchmark import xmore_benchmark

    return _call(xmore_benchmark, config, resume)


def _reindex(config: Any) -> str:
    """Run the flow and say what it came to."""
    from flows.reindex import xmore_reindex
    from xmore.report.snapshot import index_name, most_common

    made = _call(xmore_reindex, config)
    facts = made.snapshot.manifest
    index = index_name(facts["index"])
    text = f"{facts['rows']} rows, index {index}, snapshot {made.snapshot.name}"
    done = f"{made.fetched} rows tried, {made.embedded} embedded"
    text += f" ({'unchanged: nothing downloaded, nothing embedded' if made.skipped else done})"
    if made.added or made.removed:
        text += f"\n{made.added:>20,} rows more and {made.removed:,} fewer than before"
    if made.withdrawn:
        text += (
            "\nCURRENT was not moved: this snapshot was rolled back from. Change its sources, or "
            f"`xmore memory rollback {config.memory} --to {made.snapshot.name}`"
        )
    for cause, count in most_common(facts["failures"]):
        text += f"\n{count:>20,} of {facts['asked']:,} rows failed: {cause}"
    return text


def _call(flow: Any, *arguments: Any) -> Any:
    """Run a flow under Prefect where a server is configured, else as a plain function."""
    import httpx
    from prefect.settings import PREFECT_API_URL

    api = PREFECT_API_URL.value()
    try:
        if not api:
            return flow.fn(*arguments)
        httpx.get(f"{api}/health", timeout=10)
        return flow(*arguments)
    except httpx.TransportError as error:
        raise ServiceError(
            f"{api}: Prefect's server does not answer ({error}). What is whole is kept: start it "
            "and run again, or unset PREFECT_API_URL to run without it."
        ) from error
    except KeyboardInterrupt:  # typer makes it exit code 130
        print("\ninterrupted: whole parts are kept; the same command goes on", file=sys.stderr)
        raise
