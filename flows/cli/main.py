"""The command line: `xmore`. Heavy libraries are imported by the commands that need them."""

from __future__ import annotations

import atexit
import errno
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Annotated, Any

import typer

from flows.cli import datasets, look, memory, run, runs, study, texts, upkeep
from flows.cli.options import Commands
from flows.start import RESUMES
from xmore.files.errors import ConfigError, ServiceError, XmoreError, one_line, printable
from xmore.files.paths import is_text, shown

ADDRESSES = 4e9  # bytes of virtual memory that torch maps, and more
RUN, LOOK, SHARE = "Run", "Look at runs", "Share a run"  # in `--help`
MEMORY, UPKEEP = "Memory and datasets", "Upkeep"
COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    RUN: (run.demo, run.benchmark, run.classify, run.sweep, run.reco_train),
    LOOK: (
        look.show,
        look.report,
        look.export,
        look.sql,
        look.explain,
        look.compare,
        look.leaks,
    ),
    SHARE: (study.pack, study.open, study.reproduce),
    MEMORY: (run.reindex, texts.texts),
    UPKEEP: (upkeep.up, upkeep.down, upkeep.doctor, upkeep.verify),
}

commands = Commands(
    help="Classify images without training, with CLIP and retrieved captions.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, functions in COMMANDS.items():
    for function in functions:
        commands.command(rich_help_panel=panel)(function)
commands.add_typer(runs.commands, name="runs", rich_help_panel=LOOK)
commands.add_typer(memory.commands, name="memory", rich_help_panel=MEMORY)
commands.add_typer(datasets.commands, name="datasets", rich_help_panel=MEMORY)


def _version(wanted: bool) -> None:
    if wanted:
        from xmore.files.code import version

        print(version())
        raise typer.Exit


@commands.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all logs.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Set up logs before any command."""
    _quiet(debug)


def app() -> None:
    """Run `xmore`.

    Any error is one line and exit code 2; with `--debug`, a traceback.
    """
    signal.signal(signal.SIGTERM, _terminated)
    _open_streams()
    try:
        _check_memory()
        try:
            code = _run([_at_home(_text(argument)) for argument in sys.argv[1:]])
        finally:
            _flush_output()
    except Exception as error:  # each library raises its own
        if "--debug" in sys.argv:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(code)


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit code. Wrong use is one line, too, not Typer's box."""
    try:
        return _command()(arguments, "xmore", standalone_mode=False) or 0
    except typer.TyperException as error:
        told = printable(error.format_message()).replace("Value error, ", "")
        context = getattr(error, "ctx", None)
        if told:  # else the help was printed, as without any command
            path = context.command_path if context else "xmore"
            end = "" if told[-1] in ".?" else "."
            print(f"error: {told}{end} See `{path} -h`.", file=sys.stderr)
        return error.exit_code


def _check_memory() -> None:
    """Raise ConfigError if less address space is allowed than libraries need to end by an error."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if 0 <= soft < ADDRESSES:
        raise ConfigError(
            f"this shell allows {soft / 1e9:.1f} GB of virtual memory, which libraries answer with "
            f"a crash; {ADDRESSES / 1e9:.0f} GB are the least. Run `ulimit -v unlimited` first."
        )


def _flush_output() -> None:
    """Raise OSError, which names it, if standard output cannot be written; else Python would."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries again
        if error.errno == errno.EPIPE:  # the reader has seen enough
            raise SystemExit(1) from None
        error.filename = "standard output"
        raise


def _open_streams() -> None:
    """Open closed standard streams: a file that is opened later would take their place."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDONLY if mode == "r" else os.O_WRONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode))


@cache
def _command() -> Any:
    return typer.main.get_command(commands)


def main() -> None:
    """Run `xmore` as a process, which ends at once after a library's error.

    Prefect's threads would wait for a server that is gone, for minutes, before they let the process
    end; a library that was loaded in part may wait for ever. Elsewhere, threads and exit handlers
    end as ever, but no module is taken apart, which takes two seconds after torch was loaded.
    """
    code: list[Any] = [1]  # of an error that no one answers, as with `--debug`
    atexit.register(lambda: _leave(code[-1]))  # the first to be registered is the last to be called
    try:
        app()
    except SystemExit as end:
        code.append(end.code or 0)
        error = end.__context__
        told = end.code == 2 and end.__suppress_context__  # by `app`, not a wrong option
        if told and (isinstance(error, ServiceError) or not isinstance(error, XmoreError)):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(2)
        raise


def _leave(code: int) -> None:
    with suppress(OSError):  # `app` has told of it
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _text(argument: str) -> str:
    """Return an argument. Raises ConfigError if it is none that files and tables can hold."""
    if not is_text(argument):
        raise ConfigError(f"{shown(argument)}: not UTF-8. Rename the file, or its folder.")
    return argument


def _at_home(argument: str) -> str:
    """Expand `~` as in configs; a shell leaves that of `--results=~/x` alone."""
    name, equals, value = (
        argument.partition("=") if argument.startswith("--") else ("", "", argument)
    )
    return name + equals + os.path.expanduser(value) if value.startswith("~") else argument


def _terminated(*_: object) -> None:
    print(f"\nterminated: {RESUMES}", file=sys.stderr)
    raise SystemExit(128 + signal.SIGTERM)


class _Once(logging.Filter):
    """Lets each message through once."""

    def __init__(self) -> None:
        super().__init__()
        self._said = set[str]()

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        new = said not in self._said
        self._said.add(said)
        return new


def _quiet(debug: bool) -> None:
    for name in ("PREFECT_SERVER_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "false" if name.startswith("PREFECT") else "1")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handler = logging.StreamHandler()
    if not debug:
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it logs each retry twice
        # Prefect's logs, with tracebacks, go to its server; its UI shows them.
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        handler.addFilter(lambda record: not record.name.startswith("prefect"))
        handler.addFilter(_Once())  # each run of a sweep finds the same about its datasets
    level = logging.DEBUG if debug else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(message)s", handlers=[handler])
