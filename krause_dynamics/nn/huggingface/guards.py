"""Doors of transformers by which a model with our attention could silently become, or be saved as, another one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.nn.huggingface.own_code import own_attention
from krause_dynamics.nn.huggingface.unpadded import say_unpadded, takes_masks

KRAUSE, SOFTMAX = "krause", "krause_softmax"
NAMES: set[str] = set()
"""Attention implementations that were registered here."""
OWN = "krause_"  # begins the model types whose classes are ours


def guard(base: Any) -> None:
    """Guard the class from which all models of transformers come."""
    base.save_pretrained = _warning_save(base.save_pretrained)
    base.get_correct_attn_implementation = _refusing_choice(base.get_correct_attn_implementation)
    base.set_attn_implementation = _all_or_nothing(base.set_attn_implementation)
    base.post_init = _refusing_end(base.post_init)


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
    return next((name for name in names if name in NAMES), None)


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
        _refuse_own(self, _asked(args, options))
        found = choose(self, *args, **options)
        known = _tell_unpadded in self._forward_pre_hooks.values()
        if isinstance(found, str) and found in NAMES and takes_masks(self) and not known:
            self.register_forward_pre_hook(_tell_unpadded, with_kwargs=True)
        return found

    return chosen


def _tell_unpadded(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """`say_unpadded`, as long as the model runs an attention of ours; it may be set to another."""
    return say_unpadded(model, args, given) if model.config._attn_implementation in NAMES else None


def _refusing_end(end: Callable[..., Any]) -> Callable[..., Any]:
    """The end of a model's construction: all its modules are there to be asked whether they call an implementation."""

    @wraps(end)
    def post_init(self: Any, *args: Any, **options: Any) -> Any:
        _refuse_own(self, self.config._attn_implementation)
        return end(self, *args, **options)

    return post_init


def _all_or_nothing(choose: Callable[..., Any]) -> Callable[..., Any]:
    """The choice for a model and those inside it, which changes none of them where one of them is refused."""

    @wraps(choose)
    def set_attn_implementation(self: Any, *args: Any, **options: Any) -> Any:
        parts = list(_models(self))
        before = [part.config._attn_implementation_internal for part in parts]
        try:
            for part in parts:  # transformers skips those without registry, and tells its log
                _refuse_own(part, _asked(args, options))
                if part is not self:
                    _refuse_change(part, self, _asked(args, options))
            return choose(self, *args, **options)
        except Exception:
            for part, name in zip(parts, before, strict=True):
                part.config._attn_implementation_internal = name
            raise

    return set_attn_implementation


def _models(model: Any) -> Iterator[Any]:
    from transformers import PreTrainedModel

    return (part for part in model.modules() if isinstance(part, PreTrainedModel))


def _asked(args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return next(iter(args or options.values()), None)


def _refuse_change(part: Any, model: Any, name: Any) -> None:
    """Refuse another attention for a whole model of which a part was krausified: it would drop the part's rule.

    Raises:
        UnsupportedModel: Naming the part.
    """
    if isinstance(name, str) and name not in (KRAUSE, SOFTMAX) and getattr(type(part), "remembers_attention", False):
        raise UnsupportedModel(
            f"{type(model).__name__} holds a {type(part).__name__}, whose rule attn_implementation={name!r} would drop"
            "; name the other parts ({'vision_config': ...}), or kd.unkrausify the part"
        )


def _refuse_own(model: Any, name: Any) -> None:
    """Refuse our name for a model which has attention code of its own.

    Raises:
        UnsupportedModel: Naming what has it.
    """
    own = own_attention(model) if isinstance(name, str) and name in NAMES else None
    if own is None:
        return
    who = type(model).__name__
    part = "" if own == who else f" in a part of it ({own})"
    others = (
        "; for the parts that have none: attn_implementation={'text_config': ...}" if model.config.sub_configs else ""
    )
    raise UnsupportedModel(
        f"{who} has attention code of its own{part}, outside the attention registry of transformers, so that "
        f"attn_implementation={name!r} would change nothing there; put nn.KrauseAttention in its place{others}"
    )
