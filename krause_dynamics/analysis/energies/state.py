"""The energy of a state, its gradient, and which rules have one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from krause_dynamics._arguments import Points, reads
from krause_dynamics._array import Array, device, namespace, to_numpy
from krause_dynamics.aggregate import aggregate
from krause_dynamics.interaction import Everyone, Flat, Interaction, Neighbourhood, Within
from krause_dynamics.interaction.request import Aggregate
from krause_dynamics.interaction.rules import RULE
from krause_dynamics.spaces import SPACE, Space

Values = Callable[[Array], Array]


class _State(NamedTuple):
    """What one aggregation tells: x centred where the score allows, masses m, Z (..., n), direction w (..., n, d)."""

    xp: Any
    x: Array
    mass: Array
    partition: Array
    direction: Array
    spread: Array | None


@reads(rule=RULE, x=Points(), space=SPACE)
def energy(rule: Interaction, x: Array, *, log_mass: Array | None = None, space: Space | None = None) -> Array:
    """The energy of a state under a rule, see the table of the module.

    Args:
        rule: A symmetric interaction with plain parameters.
        x: (..., n, d) positions.
        log_mass: (..., n) log-masses, as given to the dynamics; by default -log n each.
        space: Where the positions live: behind the border of a `Torus` or a mirror the images of a pair count as the
            dynamics hear them. By default there is no border.

    Returns:
        (...). With a dot product it overflows where beta |x|^2 passes 709 in float64: use `log_energy`.

    Raises:
        ValueError: The rule has no energy, or no images in the space; the message says why.
    """
    kappa(rule)
    if rule.score.is_flat:
        return _bounded_confidence_energy(rule, x, log_mass, space)
    state = _state(rule, x, log_mass, space)
    total = state.xp.sum(state.mass * state.partition, axis=-1)
    if not rule.score.of_distance:
        return total / (2 * _inner(rule))
    radius = _radius(rule)
    if radius == math.inf:
        return total / 2
    inside = _heard(replace(rule, score=Flat()), x, log_mass, space).log_partition
    edge = math.exp(-(radius**2) * kappa(rule) / 2)
    return (total - edge * state.xp.sum(state.mass * state.xp.exp(inside), axis=-1)) / 2


@reads(rule=RULE, x=Points(), space=SPACE)
def log_energy(rule: Interaction, x: Array, *, log_mass: Array | None = None, space: Space | None = None) -> Array:
    """``log E`` of a dense smooth score with positive E (`DotProduct` with beta > 0, `Gaussian`), without overflow.

    Args:
        rule: As in `energy`.
        x: (..., n, d) positions.
        log_mass: (..., n) log-masses; by default every point has mass 1/n.
        space: Geometry of the positions; by default Euclidean.

    Raises:
        ValueError: Another rule.
    """
    kappa(rule)
    beta = 1.0 if rule.score.of_distance else _inner(rule)
    if rule.score.is_flat or _radius(rule) < math.inf or beta <= 0:
        raise ValueError(f"log_energy needs a dense DotProduct(beta > 0) or Gaussian score, got {rule!r}; use energy")
    xp = namespace(x=x, log_mass=log_mass)
    logs = _masses(x, log_mass) + _heard(rule, x, log_mass, space).log_partition
    largest = xp.max(logs, axis=-1, keepdims=True)
    return xp.log(xp.sum(xp.exp(logs - largest), axis=-1)) + largest[..., 0] - math.log(2 * beta)


@reads(rule=RULE, x=Points(), space=SPACE)
def gradient(rule: Interaction, x: Array, *, log_mass: Array | None = None, space: Space | None = None) -> Array:
    """``dE/dx_i = kappa m_i Z_i w_i``, not projected: (..., n, d).

    Args:
        rule: As in `energy`.
        x: (..., n, d) positions.
        log_mass: (..., n) log-masses; by default every point has mass 1/n.
        space: Geometry of the positions; by default Euclidean.
    """
    scale = kappa(rule)
    state = _state(rule, x, log_mass, space)
    return scale * (state.mass * state.partition)[..., None] * state.direction


@reads(rule=RULE)
def kappa(rule: Interaction) -> float:
    """The factor of the module's table; its sign says whether the flow climbs (+) or descends (-).

    Raises:
        ValueError: The rule has no energy: parameters per query, a pair bias, a neighbourhood in which i may hear j
            without being heard, or a truncation at which the pair energy would jump.
    """
    reason = _without_energy(rule)
    if reason is not None:
        raise ValueError(f"rule has no energy: {reason}")
    if rule.score.is_flat:
        return -4.0
    return _inner(rule) if rule.score.of_distance else 1.0


def _inner(rule: Interaction) -> float:
    """Coefficient of ``<x, y>`` in the score: beta, or 1/sigma^2."""
    return float(rule.score.coefficients().inner)  # type: ignore[union-attr]  # rules with an energy have them


def _without_energy(rule: Interaction) -> str | None:
    """Why a rule has no energy, or None."""
    form = rule.score.coefficients()
    if form is None or not (rule.score.of_distance or form.is_product):
        return f"{type(rule.score).__name__} is no DotProduct, Gaussian or Flat score"
    parameters = [*rule.score.parameters, *(part.radius for part in rule.find(Within))]
    if any(np.ndim(to_numpy(value)) for value in parameters):
        return "beta, sigma and radius must be plain numbers, since a pair is then symmetric"
    if not rule.score.of_distance and _inner(rule) == 0:
        return "with beta = 0 every pair counts 1 whatever its positions; use the limit, a small beta"
    if rule.pair_bias is not None:
        return "a pair bias need not be symmetric"
    if not rule.score.of_distance and rule.find(Within):
        return "a dot product cut at a radius jumps there; use Gaussian(sigma), the same rule on the sphere"
    one_sided = [type(part).__name__ for part in rule.parts if not part.is_symmetric]
    return f"{one_sided[0]} lets i hear j without being heard" if one_sided else None


def _radius(rule: Interaction) -> float:
    return min((float(part.radius) for part in rule.find(Within)), default=math.inf)


def _masses(x: Array, log_mass: Array | None) -> Array:
    xp = namespace(x=x, log_mass=log_mass)
    return xp.zeros_like(x[..., 0]) - math.log(x.shape[-2]) if log_mass is None else log_mass


def _heard(
    rule: Interaction,
    x: Array,
    log_mass: Array | None,
    space: Space | None,
    values: Values | None = None,
) -> Aggregate:
    """What every particle hears in the space, of ``values`` of the positions that it hears (by default these)."""
    masses = _masses(x, log_mass)
    images = None if space is None else space.images(x, rule)
    if images is None:
        return aggregate(rule, x, values=None if values is None else values(x), log_mass=masses)
    keys, owner = images
    places = namespace(x=x).asarray(owner, device=device(x))
    theirs = None if values is None else values(keys)
    return aggregate(rule, x, keys, theirs, log_mass=namespace(x=x).take(masses, places, axis=-1), source_index=places)


def _state(
    rule: Interaction, x: Array, log_mass: Array | None, space: Space | None, *, squares: bool = False
) -> _State:
    """One aggregation; with ``squares`` also the mean squared distance of those heard, for the energy of Flat."""
    xp = namespace(x=x, log_mass=log_mass)
    masses = _masses(x, log_mass)
    x = xp.where((masses > -math.inf)[..., None], x, xp.zeros_like(x))
    if space is not None:
        space.check_dimension(x.shape[-1])
        x = space.wrap(x)
    if rule.score.of_distance and (space is None or space.shape() is not None):
        # Translation-invariant rules: |x|^2 - 2 x A + B cancels less around the centre.
        x = x - xp.mean(x, axis=-2, keepdims=True)

    def with_squares(y: Array) -> Array:
        return xp.concat([y, xp.sum(y * y, axis=-1)[..., None]], axis=-1)

    mean, log_partition = _heard(rule, x, masses, space, with_squares if squares else None)
    partition, heard = xp.exp(log_partition), (log_partition > -math.inf)[..., None]
    towards = mean[..., : x.shape[-1]]
    direction = towards if not rule.score.of_distance else xp.where(heard, towards - x, xp.zeros_like(x))
    spread = xp.sum(x * x, axis=-1) - 2 * xp.sum(x * towards, axis=-1) + mean[..., -1] if squares else None
    return _State(xp, x, xp.exp(masses), partition, direction, spread)


def _bounded_confidence_energy(rule: Interaction, x: Array, log_mass: Array | None, space: Space | None) -> Array:
    """``sum_i m_i [R^2 M_i - Z_i (R^2 - (|x_i|^2 - 2 x_i A_i + B_i))]``.

    M_i is the mass of all that i may hear at any distance, B_i the mean of |x_j|^2 over those within R.
    """
    state, radius = _state(rule, x, log_mass, space, squares=True), _radius(rule)
    inside = state.partition * state.spread  # sum of m_j |x_i - x_j|^2 within the radius
    if radius == math.inf:
        return state.xp.sum(state.mass * inside, axis=-1)
    others = tuple(part for part in rule.parts if not isinstance(part, Within))
    joined: Neighbourhood = Everyone()
    for part in others:
        joined = joined & part
    everyone = aggregate(Interaction(Flat(), joined), state.x, log_mass=_masses(x, log_mass)).log_partition
    outside = state.xp.exp(everyone) - state.partition
    return state.xp.sum(state.mass * (inside + radius**2 * outside), axis=-1)


def partition_masses(rule: Interaction, x: Array, log_mass: Array | None = None, space: Space | None = None) -> Array:
    """The weights g_i of the metric in which the rule is a gradient flow: m_i Z_i, or m_i per capita; (..., n)."""
    state = _state(rule, x, log_mass, space)
    return state.mass * state.partition if rule.normalised else state.mass
