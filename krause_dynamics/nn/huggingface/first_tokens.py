"""First tokens that stay visible beside a window, under a mask of the model that may hide them or is written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import NEVER
from krause_dynamics.interaction.reach import UNBOUNDED
from krause_dynamics.nn.huggingface.mask_functions import IndexRule
from krause_dynamics.nn.huggingface.rules import LayerRule


def check_visible(rule: LayerRule, given: IndexRule, pairs: Tensor | None, module: nn.Module, sliding: Any) -> None:
    """The model's own window does not hide the first tokens that the rule keeps.

    Raises:
        UnsupportedModel: It does, or a mask that is written out may hold such a window.
    """
    own = "" if given.reach.left == UNBOUNDED else f", {given.reach.left + 1} keys"
    narrow = bool(own) or given.chunked
    if pairs is not None:
        narrow = narrow or sliding is not None or getattr(module.config, "attention_chunk_size", None) is not None
    if narrow:
        raise UnsupportedModel(
            f"{type(module).__name__} has a window of its own{own}, which hides the {rule.reach.first} first tokens "
            "that the rule keeps; leave out prefix_tokens, or this layer (layers=)"
        )


def own_window(part: nn.Module) -> int | None:
    """Keys of the window that an attention module has of its own, as far as it or its configuration tells.

    Args:
        part: An attention module.
    """
    config: Any = part.config
    kinds, index = getattr(config, "layer_types", None), getattr(part, "layer_idx", None)
    kind = kinds[index] if kinds is not None and index is not None and index < len(kinds) else None
    if kind == "chunked_attention":
        return getattr(config, "attention_chunk_size", None)
    if kind not in (None, "sliding_attention"):
        return None
    return getattr(part, "sliding_window", getattr(config, "sliding_window", None))


def drawn(rule: LayerRule, pairs: Tensor, n: int) -> tuple[LayerRule, Tensor]:
    """The rule without its window, and pairs that hold it: near keys, and the first ones of the query's own sequence.

    Args:
        rule: With first tokens beside a window.
        pairs: The model's mask as log-weights (batch, heads or 1, n, m).
        n: Number of queries.
    """
    right = rule.reach.right
    key, visible = torch.arange(pairs.shape[-1], device=pairs.device), pairs > NEVER
    start = visible.int().argmax(-1, keepdim=True)
    query = torch.where(visible, key, -1).amax(-1, keepdim=True) if right == 0 else key[:n, None]
    first, end = rule.reach._replace(first=0).interval(query, pairs.shape[-1])
    heard = ((key >= first) & (key < end)) | ((key >= start) & (key < start + rule.reach.first))
    reach = rule.reach._replace(left=UNBOUNDED, right=0 if right == 0 else UNBOUNDED, first=0)
    return rule._replace(reach=reach), torch.where(heard, pairs, NEVER)
