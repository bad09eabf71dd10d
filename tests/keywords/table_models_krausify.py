"""A trained Transformer with the rule as its attention: what each argument of `krausify` makes of it."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, ViTConfig, ViTModel

import krause_dynamics as kd
from tests.keywords.row import row

X = torch.randint(3, 50, (2, 12), generator=torch.Generator().manual_seed(0))
PATH = "kd.krausify"


def base(layers=2):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_hidden_layers=layers, **sizes)).eval()


def parts(model):
    return [layer.self_attn for layer in model.model.layers]


@torch.no_grad()
def logits(model):
    return model(X).logits


def felt(model, changed=3):
    """Which outputs feel one token."""
    other = X.clone()
    other[:, changed] = (other[:, changed] - 3 + 7) % 47 + 3
    with torch.no_grad():
        return ((model(X).logits - model(other).logits).abs().amax((0, 2)) > 0).nonzero()[:, 0].tolist()


@row(PATH, "model", "llama", None, "a subclass, changed where it stands; what is no model of transformers is refused")
@row("kd.unkrausify", "model", "krausified", "plain", "the class and the outputs of before, bit for bit; or a refusal")
def model(first, second):
    plain = base()
    before = logits(plain)
    krausified = kd.krausify(plain, window=4)
    assert krausified is plain
    assert isinstance(krausified, LlamaForCausalLM)
    assert kd.unkrausify(krausified) is plain
    assert type(plain) is LlamaForCausalLM
    assert torch.equal(logits(plain), before)
    with pytest.raises(TypeError, match="model"):
        kd.krausify(second)
    with pytest.raises(TypeError, match="krausified"):
        kd.unkrausify(plain)


@row(PATH, "neighbourhood", kd.Window(4), kd.Window(4) & kd.TopK(2), "as by the short forms")
def neighbourhood(first, second):
    assert torch.equal(logits(kd.krausify(base(), first)), logits(kd.krausify(base(), window=4)))
    assert torch.equal(logits(kd.krausify(base(), second)), logits(kd.krausify(base(), window=4, top_k=2)))


@row(PATH, "window", 3, 4, "two layers of W keys reach 2 (W - 1) tokens on")
def window(first, second):
    for size in (first, second):
        assert felt(kd.krausify(base(), window=size)) == list(range(3, 3 + 2 * (size - 1) + 1))


@row(PATH, "top_k", 1, (2, 4), "one k for all, or equal steps from the first layer to the last, half to even")
def top_k(first, second):
    def ranks(model):
        return [part.krause_rule.reach.top_k for part in parts(model)]

    assert ranks(kd.krausify(base(3), top_k=first)) == [1, 1, 1]
    assert ranks(kd.krausify(base(4), top_k=second)) == [2, 3, 3, 4]
    # The schedules that the published code makes of k = 2 and k = 8 in twelve layers: a pair (k, 2 k).
    assert ranks(kd.krausify(base(12), top_k=(2, 4))) == [2] * 3 + [3] * 6 + [4] * 3
    assert ranks(kd.krausify(base(12), top_k=(8, 16))) == [8, 9, 9, 10, 11, 12, 12, 13, 14, 15, 15, 16]
    with pytest.raises(ValueError, match="top_k"):
        kd.krausify(base(2), top_k=[1, 2, 3])


@row(PATH, "sigma", 0.5, [1.0, 3.0], "the bandwidth at the start, of all layers or of each; the default is d^(1/4)")
def sigma(first, second):
    def values(**how):
        return [float(part.log_sigma().detach()) for part in parts(kd.krausify(base(), **how))]

    assert values(sigma=first) == pytest.approx([0.5, 0.5])
    assert values(sigma=second) == pytest.approx([1.0, 3.0])
    assert values() == pytest.approx([8**0.25] * 2)
    with pytest.raises(ValueError, match="sigma"):
        kd.krausify(base(), sigma=-1.0)


@row(PATH, "layers", [0], range(-1, 0), "the chosen layers have bandwidths, the others equal softmax")
def layers(first, second):
    for chosen, has in ((first, [True, False]), (second, [False, True])):
        assert [hasattr(part, "log_sigma") for part in parts(kd.krausify(base(), layers=chosen))] == has
    with pytest.raises(ValueError, match="layers"):
        kd.krausify(base(), layers=[5])


@row(PATH, "sigma_per_head", False, True, "one bandwidth a layer or one a head, equal at the start")
def sigma_per_head(first, second):
    one, many = (kd.krausify(base(), sigma=1.5, sigma_per_head=value) for value in (first, second))
    assert [part.log_sigma.weight.shape for part in (*parts(one)[:1], *parts(many)[:1])] == [(1,), (4,)]
    torch.testing.assert_close(logits(one), logits(many), rtol=1e-5, atol=1e-6)


@row(PATH, "learn_sigma", True, False, "whether a step of training moves it")
def learn_sigma(first, second):
    for value in (first, second):
        model = kd.krausify(base(), window=4, learn_sigma=value)
        model(X, labels=X).loss.backward()
        grads = [part.log_sigma.weight.grad for part in parts(model)]
        assert all((grad is not None and float(grad.abs().max()) > 0) == value for grad in grads)


@row(PATH, "sample", 1.0, 3.0, "sigma^2 = mean |k|^2 / sqrt(d): keys three times as long have three times the sigma")
def sample(first, second):
    found = []
    for factor in (first, second):
        model = base()
        with torch.no_grad():
            parts(model)[0].k_proj.weight.mul_(factor)
            k = parts(model)[0].k_proj(model.model.layers[0].input_layernorm(model.model.embed_tokens(X)))
        krausified = kd.krausify(model, sample=X)
        found.append(float(parts(krausified)[0].log_sigma().detach()))
        squares = k.unflatten(-1, (2, 8)).square().sum(-1)  # rotations keep lengths
        assert found[-1] == pytest.approx(float((squares.mean() / 8**0.5).sqrt()), rel=1e-4)
    assert found[1] == pytest.approx(3.0 * found[0], rel=1e-4)


def picture():
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 4, "hidden_size": 32, "intermediate_size": 48}
    return ViTModel(ViTConfig(num_hidden_layers=1, num_attention_heads=4, **sizes), add_pooling_layer=False).eval()


@row(PATH, "grid", (4, 4), kd.Grid(4, 4, 1, prefix=1), "a patch hears its neighbours; the grid is the model's picture")
@row(PATH, "prefix_tokens", 1, 0, "the CLS token hears all and is heard by all; without it the tokens are too many")
def grid(first, second):
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    far = pixels.clone()
    far[..., 12:, 12:] += 1.0  # the last patch, three rows below the first
    for value, prefix in (((4, 4), 1), (kd.Grid(4, 4, 1, prefix=1), 0)):
        model = kd.krausify(picture(), grid=value, prefix_tokens=prefix)
        with torch.no_grad():
            changed = (model(pixels)[0] - model(far)[0]).abs().amax(-1)[0]
        assert changed[0] > 0
        assert changed[1] == 0
    with pytest.raises(ValueError, match="4 x 4 patches"):
        kd.krausify(picture(), grid=(3, 4), prefix_tokens=1)
    with pytest.raises(ValueError, match="17 queries"):
        kd.krausify(picture(), grid=(4, 4), prefix_tokens=0)(pixels)
    with pytest.raises(ValueError, match="prefix_tokens"):
        kd.krausify(base(), prefix_tokens=2)
