"""The arguments of bounded-confidence runs, checked once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from krause_dynamics._array import Array, is_torch, to_numpy
from krause_dynamics.aggregate import as_points
from krause_dynamics.interaction import Edges, Flat, Graph, Interaction, Others, Within
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.interaction.scores import Score

MOVED = 1e-12  # of the initial range: less than this is rounding, not motion
FAR = 1e4  # radii; see `scale`


class NetworkX(Protocol):
    """What we read of a networkx graph."""

    @property
    def nodes(self) -> Iterable[Any]:
        """Its nodes."""

    @property
    def edges(self) -> Iterable[Any]:
        """Its edges."""


External = Callable[[float, Array], Array]
Network = Graph | NetworkX | ArrayLike


def scale(x: np.ndarray, radius: Any) -> float:
    """What "of the range" refers to: the range of opinions (n, d), cut at 10^4 radii.

    Beyond that a far outlier would make every motion of the others look like rounding.
    """
    return min(float(np.ptp(x, axis=0).max()), FAR * float(np.max(radius)))


def opinions(x0: Any) -> np.ndarray:
    """Initial opinions as (n, d) float64 numpy.

    Raises:
        TypeError: A torch tensor.
        ValueError: Empty, not finite, or a batch.
    """
    if is_torch(x0):
        raise TypeError(
            "x0 must be a numpy array for the exact form, got a torch tensor; pass x0.numpy(force=True), or run "
            "kd.simulate(kd.Dynamics(kd.bounded_confidence(radius)), x0, t_end, dt=1.0, integrator=kd.Euler())"
        )
    points = as_points("x0", x0)
    if points.ndim != 2:
        raise ValueError(
            f"x0 must have shape (n,) or (n, d), got {points.shape}; for many runs use kd.hegselmann_krause_batch "
            "or kd.simulate"
        )
    if not np.isfinite(points).all():
        raise ValueError("x0 must be finite, got NaN or infinity; take those agents out")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.ptp(points, axis=0)).all():
            raise ValueError("x0 must have a range that floats can hold; divide opinions and radius by a common factor")
    return points.astype(np.float64)


def interaction(
    n: int,
    radius: Any,
    closed: bool,
    include_self: bool,
    normalised: bool,
    influence: Score | None,
    graph: Network | None,
) -> Interaction:
    """The rule of a run with n agents.

    Raises:
        TypeError: ``influence`` is no score, or ``graph`` no network.
        ValueError: A radius that is not positive or not (n,), a network that does not fit n agents.
    """
    radius = to_numpy(radius) if np.ndim(radius) else radius
    if np.ndim(radius) and np.shape(radius) != (n,):
        raise ValueError(f"radius must be a number or one per agent, shape ({n},), got shape {np.shape(radius)}")
    if influence is not None and not isinstance(influence, Score):
        raise TypeError(f"influence must be a score such as kd.Radial(phi), got {influence!r}")
    neighbourhood: Neighbourhood = Within(radius, closed=closed)
    if graph is not None:
        neighbourhood = neighbourhood & as_graph(graph, n)
    if not include_self:
        neighbourhood = neighbourhood & Others()
    return Interaction(influence or Flat(), neighbourhood, normalised)


def as_graph(graph: Network, n: int) -> Graph:
    """A network of n agents from a `Graph`, a square array (dense or scipy.sparse), or a networkx graph.

    Each agent may hear itself.

    Nodes ``0 .. n-1`` are the agents of those numbers; other names are taken in the graph's own order.

    Raises:
        TypeError: None of these.
        ValueError: Not n nodes, or numbered nodes that are no agents.
    """
    if isinstance(graph, Graph):
        edges = graph.adjacency
    elif hasattr(graph, "nodes") and hasattr(graph, "edges"):
        nodes = list(graph.nodes)
        if any(isinstance(node, int | np.integer) for node in nodes):
            unknown = [node for node in nodes if node not in range(n)]
            if unknown:
                raise ValueError(f"graph must have nodes 0 .. {n - 1} for {n} agents, unknown: {unknown[:5]}")
            nodes = sorted(nodes)
        if len(nodes) != n:
            raise ValueError(f"graph must have one node per agent, {n}, got {len(nodes)}")
        edges = Graph.from_networkx(graph, nodes).adjacency
    elif isinstance(graph, np.ndarray) or hasattr(graph, "tocoo"):
        if np.shape(graph) != (n, n):
            raise ValueError(f"graph must have one node per agent, shape ({n}, {n}), got {np.shape(graph)}")
        edges = Edges.of(graph)
    else:
        given = type(graph).__name__
        raise TypeError(f"graph must be a kd.Graph, a networkx graph or an (n, n) array, dense or sparse, got {given}")
    if edges.nodes != n:
        raise ValueError(f"graph must have one node per agent, shape ({n}, {n}), got {edges.shape}")
    return Graph(edges.with_loops())


def weights_of(weights: ArrayLike | None, n: int) -> np.ndarray | None:
    """Positive weights (n,), or ``None``.

    Raises:
        ValueError: Another shape, or not positive and finite.
    """
    if weights is None:
        return None
    masses = np.asarray(weights, dtype=np.float64)
    if masses.shape != (n,):
        raise ValueError(f"weights must have shape (n,) = ({n},), got {masses.shape}")
    if not (np.isfinite(masses).all() and (masses > 0).all()):
        raise ValueError("weights must be positive and finite; leave agents without weight out")
    return masses


def stubborn(fixed: ArrayLike | None, n: int) -> np.ndarray | None:
    """Booleans (n,) of who never moves, or ``None`` when that is nobody.

    Raises:
        ValueError: Another shape or type.
    """
    if fixed is None:
        return None
    chosen = np.asarray(fixed)
    if chosen.shape != (n,) or chosen.dtype != bool:
        raise ValueError(f"fixed must be booleans of shape (n,) = ({n},), got {chosen.dtype} of shape {chosen.shape}")
    return chosen if chosen.any() else None
