"""Components at a radius and the whole curve, N = 4096, d = 768, float32, against the ways one would try first.

    OMP_NUM_THREADS=2 python benchmarks/clusters.py

Limits: components within 0.4 s at every radius, the curve within 3 s and O(N) memory. Correctness first: the partition
of every method must be the same. Beside the wall time stands the processor time of one thread: it bounds the wall time
of a free machine from above and hardly depends on neighbours.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from _report import machine, medians, table
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import HDBSCAN
from threadpoolctl import threadpool_limits

from krause_dynamics import clusters

N, D = 4096, 768


def clouds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal((N, D))
    groups = rng.standard_normal((8, D))[rng.integers(0, 8, N)]
    massive = normal.copy()
    massive[0] *= 1000
    chosen = {
        "normal": normal,
        "8 clusters, spread 0.1": groups + 0.1 * normal,
        "8 clusters, spread 1e-4": groups + 1e-4 * normal,
        "normal, one massive token": massive,
    }
    return {name: x.astype(np.float32) for name, x in chosen.items()}


def by_edge_list(x: np.ndarray, radius: float) -> tuple[int, np.ndarray]:
    """All pairs within the radius as a list, then scipy."""
    squares = np.einsum("nd,nd->n", x, x)
    rows, columns = [], []
    for start in range(0, N, 512):
        block = x[start : start + 512]
        squared = squares[start : start + 512, None] + squares - 2 * block @ x.T
        i, j = np.nonzero(squared <= radius**2)
        rows.append(i + start)
        columns.append(j)
    pairs = np.concatenate(rows), np.concatenate(columns)
    return connected_components(coo_array((np.ones(len(pairs[0]), bool), pairs), shape=(N, N)), directed=False)


def memory(x: np.ndarray) -> float:
    """Peak of the curve's own memory in MiB."""
    clusters.curve(x[:16])
    tracemalloc.start()
    clusters.curve(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def both_clocks(cases: dict[str, Callable[[], object]], rounds: int) -> list[tuple[str, float, float]]:
    """Name, wall time, and processor time of one thread."""
    wall = medians(cases, rounds=rounds)
    with threadpool_limits(1):
        work = medians(cases, rounds=rounds, clock=time.process_time)
    return [(name, wall[name], work[name]) for name in cases]


def main() -> None:
    rows = []
    for name, x in clouds().items():
        curve = clusters.curve(x)
        gaps = curve.lengths
        radii = {
            "below all": 0.5 * gaps[0],
            "near the smallest edge": 0.97 * gaps[0],
            "median edge": float(np.median(gaps)) * (1 + 1e-4),
            "largest edge (one component)": gaps[-1] * (1 + 1e-4),
            "twice the largest": 2 * gaps[-1],
        }
        for radius in radii.values():
            found = clusters.find(x, radius)
            assert np.array_equal(found.labels, curve.at(radius).labels)
        cases = {where: (lambda r=radius, y=x: clusters.find(y, r)) for where, radius in radii.items()}
        cases["whole curve"] = lambda y=x: clusters.curve(y)
        rows += [(name, *times, "") for times in both_clocks(cases, rounds=3)]
    x = clouds()["normal"]
    radius = float(clusters.curve(x).lengths[-1]) * 1.2
    assert by_edge_list(x, radius)[0] == clusters.find(x, radius).count == 1
    peers = both_clocks(
        {
            "ours": lambda: clusters.find(x, radius),
            "edge list + scipy": lambda: by_edge_list(x, radius),
            "HDBSCAN(min_samples=1)": lambda: HDBSCAN(min_samples=1, copy=True).fit(x),
        },
        rounds=1,
    )
    rows += [("normal", f"one component: {peer}", wall, work, wall / peers[0][1]) for peer, wall, work in peers]
    print(f"N = {N}, d = {D}, float32; {machine('numpy', 'scipy', 'numba', 'scikit-learn')}\n")
    print(table(("cloud", "radius or method", "wall s", "processor s, one thread", "ratio to ours"), rows))
    twice = np.concatenate([x, x + 1])
    print(
        f"\nThe curve's own memory: {memory(x):.1f} MiB, for 2 N points {memory(twice):.1f} MiB "
        f"(a matrix of distances: {4 * N * N / 2**20:.0f} and {16 * N * N / 2**20:.0f} MiB)."
    )


if __name__ == "__main__":
    main()
