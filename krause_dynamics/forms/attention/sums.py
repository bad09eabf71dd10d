"""Attention together with the sums over its weights, in one pass and O(n + m) memory, on the CPU.

A block of queries meets its keys in one matrix product; one compiled pass turns scores into weights and sums them by
row, by key and by distance; a second product makes the output. That is the work of a fused attention kernel, so that
statistics of attention cost little more than attention itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import DTYPES, Call, score_dtype
from krause_dynamics.forms.attention.cpu import by_blocks
from krause_dynamics.forms.attention.cpu.prepare import spread
from krause_dynamics.forms.attention.lowering import Lowered, leading_shape
from krause_dynamics.interaction import Interaction, Request

ROWS = 128  # queries a block: with 64 calls cost much, with 256 the corner above the diagonal does (measured)


class Sums(NamedTuple):
    """Attention of a call and sums over its weights a_ij, in the dtype of the scores.

    Attributes:
        mean: sum_j a_ij v_j, (b, h, n, d_v) in the dtype of the values.
        log_partition: log Z_i, (b, h, n).
        received: sum_i a_ij, (b, h, m); by group of queries (b, h, G, m).
        entropy: -sum_j a_ij log a_ij in nats, (b, h, n).
        own: a_ii, (b, h, n).
        profile: sum of a_ij over all pairs of i - j = o, (b, h, n + m - 1) from o = -(m - 1) on; None unless asked for.
    """

    mean: Tensor | None
    log_partition: Tensor
    received: Tensor
    entropy: Tensor
    own: Tensor
    profile: Tensor | None


@dataclass(frozen=True)
class Wanted:
    """What is asked of a pass.

    Attributes:
        groups: Whole numbers (n,), the group of each query (negative: none); or the members of groups that may
            overlap, booleans (b, h, G, n), broadcasting over b and h; or None.
        profile: Whether weights are summed by distance.
        mean: Whether the output is.
        sink: Logits (h,), each a further term of a head's denominator without a key; or None.
        curve: In-place function of a block of scores (rows, columns), such as a soft cap; or None.
        seen: Told of every block of weights (batch, head, rows, columns, weights), which it must copy; or None.
    """

    groups: Tensor | None = None
    profile: bool = False
    mean: bool = True
    sink: Tensor | None = None
    curve: Callable[[Tensor], Any] | None = None
    seen: Callable[[int, int, slice, slice, Tensor], Any] | None = None

    @property
    def group_shape(self) -> tuple[int, ...]:
        """(G,), or () without groups."""
        if self.groups is None:
            return ()
        return (self.groups.shape[-2] if self.groups.dtype == torch.bool else int(self.groups.max()) + 1,)


@cache
def _kernel() -> Any:
    # numba takes a second to import: on first use
    return importlib.import_module("krause_dynamics.forms.attention.cpu.sums").weigh_rows


def serves(call: Call) -> str | None:
    """``None`` if a call is summed here, else the reason."""
    q = call.q
    if q.device.type != "cpu" or q.dtype not in DTYPES:
        return "sums in one pass need floating tensors on the CPU"
    plain = call.segments is None and call.log_mass is None and not (call.dropout or call.offset)
    if call.distance or not call.reach.is_band or not plain:
        return "sums in one pass are those of dot products heard from everyone or in a window"
    if torch.backends.mkldnn.matmul.fp32_precision not in by_blocks.EXACT:  # type: ignore[attr-defined]
        return "products of float32 are computed in a lower precision"
    if not by_blocks.finite(call.q, call.k, call.v):
        return "the arrays hold NaN or infinity"
    return None


def attend(call: Call, wanted: Wanted) -> Sums:
    """Output and sums of a call that is served here; no gradients."""
    (b, h, n, _), m, dtype = call.q.shape, call.k.shape[2], score_dtype(call.q)
    received = torch.zeros(b, h, *wanted.group_shape, m, dtype=torch.float64)
    profile = torch.zeros(b, h, n + m - 1, dtype=torch.float64) if wanted.profile else None
    entropy, own, log_partition = (torch.empty(b, h, n, dtype=dtype) for _ in range(3))
    # In the order in which models go on with it: tokens before heads.
    mean = call.v.new_empty(b, n, h, call.v.shape[3]).transpose(1, 2) if wanted.mean else None
    sums = Sums(mean, log_partition, received, entropy, own, profile)
    bounds = call.reach.interval(np.arange(n), m)

    def run(begin: int, end: int) -> None:
        with torch.no_grad():  # of each thread
            for place in range(begin, end):
                _Head(call, wanted, sums, bounds, *divmod(place, h)).run()

    spread(run, b * h, 1)
    return sums._replace(received=received.to(dtype), profile=None if profile is None else profile.to(dtype))


class _Head:
    """One head: its arrays in the dtype of the scores, and where its sums go."""

    def __init__(
        self, call: Call, wanted: Wanted, sums: Sums, bounds: tuple[np.ndarray, np.ndarray], b: int, h: int
    ) -> None:
        (_, heads, n, _), (_, kv_heads, m, _), dtype = call.q.shape, call.k.shape, score_dtype(call.q)
        scale = call.coefficients()[b, h] if isinstance(call.scale, Tensor) else call.scale
        of_keys = b, h * kv_heads // heads
        self.queries, self.keys, self.values = (
            call.q[b, h].to(dtype) * scale,
            call.k[of_keys].to(dtype).mT,
            call.v[of_keys].to(dtype),
        )
        self.pair = None if call.pair_bias is None else call.pair_bias.expand(*call.q.shape[:3], m)[b, h]
        self.members: Tensor | None = None
        self.group = np.zeros(n, np.int64)
        if wanted.groups is not None and wanted.groups.dtype == torch.bool:
            self.members = wanted.groups.expand(*call.q.shape[:2], *wanted.groups.shape[-2:])[b, h].to(dtype)
            self.group -= 1
        elif wanted.groups is not None:
            self.group = wanted.groups.numpy().astype(np.int64)
        self.sink = np.asarray(-np.inf if wanted.sink is None else float(wanted.sink[h]), self.queries.numpy().dtype)[
            ()
        ]
        self.room = torch.empty(min(ROWS, n) * m, dtype=dtype)
        self.rows_of = sums.entropy[b, h].numpy(), sums.own[b, h].numpy(), sums.log_partition[b, h].numpy()
        received = sums.received[b, h]
        self.received = (received if received.ndim == 2 else received[None]).numpy()
        self.profile = (received.new_empty(0) if sums.profile is None else sums.profile[b, h]).numpy()
        self.wanted, self.bounds, self.place, self.sums = wanted, bounds, (b, h), sums

    def run(self) -> None:
        """All rows, a block after the other."""
        n = len(self.queries)
        for start in range(0, n, ROWS):
            self._rows(slice(start, min(n, start + ROWS)))

    def _rows(self, rows: slice) -> None:
        (lower, upper), wanted = self.bounds, self.wanted
        first = int(lower[rows].min())
        columns = slice(first, max(int(upper[rows].max()), first + 1))
        shape = rows.stop - rows.start, columns.stop - first
        weights = torch.mm(self.queries[rows], self.keys[:, columns], out=self.room[: shape[0] * shape[1]].view(shape))
        if wanted.curve is not None:
            wanted.curve(weights)
        if self.pair is not None:
            weights += self.pair[rows, columns]
        place = rows.start, rows.start, first
        _kernel()(
            weights.numpy(), place, self.sink, self.group, lower, upper, self.received, self.profile, *self.rows_of
        )
        if self.members is not None:
            self.received[:, columns] += (self.members[:, rows] @ weights).numpy()
        if self.sums.mean is not None:
            self._mean(weights, rows, columns)
        if wanted.seen is not None:
            wanted.seen(*self.place, rows, columns, weights)

    def _mean(self, weights: Tensor, rows: slice, columns: slice) -> None:
        """The output of these rows, written where it belongs."""
        assert self.sums.mean is not None
        out = self.sums.mean[self.place][rows]
        if out.dtype == weights.dtype:
            torch.mm(weights, self.values[columns], out=out)
        else:
            out.copy_(weights @ self.values[columns])


def lowered(interaction: Interaction, request: Request) -> Call | str:
    """The call that a rule on arrays is, leading axes flattened, where it is served here; else the reason."""
    rule = Lowered.of(interaction)
    call = rule if isinstance(rule, str) else rule.call(interaction, request, leading_shape(request))
    if isinstance(call, str):
        return call
    return call if (reason := serves(call)) is None else reason
