"""Section 4: numbers of clusters and modes, counted in simulations and in random fields."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


@check(
    4,
    source="2410.23228",
    setting="circle SA, n = 400, noise 1e-3, beta = 10, 20",
    tolerance=1.0,
)
def lattice_clusters() -> Comparison:
    """Clusters from a nearly uniform lattice."""
    predicted, measured = [], []
    for beta in (10.0, 20.0):
        angle = 2 * np.pi * np.arange(400) / 400 + 1e-3 * np.random.default_rng(1).normal(size=400)
        run = kd.simulate(
            kd.Dynamics(kd.softmax(beta), kd.Circle()), kd.Circle().from_angles(angle), 30.0, dt=0.1, save_every=300
        )
        settled = np.sort(kd.Circle().to_angles(run.final) % (2 * np.pi))
        gaps = np.diff(np.append(settled, settled[0] + 2 * np.pi))
        measured.append(np.sum(gaps > 0.5 / np.sqrt(beta)))
        predicted.append(theory.winning_mode(beta=beta))
    return compare(predicted, measured)


@check(
    4,
    source="Rice; derived",
    setting="uniform tokens, n = 500, beta = 30, 1000 draws",
    tolerance=0.03,
    kind="relative",
)
def initial_modes() -> Comparison:
    """Modes of the initial field, circle."""
    rng, beta, trials = np.random.default_rng(0), 30.0, 1000
    grid = kd.Circle().from_angles(2 * np.pi * np.arange(128) / 128)
    counts = []
    for _ in range(trials):
        tokens = kd.Circle().from_angles(rng.uniform(0, 2 * np.pi, 500))
        field = kd.aggregate(kd.softmax(beta), grid, tokens).log_partition
        counts.append(np.sum((field > np.roll(field, 1)) & (field >= np.roll(field, -1))))
    return compare(theory.expected_initial_modes(beta, tokens=500), np.mean(counts))


_LINE_CASES = ((1000, 1000.0, 60), (3000, 3000.0, 40), (1000, 1000.0**0.8, 60), (1000, 1000.0**1.4, 30))


@check(
    4,
    source="Kac-Rice; scaling of 2412.09080",
    setting="N(0,1) data; n = 1000, beta = n^0.8, n, n^1.4; n = 3000, beta = n; 30 to 60 draws",
    tolerance=0.04,
    kind="relative",
    slow=True,
)
def line_modes() -> Comparison:
    """Modes of a Gaussian KDE on the line."""
    rng, measured = np.random.default_rng(0), []
    for n, beta, trials in _LINE_CASES:
        measured.append(np.mean([len(kd.clusters.density_modes(rng.normal(size=n), beta)) for _ in range(trials)]))
    return compare(
        [theory.expected_density_modes_on_line(samples=n, beta=beta) for n, beta, _ in _LINE_CASES], measured
    )


@check(
    4,
    source="2412.09080",
    setting="N(0,1) data, beta = n = 3000, 10 000; 40, 20 draws; constant as measured by others",
    tolerance=0.04,
    kind="relative",
    slow=True,
)
def line_modes_scaling() -> Comparison:
    """Modes of a Gaussian KDE on the line, over sqrt(beta log beta)."""
    rng, ratios = np.random.default_rng(1), []
    for n, trials in ((3000, 40), (10_000, 20)):
        counts = [len(kd.clusters.density_modes(rng.normal(size=n), float(n))) for _ in range(trials)]
        ratios.append(np.mean(counts) / np.sqrt(n * np.log(n)))
    return compare([0.44, 0.44], ratios)
