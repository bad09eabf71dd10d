"""An analysis over relative depth: layers and blocks at places between 0 and 1, heads by their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics.checkpoints.measure import NAMED

if TYPE_CHECKING:
    import xarray


def on_relative_depth(analysis: xarray.Dataset, layers: int, depths: dict[str, np.ndarray]) -> xarray.Dataset:
    """Variables over sequences of one analysis, with relative depth for layers and blocks and the mean over heads."""
    import xarray

    found: dict[str, Any] = {}
    for key, values in analysis.data_vars.items():
        over = set(values.dims)
        # Such as the strongest key: a mean says nothing.
        index = NAMED in over or ("block" in over and values.dtype.kind in "iu")
        if "sequence" not in over or index:
            continue
        values = values.where(values != -1) if values.dtype.kind in "iu" else values
        found[str(key)] = values.mean("head", keep_attrs=True) if "head" in over else values
    if "importance_first" in analysis and "eps" in analysis.coords:
        words = "heads in which alpha_0 exceeds eps (per cent), by sequence"
        found["sink_rate"] = sink_share(analysis).mean("head").assign_attrs(long_name=words)
    whole = xarray.Dataset({key: _on_depth(values, layers, depths) for key, values in found.items()})
    return whole.drop_vars("sequence", errors="ignore")


def sink_share(analysis: xarray.Dataset) -> xarray.DataArray:
    """100 where alpha_0 of a sequence, block and head exceeds eps, else 0; NaN in blocks without attention."""
    first = analysis["importance_first"].astype(float)
    share: xarray.DataArray = 100.0 * (first > analysis["eps"]).where(first.notnull())
    share = share.transpose(*first.dims, "eps")
    return share.assign_attrs(long_name="sequences in which alpha_0 exceeds eps (per cent)")


def _on_depth(values: Any, layers: int, depths: dict[str, np.ndarray]) -> Any:
    for dim, new, half in (("layer", "depth", 0.0), ("block", "block_depth", 0.5)):
        if dim in values.dims:
            values = _interpolated(values, dim, (values[dim].values - half) / layers, new, depths[new], half / layers)
    return values


def _interpolated(values: Any, dim: str, old: np.ndarray, name: str, new: np.ndarray, beyond: float) -> Any:
    """Linear between the places ``old`` of a dimension; NaN further than ``beyond`` from the last of them."""
    import xarray

    other = [str(d) for d in values.dims if d != dim]
    rows = values.transpose(*other, dim).values.astype(float)
    if len(old) != len(new) or not np.allclose(old, new):
        rows = np.apply_along_axis(lambda row: np.interp(new, old, row), -1, rows)
        rows[..., new > old[-1] + beyond + 1e-9] = np.nan
    coords = {d: values.coords[d] for d in other if d in values.coords} | {name: new}
    return xarray.DataArray(rows, dims=(*other, name), coords=coords, attrs=values.attrs)
