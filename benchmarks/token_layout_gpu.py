"""What it costs the backward kernels that outputs and gradients lie by tokens, and what that saves a layer.

    python benchmarks/token_layout_gpu.py [128 256]

Windows as arguments (default: all three; compiling the kernels takes a minute). The tensors of `attention_gpu.py`:
256 heads of 4096 tokens, head dimension 64, bfloat16, where rows of one head lie 32 KiB apart once laid out by tokens;
five alternations, medians. A layer with tensors by heads copies the output before its projection, and the gradient of
the output and those of queries, keys and values on the way back: the last column is one such copy.
"""

import statistics
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
import attention_gpu as benchmark  # noqa: E402
from _report import table  # noqa: E402

from krause_dynamics.forms.attention.triton import backward as module  # noqa: E402

gradients_by_tokens = module.gradients_like


def gradients_by_heads(q, k, joint):
    """Empty gradients, rows of one head one after the other."""
    return (*(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, k)), None)


def main():
    """Print the table."""
    lines = []
    for width in [int(given) for given in sys.argv[1:]] or benchmark.CASES:
        top_k = benchmark.CASES[width]
        where, x = benchmark.window(width, top_k), benchmark.tokens("gauss", 1, 256, 4096)
        g, (out, *saved) = torch.randn_like(x[0]), benchmark.attend(x, where)
        outputs = {"tokens": out, "heads": out.contiguous()}
        layouts = {"tokens": gradients_by_tokens, "heads": gradients_by_heads}
        times = {(read, written): [] for read in outputs for written in layouts}
        for _ in range(5):
            for (read, written), found in times.items():
                module.gradients_like = layouts[written]
                given = (outputs[read], *saved)
                found.append(benchmark.bench(lambda: benchmark.gradients(x, given, g, where), rep=80))  # noqa: B023
        copy = benchmark.bench(lambda: out.contiguous(), rep=80)  # noqa: B023
        lines.append((f"W {width}, k {top_k}", *(f"{statistics.median(t):.3f}" for t in times.values()), f"{copy:.3f}"))
    heads = (f"output by {read}, gradients by {written}" for read, written in times)
    print(table(("backward, ms", *heads, "one copy"), lines))


if __name__ == "__main__":
    main()
