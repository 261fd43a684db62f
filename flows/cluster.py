"""A benchmark's stages on a cluster's workers, before the flow itself runs them.

An artifact has one writer, which commits its parts in order, so a part is the unit of resume but
not of distribution: one task is one dataset, or one dataset under one model. The flow then finds
the artifacts in the store; the run records them as skipped.
"""

from __future__ import annotations

from dataclasses import replace

from flows.plan import BenchmarkPlan
from flows.stages import Prepared, listed_queries, prepare, run_model
from tasks.candidates import candidates
from tasks.queries import queries
from tasks.query_embeddings import query_embeddings
from tasks.spread import prefect_server, spread
from tasks.stage import step
from xmore.datasets.card import DatasetCard
from xmore.models.spec import ModelCard
from xmore.store.artifacts import ArtifactRef


def run_on_cluster(plan: BenchmarkPlan) -> None:
    """Make all artifacts but `metrics` and `comparisons`, which take seconds, and retrieval's."""
    plan = replace(plan, cards=[card for card in plan.cards if card.task != "retrieval"])
    work, config, how = plan.work, plan.config, plan.config.execution
    with prefect_server():  # one for all that follows
        found = spread(queries, [(work, card, config) for card in plan.cards], how)
        listed = [(card, query) for card, (query, *_) in zip(plan.cards, found, strict=True)]
        if plan.memory and config.retrieval.drop_short:
            search(plan, listed, [plan.memory.model])
            listed = [(card, listed_queries(plan, work, card)[0]) for card in plan.cards]
        search(plan, listed, plan.distinct_models)
        prepared = spread(retrieval, [(plan, card) for card in plan.cards], how)
        pairs = list(zip(plan.cards, prepared, strict=True))
        names = config.roles.inference
        spread(methods, [(plan, card, of, name) for card, of in pairs for name in names], how)


def search(
    plan: BenchmarkPlan, listed: list[tuple[DatasetCard, ArtifactRef]], models: list[ModelCard]
) -> None:
    """Embed the datasets' queries under `models`; find candidates under the coarse one, if any."""
    config, work = plan.config, plan.work
    calls = [(work, ref, card, model) for card, ref in listed for model in models]
    embedded = spread(query_embeddings, calls, config.execution)
    if plan.memory is None:
        return
    coarse, snapshot = plan.memory.model, plan.memory.snapshot
    pairs = zip(embedded, calls, strict=True)
    found = [ref for ref, (*_, model) in pairs if model.digest == coarse.digest]
    searches = [(work, ref, coarse, snapshot, config.retrieval) for ref in found]
    spread(candidates, searches, config.execution)


@step("captions and leaks of {card.name}")
def retrieval(plan: BenchmarkPlan, card: DatasetCard) -> Prepared:
    """Make what all inference models share."""
    return prepare(plan, card)


@step("methods on {card.name}, {name}")
def methods(plan: BenchmarkPlan, card: DatasetCard, prepared: Prepared, name: str) -> None:
    """Make the scores and predictions of all methods under an inference model."""
    run_model(plan, card, prepared, name)
