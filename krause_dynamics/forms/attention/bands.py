"""Index windows as bands: what `Causal` and plain `Window` parts mean for ``i - j``."""

from __future__ import annotations

import math

from krause_dynamics.interaction import Causal, Everyone, Interaction, Window


def is_banded(interaction: Interaction) -> bool:
    """Whether all parts are `Everyone`, `Causal` or a `Window` that is no ring."""
    return all(
        isinstance(p, Everyone | Causal) or (isinstance(p, Window) and not p.periodic) for p in interaction.parts
    )


def band(interaction: Interaction) -> tuple[float, float]:
    """``low <= i - j <= high`` for the index windows of a rule; infinite where everyone is heard."""
    low, high = -math.inf, math.inf
    for part in interaction.parts:
        if isinstance(part, Causal):
            low = max(low, 0)
        elif isinstance(part, Window):
            half = (part.size - 1) // 2
            low = max(low, -half if part.two_sided else 0)
            high = min(high, half if part.two_sided else part.size - 1)
    return low, high
