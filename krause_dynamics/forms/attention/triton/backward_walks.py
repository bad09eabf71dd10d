"""What a block of queries and a block of keys add to each other's gradients; walks over all blocks of the other kind.

The walks cover every neighbourhood that is saved as bit words (SELECT = 1), as k-th score and cut (SELECT = 2, scores
computed as the forward pass did), or not at all, because all that are heard are selected (SELECT = 0).
"""

import triton
import triton.language as tl

from .backward_tiles import load_cleared, load_delta, load_marks, load_operand, poison, weights
from .primitives import LOG2E, load_bias
from .walk import key_range
from .words import load_words


@triton.jit
def add_keys(
    dq, q, do, cleared, delta, marks, K, V, BIAS, BITS, start, word, i, row, counted, scale, n, m,
    stride_kn, stride_vn, hood, SELECT: tl.constexpr, HAS_BIAS: tl.constexpr, WORDS: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, T: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """Gradient dq / scale with the share of the keys start .. start + T - 1."""
    c = tl.arange(0, T)
    words = marks
    if SELECT == 1:
        words = load_words(BITS, i, n, word, T, WORDS)
    k = load_operand(K, start, c, m, stride_kn, D, DP, CAREFUL)
    v = load_operand(V, start, c, m, stride_vn, D, DP, CAREFUL)
    bias = load_bias(BIAS, start, c, m, HAS_BIAS)
    product = tl.dot(q, tl.trans(k), input_precision="ieee")
    p, keep = weights(
        product, scale, bias, cleared, words, marks, row, start + c, counted, m, hood, SELECT, HAS_BIAS, T, False,
        CAREFUL,
    )  # fmt: skip
    # Only now, so that scores, words and this product are not all in registers together.
    dp = tl.dot(do, tl.trans(v), input_precision="ieee")
    ds = p * (dp - delta[:, None])
    if CAREFUL:
        ds = tl.where(keep, ds, 0.0)
    return tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")


@triton.jit
def walk_keys(
    q, do, cleared, delta, marks, K, V, BIAS, BITS, block, scale, n, m, offset, stride_kn, stride_vn, hood,
    SELECT: tl.constexpr, HAS_BIAS: tl.constexpr, FULL: tl.constexpr, WORDS: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, B: tl.constexpr, T: tl.constexpr, STAGES: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """Gradient dq / scale (B, DP) of a block of queries."""
    LEFT: tl.constexpr = hood[0]
    RIGHT: tl.constexpr = hood[1]
    PREFIX: tl.constexpr = hood[6]
    FIRST: tl.constexpr = hood[7]
    i = block * B + tl.arange(0, B)
    last = tl.minimum(block * B + B, n) - 1 + offset
    leading, tiles, begin, least = key_range(block * B + offset, last, m, LEFT, RIGHT, PREFIX, FIRST, T)
    if SELECT == 1:
        # Tiles start on words; those before the first key are passed over.
        leading = 0
        if FULL:
            begin = begin * 0
            tiles = tl.cdiv(m, T)
        else:
            begin = block * B + offset - LEFT
            begin += tl.maximum(-begin, 0) // T * T
            tiles = tl.cdiv(tl.maximum(tl.minimum(last + RIGHT + 1, m) - begin, 0), T)
    dq = tl.zeros([B, DP], tl.float32)
    for u in tl.range(0, tiles, num_stages=STAGES):
        start = tl.where(u < leading, u * T, begin + (u - leading) * T)
        word = i * 0 + start // 32
        if not FULL:
            word = (start - offset + LEFT) // 32 - i // 32
        j = start + tl.arange(0, T)
        counted = tl.where(u < leading, j < PREFIX + FIRST, j >= least)[None, :]
        dq = add_keys(
            dq, q, do, cleared, delta, marks, K, V, BIAS, BITS, start, word, i, i + offset, counted, scale, n, m,
            stride_kn, stride_vn, hood, SELECT, HAS_BIAS, WORDS, D, DP, T, CAREFUL,
        )  # fmt: skip
    return dq


@triton.jit
def add_rows(
    dk, dv, dbias, k, v, bias, Q, DOUT, OUT, LOGZ, DLOGZ, DELTA, BITS, start, word, counted, j, scale, n, m, offset,
    stride_qn, stride_gn, stride_on, hood, SELECT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_DLOGZ: tl.constexpr,
    NEED_DBIAS: tl.constexpr, WORDS: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, B: tl.constexpr, T: tl.constexpr,
    CAREFUL: tl.constexpr,
):  # fmt: skip
    """Gradients dk, dv and dbias with the share of the queries start .. start + B - 1, in tiles (keys, queries)."""
    r = tl.arange(0, B)
    i = start + r
    words = (i, i)
    if SELECT == 1:
        words = load_words(BITS, i, n, word, T, WORDS)
    q = load_operand(Q, start, r, n, stride_qn, D, DP, CAREFUL)
    do = load_operand(DOUT, start, r, n, stride_gn, D, DP, CAREFUL)
    if (SELECT == 1) and not CAREFUL:
        # Rows that hear no key have no bit set.
        cleared = tl.load(LOGZ + i, mask=i < n, other=0.0) * -LOG2E
    else:
        cleared, hears = load_cleared(LOGZ, i, n)
    if CAREFUL:
        cleared += poison(DOUT, start, r, n, hears, stride_gn, D, DP)
    product = tl.dot(k, tl.trans(q), input_precision="ieee")
    dp = tl.dot(v, tl.trans(do), input_precision="ieee")
    if SELECT != 1:
        counted = counted & (i < n)[None, :]
    p, keep = weights(
        product, scale, bias, cleared, words, load_marks(BITS, i, n, SELECT), i + offset, j, counted, m, hood, SELECT,
        HAS_BIAS, T, True, CAREFUL,
    )  # fmt: skip
    dv = tl.dot(p.to(do.dtype), do, dv, input_precision="ieee")
    if CAREFUL:
        delta = load_delta(OUT, DOUT, DLOGZ, start, i, n, hears, stride_on, stride_gn, D, DP, HAS_DLOGZ)
        ds = tl.where(keep, p * (dp - delta[None, :]), 0.0)
    else:
        delta = tl.load(DELTA + i, mask=i < n, other=0.0)
        ds = p * (dp - delta[None, :])
    dk = tl.dot((ds * scale).to(q.dtype), q, dk, input_precision="ieee")
    if NEED_DBIAS:
        dbias += tl.sum(ds, 1)
    return dk, dv, dbias


@triton.jit
def walk_rows(
    k, v, Q, DOUT, OUT, LOGZ, DLOGZ, DELTA, BITS, BIAS, position, shift, scale, n, m, offset,
    stride_qn, stride_gn, stride_on, dk, dv, hood, SELECT: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_DLOGZ: tl.constexpr, NEED_DBIAS: tl.constexpr, FULL: tl.constexpr, WORDS: tl.constexpr, D: tl.constexpr,
    DP: tl.constexpr, B: tl.constexpr, T: tl.constexpr, STAGES: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """Gradients dk and dv with the share of one query head, and the gradient of its bias (T,)."""
    LEFT: tl.constexpr = hood[0]
    RIGHT: tl.constexpr = hood[1]
    PREFIX: tl.constexpr = hood[6]
    FIRST: tl.constexpr = hood[7]
    first = position + shift
    j = first + tl.arange(0, T)
    bias = load_bias(BIAS, first, tl.arange(0, T), m, HAS_BIAS)
    # Rows that may hear one of these keys.
    begin = tl.maximum(first - offset - RIGHT, 0)
    end = tl.minimum(first + T - offset + LEFT, n)
    leading = 0
    least = 0
    if FULL:
        begin = begin * 0
        end = n
    elif PREFIX > 0:
        if first < PREFIX:
            begin = begin * 0
            end = n
        else:
            leading = tl.cdiv(tl.minimum(tl.maximum(PREFIX - offset, 0), n), B)
            least = PREFIX
    elif FIRST > 0:
        if first < FIRST:
            end = n
    elif SELECT == 1:
        # In multiples of a word.
        begin = tl.maximum(position - 32 * (WORDS - 1), 0)
    dbias = tl.zeros([T], tl.float32)
    for u in tl.range(0, leading + tl.cdiv(tl.maximum(end - begin, 0), B), num_stages=STAGES):
        start = tl.where(u < leading, u * B, begin + (u - leading) * B)
        i = start + tl.arange(0, B)
        word = i * 0 + position // 32
        if not FULL:
            word -= i // 32
        counted = i < n
        if PREFIX > 0:
            counted = counted & tl.where(u < leading, i + offset < PREFIX, i + offset >= least)
        dk, dv, dbias = add_rows(
            dk, dv, dbias, k, v, bias, Q, DOUT, OUT, LOGZ, DLOGZ, DELTA, BITS, start, word, counted[None, :], j, scale,
            n, m, offset, stride_qn, stride_gn, stride_on, hood, SELECT, HAS_BIAS, HAS_DLOGZ, NEED_DBIAS, WORDS, D, DP,
            B, T, CAREFUL,
        )  # fmt: skip
    return dk, dv, dbias
