"""Times of travel and solutions at given times, where speeds leave the range of floats."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

BEYOND = 3.0 * math.log(np.finfo(float).max)  # even a peak of the slowness one smallest float wide takes for ever
HALVINGS = 50  # towards either end, where a metastable state spends all its time: the last piece is below rounding


def travel_time(log_slowness: Callable[[float], Any], low: float, high: float) -> float:
    """Integral of exp(log_slowness) from ``low`` to ``high``, about 1e-11 relative; infinite beyond the largest float.

    The pieces halve towards both ends, so that a peak there is met however narrow, and the largest exponent is taken
    out before any exponential.
    """
    from scipy.integrate import IntegrationWarning, quad

    if high <= low:
        return 0.0
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    steps = half * (1.0 - 0.5 ** np.arange(HALVINGS + 1))
    # A speed that vanishes at 0 asks for pieces that halve down to a small ``low``.
    pieces = min(1100, math.ceil(math.log2(high) - math.log2(low))) if low > 0.0 else 0
    towards = high * 0.5 ** np.arange(pieces)
    nodes = np.unique(np.concatenate([middle - steps, middle + steps, towards, [low, high]]))
    # Two neighbouring floats have nothing between them: the slowness at an end stands for both.
    largest = max(float(log_slowness(x)) for x in (nodes[1:-1] if len(nodes) > 2 else nodes[:1]))
    if low == 0.0 and float(log_slowness(low)) == math.inf:
        raise ValueError(f"stop must be above 0, where the speed is 0, got {low!r} on the way from {high!r}")
    if largest > BEYOND:
        return math.inf

    def slowness(x: float) -> float:
        return math.exp(float(log_slowness(x)) - largest)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntegrationWarning)  # of the smallest pieces, a few roundings wide
        # Gauss-Kronrod nodes lie inside, where the slowness is finite.
        parts = [quad(slowness, a, b, epsabs=0.0, epsrel=1e-11, limit=200) for a, b in pairwise(nodes)]
    total, error = (math.fsum(part) for part in zip(*parts, strict=True))
    log_time = largest + math.log(total)
    if log_time > math.log(np.finfo(float).max) + error / total:
        return math.inf
    if not error <= 1e-8 * total:
        raise ValueError(
            f"stop and start must be further from where the speed is 0 than rounding tells, got {low!r} and {high!r}: "
            f"the quadrature between them leaves a relative error of {error / total:.1e}"
        )
    return math.exp(log_time)


def at_times(rates: Callable[[float, Any], Any], times: np.ndarray, start: list[float], *, atol: float) -> np.ndarray:
    """Solution (variables, times) of an autonomous equation from time 0.

    Raises:
        ValueError: The solver cannot follow it.
    """
    from scipy.integrate import solve_ivp

    if times[-1] == 0.0:
        return np.repeat(np.asarray(start, dtype=float)[:, None], len(times), axis=1)
    moments, place = np.unique(times, return_inverse=True)  # a time may be asked for twice
    solution = solve_ivp(rates, (0.0, float(times[-1])), start, "DOP853", t_eval=moments, rtol=1e-12, atol=atol)
    if not solution.success:
        raise ValueError(f"times must end where the solution can be followed, got {times[-1]!r}: {solution.message}")
    return np.asarray(solution.y)[:, place]
