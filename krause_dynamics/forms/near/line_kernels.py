"""Compiled loops for sorted positions on a line: two pointers and compensated prefix sums.

A prefix sum is kept as a rounded total and the sum of its rounding errors (Ogita, Rump & Oishi 2005, Sum2), so a window
is the difference of two prefixes with relative error near 2^-100 of the whole sum: the mean of a window is correctly
rounded, whereas plain prefixes lose so much that lattice starts freeze at the wrong time.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics._compiled import njit
from krause_dynamics.forms.near.arithmetic import fma, quotient, two_sum

POLISHING_STEPS = 64  # uncounted steps below the tolerance that let the last roundings merge


@njit()
def prefixes(x, mass, atoms, weighted, high, low, total, total_low):
    """Prefix sums of ``mass * x`` and of ``mass``, each as a rounded sum and its error; ``total_low`` only if
    ``weighted``.
    """
    high[0] = low[0] = total[0] = total_low[0] = 0.0
    s, s_low, w, w_low = 0.0, 0.0, 0.0, 0.0
    for j in range(atoms):
        p = mass[j] * x[j]
        error = fma(mass[j], x[j], -p)
        s, e = two_sum(s, p)
        s_low += e + error
        high[j + 1] = s
        low[j + 1] = s_low
        if weighted:
            w, e = two_sum(w, mass[j])
            w_low += e
            total_low[j + 1] = w_low
        else:
            w += mass[j]  # counts: exact
        total[j + 1] = w


@njit()
def windows(x, atoms, half, radius, first, last):
    """``first[i]:last[i]`` are the atoms within ``radius`` of atom i < half, by direct differences (monotone in both).

    Both pointers probe four atoms at once: how far they move is random, and a wrongly predicted branch costs more.
    """
    one, two, three, four = np.uint32(1), np.uint32(2), np.uint32(3), np.uint32(4)
    left = right = np.uint32(0)
    end, safe = np.uint32(atoms), np.uint32(max(atoms - 4, 0))
    for i in range(half):
        xi = x[i]
        while right < safe:
            near, next_ = x[right] - xi <= radius, x[right + one] - xi <= radius
            far, last_ = x[right + two] - xi <= radius, x[right + three] - xi <= radius
            moved = np.uint32(np.uint32(near) + np.uint32(next_) + np.uint32(far) + np.uint32(last_))
            right = np.uint32(right + moved)
            if moved < four:
                break
        if right >= safe:
            while right < end and x[right] - xi <= radius:
                right += one
        while left < safe:
            near, next_ = xi - x[left] > radius, xi - x[left + one] > radius
            far, last_ = xi - x[left + two] > radius, xi - x[left + three] > radius
            moved = np.uint32(np.uint32(near) + np.uint32(next_) + np.uint32(far) + np.uint32(last_))
            left = np.uint32(left + moved)
            if moved < four:
                break
        if left >= safe:
            while xi - x[left] > radius:
                left += one
        first[i] = left
        last[i] = right


@njit()
def step(x, mass, atoms, radius, weighted, mirrored, ends, high, low, total, total_low, first, last, y):
    """One Hegselmann-Krause step of sorted atoms ``x[:atoms]`` into ``y``: largest move, and whether two new ones
    agree.

    ``mirrored``: the state is symmetric and ``ends`` the sum of two mirrored positions, so the left half is computed
    and reflected. Positions are not centred: near 0 floats are finest, and ties of a lattice survive.
    """
    half = (atoms + 1) // 2 if mirrored else atoms
    prefixes(x, mass, atoms, weighted, high, low, total, total_low)
    windows(x, atoms, half, radius, first, last)
    for i in range(half):
        a, b = first[i], last[i]
        d, e = two_sum(high[b], -high[a])
        d, e = two_sum(d, e + (low[b] - low[a]))
        divisor, divisor_low = total[b] - total[a], 0.0
        if weighted:
            divisor, divisor_low = two_sum(total[b], -total[a])
            divisor_low += total_low[b] - total_low[a]
        mean = quotient(d, e, divisor, divisor_low)
        y[i] = mean if b - a > 1 else x[i]
    if mirrored:
        reflect(y, atoms, ends)
    return settle(x, y, atoms)


@njit()
def reflect(y, atoms, ends):
    """Make ``y`` symmetric: the right half is ``ends`` minus the left, up to one rounding."""
    middle = 0.5 * ends
    if atoms % 2:
        y[atoms // 2] = middle
    for i in range(atoms // 2):
        y[i] = y[i] if y[i] < middle else middle
        y[atoms - 1 - i] = ends - y[i]


@njit()
def settle(x, y, atoms):
    """Keep the order through the last rounding; largest move, and whether two neighbours agree."""
    largest, equal, previous = 0.0, False, -np.inf
    for i in range(atoms):
        mean = y[i] if y[i] > previous else previous
        equal |= mean == previous
        y[i] = previous = mean
        move = abs(mean - x[i])
        largest = move if move > largest else largest
    return largest, equal


@njit()
def merge(y, mass, count, atoms, mirrored):
    """Join neighbours at one position into one atom, in place; returns how many atoms are left.

    ``mirrored``: the left half decides for both, as reflection may round two positions to one.
    """
    same = np.empty(atoms, np.bool_)
    for i in range(1, atoms):
        left = min(i, atoms - i) if mirrored else i
        same[i] = y[left] == y[left - 1]
    kept = 0
    for i in range(1, atoms):
        if same[i]:
            mass[kept] += mass[i]
            count[kept] += count[i]
        else:
            kept += 1
            y[kept], mass[kept], count[kept] = y[i], mass[i], count[i]
    return kept + 1


@njit()
def advance(x, mass, count, atoms, radius, weighted, mirrored, ends, tolerance, steps):
    """At most ``steps`` counted steps in place: (atoms left, steps in which something moved, whether all stand still).

    A step that moves nothing by more than ``tolerance`` is not counted; it is still taken, so that atoms which differ
    by rounding alone meet.
    """
    high, low, total = np.empty(atoms + 1), np.empty(atoms + 1), np.empty(atoms + 1)
    total_low = np.empty(atoms + 1) if weighted else np.empty(1)
    first, last = np.empty(atoms, np.uint32), np.empty(atoms, np.uint32)
    here, there = x, np.empty(atoms)
    done, polished, frozen = 0, 0, False
    while done < steps:
        largest, equal = step(
            here, mass, atoms, radius, weighted, mirrored, ends, high, low, total, total_low, first, last, there
        )
        if largest <= tolerance:
            if (largest == 0.0 and not equal) or polished == POLISHING_STEPS:
                frozen = True
                break
            polished += 1
        else:
            done += 1
            polished = 0
        here, there = there, here
        if equal:
            atoms = merge(here, mass, count, atoms, mirrored)
    for i in range(atoms):
        x[i] = here[i]
    return atoms, done, frozen


@njit()
def walk(q, radius, y, first, last):
    """``first[i]:last[i]`` are the sorted ``y`` within ``radius`` of the sorted ``q[i]``: two pointers."""
    left, right = 0, 0
    for i in range(q.size):
        while left < y.size and q[i] - y[left] > radius:
            left += 1
        right = max(left, right)
        while right < y.size and y[right] - q[i] <= radius:
            right += 1
        first[i], last[i] = left, right


@njit()
def search(q, radii, y, first, last):
    """``first[i]:last[i]`` are the sorted ``y`` within ``radii[i]`` of ``q[i]``, each query by bisection on
    differences.
    """
    for i in range(q.size):
        x, radius = q[i], radii[i]
        low, high = 0, y.size
        while low < high:
            middle = (low + high) // 2
            if x - y[middle] > radius:
                low = middle + 1
            else:
                high = middle
        first[i] = low
        high = y.size
        while low < high:
            middle = (low + high) // 2
            if y[middle] - x <= radius:
                low = middle + 1
            else:
                high = middle
        last[i] = low


@njit()
def window_means(first, last, own, mass, value, weighted, high, low, total, total_low, mean, partition):
    """Mean of ``value`` over each window and its mass; ``own[i] >= 0`` is left out of window i. Empty: 0 and 0."""
    for i in range(first.size):
        a, b = first[i], last[i]
        without = own[i] >= 0 and a <= own[i] < b
        members = b - a - (1 if without else 0)
        mean[i] = partition[i] = 0.0
        if members <= 0:
            continue
        d, e = two_sum(high[b], -high[a])
        divisor, divisor_low = total[b] - total[a], 0.0
        e += low[b] - low[a]
        if weighted:
            divisor, divisor_low = two_sum(total[b], -total[a])
            divisor_low += total_low[b] - total_low[a]
        if without:
            m, v = mass[own[i]], value[own[i]]
            p = m * v
            d, error = two_sum(d, -p)
            e += error - fma(m, v, -p)
            divisor, error = two_sum(divisor, -m)
            divisor_low += error
        d, e = two_sum(d, e)
        divisor, divisor_low = two_sum(divisor, divisor_low)
        partition[i] = divisor
        if b - a == 1:
            mean[i] = value[a]
        else:
            mean[i] = quotient(d, e, divisor, divisor_low)


@njit()
def run_batch(samples, mirrored, ends, tolerances, radii, max_steps, largest, clusters, steps, frozen):
    """Runs from every sorted sample (S, n) with every radius (R,) to the end; results are (R, S).

    ``tolerances`` are (R, S) too. ``largest``: members of the largest group of atoms linked by the radius;
    ``clusters``: number of groups.
    """
    size = samples.shape[1]
    for r in range(radii.size):
        for k in range(samples.shape[0]):
            x, mass, count = samples[k].copy(), np.ones(size), np.ones(size, np.int64)
            atoms = merge(x, mass, count, size, mirrored[k])
            atoms, done, frozen[r, k] = advance(
                x, mass, count, atoms, radii[r], False, mirrored[k], ends[k], tolerances[r, k], max_steps
            )
            best, groups, members = 0.0, 0, 0.0
            for a in range(atoms):
                if a == 0 or x[a] - x[a - 1] > radii[r]:
                    groups, members = groups + 1, 0.0
                members += mass[a]
                best = max(best, members)
            largest[r, k], clusters[r, k], steps[r, k] = best, groups, done
