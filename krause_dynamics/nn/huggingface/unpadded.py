"""Passes that may not look at the values of a mask, compiled or captured ones, are told that there is no padding."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from krause_dynamics._array import is_captured
from krause_dynamics.nn.huggingface.masks import say_everyone

NEEDED = {"attention_mask", "position_ids", "past_key_values"}


def is_traced() -> bool:
    """Whether what is computed now runs again with other values."""
    return torch.compiler.is_compiling() or is_captured()


def has_cache(model: Any, given: dict[str, Any]) -> bool:
    """Whether a pass with these keywords has or makes a cache."""
    if given.get("past_key_values") is not None:
        return True
    cached = given.get("use_cache")
    return bool(getattr(model.config, "use_cache", False) if cached is None else cached)


def takes_masks(model: Any) -> bool:
    """Whether the forward pass of a model takes what `say_unpadded` reads and gives."""
    return inspect.signature(model.forward).parameters.keys() >= NEEDED


def say_unpadded(model: Any, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """Forward pre-hook: a mask of ones for a pass without cache that is compiled or captured, where it has none.

    Without one transformers looks for packed rows in the positions. Where it cannot see that there are none, the mask
    of pairs would be written out.
    """
    tokens = args[0] if args else given.get("input_ids")
    if tokens is None and isinstance(vectors := given.get("inputs_embeds"), Tensor):
        tokens = vectors[..., 0]
    told = any(given.get(name) is not None for name in NEEDED)
    if not is_traced() or told or has_cache(model, given) or len(args) > 1 or tokens is None:
        return None
    return args, {**given, "attention_mask": say_everyone(torch.ones_like(tokens, dtype=torch.bool))}
