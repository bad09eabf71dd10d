"""Names of attention implementations in transformers: ``"krause"``, ``"krause_softmax"``, and the user's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, Literal

from torch import Tensor, nn

from krause_dynamics._when_loaded import when_loaded
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.nn.hearing import hearing, within
from krause_dynamics.nn.huggingface.attend import attend
from krause_dynamics.nn.huggingface.guards import guard
from krause_dynamics.nn.huggingface.masks import pair_mask
from krause_dynamics.nn.huggingface.refusals import KRAUSE, NAMES, SOFTMAX
from krause_dynamics.nn.huggingface.rules import LayerRule, rule_of

_HOME = "transformers.modeling_utils"


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
    """Make ``attn_implementation=name`` mean one rule for every layer, in this process.

    The names ``"krause"`` and ``"krause_softmax"`` exist without it; they read the rule from ``config.krause``. The
    model's own mask (causality, windows, chunks, packed rows, padding, caches) is kept and joined with the rule.

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

    Examples:
        >>> import torch
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> register_attention("krause_near", sigma=5.5, window=32, top_k=16)
        >>> config = LlamaConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        ...                      num_attention_heads=2, attn_implementation="krause_near")
        >>> LlamaForCausalLM(config)(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 3, 8])
    """
    reach, segments = within(hearing(neighbourhood, window, top_k, old=old))
    rule = LayerRule(score, reach, segments, sigma=sigma)
    _register(name, partial(_of_registration, rule), impl)


def _of_registration(rule: LayerRule, module: nn.Module) -> LayerRule:
    own = getattr(module, "krause_sigma", None)
    return rule if own is None else rule._replace(sigma=own)


def _softmax_of(module: nn.Module) -> LayerRule:
    """The softmax twin of the layer's rule: the same keys, dot products with the model's own scaling."""
    rule = rule_of(module)
    return LayerRule("dot", rule.reach, rule.segments)


def _register(name: str, rule: Callable[[nn.Module], LayerRule], impl: str = "auto") -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        return attend(rule(module), module, query, key, value, attention_mask, options, impl)

    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, pair_mask)
    NAMES.add(name)


def _settle(modeling: ModuleType) -> None:
    """Register both names, and guard the doors by which a model could silently be another one."""
    for name, rule in ((KRAUSE, rule_of), (SOFTMAX, _softmax_of)):
        if name not in NAMES:
            _register(name, rule)
    guard(modeling.PreTrainedModel)


def register_when_loaded() -> None:
    """Register now if transformers has its models loaded, else when they come."""
    when_loaded(_HOME, _settle)
