"""Attention over whole rows and long windows on the GPU, beside torch's kernels and beside dense code with a top-k.

    python benchmarks/attention_rows_gpu.py [--compile]

bfloat16, heads of 64 and 128, N = 4096. First the error against float64 at N = 1000, then medians, all in one run.
`--compile` only runs every kernel once, so that a later call finds them compiled.
"""

import math
import sys
from functools import partial
from pathlib import Path

import torch
import triton
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from krause_dynamics.forms.attention.triton import launch  # noqa: E402
from tests.triton_oracle import admitted, dense, launched  # noqa: E402

N = 4096
SCALE = 1 / 16
# Neighbourhood, head dimension, heads, key bias, whether FlexAttention is timed as well (it takes long to compile).
SOFTMAX = {
    "W = 128, bias": ({"left": 127, "right": 0}, 64, 256, True, True),
    "causal": ({"right": 0}, 64, 256, False, True),
    "causal, d = 128": ({"right": 0}, 128, 128, False, False),
    "W = 32, bias": ({"left": 31, "right": 0}, 64, 256, True, False),
    "W = 128": ({"left": 127, "right": 0}, 64, 256, False, False),
    "W = 512, bias": ({"left": 511, "right": 0}, 64, 256, True, False),
    "causal, bias": ({"right": 0}, 64, 256, True, False),
    "W = 128, bias, d = 128": ({"left": 127, "right": 0}, 128, 128, True, False),
}
TOP_K = {
    "W = 1024, k = 256": {"left": 1023, "right": 0, "top_k": 256},
    "causal, k = 64": {"right": 0, "top_k": 64},
    "W = 256, 4 prefix tokens, k = 64": {"left": 255, "right": 0, "prefix": 4, "top_k": 64},
}


def tokens(heads, n, d=64, *, bias=True):
    g = torch.Generator(device="cuda").manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, d, device="cuda", generator=g).bfloat16() for _ in range(3))
    return q, k, v, -k.float().square().sum(-1) * SCALE / 2 if bias else None


def attend(x, where):
    """The call, to be made: output, log-partition, selected set."""
    return partial(launch.forward, *x[:3], scale=SCALE, key_bias=x[3], **launched(**where))


def error(x, where):
    """Relative error of the output against float64 (rounding bfloat16 values alone gives 2e-3)."""
    expected = dense(*x[:3], scale=SCALE, key_bias=x[3], **where)[0]
    return ((attend(x, where)()[0].double() - expected).norm() / expected.norm()).item()


def flex(x, where):
    """The same rule and log-partition by FlexAttention."""
    q, k, v, bias = x
    left = where.get("left", N)
    mask = create_block_mask(lambda b, h, i, j: (j <= i) & (j >= i - left), None, None, q.shape[2], k.shape[2])
    score = None if bias is None else lambda s, b, h, i, j: s + bias[b, h, j]
    compiled = torch.compile(flex_attention)
    return lambda: compiled(q, k, v, block_mask=mask, score_mod=score, scale=SCALE, return_aux=AuxRequest(lse=True))


def dense_top_k(x, where):
    """What is written without a kernel: all scores, torch.topk, softmax, product."""
    q, k, v, bias = x
    rest = {name: value for name, value in where.items() if name != "top_k"}
    heard = admitted(q.shape[2], k.shape[2], device="cuda", **rest)

    def run():
        scores = ((q @ k.mT).float() * SCALE + bias[..., None, :]).masked_fill(~heard, -math.inf)
        top, place = torch.topk(scores, where["top_k"], dim=-1)
        return torch.zeros_like(scores).scatter_(-1, place, torch.softmax(top, -1)).to(v.dtype) @ v

    return run


def bench(call):
    return triton.testing.do_bench(call, warmup=8, rep=25, return_mode="median")


def sdpa(x):
    """Causal attention by two of torch's kernels."""
    call = partial(torch.nn.functional.scaled_dot_product_attention, *x[:3], is_causal=True)
    found = {}
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cuDNN", SDPBackend.CUDNN_ATTENTION)):
        with sdpa_kernel(backend):
            found[name] = bench(call)
    return found


def compile_all():
    for where, d, _, bias, peer in SOFTMAX.values():
        x = tokens(2, 512, d, bias=bias)
        attend(x, where)()
        if peer:
            flex(x, where)()
    for where in TOP_K.values():
        attend(tokens(2, 512), where)()


def main():
    if "--compile" in sys.argv:
        compile_all()
        return
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "triton", triton.__version__)
    print("16 heads, top-k: error against float64 | ms: ours, dense code with torch.topk (ratio)", flush=True)
    for name, where in TOP_K.items():
        wrong = error(tokens(2, 1000), where)
        x = tokens(16, N)
        ours, theirs = bench(attend(x, where)), bench(dense_top_k(x, where))
        print(f"{name:34s} {wrong:.1e} | {ours:.3f} {theirs:.3f} ({ours / theirs:.3f})", flush=True)
    print("no top-k: error against float64 | ms: ours, others (ratio)", flush=True)
    for name, (where, d, heads, bias, peer) in SOFTMAX.items():
        wrong = error(tokens(2, 1000, d, bias=bias), where)
        x = tokens(heads, N, d, bias=bias)
        ours = bench(attend(x, where))
        others = {"FlexAttention": bench(flex(x, where))} if peer else {}
        others |= sdpa(x) if where == {"right": 0} and not bias else {}
        words = "  ".join(f"{other} {t:.3f} ({ours / t:.2f})" for other, t in others.items())
        print(f"{name:24s} {wrong:.1e} | {ours:.3f}  {words}", flush=True)


if __name__ == "__main__":
    main()
