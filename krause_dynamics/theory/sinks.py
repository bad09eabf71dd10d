"""Attention sinks are necessary: a normalised row that must give nothing has to rest on a token that holds nothing."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import ArrayLike, Reals
from krause_dynamics.theory._formula import formula


@formula(error=Reals(0.0), tokens=Reals(1.0))
def sink_mass_bound(*, error: ArrayLike, tokens: ArrayLike) -> np.ndarray:
    r"""Least weight on a sink of a normalised row that outputs 0 up to a mean squared error: max(0, 1 - sqrt(n e)).

    The row averages n independent contents of unit variance per coordinate; the output has variance sum_j a_j^2 >=
    (1 - s)^2/n per coordinate for weight s on the sink.

    Args:
        error: e, mean squared output per coordinate where it should be 0; any shape.
        tokens: n, other tokens that the row may hear; broadcasts.

    Source: derived (Cauchy-Schwarz), for rows that do not depend on contents; the phenomenon is theorem 1 of arXiv
        2603.11487. Rows without normalisation (ReLU attention) have no such bound: all their weights may be 0.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(float(theory.sink_mass_bound(error=0.001, tokens=12)), 6)
        0.890455
    """
    return np.maximum(0.0, 1.0 - np.sqrt(tokens * error))
