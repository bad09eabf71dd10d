"""Section 3: polygons under value matrices that turn: their spectrum, and which starts end in them."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def turning(turn: float, beta: float, normalised: bool = True) -> kd.Dynamics:
    """Attention on the circle with V = rotation by ``turn``."""
    value = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Circle(), value=value)


def _speeds(dynamics: kd.Dynamics, angle: np.ndarray) -> np.ndarray:
    x = kd.Circle().from_angles(angle)
    v = dynamics.drift(0.0, x)
    return x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]


@check(
    3,
    source="polygons of 2511.11553; rates derived",
    setting="(n, beta, turn) = (3, 1, 0), (3, -1.5, 0.5), (5, 2, pi), (8, 4, pi/2), (6, 3, 2); SA, USA; by differences",
    tolerance=1e-7,
)
def polygon_spectrum() -> Comparison:
    """Polygons under a value matrix that turns: speed, and growth and frequency of every mode."""
    predicted, measured, eta = [], [], 1e-5
    for n, beta, turn in ((3, 1.0, 0.0), (3, -1.5, 0.5), (5, 2.0, np.pi), (8, 4.0, 0.5 * np.pi), (6, 3.0, 2.0)):
        for normalised in (True, False):
            rates = theory.polygon_rates(tokens=n, beta=beta, turn=turn, normalised=normalised)
            dynamics, base = turning(turn, beta, normalised), 2.0 * np.pi * np.arange(n) / n
            moved = [_speeds(dynamics, base + sign * eta * np.eye(n)) for sign in (1.0, -1.0)]
            found = np.linalg.eigvals((moved[0] - moved[1]).T / (2.0 * eta))
            expected = np.append(rates.modes, 0.0)
            predicted += [rates.speed, *np.sort(expected.real), *np.sort(expected.imag)]
            measured += [_speeds(dynamics, base)[0], *np.sort(found.real), *np.sort(found.imag)]
    return compare(predicted, measured)


def _ends(tokens: int, beta: float, turn: float, starts: int = 80) -> tuple[float, float]:
    """Shares of random starts that end in consensus and in a regular polygon, USA."""
    angle = np.random.default_rng(16).uniform(0.0, 2.0 * np.pi, (starts, tokens))
    dynamics = turning(turn, beta, normalised=False)
    final = kd.simulate(dynamics, kd.Circle().from_angles(angle), 120.0, dt=0.1, save_every=1200).final
    place = np.sort(kd.Circle().to_angles(final) % (2.0 * np.pi), axis=-1)
    gaps = np.diff(np.concatenate([place, place[:, :1] + 2.0 * np.pi], axis=-1), axis=-1)
    regular = np.abs(gaps - 2.0 * np.pi / tokens).max(axis=-1) < 1e-2
    return float(np.mean(gaps.max(axis=-1) > 2.0 * np.pi - 1e-2)), float(np.mean(regular))


@check(
    3,
    source="2511.11553 (multistability, symmetric and skew V); attractors derived",
    setting="USA, beta = 1, 80 starts: consensus and triangles at turn = 1, pi/2, 2.2; polygons of 4, 5, 6 at V = -I",
    tolerance=0.0,
    slow=True,
)
def polygon_basins() -> Comparison:
    """Basins of polygons: all starts or none, as consensus attracts for cos(turn) > 0, triangles for cos(turn) < 0."""
    predicted, measured = [], []
    for turn in (1.0, 0.5 * np.pi, 2.2):
        value = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        meets = theory.consensus_attraction(position=np.array([1.0, 0.0]), value=value) > 1e-12
        holds = theory.polygon_rates(tokens=3, beta=1.0, turn=turn, normalised=False).modes.real.max() < -1e-12
        predicted += [float(meets), float(holds)]
        measured += list(_ends(3, 1.0, turn))
    for n in (4, 5, 6):
        holds = theory.polygon_rates(tokens=n, beta=1.0, turn=np.pi, normalised=False).modes.real.max() < 0.0
        predicted.append(float(holds))
        measured.append(_ends(n, 1.0, np.pi)[1])
    return compare(predicted, measured)


@check(
    3,
    source="2511.11553 (multistability); 2507.22857 (beta < -2/3)",
    setting="USA, beta = -1.5, turn = 0.5, 80 starts: do both attract, do both have a basin, together all",
    tolerance=0.0,
)
def two_basins() -> Comparison:
    """Multistability: below beta = -2/3 consensus and triangles share the starts."""
    consensus, triangles = _ends(3, -1.5, 0.5)
    holds = theory.polygon_rates(tokens=3, beta=-1.5, turn=0.5, normalised=False).modes.real.max() < 0.0
    meets = np.cos(0.5) > 0.0
    shares = f"consensus {consensus:.0%}, triangles {triangles:.0%}"
    return compare([meets, holds, 1.0], [consensus > 0.0, triangles > 0.0, consensus + triangles], shares)
