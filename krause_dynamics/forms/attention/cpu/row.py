"""From the scores of one row to its weights and back: the same whichever way the scores were computed."""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import dot, exponentials, highest, scale_by
from krause_dynamics.forms.attention.cpu.compiled import plain
from krause_dynamics.forms.attention.cpu.selection import keep_best, not_admitted

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@plain
def restrict(scores, count, columns, x, i, layout, pair, strides, mass):
    """Pair biases join row i of head x, and masses that rank; keys without mass leave it."""
    if pair.size > 0:
        batch = x // layout.heads
        base = batch * strides[0] + (x - batch * layout.heads) * strides[1] + i * strides[2]
        for t in range(count):
            scores[t] += pair[base + columns[t] * strides[3]]
    if layout.mass_heads > 0:
        y, nobody = mass_row(x, layout), scores.dtype.type(-np.inf)
        for t in range(count):
            log_mass = mass[y, columns[t]]
            if log_mass == nobody:
                scores[t] = nobody
            elif layout.ranked == 1:
                scores[t] += log_mass


@plain
def first_row(steps, which, batch, head):
    """Row of memory of the first token of a head, of one of the tensors that steps are of."""
    return steps[which, 0] * batch + steps[which, 1] * head


@plain
def mass_row(x, layout):
    """Which row of masses head x of the batch reads."""
    return x // layout.heads if layout.mass_heads == 1 else x


@plain
def bits_begin(i, layout):
    """Where row i starts in the packed selection: rows that hear all take wide_bytes, the others row_bytes."""
    if i < layout.wide_rows:
        return i * layout.wide_bytes
    return layout.wide_rows * layout.wide_bytes + (i - layout.wide_rows) * layout.row_bytes


@plain
def select(scores, count, layout, position):
    """Scores that do not stay become -inf; returns how many stay, -1 if the row holds a NaN (then nothing is done)."""
    broken, absent = not_admitted(scores, count)
    if broken > 0:
        return -1
    if 0 < layout.top_k < count - absent and position >= layout.exempt:
        return keep_best(scores, count, layout.top_k, layout.keep_ties == 1)
    return count - absent


@plain
def weigh(scores, count, columns, x, layout, mass):
    """Scores become weights of sum 1 (0 where -inf); returns the log-partition."""
    add_mass(scores, count, columns, x, layout, mass)
    return normalise(scores, count)


@plain
def normalise(scores, count):
    """`weigh` without masses."""
    largest = highest(scores, count)
    partition = exponentials(scores, count, largest)
    scale_by(scores, count, scores.dtype.type(1) / partition)
    return largest + np.log(partition)


@plain
def weigh_again(scores, count, columns, x, layout, mass, log_partition):
    """Scores become the weights of a row whose log-partition is known."""
    add_mass(scores, count, columns, x, layout, mass)
    exponentials(scores, count, log_partition)


@plain
def add_mass(scores, count, columns, x, layout, mass):
    """Log masses of the keys join the scores, where they have not before the ranking."""
    if layout.mass_heads > 0 and layout.ranked == 0:
        y = mass_row(x, layout)
        for t in range(count):
            scores[t] += mass[y, columns[t]]


@plain
def dropout_factors(out, count, columns, dropout, seed, row):
    """0 or 1 / (1 - p) for each key, from a counter-based hash, so that the backward pass draws the same mask."""
    scale = out.dtype.type(1.0 / (1.0 - dropout))
    for t in range(count):
        h = (seed ^ (row * 73856093) ^ (np.int64(columns[t]) * 19349663)) & 0xFFFFFFFF
        for _ in range(3):
            h = ((h ^ (h >> 16)) * 0x45D9F3B) & 0xFFFFFFFF
        h = h ^ (h >> 16)
        out[t] = scale if h >= dropout * 4294967296.0 else out.dtype.type(0)


@plain
def multiply(values, factors, count):
    """Values *= factors."""
    for t in range(count):
        values[t] *= factors[t]


@plain
def slope(weights, slopes, count, grad_log_partition):
    """dL/dp of each key becomes dL/ds: ``p_j (dL/dp_j - sum_l p_l dL/dp_l + dL/dlogZ)``."""
    shift = grad_log_partition - dot(weights, slopes, count)
    for t in range(count):
        slopes[t] = weights[t] * (slopes[t] + shift)


@plain
def slope_dropped(weights, slopes, factors, count, columns, dropout, row, grad_log_partition):
    """`slope` of weights that dropout thins out: dL/dp of those left becomes dL/ds, the weights those left.

    ``row``: seed and number of the row.
    """
    if dropout > 0:
        dropout_factors(factors, count, columns, dropout, row[0], row[1])
        multiply(slopes, factors, count)
    slope(weights, slopes, count, grad_log_partition)
    if dropout > 0:
        multiply(weights, factors, count)


@plain
def compact(values, others, columns, count):
    """Move the entries above -inf, what ``others`` holds there and their columns to the front; returns their number."""
    number, nobody = 0, values.dtype.type(-np.inf)
    for t in range(count):
        value = values[t]
        values[number] = value
        others[number] = others[t]
        columns[number] = columns[t]
        number += 1 if value != nobody else 0
    return number
