"""Which kernels a captured training step of a tiny ViT spends its time in.

    python benchmarks/training_profile_gpu.py

ViT-Ti on 28 x 28 pictures, batch 256, softmax: wall time of a replayed step, number of kernels, their time, the
longest of them.
"""

import tempfile
from pathlib import Path

import torch
from _report import table
from training_gpu import CASES, SIZES, data, model_of, tables, timed

from krause_dynamics.models import parameter_groups
from krause_dynamics.training import TrainingConfiguration, loop
from krause_dynamics.training.split import found_in, task_of
from krause_dynamics.training.step import TrainingStep

NAME = "ViT-Ti 28x28 softmax"


def main():
    """Print the table."""
    device, side = torch.device("cuda"), CASES[NAME][1]
    with tempfile.TemporaryDirectory() as folder:
        data(Path(folder), side, SIZES["examples"])
        configuration = TrainingConfiguration.read(tables(NAME, folder, SIZES))
        task = task_of(configuration, found_in(configuration.data), device)
    model = model_of(NAME, side, SIZES).to(device).train()
    step = TrainingStep(
        model, task, loop.optimizer_of(parameter_groups(model), 1e-3, device), [1e-3] * 2000, done=0,
        batch_size=SIZES["batch"], clip=1.0, bfloat16=True, capture=True,
    )  # fmt: skip
    rows = torch.arange(SIZES["batch"], device=device)
    step(rows)
    print(f"{torch.cuda.get_device_name()}: {timed(lambda: step(rows), 50):.2f} ms a step\n")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        step(rows)
        torch.cuda.synchronize()
    found = [(e.self_device_time_total / 1e3, e.count, e.key[:90]) for e in profiled.key_averages()]
    print(f"{sum(e[1] for e in found)} kernels, {sum(e[0] for e in found):.2f} ms\n")
    print(table(("ms", "times", "kernel"), [(f"{ms:.3f}", count, name) for ms, count, name in sorted(found)[:-15:-1]]))


if __name__ == "__main__":
    main()
