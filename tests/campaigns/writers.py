"""Two or three writers of one file at once, and a reader: whole at every moment, and every writer ends well."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import krause_dynamics as kd
from krause_dynamics import _files
from tests.campaigns.frame import Campaign, main, start, wait

LIMIT = 20.0  # seconds
ROUNDS = 6  # writings of each writer


def _run(number: int) -> kd.Trajectory:
    return kd.Trajectory(np.arange(40.0), np.full((40, 50, 1), float(number)), meta={"number": number})


def _saves(path: Path, number: int) -> None:
    run = _run(number)
    for _ in range(ROUNDS):
        run.save(path)


def _whole_run(path: Path) -> None:
    run = kd.Trajectory.load(path)
    assert (run.positions == run.meta["number"]).all()


def _checkpoints(path: Path, number: int) -> None:
    x0 = np.linspace(0.0, 1.0, 30)[:, None]
    kd.simulate(kd.Dynamics(kd.softmax(1.0)), x0, 1.0, dt=0.1, checkpoint=path, checkpoint_every=0.0)


def _point(a: float, rng: np.random.Generator) -> np.ndarray:
    return np.full(1000, a)


def _sweeps(path: Path, number: int) -> None:
    from krause_dynamics.sweeps import store

    store.WRITE_EVERY = 0.0
    result = kd.sweep(_point, {"a": [1.0, 2.0, 3.0, 4.0]}, workers=0, path=path)
    assert (result.value.values[:, 0, 0] == [1.0, 2.0, 3.0, 4.0]).all()


def _figures(path: Path, number: int) -> None:
    import matplotlib.pyplot as plt

    for _ in range(2):
        kd.plots.save_figure(plt.figure(figsize=(1, 1)), path, {"number": number})


def _whole_picture(path: Path) -> None:
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")


# By name of the file: one writer, and what a reader finds at any moment.
TARGETS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], Any]]] = {
    "run.npz": (_saves, _whole_run),
    "run.nc": (_saves, _whole_run),
    "checkpoint.npz": (_checkpoints, _files.read_npz),
    "sweep.npz": (_sweeps, _files.read_npz),
    "sweep.nc": (_sweeps, _files.read_netcdf),
    "figure.png": (_figures, _whole_picture),
}


@functools.cache
def _warm() -> None:
    """Load and compile here, so that the forked writers start at once."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for name, (write, read) in TARGETS.items():
            write(Path(folder) / name, 0)
            read(Path(folder) / name)


def kind(rng: np.random.Generator) -> str:
    """Which file is written."""
    return str(rng.choice(list(TARGETS)))


def trial(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """One target, its writers, and reads until they are done."""
    _warm()
    name, count = kind(rng), int(rng.integers(2, 4))
    write, read = TARGETS[name]
    path, line = folder / name, {"kind": name, "writers": count}

    def work(number: int) -> None:
        time.sleep(rng.uniform(0.0, 0.02) * number)
        write(path, number)

    children = [start(functools.partial(work, number)) for number in range(count)]
    reads = 0
    while any(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "Z" for child in children):
        if path.exists():
            try:
                read(path)
                reads += 1
            except Exception as error:
                for child in children:
                    wait(child, LIMIT)
                return line | {"outcome": "damaged", "told": f"{type(error).__name__}: {error}"[:300]}
        time.sleep(0.001)
    statuses = [wait(child, LIMIT) for child in children]
    if any(statuses):
        return line | {"outcome": "lost", "told": str(statuses)}
    read(path)
    left = [other.name for other in folder.iterdir() if other.name.startswith(".part")]
    return line | {"outcome": "left over" if left else "whole", "reads": reads}


CAMPAIGN = Campaign("writers", trial, kind, limit=3 * LIMIT)

if __name__ == "__main__":
    main(CAMPAIGN)
