"""The table: rules of every kind, and the ways in which arrays meet them.

Positions are whole eighths, values whole sixteenths and parameters powers of two: scores, distances and their ties are
then exact in float32 already, so that every form must rank and admit the same sources, at boundaries and in ties too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import krause_dynamics as kd

N = 12

SCORES: dict[str, tuple[Callable[[Any], kd.Score], float]] = {
    "dot": (kd.DotProduct, 0.5),
    "repelling dot": (kd.DotProduct, -0.25),
    "dot with norm": (lambda parameter: kd.DotProduct(parameter, parameter), 0.5),
    "gaussian": (kd.Gaussian, 0.5),
    "flat": (lambda parameter: kd.Flat(), 1.0),
    "radial": (lambda parameter: kd.Radial(lambda r: (1 + r * r) ** -0.5), 1.0),
}


def _links() -> np.ndarray:
    linked = np.random.default_rng(4).random((N, N)) < 0.4
    linked[5] = False  # somebody who hears nobody
    return linked


NEIGHBOURHOODS: dict[str, kd.Neighbourhood] = {
    "everyone": kd.Everyone(),
    "others": kd.Others(),
    "within": kd.Within(0.5),
    "within, open": kd.Within(0.5, closed=False),
    "within, between places": kd.Within(0.5625),
    "causal": kd.Causal(),
    "window": kd.Window(4),
    "window and first tokens": kd.Window(3, prefix_tokens=2),
    "window, both sides, and first tokens": kd.Window(3, two_sided=True, prefix_tokens=4),
    "random keys": kd.RandomKeys(4, seed=3, tokens=N, prefix=1),
    "random past": kd.RandomKeys(3, seed=5),
    "window, both sides": kd.Window(5, two_sided=True),
    "ring": kd.Window(5, two_sided=True, periodic=True),
    "picture": kd.Grid(3, 4, radius=1),
    "picture and token": kd.Grid(11, 1, radius=2, metric="manhattan", prefix=1),
    "network": kd.Graph(_links()),
    "packed": kd.Segments(np.array([0, 5, 5, 9, 12])),
    "best 3": kd.TopK(3),
    "best 3 and ties": kd.TopK(3, ties="keep"),
    "others within": kd.Within(0.5) & kd.Others(),
    "best of a window": kd.Window(6) & kd.TopK(3),
    "best of the past, ties": kd.Causal() & kd.TopK(2, ties="keep"),
    "best of a patch": kd.Grid(3, 4, radius=1) & kd.TopK(3),
    "best of a packed window": kd.Segments(np.array([0, 7, 12])) & kd.Window(4) & kd.TopK(2),
    "best of a window and first tokens": kd.Window(4, prefix_tokens=2) & kd.TopK(3),
    "best of a patch, but for the token": kd.Grid(11, 1, radius=2, prefix=1) & kd.TopK(2, exempt=1),
    "best of the past, but for two": kd.Causal() & kd.TopK(2, ties="keep", exempt=2),
    "best of random keys in a window": kd.RandomKeys(5, seed=1, tokens=N, prefix=1) & kd.Window(9) & kd.TopK(2),
    "friends within": kd.Graph(_links()) & kd.Within(1.0),
    "all at once": kd.Within(1.5) & kd.Causal() & kd.Others() & kd.TopK(3),
}


@dataclass(frozen=True)
class Meeting:
    """Arrays of one call, float64 numpy; ``None`` where the default holds.

    Attributes:
        queries: (*batch, n, d).
        rest: The other arrays by their names in `kd.aggregate`.
        parameter: Multiplies the score's parameter: 1, one per query, or one per head.
        pair_bias: Of the rule.
    """

    queries: np.ndarray
    rest: dict[str, np.ndarray] = field(default_factory=dict)
    parameter: Any = 1.0
    pair_bias: np.ndarray | None = None


def _eighths(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-8, 9, shape) / 8


def _masses(seed: int, *shape: int) -> np.ndarray:
    return -np.random.default_rng(seed).integers(0, 17, shape) / 8


def _padded() -> Meeting:
    """Sources without mass hold NaN, which nobody may feel."""
    sources, values, log_mass = _eighths(1, N, 2), _eighths(2, N, 3) / 2, _masses(3, N)
    log_mass[[2, 7]] = -np.inf
    sources[2] = values[7] = np.nan
    return Meeting(_eighths(0, N, 2), {"sources": sources, "values": values, "log_mass": log_mass})


MEETINGS: dict[str, Meeting] = {
    "plane": Meeting(_eighths(0, N, 2)),
    "line": Meeting(_eighths(1, N, 1)),
    "places of a lattice": Meeting(np.arange(N)[:, None] / 8),
    "nobody twice": Meeting(np.random.default_rng(3).permutation(N)[:, None] / 4),
    "masses": Meeting(_eighths(0, N, 2), {"log_mass": _masses(3, N)}),
    "line, masses, absent": Meeting(
        _eighths(1, N, 1), {"log_mass": np.where(np.arange(N) == 3, -np.inf, _masses(5, N))}
    ),
    "values": Meeting(_eighths(0, N, 2), {"values": _eighths(2, N, 3) / 2}),
    "keys and values": Meeting(_eighths(0, N, 2), {"sources": _eighths(1, N, 2), "values": _eighths(2, N, 3) / 2}),
    "padding": _padded(),
    "later queries": Meeting(
        _eighths(0, 5, 2),
        {"sources": _eighths(1, N, 2), "query_index": np.arange(7, N), "source_index": np.arange(N)},
    ),
    "shuffled": Meeting(
        _eighths(0, N, 2),
        {"sources": _eighths(1, N, 2), "query_index": np.arange(N)[::-1].copy(), "source_index": np.arange(N)},
    ),
    "places of their own": Meeting(
        _eighths(0, N, 2), {"query_index": np.arange(N)[::-1].copy(), "source_index": (np.arange(N) * 5) % N}
    ),
    "batch": Meeting(_eighths(0, 2, N, 2), {"log_mass": _masses(3, 2, N)}),
    "heads": Meeting(_eighths(0, 2, 3, N, 2), parameter=np.array([[0.5], [1.0], [2.0]])),
    "one query each": Meeting(_eighths(0, N, 2), parameter=2.0 ** (np.arange(N) % 3 - 1)),
    "pair bias": Meeting(_eighths(0, N, 2), pair_bias=_eighths(6, N, N)),
}


def rule_of(score: str, neighbourhood: str, parameter: Any, pair_bias: Any = None) -> kd.Interaction:
    """The rule with this parameter of its score, a number or an array of the library under test."""
    return kd.Interaction(SCORES[score][0](parameter), NEIGHBOURHOODS[neighbourhood], pair_bias=pair_bias)


def rules() -> Iterator[tuple[str, str]]:
    """Names of all pairs of a score and a neighbourhood."""
    yield from ((score, neighbourhood) for score in SCORES for neighbourhood in NEIGHBOURHOODS)
