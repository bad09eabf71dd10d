"""Everything that goes on from a file, small, and slowed down so that a kill meets it at work."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import krause_dynamics as kd
from krause_dynamics.command.app import app

PAUSE = 0.004  # seconds at every state that is kept
LINE = np.linspace(0.0, 3.0, 12)[:, None] ** 2

TOML = """[rule]
type = "krause"
[space]
type = "Euclidean"
[initial]
n = 8
[dynamics]
noise = 0.1
[run]
t_end = 1.0
dt = 0.02
[sweep]
seeds = 2
[sweep.parameters]
"rule.sigma" = [0.2, 0.4, 0.8, 1.6]
"""


def _pause(t: float, x: Any) -> None:
    time.sleep(PAUSE)


def _options(folder: Path) -> dict[str, Any]:
    return {"checkpoint": folder / "c.npz", "checkpoint_every": 0.0, "on_save": _pause}


def _kept(run: kd.Trajectory, folder: Path) -> None:
    """A finished run is saved; an interrupted one is none."""
    if run.meta["stopped"] != "interrupted":
        run.save(folder / "result.npz")


def simulate(folder: Path) -> None:
    dynamics = kd.Dynamics(kd.softmax(1.0), noise=0.1)
    _kept(kd.simulate(dynamics, LINE, 1.0, dt=0.02, rng=3, save_every=2, **_options(folder)), folder)


def statistics(folder: Path) -> None:
    dynamics = kd.Dynamics(kd.krause(0.5))
    events = [kd.Event(lambda t, x: float(np.ptp(x)) - 8.0, name="narrow")]
    given = {"save": {"mean": lambda x: x.mean(), "width": lambda x: np.ptp(x)}, "events": events}
    _kept(kd.simulate(dynamics, LINE, 1.0, dt=0.02, **given, **_options(folder)), folder)


def opinions(folder: Path) -> None:
    _kept(kd.hegselmann_krause(np.sqrt(np.linspace(0.0, 60.0, 150)), 0.31, **_options(folder)), folder)


def in_turn(folder: Path) -> None:
    given = {"schedule": kd.Sequential(), "noise": kd.StepNoise(0.01), "max_steps": 40, "rng": 3}
    _kept(kd.hegselmann_krause(LINE[:, 0], 0.75, **given, **_options(folder)), folder)


def solve(folder: Path) -> None:
    cells = kd.mean_field.LineCells(40, 0.0, 1.0)
    density = kd.mean_field.Density(cells, np.linspace(1.0, 2.0, 40) / 60)
    dynamics = kd.Dynamics(kd.bounded_confidence(0.3), kd.Interval(0.0, 1.0))
    _kept(kd.mean_field.solve(dynamics, density, 2.0, save_at=60, **_options(folder)), folder)


def iterate(folder: Path) -> None:
    cells = kd.mean_field.LineCells(60, 0.0, 1.0)
    density = kd.mean_field.Density(cells, np.linspace(1.0, 2.0, 60) / 90)
    dynamics = kd.Dynamics(kd.bounded_confidence(0.2), kd.Interval(0.0, 1.0))
    _kept(kd.mean_field.iterate(dynamics, density, 40, dt=0.2, **_options(folder)), folder)


def _point(a: float, rng: np.random.Generator) -> dict[str, Any]:
    time.sleep(0.01)
    return {"draw": a * rng.random(3), "label": "ab"[int(a) % 2]}


def _sweep(ending: str, workers: int) -> Callable[[Path], None]:
    def sweep(folder: Path) -> None:
        points = {"a": [float(a) for a in range(10)]}
        data = kd.sweep(_point, points, seeds=2, workers=workers, path=folder / f"c{ending}")
        np.savez(folder / "result.npz", **{name: x.values for name, x in data.data_vars.items()})

    return sweep


def _command(name: str) -> Callable[[Path], None]:
    def command(folder: Path) -> None:
        (folder / "c.toml").write_text(TOML)
        given = ["--checkpoint", f"{folder}/c.npz"] if name == "simulate" else ["--workers", "0"]
        out = folder / ("result.npz" if name == "simulate" else "result.nc")
        app([name, str(folder / "c.toml"), "--force", "--out", str(out), *given])

    return command


def analyze(folder: Path) -> None:
    """A model whose blocks are passed by all sequences, one after the other, and kept."""
    found = kd.analyze(
        _llama(),
        [list(range(first, first + 12)) for first in range(4)],
        checkpoint=folder / "c.npz",
        batch_size=1,
        progress=lambda done, total: time.sleep(PAUSE),
    )
    if "stopped" not in json.loads(found.attrs["meta"]):
        np.savez(folder / "result.npz", **{name: x.values for name, x in found.data_vars.items()})


@functools.cache
def _llama() -> Any:
    from tests import checkpoint_models

    return checkpoint_models.llama(num_hidden_layers=6)


PRODUCERS: dict[str, Callable[[Path], None]] = {
    "simulate": simulate,
    "simulate, statistics and events": statistics,
    "hegselmann_krause": opinions,
    "hegselmann_krause in turn": in_turn,
    "mean_field.solve": solve,
    "mean_field.iterate": iterate,
    "sweep .npz": _sweep(".npz", 0),
    "sweep .nc": _sweep(".nc", 0),
    "sweep, two workers": _sweep(".npz", 2),
    "analyze": analyze,
    "krause simulate": _command("simulate"),
    "krause sweep": _command("sweep"),
}


def result_of(folder: Path) -> dict[str, np.ndarray] | None:
    """Arrays of the result, or ``None`` where there is none."""
    if (folder / "result.nc").exists():
        import xarray

        with xarray.open_dataset(folder / "result.nc", engine="h5netcdf") as data:
            return {str(name): x.values for name, x in data.load().data_vars.items()}
    if not (folder / "result.npz").exists():
        return None
    with np.load(folder / "result.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files if name != "header"}
