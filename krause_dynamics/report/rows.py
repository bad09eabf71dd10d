"""An analysis as rows of numbers: every measure that it holds, without being told which there are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics._arguments import FILE, Holds, reads
from krause_dynamics._files import check_target, write_bytes
from krause_dynamics.report.places import as_given, at_places, averaged, numbers

if TYPE_CHECKING:
    import xarray


@reads(dataset=Holds("kd.analyze", ("length",)), path=FILE)
def write_csv(dataset: xarray.Dataset, path: str | os.PathLike[str]) -> Path:
    """Every measure over layers or blocks as rows, averaged over sequences and heads: `csv_text` in a file.

    Args:
        dataset: From `kd.analyze`.
        path: File to write.
    """
    path = check_target("path", path)
    write_bytes(path, csv_text(dataset).encode())
    return path


@reads(dataset=Holds("kd.analyze", ("length",)))
def csv_text(dataset: xarray.Dataset) -> str:
    """Every measure over layers or blocks as lines of CSV, averaged over sequences and heads.

    Columns are ``control`` (where there are any), ``measure``, ``words``, ``layer`` or ``block``, further labels of the
    measure (``tokens``, ``radius``, ``eps``, ...; empty where it has none) and ``mean``.
    """
    import pandas as pd

    tables = []
    for name, values in curves(dataset).items():
        table = averaged(values).to_dataframe("mean").reset_index()
        table = table[[*averaged(values).dims, "mean"]]
        table.insert(0, "measure", name)
        table.insert(1, "words", values.attrs.get("long_name", name))
        tables.append(table)
    whole = pd.concat(tables, ignore_index=True)
    last = whole.pop("mean")
    return str(whole.assign(mean=last).to_csv(index=False))


def curves(dataset: xarray.Dataset) -> dict[str, xarray.DataArray]:
    """The numbers over layers or blocks; names of tokens or groups (which key, not how much) are none."""
    over = {str(name): set(values.dims) for name, values in dataset.data_vars.items()}
    named = [name for name, dims in over.items() if name.endswith("_key") or "join" in dims]
    return {
        name: numbers(dataset[name]) for name, dims in over.items() if dims & {"layer", "block"} and name not in named
    }


def chosen(values: xarray.DataArray) -> xarray.DataArray | None:
    """The mean as a curve: without the first token, at the usual angle and threshold; None of what has other labels."""
    mean = averaged(at_places(values))
    return mean if mean.ndim == 1 else None


def measure_rows(dataset: xarray.Dataset) -> list[dict[str, str]]:
    """Of every measure its words, the first, middle and last value, and where it is smallest and largest."""
    rows = []
    for name, values in curves(as_given(dataset)).items():
        curve = chosen(values)
        if curve is None or bool(curve.isnull().all()):
            continue
        curve = curve.dropna(str(curve.dims[0]))
        places, found = curve[str(curve.dims[0])].values, curve.values
        least, most = int(np.argmin(found)), int(np.argmax(found))
        rows.append(
            {
                "measure": name,
                "words": str(values.attrs.get("long_name", name)),
                "over": str(curve.dims[0]),
                "first": f"{found[0]:.3g}",
                "middle": f"{found[len(found) // 2]:.3g}",
                "last": f"{found[-1]:.3g}",
                "smallest": f"{found[least]:.3g} at {places[least]}",
                "largest": f"{found[most]:.3g} at {places[most]}",
            }
        )
    return rows
