"""Train arms on tasks over a distance: ``python -m evidence.long_range --preset small --out OUT``.

Beyond L (W - 1) tokens the gradient of the answer is exactly 0 and accuracy is chance. Two tables are written, one row
a run and one a lag; ``python -m evidence.logs OUT`` joins them into the logs. A run that is there is not repeated.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from evidence import logs
from evidence.long_range.jobs import Job, carry_out_all
from evidence.long_range.presets import ARMS, PRESETS, TASKS


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m evidence.long_range", description=__doc__)
    parser.add_argument("--preset", choices=list(PRESETS), default="small")
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=["needle", "recall"])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=1, help="0, 1, ...: seed after seed")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit-seconds", type=float, default=3e7, help="no run begins after it")
    parser.add_argument("--out", required=True)
    parser.add_argument("--pack", help="folder for one file of tables")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.time() + options.limit_seconds
    jobs = [
        Job(options.preset, task, arm, seed, deadline)
        for seed in range(options.seeds) for task in options.tasks for arm in options.arms
    ]  # fmt: skip
    carry_out_all(jobs, out, options.workers)
    if options.pack:
        logs.pack(out, Path(options.pack))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
