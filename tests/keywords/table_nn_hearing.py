"""Who is heard in attention on tensors: a neighbourhood, its short forms, and the words of the last release."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.nn import krause_attention
from tests.keywords.heads import allowed_of, attention, cells, draw, same
from tests.keywords.row import row

Q, K, V = draw(2, 4, 12, 4, seed=1), draw(2, 2, 12, 4, seed=2), draw(2, 2, 12, 3, seed=3)
PACKED = torch.tensor([0, 5, 5, 12])


def written(**rule):
    return attention(Q, K, V, **rule)


def equals(expected, **options):
    """Output and log-partition of every form are those written out."""
    for impl in ("auto", "reference"):
        mean, log_partition = krause_attention(Q, K, V, impl=impl, return_log_partition=True, **options)
        same(mean, expected[0])
        same(log_partition, expected[1])


@row(
    "kd.nn.krause_attention",
    "neighbourhood",
    None,
    kd.Window(5, two_sided=True) & kd.TopK(3),
    "everyone; or who the value admits, pair by pair; keywords beside it join it",
)
def neighbourhood(first, second):
    equals(written(), neighbourhood=first)
    equals(written(heard=allowed_of(12, 5, two_sided=True), top_k=3), neighbourhood=second)
    equals(written(heard=allowed_of(12, 3), top_k=3), neighbourhood=second, causal=True)
    sequence = np.repeat([0, 2], [5, 7])
    together = sequence[:, None] == sequence
    equals(written(heard=together & allowed_of(12, 4)), neighbourhood=kd.Segments(PACKED), window=4)
    with pytest.raises(ValueError, match=r"kd\.aggregate"):
        krause_attention(Q, K, V, kd.Within(1.0))


@row("kd.nn.krause_attention", "window", None, 4, "the last 4 keys, the query's own counted; of one its own value")
def window(first, second):
    equals(written(), window=first)
    equals(written(heard=allowed_of(12, second)), window=second)
    same(krause_attention(Q, K, V, window=1), V.repeat_interleave(2, 1))
    equals(written(heard=np.tri(12, dtype=bool)), window=12)


@row(
    "kd.nn.krause_attention", "top_k", None, 3, "the highest scores of those heard, the earlier of a tie; k = 1 nearest"
)
def top_k(first, second):
    equals(written(), top_k=first)
    equals(written(top_k=second), top_k=second)
    equals(written(heard=allowed_of(12, 5), top_k=second), top_k=second, window=5)
    equals(written(), top_k=99)
    keys, values = (x.repeat_interleave(2, 1) for x in (K, V))
    nearest = torch.cdist(Q, keys).argmin(-1, keepdim=True).expand(-1, -1, -1, 3)
    same(krause_attention(Q, K, V, top_k=1), values.gather(2, nearest))
    tied = krause_attention(Q, torch.zeros_like(K), V, top_k=second)
    same(tied, values[:, :, :second].mean(2, keepdim=True).expand_as(tied))


@row("kd.nn.krause_attention", "causal", False, True, "True: no later keys, so that a later token moves no earlier row")
def causal(first, second):
    equals(written(), causal=first)
    equals(written(heard=np.tri(12, dtype=bool)), causal=second)
    parts = [x[:, :, :6] for x in (Q, K, V)]
    same(krause_attention(Q, K, V, causal=second)[:, :, :6], krause_attention(*parts, causal=second))


@row("kd.nn.krause_attention", "grid", None, (3, 4), "cells at most 2 rows and columns away, or as the Grid given says")
def grid(first, second):
    equals(written(), grid=first)
    equals(written(heard=cells(*second, 2)), grid=second)
    equals(written(heard=cells(4, 3, 2)), grid=second[::-1])
    equals(written(heard=cells(*second, 1, manhattan=True)), grid=kd.Grid(*second, 1, "manhattan"))
    with pytest.raises(ValueError, match="whole pictures"):
        krause_attention(Q, K, V, grid=(3, 3))


@row(
    "kd.nn.krause_attention",
    "old",
    {},
    {"side": "both"},
    "each word of the last release means the pairs that it meant then, and a warning shows the value to write",
)
def old(first, second):
    equals(written(heard=allowed_of(12, 5)), window=5, **first)
    with pytest.warns(DeprecationWarning, match=r"Window\(5, two_sided=True\)"):
        equals(written(heard=allowed_of(12, 5, two_sided=True)), window=5, **second)
    with pytest.warns(DeprecationWarning, match="cu_seqlens"):
        found = krause_attention(Q, K, V, cu_seqlens=PACKED)
    same(found, krause_attention(Q, K, V, kd.Segments(PACKED)))
    with pytest.warns(DeprecationWarning, match=r"TopK\(2, ties='keep'\)"):
        tied = krause_attention(Q, torch.zeros_like(K), V, top_k=2, ties="keep")
    same(tied, V.mean(2, keepdim=True).repeat_interleave(2, 1).expand_as(tied))
    with pytest.warns(DeprecationWarning, match="radius"):
        near = krause_attention(Q, K, V, grid=(3, 4), radius=1, metric="manhattan")
    same(near, written(heard=cells(3, 4, 1, manhattan=True))[0])
    with pytest.warns(DeprecationWarning, match="prefix"):
        prefixed = krause_attention(Q, K, V, grid=(1, 11), radius=1, prefix_tokens=1)
    heard = np.ones((12, 12), dtype=bool)
    heard[1:, 1:] = cells(1, 11, 1)
    same(prefixed, written(heard=heard)[0])
    with pytest.raises(TypeError, match="windows"):
        krause_attention(Q, K, V, windows=3)
