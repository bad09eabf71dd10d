"""Sums over the weights of attention whose log-partition is known: by key and group of queries, by row, by distance.

Scores are computed again, tile by tile, and never written. One kernel owns keys and sums over queries, the other owns
queries and sums over keys, so that nothing is added by atomics and a result is the same bits each time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .arguments import on_device
from .primitives import INTERPRETED, LOG2E

FARTHEST = 1 << 30  # stands for "no bound" of a window


@triton.jit
def weights_of(a, b, z, scale):
    """Products <q, k> of a tile and exp(scale <q, k> - z), as if all pairs were admitted; `z` broadcasts."""
    products = tl.dot(a, b, input_precision="ieee")
    return products, tl.exp2(tl.fma(products, scale * LOG2E, -z * LOG2E))


@triton.jit
def tokens_of(x, at, stride, c, D: tl.constexpr, WIDTH: tl.constexpr, there):
    """Rows `at` of x as a tile whose axes are those of `at` and `c`; 0 beyond D and where nobody is (None: all are)."""
    place = x + at.to(tl.int64) * stride + c
    if WIDTH > D:
        if there is None:
            return tl.load(place, mask=c < D, other=0.0)
        else:
            return tl.load(place, mask=there & (c < D), other=0.0)
    else:
        if there is None:
            return tl.load(place)
        else:
            return tl.load(place, mask=there, other=0.0)


@triton.jit(do_not_specialize=["n", "m", "left", "right", "groups"])
def by_key(
    q, k, z, received, scale, n, m, left, right, groups, heads, group, q_b, q_h, q_n, k_b, k_h, k_n,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """received[b, h, g, j] = sum of a_ij over queries i of group g, [ceil(g n / groups), ceil((g + 1) n / groups))."""
    first = tl.program_id(0) * TILE
    t, c = tl.arange(0, TILE), tl.arange(0, WIDTH)
    j, head = first + t, tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    keys = tokens_of(k + b * k_b + (h // group) * k_h, j[None, :], k_n, c[:, None], D, WIDTH, (j < m)[None, :])
    q, z = q + b * q_b + h * q_h, z + head * n
    for g in range(groups):
        begin, end = (g * n + groups - 1) // groups, ((g + 1) * n + groups - 1) // groups
        begin, end = tl.maximum(begin, first - right), tl.minimum(end, first + TILE + left)
        # Tiles of queries from `full` to `rest` hear all of these keys; others lie across a border of the window.
        full = begin + tl.cdiv(tl.maximum(first + TILE - 1 - right - begin, 0), TILE) * TILE
        full = tl.minimum(tl.where(first + TILE <= m, full, end), tl.maximum(begin, end))
        rest = full + tl.maximum(tl.minimum(end, first + left + 1) - full, 0) // TILE * TILE
        total = tl.zeros([TILE, TILE], tl.float32)  # summed over its rows once, in the end
        for start in range(full, rest, TILE):
            i = start + t
            queries = tokens_of(q, i[:, None], q_n, c[None, :], D, WIDTH, None)
            _, weights = weights_of(queries, keys, tl.load(z + i)[:, None], scale)
            total += weights
        before = tl.cdiv(full - begin, TILE)
        for tile in range(before + tl.cdiv(tl.maximum(end - rest, 0), TILE)):
            i = tl.where(tile < before, begin + tile * TILE, rest + (tile - before) * TILE) + t
            there = i < tl.where(tile < before, full, end)
            queries = tokens_of(q, i[:, None], q_n, c[None, :], D, WIDTH, there[:, None])
            logs = tl.load(z + i, mask=there, other=float("inf"))
            _, weights = weights_of(queries, keys, logs[:, None], scale)
            admitted = (i[:, None] - j[None, :] <= left) & (j[None, :] - i[:, None] <= right)
            total += tl.where(admitted & there[:, None], weights, 0.0)
        tl.store(received + (head * groups + g) * m + j, tl.sum(total, 0), mask=j < m)


@triton.jit
def _powers(x):
    """How many of 1, 2, 4, ... are at most x, from the exponent of a float; from 2^24 on for a number near x."""
    return tl.where(x > 0, (x.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 126, 0)


@triton.jit(do_not_specialize=["n", "m", "left", "right"])
def by_query(
    q, k, z, moment, own, away, bins, scale, n, m, left, right, heads, group, q_b, q_h, q_n, k_b, k_h, k_n,
    D: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, BINS: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    """Of each row sum_j a_ij s_ij, a_ii and sum_j a_ij |i - j|; of each tile of rows the weight by distance.

    Bin 0 holds distance 0, bin p > 0 distances in [2^(p - 1), 2^p). Tiles are squares of
    TILE = 2^POWER: one that is no power of two tiles away lies in one bin.
    """
    here = tl.program_id(0) * TILE
    t, c, place = tl.arange(0, TILE), tl.arange(0, WIDTH), tl.arange(0, BINS)
    i, head = here + t, tl.program_id(1).to(tl.int64)
    b, h = head // heads, head % heads
    queries = tokens_of(q + b * q_b + h * q_h, i[:, None], q_n, c[None, :], D, WIDTH, (i < n)[:, None])
    logs = tl.load(z + head * n + i, mask=i < n, other=float("inf"))
    k = k + b * k_b + (h // group) * k_h
    # Keys of [first, last) are heard by some row, those of [full, rest) by all of them.
    first = tl.maximum(0, here - left) // TILE * TILE
    full = tl.minimum(tl.cdiv(tl.maximum(0, here + TILE - 1 - left), TILE) * TILE, here)
    last = tl.minimum(m, here + TILE + right)
    rest = here + TILE + tl.maximum(tl.minimum(m, here + right + 1) - here - TILE, 0) // TILE * TILE
    behind, ahead = _powers((here - full) // TILE), _powers((rest - here) // TILE - 1)
    moments, itself, far = tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32), tl.zeros([TILE], tl.float32)
    histogram, one = tl.zeros([BINS], tl.float32), tl.full([], 1, tl.int32)

    # Tiles across a border of the window, that of the rows themselves and its neighbours: pair by pair.
    entering, leaving = (full - first) // TILE, tl.cdiv(tl.maximum(last - rest, 0), TILE)
    beside = tl.minimum(behind, 1)
    for tile in range(entering + leaving + beside + tl.minimum(ahead, 1) + 1):
        start = tl.where(tile < entering, first + tile * TILE, rest + (tile - entering) * TILE)
        near = tile - entering - leaving
        start = tl.where(near == 0, here, tl.where(near > 0, tl.where(near <= beside, here - TILE, here + TILE), start))
        j = start + t
        keys = tokens_of(k, j[None, :], k_n, c[:, None], D, WIDTH, (j < m)[None, :])
        products, weights = weights_of(queries, keys, logs[:, None], scale)
        admitted = (i[:, None] - j[None, :] <= left) & (j[None, :] - i[:, None] <= right) & (j[None, :] < m)
        weights = tl.where(admitted, weights, 0.0)
        moments += tl.sum(weights * tl.where(admitted, products, 0.0), 1)
        distance = tl.abs(i[:, None] - j[None, :])
        itself += tl.sum(tl.where(distance == 0, weights, 0.0), 1)
        far += tl.sum(weights * distance.to(tl.float32), 1)
        middle = tl.abs(here - start)
        for p in range(_powers(tl.maximum(middle - TILE, 0)), _powers(middle + TILE) + 1):
            low = tl.where(p == 0, 0, one << tl.maximum(p - 1, 0))
            inside = (distance >= low) & (distance < one << p)
            histogram += tl.where(place == p, tl.sum(tl.where(inside, weights, 0.0)), 0.0)

    # A tile 2^p tiles away, p > 0, lies in two bins, which its diagonal divides: before the rows, then behind them.
    backward = tl.maximum(behind - 1, 0)
    for tile in range(backward + tl.maximum(ahead - 1, 0)):
        p, side = tl.where(tile < backward, tile, tile - backward) + 1, tl.where(tile < backward, 1, -1)
        start = here - side * (TILE << p)
        keys = tokens_of(k, (start + t)[None, :], k_n, c[:, None], D, WIDTH, None)
        products, weights = weights_of(queries, keys, logs[:, None], scale)
        row, nearer = tl.sum(weights, 1), (t * side)[:, None] < (t * side)[None, :]
        moments += tl.sum(weights * products, 1)
        far += side * ((i - start).to(tl.float32) * row - tl.sum(weights * t.to(tl.float32)[None, :], 1))
        inner = tl.sum(tl.where(nearer, weights, 0.0), 1)
        histogram += tl.where(place == POWER + p, tl.sum(inner), 0.0)
        histogram += tl.where(place == POWER + p + 1, tl.sum(row - inner), 0.0)

    # Between two powers of two, before the rows and behind them in turn, a tile lies in one bin.
    for stretch in range(2 * tl.maximum(behind, ahead)):
        near, side = TILE << (stretch // 2), 1 - 2 * (stretch % 2)
        begin = tl.where(side > 0, tl.maximum(full, here - 2 * near + TILE), here + near + TILE)
        end = tl.where(side > 0, here - near, tl.minimum(rest, here + 2 * near))
        heard = tl.zeros([TILE], tl.float32)
        for start in range(begin, end, TILE):
            j = start + t
            keys = tokens_of(k, j[None, :], k_n, c[:, None], D, WIDTH, None)
            products, weights = weights_of(queries, keys, logs[:, None], scale)
            row = tl.sum(weights, 1)
            moments += tl.sum(weights * products, 1)
            far += side * ((i - start).to(tl.float32) * row - tl.sum(weights * t.to(tl.float32)[None, :], 1))
            heard += row
        histogram += tl.where(place == POWER + 1 + stretch // 2, tl.sum(heard), 0.0)

    row = head * n + i
    tl.store(moment + row, moments * scale, mask=i < n)
    tl.store(own + row, itself, mask=i < n)
    tl.store(away + row, far, mask=i < n)
    tl.store(bins + (head * tl.num_programs(0) + tl.program_id(0)) * BINS + place, histogram)


def window_bounds(left: int, right: int) -> tuple[int, int]:
    """Both sides of a window as kernels compare them, -1 (no bound) as a number that no distance reaches."""
    return FARTHEST if left < 0 else left, FARTHEST if right < 0 else right


def options(q: torch.Tensor) -> dict[str, int]:
    """Sizes of the kernels' tiles, their warps and registers (`benchmarks/checkpoints_gpu.py --tiles`)."""
    tile = 16 if INTERPRETED.value else 32 if q.dtype == torch.float32 else 64
    width = max(16, triton.next_power_of_2(q.shape[-1]))
    sizes = {"D": q.shape[-1], "WIDTH": width, "TILE": tile}
    if q.dtype == torch.float32:  # products without tensor cores hold rows of both factors
        return sizes | {"num_warps": 8}
    # With 168 registers a thread three blocks share a multiprocessor, and nothing is spilled.
    return sizes | {"num_warps": 4, "maxnreg": 168}


def sums(
    q: torch.Tensor, k: torch.Tensor, z: torch.Tensor, scale: float, left: int, right: int, groups: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over the weights exp(scale <q_i, k_j> - z_i) of pairs with -right <= i - j <= left (-1: no bound).

    Args:
        q: (b, h, n, d), float32 or a half type.
        k: (b, h_kv, m, d).
        z: (b, h, n) log-partition in float32.
        scale: Of the scores.
        left: Keys before the query that it hears.
        right: Keys after it.
        groups: Number of groups of consecutive queries, as equal as they can be.

    Returns:
        Mass of every key by group (b, h, groups, m), entropy (b, h, n), weight on itself (b, h, n), sum_j a_ij |i - j|
        (b, h, n), and weight by distance summed over rows, (b, h, bins) for distances 0, [1, 2), [2, 4), ..., 32 bins.
    """
    (b, h, n, _), (_, kv, m, _) = q.shape, k.shape
    q, k, z = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, z.contiguous()))
    shape = options(q)
    tile = shape["TILE"]
    bounds = window_bounds(left, right)
    strides = q.stride()[:3] + k.stride()[:3]
    received = torch.empty(b, h, groups, m, dtype=torch.float32, device=q.device)
    moment, own, away = (torch.empty(b, h, n, dtype=torch.float32, device=q.device) for _ in range(3))
    tiles = triton.cdiv(n, tile)
    bins = torch.empty(b, h, tiles, 32, dtype=torch.float32, device=q.device)
    with on_device(q):
        by_key[(triton.cdiv(m, tile), b * h)](
            q, k, z, received, scale, n, m, *bounds, groups, h, h // kv, *strides, **shape
        )
        by_query[(tiles, b * h)](
            q, k, z, moment, own, away, bins, scale, n, m, *bounds, h, h // kv, *strides, BINS=32,
            POWER=tile.bit_length() - 1, **shape,
        )  # fmt: skip
    return received, (z - moment).clamp_min(0), own, away, bins.sum(-2)
