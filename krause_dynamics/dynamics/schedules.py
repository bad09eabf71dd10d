"""Things that change from layer to layer: rules and matrices as functions of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from krause_dynamics._value import Value


@dataclass(frozen=True, eq=False)
class PerLayer(Value):
    """``values[floor(t)]``: one rule or matrix per layer, the last one ever after.

    Fits every argument of `Dynamics` that may be a function of time, e.g. ``value=kd.PerLayer(matrices)`` with matrices
    (layers, d, d), or ``rule=kd.PerLayer((kd.krause(2.0), kd.krause(1.0)))``. Methods with stages between t and t + dt
    (`RK4`, `Adaptive`) look across the border of a layer, where they keep order 1: use dt = 1/m with `Euler` or
    `LayerStep`.

    Attributes:
        values: A sequence, or an array whose first axis is the layer.
    """

    values: Any

    def __post_init__(self) -> None:
        if len(self.values) == 0:
            raise ValueError("values must hold at least one layer, got none")

    def __call__(self, t: float) -> Any:
        # Times are sums of steps; half a millionth of a layer is far above their rounding.
        return self.values[min(max(int(t + 5e-7), 0), len(self.values) - 1)]
