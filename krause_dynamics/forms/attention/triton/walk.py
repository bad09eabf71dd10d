"""Walks of a block of queries over the tiles of keys that any of them may hear: leading keys first, then the band.

Tuples keep argument lists short: ``walk`` = the four numbers of `key_range`, ``rows`` = (position of each row, of the
first, of the last), ``hood`` = (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST).
"""

import triton
import triton.language as tl

from .primitives import admitted, within

# Keys and columns of a tile in the passes that mend what is not finite.
CAREFUL = tl.constexpr(16)


@triton.jit
def key_range(
    first, last, m, LEFT: tl.constexpr, RIGHT: tl.constexpr, PREFIX: tl.constexpr, FIRST: tl.constexpr, T: tl.constexpr
):  # fmt: skip
    """Tiles for positions first .. last: (leading tiles, all tiles, begin of the band, least key counted in it)."""
    begin = tl.maximum(first - LEFT, 0)
    end = tl.minimum(last + RIGHT + 1, m)
    leading = 0
    least = 0
    if PREFIX > 0:
        if first < PREFIX:
            begin = begin * 0
            end = m
        else:
            leading = tl.cdiv(tl.minimum(m, PREFIX), T)
            least = PREFIX
    elif FIRST > 0:
        if first > LEFT:  # else the band begins with them
            leading = tl.cdiv(tl.minimum(m, FIRST), T)
            least = FIRST
    return leading, leading + tl.cdiv(tl.maximum(end - begin, 0), T), begin, least


@triton.jit
def locate(program, tensors, strides, n, heads, group, B: tl.constexpr):
    """What a program serves: pointers (Q, K, V, BIAS, OUT) of one head, its batch and number, the first query.

    ``strides`` = those of the five tensors over batch and heads. Late blocks go first: where the past is heard, they
    hear most.
    """
    Q, K, V, BIAS, OUT = tensors
    blocks = tl.cdiv(n, B)
    block = blocks - 1 - program % blocks
    unit = program // blocks
    batch = (unit // heads).to(tl.int64)
    head = (unit % heads).to(tl.int64)
    Q += batch * strides[0] + head * strides[1]
    K += batch * strides[2] + (head // group) * strides[3]
    V += batch * strides[4] + (head // group) * strides[5]
    BIAS += batch * strides[6] + head * strides[7]
    OUT += batch * strides[8] + head * strides[9]
    return Q, K, V, BIAS, OUT, batch, head, block * B


@triton.jit
def tile_start(u, walk, T: tl.constexpr):
    """First key of the u-th tile."""
    return tl.where(u < walk[0], u * T, walk[2] + (u - walk[0]) * T)


@triton.jit
def load_tile_bias(BIAS, start, m, OUTSIDE: tl.constexpr, T: tl.constexpr, COPIES: tl.constexpr):
    """Key bias of a tile; OUTSIDE beyond the keys.

    A tile of fewer numbers than the block has threads would be loaded by all of them in the layout of a product, 16
    loads a thread and more. COPIES (1, 2, 4 or 8) make it as many numbers as threads: one asynchronous copy a thread.
    """
    NUMBERS: tl.constexpr = COPIES * T
    c = tl.arange(0, NUMBERS) & (T - 1)
    bias = tl.load(BIAS + start.to(tl.int64) + c, mask=within(start, c, m), other=OUTSIDE)
    if COPIES >= 2:
        bias = _first_half(bias)
    if COPIES >= 4:
        bias = _first_half(bias)
    if COPIES >= 8:
        bias = _first_half(bias)
    return bias


@triton.jit
def _first_half(x):
    half, _ = tl.split(tl.trans(tl.reshape(x, (2, x.shape[0] // 2))))
    return half


@triton.jit
def masked(x, u, start, m, rows, walk, hood, T: tl.constexpr):
    """Scores of a tile with -inf where a row does not hear the key; tiles which all rows hear pass as they are."""
    row, first, last = rows
    leading, _, _, least = walk
    LEFT: tl.constexpr = hood[0]
    RIGHT: tl.constexpr = hood[1]
    GRID: tl.constexpr = hood[2]
    PREFIX: tl.constexpr = hood[6]
    FIRST: tl.constexpr = hood[7]
    LEADING: tl.constexpr = PREFIX + FIRST
    c = tl.arange(0, T)
    if GRID or LEADING > 0:
        ragged = (start < last - LEFT) | (start + T - 1 > first + RIGHT) | (start + T > m)
        ragged = ragged | (u < leading) | (start < least) | (first < PREFIX)
        if GRID or ragged:
            j = start + c
            heard = admitted(row[:, None], j[None, :], m, LEFT, RIGHT, GRID, hood[3], hood[4], hood[5], PREFIX, FIRST)
            if LEADING > 0:
                # A leading key counts once.
                heard = heard & tl.where(u < leading, j < LEADING, j >= least)[None, :]
            x = tl.where(heard, x, float("-inf"))
    else:
        if start < last - LEFT:
            x = tl.where(c[None, :] >= (row - LEFT - start)[:, None], x, float("-inf"))
        if (start + T - 1 > first + RIGHT) | (start + T > m):
            x = tl.where(c[None, :] <= (tl.minimum(row + RIGHT, m - 1) - start)[:, None], x, float("-inf"))
    return x


@triton.jit
def add_finite(out, poison, p, keep, V, start, d, m, stride, D: tl.constexpr, T: tl.constexpr):
    """Columns d of a tile of values: weighted sum of what is finite, and how often something else was heard.

    A weight of 0 must erase a value, and 0 * NaN does not.
    """
    c = tl.arange(0, T)
    here = within(start, c, m)[:, None] & (d < D)[None, :]
    v = tl.load(V + start.to(tl.int64) * stride + (c[:, None] * stride + d[None, :]), mask=here, other=0.0)
    finite = tl.abs(v.to(tl.float32)) < float("inf")
    wrong = tl.where(finite, 0.0, 1.0).to(v.dtype)
    v = tl.where(finite, v, tl.zeros_like(v))
    out = tl.dot(p.to(v.dtype), v, out, input_precision="ieee")
    return out, tl.dot(keep.to(v.dtype), wrong, poison, input_precision="ieee")


@triton.jit
def store_mended(OUT, out, poison, weight, i, n, d, stride, D: tl.constexpr):
    """Store columns d of the rows i: NaN where `add_finite` counted something, else out / weight."""
    out = tl.where(poison > 0, float("nan"), out * (1.0 / tl.where(weight == 0.0, 1.0, weight))[:, None])
    place = OUT + i.to(tl.int64)[:, None] * stride + d[None, :]
    tl.store(place, out.to(OUT.dtype.element_ty), mask=(i < n)[:, None] & (d < D)[None, :])
