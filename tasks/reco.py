"""The steps of RECO's training as Prefect tasks: thin, over `xmore.reco_training`."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tasks.stage import step
from xmore.runs import versions

if TYPE_CHECKING:
    from xmore.reco_training import Training


@step("neighbours for {training.config.name}")
def find_neighbours(training: Training) -> None:
    """Read the memory's embeddings and captions -> each pair's neighbours, a file a part."""
    from xmore.reco_training import prepare

    prepare(training)


@step("train {training.config.name}")
def train_layers(training: Training) -> None:
    """Read pairs and neighbours -> the trained layers and what they are worth, in `output`."""
    from xmore.reco_checkpoint import write_checkpoint
    from xmore.reco_training import prepare, retrieval, train

    config, snapshot = training.config, training.memory.image
    trained, held_out = prepare(training)
    model, losses = train(training, trained)
    facts = {
        "digest": training.digest,
        "memory": str(config.memory),
        "snapshot": {"name": snapshot.name, "digest": snapshot.digest},
        "model": {"name": training.model.name, "identity": training.model.identity},
        "dim": snapshot.dim,
        "parameters": config.parameters,
        "pairs": {"trained": len(trained.ids), "held_out": len(held_out.ids)},
        "losses": losses,
        "retrieval": retrieval(training, model, held_out),
        "versions": versions(),
    }
    write_checkpoint(config.output, model, facts)


@step("tidy {training.config.name}")
def tidy(training: Training) -> None:
    """Clear away what a finished training, or one of another config, has no use for."""
    for leftover in training.config.output.glob("training-*"):
        shutil.rmtree(leftover)
