"""Arguments of `krause_attention`, checked at the border, as the `Call` that every attention form takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from krause_dynamics.forms.attention.call import NEVER, Call, score_dtype
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn import checks


def call_of(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    reach: Reach,
    segments: Tensor | None = None,
    *,
    sigma: float | Tensor | None = None,
    score: str = "gaussian",
    scale: float | Tensor | None = None,
    key_bias: Tensor | None = None,
    pair_bias: Tensor | None = None,
    key_valid: Tensor | None = None,
    query_offset: int | None = None,
    dropout: float = 0.0,
    norm: float | Tensor | None = None,
    mean_only: bool = False,
) -> Call:
    """Check the arguments of `krause_attention` and write them as a `Call`.

    Raises:
        TypeError, ValueError: As there.
    """
    q, k, v = _cast(q, k, v)
    checks.check_tokens(q, k, v)
    n, m = q.shape[2], k.shape[2]
    if reach.random[2:3] not in ((), (0,), (m,)):
        raise ValueError(f"RandomKeys has {reach.random[2]} tokens, got {m} keys; give it tokens={m}")
    if reach.grid:
        checks.check_grid(reach, n, m, query_offset)
    if dropout != 0.0 or query_offset is not None:
        checks.check_numbers(dropout, query_offset)
    if pair_bias is not None:
        checks.check_bias("pair_bias", pair_bias, (q.shape[0], q.shape[1], n, m))
        pair_bias = pair_bias[(None,) * (4 - pair_bias.ndim)]
    if segments is not None:
        checks.check_segments(segments, n, m, query_offset)
        segments = segments.to(q.device)
    log_mass = None
    if key_bias is not None or key_valid is not None:
        log_mass = _log_mass(q, k, key_bias, key_valid)
    call = Call(
        q, k, v, _coefficient(q, sigma, score, scale), score == "gaussian", reach, log_mass, pair_bias, segments,
        m - n if query_offset is None else query_offset, float(dropout), 0, key_bias is None, mean_only,
    )  # fmt: skip
    return call if norm is None else call.with_norm(_norm(q, norm, score))


def _cast(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Under autocast the inputs take its dtype, as with torch's own attention; scores stay float32 all the same."""
    if not isinstance(q, Tensor) or q.dtype == torch.float64:
        return q, k, v
    kind = q.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return q, k, v
    dtype = torch.get_autocast_dtype(kind)
    return q.to(dtype), k.to(dtype), v.to(dtype)


def _coefficient(q: Tensor, sigma: Any, score: str, scale: Any) -> Tensor | float:
    """Coefficient a of the score: a number, or (1 or batch, 1 or heads) in the dtype in which scores are computed."""
    if score not in ("gaussian", "dot"):
        raise ValueError(f"score must be 'gaussian' or 'dot', got {score!r}")
    if sigma is not None and scale is not None:
        raise ValueError(f"give sigma or scale = 1/sigma^2, not both, got sigma={sigma!r}, scale={scale!r}")
    name, value = ("sigma", sigma) if scale is None else ("scale", scale)
    if value is None:
        return q.shape[3] ** -0.5  # type: ignore[no-any-return]
    checks.check_coefficient(name, value, positive=name == "sigma" or score == "gaussian")
    if not isinstance(value, Tensor):
        return value if name == "scale" else value**-2  # type: ignore[no-any-return]
    value = _per_head(q, name, value)
    return value if name == "scale" else value**-2


def _norm(q: Tensor, norm: Any, score: str) -> Tensor | float:
    """Coefficient of the keys' squared norms: a number, or (1 or batch, 1 or heads)."""
    if score != "dot":
        raise ValueError(f"norm belongs to score='dot', got norm={norm!r} beside score={score!r}")
    checks.check_coefficient("norm", norm, positive=False)
    return _per_head(q, "norm", norm) if isinstance(norm, Tensor) else norm


def _per_head(q: Tensor, name: str, value: Tensor) -> Tensor:
    """A parameter as (1 or batch, 1 or heads) in the dtype in which scores are computed."""
    value = value.to(q.device, score_dtype(q))
    if value.ndim == 2 and value.shape[0] in (1, q.shape[0]) and value.shape[1] in (1, q.shape[1]):
        return value
    if value.numel() in (1, q.shape[1]):
        return value.reshape(1, -1)
    raise ValueError(f"{name} must have one entry or one per head ({q.shape[1]}), got shape {tuple(value.shape)}")


def _log_mass(q: Tensor, k: Tensor, key_bias: Tensor | None, key_valid: Tensor | None) -> Tensor | None:
    """(batch or 1, heads or 1, m) log masses of the keys, -inf where they are padding."""
    batch, heads, m = q.shape[0], q.shape[1], k.shape[2]
    if key_bias is not None:
        per_batch = isinstance(key_bias, Tensor) and key_bias.ndim == 2
        checks.check_bias("key_bias", key_bias, (batch, m) if per_batch else (batch, heads, m))
        key_bias = key_bias[:, None] if per_batch else key_bias[(None,) * (3 - key_bias.ndim)]
        key_bias = key_bias.to(score_dtype(q))
    if key_valid is None:
        return key_bias
    checks.check_valid(key_valid, batch, m)
    if key_bias is None:
        return torch.where(key_valid[:, None], 0.0, NEVER).to(score_dtype(q))
    return key_bias.masked_fill(~key_valid[:, None], NEVER)
