"""Names of attention implementations in transformers: ``"krause"``, ``"krause_softmax"``, and the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial, wraps
from types import ModuleType
from typing import Any, Literal

from torch import Tensor, nn

from krause_dynamics._when_loaded import when_loaded
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.nn.hearing import hearing, within
from krause_dynamics.nn.huggingface.attend import attend
from krause_dynamics.nn.huggingface.masks import pair_mask
from krause_dynamics.nn.huggingface.rules import LayerRule, rule_of

KRAUSE, SOFTMAX = "krause", "krause_softmax"
_HOME = "transformers.modeling_utils"
OWN = "krause_"  # begins the model types whose classes are ours
_names: set[str] = set()


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
    _names.add(name)


def _settle(modeling: ModuleType) -> None:
    """Register both names, and guard the two doors by which a model could silently be another one."""
    for name, rule in ((KRAUSE, rule_of), (SOFTMAX, _softmax_of)):
        if name not in _names:
            _register(name, rule)
    base = modeling.PreTrainedModel
    base.save_pretrained = _warning_save(base.save_pretrained)
    base.get_correct_attn_implementation = _refusing_choice(base.get_correct_attn_implementation)
    base.set_attn_implementation = _refusing_choice(base.set_attn_implementation)


def _warning_save(save: Callable[..., Any]) -> Callable[..., Any]:
    """Saving that warns where the file would not know that the model was one of ours: it would load as softmax."""

    @wraps(save)
    def save_pretrained(self: Any, *args: Any, **options: Any) -> Any:
        name = _forgotten(self)
        if name is not None:
            warnings.warn(
                f"{type(self).__name__} runs the attention {name!r}, and a saved model does not remember that: it "
                "loads with the attention of the library; save the result of kd.krausify(model), or pass "
                f"attn_implementation={name!r} when loading",
                UserWarning,
                stacklevel=2,
            )
        return save(self, *args, **options)

    return save_pretrained


def _forgotten(model: Any) -> str | None:
    """The attention of ours in a model or a part of it, which its folder will not say; or ``None``."""
    if getattr(type(model), "remembers_attention", False):
        return None
    if any(hasattr(part, "krause_rule") for part in model.modules()):  # a part was krausified
        return KRAUSE
    configs = [model.config, *(getattr(model.config, name, None) for name in model.config.sub_configs)]
    names = (getattr(config, "_attn_implementation", None) for config in configs)
    return next((name for name in names if name in _names), None)


def _refusing_choice(choose: Callable[..., Any]) -> Callable[..., Any]:
    """The choice of an implementation, which refuses ours for models that would never call it, and folders of ours.

    transformers takes any registered name, and a model with attention code of its own then goes on with that.
    """

    @wraps(choose)
    def chosen(self: Any, *args: Any, **options: Any) -> Any:
        kind = str(self.config.model_type)
        if kind.startswith(OWN) and kind != type(self.config).model_type:
            raise UnsupportedModel(
                f"{type(self).__name__} would leave the Krause attention of this {kind} out; load it by the Auto "
                "classes, which know its own class, or kd.unkrausify the model and save it"
            )
        name = next(iter(args or options.values()), None)
        if isinstance(name, str) and name in _names and not self._can_set_attn_implementation():
            raise UnsupportedModel(
                f"{type(self).__name__} has attention code of its own, outside the attention registry of transformers, "
                f"so that attn_implementation={name!r} would change nothing; put nn.KrauseAttention in its place"
            )
        return choose(self, *args, **options)

    return chosen


def register_when_loaded() -> None:
    """Register now if transformers has its models loaded, else when they come."""
    when_loaded(_HOME, _settle)
