"""How synchronized a cloud is: one number per state, the same functions for particles and hidden states.

Every function takes points (..., n, d) of numpy or torch and returns (...): the last two axes are removed. ``log_mass``
(..., n) weights the points by ``p = exp(log_mass) / sum exp(log_mass)``; -inf takes a point out (padding may hold
anything, NaN included). Without it ``p = 1/n``. Half types are computed, and returned, in float32.

Formulas follow the definitions of the literature on collapse in Transformers (2103.03404, 2312.10794, 2510.06477). All
of them are about the points as given: subtract a corpus mean, drop the sink token or standardise before the call.
"""

from krause_dynamics.analysis.observables._state import directions
from krause_dynamics.analysis.observables.dimension import two_nn
from krause_dynamics.analysis.observables.layers import linear_cka, procrustes_residual
from krause_dynamics.analysis.observables.rank import (
    effective_rank,
    matrix_entropy,
    numerical_rank,
    participation_ratio,
    residual,
    residual_composite,
    singular_values,
    stable_rank,
)
from krause_dynamics.analysis.observables.synchronization import (
    diameter,
    dispersion,
    mean_cosine,
    mean_step,
    norm_ratio,
    order_parameter,
)

__all__ = [
    "diameter",
    "directions",
    "dispersion",
    "effective_rank",
    "linear_cka",
    "matrix_entropy",
    "mean_cosine",
    "mean_step",
    "norm_ratio",
    "numerical_rank",
    "order_parameter",
    "participation_ratio",
    "procrustes_residual",
    "residual",
    "residual_composite",
    "singular_values",
    "stable_rank",
    "two_nn",
]
