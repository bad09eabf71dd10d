"""Section 4: two antipodal atoms under USA are stationary, and a density escapes from them."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def atoms(dimension: int) -> np.ndarray:
    """Four tokens at e and two at -e: (2/3) delta_e + (1/3) delta_{-e}."""
    x = np.zeros((6, dimension))
    x[:, 0] = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0]
    return x


@check(4, source="2504.14697, 2512.01868", setting="d = 2, 5; beta = 0, 1, 8; SA, USA", tolerance=1e-15)
def antipodal_stationary() -> Comparison:
    """(2/3) delta_e + (1/3) delta_{-e} is stationary at every temperature, though its mean is 1/3."""
    moved = [
        np.abs(kd.Dynamics(kd.softmax(b, normalised=normalised), kd.Sphere()).drift(0.0, atoms(d))).max()
        for d in (2, 5)
        for b in (0.0, 1.0, 8.0)
        for normalised in (True, False)
    ]
    mean = np.linalg.norm(atoms(3).mean(axis=0))
    return compare([*np.zeros(len(moved)), 1.0 / 3.0], [*moved, mean])


@check(4, source="derived", setting="d = 2, beta = 0.2, 1; masses 2/3, 1/3; spectrum of the Jacobian", tolerance=1e-9)
def antipodal_spectrum() -> Comparison:
    """Antipodal atoms under USA: eigenvalues of spreading and of turning."""
    predicted, measured = [], []
    for beta in (0.2, 1.0):
        rates = theory.antipodal_rates(mass=2.0 / 3.0, beta=beta)
        predicted += sorted([rates.first] * 3 + [rates.second, rates.angle, 0.0])
        dynamics = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Sphere())
        jacobian = kd.jacobian(dynamics, atoms(2), tangent=True)
        measured += sorted(np.linalg.eigvals(jacobian).real)
    return compare(predicted, measured)


@check(
    4,
    source="2504.14697; derived",
    setting="USA, beta = 1, d = 3; 300 tokens within 1e-4 of the atoms; rate over t = 4..8, final diameter",
    tolerance=2e-2,
)
def antipodal_escape() -> Comparison:
    """Antipodal atoms spread into a density escape at rate e^{-beta} and meet."""
    rng = np.random.default_rng(1)
    x0 = np.tile(atoms(3), (50, 1)) + 1e-4 * rng.standard_normal((300, 3))
    dynamics = kd.Dynamics(kd.softmax(1.0, normalised=False), kd.Sphere())
    run = kd.simulate(dynamics, kd.Sphere().retract(x0), 50.0, dt=0.1, save_at=[4.0, 8.0, 50.0])
    heavy = x0[:, 0] > 0
    sums = [np.linalg.norm(x[heavy].mean(0) + x[~heavy].mean(0)) for x in run.positions[1:3]]
    rate = theory.antipodal_rates(mass=2.0 / 3.0, beta=1.0).angle
    diameter = np.linalg.norm(run.final - run.final[0], axis=1).max()
    return compare([rate, 0.0], [np.log(sums[1] / sums[0]) / 4.0, diameter])


@check(
    4,
    source="2504.14697",
    setting="USA, beta = 0.5, d = 3, 600 tokens of mean 0.25; exponent of W2 to consensus, t = 6..8",
    tolerance=0.0,
    kind="at most",
)
def quantitative_clustering() -> Comparison:
    """Quantitative clustering from a density: W2(mu_t, delta) <= C e^{-t/100} (the exponent measured is far below)."""
    rng = np.random.default_rng(2)
    x0 = kd.Sphere().retract(rng.standard_normal((600, 3)) + [0.4, 0.0, 0.0])
    run = kd.simulate(kd.Dynamics(kd.softmax(0.5, normalised=False), kd.Sphere()), x0, 8.0, dt=0.05, save_at=[6.0, 8.0])
    # The limit is the common point of all tokens; centres of mass are exponentially near to it.
    centre = kd.Sphere().retract(run.final.mean(0, keepdims=True))
    w2 = np.sqrt(np.mean(np.sum((run.positions[1:] - centre) ** 2, axis=-1), axis=-1))
    exponent = np.log(w2[1] / w2[0]) / 2.0
    return compare(-0.01, exponent, f"measured exponent {exponent:.2f}; near consensus -e^beta = {-np.exp(0.5):.2f}")
