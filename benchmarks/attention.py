"""Krause attention against torch's own attention and the published dense form: time, memory, decoding.

    python benchmarks/attention.py                     # CPU, one thread: table on the screen
    python benchmarks/attention.py --out benchmarks/results/attention_cpu.md
    python benchmarks/attention.py --device cuda       # the GPU table (attention_gpu.py, whose options follow)

Correctness first: every configuration is compared with the definition before it is timed. Times are medians of
alternating runs, the smallest of some rounds. They are the processor time of the one thread: on an idle machine the
same as elapsed time, and unlike it not the neighbours' business.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numba
import torch

from krause_dynamics.interaction import Grid
from krause_dynamics.nn import KrauseAttention, krause_attention

Tensor = torch.Tensor
DIM, HEADS, WINDOW, TOP_K, SIGMA = 256, 8, 128, 96, 2.5


def published(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """All N x N distances, mask, `topk` scattered into a second N x N array, softmax: as the published code does it."""
    n = q.shape[2]
    squared = q.square().sum(-1)[..., None] + k.square().sum(-1)[..., None, :] - 2 * q @ k.mT
    scores = squared / (-2 * SIGMA**2)
    i = torch.arange(n)
    outside = (i > i[:, None]) | (i < i[:, None] - WINDOW + 1)
    scores = scores.masked_fill(outside, -torch.inf)
    kept = torch.full_like(scores, -torch.inf)
    best = scores.topk(min(TOP_K, n), dim=-1)
    return kept.scatter(-1, best.indices, best.values).softmax(-1) @ v


def causal_sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def with_top_k(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return krause_attention(q, k, v, sigma=SIGMA, window=WINDOW, top_k=TOP_K)


def window_only(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return krause_attention(q, k, v, sigma=SIGMA, window=WINDOW)


def tokens(n: int, heads: int = HEADS, dim: int = DIM // HEADS, grad: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, n, dim, generator=generator).requires_grad_(grad) for _ in range(3)]


def medians(*runs: Callable[[], object], repeats: int = 5, turns: int = 3) -> list[float]:
    """Median seconds of each run, taken in turn after one warm-up each; the smallest median of some rounds."""
    for run in runs:
        run()
    rounds: list[list[float]] = []
    for _ in range(turns if repeats > 1 else 1):
        times: list[list[float]] = [[] for _ in runs]
        for _ in range(repeats):
            for collected, run in zip(times, runs, strict=True):
                begin = time.process_time()
                run()
                collected.append(time.process_time() - begin)
        rounds.append([statistics.median(t) for t in times])
    return [min(column) for column in zip(*rounds, strict=True)]


def extra_mebibytes(run: Callable[[], object]) -> float:
    """Rise of the process's peak resident memory during a run (Linux)."""
    run()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory kept by the allocator would hide what the run needs
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def check() -> None:
    """The timed calls equal the definition in float64, and the published form away from ties."""
    q, k, v = (x.double() for x in tokens(300))
    reference = krause_attention(q, k, v, sigma=SIGMA, window=WINDOW, top_k=TOP_K, impl="reference")
    torch.testing.assert_close(with_top_k(q, k, v), reference, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(published(q, k, v), reference, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(with_top_k(q.float(), k.float(), v.float()).double(), reference, rtol=1e-3, atol=1e-4)


def growth(lengths: tuple[int, ...]) -> list[str]:
    rows = ["| N | top-k, ms | window only, ms | causal SDPA, ms | published, ms | top-k / SDPA | window / SDPA "
            "| top-k, MiB | SDPA, MiB | published, MiB |", "|" + "---|" * 10]  # fmt: skip
    measured = {}
    for n in lengths:
        q, k, v = tokens(n)
        runs = [lambda f=f, x=(q, k, v): f(*x) for f in (with_top_k, window_only, causal_sdpa)]
        few = n > 8192
        ours, window, *peer = medians(*runs[: 2 if few else 3])
        measured[n] = ours
        memory = [f"{extra_mebibytes(run):.0f}" for run in (runs[0], *runs[2 : 2 if few else 3])]
        dense, dense_memory = "-", "-"
        if n <= 4096:
            dense = f"{1e3 * medians(lambda x=(q, k, v): published(*x), repeats=1)[0]:.0f}"
            dense_memory = f"{extra_mebibytes(lambda x=(q, k, v): published(*x)):.0f}"
        sdpa = [f"{1e3 * peer[0]:.1f}", f"{ours / peer[0]:.2f}", f"{window / peer[0]:.2f}"] if peer else ["-"] * 3
        cells = [n, f"{1e3 * ours:.1f}", f"{1e3 * window:.1f}", sdpa[0], dense, *sdpa[1:], memory[0]]
        rows.append("| " + " | ".join(map(str, [*cells, memory[-1] if peer else "-", dense_memory])) + " |")
    rows += ["", f"time(4096) / time(1024), top-k: {measured[4096] / measured[1024]:.2f} (linear: 4)"]
    return rows


def training_step(n: int = 2048) -> str:
    q, k, v = tokens(n, grad=True)

    def step(f: Callable[..., Tensor]) -> None:
        f(q, k, v).sum().backward()

    ours, sdpa = medians(lambda: step(with_top_k), lambda: step(causal_sdpa))
    return (
        f"| forward + backward, N = {n} | {1e3 * ours:.1f} ms | {1e3 * sdpa:.1f} ms causal SDPA | {ours / sdpa:.2f} |"
    )


def picture() -> str:
    """KViT: 14 x 14 patches and CLS, 6 heads of 64, the 8 best of a 5 x 5 neighbourhood."""
    q, k, v = tokens(197, 6, 64)
    cell = torch.arange(196)
    near = torch.maximum((cell[:, None] // 14 - cell // 14).abs(), (cell[:, None] % 14 - cell % 14).abs()) <= 2
    mask = torch.ones(197, 197, dtype=torch.bool)
    mask[1:, 1:] = near

    def ours() -> Tensor:
        return krause_attention(q, k, v, sigma=4.5, grid=Grid(14, 14, radius=2, prefix=1), top_k=8)

    def masked() -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    a, b = medians(ours, masked, repeats=21)
    return f"| KViT, N = 197, 6 heads of 64, k 8 | {1e3 * a:.2f} ms | {1e3 * b:.2f} ms SDPA with a mask | {a / b:.2f} |"


def shapes() -> list[str]:
    """What else is asked for: other head sizes, windows, batches, bfloat16, and no window at all."""
    cases: list[tuple[tuple[int, int, int, int], torch.dtype, dict[str, Any]]] = [
        ((1, 8, 4096, 64), torch.float32, {"window": 32, "top_k": 16}),
        ((1, 8, 4096, 64), torch.float32, {"window": 128}),
        ((1, 8, 4096, 64), torch.bfloat16, {"window": 128, "top_k": 96}),
        ((1, 4, 4096, 128), torch.float32, {"window": 256, "top_k": 192}),
        ((8, 8, 512, 32), torch.float32, {"window": 32}),
        ((4, 8, 1024, 32), torch.float32, {"window": 128, "top_k": 96}),
        ((1, 8, 1024, 32), torch.float32, {"causal": True}),
        ((1, 8, 1024, 32), torch.float32, {"causal": True, "top_k": 32}),
    ]
    rows = ["", "| batch, heads, N, d | dtype | rule | ours, ms | causal SDPA, ms | ratio |", "|" + "---|" * 6]
    for shape, dtype, rule in cases:
        x = [torch.randn(shape, generator=torch.Generator().manual_seed(s)).to(dtype) for s in range(3)]
        ours, sdpa = medians(lambda x=x, r=rule: krause_attention(*x, sigma=SIGMA, **r), lambda x=x: causal_sdpa(*x))
        words = ", ".join(f"{name} {value}" for name, value in rule.items())
        kind = str(dtype).removeprefix("torch.")
        rows.append(f"| {shape} | {kind} | {words} | {1e3 * ours:.1f} | {1e3 * sdpa:.1f} | {ours / sdpa:.2f} |")
    return rows


@torch.no_grad()
def decoding(marks: tuple[int, ...] = (783, 10_000, 100_000)) -> list[str]:
    """Two layers of width 256 with residuals, one token at a time, against the eight projections alone."""
    layers = [KrauseAttention(DIM, HEADS, window=WINDOW, top_k=TOP_K).eval() for _ in range(2)]
    caches = [layer.new_cache() for layer in layers]
    generator = torch.Generator().manual_seed(0)

    def feed(count: int) -> None:
        x = torch.randn(1, count, DIM, generator=generator)
        for layer, cache in zip(layers, caches, strict=True):
            x = x + layer(x, cache=cache)

    def projections() -> None:
        x = torch.zeros(1, 1, DIM)
        for layer in layers:
            for projection in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj):
                x = projection(x)

    rows = ["", "| tokens so far | ms a token | projections alone, ms |", "|---|---|---|"]
    for mark in marks:
        while caches[0].seen < mark:
            feed(min(4096, mark - caches[0].seen))
        token, bare = medians(lambda: feed(1), projections, repeats=200, turns=7)
        rows.append(f"| {mark} | {1e3 * token:.2f} | {1e3 * bare:.2f} |")
    return rows


def machine() -> str:
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    flags = "AVX-512" if "avx512f" in Path("/proc/cpuinfo").read_text() else "no AVX-512"
    return (
        f"{model} ({flags}), {torch.get_num_threads()} thread, torch {torch.__version__}, numba {numba.__version__}, "
        f"Python {platform.python_version()}; float32, d = {DIM}, {HEADS} heads, W = {WINDOW}, k = {TOP_K} where "
        "nothing else is said"
    )


class _Both(io.TextIOBase):
    """What is printed, on the screen and in a file."""

    def __init__(self, *targets: IO[str]) -> None:
        self.targets = targets

    def write(self, text: str) -> int:
        for target in self.targets:
            target.write(text)
            target.flush()
        return len(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="also write the table here")
    parser.add_argument("--quick", action="store_true", help="lengths up to 4096 only, decoding up to 10 000 tokens")
    arguments, rest = parser.parse_known_args()
    if arguments.device == "cuda":
        sys.path.insert(0, str(Path(__file__).parent))
        import attention_gpu

        if not torch.cuda.is_available():
            parser.error("--device cuda needs a CUDA device, and torch sees none")
        sys.argv = [sys.argv[0], *rest]
        if arguments.out is None:
            attention_gpu.main()
            return
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with arguments.out.open("w") as file, contextlib.redirect_stdout(_Both(sys.stdout, file)):
            attention_gpu.main()
        return
    torch.set_num_threads(1)
    check()
    lines = ["# Attention on the CPU", "", machine(), ""]
    lines += growth((1024, 2048, 4096) if arguments.quick else (1024, 2048, 4096, 8192, 16384, 65536))
    lines += ["", "| case | ours | peer | ratio |", "|---|---|---|---|", training_step(), picture()]
    lines += shapes()
    lines += decoding((783, 10_000) if arguments.quick else (783, 10_000, 100_000))
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
