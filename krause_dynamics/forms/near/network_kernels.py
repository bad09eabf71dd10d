"""Compiled means over lists of links."""

from __future__ import annotations

from krause_dynamics._compiled import njit


@njit(inline="always")
def hears(x, i, j, limit):
    """Whether j is in i's ball: the distance in one dimension, its square in more, coordinates in order."""
    if x.shape[1] == 1:
        return abs(x[i, 0] - x[j, 0]) <= limit
    square = 0.0
    for k in range(x.shape[1]):
        square += (x[i, k] - x[j, k]) * (x[i, k] - x[j, k])
    return square <= limit


@njit()
def network_means(x, limits, mass, bounds, heard, mean, total):
    """Means (n, d) and masses (n,) of those on each agent's list who are in its ball.

    Args:
        x: (n, d) positions.
        limits: (n,) as in `hears`.
        mass: (n,).
        bounds: (n + 1,) where each agent's list in ``heard`` begins.
        heard: Lists of whom an agent may hear.
        mean: (n, d), written; 0 where nobody is heard.
        total: (n,), written.
    """
    for i in range(x.shape[0]):
        total[i], mean[i, :] = 0.0, 0.0
        for t in range(bounds[i], bounds[i + 1]):
            j = heard[t]
            if hears(x, i, j, limits[i]):
                total[i] += mass[j]
                for k in range(x.shape[1]):
                    mean[i, k] += mass[j] * (x[j, k] - x[i, k])
        for k in range(x.shape[1]):
            mean[i, k] = x[i, k] + mean[i, k] / total[i] if total[i] > 0.0 else 0.0
