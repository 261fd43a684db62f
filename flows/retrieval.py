"""The stages of one retrieval dataset: its images and captions, and each model's ranks of them."""

from __future__ import annotations

from flows.plan import BenchmarkPlan
from tasks.image_captions import captioned_queries
from tasks.query_embeddings import query_embeddings
from tasks.ranks import ranks
from tasks.retrieval_metrics import retrieval_metrics
from xmore.datasets.card import DatasetCard
from xmore.store.artifacts import ArtifactRef


def run_retrieval(
    plan: BenchmarkPlan, card: DatasetCard
) -> tuple[list[ArtifactRef], list[ArtifactRef]]:
    """Run all stages of a retrieval dataset -> all artifacts, and the ranks of each model.

    Of the config's roles, only the inference models take part; memory and methods do not.
    """
    work = plan.work
    listed, captions, rejected = captioned_queries(work, card, plan.config)
    refs, ranked = [listed, captions, rejected], []
    for name in plan.config.roles.inference:
        model = plan.models[name]
        embeddings = query_embeddings(work, listed, card, model)
        ranked.append(ranks(work, embeddings, captions, model))
        refs += [embeddings, ranked[-1]]
    return [*refs, retrieval_metrics(work, ranked)], ranked
