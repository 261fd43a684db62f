"""The last part of `gpu.py`: a whole benchmark, the cost of each stage, and the paper's hours."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gpu_input

from flows.plan import look_up
from flows.stages import run_dataset
from tasks.comparisons import comparisons
from tasks.queries import queries
from tasks.stage import Workspace
from tasks.texts import TextEncoder
from xmore.config.benchmark import BenchmarkConfig
from xmore.datasets.card import load_card
from xmore.files.paths import PROJECT_ROOT
from xmore.memory.adopt import open_memory
from xmore.models import loaded
from xmore.models.spec import ModelCard, ModelSpec, describe_model
from xmore.store.artifacts import ArtifactRef

ROLES = {"inference": ["RN50", "ViT-B-16"], "coarse": "ViT-B-32", "fine": "ViT-L-14"}


@dataclass(frozen=True)
class Inputs:
    """What `write_inputs` wrote."""

    folder: Path
    models: dict[str, Path]
    images: list[str]

    @property
    def memory(self) -> Path:
        return self.folder / "memory"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def model(self, name: str, precision: Any) -> ModelCard:
        """Return a model in a precision."""
        return describe_model(name, self.spec(name, precision), self.cache)

    def spec(self, name: str, precision: Any) -> ModelSpec:
        return ModelSpec(folder=self.models[name], precision=precision)

    def config(self, results: str, k: int, m: int, **others: Any) -> BenchmarkConfig:
        """Return a benchmark's config."""
        return BenchmarkConfig.model_validate(
            {
                "datasets": [self.folder.joinpath("images.yaml").as_posix()],
                "memory": self.memory,
                "results": self.folder / results,
                "models": {name: self.spec(name, "bf16") for name in self.models},
                "roles": ROLES,
                "retrieval": {"candidates": k, "captions": [m], "search": "exact"},
                "adjustments": ["minmax"],
                "leaks": {"threshold": 1},  # all rows are near a query: none is a leak
                **others,
            }
        )

    def queries(self, count: int, workers: int) -> tuple[Workspace, ArtifactRef, Any]:
        """List the images as a stage does -> what the next one takes, for `count` of them."""
        execution = {"workers": workers}
        config = self.config("table", 1, 1, limit=count, execution=execution)
        work = Workspace(config.results, config.execution)
        card = load_card(config.datasets[0], None, None)
        return work, queries(work, card, config)[0], card


def write_inputs(folder: Path, size: Any) -> Inputs:
    """Write the models and the images of a `gpu_world.Size`."""
    models = gpu_input.write_models(folder / "models", size.tiny)
    return Inputs(
        folder, models, gpu_input.write_images(folder / "images", size.queries, size.classes)
    )


@dataclass
class Cost:
    """What a stage cost, and of that the loading of models and the encoding of texts."""

    stage: str
    seconds: float = 0.0
    loading: float = 0.0
    encoding: float = 0.0
    texts: int = 0

    def add(self, other: Cost) -> None:
        """Add what another call of the stage cost."""
        self.seconds += other.seconds
        self.loading += other.loading
        self.encoding += other.encoding
        self.texts += other.texts

    def clear(self) -> None:
        """Begin anew."""
        self.seconds = self.loading = self.encoding = 0.0
        self.texts = 0

    def hours(self, times: float, texts: float) -> float:
        """Return the hours of `times` as many images, which bring so many new texts."""
        others = self.seconds - self.loading - self.encoding
        of_texts = self.encoding / self.texts * texts if self.texts else 0.0
        return (self.loading + others * times + of_texts) / 3600


def whole(world: Any) -> None:
    """Run the stages of a benchmark, and print what each cost."""
    size = world.size
    config = world.inputs.config(
        "whole", size.candidates, size.captions, execution={"workers": world.workers}
    )
    costs: dict[str, Cost] = {}
    with watched() as spent, open_memory(config.memory, config.results / "cache") as snapshot:

        def record(ref: ArtifactRef) -> None:
            model = f" {ref.model}" if ref.model else ""
            if ref.seconds:
                cost = costs.setdefault(f"{ref.stage}{model}", Cost(ref.stage))
                cost.add(replace(spent, seconds=ref.seconds))
                spent.clear()

        plan = replace(look_up(config, snapshot), record=record)
        _, answers = run_dataset(plan, plan.cards[0])
        comparisons(plan.work, [answers])
    for name, cost in costs.items():
        texts = f", {cost.texts:,} texts {cost.encoding:.1f} s" if cost.texts else ""
        of_these = (
            f" (of these loading {cost.loading:.1f} s{texts})" if cost.loading + cost.texts else ""
        )
        world.figures.add(f"whole, {name}{of_these}", cost.seconds, "s")
    total = sum(cost.seconds for cost in costs.values())
    world.figures.add(f"whole, {size.queries:,} images", total, "s")
    for name, count in test_sets().items():
        new = {"captions": size.candidates * count, "scores": size.captions * count}
        times = count / size.queries
        hours = sum(cost.hours(times, new.get(cost.stage, 0)) for cost in costs.values())
        what = f"whole, from it: {name}, {count:,} images, every caption new"
        world.figures.add(what, hours, "hours")


@contextmanager
def watched() -> Iterator[Cost]:
    """Add up, in the block, the loading of models and the encoding of texts."""
    spent = Cost("")
    load, encode = loaded._load, TextEncoder._encode

    def loading(*args: Any) -> None:
        begun = time.perf_counter()
        load(*args)
        spent.loading += time.perf_counter() - begun

    def encoding(encoder: TextEncoder, texts: list[str]) -> Any:
        begun, before = time.perf_counter(), spent.loading
        found = encode(encoder, texts)
        spent.encoding += time.perf_counter() - begun - (spent.loading - before)
        spent.texts += len(texts)
        return found

    loaded._load, TextEncoder._encode = loading, encoding  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        loaded._load, TextEncoder._encode = load, encode  # type: ignore[method-assign]


def test_sets() -> dict[str, int]:
    """Return the test images of ImageNet, and of all the paper's test sets."""
    with (PROJECT_ROOT / "data" / "reference" / "datasets.csv").open() as file:
        counts = {row["dataset"]: int(row["test_images"]) for row in csv.DictReader(file)}
    return {"ImageNet": counts["ImageNet"], f"all {len(counts)} sets": sum(counts.values())}
