"""Causal attention: leaders, slow rates and Renyi centres.

Token i listens to tokens 1..i. With V = I on the sphere the first token is fixed and every other one converges to it
(arXiv 2411.04990, theorem 4.1); on the way tokens gather around Renyi centres.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import LARGEST, POSITIVE, ArrayLike, Maybe, Real, Reals, Whole, within
from krause_dynamics.theory._angles import versine
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory._quadrature import travel_time


@formula(tokens=Whole(most=LARGEST))
def causal_rates(tokens: int) -> np.ndarray:
    r"""Rates at which tokens of causal attention approach the leader, near it: 1 - 1/i, i = 1..n.

    The linearisation is triangular, d_i' = (1/i) sum_{j<=i} d_j - d_i. The first is 0 (the leader, fixed), the slowest
    other is 1/2 (i = 2): |x_i - x_1| ~ e^{-t/2} and 1 - <x_i, x_1> ~ e^{-t}.

    Args:
        tokens: n.

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.causal_rates(4).round(6).tolist()
        [0.0, 0.5, 0.666667, 0.75]
    """
    return 1.0 - 1.0 / np.arange(1, tokens + 1)


@formula(tokens=Whole(most=LARGEST), window=Maybe(Whole()), step=Real())
def causal_layer_factors(tokens: int, *, window: int | None = None, step: float = 1.0) -> np.ndarray:
    r"""Factors per layer of deviations from consensus, causal attention with an optional window, relaxation tau.

    1 - tau (1 - 1/min(i, w)), i = 1..n: the matrix is triangular with self weights 1/min(i, w). Slowest decaying for w
    >= 2 and any n: 1 - tau/2.

    Args:
        tokens: n.
        window: w, the last w tokens, own included; all when None.
        step: tau, relaxation of the layer.

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.causal_layer_factors(5, window=3, step=0.5).round(6).tolist()
        [1.0, 0.75, 0.666667, 0.666667, 0.666667]
    """
    reach = np.arange(1, tokens + 1)
    if window is not None:
        reach = np.minimum(reach, window)
    return 1.0 - step * (1.0 - 1.0 / reach)


@formula(gap=Reals(0.0, np.pi, "[]"), beta=Real())
def causal_gap_rate(*, gap: ArrayLike, beta: float) -> np.ndarray:
    r"""Speed of the angle of a follower to the leader: phi' = -sin(phi) e/(1 + e), e = exp(beta (cos phi - 1)).

    Half the speed of two tokens that both move (``gap_rate``).

    Args:
        gap: angle phi in [0, pi], in radians, any shape.
        beta: inverse temperature.

    Source: the case n = 2 of arXiv 2411.04990; derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.causal_gap_rate(gap=[0.5, 1.5], beta=1.0).round(6).tolist()
        [-0.225059, -0.282365]
    """
    return -np.sin(gap) * np.exp(-np.logaddexp(0.0, beta * versine(gap)))


@formula(start=Real(0.0, np.pi, "()"), stop=Real(0.0, np.pi, "()"), beta=Real())
def causal_gap_time(*, start: float, stop: float, beta: float) -> float:
    """Time in which the angle of a follower goes from ``start`` to ``stop``, by quadrature of 1/speed.

    Args:
        start: initial angle in (0, pi), in radians.
        stop: final angle in (0, start], in radians.
        beta: inverse temperature.

    Returns:
        The time; infinite where it is beyond the range of floats.

    Source: derived; setting of arXiv 2411.04990.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.causal_gap_time(start=2.0, stop=0.5, beta=3.0), 6)
        27.373715
    """
    within("stop", stop, 0.0, start, ends="(]")
    return travel_time(lambda phi: np.logaddexp(0.0, beta * versine(phi)) - np.log(np.sin(phi)), stop, start)


def parking_constant() -> float:
    r"""Renyi's parking constant, int_0^inf exp(-2 int_0^t (1 - e^{-u})/u du) dt = 0.7475979.

    With Ein(t) = log t + gamma + E_1(t) for the inner integral.

    Source: Renyi 1958.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.parking_constant(), 6)
        0.747598
    """
    from scipy.integrate import quad
    from scipy.special import exp1

    def integrand(t: float) -> float:
        # Below 1e-3 the series avoids the cancellation of log t and E_1.
        ein = t - t * t / 4.0 + t**3 / 18.0 if t < 1e-3 else np.log(t) + np.euler_gamma + exp1(t)
        return float(np.exp(-2.0 * ein))

    head, _ = quad(integrand, 0.0, 1.0, epsabs=1e-14, epsrel=1e-13)
    body, _ = quad(integrand, 1.0, 40.0, epsabs=1e-14, epsrel=1e-13, limit=200)
    # Beyond 40, E_1 < 1e-19: the integrand is e^{-2 gamma}/t^2.
    return head + body + float(np.exp(-2.0 * np.euler_gamma)) / 40.0


@formula(separation=POSITIVE, circumference=POSITIVE)
def expected_renyi_centres(separation: float, *, circumference: float = 2.0 * np.pi) -> float:
    r"""Expected number of Renyi centres of many i.i.d. uniform tokens on a circle: 0.7475979 x 2 pi/delta.

    A token is a centre when no earlier *centre* lies within delta: random sequential adsorption of intervals of length
    delta.

    Args:
        separation: delta, much smaller than the circumference; in radians where that is 2 pi.
        circumference: length of the circle, in the unit of ``separation``; 2 pi, radians.

    Returns:
        The limit of many tokens; the finite-size correction on a ring is exponentially small in circumference/delta.

    Source: arXiv 2411.04990, section 5.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.expected_renyi_centres(0.1), 6)
        46.972963
    """
    within("separation", separation, 0.0, circumference)
    return parking_constant() * circumference / separation


@formula(tokens=Whole(), separation=Real(0.0, np.pi, "()"))
def expected_strong_renyi_centres(*, tokens: int, separation: float) -> float:
    r"""Expected number of strong Renyi centres on the circle: (pi/delta)(1 - (1 - delta/pi)^n).

    n tokens are i.i.d. uniform. One is a strong centre when no earlier *token* lies within delta; token i is one with
    probability (1 - delta/pi)^{i-1}.

    Args:
        tokens: n.
        separation: delta in (0, pi), in radians.

    Source: arXiv 2411.04990, section 5; exact for every n.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.expected_strong_renyi_centres(tokens=60, separation=0.2), 6)
        15.404519
    """
    share = separation / np.pi
    return float(-np.expm1(tokens * np.log1p(-share)) / share)
