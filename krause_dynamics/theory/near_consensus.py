"""Krause attention near consensus: when all admitted scores are equal, a layer averages over the neighbourhood.

The rate of synchronisation is then the spectrum of the uniform row-stochastic matrix of the neighbourhood: lambda
contracts by 1 - tau (1 - lambda) per layer of relaxation tau, or e^{-(1 - lambda) t} in continuous time.
Top-k breaks the degeneracy by rank and is not covered.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from krause_dynamics._arguments import LARGEST, Real, Whole, Word
from krause_dynamics.theory._formula import formula

SQUARE = 20_000  # rows of a dense matrix: 3.2 GB
PATTERN = Word(("cross", "square"))


def _odd_half_width(window: int, tokens: int) -> int:
    size, n = window, tokens
    if size % 2 == 0:
        raise ValueError(f"window must be odd for a two-sided neighbourhood, got {size}; use {size - 1} or {size + 1}")
    if size > n:
        raise ValueError(f"window must not exceed the number of tokens {n}, got {size}")
    return (size - 1) // 2


@formula(eigenvalue=Real(), step=Real())
def layer_factor(eigenvalue: float, *, step: float = 1.0) -> float:
    r"""Contraction per layer of the mode with eigenvalue lambda: 1 - tau (1 - lambda).

    Args:
        eigenvalue: lambda of the averaging matrix.
        step: tau, relaxation of the layer.

    Source: derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.layer_factor(0.5, step=0.5)
        0.75
    """
    return 1.0 - step * (1.0 - eigenvalue)


@formula(tokens=Whole(most=LARGEST), window=Whole())
def ring_eigenvalues(*, tokens: int, window: int) -> np.ndarray:
    r"""Eigenvalues of averaging over a two-sided window on a ring: (1 + 2 sum_{j<=w} cos(2 pi m j/n))/(2w + 1).

    Args:
        tokens: n.
        window: 2w + 1, odd, in tokens, own included.

    Returns:
        Shape (n,), in the order of the Fourier mode m = 0..n-1; m = 1 is the slowest but one.

    Source: derived (circulant matrix, Dirichlet kernel).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.ring_eigenvalues(tokens=6, window=3).round(6).tolist()
        [1.0, 0.666667, 0.0, -0.333333, -0.0, 0.666667]
    """
    w, n = _odd_half_width(window, tokens), tokens
    from scipy.special import diric

    return diric(2.0 * np.pi * np.arange(n) / n, 2 * w + 1)


@formula(tokens=Whole(most=SQUARE), window=Whole())
def band_eigenvalues(*, tokens: int, window: int) -> np.ndarray:
    r"""Eigenvalues, descending, of averaging over a two-sided window that shrinks at both ends.

    D^{-1} A is similar to the symmetric D^{-1/2} A D^{-1/2}, hence real eigenvalues.

    Args:
        tokens: n.
        window: 2w + 1, odd, in tokens, own included.

    Source: classical (similar to a symmetric matrix).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.band_eigenvalues(tokens=4, window=3).round(6).tolist()
        [1.0, 0.728714, 0.166667, -0.228714]
    """
    w, n = _odd_half_width(window, tokens), tokens
    index = np.arange(n)
    return _averaging_eigenvalues(np.abs(index[:, None] - index[None, :]) <= w)


@formula(height=Whole(), width=Whole(), pattern=PATTERN, radius=Whole(0))
def vit_allowed_pairs(*, height: int, width: int, pattern: Literal["cross", "square"], radius: int = 1) -> int:
    r"""Number of allowed pairs of a patch mask with a class token that sees and is seen by all.

    Square: sum over offsets of (H - |dr|)(W - |dc|), Chebyshev distance up to r; cross: cells at city-block distance
    up to r. The class token adds 2 H W + 1.

    Args:
        height: H patches.
        width: W patches.
        pattern: "cross" (4 neighbours and self at radius 1, CIFAR) or "square" (5 x 5 at radius 2, ImageNet).
        radius: r, in patches of the grid, city-block (cross) or Chebyshev (square).

    Source: masks of the public code of arXiv 2602.11534; count derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.vit_allowed_pairs(height=8, width=8, pattern="cross")
        417
    """
    h, w = height, width
    rows, columns = min(radius, h - 1), min(radius, w - 1)  # beyond the picture there is nobody
    down = np.abs(np.arange(-rows, rows + 1))[:, None]
    across = np.abs(np.arange(-columns, columns + 1))
    near = (down + across <= radius) if pattern == "cross" else True
    return int(((h - down) * (w - across) * near).sum()) + 2 * h * w + 1


@formula(height=Whole(), width=Whole(), pattern=PATTERN, radius=Whole(0))
def vit_eigenvalues(*, height: int, width: int, pattern: Literal["cross", "square"], radius: int = 1) -> np.ndarray:
    """Eigenvalues, descending, of averaging over a patch neighbourhood with a class token (index 0).

    Args:
        height: H patches.
        width: W patches.
        pattern: "cross" or "square", as in `vit_allowed_pairs`.
        radius: r, in patches of the grid.

    Returns:
        Shape (H W + 1,).

    Source: masks of the public code of arXiv 2602.11534.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.vit_eigenvalues(height=8, width=8, pattern="cross")[:2].round(6).tolist()
        [1.0, 0.784655]
    """
    h, w = height, width
    if h * w >= SQUARE:
        raise ValueError(f"height * width must be below {SQUARE}, for the memory of the matrix, got {h} * {w}")
    row, column = np.divmod(np.arange(h * w), w)
    down, across = np.abs(row[:, None] - row), np.abs(column[:, None] - column)
    near = (down + across if pattern == "cross" else np.maximum(down, across)) <= radius
    support = np.ones((h * w + 1, h * w + 1), dtype=bool)
    support[1:, 1:] = near
    return _averaging_eigenvalues(support)


def _averaging_eigenvalues(support: np.ndarray) -> np.ndarray:
    degree = np.sqrt(support.sum(axis=1))
    return np.linalg.eigvalsh(support / np.outer(degree, degree))[::-1]
