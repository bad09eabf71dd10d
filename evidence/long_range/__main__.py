"""Train arms on tasks over a distance: ``python -m evidence.long_range --preset small --out OUT``.

Beyond L (W - 1) tokens the gradient of the answer is exactly 0 and accuracy is chance. Two tables are written, one row
a run and one a lag; ``python -m evidence.logs OUT`` joins them into the logs. A run that is there is not repeated.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence import logs
from evidence.long_range.tasks import Task
from evidence.long_range.training import Setting
from evidence.pool import say, workers

ARMS = (
    "dot.full", "dot+temperature.window", "gaussian.window", "gaussian.window+top_k", "gaussian.window+first_tokens",
    "gaussian.window+top_k.gated",
)  # fmt: skip
# Kind of a task, and the lag of a copied string less the horizon; other lags are drawn.
TASKS = {
    "needle": ("needle", None),
    "recall": ("recall", None),
    "copy-within": ("copy", -3),
    "copy-beyond": ("copy", 1),
}
PRESETS = {  # length of a sequence, and the model: a third of the lags is beyond the horizon, or more
    "tiny": (24, Setting(layers=2, window=4, width=16, steps=8, batch_size=16, tested=256)),
    "small": (48, Setting(layers=3, window=8, width=32, steps=600, learning_rate=4e-3, tested=4096)),
    "large": (128, Setting(layers=4, window=12, width=64, steps=1500, learning_rate=3e-3, tested=16384)),
}


@dataclass(frozen=True)
class Job:
    """One model on one task.

    Attributes:
        preset: Of `PRESETS`.
        task: Of `TASKS`.
        arm: Of `ARMS`.
        seed: Of weights and sequences.
        deadline: Of `time.time`: no run begins after it.
    """

    preset: str
    task: str
    arm: str
    seed: int
    deadline: float

    @property
    def name(self) -> str:
        """Of the run."""
        return f"{self.preset}-{self.task}-{self.arm}-{self.seed}"


def carry_out(job: Job) -> dict[str, list[dict[str, Any]]] | None:
    """Rows of the tables, or ``None`` where the time did not reach."""
    if time.time() >= job.deadline:
        return None
    import torch

    from evidence.long_range.training import counted, influence, model_of, train

    torch.set_num_threads(1)
    length, setting = PRESETS[job.preset]
    kind, offset = TASKS[job.task]
    task = Task(kind, length=length, lag=None if offset is None else setting.horizon + offset)
    begin = time.time()
    model = model_of(task, job.arm, setting, job.seed).to("cuda" if torch.cuda.is_available() else "cpu")
    fresh = influence(model, task)
    train(task, model, setting, 1000 + job.seed)
    right, asked = counted(task, model, setting, 2000 + job.seed)
    trained = influence(model, task)
    last = setting.horizon + 1
    row = {
        "run": job.name, "preset": job.preset, "task": job.task, "arm": job.arm, "seed": job.seed,
        "layers": setting.layers, "window": setting.window, "length": length, "horizon": setting.horizon,
        "steps": setting.steps, "chance": task.chance, "gradient_at_horizon": float(fresh[last - 1]),
        "gradient_beyond": float(torch.maximum(fresh, trained)[last:].max()), "seconds": time.time() - begin,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    lags = [
        {"run": job.name, "lag": lag, "right": int(right[lag]), "asked": int(asked[lag])}
        for lag in range(length) if asked[lag]
    ]  # fmt: skip
    return {"results": [row], "answers": lags}


def carry_out_all(jobs: Iterable[Job], out: Path, count: int) -> None:
    """Run what is not known, and write the tables as runs end."""
    known = {row["run"] for folder in (logs.FOLDER, out) for row in logs.read(folder, "long_range", "results")}
    with workers(count) as pool:
        futures = {pool.submit(carry_out, job): job for job in jobs if job.name not in known}
        for future in as_completed(futures):
            rows = future.result()
            for kind, new in (rows or {}).items():
                here = logs.read(out, "long_range", kind)
                logs.write(out, "long_range", kind, [*here, *new])
            words = f"{rows['results'][0]['seconds']:.0f} s" if rows else "later"
            say(f"{futures[future].name}: {words}")


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
