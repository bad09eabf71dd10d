"""Compiled passes around matrix products: blocks of queries against the keys that any of them hears."""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import scale_by
from krause_dynamics.forms.attention.cpu.compiled import entry, plain, smaller, sums
from krause_dynamics.forms.attention.cpu.row import (
    bits_begin,
    dropout_factors,
    multiply,
    restrict,
    select,
    weigh,
)
from krause_dynamics.forms.attention.cpu.selection import store_bits

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@sums
def measure(products, count, square, squares, distance, factor):
    """Products, or minus half squared distances, times a factor, in place."""
    if distance:
        for t in range(count):
            # Of a key with itself, for instance, rounding may leave a square below zero.
            products[t] = factor * smaller(products[t] - squares[t] - square, products.dtype.type(0))
    else:
        scale_by(products, count, factor)


@sums
def measure_both(products, raw, count, square, squares, distance, factor):
    """As `measure`; ``raw`` without the factor."""
    if distance:
        for t in range(count):
            away = smaller(products[t] - squares[t] - square, products.dtype.type(0))
            raw[t] = away
            products[t] = factor * away
    else:
        for t in range(count):
            raw[t] = products[t]
            products[t] *= factor


@plain
def reads_columns(layout, pair, dropout):
    """Whether anything in a row depends on the columns of its keys."""
    return layout.mass_heads > 0 or pair.size > 0 or dropout > 0


@plain
def fill(columns, begin, count):
    """Columns of a contiguous row."""
    for s in range(count):
        columns[s] = begin + s


@plain
def clear(row, begin, end):
    """Zeros before ``begin`` and from ``end`` on."""
    for t in range(begin):
        row[t] = 0
    for t in range(end, row.shape[0]):
        row[t] = 0


@entry
def weigh_tiles(places, tiles, layout, arrays, dropout, products, squares, log_partition, bits):
    """Products of a chunk of tiles become weights, in place; log-partition and packed selection of their rows.

    Args:
        places: As in `load`.
        tiles: `Tiles`.
        layout: `Layout`.
        arrays: `Arrays`.
        dropout: Probability to drop a weight.
        products: (chunk, size, span) products of queries and keys; weights on return.
        squares: From `load`.
        log_partition: Result (batch heads, n).
        bits: Result (batch heads, bytes), zeroed before; size 0: not wanted.
    """
    n = arrays.lower.shape[0]
    factors, columns = np.empty(tiles.span, products.dtype), np.empty(tiles.span, np.int32)
    scale, pair, strides, mass = arrays.scale, arrays.pair, arrays.strides, arrays.mass
    lower, upper = arrays.lower, arrays.upper
    extras = reads_columns(layout, pair, dropout)
    for g in range(places[1] - places[0]):
        x, t = (places[0] + g) // tiles.number, (places[0] + g) % tiles.number
        for r in range(tiles.size):
            i = t * tiles.size + r
            count = upper[i] - lower[i] if i < n else 0
            if count <= 0:
                clear(products[g, r], tiles.span, tiles.span)
                if i < n:
                    log_partition[x, i] = -np.inf
                continue
            at = lower[i] - tiles.begin[t]
            clear(products[g, r], at, at + count)
            scores = products[g, r, at : at + count]
            measure(scores, count, squares[g, r], squares[g, tiles.size + at :], layout.distance == 1, scale[x])
            if extras:
                fill(columns, lower[i], count)
            restrict(scores, count, columns, x, i, layout, pair, strides, mass)
            stay = select(scores, count, layout, i + layout.offset)
            if bits.size > 0:
                store_bits(scores, count, bits[x], bits_begin(i, layout))
            log_partition[x, i] = weigh(scores, count, columns, x, layout, mass)
            if stay <= 0:  # nobody stays, or the row holds a NaN
                log_partition[x, i] = np.nan if stay < 0 else -np.inf
                scores[:] = np.nan if stay < 0 else 0
            if dropout > 0:
                dropout_factors(factors, count, columns, dropout, layout.seed, x * n + i)
                multiply(scores, factors, count)
