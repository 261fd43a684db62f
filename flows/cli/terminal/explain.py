"""What `xmore explain` and `xmore classify` print."""

from __future__ import annotations

from dataclasses import asdict
from itertools import zip_longest

from flows.cli.terminal.console import cut, record, safe, say, show_table, wants_json
from xmore.methods.base import under
from xmore.report.explain import LEFT_OUT
from xmore.report.table import Kind, Table
from xmore.results.explain import Explanation, ModelScores

SHOWN = 10  # captions in the terminal; the HTML page has all


def show_explanation(found: Explanation) -> None:
    """Print a query's scores, retrieved captions and predictions."""
    record("query", [_query(found)])
    say(f"[bold]{safe(found.dataset)} query {found.query_id}[/bold]: {safe(found.uri)}")
    if found.label is not None:
        say(f"label: [bold]{safe(found.label)}[/bold]")
    for scores in found.scores:
        record("scores", _score_rows(scores))
        if not wants_json():
            _show_scores(scores)
    _show_retrieved(found)
    _show_predictions(found)


def _query(found: Explanation) -> dict[str, object]:
    return {
        "dataset": found.dataset,
        "query_id": found.query_id,
        "uri": found.uri,
        "label": found.label,
    }


def _score_rows(scores: ModelScores) -> list[dict[str, object]]:
    """Return a row for each of the best classes, by the image and by the captions."""
    image = ("image", scores.image, scores.image_confidence)
    captions = ("captions", scores.text, scores.text_confidence)
    row: dict[str, object] = {"model": scores.model, "m": scores.m}
    if scores.prompt_set:
        row["prompt_set"] = scores.prompt_set
    return [
        row | {"of": of, "confidence": confidence} | {"class_name": name, "score": score}
        for of, best, confidence in (image, captions)
        for name, score in best
    ]


def _show_scores(scores: ModelScores) -> None:
    text = scores.text_confidence
    of_text = f", text confidence {'-' if text is None else f'{text:.3f}'}"
    title = (
        f"{under(scores.model, scores.prompt_set)}: "
        f"image confidence {scores.image_confidence:.3f}{'' if scores.m is None else of_text}"
    )
    rows = [
        (*image, *text)
        for image, text in zip_longest(scores.image, scores.text, fillvalue=("", None))
    ]
    columns: list[tuple[str, Kind]] = [("image scores", "text"), ("", "score")]
    if scores.m is not None:  # else a run without a memory
        columns += [(f"text scores (M = {scores.m})", "text"), ("", "score")]
    shown = [row[: len(columns)] for row in rows]
    show_table(Table("scores", title, "", columns, shown))


def _show_retrieved(found: Explanation) -> None:
    similarities = [row.similarity for row in found.candidates]
    record("captions", map(asdict, found.captions))
    no_memory = not found.captions and all(scores.m is None for scores in found.scores)
    if wants_json() or no_memory:
        return
    if not similarities and not found.captions:
        say("no candidates\n")
        return
    told = f"{len(found.captions)} captions kept:"
    if similarities:  # a packed run lacks them
        told = (
            f"{len(similarities)} candidates, similarity {similarities[0]:.3f} to "
            f"{similarities[-1]:.3f}; {told}"
        )
    say(told)
    show_table(
        Table(
            "captions",
            "",
            "",
            [
                ("rank", "count"),
                ("similarity", "score"),
                ("memory_id", "figure"),
                ("caption", "text"),
            ],
            [
                (row.rank, row.similarity, row.memory_id, cut(row.caption, 36))
                for row in found.captions[:SHOWN]
            ],
        )
    )
    if len(found.captions) > SHOWN:
        say(f"... and {len(found.captions) - SHOWN} more\n")


def _show_predictions(found: Explanation) -> None:
    record("predictions", map(asdict, found.answers))
    if not found.answers:
        say(LEFT_OUT)
    elif not wants_json():
        show_table(
            Table(
                "predictions",
                "",
                "",
                [
                    ("model", "text"),
                    ("method", "name"),
                    ("M", "count"),
                    ("weights", "figure"),
                    ("prediction", "text"),
                    ("prob.", "score"),
                    ("seeds", "figure"),
                    ("", "text"),
                ],
                [
                    (
                        row.model,
                        row.method,
                        row.m,
                        ""
                        if row.image_weight is None
                        else f"{row.image_weight:.3g} : {row.text_weight:.3g}",
                        row.answer or "no prediction",
                        row.probability,
                        row.seeds,
                        {True: "right", False: "wrong", None: ""}[row.correct],
                    )
                    for row in found.answers
                ],
            ).filled(),
            by=1,
        )
