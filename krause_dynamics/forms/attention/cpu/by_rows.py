"""Banded attention on the CPU row by row: for few queries, short or ragged rows, and inputs that hold NaN."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import Call, Gradients, score_dtype
from krause_dynamics.forms.attention.cpu.layout import Arrays, Layout
from krause_dynamics.forms.attention.cpu.prepare import Sums, array, packed, prepare, spread

THREAD_ROWS = 256  # fewer rows than this are not worth a second thread


@lru_cache(maxsize=1)
def _kernels() -> Any:
    return importlib.import_module(
        "krause_dynamics.forms.attention.cpu.rows"
    )  # numba takes a second to import: on first use


def _longest(call: Call, layout: Layout, arrays: Arrays) -> int:
    m = arrays.k.shape[1]
    return m if layout.wide_rows else max(1, call.reach.row_length(m))


def forward(call: Call, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """See `engine.forward`."""
    # Masses, biases and grids count keys from the first of the call.
    alone = call.log_mass is None and call.pair_bias is None and not call.reach.grid
    layout, arrays = prepare(call, stretch=alone)
    (batch, heads, n, _), dtype = call.q.shape, score_dtype(call.q)
    out = torch.empty(batch * heads, n, call.v.shape[3], dtype=dtype)
    log_partition = torch.empty(batch * heads, n, dtype=dtype)
    bits = packed(call, layout, save)
    results, longest = (out.numpy(), log_partition.numpy(), bits.numpy()), _longest(call, layout, arrays)

    def run(begin: int, end: int) -> None:
        scratch = np.empty((2, longest), arrays.q.dtype)
        _kernels().forward((begin, end), layout, arrays, call.dropout, scratch, *results)

    spread(run, batch * heads * n, THREAD_ROWS)
    return out.view(batch, heads, n, -1).to(call.q.dtype), log_partition.view(batch, heads, n), bits


def backward(call: Call, log_partition: Tensor, selection: Tensor, grad_out: Tensor, grad_log: Tensor) -> Gradients:
    """See `engine.backward`."""
    layout, arrays = prepare(call)
    n, dtype, kv_heads = call.q.shape[2], score_dtype(call.q), len(arrays.k)
    given = array(log_partition, dtype), selection.numpy(), array(grad_out, dtype), array(grad_log, dtype)
    sums, longest = Sums(call, arrays), _longest(call, layout, arrays)

    def run(begin: int, end: int) -> None:
        scratch = np.empty((4, longest), arrays.q.dtype)
        _kernels().backward(
            (begin, end), layout, arrays, call.dropout, scratch, *given, (*sums.vectors, sums.scale), sums.mass,
            sums.pair,
        )  # fmt: skip

    spread(run, kv_heads, 1 if n >= THREAD_ROWS else kv_heads)
    return sums.gradients()
