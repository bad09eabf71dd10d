"""What each kernel of a backward pass takes, of this checkout or of one before the rooms were laid out anew.

    python benchmarks/backward_kernels_gpu.py [CHECKOUT]

The tensors of `attention_gpu.py` (256 heads of 4096 tokens, head dimension 64, bfloat16), two windows with top-k;
medians of 40 passes in microseconds, from the profiler. Two uses: a key bias of one's own, whose gradient is asked
for, and a distance, as layers with a Gaussian score call it: there the gradient of the norms was a launch of its own
at 5d08bbf and belongs to the kernel of keys now.
"""

import importlib
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent.parent
ROOT = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else HERE
sys.path[:0] = [str(ROOT), str(HERE / "benchmarks")]
from _report import table  # noqa: E402

SCALE = 1 / 16
BEFORE = (ROOT / "krause_dynamics" / "fused").is_dir()
launch = importlib.import_module(f"krause_dynamics.{'fused' if BEFORE else 'forms.attention'}.triton.launch")


def rule(width, top_k):
    """Keyword arguments of the window."""
    where = {"left": width - 1, "right": 0, "top_k": top_k}
    return where if BEFORE else importlib.import_module("tests.triton_oracle").launched(**where)


def passes(width, top_k):
    """(use, backward pass) of one window."""
    g = torch.Generator(device="cuda").manual_seed(0)
    q, k, v, grad = (torch.randn(1, 256, 4096, 64, device="cuda", generator=g).bfloat16() for _ in range(4))
    bias, where = -k.float().square().sum(-1) * SCALE / 2, rule(width, top_k)
    saved = launch.forward(q, k, v, scale=SCALE, key_bias=bias, **where)
    common = {"scale": SCALE, "key_bias": bias, "need_scale": False, **where}

    def own():
        return launch.backward(grad, q, k, v, *saved, **common)

    def distance():
        if not BEFORE:
            return launch.backward(grad, q, k, v, *saved, **common, distance=True, need_key_bias=False)
        terms = importlib.import_module("krause_dynamics.fused.triton.terms")
        found = own()
        return terms.add_key_gradient(found[1], found[3], k, SCALE, need_scale=False)

    return ("a bias of one's own", own), ("a distance", distance)


def kernels(call):
    """Median microseconds by kernel."""
    for _ in range(5):
        call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        for _ in range(40):
            call()
        torch.cuda.synchronize()
    found = defaultdict(list)
    for event in profiled.events():
        if "kernel" in event.name:
            found[event.name].append(event.device_time_total)
    return {name: statistics.median(times) for name, times in found.items()}


def main():
    """Print the table."""
    rows, names = [], ("backward_queries_kernel", "backward_keys_kernel", "repair_kernel", "key_gradient_kernel")
    for width, top_k in ((128, 96), (256, 192)):
        for use, call in passes(width, top_k):
            took = kernels(call)
            shown = (f"{took[name]:.1f}" if name in took else "-" for name in names)
            rows.append((f"W {width}, k {top_k}, {use}", *shown, f"{sum(took.values()):.1f}"))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {'before' if BEFORE else 'this checkout'}\n")
    print(table(("backward, us", *names, "all"), rows))


if __name__ == "__main__":
    main()
