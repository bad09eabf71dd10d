"""Bounded confidence on one thread: sorted 1-D steps, compiled plans, the largest-cluster curve, 2-D neighbours.

    OMP_NUM_THREADS=1 python benchmarks/bounded_confidence.py [--out benchmarks/results/bounded_confidence.md]

Limits: 1-D N = 10^6 at most 0.05 s a step from a sorted state and at most 1.3 times a plain uncompensated two-pointer
loop; N = 10^3 at least 50 000 steps/s inside a plan; the curve of 51 radii x 100 samples x N = 1024 within 1 s; 2-D
N = 10^5 with 124 neighbours within 0.06 s a step. Correctness first: every pair of methods is compared before it is
timed. Times are medians of interleaved rounds, in processor time of the one thread: on a shared machine the wall clock
measures the neighbours. Peers that are not installed are skipped with the reason.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import time
from pathlib import Path

import networkx
import numba
import numpy as np
from _report import machine, table
from _report import medians as interleaved
from scipy.spatial import cKDTree

import krause_dynamics as kd
from krause_dynamics.forms.near import line_kernels
from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.forms.near.cloud import Cloud
from krause_dynamics.forms.near.line import SortedLine

Rows = list[tuple[object, ...]]
medians = functools.partial(interleaved, clock=time.process_time)


@numba.njit
def plain_step(x, radius, prefix, y):
    """The two-pointer loop without compensation."""
    left, right, total = 0, 0, 0.0
    prefix[0] = 0.0
    for i in range(x.size):
        while right < x.size and x[right] - x[i] <= radius:
            total += x[right]
            right += 1
            prefix[right] = total
        while x[i] - x[left] > radius:
            left += 1
        y[i] = (prefix[right] - prefix[left]) / (right - left)


def numpy_step(x, radius):
    """Bisection and a cumulative sum, as one would write it without a compiler."""
    prefix = np.concatenate([[0.0], np.cumsum(x)])
    first, last = np.searchsorted(x, x - radius), np.searchsorted(x, x + radius, side="right")
    return (prefix[last] - prefix[first]) / (last - first)


def line_step(x):
    """One compensated step from a sorted state, with the buffers that a plan keeps."""
    n = x.size
    mass, y, buffers = np.ones(n), np.empty(n), [np.empty(n + 1) for _ in range(3)]
    windows = [np.empty(n, np.uint32) for _ in range(2)]

    def run(radius):
        line_kernels.step(x, mass, n, radius, False, False, 0.0, *buffers, np.empty(1), *windows, y)
        return y

    return run


def on_a_line(sizes: list[int], radius: float) -> Rows:
    rows: Rows = []
    for n in sizes:
        x = np.sort(np.random.default_rng(0).random(n))
        step, y, prefix = line_step(x), np.empty(n), np.empty(n + 1)
        plain_step(x, radius, prefix, y)
        assert np.abs(step(radius) - y).max() < 1e-9
        assert np.abs(step(radius) - numpy_step(x, radius)).max() < 1e-9
        taken = medians(
            {
                "sorted1d": functools.partial(step, radius),
                "plain": functools.partial(plain_step, x, radius, prefix, y),
                "numpy": functools.partial(numpy_step, x, radius),
            },
            rounds=15 if n > 10_000 else 200,
        )
        ours = taken["sorted1d"]
        rows.append((n, radius, ours, ours / n * 1e9, taken["plain"], ours / taken["plain"], taken["numpy"] / ours))
    return rows


def whole_runs(samples: int, n: int) -> Rows:
    rows: Rows = []
    starts = np.random.default_rng(0).random((samples, n))
    for radius in (0.02, 0.05, 0.1, 0.2):
        lines = [SortedLine(x, radius, 1e-12) for x in starts]
        steps = sum(line.advance(10**6) for line in lines)
        assert steps == kd.hegselmann_krause_batch(starts, radius).steps.sum()

        def run(radius=radius):
            kd.hegselmann_krause_batch(starts, radius)

        taken = medians({"run": run}, rounds=7)["run"]
        rows.append((n, radius, steps / samples, taken / samples, steps / taken))
    return rows


def curve() -> Rows:
    samples, radii = np.random.default_rng(0).random((100, 1024)), np.linspace(0.01, 0.5, 51)
    batch = kd.hegselmann_krause_batch(samples, radii)
    single = kd.hegselmann_krause(samples[7], radii[10])
    assert batch.steps[10, 7] == single.steps
    taken = medians({"curve": lambda: kd.hegselmann_krause_batch(samples, radii)}, rounds=5)["curve"]
    return [(51, 100, 1024, float(batch.steps.mean()), taken)]


def kd_tree_step(x, radius):
    """scipy: lists of neighbours, then their means."""
    tree = cKDTree(x)
    return np.array([x[near].mean(axis=0) for near in tree.query_ball_point(x, radius)])


def kd_tree_pairs_step(x, radius):
    """scipy: all pairs as one array, then weighted counts (faster, but memory for every pair)."""
    i, j = cKDTree(x).query_pairs(radius, output_type="ndarray").T
    n = len(x)
    count = 1 + np.bincount(i, minlength=n) + np.bincount(j, minlength=n)
    sums = [c + np.bincount(i, c[j], n) + np.bincount(j, c[i], n) for c in x.T]
    return np.stack(sums, axis=1) / count[:, None]


def in_the_plane(sizes: list[int], neighbours: int = 124) -> Rows:
    rows: Rows = []
    for n in sizes:
        x = np.random.default_rng(0).random((n, 2))
        radius = float(np.sqrt(neighbours / (np.pi * n)))
        rule = kd.bounded_confidence(radius)
        ball = Ball.of(rule.find(kd.Within)[0], np.array([radius]), 2)
        mean = kd.aggregate(rule, x, impl="neighbours").mean
        few = slice(0, None, max(1, n // 500))
        expected = np.array([x[((x - a) ** 2).sum(1) <= radius**2].mean(axis=0) for a in x[few]])
        assert np.abs(mean[few] - expected).max() < 1e-12
        cloud = Cloud(x, ball, 1e-12)
        start = cloud.arrays()
        cloud.advance(1)
        assert np.abs(cloud.positions - mean).max() == 0.0
        cases = {
            "aggregate": lambda rule=rule, x=x: kd.aggregate(rule, x, impl="neighbours"),
            "plan": lambda cloud=cloud, start=start: (cloud.restore(start, 0), cloud.advance(1)),
        }
        if n <= 100_000:
            assert np.abs(kd_tree_pairs_step(x, radius) - mean).max() < 1e-12
            cases["kd-tree"] = functools.partial(kd_tree_step, x, radius)
            cases["kd-tree pairs"] = functools.partial(kd_tree_pairs_step, x, radius)
        taken = medians(cases, rounds=5)
        peers = [taken[name] / taken["plan"] if name in taken else "-" for name in ("kd-tree", "kd-tree pairs")]
        rows.append((n, radius, taken["plan"], taken["plan"] / n * 1e9, taken["aggregate"], *peers))
    return rows


def published() -> Rows:
    """One update of everybody in published simulators, where they are installed."""
    return [_ndlib(1000), _sisyphe(100_000)]


def _ndlib(n: int) -> tuple[object, ...]:
    try:
        config = importlib.import_module("ndlib.models.ModelConfig")
        opinions = importlib.import_module("ndlib.models.opinions")
    except ImportError as error:
        return ("NDlib HKModel", n, "-", "-", f"skipped: {error}")
    model = opinions.HKModel(networkx.complete_graph(n))
    setup = config.Configuration()
    setup.add_model_parameter("epsilon", 0.2)
    model.set_initial_status(setup)
    step = line_step(np.sort(np.random.default_rng(0).random(n)))
    taken = medians({"theirs": model.iteration, "ours": lambda: step(0.2)}, rounds=5)
    remark = "one iteration, which stores one agent's update of the n that it computes"
    return ("NDlib HKModel", n, taken["theirs"], taken["theirs"] / taken["ours"], remark)


def _sisyphe(n: int) -> tuple[object, ...]:
    try:
        particles = importlib.import_module("sisyphe.particles")
        torch = importlib.import_module("torch")
    except ImportError as error:
        return ("SiSyPHE, 2500 cells", n, "-", "-", f"skipped: {error}")
    torch.set_num_threads(1)
    x, radius = np.random.default_rng(0).random((n, 2)), float(np.sqrt(124 / (np.pi * n)))
    points, ones = torch.from_numpy(x), torch.ones(n, 1, dtype=torch.float64)
    options = {"boundary_conditions": "open", "block_sparse_reduction": True, "number_of_cells": 2500}
    model = particles.Particles(points, radius, 1.0, **options)

    def step():
        total, count = model.linear_local_average(points, ones, isaverage=False)
        return (total / count).numpy()

    rule = kd.bounded_confidence(radius)
    assert np.abs(step() - kd.aggregate(rule, x, impl="neighbours").mean).max() < 1e-12
    taken = medians({"theirs": step, "ours": lambda: kd.aggregate(rule, x, impl="neighbours")}, rounds=7)
    remark = "after compiling; float64, the number of cells given by hand"
    return ("SiSyPHE, 2500 cells", n, taken["theirs"], taken["theirs"] / taken["ours"], remark)


def report() -> str:
    parts = [
        "# Bounded confidence, one thread",
        "Printed by `OMP_NUM_THREADS=1 python benchmarks/bounded_confidence.py`; seconds are processor time, medians.",
        machine("numpy", "numba", "scipy"),
        "## One step on a line from a sorted state",
        "Plain: two pointers without compensation; numpy: bisection and cumsum. Small sizes repeat a state, which the "
        "branch predictor learns (the plain loop gains most).",
        table(
            ("N", "radius", "sorted1d", "ns/agent", "plain", "sorted1d / plain", "numpy / sorted1d"),
            on_a_line([1000, 10_000, 100_000, 1_000_000], 0.2) + on_a_line([1_000_000], 0.001),
        ),
        "## Whole runs in a compiled plan, N = 1000, 200 random starts",
        table(("N", "radius", "steps a run", "s a run", "steps/s"), whole_runs(200, 1000)),
        "## Mean largest cluster over the radius (`kd.hegselmann_krause_batch`)",
        table(("radii", "samples", "N", "mean steps", "s"), curve()),
        "## One step in the plane with 124 neighbours",
        "Plan: a `Cloud` advanced once from the start, merging included; ratios to the plan.",
        table(
            ("N", "radius", "plan", "ns/agent", "kd.aggregate", "scipy lists / plan", "scipy pairs / plan"),
            in_the_plane([10_000, 100_000, 1_000_000]),
        ),
        "## Published simulators",
        table(("tool", "N", "s", "ratio to ours", "remark"), published()),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="also write the tables to this file")
    arguments = parser.parse_args()
    text = report()
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
