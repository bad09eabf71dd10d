"""How far back a stack of causal layers looks when all admitted tokens weigh the same: windows, and the whole past.

A layer is x <- alpha x + (1 - alpha) A x with residual weight alpha. The number of attention hops of an influence over
L layers is Binomial(L, 1 - alpha); within a window of W tokens each hop is uniform on lags 0..W-1, over the whole past
it is uniform on the positions before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics._arguments import LARGEST, ArrayLike, Real, Reals, Whole
from krause_dynamics.theory._formula import formula

RESIDUAL = Real(0.0, 1.0, "[]")


class StackReach(NamedTuple):
    """What a token hears through a stack of causal windows, in tokens back.

    Attributes:
        mean: Mean lag.
        deviation: Standard deviation of the lag.
        horizon: Largest lag with any influence; beyond it the gradient is exactly 0.
    """

    mean: float
    deviation: float
    horizon: int


@formula(layers=Whole(), window=Whole(), residual=RESIDUAL)
def stack_reach(*, layers: int, window: int, residual: float = 0.0) -> StackReach:
    r"""Lag of what a token hears through L layers of a causal window W: mean, deviation and hard horizon.

    mean = L (1-alpha)(W-1)/2,  variance = L [(1-alpha)(W-1)(2W-1)/6 - ((1-alpha)(W-1)/2)^2],  horizon = L (W-1).

    Args:
        layers: L.
        window: W, the last W tokens, own included.
        residual: alpha, weight of the token itself beside the attention; 0 is pure attention.

    Returns:
        A `StackReach`, in tokens; exact for equal weights and tokens further than the horizon from the start.

    Source: derived. The common rule that influence falls like (1-alpha)^(lag/W), whatever the depth (a horizon of 1.5 W
        at alpha = 0.95), leaves out the Binomial(L, 1-alpha) number of hops; the mean grows with L.

    Examples:
        >>> from krause_dynamics import theory
        >>> [round(float(part), 6) for part in theory.stack_reach(layers=12, window=32, residual=0.95)]
        [9.3, 13.714682, 372.0]
    """
    share = 1.0 - residual
    step = share * (window - 1) / 2.0
    square = share * (window - 1) * (2.0 * window - 1.0) / 6.0
    return StackReach(layers * step, float(np.sqrt(layers * (square - step * step))), layers * (window - 1))


@formula(layers=Whole(), window=Whole(), residual=RESIDUAL)
def stack_influence(*, layers: int, window: int, residual: float = 0.0) -> np.ndarray:
    r"""Influence of each lag on a token after L layers of a causal window W: the law behind `stack_reach`.

    Coefficients of (alpha + (1-alpha)(1 + z + ... + z^{W-1})/W)^L, by a Fourier transform: absolute error about 1e-16.

    Args:
        layers: L.
        window: W, the last W tokens, own included.
        residual: alpha.

    Returns:
        Shape (L (W - 1) + 1,), lags 0, 1, ...; sums to 1.

    Raises:
        ValueError: More lags than memory should hold.

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.stack_influence(layers=2, window=3, residual=0.5).round(6).tolist()
        [0.444444, 0.222222, 0.25, 0.055556, 0.027778]
    """
    lags = layers * (window - 1) + 1
    Whole(most=LARGEST).read("layers * (window - 1) + 1", lags)
    hop = np.full(window, (1.0 - residual) / window)
    hop[0] += residual
    law = np.fft.irfft(np.fft.rfft(hop, max(lags, 2)) ** layers, max(lags, 2))[:lags]
    return np.maximum(law, 0.0)


@formula(positions=Reals(0.0, 1.0, "()"), layers=Whole(1, 10**6), residual=RESIDUAL)
def causal_influence(*, positions: ArrayLike, layers: int, residual: float = 0.0) -> tuple[np.ndarray, float]:
    r"""Influence of earlier tokens on the last one through L causal layers with equal weights, many tokens.

    density(x) = sum_{k=1}^{L} C(L, k) (1-alpha)^k alpha^{L-k} log(1/x)^{k-1}/(k-1)!,   own = alpha^L.

    A hop takes position y to a uniform point of [0, y], so that k hops have density log(1/x)^{k-1}/(k-1)!: early tokens
    win, and with a residual the last token keeps an atom. Hence "lost in the middle" before any training.

    Args:
        positions: x in (0, 1), any shape: source index / number of tokens.
        layers: L.
        residual: alpha; 0 gives the powers of the Cesaro matrix.

    Returns:
        (density, own): density over x of the influence, and what the last token keeps; density integrates to 1 - own.
        A finite context of n tokens differs by O(1/n).

    Source: arXiv 2603.10123, 2602.16837 (powers of the Cesaro matrix); the residual mixture is derived.

    Examples:
        >>> import numpy as np
        >>> from krause_dynamics import theory
        >>> [np.round(part, 6).tolist() for part in theory.causal_influence(positions=[0.1, 0.9], layers=4)]
        [[2.034679, 0.000195], 0.0]
    """
    from scipy.special import gammaln, xlogy

    hops = np.arange(1, layers + 1)
    log_binomial = gammaln(layers + 1) - gammaln(hops + 1) - gammaln(layers - hops + 1)
    log_share = log_binomial + xlogy(hops, 1.0 - residual) + xlogy(layers - hops, residual) - gammaln(hops)
    log_log = np.log(-np.log(positions))[..., None]
    return np.exp(log_share + (hops - 1) * log_log).sum(axis=-1), residual**layers
