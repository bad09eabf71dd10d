"""Error-free transformations for the compiled loops: fused multiply-add, two-sum, and means of compensated sums."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.extending import intrinsic

from krause_dynamics._compiled import njit


@intrinsic
def _fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` rounded once: the exact error of a product is ``fma(a, b, -(a * b))``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), codegen


fma: Any = _fma  # numba's intrinsics carry the typing context in their signature, which callers do not pass


@njit(inline="always")
def two_sum(a: float, b: float) -> tuple[float, float]:
    """``a + b`` as rounded sum and exact error, whatever the order of magnitude (Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@njit(inline="always")
def quotient(high: float, low: float, divisor: float, divisor_low: float) -> float:
    """``(high + low) / (divisor + divisor_low)``, correctly rounded but for ties within 2^-100; odd in the
    numerator.
    """
    inverse = 1.0 / divisor
    first = high * inverse
    return first + (fma(-first, divisor, high) + (low - first * divisor_low)) * inverse
