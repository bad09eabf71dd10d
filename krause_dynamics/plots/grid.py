"""Any sweep as a phase diagram: one quantity over two parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from krause_dynamics._arguments import Flag, Holds, Is, Maybe, reads
from krause_dynamics.plots.style import ON, new_axes

if TYPE_CHECKING:
    import xarray

MOST_COUNTS = 12  # whole numbers with a colour each; further ones share the last
BRIGHT = 0.55  # mean of red, green and blue from which on strokes are dark
FINE = 8  # values of a parameter from which on lines follow the borders of the cells
NAME = Is(str, "a name of the Dataset")
REPEATED = ("seed", "run", "sequence")  # dimensions over which the mean is taken


@reads(
    dataset=Holds("kd.sweep", ()),
    x=NAME,
    y=NAME,
    value=Maybe(NAME),
    settled=Maybe(NAME),
    contours=Maybe(Flag()),
    ax=ON,
)
def phase(
    dataset: xarray.Dataset,
    *,
    x: str,
    y: str,
    value: str | None = None,
    settled: str | None = None,
    contours: bool | None = None,
    ax: Axes | None = None,
    **mesh: Any,
) -> Axes:
    """One statistic of a sweep over two of its parameters; whole numbers get a colour each.

    Where more than twelve different ones occur, the largest share a colour if they are the smaller part, else all are
    drawn as a scale.

    Seeds are averaged, and so is nothing else: a third parameter is to be chosen with ``dataset.sel``. Axes are
    logarithmic where the values of a parameter grow by factors; every cell has the same size there.

    Args:
        dataset: Of ``kd.sweep``, or any Dataset over the two parameters.
        x: Parameter along the horizontal axis.
        y: Parameter along the vertical axis.
        value: Name of the variable (default: the only one there is beside ``settled``).
        settled: Name of a variable that is true where a run had settled; the other cells are hatched.
        contours: Lines between neighbouring whole numbers, on the mean over seeds, straight from the middle of a cell
            to the next; ``None`` where both parameters have at least eight values, since they cross larger cells.
        ax: Where to draw.
        **mesh: For ``Axes.pcolormesh``.

    Raises:
        ValueError: A name that the Dataset lacks, several candidates for ``value``, or a third dimension.
    """
    value = _chosen(dataset, value, settled)
    picture, counted = _table(dataset, value, x, y)
    ax, (across, up) = new_axes(ax), (picture[name].values.astype(float) for name in (x, y))
    values, levels = picture.values, _levels(picture.values) if counted and "norm" not in mesh else None
    options: dict[str, Any] = {"cmap": "viridis", "shading": "flat"} | mesh
    if levels is not None:
        colours = len(levels) - 1
        more: Literal["max", "neither"] = "max" if np.nanmax(values) > levels[-1] else "neither"
        colours += more == "max"
        options |= {"norm": BoundaryNorm(levels, colours, extend=more), "cmap": plt.get_cmap(options["cmap"], colours)}
    for name, at in (("x", across), ("y", up)):
        if _grows_by_factors(at):
            getattr(ax, f"set_{name}scale")("log")
            axis = getattr(ax, f"{name}axis")
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
            axis.set_minor_formatter(NullFormatter())
    drawn = ax.pcolormesh(_edges(across), _edges(up), values, **options)
    ticks = None if levels is None else levels[:-1] + 0.5
    ax.figure.colorbar(drawn, ax=ax, label=_words(dataset, value), ticks=ticks)
    contours = min(values.shape) >= FINE if contours is None else contours
    if contours and levels is not None and min(values.shape) > 1 and len(levels) > 2:
        ax.contour(across, up, values, levels=levels[1:-1], colors="white", linewidths=0.8)
    if settled is not None:
        bright = drawn.to_rgba(values)[..., :3].mean(axis=-1) > BRIGHT
        _hatch(ax, across, up, _table(dataset, settled, x, y)[0].values < 1, bright)
    ax.grid(visible=False)
    ax.set(xlabel=_words(dataset, x), ylabel=_words(dataset, y))
    return ax


def _chosen(dataset: xarray.Dataset, value: str | None, settled: str | None) -> str:
    """The variable to draw."""
    names = [str(name) for name in dataset.data_vars if name != settled]
    if value is None and len(names) == 1:
        return names[0]
    if value not in names:
        raise ValueError(f"value must be one of {', '.join(sorted(names))}, got {value!r}")
    return value


def _table(dataset: xarray.Dataset, value: str, x: str, y: str) -> tuple[Any, bool]:
    """(variable over (y, x), whether it counts); repeated runs are averaged."""
    for role, name in (("x", x), ("y", y)):
        if name not in dataset.dims:
            raise ValueError(f"{role} must be one of {', '.join(map(str, dataset.dims))}, got {name!r}")
    if value not in dataset:
        raise ValueError(f"settled must be one of {', '.join(map(str, dataset.data_vars))}, got {value!r}")
    array = dataset[value]
    counted = array.dtype.kind in "iu" or bool((array == np.round(array)).where(array.notnull(), True).all())
    array = array.mean([name for name in REPEATED if name in array.dims])
    left = [str(name) for name in array.dims if name not in (x, y)]
    if left:
        raise ValueError(f"{value} must be over {x} and {y}, got also {', '.join(left)}; choose with dataset.sel(...)")
    return array.transpose(y, x), counted


def _levels(values: np.ndarray) -> np.ndarray | None:
    """Borders between the whole numbers that have a colour of their own, or ``None`` where most would have none."""
    if not np.isfinite(values).any():
        return None
    low, high = int(np.floor(np.nanmin(values))), int(np.ceil(np.nanmax(values)))
    if high - low >= MOST_COUNTS:
        if np.nanmedian(values) >= low + MOST_COUNTS:
            return None
        high = low + MOST_COUNTS - 1
    return np.arange(low, high + 2) - 0.5


def _grows_by_factors(at: np.ndarray) -> bool:
    """Whether values are nearer to a geometric sequence than to an arithmetic one."""
    if len(at) < 3 or (at <= 0).any():
        return False
    steps, factors = np.diff(at), np.diff(np.log(at))
    return bool(np.std(factors) / abs(np.mean(factors)) < np.std(steps) / abs(np.mean(steps)))


def _edges(at: np.ndarray) -> np.ndarray:
    """Borders of the cells around values: half way between neighbours."""
    if len(at) == 1:
        return at[0] + np.array([-0.5, 0.5])
    logs = _grows_by_factors(at)
    place = np.log(at) if logs else at
    middle = (place[1:] + place[:-1]) / 2
    found = np.concatenate([[2 * place[0] - middle[0]], middle, [2 * place[-1] - middle[-1]]])
    return np.exp(found) if logs else found


def _hatch(ax: Axes, across: np.ndarray, up: np.ndarray, where: np.ndarray, bright: np.ndarray) -> None:
    """Strokes over the cells where something had not settled, dark ones over bright cells, and a legend."""
    left, bottom = _edges(across), _edges(up)
    for row, column in np.argwhere(where):
        size = left[column + 1] - left[column], bottom[row + 1] - bottom[row]
        colour = "0.25" if bright[row, column] else "white"
        corner = left[column], bottom[row]
        ax.add_patch(Rectangle(corner, *size, fill=False, hatch="///", linewidth=0, ec=colour))
    if where.any():
        key = Rectangle((0, 0), 1, 1, fill=False, hatch="///", linewidth=0, ec="white", label="not settled")
        ax.legend(handles=[key], loc="best", frameon=True, facecolor="0.35", labelcolor="white")


def _words(dataset: xarray.Dataset, name: str) -> str:
    """A name for readers: the long name and unit of the Dataset where it has them."""
    about = dataset[name].attrs
    words = str(about.get("long_name", name)).replace("_", " ")
    return f"{words} ({about['units']})" if about.get("units") else words
