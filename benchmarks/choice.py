"""What ``impl="auto"`` takes, and what every form costs: where one overtakes another on this machine.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python benchmarks/choice.py [--out FILE.md]

One row for each case, size and form that computes it: time of one call of a plan (chosen and prepared before), and
whether a loop (`kd.plan`, `kd.Dynamics`, `kd.simulate`) or a single `kd.aggregate` takes it. Correctness first: each
form is compared with the reference before it is timed. Medians of interleaved rounds in processor time. The last lines
say what loading costs once in a process: importing a form and its first call, in a process of its own. A choice is
called good where the form taken in a loop costs at most twice the fastest, or less than 50 microseconds more.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import time
from pathlib import Path

import networkx
import numpy as np
import torch
from _report import machine, medians, table

import krause_dynamics as kd

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
SLACK = 50e-6  # seconds a call that a choice may lose at any size: the cost of some array operations
SIZES = (16, 32, 64, 128, 256, 512, 1024)
LEFT_OUT = ("convolution",)  # pays on grids only, which particles leave

LOADED = """
import time, numpy as np, krause_dynamics as kd
x = np.random.default_rng(0).random((200, {d}))
kd.aggregate({rule}, x, impl="reference")
start = time.process_time()
kd.aggregate({rule}, x, impl="{form}")
print(time.process_time() - start)
"""


def cases(n: int) -> dict[str, tuple[kd.Interaction, object]]:
    """Rules and states of n particles, by name."""
    rng = np.random.default_rng(0)
    line, plane = rng.random((n, 1)), rng.random((n, 2))
    graph = kd.Graph(networkx.random_regular_graph(4, n, seed=0))
    window = kd.krause(1.0, kd.Window(max(2, n // 16)) & kd.TopK(4))
    return {
        "line, flat within 0.1": (kd.bounded_confidence(0.1), line),
        "50 lines, flat within 0.1": (kd.bounded_confidence(0.1), rng.random((50, n, 1))),
        "plane, flat within 0.1": (kd.bounded_confidence(0.1), plane),
        "plane, Gaussian within 0.1": (kd.krause(0.05, kd.Within(0.1)), plane),
        "network of degree 4, flat": (kd.Interaction(kd.Flat(), graph), plane),
        "network of degree 4, Gaussian": (kd.krause(0.3, graph), plane),
        "plane, softmax": (kd.softmax(2.0), plane),
        "plane, top-k": (kd.krause(0.3, kd.TopK(4)), plane),
        "torch, softmax": (kd.softmax(2.0), torch.from_numpy(plane)),
        "torch, flat within 0.1": (kd.bounded_confidence(0.1), torch.from_numpy(plane)),
        "torch, window and top-k": (window, torch.from_numpy(rng.random((n, 8)))),
        "torch, network, flat": (kd.Interaction(kd.Flat(), graph), torch.from_numpy(plane)),
    }


def compare(name: str, n: int, rule: kd.Interaction, x: object, rounds: int) -> tuple[list[tuple[object, ...]], bool]:
    """Rows of one case, and whether the choice in a loop is good."""
    wanted = kd.aggregate(rule, x, impl="reference").mean
    forms = [form for form, reason in kd.supported(rule, x).items() if reason is None and form not in LEFT_OUT]
    calls = {}
    for form in forms:
        plan = kd.plan(rule, x, impl=form)
        error = float(abs(plan(x).mean - wanted).max())
        if not error <= TOLERANCE[str(x.dtype).removeprefix("torch.")]:
            raise AssertionError(f"{name}, n = {n}: {form} is off by {error:.2g}")
        calls[form] = functools.partial(plan, x)
    times = medians(calls, rounds=rounds, clock=time.process_time)
    loop, once, best = kd.plan(rule, x).impl, chosen_once(rule, x), min(times.values())
    good = times[loop] <= max(2 * best, best + SLACK)
    rows = [
        (name, n, form, 1e3 * t, t / best, "yes" if form == loop else "", "yes" if form == once else "")
        for form, t in sorted(times.items(), key=lambda item: item[1])
    ]
    return rows, good


def chosen_once(rule: kd.Interaction, x: object) -> str:
    """The form that a single call of `kd.aggregate` takes."""
    from krause_dynamics.aggregate import choose
    from krause_dynamics.interaction import Request

    return choose(rule, Request.of(x), "auto").impl


def loading() -> list[tuple[object, ...]]:
    """Processor seconds of a form's import and first call (its compiled code read from the cache) in a new process."""
    rows = []
    for form, rule, d in (
        ("sorted1d", "kd.bounded_confidence(0.1)", 1),
        ("neighbours", "kd.bounded_confidence(0.1)", 2),
        ("network", "kd.Interaction(kd.Flat(), kd.Graph(np.eye(200)))", 2),
    ):
        script = LOADED.format(rule=rule, form=form, d=d)
        run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        rows.append((form, float(run.stdout)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows, poor = [], []
    for n in SIZES:
        for name, (rule, x) in cases(n).items():
            found, good = compare(name, n, rule, x, options.rounds)
            rows += found
            poor += [] if good else [f"{name}, n = {n}"]
    rows.sort(key=lambda row: (list(cases(SIZES[0])).index(str(row[0])), row[1]))
    header = ("case", "n", "form", "ms a call", "times the fastest", "auto in a loop", "auto in one call")
    text = (
        f"# What auto takes\n\n`choice.py`: {machine('krause_dynamics', 'numpy', 'torch', 'numba')}\n\n"
        f"{table(header, rows)}\n\n"
        f"{table(('form', 'seconds to load and call it first'), loading())}\n\n"
        f"Choices in a loop that cost more than twice the fastest form: {'; '.join(poor) or 'none'}.\n"
    )
    print(text)
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
