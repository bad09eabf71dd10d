"""Krause attention on tensors: Gaussian or dot-product scores, windows, grids, top-k and padding in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.fused import banded, flex, kernels, operators
from krause_dynamics.fused.lowering import Lowered, Rule
from krause_dynamics.interaction import DotProduct, Gaussian, Interaction, Request
from krause_dynamics.interaction import reference as dense
from krause_dynamics.nn.pattern import Pattern, cached_pattern

logger = logging.getLogger(__name__)

NEVER = -float("inf")
IMPLEMENTATIONS = ("reference", "banded", "flex", "triton")


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
    )  # fmt: skip
    name, _ = choose(q, k, v, lowered, impl)
    out, log_partition = (
        _run_reference(q, k, v, options, lowered) if name == "reference" else _RUN[name](q, k, v, lowered)
    )
    return (out, log_partition) if return_log_partition else out


def explain(q: Tensor, k: Tensor, v: Tensor, *, impl: str = "auto", **options: Any) -> tuple[str, str]:
    """Which implementation `krause_attention` takes for these arguments, and why.

    Returns:
        Name and reason.
    """
    names = ("window", "side", "top_k", "ties", "causal", "grid", "radius", "metric", "prefix_tokens")
    pattern = Pattern(**{name: options.pop(name) for name in names if name in options})
    options.pop("return_log_partition", None)
    lowered = lower_call(q, k, v, pattern.rule, **options)
    return choose(q, k, v, lowered, impl)


def _pattern(*options: Any) -> Pattern:
    grid = options[5]
    return cached_pattern(*options[:5], None if grid is None else tuple(grid), *options[6:])


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _rule_numbers(*options: Any) -> tuple[Any, ...]:
    """The fields of the lowered rule; plain numbers, which the compiler can keep as constants."""
    return tuple(_pattern(*options).rule)


def _cast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast the inputs take its dtype, as with torch's own attention; scores stay float32 all the same."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(x).__name__}; kd.aggregate takes numpy arrays")
    kind = q.device.type
    if not torch.is_autocast_enabled(kind) or q.dtype == torch.float64:
        return q, k, v
    dtype = torch.get_autocast_dtype(kind)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def lower_call(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rule: Rule,
    *,
    sigma: float | Tensor | None = None,
    score: str = "gaussian",
    scale: float | Tensor | None = None,
    key_bias: Tensor | None = None,
    pair_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    query_offset: int | None = None,
    dropout: float = 0.0,
) -> Lowered:
    """Check the arguments of `krause_attention` and write them as `Lowered`.

    Raises:
        TypeError, ValueError: As there.
    """
    _check_tensors(q, k, v)
    n, m = q.shape[2], k.shape[2]
    _check_grid(rule, n, m)
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be a probability in [0, 1), got {dropout!r}")
    if pair_bias is not None:
        _check_broadcast("pair_bias", pair_bias, (q.shape[0], q.shape[1], n, m))
        pair_bias = pair_bias[(None,) * (4 - pair_bias.ndim)]
    if cu_seqlens is not None:
        _check_segments(cu_seqlens, q, k, query_offset)
    return Lowered(
        scale=_coefficient(q, sigma, score, scale),
        distance=score == "gaussian",
        rule=rule,
        log_mass=_log_mass(q, k, key_bias, key_valid),
        pair_bias=pair_bias,
        segments=cu_seqlens,
        query_offset=m - n if query_offset is None else query_offset,
        dropout=float(dropout),
        mask_only=key_bias is None,
    )


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise ValueError(f"{name} must have shape (batch, heads, tokens, dim), got {tuple(x.shape)}")
        if x.dtype != q.dtype or x.device != q.device:
            raise TypeError(
                f"q and {name} must share dtype and device, got {q.dtype} on {q.device} and {x.dtype} on {x.device}"
            )
    if q.dtype not in banded.DTYPES:
        raise TypeError(f"q, k, v must be float64, float32, bfloat16 or float16, got {q.dtype}; convert them")
    if k.shape[:3] != v.shape[:3] or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            "q (b, h, n, d), k (b, h_kv, m, d) and v (b, h_kv, m, d_v) do not fit, got "
            f"{tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"the number of key heads must divide the number of heads, got {k.shape[1]} and {q.shape[1]}")


def _check_grid(rule: Rule, n: int, m: int) -> None:
    if not rule.grid:
        return
    height, width, _, _, prefix = rule.grid
    if m != height * width + prefix or n != m:
        raise ValueError(
            f"grid={(height, width)} with prefix_tokens={prefix} has {height * width + prefix} tokens, got {n} queries "
            f"and {m} keys; pass the grid of this input"
        )


def _check_broadcast(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    if not x.is_floating_point():
        raise TypeError(f"{name} holds log-weights and must be floating, got {x.dtype}; a boolean mask: key_valid, or "
                        "torch.where(mask, 0.0, -torch.inf)")  # fmt: skip
    fits = x.ndim <= len(shape) and all(a in (1, b) for a, b in zip(reversed(x.shape), reversed(shape), strict=False))
    if not fits:
        raise ValueError(f"{name} must broadcast to {tuple(shape)}, got {tuple(x.shape)}")


def _check_segments(cu_seqlens: Tensor, q: Tensor, k: Tensor, query_offset: int | None) -> None:
    if cu_seqlens.ndim != 1 or cu_seqlens.is_floating_point() or cu_seqlens.dtype == torch.bool:
        raise TypeError(
            f"cu_seqlens must be one-dimensional integers, got {cu_seqlens.dtype} {tuple(cu_seqlens.shape)}"
        )
    if q.shape[2] != k.shape[2] or query_offset:
        raise ValueError(
            f"cu_seqlens packs queries and keys alike, got {q.shape[2]} queries, {k.shape[2]} keys, "
            f"query_offset={query_offset}; use one call per sequence to decode"
        )
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        ends = int(cu_seqlens[0]), int(cu_seqlens[-1])
        if ends != (0, q.shape[2]) or bool((cu_seqlens.diff() < 0).any()):
            raise ValueError(f"cu_seqlens must rise from 0 to {q.shape[2]} tokens, got {cu_seqlens.tolist()}")


def _coefficient(q: Tensor, sigma: Any, score: str, scale: Any) -> Tensor:
    """Coefficient a of the score as (1 or batch, 1 or heads), in the dtype in which scores are computed."""
    if score not in ("gaussian", "dot"):
        raise ValueError(f"score must be 'gaussian' or 'dot', got {score!r}")
    if sigma is not None and scale is not None:
        raise ValueError(f"give sigma or scale = 1/sigma^2, not both, got sigma={sigma!r}, scale={scale!r}")
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    name, value = ("sigma", sigma) if scale is None else ("scale", scale)
    if value is None:
        value = q.shape[3] ** 0.25
    _check_positive(name, value, score)
    value = torch.as_tensor(value, dtype=dtype, device=q.device)
    if value.ndim == 2 and value.shape[0] in (1, q.shape[0]) and value.shape[1] in (1, q.shape[1]):
        pass
    elif value.numel() in (1, q.shape[1]):
        value = value.reshape(1, -1)
    else:
        raise ValueError(f"{name} must have one entry or one per head ({q.shape[1]}), got shape {tuple(value.shape)}")
    return value if name == "scale" else value**-2


def _check_positive(name: str, value: Any, score: str) -> None:
    """Check sigma > 0, and a > 0 of a Gaussian; on a device or while compiling the value is not looked at."""
    if name == "scale" and score == "dot":
        return
    if isinstance(value, Tensor):
        unseen = value.device.type != "cpu" or torch.compiler.is_compiling() or _transformed()
        positive = unseen or bool((value.detach() > 0).all())
    else:
        positive = float(value) > 0  # false for NaN
    if not positive:
        raise ValueError(f"{name} must be positive, got {value}; learn its logarithm to keep it so")


def _log_mass(q: Tensor, k: Tensor, key_bias: Tensor | None, key_valid: Tensor | None) -> Tensor | None:
    """(batch or 1, heads or 1, m) log masses of the keys, -inf where they are padding."""
    batch, heads, m = q.shape[0], q.shape[1], k.shape[2]
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    if key_bias is not None:
        if key_bias.ndim == 2:
            key_bias = key_bias[:, None]
        _check_broadcast("key_bias", key_bias, (batch, heads, m))
        key_bias = key_bias[(None,) * (3 - key_bias.ndim)].to(dtype)
    if key_valid is None:
        return key_bias
    if key_valid.dtype != torch.bool:
        raise TypeError(f"key_valid must be boolean, got {key_valid.dtype}; an additive mask is key_bias or pair_bias")
    if tuple(key_valid.shape) not in ((batch, m), (1, m)):
        raise ValueError(f"key_valid must have shape (batch, m) = {(batch, m)}, got {tuple(key_valid.shape)}")
    padding = ~key_valid[:, None]
    if key_bias is None:
        return torch.zeros(padding.shape, dtype=dtype, device=q.device).masked_fill(padding, NEVER)
    return key_bias.masked_fill(padding, NEVER)


def _transformed() -> bool:
    """Whether a function transform (vmap, jvp, ...) is at work; operators know nothing of them."""
    return torch._C._functorch.maybe_current_level() is not None


def _has_tangent(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether forward-mode differentiation looks on: an operator would silently return no tangent."""
    if forward_ad._current_level < 0:
        return False
    return any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def unsupported(name: str, q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> str | None:
    """``None`` if an implementation can compute this, else the reason why not."""
    if name == "reference":
        return "dropout is not part of the definition" if lowered.dropout else None
    given = (q, k, v, lowered.scale, lowered.log_mass, lowered.pair_bias)
    if not torch.compiler.is_compiling() and (_transformed() or _has_tangent(given)):
        return "forward-mode differentiation and function transforms run on the reference"
    if name == "banded":
        return banded.supports_tensors(q, lowered)
    module = flex if name == "flex" else kernels
    return module.supports_tensors(q, k, v, lowered)


def choose(
    q: Tensor, k: Tensor, v: Tensor, lowered: Lowered, impl: str
) -> tuple[Literal["reference", "banded", "flex", "triton"], str]:
    """Name of the implementation to run and the reason.

    Raises:
        UnsupportedImplementation: An explicit ``impl`` cannot compute this.
    """
    if impl == "auto":
        if q.device.type == "cuda" and unsupported("triton", q, k, v, lowered) is None:
            return "triton", "one kernel, exact"
        reason = unsupported("banded", q, k, v, lowered)
        return ("banded", "exact in O(N W) on any device") if reason is None else ("reference", reason)
    if impl not in IMPLEMENTATIONS:
        raise UnsupportedImplementation(f"impl must be 'auto' or one of {IMPLEMENTATIONS}, got {impl!r}")
    reason = unsupported(impl, q, k, v, lowered)
    if reason is not None:
        raise UnsupportedImplementation(f"impl={impl!r} cannot compute this: {reason}; use impl='auto'")
    return impl, "asked for"  # type: ignore[return-value]


def interaction(pattern: Pattern, lowered: Lowered) -> Interaction:
    """The rule as an `Interaction` of the core: what every implementation must equal."""
    a = lowered.scale[..., None]  # (batch or 1, heads or 1, 1) broadcasts against log Z
    # The parameter was checked at the border; looking at it again would stall a GPU and break function transforms.
    score = object.__new__(Gaussian if lowered.distance else DotProduct)
    object.__setattr__(score, *(("sigma", a**-0.5) if lowered.distance else ("beta", a)))
    return Interaction(score, pattern.neighbourhood, pair_bias=_all_pairs_bias(lowered))


def _all_pairs_bias(lowered: Lowered) -> Tensor | None:
    """Pair bias with the walls between packed sequences, which the core has no neighbourhood for."""
    if lowered.segments is None:
        return lowered.pair_bias
    n = int(lowered.segments[-1])
    position = torch.arange(n, device=lowered.scale.device)
    owner = torch.searchsorted(lowered.segments.to(position.dtype), position, right=True)
    walls = torch.zeros(n, n, dtype=lowered.scale.dtype, device=position.device)
    walls = walls.masked_fill(owner[:, None] != owner, NEVER)
    return walls if lowered.pair_bias is None else lowered.pair_bias + walls


def _run_reference(
    q: Tensor, k: Tensor, v: Tensor, options: tuple[Any, ...], lowered: Lowered
) -> tuple[Tensor, Tensor]:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    n, m = q.shape[2], k.shape[2]
    mass = lowered.log_mass
    if mass is not None:
        mass = mass.to(q.dtype).expand(*k.shape[:3])
    rule, device = interaction(_pattern(*options), lowered), q.device
    request = Request.of(q, k, v, log_mass=mass)
    positions = torch.arange(n, device=device) + lowered.query_offset, torch.arange(m, device=device)
    # The bias is indexed by place in the call, index rules by position: the places stay "ranks".
    return dense.aggregate(rule, replace(request, query_index=positions[0], source_index=positions[1]))


_RUN: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "banded": operators.banded,
    "flex": flex.flex,
    "triton": kernels.kernels,
}
