"""The drift of a density at the faces between its cells: `aggregate` with faces as queries and cells as sources."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from krause_dynamics._array import to_numpy
from krause_dynamics.aggregate import Plan, plan
from krause_dynamics.dynamics import Dynamics, velocity
from krause_dynamics.dynamics.heads import check_images, check_square
from krause_dynamics.dynamics.returned import returned
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import Aggregate, Interaction, Request, Within
from krause_dynamics.mean_field.cells import Cells, CircleCells, LatitudeCells
from krause_dynamics.mean_field.density import log_of

SNAP = 1e-6  # a radius this near to a whole number of cells counts as one; it misplaces 1e-6 of one cell's mass
CONVOLVE_FROM = 1 << 12  # pairs; below, all pairs are as cheap as a convolution and its checks


@dataclass(frozen=True)
class Sources:
    """One lattice of sources: part ``start..stop`` (in cell widths) of every cell, ghost copies included.

    Attributes:
        points: (m, d), sorted along the coordinate.
        values: (m, d_v).
        owner: Which cell each belongs to, (m,).
        log_share: log of the share of the cell's mass, (m,) or 0.
        start: Left end within the cell, 0..1.
        stop: Right end.
    """

    points: np.ndarray
    values: np.ndarray
    owner: np.ndarray
    log_share: Any = 0.0
    start: float = 0.0
    stop: float = 1.0


class Velocity:
    """The drift along the coordinate at given places, as a function of time and masses.

    Cells that a radius cuts are split where it cuts them, the same places in every cell, so that each source is wholly
    heard or wholly not: the jump is integrated exactly for the reconstructed density.
    """

    def __init__(
        self, dynamics: Dynamics, cells: Cells, where: np.ndarray, *, impl: str = "auto", nodes: int | None = None
    ) -> None:
        self.dynamics, self.cells, self.where, self.nodes = dynamics, cells, where, nodes
        self.points = _face_points(cells, where)
        self.queries = _apply(dynamics.query, self.points, 0.0)
        self._asked = impl
        self._prepare(dynamics.rule_at(0.0))

    @property
    def impl(self) -> str:
        """Name of the form that runs."""
        return self.plans[0].impl

    def _prepare(self, rule: Interaction) -> None:
        """Lay out the sources for the reach of ``rule``, and plan for each part."""
        self._lay_out(rule)
        self.plans = [_plan(rule, self.queries, part, self._asked) for part in self.parts]

    def _lay_out(self, rule: Interaction) -> None:
        self.reach = rule.reach
        if isinstance(self.cells, LatitudeCells):
            self.parts = [_rings(self.cells, self.nodes or _ring_nodes(rule))]
            return
        cuts = _cuts(rule, self.cells)
        self.parts = [_lattice(self.dynamics, rule, self.cells, a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]

    def __call__(self, t: float, mass: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """Drift at the places, (n,), from masses (count,) and slopes of the density (count,)."""
        dynamics, rule = self.dynamics, self.dynamics.rule_at(t)
        if rule.reach != self.reach:
            self._prepare(rule)
        results = []
        for k, part in enumerate(self.parts):
            log_mass = log_of(self._share(part, mass, slopes))[part.owner] + part.log_share
            request = Request(np, self.queries, part.points, _values(dynamics.value, part.values, t), log_mass)
            self.plans[k] = self.plans[k].under(rule, request)
            results.append(self.plans[k].prepared(request))
        drift = self._drift(t, rule, Aggregate.joined(results))
        if dynamics.response is not None:
            drift = returned("response", dynamics.response(t, self.points, drift), drift)
        if dynamics.external is not None:
            drift = drift + returned("external", dynamics.external(t, self.points), drift, broadcasts=True)
        return self.cells.speed(self.where, drift)

    def _share(self, part: Sources, mass: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        if part.start == 0.0 and part.stop == 1.0:
            return mass
        a, b = part.start - 0.5, part.stop - 0.5
        return np.maximum(mass * (b - a) + slopes * self.cells.width**2 * (b * b - a * a) / 2, 0.0)

    def _drift(self, t: float, rule: Interaction, heard: Aggregate) -> np.ndarray:
        relative, value = self.dynamics.is_relative, self.dynamics.value
        own = _values(value, self.points[:, : heard.mean.shape[-1]], t) if relative else None
        return np.asarray(velocity(rule, heard, own, np))


def _apply(matrix: Any, points: np.ndarray, t: float) -> np.ndarray:
    matrix = matrix(t) if callable(matrix) else matrix
    return points if matrix is None else points @ to_numpy(matrix).astype(np.float64).T


def _values(matrix: Any, points: np.ndarray, t: float) -> np.ndarray:
    values = _apply(matrix, points, t)
    check_square(values.shape[-1], points.shape[-1])
    return values


def _face_points(cells: Cells, where: np.ndarray) -> np.ndarray:
    if isinstance(cells, LatitudeCells):  # the ring is met in three dimensions, whatever d
        return np.stack([np.cos(where), np.sin(where), np.zeros_like(where)], axis=-1)
    return cells.points(where)


def _lattice(dynamics: Dynamics, rule: Interaction, cells: Cells, start: float, stop: float) -> Sources:
    middle = cells.centres + ((start + stop) / 2 - 0.5) * cells.width
    points = cells.points(middle)
    keys = _apply(dynamics.key, points, 0.0)
    owner = np.arange(cells.count)
    ghosts = dynamics.space.images(keys, rule)
    if ghosts is not None:
        check_images(dynamics.query, dynamics.key)
        order = np.argsort(ghosts[0][:, 0], kind="stable")
        keys, owner = ghosts[0][order], ghosts[1][order]
        return Sources(keys, keys, owner, start=start, stop=stop)
    return Sources(keys, points, owner, start=start, stop=stop)


def _rings(cells: LatitudeCells, nodes: int) -> Sources:
    """Every latitude as a ring of Gauss-Jacobi nodes in the direction of the meridian of the queries.

    For a uniform omega on S^{d-2} the part along the meridian has density (1 - u^2)^{(d-4)/2}; the third coordinate
    only completes unit length, so that scores by distance see points of the sphere.
    """
    from scipy.special import roots_jacobi

    if cells.dimension == 2:
        u, weights = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    else:
        u, weights = roots_jacobi(nodes, (cells.dimension - 4) / 2, (cells.dimension - 4) / 2)
        weights = weights / weights.sum()
    angle = cells.centres[:, None]
    axis, ring = np.cos(angle) * np.ones_like(u), np.sin(angle)
    points = np.stack([axis, ring * u, ring * np.sqrt(1 - u * u)], axis=-1).reshape(-1, 3)
    values = np.concatenate([points[:, :2], np.zeros((len(points), 1))], axis=-1)
    owner = np.repeat(np.arange(cells.count), len(u))
    return Sources(points, values, owner, np.tile(np.log(weights), cells.count))


def _ring_nodes(rule: Interaction) -> int:
    """16 nodes are exact to rounding up to beta = 8; sharper affinities take more."""
    return 16 + int(np.ceil(rule.length**-2 / 2))


def _cuts(rule: Interaction, cells: Cells) -> list[float]:
    """Where the radius cuts a cell when its middle is a face: ends of the parts, in cell widths."""
    cuts = {0.0, 1.0}
    for part in rule.find(Within):
        radius = float(to_numpy(part.radius))
        if isinstance(cells, CircleCells):  # the radius is a chord
            radius = 2 * np.arcsin(min(radius / 2, 1.0))
        share = (radius / cells.width) % 1.0
        if SNAP < share < 1 - SNAP:
            cuts |= {share, 1 - share}
    ordered = sorted(cuts)
    kept = [ordered[0], *(b for a, b in zip(ordered[:-1], ordered[1:], strict=True) if b - a > SNAP)]
    return [*kept[:-1], 1.0]


def _plan(rule: Interaction, queries: np.ndarray, part: Sources, impl: str) -> Plan:
    """The convolution where it applies and pays, else what `plan` finds; a name is checked and taken."""
    log_mass = np.zeros(len(part.points))
    if impl == "auto" and len(queries) * len(part.points) >= CONVOLVE_FROM:
        with contextlib.suppress(UnsupportedImplementation):
            found = plan(rule, queries, part.points, part.values, log_mass=log_mass, impl="convolution")
            return replace(found, reason="the cells are a uniform grid")  # not asked for: it may be left again
    return plan(rule, queries, part.points, part.values, log_mass=log_mass, impl=impl)
