"""Any score on any support with any read-out is a configuration; arms that are one rule in theory are one model."""

from __future__ import annotations

from itertools import product

import pytest
import torch

pytest.importorskip("transformers")

from krause_dynamics.models import KrauseLM, KrauseLMConfig, KrauseViT, KrauseViTConfig  # noqa: E402
from krause_dynamics.models.configuration import SCORES  # noqa: E402
from krause_dynamics.nn import KrauseAttention, sparse_weights  # noqa: E402
from tests.model_sizes import PATCHES, WORDS, pixels, seeded, words  # noqa: E402

VIT = {**PATCHES, "first_tokens": 2}
LM = {**WORDS, "first_tokens": 2}
SUPPORTS = KrauseViTConfig.supports
ARMS = list(product(SCORES, SUPPORTS, ("cls", "mean")))


def rules(model):
    return [module for module in model.modules() if isinstance(module, KrauseAttention)]


def test_all_arms_of_the_factorial_have_a_loss_and_gradients():
    """28 rules, each read both ways: a step of descent lowers the loss of the batch at hand."""
    for score, support, read_out in ARMS:
        config = KrauseViTConfig(**VIT, score=score, support=support, read_out=read_out)
        torch.manual_seed(0)
        model, x, labels = KrauseViT(config), pixels(config, dtype=torch.float32), torch.tensor([1, 3])
        loss = model(x, labels=labels).loss
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.grad is not None:
                    weight -= 0.02 * weight.grad
            assert model(x, labels=labels).loss < loss, (score, support, read_out)


def test_arms_differ_in_the_few_weights_that_are_their_own():
    """Scores add a temperature a layer and a coefficient a head; registers are two tokens and their positions."""
    plain = KrauseViT(KrauseViTConfig(**VIT, score="dot", support="full"))
    base = sum(p.numel() for p in plain.parameters() if p.requires_grad)
    for score, support, read_out in ARMS:
        model = KrauseViT(KrauseViTConfig(**VIT, score=score, support=support, read_out=read_out))
        own = {"dot": 0, "dot+temperature": 2, "dot+temperature+key_norm": 2 + 4, "gaussian": 2}[score]
        own += 2 * 2 * 16 if support == "window+first_tokens" else 0
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == base + own


@torch.no_grad()
@pytest.mark.parametrize("support", SUPPORTS)
def test_key_norms_at_half_the_temperature_are_the_gaussian(support):
    """q.k/s^2 - |k|^2/(2 s^2) is the Gaussian but for a term of the query, which softmax and ranks do not see."""
    kinds = [(KrauseViT, KrauseViTConfig, VIT)]
    if support in KrauseLMConfig.supports:
        kinds.append((KrauseLM, KrauseLMConfig, LM))
    for kind, config, small in kinds:
        gaussian = seeded(kind, config(**{**small, "sigma": 1.5}, score="gaussian", support=support))
        dots = seeded(kind, config(**{**small, "sigma": 1.5}, score="dot+temperature+key_norm", support=support))
        dots.load_state_dict(gaussian.state_dict(), strict=False)
        for rule in rules(dots):
            rule.key_norm.weight.copy_(0.5 / rule.sigma.square().expand_as(rule.key_norm.weight))
        x = pixels(gaussian.config) if kind is KrauseViT else words(25)
        torch.testing.assert_close(dots(x).logits, gaussian(x).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("support", KrauseLMConfig.supports)
@pytest.mark.parametrize("score", ["gaussian", "dot+temperature+key_norm"])
def test_decoders_decode_as_they_read_on_every_support(score, support):
    model, x = seeded(KrauseLM, KrauseLMConfig(**LM, score=score, support=support)), words(25)
    cache = model.new_cache()
    steps = torch.cat([model(token, past_key_values=cache).logits for token in x.split(1, 1)], 1)
    torch.testing.assert_close(steps, model(x).logits, rtol=1e-9, atol=1e-9)


def heard(config):
    """(queries, keys) booleans: whom the rule of the first layer admits before any rank."""
    rule = config.neighbourhood(0)
    n = config.prefix + 20 if isinstance(config, KrauseViTConfig) else 20
    q = k = torch.zeros(1, 1, n, 1)
    index, weight = sparse_weights(q, k, rule)
    found = torch.zeros(n, n + 1, dtype=torch.bool).scatter_(1, index[0, 0] + 1, weight[0, 0] > 0)
    return found[:, 1:]


def test_supports_hear_whom_they_say():
    size = {}
    for support in SUPPORTS:
        config = KrauseViTConfig(**VIT, support=support, attention_top_k=3)
        size[support] = heard(config).sum(1)
    inner = 1 + 5 + 2  # CLS, a row, two patches: all four neighbours
    assert size["full"].unique().tolist() == [21]
    assert size["window"][inner] == 6
    assert size["window+first_tokens"][inner + 2] == 8
    assert size["window+first_tokens"][:3].tolist() == [23, 23, 23]
    assert size["random"][1:].unique().tolist() == [6], "as many as an inner patch's cross, and CLS"
    assert size["top_k"].unique().tolist() == [3]
    assert size["window+top_k"].unique().tolist() == [3]
    assert size["window+top_k+cls_exempt"][0] == 21
    assert size["window+top_k+cls_exempt"][1:].unique().tolist() == [3]
    tokens = {support: heard(KrauseLMConfig(**LM, support=support)) for support in KrauseLMConfig.supports}
    assert all(not found.triu(1).any() for found in tokens.values()), "causal"
    last = {support: found[-1].sum().item() for support, found in tokens.items()}
    assert last == {"full": 20, "window": 6, "window+first_tokens": 8, "random": 6, "top_k": 3, "window+top_k": 3}
