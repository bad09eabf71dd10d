"""The one operation on uniform grids, where the affinity depends on the difference of places alone: O(n log n).

Whatever the rule, its affinities are read from the rule itself as a table by difference: a score and a neighbourhood
are evaluated on one row and one column, never rewritten here. A flat window is summed exactly in O(n); anything else
goes through a Fourier transform, whose noise is relative to the largest sum, so rows in near-vacuum (where it could
even be negative) are summed again with logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from krause_dynamics._array import is_torch, to_numpy
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.exact.grid_kernels import log_sums, window_sums
from krause_dynamics.interaction import Aggregate, DotProduct, Interaction, Request, Within, reference
from krause_dynamics.interaction.neighbourhoods import Everyone

UNEVEN = 1e-9  # relative unevenness of a step that rounding explains
NOISE = 1e-15  # of a transform, relative to the product of the norms of table and masses
MOST_TILTS = 32  # transforms spent on a vacuum before rows are summed one by one
WORST_ERROR = 1e-8  # relative error of a sum by transform above which the row is summed with logarithms


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


def supports(interaction: Interaction, request: Request) -> str | None:
    """Yes for exchangeable rules between uniform grids of one step, on a line or all round the unit circle."""
    found = _lattice(request)
    if isinstance(found, str):
        return found
    return _unsuited(interaction, found)


def pays(interaction: Interaction, request: Request) -> bool:
    """Never of its own accord: particles leave a grid; who keeps one (the mean-field solver) asks by name."""
    return False


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """Mean and log-partition, float64.

    Raises:
        UnsupportedImplementation: The points are no uniform grids of one step.
    """
    lattice = _lattice(request)
    if isinstance(lattice, str):
        raise UnsupportedImplementation(f"impl='convolution' needs uniform grids, but {lattice}; use impl='auto'")
    table = _table(interaction, lattice, request)
    log_mass = np.zeros(lattice.places[1]) if request.log_mass is None else request.log_mass
    values = np.ascontiguousarray(reference.present(request, request.values))
    log_mass = np.ascontiguousarray(log_mass)
    mean, log_partition = _windows(table, log_mass, values) if table.is_window else _transform(table, log_mass, values)
    return Aggregate(mean, log_partition)


def _unsuited(interaction: Interaction, lattice: Lattice) -> str | None:
    if not interaction.is_exchangeable or not all(isinstance(p, Within | Everyone) for p in interaction.parts):
        return "the rule looks at indices, ranks or single particles"
    if any(np.ndim(to_numpy(p)) for p in vars(interaction.score).values() if not callable(p)):
        return "a parameter differs between particles"
    if isinstance(interaction.score, DotProduct) and not lattice.cyclic:
        return "the dot product depends on the place on a line; it is a convolution on the circle only"
    if any(_ties(float(to_numpy(part.radius)), lattice) for part in interaction.find(Within)):
        return "the radius equals a distance of the grid, where rounding decides pair by pair"
    return None


def _ties(radius: float, lattice: Lattice) -> bool:
    """Whether some pair of places is at the radius up to rounding."""
    if lattice.cyclic:
        radius = 2 * np.arcsin(radius / 2) if radius < 2 else 4.0
    return any(
        abs((sign * radius - lattice.offset) / lattice.step - round((sign * radius - lattice.offset) / lattice.step))
        < 1e-7
        for sign in (1, -1)
        if np.isfinite(radius)
    )


def _lattice(request: Request) -> Lattice | str:
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
    if any(np.abs(np.diff(x) - steps[0]).max() > tolerance for x in (queries, sources)):
        return "the points are not evenly spaced"
    return Lattice(float(steps[0]), False, float(queries[0] - sources[0]), sizes)


def _on_circle(queries: np.ndarray, sources: np.ndarray, sizes: tuple[int, int]) -> Lattice | str:
    if sizes[0] != sizes[1]:
        return "the two grids of the circle have different numbers of points"
    step = 2 * np.pi / sizes[0]
    turn = np.array([[np.cos(step), np.sin(step)], [-np.sin(step), np.cos(step)]])
    for x in (queries, sources):
        if np.abs((x * x).sum(axis=-1) - 1).max() > UNEVEN:
            return "the points do not lie on the unit circle"
        if np.abs(x @ turn - np.roll(x, -1, axis=0)).max() > UNEVEN * step + 1e-15:
            return "the points do not go once round the circle in even steps"
    (a, b), (c, d) = queries[0], sources[0]
    return Lattice(step, True, float(np.arctan2(b * c - a * d, a * c + b * d)), sizes)


@dataclass(frozen=True)
class Table:
    """Log-affinities by difference of places.

    Attributes:
        logs: Log-affinity of query i and source j at ``logs[(i - j) + (m - 1)]``; length n + m - 1, or m on a circle
            where the difference is taken modulo m and stored from 0.
        cyclic: On the circle.
        places: (n, m).
        first: Index of the first source (negative where a circle was unrolled).
    """

    logs: np.ndarray
    cyclic: bool
    places: tuple[int, int]
    first: int = 0

    @cached_property
    def heard(self) -> np.ndarray:
        """Places in the table that are admitted."""
        return np.flatnonzero(self.logs > -np.inf)

    @cached_property
    def is_window(self) -> bool:
        """Whether all that are admitted count alike and are consecutive."""
        heard = self.heard
        if self.cyclic or not len(heard):
            return False
        return bool(self.logs[heard].min() == self.top and heard[-1] - heard[0] + 1 == len(heard))

    @cached_property
    def top(self) -> float:
        """Largest log-affinity, 0 where nobody is admitted."""
        return float(self.logs.max()) if len(self.heard) else 0.0

    @cached_property
    def norm(self) -> float:
        """Euclidean norm of the affinities divided by their maximum."""
        return float(np.linalg.norm(np.exp(self.logs - self.top)))

    @property
    def length(self) -> int:
        """Length of the transform."""
        return len(self.logs) if self.cyclic else next_fast_len(len(self.logs), real=True)

    @cached_property
    def spectrum(self) -> np.ndarray:
        """Transform of the affinities divided by their maximum, difference 0 first."""
        scaled = np.exp(self.logs - self.top)
        if self.cyclic:
            return rfft(scaled)
        m = self.places[1]
        return rfft(np.concatenate([scaled[m - 1 :], np.zeros(self.length - len(scaled)), scaled[: m - 1]]))

    def tilted(self, tilt: float) -> Table:
        """Affinities times ``exp(tilt * difference)``."""
        return replace(self, logs=self.logs + tilt * (np.arange(len(self.logs)) - (self.places[1] - 1)))

    def unrolled(self) -> Table:
        """A circle as a line: every source within half a turn of a query, once."""
        m = self.places[1]
        half = m // 2
        logs = np.full(m + 3 * m - 1, -np.inf)
        zero = 3 * m - 1 - m  # query 0 and source 0, which is the m-th of three copies
        differences = np.arange(-half, m - half)
        logs[zero + differences] = self.logs[differences % m]
        return Table(logs, False, (m, 3 * m), -m)


class _Points:
    """Carries an array past a cache whose key says all that matters about it."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Points)

    def __hash__(self) -> int:
        return 0


def _table(interaction: Interaction, lattice: Lattice, request: Request) -> Table:
    # Rules compare functions by name, so the function itself joins the key.
    function = getattr(interaction.score, "phi", None)
    return _cached_table(interaction, function, lattice, _Points(request.queries), _Points(request.sources))


@lru_cache(maxsize=16)
def _cached_table(
    interaction: Interaction, function: Any, lattice: Lattice, queries: _Points, sources: _Points
) -> Table:
    """Read the affinities from the rule: one column gives the differences from 0 up, one row those below."""
    column = reference.log_weights(interaction, Request.of(queries.x, sources.x[:1]))[:, 0]
    if lattice.cyclic:
        return Table(column, True, lattice.places)
    row = reference.log_weights(interaction, Request.of(queries.x[:1], sources.x))[0]
    return Table(np.concatenate([row[:0:-1], column]), False, lattice.places)


def _windows(table: Table, log_mass: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums over windows that slide with the query, by prefixes and suffixes of blocks: never a difference of sums."""
    n, m = table.places
    first = np.arange(n) - (table.heard[-1] - (m - 1))
    mean, log_partition = window_sums(log_mass, values, first, len(table.heard))
    return mean, log_partition + table.top


def _transform(table: Table, log_mass: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, log_partition = np.zeros((table.places[0], values.shape[1])), np.full(table.places[0], -np.inf)
    if log_mass.max() == -np.inf:
        return mean, log_partition
    sums = _sums(table, log_mass, values)
    clear = sums.clear
    mean[clear], log_partition[clear] = sums.mean[clear], sums.log_partition[clear]
    if not clear.all():
        straight = table.unrolled() if table.cyclic else table
        heard = np.arange(straight.first, straight.first + straight.places[1]) % len(log_mass)
        _fill(straight, log_mass[heard], values[heard], mean, log_partition, clear)
    return mean, log_partition


class Sums(NamedTuple):
    """Mean (n, d_v) and log-partition (n,) by transform, and the rows (n,) which rise above its noise."""

    mean: np.ndarray
    log_partition: np.ndarray
    clear: np.ndarray


def _sums(table: Table, log_mass: np.ndarray, values: np.ndarray) -> Sums:
    top = log_mass.max()
    mass = np.exp(log_mass - top)
    centre = values.mean(axis=0)
    signals = np.concatenate([mass[None], mass * (values - centre).T])
    sums = irfft(rfft(signals, table.length, axis=-1) * table.spectrum, table.length, axis=-1)[:, : table.places[0]]
    noise = NOISE * table.norm * float(np.sqrt((mass * mass).sum()))
    clear = sums[0] > noise / WORST_ERROR
    safe = np.where(clear, sums[0], 1.0)
    mean = np.clip(sums[1:].T / safe[:, None] + centre, values.min(axis=0), values.max(axis=0))
    return Sums(mean, np.log(safe) + top + table.top, clear)


def _fill(table: Table, log_mass: np.ndarray, values: np.ndarray, mean: Any, log_partition: Any, clear: Any) -> None:
    """Complete the rows in near-vacuum, in place.

    Where log Z falls with a slope, the factor ``exp(tilt (i - j)) exp(tilt j) = exp(tilt i)`` levels it (Esscher's
    transform): affinities and masses are tilted, and rows that were noise become the largest sums. The slope is
    that of the last clear row, so clear rows eat their way into the vacuum; what resists is summed one by one.
    """
    places = np.arange(table.places[1])
    tried: set[int] = set()
    for _ in range(MOST_TILTS):
        border = _border(clear, tried)
        if border is None:
            break
        row, inner = border
        tried.add(row)
        tilt = (log_partition[inner] - log_partition[row]) / (row - inner)
        if not np.isfinite(tilt):
            continue
        sums = _sums(table.tilted(tilt), log_mass + tilt * places, values)
        gained = sums.clear & ~clear
        mean[gained] = sums.mean[gained]
        log_partition[gained] = sums.log_partition[gained] - tilt * np.flatnonzero(gained)
        clear |= gained
    rest = np.flatnonzero(~clear)
    if len(rest):
        mean[rest], log_partition[rest] = log_sums(rest, log_mass, values, table.logs, False)


def _border(clear: np.ndarray, tried: set[int]) -> tuple[int, int] | None:
    """A clear row beside a faint one, not yet tried, and the clear row behind it."""
    change = np.flatnonzero(clear[1:] != clear[:-1])
    for i in change:
        row, inner = (int(i), int(i) - 1) if clear[i] else (int(i) + 1, int(i) + 2)
        if row not in tried and 0 <= inner < len(clear) and clear[inner]:
            return row, inner
    return None
