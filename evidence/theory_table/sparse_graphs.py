"""Sections 1 and 5: bounded confidence on trees, and the waves that win on a noisy torus."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory


def spanning_tree(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A uniform spanning tree of the complete graph (Aldous 1990): i hangs on min(i - 1, a uniform one), relabelled."""
    child = np.arange(1, n)
    parent = np.minimum(child - 1, rng.integers(0, n, n - 1))
    label = rng.permutation(n)
    return label[child], label[parent]


@check(
    1,
    source="derived; setting of 2507.14276",
    setting="uniform spanning tree of 100 000, eps = 0.1, 0.2, 0.5, 0.9; share of parts",
    tolerance=8e-3,  # five deviations, 0.5/sqrt(n) each
)
def tree_parts() -> Comparison:
    """On a tree of n agents bounded confidence starts in 1 + (n - 1)(1 - eps)^2 parts."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, rng = 100_000, np.random.default_rng(11)
    child, parent = spanning_tree(n, rng)
    opinion = rng.uniform(size=n)
    predicted, measured = [], []
    for radius in (0.1, 0.2, 0.5, 0.9):
        heard = np.abs(opinion[child] - opinion[parent]) <= radius
        links = coo_array((np.ones(heard.sum()), (child[heard], parent[heard])), shape=(n, n))
        measured.append(connected_components(links, directed=False, return_labels=False) / n)
        predicted.append(theory.open_tree_parts(agents=n, radius=radius) / n)
    return compare(predicted, measured)


def _spread(radius: float, rng: np.random.Generator, n: int = 200) -> float:
    """Range of the opinions on a uniform spanning tree after 1000 steps, those that hardly move any more."""
    child, parent = spanning_tree(n, rng)
    linked = np.eye(n, dtype=bool)
    linked[child, parent] = linked[parent, child] = True
    run = kd.hegselmann_krause(rng.uniform(size=n), radius, graph=kd.Graph(linked), max_steps=1000)
    return float(np.ptp(run.final))


@check(
    1,
    source="setting of 2507.14276",
    setting="uniform spanning trees of 200, eps = 0.3 and 0.7, 4 each, 1000 steps; share within a range of 0.1",
    tolerance=0.0,
)
def tree_consensus() -> Comparison:
    """Trees need more than the 1/5 of a complete graph: no consensus at 0.3, but at 0.7, though edges start closed."""
    rng = np.random.default_rng(15)
    shares = [float(np.mean([_spread(radius, rng) < 0.1 for _ in range(4)])) for radius in (0.3, 0.7)]
    parts = theory.open_tree_parts(agents=200, radius=0.7)
    return compare([0.0, 1.0], shares, f"{parts:.0f} parts at the start at 0.7")


@check(
    5,
    source="Wang, Li, E & Chazelle 2017; derived",
    setting="per capita, torus of 12 R, 600 opinions, sigma = 0.05 and 0.22; largest Fourier mode at t = 25, 60",
    tolerance=1.0,  # neighbouring waves grow nearly alike, and noise starts them
)
def noisy_clusters() -> Comparison:
    """Noisy bounded confidence on a torus: the winning wave is the number of groups; noise makes them fewer."""
    predicted, measured = [], []
    for noise, t_end in ((0.05, 25.0), (0.22, 60.0)):
        dynamics = kd.Dynamics(kd.bounded_confidence(1.0, normalised=False), kd.Torus(12.0), noise=noise)
        x0 = (np.arange(600)[:, None] + 0.5) / 50.0
        final = kd.simulate(dynamics, x0, t_end, dt=0.2, save_every=int(5 * t_end), rng=12).final
        modes = np.abs(np.fft.rfft(np.histogram(final, 240, (0.0, 12.0))[0]))[1:12]
        measured.append(1 + int(np.argmax(modes)))
        predicted.append(theory.winning_wave(radius=1.0, length=12.0, noise=noise))
    return compare(predicted, measured)
