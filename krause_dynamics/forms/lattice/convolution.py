"""The one operation on uniform grids, where the affinity depends on the difference of places alone: O(n log n).

Whatever the rule, its affinities are read from the rule itself as a table by difference: a score and a neighbourhood
are evaluated on one row and one column, never rewritten here. A flat window is summed exactly in O(n); anything else
goes through a Fourier transform, whose noise is relative to the largest sum, so rows in near-vacuum (where it could
even be negative) go through transforms tilted to level them, and the rest is summed again with logarithms.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.fft import irfft, rfft

from krause_dynamics._array import to_numpy
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.forms.lattice.affinity_tables import Table, table_of
from krause_dynamics.forms.lattice.grid_kernels import log_sums, window_sums
from krause_dynamics.forms.lattice.lattices import Lattice, find_lattice
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request, Within, reference
from krause_dynamics.interaction.neighbourhoods import Everyone

NOISE = 1e-15  # of a transform, relative to the product of the norms of table and masses
MOST_TILTS = 32  # transforms spent on a vacuum before rows are summed one by one
WORST_ERROR = 1e-8  # relative error of a sum by transform above which the row counts as near-vacuum


def supports(interaction: Interaction, request: Request) -> str | None:
    """Yes for exchangeable rules between uniform grids of one step, on a line or all round the unit circle."""
    found = find_lattice(request)
    if isinstance(found, str):
        return found
    return _unsuited(interaction, found)


def pays(interaction: Interaction, request: Request) -> bool:
    """Never of its own accord: particles leave a grid; who keeps one (the mean-field solver) asks by name."""
    return False


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """`aggregate` of this rule."""
    return partial(aggregate, interaction)


def aggregate(interaction: Interaction, request: Request) -> Aggregate:
    """Mean and log-partition, float64.

    Raises:
        UnsupportedImplementation: The points are no uniform grids of one step.
    """
    lattice = find_lattice(request)
    if isinstance(lattice, str):
        raise UnsupportedImplementation(f"impl='convolution' needs uniform grids, but {lattice}; use impl='auto'")
    table = table_of(interaction, lattice, request)
    log_mass = np.zeros(lattice.places[1]) if request.log_mass is None else request.log_mass
    values = np.ascontiguousarray(reference.present(request, request.values))
    log_mass = np.ascontiguousarray(log_mass)
    mean, log_partition = _windows(table, log_mass, values) if table.is_window else _transform(table, log_mass, values)
    return Aggregate(mean, log_partition)


def _unsuited(interaction: Interaction, lattice: Lattice) -> str | None:
    if not interaction.is_exchangeable or not all(isinstance(p, Within | Everyone) for p in interaction.parts):
        return "the rule looks at indices, ranks or single particles"
    if any(np.ndim(to_numpy(p)) for p in interaction.score.parameters if not callable(p)):
        return "a parameter differs between particles"
    if not interaction.score.of_distance and not lattice.cyclic:
        return "the score depends on the place on a line; a dot product is a convolution on the circle only"
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
    sums = irfft(rfft(signals, table.length) * table.spectrum, table.length)[:, : table.places[0]]
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
