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


def _part_sizes(child: np.ndarray, parent: np.ndarray, opinion: np.ndarray, radius: float) -> np.ndarray:
    """Sizes of the parts of a tree whose agents hear one another, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    heard = np.abs(opinion[child] - opinion[parent]) <= radius
    n = len(opinion)
    links = coo_array((np.ones(heard.sum()), (child[heard], parent[heard])), shape=(n, n))
    return np.bincount(connected_components(links, directed=False)[1])


@check(
    1,
    source="derived; setting of 2507.14276",
    setting="uniform spanning tree of 100 000, eps = 0.1, 0.2, 0.5, 0.9; share of parts",
    tolerance=8e-3,  # five deviations, 0.5/sqrt(n) each
)
def tree_parts() -> Comparison:
    """On a tree of n agents bounded confidence starts in 1 + (n - 1)(1 - eps)^2 parts."""
    n, rng = 100_000, np.random.default_rng(11)
    child, parent = spanning_tree(n, rng)
    opinion, radii = rng.uniform(size=n), (0.1, 0.2, 0.5, 0.9)
    measured = [len(_part_sizes(child, parent, opinion, radius)) / n for radius in radii]
    return compare([theory.open_tree_parts(agents=n, radius=radius) / n for radius in radii], measured)


@check(
    1,
    source="derived; setting of 2507.14276",
    setting="six uniform spanning trees of 100 000, eps = 0.5, 0.6, 0.7; mean over agents of the size of their part",
    tolerance=0.06,  # four standard errors at 0.7, where a few large parts decide
    kind="relative",
)
def tree_part_size() -> Comparison:
    """On a large uniform spanning tree an agent starts in a part of finite size, |(1 - K)^{-1} 1|^2."""
    n, rng, radii = 100_000, np.random.default_rng(17), (0.5, 0.6, 0.7)
    measured = np.zeros(3)
    for _ in range(6):
        child, parent = spanning_tree(n, rng)
        opinion = rng.uniform(size=n)
        for place, radius in enumerate(radii):
            measured[place] += np.sum(_part_sizes(child, parent, opinion, radius) ** 2.0) / n / 6
    return compare([theory.open_tree_part_size(radius) for radius in radii], measured)


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


def _parts_left(n: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Sizes of the parts of a uniform spanning tree after 60 steps."""
    from scipy.sparse import coo_array

    child, parent = spanning_tree(n, rng)
    own = np.arange(n)
    pairs = np.concatenate([child, parent, own]), np.concatenate([parent, child, own])
    graph = kd.Graph(coo_array((np.ones(len(pairs[0])), pairs), shape=(n, n)))
    run = kd.hegselmann_krause(rng.uniform(size=n), radius, graph=graph, max_steps=60)
    return _part_sizes(child, parent, np.ravel(run.final), radius)


@check(
    1,
    source="computed; setting of 2507.14276",
    setting="after 60 steps: parts per agent at 0.1, 0.2, 0.3, 40 trees of 500 against 100 000; largest part at 0.7",
    tolerance=0.02,  # four standard errors of 40 small trees
    slow=True,
)
def large_trees() -> Comparison:
    """Large trees: parts per agent do not depend on n: no consensus at 0.3, while 0.7 joins all that it parted."""
    rng, radii = np.random.default_rng(18), (0.1, 0.2, 0.3)
    small = [sum(len(_parts_left(500, radius, rng)) - 1 for _ in range(40)) / 20_000 for radius in radii]
    large = [len(_parts_left(100_000, radius, rng)) / 100_000 for radius in radii]
    joined = _parts_left(100_000, 0.7, rng).max() / 100_000
    return compare([*small, 1.0], [*large, joined], f"{large[2]:.2f} n parts at 0.3")


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
