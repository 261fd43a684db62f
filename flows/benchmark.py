"""`xmore-benchmark`: all stages, for every dataset and inference model."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from prefect import flow

from flows.plan import BenchmarkPlan, look_up, settle_batch_size
from flows.prefect_ui import show_results
from tasks.candidates import candidates
from tasks.captions import FineModel, captions
from tasks.comparisons import DatasetAnswers, comparisons
from tasks.leaks import leaks
from tasks.method_scores import MethodInputs, method_scores
from tasks.metrics import Scored, metrics
from tasks.predictions import MethodRun, ScoreSource, method_runs, predictions
from tasks.queries import full_queries, queries
from tasks.query_embeddings import query_embeddings
from tasks.score_rows import ScoreRows
from tasks.scores import ScoreInputs, scores
from tasks.spread import check_runner, spread
from tasks.stage import Workspace
from tasks.view_embeddings import view_embeddings
from xmore.config.benchmark import BenchmarkConfig
from xmore.config.load import absolute
from xmore.datasets.card import DatasetCard
from xmore.memory.adopt import open_memory
from xmore.methods.base import Scorer
from xmore.methods.registry import METHODS
from xmore.models.spec import ModelCard
from xmore.report.page import write_report
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


def run_dataset(plan: BenchmarkPlan, card: DatasetCard) -> tuple[list[ArtifactRef], DatasetAnswers]:
    """Run all stages of one dataset, in the order of ARCHITECTURE.md's table.

    Returns all artifacts, and those that `comparisons` reads.
    """
    config, work = plan.config, plan.work
    query, classes, rejected = listed_queries(plan, work, card)
    got = retrieve(plan, work, query, card)
    leaked = leaks(work, query, got.candidates, plan.snapshot, config.leaks.threshold)
    left_out = leaked if config.leaks.exclude else None
    refs = [query, classes, rejected, *got.refs, leaked]
    scored: list[Scored] = []
    for name in config.roles.inference:
        embeddings = got.embeddings[plan.models[name].digest]
        inputs = MethodInputs(card, query, classes, embeddings, got.captions)
        written, predicted = run_methods(plan, work, inputs, plan.models[name], left_out)
        refs += written
        scored += predicted
    return [*refs, metrics(work, query, classes, scored)], DatasetAnswers(query, scored)


def listed_queries(
    plan: BenchmarkPlan, work: Workspace, card: DatasetCard
) -> tuple[ArtifactRef, ArtifactRef, ArtifactRef]:
    """Return refs of `queries`, `classes` and `rejected`; `drop_short` needs their candidates."""
    query, classes, rejected = queries(work, card, plan.config)
    retrieval, coarse = plan.config.retrieval, plan.models[plan.config.roles.coarse]
    if retrieval.drop_short:
        embedded = query_embeddings(work, query, card, coarse)
        found = candidates(work, embedded, coarse, plan.snapshot, retrieval)
        k = retrieval.candidates
        query, rejected, *_ = full_queries(work, query, rejected, embedded, found, k)
    return query, classes, rejected


def run_methods(
    plan: BenchmarkPlan,
    work: Workspace,
    inputs: MethodInputs,
    model: ModelCard,
    left_out: ArtifactRef | None = None,
) -> tuple[list[ArtifactRef], list[Scored]]:
    """Run every method on a dataset's queries under one inference model.

    Returns all artifacts, and the predictions with the scores that they were made from.
    """
    config = plan.config
    score_inputs = ScoreInputs(
        inputs.embeddings, inputs.captions, inputs.classes, config.retrieval.caption_prefix
    )
    by_m = {m: scores(work, score_inputs, model, m) for m in config.retrieval.captions}
    refs, scored = list(by_m.values()), []
    if any("view_embeddings" in METHODS[name].needs for name in config.methods):
        views = view_embeddings(work, inputs.queries, inputs.card, model, config.options.views)
        refs.append(views)
        inputs = replace(inputs, views=views)
    runs = method_runs(config, inputs.card.name)
    scores_of = [by_m[run.m or next(iter(by_m))] for run in runs]
    written: dict[int, list[ArtifactRef]] = {}
    for ref in by_m.values():  # one after the other, as each one's rows stay in memory
        source = ScoreSource(ref, left_out=left_out, rows=ScoreRows(ref))
        for i in (i for i, theirs in enumerate(scores_of) if theirs is ref):
            written[i] = _run_method(work, inputs, model, runs[i], source)
    for i, run in enumerate(runs):
        refs += written[i]
        scored.append(Scored(run, scores_of[i], written[i][-1]))
    return refs, scored


def _run_method(
    work: Workspace, inputs: MethodInputs, model: ModelCard, run: MethodRun, source: ScoreSource
) -> list[ArtifactRef]:
    """Run a method -> its predictions, after its own scores if it computes such."""
    own = []
    if isinstance(METHODS[run.method], Scorer):
        own = [method_scores(work, inputs, model, run.method, run.request)]
        source = replace(source, own=own[0])
    return [*own, predictions(work, source, run)]


@dataclass(frozen=True)
class Retrieved:
    """The artifacts of the stages before `scores`."""

    embeddings: dict[str, ArtifactRef]  # by the model's digest: a model in two roles counts once
    candidates: ArtifactRef
    captions: ArtifactRef

    @property
    def refs(self) -> list[ArtifactRef]:
        return [*self.embeddings.values(), self.candidates, self.captions]


def retrieve(
    plan: BenchmarkPlan, work: Workspace, queries: ArtifactRef, card: DatasetCard
) -> Retrieved:
    """Run the stages from queries to their captions: all that need no inference model's scores."""
    embeddings = {
        model.digest: query_embeddings(work, queries, card, model) for model in plan.distinct_models
    }
    roles, retrieval = plan.config.roles, plan.config.retrieval
    coarse, fine = plan.models[roles.coarse], plan.models[roles.fine]
    found = candidates(work, embeddings[coarse.digest], coarse, plan.snapshot, retrieval)
    fine_model = FineModel(fine, embeddings[fine.digest])
    kept = captions(work, found, plan.snapshot, fine_model, retrieval)
    return Retrieved(embeddings, found, kept)
