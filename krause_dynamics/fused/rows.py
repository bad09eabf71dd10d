"""Row kernels of banded attention for the CPU (numba): one query row at a time, scores of its neighbourhood only.

Distances are direct differences: no cancellation for tokens far from the origin, and a key that is not admitted is
never read, whatever it holds. The k-th largest score of a row is found by bisection on the ordered-integer image of
the scores, whose number of steps does not depend on the data.

No torch here: the kernels see numpy views, release the interpreter lock and are cached on disk.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

_PLAIN: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}
# Reassociation lets sums vectorise; "contract" allows fused multiply-adds. NaN and infinities keep their meaning.
_SUMS: dict[str, Any] = {**_PLAIN, "fastmath": {"reassoc", "contract"}}
# Extremes vectorise only without NaN, which the caller has excluded.
_EXTREMES: dict[str, Any] = {**_PLAIN, "fastmath": {"reassoc", "contract", "nnan", "nsz"}}

CHEBYSHEV = 0
INTERPOLATIONS, SHARE = 8, 0.05  # probes by interpolation before bisection alone; how near to an end they may fall


class Layout(NamedTuple):
    """Whole numbers that describe a call; the kernels see them as one argument."""

    heads: int
    kv_heads: int
    mass_heads: int  # 0: no masses, 1: shared by the heads of a batch element, else one row per head
    offset: int  # position of the first query among the keys
    distance: int  # 1: score -a/2 |q-k|^2, 0: a <q,k>
    top_k: int  # 0: all admitted keys stay
    keep_ties: int
    height: int  # 0: no grid
    width: int
    radius: int
    metric: int
    prefix: int
    wide_rows: int  # leading rows that may hear every key, and the bytes of their packed selection
    wide_bytes: int
    row_bytes: int
    seed: int


class Arrays(NamedTuple):
    """Inputs of a call as C-contiguous numpy views.

    Attributes:
        q: (batch heads, n, d).
        k: (batch kv_heads, m, d).
        v: (batch kv_heads, m, d_v).
        scale: (batch heads,) coefficient a of the score.
        mass: (batch mass_heads, m) log masses, -inf for keys that are not there.
        pair: Flat storage of the pair bias (size 0: none).
        strides: (4,) its strides over (batch, heads, n, m).
        lower: (n,) first key of each row's interval.
        upper: (n,) last key of each row's interval.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    scale: np.ndarray
    mass: np.ndarray
    pair: np.ndarray
    strides: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@njit(**_PLAIN)
def _fill_ranges(position, sources, lower, upper, layout, ranges):
    """Ascending, disjoint [begin, end) ranges of keys that index rules admit to a row; returns their number."""
    # Here and below: only what is needed is passed, since a call would copy all of `Arrays`, reference counts included.
    prefix, width = layout.prefix, layout.width
    lower = max(lower, 0)
    upper = min(upper + 1, sources)
    if layout.height == 0 or position < prefix:
        ranges[0, 0] = lower
        ranges[0, 1] = upper
        return 1 if upper > lower else 0
    number = 0
    if min(upper, prefix) > lower:
        ranges[0, 0] = lower
        ranges[0, 1] = min(upper, prefix)
        number = 1
    row = (position - prefix) // width
    column = (position - prefix) - row * width
    for r in range(max(0, row - layout.radius), min(layout.height, row + layout.radius + 1)):
        reach = layout.radius if layout.metric == CHEBYSHEV else layout.radius - abs(r - row)
        begin = max(lower, prefix + r * width + max(0, column - reach))
        end = min(upper, prefix + r * width + min(width - 1, column + reach) + 1)
        if end > begin:
            ranges[number, 0] = begin
            ranges[number, 1] = end
            number += 1
    return number


@njit(**_SUMS)
def _distances(query, keys, begin, end, out, start):
    """out[start + j - begin] = |query - keys[j]|^2 by direct differences."""
    for j in range(begin, end):
        key = keys[j]
        total = out.dtype.type(0)
        for c in range(key.shape[0]):
            difference = query[c] - key[c]
            total += difference * difference
        out[start + j - begin] = total


@njit(**_SUMS)
def _products(query, keys, begin, end, out, start):
    """out[start + j - begin] = <query, keys[j]>."""
    for j in range(begin, end):
        key = keys[j]
        total = out.dtype.type(0)
        for c in range(key.shape[0]):
            total += query[c] * key[c]
        out[start + j - begin] = total


@njit(**_PLAIN)
def _measure(query, keys, ranges, number, distance, out):
    """Raw distances or products of one row over its ranges; returns how many."""
    # No slices here and in what follows: making one costs as much as ten keys.
    count = 0
    for r in range(number):
        begin, end = ranges[r, 0], ranges[r, 1]
        if distance:
            _distances(query, keys, begin, end, out, count)
        else:
            _products(query, keys, begin, end, out, count)
        count += end - begin
    return count


@njit(**_SUMS)
def _count_nan(values, count):
    total = values.dtype.type(0)
    for t in range(count):
        total += values.dtype.type(1) if values[t] != values[t] else values.dtype.type(0)
    return total


@njit(**_EXTREMES)
def _extremes(values, count):
    """Largest value and smallest one above -inf."""
    infinity = values.dtype.type(np.inf)
    high, low = -infinity, infinity
    for t in range(count):
        value = values[t]
        high = value if value > high else high
        low = value if (value < low) & (value > -infinity) else low
    return low, high


@njit(**_SUMS)
def _count_from(values, count, bound):
    """How many values are at least bound; counted in floating point, which vectorises and is exact here."""
    total = values.dtype.type(0)
    for t in range(count):
        total += values.dtype.type(1) if values[t] >= bound else values.dtype.type(0)
    return int(total)


@njit(**_PLAIN)
def _ordered(bits, mask):
    """Integer image of a float's bits that sorts as the floats do; its own inverse."""
    return bits if bits >= 0 else bits ^ mask


@njit(**_PLAIN)
def _image(value, cell, cell_bits, mask):
    cell[0] = value
    return np.int64(_ordered(np.int64(cell_bits[0]), mask))


@njit(**_PLAIN)
def _kth_largest(values, count, k, cell, cell_bits, mask):
    """A bound which k values reach, or else the k-th largest value (when it ties); and how many reach it."""
    low, high = _extremes(values, count)
    reached = _count_from(values, count, low)
    below, above = _image(low, cell, cell_bits, mask), _image(high, cell, cell_bits, mask) + 1
    beyond, probes = 0, 0
    while above > below + 1 and reached != k:  # their difference may overflow
        middle = (below >> 1) + (above >> 1) + (below & above & 1)
        if probes < INTERPOLATIONS:
            # Ordinary scores spread evenly enough that a straight line finds the place in half the probes.
            share = min(max(values.dtype.type(reached - k) / values.dtype.type(reached - beyond), SHARE), 1 - SHARE)
            guess = _image(low + values.dtype.type(share) * (high - low), cell, cell_bits, mask)
            middle = guess if below < guess < above else middle
            probes += 1
        cell_bits[0] = _ordered(middle, mask)
        seen = _count_from(values, count, cell[0])
        if seen >= k:
            below, reached, low = middle, seen, cell[0]
        else:
            above, beyond, high = middle, seen, cell[0]
    cell_bits[0] = _ordered(below, mask)
    return cell[0], reached


@njit(**_SUMS)
def _exponentials(values, count, integers, floats):
    """Exp in place for float32 values <= 0 (or NaN), to about two units in the last place, without branches.

    Cephes' polynomial after splitting off the power of two, whose bits are written through the integer view of
    ``floats``; what is below exp(-87), the smallest normal number, becomes 0.
    """
    for t in range(count):
        x = values[t]
        n = np.floor(max(x, np.float32(-87.0)) * np.float32(1.44269504) + np.float32(0.5))
        r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        integers[t] = (np.int32(n) + np.int32(127)) << np.int32(23)
        values[t] = np.float32(0) if x < np.float32(-87.0) else p * r * r + r + np.float32(1)
    for t in range(count):
        values[t] *= floats[t]


@njit(**_PLAIN)
def _exponentiate(values, count, integers, floats):
    """Exp in place: the vectorised form for single precision, the library's for double."""
    if values.itemsize == 4:
        _exponentials(values, count, integers, floats)
    else:
        for t in range(count):
            values[t] = np.exp(values[t])


@njit(**_PLAIN)
def _kept(seed, row, column, dropout):
    """Whether dropout keeps a pair: a counter-based hash, so that the backward pass draws the same mask."""
    h = (seed ^ (row * 73856093) ^ (column * 19349663)) & 0xFFFFFFFF
    for _ in range(3):
        h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
    h = h ^ (h >> 16)
    return h >= dropout * 4294967296.0


@njit(**_PLAIN)
def _fill_columns(ranges, number, columns):
    count = 0
    for r in range(number):
        for j in range(ranges[r, 0], ranges[r, 1]):
            columns[count] = j
            count += 1


@njit(**_PLAIN)
def _pair_base(x, i, layout, strides):
    """Where row i of head x begins in the storage of the pair bias."""
    batch = x // layout.heads
    return batch * strides[0] + (x - batch * layout.heads) * strides[1] + i * strides[2]


@njit(**_PLAIN)
def _scale_scores(scores, count, factor):
    for t in range(count):
        scores[t] *= factor


@njit(**_PLAIN)
def _add_pairs(scores, count, columns, pair, base, stride):
    for t in range(count):
        scores[t] += pair[base + columns[t] * stride]


@njit(**_PLAIN)
def _forbid_absent(scores, count, columns, mass):
    """-inf for keys without mass. Masses themselves join after the ranking."""
    nobody = scores.dtype.type(-np.inf)
    for t in range(count):
        if mass[columns[t]] == nobody:
            scores[t] = nobody


@njit(**_PLAIN)
def _add_mass(values, count, columns, mass):
    for s in range(count):
        values[s] += mass[columns[s]]


@njit(**_PLAIN)
def _select(scores, count, top_k, keep_ties, chosen, cell, cell_bits, mask):
    """Positions in the row which stay, ascending; returns their number (-1: the row holds a NaN and all stay)."""
    lowest = scores.dtype.type(-np.inf)
    broken = _count_nan(scores, count) > 0
    bound, number, quota = lowest, 0, count
    valid = count - _count_equal(scores, count, lowest)
    if broken or (valid == count and not 0 < top_k < count):
        for t in range(count):
            chosen[t] = t
        return -1 if broken else count
    if 0 < top_k < valid:
        bound, reached = _kth_largest(scores, count, top_k, cell, cell_bits, mask)
        quota = count if reached == top_k or keep_ties else top_k - _count_above(scores, count, bound)
        if quota < count:
            for t in range(count):
                tie = scores[t] == bound
                chosen[number] = t
                number += 1 if scores[t] > bound or (tie and quota > 0) else 0
                quota -= 1 if tie else 0
            return number
    for t in range(count):
        chosen[number] = t
        number += 1 if scores[t] >= bound and scores[t] > lowest else 0
    return number


@njit(**_SUMS)
def _count_equal(values, count, bound):
    total = values.dtype.type(0)
    for t in range(count):
        total += values.dtype.type(1) if values[t] == bound else values.dtype.type(0)
    return int(total)


@njit(**_SUMS)
def _count_above(values, count, bound):
    total = values.dtype.type(0)
    for t in range(count):
        total += values.dtype.type(1) if values[t] > bound else values.dtype.type(0)
    return int(total)


@njit(**_SUMS)
def _sum(values, count):
    total = values.dtype.type(0)
    for t in range(count):
        total += values[t]
    return total


@njit(**_SUMS)
def _weighted_rows(weights, columns, count, values, out):
    """Out = sum_s weights[s] values[columns[s]], eight rows per pass."""
    for c in range(out.shape[0]):
        out[c] = 0
    whole = count - count % 8
    for s in range(0, whole, 8):
        w0, w1, w2, w3 = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
        w4, w5, w6, w7 = weights[s + 4], weights[s + 5], weights[s + 6], weights[s + 7]
        r0, r1 = values[columns[s]], values[columns[s + 1]]
        r2, r3 = values[columns[s + 2]], values[columns[s + 3]]
        r4, r5 = values[columns[s + 4]], values[columns[s + 5]]
        r6, r7 = values[columns[s + 6]], values[columns[s + 7]]
        for c in range(out.shape[0]):
            first = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c]
            out[c] += first + (w4 * r4[c] + w5 * r5[c] + w6 * r6[c] + w7 * r7[c])
    for s in range(whole, count):
        w0, r0 = weights[s], values[columns[s]]
        for c in range(out.shape[0]):
            out[c] += w0 * r0[c]


@njit(**_PLAIN)
def _store_bits(bits, chosen, number):
    for s in range(number):
        bits[chosen[s] >> 3] |= np.uint8(1 << (chosen[s] & 7))


@njit(**_PLAIN)
def _load_bits(bits, count, chosen):
    number = 0
    for t in range(count):
        chosen[number] = t
        number += (bits[t >> 3] >> (t & 7)) & 1
    return number


@njit(**_PLAIN)
def _bits_begin(i, layout):
    """Where row i starts in the packed selection: rows that hear all take wide_bytes, the others row_bytes."""
    if i < layout.wide_rows:
        return i * layout.wide_bytes
    return layout.wide_rows * layout.wide_bytes + (i - layout.wide_rows) * layout.row_bytes


@njit(**_PLAIN)
def _pick(scores, columns, count, kept, picked, chosen):
    """Scores and keys at the chosen positions; the latter replace the positions."""
    if kept == count:
        for s in range(count):
            picked[s] = scores[s]
            chosen[s] = columns[s]
        return
    for s in range(kept):
        picked[s] = scores[chosen[s]]
        chosen[s] = columns[chosen[s]]


@njit(**_PLAIN)
def _drop(weights, columns, count, dropout, seed, row):
    scale = weights.dtype.type(1.0 / (1.0 - dropout))
    for s in range(count):
        weights[s] = weights[s] * scale if _kept(seed, row, columns[s], dropout) else weights.dtype.type(0)


@njit(**_PLAIN)
def _shift_exponentiate(values, count, shift, integers, floats):
    for s in range(count):
        values[s] -= shift
    _exponentiate(values, count, integers, floats)


@njit(**_PLAIN)
def forward(rows, layout, arrays, dropout, scratch, scratch_bits, out, log_partition, bits):
    """Output, log-partition and packed selection of the flattened rows (head x, query i -> x n + i) in ``rows``.

    Args:
        rows: (2,) first row and one past the last.
        layout: `Layout`.
        arrays: `Arrays`.
        dropout: Probability to drop a weight.
        scratch: (4, longest row) working memory of this thread.
        scratch_bits: Integer view of the same memory.
        out: Result (batch heads, n, d_v).
        log_partition: Result (batch heads, n).
        bits: Result (batch heads, bytes), zeroed before; size 0: not wanted.
    """
    n, m = arrays.q.shape[1], arrays.k.shape[1]
    columns = np.empty(scratch.shape[1], np.int32)
    chosen = np.empty(scratch.shape[1], np.int32)
    ranges = np.empty((2 * layout.radius + 3, 2), np.int64)
    mask = np.int64(0x7FFFFFFF) if scratch.itemsize == 4 else np.int64(0x7FFFFFFFFFFFFFFF)
    group = layout.heads // layout.kv_heads
    distance, unit = layout.distance == 1, scratch.dtype.type(-0.5 if layout.distance == 1 else 1.0)
    q, k, v, scale, mass = arrays.q, arrays.k, arrays.v, arrays.scale, arrays.mass
    pair, strides, lower, upper = arrays.pair, arrays.strides, arrays.lower, arrays.upper
    shared = layout.heads if layout.mass_heads == 1 else 1  # heads that read one row of masses
    scores, picked, cell, power = scratch[0], scratch[1], scratch[2], scratch[3]
    cell_bits, power_bits = scratch_bits[2], scratch_bits[3]
    for x in range(rows[0] // n, (rows[1] + n - 1) // n):
        keys, values, queries, outputs = k[x // group], v[x // group], q[x], out[x]
        for i in range(max(rows[0] - x * n, 0), min(rows[1] - x * n, n)):
            number = _fill_ranges(i + layout.offset, m, lower[i], upper[i], layout, ranges)
            count = _measure(queries[i], keys, ranges, number, distance, scores)
            _fill_columns(ranges, number, columns)
            _scale_scores(scores, count, scale[x] * unit)
            if pair.size > 0:
                _add_pairs(scores, count, columns, pair, _pair_base(x, i, layout, strides), strides[3])
            if layout.mass_heads > 0:
                _forbid_absent(scores, count, columns, mass[x // shared])
            found = _select(scores, count, layout.top_k, layout.keep_ties == 1, chosen, cell, cell_bits, mask)
            kept = count if found < 0 else found
            if kept == 0:
                out[x, i, :] = 0
                log_partition[x, i] = -np.inf
                continue
            if bits.size > 0:
                _store_bits(bits[x, _bits_begin(i, layout) :], chosen, kept)
            _pick(scores, columns, count, kept, picked, chosen)
            if layout.mass_heads > 0:
                _add_mass(picked, kept, chosen, mass[x // shared])
            largest = _extremes(picked, kept)[1] if found > 0 else picked[0]
            _shift_exponentiate(picked, kept, largest, power_bits, power)
            total = _sum(picked, kept)
            log_partition[x, i] = (largest + np.log(total)) if found > 0 else picked.dtype.type(np.nan)
            inverse = picked.dtype.type(1) / total if found > 0 else picked.dtype.type(np.nan)
            for s in range(kept):
                picked[s] *= inverse
            if dropout > 0:
                _drop(picked, chosen, kept, dropout, layout.seed, x * n + i)
            _weighted_rows(picked, chosen, kept, values, outputs[i])


@njit(**_SUMS)
def _weighted_differences(weights, columns, count, keys, query, out):
    """Out = sum_s weights[s] (keys[columns[s]] - query), four rows per pass."""
    for c in range(out.shape[0]):
        out[c] = 0
    whole = count - count % 4
    for s in range(0, whole, 4):
        w0, w1, w2, w3 = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
        r0, r1 = keys[columns[s]], keys[columns[s + 1]]
        r2, r3 = keys[columns[s + 2]], keys[columns[s + 3]]
        for c in range(out.shape[0]):
            x = query[c]
            out[c] += w0 * (r0[c] - x) + w1 * (r1[c] - x) + w2 * (r2[c] - x) + w3 * (r3[c] - x)
    for s in range(whole, count):
        w0, r0 = weights[s], keys[columns[s]]
        for c in range(out.shape[0]):
            out[c] += w0 * (r0[c] - query[c])


@njit(**_SUMS)
def _scatter(weights, columns, count, vector, out):
    """out[columns[s]] += weights[s] vector."""
    for s in range(count):
        weight, row = weights[s], out[columns[s]]
        for c in range(row.shape[0]):
            row[c] += weight * vector[c]


@njit(**_SUMS)
def _scatter_differences(weights, columns, count, vector, keys, out):
    """out[columns[s]] += weights[s] (vector - keys[columns[s]])."""
    for s in range(count):
        weight, row, key = weights[s], out[columns[s]], keys[columns[s]]
        for c in range(row.shape[0]):
            row[c] += weight * (vector[c] - key[c])


@njit(**_PLAIN)
def _is_zero(row):
    for c in range(row.shape[0]):  # noqa: SIM110  (numba has no generator expressions)
        if row[c] != 0:
            return False
    return True


@njit(**_PLAIN)
def backward(
    heads,
    layout,
    arrays,
    dropout,
    scratch,
    scratch_bits,
    log_partition,
    bits,
    grad_out,
    grad_log_partition,
    grad_q,
    grad_k,
    grad_v,
    grad_scale,
    grad_mass,
    grad_pair,
):
    """Gradients of the key heads heads[0]..heads[1]-1 and of the queries that read them; same rows as `forward`.

    Args:
        heads: (2,) first key head (of the flattened batch) and one past the last: no two threads share a key head.
        layout: `Layout`.
        arrays: `Arrays`.
        dropout: Probability to drop a weight.
        scratch: (6, longest row) working memory of this thread.
        scratch_bits: Integer view of the same memory.
        log_partition: From `forward`.
        bits: Selection from `forward`; size 0: all admitted keys stayed.
        grad_out: (batch heads, n, d_v).
        grad_log_partition: (batch heads, n).
        grad_q: Result (batch heads, n, d), zeroed before.
        grad_k: Result (batch kv_heads, m, d), zeroed before.
        grad_v: Result (batch kv_heads, m, d_v), zeroed before.
        grad_scale: Result (batch heads,), zeroed before.
        grad_mass: Result (batch heads, m), zeroed before; size 0: not wanted.
        grad_pair: Result (batch heads, n, m), zeroed before; size 0: not wanted.
    """
    n, m = arrays.q.shape[1], arrays.k.shape[1]
    columns = np.empty(scratch.shape[1], np.int32)
    chosen = np.empty(scratch.shape[1], np.int32)
    ranges = np.empty((2 * layout.radius + 3, 2), np.int64)
    mask = np.int64(0x7FFFFFFF) if scratch.itemsize == 4 else np.int64(0x7FFFFFFFFFFFFFFF)
    group = layout.heads // layout.kv_heads
    distance, unit = layout.distance == 1, scratch.dtype.type(-0.5 if layout.distance == 1 else 1.0)
    q, k, v, scale, mass = arrays.q, arrays.k, arrays.v, arrays.scale, arrays.mass
    pair, strides, lower, upper = arrays.pair, arrays.strides, arrays.lower, arrays.upper
    shared = layout.heads if layout.mass_heads == 1 else 1  # heads that read one row of masses
    scores, weights, raw, slopes = scratch[0], scratch[1], scratch[4], scratch[5]
    cell, cell_bits, power, power_bits = scratch[2], scratch_bits[2], scratch[3], scratch_bits[3]
    for flat in range(heads[0] * group * n, heads[1] * group * n):
        x = flat // n
        i = flat - x * n
        if grad_log_partition[x, i] == 0 and _is_zero(grad_out[x, i]):
            continue  # padded rows: whatever they hold, nobody asked
        y = x // group
        number = _fill_ranges(i + layout.offset, m, lower[i], upper[i], layout, ranges)
        count = _measure(q[x, i], k[y], ranges, number, distance, scores)
        _fill_columns(ranges, number, columns)
        for t in range(count):
            raw[t] = scores[t]
        _scale_scores(scores, count, scale[x] * unit)
        if pair.size > 0:
            _add_pairs(scores, count, columns, pair, _pair_base(x, i, layout, strides), strides[3])
        if layout.mass_heads > 0:
            _forbid_absent(scores, count, columns, mass[x // shared])
        if bits.size > 0:
            kept = _load_bits(bits[x, _bits_begin(i, layout) :], count, chosen)
        else:
            found = _select(scores, count, 0, False, chosen, cell, cell_bits, mask)
            kept = count if found < 0 else found
        for s in range(kept):
            raw[s] = raw[chosen[s]] * unit
        _pick(scores, columns, count, kept, weights, chosen)
        if layout.mass_heads > 0:
            _add_mass(weights, kept, chosen, mass[x // shared])
        _shift_exponentiate(weights, kept, log_partition[x, i], power_bits, power)
        # dL/dp_j = keep_j <g, v_j>; softmax: dL/ds_j = p_j (dL/dp_j - sum_l p_l dL/dp_l + dL/dlogZ).
        _gathered_products(grad_out[x, i], v[y], chosen, kept, slopes)
        dropped = weights
        if dropout > 0:
            dropped = scratch[0]
            dropped[:kept] = 1
            _drop(dropped, chosen, kept, dropout, layout.seed, flat)
            for s in range(kept):
                slopes[s] *= dropped[s]
                dropped[s] *= weights[s]
        shift = grad_log_partition[x, i] - _dot(weights, slopes, kept)
        _scatter(dropped, chosen, kept, grad_out[x, i], grad_v[y])
        for s in range(kept):
            slopes[s] = weights[s] * (slopes[s] + shift)
        grad_scale[x] += _dot(slopes, raw, kept)
        if grad_mass.size > 0:
            for s in range(kept):
                grad_mass[x, chosen[s]] += slopes[s]
        if grad_pair.size > 0:
            for s in range(kept):
                grad_pair[x, i, chosen[s]] += slopes[s]
        for s in range(kept):
            slopes[s] *= scale[x]
        # ds/dq = a (k - q) and ds/dk = a (q - k) for distances, a k and a q for products.
        if distance:
            _weighted_differences(slopes, chosen, kept, k[y], q[x, i], grad_q[x, i])
            _scatter_differences(slopes, chosen, kept, q[x, i], k[y], grad_k[y])
        else:
            _weighted_rows(slopes, chosen, kept, k[y], grad_q[x, i])
            _scatter(slopes, chosen, kept, q[x, i], grad_k[y])


@njit(**_SUMS)
def _gathered_products(query, keys, columns, count, out):
    """out[s] = <query, keys[columns[s]]>."""
    for s in range(count):
        key = keys[columns[s]]
        total = out.dtype.type(0)
        for c in range(key.shape[0]):
            total += query[c] * key[c]
        out[s] = total


@njit(**_SUMS)
def _dot(x, y, count):
    total = x.dtype.type(0)
    for s in range(count):
        total += x[s] * y[s]
    return total
