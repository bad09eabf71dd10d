"""Whole training steps on one core: Krause attention against the same model with torch's fused softmax attention.

    OMP_NUM_THREADS=1 python benchmarks/models_cpu.py               # the table that results/models_cpu.md keeps
    OMP_NUM_THREADS=1 python benchmarks/models_cpu.py --parts       # and where the time of a step goes

Models and peer are those of models_gpu.py, in float32. Steps of both sides alternate; the ratio is the median of the
ratios of neighbours, and processor time is counted, so that a busy machine changes it little.
"""

import argparse
import statistics
import time

import torch
from _report import machine, table
from models_gpu import MODELS, Model
from torch.profiler import ProfilerActivity, profile

CASES = {"KViT-S 8x8": 8, "KViT-S/16 14x14": 2, "KARM MNIST": 1, "LM 100M": 1}  # batches


def step_of(name, krause, batch):
    """One step: forward, backward, AdamW."""
    torch.manual_seed(0)
    _, _, _, n, _, vocabulary, hearing = MODELS[name]
    model, pictures = Model(name, krause), "grid" in hearing
    given = torch.randn(batch, n - 1, 48) if pictures else torch.randint(vocabulary, (batch, n))
    target = torch.randint(vocabulary, (batch,) if pictures else (batch, n))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)

    def step():
        loss = model(given, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def seconds(step):
    """Processor time of a step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def pairs(steps, rounds):
    """Times of alternating steps, after two that warm up."""
    for step in steps * 2:
        step()
    found = []
    for i in range(rounds):
        order = (0, 1) if i % 2 else (1, 0)
        times = {at: seconds(steps[at]) for at in order}
        found.append((times[0], times[1]))
    return found


def parts(step):
    """The largest shares of a step, in milliseconds by operator."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        for _ in range(3):
            step()
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)[:14]
    return [(event.key, event.self_cpu_time_total / 3e3, event.count // 3) for event in events]


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--parts", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in asked.models:
        steps = [step_of(name, krause, CASES[name]) for krause in (True, False)]
        found = pairs(steps, asked.rounds)
        ratios = sorted(krause / softmax for krause, softmax in found)
        quarter = len(ratios) // 4
        rows.append(
            (
                name, CASES[name], *(1e3 * statistics.median(x) for x in zip(*found, strict=True)),
                f"{statistics.median(ratios):.3f}", f"{ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}",
            )
        )  # fmt: skip
        for step, side in zip(steps, ("Krause", "softmax"), strict=True) if asked.parts else ():
            print(f"\n{name}, {side}\n\n" + table(("operator", "ms", "calls"), parts(step)))
    header = ("model", "batch", "Krause, ms", "softmax, ms", "ratio", "middle half of the ratios")
    print("\n" + table(header, rows) + f"\n\n{machine('torch', 'numba')}")


if __name__ == "__main__":
    main()
