"""Banded attention by `tiles` on devices other than the CPU: one block after another, its gradient computed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from krause_dynamics.forms.attention import tile_weights, tiles
from krause_dynamics.forms.attention.call import Call, Gradients, score_dtype

PAIRS_A_BLOCK = 1 << 23  # pairs of one block times batch and heads: 32 MiB of float32 scores


def forward(call: Call) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n)."""
    (batch, heads, n, _), dtype = call.q.shape, score_dtype(call.q)
    # One row more than asked: the tail of the last tile writes there.
    out = torch.empty(batch, heads, n + 1, call.v.shape[3], dtype=call.q.dtype, device=call.q.device)
    log_partition = torch.empty(batch, heads, n + 1, dtype=dtype, device=call.q.device)
    with torch.no_grad(), _exact_products(call.q.device.type):
        for block, allowed, keep in _walk(call):
            result = _attend(call, block, allowed, keep)
            out[:, :, block.rows] = result[0].to(out.dtype)
            log_partition[:, :, block.rows] = result[1]
    return _by_tokens(out[:, :, :n]), log_partition[:, :, :n].contiguous()


def backward(call: Call, grad_out: Tensor, grad_log: Tensor) -> Gradients:
    """All gradients, on the selection made again from the same scores."""
    (batch, heads, n, _), (_, kv_heads, m, _), dtype = call.q.shape, call.k.shape, score_dtype(call.q)
    device = call.q.device
    # One row more than asked: the tail of the last tile writes there.
    grad_q = torch.zeros(batch, heads, n + 1, call.q.shape[3], dtype=dtype, device=device)
    # Of shapes, since zeros like keys that were split into heads would lie as these do.
    shapes = (call.k.shape, call.v.shape, call.coefficients().shape)
    grad_k, grad_v, grad_scale = (torch.zeros(shape, dtype=dtype, device=device) for shape in shapes)
    grad_mass = None if call.log_mass is None else torch.zeros(batch, heads, m, dtype=dtype, device=device)
    grad_pair = None if call.pair_bias is None else torch.zeros(batch, heads, n + 1, m, dtype=dtype, device=device)
    with torch.no_grad(), _exact_products(call.q.device.type):
        for block, allowed, keep in _walk(call):
            tile = tile_weights.gather(block, call)
            rows, live = block.rows.clamp(max=n - 1), block.rows < n
            given = grad_out[:, :, rows].to(dtype) * live[..., None], grad_log[:, :, rows].to(dtype) * live
            found = tile_weights.slopes(tile, allowed, tile_weights.Rule.of(call, block), keep, given)
            grad_q[:, :, block.rows] = found.q
            for total, part in ((grad_k, found.k), (grad_v, found.v)):
                grouped = part.unflatten(1, (kv_heads, heads // kv_heads)).sum(2)
                _accumulate(total, block.columns, grouped.flatten(2, 3))
            grad_scale += found.scale
            if grad_mass is not None:
                _accumulate(grad_mass, block.columns, found.pairs.sum(-2).flatten(2))
            if grad_pair is not None:
                places = block.rows[..., None] * m + block.columns[:, None]
                _accumulate(grad_pair.view(batch, heads, -1), places, found.pairs.flatten(2))
    q, k, v = grad_q[:, :, :n].to(call.q.dtype), grad_k.to(call.k.dtype), grad_v.to(call.v.dtype)
    pair = None if grad_pair is None else grad_pair[:, :, :n].contiguous()
    if call.joint is not None:
        whole = torch.cat([q, k, v], 1).transpose(1, 2).contiguous()
        return Gradients(whole, None, None, grad_scale, grad_mass, pair)
    return Gradients(_by_tokens(q), _by_tokens(k), _by_tokens(v), grad_scale, grad_mass, pair)


def _by_tokens(x: Tensor) -> Tensor:
    """The tensor (b, h, n, d) laid out (b, n, h, d)."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _walk(call: Call) -> Iterator[tuple[tiles.Block, Tensor, Tensor | None]]:
    """Blocks with their admitted pairs and dropout factors, one at a time."""
    batch, heads, n, _ = call.q.shape
    first, last = tiles.bounds(call)
    for block in tiles.blocks(call, max(1, PAIRS_A_BLOCK // (batch * heads))):
        keep = None
        if call.dropout > 0:
            keep = tiles.dropout_factors(block, (batch, heads), n, call.dropout, call.seed).to(score_dtype(call.q))
        yield block, tiles.admitted(block, call, first, last), keep


def _attend(call: Call, block: tiles.Block, allowed: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    return tile_weights.attend(tile_weights.gather(block, call), allowed, tile_weights.Rule.of(call, block), keep)


def _accumulate(total: Tensor, columns: Tensor, part: Tensor) -> None:
    """total[:, :, columns] += part, where a key occurs in several slabs; sorted, hence the same at every run."""
    flat = total.transpose(0, 2)
    flat.index_put_((columns.flatten(),), part.transpose(0, 2), accumulate=True)


@contextmanager
def _exact_products(device: str) -> Iterator[None]:
    """float32 products without TF32 or autocast: rounding q to ten bits would change who is admitted."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
