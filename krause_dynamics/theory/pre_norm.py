"""Pre-norm self-attention: tokens in R^d which are normalised before attention, so that radii grow and angles freeze.

dx_i/dt = sum_j a_ij y_j with y = x/|x| and s_ij = beta <y_i, y_j>. With equal radii r and equal inner products
rho = <y_i, y_j>:

    r'   = rho + (1 - rho) a_ii,        rho' = (1/r) (equiangular rate of SA at rho)

hence r ~ t and 1 - rho ~ t^-2: consensus is reached polynomially, not exponentially. Source: arXiv 2510.22026 (pre-norm
against post-norm); the equiangular reduction is derived.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Real, Reals, Whole
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.layer_norm import layer_norm_equiangular


@formula(
    times=Reals(0.0, ndim=1, rising=True), start=Real(-1.0, 1.0, "()"), beta=Real(), tokens=Whole(2), radius=POSITIVE
)
def pre_norm_equiangular(
    *, times: ArrayLike, start: float, beta: float, tokens: int, radius: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Inner product and radius of equiangular tokens under pre-norm attention.

    Args:
        times: increasing times >= 0, shape (t,).
        start: initial inner product in (-1/(n-1), 1).
        beta: inverse temperature.
        tokens: number of tokens n.
        radius: common initial norm of the tokens (unit: position); 1, a layer-normalised start.

    Returns:
        (rho, r), each of shape (t,), relative error about 1e-10.

    Source: arXiv 2510.22026; reduction derived.

    Examples:
        >>> import numpy as np
        >>> from krause_dynamics import theory
        >>> answer = theory.pre_norm_equiangular(times=[0.0, 2.0], start=0.1, beta=2.0, tokens=4)
        >>> [np.round(part, 6).tolist() for part in answer]
        [[0.1, 0.5583], [1.0, 2.429528]]
    """
    return layer_norm_equiangular(times=times, start=start, beta=beta, tokens=tokens, scheme="pre", radius=radius)


def pre_norm_exponents() -> tuple[float, float]:
    r"""Long-time exponents (p, q) of r ~ t^p and 1 - rho ~ t^q for pre-norm attention: (1, -2).

    From r' -> 1 and (1 - rho)' = -2 (1 - rho)/r. Source: arXiv 2510.22026.

    Examples:
        >>> from krause_dynamics import theory
        >>> [round(float(part), 6) for part in theory.pre_norm_exponents()]
        [1.0, -2.0]
    """
    return 1.0, -2.0
