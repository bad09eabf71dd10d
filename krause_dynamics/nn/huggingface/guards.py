"""Doors of transformers by which a model with our attention could silently become, or be saved as, another one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import wraps
from typing import Any

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.nn.huggingface.refusals import (
    NAMES,
    OWN,
    is_built_by_another,
    refuse_change,
    refuse_own,
    refuse_unheard,
    refuse_without,
)
from krause_dynamics.nn.huggingface.unpadded import say_unpadded, takes_masks


def guard(base: Any) -> None:
    """Guard the class from which all models of transformers come."""
    base.save_pretrained = _remembering_save(base.save_pretrained)
    base.get_correct_attn_implementation = _refusing_choice(base.get_correct_attn_implementation)
    base.set_attn_implementation = _all_or_nothing(base.set_attn_implementation)
    base.post_init = _refusing_end(base.post_init)


def _remembering_save(save: Callable[..., Any]) -> Callable[..., Any]:
    """Saving that keeps the rules of parts, and warns of an attention by name, which a file does not know."""

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
        with _keeping(self):
            return save(self, *args, **options)

    return save_pretrained


def _forgotten(model: Any) -> str | None:
    """The attention of ours in a model or a part of it, which its folder will not say; or ``None``."""
    if str(type(model.config).model_type).startswith(OWN):
        return None
    configs = [model.config, *(getattr(model.config, name, None) for name in model.config.sub_configs)]
    names = (getattr(config, "_attn_implementation", None) for config in configs)
    return next((name for name in names if name in NAMES), None)


def _keeping(model: Any) -> Any:
    """What a class of ours in a model asks for while the model is saved."""
    if getattr(type(model), "remembers_attention", False):
        return nullcontext()
    keeps = (part.kept_within for part in model.modules() if hasattr(type(part), "kept_within"))
    keep = next(keeps, None)
    return nullcontext() if keep is None else keep(model)


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
        refuse_own(self, _asked(args, options))
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
        name = self.config._attn_implementation
        refuse_own(self, name)
        if name in NAMES and not is_built_by_another(self):
            refuse_without(self, name)
        return end(self, *args, **options)

    return post_init


def _all_or_nothing(choose: Callable[..., Any]) -> Callable[..., Any]:
    """The choice for a model and those inside it, which changes none of them where one of them is refused."""

    @wraps(choose)
    def set_attn_implementation(self: Any, *args: Any, **options: Any) -> Any:
        parts = list(_models(self))
        before = [part.config._attn_implementation_internal for part in parts]
        try:
            asked = _asked(args, options)
            for part in parts:  # transformers skips those without registry, and tells its log
                refuse_own(part, asked)
                if part is not self:
                    refuse_change(part, self, asked)
                    refuse_without(part, _asked_by_name(asked, self.config, part.config))
            refuse_without(self, asked)
            chosen = choose(self, *args, **options)
            for part in parts:
                refuse_unheard(part)
            return chosen
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


def _asked_by_name(asked: Any, whole: Any, config: Any) -> Any:
    """What a dictionary asks of the model with this configuration; ``None``: it does not name that one."""
    if not isinstance(asked, dict):
        return None
    return next((value for name, value in asked.items() if name and getattr(whole, name, None) is config), None)
