"""Images by text: from a quantised index, the very ones that the stored embeddings rank first."""

import faiss
import numpy as np
import pytest
from at_random import unit
from foreign_memory import context_over, stored, write_memory

from xmore.files.errors import SnapshotError
from xmore.methods.memories import ImagesByText, identity_of, memory_of

D = 32


@pytest.fixture
def memory(tmp_path):
    """300 vectors with an index of 4 bits for each 4 numbers."""
    rows = unit(np.random.default_rng(0), 300, D)
    keys = write_memory(tmp_path / "memory", rows)
    index = faiss.index_factory(D, "PQ8x4", faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    faiss.write_index(index, str(tmp_path / "memory" / "image.index"))
    return tmp_path / "memory", stored(rows), keys


def ranked(rows, text):
    return np.argsort(-(rows @ text), kind="stable")


def test_a_small_memory_is_searched_exactly_whatever_its_index(memory):
    folder, rows, _ = memory
    texts = unit(np.random.default_rng(1), 20, D)
    request = context_over(folder, {}, [["x"]], 1.0).request
    with memory_of(request, "tip-x") as snapshot:
        assert identity_of(snapshot)["index"] is None
        images = ImagesByText(snapshot, ())
        found = images(texts, 8)
        np.testing.assert_array_equal(found, [ranked(rows, text)[:8] for text in texts])
        np.testing.assert_array_equal(images.embeddings(found[0]), rows[found[0]])


def test_what_an_index_finds_is_ranked_by_stored_embeddings_without_test_images(
    memory, monkeypatch
):
    monkeypatch.setattr("xmore.memory.cost.EXACT_MAX_MACS", 0)
    folder, rows, keys = memory
    texts = unit(np.random.default_rng(1), 20, D)
    leaked = {keys[ranked(rows, text)[0]] for text in texts}
    request = context_over(folder, {}, [["x"]], 1.0).request
    with memory_of(request, "tip-x") as snapshot:
        assert identity_of(snapshot)["index"] == snapshot.index["sha256"]
        found = ImagesByText(snapshot, leaked)(texts, 8)
    hits = 0
    for text, ids in zip(texts, found, strict=True):
        similarities = rows[ids] @ text
        assert (np.diff(similarities) <= 1e-6).all() and not leaked & {keys[i] for i in ids}
        true = [i for i in ranked(rows, text) if keys[i] not in leaked][:8]
        hits += len({*ids} & {*true})
    assert hits >= 0.95 * 20 * 8  # of the 128 nearest by the index, 32 are ranked


def test_another_models_vectors_are_refused_in_a_line(memory):
    request = context_over(memory[0], {}, [["x"]], 1.0).request
    says = "its embeddings have 32 dimensions, but those of the inference model have 16"
    with memory_of(request, "tip-x") as snapshot, pytest.raises(SnapshotError, match=says) as told:
        ImagesByText(snapshot, ())(unit(np.random.default_rng(1), 2, 16), 8)
    assert "\n" not in str(told.value)
