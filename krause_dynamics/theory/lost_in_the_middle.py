"""Lost in the middle, kinetic form: how the last token of a causal context responds to one at position s.

Tokens are independent and uniform on the circle; token s hears s' < s with weight proportional to e^{l s'} (a causal
graphon, l = 0: the plain causal mean). Degree n of a perturbation obeys h' = a_n K h with the Volterra operator K of
the graphon and a_n the growth rate of degree n of the uniform law, whence a Bessel function.
"""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Flag, Real, Reals
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.modes import mode_growth

INSIDE = Reals(0.0, 1.0, "()")
TEMPERATURE = Real(0.0, 1e8, "(]")  # a sum over 12 sqrt(beta) degrees, each with its Bessel functions


def _degrees(beta: float, resolution: float) -> np.ndarray:
    """Those that matter: further ones weigh less than 1e-19, or grow less than e^{-72} of the fastest."""
    return np.arange(1, math.ceil(min(3.0 * resolution, 12.0 * math.sqrt(beta) + 40.0)) + 1)


@formula(positions=INSIDE, time=Real(0.0), rate=Real(0.0), decay=Real(0.0))
def causal_response(*, positions: ArrayLike, time: float, rate: float, decay: float) -> np.ndarray:
    r"""Density over source positions s of the response of the last token after time t, one degree.

    g(s) = k(1, s) sqrt(a t/Y) I_1(2 sqrt(a t Y)),  k(1, s) = l e^{l s}/(e^l - 1),  Y = log((e^l - 1)/(e^{l s} - 1)).

    Args:
        positions: s in (0, 1), any shape: source index / number of tokens.
        time: t >= 0.
        rate: a >= 0, per unit of time, growth rate of the degree (`mode_growth` with ``dimension=2``).
        decay: l >= 0, how much more recent tokens weigh; 0: all alike, k = 1, Y = log(1/s).

    Source: arXiv 2605.09213 (whose time makes a_n = n^2 I_n(beta): USA with a velocity beta times ours).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.causal_response(positions=[0.1, 0.5, 0.9], time=1.0, rate=0.5, decay=1.0).round(6).tolist()
        [0.604997, 0.606467, 0.74531]
    """
    from scipy.special import i1e

    if decay == 0.0:
        log_kernel, depth = np.zeros_like(positions), -np.log(positions)
    else:
        log_kernel = math.log(decay / -math.expm1(-decay)) - decay * (1.0 - positions)
        # log((e^l - 1)/(e^{ls} - 1)) without overflow.
        depth = decay * (1.0 - positions) + np.log(-np.expm1(-decay)) - np.log(-np.expm1(-decay * positions))
    depth = np.maximum(depth, 0.0)
    root = np.sqrt(rate * time * depth)
    small = root < 1e-8
    ratio = np.where(small, 1.0, i1e(2.0 * root) / np.where(small, 1.0, root))
    # One exponential: a kernel that vanishes and a Bessel function that explodes may make a number.
    return np.exp(log_kernel + np.where(small, 0.0, 2.0 * root)) * rate * time * ratio


@formula(positions=INSIDE, time=Real(0.0), beta=TEMPERATURE, decay=Real(0.0), resolution=POSITIVE, normalised=Flag())
def retrieval_profile(
    *, positions: ArrayLike, time: float, beta: float, decay: float, resolution: float, normalised: bool = True
) -> np.ndarray:
    r"""Soft retrieval accuracy over source positions: sum_n exp(-pi^2 n^2/(2 M^2)) g_{a_n}(s), n >= 1.

    Args:
        positions: s in (0, 1), any shape.
        time: t.
        beta: inverse temperature in (0, 1e8].
        decay: l >= 0 of the causal graphon.
        resolution: M, angles further apart than about 1/M of a turn are told apart.
        normalised: SA, or USA.

    Source: arXiv 2605.09213.

    Examples:
        >>> from krause_dynamics import theory
        >>> positions = [0.05, 0.4, 0.95]
        >>> answer = theory.retrieval_profile(positions=positions, time=1.0, beta=1.0, decay=1.0, resolution=2.0)
        >>> answer.round(6).tolist()
        [0.164182, 0.150913, 0.203871]
    """
    degrees = _degrees(beta, resolution)
    total = np.zeros_like(positions)
    rates = mode_growth(degree=degrees, beta=beta, dimension=2, normalised=normalised)
    for degree, rate in zip(degrees, rates, strict=True):
        share = math.exp(-((math.pi * degree / resolution) ** 2) / 2.0)
        total = total + share * causal_response(positions=positions, time=time, rate=float(rate), decay=decay)
    return total


@formula(beta=TEMPERATURE, decay=POSITIVE, resolution=POSITIVE, normalised=Flag())
def recency_time(*, beta: float, decay: float, resolution: float, normalised: bool = True) -> float:
    r"""Time after which the retrieval profile falls towards the last token: recency is lost, primacy is left.

    2 (1 - e^{-l}) sum_n w_n a_n/sum_n w_n a_n^2, w_n = exp(-pi^2 n^2/(2 M^2)): the slope at s = 1 changes sign.

    Args:
        beta: inverse temperature in (0, 1e8].
        decay: l > 0.
        resolution: M.
        normalised: SA, or USA.

    Source: arXiv 2605.09213; derived from the slope of `causal_response` at 1, k (a t)(l - l a t/(2 (1 - e^{-l}))).

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.recency_time(beta=1.0, decay=1.0, resolution=2.0), 6)
        2.834755
    """
    degrees = _degrees(beta, resolution)
    rates = mode_growth(degree=degrees, beta=beta, dimension=2, normalised=normalised)
    # Over the weight of degree 1, which a coarse resolution takes below the floats.
    weighted = np.exp(-0.5 * (math.pi / resolution) ** 2 * (degrees**2 - 1.0)) * rates
    return float(-2.0 * math.expm1(-decay) * weighted.sum() / (weighted * rates).sum())


@formula(beta=TEMPERATURE, decay=POSITIVE, normalised=Flag())
def retrieval_time_bound(*, beta: float, decay: float, normalised: bool = True) -> float:
    r"""Time until which the retrieval profile is proved a U: min(3 - sqrt 3, 2 (1 - e^{-l}))/max_n a_n.

    Args:
        beta: inverse temperature in (0, 1e8].
        decay: l > 0.
        normalised: SA, or USA.

    Source: arXiv 2605.09213.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.retrieval_time_bound(beta=1.0, decay=1.0), 6)
        2.832145
    """
    degrees = _degrees(beta, math.inf)
    largest = float(mode_growth(degree=degrees, beta=beta, dimension=2, normalised=normalised).max())
    return min(3.0 - math.sqrt(3.0), -2.0 * math.expm1(-decay)) / largest
