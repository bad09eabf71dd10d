"""Which keys index rules admit to a row, as ranges, and how near they are: exactly these keys are read."""

from __future__ import annotations

from krause_dynamics.forms.attention.cpu.arithmetic import (
    distances,
    gathered_distances,
    gathered_products,
    products,
    scale_by,
)
from krause_dynamics.forms.attention.cpu.compiled import plain

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
