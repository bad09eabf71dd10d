"""Whole models under torch.compile, in one graph: the numbers of the eager model, and no mask of all pairs."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves

pytest.importorskip("transformers")

import krause_dynamics as kd  # noqa: E402
from krause_dynamics.models import (  # noqa: E402
    KARM,
    KARMConfig,
    KrauseLM,
    KrauseLMConfig,
    KrauseSwin,
    KrauseSwinConfig,
    KrauseViT,
    KrauseViTConfig,
    add_krause_branch,
)
from krause_dynamics.nn import KrauseAttention  # noqa: E402
from tests.model_sizes import PATCHES, PICTURES, WINDOWS, WORDS, gated_base, pixels, seeded, words  # noqa: E402

SETTINGS = {"window": 9, "top_k": 5}
LONG = 8192  # pairs of so many tokens are 67 million


QUICK = ("lm", "kvit", "gated llama")  # compiling one takes seconds


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Largest:
    """A backend of torch.compile that remembers the size of the largest tensor of the graph, and runs it as it is."""

    def __init__(self):
        self.size = 0

    def __call__(self, graph, inputs):
        for node in graph.graph.nodes:
            for x in tree_leaves(node.meta.get("example_value")):
                self.size = max(self.size, x.numel() if isinstance(x, torch.Tensor) else 0)
        return graph.forward


def single(kind, config):
    return seeded(kind, config, torch.float32), words(12, vocabulary=min(getattr(config, "vocab_size", 23), 23))


def seen(kind, config):
    return seeded(kind, config, torch.float32), pixels(config, dtype=torch.float32)


MODELS = {
    "lm": lambda: single(KrauseLM, KrauseLMConfig(**WORDS)),
    "gated lm": lambda: single(KrauseLM, KrauseLMConfig(**WORDS, gate=True)),
    "linear": lambda: single(KrauseLM, KrauseLMConfig(**WORDS, score="linear", support="full")),
    "key norm": lambda: single(KrauseLM, KrauseLMConfig(**WORDS, score="dot+temperature+key_norm")),
    "karm": lambda: single(KARM, KARMConfig(**PICTURES)),
    "kvit": lambda: seen(KrauseViT, KrauseViTConfig(**PATCHES)),
    "random": lambda: seen(KrauseViT, KrauseViTConfig(**PATCHES, support="random")),
    "kswin": lambda: seen(KrauseSwin, KrauseSwinConfig(**WINDOWS)),
    "gated llama": lambda: (add_krause_branch(gated_base("llama").float(), window=6, top_k=3), words(12)),
}


@pytest.mark.parametrize("name", [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in MODELS])
def test_a_model_compiles_into_one_graph_of_the_same_numbers(name):
    model, x = MODELS[name]()
    results = []
    # torch expects other strides of elu's gradient than it gets: its aot_eager fails there, inductor does not.
    backend = "eager" if name == "linear" else "aot_eager"
    for call in (model, torch.compile(model, backend=backend, fullgraph=True)):
        model.zero_grad()
        logits = call(x, use_cache=False).logits if name == "gated llama" else call(x).logits
        logits.square().mean().backward()
        results.append(
            {"logits": logits.detach()} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        )
    assert results[0].keys() == results[1].keys()
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, rtol=1e-5, atol=1e-6 * float(value.abs().max()), msg=key)


@pytest.mark.parametrize(
    "rule",
    [
        {"window": 8, "top_k": 4},
        pytest.param({"grid": (5, 8)}, marks=pytest.mark.slow),
        pytest.param({"score": "dot", "norm": 0.1, "top_k": 3, "causal": True}, marks=pytest.mark.slow),
    ],
)
def test_the_definition_compiles_too(rule):
    layer, x = KrauseAttention(16, 2, impl="reference", **rule), torch.randn(2, 40, 16)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for call in (layer, compiled):
        call(x).square().sum().backward()
    plain = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for p, once in zip(layer.parameters(), plain, strict=True):
        torch.testing.assert_close(p.grad, 2 * once, rtol=1e-5, atol=1e-5)
    if "grid" not in rule:
        n = 31
        torch.testing.assert_close(compiled(x[:, :n]), layer(x[:, :n]), rtol=1e-5, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "given"),
    [
        ("llama", "no cache"),
        ("mistral", "padding"),
        *(
            pytest.param(family, given, marks=pytest.mark.slow)
            for family in ("llama", "mistral", "gemma2")
            for given in ("nothing", "no cache", "padding")
        ),
    ],
)
def test_causal_and_sliding_masks_are_not_written_out(family, given):
    """Of 300 tokens no tensor of the graph has as many entries as they have pairs; soft caps (gemma2) are compiled."""
    x, largest = words(300), Largest()
    model = kd.krausify(gated_base(family).float(), **SETTINGS)
    model.config.sliding_window = 7
    mask = (torch.arange(300) >= torch.tensor([[0], [40]])).long()
    options = {"nothing": {}, "no cache": {"use_cache": False}, "padding": {"attention_mask": mask}}[given]
    compiled = torch.compile(model, backend=largest, fullgraph=True)
    there = mask.bool() if given == "padding" else torch.ones_like(mask, dtype=torch.bool)
    torch.testing.assert_close(compiled(x, **options).logits[there], model(x, **options).logits[there])
    assert largest.size < 300 * 300


@torch.no_grad()
def test_a_window_of_8192_tokens_writes_no_mask_of_pairs():
    largest, model = Largest(), kd.krausify(gated_base("llama").float(), window=8)
    torch.compile(model.model, backend=largest, fullgraph=True)(torch.full((1, LONG), 3))
    assert largest.size < LONG * LONG / 64


@torch.no_grad()
@pytest.mark.parametrize("padded", [False, True])
def test_the_branch_beside_a_compiled_softmax_hears_padding_without_pairs(padded):
    """The base's softmax may write its mask; the branch's calls are without one."""
    model, x = add_krause_branch(gated_base("llama").float(), **SETTINGS), words(40)
    mask = (torch.arange(40) >= torch.tensor([[0], [6]])).long()
    options = {"use_cache": False, **({"attention_mask": mask} if padded else {})}
    expected, pairs = model(x, **options).logits, []

    def backend(graph, inputs):
        calls = [node for node in graph.graph.nodes if "krause_dynamics" in str(node.target)]
        pairs.extend(node.args[5] for node in calls)
        return graph.forward

    there = mask.bool() if padded else torch.ones_like(mask, dtype=torch.bool)
    found = torch.compile(model, backend=backend, fullgraph=True)(x, **options).logits
    torch.testing.assert_close(found[there], expected[there], rtol=1e-5, atol=1e-5)
    assert pairs == [None, None]


@torch.no_grad()
def test_packed_rows_and_masks_of_the_caller_are_kept():
    """These have no form without pairs while compiling, and are written out."""
    model, x = kd.krausify(gated_base("llama").float(), **SETTINGS), words(12)
    pairs = torch.ones(2, 1, 12, 12, dtype=torch.bool).tril() & (torch.arange(12) != 3)
    places = torch.cat([torch.arange(5), torch.arange(7)])[None]
    for options in ({"position_ids": places, "use_cache": False}, {"attention_mask": pairs, "use_cache": False}):
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, **options).logits, model(x, **options).logits, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_layers_compiled_one_by_one_are_the_same():
    """As accelerate compiles regions: the mask is made outside of what is compiled."""
    model, x = kd.krausify(gated_base("llama").float(), **SETTINGS), words(30)
    mask = (torch.arange(30) >= torch.tensor([[0], [4]])).long()
    expected = model(x, attention_mask=mask).logits
    for layer in model.model.layers:
        layer.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(model(x, attention_mask=mask).logits[mask.bool()], expected[mask.bool()])
