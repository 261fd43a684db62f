"""The stages of one dataset, in the order of ARCHITECTURE.md's table."""

from __future__ import annotations

from collections.abc import Sequence
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
from tasks.scores import ScoreInputs, image_scores, scores
from tasks.stage import Workspace
from tasks.view_embeddings import view_embeddings
from xmore.config.retrieval import RetrievalConfig
from xmore.datasets.card import DatasetCard
from xmore.methods.base import Scorer, ViewSet
from xmore.models.spec import ModelCard
from xmore.store.artifacts import ArtifactRef


def run_dataset(plan: BenchmarkPlan, card: DatasetCard) -> tuple[list[ArtifactRef], DatasetAnswers]:
    """Run all stages of one dataset -> all artifacts, and those that `comparisons` reads."""
    found = prepare(plan, card)
    refs = [found.queries, *found.classes, found.rejected, *found.retrieved.refs]
    refs += [found.leaks] if found.leaks else []
    scored: list[Scored] = []
    for name in plan.config.roles.inference:
        written, predicted = run_model(plan, card, found, name)
        refs += written
        scored += predicted
    for classes in found.classes:
        mine = [each for each in scored if each.predictions.prompt_set == classes.prompt_set]
        refs.append(metrics(_under(plan.work, classes), found.queries, classes, mine))
    return refs, DatasetAnswers(found.queries, scored)


def _under(work: Workspace, classes: ArtifactRef) -> Workspace:
    """Return the workspace for stages that depend on a prompt set."""
    return replace(work, prompt_set=classes.prompt_set)


@dataclass(frozen=True)
class Prepared:
    """The artifacts of a dataset that all inference models share."""

    queries: ArtifactRef
    classes: list[ArtifactRef]  # one for each prompt set
    rejected: ArtifactRef
    retrieved: Retrieved
    leaks: ArtifactRef | None  # None without a memory


def prepare(plan: BenchmarkPlan, card: DatasetCard) -> Prepared:
    """Run the stages of a dataset that need no inference model's scores."""
    work = plan.work
    query, classes, rejected = listed_queries(plan, work, card)
    got = retrieve(plan, work, query, card)
    return Prepared(query, classes, rejected, got, found_leaks(plan, work, query, got))


def found_leaks(
    plan: BenchmarkPlan, work: Workspace, query: ArtifactRef, got: Retrieved
) -> ArtifactRef | None:
    """Run `leaks`; None without a memory, which alone could hold test images."""
    if plan.snapshot is None or got.candidates is None:
        return None
    return leaks(work, query, got.candidates, plan.snapshot, plan.config.leaks.threshold)


def run_model(
    plan: BenchmarkPlan, card: DatasetCard, found: Prepared, name: str
) -> tuple[list[ArtifactRef], list[Scored]]:
    """Run every method on a dataset under one inference model: see `run_methods`."""
    model, got = plan.models[name], found.retrieved
    embeddings = got.embeddings[model.digest]
    inputs = [
        MethodInputs(card, found.queries, classes, embeddings, got.captions, leaks=found.leaks)
        for classes in found.classes
    ]
    left_out = found.leaks if plan.config.leaks.exclude else None
    return run_methods(plan, plan.work, inputs, model, left_out)


def listed_queries(
    plan: BenchmarkPlan, work: Workspace, card: DatasetCard
) -> tuple[ArtifactRef, list[ArtifactRef], ArtifactRef]:
    """Return refs of `queries`, `classes` and `rejected`; `drop_short` needs their candidates."""
    query, first, rejected, *others = queries(work, card, plan.config)
    retrieval, memory = plan.config.retrieval, plan.memory
    if memory and retrieval.drop_short:
        embedded = query_embeddings(work, query, card, memory.model)
        found = candidates(work, embedded, memory.model, memory.snapshot, retrieval)
        k = retrieval.candidates
        query, rejected, *_ = full_queries(work, query, rejected, embedded, found, k)
    return query, [first, *others], rejected


def run_methods(
    plan: BenchmarkPlan,
    work: Workspace,
    inputs: Sequence[MethodInputs],
    model: ModelCard,
    left_out: ArtifactRef | None = None,
) -> tuple[list[ArtifactRef], list[Scored]]:
    """Run every method on a dataset's queries under one inference model and each prompt set.

    `inputs` differ in their classes. Returns all artifacts, and the predictions with the scores
    that they were made from.
    """
    config, shared = plan.config, inputs[0]
    by_m = [_scores(_under(work, each.classes), each, model, config.retrieval) for each in inputs]
    runs = method_runs(config, plan.methods, shared.card.name, plan.memory)
    views: dict[ViewSet | None, ArtifactRef] = {
        of: view_embeddings(work, shared.queries, shared.card, model, of)
        for of in dict.fromkeys(filter(None, map(_view_set, runs)))
    }
    refs, scored = [*(ref for of_set in by_m for ref in of_set.values()), *views.values()], []
    for each, scores_of in zip(inputs, by_m, strict=True):
        needed = []
        for run in runs:
            classes = each.classes if _reads_prompts(run) else shared.classes
            needed.append(replace(each, views=views.get(_view_set(run)), classes=classes))
        place, asked = _under(work, each.classes), list(zip(runs, needed, strict=True))
        written, predicted = _run_all(place, asked, model, scores_of, left_out)
        refs += written
        scored += predicted
    return refs, scored


def _scores(
    work: Workspace, inputs: MethodInputs, model: ModelCard, retrieval: RetrievalConfig
) -> dict[int | None, ArtifactRef]:
    """Return the scores under one prompt set, by M; without captions those of the images."""
    if inputs.captions is None:
        return {None: image_scores(work, inputs.embeddings, inputs.classes, model)}
    prefix = retrieval.caption_prefix
    of = ScoreInputs(inputs.embeddings, inputs.captions, inputs.classes, prefix)
    return {m: scores(work, of, model, m) for m in retrieval.captions}


def _run_all(
    work: Workspace,
    asked: Sequence[tuple[MethodRun, MethodInputs]],
    model: ModelCard,
    by_m: dict[int | None, ArtifactRef],
    left_out: ArtifactRef | None,
) -> tuple[list[ArtifactRef], list[Scored]]:
    """Run every method under one prompt set: see `run_methods`."""
    scores_of = [by_m[run.m or next(iter(by_m))] for run, _ in asked]
    written: dict[int, list[ArtifactRef]] = {}
    for ref in by_m.values():  # one after the other, as each one's rows stay in memory
        source = ScoreSource(ref, left_out=left_out, rows=ScoreRows(ref))
        for i, (run, inputs) in enumerate(asked):
            if scores_of[i] is ref:
                written[i] = _run_method(work, inputs, model, run, source)
    refs = [ref for i in range(len(asked)) for ref in written[i]]
    return refs, [Scored(run, scores_of[i], written[i][-1]) for i, (run, _) in enumerate(asked)]


def _reads_prompts(run: MethodRun) -> bool:
    """Return whether a method's own scores depend on the prompts, not on the names alone."""
    method = run.ref.method
    return not isinstance(method, Scorer) or method.reads_prompts


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
    candidates: ArtifactRef | None = None  # of a run with a memory, as are
    captions: ArtifactRef | None = None

    @property
    def refs(self) -> list[ArtifactRef]:
        found = [ref for ref in (self.candidates, self.captions) if ref]
        return [*self.embeddings.values(), *found]


def retrieve(
    plan: BenchmarkPlan, work: Workspace, queries: ArtifactRef, card: DatasetCard
) -> Retrieved:
    """Run the stages from queries to their captions: all that need no inference model's scores.

    Without a memory, these are embeddings alone.
    """
    embeddings = {
        model.digest: query_embeddings(work, queries, card, model) for model in plan.distinct_models
    }
    memory, name, retrieval = plan.memory, plan.config.roles.fine, plan.config.retrieval
    if memory is None or name is None:
        return Retrieved(embeddings)
    coarse, fine = memory.model, plan.models[name]
    found = candidates(work, embeddings[coarse.digest], coarse, memory.snapshot, retrieval)
    fine_model = FineModel(fine, embeddings[fine.digest])
    kept = captions(work, found, memory.snapshot, fine_model, retrieval)
    return Retrieved(embeddings, found, kept)
