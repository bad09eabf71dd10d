"""Where the bandwidth of a krausified layer starts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from krause_dynamics.checkpoints.capture import attention_implementation
from krause_dynamics.nn.huggingface.attend import attend
from krause_dynamics.nn.huggingface.masks import PairMask, pair_mask
from krause_dynamics.nn.huggingface.rules import LayerRule

_NAME = "krause_dynamics_norms"


def head_count(part: nn.Module, config: Any) -> int:
    """Number of query heads of an attention module; where stages or layers differ, the module's own number."""
    for name in ("num_heads", "num_attention_heads", "n_heads", "n_head"):
        count = getattr(part, name, None)
        if isinstance(count, int):
            return count
    return int(config.num_attention_heads)


def head_size(part: nn.Module, config: Any) -> int:
    """Dimension of a head."""
    for name in ("head_dim", "attention_head_size", "qk_head_dim"):
        size = getattr(part, name, None) or getattr(config, name, None)
        if isinstance(size, int):
            return size
    return int(config.hidden_size) // head_count(part, config)


def starting_sigmas(model: Any, parts: list[nn.Module], sample: Any, per_head: bool) -> list[Any]:
    """``sigma^2 = mean |k|^2 / sqrt(d)``, over the keys of one pass with the model's own attention.

    Exponents ``|k|^2 / (2 sigma^2)`` then are sqrt(d)/2 on average, as with d^(1/4) and keys of mean square 1 an entry,
    whatever the scale of the trained keys is. Padding is left out.

    Args:
        model: The model.
        parts: Its attention modules.
        sample: Input of the pass, a tensor or a dictionary.
        per_head: One number per query head, of the keys that it hears, rather than one a layer.

    Returns:
        Bandwidths, one a part: numbers, or (heads,) tensors.

    Raises:
        ValueError: A module that the pass did not reach.
    """
    found: dict[int, Tensor] = {}

    def measured(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, **options: Any) -> Any:
        squares = k.detach().double().square().sum(-1)  # (b, h, m)
        valid = mask.rule.key_valid if isinstance(mask, PairMask) else None
        there = torch.ones_like(squares) if valid is None else valid[:, None].expand_as(squares).double()
        mean = (squares * there).sum((0, 2)) / there.sum((0, 2))
        group = q.shape[1] // k.shape[1]
        found[id(module)] = (mean / k.shape[-1] ** 0.5).sqrt().repeat_interleave(group)
        return attend(LayerRule(), module, q, k, v, mask, options)

    AttentionInterface.register(_NAME, measured)
    AttentionMaskInterface.register(_NAME, pair_mask)
    given = sample if hasattr(sample, "keys") else {model.main_input_name: sample}
    with torch.no_grad(), attention_implementation(model, _NAME):
        model(**given)
    lost = [type(part).__name__ for part in parts if id(part) not in found]
    if lost:
        raise ValueError(f"sample must reach every chosen layer, but {lost[0]} was not called; give sigma instead")
    values = [found[id(part)] for part in parts]
    return values if per_head else [float(value.square().mean().sqrt()) for value in values]
