"""Class sentences that are longer than an inference model reads, as `scores` counted them."""

from __future__ import annotations

from pathlib import Path

from xmore.results.runs import Run
from xmore.store.checks import read_manifest


def cut_sentences(run: Run) -> list[str]:
    """Return one line per dataset and model of which class sentences were cut; older runs: none."""
    found = {}
    for ref in run.artifacts:
        if ref.stage == "scores":
            facts = read_manifest(Path(ref.path)).get("facts", {})
            if cut := facts.get("cut_sentences"):
                found[ref.dataset, ref.model] = cut
    return [
        f"{dataset}: {cut['count']} of {cut['of']} class sentences are longer than the "
        f"{cut['tokens']} tokens of {model} and were cut; the first is {cut['first']!r}"
        for (dataset, model), cut in found.items()
    ]
