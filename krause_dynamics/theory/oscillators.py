"""Oscillators on the sphere with rotations of their own (AKOrN, Kuramoto): their energy, and when they lock.

x_i' = Omega x_i + P_i(c_i + sum_j J_ij x_j), with E = -(1/2) sum_ij J_ij <x_i, x_j> - sum_i <c_i, x_i>.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from krause_dynamics._arguments import POSITIVE, Reals, Word
from krause_dynamics.theory._angles import SINGLE, unit_vectors
from krause_dynamics.theory._formula import formula

Law = Literal["lorentz", "normal"]
LAWS = Word(("lorentz", "normal"))
MATRIX = Reals(ndim=2)


def _check_parts(positions: np.ndarray, coupling: np.ndarray, stimulus: np.ndarray) -> np.ndarray:
    """The positions, unit vectors."""
    n = len(positions)
    if coupling.shape != (n, n) or np.max(np.abs(coupling - coupling.T)) > SINGLE * max(1.0, np.max(np.abs(coupling))):
        raise ValueError(f"coupling must be symmetric ({n}, {n}), got shape {coupling.shape}; take (J + J^T)/2")
    if stimulus.shape != positions.shape:
        raise ValueError(f"stimulus must have the shape {positions.shape} of positions, got {stimulus.shape}")
    return unit_vectors("positions", positions)


@formula(positions=MATRIX, coupling=MATRIX, stimulus=MATRIX)
def oscillator_energy(*, positions: np.ndarray, coupling: np.ndarray, stimulus: np.ndarray) -> float:
    r"""E = -(1/2) sum_ij J_ij <x_i, x_j> - sum_i <c_i, x_i>.

    Args:
        positions: unit vectors x_i, shape (n, d).
        coupling: J, symmetric, shape (n, n), any signs.
        stimulus: c_i, shape (n, d).

    Raises:
        ValueError: shapes that do not fit, J that is not symmetric, positions that are no unit vectors.

    Source: arXiv 2410.13821 (AKOrN), scalar couplings.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.oscillator_energy(positions=[[1, 0], [0, 1]], coupling=[[0, 1], [1, 0]], stimulus=[[0.5, 0], [0, 0]])
        -0.5
    """
    positions = _check_parts(positions, coupling, stimulus)
    return float(-0.5 * np.sum(coupling * (positions @ positions.T)) - np.sum(stimulus * positions))


@formula(positions=MATRIX, coupling=MATRIX, stimulus=MATRIX, rotation=MATRIX)
def oscillator_energy_rate(
    *, positions: np.ndarray, coupling: np.ndarray, stimulus: np.ndarray, rotation: np.ndarray
) -> float:
    r"""Speed of the energy when all share one rotation: -sum_i |P_i(c_i + sum_j J_ij x_j)|^2 - sum_i <c_i, Omega x_i>.

    The rotation leaves the coupling's part alone, as J is symmetric and Omega skew. The energy never rises where
    Omega c_i = 0; otherwise it may: one oscillator with omega > |c| turns for ever.

    Args:
        positions: unit vectors x_i, shape (n, d).
        coupling: J, symmetric, shape (n, n).
        stimulus: c_i, shape (n, d).
        rotation: Omega, skew, shape (d, d), radians per unit of time.

    Raises:
        ValueError: as `oscillator_energy`, or a rotation that is not skew (d, d).

    Source: arXiv 2410.13821 (AKOrN); the second term is derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> turn = [[0.0, -2.0], [2.0, 0.0]]
        >>> rate = theory.oscillator_energy_rate(
        ...     positions=[[0.6, 0.8]], coupling=[[0.0]], stimulus=[[1.0, 0.0]], rotation=turn
        ... )
        >>> round(rate, 6)
        0.96
    """
    positions = _check_parts(positions, coupling, stimulus)
    d = positions.shape[1]
    if rotation.shape != (d, d) or np.max(np.abs(rotation + rotation.T)) > SINGLE * max(1.0, np.max(np.abs(rotation))):
        raise ValueError(f"rotation must be skew (d, d) = ({d}, {d}), got shape {rotation.shape}; take (W - W^T)/2")
    pull = stimulus + coupling @ positions
    tangent = pull - np.sum(pull * positions, axis=1, keepdims=True) * positions
    return float(-np.sum(tangent**2) - np.sum(stimulus * (positions @ rotation.T)))


@formula(width=POSITIVE, law=LAWS)
def kuramoto_critical_coupling(width: float, *, law: Law = "lorentz") -> float:
    r"""Coupling K_c = 2/(pi g(0)) above which oscillators on the circle lock in part: 2 gamma, or sigma sqrt(8/pi).

    theta_i' = omega_i + (K/n) sum_j sin(theta_j - theta_i), omega_i of density g, symmetric about 0.

    Args:
        width: gamma of "lorentz" (half width at half height), sigma of "normal" (standard deviation), radians per time.
        law: of the natural frequencies.

    Source: Kuramoto 1975; J = K/n, d = 2 of arXiv 2410.13821.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.kuramoto_critical_coupling(1.0, law="normal"), 6)
        1.595769
    """
    return 2.0 * width if law == "lorentz" else width * math.sqrt(8.0 / math.pi)


@formula(coupling=POSITIVE, width=POSITIVE, law=LAWS)
def kuramoto_locked_order(*, coupling: float, width: float, law: Law = "lorentz") -> float:
    r"""Stationary order r = |mean of e^{i theta}| of many oscillators: 0 up to K_c, then the root of

    1 = K int cos^2(t) g(K r sin t) dt over (-pi/2, pi/2);  "lorentz": r = sqrt(1 - 2 gamma/K).

    Args:
        coupling: K.
        width: gamma, or sigma, as in `kuramoto_critical_coupling`; radians per unit of time.
        law: of the natural frequencies.

    Returns:
        r in [0, 1); n oscillators differ by O(n^{-1/2}), or less for frequencies at quantiles.

    Source: Kuramoto 1975; K > K_c is the stable branch.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.kuramoto_locked_order(coupling=4.0, width=1.0), 6)
        0.707107
    """
    if coupling <= kuramoto_critical_coupling(width, law=law):
        return 0.0
    if law == "lorentz":
        return math.sqrt(1.0 - 2.0 * width / coupling)
    from scipy.optimize import brentq
    from scipy.special import i0e, i1e

    def excess(order: float) -> float:
        # int cos^2 t e^{-2 z sin^2 t} dt = (pi/2) e^{-z} (I_0(z) + I_1(z)),  z = (K r/sigma)^2/4.
        pull = coupling * order / width
        if pull > 1e8:  # all are locked, to rounding
            return 1.0 / order - 1.0
        z = 0.25 * pull**2
        return coupling / width * math.sqrt(math.pi / 8.0) * float(i0e(z) + i1e(z)) - 1.0

    return brentq(excess, 0.0, 1.0, xtol=1e-15, rtol=1e-14)
