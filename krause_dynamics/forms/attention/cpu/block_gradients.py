"""Gradients of attention by blocks: the passes between the matrix products of the backward pass."""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import is_zero
from krause_dynamics.forms.attention.cpu.blocks import clear, fill, measure_both, reads_columns
from krause_dynamics.forms.attention.cpu.compiled import entry, plain, sums
from krause_dynamics.forms.attention.cpu.row import bits_begin, first_row, restrict, slope_dropped, weigh_again
from krause_dynamics.forms.attention.cpu.selection import apply_bits

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@entry
def slope_tiles(
    places, tiles, layout, arrays, dropout, products, slopes, squares, grads, given, sums_of_rows, sums_of_keys,
    grad_scale, grad_pair,
):  # fmt: skip
    """Products of a chunk become weights and dL/dp becomes dL/ds, both in place.

    Args:
        places: As in `load`.
        tiles: `Tiles`.
        layout: `Layout`.
        arrays: `Arrays`.
        dropout: Probability to drop a weight.
        products: (chunk, size, span) products of queries and keys; weights after dropout on return.
        slopes: (chunk, size, span) products of output gradients and values; gradients of the scores on return.
        squares: From `load`.
        grads: From `load_grad`.
        given: `Given`.
        sums_of_rows: Result (chunk, size), sums of gradients of scores over keys.
        sums_of_keys: Result (chunk, span), the same over rows.
        grad_scale: Result (batch heads, n), summed over rows by the caller.
        grad_pair: Result (batch heads, n, m), zeroed before; size 0: not wanted.
    """
    raw, factors = np.empty(tiles.span, products.dtype), np.empty(tiles.span, products.dtype)
    columns, lower, upper, n = np.empty(tiles.span, np.int32), arrays.lower, arrays.upper, arrays.lower.shape[0]
    scale, pair, strides, mass = arrays.scale, arrays.pair, arrays.strides, arrays.mass
    log_partition, bits, grad_log_partition = given.log_partition, given.bits, given.grad_log_partition
    extras = reads_columns(layout, pair, dropout)
    for g in range(places[1] - places[0]):
        x, t = (places[0] + g) // tiles.number, (places[0] + g) % tiles.number
        sums_of_keys[g] = 0
        for r in range(tiles.size):
            i = t * tiles.size + r
            count = upper[i] - lower[i] if i < n else 0
            empty = count <= 0 or log_partition[x, i] == -np.inf
            # Padded rows: whatever they hold, nobody asked.
            if empty or (grad_log_partition[x, i] == 0 and is_zero(grads[g, r])):
                products[g, r], slopes[g, r], sums_of_rows[g, r] = 0, 0, 0
                continue
            at = lower[i] - tiles.begin[t]
            clear(products[g, r], at, at + count)
            clear(slopes[g, r], at, at + count)
            weights, rates = products[g, r, at : at + count], slopes[g, r, at : at + count]
            measure_both(
                weights, raw, count, squares[g, r], squares[g, tiles.size + at :], layout.distance == 1, scale[x]
            )
            if extras:
                fill(columns, lower[i], count)
            restrict(weights, count, columns, x, i, layout, pair, strides, mass)
            if bits.size > 0:
                apply_bits(weights, count, bits[x], bits_begin(i, layout))
            weigh_again(weights, count, columns, x, layout, mass, log_partition[x, i])
            row = layout.seed, x * n + i
            slope_dropped(weights, rates, factors, count, columns, dropout, row, grad_log_partition[x, i])
            grad_scale[x, i], sums_of_rows[g, r] = _account(rates, raw, count, sums_of_keys[g, at:])
            if grad_pair.size > 0:
                for s in range(count):
                    grad_pair[x, i, lower[i] + s] += rates[s]


@sums
def _account(rates, raw, count, keys):
    """<rates, raw> and the sum of the rates, which are added to ``keys`` too."""
    along = total = rates.dtype.type(0)
    for s in range(count):
        rate = rates[s]
        keys[s] += rate
        along += rate * raw[s]
        total += rate
    return along, total


@entry
def collect(places, tiles, layout, arrays, queries, keys, sums_of_rows, sums_of_keys, parts, grads, steps, grad_mass):
    """Add the gradients of a chunk's tiles to those of the call: tiles one after another, since keys overlap.

    Args:
        places: As in `load`.
        tiles: `Tiles`.
        layout: `Layout`.
        arrays: `Arrays`.
        queries: From `load`.
        keys: From `load`.
        sums_of_rows: From `slope_tiles`.
        sums_of_keys: From `slope_tiles`.
        parts: Slopes times keys (chunk, size, d), slopes^T times queries (chunk, span, d), weights^T times output
            gradients (chunk, span, d_v).
        grads: Results for q, k and v: rows of memory.
        steps: (3, 3) their steps, as in `Arrays`.
        grad_mass: Result (batch heads, m); size 0: not wanted.
    """
    n, heads, group = arrays.lower.shape[0], layout.heads, layout.heads // layout.kv_heads
    part_q, part_k, part_v = parts
    grad_q, grad_k, grad_v = grads
    for g in range(places[1] - places[0]):
        x, t = (places[0] + g) // tiles.number, (places[0] + g) % tiles.number
        a, zero = arrays.scale[x], arrays.scale.dtype.type(0)
        batch, head, of_keys = x // heads, x % heads, x % heads // group
        q_first, k_first = first_row(steps, 0, batch, head), first_row(steps, 1, batch, of_keys)
        v_first, q_step, k_step, v_step = first_row(steps, 2, batch, of_keys), steps[0, 2], steps[1, 2], steps[2, 2]
        i, begin, end = t * tiles.size, tiles.begin[t], tiles.end[t]
        # ds/dq = a (k - q) and ds/dk = a (q - k) for distances, a k and a q for products.
        for r in range(min(tiles.size, n - i)):
            weight = sums_of_rows[g, r] if layout.distance == 1 else zero
            _add(grad_q[q_first + (i + r) * q_step], part_q[g, r], queries[g, r], weight, a)
        for j in range(begin, end):
            s = j - begin
            weight = sums_of_keys[g, s]
            if grad_mass.size > 0:
                grad_mass[x, j] += weight
            weight = weight if layout.distance == 1 else zero
            _add(grad_k[k_first + j * k_step], part_k[g, s], keys[g, s], weight, a)
            target, part = grad_v[v_first + j * v_step], part_v[g, s]
            for c in range(target.shape[0]):
                target[c] += part[c]


@plain
def _add(out, part, own, weight, a):
    """Out += a (part - weight own)."""
    for c in range(out.shape[0]):
        out[c] += a * (part[c] - weight * own[c])
