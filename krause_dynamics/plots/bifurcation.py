"""Bounded confidence over the radius: Lorenz's bifurcation diagram, and the mean largest cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics._arguments import Reals, reads
from krause_dynamics.plots.style import new_axes


@reads(radii=Reals(ndim=1))
def bifurcation(
    radii: Sequence[float] | np.ndarray,
    positions: Sequence[np.ndarray],
    masses: Sequence[np.ndarray] | None = None,
    *,
    ax: Axes | None = None,
    **scatter: Any,
) -> Axes:
    """Where the final clusters are, over the radius (Lorenz 2007); the area of a dot is the mass of the cluster.

    Args:
        radii: (R,) confidence bounds; unit: opinion.
        positions: For each radius the positions of the final clusters, (k,), as ``kd.final_clusters`` gives.
        masses: Likewise their shares of all mass; equal dots without.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: One list per radius is needed.
    """
    shares = [np.ones(np.size(x)) / 4 for x in positions] if masses is None else masses
    if not len(radii) == len(positions) == len(shares):
        raise ValueError(
            f"positions and masses need one entry per radius, got {len(positions)} and {len(shares)} for {len(radii)}"
        )
    if any(np.size(x) != np.size(share) for x, share in zip(positions, shares, strict=True)):
        raise ValueError("masses must have one entry for each of the positions of its radius")
    ax = new_axes(ax)
    along = np.concatenate([np.full(np.size(x), radius) for radius, x in zip(radii, positions, strict=True)])
    # A smallest dot keeps the small groups between the large ones visible.
    areas = 1.0 + 40.0 * np.concatenate([np.ravel(share) for share in shares])
    options: dict[str, Any] = {"s": areas, "color": "C0", "linewidths": 0} | scatter
    ax.scatter(along, np.concatenate([np.ravel(x) for x in positions]), **options)
    ax.set(xlabel="radius", ylabel="final opinions")
    return ax


def largest_cluster(
    radii: Sequence[float] | np.ndarray, largest: np.ndarray, *, ax: Axes | None = None, **line: Any
) -> Axes:
    """Mean share of the largest cluster over the radius, with the central half of the samples as a band.

    Args:
        radii: (R,) confidence bounds; unit: opinion.
        largest: (R, S) shares of the largest cluster, as ``kd.hegselmann_krause_batch`` gives.
        ax: Where to draw.
        **line: For ``Axes.plot``.

    Raises:
        ValueError: Shapes that do not fit.
    """
    largest = np.asarray(largest)
    if largest.ndim != 2 or largest.shape[0] != len(radii):
        raise ValueError(f"largest must have shape (R, S) with R = {len(radii)} radii, got {largest.shape}")
    ax = new_axes(ax)
    (drawn,) = ax.plot(radii, largest.mean(1), **({"label": "mean"} | line))
    low, high = np.quantile(largest, [0.25, 0.75], axis=1)
    ax.fill_between(radii, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)
    ax.set(xlabel="radius", ylabel="share of the largest cluster", ylim=(0, 1.02))
    return ax
