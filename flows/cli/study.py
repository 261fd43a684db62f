"""The commands that share a run: pack, open, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import RESULTS, Results, RunName, named_run, with_json

Study = Annotated[
    Path, typer.Argument(help="A zip that `xmore pack` has made.", show_default=False)
]


@with_json
def pack(
    run: RunName,
    output: Annotated[Path, typer.Argument(help="Zip to write.", show_default=False)],
    captions: Annotated[
        bool, typer.Option("--captions", help="Also pack the captions that were kept.")
    ] = False,
    images: Annotated[
        bool,
        typer.Option(
            "--images",
            help="Also show test images in the report; with --captions, those of the memory, too.",
        ),
    ] = False,
    results: Results = RESULTS,
) -> None:
    """Pack a run as one zip that others can read and run anew, and print what is in it."""
    from flows.cli.terminal.study import show_packed
    from flows.study import pack_run

    show_packed(pack_run(named_run(results, run), output, captions, images), output, images)


@with_json
def open(
    study: Study,
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder to unpack to, new or empty. Default: the study's name, here.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Unpack a study as a results folder of its own, and print the next commands."""
    from flows.cli.terminal.study import show_opened
    from xmore.results.study.unpack import unpack

    show_opened(unpack(study, folder or Path(study.stem)), study)


@with_json
def reproduce(
    study: Study,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key of the study's config, as in memory=/data/memories/laion; the value "
            "is YAML. Repeatable.",
        ),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Run a study's benchmark here, and print which artifacts and answers are the same."""
    from flows.cli.terminal.study import show_reproduced
    from flows.study import reproduce as run_anew
    from xmore.config.load import read_changes

    if not show_reproduced(run_anew(study, read_changes(changes or []), results)):
        raise typer.Exit(1)
