"""Backward kernels: a program per block of queries for dq, one per block of keys for dk, dv and the bias.

With weights p_ij = exp(s_ij - log Z_i) on the selected set, dp_ij = <do_i, v_j> and delta_i = <do_i, o_i> - d(log Z_i),

    ds_ij = p_ij (dp_ij - delta_i),   dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,
    dv_j = sum_i p_ij do_i,
    dbias_j = sum_i ds_ij,            dscale_i = sum_j ds_ij <q_i, k_j>.

Every sum is taken by one program in a fixed order, so results do not vary from run to run. The selected set is read:
from bit words (SELECT = 1), or from the k-th score and the cut among ties (SELECT = 2), in which case scores are
computed as the forward pass did.
"""

import torch
import triton
import triton.language as tl

from .arguments import bias_arguments, launch_options, on_device, padded, rows_contiguous, scale_arguments
from .neighbourhood import neighbourhood
from .primitives import LOG2E, RUN_TIME, admitted, load_bias, load_finite_rows, load_scale
from .streaming import key_range


@triton.jit
def _bits(BITS, i, n, word, c, T: tl.constexpr, WORDS: tl.constexpr):
    """Whether rows i (B,) selected columns c (T,) of the tile whose first word is `word` (B,)."""
    rows = BITS + i
    inside = i < n
    low = tl.load(rows + word.to(tl.int64) * n, mask=inside & (word >= 0) & (word < WORDS), other=0)
    if T > 32:
        word = word + 1
        high = tl.load(rows + word.to(tl.int64) * n, mask=inside & (word >= 0) & (word < WORDS), other=0)
        words = tl.where((c < 32)[None, :], low[:, None], high[:, None])
    else:
        words = tl.broadcast_to(low[:, None], (low.shape[0], T))
    return ((words >> (c & 31)[None, :]) & 1) != 0


@triton.jit(do_not_specialize=RUN_TIME)
def backward_queries_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS, DOUT, DLOGZ, DELTA, DQ, DSCALE,
    scale_value, n, m, heads, group, offset,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on, stride_gb, stride_gh, stride_gn,
    stride_dqb, stride_dqh, stride_dqn,
    SELECT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, HAS_DLOGZ: tl.constexpr,
    NEED_DSCALE: tl.constexpr, FULL: tl.constexpr, WORDS: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Gradient of B queries of one head; also delta_i (read by the other kernel) and dscale_i."""
    blocks = tl.cdiv(n, B)
    block = tl.program_id(0) % blocks
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    batch = unit // heads
    head = unit % heads
    Q += batch * stride_qb + head * stride_qh
    K += batch * stride_kb + (head // group) * stride_kh
    V += batch * stride_vb + (head // group) * stride_vh
    BIAS += batch * stride_bb + head * stride_bh
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    i = block * B + tl.arange(0, B)
    row = i + offset
    q = load_finite_rows(Q, block * B, tl.arange(0, B), n, stride_qn, D, DP)
    do = load_finite_rows(DOUT + batch * stride_gb + head * stride_gh, block * B, tl.arange(0, B), n, stride_gn, D, DP)
    o = load_finite_rows(OUT + batch * stride_ob + head * stride_oh, block * B, tl.arange(0, B), n, stride_on, D, DP)
    logz = tl.load(LOGZ + unit * n + i, mask=i < n, other=0.0)
    cleared = -tl.where(logz == float("-inf"), 0.0, logz) * LOG2E
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    if HAS_DLOGZ:
        delta -= tl.where(logz == float("-inf"), 0.0, tl.load(DLOGZ + unit * n + i, mask=i < n, other=0.0))
    tl.store(DELTA + unit * n + i, delta, mask=i < n)

    mark = tl.zeros([B], tl.float32)
    cut = tl.zeros([B], tl.int32)
    if SELECT == 2:
        mark = tl.load(BITS + unit * n * 2 + i, mask=i < n, other=0).to(tl.float32, bitcast=True)
        cut = tl.load(BITS + unit * n * 2 + n + i, mask=i < n, other=0)
    last = tl.minimum(block * B + B, n) - 1 + offset
    leading, tiles, begin, least = key_range(block * B + offset, last, m, LEFT, RIGHT, PREFIX, T)
    if SELECT == 1:
        # Tiles start on words; those before the first key are passed over.
        leading = 0
        least = 0
        if FULL:
            begin = begin * 0
            tiles = tl.cdiv(m, T)
        else:
            begin = block * B + offset - LEFT
            skipped = tl.maximum(-begin, 0) // T
            begin += skipped * T
            tiles = tl.cdiv(tl.maximum(tl.minimum(last + RIGHT + 1, m) - begin, 0), T)
    dq = tl.zeros([B, DP], tl.float32)
    dscale = tl.zeros([B], tl.float32)
    c = tl.arange(0, T)
    for u in range(tiles):
        start = tl.where(u < leading, u * T, begin + (u - leading) * T)
        j = start + c
        bias = load_bias(BIAS, start, c, m, HAS_BIAS)
        k = load_finite_rows(K, start, c, m, stride_kn, D, DP)
        v = load_finite_rows(V, start, c, m, stride_vn, D, DP)
        product = tl.dot(q, tl.trans(k), input_precision="ieee")
        s = product * scale
        if HAS_BIAS:
            s = s + bias[None, :]
        if SELECT == 1:
            if FULL:
                word = tl.zeros_like(i) + start // 32
            else:
                word = (start - offset + LEFT) // 32 - i // 32
            keep = _bits(BITS + unit * n * WORDS, i, n, word, c, T, WORDS)
        else:
            keep = admitted(row[:, None], j[None, :], m, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
            keep = keep & (bias > float("-inf"))[None, :]
            if PREFIX > 0:
                keep = keep & tl.where(u < leading, j < PREFIX, j >= least)[None, :]
            if SELECT == 2:
                keep = keep & ((s > mark[:, None]) | ((s == mark[:, None]) & (j[None, :] <= cut[:, None])))
        p = tl.where(keep, tl.exp2(tl.fma(s, LOG2E, cleared[:, None])), 0.0)
        dp = tl.dot(do, tl.trans(v), input_precision="ieee")
        ds = p * (dp - delta[:, None])
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
        if NEED_DSCALE:
            dscale += tl.sum(ds * product, 1)
    d = tl.arange(0, DP)
    DQ += batch * stride_dqb + head * stride_dqh
    mask = (i < n)[:, None] & (d < D)[None, :]
    tl.store(DQ + i.to(tl.int64)[:, None] * stride_dqn + d[None, :], (dq * scale).to(DQ.dtype.element_ty), mask=mask)
    if NEED_DSCALE:
        tl.store(DSCALE + unit * n + i, dscale, mask=i < n)


@triton.jit(do_not_specialize=RUN_TIME)
def backward_keys_kernel(
    Q, K, V, BIAS, SCALE, LOGZ, BITS, DOUT, DELTA, DK, DV, DBIAS,
    scale_value, n, m, heads, group, offset, shift, first_block, blocks,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_gb, stride_gh, stride_gn,
    stride_dkb, stride_dkh, stride_dkn, stride_dvb, stride_dvh, stride_dvn,
    SELECT: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr, NEED_DBIAS: tl.constexpr,
    FULL: tl.constexpr, WORDS: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Gradients of T keys and values of one key head, summed over its query heads, and of the bias of each of those.

    Key blocks are counted in band coordinates (j - shift) so that their columns are whole words. Tiles are transposed:
    (keys, queries).
    """
    position = (first_block + tl.program_id(0) % blocks) * T
    unit = (tl.program_id(0) // blocks).to(tl.int64)
    kv_heads = heads // group
    batch = unit // kv_heads
    kv_head = unit % kv_heads
    c = tl.arange(0, T)
    j = position + shift + c
    k = load_finite_rows(K + batch * stride_kb + kv_head * stride_kh, position + shift, c, m, stride_kn, D, DP)
    v = load_finite_rows(V + batch * stride_vb + kv_head * stride_vh, position + shift, c, m, stride_vn, D, DP)
    # Rows that may hear one of these keys.
    begin = tl.maximum(position + shift - offset - RIGHT, 0)
    end = tl.minimum(position + shift + T - offset + LEFT, n)
    leading = 0
    least = 0
    if FULL:
        begin = begin * 0
        end = n
    elif PREFIX > 0:
        if position + shift < PREFIX:
            begin = begin * 0
            end = n
        else:
            leading = tl.cdiv(tl.minimum(tl.maximum(PREFIX - offset, 0), n), B)
            least = PREFIX
    tiles = leading + tl.cdiv(tl.maximum(end - begin, 0), B)
    dk = tl.zeros([T, DP], tl.float32)
    dv = tl.zeros([T, DP], tl.float32)
    for g in range(group):
        head = kv_head * group + g
        scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
        rows = batch * heads + head
        bias = load_bias(BIAS + batch * stride_bb + head * stride_bh, position + shift, c, m, HAS_BIAS)
        dbias = tl.zeros([T], tl.float32)
        for u in range(tiles):
            first = tl.where(u < leading, u * B, begin + (u - leading) * B)
            i = first + tl.arange(0, B)
            row = i + offset
            q = load_finite_rows(Q + batch * stride_qb + head * stride_qh, first, tl.arange(0, B), n, stride_qn, D, DP)
            do = load_finite_rows(
                DOUT + batch * stride_gb + head * stride_gh, first, tl.arange(0, B), n, stride_gn, D, DP
            )
            logz = tl.load(LOGZ + rows * n + i, mask=i < n, other=0.0)
            cleared = -tl.where(logz == float("-inf"), 0.0, logz) * LOG2E
            delta = tl.load(DELTA + rows * n + i, mask=i < n, other=0.0)
            s = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
            if HAS_BIAS:
                s = s + bias[:, None]
            if SELECT == 1:
                if FULL:
                    word = tl.zeros_like(i) + position // 32
                else:
                    word = position // 32 - i // 32
                keep = tl.trans(_bits(BITS + rows * n * WORDS, i, n, word, c, T, WORDS))
            else:
                keep = admitted(row[None, :], j[:, None], m, LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX)
                keep = keep & (bias > float("-inf"))[:, None] & (i < n)[None, :]
                if PREFIX > 0:
                    keep = keep & tl.where(u < leading, row < PREFIX, row >= least)[None, :]
                if SELECT == 2:
                    mark = tl.load(BITS + rows * n * 2 + i, mask=i < n, other=0).to(tl.float32, bitcast=True)
                    cut = tl.load(BITS + rows * n * 2 + n + i, mask=i < n, other=0)
                    keep = keep & ((s > mark[None, :]) | ((s == mark[None, :]) & (j[:, None] <= cut[None, :])))
            p = tl.where(keep, tl.exp2(tl.fma(s, LOG2E, cleared[None, :])), 0.0)
            dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
            dp = tl.dot(v, tl.trans(do), input_precision="ieee")
            ds = p * (dp - delta[None, :])
            dk = tl.dot((ds * scale).to(q.dtype), q, dk, input_precision="ieee")
            if NEED_DBIAS:
                dbias += tl.sum(ds, 1)
        if NEED_DBIAS:
            tl.store(DBIAS + rows * m + j, dbias, mask=(j >= 0) & (j < m))
    d = tl.arange(0, DP)
    mask = ((j >= 0) & (j < m))[:, None] & (d < D)[None, :]
    columns = j.to(tl.int64)[:, None]
    DK += batch * stride_dkb + kv_head * stride_dkh
    DV += batch * stride_dvb + kv_head * stride_dvh
    tl.store(DK + columns * stride_dkn + d[None, :], dk.to(DK.dtype.element_ty), mask=mask)
    tl.store(DV + columns * stride_dvn + d[None, :], dv.to(DV.dtype.element_ty), mask=mask)


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
    q, k, v, grad_out, out = (rows_contiguous(x) for x in (q, k, v, grad_out, out))
    hood = neighbourhood(left, right, top_k, ties, grid, prefix, keys)
    registers, full = hood.registers(keys)
    select = 0 if hood.top_k == 0 else (1 if registers else 2)
    full = full and select == 1
    device = q.device
    dq = torch.empty((batch, heads, n, d), dtype=q.dtype, device=device)
    dk = torch.empty((batch, kv_heads, keys, d), dtype=k.dtype, device=device)
    dv = torch.empty((batch, kv_heads, keys, d), dtype=v.dtype, device=device)
    need_key_bias = need_key_bias and key_bias is not None
    dbias = torch.empty((batch, heads, keys), dtype=torch.float32, device=device) if need_key_bias else None
    rows = torch.empty((batch, heads, n), dtype=torch.float32, device=device) if need_scale else None
    if q.numel() == 0 or keys == 0:
        empty = [x.zero_() if x is not None else None for x in (dq, dk, dv, dbias, rows)]
        return empty[0], empty[1], empty[2], empty[3], empty[4]
    delta = torch.empty((batch, heads, n), dtype=torch.float32, device=device)
    scale_tensor, scale_value, *scale_strides, is_tensor = scale_arguments(scale, q)
    bias, *bias_strides = bias_arguments(key_bias, q, keys)
    dlog = grad_log_partition.to(torch.float32).contiguous() if grad_log_partition is not None else delta
    common = {
        "SELECT": select,
        "D": d,
        "DP": padded(d),
        "HAS_BIAS": key_bias is not None,
        "SCALE_TENSOR": is_tensor,
        "FULL": full,
        "WORDS": selected.shape[2],
        **hood.constants,
    }
    numbers = (scale_value, n, keys, heads, heads // kv_heads, query_offset)
    inputs = (*q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *bias_strides, *scale_strides)
    block = _backward_block(d, q.dtype)
    shift = query_offset - hood.left if select == 1 and not full else 0
    first = -shift // block
    blocks = -(-(keys - shift) // block) - first
    with on_device(q):
        backward_queries_kernel[(batch * heads * triton.cdiv(n, block),)](
            q, k, v, bias, scale_tensor, out, log_partition, selected, grad_out, dlog, delta, dq, rows if need_scale
            else delta, *numbers, *inputs, *out.stride()[:3], *grad_out.stride()[:3], *dq.stride()[:3], **common,
            HAS_DLOGZ=grad_log_partition is not None, NEED_DSCALE=need_scale, B=block, T=block, **launch_options(4),
        )  # fmt: skip
        backward_keys_kernel[(batch * kv_heads * blocks,)](
            q, k, v, bias, scale_tensor, log_partition, selected, grad_out, delta, dk, dv, dbias if need_key_bias else
            delta, *numbers, shift, first, blocks, *inputs, *grad_out.stride()[:3], *dk.stride()[:3], *dv.stride()[:3],
            **common, NEED_DBIAS=need_key_bias, B=block, T=block, **launch_options(4),
        )  # fmt: skip
    return dq, dk, dv, dbias, rows


def _backward_block(d: int, dtype: torch.dtype) -> int:
    """Queries and keys a tile of the backward kernels: two accumulators of that many rows must fit the registers."""
    return 64 if padded(d) <= 128 and dtype != torch.float32 else 32
