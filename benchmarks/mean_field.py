"""Cost of the mean-field solver: one drift against the reference, a step of 1e5 cells, and whole runs.

    OMP_NUM_THREADS=1 python benchmarks/mean_field.py --out benchmarks/results/mean_field.md

Processor time of one thread, medians; every drift is compared with the reference before it is timed.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _report import machine, medians, table

import krause_dynamics as kd
from krause_dynamics import mean_field as mf
from krause_dynamics.mean_field.finite_volumes import Transport
from krause_dynamics.mean_field.velocity import Velocity

SMALL, LARGE = 2000, 100_000


def cases(count: int) -> dict[str, tuple[kd.Dynamics, mf.Density]]:
    line = mf.LineCells(count, 0.0, 10.0)  # whole cells per unit radius
    uniform = mf.uniform(line)
    return {
        "bounded confidence, R = 1": (kd.Dynamics(kd.bounded_confidence(1.0)), uniform),
        "bounded confidence, R cuts cells": (kd.Dynamics(kd.bounded_confidence(1.0001)), uniform),
        "truncated Gaussian": (kd.Dynamics(kd.krause(0.5, kd.Within(1.0))), uniform),
        "Gaussian": (kd.Dynamics(kd.krause(1.0)), mf.gaussian(line, 5.0, 0.8)),
        "Gaussian, near-vacuum": (kd.Dynamics(kd.krause(0.2)), mf.gaussian(line, 5.0, 0.6)),
        "softmax on the circle": (kd.Dynamics(kd.softmax(4.0), kd.Circle()), mf.von_mises(count, 0.5)),
    }


def transport(dynamics: kd.Dynamics, density: mf.Density, impl: str) -> Transport:
    cells = density.cells
    periodic = cells.is_periodic(dynamics.space)
    faces = cells.edges[:-1] if periodic else cells.edges[1:-1]
    return Transport(cells, periodic, Velocity(dynamics, cells, faces, impl=impl))


def drifts() -> list[tuple[object, ...]]:
    rows = []
    for name, (dynamics, density) in cases(SMALL).items():
        slopes = np.zeros(SMALL)
        fast, dense = (transport(dynamics, density, impl).velocity for impl in ("convolution", "reference"))
        error = np.abs(fast(0.0, density.mass, slopes) - dense(0.0, density.mass, slopes)).max()
        times = medians(
            {
                "fast": lambda fast=fast, m=density.mass, s=slopes: fast(0.0, m, s),
                "dense": lambda dense=dense, m=density.mass, s=slopes: dense(0.0, m, s),
            },
            clock=time.process_time,
        )
        rows.append((name, 1e3 * times["fast"], 1e3 * times["dense"], times["dense"] / times["fast"], float(error)))
    return rows


def steps() -> list[tuple[object, ...]]:
    rows = []
    for name in cases(SMALL):
        seconds = []
        for count in (LARGE // 10, LARGE):
            dynamics, density = cases(count)[name]
            scheme = transport(dynamics, density, "convolution")
            rates = scheme.rates(0.0, density.mass)
            run = medians(
                {"step": lambda s=scheme, m=density.mass, r=rates: (s.rates(0.0, m), s.step(0.0, m, 1e-6, r))},
                clock=time.process_time,
            )
            seconds.append(run["step"])
        rows.append((name, 1e3 * seconds[0], 1e3 * seconds[1], seconds[1] / seconds[0]))
    return rows


def runs(counts: tuple[int, ...]) -> list[tuple[object, ...]]:
    names = ("bounded confidence, R = 1", "truncated Gaussian", "softmax on the circle")
    rows = []
    for name, count in [(name, count) for name in names for count in counts] + [(names[0], 5 * counts[-1])]:
        dynamics, density = cases(count)[name]
        start = time.process_time()
        run = mf.solve(dynamics, density, 20.0, save_at=2)
        spent = time.process_time() - start
        error = abs(np.exp(run.log_mass[-1]).sum() - 1)
        rows.append((name, count, run.steps, spent, 1e3 * spent / run.steps, float(error)))
    return rows


def maps() -> list[tuple[object, ...]]:
    start = time.process_time()
    density = cases(LARGE)["bounded confidence, R = 1"][1]
    run = mf.iterate(kd.Dynamics(kd.bounded_confidence(1.0)), density, 20, save_every=20)
    eulerian = time.process_time() - start
    start = time.process_time()
    outcome = mf.settle(density, 1.0, count=LARGE + 1)
    return [
        ("discrete map, 1e5 cells", int(run.times[-1]), eulerian),
        ("discrete map, 100 001 quantiles, to the end", outcome.steps, time.process_time() - start),
    ]


def extrapolated(rows: list[tuple[object, ...]], step_ms: float) -> str:
    """What a run of 1e5 cells would take, from the growth of the steps between the two largest runs."""
    (_, small, few, *_), (_, large, many, *_) = [row for row in rows if row[0] == rows[-1][0]][-2:]
    exponent = np.log(many / few) / np.log(large / small)
    steps = many * (LARGE / large) ** exponent
    return (
        f"The number of steps grows as cells^{exponent:.2f} (CFL). Extrapolated, not run: bounded confidence "
        f"with 1e5 cells takes {steps:.0f} steps, {steps * step_ms / 6e4:.0f} minutes."
    )


def report(counts: tuple[int, ...]) -> str:
    single, whole = steps(), runs(counts)
    sections = [
        "# Mean-field solver\n\nProcessor time of one thread. " + machine("numpy", "scipy", "numba") + "\n",
        f"## One drift, {SMALL} cells: convolution against the dense reference\n",
        table(("rule", "convolution, ms", "reference, ms", "ratio", "largest difference"), drifts()),
        "\n## One step (three drifts, reconstruction, fluxes)\n",
        table(("rule", "1e4 cells, ms", "1e5 cells, ms", "ratio"), single),
        "\nA ratio near 10 is O(n log n).\n\n## Whole runs, t = 20\n",
        table(("rule", "cells", "steps", "seconds", "ms per step", "mass error"), whole),
        "\n" + extrapolated(whole, single[0][2]) + "\n",
        "## Discrete-time maps, uniform density, L = 10 R\n",
        table(("method", "layers", "seconds"), maps()),
    ]
    return "\n".join(sections) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the table there")
    parser.add_argument("--cells", type=int, nargs="+", default=[500, 2000], help="sizes of the whole runs")
    arguments = parser.parse_args()
    text = report(tuple(arguments.cells))
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf-8")
