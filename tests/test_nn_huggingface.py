"""Models of transformers with the rule as their attention: the library's own softmax, locality, padding, decoding."""

from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers")

from krause_dynamics.nn.huggingface import register_attention  # noqa: E402
from tests import checkpoint_models as models  # noqa: E402


def tiny(name, **more):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=name, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).double().eval()


def tokens(n=24, seed=0):
    return torch.randint(3, 50, (2, n), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_dot_products_are_the_softmax_of_the_library():
    register_attention("krause_as_softmax", score="dot")
    mine, theirs = tiny("krause_as_softmax"), tiny("eager")
    torch.testing.assert_close(mine(tokens()).logits, theirs(tokens()).logits, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_window_bounds_what_a_token_can_feel():
    """Two layers of 4 keys reach 6 tokens back; the seventh cannot be felt, the sixth can."""
    register_attention("krause_window", sigma=2.0, window=4)
    model, x = tiny("krause_window"), tokens()
    changed = x.clone()
    changed[:, 5] = (changed[:, 5] - 3 + 7) % 47 + 3
    difference = (model(x).logits - model(changed).logits).abs().amax((0, 2))
    assert bool((difference[:5] == 0).all())
    assert bool((difference[5:12] > 0).all())
    assert bool((difference[12:] == 0).all())


@torch.no_grad()
def test_decoding_with_the_cache_of_the_library_equals_the_full_pass():
    register_attention("krause_top_k", sigma=2.0, window=6, top_k=3)
    model, x = tiny("krause_top_k"), tokens()
    cache, steps = transformers.DynamicCache(), []
    for i in range(x.shape[1]):
        steps.append(model(x[:, i : i + 1], past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(steps, 1), model(x).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_left_padding_changes_nothing_but_positions():
    register_attention("krause_top_k", sigma=2.0, window=6, top_k=3)
    model, x = tiny("krause_top_k"), tokens()
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), x], 1)
    mask = (torch.arange(29) >= 5).long().expand(2, -1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(padded, attention_mask=mask, position_ids=positions).logits[:, 5:]
    torch.testing.assert_close(logits, model(x).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_bandwidth_of_a_layer_overrides_that_of_the_registration():
    register_attention("krause_wide", sigma=50.0, window=6)
    register_attention("krause_narrow", sigma=0.5, window=6)
    wide, narrow = tiny("krause_wide"), tiny("krause_narrow")
    assert float((wide(tokens()).logits - narrow(tokens()).logits).abs().max()) > 1e-3
    for layer in wide.model.layers:
        layer.self_attn.krause_sigma = torch.full((4,), 0.5)
    torch.testing.assert_close(wide(tokens()).logits, narrow(tokens()).logits, rtol=1e-6, atol=1e-6)


def test_a_mask_of_pairs_is_refused():
    register_attention("krause_top_k", window=6, top_k=3)
    with pytest.raises(ValueError, match="must mark padding"):
        tiny("krause_top_k")(tokens(), attention_mask=torch.ones(2, 1, 24, 24, dtype=torch.bool))


@torch.no_grad()
@pytest.mark.parametrize(("window", "narrowest"), [(None, 4), (9, 4), (2, 2)])
def test_the_narrower_of_two_windows_holds(window, narrowest):
    """The model's own window is 4 tokens wide; what is heard is the library's softmax in the narrower of the two."""
    register_attention("krause_sliding", score="dot", window=window)
    mine, theirs = (models.mistral(attn_implementation=name).double() for name in ("krause_sliding", "eager"))
    theirs.config.sliding_window = narrowest
    for layer in theirs.model.layers:
        layer.self_attn.sliding_window = narrowest
    torch.testing.assert_close(mine(tokens()).logits, theirs(tokens()).logits, rtol=1e-6, atol=1e-6)
