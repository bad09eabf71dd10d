"""Where a Transformer normalises: seven schemes as dynamics of tokens, each a speed at which directions move."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from krause_dynamics._arguments import POSITIVE, Word, reads
from krause_dynamics._array import Array, namespace
from krause_dynamics._value import Value
from krause_dynamics.dynamics.dynamics import Dynamics
from krause_dynamics.interaction import Interaction
from krause_dynamics.spaces import Euclidean, Sphere

SCHEMES = Word(("post", "pre", "peri", "ngpt", "scaled", "pre_scaled", "mix"))


@dataclass(frozen=True, eq=False)
class UnitResponse(Value):
    """The layer's output normalised before it is added: ``rate A/|A|``, and 0 where A is 0 (Peri-LN, nGPT)."""

    rate: float = 1.0

    def __call__(self, t: float, x: Array, drift: Array) -> Array:
        xp = namespace(x=drift)
        length = xp.sqrt(xp.sum(drift * drift, axis=-1, keepdims=True))
        return self.rate * drift / xp.where(length > 0, length, xp.ones_like(length))


@dataclass(frozen=True, eq=False)
class FadingResponse(Value):
    """The layer's output divided by the root of the depth: ``A/sqrt(t + 1)`` (LN-scaling, 2502.05795)."""

    def __call__(self, t: float, x: Array, drift: Array) -> Array:
        return drift / math.sqrt(t + 1.0)


@dataclass(frozen=True, eq=False)
class MixedResponse(Value):
    """Lengths kept before ``switch`` (Post-LN), free after it (Pre-LN): Mix-LN, 2412.13795."""

    switch: float = 1.0

    def __call__(self, t: float, x: Array, drift: Array) -> Array:
        if t >= self.switch:
            return drift
        direction = Sphere().retract(x)
        return Sphere().project(direction, drift)


@reads(scheme=SCHEMES, rate=POSITIVE, switch=POSITIVE)
def layer_normed(
    rule: Interaction | Callable[[float], Interaction],
    scheme: Literal["post", "pre", "peri", "ngpt", "scaled", "pre_scaled", "mix"],
    *,
    rate: float = 1.0,
    switch: float = 1.0,
    **more: Any,
) -> Dynamics:
    r"""Tokens of a Transformer that normalises by a scheme; the rule sees directions y = x/|x|.

    With x = r y and A what is heard, directions move by ``y' = P A/s`` (P projects tangent at y):

    ==============  =====================  ================
    scheme          s                      r'
    ==============  =====================  ================
    post            1                      0 (on the sphere)
    pre             r                      <y, A>
    peri            r |A|                  <y, A>/|A|
    ngpt            |A|/rate               0 (on the sphere)
    scaled          sqrt(t + 1)            0 (on the sphere)
    pre_scaled      r sqrt(t + 1)          <y, A>/sqrt(t + 1)
    mix             1, r after ``switch``  0, then <y, A>
    ==============  =====================  ================

    `LayerStep` makes layers of them (Mix-LN keeps lengths in continuous time, its layers to order dt^2).
    `kd.theory.layer_norm_equiangular` predicts inner products under each of them.

    Args:
        rule: The interaction, or a function of time.
        scheme: One of the words above. ``"scaled"`` is LN-scaling as it is analysed in 2510.22026, on the sphere;
            ``"pre_scaled"`` is LN-scaling as it is used (2502.05795), in a pre-norm Transformer, by what it does to
            values; scores are not scaled.
        rate: alpha of nGPT, the share of the normalised output that is added; 1.
        switch: Time of the last Post-LN layer of ``"mix"``; 1, one layer.
        **more: Further fields of `Dynamics`, such as ``value``.

    Returns:
        A `Dynamics`: on `Sphere` for post, ngpt and scaled, else in R^d, to be started from unit vectors.

    Raises:
        ValueError: An unknown scheme, or a rate or switch that is not positive.

    Source: 2510.22026.
    """
    on_sphere: dict[str, Any] = {
        "post": None,
        "ngpt": UnitResponse(rate),
        "scaled": FadingResponse(),
    }
    if scheme in on_sphere:
        return Dynamics(rule, Sphere(), response=on_sphere[scheme], **more)
    response = {
        "pre": None,
        "peri": UnitResponse(),
        "pre_scaled": FadingResponse(),
        "mix": MixedResponse(switch),
    }[scheme]
    return Dynamics(rule, Euclidean(), relative=False, read=Sphere().retract, response=response, **more)
