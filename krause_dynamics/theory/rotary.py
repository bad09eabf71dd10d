"""Rotary positions (RoPE) on a ring of tokens on the circle: twisted states and their spectrum.

Token i at angle theta_i scores token j by b cos(theta_i - theta_j - w (i - j)) and is pulled by sin(theta_j - theta_i):
queries and keys are turned, values are not. theta_i = k i is stationary for every twist k, k = 0 (consensus) as well.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import LARGEST, Real, Whole
from krause_dynamics.theory._angles import versine
from krause_dynamics.theory._formula import formula


@formula(tokens=Whole(2, most=LARGEST), twist=Real(), frequency=Real(), beta=Real())
def rotary_ring_eigenvalues(*, tokens: int, twist: float, frequency: float, beta: float) -> np.ndarray:
    r"""Eigenvalues of the twisted state theta_i = 2 pi q i/n on a ring under rotary positions w = 2 pi m/n, SA.

    lambda_p = -(1/Z) sum_d e^{b cos(f d)} (cos(k d) - b sin(f d) sin(k d)) (1 - cos(2 pi p d/n)),  k = 2 pi q/n,
    f = k - w, Z = sum_d e^{b cos(f d)}, d = 0..n-1.

    Args:
        tokens: n >= 2.
        twist: q, whole turns around the ring; 0 is consensus.
        frequency: m, whole turns of the rotary positions around the ring.
        beta: inverse temperature b.

    Returns:
        Shape (n,), in the order of p; p = 0 is the common rotation. Consensus is stable: all others are negative.

    Raises:
        ValueError: A twist or a frequency that is not whole: the ring would not close.

    Source: derived; setting of arXiv 2607.24502 (which sums the same series by Bessel functions and aliases).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.rotary_ring_eigenvalues(tokens=6, twist=0, frequency=1, beta=1.0).round(6).tolist()
        [0.0, -0.55341, -0.890622, -0.964982, -0.890622, -0.55341]
    """
    for name, value in (("twist", twist), ("frequency", frequency)):
        if value != round(value):
            raise ValueError(f"{name} must be a whole number of turns, or the ring does not close, got {value!r}")
    lag = 2.0 * np.pi * np.arange(tokens) / tokens
    score = -beta * versine((twist - frequency) * lag)
    weight = np.exp(score - score.max())
    slope = weight * (np.cos(twist * lag) - beta * np.sin((twist - frequency) * lag) * np.sin(twist * lag))
    spectrum = np.fft.fft(slope).real
    return (spectrum - spectrum[0]) / weight.sum()
