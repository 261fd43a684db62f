"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmore.files.paths import RESULTS as RESULTS

ConfigFile = Annotated[
    Path, typer.Argument(help="YAML file; configs/ has examples.", show_default=False)
]
Results = Annotated[Path, typer.Option(help="Results folder, with runs/ and store/.")]
RunName = Annotated[
    str,
    typer.Argument(help="Name of a run, the beginning of it, or `latest`.", show_default=False),
]
