"""Attention of a layer of transformers by a rule: the model's own mask is joined with it, its options are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention import definition
from krause_dynamics.forms.attention.call import NEVER, Call, score_dtype
from krause_dynamics.interaction.reach import UNBOUNDED, Reach
from krause_dynamics.nn.arguments import call_of
from krause_dynamics.nn.attention import answer
from krause_dynamics.nn.first_tokens import beside_of
from krause_dynamics.nn.huggingface import options as table
from krause_dynamics.nn.huggingface.first_tokens import check_visible, drawn
from krause_dynamics.nn.huggingface.mask_functions import IndexRule
from krause_dynamics.nn.huggingface.masks import PairMask
from krause_dynamics.nn.huggingface.rules import LayerRule
from krause_dynamics.nn.sparse import dense, weights_of

SERVED = frozenset(table.MEANINGS)
WAY_OUT = "load the model with attn_implementation='eager'"


def attend(
    rule: LayerRule,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    options: dict[str, Any],
    impl: str = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Queries (b, h, n, d), keys and values (b, h_kv, m, d) of a layer -> (b, n, h, d_v), and its weights if asked for.

    Raises:
        UnsupportedModel: An option or a mask that cannot be kept.
    """
    table.check(module, options, SERVED, WAY_OUT)
    if query.shape[0] == 1 != key.shape[0]:
        query = query.expand(key.shape[0], -1, -1, -1)
    call = _call(rule, module, query, key, value, attention_mask, options, impl)
    softcap, sinks = options.get("softcap"), options.get("s_aux")
    asked = _weights_asked(options)
    if softcap is not None:
        out, log_partition, weights = _capped(call, module, float(softcap), asked)
    else:
        out, log_partition = answer(call, impl)
        weights = dense(*weights_of(call), call.k.shape[2]) if asked else None
    if sinks is not None:
        share = _share(log_partition, sinks, module)
        out = out * share.to(out.dtype)
        weights = None if weights is None else weights * share.to(weights.dtype)
    # Rows that were laid one behind the other are apart again.
    return out.transpose(1, 2).reshape(query.shape[0], query.shape[2], query.shape[1], -1), weights


def _call(
    rule: LayerRule, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, options: Any, impl: str
) -> Call:
    """The model's mask and the rule, joined, as a call."""
    causal = options.get("is_causal")
    causal = table.is_causal(module) if causal is None else bool(causal)
    bias = options.get("position_bias")
    n, m, pairs = query.shape[2], key.shape[2], None
    if isinstance(mask, PairMask) and mask.rule.rows > 1 and _is_by_pairs(options):
        given, pairs = IndexRule(), _written(mask.write(), n, m, score_dtype(query))
    elif isinstance(mask, PairMask | IndexRule):
        given = mask.rule if isinstance(mask, PairMask) else mask
    elif mask is None:
        given = _unmasked(module, causal, n, m)
    else:
        given, pairs = IndexRule(), _written(mask, n, m, score_dtype(query))
    if rule.segments is not None and given.segments is not None:
        raise UnsupportedModel(f"{type(module).__name__} packs sequences, and so does its rule; leave one of them out")
    if rule.compares_places and not causal and (n != m or given.offset):
        raise UnsupportedModel(
            f"{type(module).__name__} attends from {n} queries to {m} keys that are not its past: a window or a grid "
            f"compares places, which they do not share; {WAY_OUT}, or leave this layer out of kd.krausify(layers=)"
        )
    beside, segments = None, given.segments if rule.segments is None else rule.segments
    if rule.reach.first:
        check_visible(rule, given, pairs, module, options.get("sliding_window"))
        if pairs is None:
            offset = m - n if given.offset is None else given.offset
            beside = beside_of(rule.reach, (n * given.rows, m * given.rows), offset, given.key_valid, segments)
        else:
            rule, pairs = drawn(rule, pairs, n)
    if pairs is not None:
        if causal and n != m:
            rule, pairs = _with_window(rule, pairs)
        bias = pairs if bias is None else bias + pairs
    if given.rows > 1:
        query, key, value = (x.transpose(0, 1).flatten(1, 2)[None] for x in (query, key, value))
        given = given._replace(key_valid=None if given.key_valid is None else given.key_valid.reshape(1, -1))
    bandwidth = rule.bandwidth(module)
    if rule.score == "dot" and set(bandwidth.values()) == {None}:
        bandwidth = {"scale": options.get("scaling")}
    call = call_of(
        query, key, value, rule.reach.joined(given.reach), segments,
        score=rule.score, pair_bias=bias, key_valid=given.key_valid, query_offset=given.offset,
        dropout=options.get("dropout") or 0.0, mean_only=options.get("s_aux") is None, **bandwidth,
    )  # fmt: skip
    return call if beside is None else call._replace(beside=beside)


def _is_by_pairs(options: Any) -> bool:
    """Whether a call asks for something that has an entry for each pair of a row."""
    return options.get("position_bias") is not None or options.get("softcap") is not None or _weights_asked(options)


def _unmasked(module: nn.Module, causal: bool, n: int, m: int) -> IndexRule:
    """What a model means that passes no mask: everyone, or the past where its attention is causal.

    Raises:
        UnsupportedModel: Several causal queries and another number of keys: their places are not told.
    """
    if not causal or n == 1:
        return IndexRule()
    if n != m:
        raise UnsupportedModel(
            f"{type(module).__name__} passed no mask for {n} causal queries and {m} keys: where the queries stand "
            f"is not told; {WAY_OUT}"
        )
    return IndexRule(Reach(right=0))


def _written(mask: Any, n: int, m: int, dtype: torch.dtype) -> Tensor:
    """A mask that is written out, as log-weights of pairs.

    Raises:
        UnsupportedModel: Not a mask of pairs.
    """
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.shape[3] != m or mask.shape[2] not in (1, n):
        what = tuple(mask.shape) if hasattr(mask, "shape") else type(mask).__name__
        raise UnsupportedModel(f"the attention mask must broadcast to (batch, heads, {n}, {m}), got {what}; {WAY_OUT}")
    if mask.dtype == torch.bool:
        return torch.where(mask, 0.0, NEVER).to(dtype)
    # Numbers to add; the smallest of the dtype stands for never.
    return mask.masked_fill(mask <= torch.finfo(mask.dtype).min / 2, NEVER).to(dtype)


def _with_window(rule: LayerRule, pairs: Tensor) -> tuple[LayerRule, Tensor]:
    """The window of the rule drawn into the pairs.

    Where queries are not the keys (a static cache that is compiled, or a mask of the caller) the place of a causal
    query is that of its last key.
    """
    if rule.reach.left == UNBOUNDED:
        return rule, pairs
    key = torch.arange(pairs.shape[-1], device=pairs.device)
    last = torch.where(pairs > NEVER, key, -1).amax(-1, keepdim=True)
    reach = rule.reach._replace(left=UNBOUNDED, right=UNBOUNDED)
    return rule._replace(reach=reach), pairs.masked_fill(key < last - rule.reach.left, NEVER)


def _capped(call: Call, module: nn.Module, cap: float, asked: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """The call with soft-capped scores, by the definition: fused kernels know no such score; all pairs are in memory.

    Raises:
        UnsupportedModel: With dropout, which is not part of the definition.
    """
    if call.dropout:
        raise UnsupportedModel(
            f"{type(module).__name__} has soft-capped scores, which are computed without dropout, got "
            f"{call.dropout}; set the model's attention_dropout to 0, or call eval()"
        )
    mean, log_partition, weights = definition.attend_capped(call, cap, weights=asked)
    return mean, log_partition, weights if asked else None


def _share(log_partition: Tensor, sinks: Tensor, module: nn.Module) -> Tensor:
    """The part of the mass which a learned sink leaves to the keys: ``Z / (Z + exp sink)``, (b, h, n, 1).

    Raises:
        UnsupportedModel: Not one logit a head.
    """
    if sinks.numel() != log_partition.shape[1]:
        raise UnsupportedModel(
            f"{type(module).__name__} passes sinks of shape {tuple(sinks.shape)}, not one for each of its "
            f"{log_partition.shape[1]} heads; {WAY_OUT}"
        )
    return torch.sigmoid(log_partition - sinks.reshape(1, -1, 1).to(log_partition.dtype))[..., None]


def _weights_asked(options: dict[str, Any]) -> bool:
    """Whether this call's weights are wanted: the layer was told, or transformers collects them from its hooks.

    The second serves the families that do not hand the flag on to their layers (GPT-2, OPT).
    """
    if options.get("output_attentions"):
        return True
    from transformers.utils.output_capturing import _active_collector

    # A context variable cannot be read while compiling; transformers keeps a global one beside it for then.
    collected = _active_collector.global_var if torch.compiler.is_compiling() else _active_collector.get()
    return collected is not None and any("attentions" in name for name in collected)
