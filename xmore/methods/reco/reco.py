"""`reco`: images and classes refined by a memory's rows next to them (Iscen et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from xmore.files.errors import ConfigError, ModelError, SnapshotError
from xmore.methods.base import (
    MethodRequest,
    QueryShard,
    Scorer,
    ScoringContext,
    Setting,
    Settings,
    Variant,
    needed,
)

if TYPE_CHECKING:
    from xmore.methods.reco.checkpoint import RecoCheckpoint
    from xmore.methods.reco.neighbours import JointMemory, Searcher
    from xmore.models.spec import ModelCard

PART_ROWS = 1024  # queries that are searched at a time


class RecoMethod(Scorer):
    """softmax(tau v . t) of refined images and class texts, with layers of `xmore reco-train`.

    An image fuses the text embeddings of its k nearest memory rows, a class's text the image
    embeddings of its own (the mean of several prompts is a class's text, as for `clip`). tau is the
    inference model's. Rows without a caption are no neighbours; nothing else is left out.
    """

    name = "reco"
    needs = frozenset({"query_embeddings"})
    part_rows = PART_ROWS

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        found = checkpoint_of(request)
        theirs = found.facts["model"]
        if theirs["identity"] != model.identity:
            raise ModelError(
                f"{found.folder}: `reco` was trained on embeddings of `{theirs['name']}`, which is "
                f"not the inference model `{model.name}`. Change `roles.inference`, or train it "
                "on a memory that this model has embedded."
            )
        searchers_of(found, memory_of(found, request))

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        parameters = checkpoint_of(request).facts["parameters"]
        return {name: Setting(parameters[name], "fixed") for name in ("k", "sides", "search")}

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        found = checkpoint_of(request)
        memory = memory_of(found, request)
        searches = searchers_of(found, memory).items()
        return {
            "weights_sha256": found.facts["weights_sha256"],
            "parameters": found.facts["parameters"],
            "memory": memory.image.digest,
            "indices": {side: search.index_sha256 for side, search in searches},
        }

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.memory.snapshot import in_use
        from xmore.methods.scoring import class_probabilities

        found = checkpoint_of(context.request)
        memory = memory_of(found, context.request)
        path = memory.image.path
        held = in_use(path.parents[1], path.name)
        held.__enter__()  # until `score` is dropped, and with it the file that holds the lock
        refiner = Refiner(found, memory)
        classes = refiner("text", context.class_features)

        def score(shard: QueryShard, held: object = held) -> np.ndarray:
            images = refiner("image", needed(shard.features))
            return class_probabilities(images, classes, context.tau)

        return score


class Refiner:
    """Turns embeddings into refined ones, with trained layers and a memory."""

    def __init__(self, checkpoint: RecoCheckpoint, memory: JointMemory) -> None:
        self.layers = checkpoint.layers()
        self.memory = memory
        self.searchers = searchers_of(checkpoint, memory)
        self.k = checkpoint.facts["parameters"]["k"]

    def __call__(self, side: str, features: np.ndarray) -> np.ndarray:
        """(N, D) float32 unit rows of a side -> (N, D) refined; as they are where it has no layer.

        Memory: what PART_ROWS rows' k neighbours take, and what their search holds.
        """
        if side not in self.searchers:
            return features
        starts = range(0, len(features), PART_ROWS)
        return np.concatenate([self._refined(side, features[i : i + PART_ROWS]) for i in starts])

    def _refined(self, side: str, features: np.ndarray) -> np.ndarray:
        import torch

        from xmore.memory.rows import captions_of
        from xmore.methods.reco.neighbours import fused_rows

        ids = self.searchers[side](features, self.k).ids
        captions = captions_of(self.memory.image, ids[ids >= 0])
        ids[ids >= 0] = np.where(np.array(captions.to_pylist()) == "", -1, ids[ids >= 0])
        rows, missing = map(torch.from_numpy, fused_rows(self.memory, side, ids))
        with torch.inference_mode():
            query = torch.tensor(features)  # a copy: Arrow's buffers are read-only
            return self.layers.refine(side, query, rows, missing).numpy()


def checkpoint_of(request: MethodRequest) -> RecoCheckpoint:
    """What `options.reco.checkpoint` names. Raises ConfigError, ModelError."""
    from xmore.methods.reco.checkpoint import read_checkpoint

    folder = request.options.reco.checkpoint
    if folder is None:
        raise ConfigError(
            "`reco` needs trained layers: name the folder that `xmore reco-train` wrote as "
            "`options: {reco: {checkpoint: FOLDER}}`."
        )
    return read_checkpoint(folder)


def memory_of(checkpoint: RecoCheckpoint, request: MethodRequest) -> JointMemory:
    """The memory that it was trained on, or the CURRENT of `options.reco.memory`.

    Raises SnapshotError where it is gone, or is of another model than the layers.
    """
    from xmore.memory.snapshot import open_snapshot, resolve_current
    from xmore.methods.reco.neighbours import joint_memory

    other = request.options.reco.memory
    memory, name = (other, resolve_current(other)) if other else checkpoint.snapshot
    if not (memory / "snapshots" / name).is_dir():
        raise SnapshotError(
            f"{memory}: the snapshot {name} that `reco` was trained on is gone. Name the memory to "
            "retrieve from as `options.reco.memory`, or train it again."
        )
    theirs = checkpoint.facts["model"]
    return joint_memory(open_snapshot(memory, name), theirs["name"], theirs["identity"])


def searchers_of(checkpoint: RecoCheckpoint, memory: JointMemory) -> dict[str, Searcher]:
    """How each side that retrieves looks for neighbours. Raises SnapshotError."""
    from xmore.methods.reco.neighbours import searcher

    search = checkpoint.facts["parameters"]["search"]
    views = {side: memory.searched(side, search) for side in checkpoint.sides}
    # Decided once, for a whole part: how queries are grouped must not change what is found.
    return {side: searcher(rows, PART_ROWS, scans=1) for side, rows in views.items()}


METHOD = RecoMethod()
