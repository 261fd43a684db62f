"""`xmore-benchmark`: all stages, for every dataset and inference model."""

from __future__ import annotations

from dataclasses import asdict, replace

from prefect import flow

from flows.plan import BenchmarkPlan, look_up, settle_batch_size
from flows.prefect_ui import show_results
from flows.stages import listed_queries, run_dataset
from tasks.candidates import candidates
from tasks.comparisons import comparisons
from tasks.queries import queries
from tasks.query_embeddings import query_embeddings
from tasks.spread import check_runner, spread
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import absolute
from xmore.datasets.card import DatasetCard
from xmore.memory.adopt import open_memory
from xmore.models.spec import ModelCard
from xmore.results.costs import costs
from xmore.results.removal import remove_run
from xmore.results.runs import (
    all_runs,
    config_of,
    load_run,
    same_as_before,
    start_run,
    under_way,
)
from xmore.results.views import write_views
from xmore.store.artifacts import ArtifactRef


@flow(name="xmore-benchmark", flow_run_name="{params.name}", persist_result=False)
def xmore_benchmark(params: BenchmarkConfig, resume: str | None = None, again: bool = False) -> str:
    """Run the benchmark and return the run's name.

    A resumed run keeps its config and its snapshot. A new run reads the memory's CURRENT. If a
    completed run has the same config, snapshot and artifacts, no run is added: it is returned.

    Args:
        params: Datasets, memory, models, retrieval and methods.
        resume: An interrupted run to finish, by its name or `latest`.
        again: Add a run even if a completed one is the same.
    """
    params = absolute(params)
    check_runner(params.execution)
    old = load_run(params.results, resume) if resume else None
    config = config_of(old) if old else params
    name = old.snapshot["name"] if old else None
    with open_memory(config.memory, config.results / "cache", name) as snapshot:
        plan = look_up(config, snapshot)
        facts = {
            "name": snapshot.name,
            "digest": snapshot.digest,
            "memory": str(config.memory),
        }
        run = old or start_run(config, facts)
        plan = settle_batch_size(plan, run)
        with under_way(run) as record:
            if config.execution.runner != "local":
                retrieve_on_cluster(plan)
            plan = replace(plan, record=record)
            used, compared = [], []
            for card in plan.cards:
                refs, predicted = run_dataset(plan, card)
                used += refs
                run.artifacts = used.copy()  # without those that led to others, as `drop_short`
                compared.append(predicted)
            run.artifacts = [*used, comparisons(plan.work, compared)]
            run.costs = [asdict(cost) for cost in costs(run, all_runs(config.results))]
            write_views(run)
        same = None if old or again else same_as_before(run)
        if same:
            remove_run(run.results, run.name)
            run = same
        # The run is complete: an error while the report is drawn must not fail it.
        page = run.path / "report" / "report.html"
        if config.report and not (same and page.exists()):
            from xmore.report.page import write_report  # imports matplotlib

            page = write_report(run, page.parent)
        show_results(run, page if config.report else None, snapshot)
    return run.name


def retrieve_on_cluster(plan: BenchmarkPlan) -> None:
    """Embed all queries and find all candidates on a cluster's workers, before the stages run.

    One task is one dataset under one model. An artifact has one writer, which commits its parts
    in order, so a part is the unit of resume but not of distribution. The stages that run later
    find the artifacts in the store; the run records them as skipped.
    """
    listed = [(card, queries(plan.work, card, plan.config)[0]) for card in plan.cards]
    if plan.config.retrieval.drop_short:
        search_on_cluster(plan, listed, [plan.models[plan.config.roles.coarse]])
        listed = [(card, listed_queries(plan, plan.work, card)[0]) for card in plan.cards]
    search_on_cluster(plan, listed, plan.distinct_models)


def search_on_cluster(
    plan: BenchmarkPlan, listed: list[tuple[DatasetCard, ArtifactRef]], models: list[ModelCard]
) -> None:
    """Embed the datasets' queries under `models`, the coarse one among them; find candidates."""
    config, work = plan.config, plan.work
    calls = [(work, ref, card, model) for card, ref in listed for model in models]
    embedded = spread(query_embeddings, calls, config.execution)
    coarse = plan.models[config.roles.coarse]
    pairs = zip(embedded, calls, strict=True)
    found = [ref for ref, (*_, model) in pairs if model.digest == coarse.digest]
    searches = [(work, ref, coarse, plan.snapshot, config.retrieval) for ref in found]
    spread(candidates, searches, config.execution)
