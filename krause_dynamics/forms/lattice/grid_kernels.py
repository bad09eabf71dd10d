"""Compiled sums of weights given by logarithms, on grids: sliding windows, and rows in near-vacuum."""

from __future__ import annotations

import numpy as np

from krause_dynamics._compiled import njit

BLOCK = 64  # sources whose largest weight is bounded at once
NEGLIGIBLE = 42.0  # a weight e^-42 = 6e-19 below the largest adds less than a rounding even 100 times over


@njit()
def _add(top, total, weighted, log_mass, values):
    """Add one source to a sum kept as ``exp(top) * total`` and ``exp(top) * weighted``; returns the new top, total."""
    if log_mass == -np.inf:
        return top, total
    share = 1.0
    if log_mass > top:
        scale = np.exp(top - log_mass)
        total *= scale
        for k in range(len(weighted)):
            weighted[k] *= scale
        top = log_mass
    else:
        share = np.exp(log_mass - top)
    for k in range(len(weighted)):
        weighted[k] += share * values[k]
    return top, total + share


@njit()
def _running(log_mass, values, size, backward):
    """Running sums within blocks of ``size``, from their start, or from their end if ``backward``.

    Sums are ``exp(top) * total`` and ``exp(top) * sums``; the top grows with the largest weight met so far.
    """
    m, width = values.shape
    tops, totals, sums = np.empty(m), np.empty(m), np.empty((m, width))
    for step in range(m):
        j = m - 1 - step if backward else step
        before = j + 1 if backward else j - 1
        fresh = step == 0 or ((j % size == size - 1) if backward else (j % size == 0))
        log = log_mass[j]
        if fresh or totals[before] == 0.0:
            share, scale, top = (1.0 if log > -np.inf else 0.0), 0.0, log
        elif log <= tops[before]:
            share, scale, top = np.exp(log - tops[before]), 1.0, tops[before]
        else:
            share, scale, top = 1.0, np.exp(tops[before] - log), log
        tops[j] = top
        totals[j] = share + (scale * totals[before] if scale > 0.0 else 0.0)
        for k in range(width):
            sums[j, k] = share * values[j, k] + (scale * sums[before, k] if scale > 0.0 else 0.0)
    return tops, totals, sums


@njit()
def window_sums(log_mass, values, first, size):
    """Mean (n, d_v) and log-sum (n,) over the sources ``first[i] .. first[i] + size - 1`` (those that exist).

    A window spans at most two blocks of its own size, so it is one suffix and one prefix: sums of non-negative terms
    only, exact to rounding in any vacuum.
    """
    m, width = values.shape
    p_top, p_total, p_sum = _running(log_mass, values, size, False)
    s_top, s_total, s_sum = _running(log_mass, values, size, True)
    n = len(first)
    mean, logs = np.zeros((n, width)), np.full(n, -np.inf)
    for i in range(n):
        a, b = max(first[i], 0), min(first[i] + size, m) - 1
        if a > b:
            continue
        block = a // size
        split = b >= (block + 1) * size
        # A clipped window touches an end of the grid, hence of a block, where one running sum is enough.
        left = split or a != block * size
        right = split or a == block * size
        top_left = s_top[a] if left else -np.inf
        top_right = p_top[b] if right else -np.inf
        top = max(top_left, top_right)
        if top == -np.inf:
            continue
        f = 0.0 if not left else (1.0 if top_left == top else np.exp(top_left - top))
        g = 0.0 if not right else (1.0 if top_right == top else np.exp(top_right - top))
        total = (f * s_total[a] if left else 0.0) + (g * p_total[b] if right else 0.0)
        for k in range(width):
            mean[i, k] = ((f * s_sum[a, k] if left else 0.0) + (g * p_sum[b, k] if right else 0.0)) / total
        logs[i] = top + np.log(total)
    return mean, logs


@njit()
def _block_maxima(x):
    count = (len(x) + BLOCK - 1) // BLOCK
    result = np.full(count, -np.inf)
    for j in range(len(x)):
        result[j // BLOCK] = max(result[j // BLOCK], x[j])
    return result


@njit()
def log_sums(rows, log_mass, values, table, cyclic):
    """Mean (rows, d_v) and log-sum (rows,) with weights ``log_mass[j] + table[difference]``, for a few rows.

    Blocks of sources that cannot matter are passed over: their largest mass times their largest affinity is negligible.
    """
    m, width = values.shape
    shift = 0 if cyclic else m - 1
    heaviest, nearest = _block_maxima(log_mass), _block_maxima(table)
    bounds = np.empty(len(heaviest))
    mean, logs = np.zeros((len(rows), width)), np.full(len(rows), -np.inf)
    weighted = np.zeros(width)
    low, high = 0, len(table) - 1
    while table[low] == -np.inf and low < high:
        low += 1
    while table[high] == -np.inf and low < high:
        high -= 1
    for r in range(len(rows)):
        i, likely, best = rows[r], 0, -np.inf
        begin, end = 0, len(heaviest)
        if not cyclic:  # only blocks with sources in reach
            begin = max(i + shift - high, 0) // BLOCK
            end = min(max(i + shift - low, 0) // BLOCK + 1, end)
        for b in range(begin, end):
            stop = min((b + 1) * BLOCK, m)
            bounds[b] = heaviest[b] + _largest(nearest, len(table), i + shift - stop + 1, i + shift - b * BLOCK, cyclic)
            if bounds[b] > best:
                best, likely = bounds[b], b
        top, total = -np.inf, 0.0
        weighted[:] = 0.0
        for turn in range(begin, end + 1) if best > -np.inf else range(0):
            # The most promising block first, so that the others can be judged.
            b = likely if turn == begin else turn - 1
            if (turn > begin and b == likely) or bounds[b] == -np.inf or bounds[b] < top - NEGLIGIBLE:
                continue
            for j in range(b * BLOCK, min((b + 1) * BLOCK, m)):
                place = i - j + shift
                weight = log_mass[j] + table[place % m if cyclic else place]
                if weight > top - NEGLIGIBLE:
                    top, total = _add(top, total, weighted, weight, values[j])
        if total > 0:
            mean[r] = weighted / total
            logs[r] = top + np.log(total)
    return mean, logs


@njit()
def _largest(nearest, length, low, high, cyclic):
    """A bound of the table between two places: the maxima of the blocks that they touch."""
    if not cyclic:
        return max(nearest[max(low, 0) // BLOCK], nearest[min(high, length - 1) // BLOCK])
    best = max(nearest[(low % length) // BLOCK], nearest[(high % length) // BLOCK])
    # A wrap crosses the end of the table, where the last block may be short.
    if (low % length) > (high % length):
        best = max(best, nearest[-1], nearest[0])
    return best
