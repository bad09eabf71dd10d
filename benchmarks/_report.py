"""Shared by the scripts here: interleaved timing and a table with the machine. Running this file does nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def medians(
    cases: dict[str, Callable[[], object]], *, rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median time of each case in seconds, after one warm-up; rounds are interleaved so that all share the noise.

    ``clock=time.process_time`` counts processor time, which neighbours on a busy machine change less.
    """
    for run in cases.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def machine(*packages: str) -> str:
    """Processor, threads and versions in one line."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    threads = os.environ.get("OMP_NUM_THREADS", f"{os.cpu_count()} (all)")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"{model}, OMP_NUM_THREADS={threads}, Python {platform.python_version()}, {versions}"


def table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """Markdown table; floats with three significant digits."""
    lines = [header, ("---",) * len(header), *rows]
    cells = ([f"{x:.3g}" if isinstance(x, float) else str(x) for x in line] for line in lines)
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)
