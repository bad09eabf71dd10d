"""Gradients of attention one query row at a time, on the rows and selections of `rows.forward`."""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import (
    dot,
    gathered_products,
    is_zero,
    scale_by,
    scatter,
    scatter_differences,
    weighted_differences,
    weighted_vectors,
)
from krause_dynamics.forms.attention.cpu.compiled import entry, plain
from krause_dynamics.forms.attention.cpu.ranges import fill_ranges, list_columns, measure, measure_again
from krause_dynamics.forms.attention.cpu.row import (
    bits_begin,
    compact,
    first_row,
    restrict,
    slope_dropped,
    weigh_again,
)
from krause_dynamics.forms.attention.cpu.selection import chosen

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@entry
def backward(
    heads, layout, arrays, dropout, scratch, given, grads, steps, grad_scale, grad_mass, grad_pair
):  # fmt: skip
    """Gradients of the key heads heads[0]..heads[1]-1 and of the queries that read them; same rows as `forward`.

    Args:
        heads: (2,) first key head (of the flattened batch) and one past the last: no two threads share a key head.
        layout: `Layout`.
        arrays: `Arrays`.
        dropout: Probability to drop a weight.
        scratch: (4, longest row) working memory of this thread.
        given: `Given`.
        grads: Results for q, k and v, zeroed before: rows of memory.
        steps: (3, 3) their steps, as in `Arrays`.
        grad_scale: Result (batch heads, n), summed over rows by the caller.
        grad_mass: Result (batch heads, m), zeroed before; size 0: not wanted.
        grad_pair: Result (batch heads, n, m), zeroed before; size 0: not wanted.
    """
    n, group = arrays.lower.shape[0], layout.heads // layout.kv_heads
    columns, listed, beside = np.empty(scratch.shape[1], np.int32), arrays.listed, arrays.beside
    ranges = np.empty((3 * (2 * layout.radius + 2) + listed.shape[1], 2), np.int64)
    q, k, v, scale, mass = arrays.q, arrays.k, arrays.v, arrays.scale, arrays.mass
    pair, strides, lower, upper = arrays.pair, arrays.strides, arrays.lower, arrays.upper
    weights, raw, slopes, factors = scratch[0], scratch[1], scratch[2], scratch[3]
    log_partition, bits, grad_log_partition = given.log_partition, given.bits, given.grad_log_partition
    (grad_q, grad_k, grad_v), grad_out, places = grads, given.grad_out, arrays.steps
    q_step, k_step, v_step, g_step = places[0, 2], places[1, 2], places[2, 2], given.steps[0, 2]
    dq_step, dk_step, dv_step = steps[0, 2], steps[1, 2], steps[2, 2]
    for x in range(heads[0] * group, heads[1] * group):
        batch, head, of_keys = x // layout.heads, x % layout.heads, x % layout.heads // group
        apart = min(batch, beside.shape[0] - 1)
        q_first, k_first = first_row(places, 0, batch, head), first_row(places, 1, batch, of_keys)
        v_first, g_first = first_row(places, 2, batch, of_keys), first_row(given.steps, 0, batch, head)
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
            row = layout.seed, x * n + i
            slope_dropped(weights, slopes, factors, count, columns, dropout, row, grad_log_partition[x, i])
            scatter(weights, columns, count, g, grad_v, dv_first, dv_step)
            grad_scale[x, i] = dot(slopes, raw, count)
            if grad_mass.size > 0:
                _add_at(grad_mass[x], columns, count, slopes)
            if grad_pair.size > 0:
                _add_at(grad_pair[x, i], columns, count, slopes)
            scale_by(slopes, count, scale[x])
            _to_tokens(
                slopes, columns, count, layout.distance == 1, query, slope_of_query, k, k_first, k_step, grad_k,
                dk_first, dk_step,
            )  # fmt: skip


@plain
def _add_at(out, columns, count, values):
    """out[columns[s]] += values[s]."""
    for s in range(count):
        out[columns[s]] += values[s]


@plain
def _to_tokens(slopes, columns, count, distance, query, slope_of_query, k, k_first, k_step, grad_k, first, step):
    """ds/dq = a (k - q) and ds/dk = a (q - k) for distances, a k and a q for products; a is in the slopes."""
    if distance:
        weighted_differences(slopes, columns, count, k, k_first, k_step, query, slope_of_query)
        scatter_differences(slopes, columns, count, query, k, k_first, k_step, grad_k, first, step)
    else:
        weighted_vectors(slopes, columns, count, k, k_first, k_step, slope_of_query)
        scatter(slopes, columns, count, query, grad_k, first, step)
