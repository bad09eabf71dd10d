"""Who hears whom in layers: values of the core, short forms, words of the last release, learnable bandwidths."""

from __future__ import annotations

import json

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics import nn
from krause_dynamics.interaction import Request, reference
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn import KrauseAttention, explain, krause_attention, sparse_weights


def points(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def qkv(n=30):
    return (points(1, 2, n, 8, seed=seed) for seed in range(3))


SHORT = {
    "window": ({"window": 9}, kd.Window(9)),
    "top_k": ({"top_k": 4}, kd.TopK(4)),
    "causal": ({"causal": True}, kd.Causal()),
    "grid": ({"grid": (5, 6)}, kd.Grid(5, 6, radius=2)),
    "a grid as a list": ({"grid": [5, 6]}, kd.Grid(5, 6, radius=2)),
    "a grid as a value": ({"grid": kd.Grid(5, 6, 1, "manhattan")}, kd.Grid(5, 6, 1, "manhattan")),
    "several": ({"window": 9, "top_k": 4, "causal": True}, kd.Window(9) & kd.Causal() & kd.TopK(4)),
    "joined to a value": ({"neighbourhood": kd.Window(9), "top_k": 4}, kd.Window(9) & kd.TopK(4)),
}


@pytest.mark.parametrize("name", SHORT)
def test_short_forms_are_their_values(name):
    short, value = SHORT[name]
    q, k, v = qkv()
    assert torch.equal(krause_attention(q, k, v, **short), krause_attention(q, k, v, value))
    assert KrauseAttention(8, 2, **short).neighbourhood.parts == value.parts
    for mine, theirs in zip(sparse_weights(q, k, **short), sparse_weights(q, k, value), strict=True):
        assert torch.equal(mine, theirs)
    assert explain(q, k, v, **short) == explain(q, k, v, value)


OLD = {
    "side": ({"window": 9, "side": "both"}, kd.Window(9, two_sided=True), r"kd.Window\(9, two_sided=True\)"),
    "ties": ({"top_k": 4, "ties": "keep"}, kd.TopK(4, "keep"), r"kd.TopK\(4, ties='keep'\)"),
    "radius": ({"grid": (5, 6), "radius": 1}, kd.Grid(5, 6), r"kd.Grid\(5, 6\)"),
    "metric": (
        {"grid": (5, 6), "metric": "manhattan"},
        kd.Grid(5, 6, 2, "manhattan"),
        r"kd.Grid\(5, 6, radius=2, metric='manhattan'\)",
    ),
    "prefix_tokens": ({"grid": (4, 7), "prefix_tokens": 2}, kd.Grid(4, 7, 2, prefix=2), r"kd.Grid\(4, 7, .*prefix=2\)"),
}


@pytest.mark.parametrize("word", OLD)
def test_words_of_the_last_release_work_and_say_what_to_write(word):
    old, value, written = OLD[word]
    q, k, v = qkv()
    with pytest.warns(DeprecationWarning, match=f"{word}= is deprecated.*{written}"):
        mine = krause_attention(q, k, v, **old)
    assert torch.equal(mine, krause_attention(q, k, v, value))
    with pytest.warns(DeprecationWarning, match=written):
        assert KrauseAttention(8, 2, **old).neighbourhood.parts == value.parts


def test_cumulative_lengths_of_the_last_release_are_segments():
    ends = torch.tensor([0, 11, 30], dtype=torch.int32)
    q, k, v = qkv()
    with pytest.warns(DeprecationWarning, match=r"cu_seqlens= is deprecated.*kd.Segments\(cu_seqlens\)"):
        mine = krause_attention(q, k, v, window=9, cu_seqlens=ends)
    assert torch.equal(mine, krause_attention(q, k, v, kd.Window(9) & kd.Segments(ends)))
    layer, x = KrauseAttention(8, 2, kd.Window(9)).double(), points(1, 30, 8)
    with pytest.warns(DeprecationWarning, match="segments=kd.Segments"):
        mine = layer(x, cu_seqlens=ends)
    assert torch.equal(mine, layer(x, segments=kd.Segments(ends)))


def test_the_pattern_of_the_last_release_is_a_neighbourhood():
    with pytest.warns(DeprecationWarning, match=r"kd.Window\(9\) & kd.TopK\(4\)"):
        pattern = nn.Pattern(window=9, top_k=4)
    assert pattern == kd.Window(9) & kd.TopK(4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"window": 4, "side": "both"}, ValueError, "odd"),
        ({"window": 4, "side": "left"}, ValueError, "side"),
        ({"ties": "drop"}, ValueError, "ties"),
        ({"metric": "euclid"}, ValueError, "metric"),
        ({"grid": 30, "radius": 1}, ValueError, "height, width"),
        ({"prefix_tokens": 1}, ValueError, "needs grid"),
        ({"windw": 4}, TypeError, "no argument 'windw'; did you mean 'window'"),
        ({"cu_seqlens": torch.tensor([0, 5, 29])}, ValueError, "rise from 0 to 30"),
        ({"cu_seqlens": torch.tensor([0.0, 30.0])}, TypeError, "integers"),
        ({"cu_seqlens": [0, 30]}, TypeError, "integers .* got list"),
        ({"cu_seqlens": torch.tensor([], dtype=torch.int64)}, ValueError, "rise from 0 to 30"),
    ],
)
def test_bad_words_of_the_last_release_say_what_is_wrong(options, error, words):
    q, k, v = qkv()
    with pytest.raises(error, match=words):
        krause_attention(q, k, v, **options)


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("score", ["gaussian", "dot"])
def test_a_layer_and_its_interaction_are_one_rule(score, per_head):
    """Through JSON, as a model's configuration holds it; the bandwidth is stored in float32."""
    layer = KrauseAttention(8, 2, kd.Window(9) & kd.TopK(4), sigma=1.7, score=score, sigma_per_head=per_head)
    with torch.no_grad():
        layer.log_sigma.weight.mul_(torch.linspace(1, 2, len(layer.log_sigma.weight)))
    held = json.loads(json.dumps(layer.interaction.to_dict()))
    again = KrauseAttention.from_interaction(8, 2, kd.from_dict(held))
    assert again.neighbourhood == layer.neighbourhood
    assert again.score == score
    torch.testing.assert_close(again.sigma, layer.sigma, rtol=1e-6, atol=0)
    q, k, v = layer.double().project(points(1, 30, 8))
    mine = reference.aggregate(layer.interaction, Request.of(q, k, v)).mean
    theirs = krause_attention(q, k, v, layer.neighbourhood, sigma=layer.sigma, score=score)
    torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


def test_a_layer_is_not_built_from_rules_that_it_cannot_hear():
    with pytest.raises(TypeError, match="a Gaussian or a DotProduct"):
        KrauseAttention.from_interaction(8, 2, kd.Interaction(kd.Flat()))
    with pytest.raises(ValueError, match="Within is not one of"):
        KrauseAttention.from_interaction(8, 2, kd.krause(1.0, kd.Within(2.0)))


# --- prepared once, learnable all the same -------------------------------------------------------------------------


@pytest.mark.parametrize("impl", ["banded", "reference", "auto"])
def test_a_plan_follows_a_learnable_bandwidth(impl):
    """One plan: after a step of the optimiser the next call is that of the new sigma, and gradients flow at each."""
    x, sigma = points(70, 4), torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    plan = kd.plan(kd.krause(sigma, kd.Window(9) & kd.TopK(4)), x, impl=impl)
    optimiser = torch.optim.SGD([sigma], lr=0.3)
    for _ in range(3):
        mean = plan(x).mean
        expected = kd.aggregate(kd.krause(float(sigma.detach()), kd.Window(9) & kd.TopK(4)), x, impl="reference").mean
        torch.testing.assert_close(mean, expected, rtol=1e-11, atol=1e-11)
        optimiser.zero_grad()
        mean.square().sum().backward()
        assert float(sigma.grad.abs()) > 0
        optimiser.step()


def test_a_layer_follows_its_bandwidth():
    layer, x = KrauseAttention(8, 2, kd.Window(9), sigma=1.5).double(), points(1, 30, 8)
    optimiser = torch.optim.SGD([layer.log_sigma.weight], lr=0.3)
    layer(x).square().sum().backward()
    optimiser.step()
    q, k, v = layer.project(x)
    heard = krause_attention(q, k, v, window=9, sigma=layer.log_sigma.weight.exp(), impl="reference")
    torch.testing.assert_close(layer(x), layer.out_proj(heard.transpose(1, 2).flatten(2)), rtol=1e-11, atol=1e-11)


def test_a_rule_is_lowered_once_in_a_run_of_many_stages(monkeypatch):
    """Five RK4 steps are twenty stages; the rule becomes whole numbers while it is chosen, at most once a question."""
    from krause_dynamics.forms.attention.lowering import Lowered

    seen = []
    original = Lowered.of

    def counted(interaction):
        seen.append(interaction)
        return original(interaction)

    rule = kd.krause(1.0, kd.Window(32) & kd.TopK(8))
    monkeypatch.setattr(Lowered, "of", staticmethod(counted))
    monkeypatch.setattr(Reach, "of", staticmethod(lambda parts: pytest.fail("a neighbourhood was lowered again")))
    x = points(128, 4)
    kd.simulate(kd.Dynamics(rule, kd.Euclidean()), x, t_end=0.5, dt=0.1, integrator=kd.RK4(), impl="banded")
    choosing = len(seen)
    kd.simulate(kd.Dynamics(rule, kd.Euclidean()), x, t_end=5.0, dt=0.1, integrator=kd.RK4(), impl="banded")
    assert len(seen) == 2 * choosing
