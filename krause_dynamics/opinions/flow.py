"""Bounded confidence in continuous time: `hegselmann_krause_flow`."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from krause_dynamics._arguments import FLAG, reads
from krause_dynamics._array import like
from krause_dynamics.aggregate import as_points
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.interaction.adjacency import labels_of
from krause_dynamics.interaction.scores import Score
from krause_dynamics.opinions.arguments import External, Network, interaction
from krause_dynamics.opinions.disturbances import TruthSeeking
from krause_dynamics.opinions.model import Model
from krause_dynamics.simulate import simulate
from krause_dynamics.trajectory import Trajectory


@reads(closed=FLAG, include_self=FLAG, normalised=FLAG, weighted=FLAG)
def hegselmann_krause_flow(
    x0: Any,
    radius: Any,
    t_end: float,
    *,
    closed: bool = True,
    include_self: bool = True,
    normalised: bool = True,
    weights: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    external: External | TruthSeeking | None = None,
    influence: Score | None = None,
    graph: Network | None = None,
    weighted: bool = False,
    **options: Any,
) -> Trajectory:
    """Bounded confidence in continuous time, through `kd.Dynamics` and `kd.simulate`.

    Normalised: ``dx_i/dt = (mean of those heard) - x_i``.
    Per capita: ``dx_i/dt = sum_j m_j phi(|x_i - x_j|) (x_j - x_i)``, with masses that sum to 1, which
    conserves the mean (Canuto, Fagnani & Tilli 2012). The drift jumps when a pair comes within the radius, so
    integrators lose their order there.

    Args:
        x0: (n,), (n, d) or (*batch, n, d); numpy or torch.
        radius: As in `hegselmann_krause`, in units of opinion.
        t_end: Final time, positive.
        closed: As there.
        include_self: As there.
        normalised: Mean of those heard, or per capita.
        weights: As there.
        fixed: As there.
        external: As there; `TruthSeeking` is the drift ``a_i (truth - x_i)``.
        influence: As there.
        graph: As there.
        weighted: As there.
        **options: Of `kd.simulate`: ``dt, integrator, save_every, save_at, stop, rng, progress, checkpoint, ...``, and
            ``noise`` (sigma of the Brownian term).

    Raises:
        ValueError: As there and in `kd.simulate`.
    """
    x = as_points("x0", x0)
    n = x.shape[-2]
    rule = interaction(
        n, radius, closed, include_self, normalised, influence, graph, weighted=weighted, labels=labels_of(x0)
    )
    model = Model.of(n, rule, weights, fixed, external)
    dynamics = Dynamics(rule, external=model.external, fixed=model.fixed, noise=options.pop("noise", 0.0))
    log_mass = None if model.log_mass is None else like(model.log_mass, x)
    return simulate(dynamics, x, t_end, log_mass=log_mass, **options)
