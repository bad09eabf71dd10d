"""Images of a cloud behind a border: those that somebody within reach could hear."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from array_api_compat import device

from krause_dynamics._array import Array, like, namespace, to_numpy


def shifted(x: Array, shift: float) -> Array:
    """All positions moved alike."""
    return x + shift


def both_signs(copies: int) -> list[int]:
    """1, -1, 2, -2, ... up to a number of copies."""
    return [sign * k for k in range(1, copies + 1) for sign in (1, -1)]


def ghosts(
    x: Array, images: Sequence[Sequence[Callable[[Array], Array]]], lower: np.ndarray, upper: np.ndarray
) -> tuple[Array, np.ndarray]:
    """All combinations of each coordinate's images that some run of the batch sees within [lower, upper], (d,) each."""
    xp, n = namespace(x=x), x.shape[-2]
    low, high = like(lower, x), like(upper, x)
    positions, owners = [], []
    for combination in itertools.product(*images):
        copy = xp.stack([image(x[..., axis]) for axis, image in enumerate(combination)], axis=-1)
        inside = to_numpy(xp.all((copy >= low) & (copy <= high), axis=-1)).reshape(-1, n).any(axis=0)
        keep = np.flatnonzero(inside)
        if keep.size:
            positions.append(xp.take(copy, xp.asarray(keep, device=device(x)), axis=-2))
            owners.append(keep)
    return xp.concat(positions, axis=-2), np.concatenate(owners)
