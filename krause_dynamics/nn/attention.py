"""Krause attention on tensors: Gaussian or dot-product scores, windows, grids, top-k and padding in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from krause_dynamics.aggregate import calls
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.interaction import Grid
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.nn import checks
from krause_dynamics.nn.arguments import call_of
from krause_dynamics.nn.hearing import reach_of


def krause_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    neighbourhood: Neighbourhood | None = None,
    *,
    sigma: float | Tensor | None = None,
    score: Literal["gaussian", "dot"] = "gaussian",
    scale: float | Tensor | None = None,
    norm: float | Tensor | None = None,
    sink: Tensor | None = None,
    window: int | None = None,
    top_k: int | None = None,
    causal: bool = False,
    grid: tuple[int, int] | Grid | None = None,
    key_bias: Tensor | None = None,
    pair_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    query_offset: int | None = None,
    dropout: float = 0.0,
    impl: str = "auto",
    return_log_partition: bool = False,
    **old: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of the Krause model: the normalised mean of values over the admitted keys, exact, in O(N W d).

    ``z_i = sum_{j in N(i)} exp(s_ij + key_bias_j) v_j / Z_i`` with
    ``s_ij = -|q_i - k_j|^2 / (2 sigma^2) + pair_bias_ij`` (``score="gaussian"``) or
    ``s_ij = scale <q_i, k_j> - norm |k_j|^2 + pair_bias_ij`` (``"dot"``: softmax attention). N(i) is a neighbourhood
    of the core, padding left out. With a sink, exp(sink_h) joins Z_i and adds nothing to the sum of values.

    Args:
        q: Queries (batch, heads, n, d).
        k: Keys (batch, kv_heads, m, d); kv_heads divides heads.
        v: Values (batch, kv_heads, m, d_v).
        neighbourhood: Who is heard by index and rank: `Window`, `Causal`, `Grid`, `Segments` (packed sequences of one
            batch element), `TopK`, joined with ``&``; by default everyone. The keywords below are short forms, which
            join it.
        sigma: Bandwidth > 0: a number, or a tensor with one entry or one per head. Default d^(1/4), which keeps the
            scale of dot products over sqrt(d). With ``score="dot"`` it stands for ``scale = 1 / sigma^2``.
        score: ``"gaussian"`` or ``"dot"``.
        scale: Instead of sigma, the coefficient a = 1/sigma^2 itself; default 1/sqrt(d).
        norm: Coefficient of the keys' squared norms beside ``score="dot"``: a number, or a tensor with one entry or one
            per head; part of the score, so that it ranks. ``scale = 1/sigma^2, norm = 1/(2 sigma^2)`` has the means
            and ranks of the Gaussian. Default: none.
        sink: Logits (heads,) of a key that nobody is (gpt-oss): row i is multiplied by Z_i / (Z_i + exp(sink_h)).
        window: ``Window(window)``: the last W keys, the query's own counted.
        top_k: ``TopK(top_k)``: exactly k keys after all other restrictions, the earlier one winning a tie; k beyond the
            row means all.
        causal: ``Causal()``: no later keys.
        grid: ``Grid(height, width, radius=2)`` of a picture in raster order, or a `Grid`.
        key_bias: Log masses (m,), (batch, m) or (batch or 1, heads or 1, m): they weigh keys but do not rank them;
            -inf takes a key out.
        pair_bias: Broadcastable to (batch, heads, n, m): part of the score, so that it ranks; -inf forbids a pair.
        key_valid: Boolean (batch, m): false marks padding, on either side; padded keys may hold NaN.
        query_offset: Position of the first query among the keys; default m - n (queries are the last tokens).
        dropout: Probability to drop a weight, after normalisation.
        impl: ``"auto"``, ``"reference"``, ``"banded"``, ``"flex"`` or ``"triton"``; a name never falls back.
        return_log_partition: Return log Z (batch, heads, n) as well, the sink's share included, float32 for half types.
        **old: ``side, ties, radius, metric, prefix_tokens, cu_seqlens`` of the last release, deprecated; the warning
            shows what to write instead.

    Returns:
        (batch, heads, n, d_v), or that and log Z. A row that admits nobody is 0 with log Z = -inf and gradient 0.

    Raises:
        TypeError: Mixed dtypes or devices, integer tensors, a mask that is not boolean.
        ValueError: Shapes that do not fit, sizes below one, sigma <= 0 or NaN, a grid that is not the number of tokens.
        UnsupportedImplementation: ``impl`` cannot compute this; the message says why and what would work.

    Source: Krause Synchronization Transformers, 2602.11534, section 3 (rule of the paper).

    Examples:
        >>> q = k = v = torch.randn(1, 4, 100, 32)
        >>> krause_attention(q, k, v, window=16, top_k=8).shape
        torch.Size([1, 4, 100, 32])
    """
    reach, segments = reach_of(neighbourhood, window, top_k, causal, grid, old)
    call = call_of(
        q, k, v, reach, segments, sigma=sigma, score=score, scale=scale, norm=norm, key_bias=key_bias,
        pair_bias=pair_bias, key_valid=key_valid, query_offset=query_offset, dropout=dropout,
        mean_only=sink is None and not return_log_partition,
    )  # fmt: skip
    out, log_partition = answer(call, impl)
    if sink is not None:
        out, log_partition = with_sink(out, log_partition, sink)
    return (out, log_partition) if return_log_partition else out


WATCHERS: list[Callable[[Call], None]] = []  # told of every call before it is answered; empty but in a recording


def answer(call: Call, impl: str) -> tuple[Tensor, Tensor]:
    """Output (batch, heads, n, d_v) and log Z (batch, heads, n) of a checked call, by the form that ``impl`` names."""
    for watch in WATCHERS:
        watch(call)
    name = calls.choose(call, impl).impl
    if call.q.numel() == 0 or call.k.shape[2] == 0:
        return _nobody(call.q, call.k, call.v)
    return calls.ATTEND[name](call)


def with_sink(out: Tensor, log_partition: Tensor, sink: Tensor) -> tuple[Tensor, Tensor]:
    """Output and log-partition where a sink takes its share.

    Args:
        out: (batch, heads, n, d_v).
        log_partition: (batch, heads, n).
        sink: Logits (heads,).

    Raises:
        TypeError, ValueError: No floating tensor of one entry a head.
    """
    checks.check_sink(sink, out.shape[1])
    logit = sink.to(log_partition)[:, None]
    return out * left_of(log_partition, sink)[..., None].to(out.dtype), torch.logaddexp(log_partition, logit)


def left_of(log_partition: Tensor, sink: Tensor) -> Tensor:
    """Z / (Z + exp(sink)), (batch, heads, n): the weight that the sink leaves to the keys."""
    return torch.sigmoid(log_partition - sink.to(log_partition)[:, None])


def explain(
    q: Tensor, k: Tensor, v: Tensor, neighbourhood: Neighbourhood | None = None, *, impl: str = "auto", **options: Any
) -> tuple[str, str]:
    """Which implementation `krause_attention` takes for these arguments, and why.

    Args:
        q: Queries (batch, heads, n, d).
        k: Keys (batch, kv_heads, m, d).
        v: Values (batch, kv_heads, m, d_v).
        neighbourhood: As in `krause_attention`.
        impl: As there.
        **options: As there.

    Returns:
        Name and reason.

    Raises:
        TypeError, ValueError, UnsupportedImplementation: As `krause_attention`.
    """
    for beside in ("return_log_partition", "sink"):
        options.pop(beside, None)
    return tuple(calls.choose(call_of_options(q, k, v, neighbourhood, options), impl))  # type: ignore[return-value]


def call_of_options(q: Tensor, k: Tensor, v: Tensor, neighbourhood: Neighbourhood | None, options: Any) -> Call:
    """The call that options of `krause_attention` describe.

    Raises:
        TypeError: An option that it does not have.
        ValueError: As `krause_attention`.
    """
    rest = dict(options)
    window, top_k, causal, grid = (rest.pop(name, default) for name, default in _SHORT.items())
    old = {name: rest.pop(name) for name in tuple(rest) if name not in _OTHERS}
    reach, segments = reach_of(neighbourhood, window, top_k, causal, grid, old)
    return call_of(q, k, v, reach, segments, **rest)


def _nobody(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The answer where there is no query or no key; gradients are 0 rather than missing."""
    shape = (*q.shape[:3], v.shape[3])
    nothing = q[..., :0].sum() + k[..., :0].sum() + v[..., :0].sum()
    log_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_zeros(shape) + nothing, q.new_full(shape[:3], -torch.inf, dtype=log_dtype)


_SHORT: dict[str, Any] = {"window": None, "top_k": None, "causal": False, "grid": None}
_OTHERS = ("sigma", "score", "scale", "norm", "key_bias", "pair_bias", "key_valid", "query_offset", "dropout")
