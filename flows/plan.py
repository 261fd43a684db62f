"""What a benchmark will do: its config, and all that the config names, looked up and checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tasks.predictions import method_runs
from tasks.stage import Workspace
from xmore.config.benchmark import BenchmarkConfig
from xmore.datasets.card import DatasetCard, load_card
from xmore.datasets.prompts import prompts_of_sets
from xmore.datasets.scan import listing
from xmore.files.errors import ConfigError
from xmore.memory.snapshot import Snapshot
from xmore.methods.base import RunMemory, Scorer
from xmore.methods.registry import MethodRef, method_refs
from xmore.models.batch_size import settled
from xmore.models.spec import ModelCard, describe_model
from xmore.results.runs import Run
from xmore.store.artifacts import ArtifactRef


@dataclass(frozen=True)
class BenchmarkPlan:
    """A config and everything that it names: cards, models, the snapshot to read."""

    config: BenchmarkConfig
    methods: tuple[MethodRef, ...]  # in the order of tables and plots
    cards: list[DatasetCard]
    models: dict[str, ModelCard]
    snapshot: Snapshot
    record: Callable[[ArtifactRef], None] | None = None  # told of each artifact of the run

    @property
    def work(self) -> Workspace:
        return Workspace(self.config.results, self.config.execution, self.record)

    @property
    def distinct_models(self) -> list[ModelCard]:
        """Each model once, even if two roles name it differently."""
        return list({model.digest: model for model in self.models.values()}.values())

    @property
    def memory(self) -> RunMemory:
        return RunMemory(self.snapshot, self.models[self.config.roles.coarse])


def look_up(config: BenchmarkConfig, snapshot: Snapshot) -> BenchmarkPlan:
    """Find what `config` names, and load its methods. Raises XmoreError before any work starts."""
    methods = method_refs(config.methods)
    cards = [load_card(name, config.data_root, config.class_names) for name in config.datasets]
    names = [card.name for card in cards]
    if len(set(names)) != len(names):
        raise ConfigError(f"`datasets`: two cards have one name ({', '.join(names)}).")
    cache = config.results / "cache"
    models = {name: describe_model(name, config.model(name), cache) for name in config.roles.models}
    plan = BenchmarkPlan(config, methods, cards, models, snapshot)
    for card in cards:
        classes, _ = listing(card)  # reports mistakes in a card before the run starts
        prompts_of_sets(classes, config.prompts_by_set(card.prompt))
        check_methods(plan, card, classes)
    return plan


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
