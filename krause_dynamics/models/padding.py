"""What a compiled pass is told of padding: a compiler cannot look at the values of a mask. Forward pre-hooks."""

from __future__ import annotations

from typing import Any

import torch

PADDING = "krause_padding"  # keyword by which a mask (batch, tokens) goes on to the Krause branches


def say_unpadded(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Hand a pass that is compiled without cache a mask of ones where it has none.

    Without one transformers looks for packed rows in the positions. A compiler cannot see that there are none, so that
    the mask of pairs would be written out.
    """
    tokens = args[0] if args else given.get("input_ids")
    cached = given.get("use_cache")
    cached = getattr(model.config, "use_cache", False) if cached is None else cached
    told = any(given.get(name) is not None for name in ("attention_mask", "position_ids", "past_key_values"))
    if not torch.compiler.is_compiling() or told or cached or len(args) > 1 or tokens is None:
        return None
    return args, {**given, "attention_mask": torch.ones_like(tokens, dtype=torch.bool)}


def hand_on(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Tell the branches of a pass that is compiled which tokens are padding."""
    args, given = say_unpadded(model, args, given) or (args, given)
    mask = given.get("attention_mask")
    if not torch.compiler.is_compiling() or mask is None or mask.ndim != 2:
        return None
    return args, {**given, PADDING: mask}
