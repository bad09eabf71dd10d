"""A `Dynamics` bound to one kind of state: library, masses, matrices and implementation resolved once for a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._array import Array, all_finite, is_torch, like, namespace
from krause_dynamics.aggregate import plan_request
from krause_dynamics.interaction import (
    Causal,
    Everyone,
    Grid,
    Interaction,
    Radial,
    Request,
    TopK,
    Window,
    Within,
)

if TYPE_CHECKING:
    from krause_dynamics.dynamics import Dynamics


class Flow:
    """The velocity field of a `Dynamics` for states of one shape, library and dtype; made by `Dynamics.flow`.

    Attributes:
        dynamics: What was bound.
        space: Its space.
        xp: Array namespace of the states.
        log_mass: Masses given by the caller, or ``None``.
        impl: Name of the implementation that computes the interaction.
        reason: Why this one, in words.
    """

    def __init__(self, dynamics: Dynamics, x: Array, log_mass: Array | None = None, impl: str = "auto") -> None:
        self.dynamics, self.space, self.log_mass = dynamics, dynamics.space, log_mass
        self.xp = namespace(x=x, log_mass=log_mass)
        self._relative = dynamics.is_relative
        self._matrices = tuple(_bound(matrix, x) for matrix in (dynamics.query, dynamics.key, dynamics.value))
        self._plain = dynamics.read is None and all(matrix is None for matrix in self._matrices)
        self._uniform = like(np.full(x.shape[-2], -np.log(x.shape[-2])), x)
        self._fixed = _fixed_column(dynamics.fixed, x)
        self._padded = log_mass is not None and bool((log_mass == -float("inf")).any())
        rule = dynamics.rule_at(0.0)
        self._has_ghosts = self.space.ghosts(x, rule.reach) is not None
        request, _, _ = self._request(0.0, x, rule)
        self._plan = plan_request(rule, request.checked(), impl)
        self.impl, self.reason = self._plan.impl, self._plan.reason

    def rule_at(self, t: float) -> Interaction:
        """The interaction in force at time ``t``."""
        return self.dynamics.rule_at(t)

    def drift(self, t: float, x: Array, *, project: bool = True) -> Array:
        """Velocity of every particle, (*batch, n, d); arguments as in `Dynamics.drift`."""
        velocity = self._heard(t, x, relative=self._relative)
        if self.dynamics.external is not None:
            velocity = velocity + self.dynamics.external(t, x)
        return self.hold(x, self.space.project(x, velocity) if project else velocity)

    def attention(self, t: float, x: Array) -> Array:
        """What each particle hears, ``sum_j a_ij V y_j`` summed over heads: (*batch, n, d). Nobody heard gives 0."""
        return self._heard(t, x, relative=False)

    def hold(self, x: Array, velocity: Array) -> Array:
        """``velocity`` with 0 for the fixed particles."""
        if self._fixed is None:
            return velocity
        return self.xp.where(self._fixed, self.xp.zeros_like(velocity), velocity)

    def is_finite(self, x: Array) -> bool:
        """Whether the positions of all particles that have mass are finite (padding may hold anything)."""
        return all_finite(self.present(x))

    def present(self, x: Array) -> Array:
        """``x`` with 0 in the rows of particles without mass."""
        if self.log_mass is None or not self._padded:
            return x
        return self.xp.where((self.log_mass > -float("inf"))[..., None], x, self.xp.zeros_like(x))

    def _heard(self, t: float, x: Array, *, relative: bool) -> Array:
        rule = self.dynamics.rule_at(t)
        request, own, heads = self._request(t, x, rule)
        self._plan = self._plan.under(rule, request)
        mean, log_partition = self._plan.prepared(request)
        heard = mean - own if relative else mean
        if not rule.normalised:
            heard = heard * self.xp.exp(log_partition)[..., None]
        elif relative and not (self.log_mass is None and _hears_itself(rule)):
            some = (log_partition > -float("inf"))[..., None]
            heard = self.xp.where(some, heard, self.xp.zeros_like(heard))
        return self.xp.sum(heard, axis=-3) if heads else heard

    def _request(self, t: float, x: Array, rule: Interaction) -> tuple[Request, Array, bool]:
        """Arguments of the one operation, each particle's own value, and whether there is an axis of heads."""
        y = x if self.dynamics.read is None else self.dynamics.read(x)
        queries = keys = values = y
        heads = False
        if not self._plain:
            query, key, value = (_at(matrix, t) for matrix in self._matrices)
            heads = any(getattr(matrix, "ndim", 0) == 3 for matrix in (query, key, value))
            queries, keys, values = (_apply(matrix, y, heads) for matrix in (query, key, value))
        own = values
        masses = self._uniform if self.log_mass is None and not rule.normalised else self.log_mass
        ghosts = self.space.ghosts(keys, rule.reach) if self._has_ghosts else None
        if ghosts is not None:
            keys, owner = ghosts
            values = _apply(_at(self._matrices[2], t), keys, heads=False)
            index = self.xp.asarray(owner, device=x.device) if is_torch(x) else owner
            masses = None if masses is None else masses[..., index]
            return Request.of(queries, keys, values, log_mass=masses, source_index=index), own, heads
        if heads and masses is not None and masses.ndim > 1:
            masses = masses[..., None, :]
        return Request(self.xp, queries, keys, values, masses), own, heads


def _bound(matrix: Any, x: Array) -> Any:
    return matrix if matrix is None or callable(matrix) else like(matrix, x)


def _at(matrix: Any, t: float) -> Any:
    return matrix(t) if callable(matrix) else matrix


def _apply(matrix: Any, y: Array, heads: bool) -> Array:
    """``M y`` for every particle: (..., n, d) -> (..., n, d'), or (..., heads, n, d') in the presence of heads."""
    y = y[..., None, :, :] if heads else y
    if matrix is None:
        return y
    matrix = like(matrix, y)
    if matrix.ndim not in (2, 3) or matrix.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"query, key and value must have shape (d', d) or (heads, d', d) with d = {y.shape[-1]}, "
            f"got {tuple(matrix.shape)}"
        )
    return y @ matrix.mT


def _fixed_column(fixed: Any, x: Array) -> Array | None:
    if fixed is None:
        return None
    column = like(np.asarray(fixed), x) != 0
    if tuple(column.shape) != (x.shape[-2],):
        raise ValueError(f"fixed must have shape (n,) = ({x.shape[-2]},), got {tuple(column.shape)}")
    return column[:, None]


def _hears_itself(rule: Interaction) -> bool:
    """Whether every row admits somebody for sure: its own source."""
    kinds = (Everyone, Causal, Grid, TopK, Window, Within)
    return not isinstance(rule.score, Radial) and rule.pair_bias is None and all(type(p) in kinds for p in rule.parts)
