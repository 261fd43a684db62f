"""The tables of retrieval datasets: recall of every model, and the differences between models."""

from __future__ import annotations

from collections import defaultdict

import duckdb

from xmore.report.leaderboard import points
from xmore.report.table import Kind, Table, show
from xmore.results.ranks import KS
from xmore.results.runs import Run

LEGEND = (
    "recall@k ± half of its 95 % interval over the images: the share of images that",
    "find one of their captions, or of captions that find their image, among the k",
    "most similar.",
    "to NAME: points of recall@1 on the same images; * is significant (p < 0.05,",
    "exact sign test over the images, Holm-corrected over all comparisons with that",
    "model).",
)


def recalls(db: duckdb.DuckDBPyConnection, run: Run) -> Table:
    """Return the view `recalls`, formatted for display; no rows without a retrieval dataset."""
    rows = db.execute(
        """
        select dataset || $trial, direction, model, k, n, recall, ci_low, ci_high, difference,
               p_holm, median_rank, n_tied
        from recalls
        """,
        {"trial": run.trial},
    ).fetchall()
    return Table(
        "recalls",
        "Recall",
        "Share of the n queries that find what belongs to them among the k most similar, with its "
        "95 % interval: Wilson's, or over captions a bootstrap over the images. Difference: in "
        "points, to the first model on the same images; p: exact sign test over the images, "
        "Holm-corrected over all comparisons with that model. Tied: queries whose rank the order "
        "of equal similarities decides.",
        [
            ("dataset", "text"),
            ("direction", "text"),
            ("model", "text"),
            ("k", "count"),
            ("n", "count"),
            ("recall %", "share"),
            ("low", "share"),
            ("high", "share"),
            ("difference", "points"),
            ("p", "p"),
            ("median rank", "number"),
            ("tied", "count"),
        ],
        rows,
    )


def recall_boards(db: duckdb.DuckDBPyConnection, run: Run) -> list[Table]:
    """Return the same with a row per model: one table per dataset and direction."""
    boards: dict[tuple[str, str, int], dict[str, list[str]]] = defaultdict(dict)
    for dataset, direction, model, k, n, recall, low, high, difference, p, median, _ in recalls(
        db, run
    ).rows:
        cells = boards[dataset, direction, n].setdefault(model, [model])
        cells.append(f"{show(recall, 'share')} ± {show((high - low) / 2, 'share')}")
        if k == KS[0]:
            last = [points(difference, p), show(p, "p"), show(median, "number")]
        if k == KS[-1]:
            cells += last
    return [
        Table(
            "recalls",
            f"{dataset}, {direction}, n = {n:,}",
            "",
            _columns(next(iter(of_models))),
            [tuple(cells) for cells in of_models.values()],
        )
        for (dataset, direction, n), of_models in boards.items()
    ]


def _columns(first: str) -> list[tuple[str, Kind]]:
    of_k: list[tuple[str, Kind]] = [(f"recall@{k} %", "figure") for k in KS]
    return [
        ("model", "name"),
        *of_k,
        (f"to {first}", "figure"),
        ("p", "figure"),
        ("median rank", "figure"),
    ]


def model_comparisons(db: duckdb.DuckDBPyConnection) -> Table:
    """Return the comparison of every pair of models, formatted for display."""
    rows = db.execute(
        """
        select dataset, direction, k, model, baseline_model, n, difference, ci_low, ci_high,
               only_model, only_baseline_model, p, p_holm
        from retrieval_comparisons
        """
    ).fetchall()
    return Table(
        "model_comparisons",
        "All pairs of models on the same images and captions",
        "Difference of recall at k in points, with its 95 % bootstrap interval over the images. "
        "More, fewer: number of images of whose queries the model finds more, or fewer, than the "
        "other. p: exact sign test over the images; Holm's correction is over all rows with the "
        "same other model.",
        [
            ("dataset", "text"),
            ("direction", "text"),
            ("k", "count"),
            ("model", "text"),
            ("over", "text"),
            ("n", "count"),
            ("difference", "points"),
            ("low", "points"),
            ("high", "points"),
            ("more", "count"),
            ("fewer", "count"),
            ("p", "p"),
            ("p, Holm", "p"),
        ],
        rows,
    )
