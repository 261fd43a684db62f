"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xmore.files.paths import PROJECT_ROOT

RESULTS = PROJECT_ROOT / "results"

ConfigFile = Annotated[Path, typer.Argument(help="YAML file; see configs/.", show_default=False)]
Results = Annotated[Path, typer.Option(help="Folder with runs/ and store/.")]
RunName = Annotated[
    str, typer.Argument(help="A run, the beginning of its name, or `latest`.", show_default=False)
]
