"""`xmore classify`: the stages of a benchmark for one image and a list of labels."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unicodedata import category, normalize

import numpy as np
import pyarrow as pa

from flows.plan import BenchmarkPlan, check_methods, look_up, snapshot_of
from flows.stages import found_leaks, retrieve, run_methods
from tasks.candidates import candidates
from tasks.method_scores import MethodInputs
from tasks.queries import write_classes
from tasks.query_embeddings import query_embeddings
from tasks.stage import Workspace
from xmore.config.benchmark import BenchmarkConfig
from xmore.datasets.card import DatasetCard
from xmore.datasets.names import plain, read_classes
from xmore.datasets.prompts import PAPERS_PROMPT, prompts_of_sets
from xmore.files.errors import ConfigError, DatasetError, meant
from xmore.files.text import CONTROL
from xmore.images.decode import ImageRejected, check_image, read_image
from xmore.memory.adopt import open_memory
from xmore.memory.pictures import memory_pictures
from xmore.memory.rows import captions_of, places_of
from xmore.methods.adjust import StreamState, minmax
from xmore.methods.base import Scores, Weights, combine, under
from xmore.models.spec import describe_model
from xmore.results.absent import require
from xmore.results.explain import Answer, Explanation, explain
from xmore.results.runs import Run, start_run
from xmore.results.views import open_views
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, ArtifactRef, read_rows

NAME = "image"  # of the temporary dataset that holds the image
NO_CLASSES = "name the classes: set one of --labels, --labels-file and --run."


def parse_labels(text: str | None, file: Path | None) -> list[str]:
    """Read labels from a comma-separated text or from a file, one per line. Raises ConfigError."""
    if (text is None) == (file is None):
        raise ConfigError(NO_CLASSES)
    if file is not None:
        labels = [plain(name) for _, name in read_classes(file, ConfigError, "--labels-file")]
    else:
        labels = [plain(part) for part in str(text).split(",") if part.strip()]
    return check_labels(labels)


def check_labels(labels: list[str]) -> list[str]:
    """Return labels that are at least two different texts. Raises ConfigError."""
    for label in labels:
        if not label or any(category(c) in CONTROL for c in label):
            raise ConfigError(f"label {label!r}: is empty, or has a control character.")
    forms = Counter(normalize("NFC", label) for label in labels)
    twice = [label for label, count in forms.items() if count > 1]
    if len(labels) < 2 or twice:
        what = f"{twice[0]!r} twice" if twice else f"{len(labels)}"
        raise ConfigError(f"classify needs at least two different labels, got {what}.")
    return labels


def with_memory(config: BenchmarkConfig, memory: Path) -> BenchmarkConfig:
    """Return the config with another memory. Raises ConfigError if no model of it reads one."""
    if config.roles.coarse is None:
        raise ConfigError(
            f"{memory}: the config has no models to read a memory with. Add its `memory`, "
            "`roles.coarse` and `roles.fine`, or name another config."
        )
    return config.model_copy(update={"memory": memory})


@contextmanager
def classified(
    image: Path,
    labels: list[str] | None,
    config: BenchmarkConfig,
    like: Run | None,
    dataset: str | None = None,
) -> Iterator[tuple[Explanation, BenchmarkPlan]]:
    """Classify the image with the models and the memory, if any, of `config`; explain each step.

    A single image has no stream, so `xmore` weighs by the raw confidences (adjustment `none`).
    With `like`, it also weighs by the smallest and largest confidence of that run's `dataset`, as
    if the image came after its queries, unless that run had no memory; without `labels`, that
    dataset's classes are used. Nothing is kept on disk. Raises XmoreError.
    """
    if like:
        require(like, "scores")
    stream = _stream(like, dataset) if like else None
    data = _read(image)
    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch)
        with snapshot_of(config, like) as snapshot:
            plan = look_up(_for_one_image(config), snapshot)
            work = Workspace(results, config.execution)
            card = DatasetCard(name=NAME, root=image.resolve().parent)
            if labels is None:
                labels, sets = _classes_of(like, stream)
            else:
                sets = prompts_of_sets(labels, config.prompts_by_set(PAPERS_PROMPT))
            check_methods(plan, card, labels)
            queries = _query(work, image, data)
            classes = write_classes(work, NAME, labels, sets)
            refs, scored = _stages(plan, work, queries, classes, card)
            run = start_run(config.model_copy(update={"results": results}), plan.read)
            empty = schemas.METRICS.empty_table()  # no label, no accuracy; the SQL views need it
            run.artifacts = [
                *refs,
                work.store.write(ArtifactKey("metrics", NAME, {}), [0], lambda *_: empty),
            ]
            found = explain(open_views(run), "0", None)
            if like and stream and snapshot:
                m = max(config.retrieval.captions)
                found.answers.extend(_as_in(like, stream, ref, m, labels) for ref in scored)
                found.answers.sort(key=lambda answer: answer.model)  # one table per model
            yield found, plan


def nearest(image: Path, config: BenchmarkConfig, k: int) -> tuple[pa.Table, dict[int, bytes]]:
    """Return the k rows of the memory whose images are nearest to one, and their images.

    Embedded and searched as the queries of `config`'s coarse model are; the table has a row for
    each: rank, memory_id, memory_key, similarity, caption, place. Nothing is kept on disk. Raises
    XmoreError.
    """
    data, cache = _read(image), config.results / "cache"
    retrieval = config.retrieval.model_copy(update={"candidates": k})
    name = config.roles.coarse
    assert config.memory and name  # of `with_memory`
    with tempfile.TemporaryDirectory() as scratch, open_memory(config.memory, cache) as snapshot:
        coarse = describe_model(name, config.model(name), cache)
        work = Workspace(Path(scratch), config.execution)
        card = DatasetCard(name=NAME, root=image.resolve().parent)
        embedded = query_embeddings(work, _query(work, image, data), card, coarse)
        row = read_rows(candidates(work, embedded, coarse, snapshot, retrieval))
        ids = row["memory_ids"][0].values.to_numpy()
        table = pa.table(
            {
                "rank": pa.array(range(1, len(ids) + 1), pa.int64()),
                "memory_id": ids,
                "memory_key": row["memory_keys"][0].values,
                "similarity": row["similarities"][0].values,
                "caption": captions_of(snapshot, ids),
                "place": places_of(snapshot, ids),
            }
        )
        return table, dict(memory_pictures(snapshot, ids.tolist()))


def _stream(like: Run, dataset: str | None) -> str:
    """Return the dataset of a run after whose queries the image comes. Raises ConfigError."""
    names = sorted({ref.dataset for ref in like.artifacts if ref.stage == "scores"})
    if not names:
        raise ConfigError(
            f"run {like.name} is {like.status} and has no results of methods. Name another."
        )
    if dataset is None and len(names) == 1:
        return names[0]
    if dataset in names:
        return str(dataset)
    what = f"has no dataset `{dataset}`" if dataset else "has several datasets"
    raise ConfigError(
        f"run `{like.name}` {what}: confidences are compared within one."
        f"{meant(dataset or '', names)} Set --dataset to one of: {', '.join(names)}."
    )


def _classes_of(
    like: Run | None, dataset: str | None
) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Return the names of a run's classes, and their prompts under each of its prompt sets.

    Raises ConfigError without a run.
    """
    if like is None:
        raise ConfigError(NO_CLASSES)
    query = (
        "select list(class_name order by label), prompt_set, list(prompts order by label) "
        "from raw_classes where dataset = ? group by prompt_set order by set_place(prompt_set)"
    )
    rows = open_views(like).execute(query, [dataset]).fetchall()
    return rows[0][0], {name: prompts for _, name, prompts in rows}


def _for_one_image(config: BenchmarkConfig) -> BenchmarkConfig:
    """Return the config without datasets, orders and adjustments, with the largest M alone."""
    retrieval = config.retrieval.model_copy(update={"captions": [max(config.retrieval.captions)]})
    alone = {"datasets": [], "adjustments": ["none"], "seeds": [], "retrieval": retrieval}
    return config.model_copy(update=alone)


def _read(image: Path) -> bytes:
    try:
        data = read_image(image)
        check_image(data)
    except ImageRejected as error:
        raise DatasetError(f"{image}: {error.cause}.") from error
    return data


def _query(work: Workspace, image: Path, data: bytes) -> ArtifactRef:
    sha256 = hashlib.sha256(data).hexdigest()
    query = {"query_id": [0], "label": [None], "class_name": [None], "uri": [image.name]}
    queries = pa.table(query | {"sha256": [sha256]}, schema=schemas.QUERIES)
    return work.store.write(
        ArtifactKey("queries", NAME, {"sha256": sha256}), [1], lambda *_: queries
    )


def _stages(
    plan: BenchmarkPlan,
    work: Workspace,
    queries: ArtifactRef,
    classes: list[ArtifactRef],
    card: DatasetCard,
) -> tuple[list[ArtifactRef], list[ArtifactRef]]:
    """Run all stages -> all artifacts, and the scores of each inference model and prompt set."""
    got = retrieve(plan, work, queries, card)
    refs, scored, leaked = [queries, *classes, *got.refs], list[ArtifactRef](), None
    if any("leaks" in ref.method.needs for ref in plan.methods):
        leaked = found_leaks(plan, work, queries, got)
    for name in plan.config.roles.inference:
        model = plan.models[name]
        embeddings = got.embeddings[model.digest]
        inputs = [
            MethodInputs(card, queries, each, embeddings, got.captions, leaks=leaked)
            for each in classes
        ]
        written, predicted = run_methods(plan, work, inputs, model)
        refs += written
        scored += {item.scores.prompt_set: item.scores for item in predicted}.values()
    return refs, scored


def _as_in(like: Run, dataset: str, scored: ArtifactRef, m: int, labels: list[str]) -> Answer:
    """Return the prediction of `xmore minmax` if the image came next in a dataset's stream."""
    row = read_rows(scored)
    lows_and_highs = open_views(like).execute(
        "select min(image_confidence), max(image_confidence), min(text_confidence), "
        "max(text_confidence) from scores semi join predictions using (dataset, query_id) "
        "where dataset = ? and model = ? and m = ? and prompt_set = ?",
        [dataset, scored.model, m, scored.prompt_set],
    )
    (bounds,) = lows_and_highs.fetchall()
    weights = []
    for modality, low, high in (("image", *bounds[:2]), ("text", *bounds[2:])):
        state = StreamState() if low is None else StreamState(low, high)
        weights.append(minmax(row[f"{modality}_confidence"].to_numpy(), state))
    image = schemas.to_matrix(row["image_scores"])
    text = schemas.to_matrix(row["text_scores"])
    text = text if text.shape == image.shape else np.full(image.shape, np.nan, np.float32)
    probabilities = combine(Scores(image, text), Weights(weights[0], weights[1]))[0]
    best = int(probabilities.argmax())
    return Answer(
        model=str(scored.model),
        method=under("xmore minmax in the stream", scored.prompt_set),
        m=m,
        image_weight=float(weights[0][0]),
        text_weight=float(weights[1][0]),
        answer=labels[best],
        probability=float(probabilities[best]),
        seeds="",
        correct=None,
    )
