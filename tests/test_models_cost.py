"""Cost: counts against closed forms and torch's counter, pairs against the neighbourhood itself, nothing changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("transformers")

import krause_dynamics as kd  # noqa: E402
from krause_dynamics.interaction.neighbourhoods import Pairs  # noqa: E402
from krause_dynamics.models import (  # noqa: E402  # noqa: E402
    KrauseLM,
    KrauseLMConfig,
    KrauseSwin,
    KrauseSwinConfig,
    KrauseViT,
    KrauseViTConfig,
    cost,
    published,
)
from krause_dynamics.models.costs import pairs_of  # noqa: E402
from tests.model_sizes import PATCHES, WINDOWS, WORDS, pixels, seeded, words  # noqa: E402

RULES = {
    "everyone": kd.Window(41, two_sided=True),
    "causal": kd.Window(20) & kd.TopK(30),
    "window, ranked": kd.Window(6) & kd.TopK(3),
    "cross and CLS, ranked": kd.Grid(3, 6, metric="manhattan", prefix=1) & kd.TopK(2),
    "squares": kd.Grid(3, 6, radius=2, prefix=1),
}


@pytest.mark.parametrize("name", list(RULES))
def test_pairs_are_those_of_the_neighbourhood(name):
    rule, index = RULES[name], np.arange(19)
    x = np.zeros((19, 1))
    rows = rule.admits(Pairs(np, x, x, index, index)).sum(-1)
    k = next((part.k for part in rule.parts if isinstance(part, kd.TopK)), 19)
    assert pairs_of(rule.reach, 19) == (rows.sum(), np.minimum(rows, k).sum())


def test_a_softmax_vit_costs_what_its_formula_says():
    """L (4 d^2 + 2 d f) N for the products with weights, 2 L d N^2 between tokens, and both ends."""
    model = seeded(KrauseViT, KrauseViTConfig(**PATCHES, score="dot", support="full"))
    n, d, f, layers = 21, 16, 64, 2
    result = cost(model, pixels(model.config, batch=3), repeats=1)
    weights = layers * (4 * d**2 + 2 * d * f) * n + (n - 1) * d * 3 * 16 + 5 * d
    assert result.executed == result.useful == 3 * (weights + 2 * layers * d * n**2)
    assert result.interaction == 3 * 2 * layers * d * n**2
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert result.trained == result.parameters - layers, "fixed temperatures"


MODELS = {
    "KViT": (KrauseViT, KrauseViTConfig, PATCHES),
    "KSwin": (KrauseSwin, KrauseSwinConfig, WINDOWS),
    "gated": (KrauseLM, KrauseLMConfig, {**WORDS, "gate": True}),
    "linear": (KrauseLM, KrauseLMConfig, {**WORDS, "score": "linear", "support": "full"}),
}


@pytest.mark.parametrize("name", list(MODELS))
def test_it_is_torchs_count_and_leaves_the_model_alone(name):
    kind, config, small = MODELS[name]
    model = seeded(kind, config(**small, dropout=0.1)).train()
    x = words(20) if kind is KrauseLM else pixels(model.config)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    before, state = [p.clone() for p in model.parameters()], torch.get_rng_state()
    seen = []
    result = cost(model, x, repeats=2, progress=lambda done, total: seen.append((done, total)))
    assert result.executed == counter.get_total_flops() // 2
    assert 0 < result.useful <= result.executed
    assert seen[0] == (0, 8)
    assert seen[-1] == (8, 8)
    assert result.forward_seconds > 0
    assert result.step_seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


def test_useful_pairs_are_the_selected_ones():
    """One layer, d = 16: 12 tokens hear min(i + 1, 6) keys, of which 3 at most are weighed."""
    model = seeded(KrauseLM, KrauseLMConfig(**{**WORDS, "num_hidden_layers": 1}))
    result = cost(model, words(12), repeats=1)
    scored = sum(min(i + 1, 6) for i in range(12))
    selected = sum(min(i + 1, 3) for i in range(12))
    assert result.executed - result.useful == result.interaction - 2 * 16 * (scored + selected)


@pytest.mark.parametrize("support", ["window", "random"])
def test_the_class_token_hears_all_in_what_is_executed_too(support):
    """21 tokens: CLS hears 21, each patch has room for five of its cross (or five at random) and CLS."""
    model = seeded(KrauseViT, KrauseViTConfig(**PATCHES, score="gaussian", support=support, window=1))
    result = cost(model, pixels(model.config, batch=1), repeats=1)
    assert result.interaction == 2 * 2 * 16 * (21 + 20 * 6)
    assert result.useful <= result.executed


def test_a_layer_may_be_called_by_keyword():
    layer, x = kd.nn.KrauseAttention(8, 2, window=3), torch.zeros(2, 7, 8)
    assert cost(layer, {"x": x}, repeats=1).useful == cost(layer, x, repeats=1).useful


def test_memory_is_that_of_the_tensors_kept_for_gradients():
    """A linear layer keeps its input, a GELU its own: 5 x 7 and 5 x 11 numbers of four bytes."""
    model = torch.nn.Sequential(torch.nn.Linear(7, 11), torch.nn.GELU())
    result = cost(model, torch.zeros(5, 7), repeats=1)
    assert result.activation_bytes == 4 * 5 * (7 + 11)
    assert (result.executed, result.interaction, result.parameters) == (5 * 77, 0, 88)


@pytest.mark.parametrize(
    ("name", "printed", "executed"), [("kvit-base-cifar10", 3.77, 5.56), ("kvit-small-imagenet", 3.22, 4.42)]
)
def test_the_papers_saving_is_one_of_counting(name, printed, executed):
    """Its code runs all weights and a dense product of weights and values; its script prints 27 to 32 % less."""
    config = published(name)
    n = config.grid[0] * config.grid[1] + 1
    weights = (
        config.num_hidden_layers * (4 * config.hidden_size + 2 * config.intermediate_size) * config.hidden_size * n
    )
    ends = (n - 1) * config.hidden_size * 3 * config.patch_size**2 + config.hidden_size * config.num_labels
    dense = config.num_hidden_layers * n**2 * config.hidden_size
    assert abs((weights + ends + dense) / 1e9 - executed) < 0.006
    assert printed < 0.75 * executed
