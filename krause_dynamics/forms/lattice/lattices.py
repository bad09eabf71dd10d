"""Whether two sets of points are uniform grids of one step, on a line or once round the unit circle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from krause_dynamics._array import is_torch
from krause_dynamics.interaction import Request

UNEVEN = 1e-9  # relative unevenness of a step that rounding explains


@dataclass(frozen=True)
class Lattice:
    """Two grids of one step.

    Attributes:
        step: Distance of neighbours (angle on a circle).
        cyclic: Both grids go once round the circle.
        offset: First query minus first source.
        places: Queries and sources, (n, m).
    """

    step: float
    cyclic: bool
    offset: float
    places: tuple[int, int]


def find_lattice(request: Request) -> Lattice | str:
    """The common grid of queries and sources, or what is wrong with them."""
    if is_torch(request.queries) or request.queries.dtype != np.float64:
        return "only numpy arrays in float64 are transformed"
    if any(x.ndim > 2 for x in (request.queries, request.sources, request.values)):
        return "the arrays have batch axes"
    if request.log_mass is not None and request.log_mass.ndim > 1:
        return "log_mass has batch axes"
    sizes = request.queries.shape[-2], request.sources.shape[-2]
    if min(sizes) < 2:
        return "a grid has at least two points"
    if request.queries.shape[-1] == 1:
        return _on_line(request.queries[:, 0], request.sources[:, 0], sizes)
    if request.queries.shape[-1] == 2:
        return _on_circle(request.queries, request.sources, sizes)
    return "positions have more than two dimensions"


def _on_line(queries: np.ndarray, sources: np.ndarray, sizes: tuple[int, int]) -> Lattice | str:
    steps = [(x[-1] - x[0]) / (len(x) - 1) for x in (queries, sources)]
    if not steps[0] > 0 or abs(steps[0] - steps[1]) * max(sizes) > 1e-7 * steps[0]:
        return "queries and sources have different steps, or are not increasing"
    scale = max(abs(queries[0]), abs(queries[-1]), abs(sources[0]), abs(sources[-1]))
    tolerance = UNEVEN * steps[0] + 8 * np.finfo(float).eps * scale
    if not all(np.abs(np.diff(x) - steps[0]).max() <= tolerance for x in (queries, sources)):  # NaN is uneven
        return "the points are not evenly spaced"
    return Lattice(float(steps[0]), False, float(queries[0] - sources[0]), sizes)


def _on_circle(queries: np.ndarray, sources: np.ndarray, sizes: tuple[int, int]) -> Lattice | str:
    if sizes[0] != sizes[1]:
        return "the two grids of the circle have different numbers of points"
    step = 2 * np.pi / sizes[0]
    turn = np.array([[np.cos(step), np.sin(step)], [-np.sin(step), np.cos(step)]])
    for x in (queries, sources):
        if not np.abs((x * x).sum(axis=-1) - 1).max() <= UNEVEN:
            return "the points do not lie on the unit circle"
        if not np.abs(x @ turn - np.roll(x, -1, axis=0)).max() <= UNEVEN * step + 1e-15:
            return "the points do not go once round the circle in even steps"
    (a, b), (c, d) = queries[0], sources[0]
    return Lattice(step, True, float(np.arctan2(b * c - a * d, a * c + b * d)), sizes)
