"""One door for every file that is written here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from krause_dynamics._arguments import FILE, reads
from krause_dynamics._files import read_netcdf
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray


@reads(path=FILE)
def open(path: str | os.PathLike[str]) -> Trajectory | xarray.Dataset:
    """What a file holds: a run as `Trajectory`, a sweep, an analysis or a comparison as Dataset.

    Args:
        path: ``.npz`` or ``.nc``, as `Trajectory.save`, ``kd.sweep(path=)``, ``krause simulate``, ``sweep``,
            ``analyze`` and ``compare`` write them.

    Returns:
        The run, or the Dataset, read into memory.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Another ending, or a file of something else (a half-finished run goes on by the call that began
            it; its ``.npz`` is named as such).
    """
    place = os.fspath(path)
    if not place.endswith((".npz", ".nc")):
        raise ValueError(f"path must end in .npz or .nc, got {os.path.basename(place)!r}")
    if not Path(place).exists():
        raise FileNotFoundError(f"path must be a file of this package, but {place} does not exist")
    if place.endswith(".npz"):
        return Trajectory.load(place)
    dataset = read_netcdf(Path(place))
    return Trajectory.load(place) if "positions" in dataset and "meta" in dataset.attrs else dataset
