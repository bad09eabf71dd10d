"""What a pass is told of padding that may not look at the values of a mask: one that is compiled or captured.

Forward pre-hooks. Without them a mask of all pairs is written out, which no kernel takes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from krause_dynamics._array import is_captured
from krause_dynamics.nn.huggingface.masks import say_everyone

PADDING = "krause_padding"  # keyword by which a mask (batch, tokens) goes on to the Krause branches; None: no padding


def say_unpadded(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Hand a pass without cache that is compiled or captured a mask of ones where it has none.

    Without one transformers looks for packed rows in the positions. Where it cannot see that there are none, the mask
    of pairs would be written out.

    Raises:
        TypeError: A cache of another kind.
    """
    check_cache(given.get("past_key_values"))
    tokens = args[0] if args else given.get("input_ids")
    if tokens is None and isinstance(vectors := given.get("inputs_embeds"), Tensor):
        tokens = vectors[..., 0]
    told = any(given.get(name) is not None for name in ("attention_mask", "position_ids", "past_key_values"))
    if not _is_traced() or told or _has_cache(model, given) or len(args) > 1 or tokens is None:
        return None
    return args, {**given, "attention_mask": say_everyone(torch.ones_like(tokens, dtype=torch.bool))}


def _is_traced() -> bool:
    """Whether what is computed now runs again with other values."""
    return torch.compiler.is_compiling() or is_captured()


def _has_cache(model: Any, given: dict[str, Any]) -> bool:
    if given.get("past_key_values") is not None:
        return True
    cached = given.get("use_cache")
    return bool(getattr(model.config, "use_cache", False) if cached is None else cached)


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
    mask = given.get("attention_mask")
    # Beside a cache transformers takes rows to be whole; without one, positions may tell of packed ones.
    whole = _has_cache(model, given) and (given.get("position_ids") is None or given.get("past_key_values") is not None)
    known = mask.ndim == 2 if isinstance(mask, Tensor) else mask is None and whole
    if not _is_traced() or not known or len(args) > 1:
        return None
    return args, {**given, PADDING: mask}
