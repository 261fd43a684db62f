"""The stages of one dataset, in the order of ARCHITECTURE.md's table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flows.plan import BenchmarkPlan
from tasks.candidates import candidates
from tasks.captions import FineModel, captions
from tasks.comparisons import DatasetAnswers
from tasks.leaks import leaks
from tasks.method_scores import MethodInputs, method_scores
from tasks.metrics import Scored, metrics
from tasks.predictions import MethodRun, ScoreSource, method_runs, predictions
from tasks.queries import full_queries, queries
from tasks.query_embeddings import query_embeddings
from tasks.score_rows import ScoreRows
from tasks.scores import ScoreInputs, scores
from tasks.stage import Workspace
from tasks.view_embeddings import view_embeddings
from xmore.datasets.card import DatasetCard
from xmore.methods.base import Scorer, ViewSet
from xmore.models.spec import ModelCard
from xmore.store.artifacts import ArtifactRef


def run_dataset(plan: BenchmarkPlan, card: DatasetCard) -> tuple[list[ArtifactRef], DatasetAnswers]:
    """Run all stages of one dataset -> all artifacts, and those that `comparisons` reads."""
    found = prepare(plan, card)
    refs = [found.queries, found.classes, found.rejected, *found.retrieved.refs, found.leaks]
    scored: list[Scored] = []
    for name in plan.config.roles.inference:
        written, predicted = run_model(plan, card, found, name)
        refs += written
        scored += predicted
    measured = metrics(plan.work, found.queries, found.classes, scored)
    return [*refs, measured], DatasetAnswers(found.queries, scored)


@dataclass(frozen=True)
class Prepared:
    """The artifacts of a dataset that all inference models share."""

    queries: ArtifactRef
    classes: ArtifactRef
    rejected: ArtifactRef
    retrieved: Retrieved
    leaks: ArtifactRef


def prepare(plan: BenchmarkPlan, card: DatasetCard) -> Prepared:
    """Run the stages of a dataset that need no inference model's scores."""
    work = plan.work
    query, classes, rejected = listed_queries(plan, work, card)
    got = retrieve(plan, work, query, card)
    leaked = leaks(work, query, got.candidates, plan.snapshot, plan.config.leaks.threshold)
    return Prepared(query, classes, rejected, got, leaked)


def run_model(
    plan: BenchmarkPlan, card: DatasetCard, found: Prepared, name: str
) -> tuple[list[ArtifactRef], list[Scored]]:
    """Run every method on a dataset under one inference model: see `run_methods`."""
    model, got = plan.models[name], found.retrieved
    embeddings = got.embeddings[model.digest]
    inputs = MethodInputs(card, found.queries, found.classes, embeddings, got.captions)
    left_out = found.leaks if plan.config.leaks.exclude else None
    return run_methods(plan, plan.work, inputs, model, left_out)


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
    runs = method_runs(config, plan.methods, inputs.card.name)
    views: dict[ViewSet | None, ArtifactRef] = {
        of: view_embeddings(work, inputs.queries, inputs.card, model, of)
        for of in dict.fromkeys(filter(None, map(_view_set, runs)))
    }
    refs += views.values()
    scores_of = [by_m[run.m or next(iter(by_m))] for run in runs]
    written: dict[int, list[ArtifactRef]] = {}
    for ref in by_m.values():  # one after the other, as each one's rows stay in memory
        source = ScoreSource(ref, left_out=left_out, rows=ScoreRows(ref))
        for i in (i for i, theirs in enumerate(scores_of) if theirs is ref):
            mine = replace(inputs, views=views.get(_view_set(runs[i])))
            written[i] = _run_method(work, mine, model, runs[i], source)
    for i, run in enumerate(runs):
        refs += written[i]
        scored.append(Scored(run, scores_of[i], written[i][-1]))
    return refs, scored


def _view_set(run: MethodRun) -> ViewSet | None:
    """Return the augmented views that a method reads; None if it reads none."""
    method = run.ref.method
    if isinstance(method, Scorer) and "view_embeddings" in method.needs:
        return method.view_set(run.request)
    return None


def _run_method(
    work: Workspace, inputs: MethodInputs, model: ModelCard, run: MethodRun, source: ScoreSource
) -> list[ArtifactRef]:
    """Run a method -> its predictions, after its own scores if it computes such."""
    own = []
    if isinstance(run.ref.method, Scorer):
        own = [method_scores(work, inputs, model, run.ref, run.request)]
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
