"""One token of very large norm: it bounds the spectrum of a layer's states from one side."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import Real, Whole
from krause_dynamics.theory._formula import formula


@formula(massive=Real(0.0), others=Real(0.0), alignment=Real(0.0, 1.0, "[]"))
def leading_share_bound(*, massive: float, others: float, alignment: float = 0.0) -> float:
    r"""Least share of the first singular value, sigma_1^2/sum sigma^2 >= (M + a R)/(M + R), with a token of norm^2 M.

    sigma_1 is at least |X u| with u the direction of that token. Equality where u is the first right singular vector.

    Args:
        massive: M >= 0, squared norm of the token.
        others: R >= 0, sum of the squared norms of all others; M + R > 0.
        alignment: a in [0, 1], share of R along the direction of the token.

    Raises:
        ValueError: M + R = 0: no token has a length.

    Source: derived; massive activations and compression in arXiv 2510.06477.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.leading_share_bound(massive=90.0, others=10.0)
        0.9
    """
    if massive + others == 0.0:
        raise ValueError("massive + others must be positive: no token has a length, got 0")
    return (massive + alignment * others) / (massive + others)


@formula(share=Real(0.0, 1.0, "[]"), rank=Whole(1))
def spectral_entropy_bound(*, share: float, rank: int) -> float:
    r"""Largest entropy of sigma^2/sum sigma^2 with largest entry at least p: h(p) + (1 - p) log(r - 1), in nats.

    h(p) = -p log p - (1 - p) log(1 - p); log r where p <= 1/r says nothing. Equality for one value p and r - 1 equal
    ones. With p of `leading_share_bound` one massive token bounds the entropy of all states.

    Args:
        share: p, a lower bound of the largest entry.
        rank: r, number of singular values: the smaller of the numbers of tokens and of dimensions.

    Source: derived (Fano); massive activations and compression in arXiv 2510.06477.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.spectral_entropy_bound(share=0.9, rank=64), 6)
        0.739396
    """
    if share * rank <= 1.0:
        return math.log(rank)
    rest = 1.0 - share
    if rest == 0.0:
        return 0.0
    return -share * math.log(share) - rest * math.log(rest) + rest * float(np.log(rank - 1.0))
