"""What a compiled pass is told of padding: a compiler cannot look at the values of a mask. Forward pre-hooks."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Cache

PADDING = "krause_padding"  # keyword by which a mask (batch, tokens) goes on to the Krause branches


def say_unpadded(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Hand a pass that is compiled without cache a mask of ones where it has none.

    Without one transformers looks for packed rows in the positions. A compiler cannot see that there are none, so that
    the mask of pairs would be written out.

    Raises:
        TypeError: A cache of another kind.
    """
    check_cache(given.get("past_key_values"))
    tokens = args[0] if args else given.get("input_ids")
    cached = given.get("use_cache")
    cached = getattr(model.config, "use_cache", False) if cached is None else cached
    told = any(given.get(name) is not None for name in ("attention_mask", "position_ids", "past_key_values"))
    if not torch.compiler.is_compiling() or told or cached or len(args) > 1 or tokens is None:
        return None
    return args, {**given, "attention_mask": torch.ones_like(tokens, dtype=torch.bool)}


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
    """Tell the branches of a pass that is compiled which tokens are padding."""
    args, given = say_unpadded(model, args, given) or (args, given)
    mask = given.get("attention_mask")
    if not torch.compiler.is_compiling() or mask is None or mask.ndim != 2:
        return None
    return args, {**given, PADDING: mask}
