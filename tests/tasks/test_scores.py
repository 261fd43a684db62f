"""Scores of images alone, in a run without a memory."""

import numpy as np
import pyarrow as pa

from tasks import scores as stage
from tasks.stage import Workspace
from xmore.config.execution import ExecutionConfig
from xmore.models.spec import ModelCard, ModelSpec
from xmore.store import schemas
from xmore.store.artifacts import ArtifactKey, read_rows

QUERIES, CLASSES, DIM = 1024, 1000, 512  # of a part on ImageNet: the images of two blocks


def test_they_are_those_of_a_run_with_the_papers_m_to_the_last_bit(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    images, classes = (
        (each / np.linalg.norm(each, axis=1, keepdims=True)).astype(np.float32)
        for each in (random.normal(size=(rows, DIM)) for rows in (QUERIES, CLASSES))
    )
    scorer = stage._Scorer(None, classes, 100.0)
    monkeypatch.setattr(stage, "_scorer", lambda *_: (scorer, {}))
    work = Workspace(tmp_path, ExecutionConfig())
    ids = np.arange(QUERIES)
    tables = {
        "query_embeddings": {"query_id": ids, "embedding": schemas.fixed_lists(images)},
        "captions": {"query_id": ids, "captions": pa.array([[]] * QUERIES, pa.list_(pa.string()))},
        "classes": {"label": np.arange(CLASSES)},
    }
    embeddings, captions, names = (
        work.store.write(
            ArtifactKey(name, "x", {}), [len(next(iter(columns.values())))], made(columns)
        )
        for name, columns in tables.items()
    )
    model = ModelCard("m", ModelSpec(architecture="x", pretrained="y"), {})
    whole = stage.scores(work, stage.ScoreInputs(embeddings, captions, names), model, 16)
    alone = stage.image_scores(work, embeddings, names, model)
    assert whole.digest != alone.digest
    for column in ("query_id", "image_scores", "image_confidence", "text_scores"):
        assert read_rows(alone)[column].equals(read_rows(whole)[column]), column
    assert read_rows(alone)["caption_count"].null_count == QUERIES


def made(columns):
    return lambda *_: pa.table(columns)
