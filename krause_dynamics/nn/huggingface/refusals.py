"""What is refused: an attention of ours where it would change nothing, or drop or leave out a rule."""

from __future__ import annotations

import sys
from typing import Any

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.nn.huggingface.own_code import asks_registry, dispatches, modules_of, own_attention

KRAUSE, SOFTMAX = "krause", "krause_softmax"
NAMES: set[str] = set()
"""Attention implementations that were registered here."""
OWN = "krause_"  # begins the model types whose classes are ours


def refuse_unheard(model: Any) -> None:
    """Refuse a choice of ours that modules do not hear of, since they hold another configuration than their model.

    Raises:
        UnsupportedModel: Naming one.
    """
    name = model.config._attn_implementation
    deaf = (m for m in modules_of(model) if dispatches(type(m)) and hasattr(m, "config"))  # type: ignore[arg-type]
    other = next((m for m in deaf if name in NAMES and m.config._attn_implementation != name), None)  # type: ignore[union-attr]
    if other is not None:
        raise UnsupportedModel(
            f"{type(other).__name__} in {type(model).__name__} holds another configuration than its model, so that it "
            f"would not hear of attn_implementation={name!r}; pass it to from_pretrained or from_config instead, or "
            "use kd.krausify on the part"
        )


def is_built_by_another(model: Any) -> bool:
    """Whether the model is made by the constructor of another one, which answers for both.

    Nothing that either of them holds says so; the constructors that are running do. A list of those that have begun
    would keep one that failed, or that never comes to `post_init`, and excuse every model after it.
    """
    from transformers import PreTrainedModel

    frame = sys._getframe(1)
    while frame is not None:
        maker = frame.f_locals.get("self") if frame.f_code.co_name == "__init__" else None
        if isinstance(maker, PreTrainedModel) and maker is not model:
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def refuse_without(model: Any, name: Any) -> None:
    """Refuse our name for a model that has no attention at all: it would be what it is without it.

    A part without attention of a model with attention is no reason: all attention that there is runs the rule.

    Raises:
        UnsupportedModel: Naming it.
    """
    if isinstance(name, str) and name in NAMES and not asks_registry(model):
        raise UnsupportedModel(
            f"{type(model).__name__} has no attention that asks the attention registry of transformers (state spaces, "
            f"recurrences and convolutions have none), so that attn_implementation={name!r} would change nothing; "
            "leave it out, or put nn.KrauseAttention where tokens are to hear each other"
        )


def refuse_change(part: Any, model: Any, name: Any) -> None:
    """Refuse another attention for a whole model of which a part was krausified: it would drop the part's rule.

    Raises:
        UnsupportedModel: Naming the part.
    """
    if isinstance(name, str) and name not in (KRAUSE, SOFTMAX) and getattr(type(part), "remembers_attention", False):
        raise UnsupportedModel(
            f"{type(model).__name__} holds a {type(part).__name__}, whose rule attn_implementation={name!r} would drop"
            "; name the other parts ({'vision_config': ...}), or kd.unkrausify the part"
        )


def refuse_own(model: Any, name: Any) -> None:
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
