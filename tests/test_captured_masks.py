"""Models under a CUDA graph's capture hear padding and windows as the kernels take them: no mask of pairs."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

transformers = pytest.importorskip("transformers")

import krause_dynamics as kd  # noqa: E402
from krause_dynamics.models import add_krause_branch  # noqa: E402
from krause_dynamics.models.gated_masks import heard_of  # noqa: E402
from krause_dynamics.nn.attention import WATCHERS  # noqa: E402
from tests.capture import captured  # noqa: E402
from tests.model_sizes import gated_base, words  # noqa: E402

SETTINGS = {"window": 6, "top_k": 3, "sigma": 1.5}
MASK = torch.arange(20) >= torch.tensor([[0], [7]])
GIVEN = {
    "nothing": {},
    "no cache": {"use_cache": False},
    "vectors": {"use_cache": False},
    "padding": {"attention_mask": MASK.long()},
    "padding, no cache": {"attention_mask": MASK.long(), "use_cache": False},
}


def registered(base):
    base.config.krause = kd.krause(1.5, kd.Window(6) & kd.TopK(3)).to_dict()
    base.set_attn_implementation("krause")
    return base


MODELS = {
    "gated": lambda: add_krause_branch(gated_base("llama"), **SETTINGS),
    "gated, narrower window": lambda: add_krause_branch(gated_base("mistral"), **SETTINGS),
    "krausified": lambda: kd.krausify(gated_base("llama"), **SETTINGS),
    "krausified, narrower window": lambda: kd.krausify(gated_base("mistral"), **SETTINGS),
    "registered": lambda: registered(gated_base("llama")),
}


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "writes"), [*((name, False) for name in MODELS), ("gated", True), ("gated, narrower window", True)]
)
def test_what_is_captured_hears_what_is_not_without_pairs(name, writes):
    """Whether transformers leaves the softmax's mask out while it is captured (5.23) or writes it (5.17)."""
    model, x, seen = MODELS[name](), words(20), []
    model.config.sliding_window = 4 if "narrower" in name else None
    original = transformers.masking_utils._ignore_causal_mask_sdpa
    skips = mock.patch.object(
        transformers.masking_utils, "_ignore_causal_mask_sdpa", side_effect=None if writes else original
    )
    WATCHERS.append(lambda call: seen.append((call.pair_bias is None, call.log_mass is None)))
    try:
        for kind, given in GIVEN.items():
            tokens = {"inputs_embeds": model.model.embed_tokens(x)} if kind == "vectors" else {"input_ids": x}
            free = model(**tokens, **given).logits
            seen.clear()
            with captured(), skips as skipped:
                skipped.return_value = False
                logits = model(**tokens, **given).logits
            assert seen == [(True, "padding" not in kind)] * 2, kind
            there = MASK if "padding" in kind else torch.ones_like(MASK)
            torch.testing.assert_close(logits[there], free[there], rtol=1e-9, atol=1e-9)
    finally:
        WATCHERS.pop()


@torch.no_grad()
@pytest.mark.parametrize("name", ["gated", "krausified"])
def test_packed_rows_and_masks_of_the_caller_are_kept_in_a_capture(name):
    """What cannot be told from values that may not be read is heard as pairs."""
    model, x = MODELS[name](), words(20)
    places = torch.cat([torch.arange(8), torch.arange(12)])[None]
    pairs = torch.ones(2, 1, 20, 20, dtype=torch.bool).tril() & (torch.arange(20) != 3)
    for given in ({"position_ids": places, "use_cache": False}, {"attention_mask": pairs, "use_cache": False}):
        free = model(x, **given).logits
        with captured():
            logits = model(x, **given).logits
        torch.testing.assert_close(logits, free, rtol=1e-9, atol=1e-9)


def test_a_mask_that_was_written_to_is_looked_at_again():
    """What one pass found in a mask was kept for all later ones, and for the graph that captures them."""
    q, k = torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8)
    mask = torch.ones(1, 1, 5, 5, dtype=torch.bool).tril()
    assert heard_of(mask, q, k, 5, 3) == {}
    mask[..., 0] = False
    assert heard_of(mask, q, k, 5, 3)["key_valid"].tolist() == [[False, True, True, True, True]]
    with captured():
        assert "pair_bias" in heard_of(mask, q, k, 5, 3)


@torch.no_grad()
def test_a_model_that_was_set_back_to_its_own_attention_is_told_nothing():
    """A mask of ones would be written out for the softmax of the library."""
    model, x = registered(gated_base("llama")), words(20)
    assert len(model._forward_pre_hooks) == 1
    model.set_attn_implementation("sdpa")
    model.set_attn_implementation("krause")
    assert len(model._forward_pre_hooks) == 1
    model.set_attn_implementation("sdpa")
    given = {"input_ids": x, "use_cache": False}
    with captured():
        assert next(iter(model._forward_pre_hooks.values()))(model, (), given) is None
