"""What functions of the user give back: one value for each particle, or an error that names the function."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._array import Array, like


def returned(name: str, result: Any, x: Array, *, broadcasts: bool = False, wide: bool = False) -> Array:
    """``result`` with the shape, library, dtype and device of the positions.

    Another shape would broadcast against the positions without a word: n values of a line to n x n, one row to all.

    Args:
        name: Of the function, for messages.
        result: What it returned for ``x``.
        x: Positions, (*batch, n, d).
        broadcasts: Whether a number or (d,) stands for all particles alike, such as a wind.
        wide: Whether each particle may have another number of values than coordinates, as V leads back to these.

    Raises:
        TypeError: No array, or one of another library.
        ValueError: Another shape.
    """
    if type(result) is type(x) and result.shape == x.shape and result.dtype == x.dtype:
        return result
    wanted = tuple(x.shape)
    try:
        array = like(np.nan if result is None else result, x)
    except (TypeError, ValueError, RuntimeError):
        array = None
    if result is None or array is None:
        raise TypeError(
            f"{name} must return an array of the positions' library, shape {wanted}, got {type(result).__name__}"
        )
    shape = tuple(array.shape)
    if shape == wanted or (broadcasts and shape in ((), wanted[-1:])) or (wide and shape[:-1] == wanted[:-1]):
        return array
    raise ValueError(f"{name} must return one value for each particle, shape {wanted} as the positions, got {shape}")
