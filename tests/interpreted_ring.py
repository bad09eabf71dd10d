"""Decoding from a ring in Triton's interpreter; test_triton_interpreter.py runs this in a process of its own."""

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.forms.attention import ring as rings
from krause_dynamics.forms.attention.triton import launch
from krause_dynamics.forms.attention.triton.primitives import INTERPRETED
from krause_dynamics.nn import KrauseAttention

assert INTERPRETED.value, "run with TRITON_INTERPRET=1"

LAYERS = {
    "rank": {"neighbourhood": kd.Window(6) & kd.TopK(3)},
    "all of the window": {"neighbourhood": kd.Window(5), "sigma_per_head": True},
    "grouped, rotary": {"neighbourhood": kd.Window(6) & kd.TopK(4), "kv_heads": 1, "rotary": 1e4},
    "first tokens, sink": {"neighbourhood": kd.Window(4, prefix_tokens=3), "sink": True},
    "first tokens and rank": {"neighbourhood": kd.Window(4, prefix_tokens=2) & kd.TopK(3)},
    "products": {"neighbourhood": kd.Window(6) & kd.TopK(3), "score": "dot"},
    "products and norms": {"neighbourhood": kd.Window(6) & kd.TopK(3), "score": "dot", "norm": 0.3},
    "odd head": {"neighbourhood": kd.Window(3) & kd.TopK(2), "dim": 18},
    "one key": {"neighbourhood": kd.Window(1)},
}


@pytest.fixture
def by_kernel(monkeypatch):
    """The kernel answers tokens of the CPU too; the list holds how often."""
    calls, attend = [], rings.attend

    def counted(*arguments):
        calls.append(1)
        return attend(*arguments)

    monkeypatch.setattr(rings, "refusal", lambda call, ring: None if call.q.shape[2] == 1 else "several")
    monkeypatch.setattr(rings, "attend", counted)
    return calls


def layer_of(dim=16, **options):
    torch.manual_seed(0)
    return KrauseAttention(dim, 2, **options).eval()


@torch.no_grad()
def decoded(layer, x, chunks, valid=None):
    cache, begin, parts = layer.new_cache(static=True), 0, []
    for count in chunks:
        now = slice(begin, begin + count)
        parts.append(layer(x[:, now], key_valid=None if valid is None else valid[:, now], cache=cache))
        begin += count
    assert int(cache.seen) == begin == x.shape[1]
    return torch.cat(parts, 1)


@torch.no_grad()
@pytest.mark.parametrize("name", LAYERS)
def test_steps_equal_the_full_pass(name, by_kernel):
    """More than two laps of every ring, single tokens and several. float32: sums of some ten numbers of order one."""
    chunks = [1, 1, 3, *[1] * 8, 4, 1, 1] if "first" in name else [1] * 15
    layer = layer_of(**LAYERS[name])
    x = torch.randn(1, sum(chunks), layer.dim, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(decoded(layer, x, chunks), layer(x), rtol=1e-5, atol=1e-6)
    assert len(by_kernel) == chunks.count(1)


@torch.no_grad()
def test_padding_may_hold_nan(by_kernel):
    layer = layer_of(**LAYERS["rank"])
    x = torch.randn(2, 14, 16, generator=torch.Generator().manual_seed(1))
    valid = torch.arange(14) >= torch.tensor([[0], [5]])
    x[1, :5] = float("nan")
    found = decoded(layer, x, [1] * 14, valid)
    torch.testing.assert_close(found[0], layer(x)[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1, 5:], layer(x[1:, 5:])[0], rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("ties", ["index", "keep"])
@pytest.mark.parametrize("score", ["gaussian", "dot"])
@pytest.mark.parametrize("first", [0, 2])
def test_ties_go_to_the_earlier_token_wherever_the_ring_stands(score, ties, first, by_kernel):
    """Whole numbers of few values: every row has ties, products and distances are exact, so that the sets are equal."""
    rule = kd.Window(6, prefix_tokens=first) & kd.TopK(3, ties=ties)
    layer = layer_of(neighbourhood=rule, score=score, sigma=1e3, learn_sigma=False)
    for projection in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj):
        projection.weight.copy_(torch.eye(16))
        projection.bias.zero_()
    x = torch.randint(0, 2, (1, 15, 16), generator=torch.Generator().manual_seed(3)).float()
    x = x * (torch.arange(16) % 8 < 2)  # of each head two coordinates: four keys in all
    torch.testing.assert_close(decoded(layer, x, [1] * 15), layer(x), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_ring_forgets_and_follows_beams(by_kernel):
    layer = layer_of(**LAYERS["first tokens and rank"])
    x = torch.randn(2, 13, 16, generator=torch.Generator().manual_seed(1))
    cache = layer.new_cache(static=True)
    for i in range(7):
        layer(x[:, i : i + 1], cache=cache)
    cache.reset()
    for i in range(7):
        layer(x[:, i : i + 1], cache=cache)
    cache.reorder(torch.tensor([1, 1]))
    found = torch.cat([layer(x[:, i : i + 1], cache=cache) for i in range(7, 13)], 1)
    swapped = torch.cat([x[[1, 1], :7], x[:, 7:]], 1)
    torch.testing.assert_close(found, layer(swapped)[:, 7:], rtol=1e-5, atol=1e-6)


def test_what_one_program_cannot_hold_is_refused():
    assert launch.ring_refusal(torch.empty(1, 1, 1024, 64), 64) is None
    assert "at most 1024 keys" in launch.ring_refusal(torch.empty(1, 1, 1025, 64), 64)
    assert "keys' dimension" in launch.ring_refusal(torch.empty(1, 1, 8, 64), 32)
