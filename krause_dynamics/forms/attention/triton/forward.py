"""Forward kernel that holds a whole row of candidate scores in registers: exact windowed top-k attention in one launch.

A program owns B queries and the NT tiles of T keys that any of them may hear. Row r of the block hears, in band
coordinates j' = key - query_offset + left, the interval [i, i + W - 1], i its index; tile t starts at j' = block * B +
t * T. Scores are computed once, in float32, and stay in registers: selection compares them, softmax exponentiates them.
"""

import triton
import triton.language as tl

from .primitives import (
    FAR,
    LN2,
    LOG2E,
    RUN_TIME,
    admitted,
    load_bias,
    load_rows,
    load_scale,
    opaque,
    row_maximum,
    within,
)
from .selection import kth_score, sample_moments, tie_cut
from .walk import CAREFUL, add_finite, locate, store_mended
from .words import clear_half_words, load_words, selected, store_bits


@triton.jit
def _load_keys(
    K, BIAS, start, m, stride, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, T: tl.constexpr
):  # fmt: skip
    """A tile of keys (T, DP); zero outside [0, m) and where the bias is -inf, as such keys may hold anything."""
    c = tl.arange(0, T)
    d = tl.arange(0, DP)
    here = within(start, c, m)
    if HAS_BIAS:
        here = tl.load(BIAS + start.to(tl.int64) + c, mask=here, other=float("-inf")) > float("-inf")
    here = here[:, None]
    if D != DP:
        here = here & (d < D)[None, :]
    return tl.load(K + start.to(tl.int64) * stride + (c[:, None] * stride + d[None, :]), mask=here, other=0.0)


@triton.jit
def _heard(
    LISTED, t, start, i, row, n, m, hood, HAS_LIST: tl.constexpr, T: tl.constexpr, WORDS: tl.constexpr
):  # fmt: skip
    """Whether rows i, at the places `row`, hear the keys of tile t, a boolean (rows, T)."""
    j = start + tl.arange(0, T)
    heard = admitted(row[:, None], j[None, :], m, hood[0], hood[1], hood[2], hood[3], hood[4], hood[5], hood[6], hood[7])  # fmt: skip  # noqa: E501
    if HAS_LIST:
        words = load_words(LISTED, i, n, i * 0 + t * (T // 32), T, WORDS)
        heard = heard & selected(words, tl.arange(0, T), T, False)
    return heard


@triton.jit
def _mask(
    x, LISTED, t, start, i, row, n, m, hood, HAS_LIST: tl.constexpr, FULL: tl.constexpr, B: tl.constexpr,
    T: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Scores of tile t with -inf where a row does not hear the key; only tiles in which some row begins or ends."""
    LEFT: tl.constexpr = hood[0]
    RIGHT: tl.constexpr = hood[1]
    if FULL:
        x = tl.where(_heard(LISTED, t, start, i, row, n, m, hood, HAS_LIST, T, WORDS), x, float("-inf"))
    else:
        r = tl.arange(0, B)
        place = t * T + tl.arange(0, T)
        if t * T < B - 1:
            x = tl.where(r[:, None] <= place[None, :], x, float("-inf"))
        if t * T + T - 1 > LEFT + RIGHT:
            x = tl.where(r[:, None] >= (place - LEFT - RIGHT)[None, :], x, float("-inf"))
    return x


@triton.jit
def _hears(
    BIAS, LISTED, first, i, row, n, m, hood, HAS_BIAS: tl.constexpr, HAS_LIST: tl.constexpr, NT: tl.constexpr,
    B: tl.constexpr, T: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Whether each row hears any key at all."""
    some = tl.zeros([B], tl.int32)
    for t in range(NT):
        bias = load_bias(BIAS, first + t * T, tl.arange(0, T), m, HAS_BIAS)
        heard = _heard(LISTED, t, first + t * T, i, row, n, m, hood, HAS_LIST, T, WORDS)
        some = tl.maximum(some, tl.max((heard & (bias > float("-inf"))[None, :]).to(tl.int32), 1))
    return some > 0


@triton.jit
def _mend(
    tensors, LOGZ, BITS, strides, row_strides, scale, n, m, heads, group, offset,
    LEFT: tl.constexpr, FULL: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, B: tl.constexpr,
    SPAN: tl.constexpr, WORDS: tl.constexpr,
):  # fmt: skip
    """Store the output where some value is not finite: NaN in rows that select one, else no trace of it.

    Reads what the kernel stored, so that a program need not keep anything for a pass that hardly ever runs.
    """
    Q, K, V, BIAS, OUT, batch, head, query = locate(opaque(tl.program_id(0)), tensors, strides, n, heads, group, B)
    stride_q, stride_k, stride_v, stride_o = row_strides
    i = query + tl.arange(0, B)
    c = tl.arange(0, CAREFUL)
    unit = batch * heads + head
    logz = tl.load(LOGZ + unit * n + i, mask=i < n, other=0.0)
    cleared = tl.where(logz == float("-inf"), 0.0, -logz * LOG2E)
    q = load_rows(Q, query, tl.arange(0, B), n, stride_q, D, DP, "")
    first = query + offset - LEFT
    shift = query - i // 32 * 32
    if FULL:
        first = query * 0
        shift = i * 0
    for column in tl.range(0, D, CAREFUL, num_stages=1):
        d = column + tl.arange(0, CAREFUL)
        out = tl.zeros([B, CAREFUL], tl.float32)
        poison = tl.zeros([B, CAREFUL], tl.float32)
        for u in tl.range(SPAN // CAREFUL, num_stages=1):
            start = first + u * CAREFUL
            place = (shift + u * CAREFUL)[:, None] + c[None, :]
            read = (i < n)[:, None] & (place >= 0) & (place < 32 * WORDS)
            word = tl.load(BITS + (unit * WORDS + (place >> 5)) * n + i[:, None], mask=read, other=0)
            keep = ((word >> (place & 31)) & 1) != 0
            k = load_rows(K, start, c, m, stride_k, D, DP, "")
            x = tl.dot(q, tl.trans(k), input_precision="ieee") * scale + load_bias(BIAS, start, c, m, HAS_BIAS)[None, :]
            p = tl.where(keep, tl.exp2(tl.fma(x, LOG2E, cleared[:, None])), 0.0)
            out, poison = add_finite(out, poison, p, keep, V, start, d, m, stride_v, D, CAREFUL)
        store_mended(OUT, out, poison, tl.zeros([B], tl.float32) + 1.0, i, n, d, stride_o, D)


@triton.jit(do_not_specialize=RUN_TIME)
def forward_kernel(
    Q, K, V, BIAS, SCALE, OUT, LOGZ, BITS, LISTED,
    scale_value, n, m, heads, group, offset, z_score, slope_unit,
    stride_qb, stride_qh, stride_qn, stride_kb, stride_kh, stride_kn, stride_vb, stride_vh, stride_vn,
    stride_bb, stride_bh, stride_sb, stride_sh, stride_ob, stride_oh, stride_on,
    TOP_K: tl.constexpr, KEEP_TIES: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr,
    GRID: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr, PREFIX: tl.constexpr,
    FIRST: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, HAS_BIAS: tl.constexpr, SCALE_TENSOR: tl.constexpr,
    HAS_LIST: tl.constexpr, FULL: tl.constexpr, B: tl.constexpr, T: tl.constexpr, NT: tl.constexpr,
    WORDS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Output (n, D), log-partition (n,) and selected set (WORDS, n) of one block of B queries of one head.

    LISTED are bits (WORDS, n) of the keys that each row may hear besides, where there are any such.
    """
    tensors = (Q, K, V, BIAS, OUT)
    strides = (
        stride_qb, stride_qh, stride_kb, stride_kh, stride_vb, stride_vh, stride_bb, stride_bh, stride_ob, stride_oh,
    )  # fmt: skip
    hood: tl.constexpr = (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST)
    q_head, k_head, v_head, bias_head, out_head, batch, head, query = locate(
        tl.program_id(0), tensors, strides, n, heads, group, B
    )
    scale = load_scale(SCALE, scale_value, batch, head, stride_sb, stride_sh, SCALE_TENSOR)
    first = query + offset - LEFT
    if FULL:
        first = query * 0
    r = tl.arange(0, B)
    c = tl.arange(0, T)
    row = query + r + offset
    # Keys that a row can hear at most.
    possible = tl.minimum(row + RIGHT, m - 1) - tl.maximum(row - LEFT, 0) + 1
    if GRID or (PREFIX > 0):
        possible = tl.zeros([B], tl.int32) + m

    # Scores. The next tile of keys is on its way while a product is taken.
    q = load_rows(q_head, query, r, n, stride_qn, D, DP, "")
    keys = (_load_keys(k_head, bias_head, first, m, stride_kn, D, DP, HAS_BIAS, T),)
    s = ()
    top = tl.zeros([B], tl.float32) + float("-inf")
    for t in tl.static_range(NT):
        start = first + t * T
        bias = load_bias(bias_head, start, c, m, HAS_BIAS)
        if t + 1 < NT:
            keys = keys + (_load_keys(k_head, bias_head, start + T, m, stride_kn, D, DP, HAS_BIAS, T),)
        x = tl.dot(q, tl.trans(keys[t]), input_precision="ieee") * scale + bias[None, :]
        x = _mask(x, LISTED, t, start, query + r, row, n, m, hood, HAS_LIST, FULL, B, T, WORDS)
        top = tl.maximum(top, row_maximum(x), propagate_nan=tl.PropagateNan.ALL)
        s = s + (x,)

    # Selection: scores from the mark on, of those equal to it the first ones.
    mark = tl.zeros([B], tl.float32) + float("-inf")
    reach = tl.zeros([B], tl.float32)
    above = reach
    if TOP_K > 0:
        mean, deviation = sample_moments(s[NT // 2], B, T)
        slope = deviation * slope_unit / tl.maximum(possible, 1).to(tl.float32)
        mark, reach, above = kth_score(
            s, possible <= TOP_K, mean + z_score * deviation, slope, TOP_K, STEPS, NT, B, T
        )  # fmt: skip
    cut = tl.zeros([B], tl.int32) + 2 * FAR
    tied = (reach > TOP_K) & (mark > float("-inf"))
    if (TOP_K > 0) and not KEEP_TIES:
        if tl.max(tied.to(tl.int32), 0) > 0:
            cut = tie_cut(s, mark, tl.where(tied, TOP_K - above.to(tl.int32), 0), NT, B, T)
            kept = ()
            for t in tl.static_range(NT):
                late = (s[t] == mark[:, None]) & ((t * T + c)[None, :] > cut[:, None])
                kept = kept + (tl.where(late, float("-inf"), s[t]),)
            s = kept

    # Softmax over the selected keys.
    base = tl.where(top == float("-inf"), 0.0, top)
    least = tl.maximum(mark, -3.4028234e38)
    weight = tl.zeros([B], tl.float32)
    out = tl.zeros([B, DP], tl.float32)
    query = opaque(query)
    block = query // B
    first = query + offset - LEFT
    if FULL:
        first = query * 0
    i = query + r
    unit = batch * heads + head
    words = BITS + unit * n * WORDS
    if T == 16:
        clear_half_words(words, i, block, n, FULL, NT, WORDS)
    # Values ahead of their product where registers are left.
    AHEAD: tl.constexpr = NT * T <= 192
    if AHEAD:
        following = load_rows(v_head, first, c, m, stride_vn, D, DP, "")
    for t in tl.static_range(NT):
        if AHEAD:
            v = following
            if t + 1 < NT:
                following = load_rows(v_head, first + (t + 1) * T, c, m, stride_vn, D, DP, "")
        else:
            v = load_rows(v_head, first + t * T, c, m, stride_vn, D, DP, "")
        keep = s[t] >= least[:, None]
        store_bits(words, keep, i, r, block, n, t, FULL, B, T, WORDS)
        p = tl.where(keep, tl.exp2(tl.fma(s[t], LOG2E, (-base * LOG2E)[:, None])), 0.0)
        weight += tl.sum(p, 1)
        out = tl.dot(p.to(v.dtype), v, out, input_precision="ieee")
    weight = tl.where(top == top, weight, top)
    if tl.max((top != top).to(tl.int32), 0) > 0:
        # A query that is not finite hears nothing all the same where no key is there.
        silent = (top != top) & ~_hears(
            bias_head, LISTED, first, i, i + offset, n, m, hood, HAS_BIAS, HAS_LIST, NT, B, T, WORDS
        )  # fmt: skip
        weight = tl.where(silent, 0.0, weight)
        out = tl.where(silent[:, None], 0.0, out)
    logz = tl.where(weight == 0.0, float("-inf"), base + tl.log2(weight) * LN2)
    tl.store(LOGZ + unit * n + i, logz, mask=i < n)
    d = tl.arange(0, DP)
    mean_value = out * (1.0 / tl.where(weight == 0.0, 1.0, weight))[:, None]
    place = out_head + i.to(tl.int64)[:, None] * stride_on + d[None, :]
    tl.store(place, mean_value.to(OUT.dtype.element_ty), mask=(i < n)[:, None] & (d < D)[None, :])
    broken = (out != out) & (top == top)[:, None]
    if tl.max(tl.max(broken.to(tl.int32), 1), 0) > 0:
        tl.debug_barrier()
        row_strides = (stride_qn, stride_kn, stride_vn, stride_on)
        _mend(tensors, LOGZ, BITS, strides, row_strides, scale, n, m, heads, group, offset, LEFT, FULL, D, DP, HAS_BIAS, B, NT * T, WORDS)  # fmt: skip  # noqa: E501
