"""Attention one query row at a time: scores of exactly the admitted keys, at once turned into weights.

Distances are direct differences: no cancellation for tokens far from the origin, and a key that is not admitted is
never read, whatever it holds.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import scale_by, weighted_vectors
from krause_dynamics.forms.attention.cpu.compiled import entry
from krause_dynamics.forms.attention.cpu.ranges import fill_ranges, measure
from krause_dynamics.forms.attention.cpu.row import (
    bits_begin,
    compact,
    dropout_factors,
    first_row,
    multiply,
    restrict,
    select,
    weigh,
)
from krause_dynamics.forms.attention.cpu.selection import store_bits

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


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
