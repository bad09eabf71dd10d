"""Sections 2 and 3: oscillators on the sphere: their energy, and when they lock."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def _oscillators(stimulus_turns: bool) -> tuple[kd.Dynamics, dict[str, np.ndarray], np.ndarray]:
    """Ten in d = 3 with one rotation about the third axis; the stimulus along it, or in any direction."""
    rng = np.random.default_rng(6)
    coupling = rng.standard_normal((10, 10))
    coupling += coupling.T
    rotation = np.array([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    stimulus = rng.standard_normal((10, 3)) * (1.0 if stimulus_turns else np.array([0.0, 0.0, 1.0]))
    space = kd.Sphere()

    def field(_: float, x: np.ndarray) -> np.ndarray:
        return x @ rotation.T + space.project(x, stimulus + coupling @ x)

    silent = kd.Dynamics(kd.bounded_confidence(1.0), space, value=np.zeros((3, 3)), external=field)
    return silent, {"coupling": coupling, "stimulus": stimulus, "rotation": rotation}, space.sample(10, 3, 2)


@check(
    2,
    source="2410.13821; second term derived",
    setting="10 oscillators, d = 3, J of both signs, t = 0..1, stimulus along the axis and not; speed by differences",
    tolerance=2e-6,
    kind="relative",
)
def oscillator_energy() -> Comparison:
    """Oscillators with one rotation (AKOrN): dE/dt = -sum |P_i(c_i + sum_j J_ij x_j)|^2 - sum <c_i, Omega x_i>."""
    predicted, measured = [], []
    for turns in (False, True):
        dynamics, parts, x0 = _oscillators(turns)
        run = kd.simulate(dynamics, x0, 1.0, dt=0.01, save_every=10)
        still = {name: part for name, part in parts.items() if name != "rotation"}
        for x in run.positions:
            ahead, behind = (
                theory.oscillator_energy(positions=_moved(dynamics, x, sign * 1e-4), **still) for sign in (1.0, -1.0)
            )
            measured.append((ahead - behind) / 2e-4)
            predicted.append(theory.oscillator_energy_rate(positions=x, **parts))
    rising = np.count_nonzero(np.array(measured[:11]) > 0)
    return compare(predicted, measured, f"with Omega c = 0 it rises at {rising} of 11 times")


def _moved(dynamics: kd.Dynamics, x: np.ndarray, time: float) -> np.ndarray:
    """To second order in time."""
    half = kd.Sphere().retract(x + 0.5 * time * dynamics.drift(0.0, x))
    return kd.Sphere().retract(x + time * dynamics.drift(0.0, half))


def _order(coupling: float, law: str, n: int = 200) -> float:
    """Mean over time of the order parameter of oscillators with frequencies at quantiles, per capita attention."""
    from scipy.special import ndtri

    share = (np.arange(n) + 0.5) / n
    omega = ndtri(share) if law == "normal" else np.tan(np.pi * (share - 0.5))

    def turning(_: float, x: np.ndarray) -> np.ndarray:
        return omega[:, None] * np.stack([-x[..., 1], x[..., 0]], axis=-1)

    rule = kd.softmax(0.0, normalised=False)
    dynamics = kd.Dynamics(rule, kd.Circle(), value=coupling * np.eye(2), external=turning)
    x0 = kd.Circle().from_angles(0.1 * np.arange(n) / n)
    run = kd.simulate(dynamics, x0, 24.0, dt=0.2, save_every=5)
    return float(np.linalg.norm(run.positions[12:].mean(axis=1), axis=-1).mean())


@check(
    3,
    source="Kuramoto 1975; AKOrN (2410.13821) in d = 2",
    setting="normal frequencies of deviation 1, at 200 quantiles, K = 1.2, 2, 3; order over t = 12..24",
    tolerance=0.05,  # n^{-1/2} = 0.07 for random frequencies; quantiles are closer
)
def kuramoto_locking() -> Comparison:
    """Oscillators lock above K_c = sigma sqrt(8/pi), with the order of Kuramoto's equation."""
    couplings = (1.2, 2.0, 3.0)
    predicted = [theory.kuramoto_locked_order(coupling=k, width=1.0, law="normal") for k in couplings]
    return compare(predicted, [_order(k, "normal") for k in couplings])
