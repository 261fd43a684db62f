"""`xmore-benchmark`: all stages, for every dataset and inference model."""

from __future__ import annotations

from dataclasses import asdict, replace

from prefect import flow

from flows.cluster import run_on_cluster
from flows.plan import look_up, settle_batch_size, snapshot_of
from flows.prefect_ui import show_results
from flows.retrieval import run_retrieval
from flows.stages import run_dataset
from tasks.comparisons import comparisons
from tasks.retrieval_metrics import retrieval_comparisons
from tasks.spread import check_runner
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import absolute
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


@flow(name="xmore-benchmark", flow_run_name="{params.name}", persist_result=False)
def xmore_benchmark(params: BenchmarkConfig, resume: str | None = None, again: bool = False) -> str:
    """Run the benchmark and return the run's name.

    A resumed run keeps its config and its snapshot. A new run reads the memory's CURRENT, if it has
    a memory. If a completed run has the same config, snapshot and artifacts, no run is added: it is
    returned.

    Args:
        params: Datasets, memory, models, retrieval and methods.
        resume: An interrupted run to finish, by its name or `latest`.
        again: Add a run even if a completed one is the same.
    """
    params = absolute(params)
    check_runner(params.execution)
    old = load_run(params.results, resume) if resume else None
    config = config_of(old) if old else params
    with snapshot_of(config, old) as snapshot:
        plan = look_up(config, snapshot)
        run = old or start_run(config, plan.read)
        plan = settle_batch_size(plan, run)
        with under_way(run) as record:
            if config.execution.runner != "local":
                run_on_cluster(plan)
            plan = replace(plan, record=record)
            used, compared, ranked = [], [], []
            for card in plan.cards:
                if card.task == "retrieval":
                    refs, ranks = run_retrieval(plan, card)
                    ranked += ranks
                else:
                    refs, predicted = run_dataset(plan, card)
                    compared.append(predicted)
                used += refs
                run.artifacts = used.copy()  # without those that led to others, as `drop_short`
            if compared:
                used.append(comparisons(plan.work, compared))
            if ranked:
                used.append(retrieval_comparisons(plan.work, ranked))
            run.artifacts = used
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
