"""Time and memory of attention against the number of tokens, and the figure of it.

    python benchmarks/attention_growth.py measure --device cpu --out benchmarks/results/attention_growth_cpu.json
    python benchmarks/attention_growth.py measure --device cuda --out benchmarks/results/attention_growth_cuda.json
    python benchmarks/attention_growth.py plot benchmarks/results/attention_growth_c*.json --figure FILE

Forward pass, batch 1, 8 heads, window 128, top 96. CPU: one thread, float32, head dimension 32, processor time; GPU:
bfloat16, head dimension 64, CUDA events. Memory is what a call allocates beyond its inputs: counted by the allocator
of torch on the GPU, by the rise of the resident peak on the CPU (Linux).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from krause_dynamics.nn import krause_attention

Tensor = torch.Tensor
WINDOW, TOP_K = 128, 96
LABELS = {"krause": "window and top-k (ours)", "sdpa": "causal softmax (torch)", "published": "published dense form"}


def published(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All N x N distances, mask, `topk` scattered into a second N x N array, softmax: as the published code does it."""
    n, i = q.shape[2], torch.arange(q.shape[2], device=q.device)
    scores = -0.08 * (q.square().sum(-1)[..., None] + k.square().sum(-1)[..., None, :] - 2 * q @ k.mT)
    scores = scores.masked_fill((i > i[:, None]) | (i < i[:, None] - WINDOW + 1), -torch.inf)
    best = scores.topk(min(TOP_K, n), dim=-1)
    return torch.full_like(scores, -torch.inf).scatter(-1, best.indices, best.values).softmax(-1) @ v


LOOKS = {
    "krause": {"color": "C0", "marker": "o"},
    "sdpa": {"color": "0.3", "marker": "s", "linestyle": "--"},
    "published": {"color": "C1", "marker": "^", "linestyle": "-."},
}


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "krause": lambda q, k, v: krause_attention(q, k, v, sigma=2.5, window=WINDOW, top_k=TOP_K),
    "sdpa": lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    "published": published,
}
LONGEST = {
    "cpu": {"krause": 65536, "sdpa": 8192, "published": 4096},
    "cuda": {"krause": 1 << 20, "sdpa": 65536, "published": 16384},
}


def seconds(run: Callable[[], object], device: str, repeats: int) -> float:
    run()
    times = []
    for _ in range(repeats):
        if device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            times.append(1e-3 * begin.elapsed_time(end))
        else:
            start = time.process_time()
            run()
            times.append(time.process_time() - start)
    return statistics.median(times)


def mebibytes(run: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    run()
    return (_resident("VmHWM") - before) / 1024


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def measure(device: str, out: Path) -> None:
    torch.set_num_threads(1)
    dtype, dim = (torch.bfloat16, 64) if device == "cuda" else (torch.float32, 32)
    name = torch.cuda.get_device_name() if device == "cuda" else _processor()
    rows = []
    for form, run in FORMS.items():
        n = 1024
        while n <= LONGEST[device][form]:
            q, k, v = (torch.randn(1, 8, n, dim, device=device, dtype=dtype) for _ in range(3))
            with torch.no_grad():
                call = lambda run=run, q=q, k=k, v=v: run(q, k, v)  # noqa: E731
                repeats = 1 if form == "published" and device == "cpu" else 5
                row = {
                    "form": form,
                    "tokens": n,
                    "seconds": seconds(call, device, repeats),
                    "mebibytes": mebibytes(call, device),
                }
            rows.append(row)
            print(f"{device} {form:10} N={n:8} {1e3 * row['seconds']:10.2f} ms {row['mebibytes']:9.1f} MiB", flush=True)
            n *= 2
    out.parent.mkdir(parents=True, exist_ok=True)
    about = {"device": device, "name": name, "torch": torch.__version__, "window": WINDOW, "top_k": TOP_K}
    out.write_text(json.dumps({**about, "heads": 8, "dim": dim, "dtype": str(dtype), "rows": rows}, indent=1) + "\n")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return (
        next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.machine()) + ", 1 thread"
    )


def plot(results: list[Path], figure: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from krause_dynamics import plots

    runs = [json.loads(path.read_text()) for path in results]
    with plots.style():
        panels, axes = plt.subplots(2, len(runs), figsize=(4.8 * len(runs), 6.4), sharex="col", squeeze=False)
        for column, run in zip(axes.T, runs, strict=True):
            for form, look in LOOKS.items():
                rows = [r for r in run["rows"] if r["form"] == form]
                tokens = [r["tokens"] for r in rows]
                line = look | {"markersize": 4, "label": LABELS[form]}
                column[0].loglog(tokens, [1e3 * r["seconds"] for r in rows], **line)
                column[1].loglog(tokens, [max(r["mebibytes"], 0.5) for r in rows], **line)
            name = run["name"].replace("(R)", "").replace(" Processor", "")
            column[0].set_title(
                f"{name}, {run['heads']} heads of {run['dim']}, {run['dtype'].split('.')[1]}", fontsize=10
            )
            column[1].set_xlabel("tokens N")
        axes[0, 0].set_ylabel("forward pass (ms)")
        axes[1, 0].set_ylabel("memory beyond the inputs (MiB)")
        panels.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        heard = f"window {runs[0]['window']}, the nearest {runs[0]['top_k']} of it are heard"
        panels.suptitle(f"{heard} (lines end where measuring ended)")
        kept = {"made by": "benchmarks/attention_growth.py plot", "results": [path.name for path in results]}
        plots.save_figure(panels, figure, kept | {"runs": runs})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring, plotting = commands.add_parser("measure"), commands.add_parser("plot")
    measuring.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    measuring.add_argument("--out", type=Path, required=True)
    plotting.add_argument("results", type=Path, nargs="+")
    plotting.add_argument("--figure", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "measure":
        measure(arguments.device, arguments.out)
    else:
        plot(arguments.results, arguments.figure)


if __name__ == "__main__":
    main()
