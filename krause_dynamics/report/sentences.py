"""Further results of a model in a sentence or two each: the numbers that matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray


def _sides(values: xarray.DataArray) -> tuple[float, float]:
    return tuple(float(values.sel(side=side).mean()) for side in ("predicted", "measured"))  # type: ignore[return-value]


def of_forecast(data: xarray.Dataset) -> str:
    """Both sides of each quantity, and how alike they are over blocks."""
    told = ["Predicted and measured: contraction of a block {:.2f} and {:.2f}".format(*_sides(data["contraction"]))]
    both = data["contraction"].mean("sequence").transpose("side", "block").values
    known = np.isfinite(both).all(0)
    if known.sum() > 2 and (both[:, known].std(1) > 0).all():
        told[0] += f" (correlation over blocks {np.corrcoef(both[:, known])[0, 1]:.2f})"
    for name, words in (
        ("clusters", "clusters of tokens {:.1f} and {:.1f}"),
        ("winning_mode", "winning mode {:.1f} and {:.1f}"),
    ):
        if np.isfinite(data[name].values).any():
            told.append(words.format(*_sides(data[name])))
    return f"{', '.join(told)}; means over sequences."


def of_confidence(data: xarray.Dataset) -> str:
    """How many tokens the theorem covers."""
    percent = {name: 100 * float(data[f"share_{name}"].mean()) for name in ("theorem", "separated", "near_centroid")}
    return (
        f"{percent['theorem']:.1f} % of (sequence, block, head, token) satisfy both hypotheses of the theorem on "
        f"Krause layers: {percent['separated']:.1f} % are of one of several groups that hear nobody outside, "
        f"and {percent['near_centroid']:.1f} % have their key within 4.86 degrees of the mean of those that they hear. "
        f"Heard keys lie {float(data['distance'].mean()):.1f} sigma from their query, in the mean."
    )


def of_branches(data: xarray.Dataset) -> str:
    """Sinks of each branch against what its reach alone would give."""
    told = []
    for branch in map(str, data["branch"].values):
        one = data.sel(branch=branch)
        times = float((one["importance_first"] / one["even_importance_first"]).mean())
        gate = "" if branch == "mixed" else f" and has {100 * float(one['gate'].mean()):.0f} % of the gate"
        told.append(f"{branch} gives it {times:.2f} times as much{gate}")
    return f"Attention to the first token over that of even attention within the same reach: {'; '.join(told)}."


def of_tracks(data: xarray.Dataset) -> str:
    """How many clusters, how long they live, and who is in the largest."""
    if not data.sizes["track"]:
        return "No cluster of several tokens was found in any layer."
    size = data["size"].transpose("track", "layer").values
    track, at = np.unravel_index(int(size.argmax()), size.shape)
    kept = int((size > 0).all(1).sum())
    return (
        f"{len(size)} clusters were followed, {kept} of them through all layers; the largest has {size.max()} of "
        f"{data.sizes['token']} tokens after layer {int(data['layer'].values[at])}. At its largest that is: "
        f"{data['words'].values[track]}."
    )


def of_pairs(found: Mapping[str, xarray.Dataset]) -> str:
    """Whom the decoder hears, and whether it reads along."""
    cross, strongest = found["cross"], float(found["cross"]["strongest_importance"].mean())
    even = float((1.0 / cross["sources"].astype(float)).mean())
    quarters = (
        cross["place_by_quarter"].mean([dim for dim in cross["place_by_quarter"].dims if dim != "quarter"]).values
    )
    return (
        f"The source that is heard most receives {100 * strongest:.0f} % of a head's cross-attention (even: "
        f"{100 * even:.0f} %). The first quarter of the decoder's tokens looks at place {quarters[0]:.2f} of the "
        f"sources, the last at {quarters[-1]:.2f} (0 is the first source, 1 the last)."
    )
