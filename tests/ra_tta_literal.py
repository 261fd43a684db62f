"""RA-TTA as its formulas say it, slowly: what tests hold xmore/methods/ra_tta/ against."""

import math

import numpy as np


def softmax(values):
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def unit_mean(rows):
    total = sum(row.astype(np.float64) for row in rows)
    return total / math.sqrt(float(total @ total))


def quantile(values, q):
    """Between the two nearest values, linearly."""
    ranked, place = sorted(values), q * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])


def transported(a, b, cost):
    """The cost of Sinkhorn's plan: reg 0.1, at most 100 iterations; each tenth looks for 1e-2."""
    kernel = [[math.exp(-c / 0.1) for c in row] for row in cost]
    u = [1 / len(a)] * len(a)
    v = [1 / len(b)] * len(b)
    for step in range(100):
        columns = [sum(kernel[i][j] * u[i] for i in range(len(a))) for j in range(len(b))]
        v = [b[j] / columns[j] for j in range(len(b))]
        u = [a[i] / sum(kernel[i][j] * v[j] for j in range(len(b))) for i in range(len(a))]
        if step % 10 == 0:
            found = [sum(u[i] * kernel[i][j] * v[j] for i in range(len(a))) for j in range(len(b))]
            if math.sqrt(sum((f - x) ** 2 for f, x in zip(found, b, strict=True))) < 1e-2:
                break
    return sum(
        u[i] * kernel[i][j] * v[j] * cost[i][j] for i in range(len(a)) for j in range(len(b))
    )


def literal(views, described, classes, memory, tau, q=0.75, out=(), kept=None):
    """One image: (V, D) views, the clean one first, against each description, one after the other.

    `described` are each class's descriptions, rows of unit length; `classes` the rows of W. `out`
    are the rows of the memory that are not retrieved. To a list `kept` go the labels that are kept.
    """
    views = views.astype(np.float64)
    mine = softmax([tau * float(views[0] @ w) for w in classes.astype(np.float64)])
    flat = [(label, row.astype(np.float64)) for label, rows in enumerate(described) for row in rows]
    s = [quantile([float(view @ row) for view in views], q) for _, row in flat]
    top = sorted(range(len(flat)), key=lambda j: (-round(s[j], 6), j))[:20]
    groups = {label: [flat[j][1] for j in top if flat[j][0] == label] for label, _ in flat}
    groups = {label: rows for label, rows in groups.items() if len(rows) >= 5}
    if kept is not None:
        kept += groups
    allowed = [j for j in range(len(memory)) if j not in out]
    if not groups or not allowed:
        return np.array(mine)
    everywhere = unit_mean([row for rows in groups.values() for row in rows])
    a = softmax([tau * float(view @ everywhere) for view in views])
    relevance = {}
    for label, rows in groups.items():
        prototype = unit_mean(rows)
        near = sorted(allowed, key=lambda j: (-round(float(memory[j] @ prototype), 6), j))[:20]
        retrieved = [memory[j] for j in near]
        b = softmax([tau * float(r @ prototype) for r in retrieved])
        cost = [
            [abs(float(view @ prototype) - float(r @ prototype)) for r in retrieved]
            for view in views
        ]
        relevance[label] = tau / (transported(a, b, cost) + 1)
    theirs = [0.0] * len(classes)
    for label, value in zip(relevance, softmax(list(relevance.values())), strict=True):
        theirs[label] = value
    h_mine = -sum(p * math.log(p) for p in mine if p > 0)
    h_theirs = -sum(p * math.log(p + 1e-7) for p in theirs)
    weights = [math.exp(1 / (1 + h)) for h in (h_mine, h_theirs)]
    lam = weights[0] / sum(weights)
    return np.array([lam * p + (1 - lam) * r for p, r in zip(mine, theirs, strict=True)])
