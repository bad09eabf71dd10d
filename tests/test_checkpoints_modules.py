"""Modules of one's own with torch's attention: states and weights against float64 by hand, or refused in words."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import krause_dynamics as kd
from krause_dynamics.checkpoints import record

WIDTH, HEADS, TOKENS = 16, 4, 9
IDS = np.random.default_rng(0).integers(0, 40, (3, TOKENS))


class Attention(nn.Module):
    """Projections around torch's function, which is asked as a test wants."""

    def __init__(self, ask=None, key_heads=HEADS):
        super().__init__()
        self.sizes = [WIDTH, WIDTH // HEADS * key_heads, WIDTH // HEADS * key_heads]
        self.qkv = nn.Linear(WIDTH, sum(self.sizes))
        self.ask = ask or {}

    def split(self, x):
        parts = self.qkv(x).split(self.sizes, -1)
        return [part.unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for part in parts]

    def forward(self, x):
        out = functional.scaled_dot_product_attention(*self.split(x), **self.ask)
        return out.transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attention = inner

    def forward(self, x):
        return x + 2 * self.attention(self.norm(x))


@dataclasses.dataclass
class Config:
    """As many decoders of somebody's own have one, with other names than transformers."""

    n_layer: int = 3
    vocab_size: int = 40


class Decoder(nn.Module):
    def __init__(self, inner, layers=3):
        super().__init__()
        self.config = Config(layers)
        self.wte, self.wpe = nn.Embedding(40, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks = nn.ModuleList(Block(inner()) for _ in range(layers))
        self.head = nn.Linear(WIDTH, 40)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def sharp(model, seed=0):
    """Weights under which attention is far from even."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5 if weight.ndim > 1 else 0.1)
    return model


def by_hand(model, ids, bias, scale=0.5):
    """States (layers, b, T, d) and weights (blocks, b, heads, T, T) in float64, without torch's attention."""
    exact = model.double()
    x = exact.wte(torch.as_tensor(ids)) + exact.wpe.weight[: ids.shape[1]]
    states, maps = [x], []
    for block in exact.blocks:
        q, k, v = block.attention.split(block.norm(x))
        k, v = (part.repeat_interleave(HEADS // part.shape[1], 1) for part in (k, v))
        weights = (scale * q @ k.mT + bias).softmax(-1)
        x = x + 2 * (weights @ v).transpose(1, 2).flatten(2)
        maps.append(weights)
        states.append(x)
    model.float()
    return torch.stack(states).detach().numpy(), torch.stack(maps).detach().numpy()


CAUSAL = torch.full((TOKENS, TOKENS), -torch.inf).triu(1).double()
NEAR = torch.where(torch.arange(TOKENS)[:, None] - torch.arange(TOKENS) < 3, CAUSAL, -torch.inf)
SLOPED = CAUSAL - 0.3 * (torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)).double()
ASKED = {
    "causal": ({"is_causal": True}, CAUSAL, HEADS),
    "all": ({}, torch.zeros(1).double(), HEADS),
    "mask": ({"attn_mask": NEAR == 0}, NEAR, HEADS),
    "bias": ({"attn_mask": SLOPED.float()}, SLOPED, HEADS),
    "scale and few keys": ({"is_causal": True, "scale": 0.2, "enable_gqa": True}, CAUSAL, 2),
}


@pytest.mark.parametrize("kind", ASKED)
def test_a_decoder_of_ones_own_with_torchs_attention(kind):
    ask, bias, key_heads = ASKED[kind]
    model = sharp(Decoder(lambda: Attention(ask, key_heads)))
    run = record(model, IDS, attention="weights", batch_size=2)
    states, maps = by_hand(model, IDS, bias, ask.get("scale", 0.5))
    np.testing.assert_allclose(run.positions, states, atol=2e-5)
    np.testing.assert_allclose(run.extras["attention"], maps, atol=2e-5)
    seen = torch.broadcast_to(bias > -torch.inf, (TOKENS, TOKENS)).numpy()
    np.testing.assert_allclose(run.extras["importance"], maps.sum(-2) / seen.sum(0), atol=2e-5)
    assert run.meta["attention_path"] == "calls"


def encoder(batch_first, **options):
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 24, batch_first=batch_first, norm_first=True)
    return sharp(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False, **options))


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("sequences", [TOKENS, 4])
def test_an_encoder_of_torch_in_either_order_of_axes(batch_first, sequences):
    """Also where there are as many sequences as tokens, so that no shape tells them apart."""
    model = encoder(batch_first)
    x = np.random.default_rng(1).normal(size=(sequences, TOKENS, WIDTH)).astype(np.float32)
    run = record(model, x, attention="weights", batch_size=sequences)
    exact, state = model.double().eval(), torch.from_numpy(x).double()
    turn = (lambda y: y) if batch_first else (lambda y: y.transpose(0, 1))
    for i, layer in enumerate(exact.layers):
        normed = turn(layer.norm1(state))
        _, weights = layer.self_attn(normed, normed, normed, average_attn_weights=False)
        np.testing.assert_allclose(run.extras["attention"][i], weights.detach(), atol=2e-5)
        with torch.no_grad():
            state = turn(layer(turn(state)))
        np.testing.assert_allclose(run.positions[i + 1], state, atol=2e-4)


def test_the_answer_of_attention_that_is_asked_for_its_weights_stays_its_own():
    """`nn.MultiheadAttention` as most call it: weights are wanted, and the hint of causality is no mask then."""

    class Asked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

        def forward(self, x):
            out, weights = self.inner(x, x, x, attn_mask=CAUSAL.to(x.dtype), average_attn_weights=False)
            self.weights = weights
            return out

    model = sharp(nn.Sequential(nn.Embedding(40, WIDTH), Block(Asked()), Block(Asked()), nn.Linear(WIDTH, 3)))
    run = record(model, IDS, attention="weights")
    for i in (1, 2):
        np.testing.assert_allclose(run.extras["attention"][i - 1], model[i].attention.weights, atol=1e-6)
    np.testing.assert_array_equal(run.positions[-1], model[:3](torch.as_tensor(IDS)).detach())


def test_every_door_takes_modules_and_nothing_of_torch_is_left_changed(tmp_path):
    model = sharp(Decoder(lambda: Attention({"is_causal": True})))

    def state():
        return functional.scaled_dot_product_attention, torch.backends.mha.get_fastpath_enabled(), model.training

    before = state()
    found = kd.analyze(model, IDS, controls=["shuffled", "repeated"])
    assert found.sizes["layer"] == 4
    # Positions are learned, so that equal tokens have unlike states: only their sizes stay.
    assert np.isfinite(found["importance_first"]).all()
    kept = kd.analyze(model, IDS, checkpoint=tmp_path / "kept.npz")
    given = found.sel(control="as given")
    np.testing.assert_allclose(kept["importance_first"], given["importance_first"], rtol=1e-6)
    kd.compare({"softmax": given, "again": kept}, draws=5)
    forecast = kd.checkpoints.forecast(model, IDS)
    states, _ = by_hand(model, IDS, CAUSAL)
    rest = states[:, :, 1:] - states[:, :, 1:].mean(2, keepdims=True)
    residual = np.linalg.norm(rest, axis=(2, 3)) / np.linalg.norm(states[:, :, 1:], axis=(2, 3))
    measured = forecast["contraction"].sel(side="measured")
    np.testing.assert_allclose(measured, (residual[1:] / residual[:-1]).T, rtol=1e-4)
    assert "calls of attention as they were made" in " ".join(kd.report.legend(given))
    model.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        record(model, IDS)
    assert state() == before


def test_krause_and_softmax_in_one_module():
    """Blocks of either kind are seen side by side."""
    model = sharp(Decoder(lambda: Attention({"is_causal": True})))
    model.blocks[1].attention = kd.nn.KrauseAttention(WIDTH, HEADS, window=3, top_k=2, causal=True)
    run = record(model, IDS, attention="weights")
    hears = (run.extras["attention"] > 0).sum(-1).max((1, 2, 3))
    assert hears.tolist() == [TOKENS, 2, TOKENS]


def test_tokens_of_its_own_are_counted():
    class WithClass(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Parameter(torch.ones(1, 1, WIDTH))
            self.layers = nn.Sequential(*(Block(Attention()) for _ in range(2)))

        def forward(self, x):
            return self.layers(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 0]

    run = record(sharp(WithClass()), torch.randn(2, 5, WIDTH))
    assert run.positions.shape == (3, 2, 6, WIDTH)
    assert run.extras["importance"].shape == (2, 2, HEADS, 6)


class ByItself(Attention):
    def forward(self, x):
        q, k, v = self.split(x)
        return ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)


class Twice(Attention):
    def forward(self, x):
        return super().forward(x) + super().forward(x)


class Across(Attention):
    def forward(self, x):
        q, k, v = self.split(x)
        return functional.scaled_dot_product_attention(q, k[:, :, :4], v[:, :, :4]).transpose(1, 2).flatten(2)


class More(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, ids, timestep):
        return self.inner(ids)


class Prefixed(Decoder):
    def forward(self, ids):
        return super().forward(torch.cat([ids[:, :1], ids], 1))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.ModuleList(Block(Attention()) for _ in range(2)) for _ in range(2))

    def forward(self, x):
        for one, other in zip(self.left, self.right, strict=True):
            x = other(one(x))
        return x


class UnlikeHeads(nn.Sequential):
    def __init__(self):
        super().__init__(*(nn.TransformerEncoderLayer(WIDTH, heads, 8, batch_first=True) for heads in (2, 4)))


REFUSED = {
    "by itself": (lambda: Decoder(ByItself), IDS, "block 1 made 0 calls .* not where it multiplies itself"),
    "twice": (lambda: Decoder(Twice), IDS, "block 1 made 2 calls"),
    "across": (lambda: Decoder(Across), IDS, "from 9 queries to 4 keys"),
    "dropout": (lambda: Decoder(lambda: Attention({"dropout_p": 0.1})), IDS, "weights are random; pass dropout_p="),
    "more arguments": (lambda: More(Decoder(Attention)), IDS, "cannot be called with its inputs alone"),
    "tokens put before": (lambda: Prefixed(Attention), IDS, "makes 10 tokens of 9 ids"),
    "two rows": (Two, torch.randn(2, 5, WIDTH), "2 rows of equal blocks .left: 2 of Block, right: 2 of Block."),
    "no blocks": (lambda: nn.Linear(WIDTH, WIDTH), torch.randn(2, 5, WIDTH), "0 rows of equal blocks .none."),
    "unlike heads": (UnlikeHeads, torch.randn(2, 5, WIDTH), "block 2 has 4 heads where block 1 has 2"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_served_is_refused_in_words(kind):
    make, inputs, words = REFUSED[kind]
    with pytest.raises(kd.UnsupportedModel, match=words):
        record(sharp(make()), inputs)


def test_the_way_out_of_refusals():
    for kind in ("by itself", "twice", "across"):
        make, inputs, _ = REFUSED[kind]
        model = sharp(make())
        run = record(model, inputs, attention=None)
        np.testing.assert_array_equal(run.positions.shape, (4, 3, TOKENS, WIDTH))
    two, x, _ = REFUSED["two rows"]
    model = sharp(two())
    order = [model.left[0], model.right[0], model.left[1], model.right[1]]
    run = record(model, x, blocks=order)
    np.testing.assert_allclose(run.positions[-1], model(x).detach(), atol=1e-5)
    inner = Decoder(lambda: Attention({"is_causal": True}))
    assert kd.analyze(sharp(More(inner)), IDS, part="inner").sizes["layer"] == 4


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (np.full((2, 5), 40), "an id beyond its vocabulary|outside 0..39"),
        (np.zeros((2, 65), int), "does not take torch.int64 of shape .1, 65."),
        (np.zeros((2, 5)), r"vectors .sequences, T, d., pixels .* received float64 of shape .2, 5."),
        (np.full((2, 5, WIDTH), np.nan), "vectors must be finite"),
        (np.zeros((0, 5, WIDTH)), r"received float64 of shape .0, 5, 16."),
        (np.zeros((2, 1, WIDTH)), "no sequence has two tokens"),
    ],
)
def test_inputs_that_a_module_does_not_take(inputs, words):
    if inputs.ndim == 3:
        model = nn.Sequential(*(Block(Attention()) for _ in range(2)))
    else:
        model = Decoder(lambda: Attention({"is_causal": True}))
    with pytest.raises(ValueError, match=words):
        record(sharp(model), inputs)
