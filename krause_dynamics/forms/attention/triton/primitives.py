"""Device functions shared by the kernels: scores of a tile, admission, selection by bisection, bit words.

Ordered integers. The bits of a float, read as an integer and with the lower bits of negative numbers flipped, have the
order of the floats; bisecting on them needs at most as many steps as the type has bits, whatever the data. Two scores
are never compared after a rounding that could separate equal ones or swap unequal ones: every map used here is
monotone, ties it creates are resolved afterwards.
"""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
# Arguments that vary from call to call: one compiled kernel serves all their values.
RUN_TIME = (
    "n", "m", "heads", "group", "offset", "shift", "first_block", "blocks", "first", "last", "scale_value", "z_score",
    "slope_unit", "slopes", "stride_bb", "stride_bh", "stride_sb", "stride_sh",
)  # fmt: skip
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# A number that no key index reaches; used as "no bound" in comparisons of 32-bit indices.
FAR = tl.constexpr(1 << 29)


@triton.jit
def nan_maximum(a, b):
    """Larger of two numbers; NaN if either is."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def row_maximum(s):
    """Row maximum in which a NaN wins, so that a row hearing NaN answers NaN (the interpreter's passes it over)."""
    if INTERPRETED:
        return tl.where(tl.sum((s != s).to(tl.int32), 1) > 0, float("nan"), tl.max(s, 1))
    else:
        return tl.reduce(s, 1, nan_maximum)


@triton.jit
def opaque(x):
    """The same int32 numbers, behind an instruction that the compiler cannot see through.

    A pass which computes its tiles again would otherwise share comparisons and addresses with the pass before, at the
    price of holding them in registers in between.
    """
    if INTERPRETED:
        return x
    else:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def opaque_once(x):
    """As `opaque`, in a loop that is pipelined, whose operations must be free of effects; two of one x become one."""
    if INTERPRETED:
        return x
    else:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=tl.int32, is_pure=True, pack=1)


@triton.jit
def ordinal_of_float(x):
    """Ordinal (int32) of a float32; -0.0 takes that of +0.0, as the two compare equal."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def float_of_ordinal(ordinal):
    """Float32 of an ordinal."""
    return (ordinal ^ ((ordinal >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def midpoint(lo, hi):
    """Floor of (lo + hi) / 2 without overflow."""
    return (lo >> 1) + (hi >> 1) + (lo & hi & 1)


@triton.jit
def population(word):
    """Number of set bits of each int32."""
    x = word.to(tl.uint32, bitcast=True)
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F
    return ((x * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def position_of_bit(word, rank):
    """Position of the rank-th (1-based) set bit of each int32."""
    position = tl.zeros_like(word)
    for step in tl.static_range(5):
        width = 16 >> step
        low = (word.to(tl.uint32, bitcast=True) >> position.to(tl.uint32)).to(tl.int32, bitcast=True) & (
            (1 << width) - 1
        )
        here = population(low)
        beyond = rank > here
        rank = tl.where(beyond, rank - here, rank)
        position = tl.where(beyond, position + width, position)
    return position


@triton.jit
def pack(keep, T: tl.constexpr):
    """Words of a boolean tile (rows, T), T <= 32: bit c is column c."""
    return tl.sum(tl.where(keep, (1 << tl.arange(0, T))[None, :], 0), 1)


@triton.jit
def pack_pair(keep, B: tl.constexpr):
    """Words of the two halves of a boolean tile (B, 64)."""
    bits = tl.where(keep, (1 << (tl.arange(0, 64) & 31))[None, :], 0)
    return tl.split(tl.sum(tl.reshape(bits, (B, 2, 32)), 2))


@triton.jit
def within(start, local, limit):
    """Whether 0 <= start + local < limit, in one unsigned comparison."""
    return (start + local).to(tl.uint32, bitcast=True) < limit.to(tl.uint32, bitcast=True)


@triton.jit
def load_rows(
    pointer, start, local, limit, stride, D: tl.constexpr, DP: tl.constexpr, POLICY: tl.constexpr
):  # fmt: skip
    """Rows start + local of a matrix (limit, D) as a tile (rows, DP); zero outside the matrix.

    The first row's offset is 64-bit; offsets within the tile are small numbers added to it, which become immediates of
    the loads.
    """
    d = tl.arange(0, DP)
    mask = within(start, local, limit)[:, None]
    if D != DP:
        mask = mask & (d < D)[None, :]
    base = pointer + start.to(tl.int64) * stride
    return tl.load(base + (local[:, None] * stride + d[None, :]), mask=mask, other=0.0, eviction_policy=POLICY)


@triton.jit
def load_scale(SCALE, value, batch, head, stride_b, stride_h, TENSOR: tl.constexpr):
    """Scale of one head, from a tensor or from the launch argument."""
    if TENSOR:
        return tl.load(SCALE + batch * stride_b + head * stride_h).to(tl.float32)
    else:
        return value


@triton.jit
def scores(q, k, scale, bias):
    """Tile of scores scale * <q, k> + bias in float32, rounded after each of the three steps, as eager code does."""
    return tl.dot(q, tl.trans(k), input_precision="ieee") * scale + bias[None, :]


@triton.jit
def load_bias(pointer, start, local, m, BIAS: tl.constexpr):
    """Key bias of the columns start + local, -inf outside [0, m); zeros inside where there is none."""
    inside = within(start, local, m)
    if BIAS:
        return tl.load(pointer + start.to(tl.int64) + local, mask=inside, other=float("-inf"))
    else:
        return tl.where(inside, 0.0, float("-inf"))


@triton.jit
def admitted(
    i,
    j,
    m,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    GRID: tl.constexpr,
    WIDTH: tl.constexpr,
    RADIUS: tl.constexpr,
    MANHATTAN: tl.constexpr,
    PREFIX: tl.constexpr,
    FIRST: tl.constexpr,
):
    """Whether position i hears key j: in [0, m) and in the window or grid neighbourhood, or one is a prefix token.

    The FIRST keys are heard by all that come later.
    """
    inside = (j >= 0) & (j < m)
    if GRID:
        pi = i - PREFIX
        pj = j - PREFIX
        # Prefix positions are negative; C division rounds them towards zero, which the last line overrides.
        rows = tl.abs(pi // WIDTH - pj // WIDTH)
        columns = tl.abs(pi % WIDTH - pj % WIDTH)
        if MANHATTAN:
            near = rows + columns <= RADIUS
        else:
            near = (rows <= RADIUS) & (columns <= RADIUS)
    else:
        near = (j >= i - LEFT) & (j <= i + RIGHT)
    if PREFIX > 0:
        near = near | (i < PREFIX) | (j < PREFIX)
    elif FIRST > 0:
        near = near | ((j < FIRST) & (j <= i))
    return inside & near
