"""What `xmore reco-train` prints."""

from __future__ import annotations

from flows.cli.terminal.console import record, safe, say, show_table, wants_json
from flows.reco_train import COLUMNS, RecoTrained, retrieval_lines
from xmore.report.table import Kind, Table


def show_trained(trained: RecoTrained) -> None:
    """Print retrieval of held-out pairs before and after training, and the checkpoint's path."""
    checkpoint, pairs = trained.checkpoint, trained.checkpoint.facts["pairs"]
    if trained.skipped:
        say("Nothing to do: already trained.")
    say(f"Retrieval among {pairs['held_out']:,} held-out pairs, percent [95 % interval]:")
    record("retrieval", checkpoint.facts["retrieval"])
    columns: list[tuple[str, Kind]] = [
        (name, "figure" if i else "text") for i, name in enumerate(COLUMNS)
    ]
    if not wants_json():
        show_table(Table("retrieval", "", "", columns, list(retrieval_lines(checkpoint))))
    snapshot = checkpoint.facts["snapshot"]["name"]
    say(safe(f"trained on {pairs['trained']:,} pairs of snapshot {snapshot}: {checkpoint.folder}"))
