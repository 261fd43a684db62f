"""TIP-X as its formulas say it, slowly: what tests hold xmore/methods/tip_x.py against."""

import math

import numpy as np


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def literal(query, memory, texts, tau, out=(), look=None):
    """One image: each key, each class, one after the other.

    `out` are rows that are no keys; only the `look` nearest to a text are looked at.
    """
    f, texts = query.astype(np.float64), texts.astype(np.float64)
    keys = []
    for c, text in enumerate(texts):
        ranked = sorted(range(len(memory)), key=lambda j: (-round(float(text @ memory[j]), 6), j))
        nearest = [j for j in ranked[:look] if j not in out]
        keys += [(c, memory[j]) for j in nearest[:16]]

    def spread(x):
        return softmax([float(x @ text) / 0.5 for text in texts])

    logits = [tau * float(f @ text) for text in texts]
    if not keys:
        return softmax(logits)
    near = [float(f @ key) for _, key in keys]
    mine = spread(f)
    far = []
    for _, key in keys:
        theirs = spread(key)
        far.append(sum(p * math.log(p / q) for p, q in zip(mine, theirs, strict=True)))
    for (c, _), a, kl in zip(keys, near, far, strict=True):
        share = (kl - min(far)) / (max(far) - min(far)) if max(far) > min(far) else 0.0
        scaled = share * (max(near) - min(near)) + min(near)
        logits[c] += 1.17 * math.exp(-1.0 * (1 - a)) - 1.0 * scaled
    return softmax(logits)
