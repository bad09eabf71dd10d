"""Banded attention on the CPU row by row: for few queries, short or ragged rows, and inputs that hold NaN."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import Call, Gradients, score_dtype
from krause_dynamics.forms.attention.cpu.chunks import kernels
from krause_dynamics.forms.attention.cpu.layout import Given
from krause_dynamics.forms.attention.cpu.prepare import Sums, arrays_of, prepare, rows_of, spread

THREAD_ROWS = 256  # fewer rows than this are not worth a second thread


def forward(call: Call, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `engine.forward`."""
    outline, arrays = prepare(call)
    (batch, heads, n, _), dtype = call.q.shape, score_dtype(call.q)
    out = torch.empty(batch, n, heads, call.v.shape[3], dtype=dtype)
    log_partition = torch.empty(batch * heads, n, dtype=dtype)
    bits = torch.zeros(batch * heads, outline.bytes if save else 0, dtype=torch.uint8)
    results = out.flatten(0, 2).numpy(), log_partition.numpy(), bits.numpy()

    def run(begin: int, end: int) -> None:
        scratch = np.empty((2, outline.longest), arrays.q.dtype)
        kernels("rows").forward((begin, end), outline.layout, arrays, call.dropout, scratch, *results)

    spread(run, batch * heads * n, THREAD_ROWS)
    return out.transpose(1, 2).to(call.q.dtype), log_partition.view(batch, heads, n), bits


def backward(call: Call, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor) -> Gradients:
    """See `engine.backward`."""
    outline, arrays = prepare(call)
    n, kv_heads, sums = call.q.shape[2], call.k.shape[0] * call.k.shape[1], Sums(call)
    log_z, g_log = arrays_of(score_dtype(call.q), log_partition, grad_log)
    (g_out,), of_out = rows_of(score_dtype(call.q), grad_out)
    given = Given(log_z, selection.numpy(), g_log, g_out, of_out)

    def run(begin: int, end: int) -> None:
        scratch = np.empty((4, outline.longest), arrays.q.dtype)
        kernels("row_gradients").backward(
            (begin, end), outline.layout, arrays, call.dropout, scratch, given, tuple(sums.tokens), sums.steps,
            sums.scale, sums.mass, sums.pair,
        )  # fmt: skip

    spread(run, kv_heads, 1 if n >= THREAD_ROWS else kv_heads)
    return sums.gradients()
