"""Configurations of decoders: each key against a count of weights, a closed form, or another model."""

from __future__ import annotations

from math import log, prod

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.models import KARM, KARMConfig, KrauseLM, KrauseLMConfig
from tests.keywords.row import row
from tests.model_sizes import PICTURES, WORDS, seeded, words

KINDS = {
    "kd.models.KrauseLMConfig": (KrauseLM, KrauseLMConfig, WORDS),
    "kd.models.KARMConfig": (KARM, KARMConfig, PICTURES),
}
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def both(parameter, first, second, states):
    """A row for each kind of decoder; the check is called with a function that builds a model from changed keys."""

    def register(check):
        for path, (kind, config, small) in KINDS.items():

            def build(kind=kind, config=config, small=small, **changes):
                return seeded(kind, config(**{**small, **changes}))

            row(path, parameter, first, second, states)(lambda a, b, build=build: check(build, a, b))
        return check

    return register


def logits(model, x=None):
    with torch.no_grad():
        return model(words(20, vocabulary=16) if x is None else x).logits


def size(model):
    return sum(weight.numel() for weight in model.parameters())


@both("hidden_size", 16, 32, "every matrix of a layer has that many columns")
def hidden_size(build, first, second):
    for value in (first, second):
        layer = build(hidden_size=value, intermediate_size=48).layers[0]
        assert layer.attention.out_proj.weight.shape == (value, value)
        assert layer.mlp[0].weight.shape == (48, value)


@both("num_hidden_layers", 1, 3, "each layer adds 12 d^2 + 13 d weights and a bandwidth")
def num_hidden_layers(build, first, second):
    entries = 1 if isinstance(build(), KrauseLM) and not isinstance(build(), KARM) else 2
    added = size(build(num_hidden_layers=second)) - size(build(num_hidden_layers=first))
    assert added == (second - first) * (12 * 16**2 + 13 * 16 + entries)


@both("num_attention_heads", 1, 4, "the width is split among so many heads")
def num_attention_heads(build, first, second):
    for value in (first, second):
        attention = build(num_attention_heads=value).layers[0].attention
        assert (attention.heads, attention.head_dim) == (value, 16 // value)


@both("intermediate_size", None, 24, "by default four times the width")
def intermediate_size(build, first, second):
    assert [build(intermediate_size=value).layers[1].mlp[0].out_features for value in (first, second)] == [64, second]


@both("score", "dot+temperature", "gaussian", "each is the rule of the core with that score; they differ")
def score(build, first, second):
    scores = {first: kd.DotProduct, second: kd.Gaussian}
    for value, kind in scores.items():
        layer = build(score=value).layers[0].attention
        assert isinstance(layer.interaction.score, kind)
        assert layer.log_sigma.weight.requires_grad
    assert not build(score="dot", support="full").layers[0].attention.log_sigma.weight.requires_grad
    assert (logits(build(score=first)) - logits(build(score=second))).abs().max() > 1e-3


@both("support", "full", "window+top_k", "a window and a rank beyond the sequence are everyone")
def support(build, first, second):
    wide = {"window": 40, "attention_top_k": 40}
    torch.testing.assert_close(logits(build(support=first)), logits(build(support=second, **wide)), **CLOSE)
    assert (logits(build(support=first)) - logits(build(support=second))).abs().max() > 1e-3


@both("window", 2, 5, "through L layers a token feels L (W - 1) tokens back and no further")
def window(build, first, second):
    x = words(20, vocabulary=16)
    changed = x.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 16
    for value in (first, second):
        model = build(window=value, support="window")
        felt = (logits(model, x) - logits(model, changed)).abs().amax((0, 2)) > 0
        reach = 4 + 2 * (value - 1)
        assert felt[[4, reach]].all()
        assert not felt[reach + 1 :].any()


@both("attention_top_k", 1, 3, "the last token's weights are so many")
def attention_top_k(build, first, second):
    for value in (first, second):
        attention = build(attention_top_k=value).layers[0].attention
        x = torch.randn(1, 12, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        _, (_, weight) = attention(x, return_weights=True)
        assert (weight[..., -1, :] > 0).sum(-1).unique().tolist() == [value]


@both("attention_top_k_last", None, 7, "k rises linearly over the layers, halves rounded to even")
def attention_top_k_last(build, first, second):
    ranks = {
        value: [
            layer.attention.interaction.top_k.k
            for layer in build(attention_top_k=2, attention_top_k_last=value, num_hidden_layers=3, window=9).layers
        ]
        for value in (first, second)
    }
    assert ranks == {first: [2, 2, 2], second: [2, 4, 7]}


@both("sigma", None, 3.0, "the bandwidth of every layer at the start; by default d_h^(1/4)")
def sigma(build, first, second):
    for value, expected in ((first, 8**0.25), (second, second)):
        for layer in build(sigma=value).layers:
            weight = layer.attention.log_sigma.weight
            torch.testing.assert_close(weight, torch.full_like(weight, log(expected)))


@both("sigma_per_head", False, True, "one entry, or one for each head; equal entries are one bandwidth")
def sigma_per_head(build, first, second):
    models = [build(sigma_per_head=value) for value in (first, second)]
    assert [model.layers[0].attention.log_sigma.weight.numel() for model in models] == [1, 2]
    models[1].load_state_dict({k: v for k, v in models[0].state_dict().items() if "sigma" not in k}, strict=False)
    torch.testing.assert_close(logits(models[0]), logits(models[1]), **CLOSE)


@both("norm", "pre", "post", "after a layer of post-norm every token has the mean and width of its norm")
def norm(build, first, second):
    for value in (first, second):
        model = build(norm=value)
        with torch.no_grad():
            model.layers[-1].norm2.reset_parameters()
            x = model(words(20, vocabulary=16), output_hidden_states=True).hidden_states[-1]
        is_normal = bool(((x.var(-1, correction=0) - 1).abs() < 1e-3).all())
        assert is_normal == (value == "post")


def drawn(build, name, value):
    """Whether two passes in training differ, and whether two in evaluation do."""
    model, x = build(**{name: value}), words(20, vocabulary=16)
    quiet = torch.equal(logits(model, x), logits(model, x))
    model.train()
    return torch.equal(logits(model, x), logits(model, x)), quiet


@both("dropout", 0.0, 0.4, "training draws where it is positive, evaluation never")
def dropout(build, first, second):
    assert drawn(build, "dropout", first) == (True, True)
    assert drawn(build, "dropout", second) == (False, True)
    rates = {m.p for m in build(dropout=second).modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {second}


@both("attention_dropout", 0.0, 0.4, "training drops weights of attention and nothing else, evaluation none")
def attention_dropout(build, first, second):
    assert drawn(build, "attention_dropout", first) == (True, True)
    assert drawn(build, "attention_dropout", second) == (False, True)


@both("drop_path", 0.0, 0.5, "the rate rises linearly over the layers from 0, and the mean branch stays")
def drop_path(build, first, second):
    rates = [layer.drop_path.rate for layer in build(drop_path=second, num_hidden_layers=3).layers]
    assert rates == [0.0, second / 2, second]
    module = build(drop_path=second).layers[-1].drop_path.train()
    torch.manual_seed(0)
    branch = module(torch.ones(4000, 1))
    assert set(branch.unique().tolist()) == {0.0, 2.0}
    assert abs(branch.mean() - 1.0) < 0.08, "five standard errors of 4000 draws"
    assert drawn(build, "drop_path", first) == (True, True)


@both("initializer_range", 0.02, 0.5, "weights are of that width and cut at twice it")
def initializer_range(build, first, second):
    config = type(build().config)
    for value in (first, second):
        keys = {**(WORDS if config is KrauseLMConfig else PICTURES), "initializer_range": value}
        torch.manual_seed(0)
        weight = (KrauseLM if config is KrauseLMConfig else KARM)(config(**keys)).layers[0].mlp[0].weight
        assert abs(weight.std() / value - 0.880) < 0.06, "five standard errors of 1024 draws"
        assert weight.abs().max() <= 2 * value


@row("kd.models.KrauseLMConfig", "vocab_size", 5, 23, "so many logits, and no other token")
def vocab_size(first, second):
    for value in (first, second):
        model = seeded(KrauseLM, KrauseLMConfig(**{**WORDS, "vocab_size": value}))
        assert logits(model, words(4, vocabulary=value)).shape == (2, 4, value)
        with pytest.raises(IndexError):
            model(torch.tensor([[value]]))


@row("kd.models.KrauseLMConfig", "max_position_embeddings", 4, 9, "so many tokens fit, and one more does not")
def max_position_embeddings(first, second):
    for value in (first, second):
        model = seeded(KrauseLM, KrauseLMConfig(**{**WORDS, "max_position_embeddings": value}))
        assert logits(model, words(value)).shape[1] == value
        with pytest.raises(ValueError, match="max_position_embeddings"):
            model(words(value + 1))


@row("kd.models.KARMConfig", "vocab_size", None, 16, "follows from the levels")
@row("kd.models.KARMConfig", "max_position_embeddings", None, 48, "follows from the picture")
def follows(first, second):
    config = KARMConfig(**PICTURES, vocab_size=16, max_position_embeddings=48)
    assert config.to_dict() == KARMConfig(**PICTURES).to_dict()
    assert second in (config.vocab_size, config.max_position_embeddings)
    for name in ("vocab_size", "max_position_embeddings"):
        with pytest.raises(ValueError, match=name):
            KARMConfig(**PICTURES, **{name: second + 1})


@row("kd.models.KARMConfig", "image_size", 4, (3, 5), "height and width; their product with the channels is the length")
def image_size(first, second):
    for value, picture in ((first, (4, 4, 3)), (second, (3, 5, 3))):
        config = KARMConfig(**{**PICTURES, "image_size": value})
        assert config.picture == picture
        assert config.max_position_embeddings == prod(picture)


@row("kd.models.KARMConfig", "num_channels", 1, 3, "so many tokens a pixel")
def num_channels(first, second):
    lengths = [KARMConfig(**{**PICTURES, "num_channels": n}).max_position_embeddings for n in (first, second)]
    assert lengths == [16 * first, 16 * second]


@row("kd.models.KARMConfig", "levels", 2, 16, "the vocabulary")
def levels(first, second):
    for value in (first, second):
        assert KARMConfig(**{**PICTURES, "levels": value}).vocab_size == value


@both("gate", False, True, "a gate that is shut leaves the Krause branch, one that is open the softmax branch")
def gate(build, first, second):
    plain = build(gate=first)
    model = build(gate=second)
    kept = {k: v for k, v in plain.state_dict().items() if ".attention." not in k}
    for branch, open_to in (("krause", (-200.0, 0.0)), ("softmax", (200.0, 0.0))):
        alone = plain if branch == "krause" else build(gate=first, score="dot", support="full")
        state = {k.replace(".attention.", f".attention.{branch}."): v for k, v in alone.state_dict().items()}
        model.load_state_dict({**state, **kept}, strict=False)
        alone.load_state_dict(kept, strict=False)
        with torch.no_grad():
            for layer in model.layers:
                layer.attention.gate.weight.zero_()
                layer.attention.gate.bias.copy_(torch.tensor(open_to))
        torch.testing.assert_close(logits(model), logits(alone), **CLOSE)


@both("head_bias", False, True, "a bias that is added to all logits")
def head_bias(build, first, second):
    assert build(head_bias=first).head.bias is None
    model = build(head_bias=second)
    before = logits(model)
    with torch.no_grad():
        model.head.bias += 1.5
    torch.testing.assert_close(logits(model), before + 1.5, **CLOSE)


@both("tie_word_embeddings", False, True, "the head is the table of tokens, or a matrix of its own")
def tie_word_embeddings(build, first, second):
    models = [build(tie_word_embeddings=value) for value in (first, second)]
    assert models[1].head.weight is models[1].token_embedding.weight
    assert size(models[0]) - size(models[1]) == models[0].head.weight.numel()


@both("eos_token_id", None, 3, "generation stops there")
def eos_token_id(build, first, second):
    assert build(eos_token_id=first).generation_config.eos_token_id is None
    model = build(eos_token_id=second, head_bias=True, tie_word_embeddings=False)
    with torch.no_grad():
        model.head.bias[second] += 1e6
    assert model.generate(words(3, vocabulary=16), max_new_tokens=9, do_sample=False).shape[1] == 4


@both("bos_token_id", None, 2, "generation without a prompt begins with it")
def bos_token_id(build, first, second):
    assert build(bos_token_id=first).generation_config.bos_token_id is None
    assert build(bos_token_id=second).generate(max_new_tokens=2, do_sample=False)[0, 0] == second


@both("pad_token_id", None, 5, "a row that has ended is filled with it")
def pad_token_id(build, first, second):
    assert build(pad_token_id=first).generation_config.pad_token_id is None
    model = build(pad_token_id=second, head_bias=True, tie_word_embeddings=False)
    x = words(3, vocabulary=16)
    free = model.generate(x, max_new_tokens=6, do_sample=False)
    end = int(free[0, 3])
    rows = model.generate(x, max_new_tokens=6, do_sample=False, eos_token_id=end)
    assert (rows[0, 4:] == second).all()


@both("use_cache", True, False, "generation asks for a cache, or not; the tokens are the same")
def use_cache(build, first, second):
    texts = []
    for value in (first, second):
        model = build(use_cache=value)
        out = model.generate(words(3, vocabulary=16), max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
        assert (out.past_key_values is not None) == value
        texts.append(out.sequences)
    assert torch.equal(*texts)


@row("kd.models.KrauseLM", "config", "KrauseLMConfig", "another", "a model has its configuration, of its own kind")
@row("kd.models.KARM", "config", "KARMConfig", "another", "a model has its configuration, of its own kind")
def config(first, second):
    kind, own, small = KINDS[f"kd.models.{first}"]
    assert seeded(kind, own(**small)).config.to_dict()["model_type"] == own.model_type
    with pytest.raises((TypeError, ValueError)):
        kind(small)
