"""Draw ``phase_diagrams.png`` and ``fragmented_consensus.png``: ``python -m evidence.phase_diagrams``, some minutes."""

from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import krause_dynamics as kd
from krause_dynamics import phase_diagrams, plots, theory

FOLDER = Path(__file__).parent.parent / "figures"
COMMAND = "python -m evidence.phase_diagrams"


def draw_phase_diagrams() -> None:
    """Order over (beta, time) and (noise, radius), clusters over beta and over interval length."""
    betas, times = np.linspace(0.5, 10.0, 20), np.linspace(0.5, 30.0, 40)
    over_beta = phase_diagrams.order_over_beta(betas, times, tokens=150, cells=128)
    lengths = np.linspace(2.0, 12.0, 251)
    discrete = phase_diagrams.clusters_over_length(lengths, count=100_001)
    density = phase_diagrams.clusters_over_length(lengths[::10], "density")
    flow = phase_diagrams.clusters_over_length(lengths[::4], "per_capita", count=1001)
    noises, radii = np.linspace(0.01, 0.22, 8), np.linspace(0.1, 0.42, 7)
    over_noise = phase_diagrams.order_over_noise(noises, radii, t_end=40.0, cells=64, particles=150)
    with plots.style():
        fig, axes = plt.subplots(2, 3, figsize=(14.5, 7.6))
        plots.order_over_beta(over_beta, ax=axes[0, 0]).set_title("attention on the circle: order")
        plots.clusters_over_beta(over_beta, ax=axes[0, 1]).set_title("attention on the circle: clusters")
        plots.order_over_noise(over_noise, ax=axes[0, 2]).set_title("noisy bounded confidence (dots: 150 particles)")
        plots.clusters_over_length(discrete, ax=axes[1, 0])
        rings = {"s": 30, "color": "none", "edgecolors": "C2", "linewidths": 1.0}
        plots.clusters_over_length(density, ax=axes[1, 0], **rings).set_title(
            "discrete time (rings: map of the density)"
        )
        plots.clusters_over_length(flow, ax=axes[1, 1]).set_title("continuous time, per capita")
        plots.cluster_numbers_over_length(discrete, ax=axes[1, 2])
        plots.cluster_numbers_over_length(flow, ax=axes[1, 2]).set_title("number of clusters")
        parameters = {"command": COMMAND, **over_beta.attrs, "count": 100_001, "noise_run": dict(over_noise.attrs)}
        plots.save_figure(fig, FOLDER / "phase_diagrams.png", parameters)


def draw_fragmented_consensus() -> None:
    """Two groups under the truncated and the dense Gaussian rule, spread of each and lifetime formula."""
    rules = {
        "within 1.5 (sigma = 0.5)": kd.krause(sigma=0.5, neighbourhood=kd.Within(1.5)),
        "dense (sigma = 1)": kd.krause(sigma=1.0),
    }
    rng = np.random.default_rng(0)
    x0 = np.concatenate([c + 0.6 * (rng.uniform(size=(30, 1)) - 0.5) for c in (-2.0, 2.0)])
    lifetime = theory.gaussian_lifetime(4.0)
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(11, 3.3))
        for ax, (name, rule) in zip(axes, rules.items(), strict=False):
            run = kd.simulate(kd.Dynamics(rule), x0, 2.0 * lifetime, dt=0.1)
            ax.plot(run.times, run.positions[..., 0], color="C0", linewidth=0.6)
            ax.set(xscale="symlog", xlabel="time", ylabel="position", title=name)
            spread = run.positions[:, :30, 0].std(axis=1)
            axes[2].semilogy(run.times, spread, label=name)
        axes[1].axvline(lifetime, color="C1", linestyle="--", label="lifetime, formula")
        axes[1].legend(loc="center left")
        times = np.linspace(0.0, 20.0, 2)
        axes[2].plot(times, x0[:30].std() * np.exp(-times), "k--", label="rate 1")
        axes[2].set(xlim=(0, 20), ylim=(1e-9, 1), xlabel="time", title="spread of the left group")
        axes[2].legend()
        plots.save_figure(fig, FOLDER / "fragmented_consensus.png", {"command": COMMAND, "seed": 0, "distance": 4.0})


if __name__ == "__main__":
    draw_fragmented_consensus()
    draw_phase_diagrams()
