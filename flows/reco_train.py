"""`xmore-reco-train`: train RECO's layers on a memory and measure them on its held-out pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.artifacts import create_table_artifact

from flows.prefect_ui import key_of
from tasks.progress import in_flow_run
from tasks.reco import clean_up, find_neighbours, train_layers
from xmore.config.load import absolute
from xmore.config.reco import RecoTrainConfig
from xmore.files.errors import ConfigError, ModelError
from xmore.files.locks import locked
from xmore.memory.adopt import open_memory
from xmore.memory.snapshot import Snapshot
from xmore.models.spec import describe_model

if TYPE_CHECKING:
    from xmore.methods.reco.checkpoint import RecoCheckpoint
    from xmore.methods.reco.training import Training

COLUMNS = ("query", "recall", "before", "after", "after - before", "p")


@dataclass(frozen=True)
class RecoTrained:
    """The result of a training."""

    checkpoint: RecoCheckpoint
    skipped: bool  # the checkpoint already existed


@flow(name="xmore-reco-train", flow_run_name="{params.name}", persist_result=False)
def xmore_reco_train(params: RecoTrainConfig) -> RecoTrained:
    """Hold pairs out, find each pair's neighbours, train, measure retrieval before and after.

    The encoders are not run: the embeddings come from the memory. A killed run is resumed by the
    same config as long as the memory's CURRENT is the same; a finished run is skipped.

    Args:
        params: The memory, the model that embedded it, the texts to retrieve, the training.
    """
    from xmore.methods.reco.checkpoint import read_checkpoint

    params = absolute(params)
    busy = f"{params.output}: another training writes there. Wait for it to end."
    with open_memory(params.memory, params.cache) as snapshot:
        training = look_up(params, snapshot)
        with locked(params.output / ".lock", refuse=busy):
            skipped = _is_done(training)
            if not skipped:
                find_neighbours(params, training)
                train_layers(params, training)
            clean_up(params, training)
            checkpoint = read_checkpoint(params.output)
    _show_retrieval(checkpoint, params.name)
    return RecoTrained(checkpoint, skipped)


def look_up(config: RecoTrainConfig, snapshot: Snapshot) -> Training:
    """Look up everything that `config` names. Raises XmoreError before any work starts."""
    from xmore.methods.reco.neighbours import joint_memory
    from xmore.methods.reco.training import Training
    from xmore.models.device import pick_device

    model = describe_model(config.model_name, config.model, config.cache)
    memory = joint_memory(snapshot, model.name, model.identity)
    model = model.as_in(snapshot.manifest["model"]["identity"])
    if snapshot.dim % config.heads:
        raise ConfigError(
            f"`heads` must divide the model's {snapshot.dim} dimensions, got {config.heads}."
        )
    device = pick_device(config.execution.device)
    training = Training(config.recipe, model, memory, config.output, config.every, device)
    _ = training.digest  # raises now if neighbours cannot be searched
    return training


def retrieval_lines(checkpoint: RecoCheckpoint) -> list[tuple[str, ...]]:
    """Return recall@k of the held-out pairs before and after, one line per direction and k.

    The columns are COLUMNS.
    """
    return [
        (
            f"{row['query']} to {'text' if row['query'] == 'image' else 'image'}",
            f"@{row['k']}",
            _interval(row["before"]),
            _interval(row["after"]),
            _interval(row["difference"], "+"),
            f"{row['p']:.2g}",
        )
        for row in checkpoint.facts["retrieval"]
    ]


def _interval(shares: list[float], sign: str = "") -> str:
    share, low, high = (100 * value for value in shares)
    return f"{share:{sign}z.1f} [{low:{sign}z.1f}, {high:{sign}z.1f}]"


def _is_done(training: Training) -> bool:
    from xmore.methods.reco.checkpoint import read_checkpoint

    try:
        return read_checkpoint(training.output).facts["digest"] == training.digest
    except ModelError:
        return False


def _show_retrieval(checkpoint: RecoCheckpoint, name: str) -> None:
    """Create the table in Prefect's UI. Does nothing outside a flow run."""
    if not in_flow_run():
        return
    table: list[dict[str, Any]] = [
        dict(zip(COLUMNS, line, strict=True)) for line in retrieval_lines(checkpoint)
    ]
    pairs = checkpoint.facts["pairs"]
    create_table_artifact(
        table,
        key=key_of("reco", name),
        description=f"Retrieval among {pairs['held_out']:,} held-out pairs, in percent with 95 % "
        f"intervals, before and after training on {pairs['trained']:,} pairs of "
        f"`{checkpoint.facts['memory']}`. Checkpoint: `{checkpoint.folder}`.",
    )
