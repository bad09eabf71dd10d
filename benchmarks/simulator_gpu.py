"""Softmax drifts and bounded confidence on a GPU: correctness, then time and memory against matrix products.

    python benchmarks/simulator_gpu.py [--out FILE.md] [--largest 17] [--agents 1000000]

For N = 2^14 .. 2^17 tokens in d = 64: one drift of the softmax flow, the Gaussian flow, and the two matrix products
that any exact method must compute, row block by row block without the exponential in between. For 10^6 agents in 2-D
with about 124 neighbours: synchronous Hegselmann-Krause steps through cells. Times are medians of CUDA events after a
warm-up; memory is the peak of the allocator during one call.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from _report import table

import krause_dynamics as kd

SPHERE = kd.Sphere()


def measure(call, rounds: int = 5) -> tuple[float, float]:
    """Median seconds and peak megabytes beyond what was held before."""
    call()
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for _ in range(rounds):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        call()
        last.record()
        torch.cuda.synchronize()
        times.append(first.elapsed_time(last) / 1e3)
    return statistics.median(times), (torch.cuda.max_memory_allocated() - held) / 1e6


def products(x: torch.Tensor, rows: int = 4096) -> torch.Tensor:
    """``(x x^T) x`` by row blocks: the multiplications of an exact drift and nothing else."""
    return torch.cat([(x[i : i + rows] @ x.mT) @ x for i in range(0, len(x), rows)])


def correctness() -> list[tuple[object, ...]]:
    """Largest deviation from the float64 definition on the host, 1000 and 4096 tokens."""
    rows: list[tuple[object, ...]] = []
    rules = {"softmax": kd.softmax(4.0), "causal": kd.softmax(4.0, kd.Causal()), "gaussian": kd.krause(0.7)}
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 3e-2)):
        for n, d in ((1000, 3), (4096, 64)):
            host = torch.from_numpy(SPHERE.sample(n, d, rng=0)).to(dtype)
            for name, rule in rules.items():
                dynamics = kd.Dynamics(rule, SPHERE)
                flow = dynamics.bind(host.cuda())
                expected = dynamics.drift(0.0, host.double(), impl="reference")
                error = float((flow(0.0, host.cuda()).cpu().double() - expected).abs().max())
                rows.append((f"{name} N={n} d={d}", str(dtype).removeprefix("torch."), flow.impl, error, tolerance))
                if not error <= tolerance:
                    raise AssertionError(f"{rows[-1]}: error above tolerance")
    x = torch.rand(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    radius = (124 / 20_000 / np.pi) ** 0.5
    dynamics = kd.Dynamics(kd.bounded_confidence(radius))
    expected = torch.from_numpy(dynamics.drift(0.0, x.numpy()))
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-2 * radius)):  # a pair at the radius may flip
        flow = dynamics.bind(x.to(dtype).cuda())
        error = float((flow(0.0, x.to(dtype).cuda()).cpu().double() - expected).abs().max())
        rows.append(("bounded confidence N=20000 d=2", str(dtype).removeprefix("torch."), flow.impl, error, tolerance))
        if not error <= tolerance:
            raise AssertionError(f"{rows[-1]}: error above tolerance")
    return rows


def drifts(largest: int) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for power in range(14, largest + 1):
        x = torch.from_numpy(SPHERE.sample(2**power, 64, rng=0)).float().cuda()
        base, _ = measure(lambda x=x: products(x), rounds=3)
        with_tf32 = _tf32(x)
        for name, rule in (("softmax", kd.softmax(4.0)), ("gaussian", kd.krause(0.7))):
            flow = kd.Dynamics(rule, SPHERE).bind(x)
            seconds, memory = measure(lambda flow=flow, x=x: flow(0.0, x), rounds=3)
            rows.append(
                (f"2^{power}", name, "float32", flow.impl, seconds, seconds / base, seconds / with_tf32, memory)
            )
        half = x.bfloat16()
        base_half, _ = measure(lambda half=half: products(half), rounds=3)
        flow = kd.Dynamics(kd.softmax(4.0), SPHERE).bind(half)
        seconds, memory = measure(lambda flow=flow, half=half: flow(0.0, half), rounds=3)
        rows.append((f"2^{power}", "softmax", "bfloat16", flow.impl, seconds, seconds / base_half, "", memory))
        if power <= 15:
            double = x.double()
            base_double, _ = measure(lambda double=double: products(double), rounds=3)
            flow = kd.Dynamics(kd.softmax(4.0), SPHERE).bind(double)
            seconds, memory = measure(lambda flow=flow, double=double: flow(0.0, double), rounds=3)
            rows.append((f"2^{power}", "softmax", "float64", flow.impl, seconds, seconds / base_double, "", memory))
    return rows


def _tf32(x: torch.Tensor) -> float:
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return measure(lambda: products(x), rounds=3)[0]
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def agents(count: int) -> list[tuple[object, ...]]:
    """Synchronous Hegselmann-Krause in the unit square, about 124 neighbours at the start."""
    radius = (124 / count / np.pi) ** 0.5
    rows: list[tuple[object, ...]] = []
    for dtype in (torch.float32, torch.float64):
        x = torch.from_numpy(np.random.default_rng(0).random((count, 2))).to(dtype).cuda()
        flow = kd.Dynamics(kd.bounded_confidence(radius)).bind(x)
        seconds, memory = measure(lambda flow=flow, x=x: flow(0.0, x), rounds=3)
        start = time.perf_counter()
        run = kd.simulate(flow.dynamics, x, 10.0, dt=1.0, integrator=kd.Euler(), save_at=[])
        torch.cuda.synchronize()
        ten = time.perf_counter() - start
        moved = float((run.final - x).norm(dim=-1).max()) / radius
        name = str(dtype).removeprefix("torch.")
        rows.append((count, name, flow.impl, seconds, memory, ten / 10, moved))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--largest", type=int, default=17)
    parser.add_argument("--agents", type=int, default=1_000_000)
    options = parser.parse_args()
    parts = [
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Python {platform.python_version()}",
        table(("case", "dtype", "implementation", "largest error", "tolerance"), correctness()),
        table(
            ("N", "rule", "dtype", "implementation", "s a drift", "/ products", "/ products in TF32", "peak MB"),
            drifts(options.largest),
        ),
        table(
            ("agents", "dtype", "implementation", "s a drift", "peak MB", "s a step of ten", "largest move (radii)"),
            agents(options.agents),
        ),
    ]
    text = "\n\n".join(parts)
    print(text)
    if options.out is not None:
        options.out.write_text(f"# Particles on a GPU\n\n`{Path(__file__).name}`: {text}\n")


if __name__ == "__main__":
    main()
