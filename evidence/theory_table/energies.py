"""Section 2: energies and invariants along simulated runs."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def bounded_confidence_energy(x: np.ndarray, radius: float = 1.0) -> float:
    """V = sum_ij min(radius^2, |x_i - x_j|^2)."""
    return float(np.minimum(radius**2, ((x[:, None] - x[None]) ** 2).sum(-1)).sum())


def _runs(steps: int = 6):  # type: ignore[no-untyped-def]
    """Consecutive states of one run in each of d = 1, 2, 3; x <- aggregate mean, radius 1."""
    rule = kd.bounded_confidence(1.0)
    for d in (1, 2, 3):
        x = np.random.default_rng(d).uniform(0, 3, (40, d))
        for _ in range(steps):
            moved = kd.aggregate(rule, x).mean
            yield x, moved
            x = moved


@check(
    2,
    source="Roozbehani et al. 2008; 1412.6546; derived 11.1",
    setting="d = 1, 2, 3, n = 40; excess of 4 sum|dx|^2 over the decrease",
    tolerance=1e-9,
    kind="at most",
)
def energy_decrease() -> Comparison:
    """Hegselmann-Krause energy decreases by at least 4 sum |dx_i|^2."""
    decrease = [bounded_confidence_energy(a) - bounded_confidence_energy(b) for a, b in _runs()]
    return compare(decrease, [4 * np.sum((b - a) ** 2) for a, b in _runs()])


@check(2, source="derived 11.1", setting="steps in which no pair enters or leaves reach", tolerance=1e-9)
def energy_exact() -> Comparison:
    """Exact decrease sum A_ij |dx_i + dx_j|^2 while the graph is constant."""
    rule, predicted, measured = kd.bounded_confidence(1.0), [], []
    for d in (1, 2, 3):
        centres = 4.0 * np.eye(3, d)
        x = (centres[:, None] + 0.3 * np.random.default_rng(d).uniform(size=(3, 10, d))).reshape(-1, d)
        x = np.unique(x, axis=0)
        # A chain of two groups in partial reach keeps its graph while it contracts.
        moved = kd.aggregate(rule, x).mean
        before, after = (((y[:, None] - y[None]) ** 2).sum(-1) <= 1.0 for y in (x, moved))
        if (before != after).any():
            continue
        dx = moved - x
        predicted.append(np.sum(before[..., None] * (dx[:, None] + dx[None]) ** 2))
        measured.append(bounded_confidence_energy(x) - bounded_confidence_energy(moved))
    return compare(predicted, measured, f"{len(measured)} steps")


@check(
    2,
    source="computed",
    setting="V_0..V_5, d = 1, 2, 3, n = 40; loops over pairs against the sum of means and masses",
    tolerance=1e-9,
)
def energy_traces() -> Comparison:
    """Energy along seeded runs, from neighbour means and masses alone."""
    loops, moments = [], []
    rule = kd.bounded_confidence(1.0)
    for x, _ in _runs():
        n = len(x)
        values = np.concatenate([x, (x**2).sum(-1, keepdims=True)], axis=1)
        heard = kd.aggregate(rule, x, x, values)
        mass, mean, square = np.exp(heard.log_partition), heard.mean[:, :-1], heard.mean[:, -1]
        # sum_ij min(1, d^2) = n^2 - sum_i Z_i (1 - <d^2>_i) over the pairs within reach.
        near = (x**2).sum(-1) - 2 * (x * mean).sum(-1) + square
        moments.append(n * n - np.sum(mass * (1 - near)))
        loops.append(sum(min(1.0, float(np.sum((a - b) ** 2))) for a in x for b in x))
    return compare(loops, moments)


def _simpson(values: np.ndarray, dt: float) -> float:
    from scipy.integrate import simpson

    return float(simpson(values, dx=dt))


@check(
    2,
    source="2312.10794 sec. 3; derived",
    setting="n = 24, d = 3, beta = 2, t = 2; gain against the integrated dissipation",
    tolerance=1e-6,
)
def sphere_energy() -> Comparison:
    """Sphere energy under USA and SA."""
    beta, n, predicted, measured = 2.0, 24, [], []
    x0 = kd.Sphere().sample(n, 3, 0)
    for normalised in (False, True):
        dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Sphere())
        run = kd.simulate(dynamics, x0, 2.0, dt=0.01)
        affinity = np.exp(beta * run.positions @ np.swapaxes(run.positions, -1, -2))
        energy = affinity.sum((1, 2)) / (2 * beta * n**2)
        speed = np.stack([np.sum(dynamics.drift(0.0, x) ** 2, axis=-1) for x in run.positions])
        # grad_i E = (drift of USA)_i / n; under SA the drift is that of USA times n/Z_i.
        weight = affinity.sum(-1) / n if normalised else 1.0
        predicted.append(_simpson(np.sum(weight * speed, axis=1) / n, 0.01))
        measured.append(energy[-1] - energy[0])
    return compare(predicted, measured)


@check(2, source="derived", setting="relative form, n = 24, d = 2, sigma = 0.7, t = 2", tolerance=1e-6, kind="relative")
def gaussian_energy() -> Comparison:
    """Gaussian interaction energy: dF/dt = s^-2 sum Z_i |z_i'|^2."""
    sigma, dynamics = 0.7, kd.Dynamics(kd.krause(sigma=0.7))
    run = kd.simulate(dynamics, np.random.default_rng(0).normal(size=(24, 2)), 2.0, dt=0.01)
    squared = ((run.positions[:, :, None] - run.positions[:, None]) ** 2).sum(-1)
    affinity = np.exp(-squared / (2 * sigma**2))
    speed = np.stack([np.sum(dynamics.drift(0.0, x) ** 2, axis=-1) for x in run.positions])
    gain = _simpson(np.sum(affinity.sum(-1) * speed, axis=1) / sigma**2, 0.01)
    energy = 0.5 * affinity.sum((1, 2))
    return compare(gain, energy[-1] - energy[0])


@check(
    2,
    source="derived; model of Canuto, Fagnani & Tilli 2012",
    setting="smooth influence phi = (1 - r^2)_+^2, d = 2, n = 40, t = 2",
    tolerance=1e-6,
)
def unnormalised_invariants() -> Comparison:
    """Per-capita rule: constant mean, dVar/dt = -(1/N^2) sum phi |x_i - x_j|^2."""

    def influence(distance: np.ndarray) -> np.ndarray:
        return np.maximum(1 - distance**2, 0.0) ** 2

    rule = kd.Interaction(kd.Radial(influence), normalised=False)
    x0 = np.random.default_rng(3).uniform(0, 1.5, (40, 2))
    run = kd.simulate(kd.Dynamics(rule), x0, 2.0, dt=0.01)
    squared = ((run.positions[:, :, None] - run.positions[:, None]) ** 2).sum(-1)
    loss = np.mean(np.maximum(1 - squared, 0) ** 2 * squared, axis=(1, 2))
    variance = run.positions.var(axis=1).sum(-1)
    shift = np.abs(run.final.mean(0) - x0.mean(0)).max()
    return compare([0.0, -_simpson(loss, 0.01)], [shift, variance[-1] - variance[0]])


@check(2, source="exact", setting="radius above the diameter; normalised and per capita, t = 1", tolerance=1e-8)
def full_range() -> Comparison:
    """Full-range contraction Var(t) = Var(0) e^{-2t}."""
    x0 = np.random.default_rng(0).uniform(size=(50, 1))
    measured = [
        kd.simulate(kd.Dynamics(kd.bounded_confidence(2.0, normalised=kind)), x0, 1.0, dt=0.02).final.var()
        for kind in (True, False)
    ]
    return compare(theory.full_range_variance(times=1.0, start=x0.var()) * np.ones(2), measured)


@check(2, source="derived", setting="half-line of density 1, R = 1, 2000 opinions per R", tolerance=0.02)
def edge_motion() -> Comparison:
    """Edge: first speed R^2/2 (per capita), first jump R/2, densities after one step."""
    per = 2000
    x = (np.arange(4 * per)[:, None] + 0.5) / per
    near, log_mass = x[:3], np.full(len(x), -np.log(per))
    heard = kd.aggregate(kd.bounded_confidence(1.0), near, x, log_mass=log_mass)
    jump = heard.mean[0, 0] - near[0, 0]
    speed = jump * np.exp(heard.log_partition[0])
    queries = x[: int(2.5 * per)]
    moved = kd.aggregate(kd.bounded_confidence(1.0), queries, x).mean[:, 0]
    middles = [0.75, 1.5]
    densities = [np.sum(np.abs(moved - m) < 0.2) / per / 0.4 for m in middles]
    predicted = [theory.edge_speed(1.0), theory.edge_jump(1.0), *theory.density_after_one_step(middles)]
    return compare(predicted, [speed, jump, *densities])


@check(
    2,
    source="derived",
    setting="d = 2, seed 8, n = 40, radius 0.3; velocity of the mean at the start",
    tolerance=1e-12,
)
def normalised_control() -> Comparison:
    """Control: the normalised rule does not conserve the mean: it moves at sum_j x_j (sum_{i hears j} 1/N_i - 1)/n."""
    x0, dynamics = np.random.default_rng(8).uniform(size=(40, 2)), kd.Dynamics(kd.bounded_confidence(0.3))
    near = np.linalg.norm(x0[:, None] - x0, axis=-1) <= 0.3
    weight = np.sum(near / near.sum(axis=1, keepdims=True), axis=0) - 1.0
    shift = np.abs(kd.simulate(dynamics, x0, 5.0, dt=0.05, save_every=100).final.mean(0) - x0.mean(0)).max()
    return compare(weight @ x0 / 40, dynamics.drift(0.0, x0).mean(axis=0), f"moved by {shift:.3f} until t = 5")
