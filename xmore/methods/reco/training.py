"""RECO's training on the pairs of a memory, and what it is worth on pairs that were held out.

    <output>/training-<digest>/rows.npz               which rows are trained on, which measured
                              /neighbours/<side>-*.npz
                              /state.safetensors      weights, optimiser, step

All of it is written whole, so that a killed run goes on, and ends with the bytes of one that was
not: the order of the pairs depends on seed and epoch alone, and nothing else is drawn.
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
from xmore.methods.reco.layers import AT, Reco, alignment, hits
from xmore.methods.reco.neighbours import (
    JointMemory,
    Neighbourhood,
    fused_rows,
    near,
    searchers,
    split_rows,
    twin_searchers,
)
from xmore.methods.reco.recipe import SIDES, Recipe
from xmore.models.spec import ModelCard
from xmore.statistics.intervals import wilson
from xmore.statistics.significance import paired

VERSION = 1  # bump when what is trained, and how, changes
PART_ROWS = 4096  # rows whose neighbours are found between two files


@dataclass(frozen=True)
class Training:
    """A training with all that it works on looked up."""

    recipe: Recipe
    model: ModelCard
    memory: JointMemory
    output: Path
    every: int = 100  # steps between two states
    device: str = "cpu"

    @property
    def digest(self) -> str:
        """What the weights depend on. Raises SnapshotError where neighbours cannot be found."""
        found = list(self.searchers().values())
        found += twin_searchers(self.memory, self.device)
        indices, rows = [search.index_sha256 for search in found], self.memory.image.digest
        return digest_of([VERSION, rows, self.model.identity, asdict(self.recipe), indices])

    def searchers(self) -> dict[str, Searcher]:
        """How each refined side looks for its rows' neighbours. Raises SnapshotError."""
        recipe = self.recipe
        return searchers(self.memory, recipe.refined, recipe.search, self.device)

    @property
    def folder(self) -> Path:
        """Where it is kept while it is under way."""
        return self.output / f"training-{self.digest[:16]}"


@dataclass(frozen=True)
class TrainingPairs:
    """Rows of a memory, and the neighbours of each: 8 k + 8 bytes a row and side."""

    ids: np.ndarray  # (n,) int64
    neighbours: dict[str, np.ndarray]  # by side: (n, k) int64, -1 for none


@dataclass(frozen=True)
class PairBatch:
    """B pairs' embeddings, and those of the other modality that each side has retrieved."""

    original: tuple[torch.Tensor, torch.Tensor]  # images, texts: (B, D)
    retrieved: dict[str, tuple[torch.Tensor, torch.Tensor]]  # (B, K, D), (B, K) True for none

    def refined(self, model: Reco) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and texts: (B, D) unit rows."""
        image, text = (
            model.refine(side, query, *self.retrieved[side]) if side in self.retrieved else query
            for side, query in zip(SIDES, self.original, strict=True)
        )
        return image, text


def batch_of(
    memory: JointMemory, pairs: TrainingPairs, places: np.ndarray, device: str
) -> PairBatch:
    """The pairs at some places: (B,) int64."""

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    ids = pairs.ids[places]
    image, text = (tensor(embeddings_of(memory.of(side), ids)) for side in SIDES)
    retrieved = {}
    for side, neighbours in pairs.neighbours.items():
        rows, missing = fused_rows(memory, side, neighbours[places])
        retrieved[side] = tensor(rows), tensor(missing)
    return PairBatch((image, text), retrieved)


def prepare(training: Training) -> tuple[TrainingPairs, TrainingPairs]:
    """Split the memory's rows and find their neighbours -> pairs to train on, and held-out ones.

    Near duplicates of a held-out row are trained on by nobody. What is on disk is not done again.
    Memory: 9 bytes a row of the memory, and what `Neighbourhood.of` holds. Raises SnapshotError.
    """
    recipe, memory, folder = training.recipe, training.memory, training.folder
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    found = training.searchers()
    split = None
    if not (folder / "rows.npz").exists():
        split = split_rows(memory.image, recipe.held_out, recipe.seed)
        twins = twin_searchers(memory, training.device)
        left_out = near(twins, split.held_out, recipe.duplicates)
        trained = np.setdiff1d(np.flatnonzero(split.bank), left_out)
        if len(trained) < 2:
            raise ConfigError(
                f"`duplicates` {recipe.duplicates}: all rows of {memory.image.path} are near "
                "duplicates of held-out ones. Raise it."
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
    """Train on `pairs`, from the last state on -> the layers, and the mean loss of each epoch.

    A state is written each `every` steps. The last pairs of an epoch that fill no batch are left
    out of it. Memory: a batch's embeddings, and the layers three times over.
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
        for step, places in _steps(len(pairs.ids), size, recipe.seed, range(start, total)):
            batch = batch_of(training.memory, pairs, places, training.device)
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
    """Which of n pairs each step is of: an order an epoch, drawn from the seed and its number."""
    epoch, order = -1, np.zeros(0, np.int64)
    for step in steps:
        now, place = divmod(step, n // size)
        if now != epoch:
            epoch, order = now, np.random.default_rng([seed, now]).permutation(n)
        yield step, order[place * size : (place + 1) * size]


@dataclass(frozen=True)
class _State:
    """What a run goes on from: one file, written whole."""

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
        told = {"step": str(step), "losses": json.dumps(losses)}
        write_whole(self.path, save(tensors, told))

    def read(self) -> tuple[int, list[float]]:
        """How many steps are done, and the epochs' losses so far; model and optimiser are set."""
        if not self.path.exists():
            return 0, []
        with safe_open(self.path, "pt") as file:
            told = file.metadata()
            for name, parameter in self.model.named_parameters():
                device = parameter.device
                parameter.data.copy_(file.get_tensor(f"weights.{name}"))
                self.optimiser.state[parameter] = {
                    "step": file.get_tensor(f"step.{name}"),
                    "exp_avg": file.get_tensor(f"exp_avg.{name}").to(device),
                    "exp_avg_sq": file.get_tensor(f"exp_avg_sq.{name}").to(device),
                }
        return int(told["step"]), json.loads(told["losses"])


def retrieval(training: Training, model: Reco, pairs: TrainingPairs) -> list[dict[str, Any]]:
    """recall@1, @5, @10 among held-out pairs, both ways, with the original and refined embeddings.

    A row a direction and k: `n`, and of `before` and `after` the share with Wilson's 95 % interval;
    their `difference` over the same queries with its bootstrap interval, and McNemar's exact p.
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
    """Images and texts of pairs, (n, D) float32 each: as they are, and refined."""
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
