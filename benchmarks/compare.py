"""Two checkouts against each other: their benchmarks in alternation, and the ratio of every time that they print.

    python benchmarks/compare.py --before ../other_checkout simulator bounded_confidence --rounds 5

Each script is run as its own checkout holds it. Cells are matched by place: table, row, column. With five pairs the
smallest and the largest ratio enclose the median ratio with 94 % confidence; a cell is called slower if even the
smallest lies above 1.03, faster if the largest lies below 0.97. Cells that no run changes are no times.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from _report import table

Cell = tuple[str, str]
TOLERANCE = 0.03
NUMBER = re.compile(r"^\d+(\.\d+)?(e[+-]?\d+)?$")
SEVERAL = re.compile(r"^\d[\d.]*(, \d[\d.]*)+$")


def run(checkout: Path, name: str, arguments: list[str], timeout: float) -> dict[Cell, float]:
    """The numbers that one script prints, by (row, column)."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, f"benchmarks/{name}.py", *arguments]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} in {checkout} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return numbers(done.stdout)


def numbers(text: str) -> dict[Cell, float]:
    """Numeric cells of all Markdown tables of a text; a row goes by its place and its first two cells."""
    found: dict[Cell, float] = {}
    header: list[str] = []
    places = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not header:
            header = cells
            continue
        places += 1
        for column, cell in zip(header, cells, strict=False):
            for which, part in enumerate(cell.split(", ") if SEVERAL.match(cell) else [cell]):
                if NUMBER.match(part):
                    label = f"{places}: {cells[0]}, {cells[1]}" if len(cells) > 2 else f"{places}: {cells[0]}"
                    found[label, column + (f" [{which}]" if which else "")] = float(part)
    return found


def ratios(before: list[dict[Cell, float]], after: list[dict[Cell, float]]) -> list[tuple[object, ...]]:
    """A line a cell that varies: medians, median ratio, its interval, verdict."""
    lines: list[tuple[object, ...]] = []
    for cell in before[0]:
        old, new = [[one[cell] for one in runs if cell in one] for runs in (before, after)]
        is_ratio = "ratio" in cell[1] or "/" in cell[1]
        if len(old) < len(before) or len(new) < len(after) or len({*old, *new}) == 1 or is_ratio or min(old) <= 0:
            continue
        each = [b / a for a, b in zip(old, new, strict=True)]
        low, high = min(each), max(each)
        verdict = "slower" if low > 1 + TOLERANCE else "faster" if high < 1 - TOLERANCE else ""
        medians = statistics.median(old), statistics.median(new), statistics.median(each)
        lines.append((*cell, *medians, f"{low:.2f} to {high:.2f}", verdict))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="scripts of benchmarks/ without .py; arguments after a colon")
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one run of one script")
    parser.add_argument("--limit", type=float, default=36000.0, help="seconds after which no further round starts")
    parser.add_argument("--all", action="store_true", help="every cell, not only those with a verdict")
    options = parser.parse_args()
    end = time.monotonic() + options.limit
    for given in options.names:
        name, *arguments = given.split(":")
        before: list[dict[Cell, float]] = []
        after: list[dict[Cell, float]] = []
        while len(after) < options.rounds and time.monotonic() < end:
            before.append(run(options.before.resolve(), name, arguments, options.timeout))
            after.append(run(options.after.resolve(), name, arguments, options.timeout))
        lines = ratios(before, after) if after else []
        shown = [line for line in lines if options.all or line[-1]]
        middle = statistics.median(line[4] for line in lines) if lines else float("nan")
        slower = sum(line[-1] == "slower" for line in lines)
        print(
            f"\n## {given}: {len(after)} pairs, {len(lines)} times, median ratio {middle:.3f}, {slower} slower\n",
            flush=True,
        )
        print(table(("row", "column", "before", "after", "ratio", "interval", "verdict"), shown), flush=True)


if __name__ == "__main__":
    main()
