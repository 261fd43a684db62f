"""RECO's transformer layer written out, slowly: what tests hold xmore/reco.py against."""

import math

import numpy as np


def fuse(layer, query, retrieved, missing):
    """One query, (D,), over [query, the (K, D) retrieved that are not missing], in float64."""
    weights = {name: value.double().numpy() for name, value in layer.state_dict().items()}
    heads, dim = layer.self_attn.num_heads, len(query)
    tokens = [query.astype(np.float64)]
    tokens += [row.astype(np.float64) for row, no in zip(retrieved, missing, strict=True) if not no]

    def norm(x, name):
        centred = x - x.mean()
        scaled = centred / math.sqrt((centred**2).mean() + 1e-5)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name, sign="."):
        return weights[f"{name}{sign}weight"] @ x + weights[f"{name}{sign}bias"]

    projected = [linear(norm(token, "norm1"), "self_attn.in_proj", "_") for token in tokens]
    width, attended = dim // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        asked = projected[0][:dim][part]
        logits = [asked @ row[dim : 2 * dim][part] / math.sqrt(width) for row in projected]
        shares = [math.exp(x) / sum(map(math.exp, logits)) for x in logits]
        values = [row[2 * dim :][part] for row in projected]
        attended.append(sum(share * value for share, value in zip(shares, values, strict=True)))
    x = tokens[0] + linear(np.concatenate(attended), "self_attn.out_proj")
    inner = linear(norm(x, "norm2"), "linear1")
    x = x + linear(np.array([z * (1 + math.erf(z / math.sqrt(2))) / 2 for z in inner]), "linear2")
    return x / np.linalg.norm(x)
