"""Eigenvalues of the OV circuits of heads in the complex plane: whom they draw together, whom they push away."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from krause_dynamics._arguments import Maybe, Whole, reads
from krause_dynamics.plots.cases import Analysed, Named
from krause_dynamics.plots.style import ON, new_axes

CIRCUITS = Named("kd.checkpoints.forecast, of attention whose values are an affine map,", ("ov_real", "ov_imaginary"))

COLOURS = {"c", "color", "facecolor", "facecolors"}  # of scatter; it takes one of them


@reads(dataset=CIRCUITS, ax=ON, block=Maybe(Whole(1)))
def ov_spectra(dataset: Analysed, *, ax: Axes | None = None, block: int | None = None, **artist: Any) -> Axes:
    """Eigenvalues of the OV circuits, a dot each: right of the vertical line a head draws tokens to what it hears.

    Of one model the colour of a dot is its block, of several its model.

    Args:
        dataset: Of ``kd.checkpoints.forecast``, or several by name.
        ax: Where to draw.
        block: Only the heads of this block (from 1).
        **artist: For ``Axes.scatter``.

    Raises:
        ValueError: A block that is not there.
    """
    ax = new_axes(ax)
    alone = not dataset[0].name
    ax.axvline(0.0, color="0.4", linewidth=0.8, linestyle=":")
    for number, case in enumerate(dataset):
        data = case.data[["ov_real", "ov_imaginary"]].transpose("block", "head", "eigenvalue")
        if block is not None:
            if block not in data["block"].values:
                raise ValueError(f"block must be one of {data['block'].values.tolist()}, got {block}")
            data = data.sel(block=[block])
        x, y = (data[name].values.ravel() for name in data)
        known, asked = np.isfinite(x), bool(COLOURS & artist.keys())
        coloured = alone and block is None and not asked
        look: dict[str, Any] = {} if asked else {"color": f"C{number}"}
        if coloured:
            look = {"c": np.repeat(data["block"].values, x.size // data.sizes["block"])[known]}
        elif not alone:
            look["marker"] = "os^D"[number % 4]
        dots = ax.scatter(x[known], y[known], **({"s": 6.0, "linewidths": 0.0, "alpha": 0.7} | look | artist))
        if coloured and data.sizes["block"] > 1:
            ax.figure.colorbar(dots, ax=ax, label="block", ticks=MaxNLocator(integer=True))
        elif not alone:
            dots.set_label(case.label)
    if not alone:
        ax.legend()
    ax.set(xlabel="real part (positive attracts)", ylabel="imaginary part")
    return ax
