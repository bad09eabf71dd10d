"""Supports, scores and sinks that whole models choose from: each against its formula, in every form that takes it."""

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.aggregate.calls import ATTEND
from krause_dynamics.forms.attention import by_tiles, kernels
from krause_dynamics.interaction.random_keys import table
from krause_dynamics.nn import KrauseAttention, StaticWindowCache, krause_attention, sparse_weights
from krause_dynamics.nn.arguments import call_of
from krause_dynamics.nn.hearing import within
from krause_dynamics.nn.sparse import dense

SUPPORTS = {
    "first tokens": kd.Window(4, prefix_tokens=3),
    "first tokens, both sides": kd.Window(3, two_sided=True, prefix_tokens=5),
    "best beside first tokens": kd.Window(6, prefix_tokens=2) & kd.TopK(3),
    "random": kd.RandomKeys(5, seed=2, tokens=21, prefix=1),
    "random past": kd.RandomKeys(4, seed=7, prefix=2) & kd.TopK(3, exempt=4),
    "but the token": kd.Grid(4, 5, 2, prefix=1) & kd.TopK(3, exempt=1),
    "but the first rows": kd.Window(7) & kd.TopK(2, exempt=6),
}


def tokens(n=21, heads=2, d=4, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, heads, n, d, generator=generator, dtype=dtype) for _ in range(3)]


def gradients(attend, q, k, v):
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out, log_partition = attend(*leaves)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=out.dtype)
    heard = torch.where(log_partition > -torch.inf, log_partition, 0.0)
    return out, log_partition, *torch.autograd.grad((out * weights).sum() + heard.square().sum(), leaves)


@pytest.mark.parametrize("score", ["gaussian", "dot"])
@pytest.mark.parametrize("name", SUPPORTS)
def test_forms_of_attention_equal_the_definition(name, score):
    def attend(impl):
        return lambda *x: krause_attention(
            *x, SUPPORTS[name], score=score, impl=impl, sigma=1.3, return_log_partition=True
        )

    q, k, v = tokens()
    for mine, exact in zip(gradients(attend("banded"), q, k, v), gradients(attend("reference"), q, k, v), strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-11, atol=1e-11)  # sums of 21 terms of order one


@pytest.mark.parametrize("d", [2, 4])  # random keys are gathered one by one, or told apart among all of them
@pytest.mark.parametrize("name", SUPPORTS)
def test_tiles_of_other_devices_equal_the_definition(name, d):
    q, k, v = tokens(d=d)
    call = call_of(q, k, v, within(SUPPORTS[name])[0], sigma=1.3)
    call = call._replace(scale=call.coefficients() + 0.5)
    _, _, *exact = gradients(lambda *x: ATTEND["reference"](call._replace(q=x[0], k=x[1], v=x[2])), q, k, v)
    out, log_partition = by_tiles.forward(call)
    expected = ATTEND["reference"](call)
    torch.testing.assert_close(out, expected[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(log_partition, expected[1], rtol=1e-11, atol=1e-11)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=out.dtype)
    found = by_tiles.backward(call, weights, torch.where(log_partition > -torch.inf, 2 * log_partition, 0.0))
    for mine, theirs in zip(found[:3], exact, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["first tokens", "but the token", "but the first rows"])
@pytest.mark.parametrize("offset", [0, 3])
def test_what_the_kernels_take_in_two_passes_is_the_definition(name, offset, monkeypatch):
    monkeypatch.setattr(kernels, "_attend", ATTEND["reference"])  # each pass by definition
    q, k, v = tokens()
    q = q[:, :, offset:] if "token" not in name.removesuffix("tokens") else q
    call = call_of(q, k, v, within(SUPPORTS[name])[0], sigma=1.3)
    for mine, exact in zip(
        gradients(lambda *x: kernels.attend(call._replace(q=x[0], k=x[1], v=x[2])), q, k, v),
        gradients(lambda *x: ATTEND["reference"](call._replace(q=x[0], k=x[1], v=x[2])), q, k, v),
        strict=True,
    ):
        torch.testing.assert_close(mine, exact, rtol=1e-11, atol=1e-11)


def test_first_tokens_stay_beside_the_window_and_never_before_their_time():
    heard = kd.weights(kd.softmax(0.0, kd.Window(2, prefix_tokens=2)), np.zeros((6, 1))) > 0
    i, j = np.indices((6, 6))
    assert (heard == ((j <= i) & ((i - j < 2) | (j < 2)))).all()


def test_exempt_rows_keep_all_that_they_may_hear():
    rule = kd.krause(1.0, kd.Grid(3, 3, prefix=1) & kd.TopK(2, exempt=1))
    heard = kd.weights(rule, np.random.default_rng(0).normal(size=(10, 2))) > 0
    assert heard.sum(1).tolist() == [10] + [2] * 9


@pytest.mark.parametrize("tokens", [40, None])
def test_random_keys_have_equal_degree_and_follow_from_the_numbers(tokens):
    rule = kd.softmax(0.0, kd.RandomKeys(6, seed=11, tokens=tokens, prefix=2))
    heard = kd.weights(rule, np.zeros((40, 1))) > 0
    i, j = np.indices((40, 40))
    assert heard.diagonal().all()
    if tokens is None:
        assert not heard[j > i].any()
        assert heard[2:].sum(1).tolist() == [2 + min(6, row - 1) for row in range(2, 40)]
        shorter = kd.weights(rule, np.zeros((25, 1))) > 0
        assert (shorter == heard[:25, :25]).all()  # the past does not depend on what follows
    else:
        assert heard[:2].all()
        assert heard[:, :2].all()
        assert (heard[2:].sum(1) == 8).all()
    other = kd.softmax(0.0, kd.RandomKeys(6, seed=12, tokens=tokens, prefix=2))
    assert ((kd.weights(other, np.zeros((40, 1))) > 0) != heard).any()


def test_random_keys_are_drawn_evenly_and_the_same_on_every_machine():
    counts = np.bincount(table(11, 0, 400, 0, 400).ravel(), minlength=400)
    # Own place and ten draws a row without replacement: variance 400 * 10/399 * (1 - 10/399), 5 deviations.
    assert abs(counts - 11).max() < 5 * np.sqrt(9.8)
    kept = [[0, 2, 7], [1, 2, 3], [1, 2, 6], [2, 3, 4], [2, 4, 7], [2, 3, 5], [4, 5, 6], [0, 6, 7]]
    assert table(3, 5, 8, 0, 8).tolist() == kept  # of configurations that are out in the world


def test_a_row_too_many_is_refused():
    with pytest.raises(ValueError, match="has 8 tokens, got 9 keys"):
        KrauseAttention(4, 2, kd.RandomKeys(3, tokens=8))(torch.zeros(1, 9, 4))
    with pytest.raises(ValueError, match="has 8 tokens, but place 8"):
        kd.aggregate(kd.krause(1.0, kd.RandomKeys(3, tokens=8)), np.zeros((9, 1)))


@torch.no_grad()
@pytest.mark.parametrize(
    "rule",
    [kd.Window(4, prefix_tokens=3), kd.Window(5, True, prefix_tokens=2) & kd.TopK(4), kd.Causal() & kd.RandomKeys(4)],
    ids=["first tokens", "first tokens, both sides", "random keys"],
)
def test_a_row_behind_padding_hears_what_it_hears_alone(rule):
    """Rules that ask for places count from the first token of the text: outputs and weights, dense and sparse."""
    torch.manual_seed(0)
    layer = KrauseAttention(8, 2, rule, rotary=100.0).double()
    x = torch.randn(2, 19, 8, dtype=torch.float64)
    valid = torch.arange(19) >= torch.tensor([[0], [6]])
    alone, weights = layer(x[1:, 6:], return_weights="dense")
    found, beside = layer(x, key_valid=valid, return_weights="dense")
    torch.testing.assert_close(found[1:, 6:], alone, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(beside[1:, :, 6:, 6:], weights, rtol=1e-11, atol=1e-11)
    index, weight = layer(x, key_valid=valid, return_weights=True)[1]
    torch.testing.assert_close(dense(index, weight, 19), beside, rtol=1e-11, atol=1e-11)
    assert bool((index.masked_fill(index < 0, 19).diff() >= 0).all())


def test_first_tokens_of_short_rows_are_refused():
    layer, x = KrauseAttention(4, 2, kd.Window(4, prefix_tokens=3)), torch.zeros(2, 8, 4)
    valid = torch.arange(8) >= torch.tensor([[0], [6]])
    with torch.no_grad(), pytest.raises(ValueError, match="their 3 first tokens in one call, got a row of 2"):
        layer(x, key_valid=valid, cache=layer.new_cache())
    with pytest.raises(ValueError, match="pad behind"):
        layer(x, key_valid=valid, key_bias=torch.zeros(2, 8))


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("steps", [[9, 1, 1, 1, 1, 4, 1, 1], [1] * 19, [2, 1, 2, 3, 3, 8]])
def test_decoding_with_first_tokens_equals_the_full_pass(steps, static):
    torch.manual_seed(0)
    layer = KrauseAttention(8, 2, kd.Window(4, prefix_tokens=3), sink=True, rotary=100.0).double()
    x = torch.randn(2, 19, 8, dtype=torch.float64)
    valid = torch.ones(2, 19, dtype=torch.bool)
    padded = 2 if steps[0] > 4 else 0  # padding in front takes the place of no first token
    valid[1, :padded] = False
    full = layer(x, key_valid=valid)
    torch.testing.assert_close(full[1:, padded:], layer(x[1:, padded:]), rtol=1e-11, atol=1e-11)
    cache, begin, parts = layer.new_cache(static=static), 0, []
    with torch.no_grad():
        for count in steps:
            rows = slice(begin, begin + count)
            parts.append(layer(x[:, rows], key_valid=valid[:, rows], cache=cache))
            begin += count
    torch.testing.assert_close(torch.cat(parts, 1)[valid], full[valid], rtol=1e-11, atol=1e-11)


def test_a_static_cache_refuses_what_it_could_not_tell_apart():
    cache = StaticWindowCache(4, prefix_tokens=3)
    x = torch.zeros(1, 1, 5, 2)
    cache.update(x[:, :, :1], x[:, :, :1])
    with pytest.raises(ValueError, match="give the first 3 in one call"):
        cache.update(x, x)


@pytest.mark.parametrize("impl", ["reference", "banded"])
def test_a_sink_is_one_more_logit_in_the_denominator(impl):
    q, k, v = tokens()
    sink = torch.tensor([-1.0, 2.0], dtype=torch.float64)

    def by_concatenation(q, k, v, sink):
        scores = (q @ k.mT * 0.7).masked_fill(torch.ones(21, 21).triu(1).bool(), -torch.inf)
        column = sink[None, :, None, None].expand(2, 2, 21, 1)
        joined = torch.cat([scores, column], -1)
        return joined.softmax(-1)[..., :-1] @ v, joined.logsumexp(-1)

    def attend(q, k, v, sink):
        options = {"score": "dot", "scale": 0.7, "causal": True, "impl": impl, "return_log_partition": True}
        return krause_attention(q, k, v, sink=sink, **options)

    leaves = [x.requires_grad_() for x in (q, k, v, sink)]
    found, expected = attend(*leaves), by_concatenation(*leaves)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(
        *(torch.autograd.grad((out.sin()).sum() + log.sum(), leaves) for out, log in (found, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)
    index, weight = sparse_weights(q, k, score="dot", scale=0.7, causal=True, sink=sink)
    dense = torch.zeros(2, 2, 21, 22, dtype=torch.float64).scatter(-1, index % 22, weight)[..., :21]
    torch.testing.assert_close(dense @ v, found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("impl", ["reference", "banded"])
@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_key_norm_of_half_the_scale_is_the_gaussian(impl, top_k, dtype):
    """exp(-|q - k|^2 / 2 s^2) = exp(<q, k> / s^2 - |k|^2 / 2 s^2) times what depends on q alone, ranks included."""
    q, k, v = tokens(dtype=dtype)
    sigma = torch.tensor([0.8, 1.7], dtype=torch.float64)
    bias = torch.randn(2, 21, generator=torch.Generator().manual_seed(1), dtype=torch.float64)  # masses do not rank
    rest = {"window": 9, "top_k": top_k, "impl": impl, "key_bias": bias}
    gaussian = krause_attention(q, k, v, sigma=sigma, **rest)
    dot = krause_attention(q, k, v, sigma=sigma, score="dot", norm=0.5 / sigma**2, **rest)
    tolerance = 1e-11 if dtype == torch.float64 else 0.02  # one rounding of bfloat16 at values of up to 3
    torch.testing.assert_close(dot, gaussian, rtol=tolerance, atol=tolerance)


def test_a_learned_key_norm_has_the_gradient_of_its_formula():
    torch.manual_seed(0)
    layer = KrauseAttention(8, 2, kd.Window(5) & kd.TopK(3), score="dot", norm=0.3).double()
    x = torch.randn(2, 11, 8, dtype=torch.float64)

    def out(impl):
        layer.impl = impl
        total = layer(x, key_valid=torch.ones(2, 11, dtype=torch.bool)).sin().sum()
        return torch.autograd.grad(total, [layer.key_norm.weight, layer.log_sigma.weight, layer.k_proj.weight])

    for mine, theirs in zip(out("banded"), out("reference"), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)
    again = KrauseAttention.from_interaction(8, 2, layer.interaction).double()
    torch.testing.assert_close(again.key_norm.weight, layer.key_norm.weight)
    with pytest.raises(ValueError, match="norm belongs to score='dot'"):
        KrauseAttention(8, 2, norm=0.0)


def test_numbers_that_are_learned_start_again_and_stay_precise():
    layer = KrauseAttention(8, 2, score="dot", norm=0.3, sink=True).to(torch.bfloat16)
    for part, start in ((layer.key_norm, 0.3), (layer.sink, 0.0)):
        assert part.weight.dtype == torch.float32
        part.weight.data.fill_(5.0)
        part.reset_parameters()
        torch.testing.assert_close(part.weight.detach(), torch.full((2,), start))


@pytest.mark.parametrize("sink", [torch.zeros(3), torch.zeros(2, dtype=torch.int64), 0.5])
def test_a_sink_of_another_kind_is_refused(sink):
    with pytest.raises((TypeError, ValueError), match="sink must"):
        krause_attention(*tokens(), sink=sink)
