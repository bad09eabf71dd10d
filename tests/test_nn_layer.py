"""The layer: decoding equals the full pass, the bandwidth survives half precision, padding, packing and weights."""

from __future__ import annotations

import copy

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.nn import (
    KrauseAttention,
    LogSigma,
    Rotary,
    StaticWindowCache,
    WindowCache,
    krause_attention,
    projections,
)

OPTIONS = {
    "window": {"window": 16, "top_k": 6},
    "rotary, grouped": {"window": 16, "top_k": 6, "rotary": 1e4, "kv_heads": 2},
    "causal without window": {"causal": True, "top_k": 5},
    "one key": {"window": 1},
    "no selection": {"window": 9, "sigma_per_head": True},
    "exempt, without static": {"neighbourhood": kd.Window(5) & kd.TopK(2, exempt=8)},
}


def layer_of(name="window", dtype=torch.float32, **more):
    torch.manual_seed(0)
    return KrauseAttention(32, 4, **{**OPTIONS[name], **more}).to(dtype).eval()


def tokens(batch=2, n=70, dim=32, seed=0, dtype=torch.float32):
    return torch.randn(batch, n, dim, generator=torch.Generator().manual_seed(seed)).to(dtype)


@torch.no_grad()
def decode(layer, x, chunks, valid=None, static=False):
    cache, done, outputs = layer.new_cache(static=static), 0, []
    for n in chunks:
        part = None if valid is None else valid[:, done : done + n]
        outputs.append(layer(x[:, done : done + n], cache=cache, key_valid=part))
        done += n
    assert cache.seen == done == x.shape[1]
    return torch.cat(outputs, 1)


CHUNKS = [[1] * 70, [70], [30, 1, 1, 38], [7] * 10, [17, 53]]


@pytest.mark.parametrize("chunks", CHUNKS, ids=["step by step", "at once", "mixed", "sevens", "past the window"])
@pytest.mark.parametrize("name", list(OPTIONS))
def test_chunks_and_steps_equal_the_full_pass(name, chunks):
    """In float64 no two scores of random tokens are closer than rounding, so the selected sets are the same."""
    layer, x = layer_of(name, torch.float64), tokens(dtype=torch.float64)
    with torch.no_grad():
        full = layer(x)
    torch.testing.assert_close(decode(layer, x, chunks), full, rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_single_precision_decoding_differs_only_where_scores_tie_to_rounding():
    """Rows whose k-th and next score differ by more than rounding agree within 1e-5; the others are counted."""
    layer, x = layer_of("window"), tokens(batch=4, n=200)
    full, steps = layer(x), decode(layer, x, [1] * 200)
    q, k, _ = layer.project(x)
    scores = -0.5 * (q[:, :, :, None] - k[:, :, None]).square().sum(-1) * layer.sigma**-2
    i = torch.arange(200)
    scores = scores.masked_fill((i > i[:, None]) | (i < i[:, None] - 15), -torch.inf)
    ordered = scores.sort(-1, descending=True).values
    close = (ordered[..., 5] - ordered[..., 6]).abs() < 1e-5 * (1 + ordered[..., 5].abs())
    clear = ~close.any(1)
    assert int(clear.sum()) > 700, "nearly all of the 800 rows must count"
    torch.testing.assert_close(steps[clear], full[clear], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_exactly_representable_inputs_decode_bit_for_bit():
    layer = layer_of("window")
    for projection in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj):
        projection.weight.copy_(torch.eye(32))
        projection.bias.zero_()
    x = torch.randint(-3, 4, (2, 70, 32), generator=torch.Generator().manual_seed(3)).float()
    assert torch.equal(decode(layer, x, [1] * 70), layer(x))


@torch.no_grad()
def test_left_padding_decodes_as_the_unpadded_row():
    layer, x = layer_of("window", torch.float64), tokens(dtype=torch.float64)
    valid = torch.arange(70) >= torch.tensor([[0], [11]])
    x[1, :11] = float("nan")
    alone = layer(x[1:, 11:])
    for chunks in ([70], [20, 1, 1, 48], [1] * 70):
        padded = decode(layer, x, chunks, valid)
        torch.testing.assert_close(padded[1:, 11:], alone, rtol=1e-11, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("chunks", CHUNKS, ids=["step by step", "at once", "mixed", "sevens", "past the window"])
@pytest.mark.parametrize("name", [name for name in OPTIONS if "without" not in name])
def test_the_static_cache_decodes_alike(name, chunks):
    """The same memory throughout, padding on the left included; a second run after a reset."""
    layer, x = layer_of(name, torch.float64), tokens(dtype=torch.float64)
    valid = torch.arange(70) >= torch.tensor([[0], [9]])
    for given in (None, valid):
        full = layer(x, key_valid=given)
        steps = decode(layer, x, chunks, given, static=True)
        torch.testing.assert_close(steps, full, rtol=1e-11, atol=1e-11)
    cache = layer.new_cache(static=True)
    layer(x[:, :30], cache=cache)
    places = [buffer.data_ptr() for buffer in cache._ring[:4]]
    cache.reset()
    again = torch.cat([layer(x[:, :40], cache=cache), layer(x[:, 40:], cache=cache)], 1)
    torch.testing.assert_close(again, layer(x), rtol=1e-11, atol=1e-11)
    assert [buffer.data_ptr() for buffer in cache._ring[:4]] == places


@torch.no_grad()
@pytest.mark.parametrize("first", [0, 2])
def test_a_step_with_the_static_cache_compiles_once(first):
    """And once more for each of the first tokens that stay, which are told apart on the host."""
    layer = layer_of("window", torch.float64, neighbourhood=kd.Window(4, prefix_tokens=first), window=None, top_k=None)
    x = tokens(n=14, dtype=torch.float64)
    cache = layer.new_cache(static=True)
    layer(x[:, :1], cache=cache)  # allocates
    cache.reset()
    torch._dynamo.reset()
    step = torch.compile(lambda token: layer(token, cache=cache), backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(recompile_limit=1 + first):
        steps = torch.cat([step(x[:, i : i + 1]) for i in range(14)], 1)
    torch.testing.assert_close(steps, layer(x), rtol=1e-11, atol=1e-11)


def test_a_static_cache_needs_a_window_and_one_shape():
    with pytest.raises(ValueError, match="needs a window"):
        KrauseAttention(32, 4, causal=True).new_cache(static=True)
    with pytest.raises(ValueError, match="exempt rows"):
        KrauseAttention(32, 4, kd.Window(5) & kd.TopK(2, exempt=1)).new_cache(static=True)
    with pytest.raises(ValueError, match="at least 1"):
        StaticWindowCache(0)
    cache = StaticWindowCache(4)
    cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    with pytest.raises(ValueError, match="one cache per layer"):
        cache.update(torch.zeros(2, 2, 1, 4), torch.zeros(2, 2, 1, 4))


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
def test_beams_are_reordered(static):
    layer, x = layer_of("window", torch.float64), tokens(batch=3, n=40, dtype=torch.float64)
    beams = torch.tensor([2, 0, 0])
    cache = layer.new_cache(static=static)
    layer(x[:, :30], cache=cache)
    cache.reorder(beams)
    tail = layer(x[beams, 30:], cache=cache)
    torch.testing.assert_close(tail, layer(x[beams])[:, 30:], rtol=1e-11, atol=1e-11)


def test_cache_memory_is_bounded_by_the_window():
    cache = WindowCache(16)
    for _ in range(500):
        held = cache.update(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4))
    assert held.k.shape[2] == 16
    assert held.offset == 15
    assert cache.seen == 500
    assert cache._k.shape[2] == 32


def test_cache_refuses_another_shape_and_layers_that_hear_the_future():
    cache = WindowCache(4)
    cache.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    with pytest.raises(ValueError, match="one cache per layer"):
        cache.update(torch.zeros(2, 2, 1, 4), torch.zeros(2, 2, 1, 4))
    with pytest.raises(ValueError, match="at least 1"):
        WindowCache(0)
    with pytest.raises(ValueError, match="later tokens"):
        KrauseAttention(32, 4, kd.Window(9, two_sided=True)).new_cache()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_log_sigma_stays_single_in_half_precision_and_learns(half):
    layer = KrauseAttention(32, 4, window=16, sigma=2.5).to(half)
    assert layer.log_sigma.weight.dtype == torch.float32
    assert layer.q_proj.weight.dtype == half
    torch.testing.assert_close(layer.sigma, torch.tensor([2.5]))
    layer(tokens(dtype=half)).float().square().sum().backward()
    assert float(layer.log_sigma.weight.grad.abs()) > 0
    clone = copy.deepcopy(layer)
    clone.load_state_dict(layer.state_dict())
    assert clone.log_sigma.weight.dtype == torch.float32


def test_default_sigma_keeps_the_scale_of_dot_products():
    """At sigma = d^(1/4) the slope of the score along q is that of <q, k> / sqrt(d)."""
    layer = KrauseAttention(64, 4)
    torch.testing.assert_close(layer.sigma**-2, torch.tensor([16**-0.5]))


def test_parameters_follow_the_options():
    per_head = KrauseAttention(32, 4, sigma_per_head=True, bias=False, kv_heads=2, learn_sigma=False)
    names = {name: tuple(p.shape) for name, p in per_head.named_parameters()}
    assert names == {
        "q_proj.weight": (32, 32), "k_proj.weight": (16, 32), "v_proj.weight": (16, 32), "out_proj.weight": (32, 32),
        "log_sigma.weight": (4,),
    }  # fmt: skip
    assert not per_head.log_sigma.weight.requires_grad


def test_packed_rows_equal_separate_ones():
    layer, x = layer_of("window", torch.float64), tokens(batch=1, dtype=torch.float64)
    packed = layer(x, segments=kd.Segments(torch.tensor([0, 30, 70])))
    separate = torch.cat([layer(x[:, :30]), layer(x[:, 30:])], 1)
    torch.testing.assert_close(packed, separate, rtol=1e-11, atol=1e-11)


def test_rotary_scores_depend_on_distance_in_time_alone():
    rotary = Rotary(8).double()
    x = torch.randn(1, 1, 5, 8, dtype=torch.float64)
    early, late = rotary(x, torch.arange(5)), rotary(x, torch.arange(5) + 1000)
    torch.testing.assert_close(torch.cdist(early, early), torch.cdist(late, late))
    torch.testing.assert_close(early.norm(dim=-1), x.norm(dim=-1))


def test_weights_on_request_are_those_of_the_output():
    layer, x = layer_of("rotary, grouped", torch.float64), tokens(dtype=torch.float64)
    out, (index, weight) = layer(x, return_weights=True)
    assert index.shape == weight.shape == (2, 4, 70, 6)
    _, _, v = layer.project(x)
    v = v.repeat_interleave(2, 1)
    heard = torch.gather(
        v[:, :, None].expand(-1, -1, 70, -1, -1), 3, index.clamp(min=0)[..., None].expand(-1, -1, -1, -1, 8)
    )
    rebuilt = layer.out_proj((weight[..., None] * heard).sum(3).transpose(1, 2).flatten(2))
    torch.testing.assert_close(rebuilt, out, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: KrauseAttention(30, 4), "divide"),
        (lambda: KrauseAttention(32, 4, kv_heads=3), "divide"),
        (lambda: KrauseAttention(32, 4, window=0), "Window size"),
        (lambda: KrauseAttention(32, 4, sigma=-1.0), "sigma must be positive"),
        (lambda: KrauseAttention(12, 4, rotary=1e4), "even"),
        (lambda: LogSigma(float("nan")), "sigma must be positive"),
    ],
)
def test_bad_sizes_say_what_is_wrong(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_layer_trains():
    """A few steps of gradient descent lower the loss: all parameters receive gradients of the right sign together."""
    torch.manual_seed(0)
    layer, x = KrauseAttention(16, 2, window=8, top_k=4, causal=True), tokens(n=32, dim=16)
    target = x.roll(1, 1)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (layer(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("options", [{}, {"kv_heads": 2, "bias": False}, {"rotary": 100.0, "project_scale": 0.5}])
def test_projections_in_one_product_equal_three(options):
    """In float64, gradients of all parameters too; a hook keeps them apart, as do replaced layers."""
    together = KrauseAttention(32, 4, window=8, **options).double()
    apart = copy.deepcopy(together)
    seen = []
    apart.k_proj.register_forward_hook(lambda *call: seen.append(call[2].shape))
    x = tokens(dtype=torch.float64).requires_grad_()
    weights = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    found = [
        (out := layer(x), *torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()]))
        for layer in (together, apart)
    ]
    assert len(seen) == 1
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_joined_weights_are_not_held_until_the_backward_pass():
    """What autograd keeps is the tokens and the weights themselves, which it guards against changes; two orders of
    gradients, and a forward derivative, which takes torch's own operations.
    """
    layers = [torch.nn.Linear(3, 2).double() for _ in range(3)]
    parameters = [p for layer in layers for p in layer.parameters()]
    x = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        joint = projections.projected_together(x, layers)
    assert set(kept) == {x.data_ptr(), *(layer.weight.data_ptr() for layer in layers)}
    joint = projections.projected_together(x, layers)
    with torch.no_grad():
        layers[1].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        joint.sum().backward()

    def together(x, *parameters):
        return projections.projected_together(x, layers)

    assert torch.autograd.gradcheck(together, (x, *parameters))
    assert torch.autograd.gradgradcheck(together, (x, *parameters))
    _, tangent = torch.func.jvp(lambda x: together(x), (x.detach(),), (torch.ones_like(x),))
    whole = torch.cat([layer.weight for layer in layers]).sum(1)
    torch.testing.assert_close(tangent, whole.expand(2, 5, 6), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("change", ["dtype", "bias", "frozen"])
def test_projections_that_differ(change):
    """Layers that cannot be joined are called one by one; a frozen one takes no gradient."""
    layers = [torch.nn.Linear(8, 8) for _ in range(3)]
    if change == "dtype":
        layers[1].double()
    elif change == "bias":
        layers[1].bias = None
    else:
        layers[1].requires_grad_(False)
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    joint = projections.projected_together(x, layers)
    assert (joint is None) == (change != "frozen")
    if joint is not None:
        joint.sum().backward()
        assert layers[1].weight.grad is None
        torch.testing.assert_close(layers[2].weight.grad, x.sum(0).expand(8, 8))
    with torch.no_grad():
        assert projections.projected_together(x, layers) is None


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("options", [{"window": 9, "top_k": 4}, {"grid": (5, 8), "top_k": 5}, {"window": 200}])
def test_heads_are_read_and_gradients_written_where_projections_leave_them(options, together):
    """Tokens lie by tokens, as parts of one tensor or apart: the reference in float64, all gradients too."""
    fast = KrauseAttention(32, 4, kv_heads=2, **options).double()
    exact = KrauseAttention(32, 4, kv_heads=2, impl="reference", **options).double()
    exact.load_state_dict(fast.state_dict())
    if not together:
        fast.q_proj.register_forward_hook(lambda *call: None)
    x = torch.randn(2, 40, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).requires_grad_()
    weights = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(5))
    found, expected = (
        (out := layer(x), *torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()]))
        for layer in (fast, exact)
    )
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


def test_a_wrapped_bandwidth_gives_the_same_layer():
    """exp(-2 log sigma) and sigma^-2 differ by roundings of float32; so do the gradients."""
    layer, x = KrauseAttention(32, 4, window=9, sigma=1.7, sigma_per_head=True), tokens()
    found = [(out := layer(x)), *torch.autograd.grad(out.square().sum(), layer.log_sigma.weight)]
    inner = layer.log_sigma

    class Wrapper(torch.nn.Module):
        def forward(self):
            return inner()

    layer.log_sigma = Wrapper()
    expected = [(out := layer(x)), *torch.autograd.grad(out.square().sum(), inner.weight)]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_log_sigma_is_trained_saved_and_reloaded_by_peft(tmp_path):
    """In a bfloat16 model with LoRA on the projections: a step of 0.001, lost in bfloat16, survives the round trip."""
    peft = pytest.importorskip("peft")

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = KrauseAttention(32, 4, window=8, sigma=2.5)

        def forward(self, x):
            return self.attention(x)

    config = peft.LoraConfig(target_modules=["q_proj", "k_proj"], modules_to_save=["log_sigma"])
    tuned = peft.get_peft_model(Model().bfloat16(), config)
    tuned(tokens(dtype=torch.bfloat16)).float().sum().backward()
    (trained,) = (p for name, p in tuned.named_parameters() if "log_sigma.modules_to_save" in name)
    assert trained.grad is not None
    with torch.no_grad():
        trained += 0.001
    tuned.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(Model().bfloat16(), tmp_path)
    (loaded,) = (p for name, p in again.named_parameters() if "log_sigma.modules_to_save" in name)
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded.detach(), torch.tensor([2.5]).log() + 0.001)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dim": 31}, "divide"),
        ({"dim": -32}, "dim must be at least 1"),
        ({"dropout": 1.5}, "dropout"),
        ({"score": "cosine"}, "score"),
        ({"sigma": float("inf")}, "sigma must be positive"),
        ({"project_scale": 0.0}, "project_scale"),
    ],
)
def test_a_layer_refuses_when_it_is_built_what_a_call_would_refuse(options, words):
    with pytest.raises(ValueError, match=words):
        KrauseAttention(**{"dim": 32, "heads": 4, **options})


def test_a_layer_refuses_unknown_implementations_and_tokens_of_another_width():
    with pytest.raises(UnsupportedImplementation, match="impl must be"):
        KrauseAttention(32, 4, impl="quick")
    with pytest.raises(ValueError, match=r"\(batch, tokens, 32\), got \(1, 5, 31\)"):
        KrauseAttention(32, 4)(torch.zeros(1, 5, 31))


def test_a_layer_drops_weights_in_training_only():
    layer, x = layer_of(dropout=0.3).train(), tokens(n=20)
    q, k, v = layer.project(x)
    torch.manual_seed(1)
    heard = krause_attention(q, k, v, sigma=layer.sigma, window=16, top_k=6, dropout=0.3)
    torch.manual_seed(1)
    dropped = layer(x)
    torch.testing.assert_close(dropped, layer.out_proj(heard.transpose(1, 2).flatten(2)))
    whole = layer.eval()(x)
    assert torch.equal(whole, layer(x))
    assert not torch.allclose(whole, dropped)
