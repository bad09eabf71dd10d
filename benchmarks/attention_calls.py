"""What one call costs on a GPU when sequences are short: the host's share, beside torch's attention in the same run.

    python benchmarks/attention_calls.py

bfloat16, head dimension 64, Gaussian score with sigma 4, W = 32, k = 16 (and W = 128, k = 96 where a row can hear that
many). Microseconds a call by the wall clock, many calls in a row: "eager" as written in a program, "graph" replayed
from a captured CUDA graph, where only the device counts. Prints what results/attention_calls_h200.md keeps.
"""

import statistics
import sys
import time
from pathlib import Path

import torch
import triton

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from krause_dynamics.nn import KrauseAttention, krause_attention  # noqa: E402

SIZES = [(8, 197), (8, 1024), (8, 4096), (64, 197), (64, 1024), (64, 4096), (8, 64)]
NARROW, WIDE = {"window": 32, "top_k": 16}, {"window": 128, "top_k": 96}


def krause(options):
    return lambda q, k, v: krause_attention(q, k, v, sigma=4.0, **options)


def sdpa(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def tokens(units, n, *, grad=False):
    """q, k, v of batch x heads = units, 8 heads."""
    g = torch.Generator(device="cuda").manual_seed(0)
    return [
        torch.randn(units // 8, 8, n, 64, device="cuda", generator=g).bfloat16().requires_grad_(grad) for _ in range(3)
    ]


def microseconds(call, repeats=60):
    """Median of three rounds; the first calls of a signature compile, and record what later ones repeat."""
    for _ in range(4):
        call()
    rounds = []
    for _ in range(3):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
        rounds.append(1e6 * (time.perf_counter() - begin) / repeats)
    return statistics.median(rounds)


def captured(call):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        call()
    return graph.replay


def training_step(attend, q, k, v, *parameters):
    ones = torch.ones_like(q)
    return lambda: torch.autograd.grad(attend(q, k, v), [q, k, v, *parameters], ones)


def calls():
    print("batch x heads, N | form | forward eager, graph | forward + backward eager, graph", flush=True)
    for units, n in SIZES:
        forms = {"W 32, k 16": krause(NARROW), "W 128, k 96": krause(WIDE), "causal SDPA": sdpa}
        for name, attend in forms.items():
            if n < 128 and attend is forms["W 128, k 96"]:
                continue
            x, y = tokens(units, n), tokens(units, n, grad=True)
            step = training_step(attend, *y)
            forward = microseconds(lambda x=x, f=attend: f(*x)), microseconds(captured(lambda x=x, f=attend: f(*x)))
            both = microseconds(step, 30), microseconds(captured(step))
            print(
                f"{units:3d}, {n:5d} | {name:11s} | {forward[0]:6.1f} {forward[1]:6.1f} | {both[0]:6.1f} {both[1]:6.1f}"
            )
            sys.stdout.flush()


def variants():
    """More in one call, at batch x heads = 8, N = 1024, W = 32."""
    x, y = tokens(8, 1024), tokens(8, 1024, grad=True)
    log_sigma = torch.zeros(8, device="cuda", requires_grad=True)
    valid = torch.ones(1, 1024, dtype=torch.bool, device="cuda")
    compiled = torch.compile(krause(NARROW))
    one = {
        "with padding": lambda: krause_attention(*x, sigma=4.0, key_valid=valid, **NARROW),
        "with the log-partition": lambda: krause_attention(*x, sigma=4.0, return_log_partition=True, **NARROW),
        "learned sigma per head, forward + backward": training_step(
            lambda q, k, v: krause_attention(q, k, v, sigma=log_sigma.exp() * 4, **NARROW), *y, log_sigma
        ),
        "torch.compile, forward": lambda: compiled(*x),
        "torch.compile, forward + backward": training_step(compiled, *y),
    }
    for name, call in one.items():
        print(f"{name}: {microseconds(call, 30):.1f}", flush=True)


@torch.no_grad()
def decoding():
    """One token through KrauseAttention layers (8 heads, W = 128, k = 96, batch 1) with a static cache."""
    for layers, dim in ((1, 256), (2, 256), (2, 1024)):
        stack = [KrauseAttention(dim, 8, **WIDE).cuda().bfloat16() for _ in range(layers)]
        x = torch.randn(1, 1, dim, device="cuda", dtype=torch.bfloat16)
        times = []
        for static in (False, True):
            caches = [layer.new_cache(static=static) for layer in stack]

            def step(x=x, stack=stack, caches=caches):
                for layer, cache in zip(stack, caches, strict=True):
                    x = x + layer(x, cache=cache)
                return x

            for _ in range(130):  # until the window is full
                step()
            times.append(microseconds(captured(step) if static else step))
        print(
            f"decoding, {layers} layers, dim {dim}: eager {times[0]:.1f}, captured {times[1]:.1f} a token", flush=True
        )


def check():
    """Error against the definition in float64 before anything is timed."""
    x = tokens(8, 197)
    for options in (NARROW, WIDE):
        exact = krause_attention(*(t.double() for t in x), sigma=4.0, impl="reference", **options)
        error = (krause(options)(*x).double() - exact).norm() / exact.norm()
        assert error < 4e-3, error
        print(f"{options}: relative error {error:.1e}")


if __name__ == "__main__":
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
    check()
    calls()
    decoding()
    variants()
