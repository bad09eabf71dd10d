"""Measures of a part of the data, and what a whole run is summed up by."""

from __future__ import annotations

import importlib.metadata
import platform
from statistics import median
from typing import Any

import torch
from torch import distributed

from krause_dynamics._version import __version__
from krause_dynamics.models import cost
from krause_dynamics.training.tasks import Task

VERSIONS = ("torch", "transformers", "accelerate", "numpy")


@torch.no_grad()
def measured(
    model: Any, task: Task, part: str, *, batch_size: int, limit: int | None, bfloat16: bool, rank: int, world: int
) -> dict[str, float]:
    """Measures of a part by a model as it is; several processes share the examples.

    Args:
        model: In training or not; left in evaluation.
        task: Holds the examples.
        part: ``validation`` or ``test``.
        batch_size: Examples at a time.
        limit: Only the first ones.
        bfloat16: Autocast.
        rank: Of this process.
        world: Number of processes.
    """
    model.eval()
    device = next(model.parameters()).device
    rows = torch.arange(min(task.sizes[part], limit or task.sizes[part]), device=device)[rank::world]
    total: Any = 0
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        if not len(rows):  # fewer examples than processes: this one adds nothing, but what is summed up has its shape
            total = 0.0 * task.sums(model, part, torch.zeros(1, dtype=torch.long, device=device))
        for some in rows.split(batch_size) if len(rows) else ():
            total = total + task.sums(model, part, some)
    if world > 1:
        distributed.all_reduce(total)
    return task.numbers(total)


@torch.no_grad()
def predicted(model: Any, task: Task, part: str, *, batch_size: int, bfloat16: bool) -> Any:
    """What the model says about each example of a part, in their order; ``None`` where that is no small number."""
    model.eval()
    device = next(model.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        rows = torch.arange(task.sizes[part], device=device).split(batch_size)
        found = [task.answers(model, part, some) for some in rows]
    return torch.cat([x for x in found if x is not None]).cpu().numpy() if found[0] is not None else None


def versions() -> dict[str, str]:
    """Of what computed the numbers."""
    found = {name: importlib.metadata.version(name) for name in VERSIONS}
    return {"krause_dynamics": __version__, "python": platform.python_version(), **found}


def machine(device: torch.device) -> str:
    """Name of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def seconds_a_step(rows: list[dict[str, Any]]) -> float:
    """Median over the epochs, each with its first steps, which compile and capture, in the first."""
    ends = [(row["step"], row["seconds"]) for row in rows if row["split"] == "train"]
    begins = [0, *(step for step, _ in ends)]
    return median(seconds / (step - begin) for (step, seconds), begin in zip(ends, begins, strict=False))


def costs(model: Any, task: Task) -> dict[str, int]:
    """Weights, and multiply-adds of a pass over one example."""
    model.eval()
    row = torch.zeros(1, dtype=torch.long, device=next(model.parameters()).device)
    inputs = {name: x for name, x in task.inputs(row).items() if name != "labels"}
    found = cost(model, inputs, repeats=1)
    return {
        "multiply_adds_executed": found.executed, "multiply_adds_useful": found.useful,
        "multiply_adds_between_tokens": found.interaction,
    }  # fmt: skip


def weights(model: Any) -> dict[str, int]:
    """How many weights, and how many of them are learned."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return {"parameters": sum(n for n, _ in sizes), "trained_parameters": sum(n for n, learns in sizes if learns)}
