"""The rule as an attention and mask function of transformers: any model that dispatches its attention can take it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.nn.attention import krause_attention
from krause_dynamics.nn.hearing import hearing, short_form


def register_attention(
    name: str = "krause",
    neighbourhood: Neighbourhood | None = None,
    *,
    sigma: float | None = None,
    score: Literal["gaussian", "dot"] = "gaussian",
    window: int | None = None,
    top_k: int | None = None,
    impl: str = "auto",
    **old: Any,
) -> None:
    """Make ``attn_implementation=name`` mean Krause attention, in this process.

    A layer is causal where the model says so, and its own sliding window, if it has one, narrows the neighbourhood.
    Keys come from the model's cache, so that decoding equals the full pass.

    Args:
        name: What to pass to ``from_pretrained(..., attn_implementation=name)`` or ``model.set_attn_implementation``.
        neighbourhood: Who is heard, as in `krause_attention`.
        sigma: Bandwidth of all layers; a layer's attribute ``krause_sigma`` (a number or a tensor, one per head)
            overrides it; default head_dim^(1/4). With ``score="dot"`` the model's own scaling is kept when missing.
        score: ``"gaussian"``, or ``"dot"`` for the model's softmax attention on the same keys.
        window: Short form of ``Window(window)``: W keys, the query's own counted.
        top_k: Short form of ``TopK(top_k)``: keys that stay.
        impl: As in `krause_attention`.
        **old: ``ties`` of the last release, deprecated.

    Raises:
        ValueError: An impossible neighbourhood.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> register_attention("krause", sigma=5.5, window=32, top_k=16)
        >>> config = LlamaConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        ...                      num_attention_heads=2, attn_implementation="krause")
        >>> LlamaForCausalLM(config)(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 3, 8])
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    heard = hearing(neighbourhood, window, top_k, old=old)

    @lru_cache
    def heard_by(is_causal: bool, sliding: int | None) -> Neighbourhood:
        return heard & short_form(sliding, None, is_causal, None)

    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **rest: Any,
    ) -> tuple[Tensor, None]:
        """Queries (b, h, n, d), keys and values (b, h_kv, m, d) of the library -> (b, n, h, d) and no weights."""
        bandwidth = getattr(module, "krause_sigma", sigma)
        is_causal = bool(rest.get("is_causal", getattr(module, "is_causal", True)))
        keeps_scaling = score == "dot" and bandwidth is None
        out = krause_attention(
            query, key, value, heard_by(is_causal, rest.get("sliding_window")), score=score,
            sigma=None if keeps_scaling else bandwidth, scale=scaling if keeps_scaling else None,
            key_valid=_padding(attention_mask, key), dropout=dropout, impl=impl,
        )  # fmt: skip
        assert isinstance(out, Tensor)
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, padding_mask)


def _padding(attention_mask: Tensor | None, key: Tensor) -> Tensor | None:
    """The (batch, m) padding mask; anything else would be ignored silently, so it is refused.

    Raises:
        ValueError: A mask of pairs, or one that is not as long as the keys (a static cache).
    """
    if attention_mask is None:
        return None
    if attention_mask.ndim != 2 or attention_mask.shape[1] != key.shape[2]:
        raise ValueError(
            f"attention_mask must mark padding, (batch, {key.shape[2]}), got {tuple(attention_mask.shape)}; pass the "
            "tokenizer's mask and a dynamic cache"
        )
    return attention_mask.to(torch.bool)


def padding_mask(batch_size: int, q_length: int, kv_length: int, *_: Any, **rest: Any) -> Tensor | None:
    """Mask function of transformers: the padding mask of the keys in the cache, or ``None`` where nothing is padded."""
    attention_mask: Tensor | None = rest.get("attention_mask")
    if attention_mask is None:
        return None
    attention_mask = attention_mask[:, -kv_length:].to(torch.bool)
    return None if attention_mask.shape[1] == kv_length and bool(attention_mask.all()) else attention_mask
