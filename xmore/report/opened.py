"""A run as Python code and notebooks see it: its tables as Arrow, its queries with pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xmore.files.errors import QueryError
from xmore.files.paths import RESULTS
from xmore.files.sql import complaint, only_reads
from xmore.files.text import counted
from xmore.report.explain import explain_page
from xmore.report.html import render
from xmore.report.leaderboard import LEGEND, LEGEND_OF_FEW, leaderboards
from xmore.report.pictures import pictures_of
from xmore.report.recalls import LEGEND as LEGEND_OF_RECALLS
from xmore.report.recalls import recall_boards
from xmore.results.absent import warn_of_left_out
from xmore.results.explain import Explanation, explain
from xmore.results.notes import notes
from xmore.results.runs import Run, load_run
from xmore.results.views import open_views

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

HEIGHT = 640  # pixels of a page in a notebook


@dataclass(frozen=True)
class Explained(Explanation):
    """How an image was classified; in a notebook, with the pictures of what was retrieved."""

    page: str = field(default="", repr=False)  # HTML that needs no network

    def __repr__(self) -> str:
        of = f"{self.dataset}, query {self.query_id}, {self.uri!r}"
        return f"Explained({of}, {counted(len(self.answers), 'answer')})"

    def _repr_html_(self) -> str:
        # In a frame: the page's styles are not the notebook's.
        style = f"width: 100%; height: {HEIGHT}px; border: 0"
        return f'<iframe sandbox style="{style}" srcdoc="{escape(self.page)}"></iframe>'


@dataclass(frozen=True)
class OpenRun:
    """A run of a benchmark, to be read.

    Its tables are Arrow tables: `.to_pandas()` and `polars.from_arrow` take them. Nothing of the
    run is changed. Raises XmoreError where an artifact is damaged or absent.
    """

    run: Run

    def __repr__(self) -> str:
        return f"OpenRun({str(self.path)!r})"

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.run.name

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.run.path

    @property
    def config(self) -> dict[str, Any]:
        """The config of the run."""
        return self.run.config

    @property
    def snapshot(self) -> dict[str, Any] | None:
        """The snapshot that it read: its memory, name and digest; None if it had no memory."""
        return self.run.snapshot

    @cached_property
    def views(self) -> duckdb.DuckDBPyConnection:
        """DuckDB with the views that docs/reference/schemas.md describes."""
        warn_of_left_out(self.run)
        return open_views(self.run)

    def leaderboard(self, oracle: bool = False) -> pa.Table:
        """Return a row per dataset, model, method and M: accuracy, intervals, p, cost.

        `oracle` adds methods whose hyper-parameters were searched on the test labels.
        """
        return self.sql(f"from leaderboard{'_all' if oracle else ''}")

    def predictions(self) -> pa.Table:
        """Return a row per query, method, model, M and seed, with its label. Memory: all rows."""
        return self.sql("from predictions")

    def comparisons(self) -> pa.Table:
        """Return a row per pair of methods: difference, paired bootstrap, McNemar's exact p."""
        return self.sql("from comparisons")

    def sql(self, query: str) -> pa.Table:
        """Return the rows of a query over `views`. Raises QueryError if it fails, or writes."""
        import duckdb

        try:
            relation = only_reads(self.views, query)
            if relation is None:
                raise QueryError("the query is empty. Write one, such as `from leaderboard`.")
            return relation.to_arrow_table()
        except duckdb.Error as error:
            raise QueryError(complaint(error)) from error

    def explain(self, query: int | str, dataset: str | None = None) -> Explained:
        """Explain one query, step by step: by its id, or the end of its image's path.

        Raises QueryError if none or several are meant.
        """
        found = explain(self.views, str(query), dataset)
        with pictures_of(self.run, found.dataset) as images:
            page = explain_page(found, images.query(found.uri), images.memory)
        return Explained(**vars(found), page=page)

    def _repr_html_(self) -> str:
        boards = [
            board.table(self.run.snapshot_name, every_column=False)
            for board in leaderboards(self.views, self.run)
        ]
        told = [*LEGEND[:LEGEND_OF_FEW]] if boards else []
        if recalled := recall_boards(self.views, self.run):
            boards += recalled
            told += LEGEND_OF_RECALLS
        told += notes(self.views, self.run)
        return render("leaderboard.html", run=self.name, boards=boards, told=told)


def open_run(name: str = "latest", results: Path | str = RESULTS) -> OpenRun:
    """Open a run by its name or its config's, the beginning of one, or `latest`.

    Raises RunError if there is none, or if it has no results yet.
    """
    opened = OpenRun(load_run(Path(results), name))
    opened.views  # noqa: B018 - an unfinished run is refused here
    return opened
