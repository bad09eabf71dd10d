"""First tokens, exempt rows, random keys, key norms and sinks: what whole models choose from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.nn import KrauseAttention, StaticWindowCache, WindowCache, krause_attention
from tests.keywords.heads import attention, draw, same
from tests.keywords.row import row

Q, K, V = draw(2, 4, 12, 4, seed=1), draw(2, 2, 12, 4, seed=2), draw(2, 2, 12, 3, seed=3)
X = np.random.default_rng(6).standard_normal((12, 2))
I, J = np.indices((12, 12))


def heard(neighbourhood, score=None):
    return kd.weights(kd.Interaction(score or kd.Flat(), neighbourhood), X) > 0


@row("kd.Window", "prefix_tokens", 0, 2, "admits the first tokens beside the window, to nobody before their time")
def prefix_tokens(first, second):
    for count in (first, second):
        np.testing.assert_array_equal(heard(kd.Window(3, prefix_tokens=count)), (J <= I) & ((I - J < 3) | (count > J)))
        both = heard(kd.Window(3, two_sided=True, prefix_tokens=count))
        np.testing.assert_array_equal(both, (abs(I - J) <= 1) | (count > J))
    with pytest.raises(ValueError, match="prefix_tokens"):
        kd.Window(3, periodic=True, prefix_tokens=second)


@row("kd.TopK", "exempt", 0, 3, "the leading rows keep all that they may hear, the others k")
def exempt(first, second):
    for count in (first, second):
        expected = [12] * count + [4] * (12 - count)
        assert heard(kd.TopK(4, exempt=count), kd.Gaussian(1.0)).sum(1).tolist() == expected


@row("kd.RandomKeys", "degree", 1, 5, "everyone hears as many, itself among them: of one, itself alone")
def degree(first, second):
    np.testing.assert_array_equal(heard(kd.RandomKeys(first, tokens=12)), I == J)
    assert (heard(kd.RandomKeys(second, tokens=12)).sum(1) == second).all()


@row("kd.RandomKeys", "seed", 0, 1, "the same keys at every call, and others for another seed")
def seed(first, second):
    one, again, other = (heard(kd.RandomKeys(4, seed, tokens=12)) for seed in (first, first, second))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@row("kd.RandomKeys", "tokens", None, 12, "keys of the past at any length; or of all places, as many as are named")
def random_tokens(first, second):
    past = heard(kd.RandomKeys(4, tokens=first))
    assert past.sum(1).tolist() == [1, 2, 3] + [4] * 9
    assert not past[J > I].any()
    assert heard(kd.RandomKeys(4, tokens=second))[J > I].any()
    with pytest.raises(ValueError, match="tokens"):
        heard(kd.RandomKeys(4, tokens=second - 1))


@row("kd.RandomKeys", "prefix", 0, 2, "leading tokens hear all and are heard by all, beside the degree of the others")
def random_prefix(first, second):
    assert (heard(kd.RandomKeys(4, tokens=12, prefix=first)).sum(1) == 4).all()
    seen = heard(kd.RandomKeys(4, tokens=12, prefix=second))
    assert seen[:second].all()
    assert seen[:, :second].all()
    assert (seen[second:].sum(1) == 4 + second).all()


@row("kd.DotProduct", "norm", 0.0, 0.5, "beta <x, y> - norm |y|^2; of half of beta the means of the Gaussian")
def norm(first, second):
    plain, with_norm, gaussian = (
        kd.aggregate(kd.Interaction(score), X).mean
        for score in (kd.DotProduct(1.0, first), kd.DotProduct(1.0, second), kd.Gaussian(1.0))
    )
    np.testing.assert_allclose(with_norm, gaussian, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(plain, kd.aggregate(kd.softmax(1.0), X).mean, rtol=1e-12, atol=1e-12)


@row(
    "kd.nn.krause_attention", "norm", None, 0.3, "the term -norm |k|^2 joins the product, so it ranks; one entry a head"
)
def attention_norm(first, second):
    squares = -second * K.square().sum(-1).repeat_interleave(2, 1)[:, :, None]
    for top_k in (None, 3):
        mine = krause_attention(Q, K, V, score="dot", norm=second, top_k=top_k)
        same(mine, krause_attention(Q, K, V, score="dot", pair_bias=squares, top_k=top_k))
        heads = torch.full((4,), second, dtype=torch.float64)
        same(mine, krause_attention(Q, K, V, score="dot", norm=heads, top_k=top_k))
    same(krause_attention(Q, K, V, score="dot", norm=first), attention(Q, K, V, 0.5, score="dot")[0])
    with pytest.raises(ValueError, match="norm"):
        krause_attention(Q, K, V, norm=second)


@row("kd.nn.krause_attention", "sink", None, torch.arange(4.0), "one more logit a head in the denominator")
def attention_sink(first, second):
    out, log_partition = krause_attention(Q, K, V, sink=first, return_log_partition=True)
    total = log_partition.exp()
    share = (total / (total + second.double().exp()[:, None]))[..., None]
    same(krause_attention(Q, K, V, sink=second), out * share)


@row("kd.nn.KrauseAttention", "norm", None, 0.3, "a coefficient a head, learned from there; the layer's rule holds it")
def layer_norm(first, second):
    assert KrauseAttention(8, 2, score="dot", norm=first).key_norm is None
    layer = KrauseAttention(8, 2, score="dot", norm=second)
    same(layer.key_norm.weight, [second] * 2, rtol=1e-6, atol=0)
    same(layer.interaction.score.norm, [[second]] * 2, rtol=1e-6, atol=0)


@row("kd.nn.KrauseAttention", "sink", False, True, "a logit a head, from 0: every weight is multiplied by Z / (Z + 1)")
def layer_sink(first, second):
    torch.manual_seed(0)
    layer = KrauseAttention(8, 2, sink=second).double()
    plain = KrauseAttention(8, 2, sink=first).double()
    plain.load_state_dict({name: x for name, x in layer.state_dict().items() if "sink" not in name})
    x = draw(2, 6, 8, seed=1)
    (_, weights), (_, whole) = layer(x, return_weights=True)[1], plain(x, return_weights=True)[1]
    q, k, v = layer.project(x)
    total = krause_attention(q, k, v, sigma=layer.sigma, return_log_partition=True)[1].exp()
    same(weights, whole * (total / (1 + total))[..., None])


def decoded(cache, steps, neighbourhood):
    rows = []
    for begin in range(0, 12, steps):
        now = slice(begin, begin + steps)
        k, v, valid, offset = cache.update(K[:, :, now], V[:, :, now])
        rows.append(krause_attention(Q[:, :, now], k, v, neighbourhood, key_valid=valid, query_offset=offset))
    return torch.cat(rows, 2)


@row("kd.nn.WindowCache", "prefix_tokens", 0, 2, "decoding equals the whole pass, with the first tokens or without")
@row(
    "kd.nn.StaticWindowCache", "prefix_tokens", 0, 2, "decoding equals the whole pass, with the first tokens or without"
)
def cache_prefix_tokens(first, second):
    for kind in (WindowCache, StaticWindowCache):
        for count in (first, second):
            rule = kd.Window(4, prefix_tokens=count)
            for steps in (1, 2):
                same(decoded(kind(4, count), steps, rule), krause_attention(Q, K, V, rule))
