"""TDA as its formulas read, a query at a time, in float64: what the stages are compared with.

Written from the description of the public code (Karmanov et al. 2024) alone.
"""

import math

import numpy as np


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def entropy(p: np.ndarray) -> float:
    return float(-sum(x * math.log(x) for x in p.tolist() if x > 0))


def one_view(v: np.ndarray, texts: np.ndarray, tau: float):
    """An image -> its v, z, H and p."""
    z = tau * texts @ v
    return v, z, entropy(softmax(z)), softmax(z)


def of_views(views: np.ndarray, texts: np.ndarray, tau: float, keep: int):
    """The `keep` augmented views of lowest entropy -> v, z, H and p."""
    logits = [tau * texts @ view for view in views]
    entropies = [entropy(softmax(z)) for z in logits]
    best = sorted(range(len(views)), key=lambda i: entropies[i])[:keep]
    p = np.mean([softmax(logits[i]) for i in best], axis=0)
    v, z = (np.mean([each[i] for i in best], axis=0) for each in (views, logits))
    return v, z, entropy(p), p


def stream(seen, settings) -> list[np.ndarray]:
    """The answers (z') of queries in stream order; `seen` has each one's (v, z, H, p).

    `settings` are alpha and beta of the positive cache, then of the negative one.
    """
    alpha_p, beta_p, alpha_n, beta_n = settings
    positive: dict[int, list] = {}
    negative: dict[int, list] = {}
    answers = []
    for v, z, h, p in seen:
        c = int(np.argmax(z))
        offer(positive, c, (h, v, p), 3)
        if 0.2 < h / math.log2(len(z)) < 0.5:
            offer(negative, c, (h, v, p), 2)
        answer = z.copy()
        for label, items in positive.items():
            for _, key, _ in items:
                answer[label] += alpha_p * math.exp(-beta_p * (1 - float(v @ key)))
        for items in negative.values():
            for _, key, theirs in items:
                mask = (theirs > 0.03) & (theirs < 1.0)
                answer -= alpha_n * math.exp(-beta_n * (1 - float(v @ key))) * mask
        answers.append(answer)
    return answers


def offer(cache: dict[int, list], c: int, item: tuple, size: int) -> None:
    items = cache.setdefault(c, [])
    if len(items) < size:
        items.append(item)
    elif item[0] < items[-1][0]:
        items[-1] = item
    items.sort(key=lambda each: each[0])  # stable
