"""What `xmore reco-train` prints."""

from __future__ import annotations

from flows.cli.terminal.console import safe, say, show_table, table_of
from flows.reco_train import COLUMNS, RecoTrained, retrieval_lines


def show_trained(trained: RecoTrained) -> None:
    """Print retrieval of held-out pairs before and after training, and the checkpoint's path."""
    checkpoint, pairs = trained.checkpoint, trained.checkpoint.facts["pairs"]
    if trained.skipped:
        say("Nothing to do: already trained.")
    say(f"Retrieval among {pairs['held_out']:,} held-out pairs, percent [95 % interval]:")
    table = table_of(*COLUMNS)
    for line in retrieval_lines(checkpoint):
        table.add_row(*map(safe, line))
    show_table(table)
    snapshot = checkpoint.facts["snapshot"]["name"]
    say(safe(f"trained on {pairs['trained']:,} pairs of snapshot {snapshot}: {checkpoint.folder}"))
