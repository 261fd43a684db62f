"""RECO's training on the pairs of a memory, and its recall on held-out pairs.

    <output>/training-<digest>/rows.npz               rows to train on, and held-out rows
                              /neighbours/<side>-*.npz
                              /state.safetensors      weights, optimiser, step

All files are written atomically. A killed run is resumed and ends with the same bytes as one that
was not killed: the order of the pairs depends only on seed and epoch, and nothing else is random.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save

from xmore.files.digests import digest_of
from xmore.files.errors import ConfigError
from xmore.files.paths import sweep, write_whole
from xmore.files.progress import counting, track
from xmore.memory.rows import embeddings_of
from xmore.memory.search import Searcher
from xmore.methods.reco.layers import AT, Reco, hits
from xmore.methods.reco.loss import alignment
from xmore.methods.reco.neighbours import (
    JointMemory,
    Neighbourhood,
    duplicate_searchers,
    fused_rows,
    near,
    searchers,
    split_rows,
)
from xmore.methods.reco.recipe import SIDES, Recipe
from xmore.models.spec import ModelCard
from xmore.statistics.intervals import wilson
from xmore.statistics.significance import paired

VERSION = 1  # increase it when the training changes
PART_ROWS = 4096  # rows per file of neighbours


@dataclass(frozen=True)
class Training:
    """A training with its inputs."""

    recipe: Recipe
    model: ModelCard
    memory: JointMemory
    output: Path
    every: int = 100  # steps between two states
    device: str = "cpu"

    @property
    def digest(self) -> str:
        """The digest of the training's inputs. Raises SnapshotError if search is impossible."""
        found = list(self.searchers().values())
        found += duplicate_searchers(self.memory, self.device)
        indices, rows = [search.index_sha256 for search in found], self.memory.image.digest
        return digest_of([VERSION, rows, self.model.identity, asdict(self.recipe), indices])

    def searchers(self) -> dict[str, Searcher]:
        """Return a searcher of the neighbours of each refined modality. Raises SnapshotError."""
        recipe = self.recipe
        return searchers(self.memory, recipe.refined, recipe.search, self.device)

    @property
    def folder(self) -> Path:
        """The folder of the training in progress."""
        return self.output / f"training-{self.digest[:16]}"


@dataclass(frozen=True)
class TrainingPairs:
    """Rows of a memory and their neighbours. Memory: 8 k + 8 bytes per row and modality."""

    ids: np.ndarray  # (n,) int64
    neighbours: dict[str, np.ndarray]  # modality -> (n, k) int64, -1 for none


@dataclass(frozen=True)
class PairBatch:
    """The embeddings of B pairs, and those of the other modality that each has retrieved."""

    original: tuple[torch.Tensor, torch.Tensor]  # images, texts: (B, D)
    retrieved: dict[str, tuple[torch.Tensor, torch.Tensor]]  # (B, K, D), (B, K) True for none

    def refined(self, model: Reco) -> tuple[torch.Tensor, torch.Tensor]:
        """Return refined images and texts: (B, D) unit rows each."""
        image, text = (
            model.refine(side, query, *self.retrieved[side]) if side in self.retrieved else query
            for side, query in zip(SIDES, self.original, strict=True)
        )
        return image, text


def batch_of(
    memory: JointMemory, pairs: TrainingPairs, positions: np.ndarray, device: str
) -> PairBatch:
    """Return the batch of the pairs at some positions: (B,) int64."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    ids = pairs.ids[positions]
    image, text = (tensor(embeddings_of(memory.of(side), ids)) for side in SIDES)
    retrieved = {}
    for side, neighbours in pairs.neighbours.items():
        rows, missing = fused_rows(memory, side, neighbours[positions])
        retrieved[side] = tensor(rows), tensor(missing)
    return PairBatch((image, text), retrieved)


def prepare(training: Training) -> tuple[TrainingPairs, TrainingPairs]:
    """Split the memory's rows and find their neighbours; returns training and held-out pairs.

    Near duplicates of held-out rows are excluded from training. Existing files are kept. Memory: 9
    bytes per row of the memory, and that of `Neighbourhood.of`. Raises SnapshotError, ConfigError.
    """
    recipe, memory, folder = training.recipe, training.memory, training.folder
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    found = training.searchers()
    split = None
    if not (folder / "rows.npz").exists():
        split = split_rows(memory.image, recipe.held_out, recipe.seed)
        searches = duplicate_searchers(memory, training.device)
        excluded = near(searches, split.held_out, recipe.duplicates)
        trained = np.setdiff1d(np.flatnonzero(split.bank), excluded)
        if len(trained) < 2:
            raise ConfigError(
                f"`duplicates` {recipe.duplicates}: all rows of {memory.image.path} are near "
                "duplicates of held-out ones. Increase it."
            )
        _save(folder / "rows.npz", trained=trained, held_out=split.held_out)
    rows = np.load(folder / "rows.npz")
    trained, held_out = rows["trained"], rows["held_out"]
    ids = np.concatenate([trained, held_out])
    parts = [(side, start) for side in found for start in range(0, len(ids), PART_ROWS)]
    missing = [part for part in parts if not _part(folder, *part).exists()]
    if missing and split is None:
        split = split_rows(memory.image, recipe.held_out, recipe.seed)
    for side, start in track(missing, "reco neighbours", "part"):
        assert split is not None
        where = Neighbourhood(memory, split, found[side], recipe.k, recipe.duplicates)
        ids_of_part = ids[start : start + PART_ROWS]
        _save(_part(folder, side, start), neighbours=where.of(side, ids_of_part))
    neighbours = {
        side: np.concatenate(
            [np.load(_part(folder, *p))["neighbours"] for p in parts if p[0] == side]
        )
        for side in found
    }
    count = len(trained)
    return (
        TrainingPairs(trained, {side: rows[:count] for side, rows in neighbours.items()}),
        TrainingPairs(held_out, {side: rows[count:] for side, rows in neighbours.items()}),
    )


def train(training: Training, pairs: TrainingPairs) -> tuple[Reco, list[float]]:
    """Train on `pairs` from the last state; returns the layers and the mean loss of each epoch.

    A state is written every `training.every` steps. The last pairs of an epoch are skipped if they
    do not fill a batch. Memory: a batch's embeddings, and three times the layers.
    """
    recipe, folder = training.recipe, training.folder
    model = Reco(training.memory.image.dim, recipe.heads, recipe.refined, recipe.seed)
    model.to(training.device)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
    size = min(recipe.batch_size, len(pairs.ids))
    batches = len(pairs.ids) // size
    total = recipe.epochs * batches
    state = _State(folder / "state.safetensors", model, optimiser)
    start, losses = state.read()
    with counting("reco training", total, "step") as done:
        for step, positions in _steps(len(pairs.ids), size, recipe.seed, range(start, total)):
            batch = batch_of(training.memory, pairs, positions, training.device)
            loss = alignment(batch.original, batch.refined(model), model.scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step % batches == 0:
                losses.append(0.0)
            losses[-1] += loss.item() / batches
            if (step + 1) % training.every == 0 or step + 1 == total:
                state.write(step + 1, losses)
            done(step + 1)
    return model.eval(), losses


def _steps(n: int, size: int, seed: int, steps: range) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (step, its pairs out of n); each epoch has one order, drawn from seed and epoch."""
    epoch, order = -1, np.zeros(0, np.int64)
    for step in steps:
        now, place = divmod(step, n // size)
        if now != epoch:
            epoch, order = now, np.random.default_rng([seed, now]).permutation(n)
        yield step, order[place * size : (place + 1) * size]


@dataclass(frozen=True)
class _State:
    """The state from which a run resumes: one file, written atomically."""

    path: Path
    model: Reco
    optimiser: torch.optim.Adam

    def write(self, step: int, losses: list[float]) -> None:
        tensors = {}
        for name, parameter in self.model.named_parameters():
            moments = self.optimiser.state[parameter]
            tensors[f"weights.{name}"] = parameter.detach().cpu()
            for key in ("step", "exp_avg", "exp_avg_sq"):
                tensors[f"{key}.{name}"] = moments[key].cpu()
        metadata = {"step": str(step), "losses": json.dumps(losses)}
        write_whole(self.path, save(tensors, metadata))

    def read(self) -> tuple[int, list[float]]:
        """Set model and optimiser; returns the number of steps done and the losses per epoch."""
        if not self.path.exists():
            return 0, []
        with safe_open(self.path, "pt") as file:
            metadata = file.metadata()
            for name, parameter in self.model.named_parameters():
                device = parameter.device
                parameter.data.copy_(file.get_tensor(f"weights.{name}"))
                self.optimiser.state[parameter] = {
                    "step": file.get_tensor(f"step.{name}"),
                    "exp_avg": file.get_tensor(f"exp_avg.{name}").to(device),
                    "exp_avg_sq": file.get_tensor(f"exp_avg_sq.{name}").to(device),
                }
        return int(metadata["step"]), json.loads(metadata["losses"])


def retrieval(training: Training, model: Reco, pairs: TrainingPairs) -> list[dict[str, Any]]:
    """Return recall@1, @5, @10 on held-out pairs, with the original and the refined embeddings.

    One row per direction and k: `n`; the shares `before` and `after` with Wilson's 95 % intervals;
    their `difference` on the same queries with its bootstrap interval, and McNemar's exact p.
    Memory: the held-out pairs' embeddings, and all their similarities.
    """
    before, after = _both(training, model, pairs)
    rows = []
    for query, wanted in ((0, 1), (1, 0)):
        for k in AT:
            old = hits(before[query], before[wanted], k)
            new = hits(after[query], after[wanted], k)
            compared = paired(new[None], old[None])
            rows.append(
                {
                    "query": SIDES[query],
                    "k": k,
                    "n": len(old),
                    "before": _share(old),
                    "after": _share(new),
                    "difference": [compared.difference, compared.low, compared.high],
                    "p": compared.p,
                }
            )
    return rows


def _both(
    training: Training, model: Reco, pairs: TrainingPairs
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the images and texts of pairs, (n, D) float32 each: original and refined."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pairs.ids), training.recipe.batch_size):
            stop = min(start + training.recipe.batch_size, len(pairs.ids))
            batch = batch_of(training.memory, pairs, np.arange(start, stop), training.device)
            both = (*batch.original, *batch.refined(model))
            parts.append([rows.cpu().numpy() for rows in both])
    images, texts, *refined = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    return [images, texts], refined


def _share(right: np.ndarray) -> list[float]:
    return [float(right.mean()), *wilson(int(right.sum()), len(right))]


def _part(folder: Path, side: str, start: int) -> Path:
    return folder / "neighbours" / f"{side}-{start:09d}.npz"


def _save(path: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_whole(path, buffer.getvalue())
