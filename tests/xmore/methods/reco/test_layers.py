"""RECO's formulas, written out slowly."""

import math

import numpy as np
import pytest
import torch
from at_random import unit
from reco_literal import fuse

from xmore.methods.reco.layers import Fusion, Reco, hits
from xmore.methods.reco.loss import alignment, info_nce

DIM, HEADS, K = 12, 3, 4


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


def shaken(module, seed=0):
    """Every weight at random: nothing is nought, or one, by chance of its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize("inference", [True, False])
def test_fusion_equals_the_layer_written_out(inference):
    rng = np.random.default_rng(0)
    fusion = shaken(Fusion(DIM, HEADS))
    query, retrieved = unit(rng, 6, DIM), unit(rng, 6, K, DIM)
    missing = np.zeros((6, K), bool)
    missing[1, 2:], missing[2] = True, True  # one with fewer neighbours, one with none
    with torch.inference_mode(inference):
        got = fusion(*tensors(query, retrieved, missing)).detach().numpy()
    whole = fusion.train().layer(
        torch.cat([torch.from_numpy(query)[:, None], torch.from_numpy(retrieved)], 1),
        src_key_padding_mask=torch.from_numpy(np.pad(missing, ((0, 0), (1, 0)))),
    )[:, 0]
    torch.testing.assert_close(
        torch.nn.functional.normalize(whole, dim=-1), torch.from_numpy(got), rtol=0, atol=1e-5
    )
    expected = [fuse(fusion.layer, *row) for row in zip(query, retrieved, missing, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_what_is_missing_plays_no_part_and_the_order_neither():
    rng = np.random.default_rng(1)
    fusion = shaken(Fusion(DIM, HEADS))
    query, retrieved = unit(rng, 3, DIM), unit(rng, 3, K, DIM)
    missing = np.zeros((3, K), bool)
    missing[:, 0] = True
    got = fusion(*tensors(query, retrieved, missing))
    retrieved[:, 0] = 7
    retrieved = np.ascontiguousarray(retrieved[:, [0, 3, 1, 2]])
    torch.testing.assert_close(fusion(*tensors(query, retrieved, missing)), got)


def test_an_untrained_layer_gives_the_query():
    rng = np.random.default_rng(2)
    query, retrieved = tensors(unit(rng, 5, DIM), unit(rng, 5, K, DIM))
    missing = torch.zeros(5, K, dtype=torch.bool)
    model = Reco(DIM, HEADS, ["image"])
    torch.testing.assert_close(model.refine("image", query, retrieved, missing), query)
    assert list(model.fusions) == ["image"]


def test_the_seed_and_nothing_else_sets_the_start():
    state = torch.random.get_rng_state()
    one, same, other = (
        Reco(DIM, HEADS, ["image", "text"], seed).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "fusions.text.layer.self_attn.in_proj_weight"
    assert not torch.equal(one[name], other[name])
    assert torch.equal(torch.random.get_rng_state(), state)


def info_nce_by_hand(a, b, scale):
    n, total = len(a), 0.0
    for i in range(n):
        for one, other in ((a, b), (b, a)):
            logits = [scale * float(one[i].astype(float) @ other[j]) for j in range(n)]
            total -= logits[i] - math.log(sum(map(math.exp, logits)))
    return total / (2 * n)


def test_the_loss_equals_its_formula():
    rng = np.random.default_rng(3)
    v, t, refined_v, refined_t = (unit(rng, 7, DIM) for _ in range(4))
    scale = torch.tensor(9.0)
    got = alignment(tuple(tensors(v, t)), tuple(tensors(refined_v, refined_t)), scale)
    expected = (
        info_nce_by_hand(refined_v, refined_t, 9)
        + info_nce_by_hand(refined_v, t, 9)
        + info_nce_by_hand(v, refined_t, 9)
    )
    assert float(got) == pytest.approx(expected, abs=1e-5)
    assert float(info_nce(*tensors(v, v), torch.tensor(1000.0))) == pytest.approx(0, abs=1e-5)


def test_hits_by_hand():
    wanted = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0, 0], [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]], np.float32)
    assert hits(queries, wanted, 1).tolist() == [True, False, False]
    assert hits(queries, wanted, 2).tolist() == [True, True, False], "a tie counts as lost"
    assert hits(queries, wanted, 3).all()
