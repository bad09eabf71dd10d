"""Which kernels a captured training step of a tiny ViT spends its time in, as it is and compiled.

    python benchmarks/training_profile_gpu.py                                       # softmax
    python benchmarks/training_profile_gpu.py --case "ViT-Ti 28x28 full rule" --compile
    python benchmarks/training_profile_gpu.py --smoke --compile                     # on the CPU: no figures

A replayed step of 256 pictures: wall time, number of kernels, their time, the longest of them. With ``--compile`` the
same of a step that `torch.compile` fused (`training.compile`), what its start took, and the ratio; before that the
losses of the first steps of both are compared, which draw the same random numbers.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from _report import table
from training_gpu import CASES, SIZES, SMOKE, data, model_of, tables, timed

from krause_dynamics.models import parameter_groups
from krause_dynamics.training import TrainingConfiguration, loop
from krause_dynamics.training.split import found_in, task_of
from krause_dynamics.training.step import TrainingStep

CUDA = torch.cuda.is_available()
COMPARED = 5  # steps


def step_of(name, sizes, compiled):
    """A training step, captured where there is a GPU; its first losses, and the seconds to the first of them."""
    device, side = torch.device("cuda" if CUDA else "cpu"), CASES[name][1]
    with tempfile.TemporaryDirectory() as folder:
        data(Path(folder), side, sizes["examples"])
        configuration = TrainingConfiguration.read(tables(name, folder, sizes))
        task = task_of(configuration, found_in(configuration.data), device)
    torch.manual_seed(0)
    model = model_of(name, side, sizes).to(device).train()
    called = torch.compile(model, dynamic=False, options={"fallback_random": True}) if compiled else model
    step = TrainingStep(
        called, task, loop.optimizer_of(parameter_groups(model), 1e-3, device), [1e-3] * 2000, done=0,
        batch_size=sizes["batch"], clip=1.0, bfloat16=CUDA, capture=CUDA,
    )  # fmt: skip
    rows = torch.arange(sizes["batch"], device=device)
    torch.manual_seed(1)
    begin = time.perf_counter()
    losses = [step(rows).item()]
    start = time.perf_counter() - begin
    losses += [step(rows).item() for _ in range(COMPARED - 1)]
    return lambda: step(rows), losses, start


def show(words, step, start, steps):
    """Print what a step takes; returns its milliseconds."""
    took = timed(step, steps)
    print(f"\n{words}: {took:.2f} ms a step, {start:.1f} s to the end of the first")
    if not CUDA:
        return took
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    found = [(e.self_device_time_total / 1e3, e.count, e.key[:90]) for e in profiled.key_averages()]
    print(f"{sum(e[1] for e in found)} kernels, {sum(e[0] for e in found):.2f} ms\n")
    print(table(("ms", "times", "kernel"), [(f"{ms:.3f}", count, name) for ms, count, name in sorted(found)[:-15:-1]]))
    return took


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default="ViT-Ti 28x28 softmax", choices=list(CASES))
    parser.add_argument("--compile", action="store_true", help="also the compiled step, and the ratio")
    parser.add_argument("--smoke", action="store_true", help="small sizes, on any machine")
    options = parser.parse_args()
    sizes, steps = (SMOKE, 2) if options.smoke else (SIZES, 50)
    print(f"{torch.cuda.get_device_name() if CUDA else 'CPU'}, torch {torch.__version__}, {options.case}")
    step, losses, start = step_of(options.case, sizes, False)
    if not options.compile:
        show("as it is", step, start, steps)
        return
    fused, others, longer = step_of(options.case, sizes, True)
    off = max(abs(a - b) for a, b in zip(losses, others, strict=True))
    print(f"largest difference of the first {COMPARED} losses, from {losses[0]:.4f}: {off:.2g}")
    before, after = show("as it is", step, start, steps), show("compiled", fused, longer, steps)
    print(f"\ncompiled / as it is: {after / before:.3f}")


if __name__ == "__main__":
    main()
