"""Weights and tokens that models hand out: those of the definition, for every kind, with caches and in generation."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

import krause_dynamics as kd  # noqa: E402
from krause_dynamics import UnsupportedModel  # noqa: E402
from krause_dynamics.models import (  # noqa: E402
    KARM,
    KARMConfig,
    KrauseLM,
    KrauseLMConfig,
    KrauseSwin,
    KrauseSwinConfig,
    KrauseViT,
    KrauseViTConfig,
    branch_weights,
)
from krause_dynamics.models.linear import LinearAttention  # noqa: E402
from krause_dynamics.nn import KrauseAttention  # noqa: E402
from tests.model_sizes import PATCHES, PICTURES, WINDOWS, WORDS, gated_base, pixels, seeded, words  # noqa: E402

LANGUAGE = {"gaussian": {}, "softmax": {"score": "dot", "support": "full"}, "first tokens": {
    "support": "window+first_tokens", "score": "dot+temperature+key_norm"}}  # fmt: skip


def by_definition(layer, x, bias=None):
    """Weights of a layer on tokens x (batch, n, width) by the dense reference."""
    q, k, _ = layer.project(x)
    rule = layer.interaction
    rule = rule if bias is None else kd.Interaction(rule.score, rule.neighbourhood, pair_bias=bias)
    return kd.weights(rule, q, k)


def checked(model, given, **options):
    """The outputs of a pass, whose weights were compared with the definition, layer by layer."""
    expected = []

    def note(layer, args, given):
        expected.append(by_definition(layer, args[0], given.get("pair_bias")))

    layers = [module for module in model.modules() if isinstance(module, KrauseAttention)]
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    outputs = model(given, output_attentions=True, output_hidden_states=True, **options)
    for hook in hooks:
        hook.remove()
    assert len(outputs.attentions) == len(expected) == len(layers)
    for found, wanted in zip(outputs.attentions, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    assert torch.equal(outputs.logits, model(given, **options).logits)
    return outputs


@torch.no_grad()
@pytest.mark.parametrize("options", LANGUAGE.values(), ids=LANGUAGE)
def test_weights_of_a_decoder_are_those_of_the_definition(options):
    model = seeded(KrauseLM, KrauseLMConfig(**WORDS, **options))
    outputs = checked(model, words(20))
    assert len(outputs.hidden_states) == 3
    assert outputs.attentions[0].shape == (2, 2, 20, 20)
    checked(seeded(KARM, KARMConfig(**PICTURES, **options)), words(20, vocabulary=16))


@torch.no_grad()
@pytest.mark.parametrize("support", ["window+top_k", "random", "full"])
def test_weights_of_a_vision_transformer_are_those_of_the_definition(support):
    model = seeded(KrauseViT, KrauseViTConfig(**PATCHES, support=support))
    outputs = checked(model, pixels(model.config))
    assert outputs.attentions[1].shape == (2, 2, 21, 21)
    labels = torch.tensor([1, 3])
    as_tuple = model(pixels(model.config), labels, output_attentions=True, return_dict=False)
    assert as_tuple[0].shape == ()
    assert torch.equal(as_tuple[-1][0], outputs.attentions[0])


@torch.no_grad()
def test_weights_of_windows_are_those_of_the_definition():
    """Shifted windows and their position biases too; states are maps in raster order."""
    model = seeded(KrauseSwin, KrauseSwinConfig(**WINDOWS))
    outputs = checked(model, pixels(model.config))
    assert [tuple(weights.shape) for weights in outputs.attentions] == [(8, 2, 16, 16), (8, 2, 16, 16), (2, 4, 16, 16)]
    assert [tuple(states.shape[1:]) for states in outputs.hidden_states] == [(64, 16)] * 3 + [(16, 32)] * 2


@torch.no_grad()
def test_weights_of_linear_attention_give_its_output():
    layer, x = seeded_linear(), torch.randn(2, 150, 16, dtype=torch.float64)
    out, weights = layer(x, return_weights=True)
    v = layer.v_proj(x).unflatten(-1, (2, -1)).transpose(1, 2)
    torch.testing.assert_close(layer.out_proj((weights @ v).transpose(1, 2).flatten(2)), out, rtol=1e-9, atol=1e-11)
    model = seeded(KrauseLM, KrauseLMConfig(**WORDS, score="linear", support="full"))
    first = model(words(5), use_cache=True, output_attentions=True)
    with pytest.raises(ValueError, match="use_cache=False"):
        model(words(1), past_key_values=first.past_key_values, output_attentions=True)


def seeded_linear():
    torch.manual_seed(0)
    return LinearAttention(16, 2).double()


@torch.no_grad()
def test_weights_with_a_cache_are_rows_of_those_without():
    """The keys of a window of 6 that a cache holds: the last ones; and in generation."""
    model, x = seeded(KrauseLM, KrauseLMConfig(**WORDS)), words(20)
    whole, cache = model(x, output_attentions=True).attentions, None
    for i in range(20):
        step = model(x[:, i : i + 1], past_key_values=cache, use_cache=True, output_attentions=True)
        cache = step.past_key_values
        for found, expected in zip(step.attentions, whole, strict=True):
            held = found.shape[-1]
            torch.testing.assert_close(found[:, :, 0], expected[:, :, i, i + 1 - held : i + 1], rtol=1e-9, atol=1e-12)
    options = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "pad_token_id": 0}
    drawn = model.generate(x, attention_mask=torch.ones_like(x), output_attentions=True, **options)
    assert [len(step) for step in drawn.attentions] == [2, 2, 2]
    torch.testing.assert_close(drawn.attentions[0][1], whole[1], rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_a_configuration_may_ask_for_weights():
    model = seeded(KrauseViT, KrauseViTConfig(**PATCHES))
    assert model(pixels(model.config)).attentions is None
    model.config.output_attentions = True
    assert len(model(pixels(model.config)).attentions) == 2


@torch.no_grad()
def test_a_gated_decoder_shows_both_branches_and_the_gate():
    model, x = seeded(KrauseLM, KrauseLMConfig(**WORDS, gate=True)), words(12)
    both = branch_weights(model, x)
    for found, branch in ((both.softmax, "softmax"), (both.krause, "krause")):
        states = model(x, output_hidden_states=True).hidden_states
        for weights, layer, tokens in zip(found, model.layers, states, strict=False):
            expected = by_definition(getattr(layer.attention, branch), layer.norm1(tokens))
            torch.testing.assert_close(weights, expected, rtol=1e-9, atol=1e-12)
    for weights, shown in zip(model(x, output_attentions=True).attentions, both.softmax, strict=True):
        assert torch.equal(weights, shown)
    assert all(bool((share.sum(-1) - 1 < 1e-12).all()) for share in both.gate)


def test_weights_carry_gradients_and_survive_checkpointing():
    model, x, found = seeded(KrauseLM, KrauseLMConfig(**WORDS)).train(), words(9), []
    for checkpointed in (False, True):
        if checkpointed:
            model.activation_checkpointing_enable()
        model.zero_grad()
        outputs = model(x, labels=x, output_attentions=True)
        (outputs.loss + sum(weights.square().mean() for weights in outputs.attentions)).backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_a_layer_names_what_it_does_not_know():
    layer = KrauseAttention(8, 2)
    with pytest.raises(ValueError, match="return_weights"):
        layer(torch.zeros(1, 3, 8), return_weights="sparse")


@torch.no_grad()
def test_a_gated_model_guesses_for_another_and_takes_its_guesses_back():
    torch.manual_seed(0)
    main, x = gated_base("llama"), words(9, batch=1)
    assistant = kd.models.add_krause_branch(gated_base("llama", seed=1), window=4, top_k=2)
    how = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(main.generate(x, assistant_model=assistant, **how), main.generate(x, **how))


def test_a_paged_cache_is_refused_where_an_attention_does_not_read_it():
    """A branch beside it would hear the tokens of other requests, and none of the past."""
    gated = kd.models.add_krause_branch(gated_base("llama"), window=4, top_k=2)
    for model in (gated, kd.krausify(gated_base("llama"), window=4), seeded(KrauseLM, KrauseLMConfig(**WORDS))):
        with pytest.raises(UnsupportedModel, match=f"does not serve {type(model).__name__}: .* padded on the left"):
            model.generate_batch([[1, 2, 3]])
    gated.config.krause_branch["gate"] = "closed"
    gated.generation_config.eos_token_id = -1
    assert gated.init_continuous_batching() is not None


def test_a_cache_of_a_layer_is_none_of_a_model():
    model = kd.models.add_krause_branch(gated_base("llama"), window=4, top_k=2)
    for each in (model, kd.krausify(gated_base("llama"), window=4)):
        with pytest.raises(TypeError, match="Cache of transformers such as DynamicCache, got WindowCache"):
            each(words(4), past_key_values=kd.nn.WindowCache(4))


@pytest.mark.parametrize("kind", [KrauseViT, KrauseLM])
def test_weights_that_lie_elsewhere_until_a_part_is_called(kind):
    """As accelerate offloads them: parts whose call is somebody's are called, in training too."""
    hooks = pytest.importorskip("accelerate.hooks")
    config = KrauseViTConfig(**PATCHES) if kind is KrauseViT else KrauseLMConfig(**WORDS)
    model, x = seeded(kind, config), pixels(config) if kind is KrauseViT else words(12)
    expected, weights = model(x).logits.detach(), {name: w.detach().clone() for name, w in model.state_dict().items()}
    hooks.attach_align_device_hook(model, execution_device="cpu", offload=True, weights_map=weights)
    assert next(model.parameters()).is_meta
    torch.testing.assert_close(model(x).logits.detach(), expected, rtol=1e-11, atol=1e-11)
