"""Ranks and recall, against CLIP_benchmark's function on the same embeddings, and by hand."""

import numpy as np
import pytest

from xmore.results import ranks
from xmore.results.ranks import KS, compare_found, ranks_among, recall_row
from xmore.statistics.significance import paired


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def made(seed, images=40, dim=16, noise=2.0):
    """Images, captions near their image (one to seven of each), and the image of each caption."""
    rng = np.random.default_rng(seed)
    pictures = unit(rng.normal(size=(images, dim)))
    image_of = np.repeat(np.arange(images), rng.integers(1, 8, images))
    return (
        pictures,
        unit(pictures[image_of] + noise * rng.normal(size=(len(image_of), dim))),
        image_of,
    )


def both(pictures, texts, image_of):
    """Our ranks in both directions."""
    edges = np.searchsorted(image_of, np.arange(len(pictures) + 1))
    return (
        ranks_among(pictures, texts, np.stack([edges[:-1], edges[1:]], 1)),
        ranks_among(texts, pictures, np.stack([image_of, image_of + 1], 1)),
    )


class Model:
    """Its images and texts are features already."""

    encode_image = encode_text = staticmethod(lambda rows: rows)


def theirs(pictures, texts, image_of, ks):
    """CLIP_benchmark's numbers for a loader of batches of 7 images with their texts."""
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    loader = [
        (
            torch.tensor(pictures[start : start + 7]),
            [texts[image_of == i] for i in range(start, min(start + 7, len(pictures)))],
        )
        for start in range(0, len(pictures), 7)
    ]
    return metrics.evaluate(
        Model, loader, lambda rows: torch.tensor(np.stack(rows)), "cpu", amp=False, recall_k_list=ks
    )


def assert_equal(ours, found, image_of, ks):
    images, captions = ours
    for k in ks:
        of_images = recall_row(images.rank, np.arange(len(images.rank)), k)["recall"]
        of_captions = recall_row(captions.rank, image_of, k)["recall"]
        assert np.float32(of_images) == np.float32(found[f"text_retrieval_recall@{k}"])
        assert np.float32(of_captions) == np.float32(found[f"image_retrieval_recall@{k}"])


@pytest.mark.parametrize("seed", range(3))
def test_recalls_are_clip_benchmarks(seed, monkeypatch):
    monkeypatch.setattr(ranks, "CELLS", 500)  # several blocks
    world = made(seed)
    found = theirs(*world, KS)
    assert 0 < found["text_retrieval_recall@1"] < found["image_retrieval_recall@10"] < 1
    assert_equal(both(*world), found, world[2], KS)


def test_with_ties_they_are_clip_benchmarks_of_a_stable_order(monkeypatch):
    """Whole numbers tie often and exactly; of equal ones torch.topk returns any."""
    torch = pytest.importorskip("torch")

    def topk(scores, k, dim):
        values, places = scores.sort(dim=dim, descending=True, stable=True)
        return values[:, :k], places[:, :k]

    monkeypatch.setattr(torch, "topk", topk)
    monkeypatch.setattr(torch.nn.functional, "normalize", lambda rows, dim: rows)
    rng = np.random.default_rng(0)
    image_of = np.repeat(np.arange(20), 3)
    pictures = rng.integers(-1, 2, (20, 4)).astype(np.float32)
    texts = rng.integers(-1, 2, (60, 4)).astype(np.float32)
    ours = both(pictures, texts, image_of)
    assert (ours[0].tied > 0).any() and (ours[1].tied > 0).any()
    assert_equal(ours, theirs(pictures, texts, image_of, KS), image_of, KS)


def test_a_rank_counts_who_is_before_the_best_own_one():
    searched = np.array([[0.5], [0.9], [0.7], [0.9], [0.7], [0.1]], np.float32)
    one = np.ones((1, 1), np.float32)
    for own, expected in {
        (0, 1): (5, 0, 0),
        (1, 2): (1, 1, 1),  # the first of two equal ones
        (2, 4): (2, 3, 1),  # its second caption is its best; row 1 is as similar, and before it
        (4, 6): (4, 4, 1),
        (0, 6): (1, 1, 0),
    }.items():
        found = ranks_among(one, searched, np.array([own]))
        assert tuple(int(each[0]) for each in found) == expected


def test_equal_rows_tie_whatever_is_multiplied_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    searched = unit(rng.normal(size=(301, 384)))
    searched[[7, 150, 299, 300]] = searched[3]
    queries = unit(rng.normal(size=(50, 384)))
    own = np.tile([300, 301], (50, 1))
    whole = ranks_among(queries, searched, own)
    assert (whole.tied == 4).all()
    for cells in (1, 301 * 7, 301 * 50):
        monkeypatch.setattr(ranks, "CELLS", cells)
        for mine, other in zip(whole, ranks_among(queries, searched, own), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_an_interval_is_over_images_not_over_captions():
    """Five copies of a caption tell no more than one."""
    found = np.random.default_rng(0).random(200) < 0.4
    once = recall_row(np.where(found, 1, 2), np.arange(200), 1)
    five = recall_row(np.where(found, 1, 2).repeat(5), np.arange(200).repeat(5), 1)
    assert five["n"] == 1000 and five["recall"] == once["recall"]
    assert five["ci_low"] == pytest.approx(once["ci_low"], abs=0.01)
    assert five["ci_high"] == pytest.approx(once["ci_high"], abs=0.01)
    all_found = recall_row(np.ones(10, int), np.arange(2).repeat(5), 1)
    assert all_found["ci_low"] < 0.4 and all_found["ci_high"] == 1


def test_with_a_query_an_image_the_comparison_is_mcnemars():
    rng = np.random.default_rng(1)
    mine, baseline = rng.random((2, 100)) < [[0.6], [0.5]]
    found, known = compare_found(mine, baseline, np.arange(100)), paired(mine[None], baseline[None])
    assert found["p"] == known.p and found["difference"] == pytest.approx(known.difference)
    assert (found["only_model"], found["only_baseline_model"]) == (known.only_a, known.only_b)
    assert (found["ci_low"], found["ci_high"]) == (
        pytest.approx(known.low),
        pytest.approx(known.high),
    )


def test_several_captions_of_an_image_are_one_pair_of_the_test():
    mine = np.array([1, 1, 1, 0, 1, 0], bool)
    baseline = np.array([0, 0, 1, 1, 0, 1], bool)
    found = compare_found(mine, baseline, np.array([0, 0, 0, 1, 2, 2]))
    assert (found["only_model"], found["only_baseline_model"]) == (1, 1)  # the third image: even
    assert found["n"] == 6 and found["difference"] == pytest.approx(1 / 6) and found["p"] == 1
