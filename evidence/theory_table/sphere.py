"""Section 3: softmax attention on the sphere, simulated, against its closed forms."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def equiangular(tokens: int, similarity: float) -> np.ndarray:
    """Unit vectors (n, n) with equal inner products: rows of the Cholesky factor of their Gram matrix."""
    return np.linalg.cholesky((1.0 - similarity) * np.eye(tokens) + similarity)


def mean_cosine(x: np.ndarray) -> np.ndarray:
    """Mean inner product of pairs of different tokens, (..., n, d) -> (...)."""
    n = x.shape[-2]
    return ((x.sum(-2) ** 2).sum(-1) - n) / (n * (n - 1))


def _curve(beta: float, normalised: bool, times: list[float], tokens: int = 8, start: float = 0.1) -> np.ndarray:
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Sphere())
    run = kd.simulate(dynamics, equiangular(tokens, start), times[-1], dt=0.02, save_at=times)
    return mean_cosine(run.positions[1:])


@check(3, source="2312.10794 sec. 6", setting="n = 8, beta = 2", tolerance=1e-6)
def equiangular_sa() -> Comparison:
    """Equiangular tokens, SA."""
    times = [0.5, 1.0, 2.0, 3.0]
    return compare(theory.equiangular_similarity(times=times, start=0.1, beta=2.0, tokens=8), _curve(2.0, True, times))


@check(3, source="2312.10794 sec. 6", setting="n = 8, beta = 1.5", tolerance=1e-6)
def equiangular_usa() -> Comparison:
    """Equiangular tokens, USA."""
    times = [0.2, 0.5, 1.0]
    return compare(
        theory.equiangular_similarity(times=times, start=0.1, beta=1.5, tokens=8, normalised=False),
        _curve(1.5, False, times),
    )


def _time_to_half(beta: float, normalised: bool) -> float:
    """First time of inner product 1/2 from orthogonal tokens, by inverse interpolation of a simulated curve."""
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq

    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Sphere())

    def half_way(t: float, x: np.ndarray, previous: np.ndarray) -> str | None:
        return "half" if x[0] @ x[1] > 0.52 else None

    run = kd.simulate(dynamics, np.eye(32), 20.0, dt=0.02, stop=half_way)
    spline = CubicSpline(run.times, mean_cosine(run.positions) - 0.5)
    return float(brentq(spline, run.times[1], run.times[-1]))


@check(
    3,
    source="2312.10794 sec. 6",
    setting="n = 32 from 0; SA beta = 1, 4; USA 1",
    tolerance=1e-6,
)
def equiangular_times() -> Comparison:
    """Time to inner product 1/2."""
    cases = [(1.0, True), (4.0, True), (1.0, False)]
    predicted = [
        theory.equiangular_time(start=0.0, stop=0.5, beta=beta, tokens=32, normalised=kind) for beta, kind in cases
    ]
    return compare(predicted, [_time_to_half(beta, kind) for beta, kind in cases])


@check(3, source="derived", setting="n = 16 orthogonal, SA and USA", tolerance=1e-8)
def zero_temperature() -> Comparison:
    """Linear dynamics at beta = 0."""
    times = [0.5, 1.0, 2.0]
    predicted = theory.orthogonal_similarity_without_temperature(times=times, tokens=16)
    measured = [_curve(0.0, kind, times, tokens=16, start=0.0) for kind in (True, False)]
    return compare(np.stack([predicted, predicted]), np.stack(measured))


@check(3, source="derived", setting="SA, USA; beta = 1, n = 8", tolerance=1e-3, kind="relative")
def local_rate() -> Comparison:
    """Local rate of 1 - rho."""
    measured = []
    for normalised in (True, False):
        dynamics = kd.Dynamics(kd.softmax(1.0, normalised=normalised), kd.Sphere())
        end = 10.0 / theory.consensus_rate(1.0, normalised=normalised)
        run = kd.simulate(dynamics, equiangular(8, 0.9), end, dt=0.01, save_at=[0.8 * end, end])
        gap = np.log(np.sum((run.positions[1:, 0] - run.positions[1:, 1]) ** 2, axis=-1))
        measured.append((gap[0] - gap[1]) / (0.2 * end))
    return compare([theory.consensus_rate(1.0), theory.consensus_rate(1.0, normalised=False)], measured)


@check(
    3,
    source="2312.10794 sec. 6",
    setting="n = 32, d = 1024, beta = 1",
    tolerance=0.04,
)
def random_tokens() -> Comparison:
    """Random tokens in high dimension."""
    times = [1.0, 2.0, 3.0, 4.0]
    dynamics = kd.Dynamics(kd.softmax(1.0), kd.Sphere())
    run = kd.simulate(dynamics, kd.Sphere().sample(32, 1024, 0), 4.0, dt=0.1, save_at=times)
    return compare(
        theory.equiangular_similarity(times=times, start=0.0, beta=1.0, tokens=32), mean_cosine(run.positions[1:])
    )


@check(
    3,
    source="Markdahl; 2405.18273; 2507.22857",
    setting="d = 3: beta = 0, 1; d = 2: beta = -0.16, 1; 8 starts each, n = 16",
    tolerance=1e-6,
)
def single_cluster() -> Comparison:
    """Single cluster: final diameter."""
    diameters = []
    for d, beta in ((3, 0.0), (3, 1.0), (2, -0.16), (2, 1.0)):
        x0 = np.stack([kd.Sphere().sample(16, d, seed) for seed in range(8)])
        final = kd.simulate(kd.Dynamics(kd.softmax(beta), kd.Sphere()), x0, 60.0, dt=0.1, save_every=600).final
        diameters.append(np.max(np.linalg.norm(final - final[:, :1], axis=-1)))
    return compare(np.zeros(4), diameters)


@check(
    3,
    source="2507.22857; derived",
    setting="USA, circle, beta = -0.8, -1.5",
    tolerance=1e-5,
)
def three_clusters() -> Comparison:
    """Three clusters at 120 degrees: eigenvalue."""
    betas, measured = (-0.8, -1.5), []
    for beta in betas:
        angles = 2 * np.pi * np.arange(3) / 3 + 1e-5 * np.array([1.0, 0.0, 0.0])
        dynamics = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Circle())
        run = kd.simulate(dynamics, kd.Circle().from_angles(angles), 4.0, dt=0.02, save_at=[2.0, 4.0])
        gaps = np.diff(kd.Circle().to_angles(run.positions[1:]) % (2 * np.pi), axis=-1)[:, 0] - 2 * np.pi / 3
        measured.append(np.log(gaps[1] / gaps[0]) / 2.0)
    return compare([theory.three_cluster_eigenvalue(b) for b in betas], measured)


@check(
    3,
    source="2507.22857",
    setting="USA, circle; root of the drift's slope",
    tolerance=1e-5,
)
def three_cluster_threshold() -> Comparison:
    """Three clusters: stability changes at."""
    from scipy.optimize import brentq

    angles = 2 * np.pi * np.arange(3) / 3

    def slope(beta: float) -> float:
        dynamics = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Circle())
        rates = []
        for sign in (1.0, -1.0):
            x = kd.Circle().from_angles(angles + sign * 1e-4 * np.array([1.0, 0.0, 0.0]))
            v = dynamics.drift(0.0, x)
            rates.append(x[0, 0] * v[0, 1] - x[0, 1] * v[0, 0])
        return (rates[0] - rates[1]) / 2e-4

    return compare(-2.0 / 3.0, brentq(slope, -1.0, -0.4, xtol=1e-10))


@check(
    3,
    source="Ott & Antonsen; derived",
    setting="circle, beta = 0, Poisson kernel, r0 = 0.3",
    tolerance=1e-7,
)
def kuramoto() -> Comparison:
    """Kuramoto limit."""
    times, r0, n = [1.0, 2.0, 4.0], 0.3, 256
    level = (np.arange(n) + 0.5) / n
    # Quantiles of the Poisson kernel: a Mobius image of equal angles, so sums over them converge geometrically.
    angles = 2 * np.arctan((1 - r0) / (1 + r0) * np.tan(np.pi * (level - 0.5)))
    dynamics = kd.Dynamics(kd.softmax(0.0), kd.Circle())
    run = kd.simulate(dynamics, kd.Circle().from_angles(angles), 4.0, dt=0.05, save_at=times)
    return compare(
        theory.kuramoto_order_parameter(times=times, start=r0), np.linalg.norm(run.positions[1:].mean(1), axis=-1)
    )
