"""Krause attention on tensors: Gaussian or dot-product scores, windows, grids, top-k and padding in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from krause_dynamics.forms.attention import flex, kernels, operators
from krause_dynamics.forms.attention.lowering import Rule
from krause_dynamics.nn.arguments import lower_call
from krause_dynamics.nn.choice import choose
from krause_dynamics.nn.dense import run_reference
from krause_dynamics.nn.pattern import Pattern, cached_pattern, split_options


def krause_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    sigma: float | Tensor | None = None,
    score: Literal["gaussian", "dot"] = "gaussian",
    scale: float | Tensor | None = None,
    window: int | None = None,
    side: Literal["past", "both"] = "past",
    top_k: int | None = None,
    ties: Literal["index", "keep"] = "index",
    causal: bool = False,
    grid: tuple[int, int] | None = None,
    radius: int = 2,
    metric: Literal["chebyshev", "manhattan"] = "chebyshev",
    prefix_tokens: int = 0,
    key_bias: Tensor | None = None,
    pair_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    query_offset: int | None = None,
    dropout: float = 0.0,
    impl: str = "auto",
    return_log_partition: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention of the Krause model: the normalised mean of values over the admitted keys, exact, in O(N W d).

    ``z_i = sum_{j in N(i)} exp(s_ij + key_bias_j) v_j / Z_i`` with
    ``s_ij = -|q_i - k_j|^2 / (2 sigma^2) + pair_bias_ij`` (``score="gaussian"``) or
    ``s_ij = scale <q_i, k_j> + pair_bias_ij`` (``"dot"``: softmax attention). N(i) holds the ``top_k`` largest s_ij
    among the keys which window, grid, causality, padding and segments leave.

    Args:
        q: Queries (batch, heads, n, d).
        k: Keys (batch, kv_heads, m, d); kv_heads divides heads.
        v: Values (batch, kv_heads, m, d_v).
        sigma: Bandwidth > 0: a number, or a tensor with one entry or one per head. Default d^(1/4), which keeps the
            scale of dot products over sqrt(d). With ``score="dot"`` it stands for ``scale = 1 / sigma^2``.
        score: ``"gaussian"`` or ``"dot"``.
        scale: Instead of sigma, the coefficient a = 1/sigma^2 itself; default 1/sqrt(d).
        window: The last W keys, the query's own counted.
        side: ``"past"``, or ``"both"`` (odd W, centred).
        top_k: Exactly k keys after all other restrictions; k beyond the row means all.
        ties: ``"index"``: the earlier key wins; ``"keep"``: all that tie with the k-th stay.
        causal: No later keys; with a window its past form.
        grid: (height, width): neighbourhood of a picture in raster order, shrinking at the edges.
        radius: Of the grid neighbourhood, in cells.
        metric: ``"chebyshev"`` or ``"manhattan"``.
        prefix_tokens: Leading tokens of a grid (CLS, registers) which hear all and are heard by all.
        key_bias: Log masses (m,), (batch, m) or (batch or 1, heads or 1, m): they weigh keys but do not rank them;
            -inf takes a key out.
        pair_bias: Broadcastable to (batch, heads, n, m): part of the score, so that it ranks; -inf forbids a pair.
        key_valid: Boolean (batch, m): false marks padding, on either side; padded keys may hold NaN.
        cu_seqlens: (s + 1,) integers 0 = c_0 < ... = n: packed sequences of one batch element do not hear each other.
        query_offset: Position of the first query among the keys; default m - n (queries are the last tokens).
        dropout: Probability to drop a weight, after normalisation.
        impl: ``"auto"``, ``"reference"``, ``"banded"``, ``"flex"`` or ``"triton"``; a name never falls back.
        return_log_partition: Return log Z (batch, heads, n) as well, float32 for half types.

    Returns:
        (batch, heads, n, d_v), or that and log Z. A row that admits nobody is 0 with log Z = -inf and gradient 0.

    Raises:
        TypeError: Mixed dtypes or devices, integer tensors, a mask that is not boolean.
        ValueError: Shapes that do not fit, sizes below one, sigma <= 0 or NaN, a grid that is not the number of tokens.
        UnsupportedImplementation: ``impl`` cannot compute this; the message says why and what would work.

    Source: Krause Synchronization Transformers, 2602.11534, section 3 (rule of the paper).

    Example:
        >>> q = k = v = torch.randn(1, 4, 100, 32)
        >>> krause_attention(q, k, v, window=16, top_k=8).shape
        torch.Size([1, 4, 100, 32])
    """
    options = (window, side, top_k, ties, causal, grid, radius, metric, prefix_tokens)
    q, k, v = _cast(q, k, v)
    lowered = lower_call(
        q, k, v, Rule(*_rule_numbers(*options)), sigma=sigma, score=score, scale=scale, key_bias=key_bias,
        pair_bias=pair_bias, key_valid=key_valid, cu_seqlens=cu_seqlens, query_offset=query_offset, dropout=dropout,
        mean_only=not return_log_partition,
    )  # fmt: skip
    name, _ = choose(q, k, v, lowered, impl)
    if q.numel() == 0 or k.shape[2] == 0:
        out, log_partition = _nobody(q, k, v)
    elif name == "reference":
        out, log_partition = run_reference(q, k, v, _pattern(*options), lowered)
    else:
        out, log_partition = _RUN[name](q, k, v, lowered)
    return (out, log_partition) if return_log_partition else out


def explain(q: Tensor, k: Tensor, v: Tensor, *, impl: str = "auto", **options: Any) -> tuple[str, str]:
    """Which implementation `krause_attention` takes for these arguments, and why.

    Returns:
        Name and reason.

    Raises:
        TypeError, ValueError, UnsupportedImplementation: As `krause_attention`.
    """
    options.pop("return_log_partition", None)
    pattern, rest = split_options(options)
    q, k, v = _cast(q, k, v)
    return choose(q, k, v, lower_call(q, k, v, pattern.rule, **rest), impl)


def _pattern(*options: Any) -> Pattern:
    grid = options[5]
    return cached_pattern(*options[:5], tuple(grid) if isinstance(grid, list) else grid, *options[6:])


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _rule_numbers(*options: Any) -> tuple[Any, ...]:
    """The fields of the lowered rule; plain numbers, which the compiler can keep as constants."""
    return tuple(_pattern(*options).rule)


def _cast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast the inputs take its dtype, as with torch's own attention; scores stay float32 all the same."""
    if not isinstance(q, Tensor) or q.dtype == torch.float64:
        return q, k, v
    kind = q.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return q, k, v
    dtype = torch.get_autocast_dtype(kind)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def _nobody(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The answer where there is no query or no key; gradients are 0 rather than missing."""
    shape = (*q.shape[:3], v.shape[3])
    nothing = q[..., :0].sum() + k[..., :0].sum() + v[..., :0].sum()
    log_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_zeros(shape) + nothing, q.new_full(shape[:3], -torch.inf, dtype=log_dtype)


_RUN: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "banded": operators.banded,
    "flex": flex.flex,
    "triton": kernels.kernels,
}
