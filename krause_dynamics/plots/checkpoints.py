"""How tokens of a trained model synchronize, cluster and form sinks, layer by layer; also for simulated particles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from krause_dynamics._arguments import Maybe, Real, Word, reads
from krause_dynamics._thresholds import RADIUS, SINK
from krause_dynamics.analysis import intervals, observables
from krause_dynamics.plots.bands import MIDDLE
from krause_dynamics.plots.cases import Analysed, Analyses, cases, dimension, is_comparison, label_depth
from krause_dynamics.plots.style import ON, new_axes
from krause_dynamics.plots.words import level, plain, upright
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

# Chords; smaller ones leave tokens of a trained model alone, larger ones join independent directions.
CLUSTER_RADII = (0.4, 0.6, 0.8, 0.9, 1.0)
# Short words for an axis; what else a Dataset holds by layer is labelled with its own long_name.
_LABELS = {
    "order_parameter": "order parameter R",
    "mean_cosine": "mean cosine between tokens",
    "residual": "distance from consensus",
    "effective_rank": "effective rank",
}


@reads(ax=ON, band=Word(("spread", "interval")))
def synchronization(
    run: Trajectory | xarray.Dataset | Mapping[str, Any],
    *,
    ax: Axes | None = None,
    quantity: str = "order_parameter",
    tokens: str = "all",
    band: str = "spread",
    **line: Any,
) -> Axes:
    """An observable over layers or time; with several sequences their mean, and a band of the sequences or of the mean.

    Args:
        run: A Trajectory (of ``kd.simulate`` or ``kd.checkpoints.record``) or the Dataset of ``kd.analyze``; several of
            one kind by name, with a line each; the Dataset of ``kd.compare``, drawn over relative depth.
        ax: Where to draw.
        quantity: ``order_parameter``, ``mean_cosine``, ``residual`` or ``effective_rank``; of a Dataset any variable
            over sequence and layer, or over sequence, block and head (the band is then that of heads and sequences).
        tokens: ``all`` or ``without_first``: with or without the token that most often is the attention sink.
        band: ``spread``: the middle 80 per cent of the sequences, how unlike they are; ``interval``: where their mean
            may lie, the 95 % interval over sequences (as of ``kd.checkpoints.interval``).
        **line: For ``Axes.plot``, such as ``label`` and ``color``.

    Raises:
        ValueError: A quantity, tokens or a band of another name.
    """
    run = _read_run(run)
    known = _quantities(run)
    if quantity not in known:
        raise ValueError(f"quantity must be one of {sorted(known)}, received {quantity!r}")
    if tokens not in ("all", "without_first"):
        raise ValueError(f"tokens must be 'all' or 'without_first', received {tokens!r}")
    ax = new_axes(ax)
    for case in cases(run):
        times, values, axis = _curve(case.data, quantity, tokens, heads_apart=band == "spread")
        drawn = ax.plot(times, intervals.mean(values), **(case.line | line))[0]
        if len(values) > 1:
            low, high = _band(values, band)
            ax.fill_between(times, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
    ax.set_ylabel(upright(ax, known[quantity]))
    label_depth(ax, run, axis)
    if quantity in ("order_parameter", "residual"):
        ax.set_ylim(0, 1.02)
    return ax


def _read_run(run: Any) -> Any:
    """A run, runs by name, or one Dataset of one or several analyses."""
    several = isinstance(run, Mapping) and not hasattr(run, "data_vars")
    if isinstance(run, Trajectory) or (several and run and all(isinstance(x, Trajectory) for x in run.values())):
        return run
    return Analyses(()).read("run", run)


def _quantities(run: Any) -> dict[str, str]:
    """What can be drawn of a run, and its words on the axis."""
    if isinstance(cases(run)[0].data, Trajectory):
        return _LABELS
    by_layer = {
        str(name): str(values.attrs.get("long_name", name))
        for name, values in cases(run)[0].data.data_vars.items()
        if {"sequence", "layer"} <= set(values.dims) <= {"sequence", "layer", "tokens"}
        or {"sequence", "block"} <= set(values.dims) <= {"sequence", "block", "head"}
    }
    return by_layer | {name: label for name, label in _LABELS.items() if name in by_layer}


def _band(values: np.ndarray, band: str) -> np.ndarray:
    """(low, high) over the sequences (sequences, T), of those that are known at a place."""
    if band == "spread":
        bounds, known = np.full((2, values.shape[1]), np.nan), ~np.isnan(values).all(axis=0)
        bounds[:, known] = np.nanquantile(values[:, known], MIDDLE, axis=0)
        return bounds
    about: dict[str, Any] = {"method": "auto", "level": 0.95, "draws": 2000}
    return intervals.of_mean(values, rng=np.random.default_rng(0), **about)


def _curve(run: Any, quantity: str, tokens: str, heads_apart: bool) -> tuple[np.ndarray, np.ndarray, str]:
    """(times (T,), values (sequences, T), name of the axis)."""
    if not isinstance(run, Trajectory):
        chosen = run[quantity]
        chosen = chosen.sel(tokens=tokens) if "tokens" in chosen.dims else chosen
        chosen = chosen if heads_apart or "head" not in chosen.dims else chosen.mean("head")
        place = "layer" if "layer" in chosen.dims else "block"
        values = chosen.transpose(place, ...).values.reshape(chosen.sizes[place], -1).T
        return run[place].values, values, place
    host = run.numpy()
    first = 1 if tokens == "without_first" else 0
    values = []
    for i in range(len(host)):
        mass = host.log_mass_at(i)
        log_mass = None if mass is None else mass[..., first:]
        values.append(getattr(observables, quantity)(host.positions[i][..., first:, :], log_mass=log_mass))
    return host.times, np.stack(values).reshape(len(host), -1).T, str(host.meta.get("axis", "time"))


@reads(dataset=Analyses(("clusters", "radius")), ax=ON)
def clusters(
    dataset: Analysed,
    *,
    ax: Axes | None = None,
    radii: Sequence[float] | None = None,
    tokens: str = "without_first",
    quantity: str = "clusters",
    **line: Any,
) -> Axes:
    """Number of clusters over layers, one line an angle within which directions are joined; darker is wider.

    Args:
        dataset: Of ``kd.analyze``, or of ``kd.compare``: then also one line a case.
        ax: Where to draw.
        radii: Some of the radii of the Dataset, which are chords (default: those nearest to ``CLUSTER_RADII``, of a
            comparison the one nearest to ``RADIUS``).
        tokens: ``all`` or ``without_first``.
        quantity: ``clusters`` or ``effective_clusters``.
        **line: For ``Axes.plot``.
    """
    ax = new_axes(ax)
    have = dataset["radius"].values
    if radii is None:
        wanted = (RADIUS,) if is_comparison(dataset) else CLUSTER_RADII
        radii = np.unique([have[np.argmin(np.abs(have - radius))] for radius in wanted]).tolist()
    radii = sorted(radii, reverse=True)
    shades = plt.get_cmap("viridis_r")(np.linspace(1.0, 0.15, len(radii)))
    for radius, shade in zip(radii, shades, strict=True):
        for case in cases(dataset):
            counts = case.data[quantity].sel(tokens=tokens).sel(radius=radius, method="nearest")
            counts = counts.where(counts != -1).mean("sequence")  # -1: a sequence without tokens left
            colour: dict[str, Any] = {} if case.name and len(radii) == 1 else {"color": shade}
            label = f"{case.label}, {_angle(radius)}" if case.name else _angle(radius)
            ax.plot(case.data["layer"], counts.values, **(colour | case.line | {"label": label} | line))
    label_depth(ax, dataset, share=0.6)  # the legend stands beside
    ax.set_ylabel(upright(ax, "clusters of token directions" if quantity == "clusters" else "effective clusters"))
    few_decades(ax)
    ax.legend(title="joined within", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def few_decades(ax: Axes) -> None:
    """A logarithmic ordinate whose numbers are written out: 1, 2 and 5 of each decade, or some where there are none."""
    low, high = ax.dataLim.intervaly
    ax.set_yscale("log")
    narrow = high < 5 * low
    ax.yaxis.set_major_locator(MaxNLocator(5) if narrow else LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _angle(chord: float) -> str:
    """The angle between two directions whose tips are a chord apart."""
    return f"{np.degrees(2 * np.arcsin(chord / 2)):.0f}\N{DEGREE SIGN}"


@reads(dataset=Analyses(("sink_rate", "eps")), ax=ON, eps=Maybe(Real()))
def sink_map(dataset: Analysed, *, ax: Axes | None = None, eps: float | None = None, **image: Any) -> Axes:
    """Heat map, block by head: in how many sequences the first token is an attention sink.

    Args:
        dataset: Of ``kd.analyze``; of ``kd.compare``: case by depth, the share of heads and sequences.
        ax: Where to draw.
        eps: Share of attention that makes a sink; the nearest threshold of the Dataset (default: 0.3, as in tables,
            reports and published rates).
        **image: For ``Axes.imshow``.
    """
    ax = new_axes(ax)
    several = is_comparison(dataset)
    rate = dataset["sink_rate"].sel(eps=SINK if eps is None else eps, method="nearest")
    chosen = float(rate["eps"])
    if several:
        members = [dim for dim in ("sequence", "head") if dim in rate.dims]
        rate = rate.mean(members).transpose(dimension(dataset), ...)
    else:
        rate = rate.transpose("block", "head")
    options: dict[str, Any] = {"vmin": 0, "vmax": 100, "aspect": "auto", "cmap": "viridis"} | image
    picture = ax.imshow(rate.values, **options)
    rows, columns = (rate[str(dim)].values for dim in rate.dims)
    ax.grid(visible=False)
    every = 1 if several else max(1, len(rows) // 10)
    ax.set_yticks(range(0, len(rows), every), [plain(str(row)) for row in rows[::every]])
    shown = range(0, len(columns), max(1, len(columns) // (6 if several else 12)))
    ax.set_xticks(shown, [f"{columns[i]:.2g}" if several else columns[i] for i in shown])
    over = {"block_depth": "relative depth of the block"}.get(str(rate.dims[1]), str(rate.dims[1]))
    ax.set(xlabel=level(ax, over), ylabel="" if several else "block")
    counted = "heads and sequences" if several else "sequences"
    label = f"{counted} (%) in which the first token receives over {100 * chosen:.0f} % of attention"
    ax.figure.colorbar(picture, ax=ax, label=upright(ax, label))
    return ax


@reads(dataset=Analyses(("norm_ratio",)), ax=ON)
def norm_ratio(dataset: Analysed, *, ax: Axes | None = None, **line: Any) -> Axes:
    """Norm of the first token over the median norm of its sequence, layer by layer: massive activations stand out.

    Args:
        dataset: An analysis, a comparison, or several analyses by name.
        ax: Where to draw; by default a new figure.
        line: Passed to ``ax.plot``.
    """
    ax = new_axes(ax)
    for case in cases(dataset):
        mean = case.data["norm_ratio"].mean("sequence")
        ax.plot(case.data["layer"], mean.values, **(case.line | line))
    ax.set(ylabel="norm of first token\n/ median norm")
    few_decades(ax)
    label_depth(ax, dataset)
    return ax
