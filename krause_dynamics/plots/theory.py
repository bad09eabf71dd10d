"""How closely theory is reproduced: one dot per result, its deviation as a share of the tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics.plots.style import new_axes

FLOOR, CEILING = 1e-9, 1e3  # exact results and failed ones are drawn at the ends of the axis


def verdicts(results: Sequence[str], shares: Sequence[float], *, ax: Axes | None = None, **scatter: Any) -> Axes:
    """Deviation over tolerance of each result on a log axis, left of 1 where it agrees.

    Args:
        results: Names, from top to bottom.
        shares: Deviation / tolerance, one each; 0 is drawn at 1e-9, infinity at 1e3.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.

    Raises:
        ValueError: Numbers and names that do not match.
    """
    if len(results) != len(shares):
        raise ValueError(f"shares must have one number per result, got {len(shares)} for {len(results)} results")
    ax = new_axes(ax)
    # NaN (nothing measured) counts as a failure.
    position = np.clip(np.nan_to_num(np.asarray(shares, float), nan=np.inf), FLOOR, CEILING)
    rows = np.arange(len(results))
    colours = np.where(position <= 1.0, "C0", "C1")
    options: dict[str, Any] = {"c": colours, "s": 18} | scatter
    ax.scatter(position, rows, **options)
    ax.axvline(1.0, color="black", linewidth=0.8)
    ax.set(xscale="log", xlim=(FLOOR / 2, CEILING * 2), ylim=(len(results) - 0.3, -0.7), xlabel="deviation / tolerance")
    ax.set_yticks(rows, [name if len(name) <= 70 else name[:67] + "..." for name in results], fontsize=7)
    return ax
