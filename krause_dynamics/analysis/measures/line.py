"""Wasserstein distances on the line, exact."""

from __future__ import annotations

import numpy as np

from krause_dynamics._arguments import Entries, Real, reads
from krause_dynamics._array import Array
from krause_dynamics.analysis.measures._measure import two


@reads(x=Entries((1, 2)), y=Entries((1, 2)), p=Real(1.0))
def wasserstein(
    x: Array, y: Array, *, p: float = 1, x_log_mass: Array | None = None, y_log_mass: Array | None = None
) -> float:
    """Wasserstein distance on the line, ``W_p = (int_0^1 |F^-1(s) - G^-1(s)|^p ds)^(1/p)``, exact.

    Args:
        x: (n,) or (n, 1) positions.
        y: (m,) or (m, 1) positions.
        p: Exponent, at least 1; 1 is the area between the distribution functions.
        x_log_mass: (n,) log-masses, by default equal; normalised; -inf takes a point out.
        y_log_mass: (m,), likewise.

    Returns:
        The distance, in units of position.

    Raises:
        ValueError: More than one dimension (use `sliced` or `exact`), p < 1, NaN, or no mass.

    Source: Villani, Topics in Optimal Transportation (2003), theorem 2.18.

    Examples:
        >>> wasserstein(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
        2.0
    """
    first, second = two(x, y, x_log_mass, y_log_mass, p)
    if first.points.shape[1] != 1:
        raise ValueError(
            f"x must be points on a line, got dimension {first.points.shape[1]}; use measures.sliced or measures.exact"
        )
    return line_cost(first.points[:, 0], first.mass, second.points[:, 0], second.mass, p) ** (1 / p)


def line_cost(x: np.ndarray, x_mass: np.ndarray | None, y: np.ndarray, y_mass: np.ndarray | None, p: float) -> float:
    """``W_p^p`` on the line."""
    # All scratch memory is one block: pages of several blocks go back to the system after each call, and touching new
    # ones costs as much as the sort.
    n, m = len(x), len(y)
    if x_mass is None and y_mass is None and n == m:
        both = np.empty((2, n))
        both[0], both[1] = x, y
        both.sort(axis=1)
        both[0] -= both[1]
        return mean_power(both[0], p)
    from krause_dynamics.analysis.measures._kernels import coupled_cost

    work = np.empty(3 * (n + m))
    return float(coupled_cost(*_sorted(x, x_mass, work[: 3 * n]), *_sorted(y, y_mass, work[3 * n :]), float(p)))


def mean_power(gaps: np.ndarray, p: float) -> float:
    """Mean of ``|gap|^p``; the array is used up (fresh memory would cost as much as a sort)."""
    if p == 2:
        gaps *= gaps
    else:
        np.abs(gaps, out=gaps)
    return float(np.mean(gaps if p in (1, 2) else gaps**p))


def _sorted(x: np.ndarray, mass: np.ndarray | None, work: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions in ascending order and the cumulated masses, in the memory of ``work`` (3 n,)."""
    n = len(x)
    places, levels = work[:n], work[n : 2 * n]
    if mass is None:
        places[:] = x
        places.sort()
        levels[:] = np.arange(1, n + 1) / n
        return places, levels
    from krause_dynamics.analysis.measures._kernels import cumulate, sortable_keys, take_in_order

    # numpy sorts integers several times faster than it argsorts, so each key carries its own index in its low bits.
    bits, keys = n.bit_length(), work[2 * n :].view(np.int64)
    sortable_keys(x, bits, keys)
    keys.sort()
    if not take_in_order(keys, bits, x, mass, places, levels):
        order = np.argsort(x)
        places[:], levels[:] = x[order], mass[order]
    cumulate(levels)
    return places, levels
