"""Patches of a grid, the candidates that they meet (prefix tokens first, then the halo row by row), and their rows."""

import triton
import triton.language as tl

from .primitives import INTERPRETED, LOG2E

# Code of a column that nobody hears, and the bits that mark a failed comparison (see `code`).
NOBODY = tl.constexpr(3 << 29)
FAILED = tl.constexpr(0x40008080)
# Packed pairs limited to the range of finite numbers; of NaN and a number the number remains.
CLAMP = tl.constexpr("{ .reg .b32 t; mov.b32 t, %s; min.%s $0, $1, t; mov.b32 t, %s; max.%s $0, $0, t; }")
CLAMP_BFLOAT = tl.constexpr(CLAMP.value % ("0x7F7F7F7F", "bf16x2", "0xFF7FFF7F", "bf16x2"))
CLAMP_HALF = tl.constexpr(CLAMP.value % ("0x7BFF7BFF", "f16x2", "0xFBFFFBFF", "f16x2"))


@triton.jit
def halo(
    c, pr, pc, PREFIX: tl.constexpr, RADIUS: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr
):  # fmt: skip
    """Row and column in the halo of candidate c >= PREFIX; rows and columns before the grid's first are passed over."""
    place = c - PREFIX
    return place // HW + tl.maximum(RADIUS - pr * PH, 0), place % HW + tl.maximum(RADIUS - pc * PW, 0)


@triton.jit
def candidates(
    c, pr, pc, m, PREFIX: tl.constexpr, WIDTH: tl.constexpr, RADIUS: tl.constexpr,
    PH: tl.constexpr, PW: tl.constexpr, HW: tl.constexpr,
):  # fmt: skip
    """Candidates c of the patch (pr, pc): (key, whether there is one, row and column in the halo)."""
    halo_row, halo_column = halo(c, pr, pc, PREFIX, RADIUS, PH, PW, HW)
    column = pc * PW - RADIUS + halo_column
    j = PREFIX + (pr * PH - RADIUS + halo_row) * WIDTH + column
    inside = (halo_row < PH + 2 * RADIUS) & (halo_column < PW + 2 * RADIUS) & (column < WIDTH)
    if PREFIX > 0:
        leading = c < PREFIX
        j = tl.where(leading, c, j)
        inside = inside | leading
    return j, inside & (j < m), halo_row, halo_column


@triton.jit
def code(row, column, RADIUS: tl.constexpr, MANHATTAN: tl.constexpr):
    """Two small numbers in one: a query hears a key if both numbers' differences lie in [0, 2 RADIUS].

    Those are rows and columns, or their sums and differences for |dr| + |dc| <= RADIUS.
    """
    if MANHATTAN:
        return ((row + column - RADIUS) << 8) + (row - column + RADIUS)
    else:
        return (row << 8) + column


@triton.jit
def heard(column_code, row_code, RADIUS: tl.constexpr):
    """Whether both differences of two codes lie in [0, 2 RADIUS]: none negative, and none negative when reversed."""
    x = column_code - row_code
    return ((x | (2 * RADIUS * 257 - x)) & FAILED) == 0


@triton.jit
def bits_of(c, halo_row, halo_column, a, b, PREFIX: tl.constexpr, RADIUS: tl.constexpr):
    """Number of the bit in which cell (a, b) of the patch saves candidate c."""
    SIDE: tl.constexpr = 2 * RADIUS + 1
    bit = (PREFIX + halo_row * SIDE + halo_column)[None, :] - (a * SIDE + b)[:, None]
    if PREFIX > 0:
        bit = tl.where((c < PREFIX)[None, :], c[None, :], bit)
    return bit


@triton.jit
def cells_of_patch(
    pr, pc, n, offset, PREFIX: tl.constexpr, WIDTH: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, B: tl.constexpr
):  # fmt: skip
    """Cells of the patch: (rows and columns inside it, query of each, whether there is one)."""
    r = tl.arange(0, B)
    a = r // PW
    b = r % PW
    column = pc * PW + b
    i = PREFIX + (pr * PH + a) * WIDTH + column - offset
    return a, b, i, (a < PH) & (column < WIDTH) & (i >= 0) & (i < n)


@triton.jit
def load_listed(pointer, index, inside, stride, D: tl.constexpr, DP: tl.constexpr):
    """Rows `index` of a matrix as a tile (rows, DP); zero where not `inside`."""
    d = tl.arange(0, DP)
    mask = inside[:, None]
    if D != DP:
        mask = mask & (d < D)[None, :]
    return tl.load(pointer + (index.to(tl.int64) * stride)[:, None] + d[None, :], mask=mask, other=0.0)


@triton.jit
def products(x, y, X, i, there, stride_x, Y, j, inside, stride_y, D: tl.constexpr, DP: tl.constexpr):
    """Products <x_i, y_j> of two tiles of rows, summed in float32.

    Rows of float32 are read again, 16 dimensions at a time: the operands of their products would not fit the registers.
    """
    if (X.dtype.element_ty == tl.float32) and (DP > 16):
        PIECE: tl.constexpr = 16
        sums = tl.zeros([x.shape[0], y.shape[0]], tl.float32)
        for start in range(0, DP, PIECE):
            d = start + tl.arange(0, PIECE)
            known = (d < D)[None, :]
            a = tl.load(X + (i.to(tl.int64) * stride_x)[:, None] + d[None, :], mask=there[:, None] & known, other=0.0)
            b = tl.load(Y + (j.to(tl.int64) * stride_y)[:, None] + d[None, :], mask=inside[:, None] & known, other=0.0)
            sums = tl.dot(a, tl.trans(b), sums, input_precision="ieee")
        return sums
    else:
        return tl.dot(x, tl.trans(y), input_precision="ieee")


@triton.jit
def finite(x):
    """Numbers as they are, NaN and infinities as finite ones: a weight of 0 must erase a row, and 0 * NaN does not.

    Rows that hear such a key keep their NaN through the log-partition.
    """
    if INTERPRETED:
        return tl.where(tl.abs(x.to(tl.float32)) < float("inf"), x, tl.zeros_like(x))
    elif x.dtype == tl.bfloat16:
        return tl.inline_asm_elementwise(CLAMP_BFLOAT, "=r,r", [x], dtype=tl.bfloat16, is_pure=False, pack=2)
    elif x.dtype == tl.float16:
        return tl.inline_asm_elementwise(CLAMP_HALF, "=r,r", [x], dtype=tl.float16, is_pure=False, pack=2)
    else:
        return tl.where(tl.abs(x) < float("inf"), x, 0.0)


@triton.jit
def row_statistics(LOGZ, i, there):
    """(-log2 Z of rows i or 0 where they hear nothing, whether they hear anything)."""
    logz = tl.load(LOGZ + i, mask=there, other=float("-inf"))
    return -tl.where(logz == float("-inf"), 0.0, logz) * LOG2E, logz != float("-inf")
