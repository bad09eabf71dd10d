"""How many clusters survive, over radius and temperature, on the sphere and in the plane.

``python -m evidence.consensus_clusters`` writes ``figures/consensus_clusters.png`` (ten minutes on two cores). Finished
points are kept in ``--keep``: a killed run continues, and a second one only draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import krause_dynamics as kd
from krause_dynamics import plots

FOLDER = Path(__file__).parent.parent / "figures"
COMMAND = "python -m evidence.consensus_clusters"
TOKENS, T_END, DT, SEEDS = 64, 200.0, 0.2, 3
BETA, RADIUS = np.geomspace(0.25, 64.0, 17), np.linspace(0.5, 2.0, 13)
MET = 0.01  # largest diameter of a cluster that has formed
SPACES = {"sphere": kd.Sphere(), "plane": kd.Euclidean()}
# (beta, radius) of the states beside each map: few clusters for ever, and many that still hear one another.
SHOWN = {"sphere": {"a": (1.0, 0.75), "b": (32.0, 2.0)}, "plane": {"c": (1.0, 0.5), "d": (32.0, 1.5)}}


def run(space: str, beta: float, radius: float, rng: Any) -> kd.Trajectory:
    """Tokens spread evenly at first, until clusters can change no more, or until `T_END`."""
    where = SPACES[space]
    x0 = where.sample(TOKENS, 3, rng) if space == "sphere" else kd.initial.uniform(TOKENS, 2, low=-1, high=1, rng=rng)
    dynamics = kd.Dynamics(kd.krause(beta**-0.5, kd.Within(radius)), where)
    settled = kd.stopping.ClustersSettled(radius, diameter=MET)
    return kd.simulate(dynamics, x0, T_END, dt=DT, save_at=[T_END], stop=settled)


def counted(space: str, beta: float, radius: float, rng: Any) -> dict[str, Any]:
    """Clusters of one run, and whether that number is final: no cluster hears another."""
    end = run(space, beta, radius, rng)
    return {"clusters": kd.clusters.find(end.final, 0.05).count, "settled": end.meta["stopped"] == "clusters settled"}


def swept(keep: Path) -> Any:
    """The counts of both spaces as one Dataset."""
    keep.mkdir(parents=True, exist_ok=True)
    grid = {"space": list(SPACES), "beta": BETA, "radius": RADIUS}
    data = kd.sweep(counted, grid, seeds=SEEDS, path=keep / "clusters.nc", progress=True)
    data["clusters"].attrs["long_name"] = "clusters"
    data["beta"].attrs["long_name"] = "inverse temperature beta"
    return data


def draw(data: Any) -> Any:
    """Each map beside two states from it."""
    figure = plt.figure(figsize=(11.0, 7.6))
    grid = figure.add_gridspec(2, 3, width_ratios=(1.75, 1, 1))
    words = {"sphere": "on the sphere (radius 2: softmax attention)", "plane": "in the plane, a square of side 2"}
    for row, space in enumerate(SPACES):
        ax = figure.add_subplot(grid[row, 0])
        plots.phase(data.sel(space=space), x="beta", y="radius", value="clusters", settled="settled", ax=ax)
        ax.set_title(f"{TOKENS} tokens {words[space]}")
        for column, (letter, (beta, radius)) in enumerate(SHOWN[space].items(), start=1):
            ax.annotate(letter, (beta, radius), ha="center", va="center", weight="bold",
                        bbox={"boxstyle": "circle,pad=0.2", "facecolor": "white", "linewidth": 0})  # fmt: skip
            _state(figure, grid[row, column], space, letter, beta, radius)
    return figure


def _state(figure: Any, place: Any, space: str, letter: str, beta: float, radius: float) -> None:
    """The end of the first run at a point of the map."""
    end = run(space, beta, radius, np.random.default_rng(np.random.SeedSequence(0).spawn(1)[0]))
    ax = figure.add_subplot(place, projection="3d" if space == "sphere" else None)
    (plots.sphere if space == "sphere" else plots.plane)(end, trails=False, ax=ax)
    count = kd.clusters.find(end.final, 0.05).count
    ax.set_title(
        f"{letter}: beta = {beta:g}, radius {radius:g}\n{count} clusters at t = {end.times[-1]:.0f}", fontsize=10
    )


def main() -> None:
    """Sweep, or read what is kept, and draw."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--keep", default="results/consensus_clusters", type=Path, help="folder of finished points")
    options = parser.parse_args()
    data = swept(options.keep)
    mean = data.mean("seed")
    told = {
        "command": COMMAND, "tokens": TOKENS, "t_end": T_END, "dt": DT, "seeds": SEEDS, "rng": 0, "met": MET,
        "beta": BETA.tolist(), "radius": RADIUS.tolist(),
        "clusters": {space: mean.clusters.sel(space=space).round(3).values.tolist() for space in SPACES},
        "settled": {space: mean.settled.sel(space=space).round(3).values.tolist() for space in SPACES},
    }  # fmt: skip
    with plots.style():
        plots.save_figure(draw(data), FOLDER / "consensus_clusters.png", told)


if __name__ == "__main__":
    main()
