"""A disk that is full at a random moment (RLIMIT_FSIZE): the earlier file stays, runs and sweeps give their results."""

from __future__ import annotations

import functools
import resource
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import krause_dynamics as kd
from krause_dynamics import _files
from tests.campaigns.frame import Campaign, main

LINE = np.linspace(0.0, 1.0, 200)[:, None]


def _trajectory() -> kd.Trajectory:
    draws = np.random.default_rng(0).random((40, 50, 1))  # what does not compress
    return kd.Trajectory(np.arange(40.0), draws)


def _saves(path: Path) -> None:
    _trajectory().save(path)


def _picture(path: Path) -> None:
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(3, 3))
    ax.imshow(np.random.default_rng(0).random((50, 50)))
    kd.plots.save_figure(figure, path, {"many": list(range(2000))})


def _simulate(path: Path) -> np.ndarray:
    dynamics = kd.Dynamics(kd.softmax(1.0))
    return kd.simulate(dynamics, LINE, 0.5, dt=0.1, checkpoint=path, checkpoint_every=0.0).positions


def _opinions(path: Path) -> np.ndarray:
    return kd.hegselmann_krause(LINE[:, 0], 0.1, checkpoint=path, checkpoint_every=0.0).positions


def _point(a: float, rng: np.random.Generator) -> np.ndarray:
    return a * rng.random(2000)


def _sweep(path: Path) -> np.ndarray:
    return kd.sweep(_point, {"a": [1.0, 2.0, 3.0]}, workers=0, path=path).value.values


# By name of the file: those that must raise an OSError, and those that must hand over what they computed.
RAISING: dict[str, Callable[[Path], None]] = {"run.npz": _saves, "run.nc": _saves, "a.png": _picture, "a.svg": _picture}
GIVING: dict[str, Callable[[Path], np.ndarray]] = {
    "checkpoint.npz": _simulate,
    "opinions.npz": _opinions,
    "sweep.npz": _sweep,
    "sweep.nc": _sweep,
}


@functools.cache
def whole(name: str) -> tuple[int, Any]:
    """Size of the file where there is room, and the result."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        found = (RAISING | GIVING)[name](path)
        return path.stat().st_size, found


def kind(rng: np.random.Generator) -> str:
    """Which file has no room."""
    return str(rng.choice([*RAISING, *GIVING]))


def trial(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """One writer, with room for a part of its file."""
    name = kind(rng)
    size, expected = whole(name)
    path, line = folder / name, {"kind": name, "room": int(rng.integers(0, size))}
    earlier = b"an earlier file" if name in RAISING else None
    if earlier:
        path.write_bytes(earlier)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (line["room"], before[1]))
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = (RAISING | GIVING)[name](path)
    except OSError as error:
        outcome = "refused" if name in RAISING and path.read_bytes() == earlier else "lost"
        return line | {"outcome": outcome, "told": str(error)}
    except Exception as error:
        return line | {"outcome": "unclear", "told": f"{type(error).__name__}: {error}"[:300]}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if any(other.name.startswith(".part") for other in folder.iterdir()):
        return line | {"outcome": "left over"}
    if name in RAISING or not np.array_equal(found, expected):
        return line | {"outcome": "silent"}
    if path.exists():
        (_files.read_netcdf if path.suffix == ".nc" else _files.read_npz)(path)  # of an earlier moment, and whole
    warned = any("could not be written" in str(one.message) for one in told)
    return line | {"outcome": "kept" if warned else "silent"}


CAMPAIGN = Campaign("full", trial, kind)

if __name__ == "__main__":
    main(CAMPAIGN)
