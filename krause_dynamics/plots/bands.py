"""Lines over layers and blocks with a band: the arithmetic that plots of several results share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from krause_dynamics.plots.words import plain

if TYPE_CHECKING:
    import xarray

MIDDLE = (0.1, 0.9)  # the band of what differs from sequence to sequence


def mean_and_spread(values: xarray.DataArray, over: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(places, means, (low, high) of the middle 80 per cent of all else), numbers that are none left out.

    The band is ``None`` of one sequence.
    """
    ordered = values.transpose(over, ...)
    rows = ordered.values.reshape(ordered.sizes[over], -1).astype(float)
    places = ordered[over].values if over in ordered.coords else np.arange(1, len(rows) + 1)
    means, bounds = np.full(len(rows), np.nan), np.full((2, len(rows)), np.nan)
    for i, row in enumerate(rows):
        known = row[np.isfinite(row)]
        if len(known):
            means[i], bounds[:, i] = known.mean(), np.quantile(known, MIDDLE)
    return places, means, bounds if rows.shape[1] > 1 else None


def draw(ax: Axes, places: np.ndarray, means: np.ndarray, bounds: np.ndarray | None, **line: Any) -> Line2D:
    """A line, and its band in the same colour; a single place gets a dot, as no line can show it."""
    look: dict[str, Any] = {"marker": "o", "markersize": 4} if len(places) == 1 else {}
    (drawn,) = ax.plot(places, means, **(look | line))
    if bounds is not None:
        ax.fill_between(places, *bounds, color=drawn.get_color(), alpha=0.15, linewidth=0)
    return drawn


def words_of(dataset: xarray.Dataset, quantity: str) -> str:
    """What a variable is, for an axis."""
    return plain(str(dataset[quantity].attrs.get("long_name", quantity.replace("_", " "))))
