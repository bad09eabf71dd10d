"""Softmax self-attention on the unit sphere: equiangular tokens, the beta = 0 limit, local rates.

Notation: tokens x_i on S^{d-1}, s_ij = beta <x_i, x_j>,

    SA  (``normalised=True``)   dx_i/dt = P_i sum_j softmax_j(s_ij) x_j
    USA (``normalised=False``)  dx_i/dt = P_i (1/n) sum_j exp(s_ij) x_j

with P_i the projection onto the tangent space at x_i. Sources: Geshkovski, Letrouit, Polyanskiy and Rigollet,
arXiv 2312.10794 (section 6 for equiangular tokens).
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import ArrayLike, Flag, Real, Reals, Whole, within
from krause_dynamics.theory._angles import versine
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory._quadrature import at_times, travel_time


@formula(similarity=Reals(-1.0, 1.0, "[]"), beta=Real(), tokens=Whole(2), normalised=Flag())
def equiangular_rate(*, similarity: ArrayLike, beta: float, tokens: int, normalised: bool = True) -> np.ndarray:
    r"""Speed of the common inner product of n tokens with equal pairwise inner products.

    SA:  rho' = 2 e^{beta rho} (1 - rho)(1 + (n-1) rho) / (e^beta + (n-1) e^{beta rho})
    USA: rho' = (2/n) e^{beta rho} (1 - rho)(1 + (n-1) rho)

    Args:
        similarity: common inner product rho, any shape, in [-1/(n-1), 1].
        beta: inverse temperature, any sign.
        tokens: number of tokens n >= 2; the configuration needs d >= n (d >= n - 1 at rho = -1/(n-1)).
        normalised: True for SA, False for USA.

    Returns:
        drho/dt, shape of ``similarity``. It vanishes at consensus (rho = 1) and at the simplex, rho = -1/(n-1).

    Source: arXiv 2312.10794, section 6.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.equiangular_rate(similarity=[0.0, 0.5], beta=1.0, tokens=8).round(6).tolist()
        [0.205798, 0.520308]
    """
    n, rho = tokens, similarity
    if np.any(rho < -1.0 / (n - 1)):
        raise ValueError(f"similarity must be at least -1/(n - 1) = {-1.0 / (n - 1):g}, got {float(rho.min())!r}")
    shape = 2.0 * (1.0 - rho) * (1.0 + (n - 1) * rho)
    if normalised:
        return shape * _share_of_others(rho, beta, n)
    return shape * np.exp(beta * rho) / n


def _share_of_others(similarity: np.ndarray, beta: float, tokens: int) -> np.ndarray:
    # 1/(e^{beta (1 - rho)} + n - 1), the weight of one other token, without overflow for any beta.
    return np.exp(-np.logaddexp(beta * (1.0 - similarity), np.log(tokens - 1)))


@formula(start=Real(-1.0, 1.0, "()"), stop=Real(-1.0, 1.0, "()"), beta=Real(), tokens=Whole(2), normalised=Flag())
def equiangular_time(*, start: float, stop: float, beta: float, tokens: int, normalised: bool = True) -> float:
    r"""Time in which equiangular tokens go from inner product ``start`` to ``stop``, by quadrature of 1/rho'.

    Args:
        start: initial inner product, above -1/(n-1).
        stop: final inner product, from ``start`` on and below 1.
        beta: inverse temperature.
        tokens: number of tokens n.
        normalised: True for SA, False for USA.

    Returns:
        The time; infinite where it is beyond the range of floats.

    Raises:
        ValueError: when an end is not inside (-1/(n-1), 1), where the time is infinite, or ``stop`` lies before
            ``start``: inner products only grow.

    Source: arXiv 2312.10794, section 6; the quadrature is exact to about 1e-11 relative.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.equiangular_time(start=0.0, stop=0.5, beta=1.0, tokens=32), 6)
        1.819935
    """
    n = tokens
    within("start", start, -1.0 / (n - 1), 1.0)
    within("stop", stop, start, 1.0, ends="[)")

    def log_slowness(rho: float) -> float:
        pull = -np.logaddexp(beta * (1.0 - rho), np.log(n - 1)) if normalised else beta * rho - np.log(n)
        return -float(np.log(2.0) + np.log1p(-rho) + np.log1p((n - 1) * rho) + pull)

    return travel_time(log_slowness, start, stop)


@formula(
    times=Reals(0.0, ndim=1, rising=True), start=Real(-1.0, 1.0, "()"), beta=Real(), tokens=Whole(2), normalised=Flag()
)
def equiangular_similarity(
    *, times: ArrayLike, start: float, beta: float, tokens: int, normalised: bool = True
) -> np.ndarray:
    r"""Inner product rho(t) of equiangular tokens, rho(0) = ``start``.

    Integrated in y = log((1 + (n-1) rho) / (1 - rho)), in which consensus and the simplex are at infinity and
    y' is smooth: y' = n rho' / ((1 - rho)(1 + (n-1) rho)); at beta = 0, y' = 2 exactly.

    Args:
        times: increasing times >= 0, shape (t,).
        start: initial inner product in (-1/(n-1), 1).
        beta: inverse temperature.
        tokens: number of tokens n.
        normalised: True for SA, False for USA.

    Returns:
        rho at ``times``, shape (t,), relative error about 1e-11.

    Source: arXiv 2312.10794, section 6.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.equiangular_similarity(times=[0.0, 1.0, 3.0], start=0.1, beta=1.0, tokens=8).round(6).tolist()
        [0.1, 0.559967, 0.986021]
    """
    n, t = tokens, times
    within("start", start, -1.0 / (n - 1), 1.0)

    def similarity(y: np.ndarray) -> np.ndarray:
        # This form does not overflow at consensus.
        return 1.0 - n / (np.exp(y) + (n - 1))

    def rate(_: float, y: np.ndarray) -> np.ndarray:
        rho = similarity(y)
        return 2.0 * n * _share_of_others(rho, beta, n) if normalised else 2.0 * np.exp(beta * rho)

    y0 = np.log1p((n - 1) * start) - np.log1p(-start)
    return similarity(at_times(rate, t, [y0], atol=1e-13)[0])


@formula(times=Reals(), tokens=Whole(2))
def orthogonal_similarity_without_temperature(*, times: ArrayLike, tokens: int) -> np.ndarray:
    r"""Inner product at beta = 0 from orthogonal tokens: rho = (e^{2t} - 1)/(e^{2t} + n - 1), SA and USA alike.

    Args:
        times: times t >= 0, any shape.
        tokens: number of tokens n >= 2.

    Source: derived from the equiangular equation of arXiv 2312.10794, section 6.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.orthogonal_similarity_without_temperature(times=[0.0, 1.0], tokens=16).round(6).tolist()
        [0.0, 0.285365]
    """
    decay = np.exp(-2.0 * times)
    return (1.0 - decay) / (1.0 + (tokens - 1) * decay)


@formula(beta=Real(), normalised=Flag())
def consensus_rate(beta: float, *, normalised: bool = True) -> float:
    r"""Exponential rate of 1 - <x_i, x_j> near consensus on the sphere: 2 for SA, 2 e^beta for USA.

    The distance itself, and angles, decay at half of this. Independent of the number of tokens and of d.

    Args:
        beta: inverse temperature, any sign.
        normalised: True for SA, False for USA.

    Source: linearisation of arXiv 2312.10794 at one point.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.consensus_rate(1.0, normalised=False), 6)
        5.436564
    """
    return 2.0 if normalised else 2.0 * float(np.exp(beta))


@formula(gap=Reals(0.0, np.pi, "[]"), beta=Real(), normalised=Flag())
def gap_rate(*, gap: ArrayLike, beta: float, normalised: bool = True) -> np.ndarray:
    r"""Speed of the angle between two tokens.

    SA:  phi' = -2 sin(phi) e/(1 + e),  e = exp(beta (cos phi - 1))
    USA: phi' = -sin(phi) exp(beta cos phi)

    Args:
        gap: angle phi in [0, pi], in radians, any shape.
        beta: inverse temperature.
        normalised: True for SA, False for USA.

    Source: the case n = 2 of arXiv 2312.10794, section 6.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.gap_rate(gap=[0.5, 1.5], beta=1.0).round(6).tolist()
        [-0.450117, -0.56473]
    """
    phi = gap
    if normalised:
        return -2.0 * np.sin(phi) * np.exp(-np.logaddexp(beta * versine(phi), 0.0))
    return -np.sin(phi) * np.exp(beta * np.cos(phi))


@formula(times=Reals(), start=Real(0.0, 1.0, "[]"))
def kuramoto_order_parameter(*, times: ArrayLike, start: float) -> np.ndarray:
    r"""Order parameter at beta = 0 on the circle: r(t) = r0 e^{t/2} / sqrt(1 - r0^2 + r0^2 e^t).

    Args:
        times: times t >= 0, any shape.
        start: r(0) in [0, 1]; the initial density is the Poisson kernel with mean resultant length r0
            (the manifold of Ott and Antonsen). For other densities this is not the solution.

    Source: Ott and Antonsen 2008 for identical oscillators with unit coupling, r' = r (1 - r^2)/2.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.kuramoto_order_parameter(times=[0.0, 2.0], start=0.3).round(6).tolist()
        [0.3, 0.649791]
    """
    if start == 0.0:
        return np.zeros_like(times)  # the uniform law stays
    # 1/sqrt(1 + (1 - r0^2)/r0^2 e^{-t}); r0^2 and e^{-t} alone may be below the floats.
    with np.errstate(divide="ignore"):
        log_odds = np.log1p(-start) + np.log1p(start) - 2.0 * np.log(start)
    return np.exp(-0.5 * np.logaddexp(0.0, log_odds - times))
