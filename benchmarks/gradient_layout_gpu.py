"""What it costs the backward kernels to lay gradients out by tokens, as a projection reads them, and not by heads.

    python benchmarks/gradient_layout_gpu.py [128 256]

Windows as arguments (default: all three; compiling the kernels takes a minute). The tensors of `attention_gpu.py`:
256 heads of 4096 tokens, head dimension 64, bfloat16; five alternations, medians.
"""

import statistics
import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
import attention_gpu as benchmark  # noqa: E402
from _report import table  # noqa: E402

from krause_dynamics.forms.attention.triton import backward as module  # noqa: E402

by_tokens = module.gradients_like


def by_heads(q, k, joint):
    """Empty gradients, rows of one head one after the other."""
    return (*(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, k)), None)


def main():
    """Print the table."""
    lines = []
    for width in [int(given) for given in sys.argv[1:]] or benchmark.CASES:
        top_k = benchmark.CASES[width]
        where, x = benchmark.window(width, top_k), benchmark.tokens("gauss", 1, 256, 4096)
        g, saved = torch.randn_like(x[0]), benchmark.attend(x, where)
        times = {by_tokens: [], by_heads: []}
        for _ in range(5):
            for layout, found in times.items():
                module.gradients_like = layout
                found.append(benchmark.bench(lambda: benchmark.gradients(x, saved, g, where), rep=80))  # noqa: B023
        tokens, heads = (statistics.median(found) for found in times.values())
        lines.append((f"W {width}, k {top_k}", f"{tokens:.3f}", f"{heads:.3f}", f"{tokens / heads:.3f}"))
    print(table(("backward", "by tokens, ms", "by heads, ms", "by tokens / by heads"), lines))


if __name__ == "__main__":
    main()
