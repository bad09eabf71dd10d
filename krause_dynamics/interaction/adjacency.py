"""One reading of networks: networkx, scipy.sparse, arrays, pandas and lists of pairs all say who hears whom, how much.

Agents are nodes by number where the nodes are numbers (0, 0.0 and "0" alike), else in the network's own order, or in an
order that is given (the labels of the opinions). An entry of 0 is no link, whatever holds it. In a directed network i
hears j along an edge i -> j. Weights other than 1 are never dropped: who cannot use them refuses them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from krause_dynamics._array import to_numpy


@dataclass(frozen=True)
class Adjacency:
    """Links of n agents, as read by `read`.

    Attributes:
        nodes: Number of agents.
        listeners: (links,) who hears.
        heard: (links,) who is heard.
        weights: (links,) how much, never 0.
    """

    nodes: int
    listeners: np.ndarray
    heard: np.ndarray
    weights: np.ndarray

    def unweighted(self) -> Adjacency:
        """Itself.

        Raises:
            ValueError: A link has another weight than 1.
        """
        other = np.flatnonzero(self.weights != 1)
        if other.size:
            i, j, weight = (x[other[0]] for x in (self.listeners, self.heard, self.weights))
            raise ValueError(
                f"the network must have weights 0 and 1, got {weight:g} from {i} to {j}; where only the links matter "
                "pass W != 0, and for a weighted mean hegselmann_krause(..., weighted=True) or pair_bias=np.log(W)"
            )
        return self


def read(network: Any, order: Sequence[Hashable] | None = None, nodes: int | None = None) -> Adjacency:
    """The links of anything that describes a network.

    Args:
        network: networkx graph; square array (numpy, torch, scipy.sparse, lists of rows; masked entries are absent);
            pandas DataFrame, square with the same names on both sides, or with columns ``source, target[, weight]``;
            list of tuples ``(i, j)`` or ``(i, j, weight)``: i hears j.
        order: Names of the nodes in the order of the agents, where the network has names.
        nodes: Number of agents of a list of pairs; by default the largest number and one.

    Raises:
        TypeError: None of these.
        ValueError: Not square, NaN or infinite weights, names that are no agents or that contradict the order.
    """
    if hasattr(network, "nodes") and hasattr(network, "edges"):
        edges = network.edges(data="weight", default=1)
        mutual = not network.is_directed()
        return _named(list(network.nodes), edges, order, mutual=mutual)
    if hasattr(network, "columns") and hasattr(network, "index"):
        return _of_frame(network, order)
    if isinstance(network, list | tuple) and network and all(isinstance(pair, tuple) for pair in network):
        return _of_pairs(network, nodes)
    if hasattr(network, "tocoo"):
        entries = network.tocoo()
        return _of_entries(network.shape, entries.row, entries.col, entries.data)
    try:
        matrix = network.filled(0) if isinstance(network, np.ma.MaskedArray) else to_numpy(network)
    except ValueError:
        raise ValueError("a network given by lists of rows must have rows of one length, as many as rows") from None
    if matrix.dtype.kind not in "biuf":
        raise TypeError(
            "a network must be a networkx graph, a square array (dense, sparse or pandas) or a list of tuples (i, j), "
            f"got {type(network).__name__}"
        )
    if matrix.ndim != 2:
        raise ValueError(f"Graph adjacency must be a square (N, N) array, got shape {matrix.shape}")
    rows, columns = np.nonzero(matrix)
    return _of_entries(matrix.shape, rows, columns, matrix[rows, columns])


def agents_of(names: Sequence[Hashable], order: Sequence[Hashable] | None = None) -> dict[Hashable, int]:
    """Which agent each node is.

    Raises:
        ValueError: Numbers that are no agents, or names that are not those of the order.
    """
    numbers = [_number(name) for name in names]
    if order is not None:
        return _in_order([_key(name) for name in names], [_key(name) for name in order])
    if all(number is None for number in numbers):
        return {name: agent for agent, name in enumerate(names)}
    unknown = [name for name, number in zip(names, numbers, strict=True) if number not in range(len(names))]
    if unknown or len(set(numbers)) < len(names):
        raise ValueError(
            f"the network must have nodes 0 .. {len(names) - 1} for {len(names)} agents, unknown: {unknown[:5]}; "
            "number them, or give their order: Graph.from_networkx(graph, nodes=[...])"
        )
    return {name: int(number) for name, number in zip(names, numbers, strict=True) if number is not None}


def labels_of(x: Any) -> list[Hashable] | None:
    """Names that opinions bring along (the index of pandas), or ``None``."""
    index = getattr(x, "index", None)
    if index is None or callable(index) or not hasattr(x, "to_numpy"):
        return None
    return list(index.tolist())


def _in_order(names: list[Hashable], order: list[Hashable]) -> dict[Hashable, int]:
    place = {name: agent for agent, name in enumerate(order)}
    missing = [name for name in names if name not in place] + [name for name in order if name not in set(names)]
    if missing or len(place) < len(order):
        raise ValueError(
            f"the opinions' labels must be the nodes of the network, each once; not in both: {missing[:5]}"
        )
    return place


def _named(
    names: list[Any], edges: Iterable[tuple[Any, Any, Any]], order: Sequence[Hashable] | None, *, mutual: bool
) -> Adjacency:
    agent, given = agents_of(names, order), list(edges)
    key = _key if order is not None else _itself
    pairs = np.array([(agent[key(i)], agent[key(j)]) for i, j, _ in given], np.int64).reshape(-1, 2)
    weights: Any = [1.0 if weight is None else weight for _, _, weight in given]
    if mutual:
        loops = pairs[:, 0] == pairs[:, 1]
        pairs, weights = np.vstack([pairs, pairs[~loops, ::-1]]), [*weights, *np.array(weights, object)[~loops]]
    return _of_entries((len(names), len(names)), pairs[:, 0], pairs[:, 1], weights)


def _of_frame(frame: Any, order: Sequence[Hashable] | None) -> Adjacency:
    columns = list(frame.columns)
    if {"source", "target"} <= set(columns):
        weights = frame["weight"] if "weight" in columns else np.ones(len(frame))
        ends = list(zip(frame["source"].tolist(), frame["target"].tolist(), np.asarray(weights).tolist(), strict=True))
        names = list(dict.fromkeys([end for edge in ends for end in edge[:2]])) if order is None else list(order)
        return _named(names, ends, order, mutual=False)
    names = list(frame.index.tolist())
    if [_key(name) for name in names] != [_key(name) for name in columns]:
        raise ValueError(
            "a network in a DataFrame must have the same names, in one order, as its index and its columns"
        )
    agent = agents_of(names, order)
    place = np.array([agent[_key(name) if order is not None else name] for name in names])
    read_as = read(frame.to_numpy())
    return Adjacency(read_as.nodes, place[read_as.listeners], place[read_as.heard], read_as.weights)


def _of_pairs(pairs: Sequence[tuple[Any, ...]], nodes: int | None) -> Adjacency:
    if any(len(pair) not in (2, 3) for pair in pairs):
        raise ValueError("a list of tuples must hold (i, j) or (i, j, weight); pass a matrix as an array")
    ends = np.array(
        [[_number(end) if _number(end) is not None else -1 for end in pair[:2]] for pair in pairs], np.int64
    )
    count = int(ends.max()) + 1 if nodes is None else nodes
    outside = [
        pair for pair, (i, j) in zip(pairs, ends.tolist(), strict=True) if not (0 <= i < count and 0 <= j < count)
    ]
    if outside:
        raise ValueError(f"pairs must name agents 0 .. {count - 1} by number, got {outside[0]!r}")
    weights = [pair[2] if len(pair) == 3 else 1.0 for pair in pairs]
    return _of_entries((count, count), ends[:, 0], ends[:, 1], weights)


def _of_entries(shape: tuple[int, ...], rows: Any, columns: Any, values: Any) -> Adjacency:
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"Graph adjacency must be a square (N, N) array, got shape {tuple(shape)}")
    try:
        weights = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"a network must have numbers as weights, got {values!r}") from None
    if not np.isfinite(weights).all():
        raise ValueError("a network must have finite weights, got NaN or infinity; put 0 where there is no link")
    linked = weights != 0
    return Adjacency(shape[0], np.asarray(rows)[linked], np.asarray(columns)[linked], weights[linked])


def _number(name: Any) -> int | None:
    """The number that a node is named by: 2, 2.0, "2"."""
    if isinstance(name, bool):
        return None
    if isinstance(name, str):
        return int(name) if name.isascii() and name.isdigit() else None
    if isinstance(name, int | float | np.integer | np.floating) and float(name).is_integer():
        return int(name)
    return None


def _key(name: Any) -> Hashable:
    """A name that is equal for all spellings of a number."""
    number = _number(name)
    return number if number is not None else name  # type: ignore[no-any-return]


def _itself(name: Any) -> Hashable:
    return name  # type: ignore[no-any-return]
