"""Many equal steps of one rule, in words that a form understands without knowing integrators, spaces or dynamics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from krause_dynamics._array import Array

ManySteps = Callable[[Array, int], Array]  # (x, steps) -> x after that many steps


class Scheme(NamedTuple):
    """How an integrator steps, where a form may do it in one call.

    Attributes:
        method: ``"euler"``: ``x + dt v``; ``"rk4"``: the classical Runge-Kutta method; each stage is retracted.
        projected: Whether velocities are projected to the tangent space before they are added.
    """

    method: Literal["euler", "rk4"]
    projected: bool = True


@dataclass(frozen=True)
class Steps:
    """Steps of particles which hear one another: queries, sources and values are the positions.

    Attributes:
        scheme: How each step is made.
        dt: Its length.
        relative: Whether velocities point towards the mean, or along it.
        sphere: Whether points are kept on the unit sphere, or move freely.
        log_mass: log m_i, (n,) or (*batch, n); ``None``: -log n each.
    """

    scheme: Scheme
    dt: float
    relative: bool
    sphere: bool
    log_mass: Array | None = None
