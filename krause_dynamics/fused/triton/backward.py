"""Gradients of `forward` on the set that it selected: choice of kernels and tile sizes, allocation, launch.

With weights p_ij = exp(s_ij - log Z_i) on the selected set, dp_ij = <do_i, v_j> and delta_i = <do_i, o_i> - d(log Z_i),

    ds_ij = p_ij (dp_ij - delta_i),   dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,
    dv_j = sum_i p_ij do_i,
    dbias_j = sum_i ds_ij,            dscale_i = sum_j ds_ij <q_i, k_j>.

Every sum is taken by one program in a fixed order, so results do not vary from run to run.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton

from .arguments import bias_arguments, launch_options, on_device, padded, rows_contiguous, scale_arguments
from .backward_repair import SPAN, repair_kernel
from .backward_sweep import sweep_kernel
from .backward_tiles import backward_keys_kernel, backward_queries_kernel
from .neighbourhood import Neighbourhood, neighbourhood
from .primitives import INTERPRETED

# Queries and keys a block of the walk along short windows.
SWEEP_BLOCK = 32


@dataclass(frozen=True)
class Blocks:
    """Tile sizes of a launch: queries and keys, warps, stages of the loads, registers of a thread at most."""

    queries: int
    keys: int
    warps: int = 4
    stages: int = 1
    registers: int | None = None


def query_blocks(d: int, dtype: torch.dtype, *, hopper: bool = False) -> Blocks:
    """Tiles of `backward_queries_kernel`, from measurements on an H200 (benchmarks/results/attention_h200.md)."""
    if dtype == torch.float32:
        return Blocks(32, 32, warps=4 if padded(d) <= 32 else 8 if padded(d) <= 64 else 16)
    if padded(d) > 128:
        return Blocks(32, 32)
    # Four programs a multiprocessor (three of the other kernel), where products read shared memory.
    return Blocks(64, 64, registers=128 if padded(d) <= 64 else None) if hopper else Blocks(64, 32)


def key_blocks(d: int, dtype: torch.dtype, *, hopper: bool = False) -> Blocks:
    """Tiles of `backward_keys_kernel`, which keeps two accumulators."""
    if dtype == torch.float32 or padded(d) > 128:
        return Blocks(32, 32, warps=query_blocks(d, dtype).warps)
    return Blocks(32, 64, registers=168 if padded(d) <= 64 and hopper else None)


def sweeps(hood: Neighbourhood, select: int, full: bool, group: int, d: int, dtype: torch.dtype) -> bool:
    """Whether `sweep_kernel` serves: two key blocks hold the window, and registers all that is carried along."""
    short = hood.banded and hood.left + hood.right <= SWEEP_BLOCK and not full
    return short and select < 2 and group == 1 and padded(d) <= 64 and dtype != torch.float32


def _run(kernel: Any, programs: int, blocks: Blocks, shared: dict[str, Any], /, **more: Any) -> None:
    """Launch a kernel with those of the shared arguments that it knows, and its own."""
    known = {name: more[name] if name in more else shared[name] for name in kernel.arg_names}
    kernel[(programs,)](**known, **launch_options(blocks.warps, registers=blocks.registers))


def _token_rows(x: torch.Tensor) -> torch.Tensor:
    """The tensor, or a dense copy where the distance of tokens depends on the batch: that distance is compiled in."""
    x = rows_contiguous(x)
    return x if x.shape[0] == 1 or x.stride(2) <= x.stride(0) else x.contiguous()


def _strides(letter: str, x: torch.Tensor) -> dict[str, int]:
    return {f"stride_{letter}{axis}": x.stride(place) for place, axis in enumerate("bhn")}


def backward(
    grad_out: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    log_partition: torch.Tensor,
    selected: torch.Tensor,
    *,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None = None,
    left: int | None = None,
    right: int | None = None,
    top_k: int | None = None,
    ties: str = "index",
    grid: tuple[int, int, int, str] | None = None,
    prefix: int = 0,
    query_offset: int = 0,
    grad_log_partition: torch.Tensor | None = None,
    need_key_bias: bool = True,
    need_scale: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Gradients of `forward` for the same arguments, on the set that it selected.

    Returns:
        dq, dk, dv in the dtypes of q, k, v; dkey_bias (batch, heads, m) float32 or None; and, where `need_scale`, the
        rows of the scale's gradient, (batch, heads, n) float32: the gradient of a scale per head is their sum over n
        (and batch).
    """
    batch, heads, n, d = q.shape
    keys, kv_heads = k.shape[-2], k.shape[1]
    q, k, v, grad_out, out = (_token_rows(x) for x in (q, k, v, grad_out, out))
    hood = neighbourhood(left, right, top_k, ties, grid, prefix, keys)
    registers, full = hood.registers(keys)
    select = 0 if hood.top_k == 0 else (1 if registers else 2)
    full = full and select == 1
    short = sweeps(hood, select, full, heads // kv_heads, d, q.dtype)
    # Keys beyond those that the walk along the queries comes by.
    first = query_offset - hood.left
    missed = q.numel() == 0 or (short and (first > 0 or first + SWEEP_BLOCK * (triton.cdiv(n, SWEEP_BLOCK) + 1) < keys))
    new = torch.zeros if missed else torch.empty
    numbers = {"dtype": torch.float32, "device": q.device}
    dq = new(q.shape, dtype=q.dtype, device=q.device)
    dk = new(k.shape, dtype=k.dtype, device=q.device)
    dv = new(v.shape, dtype=v.dtype, device=q.device)
    dbias = new((batch, heads, keys), **numbers) if need_key_bias and key_bias is not None else None
    dscale = new((batch, heads, n), **numbers) if need_scale else None
    if q.numel() == 0 or keys == 0:
        return dq, dk, dv, dbias, dscale
    flags = new(batch * (heads * n + kv_heads * keys), dtype=torch.int8, device=q.device)
    scale_tensor, scale_value, stride_sb, stride_sh, is_tensor = scale_arguments(scale, q)
    bias, stride_bb, stride_bh = bias_arguments(key_bias, q, keys)
    # An argument that a kernel does not read is any tensor.
    shared = {
        "Q": q, "K": k, "V": v, "BIAS": bias, "SCALE": scale_tensor, "OUT": out, "LOGZ": log_partition,
        "BITS": selected, "DOUT": grad_out, "DQ": dq, "DK": dk, "DV": dv,
        "DLOGZ": log_partition if grad_log_partition is None else grad_log_partition.to(torch.float32).contiguous(),
        "DBIAS": log_partition if dbias is None else dbias, "DSCALE": log_partition if dscale is None else dscale,
        "ROW_FLAGS": flags, "KEY_FLAGS": flags[batch * heads * n :],
        "scale_value": scale_value, "n": n, "m": keys, "heads": heads, "group": heads // kv_heads,
        "offset": query_offset, "stride_bb": stride_bb, "stride_bh": stride_bh, "stride_sb": stride_sb,
        "stride_sh": stride_sh, **_strides("q", q), **_strides("k", k), **_strides("v", v), **_strides("o", out),
        **_strides("g", grad_out), **hood.constants,
        "SELECT": select, "D": d, "DP": padded(d), "HAS_BIAS": key_bias is not None, "SCALE_TENSOR": is_tensor,
        "HAS_DLOGZ": grad_log_partition is not None, "NEED_DBIAS": dbias is not None,
        "NEED_DSCALE": dscale is not None, "FULL": full, "WORDS": selected.shape[2],
    }  # fmt: skip
    shift = first if select == 1 and not full else 0
    with on_device(q):
        if short:
            _launch_sweep(shared, batch)
        else:
            _launch_blocks(shared, batch, shift)
        _launch_repair(shared, batch, shift)
    return dq, dk, dv, dbias, dscale


def _launch_sweep(shared: dict[str, Any], batch: int) -> None:
    """One launch for all gradients; long walks, but some thousand programs where there is enough to do."""
    heads, blocks = shared["heads"], triton.cdiv(shared["n"], SWEEP_BLOCK)
    length = max(1, min(32, batch * heads * blocks // 1024))
    chunks = triton.cdiv(blocks, length)
    tiles = Blocks(SWEEP_BLOCK, SWEEP_BLOCK, warps=2, stages=2)
    _run(sweep_kernel, batch * heads * chunks, tiles, shared, chunks=chunks, length=length, B=SWEEP_BLOCK, STAGES=2)


def _launch_blocks(shared: dict[str, Any], batch: int, shift: int) -> None:
    """Queries first, since the keys' kernel reads delta."""
    q, heads, n = shared["Q"], shared["heads"], shared["n"]
    delta = torch.empty((batch, heads, n), dtype=torch.float32, device=q.device)
    tiles = query_blocks(shared["D"], q.dtype, hopper=_hopper(q))
    _run(
        backward_queries_kernel, batch * heads * triton.cdiv(n, tiles.queries), tiles, shared, DELTA=delta,
        FLAGS=shared["ROW_FLAGS"], B=tiles.queries, T=tiles.keys, STAGES=tiles.stages,
    )  # fmt: skip
    tiles = key_blocks(shared["D"], q.dtype, hopper=_hopper(q))
    first = -shift // tiles.keys
    blocks = -(-(shared["m"] - shift) // tiles.keys) - first
    _run(
        backward_keys_kernel, batch * heads // shared["group"] * blocks, tiles, shared, DELTA=delta,
        FLAGS=shared["KEY_FLAGS"], shift=shift, first_block=first, blocks=blocks, B=tiles.queries, T=tiles.keys,
        STAGES=tiles.stages,
    )  # fmt: skip


def _launch_repair(shared: dict[str, Any], batch: int, shift: int) -> None:
    """Programs that mostly find no mark and end."""
    q, heads = shared["Q"], shared["heads"]
    warps = max(8, query_blocks(shared["D"], q.dtype).warps)
    # Scores that are compared with the saved k-th one come from the same instruction as it did, which Hopper has for
    # 64 rows and more.
    block = query_blocks(shared["D"], q.dtype).queries if shared["SELECT"] == 2 and _hopper(q) else 32
    first = -shift // block
    rows = batch * heads * triton.cdiv(shared["n"], SPAN)
    keys = batch * heads // shared["group"] * triton.cdiv(shared["m"] - shift - first * block, SPAN)
    _run(
        repair_kernel, rows + keys, Blocks(block, 32, warps), shared, shift=shift, first_block=first,
        row_programs=rows, SPAN=SPAN, OWN=block, MET=32,
    )  # fmt: skip


def _hopper(q: torch.Tensor) -> bool:
    """Whether products read their operands from shared memory (compute capability 9.0 and later)."""
    return not INTERPRETED.value and torch.cuda.get_device_capability(q.device)[0] >= 9
