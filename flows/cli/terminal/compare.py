"""What `xmore compare` prints."""

from __future__ import annotations

from flows.cli.terminal.console import safe, say, show_table, table_of
from xmore.results.compare import Comparison, PaperRow
from xmore.results.runs import Run


def show_paper(run: Run, rows: list[PaperRow]) -> None:
    """Print the paper's tables 1 and 2 next to the run's accuracies."""
    notes: dict[str, int] = {}
    table = table_of("model", "dataset", "method", "paper", "ours", "difference", "95 % interval")
    table.columns[1].justify = table.columns[2].justify = "left"
    table.add_column("paper in it", no_wrap=True)
    for row in rows:
        mark = f" [{notes.setdefault(row.errata, len(notes) + 1)}]" if row.errata else ""
        interval = f"{row.interval[0]:.1f} to {row.interval[1]:.1f}" if row.interval else ""
        table.add_row(
            row.model,
            row.dataset,
            row.method,
            f"{row.paper:.2f}{safe(mark)}",
            f"{row.ours:.2f}",
            f"{row.ours - row.paper:+.2f}",
            interval,
            {True: "yes", False: "no", None: ""}[row.inside],
        )
    show_table(table)
    for text, number in notes.items():
        say(safe(f"[{number}] {text}"))
    say(
        safe(
            f"Run {run.name}{run.trial}, top-1 in %. The paper's text describes `minmax`; its "
            "authors' code has `running-sum`, which probably made its tables "
            "(data/reference/README.md)."
        )
    )


def show_comparison(a: Run, b: Run, found: Comparison) -> None:
    """Print the differences between two runs' configs and predictions."""
    say(safe(f"A = {a.name}{a.trial}, B = {b.name}{b.trial}"))
    differences = table_of("config", "A", "B")
    for key, *values in found.differences:
        differences.add_row(safe(key), *(safe(str(value)) for value in values))
    if found.differences:
        show_table(differences)
    else:
        say("Their configs are the same.")
    flips = table_of(
        "dataset", "model", "method", "n", "both right", "only A", "only B", "points", "p"
    )
    flips.columns[1].justify = flips.columns[2].justify = "left"
    for row in found.flips:
        points = 100 * (row.only_b - row.only_a) / row.n
        counts = map(str, (row.n, row.both, row.only_a, row.only_b))
        names = map(safe, (row.dataset, row.model, row.variant))
        flips.add_row(*names, *counts, f"{points:+.1f}", f"{row.p:.3f}")
    show_table(flips)
    if found.examples:
        examples = table_of("flipped", "method", "true class", "A predicts", "B predicts")
        for column in examples.columns:
            column.justify = "left"
        for dataset, model, variant, uri, name, in_a, in_b in found.examples:
            cells = (f"{dataset} {uri}", f"{model} {variant}", name, in_a, in_b)
            examples.add_row(*map(safe, cells))
        show_table(examples)
    say("points: B minus A; p: two-sided exact sign test (McNemar) over the flipped queries.")
