"""What a pass is told of padding that may not look at the values of a mask: one that is compiled or captured.

Forward pre-hooks. Without them a mask of all pairs is written out, which no kernel takes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Cache

from krause_dynamics.nn.huggingface import unpadded

PADDING = "krause_padding"  # keyword by which a mask (batch, tokens) goes on to the Krause branches; None: no padding


def say_unpadded(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """`unpadded.say_unpadded`, for models that know what their cache is.

    Raises:
        TypeError: A cache of another kind.
    """
    check_cache(given.get("past_key_values"))
    return unpadded.say_unpadded(model, args, given)


def check_cache(cache: Any) -> None:
    """A cache is one of transformers.

    Raises:
        TypeError: It is another thing, such as a cache of a layer of this package.
    """
    if cache is not None and not isinstance(cache, Cache):
        raise TypeError(
            f"past_key_values must be a Cache of transformers such as DynamicCache, got {type(cache).__name__}"
        )


def hand_on(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Tell the branches of a pass that is compiled or captured which tokens are padding, as far as that is known."""
    changed = say_unpadded(model, args, given)
    if changed is not None:
        return args, {**changed[1], PADDING: None}
    mask, cached = given.get("attention_mask"), unpadded.has_cache(model, given)
    # Beside a cache transformers takes rows to be whole; without one, positions may tell of packed ones.
    whole = cached and (given.get("position_ids") is None or given.get("past_key_values") is not None)
    known = mask.ndim == 2 if isinstance(mask, Tensor) else mask is None and whole
    if not unpadded.is_traced() or not known or len(args) > 1:
        return None
    return args, {**given, PADDING: mask}
