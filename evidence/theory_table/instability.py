"""Section 4: instability of the uniform law and mode selection."""

from __future__ import annotations

import math

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def measured_growth(degree: int, beta: float, *, normalised: bool = True, cells: int = 512) -> float:
    """Growth rate of a cosine on the uniform law of the circle, from the drift of a grid of weighted tokens.

    The drift is linear in the perturbation up to eta^2; sums over a uniform grid are exact for smooth fields.
    """
    eta = 1e-5
    angle = 2 * np.pi * np.arange(cells) / cells
    x = kd.Circle().from_angles(angle)
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Circle())
    amplitude = []
    for sign in (1.0, -1.0):
        v = dynamics.drift(0.0, x, np.log((1 + sign * eta * np.cos(degree * angle)) / cells))
        speed = x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]
        amplitude.append(2 * np.mean(speed * np.sin(degree * angle)))
    return -degree * (amplitude[0] - amplitude[1]) / (2 * eta)


def measured_zonal_growth(degree: int, beta: float) -> float:
    """Growth rate of a Legendre mode on the uniform law of S^2: Gauss latitudes, 48 equal longitudes per ring."""
    from numpy.polynomial import legendre

    eta, rings = 1e-5, 48
    height, weight = legendre.leggauss(40)
    longitude = 2 * np.pi * np.arange(rings) / rings
    mode = legendre.Legendre.basis(degree)
    ring = np.sqrt(1 - height**2)
    sources = np.stack(
        [np.outer(ring, np.cos(longitude)), np.outer(ring, np.sin(longitude)), np.outer(height, np.ones(rings))], -1
    ).reshape(-1, 3)
    queries = np.stack([ring, np.zeros_like(ring), height], -1)
    amplitude = []
    for sign in (1.0, -1.0):
        mass = np.repeat(weight * (1 + sign * eta * mode(height)) / (2 * rings), rings)
        pull = kd.aggregate(kd.softmax(beta), queries, sources, log_mass=np.log(mass)).mean
        # The velocity along the meridian, times sin(colatitude): d(height)/dt.
        climb = pull[:, 2] - (pull * queries).sum(-1) * height
        amplitude.append(np.sum(weight * climb * mode.deriv()(height)) * (2 * degree + 1) / 2)
    return float((amplitude[0] - amplitude[1]) / (2 * eta))


@check(
    4,
    source="derived; 2410.23228",
    setting="SA, USA; beta = 4; l = 1..6",
    tolerance=1e-4,
    kind="relative",
)
def growth_circle() -> Comparison:
    """Growth of degree l, circle."""
    degrees = np.arange(1, 7)
    predicted = [theory.mode_growth(degree=degrees, beta=4.0, dimension=2, normalised=kind) for kind in (True, False)]
    measured = [[measured_growth(int(l), 4.0, normalised=kind) for l in degrees] for kind in (True, False)]
    return compare(np.stack(predicted), measured)


@check(
    4,
    source="derived; 2410.23228",
    setting="SA; d = 3, beta = 3; l = 1..4",
    tolerance=1e-4,
    kind="relative",
)
def growth_sphere() -> Comparison:
    """Growth of degree l, sphere."""
    degrees = np.arange(1, 5)
    return compare(
        theory.mode_growth(degree=degrees, beta=3.0, dimension=3), [measured_zonal_growth(int(l), 3.0) for l in degrees]
    )


@check(4, source="2410.23228", setting="circle; beta = 1, 2, 5, 10, 20, 50", tolerance=0.0)
def winning_mode() -> Comparison:
    """Winning mode."""
    betas = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
    measured = []
    for beta in betas:
        rates = [measured_growth(l, beta, cells=256) for l in range(1, 16)]
        measured.append(1 + int(np.argmax(rates)))
    return compare([theory.winning_mode(beta=beta) for beta in betas], measured)


@check(4, source="derived", setting="circle, l = 1, 2, 3; sphere, l = 1", tolerance=1e-6)
def switching() -> Comparison:
    """Switching values of beta."""
    from scipy.optimize import brentq

    def balance(growth, degree: int, guess: float) -> float:  # type: ignore[no-untyped-def]
        return brentq(lambda b: growth(degree + 1, b) / growth(degree, b) - 1, 0.9 * guess, 1.1 * guess, xtol=1e-9)

    def circle(degree: int, beta: float) -> float:
        return measured_growth(degree, beta, cells=128)

    predicted = [theory.switching_beta(degree=l) for l in (1, 2, 3)] + [theory.switching_beta(degree=1, dimension=3)]
    measured = [balance(circle, l, p) for l, p in zip((1, 2, 3), predicted, strict=False)]
    return compare(predicted, [*measured, balance(measured_zonal_growth, 1, predicted[3])])


@check(
    4,
    source="derived",
    setting="circle; Richardson from beta = 400, 800",
    tolerance=1e-4,
    kind="relative",
)
def large_beta() -> Comparison:
    """Large beta: best rate of SA tends to 2/e."""
    best = []
    for beta in (400.0, 800.0):
        # The winner is searched over real degrees: the maximum of a parabola through the three rates around it.
        l = int(round(float(theory.large_beta_mode(beta))))
        rates = np.array([measured_growth(k, beta, cells=1024) for k in (l - 1, l, l + 1)])
        curvature, slope = rates[0] - 2 * rates[1] + rates[2], (rates[2] - rates[0]) / 2
        best.append(rates[1] - slope**2 / (2 * curvature))
    # The correction is O(1/beta).
    return compare(
        2.0 / math.e, 2 * best[1] - best[0], f"winner {l} against sqrt(2 beta) = {theory.large_beta_mode(800.0):.1f}"
    )
