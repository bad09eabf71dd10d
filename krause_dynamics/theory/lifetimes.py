"""Metastability: how long two clusters of a dense rule live before they merge.

Dense attention keeps no several clusters for ever (its only stable fixed point is consensus); two clusters approach at
a speed that is exponentially small in their separation, so the lifetime is a quadrature of 1/speed and grows
exponentially.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Flag, Maybe, Real, Reals, within
from krause_dynamics.theory._angles import versine
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory._quadrature import travel_time

MASS = Real(0.0, 1.0, "()")


def _log_relative_pull(log_affinity: Any, mass: float) -> Any:
    # Logarithm of the sum of the weights which each cluster gives to the other; exp(log_affinity) is the affinity
    # relative to self, which leaves the range of floats for clusters far apart while their lifetime need not.
    one, two = np.log(mass), np.log1p(-mass)
    return log_affinity + np.logaddexp(
        two - np.logaddexp(one, two + log_affinity), one - np.logaddexp(two, one + log_affinity)
    )


def _log_angle_pull(angle: Any, beta: float, mass: float, normalised: bool) -> Any:
    # The factor of -sin(angle) in the speed. Un-normalised masses add to one: the split does not matter.
    return _log_relative_pull(-beta * versine(angle), mass) if normalised else beta * np.cos(angle)


@formula(angle=Reals(0.0, np.pi, "[]"), beta=Real(), mass=MASS, normalised=Flag())
def cluster_angle_rate(*, angle: ArrayLike, beta: float, mass: float = 0.5, normalised: bool = True) -> np.ndarray:
    r"""Speed of the angle between two point clusters of masses p, 1-p on the sphere.

    SA:  phi' = -sin(phi) [ (1-p) e/(p + (1-p) e) + p e/(1-p + p e) ],   e = exp(beta (cos phi - 1))
    USA: phi' = -sin(phi) exp(beta cos phi), whatever p

    Args:
        angle: phi in [0, pi], in radians, any shape.
        beta: inverse temperature.
        mass: p in (0, 1).
        normalised: True for SA, False for USA.

    Source: arXiv 2410.06833 (two clusters); derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.cluster_angle_rate(angle=[0.5, 1.5], beta=4.0).round(6).tolist()
        [-0.364336, -0.047339]
    """
    return -np.sin(angle) * np.exp(_log_angle_pull(angle, beta, mass, normalised))


@formula(beta=Real(), angle=Real(0.0, np.pi, "()"), mass=MASS, stop=Maybe(Real()), normalised=Flag())
def cluster_lifetime(
    *, beta: float, angle: float, mass: float = 0.5, stop: float | None = None, normalised: bool = True
) -> float:
    r"""Time in which two clusters on the sphere close from ``angle`` to ``stop``, by quadrature of 1/speed.

    Args:
        beta: inverse temperature.
        angle: initial angle phi0 in (0, pi), in radians; at pi the two never move.
        mass: p of one cluster, 1 - p of the other.
        stop: final angle in (0, phi0), in radians; phi0/2 by default. For large beta nearly all the time is spent near
            phi0, so that the choice matters little; complete merging takes infinitely long (exponential approach).
        normalised: True for SA, False for USA.

    Returns:
        The lifetime; infinite where it is beyond the range of floats.

    Source: arXiv 2410.06833; derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.cluster_lifetime(beta=4.0, angle=2.0), 6)
        38.881882
    """
    final = angle / 2.0 if stop is None else within("stop", stop, 0.0, angle)
    return travel_time(lambda phi: -np.log(np.sin(phi)) - _log_angle_pull(phi, beta, mass, normalised), final, angle)


@formula(beta=POSITIVE, angle=Real(0.0, np.pi, "()"), mass=MASS)
def cluster_lifetime_asymptotic(*, beta: float, angle: float, mass: float = 0.5) -> float:
    r"""Leading lifetime for large beta: e^{beta (1 - cos phi0)} / (beta sin^2 phi0 [(1-p)/p + p/(1-p)]).

    The relative error is O(1/beta), with a constant of size cos(phi0)/sin^2(phi0): at 90 degrees 3-5 % for beta = 8,
    below 1 % for 16; at 120 degrees -11 % and -6 %.

    Args:
        beta: inverse temperature > 0.
        angle: initial angle phi0 in (0, pi), in radians.
        mass: p of one cluster, 1 - p of the other.

    Source: arXiv 2410.06833; derived (Laplace's method on the quadrature of `cluster_lifetime`).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.cluster_lifetime_asymptotic(beta=16.0, angle=1.5), 6)
        89992.821309
    """
    imbalance = (1.0 - mass) / mass + mass / (1.0 - mass)
    return float(np.exp(beta * versine(angle)) / (beta * np.sin(angle) ** 2 * imbalance))


@formula(separation=Reals(0.0), sigma=POSITIVE, mass=MASS)
def gaussian_separation_rate(separation: ArrayLike, *, sigma: float = 1.0, mass: float = 0.5) -> np.ndarray:
    r"""Speed of the distance between two clusters under the dense Gaussian rule, relative form.

    D' = -D [ (1-p) e/(p + (1-p) e) + p e/(1-p + p e) ],  e = exp(-D^2/2 sigma^2);  p = 1/2: D' = -2 D e/(1+e).

    Args:
        separation: D >= 0, any shape; unit: position.
        sigma: bandwidth of the Gaussian rule; unit: position.
        mass: p in (0, 1).

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.gaussian_separation_rate([0.0, 1.0, 3.0], sigma=1.0).round(6).tolist()
        [-0.0, -0.755081, -0.065922]
    """
    return -separation * np.exp(_log_relative_pull(-0.5 * (separation / sigma) ** 2, mass))


@formula(separation=POSITIVE, sigma=POSITIVE, mass=MASS, stop=Maybe(Real()))
def gaussian_lifetime(separation: float, *, sigma: float = 1.0, mass: float = 0.5, stop: float | None = None) -> float:
    r"""Time in which two clusters of the dense Gaussian rule close from D0 to ``stop``, by quadrature of 1/speed.

    Args:
        separation: D0 > 0; unit: position.
        sigma: bandwidth of the Gaussian rule; unit: position.
        mass: p of one cluster.
        stop: final distance in (0, D0), unit: position; D0/2 by default.

    Returns:
        The lifetime, about sigma^2 exp(D0^2/2 sigma^2)/(2 D0^2) for p = 1/2 and D0 >> sigma; infinite where it is
        beyond the range of floats.

    Source: derived; metastability as in arXiv 2410.06833.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.gaussian_lifetime(3.0, sigma=1.0), 6)
        6.771063
    """
    d0 = separation
    final = d0 / 2.0 if stop is None else within("stop", stop, 0.0, d0)
    return travel_time(lambda d: -np.log(d) - _log_relative_pull(-0.5 * (d / sigma) ** 2, mass), final, d0)
