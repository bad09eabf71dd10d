"""Keys that all models share: sizes, score and support, regularisation."""

from __future__ import annotations

from math import log

import pytest
import torch

import krause_dynamics as kd
from tests.keywords.model_kinds import ALL, CLOSE, DECODERS, FLAT, KINDS, VISION, each, logits, rules, sample, size
from tests.keywords.row import row
from tests.model_sizes import seeded, words


@each(ALL, "hidden_size", 16, 32, "attention and feed-forward layer of the first block have that many columns")
def hidden_size(build, first, second):
    for value in (first, second):
        model = build(hidden_size=value, intermediate_size=48)
        assert rules(model)[0].out_proj.weight.shape == (value, value)
        assert model.layers[0].mlp[0].weight.shape == (48, value)


@each(FLAT, "num_hidden_layers", 1, 3, "each layer adds 12 d^2 + 13 d weights and its bandwidths")
def num_hidden_layers(build, first, second):
    small, large = build(num_hidden_layers=first), build(num_hidden_layers=second)
    entries = rules(small)[0].log_sigma.weight.numel()
    assert size(large) - size(small) == (second - first) * (12 * 16**2 + 13 * 16 + entries)


@each(FLAT, "num_attention_heads", 1, 4, "the width is split among so many heads")
def num_attention_heads(build, first, second):
    for value in (first, second):
        rule = rules(build(num_attention_heads=value))[0]
        assert (rule.heads, rule.head_dim) == (value, 16 // value)


@each(("Swin",), "num_hidden_layers", None, 3, "follows from the stages")
@each(("Swin",), "num_attention_heads", None, 2, "follows from the stages")
def follows(build, first, second):
    keys = {"num_hidden_layers": 3, "num_attention_heads": 2}
    assert build(**keys).config.to_dict() == build().config.to_dict()
    for name, value in keys.items():
        with pytest.raises(ValueError, match=name):
            build(**{name: value + 1})


@each(ALL, "intermediate_size", None, 24, "by default four times the width")
def intermediate_size(build, first, second):
    assert [build(intermediate_size=value).layers[0].mlp[0].out_features for value in (first, second)] == [64, second]


@each(ALL, "score", "dot+temperature", "gaussian", "each is the rule of the core with that score; they differ")
def score(build, first, second):
    for value, kind in ((first, kd.DotProduct), (second, kd.Gaussian)):
        rule = rules(build(score=value))[0]
        assert isinstance(rule.interaction.score, kind)
        assert rule.log_sigma.weight.requires_grad
    assert not rules(build(score="dot"))[0].log_sigma.weight.requires_grad
    assert (logits(build(score=first)) - logits(build(score=second))).abs().max() > 1e-3


@each(FLAT, "support", "full", "window+top_k", "a window and a rank beyond the sequence are everyone")
def support(build, first, second):
    wide = {"window": 40, "attention_top_k": 60, "attention_top_k_last": 60}
    torch.testing.assert_close(logits(build(support=first)), logits(build(support=second, **wide)), **CLOSE)
    assert (logits(build(support=first)) - logits(build(support=second))).abs().max() > 1e-3


@each(("Swin",), "support", "window", "window+top_k", "a rank beyond the window is the whole window")
def support_of_windows(build, first, second):
    torch.testing.assert_close(logits(build()), logits(build(support=second, attention_top_k=16)), **CLOSE)
    assert (logits(build(support=first)) - logits(build(support=second))).abs().max() > 1e-3


@each(DECODERS, "window", 2, 5, "through L layers a token feels L (W - 1) tokens back and no further")
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


def heard(build, **keys):
    """How many tokens each token of the first layer hears."""
    model = build(**keys)
    n = 21 if "ViT" in type(model).__name__ else 16
    x = torch.randn(1, n, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, (_, weight) = rules(model)[0](x, return_weights=True)
    return (weight > 0).sum(-1)[0, 0].tolist()


@each(("ViT",), "window", 1, 2, "inner patches hear the diamond of that radius and CLS, which hears all")
def window_of_patches(build, first, second):
    for value, cells in ((first, 5), (second, 12)):  # radius 2 leaves the picture of 4 x 5 on one side
        counts = heard(build, window=value, support="window")
        assert counts[0] == 21
        assert counts[1 + 5 + 2] == cells + 1


@each(("Swin",), "window", 2, 4, "the side of a window: tokens of others are not felt in the first block")
def window_of_swin(build, first, second):
    for value in (first, second):
        model = build(window=value)
        x = sample(model)
        changed = x.clone()
        changed[:, :, :4, :4] += 1.0  # the first patch
        with torch.no_grad():
            states = [model(y, output_hidden_states=True).hidden_states[1] for y in (x, changed)]
        felt = ((states[0] - states[1]).abs().amax((0, 2)) > 0).reshape(8, 8)
        assert felt[:value, :value].all()
        assert felt.sum() == value**2


@each(ALL, "attention_top_k", 1, 3, "the last token's weights are so many")
def attention_top_k(build, first, second):
    for value in (first, second):
        assert heard(build, support="window+top_k", attention_top_k=value)[-1] == value


@each(ALL, "attention_top_k_last", None, 7, "k rises linearly over the layers, halves rounded to even")
def attention_top_k_last(build, first, second):
    depth = {} if "depths" in build().config.to_dict() else {"num_hidden_layers": 3}
    for value, expected in ((first, [2, 2, 2]), (second, [2, 4, 7])):
        model = build(support="window+top_k", attention_top_k=2, attention_top_k_last=value, **depth)
        assert [rule.interaction.top_k.k for rule in rules(model)] == expected


@each(ALL, "sigma", None, 3.0, "the bandwidth of every layer at the start; by default the scale of dot products")
def sigma(build, first, second):
    for value in (first, second):
        for rule in rules(build(sigma=value, score="gaussian")):
            natural = rule.head_dim**0.25 * rule.project_scale
            weight = rule.log_sigma.weight
            torch.testing.assert_close(weight, torch.full_like(weight, log(natural if value is None else value)))


@each(ALL, "sigma_per_head", False, True, "one entry, or one for each head; equal entries are one bandwidth")
def sigma_per_head(build, first, second):
    models = [build(sigma_per_head=value) for value in (first, second)]
    assert [rules(model)[0].log_sigma.weight.numel() for model in models] == [1, 2]
    models[1].load_state_dict({k: v for k, v in models[0].state_dict().items() if "sigma" not in k}, strict=False)
    torch.testing.assert_close(logits(models[0]), logits(models[1]), **CLOSE)


@each(ALL, "norm", "pre", "post", "after a block of post-norm every token has mean 0 and width 1")
def norm(build, first, second):
    for value in (first, second):
        model = build(norm=value)
        model.layers[-1].norm2.reset_parameters()
        with torch.no_grad():
            x = model(sample(model), output_hidden_states=True).hidden_states[-1]
        is_normal = bool(((x.var(-1, correction=0) - 1).abs() < 1e-3).all())
        assert is_normal == (value == "post")


def drawn(build, name, value):
    """Whether two passes in training are alike, and whether two in evaluation are."""
    model = build(**{name: value})
    quiet = torch.equal(logits(model), logits(model))
    model.train()
    return torch.equal(logits(model), logits(model)), quiet


@each(ALL, "dropout", 0.0, 0.4, "training draws where it is positive, evaluation never")
def dropout(build, first, second):
    assert drawn(build, "dropout", first) == (True, True)
    assert drawn(build, "dropout", second) == (False, True)
    rates = {m.p for m in build(dropout=second).modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {second}


@each(ALL, "attention_dropout", 0.0, 0.4, "training drops weights of attention and nothing else, evaluation none")
def attention_dropout(build, first, second):
    assert drawn(build, "attention_dropout", first) == (True, True)
    assert drawn(build, "attention_dropout", second) == (False, True)


@each(ALL, "drop_path", 0.0, 0.5, "the rate rises linearly over the blocks from 0, and the mean branch stays")
def drop_path(build, first, second):
    depth = {} if "depths" in build().config.to_dict() else {"num_hidden_layers": 3}
    model = build(drop_path=second, **depth)
    rates = [block.drop_path.rate for block in model.layers if hasattr(block, "drop_path")]
    assert rates == [0.0, second / 2, second]
    torch.manual_seed(0)
    branch = model.layers[-1].drop_path.train()(torch.ones(4000, 1))
    assert set(branch.unique().tolist()) == {0.0, 2.0}
    assert abs(branch.mean() - 1.0) < 0.08, "five standard errors of 4000 draws"
    assert drawn(build, "drop_path", first) == (True, True)


@each(ALL, "initializer_range", 0.02, 0.5, "weights are of that width and cut at twice it")
def initializer_range(build, first, second):
    for value in (first, second):
        weight = build(initializer_range=value).layers[0].mlp[0].weight / 10.0  # `seeded` spreads them
        assert abs(weight.std() / value - 0.880) < 0.06, "five standard errors of 1024 draws"
        assert weight.abs().max() <= 2 * value


@each(VISION, "image_size", 32, (16, 32), "pictures of that height and width, and no others")
def image_size(build, first, second):
    for value, grid in ((first, (8, 8)), (second, (4, 8))):
        model = build(image_size=value, patch_size=4, window=2)
        assert model.config.grid == grid
        assert logits(model).shape == (2, 5)
    with pytest.raises(ValueError, match="pixel_values"):
        model(torch.zeros(1, 3, 32, 32, dtype=torch.float64))


@each(VISION, "patch_size", 2, 4, "the picture in patches of that side, each of them one product")
def patch_size(build, first, second):
    for value in (first, second):
        model = build(image_size=32, patch_size=value, window=2)
        assert model.config.grid == (32 // value, 32 // value)
        x = sample(model)
        patch = x[:, :, value : 2 * value, :value].flatten(1)  # the second row's first
        embedding = model.patch_embedding
        expected = patch @ embedding.weight.flatten(1).T + embedding.bias
        with torch.no_grad():
            torch.testing.assert_close(embedding(x)[:, :, 1, 0], expected, **CLOSE)


@each(VISION, "num_channels", 1, 3, "channels of a pixel")
def num_channels(build, first, second):
    for value in (first, second):
        assert logits(build(num_channels=value)).shape == (2, 5)
    with pytest.raises(ValueError, match="pixel_values"):
        build(num_channels=first)(sample(build(num_channels=second)))


@each(("ViT",), "metric", "manhattan", "chebyshev", "the cross of five, or the square of nine, and CLS")
def metric(build, first, second):
    for value, cells in ((first, 5), (second, 9)):
        assert heard(build, metric=value, support="window")[1 + 5 + 2] == cells + 1


@each(("ViT",), "read_out", "cls", "mean", "the head reads the first token, or the mean of all others")
def read_out(build, first, second):
    models = {value: build(read_out=value) for value in (first, second)}
    for value, model in models.items():
        with torch.no_grad():
            output = model(sample(model), output_hidden_states=True)
            x = model.norm(output.hidden_states[-1])
            read = x[:, 0] if value == "cls" else x[:, 1:].mean(1)
            torch.testing.assert_close(output.logits, model.head(read), **CLOSE)
    assert size(models[first]) == size(models[second])


@each(("Swin",), "depths", (1, 1), (2, 1), "blocks of each stage, the map halved between them")
@each(("Swin",), "heads", (2, 4), (4, 2), "heads of each stage, of twice the width")
def stages(build, first, second):
    for depths in ((1, 1), (2, 1)):
        for heads in ((2, 4), (4, 2)):
            model = build(depths=depths, heads=heads)
            assert [rule.heads for rule in rules(model)] == [heads[0]] * depths[0] + [heads[1]] * depths[1]
            assert [rule.dim for rule in rules(model)] == [16] * depths[0] + [32] * depths[1]
            with torch.no_grad():
                states = model(sample(model), output_hidden_states=True).hidden_states
            assert states[-1].shape[1] * 4 == states[0].shape[1]


def config(first, second):
    kind, own, small = KINDS[first]
    assert seeded(kind, own(**small)).config.model_type == own.model_type
    with pytest.raises((TypeError, ValueError)):
        kind(small)


for name, (kind, _, _) in KINDS.items():
    row(f"kd.models.{kind.__name__}", "config", name, "a dictionary", "a model has a configuration of its own kind")(
        config
    )


@each(("LM", "KARM"), "first_tokens", 1, 3, "the last token hears so many beside its window")
def first_tokens(build, first, second):
    for value in (first, second):
        assert heard(build, support="window+first_tokens", window=4, first_tokens=value)[-1] == 4 + value


@each(("ViT",), "first_tokens", 1, 3, "so many learned tokens before the patches, which all hear")
def registers(build, first, second):
    plain = size(build(support="window"))
    for value in (first, second):
        model = build(support="window+first_tokens", first_tokens=value)
        assert size(model) - plain == 2 * 16 * value
        assert model.config.neighbourhood(0).reach.prefix == 1 + value


@each(FLAT, "degree", None, 3, "every token hears so many, the window's number by default")
def degree(build, first, second):
    beside = 0 if "window" in build().config.to_dict() and not hasattr(build().config, "prefix") else 1
    window = build().config.nearby().reach
    default = window.cells or window.left + 1
    assert heard(build, support="random", degree=first)[-1] == default + beside
    assert heard(build, support="random", degree=second)[-1] == second + beside


@each(FLAT, "random_seed", 0, 7, "the same keys from the same seed, others from another")
def random_seed(build, first, second):
    a, again, b = (logits(build(support="random", degree=3, random_seed=seed)) for seed in (first, first, second))
    assert torch.equal(a, again)
    assert (a - b).abs().max() > 1e-3


@each(("Swin",), "first_tokens", 4, 5, "belongs to supports that windows of a map do not have")
@each(("Swin",), "degree", None, 5, "belongs to supports that windows of a map do not have")
@each(("Swin",), "random_seed", 0, 5, "belongs to supports that windows of a map do not have")
def no_window_of_swin(build, first, second):
    for name in ("first_tokens", "degree", "random_seed"):
        torch.testing.assert_close(logits(build()), logits(build(**{name: 5})), **CLOSE)
    for support in ("window+first_tokens", "random"):
        with pytest.raises(ValueError, match="support must be one of"):
            build(support=support)
