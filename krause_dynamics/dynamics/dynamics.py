"""The drift of a cloud of particles: who moves where, given an interaction and a space."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from krause_dynamics._arguments import FLAG, Maybe, Real
from krause_dynamics._array import Array, is_torch, may_look, to_numpy
from krause_dynamics._value import Value, later
from krause_dynamics.aggregate import as_points
from krause_dynamics.dynamics.drift import Drift
from krause_dynamics.interaction import Interaction
from krause_dynamics.interaction.rules import check_rule
from krause_dynamics.spaces import Euclidean, Space

Matrix = Any  # (d', d), (heads, d', d), or a function of time returning one


@dataclass(frozen=True, eq=False)
class Dynamics(Value):
    """``dx_i = drift_i(t, x) dt + noise dB_i`` with, for the read positions y = read(x),

    - ``A_i = sum_j a_ij V y_j`` with ``a`` from queries ``Q y`` and sources ``K y`` (per capita: unnormalised),
    - drift = ``A_i - V y_i`` where ``relative`` (per capita: ``sum_j a_ij V (y_j - y_i)``), else ``A_i``,
    - changed to ``response(t, x, drift)`` where there is one (normalisation of what a layer adds),
    - projected to the tangent space, plus ``external(t, x)``; 0 for ``fixed`` particles and where nobody is heard.

    Attributes:
        rule: An `Interaction`, or a function of time returning one (annealed beta or sigma).
        space: Where particles live.
        query: Q, (d', d), (heads, d', d) or a function of time; identity by default. Heads are summed over. Matrices
            (*batch, heads, d', d) give every run of a batch its own. None on a torus and between mirrors.
        key: K, likewise.
        value: V, (d, d) or (heads, d, d), likewise.
        relative: Drift towards the mean or along it; by default the space's habit (True in flat spaces).
        external: A drift of its own, ``external(t, x) -> (..., n, d)``, or (d,) for all alike; for example towards a
            truth.
        fixed: Boolean (n,): stubborn particles, heard but never moved.
        noise: sigma of the Brownian term, in units of position / sqrt(time).
        read: What the interaction sees of a position (pre-norm: ``space.retract``), (..., n, d); of another width,
            (..., n, d_read), where query, key and value are matrices over it, V (d, d_read). Identity by default.
        response: What is made of the drift before it moves anybody, ``response(t, x, drift) -> (..., n, d)``; identity
            by default. `layer_normed` has those of layer normalisation.
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
    response: Callable[[float, Array, Array], Array] | None = later(None)

    def __post_init__(self) -> None:
        if not (isinstance(self.rule, Interaction) or callable(self.rule)):
            raise TypeError(f"rule must be an Interaction such as kd.softmax(beta=4.0), got {self.rule!r}")
        if not isinstance(self.space, Space):
            raise TypeError(f"space must be one such as kd.Sphere(), got {self.space!r}")
        for name in ("external", "read", "response"):
            if not (getattr(self, name) is None or callable(getattr(self, name))):
                raise TypeError(f"{name} must be a function, got {getattr(self, name)!r}")
        _check_fixed(self.fixed)
        Maybe(FLAG).read("relative", self.relative)
        Real(0.0).read("noise", self.noise)

    @property
    def is_relative(self) -> bool:
        """Whether the drift points towards the mean."""
        return self.space.relative if self.relative is None else self.relative

    def rule_at(self, t: float) -> Interaction:
        """The interaction in force at time ``t``."""
        if isinstance(self.rule, Interaction):
            return self.rule
        rule = self.rule(t)
        check_rule(rule)
        return rule

    def bind(self, x: Array, log_mass: Array | None = None, *, impl: str = "auto") -> Drift:
        """The drift of states like ``x`` (shape, library, dtype), with the form chosen once: for loops.

        Args:
            x: A state, (*batch, n, d).
            log_mass: log m_i, (n,) or (*batch, n); by default -log n each; -inf is padding.
            impl: How the interaction is computed; ``"auto"`` chooses.

        Raises:
            TypeError: Mixed array libraries, dtypes or devices.
            ValueError: Shapes that do not fit.
            UnsupportedImplementation: ``impl`` cannot compute this; the message says why.
        """
        return Drift(self, x, log_mass, impl)

    def flow(self, x: Array, log_mass: Array | None = None, *, impl: str = "auto") -> Drift:
        """`bind` under its former name."""
        warnings.warn("Dynamics.flow is now Dynamics.bind", DeprecationWarning, stacklevel=2)
        return self.bind(x, log_mass, impl=impl)

    def attention(self, t: float, x: Array, log_mass: Array | None = None, *, impl: str = "auto") -> Array:
        """What each particle hears, ``sum_j a_ij V y_j`` summed over heads: (..., n, d). Nobody heard gives 0."""
        x = as_points("x", x)
        return self._checked(x, log_mass, impl).attention(t, x)

    def drift(
        self, t: float, x: Array, log_mass: Array | None = None, *, impl: str = "auto", project: bool = True
    ) -> Array:
        """Velocity of every particle.

        Args:
            t: Time; it matters to rules, matrices or external drifts that vary.
            x: Positions (*batch, n, d); (n,) is read as (n, 1).
            log_mass: log m_i, (n,) or (*batch, n); by default -log n each, so that they sum to one.
            impl: How the interaction is computed.
            project: Project to the tangent space; a post-norm layer does not (`LayerStep`).

        Returns:
            (*batch, n, d), tangent to the space unless ``project`` is false.

        Raises:
            ValueError: Shapes that do not fit, or NaN among particles that have mass.
        """
        x = as_points("x", x)
        return self._checked(x, log_mass, impl)(t, x, project=project)

    def __call__(self, t: float, x: Array, *, project: bool = True) -> Array:
        """`drift`, so that a dynamics serves for a single step where a loop has its `Drift`."""
        return self.drift(t, x, project=project)

    def _checked(self, x: Array, log_mass: Array | None, impl: str) -> Drift:
        drift = self.bind(x, log_mass, impl=impl)
        on_device = is_torch(x) and x.device.type != "cpu"  # asking a GPU for the answer would stall it at every call
        if not on_device and not drift.is_finite(x):
            raise ValueError("x must be finite, got NaN or infinity; set log_mass=-inf for padding")
        if drift.has_images:
            self.space.check(x)
        return drift


def _check_fixed(fixed: Any) -> None:
    """Stubborn agents are told by truth values, or by numbers that can only be such; a list of agents is refused.

    Raises:
        ValueError: Something else than 0 and 1, false and true.
    """
    if fixed is None or not may_look(fixed):
        return
    values = to_numpy(fixed)
    if values.dtype != bool:
        raise ValueError(
            f"fixed must be booleans of shape (n,), got {values.dtype}: {fixed!r}; for a list of agents take "
            "np.isin(np.arange(n), agents)"
        )


def check_dynamics(dynamics: Any) -> None:
    """Raise TypeError unless it is a `Dynamics`; a rule alone says how it becomes one."""
    if isinstance(dynamics, Dynamics):
        return
    way = "wrap the rule: kd.Dynamics(rule, kd.Sphere())" if isinstance(dynamics, Interaction) else "see kd.Dynamics"
    raise TypeError(f"dynamics must be a kd.Dynamics (rule and space), got {type(dynamics).__name__}; {way}")
