"""FlexAttention for rules without a selection: a score and a mask function of the lowered call, compiled by torch.

It knows no top-k, and on the CPU it has no backward pass; it serves comparisons on GPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from krause_dynamics.forms.attention.lowering import UNBOUNDED, Lowered, Rule


def supports_tensors(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> str | None:
    """``None`` if FlexAttention computes a lowered call, else the reason."""
    if lowered.rule.top_k:
        return "FlexAttention has no top-k; impl='banded' and impl='triton' do"
    if lowered.dropout or lowered.segments is not None or lowered.pair_bias is not None:
        return "dropout, packed sequences and pair biases are not lowered to FlexAttention; impl='banded' takes them"
    if q.dtype == torch.float64:
        return "FlexAttention is not exact in float64; impl='reference' and impl='banded' are"
    if q.device.type != "cuda":
        return f"FlexAttention is lowered for CUDA tensors, got {q.device}; impl='banded' serves every device"
    return None


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled


def _mask_function(rule: Rule, offset: int) -> Callable[..., Tensor]:
    def admits(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        position = i + offset
        allowed = j >= 0
        if rule.left != UNBOUNDED:
            allowed = allowed & (j >= position - rule.left)
        if rule.right != UNBOUNDED:
            allowed = allowed & (j <= position + rule.right)
        if rule.grid:
            _, width, radius, metric, prefix = rule.grid
            cell, other = position - prefix, j - prefix
            rows = (cell // width - other // width).abs()
            columns = (cell % width - other % width).abs()
            distance = rows + columns if metric else torch.maximum(rows, columns)
            allowed = allowed & ((distance <= radius) | (cell < 0) | (other < 0))
        return allowed

    return admits


@lru_cache(maxsize=32)
def _block_mask(rule: Rule, offset: int, n: int, m: int, device: str) -> BlockMask:
    return create_block_mask(_mask_function(rule, offset), None, None, n, m, device=device)


def flex(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n) of a lowered call."""
    scale = lowered.coefficients(q)
    bias = lowered.key_bias(k, q.shape[1])

    def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return s * scale[b, h] if bias is None else s * scale[b, h] + bias[b, h, j]

    mask = _block_mask(lowered.rule, lowered.query_offset, q.shape[2], k.shape[2], str(q.device))
    run: Any = _compiled() if not torch.compiler.is_compiling() else flex_attention
    out, auxiliary = run(
        q, k, v, score_mod=score, block_mask=mask, scale=1.0, enable_gqa=q.shape[1] != k.shape[1],
        return_aux=torch.nn.attention.flex_attention.AuxRequest(lse=True),
    )  # fmt: skip
    return out, auxiliary.lse if lowered.mean_only else auxiliary.lse + lowered.query_term(q)
