"""Parts of the backward kernels: what they load, the weights of a tile, terms of scale and keys, what they store.

What no row may use (padding, keys beyond the window of a block) can hold NaN or infinity, and 0 * NaN is NaN. The fast
kernels take that risk, since a select between a load and a product would cost them the asynchronous copies; they mark
rows and keys whose gradients are not numbers, and `repair_kernel` does those again with care.

Tuples keep argument lists short: ``hood`` = (LEFT, RIGHT, GRID, WIDTH, RADIUS, MANHATTAN, PREFIX, FIRST).
"""

import triton
import triton.language as tl

from .primitives import LOG2E, admitted, load_rows
from .words import of_keys, of_rows, selected


@triton.jit
def load_operand(pointer, start, local, limit, stride, D: tl.constexpr, DP: tl.constexpr, CAREFUL: tl.constexpr):
    """Rows of a matrix, as `load_rows`; with CAREFUL, 0 for what is not finite."""
    x = load_rows(pointer, start, local, limit, stride, D, DP, "")
    if CAREFUL:
        x = tl.where(tl.abs(x.to(tl.float32)) < float("inf"), x, tl.zeros_like(x))
    return x


@triton.jit
def load_cleared(LOGZ, i, n):
    """-log2(e) log Z of rows i, and which of them hear a key; 0 for the others and beyond the last row."""
    logz = tl.load(LOGZ + i, mask=i < n, other=float("-inf"))
    hears = logz != float("-inf")
    return -tl.where(hears, logz, 0.0) * LOG2E, hears


@triton.jit
def load_delta(OUT, DOUT, DLOGZ, start, i, n, hears, stride_on, stride_gn, D: tl.constexpr, DP: tl.constexpr, HAS_DLOGZ: tl.constexpr):  # fmt: skip  # noqa: E501
    """<do_i, o_i> - d(log Z_i), 0 in rows that hear no key."""
    local = tl.arange(0, i.shape[0])
    do = load_rows(DOUT, start, local, n, stride_gn, D, DP, "")
    o = load_rows(OUT, start, local, n, stride_on, D, DP, "")
    delta = tl.sum(do.to(tl.float32) * o.to(tl.float32), 1)
    if HAS_DLOGZ:
        delta -= tl.load(DLOGZ + i, mask=hears, other=0.0)
    return tl.where(hears, delta, 0.0)


@triton.jit
def load_marks(BITS, i, n, SELECT: tl.constexpr):
    """k-th score and last key admitted at it of rows i (SELECT = 2)."""
    if SELECT == 2:
        mark = tl.load(BITS + i, mask=i < n, other=0).to(tl.float32, bitcast=True)
        return mark, tl.load(BITS + n + i, mask=i < n, other=0)
    else:
        return i, i


@triton.jit
def poison(DOUT, start, local, n, hears, stride_gn, D: tl.constexpr, DP: tl.constexpr):
    """NaN for rows whose incoming gradient is not finite and which hear a key, else 0."""
    do = load_rows(DOUT, start, local, n, stride_gn, D, DP, "")
    return tl.where(hears, tl.sum(do.to(tl.float32) * 0.0, 1), 0.0)


@triton.jit
def weights(
    product, scale, bias, cleared, words, marks, row, j, counted, m, hood,
    SELECT: tl.constexpr, HAS_BIAS: tl.constexpr, T: tl.constexpr, ACROSS: tl.constexpr, CAREFUL: tl.constexpr,
):  # fmt: skip
    """Tile of p_ij = exp(s_ij - log Z_i), 0 where not selected, and where it is selected."""
    LEADING: tl.constexpr = hood[6] + hood[7]
    if SELECT == 1:
        keep = selected(words, tl.arange(0, T), T, ACROSS)
    else:
        keep = admitted(of_rows(row, ACROSS), of_keys(j, ACROSS), m, hood[0], hood[1], hood[2], hood[3], hood[4], hood[5], hood[6], hood[7])  # fmt: skip  # noqa: E501
        if ACROSS or (LEADING > 0):
            keep = keep & counted
        if CAREFUL or (SELECT == 2):
            keep = keep & of_keys(bias > float("-inf"), ACROSS)
    if SELECT == 2:
        s = product * scale + of_keys(bias, ACROSS)
        tied = (s == of_rows(marks[0], ACROSS)) & (of_keys(j, ACROSS) <= of_rows(marks[1], ACROSS))
        keep = keep & ((s > of_rows(marks[0], ACROSS)) | tied)
        exponent = tl.fma(s, LOG2E, of_rows(cleared, ACROSS))
    elif HAS_BIAS or (SELECT == 0):
        exponent = tl.fma(product, scale * LOG2E, of_keys(bias * LOG2E, ACROSS) + of_rows(cleared, ACROSS))
    else:
        exponent = tl.fma(product, scale * LOG2E, of_rows(cleared, ACROSS))
    return tl.where(keep, tl.exp2(exponent), 0.0), keep


@triton.jit
def of_scale(dq, q):
    """Gradient of the scale by rows, sum_j ds_ij <q_i, k_j>, which is <q_i, sum_j ds_ij k_j>."""
    return tl.sum(dq * q.to(tl.float32), 1)


@triton.jit
def of_distance(dk, k, slope):
    """Gradient of keys with the share of the bias -scale |k|^2 / 2, of which `slope` is scale times its gradient.

    A key that nobody hears may hold NaN.
    """
    return dk - tl.where((slope == 0.0)[:, None], 0.0, slope[:, None] * k.to(tl.float32))


@triton.jit
def squares(k):
    """|k|^2 by keys."""
    k = k.to(tl.float32)
    return tl.sum(k * k, 1)


@triton.jit
def scale_of_distance(squared, dbias):
    """Gradient of the scale through the key bias -scale |k|^2 / 2, by keys."""
    return tl.where(dbias == 0.0, 0.0, -0.5 * dbias * squared)


@triton.jit
def not_a_number(x):
    """Per row of a matrix, whether it holds NaN (int8)."""
    return tl.max((x != x).to(tl.int32), 1).to(tl.int8)


@triton.jit
def store_rows(OUT, x, start, local, mask, stride, D: tl.constexpr, DP: tl.constexpr):
    """Rows of a matrix (., D)."""
    d = tl.arange(0, DP)
    place = OUT + start.to(tl.int64) * stride + (local[:, None] * stride + d[None, :])
    tl.store(place, x.to(OUT.dtype.element_ty), mask=mask[:, None] & (d < D)[None, :])
