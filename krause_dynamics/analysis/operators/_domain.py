"""What the operators take for a matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ROUNDING = 1e-6  # of a row's sum: float32 weights of some thousand sources


@dataclass(frozen=True)
class Matrix:
    """Two axes, dense or sparse; ``stochastic`` rows sum to 1 (or to 0: nobody is heard) and are not negative."""

    stochastic: bool = False
    square: bool = False

    def read(self, name: str, value: Any) -> Any:
        """The matrix; lists become arrays.

        Raises:
            TypeError: No matrix of numbers.
            ValueError: Another shape, or rows that are no weights.
        """
        from scipy import sparse

        x = value if sparse.issparse(value) or isinstance(value, np.ndarray) else self._dense(name, value)
        if x.dtype.kind not in "biuf":
            raise TypeError(f"{name} must be a matrix of real numbers, got dtype {x.dtype}")
        if x.ndim != 2 or (self.square and x.shape[0] != x.shape[1]):
            raise ValueError(f"{name} must be {'square' if self.square else 'a matrix'}, got shape {x.shape}")
        if self.stochastic:
            self._check_rows(name, x)
        return x

    @staticmethod
    def _dense(name: str, value: Any) -> Any:
        try:
            return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        except (TypeError, ValueError):
            raise TypeError(
                f"{name} must be a matrix of numbers, dense or sparse, got {type(value).__name__}"
            ) from None

    @staticmethod
    def _check_rows(name: str, x: Any) -> None:
        sums = np.asarray(x.sum(axis=1)).ravel()
        entries = x.data if hasattr(x, "tocsr") else x
        wrong = ~((np.abs(sums - 1) <= ROUNDING) | (sums == 0))
        if wrong.any() or (entries.size and not entries.min() >= 0):
            shown = (
                f"row {int(np.flatnonzero(wrong)[0])} sums to {sums[wrong][0]:.6g}"
                if wrong.any()
                else "one is negative"
            )
            raise ValueError(f"{name} must be row-stochastic, as operators.matrix gives it, but {shown}")
