"""The arguments of bounded-confidence runs, checked once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from krause_dynamics._arguments import POSITIVE_PARAMETER
from krause_dynamics._array import Array, is_torch, to_numpy, unmasked
from krause_dynamics.aggregate import as_points
from krause_dynamics.interaction import Edges, Flat, Graph, Interaction, Others, Within
from krause_dynamics.interaction.adjacency import Adjacency, read
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.interaction.scores import Score

MOVED = 1e-12  # of the initial range: less than this is rounding, not motion
FAR = 1e4  # radii; see `scale`
MOST_WEIGHTED = 10_000


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
        if not (np.isfinite(np.ptp(points, axis=0)) & np.isfinite(2 * np.abs(points).max(axis=0))).all():
            raise ValueError(
                "x0 must have a range, and sums of two opinions, that floats can hold; divide opinions and radius by a "
                "common factor"
            )
    return points.astype(np.float64)


def interaction(
    n: int,
    radius: Any,
    closed: bool,
    include_self: bool,
    normalised: bool,
    influence: Score | None,
    graph: Network | None,
    *,
    weighted: bool = False,
    labels: list[Hashable] | None = None,
) -> Interaction:
    """The rule of a run with n agents.

    Raises:
        TypeError: ``influence`` is no score, or ``graph`` no network.
        ValueError: A radius that is not positive or not (n,), a network that does not fit n agents or their labels.
    """
    POSITIVE_PARAMETER.read("radius", radius)
    radius = to_numpy(radius) if np.ndim(radius) else radius
    if np.ndim(radius) and np.shape(radius) != (n,):
        raise ValueError(f"radius must be a number or one per agent, shape ({n},), got shape {np.shape(radius)}")
    if influence is not None and not isinstance(influence, Score):
        raise TypeError(f"influence must be a score such as kd.Radial(phi), got {influence!r}")
    neighbourhood: Neighbourhood = Within(radius, closed=closed)
    log_weights = None
    if weighted and graph is None:
        raise ValueError("weighted=True needs a network with weights, such as graph=W, but graph is None")
    if graph is not None:
        links = network(graph, n, labels)
        edges = Edges.between(links.listeners, links.heard, n)
        if weighted:
            log_weights = _log_weights(links)
        else:
            links.unweighted()
        neighbourhood = neighbourhood & Graph(edges if weighted else edges.with_loops())
    if not include_self:
        neighbourhood = neighbourhood & Others()
    return Interaction(influence or Flat(), neighbourhood, normalised, log_weights)


def network(graph: Network, n: int, labels: list[Hashable] | None = None) -> Adjacency:
    """A network of n agents from a `Graph` or anything that `adjacency.read` takes, in the order of the agents.

    Args:
        graph: The network.
        n: Number of agents.
        labels: Names of the agents; networks with names are put in their order.

    Raises:
        TypeError: No network.
        ValueError: Not n nodes, nodes that are no agents, or labels that contradict the order of the agents.
    """
    order = None if labels is None or labels == list(range(n)) else labels
    if isinstance(graph, Graph | Edges):
        edges = graph.adjacency if isinstance(graph, Graph) else graph
        links = Adjacency(edges.nodes, edges.listeners, edges.heard, np.ones(len(edges.heard)))
    else:
        links = read(graph, order, n)
    if links.nodes != n:
        raise ValueError(f"graph must have one node per agent, {n}, got {links.nodes}")
    named = hasattr(graph, "edges") or hasattr(graph, "columns")
    if order is not None and not named and sorted(map(str, order)) == sorted(map(str, range(n))):
        raise ValueError(
            f"x0 has labels in the order {order[:5]} ..., but graph knows its agents by place; sort x0 "
            "(x0.sort_index()), or give both a graph with names and x0 with labels"
        )
    return links


def _log_weights(links: Adjacency) -> np.ndarray:
    """Log of the weights, (n, n), 0 where there is no link.

    Raises:
        ValueError: A negative weight, or more agents than a matrix can hold.
    """
    if (links.weights < 0).any():
        raise ValueError(f"graph must have positive weights where weighted=True, got {links.weights.min():g}")
    if links.nodes > MOST_WEIGHTED:
        raise ValueError(f"weighted=True takes at most {MOST_WEIGHTED} agents, a matrix of 800 MB, got {links.nodes}")
    matrix = np.zeros((links.nodes, links.nodes))
    matrix[links.listeners, links.heard] = np.log(links.weights)
    return matrix


def weights_of(weights: ArrayLike | None, n: int) -> np.ndarray | None:
    """Positive weights (n,), or ``None``.

    Raises:
        ValueError: Another shape, or not positive and finite.
    """
    if weights is None:
        return None
    masses = unmasked("weights", weights).astype(np.float64)
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
    chosen = unmasked("fixed", fixed)
    if chosen.shape != (n,) or chosen.dtype != bool:
        raise ValueError(f"fixed must be booleans of shape (n,) = ({n},), got {chosen.dtype} of shape {chosen.shape}")
    return chosen if chosen.any() else None
