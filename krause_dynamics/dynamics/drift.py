"""The velocity of a cloud: one formula for all, and a `Dynamics` bound to one kind of state for a loop."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np

from krause_dynamics._array import Array, all_finite, is_torch, like, namespace
from krause_dynamics.aggregate import plan_request
from krause_dynamics.dynamics.heads import Heads, check_images
from krause_dynamics.dynamics.returned import returned
from krause_dynamics.interaction import Aggregate, Interaction, Request, reference
from krause_dynamics.interaction.steps import ManySteps, Scheme, Steps
from krause_dynamics.spaces import Space

NEVER = -float("inf")


def velocity(rule: Interaction, heard: Aggregate, own: Array | None, xp: Any, *, somebody: bool = False) -> Array:
    """Where listeners go that hear ``heard``: the one definition, for particles, densities and opinions.

    Towards the mean, ``A - own``, or along it, ``A``; a per-capita rule multiplies by Z. Who hears nobody stays.

    Args:
        rule: Tells whether the rule is normalised.
        heard: Mean (..., n, d) and log-partition (..., n).
        own: Each listener's own value (..., n, d), or ``None``: along the mean.
        xp: Array namespace.
        somebody: Whether it is known that each hears somebody, so that nobody need be looked for.

    Returns:
        (..., n, d).
    """
    mean, log_partition = heard
    pull = mean if own is None else mean - own
    if not rule.normalised:
        return pull * xp.exp(log_partition)[..., None]
    if own is None or somebody:
        return pull  # the mean of nobody is 0 already
    return xp.where((log_partition > NEVER)[..., None], pull, xp.zeros_like(pull))


def target(rule: Interaction, heard: Aggregate, x: Array, xp: Any) -> Array:
    """Where one step of length 1 towards the mean leads: of a normalised rule the mean itself, to the last bit.

    Args:
        rule: Tells whether the rule is normalised.
        heard: Mean (..., n, d) and log-partition (..., n) of the positions.
        x: Positions (..., n, d); who hears nobody stays there.
        xp: Array namespace.
    """
    if rule.normalised:
        return xp.where((heard.log_partition > NEVER)[..., None], heard.mean, x)
    return x + velocity(rule, heard, x, xp)


class Moving(Protocol):
    """What is read of a `Dynamics`; its docstring explains each."""

    @property
    def rule(self) -> Any: ...
    @property
    def space(self) -> Space: ...
    @property
    def query(self) -> Any: ...
    @property
    def key(self) -> Any: ...
    @property
    def value(self) -> Any: ...
    @property
    def is_relative(self) -> bool: ...
    @property
    def external(self) -> Any: ...
    @property
    def fixed(self) -> Any: ...
    @property
    def noise(self) -> float: ...
    @property
    def read(self) -> Any: ...
    @property
    def response(self) -> Any: ...
    def rule_at(self, t: float) -> Interaction: ...
    def to_dict(self) -> dict[str, Any]: ...


class Drift:
    """The velocity field of a `Dynamics` for states of one shape, library and dtype; made by `Dynamics.bind`.

    Called as ``drift(t, x)``, (*batch, n, d) -> (*batch, n, d). The form is chosen once; what it makes of the rule is
    made once, and again only when the rule changes.

    Attributes:
        dynamics: What was bound.
        space: Its space.
        xp: Array namespace of the states.
        log_mass: Masses given by the caller, or ``None``.
        plan: The rule in force and the form that computes it.
        has_images: Whether sources are heard through a border.
        is_padded: Whether some particles have no mass.
    """

    def __init__(self, dynamics: Moving, x: Array, log_mass: Array | None = None, impl: str = "auto") -> None:
        self.dynamics, self.space, self.log_mass = dynamics, dynamics.space, log_mass
        self.xp = namespace(x=x, log_mass=log_mass)
        self._relative, self._external, self._read = dynamics.is_relative, dynamics.external, dynamics.read
        self.space.check_dimension(x.shape[-1])
        self._response = dynamics.response
        self._heads = Heads.of(dynamics.query, dynamics.key, dynamics.value, x)
        self._fixed = _fixed_column(dynamics.fixed, x)
        self.is_padded = log_mass is not None and bool((log_mass == NEVER).any())
        self._constant = dynamics.rule if isinstance(dynamics.rule, Interaction) else None
        rule = dynamics.rule_at(0.0)
        self._uniform = like(np.full(x.shape[-2], -np.log(x.shape[-2])), x)
        self.has_images = self.space.shape() is None and self.space.images(self.space.wrap(x), rule) is not None
        if self.has_images:
            check_images(dynamics.query, dynamics.key)
        self.plan = plan_request(rule, self._request(0.0, x, rule)[0].checked(), impl)

    @property
    def impl(self) -> str:
        """Name of the form that computes the interaction."""
        return self.plan.impl

    @property
    def reason(self) -> str:
        """Why this one, in words."""
        return self.plan.reason

    def __call__(self, t: float, x: Array, *, project: bool = True) -> Array:
        """Velocity of every particle, (*batch, n, d); arguments as in `Dynamics.drift`."""
        result = self._velocity(t, x, self._relative)
        if self._response is not None:
            result = returned("response", self._response(t, x, result), x)
        if self._external is not None:
            result = result + returned("external", self._external(t, x), x, broadcasts=True)
        if project:
            result = self.space.project(x, result)
        return result if self._fixed is None else self.hold(x, result)

    def drift(self, t: float, x: Array, *, project: bool = True) -> Array:
        """The drift itself under its former name."""
        warnings.warn("drift.drift(t, x) is now drift(t, x), the drift called itself", DeprecationWarning, stacklevel=2)
        return self(t, x, project=project)

    def attention(self, t: float, x: Array) -> Array:
        """What each particle hears, ``sum_j a_ij V y_j`` summed over heads: (*batch, n, d). Nobody heard gives 0."""
        return self._velocity(t, x, relative=False)

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
        if self.log_mass is None or not self.is_padded:
            return x
        return self.xp.where((self.log_mass > NEVER)[..., None], x, self.xp.zeros_like(x))

    def stand_ins(self, x: Array) -> Array:
        """``x`` with the first particle that has mass in the rows of those without."""
        return reference.stand_ins(Request(self.xp, x, x, x, self.log_mass if self.is_padded else None), x)

    def many_steps(self, scheme: Scheme | None, dt: float) -> ManySteps | None:
        """``(x, steps) -> x`` in one call, where form, space and method allow it; else ``None``.

        Args:
            scheme: What the integrator says of itself.
            dt: Step.
        """
        shape = self.space.shape()
        if scheme is None or shape is None or self._constant is None or self.dynamics.noise > 0:
            return None
        for more in (self._external, self._fixed, self._read, self._response, self._heads):
            if more is not None:
                return None
        return self.plan.many_steps(Steps(scheme, float(dt), self._relative, shape == "sphere", self.log_mass))

    def _velocity(self, t: float, x: Array, relative: bool) -> Array:
        rule = self.dynamics.rule_at(t) if self._constant is None else self._constant
        request, own = self._request(t, x, rule)
        if rule is not self.plan.interaction:
            self.plan = self.plan.under(rule, request)
        # With matrices a query is no longer among the sources: its own may be beyond the radius.
        somebody = self.log_mass is None and self._heads is None and rule.hears_itself
        result = velocity(rule, self.plan.prepared(request), own if relative else None, self.xp, somebody=somebody)
        return self.xp.sum(result, axis=-3) if request.queries.ndim > x.ndim else result

    def _request(self, t: float, x: Array, rule: Interaction) -> tuple[Request, Array]:
        """Arguments of the one operation, and each particle's own value."""
        y = x if self._read is None else returned("read", self._read(x), x, wide=self.dynamics.value is not None)
        y = self.space.wrap(y) if self.has_images else y
        masses = self._uniform if self.log_mass is None and not rule.normalised else self.log_mass
        queries = keys = values = y
        if self._heads is not None:
            queries, keys, values = self._heads.at(t, y, x.shape[-1])
            if queries.ndim > y.ndim and masses is not None and masses.ndim > 1:
                masses = masses[..., None, :]
        images = self.space.images(keys, rule) if self.has_images else None
        if images is not None:
            return self._mirrored(t, queries, *images, masses), values
        return Request(self.xp, queries, keys, values, masses), values

    def _mirrored(self, t: float, queries: Array, keys: Array, owner: np.ndarray, masses: Array | None) -> Request:
        """Sources seen through the border as well; each has the mass and the index of its owner."""
        values = keys if self._heads is None else self._heads.values(t, keys)
        index = self.xp.asarray(owner, device=keys.device) if is_torch(keys) else owner
        masses = None if masses is None else masses[..., index]
        return Request(self.xp, queries, keys, values, masses, None, index, positions_are_ranks=False)


def _fixed_column(fixed: Any, x: Array) -> Array | None:
    if fixed is None:
        return None
    column = like(np.asarray(fixed), x) != 0
    if tuple(column.shape) != (x.shape[-2],):
        raise ValueError(f"fixed must have shape (n,) = ({x.shape[-2]},), got {tuple(column.shape)}")
    return column[:, None]
