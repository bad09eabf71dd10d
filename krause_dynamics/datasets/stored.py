"""The stored files."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from krause_dynamics._arguments import Word, reads
from krause_dynamics.report.opening import open as opened
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

NAMES = ("circle", "plane", "phase", "smollm2")


@reads(name=Word(NAMES))
def load(name: str) -> Trajectory | xarray.Dataset:
    """A small result that comes with the package.

    Args:
        name: ``"circle"``: 64 Krause particles on the circle, radius 0.5 (chord), of which several clusters survive (a
            `Trajectory`). ``"plane"``: 100 particles in the plane within a radius of 0.6 (a `Trajectory`). ``"phase"``:
            number of clusters on the sphere over sigma and radius, two seeds (a Dataset of ``kd.sweep``).
            ``"smollm2"``: SmolLM2-135M on four sequences of 64 tokens of the book of Genesis (a Dataset of
            ``kd.analyze``).

    Returns:
        As ``kd.open`` gives it.

    Raises:
        ValueError: Another name.
    """
    with as_file(files("krause_dynamics.datasets") / f"{name}.nc") as path:
        return opened(path)
