"""The command line: `xmore`. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows import datasets, memory_cli, texts_cli
from flows.memory_cli import ConfigFile
from xmore.errors import ConfigError, RunError, ServiceError, XmoreError
from xmore.paths import PROJECT_ROOT

commands = typer.Typer(
    help="Zero-shot image classification from CLIP plus retrieved captions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

commands.add_typer(datasets.commands, name="datasets")
commands.add_typer(memory_cli.commands, name="memory")
commands.command()(texts_cli.texts)

RunName = Annotated[
    str, typer.Argument(help="A run, the beginning of its name, or `latest`.", show_default=False)
]
Results = Annotated[Path, typer.Option(help="Folder with runs/ and store/.")]
RESULTS = PROJECT_ROOT / "results"


@commands.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all logs.")] = False,
) -> None:
    """Set up logs before any command."""
    _quiet(debug)


@commands.command()
def demo() -> None:
    """Build the demo's models, download and index its memory, run its benchmark."""
    from flows.demo_server import demo_server
    from flows.show import show_run, step
    from xmore.config import BenchmarkConfig, ReindexConfig, load_config

    for lite in ("lite0", "lite2"):
        folder = PROJECT_ROOT / "data" / "models" / lite
        if not folder.is_dir():
            from xmore.conse import build_model

            with step(f"model {lite}"):
                build_model(lite, folder)
    memory = load_config(PROJECT_ROOT / "configs" / "demo-memory.yaml", ReindexConfig)
    with step("memory") as note, demo_server():
        note(_reindex(memory))
    config = load_config(PROJECT_ROOT / "configs" / "demo.yaml", BenchmarkConfig)
    show_run(config.results, _start(config, None))


@commands.command()
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
    from flows.show import show_run
    from xmore.config import BenchmarkConfig, load_config
    from xmore.runs import config_of, load_run

    if config is None and resume is None:
        raise ConfigError("name a config (see configs/), or a run to go on with: --resume RUN.")
    used = load_config(config, BenchmarkConfig) if config else None
    if used is None:
        used = config_of(load_run(results, str(resume))).model_copy(update={"results": results})
    show_run(used.results, _start(used, resume))


@commands.command()
def sweep(
    config: ConfigFile,
    base: Annotated[
        Path | None, typer.Option(help="Another benchmark's YAML than the sweep's own.")
    ] = None,
) -> None:
    """Run a sweep: a benchmark for each of some values, and a table over all of them."""
    from flows.show import show_sweep
    from flows.sweep import run_sweep

    show_sweep(run_sweep(config, base, lambda member: _start(member, None)))


@commands.command()
def up(port: Annotated[int, typer.Option(help="Of Prefect's server.")] = 4200) -> None:
    """Start Prefect's server and a worker, and deploy the flows."""
    from flows import services
    from flows.show import show_up

    show_up(services.up(port), services.HOME)


@commands.command()
def down() -> None:
    """End all that `xmore up` has started."""
    from flows import services

    ended = services.down()
    print(f"ended: {', '.join(ended)}" if ended else "nothing was running")


@commands.command()
def runs(results: Results = RESULTS) -> None:
    """List all runs."""
    from flows.show import show_runs
    from xmore.runs import all_runs

    show_runs(all_runs(results))


@commands.command()
def show(
    run: RunName,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Also methods whose hyper-parameters have seen test labels."),
    ] = False,
    results: Results = RESULTS,
) -> None:
    """Print a run's leaderboard and what its stages cost."""
    from flows.show import show_run
    from xmore.runs import load_run

    show_run(results, load_run(results, run).name, oracle)


@commands.command()
def sql(
    run: RunName,
    query: Annotated[
        str | None, typer.Argument(help="SQL; none: standard input, or a prompt on a terminal.")
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json", "parquet"], typer.Option("--format", help="Of the answer.")
    ] = "table",
    output: Annotated[Path | None, typer.Option(help="File to write the answer to.")] = None,
    results: Results = RESULTS,
) -> None:
    """Ask a run's results in DuckDB's SQL; nothing is changed."""
    from flows import sql as asking
    from xmore.runs import load_run
    from xmore.views import open_views

    found = load_run(results, run)
    connection = open_views(found)
    if query is None and sys.stdin.isatty():
        asking.prompt(connection, found.name)
    else:
        asking.answer(connection, query or sys.stdin.read(), form, output)


@commands.command()
def compare(
    run: RunName,
    other: Annotated[str | None, typer.Argument(help="Another run.", show_default=False)] = None,
    to: Annotated[Literal["paper"] | None, typer.Option(help="Or the paper's tables.")] = None,
    results: Results = RESULTS,
) -> None:
    """Set a run beside the paper's tables, or beside another run."""
    from flows.compare import show_comparison, show_paper
    from xmore.compare import between, to_paper
    from xmore.runs import load_run

    if (other is None) == (to is None):
        raise ConfigError("name another run, or `--to paper`.")
    found = load_run(results, run)
    if other is None:
        show_paper(found, to_paper(found))
    else:
        second = load_run(results, other)
        show_comparison(found, second, between(found, second))


@commands.command()
def explain(
    run: RunName,
    query: Annotated[
        str, typer.Argument(help="Its query_id, or the end of its path.", show_default=False)
    ],
    dataset: Annotated[
        str | None, typer.Option(help="Of the query, where the run has several.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw it with pictures in this file.")] = None,
    results: Results = RESULTS,
) -> None:
    """Show a query's whole way: what was seen, retrieved, thought and answered."""
    from flows.explain import show_explanation, write_page
    from flows.pictures import pictures_of
    from xmore.explain import explain as gather
    from xmore.runs import load_run
    from xmore.views import open_views

    found = load_run(results, run)
    way = gather(open_views(found), query, dataset)
    if html is None:
        show_explanation(way)
        return
    with pictures_of(found, way.dataset) as pictures:
        write_page(way, pictures.query(way.uri), pictures.memory, html)
    print(f"{html}: query {way.query_id} of {way.dataset}")


@commands.command()
def leaks(
    run: RunName,
    threshold: Annotated[
        float | None, typer.Option(help="Similarity of a near duplicate; none: the run's own.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw the pairs in this file.")] = None,
    results: Results = RESULTS,
) -> None:
    """Say which test images are in the memory, and what accuracy is without them."""
    from flows.leaks import leak_reports
    from flows.leaks_page import show_reports, write_leaks_page
    from xmore.adopt import open_memory
    from xmore.runs import load_run

    if threshold is not None and not 0 < threshold <= 1:
        raise ConfigError(f"--threshold must be above 0 and at most 1, got {threshold}.")
    found = load_run(results, run)
    memory, cache = Path(found.snapshot["memory"]), results / "cache"
    with open_memory(memory, cache, found.snapshot["name"]) as snapshot:
        reports = leak_reports(found, snapshot, threshold)
        show_reports(reports)
        if html:
            write_leaks_page(found, reports, html)
            print(f"{html}: the pairs as pictures")


@commands.command()
def report(
    run: RunName,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to; none: `report/` in the run's own.")
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Write a run as a page with plots, tables and examples; it needs no network."""
    from flows.report import write_report
    from flows.show import safe, say
    from xmore.runs import load_run

    found = load_run(results, run)
    page = write_report(found, output or found.path / "report")
    say(safe(f"{page}: {page.stat().st_size / 1e6:.1f} MB; plots and tables lie beside it"))


@commands.command()
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
    from flows.explain import show_explanation, write_page
    from flows.show import say
    from index_build.pictures import memory_pictures
    from xmore.config import BenchmarkConfig, load_config
    from xmore.runs import config_of, load_run

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


@commands.command()
def doctor(results: Results = RESULTS) -> None:
    """Check what this installation needs; one line each, and what to do."""
    from flows.doctor import examine
    from flows.show import show_checks

    if show_checks(examine(results)):
        raise typer.Exit(1)


@commands.command()
def verify(
    run: RunName,
    results: Results = RESULTS,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged artifacts aside, to be made again.")
    ] = False,
) -> None:
    """Read every byte of a run's artifacts and snapshot and compare the hashes."""
    from flows.show import show_faults
    from flows.verify import verify_run
    from xmore.runs import load_run

    found = load_run(results, run)
    if found.status != "completed":
        raise RunError(f"run {found.name} is {found.status}: only a completed one can be whole.")
    if show_faults(found, verify_run(found, repair), repair):
        raise typer.Exit(1)


@commands.command()
def reindex(config: ConfigFile) -> None:
    """Make the memory of CONFIG, or make it anew; what is already there is not done again."""
    from flows.show import step
    from xmore.config import ReindexConfig, load_config

    loaded = load_config(config, ReindexConfig)
    with step("memory") as note:
        note(_reindex(loaded))


@commands.command("reco-train")
def reco_train(config: ConfigFile) -> None:
    """Train the layers of `reco` on CONFIG's memory; a killed training is gone on with."""
    from flows.reco import xmore_reco_train
    from flows.show_reco import show_trained
    from xmore.config import load_config
    from xmore.reco_config import RecoTrainConfig

    show_trained(_call(xmore_reco_train, load_config(config, RecoTrainConfig)))


def app() -> None:
    """Entry point: what a user can mend is one line and exit code 2; `--debug` shows where."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        commands()
    except (XmoreError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def _one_line(error: Exception) -> str:
    """The message of an error; the system's own (disk full, not allowed) get a hint."""
    if isinstance(error, XmoreError):
        return str(error)
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    what = getattr(error, "strerror", None) or str(error)
    return str(XmoreError(f"{where}{what}. What is whole is kept; mend it and run again."))


def _terminated(*_: object) -> None:
    print("\nterminated: whole parts are kept; the same command goes on", file=sys.stderr)
    raise SystemExit(128 + signal.SIGTERM)


def _start(config: Any, resume: str | None) -> str:
    """Run the flow and return the run's name."""
    from flows.benchmark import xmore_benchmark

    return _call(xmore_benchmark, config, resume)


def _reindex(config: Any) -> str:
    """Run the flow and say what it came to."""
    from flows.artifacts import index_name, most_common
    from flows.reindex import xmore_reindex

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


def _quiet(debug: bool) -> None:
    for name in ("PREFECT_SERVER_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "false" if name.startswith("PREFECT") else "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handler = logging.StreamHandler()
    if not debug:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it tells each retry twice
        # What Prefect logs, tracebacks among it, goes to its server and is seen in the UI.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        handler.addFilter(lambda record: not record.name.startswith("prefect"))
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", handlers=[handler])
