"""The interaction as triple loops over Python floats: slow, short, and written without looking at the package."""

from __future__ import annotations

import math

import numpy as np


def aggregate(score, admits, queries, sources, values, log_mass=None, top_k=None, ties="index", pair_bias=None):
    """score(x, y) -> float, admits(i, j, x, y) -> bool; arrays (n, d), (m, d), (m, e). Returns mean, log Z, weights."""
    n, m = len(queries), len(sources)
    mean, log_z, weights = np.zeros((n, values.shape[1])), np.full(n, -np.inf), np.zeros((n, m))
    for i in range(n):
        scores = {}
        for j in range(m):
            if (log_mass is None or log_mass[j] > -np.inf) and admits(i, j, queries[i], sources[j]):
                scores[j] = score(queries[i], sources[j]) + (0.0 if pair_bias is None else pair_bias[i, j])
        if top_k is not None and len(scores) > top_k:
            ranked = sorted(scores, key=lambda j: (-scores[j], j))
            last = scores[ranked[top_k - 1]]
            scores = {j: scores[j] for j in ranked if (j in ranked[:top_k] if ties == "index" else scores[j] >= last)}
        if not scores:
            continue
        logs = {j: s + (0.0 if log_mass is None else log_mass[j]) for j, s in scores.items()}
        top = max(logs.values())
        total = math.fsum(math.exp(v - top) for v in logs.values())
        log_z[i] = top + math.log(total)
        for j, v in logs.items():
            weights[i, j] = math.exp(v - top) / total
        for axis in range(values.shape[1]):
            mean[i, axis] = math.fsum(weights[i, j] * values[j, axis] for j in logs)
    return mean, log_z, weights


def dot(beta):
    return lambda x, y: beta * math.fsum(float(a) * float(b) for a, b in zip(x, y, strict=True))


def gaussian(sigma):
    return lambda x, y: -math.fsum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)) / (2 * sigma**2)


def flat(x, y):
    return 0.0


def distance(x, y):
    return math.sqrt(math.fsum((float(a) - float(b)) ** 2 for a, b in zip(x, y, strict=True)))
