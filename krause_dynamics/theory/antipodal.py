"""Two antipodal atoms under USA: stationary at every temperature though their mean is not 0, and never stable."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._arguments import Real
from krause_dynamics.theory._formula import formula


class AntipodalRates(NamedTuple):
    """Eigenvalues of USA at two antipodal atoms of masses m and 1 - m.

    Attributes:
        first: Of a token against its atom, the one of mass m.
        second: Likewise, of mass 1 - m.
        angle: Of the angle between the atoms; positive, so that they meet.
    """

    first: float
    second: float
    angle: float


@formula(mass=Real(0.0, 1.0, "()"), beta=Real())
def antipodal_rates(*, mass: float, beta: float) -> AntipodalRates:
    r"""Rates at which two antipodal atoms spread and turn: (1-m) e^{-b} - m e^b, m e^{-b} - (1-m) e^b, e^{-b}.

    m delta_e + (1-m) delta_{-e} is stationary for every b, and its mean has |R|^2 = (2m - 1)^2: exponential clustering
    from R > 0 needs a density. The lighter atom spreads where e^{2b} < m/(1-m).

    Args:
        mass: m in (0, 1).
        beta: b, any sign.

    Returns:
        An `AntipodalRates`, per unit of time of USA; the same in every dimension.

    Source: counterexample of the remark in arXiv 2504.14697; eigenvalues derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> [round(float(part), 6) for part in theory.antipodal_rates(mass=0.75, beta=0.0)]
        [-0.5, 0.5, 1.0]
    """
    up, down = float(np.exp(beta)), float(np.exp(-beta))
    return AntipodalRates((1.0 - mass) * down - mass * up, mass * down - (1.0 - mass) * up, down)
