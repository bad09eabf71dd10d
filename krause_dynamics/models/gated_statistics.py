"""Attention of gated models branch by branch: each against what it can reach, and the two as the gate weighs them.

A branch that hears a window has the first token out of reach of most queries, so that no sink can show in a mean over
all of them. What is told of each branch are therefore both published scores (``importance_first`` over the queries that
the index rules let see the first token, ``published_importance_first`` and ``first_token_score`` over all), each beside
what even attention within the same reach would give.

Mixed is, for every query i and head h,  g_i A_i + (1 - g_i) B_i  with the gate's share g_i of softmax attention A: the
share of what reaches the token that stems from each key, as long as values are of one size. Heads of one number are put
together, which is a convention: the two branches have projections of their own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._arguments import COUNT, Maybe, reads
from krause_dynamics._array import to_numpy
from krause_dynamics.aggregate import blocks
from krause_dynamics.checkpoints import capture, labelled, measures_of_attention, own_attention
from krause_dynamics.checkpoints.analyze import EPS, increasing
from krause_dynamics.checkpoints.attention_call import AttentionCall
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.checkpoints.measures import Measuring
from krause_dynamics.checkpoints.record import describe
from krause_dynamics.checkpoints.relative_depth import sink_share
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.interaction import DotProduct, Request
from krause_dynamics.models.gated_record import gates
from krause_dynamics.models.gated_sums import Seen, statistics_of_block

if TYPE_CHECKING:
    import xarray

EVEN = {
    "even_importance_first": "alpha_0 of even attention within the same reach",
    "even_first_token_score": "first-token score of even attention within the same reach",
}


@reads(
    sequence_length=Maybe(COUNT),
    max_sequences=Maybe(COUNT),
    min_queries=COUNT,
    batch_size=COUNT,
)
def branch_statistics(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    sequence_length: int | None = None,
    max_sequences: int | None = None,
    eps: Sequence[float] = EPS,
    min_queries: int = 8,
    batch_size: int = 8,
    progress: bool | Callable[[int, int], None] = False,
    **options: Any,
) -> xarray.Dataset:
    """Statistics of attention for each branch of a gated model, and for both as its gate weighs them.

    Args:
        model: With a Krause branch (`add_krause_branch`, adapters of it) or a gate (``KrauseLM``); any other model that
            ``kd.analyze`` takes has one branch in each block, softmax or Krause, and the same numbers, beside those of
            even attention.
        inputs: As of ``kd.analyze``.
        tokenizer: Instead of the checkpoint's own.
        sequence_length: Cut text into consecutive sequences of this many tokens.
        max_sequences: Keep only the first ones.
        eps: Thresholds of the sink rate.
        min_queries: A key needs that many queries to be a strongest key.
        batch_size: Sequences per forward pass.
        progress: ``True`` draws a progress bar; or a function ``progress(sequences done, all sequences)``.
        **options: Further ones of ``kd.analyze`` that load a model or cut inputs: ``dtype``, ``part``, ``device``,
            ``trust_remote_code``, ``truncate``, ``pad_token``, ``blocks``.

    Returns:
        Dataset over a first dimension ``branch`` (softmax, krause, mixed; or those there are, NaN in the blocks of the
        other) with the measures of attention of ``kd.analyze``, over (sequence, block, head);
        ``even_importance_first`` and ``even_first_token_score``, the two sink scores of attention that is even within
        the branch's reach; ``gate`` and ``gate_spread`` (branch, sequence, block): mean over tokens and standard
        deviation of the gate's share; ``sink_rate`` (branch, block, head, eps). Time O(T^2) a layer, memory O(T).

    Raises:
        UnsupportedModel: Attention that cannot be recorded faithfully.
        ValueError: Bad inputs.
    """
    import xarray

    bounds = increasing("eps", eps, 1.0)
    run = Passes.of(
        model, inputs, tokenizer=tokenizer, attention=None, batch_size=batch_size, min_queries=min_queries,
        progress=progress, sequence_length=sequence_length, max_sequences=max_sequences, **options,
    )  # fmt: skip
    kept: dict[str, dict[str, np.ndarray]] = {}
    for members, batch in run.batches():
        for branch, arrays in _branches(run, batch).items():
            for name, values in arrays.items():
                whole = kept.setdefault(branch, {}).setdefault(
                    name, np.empty((len(run.inputs), *values.shape[1:]), values.dtype)
                )
                whole[members] = values
    meta = describe(run) | {"min_queries": min_queries, "attention_tier": "statistics", "attention_branch": "each"}
    meta["attention_path"] = "krause" if own_attention.is_ours(run.checkpoint.backbone) else "registry"
    found = [_dataset(arrays, bounds, meta) for arrays in kept.values()]
    joined = xarray.concat(found, "branch", data_vars="all", coords="minimal", compat="override", join="exact")
    joined["length"] = ("sequence", run.inputs.lengths, {"long_name": "tokens of the sequence"})
    return joined.assign_coords(branch=list(kept)).assign_attrs(meta=json.dumps(meta, sort_keys=True))


def _dataset(arrays: dict[str, np.ndarray], eps: np.ndarray, meta: dict[str, Any]) -> xarray.Dataset:
    found = labelled.dataset(measures_of_attention.MEASURES, arrays, {}, meta)
    for name, words in EVEN.items():
        found[name] = (("sequence", "block", "head"), arrays[name], {"long_name": words})
    found["gate"] = (("sequence", "block"), arrays["gate"], {"long_name": "mean share that the gate gives the branch"})
    words = "standard deviation of that share over tokens"
    found["gate_spread"] = (("sequence", "block"), arrays["gate_spread"], {"long_name": words})
    found = found.assign_coords(eps=eps)
    share = sink_share(found)
    return found.assign(sink_rate=share.mean("sequence", skipna=False).assign_attrs(share.attrs))


@dataclass
class _Heard:
    """What one block was seen to do: its calls in order, and the shares (b, T, 2) of its gate."""

    calls: list[Seen] = field(default_factory=list)
    share: Tensor | None = None


class _Watcher:
    """Is told of the calls of a pass, and answers for a block when it has ended."""

    def __init__(self, min_queries: int) -> None:
        self.min_queries = min_queries
        self.heard = _Heard()
        self.blocks = 0
        self.found: dict[str, dict[int, tuple[HeadStatistics, dict[str, Tensor]]]] = {}

    def state(self, layer: int, tokens: Tensor) -> None:
        """The end of a block."""
        heard, self.heard = self.heard, _Heard()
        if layer == 0:
            return
        wanted = 1 if heard.share is None else 2
        if len(heard.calls) != wanted:
            raise UnsupportedModel(
                f"block {layer} made {len(heard.calls)} calls of attention where {wanted} "
                f"{'is' if wanted == 1 else 'are'} expected, so its statistics would be missing or mixed"
            )
        single = "krause" if heard.calls[0].distance else "softmax"
        names = [single] if heard.share is None else ["softmax", "krause"]
        self.blocks = layer
        for name, told in statistics_of_block(heard.calls, heard.share, names, self.min_queries).items():
            self.found.setdefault(name, {})[layer] = told

    def call(self, block: int, call: Call) -> None:
        """A call of a rule of ours."""
        self.heard.calls.append(Seen(*own_attention.lifted(call), call.reach.right == 0, call.distance))

    def attention(self, block: int, found: Any) -> None:
        """Nothing: the calls are told of."""

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """(b, blocks, ...) by branch and name; NaN where a block has not that branch."""
        return {name: self._of_branch(told) for name, told in self.found.items()}

    def _of_branch(self, told: dict[int, tuple[HeadStatistics, dict[str, Tensor]]]) -> dict[str, np.ndarray]:
        some, beside = next(iter(told.values()))
        nothing = some.nothing(), {key: torch.full_like(values, torch.nan) for key, values in beside.items()}
        layers, more = Measuring(_MEASURES, np.empty(0)), []
        for block in range(1, self.blocks + 1):
            found, further = told.get(block, nothing)
            layers.attention(block, found)
            more.append(further)
        return layers.arrays() | {key: np.stack([to_numpy(x[key].float()) for x in more], 1) for key in beside}


_MEASURES = tuple(measure for measure in measures_of_attention.MEASURES if not measure.extra)


def _branches(run: Passes, batch: Any) -> dict[str, dict[str, np.ndarray]]:
    """One forward pass."""
    model = run.checkpoint.backbone
    ours = own_attention.is_ours(model)
    watcher = _Watcher(run.min_queries)
    with run.watching(watcher) as watch, ExitStack() as stack:
        stack.enter_context(own_attention.listening(lambda: watch.stream.block, watcher.call))
        if not ours:
            reason = capture.refusal(model)
            if reason is not None:
                raise UnsupportedModel(f"attention cannot be recorded: {reason}")
            stack.enter_context(capture.recording(model, _Recorder(watcher, lambda: watch.stream.block)))
        for gate in gates(model):
            stack.callback(gate.register_forward_pre_hook(lambda m, both: _shared(watcher, m.share(*both))).remove)
        run.run(model, batch)
    watch.stream.check(run.expected)
    return watcher.arrays()


def _shared(watcher: _Watcher, share: Tensor) -> None:
    watcher.heard.share = share


class _Recorder(capture.AttentionRecorder):
    """Keeps the rule and the arrays of softmax attention beside its answer."""

    def __init__(self, watcher: _Watcher, running: Callable[[], int | None]) -> None:
        super().__init__(running, lambda block, found: None)
        self.watcher = watcher

    def attention(
        self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        """Attention of one module, with its call kept."""
        for name in ("softcap", "s_aux"):
            if options.get(name) is not None:
                raise UnsupportedModel(f"{type(module).__name__} attends with {name}; kd.analyze takes it")
        capture.check_options(module, query, key, mask, options)
        call = AttentionCall.of(mask, options.get("position_bias"), query.shape[2], query.device)
        exact, group = torch.promote_types(query.dtype, torch.float32), query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
        scaling = options.get("scaling")
        rule = call.rule(DotProduct(query.shape[-1] ** -0.5 if scaling is None else scaling))
        request = Request.of(query.to(exact), keys.to(exact))
        if self.running_block() is not None:
            self.watcher.heard.calls.append(Seen(rule, request, call.causal, distance=False))
        output = value.new_zeros((*query.shape[:-1], value.shape[-1]))
        for block in blocks(rule, request):
            for columns, part in block.pieces():
                output[:, :, block.rows] += part.to(value.dtype) @ values[:, :, columns]
        return output.transpose(1, 2).contiguous(), None
