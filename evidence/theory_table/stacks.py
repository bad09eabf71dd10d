"""Section 10: how far a stack of causal layers looks back."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory

EQUAL = kd.Flat()
STACKS = ((12, 32, 0.95), (12, 32, 0.5), (6, 64, 0.0), (16, 256, 0.95))  # layers, window, residual


def measured_influence(layers: int, window: int, residual: float) -> np.ndarray:
    """What every token hears of one that is far enough from the start, after relaxed layers of a causal window."""
    first = window - 1
    impulse = np.zeros((first + layers * (window - 1) + 1, 1))
    impulse[first] = 1.0
    dynamics = kd.Dynamics(kd.Interaction(EQUAL, kd.Window(window)))
    step = 1.0 - residual
    # Lag d of the influence on one token is what the token d further hears of the impulse.
    run = kd.simulate(dynamics, impulse, layers * step, dt=step, integrator=kd.Euler(), save_every=layers)
    return run.final[first:, 0]


@check(10, source="derived", setting="(L, W, alpha) = (12, 32, 0.95), (6, 64, 0); all lags", tolerance=1e-12)
def stack_influence() -> Comparison:
    """Influence over lags of a stack of causal windows with residual."""
    chosen = (STACKS[0], STACKS[2])
    predicted = [theory.stack_influence(layers=n, window=w, residual=a) for n, w, a in chosen]
    return compare(np.concatenate(predicted), np.concatenate([measured_influence(*s) for s in chosen]))


@check(
    10,
    source="derived",
    setting="(L, W, alpha) = (12, 32, 0.95), (12, 32, 0.5), (6, 64, 0), (16, 256, 0.95)",
    tolerance=1e-9,
    kind="relative",
)
def stack_reach() -> Comparison:
    """Mean lag and deviation of a stack of causal windows."""
    predicted, measured = [], []
    for layers, window, residual in STACKS:
        reach = theory.stack_reach(layers=layers, window=window, residual=residual)
        law = measured_influence(layers, window, residual)
        mean = law @ np.arange(len(law))
        predicted += [reach.mean, reach.deviation, reach.horizon]
        measured += [mean, np.sqrt(law @ (np.arange(len(law)) - mean) ** 2), np.flatnonzero(law)[-1]]
    reach = theory.stack_reach(layers=12, window=32, residual=0.95)
    return compare(predicted, measured, f"{reach.mean:.1f} +- {reach.deviation:.1f} tokens for the first")


@check(
    10,
    source="2603.10123; 2602.16837",
    setting="H = 4 layers, 2000 and 4000 tokens, Richardson; x = 0.05, 0.2, 0.5, 0.8",
    tolerance=1e-4,
    kind="relative",
)
def lost_at_birth() -> Comparison:
    """Lost in the middle at birth: influence log(1/x)^{H-1}/(H-1)! of causal layers with equal weights."""
    return _causal_influence(4000, 4, 0.0)


@check(
    10,
    source="derived; setting of 2603.10123",
    setting="H = 4, residual 0.5, as above, and the last token's own share",
    tolerance=1e-4,
    kind="relative",
)
def lost_at_birth_with_residual() -> Comparison:
    """Lost in the middle at birth: with a residual the last token keeps an atom, and the profile is a U."""
    return _causal_influence(4000, 4, 0.5)


def _causal_influence(tokens: int, layers: int, residual: float) -> Comparison:
    places = np.array([0.05, 0.2, 0.5, 0.8])
    coarse, fine = (_heard_by_last(n, places, layers, residual) for n in (tokens // 2, tokens))
    density, own = theory.causal_influence(positions=places, layers=layers, residual=residual)
    predicted = density if residual == 0.0 else [*density, own]
    return compare(predicted, (2.0 * fine - coarse)[: len(predicted)])  # the difference is of the order of 1/n


def _heard_by_last(tokens: int, places: np.ndarray, layers: int, residual: float) -> np.ndarray:
    """What the last token hears of others, per length, and of itself."""
    index = np.append((places * tokens).astype(int), tokens - 1)
    impulses = np.zeros((tokens, len(index)))
    impulses[index, np.arange(len(index))] = 1.0
    dynamics = kd.Dynamics(kd.Interaction(EQUAL, kd.Causal()))
    step = 1.0 - residual
    run = kd.simulate(dynamics, impulses, layers * step, dt=step, integrator=kd.Euler(), save_every=layers)
    return run.final[-1] * [*np.full(len(places), tokens), 1.0]
