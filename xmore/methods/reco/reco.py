"""`reco`: images and classes refined by their neighbours in a memory (Iscen et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from xmore.models.spec import same_space

if TYPE_CHECKING:
    from xmore.methods.reco.checkpoint import RecoCheckpoint
    from xmore.methods.reco.neighbours import JointMemory, Searcher
    from xmore.models.spec import ModelCard

PART_ROWS = 1024  # queries that are searched at a time


class RecoMethod(Scorer):
    """softmax(tau v . t) of refined images and class texts, with layers of `xmore reco-train`.

    An image is fused with the text embeddings of its k nearest memory rows, a class's text with the
    image embeddings of its k nearest (a class's text is the mean over its prompts, as for `clip`).
    tau is the inference model's. Only rows without a caption are excluded as neighbours.
    """

    name = "reco"
    version = 1
    needs = frozenset({"query_embeddings"})
    part_rows = PART_ROWS

    def check(self, request: MethodRequest, model: ModelCard, class_names: list[str]) -> None:
        found = checkpoint_of(request)
        theirs = found.facts["model"]
        if not same_space(theirs["identity"], model.identity):
            raise ModelError(
                f"{found.folder}: `reco` was trained on embeddings of `{theirs['name']}`, which is "
                f"not the inference model `{model.name}`. Change `roles.inference`, or train it "
                "on a memory embedded by this model."
            )
        with memory_of(found, request) as memory:
            searchers_of(found, memory)

    def settings(self, request: MethodRequest, variant: Variant) -> Settings:
        parameters = checkpoint_of(request).facts["parameters"]
        return {name: Setting(parameters[name], "fixed") for name in ("k", "sides", "search")}

    def identity(self, request: MethodRequest) -> dict[str, Any]:
        found = checkpoint_of(request)
        with memory_of(found, request) as memory:
            searches = searchers_of(found, memory).items()
            return {
                "weights_sha256": found.facts["weights_sha256"],
                "parameters": found.facts["parameters"],
                "memory": memory.image.digest,
                "indices": {side: search.index_sha256 for side, search in searches},
            }

    def prepare(self, context: ScoringContext) -> Callable[[QueryShard], np.ndarray]:
        from xmore.methods.scoring import class_probabilities

        found = checkpoint_of(context.request)
        held = memory_of(found, context.request)
        # Held until `score` is freed, which closes the locked file.
        refiner = Refiner(found, held.__enter__())
        classes = refiner("text", context.class_features)

        def score(shard: QueryShard, held: object = held) -> np.ndarray:
            images = refiner("image", needed(shard.features))
            return class_probabilities(images, classes, context.tau)

        return score


class Refiner:
    """Refines embeddings with trained layers and a memory."""

    def __init__(self, checkpoint: RecoCheckpoint, memory: JointMemory) -> None:
        self.layers = checkpoint.layers()
        self.memory = memory
        self.searchers = searchers_of(checkpoint, memory)
        self.k = checkpoint.facts["parameters"]["k"]

    def __call__(self, side: str, features: np.ndarray) -> np.ndarray:
        """Refine (N, D) float32 unit rows of a modality; unchanged if it has no layer.

        Memory: the k neighbours of PART_ROWS rows, and that of their search.
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
    """Return the checkpoint of `options.reco.checkpoint`. Raises ConfigError, ModelError."""
    from xmore.methods.reco.checkpoint import read_checkpoint

    folder = request.options.reco.checkpoint
    if folder is None:
        raise ConfigError(
            "`reco` needs trained layers. Set `options: {reco: {checkpoint: FOLDER}}` to the "
            "folder that `xmore reco-train` wrote."
        )
    return read_checkpoint(folder)


@contextmanager
def memory_of(checkpoint: RecoCheckpoint, request: MethodRequest) -> Iterator[JointMemory]:
    """Open the memory on which it was trained, or the CURRENT one of `options.reco.memory`.

    It cannot be deleted while open, and its bytes are compared as `open_memory` does. Raises
    SnapshotError if it no longer exists, is damaged, or was embedded by another model.
    """
    from xmore.memory.adopt import open_memory
    from xmore.memory.snapshot import resolve_current
    from xmore.methods.reco.neighbours import joint_memory

    other = request.options.reco.memory
    memory, name = (other, resolve_current(other)) if other else checkpoint.snapshot
    if not (memory / "snapshots" / name).is_dir():
        raise SnapshotError(
            f"{memory}: the snapshot {name} on which `reco` was trained no longer exists. Set "
            "`options.reco.memory` to the memory to retrieve from, or train it again."
        )
    theirs = checkpoint.facts["model"]
    with open_memory(memory, request.cache, name) as snapshot:
        yield joint_memory(snapshot, theirs["name"], theirs["identity"])


def searchers_of(checkpoint: RecoCheckpoint, memory: JointMemory) -> dict[str, Searcher]:
    """Return a searcher for each modality that retrieves. Raises SnapshotError."""
    from xmore.methods.reco.neighbours import searcher

    search = checkpoint.facts["parameters"]["search"]
    searched = {side: memory.searched(side, search) for side in checkpoint.sides}
    # Decided for a complete part: the grouping of queries must not change the neighbours.
    return {side: searcher(rows, PART_ROWS, scans=1) for side, rows in searched.items()}


METHOD = RecoMethod()
