"""krause_attention: its data, its score and what weighs or forbids keys, against attention written out with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.nn import krause_attention
from tests.keywords.heads import allowed_of, attention, draw, same
from tests.keywords.row import row

Q, K, V = draw(2, 4, 7, 4, seed=1), draw(2, 2, 7, 4, seed=2), draw(2, 2, 7, 3, seed=3)
COUNTS = torch.tensor([1, 2, 1, 3, 1, 1, 2])


def equals(expected, q=Q, k=K, v=V, **options):
    """Output and log-partition of every form are those written out."""
    for impl in ("auto", "reference"):
        mean, log_partition = krause_attention(q, k, v, impl=impl, return_log_partition=True, **options)
        same(mean, expected[0])
        same(log_partition, expected[1])


@row("kd.nn.krause_attention", "q", Q, 2.0 * Q[:, :, 3:6] + 1.0, "each query's row written out, whoever else asks")
def q(first, second):
    for queries in (first, second):
        equals(attention(queries, K, V), queries)
        equals([x[:, :, 1:2] for x in attention(queries, K, V)], queries[:, :, 1:2])
    equals(attention(second, K, V), second + 3.0, K + 3.0)  # distances know no origin


@row("kd.nn.krause_attention", "k", K, draw(2, 4, 5, 4, seed=7), "keys written out, a head of them for one or more")
def k(first, second):
    for keys in (first, second):
        values = draw(2, keys.shape[1], keys.shape[2], 3, seed=8)
        equals(attention(Q, keys, values), k=keys, v=values)
        turned = torch.arange(keys.shape[2]).flip(0)
        equals(attention(Q, keys, values), k=keys[:, :, turned], v=values[:, :, turned])
    same(krause_attention(Q, first, V), krause_attention(Q, first.repeat_interleave(2, 1), V.repeat_interleave(2, 1)))


@row("kd.nn.krause_attention", "v", V, draw(2, 2, 7, 5, seed=4), "means of any width: linear in the values, 1 of ones")
def v(first, second):
    weights = attention(Q, K, V)[2]
    for values in (first, second):
        same(krause_attention(Q, K, values), weights @ values.repeat_interleave(2, 1).numpy())
        same(krause_attention(Q, K, torch.ones_like(values)), 1.0)


@row("kd.nn.krause_attention", "sigma", None, 0.7, "scores -r^2 / (2 sigma^2), by default d^(1/4); one entry per head")
def sigma(first, second):
    equals(attention(Q, K, V, 4**-0.5), sigma=first)
    equals(attention(Q, K, V, second**-2), sigma=second)
    heads = torch.tensor([0.5, 0.7, 1.0, 2.0], dtype=torch.float64)
    equals(attention(Q, K, V, heads.numpy() ** -2), sigma=heads)
    equals(attention(Q, K, V, second**-2, score="dot"), sigma=second, score="dot")


@row(
    "kd.nn.krause_attention", "scale", None, 0.8, "the coefficient itself, by default 1 / sqrt(d); of dot also below 0"
)
def scale(first, second):
    for score in ("gaussian", "dot"):
        equals(attention(Q, K, V, 4**-0.5, score=score), scale=first, score=score)
        equals(attention(Q, K, V, second, score=score), scale=second, score=score)
    equals(attention(Q, K, V, -second, score="dot"), scale=-second, score="dot")
    with pytest.raises(ValueError, match="sigma or scale"):
        krause_attention(Q, K, V, scale=second, sigma=1.0)


@row("kd.nn.krause_attention", "score", "gaussian", "dot", "distances; or products, as torch's own attention has them")
def score(first, second):
    equals(attention(Q, K, V, score=first), score=first)
    same(krause_attention(Q, K, V), krause_attention(Q, K, V, score=first))
    torchs = torch.nn.functional.scaled_dot_product_attention(Q, K, V, enable_gqa=True)
    same(krause_attention(Q, K, V, score=second), torchs)


@row("kd.nn.krause_attention", "key_bias", None, COUNTS.double().log(), "log 2 is the key twice; -inf takes it out")
def key_bias(first, second):
    equals(attention(Q, K, V), key_bias=first)
    twice = [x.repeat_interleave(COUNTS, dim=2) for x in (K, V)]
    equals(attention(Q, *twice), key_bias=second)
    equals(attention(Q, *twice), key_bias=second.expand(2, 7))  # per batch element
    per_head = draw(1, 4, 7, seed=5)
    equals(attention(Q, K, V, key_bias=per_head.numpy()[:, :, None], top_k=3), key_bias=per_head, top_k=3)
    without = torch.where(torch.arange(7) == 2, -torch.inf, 0.0)
    rest = [torch.cat([x[:, :, :2], x[:, :, 3:]], 2) for x in (K, V)]
    equals(attention(Q, *rest, top_k=3), key_bias=without, top_k=3)


@row(
    "kd.nn.krause_attention", "pair_bias", None, draw(4, 7, 7, seed=6), "added to the scores, so it ranks; -inf forbids"
)
def pair_bias(first, second):
    equals(attention(Q, K, V, top_k=2), pair_bias=first, top_k=2)
    equals(attention(Q, K, V, pair_bias=second.numpy(), top_k=2), pair_bias=second, top_k=2)
    forbidden = torch.where(second > 0.5, -torch.inf, 0.0)
    equals(attention(Q, K, V, heard=(second <= 0.5).numpy(), top_k=2), pair_bias=forbidden, top_k=2)


VALID = torch.tensor([[False, True, True, True, True, True, True], [True, True, True, True, True, False, False]])


@row("kd.nn.krause_attention", "key_valid", None, VALID, "false is padding, either side: as if the keys were not there")
def key_valid(first, second):
    equals(attention(Q, K, V), key_valid=first)
    keys, values = (torch.where(second[:, None, :, None], x, torch.nan) for x in (K, V))  # padding may hold anything
    found = krause_attention(Q, keys, values, key_valid=second, top_k=3)
    for i in range(2):
        rest = [x[i : i + 1, :, second[i]] for x in (K, V)]
        same(found[i : i + 1], attention(Q[i : i + 1], *rest, top_k=3)[0])
    heard, masses = second.numpy()[:, None, None], COUNTS.double().log()  # masses beside padding
    equals(attention(Q, K, V, heard=heard, key_bias=masses.numpy()), key_valid=second, key_bias=masses)
    nobody, log_partition = krause_attention(Q, K, V, key_valid=~(second | True), return_log_partition=True)
    assert (nobody == 0).all()
    assert (log_partition == -torch.inf).all()


@row("kd.nn.krause_attention", "query_offset", None, 2, "place of the first query among the keys; by default the last")
def query_offset(first, second):
    few, heard = Q[:, :, :3], allowed_of(7, window=2)
    equals(attention(few, K, V, heard=heard[4:7]), few, query_offset=first, window=2)
    equals(attention(few, K, V, heard=heard[2:5]), few, query_offset=second, window=2)


@row("kd.nn.krause_attention", "dropout", 0.0, 0.4, "a weight is 0 with that probability, else divided by the rest")
def dropout(first, second):
    weights = attention(Q, K, V)[2]
    identity = torch.eye(7, dtype=torch.float64).expand(2, 2, 7, 7)  # then the outputs are the weights
    same(krause_attention(Q, K, identity, dropout=first), weights)
    torch.manual_seed(0)
    draws = np.stack([krause_attention(Q, K, identity, dropout=second) for _ in range(40)])
    kept = draws != 0.0
    same(draws[kept], np.broadcast_to(weights / (1.0 - second), draws.shape)[kept])
    # Weights fall independently: the share of N of them is within five standard errors.
    assert abs(kept.mean() - (1.0 - second)) < 5 * np.sqrt(second * (1.0 - second) / kept.size)
    torch.manual_seed(0)
    same(krause_attention(Q, K, identity, dropout=second), draws[0])


@row(
    "kd.nn.krause_attention", "impl", "reference", "banded", "each form is the one written out; a wrong name is refused"
)
def impl(first, second):
    expected = attention(Q, K, V, heard=allowed_of(7, window=4), top_k=2)[0]
    for name in (first, second):
        same(krause_attention(Q, K, V, window=4, top_k=2, impl=name), expected)
    with pytest.raises(kd.UnsupportedImplementation, match="dropout"):  # a name never falls back
        krause_attention(Q, K, V, dropout=0.5, impl=first)
    with pytest.raises(kd.UnsupportedImplementation, match="dense"):
        krause_attention(Q, K, V, impl="dense")


@row("kd.nn.krause_attention", "return_log_partition", False, True, "log of the sum of exponentials beside the mean")
def return_log_partition(first, second):
    alone = krause_attention(Q, K, V, return_log_partition=first)
    mean, log_partition = krause_attention(Q, K, V, return_log_partition=second)
    same(alone, mean)
    gaps = torch.cdist(Q, K.repeat_interleave(2, 1)).square()
    same(log_partition, torch.logsumexp(-gaps / 4.0, -1), rtol=1e-9, atol=1e-9)  # 1 / (2 sqrt 4); cdist takes roots
