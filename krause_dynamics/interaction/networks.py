"""Networks: who may hear whom as lists of links, never as all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from krause_dynamics._array import Array, device, to_numpy
from krause_dynamics._value import Value
from krause_dynamics.interaction.adjacency import read
from krause_dynamics.interaction.neighbourhoods import Neighbourhood, Pairs

DENSE_NODES = 1024  # networks up to here are described by their matrix, as in files of earlier releases


@dataclass(frozen=True, eq=False)
class Edges(Value):
    """Links in rows: node i hears ``heard[bounds[i]:bounds[i + 1]]``, increasing.

    Attributes:
        bounds: (N + 1,) integers from 0 to the number of links.
        heard: (links,) node numbers.
    """

    bounds: Any
    heard: Any

    def __post_init__(self) -> None:
        for name in ("bounds", "heard"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), dtype=np.int64))

    @classmethod
    def of(cls, network: Any) -> Edges:
        """The links of a network, as `adjacency.read` reads it.

        Raises:
            TypeError: No network.
            ValueError: Not square, nodes that are no agents, or weights other than 0 and 1.
        """
        if isinstance(network, Edges):
            return network
        links = read(network).unweighted()
        return cls.between(links.listeners, links.heard, links.nodes)

    @classmethod
    def between(cls, listeners: np.ndarray, heard: np.ndarray, nodes: int) -> Edges:
        """Links from pairs in any order; a pair given twice is one link."""
        links = np.unique(np.asarray(listeners, np.int64) * nodes + np.asarray(heard, np.int64))
        counts = np.bincount(links // max(nodes, 1), minlength=nodes)
        return cls(np.concatenate([[0], np.cumsum(counts)]), links % max(nodes, 1))

    @property
    def nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.bounds) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """That of the matrix, (N, N)."""
        return self.nodes, self.nodes

    @cached_property
    def listeners(self) -> np.ndarray:
        """Who hears along each link, (links,), increasing."""
        return np.repeat(np.arange(self.nodes), np.diff(self.bounds))

    def heard_by(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The links of the listeners ``index`` (k,): place of each link's listener in ``index``, and who is heard."""
        counts = np.diff(self.bounds)[index]
        ends = np.cumsum(counts)
        places = np.arange(counts.sum()) + np.repeat(self.bounds[index] - (ends - counts), counts)
        return np.repeat(np.arange(len(index)), counts), self.heard[places]

    def with_loops(self) -> Edges:
        """The same, with every node hearing itself."""
        own = np.arange(self.nodes)
        return Edges.between(np.append(self.listeners, own), np.append(self.heard, own), self.nodes)

    def reversed(self) -> Edges:
        """Every link the other way round."""
        return Edges.between(self.heard, self.listeners, self.nodes)

    def dense(self) -> np.ndarray:
        """The matrix, (N, N) booleans: O(N^2) memory."""
        matrix = np.zeros(self.shape, bool)
        matrix[self.listeners, self.heard] = True
        return matrix

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The matrix, where numpy asks for an array."""
        return self.dense().astype(bool if dtype is None else dtype)


@dataclass(frozen=True, eq=False)
class Graph(Neighbourhood):
    """A network: query i hears source j where ``adjacency[i, j]`` is true.

    Attributes:
        adjacency: (N, N), numpy, torch, scipy.sparse or pandas, true where 1; a networkx graph (nodes by number where
            they are numbers, else in its own order; in a directed one i hears j along an edge i -> j); or a list of
            tuples (i, j), i hears j. Weights other than 0 and 1 are refused. Kept as `Edges`, O(links);
            ``adjacency.dense()`` is the matrix. Put the diagonal to True where the own opinion counts.
    """

    adjacency: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "adjacency", Edges.of(self.adjacency))

    @cached_property
    def is_symmetric(self) -> bool:  # type: ignore[override]
        return bool(np.array_equal(self.adjacency.heard, self.adjacency.reversed().heard))

    @cached_property
    def hears_itself(self) -> bool:  # type: ignore[override]
        return int((self.adjacency.listeners == self.adjacency.heard).sum()) == self.adjacency.nodes

    @classmethod
    def from_networkx(cls, graph: Any, nodes: list[Any] | None = None, *, include_self: bool = True) -> Graph:
        """The neighbourhood of a networkx graph; in a directed graph i hears j along an edge i -> j.

        Args:
            graph: ``networkx.Graph`` or ``DiGraph``.
            nodes: Order of the particles; by default by number where the nodes are numbers, else the graph's own order.
            include_self: Whether each node hears itself.

        Raises:
            ValueError: ``nodes`` names a node that the graph lacks, or weights other than 0 and 1.
        """
        if nodes is not None:
            unknown = [node for node in nodes if node not in graph]
            if unknown:
                raise ValueError(f"nodes must be nodes of the graph, unknown: {unknown[:5]}")
            graph = graph.subgraph(nodes)
        links = read(graph, nodes).unweighted()
        edges = Edges.between(links.listeners, links.heard, links.nodes)
        return cls(edges.with_loops() if include_self else edges)

    def to_dict(self) -> dict[str, Any]:
        """As every value; the matrix of a small network, the links of a large one."""
        content = super().to_dict()
        return content | ({"adjacency": self.adjacency.dense().tolist()} if self.adjacency.nodes <= DENSE_NODES else {})

    def admits(self, pairs: Pairs) -> Array:
        listeners, sources = to_numpy(pairs.query_index), to_numpy(pairs.source_index)
        self.check_places(listeners, sources)
        rows = np.zeros((listeners.size, self.adjacency.nodes), bool)
        rows[self.adjacency.heard_by(listeners.ravel())] = True
        rows = rows.reshape(*listeners.shape, -1)
        chosen = rows[..., sources] if sources.ndim == 1 else np.take_along_axis(rows, sources[..., None, :], axis=-1)
        return pairs.xp.asarray(chosen, device=device(pairs.queries))

    def check_places(self, *index: np.ndarray) -> None:
        """Refuse particles that are no nodes.

        Raises:
            ValueError: With the number of nodes and the particle.
        """
        largest = max(int(places.max()) for places in index)
        if largest >= self.adjacency.nodes:
            raise ValueError(
                f"Graph has {self.adjacency.nodes} nodes, but particle {largest} takes part; give one node per particle"
            )
