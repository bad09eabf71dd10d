"""Draw ``phase_diagrams.png``, ``bifurcations.png`` and ``fragmented_consensus.png``: some minutes.

``python -m evidence.phase_diagrams [NAME ...]`` draws those named, or all three.
"""

import argparse
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
    """Attention on the circle over (beta, time), its clusters, and noisy bounded confidence over (noise, radius)."""
    betas, times = np.linspace(0.5, 10.0, 20), np.linspace(0.5, 30.0, 40)
    over_beta = phase_diagrams.order_over_beta(betas, times, tokens=150, cells=128)
    noises, radii = np.linspace(0.01, 0.22, 11), np.linspace(0.1, 0.42, 8)
    over_noise = phase_diagrams.order_over_noise(noises, radii, t_end=40.0, cells=64, particles=150)
    apart = float(abs(over_noise.particles - over_noise.density).median())
    with plots.style():
        fig, axes = plt.subplot_mosaic([["order", "noise"], ["clusters", "clusters"]], figsize=(9.6, 7.2))
        plots.order_over_beta(over_beta, ax=axes["order"]).set_title("softmax attention on the circle")
        plots.order_over_noise(over_noise, ax=axes["noise"])
        axes["noise"].set_title(f"noisy bounded confidence\n(dots: 150 particles, median difference {apart:.2f})")
        plots.clusters_over_beta(over_beta, ax=axes["clusters"])
        axes["clusters"].set_title(
            "clusters of softmax attention on the circle, 150 tokens (winning mode: fastest in linear theory)"
        )
        parameters = {"command": COMMAND, **over_beta.attrs, "noise_run": dict(over_noise.attrs)}
        plots.save_figure(fig, FOLDER / "phase_diagrams.png", parameters)


def draw_bifurcations() -> None:
    """Final clusters of bounded confidence over the length of the interval, in discrete and in continuous time."""
    lengths = np.linspace(2.0, 12.0, 251)
    discrete = phase_diagrams.clusters_over_length(lengths, count=100_001)
    density = phase_diagrams.clusters_over_length(lengths[::10], "density")
    flow = phase_diagrams.clusters_over_length(lengths[::4], "per_capita", count=1001)
    with plots.style():
        fig, axes = plt.subplot_mosaic([["discrete", "flow"], ["numbers", "numbers"]], figsize=(9.6, 7.2))
        plots.clusters_over_length(discrete, ax=axes["discrete"])
        rings = {"s": 30, "color": "none", "edgecolors": "C2", "linewidths": 1.0}
        plots.clusters_over_length(density, ax=axes["discrete"], **rings)
        axes["discrete"].set_title("discrete time (rings: map of the density;\ndashed: consensus lost, found, lost)")
        plots.clusters_over_length(flow, ax=axes["flow"])
        axes["flow"].set_title("continuous time, per capita\n(left and here: area of a dot = mass)")
        plots.cluster_numbers_over_length(discrete, ax=axes["numbers"])
        plots.cluster_numbers_over_length(flow, ax=axes["numbers"])
        axes["numbers"].set_title("number of clusters (dotted: the spacing that a front selects in linear theory)")
        plots.save_figure(fig, FOLDER / "bifurcations.png", {"command": COMMAND, "count": 100_001})


DISTANCE, REACH, SIGMA, MEMBERS = 4.0, 1.5, 1.0, 30


def two_groups() -> np.ndarray:
    """Opinions (60, 1) within 0.3 of -2 and of 2."""
    rng = np.random.default_rng(0)
    return np.concatenate([c + 0.6 * (rng.uniform(size=(MEMBERS, 1)) - 0.5) for c in (-DISTANCE / 2, DISTANCE / 2)])


def draw_fragmented_consensus() -> None:
    """Two groups under one Gaussian rule, with and without a radius: their distance, and how fast each meets."""
    rules = {f"within {REACH:g}": kd.krause(SIGMA, kd.Within(REACH)), "everyone": kd.krause(SIGMA)}
    lifetime = theory.gaussian_lifetime(DISTANCE)
    runs = {name: kd.simulate(kd.Dynamics(rule), two_groups(), 2 * lifetime, dt=0.1) for name, rule in rules.items()}
    with plots.style():
        fig, axes = plt.subplots(1, 3, figsize=(11, 3.6))
        for number, (ax, (name, run)) in enumerate(zip(axes, runs.items(), strict=False)):
            plots.opinions(run, ax=ax, color=f"C{number}")
            ax.set(xscale="log", xlim=(0.1, run.times[-1]), xlabel="time (logarithmic)", ylabel="position")
            ax.set_title(f"Gaussian rule, sigma = {SIGMA:g}: {name}\n(thick: opinions that have met)")
            group = run.positions[:, :MEMBERS, 0].std(axis=1)
            line = {"label": name, "color": f"C{number}", "linestyle": ("-", "--")[number]}
            axes[2].plot(run.times, group / group[0] * np.exp(run.times), **line)
        gap = np.diff(runs["everyone"].positions.reshape(-1, 2, MEMBERS).mean(-1))[:, 0]
        start = int(np.argmin(np.abs(runs["everyone"].times - MET)))
        predicted = MET + theory.gaussian_lifetime(gap[start])
        axes[1].axvline(predicted, color="0.4", linestyle=":", label=f"{predicted:.1f} predicted")
        measured = float(np.interp(-gap[start] / 2, -gap, runs["everyone"].times))
        axes[1].legend(title=f"half as far apart at\n{measured:.1f} measured", loc="center left")
        axes[2].set(xlim=(0, 20), ylim=(0.9, 1.3), xlabel="time", ylabel="width x exp(t) / first width")
        axes[2].set_title("width of the left group\n(flat: shrinks like exp(-t))")
        axes[2].legend()
        told = {"command": COMMAND, "seed": 0, "distance": DISTANCE, "radius": REACH, "sigma": SIGMA}
        told |= {"predicted": predicted, "measured": measured}
        plots.save_figure(
            fig, FOLDER / "fragmented_consensus.png", told | {"predicted": predicted, "measured": measured}
        )


MET = 10.0  # by then each group is a point, and what is left is the equation of two
DRAWN = {
    "fragmented_consensus": draw_fragmented_consensus,
    "phase_diagrams": draw_phase_diagrams,
    "bifurcations": draw_bifurcations,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*DRAWN, []], metavar="NAME", help=", ".join(DRAWN))
    for name in parser.parse_args().names or DRAWN:
        DRAWN[name]()
