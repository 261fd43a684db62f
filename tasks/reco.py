"""The steps of RECO's training as Prefect tasks: thin, over `xmore.methods.reco.training`."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING

from tasks.stage import step
from xmore.config.reco import RecoTrainConfig
from xmore.results.runs import versions

if TYPE_CHECKING:
    from xmore.methods.reco.training import Training


@step("neighbours for {config.name}")
def find_neighbours(config: RecoTrainConfig, training: Training) -> None:
    """Read the memory's embeddings and captions -> each pair's neighbours, one file per part."""
    from xmore.methods.reco.training import prepare

    prepare(training)


@step("train {config.name}")
def train_layers(config: RecoTrainConfig, training: Training) -> None:
    """Read pairs and neighbours -> the trained layers and their retrieval, in `output`."""
    from xmore.methods.reco.checkpoint import write_checkpoint
    from xmore.methods.reco.training import prepare, retrieval, train

    snapshot = training.memory.image
    trained, held_out = prepare(training)
    model, losses = train(training, trained)
    facts = {
        "digest": training.digest,
        "memory": str(config.memory),
        "snapshot": {"name": snapshot.name, "digest": snapshot.digest},
        "model": {"name": training.model.name, "identity": training.model.identity},
        "dim": snapshot.dim,
        "parameters": asdict(training.recipe),
        "pairs": {"trained": len(trained.ids), "held_out": len(held_out.ids)},
        "losses": losses,
        "retrieval": retrieval(training, model, held_out),
        "versions": versions(),
    }
    write_checkpoint(config.output, model, facts)


@step("clean up {config.name}")
def clean_up(config: RecoTrainConfig, training: Training) -> None:
    """Delete the leftovers of finished trainings and of other configs' trainings."""
    from xmore.methods.reco.checkpoint import clear_replaced

    for leftover in config.output.glob("training-*"):
        shutil.rmtree(leftover)
    clear_replaced(config.output)
