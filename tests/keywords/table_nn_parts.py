"""The parts of attention: bandwidth, rotary positions, caches, sparse weights, and what `explain` says."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import krause_dynamics as kd
from krause_dynamics.nn import (
    LogSigma,
    Rotary,
    StaticWindowCache,
    WindowCache,
    explain,
    krause_attention,
    sparse_weights,
)
from tests.keywords.heads import allowed_of, attention, cells, draw, same, turned
from tests.keywords.row import row

SINGLE = {"rtol": 2e-6, "atol": 2e-7}  # float32, the dtype in which log sigma is learned

Q, K, V = draw(2, 4, 12, 4, seed=1), draw(2, 2, 12, 4, seed=2), draw(2, 2, 12, 3, seed=3)


@row("kd.nn.LogSigma", "sigma", 0.5, 3.0, "the weight is its logarithm, so that a step of the weight is a factor")
def sigma(first, second):
    for value in (first, second):
        module = LogSigma(value)
        same(module.weight, [np.log(value)], **SINGLE)
        with torch.no_grad():
            module.weight += np.log(2.0)
        same(module(), [2.0 * value], **SINGLE)
    with pytest.raises(ValueError, match="sigma"):
        LogSigma(-first)


@row("kd.nn.LogSigma", "entries", 1, 4, "as many bandwidths, each with its own gradient sigma of its own logarithm")
def entries(first, second):
    for count in (first, second):
        module = LogSigma(0.5, count)
        same(module(), np.full(count, 0.5), **SINGLE)
        module()[-1].backward()
        same(module.weight.grad, 0.5 * (np.arange(count) == count - 1), **SINGLE)


@row(
    "kd.nn.LogSigma",
    "learn",
    True,
    False,
    "a step of descent multiplies sigma by exp(-rate * gradient); or nothing moves",
)
def learn(first, second):
    module = LogSigma(0.5, learn=first)
    module().sum().backward()
    torch.optim.SGD(module.parameters(), lr=0.2).step()
    same(module(), [0.5 * np.exp(-0.2 * 0.5)], **SINGLE)
    assert not LogSigma(0.5, learn=second)().requires_grad


def rotates(module, dim, base):
    """Pairs turn as complex numbers do, and products depend on the difference of positions alone."""
    x, positions = draw(2, 3, 5, dim, seed=4), torch.tensor([0, 1, 4, 7, 100])
    same(module(x, positions), turned(x, positions, base), rtol=1e-4, atol=1e-4)  # frequencies are float32
    first, second = (module(x[:, :, i : i + 1], torch.tensor([i])) for i in (2, 4))
    later = [module(x[:, :, i : i + 1], torch.tensor([i + 50])) for i in (2, 4)]
    same((first * second).sum(-1), (later[0] * later[1]).sum(-1), rtol=1e-4, atol=1e-4)


@row("kd.nn.Rotary", "dim", 4, 6, "dim / 2 pairs turn as complex numbers; an odd dimension has none")
def rotary_dim(first, second):
    for dim in (first, second):
        rotates(Rotary(dim), dim, 10000.0)
    with pytest.raises(ValueError, match="even"):
        Rotary(5)


@row("kd.nn.Rotary", "base", 10000.0, 100.0, "pair c turns by base^(-2c/d) a position, as complex numbers do")
def rotary_base(first, second):
    for base in (first, second):
        rotates(Rotary(6, base), 6, base)


def decoded(cache, steps, **rule):
    """Attention of 12 tokens that arrive `steps` at a time, and the number of keys that each step met."""
    rows, met = [], []
    for t in range(0, 12, steps):
        now = slice(t, t + steps)
        k, v, valid, offset = cache.update(K[:, :, now], V[:, :, now])
        rows.append(krause_attention(Q[:, :, now], k, v, key_valid=valid, query_offset=offset, **rule))
        met.append(k.shape[2])
    return torch.cat(rows, 2), met


@row("kd.nn.WindowCache", "window", None, 3, "decoding equals the whole pass, and holds all keys or the window's alone")
def window(first, second):
    for steps in (1, 2, 4):
        out, met = decoded(WindowCache(first), steps, causal=True)
        same(out, attention(Q, K, V, heard=allowed_of(12, causal=True))[0])
        assert met == list(range(steps, 13, steps))
        out, met = decoded(WindowCache(second), steps, window=second)
        same(out, attention(Q, K, V, heard=allowed_of(12, second))[0])
        assert met == [min(t, second - 1) + steps for t in range(0, 12, steps)]


@row(
    "kd.nn.StaticWindowCache", "window", 3, 5, "decoding equals the whole pass, with window - 1 old keys at every step"
)
def static_window(first, second):
    for size in (first, second):
        for steps in (1, 2):
            out, met = decoded(StaticWindowCache(size), steps, window=size)
            same(out, attention(Q, K, V, heard=allowed_of(12, size))[0])
            assert met == [size - 1 + steps] * (12 // steps)
    with pytest.raises(ValueError, match="window"):
        StaticWindowCache(0)


def dense(index, weight, keys):
    """(index, weight) of the admitted keys as a matrix; indices ascend, and -1 stands last with weight 0."""
    there = index >= 0
    assert (weight[~there] == 0).all()
    assert ((index.diff(dim=-1) > 0) | ~there[..., 1:]).all()
    whole = weight.new_zeros(*index.shape[:-1], keys)
    return whole.scatter_add(-1, index.clamp(min=0), weight)


@row("kd.nn.sparse_weights", "q", Q, Q[:, :, 8:] - 1.0, "each row of the matrix written out, whoever else asks")
def sparse_q(first, second):
    for queries in (first, second):
        same(dense(*sparse_weights(queries, K), 12), attention(queries, K, V)[2])


@row("kd.nn.sparse_weights", "k", K, K.repeat(1, 2, 1, 1)[:, :, :5] * 2.0, "matrix written out, 12 keys or 5 a row")
def sparse_k(first, second):
    for keys in (first, second):
        index, weight = sparse_weights(Q, keys)
        same(dense(index, weight, keys.shape[2]), attention(Q, keys, keys)[2])
        assert index.shape == (2, 4, 12, keys.shape[2])


@row(
    "kd.nn.sparse_weights",
    "neighbourhood",
    None,
    kd.Window(5, two_sided=True) & kd.TopK(3),
    "the matrix written out in as many columns as the rule admits; keywords join it",
)
def sparse_neighbourhood(first, second):
    same(dense(*sparse_weights(Q, K, first), 12), attention(Q, K, V)[2])
    index, weight = sparse_weights(Q, K, second)
    same(dense(index, weight, 12), attention(Q, K, V, heard=allowed_of(12, 5, two_sided=True), top_k=3)[2])
    assert index.shape[-1] == 3
    index, weight = sparse_weights(Q, K, second, causal=True)
    same(dense(index, weight, 12), attention(Q, K, V, heard=allowed_of(12, 3), top_k=3)[2])


BIAS = draw(4, 12, 12, seed=5)


@row(
    "kd.nn.sparse_weights",
    "options",
    {},
    {"window": 4, "top_k": 2, "sigma": 0.7, "pair_bias": BIAS},
    "the matrix of it",
)
def sparse_options(first, second):
    same(dense(*sparse_weights(Q, K, **first), 12), attention(Q, K, V)[2])
    expected = attention(Q, K, V, 0.7**-2, heard=allowed_of(12, 4), top_k=2, pair_bias=BIAS.numpy())[2]
    same(dense(*sparse_weights(Q, K, **second), 12), expected)
    same(dense(*sparse_weights(Q, K, grid=(3, 4)), 12), attention(Q, K, V, heard=cells(3, 4, 2))[2])
    twice = torch.where(torch.arange(12) == 3, np.log(2.0), 0.0).double()
    expected = attention(Q, K, V, 0.8, score="dot", key_bias=twice.numpy())[2]
    same(dense(*sparse_weights(Q, K, score="dot", scale=0.8, key_bias=twice), 12), expected)
    with pytest.raises(TypeError, match="windows"):
        sparse_weights(Q, K, windows=4)


def in_forward_mode(place, first, tangent):
    """A tangent at one of q, k, v goes to the definition, whose derivative is the central difference."""
    data = [Q, K, V]
    assert explain(*data)[0] == "banded"
    with forward_ad.dual_level():
        dual = [forward_ad.make_dual(x, tangent) if i == place else x for i, x in enumerate(data)]
        name, reason = explain(*dual)
        slope = forward_ad.unpack_dual(krause_attention(*dual)).tangent
    assert name == "reference"
    assert "forward-mode" in reason
    ends = [attention(*(x + h * tangent if i == place else x for i, x in enumerate(data)))[0] for h in (-1e-5, 1e-5)]
    same(slope, (ends[1] - ends[0]) / 2e-5, rtol=1e-6, atol=1e-8)  # h^2 and rounding / h
    wrong = [x.int() if i == place else x for i, x in enumerate(data)]
    with pytest.raises(TypeError, match="dtype"):
        explain(*wrong)


for place, (name, x) in enumerate({"q": Q, "k": K, "v": V}.items()):
    states = "plain tensors go to the exact fast form, a tangent to the definition, with the derivative written out"
    row("kd.nn.explain", name, x, draw(*x.shape, seed=6 + place), states)(partial(in_forward_mode, place))


def refusal(*rule, impl, **options):
    with pytest.raises(kd.UnsupportedImplementation) as error:
        explain(Q, K, V, *rule, impl=impl, **options)
    return str(error.value)


@row(
    "kd.nn.explain",
    "neighbourhood",
    None,
    kd.TopK(3),
    "FlexAttention is refused for top-k by the value that asks for it",
)
def explain_neighbourhood(first, second):
    assert "top-k" not in refusal(first, impl="flex")
    assert "top-k" in refusal(second, impl="flex")
    assert "top-k" in refusal(second & kd.Window(3), impl="flex")
    with pytest.raises(ValueError, match=r"kd\.aggregate"):
        explain(Q, K, V, kd.Within(1.0))


@row(
    "kd.nn.explain", "impl", "reference", "banded", "a name asked for is the name taken, and gives what is written out"
)
def explain_impl(first, second):
    for name in (first, second):
        taken, reason = explain(Q, K, V, kd.Window(4), impl=name)
        assert taken == name
        assert "asked" in reason
        same(krause_attention(Q, K, V, kd.Window(4), impl=taken), attention(Q, K, V, heard=allowed_of(12, 4))[0])
    assert "'auto'" in refusal(impl="dense")
    assert "CUDA" in refusal(impl="triton")


@row("kd.nn.explain", "options", {}, {"dropout": 0.5}, "each option counts: dropout is no part of the definition")
def explain_options(first, second):
    assert explain(Q, K, V, impl="reference", **first)[0] == "reference"
    assert "dropout" in refusal(impl="reference", **second)
    assert explain(Q, K, V, return_log_partition=True, **second)[0] == "banded"
    assert "top-k" in refusal(impl="flex", top_k=3)
    assert "pair biases" in refusal(impl="flex", pair_bias=BIAS)
    with pytest.raises(TypeError, match="windows"):
        explain(Q, K, V, windows=3)
