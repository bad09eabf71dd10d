"""One attention call of a trained model, computed together with the sums over its weights: never a list of maps.

A call is an interaction: its score is ``scaling <q, k>`` (or soft-capped), its mask a neighbourhood (or, of another
shape, a pair bias). On the CPU one compiled pass gives output and sums (`forms.attention.sums`), on a GPU the fused
kernels and two more (`device_pass`); for rules of another kind the weights come from the package's one
definition in blocks of rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.aggregate import Block, RowSums, blocks
from krause_dynamics.checkpoints.attention_call import AttentionCall, quarters
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, WeightSums, by_distance, summary
from krause_dynamics.checkpoints.sampled_rows import sampled_rows
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention import sums as fused
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.softcap import SoftCapped
from krause_dynamics.interaction import DotProduct, Interaction, Request
from krause_dynamics.interaction.reach import Reach


def attend(*given: Any, **named: Any) -> tuple[Tensor, HeadStatistics]:
    """Output and statistics of `attend_later`, at once."""
    output, statistics = attend_later(*given, **named)
    return output, statistics()


def attend_later(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    *,
    softcap: float | None = None,
    bias: Tensor | None = None,
    sink: Tensor | None = None,
    min_queries: int = 8,
    keep_weights: bool = False,
    sink_only: bool = False,
    read: Callable[..., AttentionCall] = AttentionCall.of,
) -> tuple[Tensor, Callable[[], HeadStatistics]]:
    """Softmax attention with its statistics; scores and softmax in float32 or better.

    On a GPU the statistics are launched when they are called for: after the rest of a block they queue up behind its
    matrix products, while a GPU that had nothing else to do would wait for the host between their many small steps.

    Args:
        query: (batch, heads, T, d).
        key: (batch, key heads, T, d), key heads dividing heads.
        value: (batch, key heads, T, dv).
        mask: True (or 0) where a key is admitted, False (or a hugely negative number) where it is not, broadcasting
            against (batch, heads, T, T); None admits every key.
        scaling: Multiplies the scores; None = d^(-1/2).
        softcap: c in  c tanh(score / c).
        bias: Added to the scores, broadcasting against (batch, heads, T, T).
        sink: Learned logits (heads,), each a term exp(sink) of the denominator without a key.
        min_queries: Keys with fewer queries are left out of ``strongest_key``.
        keep_weights: Also return A, which costs O(T^2) memory.
        sink_only: On a GPU only the log-partition, the first four keys, the four that the sampled rows hear most, and
            those rows are looked at, which costs O(T); other importances, entropy and distances are NaN. On the CPU,
            where all of it costs as much as attention alone, it changes nothing.
        read: How a mask is read; who attends many times with one mask may remember.

    Returns:
        Output (batch, heads, T, dv) in the dtype of ``value``, and a function without arguments that answers the
        statistics, to be called before anything changes the queries or keys in place.
    """
    beta = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = read(mask, bias, query.shape[2], query.device)
    reach = call.neighbourhood.reach
    assert isinstance(reach, Reach)
    as_call = Call(query, key, value, beta, False, reach, pair_bias=call.pair_bias)
    with torch.no_grad():
        if fused.serves(as_call) is None:
            output, found = _in_one_pass(as_call, softcap, sink, keep_weights)
        elif softcap is None and sink is None and not keep_weights and (device := _device_pass(as_call)) is not None:
            output, log_partition = device.mean_and_log_partition(as_call)
            sums = partial(device.some_keys if sink_only else device.all_keys, as_call, log_partition)
            return output, partial(
                _summary_of, call, partial(_of_unchanged, as_call, _versions(as_call), sums), min_queries
            )
        else:
            score = DotProduct(beta) if softcap is None else SoftCapped(DotProduct(beta), softcap)
            output, found = _by_blocks(call.rule(score), query, key, value, sink, keep_weights)
        return output, partial(_summary_of, call, lambda: found, min_queries)


def _summary_of(call: AttentionCall, sums: Callable[[], WeightSums], min_queries: int) -> HeadStatistics:
    with torch.no_grad():
        return summary(call, sums(), min_queries)


def _of_unchanged(call: Call, before: tuple[int, ...], sums: Callable[[], WeightSums]) -> WeightSums:
    if _versions(call) != before:
        raise UnsupportedModel(
            "the model changes queries or keys in place after their attention, so that its weights are gone when they "
            "are summed; pass attention=None for the hidden states alone"
        )
    return sums()


def _versions(call: Call) -> tuple[int, ...]:
    """How often queries and keys were changed in place; tensors of inference mode do not count."""
    return () if call.q.is_inference() or call.k.is_inference() else (call.q._version, call.k._version)


def _device_pass(call: Call) -> Any:
    """The pass of a GPU where it serves a call, else ``None``; only there are its kernels loaded."""
    if call.q.device.type == "cpu":
        return None
    device_pass = importlib.import_module("krause_dynamics.checkpoints.device_pass")
    return device_pass if device_pass.serves(call) is None else None


def _in_one_pass(
    call: Call, softcap: float | None, sink: Tensor | None, keep_weights: bool
) -> tuple[Tensor, WeightSums]:
    kept = Kept(call.q, keep_weights)
    found = fused.attend(
        call,
        fused.Wanted(
            groups=quarters(call.q.shape[2]),
            profile=True,
            sink=sink,
            curve=None if softcap is None else partial(_cap, softcap),
            seen=kept.add,
        ),
    )
    assert found.mean is not None
    assert found.profile is not None
    lost = torch.zeros_like(found.log_partition)
    if sink is not None:
        lost = torch.sigmoid(sink.to(lost.dtype)[:, None] - found.log_partition)
    distances = by_distance(found.profile, call.q.shape[2])
    sums = (found.received, found.entropy, found.own, *distances, kept.sampled, lost.mean(-1), kept.weights)
    return found.mean, WeightSums(*sums)


def _cap(cap: float, scores: Tensor) -> None:
    scores.div_(cap).tanh_().mul_(cap)


def _by_blocks(
    rule: Interaction, query: Tensor, key: Tensor, value: Tensor, sink: Tensor | None, keep_weights: bool
) -> tuple[Tensor, WeightSums]:
    exact = torch.promote_types(query.dtype, torch.float32)
    heads_a_key = query.shape[1] // key.shape[1]
    if heads_a_key > 1:
        key, value = key.repeat_interleave(heads_a_key, dim=1), value.repeat_interleave(heads_a_key, dim=1)
    request = Request.of(query.to(exact), key.to(exact))
    output = value.new_zeros((*query.shape[:-1], value.shape[-1]))
    kept = Kept(query, keep_weights)

    def seen(block: Block) -> Block:
        if sink is not None:
            block, share = _beside_sink(block, sink)
            kept.lost += share.sum(-1)
        for columns, part in block.pieces():
            output[:, :, block.rows] += part.to(value.dtype) @ value[:, :, columns]
        return block

    return output, summed(rule, request, kept, seen)


class Kept:
    """What is kept of the weights themselves: sampled rows, and all of them where that is asked for."""

    def __init__(self, query: Tensor, keep_weights: bool) -> None:
        (b, h, length, _), exact = query.shape, torch.promote_types(query.dtype, torch.float32)
        self.rows = sampled_rows(length)
        self.sampled = query.new_zeros((b, h, len(self.rows), length), dtype=exact)
        self.lost = query.new_zeros((b, h), dtype=exact)
        self.weights = query.new_zeros((b, h, length, length), dtype=torch.float32) if keep_weights else None

    def add(self, b: Any, h: Any, rows: slice, columns: slice, weights: Tensor) -> None:
        """Weights (..., rows, columns) of some sequences and heads."""
        first, last = torch.searchsorted(self.rows, torch.tensor([rows.start, rows.stop])).tolist()
        if last > first:
            self.sampled[b, h, first:last, columns] = weights[..., self.rows[first:last] - rows.start, :]
        if self.weights is not None:
            self.weights[b, h, rows, columns] = weights


class Summing:
    """Sums over the weights of T queries and T keys, a block of rows after the other."""

    def __init__(self, request: Request, kept: Kept) -> None:
        self.length = request.queries.shape[-2]
        self.sums = RowSums(request, groups=quarters(self.length, request.queries.device))
        self.kept = kept

    def add(self, block: Block) -> None:
        """Take in the next rows."""
        self.sums.add(block)
        for columns, part in block.pieces():
            self.kept.add(slice(None), slice(None), block.rows, columns, part)

    def finish(self) -> WeightSums:
        """The sums; call it once, after all rows."""
        found, kept = self.sums.finish(), self.kept
        bins, far = by_distance(found.profile * self.length, self.length)
        lost = kept.lost / self.length
        return WeightSums(found.received, found.entropy, found.own, bins, far, kept.sampled, lost, kept.weights)


def summed(
    rule: Interaction, request: Request, kept: Kept, seen: Callable[[Block], Block] = lambda block: block
) -> WeightSums:
    """Sums over the weights of any rule of T queries and T keys."""
    sums = Summing(request, kept)
    for block in map(seen, blocks(rule, request)):
        sums.add(block)
    return sums.finish()


def _beside_sink(block: Block, sink: Tensor) -> tuple[Block, Tensor]:
    """Rows of weights that leave their share to a learned logit, and that share (batch, heads, rows)."""
    share = torch.sigmoid(sink.to(block.weights.dtype)[:, None] - block.log_partition)
    return block._replace(weights=block.weights * (1.0 - share)[..., None]), share
