"""Distances between measures of 10^5 points, against a sort of the same array.

    OMP_NUM_THREADS=1 python benchmarks/measures.py

Limits: equal weights on the line within three sorts, weighted within three argsorts, sliced (50 directions) in 0.5 s.
Times are processor time of one thread. Correctness first: values are compared with scipy and with the definition.
"""

from __future__ import annotations

import time

import numpy as np
from _report import machine, medians, table
from scipy.stats import wasserstein_distance

from krause_dynamics import measures

N = 100_000


def main() -> None:
    rng = np.random.default_rng(0)
    x, y, a, b = (rng.standard_normal(N) for _ in range(4))
    masses = {"x_log_mass": a, "y_log_mass": b}
    assert abs(measures.wasserstein(x, y) - wasserstein_distance(x, y)) < 1e-12
    weighted = wasserstein_distance(x, y, np.exp(a), np.exp(b))
    assert abs(measures.wasserstein(x, y, **masses) / weighted - 1) < 1e-9
    line = medians(
        {
            "np.sort": lambda: np.sort(x),
            "np.argsort": lambda: np.argsort(x),
            "W1, equal": lambda: measures.wasserstein(x, y),
            "W2, equal": lambda: measures.wasserstein(x, y, p=2),
            "W1, weighted": lambda: measures.wasserstein(x, y, **masses),
            "W2, weighted": lambda: measures.wasserstein(x, y, p=2, **masses),
            "scipy W1, equal": lambda: wasserstein_distance(x, y),
            "scipy W1, weighted": lambda: wasserstein_distance(x, y, np.exp(a), np.exp(b)),
            "circle W1": lambda: measures.wasserstein_circle(x, y),
            "circle W2": lambda: measures.wasserstein_circle(x, y, p=2),
        },
        rounds=21,
        clock=time.process_time,
    )
    rows = [
        (name, 1e3 * seconds, seconds / line["np.sort"], seconds / line["np.argsort"]) for name, seconds in line.items()
    ]
    for d in (2, 64):
        first, second = rng.standard_normal((N, d)), rng.standard_normal((N, d))
        seconds = medians({"": lambda p=first, q=second: measures.sliced(p, q)}, rounds=3, clock=time.process_time)[""]
        rows.append(
            (
                f"sliced W2, 50 directions, d = {d}",
                1e3 * seconds,
                seconds / line["np.sort"],
                seconds / line["np.argsort"],
            )
        )
    print(f"n = {N}, float64; {machine('numpy', 'scipy', 'numba')}\n")
    print(table(("distance", "ms", "in sorts", "in argsorts"), rows))


if __name__ == "__main__":
    main()
