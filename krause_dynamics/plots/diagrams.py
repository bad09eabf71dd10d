"""Phase diagrams: particles as the picture, the mean field as a contour or circles, linear theory as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from krause_dynamics._arguments import Holds, reads
from krause_dynamics.plots.cases import DASHES
from krause_dynamics.plots.style import ON, new_axes

if TYPE_CHECKING:
    import xarray

# Distance, in radii, of the outermost cluster of the discrete map from the edge of a uniform density.
EDGE_CLUSTER = 1.546
MODELS = {
    "discrete": "discrete time",
    "density": "discrete time, density",
    "normalised": "continuous time, normalised",
    "per_capita": "continuous time, per capita",
}


@reads(data=Holds("kd.phase_diagrams.order_over_beta", ("beta", "time", "particles", "density")), ax=ON)
def order_over_beta(data: xarray.Dataset, *, ax: Axes | None = None, **mesh: Any) -> Axes:
    """Order parameter over (beta, time): particles in colour, r = 1/2 of the solver and of linear theory as lines.

    Args:
        data: From ``kd.phase_diagrams.order_over_beta``.
        ax: Where to draw.
        **mesh: For ``Axes.pcolormesh``.
    """
    ax = new_axes(ax)
    options: dict[str, Any] = {"vmin": 0.0, "vmax": 1.0, "shading": "nearest"} | mesh
    picture = ax.pcolormesh(data.beta, data.time, data.particles.T, **options)
    ax.figure.colorbar(picture, label="order parameter (particles)")
    ax.contour(data.beta, data.time, data.density.T, levels=[0.5], colors="white")
    ax.plot(data.beta, data.linear_time, "--", color="C1", label="r = 1/2, linear theory")
    ax.plot([], [], color="white", label="r = 1/2, mean field")
    ax.legend(loc="lower right", facecolor="0.35", frameon=True, labelcolor="white")
    ax.set(xlabel="inverse temperature beta", ylabel="time", ylim=(float(data.time[0]), float(data.time[-1])))
    return ax


@reads(data=Holds("kd.phase_diagrams.order_over_beta", ("beta", "time", "clusters", "winning_mode")), ax=ON)
def clusters_over_beta(data: xarray.Dataset, *, ax: Axes | None = None, **lines: Any) -> Axes:
    """Number of clusters over beta at the saved times, against the winning mode of linear theory.

    Args:
        data: From ``kd.phase_diagrams.order_over_beta``.
        ax: Where to draw.
        **lines: For ``Axes.plot``.
    """
    ax = new_axes(ax)
    chosen = np.unique(np.linspace(0, data.sizes["time"] - 1, 3).round().astype(int))
    for index, mark, dash in zip(chosen, "os^", DASHES[1:], strict=False):
        options: dict[str, Any] = {"marker": mark, "markersize": 4, "linewidth": 1.0, "linestyle": dash} | lines
        ax.plot(data.beta, data.clusters[:, index], label=f"particles, t = {float(data.time[index]):.3g}", **options)
    ax.plot(data.beta, data.winning_mode, "k-", drawstyle="steps-mid", label="winning mode")
    # Room above the highest line for the legend.
    most = max(float(data.clusters[:, chosen].max()), float(data.winning_mode.max()))
    ax.set(xlabel="inverse temperature beta", ylabel="clusters", ylim=(0, 1.6 * most))
    ax.legend(loc="upper left", ncols=2)
    return ax


@reads(data=Holds("kd.phase_diagrams.clusters_over_length", ("length", "position", "mass")), ax=ON)
def clusters_over_length(data: xarray.Dataset, *, ax: Axes | None = None, **scatter: Any) -> Axes:
    """Bifurcation diagram: positions of the final clusters over interval length, area of a dot = mass.

    Args:
        data: From ``kd.phase_diagrams.clusters_over_length``.
        ax: Where to draw.
        **scatter: For ``Axes.scatter``.
    """
    from krause_dynamics import theory

    ax = new_axes(ax)
    length = np.broadcast_to(data.length.values[:, None], data.position.shape)
    present = np.isfinite(data.position.values)
    # A smallest dot keeps the middle group visible, whose mass may be 1e-5.
    size = 2.5 + 40.0 * data.mass.values[present]
    options: dict[str, Any] = {"s": size, "color": "C0", "linewidths": 0} | scatter
    ax.scatter(length[present], data.position.values[present], **options)
    if data.attrs.get("model") == "discrete":
        for point in (*theory.CONSENSUS_BRANCH_POINTS, theory.CONSENSUS_LOST):
            ax.axvline(point, color="C1", linestyle="--", linewidth=0.8)
    ax.set(xlabel="interval length / radius", ylabel="position (radii from the centre)")
    return ax


@reads(data=Holds("kd.phase_diagrams.clusters_over_length", ("length", "clusters")), ax=ON)
def cluster_numbers_over_length(data: xarray.Dataset, *, ax: Axes | None = None, **line: Any) -> Axes:
    """Number of final clusters over interval length, and the line of linear theory: the spacing that a front selects.

    Args:
        data: From ``kd.phase_diagrams.clusters_over_length``; its model labels the line.
        ax: Where to draw.
        **line: For ``Axes.plot``.
    """
    from krause_dynamics import theory

    ax = new_axes(ax)
    model = data.attrs.get("model", "discrete")
    number = sum(drawn.get_gid() != "front" for drawn in ax.lines)
    look = {"drawstyle": "steps-mid", "linewidth": 1.2, "linestyle": ("-", "--", "-.")[number % 3]}
    options: dict[str, Any] = look | {"label": MODELS.get(model, model)} | line
    ax.plot(data.length, data.clusters, **options)
    front = theory.selected_front("discrete" if model in ("discrete", "density") else model)
    if not any(drawn.get_gid() == "front" for drawn in ax.lines):
        # An edge cluster sits about one and a half radii inside; the rest is filled at the selected spacing.
        expected = 1 + (data.length - 2 * EDGE_CLUSTER) / front.wavelength
        ax.plot(data.length, expected, "k:", linewidth=1.2, gid="front", label=f"front, {options['label']}")
    ax.set(xlabel="interval length / radius", ylabel="clusters", ylim=(0, None))
    ax.legend()
    return ax


@reads(data=Holds("kd.phase_diagrams.order_over_noise", ("noise", "radius", "density")), ax=ON)
def order_over_noise(data: xarray.Dataset, *, ax: Axes | None = None, **mesh: Any) -> Axes:
    """Order parameter over (noise, radius): the solver in colour, particles as circles, critical noise as a line.

    Args:
        data: From ``kd.phase_diagrams.order_over_noise``.
        ax: Where to draw.
        **mesh: For ``Axes.pcolormesh``.
    """
    ax = new_axes(ax)
    options: dict[str, Any] = {"vmin": 0.0, "vmax": 1.0, "shading": "nearest"} | mesh
    picture = ax.pcolormesh(data.noise, data.radius, data.density, **options)
    ax.figure.colorbar(picture, label="order parameter")
    if "particles" in data:
        noise, radius = np.meshgrid(data.noise, data.radius)
        shades = {name: options[name] for name in ("vmin", "vmax")}
        ax.scatter(noise, radius, c=data.particles.values, s=22, edgecolors="white", linewidths=0.6, **shades)
    ax.plot(data.critical_noise, data.radius, "--", color="C1", label="critical noise, linear theory")
    low, high = ax.get_ylim()
    ax.set(
        xlabel="noise sigma", ylabel="radius / length", ylim=(low, high + 0.15 * (high - low))
    )  # room for the legend
    ax.legend(loc="upper left")
    return ax
