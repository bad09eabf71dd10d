"""Several heads that share the dimensions among them: consensus under SA and under USA."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._arguments import Flag, Real, Whole
from krause_dynamics.theory._formula import formula


class HeadRates(NamedTuple):
    """Rates at which the distance of two tokens falls near a consensus with a 1/H of its length in each head.

    Attributes:
        across: Of differences that leave the share of every head alone.
        between: Of differences that move length from one head to another; negative: they grow.
    """

    across: float
    between: float


@formula(heads=Whole(), beta=Real(), normalised=Flag())
def multi_head_rates(*, heads: int, beta: float, normalised: bool = True) -> HeadRates:
    r"""Rates near consensus of H heads with Q_h = K_h = V_h the projection on a block of dimensions of its own.

    SA: 1 and 1, whatever H and b. USA: e^{b/H} and e^{b/H} (1 - b/H): **from b = H on a consensus that uses several
    heads equally is unstable**: tokens take the sides of single heads. One head has no differences between heads:
    both are e^b.

    Args:
        heads: H >= 1; the dimension is a multiple of it.
        beta: inverse temperature b, any sign, the same in all heads.
        normalised: True for SA, False for USA.

    Returns:
        A `HeadRates`, per unit of time; 1 - <x_i, x_j> falls twice as fast.

    Source: derived; several heads as in arXiv 2605.18870, 2605.04279.

    Examples:
        >>> from krause_dynamics import theory
        >>> [round(rate, 6) for rate in theory.multi_head_rates(heads=2, beta=3.0, normalised=False)]
        [4.481689, -2.240845]
    """
    if normalised:
        return HeadRates(1.0, 1.0)
    pull = float(np.exp(beta / heads))
    return HeadRates(pull, pull * (1.0 - beta / heads) if heads > 1 else pull)
