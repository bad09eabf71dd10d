"""Angles and directions: 1 - cos without cancellation, and unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

SINGLE = 1e-6  # a few roundings of float32, in which states of models come


def versine(angle: Any) -> Any:
    """1 - cos(angle), to rounding of itself; radians, any shape. At low temperature angles of beta^{-1/2} decide."""
    return 2.0 * np.sin(0.5 * angle) ** 2


def unit_vectors(name: str, x: np.ndarray) -> np.ndarray:
    """Rows (n, d) of length 1 to rounding of single precision, made so to double.

    Raises:
        ValueError: Others.
    """
    lengths = np.linalg.norm(x, axis=1)
    wrong = float(lengths[np.argmax(np.abs(lengths - 1.0))])
    if not abs(wrong - 1.0) <= SINGLE:
        raise ValueError(f"{name} must hold unit vectors, got one of length {wrong!r}; divide by the lengths")
    return np.asarray(x / lengths[:, None])
