"""Observed orders of the integrators, on smooth rules and across the jump of bounded confidence; and a run to t = 10^6.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/integrators.py [--out FILE.md]

Orders are slopes of log error against log dt over 8 random starts (least, median, largest); the reference solution is
RK4 with dt = 1/2048.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from _report import machine, table

import krause_dynamics as kd

METHODS = (kd.Euler(), kd.LayerStep(), kd.EulerMaruyama(), kd.RK4(), kd.Adaptive())
CASES = {
    "softmax(3) on the sphere, 8 tokens": (kd.softmax(3.0), kd.Sphere(), 8, 3),
    "krause(0.8) in the plane, 8 tokens": (kd.krause(0.8), kd.Euclidean(), 8, 2),
    "bounded_confidence(0.3), 40 agents": (kd.bounded_confidence(0.3), kd.Interval(), 40, 1),
}


def final(dynamics: kd.Dynamics, x: np.ndarray, method, steps: int) -> np.ndarray:
    """The state at t = 1 after steps of equal size, without error control."""
    flow = dynamics.bind(x)
    for k in range(steps):
        x = method.step(flow, k / steps, x, 1 / steps)
    return x


def orders() -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for name, (rule, space, n, d) in CASES.items():
        smooth = "bounded" not in name
        dynamics = kd.Dynamics(rule, space)
        starts = [space.sample(n, d, rng=seed) for seed in range(8)]
        exact = [final(dynamics, x, kd.RK4(), 2048) for x in starts]
        for method in METHODS:
            high = smooth and method.order > 1
            steps = np.array([6, 8, 12, 16] if high else [16, 32, 64, 128])
            slopes = []
            for x, end in zip(starts, exact, strict=True):
                errors = [np.abs(final(dynamics, x, method, int(s)) - end).max() for s in steps]
                slopes.append(-np.polyfit(np.log(steps), np.log(errors), 1)[0])
            least, median, largest = np.quantile(slopes, [0, 0.5, 1])
            rows.append((name, type(method).__name__, method.order, float(least), float(median), float(largest)))
    return rows


def long_runs() -> list[tuple[object, ...]]:
    """Two clusters of 8 tokens each at beta = 6.5, which merge at about t = 10^5; 101 states are kept."""
    circle, rng = kd.Circle(), np.random.default_rng(0)
    x0 = circle.from_angles(np.repeat([0.0, np.pi - 0.3], 8) + 1e-3 * rng.standard_normal(16))
    dynamics = kd.Dynamics(kd.softmax(6.5), circle)
    rows: list[tuple[object, ...]] = []
    for name, options in {
        "RK4, dt = 1, compiled": {"dt": 1.0, "save_every": 10_000, "impl": "compiled"},
        "Stiff (Radau)": {"dt": 1e4, "integrator": kd.Stiff(rtol=1e-8, atol=1e-10)},
    }.items():
        start = time.process_time()
        run = kd.simulate(dynamics, x0, 1e6, **options)
        order = [float(np.linalg.norm(x.mean(0))) for x in run]
        merged = float(run.times[int(np.argmax(np.array(order) > 0.9))])
        rows.append((name, len(run), run.steps, time.process_time() - start, merged, order[-1]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    text = "\n\n".join(
        [
            machine("krause_dynamics", "numpy", "scipy", "numba"),
            table(("rule", "method", "claimed order", "least", "median", "largest"), orders()),
            table(
                ("run to t = 10^6", "states", "steps", "processor s", "order parameter > 0.9 at", "in the end"),
                long_runs(),
            ),
        ]
    )
    print(text)
    if out is not None:
        out.write_text(f"# Integrators\n\n`{Path(__file__).name}`: {text}\n")


if __name__ == "__main__":
    main()
