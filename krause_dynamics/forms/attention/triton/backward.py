"""Gradients of `forward` on the set that it selected: choice of kernels and tile sizes, allocation, launch.

With weights p_ij = exp(s_ij - log Z_i) on the selected set, dp_ij = <do_i, v_j> and delta_i = <do_i, o_i> - d(log Z_i),

    ds_ij = p_ij (dp_ij - delta_i),   dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,
    dv_j = sum_i p_ij do_i,
    dbias_j = sum_i ds_ij,            dscale_i = sum_j ds_ij <q_i, k_j>.

Where the key bias holds -scale |k_j|^2 / 2 (a distance), dk_j -= scale dbias_j k_j and dscale_j = -dbias_j |k_j|^2 / 2.

Every sum is taken by one program in a fixed order, so results do not vary from run to run.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton

from .arguments import (
    bias_arguments,
    gradients_like,
    is_hopper,
    launch_options,
    on_device,
    padded,
    rows_contiguous,
    scale_arguments,
    single,
    slopes_like,
)
from .backward_blocks import backward_keys_kernel, backward_queries_kernel
from .backward_repair import SPAN, repair_kernel
from .backward_sweep import sweep_kernel
from .tiling import Tiling

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


def sweeps(hood: Tiling, select: int, full: bool, group: int, d: int, dtype: torch.dtype) -> bool:
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


def _written(
    q: torch.Tensor, k: torch.Tensor, z: torch.Tensor, *, need_bias: bool, need_scale: bool, zeros: bool,
    distance: bool, joint: bool,
) -> dict[str, Any]:  # fmt: skip
    """What the kernels write, by the names of their arguments; zeroed where they do not come by every key."""
    rows, columns = q.shape[:3], k.shape[:3]
    # Marks of rows and of keys in one buffer, both aligned.
    begin = triton.cdiv(rows.numel(), 16) * 16
    flags = torch.empty(begin + columns.numel(), dtype=torch.int8, device=q.device)
    dq, dk, dv, whole = gradients_like(q, k, joint)
    dbias = z.new_empty((*rows[:2], columns[2])) if need_bias else None
    slopes = slopes_like(z, columns[2], distance) if need_scale else None
    if zeros:
        for x in (dq, dk, dv, dbias, slopes, flags):
            if x is not None:
                x.zero_()
    return {
        "DQ": dq, "DK": dk, "DV": dv, "DBIAS": dbias, "DSCALE": slopes, "ROW_FLAGS": flags, "KEY_FLAGS": flags[begin:],
        "whole": whole,
    }  # fmt: skip


def _read(
    q: torch.Tensor,
    k: torch.Tensor,
    scale: float | torch.Tensor,
    key_bias: torch.Tensor | None,
    grad_log_partition: torch.Tensor | None,
) -> dict[str, Any]:
    """Arguments about scale, bias, gradient of the log-partition and sizes; any tensor stands for one that is not."""
    scale_tensor, scale_value, stride_sb, stride_sh, is_tensor = scale_arguments(scale, q)
    bias, stride_bb, stride_bh = bias_arguments(key_bias, q, k.shape[2])
    dlog = grad_log_partition
    return {
        "BIAS": bias, "SCALE": scale_tensor, "DLOGZ": q if dlog is None else single(dlog).contiguous(),
        "scale_value": scale_value, "n": q.shape[2], "m": k.shape[2], "heads": q.shape[1],
        "group": q.shape[1] // k.shape[1], "stride_bb": stride_bb, "stride_bh": stride_bh, "stride_sb": stride_sb,
        "stride_sh": stride_sh, "D": q.shape[3], "DP": padded(q.shape[3]), "HAS_BIAS": key_bias is not None,
        "SCALE_TENSOR": is_tensor, "HAS_DLOGZ": dlog is not None,
    }  # fmt: skip


def backward(
    hood: Tiling,
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
    query_offset: int = 0,
    grad_log_partition: torch.Tensor | None = None,
    need_key_bias: bool = True,
    need_scale: bool = True,
    distance: bool = False,
    joint: bool = False,
) -> tuple[torch.Tensor | None, ...]:
    """`launch.backward` for windows, rows that hear all, and everything that the patches of grids do not serve."""
    q, k, v, grad_out, out = (_token_rows(x) for x in (q, k, v, grad_out, out))
    n, keys, group = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    registers, full = hood.registers(keys)
    select = 1 if registers else 2 if hood.top_k else 0
    full = full and select == 1
    short = sweeps(hood, select, full, group, q.shape[3], q.dtype)
    first = query_offset - hood.left
    nothing = q.numel() == 0 or keys == 0
    # The walk along the queries comes by the keys that these may hear.
    missed = short and (first > 0 or first + SWEEP_BLOCK * (triton.cdiv(n, SWEEP_BLOCK) + 1) < keys)
    need_bias = need_key_bias and key_bias is not None
    written = _written(
        q, k, log_partition, need_bias=need_bias, need_scale=need_scale, zeros=nothing or missed, distance=distance,
        joint=joint,
    )  # fmt: skip
    whole, slopes = written.pop("whole"), written["DSCALE"]
    tokens = (written["DQ"], written["DK"], written["DV"]) if whole is None else (whole, None, None)
    gradients = (*tokens, written["DBIAS"], slopes)
    if nothing:
        return gradients
    shared = {
        "Q": q, "K": k, "V": v, "OUT": out, "LOGZ": log_partition, "BITS": selected, "DOUT": grad_out,
        **{name: log_partition if x is None else x for name, x in written.items()},
        **_read(q, k, scale, key_bias, grad_log_partition), "offset": query_offset,
        **_strides("q", q), **_strides("k", k), **_strides("v", v), **_strides("o", out), **_strides("g", grad_out),
        **_strides("dq", written["DQ"]), **_strides("dk", written["DK"]),
        "slopes": 0 if slopes is None else slopes.shape[2], "DISTANCE": distance,
        **hood.constants, "SELECT": select, "FULL": full, "WORDS": selected.shape[2],
        "NEED_DBIAS": need_bias, "NEED_DSCALE": need_scale,
    }  # fmt: skip
    shift = first if select == 1 and not full else 0
    with on_device(q):
        if short:
            _launch_sweep(shared, q.shape[0])
        else:
            _launch_blocks(shared, q.shape[0], shift)
        _launch_repair(shared, q.shape[0], shift)
    return gradients


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
    tiles = query_blocks(shared["D"], q.dtype, hopper=is_hopper(q))
    _run(
        backward_queries_kernel, batch * heads * triton.cdiv(n, tiles.queries), tiles, shared, DELTA=delta,
        FLAGS=shared["ROW_FLAGS"], B=tiles.queries, T=tiles.keys, STAGES=tiles.stages,
    )  # fmt: skip
    tiles = key_blocks(shared["D"], q.dtype, hopper=is_hopper(q))
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
    block = query_blocks(shared["D"], q.dtype).queries if shared["SELECT"] == 2 and is_hopper(q) else 32
    first = -shift // block
    rows = batch * heads * triton.cdiv(shared["n"], SPAN)
    keys = batch * heads // shared["group"] * triton.cdiv(shared["m"] - shift - first * block, SPAN)
    _run(
        repair_kernel, rows + keys, Blocks(block, 32, warps), shared, shift=shift, first_block=first,
        row_programs=rows, SPAN=SPAN, OWN=block, MET=32,
    )  # fmt: skip
