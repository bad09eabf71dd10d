"""The pictures of a page: title, words, what a Dataset must hold, how it is drawn; other measures are drawn too."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from krause_dynamics.report.places import EPS, as_given

if TYPE_CHECKING:
    import xarray

SIZE = (4.7, 3.1)  # inches: ten points stay ten on a telephone
CURVE = "Line: mean over sequences; band: where it may lie (95 % interval over sequences)."
HEADS = "Line: mean over sequences and heads; band: where it may lie (95 % interval over sequences)."
STEP = "Line: mean over sequences; band: the middle 80 per cent of them."


@dataclass(frozen=True)
class Panel:
    """A picture of a page.

    Attributes:
        title: Above it.
        words: Below it.
        shows: The variables that it draws; without one of them it is left out.
        draw: ``draw(plots, dataset, ax)``.
        label: Of the vertical axis, where the plot's own is too long for a small picture.
        size: In inches, or a function of the Dataset that tells it.
    """

    title: str
    words: str
    shows: tuple[str, ...]
    draw: Callable[[Any, Any, Any], Any]
    label: str = ""
    size: Any = SIZE


def _with_and_without(quantity: str) -> Callable[[Any, Any, Any], None]:
    def draw(plots: Any, dataset: xarray.Dataset, ax: Any) -> None:
        given = as_given(dataset)
        for tokens, label, dash in (("all", "all tokens", "-"), ("without_first", "without the first", "--")):
            look = {"label": label, "linestyle": dash}
            plots.synchronization(given, ax=ax, quantity=quantity, tokens=tokens, band="interval", **look)
        ax.legend()

    return draw


def _rest(quantity: str) -> Callable[[Any, Any, Any], None]:
    """Without the first token where the measure tells; under controls a line each."""
    return lambda plots, dataset, ax: plots.synchronization(
        dataset, ax=ax, quantity=quantity, tokens="without_first", band="interval"
    )


PANELS = (
    Panel(
        "Alignment of tokens", f"1: all tokens point one way; 0: no common direction. {CURVE}", ("order_parameter",),
        _with_and_without("order_parameter"), "order parameter R",
    ),
    Panel("Mean cosine", f"Between two different tokens. {CURVE}", ("mean_cosine",), _with_and_without("mean_cosine")),
    Panel(
        "The first token stands out", "Its norm over the median norm: a massive activation.", ("norm_ratio",),
        lambda plots, dataset, ax: plots.norm_ratio(dataset, ax=ax),
    ),
    Panel(
        "Clusters over layers", "Groups of tokens whose directions lie within an angle of another member, without the "
        "first token; a line an angle.", ("clusters", "radius"),
        lambda plots, dataset, ax: plots.clusters(as_given(dataset), ax=ax), "clusters",
    ),
    Panel(
        "How clusters merge", "A column is a layer: read upwards, tokens join as the angle widens (the merge trees of "
        "all sequences, averaged).", ("clusters", "radius"),
        lambda plots, dataset, ax: plots.cluster_map(as_given(dataset), ax=ax),
    ),
    Panel(
        "Merge tree of the first sequence", "After the last block, without the first token: who joins whom at which "
        "angle (of the first sequence of three tokens or more); colours below the dotted one.", ("merge_tree",),
        lambda plots, dataset, ax: plots.merge_tree(as_given(dataset), ax=ax, sequence=_first_tree(dataset)),
    ),
    Panel(
        "Where attention sinks are", "Block by head: sequences in which the first token receives more than the "
        "threshold of all attention.", ("sink_rate", "eps"),
        lambda plots, dataset, ax: plots.sink_map(as_given(dataset), ax=ax, eps=EPS),
    ),
    Panel("Attention to the first token", HEADS, ("importance_first",), _rest("importance_first"),
          "share of attention"),
    Panel("Entropy of attention", "1: spread evenly over what is visible; 0: all on one token.", ("entropy",),
          _rest("entropy"), "entropy"),
    Panel("Head diversity", "Mean distance of the maps of two heads: 0 if all look the same way.", ("head_diversity",),
          _rest("head_diversity"), "distance of two heads"),
    Panel("Directions that tokens fill", f"Without the first token. {CURVE}", ("effective_rank",),
          _rest("effective_rank"), "effective rank"),
    Panel(
        "Spectra", "Singular values of the tokens of a layer, without the first token: the faster they fall, the fewer "
        "directions count.", ("spectrum",), lambda plots, dataset, ax: plots.spectrum(as_given(dataset), ax=ax),
    ),
)  # fmt: skip
CONTROLLED = (
    Panel("Alignment under controls", "Without the first token; what a control shows as well is not the text's.",
          ("order_parameter",), _rest("order_parameter"), "order parameter R"),
    Panel("Clusters under controls", "Within 47 degrees, without the first token.", ("clusters", "radius"),
          lambda plots, dataset, ax: plots.clusters(dataset, ax=ax), "clusters"),
)  # fmt: skip


# Of a comparison: a line or a row for each case, over relative depth.
COMPARED = (
    Panel("Alignment of tokens", f"1: all tokens point one way; 0: no common direction. {CURVE}", ("order_parameter",),
          _rest("order_parameter"), "order parameter R"),
    Panel("Mean cosine", f"Between two different tokens. {CURVE}", ("mean_cosine",), _rest("mean_cosine")),
    Panel("Clusters over depth", "Groups of tokens whose directions lie within an angle of another member, without the "
          "first token.", ("clusters", "radius"), lambda plots, dataset, ax: plots.clusters(dataset, ax=ax).legend(),
          "clusters"),
    Panel("Where attention sinks are", "Case by depth: heads and sequences in which the first token receives more than "
          "the threshold of all attention.", ("sink_rate", "eps"),
          lambda plots, dataset, ax: plots.sink_map(dataset, ax=ax, eps=EPS)),
    Panel("The first token stands out", "Its norm over the median norm: a massive activation.", ("norm_ratio",),
          lambda plots, dataset, ax: plots.norm_ratio(dataset, ax=ax)),
    Panel("Directions that tokens fill", f"Without the first token. {CURVE}", ("effective_rank",),
          _rest("effective_rank"), "effective rank"),
    Panel("Attention to the first token", HEADS, ("importance_first",), _rest("importance_first"),
          "share of attention"),
    Panel("Entropy of attention", "1: spread evenly over what is visible; 0: all on one token.", ("entropy",),
          _rest("entropy"), "entropy"),
)  # fmt: skip
DIFFERENCES = ("order_parameter", "mean_cosine", "clusters", "sink_rate", "importance_first", "effective_rank")
STEPS = {"order_parameter": 1.0, "clusters": 1.0, "effective_rank": 1.0, "sink_rate": None}  # at which depth


def drawn(dataset: xarray.Dataset) -> list[Panel]:
    """The pictures for which it holds what they show."""
    return _held(PANELS + (CONTROLLED if "control" in dataset.dims else ()), dataset)


def compared(comparison: xarray.Dataset) -> list[Panel]:
    """The pictures of a comparison for which it holds what they show."""
    return _held(COMPARED, comparison)


def _held(panels: tuple[Panel, ...], dataset: xarray.Dataset) -> list[Panel]:
    return [panel for panel in panels if all(name in dataset for name in panel.shows) and _has_tree(panel, dataset)]


def _has_tree(panel: Panel, dataset: xarray.Dataset) -> bool:
    """Whether a panel is of no merge tree, or there is one: sequences of two tokens have none."""
    return "merge_tree" not in panel.shows or _first_tree(dataset) is not None


def _first_tree(dataset: xarray.Dataset) -> int | None:
    """Place of the first sequence that has a merge tree after the last block."""
    last = as_given(dataset)["merge_tree"].isel(layer=-1)
    found = last.notnull().any([dim for dim in last.dims if dim != "sequence"]).values.nonzero()[0]
    return int(found[0]) if len(found) else None


def differing(comparison: xarray.Dataset) -> list[Panel]:
    """Differences from the reference in what matters most."""
    return [_difference(comparison, name) for name in DIFFERENCES if f"{name}_difference" in comparison]


def _difference(comparison: xarray.Dataset, name: str) -> Panel:
    words = str(comparison[name].attrs.get("long_name", name))

    def draw(plots: Any, dataset: xarray.Dataset, ax: Any) -> None:
        plots.difference(dataset, ax=ax, quantity=name)

    title = next((panel.title for panel in COMPARED if panel.shows[0] == name), words[:1].upper() + words[1:])
    return Panel(f"{title}: difference", f"Variable {name}: {words}.", (f"{name}_difference",), draw, "difference")


def emerging(comparison: xarray.Dataset) -> list[Panel]:
    """What comes with the steps of a training, where the cases are such."""
    if comparison["case"].dtype.kind not in "iuf":
        return []
    return [_emergence(name, depth) for name, depth in STEPS.items() if name in comparison]


def _emergence(name: str, depth: float | None) -> Panel:
    def draw(plots: Any, dataset: xarray.Dataset, ax: Any) -> None:
        plots.emergence(dataset, ax=ax, quantity=name, depth=depth)

    where = "Mean over depth" if depth is None else "After the last block"
    return Panel(f"{name.replace('_', ' ').capitalize()} over training", f"{where}; {STEP[0].lower()}{STEP[1:]}",
                 (name,), draw)  # fmt: skip


def further(dataset: xarray.Dataset) -> list[Panel]:
    """A picture of every measure over layers or blocks that no other picture shows, in its own words."""
    first = compared(dataset) if "case" in dataset.dims else drawn(dataset)
    shown = {name for panel in first for name in panel.shows}
    found = []
    for name, values in dataset.data_vars.items():
        if name in shown or not _is_curve(values) or bool(values.isnull().all()):
            continue
        words = str(values.attrs.get("long_name", name))
        which = " Without the first token." if "tokens" in values.dims else ""
        panel = Panel(words[:1].upper() + words[1:], f"Variable {name}.{which}", (str(name),), _rest(str(name)))
        found.append(panel)
    return found


def further_differing(comparison: xarray.Dataset) -> list[Panel]:
    """The differences of those."""
    return [_difference(comparison, panel.shows[0]) for panel in further(comparison)]


def _is_curve(values: xarray.DataArray) -> bool:
    """Numbers over layers or blocks (or their depth); indices of tokens (which key, not how much) are none."""
    dims = set(values.dims) - {"control", "case"}
    layer, block = ("depth", "block_depth") if {"depth", "block_depth"} & dims else ("layer", "block")
    return values.dtype.kind == "f" and (
        {"sequence", layer} <= dims <= {"sequence", layer, "tokens"}
        or {"sequence", block} <= dims <= {"sequence", block, "head"}
    )


def pictures(dataset: xarray.Dataset, panels: list[Panel]) -> Iterator[tuple[Panel, str]]:
    """Each panel with its picture as SVG."""
    from krause_dynamics import plots

    with plots.style():
        for panel in panels:
            ax = plots.new_axes(None)
            figure: Any = ax.figure
            figure.set_size_inches(*(panel.size(dataset) if callable(panel.size) else panel.size))
            panel.draw(plots, dataset, ax)
            for one in figure.axes:
                one.set_ylabel(textwrap.fill(one.get_ylabel().replace("\n", " "), 34))
            if panel.label:
                ax.set_ylabel(panel.label)
            yield panel, plots.inline_svg(figure, panel.title)
