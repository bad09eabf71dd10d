"""Brownian noise: the Euler-Maruyama method."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from krause_dynamics._array import Array, is_torch, like
from krause_dynamics.dynamics import Drift
from krause_dynamics.integrators.base import Integrator, Random


@dataclass(frozen=True, eq=False)
class EulerMaruyama(Integrator):
    """``x + dt f + noise sqrt(dt) P xi``, retracted, with independent standard normal xi (Maruyama 1955).

    P projects to the tangent space; the retraction adds the mean curvature term ``-noise^2 (d - 1)/2 x dt``, so that on
    spheres the limit is intrinsic Brownian motion (generator ``noise^2/2`` times the Laplacian), in Ito and in
    Stratonovich form alike. Strong order 1 in flat spaces, where the noise is additive (Kloeden & Platen 1992,
    section 10.2); weak order 1 everywhere. Fixed particles do not move. Without noise it is Euler's method.
    """

    order: ClassVar[int] = 1
    stability: ClassVar[float] = 2.0
    noisy: ClassVar[bool] = True

    def step(self, drift: Drift, t: float, x: Array, dt: float, rng: Random = None) -> Array:
        move = dt * drift(t, x)
        if drift.dynamics.noise > 0:
            kick = drift.space.project(x, standard_normal(x, rng))
            move = move + drift.hold(x, drift.dynamics.noise * math.sqrt(dt) * kick)
        return drift.space.retract(x + move)


def standard_normal(x: Array, rng: Random) -> Array:
    """Standard normal numbers with the shape, library, dtype and device of ``x``.

    A numpy generator draws in float64 on the host, so one seed gives one path in every library; a ``torch.Generator``
    draws on its own device, another stream of the same law.
    """
    if isinstance(rng, np.random.Generator):
        return like(rng.standard_normal(tuple(x.shape)), x)
    if is_torch(x):
        return x.new_empty(x.shape).normal_(generator=rng)
    raise TypeError(f"rng must be a numpy Generator for numpy positions, got {type(rng).__name__}")
