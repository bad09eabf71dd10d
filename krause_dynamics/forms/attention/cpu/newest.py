"""The newest token against the keys before it, where the cache holds them: written, scored, ranked and summed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from krause_dynamics.forms.attention.cpu.arithmetic import (
    distances,
    products,
    scale_by,
    weighted_vectors,
)
from krause_dynamics.forms.attention.cpu.compiled import entry, plain
from krause_dynamics.forms.attention.cpu.row import compact, normalise, select

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


class Place(NamedTuple):
    """Whole numbers of one token, for the kernel.

    Attributes:
        heads: Number of heads.
        kv_heads: Heads of keys and values.
        capacity: Tokens for which a head of the cache has room.
        begin: First key that the token hears.
        end: One past the last, which is its own.
        position: Of the token among all that were ever seen.
        distance: 1: score -a/2 |q - k|^2, 0: a <q, k>.
        top_k: As in `Layout`, with the next two.
        keep_ties: Whether all that tie with the k-th stay.
        exempt: Leading positions that select nobody.
    """

    heads: int
    kv_heads: int
    capacity: int
    begin: int
    end: int
    position: int
    distance: int
    top_k: int
    keep_ties: int
    exempt: int


@plain
def _write(new, kept, place):
    """Write the vectors (batch, kv_heads d) of a token to its place in rows of memory (batch kv_heads capacity, d)."""
    d = kept.shape[1]
    for b in range(new.shape[0]):
        for g in range(place.kv_heads):
            row = (b * place.kv_heads + g) * place.capacity + place.end - 1
            for c in range(d):
                kept[row, c] = new[b, g * d + c]


@entry
def attend(q, k, v, keys, values, log_sigma, place, out):
    """Means of one token a batch element; its key and value are appended first.

    Args:
        q: (batch, heads d).
        k: (batch, kv_heads d).
        v: (batch, kv_heads d_v).
        keys: The cache as rows of memory (batch kv_heads capacity, d).
        values: Likewise (., d_v).
        log_sigma: (1,) or (heads,); the coefficient a of the score is exp(-2 log sigma).
        place: `Place`.
        out: Result (batch, heads d_v).
    """
    _write(k, keys, place)
    _write(v, values, place)
    d, width, group = keys.shape[1], values.shape[1], place.heads // place.kv_heads
    length = place.end - place.begin
    scores, columns = np.empty(length, q.dtype), np.empty(length, np.int32)
    half = q.dtype.type(-0.5)
    for x in range(q.shape[0] * place.heads):
        b, h = x // place.heads, x % place.heads
        start = (b * place.kv_heads + h // group) * place.capacity
        query, mean = q[b, h * d : (h + 1) * d], out[b, h * width : (h + 1) * width]
        scale = q.dtype.type(np.exp(log_sigma.dtype.type(-2) * log_sigma[h % log_sigma.shape[0]]))
        if place.distance == 1:
            distances(query, keys, start, 1, place.begin, place.end, scores, 0)
            scale_by(scores, length, half)
        else:
            products(query, keys, start, 1, place.begin, place.end, scores, 0)
        scale_by(scores, length, scale)
        for t in range(length):
            columns[t] = place.begin + t
        count, stay = length, select(scores, length, place, place.position)
        if stay < 0:
            mean[:] = np.nan
            continue
        if stay == 0:
            mean[:] = 0
            continue
        if stay < length:
            count = compact(scores, columns, columns, length)
        normalise(scores, count)
        weighted_vectors(scores, columns, count, values, start, 1, mean)
