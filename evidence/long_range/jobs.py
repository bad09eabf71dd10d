"""Models on tasks over a distance: what is trained, one after the other or in several processes at once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evidence import logs
from evidence.long_range.presets import PRESETS, TASKS
from evidence.pool import say, workers


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

    from evidence.long_range.tasks import Task
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
