"""The drift of a cloud of particles: who moves where, given an interaction and a space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from krause_dynamics._array import Array, like, namespace
from krause_dynamics.aggregate import Plan, aggregate, plan
from krause_dynamics.interaction import Aggregate, Interaction
from krause_dynamics.interaction._value import Value, check_number
from krause_dynamics.spaces import Euclidean, Space

Matrix = Any  # (d', d), (heads, d', d), or a function of time returning one


@dataclass(frozen=True, eq=False)
class Dynamics(Value):
    """``dx_i = drift_i(t, x) dt + noise dB_i`` with, for the read positions y = read(x),

    - ``A_i = sum_j a_ij V y_j`` with ``a`` from queries ``Q y`` and sources ``K y`` (per capita: unnormalised),
    - drift = ``A_i - V y_i`` where ``relative`` (per capita: ``sum_j a_ij V (y_j - y_i)``), else ``A_i``,
    - projected to the tangent space, plus ``external(t, x)``; 0 for ``fixed`` particles and where nobody is heard.

    Attributes:
        rule: An `Interaction`, or a function of time returning one (annealed beta or sigma).
        space: Where particles live.
        query: Q, (d', d), (heads, d', d) or a function of time; identity by default. Heads are summed over.
        key: K, likewise.
        value: V, (d, d) or (heads, d, d), likewise.
        relative: Drift towards the mean or along it; by default the space's habit (True in flat spaces).
        external: A drift of its own, ``external(t, x) -> (..., n, d)``; for example towards a truth.
        fixed: Boolean (n,): stubborn particles, heard but never moved.
        noise: sigma of the Brownian term, in units of position / sqrt(time).
        read: What the interaction sees of a position (pre-norm: ``space.retract``); identity by default.
    """

    rule: Interaction | Callable[[float], Interaction]
    space: Space = field(default_factory=Euclidean)
    query: Matrix = None
    key: Matrix = None
    value: Matrix = None
    relative: bool | None = None
    external: Callable[[float, Array], Array] | None = None
    fixed: Any = None
    noise: float = 0.0
    read: Callable[[Array], Array] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.rule, Interaction) or callable(self.rule)):
            raise TypeError(f"rule must be an Interaction such as kd.softmax(beta=4.0), got {self.rule!r}")
        if not isinstance(self.space, Space):
            raise TypeError(f"space must be one such as kd.Sphere(), got {self.space!r}")
        check_number("noise", self.noise, positive=False)
        if self.noise < 0:
            raise ValueError(f"noise must be at least 0, got {self.noise!r}")

    @property
    def is_relative(self) -> bool:
        """Whether the drift points towards the mean."""
        return self.space.relative if self.relative is None else self.relative

    def rule_at(self, t: float) -> Interaction:
        """The interaction in force at time ``t``."""
        return self.rule if isinstance(self.rule, Interaction) else self.rule(t)

    def plan(self, x: Array, log_mass: Array | None = None, impl: str = "auto") -> Plan:
        """The implementation for states like ``x``, chosen once for a whole run."""
        queries, sources, values, rest = self._arguments(0.0, x, log_mass)
        return plan(self.rule_at(0.0), queries, sources, values, impl=impl, **rest)

    def attention(self, t: float, x: Array, log_mass: Array | None = None, *, impl: str = "auto") -> Array:
        """What each particle hears, ``sum_j a_ij V y_j`` summed over heads: (..., n, d). Nobody heard gives 0."""
        return self._heard(t, x, log_mass, impl, relative=False)

    def drift(
        self, t: float, x: Array, log_mass: Array | None = None, *, impl: str = "auto", project: bool = True
    ) -> Array:
        """Velocity of every particle.

        Args:
            t: Time; it matters to rules, matrices or external drifts that vary.
            x: Positions (*batch, n, d).
            log_mass: log m_i, (n,) or (*batch, n); by default -log n each, so that they sum to one.
            impl: How the interaction is computed; a run passes the name that its plan chose.
            project: Project to the tangent space; a post-norm layer does not (`LayerStep`).

        Returns:
            (*batch, n, d), tangent to the space unless ``project`` is false.

        Raises:
            ValueError: Shapes that do not fit.
        """
        velocity = self._heard(t, x, log_mass, impl, relative=self.is_relative)
        if self.external is not None:
            velocity = velocity + self.external(t, x)
        return self.hold(x, self.space.project(x, velocity) if project else velocity)

    def hold(self, x: Array, velocity: Array) -> Array:
        """``velocity`` with 0 for the fixed particles."""
        if self.fixed is None:
            return velocity
        fixed = like(np.asarray(self.fixed), x) != 0
        if tuple(fixed.shape) != (x.shape[-2],):
            raise ValueError(f"fixed must have shape (n,) = ({x.shape[-2]},), got {tuple(fixed.shape)}")
        xp = namespace(x=x)
        return xp.where(fixed[:, None], xp.zeros_like(velocity), velocity)

    def _heard(self, t: float, x: Array, log_mass: Array | None, impl: str, *, relative: bool) -> Array:
        rule = self.rule_at(t)
        queries, sources, values, rest = self._arguments(t, x, log_mass)
        if impl == "auto":
            result = aggregate(rule, queries, sources, values, **rest)
        else:
            result = Plan(rule, impl, "chosen for the run")(queries, sources, values, **rest)
        own = self._own_value(t, x) if relative else None
        heard = _combine(namespace(x=x), rule, result, own)
        return namespace(x=x).sum(heard, axis=-3) if self._heads(t) else heard

    def _arguments(self, t: float, x: Array, log_mass: Array | None) -> tuple[Array, Array, Array, dict[str, Any]]:
        """queries, sources, values and the remaining arguments of `aggregate`, heads and ghost copies included."""
        rule, y = self.rule_at(t), x if self.read is None else self.read(x)
        if log_mass is None and not rule.normalised:
            log_mass = like(np.full(x.shape[-2], -np.log(x.shape[-2])), x)
        heads = self._heads(t)
        queries, keys, values = (_apply(_at(matrix, t), y, heads) for matrix in (self.query, self.key, self.value))
        rest: dict[str, Any] = {}
        ghosts = self.space.ghosts(keys, rule.reach)
        if ghosts is not None:
            keys, owner = ghosts
            values = _apply(_at(self.value, t), keys, heads=False)
            index = namespace(x=x).asarray(owner, device=getattr(x, "device", None))
            rest = {"source_index": index}
            log_mass = None if log_mass is None else log_mass[..., index]
        if log_mass is not None:
            rest["log_mass"] = log_mass[..., None, :] if heads and log_mass.ndim > 1 else log_mass
        return queries, keys, values, rest

    def _own_value(self, t: float, x: Array) -> Array:
        return _apply(_at(self.value, t), x if self.read is None else self.read(x), self._heads(t))

    def _heads(self, t: float) -> bool:
        """Whether any matrix carries a leading axis of heads."""
        return any(getattr(_at(m, t), "ndim", 0) == 3 for m in (self.query, self.key, self.value))


def _at(matrix: Matrix, t: float) -> Any:
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
    return y @ namespace(y=y).matrix_transpose(matrix)


def _combine(xp: Any, rule: Interaction, result: Aggregate, own: Array | None) -> Array:
    """A, or Z A per capita; minus the own value where relative. Rows that hear nobody give 0."""
    heard = result.mean if own is None else result.mean - own
    if not rule.normalised:
        return heard * xp.exp(result.log_partition)[..., None]
    if own is None:
        return heard
    some = (result.log_partition > -float("inf"))[..., None]
    return xp.where(some, heard, xp.zeros_like(heard))
