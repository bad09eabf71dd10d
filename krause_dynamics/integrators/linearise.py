"""Linearisation at a state: Jacobian and spectrum of a drift, or of one step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from krause_dynamics._arguments import Is, Maybe, Real, reads
from krause_dynamics._array import Array, all_finite, like, to_numpy
from krause_dynamics.aggregate import as_points
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.integrators import Integrator
from krause_dynamics.spaces import Sphere


@reads(dynamics=Is(Dynamics, "kd.Dynamics(kd.softmax(1.0))"), t=Real(), integrator=Maybe(Is(Integrator, "kd.Euler()")))
def jacobian(
    dynamics: Dynamics,
    x: Array,
    *,
    t: float = 0.0,
    log_mass: Array | None = None,
    integrator: Integrator | None = None,
    dt: float = 1.0,
    tangent: bool = False,
) -> Array:
    """Derivative of the drift at a state, or of one step of an integrator.

    The field is extended off the space through its retraction, so on spheres the radial directions have derivative 0.
    An ``external`` drift, ``read`` and ``response`` must work on torch tensors.

    Args:
        dynamics: What moves the particles.
        x: State (n, d), or (n,) for opinions; numpy or torch.
        t: Time.
        log_mass: log m_i, (n,); by default -log n each.
        integrator: By default the drift itself; else the map ``x -> step(x)``, whose multipliers are 1 + dt rates to
            first order (a layer: ``kd.LayerStep()``).
        dt: Step of the integrator.
        tangent: Coordinates in an orthonormal basis of each tangent space instead of ambient ones.

    Returns:
        (n d, n d), particle by particle; with ``tangent`` (n (d - 1), n (d - 1)) on spheres. At the jump of `Within`
        and of `TopK` it is the derivative with the admitted pairs kept.

    Raises:
        ValueError: NaN or infinity, or leading axes: linearise one run at a time.
    """
    from krause_dynamics.integrators import derivatives

    x = as_points("x", x)
    if not all_finite(x):
        raise ValueError("x must be finite, got NaN or infinity; leave those particles out")
    if x.ndim != 2:
        raise ValueError(f"x must have shape (n, d), got {tuple(x.shape)}; linearise one run of a batch at a time")
    result = derivatives.jacobian(_function(dynamics, t, log_mass, integrator, dt), x)
    if not tangent or not isinstance(dynamics.space, Sphere):
        return result
    basis = like(_tangent_bases(to_numpy(x)), result)
    return basis.mT @ result @ basis


@reads(dynamics=Is(Dynamics, "kd.Dynamics(kd.softmax(1.0))"))
def spectrum(dynamics: Dynamics, x: Array, **rest: object) -> np.ndarray:
    """Eigenvalues of `jacobian` in tangent coordinates, by falling real part.

    Rates of perturbations (drift) or multipliers per step (``integrator=``): negative rates and multipliers inside the
    unit circle decay. Common shifts or rotations of all particles show up as rates 0.

    Args:
        dynamics: What moves the particles.
        x: (n, d) state.
        rest: Keywords of `jacobian`.

    Returns:
        numpy (n d,) or (n (d - 1),), complex where rotations occur.
    """
    values = np.linalg.eigvals(to_numpy(jacobian(dynamics, x, tangent=True, **rest)))  # type: ignore[arg-type]
    return values[np.argsort(-values.real, kind="stable")]


def _function(
    dynamics: Dynamics, t: float, log_mass: Array | None, integrator: Integrator | None, dt: float
) -> Callable[[Array], Array]:
    def function(y: Array) -> Array:
        y = dynamics.space.retract(y)
        drift = dynamics.bind(y, None if log_mass is None else like(log_mass, y), impl="reference")
        return drift(t, y) if integrator is None else integrator.step(drift, t, y, dt)

    return function


def _tangent_bases(x: np.ndarray) -> np.ndarray:
    """Block-diagonal (n d, n (d - 1)): an orthonormal basis of the complement of each x_i."""
    n, d = x.shape
    blocks = np.zeros((n, d, n, d - 1))
    for i, point in enumerate(x):
        blocks[i, :, i, :] = np.linalg.svd(point[None])[2][1:].T
    return blocks.reshape(n * d, n * (d - 1))
