"""What `xmore explain` and `xmore classify` print."""

from __future__ import annotations

from itertools import zip_longest

from flows.cli.terminal.console import console, safe, say, show_table, table_of
from xmore.report.explain import LEFT_OUT
from xmore.results.explain import Explanation

SHOWN = 10  # captions in the terminal; the HTML page has all


def show_explanation(found: Explanation) -> None:
    """Print a query's scores, retrieved captions and predictions."""
    say(f"[bold]{safe(found.dataset)} query {found.query_id}[/bold]: {safe(found.uri)}")
    if found.label is not None:
        say(f"label: [bold]{safe(found.label)}[/bold]")
    for scores in found.scores:
        text = scores.text_confidence
        table = table_of(
            "image scores", "", f"text scores (M = {scores.m})", "", first_columns_left=3
        )
        table.title = safe(
            f"{scores.model}: image confidence {scores.image_confidence:.3f}, "
            f"text confidence {'-' if text is None else f'{text:.3f}'}"
        )
        for image_score, text_score in zip_longest(scores.image, scores.text, fillvalue=("", None)):
            table.add_row(*_cells(*image_score), *_cells(*text_score))
        show_table(table)
    _show_retrieved(found)
    _show_predictions(found)


def _cells(name: str, probability: float | None) -> tuple[str, str]:
    return safe(name), "" if probability is None else f"{probability:.3f}"


def _show_retrieved(found: Explanation) -> None:
    similarities = [row.similarity for row in found.candidates]
    if not similarities:
        say("no candidates\n")
        return
    say(
        f"{len(similarities)} candidates, similarity {similarities[0]:.3f} to "
        f"{similarities[-1]:.3f}; {len(found.captions)} captions kept:"
    )
    table = table_of("rank", "similarity", "memory_id", "caption", first_columns_left=0)
    table.columns[-1].justify = "left"
    room = max(20, console.width - 36)  # the other columns take 36
    for row in found.captions[:SHOWN]:
        text = " ".join(row.caption.split())
        text = safe(text if len(text) <= room else text[: room - 1] + "…")
        table.add_row(str(row.rank), f"{row.similarity:.3f}", str(row.memory_id), text)
    show_table(table)
    if len(found.captions) > SHOWN:
        say(f"... and {len(found.captions) - SHOWN} more\n")


def _show_predictions(found: Explanation) -> None:
    if not found.answers:
        say(LEFT_OUT)
        return
    table = table_of(
        "model",
        "method",
        "M",
        "weights",
        "prediction",
        "probability",
        "seeds",
        "",
        first_columns_left=2,
    )
    for row in found.answers:
        weights = (
            "" if row.image_weight is None else f"{row.image_weight:.3g} : {row.text_weight:.3g}"
        )
        table.add_row(
            safe(row.model),
            safe(row.method),
            "" if row.m is None else str(row.m),
            weights,
            safe(row.answer or "no prediction"),
            "" if row.probability is None else f"{row.probability:.3f}",
            row.seeds,
            {True: "right", False: "wrong", None: ""}[row.correct],
        )
    show_table(table)
