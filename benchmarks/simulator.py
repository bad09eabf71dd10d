"""Softmax flows on one thread: a drift of many tokens, a step of few, and what the loop adds.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 python benchmarks/simulator.py [--out FILE.md]

Limits: one drift at N = 4096, d = 64 at most 0.10 s in float32 and 0.20 s in float64; N = 64, d = 2 at most 150
microseconds a step through ``simulate`` and 40 in a compiled plan. Correctness first: every method is compared with the
dense definition before it is timed. Peers: that definition, torch's scaled_dot_product_attention, the matrix products
alone, and a loop over pairs in Python as in published clustering scripts. Medians of interleaved rounds in
processor time: on a shared machine the wall clock measures the neighbours.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from pathlib import Path

import numpy as np
import torch
from _report import machine, table
from _report import medians as interleaved

import krause_dynamics as kd

medians = functools.partial(interleaved, clock=time.process_time)
SPHERE, CIRCLE = kd.Sphere(), kd.Circle()


def check(got, expected, tolerance: float) -> None:
    error = float(np.abs(np.asarray(got) - np.asarray(expected)).max())
    if not error <= tolerance:
        raise AssertionError(f"error {error:.2g} exceeds {tolerance:.2g}")


def one_drift(dtype: str) -> list[tuple[object, ...]]:
    """N = 4096, d = 64: ours in both libraries, torch's kernel, two matrix products, the dense definition."""
    n, beta = 4096, 4.0
    x = SPHERE.sample(n, 64, rng=0).astype(dtype)
    y = torch.from_numpy(x)
    dynamics = kd.Dynamics(kd.softmax(beta), SPHERE)
    ours, theirs, dense = dynamics.bind(x), dynamics.bind(y), dynamics.bind(x, impl="reference")
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    check(ours(0, x), dense(0, x), tolerance)
    check(theirs(0, y), dense(0, x), tolerance)
    q = y[None, None]
    cases = {
        f"drift, numpy ({ours.impl})": lambda: ours(0, x),
        f"drift, torch ({theirs.impl})": lambda: theirs(0, y),
        "torch scaled_dot_product_attention": lambda: torch.nn.functional.scaled_dot_product_attention(
            q, q, q, scale=beta
        ),
        "its two matrix products, numpy": lambda: (x @ x.T) @ x,
        "dense definition, numpy": lambda: dense(0, x),
    }
    times = medians(cases, rounds=5)
    limit, base = (0.20 if dtype == "float64" else 0.10), min(times.values())
    return [(f"N=4096 d=64 {dtype}", name, t, t / base, limit if "drift" in name else "") for name, t in times.items()]


def published_step(x: np.ndarray, beta: float) -> np.ndarray:
    """The step as the clustering scripts have it: a Python loop over pairs (own words)."""
    n = len(x)
    moved = np.empty_like(x)
    for i in range(n):
        affinity = [math.exp(beta * float(np.dot(x[i], x[j]))) for j in range(n)]
        total = sum(affinity)
        heard = sum((affinity[j] / total) * x[j] for j in range(n))
        y = x[i] + 0.05 * (heard - np.dot(heard, x[i]) * x[i])
        moved[i] = y / np.linalg.norm(y)
    return moved


def few_tokens() -> list[tuple[object, ...]]:
    """N = 64, d = 2, Euler: microseconds a step."""
    x, steps = CIRCLE.sample(64, 2, rng=0), 1000
    dynamics = kd.Dynamics(kd.softmax(4.0), CIRCLE)

    def run(impl: str, **options):
        return kd.simulate(dynamics, x, 0.05 * steps, integrator=kd.Euler(), impl=impl, **options).final

    flow = dynamics.bind(x)
    check(run("auto"), run("reference"), 1e-11)
    check(run("compiled"), run("reference"), 1e-11)
    check(kd.Euler().step(flow, 0, x, 0.05), published_step(x, 4.0), 1e-12)

    def drifts() -> None:
        for _ in range(steps):
            flow(0.0, x)

    cases = {
        "simulate, every step kept": lambda: run("auto"),
        "drift alone": drifts,
        "simulate, dense definition": lambda: run("reference"),
        "compiled plan": lambda: run("compiled", save_every=steps),
    }
    times = {name: 1e6 * t / steps for name, t in medians(cases, rounds=7).items()}
    loop = interleaved({"loop over pairs in Python": lambda: published_step(x, 4.0)}, rounds=3, clock=time.process_time)
    times |= {name: 1e6 * t for name, t in loop.items()}
    limits = {"simulate, every step kept": 150.0, "compiled plan": 40.0}
    base = times["simulate, every step kept"]
    return [("N=64 d=2, microseconds", name, t, t / base, limits.get(name, "")) for name, t in times.items()]


def growth() -> list[tuple[object, ...]]:
    """How a drift grows with N (d = 64, float32), and with d (N = 2048)."""
    rows: list[tuple[object, ...]] = []
    for n, d in ((512, 64), (1024, 64), (2048, 64), (4096, 64), (8192, 64), (2048, 2), (2048, 16), (2048, 256)):
        x = SPHERE.sample(n, d, rng=0).astype(np.float32)
        flow = kd.Dynamics(kd.softmax(4.0), SPHERE).bind(x)
        t = medians({"drift": lambda flow=flow, x=x: flow(0, x)}, rounds=3)["drift"]
        rows.append((f"growth N={n} d={d} float32", "drift, numpy", t, t / n**2 * 4096**2, ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rows = [*one_drift("float32"), *one_drift("float64"), *few_tokens(), *growth()]
    text = table(("case", "method", "time (s, or as named)", "ratio (growth: scaled to N=4096)", "limit"), rows)
    text = f"{machine('krause_dynamics', 'numpy', 'torch', 'numba')}\n\n{text}\n"
    print(text)
    if out is not None:
        out.write_text(f"# Softmax flows on one thread\n\n`{Path(__file__).name}`: {text}")


if __name__ == "__main__":
    main()
