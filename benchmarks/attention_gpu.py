"""Krause attention on the GPU: exactness and medians in one run; prints what results/attention_h200.md keeps.

    python benchmarks/attention_gpu.py [--tune]

Tokens x heads = 2^20, head dimension 64, bfloat16, Gaussian score with sigma 4, causal windows, unless a line says
otherwise. Kernels are compiled by processes of their own beforehand, side by side. `--tune` also times other tile
sizes.
"""
# ruff: noqa: B008, B023 - every closure is called in the iteration that made it

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import triton

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from krause_dynamics.forms.attention.triton import launch  # noqa: E402
from krause_dynamics.forms.attention.triton.launch import Tiles  # noqa: E402
from krause_dynamics.forms.attention.triton.replay import recorded  # noqa: E402
from tests.triton_oracle import admitted, dense, launched  # noqa: E402

TOKENS = 1 << 20
SIGMA = 4.0
SCALE = 1 / SIGMA**2
CASES = {32: 16, 128: 96, 256: 192}
VARIANTS = {
    32: [Tiles(16, 16, 1, 128), Tiles(16, 16, 1)],
    128: [Tiles(64, 64, 4), Tiles(64, 64, 4, 168), Tiles(64, 32, 4, 168)],
    256: [Tiles(64, 32, 4), Tiles(64, 64, 4)],
}


def bench(call, rep=40):
    return triton.testing.do_bench(call, warmup=10, rep=rep, return_mode="median")


def tokens(kind, batch, heads, n, d=64, dtype=torch.bfloat16, seed=0):
    """q, k, v and the Gaussian bias: normal, with one key in fifty 30 times longer, or eight distinct tokens."""
    g = torch.Generator(device="cuda").manual_seed(seed)
    q, k, v = (torch.randn(batch, heads, n, d, device="cuda", generator=g).to(dtype) for _ in range(3))
    if kind == "far":
        k = torch.where(torch.rand(batch, heads, n, 1, device="cuda", generator=g) < 0.02, k * 30, k)
    if kind == "eight":
        k = torch.randn(8, d, device="cuda", generator=g).to(dtype)[
            torch.randint(0, 8, (batch, heads, n), device="cuda", generator=g)
        ]
        q = k.clone()
    return q, k, v, -k.float().square().sum(-1) * SCALE / 2


def window(width, top_k):
    return {"left": width - 1, "right": 0, "top_k": top_k}


def attend(x, where, tiles=None):
    q, k, v, bias = x
    return launch.forward(q, k, v, scale=SCALE, key_bias=bias, tiles=tiles, **launched(**where))


def gradients(x, saved, g, where):
    q, k, v, bias = x
    return launch.backward(g, q, k, v, *saved, scale=SCALE, key_bias=bias, need_scale=False, **launched(**where))


def jobs():
    """Kernels to compile: (where, heads, n, tiles, what)."""
    listed = []
    for width, top_k in CASES.items():
        for tiles in VARIANTS[width] if "--tune" in sys.argv else [None]:
            listed.append((window(width, top_k), 2, 512, tiles, "forward"))
    listed += [(window(32, 16), 2, 512, None, "backward"), (window(128, None), 2, 512, None, "both")]
    listed += [(window(128, 96), 2, 512, None, "backward"), (window(256, 192), 2, 512, None, "backward")]
    listed.append(({"grid": (14, 14, 2, "chebyshev"), "prefix": 1, "top_k": 8}, 6, 197, None, "both"))
    listed.append(({"grid": (64, 64, 2, "chebyshev"), "top_k": 16}, 6, 4096, None, "both"))
    listed.append(({"grid": (64, 64, 2, "chebyshev")}, 6, 4096, None, "both"))
    return listed


def compile_one(where, heads, n, tiles, what):
    x = tokens("gauss", 1, heads, n)
    if what == "backward":
        shape = launch.selected_shape(x[0].shape, x[1].shape, **launched(**where))
        saved = (x[0], x[3], torch.zeros(shape, dtype=torch.int32, device="cuda"))
    else:
        saved = attend(x, where, tiles)
    if what != "forward":
        gradients(x, saved, x[0], where)
    torch.cuda.synchronize()


def compile_all():
    started = time.time()
    arguments = ["--tune"] if "--tune" in sys.argv else []
    running = []
    for number, job in enumerate(jobs()):
        errors = open(f"/tmp/attention_gpu_{number}.err", "w+")  # noqa: SIM115
        command = [sys.executable, __file__, *arguments, "--compile", str(number)]
        running.append((subprocess.Popen(command, stderr=errors), errors, job))
    for process, errors, job in running:
        try:
            code = process.wait(timeout=max(1.0, 150 - (time.time() - started)))
        except subprocess.TimeoutExpired:
            process.kill()
            code = -1
        if code:
            errors.seek(0)
            print("did not compile:", job, errors.read()[-300:], flush=True)
    print(f"{len(running)} sets of kernels compiled side by side in {time.time() - started:.0f} s", flush=True)


def check(where, tiles=None, n=1000, dtype=torch.bfloat16):
    """Rows with another set than the dense float32 definition, and errors of out and log-partition against float64."""
    words = []
    for kind in ("gauss", "far", "eight"):
        x = tokens(kind, 1, 2, n, dtype=dtype)
        out, z, selected = attend(x, where, tiles)
        expected, log_partition, keep = dense(*x[:3], scale=SCALE, key_bias=x[3], **where)
        rows = 0
        if where.get("top_k"):
            rows = (launch.selected_mask(selected, n, **launched(**where)) != keep).any(-1).sum().item()
        error = ((out.double() - expected).norm() / expected.norm()).item()
        words.append(f"{rows}/{error:.1e}/{(z - log_partition).abs().max().item():.0e}")
    return " ".join(words)


def tuned(width, top_k):
    """Best of the variants (set as the tabulated choice for the rest of the run)."""
    best, chosen = math.inf, None
    where = window(width, top_k)
    x = tokens("gauss", 1, 256, TOKENS // 256)
    for tiles in VARIANTS[width]:
        try:
            t = bench(lambda tiles=tiles: attend(x, where, tiles))
        except Exception as error:
            print(width, tiles, "failed", repr(error)[:150], flush=True)
            continue
        print(f"W={width} {tiles} {t:.3f} ms", flush=True)
        if t < best:
            best, chosen = t, tiles
    return chosen


def forward_table(chosen):
    print(
        "forward, ms: W k | gauss far eight | N=65536 N=1048576 | other sets/error out/error log Z (gauss, far, eight)"
    )
    for width, top_k in CASES.items():
        where, tiles = window(width, top_k), chosen.get(width)
        times = [
            bench(lambda x=tokens(kind, 1, 256, 4096): attend(x, where, tiles)) for kind in ("gauss", "far", "eight")
        ]
        times += [bench(lambda x=tokens("gauss", 1, TOKENS // n, n): attend(x, where, tiles)) for n in (65536, 1 << 20)]
        print(
            f"{width:4d} {top_k:4d} | " + " ".join(f"{t:.3f}" for t in times) + " | " + check(where, tiles), flush=True
        )


def backward_table(chosen):
    print("backward, ms: W k | backward, (forward + backward) / forward | relative errors dq dk dv dbias")
    for width, top_k in CASES.items():
        where, tiles = window(width, top_k), chosen.get(width)
        x = tokens("gauss", 1, 256, 4096)
        g = torch.randn_like(x[0])
        saved = attend(x, where, tiles)
        forward, backward = bench(lambda: attend(x, where, tiles)), bench(lambda: gradients(x, saved, g, where))
        x = tokens("gauss", 1, 2, 600)
        g = torch.randn_like(x[0])
        saved = attend(x, where, tiles)
        leaves = [t.clone().requires_grad_() for t in x]
        keep = launch.selected_mask(saved[2], 600, **launched(**where))
        out = dense(*leaves[:3], scale=SCALE, key_bias=leaves[3], chosen=keep, **where)[0]
        expected = torch.autograd.grad((out * g).sum(), leaves)
        found = gradients(x, saved, g, where)
        again = gradients(x, saved, g, where)
        same = all(torch.equal(a, b) for a, b in zip(found[:4], again[:4], strict=True))
        errors = " ".join(
            f"{((a.double() - b).norm() / b.norm()).item():.1e}" for a, b in zip(found[:4], expected, strict=True)
        )
        print(
            f"{width:4d} {top_k:4d} | {backward:.3f} {(forward + backward) / forward:.2f} "
            f"| {errors}, repeatable {same}",
            flush=True,
        )


def window_only():
    where = window(128, None)
    x = tokens("gauss", 1, 256, 4096)
    ours = bench(lambda: attend(x, where))
    print(f"window 128 without top-k {ours:.3f} ms, {check(where)}", flush=True)
    sdpa = bench(lambda: torch.nn.functional.scaled_dot_product_attention(*x[:3], is_causal=True))
    print(f"causal SDPA at 4096 {sdpa:.3f} ms", flush=True)
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    mask = create_block_mask(lambda b, h, i, j: (j <= i) & (j > i - 128), None, None, 4096, 4096, device="cuda")
    flex = torch.compile(flex_attention)
    q, k, v = (t.view(4, 64, 4096, 64) for t in x[:3])
    theirs = bench(lambda: flex(q, k, v, block_mask=mask))
    print(f"FlexAttention, same window {theirs:.3f} ms, ours / theirs {ours / theirs:.2f}", flush=True)


def published(q, k, v, mask, top_k):
    """Dense form of the published vision code: all pair differences, mask, top-k, softmax."""
    distance = (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)
    s = (-0.5 * SCALE * distance).masked_fill(~mask, -math.inf)
    place = torch.zeros_like(mask.expand_as(s)).scatter_(-1, s.topk(min(top_k, s.shape[-1]), -1).indices, True)
    return s.masked_fill(~place, -math.inf).softmax(-1) @ v


def attended(q, k, v, bias, where):
    """As `attend`, in the form whose host's share the library repeats."""
    return attend((q, k, v, bias), dict(where))


def differentiated(g, q, k, v, bias, out, log_partition, selected, where):
    return gradients((q, k, v, bias), (out, log_partition, selected), g, dict(where))


def captured(call, number=10):
    """Milliseconds a call in a captured graph of several: the GPU's share, without launches by the CPU."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(number):
            call()
    return bench(graph.replay) / number


def grids():
    print(
        "2-D, 6 heads of 64, ms, eager (in a captured graph): grid batch k | forward | backward | SDPA with mask "
        "| published dense form | rows with another set, error"
    )
    for side, prefix, batch, top_k in ((14, 1, 64, 8), (64, 0, 4, None), (64, 0, 4, 16)):
        n = side * side + prefix
        where = {"grid": (side, side, 2, "chebyshev"), "prefix": prefix, "top_k": top_k}
        x = tokens("gauss", batch, 6, n)
        saved = attend(x, where)
        g = torch.randn_like(x[0])
        mask = admitted(n, n, grid=where["grid"], prefix=prefix, device="cuda")
        rule = (tuple(where.items()),)
        times = " | ".join(
            f"{bench(call):.3f} ({captured(call):.3f})"
            for call in (
                lambda: recorded(attended, x, rule),
                lambda: recorded(differentiated, (g, *x, *saved), rule),
                lambda: torch.nn.functional.scaled_dot_product_attention(*x[:3], attn_mask=mask),
            )
        )
        small = [t[:1, :1] for t in x] if side == 64 else [t[:8] for t in x]
        out, _, selected = attend(small, where)
        expected, _, keep = dense(*small[:3], scale=SCALE, key_bias=small[3], **where)
        rows = (launch.selected_mask(selected, n, **launched(**where)) != keep).any(-1).sum().item() if top_k else 0
        error = ((out.double() - expected).norm() / expected.norm()).item()
        part = small[0].shape[0] * small[0].shape[1] / (batch * 6)
        dense_time = bench(lambda: published(*small[:3], mask, top_k or n)) / part
        print(
            f"{side} x {side} + {prefix}, {batch}, {top_k} | {times} | {dense_time:.2f} | {rows}, {error:.1e}",
            flush=True,
        )


def decoding():
    print("decode, one token in a captured graph, microseconds: W k, batch x heads | time | error against forward")
    for width, top_k, batch in ((128, 96, 1), (256, 192, 1), (128, 96, 64)):
        q, k, v, bias = tokens("gauss", batch, 8, width)
        q = q[:, :, -1:].contiguous()
        out, z = launch.decode(q, k, v, scale=SCALE, key_bias=bias, top_k=top_k)
        where = launched(**window(width, top_k), query_offset=width - 1)
        full = launch.forward(q, k, v, scale=SCALE, key_bias=bias, **where)[0]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(20):
                launch.decode(q, k, v, scale=SCALE, key_bias=bias, top_k=top_k, out=out, log_partition=z)
        t = bench(graph.replay) / 20 * 1000
        print(f"{width} {top_k}, {batch} x 8 | {t:.1f} | {(out - full).abs().max().item():.1e}", flush=True)


def memory():
    used = []
    for n in (65536, 131072):
        x = tokens("gauss", 1, 4, n)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        saved = attend(x, window(128, 96))
        gradients(x, saved, x[0], window(128, 96))
        used.append((torch.cuda.max_memory_allocated() - before) / 2**20)
        del saved, x
    print(
        f"extra memory of forward and backward at N = 65536, 131072 (4 heads): {used[0]:.0f}, {used[1]:.0f} MiB",
        flush=True,
    )


def copy_rate():
    """Terabytes read and written each second by a device copy."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / bench(lambda: target.copy_(source)) / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--compile", type=int, default=None)
    arguments = parser.parse_args()
    if arguments.compile is not None:
        compile_one(*jobs()[arguments.compile])
        os._exit(0)
    compile_all()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "triton", triton.__version__)
    rate = copy_rate()
    print(f"copy {rate:.2f} TB/s: reading q, k, v and writing out once takes {4 * TOKENS * 128 / rate / 1e9:.3f} ms")
    chosen = {width: tuned(width, top_k) for width, top_k in CASES.items()} if arguments.tune else {}
    for part in (lambda: forward_table(chosen), lambda: backward_table(chosen), decoding, memory, grids, window_only):
        try:
            part()
        except Exception as error:
            print("failed:", repr(error)[:400], flush=True)


if __name__ == "__main__":
    main()
