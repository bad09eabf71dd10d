"""Scores of some rows become weights, and are summed by row, by key and by distance in the same pass."""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import highest, scale_by, single
from krause_dynamics.forms.attention.cpu.compiled import entry, sums

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@sums
def _exponentials(values, count, shift):
    """As `arithmetic.exponentials`; returns sum e^t and sum t e^t of t = values - shift.

    The second is what entropy needs: no logarithm of small weights. -inf counts as 0.
    """
    total = values.dtype.type(0)
    moment = values.dtype.type(0)
    for t in range(count):
        x = np.float32(values[t] - shift)
        grown = single(x)
        values[t] = grown
        total += grown
        moment += grown * (np.float32(0) if x < np.float32(-87.0) else x)
    return total, moment


@sums
def _exact_exponentials(values, count, shift):
    """The same in double precision."""
    total = moment = values.dtype.type(0)
    for t in range(count):
        x = values[t] - shift
        grown = np.exp(x)
        values[t] = grown
        total += grown
        moment += grown * x if grown > 0 else values.dtype.type(0)
    return total, moment


@sums
def _scale_into(values, count, factor, received, profile):
    """Values *= factor, which are added to both: one pass over a row, which lies in the nearest cache."""
    for t in range(count):
        weight = values[t] * factor
        values[t] = weight
        received[t] += weight
        profile[t] += weight


@sums
def _scale_to_keys(values, count, factor, received):
    """The same without distances."""
    for t in range(count):
        weight = values[t] * factor
        values[t] = weight
        received[t] += weight


@entry
def weigh_rows(scores, place, sink, group, lower, upper, received, profile, entropy, own, log_partition):
    """Scores of a block become weights of sum 1 in place, 0 outside of each row's interval; and their sums.

    Entropy and log-partition are those of the keys among themselves, whatever a sink takes from their weights.

    Args:
        scores: (rows, columns), C-contiguous, no NaN and nothing above the largest float.
        place: (3,) number of the first row, position of the first row's query, key of the first column.
        sink: Logit of a term of the denominator that has no key; -inf: none.
        group: (n,) row of ``received`` for each query by number, -1: none.
        lower: (n,) first key of each row by number.
        upper: (n,) one past its last key.
        received: (groups, m) in double precision, to which weights are added; the block's own sums are single.
        profile: (n + m - 1,) likewise by distance i - j, from -(m - 1) on; size 0: not wanted.
        entropy: (n,) result in nats, by number.
        own: (n,) result, weight of each query at its own position.
        log_partition: (n,) result.
    """
    rows, columns = scores.shape
    first, last = received.shape[0], -1  # groups of these rows
    for r in range(rows):
        if group[place[0] + r] >= 0:
            first, last = min(first, group[place[0] + r]), max(last, group[place[0] + r])
    by_key = np.zeros((max(0, last - first + 1), columns), scores.dtype)
    by_lag = np.zeros(rows + columns - 1 if profile.size > 0 else 0, scores.dtype)
    for r in range(rows):
        i = place[0] + r
        begin, end = lower[i] - place[2], upper[i] - place[2]
        row = scores[r]
        for t in range(min(begin, columns)):
            row[t] = 0
        for t in range(max(end, 0), columns):
            row[t] = 0
        entropy[i], own[i], log_partition[i] = 0, 0, -np.inf
        if end <= begin:
            continue
        heard = row[begin:end]
        count = end - begin
        largest = highest(heard, count)
        if largest == -np.inf:
            heard[:] = 0
            continue
        if row.itemsize == 8:
            total, moment = _exact_exponentials(heard, count, largest)
        else:
            total, moment = _exponentials(heard, count, largest)
        log_total = np.log(total)
        log_partition[i] = log_total + largest
        entropy[i] = max(log_total - moment / total, row.dtype.type(0))  # rounding reaches -1e-6
        factor = row.dtype.type(1) / (total * (row.dtype.type(1) + np.exp(sink - log_partition[i])))
        if group[i] < 0:
            scale_by(heard, count, factor)
            if profile.size > 0:
                _scale_to_keys(heard, count, row.dtype.type(1), by_lag[rows - 1 - r + begin :])
        elif profile.size > 0:
            _scale_into(heard, count, factor, by_key[group[i] - first][begin:], by_lag[rows - 1 - r + begin :])
        else:
            _scale_to_keys(heard, count, factor, by_key[group[i] - first][begin:])
        itself = place[1] + r - place[2]
        if begin <= itself < end:
            own[i] = row[itself]
    for g in range(by_key.shape[0]):
        for t in range(columns):
            received[first + g, place[2] + t] += by_key[g, t]
    # Distances i - j fall as column - row rises; the largest is that of the last row and the first column.
    highest_place = received.shape[1] - 1 + place[1] + rows - 1 - place[2]
    for t in range(by_lag.shape[0]):
        profile[highest_place - t] += by_lag[t]
