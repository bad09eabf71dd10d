"""Tiles of inner products: which pairs could be near enough, before anybody measures."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS, COLUMNS = 512, 2048  # of a tile of inner products: 4 MiB in float32, which stays in the cache
DIRECT = ROWS * COLUMNS // 8  # exact distances a tile: with more, its products in float64 take less time (measured)


class Grams:
    """Inner products of the points, centred and scaled tile by tile, and a bound of their rounding.

    Centred, since ``|x|^2 + |y|^2 - 2 <x, y>`` cancels; scaled by a power of two (exact), so that no square overflows.
    No copy of all points is kept. Starts in the precision of the points; `refine` goes on in float64.

    Attributes:
        unit: The scale.
        squares: (m,) squared norms.
        norms: (m,) norms times the root of the relative bound: ``|x - y|^2`` is wrong by at most (norms sum)^2.
        precise: Whether the tiles are in float64.
    """

    def __init__(self, points: np.ndarray) -> None:
        self._points, self._centre = points, points.mean(axis=0)
        extent = max((float(np.max(np.abs(part - self._centre))) for part in self._parts()), default=0.0)
        self.unit = 2.0 ** np.ceil(np.log2(extent)) if extent > 0 else 1.0
        self._set(points.dtype)

    def refine(self) -> None:
        """Compute all further tiles in float64."""
        self._set(np.dtype(np.float64))

    def block(self, where: Any) -> np.ndarray:
        """Some points, centred and scaled, in the precision in force."""
        block = self._points[where].astype(self._dtype) - self._centre
        block *= self._dtype.type(1 / self.unit)
        return block

    def _set(self, dtype: np.dtype) -> None:
        self._dtype, self.precise = dtype, dtype == np.float64
        squares = [np.einsum("nd,nd->n", part, part) for part in map(self.block, self._slices())]
        self.squares = np.concatenate(squares).astype(np.float64)
        # Sums of d products in precision eps are wrong by at most d eps |x| |y|, the cast of x by eps |x|: together
        # (d + 4) eps (|x| + |y|)^2 on the squared distance.
        self.norms = np.sqrt((self._points.shape[1] + 4) * float(np.finfo(dtype).eps) * self.squares)

    def _slices(self) -> list[slice]:
        return [slice(start, start + COLUMNS) for start in range(0, len(self._points), COLUMNS)]

    def _parts(self) -> list[np.ndarray]:
        return [self._points[part] for part in self._slices()]
