"""Query, key and value matrices that the literature studies."""

from __future__ import annotations

import math

import numpy as np

from krause_dynamics._arguments import Entries, Sizes, Whole, affordable, reads
from krause_dynamics._array import as_generator

__all__ = ["gaussian", "goe", "gradient_flow", "orthogonal"]

LARGEST_SIDE = 1e4  # a matrix of 800 MB


@reads(d=Whole(1, LARGEST_SIDE), leading=Sizes())
def gaussian(d: int, rng: int | np.random.Generator, *, leading: tuple[int, ...] = ()) -> np.ndarray:
    """Independent N(0, 1/d) entries (Ginibre): eigenvalues fill the unit disc; the usual initialisation of a layer.

    Args:
        d: Dimension.
        rng: Seed or generator.
        leading: Further axes in front, such as (heads,) or (layers, heads).

    Returns:
        (*leading, d, d) float64.

    Raises:
        ValueError: More entries than memory holds.
    """
    affordable("entries of leading matrices", math.prod(leading) * d * d)
    return as_generator(rng).standard_normal((*leading, d, d)) / np.sqrt(d)


@reads(d=Whole(1, LARGEST_SIDE), leading=Sizes())
def goe(d: int, rng: int | np.random.Generator, *, leading: tuple[int, ...] = ()) -> np.ndarray:
    """Gaussian orthogonal ensemble, scaled so that eigenvalues fill [-2, 2]: symmetric, variance 1/d off the diagonal.

    Args:
        d: Side.
        rng: Seed or generator.
        leading: Axes before the two of a matrix, such as (heads,); by default none.

    Returns:
        numpy (*leading, d, d).
    """
    square = gaussian(d, rng, leading=leading)
    return (square + np.swapaxes(square, -1, -2)) / np.sqrt(2.0)


@reads(d=Whole(1, LARGEST_SIDE), leading=Sizes())
def orthogonal(d: int, rng: int | np.random.Generator, *, leading: tuple[int, ...] = ()) -> np.ndarray:
    """Haar-distributed orthogonal matrices (QR of `gaussian` with the signs of R's diagonal fixed; Mezzadri 2007).

    Args:
        d: Side.
        rng: Seed or generator.
        leading: Axes before the two of a matrix, such as (heads,); by default none.

    Returns:
        numpy (*leading, d, d).
    """
    q, r = np.linalg.qr(gaussian(d, rng, leading=leading))
    return q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


@reads(query=Entries((2, 2)), key=Entries((2, 2)))
def gradient_flow(query: np.ndarray, key: np.ndarray) -> np.ndarray:
    """The value matrix that makes per-capita softmax a gradient flow: V = Q^T K where that is symmetric.

    ``E(x) = (1/2 n^2) sum_ij exp <Q x_i, K x_j>`` then has gradient ``(1/n) sum_j exp <Q x_i, K x_j> Q^T K x_j`` times
    1/n (2312.10794 section 3.3 with general matrices).

    Args:
        query: Q, (d', d).
        key: K, (d', d).

    Returns:
        (d, d).

    Raises:
        ValueError: Q^T K is not symmetric: then no energy exists.
    """
    product = query.T @ key
    if not np.allclose(product, product.T, rtol=0, atol=1e-10 * np.abs(product).max()):
        raise ValueError("Q^T K must be symmetric for a gradient flow; take key = query, or a symmetric Q with K = I")
    return product
