"""What a benchmark will do: its config, and all that the config names, looked up and checked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tasks.predictions import method_runs
from tasks.stage import Workspace
from xmore.config.benchmark import BenchmarkConfig
from xmore.datasets.card import DatasetCard, load_card
from xmore.datasets.prompts import prompts_of_sets
from xmore.datasets.scan import listing
from xmore.files.errors import ConfigError
from xmore.memory.adopt import open_memory
from xmore.memory.snapshot import Snapshot
from xmore.methods.base import RunMemory, Scorer
from xmore.methods.registry import METHODS, MethodRef, method_refs
from xmore.models.batch_size import settled
from xmore.models.spec import ModelCard, describe_model
from xmore.results.runs import Run
from xmore.store.artifacts import ArtifactRef

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkPlan:
    """A config and everything that it names: cards, models, the snapshot to read."""

    config: BenchmarkConfig
    methods: tuple[MethodRef, ...]  # in the order of tables and plots
    cards: list[DatasetCard]
    models: dict[str, ModelCard]
    snapshot: Snapshot | None  # None: a run without a memory
    record: Callable[[ArtifactRef], None] | None = None  # told of each artifact of the run

    @property
    def work(self) -> Workspace:
        return Workspace(self.config.results, self.config.execution, self.record)

    @property
    def distinct_models(self) -> list[ModelCard]:
        """Each model once, even if two roles name it differently."""
        return list({model.digest: model for model in self.models.values()}.values())

    @property
    def read(self) -> dict[str, Any] | None:
        """What run.json says of the snapshot; None without a memory."""
        if self.snapshot is None:
            return None
        facts = {"name": self.snapshot.name, "digest": self.snapshot.digest}
        return facts | {"memory": str(self.config.memory)}

    @property
    def memory(self) -> RunMemory | None:
        """What the run retrieves from, with its coarse model; None without a memory."""
        coarse = self.config.roles.coarse
        if self.snapshot is None or coarse is None:
            return None
        return RunMemory(self.snapshot, self.models[coarse])


@contextmanager
def snapshot_of(config: BenchmarkConfig, old: Run | None = None) -> Iterator[Snapshot | None]:
    """Open the snapshot that `old` has read, or the CURRENT one of the config's memory, if any.

    As `open_memory` does. Raises SnapshotError.
    """
    if config.memory is None:
        yield None
        return
    name = old.snapshot_name if old else None
    with open_memory(config.memory, config.results / "cache", name) as snapshot:
        yield snapshot


def look_up(config: BenchmarkConfig, snapshot: Snapshot | None) -> BenchmarkPlan:
    """Find what `config` names, and load its methods. Raises XmoreError before any work starts."""
    methods = method_refs(config.methods)
    if snapshot is None:
        _check_need_no_memory(methods)
    cards = [load_card(name, config.data_root, config.class_names) for name in config.datasets]
    names = [card.name for card in cards]
    if len(set(names)) != len(names):
        raise ConfigError(f"`datasets`: two cards have one name ({', '.join(names)}).")
    cache = config.results / "cache"
    models = {name: describe_model(name, config.model(name), cache) for name in config.roles.models}
    plan = BenchmarkPlan(config, methods, cards, models, snapshot)
    _tell_what_does_nothing(config, cards)
    for card in cards:
        classes, _ = listing(card)  # reports mistakes in a card before the run starts
        if card.task == "retrieval":  # it has no prompts, and no method runs on it
            continue
        prompts_of_sets(classes, config.prompts_by_set(card.prompt))
        check_methods(plan, card, classes)
    return plan


def _tell_what_does_nothing(config: BenchmarkConfig, cards: Sequence[DatasetCard]) -> None:
    if cards and all(card.task == "retrieval" for card in cards):  # one image alone has no card
        for_classes = ("memory", "class_names", "prompt", "prompts", "prompt_sets")
        told = [f"`{key}`" for key in for_classes if getattr(config, key) is not None]
        if told:
            have = "has" if len(told) == 1 else "have"
            log.warning("only retrieval datasets: %s %s no effect", ", ".join(told), have)


def _check_need_no_memory(methods: Sequence[MethodRef]) -> None:
    wanting = [f"`{ref}`" for ref in methods if ref.method.needs_memory]
    if wanting:
        able = ", ".join(name for name, method in METHODS.items() if not method.needs_memory)
        raise ConfigError(
            f"`methods`: {', '.join(wanting)} cannot run without a memory. Set `memory`, "
            f"`roles.coarse` and `roles.fine`, or name only methods that need none: {able}."
        )


def check_methods(plan: BenchmarkPlan, card: DatasetCard, classes: list[str]) -> None:
    """Check that the models and the dataset support each method. Raises XmoreError."""
    for run in method_runs(plan.config, plan.methods, card.name, plan.memory):
        method = run.ref.method
        if isinstance(method, Scorer):
            for name in plan.config.roles.inference:
                model = plan.models[name]
                method.check(replace(run.request, model=model), model, classes)


def settle_batch_size(plan: BenchmarkPlan, run: Run) -> BenchmarkPlan:
    """Return the plan with a batch size, and record in what, and how, the run's models compute.

    `auto` is settled once: a resumed run keeps its own, as another may change last bits.
    """
    execution = plan.config.execution
    size = execution.batch_size
    if size == "auto":
        earlier = [facts["batch_size"] for facts in run.models.values()]
        size = earlier[0] if earlier else settled(size, plan.models.values(), execution.device)
    run.models = {
        name: {"precision": model.precision, "batch_size": size, "digest": model.digest}
        for name, model in plan.models.items()
    }
    execution = execution.model_copy(update={"batch_size": size})
    return replace(plan, config=plan.config.model_copy(update={"execution": execution}))
