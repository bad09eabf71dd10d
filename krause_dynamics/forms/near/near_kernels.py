"""Compiled loops over candidate ranges: which candidates are admitted, sums over them, and their list."""

from __future__ import annotations

import numpy as np

from krause_dynamics._compiled import njit

CHUNK = 256  # candidates judged at once; the buffers stay in the first-level cache
PAD = 16  # loops run over multiples of this, so that no vector loop has a remainder; arrays are padded accordingly


def padded(rows: np.ndarray) -> np.ndarray:
    """Rows (k, m) continued by `PAD` zeros, C-contiguous."""
    return np.concatenate([rows, np.zeros((rows.shape[0], PAD), rows.dtype)], axis=1)


@njit()
def _judge(queries, i, points, first, count, limit, squared, mask):
    """``mask[t]`` is -1 where candidate ``first + t`` is admitted by query i, else 0; returns the padded count.

    Direct differences as `Within` takes them: in one dimension ``limit`` bounds the distance, in more the square, and
    coordinates add up in order.
    """
    full = (count + PAD - 1) // PAD * PAD
    x, row = queries[0, i], points[0, first : first + full]
    if queries.shape[0] == 1:
        for t in range(full):
            mask[t] = -1 if abs(row[t] - x) <= limit else 0
    elif queries.shape[0] == 2:
        y, other = queries[1, i], points[1, first : first + full]
        for t in range(full):
            mask[t] = -1 if (row[t] - x) * (row[t] - x) + (other[t] - y) * (other[t] - y) <= limit else 0
    else:
        for t in range(full):
            squared[t] = (row[t] - x) * (row[t] - x)
        for axis in range(1, queries.shape[0]):
            y, other = queries[axis, i], points[axis, first : first + full]
            for t in range(full):
                squared[t] += (other[t] - y) * (other[t] - y)
        for t in range(full):
            mask[t] = -1 if squared[t] <= limit else 0
    for t in range(count, full):
        mask[t] = 0
    return full


@njit()
def _planar(queries, i, points, first, last, limit, columns, out):
    """`sums` over one range in the case met most, two dimensions and five columns: one loop, all in registers.

    The loop runs over whole vectors, the rest masked: a remainder loop would cost as much as the vectors.
    """
    x, y = queries[0, i], queries[1, i]
    end = last + PAD
    px, py, c0, c1 = points[0, first:end], points[1, first:end], columns[0, first:end], columns[1, first:end]
    c2, c3, c4 = columns[2, first:end], columns[3, first:end], columns[4, first:end]
    a0 = a1 = a2 = a3 = a4 = np.int64(0)
    count = last - first
    for t in range((count + PAD - 1) // PAD * PAD):
        dx, dy = px[t] - x, py[t] - y
        mask = np.int64(-1) if (dx * dx + dy * dy <= limit) & (t < count) else np.int64(0)
        a0 += c0[t] & mask
        a1 += c1[t] & mask
        a2 += c2[t] & mask
        a3 += c3[t] & mask
        a4 += c4[t] & mask
    out[i, 0] += a0
    out[i, 1] += a1
    out[i, 2] += a2
    out[i, 3] += a3
    out[i, 4] += a4


@njit()
def sums(queries, points, limits, groups, starts, firsts, lasts, whole, columns, prefixes, own, out):
    """Sum integer ``columns`` (K, m) over the admitted candidates of each query: ``out`` (n, K).

    Args:
        queries: (d, n).
        points: (d, m), `padded`, in the order of the ranges.
        limits: (n,) or (1,), bound on the distance (d = 1) or its square.
        groups: (n,), queries of one group share their candidates.
        starts: (groups + 1,), group g owns ranges ``starts[g]:starts[g + 1]``.
        firsts: First candidate of a range.
        lasts: One past the last.
        whole: Whether a range is admitted without judging (then ``prefixes`` gives its sum).
        columns: (K, m) integers, `padded`.
        prefixes: (K, m + 1) running sums, or (K, 1) where no range is whole.
        own: (n,) place of the query's own point which is left out, or -1.
        out: (n, K).
    """
    squared, mask = np.empty(CHUNK), np.empty(CHUNK, np.int64)
    planar = queries.shape[0] == 2 and columns.shape[0] == 5
    for i in range(queries.shape[1]):
        limit = limits[i if limits.size > 1 else 0]
        for k in range(columns.shape[0]):
            out[i, k] = 0
        for r in range(starts[groups[i]], starts[groups[i] + 1]):
            if whole[r]:
                for k in range(columns.shape[0]):
                    out[i, k] += prefixes[k, lasts[r]] - prefixes[k, firsts[r]]
                continue
            if planar:
                _planar(queries, i, points, firsts[r], lasts[r], limit, columns, out)
                continue
            for first in range(firsts[r], lasts[r], CHUNK):
                count = min(CHUNK, lasts[r] - first)
                full = _judge(queries, i, points, first, count, limit, squared, mask)
                for k in range(columns.shape[0]):
                    row = columns[k, first : first + full]
                    total = np.int64(0)
                    for t in range(full):
                        total += row[t] & mask[t]
                    out[i, k] += total
        if own[i] >= 0:
            _judge(queries, i, points, own[i], 1, limit, squared, mask)
            for k in range(columns.shape[0]):
                out[i, k] -= columns[k, own[i]] & mask[0]


@njit()
def pairs(queries, points, limits, groups, starts, firsts, lasts, own):
    """The admitted candidates themselves: ``members[bounds[i]:bounds[i + 1]]`` of query i; ranges as in `sums`."""
    squared, mask = np.empty(CHUNK), np.empty(CHUNK, np.int64)
    members, bounds = np.empty(1024, np.int64), np.empty(queries.shape[1] + 1, np.int64)
    used = 0
    for i in range(queries.shape[1]):
        bounds[i] = used
        limit = limits[i if limits.size > 1 else 0]
        for r in range(starts[groups[i]], starts[groups[i] + 1]):
            for first in range(firsts[r], lasts[r], CHUNK):
                count = min(CHUNK, lasts[r] - first)
                _judge(queries, i, points, first, count, limit, squared, mask)
                if used + CHUNK > members.size:
                    grown = np.empty(2 * members.size, np.int64)
                    grown[:used] = members[:used]
                    members = grown
                for t in range(count):
                    members[used] = first + t
                    used += 1 if mask[t] != 0 and first + t != own[i] else 0
    bounds[queries.shape[1]] = used
    return members[:used], bounds
