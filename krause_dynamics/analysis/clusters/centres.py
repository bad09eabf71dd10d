"""Two counts of clusters to come: modes of the field of a cloud, and Renyi centres of causal attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._arguments import POSITIVE, Entries, Flag, Maybe, reads
from krause_dynamics._array import Array, to_numpy
from krause_dynamics.spaces import SPACE

NODES = 24  # a bandwidth: two maxima are further apart than a bandwidth, so that none falls between the nodes
BLOCK = 1 << 22  # entries of one block of kernel values, 32 MB
REACH = 12.0  # bandwidths: beyond, a Gaussian is below 1e-31 of one that is near


@reads(x=Entries((1, 2)), beta=POSITIVE, period=Maybe(POSITIVE))
def density_modes(x: Array, beta: float, *, period: float | None = None) -> np.ndarray:
    r"""Local maxima of the field f(t) = sum_j exp(-beta (t - x_j)^2/2) of points on a line, or of its like on a circle.

    On a circle of length P the field is sum_j exp(beta (P/2 pi)^2 (cos(2 pi (t - x_j)/P) - 1)), the field of softmax
    attention. Maxima are sign changes of the slope on a grid of 24 nodes a bandwidth beta^{-1/2}.

    Args:
        x: (n,) or (n, 1) positions.
        beta: Inverse squared bandwidth, in units of x.
        period: Length of the circle; ``None``: a line.

    Returns:
        Positions of the maxima (modes,), rising, to about 1/24 of a bandwidth. A flat field has none.

    Raises:
        ValueError: Not a row of finite numbers, beta not positive, or more nodes than memory holds.

    Source: arXiv 2412.09080 (line); arXiv 2410.23228 (circle). `theory.expected_density_modes_on_line` and
    `theory.expected_initial_modes` predict their number.
    """
    points = _row(x)
    if period is not None:
        points = np.mod(points, period)
    width = beta**-0.5
    low, high = (0.0, period) if period is not None else (points.min() - width, points.max() + width)
    count = np.ceil((high - low) / width * NODES) + 1
    if not count <= 1e8:
        raise ValueError(f"beta must leave at most 1e8 nodes on the range of x, got {beta!r}, which takes {count:.1e}")
    nodes = np.linspace(low, high, max(int(count), 64), endpoint=period is None)
    rising = np.sign(_slope(nodes, np.sort(points), beta, period))
    before, after = (rising, np.roll(rising, -1)) if period is not None else (rising[:-1], rising[1:])
    at = np.flatnonzero((before > 0) & (after <= 0))
    return np.asarray(nodes[at] + (nodes[1] - nodes[0]) / 2)


def _slope(nodes: np.ndarray, points: np.ndarray, beta: float, period: float | None) -> np.ndarray:
    """A positive multiple of the slope of the field, from logarithms: far from all points it is that of the nearest."""
    slope = np.empty(len(nodes))
    size = max(1, BLOCK // len(points))
    for start in range(0, len(nodes), size):
        block = nodes[start : start + size, None]
        near = points
        if period is None:
            reach = REACH / beta**0.5
            first, last = np.searchsorted(points, [block[0, 0] - reach, block[-1, 0] + reach])
            near = points[max(first - 1, 0) : last + 1]
            gap = near - block
            exponent = -0.5 * beta * gap**2
        else:
            radius = period / (2 * np.pi)
            angle = (near - block) / radius
            gap, exponent = np.sin(angle), beta * radius**2 * (np.cos(angle) - 1.0)
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        slope[start : start + size] = (weight * gap).sum(axis=1)
    return slope


@reads(x=Entries((1, 2)), separation=POSITIVE, space=SPACE, strong=Flag())
def renyi_centres(x: Array, separation: float, *, space: Any = None, strong: bool = False) -> np.ndarray:
    """Tokens, in order, that no earlier centre (or, ``strong``, no earlier token) comes near.

    In causal attention later tokens gather around them for long times.

    Args:
        x: (n, d) positions in the order of the tokens; (n,) on a line.
        separation: Distance up to which a centre claims a token.
        space: Its ``distance`` decides, such as `kd.Circle()` or `kd.Torus(1.0)`; default Euclidean.
        strong: Ask about every earlier token.

    Returns:
        Indices (centres,), rising; the first token is always one.

    Raises:
        ValueError: Not one finite state, or a separation that is not positive.

    Source: arXiv 2411.04990, section 5; `theory.expected_renyi_centres` and `theory.expected_strong_renyi_centres`
    predict their number.
    """
    points = to_numpy(x).astype(np.float64, copy=False)
    points = points[:, None] if points.ndim == 1 else points
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"x must be one finite state of shape (n, d), got shape {points.shape}")
    distance = _euclidean if space is None else space.distance
    centres: list[int] = []
    for i in range(len(points)):
        earlier = points[:i] if strong else points[centres]
        if not len(earlier) or np.min(distance(points[i : i + 1], earlier)) > separation:
            centres.append(i)
    return np.asarray(centres, dtype=np.int64)


def _euclidean(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(x - y, axis=-1))


def _row(x: Array) -> np.ndarray:
    points = to_numpy(x).astype(np.float64, copy=False)
    if points.ndim == 2 and points.shape[1] == 1:
        points = points[:, 0]
    if points.ndim != 1 or points.size == 0 or not np.isfinite(points).all():
        raise ValueError(f"x must be a row of finite positions, (n,) or (n, 1), got shape {points.shape}")
    return points
