"""Section 4: noisy attention, from the drift and from stationary laws, on the circle and on the sphere of R^3."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


class Zonal(NamedTuple):
    """A quadrature for laws that depend on the height u = <x, e_1>: one query per latitude, the sources of its ring."""

    queries: np.ndarray
    sources: np.ndarray
    weight: np.ndarray
    ring: int

    @property
    def height(self) -> np.ndarray:
        """Height of each latitude."""
        return self.queries[:, 0]

    def field(self, beta: float, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Integrals of e^{beta <x, y>} and of e^{beta <x, y>} y over the law, at the queries."""
        log_mass = np.log(np.repeat(mass / self.ring, self.ring))
        heard = kd.aggregate(kd.softmax(beta, normalised=False), self.queries, self.sources, log_mass=log_mass)
        partition = np.exp(heard.log_partition)
        return partition, partition[:, None] * heard.mean


def zonal(dimension: int) -> Zonal:
    """Equal angles on the circle (d = 2); Gauss latitudes with 32 equal longitudes each (d = 3)."""
    if dimension == 2:
        points = kd.Circle().from_angles(2 * np.pi * np.arange(64) / 64)
        return Zonal(points, points, np.full(64, 1 / 64), 1)
    height, weight = np.polynomial.legendre.leggauss(24)
    longitude = 2 * np.pi * np.arange(32) / 32
    radius = np.sqrt(1 - height**2)[:, None]
    rings = np.broadcast_arrays(height[:, None], radius * np.cos(longitude), radius * np.sin(longitude))
    sources = np.stack(rings, axis=-1)
    return Zonal(sources[:, 0], sources.reshape(-1, 3), weight / 2, 32)


def threshold_from_drift(beta: float, dimension: int) -> float:
    """K at which USA amplifies degree 1 as fast as sqrt(2) dB damps it (rate d - 1), from one evaluation of the drift.

    The drift of USA is linear in the masses, so that no small amplitude is needed.
    """
    grid, amplitude = zonal(dimension), 0.5
    _, pull = grid.field(beta, grid.weight * (1 + amplitude * grid.height))
    climb = pull[:, 0] - (pull * grid.queries).sum(-1) * grid.height
    return (dimension - 1) * amplitude / (dimension * float(grid.weight @ climb))


def coupling_of_branch(order: float, beta: float, dimension: int) -> float:
    """K at which noisy USA has a stationary law exp(K W*f) with given mean height, by fixed-point iteration."""
    grid, coupling = zonal(dimension), theory.linear_threshold(beta=beta, dimension=dimension)
    mass = grid.weight * (1 + dimension * order * grid.height)
    for _ in range(200):
        potential = grid.field(beta, mass)[0] / beta
        updated = grid.weight * np.exp(coupling * (potential - potential.mean()))
        updated /= updated.sum()
        found = float(updated @ grid.height)
        coupling *= 1 + 0.5 * (order / found - 1)
        # Hold the order parameter, let the higher moments relax.
        mass = updated * (1 + dimension * (order - found) * grid.height)
        mass /= mass.sum()
        if abs(found / order - 1) < 1e-13:
            break
    return coupling


@check(4, source="2606.05140; derived", setting="d = 2, 3; beta = 1, 3", tolerance=1e-8, kind="relative")
def linear_threshold() -> Comparison:
    """Noisy USA: linear threshold K_lin."""
    cases = [(beta, d) for d in (2, 3) for beta in (1.0, 3.0)]
    return compare(
        [theory.linear_threshold(beta=beta, dimension=d) for beta, d in cases],
        [threshold_from_drift(*case) for case in cases],
    )


@check(
    4,
    source="2604.16288; 2606.05140",
    setting="d = 2, 3; curvature of the stationary branch K(r) at r -> 0",
    tolerance=1e-6,
    kind="relative",
)
def transition_order() -> Comparison:
    """Noisy USA: the transition is continuous up to beta*."""
    from scipy.optimize import brentq

    def curvature(beta: float, dimension: int) -> float:
        # K(r) = K_lin (1 + c r^2 + e r^4): c from three couplings, r = 0 included.
        small, large, threshold = 0.02, 0.04, theory.linear_threshold(beta=beta, dimension=dimension)
        first, second = (coupling_of_branch(r, beta, dimension) / threshold - 1 for r in (small, large))
        return (4 * first / small**2 - second / large**2) / 3

    predicted = [theory.transition_order_threshold(d) for d in (2, 3)]
    measured = [
        brentq(curvature, 0.9 * p, 1.1 * p, args=(d,), xtol=1e-8) for d, p in zip((2, 3), predicted, strict=True)
    ]
    return compare(predicted, measured)
