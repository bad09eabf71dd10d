"""Compiled loops over lists of agents: updates of one agent or one pair at a time."""

from __future__ import annotations

from krause_dynamics._compiled import njit
from krause_dynamics.forms.near.network_kernels import hears


@njit()
def move_agents(x, agents, limits, mass, fixed, bounds, heard, include_self, step):
    """Move each of ``agents`` in turn to the mean of those it hears at that moment, in place.

    Args:
        x: (n, d) opinions.
        agents: Who moves, in order.
        limits: (n,) as in `hears`.
        mass: (n,).
        fixed: (n,) who never moves.
        bounds: (n + 1,) where each agent's list in ``heard`` begins, or (1,) when all may hear all.
        heard: Lists of whom an agent may hear.
        include_self: Whether the own opinion counts.
        step: (d,) scratch.
    """
    everyone = bounds.size == 1
    for i in agents:
        if fixed[i]:
            continue
        total, step[:] = 0.0, 0.0
        first, last = (0, x.shape[0]) if everyone else (bounds[i], bounds[i + 1])
        for t in range(first, last):
            j = t if everyone else heard[t]
            if (j != i or include_self) and hears(x, i, j, limits[i]):
                total += mass[j]
                for k in range(x.shape[1]):
                    step[k] += mass[j] * (x[j, k] - x[i, k])
        if total > 0.0:
            for k in range(x.shape[1]):
                x[i, k] += step[k] / total


@njit()
def meet(x, first, second, limits, fixed, forward, backward, mu):
    """Pairs meet in turn, in place: i moves towards j where it hears j (``forward``), and j towards i likewise."""
    for t in range(first.size):
        i, j = first[t], second[t]
        to_j = forward[t] and not fixed[i] and hears(x, i, j, limits[i])
        to_i = backward[t] and not fixed[j] and hears(x, i, j, limits[j])
        for k in range(x.shape[1]):
            gap = x[j, k] - x[i, k]
            if to_j:
                x[i, k] += mu * gap
            if to_i:
                x[j, k] -= mu * gap
