"""Loops over one row of scores and over the vectors which it admits.

Vectors are rows of memory, that of key j row ``start + j * step``.

No slices in what follows: making one costs as much as ten keys.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.compiled import larger, plain, power_of_two, smaller, sums

# The loops are the compiler's: array types, hence no annotations.
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

LARGE = 3.0e38  # beyond any score


@sums
def distances(query, keys, start, step, begin, end, out, place):
    """out[place + j - begin] = |query - keys[j]|^2 by direct differences."""
    for j in range(begin, end):
        key = keys[start + j * step]
        total = out.dtype.type(0)
        for c in range(key.shape[0]):
            difference = query[c] - key[c]
            total += difference * difference
        out[place + j - begin] = total


@sums
def products(query, keys, start, step, begin, end, out, place):
    """out[place + j - begin] = <query, keys[j]>."""
    for j in range(begin, end):
        key = keys[start + j * step]
        total = out.dtype.type(0)
        for c in range(key.shape[0]):
            total += query[c] * key[c]
        out[place + j - begin] = total


@sums
def gathered_distances(query, keys, start, step, columns, count, out):
    """out[s] = |query - keys[start + columns[s] * step]|^2 by direct differences."""
    for s in range(count):
        key = keys[start + columns[s] * step]
        total = out.dtype.type(0)
        for c in range(key.shape[0]):
            difference = query[c] - key[c]
            total += difference * difference
        out[s] = total


@sums
def gathered_products(query, keys, start, step, columns, count, out):
    """out[s] = <query, keys[start + columns[s] * step]>."""
    for s in range(count):
        key = keys[start + columns[s] * step]
        total = out.dtype.type(0)
        for c in range(key.shape[0]):
            total += query[c] * key[c]
        out[s] = total


@sums
def dot(x, y, count):
    """<x, y> of the first entries."""
    total = x.dtype.type(0)
    for s in range(count):
        total += x[s] * y[s]
    return total


@sums
def highest(values, count):
    """Largest value; needs a row without NaN."""
    high = values.dtype.type(-np.inf)
    for t in range(count):
        high = larger(high, values[t])
    return high


@sums
def lowest(values, count):
    """Smallest value above -inf; needs a row without NaN."""
    low = beyond = values.dtype.type(LARGE)  # with infinity here, the compiler would make a branch of it
    for t in range(count):
        low = smaller(low, beyond if values[t] == -np.inf else values[t])
    return low


@plain
def scale_by(values, count, factor):
    """Values *= factor."""
    for t in range(count):
        values[t] *= factor


@plain
def is_zero(vector):
    """Whether all entries are 0."""
    for c in range(vector.shape[0]):  # noqa: SIM110  (numba has no generator expressions)
        if vector[c] != 0:
            return False
    return True


@sums
def single(x):
    """e^x of a float32 x <= 0 or NaN, to about two units in the last place, without branches.

    Cephes' polynomial after splitting off the power of two, whose bits are written directly; what is below exp(-87),
    the smallest normal number, becomes 0.
    """
    n = np.floor(max(x, np.float32(-87.0)) * np.float32(1.44269504) + np.float32(0.5))
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    grown = (p * r * r + r + np.float32(1)) * power_of_two(np.int32(n))
    return np.float32(0) if x < np.float32(-87.0) else grown


@sums
def exponentials(values, count, shift):
    """Values <- exp(values - shift), for arguments <= 0 or NaN after the shift; returns their sum."""
    result = values.dtype.type(0)
    if values.itemsize == 8:
        for t in range(count):
            values[t] = np.exp(values[t] - shift)
            result += values[t]
        return result
    for t in range(count):
        grown = single(np.float32(values[t] - shift))
        values[t] = grown
        result += grown
    return result


@sums
def weighted_vectors(weights, columns, count, vectors, start, step, out):
    """Out = sum_s weights[s] vectors[start + columns[s] * step], eight a pass."""
    for c in range(out.shape[0]):
        out[c] = 0
    whole = count - count % 8
    for s in range(0, whole, 8):
        w0, w1, w2, w3 = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
        w4, w5, w6, w7 = weights[s + 4], weights[s + 5], weights[s + 6], weights[s + 7]
        r0, r1 = vectors[start + columns[s] * step], vectors[start + columns[s + 1] * step]
        r2, r3 = vectors[start + columns[s + 2] * step], vectors[start + columns[s + 3] * step]
        r4, r5 = vectors[start + columns[s + 4] * step], vectors[start + columns[s + 5] * step]
        r6, r7 = vectors[start + columns[s + 6] * step], vectors[start + columns[s + 7] * step]
        for c in range(out.shape[0]):
            first = w0 * r0[c] + w1 * r1[c] + w2 * r2[c] + w3 * r3[c]
            out[c] += first + (w4 * r4[c] + w5 * r5[c] + w6 * r6[c] + w7 * r7[c])
    for s in range(whole, count):
        w0, r0 = weights[s], vectors[start + columns[s] * step]
        for c in range(out.shape[0]):
            out[c] += w0 * r0[c]


@sums
def weighted_differences(weights, columns, count, keys, start, step, query, out):
    """Out = sum_s weights[s] (keys[start + columns[s] * step] - query), four a pass."""
    for c in range(out.shape[0]):
        out[c] = 0
    whole = count - count % 4
    for s in range(0, whole, 4):
        w0, w1, w2, w3 = weights[s], weights[s + 1], weights[s + 2], weights[s + 3]
        r0, r1 = keys[start + columns[s] * step], keys[start + columns[s + 1] * step]
        r2, r3 = keys[start + columns[s + 2] * step], keys[start + columns[s + 3] * step]
        for c in range(out.shape[0]):
            x = query[c]
            out[c] += w0 * (r0[c] - x) + w1 * (r1[c] - x) + w2 * (r2[c] - x) + w3 * (r3[c] - x)
    for s in range(whole, count):
        w0, r0 = weights[s], keys[start + columns[s] * step]
        for c in range(out.shape[0]):
            out[c] += w0 * (r0[c] - query[c])


@sums
def scatter(weights, columns, count, vector, out, first, jump):
    """out[columns[s]] += weights[s] vector."""
    for s in range(count):
        weight, row = weights[s], out[first + columns[s] * jump]
        for c in range(row.shape[0]):
            row[c] += weight * vector[c]


@sums
def scatter_differences(weights, columns, count, vector, keys, start, step, out, first, jump):
    """out[columns[s]] += weights[s] (vector - keys[start + columns[s] * step])."""
    for s in range(count):
        column = columns[s]
        weight, row, key = weights[s], out[first + column * jump], keys[start + column * step]
        for c in range(row.shape[0]):
            row[c] += weight * (vector[c] - key[c])
