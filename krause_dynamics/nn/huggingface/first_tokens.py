"""First tokens that stay visible beside a window, where rows begin with padding or hold several sequences.

The reach of a rule counts them from the first key, which is then padding or another sequence's. They are drawn into
the pairs instead, in O(n m).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics._array import may_look
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import NEVER
from krause_dynamics.interaction.reach import UNBOUNDED
from krause_dynamics.nn.huggingface.masks import IndexRule
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


def drawn(
    rule: LayerRule, given: IndexRule, pairs: Tensor | None, sizes: tuple[int, int], like: Tensor
) -> tuple[LayerRule, Tensor | None]:
    """The rule without its window, and pairs that hold it: near keys, and the first ones of the query's own sequence.

    Args:
        rule: With first tokens beside a window.
        given: The model's mask.
        pairs: Its mask as log-weights (batch, heads or 1, n, m), if it is written out.
        sizes: n, m.
        like: Queries, for dtype and device.
    """
    (n, m), valid = sizes, given.key_valid
    if pairs is None and given.segments is None and (valid is None or (may_look(valid) and bool(valid[:, 0].all()))):
        return rule, pairs
    right = rule.reach.right
    key = torch.arange(m, device=like.device)
    if pairs is not None:
        visible = pairs > NEVER
        start = visible.int().argmax(-1, keepdim=True)
        query = torch.where(visible, key, -1).amax(-1, keepdim=True) if right == 0 else key[:n, None]
    else:
        query = (torch.arange(n, device=like.device) + (m - n if given.offset is None else given.offset))[:, None]
        start = _starts(given, query)
    first, end = rule.reach._replace(first=0).interval(query, m)
    heard = ((key >= first) & (key < end)) | ((key >= start) & (key < start + rule.reach.first))
    reach = rule.reach._replace(left=UNBOUNDED, right=0 if right == 0 else UNBOUNDED, first=0)
    nothing = torch.zeros((), dtype=like.dtype, device=like.device) if pairs is None else pairs
    return rule._replace(reach=reach), torch.where(heard, nothing, NEVER)


def _starts(given: IndexRule, query: Tensor) -> Tensor:
    """The first key of each query's sequence, broadcastable to (batch, 1, n, 1)."""
    if given.segments is not None:
        edges = given.segments.to(query.device)
        return edges[torch.searchsorted(edges, query[:, 0].contiguous(), right=True) - 1][:, None]
    assert given.key_valid is not None
    return given.key_valid.int().argmax(1)[:, None, None, None]
