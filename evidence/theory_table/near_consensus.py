"""Section 8: Krause attention near consensus."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def layer_of(rule: kd.Interaction, x: np.ndarray, step: float) -> np.ndarray:
    """One relaxed layer, x + step (A - x)."""
    return x + step * (kd.aggregate(rule, x).mean - x)


def slowest_factor(rule: kd.Interaction, tokens: int, layers: int, step: float = 1.0) -> float:
    """Factor per layer of the deviation from consensus, after ``layers`` relaxed layers from a tiny random cloud."""
    x = 1e-4 * np.random.default_rng(0).normal(size=(tokens, 1))
    sizes = []
    for _ in range(layers + 1):
        # The rule is invariant under translation, so the deviation can be re-centred and enlarged after every layer.
        x = x - x[0]
        sizes.append(np.linalg.norm(x))
        x = layer_of(rule, x / sizes[-1] * 1e-4, step)
    return float(sizes[-1] / 1e-4)


@check(
    8,
    source="derived",
    setting="n = 24, tau = 0.3; continuous t = 4..6",
    tolerance=1e-3,
)
def dense_rate() -> Comparison:
    """Dense Gaussian rule: rate 1, factor 1 - tau."""
    factor = slowest_factor(kd.krause(sigma=1.0), 24, 30, step=0.3)
    x0 = 1e-2 * np.random.default_rng(0).normal(size=(24, 2))
    run = kd.simulate(kd.Dynamics(kd.krause(sigma=1.0)), x0, 6.0, dt=0.1, save_at=[4.0, 6.0])
    sizes = np.linalg.norm(run.positions[1:] - run.positions[1:].mean(1, keepdims=True), axis=(1, 2))
    return compare([theory.layer_factor(0.0, step=0.3), 1.0], [factor, np.log(sizes[0] / sizes[1]) / 2.0])


@check(8, source="derived", setting="n = 24, w = 3", tolerance=1e-3)
def ring_window() -> Comparison:
    """Ring window: second eigenvalue."""
    rule = kd.krause(sigma=1.0, neighbourhood=kd.Window(7, two_sided=True, periodic=True))
    return compare(theory.ring_eigenvalues(tokens=24, window=7)[1], slowest_factor(rule, 24, 400))


@check(8, source="computed", setting="n = 24, w = 3", tolerance=1e-9)
def band_window() -> Comparison:
    """Band window: second eigenvalue."""
    rule = kd.krause(sigma=1.0, neighbourhood=kd.Window(7, two_sided=True))
    spectrum = np.linalg.eigvals(kd.weights(rule, np.zeros((24, 1))))
    return compare(theory.band_eigenvalues(tokens=24, window=7)[1], np.sort(spectrum.real)[-2])


@check(
    8,
    source="derived",
    setting="n = 20, w = 4 and all; weights at consensus",
    tolerance=1e-12,
)
def causal_window_spectrum() -> Comparison:
    """Causal and causal window: spectrum 1/min(i, w)."""
    predicted, measured = [], []
    for window, support in ((4, kd.Window(4)), (None, kd.Causal())):
        predicted.append(theory.causal_layer_factors(20, window=window))
        measured.append(np.diagonal(kd.weights(kd.krause(sigma=1.0, neighbourhood=support), np.zeros((20, 1)))))
    return compare(predicted, measured)


@check(8, source="derived", setting="n = 20, tau = 0.5; w = 4 and all", tolerance=1e-3)
def causal_factor() -> Comparison:
    """Causal: slowest factor 1 - tau/2."""
    measured = [
        slowest_factor(kd.krause(sigma=1.0, neighbourhood=support), 20, 600, step=0.5)
        for support in (kd.Window(4), kd.Causal())
    ]
    return compare([theory.causal_layer_factors(20, window=w, step=0.5)[1:].max() for w in (4, None)], measured)


_MASKS = ((8, "cross", 1, "manhattan"), (14, "square", 2, "chebyshev"))


@check(
    8,
    source="public code of 2602.11534",
    setting="8 x 8 cross + CLS; 14 x 14, 5 x 5 + CLS",
    tolerance=0.0,
)
def vit_pairs() -> Comparison:
    """ViT masks: allowed pairs."""
    predicted, measured = [], []
    for side, pattern, radius, metric in _MASKS:
        predicted.append(theory.vit_allowed_pairs(height=side, width=side, pattern=pattern, radius=radius))  # type: ignore[arg-type]
        grid = kd.Grid(side, side, radius, metric=metric, prefix=1)  # type: ignore[arg-type]
        measured.append(np.sum(kd.weights(kd.krause(1.0, grid), np.zeros((side**2 + 1, 1))) > 0))
    return compare(predicted, measured)


@check(
    8,
    source="public code of 2602.11534",
    setting="the same masks, equal scores",
    tolerance=1e-9,
)
def vit_eigenvalue() -> Comparison:
    """ViT masks: second eigenvalue."""
    predicted, measured = [], []
    for side, pattern, radius, metric in _MASKS:
        predicted.append(theory.vit_eigenvalues(height=side, width=side, pattern=pattern, radius=radius)[1])  # type: ignore[arg-type]
        grid = kd.Grid(side, side, radius, metric=metric, prefix=1)  # type: ignore[arg-type]
        matrix = kd.weights(kd.krause(1.0, grid), np.zeros((side**2 + 1, 1)))
        measured.append(np.sort(np.linalg.eigvals(matrix).real)[-2])
    return compare(predicted, measured)


@check(
    8,
    source="exact",
    setting="two groups, together and alone; t = 5",
    tolerance=1e-13,
)
def independence() -> Comparison:
    """Independence beyond the truncation radius."""
    rng = np.random.default_rng(1)
    left, right = rng.uniform(0, 1, (10, 2)), 5 + rng.uniform(0, 1, (10, 2))
    dynamics = kd.Dynamics(kd.krause(sigma=0.5, neighbourhood=kd.Within(1.5)))
    together = kd.simulate(dynamics, np.concatenate([left, right]), 5.0, save_every=100).final
    alone = np.concatenate([kd.simulate(dynamics, group, 5.0, save_every=100).final for group in (left, right)])
    return compare(0.0, np.abs(together - alone).max())
