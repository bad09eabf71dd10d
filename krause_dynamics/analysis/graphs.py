"""The interaction graph of a state, and of a run: who hears whom, components over time, merges and splits as a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import Points, Word, reads
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.analysis import operators
from krause_dynamics.analysis.clusters import Event, events
from krause_dynamics.interaction import Interaction
from krause_dynamics.interaction.rules import RULE
from krause_dynamics.spaces import SPACE, Space

if TYPE_CHECKING:
    import networkx

__all__ = ["components", "interaction_graph", "merge_tree", "merges_and_splits"]


@reads(rule=RULE, x=Points((1, 2)), space=SPACE)
def interaction_graph(
    rule: Interaction, x: Array, *, log_mass: Array | None = None, space: Space | None = None
) -> networkx.DiGraph:
    """Directed graph of one state: an edge i -> j where i hears j, with ``weight`` a_ij.

    Edges are the support (an admitted pair whose weight underflows is an edge of weight 0). A particle that hears
    nobody has a loop of weight 1, since it stays.

    Args:
        rule: The interaction.
        x: (n, d) positions.
        log_mass: (n,) log-masses.
        space: Where the positions live, as `operators.matrix` reads it.

    Returns:
        networkx DiGraph on 0, ..., n - 1, each node with its ``position``.
    """
    import networkx

    matrix = operators.matrix(rule, x, log_mass=log_mass, sparse=True, space=space).tocoo()
    graph = networkx.DiGraph()
    graph.add_nodes_from((i, {"position": point}) for i, point in enumerate(to_numpy(x)))
    rows, columns = (axis.tolist() for axis in matrix.coords)
    graph.add_weighted_edges_from(zip(rows, columns, matrix.data.tolist(), strict=True))
    return graph


@reads(rule=RULE, connection=Word(("weak", "strong")), space=SPACE)
def components(rule: Interaction, run: Any, *, connection: str = "weak", space: Space | None = None) -> np.ndarray:
    """Components of the interaction graph at every saved time.

    Args:
        rule: The interaction.
        run: A `Trajectory` (its masses and its space are used), or positions (T, n, d).
        connection: ``"weak"``: joined by hearing in either direction; ``"strong"``: hearing each other along paths.
        space: Where the positions live; by default that of a `Trajectory`.

    Returns:
        (T, n) labels, numbered by first member at each time; -1 for a point without mass.

    Raises:
        ValueError: Unknown connection, or a batch of runs.
    """
    if connection not in ("weak", "strong"):
        raise ValueError(f"connection must be 'weak' or 'strong', got {connection!r}")
    positions, log_mass = to_numpy(getattr(run, "positions", run)), getattr(run, "log_mass", None)
    space = getattr(run, "space", None) if space is None else space
    if positions.ndim != 3:
        raise ValueError(f"run must have positions (T, n, d), got {positions.shape}; choose one of the batch")
    labels = np.empty(positions.shape[:2], np.int64)
    for step, x in enumerate(positions):
        mass = None if log_mass is None else np.broadcast_to(to_numpy(log_mass), labels.shape)[step]
        form = operators.structure(operators.support(rule, x, log_mass=mass, sparse=True, space=space))
        labels[step] = _by_first_member(form.blocks if connection == "weak" else form.classes)
        if mass is not None:
            labels[step, mass == -np.inf] = -1
    return labels


def _by_first_member(labels: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def merges_and_splits(labels: Array, times: Array | None = None) -> tuple[Event, ...]:
    """Merges and splits in the order of time; the same as `clusters.events`.

    Args:
        labels: (times, n) from `components`.
        times: (times,) of the states; by default their numbers.
    """
    return events(labels, times)


def merge_tree(labels: Array, times: Array | None = None) -> networkx.DiGraph:
    """History of the clusters: a node per stretch in which a cluster keeps its members, edges to what it becomes.

    A tree that grows towards one root where clusters only merge; splits make it a directed acyclic graph.

    Args:
        labels: (T, n) from `components` or `clusters.labels`; -1 for absent points.
        times: (T,), by default 0, 1, ...

    Returns:
        networkx DiGraph. Node 0, 1, ... in the order of birth, each with ``members`` (tuple of points), ``size``,
        ``birth`` and ``death`` (times of the first and of the last state with these members) and ``step`` (index of
        birth). Edges lead to later nodes and carry ``shared``, the number of points in common.

    Raises:
        ValueError: ``labels`` is not (T, n), or times do not fit.
    """
    import networkx

    labels = to_numpy(labels)
    if labels.ndim != 2:
        raise ValueError(f"labels must have shape (T, n), got {labels.shape}")
    times = np.arange(len(labels), dtype=float) if times is None else np.asarray(to_numpy(times), dtype=float)
    if times.shape != labels.shape[:1]:
        raise ValueError(f"times must have shape ({len(labels)},), got {times.shape}")
    tree = networkx.DiGraph()
    owner: dict[int, int] = {}  # point -> node that holds it now
    for step, time in enumerate(times.tolist()):
        now: dict[int, int] = {}
        for members in _groups(labels[step]):
            before = sorted({owner[i] for i in members if i in owner})
            if len(before) == 1 and tree.nodes[before[0]]["members"] == members:
                node = before[0]
                tree.nodes[node]["death"] = time
            else:
                node = tree.number_of_nodes()
                tree.add_node(node, members=members, size=len(members), birth=time, death=time, step=step)
                for parent in before:
                    tree.add_edge(parent, node, shared=sum(owner.get(i) == parent for i in members))
            now.update(dict.fromkeys(members, node))
        owner = now
    return tree


def _groups(labels: np.ndarray) -> list[tuple[int, ...]]:
    """Members of each cluster, by first member."""
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    groups = [tuple(group.tolist()) for group in np.split(order, cuts) if labels[group[0]] >= 0]
    return sorted(groups)
