"""Arguments and options that several commands share."""

from __future__ import annotations

import functools
import inspect
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from xmore.files.paths import RESULTS as RESULTS

if TYPE_CHECKING:
    from xmore.results.runs import Run

BEGUN = time.monotonic()  # of the command: this module is among the first that it imports

ConfigFile = Annotated[
    Path, typer.Argument(help="YAML file; configs/ has examples.", show_default=False)
]
Results = Annotated[Path, typer.Option(help="Results folder, with runs/ and store/.")]
RunName = Annotated[
    str,
    typer.Argument(
        help="Name of a run or of a config, the beginning of one, or `latest`.",
        show_default=False,
    ),
]
AllColumns = Annotated[
    bool, typer.Option("--all-columns", help="Show all columns, not only those that fit.")
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the tables as one JSON object; all other text goes to stderr."
    ),
]


class _Command(typer.core.TyperCommand):
    """A command whose usage has its arguments in capitals; Typer's has braces around them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = super().collect_usage_pieces(ctx)
        return [piece.translate({ord(brace): None for brace in "{}"}).upper() for piece in pieces]


class Commands(typer.Typer):
    """A group of commands."""

    def command(self, name: str | None = None, **options: Any) -> Any:
        """Register a command."""
        return super().command(name, cls=_Command, **options)


def named_run(results: Path, name: str) -> Run:
    """Load a run; if its name is not given in full, say on stderr which one is taken."""
    from xmore.results.runs import load_run

    run = load_run(results, name)
    if name not in (run.name, "latest"):
        print(f"run {run.name}", file=sys.stderr)
    return run


def with_json(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that prints tables the option `--json`."""

    @functools.wraps(command)
    def called(*arguments: Any, as_json: bool = False, **options: Any) -> None:
        if not as_json:
            command(*arguments, **options)
            return
        from flows.cli.terminal.console import tables_as_json

        with tables_as_json():
            command(*arguments, **options)

    signature = inspect.signature(command, eval_str=True)
    option = inspect.Parameter(
        "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json
    )
    parameters = [*signature.parameters.values(), option]
    called.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called
