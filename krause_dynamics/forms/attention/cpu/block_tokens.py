"""Compiled passes that bring tokens into tiles and means out of them.

Scores of a tile come from one product ``<q - c, k - c>`` and the squares of both, where the centre c is a key of the
tile: far from the origin the expanded square would lose all digits, and with a key as the centre differences of small
integers stay integers, so that ties stay ties.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.compiled import entry, plain, sums
from krause_dynamics.forms.attention.cpu.row import first_row, mass_row

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

SAMPLES = 16  # keys of a tile among which its centre is sought


@sums
def _centre(keys, start, step, begin, end, mass, y, mean):
    """Index of the sampled key that is nearest to the mean of the samples; absent keys do not count.

    The mean alone would do as well but for integers; a far key among the samples shifts it, but is not nearest to it.
    """
    skip = max(1, (end - begin) // SAMPLES)
    mean[:] = 0
    number = mean.dtype.type(0)
    for j in range(begin, end, skip):
        if mass.size == 0 or mass[y, j] > -np.inf:
            key = keys[start + j * step]
            number += mean.dtype.type(1)
            for c in range(mean.shape[0]):
                mean[c] += key[c]
    best, least = begin, np.inf
    for j in range(begin, end, skip):
        if mass.size == 0 or mass[y, j] > -np.inf:
            key, away = keys[start + j * step], mean.dtype.type(0)
            for c in range(mean.shape[0]):
                difference = number * key[c] - mean[c]
                away += difference * difference
            if away < least:
                best, least = j, away
    return best


@sums
def _centred(vectors, start, step, count, centre, out, halves):
    """out[s] = vector s - centre, zeros beyond, and half of their squares; vector s is row start + s step."""
    for s in range(count):
        source, target = vectors[start + s * step], out[s]
        square = out.dtype.type(0)
        for c in range(target.shape[0]):
            value = source[c] - centre[c]
            target[c] = value
            square += value * value
        halves[s] = out.dtype.type(0.5) * square
    out[count:] = 0
    halves[count:] = 0


@plain
def copied(vectors, start, step, count, out):
    """out[s] = vector s, zeros beyond."""
    for s in range(count):
        source, target = vectors[start + s * step], out[s]
        for c in range(target.shape[0]):
            target[c] = source[c]
    out[count:] = 0


@sums
def are_finite(values):
    """Whether no NaN or infinity is among the values; a pass of its own costs less than a sum beside each copy."""
    flat, whole = values.reshape(-1), values.dtype.type(0)
    for t in range(flat.shape[0]):
        whole += flat[t] * values.dtype.type(0)
    return whole == 0


@entry
def load(places, tiles, layout, arrays, queries, keys, values, squares):
    """Tiles of queries, keys and values, centred for distances.

    Args:
        places: (2,) first tile of the list in this chunk and one past the last.
        tiles: `Tiles`.
        layout: `Layout`.
        arrays: `Arrays`.
        queries: Result (chunk, size, d).
        keys: Result (chunk, span, d).
        values: Result (chunk, span, d_v).
        squares: Result (chunk, size + span) half squares of queries and keys.

    Returns:
        Whether all values are finite, and the squares; if not, the results are not complete.
    """
    q, k, v, mass, steps = arrays.q, arrays.k, arrays.v, arrays.mass, arrays.steps
    n, heads, group = arrays.lower.shape[0], layout.heads, layout.heads // layout.kv_heads
    centre, mean = np.zeros(q.shape[1], q.dtype), np.zeros(q.shape[1], q.dtype)
    for g in range(places[1] - places[0]):
        x, t = (places[0] + g) // tiles.number, (places[0] + g) % tiles.number
        i, begin, end = t * tiles.size, tiles.begin[t], tiles.end[t]
        batch, head, of_keys, count = x // heads, x % heads, x % heads // group, end - begin
        q_first, k_first = first_row(steps, 0, batch, head), first_row(steps, 1, batch, of_keys)
        v_first, q_step, k_step, v_step = first_row(steps, 2, batch, of_keys), steps[0, 2], steps[1, 2], steps[2, 2]
        if layout.distance == 1 and end > begin:
            centre[:] = k[k_first + k_step * _centre(k, k_first, k_step, begin, end, mass, mass_row(x, layout), mean)]
        rows = min(n - i, tiles.size)
        _centred(q, q_first + i * q_step, q_step, rows, centre, queries[g], squares[g, : tiles.size])
        _centred(k, k_first + begin * k_step, k_step, count, centre, keys[g], squares[g, tiles.size :])
        copied(v, v_first + begin * v_step, v_step, count, values[g])
        if not (are_finite(squares[g]) and are_finite(values[g])):
            return False
    return True


@entry
def store(places, tiles, layout, n, means, out):
    """Means of a chunk go to their places.

    Args:
        places: As in `load`.
        tiles: `Tiles`.
        layout: `Layout`.
        n: Queries of a head.
        means: (chunk, size, d_v).
        out: Result, rows of memory (batch n heads, d_v).
    """
    heads = layout.heads
    for g in range(places[1] - places[0]):
        x, t = (places[0] + g) // tiles.number, (places[0] + g) % tiles.number
        first = (x // heads * n + t * tiles.size) * heads + x % heads
        for r in range(min(n - t * tiles.size, tiles.size)):
            source, target = means[g, r], out[first + r * heads]
            for c in range(source.shape[0]):
                target[c] = source[c]


@entry
def load_grad(places, tiles, layout, n, given, grads):
    """Output gradients of a chunk.

    Args:
        places: As in `load`.
        tiles: `Tiles`.
        layout: `Layout`.
        n: Queries of a head.
        given: `Given`.
        grads: Result (chunk, size, d_v).

    Returns:
        Whether all are finite.
    """
    steps = given.steps
    for g in range(places[1] - places[0]):
        x, t = (places[0] + g) // tiles.number, (places[0] + g) % tiles.number
        first = first_row(steps, 0, x // layout.heads, x % layout.heads) + t * tiles.size * steps[0, 2]
        copied(given.grad_out, first, steps[0, 2], min(n - t * tiles.size, tiles.size), grads[g])
    return are_finite(grads)
