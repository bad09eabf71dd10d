"""Attention one query row at a time: scores of exactly the admitted keys, at once turned into weights.

Distances are direct differences: no cancellation for tokens far from the origin, and a key that is not admitted is
never read, whatever it holds.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import (
    distances,
    dot,
    gathered_distances,
    gathered_products,
    is_zero,
    products,
    scale_by,
    scatter,
    scatter_differences,
    weighted_differences,
    weighted_vectors,
)
from krause_dynamics.forms.attention.cpu.compiled import entry, plain
from krause_dynamics.forms.attention.cpu.row import (
    bits_begin,
    compact,
    dropout_factors,
    first_row,
    multiply,
    restrict,
    select,
    slope,
    weigh,
    weigh_again,
)
from krause_dynamics.forms.attention.cpu.selection import chosen, store_bits

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

CHEBYSHEV = 0


@plain
def fill_ranges(position, lower, upper, first, end, layout, listed, ranges):
    """Ascending, disjoint [begin, end) ranges of keys that index rules admit to a row; returns their number."""
    # Here and below only what is needed is passed: a call would copy all of `Arrays`, reference counts included.
    if upper <= lower:
        return _fill_between(position, first, end, layout, listed, ranges, 0)
    number = 0
    if first < min(end, lower):
        number = _fill_between(position, first, min(end, lower), layout, listed, ranges, 0)
    number = _fill_between(position, lower, upper, layout, listed, ranges, number)
    if end > upper:
        number = _fill_between(position, max(first, upper), end, layout, listed, ranges, number)
    return number


@plain
def _fill_between(position, lower, upper, layout, listed, ranges, number):
    """Add the ranges within [lower, upper) to the first ``number``; returns how many there are then."""
    if upper <= lower:
        return number
    if position >= layout.prefix and listed.shape[0] > 0:
        return _fill_listed(position, lower, upper, listed, ranges, number)
    if position >= layout.prefix and layout.height > 0:
        return _fill_cells(position, lower, upper, layout, ranges, number)
    ranges[number, 0] = lower
    ranges[number, 1] = upper
    return number + 1


@plain
def _fill_listed(position, lower, upper, listed, ranges, number):
    """One range for each key of the position's list."""
    for s in range(listed.shape[1] if position >= 0 else 0):
        j = listed[position, s]
        if max(lower, 0) <= j < upper:
            ranges[number, 0] = j
            ranges[number, 1] = j + 1
            number += 1
    return number


@plain
def _fill_cells(position, lower, upper, layout, ranges, number):
    """The prefix, and the rows of cells within the radius."""
    prefix, width = layout.prefix, layout.width
    if min(upper, prefix) > lower:
        ranges[number, 0] = lower
        ranges[number, 1] = min(upper, prefix)
        number += 1
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


@plain
def measure(query, keys, start, step, ranges, number, distance, out, columns):
    """Half squared distances, negative, or products of a row over its ranges, and the keys' columns; how many."""
    count = 0
    for r in range(number):
        begin, end = ranges[r, 0], ranges[r, 1]
        if distance:
            distances(query, keys, start, step, begin, end, out, count)
        else:
            products(query, keys, start, step, begin, end, out, count)
        count += end - begin
    if distance:
        scale_by(out, count, out.dtype.type(-0.5))
    return list_columns(ranges, number, columns)


@plain
def list_columns(ranges, number, columns):
    """Columns of the keys of all ranges; how many."""
    count = 0
    for r in range(number):
        for j in range(ranges[r, 0], ranges[r, 1]):
            columns[count] = j
            count += 1
    return count


@plain
def measure_again(query, keys, start, step, columns, count, distance, out):
    """As `measure`, of the first columns."""
    if distance:
        gathered_distances(query, keys, start, step, columns, count, out)
        scale_by(out, count, out.dtype.type(-0.5))
    else:
        gathered_products(query, keys, start, step, columns, count, out)


@entry
def forward(rows, layout, arrays, dropout, scratch, out, log_partition, bits):
    """Output, log-partition and packed selection of the flattened rows (head x, query i -> x n + i) in ``rows``.

    Args:
        rows: (2,) first row and one past the last.
        layout: `Layout`.
        arrays: `Arrays`.
        dropout: Probability to drop a weight.
        scratch: (2, longest row) working memory of this thread.
        out: Result, rows of memory (batch n heads, d_v).
        log_partition: Result (batch heads, n).
        bits: Result (batch heads, bytes), zeroed before; size 0: not wanted.
    """
    n, heads, group = arrays.lower.shape[0], layout.heads, layout.heads // layout.kv_heads
    columns = np.empty(scratch.shape[1], np.int32)
    listed = arrays.listed
    ranges = np.empty((3 * (2 * layout.radius + 2) + listed.shape[1], 2), np.int64)
    q, k, v, scale, mass = arrays.q, arrays.k, arrays.v, arrays.scale, arrays.mass
    pair, strides, lower, upper = arrays.pair, arrays.strides, arrays.lower, arrays.upper
    beside = arrays.beside
    steps = arrays.steps
    q_step, k_step, v_step = steps[0, 2], steps[1, 2], steps[2, 2]
    scores, factors = scratch[0], scratch[1]
    for x in range(rows[0] // n, (rows[1] + n - 1) // n):
        batch, head = x // heads, x % heads
        apart = min(batch, beside.shape[0] - 1)  # -1: they are the first of all
        q_first, k_first = first_row(steps, 0, batch, head), first_row(steps, 1, batch, head // group)
        v_first = first_row(steps, 2, batch, head // group)
        for i in range(max(rows[0] - x * n, 0), min(rows[1] - x * n, n)):
            first, end = 0, min(layout.first, lower[i], upper[i])  # keys beside the window
            if apart >= 0:
                first, end = beside[apart, 0, i], beside[apart, 1, i]
            number = fill_ranges(i + layout.offset, lower[i], upper[i], first, end, layout, listed, ranges)
            query, mean = q[q_first + i * q_step], out[(batch * n + i) * heads + head]
            count = measure(query, k, k_first, k_step, ranges, number, layout.distance == 1, scores, columns)
            scale_by(scores, count, scale[x])
            restrict(scores, count, columns, x, i, layout, pair, strides, mass)
            stay = select(scores, count, layout, i + layout.offset)
            if stay == 0:
                mean[:] = 0
                log_partition[x, i] = -np.inf
                continue
            if bits.size > 0:
                store_bits(scores, count, bits[x], bits_begin(i, layout))
            if 0 <= stay < count:
                count = compact(scores, factors, columns, count)
            log_partition[x, i] = weigh(scores, count, columns, x, layout, mass)
            if stay < 0:
                log_partition[x, i] = np.nan
                scores[:count] = np.nan
            if dropout > 0:
                dropout_factors(factors, count, columns, dropout, layout.seed, x * n + i)
                multiply(scores, factors, count)
            weighted_vectors(scores, columns, count, v, v_first, v_step, mean)


@entry
def backward(
    heads, layout, arrays, dropout, scratch, log_partition, bits, grad_out, grad_log_partition, grads, steps,
    grad_scale, grad_mass, grad_pair,
):  # fmt: skip
    """Gradients of the key heads heads[0]..heads[1]-1 and of the queries that read them; same rows as `forward`.

    Args:
        heads: (2,) first key head (of the flattened batch) and one past the last: no two threads share a key head.
        layout: `Layout`.
        arrays: `Arrays`.
        dropout: Probability to drop a weight.
        scratch: (4, longest row) working memory of this thread.
        log_partition: From `forward`.
        bits: Selection from `forward`; size 0: all admitted keys stayed.
        grad_out: Rows of memory (., d_v).
        grad_log_partition: (batch heads, n).
        grads: Results for q, k and v, zeroed before: rows of memory.
        steps: (4, 3) steps of the three and of grad_out, as in `Arrays`.
        grad_scale: Result (batch heads, n), summed over rows by the caller.
        grad_mass: Result (batch heads, m), zeroed before; size 0: not wanted.
        grad_pair: Result (batch heads, n, m), zeroed before; size 0: not wanted.
    """
    n, group = arrays.lower.shape[0], layout.heads // layout.kv_heads
    columns = np.empty(scratch.shape[1], np.int32)
    listed = arrays.listed
    ranges = np.empty((3 * (2 * layout.radius + 2) + listed.shape[1], 2), np.int64)
    q, k, v, scale, mass = arrays.q, arrays.k, arrays.v, arrays.scale, arrays.mass
    pair, strides, lower, upper = arrays.pair, arrays.strides, arrays.lower, arrays.upper
    beside = arrays.beside
    weights, raw, slopes, factors = scratch[0], scratch[1], scratch[2], scratch[3]
    grad_q, grad_k, grad_v = grads
    places = arrays.steps
    q_step, k_step, v_step = places[0, 2], places[1, 2], places[2, 2]
    dq_step, dk_step, dv_step, g_step = steps[0, 2], steps[1, 2], steps[2, 2], steps[3, 2]
    for x in range(heads[0] * group, heads[1] * group):
        batch, head, of_keys = x // layout.heads, x % layout.heads, x % layout.heads // group
        apart = min(batch, beside.shape[0] - 1)
        q_first, k_first = first_row(places, 0, batch, head), first_row(places, 1, batch, of_keys)
        v_first, g_first = first_row(places, 2, batch, of_keys), first_row(steps, 3, batch, head)
        dq_first, dk_first = first_row(steps, 0, batch, head), first_row(steps, 1, batch, of_keys)
        dv_first = first_row(steps, 2, batch, of_keys)
        for i in range(n):
            g = grad_out[g_first + i * g_step]
            if grad_log_partition[x, i] == 0 and is_zero(g):
                continue  # padded rows: whatever they hold, nobody asked
            query, slope_of_query = q[q_first + i * q_step], grad_q[dq_first + i * dq_step]
            first, end = 0, min(layout.first, lower[i], upper[i])
            if apart >= 0:
                first, end = beside[apart, 0, i], beside[apart, 1, i]
            number = fill_ranges(i + layout.offset, lower[i], upper[i], first, end, layout, listed, ranges)
            if bits.size > 0:  # of a selection only what was chosen is measured again
                count = chosen(columns, list_columns(ranges, number, columns), bits[x], bits_begin(i, layout))
                measure_again(query, k, k_first, k_step, columns, count, layout.distance == 1, weights)
            else:
                count = measure(query, k, k_first, k_step, ranges, number, layout.distance == 1, weights, columns)
            for t in range(count):
                raw[t] = weights[t]
            scale_by(weights, count, scale[x])
            restrict(weights, count, columns, x, i, layout, pair, strides, mass)
            count = compact(weights, raw, columns, count)
            weigh_again(weights, count, columns, x, layout, mass, log_partition[x, i])
            gathered_products(g, v, v_first, v_step, columns, count, slopes)
            dropped = weights
            if dropout > 0:
                dropped = factors
                dropout_factors(dropped, count, columns, dropout, layout.seed, x * n + i)
                multiply(slopes, dropped, count)
                multiply(dropped, weights, count)
            slope(weights, slopes, count, grad_log_partition[x, i])
            scatter(dropped, columns, count, g, grad_v, dv_first, dv_step)
            grad_scale[x, i] = dot(slopes, raw, count)
            if grad_mass.size > 0:
                for s in range(count):
                    grad_mass[x, columns[s]] += slopes[s]
            if grad_pair.size > 0:
                for s in range(count):
                    grad_pair[x, i, columns[s]] += slopes[s]
            # ds/dq = a (k - q) and ds/dk = a (q - k) for distances, a k and a q for products.
            scale_by(slopes, count, scale[x])
            if layout.distance == 1:
                weighted_differences(slopes, columns, count, k, k_first, k_step, query, slope_of_query)
                scatter_differences(slopes, columns, count, query, k, k_first, k_step, grad_k, dk_first, dk_step)
            else:
                weighted_vectors(slopes, columns, count, k, k_first, k_step, slope_of_query)
                scatter(slopes, columns, count, query, grad_k, dk_first, dk_step)
